"""An event, and what may be asked to happen to one: the values that every layer speaks of.

Times are UTC epoch milliseconds, coordinates WGS 84 degrees, counters 64-bit and never negative. An `Event` is one state of
an event, stored or published; `version` is the number under which that state was published last.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Status: TypeAlias = Literal["PENDING", "VERIFIED", "REJECTED", "EXPIRED"]
Priority: TypeAlias = Literal["normal", "high"]
Counts: TypeAlias = tuple[int, int, int]
"""scanCount, saveCount, rsvpCount."""

STATUSES: Final[tuple[Status, ...]] = ("PENDING", "VERIFIED", "REJECTED", "EXPIRED")
SHOWN: Final[frozenset[str]] = frozenset(("PENDING", "VERIFIED"))
COUNTER_MAX: Final = (1 << 63) - 1
NO_COUNTS: Final[Counts] = (0, 0, 0)


@dataclass(frozen=True, slots=True)
class Event:
    """One state of one event."""

    id: str
    latitude: float
    longitude: float
    start_ms: int
    title: str = ""
    emoji: str | None = None
    description: str | None = None
    categories: tuple[str, ...] = ()
    end_ms: int | None = None
    timezone: str | None = None
    status: Status = "VERIFIED"
    counts: Counts = NO_COUNTS
    confidence: float | None = None
    private: bool = False
    creator_id: str | None = None
    shared_with: tuple[str, ...] = ()
    recurrence: str | None = None
    priority: Priority = "normal"
    created_ms: int = 0
    updated_ms: int = 0
    version: int = 0
    properties: str | None = None
    """JSON text of a free object, keys sorted, or None."""


@dataclass(frozen=True, slots=True)
class Upsert:
    """Create or change an event: `fields` holds only what was given, under Event's names (counters as scan, save, rsvp)."""

    id: str
    fields: Mapping[str, object]
    if_version: int | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove an event."""

    id: str
    if_version: int | None = None


@dataclass(frozen=True, slots=True)
class Popularity:
    """Set (`counts`, None leaves one) or move (`deltas`) an event's counters; `update_id` makes a retry harmless."""

    id: str
    counts: tuple[int | None, int | None, int | None] = (None, None, None)
    deltas: Counts = NO_COUNTS
    update_id: str | None = None
    high: bool = False


Op: TypeAlias = Upsert | Delete | Popularity


@dataclass(frozen=True, slots=True)
class Accepted:
    """The operation is committed; `version` is the event's version then (for a delete, the version of its end)."""

    id: str
    version: int


@dataclass(frozen=True, slots=True)
class Rejected:
    """The operation was refused and changed nothing; `code` is from the error table."""

    id: str | None
    code: str
    reason: str
    field: str | None = None


Outcome: TypeAlias = Accepted | Rejected


def held_hash(event_id: str, version: int) -> int:
    """One event's part of a digest: the first 8 bytes, big-endian, of SHA-256 of `id + newline + version`."""
    return int.from_bytes(hashlib.sha256(f"{event_id}\n{version}".encode()).digest()[:8], "big")


def visible_to(event: Event, user: str | None) -> bool:
    """May this user (None: anonymous) know that the event exists? Public, or its creator, or shared with."""
    return not event.private or (user is not None and (user == event.creator_id or user in event.shared_with))
