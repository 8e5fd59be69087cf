"""Change messages as bytes, assembled from each event's own bytes: an event is encoded once per version, not per viewer.

A message is a head of its own for every connection (type, seq, ref) and a tail that equal viewers share (time, events,
digest). The shapes are those of `server/protocol/outgoing.py`; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from server.protocol.values import to_iso

SCORES: Final[Sequence[bytes]] = tuple(b',"relevanceScore":%b},' % repr(i / 10_000).encode() for i in range(10_001))
"""How an event's JSON ends for a viewer whose score has so many ten-thousandths, with the comma before the next event."""


@dataclass(frozen=True, slots=True)
class Parts:
    """One difference, ready to be put together: ids as text, events as pieces, two for each: its bytes, and of SCORES one.

    Pieces are joined once, at the end: a frame's bytes are written once, however large."""

    creates: Sequence[bytes]
    updates: Sequence[bytes]
    deletes: Sequence[str]
    reasons: Mapping[str, str]
    digest: int
    clusters: bytes = b""
    """The clusters now, as JSON; nothing: they are not told."""

    @property
    def created(self) -> int:
        """How many creates."""
        return len(self.creates) // 2

    @property
    def updated(self) -> int:
        """How many updates."""
        return len(self.updates) // 2

    def __len__(self) -> int:
        return self.created + self.updated + len(self.deletes)


@dataclass(frozen=True, slots=True)
class Message:
    """A message but for what is each connection's own."""

    kind: bytes
    tail: bytes

    def head(self, seq: int, ref: str | None) -> bytes:
        """`{"type":...,"seq":...` and the ref, when one is owed."""
        start = b'{"type":"%b","seq":%d' % (self.kind, seq)
        return start if ref is None else start + b',"ref":' + orjson.dumps(ref)


LONGEST: Final = Message(b"batch-update", b"")
SEQ_MOST: Final = 10**15
DIGITS: Final = 16
"""How much longer the numbers of a summary may be than in a message without events."""


def longest_head(ref: str | None) -> int:
    """Bytes of the longest head that a change message with this ref may have."""
    return len(LONGEST.head(SEQ_MOST, ref))


def stamp(now_ms: int) -> bytes:
    """The time that every change message of one round carries."""
    return b',"timestamp":"%b"' % to_iso(now_ms).encode()


def replace_all(at: bytes, parts: Parts) -> Message:
    """The snapshot."""
    return _message(b"replace-all", [at, b',"events":', *_array(parts.creates)], parts)


def changes(at: bytes, parts: Parts) -> Message:
    """Several changes at once, or the answer to a pan."""
    return _message(b"changes", [at, *_updates(parts)], parts)


def immediate(at: bytes, parts: Parts) -> Message:
    """One change as the message of its kind, more as `changes`."""
    if len(parts) != 1:
        return changes(at, parts)
    if parts.deletes:
        gone = parts.deletes[0]
        why = b',"reason":' + orjson.dumps(parts.reasons[gone]) if gone in parts.reasons else b""
        return _message(b"delete-event", [at, b',"id":', orjson.dumps(gone), why], parts)
    kind, (body, score) = (b"add-event", parts.creates) if parts.creates else (b"update-event", parts.updates)
    return _message(kind, [at, b',"event":', body, score[:-1]], parts)


def batch_update(at: bytes, parts: Parts, total: int) -> Message:
    """The consolidated batch; `total` is what the viewer holds after it."""
    counts = (total, parts.created, parts.updated, len(parts.deletes))
    summary = b',"summary":{"totalEvents":%d,"newEvents":%d,"updatedEvents":%d,"deletedEvents":%d}' % counts
    return _message(b"batch-update", [at, *_updates(parts), summary], parts)


def _message(kind: bytes, pieces: list[bytes], parts: Parts) -> Message:
    if parts.clusters:
        pieces.append(b',"clusters":' + parts.clusters)
    pieces.append(b',"digest":"%016x"}' % parts.digest)
    return Message(kind, b"".join(pieces))


def _updates(parts: Parts) -> list[bytes]:
    rest = b',"deletes":' + orjson.dumps(parts.deletes)
    if parts.reasons:
        rest += b',"reasons":' + orjson.dumps(parts.reasons)
    return [b',"updates":{"creates":', *_array(parts.creates), b',"updates":', *_array(parts.updates), rest, b"}"]


def _array(pieces: Sequence[bytes]) -> list[bytes]:
    """Events as a JSON array: the comma behind the last one is taken away."""
    return [b"[", *pieces[:-1], pieces[-1][:-1], b"]"] if pieces else [b"[]"]
