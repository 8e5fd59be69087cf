"""Days, months and local times as integers, against the standard library's dates."""

import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from dateutil.relativedelta import relativedelta
from hypothesis import given
from hypothesis import strategies as st

from server.batching.tiers.months import date_of, day_of, days_of, later, month_named, month_of, name_of
from server.batching.tiers.zones import instant, known_zone, offset_s, zone_names

pytestmark = pytest.mark.pure

dates = st.dates(dt.date(1970, 1, 1), dt.date(2100, 1, 1))


@given(dates, st.integers(0, 30))
def test_months_later_are_calendar_months_with_the_day_clamped(date: dt.date, months: int) -> None:
    assert date_of(later(day_of(date), months)) == date + relativedelta(months=months)


@pytest.mark.parametrize(
    ("start", "months", "end"),
    [
        ("2027-08-31", 6, "2028-02-29"),
        ("2026-08-31", 6, "2027-02-28"),
        ("2027-12-31", 3, "2028-03-31"),
        ("2028-02-29", 12, "2029-02-28"),
        ("2027-11-30", 3, "2028-02-29"),
        ("2027-10-15", 5, "2028-03-15"),
    ],
)
def test_month_ends_and_leap_years(start: str, months: int, end: str) -> None:
    assert date_of(later(day_of(dt.date.fromisoformat(start)), months)).isoformat() == end


@given(dates)
def test_a_day_is_in_its_month(date: dt.date) -> None:
    month = month_of(day_of(date))
    first, end = days_of(month)
    assert first <= day_of(date) < end
    assert name_of(month) == f"{date:%Y-%m}" and month_named(name_of(month)) == month


@pytest.mark.parametrize("text", ["2027-13", "2027-1", "27-01", "2027-00", "0000-01", "2027-01-01", "", "next month"])
def test_what_is_no_month_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="2027-03"):
        month_named(text)


def slowly(zone: str, day: int, minute: int) -> int | None:
    """There and back again: a local time that is another one afterwards does not exist."""
    local = dt.datetime.combine(date_of(day), dt.time(minute // 60, minute % 60), ZoneInfo(zone))
    there = local.astimezone(dt.UTC)
    same = there.astimezone(ZoneInfo(zone)).replace(tzinfo=None) == local.replace(tzinfo=None)
    return int(there.timestamp()) if same else None


@given(st.sampled_from(sorted(zone_names())), dates, st.integers(9 * 60, 22 * 60))
def test_instants_are_those_of_the_time_zone_database(zone: str, date: dt.date, minute: int) -> None:
    assert instant(zone, day_of(date), minute) == slowly(zone, day_of(date), minute)


@pytest.mark.parametrize(
    ("zone", "date", "gone", "minutes"),
    [
        ("Africa/Khartoum", "2000-01-15", (12 * 60, 13 * 60), 780),
        ("Pacific/Apia", "2011-12-30", (0, 24 * 60), 780),
        ("Pacific/Easter", "2027-04-03", (0, 0), 780),
        ("Pacific/Easter", "2027-09-04", (22 * 60, 23 * 60), 780),
    ],
)
def test_times_that_a_clock_change_removes_are_none(zone: str, date: str, gone: tuple[int, int], minutes: int) -> None:
    day = day_of(dt.date.fromisoformat(date))
    assert offset_s(zone, day) is None
    for minute in range(9 * 60, 9 * 60 + minutes + 1, 15):
        found = instant(zone, day, minute)
        assert found == slowly(zone, day, minute)
        assert (found is None) == (gone[0] <= minute < gone[1])


def test_zones_are_known_by_name_only() -> None:
    assert known_zone("Europe/Berlin")
    assert not any(known_zone(name) for name in ("", "Europe", "../../etc/passwd", "/etc/localtime", "berlin"))
