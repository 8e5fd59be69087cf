"""A connection without a network: a transport whose kernel takes as many bytes as it is told to, and a house that lets all in."""

import asyncio
import os
import struct
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from websockets.extensions import ServerExtensionFactory
from websockets.http11 import Request

from server.core.identity import ANONYMOUS, Identity
from server.edge.clock import Clock, VirtualClock
from server.errors import Code, Refused
from server.handlers.connection import Connection, Message

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    + KEY
    + b"Sec-WebSocket-Version: 13\r\n\r\n"
)


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bytes | None = b"\1\2\3\4"
) -> bytes:
    """A client's frame, also one that must not be."""
    first, size, flag = opcode | (0x80 if fin else 0) | rsv, len(payload), 0x80 if mask is not None else 0
    if size < 126:
        head = struct.pack("!BB", first, flag | size)
    elif size < 65536:
        head = struct.pack("!BBH", first, flag | 126, size)
    else:
        head = struct.pack("!BBQ", first, flag | 127, size)
    if mask is None:
        return head + payload
    return head + mask + masked(payload, mask)


def masked(payload: bytes, mask: bytes) -> bytes:
    whole = (mask * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(whole, "big")).to_bytes(len(payload), "big")


def frames_in(data: bytes) -> list[tuple[int, bytes]]:
    """A server's frames: the first byte of each and its payload."""
    found = []
    while data:
        size, start = data[1], 2
        if size >= 126:
            start = 4 if size == 126 else 10
            size = int.from_bytes(data[2:start], "big")
        assert len(data) >= start + size, "a frame is not whole"
        found.append((data[0], data[start : start + size]))
        data = data[start + size :]
    return found


def close_of(payload: bytes) -> int:
    """The code in a close frame."""
    return int.from_bytes(payload[:2], "big")


class Pipe(asyncio.Transport):
    """The transport."""

    def __init__(self, room: int = 1 << 40) -> None:
        super().__init__()
        self.protocol: Connection
        self.taken, self.stuck, self.room = bytearray(), bytearray(), room
        self.paused = self.ended = self.closing = False
        self.reads = True

    def write(self, data: Any) -> None:
        assert not self.ended, "written after the end"
        self.stuck += data
        self._move()
        if self.stuck and not self.paused:
            self.paused = True
            self.protocol.pause_writing()

    def let(self, room: int) -> None:
        """The kernel takes so much more."""
        self.room += room
        self._move()
        if self.paused and not self.stuck:
            self.paused = False
            self.protocol.resume_writing()

    def _move(self) -> None:
        moved, self.stuck = self.stuck[: self.room], self.stuck[self.room :]
        self.taken += moved
        self.room -= len(moved)

    def sent(self) -> list[tuple[int, bytes]]:
        """The frames the kernel took, without the handshake."""
        return frames_in(bytes(self.taken.partition(b"\r\n\r\n")[2]))

    def write_eof(self) -> None:
        self.ended = True

    def abort(self) -> None:
        self.closing = True
        self.protocol.connection_lost(None)

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high == 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1234) if name == "peername" else default


class Diary:
    """A resident that writes down what it is told; it takes messages as they come unless it is told to wait."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.got: list[Message] = []
        self.eager = True
        self.nudges = self.resumes = self.losses = 0
        self.on_resumed: Callable[[], None] = lambda: None

    def arrived(self) -> None:
        while self.eager and self.take() is not None:
            pass

    def take(self) -> Message | None:
        message = self.connection.take()
        if message is not None:
            self.got.append(message)
        return message

    def nudged(self) -> None:
        self.nudges += 1

    def resumed(self) -> None:
        self.resumes += 1
        self.on_resumed()

    def lost(self) -> None:
        self.losses += 1


class Inn:
    """A house that lets everybody in."""

    def __init__(self, clock: Clock | None = None, extensions: Sequence[ServerExtensionFactory] = ()) -> None:
        self.clock = clock or VirtualClock()
        self.extensions = extensions
        self.room = True
        self.diaries: deque[Diary] = deque()
        self.said: list[str] = []

    def greet(self, connection: Connection) -> bool:
        self.said.append("greet")
        return self.room

    def admit(self, request: Request, address: str) -> Identity:
        if request.path != "/ws":
            raise Refused(Code.TOO_MANY, "no room")
        return ANONYMOUS

    def welcome(self, connection: Connection, who: Identity) -> Diary:
        self.said.append("welcome")
        self.diaries.append(Diary(connection))
        return self.diaries[-1]

    def expect_end(self, connection: Connection) -> None:
        self.said.append("expect end")

    def gone(self, connection: Connection) -> None:
        self.said.append("gone")


def made(inn: Inn | None = None, room: int = 1 << 40) -> tuple[Connection, Pipe]:
    """A connection whose handshake has not begun."""
    connection, pipe = Connection(inn or Inn()), Pipe(room)
    pipe.protocol = connection
    connection.connection_made(pipe)
    return connection, pipe


def opened(inn: Inn | None = None, more: bytes = b"") -> tuple[Connection, Pipe, Diary]:
    """A connection that is open; `more` are header lines of its handshake."""
    inn = inn or Inn()
    connection, pipe = made(inn)
    connection.data_received(HANDSHAKE.replace(KEY, KEY + more))
    assert pipe.taken.startswith(b"HTTP/1.1 101 "), pipe.taken
    return connection, pipe, inn.diaries[-1]


def random_bytes(count: int) -> bytes:
    """Bytes that no compression makes smaller."""
    return os.urandom(count)
