"""Businesses into batches and out again, by one node and by several at once, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections import Counter

import asyncpg
import pytest
import pytest_asyncio

from server.batching.schedules.placing import Profiled
from server.batching.schedules.store import Terms
from server.edge.clock import VirtualClock
from server.edge.postgres import Database
from server.errors import Refused
from tests.batching.schedules.placed import ADMIN, OVERVIEW, REVIEWS, Placed, member, place


@pytest_asyncio.fixture
async def world(db: Database) -> Placed:
    return Placed(db)


async def test_a_new_profile_is_placed_for_reviews_and_for_the_overview(world: Placed) -> None:
    [made] = await world.follow([1])
    assert made.new and made.identifier == place(1)
    assert await world.where(made.business_id) == {"google/reviews": 24, "google/overview": 48}
    assert await world.loads(REVIEWS) == [1] == await world.loads(OVERVIEW)
    await world.sound()


async def test_following_the_same_place_again_changes_nothing(world: Placed) -> None:
    [first] = await world.follow([1])
    again = await world.core.placing.create("a", "google", f" {place(1)} ", member("a"), name="another name")
    assert (again.business_id, again.new, again.audit_id) == (first.business_id, False, None)
    assert await world.ask("select count(*) from schedules.mapping") == 2
    await world.sound()


async def test_two_teams_that_follow_the_same_place_have_a_copy_each(world: Placed) -> None:
    [mine], [yours] = await world.follow([1], "a"), await world.follow([1], "b")
    assert mine.business_id != yours.business_id and yours.new
    assert await world.loads(REVIEWS) == [2]
    await world.sound()


async def test_a_batch_that_is_full_is_followed_by_the_next_one(world: Placed) -> None:
    await world.follow(range(7))
    assert await world.loads(REVIEWS) == [3, 3, 1]
    offsets = await world.rows("select distinct offset_minutes % 360 from schedules.schedule")
    assert len(offsets) == 6, "no two batches of a platform share a minute"
    await world.sound()


async def test_the_least_loaded_batch_gets_the_next_one(world: Placed) -> None:
    made = await world.follow(range(12))
    for gone in (made[3], made[6], made[7]):
        await world.core.placing.delete(gone.business_id, "google", ADMIN)
    assert await world.loads(REVIEWS) == [3, 2, 1, 3]
    await world.follow([20])
    assert await world.loads(REVIEWS) == [3, 2, 2, 3]
    await world.follow([21, 22])
    assert await world.loads(REVIEWS) == [3, 3, 3, 3]


async def test_a_further_platform_may_join_a_business(world: Placed) -> None:
    [made] = await world.follow([1])
    joined = await world.core.placing.create(
        "a", "booking", "booking.com/hotel/x", member("a"), business_id=made.business_id
    )
    assert joined.business_id == made.business_id and joined.new
    assert len(await world.where(made.business_id)) == 4
    with pytest.raises(Refused, match="delete that profile first"):
        await world.core.placing.create("a", "google", place(2), member("a"), business_id=made.business_id)
    with pytest.raises(Refused, match=f"already, as business {made.business_id}"):
        await world.core.placing.create("a", "google", place(1), member("a"), business_id=99)
    await world.sound()


async def test_a_deleted_profile_leaves_its_batches_and_the_last_one_takes_the_business(world: Placed) -> None:
    made, _ = await world.follow([1, 2])
    await world.core.placing.create("a", "booking", "booking.com/hotel/x", member("a"), business_id=made.business_id)
    first = await world.core.placing.delete(made.business_id, "google", member("a"))
    assert not first.business_gone and await world.loads(REVIEWS) == [1]
    last = await world.core.placing.delete(made.business_id, "booking", member("a"))
    assert last.business_gone and await world.ask("select count(*) from schedules.business") == 1
    with pytest.raises(Refused, match="there is no business"):
        await world.core.placing.delete(made.business_id, "booking", member("a"))
    await world.sound()


async def test_what_a_deleted_business_had_goes_with_it(world: Placed) -> None:
    [made] = await world.follow([1])
    await _scraped(world, made)
    await world.core.placing.delete(made.business_id, "google", ADMIN)
    for table in ("mapping", "retry", "review", "overview", "business"):
        assert await world.ask(f"select count(*) from schedules.{table}") == 0, table


async def test_its_reviews_are_kept_when_that_is_set(db: Database) -> None:
    world = Placed(db, Terms(keep_reviews=True))
    [made] = await world.follow([1])
    await _scraped(world, made)
    await world.core.placing.delete(made.business_id, "google", ADMIN)
    assert await world.ask("select count(*) from schedules.review") == 1
    assert await world.ask("select count(*) from schedules.retry") == 0


async def _scraped(world: Placed, made: Profiled) -> None:
    await world.tell(
        """insert into schedules.review (team, business_id, platform, review_id, hash, fetched_at)
        values ('a', $1, 'google', 'r', '', now())""",
        made.business_id,
    )
    await world.tell(
        "insert into schedules.overview (team, business_id, platform, fetched_at) values ('a', $1, 'google', now())",
        made.business_id,
    )
    await world.tell(
        "insert into schedules.retry (team, business_id, platform, type) values ('a', $1, 'google', 'reviews')",
        made.business_id,
    )


async def test_a_batch_that_deletions_have_emptied_is_set_aside_and_used_again_before_a_new_one(world: Placed) -> None:
    made = await world.follow(range(7))
    await world.core.placing.delete(made[6].business_id, "google", ADMIN)
    assert await _aside(world) == [2]
    await world.follow([7])
    assert await _aside(world) == [] and await world.loads(REVIEWS) == [3, 3, 1]
    await world.sound()


async def _aside(world: Placed) -> list[int]:
    rows = await world.rows(
        "select batch_index from schedules.schedule where not active and type = 'reviews' order by 1"
    )
    return [row[0] for row in rows]


async def test_a_paused_batch_gets_no_businesses(world: Placed) -> None:
    await world.follow([1])
    batch = await world.ask("select id from schedules.schedule where type = 'reviews'")
    await world.core.catalog.pause(batch, ADMIN)
    await world.follow([2])
    assert await world.loads(REVIEWS) == [1, 1] and await world.loads(OVERVIEW) == [2]


async def test_a_line_with_all_the_batches_it_may_have_refuses_further_businesses(db: Database) -> None:
    world = Placed(db, Terms(capacities=dict.fromkeys(Terms().capacities, 1), batches_most=2))
    await world.follow([1, 2])
    with pytest.raises(Refused, match="all 2 batches of google") as refused:
        await world.follow([3])
    assert refused.value.limit == 2
    assert await world.ask("select count(*) from schedules.business") == 2


@pytest.mark.parametrize(
    ("team", "text", "field"),
    [
        ("b", place(1), "team"),
        ("a", "nonsense, really", "identifier"),
        ("", place(1), "team"),
        ("a\0", place(1), "team"),
    ],
)
async def test_what_cannot_be_followed_is_refused(world: Placed, team: str, text: str, field: str) -> None:
    with pytest.raises(Refused) as refused:
        await world.core.placing.create(team, "google", text, member("a"))
    assert refused.value.field == field


async def test_a_name_that_nobody_can_read_is_refused(world: Placed) -> None:
    for name in ("a\0b", "x" * 301):
        with pytest.raises(Refused) as refused:
            await world.core.placing.create("a", "google", place(1), member("a"), name=name)
        assert refused.value.field == "name"
    await world.core.intervals.set_tier("a", "enterprise", ADMIN)
    with pytest.raises(Refused) as refused:
        await world.core.intervals.set_own("a", 5, ADMIN, reason="a\0b")
    assert refused.value.field == "reason"


async def test_another_teams_business_is_not_there(world: Placed) -> None:
    [made] = await world.follow([1], "a")
    with pytest.raises(Refused) as foreign:
        await world.core.placing.delete(made.business_id, "google", member("b"))
    with pytest.raises(Refused) as nobody:
        await world.core.placing.delete(10_000, "google", member("b"))
    assert foreign.value.message.replace(str(made.business_id), "N") == nobody.value.message.replace("10000", "N")
    with pytest.raises(Refused, match="there is no business"):
        await world.core.placing.create("b", "booking", "booking.com/x", member("b"), business_id=made.business_id)
    with pytest.raises(Refused, match="there is no business"):
        await world.core.placing.create("b", "booking", "booking.com/x", ADMIN, business_id=made.business_id)
    assert await world.loads(REVIEWS) == [1]


# The database's own promises.


async def test_the_database_refuses_a_schedule_to_go_while_it_has_businesses(world: Placed) -> None:
    await world.follow([1])
    with pytest.raises(asyncpg.RestrictViolationError):
        await world.tell("delete from schedules.schedule")


async def test_the_database_refuses_more_than_a_batch_may_hold(world: Placed) -> None:
    await world.follow(range(4))
    with pytest.raises(asyncpg.CheckViolationError, match="has no room"):
        await world.tell(
            """update schedules.mapping set schedule_id = (select min(id) from schedules.schedule where type = 'reviews')
            where type = 'reviews'"""
        )
    await world.sound()


async def test_the_database_refuses_a_mapping_of_another_teams_business(world: Placed) -> None:
    [made] = await world.follow([1])
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await world.tell("update schedules.mapping set team = 'b' where business_id = $1", made.business_id)


# Several at once.


async def test_two_nodes_that_place_at_once_fill_no_batch_twice(world: Placed, dsn: str) -> None:
    other_db = await Database.open(dsn, clock=VirtualClock())
    try:
        other = Placed(other_db)
        groups = [(node, team) for node in (world, other) for team in "abcd"]
        await asyncio.gather(*(node.follow(range(n * 10, n * 10 + 5), team) for n, (node, team) in enumerate(groups)))
        assert sum(await world.loads(REVIEWS)) == 40
        assert Counter(await world.loads(REVIEWS)) == {3: 13, 1: 1}
        await world.sound()
    finally:
        await other_db.close()


async def test_the_same_place_followed_by_many_at_once_is_followed_once(world: Placed) -> None:
    made = await asyncio.gather(*(world.follow([1]) for _ in range(8)))
    assert len({profiled.business_id for [profiled] in made}) == 1
    assert sum(profiled.new for [profiled] in made) == 1
    await world.sound()


async def test_coming_going_and_changing_tier_all_at_once_ends_in_order(world: Placed) -> None:
    teams = [f"t{n}" for n in range(6)]
    made = {team: await world.follow(range(3), team) for team in teams}

    async def busy(team: str, n: int) -> None:
        await world.follow(range(3, 6), team)
        await world.core.intervals.set_tier(team, ("enterprise", "professional")[n % 2], ADMIN)
        await world.core.placing.delete(made[team][0].business_id, "google", member(team))
        await world.core.intervals.set_tier(team, "starter", ADMIN)

    evened = [world.core.upkeep.balance(None) for _ in range(3)]
    await asyncio.gather(*(busy(team, n) for n, team in enumerate(teams)), *evened)
    assert sum(await world.loads(REVIEWS)) == 30 and await world.ask("select count(*) from schedules.mapping") == 60
    await world.sound()
