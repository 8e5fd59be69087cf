"""The SQL of placing: a constant and a function each, rows turned into values. Who calls decides the transaction and the role.

The order of locks, which everybody keeps: the team's row, then its lines (the row of each one's batch 0, in the order of platform,
type, hours), then the platforms in which batches are made. `settled` runs a piece of work in a transaction and once more when
PostgreSQL chose it to end a deadlock.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

import asyncpg

from server.batching.schedules.cadence import Minutes, minute_of, next_slot, time_of
from server.batching.schedules.inputs import TEAM_MOST, words
from server.batching.schedules.plan import Custom, Line, Platform, Seat, Tier, Type
from server.core.identity import Identity
from server.edge.postgres import Connection, Database
from server.errors import Code, Refused

T = TypeVar("T")

SERVICE: Final = "batchcast_schedules"
TEAM: Final = "batchcast_team"
ATTEMPTS: Final = 5
"""So often a transaction is tried that PostgreSQL ended because of another one."""
PLATFORM_LOCK: Final = 0x6263_0006
"""The first number of the advisory locks that makers of batches hold; the second is the platform's."""
CAPACITIES: Final[dict[Platform, int]] = {"google": 50, "facebook": 30, "tripadvisor": 30, "booking": 30}

ACT_AS: Final = """
select set_config('idle_in_transaction_session_timeout', '30s', true), set_config('role', $1, true),
    set_config('batchcast.team', $2, true)"""

AS_SERVICE: Final = f"""
set local idle_in_transaction_session_timeout = '30s'; set local role {SERVICE}; set local batchcast.team = ''"""
"""ACT_AS of the service, to open a transaction with."""
BY_KEYS: Final = f"{AS_SERVICE}; set local enable_seqscan = off"
"""The same where every statement names its rows by their keys. A plan that was made while a table was small must not read all of
it when it has grown: nothing tells PostgreSQL so before it next looks at the table by itself."""

NOTING: Final = f"{BY_KEYS}; set local synchronous_commit = off"
"""The same for what is found out again when a crash of PostgreSQL takes it back: webhooks (the poll comes round), runs that the
provider has, pages of datasets, each with the position behind it. Nobody waits for the disk then. What must never be done twice
(the claim of a start) and what somebody was promised does wait, and with it everything that was noted before."""

MAKE_TEAMS: Final = """
insert into schedules.team (team, tier) select * from unnest($1::text[], $2::text[]) on conflict (team) do nothing"""
LOCK_TEAMS: Final = """
select team, tier from schedules.team where team = any ($1::text[]) order by team for no key update"""
CUSTOMS: Final = """
select team, platform, type, interval_hours, expires_at from schedules.custom_interval where team = any ($1::text[])"""

LOCK_LINES: Final = """
select s.platform, s.type, s.interval_hours from schedules.schedule s
join unnest($1::text[], $2::text[], $3::int[]) as l (platform, type, hours)
    on s.platform = l.platform and s.type = l.type and s.interval_hours = l.hours
where s.batch_index = 0 order by s.platform, s.type, s.interval_hours for no key update of s"""
_SEAT: Final = "s.id, s.batch_index, s.businesses, s.capacity, s.active, s.paused"
_OF_LINE: Final = """
    from schedules.schedule s where s.platform = l.platform and s.type = l.type and s.interval_hours = l.hours"""
# For so many businesses no more than so many batches are ever chosen, and these are the least loaded of all.
ROOM: Final = f"""
select l.platform, l.type, l.hours, b.*
from unnest($1::text[], $2::text[], $3::int[], $4::int[]) as l (platform, type, hours, wanted) join lateral (
    (select {_SEAT}{_OF_LINE} and s.active and not s.paused and s.businesses < s.capacity
    order by s.businesses, s.batch_index limit l.wanted)
    union all
    (select {_SEAT}{_OF_LINE} and not s.active and not s.paused and s.businesses < s.capacity
    order by s.batch_index limit l.wanted)
    union all
    (select {_SEAT}{_OF_LINE} and l.wanted > 0 order by s.batch_index desc limit 1)
) b on true"""  # noqa: S608  names are ours
WHOLE: Final = f"""
select l.platform, l.type, l.hours, {_SEAT} from unnest($1::text[], $2::text[], $3::int[]) as l (platform, type, hours)
join schedules.schedule s on s.platform = l.platform and s.type = l.type and s.interval_hours = l.hours"""  # noqa: S608
PLATFORM_LOCKS: Final = """
select pg_advisory_xact_lock($1, p.n) from unnest($2::int[]) as p (n) order by p.n"""
OFFSETS: Final = "select interval_hours, offset_minutes from schedules.schedule where platform = $1"
NEW_BATCHES: Final = """
insert into schedules.schedule (platform, type, interval_hours, batch_index, offset_minutes, capacity, next_run_at)
select * from unnest($1::text[], $2::text[], $3::int[], $4::int[], $5::int[], $6::int[], $7::timestamptz[])
on conflict (platform, type, interval_hours, batch_index) do nothing
returning id, platform, type, interval_hours, batch_index"""
REOPEN: Final = "update schedules.schedule set active = true where id = any ($1::bigint[]) and not active"
SET_ASIDE: Final = """
update schedules.schedule set active = false
where id = any ($1::bigint[]) and batch_index > 0 and businesses = 0 and active"""

# By the key, business by business (`offset 0` keeps the planner from anything else): a team has few of so many.
MAPPINGS_OF: Final = """
select m.business_id, m.platform, m.type, s.interval_hours
from schedules.business b
cross join lateral (select * from schedules.mapping m where m.business_id = b.id offset 0) m
join schedules.schedule s on s.id = m.schedule_id
where b.team = $1 and m.platform = any ($2::text[]) and m.type = any ($3::text[])
order by m.business_id, m.platform, m.type"""
PLACE: Final = """
insert into schedules.mapping (business_id, team, platform, type, schedule_id, identifier)
select * from unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[])"""
MOVE: Final = """
update schedules.mapping m set schedule_id = u.schedule_id
from unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[]) as u (business_id, platform, type, schedule_id)
join schedules.mapping before on before.business_id = u.business_id and before.platform = u.platform and before.type = u.type
where m.business_id = u.business_id and m.platform = u.platform and m.type = u.type
returning before.schedule_id"""


@dataclass(frozen=True, slots=True)
class Terms:
    """How businesses are placed and what of them is kept. `capacities`: businesses in a batch, by platform;
    `tier`: of a team that was not heard of; `batches_most`: of a line, above which placing is refused."""

    capacities: Mapping[Platform, int] = field(default_factory=lambda: CAPACITIES)
    tier: Tier = "starter"
    batches_most: int = 10_000
    keep_reviews: bool = False
    keep_history_days: int = 400
    balance: bool = True


@dataclass(frozen=True, slots=True)
class Placed:
    """One mapping: a business on a platform, one type, and the line that it is in."""

    business_id: int
    line: Line


async def settled(db: Database, work: Callable[[Connection], Awaitable[T]], opening: str = "") -> T:
    """The work in a transaction of its own; again from the start when it was ended for another one's sake."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            async with db.transaction(opening) as connection:
                return await work(connection)
        except (asyncpg.DeadlockDetectedError, asyncpg.SerializationError):
            if attempt == ATTEMPTS:
                raise
    raise AssertionError("the last attempt returns or raises")


async def act_as(connection: Connection, role: str, team: str = "") -> None:
    """Take a role until the end of the transaction, or another one in its place."""
    await connection.execute(ACT_AS, role, team)


async def act_for(connection: Connection, who: Identity) -> None:
    """The role in which this caller's rows are looked at: an admin's shows all, anybody else's the team's own."""
    await act_as(connection, SERVICE if who.admin else TEAM, who.team or "")


def checked_team(team: str, who: Identity) -> str:
    """The team, when this caller may speak for it."""
    if words(team, "team", TEAM_MOST, 1) != team:
        raise Refused(Code.BAD_MESSAGE, "a team's name neither begins nor ends with a space", field="team")
    if not who.admin and (who.team is None or who.team != team):
        raise Refused(
            Code.FORBIDDEN, f"your token does not speak for the team {team!r}; use one of that team", field="team"
        )
    return team


def checked_admin(who: Identity) -> None:
    """Refuse who is none."""
    if not who.admin:
        raise Refused(Code.FORBIDDEN, "this is for administrators; use an admin's token")


async def lock_teams(connection: Connection, tiers: Mapping[str, Tier]) -> dict[str, Tier]:
    """Hold these teams, made with the tier given where they are new; the tiers that they have."""
    names = sorted(tiers)
    await connection.execute(MAKE_TEAMS, names, [tiers[name] for name in names])
    return {row["team"]: row["tier"] for row in await connection.fetch(LOCK_TEAMS, names)}


async def customs(connection: Connection, teams: Sequence[str]) -> dict[tuple[str, Platform, Type], Custom]:
    """The intervals of their own that teams have, also those that have run out."""
    rows = await connection.fetch(CUSTOMS, teams)
    return {(r["team"], r["platform"], r["type"]): Custom(r["interval_hours"], r["expires_at"]) for r in rows}


async def mappings_of(
    connection: Connection, team: str, platforms: Sequence[Platform], types: Sequence[Type]
) -> list[Placed]:
    """A team's mappings, each with the line that it is in."""
    rows = await connection.fetch(MAPPINGS_OF, team, platforms, types)
    return [Placed(r[0], Line(r[1], r[2], r[3])) for r in rows]


# Lines and their batches


class LinesMissing(Exception):
    """These lines have no batch 0 to lock: make them (`make_lines`) and begin again."""

    def __init__(self, lines: Iterable[Line]) -> None:
        super().__init__("lines without a batch")
        self.lines = sorted(lines)


@dataclass(slots=True)
class Held:
    """Batches of the lines that a transaction holds, and their ids."""

    seats: dict[Line, list[Seat]]
    ids: dict[tuple[Line, int], int]


def columns(lines: Iterable[Line]) -> tuple[list[str], list[str], list[int]]:
    """Lines as arrays for SQL."""
    ordered = sorted(lines)
    return [x.platform for x in ordered], [x.type for x in ordered], [x.hours for x in ordered]


async def hold_lines(connection: Connection, lines: Iterable[Line]) -> None:
    """Lock lines until the end of the transaction: from here on the counts of their batches stand still."""
    wanted = set(lines)
    rows = await connection.fetch(LOCK_LINES, *columns(wanted))
    missing = wanted - {Line(*row) for row in rows}
    if missing:
        raise LinesMissing(missing)


async def room(connection: Connection, wanted: Mapping[Line, int]) -> Held:
    """Of lines that are held, the batches among which so many businesses of each find their places, and the last one."""
    lines = sorted(wanted)
    return _held(wanted, await connection.fetch(ROOM, *columns(lines), [wanted[line] for line in lines]))


async def whole(connection: Connection, line: Line) -> Held:
    """All batches of a line that is held."""
    return _held([line], await connection.fetch(WHOLE, *columns([line])))


def _held(lines: Iterable[Line], rows: Iterable[asyncpg.Record]) -> Held:
    held = Held({line: [] for line in lines}, {})
    for row in rows:
        line = Line(row[0], row[1], row[2])
        if (line, row[4]) not in held.ids:
            held.ids[line, row[4]] = row[3]
            held.seats[line].append(Seat(row[4], row[5], row[6], row[7], row[8]))
    return held


async def make_lines(db: Database, lines: Iterable[Line], terms: Terms, now: dt.datetime) -> None:
    """Give each of these lines its batch 0; one that somebody else made meanwhile is left alone."""

    async def work(connection: Connection) -> None:
        await make_batches(connection, [(line, 0) for line in sorted(lines)], terms, now)

    await settled(db, work, AS_SERVICE)


async def make_batches(
    connection: Connection, wanted: Sequence[tuple[Line, int]], terms: Terms, now: dt.datetime
) -> dict[tuple[Line, int], int]:
    """New batches by line and index, each at a minute that no other one of its platform has; the ids of those made."""
    platforms = sorted({line.platform for line, _ in wanted})
    numbers = [list(CAPACITIES).index(platform) for platform in platforms]
    await connection.execute(PLATFORM_LOCKS, PLATFORM_LOCK, numbers)
    minutes = {p: Minutes((r[0], r[1]) for r in await connection.fetch(OFFSETS, p)) for p in platforms}
    offsets = [minutes[line.platform].take(index, line.hours) for line, index in wanted]
    lines = [line for line, _ in wanted]
    rows = await connection.fetch(
        NEW_BATCHES,
        [line.platform for line in lines],
        [line.type for line in lines],
        [line.hours for line in lines],
        [index for _, index in wanted],
        offsets,
        [terms.capacities[line.platform] for line in lines],
        [first_run(now, line.hours, offset) for line, offset in zip(lines, offsets, strict=True)],
    )
    return {(Line(r[1], r[2], r[3]), r[4]): r[0] for r in rows}


def first_run(now: dt.datetime, hours: int, offset: int) -> dt.datetime:
    """The first slot of a batch that is made, or goes on, now."""
    return time_of(next_slot(minute_of(now), hours, offset))
