"""An outgoing message as the bytes of one WebSocket frame (RFC 6455, section 5.2): final, text, unmasked.

Incoming frames and control frames are the library's business; data frames of ours are so simple that their header is
written here, and so many that it pays. With compression agreed upon (RFC 7692) a message long enough to gain by it
carries the first reserved bit; whether a message does is the sender's choice, message by message.
"""

from __future__ import annotations

import struct
from typing import Final, TypeAlias

from server.batching.scores.frame import SYNC_END, Frame, deflate

Payload: TypeAlias = bytes | Frame

TEXT: Final = 0x81
DEFLATED_TEXT: Final = 0xC1
WORTH_IT: Final = 512
"""Bytes below which a message is sent as it is also when compression is on."""
_SHORT: Final = struct.Struct("!BB").pack
_MIDDLE: Final = struct.Struct("!BBH").pack
_LONG: Final = struct.Struct("!BBQ").pack


def opening(size: int, first: int = TEXT) -> bytes:
    """The header of a frame with so many bytes of payload."""
    if size < 126:
        return _SHORT(first, size)
    return _MIDDLE(first, 126, size) if size < 65_536 else _LONG(first, 127, size)


def plain(payload: Payload) -> bytes:
    """The whole frame, not compressed."""
    if isinstance(payload, bytes):
        return opening(len(payload)) + payload
    head, body = payload.head, payload.tail.body
    return opening(len(head) + len(body)) + head + body


def deflated(payload: Payload) -> bytes:
    """The whole frame for a connection that compresses."""
    if len(payload) < WORTH_IT:
        return plain(payload)
    small = deflate(payload).removesuffix(SYNC_END) if isinstance(payload, bytes) else payload.deflated
    return opening(len(small), DEFLATED_TEXT) + small
