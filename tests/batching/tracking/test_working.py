"""What a worker holds and how it keeps it: leases on runs and clips, answers that could not be settled at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from server.batching.tracking import working
from server.edge.postgres import Database
from server.errors import Unavailable
from tests.batching.tracking.running import ADMIN, Node, node, until, youtube
from tests.doubles.apify import Outcome

LEASES = "select min(lease_until) from tracking.clips where lease_run is not null"
RUN_LEASE = "select lease_until from tracking.tracking_runs where finished_at is null"
WORKER_LEASE = "select lease_until from tracking.run_workers"


async def calling(here: Node) -> asyncio.Task[Any]:
    """A turn whose calls are under way until the test finishes their runs."""
    here.double.held = True
    turn = asyncio.create_task(here.turn())
    await until(lambda: bool(here.double.runs), "the calls are under way")
    return turn


async def answer(here: Node, turn: asyncio.Task[Any]) -> None:
    here.double.held = False
    for run in here.double.runs:
        here.double.finish(run)
    await turn


async def test_a_heartbeat_keeps_the_run_its_worker_and_the_clips_that_it_holds(db: Database) -> None:
    async with node(db) as here:
        await here.posts(await here.campaign(), 3)
        opened = await here.tracker.run_now(ADMIN)
        turn = await calling(here)
        before = [await here.ask(sql) for sql in (LEASES, RUN_LEASE, WORKER_LEASE)]
        beat = await here.turn("beat")
        after = [await here.ask(sql) for sql in (LEASES, RUN_LEASE, WORKER_LEASE)]
        assert (beat.taken, beat.done) == (3, 3)
        assert all(new > old for new, old in zip(after, before, strict=True))
        await answer(here, turn)
        assert (await here.turn("beat")).taken == 0
        assert (await here.tracker.run(opened.run.id, ADMIN)).status == "done"


async def test_a_clip_that_somebody_else_has_taken_meanwhile_is_theirs(db: Database) -> None:
    async with node(db) as here:
        posts = await here.posts(await here.campaign(), 3)
        opened = await here.tracker.run_now(ADMIN)
        turn = await calling(here)
        await here.tell("update tracking.clips set lease = lease + 1 where id = $1", posts[0].clip_id)
        assert (await here.turn("beat")).done == 2
        await answer(here, turn)
        view = await here.tracker.run(opened.run.id, ADMIN)
        assert (view.processed, view.status) == (2, "done")
        assert await here.ask("select lease_until is not null from tracking.clips where id = $1", posts[0].clip_id)


async def test_without_a_heartbeat_in_between_what_was_lost_is_recorded_and_counted_by_nobody(db: Database) -> None:
    async with node(db) as here:
        posts = await here.posts(await here.campaign(), 2)
        opened = await here.tracker.run_now(ADMIN)
        turn = await calling(here)
        await here.tell("update tracking.clips set lease = lease + 1 where id = $1", posts[0].clip_id)
        await answer(here, turn)
        view = await here.tracker.run(opened.run.id, ADMIN)
        assert view.processed == 1
        assert (await here.show(posts[0].id)).views == 100, "a count is a count"


async def test_a_run_that_nobody_keeps_alive_is_ended_by_whoever_looks(db: Database) -> None:
    async with node(db, tracking_lease_ms=60_000) as here:
        await here.posts(await here.campaign(), 2)
        opened = await here.tracker.run_now(ADMIN)
        await here.tell("update tracking.tracking_runs set lease_until = clock_timestamp()")
        await here.turn()
        view = await here.tracker.run(opened.run.id, ADMIN)
        assert (view.stop_reason, view.processed) == ("lost", 0)
        assert (await here.work()).processed == 2


async def test_who_finds_nothing_to_do_leaves_and_the_last_one_ends_the_run(db: Database) -> None:
    async with node(db) as here, node(db, name="there", double=here.double) as there:
        await here.posts(await here.campaign(), 2)
        opened = await here.tracker.run_now(ADMIN)
        turn = await calling(here)
        await there.turn()
        assert there.tracker.worker.part is None
        assert (await here.tracker.run(opened.run.id, ADMIN)).status == "running"
        await answer(here, turn)
        view = await here.tracker.run(opened.run.id, ADMIN)
        assert (view.stop_reason, view.processed) == ("done", 2)


async def test_a_run_is_not_lost_while_one_of_its_workers_lives(db: Database) -> None:
    async with node(db) as here, node(db, name="there", double=here.double) as there:
        await here.posts(await here.campaign(), 2)
        opened = await here.tracker.run_now(ADMIN)
        turn = await calling(here)
        await here.tell("update tracking.tracking_runs set lease_until = clock_timestamp()")
        await there.turn()
        assert (await here.tracker.run(opened.run.id, ADMIN)).status == "running"
        await answer(here, turn)
        assert (await here.tracker.run(opened.run.id, ADMIN)).stop_reason == "done"


async def test_a_worker_whose_run_was_ended_while_it_froze_settles_what_it_had_and_lets_go(db: Database) -> None:
    async with node(db) as here, node(db, name="there", double=here.double) as there:
        await here.posts(await here.campaign(), 2)
        opened = await here.tracker.run_now(ADMIN)
        turn = await calling(here)
        await here.tell("update tracking.tracking_runs set lease_until = clock_timestamp()")
        await here.tell("update tracking.run_workers set lease_until = clock_timestamp()")
        await there.turn()
        assert (await here.tracker.run(opened.run.id, ADMIN)).stop_reason == "lost"
        await answer(here, turn)
        assert await here.ask("select count(*) from tracking.view_tracking") == 2
        assert await here.ask("select count(*) from tracking.clips where lease_until is not null") == 0
        assert (await here.tracker.run(opened.run.id, ADMIN)).processed == 0, "an ended run is not counted on"
        assert (await here.work()).processed == 0


async def test_what_was_answered_while_postgres_was_away_is_settled_later_and_not_asked_for_again(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, left = working.settle, 2

    async def away(*given: Any) -> Any:
        nonlocal left
        left -= 1
        if left >= 0:
            raise Unavailable("the database cannot be reached just now", 1.0)
        return await real(*given)

    async with node(db) as here:
        await here.posts(await here.campaign(), 3)
        opened = await here.tracker.run_now(ADMIN)
        monkeypatch.setattr(working, "settle", away)
        for _ in range(2):
            with pytest.raises(Unavailable):
                await here.turn()
        view = await here.finish(opened.run.id)
        assert (view.successful, view.calls, len(here.double.runs)) == (3, 1, 1)


async def test_what_finds_no_place_in_a_batch_is_left_to_others(db: Database) -> None:
    async with node(db, tracking_youtube_actors=youtube(1), tracking_batch=2) as here:
        await here.posts(await here.campaign(), 8)
        opened = await here.tracker.run_now(ADMIN)
        await here.turn()
        view = await here.tracker.run(opened.run.id, ADMIN)
        assert (view.claimed, view.processed) == (2, 2)
        assert await here.ask("select count(*) from tracking.clips where lease_until is not null") == 0


async def test_where_others_have_all_calls_of_a_platform_under_way_a_node_waits_its_turn(db: Database) -> None:
    async with node(db, tracking_youtube_actors=youtube(1), tracking_at_once=2) as here:
        await here.posts(await here.campaign(), 3)
        await here.tell(
            """insert into tracking.call_reservations (provider, month, platform, run_id, expires_at, sent_at)
            select 'apify', date_trunc('month', now() at time zone 'UTC')::date, 'youtube', 1, now() + interval '1 hour', now()
            from generate_series(1, 2)"""
        )
        opened = await here.tracker.run_now(ADMIN)
        turn = await here.turn()
        assert (turn.taken, here.double.runs) == (0, [])
        await here.tell("delete from tracking.call_reservations")
        view = await here.finish(opened.run.id)
        assert (view.successful, view.stop_reason, here.double.platform.peak) == (3, "done", 2)


async def test_a_run_that_ended_badly_keeps_what_it_found(db: Database) -> None:
    async with node(db) as here:
        here.double.platform.outcomes.append(Outcome("TIMED-OUT", share=0.5))
        await here.posts(await here.campaign(), 4)
        view = await here.work()
        assert (view.successful, view.calls) == (4, 2)
        assert [len(posts) for _, posts in here.views.asked] == [4, 2], (
            "only those that it had not found are asked for again"
        )
