"""The live feed's memory on this node: the published world, what is pending, what has changed, who is looking.

A copy of what PostgreSQL holds, and the notes that turns pick up. Only synchronous steps change it, after the commit.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from server.batching.scores.audience import Audience
from server.batching.scores.columns import Columns
from server.batching.scores.plan import Row
from server.batching.scores.ranking import Rules


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

    rules: Rules
    threshold: float
    tunables: Tunables
    columns: Columns = field(default_factory=Columns)
    audience: Audience = field(default_factory=Audience)
    pending: dict[str, None] = field(default_factory=dict)
    """Events whose stored counters are not published yet, oldest first."""
    urgent: set[str] = field(default_factory=set)
    """Those of them that may not wait for the batch."""
    changed: dict[str, None] = field(default_factory=dict)
    """Events published since the last immediate turn."""

    def settle(self, event_id: str, row: Row | None, now_ms: int) -> None:
        """Bring memory to a committed row: columns, pending and what the immediate turn must look at."""
        known = self.columns.get(event_id)
        if row is None:
            self.columns.remove(event_id)
            self._no_longer_pending(event_id)
            if known is not None:
                self.changed[event_id] = None
            return
        if known is None or known.event.version != row.event.version:
            self.columns.put(replace(row.event, counts=row.published), now_ms)
            self.changed[event_id] = None
        if row.pending:
            self.pending.setdefault(event_id)
        else:
            self._no_longer_pending(event_id)

    def load(self, row: Row, now_ms: int) -> None:
        """A row read at start: nobody has to be told."""
        self.columns.put(replace(row.event, counts=row.published), now_ms)
        if row.pending:
            self.pending[row.event.id] = None

    def _no_longer_pending(self, event_id: str) -> None:
        self.pending.pop(event_id, None)
        self.urgent.discard(event_id)
