"""Working off runs: batch after batch of whatever run it is, until nobody waits any more.

    worker.turn(run)          some batches, for about TURN_S: what a loop does
    worker.complete(run)      all of them: what a command does

Planning has two lanes side by side: while one waits for PostgreSQL the other one plans. Neither holds the event
loop for much longer than SLICE_S. A run ends when nobody waits for it, also those that another process has in hand
just now; until then a turn that finds nobody free says so and is called again a little later.

Whoever follows the topic `tiers` is told how far a run is: the batch's transaction says on the bus that it has moved, at
most every TOLD_EVERY_S, and always when it ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf
from typing import Final

import structlog

from server.batching.tiers import runs
from server.batching.tiers.batch import plan_batch, waits
from server.batching.tiers.classifying import Batch, classify_batch
from server.batching.tiers.runs import RunView
from server.batching.tiers.store import TOPIC, batching, serving
from server.edge.bus import Bus
from server.edge.clock import Clock
from server.edge.postgres import Connection, Database
from server.edge.tasks import both

TURN_S: Final = 1.0
SLICE_S: Final = 0.002
TOLD_EVERY_S: Final = 0.5
SEEN_EVERY_S: Final = 0.1
"""Whoever completes a run sees it so often; and at its end."""
AGAIN_S: Final = 0.2
"""Another process has the last people of a run: look again after this."""
CLASSIFY_BATCHES: Final = 40
"""Classification writes little per person, so that many batches of planning make one of its own ..."""
CLASSIFY_MOST: Final = 2_000
"""... of this many people at most."""
PLACES_MOST: Final = 100
"""Runs whose place is kept in memory; without it a turn looks from the first person on."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Progress:
    """What some batches did. `more`: people wait, and are free; `held`: people wait, and another process has them."""

    done: int = 0
    unchanged: int = 0
    failed: int = 0
    more: bool = False
    held: bool = False

    @property
    def taken(self) -> int:
        """Everybody that was handled."""
        return self.done + self.unchanged + self.failed


class Breath:
    """Lets the event loop go on when it was held for a while."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since = clock.monotonic()

    async def __call__(self) -> None:
        if self._clock.monotonic() - self._since >= SLICE_S:
            await self._clock.sleep(0)
            self._since = self._clock.monotonic()


class Worker:
    """See the module's docstring."""

    def __init__(self, db: Database, bus: Bus, clock: Clock, seed: bytes, batch: int) -> None:
        self._db = db
        self._bus = bus
        self._clock = clock
        self._seed = seed
        self._size = batch
        self._places: dict[int, int] = {}
        self._told_at: dict[int, float] = {}

    async def turn(self, run: RunView) -> Progress:
        """All batches, or those of about TURN_S."""
        return await self._lanes(run, self._clock.monotonic() + TURN_S)

    async def complete(self, run: int, told: Callable[[RunView], None] | None = None) -> RunView:
        """Until the run has ended, whoever ends it."""
        async with self._db.connection() as connection:
            view = await runs.show(connection, run)
        while view.status == "running":
            await self._lanes(view, told=told)
            async with serving(self._db) as connection:
                view = await runs.show(connection, run)
            if view.status == "running":
                await self._clock.sleep(AGAIN_S)
        if told is not None:
            told(view)
        return view

    async def _lanes(self, run: RunView, until: float = inf, told: Callable[[RunView], None] | None = None) -> Progress:
        """Batches until none is free or the time is up: two lanes of planning, or one of classification, which writes one
        part while it decides the next by itself. More lanes would only wait for the one interpreter and PostgreSQL."""
        if run.kind == "classify":
            return await self._batches(run, until, told)
        one, other = await both(self._batches(run, until, told), self._batches(run, until, told))
        # What is held when the first of them ends may be the other's people.
        return replace(_added(one, other), more=one.more or other.more, held=one.held and other.held)

    async def _batches(self, run: RunView, until: float, told: Callable[[RunView], None] | None) -> Progress:
        at = self._clock.monotonic()
        sum_ = await self.step(run)
        while sum_.more and (now := self._clock.monotonic()) < until:
            if told is not None and now - at >= SEEN_EVERY_S:
                async with self._db.connection() as connection:
                    told(await runs.show(connection, run.id))
                at = now
            sum_ = _added(sum_, await self.step(run))
        return sum_

    async def step(self, run: RunView) -> Progress:
        """One batch, in one transaction; the run ends when there was nobody left."""
        batch = await (self._classify(run) if run.kind == "classify" else self._plan(run))
        if batch.taken:
            return Progress(batch.done, batch.unchanged, batch.failed, more=True)
        if self._places.pop(run.id, 0):  # From the first one on again: another process may have left some behind.
            return Progress(more=True)
        return await self._end(run)

    async def _classify(self, run: RunView) -> Batch:
        async with batching(self._db) as connection:
            size = min(self._size * CLASSIFY_BATCHES, CLASSIFY_MOST)
            batch = await classify_batch(connection, run, size, self._seed, Breath(self._clock))
            await self._tell(connection, run.id)
        return batch

    async def _plan(self, run: RunView) -> Batch:
        after = self._places.get(run.id, 0)
        async with batching(self._db) as connection:
            batch, last = await plan_batch(connection, run, after, self._size, self._seed, Breath(self._clock))
            await self._tell(connection, run.id)
        if batch.taken:
            self._places[run.id] = max(last, self._places.get(run.id, 0))
            while len(self._places) > PLACES_MOST:
                del self._places[next(iter(self._places))]
        return batch

    async def _end(self, run: RunView) -> Progress:
        async with serving(self._db) as connection:
            if run.kind == "generate" and await waits(connection, run):
                return Progress(held=True)
            ended = await runs.end(connection, run.id, "done")
            if ended is not None:
                await self._bus.publish(connection, TOPIC, {"runs": [run.id]})
        self._told_at.pop(run.id, None)
        if ended is not None:
            if ended.done >= runs.ANALYZE_FROM:
                async with self._db.connection() as connection:
                    await connection.execute(runs.ANALYZE[run.kind])
            log.info(
                "tiers run ended",
                run=run.id,
                kind=run.kind,
                tier=run.tier,
                month=run.month,
                done=ended.done,
                failed=ended.failed,
            )
        return Progress()

    async def _tell(self, connection: Connection, run: int) -> None:
        now = self._clock.monotonic()
        if now - self._told_at.get(run, -TOLD_EVERY_S) >= TOLD_EVERY_S:
            self._told_at[run] = now
            await self._bus.publish(connection, TOPIC, {"runs": [run]})


def _added(one: Progress, other: Progress) -> Progress:
    return Progress(
        one.done + other.done, one.unchanged + other.unchanged, one.failed + other.failed, other.more, other.held
    )
