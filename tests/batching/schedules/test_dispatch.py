"""One intent for each slot, whatever happens."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections import Counter

import pytest
import pytest_asyncio

from server.batching.schedules import dispatch
from server.batching.schedules.cadence import minute_of, next_slot, slot_at
from server.edge.clock import VirtualClock
from server.edge.postgres import Connection, Database
from server.errors import Refused
from tests.batching.schedules.placed import ADMIN, Placed, leading


@pytest_asyncio.fixture
async def world(db: Database) -> Placed:
    return Placed(db)


async def slots(world: Placed) -> Counter[tuple[int, dt.datetime]]:
    rows = await world.rows("select schedule_id, slot from schedules.provider_run where kind = 'scheduled'")
    return Counter((row[0], row[1]) for row in rows)


async def expected(world: Placed, since: dt.datetime, until: dt.datetime) -> Counter[tuple[int, dt.datetime]]:
    """Every slot in (since, until], from the grid alone."""
    found: Counter[tuple[int, dt.datetime]] = Counter()
    for id_, hours, offset in await world.rows("select id, interval_hours, offset_minutes from schedules.schedule"):
        minute = next_slot(minute_of(since), hours, offset)
        while minute <= minute_of(until):
            found[id_, dt.datetime.fromtimestamp(minute * 60, dt.UTC)] += 1
            minute = next_slot(minute, hours, offset)
    return found


async def test_three_days_bring_each_slot_once(world: Placed) -> None:
    await world.core.intervals.set_tier("e", "enterprise", ADMIN)
    await world.core.intervals.set_tier("f", "enterprise", ADMIN)
    await world.core.intervals.set_own("f", 7, ADMIN)
    for team in ("a", "e", "f"):
        await world.follow(range(4), team)
        await world.follow([1], team, "booking")
    start = world.now
    async for _ in world.days(3, step_minutes=7):
        while (await world.core.due(3, leading)).more:
            pass
    assert await slots(world) == await expected(world, start, world.now)


async def test_an_intent_says_what_for_and_in_whose_term(world: Placed) -> None:
    await world.follow([1])

    async def fence(connection: Connection) -> int:
        return 42

    await world.pass_hours(72)
    due = await world.core.due(100, fence)
    assert len(due.intents) == 2 and not due.more
    row = await world.rows(
        "select intent_key, kind, state, term, schedule_id, platform, type, slot from schedules.provider_run where id = $1",
        due.intents[0].run_id,
    )
    intent = due.intents[0]
    key = f"scheduled:{intent.schedule_id}:{minute_of(intent.slot)}"
    assert row == [(key, "scheduled", "intended", 42, intent.schedule_id, intent.platform, intent.type, intent.slot)]


async def test_after_an_outage_there_is_one_run_for_all_slots_missed_then_the_grid_again(world: Placed) -> None:
    await world.core.intervals.set_tier("a", "enterprise", ADMIN)
    await world.follow([1])
    await world.pass_hours(100.3)
    due = await world.core.due(100, leading)
    assert len(due.intents) == 2
    now = minute_of(world.now)
    for id_, hours, offset, following in await world.rows(
        "select id, interval_hours, offset_minutes, next_run_at from schedules.schedule where businesses > 0"
    ):
        [intent] = [intent for intent in due.intents if intent.schedule_id == id_]
        assert minute_of(intent.slot) == slot_at(now, hours, offset)
        assert minute_of(following) == next_slot(now, hours, offset)
    assert not (await world.core.due(100, leading)).intents


async def test_a_batch_without_businesses_moves_on_without_a_run(world: Placed) -> None:
    [made] = await world.follow([1])
    await world.core.placing.delete(made.business_id, "google", ADMIN)
    await world.pass_hours(72)
    due = await world.core.due(100, leading)
    assert due.intents == () and due.skipped == 2
    assert await world.ask("select min(next_run_at) from schedules.schedule") > world.now


async def test_a_paused_batch_has_no_runs_and_makes_none_up(world: Placed) -> None:
    await world.follow([1])
    [(id_,)] = await world.rows("select id from schedules.schedule where type = 'reviews'")
    await world.core.catalog.pause(id_, ADMIN)
    await world.pass_hours(72)
    assert [intent.type for intent in (await world.core.due(100, leading)).intents] == ["overview"]
    await world.core.catalog.resume(id_, ADMIN)
    assert (await world.core.due(100, leading)).intents == ()
    assert await world.ask("select next_run_at from schedules.schedule where id = $1", id_) > world.now
    await world.pass_hours(24)
    assert id_ in [intent.schedule_id for intent in (await world.core.due(100, leading)).intents]


async def test_those_that_wait_longest_come_first(world: Placed) -> None:
    await world.follow(range(9))
    await world.pass_hours(72)
    order = await world.rows("select id from schedules.schedule order by next_run_at, id limit 2")
    due = await world.core.due(2, leading)
    assert sorted(intent.schedule_id for intent in due.intents) == sorted(row[0] for row in order) and due.more


async def test_two_that_believe_to_lead_make_each_intent_once(world: Placed, dsn: str) -> None:
    await world.follow(range(30))
    other_db = await Database.open(dsn, clock=VirtualClock())
    try:
        other = Placed(other_db, clock=world.clock)
        start = world.now
        for _ in range(4):
            await world.pass_hours(24)
            await asyncio.gather(*(node.core.due(4, leading) for node in (world, other) for _ in range(8)))
            while (await world.core.due(100, leading)).more:
                pass
        counts = await slots(world)
        assert set(counts.values()) == {1} and len(counts) == len(await expected(world, start, world.now))
    finally:
        await other_db.close()


async def test_who_lost_the_lead_makes_nothing(world: Placed) -> None:
    await world.follow([1])
    await world.pass_hours(72)

    async def lost(connection: Connection) -> int:
        raise Refused("unavailable", "another node leads")

    with pytest.raises(Refused, match="another node leads"):
        await world.core.due(100, lost)
    assert await slots(world) == Counter()


async def test_a_crash_before_the_commit_leaves_the_slot_to_the_next_one(world: Placed) -> None:
    await world.follow([1])
    await world.pass_hours(72)
    async with world.db.connection() as connection:
        transaction = connection.transaction()
        await transaction.start()
        rows = await connection.fetch(dispatch.DUE, world.now, 100, 1, True)
        assert len([row for row in rows if row["run_id"]]) == 2
        assert (await world.core.due(100, leading)).intents == (), (
            "the rows of who crashes are passed over, not waited for"
        )
        await transaction.rollback()
    assert len((await world.core.due(100, leading)).intents) == 2


async def test_the_next_slot_in_sql_is_that_of_the_plan(world: Placed) -> None:
    await world.follow(range(12))
    for hours in (0.01, 5.99, 13.5, 24, 71.02):
        await world.pass_hours(hours)
        before = dict(await world.rows("select id, next_run_at from schedules.schedule"))
        await world.core.due(1_000, leading)
        now = minute_of(world.now)
        for id_, every, offset, following in await world.rows(
            "select id, interval_hours, offset_minutes, next_run_at from schedules.schedule"
        ):
            advanced = before[id_] <= world.now
            assert minute_of(following) == next_slot(now, every, offset) if advanced else following == before[id_]
