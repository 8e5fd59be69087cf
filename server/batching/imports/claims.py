"""The SQL of workers: claims, leases, pages, and what keeps the queue in order. One constant and one function per query.

Nothing here trusts the caller's clock, and nothing a worker writes about a job goes by anything but (id, lease): the lease
is the number of the claim, and a claim, rescue, release or cancellation ends the one before. All run under batchcast_worker.

now() stands where an index is searched, since a volatile clock_timestamp() would be asked once a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import asyncpg

from server.batching.imports.plan import Job, Settled, advanced, harvest
from server.core.member import BadRow, Page
from server.edge.bus import publishing
from server.edge.postgres import Connection

CHANNEL: Final = "imports"
TOPIC: Final = "imports"
"""On the bus: {"jobs": [id, ...]} have changed."""
REJECTED_MOST: Final = 1_000
"""Rows of a job's report; those beyond are only counted."""

_QUEUE: Final = "imports.batch_processing_queue"
_JOB: Final = {
    **{"id": "bigint", "lease": "bigint", "owner": "text", "audience_id": "bigint", "source": "text"},
    **{"provider": "text", "account": "text", "credential_id": "bigint", "file": "text", "retry_count": "int"},
    **{"max_retries": "int", "cursor": "text", "drained": "bool", "pages": "int", "total": "bigint"},
    **{"seen": "bigint", "imported": "bigint", "without_email": "bigint", "rejected": "bigint"},
}
_NO_JOB: Final = ", ".join(f"null::{kind}" for kind in _JOB.values())

# Plans that stay the same whatever the tables hold: claims walk queue_next, all else goes by key.
PREPARE: Final = (
    "set role batchcast_worker; set statement_timeout = '30s'; set plan_cache_mode = force_generic_plan; "
    "set enable_seqscan = off; set enable_hashjoin = off; set enable_mergejoin = off; set jit = off"
)
# A worker that freezes within a transaction must not keep its job's row locked until it thaws. Frozen between the parts of
# one statement it is not idle to PostgreSQL: from version 17 on a limit on the whole transaction ends that too.
ACT: Final = """
select set_config('idle_in_transaction_session_timeout', '10s', true),
    case when current_setting('server_version_num')::int >= 170000
        then set_config('transaction_timeout', '20s', true) end,
    set_config('role', 'batchcast_worker', true), set_config('enable_seqscan', 'off', true),
    set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)"""
WAKE: Final = f"select pg_notify('{CHANNEL}', '')"

REGISTER: Final = """
insert into imports.batch_processing_workers (name, lease_until, lanes, host, pid, version, folder)
values ($1, clock_timestamp() + make_interval(secs => $2), $3, $4, $5, $6, $7) returning id"""
BEAT: Final = """
update imports.batch_processing_workers
set last_heartbeat = clock_timestamp(), lease_until = clock_timestamp() + make_interval(secs => $2), current_job = $3,
    jobs_processed = $4, total_members_processed = $5
where id = $1 and status = 'active' returning id"""
LEAVE: Final = f"""
with released as (
    update {_QUEUE} set status = 'pending', worker_id = null, waiting_since = clock_timestamp()
    where worker_id = $1 and status = 'processing' returning id
), told as (select pg_notify('{CHANNEL}', '') where exists (select from released))
update imports.batch_processing_workers set status = 'stopped', current_job = null, last_heartbeat = clock_timestamp(),
    jobs_processed = $2, total_members_processed = $3
where id = $1 and status = 'active' returning (select count(*) from told)"""  # noqa: S608  names are ours
# Ends claims, adds them to the day, and claims the next, all or nothing. `told` and `next` cannot meet: one names rows that
# are processing, the other rows that are pending. (Processing is asked for by its worker_id: by its status the planner would
# choose queue_held over the key, and compare each claim with each.) Both are one update, since each update opens the table and its
# indexes anew, and the bus is told in the same statement: a transaction around three would cost as much again as a small batch.
# A job of a file goes only to who looks into the folder that the file is in.
#
# Most claims end well: $4 to $8 speak of the first ones alone, and unnest fills up with null for those. Numbers come as text,
# since asyncpg looks at each element of an array.
TURN: Final = f"""
with next as (
    select id from {_QUEUE}
    where status = 'pending'
        and exists (select from imports.batch_processing_workers w where w.id = $1 and w.status = 'active')
        and (folder is null or folder = (select w.folder from imports.batch_processing_workers w where w.id = $1))
    order by tier, turn, id limit $9 for update skip locked
), moved as (
    update {_QUEUE} q
    set status = case when m.lease is null then 'processing' else coalesce(m.new_status, 'completed') end,
        worker_id = case when m.lease is null then $1 end, lease = q.lease + (m.lease is null)::int,
        claimed_at = case when m.lease is null then clock_timestamp() else q.claimed_at end,
        started_at = case when m.lease is null then coalesce(q.started_at, clock_timestamp()) else q.started_at end,
        retry_count = coalesce(m.failures, q.retry_count), error = case when m.lease is null then q.error else m.problem end,
        next_attempt_at = clock_timestamp() + make_interval(secs => m.delay_s),
        waiting_since = case when m.new_status = 'pending' then clock_timestamp() else q.waiting_since end,
        finished_at = case when m.lease is not null and coalesce(m.new_status, 'completed') in ('completed', 'failed')
            then clock_timestamp() end,
        cursor = case when m.afresh then null else q.cursor end, drained = q.drained and m.afresh is not true
    from (
        select * from unnest($2::text::bigint[], $3::text::bigint[], $4::text[], $5::int[], $6::float8[], $7::text[], $8::bool[])
            as t (id, lease, new_status, failures, delay_s, problem, afresh)
        union all select id, null, null, null, null, null, null from next
    ) m
    where q.id = m.id and (m.lease is null or q.lease = m.lease and q.worker_id is not null)
    returning m.lease is null as claimed, {", ".join(f"q.{name}" for name in _JOB)}, q.tier, q.turn, q.status,
        extract(epoch from clock_timestamp() - q.started_at)::float8 as spent
), sums as (
    select array_agg(id) as ids, count(*) filter (where status = 'completed') as completed,
        count(*) filter (where status = 'failed') as failed,
        coalesce(sum(seen) filter (where status = 'completed'), 0) as members,
        sum(spent) filter (where status in ('completed', 'failed')) as seconds
    from moved where not claimed having count(*) > 0
), counted as (
    insert into imports.stats_shard as s (date, worker_id, completed, failed, members, seconds)
    select (clock_timestamp() at time zone 'utc')::date, $1::bigint, completed, failed, members, seconds
    from sums where completed + failed > 0
    on conflict (date, worker_id) do update set completed = s.completed + excluded.completed,
        failed = s.failed + excluded.failed, members = s.members + excluded.members, seconds = s.seconds + excluded.seconds
), {publishing("$10", f"'{TOPIC}'", "json_build_object('jobs', ids)", "sums", "$11")}
select ids as ended, {_NO_JOB} from sums union all
(select null, {", ".join(_JOB)} from moved where claimed order by tier, turn, id)"""  # noqa: S608  names are ours
# After an answer that was lost: what was claimed by it is nobody's.
RECONCILE: Final = f"""
update {_QUEUE} set status = 'pending', worker_id = null, waiting_since = clock_timestamp()
where worker_id = $1 and status = 'processing' and id <> all ($2::bigint[])"""  # noqa: S608  names are ours
# What is stored of a job whose worker is in doubt, as long as it is still its own.
AGAIN: Final = f"""
select {", ".join(f"q.{name}" for name in _JOB)} from {_QUEUE} q
where q.id = $1 and q.lease = $2 and q.status = 'processing'"""  # noqa: S608  names are ours
PAGE: Final = f"""
with held as (
    select id, audience_id from {_QUEUE} where id = $1 and lease = $2 and status = 'processing' and pages = $22 for update
), fresh as (
    insert into imports.contacts (audience_id, email, external_id, name, username, phone, status, joined_ms, extra)
    select h.audience_id, r.* from held h, unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
        $9::bigint[], $10::jsonb[]) r
    on conflict (audience_id, email) do nothing returning 1
), reported as (
    insert into imports.rejected_rows (job_id, row, field, reason)
    select h.id, r.* from held h, unnest($11::bigint[], $12::text[], $13::text[]) r on conflict do nothing
)
update {_QUEUE} q
set cursor = $14, drained = $15, pages = $16, total = $17, seen = $18, without_email = $19, rejected = $20,
    imported = $21 + (select count(*) from fresh), retry_count = 0, error = null, progress_at = clock_timestamp()
from held where q.id = held.id
returning (select count(*) from fresh) as fresh"""  # noqa: S608  names are ours

PROMOTE: Final = f"""
with due as (
    select id, owner, tier from {_QUEUE} where status = 'scheduled' and next_attempt_at <= now()
    order by next_attempt_at limit $1 for update skip locked
), owners as (
    select g.owner, g.tier, imports.take_turns(g.tier, g.owner, g.count) as first
    from (select owner, tier, count(*) from due group by owner, tier order by owner, tier) g
), numbered as (
    select id, owner, tier, row_number() over (partition by owner, tier order by id) - 1 as number from due
), moved as (
    update {_QUEUE} q set status = 'pending', next_attempt_at = null, waiting_since = clock_timestamp(),
        turn = o.first + n.number
    from numbered n join owners o using (owner, tier) where q.id = n.id returning q.id
)
select count(*) as count, (select pg_notify('{CHANNEL}', '') from moved limit 1) from moved"""  # noqa: S608  names are ours
NEXT_DUE: Final = f"""
select extract(epoch from next_attempt_at - clock_timestamp())::float8 from {_QUEUE}
where status = 'scheduled' order by next_attempt_at limit 1"""  # noqa: S608  names are ours
BURY: Final = """
update imports.batch_processing_workers set status = 'dead', current_job = null
where status = 'active' and lease_until < clock_timestamp() returning id, name"""
ORPHANS: Final = f"""
select {", ".join(f"q.{name}" for name in _JOB)} from {_QUEUE} q
where q.status = 'processing' and not exists (
    select from imports.batch_processing_workers w where w.id = q.worker_id and w.status = 'active')
limit $1 for update of q skip locked"""  # noqa: S608  names are ours
# A step up keeps a job's distance to the turn that is being claimed, so that the owners above are not overrun.
AGE: Final = f"""
with old as (
    select id, tier from {_QUEUE} where status = 'pending' and tier > 0
        and waiting_since < now() - make_interval(secs => $1)
    limit $2 for update skip locked
)
update {_QUEUE} q
set tier = above.tier, turn = above.turn + greatest(0, q.turn - here.turn), waiting_since = clock_timestamp()
from old join imports.tier here on here.tier = old.tier join imports.tier above on above.tier = old.tier - 1
where q.id = old.id"""  # noqa: S608  names are ours
ADVANCE: Final = f"""
update imports.tier t set turn = n.turn from (
    select t.tier, coalesce(
        (select q.turn from {_QUEUE} q where q.status = 'pending' and q.tier = t.tier order by q.turn limit 1),
        (select max(p.turn) + 1 from imports.place p where p.tier = t.tier)) as turn
    from imports.tier t
) n where n.tier = t.tier and n.turn > t.turn"""  # noqa: S608  names are ours
FORGET_PLACES: Final = "delete from imports.place p using imports.tier t where p.tier = t.tier and p.turn < t.turn"


@dataclass(frozen=True, slots=True)
class Harvested:
    """What one statement did: the jobs whose claims it ended, and those it claimed, in order."""

    ended: frozenset[int]
    claimed: tuple[Job, ...]


def job_of(row: asyncpg.Record) -> Job:
    """A Job of a row whose last columns are those of _JOB."""
    return Job(*tuple(row)[-len(_JOB) :])


async def register(
    connection: Connection,
    name: str,
    lease_s: float,
    lanes: int,
    host: str,
    pid: int,
    version: str,
    folder: str | None = None,
) -> int:
    """A new worker with a lease, which reads files of this folder; its id."""
    worker: int = await connection.fetchval(REGISTER, name, lease_s, lanes, host, pid, version, folder)
    return worker


async def beat(connection: Connection, worker: int, lease_s: float, job: int | None, jobs: int, members: int) -> bool:
    """Renew a worker's lease; False when it has been declared dead and holds nothing any more."""
    return await connection.fetchval(BEAT, worker, lease_s, job, jobs, members) is not None


async def leave(connection: Connection, worker: int, jobs: int, members: int) -> None:
    """The worker stops: what it still holds goes back, as nobody's failure."""
    await connection.execute(LEAVE, worker, jobs, members)


async def turn(
    connection: Connection,
    worker: int,
    told: Sequence[Settled],
    wanted: int,
    node: str,
    done: Sequence[Job] = (),
    hint: bool = True,
) -> Harvested:
    """End claims (`done`: those that are completed), say so as this node of the bus (without a `hint`, see edge/bus.py, nobody
    is woken), and make new ones; a claim that is missing in `ended` was not this worker's any more."""
    columns = (
        _listed([*(s.job for s in told), *(job.id for job in done)]),
        _listed([*(s.lease for s in told), *(job.lease for job in done)]),
        [s.status for s in told],
        [s.failures for s in told],
        [s.delay_s for s in told],
        [s.error for s in told],
        [s.afresh for s in told],
    )
    rows = await connection.fetch(TURN, worker, *columns, wanted, node, hint)
    ended = rows.pop(0)[0] if rows and rows[0][0] is not None else ()
    return Harvested(frozenset(ended), tuple(map(job_of, rows)))


def _listed(numbers: Sequence[int]) -> str:
    return "{" + ",".join(map(str, numbers)) + "}"


async def reconcile(connection: Connection, worker: int, known: Sequence[int]) -> int:
    """Let go of what the database says this worker holds and the worker knows nothing of; how many."""
    return _count(await connection.execute(RECONCILE, worker, known))


async def again(connection: Connection, job: Job) -> Job | None:
    """The job as it is stored, after an answer that was lost; None when it is not ours any more."""
    row = await connection.fetchrow(AGAIN, job.id, job.lease)
    return None if row is None else job_of(row)


async def save_page(connection: Connection, job: Job, page: Page) -> Job | None:
    """A page's contacts, position and counts: the job after it. None when the job is not ours; then nothing is written."""
    gathered = harvest(page.members)
    after = advanced(job, page, gathered)
    members = [member for _, member in gathered.contacts]
    contacts = (
        [email for email, _ in gathered.contacts],
        [m.external_id for m in members],
        [m.name for m in members],
        [m.username for m in members],
        [m.phone for m in members],
        [m.status for m in members],
        [m.joined_ms for m in members],
        [m.extra if m.extra != "{}" else None for m in members],
    )
    report = _report(page.rejected[: max(0, REJECTED_MOST - after.rejected + len(page.rejected))])
    counts = (after.pages, after.total, after.seen, after.without_email, after.rejected, after.imported)
    place = (after.cursor, after.drained, *counts)
    fresh: int | None = await connection.fetchval(PAGE, job.id, job.lease, *contacts, *report, *place, job.pages)
    return None if fresh is None else replace(after, imported=after.imported + fresh)


def _report(kept: Sequence[BadRow]) -> tuple[list[int], list[str | None], list[str]]:
    return [bad.row for bad in kept], [bad.field for bad in kept], [bad.reason for bad in kept]


async def promote(connection: Connection, most: int) -> int:
    """Put what is due among the waiting, in its owner's next turn; how many."""
    moved: int = await connection.fetchval(PROMOTE, most)
    return moved


async def next_due_s(connection: Connection) -> float | None:
    """Seconds until the next scheduled job is due."""
    due_s: float | None = await connection.fetchval(NEXT_DUE)
    return due_s


async def bury(connection: Connection) -> list[tuple[int, str]]:
    """Declare dead the workers whose lease has ended; from then on they can renew it no more."""
    return [(row["id"], row["name"]) for row in await connection.fetch(BURY)]


async def orphans(connection: Connection, most: int) -> list[Job]:
    """Jobs that are held by nobody who lives, locked until the transaction ends; one that somebody else locks is left out."""
    return [job_of(row) for row in await connection.fetch(ORPHANS, most)]


async def age(connection: Connection, age_s: float, most: int) -> int:
    """Move who has waited that long one tier up; how many."""
    return _count(await connection.execute(AGE, age_s, most))


async def advance(connection: Connection) -> None:
    """Note which turn is being claimed in each tier, and forget places that have passed."""
    await connection.execute(ADVANCE)
    await connection.execute(FORGET_PLACES)


def _count(tag: str) -> int:
    return int(tag.rpartition(" ")[2])
