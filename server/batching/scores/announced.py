"""What servers over one database tell each other about events. Pure: what a transaction did goes in, messages come out; notes of
what was heard go in, with what is stored and what memory has, and what memory must follow comes out.

A message names ids, it carries no state: whoever hears of an id reads what is stored, in the order of its own writes. So it does
not matter in which order, or how often, messages of several servers arrive: the last look at an id is at least as new as the last
message about it. What is said beside the ids only saves work:

- `content`: read the whole event again, or learn that it is gone.
- `counted`: id, the version before and after. Counters became the published ones and nothing else changed; who has the version
  before, and finds the version after stored, need not read the content.
- `pending`: there is popularity that waits now, or none any more. Counting what waits already is told to nobody.
- `urgent`: of what waits, what may not wait for the batch.
- `by_flush`: viewers are told by the flush that published it, not at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from server.batching.scores.plan import Counted, Gone, Settled, Tally

PART_BYTES: Final = 60_000
"""A message has at most so many bytes of ids; the rest is the next message. The bus takes a little more."""


@dataclass(frozen=True, slots=True)
class Told:
    """What one transaction says to the other servers."""

    content: tuple[str, ...] = ()
    counted: tuple[tuple[str, int, int], ...] = ()
    pending: tuple[str, ...] = ()
    urgent: tuple[str, ...] = ()
    by_flush: bool = False

    def __bool__(self) -> bool:
        return bool(self.content or self.counted or self.pending or self.urgent)


@dataclass(frozen=True, slots=True)
class Note:
    """What was heard of one event since it was looked at last."""

    whole: bool = False
    before: int | None = None
    after: int | None = None
    """Versions between which only counters changed; None: no version was told of."""
    urgent: bool = False
    immediate: bool = False

    def joined(self, other: Note) -> Note:
        """Both, in whatever order they came: a chain of counts stays one, anything else means reading the whole."""
        urgent, immediate = self.urgent or other.urgent, self.immediate or other.immediate
        if self.whole or other.whole:
            return Note(True, None, None, urgent, immediate)
        if self.after is None or other.after is None:
            told = self if other.after is None else other
            return Note(False, told.before, told.after, urgent, immediate)
        if self.after == other.before:
            return Note(False, self.before, other.after, urgent, immediate)
        if other.after == self.before:
            return Note(False, other.before, self.after, urgent, immediate)
        return Note(True, None, None, urgent, immediate)


def announcement(before: Mapping[str, Tally], changes: Iterable[Settled]) -> Told:
    """What others must hear of a transaction that found `before` and made `changes`."""
    content: list[str] = []
    counted: list[tuple[str, int, int]] = []
    pending: list[str] = []
    urgent: list[str] = []
    for event_id, published, waits, high, _ in changes:
        tally = before.get(event_id)
        waited = tally is not None and tally.counts != tally.published
        if type(published) is Counted:
            counted.append((event_id, 0 if tally is None else tally.version, published.version))
        elif published is not None:
            content.append(event_id)
        elif waits != waited:
            pending.append(event_id)
        if high and waits:
            urgent.append(event_id)
    return Told(tuple(content), tuple(counted), tuple(pending), tuple(urgent))


def payloads(told: Told, most: int = PART_BYTES) -> list[dict[str, object]]:
    """As messages of at most so many bytes of ids each, none of them empty."""
    parts: list[dict[str, Any]] = []
    room = 0
    for kind, item in _items(told):
        size = len(orjson.dumps(item)) + 1
        if not parts or size > room:
            parts.append({"flush": 1} if told.by_flush else {})
            room = most
        parts[-1].setdefault(kind, []).append(item)
        room -= size
    return list(parts)


def _items(told: Told) -> Iterator[tuple[str, object]]:
    for kind in ("content", "counted", "pending", "urgent"):
        for item in getattr(told, kind):
            yield kind, item


def heard(payload: Mapping[str, Any]) -> Iterator[tuple[str, Note]]:
    """The notes of one message."""
    at_once = not payload.get("flush")
    for event_id in payload.get("content", ()):
        yield event_id, Note(whole=True, immediate=at_once)
    for event_id, before, after in payload.get("counted", ()):
        yield event_id, Note(before=before, after=after, immediate=at_once)
    for event_id in payload.get("pending", ()):
        yield event_id, Note()
    for event_id in payload.get("urgent", ()):
        yield event_id, Note(urgent=True)


def judged(event_id: str, note: Note, known: int | None, stored: Tally | None) -> Settled | None:
    """What memory (which has version `known`, None: no such event) must follow; None: read the whole event and tell of it at once.

    Nothing is published silently but what a flush has said that it published: a version that memory got in passing would be no
    news when its own message comes. So a note of what waits moves no version, and whoever is in doubt tells at once."""
    if stored is None:
        return Settled(event_id, None if known is None else Gone(), False)
    waits = stored.counts != stored.published
    high = waits and note.urgent
    if known == stored.version or (known is not None and not note.whole and note.after is None):
        return Settled(event_id, None, waits, high)
    if not note.whole and known is not None and (note.before, note.after) == (known, stored.version):
        return Settled(event_id, Counted(stored.published, stored.version), waits, high, note.immediate)
    return None


def differing(
    stored: Mapping[str, Tally], known: Mapping[str, int | None], pending: Mapping[str, object]
) -> Sequence[str]:
    """The events of which memory has something else than what is stored."""
    return [
        event_id
        for event_id, tally in stored.items()
        if known.get(event_id) != tally.version or (tally.counts != tally.published) != (event_id in pending)
    ]
