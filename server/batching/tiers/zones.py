"""Local times of a day as instants, by time zone. Pure but for the time zone database, which zoneinfo reads.

Planning asks for the same zones and days again and again, so a day whose offset stays the same during the hours that can
be booked is one remembered number. The few others (a clock change in the middle of the day) are asked minute by minute: a
time that the change removes is None, one that comes twice is the first of the two.
"""

from __future__ import annotations

import datetime as dt
from functools import cache, lru_cache
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

from server.batching.tiers.months import DAY_S, date_of
from server.batching.tiers.rules import HOURS

REMEMBERED: Final = 1 << 16
"""Zones and days whose offset is remembered: every zone there is for three months."""
_OPEN: Final = min(least for least, _ in HOURS.values())
_SHUT: Final = max(most for _, most in HOURS.values())


@cache
def zone_names() -> frozenset[str]:
    """The zones there are; a name from outside is never looked up as a path."""
    return frozenset(available_timezones())


def known_zone(name: str) -> bool:
    """Is there such a zone?"""
    return name in zone_names()


@lru_cache(REMEMBERED)
def offset_s(zone: str, day: int) -> int | None:
    """Seconds that local time is ahead of UTC through the hours that can be booked; None where that changes meanwhile."""
    local = dt.datetime.combine(date_of(day), dt.time(), ZoneInfo(zone))
    ends = [local + dt.timedelta(hours=hour) for hour in (_OPEN, _SHUT)]
    # With fold, an end that lies in a gap tells on itself: a change may leave out a whole day.
    ahead = {_ahead_s(end.replace(fold=fold)) for end in ends for fold in (0, 1)}
    return ahead.pop() if len(ahead) == 1 else None


def instant(zone: str, day: int, minute: int) -> int | None:
    """The instant of a local minute of a day; None where a clock change leaves it out."""
    steady = offset_s(zone, day)
    if steady is not None:
        return day * DAY_S + minute * 60 - steady
    local = dt.datetime.combine(date_of(day), dt.time(), ZoneInfo(zone)) + dt.timedelta(minutes=minute)
    ahead = _ahead_s(local)
    # Before a gap the earlier offset is the smaller one, before an hour that comes twice the greater.
    left_out = ahead < _ahead_s(local.replace(fold=1))
    return None if left_out else day * DAY_S + minute * 60 - ahead


def _ahead_s(local: dt.datetime) -> int:
    offset = local.utcoffset()
    return 0 if offset is None else int(offset.total_seconds())
