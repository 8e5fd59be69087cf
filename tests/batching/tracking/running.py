"""What the tests of runs share: a node with a provider on loopback, posts that are due, turns by hand.

`Node` is one process: its `Tracker` over the test's database with loops that a test turns itself (`turn`, `work`), or that run by
themselves (`start`). Several nodes may share a database and a provider.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from server.batching.ledger import Ledger
from server.batching.loop import Occasion, Turn
from server.batching.panel import Panel
from server.batching.parts import Parts
from server.batching.tracking.campaigns import Campaigns, NewCampaign
from server.batching.tracking.runs import RunView
from server.batching.tracking.submissions import Submission, Submissions
from server.batching.tracking.tracker import Tracker
from server.core.identity import Identity
from server.edge.bus import Bus
from server.edge.clock import Clock, SystemClock
from server.edge.postgres import Database
from server.edge.tasks import Tasks
from server.settings import load
from tests.doubles.apify import Apify
from tests.doubles.apify.http import TOKEN
from tests.doubles.apify.views import YOUTUBE, Views
from tests.leading import leading

ADMIN = Identity("root", frozenset(["admin"]))
PAUL = Identity("paul")
LIMIT_S = 20.0
QUICK: dict[str, Any] = {"tracking_pause_ms": 0, "tracking_retry_first_ms": 10}
"""No waiting, where a test is not about waiting."""
numbers = itertools.count(1)


def youtube(urls: int, *more: dict[str, Any], price: int = 5_000) -> str:
    """The setting of an actor for YouTube that takes so many posts a call, and others beside it."""
    shape = {"input": "startUrls", "objects": True, "views": ["viewCount"], "post": ["url"], "urls": urls}
    return json.dumps([{"actor": YOUTUBE, "priceMicros": price, **shape}, *({**shape, **one} for one in more)])


@dataclass
class Node:
    """One process."""

    db: Database
    double: Apify
    views: Views
    tracker: Tracker
    panel: Panel
    bus: Bus
    tasks: Tasks
    noted: list[str] = field(default_factory=list)

    async def turn(self, name: str = "run") -> Turn:
        """One turn of a loop, by hand."""
        turning = {
            "run": self.tracker.worker.turn,
            "beat": self.tracker.worker.beat,
            "plan": self.tracker._plan_turn,
            "clean": self.tracker._clean_turn,
            "watch": self.tracker._watch_turn,
        }[name]
        return await turning(Occasion("forced", 1, SystemClock().now_ms()))

    async def work(self, limit: int | None = None) -> RunView:
        """A run from its opening to its end."""
        opened = await self.tracker.run_now(ADMIN, limit)
        return await self.finish(opened.run.id)

    async def finish(self, run: int) -> RunView:
        """Turns until the run has ended; the bound is only there to end a broken one."""
        async with asyncio.timeout(LIMIT_S):
            while (view := await self.tracker.run(run, ADMIN)).status == "running":
                await self.turn()
                await asyncio.sleep(0.005)
        return view

    async def campaign(self, budget: int = 1_000_000, rate: int = 100, **more: Any) -> int:
        made = await Campaigns(self.db).create(NewCampaign("Spring", budget, rate, **more), ADMIN)
        return made.campaign.id

    async def post(self, campaign: int, name: str = "", approve: bool = True, url: str = "") -> Submission:
        """A post of YouTube that is due at once; its id is the name, filled up."""
        post = (name or f"post{next(numbers):07}").ljust(11, "_")
        made = (await Submissions(self.db).create(campaign, url or f"https://youtu.be/{post}", PAUL)).submission
        if approve:
            await Submissions(self.db).approve(made.id, ADMIN)
        return made

    async def posts(self, campaign: int, count: int) -> list[Submission]:
        return [await self.post(campaign) for _ in range(count)]

    async def due_again(self) -> None:
        """As if enough time had passed for every clip, and nothing was in the cache."""
        await self.tell("update tracking.clips set next_due_at = clock_timestamp() - interval '1 second'")
        await self.tell(
            "update tracking.clips set last_checked_at = last_checked_at - interval '1 day' where last_checked_at is not null"
        )
        await self.tell("delete from tracking.scrape_cache")

    async def show(self, submission: int) -> Submission:
        return await Submissions(self.db).show(submission, ADMIN)

    async def ask(self, sql: str, *values: Any) -> Any:
        async with self.db.connection() as connection:
            return await connection.fetchval(sql, *values)

    async def rows(self, sql: str, *values: Any) -> list[asyncpg.Record]:
        async with self.db.connection() as connection:
            return list(await connection.fetch(sql, *values))

    async def tell(self, sql: str, *values: Any) -> None:
        async with self.db.connection() as connection:
            await connection.execute(sql, *values)

    async def calls(self) -> int:
        """Counted as sent in this month."""
        return int(await self.ask("select coalesce(sum(calls), 0) from tracking.provider_usage"))


@asynccontextmanager
async def node(
    db: Database,
    *,
    name: str = "here",
    views: Views | None = None,
    double: Apify | None = None,
    clock: Clock | None = None,
    token: bool = True,
    how: dict[str, Any] | None = None,
    **settings: Any,
) -> AsyncIterator[Node]:
    """A process with a provider of its own, or at the one that is given."""
    clock, tasks, seen = clock or SystemClock(), Tasks(), views or Views()
    one = double or await Apify(seen.actors(), **(how or {})).start()
    ledger = Ledger(db, clock, node=name)
    panel, bus = Panel(ledger, clock=clock, tasks=tasks), Bus(db, node=name)
    given = {**QUICK, "apify_url": one.url, "apify_token": TOKEN if token else None, **settings}
    parts = Parts(load({}, **given), db, bus, clock, panel, ledger.record, tasks)
    tracker = await Tracker.open(parts, leading())
    made = Node(db, one, seen, tracker, panel, bus, tasks)
    tracker.note = lambda *areas: made.noted.extend(areas)
    try:
        yield made
    finally:
        tracker.provider.cut()
        await panel.stop()
        await tracker.close()
        await tasks.close()
        if double is None:
            await one.close()


async def until(true: Callable[[], Any], what: str = "") -> None:
    """Look again and again until it holds; the bound is only there to end a broken run."""
    try:
        async with asyncio.timeout(LIMIT_S):
            while True:
                answer = true()
                if await answer if asyncio.iscoroutine(answer) else answer:
                    return
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"still not so after {LIMIT_S:.0f} s: {what}") from None
