"""What goes first within a budget: the best, but nothing starves."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.batching.scores.budget import CARRY_GAP_MS, NO_AGES, PLAIN, Budget, choose, older, terms_of

pytestmark = pytest.mark.pure
SIZES = st.lists(st.integers(1, 400), min_size=1, max_size=30)


def test_the_first_message_is_the_best_that_fits() -> None:
    assert choose([10, 20, 30, 5], [0, 0, 0, 0], 59) == {0, 1}
    assert choose([10, 20, 30, 5], [0, 0, 0, 0], 65) == {0, 1, 2, 3}


def test_at_least_one_goes_however_large_it_is() -> None:
    assert choose([500, 1], [0, 0], 10) == {0}
    assert choose([1, 500], [0, 3], 10) == {1}
    assert choose([500, 1], [0, 0], -300) == {0}


def test_half_the_room_is_for_those_left_out_longest_and_the_rest_for_the_best() -> None:
    assert choose([10] * 8, [0, 0, 0, 0, 1, 2, 1, 1], 40) == {5, 4, 0, 1}


@given(SIZES, st.data())
def test_it_always_moves_on_and_stays_within_the_room_but_for_one_that_is_too_large(
    sizes: list[int], data: st.DataObject
) -> None:
    ages = data.draw(st.lists(st.integers(0, 3), min_size=len(sizes), max_size=len(sizes)))
    room = data.draw(st.integers(-50, 2000))
    chosen = choose(sizes, ages, room)
    assert chosen
    assert sum(sizes[place] for place in chosen) <= room or len(chosen) == 1


@dataclass
class Rounds:
    """Messages one after another: by slot the size of what differs, and a new order of the slots for each message."""

    sizes: dict[int, int]
    room: int
    ages: dict[int, int] = field(default_factory=dict)

    def send(self, order: list[int]) -> set[int]:
        waiting = [slot for slot in order if slot in self.sizes]
        places = choose([self.sizes[s] for s in waiting], [self.ages.get(s, 0) for s in waiting], self.room)
        sent = {waiting[place] for place in places}
        self.ages = dict(older((slot for slot in waiting if slot not in sent), self.ages))
        for slot in sent:
            del self.sizes[slot]
        return sent


@given(SIZES, st.integers(1, 600), st.randoms(use_true_random=False), st.integers(1, 5))
def test_what_was_left_out_is_out_soon_though_better_events_change_in_every_message(
    sizes: list[int], room: int, dice: object, rivals: int
) -> None:
    assert hasattr(dice, "shuffle")
    rounds = Rounds(dict(enumerate(sizes)), room)
    better = list(range(1000, 1000 + rivals))
    rounds.sizes |= dict.fromkeys(better, 300)
    waiting = set(rounds.sizes) - rounds.send([*better, *range(len(sizes))])
    most, number = len(waiting), 0
    while waiting:
        number += 1
        assert number <= most, f"{waiting} still wait after {most} messages"
        rounds.sizes |= dict.fromkeys(better, 300)
        order = list(range(len(sizes)))
        dice.shuffle(order)
        waiting -= rounds.send([*better, *order])


def test_who_asks_for_nothing_is_like_everybody_else() -> None:
    assert Budget.asked(delta=False, min_interval_ms=None, max_bytes=None) is PLAIN
    assert Budget.asked(delta=False, min_interval_ms=0, max_bytes=None) is PLAIN
    assert terms_of(Budget(min_interval_ms=5000), NO_AGES, 40) is None, "its messages are those of the others"


def test_what_is_carried_over_follows_after_the_longer_of_the_two_waits() -> None:
    assert Budget(max_bytes=1024).rest_ms(carrying=False) == 0
    assert Budget(max_bytes=1024).rest_ms(carrying=True) == CARRY_GAP_MS
    assert Budget(min_interval_ms=5000, max_bytes=1024).rest_ms(carrying=True) == 5000
    assert Budget(min_interval_ms=5, max_bytes=1024).rest_ms(carrying=True) == CARRY_GAP_MS


def test_terms_leave_room_for_what_is_each_connections_own() -> None:
    terms = terms_of(Budget(max_bytes=1024), NO_AGES, 40)
    assert terms is not None
    assert (terms.room, terms.delta) == (984, False)
