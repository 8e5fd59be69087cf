"""`python -m tests.bench.queue_workers QUEUE DSN BATCH [noted]`: a worker for no-op jobs in a process of its own.

It says `ready` once everything is imported, and begins when a line with a number comes in: so many jobs, or 0 for all until
the next line comes. When they are done and written down it says, in one line, when each began (job, owner, seconds of the
monotonic clock; ours alone, and only when asked for with `noted`). Ours is the queue as `worker` runs it: fenced claims,
statistics, heartbeats, its progress on the bus and somebody who listens there, the ledger. The others are run as their own
documentation says, on uvloop.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Final, TypeAlias

import asyncpg
import orjson
import uvloop

from server.batching.imports import claims
from server.batching.imports.plan import Done, Job, Verdict
from server.batching.imports.queue import Queue, Terms
from server.batching.ledger import Ledger
from server.batching.loop import Loop, Occasion, Turn
from server.batching.panel import Panel
from server.edge import garbage, logs
from server.edge.bus import Bus, Envelope
from server.edge.clock import SystemClock
from server.edge.postgres import Database, migrate
from server.edge.tasks import Tasks
from server.worker import BUS_GAP_MS, BUS_MS, LEDGER_MS

LANES: Final = 4
POOL: Final = 8
CHUNK: Final = 10_000
NOTED: Final = "noted"
DONE: Final = Done()
Noted: TypeAlias = list[tuple[int, str, float]]


async def line() -> str:
    """The next line from whoever started this process."""
    return await asyncio.to_thread(sys.stdin.readline)


# Ours

FILL: Final = """
insert into imports.batch_processing_queue (owner, source, audience_id, priority, tier, turn)
select o.owner, 'provider', 1, 5, 4, o.first + n - 1
from (select owner, imports.take_turns(4::smallint, owner, $2::int) as first
    from (select 'owner ' || g as owner from generate_series(1, $1::int) g) named) o,
    generate_series(1, $2::int) n order by o.owner, n"""


async def fill_ours(dsn: str, count: int, owners: int = 1) -> None:
    """Each owner's jobs in one go, one owner after the other."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(FILL, owners, count // owners)
    finally:
        await connection.close()


async def prepare_ours(dsn: str) -> None:
    """The schema."""
    db = await Database.open(dsn, clock=SystemClock())
    try:
        await migrate(db)
    finally:
        await db.close()


class Ours:
    """What `server/worker.py` wires around the queue, with work that is done at once."""

    def __init__(self, db: Database, batch: int) -> None:
        clock = SystemClock()
        self.tasks, self.noted = Tasks(), Noted()
        self.wanted, self.handled, self.enough = 0, 0, asyncio.Event()
        self.bus = Bus(db, node=f"bench-{os.getpid()}")
        ledger = Ledger(db, clock, node=self.bus.node)
        self.panel = Panel(ledger, clock=clock, tasks=self.tasks)
        flush = Loop("ledger", ledger.flush, clock=clock, record=ledger.record, interval_ms=LEDGER_MS)
        self.panel.add(flush, fold=True, last_turn=True)
        bus = Loop("bus", self._read, clock=clock, record=ledger.record, interval_ms=BUS_MS, min_gap_ms=BUS_GAP_MS)
        self.bus.woken = self.panel.add(bus, fold=True).wake
        self.bus.subscribe([claims.TOPIC], self._heard)
        terms = Terms(lanes=LANES, claim_most=batch)
        work = self._note if NOTED in sys.argv else self._work
        self.queue = Queue(db, self.bus, clock, self.panel, ledger.record, work, terms, "bench")

    async def run(self, wanted: int) -> None:
        """From the first claim until what was wanted is done, or another line comes, and all is handed back."""
        self.wanted = wanted
        self.panel.start()
        garbage.settle()
        await (self.enough.wait() if wanted else line())
        await self.panel.stop()
        await self.queue.close()
        await self.bus.close()
        await self.tasks.close()

    async def _work(self, job: Job) -> Verdict:
        self.handled += 1
        if self.handled == self.wanted:
            self.enough.set()
        return DONE

    async def _note(self, job: Job) -> Verdict:
        self.noted.append((job.id, job.owner, time.monotonic()))
        return await self._work(job)

    async def _read(self, occasion: Occasion) -> Turn:
        progress = await self.bus.step()
        return Turn(progress.count, progress.count, more=progress.more)

    async def _heard(self, messages: list[Envelope]) -> None:
        pass


async def work_ours(dsn: str, batch: int, begin: Callable[[], Awaitable[int]]) -> Noted:
    """See `Ours`."""
    db = await Database.open(dsn, pool_size=POOL, clock=SystemClock())
    ours = Ours(db, batch)
    await ours.run(await begin())
    await db.close()
    return ours.noted


# PgQueuer: one asyncpg connection, as in its quick start, and its own settings for autovacuum


async def prepare_pgqueuer(dsn: str) -> None:
    """Its tables, all of them logged, which is its default."""
    from pgqueuer.queries import Queries

    connection = await asyncpg.connect(dsn)
    queries = Queries.from_asyncpg_connection(connection)
    await queries.install()
    await queries.optimize_autovacuum()
    await connection.close()


async def fill_pgqueuer(dsn: str, count: int, owners: int = 1) -> None:
    """By its own enqueue."""
    from pgqueuer.queries import Queries

    connection = await asyncpg.connect(dsn)
    queries = Queries.from_asyncpg_connection(connection)
    for start in range(0, count, CHUNK):
        size = min(CHUNK, count - start)
        await queries.enqueue(["noop"] * size, [None] * size, [0] * size)
    await connection.close()


async def work_pgqueuer(dsn: str, batch: int, begin: Callable[[], Awaitable[int]]) -> Noted:
    """Until the queue is empty."""
    from pgqueuer import AsyncpgDriver, PgQueuer
    from pgqueuer.models import Job as TheirJob
    from pgqueuer.types import QueueExecutionMode

    connection = await asyncpg.connect(dsn)
    queuer = PgQueuer(AsyncpgDriver(connection))

    @queuer.entrypoint("noop")
    async def noop(job: TheirJob) -> None:
        pass

    await begin()
    await queuer.run(batch_size=batch, mode=QueueExecutionMode.drain)
    return []


# Procrastinate: its psycopg connector; it fetches one job at a time, `concurrency` many are under way


async def prepare_procrastinate(dsn: str) -> None:
    """Its tables."""
    from procrastinate import App, PsycopgConnector

    app = App(connector=PsycopgConnector(conninfo=dsn))
    async with app.open_async():
        await app.schema_manager.apply_schema_async()


async def fill_procrastinate(dsn: str, count: int, owners: int = 1) -> None:
    """By its own batch_defer."""
    from procrastinate import App, PsycopgConnector

    app = App(connector=PsycopgConnector(conninfo=dsn))
    async with app.open_async():
        for start in range(0, count, CHUNK):
            await app.configure_task("noop").batch_defer_async(*({} for _ in range(min(CHUNK, count - start))))


async def work_procrastinate(dsn: str, batch: int, begin: Callable[[], Awaitable[int]]) -> Noted:
    """Until the queue is empty."""
    from procrastinate import App, PsycopgConnector

    app = App(connector=PsycopgConnector(conninfo=dsn))

    @app.task(name="noop")
    async def noop() -> None:
        pass

    async with app.open_async():
        await begin()
        await app.run_worker_async(wait=False, concurrency=batch, install_signal_handlers=False)
    return []


Prepare: TypeAlias = Callable[[str], Coroutine[object, object, None]]
Fill: TypeAlias = Callable[[str, int, int], Coroutine[object, object, None]]
Work: TypeAlias = Callable[[str, int, Callable[[], Awaitable[int]]], Awaitable[Noted]]

PREPARE: Final[Mapping[str, Prepare]] = {
    **{"ours": prepare_ours, "pgqueuer": prepare_pgqueuer, "procrastinate": prepare_procrastinate}
}
FILLS: Final[Mapping[str, Fill]] = {
    **{"ours": fill_ours, "pgqueuer": fill_pgqueuer, "procrastinate": fill_procrastinate}
}
WORK: Final[Mapping[str, Work]] = {
    **{"ours": work_ours, "pgqueuer": work_pgqueuer, "procrastinate": work_procrastinate}
}


async def main(queue: str, dsn: str, batch: int) -> None:
    """One worker."""

    async def begin() -> int:
        print("ready", flush=True)
        return int(await line())

    noted = await WORK[queue](dsn, batch, begin)
    print(orjson.dumps(noted).decode(), flush=True)


if __name__ == "__main__":
    logs.configure("json", "error")
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
