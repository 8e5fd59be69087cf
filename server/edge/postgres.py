"""Connections to PostgreSQL that say in one way when it is away, and the migrations.

`Database` is a pool. Whatever goes wrong with the world (no server, a connection cut, no free connection, a statement
that takes too long, a full disk) leaves its context managers as `Unavailable` with a sentence and a time after which
to come back; what is our own fault (wrong SQL, a constraint) passes unchanged. So inside them stand statements and
nothing else: an OSError of another origin would be taken for PostgreSQL's. A transaction whose COMMIT is cut off may
have happened: whoever repeats it must be idempotent.

`up` is the last that was seen. It changes, and one line is logged, when a connection in use is lost or cannot be made
("postgres lost") and when the next one works ("postgres back"). Many callers notice one loss, some of them late: each
notes the epoch (the count of changes) in which it began, and news from an earlier epoch changes nothing. Nobody has to
reconnect: after a loss no pooled connection is used again, and the next caller makes a new one.

`migrate` brings the schema up to date: numbered files, forward only, each in a transaction of its own, one migrator at
a time. A database that a newer program has migrated is refused, and so is a user that lacks a right (rights.py).
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, cast

import asyncpg
import structlog

from server.edge.clock import Clock
from server.edge.rights import rights
from server.errors import Code, StartRefused, Unavailable

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
Pooled: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"

SCHEMA = Path(__file__).parent / "schema"

# PostgreSQL cancels a statement of ours after this long; when even that answer is missing, asyncpg gives up on it.
STATEMENT_LIMIT_S = 30.0
ANSWER_LIMIT_S = 35.0
# A caller that gets no connection within this time is told that all are busy, or that PostgreSQL is away.
ACQUIRE_LIMIT_S = 5.0
CONNECT_LIMIT_S = 5.0
CLOSE_LIMIT_S = 10.0
# Of whom PostgreSQL hears nothing for so long, its session ends: a host that vanished, a network that forgot the connection.
# Ours notice the same by ANSWER_LIMIT_S. On a Unix socket it means nothing.
SILENCE_S = 60
OPEN_ATTEMPTS = 20
OPEN_PAUSE_S = 0.25
SESSION = {
    "application_name": "batchcast",
    "timezone": "UTC",
    "tcp_keepalives_idle": f"{SILENCE_S // 2}",
    "tcp_keepalives_interval": f"{SILENCE_S // 6}",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": f"{SILENCE_S * 1000}",
}
# Any number that nothing else in this database locks.
MIGRATION_LOCK = 7_238_114_001

# Everything that may be the world's fault; `trouble` decides. TimeoutError is an OSError.
WORLD = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.IdleInTransactionSessionTimeoutError,
)
# How asyncpg says, with the exception classes of wrong use, that a connection or the pool has gone under its user. State 2
# is its reading of an error that nobody asked for: the last words of a backend whose postmaster was killed.
GONE = re.compile(r"is clos|was closed|released back to the pool|another operation \(2\) is in progress")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Trouble:
    """What to tell the caller, and whether it means that PostgreSQL is away."""

    message: str
    retry_after_s: float
    lost: bool


LOST = Trouble("the database cannot be reached just now; the server connects again by itself", 1.0, lost=True)
BUSY = Trouble("all database connections are busy", 1.0, lost=False)
SLOW = Trouble(f"the database did not answer within {STATEMENT_LIMIT_S:.0f} s", 2.0, lost=False)
FULL = Trouble("the disk of the database is full: reads are served, writes wait for space", 10.0, lost=False)


def trouble(error: BaseException) -> Trouble | None:
    """What the world did to us; None when the error is our own."""
    match error:
        case asyncpg.DiskFullError():
            return FULL
        case asyncpg.InsufficientResourcesError():
            return BUSY
        case asyncpg.QueryCanceledError() | TimeoutError():
            return SLOW
        case asyncpg.InterfaceError() | asyncpg.InternalClientError():
            return LOST if GONE.search(str(error)) else None
        case _:
            return LOST if isinstance(error, WORLD) else None


class Parting(asyncpg.Connection):
    """A connection that does not complain when PostgreSQL has gone before it says goodbye.

    The pool closes what it does not use again in tasks that nobody waits for.
    """

    async def close(self, *, timeout: float | None = None) -> None:
        with suppress(*WORLD):
            await super().close(timeout=timeout)


class Database:
    """A pool of connections that outlives losses of PostgreSQL."""

    def __init__(self, dsn: str, pool_size: int, clock: Clock) -> None:
        self.dsn = dsn
        self.up = True
        self._clock = clock
        self._epoch = 0
        self._closed = False
        self._pool: Pool = asyncpg.create_pool(
            dsn,
            min_size=0,
            max_size=pool_size,
            timeout=CONNECT_LIMIT_S,
            command_timeout=ANSWER_LIMIT_S,
            server_settings={**SESSION, "statement_timeout": f"{STATEMENT_LIMIT_S:.0f}s"},
            reset=_nothing,
            connection_class=Parting,
        )

    @classmethod
    async def open(cls, dsn: str, *, pool_size: int = 8, clock: Clock) -> "Database":
        """Connect, with some patience for a server that is still starting; Unavailable when it stays away."""
        try:
            db = cls(dsn, pool_size, clock)
            await db._pool
            await db._first_contact()
        except (asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
            raise StartRefused(f"the database refused the connection: {error}. Check DATABASE_URL.") from error
        return db

    @asynccontextmanager
    async def transaction(self, opening: str = "") -> AsyncIterator[Connection]:
        """A connection in a transaction: committed when the body ends well, else rolled back.

        `opening`: statements that it begins with, without values; they cost no round trip of their own."""
        async with self.connection() as connection:
            if not opening:
                async with connection.transaction():
                    yield connection
                return
            await connection.execute(f"begin;{opening}")
            try:
                yield connection
            except BaseException:
                await connection.execute("rollback")
                raise
            await connection.execute("commit")

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection, back in the pool afterwards."""
        epoch = self._epoch
        connection = await self._take(epoch)
        try:
            with self._translated(epoch):
                yield connection
        finally:
            await self._give_back(connection, epoch)

    async def dedicated(self, answer_limit_s: float | None = None) -> Connection:
        """A connection of the caller's own, which it closes; unless told, nothing limits the time of its statements."""
        epoch = self._epoch
        with self._translated(epoch):
            connection = await asyncpg.connect(
                self.dsn, timeout=CONNECT_LIMIT_S, command_timeout=answer_limit_s, server_settings=SESSION
            )
        self._came_back(epoch)
        return connection

    @contextmanager
    def translated(self) -> Iterator[None]:
        """For statements on a dedicated connection: what the world does to them becomes Unavailable here too."""
        with self._translated(self._epoch):
            yield

    async def close(self) -> None:
        """Close all connections; those still in use after a while are cut."""
        self._closed = True
        try:
            async with asyncio.timeout(CLOSE_LIMIT_S):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    async def _first_contact(self) -> None:
        for attempt in range(1, OPEN_ATTEMPTS + 1):
            try:
                async with self.connection():
                    return
            except Unavailable:
                if attempt == OPEN_ATTEMPTS:
                    await self.close()
                    raise
            await self._clock.sleep(OPEN_PAUSE_S)

    async def _take(self, epoch: int) -> Connection:
        if self._closed:
            raise Unavailable("the server is shutting down", code=Code.SHUTTING_DOWN)
        with self._translated(epoch):
            if not self.up:
                await self._pool.expire_connections()
            proxy = await self._acquire(epoch)
        connection = cast(Connection, proxy)  # it stands in for one, method by method
        if not self.up:
            await self._prove(connection, epoch)
        return connection

    async def _acquire(self, epoch: int) -> Pooled:
        try:
            return await self._pool.acquire(timeout=ACQUIRE_LIMIT_S)
        except TimeoutError as error:
            raise self._unavailable(BUSY if self._exhausted() else LOST, error, epoch) from error

    def _exhausted(self) -> bool:
        return self._pool.get_size() >= self._pool.get_max_size() and self._pool.get_idle_size() == 0

    async def _prove(self, connection: Connection, epoch: int) -> None:
        """While PostgreSQL counts as lost, a connection must work before it is believed."""
        try:
            with self._translated(epoch):
                await connection.execute("select 1", timeout=ACQUIRE_LIMIT_S)
        except BaseException:
            await self._give_back(connection, epoch)
            raise
        self._came_back(epoch)

    async def _give_back(self, connection: Connection, epoch: int) -> None:
        """A connection that breaks while it is returned is not the caller's trouble: the work is done."""
        with suppress(Unavailable), self._translated(epoch):
            await self._pool.release(cast(Pooled, connection))

    @contextmanager
    def _translated(self, epoch: int) -> Iterator[None]:
        try:
            yield
        except WORLD as error:
            what = trouble(error)
            if what is None:
                raise
            raise self._unavailable(what, error, epoch) from error

    def _unavailable(self, what: Trouble, error: BaseException, epoch: int) -> Unavailable:
        if what.lost:
            self._went_away(epoch, error)
        return Unavailable(what.message, what.retry_after_s)

    def _went_away(self, epoch: int, error: BaseException) -> None:
        if not self.up or epoch != self._epoch or self._closed:
            return
        self.up = False
        self._epoch += 1
        log.error("postgres lost", error=str(error) or type(error).__name__)

    def _came_back(self, epoch: int) -> None:
        if self.up or epoch != self._epoch:
            return
        self.up = True
        self._epoch += 1
        log.info("postgres back")


async def _nothing(connection: object) -> None:
    """What is set on a pooled connection is set for one transaction, so there is nothing to reset, and no round trip for it;
    an open transaction is rolled back all the same."""


# Migrations


@dataclass(frozen=True, slots=True)
class Migration:
    """One file NNNN_name.sql."""

    number: int
    name: str
    sql: str


LEDGER = """
create schema if not exists ops;
create table if not exists ops.migration (
    number integer primary key,
    name text not null,
    applied_at timestamptz not null default now()
);
"""


async def migrate(db: Database, directory: Path = SCHEMA) -> list[int]:
    """Apply what is missing, in order; returns the numbers applied now. Another migrator is waited for."""
    migrations = read_migrations(directory)
    connection = await db.dedicated()
    try:
        with db.translated():
            await _refuse_without_rights(connection)
            await connection.execute("select pg_advisory_lock($1)", MIGRATION_LOCK)
            return await _apply_missing(connection, migrations)
    finally:
        await connection.close(timeout=CLOSE_LIMIT_S)


async def _refuse_without_rights(connection: Connection) -> None:
    """What is missing is said at the start, all of it at once, and not by whichever statement comes to need it."""
    found = await rights(connection)
    if found.lacks:
        remedy = f" Have an administrator run: {found.remedy}" if found.remedy else ""
        raise StartRefused(f"{'; '.join(found.lacks)}.{remedy}")


def read_migrations(directory: Path) -> list[Migration]:
    """The files of a directory in the order of their numbers, of which each is used once."""
    found = []
    for path in sorted(directory.glob("*.sql")):
        number, _, name = path.stem.partition("_")
        assert re.fullmatch(r"\d{4}", number), f"{path} is not named NNNN_name.sql"
        found.append(Migration(int(number), name, path.read_text()))
    numbers = [migration.number for migration in found]
    assert len(set(numbers)) == len(numbers), f"two migrations in {directory} have the same number: {numbers}"
    return found


async def _apply_missing(connection: Connection, migrations: list[Migration]) -> list[int]:
    applied = await _applied(connection, migrations)
    missing = [migration for migration in migrations if migration.number not in applied]
    for migration in missing:
        await _apply(connection, migration)
    return [migration.number for migration in missing]


async def _applied(connection: Connection, migrations: list[Migration]) -> set[int]:
    await connection.execute(LEDGER)
    applied = {row["number"] for row in await connection.fetch("select number from ops.migration")}
    newest = max((migration.number for migration in migrations), default=0)
    if max(applied, default=0) > newest:
        raise StartRefused(
            f"this database was made by a newer batchcast (migration {max(applied)}, this program knows {newest}). "
            "Start the newer version, or restore a backup from before it."
        )
    return applied


async def _apply(connection: Connection, migration: Migration) -> None:
    try:
        async with connection.transaction():
            await connection.execute(migration.sql)
            await connection.execute(
                "insert into ops.migration (number, name) values ($1, $2)", migration.number, migration.name
            )
    except asyncpg.PostgresError as error:
        if trouble(error) is not None:
            raise
        raise StartRefused(
            f"migration {migration.number:04}_{migration.name}.sql failed and was rolled back: {error}"
        ) from error
    log.info("migration applied", number=migration.number, name=migration.name)
