"""A way to the server that follows a script: the proxy of tests/ways.py, with all its verbs, that reads the frames passing through.

async with Proxy(place.ws_port) as proxy:
    client(proxy.url)
    proxy.edit = lambda message: [...]          every message of the server: what the client gets instead, [] for nothing
    proxy.cut_in_frame()                        half of the server's next frame passes, then both ends are cut
    await proxy.inject(message)                 the client gets this, too
    await proxy.close(4003, "too slow")         the client gets this close frame, as if the server had sent it
    proxy.said("resync")                        what clients have sent, read out of their masked frames

Compression is not offered on: the request's Sec-WebSocket-Extensions is taken out, so that every frame is plain.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests import ways
from tests.ways import End, Way

Message = dict[str, Any]
Edit = Callable[[Message], list[Message]]

HEAD_MOST = 1 << 16
TEXT, CLOSE, PING = 0x81, 0x88, 0x89


def unchanged(message: Message) -> list[Message]:
    return [message]


def frame(first: int, payload: bytes) -> bytes:
    """A whole unmasked frame (RFC 6455, section 5.2)."""
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 1 << 16:
        return bytes((first, 126)) + size.to_bytes(2, "big") + payload
    return bytes((first, 127)) + size.to_bytes(8, "big") + payload


async def read_frame(reader: asyncio.StreamReader) -> tuple[bytes, int, bytes]:
    """The next frame as it came, its first byte, and its payload unmasked."""
    raw = await reader.readexactly(2)
    first, size = raw[0], raw[1] & 0x7F
    if size >= 126:
        more = await reader.readexactly(2 if size == 126 else 8)
        raw, size = raw + more, int.from_bytes(more, "big")
    key = await reader.readexactly(4) if raw[1] & 0x80 else b""
    body = await reader.readexactly(size)
    payload = bytes(byte ^ key[i % 4] for i, byte in enumerate(body)) if key else body
    return raw + key + body, first, payload


@dataclass
class Proxy(ways.Proxy):
    edit: Edit = unchanged
    sent: list[Message] = field(default_factory=list)
    """Every message of every client, the oldest first."""
    passed: list[Message] = field(default_factory=list)
    """Every message that the server sent, as it sent it."""
    pings: int = 0
    """Signs of life that clients have asked for, as control frames or as messages."""
    _halve: bool = False

    def said(self, kind: str) -> list[Message]:
        return [message for message in self.sent if message["type"] == kind]

    def cut_in_frame(self) -> None:
        self._halve = True

    async def inject(self, message: Message | str) -> None:
        text = message if isinstance(message, str) else json.dumps(message)
        for way in self._ways:
            way.client.write(frame(TEXT, text.encode()))
            await way.client.drain()

    async def close(self, code: int, reason: str = "") -> None:
        """The server is cut off, the client gets the close frame and the end of the connection."""
        for way in list(self._ways):
            way.server.transport.abort()
            way.client.write(frame(CLOSE, code.to_bytes(2, "big") + reason.encode()))
            way.client.close()

    async def _carry(self, reader: asyncio.StreamReader, there: asyncio.StreamReader, way: Way) -> None:
        await self._handshake(reader, there, way)
        async with asyncio.TaskGroup() as both:
            both.create_task(self._requests(reader, way))
            both.create_task(self._answers(there, way))

    async def _handshake(self, reader: asyncio.StreamReader, there: asyncio.StreamReader, way: Way) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        await self._flowing.wait()
        way.server.write(re.sub(rb"(?im)^sec-websocket-extensions:[^\n]*\n", b"", request))
        answer = await there.readuntil(b"\r\n\r\n")
        await self._flowing.wait()
        way.client.write(answer)

    async def _requests(self, reader: asyncio.StreamReader, way: Way) -> None:
        while True:
            raw, first, payload = await read_frame(reader)
            await self._flowing.wait()
            if way.silent(End.SERVER):
                continue
            if first == TEXT:
                self.sent.append(json.loads(payload))
            self.pings += first == PING or (first == TEXT and self.sent[-1]["type"] == "ping")
            await way.hand(End.SERVER, raw)

    async def _answers(self, there: asyncio.StreamReader, way: Way) -> None:
        while True:
            raw, first, payload = await read_frame(there)
            await self._flowing.wait()
            if way.silent(End.CLIENT):
                continue
            if first == TEXT:
                self.passed.append(message := json.loads(payload))
                out = self.edit(message)
                raw = raw if out == [message] else b"".join(frame(TEXT, json.dumps(one).encode()) for one in out)
            if self._halve:
                self._halve = False
                way.client.write(raw[: len(raw) // 2])
                await way.client.drain()
                # A FIN, not a RST: what was written must arrive, or the frame would not be cut in its middle.
                way.client.close()
                way.server.transport.abort()
                return
            await way.hand(End.CLIENT, raw)
