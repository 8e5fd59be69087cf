"""Posts that could not be read: one open row for each, until they can be, or until nobody needs them.

found = await note(connection, [Failed(clip_id, failure, run_id)])      the attempts of each, this one counted
await put_off(connection, {clip_id: moment})                            when they are tried next
await resolve(connection, clips)                                        these have been read
await page(connection, before, limit), await retry(db, id, who)         for people
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from server.batching import audit
from server.batching.tracking.store import PAGE_MOST, admin, serving
from server.batching.tracking.trying import ERROR_MOST, Failure
from server.core.identity import Identity
from server.edge.postgres import Connection, Database
from server.errors import Code, Refused

FORGET_SLICE: Final = 5_000

NOTE: Final = """
insert into tracking.failed_scrapes as f (clip_id, run_id, reason, error, retryable)
select * from unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::bool[]) as n (clip_id, run_id, reason, error, retryable)
order by clip_id
on conflict (clip_id) where resolved_at is null do update set run_id = excluded.run_id, reason = excluded.reason,
    error = excluded.error, retryable = excluded.retryable, attempts = f.attempts + 1, last_at = clock_timestamp()
returning clip_id, attempts"""
PUT_OFF: Final = """
update tracking.failed_scrapes f set next_attempt_at = p.at from unnest($1::bigint[], $2::timestamptz[]) as p (clip_id, at)
where f.clip_id = p.clip_id and f.resolved_at is null"""
RESOLVE: Final = """
update tracking.failed_scrapes set resolved_at = clock_timestamp(), next_attempt_at = null
where clip_id = any($1) and resolved_at is null"""
_VIEW: Final = """
    f.id, f.clip_id, c.platform::text, c.post_id, c.url, f.run_id, f.reason, f.error, f.retryable, f.attempts, f.next_attempt_at,
    f.first_at, f.last_at"""
PAGE: Final = f"""
select {_VIEW} from tracking.failed_scrapes f join tracking.clips c on c.id = f.clip_id
where f.resolved_at is null and ($1::bigint is null or f.id < $1) order by f.id desc limit $2"""  # noqa: S608  names of ours
SHOW: Final = f"""
select {_VIEW} from tracking.failed_scrapes f join tracking.clips c on c.id = f.clip_id
where f.id = $1 and f.resolved_at is null"""  # noqa: S608
DUE: Final = """
update tracking.clips set next_due_at = least(next_due_at, clock_timestamp()), not_found = 0, state = 'ok' where id = $1"""
AGAIN: Final = """
update tracking.failed_scrapes set next_attempt_at = clock_timestamp(), retryable = true where id = $1"""
FORGET: Final = """
delete from tracking.failed_scrapes where id in (
    select id from tracking.failed_scrapes where resolved_at < clock_timestamp() - make_interval(days => $1) limit $2)"""
# Of a platform that has an actor now, all are due at once.
SUPPORTED: Final = """
with freed as (
    select id from tracking.clips where state = 'unsupported' and platform = any($1) order by id limit $2 for no key update skip locked
), known as (
    update tracking.clips c set state = 'ok', next_due_at = least(next_due_at, clock_timestamp()) from freed where c.id = freed.id
    returning c.id
)
select id from known"""


@dataclass(frozen=True, slots=True)
class Failed:
    """A clip that could not be read in a run."""

    clip_id: int
    failure: Failure


@dataclass(frozen=True, slots=True)
class FailedScrape:
    """An open row, for people."""

    id: int
    clip_id: int
    platform: str
    post_id: str
    url: str
    run_id: int | None
    reason: str
    error: str
    retryable: bool
    attempts: int
    next_attempt_at: dt.datetime | None
    first_at: dt.datetime
    last_at: dt.datetime


@dataclass(frozen=True, slots=True)
class Retried:
    """What is due again, and the entry in the trail."""

    failed: FailedScrape
    audit_id: int


async def note(connection: Connection, run_id: int, failed: Sequence[Failed]) -> dict[int, int]:
    """Write down what could not be read; attempts by clip, these counted."""
    if not failed:
        return {}
    columns = (
        [one.clip_id for one in failed],
        [run_id for _ in failed],
        [one.failure.reason for one in failed],
        [one.failure.error[:ERROR_MOST].replace("\x00", "") for one in failed],
        [one.failure.retryable for one in failed],
    )
    return {row["clip_id"]: row["attempts"] for row in await connection.fetch(NOTE, *columns)}


async def put_off(connection: Connection, until: Mapping[int, dt.datetime | None]) -> None:
    """When each is tried next; None: not by itself."""
    if until:
        await connection.execute(PUT_OFF, list(until), list(until.values()))


async def resolve(connection: Connection, clips: Sequence[int]) -> None:
    """These have been read."""
    if clips:
        await connection.execute(RESOLVE, list(clips))


async def page(connection: Connection, before: int | None = None, limit: int = 50) -> list[FailedScrape]:
    """What is open, newest first."""
    rows = await connection.fetch(PAGE, before, min(limit, PAGE_MOST))
    return [FailedScrape(*row) for row in rows]


async def retry(db: Database, failed_id: int, who: Identity) -> Retried:
    """Make a clip due at once; one that was given up is looked at again."""
    name = admin(who, "trying a post again")
    async with serving(db) as connection:
        before = await _show(connection, failed_id)
        await connection.execute(DUE, before.clip_id)
        await connection.execute(AGAIN, failed_id)
        target = f"clip {before.clip_id}"
        told = {"failed": failed_id, "reason": before.reason, "attempts": before.attempts}
        entry = await audit.write(connection, name, "tracking.retry", target, told, {"due": True})
        return Retried(await _show(connection, failed_id), entry)


async def _show(connection: Connection, failed_id: int) -> FailedScrape:
    row = await connection.fetchrow(SHOW, failed_id)
    if row is None:
        raise Refused(Code.NOT_FOUND, f"there is no failed scrape {failed_id} that is open", field="id")
    return FailedScrape(*row)


async def support(connection: Connection, platforms: Sequence[str]) -> int:
    """Look again at posts of platforms that had no actor and have one now; a slice, how many it was."""
    freed = [row["id"] for row in await connection.fetch(SUPPORTED, list(platforms), FORGET_SLICE)]
    await resolve(connection, freed)
    return len(freed)


async def forget(connection: Connection, keep_days: int) -> int:
    """Remove a slice of what was resolved so long ago; how many it was."""
    status: str = await connection.execute(FORGET, keep_days, FORGET_SLICE)
    return int(status.rpartition(" ")[2])
