"""Thousands of real connections, in a process of their own so that their CPU is not the server's.

Each speaks just enough of WebSocket to shake hands, register, answer pings and count what comes: a client that cost more
would be what is measured on a machine of two cores. `Clients` is the handle in the bench's process.
"""

from __future__ import annotations

import asyncio
import multiprocessing as mp
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Final

import uvloop

from tests.bench.served import allow_files

TOGETHER: Final = 100
LIMIT_S: Final = 300.0
HELLO: Final = (
    b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
SUMMARY: Final = re.compile(rb'"newEvents":(\d+),"updatedEvents":(\d+),"deletedEvents":(\d+)')
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


@dataclass(frozen=True, slots=True)
class Heard:
    """What came to all connections since the count began: frames of the kind asked for, their bytes, what batches said."""

    frames: int
    bytes: int
    creates: int
    updates: int
    deletes: int
    seconds: float
    """From `expect` to the last of them."""
    cpu_s: float
    """Of the process of the clients, in that time."""


@dataclass(slots=True)
class Count:
    """What is being counted: frames that begin so, until there are that many."""

    begins: bytes = b""
    wanted: int = 0
    frames: int = 0
    size: int = 0
    changes: tuple[int, int, int] = (0, 0, 0)
    done: asyncio.Event | None = None
    began: tuple[float, float] = (0.0, 0.0)
    """Monotonic time and CPU time."""

    def frame(self, payload: bytes | bytearray) -> None:
        """One whole message."""
        if not payload.startswith(self.begins):
            return
        self.frames += 1
        self.size += len(payload)
        found = SUMMARY.search(payload, max(0, len(payload) - 300))
        if found:
            creates, updates, deletes = self.changes
            new, updated, deleted = map(int, found.groups())
            self.changes = (creates + new, updates + updated, deletes + deleted)
        if self.frames == self.wanted and self.done is not None:
            self.done.set()


class Reader(asyncio.Protocol):
    """One connection."""

    __slots__ = ("_buffer", "_count", "_open", "opened", "transport")

    def __init__(self, count: Count, opened: asyncio.Future[None]) -> None:
        self._count = count
        self._buffer = bytearray()
        self._open = False
        self.opened = opened
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        port = transport.get_extra_info("peername")[1]
        self.transport.write(HELLO % port)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._open:
            self._shake_hands()
        while self._open and self._frame():
            pass

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(ConnectionError("closed in the handshake"))

    def send(self, payload: bytes, opcode: int = TEXT) -> None:
        """One masked message (the mask is zero)."""
        size = len(payload)
        length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
        self.transport.write(bytes([0x80 | opcode]) + length + bytes(4) + payload)

    def _shake_hands(self) -> None:
        end = self._buffer.find(b"\r\n\r\n")
        if end >= 0:
            if not self._buffer.startswith(b"HTTP/1.1 101"):
                self.opened.set_exception(ConnectionError(bytes(self._buffer[:200]).decode()))
                return
            del self._buffer[: end + 4]
            self._open = True
            self.opened.set_result(None)

    def _frame(self) -> bool:
        """Take one whole frame out of the buffer."""
        buffer = self._buffer
        if len(buffer) < 2:
            return False
        size, head = buffer[1] & 0x7F, 2
        if size > 125:
            head = 4 if size == 126 else 10
            if len(buffer) < head:
                return False
            size = int.from_bytes(buffer[2:head], "big")
        if len(buffer) < head + size:
            return False
        payload, opcode = buffer[head : head + size], buffer[0] & 15
        del buffer[: head + size]
        if opcode == TEXT:
            self._count.frame(payload)
        elif opcode == PING:
            self.send(bytes(payload), PONG)
        return True


class Crowd:
    """All connections, in their own process."""

    def __init__(self) -> None:
        self.count = Count()
        self.readers: list[Reader] = []

    async def connect(self, port: int, count: int) -> int:
        """So many more connections."""
        loop = asyncio.get_running_loop()
        for start in range(0, count, TOGETHER):
            many = [Reader(self.count, loop.create_future()) for _ in range(min(TOGETHER, count - start))]
            await asyncio.gather(*(loop.create_connection(lambda r=r: r, "127.0.0.1", port) for r in many))  # type: ignore[misc]
            await asyncio.gather(*(r.opened for r in many))
            self.readers += many
        return len(self.readers)

    async def register(self, messages: Sequence[bytes]) -> Heard:
        """Each connection says one of these in turn and waits for its snapshot, a few at a time."""
        began, first = time.monotonic(), Count()
        for start in range(0, len(self.readers), TOGETHER):
            some = self.readers[start : start + TOGETHER]
            self.expect(b'{"type":"replace-all"', len(some))
            for number, reader in enumerate(some, start):
                reader.send(messages[number % len(messages)])
            await self.heard()
            first.frames += self.count.frames
            first.size += self.count.size
        return Heard(first.frames, first.size, 0, 0, 0, time.monotonic() - began, 0.0)

    def expect(self, begins: bytes, frames: int) -> None:
        """Count anew: frames that begin so."""
        count = self.count
        count.begins, count.wanted, count.frames, count.size, count.changes = begins, frames, 0, 0, (0, 0, 0)
        count.done = asyncio.Event()
        count.began = time.monotonic(), time.process_time()

    async def heard(self) -> Heard:
        """Wait until all that is expected has come."""
        count = self.count
        assert count.done is not None
        try:
            async with asyncio.timeout(LIMIT_S):
                if count.frames < count.wanted:
                    await count.done.wait()
        except TimeoutError:
            raise AssertionError(f"{count.frames} of {count.wanted} frames after {LIMIT_S:.0f} s") from None
        seconds, spent = time.monotonic() - count.began[0], time.process_time() - count.began[1]
        return Heard(count.frames, count.size, *count.changes, seconds, spent)

    def close(self) -> int:
        """Cut all of them."""
        for reader in self.readers:
            reader.transport.abort()
        count, self.readers = len(self.readers), []
        return count


async def attend(pipe: Connection) -> None:
    """Do what the other end says: (name of a method, its arguments), until None."""
    crowd = Crowd()
    while (said := await asyncio.to_thread(pipe.recv)) is not None:
        name, arguments = said
        try:
            result = getattr(crowd, name)(*arguments)
            pipe.send(await result if asyncio.iscoroutine(result) else result)
        except Exception as error:
            pipe.send(error)


def main(pipe: Connection) -> None:
    """The process of the connections; it gives way to the server where both want the same core."""
    allow_files()
    os.nice(5)
    uvloop.run(attend(pipe))


class Clients:
    """The handle: every call waits for its answer. Use as a context."""

    def __init__(self) -> None:
        context = mp.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=main, args=(theirs,), daemon=True)

    def __enter__(self) -> Clients:
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.send(None)
        self._process.join(30)
        if self._process.is_alive():
            self._process.kill()

    def connect(self, port: int, count: int) -> int:
        """So many more connections; how many there are."""
        connected: int = self._call("connect", port, count)
        return connected

    def register(self, messages: Sequence[bytes]) -> Heard:
        """All of them register."""
        return self._heard("register", messages)

    def expect(self, begins: bytes, frames: int) -> None:
        """Begin to count frames that begin so."""
        self._call("expect", begins, frames)

    def heard(self) -> Heard:
        """When all that is expected has come."""
        return self._heard("heard")

    def close(self) -> None:
        """Cut all connections."""
        self._call("close")

    def _heard(self, name: str, *arguments: object) -> Heard:
        found: Heard = self._call(name, *arguments)
        return found

    def _call(self, name: str, *arguments: object) -> Any:
        self._pipe.send((name, arguments))
        answer = self._pipe.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer
