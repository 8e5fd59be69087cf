"""What the other servers over this database write reaches this one's memory, and what this one writes reaches theirs.

    own transaction --Told--> outbox --hint--> the others' buses
                                                     |
    the others' ---> heard: a note for each id ---> settle: read what is stored, memory follows, viewers are told
                       |  too many notes, or messages removed unread
                       '---> compare: all that is stored with all that memory has, a page a turn

PostgreSQL is the truth and messages only say where to look (announced.py), so nothing depends on their order. `settle` holds the
writer's `order`: between reading a row and following it no transaction of this server comes in, and memory never goes back.
Loops: `peers` settles and compares, `peers-hint` wakes the others, at most a hundred times a second.
Leaves to others: the flushes that all take part in (rounds.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import asyncpg
import structlog

from server.batching.loop import Occasion, Turn
from server.batching.scores import cluster_store, store
from server.batching.scores.announced import Note, Told, differing, heard, judged, payloads
from server.batching.scores.desk import Desk
from server.batching.scores.ingest import Writer
from server.batching.scores.lookout import Lookout
from server.batching.scores.plan import Settled, truth
from server.edge.bus import Bus, Envelope, Lost
from server.edge.clock import Clock
from server.edge.postgres import Connection, Database
from server.errors import Unavailable

TOPIC: Final = "events"
SETTLE_ROWS: Final = 500
"""Events that are read and followed in one go: some milliseconds in which this server writes nothing of its own."""
COMPARE_ROWS: Final = 5_000
NOTES_MOST: Final = 200_000
"""Events noted and not looked at yet; beyond, the notes are thrown away and everything is compared instead."""
BUS_TURNS: Final = 100
"""So often a flush asks the bus for more before it begins with what it has."""
HINT_GAP_MS: Final = 10

log = structlog.get_logger()


@dataclass(slots=True)
class Peers:
    """This server's end. `wake` wakes a loop by its name."""

    db: Database
    clock: Clock
    bus: Bus
    desk: Desk
    writer: Writer
    wake: Callable[[str, int], None]
    leads: Callable[[], bool]
    behind_ms: int = 0
    """The oldest that a message was when it came, since this was set back to 0; by this machine's clock and `skew_ms`."""
    skew_ms: int = 0
    """How far the database's clock is ahead of this machine's."""
    _notes: dict[str, Note] = field(default_factory=dict)
    _settling: asyncio.Lock = field(default_factory=asyncio.Lock)
    _compare: Compare | None = None

    # What this server says.

    async def tell(self, connection: Connection, told: Told) -> None:
        """The outbox of the writer: the last of its transaction."""
        if not told:
            return
        for payload in payloads(told):
            await self.bus.publish(connection, TOPIC, payload, hint=False)
        self.wake("peers-hint", 0)

    async def hint(self, occasion: Occasion) -> Turn:
        """One poke for all that was committed since the last."""
        async with self.writer.order:
            pass  # The transaction that woke this loop is over by now: a poke before its commit would show nothing.
        await self.bus.hint()
        return Turn(1, 1)

    # What it hears.

    async def take(self, envelopes: Sequence[Envelope]) -> None:
        """The handler of the bus: notes, and nothing else."""
        for envelope in envelopes:
            if not envelope.own and envelope.topic == TOPIC:
                self.note(heard(envelope.payload))
                age_ms = self.clock.now_ms() + self.skew_ms - envelope.at_ms
                self.behind_ms = max(self.behind_ms, age_ms)
        if self._notes:
            self.wake("peers", 0)

    async def lost(self, lost: Lost) -> None:
        """Messages were removed before this server came to them: only looking at everything helps."""
        self.compare_all(f"messages {lost.after + 1} to {lost.first - 1} of {lost.node} were removed unread")

    def note(self, notes: Iterable[tuple[str, Note]]) -> None:
        """Remember to look at these."""
        for event_id, note in notes:
            before = self._notes.get(event_id)
            self._notes[event_id] = note if before is None else before.joined(note)
        if len(self._notes) > NOTES_MOST:
            self._notes.clear()
            self.compare_all(f"more than {NOTES_MOST} events were waiting to be looked at")

    def compare_all(self, reason: str) -> None:
        """Look at everything, from the beginning."""
        log.warning("peers compared", reason=reason)
        self._compare = Compare(self)
        self.wake("peers", 0)

    async def turn(self, occasion: Occasion) -> Turn:
        """Follow a slice of what was noted; when nothing is, a page of comparing."""
        if self._notes:
            followed = await self.settle()
        elif self._compare is not None:
            followed = await self._compare.page()
            self._compare = None if self._compare.done else self._compare
        else:
            return Turn()
        return Turn(followed, followed, more=bool(self._notes or self._compare))

    async def caught_up(self) -> None:
        """Memory has all that was committed anywhere before this was called, as far as the bus answers."""
        try:
            for _ in range(BUS_TURNS):
                if not (await self.bus.step()).more:
                    break
        except Unavailable as error:
            log.warning("peers not heard", reason=error.message)
        await self.settled()

    async def settled(self) -> None:
        """What was noted by now is followed."""
        for _ in range(1 + len(self._notes) // SETTLE_ROWS):
            await self.settle()

    async def settle(self) -> int:
        """Follow a slice of the notes; how many."""
        async with self._settling:
            ids = list(self._notes)[:SETTLE_ROWS]
            notes = {event_id: self._notes.pop(event_id) for event_id in ids}
            try:
                await self.follow(notes)
            except BaseException:
                self.note(notes.items())
                raise
            return len(notes)

    async def follow(self, notes: Mapping[str, Note]) -> None:
        """Read what is stored of these events and bring memory to it."""
        if not notes:
            return
        async with self.writer.order:
            async with self.db.connection() as connection:
                changes = await self._changes(connection, notes)
            moved = self.desk.moved
            self.desk.settle(changes, self.clock.now_ms())
            self.desk.moved = moved  # whoever took these updates has counted them

    async def _changes(self, connection: asyncpg.Connection, notes: Mapping[str, Note]) -> list[Settled]:
        stored = await cluster_store.tallies(connection, notes)
        known = await self.versions(list(notes))
        changes: list[Settled] = []
        whole: list[str] = []
        for event_id, note in notes.items():
            change = judged(event_id, note, known[event_id], stored.get(event_id))
            if change is None:
                whole.append(event_id)
            else:
                changes.append(change)
        rows = await store.read_rows(connection, whole) if whole else {}
        for event_id, row in rows.items():
            changes.append(truth(event_id, row)._replace(high=notes[event_id].urgent))
        # Who took an urgent update publishes it, and the leader too, should that one be gone. A second time is nothing.
        return changes if self.leads() else [change._replace(high=False) for change in changes]

    async def versions(self, ids: Sequence[str]) -> dict[str, int | None]:
        """The versions that memory has of these events; None where there is no such event."""
        return await self.desk.engine.ask(lambda lookout: _versions(lookout, ids))


def _versions(lookout: Lookout, ids: Sequence[str]) -> dict[str, int | None]:
    """In the engine's thread."""
    columns = lookout.columns
    slots = {event_id: columns.slot_of(event_id) for event_id in ids}
    return {
        event_id: int(columns.world.version[slot]) if slot is not None and columns.exists(slot) else None
        for event_id, slot in slots.items()
    }


class Compare:
    """One look at everything: first what is stored, in its order; then whether what memory has is stored at all."""

    def __init__(self, peers: Peers) -> None:
        self.done = False
        self._peers = peers
        self._after = ""
        self._mine: list[str] | None = None
        self._looked = 0

    async def page(self) -> int:
        """Note what differs in the next page; how many."""
        differ = await (self._stored() if self._mine is None else self._held(self._mine))
        self._peers.note((event_id, Note(whole=True, immediate=True)) for event_id in differ)
        return len(differ)

    async def _stored(self) -> Sequence[str]:
        peers = self._peers
        async with peers.db.connection() as connection:
            stored = await cluster_store.page_of_tallies(connection, self._after, COMPARE_ROWS)
        known = await peers.versions(list(stored))
        if len(stored) < COMPARE_ROWS:
            self._mine = await peers.desk.engine.ask(lambda lookout: lookout.columns.ids())
        else:
            self._after = list(stored)[-1]
        return differing(stored, known, peers.desk.pending)

    async def _held(self, mine: list[str]) -> Sequence[str]:
        page = mine[self._looked : self._looked + COMPARE_ROWS]
        self._looked += COMPARE_ROWS
        self.done = self._looked >= len(mine)
        async with self._peers.db.connection() as connection:
            return await cluster_store.absent(connection, page)
