"""The live feed's turns: flush, immediate, urgent, drift, expire, tidy. Each on one screen: collect, plan, act, settle.

  flush      the interval, MAX_BATCH_SIZE pending, force, shutdown: publishes what is pending, then one `batch-update` a viewer
  immediate  woken by the writer: who is touched by what was published since is told at once
  urgent     woken by `priority: high`: publishes those counters, then wakes immediate
  drift      only while batching is off: sends what time has moved
  expire     leader only: events that ended a day ago become EXPIRED, old EXPIRED ones are removed
  tidy       leader only: hourly partitions of remembered updates are made ahead and dropped when old

Turns that walk over viewers yield the event loop every SLICE_S; what a single viewer is sent is computed, handed over and
noted in one synchronous step (views.py).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import asyncpg
import structlog

from server.batching.loop import Occasion, Turn, TurnRecord
from server.batching.scores import store, views
from server.batching.scores.audience import Owed, Viewer
from server.batching.scores.desk import Desk
from server.batching.scores.ingest import Writer
from server.batching.scores.plan import Asked
from server.batching.scores.views import Look
from server.core.event import Delete, Outcome, Upsert
from server.core.identity import Identity
from server.edge.clock import Clock
from server.edge.postgres import Database
from server.errors import Unavailable

SLICE_S: Final = 0.008
"""Other work waits at most about this long for a turn over viewers."""
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


@dataclass(slots=True)
class Turns:
    """The turns of the live feed; `wake` maps a loop's name and a delay in ms to its wake."""

    db: Database
    clock: Clock
    desk: Desk
    writer: Writer
    keep_days: int
    update_ids_keep_h: int
    update_ids_keep_rows: int
    fenced: Callable[[asyncpg.Connection], Awaitable[int]]
    wake: Callable[[str, int], None]
    statistics: Statistics = field(default_factory=Statistics)

    async def flush(self, occasion: Occasion) -> Turn:
        """Publish all that was pending when it began, then send each viewer one batch."""
        batching = self.desk.tunables.enabled
        taken = list(self.desk.pending)
        failed = await self._publish_slices(taken)
        look = Look(self.desk.columns, self.desk.rules, occasion.now_ms)
        walk = await self._walk(lambda v: views.batch(v, look, self.desk.threshold), Owed.BATCH)
        done = len(taken) - failed
        detail = {"events": done, "frames": walk.frames, "viewers": len(self.desk.audience), "batching": int(batching)}
        return Turn(len(taken) + walk.deferred, done, failed, walk.deferred, detail=detail)

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
        look = Look(self.desk.columns, self.desk.rules, occasion.now_ms)
        threshold = None if self.desk.tunables.enabled else self.desk.threshold

        def tell(viewer: Viewer) -> bool:
            return views.immediate(viewer, look, threshold)

        walk = await self._walk(tell, Owed.CHANGES, lambda viewer: views.touched(viewer, changed, look))
        detail = {"frames": walk.frames, "owed": walk.deferred}
        return Turn(len(changed), len(changed), detail=detail)

    async def urgent(self, occasion: Occasion) -> Turn:
        """Publish counters that may not wait; an urgent publish is an immediate turn too."""
        ids = list(self.desk.urgent)
        await self.writer.publish(ids)
        self.desk.changed.update(dict.fromkeys(ids))
        if ids:
            self.wake("immediate", 0)
        return Turn(len(ids), len(ids))

    async def drift(self, occasion: Occasion) -> Turn:
        """Send every score that time has moved past the threshold; only while batching is off."""
        look = Look(self.desk.columns, self.desk.rules, occasion.now_ms)
        walk = await self._walk(lambda v: views.immediate(v, look, self.desk.threshold), Owed.CHANGES)
        return Turn(detail={"frames": walk.frames, "owed": walk.deferred})

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

    async def tidy(self, occasion: Occasion) -> Turn:
        """Partitions of remembered updates: made ahead, dropped when old."""
        async with self.db.transaction() as connection:
            await self.fenced(connection)
            made = await store.make_partitions(connection, occasion.now_ms)
            hours, rows = self.update_ids_keep_h, self.update_ids_keep_rows
            dropped = await store.drop_partitions(connection, occasion.now_ms, hours, rows)
        return Turn(made + dropped, made + dropped, detail={"made": made, "dropped": dropped})

    async def _walk(
        self, send: Callable[[Viewer], bool], missed: Owed, due: Callable[[Viewer], bool] | None = None
    ) -> Walk:
        """Send to every viewer that is due and free; one whose frame waits is owed instead."""
        walk = Walk()
        async for viewer in self._viewers():
            if due is not None and not due(viewer):
                continue
            if not viewer.outlet.free:
                viewer.owe(missed)
                walk.deferred += 1
            elif send(viewer):
                walk.frames += 1
        return walk

    async def _viewers(self) -> AsyncIterator[Viewer]:
        """Those registered when the walk began and still there, yielding the event loop between slices."""
        started = self.clock.monotonic()
        for viewer in self.desk.audience.all():
            if viewer in self.desk.audience:
                yield viewer
            if self.clock.monotonic() - started > SLICE_S:
                await self.clock.sleep(0)
                started = self.clock.monotonic()
