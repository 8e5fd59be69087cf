"""Whose role a transaction takes, and the statements that more than one of the verbs shares.

    async with serving(db) as connection:            batchcast_tiers: the work itself, everything is visible
    async with reading(db, who) as connection:       batchcast_reader: what the public sees, and what is booked by `who`

Days go to and from PostgreSQL as days since 1970-01-01 and instants as seconds since then, as planning has them: a batch is
arrays of numbers, and no row of it becomes a date object on the way.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeAlias, TypeVar

import asyncpg
import orjson

from server.batching.tiers.cities import shipped
from server.batching.tiers.rules import PlanError
from server.edge.logs import redacted
from server.edge.postgres import Connection, Database, trouble
from server.errors import Code, Refused

TOPIC: Final = "tiers"
"""On the bus: ids of runs that have moved on. To followers: their progress."""
PAGE_MOST: Final = 500
"""Rows of one page of anything."""
IDLE_LIMIT_S: Final = 10
"""A process that froze in the middle of a batch holds its people for so long; then PostgreSQL ends its transaction."""

ACT: Final = f"""
select set_config('idle_in_transaction_session_timeout', '{IDLE_LIMIT_S}s', true), set_config('role', $1, true),
    set_config('batchcast.owner', $2, true)"""
# Whatever the statistics say: those of tables that are just being filled are always wrong. Nobody waits for the disk: what a
# crash of PostgreSQL takes away with its last moments are whole batches, whose people then wait as before.
ACT_BY_INDEX: Final = f"{ACT}, set_config('synchronous_commit', 'off', true)" + "".join(
    f", set_config('enable_{plan}', 'off', true)"
    for plan in ("seqscan", "bitmapscan", "hashjoin", "mergejoin", "material", "sort")
)
SERVICE: Final = "batchcast_tiers"
READER: Final = "batchcast_reader"

PUT_CITIES: Final = """
insert into tiers.cities as c (id, name, country, timezone, latitude, longitude)
select * from unnest($1::int[], $2::text[], $3::text[], $4::text[], $5::float8[], $6::float8[])
on conflict (id) do update set name = excluded.name, country = excluded.country, timezone = excluded.timezone,
    latitude = excluded.latitude, longitude = excluded.longitude
where (c.name, c.country, c.timezone, c.latitude, c.longitude)
    is distinct from (excluded.name, excluded.country, excluded.timezone, excluded.latitude, excluded.longitude)"""
STALE: Final = """
update tiers.verifications set stale = true
where not stale and tier::text = any ($1::text[]) and month >= coalesce($2, month)"""


REASON_MOST: Final = 500
"""Longer error texts of items are cut."""

T = TypeVar("T")
Failures: TypeAlias = dict[int, str]
"""By the person's id, why."""


@asynccontextmanager
async def serving(db: Database) -> AsyncIterator[Connection]:
    """A transaction that does the work."""
    async with db.transaction() as connection:
        await act(connection)
        yield connection


@asynccontextmanager
async def batching(db: Database) -> AsyncIterator[Connection]:
    """A transaction that works on a batch of people: all statements look them up one by one, by index."""
    async with db.transaction() as connection:
        await connection.execute(ACT_BY_INDEX, SERVICE, "")
        yield connection


@asynccontextmanager
async def reading(db: Database, user: str | None) -> AsyncIterator[Connection]:
    """A transaction of somebody from outside; None: nobody in particular."""
    async with db.transaction() as connection:
        await connection.execute(ACT, READER, user or "")
        yield connection


async def act(connection: Connection) -> None:
    """Take the service's role for the rest of this transaction."""
    await connection.execute(ACT, SERVICE, "")


async def put_cities(connection: Connection) -> None:
    """The cities that we ship, also when they have changed since."""
    cities = shipped()
    columns = zip(*((c.id, c.name, c.country, c.timezone, c.latitude, c.longitude) for c in cities), strict=True)
    await connection.execute(PUT_CITIES, *map(list, columns))


async def stale(connection: Connection, tiers: Sequence[str], month: object = None) -> None:
    """What was verified of these tiers, in this month and later (None: ever), holds no longer."""
    await connection.execute(STALE, list(tiers), month)


async def apart(
    connection: Connection, some: list[T], write: Callable[[list[T]], Awaitable[None]], id_of: Callable[[T], int]
) -> Failures:
    """Write all at once; where the database refuses that, one by one, so that only who is to blame fails."""
    if not some:
        return {}
    try:
        async with connection.transaction():
            await write(some)
        return {}
    except asyncpg.PostgresError as error:
        if trouble(error) is not None:
            raise
        if len(some) == 1:
            return {id_of(some[0]): told(error)}
    failed: Failures = {}
    for one in some:
        failed |= await apart(connection, [one], write, id_of)
    return failed


def told(error: Exception) -> str:
    """An error as an item has it."""
    words = str(error) if isinstance(error, PlanError) else f"{type(error).__name__}: {error}"
    return redacted(words)[:REASON_MOST]


def turned(width: int, rows: Iterable[tuple[object, ...]]) -> list[list[object]]:
    """Rows of so many values as the columns that unnest takes."""
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(width)]


def numerals(column: Iterable[int | None]) -> str:
    """Whole numbers as the text of an array, null where there is none: of a list asyncpg looks at each element twice."""
    return f"{{{orjson.dumps(list(column))[1:-1].decode()}}}"


def no_person(celebrity: int) -> Refused:
    """There is none."""
    return Refused(Code.NOT_FOUND, f"there is no celebrity {celebrity}, or none that you may see", field="id")
