"""Tiers and intervals of teams' own: who moves where, and what is remembered of it."""

from __future__ import annotations

import datetime as dt

import pytest
import pytest_asyncio

from server.batching.loop import Occasion
from server.batching.schedules.plan import Line
from server.edge.postgres import Database
from server.errors import Refused
from tests.batching.schedules.placed import ADMIN, REVIEWS, Placed, member

NOON = Occasion("interval", 1, 0)


@pytest_asyncio.fixture
async def world(db: Database) -> Placed:
    return Placed(db)


async def enterprise(world: Placed, team: str = "a") -> None:
    await world.core.intervals.set_tier(team, "enterprise", ADMIN)


async def test_a_new_tier_moves_all_businesses_of_the_team_and_nobody_elses(world: Placed) -> None:
    mine, theirs = await world.follow(range(4), "a"), await world.follow(range(2), "b")
    await world.follow([9], "a", "booking")
    change = await world.core.intervals.set_tier("a", "professional", ADMIN)
    assert (change.before, change.after, change.moved) == ("starter", "professional", 10)
    for made in mine:
        assert await world.where(made.business_id) == {"google/reviews": 12, "google/overview": 24}
    for made in theirs:
        assert await world.where(made.business_id) == {"google/reviews": 24, "google/overview": 48}
    assert sum(await world.loads(REVIEWS)) == 2
    await world.sound()


async def test_the_same_tier_again_moves_nobody(world: Placed) -> None:
    await world.follow([1])
    await enterprise(world)
    assert (await world.core.intervals.set_tier("a", "enterprise", ADMIN)).moved == 0


async def test_a_tier_may_come_before_the_first_business(world: Placed) -> None:
    await enterprise(world)
    [made] = await world.follow([1])
    assert await world.where(made.business_id) == {"google/reviews": 6, "google/overview": 12}


async def test_a_change_of_tier_is_noted_with_what_was_before(world: Placed) -> None:
    await world.follow([1])
    change = await world.core.intervals.set_tier("a", "professional", ADMIN)
    [entry] = await world.rows(
        "select who, action, target, before, after from ops.audit where id = $1", change.audit_id
    )
    assert entry == ("root", "schedules.tier", "team a", '{"tier": "starter"}', '{"tier": "professional", "moved": 2}')


async def test_an_interval_of_its_own_moves_what_it_is_for(world: Placed) -> None:
    await enterprise(world)
    [made] = await world.follow([1])
    await world.follow([1], "a", "booking")
    change = await world.core.intervals.set_own(
        "a", 5, ADMIN, platforms=["google"], types=["reviews"], reason="a launch"
    )
    assert change.changed == (("google", "reviews"),) and change.moved == 1
    assert await world.where(made.business_id) == {"google/reviews": 5, "google/overview": 12}
    assert await world.loads(Line("google", "reviews", 5)) == [1]
    [made] = await world.follow([2])
    assert (await world.where(made.business_id))["google/reviews"] == 5
    await world.sound()


async def test_the_same_interval_again_changes_nothing_and_another_replaces_it(world: Placed) -> None:
    await enterprise(world)
    await world.follow([1])
    first = await world.core.intervals.set_own("a", 5, ADMIN, types=["reviews"])
    again = await world.core.intervals.set_own("a", 5, ADMIN, types=["reviews"])
    assert len(first.changed) == 4 and again.changed == () and again.audit_id is None
    await world.core.intervals.set_own("a", 7, ADMIN, platforms=["google"], types=["reviews"])
    assert {own.platform: own.hours for own in await world.core.intervals.own("a", member("a"))} == {
        "google": 7,
        "facebook": 5,
        "tripadvisor": 5,
        "booking": 5,
    }


async def test_removing_it_brings_the_businesses_back(world: Placed) -> None:
    await enterprise(world)
    [made] = await world.follow([1])
    await world.core.intervals.set_own("a", 5, ADMIN)
    back = await world.core.intervals.remove_own("a", ADMIN, platforms=["google"])
    assert back.moved == 2 and await world.where(made.business_id) == {"google/reviews": 6, "google/overview": 12}
    assert (await world.core.intervals.remove_own("a", ADMIN, platforms=["google"])).changed == ()
    await world.sound()


async def test_an_interval_that_has_run_out_ends_by_itself(world: Placed) -> None:
    await enterprise(world)
    [made] = await world.follow([1])
    await world.core.intervals.set_own("a", 5, ADMIN, expires_at=world.now + dt.timedelta(hours=1))
    assert (await world.core.expire_turn(NOON)).done == 0
    assert [own.hours for own in await world.core.intervals.expiries(ADMIN)] == [5] * 8
    await world.pass_hours(1)
    assert (await world.core.expire_turn(NOON)).done == 1
    assert await world.where(made.business_id) == {"google/reviews": 6, "google/overview": 12}
    assert await world.core.intervals.own("a", ADMIN) == []
    assert (await world.core.expire_turn(NOON)).done == 0
    await world.sound()


async def test_many_teams_expire_in_bounded_turns(world: Placed) -> None:
    for n in range(5):
        await enterprise(world, f"t{n}")
        await world.core.intervals.set_own(f"t{n}", 5, ADMIN, expires_at=world.now + dt.timedelta(hours=1))
    await world.pass_hours(2)
    assert [await world.core.intervals.expire(2) for _ in range(3)] == [(2, True), (2, True), (1, False)]


async def test_a_team_that_leaves_the_tier_loses_its_intervals(world: Placed) -> None:
    await enterprise(world)
    [made] = await world.follow([1])
    await world.core.intervals.set_own("a", 5, ADMIN)
    await world.core.intervals.set_tier("a", "starter", ADMIN)
    assert await world.where(made.business_id) == {"google/reviews": 24, "google/overview": 48}
    assert await world.core.intervals.own("a", ADMIN) == []
    await enterprise(world)
    assert await world.where(made.business_id) == {"google/reviews": 6, "google/overview": 12}
    await world.sound()


async def test_the_history_tells_every_change(world: Placed) -> None:
    await enterprise(world)
    own = {"platforms": ["google"], "types": ["reviews"]}
    await world.core.intervals.set_own("a", 5, ADMIN, reason="a launch", **own)  # type: ignore[arg-type]
    await world.core.intervals.set_own("a", 7, ADMIN, expires_at=world.now + dt.timedelta(hours=1), **own)  # type: ignore[arg-type]
    await world.pass_hours(2)
    await world.core.intervals.expire()
    await world.core.intervals.set_own("a", 9, ADMIN, **own)  # type: ignore[arg-type]
    await world.core.intervals.remove_own("a", ADMIN)
    history = await world.core.intervals.history("a", member("a"))
    told = [(line.change, line.hours, line.who) for line in reversed(history)]
    assert told == [
        ("set", 5, "root"),
        ("set", 7, "root"),
        ("expired", None, None),
        ("set", 9, "root"),
        ("removed", None, "root"),
    ]
    page = await world.core.intervals.history("a", ADMIN, before=history[1].id, limit=2)
    assert page == history[2:4]


@pytest.mark.parametrize("hours", [0, 169, -1])
async def test_an_interval_is_between_an_hour_and_a_week(world: Placed, hours: int) -> None:
    await enterprise(world)
    with pytest.raises(Refused) as refused:
        await world.core.intervals.set_own("a", hours, ADMIN)
    assert (refused.value.field, refused.value.limit) == ("hours", 168)


async def test_what_is_wrong_with_an_interval_is_said(world: Placed) -> None:
    own = world.core.intervals.set_own
    with pytest.raises(Refused, match="there is no team 'a'"):
        await own("a", 5, ADMIN)
    await world.follow([1])
    with pytest.raises(Refused, match="only enterprise teams"):
        await own("a", 5, ADMIN)
    await enterprise(world)
    with pytest.raises(Refused, match="run out already"):
        await own("a", 5, ADMIN, expires_at=world.now)
    with pytest.raises(Refused, match="name platforms among"):
        await own("a", 5, ADMIN, platforms=[])
    with pytest.raises(Refused, match="reason has 0 to 500"):
        await own("a", 5, ADMIN, reason="x" * 501)
    with pytest.raises(Refused, match="a tier is one of"):
        await world.core.intervals.set_tier("a", "gold", ADMIN)  # type: ignore[arg-type]


async def test_changing_any_of_it_is_for_administrators(world: Placed) -> None:
    await enterprise(world)
    for verb in (
        world.core.intervals.set_tier("a", "starter", member("a")),
        world.core.intervals.set_own("a", 5, member("a")),
        world.core.intervals.remove_own("a", member("a")),
        world.core.intervals.expiries(member("a")),
    ):
        with pytest.raises(Refused, match="for administrators"):
            await verb
    with pytest.raises(Refused, match="does not speak for the team"):
        await world.core.intervals.own("a", member("b"))
