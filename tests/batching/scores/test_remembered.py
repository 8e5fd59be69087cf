"""What ended sessions were last handed is kept within bounds, and counts for their user and their last frame only."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.batching.scores import remembered
from server.batching.scores.audience import NOTHING, Held, Viewer
from server.batching.scores.kernel import HELD
from server.batching.scores.question import Question
from server.batching.scores.remembered import Former, Sessions
from server.protocol.values import Viewport
from tests.batching.scores.test_frames import Paper

pytestmark = pytest.mark.pure
WORLD = Question(Viewport(west=-180, south=-90, east=180, north=90))


def holding(*slots: int) -> Held:
    return np.array([(slot, 1, 1, 0.5) for slot in slots], HELD).tobytes()


def viewer(name: str, held: Held = NOTHING, *, seq: int = 3, user: str | None = None) -> Viewer:
    made = Viewer(name, replace(WORLD, user=user), Paper())  # type: ignore[arg-type]  # it never ends
    made.held, made.seq = held, seq
    return made


def kept(sessions: Sessions, *viewers: Viewer, now_s: float = 0.0) -> None:
    for one in viewers:
        sessions.enter(one)
        sessions.keep(one, now_s)


def test_who_says_the_name_and_the_last_seq_has_what_was_handed_over_once() -> None:
    sessions = Sessions(10, 60)
    kept(sessions, viewer("a", holding(1, 2)))
    assert (len(sessions), sessions.events) == (1, 2)
    assert sessions.take("a", None, 3, 59.9) == Former(None, holding(1, 2))
    assert sessions.take("a", None, 3, 59.9) == Former()
    assert (len(sessions), sessions.events) == (0, 0)


@pytest.mark.parametrize("seq", [None, 0, 2, 4])
def test_another_seq_shows_that_a_frame_was_lost_and_uses_it_up(seq: int | None) -> None:
    sessions = Sessions(10, 60)
    kept(sessions, viewer("a", holding(1)))
    assert sessions.take("a", None, seq, 0) == Former()
    assert len(sessions) == 0


@pytest.mark.parametrize(("owner", "asker"), [("ann", "bob"), ("ann", None), (None, "ann"), ("ann", "Ann")])
def test_somebody_else_gets_nothing_and_takes_nothing_away(owner: str | None, asker: str | None) -> None:
    sessions = Sessions(10, 60)
    gone, here = viewer("a", holding(1), user=owner), viewer("b", holding(2), user=owner)
    kept(sessions, gone)
    sessions.enter(here)
    assert sessions.take("a", asker, 3, 0) == sessions.take("b", asker, 3, 0) == Former()
    assert sessions.take("a", owner, 3, 0) == Former(None, holding(1))
    assert sessions.take("b", owner, 3, 0) == Former(here, holding(2))


def test_a_connection_that_still_stands_is_as_good_as_one_that_has_ended() -> None:
    sessions = Sessions(10, 60)
    here = viewer("a", holding(1))
    sessions.enter(here)
    assert sessions.take("a", None, 3, 0) == Former(here, holding(1))
    assert sessions.take("a", None, 2, 0) == Former(here, None), "it ends, though what it holds is not known"
    here.seq = 0
    assert sessions.take("a", None, 0, 0) == Former(here, None), "it was handed nothing yet"


def test_who_unregistered_or_was_handed_nothing_is_not_remembered() -> None:
    sessions = Sessions(10, 60)
    left, new = viewer("left", holding(1)), viewer("new", seq=0)
    for one in (left, new):
        sessions.enter(one)
    sessions.leave(left)
    for one in (left, new, viewer("never came", holding(1))):
        sessions.keep(one, 0)
    assert (len(sessions), sessions.take("left", None, 3, 0)) == (0, Former())


def test_the_one_that_ended_first_gives_way_to_the_last() -> None:
    sessions = Sessions(2, 60)
    kept(sessions, *(viewer(name, holding(1, 2)) for name in "abc"))
    assert (len(sessions), sessions.events) == (2, 4)
    assert sessions.take("a", None, 3, 0).held is None
    assert sessions.take("b", None, 3, 0).held == holding(1, 2)


def test_all_records_together_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "EVENTS_MOST", 5)
    sessions = Sessions(100, 60)
    kept(sessions, *(viewer(name, holding(1, 2)) for name in "abc"))
    assert (len(sessions), sessions.events) == (2, 4)
    kept(sessions, viewer("more than all", holding(*range(6))))
    assert (len(sessions), sessions.events) == (0, 0)


def test_what_is_too_old_is_forgotten_and_no_sooner() -> None:
    sessions = Sessions(10, 60)
    kept(sessions, viewer("a", holding(1)), now_s=0)
    kept(sessions, viewer("b", holding(2)), now_s=30)
    assert (sessions.expire(59.9), len(sessions)) == (0, 2)
    assert (sessions.expire(60), len(sessions)) == (1, 1)
    assert sessions.take("b", None, 3, 90) == Former()


def test_none_are_kept_when_there_is_no_room_for_any() -> None:
    sessions = Sessions(0, 60)
    kept(sessions, viewer("a", holding(1)))
    assert len(sessions) == 0


def test_what_several_hold_alike_is_one_object_and_told_once() -> None:
    sessions, same = Sessions(10, 60), holding(1, 2)
    kept(sessions, viewer("a", same), viewer("b", same), viewer("c", holding(7)))
    assert sorted(sessions.held()) == sorted([same, holding(7)])


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["enter", "keep", "leave"]), st.integers(0, 5)),
        st.tuples(st.just("take"), st.integers(0, 5)),
        st.tuples(st.just("wait"), st.integers(1, 40)),
    ),
    max_size=60,
)


@given(STEPS)
def test_whatever_happens_its_counts_are_those_of_what_it_keeps_and_within_bounds(steps: list[tuple[str, int]]) -> None:
    sessions, now_s = Sessions(3, 60), 0.0
    viewers = [viewer(f"s{n}", holding(*range(n)), user=None) for n in range(6)]
    for what, number in steps:
        one = viewers[number % 6]
        if what == "wait":
            now_s += number
            sessions.expire(now_s)
        elif what == "take":
            sessions.take(one.session, None, 3, now_s)
        elif what == "enter":
            sessions.take(one.session, None, 3, now_s)  # A name is never given again while it is remembered.
            sessions.enter(one)
        elif what == "keep":
            sessions.keep(one, now_s)
        else:
            sessions.leave(one)
        found = list(sessions._kept.values())
        assert sessions.events == sum(len(k.held) for k in found) // HELD.itemsize
        assert len(found) <= 3 and all(k.ended_s + 60 > now_s for k in found)
        assert [k.ended_s for k in found] == sorted(k.ended_s for k in found)
