"""The flush that several servers take part in: the leader publishes, each tells its own viewers.

    any server: force ---> a request, a row --- "flush-wanted" ---> the leader's loop `scores-wanted`
                                                                         |
    the leader's loop `scores` (interval, size, request):                v
      hear what was acknowledged anywhere -> a number -> publish slice by slice -> "flush" n -> walk own viewers -> a row
                                                                         |
    every other server: what it published is followed first, then the loop `scores-walk`: walk own viewers -> a row
                                                                         |
    who forced: waits until each server that is there has a row for n ---'

Rows are the truth: a request outlives the leader that heard it, and a flush that a leader did not finish leaves what it did not
publish pending, for the next one. Published but not walked is only late: batches are differences to what each viewer holds.
Each server renews its own row (`nodes`), from which statistics of all are summed; one that was killed is not counted after
DEAD_S. `Alone` is the same for one server: nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeAlias

import structlog

from server.batching.loop import Occasion, Turn, TurnRecord
from server.batching.parts import Lead
from server.batching.scores import cluster_store as store
from server.batching.scores.cluster_store import Flushed, Node, Walked
from server.batching.scores.peers import Peers
from server.edge.bus import Bus, Envelope
from server.edge.clock import Clock
from server.edge.postgres import Database
from server.errors import Code, Refused, Unavailable

WANTED: Final = "flush-wanted"
FLUSH: Final = "flush"
WALKED: Final = "flush-walked"
TOPICS: Final = (WANTED, FLUSH, WALKED)
RENEW_MS: Final = 2_000
RETRY_MS: Final = 1_000
FORCE_S: Final = 25.0
"""So long a forced flush waits for a leader (a new one takes up to 8 s) and for every server's viewers."""
LOOK_S: Final = 0.5
"""So often it looks by itself; mostly it is told."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Local:
    """What a server says of itself in its row."""

    viewers: int
    frames: int
    moved: int
    next_batch_ms: int | None


@dataclass(frozen=True, slots=True)
class Told:
    """How a walk went."""

    frames: int
    deferred: int


Walk: TypeAlias = Callable[[int], Awaitable[Told]]
"""Tell every viewer of this server what differs at that time."""


class Round(Protocol):
    """What a flush asks before and says after its two halves."""

    async def begin(self, occasion: Occasion) -> bool:
        """May it? Then memory has all that was acknowledged anywhere by now."""

    async def published(self, events: int, failed: int, now_ms: int) -> None:
        """All is published that will be."""

    async def walked(self, told: Told) -> None:
        """Every viewer of this server is told."""


class Alone:
    """One server over its database."""

    async def begin(self, occasion: Occasion) -> bool:
        """It may."""
        return True

    async def published(self, events: int, failed: int, now_ms: int) -> None:
        """Nobody else to tell."""

    async def walked(self, told: Told) -> None:
        """Nobody waits."""


@dataclass(frozen=True, slots=True)
class Due:
    """A flush of the leader's, of which this server's viewers are to be told."""

    number: int
    events: int
    now_ms: int
    batching: bool


@dataclass(slots=True)
class Rounds:
    """This server's part. `flush` is the turn now of the loop `scores`, `realign` starts its interval anew."""

    db: Database
    clock: Clock
    bus: Bus
    peers: Peers
    lead: Lead
    local: Callable[[], Local]
    walk: Walk
    flush: Callable[[], Awaitable[TurnRecord]]
    realign: Callable[[], None]
    batching: Callable[[], bool]
    wake: Callable[[str, int], None]
    others: tuple[Node, ...] = ()
    """The other servers that are there, as of the last renewal."""
    planned_ms: int | None = None
    """When another server that leads, or led last, meant to flush next."""
    moved_elsewhere: int = 0
    """Events whose waiting counters moved at the others, since this server started."""
    _moved: dict[str, int] = field(default_factory=dict)
    _number: int = 0
    _asked: int = 0
    _began_s: float = 0.0
    _due: Due | None = None
    _walks: dict[int, Walked] = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    # The leader's flush.

    async def begin(self, occasion: Occasion) -> bool:
        """Draw the number, unless this is only the end of one server of several: the others go on."""
        if occasion.trigger == "shutdown" and await self._accompanied():
            return False
        self._began_s = self.clock.monotonic()
        await self.peers.caught_up()
        try:
            async with self.db.transaction() as connection:
                await self.lead.fenced(connection)
                self._number, self._asked = await store.begin(connection)
        except Unavailable:
            self.wake("scores", RETRY_MS)
            raise
        return True

    async def published(self, events: int, failed: int, now_ms: int) -> None:
        """Have the others tell their viewers."""
        said = {"number": self._number, "events": events, "nowMs": now_ms, "batching": self.batching()}
        try:
            async with self.db.transaction() as connection:
                await store.flushed(connection, self._number, self._asked, self.bus.node, events, failed)
                await self.bus.publish(connection, FLUSH, said)
        except Unavailable as error:  # This server's viewers need not wait for the others'.
            log.warning("flush not announced", number=self._number, reason=error.message)
            self.wake("scores", RETRY_MS)

    async def walked(self, told: Told) -> None:
        """The leader's own walk is over."""
        self._note_walk(self._number, told, self._began_s)

    def _note_walk(self, number: int, told: Told, began_s: float) -> None:
        """Written down by the next turn of `nodes`, which is now: by then the flush is in the statistics."""
        seconds = self.clock.monotonic() - began_s
        self._walks[number] = Walked(self.bus.node, told.frames, told.deferred, seconds)
        while len(self._walks) > store.KEEP_ROUNDS:  # PostgreSQL has been away for long; nobody waits for the oldest
            del self._walks[min(self._walks)]
        self.wake("nodes", 0)

    async def _accompanied(self) -> bool:
        async with self.db.connection() as connection:
            return any(node.node != self.bus.node for node in await store.living(connection))

    # What is heard.

    async def take(self, envelopes: Sequence[Envelope]) -> None:
        """The handler of the bus, behind that of the peers: notes, and nothing else."""
        for envelope in envelopes:
            match envelope.topic:
                case "flush-wanted":
                    self.wake("scores-wanted", 0)
                case "flush" if not envelope.own:
                    self._note(envelope.payload)
                case _:
                    self._changed.set()

    def _note(self, payload: Mapping[str, object]) -> None:
        number, events, now_ms = payload["number"], payload["events"], payload["nowMs"]
        assert isinstance(number, int) and isinstance(events, int) and isinstance(now_ms, int)
        self._due = Due(number, events, now_ms, bool(payload["batching"]))
        self.wake("scores-walk", 0)

    async def follow(self, occasion: Occasion) -> Turn:
        """The turn of `scores-walk`: tell this server's viewers of the newest flush of the leader's."""
        due = self._due
        if due is None:
            return Turn()
        began_s = self.clock.monotonic()
        await self.peers.settled()
        told = await self.walk(due.now_ms)
        if self._due is due:
            self._due = None
        self.realign()
        self._note_walk(due.number, told, began_s)
        counts = {"events": due.events, "frames": told.frames}
        detail = {**counts, "viewers": self.local().viewers, "batching": int(due.batching)}
        return Turn(due.events + told.deferred, due.events, 0, told.deferred, detail=detail)

    async def serve(self, occasion: Occasion) -> Turn:
        """The turn of `scores-wanted`, on every server: the leader flushes when that was asked for."""
        if not self.lead.leads():
            return Turn()
        async with self.db.connection() as connection:
            if not await store.unserved(connection):
                return Turn()
        try:
            record = await self.flush()
        except Refused:  # It leads no more, or is about to end: who leads next finds the request.
            return Turn()
        if record.error is not None:
            raise Unavailable(f"the flush that was asked for failed: {record.error}", 1.0)
        return Turn(1, 1)

    # Force.

    async def force(self) -> dict[str, object]:
        """A flush now, of everything acknowledged by any server; answers when all have told their viewers, with the sums."""
        async with self.db.transaction() as connection:
            asked = await store.ask(connection)
            expected = {node.node for node in await store.living(connection)} | {self.bus.node}
            await self.bus.publish(connection, WANTED, {"asked": asked})
        ends_s = self.clock.monotonic() + FORCE_S
        while True:
            self._changed.clear()
            async with self.db.connection() as connection:
                flushed = await store.served(connection, asked)
                living = {node.node for node in await store.living(connection)} | {self.bus.node}
            missing = expected - {walk.node for walk in flushed.walks} if flushed is not None else expected
            if (flushed is not None and not missing & living) or self.clock.monotonic() >= ends_s:
                return _sums(flushed, missing)
            await self.clock.wait(self._changed, LOOK_S)

    # Who is there.

    async def renew(self, occasion: Occasion) -> Turn:
        """The turn of `nodes`: renew this server's row, write down how its walks went, look at the others' rows."""
        walks = dict(self._walks)
        async with self.db.transaction() as connection:
            now_ms = await store.renew(connection, self._mine())
            living = await store.living(connection)
            for number, walk in walks.items():
                await store.walked(connection, number, walk)
            if walks:
                await self.bus.publish(connection, WALKED, {"number": max(walks)})
        for number in walks:
            self._walks.pop(number, None)
        self.peers.skew_ms, self.peers.behind_ms = now_ms - self.clock.now_ms(), 0
        self.others = tuple(node for node in living if node.node != self.bus.node)
        self._count_moved()
        led = [node for node in self.others if node.leads]
        if led and not self.lead.leads():
            self.planned_ms = max(led, key=lambda node: node.seen_ms).next_batch_ms
        return Turn(len(living), len(living), detail={"nodes": len(living)})

    async def nodes(self) -> list[Node]:
        """The servers that are there, this one as it is at this moment."""
        others: Sequence[Node] = self.others
        with suppress(Unavailable):  # Then what was read last.
            async with self.db.connection() as connection:
                others = [node for node in await store.living(connection) if node.node != self.bus.node]
        return sorted([*others, self._mine()], key=lambda node: node.node)

    async def leave(self) -> None:
        """This server ends; when PostgreSQL is away its row runs out by itself."""
        try:
            async with self.db.connection() as connection:
                await store.leave(connection, self.bus.node)
        except Unavailable as error:
            log.info("row left to run out", node=self.bus.node, reason=error.message)

    def overdue(self) -> bool:
        """Is the flush that a former leader planned due by now?"""
        return self.planned_ms is not None and self.planned_ms <= self.clock.now_ms()

    def _mine(self) -> Node:
        local, now_ms = self.local(), self.clock.now_ms() + self.peers.skew_ms
        node, leads, behind = self.bus.node, self.lead.leads(), max(0, self.peers.behind_ms)
        return Node(node, leads, local.viewers, local.frames, local.moved, behind, local.next_batch_ms, now_ms)

    def _count_moved(self) -> None:
        """A server that was not known yet begins to count here; one that started again too."""
        for node in self.others:
            before = self._moved.get(node.node, node.moved)
            self.moved_elsewhere += max(0, node.moved - before)
        self._moved = {node.node: node.moved for node in self.others}


def _sums(flushed: Flushed | None, missing: set[str]) -> dict[str, object]:
    """The turn of a forced flush: what was published once, and what each server told its viewers."""
    if flushed is None:
        wait = f"no server led within {FORCE_S:.0f} s"
        raise Refused(Code.UNAVAILABLE, f"{wait}; the flush is kept and comes when one leads: do not repeat it")
    deferred = sum(walk.deferred for walk in flushed.walks)
    return {
        "taken": flushed.events + flushed.failed + deferred,
        "done": flushed.events,
        "failed": flushed.failed,
        "deferred": deferred,
        "seconds": round(max((walk.seconds for walk in flushed.walks), default=0.0), 6),
        **({"missing": sorted(missing)} if missing else {}),
    }
