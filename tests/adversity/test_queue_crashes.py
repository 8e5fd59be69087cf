"""Workers in processes of their own that are killed, frozen, given wrong clocks or cut off: every effect exactly once.

QUEUE_SOAK=1 (`make soak`) makes the storm long.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

from server.batching.imports.plan import Done, Job, Verdict
from server.batching.imports.queue import Terms
from server.edge.clock import SystemClock
from server.edge.embedded import EmbeddedPostgres
from server.edge.postgres import Database, migrate
from tests.adversity.proxy import in_front_of
from tests.batching.imports.world import ask, put, statuses, tell, until, working

SOAK = bool(os.environ.get("QUEUE_SOAK"))
ROOT = Path(__file__).resolve().parents[2]
SEED = int(os.environ.get("QUEUE_SEED", "7"))
PATIENCE_S = 300.0 if SOAK else 60.0
EFFECT = """
create schema effect; create table effect.done (job bigint not null, at timestamptz default clock_timestamp());
grant all on schema effect to batchcast_worker; grant all on effect.done to batchcast_worker"""


class Crew:
    """Worker processes."""

    def __init__(self, dsn: str, effect: str) -> None:
        self.dsn = dsn
        self.effect = effect
        self.processes: list[subprocess.Popen[bytes]] = []

    def hire(self, **environ: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.adversity.queue_worker", self.dsn, self.effect],
            cwd=ROOT,
            env={**os.environ, **environ},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.processes.append(process)
        return process

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()
        self.processes.remove(process)

    def dismiss(self) -> None:
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()


@contextlib.contextmanager
def crew(dsn: str, effect: str) -> Iterator[Crew]:
    hired = Crew(dsn, effect)
    try:
        yield hired
    finally:
        hired.dismiss()


async def all_ended(db: Database) -> bool:
    return not set(await statuses(db)) & {"pending", "scheduled", "processing"}


async def busy(db: Database) -> bool:
    return bool((await statuses(db)).get("processing"))


async def every_effect_once(db: Database, ids: list[int]) -> None:
    assert await ask(db, "select array_agg(job order by job) from effect.done") == ids
    assert await statuses(db) == {"completed": len(ids)}
    assert await ask(db, "select completed_jobs from imports.batch_processing_stats") == len(ids)
    assert await ask(db, "select count(*) from imports.batch_processing_queue where worker_id is not null") == 0


async def test_three_workers_killed_at_random_do_every_job_exactly_once(db: Database, dsn: str) -> None:
    await tell(db, EFFECT)
    jobs, kills = (20_000, 60) if SOAK else (1_500, 5)
    ids = await put(db, jobs, max_retries=100)
    dice = random.Random(SEED)
    with crew(dsn, "noop") as workers:
        for _ in range(3):
            workers.hire()
        for _ in range(kills):
            done = await ask(db, "select count(*) from effect.done")
            await until(partial(_more_than, db, done + dice.randrange(60)), "work goes on", PATIENCE_S)
            workers.kill(dice.choice(workers.processes))
            workers.hire()
        await until(lambda: all_ended(db), "all jobs have ended", PATIENCE_S)
    await every_effect_once(db, ids)


async def test_imports_of_members_survive_kills_without_losing_or_doubling_a_page(db: Database, dsn: str) -> None:
    jobs = 20 if SOAK else 4
    ids = [(await put(db, audience_id=n, max_retries=100))[0] for n in range(jobs)]
    dice = random.Random(SEED)
    with crew(dsn, "pages") as workers:
        workers.hire()
        for _ in range(4 if not SOAK else 30):
            seen = await ask(db, "select coalesce(sum(seen), 0)::bigint from imports.batch_processing_queue")
            await until(partial(_seen_more, db, seen), "pages are stored", PATIENCE_S)
            await asyncio.sleep(dice.random() * 0.05)  # Somewhere in the middle of a page.
            workers.kill(workers.processes[0])
            workers.hire()
        await until(lambda: all_ended(db), "all imports have ended", PATIENCE_S)
    async with db.connection() as connection:
        rows = await connection.fetch("select * from imports.batch_processing_queue order by id")
        lists = await connection.fetch("select audience_id, count(*) as n from imports.contacts group by 1 order by 1")
    assert [(row["status"], row["seen"], row["imported"], row["pages"]) for row in rows] == [
        ("completed", 300, 300, 15)
    ] * jobs
    assert [(one["audience_id"], one["n"]) for one in lists] == [(n, 300) for n in range(len(ids))]


async def test_a_frozen_worker_comes_back_as_a_zombie_and_changes_nothing(db: Database, dsn: str) -> None:
    ids = [(await put(db, audience_id=n, max_retries=100))[0] for n in range(3)]
    with crew(dsn, "pages") as workers:
        zombie = workers.hire()
        await until(lambda: _seen_more(db, 0), "the first worker is at it", PATIENCE_S)
        zombie.send_signal(signal.SIGSTOP)
        workers.hire()
        await until(lambda: _reclaimed(db), "its lease has ended and another has its jobs", PATIENCE_S)
        zombie.send_signal(signal.SIGCONT)
        await until(lambda: all_ended(db), "all imports have ended", PATIENCE_S)
        await until(lambda: _registered(db, 3), "the zombie has noticed and begun anew", PATIENCE_S)
    async with db.connection() as connection:
        rows = await connection.fetch("select * from imports.batch_processing_queue")
    assert {(row["status"], row["seen"], row["imported"], row["pages"]) for row in rows} == {
        ("completed", 300, 300, 15)
    }
    assert await ask(db, "select completed_jobs from imports.batch_processing_stats") == len(ids)


async def test_a_job_that_kills_its_worker_ends_failed_and_blocks_nobody(db: Database, dsn: str) -> None:
    await tell(db, EFFECT)
    (poison,) = await put(db, owner="poison", priority=9, max_retries=2)
    others = await put(db, 200, max_retries=20)
    with crew(dsn, "poison") as workers:
        workers.hire()
        while not await all_ended(db):
            for process in [one for one in workers.processes if one.poll() is not None]:
                workers.processes.remove(process)
                workers.hire()
            await asyncio.sleep(0.05)
    assert await statuses(db) == {"failed": 1, "completed": len(others)}
    row = await ask(db, "select error from imports.batch_processing_queue where id = $1", poison)
    assert "died" in row
    assert await ask(db, "select array_agg(job order by job) from effect.done") == others


async def test_workers_whose_clocks_are_hours_apart_agree_because_only_the_databases_counts(
    db: Database, dsn: str
) -> None:
    await tell(db, EFFECT)
    ids = await put(db, 300)
    with crew(dsn, "noop") as workers:
        workers.hire(QUEUE_SKEW_MS="-7200000")
        workers.hire(QUEUE_SKEW_MS="7200000")
        await until(lambda: all_ended(db), "all jobs have ended", PATIENCE_S)
    await every_effect_once(db, ids)
    assert await ask(db, "select max(lease) from imports.batch_processing_queue") == 1


async def test_connections_cut_in_mid_commit_lose_and_double_nothing(db: Database, dsn: str) -> None:
    await tell(db, EFFECT)
    ids = await put(db, 400, max_retries=100)
    async with in_front_of(dsn) as proxy:
        through = await Database.open(proxy.dsn(dsn), clock=SystemClock())

        async def work(job: Job) -> Verdict:
            return Done()

        async with working(through, work, Terms(lanes=2, lease_s=2.0, poll_ms=50, claim_most=20)):
            for said in (b"stats_shard", b"pg_notify", b"stats_shard"):
                proxy.lose_commit_of = said
                before = proxy.lost
                await until(lambda before=before: _lost_or_ended(db, proxy.lost > before), "an answer is lost")  # type: ignore[misc]
            proxy.cut()
            proxy.mend()
            await until(lambda: all_ended(db), "all jobs have ended", PATIENCE_S)
        await through.close()
    assert await statuses(db) == {"completed": len(ids)}
    assert await ask(db, "select completed_jobs from imports.batch_processing_stats") == len(ids)


async def test_postgres_restarted_under_load_costs_no_job_and_no_retry(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)  # Durable: what was committed must survive the kill.
    dsn = await server.start()
    db = await Database.open(dsn, clock=SystemClock())
    try:
        await migrate(db)
        ids = await put(db, 600)

        async def work(job: Job) -> Verdict:
            await asyncio.sleep(0.002)
            return Done()

        async with working(db, work, Terms(lanes=4, lease_s=20.0, poll_ms=100, claim_most=20)):
            for _ in range(2):
                await until(lambda: busy(db), "workers are at it")
                killed = server.pid
                assert killed is not None
                os.kill(killed, signal.SIGKILL)
                await until(
                    lambda killed=killed: server.pid not in (None, killed), "postgres is started anew", PATIENCE_S
                )
                await until(lambda: _answers(db), "postgres is back", PATIENCE_S)
            await until(lambda: _answers_and_ended(db), "all jobs have ended", PATIENCE_S)
        assert await statuses(db) == {"completed": len(ids)}
        assert await ask(db, "select max(retry_count) from imports.batch_processing_queue") == 0
        assert await ask(db, "select completed_jobs from imports.batch_processing_stats") == len(ids)
    finally:
        await db.close()
        await server.stop()


async def test_a_transaction_held_open_does_not_stop_the_queue(db: Database, dsn: str) -> None:
    jobs = 40_000 if SOAK else 3_000
    await put(db, 10)
    async with _held_open(dsn):
        ids = await put(db, jobs)
        async with working(db, _done, Terms(lanes=2, lease_s=10.0, poll_ms=100)):
            await until(lambda: all_ended(db), "all jobs have ended", PATIENCE_S)
    assert await statuses(db) == {"completed": len(ids) + 10}


async def _done(job: Job) -> Verdict:
    return Done()


@contextlib.asynccontextmanager
async def _held_open(dsn: str) -> AsyncIterator[None]:
    """A transaction that keeps every dead row in its place."""
    other = await Database.open(dsn, clock=SystemClock())
    try:
        async with other.connection() as connection:
            change = connection.transaction(isolation="repeatable_read")
            await change.start()
            await connection.fetchval("select count(*) from imports.batch_processing_queue")
            yield
            await change.rollback()
    finally:
        await other.close()


async def _more_than(db: Database, count: int) -> bool:
    return bool(await ask(db, "select count(*) > $1 from effect.done", count) or await all_ended(db))


async def _seen_more(db: Database, seen: int) -> bool:
    return bool(
        await ask(db, "select coalesce(sum(seen), 0) > $1 from imports.batch_processing_queue", seen)
        or await all_ended(db)
    )


async def _reclaimed(db: Database) -> bool:
    return bool(
        await ask(db, "select bool_and(lease >= 2 or status = 'completed') from imports.batch_processing_queue")
    )


async def _registered(db: Database, count: int) -> bool:
    return bool(await ask(db, "select count(*) >= $1 from imports.batch_processing_workers", count))


async def _lost_or_ended(db: Database, lost: bool) -> bool:
    return lost or await all_ended(db)


async def _answers(db: Database) -> bool:
    try:
        return bool(await ask(db, "select true"))
    except Exception:
        return False


async def _answers_and_ended(db: Database) -> bool:
    return await _answers(db) and await all_ended(db)
