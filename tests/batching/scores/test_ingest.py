"""The writer on a real PostgreSQL: groups, halves, poison, lost connections; and the turns that publish, expire and tidy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import asyncpg
import numpy as np
import pytest
import pytest_asyncio

from server.batching.loop import Occasion, Turn
from server.batching.scores.columns import Columns
from server.batching.scores.desk import Desk, Tunables
from server.batching.scores.engine import Engine
from server.batching.scores.ingest import CONTENT_ROWS, GROUP_ROWS, PLAN_ROWS, RECONCILE_MS, Writer
from server.batching.scores.lookout import Lookout
from server.batching.scores.pacing import Pacing
from server.batching.scores.plan import Asked
from server.batching.scores.store import Search
from server.batching.scores.tuning import rules_of
from server.core.event import Accepted, Delete, Event, Op, Outcome, Popularity, Rejected, Upsert
from server.core.identity import ANONYMOUS, Identity
from server.edge.clock import VirtualClock
from server.edge.postgres import Database
from server.errors import Code, Refused, Unavailable
from server.protocol.values import Viewport
from server.settings import Settings
from tests.batching.scores.world import ADMIN, HOUR, START, Trial, trial

ANN = Identity("ann", frozenset({"producer"}))
LIMIT_S = 20.0
LOCKED = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
KILL = "select pg_terminate_backend(pid) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"


@dataclass
class Bench:
    """A writer whose turns are taken by hand, and what it asked of its loop."""

    db: Database
    clock: VirtualClock = field(default_factory=lambda: VirtualClock(START))
    woken: list[int] = field(default_factory=list)
    turns: int = 0

    def __post_init__(self) -> None:
        self.columns = Columns()
        engine = Engine(Lookout(self.columns, rules_of(Settings())), self.clock, threaded=False)
        self.desk = Desk(engine, 0.01, Tunables(900_000, 1000, True), Pacing(self.clock))
        self.writer = Writer(self.db, self.clock, self.desk, 100, wake=self.woken.append)

    async def turn(self) -> Turn:
        self.turns += 1
        return await self.writer.turn(Occasion("wake", self.turns, self.clock.now_ms()))

    async def write(self, *ops: Op, who: Identity = ANN) -> list[Outcome]:
        future = await self.writer.submit([Asked(op, who) for op in ops])
        await self.turn()
        return future.result()

    def published(self, event_id: str) -> Event | None:
        slot = self.columns.slot_of(event_id)
        return None if slot is None or not self.columns.exists(slot) else self.columns.event(slot)

    @property
    def ids(self) -> set[str]:
        slots = np.flatnonzero(self.columns.world.row_of >= 0).tolist()
        return {self.columns.id_of(slot) for slot in slots}


@pytest_asyncio.fixture
async def bench(db: Database) -> Bench:
    return Bench(db)


def new(event_id: str, **fields: object) -> Upsert:
    return Upsert(event_id, {"latitude": 0.0, "longitude": 0.0, "start_ms": START, **fields})


def scans(event_id: str, by: int = 1, update_id: str | None = None, *, high: bool = False) -> Popularity:
    return Popularity(event_id, deltas=(by, 0, 0), update_id=update_id, high=high)


def place(longitude: float = 0.0) -> dict[str, float]:
    return {"latitude": 0.0, "longitude": longitude}


async def one(db: Database, sql: str, *values: object) -> Any:
    async with db.connection() as connection:
        return await connection.fetchval(sql, *values)


async def equals_the_database(bench: Bench) -> None:
    """What is in memory is what a fresh start would read."""
    again = Bench(bench.db)
    await again.writer.load()
    assert again.ids == bench.ids
    for event_id in again.ids:
        assert bench.published(event_id) == again.published(event_id)
    assert set(bench.desk.pending) == set(again.desk.pending)


# --- groups ---


async def test_many_producers_share_one_transaction_and_each_gets_its_own_answers(bench: Bench) -> None:
    futures = [await bench.writer.submit([Asked(new(f"{n}-{m}"), ANN) for m in range(3)]) for n in range(5)]
    turn = await bench.turn()
    assert (turn.taken, turn.done, turn.failed, turn.more) == (15, 15, 0, False)
    for number, future in enumerate(futures):
        assert [outcome.id for outcome in future.result()] == [f"{number}-{m}" for m in range(3)]
    assert await one(bench.db, "select count(distinct xmin::text) from feed.event") == 1
    assert bench.woken == [0] * 5
    await equals_the_database(bench)


async def test_what_was_sent_first_is_done_first_whoever_sent_it(bench: Bench) -> None:
    first = await bench.writer.submit([Asked(new("a", title="first"), ANN)])
    second = await bench.writer.submit([Asked(Upsert("a", {"title": "second"}), ADMIN), Asked(scans("a"), ADMIN)])
    third = await bench.writer.submit([Asked(Delete("a"), ANN), Asked(new("a", title="third"), ANN)])
    await bench.turn()
    versions = [o.version for f in (first, second, third) for o in f.result() if isinstance(o, Accepted)]
    assert len(versions) == 5 and versions == sorted(versions)
    event = bench.published("a")
    assert event is not None
    assert (event.title, event.counts, event.version) == ("third", (0, 0, 0), versions[-1])
    await equals_the_database(bench)


async def test_more_than_a_groups_rows_wait_for_the_next_turn(bench: Bench) -> None:
    bench.writer.queue_rows = 10 * GROUP_ROWS
    half = GROUP_ROWS // 2 + 1
    futures = [await bench.writer.submit([Asked(new(f"{n}-{m}"), ANN) for m in range(half)]) for n in range(2)]
    turn = await bench.turn()
    assert (turn.taken, turn.more) == (half, True)
    assert futures[0].done() and not futures[1].done()
    assert (await bench.turn()).more is False
    assert futures[1].done()


async def test_rows_with_content_are_more_work_so_fewer_of_them_are_a_group(bench: Bench) -> None:
    bench.writer.queue_rows = 10 * GROUP_ROWS
    half = GROUP_ROWS // CONTENT_ROWS // 2 + 1
    made = [await bench.writer.submit([Asked(new(f"{n}-{m}"), ANN) for m in range(half)]) for n in range(2)]
    assert ((await bench.turn()).taken, (await bench.turn()).taken) == (half, half)
    counted = [await bench.writer.submit([Asked(scans(f"{n}-{m}"), ANN) for m in range(half)]) for n in range(2)]
    assert (await bench.turn()).taken == 2 * half
    assert all(isinstance(outcome, Accepted) for future in (*made, *counted) for outcome in future.result())
    await equals_the_database(bench)


async def test_a_long_group_is_planned_in_parts_each_seeing_those_before(bench: Bench) -> None:
    bench.writer.queue_rows = 10 * PLAN_ROWS
    await bench.write(new("a"))
    outcomes = await bench.write(*[scans("a", update_id=str(n % (2 * PLAN_ROWS))) for n in range(3 * PLAN_ROWS)])
    assert len(outcomes) == 3 * PLAN_ROWS
    assert await one(bench.db, "select scan from feed.counters") == 2 * PLAN_ROWS


async def test_counting_needs_nothing_that_only_another_node_has_in_memory(bench: Bench) -> None:
    """Version, existence and priority are the database's, whoever wrote them."""
    elsewhere = Bench(bench.db)
    made = await elsewhere.write(new("a"), new("h", priority="high"))
    assert await bench.write(scans("a"), scans("h")) == made
    assert (set(bench.desk.pending), bench.desk.urgent) == ({"a", "h"}, {"h"})
    changed = await elsewhere.write(Upsert("a", {"priority": "high"}), Upsert("h", {"priority": None}))
    assert await bench.write(scans("a"), scans("h")) == changed
    assert "a" in bench.desk.urgent
    await elsewhere.write(Delete("a"))
    assert isinstance((await bench.write(scans("a")))[0], Rejected)


async def test_high_priority_of_the_event_itself_is_known_after_a_restart(bench: Bench) -> None:
    await bench.write(new("a", priority="high"), new("b"))
    again = Bench(bench.db)
    await again.writer.load()
    await again.write(scans("a"), scans("b"), Upsert("b", {"title": "T"}), scans("b"))
    assert (set(again.desk.pending), again.desk.urgent) == ({"a", "b"}, {"a"})


async def test_one_request_larger_than_a_group_is_still_one_group(bench: Bench) -> None:
    future = await bench.writer.submit([Asked(new(str(n)), ANN) for n in range(GROUP_ROWS + 5)])
    await bench.turn()
    assert len(future.result()) == GROUP_ROWS + 5


async def test_producers_wait_while_the_queue_is_full(bench: Bench) -> None:
    await bench.writer.submit([Asked(new(str(n)), ANN) for n in range(100)])
    waiting = asyncio.create_task(bench.writer.submit([Asked(new("last"), ANN)]))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not waiting.done() and not bench.writer.idle
    await bench.turn()
    future = await waiting
    await bench.turn()
    assert isinstance(future.result()[0], Accepted) and bench.writer.idle


async def test_with_nothing_to_do_the_database_is_not_asked(bench: Bench) -> None:
    await bench.write(new("a"))
    bench.woken.clear()
    await bench.db.close()
    assert await bench.turn() == Turn()
    assert await bench.writer.write([]) == []
    assert bench.woken == [], "it had asked, and was told that the database is away"


async def test_a_caller_who_has_gone_away_stops_nobody(bench: Bench) -> None:
    gone = await bench.writer.submit([Asked(new("gone"), ANN)])
    stays = await bench.writer.submit([Asked(new("stays"), ANN)])
    gone.cancel()
    await bench.turn()
    assert isinstance(stays.result()[0], Accepted)
    assert bench.published("gone") is not None, "what was handed over is done all the same"


# --- memory follows the commit ---


async def test_popularity_waits_as_pending_and_goes_with_a_change_of_content(bench: Bench) -> None:
    await bench.write(new("a"), new("b"))
    bench.desk.changed.clear()
    await bench.write(scans("a"), scans("a"), scans("b"))
    event = bench.published("a")
    assert event is not None and event.counts == (0, 0, 0)
    assert (list(bench.desk.pending), bench.desk.changed) == (["a", "b"], {})
    await bench.write(Upsert("a", {"title": "T"}))
    event = bench.published("a")
    assert event is not None and (event.counts, event.title) == ((2, 0, 0), "T")
    assert (list(bench.desk.pending), list(bench.desk.changed)) == (["b"], ["a"])
    await equals_the_database(bench)


async def test_high_priority_is_noted_as_urgent_and_forgotten_when_it_is_published(bench: Bench) -> None:
    await bench.write(new("a"))
    await bench.write(scans("a", high=True))
    assert bench.desk.urgent == {"a"}
    assert await bench.writer.publish(["a"]) == 1
    assert (bench.desk.urgent, dict(bench.desk.pending)) == (set(), {})


async def test_without_batching_counters_are_in_the_columns_at_once(bench: Bench) -> None:
    await bench.write(new("a"))
    bench.desk.tunables.enabled = False
    bench.desk.changed.clear()
    outcome = (await bench.write(scans("a")))[0]
    event = bench.published("a")
    assert isinstance(outcome, Accepted) and event is not None
    assert (event.counts, event.version, list(bench.desk.changed), dict(bench.desk.pending)) == (
        (1, 0, 0),
        outcome.version,
        ["a"],
        {},
    )


async def test_publishing_makes_pending_counters_public_and_counts_them(bench: Bench) -> None:
    await bench.write(new("a"), new("b"), new("c"))
    await bench.write(scans("a", 3), scans("b", 4))
    before = bench.published("a")
    bench.desk.changed.clear()
    assert await bench.writer.publish(["a", "b", "c", "unknown"]) == 2
    assert bench.desk.changed == {}, "who publishes tells the viewers; it is nothing for the immediate turn"
    after = bench.published("a")
    assert before is not None and after is not None
    assert (after.counts, after.version > before.version, dict(bench.desk.pending)) == ((3, 0, 0), True, {})
    await equals_the_database(bench)


async def test_publishing_and_writing_at_the_same_time_loses_nothing(bench: Bench) -> None:
    bench.writer.queue_rows = 10_000
    await bench.write(*(new(str(n)) for n in range(20)))

    async def produce() -> None:
        for _ in range(15):
            await bench.write(*(scans(str(n)) for n in range(20)))

    async def publish() -> None:
        for _ in range(15):
            await bench.writer.publish(list(bench.desk.pending))

    await asyncio.gather(produce(), publish())
    await bench.writer.publish(list(bench.desk.pending))
    assert all((event := bench.published(str(n))) and event.counts == (15, 0, 0) for n in range(20))
    await equals_the_database(bench)


async def test_a_start_finds_everything_and_what_was_pending_is_pending_again(bench: Bench) -> None:
    await bench.write(new("a"), new("b", status="REJECTED"), new("gone"))
    await bench.write(scans("a", 5), Delete("gone"))
    again = Bench(bench.db)
    assert await again.writer.load() == 2
    assert (list(again.desk.pending), again.desk.changed) == (["a"], {})
    await equals_the_database(again)


async def test_an_update_id_is_remembered_over_a_restart_for_its_own_user(bench: Bench) -> None:
    await bench.write(new("a"))
    first = await bench.write(scans("a", update_id="u"))
    again = Bench(bench.db)
    await again.writer.load()
    assert await again.write(scans("a", update_id="u"), scans("a", update_id="u")) == [*first, *first]
    assert await again.write(scans("a", update_id="u"), who=ADMIN) == first
    assert await one(bench.db, "select scan from feed.counters") == 2


# --- poison ---


@pytest.mark.parametrize("place", [0, 3, 7])
async def test_a_row_that_the_database_refuses_fails_alone(bench: Bench, place: int) -> None:
    ops: list[Op] = [new(str(n), title=f"T{n}") for n in range(8)]
    ops[place] = new("poison", title="nul \0 byte")
    outcomes = await bench.write(*ops)
    poison = outcomes.pop(place)
    assert isinstance(poison, Rejected)
    assert (poison.id, poison.code) == ("poison", Code.BAD_MESSAGE)
    assert "the database refused this row" in poison.reason
    assert all(isinstance(outcome, Accepted) for outcome in outcomes)
    assert bench.published("poison") is None
    assert await one(bench.db, "select count(*) from feed.event") == 7
    await equals_the_database(bench)


async def test_poison_is_found_also_in_an_id_and_in_several_rows(bench: Bench) -> None:
    outcomes = await bench.write(
        new("a"), new("b\0"), scans("c\0", update_id="u"), new("d"), Popularity("a", (1, None, None), update_id="\0")
    )
    assert [isinstance(o, Accepted) for o in outcomes] == [True, False, False, True, False]
    assert [o.code for o in outcomes if isinstance(o, Rejected)] == [Code.BAD_MESSAGE] * 3
    await equals_the_database(bench)


async def test_rows_after_the_poison_still_see_those_before_it(bench: Bench) -> None:
    outcomes = await bench.write(
        new("a"), scans("a"), new("x", title="\0"), scans("a"), Delete("a"), new("a", title="again")
    )
    assert [isinstance(o, Accepted) for o in outcomes] == [True, True, False, True, True, True]
    event = bench.published("a")
    assert event is not None and event.title == "again"
    await equals_the_database(bench)


async def test_a_refusal_is_counted_as_failed_and_the_turn_adds_up(bench: Bench) -> None:
    await bench.writer.submit([Asked(scans("unknown"), ANN), Asked(new("a"), ANN), Asked(new("b", title="\0"), ANN)])
    turn = await bench.turn()
    assert (turn.taken, turn.done, turn.failed) == (3, 1, 2)


# --- lost connections ---


@pytest_asyncio.fixture
async def other(dsn: str, db: Database) -> AsyncIterator[asyncpg.Connection]:
    """Somebody else in the same database."""
    connection = await asyncpg.connect(dsn)
    yield connection
    await connection.close()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not await condition():
            await asyncio.sleep(0.005)


async def cut_off(other: asyncpg.Connection, work: asyncio.Task[Any]) -> None:
    """Kill the connection that does this work while it waits for a lock that `other` holds."""

    async def waits() -> bool:
        await other.execute("select pg_stat_clear_snapshot()")  # else a transaction sees the same for ever
        return bool(await other.fetchval(LOCKED))

    await until(waits)
    await other.fetch(KILL)
    await asyncio.wait([work], timeout=LIMIT_S)


async def test_a_connection_killed_in_mid_transaction_is_unavailable_and_is_looked_at_again_soon(
    bench: Bench, other: asyncpg.Connection
) -> None:
    await bench.write(new("a"), new("b"))
    bench.woken.clear()
    async with other.transaction():
        await other.execute("select from feed.counters where event_id = 'a' for update")
        future = await bench.writer.submit([Asked(scans("a"), ANN), Asked(new("c"), ANN)])
        work = asyncio.create_task(bench.turn())
        await cut_off(other, work)
    turn = work.result()
    assert (turn.taken, turn.done, turn.failed) == (2, 0, 2)
    assert isinstance(future.exception(), Unavailable)
    assert bench.woken == [0, RECONCILE_MS]
    assert bench.published("c") is None and not bench.desk.pending
    await equals_the_database(bench)


async def test_the_next_transaction_reads_the_suspects_back_first(bench: Bench, other: asyncpg.Connection) -> None:
    await bench.write(new("a"), new("b"), new("d"))
    async with other.transaction():
        await other.execute("select from feed.counters where event_id = 'a' for update")
        future = await bench.writer.submit([Asked(scans("a"), ANN), Asked(scans("b"), ANN), Asked(Delete("d"), ANN)])
        work = asyncio.create_task(bench.turn())
        await cut_off(other, work)
    assert isinstance(future.exception(), Unavailable)
    # As if it had been committed all the same: nobody could know.
    await other.execute("update feed.counters set scan = 7 where event_id = 'b'")
    await other.execute("delete from feed.event where id = 'd'")
    assert bench.published("d") is not None
    bench.desk.changed.clear()
    assert (await bench.turn()).taken == 0, "no operation is needed for it"
    assert bench.published("d") is None
    assert (list(bench.desk.pending), list(bench.desk.changed)) == (["b"], ["d"])
    await equals_the_database(bench)


async def test_a_publish_that_was_cut_off_is_read_back_too(bench: Bench, other: asyncpg.Connection) -> None:
    await bench.write(new("a"), new("b"))
    await bench.write(scans("a"), scans("b"))
    async with other.transaction():
        await other.execute("select from feed.counters where event_id = 'a' for update")
        work = asyncio.create_task(bench.writer.publish(["a", "b"]))
        await cut_off(other, work)
    assert isinstance(work.exception(), Unavailable)
    assert set(bench.desk.pending) == {"a", "b"}
    # As if one of the two had been published all the same.
    await other.execute(
        "update feed.counters set pub_scan = scan, version = nextval('feed.version') where event_id = 'b'"
    )
    assert await bench.writer.publish(["a"]) == 1
    assert dict(bench.desk.pending) == {}
    await equals_the_database(bench)


async def test_a_repeated_loss_forgets_no_suspect(bench: Bench, other: asyncpg.Connection) -> None:
    await bench.write(new("a"), new("b"))
    for event_id in ("a", "b"):
        async with other.transaction():
            await other.execute("select from feed.counters for update")
            future = await bench.writer.submit([Asked(scans(event_id), ANN)])
            work = asyncio.create_task(bench.turn())
            await cut_off(other, work)
        assert isinstance(future.exception(), Unavailable)
    await other.execute("update feed.counters set scan = 9")
    await bench.turn()
    assert set(bench.desk.pending) == {"a", "b"}
    await equals_the_database(bench)


# --- turns of the feed ---


@pytest_asyncio.fixture
async def feed(db: Database) -> AsyncIterator[Trial]:
    async with trial(db) as one:
        yield one


async def test_events_that_ended_a_day_ago_become_expired_and_leave_the_map(feed: Trial) -> None:
    viewer = await feed.join(0, {"viewport": {"west": -1, "south": -1, "east": 1, "north": 1}, "user": None})
    await feed.upsert({"id": "short", "location": place(), "start": START, "end": START + HOUR})
    await feed.upsert({"id": "long", "location": place(0.5), "start": START + 2 * HOUR, "end": START + 3 * HOUR})
    await feed.clock.advance(25 * 3600)
    assert await expire(feed) == {"expired": 0, "removed": 0}, "exactly a day is not more than a day"
    await feed.clock.advance(0.001)
    assert await expire(feed) == {"expired": 1, "removed": 0}
    assert set(viewer.view.events) == {"long"}
    assert (await feed.feed.stored("short", ADMIN))["status"] == "EXPIRED"
    await feed.clock.advance(2 * 3600)
    assert await expire(feed) == {"expired": 1, "removed": 0}
    assert await expire(feed) == {"expired": 0, "removed": 0}
    assert viewer.view.events == {}


async def expire(feed: Trial) -> dict[str, Any]:
    asked = asyncio.create_task(feed.turns.expire(feed.occasion()))
    while not asked.done():
        await asyncio.sleep(0)
        if not feed.feed._writer.idle:
            await feed.feed._writer.turn(feed.occasion())
    await feed.turns.immediate(feed.occasion())
    return dict((await asked).detail)


async def test_expired_events_are_removed_after_the_days_they_are_kept(feed: Trial) -> None:
    await feed.upsert({"id": "a", "location": place(), "start": START})
    await feed.clock.advance(24 * 3600 + 1)
    assert await expire(feed) == {"expired": 1, "removed": 0}
    await feed.clock.advance(7 * 86_400)
    assert await expire(feed) == {"expired": 0, "removed": 0}
    await feed.clock.advance(0.001)
    assert await expire(feed) == {"expired": 0, "removed": 1}
    with pytest.raises(Refused) as caught:
        await feed.feed.stored("a", ADMIN)
    assert caught.value.code is Code.NOT_FOUND


async def test_a_recurring_event_expires_a_day_after_its_last_occurrence(feed: Trial) -> None:
    row = {"id": "a", "location": place(), "start": START, "end": START + HOUR, "recurrence": "FREQ=DAILY;COUNT=3"}
    await feed.upsert(row)
    await feed.clock.advance(3 * 86_400 + 3600)
    assert await expire(feed) == {"expired": 0, "removed": 0}
    await feed.clock.advance(0.001)
    assert await expire(feed) == {"expired": 1, "removed": 0}


async def test_tidying_makes_the_next_hours_and_drops_the_old_ones(feed: Trial) -> None:
    assert (await feed.turns.tidy(feed.occasion())).taken == 0, "the start has made them already"
    await feed.clock.advance(3600)
    turn = await feed.turns.tidy(feed.occasion())
    assert dict(turn.detail) == {"made": 1, "dropped": 0}
    await feed.clock.advance(26 * 3600)
    turn = await feed.turns.tidy(feed.occasion())
    assert dict(turn.detail) == {"made": 3, "dropped": 2}


# --- reading what is stored ---


async def test_a_search_is_paged_to_its_end_with_what_the_asker_may_see(feed: Trial) -> None:
    for number in range(7):
        private = {"isPrivate": number % 2 == 1, "creatorId": "ann", "sharedWith": ["bob"]}
        await feed.upsert(
            {"id": f"e{number}", "location": place(179.9 if number else -179.9), "start": START, **private}
        )
    box = Viewport(west=179, south=-1, east=-179, north=1)
    for who, expected in (
        (ANONYMOUS, 4),
        (replace(ANN, user="cy"), 4),
        (replace(ANN, user="bob"), 7),
        (ANN, 7),
        (ADMIN, 7),
    ):
        found, cursor = await pages(feed, Search(bbox=box, limit=2), who)
        assert [row["id"] for row in found] == [f"e{n}" for n in range(7) if expected == 7 or n % 2 == 0]
        assert cursor is None
        shares = [row.get("sharedWith") for row in found]
        assert shares == [["bob"] if who in (ANN, ADMIN) else None] * expected or shares == [("bob",)] * expected
        assert [row["id"] async for row in feed.feed.export(Search(bbox=box), who)] == [row["id"] for row in found]


async def pages(feed: Trial, query: Search, who: Identity) -> tuple[list[dict[str, Any]], str | None]:
    found: list[dict[str, Any]] = []
    for _ in range(10):
        page, cursor = await feed.feed.search(query, who)
        found += page
        if cursor is None:
            return found, None
        query = replace(query, cursor=cursor)
    return found, query.cursor


async def test_a_cursor_that_is_not_ours_is_refused(feed: Trial) -> None:
    for cursor in ("a", "_w", "\u00e9"):
        with pytest.raises(Refused) as caught:
            await feed.feed.search(Search(cursor=cursor), ADMIN)
        assert (caught.value.code, caught.value.field) == (Code.BAD_MESSAGE, "cursor")


async def test_a_private_event_is_not_found_exactly_as_an_unknown_one(feed: Trial) -> None:
    await feed.upsert(
        {"id": "a", "location": place(), "start": START, "isPrivate": True, "creatorId": "ann", "sharedWith": ["bob"]}
    )
    messages = []
    for event_id, who in (("a", ANONYMOUS), ("a", replace(ANN, user="cy")), ("b", ADMIN)):
        with pytest.raises(Refused) as caught:
            await feed.feed.stored(event_id, who)
        messages.append((caught.value.code, caught.value.message.replace("'b'", "'a'"), caught.value.field))
    assert len(set(messages)) == 1
    assert "sharedWith" in await feed.feed.stored("a", ANN)
    assert "sharedWith" not in await feed.feed.stored("a", replace(ANN, user="bob"))
