"""Two servers over one PostgreSQL, their turns taken by hand: memory follows the other's writes, whatever came in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from server.batching.ledger import Ledger
from server.batching.loop import Occasion, TurnRecord
from server.batching.panel import Panel
from server.batching.scores import peers as module
from server.batching.scores.audience import Viewer
from server.batching.scores.cluster import Cluster
from server.batching.scores.feed import Feed
from server.batching.scores.plan import Asked
from server.core.event import Accepted, Delete, Op, Outcome, Popularity, Upsert
from server.edge.bus import Bus
from server.edge.clock import VirtualClock
from server.edge.postgres import Database
from server.edge.tasks import Tasks
from server.settings import Settings
from tests.batching.scores.world import ADMIN, START, Client, as_question
from tests.leading import leading

NEW = {"latitude": 52.5, "longitude": 13.4, "start_ms": START + 3_600_000}
LOCKED = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
WORLD = {"viewport": {"west": -180, "south": -85, "east": 180, "north": 85}}
LIMIT_S = 20.0


class Node:
    """One server."""

    def __init__(self, db: Database, name: str, *, leads: bool, clock: VirtualClock | None = None) -> None:
        self.db = db
        self.clock = clock or VirtualClock(START)
        ledger = Ledger(db, self.clock, node=name)
        self.bus = Bus(db, node=name)
        panel = Panel(ledger, clock=self.clock, tasks=Tasks())
        lead = leading(leads)
        settings = Settings(cluster="on")
        self.feed = Feed(settings, db, self.clock, panel, ledger.record, lead, self.bus, threaded=False)
        cluster = self.feed._cluster
        assert cluster is not None
        self.cluster: Cluster = cluster
        self.turns = self.feed._turns

    def occasion(self) -> Occasion:
        return Occasion("forced", 1, self.clock.now_ms())

    async def write(self, *ops: Op) -> list[Outcome]:
        future = await self.feed._writer.submit([Asked(op, ADMIN) for op in ops])
        await self.feed._writer.turn(self.occasion())
        return future.result()

    async def hear(self) -> None:
        while (await self.bus.step()).more:
            pass
        while self.cluster.peers._notes or self.cluster.peers._compare:
            await self.cluster.peers.turn(self.occasion())
        await self.turns.immediate(self.occasion())

    async def watch(self) -> Client:
        client = Client(self.clock)
        client.viewer = Viewer(self.bus.node, as_question(WORLD), client)
        await self.feed.join(client.viewer)
        return client

    async def versions(self) -> dict[str, int]:
        columns = self.feed._engine._lookout.columns
        found = await self.cluster.peers.versions(columns.ids())
        return {event_id: version for event_id, version in found.items() if version is not None}


@pytest_asyncio.fixture
async def two(db: Database) -> AsyncIterator[tuple[Node, Node]]:
    """A leader and another, both loaded."""
    async with AsyncExitStack() as ends:
        nodes = Node(db, "one", leads=True), Node(db, "two", leads=False)
        for node in nodes:
            await node.feed.load()
            await node.cluster.rounds.renew(node.occasion())
            ends.push_async_callback(node.bus.close)
        yield nodes


async def stored(db: Database) -> dict[str, int]:
    async with db.connection() as connection:
        return {r[0]: r[1] for r in await connection.fetch("select event_id, version from feed.counters")}


async def agree(db: Database, *nodes: Node) -> None:
    """Both have what is stored."""
    async with db.connection() as connection:
        rows = await connection.fetch(
            "select event_id from feed.counters where (scan, save, rsvp) <> (pub_scan, pub_save, pub_rsvp)"
        )
    for node in nodes:
        await node.hear()
        assert await node.versions() == await stored(db)
        assert set(node.feed.desk.pending) == {r[0] for r in rows}


async def test_writes_of_one_are_followed_by_the_other(db: Database, two: tuple[Node, Node]) -> None:
    one, two_ = two
    client = await two_.watch()
    await one.write(Upsert("a", {**NEW, "title": "A"}), Upsert("b", {**NEW, "latitude": 52.6}))
    await agree(db, one, two_)
    assert set(client.view.events) == {"a", "b"}
    await one.write(Popularity("a", (5, None, None)))
    await agree(db, one, two_)
    assert client.view.events["a"]["scanCount"] == 0
    await two_.write(Delete("b"), Popularity("a", (6, None, None)))
    await agree(db, one, two_)
    await one.turns.flush(one.occasion())
    await agree(db, one, two_)
    assert client.view.events["a"]["scanCount"] == 0, "what a flush published is told by the flush"
    await two_.cluster.rounds.follow(two_.occasion())
    assert client.view.events["a"]["scanCount"] == 6
    assert client.frames[-1]["type"] == "batch-update"


async def test_one_poke_wakes_the_others_for_what_was_committed_quietly(two: tuple[Node, Node]) -> None:
    one, two_ = two
    await two_.bus.step()
    woken = asyncio.Event()
    two_.bus.woken = woken.set
    await one.write(Upsert("a", NEW))
    await one.write(Upsert("b", NEW))
    await one.cluster.peers.hint(one.occasion())
    async with asyncio.timeout(LIMIT_S):
        await woken.wait()
    assert (await two_.bus.step()).count == 2


async def test_a_flush_takes_what_the_other_acknowledged_before_it_began(db: Database, two: tuple[Node, Node]) -> None:
    one, two_ = two
    await two_.write(Upsert("a", NEW))
    await two_.write(Popularity("a", (7, None, None)))
    turn = await one.turns.flush(one.occasion())
    assert (turn.taken, turn.done) == (1, 1)
    await agree(db, one, two_)


async def test_messages_removed_unread_make_a_server_look_at_everything(db: Database, two: tuple[Node, Node]) -> None:
    one, two_ = two
    await one.write(*(Upsert(f"e{n}", NEW) for n in range(30)))
    await agree(db, one, two_)
    await one.write(Delete("e1"), Upsert("e2", {"title": "Other"}), Upsert("new", NEW))
    await one.write(Popularity("e3", (1, None, None)))
    await two_.write(Popularity("e4", (1, None, None)))
    await one.hear()
    await one.turns.flush(one.occasion())
    await one.write(Popularity("e5", (1, None, None)))
    async with db.connection() as connection:
        await connection.execute("delete from ops.outbox")
    await one.write(Upsert("last", NEW))
    await agree(db, two_)


async def test_more_notes_than_are_kept_end_in_the_same_state(
    db: Database, two: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two_ = two
    monkeypatch.setattr(module, "NOTES_MOST", 5)
    monkeypatch.setattr(module, "COMPARE_ROWS", 4)
    await one.write(*(Upsert(f"e{n}", NEW) for n in range(4)))
    await agree(db, one, two_)
    monkeypatch.setattr(module, "NOTES_MOST", 2)
    await one.write(Delete("e0"), *(Upsert(f"n{n}", NEW) for n in range(9)))
    monkeypatch.setattr(module, "NOTES_MOST", 4)
    await agree(db, two_)


async def test_a_server_that_could_not_read_tries_again(db: Database, two: tuple[Node, Node]) -> None:
    one, two_ = two
    await one.write(Upsert("a", NEW))
    await two_.bus.step()
    real, two_.cluster.peers.db = two_.cluster.peers.db, None  # type: ignore[assignment]
    with pytest.raises(AttributeError):
        await two_.cluster.peers.settle()
    two_.cluster.peers.db = real
    await agree(db, one, two_)


class GateClock(VirtualClock):
    """Holds up who planned, between the versions drawn and the rows written."""

    def __init__(self) -> None:
        super().__init__(START)
        self.arrived, self.open = asyncio.Event(), asyncio.Event()
        self.open.set()

    async def sleep(self, seconds: float) -> None:
        if not self.open.is_set():
            self.arrived.set()
            await self.open.wait()


async def until(look: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not await look():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("before", ["nothing", "deleted"])
async def test_versions_of_an_event_that_two_servers_create_at_once_only_grow(db: Database, before: str) -> None:
    gate = GateClock()
    slow, quick = Node(db, "slow", leads=True, clock=gate), Node(db, "quick", leads=False)
    await slow.feed.load()
    await quick.feed.load()
    if before == "deleted":
        await quick.write(Upsert("a", NEW))
        await quick.write(Delete("a"))
    gate.open.clear()
    first = asyncio.ensure_future(slow.write(Upsert("a", {**NEW, "title": "slow"})))
    await gate.arrived.wait()
    second = asyncio.ensure_future(quick.write(Upsert("a", {**NEW, "title": "quick"})))

    async def waits_or_done() -> bool:
        async with db.connection() as connection:
            return second.done() or bool(await connection.fetchval(LOCKED))

    await until(waits_or_done)
    gate.open.set()
    answers = [(await first)[0], (await second)[0]]
    assert all(isinstance(one, Accepted) for one in answers)
    assert (await stored(db))["a"] == max(one.version for one in answers)  # type: ignore[union-attr]
    await agree(db, slow, quick)
    for node in (slow, quick):
        await node.bus.close()


async def test_servers_are_counted_until_their_row_runs_out(db: Database, two: tuple[Node, Node]) -> None:
    one, two_ = two
    await two_.watch()
    await two_.cluster.rounds.renew(two_.occasion())
    stats = await one.feed.stats()
    assert stats["registeredUsers"] == 1
    assert [node["node"] for node in stats["nodes"]] == ["one", "two"]  # type: ignore[attr-defined]
    async with db.connection() as connection:
        await connection.execute("update feed.node set seen_at = seen_at - interval '1 minute' where node = 'two'")
    stats = await one.feed.stats()
    assert (stats["registeredUsers"], len(stats["nodes"])) == (0, 1)  # type: ignore[arg-type]


async def test_activity_of_all_counts_for_the_adaptive_interval(db: Database, two: tuple[Node, Node]) -> None:
    one, two_ = two
    await one.cluster.rounds.renew(one.occasion())
    await two_.write(Upsert("a", NEW))
    for count in range(1, 6):
        await two_.write(Popularity("a", (count, None, None)))
    await two_.cluster.rounds.renew(two_.occasion())
    await one.cluster.rounds.renew(one.occasion())
    assert one.turns.moved_elsewhere() == 5
    await one.hear()
    assert one.feed.desk.moved == 0, "they are not counted twice"


async def test_the_end_of_one_server_of_several_is_no_flush_and_that_of_the_last_is(
    db: Database, two: tuple[Node, Node]
) -> None:
    one, two_ = two
    await one.write(Upsert("a", NEW))
    await one.write(Popularity("a", (1, None, None)))
    last = Occasion("shutdown", 2, one.clock.now_ms())
    assert (await one.turns.flush(last)).taken == 0
    await two_.cluster.rounds.leave()
    assert (await one.turns.flush(last)).taken == 1


GHOST = """
insert into feed.node (node, leads, registered_users, users_updated, moved, lag_ms) values ('ghost', false, 0, 0, 0, 0)"""


async def test_a_force_waits_for_every_server_and_names_one_that_is_gone(db: Database, two: tuple[Node, Node]) -> None:
    one, two_ = two
    await one.watch()
    await two_.watch()
    await two_.write(Upsert("a", NEW))
    await two_.write(Popularity("a", (3, None, None)))
    async with db.connection() as connection:
        await connection.execute(GHOST)
    forced = asyncio.ensure_future(two_.feed.force(ADMIN))

    async def asked() -> bool:
        async with db.connection() as connection:
            return bool(await connection.fetchval("select asked from feed.round"))

    await until(asked)
    await one.turns.flush(one.occasion())
    await one.cluster.rounds.renew(one.occasion())
    await two_.bus.step()
    await two_.cluster.rounds.follow(two_.occasion())
    await two_.cluster.rounds.renew(two_.occasion())
    async with db.connection() as connection:
        await connection.execute("update feed.node set seen_at = seen_at - interval '1 minute' where node = 'ghost'")
    two_.cluster.rounds._changed.set()
    async with asyncio.timeout(LIMIT_S):
        turn = (await forced)["turn"]
    assert isinstance(turn, dict)
    del turn["seconds"]
    assert turn == {"taken": 1, "done": 1, "failed": 0, "deferred": 0, "missing": ["ghost"]}


async def test_who_leads_next_serves_what_was_asked_and_what_was_due(db: Database, two: tuple[Node, Node]) -> None:
    one, _ = two
    rounds = one.cluster.rounds
    flushed: list[int] = []

    async def flush() -> TurnRecord:
        flushed.append(1)
        await one.turns.flush(one.occasion())
        return TurnRecord("scores", 1, "forced", one.clock.now_ms(), 0.1)

    rounds.flush = flush
    await rounds.serve(one.occasion())
    assert flushed == []
    async with db.connection() as connection:
        await connection.execute("update feed.round set asked = asked + 1")
    await rounds.serve(one.occasion())
    await rounds.serve(one.occasion())
    assert flushed == [1], "a request is served once"
    rounds.planned_ms = one.clock.now_ms() + 1
    assert not rounds.overdue()
    rounds.planned_ms = one.clock.now_ms()
    assert rounds.overdue()
