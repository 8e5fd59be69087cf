"""Who is asked for in which batch: against brute force on small worlds, and what is promised on large ones."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from server.batching.schedules import plan as p
from server.batching.schedules.plan import Custom, Plan, Seat

pytestmark = pytest.mark.pure

NOW = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
CAPACITY = 10


@st.composite
def lines(draw: st.DrawFn, most: int = 12, capacity: int = CAPACITY, over: int = 0) -> list[Seat]:
    """The batches of a line, some of them paused or set aside; `over`: by how much one may hold too many."""
    seats = []
    for index in range(draw(st.integers(1, most))):
        active, paused = draw(st.sampled_from([(True, False)] * 4 + [(False, False), (True, True)]))
        load = draw(st.integers(0, capacity + over))
        seats.append(Seat(index, load, capacity, active, paused))
    return seats


def carried_out(seats: Sequence[Seat], plan: Plan, capacity: int = CAPACITY) -> list[Seat]:
    """The line after a plan, business by business: each is named, so that none is lost or doubled unseen."""
    people = {seat.index: [(seat.index, n) for n in range(seat.load)] for seat in seats}
    before = sorted(name for names in people.values() for name in names)
    people.update({index: [] for index in plan.created})
    for transfer in plan.transfers:
        assert transfer.source != transfer.target
        for _ in range(transfer.count):
            people[transfer.target].append(people[transfer.source].pop(0))
    assert sorted(name for names in people.values() for name in names) == before
    moved = sum(name[0] != index for index, names in people.items() for name in names)
    assert moved == plan.moves, "somebody was moved twice, or out and back"
    kept = [replace(s, load=len(people[s.index]), active=s.active and s.index not in plan.retired) for s in seats]
    return kept + [Seat(index, len(people[index]), capacity) for index in plan.created]


def test_the_base_schedules_are_thirty_two() -> None:
    assert len(p.BASE_LINES) == 32 == len(set(p.BASE_LINES))
    assert {line.hours for line in p.BASE_LINES} == {6, 12, 24, 72}


# Intervals


@pytest.mark.parametrize(
    ("tier", "type", "hours"),
    [
        ("starter", "reviews", 24),
        ("starter", "overview", 48),
        ("professional", "reviews", 12),
        ("professional", "overview", 24),
        ("enterprise", "reviews", 6),
        ("enterprise", "overview", 12),
    ],
)
def test_a_tier_has_its_intervals(tier: p.Tier, type: p.Type, hours: int) -> None:
    assert p.hours_of(tier, type, None, NOW) == hours


def test_an_interval_of_its_own_wins_until_the_moment_it_expires() -> None:
    own = Custom(3, NOW)
    assert p.hours_of("enterprise", "reviews", own, NOW - dt.timedelta(microseconds=1)) == 3
    assert p.hours_of("enterprise", "reviews", own, NOW) == 6
    assert p.hours_of("enterprise", "reviews", Custom(168), NOW) == 168


@pytest.mark.parametrize("tier", ["starter", "professional"])
def test_only_an_enterprise_team_has_an_interval_of_its_own(tier: p.Tier) -> None:
    assert p.hours_of(tier, "reviews", Custom(3), NOW) == p.TIER_HOURS[tier]["reviews"]


@pytest.mark.parametrize(
    ("load", "grade"),
    [(0, "healthy"), (79, "healthy"), (80, "warning"), (94, "warning"), (95, "critical"), (101, "critical")],
)
def test_a_batch_is_graded_by_its_load(load: int, grade: str) -> None:
    assert p.health(load, 100) == grade


# Placing


def test_the_least_loaded_batch_is_chosen_and_of_equals_the_first() -> None:
    seats = [Seat(0, 5, 10), Seat(1, 3, 10), Seat(2, 3, 10)]
    assert p.seats(seats, 4, 10) == [1, 2, 1, 2]


def test_a_new_batch_is_made_when_all_are_full() -> None:
    assert p.seats([Seat(0, 9, 10), Seat(1, 10, 10)], 3, 2) == [0, 2, 2]
    assert p.seats([], 3, 2) == [0, 0, 1]


def test_a_paused_batch_gets_nothing_and_one_set_aside_only_when_the_others_are_full() -> None:
    seats = [Seat(0, 1, 10, paused=True), Seat(1, 0, 2, active=False), Seat(2, 9, 10)]
    assert p.seats(seats, 4, 10) == [2, 1, 1, 3]


@settings(deadline=None)
@given(lines(), st.integers(0, 60))
def test_many_are_placed_as_if_one_by_one(seats: list[Seat], wanted: int) -> None:
    together = p.seats(seats, wanted, CAPACITY)
    one_by_one, now = [], list(seats)
    for _ in range(wanted):
        [index] = p.seats(now, 1, CAPACITY)
        one_by_one.append(index)
        known = {seat.index: seat for seat in now}
        seat = known.get(index, Seat(index, 0, CAPACITY))
        now = [*(s for s in now if s.index != index), replace(seat, load=seat.load + 1, active=True)]
    assert together == one_by_one


@settings(deadline=None)
@given(lines(), st.integers(0, 60))
def test_placing_never_exceeds_a_capacity_nor_touches_what_is_paused(seats: list[Seat], wanted: int) -> None:
    counts = Counter(p.seats(seats, wanted, CAPACITY))
    assert sum(counts.values()) == wanted
    known = {seat.index: seat for seat in seats}
    for index, count in counts.items():
        seat = known.get(index, Seat(index, 0, CAPACITY))
        assert seat.load + count <= seat.capacity and not seat.paused
    new = sorted(set(counts) - set(known))
    assert new == list(range(len(seats), len(seats) + len(new)))


@settings(deadline=None)
@given(lines(), st.integers(1, 60))
def test_the_store_need_only_show_as_many_batches_as_are_wanted(seats: list[Seat], wanted: int) -> None:
    """What store.ROOM reads: the least loaded, the first of those set aside, and the last one."""
    room = sorted((s for s in seats if s.open and s.room), key=lambda s: (s.load, s.index))[:wanted]
    aside = [s for s in seats if not s.active and not s.paused and s.room][:wanted]
    shown = {seat.index: seat for seat in [*room, *aside, seats[-1]]}
    assert p.seats(list(shown.values()), wanted, CAPACITY) == p.seats(seats, wanted, CAPACITY)


# Rebalancing


def fewest_moves(seats: Sequence[Seat]) -> int:
    """By trying every way to share the same number out within the rule."""
    total, most = sum(s.load for s in seats), p.spread_allowed(sum(s.load for s in seats), len(seats))

    def shares(left: int, places: Sequence[Seat]) -> Iterator[list[int]]:
        if not places:
            if not left:
                yield []
            return
        for load in range(min(left, places[0].capacity) + 1):
            yield from ([load, *rest] for rest in shares(left - load, places[1:]))

    goals = (goal for goal in shares(total, seats) if max(goal) - min(goal) <= most)
    return min(sum(max(0, s.load - g) for s, g in zip(seats, goal, strict=True)) for goal in goals)


@settings(max_examples=75, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=4))
def test_rebalancing_takes_the_fewest_moves_there_are(loads: list[int]) -> None:
    seats = [Seat(index, load, 12) for index, load in enumerate(loads)]
    assert p.rebalance(seats, 12).moves == fewest_moves(seats)


@settings(deadline=None)
@given(lines(most=20, capacity=50, over=30))
def test_after_rebalancing_the_loads_are_even_within_capacity_and_nothing_is_left_to_do(seats: list[Seat]) -> None:
    plan = p.rebalance(seats, 50)
    after = carried_out(seats, plan, 50)
    assert not p.unbalanced(after)
    assert p.rebalance(after, 50).idle
    assert all(seat.load <= seat.capacity for seat in after if seat.open)
    assert [s for s in after if not s.open] == [s for s in seats if not s.open]


@settings(deadline=None)
@given(lines(most=20, capacity=50))
def test_rebalancing_within_capacity_makes_no_batches(seats: list[Seat]) -> None:
    assert not p.rebalance(seats, 50).created


def test_a_spread_within_a_fifth_of_the_mean_is_left_alone() -> None:
    assert p.rebalance([Seat(0, 22, 50), Seat(1, 18, 50)], 50).idle
    assert p.rebalance([Seat(0, 23, 50), Seat(1, 18, 50)], 50).moves == 1


def test_a_difference_of_one_is_no_spread() -> None:
    assert p.rebalance([Seat(0, 1, 50), Seat(1, 0, 50)], 50).idle


def test_a_batch_whose_capacity_was_lowered_is_relieved_into_a_new_one() -> None:
    plan = p.rebalance([Seat(0, 50, 30), Seat(1, 28, 30)], 30)
    after = carried_out([Seat(0, 50, 30), Seat(1, 28, 30)], plan, 30)
    assert plan.created == (2,) and max(seat.load for seat in after) <= 30


# Consolidating


def drainable(seats: Sequence[Seat]) -> bool:
    """The rule, said slowly: somebody is under the mark and all of it has room elsewhere."""
    open_ = [s for s in seats if s.open]
    return len(open_) > 1 and any(
        s.load < p.UNDERUSED * s.capacity and s.load <= sum(o.room for o in open_ if o is not s) for s in open_
    )


@settings(deadline=None)
@given(lines(most=20, capacity=50))
def test_after_consolidating_nothing_is_left_that_could_be_emptied(seats: list[Seat]) -> None:
    plan = p.consolidate(seats)
    after = carried_out(seats, plan, 50)
    assert not drainable(after) and p.consolidate(after).idle
    assert plan.idle or drainable(seats)
    assert all(seat.load <= seat.capacity for seat in after)
    assert all(seat.load == 0 for seat in after if seat.index in plan.retired)
    assert any(seat.open for seat in after) or not any(seat.open for seat in seats)


@settings(deadline=None)
@given(lines(most=20, capacity=50))
def test_consolidating_moves_only_what_was_in_the_emptied_batches_the_smallest_of_all(seats: list[Seat]) -> None:
    plan = p.consolidate(seats)
    retired = [seat.load for seat in seats if seat.index in plan.retired]
    kept = [seat.load for seat in seats if seat.open and seat.index not in plan.retired]
    assert plan.moves == sum(retired)
    assert not retired or max(retired) <= min(kept)


def fewest_to_consolidate(seats: Sequence[Seat]) -> int:
    """By trying every set of batches to empty, and every way to share out what was in them."""

    def poured(left: int, places: list[Seat]) -> Iterator[list[Seat]]:
        if not places:
            if not left:
                yield []
            return
        for count in range(min(left, places[0].room) + 1):
            first = replace(places[0], load=places[0].load + count)
            yield from ([first, *rest] for rest in poured(left - count, places[1:]))

    best = None
    for size in range(len(seats)):
        for gone in combinations(seats, size):
            moves = sum(seat.load for seat in gone)
            kept = [seat for seat in seats if seat not in gone]
            if (best is None or moves < best) and any(not drainable(after) for after in poured(moves, kept)):
                best = moves
    assert best is not None
    return best


def test_what_others_were_poured_into_is_not_emptied_in_its_turn() -> None:
    assert p.consolidate([Seat(0, 1, 50), Seat(1, 1, 50), Seat(2, 2, 50)]).moves == 2


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 10), min_size=1, max_size=4))
def test_consolidating_takes_the_fewest_moves_there_are(loads: list[int]) -> None:
    seats = [Seat(index, load, 10) for index, load in enumerate(loads)]
    assert p.consolidate(seats).moves == fewest_to_consolidate(seats)


def test_the_last_batch_of_a_line_stays_however_little_is_in_it() -> None:
    assert p.consolidate([Seat(0, 1, 50)]).idle
    assert p.consolidate([Seat(0, 0, 50), Seat(1, 0, 50)]).retired == (1,)


def test_what_has_no_room_elsewhere_stays() -> None:
    assert p.consolidate([Seat(0, 48, 50), Seat(1, 3, 50)]).idle


@settings(deadline=None)
@given(lines(most=20, capacity=50))
def test_consolidating_and_rebalancing_in_turn_come_to_rest(seats: list[Seat]) -> None:
    now = seats
    for _ in range(2):
        now = carried_out(now, p.consolidate(now), 50)
        now = carried_out(now, p.rebalance(now, 50), 50)
    assume(any(seat.open for seat in now))
    assert p.rebalance(now, 50).idle and p.consolidate(now).idle
