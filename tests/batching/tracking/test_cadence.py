"""Paces at their bounds and beside them; what stretches them; what a failure puts off."""

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.batching.tracking.cadence import (
    EARLY,
    EVERY_H,
    STRETCH,
    Count,
    Known,
    Level,
    Pace,
    after_failure,
    crowding,
    interval,
    next_check,
    pace_of,
    pressure,
    projected,
    state_after_gone,
)
from server.batching.tracking.money import VIEWS_MOST

pytestmark = pytest.mark.pure

NOW = dt.datetime(2026, 3, 16, 12, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
TICK = dt.timedelta(microseconds=1)
OLD = Known("active", False, NOW - 240 * HOUR)


def counts(*views: int, every: float = 4) -> tuple[Count, ...]:
    """The newest last, as one reads; one each so many hours."""
    steps = range(len(views))
    return tuple(Count(NOW - (len(views) - 1 - n) * every * HOUR, views[n]) for n in steps)[::-1]


def pace(*views: int, every: float = 4, known: Known = OLD) -> Pace:
    return pace_of(known, counts(*views, every=every), NOW)


def hours(known: Known, *views: int, level: Level = 0) -> float:
    then = next_check(known, counts(*views), NOW, level)
    return (then.due_at + EARLY - NOW) / HOUR


# --- what its counts make of a clip ---


@pytest.mark.parametrize(
    ("views", "found"),
    [
        ((10_000, 12_500), "viral"),
        ((10_000, 12_499), "normal"),
        ((1_000_000, 1_020_000), "viral"),
        ((1_000_000, 1_019_999), "normal"),
        ((4, 5), "viral"),
        ((0, 19_999), "normal"),
        ((0, 20_000), "viral"),
        ((0, 0), "normal"),
        ((10_000,), "normal"),
        ((), "normal"),
    ],
)
def test_viral_is_a_rise_by_a_quarter_or_by_five_thousand_an_hour(views: tuple[int, ...], found: Pace) -> None:
    assert pace(*views) == found


@pytest.mark.parametrize(
    ("views", "found"),
    [
        ((10_000, 10_199, 10_398), "slow"),
        ((10_000, 10_200, 10_399), "normal"),
        ((10_000, 10_199, 10_399), "normal"),
        ((10_000, 10_400, 10_599, 10_798), "slow"),
        ((10_000, 10_199), "normal"),
    ],
)
def test_slow_is_under_fifty_an_hour_in_each_of_the_last_two(views: tuple[int, ...], found: Pace) -> None:
    assert pace(*views) == found


@pytest.mark.parametrize(
    ("views", "found"),
    [
        ((500, 500, 500, 500), "dormant"),
        ((500, 500, 500, 501), "slow"),
        ((499, 500, 500, 500), "slow"),
        ((500, 500, 500), "slow"),
        ((0, 0, 0, 0), "dormant"),
        ((500, 400, 450, 500), "dormant"),
        ((500, 400, 300, 501), "slow"),
        ((1, 500, 500, 500, 500), "dormant"),
    ],
)
def test_dormant_is_no_rise_in_the_last_three_and_what_comes_back_has_not_risen(
    views: tuple[int, ...], found: Pace
) -> None:
    assert pace(*views) == found


def test_a_rise_is_one_of_the_best_so_far() -> None:
    assert pace(10_000, 8_000, 10_400) == "normal"
    assert pace(10_000, 8_000, 12_500) == "viral"


def test_speed_is_by_the_time_between_two_counts() -> None:
    assert pace(1_000_000, 1_010_000, every=2) == "viral"
    assert pace(1_000_000, 1_010_000, every=2.01) == "normal"
    assert pace(10_000, 10_399, 10_798, every=8) == "slow"


def test_counts_of_one_moment_are_no_interval() -> None:
    twice = (Count(NOW, 10_000), Count(NOW, 10_000), Count(NOW - 4 * HOUR, 5_000))
    assert pace_of(OLD, twice, NOW) == "viral"


def test_a_rise_by_a_quarter_is_viral_however_slow() -> None:
    assert pace(80, 100, 125) == "viral"


def test_a_clip_is_new_for_its_first_day_unless_it_is_viral() -> None:
    fresh = Known("active", False, NOW - 24 * HOUR + TICK)
    a_day_old = Known("active", False, NOW - 24 * HOUR)
    assert pace(500, 500, 500, 500, known=fresh) == "new"
    assert pace(500, 500, 500, 500, known=a_day_old) == "dormant"
    assert pace(500, 5_000, known=fresh) == "viral"
    assert pace_of(fresh, (), NOW) == "new"


def test_what_earns_nothing_any_more_is_looked_at_once_a_day_whatever_it_does() -> None:
    over = Known("ended", True, NOW)
    assert pace(500, 5_000_000, known=over) == "daily"
    assert hours(over, 500, 5_000_000) == 24


# --- when it is due ---


@pytest.mark.parametrize(
    ("views", "every"),
    [((10_000, 12_500), 2), ((10_000, 11_000), 4), ((9_000, 9_001, 9_002), 8), ((9_000, 9_000, 9_000, 9_000), 24)],
)
def test_viral_2_normal_4_slow_8_dormant_24_hours(views: tuple[int, ...], every: int) -> None:
    assert hours(OLD, *views) == every


def test_due_is_a_minute_early_after_the_beginning_of_the_run() -> None:
    then = next_check(OLD, counts(10_000, 11_000), NOW)
    assert then.due_at == NOW + dt.timedelta(hours=3, minutes=59)


@pytest.mark.parametrize("views", [(9_000, 9_000, 9_000, 9_000), (9_000, 9_001, 9_002), (10_000, 11_000)])
def test_pressing_makes_it_two_hours_at_most(views: tuple[int, ...]) -> None:
    for level in (0, 1, 2, 3):
        assert hours(Known("active", True, OLD.created_at), *views, level=level) == 2


def test_the_first_day_keeps_its_four_hours_under_any_pressure() -> None:
    fresh = Known("active", False, NOW - HOUR)
    assert {hours(fresh, 500, 500, level=level) for level in (0, 1, 2, 3)} == {4}


def test_pressing_means_nothing_once_it_is_over() -> None:
    assert hours(Known("ended", True, OLD.created_at), 5, 5) == 24


def test_pressure_stretches_slow_and_dormant_first_then_normal_then_viral() -> None:
    stretched: dict[Level, list[Pace]] = {}
    for level in (1, 2, 3):
        stretched[level] = [pace for pace in EVERY_H if interval(pace, OLD, NOW, level) > EVERY_H[pace] * HOUR]
    assert stretched == {
        1: ["slow", "dormant"],
        2: ["normal", "slow", "dormant", "daily"],
        3: ["viral", "normal", "slow", "dormant", "daily"],
    }


def test_more_pressure_never_makes_it_sooner() -> None:
    for times in STRETCH.values():
        assert list(times) == sorted(times)


@given(
    st.lists(st.tuples(st.integers(0, VIEWS_MOST), st.integers(-50, 400)), max_size=6),
    st.booleans(),
    st.integers(0, 2_000),
    st.sampled_from([0, 1, 2, 3]),
)
def test_whatever_was_seen_the_next_look_is_in_two_hours_to_three_days(
    seen: list[tuple[int, int]], pressing: bool, age_h: int, level: Level
) -> None:
    ordered = sorted(
        (Count(NOW - minutes * dt.timedelta(minutes=7), views) for views, minutes in seen), key=lambda c: c.at
    )
    known = Known("active", pressing, NOW - age_h * HOUR)
    then = next_check(known, ordered[::-1], NOW, level)
    wait = then.due_at + EARLY - NOW
    assert 2 * HOUR <= wait <= 72 * HOUR
    assert wait <= 2 * HOUR or not pressing
    assert wait <= 4 * HOUR or age_h >= 24


# --- how tight it is ---


def month(day: int, hour: int = 0) -> dt.datetime:
    return dt.datetime(2026, 4, day, hour, tzinfo=dt.UTC)


def test_a_month_goes_on_as_it_did() -> None:
    assert projected(1_000, month(11)) == pytest.approx(3_000)
    assert projected(1_000, month(30, 12)) == pytest.approx(1_000 * 30 / 29.5)
    assert projected(0, month(1)) == 0


def test_a_month_that_has_just_begun_is_judged_as_if_a_day_had_passed() -> None:
    assert projected(100, month(1, 1)) == pytest.approx(100 + 100 * (30 - 1 / 24))


def test_the_month_is_that_of_utc_whatever_zone_the_time_is_told_in() -> None:
    west = dt.timezone(-dt.timedelta(hours=8))
    assert projected(100, month(1, 6).astimezone(west)) == projected(100, month(1, 6))
    assert projected(100, dt.datetime(2026, 12, 31, 23, tzinfo=dt.UTC)) < 101


@pytest.mark.parametrize(
    ("used", "level"), [(0, 0), (9_000, 0), (9_001, 1), (9_500, 1), (9_501, 2), (10_000, 2), (10_001, 3), (99_000, 3)]
)
def test_above_90_per_cent_of_the_quota_pressure_begins_and_rises(used: int, level: Level) -> None:
    assert pressure(used, 30_000, month(11)) == level


def test_without_a_quota_nothing_presses() -> None:
    assert pressure(10**9, 0, NOW) == 0


def test_crowding_begins_when_the_paces_ask_for_more_than_nine_tenths_of_what_the_runs_take() -> None:
    assert crowding({"slow": 300}, 0, 1_000) == 0
    assert crowding({"slow": 301}, 0, 1_000) == 1
    assert crowding({"slow": 600}, 0, 1_000) == 1
    assert crowding({"slow": 601}, 0, 1_000) == 2
    assert crowding({"viral": 75}, 0, 1_000) == 0
    assert crowding({"viral": 76}, 0, 1_000) == 3
    assert crowding({}, 75, 1_000) == 0
    assert crowding({}, 76, 1_000) == 3
    assert crowding({}, 0, 0) == 0


# --- failures ---


def test_a_failure_doubles_its_wait_up_to_a_day() -> None:
    waits = [(after_failure("retry", n, NOW) + EARLY - NOW) / HOUR for n in (1, 2, 3, 6, 7, 50, 10**9)]
    assert waits == [0.5, 1, 2, 16, 24, 24, 24]


def test_what_is_gone_is_looked_for_again_in_four_hours_and_what_was_refused_in_a_day() -> None:
    assert {after_failure("gone", n, NOW) + EARLY - NOW for n in (1, 2, 9)} == {4 * HOUR}
    assert {after_failure("refused", n, NOW) + EARLY - NOW for n in (1, 9)} == {24 * HOUR}


def test_three_times_not_found_is_unavailable() -> None:
    assert [state_after_gone(n) for n in (1, 2, 3, 4)] == ["ok", "ok", "unavailable", "unavailable"]
