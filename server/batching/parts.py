"""What the systems of one process share, and how each is given it.

    parts = Parts(settings, db, bus, clock, panel, record, tasks)
    lead = Lead(leadership.leads, leadership.leader, leadership.fenced)      where one node of many does a thing
    follow = Follow(topics, tell)                                            where somebody may follow topics

A system's `open` takes these, adds its loops to the panel and its topics to the bus, and starts nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from server.batching.loop import TurnRecord
from server.batching.panel import Panel
from server.edge.bus import Bus
from server.edge.clock import Clock
from server.edge.postgres import Connection, Database
from server.edge.tasks import Tasks
from server.settings import Settings

Record: TypeAlias = Callable[[TurnRecord], None]
"""Where the records of turns go."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What every system is built from."""

    settings: Settings
    db: Database
    bus: Bus
    clock: Clock
    panel: Panel
    record: Record
    tasks: Tasks


@dataclass(frozen=True, slots=True)
class Lead:
    """Whether this node leads, and who does."""

    leads: Callable[[], bool]
    leader: Callable[[], str | None]
    fenced: Callable[[Connection], Awaitable[int]]
    """Holds the lead until the transaction ends, or raises; the term."""


@dataclass(frozen=True, slots=True)
class Follow:
    """The followers of topics in this process: which topics they follow, and telling them (did all have room?)."""

    topics: Callable[[], Iterable[str]]
    tell: Callable[[str, dict[str, object]], bool]
