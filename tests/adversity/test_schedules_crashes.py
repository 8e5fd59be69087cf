"""Processes that are killed while they start runs and attribute them: no run is paid for twice, no review is lost or doubled."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from server.edge.clock import SystemClock
from server.edge.postgres import Database
from tests.batching.schedules.running import ask, batch, expected, follow, place, reviews, rows, stage, states
from tests.doubles.apify import Act, Apify
from tests.doubles.apify.reviews import World

ROOT = Path(__file__).parents[2]
BATCHES = 8
PAGE = 7
LIMIT_S = 60.0


@contextmanager
def worker(dsn: str, url: str) -> Iterator[subprocess.Popen[str]]:
    """A process of its own, killed at the end."""
    command = [sys.executable, "-m", "tests.adversity.schedules_worker", dsn, url, str(PAGE)]
    one = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert one.stdout is not None
        assert one.stdout.readline().strip() == "working"
        yield one
    finally:
        one.send_signal(signal.SIGKILL)
        one.wait(timeout=10)
        one.stdout.close()


async def settled(db: Database) -> bool:
    return not await ask(db, "select count(*) from schedules.provider_run where processed_at is null")


async def intend(db: Database) -> list[tuple[int, str]]:
    """Batches of two businesses each, all due to be started; (business, identifier)."""
    asked = []
    async with stage(db) as node:
        for n in range(BATCHES):
            schedule = await batch(db, index=n)
            for identifier in (place(2 * n), place(2 * n + 1)):
                asked += [(business, identifier) for business in await follow(db, schedule, identifier)]
            await node.runs.trigger(schedule, "k")
    return asked


def trouble(dice: random.Random) -> list[Act]:
    """What starts meet: slow answers, answers that are lost before and after, limits."""
    kinds = [
        Act(),
        Act(delay_s=0.15),
        Act(status=500, done=True),
        Act(status=502),
        Act(cut="now", done=True),
        Act(cut="now"),
        Act(delay_s=0.6, done=True),
        Act(status=429),
    ]
    return [dice.choice(kinds) for _ in range(BATCHES)]


@pytest.mark.parametrize("seed", [1, 2, 3] if "QUEUE_SOAK" in os.environ else [1])
async def test_a_process_killed_again_and_again_starts_every_run_once_and_stores_every_review_once(
    dsn: str, seed: int
) -> None:
    dice = random.Random(seed)
    db = await Database.open(dsn, clock=SystemClock())
    world = World(reviews=20)
    async with Apify(world.actors(), run_s=0.1) as double:
        asked = await intend(db)
        double.script("start", *trouble(dice))
        double.always["items"] = Act(delay_s=0.03)
        for _ in range(6):
            with worker(dsn, double.url):
                await asyncio.sleep(dice.uniform(0.1, 1.2))  # Killed wherever it is by then.
            if await settled(db):
                break
        double.always.clear()
        with worker(dsn, double.url):
            async with asyncio.timeout(LIMIT_S):
                while not await settled(db):
                    await asyncio.sleep(0.05)
        await double.settle()
        assert await states(db) == {"succeeded": BATCHES}
        assert len(double.runs) == BATCHES, "each run is a bill"
        ours = {row[0] for row in await rows(db, "select provider_run_id from schedules.provider_run")}
        assert ours == {run.id for run in double.runs}
        assert await reviews(db) == set().union(
            *(expected(world, "google", identifier, [("ada", business)]) for business, identifier in asked)
        )
        assert await ask(db, "select sum(items) from schedules.provider_run") == BATCHES * 40
        assert await ask(db, "select max(edits) from schedules.review") == 0
    await db.close()


async def test_two_processes_at_once_start_every_run_once_and_store_every_review_once(dsn: str) -> None:
    db = await Database.open(dsn, clock=SystemClock())
    world = World(reviews=20)
    async with Apify(world.actors(), run_s=0.05) as double:
        asked = await intend(db)
        double.script("start", *trouble(random.Random(9)))
        with worker(dsn, double.url), worker(dsn, double.url):
            async with asyncio.timeout(LIMIT_S):
                while not await settled(db):
                    await asyncio.sleep(0.05)
        assert len(double.runs) == BATCHES
        assert len(await reviews(db)) == len(asked) * 20
        assert await ask(db, "select sum(items) from schedules.provider_run") == BATCHES * 40
    await db.close()
