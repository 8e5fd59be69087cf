"""A way to PostgreSQL that can fail: a socket of our own in front of the server's, through which every byte goes.

async with in_front_of(dsn) as proxy:            by a Unix socket; tcp=True: by TCP on loopback
    Database.open(proxy.dsn(dsn))
    proxy.cut(), proxy.mend()                    all connections end, new ones are refused
    proxy.stall(), proxy.flow()                  nothing passes, nothing ends: a cable pulled out, then put back
    proxy.half_open()                            those that are open now stay open at both ends, and are dead for ever
    proxy.lose_commit_of = b"..."                one COMMIT goes wrong, see `Loss`
    proxy.lose_answer_of = b"..."                one statement that says this is carried out, and never answered
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from urllib.parse import parse_qs, urlsplit, urlunsplit

from tests.conftest import short_folder

NAME = ".s.PGSQL.5432"


class Loss(Enum):
    """What becomes of the COMMIT of a transaction in which `lose_commit_of` was said."""

    CUT_AFTER = auto()
    """It is carried out, its answer never arrives: the connection is cut."""
    SILENT_AFTER = auto()
    """It is carried out, its answer never arrives: the connection stays open and dead."""
    SILENT_BEFORE = auto()
    """It never arrives; the connection stays open and dead, and so does the transaction at the server."""


@dataclass
class Way:
    """One connection. `silent`: what comes in is swallowed; `lost`: the answer to come is."""

    silent: bool = False
    lost: bool = False
    named: bool = False


@dataclass
class Proxy:
    """While `up`, connections are taken; while `flowing` is set, bytes pass."""

    target: str
    folder: Path
    port: int | None = None
    up: bool = True
    lose_commit_of: bytes = b""
    lose_answer_of: bytes = b""
    loss: Loss = Loss.CUT_AFTER
    lost: int = 0
    flowing: asyncio.Event = field(default_factory=asyncio.Event)
    _ways: dict[asyncio.StreamWriter, Way] = field(default_factory=dict)

    def dsn(self, like: str) -> str:
        """The same database by way of this proxy."""
        parts = urlsplit(like)
        if self.port is None:
            return urlunsplit(parts._replace(query=f"host={self.folder}&port=5432"))
        user = parts.netloc.rpartition("@")[0]
        return urlunsplit(parts._replace(netloc=f"{user}@127.0.0.1:{self.port}", query="sslmode=disable"))

    def cut(self) -> None:
        self.up = False
        for writer in list(self._ways):
            writer.close()

    def mend(self) -> None:
        self.up = True

    def stall(self) -> None:
        self.flowing.clear()

    def flow(self) -> None:
        self.flowing.set()

    def half_open(self) -> None:
        for way in self._ways.values():
            way.silent = True

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.up:
            writer.close()
            return
        there, back = await asyncio.open_unix_connection(f"{self.target}/{NAME}")
        way = Way()
        self._ways |= {writer: way, back: way}
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._requests(reader, back, way))
                both.create_task(self._answers(there, writer, way))
        finally:
            for one in (writer, back):
                one.close()
                self._ways.pop(one, None)

    async def _requests(self, reader: asyncio.StreamReader, back: asyncio.StreamWriter, way: Way) -> None:
        while data := await self._read(reader):
            if not way.silent:
                self._look_for_what_is_lost(data, way)
            if not way.silent:
                back.write(data)
        if not way.silent:  # Who was cut off without a word never hears that the other has gone, either.
            back.close()

    def _look_for_what_is_lost(self, data: bytes, way: Way) -> None:
        if self.lose_answer_of and self.lose_answer_of in data:
            self.lose_answer_of = b""
            way.lost = True
        way.named |= bool(self.lose_commit_of) and self.lose_commit_of in data
        if way.named and b"COMMIT" in data and self.lose_commit_of:
            self.lose_commit_of = b""
            if self.loss is Loss.SILENT_BEFORE:
                way.silent = True
                self.lost += 1
            else:
                way.lost = True

    async def _answers(self, there: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way) -> None:
        while data := await self._read(there):
            if way.lost:
                way.lost = False
                self.lost += 1
                way.silent = self.loss is Loss.SILENT_AFTER
                if not way.silent:
                    break
            if not way.silent:
                writer.write(data)
        if not way.silent:
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> bytes:
        try:
            data = await reader.read(1 << 16)
        except ConnectionError:
            return b""
        await self.flowing.wait()
        return data


@asynccontextmanager
async def in_front_of(dsn: str, *, tcp: bool = False) -> AsyncIterator[Proxy]:
    """A proxy to the server of that DSN."""
    folder = short_folder()
    proxy = Proxy(parse_qs(urlsplit(dsn).query)["host"][0], folder)
    proxy.flow()
    if tcp:
        server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
        proxy.port = server.sockets[0].getsockname()[1]
    else:
        server = await asyncio.start_unix_server(proxy.serve, folder / NAME)
    try:
        yield proxy
    finally:
        proxy.flow()
        proxy.cut()
        server.close()
        (folder / NAME).unlink(missing_ok=True)
        folder.rmdir()
