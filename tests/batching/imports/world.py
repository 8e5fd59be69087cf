"""What the tests of the queue share: rows put straight into the table, workers whose loops run, sources of members."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg

from server.batching.imports import claims
from server.batching.imports.plan import Done, Job, Settled, Verdict
from server.batching.imports.queue import Queue, Terms, Work
from server.batching.ledger import Ledger
from server.batching.panel import Panel
from server.core.identity import Identity
from server.core.member import Member, Page
from server.edge.bus import Bus
from server.edge.clock import SystemClock
from server.edge.postgres import Connection, Database
from server.edge.tasks import Tasks

ADMIN = Identity("root", frozenset(["admin"]))
PAUL = Identity("paul")
QUICK = Terms(lease_s=2.0, poll_ms=100)
LIMIT_S = 15.0


async def until(true: Callable[[], Any], what: str = "", limit_s: float = LIMIT_S) -> None:
    """Look again and again until it holds; the bound is only there to end a broken run."""
    try:
        async with asyncio.timeout(limit_s):
            while True:
                answer = true()
                if await answer if asyncio.iscoroutine(answer) else answer:
                    return
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"still not so after {limit_s:.0f} s: {what}") from None


async def put(db: Database, count: int = 1, owner: str = "paul", priority: int = 5, **columns: Any) -> list[int]:
    """Jobs of one owner, in the turns that are theirs; the ids, oldest first."""
    columns = {"source": "provider", "audience_id": 1, **columns}
    names = "".join(f", {name}" for name in columns)
    marks = "".join(f", ${n}" for n in range(5, 5 + len(columns)))
    async with db.transaction() as connection:
        rows = await connection.fetch(
            f"""insert into imports.batch_processing_queue (owner, priority, tier, turn{names})
            select $1, $2, $3, first + n - 1{marks}
            from (select imports.take_turns($3, $1, $4) as first) f, generate_series(1, $4) n returning id""",
            owner,
            priority,
            9 - priority,
            count,
            *columns.values(),
        )
        await connection.execute(claims.WAKE)
    return [row["id"] for row in rows]


async def job(db: Database, job_id: int) -> asyncpg.Record:
    async with db.connection() as connection:
        row = await connection.fetchrow("select * from imports.batch_processing_queue where id = $1", job_id)
    assert row is not None
    return row


async def ask(db: Database, sql: str, *values: Any) -> Any:
    async with db.connection() as connection:
        return await connection.fetchval(sql, *values)


async def tell(db: Database, sql: str, *values: Any) -> None:
    async with db.connection() as connection:
        await connection.execute(sql, *values)


async def statuses(db: Database) -> dict[str, int]:
    async with db.connection() as connection:
        rows = await connection.fetch("select status, count(*) from imports.batch_processing_queue group by status")
    return {row["status"]: row["count"] for row in rows}


async def worker(connection: Connection, lease_s: float = 30.0) -> int:
    """A worker that claims by hand."""
    return await claims.register(connection, "test", lease_s, 1, "host", 1, "0")


async def claim(connection: Connection, number: int, count: int = 1) -> list[Job]:
    return list((await claims.turn(connection, number, [], count, "test")).claimed)


async def end(connection: Connection, number: int, job: Job, status: str = "completed", **more: Any) -> bool:
    """Whether the claim was still this worker's to end."""
    row = Settled(job.id, job.lease, status, job.retry_count, **more)  # type: ignore[arg-type]
    return job.id in (await claims.turn(connection, number, [row], 0, "test")).ended


async def expire(db: Database, *workers: int) -> None:
    """Let leases end now."""
    await tell(
        db, "update imports.batch_processing_workers set lease_until = 'epoch' where id = any($1::bigint[])", workers
    )


@dataclass
class Place:
    """A queue whose loops run."""

    queue: Queue
    panel: Panel
    ledger: Ledger
    tasks: Tasks


async def nothing(job: Job) -> Verdict:
    return Done()


@asynccontextmanager
async def working(db: Database, work: Work = nothing, terms: Terms = QUICK) -> AsyncIterator[Place]:
    """A worker of this process, drained at the end."""
    clock, tasks = SystemClock(), Tasks()
    ledger = Ledger(db, clock)
    panel = Panel(ledger, clock=clock, tasks=tasks)
    queue = Queue(db, Bus(db, node="test"), clock, panel, ledger.record, work, terms, "0")
    panel.start()
    try:
        yield Place(queue, panel, ledger, tasks)
    finally:
        await panel.stop()
        await queue.close()
        await tasks.close()


def member(number: int, **more: Any) -> Member:
    return Member(
        **{"external_id": f"m{number}", "email": f"m{number}@example.com", "name": f"Member {number}", **more}
    )


class Members:
    """A source of so many members, so many a page; `pages` notes what was asked for."""

    def __init__(self, members: Sequence[Member], size: int = 10) -> None:
        self.members = members
        self.size = size
        self.pages: list[str | None] = []

    async def page(self, cursor: str | None) -> Page:
        self.pages.append(cursor)
        start = int(cursor or 0)
        end = start + self.size
        more = end < len(self.members)
        return Page(tuple(self.members[start:end]), str(end) if more else None, more, len(self.members))
