"""What is old goes: jobs that ended, contacts of deleted lists, workers that stopped or died, daily statistics. A slice a turn."""

from __future__ import annotations

from typing import Final

from server.edge.postgres import Connection

# How many completed jobs there are is never counted: it is what the days say, less what was removed (store.BY_STATUS).
RETIRE_JOBS: Final = """
with old as (
    select id from imports.batch_processing_queue where status in ('completed', 'failed', 'cancelled')
        and finished_at < now() - make_interval(secs => $1) order by id limit $2
), rows as (
    delete from imports.rejected_rows r using old where r.job_id = old.id
), gone as (
    delete from imports.batch_processing_queue q using old where q.id = old.id returning q.status
), noted as (
    update imports.removed set completed = completed + (select count(*) from gone where status = 'completed')
    where exists (select from gone where status = 'completed')
)
select count(*) from gone"""
RETIRE_WORKERS: Final = """
delete from imports.batch_processing_workers
where status <> 'active' and last_heartbeat < now() - make_interval(secs => $1)"""
RETIRE_STATS: Final = """
with gone as (
    delete from imports.stats_shard where date < ((now() - make_interval(secs => $1)) at time zone 'utc')::date
    returning completed
), noted as (
    update imports.removed set completed = completed - (select sum(completed) from gone) where exists (select from gone)
)
select count(*) from gone"""
RETIRE_CONTACTS: Final = """
delete from imports.contacts c using (
    select k.audience_id, k.email from imports.audiences a join imports.contacts k on k.audience_id = a.id
    where a.deleted_at is not null limit $1
) gone where c.audience_id = gone.audience_id and c.email = gone.email"""
RETIRE_AUDIENCES: Final = """
delete from imports.audiences a where deleted_at is not null
    and not exists (select from imports.contacts c where c.audience_id = a.id)"""


async def retire(
    connection: Connection, jobs_s: float, workers_s: float, stats_s: float, most: int
) -> tuple[int, bool]:
    """Remove what is older, a slice of it; how many rows, and whether there is more."""
    slices = [
        await connection.fetchval(RETIRE_JOBS, jobs_s, most),
        _count(await connection.execute(RETIRE_CONTACTS, most)),
    ]
    rest = [
        _count(await connection.execute(RETIRE_AUDIENCES)),
        _count(await connection.execute(RETIRE_WORKERS, workers_s)),
        await connection.fetchval(RETIRE_STATS, stats_s),
    ]
    return sum(slices + rest), most in slices


def _count(tag: str) -> int:
    return int(tag.rpartition(" ")[2])
