"""One connection without any library: bytes go out as they are given, frames are read as they come."""

import asyncio
import socket
from typing import Any

import orjson

from tests.handlers.pipe import CLOSE, HANDSHAKE, KEY, PING, PONG, TEXT, close_of, frame
from tests.serving import LIMIT_S


class Raw:
    """A socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def dial(cls, port: int, sock: socket.socket | None = None) -> "Raw":
        """A connection on which nothing has been said."""
        if sock is not None:
            return cls(*await asyncio.open_connection(sock=sock))
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    @classmethod
    async def open(cls, port: int, more: bytes = b"", sock: socket.socket | None = None) -> "Raw":
        """A WebSocket; `more` are header lines of its handshake."""
        raw = await cls.dial(port, sock)
        raw.say(HANDSHAKE.replace(KEY, KEY + more))
        raw.answer = await raw.http()
        assert raw.answer.startswith(b"HTTP/1.1 101 "), raw.answer
        return raw

    answer = b""

    def say(self, *data: bytes) -> None:
        """All of it in one write."""
        self.writer.write(b"".join(data))

    async def piecemeal(self, data: bytes, size: int = 1) -> None:
        """A packet for every few bytes."""
        self.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for n in range(0, len(data), size):
            self.writer.write(data[n : n + size])
            await self.writer.drain()
            await asyncio.sleep(0)

    async def http(self) -> bytes:
        """The head of an HTTP answer."""
        async with asyncio.timeout(LIMIT_S):
            return await self.reader.readuntil(b"\r\n\r\n")

    async def status(self) -> int:
        """The status of an HTTP answer after which the connection ends."""
        async with asyncio.timeout(LIMIT_S):
            said = await self.reader.read(-1)
        return int(said.split(b" ")[1]) if said else 0

    async def frame(self) -> tuple[int, bytes]:
        """The next frame: its first byte and its payload."""
        async with asyncio.timeout(LIMIT_S):
            first, size = await self.reader.readexactly(2)
            if size >= 126:
                size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8), "big")
            return first, await self.reader.readexactly(size)

    async def message(self) -> Any:
        """The next frame, which must be a message; on a busy machine the server may ask meanwhile whether we are there."""
        while (first_and_payload := await self.frame())[0] == 0x80 | PING:
            self.say(frame(PONG, first_and_payload[1]))
        first, payload = first_and_payload
        assert first == 0x80 | TEXT, (hex(first), payload)
        return orjson.loads(payload)

    async def closed(self) -> int:
        """The code of the close frame, which must be next and be followed by the end; 0 when the frame is empty."""
        first, payload = await self.frame()
        assert first == 0x80 | CLOSE, (hex(first), payload)
        await self.ended()
        return close_of(payload)

    async def ended(self) -> None:
        """The server has hung up."""
        async with asyncio.timeout(LIMIT_S):
            assert await self.reader.read(-1) == b""

    def leave(self) -> None:
        self.writer.transport.abort()


def ping(ref: str) -> bytes:
    """A message that is answered by `pong`."""
    return b'{"type":"ping","ref":"%b"}' % ref.encode()


def say_ping(ref: str) -> bytes:
    """The same as a frame."""
    return frame(TEXT, ping(ref))
