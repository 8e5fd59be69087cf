"""The SQL of whoever asks: create, show, list, cancel, requeue, change a priority; lists and their contacts; the state of all.

Every verb is one transaction that takes the role of its caller: batchcast_owner with the user's name, so that row-level
security shows nobody another's rows, or batchcast_worker for admins. What is not there and what is another's are refused in
the same words. Changes are told on the bus (topic `imports`, the job's id) and noted in the audit trail in the transaction
that makes them: what changes something answers with the number of its entry.

A list is share-locked by whoever gives it a job, and updated by whoever deletes it: no job is left that fills a deleted list.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import asyncpg

from server.batching import audit
from server.batching.imports.claims import CHANNEL, TOPIC
from server.batching.imports.plan import Progress, Status, checked_priority, progress, tier_of
from server.core.identity import Identity
from server.edge.bus import Bus
from server.edge.postgres import Connection, Database
from server.errors import Code, Refused

PAGE_MOST: Final = 1_000
RETRIES_DEFAULT: Final = 5

_QUEUE: Final = "imports.batch_processing_queue"
ACT_AS: Final = """
select set_config('idle_in_transaction_session_timeout', '10s', true), set_config('role', $1, true),
    set_config('batchcast.owner', $2, true)"""

NEW_LIST: Final = "insert into imports.audiences (owner, name) values ($1, $2) returning id"
LIST_OWNER: Final = "select owner from imports.audiences where id = $1 and deleted_at is null"
LIST_TO_FILL: Final = f"{LIST_OWNER} for share"
LIST_OF_JOB: Final = f"""
select q.audience_id is null or a.id is not null from {_QUEUE} q left join lateral (
    select id from imports.audiences where id = q.audience_id and deleted_at is null for share) a on true
where q.id = $1"""  # noqa: S608  names are ours
CREDENTIAL: Final = """
select id from imports.credentials where owner = $1 and account = $2 and provider = $3"""
NEW_JOB: Final = f"""
insert into {_QUEUE} (owner, client_key, audience_id, source, provider, account, credential_id, file, file_name, folder,
    priority, tier, turn, max_retries)
values ($1::text, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12::smallint,
    imports.take_turns($12::smallint, $1::text, 1), $13)
on conflict (owner, client_key) where client_key is not null do nothing returning id"""  # noqa: S608  names are ours
BY_KEY: Final = f"select id, source, account from {_QUEUE} where owner = $1 and client_key = $2"  # noqa: S608
NOTIFY: Final = f"select pg_notify('{CHANNEL}', '')"
_VIEW: Final = """
    id, owner, client_key, audience_id, (select a.name from imports.audiences a where a.id = audience_id) as list_name, source,
    provider, account, credential_id, file, file_name, status, priority, tier, retry_count, max_retries, pages, total, seen,
    imported, seen - imported - without_email as duplicates, without_email, rejected, error,
    created_at, next_attempt_at, started_at, progress_at, finished_at,
    extract(epoch from coalesce(finished_at, progress_at) - started_at)::float8 as worked_s"""
SHOW: Final = f"select {_VIEW} from {_QUEUE} where id = $1"  # noqa: S608  names are ours
LIST: Final = f"""
select {_VIEW} from {_QUEUE} where ($1::text is null or owner = $1) and ($2::text is null or status = $2)
    and ($3::bigint is null or id < $3) order by id desc limit $4"""  # noqa: S608  names are ours
CANCEL: Final = f"""
update {_QUEUE} set status = 'cancelled', worker_id = null, next_attempt_at = null, finished_at = clock_timestamp()
where id = $1 and status in ('scheduled', 'pending', 'processing') returning id"""  # noqa: S608  names are ours
REQUEUE: Final = f"""
update {_QUEUE} set status = 'pending', retry_count = 0, error = null, finished_at = null, next_attempt_at = null,
    waiting_since = clock_timestamp(), tier = (9 - priority)::smallint,
    turn = imports.take_turns((9 - priority)::smallint, owner, 1)
where id = $1 and status in ('failed', 'cancelled', 'scheduled') returning id"""  # noqa: S608  names are ours
PATCH: Final = f"""
update {_QUEUE} set priority = $2, tier = $3::smallint, turn = imports.take_turns($3::smallint, owner, 1), waiting_since = clock_timestamp()
where id = $1 and status in ('scheduled', 'pending') returning id"""  # noqa: S608  names are ours
REJECTED: Final = """
select row, field, reason from imports.rejected_rows where job_id = $1 and row > $2 order by row limit $3"""
LISTS: Final = """
select id, owner, name, created_at from imports.audiences
where deleted_at is null and ($1::text is null or owner = $1) and ($2::bigint is null or id < $2)
order by id desc limit $3"""
CONTACTS: Final = """
select email, external_id, name, username, phone, status, joined_ms, extra from imports.contacts
where audience_id = $1 and email > $2
    and ($3::text is null or strpos(email, $3) > 0 or strpos(lower(name), $3) > 0 or strpos(lower(username), $3) > 0)
order by email limit $4"""
DELETE_LIST: Final = """
update imports.audiences set deleted_at = clock_timestamp() where id = $1 and deleted_at is null returning owner, name"""
CANCEL_OF_LIST: Final = f"""
update {_QUEUE} set status = 'cancelled', worker_id = null, next_attempt_at = null, finished_at = clock_timestamp()
where audience_id = $1 and owner = $2 and status in ('scheduled', 'pending', 'processing') returning id"""  # noqa: S608
# Never the whole queue: what waits and what failed by partial indexes, what was completed from the days' statistics. With half a
# million finished jobs a `group by status` reads all of them.
BY_STATUS: Final = f"""
select 'scheduled' as status, count(*) from {_QUEUE} where status = 'scheduled'
union all select 'pending', count(*) from {_QUEUE} where status = 'pending'
union all select 'processing', count(*) from {_QUEUE} where status = 'processing'
union all select 'failed', count(*) from {_QUEUE} where status = 'failed'
union all select 'cancelled', count(*) from {_QUEUE} where status = 'cancelled'
union all select 'completed', coalesce(sum(completed), 0)::bigint - (select completed from imports.removed)
    from imports.stats_shard"""  # noqa: S608  names are ours
WORKERS: Final = """
select id, name, status, current_job, jobs_processed, total_members_processed, host, pid, version, lanes,
    extract(epoch from clock_timestamp() - last_heartbeat)::float8 as heartbeat_age_s
from imports.batch_processing_workers order by status, id desc limit $1"""
DAYS: Final = "select * from imports.batch_processing_stats order by date desc limit $1"


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody asks to be imported: into a list that there is (`audience_id`) or a new one (`list_name`)."""

    source: str = "provider"
    audience_id: int | None = None
    list_name: str | None = None
    provider: str | None = None
    account: str | None = None
    file: str | None = None
    """The name it is kept under in `folder`, which is the id of a folder that hosts may share."""
    file_name: str | None = None
    """The name that its sender gave it; only to be shown."""
    folder: str | None = None
    priority: int = 5
    client_key: str | None = None
    max_retries: int = RETRIES_DEFAULT


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as its owner sees it."""

    id: int
    owner: str
    client_key: str | None
    audience_id: int | None
    list_name: str | None
    source: str
    provider: str | None
    account: str | None
    credential_id: int | None
    file: str | None
    file_name: str | None
    status: Status
    priority: int
    tier: int
    retry_count: int
    max_retries: int
    pages: int
    total: int | None
    seen: int
    imported: int
    duplicates: int
    without_email: int
    rejected: int
    error: str | None
    created_at: dt.datetime
    next_attempt_at: dt.datetime | None
    started_at: dt.datetime | None
    progress_at: dt.datetime | None
    finished_at: dt.datetime | None
    worked_s: float | None

    @property
    def progress(self) -> Progress:
        """Percent, rate and time left."""
        return progress(self.status, self.seen, self.total, self.worked_s)


@dataclass(frozen=True, slots=True)
class Created:
    """The job, and its audit entry when it is new: a repeated client key answers with the job that it made."""

    job: JobView
    audit_id: int | None

    @property
    def new(self) -> bool:
        """Did this call make it?"""
        return self.audit_id is not None


@dataclass(frozen=True, slots=True)
class Changed:
    """The job as it is now, and the audit entry of the change."""

    job: JobView
    audit_id: int


@dataclass(frozen=True, slots=True)
class Audience:
    """A list."""

    id: int
    owner: str
    name: str
    created_at: dt.datetime


@dataclass(frozen=True, slots=True)
class Contact:
    """One entry of a list; `extra` is JSON text."""

    email: str
    external_id: str | None
    name: str | None
    username: str | None
    phone: str | None
    status: str | None
    joined_ms: int | None
    extra: str | None


@dataclass(frozen=True, slots=True)
class WorkerView:
    """A worker, newest first; `heartbeat_age_s` is how long ago it was heard of, by the database's clock."""

    id: int
    name: str
    status: str
    current_job: int | None
    jobs_processed: int
    total_members_processed: int
    host: str
    pid: int
    version: str
    lanes: int
    heartbeat_age_s: float


@dataclass(frozen=True, slots=True)
class Day:
    """One row of batch_processing_stats."""

    date: dt.date
    total_jobs: int
    completed_jobs: int
    failed_jobs: int
    total_members_processed: int
    avg_processing_seconds: float


@dataclass(frozen=True, slots=True)
class Overview:
    """The queue by status, the workers, the last days (newest first)."""

    by_status: dict[str, int]
    workers: tuple[WorkerView, ...]
    days: tuple[Day, ...]


class _AlreadyThere(Exception):
    """The client key was used before: undo what this transaction made, and answer with that job."""


class Imports:
    """The verbs behind every control surface of imports."""

    def __init__(self, db: Database, bus: Bus) -> None:
        self._db = db
        self._bus = bus

    # Jobs.

    async def create(self, request: Request, who: Identity) -> Created:
        """Queue a job, and make its list when a name is given. Repeating it with the same client key changes nothing."""
        owner = _user(who)
        checked_priority(request.priority, who)
        _check(request)
        try:
            async with self._as(who) as connection:
                job = await _show(connection, await self._insert(connection, request, owner, who))
                told = {"owner": job.owner, "listId": job.audience_id, "listName": job.list_name, **_wish(request)}
                return Created(job, await audit.write(connection, who.user, "import", f"job {job.id}", after=told))
        except _AlreadyThere:
            return Created(await self._by_key(request, who, owner), None)

    async def show(self, job_id: int, who: Identity) -> JobView:
        """One job."""
        async with self._as(who) as connection:
            return await _show(connection, job_id)

    async def list(
        self, who: Identity, *, status: Status | None = None, before: int | None = None, limit: int = 50
    ) -> Sequence[JobView]:
        """Jobs, newest first; `before` is the id that ended the page before."""
        async with self._as(who) as connection:
            rows = await connection.fetch(LIST, _mine(who), status, before, min(limit, PAGE_MOST))
        return [JobView(*row) for row in rows]

    async def cancel(self, job_id: int, who: Identity) -> Changed:
        """Stop it, also while it is worked on: whatever its worker writes next is refused."""
        return await self._change("import-cancel", CANCEL, job_id, who, "has ended already; there is nothing to cancel")

    async def requeue(self, job_id: int, who: Identity) -> Changed:
        """Once more, from where it stopped, with all its retries."""
        otherwise = "waits or is worked on; only what has failed can be requeued"
        return await self._change("import-requeue", REQUEUE, job_id, who, otherwise)

    async def set_priority(self, job_id: int, priority: int, who: Identity) -> Changed:
        """Another priority, while it waits."""
        checked_priority(priority, who)
        otherwise = "waits no longer; its priority has no meaning now"
        return await self._change("import-set-priority", PATCH, job_id, who, otherwise, priority, tier_of(priority))

    async def rejected(self, job_id: int, who: Identity, after: int = -1, limit: int = 100) -> Sequence[asyncpg.Record]:
        """Rows of the source that are no members: row, field, reason; `after` is the last row of the page before."""
        async with self._as(who) as connection:
            await _show(connection, job_id)
            return await connection.fetch(REJECTED, job_id, after, min(limit, PAGE_MOST))

    # Lists.

    async def audiences(self, who: Identity, *, before: int | None = None, limit: int = 50) -> Sequence[Audience]:
        """Lists, newest first."""
        async with self._as(who) as connection:
            return [Audience(*r) for r in await connection.fetch(LISTS, _mine(who), before, min(limit, PAGE_MOST))]

    async def contacts(
        self, audience_id: int, who: Identity, *, after: str = "", search: str | None = None, limit: int = 100
    ) -> Sequence[Contact]:
        """A page of a list by e-mail; `after` is the last e-mail of the page before, `search` a part of e-mail or name."""
        text = search.strip().casefold() if search else None
        async with self._as(who) as connection:
            await _list_owner(connection, audience_id)
            rows = await connection.fetch(CONTACTS, audience_id, after, text or None, min(limit, PAGE_MOST))
        return [Contact(*row) for row in rows]

    async def export(self, audience_id: int, who: Identity) -> AsyncIterator[Contact]:
        """A whole list, a page at a time."""
        after = ""
        while page := await self.contacts(audience_id, who, after=after, limit=PAGE_MOST):
            for contact in page:
                yield contact
            after = page[-1].email

    async def delete_list(self, audience_id: int, who: Identity) -> int:
        """Gone at once for everybody, its jobs with it; the rows follow in slices. Returns the audit entry."""
        async with self._as(who) as connection:
            gone = await connection.fetchrow(DELETE_LIST, audience_id)
            if gone is None:
                raise _no_list(audience_id)
            jobs = [row["id"] for row in await connection.fetch(CANCEL_OF_LIST, audience_id, gone["owner"])]
            before = {"owner": gone["owner"], "name": gone["name"], "cancelled": len(jobs)}
            entry = await audit.write(connection, who.user, "list-delete", f"list {audience_id}", before)
            if jobs:
                await self._bus.publish(connection, TOPIC, {"jobs": jobs})
            return entry

    # Everything.

    async def overview(self, who: Identity, workers: int = 100, days: int = 7) -> Overview:
        """The state of the whole queue; for admins."""
        if not who.admin:
            raise Refused(Code.FORBIDDEN, "the state of all imports is for admins; list your own instead")
        async with self._as(who) as connection:
            return Overview(
                {row["status"]: row["count"] for row in await connection.fetch(BY_STATUS) if row["count"] > 0},
                tuple(WorkerView(**row) for row in await connection.fetch(WORKERS, workers)),
                tuple(Day(*row) for row in await connection.fetch(DAYS, days)),
            )

    @asynccontextmanager
    async def _as(self, who: Identity) -> AsyncIterator[Connection]:
        role = "batchcast_worker" if who.admin else "batchcast_owner"
        async with self._db.transaction() as connection:
            await connection.execute(ACT_AS, role, _user(who))
            yield connection

    async def _insert(self, connection: Connection, request: Request, owner: str, who: Identity) -> int:
        if request.client_key is not None and await connection.fetchrow(BY_KEY, owner, request.client_key):
            raise _AlreadyThere
        credential = await _credential(connection, request, owner)
        audience = await _audience(connection, request, owner)
        tier = tier_of(request.priority)
        source = (request.source, request.provider, request.account, credential)
        file = (request.file, request.file_name, request.folder)
        values = (*source, *file, request.priority, tier, request.max_retries)
        job: int | None = await connection.fetchval(NEW_JOB, owner, request.client_key, audience, *values)
        if job is None:
            raise _AlreadyThere
        await connection.execute(NOTIFY)
        return job

    async def _by_key(self, request: Request, who: Identity, owner: str) -> JobView:
        async with self._as(who) as connection:
            row = await connection.fetchrow(BY_KEY, owner, request.client_key)
            if row is None or (row["source"], row["account"]) != (request.source, request.account):
                message = f"the client key {request.client_key!r} was used for another import; choose a new one"
                raise Refused(Code.CONFLICT, message, field="key")
            return await _show(connection, row["id"])

    async def _change(
        self, action: str, sql: str, job_id: int, who: Identity, otherwise: str, *values: object
    ) -> Changed:
        async with self._as(who) as connection:
            before = await _show(connection, job_id)
            if sql is REQUEUE and not await connection.fetchval(LIST_OF_JOB, job_id):
                raise Refused(Code.CONFLICT, f"the list of the job {job_id} was deleted; ask for the import anew")
            changed = await connection.fetchval(sql, job_id, *values)
            job = await _show(connection, job_id)
            if changed is None:
                raise Refused(Code.CONFLICT, f"the job {job_id} is {job.status}: it {otherwise}")
            await connection.execute(NOTIFY)
            entry = await audit.write(connection, who.user, action, f"job {job_id}", _state(before), _state(job))
            await self._bus.publish(connection, TOPIC, {"jobs": [job_id]})
            return Changed(job, entry)


def _wish(request: Request) -> dict[str, object]:
    """What the audit trail keeps of a request."""
    return {
        "source": request.source,
        "provider": request.provider,
        "account": request.account,
        "fileName": request.file_name,
        "priority": request.priority,
    }


def _state(job: JobView) -> dict[str, object]:
    return {"status": job.status, "priority": job.priority}


def _user(who: Identity) -> str:
    if not who.user:
        raise Refused(Code.UNAUTHORIZED, "imports need a token that says who you are")
    return who.user


def _mine(who: Identity) -> str | None:
    """Whose rows to search: with a name the index by owner serves; an admin's search is for everybody's."""
    return None if who.admin else who.user


def _check(request: Request) -> None:
    if (request.audience_id is None) == (request.list_name is None):
        raise Refused(Code.BAD_MESSAGE, "name a list: either listId or listName", field="listName")
    if request.list_name is not None and not 1 <= len(request.list_name.strip()) <= 200:
        raise Refused(Code.BAD_MESSAGE, "a list's name has 1 to 200 characters", field="listName", limit=200)
    if request.client_key is not None and not 1 <= len(request.client_key) <= 200:
        raise Refused(Code.BAD_MESSAGE, "a client key has 1 to 200 characters", field="key", limit=200)
    if not 0 <= request.max_retries <= 100:
        raise Refused(Code.BAD_MESSAGE, "maxRetries goes from 0 to 100", field="maxRetries", limit=100)
    if request.source == "provider" and not (request.provider and request.account):
        raise Refused(Code.BAD_MESSAGE, "an import from a provider names its account", field="account")
    if request.source == "file" and not request.file:
        raise Refused(Code.BAD_MESSAGE, "an import from a file comes with the file: send it as the body", field="file")


async def _credential(connection: Connection, request: Request, owner: str) -> int | None:
    if request.source != "provider":
        return None
    found: int | None = await connection.fetchval(CREDENTIAL, owner, request.account, request.provider)
    if found is None:
        message = f"there is no credential for the account {request.account!r} of {request.provider}; add one first"
        raise Refused(Code.NOT_FOUND, message, field="account")
    return found


async def _audience(connection: Connection, request: Request, owner: str) -> int:
    if request.audience_id is None:
        assert request.list_name is not None
        made: int = await connection.fetchval(NEW_LIST, owner, request.list_name.strip())
        return made
    if await connection.fetchval(LIST_TO_FILL, request.audience_id) != owner:
        raise _no_list(request.audience_id)
    return request.audience_id


async def _list_owner(connection: Connection, audience_id: int) -> str:
    owner: str | None = await connection.fetchval(LIST_OWNER, audience_id)
    if owner is None:
        raise _no_list(audience_id)
    return owner


async def _show(connection: Connection, job_id: int) -> JobView:
    row = await connection.fetchrow(SHOW, job_id)
    if row is None:
        raise Refused(Code.NOT_FOUND, f"there is no import {job_id}, or none that you may see", field="id")
    return JobView(*row)


def _no_list(audience_id: int) -> Refused:
    return Refused(Code.NOT_FOUND, f"there is no list {audience_id}, or none that you may see", field="listId")
