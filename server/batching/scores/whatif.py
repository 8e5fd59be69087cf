"""What-if: what another interval, cut, threshold or weighting would cost and change for those connected now.

Nothing is sent and nothing is kept. The present settings and the asked ones are tried side by side on the same sample of
viewers at the same moment: the next flush as it would really be, a flush of many, and both views compared (estimate.py says
what each figure means, suppose.py how it is found). Bounded: SAMPLE viewers unless more are asked for, SUPPOSED events of
those that wait or have moved, one question at a time (the handler sees to that). The engine works it off behind everything
interactive, SLICE viewers at a time, so a pan waits for one slice at most.

Known limits, said in the answer: what an interval longer than the time watched would find moved is a lower bound. Of events
that have moved and are published already the present counters are taken. Immediate messages are in no figure, as no setting
here changes what causes them. A supposed version is as long as the next one is. Equal viewers share work that a sample of
them shows less of, so CPU is an upper bound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Final

from server.batching.scores import store
from server.batching.scores.audience import Viewer
from server.batching.scores.desk import Desk
from server.batching.scores.engine import Engine
from server.batching.scores.estimate import Change, Cost, Pulse, Side, change, pulse, sample, side
from server.batching.scores.ranking import Rules
from server.batching.scores.score import Weights
from server.batching.scores.suppose import Case, Supposed, steady, upcoming
from server.core.event import Counts
from server.edge.clock import Clock
from server.edge.postgres import Database
from server.protocol.whatif import SAMPLE, SAMPLE_MOST

SUPPOSED: Final = 10_000
"""Waiting events, and moved events, that are taken in; the answer says of how many."""
SLICE: Final = 32
"""Viewers that the engine tries in one go under one setting."""
PART: Final = 1000
"""Events taken in, or read, in one go."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What to try; None: as it is."""

    interval_ms: int | None = None
    threshold: float | None = None
    max_events: int | None = None
    weights: Mapping[str, float] | None = None
    spacing_km: float | None = None
    sample: int = SAMPLE
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Tried:
    """Settings as they were tried. `interval_ms` None: no batches; `max_events` None: as each viewer asked."""

    interval_ms: int | None
    max_batch_size: int
    threshold: float
    max_events: int | None
    weights: Weights
    spacing_km: float


@dataclass(frozen=True, slots=True)
class Grounds:
    """What the figures of an hour were worked out from.

    `moved`: distinct events whose counters moved in the last `watched_ms`; none known: the figures hold for a map on which
    only time moves. `waiting` is the queue, `waiting_taken` as much of it as was tried."""

    watched_ms: int
    moved: int
    activity_known: bool
    waiting: int
    waiting_taken: int


@dataclass(frozen=True, slots=True)
class Answer:
    """Both settings side by side. `deferred`: of the sample those whose frame waits just now; a flush now would owe them."""

    at_ms: int
    viewers: int
    sampled: int
    deferred: int
    seed: int
    events: int
    estimated_from: Grounds
    settings: tuple[Tried, Tried]
    present: Side
    asked: Side
    change: Change


@dataclass(frozen=True, slots=True)
class Present:
    """The settings in force; `interval_ms` None: batching is off."""

    rules: Rules
    threshold: float
    interval_ms: int | None
    max_batch: int
    gap_ms: int


@dataclass(frozen=True, slots=True)
class _Activity:
    """What moves, when somebody asks. `counts`: the stored counters of what waits; `newest`: the version given last."""

    now_ms: int
    grounds: Grounds
    counts: Mapping[str, Counts]
    newest: int


@dataclass(frozen=True, slots=True)
class _Try:
    """One setting, tried on the sample."""

    beat: Pulse
    costs: list[Cost]
    cpu_s: float


class WhatIf:
    """Tries settings on this node's viewers."""

    def __init__(self, db: Database, clock: Clock, desk: Desk, engine: Engine) -> None:
        self._db = db
        self._clock = clock
        self._desk = desk
        self._engine = engine
        self._started_ms = clock.now_ms()

    async def answer(self, wish: Wish, present: Present) -> Answer:
        """Try the wish beside what is in force."""
        now_ms, everybody = self._clock.now_ms(), self._desk.audience.all()
        chosen = [everybody[i] for i in sample(len(everybody), min(wish.sample, SAMPLE_MOST), wish.seed)]
        viewers = [viewer for viewer in chosen if viewer.free]
        deferred = len(chosen) - len(viewers)
        settings = tried(present, None), tried(present, wish)
        activity = await self._activity(now_ms)
        tries = []
        with self._engine.drawn():  # rows and slots stay as they are until the last slice
            waiting = await self._suppose(activity.counts, activity.newest)
            for one in settings:
                beat, moved = await self._pulse(one, present.gap_ms, activity)
                case = Case(rules_of(one, present), one.threshold, one.max_events, round(beat.interval_ms or 0))
                tries.append(_Try(beat, *await self._weigh(viewers, case, waiting, moved, now_ms)))
        before, after = tries
        return Answer(
            now_ms,
            len(everybody),
            len(viewers),
            deferred,
            wish.seed,
            await self._engine.spare(lambda lookout: len(lookout.columns)),
            activity.grounds,
            settings,
            side(before.costs, before.beat, len(everybody), deferred, before.cpu_s),
            side(after.costs, after.beat, len(everybody), deferred, after.cpu_s),
            change(before.costs, after.costs),
        )

    async def _activity(self, now_ms: int) -> _Activity:
        """What is known of activity, and the stored counters of what waits, in its order."""
        watched_ms = now_ms - self._desk.recent.known_since(self._started_ms)
        moved = len(self._desk.recent.after(now_ms - watched_ms - 1))
        ids = list(islice(self._desk.pending, SUPPOSED))
        counts: dict[str, Counts] = {}
        async with self._db.connection() as connection:
            newest = await store.newest_version(connection)
            for start in range(0, len(ids), PART):
                counts |= await store.waiting(connection, ids[start : start + PART])
        grounds = Grounds(watched_ms, moved, moved > 0, len(self._desk.pending), len(counts))
        return _Activity(now_ms, grounds, counts, newest)

    async def _suppose(self, counted: Mapping[str, Counts | None], newest: int) -> Supposed:
        """These events as if published, taken in a part at a time."""
        supposed, left = Supposed(), list(counted.items())
        for start in range(0, len(left), PART):
            part = dict(left[start : start + PART])
            await self._engine.spare(lambda lookout, part=part: supposed.add(lookout.columns, part, newest))  # type: ignore[misc]
        return supposed

    async def _pulse(self, one: Tried, gap_ms: int, activity: _Activity) -> tuple[Pulse, Supposed]:
        """How often flushes come with these settings, and what one of many of them publishes."""
        recent, now_ms = self._desk.recent, activity.now_ms
        moved = 0 if one.interval_ms is None else len(recent.after(now_ms - one.interval_ms))
        beat = pulse(one.interval_ms, moved, activity.grounds.watched_ms, one.max_batch_size, gap_ms)
        ids = recent.after(now_ms - round(beat.interval_ms))[:SUPPOSED] if beat.interval_ms else []
        return beat, await self._suppose({i: activity.counts.get(i) for i in ids}, activity.newest)

    async def _weigh(
        self, viewers: Sequence[Viewer], case: Case, waiting: Supposed, moved: Supposed, now_ms: int
    ) -> tuple[list[Cost], float]:
        """Slice by slice; and the CPU seconds of the steady frames."""
        costs: list[Cost] = []
        cpu_s, spare = 0.0, self._engine.spare
        for start in range(0, len(viewers), SLICE):
            some = viewers[start : start + SLICE]
            coming = await spare(partial(upcoming, viewers=some, case=case, waiting=waiting, now_ms=now_ms))
            lasting = await spare(partial(steady, viewers=some, case=case, moved=moved, now_ms=now_ms))
            costs += map(Cost, coming.sent, lasting.sent, coming.views)
            cpu_s += lasting.cpu_s
        return costs, cpu_s


def tried(present: Present, wish: Wish | None) -> Tried:
    """The settings in force, with those of the wish in their place."""
    rules = present.rules
    own = Tried(present.interval_ms, present.max_batch, present.threshold, None, rules.weights, rules.spacing_km)
    if wish is None:
        return own
    named = {
        "interval_ms": wish.interval_ms,
        "threshold": wish.threshold,
        "max_events": wish.max_events,
        "weights": None if wish.weights is None else replace(rules.weights, **wish.weights),
        "spacing_km": wish.spacing_km,
    }
    return replace(own, **{name: value for name, value in named.items() if value is not None})  # type: ignore[arg-type]


def rules_of(one: Tried, present: Present) -> Rules:
    """What a score depends on under these settings."""
    return replace(present.rules, weights=one.weights, spacing_km=one.spacing_km)
