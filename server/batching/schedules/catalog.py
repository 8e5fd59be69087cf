"""What there is to see: batches, who is in them, what a team has, and whether all is well. And an administrator's pause."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Final

import asyncpg

from server.batching.audit import write as audit
from server.batching.schedules import store as s
from server.batching.schedules.placing import Placing
from server.batching.schedules.plan import (
    BASE_LINES,
    CRITICAL,
    CUSTOM_TIER,
    TYPES,
    WARNING,
    Custom,
    Health,
    Line,
    Platform,
    Tier,
    Type,
    health,
    hours_of,
)
from server.core.identity import Identity
from server.edge.postgres import Connection
from server.errors import Code, Refused

PAGE_MOST: Final = 1_000
STATES: Final = ("active", "paused", "empty", "aside")

_BATCH: Final = """s.id, s.platform, s.type, s.interval_hours, s.batch_index, s.capacity, s.businesses, s.active, s.paused, s.next_run_at,
    s.last_run_at, s.input_version, s.provider_schedule_id"""
BATCH: Final = f"select {_BATCH} from schedules.schedule s where s.id = $1"  # noqa: S608  names are ours
BATCHES: Final = """
select s.id, coalesce(s.platform, b.platform), coalesce(s.type, b.type), coalesce(s.interval_hours, b.hours),
    coalesce(s.batch_index, 0), s.capacity, coalesce(s.businesses, 0), coalesce(s.active, true), coalesce(s.paused, false),
    s.next_run_at, s.last_run_at, coalesce(s.input_version, 0), s.provider_schedule_id
from schedules.schedule s full join unnest($1::text[], $2::text[], $3::int[], $4::int[]) as b (platform, type, hours, batch)
    on s.platform = b.platform and s.type = b.type and s.interval_hours = b.hours and s.batch_index = b.batch
where ($5::text is null or coalesce(s.platform, b.platform) = $5) and ($6::text is null or coalesce(s.type, b.type) = $6)
    and ($7::int is null or coalesce(s.interval_hours, b.hours) = $7)
    and case $13::text when 'critical' then s.businesses >= $15::float8 * s.capacity
        when 'warning' then s.businesses >= $16::float8 * s.capacity and s.businesses < $15::float8 * s.capacity
        when 'healthy' then s.id is null or s.businesses < $16::float8 * s.capacity else true end
    and case $14::text when 'active' then s.active and not s.paused when 'paused' then s.paused
        when 'aside' then not s.active when 'empty' then coalesce(s.businesses, 0) = 0 else true end
    and (coalesce(s.platform, b.platform)::text, coalesce(s.type, b.type)::text, coalesce(s.interval_hours, b.hours)::int,
        coalesce(s.batch_index, 0)) > ($8::text, $9::text, $10::int, $11::int)
order by 2, 3, 4, 5 limit $12"""
MEMBERS: Final = """
select m.business_id, m.team, b.name, m.identifier, m.returned, b.status
from schedules.mapping m join schedules.business b on b.id = m.business_id
where m.schedule_id = $1 and m.business_id > $2 order by m.business_id limit $3"""
PROFILES: Final = """
select b.id, b.team, b.name, b.status, b.identifiers ->> $2 as identifier, m.type, s.id as schedule_id, s.interval_hours, s.batch_index,
    s.paused, s.next_run_at, s.last_run_at
from (select * from schedules.business where team = $1 and identifiers ? $2 and id > $3 order by id limit $4) b
left join schedules.mapping m on m.business_id = b.id and m.platform = $2
left join schedules.schedule s on s.id = m.schedule_id
order by b.id, m.type"""
TEAM: Final = "select tier from schedules.team where team = $1"
TEAM_BUSINESSES: Final = "select count(*) from schedules.business where team = $1"
TEAM_BATCHES: Final = """
select s.id, s.platform, s.type, s.interval_hours, s.batch_index, s.paused, s.next_run_at, s.last_run_at, count(*)::int as mine
from schedules.business b join schedules.mapping m on m.business_id = b.id join schedules.schedule s on s.id = m.schedule_id
where b.team = $1 group by 1, 2, 3, 4, 5, 6, 7, 8 order by 2, 3, 4, 5"""
PAUSE: Final = "update schedules.schedule set paused = true where id = $1 and not paused returning id"
RESUME: Final = """
update schedules.schedule set paused = false, next_run_at = greatest(next_run_at, $2) where id = $1 and paused returning id"""
GRID: Final = "select interval_hours, offset_minutes from schedules.schedule where id = $1 for no key update"
GRADES: Final = """
select count(*) as total, count(*) filter (where active and not paused) as active, count(*) filter (where paused) as paused,
    count(*) filter (where businesses = 0) as empty,
    count(*) filter (where businesses >= $1::float8 * capacity) as critical,
    count(*) filter (where businesses >= $2::float8 * capacity and businesses < $1::float8 * capacity) as warning
from schedules.schedule"""
COUNTS: Final = "select (select count(*) from schedules.business), (select count(*) from schedules.team)"
RETRIES: Final = "select state, count(*) from schedules.retry group by state"
FULL: Final = """
select platform, type, interval_hours from schedules.schedule
group by 1, 2, 3 having count(*) >= $1 and sum(businesses) > $2::float8 * sum(capacity) order by 1, 2, 3"""


@dataclass(frozen=True, slots=True)
class Batch:
    """One schedule as administrators see it; `id` None: a base schedule that nobody has needed yet."""

    id: int | None
    platform: Platform
    type: Type
    hours: int
    index: int
    capacity: int
    businesses: int
    active: bool
    paused: bool
    next_run_at: dt.datetime | None
    last_run_at: dt.datetime | None
    input_version: int
    provider_schedule_id: str | None

    @property
    def empty(self) -> bool:
        """Has it nothing to ask for?"""
        return self.businesses == 0

    @property
    def load(self) -> float:
        """Its share of what it may hold."""
        return self.businesses / self.capacity

    @property
    def health(self) -> Health:
        """Its grade."""
        return health(self.businesses, self.capacity)

    @property
    def base(self) -> bool:
        """Is it one of the 32 or a further batch of one?"""
        return Line(self.platform, self.type, self.hours) in BASE_LINES

    @property
    def cursor(self) -> str:
        """What `batches` takes as `after` to go on behind this one."""
        return f"{self.platform}:{self.type}:{self.hours}:{self.index}"


@dataclass(frozen=True, slots=True)
class Turned:
    """A schedule that was paused or resumed; without an entry in the trail it was so before."""

    batch: Batch
    audit_id: int | None


@dataclass(frozen=True, slots=True)
class Member:
    """A business of a batch."""

    business_id: int
    team: str
    name: str
    identifier: str
    returned: str | None
    status: str


@dataclass(frozen=True, slots=True)
class Placement:
    """Where and when a business, or several of a team, are asked for; nothing of others who are there too."""

    schedule_id: int
    type: Type
    hours: int
    index: int
    paused: bool
    next_run_at: dt.datetime
    last_run_at: dt.datetime | None


@dataclass(frozen=True, slots=True)
class Profile:
    """A business on a platform, as its team sees it."""

    id: int
    team: str
    platform: Platform
    name: str
    status: str
    identifier: str
    placements: tuple[Placement, ...]


@dataclass(frozen=True, slots=True)
class TeamLine:
    """What a team has on a platform, for a type: the interval that it should have, and the batches that its businesses are in."""

    platform: Platform
    type: Type
    hours: int
    own: bool
    expires_at: dt.datetime | None
    businesses: int
    placements: tuple[Placement, ...]


@dataclass(frozen=True, slots=True)
class TeamView:
    """A team and its schedules."""

    team: str
    tier: Tier
    businesses: int
    lines: tuple[TeamLine, ...]


@dataclass(frozen=True, slots=True)
class Wellbeing:
    """The state of all schedules. `full`: lines with a load above the critical mark that can get no further batch."""

    total: int
    active: int
    paused: int
    empty: int
    healthy: int
    warning: int
    critical: int
    businesses: int
    teams: int
    retries: dict[str, int]
    full: tuple[Line, ...]


class Catalog:
    """The verbs that read."""

    def __init__(self, placing: Placing) -> None:
        self._placing = placing

    async def batches(
        self,
        who: Identity,
        *,
        platform: Platform | None = None,
        type: Type | None = None,
        hours: int | None = None,
        health: Health | None = None,
        state: str | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> list[Batch]:
        """Schedules by platform, type, interval and index, the 32 base ones always; `after` is a `Batch.cursor`.

        `state`: one of STATES; `aside` are those that consolidation has emptied."""
        s.checked_admin(who)
        base = list(zip(*((x.platform, x.type, x.hours, 0) for x in BASE_LINES), strict=True))

        async def work(connection: Connection) -> list[Batch]:
            key = _key(after)
            marks = (health, state, CRITICAL, WARNING)
            chosen = (platform, type, hours, *key, min(limit, PAGE_MOST), *marks)
            rows = await connection.fetch(BATCHES, *base, *chosen)
            return [self._batch(row) for row in rows]

        return await self._placing.survey(work)

    async def batch(self, schedule_id: int, who: Identity) -> Batch:
        """One schedule."""
        s.checked_admin(who)

        async def work(connection: Connection) -> Batch:
            return await self._show(connection, schedule_id)

        return await self._placing.survey(work)

    async def members(self, schedule_id: int, who: Identity, *, after: int = 0, limit: int = 100) -> list[Member]:
        """The businesses of a schedule by id; `after` is the last one of the page before."""
        s.checked_admin(who)

        async def work(connection: Connection) -> list[Member]:
            await self._show(connection, schedule_id)
            rows = await connection.fetch(MEMBERS, schedule_id, after, min(limit, PAGE_MOST))
            return [Member(*row) for row in rows]

        return await self._placing.survey(work)

    async def profiles(
        self, team: str, platform: Platform, who: Identity, *, after: int = 0, limit: int = 50
    ) -> list[Profile]:
        """A team's businesses on a platform by id, each with its schedules."""

        async def work(connection: Connection) -> list[Profile]:
            await s.act_for(connection, who)
            named = s.checked_team(team, who)
            return _profiles(platform, await connection.fetch(PROFILES, named, platform, after, min(limit, PAGE_MOST)))

        return await self._placing.survey(work)

    async def team(self, team: str, who: Identity) -> TeamView:
        """A team, its intervals and its batches."""

        async def work(connection: Connection) -> TeamView:
            await s.act_for(connection, who)
            tier: Tier | None = await connection.fetchval(TEAM, s.checked_team(team, who))
            if tier is None:
                raise Refused(
                    Code.NOT_FOUND, f"there is no team {team!r}; it begins with its first business", field="team"
                )
            rows = await connection.fetch(TEAM_BATCHES, team)
            lines = _team_lines(team, tier, await s.customs(connection, [team]), rows, self._placing.now)
            return TeamView(team, tier, await connection.fetchval(TEAM_BUSINESSES, team), lines)

        return await self._placing.survey(work)

    async def pause(self, schedule_id: int, who: Identity) -> Turned:
        """No more runs of a schedule, and no more businesses into it, until it is resumed."""
        return await self._turn(schedule_id, who, "pause")

    async def resume(self, schedule_id: int, who: Identity) -> Turned:
        """Go on with its next slot; what passed meanwhile is not made up for."""
        return await self._turn(schedule_id, who, "resume")

    async def _turn(self, schedule_id: int, who: Identity, verb: str) -> Turned:
        s.checked_admin(who)

        async def work(connection: Connection) -> Turned:
            grid = await connection.fetchrow(GRID, schedule_id)
            if grid is None:
                raise no_schedule(schedule_id)
            values = [] if verb == "pause" else [s.first_run(self._placing.now, *grid)]
            changed = await connection.fetchval(PAUSE if verb == "pause" else RESUME, schedule_id, *values)
            entry = None
            if changed is not None:
                was = {"paused": verb != "pause"}
                after = {"paused": verb == "pause"}
                entry = await audit(
                    connection, who.user, f"schedules.{verb}", f"schedule {schedule_id}", before=was, after=after
                )
            return Turned(await self._show(connection, schedule_id), entry)

        return await self._placing.survey(work)

    async def wellbeing(self) -> Wellbeing:
        """The state of all schedules in a few counts."""

        async def work(connection: Connection) -> Wellbeing:
            grades = await connection.fetchrow(GRADES, CRITICAL, WARNING)
            assert grades is not None
            businesses, teams = tuple(await connection.fetchrow(COUNTS) or (0, 0))
            retries = {row["state"]: row["count"] for row in await connection.fetch(RETRIES)}
            full = await connection.fetch(FULL, self._placing.terms.batches_most, CRITICAL)
            counts = dict(grades)
            counts["healthy"] = counts["total"] - counts["warning"] - counts["critical"]
            lines = tuple(Line(*row) for row in full)
            return Wellbeing(**counts, businesses=businesses, teams=teams, retries=retries, full=lines)

        return await self._placing.survey(work)

    async def _show(self, connection: Connection, schedule_id: int) -> Batch:
        row = await connection.fetchrow(BATCH, schedule_id)
        if row is None:
            raise no_schedule(schedule_id)
        return self._batch(row)

    def _batch(self, row: asyncpg.Record) -> Batch:
        values = list(row)
        values[5] = values[5] or self._placing.terms.capacities[values[1]]
        return Batch(*values)


def no_schedule(schedule_id: int) -> Refused:
    """There is none of this number."""
    return Refused(Code.NOT_FOUND, f"there is no schedule {schedule_id}", field="id")


def _key(after: str | None) -> tuple[str, str, int, int]:
    if after is None:
        return "", "", 0, 0
    parts = after.split(":")
    if len(parts) != 4 or not (parts[2].isdigit() and parts[3].isdigit()) or len(parts[2] + parts[3]) > 12:
        raise Refused(
            Code.BAD_MESSAGE, f"{after[:100]!r} is no place in the list; use `next` of the page before", field="after"
        )
    return parts[0], parts[1], int(parts[2]), int(parts[3])


def _placement(row: asyncpg.Record, schedule_id: int) -> Placement:
    return Placement(
        schedule_id,
        row["type"],
        row["interval_hours"],
        row["batch_index"],
        row["paused"],
        row["next_run_at"],
        row["last_run_at"],
    )


def _profiles(platform: Platform, rows: list[asyncpg.Record]) -> list[Profile]:
    placements: dict[int, list[Placement]] = {}
    for row in rows:
        mine = placements.setdefault(row["id"], [])
        if row["schedule_id"] is not None:
            mine.append(_placement(row, row["schedule_id"]))
    first = {row["id"]: row for row in reversed(rows)}
    return [
        Profile(i, r["team"], platform, r["name"], r["status"], r["identifier"], tuple(placements[i]))
        for i, r in sorted(first.items())
    ]


def _team_lines(
    team: str,
    tier: Tier,
    own: dict[tuple[str, Platform, Type], Custom],
    rows: list[asyncpg.Record],
    now: dt.datetime,
) -> tuple[TeamLine, ...]:
    """A line for each platform and type that the team has anything on."""
    lines = []
    platforms = sorted({row["platform"] for row in rows} | {platform for _, platform, _ in own})
    for platform in platforms:
        for type in TYPES:
            mine = [row for row in rows if (row["platform"], row["type"]) == (platform, type)]
            custom = own.get((team, platform, type))
            holds = custom is not None and tier == CUSTOM_TIER and custom.holds(now)
            expires_at = custom.expires_at if custom is not None and holds else None
            hours = hours_of(tier, type, custom, now)
            places = tuple(_placement(row, row["id"]) for row in mine)
            count = sum(row["mine"] for row in mine)
            lines.append(TeamLine(platform, type, hours, holds, expires_at, count, places))
    return tuple(lines)
