"""Verification: what phase 1 and each tier's month promise, asked of the rows themselves, whoever wrote them.

    check = Check("S", month)                     None, None: the foundation
    while not check.ended: await check.step(db)   two CHUNKs of people by id: memory does not depend on how many there are
    verification = await check.save(db, who)

Each rule is a question to sets of rows, not to one person after the other; judge.py is the slow, obvious version of the same
rules, and tests hold the two together. Rules in this order:

    the foundation   missing_tier, packages_six, price_range, max_slots, verified, country
    a tier's month   slots_present, no_overlap, cooldown, home_country, monthly_counts, rotation_lengths, slot_price

What an item explains is no violation: a kind of meeting that is not allowed, a pool that is exhausted, a lead time that
leaves no room. Cancelled slots count for the minimum, as they were offered, and for nothing else. Slots that are booked keep
their price and may exceed a maximum that was lowered later.

A verification names EXAMPLES people of each rule and counts them all. It is one statement a chunk, each of which sees the rows
as they are then; a run of the same tier that goes on meanwhile makes the result stale by itself.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import asyncpg
import orjson

from server.batching.tiers.countries import codes
from server.batching.tiers.months import name_of
from server.batching.tiers.rules import CITIES_MOST, RULES, TIERS, Tier
from server.batching.tiers.runs import first_day
from server.batching.tiers.store import PAGE_MOST, serving
from server.edge.clock import Clock
from server.edge.postgres import Connection, Database
from server.edge.tasks import both
from server.errors import Code, Refused

CHUNK: Final = 5_000
EXAMPLES: Final = 20
"""People named for each rule."""
FOUNDATION: Final = ("missing_tier", "packages_six", "price_range", "max_slots", "verified", "country")
MONTHLY: Final = (
    *("slots_present", "no_overlap", "cooldown", "home_country"),
    *("monthly_counts", "rotation_lengths", "slot_price"),
)

# What a chunk needs of large tables is read by its range of ids, or person by person where time matters too (lateral, offset 0).
# The rest are sets in memory, which PostgreSQL takes for tiny; joined row by row they would cost the square of the people.
NOW: Final = "select clock_timestamp()"
PREPARE: Final = """
select set_config('work_mem', '64MB', true), set_config('jit', 'off', true),
    set_config('enable_nestloop', 'off', true)"""
PEOPLE: Final = """
select coalesce(max(id), 0), count(*) from (
    select c.id from tiers.celebrities c where c.id > $1 and c.excluded is null order by c.id limit $2) p"""
PEOPLE_OF: Final = """
select coalesce(max(id), 0), count(*) from (
    select s.celebrity_id as id from tiers.celebrity_settings s join tiers.celebrities c on c.id = s.celebrity_id
    where s.tier = $3::text::tiers.tier and s.celebrity_id > $1 and c.excluded is null order by s.celebrity_id limit $2) p"""

_LIMITS: Final = ", ".join(
    f"('{tier}'::tiers.tier, {r.price_cents[0]}::bigint, {r.price_cents[1]}::bigint, {r.max_slots[0]}, {r.max_slots[1]})"
    for tier, r in RULES.items()
)
CHECK_PEOPLE: Final = f"""
with limits (tier, cheapest, dearest, least, most) as (values {_LIMITS}),
people as materialized (
    select c.id, c.key, c.name, c.country, s.tier, s.max_monthly_slots, s.verified, s.allow_physical, s.allow_virtual
    from tiers.celebrities c left join tiers.celebrity_settings s on s.celebrity_id = c.id
    where c.id > $1 and c.id <= $2 and c.excluded is null
),
prices as (
    select p.id, count(r.celebrity_id) as packages, min(r.price_cents) as cheapest, max(r.price_cents) as dearest,
        bool_or(r.active <> case r.meeting_type when 'physical' then p.allow_physical else p.allow_virtual end) as wrong
    from people p left join (
        select * from tiers.celebrity_pricing where celebrity_id > $1 and celebrity_id <= $2) r on r.celebrity_id = p.id
    group by p.id
)
select v.rule, p.id, p.key, p.name, v.detail
from people p join prices q on q.id = p.id left join limits l on l.tier = p.tier
cross join lateral (values
    ('missing_tier', p.tier is null, 'has no tier'),
    ('packages_six', q.packages <> 6 or q.wrong, case when q.packages <> 6 then q.packages || ' packages'
        else 'active packages are not those of the allowed kinds' end),
    ('price_range', q.cheapest < l.cheapest or q.dearest > l.dearest,
        q.cheapest || ' to ' || q.dearest || ' cents, allowed ' || l.cheapest || ' to ' || l.dearest),
    ('max_slots', p.max_monthly_slots is null or p.max_monthly_slots not between l.least and l.most,
        coalesce(p.max_monthly_slots::text, 'none') || ', allowed ' || l.least || ' to ' || l.most),
    ('verified', p.verified is not true, 'is not verified'),
    ('country', p.country is null or p.country <> all ($3::text[]), coalesce(p.country, 'none'))
) v (rule, broken, detail)
where v.broken order by p.id"""  # noqa: S608  numbers of ours

CHECK_MONTH: Final = """
with people as materialized (
    select c.id, c.key, c.name, coalesce(c.country, '') as country, s.max_monthly_slots as most,
        s.allow_physical, s.allow_virtual
    from tiers.celebrity_settings s join tiers.celebrities c on c.id = s.celebrity_id
    where s.tier = $3::text::tiers.tier and s.celebrity_id > $1 and s.celebrity_id <= $2 and c.excluded is null
), near as materialized (
    select p.id, a.meeting_type = 'physical' as physical, a.duration, a.starts_at, a.ends_at, a.local_date, a.city_id,
        a.price_cents, a.status, a.local_date >= $4 and a.local_date < $5 as within
    from people p cross join lateral (
        select * from tiers.availability a
        where a.celebrity_id = p.id and a.starts_at >= $4::date - interval '2 days' and a.starts_at < $5::date + interval '2 days'
        offset 0) a
), slots as (
    select * from near where within
), counts as (
    select id, physical, count(*) as offered, count(*) filter (where status <> 'cancelled') as live,
        count(*) filter (where status in ('booked', 'expired')) as settled
    from slots group by id, physical
), kinds as materialized (
    select p.id, p.most as in_all, k.name, k.allowed, k.least, k.most, coalesce(c.offered, 0) as offered, coalesce(c.live, 0) as live,
        coalesce(c.settled, 0) as settled, i.run_id is not null as planned, coalesce(i.short ? k.name, false) as short
    from people p cross join lateral (values
        ('physical', true, p.allow_physical, $6::int, case when p.allow_physical then $7::int else 0 end),
        ('virtual', false, p.allow_virtual, $8::int, case when p.allow_virtual then $9::int else 0 end)
    ) k (name, physical, allowed, least, most)
    left join counts c on c.id = p.id and c.physical = k.physical
    left join (
        select celebrity_id, run_id, short from tiers.run_items
        where celebrity_id > $1 and celebrity_id <= $2 and month = $4 and status = 'done') i on i.celebrity_id = p.id
), counted as (
    select id, 'slots_present' as rule, case when bool_or(planned) then 'no slots, and no reason' else 'was not planned' end as detail
    from kinds group by id having sum(offered) = 0 and bool_or(allowed and least > 0 and not short)
    union all
    select id, 'monthly_counts', live || ' ' || name || ' slots, at least ' || least from kinds
    where allowed and offered < least and not short
    union all
    select id, 'monthly_counts', live || ' ' || name || ' slots, at most ' || most from kinds where live > greatest(most, settled)
    union all
    select id, 'monthly_counts', sum(live) || ' slots in all, at most ' || min(in_all) from kinds
    group by id having sum(live) > greatest(min(in_all), sum(greatest(least, settled)))
), overlapping as (
    select id, 'no_overlap', to_char(starts_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI') || ' UTC begins before ' ||
        to_char(busy at time zone 'UTC', 'HH24:MI') as detail
    from (
        select id, starts_at, within,
            max(ends_at) over (partition by id order by starts_at, ends_at rows between unbounded preceding and 1 preceding) as busy
        from near where status in ('available', 'booked')) o
    where starts_at < busy
), visits as materialized (
    select p.id, v.city_id, v.local_date, max(v.cooldown) as cooldown, count(*) as slots from people p cross join lateral (
        select a.city_id, a.local_date, a.cooldown from tiers.availability a
        where a.celebrity_id = p.id and a.meeting_type = 'physical' and a.status <> 'cancelled'
            and a.starts_at >= $4::date - interval '7 months' and a.starts_at < $5::date + interval '7 months'
        offset 0) v
    group by 1, 2, 3
), too_soon as (
    select id, 'cooldown', 'city ' || city_id || ' on ' || local_date || ', ' || months || ' months after ' || before
    from (
        select id, city_id, local_date, lag(local_date) over places as before, lag(cooldown) over places as months
        from visits window places as (partition by id, city_id order by local_date)) v
    where local_date < (before + make_interval(months => months))::date
        and (local_date >= $4 and local_date < $5 or before >= $4 and before < $5)
), two_cities as (
    select id, 'cooldown', count(*) || ' cities on ' || local_date from visits where local_date >= $4 and local_date < $5
    group by id, local_date having count(*) > 1
), turns as materialized (
    select p.id, r.starts_on, r.ends_on, r.tier::text as tier, r.city_ids,
        lag(r.ends_on) over (partition by p.id order by r.starts_on) as before
    from people p join tiers.rotations r on r.celebrity_id = p.id
    where r.celebrity_id > $1 and r.celebrity_id <= $2 and r.ends_on > $4 and r.starts_on < $5
), stays as materialized (
    select t.id, t.starts_on, v.city_id, v.local_date, v.slots, v.city_id = any (t.city_ids) as told
    from turns t join visits v on v.id = t.id and v.local_date >= t.starts_on and v.local_date < t.ends_on
), lengths as (
    select t.id, 'rotation_lengths', case
            when t.ends_on - t.starts_on not between 7 * l.least and 7 * l.most or (t.ends_on - t.starts_on) % 7 <> 0
                then t.ends_on - t.starts_on || ' days from ' || t.starts_on
            when t.before <> t.starts_on then 'from ' || t.starts_on || ', the one before ends ' || t.before
            else cardinality(t.city_ids) || ' cities from ' || t.starts_on end
    from turns t join (select * from unnest($10::text[], $11::int[], $12::int[]) l (tier, least, most)) l on l.tier = t.tier
    where t.ends_on - t.starts_on not between 7 * l.least and 7 * l.most or (t.ends_on - t.starts_on) % 7 <> 0
        or t.before <> t.starts_on or cardinality(t.city_ids) > $13
    union all
    select t.id, 'rotation_lengths',
        max(cardinality(t.city_ids)) || ' cities and ' || coalesce(sum(o.slots), 0) || ' slots from ' || t.starts_on
    from turns t left join stays o on o.id = t.id and o.starts_on = t.starts_on
    group by t.id, t.starts_on having max(cardinality(t.city_ids)) > coalesce(sum(o.slots), 0)
    union all
    select id, 'rotation_lengths', 'city ' || city_id || ' on ' || local_date || ' is not in its rotation' from stays where not told
), uncovered as (
    select i.id, 'rotation_lengths', 'no rotation for some day of the month' from people i
    left join (select id, min(starts_on) as first, max(ends_on) as last from turns group by id) t on t.id = i.id
    where t.id is null or t.first > $4 or t.last < $5
), abroad as (
    select s.id, 'home_country', coalesce(c.name || ' on ' || s.local_date || ' is at home', 'city ' || s.city_id || ' is not in the list')
    from slots s join people p on p.id = s.id left join tiers.cities c on c.id = s.city_id
    where s.physical and (s.status <> 'cancelled' and c.country is null or s.status = 'available' and c.country = p.country)
), home as (
    select country, array_agg(id) as ids from tiers.cities group by country
), at_home as (
    select p.id, 'home_country', 'the pool has cities of ' || p.country
    from people p join home h on h.country = p.country join tiers.celebrity_location_pool o on o.celebrity_id = p.id
    where o.celebrity_id > $1 and o.celebrity_id <= $2 and o.city_ids && h.ids
), priced as (
    select s.id, 'slot_price', s.duration || ' min at ' || s.price_cents || ' cents, the package is '
        || coalesce(r.price_cents::text, 'missing')
    from slots s left join (
        select celebrity_id, duration, meeting_type = 'physical' as physical, price_cents from tiers.celebrity_pricing
        where celebrity_id > $1 and celebrity_id <= $2 and active) r
        on r.celebrity_id = s.id and r.duration = s.duration and r.physical = s.physical
    where s.status = 'available' and r.price_cents is distinct from s.price_cents
), broken (id, rule, detail) as (
    select * from counted union all select * from overlapping union all select * from too_soon union all select * from two_cities
    union all select * from lengths union all select * from uncovered union all select * from abroad union all select * from at_home
    union all select * from priced
)
select b.rule, p.id, p.key, p.name, b.detail from broken b join people p on p.id = b.id order by p.id"""

SAVE: Final = """
insert into tiers.verifications (tier, month, passed, people, violations, rules, examples, seconds, who, stale)
select $1::text::tiers.tier, $2, $3, $4, $5, $6::text::jsonb, $7::text::jsonb, $8, $9, exists (
    select from tiers.runs where kind = 'generate' and tier = $1::text::tiers.tier and month = $2 and done > 0
        and (finished_at is null or finished_at > $10) and progress_at > $10)
returning id, tier::text, to_char(month, 'YYYY-MM'), passed, people, violations, rules::text, examples::text, seconds, who, at, stale"""
LIST: Final = """
select id, tier::text, to_char(month, 'YYYY-MM'), passed, people, violations, rules::text, examples::text, seconds, who, at, stale
from tiers.verifications where ($1::bigint is null or id < $1) order by id desc limit $2"""


@dataclass(frozen=True, slots=True)
class Example:
    """One person that broke a rule."""

    rule: str
    celebrity_id: int
    key: str
    name: str
    detail: str


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found. Without a tier it is the foundation's. `stale`: something was changed since."""

    id: int
    tier: Tier | None
    month: str | None
    passed: bool
    people: int
    violations: int
    rules: dict[str, int]
    examples: list[Example]
    seconds: float
    who: str | None
    at: dt.datetime
    stale: bool


@dataclass(frozen=True, slots=True)
class Span:
    """The people behind one id, up to another."""

    after: int
    last: int
    people: int


@dataclass(slots=True)
class Check:
    """One verification under way."""

    tier: Tier | None
    month: int | None
    clock: Clock
    named: int = EXAMPLES
    people: int = 0
    ended: bool = False
    rules: Counter[str] = field(default_factory=Counter)
    examples: list[Example] = field(default_factory=list)
    _after: int = 0
    _seconds: float = 0.0
    _began: dt.datetime | None = None

    async def step(self, db: Database, chunk: int = CHUNK) -> None:
        """The next people, in two chunks side by side."""
        started = self.clock.monotonic()
        async with serving(db) as connection:
            self._began = self._began or await connection.fetchval(NOW)
            spans = [await self._span(connection, self._after, chunk)]
            if spans[0].people == chunk:
                spans.append(await self._span(connection, spans[0].last, chunk))
        found = await both(self._broken(db, spans[0]), self._broken(db, spans[-1] if len(spans) > 1 else None))
        for rows in found:
            self._count(rows)
        self.people += sum(span.people for span in spans)
        self.ended = spans[-1].people < chunk
        self._after = spans[-1].last
        self._seconds += self.clock.monotonic() - started

    async def save(self, db: Database, who: str | None) -> Verification:
        """Record what was found."""
        assert self.ended
        broken = sum(self.rules.values())
        rules = dict.fromkeys(FOUNDATION if self.tier is None else MONTHLY, 0) | self.rules
        examples = [[one.rule, one.celebrity_id, one.key, one.name, one.detail] for one in self.examples]
        month = None if self.month is None else first_day(self.month)
        texts = orjson.dumps(rules).decode(), orjson.dumps(examples).decode()
        async with serving(db) as connection:
            row = await connection.fetchrow(
                SAVE, self.tier, month, not broken, self.people, broken, *texts, self._seconds, who, self._began
            )
        assert row is not None
        return made(row)

    async def _span(self, connection: Connection, after: int, chunk: int) -> Span:
        given = (after, chunk) if self.tier is None else (after, chunk, self.tier)
        row = await connection.fetchrow(PEOPLE if self.tier is None else PEOPLE_OF, *given)
        assert row is not None
        return Span(after, row[0], row[1])

    async def _broken(self, db: Database, span: Span | None) -> list[asyncpg.Record]:
        if span is None or not span.people:
            return []
        async with serving(db) as connection:
            await connection.execute(PREPARE)
            if self.tier is None:
                return await connection.fetch(CHECK_PEOPLE, span.after, span.last, sorted(codes()))
            return await connection.fetch(CHECK_MONTH, span.after, span.last, *self._terms())

    def _terms(self) -> tuple[object, ...]:
        assert self.tier is not None
        assert self.month is not None
        rules = RULES[self.tier]
        weeks = [RULES[tier].rotation_weeks for tier in TIERS]
        return (
            *(self.tier, first_day(self.month), first_day(self.month + 1), *rules.physical, *rules.virtual),
            *(list(TIERS), [least for least, _ in weeks], [most for _, most in weeks], CITIES_MOST),
        )

    def _count(self, rows: Sequence[asyncpg.Record]) -> None:
        """A person that breaks a rule twice counts twice."""
        for row in rows:
            self.rules[row[0]] += 1
            if self.rules[row[0]] <= self.named:
                self.examples.append(Example(*row))


def made(row: asyncpg.Record) -> Verification:
    """A row of the table."""
    examples = [Example(*one) for one in orjson.loads(row["examples"])]
    values = [*tuple(row)[:6], orjson.loads(row["rules"]), examples, *tuple(row)[8:]]
    return Verification(*values)


def checked_tier(text: str) -> Tier:
    """One of the five; Refused for anything else."""
    for tier in TIERS:
        if text.upper() == tier:
            return tier
    raise Refused(Code.BAD_MESSAGE, f"a tier is one of {', '.join(TIERS)}, not {text[:20]!r}", field="tier")


async def listed(connection: Connection, before: int | None = None, limit: int = 50) -> list[Verification]:
    """Verifications, newest first; `before` is the id that ended the page before."""
    return [made(row) for row in await connection.fetch(LIST, before, min(limit, PAGE_MOST))]


def title(tier: Tier | None, month: int | None) -> str:
    """What is verified, in words."""
    return "the foundation" if tier is None or month is None else f"tier {tier} for {name_of(month)}"
