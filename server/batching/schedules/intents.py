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
CLAIM: Final = f"""
with next as (
    select r.id, coalesce(i.identifiers, '{{}}') as identifiers,
        case when i.identifiers is null or r.kind = 'scheduled' and (s.paused or exists (
                select from schedules.provider_run newer where newer.schedule_id = r.schedule_id and newer.id > r.id
                    and newer.processed_at is null and newer.state = 'intended'))
            then 'skipped' else 'starting' end as state
    from (
        select * from schedules.provider_run
        where processed_at is null and state = 'intended' and (attempts = 0 or checked_at < clock_timestamp()
            - make_interval(secs => $2 * 2 ^ least(attempts - 1, $3)))
        order by id limit $1
    ) r
    left join schedules.schedule s on s.id = r.schedule_id
    left join lateral (
        select array_agg(distinct m.identifier order by m.identifier) as identifiers
        from schedules.mapping m join schedules.business b on b.id = m.business_id and b.team = m.team
        where b.status = 'active' and m.platform = r.platform and m.type = r.type and case when r.kind = 'retry'
            then m.business_id = r.business_id else m.schedule_id = r.schedule_id end
    ) i on true
    where r.schedule_id is null or not exists (
        select from schedules.provider_run other where other.schedule_id = r.schedule_id
            and other.processed_at is null and other.state in ('starting', 'unknown', 'running'))
    order by r.id limit 1
)
update schedules.provider_run r set state = next.state, identifiers = next.identifiers::text[], attempts = r.attempts + 1,
    started_at = clock_timestamp(), checked_at = clock_timestamp(), error = null,
    processed_at = case when next.state = 'skipped' then clock_timestamp() end
from next where r.id = next.id and r.state = 'intended'
returning r.state, {", ".join("r." + name for name in _COLUMNS.split(", "))}"""  # noqa: S608  names are ours
RUNS: Final = f"""
update schedules.provider_run set state = 'running', provider_run_id = $2, dataset_id = $3,
    started_at = to_timestamp($4::float8 / 1000), checked_at = clock_timestamp(), error = null
where id = $1 and state in ('intended', 'starting', 'unknown') and provider_run_id is null
    and not exists (select from schedules.provider_run other where other.provider_run_id = $2)
returning {_COLUMNS}"""  # noqa: S608  names are ours
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
BY_RUN: Final = f"select state, {_COLUMNS} from schedules.provider_run where provider_run_id = $1"  # noqa: S608
BY_KEY: Final = f"select state, {_COLUMNS} from schedules.provider_run where intent_key = $1"  # noqa: S608
ENDED: Final = """
update schedules.provider_run set state = $2, dataset_id = $3, error = $4,
    finished_at = to_timestamp($5::float8 / 1000), checked_at = clock_timestamp(),
    page = 0, found = '{}', items = 0, attributed = 0, unasked = 0, missing = 0, processed_at = null
where provider_run_id = $1 and state <> $2 returning id"""
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
update schedules.provider_run set checked_at = clock_timestamp() where id = (
    select id from schedules.provider_run
    where processed_at is null and state in ('succeeded', 'failed', 'aborted', 'timed_out', 'refused')
    order by checked_at nulls first, id limit 1 for no key update skip locked)
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


async def claim(connection: Connection, most: int) -> tuple[Intent, State] | None:
    """The next intent to start; None when there is none, or no place. One with nobody to ask for comes as `skipped`."""
    await connection.execute("select pg_advisory_xact_lock($1)", CLAIM_LOCK)
    if await under_way(connection) >= most:
        return None
    row = await connection.fetchrow(CLAIM, LOOK_AHEAD, AGAIN_S, AGAIN_DOUBLINGS)
    return None if row is None else (intent_of(row), cast(State, row["state"]))


async def runs(connection: Connection, intent: int, run: Run) -> Intent | None:
    """The provider has this run for it; None when somebody has said so before."""
    row = await connection.fetchrow(RUNS, intent, run.id, run.dataset_id, float(run.started_ms))
    return None if row is None else intent_of(row)


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


async def of_run(connection: Connection, run_id: str) -> tuple[Intent, State] | None:
    """Ours for a run of the provider's."""
    row = await connection.fetchrow(BY_RUN, run_id)
    return None if row is None else (intent_of(row), row["state"])


async def of_key(connection: Connection, key: str) -> tuple[Intent, State] | None:
    """The one of that key."""
    row = await connection.fetchrow(BY_KEY, key)
    return None if row is None else (intent_of(row), row["state"])


async def ended(connection: Connection, run: Run, state: State) -> bool:
    """The run has ended like this, and is to be attributed. A run that ends once more, otherwise, is attributed anew."""
    finished = run.finished_ms or run.started_ms
    message = None if state == "succeeded" or not run.message else run.message[:ERROR_MOST]
    return await connection.fetchval(ENDED, run.id, state, run.dataset_id, message, float(finished)) is not None


async def pick(connection: Connection) -> Ended | None:
    """The run that is attributed next: the one that was looked at the longest ago, so that all of them get on."""
    row = await connection.fetchrow(PICK)
    return None if row is None else Ended(intent_of(row), row["state"], row["dataset_id"], row["page"])


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
