"""A process that works on runs until it is killed: `python -m tests.adversity.schedules_worker DSN URL PAGE`.

The waits of starts that were lost are shortened, so that a test need not wait for minutes; they keep their order."""

from __future__ import annotations

import asyncio
import sys

from pydantic import SecretStr

from server.batching.ledger import Ledger
from server.batching.panel import Panel
from server.batching.parts import Lead
from server.batching.schedules import intents, outcomes, provider
from server.batching.schedules.floor import Terms
from server.batching.schedules.runs import Runs
from server.edge import apify
from server.edge.clock import SystemClock
from server.edge.postgres import Connection, Database
from server.edge.tasks import Tasks
from tests.doubles.apify.http import TOKEN

CALL_MS = 400
"""A call to the provider that takes longer has failed."""


async def fence(connection: Connection) -> int:
    return 1


def hurry() -> None:
    """All waits of starts are made of these."""
    outcomes.HESITATION_S = 0.3  # type: ignore[misc]
    outcomes.SETTLING_S = 0.8  # type: ignore[misc]
    intents.AGAIN_S = 0.2  # type: ignore[misc]


async def work(dsn: str, url: str, page: int) -> None:
    hurry()
    clock, tasks = SystemClock(), Tasks()
    db = await Database.open(dsn, clock=clock)
    client = await apify.Apify.open(apify.Terms(url, CALL_MS, retries=0), SecretStr(TOKEN))
    ledger = Ledger(db, clock)
    panel = Panel(ledger, clock=clock, tasks=tasks)
    terms = Terms(page_items=page, dispatch_ms=100, poll_ms=200, process_ms=100, retry_ms=300_000)
    lead = Lead(lambda: True, lambda: "me", fence)
    runs = Runs(db, clock, provider.Provider(client, provider.Terms()), lead, terms)
    runs.add_loops(panel, ledger.record)
    panel.start()
    print("working", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1], sys.argv[2], int(sys.argv[3])))
