"""A process that works on tracking until it is killed: `python -m tests.adversity.tracking_worker DSN URL [MOMENT]`.

MOMENT is where it kills itself: `kept` (an answer is in the cache, and not settled), `counted` (counts are settled, failures are not),
`reserved` (places in the quota are taken, and nothing is sent), `sent` (calls are counted as sent, and have not gone out)."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

from server.batching.ledger import Ledger
from server.batching.panel import Panel
from server.batching.parts import Parts
from server.batching.tracking import quota, settling
from server.batching.tracking.tracker import Tracker
from server.batching.tracking.working import Worker
from server.edge.bus import Bus
from server.edge.clock import SystemClock
from server.edge.postgres import Database
from server.edge.tasks import Tasks
from server.settings import load
from tests.batching.tracking.running import youtube
from tests.doubles.apify.http import TOKEN
from tests.leading import leading

SETTINGS: dict[str, Any] = {
    "tracking_interval_ms": 1_000,
    "tracking_lease_ms": 1_000,
    "tracking_pause_ms": 0,
    "tracking_retry_first_ms": 10,
    "tracking_call_timeout_ms": 5_000,
    "tracking_youtube_actors": youtube(2),
    "tracking_batch": 3,
}


async def die(*given: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)
    await asyncio.sleep(60)


def disturb(moment: str) -> None:
    if moment == "kept":
        Worker._settle = die  # type: ignore[method-assign]
    elif moment == "counted":
        settling._settle_lost = die
    elif moment == "reserved":
        quota.send = die
    elif moment == "sent":
        Worker._one = die  # type: ignore[method-assign]


async def work(dsn: str, url: str, moment: str) -> None:
    clock, tasks = SystemClock(), Tasks()
    db = await Database.open(dsn, clock=clock)
    ledger = Ledger(db, clock)
    panel = Panel(ledger, clock=clock, tasks=tasks)
    settings = load({}, apify_url=url, apify_token=TOKEN, **SETTINGS)
    bus = Bus(db, node=f"worker {os.getpid()}")
    await Tracker.open(Parts(settings, db, bus, clock, panel, ledger.record, tasks), leading())
    disturb(moment)
    panel.start()
    print("working", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1], sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else ""))
