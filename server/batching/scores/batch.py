"""The live feed's turns: flush, immediate, urgent, drift, expire, tidy. Each on one screen: collect, plan, act, settle.

  flush      the interval, MAX_BATCH_SIZE pending, force, shutdown: publishes what is pending, then one `batch-update` a viewer
  immediate  woken by the writer: who is touched by what was published since is told at once
  urgent     woken by `priority: high`: publishes those counters, then wakes immediate
  drift      only while batching is off: sends what time has moved
  catch-up   woken when a waiting frame has drained or a rest is over: one difference for all that its viewer missed
  adapt      only with ADAPTIVE_BATCHING or PREDICTIVE_BATCHING: the flush's interval follows activity (pace.py)
  predict    only with PREDICTIVE_BATCHING: what past weeks foretell is read anew (predictive.py)
  forget     events that are gone and held by nobody give their slots back; sessions that ended too long ago are forgotten
  expire     leader only: events that ended a day ago become EXPIRED, old EXPIRED ones are removed
  tidy       leader only: hourly partitions of remembered updates are made ahead and dropped when old

Turns that walk over viewers ask the engine for drafts, a slice of viewers at a time, and hand them over; a draft whose viewer
has changed since is not handed over but made anew (views.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import asyncpg
import structlog

from server.batching.lag import Lag
from server.batching.loop import Occasion, Turn, TurnRecord
from server.batching.scores import store
from server.batching.scores.audience import Owed, Viewer, slots
from server.batching.scores.desk import Desk
from server.batching.scores.engine import Engine
from server.batching.scores.ingest import Writer
from server.batching.scores.pace import Pace
from server.batching.scores.plan import Asked
from server.batching.scores.predictive import HISTORY_WEEKS, WEEK_MS, foreseen
from server.batching.scores.rounds import Alone, Round, Told
from server.batching.scores.views import Draft, Kind, Sight
from server.core.event import Delete, Outcome, Upsert
from server.core.identity import Identity
from server.edge.backup import undisturbed
from server.edge.clock import Clock
from server.edge.postgres import Database
from server.errors import Unavailable

SLICE: Final = 256
"""Viewers that the engine looks at in one go, some 10 to 25 ms; a fixed count, so that a replay slices alike."""
LOOKS: Final = 3
"""How often a walk looks at a viewer to whom something happens meanwhile, before it is owed the frame."""
RETRY_MS: Final = 1000
EXPIRE_SLICE: Final = 500
DAY_MS: Final = 86_400_000
SERVER: Final = Identity(user="batchcast", roles=frozenset(("admin",)))

log = structlog.get_logger()


@dataclass(slots=True)
class Statistics:
    """The batch statistics since process start, a fold over the flush's turn records."""

    batches: int = 0
    events: int = 0
    frames: int = 0
    last_ms: int = 0
    last_seconds: float = 0.0
    deferred: int = 0

    def observe(self, record: TurnRecord) -> None:
        """Count one flush, when it was one of batching."""
        if record.error is not None or not record.detail.get("batching"):
            return
        events = int(record.detail.get("events", 0))
        self.frames += int(record.detail.get("frames", 0))
        self.deferred += record.deferred
        if events:
            self.batches += 1
            self.events += events
            self.last_ms = record.started_at_ms
            self.last_seconds = record.seconds

    @property
    def average(self) -> float:
        """Pending events a batch took, on average."""
        return round(self.events / self.batches, 2) if self.batches else 0


@dataclass(slots=True)
class Walk:
    """How one walk over the viewers went."""

    frames: int = 0
    deferred: int = 0


@dataclass(frozen=True, slots=True)
class Sighting:
    """How a walk looks at each viewer."""

    kind: Kind
    threshold: float | None
    now_ms: int
    urgent: bool


@dataclass(slots=True)
class Turns:
    """The turns of the live feed; `wake` maps a loop's name and a delay in ms to its wake."""

    db: Database
    clock: Clock
    desk: Desk
    engine: Engine
    writer: Writer
    keep_days: int
    update_ids_keep_h: int
    update_ids_keep_rows: int
    fenced: Callable[[asyncpg.Connection], Awaitable[int]]
    wake: Callable[[str, int], None]
    lag: Lag
    pace: Pace | None
    retimed: Callable[[], None]
    """Called when `pace` has another interval."""
    statistics: Statistics = field(default_factory=Statistics)
    round: Round = field(default_factory=Alone)
    """Where the other servers over this database come into a flush (rounds.py)."""
    moved_elsewhere: Callable[[], int] = int
    """As `desk.moved`, of the other servers."""

    async def flush(self, occasion: Occasion) -> Turn:
        """Publish all that was pending when it began, then send each viewer one batch."""
        if not await self.round.begin(occasion):
            return Turn()
        batching = self.desk.tunables.enabled
        taken = list(self.desk.pending)
        with self.lag.watch():
            failed = await self._publish_slices(taken)
            done = len(taken) - failed
            await self.round.published(done, failed, occasion.now_ms)
            walk = await self.batch(occasion.now_ms)
        await self.round.walked(Told(walk.frames, walk.deferred))
        detail = {"events": done, "frames": walk.frames, "viewers": len(self.desk.audience), "batching": int(batching)}
        return Turn(len(taken) + walk.deferred, done, failed, walk.deferred, detail=detail)

    async def batch(self, now_ms: int) -> Walk:
        """Send each viewer of this server one batch."""
        return await self._walk(self.desk.audience.all(), Kind.BATCH, self.desk.threshold, now_ms)

    async def _publish_slices(self, taken: Sequence[str]) -> int:
        """Returns how many could not be published; they stay pending and the flush comes again soon."""
        size = self.desk.tunables.max_batch
        for start in range(0, len(taken), size):
            try:
                await self.writer.publish(taken[start : start + size])
            except Unavailable as error:
                log.warning("publish deferred", events=len(taken) - start, reason=error.message)
                self.wake("scores", RETRY_MS)
                return len(taken) - start
        return 0

    async def immediate(self, occasion: Occasion) -> Turn:
        """Tell at once whoever holds, or now gets, one of the events published since the last such turn."""
        changed, self.desk.changed = self.desk.changed, {}
        if not changed:
            return Turn()
        now_ms, viewers = occasion.now_ms, self.desk.audience.all()
        threshold = None if self.desk.tunables.enabled else self.desk.threshold
        due = await self.engine.ask(lambda lookout: lookout.touched(viewers, list(changed), now_ms))
        walk = await self._walk(due, Kind.IMMEDIATE, threshold, now_ms, urgent=True)
        detail = {"frames": walk.frames, "owed": walk.deferred}
        return Turn(len(changed), len(changed), detail=detail)

    async def urgent(self, occasion: Occasion) -> Turn:
        """Publish counters that may not wait; an urgent publish is an immediate turn too."""
        ids = list(self.desk.urgent)
        await self.writer.publish(ids, urgent=True)
        self.desk.changed.update(dict.fromkeys(ids))
        if ids:
            self.wake("immediate", 0)
        return Turn(len(ids), len(ids))

    async def drift(self, occasion: Occasion) -> Turn:
        """Send every score that time has moved past the threshold; only while batching is off."""
        viewers = self.desk.audience.all()
        walk = await self._walk(viewers, Kind.RECOUNT, self.desk.threshold, occasion.now_ms)
        return Turn(detail={"frames": walk.frames, "owed": walk.deferred})

    async def catch_up(self, occasion: Occasion) -> Turn:
        """One difference for each viewer whose waiting frame is out or whose rest is over, for all that it missed."""
        pacing, drained = self.desk.pacing, self.desk.drained
        drained.update(dict.fromkeys(v for v in pacing.rested(SLICE) if v.owed))
        oldest = list(islice(drained, SLICE))
        for viewer in oldest:
            del drained[viewer]
        sights = [self._missed(v) for v in oldest if v.owed and v in self.desk.audience and v.free]
        with self.engine.drawn():
            drafts = await self.engine.see(sights) if sights else []
            for sight, draft in zip(sights, drafts, strict=True):
                self._catch_up(sight, draft)
        pacing.wake_next()
        return Turn(len(sights), len(sights), more=bool(drained))

    def _missed(self, viewer: Viewer) -> Sight:
        kind = Kind.BATCH if viewer.owed is Owed.BATCH else Kind.IMMEDIATE
        viewer.owed = Owed.NOTHING
        return Sight(viewer, kind, self.desk.threshold)

    def _catch_up(self, sight: Sight, draft: Draft) -> None:
        if draft.viewer not in self.desk.audience:
            return
        taken = draft.frame is not None and not draft.viewer.free
        if taken or self.desk.pacing.deliver(draft) is None:
            self._owe(draft.viewer, sight.kind, Walk())

    async def adapt(self, occasion: Occasion) -> Turn:
        """Bring the flush's interval to what activity asks for."""
        pace, tunables = self.pace, self.desk.tunables
        if pace is None or not tunables.enabled:
            return Turn()
        pace.base_ms = tunables.interval_ms
        if pace.look(self.desk.moved + self.moved_elsewhere(), tunables.max_batch, occasion.now_ms):
            self.retimed()
        return Turn(detail={"intervalMs": pace.interval_ms, "rate": round(pace.activity.rate, 3)})

    async def predict(self, occasion: Occasion) -> Turn:
        """Read what past weeks foretell; the next `adapt` goes by it."""
        if self.pace is None:
            return Turn()
        async with self.db.connection() as connection:
            counted, since_ms = await store.activity(connection, occasion.now_ms - HISTORY_WEEKS * WEEK_MS)
        self.pace.forecast = foreseen(counted, since_ms or occasion.now_ms, occasion.now_ms)
        known = 0 if self.pace.forecast is None else self.pace.forecast.known_hours
        return Turn(len(counted), len(counted), detail={"knownHours": known})

    async def expire(self, occasion: Occasion) -> Turn:
        """A slice of events that ended more than 24 h ago become EXPIRED; of those kept long enough, are removed."""
        async with self.db.connection() as connection:
            ended = await store.ended(connection, occasion.now_ms - DAY_MS, EXPIRE_SLICE)
            old = await store.outlived(connection, occasion.now_ms - self.keep_days * DAY_MS, EXPIRE_SLICE)
        asked = [Asked(Upsert(i, {"status": "EXPIRED"}), SERVER) for i in ended]
        asked += [Asked(Delete(i), SERVER) for i in old]
        outcomes: list[Outcome] = await self.writer.write(asked)
        more = EXPIRE_SLICE in (len(ended), len(old))
        return Turn(len(outcomes), len(outcomes), more=more, detail={"expired": len(ended), "removed": len(old)})

    async def forget(self, occasion: Occasion) -> Turn:
        """Events that are gone and that nobody holds any more, here or remembered: their slots may be used again."""
        self.desk.sessions.expire(self.clock.monotonic())
        if self.engine.drawing:
            return Turn(more=False)  # a draft under way may still make somebody hold one
        held = [*(v.held for v in self.desk.audience), *self.desk.sessions.held()]
        freed = await self.engine.ask(lambda lookout: self.desk.forget(lookout, slots(held)))
        return Turn(freed, freed)

    async def tidy(self, occasion: Occasion) -> Turn:
        """Partitions of remembered updates: made ahead, dropped when old; while a backup is taken they wait, not everybody."""
        async with self.db.transaction() as connection:
            await self.fenced(connection)
            if not await undisturbed(connection):
                return Turn(detail={"made": 0, "dropped": 0, "disturbs": 1})
            made = await store.make_partitions(connection, occasion.now_ms)
            hours, rows = self.update_ids_keep_h, self.update_ids_keep_rows
            dropped = await store.drop_partitions(connection, occasion.now_ms, hours, rows)
        return Turn(made + dropped, made + dropped, detail={"made": made, "dropped": dropped})

    async def _walk(
        self, viewers: Sequence[Viewer], kind: Kind, threshold: float | None, now_ms: int, *, urgent: bool = False
    ) -> Walk:
        """A frame to each that is free; one whose frame waits is owed instead. The engine works on the next slice while
        this one is handed over; who changed meanwhile is looked at again."""
        walk = Walk()
        with self.engine.drawn():
            for _ in range(LOOKS):
                viewers = await self._once(viewers, Sighting(kind, threshold, now_ms, urgent), walk)
        for viewer in viewers:
            self._owe(viewer, kind, walk)
        return walk

    async def _once(self, viewers: Sequence[Viewer], how: Sighting, walk: Walk) -> list[Viewer]:
        """Returns those whose drafts were stale."""
        stale: list[Viewer] = []
        under_way: asyncio.Future[list[Draft]] | None = None
        for start in range(0, len(viewers), SLICE):
            sights = self._sights(viewers[start : start + SLICE], how, walk)
            following = self.engine.look(sights, how.now_ms, urgent=how.urgent) if sights else None
            if under_way is not None:
                stale += self._hand_over(await under_way, how, walk)
            under_way = following
        if under_way is not None:
            stale += self._hand_over(await under_way, how, walk)
        return stale

    def _sights(self, viewers: Sequence[Viewer], how: Sighting, walk: Walk) -> list[Sight]:
        free = []
        for viewer in viewers:
            if viewer not in self.desk.audience:
                continue
            if viewer.free:
                free.append(Sight(viewer, how.kind, how.threshold))
            else:
                self._owe(viewer, how.kind, walk)
        return free

    def _hand_over(self, drafts: Sequence[Draft], how: Sighting, walk: Walk) -> list[Viewer]:
        stale = []
        for draft in drafts:
            if draft.viewer not in self.desk.audience:
                continue
            if draft.frame is not None and not draft.viewer.free:
                self._owe(draft.viewer, how.kind, walk)
                continue
            handed = self.desk.pacing.deliver(draft)
            if handed is None:
                stale.append(draft.viewer)
            else:
                walk.frames += handed
        return stale

    def _owe(self, viewer: Viewer, kind: Kind, walk: Walk) -> None:
        self.desk.pacing.owe(viewer, Owed.BATCH if kind is Kind.BATCH else Owed.CHANGES)
        walk.deferred += 1
        if viewer.free:
            self.desk.drained[viewer] = None
            self.wake("catch-up", 0)
