"""What is handed to an outlet when many viewers are told the same: a head of each one's own, and a tail that all share.

A message's text is head + tail. The tail's bytes exist once, however many connections they wait for, and so does their
compressed form, which is made when the first connection that compresses asks for it: every message starts with an empty
window (RFC 7692, server_no_context_takeover), so compressed parts may be put one behind another. Heads are short and are
not compressed at all: a stored block costs five bytes and no work.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Final

LEVEL: Final = 1
"""zlib's effort: of frames of events this leaves a quarter; the default leaves a tenth less and takes twice the time."""
SYNC_END: Final = b"\x00\x00\xff\xff"
"""What a flush leaves at the end of a part; the last one of a message is left out on the wire."""
STORED_MOST: Final = 65_535
"""Bytes that one stored block can hold."""


class Shared:
    """Bytes that many frames end with; never changed once made."""

    __slots__ = ("_deflated", "body")

    def __init__(self, body: bytes) -> None:
        self.body = body
        self._deflated: bytes | None = None

    def __len__(self) -> int:
        return len(self.body)

    @property
    def deflated(self) -> bytes:
        """The compressed form, as the last part of a message; made once."""
        if self._deflated is None:
            self._deflated = deflate(self.body).removesuffix(SYNC_END)
        return self._deflated


@dataclass(frozen=True, slots=True)
class Frame:
    """One message to one connection: what is its own (it begins with the type and seq), then what it shares."""

    head: bytes
    tail: Shared

    def __len__(self) -> int:
        return len(self.head) + len(self.tail)

    @property
    def text(self) -> bytes:
        """The whole message."""
        return self.head + self.tail.body

    @property
    def deflated(self) -> bytes:
        """The whole message compressed, as RFC 7692 wants it on the wire."""
        return stored(self.head) + self.tail.deflated


def deflate(body: bytes) -> bytes:
    """A part of a compressed message, flushed so that another may follow."""
    engine = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    return engine.compress(body) + engine.flush(zlib.Z_SYNC_FLUSH)


def stored(body: bytes) -> bytes:
    """The same, not made smaller; for a part too short to be worth the work."""
    size = len(body)
    if size > STORED_MOST:
        return deflate(body)
    return b"\x00%b%b%b" % (size.to_bytes(2, "little"), (size ^ 0xFFFF).to_bytes(2, "little"), body)
