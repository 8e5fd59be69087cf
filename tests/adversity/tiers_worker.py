"""A process that works on the tiers, for tests that kill or freeze it: python -m tests.adversity.tiers_worker DSN TIER MONTH.

Opens the tier's month (or joins, or with RESUME resumes it) and works it off, telling how far it is. TIERS_BATCH: people in
a batch. TIERS_PAUSE_MS: the pause before the rows of a batch are written. TIERS_DIE_AFTER: the process kills itself behind the
n-th write of rows, so in the middle of a transaction.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from server.batching.ledger import Ledger
from server.batching.panel import Panel
from server.batching.tiers import batch
from server.batching.tiers.months import month_named
from server.batching.tiers.rules import Tier
from server.batching.tiers.runs import RunView
from server.batching.tiers.tiers import Lead, Parts, Tiers
from server.core.identity import Identity
from server.edge.bus import Bus
from server.edge.clock import SystemClock
from server.edge.postgres import Connection, Database
from server.edge.tasks import Tasks
from server.settings import load

DIE_AFTER = int(os.environ.get("TIERS_DIE_AFTER", "0"))
PAUSE_MS = int(os.environ.get("TIERS_PAUSE_MS", "0"))


def disturb() -> None:
    """Write slowly, and let the n-th write be the last thing that this process does."""
    written = 0
    real = batch._write

    async def write(connection: Connection, run: RunView, planned: list[batch.Planned]) -> None:
        nonlocal written
        await asyncio.sleep(PAUSE_MS / 1000)
        await real(connection, run, planned)
        written += 1
        if written == DIE_AFTER:
            os.kill(os.getpid(), signal.SIGKILL)

    batch._write = write


async def main(dsn: str, tier: Tier, month: int) -> None:
    clock, tasks = SystemClock(), Tasks()
    db = await Database.open(dsn, pool_size=4, clock=clock)
    ledger = Ledger(db, clock)
    panel = Panel(ledger, clock=clock, tasks=tasks)
    settings = load({"TIERS_BATCH": os.environ.get("TIERS_BATCH", "5")})
    lead = Lead(lambda: False, lambda: None)
    bus = Bus(db, node=f"worker {os.getpid()}")
    tiers = await Tiers.open(Parts(settings, db, bus, clock, panel, ledger.record, lead))
    disturb()
    print("ready", flush=True)
    opened = await tiers.generate(
        tier, month, Identity("worker", frozenset(["admin"])), override=True, resume="RESUME" in os.environ
    )
    run = await tiers.complete(opened.run.id, lambda view: print(view.done, flush=True))
    await tasks.close()
    await db.close()
    print(f"ended {run.status} {run.done} {run.failed}", flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], month_named(sys.argv[3])))  # type: ignore[arg-type]
