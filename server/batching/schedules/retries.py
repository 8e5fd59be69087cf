"""The queue of businesses that a run has brought nothing for. SQL; the caller has taken the service's role.

    waiting --due, claimed--> running --found--> resolved
       ^                        |  \\--missing, the last time--> failed --revived--> waiting (a fresh count)
       '------ missing ---------'

`attempts` counts the retries that were started. A claim makes an intent of its own for each business, so one that fails holds up
nobody; it takes turns over the teams, so one with a thousand failures holds up nobody either; and it fills each platform's places
only. The lease is a net: a retry whose run is gone without a word counts as failed when it ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from server.batching.schedules.outcomes import ERROR_MOST, Intent, Ladder
from server.edge.postgres import Connection
from server.errors import Code, Refused

LEASE_S: Final = 6 * 3_600
"""A run is over by then, whatever its time limit; while its row is open the retry is not given up."""
LOOK_AHEAD: Final = 20_000
"""Due retries of a platform among which the turns are taken; those behind them wait until some are done."""
ORPHAN: Final = "the run of this retry was lost"

ENQUEUE: Final = """
insert into schedules.retry as r (team, business_id, platform, type, state, next_retry_at, settled_at, last_error)
select m.team, m.business_id, m.platform, m.type, case when $5::float8 is null then 'failed' else 'waiting' end,
    clock_timestamp() + make_interval(secs => $5), case when $5::float8 is null then clock_timestamp() end, $6
from schedules.mapping m
where m.platform = $1::text and m.type = $2::text and m.identifier = any ($3::text[]) and m.schedule_id = $4
order by m.business_id
on conflict (business_id, platform, type) do update set state = excluded.state, attempts = 0, settled_at = excluded.settled_at,
    run_id = null, next_retry_at = excluded.next_retry_at, last_error = excluded.last_error, lease_until = null
where r.state = 'resolved'"""
RESOLVE: Final = """
with held as (
    select r.id from schedules.retry r
    join schedules.mapping m on m.business_id = r.business_id and m.platform = r.platform and m.type = r.type
    where m.platform = $1::text and m.type = $2::text and m.identifier = any ($3::text[]) and r.state <> 'resolved'
    order by r.id for no key update of r
)
update schedules.retry r set state = 'resolved', settled_at = clock_timestamp(), next_retry_at = null, lease_until = null
from held where r.id = held.id"""
CLAIM: Final = """
with room as (
    select greatest(0, $2 - count(*))::int as places from schedules.retry where platform = $1::text and state = 'running'
), due as (
    select id, team, next_retry_at from schedules.retry
    where state = 'waiting' and platform = $1::text and next_retry_at <= clock_timestamp()
    order by next_retry_at, id limit $3
), turn as (
    select id, next_retry_at, row_number() over (partition by team order by next_retry_at, id) as turn from due
), chosen as (
    select r.id from schedules.retry r join turn t on t.id = r.id
    where r.state = 'waiting' order by t.turn, t.next_retry_at, r.id
    limit (select places from room) for no key update of r skip locked
), claimed as (
    update schedules.retry r set state = 'running', attempts = r.attempts + 1, lease = r.lease + 1, next_retry_at = null,
        lease_until = clock_timestamp() + make_interval(secs => $4)
    from chosen where r.id = chosen.id returning r.id, r.lease, r.platform, r.type, r.business_id
), made as (
    insert into schedules.provider_run (intent_key, kind, platform, type, business_id)
    select 'retry:' || c.id || ':' || c.lease, 'retry', c.platform, c.type, c.business_id from claimed c order by c.id
    on conflict (intent_key) do nothing returning id, intent_key
)
select c.id as retry, made.id as run from claimed c join made on made.intent_key = 'retry:' || c.id || ':' || c.lease"""
ATTACH: Final = """
update schedules.retry r set run_id = u.run from unnest($1::bigint[], $2::bigint[]) as u (retry, run) where r.id = u.retry"""
CLAIM_LOCK: Final = "select pg_advisory_xact_lock(7238114007)"
FAILED: Final = """
update schedules.retry r set state = case when w.wait is null then 'failed' else 'waiting' end, last_error = $2,
    next_retry_at = clock_timestamp() + make_interval(secs => w.wait), lease_until = null,
    settled_at = case when w.wait is null then clock_timestamp() end
from (select n as attempts, ($3::float8[])[n + 1] as wait from generate_series(0, $4) n) w
where r.run_id = $1 and r.state = 'running' and w.attempts = least(r.attempts, $4)"""
ORPHANS: Final = """
update schedules.retry r set state = case when w.wait is null then 'failed' else 'waiting' end, last_error = $1,
    next_retry_at = clock_timestamp() + make_interval(secs => w.wait), lease_until = null,
    settled_at = case when w.wait is null then clock_timestamp() end
from (select n as attempts, ($2::float8[])[n + 1] as wait from generate_series(0, $3) n) w
where r.state = 'running' and r.lease_until < clock_timestamp() and w.attempts = least(r.attempts, $3)
    and not exists (select from schedules.provider_run p where p.id = r.run_id and p.processed_at is null)"""
SKIPPED: Final = """
update schedules.retry set state = 'resolved', settled_at = clock_timestamp(), lease_until = null
where run_id = any ($1::bigint[]) and state = 'running'"""
REVIVE: Final = """
insert into schedules.retry as r (team, business_id, platform, type, next_retry_at, last_error)
select m.team, m.business_id, m.platform, m.type, clock_timestamp(), 'asked for by an administrator'
from schedules.mapping m
where m.business_id = $1 and ($2::text is null or m.platform = $2) and ($3::text is null or m.type = $3)
order by m.platform, m.type
on conflict (business_id, platform, type) do update set state = 'waiting', attempts = 0, next_retry_at = excluded.next_retry_at,
    settled_at = null, lease_until = null, run_id = null
where r.state <> 'running'
returning id"""
TIDY: Final = """
delete from schedules.retry where id in (
    select id from schedules.retry where settled_at is not null
        and settled_at < now() - make_interval(days => case state when 'resolved' then $1::int else $2::int end)
    order by settled_at limit $3)"""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A retry that is tried now, and the intent of its run."""

    retry: int
    run: int


async def enqueue(connection: Connection, intent: Intent, missing: Sequence[str], reason: str, ladder: Ladder) -> int:
    """Businesses of the batch by what was asked for them; those that are in the queue, or have failed, stay as they are."""
    values = (intent.platform, intent.type, list(missing), intent.schedule_id, ladder.wait_s(1), reason)
    return _count(await connection.execute(ENQUEUE, *values))


async def resolve(connection: Connection, found: Sequence[tuple[Intent, Sequence[str]]]) -> None:
    """Whatever was found has not failed, in whichever team and by whichever run."""
    await connection.executemany(RESOLVE, [(intent.platform, intent.type, list(names)) for intent, names in found])


async def claim(connection: Connection, platform: str, places: int) -> list[Claimed]:
    """Take due ones of a platform until its places are full, each team in turn; each with an intent of its own."""
    await connection.execute(CLAIM_LOCK)
    rows = await connection.fetch(CLAIM, platform, places, LOOK_AHEAD, float(LEASE_S))
    claimed = [Claimed(row["retry"], row["run"]) for row in rows]
    await connection.execute(ATTACH, [one.retry for one in claimed], [one.run for one in claimed])
    return claimed


async def failed_again(connection: Connection, run: int, reason: str, ladder: Ladder) -> None:
    """The run of a retry has brought nothing: later again, or never."""
    await connection.execute(FAILED, run, reason[:ERROR_MOST], ladder.after_retries, ladder.retries)


async def orphans(connection: Connection, ladder: Ladder) -> int:
    """Retries whose lease has ended and whose run is over without having said so."""
    return _count(await connection.execute(ORPHANS, ORPHAN, ladder.after_retries, ladder.retries))


async def skipped(connection: Connection, runs: Sequence[int]) -> None:
    """There was nothing to ask for any more (the business is paused): no retry is owed."""
    await connection.execute(SKIPPED, list(runs))


async def revive(connection: Connection, business: int, platform: str | None, type: str | None) -> int:
    """Try a business at once, with a fresh count, whatever became of it before; how many were put in the queue."""
    rows = await connection.fetch(REVIVE, business, platform, type)
    if not rows:
        known = await connection.fetchval("select count(*) from schedules.mapping where business_id = $1", business)
        if not known:
            raise Refused(Code.NOT_FOUND, f"there is no business {business} that is followed", field="business")
    return len(rows)


async def tidy(connection: Connection, resolved_days: int, failed_days: int, limit: int) -> int:
    """Remove a slice of what was settled long ago."""
    return _count(await connection.execute(TIDY, resolved_days, failed_days, limit))


def _count(answer: str) -> int:
    return int(answer.rpartition(" ")[2])
