"""Recurring events: which occurrence counts at a given moment (RFC 5545 RRULE, expanded in the event's own time zone).

Of a recurring event counts the occurrence now running (start <= now < end, when it has an end), else the first at or after
now; when none is left, the last one. An occurrence that the clock change leaves out (02:30 when 03:00 follows 01:59) is at
the time that the offset before it gives; one that comes twice is the first of the two. UNTIL is inclusive; in UTC it is a
moment, else a local time.

Bounded: rules finer than hourly are refused, at most OCCURRENCES are expanded, and a rule that matches nothing is searched
for centuries, not until the year 9999 (see `_late`), then refused. An event whose rule goes further is treated as ending there.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import Final
from zoneinfo import ZoneInfo

from dateutil.rrule import rrulestr

OCCURRENCES: Final = 10_000
FREQUENCIES: Final = ("HOURLY", "DAILY", "WEEKLY", "MONTHLY", "YEARLY")
SET_POSITIONS: Final = ("MONTHLY", "YEARLY")
"""Where BYSETPOS can be used; a day or an hour has too few members, and a position beyond them is searched for in vain."""
MAX_TEXT: Final = 500
SEARCH_YEARS: Final = 30
"""Years that are searched at least."""
_WHOLE: Final = r"[1-9]\d{0,8}"
_DAY: Final = r"([+-]?\d{1,2})?(MO|TU|WE|TH|FR|SA|SU)"
_RANGES: Final = {
    "BYHOUR": (0, 23),
    "BYMINUTE": (0, 59),
    "BYSECOND": (0, 59),
    "BYMONTH": (1, 12),
    "BYMONTHDAY": (1, 31),
    "BYYEARDAY": (1, 366),
    "BYWEEKNO": (1, 53),
    "BYSETPOS": (1, 366),
}
"""The numbers that the standard allows, without their sign. The library takes others, and fails on some of them years later."""
_PARTS: Final = {
    "FREQ": r"[A-Z]+",
    "INTERVAL": _WHOLE,
    "COUNT": _WHOLE,
    "UNTIL": r"\d{8}(T\d{6}Z?)?",
    "WKST": "MO|TU|WE|TH|FR|SA|SU",
    "BYDAY": rf"{_DAY}(,{_DAY})*",
    **dict.fromkeys(_RANGES, r"[+-]?\d{1,3}(,[+-]?\d{1,3})*"),
    **dict.fromkeys(("BYMINUTE", "BYSECOND"), r"\d{1,2}"),
}
"""What each part looks like. A list of minutes or seconds would be finer than hourly."""


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One occurrence: UTC epoch ms; `until_ms` is when another may count (None: never)."""

    start_ms: int
    end_ms: int | None
    until_ms: int | None


def check(rule: str, start_ms: int, timezone: str | None) -> None:
    """ValueError that says what is wrong with a rule, if anything is."""
    if len(rule) > MAX_TEXT:
        raise ValueError(f"recurrence is one RRULE of at most {MAX_TEXT} characters")
    try:
        if next(_expand(rule, start_ms, timezone), None) is None:
            raise ValueError("it has no occurrence")
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"recurrence is not a rule of RFC 5545 that can be used: {error}") from None


def occurrence(rule: str, start_ms: int, end_ms: int | None, timezone: str | None, now_ms: int) -> Occurrence:
    """The occurrence that counts at `now_ms`."""
    length = None if end_ms is None else end_ms - start_ms
    last = start_ms
    for begins in _expand(rule, start_ms, timezone):
        last = begins
        if begins >= now_ms or (length is not None and begins + length > now_ms):
            ends = None if length is None else begins + length
            return Occurrence(begins, ends, max(begins + 1, ends or 0))
    return Occurrence(last, None if length is None else last + length, None)


def last_end_ms(rule: str | None, start_ms: int, end_ms: int | None, timezone: str | None) -> int | None:
    """When the last occurrence ends (its start, without an end); None: it goes on without a bound."""
    length = 0 if end_ms is None else end_ms - start_ms
    if rule is None:
        return start_ms + length
    if not _parts(rule).keys() & {"COUNT", "UNTIL"}:
        return None
    last = start_ms
    for last in _expand(rule, start_ms, timezone):  # noqa: B007  the last one is what we want
        pass
    return last + length


def _expand(rule: str, start_ms: int, timezone: str | None) -> Iterator[int]:
    """Starts of the occurrences."""
    parts, zone = _parts(rule), ZoneInfo(timezone or "UTC")
    local = dt.datetime.fromtimestamp(start_ms / 1000, tz=zone).replace(tzinfo=None)
    most = min(int(parts.pop("COUNT", OCCURRENCES)), OCCURRENCES)
    last_ms = _until_ms(parts.pop("UNTIL", None), zone)
    years = _late(local.year)
    rest = ";".join(f"{name}={value}" for name, value in parts.items())
    moments = islice(rrulestr(rest, dtstart=local.replace(year=local.year + years)), most)
    return takewhile(lambda ms: ms <= last_ms, (_to_ms(m.replace(year=m.year - years), zone) for m in moments))


def _late(year: int) -> int:
    """Years to add so that the library, which searches until 9999, ends soon: the calendar repeats after 400, to the weekday."""
    return max(0, (dt.MAXYEAR - SEARCH_YEARS - year) // 400 * 400)


def _parts(rule: str) -> dict[str, str]:
    """The parts of a rule by name; ValueError when one is unknown, malformed or given twice."""
    parts: dict[str, str] = {}
    for part in rule.upper().removeprefix("RRULE:").strip().removesuffix(";").split(";"):
        name, _, value = part.partition("=")
        if re.fullmatch(_PARTS.get(name, "(?!)"), value, re.ASCII) is None:
            raise ValueError(f"{part[:40]!r} is not understood; known are {', '.join(_PARTS)}")
        if name in parts:
            raise ValueError(f"{name} is given twice")
        parts[name] = value
    _fit_together(parts)
    return parts


def _fit_together(parts: dict[str, str]) -> None:
    frequency = parts.get("FREQ", "none")
    if frequency not in FREQUENCIES:
        raise ValueError(f"FREQ must be one of {', '.join(FREQUENCIES)}, not {frequency}")
    if "BYSETPOS" in parts and frequency not in SET_POSITIONS:
        raise ValueError(f"BYSETPOS goes with FREQ={' or '.join(SET_POSITIONS)}, not {frequency}")
    if "COUNT" in parts and "UNTIL" in parts:
        raise ValueError("COUNT and UNTIL exclude each other")
    for name in parts.keys() & _RANGES.keys():
        _in_range(name, parts[name].split(","), *_RANGES[name])
    numbered = [day[:-2] for day in parts.get("BYDAY", "").split(",") if len(day) > 2]
    if numbered:
        most = 0 if frequency not in SET_POSITIONS else 53 if frequency == "YEARLY" and "BYMONTH" not in parts else 5
        _in_range(f"the number in BYDAY with FREQ={frequency}", numbered, 1, most)


def _in_range(name: str, numbers: list[str], least: int, most: int) -> None:
    for number in numbers:
        if not least <= abs(int(number)) <= most:
            raise ValueError(f"{name} is {number}, which must be from {least} to {most}")


def _until_ms(text: str | None, zone: ZoneInfo) -> float:
    if text is None:
        return float("inf")
    shape = "%Y%m%dT%H%M%S" if "T" in text else "%Y%m%d"
    return _to_ms(dt.datetime.strptime(text.removesuffix("Z"), shape), dt.UTC if text.endswith("Z") else zone)  # noqa: DTZ007  the zone follows


def _to_ms(local: dt.datetime, zone: dt.tzinfo) -> int:
    return round(local.replace(tzinfo=zone).timestamp() * 1000)
