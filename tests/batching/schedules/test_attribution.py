"""Whose an item is: pure resolution, then pages stored in a real database, once, whoever tries."""

from __future__ import annotations

import contextlib
from typing import Any

import asyncpg
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.batching.schedules import attribution, intents
from server.batching.schedules.attribution import Target, resolve
from server.batching.schedules.harvest import Place, read
from server.batching.schedules.outcomes import Intent
from server.batching.schedules.plan import PLATFORMS
from server.edge.postgres import Database
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
from tests.doubles.apify.reviews import World

URL = place(7, "tripadvisor")


def intent(*identifiers: str, platform: Any = "tripadvisor") -> Intent:
    return Intent(1, "k", "scheduled", platform, "reviews", identifiers)


@pytest.mark.pure
def test_a_place_is_known_by_what_was_sent_and_by_what_is_returned_in_all_teams() -> None:
    ada, bob, eve = Target(1, "ada", URL, None), Target(2, "bob", URL, "1007"), Target(3, "eve", "other", "1007")
    resolved = resolve(intent(URL), [Place(URL, "1007")], [ada, bob, eve])
    assert set(resolved.targets[0]) == {ada, bob, eve}
    assert resolved.found == {URL}
    assert resolved.learnt == ((1, "1007"),), "bob's is known, and eve's was not asked by this address"


@pytest.mark.pure
def test_a_place_named_by_its_id_alone_is_found_by_its_address_or_as_the_only_one() -> None:
    ada = Target(1, "ada", URL, None)
    assert resolve(intent(URL, "b"), [Place(None, "1007")], [ada]).targets == ((ada,),)
    hotel = Target(1, "ada", "h", None)
    assert resolve(intent("h", platform="booking"), [Place(None, "99")], [hotel]).learnt == ((1, "99"),)
    two = resolve(intent("h", "i", platform="booking"), [Place(None, "99")], [hotel])
    assert two.targets == ((),), "it may be either of them"


@pytest.mark.pure
def test_what_nobody_follows_has_no_target_but_counts_as_found_when_it_was_asked_for() -> None:
    resolved = resolve(intent(URL), [Place(URL, "1007"), Place("stranger", None)], [])
    assert (resolved.targets, resolved.found) == (((), ()), {URL})


NAMES = st.sampled_from(["a", "b", "c", "d"])
PLACES = st.builds(Place, st.none() | NAMES, st.none() | st.sampled_from(["1", "2", "3"]))
TARGETS = st.builds(
    Target, st.integers(1, 6), st.sampled_from(["ada", "bob"]), NAMES, st.none() | st.sampled_from(["1", "2", "3"])
)


@pytest.mark.pure
@given(st.lists(PLACES, unique=True, max_size=6), st.lists(TARGETS, unique_by=lambda t: t.business_id, max_size=6))
def test_resolution_is_the_slow_obvious_one(places: list[Place], targets: list[Target]) -> None:
    asked = intent("a", "b", platform="booking")
    resolved = resolve(asked, places, targets)
    for number, one in enumerate(places):
        alone = one.sent is None and one.returned is not None and len(asked.identifiers) == len(places) == 1
        assert not alone
        wanted = {t for t in targets if one.sent == t.identifier or (t.returned and t.returned == one.returned)}
        assert set(resolved.targets[number]) == wanted
    assert resolved.found <= {"a", "b"}


@pytest.mark.pure
@given(
    st.lists(st.integers(0, 4), max_size=30), st.dictionaries(st.integers(0, 4), st.integers(1, 9)), st.integers(1, 20)
)
def test_copies_are_sliced_by_their_rows_and_none_is_lost(
    places: list[int], weights: dict[int, int], most: int
) -> None:
    copies = [(n, Target(number, "t", "i", None)) for number, n in enumerate(places)]
    slices = list(attribution.sliced(copies, weights, most))
    assert [one for some in slices for one in some] == [one for one in copies if one[0] in weights]
    for some in slices:
        assert sum(weights[place] for place, _ in some[:-1]) < most


# Stored.


async def ended(node: Stage, schedule: int) -> intents.Ended:
    """A run of that batch that has ended and is to be attributed."""
    await node.runs.trigger(schedule, "k")
    await node.every("dispatch")
    await node.double.settle()
    await node.let_poll()
    await node.every("poll")
    async with node.runs.acting() as connection:
        [found] = await intents.pick(connection, 1)
    return found


async def brought(node: Stage, run: intents.Ended) -> attribution.Brought:
    """The next page of that run, read."""
    return await node.runs.processing._read(run, await node.runs.processing._page(run))


async def test_a_page_that_is_stored_by_two_at_once_is_stored_once(db: Database) -> None:
    async with stage(db, terms=quick(page_items=5)) as node:
        schedule = await batch(db)
        await crowd(db, schedule, [place(1), place(2)])
        run = await ended(node, schedule)
        page, tally = await brought(node, run), _tally()
        await node.runs.processing._store([page], tally)
        await node.runs.processing._store([page], tally)
        assert (tally.done, tally.deferred, tally.detail["written"]) == (1, 1, 5)
        assert await ask(db, "select items from schedules.provider_run") == 5


async def test_pages_of_several_runs_are_stored_together_each_under_its_own_run(db: Database) -> None:
    world = World(reviews=7, missing={"https://www.booking.com/hotel/de/n2.html"})
    async with stage(db, world=world) as node:
        made: dict[str, int] = {}
        for platform in PLATFORMS:
            schedule = await batch(db, platform)
            made[platform] = (await follow(db, schedule, place(1, platform)))[0]
            if platform == "booking":
                await follow(db, schedule, place(2, platform))
            await node.runs.trigger(schedule, "k")
        await node.every("dispatch")
        await node.double.settle()
        await node.let_poll()
        await node.every("poll")
        [turn] = await node.every("process")
        assert (turn.done, turn.detail["settled"], turn.detail["written"]) == (4, 4, 28)
        for platform, business in made.items():
            stored = await rows(
                db, "select business_id, review_id, text from schedules.review where platform = $1", platform
            )
            assert {("ada", *row) for row in stored} == expected(
                world, platform, place(1, platform), [("ada", business)]
            )
        counts = await rows(
            db, "select platform, items, attributed, missing, cardinality(found) from schedules.provider_run"
        )
        assert {tuple(row) for row in counts} == {(p, 7, 7, int(p == "booking"), 1) for p in PLATFORMS}
        assert await states(db, "retry") == {"waiting": 1}


@pytest.mark.parametrize("wrong", ["dataset", "row"])
async def test_a_run_that_cannot_be_attributed_holds_up_no_other(db: Database, wrong: str) -> None:
    world = World(reviews=7)
    async with stage(db, world=world) as node:
        batches = [await batch(db, index=n) for n in range(6)]
        for n, schedule in enumerate(batches):
            await follow(db, schedule, place(n))
            await node.runs.trigger(schedule, "k")
        await node.every("dispatch")
        await node.double.settle()
        await node.let_poll()
        await node.every("poll")
        if wrong == "dataset":
            node.double.script("items", Act(body="no json"))
        else:
            await tell(db, "alter table schedules.review add constraint one check (business_id <> 1)")
        with contextlib.suppress(asyncpg.PostgresError):
            await node.turn("process")
        assert await ask(db, "select count(*) from schedules.provider_run where processed_at is null") == 1
        assert await ask(db, "select count(distinct business_id) from schedules.review") == 5


async def test_a_process_that_dies_in_the_middle_of_a_dataset_is_followed_by_one_that_goes_on_there(
    db: Database,
) -> None:
    world = World(reviews=20)
    async with stage(db, world=world, terms=quick(page_items=8)) as node:
        schedule = await batch(db)
        ids = await crowd(db, schedule, [place(n) for n in range(3)])
        run = await ended(node, schedule)
        await node.runs.processing._store([await brought(node, run)], _tally())
        with pytest.raises(ZeroDivisionError):
            async with node.runs.acting() as connection:  # It dies in the transaction of the second page.
                page = await node.client.page(run.dataset_id or "", 8, 8)
                harvest = read("google", "reviews", orjson.loads(page.body))
                second = attribution.Brought(run.intent.id, 8, harvest, 8, last=False)
                assert (await attribution.store(connection, [second], node.runs.terms.ladder)).pages == 1
                raise ZeroDivisionError
        assert await ask(db, "select count(*) from schedules.review") == 8
        async with stage(db, double=node.double, terms=quick(page_items=8)) as other:
            await other.every("process")
        assert len(await reviews(db)) == 60
        assert await reviews(db) == set().union(
            *(expected(world, "google", place(n), [("ada", business)]) for n, business in enumerate(ids))
        )
        assert (
            await ask(db, "select items || ' ' || attributed || ' ' || missing from schedules.provider_run")
            == "60 60 0"
        )
        assert await ask(db, "select sum(edits) from schedules.review") == 0


def _tally() -> Any:
    from server.batching.schedules.floor import Tally

    return Tally()


async def test_a_place_that_many_teams_follow_is_given_to_all_in_several_statements(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attribution, "ROWS_MOST", 7)
    world = World(reviews=3)
    async with stage(db, world=world) as node:
        schedule = await batch(db)
        teams = [f"team{n}" for n in range(10)]
        ids = await follow(db, schedule, place(1), *teams)
        await node.run_once(schedule)
        assert await reviews(db) == expected(world, "google", place(1), list(zip(teams, ids, strict=True)))


async def test_late_and_edited_reviews_are_updates(db: Database) -> None:
    world = World(reviews=4)
    async with stage(db, world=world) as node:
        schedule = await batch(db)
        [business] = await follow(db, schedule, place(1))
        await node.run_once(schedule, "first")
        world.add("google", place(1), days_ago=300)
        edited = world.edit("google", place(1), 2)
        await node.run_once(schedule, "second")
        assert await reviews(db) == expected(world, "google", place(1), [("ada", business)])
        found = await rows(db, "select review_id, edits, fetched_at > first_seen_at as later from schedules.review")
        assert {row["review_id"]: row["edits"] for row in found if row["edits"]} == {edited.id: 1}
        assert await ask(db, "select count(distinct run_id) from schedules.review") == 2, (
            "what is the same is not written"
        )


async def test_an_older_copy_does_not_undo_an_edit(db: Database) -> None:
    world = World(reviews=3)
    async with stage(db, world=world) as node:
        schedule = await batch(db)
        [business] = await follow(db, schedule, place(1))
        first = await ended(node, schedule)
        await tell(db, "update schedules.provider_run set checked_at = now() + interval '1 hour'")
        world.edit("google", place(1), 0)
        await tell(db, "update schedules.provider_run set processed_at = now() where id = $1", first.intent.id)
        await node.run_once(schedule, "second")
        await tell(
            db,
            """update schedules.provider_run set processed_at = null, finished_at = now() - interval '1 hour'
            where id = $1""",
            first.intent.id,
        )
        await node.every("process")
        assert await states(db) == {"succeeded": 2}
        assert await reviews(db) == expected(world, "google", place(1), [("ada", business)])
        assert await ask(db, "select max(edits) from schedules.review") == 0


@pytest.mark.parametrize("platform", ["tripadvisor", "booking", "facebook"])
async def test_what_a_place_is_called_at_the_provider_is_learnt_and_used_when_its_address_is_missing(
    db: Database, platform: Any
) -> None:
    world = World(reviews=3)
    async with stage(db, world=world) as node:
        schedule = await batch(db, platform)
        shared = await follow(db, schedule, place(1, platform), "ada", "bob")
        await follow(db, schedule, place(2, platform), "ada")
        await node.run_once(schedule, "first")
        names = await rows(db, "select identifier, returned from schedules.mapping order by 1, 2")
        assert all(row["returned"] for row in names)
        assert len({row["returned"] for row in names}) == 2
        world.silent = True
        late = world.add(platform, place(1, platform).replace("https://", "https://www."))
        await node.run_once(schedule, "second")
        found = await rows(
            db, "select team, business_id from schedules.review where review_id = $1 order by 1", late.id
        )
        assert [tuple(row) for row in found] == [("ada", shared[0]), ("bob", shared[1])]
        assert (await states(db, "retry")) == {}


async def test_a_place_asked_for_in_one_batch_is_given_to_followers_in_others_too(db: Database) -> None:
    world = World(reviews=3)
    async with stage(db, world=world) as node:
        often, seldom = await batch(db), await batch(db, hours=24)
        [one] = await follow(db, often, place(1), "ada")
        [other] = await follow(db, seldom, place(1), "bob")
        await node.run_once(often)
        assert await reviews(db) == expected(world, "google", place(1), [("ada", one), ("bob", other)])


async def test_only_those_missing_are_queued_and_of_other_batches_none(db: Database) -> None:
    world = World(reviews=3, missing={place(2)})
    async with stage(db, world=world) as node:
        often, seldom = await batch(db), await batch(db, hours=24)
        missing = await follow(db, often, place(2), "ada", "bob")
        await follow(db, often, place(1))
        await follow(db, seldom, place(2), "eve")
        await node.run_once(often)
        queued = await rows(db, "select business_id, team, last_error from schedules.retry order by 1")
        assert [row["business_id"] for row in queued] == missing
        assert (await ask(db, "select missing from schedules.provider_run")) == 1


async def test_a_business_that_is_deleted_while_its_run_is_under_way_is_dropped_without_a_trace(db: Database) -> None:
    async with stage(db, held=True) as node:
        schedule = await batch(db)
        [one, _] = await crowd(db, schedule, [place(1), place(2)])
        await node.runs.trigger(schedule, "k")
        await node.every("dispatch")
        await tell(db, "delete from schedules.business where id = $1", one)
        node.double.finish(node.double.runs[0])
        await node.settle()
        assert (await ask(db, "select count(*) from schedules.review"), await states(db, "retry")) == (5, {})
        assert await ask(db, "select unasked from schedules.provider_run") == 5


@pytest.mark.parametrize(
    "act", [Act(status=500), Act(cut="now"), Act(cut="body"), Act(body="no json"), Act(status=429)]
)
async def test_trouble_while_a_dataset_is_read_loses_nothing(db: Database, act: Act) -> None:
    world = World(reviews=20)
    async with stage(db, world=world, terms=quick(page_items=8)) as node:
        schedule = await batch(db)
        [business] = await follow(db, schedule, place(1))
        await ended(node, schedule)
        # aiohttp itself asks again, once, when a connection that was used before is cut.
        node.double.script("items", Act(), act, *([act] if act.cut == "now" else []))
        turn = await node.turn("process")
        assert (turn.deferred, turn.done) == (1, 1)
        await node.every("process")
        assert await reviews(db) == expected(world, "google", place(1), [("ada", business)])
        assert await ask(db, "select items from schedules.provider_run") == 20


async def test_a_dataset_that_cannot_be_read_holds_up_no_other(db: Database) -> None:
    async with stage(db, terms=quick(page_items=50)) as node:
        for n in range(2):
            schedule = await batch(db, index=n)
            await follow(db, schedule, place(n))
            await node.runs.trigger(schedule, "k")
        await node.every("dispatch")
        await node.double.settle()
        await node.let_poll()
        await node.every("poll")
        node.double.script("items", Act(status=500), Act(), Act(status=500))
        await node.turn("process")
        await node.turn("process")
        assert await ask(db, "select count(*) from schedules.provider_run where processed_at is not null") == 1


async def test_old_overviews_go_but_the_newest_of_a_business_stays(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.batching.schedules.runs.TIDY_A_TURN", 4)
    days = {1: [1, 10, 500, 401], 2: [500, 600], 3: [399]}
    async with stage(db) as node:
        for business, ages in days.items():
            for age in ages:
                await tell(
                    db,
                    """insert into schedules.overview (team, business_id, platform, fetched_at)
                    values ('ada', $1, 'google', now() - make_interval(days => $2))""",
                    business,
                    age,
                )
        for _ in range(3):
            await node.every("cleanup")
        found = await rows(
            db, "select business_id, round(extract(epoch from now() - fetched_at) / 86400) from schedules.overview"
        )
        assert sorted((row[0], int(row[1])) for row in found) == [(1, 1), (1, 10), (2, 500), (3, 399)]


async def test_the_slices_of_a_clean_up_walk_the_key(db: Database) -> None:
    await tell(
        db,
        """insert into schedules.overview (team, business_id, platform, fetched_at)
        select 't' || n % 50, n, 'google', now() - make_interval(hours => n) from generate_series(1, 5000) n""",
    )
    await tell(db, "analyze schedules.overview")
    async with db.transaction() as connection:
        await connection.execute("set local plan_cache_mode = force_generic_plan")
        await connection.execute(f"prepare slice (text, bigint, text, timestamptz, int) as {attribution.SLICE}")
        plan = await connection.fetch("explain execute slice ('t1', 5, 'google', '2026-01-01Z', 100)")
    text = "\n".join(row[0] for row in plan)
    assert "overview_pkey" in text and "Index Cond: (ROW(team, business_id, platform, fetched_at) >" in text
