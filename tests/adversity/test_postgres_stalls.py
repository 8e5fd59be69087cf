"""A worker whose way to PostgreSQL is TCP, and falls silent without an end: each effect exactly once, and it recovers by itself.

Nothing ever tells a process that the other end has gone silently; each wait has a bound of its own (`ANSWER_LIMIT_S` for
statements, the heartbeat's limit, PostgreSQL's limit for transactions that idle). The bounds are made short here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from server.batching.imports import claims
from server.batching.imports.batch import MemberImport
from server.batching.imports.plan import Done, Job, Lost, Verdict
from server.batching.imports.queue import Terms
from server.core.member import Page, Source
from server.edge import line, postgres
from server.edge.bus import Bus
from server.edge.clock import SystemClock
from server.edge.postgres import Database
from tests.adversity.proxy import Loss, Proxy, in_front_of
from tests.adversity.test_queue_crashes import EFFECT, PATIENCE_S, all_ended, every_effect_once
from tests.batching.imports.world import Members, Place, ask, member, put, statuses, tell, until, working

TERMS = Terms(lanes=3, lease_s=2.0, poll_ms=50, claim_most=20)
LIMIT_S = 0.7
NODE = b"\0\0\0\4test"
"""The name of the worker's node (world.working) as a parameter: only the statement that ends and makes claims has it."""


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "ANSWER_LIMIT_S", LIMIT_S)
    monkeypatch.setattr(line, "ANSWER_LIMIT_S", LIMIT_S)
    monkeypatch.setattr(claims, "ACT", claims.ACT.replace("'10s'", "'1s'"))


@asynccontextmanager
async def behind(dsn: str) -> AsyncIterator[tuple[Proxy, Database]]:
    async with in_front_of(dsn, tcp=True) as proxy:
        through = await Database.open(proxy.dsn(dsn), clock=SystemClock())
        try:
            yield proxy, through
        finally:
            proxy.flow()
            await through.close()


@asynccontextmanager
async def effects(db: Database) -> AsyncIterator[Place]:
    """A worker whose every job leaves one row, in the transaction of its one page."""

    async def once(job: Job) -> Verdict:
        if job.drained:
            return Done()
        async with db.transaction() as connection:
            await connection.execute(claims.ACT)
            if await claims.save_page(connection, job, Page((), None, False)) is None:
                return Lost()
            # Written out, so that each transaction says it and the proxy can tell it.
            await connection.execute(f"insert into effect.done (job) values ({job.id})")
        return Done()

    async with working(db, once, TERMS) as place:
        yield place


async def done(db: Database) -> int:
    return int(await ask(db, "select count(*) from effect.done"))


async def more_done(db: Database, than: int) -> bool:
    return await done(db) > than


async def test_a_stall_past_the_lease_gives_the_jobs_to_another_and_the_worker_comes_back(
    db: Database, dsn: str
) -> None:
    await tell(db, EFFECT)
    async with behind(dsn) as (proxy, through), effects(through) as stalled:
        first = await put(db, 300, max_retries=100)
        await until(lambda: more_done(db, 20), "it works")
        proxy.stall()
        async with effects(db):
            await until(lambda: all_ended(db), "the other has done the rest", PATIENCE_S)
        before = await ask(db, "select max(id) from imports.batch_processing_workers")
        proxy.flow()
        second = await put(db, 50, max_retries=100)
        await until(lambda: all_ended(db), "it works again", PATIENCE_S)
        worker = stalled.queue.worker
        assert worker is not None and worker > before, "as a worker anew"
    await every_effect_once(db, first + second)


async def test_connections_that_are_dead_but_open_are_given_up_and_replaced(db: Database, dsn: str) -> None:
    await tell(db, EFFECT)
    ids = await put(db, 400, max_retries=100)
    async with behind(dsn) as (proxy, through), effects(through):
        for _ in range(3):
            count = await done(db)
            await until(lambda count=count: more_done(db, count), "it works", PATIENCE_S)  # type: ignore[misc]
            proxy.half_open()
        await until(lambda: all_ended(db), "all jobs have ended", PATIENCE_S)
        proxy.half_open()  # While nothing is to be done: the claimer's own session, which only listens.
        ids += await put(db, 20, max_retries=100)
        await until(lambda: all_ended(db), "these too", PATIENCE_S)
    await every_effect_once(db, ids)


@pytest.mark.parametrize("loss", list(Loss))
async def test_a_commit_that_is_lost_on_the_way_is_neither_lost_nor_repeated(
    db: Database, dsn: str, loss: Loss
) -> None:
    await tell(db, EFFECT)
    ids = await put(db, 200, max_retries=100)
    async with behind(dsn) as (proxy, through):
        proxy.loss = loss
        async with effects(through):
            for _ in range(3):
                proxy.lose_commit_of, before = b"effect.done", proxy.lost
                await until(lambda before=before: proxy.lost > before, "a commit is lost", PATIENCE_S)  # type: ignore[misc]
            await until(lambda: all_ended(db), "all jobs have ended", PATIENCE_S)
    await every_effect_once(db, ids)


@pytest.mark.parametrize("loss", [Loss.CUT_AFTER, Loss.SILENT_AFTER])
async def test_claims_whose_answer_is_lost_are_let_go_and_made_again(db: Database, dsn: str, loss: Loss) -> None:
    await tell(db, EFFECT)
    ids = await put(db, 400, max_retries=100)
    async with behind(dsn) as (proxy, through):
        proxy.loss = loss
        async with effects(through):
            for _ in range(3):
                proxy.lose_answer_of, before = NODE, proxy.lost
                await until(lambda before=before: proxy.lost > before, "an answer is lost", PATIENCE_S)  # type: ignore[misc]
            await until(lambda: all_ended(db), "all jobs have ended", PATIENCE_S)
    await every_effect_once(db, ids)
    assert await ask(db, "select max(retry_count) from imports.batch_processing_queue") == 0, "nobody's failure"


async def test_an_import_goes_on_from_its_last_page_after_each_way_of_falling_silent(db: Database, dsn: str) -> None:
    source = Members([member(n) for n in range(400)])

    async def opened(job: Job) -> Source:
        return source

    (number,) = await put(db, audience_id=7, max_retries=100)
    async with behind(dsn) as (proxy, through):
        step = MemberImport(through, Bus(through, node="through"), SystemClock(), opened).step
        async with working(through, step, TERMS):
            for way in (proxy.half_open, proxy.stall, proxy.half_open):
                seen = await pages(db, number)
                await until(lambda seen=seen: more_pages(db, number, seen), "pages are stored", PATIENCE_S)  # type: ignore[misc]
                way()
                if not proxy.flowing.is_set():
                    await asyncio.sleep(2 * LIMIT_S)  # Long enough that whoever waits has given up.
                    proxy.flow()
            await until(lambda: all_ended(db), "the import has ended", PATIENCE_S)
    assert await statuses(db) == {"completed": 1}
    assert await ask(db, "select count(*) from imports.contacts where audience_id = 7") == 400
    row = await ask(db, "select row(pages, seen, imported) from imports.batch_processing_queue where id = $1", number)
    assert tuple(row) == (40, 400, 400)


async def pages(db: Database, number: int) -> int:
    return int(await ask(db, "select pages from imports.batch_processing_queue where id = $1", number))


async def more_pages(db: Database, number: int, than: int) -> bool:
    return await pages(db, number) > than or await all_ended(db)
