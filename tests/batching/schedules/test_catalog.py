"""What there is to see, for administrators and for teams."""

from __future__ import annotations

import pytest
import pytest_asyncio

from server.batching.schedules.plan import BASE_LINES, Line
from server.batching.schedules.store import Terms
from server.edge.postgres import Database
from server.errors import Refused
from tests.batching.schedules.placed import ADMIN, Placed, member


@pytest_asyncio.fixture
async def world(db: Database) -> Placed:
    return Placed(db)


async def test_the_list_shows_all_thirty_two_also_when_there_is_nothing(world: Placed) -> None:
    batches = await world.core.catalog.batches(ADMIN)
    assert [Line(b.platform, b.type, b.hours) for b in batches] == sorted(BASE_LINES)
    assert all(b.id is None and b.empty and b.health == "healthy" and b.capacity in (2, 3) for b in batches)


async def test_further_batches_and_other_intervals_join_the_list_which_pages(world: Placed) -> None:
    await world.follow(range(4))
    whole = await world.core.catalog.batches(ADMIN)
    assert len(whole) == 32 + 1 + 2, "a second batch for reviews, and two for the overview every 48 hours"
    paged, after = list(whole[:0]), None
    while page := await world.core.catalog.batches(ADMIN, after=after, limit=5):
        paged += page
        after = page[-1].cursor
    assert paged == whole
    full = [b for b in await world.core.catalog.batches(ADMIN, platform="google") if not b.empty]
    assert [(b.type, b.hours, b.index, b.businesses, b.health) for b in full] == [
        ("overview", 48, 0, 3, "critical"),
        ("overview", 48, 1, 1, "healthy"),
        ("reviews", 24, 0, 3, "critical"),
        ("reviews", 24, 1, 1, "healthy"),
    ]


@pytest.mark.parametrize("after", ["x", "a:b:c:d", "a:b:1", "google:reviews:6:99999999999999"])
async def test_a_place_that_is_none_in_the_list_is_refused(world: Placed, after: str) -> None:
    with pytest.raises(Refused, match="is no place in the list"):
        await world.core.catalog.batches(ADMIN, after=after)


async def test_the_businesses_of_a_batch_page_by_id(world: Placed) -> None:
    made = await world.follow(range(3))
    [(id_,)] = await world.rows("select id from schedules.schedule where type = 'reviews'")
    first = await world.core.catalog.members(id_, ADMIN, limit=2)
    rest = await world.core.catalog.members(id_, ADMIN, after=first[-1].business_id)
    assert [m.business_id for m in [*first, *rest]] == [p.business_id for p in made]
    assert (first[0].team, first[0].identifier, first[0].status) == ("a", made[0].identifier, "active")
    with pytest.raises(Refused, match="there is no schedule 999"):
        await world.core.catalog.members(999, ADMIN)


async def test_a_team_sees_its_profiles_with_their_schedules(world: Placed) -> None:
    made = await world.follow(range(3), "a")
    await world.follow(range(3), "b")
    page = await world.core.catalog.profiles("a", "google", member("a"), limit=2)
    rest = await world.core.catalog.profiles("a", "google", member("a"), after=page[-1].id)
    assert [p.id for p in [*page, *rest]] == [p.business_id for p in made]
    assert [(at.type, at.hours, at.index, at.paused) for at in page[0].placements] == [
        ("overview", 48, 0, False),
        ("reviews", 24, 0, False),
    ]
    assert all(at.next_run_at > world.now for at in page[0].placements)
    assert await world.core.catalog.profiles("a", "booking", member("a")) == []
    with pytest.raises(Refused, match="does not speak for"):
        await world.core.catalog.profiles("a", "google", member("b"))


async def test_a_teams_view_says_which_interval_holds_and_why(world: Placed) -> None:
    await world.core.intervals.set_tier("a", "enterprise", ADMIN)
    await world.follow(range(4), "a")
    await world.core.intervals.set_own("a", 5, ADMIN, platforms=["google"], types=["reviews"])
    for who in (member("a"), ADMIN):
        view = await world.core.catalog.team("a", who)
        assert (view.tier, view.businesses) == ("enterprise", 4)
        assert [(line.type, line.hours, line.own, line.businesses, len(line.placements)) for line in view.lines] == [
            ("reviews", 5, True, 4, 2),
            ("overview", 12, False, 4, 2),
        ]
    with pytest.raises(Refused, match="there is no team 'c'"):
        await world.core.catalog.team("c", ADMIN)


async def test_pausing_twice_is_once_and_is_noted(world: Placed) -> None:
    await world.follow([1])
    [(id_,)] = await world.rows("select id from schedules.schedule where type = 'reviews'")
    first, again = await world.core.catalog.pause(id_, ADMIN), await world.core.catalog.pause(id_, ADMIN)
    assert first.batch.paused and first.batch.active and not first.batch.empty, "three facts, not one flag"
    assert first.audit_id is not None and again.audit_id is None
    assert not (await world.core.catalog.resume(id_, ADMIN)).batch.paused
    noted = await world.rows(
        "select action, target from ops.audit where action in ('schedules.pause', 'schedules.resume') order by id"
    )
    assert noted == [("schedules.pause", f"schedule {id_}"), ("schedules.resume", f"schedule {id_}")]


async def test_wellbeing_counts_what_there_is(db: Database) -> None:
    world = Placed(db, Terms(capacities=dict.fromkeys(Terms().capacities, 20), batches_most=1))
    await world.follow(range(16), "a")
    await world.follow(range(16, 20), "b")
    await world.follow([1], "b", "booking")
    await world.core.catalog.pause(1, ADMIN)
    await world.tell(
        """insert into schedules.retry (team, business_id, platform, type, state)
        select team, business_id, platform, type, 'failed' from schedules.mapping limit 2"""
    )
    seen = await world.core.catalog.wellbeing()
    assert (seen.total, seen.active, seen.paused, seen.empty) == (4, 3, 1, 0)
    assert (seen.healthy, seen.warning, seen.critical) == (2, 0, 2)
    assert (seen.businesses, seen.teams, seen.retries) == (21, 2, {"failed": 2})
    assert seen.full == (Line("google", "overview", 48), Line("google", "reviews", 24))


async def test_what_is_for_administrators_is_refused_to_others(world: Placed) -> None:
    catalog = world.core.catalog
    for verb in (
        catalog.batches(member("a")),
        catalog.batch(1, member("a")),
        catalog.members(1, member("a")),
        catalog.pause(1, member("a")),
        catalog.resume(1, member("a")),
    ):
        with pytest.raises(Refused, match="for administrators"):
            await verb
