"""A way to PostgreSQL that can be cut: a Unix socket of our own in front of the server's."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

from tests.conftest import short_folder

NAME = ".s.PGSQL.5432"


@dataclass
class Proxy:
    """While `up`, bytes pass; `cut` ends all connections and refuses new ones; `lose_commit_of` loses one answer."""

    target: str
    folder: Path
    up: bool = True
    lose_commit_of: bytes = b""
    """The next transaction in which these bytes were said is committed, but its answer never arrives: the connection is cut."""
    lost: int = 0
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    def dsn(self, like: str) -> str:
        """The same database by way of this proxy."""
        return like.replace(quote(self.target, safe=""), quote(str(self.folder), safe=""))

    def cut(self) -> None:
        self.up = False
        for writer in list(self._writers):
            writer.close()

    def mend(self) -> None:
        self.up = True

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.up:
            writer.close()
            return
        there, back = await asyncio.open_unix_connection(f"{self.target}/{NAME}")
        self._writers |= {writer, back}
        try:
            async with asyncio.TaskGroup() as both:
                lost = asyncio.Event()
                both.create_task(self._requests(reader, back, lost))
                both.create_task(self._answers(there, writer, lost))
        finally:
            for one in (writer, back):
                one.close()
                self._writers.discard(one)

    async def _requests(self, reader: asyncio.StreamReader, back: asyncio.StreamWriter, lost: asyncio.Event) -> None:
        named = False
        while data := await read(reader):
            named |= bool(self.lose_commit_of) and self.lose_commit_of in data
            if named and b"COMMIT" in data:
                self.lose_commit_of = b""
                lost.set()
            back.write(data)
        back.close()

    async def _answers(self, there: asyncio.StreamReader, writer: asyncio.StreamWriter, lost: asyncio.Event) -> None:
        while data := await read(there):
            if lost.is_set():
                self.lost += 1
                break
            writer.write(data)
        writer.close()


async def read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(1 << 16)
    except ConnectionError:
        return b""


@asynccontextmanager
async def in_front_of(dsn: str) -> AsyncIterator[Proxy]:
    """A proxy to the server of that DSN."""
    folder = short_folder()
    proxy = Proxy(parse_qs(urlsplit(dsn).query)["host"][0], folder)
    server = await asyncio.start_unix_server(proxy.serve, folder / NAME)
    try:
        yield proxy
    finally:
        proxy.cut()
        server.close()
        (folder / NAME).unlink(missing_ok=True)
        folder.rmdir()
