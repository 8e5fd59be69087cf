"""Verification over rows: each rule is broken by hand and found by name, with the person; the slow judge says the same."""

from __future__ import annotations

import datetime as dt
import random
from collections import defaultdict
from typing import Any

import orjson
import pytest

from server.batching.tiers import judge
from server.batching.tiers.checking import EXAMPLES, FOUNDATION, MONTHLY, Check
from server.batching.tiers.months import days_of
from server.batching.tiers.plan import Rotation, Visit
from server.batching.tiers.pricing import Package
from server.batching.tiers.rules import TIERS, Tier
from server.edge.clock import SystemClock
from server.edge.postgres import Database
from tests.batching.tiers.world import (
    ADMIN,
    FAR,
    PAUL,
    Place,
    ask,
    classified,
    crowd,
    generate,
    opened,
    row,
    rows_of,
    tell,
)

FIRST, END = days_of(FAR)
EPOCH = dt.date(1970, 1, 1)


def date(day: int) -> dt.date:
    return EPOCH + dt.timedelta(days=day)


async def found(place: Place, tier: Tier | None = "D", month: int = FAR) -> dict[str, set[int]]:
    """Rules that are broken, and by whom."""
    check = Check(tier, None if tier is None else month, SystemClock(), named=1_000)
    while not check.ended:
        await check.step(place.db)
    first = await check.save(place.db, None)
    broken: dict[str, set[int]] = defaultdict(set)
    for example in first.examples:
        broken[example.rule].add(example.celebrity_id)
        assert example.name == f"Person {int(example.key[1:]):06d}"
    assert first.passed == (not broken)
    assert sum(first.rules.values()) == first.violations
    assert {rule for rule, count in first.rules.items() if count} == set(broken)
    return dict(broken)


@pytest.fixture
async def place(db: Database) -> Any:
    """Forty people of tier D with a month."""
    async with opened(db) as made:
        await classified(made.tiers, crowd(40, "D"))
        await generate(made.tiers)
        assert await found(made) == {}
        assert await found(made, None) == {}
        yield made


FOUNDATION_BREAKS = {
    "missing_tier": """update tiers.celebrity_settings set tier = null, max_monthly_slots = null, timezone = null, source = null,
        reason = null, rule_version = null, decided_at = null, verified = false where celebrity_id = 3""",
    "packages_six": "delete from tiers.celebrity_pricing where celebrity_id = 3 and duration = 60 and meeting_type = 'virtual'",
    "price_range": """update tiers.celebrity_pricing set price_cents = 250000
        where celebrity_id = 3 and duration = 60 and meeting_type = 'physical'""",
    "max_slots": "update tiers.celebrity_settings set max_monthly_slots = 41 where celebrity_id = 3",
    "verified": "update tiers.celebrity_settings set verified = false where celebrity_id = 3",
    "country": "update tiers.celebrities set country = 'ZZ' where id = 3",
}


@pytest.mark.parametrize("rule", FOUNDATION)
async def test_each_rule_of_the_foundation_is_found_by_name(place: Place, rule: str) -> None:
    await tell(place.db, FOUNDATION_BREAKS[rule])
    broken = await found(place, None)
    assert broken[rule] == {3}
    assert set(broken) - {rule} <= {"max_slots", "verified"}


async def test_an_inactive_package_of_an_allowed_kind_is_found(place: Place) -> None:
    await tell(place.db, "update tiers.celebrity_pricing set active = false where celebrity_id = 3 and duration = 15")
    assert await found(place, None) == {"packages_six": {3}}


async def test_a_country_that_nobody_knows_is_found(place: Place) -> None:
    await classified(place.tiers, [row(100, country="Atlantis")])
    assert set(await found(place, None)) == {"country"}


PHYSICAL = "(select id from tiers.availability where celebrity_id = 3 and meeting_type = 'physical' order by starts_at limit 1)"
VIRTUAL = (
    "(select id from tiers.availability where celebrity_id = 3 and meeting_type = 'virtual' order by starts_at limit 1)"
)
MONTH_BREAKS = {
    "slots_present": "delete from tiers.availability where celebrity_id = 3",
    "no_overlap": f"""alter table tiers.availability disable trigger user;
        insert into tiers.availability (celebrity_id, meeting_type, duration, starts_at, ends_at, local_date, price_cents)
        select 3, 'virtual', 15, ends_at - interval '15 minutes', ends_at, local_date, (select price_cents from tiers.celebrity_pricing
            where celebrity_id = 3 and meeting_type = 'virtual' and duration = 15) from tiers.availability where id = {PHYSICAL}""",
    "cooldown": f"""insert into tiers.availability
            (celebrity_id, meeting_type, duration, starts_at, ends_at, local_date, city_id, cooldown, price_cents)
        select celebrity_id, meeting_type, duration, starts_at - interval '80 days', ends_at - interval '80 days',
            local_date - 80, city_id, 3,
            price_cents from tiers.availability where id = {PHYSICAL}""",
    "home_country": f"""update tiers.celebrities set country = (select t.country from tiers.availability a join
        tiers.cities t on t.id = a.city_id
        where a.id = {PHYSICAL}) where id = 3""",
    "monthly_counts": "delete from tiers.availability where celebrity_id = 3 and meeting_type = 'virtual'",
    "rotation_lengths": """update tiers.rotations set ends_on = ends_on + 7 where celebrity_id = 3
        and starts_on = (select min(starts_on) from tiers.rotations where celebrity_id = 3)""",
    "slot_price": f"update tiers.availability set price_cents = price_cents + 1 where id = {VIRTUAL}",
}


@pytest.mark.parametrize("rule", MONTHLY)
async def test_each_rule_of_a_month_is_found_by_name(place: Place, rule: str) -> None:
    assert await ask(place.db, f"select {PHYSICAL}") is not None
    await tell(place.db, MONTH_BREAKS[rule])
    broken = await found(place)
    assert broken[rule] == {3}
    also = {"slots_present": {"monthly_counts", "rotation_lengths"}, "monthly_counts": set()}
    assert set(broken) - {rule} <= also.get(rule, {"monthly_counts"})


OTHER_BREAKS = {
    "a second city on one day": (
        "cooldown",
        f"""insert into tiers.availability (celebrity_id, meeting_type, duration, starts_at, ends_at, local_date,
            city_id, cooldown, price_cents)
        select 3, 'physical', 15, ends_at + interval '4 hours', ends_at + interval '255 minutes', local_date,
            (select id from tiers.cities where id <> a.city_id and country <> 'US' limit 1), 3, 1 from
                tiers.availability a where id = {PHYSICAL}""",
    ),
    "too many virtual slots": (
        "monthly_counts",
        """insert into tiers.availability (celebrity_id, meeting_type, duration, starts_at, ends_at, local_date, price_cents)
        select 3, 'virtual', 15, s, s + interval '15 minutes', s::date, (select price_cents from tiers.celebrity_pricing
            where celebrity_id = 3 and meeting_type = 'virtual' and duration = 15)
        from (select max(ends_at) + n * interval '1 hour' as s from tiers.availability, generate_series(1, 11) n
            where celebrity_id = 3 group by n) x where s::date < (select max(local_date) + 9 from tiers.availability)""",
    ),
    "more in all than the person may have": (
        "monthly_counts",
        "update tiers.celebrity_settings set max_monthly_slots = 4 where celebrity_id = 3",
    ),
    "a gap between rotations": (
        "rotation_lengths",
        """update tiers.rotations set starts_on = starts_on + 7 where celebrity_id = 3
        and starts_on = (select max(starts_on) from tiers.rotations where celebrity_id = 3)""",
    ),
    "a rotation that is missing": ("rotation_lengths", "delete from tiers.rotations where celebrity_id = 3"),
    "a rotation without the city of its slot": (
        "rotation_lengths",
        "update tiers.rotations set city_ids = '{}' where celebrity_id = 3",
    ),
    "a rotation with a city and no slot": (
        "rotation_lengths",
        "update tiers.rotations set city_ids = city_ids || (select min(id) from tiers.cities) where celebrity_id = 3",
    ),
    "a pool with cities at home": (
        "home_country",
        """update tiers.celebrity_location_pool p set city_ids = p.city_ids || (select t.id from tiers.cities t
            join tiers.celebrities c on c.country = t.country where c.id = 3 limit 1) where celebrity_id = 3""",
    ),
    "a package that is gone": ("slot_price", "delete from tiers.celebrity_pricing where celebrity_id = 3"),
}


@pytest.mark.parametrize("what", OTHER_BREAKS)
async def test_other_ways_to_break_a_rule_are_found(place: Place, what: str) -> None:
    rule, sql = OTHER_BREAKS[what]
    await tell(place.db, sql)
    broken = await found(place)
    assert broken.get(rule) == {3}, broken


async def test_cancelled_slots_count_for_the_minimum_and_for_nothing_else(place: Place) -> None:
    await tell(
        place.db,
        """update tiers.availability set status = 'cancelled', booked_by = 'x', booking_key = 'k' || id,
        booked_at = now(), cancelled_at = now() where celebrity_id = 3 and meeting_type = 'virtual'""",
    )
    assert await found(place) == {}


async def test_expired_slots_count_and_do_not_overlap(place: Place) -> None:
    await tell(place.db, "update tiers.availability set status = 'expired' where celebrity_id = 3")
    assert await found(place) == {}


async def test_what_was_booked_may_exceed_a_maximum_that_was_lowered_later(place: Place) -> None:
    await tell(
        place.db,
        """update tiers.availability set status = 'booked', booked_by = 'x', booking_key = 'k' || id, booked_at = now()
        where celebrity_id = 3 and meeting_type = 'virtual'""",
    )
    await tell(
        place.db,
        "update tiers.celebrity_settings set allow_virtual = false where celebrity_id = 3",
    )
    assert await found(place) == {}
    await tell(
        place.db,
        """update tiers.availability set status = 'available', booked_by = null, booking_key = null, booked_at = null
        where celebrity_id = 3 and meeting_type = 'virtual'""",
    )
    assert await found(place) == {"monthly_counts": {3}}


async def test_somebody_who_was_not_planned_has_no_slots(place: Place) -> None:
    await classified(place.tiers, [row(100)])
    broken = await found(place)
    assert set(broken) == {"slots_present", "monthly_counts", "rotation_lengths"}
    (first,) = await place.tiers.verify("D", FAR, ADMIN)
    assert [one.detail for one in first.examples if one.rule == "slots_present"] == ["was not planned"]


async def test_excluded_people_are_not_asked_about(place: Place) -> None:
    await tell(
        place.db,
        "delete from tiers.availability where celebrity_id = 3; update tiers.celebrities set excluded = 'hidden' where id = 3",
    )
    assert await found(place) == {}


async def test_examples_are_bounded_and_all_are_counted(place: Place) -> None:
    await tell(place.db, "update tiers.availability set price_cents = price_cents + 1")
    (first,) = await place.tiers.verify("D", FAR, ADMIN)
    assert first.rules["slot_price"] == await ask(place.db, "select count(*) from tiers.availability")
    assert len(first.examples) == EXAMPLES


async def test_the_size_of_a_chunk_changes_nothing(place: Place) -> None:
    for number in (3, 17, 40):
        await tell(
            place.db, "update tiers.availability set price_cents = price_cents + 1 where celebrity_id = $1", number
        )
    results = []
    for size in (1, 7, 40, 1_000):
        check = Check("D", FAR, SystemClock())
        while not check.ended:
            await check.step(place.db, size)
        results.append((check.people, check.rules, check.examples))
    assert results[0][0] == 40
    assert all(one == results[0] for one in results)


async def test_a_verification_is_recorded_and_listed_newest_first(place: Place) -> None:
    (first,) = await place.tiers.verify("D", FAR, PAUL)
    listed = await place.tiers.verifications(limit=1)
    assert listed == [first]
    assert (first.who, first.passed, first.people, first.stale) == ("paul", True, 40, False)
    assert set(first.rules) == set(MONTHLY)
    assert (await place.tiers.verifications(before=first.id))[0].id < first.id


async def test_without_a_tier_the_foundation_and_all_five_are_verified(place: Place) -> None:
    heard: list[tuple[str, int]] = []
    every = await place.tiers.verify(None, FAR, ADMIN, lambda what, people: heard.append((what, people)))
    assert [one.tier for one in every] == [None, *TIERS]
    assert all(one.passed for one in every)
    assert heard[0] == ("the foundation", 40)


async def test_planning_again_makes_a_verification_stale_and_another_month_does_not(place: Place) -> None:
    await place.tiers.verify("D", FAR, ADMIN)
    await generate(place.tiers, "D", FAR - 1)
    assert [one.stale for one in await place.tiers.verifications(limit=1)] == [
        True
    ]  # Cooldowns reach into later months.
    await place.tiers.verify("D", FAR, ADMIN)
    await generate(place.tiers, "D", FAR + 1)
    await generate(place.tiers, "D", FAR)  # Nobody waits: nothing changes.
    assert [one.stale for one in await place.tiers.verifications(limit=1)] == [False]


async def test_what_a_run_changes_while_it_is_verified_makes_the_result_stale(place: Place) -> None:
    check = Check("D", FAR, SystemClock())
    await check.step(place.db, 1_000)
    await generate(place.tiers, "D", FAR, replace=True)
    assert not check.ended or (await check.save(place.db, None)).stale


# The slow judge, over the same rows.


async def judged(db: Database, tier: Tier, month: int = FAR) -> dict[str, set[int]]:
    broken: dict[str, set[int]] = defaultdict(set)
    sql = """select c.id, c.country, s.* from tiers.celebrity_settings s join tiers.celebrities c on c.id = celebrity_id
        where tier::text = $1 and excluded is null"""
    for person in await rows_of(db, sql, tier):
        packages = await rows_of(
            db,
            "select meeting_type::text, duration, price_cents, active from tiers.celebrity_pricing where celebrity_id = $1",
            person["id"],
        )
        standing = judge.Standing(
            person["tier"],
            person["max_monthly_slots"],
            person["verified"],
            person["country"],
            tuple(Package(*one) for one in packages),
            person["allow_physical"],
            person["allow_virtual"],
        )
        for one in [
            *judge.foundation(standing),
            *judge.availability(standing, await month_of(db, person["id"], month)),
        ]:
            broken[one.rule].add(person["id"])
    return dict(broken)


async def month_of(db: Database, person: int, month: int) -> judge.Rows:
    first, end = days_of(month)
    sql = """select a.meeting_type::text, a.status, a.duration, a.city_id, t.country, a.local_date - date '1970-01-01',
        extract(epoch from starts_at)::bigint, extract(epoch from ends_at)::bigint, a.price_cents, a.cooldown
        from tiers.availability a left join tiers.cities t on t.id = a.city_id where celebrity_id = $1 order by starts_at"""
    every = [tuple(one) for one in await rows_of(db, sql, person)]
    slots = [judge.Offered(*one[:9]) for one in every]
    turns = await rows_of(
        db,
        "select * from tiers.rotations where celebrity_id = $1 and ends_on > $2 and starts_on < $3",
        person,
        date(first),
        date(end),
    )
    short = await ask(
        db,
        "select short::text from tiers.run_items where celebrity_id = $1 and status = 'done' and month = $2",
        person,
        date(first),
    )
    return judge.Rows(
        month,
        tuple(one for one in slots if first <= one.day < end),
        tuple(one for one in slots if not first <= one.day < end),
        tuple(
            Rotation((r["starts_on"] - EPOCH).days, (r["ends_on"] - EPOCH).days, r["tier"], 0, tuple(r["city_ids"]))
            for r in turns
        ),
        tuple({Visit(one[3], one[5], one[9]) for one in every if one[3] is not None and one[1] != "cancelled"}),
        orjson.loads(short) if short else {},
    )


DAMAGE = [
    "update tiers.availability set price_cents = price_cents + 1 where id = $1",
    "delete from tiers.availability where id = $1",
    "update tiers.availability set status = 'expired' where id = $1",
    """update tiers.availability set status = 'cancelled', booked_by = 'x', booking_key = 'k' || id, booked_at = now(),
        cancelled_at = now() where id = $1 and status = 'available'""",
    "update tiers.availability set status = 'booked', booked_by = 'x', booking_key = 'k' || id, booked_at = now() where id = $1",
    "update tiers.availability set local_date = local_date + 30 where id = $1",
    "update tiers.availability set local_date = local_date - 4 where id = $1",
    """update tiers.availability set city_id = (select id from tiers.cities order by md5(id::text ||
        $1::text) limit 1) where id = $1 and city_id is not null""",
    """update tiers.availability a set cooldown = 6 from tiers.availability b where b.id = $1 and
        (a.celebrity_id, a.city_id, a.local_date) = (b.celebrity_id, b.city_id, b.local_date)""",
    "update tiers.availability set starts_at = starts_at + interval '1 hour', ends_at = ends_at + interval '1 hour' where id = $1",
    "delete from tiers.availability where celebrity_id = (select celebrity_id from tiers.availability where id = $1)",
    "update tiers.rotations set ends_on = ends_on + 7 where celebrity_id = (select celebrity_id from tiers.availability where id = $1)",
    "update tiers.rotations set city_ids = city_ids || 1 where celebrity_id = (select celebrity_id from tiers.availability where id = $1)",
    "update tiers.rotations set city_ids = '{}' where celebrity_id = (select celebrity_id from tiers.availability where id = $1)",
    """delete from tiers.rotations r where r.celebrity_id = (select celebrity_id from tiers.availability
        where id = $1) and starts_on = (select min(starts_on) from tiers.rotations where celebrity_id =
        r.celebrity_id)""",
    """update tiers.celebrity_settings set max_monthly_slots = 3 where celebrity_id = (select celebrity_id
        from tiers.availability where id = $1)""",
    """update tiers.celebrity_settings set allow_virtual = false where celebrity_id = (select celebrity_id
        from tiers.availability where id = $1)""",
    "update tiers.celebrities set country = 'JP' where id = (select celebrity_id from tiers.availability where id = $1)",
    """delete from tiers.celebrity_pricing where celebrity_id = (select celebrity_id from
        tiers.availability where id = $1) and duration = 30""",
    """update tiers.run_items set short = '{"virtual": "no_room"}'
        where celebrity_id = (select celebrity_id from tiers.availability where id = $1)""",
]


@pytest.mark.parametrize("tier", ["S", "B", "D"])
async def test_the_slow_judge_finds_the_same_people_for_the_same_rules(db: Database, tier: Tier) -> None:
    dice = random.Random(f"7{tier}")
    async with opened(db) as place:
        await classified(place.tiers, crowd(60, tier))
        for month in (FAR - 1, FAR):
            await generate(place.tiers, tier, month)
        await tell(db, "alter table tiers.availability disable trigger user")
        assert await judged(db, tier) == {}
        ids = [
            one["id"]
            for one in await rows_of(
                db, "select id from tiers.availability where local_date >= $1 order by id", date(FIRST)
            )
        ]
        for round_ in range(8):
            for _ in range(12):
                await tell(db, dice.choice(DAMAGE), dice.choice(ids))
            month = await found(place, tier)
            foundation = await found(place, None)
            want = await judged(db, tier)
            # A pool is asked about in SQL only; it is no part of a person's month.
            got = {**month, **foundation}
            for rule in (*FOUNDATION, *MONTHLY):
                both = got.get(rule, set()), want.get(rule, set())
                if rule == "home_country":
                    assert both[1] <= both[0]
                else:
                    assert both[0] == both[1], (round_, rule, both[0] ^ both[1])
