"""A month planned over rows: the same whoever plans it, nothing twice, around bookings, behind the gates."""

from __future__ import annotations

import asyncio
import datetime as dt

import pytest

from server.batching.tiers.chance import seed_of
from server.batching.tiers.months import name_of
from server.batching.tiers.rules import TIERS, Tier
from server.batching.tiers.work import Worker
from server.edge.clock import SystemClock, VirtualClock
from server.edge.postgres import Database
from server.errors import Code, Refused
from tests.batching.imports.world import until
from tests.batching.tiers.world import (
    ADMIN,
    FAR,
    PAUL,
    Place,
    ask,
    bring,
    classified,
    classify,
    crowd,
    everything_planned,
    generate,
    opened,
    row,
    rows_of,
    tell,
)


async def passed(place: Place, tier: Tier, month: int = FAR) -> bool:
    (found,) = await place.tiers.verify(tier, month, ADMIN)
    return found.passed


async def test_a_month_of_every_tier_is_planned_and_passes_its_verification(db: Database) -> None:
    async with opened(db) as place:
        await classified(place.tiers, crowd(100))
        for tier in TIERS:
            run = await generate(place.tiers, tier, override=False)
            assert (run.status, run.total, run.done, run.failed) == ("done", 20, 20, 0)
            assert run.slots == await ask(
                db, "select sum(physical + virtual) from tiers.run_items where run_id = $1", run.id
            )
            (found,) = await place.tiers.verify(tier, FAR, ADMIN)
            assert found.passed, found.examples
            assert found.people == 20
    assert await ask(db, "select count(*) from tiers.availability where status <> 'available'") == 0
    assert await ask(db, "select count(*) from tiers.availability a join tiers.cities c on c.id = a.city_id") > 0


async def test_slots_and_cooldowns_agree_on_how_long_a_city_is_left_alone(db: Database) -> None:
    async with opened(db) as place:
        await classified(place.tiers, crowd(40, "D"))
        await generate(place.tiers)
    sql = """select array_agg(distinct a.cooldown order by a.cooldown)::int[],
            bool_and(a.cooldown = c.months and a.local_date = c.last_visit)
        from tiers.availability a join tiers.city_cooldown c using (celebrity_id, city_id)"""
    assert tuple((await rows_of(db, sql))[0]) == ([3, 4, 5, 6], True)


async def test_running_twice_creates_nothing(db: Database) -> None:
    async with opened(db) as place:
        await classified(place.tiers, crowd(30, "D"))
        await generate(place.tiers)
        before = await everything_planned(db), await ask(db, "select max(id) from tiers.availability")
        run = await generate(place.tiers)
        assert (run.status, run.done, run.unchanged, run.slots) == ("done", 0, 30, 0)
        assert (await everything_planned(db), await ask(db, "select max(id) from tiers.availability")) == before


async def test_rows_depend_neither_on_the_batch_nor_on_who_came_first(
    db: Database, new_database, template: str
) -> None:  # type: ignore[no-untyped-def]
    people = crowd(60, "SD")
    other = await Database.open(new_database(template), clock=SystemClock())
    clock = VirtualClock(SystemClock().now_ms())
    async with opened(db, clock, tiers_batch=1) as one, opened(other, clock, tiers_batch=17) as two:
        for place, order in ((one, people), (two, people[::-1])):
            await classified(place.tiers, order)
            for tier in ("S", "D"):
                opened_run = await place.tiers.generate(tier, FAR, ADMIN, override=True)  # type: ignore[arg-type]
                await place.tiers.complete(opened_run.run.id)
        assert await everything_planned(db) == await everything_planned(other)
    await other.close()


async def test_two_processes_share_a_tier_without_anybody_twice(db: Database) -> None:
    async with opened(db, tiers_batch=3) as one, opened(db, tiers_batch=2) as two:
        await classified(one.tiers, crowd(150, "D"))
        first = await one.tiers.generate("D", FAR, ADMIN, override=True)
        second = await two.tiers.generate("D", FAR, ADMIN, override=True)
        assert (second.run.id, second.new) == (first.run.id, False)
        runs = await asyncio.gather(*(place.tiers.complete(first.run.id) for place in (one, two, one, two)))
        assert {(run.status, run.done, run.failed) for run in runs} == {("done", 150, 0)}
        assert await passed(one, "D")
    assert await ask(db, "select count(*) from tiers.run_items") == 150


async def test_two_different_runs_of_one_tier_make_nobodys_month_twice(db: Database) -> None:
    async with opened(db, tiers_batch=2) as one, opened(db, tiers_batch=3) as two:
        await classified(one.tiers, crowd(100, "D"))
        first = (await one.tiers.generate("D", FAR, ADMIN, override=True)).run
        await tell(db, "update tiers.runs set progress_at = clock_timestamp() - interval '1 hour'")
        second = (await two.tiers.generate("D", FAR, ADMIN, override=True)).run
        assert second.id != first.id
        await tell(db, "update tiers.runs set status = 'running', finished_at = null where id = $1", first.id)
        runs = await asyncio.gather(one.tiers.complete(first.id), two.tiers.complete(second.id))
        assert sum(run.done for run in runs) == 100
        assert [run.failed for run in runs] == [0, 0]
    assert await ask(db, "select count(*) from tiers.run_items where status = 'done'") == 100


async def test_people_that_another_process_has_in_hand_are_waited_for_and_taken_when_it_dies(db: Database) -> None:
    async with opened(db, tiers_batch=5) as place:
        await classified(place.tiers, crowd(30, "D"))
        run = (await place.tiers.generate("D", FAR, ADMIN, override=True)).run
        worker = Worker(db, place.bus, SystemClock(), seed_of("batchcast"), 5)
        other = await db.dedicated()
        transaction = other.transaction()
        await transaction.start()
        await other.execute("select from tiers.celebrity_settings where celebrity_id < 4 for no key update")
        while (did := await worker.turn(run)).more:
            pass
        assert did.held
        now = await place.tiers.run(run.id)
        assert (now.status, now.done) == ("running", 27)
        await transaction.rollback()
        await other.close()
        assert (await worker.complete(run.id)).done == 30


async def test_while_one_lane_waits_the_other_goes_on(db: Database) -> None:
    async with opened(db, tiers_batch=5) as place:
        await classified(place.tiers, crowd(40, "D"))
        run = (await place.tiers.generate("D", FAR, ADMIN, override=True)).run
        worker = Worker(db, place.bus, SystemClock(), seed_of("batchcast"), 5)
        other = await db.dedicated()
        transaction = other.transaction()
        await transaction.start()  # It is about to have planned somebody: whoever else writes that must wait and see.
        await other.execute(
            "insert into tiers.run_items (run_id, celebrity_id, month, status) select 0, 1, month, 'done' from tiers.runs where id = $1",
            run.id,
        )
        turn = asyncio.create_task(worker.turn(run))
        await until(lambda: done_are(place, run.id, 35))
        assert not turn.done()
        await transaction.rollback()
        await other.close()
        await turn
        assert (await worker.complete(run.id)).done == 40
        assert await passed(place, "D")


async def done_are(place: Place, run: int, many: int) -> bool:
    return (await place.tiers.run(run)).done == many


async def test_one_person_failing_is_reported_and_the_others_are_planned(db: Database) -> None:
    async with opened(db) as place:
        await classified(place.tiers, crowd(20, "D"))
        await tell(db, "delete from tiers.celebrity_pricing where celebrity_id = 5 and duration = 30")
        await tell(db, "alter table tiers.availability add constraint broken check (celebrity_id <> 9)")
        run = await generate(place.tiers)
        assert (run.status, run.done, run.failed) == ("done", 18, 2)
        failed = {one.celebrity_id: one.reason for one in await place.tiers.items(run.id, "failed")}
        assert set(failed) == {5, 9}
        assert "package" in failed[5]
        assert "broken" in failed[9]
        assert await ask(db, "select count(*) from tiers.availability where celebrity_id in (5, 9)") == 0
        assert not await passed(place, "D")
        await tell(db, "alter table tiers.availability drop constraint broken")
        await classify(place.tiers)
        run = await generate(place.tiers)
        assert (run.done, run.failed, run.unchanged) == (2, 0, 18)
        assert await passed(place, "D")


async def test_somebody_without_a_time_zone_that_exists_fails_alone(db: Database) -> None:
    async with opened(db) as place:
        await classified(place.tiers, crowd(5, "D"))
        await tell(db, "update tiers.celebrity_settings set timezone = 'Mars/Olympus' where celebrity_id = 2")
        run = await generate(place.tiers)
        assert (run.done, run.failed) == (4, 1)


async def test_kinds_that_are_not_allowed_have_no_slots_and_pass(db: Database) -> None:
    async with opened(db) as place:
        people = [
            row(1, allow_physical=False),
            row(2, allow_virtual=False),
            row(3, allow_physical=False, allow_virtual=False),
        ]
        await classified(place.tiers, people)
        run = await generate(place.tiers)
        items = {one.key: one for one in await place.tiers.items(run.id)}
        assert (items["p000001"].physical, items["p000002"].virtual) == (0, 0)
        assert items["p000001"].virtual > 0
        assert '"not_allowed"' in (items["p000003"].short or "")
        assert await passed(place, "D")
        assert (await place.tiers.verify(None, FAR, ADMIN))[0].passed


async def test_missing_tiers_close_every_gate(db: Database) -> None:
    async with opened(db) as place:
        await classified(place.tiers, [row(1, "S")])
        await bring(place.tiers, [row(2, "D")])
        with pytest.raises(Refused, match="people without a tier: 1") as error:
            await place.tiers.generate("S", FAR, ADMIN, override=True)
        assert (error.value.code, error.value.field) == (Code.CONFLICT, "gate")
        await bring(place.tiers, [row(2, "D", excluded="hidden")])
        await generate(place.tiers, "S")


async def test_a_tier_waits_until_the_one_before_is_verified_for_that_month(db: Database) -> None:
    async with opened(db) as place:
        await classified(place.tiers, [row(1, "S"), row(2, "A"), row(3, "B")])
        with pytest.raises(Refused, match=rf"tier A must wait: tier S is not verified for {name_of(FAR)}"):
            await place.tiers.generate("A", FAR, ADMIN)
        assert not await passed(place, "S")
        with pytest.raises(Refused, match="tier S has failed"):
            await place.tiers.generate("A", FAR, ADMIN)
        await generate(place.tiers, "S", override=False)
        with pytest.raises(Refused, match="was changed since"):
            await place.tiers.generate("A", FAR, ADMIN)
        assert await passed(place, "S")
        with pytest.raises(Refused, match="is not verified"):
            await place.tiers.generate("A", FAR + 1, ADMIN)
        assert (await generate(place.tiers, "A", override=False)).done == 1


async def test_an_override_opens_the_gate_and_stands_in_the_audit_log(db: Database) -> None:
    async with opened(db) as place:
        await classified(place.tiers, [row(1, "B")])
        opened_run = await place.tiers.generate("B", FAR, ADMIN, override=True)
        entry = await rows_of(db, "select who, action, after::text from ops.audit where id = $1", opened_run.audit_id)
        assert tuple(entry[0])[:2] == ("root", "tiers generate")
        assert '"override": true' in entry[0]["after"]


async def test_one_person_is_planned_on_demand_behind_the_same_gate(db: Database) -> None:
    async with opened(db) as place:
        await classified(place.tiers, [row(1, "S"), row(2, "A"), row(3, "A"), row(4, "A", excluded="deceased")])
        with pytest.raises(Refused, match="must wait"):
            await place.tiers.generate(None, FAR, ADMIN, person=2)
        await generate(place.tiers, "S")
        assert await passed(place, "S")
        run = await generate(place.tiers, None, override=False, person=2)
        assert (run.tier, run.total, run.done) == ("A", 1, 1)
        for person, words in ((99, "no celebrity"), (4, "no tier")):
            with pytest.raises(Refused, match=words):
                await place.tiers.generate(None, FAR, ADMIN, person=person)
        with pytest.raises(Refused, match="is in tier A, not S"):
            await place.tiers.generate("S", FAR, ADMIN, person=2)
        rest = await generate(place.tiers, "A", override=False)
        assert (rest.done, rest.unchanged, rest.skipped) == (1, 1, 0)


async def bookable(db: Database, person: int) -> list[int]:
    sql = "select id from tiers.availability where celebrity_id = $1 and status = 'available' order by starts_at"
    return [one["id"] for one in await rows_of(db, sql, person)]


async def test_booked_slots_survive_planning_again_and_all_else_is_planned_around_them(db: Database) -> None:
    async with opened(db) as place:
        await classified(place.tiers, crowd(30, "D"))
        await generate(place.tiers)
        booked = []
        for person in range(1, 31):
            for slot in (await bookable(db, person))[: person % 4]:
                booked.append((await place.tiers.book(slot, f"k{slot}", PAUL)).slot)
        await tell(db, "update tiers.celebrity_settings set max_monthly_slots = 20")
        run = await generate(place.tiers, replace=True)
        assert (run.done, run.failed) == (30, 0)
        for slot in booked:
            kept = (await rows_of(db, "select * from tiers.availability where id = $1", slot.id))[0]
            assert (kept["status"], kept["price_cents"], kept["starts_at"]) == (
                "booked",
                slot.price_cents,
                slot.starts_at,
            )
        (found,) = await place.tiers.verify("D", FAR, ADMIN)
        assert found.passed, found.examples
        assert await ask(db, "select count(*) from tiers.run_items where status = 'replaced'") == 30


async def test_planning_again_without_bookings_gives_the_same_rows(db: Database) -> None:
    async with opened(db) as place:
        await classified(place.tiers, crowd(20, "SD"))
        await generate(place.tiers)
        before = await everything_planned(db)
        await generate(place.tiers, replace=True)
        assert await everything_planned(db) == before


async def test_a_change_of_seed_plans_only_what_is_planned_again(db: Database) -> None:
    async with opened(db) as place:
        await classified(place.tiers, crowd(10, "D"))
        await generate(place.tiers)
        before = await everything_planned(db)
    async with opened(db, tiers_seed="another") as place:
        await generate(place.tiers)
        assert await everything_planned(db) == before
        await generate(place.tiers, replace=True)
        assert (await everything_planned(db))[0] != before[0]
        assert await passed(place, "D")


async def test_months_follow_each_other_without_a_gap_and_within_the_cooldowns(db: Database) -> None:
    async with opened(db) as place:
        await classified(place.tiers, crowd(25))
        for month in range(FAR, FAR + 9):
            for tier in TIERS:
                await generate(place.tiers, tier, month)
                assert await passed(place, tier, month)
        for tier in TIERS:  # Later months did not spoil earlier ones.
            assert await passed(place, tier, FAR + 4)
    gaps = """
    select count(*) from (select ends_on, lead(starts_on) over (partition by celebrity_id order by starts_on) as next
        from tiers.rotations) r where next <> ends_on"""
    assert await ask(db, gaps) == 0
    again = """
    select count(*) from (select local_date, cooldown, lead(local_date) over (partition by celebrity_id, city_id order
        by local_date) as next
        from (select distinct celebrity_id, city_id, local_date, cooldown from tiers.availability where city_id is not null) v) v
    where next < (local_date + make_interval(months => cooldown))::date"""
    assert await ask(db, again) == 0
    last = """
    select count(*) from tiers.city_cooldown c where last_visit <> (
        select max(local_date) from tiers.availability a where a.celebrity_id = c.celebrity_id and a.city_id = c.city_id)"""
    assert await ask(db, last) == 0


async def test_a_month_that_has_begun_has_slots_beyond_the_lead_times_only(db: Database) -> None:
    now = dt.datetime(2027, 3, 20, 12, tzinfo=dt.UTC)
    clock = VirtualClock(int(now.timestamp() * 1000))
    async with opened(db, clock) as place:
        await classified(place.tiers, crowd(40, "D"))
        run = await place.tiers.generate("D", None, ADMIN, override=True)
        assert run.run.month == "2027-03"
        await place.tiers.complete(run.run.id)
        assert await passed(place, "D", 12 * 2027 + 2)
    first = {
        one[0]: one[1]
        for one in await rows_of(db, "select meeting_type::text, min(starts_at) from tiers.availability group by 1")
    }
    assert first["virtual"] >= now + dt.timedelta(days=3)
    assert first["physical"] >= now + dt.timedelta(days=7)


async def test_who_moves_to_another_tier_is_planned_there_around_what_was_booked(db: Database) -> None:
    async with opened(db) as place:
        await classified(place.tiers, [row(1, "C"), row(2, "C")])
        await generate(place.tiers, "C")
        slot = (await bookable(db, 1))[0]
        await place.tiers.book(slot, "k", PAUL)
        await classified(place.tiers, [row(1, "A")])
        run = await generate(place.tiers, "A", replace=True)
        assert run.done == 1
        assert (
            await passed(place, "A"),
            await ask(db, "select status from tiers.availability where id = $1", slot),
        ) == (True, "booked")
        home = await rows_of(db, "select tier::text from tiers.celebrity_location_pool order by celebrity_id")
        assert [one["tier"] for one in home] == ["A", "C"]


async def test_a_stopped_run_plans_nothing_more(db: Database) -> None:
    async with opened(db) as place:
        await classified(place.tiers, crowd(10, "D"))
        run = (await place.tiers.generate("D", FAR, ADMIN, override=True)).run
        await place.tiers.stop_run(run.id, ADMIN)
        assert (await place.tiers.complete(run.id)).status == "stopped"
        assert await ask(db, "select count(*) from tiers.availability") == 0
        again = await place.tiers.generate("D", FAR, ADMIN, override=True, resume=True)
        assert (again.run.id, again.run.planned_at) == (run.id, run.planned_at)
        assert (await place.tiers.complete(run.id)).done == 10


async def test_resume_is_refused_where_there_is_nothing_to_resume(db: Database) -> None:
    async with opened(db) as place:
        await classified(place.tiers, crowd(2, "D"))
        await generate(place.tiers)
        with pytest.raises(Refused, match="without resume"):
            await place.tiers.generate("D", FAR, ADMIN, override=True, resume=True)
