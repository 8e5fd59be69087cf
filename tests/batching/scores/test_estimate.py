"""What-if's arithmetic, and the memory of what moved lately."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.batching.scores.estimate import (
    Cost,
    Pulse,
    Sent,
    change,
    overlap,
    pulse,
    quantile,
    sample,
    side,
)
from server.batching.scores.recent import Recent

pytestmark = pytest.mark.pure
NOTHING = Sent()


def cost(size: int = 0, entries: int = 0, view: tuple[int, ...] = ()) -> Cost:
    return Cost(NOTHING, Sent(size, 0, entries, 0), view)


# --- the sample ---


@given(st.integers(0, 3000), st.integers(1, 500), st.integers(0, 2**63 - 1))
def test_a_sample_is_some_different_ones_and_the_same_for_the_same_seed(count: int, most: int, seed: int) -> None:
    found = sample(count, most, seed)
    assert found == sorted(set(found)) == sample(count, most, seed)
    assert len(found) == min(count, most)
    assert all(0 <= place < count for place in found)


def test_another_seed_is_another_sample_and_no_place_is_preferred() -> None:
    assert sample(1000, 50, 1) != sample(1000, 50, 2)
    hits = [0] * 10
    for seed in range(400):
        for place in sample(100, 10, seed):
            hits[place // 10] += 1
    assert max(hits) < 1.3 * min(hits)


# --- how often flushes come ---


def test_a_flush_comes_after_the_interval_when_little_moves() -> None:
    assert pulse(60_000, 10, 600_000, 1000, 5_000) == Pulse(60_000.0, 10)


def test_no_interval_is_no_flush() -> None:
    assert pulse(None, 0, 600_000, 1000, 5_000).an_hour == 0


def test_an_interval_longer_than_what_was_watched_is_a_lower_bound() -> None:
    assert pulse(900_000, 10, 60_000, 1000, 5_000).lower_bound
    assert not pulse(900_000, 10, 900_000, 1000, 5_000).lower_bound


def test_a_batch_that_fills_comes_early_but_never_before_the_gap() -> None:
    assert pulse(900_000, 2000, 900_000, 1000, 5_000) == Pulse(450_000.0, 1000)
    rushed = pulse(900_000, 900_000, 900_000, 1000, 5_000)
    assert (rushed.interval_ms, rushed.events) == (5_000.0, 5_000)
    assert pulse(900_000, 2000, 90_000, 1000, 5_000).interval_ms == 45_000


@given(
    st.integers(100, 10**7), st.integers(0, 10**6), st.integers(0, 10**7), st.integers(1, 10**5), st.integers(0, 10**5)
)
def test_a_flush_never_comes_later_than_the_interval(
    interval: int, moved: int, watched: int, most: int, gap: int
) -> None:
    found = pulse(interval, moved, watched, most, gap)
    assert found.interval_ms is not None
    assert 0 < found.interval_ms <= interval
    assert found.events >= min(moved, most)


# --- what it costs ---


def test_an_hour_is_a_flush_times_flushes_times_viewers_over_the_sample() -> None:
    costs = [cost(100, 4), cost(300, 8), cost()]
    found = side(costs, Pulse(60_000.0, 7), 30, 0, 0.03)
    assert (found.hour.flushes, found.hour.messages, found.hour.bytes) == (60, 60 * 2 * 10, 60 * 400 * 10)
    assert (found.hour.messages_per_viewer.median, found.hour.bytes_per_viewer.p95) == (60, 60 * 300)
    assert (found.batch.frames, found.batch.updates_per_frame, found.batch.events) == (20, 6, 7)
    assert found.batch.cpu_seconds == pytest.approx(0.3)
    assert (found.staleness_ms.mean, found.staleness_ms.worst) == (30_000, 60_000)


def test_who_would_be_skipped_counts_among_all_but_gets_no_frame_at_once() -> None:
    costs = [Cost(Sent(100, 1, 0, 0), NOTHING, ())] * 3
    found = side(costs, Pulse(60_000.0, 0), 4, 1, 0.0)
    assert (found.next.frames, found.next.all_frames, found.next.all_bytes) == (3, 3, 300)


def test_nobody_costs_nothing() -> None:
    found = side([], Pulse(60_000.0, 0), 0, 0, 0.0)
    assert (found.hour.messages, found.next.all_frames, found.batch.updates_per_frame) == (0, 0, 0)


@given(st.lists(st.floats(0, 1e9), min_size=1), st.floats(0.01, 1))
def test_a_quantile_is_a_value_that_its_share_does_not_exceed(values: list[float], share: float) -> None:
    found = quantile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9


# --- what it changes ---


def test_views_are_compared_one_by_one() -> None:
    found = change([cost(view=(1, 2, 3)), cost(view=(1, 2))], [cost(view=(1, 3, 4)), cost(view=(1, 2))])
    assert (found.viewers_differing, found.entering, found.leaving) == (1, 1, 1)
    assert found.top_overlap == pytest.approx((2 / 3 + 1) / 2)


def test_another_order_is_another_view_with_the_same_events() -> None:
    found = change([cost(view=(1, 2))], [cost(view=(2, 1))])
    assert (found.viewers_differing, found.entering, found.leaving, found.top_overlap) == (1, 0, 0, 1)


def test_of_long_views_only_the_best_ten_count_for_the_top() -> None:
    before = tuple(range(50))
    assert overlap(before, (*range(10), *range(100, 140))) == 1
    assert overlap(before, tuple(reversed(before))) == 0
    assert overlap((), ()) == 1


# --- what moved lately ---


def test_an_event_counts_once_at_its_last_move() -> None:
    recent = Recent()
    for at, event_id in enumerate(["a", "b", "a", "c"]):
        recent.move(event_id, 1000 + at)
    assert recent.after(999) == ["c", "a", "b"]
    assert recent.after(1001) == ["c", "a"]
    assert recent.after(1003) == []


def test_at_the_bound_the_one_that_rested_longest_is_forgotten_and_only_since_then_is_known() -> None:
    recent = Recent(most=3)
    assert recent.known_since(500) == 500
    for at, event_id in enumerate("abcd"):
        recent.move(event_id, 1000 + at)
    assert (len(recent), recent.after(0), recent.known_since(500)) == (3, ["d", "c", "b"], 1000)


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 50)), max_size=60), st.integers(-1, 60))
def test_it_finds_what_the_slow_way_finds(moves: list[tuple[str, int]], since: int) -> None:
    recent, last = Recent(), {}
    for event_id, at in sorted(moves, key=lambda move: move[1]):
        recent.move(event_id, at)
        last[event_id] = at
    assert set(recent.after(since)) == {event_id for event_id, at in last.items() if at > since}
