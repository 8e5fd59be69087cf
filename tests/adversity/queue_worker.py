"""A worker in a process of its own, for tests that kill or freeze it: python -m tests.adversity.queue_worker DSN EFFECT.

EFFECT noop: each job is one row in effect.done, written in the transaction of its one page. EFFECT poison: as noop, but the
job of owner `poison` kills the process. EFFECT pages: imports members of made-up pages slowly.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys

from server.batching.imports import claims
from server.batching.imports.batch import MemberImport
from server.batching.imports.plan import Done, Job, Ladder, Lost, Verdict
from server.batching.imports.queue import Queue, Terms
from server.batching.ledger import Ledger
from server.batching.panel import Panel
from server.core.member import Member, Page, Source
from server.edge.bus import Bus
from server.edge.clock import SystemClock
from server.edge.postgres import Database
from server.edge.tasks import Tasks
from server.errors import Unavailable

LEASE_S = float(os.environ.get("QUEUE_LEASE_S", "1.0"))
SKEW_MS = int(os.environ.get("QUEUE_SKEW_MS", "0"))
MEMBERS, PAGE = 300, 20


class SkewedClock(SystemClock):
    """This machine's clock, set wrong."""

    def now_ms(self) -> int:
        return super().now_ms() + SKEW_MS


class Slowly:
    """Pages of made-up members, all of them in the end."""

    async def page(self, cursor: str | None) -> Page:
        await asyncio.sleep(0.005)
        start = int(cursor or 0)
        end = min(start + PAGE, MEMBERS)
        members = tuple(Member(str(n), f"m{n}@example.com") for n in range(start, end))
        return Page(members, str(end), end < MEMBERS, MEMBERS)


async def main(dsn: str, effect: str) -> None:
    clock, tasks = SkewedClock(), Tasks()
    db = await Database.open(dsn, pool_size=4, clock=clock)
    bus = Bus(db, node=f"worker {os.getpid()}")

    async def once(job: Job) -> Verdict:
        if effect == "poison" and job.owner == "poison":
            os.kill(os.getpid(), signal.SIGKILL)
        async with db.transaction() as connection:
            await connection.execute(claims.ACT)
            if await claims.save_page(connection, job, Page((), None, False)) is None:
                return Lost()
            await connection.execute("insert into effect.done (job) values ($1)", job.id)
        return Done()

    async def noop(job: Job) -> Verdict:
        return Done() if job.drained else await once(job)

    async def opened(job: Job) -> Source:
        return Slowly()

    work = MemberImport(db, bus, clock, opened).step if effect == "pages" else noop
    ledger = Ledger(db, clock)
    panel = Panel(ledger, clock=clock, tasks=tasks)
    terms = Terms(lanes=3, lease_s=LEASE_S, poll_ms=100, claim_most=20, ladder=Ladder(0.05, 0.2))
    queue = Queue(db, bus, clock, panel, ledger.record, work, terms, "test")
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    panel.start()
    print("ready", flush=True)
    await stop.wait()
    await panel.stop()
    await queue.close()
    await tasks.close()
    with contextlib.suppress(Unavailable):
        await db.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
