"""The audit trail: who did what to what, what it was before and is afterwards. Shared by all systems.

    audit_id = await audit.write(connection, who.user, "configure", "batching", before, after)      in the change's transaction
    entries = await audit.page(connection, Search(target="job 7"))                                  newest first

An entry is written inside the transaction that makes the change: both are there or neither. A system whose transactions run
under a role of its own grants it what 0008_audit.sql grants: adding entries, and learning the number of the one just added.
Reading the trail is for the server's own user. Values are plain JSON; a secret has no place in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import asyncpg
import orjson

from server.edge.postgres import Connection

PAGE_MOST: Final = 1_000
VALUE_BYTES: Final = 65_536
"""A `before` or `after` above this is kept as its size only: a change must not fail because it is long to tell."""

WRITE: Final = """
insert into ops.audit (who, action, target, before, after) values ($1, $2, $3, $4, $5) returning id"""
PAGE: Final = """
select id, floor(extract(epoch from at) * 1000)::bigint as at_ms, who, action, target, before, after from ops.audit
where ($1::text is null or who = $1) and ($2::text is null or action = $2) and ($3::text is null or target = $3)
    and ($4::bigint is null or id < $4)
order by id desc limit $5"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the trail; `at_ms` by the database's clock. Without a name it was the server itself, or anonymous."""

    id: int
    at_ms: int
    who: str | None
    action: str
    target: str | None
    before: object
    after: object


@dataclass(frozen=True, slots=True)
class Search:
    """Which entries: all that is given must hold. `before` is the id that ended the page before."""

    who: str | None = None
    action: str | None = None
    target: str | None = None
    before: int | None = None
    limit: int = 50


async def write(
    connection: Connection, who: str | None, action: str, target: str, before: object = None, after: object = None
) -> int:
    """Note who did what, in the caller's transaction; the number of the entry, which the answer shows."""
    audit_id: int = await connection.fetchval(WRITE, who, action, target, _text(before), _text(after))
    return audit_id


async def page(connection: Connection, search: Search) -> list[Entry]:
    """Entries, newest first."""
    limit = min(search.limit, PAGE_MOST)
    rows = await connection.fetch(PAGE, search.who, search.action, search.target, search.before, limit)
    return [_entry(row) for row in rows]


def _text(value: object) -> str | None:
    if value is None:
        return None
    text = orjson.dumps(value)
    return (text if len(text) <= VALUE_BYTES else orjson.dumps({"omittedBytes": len(text)})).decode()


def _entry(row: asyncpg.Record) -> Entry:
    before, after = (None if row[name] is None else orjson.loads(row[name]) for name in ("before", "after"))
    return Entry(row["id"], row["at_ms"], row["who"], row["action"], row["target"], before, after)
