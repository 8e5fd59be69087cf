"""Runs from the intent to the last review, over a real database and a provider on loopback: started once, whatever happens."""

from __future__ import annotations

from typing import Any

import pytest

from server.batching.schedules import intents
from server.batching.schedules.outcomes import grace_s, stale_s
from server.edge.postgres import Database
from server.errors import Refused
from tests.batching.schedules.running import (
    QUIET,
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
from tests.doubles.apify import Act, Outcome
from tests.doubles.apify.reviews import ACTORS, World


async def run_row(db: Database, **where: Any) -> Any:
    [row] = await rows(db, "select * from schedules.provider_run order by id desc limit 1")
    return row


@pytest.mark.parametrize("platform", ["google", "facebook", "tripadvisor", "booking"])
async def test_a_triggered_run_brings_each_team_its_own_copy_of_every_review(db: Database, platform: Any) -> None:
    world = World(reviews=5, noise=2)
    async with stage(db, world=world) as node:
        schedule = await batch(db, platform)
        shared = await follow(db, schedule, place(1, platform), "ada", "bob")
        [own] = await follow(db, schedule, place(2, platform), "bob")
        await node.run_once(schedule)
        assert await reviews(db) == (
            expected(world, platform, place(1, platform), [("ada", shared[0]), ("bob", shared[1])])
            | expected(world, platform, place(2, platform), [("bob", own)])
        )
        row = await run_row(db)
        assert (row["state"], row["asked"], row["items"], row["attributed"], row["unasked"], row["missing"]) == (
            "succeeded",
            2,
            20,
            10,
            10,
            0,
        )
        assert len(node.double.runs) == 1
        assert await states(db, "retry") == {}


@pytest.mark.parametrize("platform", ["google", "facebook", "tripadvisor", "booking"])
async def test_an_overview_run_stores_the_figures_of_each_business(db: Database, platform: Any) -> None:
    async with stage(db) as node:
        schedule = await batch(db, platform, "overview")
        [one, other] = await crowd(db, schedule, [place(1, platform), place(2, platform)])
        await node.run_once(schedule)
        found = await rows(db, "select business_id, rating, review_count from schedules.overview order by 1")
        assert [(row[0], row[2]) for row in found] == [(one, 5), (other, 5)]
        assert all(0 < row["rating"] <= 10 for row in found)


async def test_a_dataset_of_many_pages_is_read_to_its_end(db: Database) -> None:
    world = World(reviews=100)
    async with stage(db, world=world, terms=quick(page_items=7)) as node:
        schedule = await batch(db)
        ids = await crowd(db, schedule, [place(n) for n in range(3)])
        await node.run_once(schedule)
        assert await ask(db, "select count(*) from schedules.review") == 300
        assert (await run_row(db))["items"] == 300
        assert await states(db, "retry") == {}, "what an earlier page has brought is not missing"
        assert await reviews(db) == set().union(
            *(expected(world, "google", place(n), [("ada", business)]) for n, business in enumerate(ids))
        )


async def test_a_trigger_asked_twice_is_one_run_and_so_is_one_for_a_batch_that_has_a_run_under_way(
    db: Database,
) -> None:
    async with stage(db) as node:
        schedule = await batch(db)
        await follow(db, schedule, place(1))
        first = await node.runs.trigger(schedule, "a")
        assert (await node.runs.trigger(schedule, "a")).run == first.run
        other = await node.runs.trigger(schedule, "b")
        assert (other.run, other.new) == (first.run, False)
        await node.settle()
        assert len(node.double.runs) == 1
        assert (await node.runs.trigger(schedule, "a")).new is False
        assert (await node.runs.trigger(schedule, "b")).new is True
        await node.settle()
        assert len(node.double.runs) == 2


async def test_a_trigger_of_nothing_is_refused(db: Database) -> None:
    async with stage(db) as node:
        with pytest.raises(Refused, match="no schedule 99"):
            await node.runs.trigger(99, "k")
        with pytest.raises(Refused, match="no businesses"):
            await node.runs.trigger(await batch(db), "k")
        with pytest.raises(Refused, match="characters"):
            await node.runs.trigger(1, "k" * 101)


async def test_what_is_due_is_started_when_this_server_owns_the_clock(db: Database) -> None:
    async with stage(db) as node:
        schedule = await batch(db)
        await follow(db, schedule, place(1))
        await tell(db, "update schedules.schedule set next_run_at = now() - interval '1 minute'")
        await node.settle()
        assert (await run_row(db))["kind"] == "scheduled"
        assert len(node.double.runs) == 1
        await node.settle()
        assert len(node.double.runs) == 1


async def test_no_more_runs_are_under_way_than_the_account_may_have(db: Database) -> None:
    async with stage(db, terms=quick(runs_most=3), held=True) as node:
        for n in range(8):
            schedule = await batch(db, index=n)
            await follow(db, schedule, place(n))
            await node.runs.trigger(schedule, "k")
        await node.every("dispatch")
        assert await states(db) == {"running": 3, "intended": 5}
        node.double.held = False
        for run in node.double.runs:
            node.double.finish(run)
        await node.settle()
        assert (node.double.platform.peak, await states(db)) == (3, {"succeeded": 8})


async def test_intents_are_claimed_together_but_one_of_each_batch_and_within_the_accounts_room(db: Database) -> None:
    async with stage(db) as node:
        batches = [await batch(db, index=n) for n in range(4)]
        for n, schedule in enumerate(batches):
            await follow(db, schedule, place(n))
        for key, schedule in enumerate([batches[0], *batches]):
            await tell(
                db,
                """insert into schedules.provider_run (intent_key, kind, schedule_id, platform, type)
                values ($1, 'triggered', $2, 'google', 'reviews')""",
                f"k{key}",
                schedule,
            )
        async with node.runs.acting() as connection:
            claimed = await intents.claim(connection, 3, 10)
        assert [intent.schedule_id for intent, _ in claimed] == batches[:3], "the oldest ones, no batch twice"
        assert [intent.identifiers for intent, _ in claimed] == [(place(n),) for n in range(3)]
        async with node.runs.acting() as connection:
            assert await intents.claim(connection, 3, 10) == [], "the account is full"
            assert [intent.schedule_id for intent, _ in await intents.claim(connection, 9, 10)] == [batches[3]]


async def test_a_provider_in_trouble_is_asked_once_a_turn_and_what_was_claimed_is_left_as_it_was(db: Database) -> None:
    async with stage(db) as node:
        for n in range(4):
            schedule = await batch(db, index=n)
            await follow(db, schedule, place(n))
            await node.runs.trigger(schedule, "k")
        node.double.script("start", Act(), Act(status=500))
        turn = await node.turn("dispatch")
        assert (turn.done, turn.failed, turn.deferred, turn.more) == (1, 1, 2, False)
        assert node.double.asked.count("start") == 2
        found = await rows(db, "select state, attempts from schedules.provider_run order by id")
        assert [tuple(row) for row in found] == [("running", 1), ("unknown", 1), ("intended", 0), ("intended", 0)]


async def test_who_slept_through_a_claim_does_not_undo_the_next_one(db: Database) -> None:
    async with stage(db) as node:
        schedule = await batch(db)
        await follow(db, schedule, place(1))
        await node.runs.trigger(schedule, "k")
        async with node.runs.acting() as connection:
            [(slept, _)] = await intents.claim(connection, 10, 1)
            await intents.again(connection, slept.id, "it was not taken")
        await node.let_poll()
        async with node.runs.acting() as connection:
            [(other, _)] = await intents.claim(connection, 10, 1)
            assert await intents.release(connection, [slept]) == 0
            assert await intents.release(connection, [other]) == 1


@pytest.mark.parametrize(
    ("act", "taken"),
    [
        (Act(status=500), False),
        (Act(status=500, done=True), True),
        (Act(status=503, done=True), True),
        (Act(cut="now"), False),
        (Act(cut="now", done=True), True),
        (Act(cut="body"), True),
        (Act(body="{", done=True), True),
        (Act(status=504, done=True, delay_s=0.2), True),
    ],
)
async def test_a_start_of_which_nobody_knows_is_looked_for_and_never_paid_for_twice(
    db: Database, act: Act, taken: bool
) -> None:
    world = World(reviews=5)
    async with stage(db, world=world) as node:
        schedule = await batch(db)
        [business] = await follow(db, schedule, place(1))
        node.double.script("start", act)
        await node.runs.trigger(schedule, "k")
        await node.every("dispatch")
        assert await states(db) == {"unknown": 1}
        await node.double.settle()
        await node.every("poll")
        await node.every("dispatch")
        if not taken:
            assert await states(db) == {"unknown": 1}, "it may still show in the list"
            await node.much_later()
            await node.every("poll")
            await node.let_poll()
        await node.settle()
        assert len(node.double.runs) == 1
        assert await reviews(db) == expected(world, "google", place(1), [("ada", business)])


async def test_a_process_that_died_between_the_intent_and_the_start_leaves_an_intent_that_is_started(
    db: Database,
) -> None:
    async with stage(db) as node:
        schedule = await batch(db)
        await follow(db, schedule, place(1))
        await node.runs.trigger(schedule, "k")
        async with stage(db, double=node.double) as other:
            await other.settle()
        assert (len(node.double.runs), await states(db)) == (1, {"succeeded": 1})


@pytest.mark.parametrize("started", [False, True])
async def test_a_process_that_died_in_the_middle_of_a_start_is_made_up_for_by_looking(
    db: Database, started: bool
) -> None:
    async with stage(db) as node:
        schedule = await batch(db)
        await follow(db, schedule, place(1))
        await node.runs.trigger(schedule, "k")
        async with node.runs.acting() as connection:
            [(claimed, _)] = await intents.claim(connection, 10, 1)
        if started:
            await node.runs.provider.start(claimed)
        await node.every("dispatch")
        await node.every("poll")
        assert await states(db) == {"starting": 1}, "its process may be alive"
        await tell(db, f"update schedules.provider_run set checked_at = now() - interval '{stale_s(5) + 1} s'")
        await node.every("poll")
        if not started:
            await tell(db, f"update schedules.provider_run set checked_at = now() - interval '{grace_s(5) + 1} s'")
            await node.every("poll")
            await node.let_poll()
        await node.settle()
        assert (len(node.double.runs), await states(db)) == (1, {"succeeded": 1})


async def test_lost_starts_of_equal_batches_each_get_a_run_of_their_own(db: Database) -> None:
    async with stage(db) as node:
        for n in range(4):
            schedule = await batch(db, index=n)
            await follow(db, schedule, place(1 if n < 2 else n), f"team{n}")
            await node.runs.trigger(schedule, "k")
        node.double.script("start", *[Act(status=500, done=True)] * 4)
        await node.every("dispatch")
        await node.settle()
        assert (len(node.double.runs), await states(db)) == (4, {"succeeded": 4})
        assert await ask(db, "select count(distinct provider_run_id) from schedules.provider_run") == 4


async def test_a_run_that_somebody_else_started_is_not_taken_for_ours(db: Database) -> None:
    async with stage(db) as node:
        schedule = await batch(db)
        await follow(db, schedule, place(1))
        node.double.platform.start(ACTORS["google", "reviews"], {"placeIds": ["ChIJanother"]}, {}, [])
        node.double.script("start", Act(status=500))
        await node.runs.trigger(schedule, "k")
        await node.every("dispatch")
        await node.every("poll")
        assert await states(db) == {"unknown": 1}


async def test_while_the_list_cannot_be_read_nothing_is_started_again(db: Database) -> None:
    async with stage(db) as node:
        schedule = await batch(db)
        await follow(db, schedule, place(1))
        node.double.script("start", Act(status=500, done=True))
        node.double.always["runs"] = Act(status=503)
        await node.runs.trigger(schedule, "k")
        await node.every("dispatch")
        await node.much_later()
        turn = await node.turn("poll")
        assert (turn.deferred, await states(db)) == (1, {"unknown": 1})
        node.double.always.clear()
        await node.settle()
        assert len(node.double.runs) == 1


@pytest.mark.parametrize("act", [Act(status=429, retry_after="1"), Act(status=401), Act(status=403), Act(status=404)])
async def test_a_start_that_was_not_taken_waits_and_is_made_later(db: Database, act: Act) -> None:
    async with stage(db) as node:
        schedule = await batch(db)
        await follow(db, schedule, place(1))
        node.double.script("start", act)
        await node.runs.trigger(schedule, "k")
        await node.every("dispatch")
        row = await run_row(db)
        assert (row["state"], row["attempts"]) == ("intended", 1)
        assert str(act.status) in row["error"]
        await node.every("dispatch")
        assert node.double.asked.count("start") == 1, "not at once"
        await node.let_poll()
        await node.settle()
        assert (len(node.double.runs), await states(db, "retry")) == (1, {})


async def test_a_start_that_the_provider_refuses_sends_its_businesses_to_the_retries_one_by_one(db: Database) -> None:
    async with stage(db) as node:
        schedule = await batch(db)
        await crowd(db, schedule, [place(1), place(2)])
        node.double.script("start", Act(status=400, kind="invalid-input"))
        await node.run_once(schedule)
        assert await states(db) == {"refused": 1}
        assert await states(db, "retry") == {"waiting": 2}
        assert "refused" in await ask(db, "select last_error from schedules.retry limit 1")


@pytest.mark.parametrize(
    ("outcome", "state", "found", "queued"),
    [
        (Outcome("SUCCEEDED"), "succeeded", 4, 0),
        (Outcome("FAILED"), "failed", 0, 4),
        (Outcome("ABORTED", share=0.25), "aborted", 1, 0),
        (Outcome("TIMED-OUT", share=0.5), "timed_out", 2, 2),
        (Outcome("SUCCEEDED", share=0), "succeeded", 0, 4),
        (Outcome("SUCCEEDED", expired=True), "succeeded", 0, 4),
    ],
)
async def test_every_end_of_a_run_is_handled_and_what_there_is_is_kept(
    db: Database, outcome: Outcome, state: str, found: int, queued: int
) -> None:
    async with stage(db) as node:
        schedule = await batch(db)
        await crowd(db, schedule, [place(n) for n in range(4)])
        node.double.platform.outcomes.append(outcome)
        await node.run_once(schedule)
        assert await states(db) == {state: 1}
        assert await states(db, "retry") == ({"waiting": queued} if queued else {})
        assert await ask(db, "select count(*) from schedules.review") == 5 * found
        assert (await run_row(db))["missing"] == 4 - found


async def test_a_business_that_was_paused_is_not_asked_for_and_a_batch_of_such_is_skipped(db: Database) -> None:
    async with stage(db) as node:
        schedule = await batch(db)
        [one, other] = await crowd(db, schedule, [place(1), place(2)])
        await tell(db, "update schedules.business set status = 'paused' where id = $1", one)
        await node.run_once(schedule, "first")
        assert node.double.runs[0].input["placeIds"] == [place(2)]
        await tell(db, "update schedules.business set status = 'paused' where id = $1", other)
        await node.run_once(schedule, "second")
        assert (len(node.double.runs), await states(db)) == (1, {"succeeded": 1, "skipped": 1})


async def test_of_slots_that_waited_for_the_provider_only_the_last_is_served(db: Database) -> None:
    async with stage(db) as node:
        schedule = await batch(db)
        await follow(db, schedule, place(1))
        for slot in range(3):
            await tell(
                db,
                """insert into schedules.provider_run (intent_key, kind, schedule_id, platform, type)
                values ($1, 'scheduled', $2, 'google', 'reviews')""",
                f"scheduled:{schedule}:{slot}",
                schedule,
            )
        await node.settle()
        assert (len(node.double.runs), await states(db)) == (1, {"succeeded": 1, "skipped": 2})


async def test_a_batch_whose_run_is_under_way_gets_no_second_one(db: Database) -> None:
    async with stage(db, held=True) as node:
        schedule = await batch(db)
        await follow(db, schedule, place(1))
        await node.runs.trigger(schedule, "k")
        await node.every("dispatch")
        await tell(
            db,
            """insert into schedules.provider_run (intent_key, kind, schedule_id, platform, type)
            values ('scheduled:1:1', 'scheduled', $1, 'google', 'reviews')""",
            schedule,
        )
        await node.every("dispatch")
        assert await states(db) == {"running": 1, "intended": 1}


async def test_a_run_that_the_provider_has_forgotten_counts_as_failed(db: Database) -> None:
    async with stage(db, held=True) as node:
        schedule = await batch(db)
        await follow(db, schedule, place(1))
        await node.runs.trigger(schedule, "k")
        await node.every("dispatch")
        node.double.platform.runs.clear()
        await node.settle()
        assert (await states(db), await states(db, "retry")) == ({"failed": 1}, {"waiting": 1})


async def test_without_a_token_intents_wait_and_nothing_fails(db: Database) -> None:
    async with stage(db) as node:
        schedule = await batch(db)
        await follow(db, schedule, place(1))
        await node.runs.trigger(schedule, "k")
        node.runs.provider._apify = None
        for name in ("dispatch", "poll", "process", "retry", "cleanup"):
            assert (await node.turn(name)).failed == 0
        assert await states(db) == {"intended": 1}


async def test_a_platform_without_an_actor_holds_up_no_other(db: Database) -> None:
    async with stage(db) as node:
        google, booking = await batch(db), await batch(db, "booking")
        await follow(db, google, place(1))
        await follow(db, booking, place(1, "booking"))
        actors = {key: name for key, name in ACTORS.items() if key != ("google", "reviews")}
        object.__setattr__(node.runs.provider.terms, "actors", actors)
        await node.runs.trigger(google, "k")
        await node.runs.trigger(booking, "k")
        await node.every("dispatch")
        assert await states(db) == {"intended": 1, "running": 1}
        assert "SCHEDULES_GOOGLE_REVIEWS_ACTOR" in (
            await ask(db, "select error from schedules.provider_run order by id")
        )


async def test_old_rows_are_removed_and_young_ones_stay(db: Database) -> None:
    async with stage(db, terms=quick(QUIET, keep_runs_days=5)) as node:
        schedule = await batch(db)
        await follow(db, schedule, place(1))
        await node.run_once(schedule, "old")
        await tell(db, "update schedules.provider_run set created_at = now() - interval '6 days'")
        await node.run_once(schedule, "young")
        await node.every("cleanup")
        assert (
            await ask(db, "select string_agg(intent_key, ',') from schedules.provider_run")
            == f"triggered:{schedule}:young"
        )
