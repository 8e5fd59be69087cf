"""Recurring events: which occurrence counts at a given moment (RFC 5545 RRULE, expanded in the event's own time zone).

Of a recurring event counts the occurrence now running (start <= now < end, when it has an end), else the first at or after
now; when none is left, the last one. Rules finer than hourly are refused and at most OCCURRENCES are expanded, so that a
rule can't cost more than some milliseconds; an event whose rule goes further is treated as ending there.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final
from zoneinfo import ZoneInfo

from dateutil.rrule import rrule, rrulestr

OCCURRENCES: Final = 10_000
REFUSED: Final = ("SECONDLY", "MINUTELY")
MAX_TEXT: Final = 500


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One occurrence: UTC epoch ms; `until_ms` is when another may count (None: never)."""

    start_ms: int
    end_ms: int | None
    until_ms: int | None


def check(rule: str, start_ms: int, timezone: str | None) -> None:
    """ValueError that says what is wrong with a rule, if anything is."""
    if len(rule) > MAX_TEXT or "\n" in rule:
        raise ValueError(f"one RRULE of at most {MAX_TEXT} characters")
    if any(f"FREQ={word}" in rule.upper() for word in REFUSED):
        raise ValueError("FREQ must be HOURLY or slower")
    try:
        next(iter(_expand(rule, start_ms, timezone)), None)
    except (ValueError, TypeError, OverflowError, KeyError, AttributeError) as error:
        raise ValueError(f"not a rule of RFC 5545: {error}") from None


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
    if "COUNT=" not in rule.upper() and "UNTIL=" not in rule.upper():
        return None
    last = start_ms
    for last in _expand(rule, start_ms, timezone):  # noqa: B007  the last one is what we want
        pass
    return last + length


def _expand(rule: str, start_ms: int, timezone: str | None) -> Iterator[int]:
    zone = ZoneInfo(timezone or "UTC")
    local = dt.datetime.fromtimestamp(start_ms / 1000, tz=zone).replace(tzinfo=None)
    parsed = rrulestr(_naive_until(rule, zone), dtstart=local)
    if not isinstance(parsed, rrule):
        raise ValueError("exactly one RRULE")
    return (round(moment.replace(tzinfo=zone).timestamp() * 1000) for moment in islice(parsed, OCCURRENCES))


def _naive_until(rule: str, zone: ZoneInfo) -> str:
    """UNTIL given in UTC, as the local time that the expansion (in local time) needs."""
    parts = rule.removeprefix("RRULE:").strip().split(";")
    for index, part in enumerate(parts):
        name, _, value = part.partition("=")
        if name.upper() == "UNTIL" and value.endswith("Z"):
            moment = dt.datetime.strptime(value, "%Y%m%dT%H%M%SZ").replace(tzinfo=dt.UTC).astimezone(zone)
            parts[index] = f"UNTIL={moment:%Y%m%dT%H%M%S}"
    return ";".join(parts)
