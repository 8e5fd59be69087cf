"""The live feed's memory on this node: what is pending, what has changed, who is looking; the published world is the engine's.

A copy of what PostgreSQL holds, and the notes that turns pick up. Only synchronous steps on the event loop change it, after
the commit. What ranking must see anew is posted to the engine in commit order; what it then finds changed comes back as notes
for the immediate turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from server.batching.scores.audience import Audience, Viewer
from server.batching.scores.columns import Columns
from server.batching.scores.engine import Engine
from server.batching.scores.journal.recorder import Recorder
from server.batching.scores.kernel import Ints
from server.batching.scores.loading import Page
from server.batching.scores.lookout import Lookout
from server.batching.scores.pacing import Pacing
from server.batching.scores.plan import Counted, Gone, Settled
from server.batching.scores.recent import Recent
from server.batching.scores.remembered import Sessions
from server.core.event import Event


@dataclass(slots=True)
class Tunables:
    """What may change while the server runs; `sources` says where each value comes from."""

    interval_ms: int
    max_batch: int
    enabled: bool
    sources: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Desk:
    """Shared by the writer, the loops and the verbs of the live feed."""

    engine: Engine
    threshold: float
    tunables: Tunables
    pacing: Pacing
    audience: Audience = field(default_factory=Audience)
    sessions: Sessions = field(default_factory=Sessions)
    """Who looks by name, and who has looked."""
    pending: dict[str, None] = field(default_factory=dict)
    """Events whose stored counters are not published yet, oldest first."""
    urgent: set[str] = field(default_factory=set)
    """Those of them that may not wait for the batch."""
    changed: dict[str, None] = field(default_factory=dict)
    """Events published since the last immediate turn."""
    drained: dict[Viewer, None] = field(default_factory=dict)
    """Viewers that are owed a frame and have room for it again."""
    recorder: Recorder | None = None
    """Notes what happens for the journal, while one is kept."""
    recent: Recent = field(default_factory=Recent)
    """When the waiting counters of an event last moved."""
    moved: int = 0
    """Counts up whenever a transaction moves the waiting counters of an event: activity, also of what waits already."""
    noticed: Callable[[], None] = lambda: None
    """Called when there are new notes."""

    def settle(self, changes: Sequence[Settled], now_ms: int) -> None:
        """Bring memory to what one transaction has committed: columns, pending and what the immediate turn must look at."""
        published = [one for one in changes if one.published is not None]
        if published:
            self.engine.post(lambda lookout: self._publish(lookout, published, now_ms))
        for event_id, _, pending, high, _ in changes:
            if pending:
                self.moved += 1
                self.recent.move(event_id, now_ms)
                self.pending.setdefault(event_id)
                if high:
                    self.urgent.add(event_id)
            else:
                self.pending.pop(event_id, None)
                self.urgent.discard(event_id)
        self.noticed()

    def _publish(self, lookout: Lookout, published: Sequence[Settled], now_ms: int) -> None:
        """In the engine's thread: follow, and report what is new and must be told at once."""
        if self.engine.witness is not None:
            self.engine.witness.patched(published, now_ms, lookout.columns)
        new = [one for one in published if follow(lookout.columns, one, now_ms)]
        changed = [one.event_id for one in new if one.immediate]
        if changed:
            self.engine.tell(lambda: self._note(changed))

    def _note(self, changed: Sequence[str]) -> None:
        self.changed.update(dict.fromkeys(changed))
        self.noticed()

    def forget(self, lookout: Lookout, held: Ints) -> int:
        """In the engine's thread: slots of removed events that nobody holds may be used again; how many these are."""
        freed = lookout.columns.forget(held)
        if freed and self.engine.witness is not None:
            self.engine.witness.forgot(lookout.columns)
        return freed

    async def load(self, page: Page, now_ms: int) -> None:
        """A page of rows read at start: nobody has to be told."""
        await self.engine.ask(lambda lookout: lookout.columns.load(page, now_ms))
        self.pending.update(dict.fromkeys(page.ids[place] for place in np.flatnonzero(page.pending).tolist()))


def follow(columns: Columns, one: Settled, now_ms: int) -> bool:
    """Bring the columns to what was published; False when they had it already."""
    match one.published:
        case Gone():
            return columns.remove(one.event_id)
        case Counted(counts, version):
            return columns.publish(one.event_id, counts, version)
        case Event() as event:
            slot = columns.slot_of(one.event_id)
            known = slot is not None and columns.exists(slot) and columns.world.version[slot] == event.version
            if not known:
                columns.put(event, now_ms)
            return not known
        case None:
            return False
