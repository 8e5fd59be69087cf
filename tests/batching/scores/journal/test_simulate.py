"""A history under other policies: what is sent, and how old counters are, by hand."""

from __future__ import annotations

import pytest

from server.batching.scores.adaptive import Bounds
from server.batching.scores.batch import Pace
from server.batching.scores.columns import Columns
from server.batching.scores.journal.histories import Arrived, Asked, Changed, Departed, Forced, History, Input, Moved
from server.batching.scores.journal.policy import Policy
from server.batching.scores.journal.simulate import Outcome, quantile, simulated
from server.batching.scores.plan import Gone, Settled
from server.batching.scores.question import Question
from server.core.event import Event
from server.protocol.values import Viewport
from tests.batching.scores.test_frames import RULES, WORLD
from tests.batching.scores.test_ranking import NOW

pytestmark = pytest.mark.pure
MINUTE = 60_000
NOWHERE = Question(Viewport(west=100, south=50, east=101, north=51))


def history(*inputs: Input, minutes: int = 60, events: int = 3) -> History:
    def world() -> Columns:
        columns = Columns()
        for number in range(events):
            at = Event(f"e{number}", float(number), 0.0, NOW, created_ms=NOW, version=number + 1)
            columns.put(at, NOW)
        return columns

    return History(RULES, NOW, NOW + minutes * MINUTE, world, lambda: list(inputs))


def moved(minute: float, event_id: str = "e0", rsvp: int = 1, *, high: bool = False) -> Moved:
    return Moved(NOW + round(minute * MINUTE), event_id, (0, 0, rsvp), high)


def fixed(minutes: float, **more: object) -> Policy:
    return Policy("fixed", interval_ms=round(minutes * MINUTE), **more)  # type: ignore[arg-type]


def test_an_update_waits_for_the_next_batch() -> None:
    outcome = simulated(history(moved(5)), fixed(15))
    assert (outcome.flushes, outcome.published, outcome.moved, outcome.moving) == (4, 1, 1, 1)
    assert outcome.wait_mean_ms == outcome.wait_p95_ms == 10 * MINUTE
    assert outcome.age_mean_ms == pytest.approx(10 * 10 / 2 / 60 * MINUTE)
    assert outcome.stale_mean_ms == 5 * MINUTE
    assert outcome.stale_p95_ms == pytest.approx(9.5 * MINUTE, abs=1)


def test_a_shorter_interval_makes_counters_younger_and_costs_messages() -> None:
    inputs = (Arrived(NOW, 1, WORLD), *(moved(m + 0.5, rsvp=1 + m % 3) for m in range(59)))
    rare, often = (simulated(history(*inputs), fixed(minutes)) for minutes in (15, 1))
    assert often.age_mean_ms < rare.age_mean_ms / 5
    assert often.messages > 5 * rare.messages
    assert (rare.answers, often.answers) == (1, 1)


def test_size_force_and_high_priority_publish_before_their_time() -> None:
    by_size = simulated(history(moved(1), moved(2, "e1"), minutes=10), fixed(15, max_batch=2))
    assert (by_size.flushes, by_size.published, by_size.wait_p95_ms) == (1, 2, pytest.approx(0.95 * MINUTE, abs=1))
    forced = simulated(history(moved(1), Forced(NOW + 3 * MINUTE), minutes=10), fixed(15))
    assert (forced.flushes, forced.wait_mean_ms) == (1, 2 * MINUTE)
    urgent = simulated(history(moved(1, high=True), moved(1.01, "e1", high=True), minutes=10), fixed(15))
    assert (urgent.flushes, urgent.urgent, urgent.published) == (0, 2, 2)
    assert urgent.wait_mean_ms < 2000
    patient = simulated(history(moved(1, high=True), minutes=10), fixed(15, urgent=False))
    assert (patient.urgent, patient.published) == (0, 0)
    grown = simulated(history(moved(1, rsvp=3), minutes=10), fixed(15, growth=0.5))
    assert grown.urgent == 1


def test_the_size_bound_keeps_its_distance_to_the_batch_before() -> None:
    inputs = [moved(m / 600, rsvp=1 + m % 2) for m in range(60)]
    outcome = simulated(history(*inputs, minutes=1), fixed(15, max_batch=1, min_gap_ms=5_000))
    assert outcome.flushes <= 12


def test_frames_are_the_servers_own_and_only_who_is_concerned_gets_one() -> None:
    inputs = (
        Arrived(NOW, 1, WORLD),
        Arrived(NOW, 2, NOWHERE),
        moved(1),
        Departed(NOW + 20 * MINUTE, 1),
        moved(25, rsvp=3),
    )
    outcome = simulated(history(*inputs), fixed(15))
    assert (outcome.viewers, outcome.answers, outcome.messages) == (2, 2, 1)
    assert (outcome.creates, outcome.deletes) == (0, 0)
    assert outcome.updates >= 1
    assert outcome.bytes > 100
    panned = simulated(history(*inputs[:2], Asked(NOW + MINUTE, 2, WORLD)), fixed(15))
    assert panned.answers == 3


def test_a_higher_threshold_sends_fewer_updates() -> None:
    inputs = (Arrived(NOW, 1, WORLD), *(moved(m, f"e{m % 4}", m % 3) for m in range(1, 590)))
    fine, coarse = (
        simulated(history(*inputs, minutes=600, events=12), fixed(5, threshold=threshold)) for threshold in (0.0, 0.9)
    )
    assert coarse.updates < fine.updates


def test_content_is_told_at_once_whatever_the_policy() -> None:
    new = Event("new", 5.0, 5.0, NOW, created_ms=NOW, version=1)
    inputs = (
        Arrived(NOW, 1, WORLD),
        Changed(NOW + MINUTE, (Settled("new", new, False),)),
        Changed(NOW + 2 * MINUTE, (Settled("e0", Gone(9), False),)),
    )
    outcome = simulated(history(*inputs, minutes=10), fixed(15))
    assert (outcome.creates, outcome.deletes, outcome.messages) == (1, 1, 2)


def test_another_cut_holds_for_every_viewer() -> None:
    inputs = (Arrived(NOW, 1, WORLD), moved(1), moved(2, "e1"), moved(3, "e2"))
    wide, narrow = (simulated(history(*inputs, events=9), fixed(5, max_events=most)) for most in (None, 1))
    assert narrow.answer_bytes < wide.answer_bytes / 3


def test_counters_that_return_to_what_is_published_wait_no_longer() -> None:
    outcome = simulated(history(moved(1), Moved(NOW + 3 * MINUTE, "e0", (0, 0, 0)), minutes=10), fixed(15))
    assert (outcome.published, outcome.stale_mean_ms) == (0, MINUTE)


def test_the_servers_own_adaptive_pace_is_a_pacer() -> None:
    def pace() -> Pace:
        return Pace(Bounds(10_000, 15 * MINUTE), 15 * MINUTE)

    busy = [moved(30 + n / 600, f"e{n % 3}", 1 + n % 2) for n in range(1, 6000)]
    outcome = simulated(history(*busy), Policy("adaptive", max_batch=100, pacer=pace))
    assert outcome.intervals >= 2
    assert 10_000 < outcome.interval_mean_ms < 15 * MINUTE
    assert outcome.wait_p95_ms < simulated(history(*busy), fixed(15, max_batch=100)).wait_p95_ms


def test_a_run_is_the_same_each_time() -> None:
    inputs = (Arrived(NOW, 1, WORLD), *(moved(m / 3, f"e{m % 3}", m % 5) for m in range(150)))
    again: list[Outcome] = [simulated(history(*inputs), fixed(2)) for _ in range(2)]
    assert again[0] == again[1]


def test_only_what_is_published_can_be_asked_for_without_frames() -> None:
    inputs = (Arrived(NOW, 1, WORLD), moved(1))
    bare, drawn = (simulated(history(*inputs), fixed(5), frames=frames) for frames in (False, True))
    assert (bare.messages, bare.viewers) == (0, 0)
    assert bare.age_mean_ms == drawn.age_mean_ms


def test_quantiles_are_weighted_by_time() -> None:
    assert quantile([100], 1000, 0.95) == pytest.approx(50, abs=1)
    assert quantile([10], 1000, 0.95) == 0
    assert quantile([], 1000, 0.95) == 0
    assert quantile([100, 100], 200, 0.95) == pytest.approx(95, abs=1)
