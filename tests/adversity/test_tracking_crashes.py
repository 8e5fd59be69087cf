"""Processes killed in the middle of a run: nothing is paid twice, every count comes in, the run's lock and the clips are free again."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from server.batching.tracking.checking import verify
from server.edge.clock import SystemClock
from server.edge.postgres import Database
from tests.adversity.tracking_worker import SETTINGS
from tests.batching.tracking.running import ADMIN, Node, node, until
from tests.doubles.apify import Act

ROOT = Path(__file__).parents[2]


@contextmanager
def worker(here: Node, moment: str = "") -> Iterator[subprocess.Popen[str]]:
    """A process of its own, killed at the end."""
    command = [sys.executable, "-m", "tests.adversity.tracking_worker", here.db.dsn, here.double.url, moment]
    one = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert one.stdout is not None
        assert one.stdout.readline().strip() == "working"
        yield one
    finally:
        one.send_signal(signal.SIGKILL)
        one.wait(timeout=10)
        one.stdout.close()


async def died(one: subprocess.Popen[str]) -> None:
    """By its own hand; the bound is only there to end a broken run."""
    await until(lambda: one.poll() is not None, "the process has not died")
    assert one.poll() == -signal.SIGKILL


@asynccontextmanager
async def quiet(dsn: str, **how: object) -> AsyncIterator[Node]:
    """A node that only looks on: it has no token, but the provider that workers are sent to."""
    db = await Database.open(dsn, clock=SystemClock())
    try:
        async with node(db, token=False, how=dict(how), **SETTINGS) as here:
            yield here
    finally:
        await db.close()


async def campaign(here: Node, posts: int) -> list[int]:
    made = await here.posts(await here.campaign(rate=1_000, baseline="zero"), posts)
    return [one.clip_id for one in made]


async def counted(here: Node, clips: int) -> bool:
    return (
        int(await here.ask("select count(*) from tracking.clips where views is not null and lease_until is null"))
        == clips
    )


async def lost(here: Node) -> bool:
    await here.turn()
    return (await here.tracker.runs(ADMIN))[-1].stop_reason == "lost"


async def test_a_run_whose_process_was_killed_ends_when_its_lease_does_and_another_takes_up_what_it_held(
    dsn: str,
) -> None:
    async with quiet(dsn) as here:
        clips = await campaign(here, 4)
        here.double.held = True
        with worker(here):
            await until(lambda: len(here.double.runs) == 2, "calls are under way")
        assert await here.ask("select count(*) from tracking.clips where lease_run is not null") == len(clips)
        assert await here.ask("select finished_at is null from tracking.tracking_runs order by id limit 1")
        await until(lambda: lost(here), "whoever looks ends the run")
        here.double.held = False
        with worker(here):
            await until(lambda: counted(here, 4), "the clips are counted after all")
        assert await here.calls() == 4, "what had been sent stays counted"
        assert await here.ask("select sum(earned_cents) from tracking.clip_submissions") == 4 * 100
        assert (await verify(here.db)).ok


async def test_a_count_that_was_answered_but_not_settled_is_not_paid_for_twice(dsn: str) -> None:
    async with quiet(dsn) as here:
        await campaign(here, 2)
        with worker(here, "kept") as one:
            await died(one)
        assert await here.ask("select count(*) from tracking.view_tracking") == 0
        with worker(here):
            await until(lambda: counted(here, 2), "the counts come in")
        assert (len(here.double.runs), await here.calls()) == (1, 1), "the provider was asked once"
        assert await here.ask("select sum(amount_cents) from tracking.earnings_ledger") == 2 * 100
        assert await here.ask("select count(*) from tracking.view_tracking") == 2
        assert (await verify(here.db)).ok


async def test_what_was_settled_before_the_kill_is_settled_once_and_the_rest_comes_after(dsn: str) -> None:
    async with quiet(dsn) as here:
        campaign_id = await here.campaign(rate=1_000, baseline="zero")
        await here.post(campaign_id, "good")
        await here.post(campaign_id, "odd")
        here.views.counts["odd________"] = -1
        with worker(here, "counted") as one:
            await died(one)
        assert await here.ask("select count(*) from tracking.view_tracking") == 1
        assert await here.ask("select count(*) from tracking.failed_scrapes") == 0
        with worker(here):
            await until(lambda: here.ask("select count(*) = 1 from tracking.failed_scrapes"), "the failure is told")
        assert await here.ask("select count(*) from tracking.view_tracking") == 1
        assert await here.ask("select sum(amount_cents) from tracking.earnings_ledger") == 100
        assert (await verify(here.db)).ok


@pytest.mark.parametrize(("moment", "calls"), [("reserved", 1), ("sent", 2)])
async def test_a_kill_between_the_reservation_and_the_call_loses_no_clip_and_counts_what_was_sent(
    dsn: str, moment: str, calls: int
) -> None:
    async with quiet(dsn) as here:
        await campaign(here, 2)
        with worker(here, moment) as one:
            await died(one)
        assert here.double.runs == []
        with worker(here):
            await until(lambda: counted(here, 2), "the clips are counted")
        assert (len(here.double.runs), await here.calls()) == (1, calls)


async def test_processes_killed_again_and_again_pay_what_was_counted_and_nothing_else(dsn: str) -> None:
    dice = random.Random(7)
    async with quiet(dsn, run_s=0.05) as here:
        clips = await campaign(here, 40)
        acts = [Act(), Act(), Act(status=503), Act(status=429), Act(cut="now", done=True), Act(delay_s=0.3)]
        here.double.script("start", *(dice.choice(acts) for _ in range(40)))
        for _ in range(3):
            with worker(here), worker(here):
                await asyncio.sleep(dice.uniform(0.2, 1.5))  # Killed wherever they are by then.
        here.double.scripts.clear()
        await here.tell("update tracking.clips set next_due_at = clock_timestamp() where views is null")
        with worker(here):
            await until(lambda: counted(here, len(clips)), "every clip is counted")
        assert await here.ask("select sum(amount_cents) from tracking.earnings_ledger") == len(clips) * 100
        assert await here.calls() >= len(here.double.runs)
        assert (
            await here.ask("select max(n) from (select count(*) n from tracking.view_tracking group by clip_id) t") == 1
        )
        assert (await verify(here.db)).ok
