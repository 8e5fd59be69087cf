"""When a run asks: its batches, pauses, retries and its end, on a clock that a test moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from server.batching.loop import Turn
from server.edge.clock import VirtualClock
from server.edge.postgres import Database
from tests.batching.tracking.running import ADMIN, Node, node, youtube
from tests.doubles.apify import Act

SLOW: dict[str, Any] = {
    "tracking_pause_ms": 2_000,
    "tracking_retry_first_ms": 5_000,
    "tracking_youtube_actors": youtube(1),
    "apify_timeout_ms": 600_000,
}


@asynccontextmanager
async def slowly(db: Database, clock: VirtualClock, **settings: Any) -> AsyncIterator[Node]:
    """A node with the usual pauses, a post a call; what it is woken for is in `wakes`."""
    async with node(db, clock=clock, **{**SLOW, **settings}) as here:
        yield here


async def hang(here: Node, clock: VirtualClock, calls: int, seconds: float) -> Turn:
    """A turn whose calls all hang for so long."""
    turn = asyncio.create_task(here.turn())
    before = len(here.double.runs)
    await clock.until(lambda: len(here.double.runs) == before + calls)
    await clock.advance(seconds)
    return await turn


async def test_a_pause_stands_between_batches_and_none_after_the_last(db: Database) -> None:
    clock = VirtualClock()
    async with slowly(db, clock) as here:
        await here.posts(await here.campaign(), 25)
        opened = await here.tracker.run_now(ADMIN)
        for calls in (10, 20):
            await here.turn()
            assert len(here.double.runs) == calls
            await here.turn()
            await clock.advance(1.999)
            await here.turn()
            assert len(here.double.runs) == calls, "not before the pause is over"
            await clock.advance(0.001)
        await here.turn()
        view = await here.tracker.run(opened.run.id, ADMIN)
        assert (view.stop_reason, view.processed, clock.monotonic()) == ("done", 25, 4.0)


async def test_the_loop_is_woken_when_the_pause_is_over(db: Database) -> None:
    clock = VirtualClock()
    async with slowly(db, clock) as here:
        await here.posts(await here.campaign(), 25)
        here.panel.start()
        opened = await here.tracker.run_now(ADMIN)
        for calls in (10, 20):
            await clock.until(
                lambda calls=calls: (
                    len(here.double.runs) == calls
                    and here.tracker.worker.part is not None
                    and here.tracker.worker.part.not_before_s > clock.monotonic()
                )
            )  # type: ignore[misc]
            await clock.advance(2.0)
        await clock.until(lambda: here.tracker.worker.part is None)
        view = await here.tracker.run(opened.run.id, ADMIN)
        assert (view.stop_reason, view.processed, clock.monotonic()) == ("done", 25, 4.0)


async def test_calls_that_hang_are_given_up_after_a_minute_and_no_batch_begins_that_could_not_end_in_time(
    db: Database,
) -> None:
    clock = VirtualClock()
    async with slowly(db, clock) as here:
        here.double.held = True
        await here.posts(await here.campaign(), 50)
        opened = await here.tracker.run_now(ADMIN)
        for _ in range(4):
            assert (await hang(here, clock, 10, 60)).taken == 10
            await clock.advance(2)
        assert clock.monotonic() == 248
        async with asyncio.timeout(20):  # A batch that began now would hang for ever.
            assert (await here.turn()) == Turn()
        view = await here.tracker.run(opened.run.id, ADMIN)
        assert (view.stop_reason, view.calls, view.processed, view.failed) == ("time_limit", 40, 40, 40)
        assert (
            await here.ask(
                "select count(*) from tracking.failed_scrapes where reason = 'timeout' and next_attempt_at > now()"
            )
            == 40
        )
        assert (
            await here.ask("select count(*) from tracking.clips where next_due_at <= now() and lease_until is null")
            == 10
        )
        await clock.until(lambda: all(run.status == "ABORTED" for run in here.double.runs))


async def test_a_call_that_hangs_before_it_is_answered_is_given_up_too(db: Database) -> None:
    clock = VirtualClock()
    async with slowly(db, clock) as here:
        here.double.script("start", Act(delay_s=500, done=True))
        await here.post(await here.campaign())
        await here.tracker.run_now(ADMIN)
        turn = asyncio.create_task(here.turn())
        await clock.until(lambda: here.double.asked.count("start") == 1)
        await clock.advance(59.9)
        assert not turn.done()
        await clock.advance(0.1)
        assert (await turn).deferred == 1


async def test_a_retry_waits_without_holding_up_the_next_batch_which_goes_first(db: Database) -> None:
    clock = VirtualClock()
    async with slowly(db, clock) as here:
        here.double.script("start", Act(status=503))
        await here.posts(await here.campaign(), 20)
        opened = await here.tracker.run_now(ADMIN)
        assert (await here.turn()).deferred == 1
        await clock.advance(2)
        assert (await here.turn()).done == 10, "the second batch is whole, and does not wait"
        view = await here.tracker.run(opened.run.id, ADMIN)
        assert (view.status, view.successful) == ("running", 19)
        await clock.advance(2.9)
        await here.turn()
        assert len(here.double.runs) == 19, "4.9 s after the failure"
        await clock.advance(1.4)
        assert (await here.turn()).done == 1
        view = await here.tracker.run(opened.run.id, ADMIN)
        assert (view.stop_reason, view.successful, view.failed, view.calls) == ("done", 20, 0, 21)


async def test_the_first_retry_comes_after_five_seconds_the_next_after_twice_that_and_there_are_two(
    db: Database,
) -> None:
    clock = VirtualClock()
    async with slowly(db, clock) as here:
        here.double.always["start"] = Act(status=502)
        await here.post(await here.campaign())
        opened = await here.tracker.run_now(ADMIN)
        waits = []
        for _ in range(2):
            await here.turn()
            part = here.tracker.worker.part
            assert part is not None
            waits.append(part.waiting[0].due_s - clock.monotonic())
            await clock.advance(waits[-1] + 0.001)
        await here.turn()
        assert 5 <= waits[0] <= 6.25 and 10 <= waits[1] <= 12.5
        view = await here.tracker.run(opened.run.id, ADMIN)
        assert (view.stop_reason, view.calls, view.failed, here.double.asked.count("start")) == ("done", 3, 1, 3)
        (failed,) = await here.tracker.failed(ADMIN)
        assert (failed.reason, failed.retryable) == ("provider", True)
        assert await here.calls() == 3, "retries are calls"


async def test_what_the_provider_says_with_retry_after_is_waited_for(db: Database) -> None:
    clock = VirtualClock()
    async with slowly(db, clock) as here:
        here.double.script("start", Act(status=429, retry_after="37"))
        await here.post(await here.campaign())
        await here.tracker.run_now(ADMIN)
        await here.turn()
        await clock.advance(36.9)
        await here.turn()
        assert here.double.asked.count("start") == 1
        await clock.advance(0.1)
        assert (await here.turn()).done == 1


async def test_a_retry_that_would_come_too_late_is_stored_with_its_next_attempt(db: Database) -> None:
    clock = VirtualClock()
    async with slowly(db, clock) as here:
        here.double.script("start", Act(status=429, retry_after="280"))
        await here.post(await here.campaign())
        view = await here.work()
        (failed,) = await here.tracker.failed(ADMIN)
        assert (view.stop_reason, view.failed, failed.reason) == ("done", 1, "limited")
        assert failed.next_attempt_at is not None


async def test_what_may_succeed_later_is_tried_three_times_and_the_rest_once(db: Database) -> None:
    said = (
        (Act(status=400), "rejected", 1),
        (Act(status=404), "no_actor", 1),
        (Act(status=408), "provider", 3),
        (Act(status=425), "provider", 3),
        (Act(status=429), "limited", 3),
        (Act(status=500), "provider", 3),
        (Act(status=504), "provider", 3),
        (Act(cut="now"), "connection", 3),
        (Act(body="{", status=201), "provider", 3),
    )
    async with node(db) as here:
        campaign = await here.campaign()
        for act, reason, tries in said:
            here.double.always["start"] = act
            post = await here.post(campaign)
            view = await here.work()
            failed = (await here.tracker.failed(ADMIN))[0]
            assert (failed.clip_id, failed.reason, view.calls, view.stop_reason) == (
                post.clip_id,
                reason,
                tries,
                "done",
            )


async def test_a_provider_that_cannot_be_reached_is_tried_three_times(db: Database) -> None:
    async with node(db, apify_url="http://127.0.0.1:9") as here:
        await here.post(await here.campaign())
        view = await here.work()
        (failed,) = await here.tracker.failed(ADMIN)
        assert (failed.reason, view.calls) == ("connection", 3)


@pytest.mark.parametrize("status", [401, 403])
async def test_a_token_that_is_refused_stops_the_run_and_what_it_did_not_ask_for_stays_due(
    db: Database, status: int
) -> None:
    clock = VirtualClock()
    async with slowly(db, clock) as here:
        here.double.always["start"] = Act(status=status)
        await here.posts(await here.campaign(), 25)
        view = await here.work()
        assert (view.stop_reason, view.calls, view.failed, view.claimed) == ("provider_auth", 10, 10, 10)
        assert view.error is not None and "APIFY_TOKEN" in view.error
        assert await here.ask("select count(*) from tracking.clips where next_due_at <= now()") == 25
        here.double.always.clear()
        assert (await here.tracker.run_now(ADMIN)).new


async def test_a_server_that_stops_gives_up_its_calls_and_gives_back_its_clips(db: Database) -> None:
    async with node(db, tracking_call_timeout_ms=60_000) as here:
        here.double.held = True
        await here.posts(await here.campaign(), 3)
        opened = await here.tracker.run_now(ADMIN)
        here.panel.start()
        async with asyncio.timeout(20):
            while not here.double.runs:
                await asyncio.sleep(0.01)
            cut = asyncio.create_task(here.tracker.cut(0.05))
            await here.panel.stop()
            await cut
            await here.tracker.worker.close()
        view = await here.tracker.run(opened.run.id, ADMIN)
        assert view.status == "done"
        assert await here.ask("select count(*) from tracking.clips where lease_until is not null") == 0
