"""Occurrences against a slow walk over the calendar, and the corners of it: clock changes, month ends, ends of rules."""

from __future__ import annotations

import datetime as dt
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.core.recurrence import MAX_TEXT, OCCURRENCES, check, last_end_ms, occurrence

pytestmark = pytest.mark.pure
HOUR = 3_600_000
DAY = 24 * HOUR
DAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")


def ms(text: str) -> int:
    return round(dt.datetime.fromisoformat(text).timestamp() * 1000)


def iso(moment_ms: int, zone: str = "UTC") -> str:
    return dt.datetime.fromtimestamp(moment_ms / 1000, tz=ZoneInfo(zone)).isoformat()


def starts(rule: str, start: str, zone: str | None, count: int) -> list[str]:
    """The first occurrences, found by asking again and again."""
    found, now = [], ms(start)
    for _ in range(count):
        one = occurrence(rule, ms(start), None, zone, now)
        found.append(iso(one.start_ms, zone or "UTC"))
        now = one.start_ms + 1
    return found


# --- the slow, obvious version: walk over every hour or day of the calendar ---


@dataclass(frozen=True)
class Plain:
    """A rule as a few numbers."""

    every: str
    interval: int = 1
    days: tuple[int, ...] = ()
    monthday: int | None = None
    count: int | None = None
    until: dt.datetime | None = None

    def text(self) -> str:
        parts = [f"FREQ={self.every}", f"INTERVAL={self.interval}"]
        if self.days:
            parts.append("BYDAY=" + ",".join(DAYS[day] for day in self.days))
        if self.monthday is not None:
            parts.append(f"BYMONTHDAY={self.monthday}")
        if self.count is not None:
            parts.append(f"COUNT={self.count}")
        if self.until is not None:
            parts.append(f"UNTIL={self.until:%Y%m%dT%H%M%SZ}")
        return ";".join(parts)


def instant(local: dt.datetime, zone: ZoneInfo) -> dt.datetime:
    """The first moment at which clocks there show this; of a time left out, what the offset of the day before makes of it."""
    for offset in sorted({_offset(local + dt.timedelta(days=d), zone) for d in (-1, 1)}, reverse=True):
        moment = (local - offset).replace(tzinfo=dt.UTC)
        if moment.astimezone(zone).replace(tzinfo=None) == local:
            return moment
    return (local - _offset(local - dt.timedelta(days=1), zone)).replace(tzinfo=dt.UTC)


def _offset(local: dt.datetime, zone: ZoneInfo) -> dt.timedelta:
    found = local.replace(tzinfo=zone).utcoffset()
    assert found is not None
    return found


def walk(rule: Plain, first: dt.datetime) -> Iterator[dt.datetime]:
    """Local times from the first on, every hour or every day of the calendar that the rule takes."""
    if rule.every == "HOURLY":
        yield from (first + dt.timedelta(hours=k * rule.interval) for k in range(100_000))
        return
    for k in range(40_000):
        day = first + dt.timedelta(days=k)
        if takes(rule, first, day):
            yield day


def takes(rule: Plain, first: dt.datetime, day: dt.datetime) -> bool:
    if rule.every == "DAILY":
        return (day - first).days % rule.interval == 0 and (not rule.days or day.weekday() in rule.days)
    if rule.every == "WEEKLY":
        monday = first - dt.timedelta(days=first.weekday())
        weeks = (day - monday).days // 7
        return weeks % rule.interval == 0 and day.weekday() in (rule.days or (first.weekday(),))
    if rule.every == "MONTHLY":
        months = (day.year - first.year) * 12 + day.month - first.month
        wanted = rule.monthday or first.day
        length = ((day.replace(day=1) + dt.timedelta(days=32)).replace(day=1) - dt.timedelta(days=1)).day
        return months % rule.interval == 0 and day.day == (wanted if wanted > 0 else length + 1 + wanted)
    return (day.year - first.year) % rule.interval == 0 and (day.month, day.day) == (first.month, first.day)


def slow_starts(rule: Plain, start_ms: int, zone: str) -> list[int]:
    z = ZoneInfo(zone)
    first = dt.datetime.fromtimestamp(start_ms / 1000, tz=z).replace(tzinfo=None)
    moments = (instant(local, z) for local in walk(rule, first))
    until = dt.datetime.max.replace(tzinfo=dt.UTC) if rule.until is None else rule.until
    found: list[int] = []
    for moment in takewhile(lambda m: m <= until, moments):
        if len(found) == (60 if rule.count is None else rule.count):
            break
        found.append(round(moment.timestamp() * 1000))
    return found


def slow(all_starts: list[int], start: int, length: int | None, now: int) -> int:
    for begins in all_starts:
        if begins >= now or (length is not None and begins <= now < begins + length):
            return begins
    return all_starts[-1] if all_starts else start


ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "America/Santiago")


@st.composite
def rules(draw: st.DrawFn) -> tuple[Plain, int, str]:
    every = draw(st.sampled_from(("HOURLY", "DAILY", "WEEKLY", "MONTHLY", "YEARLY")))
    interval = draw(st.integers(1, 4))
    days: tuple[int, ...] = ()
    monthday = None
    if every == "WEEKLY" or (every == "DAILY" and interval == 1):
        days = tuple(sorted(draw(st.sets(st.integers(0, 6), max_size=3))))
    if every == "MONTHLY":
        monthday = draw(st.sampled_from([None, 1, 15, 31, -1, -30]))
    hours = draw(st.integers(0, 3 * 365 * 24))
    start = ms("2023-01-01T00:30:00+00:00") + hours * HOUR
    count = draw(st.none() | st.integers(1, 20))
    until = None
    if count is None:
        until = draw(
            st.none()
            | st.integers(0, 59 if every == "HOURLY" else 59 * 24).map(
                lambda h: dt.datetime.fromtimestamp(start / 1000 + h * 3600, dt.UTC)
            )
        )
    return Plain(every, interval, days, monthday, count, until), start, draw(st.sampled_from(ZONES))


@settings(max_examples=150, deadline=None)
@given(rules(), st.sampled_from([None, 0, HOUR, 26 * HOUR]), st.integers(-30, 2000), st.sampled_from([0, 1, -1]))
def test_the_occurrence_that_counts_is_the_one_a_walk_over_the_calendar_finds(
    one: tuple[Plain, int, str], length: int | None, hours: int, nudge: int
) -> None:
    rule, start, zone = one
    now = start + hours * HOUR + nudge
    expected = slow_starts(rule, start, zone)
    if rule.count is None and rule.until is None:
        now = min(now, expected[-1])
    found = occurrence(rule.text(), start, None if length is None else start + length, zone, now)
    assert iso(found.start_ms) == iso(slow(expected, start, length, now))
    assert found.end_ms == (None if length is None else found.start_ms + length)
    if found.until_ms is not None:
        assert found.until_ms > now
        again = occurrence(rule.text(), start, None if length is None else start + length, zone, found.until_ms - 1)
        assert again == found


@settings(max_examples=100, deadline=None)
@given(rules(), st.sampled_from([None, HOUR]))
def test_the_last_end_is_that_of_the_last_occurrence_of_the_walk(
    one: tuple[Plain, int, str], length: int | None
) -> None:
    rule, start, zone = one
    last = last_end_ms(rule.text(), start, None if length is None else start + length, zone)
    if rule.count is None and rule.until is None:
        assert last is None
        return
    expected = [*slow_starts(rule, start, zone)] or [start]
    if rule.count is None and len(expected) == 60:
        return
    assert last == expected[-1] + (length or 0)


# --- corners ---


def test_a_weekly_event_keeps_its_local_hour_over_both_clock_changes() -> None:
    assert starts("FREQ=WEEKLY", "2026-03-20T18:00:00+01:00", "Europe/Berlin", 3) == [
        "2026-03-20T18:00:00+01:00",
        "2026-03-27T18:00:00+01:00",
        "2026-04-03T18:00:00+02:00",
    ]
    assert starts("FREQ=WEEKLY", "2026-10-16T18:00:00+02:00", "Europe/Berlin", 3) == [
        "2026-10-16T18:00:00+02:00",
        "2026-10-23T18:00:00+02:00",
        "2026-10-30T18:00:00+01:00",
    ]


def test_a_time_that_the_clock_change_leaves_out_is_an_hour_later_that_day() -> None:
    assert starts("FREQ=DAILY", "2026-03-28T02:30:00+01:00", "Europe/Berlin", 3) == [
        "2026-03-28T02:30:00+01:00",
        "2026-03-29T03:30:00+02:00",
        "2026-03-30T02:30:00+02:00",
    ]


def test_a_time_that_comes_twice_is_the_first_of_the_two() -> None:
    assert starts("FREQ=DAILY", "2026-10-24T02:30:00+02:00", "Europe/Berlin", 3) == [
        "2026-10-24T02:30:00+02:00",
        "2026-10-25T02:30:00+02:00",
        "2026-10-26T02:30:00+01:00",
    ]


def test_without_a_zone_a_rule_is_expanded_in_utc() -> None:
    assert starts("FREQ=DAILY", "2026-03-28T18:00:00+01:00", None, 2)[1] == "2026-03-29T17:00:00+00:00"


def test_months_without_the_day_are_left_out_and_the_last_day_is_always_there() -> None:
    assert [one[:10] for one in starts("FREQ=MONTHLY", "2026-01-31T12:00:00+00:00", None, 3)] == [
        "2026-01-31",
        "2026-03-31",
        "2026-05-31",
    ]
    assert [one[:10] for one in starts("FREQ=MONTHLY;BYMONTHDAY=-1", "2028-01-31T12:00:00+00:00", None, 3)] == [
        "2028-01-31",
        "2028-02-29",
        "2028-03-31",
    ]
    assert [one[:10] for one in starts("FREQ=YEARLY", "2024-02-29T12:00:00+00:00", None, 2)] == [
        "2024-02-29",
        "2028-02-29",
    ]
    assert [one[:10] for one in starts("FREQ=MONTHLY;BYDAY=2TU", "2026-01-13T12:00:00+00:00", None, 2)] == [
        "2026-01-13",
        "2026-02-10",
    ]
    workday = starts("FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1", "2026-01-30T12:00:00+00:00", None, 2)
    assert [one[:10] for one in workday] == ["2026-01-30", "2026-02-27"]


def test_count_counts_the_first_one_too() -> None:
    start = ms("2026-05-01T18:00:00+00:00")
    assert occurrence("FREQ=DAILY;COUNT=3", start, None, None, start + 9 * DAY).start_ms == start + 2 * DAY
    assert last_end_ms("FREQ=DAILY;COUNT=3", start, start + HOUR, None) == start + 2 * DAY + HOUR


@pytest.mark.parametrize(
    ("until", "last"),
    [
        ("20260503T160000Z", "2026-05-03"),
        ("20260503T155959Z", "2026-05-02"),
        ("20260503T180000", "2026-05-03"),
        ("20260503T175959", "2026-05-02"),
        ("20260503", "2026-05-02"),
    ],
)
def test_until_is_inclusive_a_moment_in_utc_or_a_local_time(until: str, last: str) -> None:
    start = ms("2026-05-01T18:00:00+02:00")
    found = last_end_ms(f"FREQ=DAILY;UNTIL={until}", start, None, "Europe/Berlin")
    assert found is not None
    assert iso(found, "Europe/Berlin") == f"{last}T18:00:00+02:00"


def test_until_in_utc_is_a_moment_also_in_the_hour_that_comes_twice() -> None:
    start = ms("2026-10-24T02:30:00+02:00")
    rule = "FREQ=DAILY;UNTIL=20261025T011500Z"  # 02:15 for the second time; 02:30 has been there once before
    assert last_end_ms(rule, start, None, "Europe/Berlin") == ms("2026-10-25T02:30:00+02:00")


def test_after_the_last_one_the_last_one_counts_for_ever() -> None:
    start = ms("2026-05-01T18:00:00+00:00")
    found = occurrence("FREQ=DAILY;COUNT=2", start, start + HOUR, None, start + 900 * DAY)
    assert (found.start_ms, found.end_ms, found.until_ms) == (start + DAY, start + DAY + HOUR, None)


def test_a_running_occurrence_counts_until_its_end_and_not_at_it() -> None:
    start = ms("2026-05-01T18:00:00+00:00")
    for now, expected in ((DAY, DAY), (DAY + 1, DAY), (DAY + HOUR - 1, DAY), (DAY + HOUR, 2 * DAY)):
        found = occurrence("FREQ=DAILY", start, start + HOUR, None, start + now)
        assert found.start_ms == start + expected
        assert found.until_ms == found.start_ms + HOUR


def test_one_without_an_end_counts_at_its_start_and_not_after() -> None:
    start = ms("2026-05-01T18:00:00+00:00")
    at, after = (occurrence("FREQ=DAILY", start, None, None, start + DAY + later) for later in (0, 1))
    assert (at.start_ms, at.until_ms) == (start + DAY, start + DAY + 1)
    assert after.start_ms == start + 2 * DAY


def test_occurrences_longer_than_their_interval_overlap_and_the_first_running_one_counts() -> None:
    start = ms("2026-05-01T18:00:00+00:00")
    assert occurrence("FREQ=DAILY", start, start + 3 * DAY, None, start + 5 * DAY).start_ms == start + 3 * DAY


def test_before_the_first_one_the_first_one_counts() -> None:
    start = ms("2026-05-01T18:00:00+00:00")
    assert occurrence("FREQ=WEEKLY", start, None, None, start - 50 * DAY).start_ms == start


def test_a_rule_without_an_end_has_no_last_one_and_stops_at_the_bound() -> None:
    start = ms("1990-01-01T00:00:00+00:00")
    assert last_end_ms("FREQ=DAILY", start, None, None) is None
    found = occurrence("FREQ=DAILY", start, None, None, start + 2 * OCCURRENCES * DAY)
    assert (found.start_ms, found.until_ms) == (start + (OCCURRENCES - 1) * DAY, None)
    assert last_end_ms(f"FREQ=DAILY;COUNT={OCCURRENCES * 9}", start, None, None) == start + (OCCURRENCES - 1) * DAY


def test_an_event_without_a_rule_ends_at_its_end_else_at_its_start() -> None:
    assert last_end_ms(None, 1000, 5000, None) == 5000
    assert last_end_ms(None, 1000, None, "Europe/Berlin") == 1000


@pytest.mark.parametrize("year", [1, 1582, 1899, 1970, 2026, 2100, 2369, 2370, 9969, 9970, 9999])
def test_rules_work_in_every_year_that_a_time_can_have(year: int) -> None:
    start = ms(f"{year:04d}-02-27T12:00:00+00:00")
    check("FREQ=DAILY", start, None)
    found = [occurrence("FREQ=DAILY", start, None, None, start + k * DAY).start_ms for k in range(4)]
    assert found == [start + k * DAY for k in range(4)]
    weekly = occurrence("FREQ=WEEKLY;BYDAY=MO", start, None, None, start).start_ms
    assert dt.datetime.fromtimestamp(weekly / 1000, dt.UTC).weekday() == 0
    for now in (start, ms("9999-12-31T23:59:59+00:00")):
        occurrence("FREQ=YEARLY", start, None, "Pacific/Kiritimati" if year < 9999 else None, now)


@pytest.mark.parametrize(
    "rule",
    [
        "FREQ=DAILY",
        "RRULE:FREQ=WEEKLY;BYDAY=MO,FR;WKST=SU",
        "freq=monthly;byday=-1su",
        "FREQ=YEARLY;BYMONTH=5;BYDAY=2SU;BYHOUR=11;BYMINUTE=30;BYSECOND=0",
        "FREQ=HOURLY;INTERVAL=6;COUNT=4",
        "FREQ=DAILY;UNTIL=20300101",
        "FREQ=YEARLY;BYYEARDAY=-1,1",
        "FREQ=YEARLY;BYWEEKNO=20;BYDAY=MO",
    ],
)
def test_rules_of_the_standard_are_taken(rule: str) -> None:
    check(rule, ms("2026-05-01T18:00:00+00:00"), "Europe/Berlin")


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("", "'' is not understood"),
        ("every day", "'EVERY DAY' is not understood"),
        ("FREQ=NEVER", "FREQ must be one of HOURLY"),
        ("INTERVAL=2", "FREQ must be one of HOURLY"),
        ("FREQ=MINUTELY", "FREQ must be one of HOURLY"),
        ("FREQ=secondly", "FREQ must be one of HOURLY"),
        ("FREQ=DAILY;BYMINUTE=0,30", "'BYMINUTE=0,30' is not understood"),
        ("FREQ=DAILY;INTERVAL=0", "'INTERVAL=0' is not understood"),
        ("FREQ=DAILY;INTERVAL=-1", "'INTERVAL=-1' is not understood"),
        ("FREQ=DAILY;COUNT=0", "'COUNT=0' is not understood"),
        ("FREQ=DAILY;COUNT=3;UNTIL=20300101T000000Z", "exclude each other"),
        ("FREQ=DAILY;FREQ=WEEKLY", "FREQ is given twice"),
        ("FREQ=DAILY;UNTIL=soon", "'UNTIL=SOON' is not understood"),
        ("FREQ=DAILY;UNTIL=20261301T000000Z", "does not match format"),
        ("FREQ=DAILY;BYEASTER=0", "'BYEASTER=0' is not understood"),
        ("FREQ=DAILY;BYMONTH=13", "BYMONTH is 13, which must be from 1 to 12"),
        ("FREQ=DAILY;BYHOUR=24", "BYHOUR is 24"),
        ("FREQ=MONTHLY;BYMONTHDAY=0", "BYMONTHDAY is 0"),
        ("FREQ=MONTHLY;BYDAY=1MO,50MO", "BYDAY with FREQ=MONTHLY is 50, which must be from 1 to 5"),
        ("FREQ=YEARLY;BYMONTH=1;BYDAY=1MO,50MO", "is 50, which must be from 1 to 5"),
        ("FREQ=YEARLY;BYDAY=-54MO", "is -54, which must be from 1 to 53"),
        ("FREQ=WEEKLY;BYDAY=1MO", "BYDAY with FREQ=WEEKLY is 1, which must be"),
        ("DTSTART:19970902T090000Z\nRRULE:FREQ=DAILY", "is not understood"),
        ("DTSTART:19970902T090000Z RRULE:FREQ=DAILY", "is not understood"),
        ("RRULE:FREQ=DAILY RDATE:20260501T000000Z", "is not understood"),
        ("FREQ=DAILY\nEXDATE:20260501T000000Z", "is not understood"),
        ("FREQ=HOURLY;BYSETPOS=2", "BYSETPOS goes with"),
        ("FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30", "no occurrence"),
        ("FREQ=HOURLY;BYMONTH=2;BYMONTHDAY=30", "no occurrence"),
        ("FREQ=MONTHLY;BYSETPOS=300", "no occurrence"),
        ("FREQ=DAILY;UNTIL=20200101T000000Z", "no occurrence"),
        ("FREQ=DAILY;BYHOUR=" + ",".join(["1"] * 300), f"at most {MAX_TEXT} characters"),
    ],
)
def test_what_is_no_rule_or_too_much_of_one_is_refused_with_the_reason(rule: str, says: str) -> None:
    with warnings.catch_warnings(), pytest.raises(ValueError, match=r"^recurrence is ") as caught:
        warnings.simplefilter("error")
        check(rule, ms("2026-05-01T18:00:00+00:00"), "Europe/Berlin")
    assert says in str(caught.value)


def test_a_start_that_has_no_local_time_in_the_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="out of range"):
        check("FREQ=DAILY", ms("9999-12-31T23:59:59+00:00"), "Asia/Tokyo")


FRAGMENTS = st.sampled_from(
    [
        "FREQ=DAILY",
        "FREQ=WEEKLY",
        "FREQ=MONTHLY",
        "FREQ=YEARLY",
        "COUNT=5",
        "INTERVAL=3",
        "BYDAY=MO",
        "BYDAY=5MO",
        "BYDAY=-1FR",
        "BYMONTH=2",
        "BYMONTHDAY=29",
        "BYMONTHDAY=-31",
        "BYYEARDAY=366",
        "BYWEEKNO=53",
        "BYHOUR=2",
        "BYHOUR=25",
        "BYSETPOS=1",
        "BYMINUTE=61",
        "UNTIL=20300101T000000Z",
        "UNTIL=00010101",
        "BYDAY=99SU",
        "BYDAY=-53SU",
        "BYSETPOS=-366",
        "BYMONTH=0",
        "WKST=SU",
        "WKST=1SU",
    ]
)


@settings(max_examples=75, deadline=None)
@given(st.lists(FRAGMENTS, max_size=5).map(";".join) | st.text(max_size=30), st.sampled_from(ZONES))
def test_a_rule_that_was_taken_never_fails_later(rule: str, zone: str) -> None:
    start = ms("2026-05-01T18:00:00+00:00")
    try:
        check(rule, start, zone)
    except ValueError:
        return
    for later in (-DAY, 0, 400 * DAY, 100_000 * DAY):
        assert occurrence(rule, start, start + HOUR, zone, start + later).start_ms >= start - DAY
    last_end_ms(rule, start, start + HOUR, zone)
