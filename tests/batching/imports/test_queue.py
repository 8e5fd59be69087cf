"""A worker whose loops run: lanes, retries, drains, lost leases, heartbeats under a blocked loop."""

import asyncio
import time

import pytest
from structlog.testing import capture_logs

from server.batching.imports import claims, queue
from server.batching.imports.plan import Again, Done, Failed, Job, Ladder, Onward, Verdict
from server.batching.imports.queue import Terms
from server.edge.bus import Bus, Envelope
from server.edge.postgres import Database
from server.errors import Unavailable
from tests.batching.imports.world import LIMIT_S, QUICK, ask, expire, job, nothing, put, statuses, tell, until, working

IN_A_MOMENT = Ladder(first_s=0.01, cap_s=0.02)


async def all_ended(db: Database) -> bool:
    return not set(await statuses(db)) & {"pending", "scheduled", "processing"}


async def test_all_jobs_are_done_exactly_once_and_nothing_is_left_behind(db: Database) -> None:
    ids = await put(db, 300)
    seen: list[int] = []

    async def work(job: Job) -> Verdict:
        seen.append(job.id)
        return Done()

    async with working(db, work):
        await until(lambda: all_ended(db), "all are done")
    assert sorted(seen) == ids
    assert await statuses(db) == {"completed": 300}
    assert await ask(db, "select completed_jobs from imports.batch_processing_stats") == 300
    assert await ask(db, "select status from imports.batch_processing_workers") == "stopped"


async def test_a_job_that_is_put_while_the_worker_idles_starts_without_waiting_for_a_poll(db: Database) -> None:
    async with working(db, nothing, Terms(poll_ms=600_000)) as place:
        await until(lambda: place.queue.worker is not None)
        (only,) = await put(db)
        await until(lambda: all_ended(db), "the notification woke the worker")
    assert (await job(db, only))["status"] == "completed"


async def test_without_a_notification_a_poll_finds_the_job(db: Database) -> None:
    async with working(db) as place:
        await until(lambda: place.queue.worker is not None)
        await tell(db, "insert into imports.batch_processing_queue (owner, source) values ('paul', 'provider')")
        await until(lambda: all_ended(db), "a poll found it")


async def test_a_job_of_many_steps_keeps_its_lane_and_others_run_beside_it(db: Database) -> None:
    await put(db, 2)
    lanes: dict[int, int] = {}
    both = asyncio.Barrier(2)

    async def work(job: Job) -> Verdict:
        lanes[job.id] = lanes.get(job.id, 0) + 1
        await both.wait()
        return Onward(job) if lanes[job.id] < 5 else Done()

    async with working(db, work):
        await until(lambda: all_ended(db))
    assert list(lanes.values()) == [5, 5]


async def test_while_jobs_wait_for_the_world_all_lanes_are_at_work(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "STUCK_S", 600.0)
    await put(db, 8)
    lanes, at_once = asyncio.Barrier(4), []

    async def work(job: Job) -> Verdict:
        await asyncio.wait_for(lanes.wait(), LIMIT_S)
        at_once.append(job.id)
        return Done()

    async with working(db, work, Terms(lanes=4, lease_s=2, poll_ms=100)):
        await until(lambda: all_ended(db), "four steps meet, twice")
    assert len(at_once) == 8


async def test_a_job_whose_last_page_is_stored_ends_as_it_is(db: Database) -> None:
    (only,) = await put(db, drained=True, cursor="last", seen=7, retry_count=2)
    async with working(db):
        await until(lambda: all_ended(db))
    row = await job(db, only)
    assert (row["status"], row["drained"], row["cursor"], row["seen"], row["retry_count"]) == (
        "completed",
        True,
        "last",
        7,
        2,
    )


async def test_quick_jobs_cost_no_other_lane_a_turn(db: Database) -> None:
    async with working(db, nothing, Terms(lanes=4, poll_ms=600_000)) as place:
        await until(lambda: place.queue.worker is not None)
        await put(db, 30)
        await until(lambda: all_ended(db))
        turns = [place.panel.state(f"imports-lane-{number}").turns for number in (1, 2, 3, 4)]
    assert turns[0] > 0
    assert turns[1:] == [0, 0, 0]


async def test_endings_of_all_kinds_are_written_together_each_to_its_own_job(db: Database) -> None:
    ids = await put(db, 40)

    async def work(job: Job) -> Verdict:
        kinds = (Done(), Failed(f"no {job.id}", afresh=True), Again(f"later {job.id}", 3600.0), Done())
        return kinds[job.id % 4]

    async with working(db, work, Terms(lanes=1, lease_s=2, poll_ms=100)) as place:
        await until(lambda: place.queue.pulse.jobs == 40, "all have been tried")
        await until(lambda: nobody_is_at_work(db), "all is written")
    rows = [await job(db, number) for number in ids]
    expected = ("completed", "failed", "scheduled", "completed")
    assert [row["status"] for row in rows] == [expected[number % 4] for number in ids]
    assert [row["error"] for row in rows] == [(None, f"no {n}", f"later {n}", None)[n % 4] for n in ids]
    assert [row["retry_count"] for row in rows] == [int(n % 4 == 2) for n in ids]
    assert await ask(db, "select (completed_jobs, failed_jobs)::text from imports.batch_processing_stats") == "(20,10)"


async def nobody_is_at_work(db: Database) -> bool:
    return not set(await statuses(db)) & {"pending", "processing"}


async def test_a_failure_is_tried_again_by_the_ladder_until_it_is_the_last(db: Database) -> None:
    (only,) = await put(db, max_retries=3)
    tries: list[int] = []

    async def work(job: Job) -> Verdict:
        tries.append(job.retry_count)
        return Again("the provider is away")

    async with working(db, work, Terms(lease_s=2, poll_ms=100, ladder=IN_A_MOMENT)):
        await until(lambda: all_ended(db))
    assert tries == [0, 1, 2, 3]
    row = await job(db, only)
    assert (row["status"], row["retry_count"], row["error"]) == ("failed", 3, "the provider is away")
    assert await ask(db, "select failed_jobs from imports.batch_processing_stats") == 1


async def test_what_the_other_side_asked_for_is_waited_for(db: Database) -> None:
    (only,) = await put(db)

    async def work(job: Job) -> Verdict:
        return Again("slow down", after_s=500.0)

    async with working(db, work):
        await until(lambda: _is(db, "scheduled"))
    wait_s = await ask(
        db,
        "select extract(epoch from next_attempt_at - now())::float8 from imports.batch_processing_queue where id = $1",
        only,
    )
    assert 400 < wait_s <= 500


async def test_a_failure_for_good_is_not_tried_again(db: Database) -> None:
    (only,) = await put(db)
    tries: list[int] = []

    async def work(job: Job) -> Verdict:
        tries.append(job.id)
        return Failed("the key was refused")

    async with working(db, work):
        await until(lambda: all_ended(db))
    assert tries == [only]
    assert (await job(db, only))["error"] == "the key was refused"


async def test_a_poison_job_ends_failed_and_blocks_nobody(db: Database) -> None:
    (poison,) = await put(db, priority=9, max_retries=2)
    others = await put(db, 20)

    async def work(job: Job) -> Verdict:
        if job.id == poison:
            raise ValueError("postgresql://paul:secret@host/ is no page")
        return Done()

    async with working(db, work, Terms(lanes=1, lease_s=2, poll_ms=100, ladder=IN_A_MOMENT)):
        await until(lambda: all_ended(db))
    row = await job(db, poison)
    assert row["status"] == "failed"
    assert "ValueError" in row["error"]
    assert "secret" not in row["error"]
    assert await statuses(db) == {"failed": 1, "completed": len(others)}


async def test_a_step_that_never_ends_is_a_failure_of_its_job(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "STEP_LIMIT_S", 0.05)
    (only,) = await put(db, max_retries=0)

    async def work(job: Job) -> Verdict:
        await asyncio.Event().wait()
        return Done()

    async with working(db, work):
        await until(lambda: all_ended(db))
    assert "longer than" in (await job(db, only))["error"]


async def test_postgres_away_is_nobodys_failure_and_the_job_goes_on(db: Database) -> None:
    (only,) = await put(db)
    tries = 0

    async def work(job: Job) -> Verdict:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise Unavailable("the database cannot be reached")
        return Done()

    async with working(db, work):
        await until(lambda: all_ended(db))
    row = await job(db, only)
    assert (row["status"], row["retry_count"], tries) == ("completed", 0, 2)


async def test_after_an_answer_that_was_lost_the_lane_goes_on_from_what_is_stored(db: Database) -> None:
    await put(db)
    cursors: list[str | None] = []

    async def work(job: Job) -> Verdict:
        cursors.append(job.cursor)
        if len(cursors) == 1:
            await tell(db, "update imports.batch_processing_queue set cursor = 'stored'")
            raise Unavailable("the answer was lost")
        return Done()

    async with working(db, work):
        await until(lambda: all_ended(db))
    assert cursors == [None, "stored"]


async def test_on_stop_the_step_under_way_ends_and_the_job_goes_back_without_costing_a_retry(db: Database) -> None:
    ids = await put(db, 10)
    begun, go_on = asyncio.Event(), asyncio.Event()
    steps = 0

    async def work(job: Job) -> Verdict:
        nonlocal steps
        begun.set()
        await go_on.wait()
        steps += 1
        return Onward(job)

    async with working(db, work, Terms(lanes=2, lease_s=2, poll_ms=100)) as place:
        await begun.wait()
        stopping = asyncio.ensure_future(place.panel.stop())
        await asyncio.sleep(0)
        go_on.set()
        await stopping
    assert steps >= 2
    assert await statuses(db) == {"pending": len(ids)}
    assert await ask(db, "select max(retry_count) from imports.batch_processing_queue") == 0


async def test_what_ended_just_before_the_stop_is_written_down(db: Database) -> None:
    await put(db, 5)
    done: list[int] = []

    async def work(job: Job) -> Verdict:
        done.append(job.id)
        return Done()

    async with working(db, work) as place:
        await until(lambda: done)
        await place.panel.stop()
    assert (await statuses(db))["completed"] == len(done)


async def test_claimed_ahead_and_stuck_behind_long_jobs_goes_back_for_other_workers(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "STUCK_S", 0.0)
    quick = await put(db, 40, owner="quick")
    hold, held_back = asyncio.Event(), []

    async def work(job: Job) -> Verdict:
        if len(held_back) < 20:
            held_back.append(job.id)
            return Done()
        await hold.wait()
        return Done()

    async with working(db, work, Terms(lanes=2, lease_s=2, poll_ms=50)):
        await until(lambda: _held_is(db, 2), "only what the lanes hold is held")
        hold.set()
        await until(lambda: all_ended(db))
    assert (await statuses(db))["completed"] == len(quick)
    assert await ask(db, "select max(retry_count) from imports.batch_processing_queue") == 0


async def test_the_heart_beats_while_the_event_loop_is_blocked(db: Database) -> None:
    await put(db)

    async def work(job: Job) -> Verdict:
        time.sleep(1.5)  # noqa: ASYNC251 - blocks the loop on purpose, for several leases
        return Done()

    async with working(db, work, Terms(lanes=1, lease_s=0.5, poll_ms=100)) as place:
        await until(lambda: all_ended(db))
        assert place.queue.worker is not None
    assert await ask(db, "select count(*) from imports.batch_processing_workers") == 1
    assert await ask(db, "select max(lease) from imports.batch_processing_queue") == 1


async def test_the_jobs_of_a_worker_that_died_are_rescued_and_done(db: Database) -> None:
    await put(db, 3)
    async with db.connection() as connection:
        dead = await claims.register(connection, "dead", 0.01, 1, "host", 1, "0")
        await claims.turn(connection, dead, [], 3, "test")
    async with working(db):
        await until(lambda: all_ended(db))
    assert await statuses(db) == {"completed": 3}
    assert await ask(db, "select min(retry_count) from imports.batch_processing_queue") == 1


async def test_a_worker_that_was_declared_dead_drops_everything_and_registers_anew(db: Database) -> None:
    (only,) = await put(db)
    verdicts: list[int] = []
    go_on = asyncio.Event()

    async def work(job: Job) -> Verdict:
        verdicts.append(job.lease)
        if len(verdicts) == 1:
            await go_on.wait()
        return Done()

    with capture_logs() as logs:
        async with working(db, work, Terms(lanes=2, lease_s=1.0, poll_ms=50)) as place:
            await until(lambda: verdicts)
            first = place.queue.worker
            assert first is not None
            await expire(db, first)
            await tell(db, "update imports.batch_processing_workers set status = 'dead' where id = $1", first)
            await until(lambda: place.queue.worker not in (None, first), "it is somebody new")
            await until(lambda: len(verdicts) == 2, "the job is claimed once more")
            go_on.set()
            await until(lambda: all_ended(db))
    row = await job(db, only)
    assert (row["status"], row["lease"]) == ("completed", 2)
    assert await ask(db, "select completed_jobs from imports.batch_processing_stats") == 1
    assert "worker declared dead" in [line["event"] for line in logs]


async def test_a_claim_whose_answer_was_lost_is_let_go_before_the_next(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await put(db, 3)
    turn, lost = claims.turn, 0

    async def losing(*arguments):  # type: ignore[no-untyped-def]
        nonlocal lost
        harvested = await turn(*arguments)
        if harvested.claimed and not lost:
            lost = len(harvested.claimed)
            raise ConnectionResetError("the answer was lost")
        return harvested

    monkeypatch.setattr(claims, "turn", losing)
    async with working(db):
        await until(lambda: all_ended(db))
    assert lost > 0
    assert await statuses(db) == {"completed": len(ids)}
    assert await ask(db, "select completed_jobs from imports.batch_processing_stats") == len(ids)


async def test_paused_claims_nothing_until_it_is_resumed(db: Database) -> None:
    async with working(db, nothing, QUICK) as place:
        await until(lambda: place.queue.worker is not None)
        place.panel.pause("imports")
        await until(lambda: not place.panel.loop("imports").running, "the turn under way has ended")
        await put(db, 3)
        await place.panel.run("imports-due")
        assert await statuses(db) == {"pending": 3}
        place.panel.resume("imports")
        await until(lambda: all_ended(db))


async def test_endings_are_told_on_the_bus_in_the_transaction_that_writes_them(db: Database) -> None:
    ids = await put(db, 3)
    async with working(db):
        await until(lambda: all_ended(db))
    async with db.connection() as connection:
        rows = await connection.fetch("select payload->'jobs' as jobs from ops.outbox where topic = 'imports'")
    told = sorted(int(one) for row in rows for one in row["jobs"].strip("[]").split(","))
    assert told == ids


async def test_of_a_burst_who_listens_is_woken_now_and_then_and_after_the_last(db: Database) -> None:
    bus, woken, heard, wakes = Bus(db, node="another"), asyncio.Event(), list[int](), 0

    async def hear(messages: list[Envelope]) -> None:
        heard.extend(job for message in messages for job in message.payload["jobs"])  # type: ignore[attr-defined]

    bus.woken = woken.set
    bus.subscribe([claims.TOPIC], hear)
    await bus.step()
    ids = await put(db, 300)
    async with working(db, nothing, Terms(claim_most=2, poll_ms=600_000)):
        while sorted(heard) != ids:
            await asyncio.wait_for(woken.wait(), LIMIT_S)
            woken.clear()
            wakes += 1
            while (await bus.step()).more:
                pass
        messages = await ask(db, "select last_seq from ops.node where node = 'test'")
    await bus.close()
    assert wakes < messages / 2


async def _is(db: Database, status: str) -> bool:
    return set(await statuses(db)) == {status}


async def _held_is(db: Database, count: int) -> bool:
    found = await statuses(db)
    return found.get("processing") == count and found.get("completed", 0) >= 20
