"""How often a clip is looked at: its pace, and when the next look is due. Pure.

    next_check(known, counts, since, level)     after a look that worked
    after_failure(reason, attempts, since)      after one that didn't
    pressure(used, quota, at)                   how tight the month's quota is
    crowding(paces, pressing, per_day)          how tight the runs are; the tighter of both is the `level` of a whole run

    viral     the last count rose by a quarter, or by 5,000 an hour      every 2 hours
    normal    anything else                                              every 4
    slow      under 50 an hour in each of the last two intervals         every 8
    dormant   no rise in any of the last three                           once a day
    new       the clip's first 24 hours, unless it is viral              at most every 4
    daily     only in campaigns that are over                            once a day

Campaigns that have spent most of their budget make it at most two hours (`pressing`). A rise is one of the best count so far: what
falls and comes back has not risen; a rise from nothing is viral by its speed alone. viral is asked first, then dormant, then slow: a rise
by a quarter is viral however small.

Where a month's calls would not last (STRETCH), slow and dormant clips wait longer first; later the normal ones and those
of campaigns that are over, at last the viral ones. What has an "at most" keeps it. The same where the runs could not take all looks that
the paces ask for: left alone, everything would be late, and the viral ones most, since the order of a run goes by age. Crowding
is worked out from the paces and not from what waits, so it doesn't swing; clips of campaigns that are over are not in it, as they get
what is left.

`since` is when the run began, not when the answer came: a run answers within minutes, and a clip that is due a few seconds after
the loop's tick would wait for the one after it. EARLY covers what the ticks themselves drift.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal, TypeAlias

from server.batching.tracking.plan import State, Tracked

Pace: TypeAlias = Literal["new", "viral", "normal", "slow", "dormant", "daily"]
Reason: TypeAlias = Literal["retry", "gone", "refused"]
Level: TypeAlias = Literal[0, 1, 2, 3]

HOUR: Final = dt.timedelta(hours=1)
TICK: Final = dt.timedelta(microseconds=1)
HOUR_MICROS: Final = HOUR // TICK
EVERY_H: Final[dict[Pace, int]] = {"new": 4, "viral": 2, "normal": 4, "slow": 8, "dormant": 24, "daily": 24}
PRESSING_H: Final = 2
NEW_FOR: Final = dt.timedelta(hours=24)
VIRAL_PERCENT: Final = 25
VIRAL_AN_HOUR: Final = 5_000
SLOW_AN_HOUR: Final = 50
SLOW_INTERVALS: Final = 2
DORMANT_INTERVALS: Final = 3
COUNTS_MOST: Final = 1 + DORMANT_INTERVALS
"""As many counts as a pace looks back at."""
EARLY: Final = dt.timedelta(minutes=1)

LEVEL_PERCENT: Final = (90, 95, 100)
"""Of the quota, by the month's end as it looks now: above these the levels 1, 2 and 3 begin."""
STRETCH: Final[dict[Pace, tuple[int, int, int, int]]] = {
    "new": (1, 1, 1, 1),
    "viral": (1, 1, 1, 2),
    "normal": (1, 1, 2, 4),
    "slow": (1, 2, 3, 6),
    "dormant": (1, 2, 3, 3),
    "daily": (1, 1, 2, 3),
}
"""By level: how many times as long. The hours that come out are the bounds of tracking.lane: another number makes the choice of clips
slower, not wrong."""
ROOM_PERCENT: Final = 90
"""Of what the runs can take, looks that are asked for may make up so much: they do not come evenly, and some are tried again."""
JUDGED_FROM: Final = dt.timedelta(days=1)
"""A month that is younger says nothing yet about its end."""

RETRY_FIRST: Final = dt.timedelta(minutes=30)
RETRY_MOST: Final = dt.timedelta(hours=24)
DOUBLINGS_MOST: Final = 10
"""That is beyond RETRY_MOST, so that no number grows without end."""
GONE_AGAIN: Final = dt.timedelta(hours=4)
GONE_MOST: Final = 3
"""So many times in a row not to be found, and the clip is unavailable."""


@dataclass(frozen=True, slots=True)
class Count:
    """What was seen, when."""

    at: dt.datetime
    views: int


@dataclass(frozen=True, slots=True)
class Known:
    """What besides its counts decides how often a clip is looked at."""

    tracked: Tracked
    pressing: bool
    created_at: dt.datetime


@dataclass(frozen=True, slots=True)
class Next:
    """The pace, and when it makes the next look due."""

    pace: Pace
    due_at: dt.datetime


def next_check(known: Known, counts: Sequence[Count], since: dt.datetime, level: Level = 0) -> Next:
    """After a look; `counts`, newest first, end with what it saw; `since`, when its run began."""
    pace = pace_of(known, counts, since)
    return Next(pace, since + interval(pace, known, since, level) - EARLY)


def pace_of(known: Known, counts: Sequence[Count], since: dt.datetime) -> Pace:
    """What its counts make of it."""
    if known.tracked != "active":
        return "daily"
    pace = _by_growth(_rises(counts[:COUNTS_MOST]))
    return "new" if pace != "viral" and _is_new(known, since) else pace


def interval(pace: Pace, known: Known, since: dt.datetime, level: Level = 0) -> dt.timedelta:
    """From one look to the next."""
    hours = EVERY_H[pace] * STRETCH[pace][level]
    if known.tracked == "active" and known.pressing:
        hours = min(hours, PRESSING_H)
    if known.tracked == "active" and _is_new(known, since):
        hours = min(hours, EVERY_H["new"])
    return hours * HOUR


def pressure(used: int, quota: int, at: dt.datetime) -> Level:
    """How tight it is: the calls of this UTC month so far, the month's quota (0: there is none), and when."""
    if quota <= 0:
        return 0
    percent = 100 * projected(used, at) / quota
    return _LEVELS[sum(percent > bound for bound in LEVEL_PERCENT)]


def projected(used: int, at: dt.datetime) -> float:
    """Calls by the end of the UTC month when it goes on as it did."""
    at = at.astimezone(dt.UTC)
    begins = at.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    ends = (begins + dt.timedelta(days=32)).replace(day=1)
    return used + used * ((ends - at) / max(at - begins, JUDGED_FROM))


def crowding(paces: Mapping[Pace, int], pressing: int, per_day: float) -> Level:
    """How tight it is: live clips by pace (`pressing` ones apart), and the looks that the runs of a day can take."""
    for level in _LEVELS:
        asked = sum(count * 24 / (EVERY_H[pace] * STRETCH[pace][level]) for pace, count in paces.items())
        if (asked + pressing * 24 / PRESSING_H) * 100 <= per_day * ROOM_PERCENT:
            return level
    return _LEVELS[-1]


def after_failure(reason: Reason, attempts: int, since: dt.datetime) -> dt.datetime:
    """When to try again: `attempts` looks in a row have failed, this one among them."""
    assert attempts >= 1
    if reason == "retry":
        return since + min(RETRY_FIRST * (1 << min(attempts - 1, DOUBLINGS_MOST)), RETRY_MOST) - EARLY
    return since + (GONE_AGAIN if reason == "gone" else RETRY_MOST) - EARLY


def state_after_gone(not_found: int) -> State:
    """What a clip is that was not to be found so often in a row."""
    return "unavailable" if not_found >= GONE_MOST else "ok"


_LEVELS: Final[tuple[Level, ...]] = (0, 1, 2, 3)


@dataclass(frozen=True, slots=True)
class _Rise:
    """From one count to the next: by how much the best rose, from what, in which time."""

    views: int
    best: int
    micros: int

    @property
    def viral(self) -> bool:
        quarter = self.best > 0 and self.views * 100 >= self.best * VIRAL_PERCENT
        return self.views > 0 and (quarter or self.views * HOUR_MICROS >= VIRAL_AN_HOUR * self.micros)

    @property
    def slow(self) -> bool:
        return self.views * HOUR_MICROS < SLOW_AN_HOUR * self.micros


def _rises(counts: Sequence[Count]) -> list[_Rise]:
    """Newest first; counts of one moment are no interval."""
    found, best = [], counts[-1].views if counts else 0
    for before, after in pairwise(reversed(counts)):
        if after.at > before.at:
            found.append(_Rise(max(0, after.views - best), best, (after.at - before.at) // TICK))
        best = max(best, after.views)
    return found[::-1]


def _by_growth(rises: Sequence[_Rise]) -> Pace:
    if rises and rises[0].viral:
        return "viral"
    if len(rises) >= DORMANT_INTERVALS and not any(rise.views for rise in rises[:DORMANT_INTERVALS]):
        return "dormant"
    if len(rises) >= SLOW_INTERVALS and all(rise.slow for rise in rises[:SLOW_INTERVALS]):
        return "slow"
    return "normal"


def _is_new(known: Known, since: dt.datetime) -> bool:
    return since - known.created_at < NEW_FOR
