"""The member import: one page of a source a step, stored in one transaction with the job's position and counts.

A job without a source that could be opened, or with one that refuses its key, has failed; one whose source is away just now
comes back later and goes on from the page it was at. A job whose last page is stored when its worker dies is only ended.

Memory is one page a lane, and the sources of the jobs that are under way.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from server.batching.imports import claims
from server.batching.imports.plan import Again, Failed, Job, Lost, Onward, Verdict, verdict_at_end
from server.core.member import Page, Retryable, Source, Unusable
from server.edge.bus import Bus
from server.edge.clock import Clock
from server.edge.postgres import Database

TOLD_EVERY_S: Final = 0.5
"""Progress of a job is told at most so often; its end always is, by the statement that ends it."""
REMEMBERED: Final = 1_000
"""Jobs whose source and last notice are kept; beyond, the one begun first is opened anew."""

Opener: TypeAlias = Callable[[Job], Awaitable[Source]]


class MemberImport:
    """The work of the queue's lanes. `opened` makes the source of a job: provider with its key, or a file."""

    def __init__(self, db: Database, bus: Bus, clock: Clock, opened: Opener) -> None:
        self._db = db
        self._bus = bus
        self._clock = clock
        self._opened = opened
        self._sources: dict[tuple[int, int], Source] = {}
        self._told_at: dict[tuple[int, int], float] = {}

    async def step(self, job: Job) -> Verdict:
        """One page: fetched, stored, told."""
        verdict = verdict_at_end(job) if job.drained else await self._page(job)
        if not isinstance(verdict, Onward):
            self._sources.pop((job.id, job.lease), None)
            self._told_at.pop((job.id, job.lease), None)
        return verdict

    async def _page(self, job: Job) -> Verdict:
        try:
            page = await (await self._source(job)).page(job.cursor)
        except Unusable as error:
            return Failed(error.message)
        except Retryable as error:
            return Again(error.message, error.after_s)
        after = await self._store(job, page)
        if after is None:
            return Lost()
        return verdict_at_end(after) if after.drained else Onward(after)

    async def _source(self, job: Job) -> Source:
        key = (job.id, job.lease)
        if key not in self._sources:
            while len(self._sources) >= REMEMBERED:
                oldest = next(iter(self._sources))
                del self._sources[oldest]
                self._told_at.pop(oldest, None)
            self._sources[key] = await self._opened(job)
        return self._sources[key]

    async def _store(self, job: Job, page: Page) -> Job | None:
        key, now = (job.id, job.lease), self._clock.monotonic()
        async with self._db.transaction() as connection:
            await connection.execute(claims.ACT)
            after = await claims.save_page(connection, job, page)
            tell = after is not None and now - self._told_at.get(key, -TOLD_EVERY_S) >= TOLD_EVERY_S
            if tell:
                await self._bus.publish(connection, claims.TOPIC, {"jobs": [job.id]})
        if tell:
            self._told_at[key] = now
        return after
