"""Change messages as bytes, assembled from each event's own bytes: an event is encoded once per version, not per viewer.

The shapes are those of `server/protocol/outgoing.py`; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeAlias

import orjson

from server.batching.scores.columns import Entry
from server.batching.scores.diff import Difference
from server.protocol.values import to_iso


@dataclass(frozen=True, slots=True)
class Head:
    """What every change message carries: per-connection number, time, and the digest after it is applied."""

    seq: int
    now_ms: int
    digest: int
    ref: str | None = None

    def opening(self, kind: str) -> bytes:
        """`{"type":...,"seq":...,"timestamp":...` and the ref, when one is owed."""
        ref = b"" if self.ref is None else b',"ref":' + orjson.dumps(self.ref)
        return b'{"type":"%b","seq":%d,"timestamp":"%b"%b' % (
            kind.encode(),
            self.seq,
            to_iso(self.now_ms).encode(),
            ref,
        )

    def closing(self) -> bytes:
        """The digest and the end."""
        return b',"digest":"%016x"}' % self.digest


Reasons: TypeAlias = Mapping[str, str]
"""Why each deleted event left the view; empty for a viewer that did not ask."""
NONE: Final[Reasons] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Fresh:
    """The events of a fresh view and their scores, best first."""

    entries: Sequence[Entry]
    scores: Sequence[float]

    def event(self, position: int) -> bytes:
        """One event with its score."""
        return with_score(self.entries[position], self.scores[position])

    def events(self, positions: Iterable[int]) -> bytes:
        """Several, as a JSON array."""
        return b"[" + b",".join(self.event(p) for p in positions) + b"]"


def with_score(entry: Entry, score: float) -> bytes:
    """An event's JSON, closed with the viewer's score to 4 decimals."""
    return b'%b,"relevanceScore":%b}' % (entry.body, repr(round(score, 4)).encode())


def replace_all(head: Head, fresh: Fresh) -> bytes:
    """The snapshot."""
    return head.opening("replace-all") + b',"events":' + fresh.events(range(len(fresh.entries))) + head.closing()


def changes(head: Head, fresh: Fresh, change: Difference, reasons: Reasons = NONE) -> bytes:
    """Several changes at once, or the answer to a pan."""
    return head.opening("changes") + b',"updates":' + _updates(fresh, change, reasons) + head.closing()


def immediate(head: Head, fresh: Fresh, change: Difference, reasons: Reasons = NONE) -> bytes:
    """One change as the message of its kind, more as `changes`."""
    if len(change) != 1:
        return changes(head, fresh, change, reasons)
    if change.deletes:
        gone = change.deletes[0]
        why = b',"reason":' + orjson.dumps(reasons[gone]) if gone in reasons else b""
        return head.opening("delete-event") + b',"id":' + orjson.dumps(gone) + why + head.closing()
    kind, position = ("add-event", change.creates) if change.creates else ("update-event", change.updates)
    return head.opening(kind) + b',"event":' + fresh.event(position[0]) + head.closing()


def batch_update(head: Head, fresh: Fresh, change: Difference, total: int, reasons: Reasons = NONE) -> bytes:
    """The consolidated batch; `total` is what the viewer holds after it."""
    summary = b',"summary":{"totalEvents":%d,"newEvents":%d,"updatedEvents":%d,"deletedEvents":%d}' % (
        total,
        len(change.creates),
        len(change.updates),
        len(change.deletes),
    )
    return head.opening("batch-update") + b',"updates":' + _updates(fresh, change, reasons) + summary + head.closing()


def _updates(fresh: Fresh, change: Difference, reasons: Reasons) -> bytes:
    return b'{"creates":%b,"updates":%b,"deletes":%b%b}' % (
        fresh.events(change.creates),
        fresh.events(change.updates),
        orjson.dumps(change.deletes),
        b',"reasons":' + orjson.dumps(reasons) if reasons else b"",
    )
