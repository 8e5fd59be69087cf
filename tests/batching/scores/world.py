"""The live feed on a real PostgreSQL with its turns taken by hand, its clients, and a naive model of what must be true.

The model knows the protocol's rules and nothing of the server: events are dicts, stored and published, and a fresh view is
the oracle's. `Trial.check` compares every client's state with it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson

from server.batching.ledger import Ledger
from server.batching.loop import Occasion, Turn
from server.batching.panel import Panel
from server.batching.scores.audience import Viewer
from server.batching.scores.budget import PLAIN, Budget
from server.batching.scores.feed import Feed
from server.batching.scores.frame import Frame
from server.batching.scores.plan import Asked
from server.batching.scores.question import Question
from server.client import View
from server.core.event import Accepted, Op, Outcome
from server.core.identity import Identity
from server.edge.bus import Bus
from server.edge.clock import Clock, VirtualClock
from server.edge.postgres import Database
from server.edge.tasks import Tasks
from server.protocol.event import event_op, popularity_op
from server.protocol.values import Filter, Viewport, to_ms
from server.settings import Settings
from tests.leading import leading
from tests.oracle import view as oracle

ADMIN = Identity("root", frozenset({"admin"}))
START = 1_790_000_000_000
HOUR = 3_600_000
THRESHOLD = 0.01
EMPTY = "delete from feed.event; delete from feed.applied; delete from ops.setting; delete from ops.audit"


class Client:
    """A connection as its other end sees it: it applies frames as it reads them, and may stop reading.

    It holds the server to its budget: the size of every frame, and the rest before each that it did not ask for."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.asking = False
        self.handed_at: float | None = None
        self.view = View()
        self.frames: list[dict[str, Any]] = []
        self.stalled = False
        self.waiting: Frame | None = None
        self.viewer: Viewer | None = None
        self.question: dict[str, Any] = {}
        self.synced_at = 0

    @property
    def free(self) -> bool:
        return self.waiting is None

    def hand(self, frame: Frame) -> None:
        assert self.waiting is None, "two frames wait"
        self.within_budget(frame)
        if self.stalled:
            self.waiting = frame
        else:
            self.read(frame)

    @property
    def budget(self) -> Budget:
        budget = self.question.get("budget", PLAIN)
        assert isinstance(budget, Budget)
        return budget

    @property
    def behind(self) -> bool:
        """Is something owed to it?"""
        assert self.viewer is not None
        assert self.viewer.owed or not self.viewer.ages, "what was carried over is owed"
        return bool(self.viewer.owed)

    def within_budget(self, frame: Frame) -> None:
        now, before = self.clock.monotonic(), self.handed_at
        self.handed_at = now
        if before is not None and not self.asking:
            assert now - before >= self.budget.min_interval_ms / 1000 - 1e-9, "too soon after the last one"
        message = orjson.loads(frame.text)
        updates = message.get("updates", {})
        events = len(message.get("events", ())) + sum(len(updates.get(name, ())) for name in ("creates", "updates"))
        few = events < 2 or updates.get("deletes")
        assert self.budget.max_bytes is None or few or len(frame.text) <= self.budget.max_bytes, "too large"

    async def until_free(self) -> None:
        assert self.free, "nobody would drain it"

    def read(self, frame: Frame) -> None:
        message = orjson.loads(frame.text)
        self.frames.append(message)
        change = self.view.apply(message)
        assert change.matches, f"seq or digest differs after {message}"
        parts = message.get("updates")
        if parts is not None:
            ids = [*(e["id"] for e in parts["creates"]), *(e["id"] for e in parts["updates"]), *parts["deletes"]]
            assert len(ids) == len(set(ids)), f"creates, updates and deletes overlap: {ids}"


class Model:
    """What must be true: stored and published events, by the rules of the protocol in their plainest form."""

    def __init__(self) -> None:
        self.stored: dict[str, dict[str, Any]] = {}
        self.published: dict[str, dict[str, Any]] = {}

    def upsert(self, row: dict[str, Any], now: int) -> None:
        event_id = row["id"]
        before = self.stored.get(event_id)
        after = dict(before) if before else fresh(event_id, now)
        after.update(inside(row))
        if before is None or without_counts(before) != without_counts(after):
            self.stored[event_id] = after
            self.published[event_id] = dict(after)
        else:
            self.stored[event_id] = after

    def count(self, row: dict[str, Any]) -> None:
        event = self.stored[row["eventId"]]
        for wire, name in COUNTERS.items():
            moved = row["delta"].get(wire, 0) + event[name] if "delta" in row else row.get(wire, event[name])
            event[name] = min(max(moved, 0), 2**63 - 1)

    def publish(self, event_id: str | None = None) -> None:
        for one in [event_id] if event_id else list(self.stored):
            self.published[one] = dict(self.stored[one])

    def delete(self, event_id: str) -> None:
        self.stored.pop(event_id, None)
        self.published.pop(event_id, None)

    @property
    def pending(self) -> set[str]:
        return {i for i in self.stored if counts(self.stored[i]) != counts(self.published[i])}


COUNTERS = {"scanCount": "scan", "saveCount": "save", "rsvpCount": "rsvp"}
RENAMED = {"isPrivate": "private", "creatorId": "creator", "sharedWith": "shared", **COUNTERS}


def fresh(event_id: str, now: int) -> dict[str, Any]:
    defaults: dict[str, Any] = {"id": event_id, "title": "", "status": "VERIFIED", "scan": 0, "save": 0, "rsvp": 0}
    return {
        **defaults,
        "created": now,
        "confidence": None,
        "private": False,
        "creator": None,
        "shared": [],
        "end": None,
    }


def inside(row: dict[str, Any]) -> dict[str, Any]:
    out = {RENAMED.get(k, k): v for k, v in row.items() if k not in ("location", "start", "priority")}
    if "location" in row:
        out.update(row["location"])
    if "start" in row:
        out["start"] = to_ms(row["start"])
    return out


def counts(event: dict[str, Any]) -> tuple[int, int, int]:
    return event["scan"], event["save"], event["rsvp"]


def without_counts(event: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in event.items() if k not in COUNTERS.values()}


class Trial:
    """The feed, its model, its clients."""

    def __init__(self, feed: Feed, clock: VirtualClock, db: Database) -> None:
        self.feed = feed
        self.clock = clock
        self.db = db
        self.model = Model()
        self.clients: dict[int, Client] = {}
        self.turns = feed._turns
        self.numbers = 0

    # The server's turns, taken by hand.

    def occasion(self) -> Occasion:
        self.numbers += 1
        return Occasion("forced", self.numbers, self.clock.now_ms())

    async def write(self, *ops: Op, who: Identity = ADMIN) -> list[Outcome]:
        future = await self.feed._writer.submit([Asked(op, who) for op in ops])
        await self.feed._writer.turn(self.occasion())
        outcomes = future.result()
        await self.turns.immediate(self.occasion())
        return outcomes

    async def upsert(self, row: dict[str, Any]) -> Accepted:
        outcome = (await self.write(event_op(row)))[0]
        assert isinstance(outcome, Accepted), outcome
        self.model.upsert(row, self.clock.now_ms())
        if not self.feed.desk.tunables.enabled:
            self.model.publish(row["id"])
        return outcome

    async def count(self, row: dict[str, Any]) -> Accepted:
        outcome = (await self.write(popularity_op(row)))[0]
        assert isinstance(outcome, Accepted), outcome
        self.model.count(row)
        if not self.feed.desk.tunables.enabled:
            self.model.publish(row["eventId"])
        if row.get("priority") == "high":
            await self.turns.urgent(self.occasion())
            await self.turns.immediate(self.occasion())
            self.model.publish(row["eventId"])
        return outcome

    async def flush(self) -> Turn:
        turn = await self.turns.flush(self.occasion())
        self.model.publish()
        for client in self.clients.values():
            if not client.stalled:
                self.synced(client)
        return turn

    async def catch_up(self) -> None:
        """A turn of catch-up; who was behind and no longer is has a fresh view."""
        behind = [client for client in self.clients.values() if not client.stalled and client.behind]
        await self.turns.catch_up(self.occasion())
        for client in behind:
            self.synced(client)

    def synced(self, client: Client) -> None:
        """It holds a fresh view, unless something is owed to it."""
        if not client.behind:
            client.synced_at = self.clock.now_ms()

    # Clients.

    async def join(self, number: int, question: dict[str, Any]) -> Client:
        client = self.clients.setdefault(number, Client(self.clock))
        client.question, client.asking = dict(question), True
        if client.viewer is None:
            client.viewer = Viewer(f"s{number}", as_question(question), client)
        client.viewer.budget, client.viewer.clusters = client.budget, question.get("clusters", False)
        client.viewer.question = as_question(question)
        await self.feed.join(client.viewer)
        client.asking = False
        self.synced(client)
        return client

    async def ask(self, client: Client, **changes: Any) -> None:
        client.question.update(changes)
        client.asking = True
        assert client.viewer is not None
        await self.feed.turn_to(client.viewer, as_question(client.question), "r1")
        assert client.frames[-1].get("ref") == "r1"
        client.asking = False
        self.synced(client)

    async def become(self, client: Client, user: str | None) -> None:
        client.question["user"] = user
        client.asking = True
        assert client.viewer is not None
        await self.feed.reveal(client.viewer, as_question(client.question))
        client.asking = False
        self.synced(client)

    async def drain(self, client: Client) -> None:
        client.stalled = False
        frame, client.waiting = client.waiting, None
        assert client.viewer is not None
        if frame is not None:
            owed = client.viewer.owed
            client.read(frame)
            self.feed.drained(client.viewer)
            await self.turns.catch_up(self.occasion())
            if owed:
                self.synced(client)

    # What must hold.

    def check(self) -> None:
        assert set(self.feed.desk.pending) == self.model.pending
        for client in self.clients.values():
            if client.viewer in self.feed.desk.audience and not client.stalled:
                self.check_client(client)

    def check_client(self, client: Client) -> None:
        now, held = self.clock.now_ms(), client.view.events
        assert client.viewer is not None
        assert client.view.digest == f"{client.viewer.digest:016x}"
        assert len(held) <= client.question.get("maxEvents", 50)
        if client.behind:
            return
        for event_id, event in held.items():
            assert event_id in self.model.published, f"{event_id} is gone but held"
            truth = self.model.published[event_id]
            assert oracle.visible(truth, client.question["user"]), f"{event_id} is not this viewer's to see"
            assert (event["scanCount"], event["saveCount"], event["rsvpCount"]) == counts(truth)
            assert event["title"] == truth["title"]
        if client.synced_at == now:
            fresh_view = oracle.view(list(self.model.published.values()), client.question, now)
            assert set(held) == {e["id"] for e, _ in fresh_view}

    def check_scores(self) -> None:
        """After a flush: the scores too, within the threshold (and the rounding of the wire)."""
        for client in self.clients.values():
            if client.viewer in self.feed.desk.audience and not client.stalled and not client.behind:
                self.check_scores_of(client)

    def check_scores_of(self, client: Client) -> None:
        fresh_view = oracle.view(list(self.model.published.values()), client.question, self.clock.now_ms())
        assert set(client.view.events) == {e["id"] for e, _ in fresh_view}
        for event, score in fresh_view:
            sent = client.view.events[event["id"]]["relevanceScore"]
            assert abs(sent - score) < THRESHOLD + 0.0001, f"{event['id']}: {sent} was sent, it is {score}"


def as_question(q: dict[str, Any]) -> Question:
    filters = tuple(Filter.model_validate(f) for f in q.get("filters", ()))
    return Question(Viewport.model_validate(q["viewport"]), filters, None, q.get("user"), q.get("maxEvents", 50))


@asynccontextmanager
async def trial(db: Database, **settings: Any) -> AsyncIterator[Trial]:
    """A feed over an empty database."""
    async with db.connection() as connection:
        await connection.execute(EMPTY)
    clock = VirtualClock(start_ms=START)
    feed = make_feed(db, clock, Settings(**settings))
    await feed.load()
    yield Trial(feed, clock, db)


def make_feed(db: Database, clock: Clock, settings: Settings, *, threaded: bool = False) -> Feed:
    ledger = Ledger(db, clock, node="test")
    panel = Panel(ledger, clock=clock, tasks=Tasks())
    return Feed(
        settings,
        db,
        clock,
        panel,
        ledger.record,
        leading(),
        Bus(db, node="test"),
        threaded=threaded,
    )
