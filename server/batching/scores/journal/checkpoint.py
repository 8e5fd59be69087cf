"""The world at a file's beginning: pages of events by slot, as their contents lie in memory, and columns made of them again.

A page is | length of its head | head (JSON): first slot, ids, lengths of contents (0: none), versions of wording | contents |.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import orjson

from server.batching.scores.columns import Columns
from server.batching.scores.content import Content
from server.batching.scores.journal.codec import LENGTH
from server.batching.scores.journal.records import Header
from server.batching.scores.rows import Copy

PAGE_EVENTS: Final = 4096
PAGE_BYTES: Final = 8 << 20
"""A page ends with the event that reaches either."""


def pages(copy: Copy) -> Iterator[bytes]:
    """The events of a copy."""
    absent = {*copy.gone, *copy.free}
    first, size, held = 0, 0, list[Content]()
    for slot, content in enumerate(copy.contents):
        held.append(b"" if content is None or slot in absent else content)
        size += len(held[-1])
        if len(held) >= PAGE_EVENTS or size >= PAGE_BYTES:
            yield _page(first, copy, held)
            first, size, held = slot + 1, 0, []
    if held:
        yield _page(first, copy, held)


def _page(first: int, copy: Copy, held: list[Content]) -> bytes:
    slots = slice(first, first + len(held))
    head = orjson.dumps([first, copy.ids[slots], [len(one) for one in held], list(map(int, copy.worded[slots]))])
    return LENGTH.pack(len(head)) + head + b"".join(held)


def copy_of(header: Header, payloads: Iterable[bytes]) -> Copy:
    """The copy again, from all pages of a file."""
    worded: list[int] = []
    copy = Copy([], [], frozenset(header.gone), list(header.free), dict(header.turning), worded)
    for payload in payloads:
        (length,) = LENGTH.unpack_from(payload)
        at = LENGTH.size + length
        first, ids, lengths, versions = orjson.loads(payload[LENGTH.size : at])
        assert first == len(copy.ids), f"the page of slot {first} comes where {len(copy.ids)} should"
        copy.ids.extend(ids)
        worded.extend(versions)
        for size in lengths:
            copy.contents.append(payload[at : at + size] if size else None)
            at += size
    return copy


def columns_of(copy: Copy) -> Columns:
    """Columns that go on exactly as those that were copied would have."""
    columns = Columns()
    columns.restore(copy)
    return columns
