"""One embedded PostgreSQL for the whole run, and a new database for each test that asks for one.

All migrations are applied once, to a template; a test's database is a copy of it. The server is started without an
event loop, so that no test's loop owns it; what has to be said to it is said from a thread with a loop of its own.
"""

import asyncio
import itertools
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path

import asyncpg
import hypothesis
import pytest
import pytest_asyncio

from server.edge.clock import SystemClock
from server.edge.embedded import EmbeddedPostgres
from server.edge.postgres import Database, migrate

# A test's database is thrown away: it may be lost in a power cut, and it is small.
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "shared_buffers": "64MB"}
TEMPLATE = "batchcast_template"
MEMORY = "/dev/shm"
ROOM_BYTES = 2 << 30

numbers = itertools.count(1)

# No test judges how long something took: a busy machine is no bug.
hypothesis.settings.register_profile("batchcast", deadline=None)
hypothesis.settings.load_profile("batchcast")


def run_apart(coroutine: Coroutine[object, object, None]) -> None:
    """Run it to its end in another thread: pytest's own event loop may be running in this one."""
    errors: list[BaseException] = []

    def body() -> None:
        try:
            asyncio.run(coroutine)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


def short_folder(parent: str = "/tmp") -> Path:
    """A folder that any account may enter (pytest's own are closed) and whose path is short enough for a socket."""
    folder = Path(tempfile.mkdtemp(prefix="batchcast-test-", dir=parent))
    folder.chmod(0o711)
    return folder


def in_memory() -> str:
    """Where files lie in memory, if there is room: a database is copied in a tenth of the time there."""
    try:
        return MEMORY if shutil.disk_usage(MEMORY).free >= ROOM_BYTES else "/tmp"
    except OSError:
        return "/tmp"


def named(dsn: str, database: str) -> str:
    """The same server, another database."""
    return dsn.replace("@/postgres?", f"@/{database}?")


async def tell(dsn: str, sql: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


async def migrated(dsn: str) -> None:
    db = await Database.open(dsn, clock=SystemClock())
    try:
        await migrate(db)
    finally:
        await db.close()


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """An empty folder to use as DATA_DIR, which the account that runs PostgreSQL may enter."""
    folder = short_folder()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """The DSN of the run's own PostgreSQL."""
    folder = short_folder(in_memory())
    server = EmbeddedPostgres(folder, settings=FAST)
    try:
        yield server.start_now()
    finally:
        server.stop_now()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def template(cluster: str) -> str:
    """The name of a database with all migrations applied, to make others from."""
    run_apart(tell(cluster, f"create database {TEMPLATE}"))
    run_apart(migrated(named(cluster, TEMPLATE)))
    return TEMPLATE


@pytest.fixture
def new_database(cluster: str) -> Iterator[Callable[[str], str]]:
    """Makes databases from a template of that name and returns their DSNs; all are dropped after the test."""
    made: list[str] = []

    def make(source: str) -> str:
        name = f"test_{next(numbers)}"
        # Copied file by file: by way of the log, which is the default, takes eight times as long.
        run_apart(tell(cluster, f"create database {name} template {source} strategy file_copy"))
        made.append(name)
        return named(cluster, name)

    yield make
    for name in made:
        run_apart(tell(cluster, f"drop database if exists {name} with (force)"))


@pytest.fixture
def dsn(template: str, new_database: Callable[[str], str]) -> str:
    """A database of this test's own, with the whole schema and no rows."""
    return new_database(template)


@pytest.fixture
def empty_dsn(new_database: Callable[[str], str]) -> str:
    """A database of this test's own, without a schema."""
    return new_database("template1")


@pytest_asyncio.fixture
async def db(dsn: str) -> AsyncIterator[Database]:
    """The same database, opened."""
    database = await Database.open(dsn, clock=SystemClock())
    yield database
    await database.close()
