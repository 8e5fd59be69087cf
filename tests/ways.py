"""A way to a server that can fail: a TCP proxy through which every byte goes, with faults for all connections or for one.

async with Proxy(port) as proxy:
    client(proxy.url)
    proxy.cut()                      all connections end without a word; `way.reset()` is a RST, `way.finish()` a FIN
    proxy.shut(), proxy.admit()      new connections are cut at once, are let through again
    proxy.stall(), proxy.flow()      nothing passes either way, nothing ends, for new ones too: a cable pulled out, then put back
    proxy.half_open()                those that are open now stay open at both ends, and are dead for ever
    proxy.target = port              where new connections go

    for way in proxy.each():
        way.stall(), way.flow()      the same for this one
        way.silence(End.CLIENT)      nothing reaches the client any more, not even that the server has gone; it can still speak
        way.dribble(400)             that many bytes to come pass one by one, each in a packet of its own
        way.latency_s = 0.1          everything arrives so much later

What passes through is not looked at; a proxy that reads the frames is made of this one in tests/clients/proxy.py.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Final

CHUNK: Final = 1 << 16
LINE_MOST: Final = 1 << 22
"""Bytes of a frame, or of a handshake's head, that may wait in a reader."""
AT_ONCE: Final = struct.pack("ii", 1, 0)
"""SO_LINGER: closed by a RST."""


class End(Enum):
    """Where a way leads."""

    CLIENT = auto()
    SERVER = auto()


@dataclass(eq=False)
class Way:
    """One connection through the proxy, and what is wrong with it."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    latency_s: float = 0.0
    _flowing: asyncio.Event = field(default_factory=asyncio.Event)
    _silent: set[End] = field(default_factory=set)
    _slow_bytes: int = 0

    def __post_init__(self) -> None:
        self._flowing.set()

    def writer(self, end: End) -> asyncio.StreamWriter:
        return self.client if end is End.CLIENT else self.server

    def abort(self) -> None:
        for writer in (self.client, self.server):
            writer.transport.abort()

    def reset(self) -> None:
        self._set(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
        self.abort()

    def finish(self) -> None:
        for writer in (self.client, self.server):
            writer.close()

    def stall(self) -> None:
        self._flowing.clear()

    def flow(self) -> None:
        self._flowing.set()

    def silence(self, *ends: End) -> None:
        self._silent |= set(ends)

    def dribble(self, count: int) -> None:
        self._slow_bytes = count
        self._set(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _set(self, level: int, option: int, value: int | bytes) -> None:
        """Of both sockets; one that has gone meanwhile needs nothing any more."""
        for writer in (self.client, self.server):
            with suppress(OSError):
                writer.get_extra_info("socket").setsockopt(level, option, value)

    def silent(self, end: End) -> bool:
        """Does nothing reach that end any more?"""
        return end in self._silent

    async def ready(self) -> None:
        """Wait as long as what has come is under way."""
        await self._flowing.wait()
        if self.latency_s:
            await asyncio.sleep(self.latency_s)

    async def hand(self, end: End, data: bytes) -> None:
        """It arrives, unless that end is out of reach."""
        if self.silent(end):
            return
        writer = self.writer(end)
        slowly, self._slow_bytes = min(self._slow_bytes, len(data)), max(0, self._slow_bytes - len(data))
        for place in range(slowly):
            writer.write(data[place : place + 1])
            await writer.drain()
            await asyncio.sleep(0)
        writer.write(data[slowly:])
        await writer.drain()


@dataclass
class Proxy:
    """While it is open, connections are taken; while it flows, bytes pass."""

    target: int
    admitted: int = 0
    refused: int = 0
    _open: bool = True
    _ways: list[Way] = field(default_factory=list)
    _flowing: asyncio.Event = field(default_factory=asyncio.Event)
    _server: asyncio.Server | None = None

    async def __aenter__(self) -> Any:
        self._flowing.set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=LINE_MOST)
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._server is not None
        self._server.close()
        self.flow()
        for way in self._ways:
            way.flow()
        self.cut()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/ws"

    @property
    def ways(self) -> int:
        """How many connections there are now."""
        return len(self._ways)

    def each(self) -> list[Way]:
        """Those there are now, the oldest first."""
        return list(self._ways)

    def cut(self) -> None:
        for way in self.each():
            way.abort()

    def shut(self) -> None:
        self._open = False

    def admit(self) -> None:
        self._open = True

    def stall(self) -> None:
        self._flowing.clear()

    def flow(self) -> None:
        self._flowing.set()

    def half_open(self) -> None:
        for way in self._ways:
            way.silence(*End)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        dialled = await self._dial() if self._open else None
        if dialled is None:
            self.refused += 1
            writer.transport.abort()
            return
        there, back = dialled
        way = Way(writer, back)
        self._ways.append(way)
        self.admitted += 1
        try:
            await self._carry(reader, there, way)
        except* (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._ways.remove(way)
            # What has been written, for example a close frame, still leaves.
            way.finish()

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """The server; None when it is down, and so is the way to it."""
        try:
            return await asyncio.open_connection("127.0.0.1", self.target, limit=LINE_MOST)
        except OSError:
            return None

    async def _carry(self, reader: asyncio.StreamReader, there: asyncio.StreamReader, way: Way) -> None:
        """Everything of one connection, until it ends."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._pass(reader, way, End.SERVER))
            both.create_task(self._pass(there, way, End.CLIENT))

    async def _pass(self, reader: asyncio.StreamReader, way: Way, end: End) -> None:
        while data := await reader.read(CHUNK):
            await self._flowing.wait()
            await way.ready()
            await way.hand(end, data)
        await self._flowing.wait()
        await way.ready()
        if not way.silent(end):  # Who was cut off without a word never hears that the other has gone, either.
            way.writer(end).close()
