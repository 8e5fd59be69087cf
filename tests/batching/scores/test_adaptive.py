"""The interval follows activity, within its bounds, and stands still when activity does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.batching.scores.adaptive import Activity, Bounds, following_ms, wanted_ms

pytestmark = pytest.mark.pure
BOUNDS = Bounds(5_000, 900_000)


def steady(rate: float, seconds: int, activity: Activity | None = None) -> Activity:
    """Activity after so many seconds at a rate, looked at every five."""
    found = activity or Activity(0.0, 0)
    assert found.at_ms is not None
    for at_ms in range(found.at_ms + 5000, found.at_ms + seconds * 1000 + 1, 5000):
        found = found.after(round(rate * 5), at_ms)
    return found


def test_a_quiet_map_is_looked_at_as_rarely_as_allowed() -> None:
    assert wanted_ms(Activity(), 1000, BOUNDS) == 900_000
    assert wanted_ms(steady(0, 600), 1000, BOUNDS) == 900_000


@pytest.mark.parametrize(("rate", "interval_ms"), [(10, 50_000), (50, 10_000), (1000, 5_000), (0.2, 900_000)])
def test_a_steady_rate_fills_half_a_batch(rate: float, interval_ms: int) -> None:
    assert wanted_ms(steady(rate, 1200), 1000, BOUNDS) == pytest.approx(interval_ms, rel=0.01)


def test_a_burst_shortens_the_interval_and_quiet_lengthens_it_again() -> None:
    quiet = steady(0, 60)
    burst = steady(100, 60, quiet)
    calm = steady(0, 900, burst)
    wanted = [wanted_ms(a, 1000, BOUNDS) for a in (quiet, burst, calm)]
    assert wanted[1] < wanted[0] / 50
    assert wanted[2] == wanted[0]


def test_looking_more_often_at_the_same_activity_finds_the_same() -> None:
    seldom, often = Activity(0.0, 0), Activity(0.0, 0)
    for minute in range(1, 11):
        seldom = seldom.after(600, minute * 60_000)
        for second in range(1, 61):
            often = often.after(10, (minute - 1) * 60_000 + second * 1000)
    assert seldom.rate == pytest.approx(often.rate)


def test_a_look_at_the_same_moment_changes_nothing() -> None:
    one = steady(10, 60)
    assert one.after(500, one.at_ms or 0) == one


@given(
    st.integers(100, 10**7), st.floats(0, 1e6), st.integers(1, 10**6), st.integers(100, 10**6), st.integers(0, 10**7)
)
def test_the_interval_keeps_its_bounds_and_rests_once_it_is_there(
    current: int, rate: float, size: int, least: int, more: int
) -> None:
    bounds = Bounds(least, least + more)
    found = following_ms(current, Activity(rate, 0), size, bounds)
    assert bounds.least_ms <= found <= bounds.most_ms
    assert following_ms(found, Activity(rate, 0), size, bounds) == found


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.integers(1, 10**6))
def test_more_activity_never_asks_for_a_longer_interval(a: float, b: float, size: int) -> None:
    slow, fast = sorted((a, b))
    assert wanted_ms(Activity(fast), size, BOUNDS) <= wanted_ms(Activity(slow), size, BOUNDS)
