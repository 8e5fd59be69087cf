"""The rows of runs: made, claimed, answered, looked for, ended. SQL and nothing else; the caller has taken the service's role.

A row is claimed by the statement that moves it on (`intended` -> `starting`), so of several that want it one gets it, whoever
leads. From then on only what is true of every copy of the world moves it: that the provider has a run with this id. How many may
be under way is counted under an advisory lock: two claimers can't both take the last place. A batch that has a run under way waits,
and of several slots that waited for it only the last one is served.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

import asyncpg

from server.batching.schedules.outcomes import ERROR_MOST, Intent, Kind, State
from server.batching.schedules.plan import Platform, Type
from server.edge.apify import Run
from server.edge.postgres import Connection

CLAIM_LOCK: Final = 7_238_114_006
"""Any number that nothing else in this database locks."""
LOOK_AHEAD: Final = 200
"""Intents among which one is looked for that may start; those behind wait."""

AGAIN_S: Final = 15.0
"""A start that was not taken waits for so long, doubled with each further time, up to AGAIN_DOUBLINGS times."""
AGAIN_DOUBLINGS: Final = 5

_COLUMNS: Final = "id, intent_key, kind, platform, type, identifiers, schedule_id, business_id, attempts"
UNDER_WAY: Final = """
select count(*) from schedules.provider_run where processed_at is null and state in ('starting', 'unknown', 'running')"""
# Of several intents of one batch that could start, only the oldest one does: `turn`. What is asked for is looked up last, for those
# alone that are taken.
CLAIM: Final = f"""
with open as (
    select * from schedules.provider_run
    where processed_at is null and state = 'intended' and (attempts = 0 or checked_at < clock_timestamp()
        - make_interval(secs => $2 * 2 ^ least(attempts - 1, $3)))
    order by id limit $1
), judged as (
    select r.id, r.platform, r.type, r.kind, r.schedule_id, r.business_id, r.kind = 'scheduled' and (s.paused or exists (
        select from schedules.provider_run newer where newer.schedule_id = r.schedule_id and newer.id > r.id
            and newer.processed_at is null and newer.state = 'intended')) as late
    from open r left join schedules.schedule s on s.id = r.schedule_id
    where r.schedule_id is null or not exists (
        select from schedules.provider_run other where other.schedule_id = r.schedule_id
            and other.processed_at is null and other.state in ('starting', 'unknown', 'running'))
), taken as materialized (
    select * from (
        select *, row_number() over (partition by coalesce(schedule_id, -id), late order by id) as turn from judged
    ) j where late or turn = 1 order by id limit $4
), next as materialized (
    select t.id, coalesce(i.identifiers, '{{}}') as identifiers,
        case when t.late or i.identifiers is null then 'skipped' else 'starting' end as state
    from taken t left join lateral (
        select array_agg(distinct m.identifier order by m.identifier) as identifiers from (
            select * from schedules.mapping where t.kind <> 'retry' and schedule_id = t.schedule_id
            union all
            select * from schedules.mapping
            where t.kind = 'retry' and business_id = t.business_id and platform = t.platform and type = t.type
        ) m
        join schedules.business b on b.id = m.business_id and b.team = m.team
        where b.status = 'active' and m.platform = t.platform and m.type = t.type
    ) i on true
)
update schedules.provider_run r set state = next.state, identifiers = next.identifiers::text[], attempts = r.attempts + 1,
    started_at = clock_timestamp(), checked_at = clock_timestamp(), error = null,
    processed_at = case when next.state = 'skipped' then clock_timestamp() end
from next where r.id = next.id and r.state = 'intended'
returning r.state, {", ".join("r." + name for name in _COLUMNS.split(", "))}"""  # noqa: S608  names are ours
RUNS: Final = """
update schedules.provider_run r set state = 'running', provider_run_id = u.run, dataset_id = u.dataset,
    started_at = to_timestamp(u.started_ms / 1000), checked_at = clock_timestamp(), error = null
from unnest($1::bigint[], $2::text[], $3::text[], $4::float8[]) as u (intent, run, dataset, started_ms)
where r.id = u.intent and r.state in ('intended', 'starting', 'unknown') and r.provider_run_id is null
    and not exists (select from schedules.provider_run other where other.provider_run_id = u.run)
returning r.id"""
RELEASE: Final = """
update schedules.provider_run r set state = 'intended', attempts = r.attempts - 1
from unnest($1::bigint[], $2::int[]) as u (id, attempts)
where r.id = u.id and r.attempts = u.attempts and r.state = 'starting' and r.provider_run_id is null"""
AGAIN: Final = """
update schedules.provider_run set state = 'intended', error = $2, checked_at = clock_timestamp()
where id = $1 and state = $3 and provider_run_id is null"""
UNSURE: Final = """
update schedules.provider_run set state = 'unknown', error = $2, checked_at = clock_timestamp()
where id = $1 and state = 'starting'"""
REFUSED: Final = """
update schedules.provider_run set state = 'refused', error = $2, finished_at = clock_timestamp()
where id = $1 and state = 'starting' returning id"""
STALE: Final = """
update schedules.provider_run set state = 'unknown', error = 'the process that started it did not come back'
where state = 'starting' and processed_at is null and checked_at < clock_timestamp() - make_interval(secs => $1)"""
LOST: Final = f"""
select {_COLUMNS}, extract(epoch from started_at) * 1000 as started_ms,
    checked_at < clock_timestamp() - make_interval(secs => $2) as given_up
from schedules.provider_run where processed_at is null and state = 'unknown' order by id limit $1"""  # noqa: S608
TAKEN: Final = "select provider_run_id from schedules.provider_run where provider_run_id = any($1::text[])"
TO_POLL: Final = f"""
select {_COLUMNS}, provider_run_id from schedules.provider_run
where processed_at is null and state = 'running' and checked_at < clock_timestamp() - make_interval(secs => $2)
order by checked_at limit $1"""  # noqa: S608
LOOKED: Final = """
update schedules.provider_run set checked_at = clock_timestamp(), error = $2 where id = $1 and state = 'running'"""
BY_KEY: Final = f"select state, {_COLUMNS} from schedules.provider_run where intent_key = $1"  # noqa: S608
ENDED: Final = """
update schedules.provider_run r set state = u.state, dataset_id = u.dataset, error = u.error,
    finished_at = to_timestamp(u.finished_ms / 1000), checked_at = clock_timestamp(),
    page = 0, found = '{}', items = 0, attributed = 0, unasked = 0, missing = 0, processed_at = null
from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::float8[]) as u (run, state, dataset, error, finished_ms)
where r.provider_run_id = u.run and r.state <> u.state returning r.provider_run_id"""
TRIGGER: Final = f"""
insert into schedules.provider_run (intent_key, kind, schedule_id, platform, type)
select $1, 'triggered', id, platform, type from schedules.schedule where id = $2
on conflict (intent_key) do nothing returning {_COLUMNS}"""  # noqa: S608
BUSINESSES: Final = "select businesses from schedules.schedule where id = $1 for no key update"
RAN: Final = "update schedules.schedule set last_run_at = clock_timestamp() where id = $1"
OPEN: Final = f"""
select {_COLUMNS} from schedules.provider_run where schedule_id = $1 and processed_at is null
    and state in ('intended', 'starting', 'unknown', 'running') order by id limit 1"""  # noqa: S608
BY_PROVIDER: Final = f"""
insert into schedules.provider_run (intent_key, kind, schedule_id, platform, type, state, provider_run_id, dataset_id,
    started_at, checked_at, identifiers)
select 'provider:' || $1::text, 'scheduled', s.id, s.platform, s.type, 'running', $1::text, $2,
    to_timestamp($3::float8 / 1000), 'epoch', $5::text[]
from schedules.schedule s where s.provider_schedule_id = $4
on conflict do nothing returning {_COLUMNS}"""  # noqa: S608
PICK: Final = f"""
update schedules.provider_run set checked_at = clock_timestamp() where id in (
    select id from schedules.provider_run
    where processed_at is null and state in ('succeeded', 'failed', 'aborted', 'timed_out', 'refused')
    order by checked_at nulls first, id limit $1 for no key update skip locked)
returning {_COLUMNS}, state, dataset_id, page"""  # noqa: S608  names are ours
TIDY: Final = """
delete from schedules.provider_run where id in (
    select id from schedules.provider_run r where processed_at is not null and created_at < now() - make_interval(days => $1)
        and not exists (select from schedules.retry y where y.run_id = r.id and y.state = 'running')
    order by created_at limit $2)"""


@dataclass(frozen=True, slots=True)
class Lost:
    """A start of which nobody knows; `given_up`: it would be in the provider's list by now."""

    intent: Intent
    started_ms: int
    given_up: bool


@dataclass(frozen=True, slots=True)
class Watched:
    """A run under way."""

    intent: Intent
    run_id: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that has ended and is to be attributed from this page of its dataset on."""

    intent: Intent
    state: State
    dataset_id: str | None
    page: int


async def under_way(connection: Connection) -> int:
    """Runs that the account has, or may have, at the moment."""
    return int(await connection.fetchval(UNDER_WAY))


async def claim(connection: Connection, most: int, limit: int) -> list[tuple[Intent, State]]:
    """The next intents to start, up to so many; none when there are none, or no place. Those with nobody to ask for come as
    `skipped`."""
    await connection.execute("select pg_advisory_xact_lock($1)", CLAIM_LOCK)
    places = min(limit, most - await under_way(connection))
    if places <= 0:
        return []
    rows = await connection.fetch(CLAIM, LOOK_AHEAD, AGAIN_S, AGAIN_DOUBLINGS, places)
    return sorted(((intent_of(row), cast(State, row["state"])) for row in rows), key=lambda one: one[0].id)


async def runs(connection: Connection, started: Sequence[tuple[int, Run]]) -> set[int]:
    """The provider has these runs for these intents; of which of them nobody had said so before."""
    of = [run for _, run in started]
    columns = ([run.id for run in of], [run.dataset_id for run in of], [float(run.started_ms) for run in of])
    return {row["id"] for row in await connection.fetch(RUNS, [intent for intent, _ in started], *columns)}


async def release(connection: Connection, claimed: Sequence[Intent]) -> int:
    """Those of these that are still claimed, and by this very claim, were surely not asked for: as if they had not been
    claimed. How many that were."""
    columns = ([intent.id for intent in claimed], [intent.attempts for intent in claimed])
    return count_of(await connection.execute(RELEASE, *columns))


async def again(connection: Connection, intent: int, error: str, state: State = "starting") -> None:
    """It surely was not taken: it is to be started as if it never had been."""
    await connection.execute(AGAIN, intent, error[:ERROR_MOST], state)


async def unsure(connection: Connection, intent: int, error: str) -> None:
    """Nobody knows whether it was taken."""
    await connection.execute(UNSURE, intent, error[:ERROR_MOST])


async def refused(connection: Connection, intent: int, error: str) -> bool:
    """The provider would not have it; it is to be settled like a run that has failed."""
    return await connection.fetchval(REFUSED, intent, error[:ERROR_MOST]) is not None


async def stale(connection: Connection, seconds: float) -> int:
    """Starts whose process has died in the middle: nobody knows of them."""
    return count_of(await connection.execute(STALE, seconds))


async def lost(connection: Connection, limit: int, grace_s: float) -> list[Lost]:
    """Starts of which nobody knows, and which of them have had their time."""
    rows = await connection.fetch(LOST, limit, grace_s)
    return [Lost(intent_of(row), int(row["started_ms"]), row["given_up"]) for row in rows]


async def taken(connection: Connection, run_ids: Sequence[str]) -> set[str]:
    """Which of these runs are ours already."""
    return {row["provider_run_id"] for row in await connection.fetch(TAKEN, list(run_ids))}


async def to_poll(connection: Connection, limit: int, older_s: float) -> list[Watched]:
    """Runs that nobody has looked at for so long."""
    return [Watched(intent_of(row), row["provider_run_id"]) for row in await connection.fetch(TO_POLL, limit, older_s)]


async def looked(connection: Connection, intent: int, error: str | None = None) -> None:
    """It was asked about just now."""
    await connection.execute(LOOKED, intent, None if error is None else error[:ERROR_MOST])


async def of_key(connection: Connection, key: str) -> tuple[Intent, State] | None:
    """The one of that key."""
    row = await connection.fetchrow(BY_KEY, key)
    return None if row is None else (intent_of(row), row["state"])


async def ended(connection: Connection, runs: Sequence[tuple[Run, State]]) -> set[str]:
    """These runs have ended like this, and are to be attributed; of which of them that is new. A run that ends once more,
    otherwise, is attributed anew."""
    rows = await connection.fetch(
        ENDED,
        [run.id for run, _ in runs],
        [state for _, state in runs],
        [run.dataset_id for run, _ in runs],
        [None if state == "succeeded" or not run.message else run.message[:ERROR_MOST] for run, state in runs],
        [float(run.finished_ms or run.started_ms) for run, _ in runs],
    )
    return {row["provider_run_id"] for row in rows}


async def pick(connection: Connection, limit: int) -> list[Ended]:
    """The runs that are attributed next: those that were looked at the longest ago, so that all of them get on."""
    rows = await connection.fetch(PICK, limit)
    return [Ended(intent_of(row), row["state"], row["dataset_id"], row["page"]) for row in rows]


async def businesses(connection: Connection, schedule: int) -> int | None:
    """How many a batch has, locked so that nobody else starts something for it meanwhile; None: there is no such batch."""
    count: int | None = await connection.fetchval(BUSINESSES, schedule)
    return count


async def trigger(connection: Connection, schedule: int, key: str) -> Intent | None:
    """A run of a schedule, now; None when there is no such schedule, or the key was used."""
    row = await connection.fetchrow(TRIGGER, key, schedule)
    if row is not None:
        await connection.execute(RAN, schedule)
    return None if row is None else intent_of(row)


async def open_of(connection: Connection, schedule: int) -> Intent | None:
    """The run of a schedule that has not ended, if there is one."""
    row = await connection.fetchrow(OPEN, schedule)
    return None if row is None else intent_of(row)


async def by_provider(connection: Connection, run: Run, identifiers: Sequence[str]) -> bool:
    """A run that the provider's own schedule has started; False when it is known, or the schedule none of ours."""
    values = (run.id, run.dataset_id, float(run.started_ms), run.schedule_id, list(identifiers))
    return await connection.fetchval(BY_PROVIDER, *values) is not None


async def tidy(connection: Connection, days: int, limit: int) -> int:
    """Remove a slice of what was settled so long ago."""
    return count_of(await connection.execute(TIDY, days, limit))


def intent_of(row: asyncpg.Record | Mapping[str, object]) -> Intent:
    """A row as a value."""
    return Intent(
        id=cast(int, row["id"]),
        key=cast(str, row["intent_key"]),
        kind=cast(Kind, row["kind"]),
        platform=cast(Platform, row["platform"]),
        type=cast(Type, row["type"]),
        identifiers=tuple(cast(Sequence[str], row["identifiers"])),
        schedule_id=cast("int | None", row["schedule_id"]),
        business_id=cast("int | None", row["business_id"]),
        attempts=cast(int, row["attempts"]),
    )


def count_of(answer: str) -> int:
    """How many rows a statement has changed, from PostgreSQL's own words."""
    return int(answer.rpartition(" ")[2])
