"""What lists and pages show of the schedules: reads only, each bounded, each in the role of whoever asks.

An administrator reads as the service and sees all; a team's token reads as the team, and row-level security shows it nothing of
another's. Lists go on after a cursor, which is what the last row was ordered by.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from server.batching.schedules import plan
from server.batching.schedules.plan import Health, Line, Platform, Tier, Type
from server.batching.schedules.store import act_for, checked_team
from server.core.identity import Identity
from server.edge.postgres import Connection, Database
from server.errors import Code, Refused

RUN_STATES: Final = (
    *("intended", "starting", "unknown", "running"),
    *("succeeded", "failed", "aborted", "timed_out", "refused", "skipped"),
)
RETRY_STATES: Final = ("waiting", "running", "resolved", "failed")

LINES: Final = """
with one as (
    select s.id, s.platform::text, s.type::text, s.interval_hours::int as hours, s.businesses, s.capacity, s.active, s.paused,
        s.next_run_at, s.last_run_at
    from schedules.schedule s
    union all
    select null, l.platform, l.type, l.hours, 0, l.capacity, true, false, null, null
    from unnest($1::text[], $2::text[], $3::int[], $4::int[]) as l (platform, type, hours, capacity)
    where not exists (select from schedules.schedule s
        where s.platform = l.platform and s.type = l.type and s.interval_hours = l.hours)
)
select platform, type, hours, count(id)::int as batches, sum(businesses)::int as businesses,
    coalesce(sum(capacity) filter (where active), 0)::int as capacity, count(*) filter (where paused)::int as paused,
    count(id) filter (where businesses < $6::float8 * capacity)::int as healthy,
    count(id) filter (where businesses >= $6 * capacity and businesses < $5::float8 * capacity)::int as warning,
    count(id) filter (where businesses >= $5 * capacity)::int as critical,
    min(next_run_at) filter (where not paused and businesses > 0) as next_run_at, max(last_run_at) as last_run_at
from one group by platform, type, hours order by platform, type, hours"""

RUNS: Final = """
select id, kind, schedule_id, platform::text, type::text, business_id, state, provider_run_id, asked, items, attributed,
    unasked, missing, attempts, error, created_at, started_at, finished_at, processed_at
from schedules.provider_run
where ($1::bigint is null or schedule_id = $1) and ($2::text is null or state = $2) and ($3::bigint is null or id < $3)
order by id desc limit $4"""
RETRIES: Final = """
select id, team, business_id, platform::text, type::text, state, attempts, next_retry_at, last_error, created_at, settled_at
from schedules.retry
where ($1::text is null or state = $1) and ($2::text is null or team = $2) and ($3::bigint is null or business_id = $3)
    and ($4::bigint is null or id > $4)
order by id limit $5"""
TEAMS: Final = """
select t.team, t.tier, (select count(*) from schedules.business b where b.team = t.team)::int as businesses
from schedules.team t
where t.team > $1 and ($2::text is null or position(lower($2) in lower(t.team)) > 0)
order by t.team limit $3"""
WEBHOOKS: Final = """
select (select floor(extract(epoch from max(received_at)) * 1000)::bigint from schedules.webhook_delivery) as last_ms,
    (select count(*) from schedules.webhook_delivery where processed_at is null) as waiting"""

KNOWN: Final = "select exists (select from schedules.business where id = $1 and team = $2 and identifiers ? $3)"
REVIEWS: Final = """
select review_id, rating, title, text, author, url, published_at, first_seen_at, fetched_at, edits from schedules.review
where team = $1 and business_id = $2 and platform = $3
    and case when $4::text is null then true
        when $5::timestamptz is null then published_at is null and review_id > $4
        else published_at < $5 or (published_at = $5 and review_id > $4) or published_at is null end
order by published_at desc nulls last, review_id limit $6"""
OVERVIEWS: Final = """
select fetched_at, rating, review_count, name from schedules.overview
where team = $1 and business_id = $2 and platform = $3 and ($4::timestamptz is null or fetched_at < $4)
order by fetched_at desc limit $5"""


@dataclass(frozen=True, slots=True)
class Webhooks:
    """What the provider told us: when it did last, and how much of it has not been worked on."""

    last_ms: int | None
    waiting: int


@dataclass(frozen=True, slots=True)
class LineSums:
    """A schedule with all of its batches together; `capacity` of those that are not set aside."""

    platform: Platform
    type: Type
    hours: int
    batches: int
    businesses: int
    capacity: int
    paused: int
    healthy: int
    warning: int
    critical: int
    next_run_at: dt.datetime | None
    last_run_at: dt.datetime | None

    @property
    def base(self) -> bool:
        """Is it one of the 32?"""
        return Line(self.platform, self.type, self.hours) in plan.BASE_LINES

    @property
    def worst(self) -> Health:
        """The worst grade of its batches."""
        return "critical" if self.critical else "warning" if self.warning else "healthy"


@dataclass(frozen=True, slots=True)
class RunView:
    """A run at the provider, or the intent to start one."""

    id: int
    kind: str
    schedule_id: int | None
    platform: Platform
    type: Type
    business_id: int | None
    state: str
    provider_run_id: str | None
    asked: int
    items: int
    attributed: int
    unasked: int
    missing: int
    attempts: int
    error: str | None
    created_at: dt.datetime
    started_at: dt.datetime | None
    finished_at: dt.datetime | None
    processed_at: dt.datetime | None


@dataclass(frozen=True, slots=True)
class RetryView:
    """A business that has to be tried again, or was."""

    id: int
    team: str
    business_id: int
    platform: Platform
    type: Type
    state: str
    attempts: int
    next_retry_at: dt.datetime | None
    last_error: str | None
    created_at: dt.datetime
    settled_at: dt.datetime | None


@dataclass(frozen=True, slots=True)
class TeamRow:
    """A team in a list."""

    team: str
    tier: Tier
    businesses: int


@dataclass(frozen=True, slots=True)
class ReviewView:
    """A review as it reads now; `edits`: how often it was found changed."""

    id: str
    rating: float | None
    title: str | None
    text: str | None
    author: str | None
    url: str | None
    published_at: dt.datetime | None
    first_seen_at: dt.datetime
    fetched_at: dt.datetime
    edits: int


@dataclass(frozen=True, slots=True)
class OverviewView:
    """A business's figures at a time."""

    fetched_at: dt.datetime
    rating: float | None
    review_count: int | None
    name: str | None


class Reading:
    """See the module's docstring. `capacities`: of batches that are made from now on, by platform."""

    def __init__(self, db: Database, capacities: Mapping[Platform, int]) -> None:
        self._db = db
        lines = plan.BASE_LINES
        self._base = (
            [line.platform for line in lines],
            [line.type for line in lines],
            [line.hours for line in lines],
            [capacities[line.platform] for line in lines],
            plan.CRITICAL,
            plan.WARNING,
        )

    @asynccontextmanager
    async def _as(self, who: Identity) -> AsyncIterator[Connection]:
        async with self._db.transaction() as connection:
            await act_for(connection, who)
            yield connection

    async def lines(self, who: Identity) -> list[LineSums]:
        """The 32, those without a business too, and those of intervals of teams' own."""
        async with self._as(who) as connection:
            return [LineSums(*row) for row in await connection.fetch(LINES, *self._base)]

    async def runs(
        self, who: Identity, *, schedule: int | None = None, state: str | None = None, before: int | None, limit: int
    ) -> list[RunView]:
        """Runs, the newest first."""
        async with self._as(who) as connection:
            return [RunView(*row) for row in await connection.fetch(RUNS, schedule, state, before, limit)]

    async def retries(
        self,
        who: Identity,
        *,
        state: str | None = None,
        team: str | None = None,
        business: int | None = None,
        after: int | None = None,
        limit: int = 100,
    ) -> list[RetryView]:
        """The retry queue in the order in which businesses came into it."""
        async with self._as(who) as connection:
            return [RetryView(*row) for row in await connection.fetch(RETRIES, state, team, business, after, limit)]

    async def webhooks(self, who: Identity) -> Webhooks:
        """What the provider told us."""
        async with self._as(who) as connection:
            row = await connection.fetchrow(WEBHOOKS)
            assert row is not None
            return Webhooks(*row)

    async def teams(self, who: Identity, *, search: str | None, after: str, limit: int) -> list[TeamRow]:
        """Teams by name."""
        async with self._as(who) as connection:
            return [TeamRow(*row) for row in await connection.fetch(TEAMS, after, search, limit)]

    async def reviews(
        self,
        team: str,
        business: int,
        platform: Platform,
        who: Identity,
        *,
        after: tuple[dt.datetime | None, str] | None,
        limit: int,
    ) -> list[ReviewView]:
        """A business's reviews, the newest first and those without a date last."""
        moment, last = after or (None, None)
        async with self._as(who) as connection:
            rows = await connection.fetch(REVIEWS, checked_team(team, who), business, platform, last, moment, limit)
            await self._known(connection, team, business, platform, rows)
        return [ReviewView(*row) for row in rows]

    async def overviews(
        self, team: str, business: int, platform: Platform, who: Identity, *, before: dt.datetime | None, limit: int
    ) -> list[OverviewView]:
        """A business's figures, the newest first."""
        async with self._as(who) as connection:
            rows = await connection.fetch(OVERVIEWS, checked_team(team, who), business, platform, before, limit)
            await self._known(connection, team, business, platform, rows)
        return [OverviewView(*row) for row in rows]

    async def _known(
        self, connection: Connection, team: str, business: int, platform: Platform, rows: Sequence[object]
    ) -> None:
        """Nothing found of a business that there is means nothing yet; of another one, that there is none."""
        if not rows and not await connection.fetchval(KNOWN, business, team, platform):
            message = f"the team {team!r} has no business {business} on {platform}"
            raise Refused(Code.NOT_FOUND, message, field="business")
