"""The interval foresees activity: the same number of flushes, at better times, within the bounds."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.batching.scores.adaptive import Bounds
from server.batching.scores.pace import Pace
from server.batching.scores.predictive import (
    HOUR_MS,
    WEEK_HOURS,
    WEEK_MS,
    Forecast,
    foreseen,
    hour_of_week,
    wait_ms,
)

pytestmark = pytest.mark.pure
WIDE = Bounds(100, 86_400_000)
BASE_MS = 900_000
MONDAY = 4 * 86_400_000
"""The first Monday of 1970, midnight."""
rates = st.lists(st.floats(0, 1000), min_size=WEEK_HOURS, max_size=WEEK_HOURS).map(tuple)


def evenings(quiet: float = 0.05, busy: float = 5.0) -> tuple[float, ...]:
    """Busy from seven to ten in the evening."""
    return tuple(busy if 19 <= hour % 24 < 22 else quiet for hour in range(WEEK_HOURS))


def flushes(forecast: Forecast, begin_ms: int, end_ms: int, base_ms: int, bounds: Bounds) -> list[int]:
    at, found = begin_ms, []
    while at < end_ms:
        at += wait_ms(forecast, at, base_ms, bounds)
        found.append(at)
    return found


def waiting(forecast: Forecast, times: list[int], begin_ms: int) -> float:
    """Event-seconds spent waiting, the slow way: second by second."""
    total, before = 0.0, begin_ms
    for at in times:
        total += sum(forecast.rate(ms) * (at - ms) / 1000 for ms in range(before, at, 10_000)) * 10
        before = at
    return total


def test_monday_midnight_is_the_first_hour_of_the_week() -> None:
    assert hour_of_week(MONDAY) == 0
    assert hour_of_week(0) == 72
    assert hour_of_week(MONDAY + WEEK_MS - 1) == 167


def test_a_steady_week_is_flushed_at_the_set_interval() -> None:
    steady = Forecast((3.0,) * WEEK_HOURS, 336)
    assert {wait_ms(steady, MONDAY + at, BASE_MS, WIDE) for at in range(0, WEEK_MS, 777_777)} == {BASE_MS}


def test_a_week_without_activity_is_flushed_at_the_set_interval() -> None:
    assert wait_ms(Forecast((0.0,) * WEEK_HOURS, 336), MONDAY, BASE_MS, WIDE) == BASE_MS


def test_a_wait_ends_early_when_a_peak_is_near_and_is_short_in_it() -> None:
    forecast = Forecast(evenings(), 336)
    night = wait_ms(forecast, MONDAY + 2 * HOUR_MS, BASE_MS, WIDE)
    before = wait_ms(forecast, MONDAY + 19 * HOUR_MS - 600_000, BASE_MS, WIDE)
    within = wait_ms(forecast, MONDAY + 20 * HOUR_MS, BASE_MS, WIDE)
    assert within < BASE_MS < night
    assert 600_000 < before < 600_000 + within


def test_at_as_many_flushes_counters_wait_less_than_at_a_fixed_interval() -> None:
    forecast = Forecast(evenings(), 336)
    end = MONDAY + WEEK_MS
    ours = flushes(forecast, MONDAY, end, BASE_MS, WIDE)
    fixed = list(range(MONDAY + BASE_MS, end + 1, BASE_MS))
    assert len(ours) == pytest.approx(len(fixed), rel=0.02)
    assert waiting(forecast, ours, MONDAY) < 0.4 * waiting(forecast, fixed, MONDAY)


@given(rates, st.integers(0, WEEK_MS), st.integers(100, 86_400_000), st.integers(100, 10**6), st.integers(0, 10**7))
def test_a_wait_keeps_its_bounds(week: tuple[float, ...], at: int, base: int, least: int, more: int) -> None:
    bounds = Bounds(least, least + more)
    assert bounds.least_ms <= wait_ms(Forecast(week, 336), MONDAY + at, base, bounds) <= bounds.most_ms


@given(rates, st.integers(0, WEEK_MS), st.integers(60_000, 3_600_000))
def test_a_wait_adds_up_to_the_pressure_of_an_average_one(week: tuple[float, ...], at: int, base: int) -> None:
    forecast = Forecast(week, 336)
    found = wait_ms(forecast, MONDAY + at, base, WIDE)
    added = sum(
        math.sqrt(forecast.rate(edge)) * (min(edge // HOUR_MS * HOUR_MS + HOUR_MS, MONDAY + at + found) - edge)
        for edge in [MONDAY + at, *range((MONDAY + at) // HOUR_MS * HOUR_MS + HOUR_MS, MONDAY + at + found, HOUR_MS)]
    )
    due = base * forecast.mean_pressure
    steepest = max(map(math.sqrt, week))
    assert found == WIDE.most_ms or found == WIDE.least_ms or due <= added + 1e-3 <= due + steepest + 2e-3 or due == 0


@given(rates, st.floats(0.01, 100))
def test_only_the_rhythm_counts_not_how_busy_it_is(week: tuple[float, ...], factor: float) -> None:
    louder = Forecast(tuple(rate * factor for rate in week), 336)
    for at in range(0, WEEK_MS, 13 * HOUR_MS + 1234):
        one, other = (wait_ms(f, MONDAY + at, BASE_MS, WIDE) for f in (Forecast(week, 336), louder))
        assert abs(one - other) <= 2 + 1e-6 * one


def counted(week: tuple[float, ...], weeks: int) -> dict[int, int]:
    return {MONDAY + h * HOUR_MS: round(week[h % WEEK_HOURS] * 3600) for h in range(weeks * WEEK_HOURS)}


def test_two_weeks_of_the_same_rhythm_are_learnt() -> None:
    forecast = foreseen(counted(evenings(), 2), MONDAY, MONDAY + 2 * WEEK_MS + 12)
    assert forecast is not None
    assert forecast.known_hours == 2 * WEEK_HOURS
    assert forecast.rates == pytest.approx(evenings())


def test_a_newer_week_counts_more_than_an_older_one() -> None:
    rows = dict.fromkeys(counted(evenings(), 1), 3600) | {at + WEEK_MS: 7200 for at in counted(evenings(), 1)}
    forecast = foreseen(rows, MONDAY, MONDAY + 2 * WEEK_MS)
    assert forecast is not None
    assert 1.5 < forecast.rates[40] < 2


def test_an_hour_without_rows_had_no_activity_and_halves_at_the_edges_do_not_count() -> None:
    rows = {MONDAY + HOUR_MS: 3600, MONDAY: 99_999, MONDAY + 26 * HOUR_MS: 99_999}
    forecast = foreseen(rows, MONDAY + 1, MONDAY + 26 * HOUR_MS + 5)
    assert forecast is not None
    assert (forecast.known_hours, forecast.rates[1], forecast.rates[2], max(forecast.rates)) == (25, 1.0, 0.0, 1.0)


def test_an_hour_never_seen_is_taken_from_other_days() -> None:
    rows = counted(evenings(), 1)
    forecast = foreseen(rows, MONDAY, MONDAY + 30 * HOUR_MS)
    assert forecast is not None
    assert forecast.rates == pytest.approx(evenings())


def test_less_than_a_day_is_no_forecast() -> None:
    assert foreseen({}, MONDAY, MONDAY + 24 * HOUR_MS - 1) is None
    assert foreseen({}, MONDAY, MONDAY + 24 * HOUR_MS) is not None


def test_with_both_the_shorter_interval_counts() -> None:
    forecast = Forecast(evenings(), 336)
    now = MONDAY + 20 * HOUR_MS
    both = Pace(Bounds(5_000, 3_600_000), BASE_MS, BASE_MS, True, True, begun_ms=now, forecast=forecast)
    both.look(0, 1000, now)
    foretold = wait_ms(forecast, now, BASE_MS, both.bounds)
    assert both.interval_ms == foretold
    for second in range(5, 300, 5):
        both.look(100 * second, 1000, now + second * 1000)
    assert both.interval_ms == pytest.approx(5_000, rel=0.2)


def test_before_a_day_is_known_the_set_interval_counts() -> None:
    pace = Pace(Bounds(5_000, 600_000), 600_000, BASE_MS, follows=False, foresees=True)
    assert not pace.look(10_000, 1000, MONDAY)
    assert pace.interval_ms == 600_000


def test_the_last_tick_is_followed_as_the_loop_makes_it() -> None:
    pace = Pace(Bounds(5_000, 86_400_000), BASE_MS, BASE_MS, False, True, MONDAY, forecast=Forecast(evenings(), 336))
    ticks, last = [], MONDAY
    for at in range(MONDAY, MONDAY + 2 * WEEK_MS, 5_000):
        if at - last >= pace.interval_ms:
            last += pace.interval_ms
            ticks.append(last)
        if pace.look(0, 1000, at):
            last = max(last, at - pace.interval_ms)
        assert abs(pace.begun_ms - last) <= 5_000
    assert len(ticks) == pytest.approx(2 * WEEK_MS / BASE_MS, rel=0.02)
    assert sum(19 <= hour_of_week(at) % 24 < 22 for at in ticks) > len(ticks) / 2
