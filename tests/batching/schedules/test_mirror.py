"""The provider's own schedules as a copy of ours: made, adopted, pushed, retired; their runs found; drift told."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from cronsim import CronSim
from hypothesis import given
from hypothesis import strategies as st

from server.batching.schedules.cadence import minute_of, next_slot, time_of
from server.batching.schedules.mirror import cron, identifiers_in
from server.edge.postgres import Database
from server.errors import Refused
from tests.batching.schedules.running import (
    Stage,
    ask,
    batch,
    crowd,
    expected,
    follow,
    place,
    quick,
    reviews,
    rows,
    stage,
    states,
    tell,
)
from tests.doubles.apify import Act
from tests.doubles.apify.platform import actor_id
from tests.doubles.apify.reviews import ACTORS, World

THEIRS = quick(own_clock=False)
NONE = '{"data": {"total": 0, "offset": 0, "limit": 1, "count": 0, "desc": false, "items": []}}'
GOOGLE = actor_id(ACTORS["google", "reviews"])


@pytest.mark.pure
@given(st.sampled_from([1, 2, 3, 4, 6, 8, 12, 24]), st.integers(0, 1439), st.integers(28_000_000, 29_000_000))
def test_cron_runs_at_our_slots_and_at_no_other_time(hours: int, offset: int, minute: int) -> None:
    offset %= hours * 60
    there = CronSim(cron(hours, offset), time_of(minute))
    for _ in range(5):
        at = next(there)
        assert minute_of(at) == next_slot(minute, hours, offset)
        minute = minute_of(at)


@pytest.mark.pure
@pytest.mark.parametrize("hours", [0, 5, 7, 9, 25, 48, 72, 168])
def test_an_interval_that_cron_cannot_express_is_refused(hours: int) -> None:
    with pytest.raises(Refused, match="cannot express"):
        cron(hours, 0)


@pytest.mark.pure
def test_identifiers_are_read_from_any_input() -> None:
    urls = {"startUrls": [{"url": "http://www.booking.com/hotel/a/?aid=1"}, {"x": 1}, 7]}
    assert identifiers_in("booking", urls) == ["https://booking.com/hotel/a"]
    assert identifiers_in("google", {"placeIds": [place(1), None]}) == [place(1)]
    assert identifiers_in("google", None) == identifiers_in("facebook", {"startUrls": "no"}) == []


async def there(node: Stage) -> dict[str, Any]:
    return {plan["name"]: plan for plan in node.double.platform.schedules.values()}


async def test_batches_are_mirrored_with_their_whole_input_and_pushed_again_when_it_changes(db: Database) -> None:
    async with stage(db, terms=THEIRS) as node:
        schedule = await batch(db)
        await tell(db, "update schedules.schedule set offset_minutes = 75")
        await crowd(db, schedule, [place(1), place(2)])
        await batch(db, "booking")
        assert [turn.done for turn in await node.every("mirror")] == [1]
        [(name, plan)] = (await there(node)).items()
        assert (name, plan["cronExpression"], plan["isEnabled"]) == (
            "batchcast-google-reviews-6h-0",
            "15 1,7,13,19 * * *",
            True,
        )
        assert orjson.loads(plan["actions"][0]["runInput"]["body"])["placeIds"] == [place(1), place(2)]
        assert (await node.runs.mirror.drift()).ok
        assert [turn.taken for turn in await node.every("mirror")] == [0]
        await follow(db, schedule, place(3))
        assert "older input" in (await node.runs.mirror.drift()).examples[0]
        await node.every("mirror")
        [plan] = (await there(node)).values()
        assert len(orjson.loads(plan["actions"][0]["runInput"]["body"])["placeIds"]) == 3
        await tell(db, "update schedules.schedule set paused = true")
        await node.every("mirror")
        [plan] = (await there(node)).values()
        assert plan["isEnabled"] is False


@pytest.mark.parametrize("act", [Act(status=500, done=True), Act(status=409), Act(cut="now", done=True)])
async def test_one_of_that_name_is_adopted_and_never_made_twice(db: Database, act: Act) -> None:
    async with stage(db, terms=THEIRS) as node:
        schedule = await batch(db)
        await follow(db, schedule, place(1))
        if act.status == 409:
            async with stage(db, double=node.double, terms=THEIRS) as other:
                await other.every("mirror")
            await tell(db, "update schedules.schedule set provider_schedule_id = null")
            node.double.script(
                "schedules",
                Act(body=NONE),
            )
        node.double.script("schedule-create", act)
        for _ in range(2):
            await node.every("mirror")
        assert len(await there(node)) == 1
        assert await ask(db, "select provider_schedule_id from schedules.schedule") in node.double.platform.schedules
        assert (await node.runs.mirror.drift()).ok


async def test_what_cron_cannot_say_stays_on_our_clock_and_what_is_mirrored_leaves_it(db: Database) -> None:
    async with stage(db, terms=THEIRS) as node:
        mirrored, ours = await batch(db), await batch(db, hours=48)
        await follow(db, mirrored, place(1))
        await follow(db, ours, place(2))
        await node.every("mirror")
        await tell(db, "update schedules.schedule set next_run_at = '2026-01-01Z'")
        await node.every("dispatch")
        assert [run.input["placeIds"] for run in node.double.runs] == [[place(2)]]
        await node.every("mirror")
        late = await rows(db, "select id from schedules.schedule where next_run_at <= now()")
        assert late == [], "the slots that the provider serves pass"


async def test_runs_of_the_providers_schedules_are_found_and_attributed_also_those_of_a_time_that_we_were_down(
    db: Database,
) -> None:
    world = World(reviews=3)
    async with stage(db, terms=THEIRS, world=world) as node:
        schedule = await batch(db)
        [business] = await follow(db, schedule, place(1))
        await node.every("mirror")
        for _ in range(2):
            node.double.fire(next(iter(node.double.platform.schedules)))
        node.double.platform.start(ACTORS["google", "reviews"], {"placeIds": [place(2)]}, {}, [])
        await node.double.settle()
        await node.turn("poll")
        await node.settle()
        assert await states(db) == {"succeeded": 2}
        assert await ask(db, "select min(asked) from schedules.provider_run") == 1
        assert await reviews(db) == expected(world, "google", place(1), [("ada", business)])
        await node.turn("poll")
        assert await ask(db, "select count(*) from schedules.provider_run") == 2


async def test_back_on_our_own_clock_nothing_of_ours_is_left_there(db: Database) -> None:
    async with stage(db, terms=THEIRS) as node:
        await follow(db, await batch(db), place(1))
        await node.every("mirror")
        async with stage(db, double=node.double) as other:
            assert not (await other.runs.mirror.drift()).ok
            await other.every("mirror")
            assert (await other.runs.mirror.drift()).ok
        assert await there(node) == {}
        assert await ask(db, "select provider_schedule_id from schedules.schedule") is None


async def test_drift_names_what_is_wrong(db: Database) -> None:
    async with stage(db, terms=THEIRS) as node:
        await follow(db, await batch(db), place(1))
        assert "is not at the provider" in (await node.runs.mirror.drift()).examples[0]
        await node.every("mirror")
        [plan] = (await there(node)).values()
        plan["cronExpression"] = "1 * * * *"
        assert "cron '1 * * * *'" in (await node.runs.mirror.drift()).examples[0]
        await node.every("mirror")
        assert (await node.runs.mirror.drift()).ok
        node.double.platform.put_schedule(None, {**plan, "id": "x", "name": "batchcast-stray"})
        assert "batchcast-stray" in (await node.runs.mirror.drift()).examples[0]
        node.double.always["schedules"] = Act(status=401)
        assert "could not be asked" in (await node.runs.mirror.drift()).examples[0]


async def test_a_full_account_leaves_the_rest_on_our_clock(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.doubles.apify.platform.SCHEDULES_MOST", 1)
    async with stage(db, terms=THEIRS) as node:
        for n in range(3):
            await follow(db, await batch(db, index=n), place(n))
        [turn] = await node.every("mirror")
        assert (turn.done, turn.failed) == (1, 2)
        assert await ask(db, "select count(*) from schedules.schedule where provider_schedule_id is null") == 2
