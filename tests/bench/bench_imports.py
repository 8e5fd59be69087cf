"""Batch imports: the queue beside others on the same PostgreSQL, what stands in it, how soon and how fairly it serves, and the
import of 50,000 members over HTTP. CPU is that of workers and PostgreSQL together."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import asyncpg

from tests.bench.importing import Importing, ready, standing
from tests.bench.queues import Cluster, Queue, Worker
from tests.bench.suite import ROUNDS, Context, Row, Timing, compare

JOBS: Final = 20_000
PROCRASTINATE_SHARE: Final = 20
"""It does so many times fewer jobs, or it would take all the time there is."""
FEW_ROUNDS: Final = 3
DEFERRED: Final = 100_000
FINISHED: Final = 500_000
OWNERS: Final = 1_000
EACH: Final = 20
PROCESSES: Final = 4
CONTACTS: Final = 5_000_000
MEMBERS: Final = 50_000
LIMIT_S: Final = 300.0

STAND: Final = """
insert into imports.batch_processing_queue (owner, source, audience_id, status, next_attempt_at, finished_at)
select 'past ' || n % 1000, 'provider', 1, '{status}', {next}, {finished} from generate_series(1, {count}) n"""
ENQUEUE: Final = """
insert into imports.batch_processing_queue (owner, source, audience_id, tier, turn)
values ('late', 'provider', 1, 4, imports.take_turns(4::smallint, 'late', 1)) returning id"""


def per_job(queue: Queue, count: int) -> float:
    """CPU seconds a job."""
    queue.refill(count)
    return queue.work(count).cpu / count


def micro(timing: Timing) -> str:
    """A time a job, with the spread of the rounds."""
    least, most = min(timing.rounds) * 1e6, max(timing.rounds) * 1e6
    return f"{timing.seconds * 1e6:.0f} us ({least:.0f} to {most:.0f})"


def noop(context: Context) -> Iterator[Row]:
    """No-op jobs with all of it on against two libraries, in turns on one PostgreSQL."""
    jobs = context.size(JOBS, 400)
    with Cluster() as cluster:
        ways: dict[str, Callable[[], float]] = {
            name: partial(
                per_job, cluster.queue(kind, batch), jobs if kind != "procrastinate" else jobs // PROCRASTINATE_SHARE
            )
            for name, kind, batch in (
                ("ours", "ours", 100),
                ("PgQueuer", "pgqueuer", 100),
                ("Procrastinate", "procrastinate", 100),
                ("ours by 10", "ours", 10),
                ("PgQueuer by 10", "pgqueuer", 10),
            )
        }
        times = compare(ways, context.size(ROUNDS, 1))
    yield _against("PgQueuer", times, "", 0.55, 0.35)
    yield _against("PgQueuer", times, " by 10", 0.55, 0.35)
    yield _against("Procrastinate", times, "", 1 / 20, 1 / 30)


def _against(rival: str, times: dict[str, Timing], batch: str, bar: float, goal: float) -> Row:
    ours, theirs = times["ours" + batch], times[rival + batch]
    work = (
        f"CPU a no-op job, ours / {rival}, batches of {10 if batch else 100}, every commit flushed; ours with fencing, "
        "statistics, heartbeats, progress"
    )
    note = f"ours {micro(ours)}, {rival} {micro(theirs)}"
    return Row(f"no-op jobs against {rival}{batch}", work, ours / theirs, "", bar, goal, note=note)


def stands(context: Context) -> Iterator[Row]:
    """What a queue costs that holds rows for later, or of the past."""
    jobs, deferred, finished = context.size(JOBS, 400), context.size(DEFERRED, 1_000), context.size(FINISHED, 5_000)
    with Cluster() as cluster:
        plain, later, past = (cluster.queue("ours") for _ in range(3))
        later.tell(STAND.format(status="scheduled", next="now() + interval '1 day'", finished="null", count=deferred))
        past.tell(STAND.format(status="completed", next="null", finished="now()", count=finished))
        queues = {"plain": plain, "deferred": later, "finished": past}
        ways = {name: partial(per_job, queue, jobs) for name, queue in queues.items()}
        times = compare(ways, context.size(ROUNDS, 1))
    for name, count in (("deferred", deferred), ("finished", finished)):
        ratio = times[name] / times["plain"]
        note = f"{micro(times[name])} a job, without them {micro(times['plain'])}"
        yield Row(f"{count:,} {name} rows", "CPU a no-op job, with / without", ratio, "", 1.2, 1.1, note=note)


def latency(context: Context) -> Iterator[Row]:
    """How soon a job begins that comes in while a worker waits."""
    count = context.size(300, 30)
    with Cluster() as cluster:
        queue = cluster.queue("ours")
        worker = queue.worker(noted=True)
        try:
            worker.tell(0)
            moments = asyncio.run(_one_by_one(queue.dsn, count, random.Random(context.seed)))
            worker.tell(0)
            began = {job: at for job, _, at in worker.said()}
        finally:
            worker.close()
    waits = sorted((began[job] - after) * 1e3 for job, _, after in moments)
    whole = sorted((began[job] - before) * 1e3 for job, before, _ in moments)
    yield Row(
        "a job's start, p50",
        f"{count} jobs one by one to a worker that waits: from the answer to COMMIT to the start of the handler",
        statistics.median(waits),
        "ms",
        3,
        1.5,
        machine=True,
        note=f"p99 {waits[int(count * 0.99)]:.1f} ms; with the enqueuing COMMIT itself p50 {statistics.median(whole):.2f} ms",
    )


async def _one_by_one(dsn: str, count: int, dice: random.Random) -> list[tuple[int, float, float]]:
    """Of each job: its id, when its COMMIT was sent, when it was answered."""
    connection = await asyncpg.connect(dsn)
    moments = []
    try:
        await asyncio.sleep(1)
        for _ in range(count):
            await asyncio.sleep(dice.uniform(0.005, 0.025))
            transaction = connection.transaction()
            await transaction.start()
            job: int = await connection.fetchval(ENQUEUE)
            await connection.execute("select pg_notify('imports', '')")
            before = time.monotonic()
            await transaction.commit()
            moments.append((job, before, time.monotonic()))
        await asyncio.sleep(1)
    finally:
        await connection.close()
    return moments


def fairness(context: Context) -> Iterator[Row]:
    """Owners who bring their jobs one after the other, all of each at once."""
    owners = context.size(OWNERS, 20)
    with Cluster() as cluster:
        queue = cluster.queue("ours")
        queue.refill(owners * EACH, owners)
        noted = queue.work(owners * EACH, noted=True).noted
    began = min(at for _, _, at in noted)
    done = {owner: at - began for _, owner, at in noted}
    place = {owner: number for number, (_, owner, _) in enumerate(noted, 1)}
    first, last = min(done.values()), max(done.values())
    yield Row(
        "owners take turns",
        f"{owners:,} owners with {EACH} jobs each at equal priority: when the first owner is done / when the last is",
        first / last,
        "",
        0.5,
        more=True,
        note=f"{first:.2f} s and {last:.2f} s; the first owner's last job was number {min(place.values()):,} of {len(noted):,}",
    )


def processes(context: Context) -> Iterator[Row]:
    """Worker processes side by side on one backlog."""
    jobs = context.size(2 * JOBS, 400)
    rates: dict[int, list[float]] = {1: [], PROCESSES: []}
    with Cluster() as cluster:
        queue = cluster.queue("ours")
        for number in range(context.size(FEW_ROUNDS, 1) + 1):
            for count in (1, PROCESSES) if number % 2 else (PROCESSES, 1):
                queue.refill(jobs)
                rate = jobs / _together([queue.worker() for _ in range(count)], queue.dsn, jobs)
                if number:
                    rates[count].append(rate)
    ratio = statistics.median(four / one for one, four in zip(rates[1], rates[PROCESSES], strict=True))
    note = ", ".join(f"{count}: {statistics.median(each):,.0f} jobs/s" for count, each in rates.items())
    work = f"{jobs:,} no-op jobs, jobs a second on the wall, {PROCESSES} worker processes / 1"
    yield Row(f"{PROCESSES} processes", work, ratio, "", 1.0, more=True, note=note)


def _together(workers: list[Worker], dsn: str, jobs: int) -> float:
    """Seconds until the statistics count all jobs."""
    try:
        began = time.monotonic()
        for worker in workers:
            worker.tell(0)
        asyncio.run(_counted(dsn, jobs))
        seconds = time.monotonic() - began
        for worker in workers:
            worker.tell(0)
        for worker in workers:
            worker.said()
    finally:
        for worker in workers:
            worker.close()
    return seconds


async def _counted(dsn: str, jobs: int) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        async with asyncio.timeout(LIMIT_S):
            while (await connection.fetchval("select sum(completed) from imports.stats_shard") or 0) < jobs:
                await asyncio.sleep(0.02)
    finally:
        await connection.close()


def imported(context: Context) -> Iterator[Row]:
    """Imports of all members of an account, page by page over HTTP, into an empty table and into a full one."""
    members, contacts = context.size(MEMBERS, 500), context.size(CONTACTS, 5_000)
    with standing(members) as url, Importing(url) as empty, Importing(url, ready(context.folder, contacts)) as full:
        grown = empty.growth(members)
        full.work(members)
        rounds = [(empty.work(members), full.work(members)) for _ in range(context.size(FEW_ROUNDS, 1))]
    walls = [one.wall for one, _ in rounds]
    cpu = statistics.median(two.cpu / one.cpu for one, two in rounds)
    wall = statistics.median(two.wall / one.wall for one, two in rounds)
    one, two = rounds[-1]
    yield Row(
        f"{members:,} members",
        "one import from a provider on loopback, 100 a page, from the request to the job's end",
        statistics.median(walls),
        "s",
        8,
        4,
        machine=True,
        note=f"{min(walls):.2f} to {max(walls):.2f} s; CPU of server {one.workers:.2f} s, PostgreSQL {one.postgres:.2f} s",
    )
    yield Row(
        f"memory of {members:,} members", "most that a server grew in its first such import", grown / 2**20, "MiB", 20
    )
    yield Row(
        f"into {contacts:,} contacts",
        "CPU of one import, workers and PostgreSQL together, into a table that holds so many / into an empty one",
        cpu,
        "",
        1.3,
        note=f"on the wall {wall:.2f}; CPU {one.cpu:.2f} s and {two.cpu:.2f} s, wall {one.wall:.2f} s and {two.wall:.2f} s",
    )


BENCHES: Final = (noop, stands, latency, fairness, processes, imported)
