"""What one published event is made of in memory: a single `bytes` value, in exactly one of two forms.

    raw       as PostgreSQL sent it at start: a COPY binary row without its stored counters (loading.py asks for it so)
              | numbers, each behind a length of 4 bytes: HEAD | texts, each behind its length, -1 for null: TEXTS |
    encoded   the JSON body that viewers get (`event_bytes`: without the closing brace); where the event is shared with
              somebody, which the body doesn't say, before it "S", the length of a JSON list, and the list

The first byte tells them apart: 0 begins a raw one (the length of its first number), "{" and "S" an encoded one. An event
read at start stays raw, the smaller form, until somebody sees it; `encoded` then gives what to keep in its place. Nothing
else is kept beside it: an `Event` is made when one is asked for, and dropped.

Promised: `event_of(of_event(e)) == e`; `body_of` is `event_bytes` of that event, byte for byte, in both forms; new counters
and their version are put in place of the old ones without reading the rest. That leans on the body's fixed order of fields
and on JSON: inside a text quotes are escaped, so `,"version":` can't occur before the field itself, and `properties`, the
only part that strangers shape, comes last. Counters and version are the published ones.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, TypeAlias

import orjson

from server.core.event import STATUSES, Counts, Event
from server.protocol.event import event_bytes
from server.protocol.values import to_ms

Content: TypeAlias = bytes

COUNTS: Final = Struct(">4xq4xq4xq4xq")
"""How a raw content begins: scan, save, rsvp, version. The lengths before the numbers are never read."""
HEAD: Final = Struct(">4xq4xq4xq4xq4xd4xd4xq4xq4xq4xq4xd4xh")
"""COUNTS, latitude, longitude, start, end (or NO_END), created, updated, confidence (or NaN), flags."""
TEXTS: Final = (
    *("id", "title", "categories", "description", "emoji", "timezone", "recurrence", "creator_id", "shared_with"),
    "properties",
)
"""What follows HEAD; the two lists are JSON, null when empty."""
LENGTH: Final = Struct(">i")
NO_END: Final = -(1 << 63)
STATUS: Final = 3
"""The bits of flags that are an index into STATUSES."""
PRIVATE: Final = 4
HIGH: Final = 8

_RAW: Final = 0
_SHARED: Final = ord("S")
_SCAN: Final = b',"scanCount":'
_CONFIDENCE: Final = b',"confidence":'
_VERSION: Final = b',"version":'
_PROPERTIES: Final = b',"properties":'
_LOCATION: Final = b',"location":'


def of_event(event: Event) -> Content:
    """An event as it is published, encoded."""
    body = event_bytes(event)
    if not event.shared_with:
        return body
    shares = orjson.dumps(event.shared_with)
    return b"S" + LENGTH.pack(len(shares)) + shares + body


def event_of(content: Content) -> Event:
    """The event, as it was published."""
    return _from_raw(content) if content[0] == _RAW else _from_encoded(content)


def body_of(content: Content) -> bytes:
    """Its JSON without the closing brace, ready for `,"relevanceScore":0.1234}`."""
    if content[0] == _RAW:
        return event_bytes(_from_raw(content))
    return content[_body_at(content) :] if content[0] == _SHARED else content


def news_of(body: bytes, event_id: str, version: int, *, counted: bool) -> bytes:
    """Of a body what a new version alone says, with the counters or without; as open for the score as the body."""
    counters = body[body.index(_SCAN) : body.index(_CONFIDENCE)] if counted else b""
    return b'{"id":%b,"version":%d%b' % (orjson.dumps(event_id), version, counters)


def encoded(content: Content) -> Content:
    """The same content in its encoded form: what to keep once the body has been asked for."""
    return of_event(_from_raw(content)) if content[0] == _RAW else content


def with_counts(content: Content, counts: Counts, version: int) -> Content:
    """The content under new counters and their version; the rest is neither read nor changed."""
    if content[0] == _RAW:
        return COUNTS.pack(*counts, version) + content[COUNTS.size :]
    first = content.index(_SCAN)
    second = content.index(_CONFIDENCE, first)
    third = content.index(_VERSION, second)
    fourth = content.index(_PROPERTIES, third)
    return b'%b,"scanCount":%d,"saveCount":%d,"rsvpCount":%d%b,"version":%d%b' % (
        content[:first],
        *counts,
        content[second:third],
        version,
        content[fourth:],
    )


def words(content: Content) -> tuple[str, tuple[str, ...], str | None]:
    """Title, categories and description: what filters by category and text look at, without the rest."""
    if content[0] == _RAW:
        _, title, categories, description = _texts(content, 4)
        return title or "", strings(categories), description
    start = _body_at(content)
    said = orjson.loads(content[start : content.index(_LOCATION, start)] + b"}")
    return said["title"], tuple(said["categories"]), said["description"]


def _body_at(content: Content) -> int:
    """Where the body of an encoded content begins."""
    return 1 + LENGTH.size + int(LENGTH.unpack_from(content, 1)[0]) if content[0] == _SHARED else 0


def _from_raw(content: Content) -> Event:
    scan, save, rsvp, version, latitude, longitude, *times, confidence, flags = HEAD.unpack_from(content)
    start_ms, end_ms, created_ms, updated_ms = times
    event_id, title, categories, description, emoji, timezone, recurrence, creator, shares, properties = _texts(
        content, len(TEXTS)
    )
    return Event(
        id=event_id or "",
        latitude=latitude,
        longitude=longitude,
        start_ms=start_ms,
        title=title or "",
        emoji=emoji,
        description=description,
        categories=strings(categories),
        end_ms=None if end_ms == NO_END else end_ms,
        timezone=timezone,
        status=STATUSES[flags & STATUS],
        counts=(scan, save, rsvp),
        confidence=None if confidence != confidence else confidence,
        private=bool(flags & PRIVATE),
        creator_id=creator,
        shared_with=strings(shares),
        recurrence=recurrence,
        priority="high" if flags & HIGH else "normal",
        created_ms=created_ms,
        updated_ms=updated_ms,
        version=version,
        properties=properties,
    )


def _texts(content: Content, count: int) -> list[str | None]:
    """The first texts of a raw content, in the order of TEXTS."""
    found: list[str | None] = []
    at = HEAD.size
    for _ in range(count):
        (length,) = LENGTH.unpack_from(content, at)
        at += LENGTH.size
        if length < 0:
            found.append(None)
        else:
            found.append(content[at : at + length].decode())
            at += length
    return found


def strings(text: str | None) -> tuple[str, ...]:
    """A list as it stands in a raw content."""
    return () if text is None else tuple(orjson.loads(text))


def _from_encoded(content: Content) -> Event:
    start = _body_at(content)
    shares = () if start == 0 else tuple(orjson.loads(content[1 + LENGTH.size : start]))
    end = content.index(_PROPERTIES, start)
    # Properties are kept as the text they came in; reading and writing them again would not always give it back.
    properties = content[end + len(_PROPERTIES) :].decode()
    said = orjson.loads(content[start:end] + b"}")
    return Event(
        id=said["id"],
        latitude=said["location"]["latitude"],
        longitude=said["location"]["longitude"],
        start_ms=to_ms(said["start"]),
        title=said["title"],
        emoji=said["emoji"],
        description=said["description"],
        categories=tuple(said["categories"]),
        end_ms=None if said["end"] is None else to_ms(said["end"]),
        timezone=said["timezone"],
        status=said["status"],
        counts=(said["scanCount"], said["saveCount"], said["rsvpCount"]),
        confidence=said["confidence"],
        private=said["isPrivate"],
        creator_id=said["creatorId"],
        shared_with=shares,
        recurrence=said["recurrence"],
        priority=said["priority"],
        created_ms=to_ms(said["createdAt"]),
        updated_ms=to_ms(said["updatedAt"]),
        version=said["version"],
        properties=None if properties == "null" else properties,
    )
