"""One embedded PostgreSQL for the whole run, and a new database for each test that asks for one.

All migrations are applied once, to a template; a test's database is a copy of it. The server is started without an
event loop, so that no test's loop owns it; what has to be said to it is said from a thread with a loop of its own.

The hot path checks every index here (see compiling.py); servers in processes of their own run it as it is shipped.
"""

import asyncio
import gc
import itertools
import os
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path

import asyncpg
import hypothesis
import pytest
import pytest_asyncio

os.environ.setdefault("NUMBA_BOUNDSCHECK", "1")  # Before Numba is imported.

from server.edge.clock import SystemClock
from server.edge.embedded import EmbeddedPostgres
from server.edge.garbage import settle
from server.edge.postgres import Database, migrate

# A test's database is thrown away: it may be lost in a power cut, and it is small.
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "shared_buffers": "64MB"}
TEMPLATE = "batchcast_template"
MEMORY = "/dev/shm"
ROOM_BYTES = 2 << 30

HERE = Path(__file__).parent
# Folders whose files take long, computing in some and waiting in others.
LONG = ("adversity", "clients", "deploy", "edge", "pages", "wire")
NEXT = "commands"

numbers = itertools.count(1)

# No test judges how long something took: a busy machine is no bug.
hypothesis.settings.register_profile("batchcast", deadline=None)
hypothesis.settings.load_profile("batchcast")


def pytest_sessionstart() -> None:
    """Collecting makes much and drops nothing: looking for garbage meanwhile would be a fifth of it."""
    gc.disable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The order in which files go out to workers: none of them shall be left alone with a long one at the end.

    The long folders are dealt like cards, a file of each in turn, so that what waits runs beside what computes. Then come the
    commands, in a row, as they share a server; then all the others.
    """
    turns: Counter[str] = Counter()
    places: dict[Path, tuple[int, int]] = {}
    for path in dict.fromkeys(item.path for item in items):
        folder = path.relative_to(HERE).parts[0]
        turns[folder] += 1
        places[path] = (0, turns[folder]) if folder in LONG else (1 if folder == NEXT else 2, 0)
    items.sort(key=lambda item: places[item.path])


def pytest_collection_finish() -> None:
    """What has been collected stays, and is not looked at again: thousands of tests and all their modules."""
    settle()
    gc.enable()


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


def short_folder() -> Path:
    """A folder that any account may enter (pytest's own are closed) and whose path is short enough for a socket."""
    folder = Path(tempfile.mkdtemp(prefix="batchcast-test-", dir=in_memory()))
    folder.chmod(0o711)
    return folder


def in_memory() -> str:
    """Where files lie in memory, if there is room: a cluster is made for half the price there, a database in a tenth of the time."""
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
    folder = short_folder()
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
