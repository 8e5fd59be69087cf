"""The queue of retries: 5, 15, 45 minutes, then failed; each its own run, in turns over the teams, a few at a time."""

from __future__ import annotations

import asyncio

import pytest

from server.batching.schedules import retries
from server.batching.schedules.outcomes import Ladder
from server.edge.postgres import Database
from server.errors import Refused
from tests.batching.schedules.running import (
    Stage,
    ask,
    batch,
    crowd,
    follow,
    place,
    quick,
    rows,
    stage,
    states,
    tell,
)
from tests.doubles.apify import Act, Outcome
from tests.doubles.apify.reviews import World


@pytest.mark.pure
def test_the_waits_are_5_15_and_45_minutes_and_then_it_has_failed() -> None:
    ladder = Ladder()
    assert [ladder.wait_s(n) for n in range(1, 5)] == [300, 900, 2700, None]
    assert ladder.after_retries == [300, 900, 2700, None]
    assert Ladder(retries=0).wait_s(1) is None


async def waits_min(db: Database) -> float | None:
    """Minutes until the only retry is due, rounded."""
    wait = await ask(db, "select extract(epoch from next_retry_at - clock_timestamp()) / 60 from schedules.retry")
    return None if wait is None else round(wait)


async def try_again(node: Stage) -> None:
    await node.retries_due()
    await node.every("retry")
    await node.settle()


async def test_a_business_that_stays_missing_is_tried_three_times_and_has_then_failed(db: Database) -> None:
    async with stage(db, world=World(missing={place(1)})) as node:
        schedule = await batch(db)
        await crowd(db, schedule, [place(1), place(2)])
        await node.run_once(schedule)
        seen = [(await states(db, "retry"), await waits_min(db))]
        for _ in range(3):
            await try_again(node)
            seen.append((await states(db, "retry"), await waits_min(db)))
        waiting = {"waiting": 1}
        assert seen == [(waiting, 5), (waiting, 15), (waiting, 45), ({"failed": 1}, None)]
        assert [run.input["placeIds"] for run in node.double.runs[1:]] == [[place(1)]] * 3
        await try_again(node)
        assert len(node.double.runs) == 4, "a failed one is left alone"
        assert "brought nothing" in await ask(db, "select last_error from schedules.retry")


async def test_a_retry_that_brings_something_resolves_it(db: Database) -> None:
    world = World(missing={place(1)}, reviews=3)
    async with stage(db, world=world) as node:
        schedule = await batch(db)
        await follow(db, schedule, place(1), "ada", "bob")
        await node.run_once(schedule)
        assert await states(db, "retry") == {"waiting": 2}
        world.missing.clear()
        await try_again(node)
        assert await states(db, "retry") == {"resolved": 2}
        assert await ask(db, "select count(*) from schedules.review") == 6


async def test_the_next_run_of_the_batch_resolves_what_it_finds_also_what_had_failed(db: Database) -> None:
    world = World(missing={place(1)})
    async with stage(db, world=world, terms=quick(ladder=Ladder(retries=0))) as node:
        schedule = await batch(db)
        await follow(db, schedule, place(1))
        await node.run_once(schedule, "first")
        assert await states(db, "retry") == {"failed": 1}
        await node.run_once(schedule, "second")
        assert await states(db, "retry") == {"failed": 1}, "still missing is still failed"
        world.missing.clear()
        await node.run_once(schedule, "third")
        assert await states(db, "retry") == {"resolved": 1}


async def test_missing_once_more_after_it_was_resolved_starts_a_fresh_count(db: Database) -> None:
    world = World(missing={place(1)})
    async with stage(db, world=world) as node:
        schedule = await batch(db)
        await follow(db, schedule, place(1))
        await node.run_once(schedule, "first")
        await try_again(node)
        world.missing.clear()
        await try_again(node)
        world.missing.add(place(1))
        await node.run_once(schedule, "second")
        [row] = await rows(db, "select state, attempts from schedules.retry")
        assert (tuple(row), await waits_min(db)) == (("waiting", 0), 5)


async def test_a_run_of_the_batch_does_not_set_back_the_count_of_one_that_waits(db: Database) -> None:
    async with stage(db, world=World(missing={place(1)})) as node:
        schedule = await batch(db)
        await follow(db, schedule, place(1))
        await node.run_once(schedule, "first")
        await try_again(node)
        await node.run_once(schedule, "second")
        [row] = await rows(db, "select state, attempts from schedules.retry")
        assert (tuple(row), await waits_min(db)) == (("waiting", 1), 15)


@pytest.mark.parametrize("outcome", ["FAILED", "TIMED-OUT", "ABORTED"])
async def test_a_retry_whose_run_ends_badly_counts(db: Database, outcome: str) -> None:
    async with stage(db, world=World(missing={place(1)})) as node:
        schedule = await batch(db)
        await follow(db, schedule, place(1))
        await node.run_once(schedule)
        node.double.platform.outcomes.append(Outcome(outcome, share=0))
        await try_again(node)
        assert (await states(db, "retry"), await waits_min(db)) == ({"waiting": 1}, 15)


async def test_a_retry_that_the_provider_refuses_counts_and_one_that_it_limits_does_not(db: Database) -> None:
    async with stage(db, world=World(missing={place(1)})) as node:
        schedule = await batch(db)
        await follow(db, schedule, place(1))
        await node.run_once(schedule)
        node.double.script("start", Act(status=400))
        await try_again(node)
        assert (await states(db, "retry"), await waits_min(db)) == ({"waiting": 1}, 15)
        node.double.script("start", Act(status=429))
        await node.retries_due()
        await node.every("retry")
        await node.every("dispatch")
        assert await states(db, "retry") == {"running": 1}
        await node.let_poll()
        await node.settle()
        assert (await states(db, "retry"), await waits_min(db)) == ({"waiting": 1}, 45)


async def test_each_platform_has_its_own_places_and_the_teams_take_turns(db: Database) -> None:
    missing = {place(n) for n in range(20)}
    async with stage(db, world=World(missing=missing), terms=quick(retries_at_once=4), held=True) as node:
        schedule, booking = await batch(db), await batch(db, "booking")
        for n in range(12):
            await follow(db, schedule, place(n), "greedy")
        await follow(db, schedule, place(12), "modest")
        await follow(db, schedule, place(13), "shy")
        await follow(db, booking, place(1, "booking"), "greedy")
        await tell(
            db,
            """insert into schedules.retry (team, business_id, platform, type, next_retry_at)
            select team, business_id, platform, type, now() - interval '1 hour' from schedules.mapping order by business_id""",
        )
        await node.every("retry")
        claimed = await rows(db, "select team, platform from schedules.retry where state = 'running' order by 2, 1")
        assert [tuple(row) for row in claimed] == [
            ("greedy", "booking"),
            ("greedy", "google"),
            ("greedy", "google"),
            ("modest", "google"),
            ("shy", "google"),
        ]
        await node.every("retry")
        assert (await states(db, "retry"))["running"] == 5, "no place has become free"


async def test_two_nodes_that_claim_at_once_claim_nothing_twice_and_keep_to_the_places(db: Database) -> None:
    async with stage(db, terms=quick(retries_at_once=5)) as node, stage(db, double=node.double) as other:
        schedule = await batch(db)
        await crowd(db, schedule, [place(n) for n in range(12)])
        await tell(
            db,
            """insert into schedules.retry (team, business_id, platform, type, next_retry_at)
            select team, business_id, platform, type, now() from schedules.mapping""",
        )
        await asyncio.gather(*(one.turn("retry") for one in (node, other) * 3))
        assert await states(db, "retry") == {"running": 5, "waiting": 7}
        assert await ask(db, "select count(*) from schedules.provider_run") == 5
        assert await ask(db, "select count(distinct run_id) from schedules.retry") == 5


async def test_a_retry_whose_run_is_lost_counts_as_failed_when_its_lease_ends(db: Database) -> None:
    async with stage(db, world=World(missing={place(1)})) as node:
        schedule = await batch(db)
        await follow(db, schedule, place(1))
        await node.run_once(schedule)
        await node.retries_due()
        await node.every("retry")
        await tell(db, "update schedules.retry set lease_until = now() - interval '1 s'")
        await node.turn("retry")
        assert await states(db, "retry") == {"running": 1}, "its run has not ended"
        await tell(db, "delete from schedules.provider_run where kind = 'retry'")
        assert (await node.turn("retry")).failed == 1
        [row] = await rows(db, "select state, attempts, last_error from schedules.retry")
        assert tuple(row) == ("waiting", 1, retries.ORPHAN)


async def test_a_business_paused_meanwhile_owes_no_retry(db: Database) -> None:
    async with stage(db, world=World(missing={place(1)})) as node:
        schedule = await batch(db)
        await follow(db, schedule, place(1))
        await node.run_once(schedule)
        await tell(db, "update schedules.business set status = 'paused'")
        await try_again(node)
        assert (await states(db, "retry"), len(node.double.runs)) == ({"resolved": 1}, 1)


async def test_an_administrator_revives_what_has_failed_with_a_fresh_count(db: Database) -> None:
    world = World(missing={place(1)})
    async with stage(db, world=world) as node:
        schedule = await batch(db)
        [business, healthy] = await crowd(db, schedule, [place(1), place(2)])
        await node.run_once(schedule)
        for _ in range(3):
            await try_again(node)
        assert await states(db, "retry") == {"failed": 1}
        assert (await node.runs.revive(business)).count == 1
        [row] = await rows(db, "select state, attempts from schedules.retry")
        assert tuple(row) == ("waiting", 0)
        await node.every("retry")
        await node.settle()
        assert (await states(db, "retry"), await waits_min(db)) == ({"waiting": 1}, 15)
        assert (await node.runs.revive(healthy, "google", "reviews")).count == 1, (
            "one that never failed is tried at once"
        )
        with pytest.raises(Refused, match="no business 999"):
            await node.runs.revive(999)


async def test_what_is_running_is_not_revived(db: Database) -> None:
    async with stage(db, held=True) as node:
        schedule = await batch(db)
        [business] = await follow(db, schedule, place(1))
        assert (await node.runs.revive(business)).count == 1
        await node.every("retry")
        assert (await node.runs.revive(business)).count == 0


async def test_settled_ones_are_removed_after_their_days(db: Database) -> None:
    async with stage(db) as node:
        schedule = await batch(db)
        ids = await crowd(db, schedule, [place(n) for n in range(4)])
        for business, (state, days) in zip(
            ids, [("resolved", 6), ("resolved", 8), ("failed", 89), ("failed", 91)], strict=True
        ):
            await tell(
                db,
                """insert into schedules.retry (team, business_id, platform, type, state, settled_at)
                values ('ada', $1, 'google', 'reviews', $2, now() - make_interval(days => $3))""",
                business,
                state,
                days,
            )
        await node.every("cleanup")
        left = await rows(db, "select business_id from schedules.retry order by 1")
        assert [row[0] for row in left] == [ids[0], ids[2]]
