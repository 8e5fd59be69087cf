"""The SQL of several servers over one database: reading after each other, who is there, the flushes that all take part in."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

import asyncpg

from server.batching.scores.plan import Tally

KEEP_ROUNDS: Final = 100
"""Flushes of which is remembered how they went; a request is answered long before."""
DEAD_S: Final = 6.0
"""A server whose row was not renewed for so long is not counted among those that are there."""
FORGET_S: Final = 60.0
LOCK: Final = 0x6263_0003
BUCKETS: Final = 1024
"""Locks for ids that do not exist yet: few enough for PostgreSQL's table of locks, however many ids a transaction names."""

_TALLY: Final = "event_id, scan, save, rsvp, pub_scan, pub_save, pub_rsvp, version, high"
TALLIES: Final = f"select {_TALLY} from feed.counters where event_id = any($1::text[])"  # noqa: S608  names are ours
PAGE: Final = f"select {_TALLY} from feed.counters where event_id > $1 order by event_id limit $2"  # noqa: S608  names are ours
ABSENT: Final = """
select asked.id from unnest($1::text[]) as asked (id)
where not exists (select from feed.counters c where c.event_id = asked.id)"""
# The locks are taken in the order of their numbers, so that two transactions never wait for each other.
RESERVE: Final = f"""
select pg_advisory_xact_lock({LOCK}, bucket) from (
    select distinct (hashtext(asked.id) & {BUCKETS - 1}) as bucket from unnest($1::text[]) as asked (id) order by bucket
    offset 0
) as buckets"""  # noqa: S608  numbers of ours

RENEW: Final = """
with mine as (
    insert into feed.node as n (node, leads, registered_users, users_updated, moved, lag_ms, next_batch_ms)
    values ($1, $2, $3, $4, $5, $6, $7)
    on conflict (node) do update set seen_at = clock_timestamp(), leads = $2, registered_users = $3, users_updated = $4,
        moved = $5, lag_ms = $6, next_batch_ms = $7
), gone as (
    delete from feed.node where seen_at < clock_timestamp() - make_interval(secs => $8) and node <> $1
)
select 1"""
LIVING: Final = """
select node, leads, registered_users, users_updated, moved, lag_ms, next_batch_ms,
    floor(extract(epoch from seen_at) * 1000)::bigint as seen_ms
from feed.node where seen_at > clock_timestamp() - make_interval(secs => $1) order by node"""
NOW: Final = "select floor(extract(epoch from clock_timestamp()) * 1000)::bigint"
LEAVE: Final = "delete from feed.node where node = $1"

BEGIN: Final = "update feed.round set number = number + 1 returning number, asked"
ASK: Final = "update feed.round set asked = asked + 1 returning asked"
UNSERVED: Final = "select asked > coalesce((select max(f.asked) from feed.flush f), 0) from feed.round"
FLUSHED: Final = "insert into feed.flush (number, asked, node, events, failed) values ($1, $2, $3, $4, $5)"
FORGET_FLUSHES: Final = "delete from feed.flush where number < $1"
WALKED: Final = """
insert into feed.walk (number, node, frames, deferred, seconds)
select f.number, $2::text, $3::bigint, $4::bigint, $5::float8 from feed.flush f where f.number = $1
on conflict do nothing"""
SERVED: Final = "select number, events, failed from feed.flush where asked >= $1 order by number limit 1"
# Who missed this one because it was late has walked a later one, which covers it.
WALKS: Final = """
select distinct on (node) node, frames, deferred, seconds from feed.walk where number >= $1 order by node, number"""


@dataclass(frozen=True, slots=True)
class Node:
    """A server, as its row says."""

    node: str
    leads: bool
    registered_users: int
    users_updated: int
    moved: int
    lag_ms: int
    next_batch_ms: int | None
    seen_ms: int


@dataclass(frozen=True, slots=True)
class Walked:
    """One server's walk over its viewers in a flush."""

    node: str
    frames: int
    deferred: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Flushed:
    """What a flush published, and who has walked by now."""

    number: int
    events: int
    failed: int
    walks: tuple[Walked, ...]


def _tallies(records: Sequence[asyncpg.Record]) -> dict[str, Tally]:
    return {r[0]: Tally(tuple(r[1:4]), tuple(r[4:7]), r[7], r[8]) for r in records}


async def tallies(connection: asyncpg.Connection, ids: Collection[str]) -> dict[str, Tally]:
    """The narrow halves of these events, of those that there are."""
    return _tallies(await connection.fetch(TALLIES, list(ids)))


async def page_of_tallies(connection: asyncpg.Connection, after: str, limit: int) -> dict[str, Tally]:
    """The next so many, in the database's order of ids."""
    return _tallies(await connection.fetch(PAGE, after, limit))


async def absent(connection: asyncpg.Connection, ids: Collection[str]) -> list[str]:
    """Those of these ids that no event has."""
    return [r[0] for r in await connection.fetch(ABSENT, list(ids))]


async def reserve(connection: asyncpg.Connection, ids: Collection[str]) -> frozenset[str]:
    """Have nobody else create those of these events that there are not, before this transaction ends; answers with their ids. To
    be called before rows are locked.

    A row that isn't there can't be locked: two servers that create one id at once would each draw a version, and the lower
    one might be written last."""
    new = await absent(connection, ids) if ids else []
    if new:
        await connection.execute(RESERVE, new)
    return frozenset(new)


async def renew(connection: asyncpg.Connection, node: Node) -> int:
    """Say that this server is there and how it is, forget those long gone; returns the database's time (ms)."""
    await connection.execute(
        RENEW,
        node.node,
        node.leads,
        node.registered_users,
        node.users_updated,
        node.moved,
        node.lag_ms,
        node.next_batch_ms,
        FORGET_S,
    )
    return int(await connection.fetchval(NOW))


async def living(connection: asyncpg.Connection) -> list[Node]:
    """The servers that are there."""
    return [Node(**dict(record)) for record in await connection.fetch(LIVING, DEAD_S)]


async def leave(connection: asyncpg.Connection, node: str) -> None:
    """This server is no more."""
    await connection.execute(LEAVE, node)


async def begin(connection: asyncpg.Connection) -> tuple[int, int]:
    """The number of a new flush, and how many requests it serves."""
    row = await connection.fetchrow(BEGIN)
    assert row is not None, "the row of feed.round was removed by hand"
    return row["number"], row["asked"]


async def ask(connection: asyncpg.Connection) -> int:
    """Ask for a flush; the number of the request."""
    return int(await connection.fetchval(ASK))


async def unserved(connection: asyncpg.Connection) -> bool:
    """Is there a request that no flush has served?"""
    return bool(await connection.fetchval(UNSERVED))


async def flushed(connection: asyncpg.Connection, number: int, asked: int, node: str, events: int, failed: int) -> None:
    """All that a flush publishes is published."""
    await connection.execute(FORGET_FLUSHES, number - KEEP_ROUNDS)
    await connection.execute(FLUSHED, number, asked, node, events, failed)


async def walked(connection: asyncpg.Connection, number: int, walk: Walked) -> None:
    """One server has told all its viewers."""
    await connection.execute(WALKED, number, walk.node, walk.frames, walk.deferred, walk.seconds)


async def served(connection: asyncpg.Connection, asked: int) -> Flushed | None:
    """The flush that served a request, if there was one yet."""
    row = await connection.fetchrow(SERVED, asked)
    if row is None:
        return None
    walks = tuple(Walked(*record) for record in await connection.fetch(WALKS, row["number"]))
    return Flushed(row["number"], row["events"], row["failed"], walks)
