"""Phase 2 in batches: people of a tier, each with its month, a transaction a batch.

    claim people that nobody has --> read what stands of them --> plan (plan.py) --> write rows and items together --> commit

Claimed are people without an item of the month, by locks that another process passes over (SKIP LOCKED) and that end with
the transaction; with the locks in hand their items are looked for once more. So a process that is killed leaves nothing
behind but people who wait, two processes share a tier without a person done twice, and one that froze is ended by PostgreSQL
after a while. A unique index on (person, month) is the last word. What is planned depends on the person alone and on the
run's `planned_at`, not on who plans it or in what company.

A person that cannot be planned or stored has failed, with the error; the others of its batch go on. Planning again
(`replace`) takes away what is still on offer beyond the lead time and plans around all that stays: booked slots, and those
that are past or too near.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import asyncpg
import orjson

from server.batching.tiers.cities import shipped
from server.batching.tiers.classifying import Batch, Breathe
from server.batching.tiers.months import DAY_S, days_of
from server.batching.tiers.plan import Kept, Plan, Request, Visit, month
from server.batching.tiers.pool import Atlas, by_country, pool
from server.batching.tiers.rotations import Rotation
from server.batching.tiers.rules import COOLDOWN_MONTHS, KINDS, LEAD_DAYS, PACKAGES, City
from server.batching.tiers.runs import RunView, first_day
from server.batching.tiers.store import Failures, apart, numerals, told
from server.edge.postgres import Connection

NEAR_S: Final = 3 * DAY_S
"""Slots so near the month may overlap with slots in it, whatever the time zones."""
MONTHS_APART: Final = COOLDOWN_MONTHS[1] + 1
"""Visits further from the month have no cooldown that reaches it."""

# `offset 0` keeps these from being joined: of a table that is just being filled PostgreSQL believes that it is empty, and
# reads all of it for each person.
_PENDING: Final = """
    tiers.celebrity_settings s
where s.tier = $1::text::tiers.tier and s.celebrity_id > $2 and ($3::bigint is null or s.celebrity_id = $3)
    and exists (select from tiers.celebrities c where c.id = s.celebrity_id and c.excluded is null offset 0)
    and not exists (select from tiers.run_items i where i.celebrity_id = s.celebrity_id and i.run_id = $4 offset 0)
    and not exists (
        select from tiers.run_items i where i.celebrity_id = s.celebrity_id and i.month = $5 and i.status = 'done' and not $6 offset 0)"""
CLAIM: Final = f"""
select s.celebrity_id from {_PENDING} and exists (select from tiers.runs where id = $4 and status = 'running')
order by s.celebrity_id limit $7 for no key update of s skip locked"""  # noqa: S608  names are ours
WAITS: Final = f"select exists (select from {_PENDING})"  # noqa: S608
_PRICES: Final = ", ".join(
    f"max(price_cents) filter (where active and meeting_type = '{kind}' and duration = {minutes})"
    for kind, minutes in PACKAGES
)
# Items are asked for again, with the locks in hand: CLAIM's snapshot may be older than the commit of who held a lock before.
READ: Final = f"""
select s.celebrity_id as id, c.key, s.tier::text, c.country, s.timezone, s.max_monthly_slots, s.allow_physical, s.allow_virtual,
    (select array[{_PRICES}] from tiers.celebrity_pricing p where p.celebrity_id = s.celebrity_id) as prices,
    case when o.tier = s.tier and o.home = coalesce(c.country, '') then o.city_ids end as pool
from tiers.celebrity_settings s join tiers.celebrities c on c.id = s.celebrity_id
left join tiers.celebrity_location_pool o on o.celebrity_id = s.celebrity_id and not $4
where s.celebrity_id = any ($1::bigint[])
    and not exists (select from tiers.run_items i where i.celebrity_id = s.celebrity_id and i.run_id = $2 offset 0)
    and not exists (
        select from tiers.run_items i where i.celebrity_id = s.celebrity_id and i.month = $3 and i.status = 'done' and not $4 offset 0)
order by s.celebrity_id"""  # noqa: S608
ROTATIONS: Final = """
select celebrity_id, starts_on - date '1970-01-01', ends_on - date '1970-01-01', tier::text, anchor - date '1970-01-01', city_ids
from tiers.rotations r where celebrity_id = any ($1::bigint[]) and starts_on >= coalesce((
    select max(q.starts_on) from tiers.rotations q where q.celebrity_id = r.celebrity_id and q.ends_on <= $2), '-infinity')
order by 1, 2"""
# What a new plan may put elsewhere: still on offer, and beyond the lead time.
_LOOSE: Final = """
    status = 'available' and local_date >= $2 and local_date < $3
    and starts_at >= to_timestamp(case meeting_type when 'physical' then $4::bigint else $5::bigint end)"""
STANDING: Final = f"""
select celebrity_id, meeting_type::text, city_id, local_date - date '1970-01-01', extract(epoch from starts_at)::bigint,
    extract(epoch from ends_at)::bigint, cooldown
from tiers.availability where celebrity_id = any ($1::bigint[]) and status <> 'cancelled'
    and starts_at >= to_timestamp($6::bigint) and starts_at < to_timestamp($7::bigint)
    and (meeting_type = 'physical' or starts_at >= to_timestamp($8::bigint) and starts_at < to_timestamp($9::bigint))
    and not ($10 and {_LOOSE})
order by celebrity_id, starts_at"""  # noqa: S608
CLEAR: Final = f"""
with cleared as (
    delete from tiers.availability where celebrity_id = any ($1::bigint[]) and {_LOOSE}
), free as (
    delete from tiers.city_cooldown where celebrity_id = any ($1::bigint[]) and last_visit >= $2
)
update tiers.run_items set status = 'replaced' where celebrity_id = any ($1::bigint[]) and month = $2 and status = 'done'"""  # noqa: S608
COOLDOWNS_AGAIN: Final = """
insert into tiers.city_cooldown as c (celebrity_id, city_id, last_visit, months, until)
select distinct on (celebrity_id, city_id) celebrity_id, city_id, local_date, cooldown,
    (local_date + make_interval(months => cooldown))::date
from tiers.availability where celebrity_id = any ($1::bigint[]) and meeting_type = 'physical' and status <> 'cancelled'
order by celebrity_id, city_id, local_date desc
on conflict (celebrity_id, city_id) do nothing"""

_DAY: Final = "date '1970-01-01' + "
# All rows of some people, numbers as `numerals`. Kind and end of a slot follow from its city and its length.
PUT: Final = f"""
with slots as (
    insert into tiers.availability
        (celebrity_id, meeting_type, duration, starts_at, ends_at, local_date, city_id, cooldown, price_cents)
    select id, case when city is null then 'virtual' else 'physical' end::tiers.meeting, minutes, to_timestamp(starts),
        to_timestamp(starts + minutes * 60), {_DAY}day, city, cooldown, cents
    from unnest($3::text::bigint[], $4::text::smallint[], $5::text::bigint[], $6::text::int[], $7::text::int[],
        $8::text::smallint[], $9::text::bigint[])
        r (id, minutes, starts, day, city, cooldown, cents)
), turns as (
    insert into tiers.rotations as o (celebrity_id, starts_on, ends_on, tier, anchor, city_ids)
    select id, {_DAY}first, {_DAY}until, tier::tiers.tier, {_DAY}anchor, cities::int[]
    from unnest($10::text::bigint[], $11::text::int[], $12::text::int[], $13::text[], $14::text::int[], $15::text[])
        r (id, first, until, tier, anchor, cities)
    on conflict (celebrity_id, starts_on) do update set city_ids = excluded.city_ids where o.city_ids <> excluded.city_ids
), cooldowns as (
    insert into tiers.city_cooldown as c (celebrity_id, city_id, last_visit, months, until)
    select id, city, {_DAY}day, months, ({_DAY}day + make_interval(months => months))::date
    from unnest($16::text::bigint[], $17::text::int[], $18::text::int[], $19::text::smallint[]) r (id, city, day, months)
    on conflict (celebrity_id, city_id) do update
    set last_visit = excluded.last_visit, months = excluded.months, until = excluded.until
    where excluded.last_visit > c.last_visit
), pools as (
    insert into tiers.celebrity_location_pool (celebrity_id, tier, home, city_ids)
    select id, tier::tiers.tier, home, cities::int[] from unnest($20::text::bigint[], $21::text[], $22::text[], $23::text[])
        r (id, tier, home, cities)
    on conflict (celebrity_id) do update set tier = excluded.tier, home = excluded.home, city_ids = excluded.city_ids
)
insert into tiers.run_items (run_id, celebrity_id, month, status, physical, virtual, short)
select $1, id, $2, 'done', physical, virtual, short::jsonb
from unnest($24::text::bigint[], $25::text::smallint[], $26::text::smallint[], $27::text[]) r (id, physical, virtual, short)"""  # noqa: S608
FAIL: Final = """
insert into tiers.run_items (run_id, celebrity_id, month, status, reason)
select $1, id, $2, 'failed', reason from unnest($3::bigint[], $4::text[]) r (id, reason)"""
MOVE: Final = """
with stale as (
    update tiers.verifications set stale = true
    where not stale and tier = $6::text::tiers.tier and month >= $7 and $3 > 0
)
update tiers.runs set position = greatest(position, $2), done = done + $3, failed = failed + $4, slots = slots + $5,
    progress_at = clock_timestamp() where id = $1"""


@dataclass(frozen=True, slots=True)
class Planned:
    """A person with its month."""

    id: int
    plan: Plan
    pool: tuple[str, str, tuple[int, ...]] | None
    """Made anew: for which tier and home, and its cities."""


async def plan_batch(
    connection: Connection, run: RunView, after: int, size: int, seed: bytes, breathe: Breathe
) -> tuple[Batch, int]:
    """The next people of a run behind `after`, within the caller's transaction; and the last one's id."""
    claimed = [row["celebrity_id"] for row in await connection.fetch(CLAIM, *_who(run, after), size)]
    if not claimed:
        return Batch(), after
    planned, failed = await _plan(connection, run, claimed, seed, breathe)
    failed |= await apart(connection, planned, lambda some: _write(connection, run, some), _id)
    if failed:
        await connection.execute(FAIL, run.id, _date(run), list(failed), list(failed.values()))
    done = [one for one in planned if one.id not in failed]
    slots = sum(len(one.plan.slots) for one in done)
    await connection.execute(MOVE, run.id, claimed[-1], len(done), len(failed), slots, run.tier, _date(run))
    return Batch(len(claimed), len(done), 0, len(failed), slots), claimed[-1]


async def waits(connection: Connection, run: RunView) -> bool:
    """Does anybody wait to be planned, also if another process has it just now?"""
    found: bool = await connection.fetchval(WAITS, *_who(run, 0))
    return found


def _who(run: RunView, after: int) -> tuple[object, ...]:
    return run.tier, after, run.person, run.id, _date(run), run.replace


def _date(run: RunView) -> object:
    return first_day(_month(run))


def _month(run: RunView) -> int:
    assert run.month is not None
    return int(run.month[:4]) * 12 + int(run.month[5:]) - 1


async def _plan(
    connection: Connection, run: RunView, claimed: list[int], seed: bytes, breathe: Breathe
) -> tuple[list[Planned], Failures]:
    people = await connection.fetch(READ, claimed, run.id, _date(run), run.replace)
    rotations = _by_person(await connection.fetch(ROTATIONS, claimed, _date(run)))
    standing = _by_person(await connection.fetch(STANDING, claimed, *_loose(run), *_near(run), run.replace))
    planned: list[Planned] = []
    failed: Failures = {}
    for row in people:
        person = row["id"]
        try:
            planned.append(_planned(run, row, rotations.get(person, ()), standing.get(person, ()), seed))
        except Exception as error:  # noqa: BLE001  whatever is wrong with one person must not stop the others
            failed[person] = told(error)
        await breathe()
    return planned, failed


def _loose(run: RunView) -> tuple[object, ...]:
    """The month, and from when on its slots of each kind may be put elsewhere."""
    leads = (_planned_at(run) + LEAD_DAYS[kind] * DAY_S for kind in KINDS)
    return first_day(_month(run)), first_day(_month(run) + 1), *leads


def _near(run: RunView) -> tuple[int, int, int, int]:
    """From when to when visits matter, and other slots."""
    first, end = (day * DAY_S for day in days_of(_month(run)))
    reach = MONTHS_APART * 31 * DAY_S
    return first - reach, end + reach, first - NEAR_S, end + NEAR_S


def _by_person(rows: Iterable[asyncpg.Record]) -> Mapping[int, list[asyncpg.Record]]:
    found: dict[int, list[asyncpg.Record]] = {}
    for row in rows:
        found.setdefault(row[0], []).append(row)
    return found


def _planned_at(run: RunView) -> int:
    return int(run.planned_at.timestamp())


def _planned(
    run: RunView,
    row: asyncpg.Record,
    rotations: Sequence[asyncpg.Record],
    standing: Sequence[asyncpg.Record],
    seed: bytes,
) -> Planned:
    """One person's month."""
    home = row["country"] or ""
    made = None
    cities = _stored_pool(row["pool"])
    if cities is None:
        ids = pool(row["tier"], row["key"], row["country"], seed, _atlas())
        made = (row["tier"], home, ids)
        cities = tuple(_cities()[one] for one in ids)
    request = Request(
        key=row["key"],
        tier=row["tier"],
        home=row["country"],
        timezone=row["timezone"],
        max_monthly_slots=row["max_monthly_slots"],
        prices=tuple(row["prices"]),
        pool=cities,
        allow_physical=row["allow_physical"],
        allow_virtual=row["allow_virtual"],
        stored=tuple(Rotation(one[1], one[2], one[3], one[4], tuple(one[5])) for one in rotations),
        visits=_visits(standing),
        kept=tuple(Kept(one[1], one[2], one[3], one[4], one[5]) for one in standing) if standing else (),
    )
    return Planned(row["id"], month(request, _month(run), _planned_at(run), seed), made)


def _visits(standing: Sequence[asyncpg.Record]) -> tuple[Visit, ...]:
    """A visit is a day in a city, whatever slots it has."""
    found = {(one[2], one[3]): Visit(one[2], one[3], one[6]) for one in standing if one[2] is not None}
    return tuple(found.values())


def _stored_pool(ids: list[int] | None) -> tuple[City, ...] | None:
    """The pool that is there; None when there is none that fits, or a city of it is no longer in the list."""
    cities = _cities()
    if ids is None or not all(one in cities for one in ids):
        return None
    return tuple([cities[one] for one in ids])


@cache
def _cities() -> Mapping[int, City]:
    return {city.id: city for city in shipped()}


@cache
def _atlas() -> Atlas:
    return by_country(shipped())


async def _write(connection: Connection, run: RunView, planned: list[Planned]) -> None:
    """All rows of these people, and their items."""
    ids = [one.id for one in planned]
    if run.replace:
        await connection.execute(CLEAR, ids, *_loose(run))
    columns = (*_slots(planned), *_rotations(planned), *_visited(planned), *_pools(planned), *_items(planned))
    await connection.execute(PUT, run.id, _date(run), *columns)
    if run.replace:
        await connection.execute(COOLDOWNS_AGAIN, ids)


def _slots(planned: list[Planned]) -> Iterable[object]:
    slots = [slot for one in planned for slot in one.plan.slots]
    stays = ((one, {visit.city: visit.months for visit in one.plan.visits}) for one in planned)
    yield numerals(one.id for one in planned for _ in one.plan.slots)
    yield numerals([slot.minutes for slot in slots])
    yield numerals([slot.starts for slot in slots])
    yield numerals([slot.day for slot in slots])
    yield numerals([slot.city for slot in slots])
    yield numerals(slot.city and months[slot.city] for one, months in stays for slot in one.plan.slots)
    yield numerals([slot.price_cents for slot in slots])


def _rotations(planned: list[Planned]) -> Iterable[object]:
    rotations = [rotation for one in planned for rotation in one.plan.rotations]
    yield numerals(one.id for one in planned for _ in one.plan.rotations)
    yield numerals([one.first for one in rotations])
    yield numerals([one.end for one in rotations])
    yield [one.tier for one in rotations]
    yield numerals([one.anchor for one in rotations])
    yield [numerals(one.cities) for one in rotations]


def _visited(planned: list[Planned]) -> Iterable[object]:
    visits = [visit for one in planned for visit in one.plan.visits]
    yield numerals(one.id for one in planned for _ in one.plan.visits)
    yield numerals([one.city for one in visits])
    yield numerals([one.day for one in visits])
    yield numerals([one.months for one in visits])


def _pools(planned: list[Planned]) -> Iterable[object]:
    made = [(one.id, *one.pool) for one in planned if one.pool is not None]
    yield numerals([one[0] for one in made])
    yield [one[1] for one in made]
    yield [one[2] for one in made]
    yield [numerals(one[3]) for one in made]


def _items(planned: list[Planned]) -> Iterable[object]:
    physical = [sum(slot.city is not None for slot in one.plan.slots) for one in planned]
    yield numerals([one.id for one in planned])
    yield numerals(physical)
    yield numerals([len(one.plan.slots) - many for one, many in zip(planned, physical, strict=True)])
    yield [orjson.dumps(dict(one.plan.reasons)).decode() if one.plan.reasons else None for one in planned]


def _id(one: Planned) -> int:
    return one.id
