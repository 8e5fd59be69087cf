"""`Database` against a real PostgreSQL that is away, busy, slow or full, and migrations that race, fail and are newer."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
import uvloop
from structlog.testing import capture_logs

from server.edge import postgres
from server.edge.clock import SystemClock, VirtualClock
from server.edge.postgres import Database, migrate
from server.errors import Code, StartRefused, Unavailable
from tests.conftest import run_apart

KILL_OTHERS = """
select pg_terminate_backend(pid) from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid()
"""


@asynccontextmanager
async def opened(dsn: str, pool_size: int = 8) -> AsyncIterator[Database]:
    database = await Database.open(dsn, pool_size=pool_size, clock=SystemClock())
    try:
        yield database
    finally:
        await database.close()


async def ask(database: Database, sql: str) -> object:
    async with database.connection() as connection:
        return await connection.fetchval(sql)


async def cut_all(dsn: str) -> None:
    """Cut every other connection to this database, as an administrator or a failing network would."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(KILL_OTHERS)
    finally:
        await connection.close()


def heard(logs: Sequence[Mapping[str, object]]) -> list[object]:
    return [line["event"] for line in logs if str(line["event"]).startswith("postgres ")]


async def test_a_transaction_is_kept_when_its_body_ends_well_and_undone_when_it_does_not(db: Database) -> None:
    async with db.transaction() as connection:
        await connection.execute("create table kept (number int)")
    with pytest.raises(KeyError):
        async with db.transaction() as connection:
            await connection.execute("insert into kept values (1)")
            raise KeyError("a bug of the caller")
    assert await ask(db, "select count(*) from kept") == 0


async def test_a_transaction_may_begin_with_statements_that_hold_until_its_end(dsn: str) -> None:
    role = "select current_setting('batchcast.who', true)"
    async with opened(dsn, pool_size=1) as database:
        async with database.transaction("set local batchcast.who = 'ada'") as connection:
            assert await connection.fetchval(role) == "ada"
            await connection.execute("create table kept (n int)")
        with pytest.raises(ZeroDivisionError):
            async with database.transaction("set local batchcast.who = 'eve'") as connection:
                await connection.execute("create table undone (n int)")
                raise ZeroDivisionError
        with pytest.raises(asyncpg.UndefinedTableError):
            async with database.transaction("set local batchcast.who = 'eve'") as connection:
                await connection.execute("select * from undone")
        assert not await ask(database, role), "what is set goes with its transaction"
        assert await ask(database, "select to_regclass('kept') is not null and to_regclass('undone') is null")


async def test_a_transaction_that_begins_with_statements_is_undone_when_its_task_is_cancelled(dsn: str) -> None:
    async with opened(dsn, pool_size=1) as database:
        begun = asyncio.Event()

        async def work() -> None:
            async with database.transaction("set local batchcast.who = 'eve'") as connection:
                await connection.execute("create table undone (n int)")
                begun.set()
                await connection.execute("select pg_sleep(3600)")

        task = asyncio.ensure_future(work())
        await begun.wait()
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        assert await ask(database, "select to_regclass('undone') is null")


async def test_our_own_mistakes_pass_unchanged(db: Database) -> None:
    with pytest.raises(asyncpg.UndefinedTableError):
        await ask(db, "select * from nowhere")
    with pytest.raises(asyncpg.UniqueViolationError):
        async with db.transaction() as connection:
            await connection.execute("create table once (number int unique)")
            await connection.execute("insert into once values (1), (1)")
    with pytest.raises(asyncpg.InterfaceError, match="another operation is in progress"):
        async with db.connection() as connection:
            await asyncio.gather(*(connection.execute("select pg_sleep(0.1)") for _ in range(2)))
    assert db.up


async def test_a_cut_connection_is_unavailable_and_the_next_one_works(dsn: str, db: Database) -> None:
    with pytest.raises(Unavailable) as caught:
        async with db.transaction() as connection:
            await connection.execute("select 1")
            await cut_all(dsn)
            await connection.execute("select 1")
    assert caught.value.retry_after_s > 0
    assert not db.up
    assert await ask(db, "select 1") == 1
    assert db.up


async def test_a_connection_that_is_cut_while_it_waits_for_its_answer_is_unavailable(dsn: str, db: Database) -> None:
    async with db.connection() as connection:
        asleep = asyncio.ensure_future(connection.execute("select pg_sleep(600)"))
        await cut_all(dsn)
        with pytest.raises(asyncpg.PostgresError) as raw:
            await asleep
    assert postgres.trouble(raw.value) is postgres.LOST
    assert await ask(db, "select 1") == 1


async def test_many_who_lose_their_connections_are_one_line_in_the_log(dsn: str, db: Database) -> None:
    ready, cut = asyncio.Barrier(6), asyncio.Event()

    async def work() -> None:
        with pytest.raises(Unavailable):
            async with db.connection() as connection:
                await ready.wait()
                await cut.wait()
                await connection.execute("select 1")
                raise AssertionError("the connection should have been cut")

    with capture_logs() as logs:
        workers = asyncio.gather(*(work() for _ in range(5)))
        await ready.wait()
        await cut_all(dsn)
        cut.set()
        await workers
        assert [await ask(db, "select 1") for _ in range(3)] == [1, 1, 1]
    assert heard(logs) == ["postgres lost", "postgres back"]


async def test_late_news_of_an_old_loss_does_not_count_as_a_new_one(dsn: str, db: Database) -> None:
    with capture_logs() as logs, pytest.raises(Unavailable):
        async with db.connection() as late:
            await cut_all(dsn)
            with pytest.raises(Unavailable):
                async with db.connection() as early:
                    await cut_all(dsn)
                    await early.execute("select 1")
            assert await ask(db, "select 1") == 1
            await late.execute("select 1")
    assert heard(logs) == ["postgres lost", "postgres back"]
    assert db.up


async def test_after_a_loss_no_connection_from_before_is_used_again(dsn: str, db: Database) -> None:
    async with db.connection() as one, db.connection() as other:
        before = {await connection.fetchval("select pg_backend_pid()") for connection in (one, other)}
    with pytest.raises(Unavailable):
        async with db.connection() as connection:
            await connection.execute("select pg_terminate_backend(pg_backend_pid())")
    assert await ask(db, "select pg_backend_pid()") not in before


def test_a_connection_that_is_not_used_again_says_goodbye_to_nobody_without_a_complaint(dsn: str) -> None:
    complaints: list[object] = []

    async def body() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        async with opened(dsn, pool_size=1) as database:
            await ask(database, "select 1")
            run_apart(cut_all(dsn))  # This loop has not seen it yet.
            await database._pool.expire_connections()
            assert await ask(database, "select 1") == 1
            gc.collect()  # An error that nobody has asked for is told when it is thrown away.

    uvloop.run(body())
    assert not complaints


async def test_a_connection_cut_after_the_work_was_done_does_not_undo_the_answer(dsn: str, db: Database) -> None:
    async with db.connection() as connection:
        answer = await connection.fetchval("select 1")
        await cut_all(dsn)
    assert answer == 1

    async def answers() -> bool:
        try:
            return bool(await ask(db, "select 2") == 2)
        except Unavailable:
            return False  # It was not seen yet that the connection is gone; whoever asks again gets another one.

    async with asyncio.timeout(30):
        while not await answers():
            await asyncio.sleep(0)


async def test_a_statement_that_takes_too_long_is_unavailable_but_postgres_is_not_lost(db: Database) -> None:
    with pytest.raises(Unavailable, match="did not answer"):
        async with db.transaction() as connection:
            await connection.execute("set local statement_timeout = '10ms'")
            await connection.execute("select pg_sleep(600)")
    assert db.up


async def test_every_statement_of_the_pool_has_a_time_limit_and_utc(db: Database) -> None:
    assert await ask(db, "show statement_timeout") == "30s"
    assert await ask(db, "show timezone") == "UTC"


async def test_a_full_disk_is_told_as_such(db: Database) -> None:
    with pytest.raises(Unavailable, match="disk of the database is full") as caught:
        async with db.transaction() as connection:
            await connection.execute("do $$ begin raise exception 'no space left' using errcode = 'disk_full'; end $$")
    assert caught.value.retry_after_s >= 5
    assert db.up


async def test_who_finds_all_connections_in_use_is_told_so(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "ACQUIRE_LIMIT_S", 0.05)
    async with opened(dsn, pool_size=1) as database, database.connection():
        with pytest.raises(Unavailable, match="busy"):
            await ask(database, "select 1")
        assert database.up


async def test_a_cancelled_statement_leaves_its_connection_usable(dsn: str) -> None:
    async with opened(dsn, pool_size=1) as database:
        asleep = asyncio.ensure_future(ask(database, "select pg_sleep(600)"))
        async with asyncio.timeout(60):
            while not await running(dsn, "select pg_sleep(600)"):
                await asyncio.sleep(0.01)
        asleep.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asleep
        assert await ask(database, "select 1") == 1
        assert database.up


async def running(dsn: str, sql: str) -> bool:
    connection = await asyncpg.connect(dsn)
    try:
        found = await connection.fetchval(
            "select count(*) from pg_stat_activity where query = $1 and state = 'active' and datname = current_database()",
            sql,
        )
    finally:
        await connection.close()
    return bool(found)


async def test_open_waits_for_a_server_that_is_away_and_then_gives_up(tmp_path: Path) -> None:
    clock = VirtualClock()
    opening = asyncio.ensure_future(Database.open(f"postgresql://nobody@/none?host={tmp_path}", clock=clock))
    with capture_logs() as logs:
        async with asyncio.timeout(60):
            while not opening.done():
                await asyncio.sleep(0.001)
                await clock.advance(postgres.OPEN_PAUSE_S)
    with pytest.raises(Unavailable, match="cannot be reached"):
        await opening
    assert heard(logs) == ["postgres lost"]


async def test_open_says_what_is_wrong_with_an_address_that_can_never_work(cluster: str) -> None:
    with pytest.raises(StartRefused, match=r'"missing" does not exist.*DATABASE_URL'):
        await Database.open(cluster.replace("@/postgres?", "@/missing?"), clock=SystemClock())


async def test_after_the_close_callers_are_told_that_the_server_shuts_down(dsn: str) -> None:
    async with opened(dsn) as database:
        pass
    with pytest.raises(Unavailable) as caught:
        await ask(database, "select 1")
    assert caught.value.code is Code.SHUTTING_DOWN


async def test_a_dedicated_connection_is_outside_of_the_pool_and_without_time_limits(dsn: str) -> None:
    async with opened(dsn, pool_size=1) as database, database.connection():
        mine = await database.dedicated()
        try:
            assert await mine.fetchval("show statement_timeout") == "0"
        finally:
            await mine.close()


# Migrations


def write(directory: Path, **files: str) -> Path:
    for name, sql in files.items():
        (directory / f"{name.lstrip('_')}.sql").write_text(sql)
    return directory


async def applied(database: Database) -> object:
    return await ask(database, "select array_agg(number order by number) from ops.migration")


async def test_migrations_run_in_order_and_once(empty_dsn: str, tmp_path: Path) -> None:
    write(
        tmp_path, _0002_more="alter table t add b int;", _0001_first="create table t (a int); insert into t values (1);"
    )
    async with opened(empty_dsn) as database:
        assert await migrate(database, tmp_path) == [1, 2]
        write(tmp_path, _0003_last="insert into t values (2, 2);")
        assert await migrate(database, tmp_path) == [3]
        assert await migrate(database, tmp_path) == []
        assert await ask(database, "select array_agg(a order by a) from t") == [1, 2]


async def test_two_migrators_at_once_apply_each_file_once(empty_dsn: str, tmp_path: Path) -> None:
    write(
        tmp_path, _0001_first="create table t (a int); select pg_sleep(0.05);", _0002_more="insert into t values (1);"
    )
    async with opened(empty_dsn) as one, opened(empty_dsn) as other:
        done = await asyncio.gather(*(migrate(database, tmp_path) for database in (one, other, one, other)))
        assert sorted(done) == [[], [], [], [1, 2]]
        assert await ask(one, "select count(*) from t") == 1


@pytest.mark.parametrize("mistake", ["select 1/0", "insert into ops.migration values (2, 'entered by itself')"])
async def test_a_migration_that_fails_leaves_nothing_and_is_named(empty_dsn: str, tmp_path: Path, mistake: str) -> None:
    write(tmp_path, _0001_good="create table good (a int);", _0002_bad=f"create table half (a int); {mistake};")
    async with opened(empty_dsn) as database:
        with pytest.raises(StartRefused, match=r"0002_bad\.sql failed and was rolled back: "):
            await migrate(database, tmp_path)
        assert await applied(database) == [1]
        assert await ask(database, "select to_regclass('half')") is None
        write(tmp_path, _0002_bad="create table whole (a int);")
        assert await migrate(database, tmp_path) == [2]


async def test_a_database_that_a_newer_program_has_migrated_is_refused(empty_dsn: str, tmp_path: Path) -> None:
    write(tmp_path, _0001_first="create table t (a int);", _0002_newer="create table u (a int);")
    async with opened(empty_dsn) as database:
        await migrate(database, tmp_path)
        (tmp_path / "0002_newer.sql").unlink()
        with pytest.raises(StartRefused, match=r"made by a newer batchcast \(migration 2, this program knows 1\)"):
            await migrate(database, tmp_path)


async def test_two_files_with_one_number_are_a_mistake_of_ours(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="same number"):
        postgres.read_migrations(write(tmp_path, _0001_one="", _0001_other=""))
    with pytest.raises(AssertionError, match="NNNN_name"):
        postgres.read_migrations(write(tmp_path, _1_short=""))


async def test_the_schema_of_the_program_is_what_every_test_gets(
    db: Database, empty_dsn: str, new_database: Callable[[str], str]
) -> None:
    numbers = [migration.number for migration in postgres.read_migrations(postgres.SCHEMA)]
    assert await applied(db) == numbers
    async with opened(empty_dsn) as database:
        assert await migrate(database) == numbers
