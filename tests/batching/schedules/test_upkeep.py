"""Batches kept even and few, on a real PostgreSQL."""

from __future__ import annotations

from dataclasses import replace

import pytest
import pytest_asyncio

from server.batching.ledger import Ledger
from server.batching.loop import Occasion
from server.batching.panel import Panel
from server.batching.schedules import upkeep
from server.batching.schedules.plan import Line
from server.batching.schedules.store import Terms
from server.edge.postgres import Database
from server.edge.tasks import Tasks
from server.errors import Refused
from tests.batching.schedules.placed import ADMIN, OVERVIEW, REVIEWS, Placed, member

TENS = Terms(capacities=dict.fromkeys(Terms().capacities, 10))
NOON = Occasion("interval", 1, 0)


@pytest_asyncio.fixture
async def world(db: Database) -> Placed:
    """Three batches of ten, full, for reviews and for the overview."""
    world = Placed(db, TENS)
    await world.follow(range(30))
    return world


async def leave(world: Placed, *counts: int) -> None:
    """Delete from the reviews batches what is more than this (and so somewhere from those of the overview)."""
    for index, count in enumerate(counts):
        rows = await world.rows(
            """select m.business_id from schedules.mapping m join schedules.schedule s on s.id = m.schedule_id
            where m.type = 'reviews' and s.batch_index = $1 order by 1 offset $2""",
            index,
            count,
        )
        for (business,) in rows:
            await world.core.placing.delete(business, "google", ADMIN)


async def members(world: Placed, line: Line) -> list[int]:
    rows = await world.rows(
        """select m.business_id from schedules.mapping m join schedules.schedule s on s.id = m.schedule_id
        where s.type = $1 and s.interval_hours = $2 order by 1""",
        line.type,
        line.hours,
    )
    return [row[0] for row in rows]


async def test_a_plan_says_what_would_be_done_and_does_nothing(world: Placed) -> None:
    await leave(world, 10, 4, 4)
    proposals = await world.core.upkeep.proposals()
    assert [(p.line, p.action, p.plan.moves) for p in proposals] == [
        (OVERVIEW, "rebalance", 4),
        (REVIEWS, "rebalance", 4),
    ]
    assert await world.loads(REVIEWS) == [10, 4, 4]
    assert [p.line for p in await world.core.upkeep.proposals(line=REVIEWS)] == [REVIEWS]


async def test_rebalancing_evens_out_and_then_has_nothing_to_do(world: Placed) -> None:
    await leave(world, 10, 4, 4)
    before = await members(world, REVIEWS)
    done = await world.core.upkeep.balance(ADMIN, ["rebalance"])
    assert (done.lines, done.moves, done.retired, done.more) == (2, 8, 0, False)
    assert await world.loads(REVIEWS) == [6, 6, 6]
    assert await members(world, REVIEWS) == before
    assert (await world.core.upkeep.balance(ADMIN, ["rebalance"])).moves == 0
    await world.sound()


async def test_consolidating_empties_the_smallest_and_sets_it_aside(world: Placed) -> None:
    await leave(world, 8, 6, 2)
    before = await members(world, REVIEWS)
    done = await world.core.upkeep.balance(ADMIN, ["consolidate"])
    assert (done.lines, done.moves, done.retired) == (2, 4, 2)
    assert await world.loads(REVIEWS) == [8, 8, 0] and await members(world, REVIEWS) == before
    assert await world.rows("select batch_index, active from schedules.schedule where type = 'reviews' order by 1") == [
        (0, True),
        (1, True),
        (2, False),
    ]
    await world.sound()


async def test_what_an_administrator_does_is_noted_and_what_the_loop_does_is_not(world: Placed) -> None:
    await leave(world, 8, 6, 2)
    done = await world.core.upkeep.balance(ADMIN)
    rows = await world.rows("select who, action, target from ops.audit where id = $1", done.audit_id)
    assert rows == [("root", "schedules.consolidate+rebalance", "all")]
    assert (await world.core.upkeep.balance(None)).audit_id is None
    with pytest.raises(Refused, match="for administrators"):
        await world.core.upkeep.balance(member("a"))


async def test_a_plan_that_is_too_long_for_once_is_cut_and_goes_on(
    world: Placed, monkeypatch: pytest.MonkeyPatch
) -> None:
    await leave(world, 10, 4, 4)
    monkeypatch.setattr(upkeep, "MOVES_MOST", 2)
    turns = [await world.core.balance_turn(NOON) for _ in range(2)]
    assert [(turn.done, turn.more) for turn in turns] == [(4, True), (4, False)]
    await world.sound()


async def test_a_capacity_that_was_lowered_is_taken_over_and_the_batches_relieved(world: Placed, db: Database) -> None:
    smaller = Placed(db, replace(TENS, capacities=dict.fromkeys(TENS.capacities, 6)), world.clock)
    assert (await smaller.core.tidy_turn(NOON)).detail["resized"] == 6
    report = await smaller.core.checking.validate()
    assert [check.name for check in report.checks if not check.ok] == ["capacity"]
    turn = await smaller.core.balance_turn(NOON)
    assert await smaller.loads(REVIEWS) == [6, 6, 6, 6, 6] and turn.detail["created"] == 4
    await smaller.sound()


async def test_an_empty_batch_can_be_removed_and_one_with_businesses_cannot(world: Placed) -> None:
    await leave(world, 10, 4, 0)
    ids = dict(await world.rows("select batch_index, id from schedules.schedule where type = 'reviews'"))
    assert await world.core.upkeep.remove(ids[2], ADMIN)
    with pytest.raises(Refused, match="has 4 businesses"):
        await world.core.upkeep.remove(ids[1], ADMIN)
    await leave(world, 0, 4)
    with pytest.raises(Refused, match="is batch 0 of others"):
        await world.core.upkeep.remove(ids[0], ADMIN)
    with pytest.raises(Refused, match="there is no schedule"):
        await world.core.upkeep.remove(ids[2], ADMIN)
    await world.sound()


async def test_the_loops_stand_on_the_panel_and_are_the_leaders(world: Placed) -> None:
    panel = Panel(Ledger(world.db, world.clock, node="here"), clock=world.clock, tasks=Tasks())
    world.core.add_loops(panel, lambda record: None, lambda: False, lambda: "there")
    states = {state.name: state for state in panel.list()}
    assert set(states) == {"schedules-expire", "schedules-balance", "schedules-tidy"}
    assert not any(state.led_here or state.paused for state in states.values())
    idle = Placed(world.db, replace(TENS, balance=False), world.clock)
    panel = Panel(Ledger(world.db, world.clock, node="here"), clock=world.clock, tasks=Tasks())
    idle.core.add_loops(panel, lambda record: None, lambda: True, lambda: None)
    assert [state.name for state in panel.list() if state.paused] == ["schedules-balance"]


async def test_balancing_comes_round_by_the_clock_on_the_wall_however_often_the_server_is_restarted(
    world: Placed,
) -> None:
    due = set()
    for _ in range(4):
        panel = Panel(Ledger(world.db, world.clock, node="here"), clock=world.clock, tasks=Tasks())
        world.core.add_loops(panel, lambda record: None, lambda: True, lambda: None)
        due.add(panel.state("schedules-balance").next_at_ms)
        await world.pass_hours(1)
    assert len(due) == 1


async def test_what_is_old_is_forgotten(world: Placed) -> None:
    await world.core.intervals.set_tier("a", "enterprise", ADMIN)
    await world.core.intervals.set_own("a", 5, ADMIN)
    await world.tell("update schedules.custom_interval_history set at = $1", world.now)
    assert (await world.core.tidy_turn(NOON)).done == 0
    await world.pass_hours(401 * 24)
    assert (await world.core.tidy_turn(NOON)).detail["forgotten"] == 8
