"""Which clips a run looks at, and in what order. Pure.

    most_urgent(clips, now, limit)      of all of them, the ones that may be looked at now, the most urgent first

A clip may be looked at when it is needed (`tracked`), can be read (`state`), has fallen due, and nobody holds a lease on it.
Clips of ACTIVE campaigns come first; those that are in COMPLETED ones only, which earn nothing any more, get what a run has
left. Within each: never looked at first, then the higher score, then whose last look is older, then the lower id.

The score is the hours since the last look (NEVER_H when there was none), doubled from eight hours on, halved below four,
and half as much again when the newest of its campaigns is under seven days old. It rises with the time since the last
look, through all of its bands: so among clips of one class (new campaign or not) the order is that of the last look, and
an index can serve it although every score changes all the time. selection.py is this order in SQL.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from heapq import nsmallest
from typing import Final, Literal, TypeAlias

Tracked: TypeAlias = Literal["active", "ended", "none"]
State: TypeAlias = Literal["ok", "unavailable", "unsupported"]

NEVER_H: Final = 999
LONG: Final = dt.timedelta(hours=8)
SHORT: Final = dt.timedelta(hours=4)
NEW_CAMPAIGN: Final = dt.timedelta(days=7)
HOUR: Final = dt.timedelta(hours=1)
TICK: Final = dt.timedelta(microseconds=1)
QUARTERS: Final = 4
"""Weights are counted in quarters, so that scores compare as whole numbers."""


@dataclass(frozen=True, slots=True)
class Clip:
    """What the order asks of a clip."""

    id: int
    tracked: Tracked
    state: State
    created_at: dt.datetime
    last_checked_at: dt.datetime | None
    newest_campaign_at: dt.datetime | None
    next_due_at: dt.datetime
    lease_until: dt.datetime | None = None


Rank: TypeAlias = tuple[bool, bool, int, dt.datetime, int]


def most_urgent(clips: Iterable[Clip], now: dt.datetime, limit: int) -> list[Clip]:
    """Those that a run of so many would look at now, in order."""
    return nsmallest(limit, (clip for clip in clips if eligible(clip, now)), key=lambda clip: rank(clip, now))


def eligible(clip: Clip, now: dt.datetime) -> bool:
    """May it be looked at now?"""
    free = clip.lease_until is None or clip.lease_until <= now
    return clip.tracked != "none" and clip.state == "ok" and clip.next_due_at <= now and free


def rank(clip: Clip, now: dt.datetime) -> Rank:
    """The place in the order; the least is the most urgent."""
    oldest = clip.last_checked_at or clip.created_at
    return (
        clip.tracked != "active",
        clip.last_checked_at is not None,
        -_score(clip.last_checked_at, clip.newest_campaign_at, now),
        oldest,
        clip.id,
    )


def priority(last_checked_at: dt.datetime | None, newest_campaign_at: dt.datetime | None, now: dt.datetime) -> float:
    """The score, as people read it."""
    return _score(last_checked_at, newest_campaign_at, now) / (QUARTERS * (HOUR // TICK))


def is_new(newest_campaign_at: dt.datetime | None, now: dt.datetime) -> bool:
    """Is the newest of its campaigns under seven days old?"""
    return newest_campaign_at is not None and now - newest_campaign_at < NEW_CAMPAIGN


def _score(last_checked_at: dt.datetime | None, newest_campaign_at: dt.datetime | None, now: dt.datetime) -> int:
    """In quarters of a microsecond."""
    boost = 3 if is_new(newest_campaign_at, now) else 2
    if last_checked_at is None:
        return NEVER_H * (HOUR // TICK) * 2 * boost
    since = now - last_checked_at
    return (since // TICK) * _weight(since) * boost


def _weight(since: dt.timedelta) -> int:
    """In halves: doubled, single, half."""
    if since >= LONG:
        return 4
    return 2 if since >= SHORT else 1
