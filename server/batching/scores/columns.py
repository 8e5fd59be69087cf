"""The published world in memory: events as NumPy columns, one row each, and the object that carries an event's bytes.

PostgreSQL is the truth and this is a copy: it can be thrown away and loaded again. A row that is deleted is reused; rows
never move. Recurring events stand with the occurrence that counts now; `refresh(now)` moves on those whose time has come.
Not thread-safe: one owner, the event loop.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from server.batching.scores.score import confidence_term, popularity_term, unit_vector
from server.core.event import SHOWN, Event, held_hash
from server.core.recurrence import occurrence
from server.protocol.event import event_bytes

Floats = npt.NDArray[np.float64]
Longs = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
FIRST_ROWS = 1024


@dataclass(slots=True)
class Entry:
    """One published event: its state, the occurrence that counts, and what is made from it once per version."""

    event: Event
    row: int
    start_ms: int
    end_ms: int | None
    _body: bytes | None = field(default=None, repr=False)
    _mark: int | None = field(default=None, repr=False)

    @property
    def body(self) -> bytes:
        """The event's JSON without its closing brace."""
        if self._body is None:
            self._body = event_bytes(self.event)
        return self._body

    @property
    def mark(self) -> int:
        """Its part of a digest."""
        if self._mark is None:
            self._mark = held_hash(self.event.id, self.event.version)
        return self._mark


class Columns:
    """All published events. `entries[row]` is None where a row is free."""

    def __init__(self) -> None:
        self.entries: list[Entry | None] = [None] * FIRST_ROWS
        self.latitude: Floats = np.zeros(FIRST_ROWS)
        self.longitude: Floats = np.zeros(FIRST_ROWS)
        self.vector: Floats = np.zeros((FIRST_ROWS, 3))
        self.start: Longs = np.zeros(FIRST_ROWS, np.int64)
        self.created: Longs = np.zeros(FIRST_ROWS, np.int64)
        self.popularity: Floats = np.zeros(FIRST_ROWS)
        self.confidence: Floats = np.zeros(FIRST_ROWS)
        self.shown: Flags = np.zeros(FIRST_ROWS, np.bool_)
        self.private: Flags = np.zeros(FIRST_ROWS, np.bool_)
        self.generation = 0
        """Grows with every change, so that what was computed from an older state can be told."""
        self._by_id: dict[str, Entry] = {}
        self._free: list[int] = []
        self._used = 0
        self._turning: list[tuple[int, str, int]] = []

    def __len__(self) -> int:
        return len(self._by_id)

    @property
    def rows(self) -> int:
        """Rows that may hold an event; scans stop here."""
        return self._used

    def get(self, event_id: str) -> Entry | None:
        """The published event of that id."""
        return self._by_id.get(event_id)

    def put(self, event: Event, now_ms: int) -> Entry:
        """Publish a new state of an event."""
        self.generation += 1
        known = self._by_id.get(event.id)
        row = self._take_row() if known is None else known.row
        entry = self._by_id[event.id] = self._resolve(event, row, now_ms)
        self.entries[row] = entry
        self.latitude[row], self.longitude[row] = event.latitude, event.longitude
        self.vector[row] = unit_vector(event.latitude, event.longitude)
        self.start[row], self.created[row] = entry.start_ms, event.created_ms
        self.popularity[row] = popularity_term(event.counts)
        self.confidence[row] = confidence_term(event.confidence)
        self.shown[row], self.private[row] = event.status in SHOWN, event.private
        return entry

    def remove(self, event_id: str) -> None:
        """Forget an event; unknown ids are fine."""
        entry = self._by_id.pop(event_id, None)
        if entry is not None:
            self.generation += 1
            self.entries[entry.row] = None
            self.shown[entry.row] = False
            self._free.append(entry.row)

    def refresh(self, now_ms: int) -> None:
        """Bring recurring events to the occurrence that counts at `now_ms`."""
        while self._turning and self._turning[0][0] <= now_ms:
            _, event_id, version = heapq.heappop(self._turning)
            entry = self._by_id.get(event_id)
            if entry is not None and entry.event.version == version:
                fresh = self._resolve(entry.event, entry.row, now_ms)
                entry.start_ms, entry.end_ms = fresh.start_ms, fresh.end_ms
                self.start[entry.row] = entry.start_ms

    def _resolve(self, event: Event, row: int, now_ms: int) -> Entry:
        if event.recurrence is None:
            return Entry(event, row, event.start_ms, event.end_ms)
        found = occurrence(event.recurrence, event.start_ms, event.end_ms, event.timezone, now_ms)
        if found.until_ms is not None:
            heapq.heappush(self._turning, (found.until_ms, event.id, event.version))
        return Entry(event, row, found.start_ms, found.end_ms)

    def _take_row(self) -> int:
        if self._free:
            return self._free.pop()
        if self._used == len(self.entries):
            self._grow()
        self._used += 1
        return self._used - 1

    def _grow(self) -> None:
        size = len(self.entries)
        self.entries.extend([None] * size)
        for name in (
            "latitude",
            "longitude",
            "vector",
            "start",
            "created",
            "popularity",
            "confidence",
            "shown",
            "private",
        ):
            column = getattr(self, name)
            setattr(self, name, np.concatenate([column, np.zeros_like(column)]))
