"""An hour of slow clients, in virtual time: each costs one frame, all converge, and who is too slow is told so and comes back.

The way out is the server's own (hub, peers, wires, connections); the network is a pipe whose kernel takes as much as the client
reads. Time is virtual, turns are taken by hand, PostgreSQL is real. QUEUE_SOAK=1 (`make soak`) makes it half a day.
"""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, cast

import orjson

from server.batching.imports.importer import Importer
from server.batching.loop import Occasion
from server.client import View
from server.edge.postgres import Database
from server.edge.secrets import open_keys
from server.edge.tasks import Tasks
from server.errors import TOO_SLOW
from server.handlers.connection import Connection
from server.handlers.hub import Hub
from server.handlers.websocket import Deps, Peer, WebSocketServer
from server.settings import Settings
from tests.batching.scores.world import HOUR, START, THRESHOLD, Trial, trial
from tests.handlers.asking import SECRET
from tests.handlers.pipe import CLOSE, HANDSHAKE, PING, PONG, TEXT, Pipe, close_of, frame
from tests.oracle import view as oracle

Message = dict[str, Any]

MINUTES: Final = 720 if os.environ.get("QUEUE_SOAK") else 60
READERS: Final = 24
EVENTS: Final = 60
EVENT_BYTES: Final = 520
"""A little more than an event's JSON has here."""
ANSWER_BYTES: Final = 1_000
"""More than all answers that may wait beside a frame have here: of one registration, and a few pings."""
FLUSH_EVERY_S: Final = 60
COUNT_EVERY_S: Final = 10
CATCH_UPS_MOST: Final = 5
FULL_SPEED: Final = 1 << 40
VIEWS: Final = (
    {"west": -1.0, "south": -1.0, "east": 1.0, "north": 1.0},
    {"west": -180.0, "south": -85.0, "east": 180.0, "north": 85.0},
    {"west": -0.5, "south": -1.0, "east": 1.0, "north": 0.3},
)


class Reader:
    """A client that reads as fast as it likes: not at all, some bytes a second, or everything."""

    def __init__(self, server: WebSocketServer, number: int) -> None:
        self.server = server
        self.rng = random.Random(number)
        self.question: Message = {
            "viewport": VIEWS[number % len(VIEWS)],
            "filters": [{"text": "jazz"}] if number % 4 == 0 else [],
            "maxEvents": self.rng.choice([3, 20, 60]),
            "user": None,
        }
        self.view = View()
        self.speed = FULL_SPEED
        self.until_s = 0
        self.away_s = 0
        self.closed: list[int] = []
        self.frames = self.pings = 0
        self.come()

    def come(self) -> None:
        """Connect and register, with what is held."""
        self.connection, self.pipe = Connection(self.server), Pipe()
        self.pipe.protocol = self.connection
        self.connection.connection_made(self.pipe)
        self.connection.data_received(HANDSHAKE)
        self.pipe.taken.clear()
        asked = {name: value for name, value in self.question.items() if name != "user"}
        resume = {"resume": {"session": "before", **self.view.said()}} if self.view.events else {}
        self.view.seq = 0
        self.say(TEXT, orjson.dumps({"type": "register", **asked, **resume}))
        self.away_s = -1

    def say(self, opcode: int, payload: bytes) -> None:
        if not self.connection.lost:
            self.connection.data_received(frame(opcode, payload))

    def a_second(self, now_s: int) -> None:
        """Read what this second allows; now and then change one's mind about how fast."""
        if self.away_s >= 0:
            self.away_s -= 1
            if self.away_s < 0:
                self.come()
            return
        if now_s >= self.until_s:
            self.change_speed(now_s)
        if self.speed != FULL_SPEED:
            self.pipe.let(self.speed)
        self.read()
        if self.pipe.closing or self.pipe.ended:
            self.leave()

    def change_speed(self, now_s: int) -> None:
        """Nothing for less, or for more, than is forgiven; a trickle; everything."""
        mood = self.rng.choice(["quick", "deaf", "very deaf", "trickle"])
        self.until_s = now_s + self.rng.randint(10, 200 if mood == "very deaf" else 28)
        self.speed = {"quick": FULL_SPEED, "trickle": self.rng.randint(20, 3000)}.get(mood, 0)
        if self.speed == FULL_SPEED:
            self.pipe.let(FULL_SPEED)
        else:
            self.pipe.room = 0

    def leave(self) -> None:
        """Gone from both sides; back in a while."""
        if not self.connection.lost:
            self.connection.connection_lost(None)
        self.away_s = self.rng.randint(0, 60)

    def read(self) -> None:
        """Every whole frame that has arrived."""
        data = self.pipe.taken
        while (whole := whole_frame(data)) is not None:
            first, payload, size = whole
            del data[:size]
            if first & 0x0F == TEXT:
                self.heard(orjson.loads(payload))
            elif first & 0x0F == PING:
                self.pings += 1
                self.say(PONG, payload)
            elif first & 0x0F == CLOSE:
                self.closed.append(close_of(payload))
                self.say(CLOSE, payload[:2])

    def heard(self, message: Message) -> None:
        if "seq" in message:
            change = self.view.apply(message)
            assert change.matches, message
            self.frames += 1
            assert len(change.creates) + len(change.updates) <= self.question["maxEvents"]

    @property
    def in_step(self) -> bool:
        """Is it there, and has it taken all that it was sent?"""
        there = self.away_s < 0 and self.connection.open and self.view.seq > 0
        return there and not self.held_back and not self.pipe.taken

    @property
    def held_back(self) -> int:
        """Bytes that the server keeps for it."""
        peer = self.connection._resident
        waiting = peer.wire._waiting if isinstance(peer, Peer) else []
        return len(self.pipe.stuck) + sum(map(len, waiting))

    @property
    def allowed(self) -> int:
        """One frame, and a few answers."""
        return int(self.question["maxEvents"]) * EVENT_BYTES + ANSWER_BYTES


def whole_frame(data: bytearray) -> tuple[int, bytes, int] | None:
    """First byte and payload of the first frame, and its size; None while it is not whole."""
    if len(data) < 2:
        return None
    size, start = data[1], 2
    if size >= 126:
        start = 4 if size == 126 else 10
        size = int.from_bytes(data[2:start], "big")
    if len(data) < start + size:
        return None
    return data[0], bytes(data[start : start + size]), start + size


class Hour:
    """The server, its readers, and what happens in a second."""

    def __init__(self, one: Trial, server: WebSocketServer, hub: Hub, tasks: Tasks) -> None:
        self.one, self.server, self.hub, self.tasks = one, server, hub, tasks
        self.rng = random.Random(0)
        self.readers: list[Reader] = []
        self.owed = 0

    async def begin(self) -> None:
        for number in range(EVENTS):
            await self.one.upsert(self.row(number))
        self.readers = [Reader(self.server, number) for number in range(READERS)]
        await self.one.clock.settle()

    def row(self, number: int) -> Message:
        place = {"latitude": self.rng.uniform(-1, 1), "longitude": self.rng.uniform(-1, 1)}
        start = START + self.rng.choice([-5, 3, 10, 30, 100]) * HOUR
        return {"id": f"e{number}", "title": self.rng.choice(["Jazz", "Food"]), "location": place, "start": start}

    async def second(self, now_s: int) -> None:
        one = self.one
        await one.clock.advance(1)
        for reader in self.readers:
            reader.a_second(now_s)
            assert reader.held_back <= reader.allowed, "more than a frame waits"
        await one.clock.settle()
        if now_s % COUNT_EVERY_S == 0:
            await self.something()
        if now_s % FLUSH_EVERY_S == 0:
            await one.flush()
        self.owed += sum(bool(viewer.owed) for viewer in one.feed.desk.audience)
        await self.turns()
        self.check_in_step()

    async def turns(self) -> None:
        """What is woken by itself in a server that runs."""
        for _ in range(CATCH_UPS_MOST):
            if self.one.feed.desk.drained:
                await self.one.turns.catch_up(self.one.occasion())
        assert not self.one.feed.desk.drained, "who has drained is never served"
        await self.hub.sweep(Occasion("interval", 1, self.one.clock.now_ms()))
        await self.one.clock.settle()

    async def something(self) -> None:
        """The world goes on: counts mostly, now and then another place or title."""
        number = self.rng.randrange(EVENTS)
        if self.rng.random() < 0.2:
            await self.one.upsert(self.row(number))
        else:
            await self.one.count({"eventId": f"e{number}", "rsvpCount": self.rng.randint(0, 5)})

    async def end(self) -> None:
        """Everybody reads, whoever was away is back, and one batch follows."""
        for reader in self.readers:
            reader.away_s, reader.until_s = min(reader.away_s, 1), 1 << 40
            reader.speed = FULL_SPEED
            reader.pipe.let(FULL_SPEED)
        for now_s in range(1, 6):
            await self.second(now_s)
        await self.one.flush()
        await self.one.clock.settle()
        for reader in self.readers:
            reader.read()

    def check_in_step(self) -> None:
        """Who has taken everything has missed nothing: what it holds is what is published, and it is owed no more."""
        published = self.one.model.published
        for viewer in self.one.feed.desk.audience:
            assert not (viewer.owed and viewer.free), "owed, free, and not served"
        for reader in self.readers:
            for event_id, event in reader.view.events.items() if reader.in_step else ():
                truth = published[event_id]
                assert (event["title"], event["rsvpCount"]) == (truth["title"], truth["rsvp"]), event_id

    def check(self) -> None:
        """Everybody holds the oracle's view."""
        now = self.one.clock.now_ms()
        for reader in self.readers:
            view = oracle.view(list(self.one.model.published.values()), reader.question, now)
            held = reader.view.events
            assert held.keys() == {event["id"] for event, _ in view}
            for event, score in view:
                assert abs(held[event["id"]]["relevanceScore"] - score) < THRESHOLD + 0.0001
                assert held[event["id"]]["rsvpCount"] == event["rsvp"]


@asynccontextmanager
async def an_hour(db: Database, folder: Path) -> AsyncIterator[Hour]:
    async with trial(db) as one:
        settings = Settings(jwt_secret=SECRET, data_dir=folder)  # type: ignore[arg-type]  # pydantic makes a secret of it
        hub, tasks = Hub(settings, one.clock), Tasks()
        unused = cast(Importer, None)  # Nobody here imports anything.
        keys = open_keys(settings, one.clock)
        server = WebSocketServer(Deps(settings, one.clock, tasks, one.feed, unused, hub, keys))
        yield Hour(one, server, hub, tasks)
        await tasks.close()


async def test_an_hour_of_slow_clients_costs_a_frame_each_and_all_converge(db: Database, tmp_path: Path) -> None:
    async with an_hour(db, tmp_path) as hour:
        await hour.begin()
        for now_s in range(1, 60 * MINUTES):
            await hour.second(now_s)
        await hour.end()
        hour.check()
        closed = [code for reader in hour.readers for code in reader.closed]
        assert set(closed) <= {TOO_SLOW}, closed
        assert hour.owed > READERS * MINUTES / 2, "many had to wait"
        assert sum(reader.frames for reader in hour.readers) > READERS * MINUTES / 4
        assert sum(reader.pings for reader in hour.readers) > READERS
        for reader in hour.readers:
            reader.leave()
        await hour.one.clock.settle()
        assert (len(hour.hub), hour.hub.expected, len(hour.one.feed.desk.audience)) == (0, [], 0)
        assert (len(hour.tasks), hour.tasks.died) == (0, {})
