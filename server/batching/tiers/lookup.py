"""What an administrator may look up: people and why they have their tier, a person's calendar, how far a month is.

    lookup = Lookup(db)
    page = await lookup.people(Wanted(review=True, limit=50))       the review queue is one of its filters
    file = await lookup.person(17)                                  evidence, packages, pool
    seen = await lookup.calendar(17, month)                         slots of every status, rotations, cooldowns
    how = await lookup.state(month)                                 counts, newest runs and verifications, gates, what is next
    past = await lookup.verifications(tier=..., month=...)          newest first

It reads under the service's role and changes nothing. Months are the numbers of months.py. Pages are bounded by PAGE_MOST, a
calendar by SLOTS_MOST. A cursor is always the id of the last row: where it stands in another order is looked up.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import asyncpg
import orjson

from server.batching.tiers.checking import Verification, made
from server.batching.tiers.gates import Step, closed, next_step
from server.batching.tiers.months import name_of
from server.batching.tiers.rules import TIERS, Kind, Tier
from server.batching.tiers.runs import RunView, first_day, month_state, show
from server.batching.tiers.store import PAGE_MOST, no_person, serving
from server.edge.postgres import Connection, Database

Sort: TypeAlias = Literal["id", "name", "tier"]
SORTS: Final[tuple[Sort, ...]] = ("id", "name", "tier")
SLOTS_MOST: Final = 1_000
COOLDOWNS_MOST: Final = 100
RUNNING_MOST: Final = 20

_RANK: Final = "coalesce(array_position(array['S', 'A', 'B', 'C', 'D'], s.tier::text), 6)"
_ORDER: Final[Mapping[Sort, str]] = {"id": "c.id", "name": "c.name, c.id", "tier": f"{_RANK}, c.id"}
_PEOPLE: Final = "tiers.celebrities c join tiers.celebrity_settings s on s.celebrity_id = c.id"
_ROW: Final = """
    c.id, c.key, c.name, s.tier::text, s.source, s.reason, s.needs_review, s.flags, c.country, s.max_monthly_slots, c.excluded,
    s.decided_at"""
PEOPLE: Final[Mapping[Sort, str]] = {
    sort: f"""
select {_ROW} from {_PEOPLE}
where ($1::text is null or s.tier = $1::text::tiers.tier) and ($2::text is null or $2 = any (s.flags))
    and ($3::boolean is null or s.needs_review = $3) and ($4::text is null or c.country = $4)
    and ($5::text is null or c.name ilike $5 or c.key ilike $5) and ($6::boolean is null or (c.excluded is not null) = $6)
    and ($7::bigint is null or ({order}) > (select {order} from {_PEOPLE} where c.id = $7))
order by {order} limit $8"""  # noqa: S608  names are ours
    for sort, order in _ORDER.items()
}
PERSON: Final = f"""
select {_ROW}, c.aliases, c.global_recognition::text, c.career_legacy::text, c.current_relevance::text, c.demand::text,
    c.affluence::text, c.comparables::text, c.legacy, c.global_award, c.net_worth_cents,
    coalesce(c.review_tier, c.override_tier)::text, coalesce(c.review_reason, c.override_reason), c.review_tier is not null,
    c.accepted, c.country_given, c.country_source, s.timezone, c.timezone_given, s.allow_physical,
    s.allow_virtual, s.verified, s.rule_version, c.imported_at, greatest(c.updated_at, s.updated_at)
from {_PEOPLE} where c.id = $1"""  # noqa: S608
PACKAGES: Final = """
select meeting_type::text, duration, price_cents, active from tiers.celebrity_pricing where celebrity_id = $1
order by meeting_type, duration"""
POOL: Final = """
select y.id, y.name, y.country from tiers.celebrity_location_pool p, unnest(p.city_ids) with ordinality as u (id, at)
join tiers.cities y on y.id = u.id where p.celebrity_id = $1 order by u.at"""
SLOTS: Final = """
select a.id, a.celebrity_id, a.meeting_type::text, a.duration, a.starts_at, a.ends_at, a.local_date, a.city_id, y.name, y.country,
    coalesce(y.timezone, s.timezone), a.price_cents, a.status, a.booked_by, a.booked_at, a.cancelled_at
from tiers.availability a join tiers.celebrity_settings s using (celebrity_id) left join tiers.cities y on y.id = a.city_id
where a.celebrity_id = $1 and a.local_date >= $2 and a.local_date < $3 order by a.starts_at, a.id limit $4"""
ROTATIONS: Final = """
select starts_on, ends_on, tier::text, city_ids from tiers.rotations
where celebrity_id = $1 and starts_on < $3 and ends_on > $2 order by starts_on"""
COOLDOWNS: Final = """
select d.city_id, y.name, y.country, d.last_visit, d.until from tiers.city_cooldown d join tiers.cities y on y.id = d.city_id
where d.celebrity_id = $1 and d.until >= $2 order by d.until, d.city_id limit $3"""
CITIES: Final = "select id, name, country from tiers.cities where id = any ($1::int[])"
ITEM: Final = """
select run_id, status, reason, short::text, physical, virtual from tiers.run_items where celebrity_id = $1 and month = $2
order by run_id desc limit 1"""
ZONE: Final = "select coalesce(timezone, '') from tiers.celebrity_settings where celebrity_id = $1"
COUNTED: Final = """
select s.tier::text, count(*) filter (where c.excluded is null), count(*) filter (where c.excluded is not null),
    count(*) filter (where c.excluded is null and s.needs_review),
    count(*) filter (where c.excluded is null and s.source = 'no_evidence')
from tiers.celebrities c left join tiers.celebrity_settings s on s.celebrity_id = c.id group by 1"""
NEWEST: Final = """
select distinct on (tier) id from tiers.runs where kind = 'generate' and scope = 'tier' and month = $1 order by tier, id desc"""
RUNNING: Final = "select id from tiers.runs where status = 'running' order by id limit $1"
_VERIFIED: Final = """
    id, tier::text, to_char(month, 'YYYY-MM'), passed, people, violations, rules::text, examples::text, seconds, who, at, stale"""
VERIFICATIONS: Final = f"""
select {_VERIFIED} from tiers.verifications
where ($1::text is null or tier = $1::text::tiers.tier) and ($2::date is null or month = $2) and ($3::bigint is null or id < $3)
order by id desc limit $4"""  # noqa: S608
VERIFIED: Final = f"""
select distinct on (tier) {_VERIFIED} from tiers.verifications where tier is null or month = $1 order by tier, id desc"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which people: all that is given must hold. `after` is the last id of the page before."""

    tier: Tier | None = None
    flag: str | None = None
    review: bool | None = None
    country: str | None = None
    search: str | None = None
    excluded: bool | None = None
    sort: Sort = "id"
    after: int | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True)
class PersonRow:
    """A person in a list: the tier and how it came about."""

    id: int
    key: str
    name: str
    tier: Tier | None
    source: str | None
    reason: str | None
    needs_review: bool
    flags: Sequence[str]
    country: str | None
    max_monthly_slots: int | None
    excluded: str | None
    decided_at: dt.datetime | None


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known about a person, as it was imported, and what was made of it. `comparables` is JSON;
    `reviewed`: the override is a reviewer's, which goes before that of the import."""

    aliases: Sequence[str]
    global_recognition: Tier | None
    career_legacy: Tier | None
    current_relevance: Tier | None
    demand: Tier | None
    affluence: Tier | None
    comparables: str
    legacy: bool
    global_award: bool
    net_worth_cents: int | None
    override_tier: Tier | None
    override_reason: str | None
    reviewed: bool
    accepted: Sequence[str]
    country_given: str
    country_source: str | None
    timezone: str | None
    timezone_given: str
    allow_physical: bool
    allow_virtual: bool
    verified: bool
    rule_version: int | None
    imported_at: dt.datetime
    updated_at: dt.datetime


@dataclass(frozen=True, slots=True)
class Package:
    """One of the six; not active: not offered."""

    meeting_type: Kind
    duration: int
    price_cents: int
    active: bool


@dataclass(frozen=True, slots=True)
class Place:
    """A city by name."""

    city: int
    name: str
    country: str


@dataclass(frozen=True, slots=True)
class PersonFile:
    """Everything about one person but the calendar and the history."""

    row: PersonRow
    evidence: Evidence
    packages: Sequence[Package]
    pool: Sequence[Place]


@dataclass(frozen=True, slots=True)
class CalendarSlot:
    """A slot of any status, and who booked it."""

    id: int
    celebrity_id: int
    meeting_type: Kind
    duration: int
    starts_at: dt.datetime
    ends_at: dt.datetime
    local_date: dt.date
    city_id: int | None
    city: str | None
    country: str | None
    timezone: str
    price_cents: int
    status: str
    booked_by: str | None
    booked_at: dt.datetime | None
    cancelled_at: dt.datetime | None


@dataclass(frozen=True, slots=True)
class Stay:
    """A rotation: from a day to a day that is no longer in it, and where."""

    starts_on: dt.date
    ends_on: dt.date
    tier: Tier
    cities: Sequence[Place]


@dataclass(frozen=True, slots=True)
class Cooldown:
    """A city that is not visited again before a day."""

    city: int
    name: str
    country: str
    last_visit: dt.date
    until: dt.date


@dataclass(frozen=True, slots=True)
class Planned:
    """What the newest run made of a person's month."""

    run: int
    status: str
    reason: str | None
    short: Mapping[str, str] | None
    physical: int
    virtual: int


@dataclass(frozen=True, slots=True)
class Calendar:
    """A person's month."""

    timezone: str
    slots: Sequence[CalendarSlot]
    rotations: Sequence[Stay]
    cooldowns: Sequence[Cooldown]
    item: Planned | None


@dataclass(frozen=True, slots=True)
class Counts:
    """People in all; `by_tier` has those that are active."""

    active: int
    excluded: int
    missing: int
    needs_review: int
    no_evidence: int
    by_tier: Mapping[Tier, int]


@dataclass(frozen=True, slots=True)
class State:
    """How far a month is. `verified` has the foundation under None; `blocked`: why a tier must wait, None: it need not."""

    month: str
    counts: Counts
    runs: Mapping[Tier, RunView]
    verified: Mapping[Tier | None, Verification]
    blocked: Mapping[Tier, str | None]
    step: Step
    running: Sequence[RunView]


class Lookup:
    """See the module's docstring."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def people(self, wanted: Wanted) -> Sequence[PersonRow]:
        """A page of people."""
        search = None if wanted.search is None else f"%{_literal(wanted.search)}%"
        given = (wanted.tier, wanted.flag, wanted.review, wanted.country, search, wanted.excluded, wanted.after)
        async with serving(self._db) as connection:
            rows = await connection.fetch(PEOPLE[wanted.sort], *given, min(wanted.limit, PAGE_MOST))
        return [PersonRow(*row) for row in rows]

    async def person(self, celebrity: int) -> PersonFile:
        """One person; Refused when there is none."""
        async with serving(self._db) as connection:
            row = await connection.fetchrow(PERSON, celebrity)
            packages = await connection.fetch(PACKAGES, celebrity)
            pool = await connection.fetch(POOL, celebrity)
        if row is None:
            raise no_person(celebrity)
        values = tuple(row)
        return PersonFile(
            PersonRow(*values[:_FIELDS]),
            Evidence(*values[_FIELDS:]),
            [Package(*one) for one in packages],
            [Place(*one) for one in pool],
        )

    async def calendar(self, celebrity: int, month: int) -> Calendar:
        """A person's month by local date; Refused when there is no such person."""
        first, end = first_day(month), first_day(month + 1)
        async with serving(self._db) as connection:
            zone: str | None = await connection.fetchval(ZONE, celebrity)
            slots = await connection.fetch(SLOTS, celebrity, first, end, SLOTS_MOST)
            rotations = await _rotations(connection, celebrity, first, end)
            cooldowns = await connection.fetch(COOLDOWNS, celebrity, first, COOLDOWNS_MOST)
            item = await connection.fetchrow(ITEM, celebrity, first)
        if zone is None:
            raise no_person(celebrity)
        return Calendar(
            zone or "UTC",
            [CalendarSlot(*row) for row in slots],
            rotations,
            [Cooldown(*row) for row in cooldowns],
            None if item is None else _planned(item),
        )

    async def verifications(
        self, *, tier: Tier | None = None, month: int | None = None, before: int | None = None, limit: int = 50
    ) -> Sequence[Verification]:
        """What was verified, newest first; `before` is the id that ended the page before."""
        first = None if month is None else first_day(month)
        async with serving(self._db) as connection:
            rows = await connection.fetch(VERIFICATIONS, tier, first, before, min(limit, PAGE_MOST))
        return [made(row) for row in rows]

    async def state(self, month: int) -> State:
        """How far a month is."""
        first = first_day(month)
        async with serving(self._db) as connection:
            far = await month_state(connection, month)
            runs = [await show(connection, row["id"]) for row in await connection.fetch(NEWEST, first)]
            verified = await connection.fetch(VERIFIED, first)
            counts = await _counted(connection)
            running = [await show(connection, row["id"]) for row in await connection.fetch(RUNNING, RUNNING_MOST)]
        return State(
            month=name_of(month),
            counts=counts,
            runs={run.tier: run for run in runs if run.tier is not None},
            verified={one.tier: one for one in map(made, verified)},
            blocked={tier: closed(tier, name_of(month), far, override=False) for tier in TIERS},
            step=next_step(far),
            running=running,
        )


_FIELDS: Final = len(PersonRow.__slots__)


def _literal(text: str) -> str:
    """A text in which LIKE finds no pattern."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _planned(item: asyncpg.Record) -> Planned:
    run, status, reason, short, physical, virtual = tuple(item)
    return Planned(run, status, reason, orjson.loads(short) if short else None, physical, virtual)


async def _rotations(connection: Connection, celebrity: int, first: dt.date, end: dt.date) -> Sequence[Stay]:
    rows = await connection.fetch(ROTATIONS, celebrity, first, end)
    ids = sorted({city for row in rows for city in row["city_ids"]})
    places = {row["id"]: Place(*row) for row in await connection.fetch(CITIES, ids)}
    return [Stay(row[0], row[1], row[2], [places[city] for city in row["city_ids"] if city in places]) for row in rows]


async def _counted(connection: Connection) -> Counts:
    rows = [tuple(row) for row in await connection.fetch(COUNTED)]
    by_tier: dict[Tier, int] = {tier: next((row[1] for row in rows if row[0] == tier), 0) for tier in TIERS}
    return Counts(
        active=sum(row[1] for row in rows),
        excluded=sum(row[2] for row in rows),
        missing=sum(row[1] for row in rows if row[0] is None),
        needs_review=sum(row[3] for row in rows),
        no_evidence=sum(row[4] for row in rows),
        by_tier=by_tier,
    )
