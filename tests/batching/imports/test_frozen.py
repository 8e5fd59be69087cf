"""A worker that froze in the middle of a statement holds its job's row for a while at most, on every PostgreSQL that serves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from server.batching.imports import claims, frozen
from server.batching.loop import Occasion
from server.edge import cluster_files
from server.edge.clock import SystemClock
from server.edge.embedded import EmbeddedPostgres
from server.edge.postgres import Database, migrate
from tests.adversity.raw_session import RawSession
from tests.batching.imports.world import ask, claim, expire, put, until, worker
from tests.conftest import FAST

OLDEST = Path("/usr/lib/postgresql/15/bin")
OCCASION = Occasion("interval", 1, 0)


@pytest_asyncio.fixture
async def old(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Database]:
    """A database of a PostgreSQL without transaction_timeout."""
    if not (OLDEST / "initdb").exists():
        pytest.skip("PostgreSQL 15 is not installed here")
    monkeypatch.setattr(cluster_files, "_candidates", lambda: iter([(OLDEST, False)]))
    server = EmbeddedPostgres(data_dir, settings=FAST)
    db = await Database.open(server.start_now(), clock=SystemClock())
    try:
        await migrate(db)
        yield db
    finally:
        await db.close()
        server.stop_now()


async def freeze(db: Database) -> RawSession:
    """A worker claims a job, and freezes when its page is written but not yet committed."""
    async with db.connection() as connection:
        number = await worker(connection)
        (held,) = await claim(connection, number)
    session = await RawSession.open(db.dsn)
    await session.say("begin")
    await session.say(claims.ACT)
    await session.begin_to_say(f"update imports.batch_processing_queue set pages = 1 where id = {held.id}")
    await expire(db, number)
    return session


async def rescuable(db: Database) -> int:
    async with db.transaction() as connection:
        await connection.execute(claims.ACT)
        await claims.bury(connection)
        return len(await claims.orphans(connection, 10))


async def test_on_an_old_postgres_its_session_is_ended_by_others_and_its_job_can_be_rescued(
    old: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(old)
    session = await freeze(old)
    assert await frozen.needed(old)
    assert await rescuable(old) == 0, "the row is locked"
    turn = frozen.Thaw(old).turn
    assert (await turn(OCCASION)).done == 0, "not yet"
    monkeypatch.setattr(frozen, "HELD_MOST_S", 0.0)
    assert (await turn(OCCASION)).done == 1
    async with asyncio.timeout(10):
        await session.gone()
    await until(lambda: _is(old, 1))
    assert await ask(old, "select pages from imports.batch_processing_queue") == 0


async def test_a_session_that_has_not_touched_the_queue_or_is_just_at_it_is_left_alone(
    old: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frozen, "HELD_MOST_S", 0.0)
    session = await RawSession.open(old.dsn)
    await session.say("begin")
    await session.begin_to_say("select count(*) from imports.batch_processing_queue")
    async with old.transaction() as busy:
        await busy.execute("update imports.batch_processing_queue set pages = 1")
        assert (await frozen.Thaw(old).turn(OCCASION)).done == 0
        sleeping = asyncio.ensure_future(busy.execute("select pg_sleep(1)"))
        await until(lambda: _sleeps(old))
        assert (await frozen.Thaw(old).turn(OCCASION)).done == 0
        await sleeping
    session.close()


async def test_a_newer_postgres_ends_it_by_itself(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not await frozen.needed(db)
    monkeypatch.setattr(claims, "ACT", claims.ACT.replace("'20s'", "'300ms'"))
    await put(db)
    session = await freeze(db)
    async with asyncio.timeout(10):
        await session.gone()
    await until(lambda: _is(db, 1))


async def _sleeps(db: Database) -> bool:
    return bool(await ask(db, "select exists (select from pg_stat_activity where wait_event = 'PgSleep')"))


async def _is(db: Database, count: int) -> bool:
    return await rescuable(db) == count
