"""Every event out of PostgreSQL, fast and in pages: for the start, when a million of them are to be in memory in seconds.

    feed.counters join feed.event --COPY binary--> bytes --split--> Page (NumPy columns, lists, contents) --> take(page)

One COPY is one statement and so sees one snapshot. Rows come in no order. Each has first the size of its texts, then its
numbers, all of fixed width and never null (an event without an end sends NO_END, one without a confidence NaN), then its
texts. So Python steps from row to row and NumPy reads a page's numbers, and where each text begins, at once. What is behind
the stored counters is kept as the event's content as it came (content.py says how it is read).

Bounded: what was read and not yet taken is at most PAGE_BYTES and one message; while a page is being taken nothing more is
read from the socket and PostgreSQL waits. An error in `take` ends the COPY and leaves the connection fit for use.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from struct import Struct
from typing import Final

import asyncpg
import numpy as np
import numpy.typing as npt

from server.batching.scores.content import HEAD, HIGH, LENGTH, NO_END, PRIVATE, STATUS, TEXTS, Content, strings
from server.errors import StartRefused

Floats = npt.NDArray[np.float64]
Longs = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]

PAGE_BYTES: Final = 1 << 20
"""A page is made of so much; splitting it holds the event loop for some milliseconds."""
LOAD_LIMIT_S: Final = 3600.0
"""A load may take long where the disk is slow; a PostgreSQL that hangs for longer ends the start."""
PREPARE: Final = """
set local statement_timeout = 0;
set local work_mem = '128MB';
set local max_parallel_workers_per_gather = 0"""
"""The join hashes the counters, which are narrow, in twice that memory; with less of it the wide rows go through files. Parallel
workers would hash the wide rows instead, in shared memory, of which a container may have next to none."""
ENCODINGS: Final = ("UTF8", "SQL_ASCII")
"""Those in which a text is as long in PostgreSQL as it is when it arrives here."""

_SIZE: Final = " + ".join(f"coalesce(octet_length({name}), 0)" for name in TEXTS)
# `offset 0` keeps the planner from making each list twice, once for its length.
COPY: Final = f"""
select {_SIZE} as size, scan, save, rsvp, pub_scan, pub_save, pub_rsvp, version, latitude, longitude, start_ms, end_ms,
    created_ms, updated_ms, confidence, flags, {", ".join(TEXTS)}
from (
    select c.scan, c.save, c.rsvp, c.pub_scan, c.pub_save, c.pub_rsvp, c.version, e.latitude, e.longitude, e.start_ms,
        coalesce(e.end_ms, {NO_END}) as end_ms, e.created_ms, e.updated_ms, coalesce(e.confidence, 'NaN') as confidence,
        (case e.status when 'PENDING' then 0 when 'VERIFIED' then 1 when 'REJECTED' then 2 else 3 end
            + case when e.private then {PRIVATE} else 0 end
            + case e.priority when 'high' then {HIGH} else 0 end)::int2 as flags,
        e.id, e.title, case when e.categories <> '{{}}' then array_to_json(e.categories)::text end as categories,
        e.description, e.emoji, e.timezone, e.recurrence, e.creator_id,
        case when e.shared_with <> '{{}}' then array_to_json(e.shared_with)::text end as shared_with, e.properties
    from feed.counters c join feed.event e on e.id = c.event_id
    offset 0
) as r"""  # noqa: S608  names and numbers of ours

_HEADER: Final = Struct(">11sii")
_BEGINNING: Final = (b"PGCOPY\n\xff\r\n\0", 0, 0)
"""COPY's own header: signature, flags, length of an extension."""
_NUMBERS: Final = (
    *(("scan", ">i8"), ("save", ">i8"), ("rsvp", ">i8"), ("pub_scan", ">i8"), ("pub_save", ">i8"), ("pub_rsvp", ">i8")),
    *(("version", ">i8"), ("latitude", ">f8"), ("longitude", ">f8"), ("start", ">i8"), ("end", ">i8")),
    *(("created", ">i8"), ("updated", ">i8"), ("confidence", ">f8"), ("flags", ">i2")),
)
_FIELDS: Final = 1 + len(_NUMBERS) + len(TEXTS)
_END: Final = b"\xff\xff"
_ROW: Final = Struct(">h4xi")
"""How a row begins: the number of its fields, and the size of its texts behind the length of that."""
_STORED: Final = 3 * (LENGTH.size + 8)
_WIDTH: Final = _ROW.size + _STORED + HEAD.size
"""From there to the first text."""
_HEADS: Final = np.dtype(
    {
        "names": [name for name, _ in _NUMBERS],
        "formats": [kind for _, kind in _NUMBERS],
        "offsets": [_ROW.size + (LENGTH.size + 8) * i + LENGTH.size for i in range(len(_NUMBERS))],
        "itemsize": _WIDTH,
    }
)
_NULL: Final = 0xFF
"""The first byte of a length of -1; no text is so long that its length begins like this."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some events, as arrays and lists of one length; what only few of them have stands by their place in these."""

    ids: list[str]
    contents: list[Content]
    """Raw, with the published counters."""
    latitude: Floats
    longitude: Floats
    start: Longs
    """Of the event itself: a recurring one's first occurrence."""
    end: Longs
    """The start where there is none."""
    ends: Flags
    """Has it an end?"""
    created: Longs
    stored: Longs
    """(n, 3): scanCount, saveCount, rsvpCount as committed."""
    published: Longs
    """(n, 3): as ranking sees them."""
    pending: Flags
    """Do these two differ?"""
    confidence: Floats
    """NaN where it is not known."""
    status: Bytes
    """Index into core.event.STATUSES."""
    private: Flags
    high: Flags
    """Has it priority "high"?"""
    version: Longs
    zones: list[str | None]
    """IANA names; equal ones are one object."""
    recurrence: dict[int, str]
    people: dict[int, tuple[str | None, tuple[str, ...]]]
    """Of the private ones: creator, shared with."""

    def __len__(self) -> int:
        return len(self.ids)


Take = Callable[[Page], Awaitable[None]]


async def load_pages(connection: asyncpg.Connection, take: Take, page_bytes: int = PAGE_BYTES) -> int:
    """Hand every event to `take`, page by page; returns how many there were. `take` is awaited before more is read.

    The connection must be one without a time limit on its statements (`Database.dedicated`)."""
    encoding = await connection.fetchval("show server_encoding")
    if encoding not in ENCODINGS:
        raise StartRefused(f"the database's encoding is {encoding}; create it with encoding 'UTF8'")
    splitter = Splitter()
    count = 0

    async def receive(chunk: bytes) -> None:
        nonlocal count
        splitter.feed(chunk)
        if splitter.waiting >= page_bytes:
            count += await _hand(splitter, take)

    async with asyncio.timeout(LOAD_LIMIT_S), connection.transaction():
        await connection.execute(PREPARE)
        await connection.copy_from_query(COPY, output=receive, format="binary")
    count += await _hand(splitter, take)
    assert splitter.ended, "COPY ended without its trailer"
    return count


async def _hand(splitter: Splitter, take: Take) -> int:
    page = splitter.page()
    if len(page):
        await take(page)
    return len(page)


class Splitter:
    """COPY's bytes in, pages out. A row may come in pieces: what is incomplete waits for the rest."""

    def __init__(self) -> None:
        self.ended = False
        self._bytes = bytearray()
        self._begun = False
        self._zones: dict[bytes, str] = {}

    @property
    def waiting(self) -> int:
        """Bytes that no page was made of yet."""
        return len(self._bytes)

    def feed(self, chunk: bytes) -> None:
        """More of the stream."""
        self._bytes += chunk

    def page(self) -> Page:
        """All rows that are complete by now."""
        buffer = bytes(self._bytes)
        at = 0 if self._begun else self._begin(buffer)
        edges = _edges(buffer, at) if self._begun else [at]
        at = edges[-1]
        if self._begun and buffer[at:] == _END:
            self.ended = True
            at = len(buffer)
        del self._bytes[:at]
        return _page(buffer, np.array(edges, np.int64), self._zones)

    def _begin(self, buffer: bytes) -> int:
        """The length of COPY's own header; 0 while it is incomplete."""
        if len(buffer) < _HEADER.size:
            return 0
        assert _HEADER.unpack_from(buffer) == _BEGINNING, "not a binary COPY as PostgreSQL makes it"
        self._begun = True
        return _HEADER.size


def _edges(buffer: bytes, at: int) -> list[int]:
    """Where each complete row begins, and where the last one ends."""
    edges = [at]
    begins, note, size, fixed = _ROW.unpack_from, edges.append, len(buffer), _WIDTH + LENGTH.size * len(TEXTS)
    while at + _ROW.size <= size:
        fields, texts = begins(buffer, at)
        assert fields == _FIELDS, f"a row of {fields} fields, not {_FIELDS}"
        at += fixed + texts
        if at > size:
            break
        note(at)
    return edges


def _page(buffer: bytes, edges: Longs, zones: dict[bytes, str]) -> Page:
    """The rows between these places."""
    heads = _heads(buffer, edges[:-1])
    texts = _Texts(buffer, _bounds(buffer, edges), zones)
    flags = heads["flags"]
    stored, published = _triples(heads, ""), _triples(heads, "pub_")
    start, end = heads["start"].astype(np.int64), heads["end"].astype(np.int64)
    private = (flags & PRIVATE) != 0
    return Page(
        ids=texts.ids(),
        contents=texts.contents(),
        latitude=heads["latitude"].astype(np.float64),
        longitude=heads["longitude"].astype(np.float64),
        start=start,
        end=np.where(end == NO_END, start, end),
        ends=end != NO_END,
        created=heads["created"].astype(np.int64),
        stored=stored,
        published=published,
        pending=(stored != published).any(axis=1),
        confidence=heads["confidence"].astype(np.float64),
        status=(flags & STATUS).astype(np.uint8),
        private=private,
        high=(flags & HIGH) != 0,
        version=heads["version"].astype(np.int64),
        zones=texts.zones(),
        recurrence=texts.recurrence(),
        people=texts.people(private),
    )


def _heads(buffer: bytes, starts: Longs) -> npt.NDArray[np.void]:
    """The numbers of all rows: a head is seen at every byte of the buffer, and those that are real ones are copied."""
    if not len(starts):
        return np.empty(0, _HEADS)
    everywhere: npt.NDArray[np.void] = np.ndarray((len(buffer) - _WIDTH + 1,), _HEADS, buffer, strides=(1,))
    return everywhere[starts]


def _bounds(buffer: bytes, edges: Longs) -> Longs:
    """(1 + texts, rows): where each text begins with its length; the last is where the row ends."""
    bounds = np.empty((1 + len(TEXTS), len(edges) - 1), np.int64)
    bounds[0] = edges[:-1] + _WIDTH
    if len(edges) > 1:
        lengths = np.ndarray((len(buffer) - LENGTH.size + 1,), ">i4", buffer, strides=(1,))
        for i in range(len(TEXTS)):
            bounds[i + 1] = bounds[i] + LENGTH.size + np.maximum(lengths[bounds[i]], 0)
    assert (bounds[-1] == edges[1:]).all(), "texts and the size of them in their row don't agree"
    return bounds


def _triples(heads: npt.NDArray[np.void], prefix: str) -> Longs:
    return np.stack([heads[prefix + name].astype(np.int64) for name in ("scan", "save", "rsvp")], axis=1)


class _Texts:
    """What follows the numbers in each row."""

    def __init__(self, buffer: bytes, bounds: Longs, zones: dict[bytes, str]) -> None:
        self._buffer = buffer
        self._bounds = bounds
        self._zones = zones
        self._octets = np.frombuffer(buffer, np.uint8)

    def ids(self) -> list[str]:
        buffer = self._buffer
        return [buffer[a + 4 : b].decode() for a, b in self._places("id")]

    def contents(self) -> list[Content]:
        buffer, bounds = self._buffer, self._bounds
        starts = (bounds[0] - HEAD.size).tolist()
        return [buffer[a:b] for a, b in zip(starts, bounds[-1].tolist(), strict=True)]

    def zones(self) -> list[str | None]:
        return [self._zone(a, b) for a, b in self._places("timezone")]

    def recurrence(self) -> dict[int, str]:
        begins = self._bounds[TEXTS.index("recurrence")]
        given = np.flatnonzero(self._octets[begins] != _NULL)
        found = {row: self._text(row, "recurrence") for row in given.tolist()}
        return {row: rule for row, rule in found.items() if rule is not None}

    def people(self, private: Flags) -> dict[int, tuple[str | None, tuple[str, ...]]]:
        rows = np.flatnonzero(private).tolist()
        return {row: (self._text(row, "creator_id"), strings(self._text(row, "shared_with"))) for row in rows}

    def _places(self, name: str) -> Iterator[tuple[int, int]]:
        column = TEXTS.index(name)
        return zip(self._bounds[column].tolist(), self._bounds[column + 1].tolist(), strict=True)

    def _zone(self, begin: int, end: int) -> str | None:
        raw = self._buffer[begin:end]
        known = self._zones.get(raw)
        if known is None and raw[0] != _NULL:
            known = self._zones[raw] = raw[LENGTH.size :].decode()
        return known

    def _text(self, row: int, name: str) -> str | None:
        column = TEXTS.index(name)
        raw = self._buffer[self._bounds[column, row] : self._bounds[column + 1, row]]
        return None if raw[0] == _NULL else raw[LENGTH.size :].decode()
