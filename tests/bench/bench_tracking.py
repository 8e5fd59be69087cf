"""Tracking: which clips are looked at next, counts settled, and a run against a provider that takes its time.

Choosing is measured through the same claim that a run makes, from its call to its answer, on databases of very different sizes
side by side; what it is held against is the same order, worked out for all clips and sorted.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import statistics
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Final

from server.batching.tracking import selection
from server.batching.tracking.money import Observed
from server.batching.tracking.settlement import Settlement
from server.batching.tracking.store import serving
from server.edge.postgres import Database
from tests.batching.tracking.running import ADMIN, Node, node
from tests.bench.clips import SUBMIT, Cluster, opened, populate
from tests.bench.queues import tell
from tests.bench.scheduling import Spent, Watch
from tests.bench.suite import Context, Row

SIZES: Final = (10_000, 100_000, 1_000_000)
SMALL: Final = (300, 1_000, 3_000)
CHOSEN: Final = 100
LEASE_S: Final = 600.0
ROUNDS: Final = 200
WARM: Final = 10
SETTLED: Final = 10_000
SETTLED_ROUNDS: Final = 5
RUN_CLIPS: Final = 600
RUN_ROUNDS: Final = 3
LATENCY_S: Final = 0.2
DAY: Final = dt.timedelta(days=1)

# The same order without the index: everything that is due is scored and sorted.
SORTED: Final = """
select id from (
    select *, case when newest_campaign_at > now() - interval '7 days' then 1.5 else 1 end * case
        when last_checked_at is null then 999
        else extract(epoch from now() - last_checked_at) / 3600 * case
            when now() - last_checked_at >= interval '8 hours' then 2 when now() - last_checked_at >= interval '4 hours' then 1 else 0.5 end
        end as score
    from tracking.clips
    where tracked = 'active' and state = 'ok' and next_due_at <= now() and (lease_until is null or lease_until <= now())
) scored order by last_checked_at is not null, score desc, coalesce(last_checked_at, created_at), id limit 100"""
WAITING: Final = "select count(*) from tracking.clips where next_due_at <= clock_timestamp() and lane is not null"
UNINDEXED: Final = ("drop index tracking.clips_urgent", "drop index tracking.clips_young")


# --- choosing ---


@dataclass
class Times:
    """Milliseconds of each claim, by how many clips there are."""

    sizes: tuple[int, ...]
    found: dict[int, list[float]] = field(default_factory=dict)

    def note(self, size: int, seconds: float) -> None:
        """One of them."""
        self.found.setdefault(size, []).append(seconds * 1e3)

    def p50(self, size: int) -> float:
        """Half of them were quicker."""
        return statistics.median(self.found[size])

    @property
    def ratio(self) -> float:
        """The most clips against the fewest."""
        return self.p50(self.sizes[-1]) / self.p50(self.sizes[0])

    def said(self) -> str:
        """All of them."""
        return ", ".join(f"{size:,}: {self.p50(size):.2f} ms (p99 {self._p99(size):.2f})" for size in self.sizes)

    def _p99(self, size: int) -> float:
        return sorted(self.found[size])[int(0.99 * (len(self.found[size]) - 1))]


def choosing(context: Context) -> Iterator[Row]:
    """The most urgent of very many clips, when one in twelve is due and when all are."""
    sizes = SMALL if context.small else SIZES
    with Cluster() as cluster:
        worlds = {size: cluster.database(f"clips_{size}") for size in sizes}
        for size, dsn in worlds.items():
            asyncio.run(populate(dsn, size, context.seed))
        usual, after, sorted_s, waiting = asyncio.run(_choosing(worlds, context.size(ROUNDS, 5)))
    most = sizes[-1]
    yield Row(
        f"tracking, the {CHOSEN} most urgent of {most:,} clips",
        f"age, lock, choose by the score over all of them, lease, commit; {waiting:,} are due; p50",
        usual.p50(most),
        "ms",
        30,
        5,
        machine=True,
        against={"scored and sorted": sorted_s * 1e3},
        note=usual.said(),
    )
    yield _ratio("a hundred times the clips", "few are due", usual)
    yield _ratio("all are due, a hundred times the clips", "as after a day without any run", after)


def _ratio(name: str, work: str, times: Times) -> Row:
    first, last = times.sizes[0], times.sizes[-1]
    work = f"{work}: p50 with {last:,} clips / {first:,}"
    return Row(f"tracking, choosing: {name}", work, times.ratio, "", 3, 1.5, note=times.said())


async def _choosing(worlds: dict[int, str], rounds: int) -> tuple[Times, Times, float, int]:
    sizes = tuple(worlds)
    async with AsyncExitStack() as stack:
        dbs = {size: await stack.enter_async_context(opened(dsn)) for size, dsn in worlds.items()}
        async with dbs[sizes[-1]].connection() as connection:
            waiting = await connection.fetchval(WAITING)
            now = await selection.moment_of(connection)
        sorted_s = statistics.median([await _sorted(dbs[sizes[-1]]) for _ in range(3)])
        usual, after = Times(sizes), Times(sizes)
        for times, moment in ((usual, None), (after, now + DAY)):
            for number in range(-WARM, rounds):
                for size in sizes if number % 2 else reversed(sizes):
                    seconds = await _claimed(dbs[size], moment, min(CHOSEN, size // CHOSEN))
                    if number >= 0:
                        times.note(size, seconds)
    return usual, after, sorted_s, waiting


async def _claimed(db: Database, now: dt.datetime | None, wanted: int) -> float:
    """Seconds of one claim; what it claims is given back."""
    began = time.perf_counter()
    claimed = await selection.claim(db, 1, wanted, LEASE_S, now)
    spent = time.perf_counter() - began
    assert len(claimed) == wanted, len(claimed)
    async with serving(db) as connection:
        await selection.let_go(connection, [one.hold for one in claimed])
    return spent


async def _sorted(db: Database) -> float:
    async with db.connection() as connection:
        began = time.perf_counter()
        await connection.fetch(SORTED)
        return time.perf_counter() - began


# --- settling ---


def settling(context: Context) -> Iterator[Row]:
    """Counts that have come in, settled with their campaigns; and what the index of choosing costs there."""
    count = context.size(SETTLED, 200)
    with Cluster() as cluster:
        ways = {"with": cluster.database("indexed"), "without": cluster.database("unindexed")}
        for dsn in ways.values():
            asyncio.run(populate(dsn, count, context.seed, SUBMIT))
        asyncio.run(tell(ways["without"], UNINDEXED))
        spent = asyncio.run(_settling(ways, count, context.size(SETTLED_ROUNDS, 1)))
    rate = statistics.median(one.rate for one in spent["with"])
    yield Row(
        "tracking, settlement",
        f"{count:,} counts that all earn, of as many clips in 100 campaigns: judged, granted, summed, committed; counts a second",
        rate,
        "/s",
        2_000,
        10_000,
        more=True,
        machine=True,
    )
    ratio = statistics.median(mine.cpu / bare.cpu for mine, bare in zip(spent["with"], spent["without"], strict=True))
    yield Row(
        "tracking, settlement: the price of choosing by an index",
        "CPU of it with the index of the most urgent clips / without",
        ratio,
        "",
        note="the index names the last look, so that a settlement's update of a clip is not HOT",
    )


async def _settling(ways: dict[str, str], count: int, rounds: int) -> dict[str, list[Spent]]:
    found: dict[str, list[Spent]] = {name: [] for name in ways}
    async with AsyncExitStack() as stack:
        dbs = {name: await stack.enter_async_context(opened(dsn)) for name, dsn in ways.items()}
        for number in range(-1, rounds):
            for name in ways if number % 2 else reversed(ways):
                spent = await _settled(dbs[name], count, 1_000 * (number + 2))
                if number >= 0:
                    found[name].append(spent)
    return found


async def _settled(db: Database, count: int, views: int) -> Spent:
    async with db.connection() as connection:
        ids = [row["id"] for row in await connection.fetch("select id from tracking.clips order by id")]
        at = await selection.moment_of(connection)
    watch = Watch()
    recorded = await Settlement(db).record([Observed(clip, views, at) for clip in ids])
    spent = watch.spent(count)
    assert recorded.grants == len(recorded.stored) == count, recorded.grants
    return spent


# --- a run ---


def running(context: Context) -> Iterator[Row]:
    """A run of many clips against a provider that takes its time for each call."""
    count = context.size(RUN_CLIPS, 40)
    with Cluster() as cluster:
        runs = [
            asyncio.run(_run(cluster.database(f"run_{number}"), count)) for number in range(context.size(RUN_ROUNDS, 1))
        ]
    ran = sorted(runs, key=lambda one: one.over)[len(runs) // 2]
    yield Row(
        f"tracking, a run of {count:,} clips",
        f"time from its beginning to its end, counts settled / {ran.batches} batches of {ran.size} calls, each {LATENCY_S * 1e3:.0f} ms, "
        f"and the pauses of {ran.pause_s:.0f} s between them",
        ran.over,
        "",
        1.3,
        1.05,
        note=f"{ran.seconds:.2f} s, {ran.calls} calls of up to {ran.posts} posts; {ran.bound_s:.2f} s is the least",
    )


@dataclass(frozen=True, slots=True)
class Ran:
    """One run: what it took, and what it consisted of."""

    seconds: float
    calls: int
    posts: int
    size: int
    pause_s: float

    @property
    def batches(self) -> int:
        """Of its calls."""
        return -(-self.calls // self.size)

    @property
    def bound_s(self) -> float:
        """What calls and pauses take by themselves."""
        return self.batches * LATENCY_S + (self.batches - 1) * self.pause_s

    @property
    def over(self) -> float:
        """How many times that it took."""
        return self.seconds / self.bound_s


async def _run(dsn: str, count: int) -> Ran:
    settings: dict[str, Any] = {"tracking_limit": count, "tracking_pause_ms": 2_000}
    async with opened(dsn) as db, node(db, how={"run_s": LATENCY_S}, **settings) as one:
        await _submit(one, count)
        one.panel.start()
        opened_run = await one.tracker.run_now(ADMIN, count)
        while (view := await one.tracker.run(opened_run.run.id, ADMIN)).status == "running":
            await asyncio.sleep(0.05)
        assert (view.successful, view.failed, view.stop_reason) == (count, 0, "done"), view
        terms = one.tracker.worker.terms
        return Ran(view.seconds, view.calls, terms.posts_most, terms.batch, terms.pause_s)


async def _submit(one: Node, count: int) -> None:
    """So many posts of YouTube in a few campaigns."""
    for number in range(count):
        if number % 100 == 0:
            campaign = await one.campaign()
        await one.post(campaign)


BENCHES: Final = (choosing, settling, running)
