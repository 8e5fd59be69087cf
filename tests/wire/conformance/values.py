"""What a row of the table is, and the bytes that rows are made of."""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from tests.handlers.pipe import BINARY, CLOSE, CONT, PING, PONG, TEXT, frame, masked

__all__ = ["BINARY", "CLOSE", "CONT", "EMPTY", "OPEN", "PING", "PONG", "TEXT", "Case", "Door", "frame"]

OPEN = -1
"""The connection goes on: a message said afterwards is answered, and by nothing else before."""
EMPTY = 0
"""A close frame without a code."""
MASK = b"\x9a\x00\xff\x1c"


@dataclass(frozen=True, slots=True)
class Case:
    """One row: what is said on an open connection and what is heard.

    `heard` has the pongs (bytes) and the messages (`pong REF`, the code of an error, else the type), each kind in its
    order; between the two the RFC knows no order. `end` is OPEN, EMPTY or a close code, after which the server hangs up."""

    name: str
    section: str
    said: bytes
    heard: tuple[str | bytes, ...] = ()
    end: int = OPEN
    piece: int = 0
    """Bytes a packet; 0: all in one."""
    offer: bytes = b""
    """Header lines of the handshake."""


@dataclass(frozen=True, slots=True)
class Door:
    """One row: a request, and the answer to it. After 101 the connection must work."""

    name: str
    section: str
    said: bytes
    status: int
    has: tuple[str, ...] = ()
    """Header lines of the answer, in lower case."""
    lacks: tuple[str, ...] = ()
    """Names of headers that it must not have, in lower case."""
    piece: int = 0
    heard: tuple[str | bytes, ...] = ()
    """What answers the bytes behind the request."""


def ping(ref: str = "x") -> bytes:
    """The smallest message that is answered: `pong x`."""
    return b'{"type":"ping","ref":"%b"}' % ref.encode()


def padded(size: int, ref: str = "x") -> bytes:
    """The same message, so many bytes long."""
    start, end = b'{"type":"ping","ref":"%b","padding":"' % ref.encode(), b'"}'
    return start + b"p" * (size - len(start) - len(end)) + end


def text(payload: bytes = b'{"type":"ping","ref":"x"}', **how: object) -> bytes:
    """A text frame."""
    return frame(TEXT, payload, **how)  # type: ignore[arg-type]


def close(code: int | None = None, reason: bytes = b"", **how: object) -> bytes:
    """A close frame."""
    body = b"" if code is None else struct.pack("!H", code) + reason
    return frame(CLOSE, body, **how)  # type: ignore[arg-type]


def parts(opcode: int, payloads: Sequence[bytes], between: bytes = b"", rsv: int = 0) -> bytes:
    """One message in these fragments, with `between` behind each but the last."""
    last = len(payloads) - 1
    made = [
        frame(CONT if number else opcode, one, fin=number == last, rsv=0 if number else rsv)
        for number, one in enumerate(payloads)
    ]
    return between.join(made)


def sliced(payload: bytes, size: int) -> list[bytes]:
    """The payload in slices."""
    return [payload[n : n + size] for n in range(0, len(payload), size)]


def wide(first: int, payload: bytes, octets: int, length: int | None = None) -> bytes:
    """A frame whose length stands in 2 or 8 octets whatever it is; `length` may lie."""
    size = len(payload) if length is None else length
    head = struct.pack("!BBH", first, 0x80 | 126, size) if octets == 2 else struct.pack("!BBQ", first, 0x80 | 127, size)
    return head + MASK + masked(payload, MASK)


def deflated(payload: bytes, level: int = 6, strategy: int = 0, wbits: int = -15) -> bytes:
    """The payload of a compressed message (RFC 7692, 7.2.1)."""
    engine = zlib.compressobj(level, wbits=wbits, strategy=strategy)
    return (engine.compress(payload) + engine.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\0\0\xff\xff")
