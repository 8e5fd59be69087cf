"""Many businesses at once, from a file: planned in memory, written a chunk at a time.

A chunk is one transaction: its businesses, their mappings, and how far the file has been taken in. So the next attempt with the
same key goes on behind the last chunk, and a file taken in twice changes nothing: a profile that its team follows already is `known`.
Rows that are no businesses are told and left out; they stop nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

import orjson

from server.batching.schedules import store as s
from server.batching.schedules.placing import New, Placing
from server.batching.schedules.plan import TYPES, Line, Platform, Tier, hours_of
from server.batching.schedules.rows import Row, Unusable, read
from server.edge.postgres import Connection
from server.edge.tasks import both
from server.errors import Code, Refused
from server.protocol.intake import Format, reader

CHUNK: Final = 2_000
"""Rows in a transaction."""
AT_ONCE: Final = 50
"""Rows that are read in one go: a millisecond or two."""

BEGIN: Final = """
insert into schedules.intake (file) values ($1)
on conflict (file) do update set updated_at = clock_timestamp(),
    rows = case when schedules.intake.finished_at is null then schedules.intake.rows else 0 end,
    placed = case when schedules.intake.finished_at is null then schedules.intake.placed else 0 end,
    known = case when schedules.intake.finished_at is null then schedules.intake.known else 0 end,
    refused = case when schedules.intake.finished_at is null then schedules.intake.refused else 0 end,
    finished_at = null
returning rows, placed, known, refused"""
ONWARD: Final = """
update schedules.intake set rows = $2, placed = $3, known = $4, refused = $5, updated_at = clock_timestamp()
where file = $1 and rows = $6 returning file"""
FINISH: Final = "update schedules.intake set finished_at = clock_timestamp() where file = $1"
KNOWN: Final = """
select m.team, m.platform, m.identifier, m.business_id
from unnest($1::text[], $2::text[], $3::text[]) as u (team, platform, identifier)
join schedules.mapping m on m.platform = u.platform and m.type = 'reviews' and m.identifier = u.identifier and m.team = u.team"""
HAS: Final = """
select b.id, k.platform from schedules.business b, jsonb_object_keys(b.identifiers) as k (platform) where b.id = any ($1::bigint[])"""
IDS: Final = "select nextval('schedules.business_id_seq') from generate_series(1, $1)"
BUSINESSES: Final = """
insert into schedules.business (id, team, name, identifiers) overriding system value
select u.id, u.team, u.name, u.identifiers::jsonb
from unnest($1::bigint[], $2::text[], $3::text[], $4::text[]) as u (id, team, name, identifiers)"""
ATTACH: Final = """
update schedules.business b set identifiers = b.identifiers || u.identifiers::jsonb
from unnest($1::bigint[], $2::text[]) as u (id, identifiers) where b.id = u.id"""

Told: TypeAlias = Callable[["Taken", Sequence[Unusable]], None]
Profile: TypeAlias = tuple[str, Platform, str]


@dataclass(frozen=True, slots=True)
class Taken:
    """How far a file is: rows read, profiles placed, profiles known before, rows refused; `resumed_at`: rows skipped."""

    rows: int = 0
    placed: int = 0
    known: int = 0
    refused: int = 0
    resumed_at: int = 0


@dataclass(slots=True)
class Found:
    """A business that rows of a chunk speak of: one that there is (`fresh` False) or one to make, and what to add to it."""

    id: int
    team: str
    name: str
    fresh: bool
    has: set[Platform]
    added: dict[Platform, str]


class Taking:
    """Files of businesses."""

    def __init__(self, placing: Placing) -> None:
        self._placing = placing

    async def take_in(
        self, key: str, fmt: Format, chunks: AsyncIterable[bytes], told: Told = lambda taken, unusable: None
    ) -> Taken:
        """All of a file, from where the last attempt with this key stopped; `told` hears of each chunk that is stored.

        A key that has come to its end begins anew, and finds everything known."""
        taken = await self._begin(key)
        slices = self._slices(fmt, chunks, taken.resumed_at)
        waiting = await anext(slices, None)
        while waiting:
            # PostgreSQL writes one slice while the next one is read.
            taken, waiting = await both(self._store(key, taken, waiting, told), anext(slices, None))
        await self._finish(key)
        return taken

    async def _slices(
        self, fmt: Format, chunks: AsyncIterable[bytes], skipped: int
    ) -> AsyncIterator[list[Row | Unusable]]:
        """The rows of a file but for the first so many, CHUNK at a time; between a few of them others get on."""
        rows, count = reader(fmt), 0
        waiting: list[Row | Unusable] = []
        async for chunk in _and_end(chunks):
            for value in rows.close() if chunk is None else rows.feed(chunk):
                if count >= skipped:
                    waiting.append(read(count, value))
                count += 1
                if not count % AT_ONCE:
                    await self._placing.give_way()
                if len(waiting) == CHUNK:
                    yield waiting
                    waiting = []
        if waiting:
            yield waiting

    async def _begin(self, key: str) -> Taken:
        async def work(connection: Connection) -> Taken:
            row = await connection.fetchrow(BEGIN, key)
            assert row is not None
            return Taken(row["rows"], row["placed"], row["known"], row["refused"], resumed_at=row["rows"])

        return await self._placing.run(work)

    async def _finish(self, key: str) -> None:
        async def work(connection: Connection) -> None:
            await connection.execute(FINISH, key)

        await self._placing.run(work)

    async def _store(self, key: str, before: Taken, entries: Sequence[Row | Unusable], told: Told) -> Taken:
        """One chunk, in one transaction."""
        rows = [entry for entry in entries if isinstance(entry, Row)]
        unusable = [entry for entry in entries if isinstance(entry, Unusable)]

        async def work(connection: Connection) -> tuple[Taken, list[Unusable]]:
            placed, known, conflicts = await self._place(connection, rows) if rows else (0, 0, [])
            taken = replace(
                before,
                rows=before.rows + len(entries),
                placed=before.placed + placed,
                known=before.known + known,
                refused=before.refused + len(unusable) + len(conflicts),
            )
            counts = (taken.rows, taken.placed, taken.known, taken.refused)
            if await connection.fetchval(ONWARD, key, *counts, before.rows) is None:
                raise Refused(
                    Code.CONFLICT, f"another process is taking in this file ({key}); wait for its end", field="file"
                )
            return taken, conflicts

        taken, conflicts = await self._placing.run(work)
        told(taken, sorted([*unusable, *conflicts], key=lambda entry: entry.number))
        return taken

    async def _place(self, connection: Connection, rows: Sequence[Row]) -> tuple[int, int, list[Unusable]]:
        """Write these rows: how many profiles were placed and how many known, and the rows that contradict others."""
        named = {row.team: row.tier or self._placing.terms.tier for row in reversed(rows)}
        tiers = await s.lock_teams(connection, named)
        known = await _known(connection, rows)
        plan = Gathered(known, await _has(connection, set(known.values())))
        conflicts = [clash for row in rows if (clash := plan.add(row)) is not None]
        found = plan.changed
        ids = await _ids(connection, sum(each.fresh for each in found))
        for each in found:
            each.id = next(ids) if each.fresh else each.id
        await _write(connection, found)
        await self._placing.settle(connection, await self._mappings(connection, found, tiers), ())
        return sum(len(each.added) for each in found), plan.known, conflicts

    async def _mappings(self, connection: Connection, found: Sequence[Found], tiers: dict[str, Tier]) -> list[New]:
        own, now = await s.customs(connection, sorted(tiers)), self._placing.now
        lines = {
            (team, p, t): Line(p, t, hours_of(tiers[team], t, own.get((team, p, t)), now))
            for team, p in {(each.team, p) for each in found for p in each.added}
            for t in TYPES
        }
        return [
            New(each.id, each.team, lines[each.team, platform, t], identifier)
            for each in found
            for platform, identifier in each.added.items()
            for t in TYPES
        ]


class Gathered:
    """What the rows of a chunk come to: which speak of the same business, which of one that is followed already."""

    def __init__(self, known: dict[Profile, int], has: dict[int, set[Platform]]) -> None:
        self.known = 0
        self._has = has
        self._found: dict[int, Found] = {}
        self._of: dict[Profile, int] = dict(known)

    @property
    def changed(self) -> list[Found]:
        """The businesses that get something, in the order of the rows."""
        return [each for each in self._found.values() if each.added]

    def add(self, row: Row) -> Unusable | None:
        """Take a row in; what it contradicts, if anything."""
        profiles = [(row.team, platform, identifier) for platform, identifier in row.identifiers.items()]
        speaks_of = sorted({self._of[profile] for profile in profiles if profile in self._of})
        if len(speaks_of) > 1:
            return Unusable(
                row.number, "identifier", "its profiles belong to several businesses of the team; give them apart"
            )
        found = self._business(speaks_of[0] if speaks_of else -1 - len(self._found), row)
        new = {p: i for p, i in row.identifiers.items() if (row.team, p, i) not in self._of}
        twice = sorted(found.has & set(new))
        if twice:
            message = f"the business has another profile on {twice[0]} already; give this one apart"
            return Unusable(row.number, twice[0], message)
        self.known += len(row.identifiers) - len(new)
        found.added.update(new)
        found.has.update(new)
        self._found[found.id] = found
        self._of.update({(row.team, p, i): found.id for p, i in new.items()})
        return None

    def _business(self, at: int, row: Row) -> Found:
        """The one with this number; below zero it is to be made."""
        if at in self._found:
            return self._found[at]
        return Found(at, row.team, row.name, at < 0, set(self._has.get(at, ())), {})


async def _known(connection: Connection, rows: Sequence[Row]) -> dict[Profile, int]:
    profiles = [(row.team, platform, text) for row in rows for platform, text in row.identifiers.items()]
    found = await connection.fetch(KNOWN, *(list(column) for column in zip(*profiles, strict=True)))
    return {(r[0], r[1], r[2]): r[3] for r in found}


async def _has(connection: Connection, businesses: set[int]) -> dict[int, set[Platform]]:
    has: dict[int, set[Platform]] = {}
    for row in await connection.fetch(HAS, sorted(businesses)) if businesses else ():
        has.setdefault(row["id"], set()).add(row["platform"])
    return has


async def _ids(connection: Connection, count: int) -> Iterator[int]:
    return iter([row["nextval"] for row in await connection.fetch(IDS, count)] if count else [])


async def _write(connection: Connection, found: Sequence[Found]) -> None:
    fresh = [each for each in found if each.fresh]
    texts = [orjson.dumps(each.added).decode() for each in fresh]
    if fresh:
        ids = [each.id for each in fresh]
        await connection.execute(BUSINESSES, ids, [each.team for each in fresh], [each.name for each in fresh], texts)
    rest = [each for each in found if not each.fresh]
    if rest:
        await connection.execute(ATTACH, [each.id for each in rest], [orjson.dumps(e.added).decode() for e in rest])


async def _and_end(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes | None]:
    """The chunks, and None for the end of the file."""
    async for chunk in chunks:
        yield chunk
    yield None
