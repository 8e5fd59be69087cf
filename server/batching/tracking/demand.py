"""How many calls so many clips need, whether the runs can make them, and which of the provider's plans is enough. Pure.

    plan(clips_per_week, life_days, checks_per_day, ...)      arithmetic: what it comes to when every clip is looked at so often
    simulate(posts, days, terms)                              day by day: what plan.py and cadence.py make of posts that grow

Clips stay live for weeks, so they add up: it is the live ones that cost calls, not those of one day. `plan` is the upper end,
as if no clip ever slowed down; `simulate` lets them, with the same functions that choose and pace in earnest. A month of a plan counts
MONTH_DAYS.
"""

from __future__ import annotations

import datetime as dt
import heapq
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Final

from server.batching.tracking.cadence import (
    COUNTS_MOST,
    Count,
    Known,
    Level,
    Pace,
    after_failure,
    crowding,
    next_check,
    pressure,
)
from server.batching.tracking.plan import Clip, most_urgent

WEEK_DAYS: Final = 7
MONTH_DAYS: Final = 30
DAY_S: Final = 86_400
HOUR: Final = dt.timedelta(hours=1)
START: Final = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
"""When a simulation begins: with a month, so that it sees whole ones."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan of the provider: calls a month, and what it costs."""

    name: str
    calls: int
    price_cents: int


PLANS: Final = (Plan("free", 5_000, 0), Plan("starter", 100_000, 4_900), Plan("team", 1_000_000, 49_900))


@dataclass(frozen=True, slots=True)
class Offer:
    """A plan against what is needed: the share of its quota (1.0: all of it), and whether that is enough."""

    plan: Plan
    share: float
    enough: bool


@dataclass(frozen=True, slots=True)
class Demand:
    """What so many clips need. Capacity is in looks at a clip; `clips_per_run` is what a run would have to take."""

    live: int
    checks_per_day: int
    calls_per_day: int
    calls_per_month: int
    capacity_per_day: int
    capacity_per_week: int
    enough_capacity: bool
    clips_per_run: int
    offers: tuple[Offer, ...]
    cheapest: Plan | None


def plan(
    clips_per_week: int = 500,
    life_days: int = 30,
    checks_per_day: Fraction | int = 6,
    posts_per_call: int = 1,
    run_clips: int = 100,
    run_every_s: int = 4 * 3600,
    plans: Sequence[Plan] = PLANS,
) -> Demand:
    """The arithmetic. Exact until the end, then rounded; `checks_per_day` of one clip, on the average."""
    assert min(clips_per_week, life_days) >= 0 < min(posts_per_call, run_clips, run_every_s)
    live = Fraction(clips_per_week * life_days, WEEK_DAYS)
    checks = live * checks_per_day
    calls = checks / posts_per_call
    month = round(calls * MONTH_DAYS)
    capacity = Fraction(run_clips * DAY_S, run_every_s)
    offers = tuple(Offer(one, month / one.calls, month <= one.calls) for one in plans)
    return Demand(
        live=round(live),
        checks_per_day=round(checks),
        calls_per_day=round(calls),
        calls_per_month=month,
        capacity_per_day=math.floor(capacity),
        capacity_per_week=math.floor(capacity * WEEK_DAYS),
        enough_capacity=checks <= capacity,
        clips_per_run=math.ceil(checks * run_every_s / DAY_S),
        offers=offers,
        cheapest=min((one.plan for one in offers if one.enough), key=lambda one: one.price_cents, default=None),
    )


# --- day by day ---


@dataclass(frozen=True, slots=True)
class Post:
    """A post that comes in. `seen(hours)` is what a look finds that long after it came, None when it fails; the newest of its campaigns
    began at `campaign_at`, nears its budget's end at `pressing_at`, and ends at `ends_at`; from `leaves_at` on nobody looks at it."""

    comes_at: dt.datetime
    platform: str
    seen: Callable[[float], int | None]
    campaign_at: dt.datetime
    pressing_at: dt.datetime
    ends_at: dt.datetime
    leaves_at: dt.datetime | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """How runs go: as the settings' defaults say."""

    run_clips: int = 100
    run_every_s: int = 1_800
    posts_per_call: int = 20
    quota: int = 100_000


@dataclass(slots=True)
class Simulated:
    """What happened. `on_time`: looks not later than one run after they were due; `within`: before another interval had passed.
    `unsent`: looks that the quota did not allow; `waiting`: clips that are late at the end. Looks at clips whose campaigns are over
    count among all, and apart."""

    checks: int = 0
    on_time: int = 0
    within: int = 0
    ended: int = 0
    ended_on_time: int = 0
    failed: int = 0
    unsent: int = 0
    waiting: int = 0
    calls: Counter[dt.date] = field(default_factory=Counter)
    paces: Counter[Pace] = field(default_factory=Counter)
    levels: Counter[Level] = field(default_factory=Counter)


def simulate(posts: Sequence[Post], days: int, terms: Terms | None = None) -> Simulated:
    """All runs of so many days: each takes the most urgent of the clips that are due, and every clip is paced by what was seen."""
    world = _World(posts, terms or Terms())
    for number in range(days * DAY_S // world.terms.run_every_s):
        world.run(START + dt.timedelta(seconds=number * world.terms.run_every_s))
    return world.close()


@dataclass(slots=True)
class _Kept:
    """What is known of a clip between two looks."""

    due_at: dt.datetime
    interval: dt.timedelta
    pace: Pace = "new"
    pressing: bool = False
    last_at: dt.datetime | None = None
    counts: tuple[Count, ...] = ()
    failures: int = 0


class _World:
    """Posts and what is known of them, from run to run."""

    def __init__(self, posts: Sequence[Post], terms: Terms) -> None:
        self.terms = terms
        self._run = dt.timedelta(seconds=terms.run_every_s)
        self._posts = posts
        self._kept = [_Kept(one.comes_at, HOUR) for one in posts]
        self._later = [(kept.due_at, number) for number, kept in enumerate(self._kept)]
        heapq.heapify(self._later)
        self._due: dict[int, Clip] = {}
        self._asking = Counter[tuple[Pace, bool]]()
        self._now = START
        self._did = Simulated()

    def run(self, now: dt.datetime) -> None:
        """One of them: what is due, the most urgent of that, as far as the quota goes."""
        self._now = now
        while self._later and self._later[0][0] <= now:
            number = heapq.heappop(self._later)[1]
            self._due[number] = self._clip(number)
        for number in [number for number in self._due if self._left(self._posts[number])]:
            del self._due[number]
            self._keep(number, None)
        level = self._level()
        chosen = most_urgent(self._due.values(), now, self.terms.run_clips)
        for call in self._calls([clip.id for clip in chosen]):
            self._call(call, level)
        self._did.levels[level] += 1

    def close(self) -> Simulated:
        """The end."""
        self._did.waiting = sum(self._now - clip.next_due_at > self._run for clip in self._due.values())
        return self._did

    def _level(self) -> Level:
        per_day = self.terms.run_clips * DAY_S / self.terms.run_every_s
        quota = pressure(self._did.calls[_month(self._now)], self.terms.quota, self._now)
        active = {of: count for of, count in self._asking.items() if of[0] != "daily"}
        paces = {pace: count for (pace, pressing), count in active.items() if not pressing}
        return max(quota, crowding(paces, sum(count for of, count in active.items() if of[1]), per_day))

    def _clip(self, number: int) -> Clip:
        post, kept = self._posts[number], self._kept[number]
        active = self._active(post)
        return Clip(
            id=number,
            tracked="active" if active else "ended",
            state="ok",
            created_at=post.comes_at,
            last_checked_at=kept.last_at,
            newest_campaign_at=post.campaign_at if active else None,
            next_due_at=kept.due_at,
        )

    def _calls(self, numbers: Sequence[int]) -> list[list[int]]:
        """As many posts of a platform in one call as it takes."""
        calls: list[list[int]] = []
        for platform in dict.fromkeys(self._posts[number].platform for number in numbers):
            mine = [number for number in numbers if self._posts[number].platform == platform]
            size = self.terms.posts_per_call
            calls += [mine[start : start + size] for start in range(0, len(mine), size)]
        return calls

    def _call(self, numbers: Sequence[int], level: Level) -> None:
        month = _month(self._now)
        if self._did.calls[month] >= self.terms.quota:
            self._did.unsent += len(numbers)
            return
        self._did.calls[month] += 1
        for number in numbers:
            self._note(self._due.pop(number), self._kept[number])
            self._keep(number, self._look(number, level))

    def _look(self, number: int, level: Level) -> _Kept:
        post, kept = self._posts[number], self._kept[number]
        views = post.seen((self._now - post.comes_at) / HOUR)
        if views is None:
            self._did.failed += 1
            failures = kept.failures + 1
            due_at = after_failure("retry", failures, self._now)
            return replace(kept, due_at=due_at, interval=due_at - self._now, failures=failures)
        counts = (Count(self._now, views), *kept.counts)[:COUNTS_MOST]
        active, pressing = self._active(post), self._now >= post.pressing_at
        known = Known("active" if active else "ended", pressing, post.comes_at)
        then = next_check(known, counts, self._now, level)
        self._did.paces[then.pace] += 1
        return _Kept(then.due_at, then.due_at - self._now, then.pace, pressing, self._now, counts)

    def _note(self, clip: Clip, kept: _Kept) -> None:
        late = self._now - kept.due_at
        self._did.checks += 1
        self._did.on_time += late <= self._run
        self._did.within += late <= kept.interval
        if clip.tracked == "ended":
            self._did.ended += 1
            self._did.ended_on_time += late <= self._run

    def _keep(self, number: int, kept: _Kept | None) -> None:
        """What is known by now; nothing of a clip that nobody looks at any more."""
        before = self._kept[number]
        self._asking[before.pace, before.pressing] -= before.last_at is not None
        if kept is not None:
            self._kept[number] = kept
            self._asking[kept.pace, kept.pressing] += kept.last_at is not None
            heapq.heappush(self._later, (kept.due_at, number))

    def _left(self, post: Post) -> bool:
        return post.leaves_at is not None and self._now >= post.leaves_at

    def _active(self, post: Post) -> bool:
        return self._now < post.ends_at


def _month(at: dt.datetime) -> dt.date:
    return at.date().replace(day=1)
