"""The live feed's SQL: one constant and one function per query, rows turned into values at the edge.

Every write of a group happens in one transaction that first locked the rows it names, in id order, so that two writers can't
deadlock and versions of one id only grow.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Final

import asyncpg
import orjson

from server.batching.scores.plan import Group, Row, Tally, tally_of
from server.core import recurrence
from server.core.event import Accepted, Counts, Event, Status
from server.protocol.values import Viewport

FIELDS: Final = tuple(f.name for f in fields(Event) if f.name not in ("counts", "version"))
"""The columns of feed.event, in the order of Event's own fields."""
_VALUES: Final = attrgetter(*FIELDS)
_EVENT: Final = ", ".join(f"e.{name}" for name in FIELDS)
_TALLY: Final = "c.scan, c.save, c.rsvp, c.pub_scan, c.pub_save, c.pub_rsvp, c.version"
_ROW: Final = f"{_EVENT}, {_TALLY}"
_FROM: Final = "from feed.counters c join feed.event e on e.id = c.event_id"

LOCK: Final = f"""
select c.event_id, {_TALLY}, c.high from feed.counters c
where event_id = any($1::text[]) order by event_id for update"""  # noqa: S608  names are ours
READ: Final = f"select {_ROW} {_FROM} where c.event_id = any($1::text[])"
ALL: Final = f"select {_ROW} {_FROM}"
VERSIONS: Final = "select nextval('feed.version') from generate_series(1, $1::int)"
KNOWN: Final = """
select a.sub, a.update_id, a.event_id, a.version
from feed.applied a join unnest($1::text[], $2::text[]) as asked (sub, update_id) using (sub, update_id)"""
REMEMBER: Final = """
insert into feed.applied (sub, update_id, event_id, version, at)
select sub, update_id, event_id, version, to_timestamp($5::float8 / 1000)
from unnest($1::text[], $2::text[], $3::text[], $4::text::bigint[]) as r (sub, update_id, event_id, version)"""
FORGET_EVENTS: Final = "delete from feed.event where id = any($1::text[])"
WRITE_CONTENT: Final = f"""
insert into feed.event ({", ".join(FIELDS)}, last_end_ms)
select {", ".join(FIELDS)}, last_end_ms from jsonb_to_recordset($1::jsonb) as r (
    id text, title text, emoji text, description text, categories text[], latitude float8, longitude float8,
    start_ms bigint, end_ms bigint, timezone text, status text, confidence float8, private boolean, creator_id text,
    shared_with text[], recurrence text, priority text, created_ms bigint, updated_ms bigint, properties text,
    last_end_ms bigint)
order by id
on conflict (id) do update set
    {", ".join(f"{name} = excluded.{name}" for name in [*FIELDS[1:], "last_end_ms"])}"""  # noqa: S608  names are ours
# Numbers travel as the text of an array: asyncpg looks three times at each element of a list before it sends it.
_COUNTS: Final = "$1::text[], $2::text::bigint[], $3::text::bigint[], $4::text::bigint[]"
INSERT_COUNTERS: Final = f"""
insert into feed.counters (event_id, scan, save, rsvp, pub_scan, pub_save, pub_rsvp, version, high)
select * from unnest({_COUNTS}, $5::text::bigint[], $6::text::bigint[], $7::text::bigint[], $8::text::bigint[],
    $9::text::boolean[])
on conflict (event_id) do update set scan = excluded.scan, save = excluded.save, rsvp = excluded.rsvp,
    pub_scan = excluded.pub_scan, pub_save = excluded.pub_save, pub_rsvp = excluded.pub_rsvp,
    version = excluded.version, high = excluded.high
"""  # noqa: S608  names are ours
COUNT: Final = f"""
update feed.counters c set scan = r.scan, save = r.save, rsvp = r.rsvp
from unnest({_COUNTS}) as r (event_id, scan, save, rsvp) where c.event_id = r.event_id"""  # noqa: S608  names are ours
COUNT_AND_PUBLISH: Final = f"""
update feed.counters c set scan = r.scan, save = r.save, rsvp = r.rsvp,
    pub_scan = r.scan, pub_save = r.save, pub_rsvp = r.rsvp, version = r.version
from unnest({_COUNTS}, $5::text::bigint[]) as r (event_id, scan, save, rsvp, version)
where c.event_id = r.event_id"""  # noqa: S608  names are ours
PUBLISH: Final = """
with due as (
    select event_id, version from feed.counters
    where event_id = any($1::text[]) and (pub_scan, pub_save, pub_rsvp) is distinct from (scan, save, rsvp)
    order by event_id for update
)
update feed.counters c set pub_scan = scan, pub_save = save, pub_rsvp = rsvp, version = nextval('feed.version')
from due where c.event_id = due.event_id
returning c.event_id, c.scan, c.save, c.rsvp, c.version, due.version as before"""
WAITING: Final = """
select event_id, scan, save, rsvp from feed.counters
where event_id = any($1::text[]) and (pub_scan, pub_save, pub_rsvp) is distinct from (scan, save, rsvp)"""
NEWEST_VERSION: Final = "select last_value from feed.version"
ACTIVITY: Final = """
select (extract(epoch from date_trunc('hour', started_at, 'UTC')) * 1000)::bigint, sum(done)::bigint
from ops.batch_runs where loop = 'ingest' and started_at >= to_timestamp($1::float8 / 1000) group by 1"""
WATCHED: Final = """
select (extract(epoch from min(started_at)) * 1000)::bigint from ops.batch_runs
where loop in ('ledger', 'ingest') and started_at >= to_timestamp($1::float8 / 1000)"""
ENDED: Final = """
select id from feed.event
where status in ('PENDING', 'VERIFIED') and last_end_ms < $1 order by last_end_ms limit $2"""
OUTLIVED: Final = "select id from feed.event where status = 'EXPIRED' and updated_ms < $1 limit $2"


def event_of(record: asyncpg.Record, counts: Counts) -> Event:
    """An Event of a row that begins with FIELDS and has a version."""
    values = dict(zip(FIELDS, record, strict=False))
    values["categories"] = tuple(values["categories"])
    values["shared_with"] = tuple(values["shared_with"])
    return Event(**values, counts=counts, version=record["version"])


def row_of(record: asyncpg.Record) -> Row:
    """The stored event and the published counters."""
    stored = (record["scan"], record["save"], record["rsvp"])
    return Row(event_of(record, stored), (record["pub_scan"], record["pub_save"], record["pub_rsvp"]))


async def lock(
    connection: asyncpg.Connection, ids: Collection[str], contents: Collection[str] = ()
) -> tuple[dict[str, Tally], dict[str, Event]]:
    """Lock these ids, in id order, until the transaction ends; returns what exists, of `contents` the content too.

    Two statements: one that has waited for a lock sees the counters anew, but what it joins them with as it was before.
    Of an event that another node made in between only the second one knows; it counts."""
    found = await connection.fetch(LOCK, list(ids))
    tallies = {r[0]: Tally(r[1:4], r[4:7], r[7], r[8]) for r in found}
    events: dict[str, Event] = {}
    if contents:
        for record in await connection.fetch(READ, list(contents)):
            row = row_of(record)
            events[row.event.id] = row.event
            tallies[row.event.id] = tally_of(row)
    return tallies, events


async def read_rows(connection: asyncpg.Connection, ids: Iterable[str]) -> dict[str, Row | None]:
    """The rows of these ids, None where there is none; not locked."""
    wanted = sorted(set(ids))
    rows: dict[str, Row | None] = dict.fromkeys(wanted)
    rows.update({r["id"]: row_of(r) for r in await connection.fetch(READ, wanted)})
    return rows


async def all_rows(connection: asyncpg.Connection, page: int = 2000) -> AsyncIterator[Row]:
    """Every event, through a cursor: memory is one page."""
    async with connection.transaction():
        async for record in connection.cursor(ALL, prefetch=page):
            yield row_of(record)


async def draw_versions(connection: asyncpg.Connection, count: int) -> list[int]:
    """New version numbers, growing."""
    if count == 0:
        return []
    return [record[0] for record in await connection.fetch(VERSIONS, count)]


async def known_updates(
    connection: asyncpg.Connection, keys: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], Accepted]:
    """Which of these (sub, update id) were taken before, and what was answered."""
    if not keys:
        return {}
    found = await connection.fetch(KNOWN, [k[0] for k in keys], [k[1] for k in keys])
    return {(r["sub"], r["update_id"]): Accepted(r["event_id"], r["version"]) for r in found}


async def write_group(connection: asyncpg.Connection, group: Group, now_ms: int) -> None:
    """All that a plan wants written."""
    if group.deleted:
        await connection.execute(FORGET_EVENTS, list(group.deleted))
    if group.content:
        await connection.execute(WRITE_CONTENT, _content_json(group.content))
        await connection.execute(INSERT_COUNTERS, *_all_counters(dict(sorted(group.content.items()))))
    if group.counters:
        await _write_counters(connection, group)
    if group.applied:
        subs, updates, events, versions = zip(*group.applied, strict=True)
        await connection.execute(REMEMBER, subs, updates, events, _array(versions), float(now_ms))


async def _write_counters(connection: asyncpg.Connection, group: Group) -> None:
    counts, _, versions, _ = zip(*group.counters.values(), strict=True)
    columns = (list(group.counters), *map(_array, zip(*counts, strict=True)))
    if group.published:
        await connection.execute(COUNT_AND_PUBLISH, *columns, _array(versions))
    else:
        await connection.execute(COUNT, *columns)


def _content_json(rows: Mapping[str, Row]) -> str:
    return orjson.dumps([_content(row.event) for row in rows.values()]).decode()


def _content(event: Event) -> dict[str, object]:
    content = dict(zip(FIELDS, _VALUES(event), strict=True))
    content["last_end_ms"] = recurrence.last_end_ms(event.recurrence, event.start_ms, event.end_ms, event.timezone)
    return content


def _all_counters(rows: Mapping[str, Row]) -> tuple[object, ...]:
    counts, published, versions, high = zip(*map(tally_of, rows.values()), strict=True)
    numbers = (*zip(*counts, strict=True), *zip(*published, strict=True), versions, high)
    return (list(rows), *map(_array, numbers))


def _array(numbers: Iterable[int]) -> str:
    """As PostgreSQL writes an array."""
    return f"{{{','.join(map(str, numbers))}}}"


@dataclass(frozen=True, slots=True)
class Published:
    """An event whose stored counters became the published ones, under a new version."""

    id: str
    counts: Counts
    version: int
    before: int
    """The version that it had."""


async def publish(connection: asyncpg.Connection, ids: Sequence[str]) -> list[Published]:
    """Make stored counters the published ones; ids with nothing pending are left out."""
    found = await connection.fetch(PUBLISH, list(ids))
    return [Published(r["event_id"], (r["scan"], r["save"], r["rsvp"]), r["version"], r["before"]) for r in found]


async def waiting(connection: asyncpg.Connection, ids: Sequence[str]) -> dict[str, Counts]:
    """The stored counters of these events, where they differ from the published ones."""
    return {r[0]: (r[1], r[2], r[3]) for r in await connection.fetch(WAITING, list(ids))}


async def newest_version(connection: asyncpg.Connection) -> int:
    """The version given last; none is used up by looking."""
    return int(await connection.fetchval(NEWEST_VERSION))


async def activity(connection: asyncpg.Connection, after_ms: int) -> tuple[dict[int, int], int | None]:
    """What was accepted per hour, by the hour's start, and since when that is known (None: nothing is)."""
    counted = {r[0]: int(r[1]) for r in await connection.fetch(ACTIVITY, float(after_ms))}
    return counted, await connection.fetchval(WATCHED, float(after_ms))


async def ended(connection: asyncpg.Connection, before_ms: int, limit: int) -> list[str]:
    """Shown events whose last occurrence ended before then."""
    return [r["id"] for r in await connection.fetch(ENDED, before_ms, limit)]


async def outlived(connection: asyncpg.Connection, before_ms: int, limit: int) -> list[str]:
    """EXPIRED events that became so before then."""
    return [r["id"] for r in await connection.fetch(OUTLIVED, before_ms, limit)]


@dataclass(frozen=True, slots=True)
class Search:
    """What to list: all that is given must hold; `cursor` is the id after which to go on."""

    bbox: Viewport | None = None
    text: str | None = None
    status: tuple[Status, ...] = ()
    cursor: str | None = None
    limit: int = 100


SEARCH: Final = f"""
select {_ROW} {_FROM}
where ($1::text is null or e.id > $1)
  and ($2::boolean or not e.private or e.creator_id = $3 or $3 = any(e.shared_with))
  and ($4::text[] is null or e.status = any($4))
  and ($5::text[] is null or
       concat_ws(E'\\n', e.title, array_to_string(e.categories, E'\\n'), e.description) ilike all ($5))
  and ($6::box is null or point(e.longitude, e.latitude) <@ $6::box or point(e.longitude, e.latitude) <@ $7::box)
order by e.id limit $8"""


async def search(connection: asyncpg.Connection, query: Search, user: str | None, *, admin: bool) -> list[Row]:
    """A page of events in id order that this user may see."""
    words = None if query.text is None else [f"%{_escaped(w)}%" for w in query.text.split()]
    first, second = _boxes(query.bbox)
    found = await connection.fetch(
        SEARCH, query.cursor, admin, user, list(query.status) or None, words, first, second, query.limit
    )
    return [row_of(record) for record in found]


def _escaped(word: str) -> str:
    return word.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _boxes(view: Viewport | None) -> tuple[asyncpg.Box | None, asyncpg.Box | None]:
    if view is None:
        return None, None
    if view.west < view.east:
        box = asyncpg.Box((view.east, view.north), (view.west, view.south))
        return box, box
    west, east = ((180.0, view.north), (view.west, view.south)), ((view.east, view.north), (-180.0, view.south))
    return asyncpg.Box(*west), asyncpg.Box(*east)


PARTITION: Final = """
create table if not exists feed.applied_{name} partition of feed.applied for values from ('{start}') to ('{end}')"""
PARTITIONS: Final = """
select c.relname, greatest(c.reltuples, 0)::bigint as rows from pg_inherits i join pg_class c on c.oid = i.inhrelid
where i.inhparent = 'feed.applied'::regclass and c.relname <> 'applied_rest' order by c.relname desc"""


async def make_partitions(connection: asyncpg.Connection, now_ms: int, hours: int = 3) -> int:
    """The hourly partitions of now and the next hours; returns how many were missing."""
    first = dt.datetime.fromtimestamp(now_ms / 1000, tz=dt.UTC).replace(minute=0, second=0, microsecond=0)
    starts = [first + dt.timedelta(hours=h) for h in range(hours)]
    known = {r["relname"] for r in await connection.fetch(PARTITIONS)}
    missing = [s for s in starts if f"applied_{s:%Y%m%d%H}" not in known and not await _in_rest(connection, s)]
    for start in missing:
        end = start + dt.timedelta(hours=1)
        await connection.execute(
            PARTITION.format(name=f"{start:%Y%m%d%H}", start=start.isoformat(), end=end.isoformat())
        )
    return len(missing)


async def _in_rest(connection: asyncpg.Connection, start: dt.datetime) -> bool:
    """Has the default partition rows of this hour already? Then it keeps the hour: PostgreSQL would refuse another for it."""
    found = await connection.fetchval(
        "select exists (select from feed.applied_rest where at >= $1 and at < $2)", start, start + dt.timedelta(hours=1)
    )
    return bool(found)


async def drop_partitions(connection: asyncpg.Connection, now_ms: int, keep_h: int, keep_rows: int) -> int:
    """Forget updates older than `keep_h` hours, and the oldest hours beyond `keep_rows` rows; returns how many hours."""
    oldest = dt.datetime.fromtimestamp(now_ms / 1000, tz=dt.UTC) - dt.timedelta(hours=keep_h + 1)
    total, dropped = 0, 0
    for record in await connection.fetch(PARTITIONS):
        total += record["rows"]
        name: str = record["relname"]
        if name < f"applied_{oldest:%Y%m%d%H}" or (total > keep_rows and total != record["rows"]):
            await connection.execute(f"drop table feed.{name}")
            dropped += 1
    await connection.execute("delete from feed.applied_rest where at < $1", oldest)
    return dropped
