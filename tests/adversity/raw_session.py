"""PostgreSQL's protocol by hand, for a client that stops in the middle of a statement: parts sent, no Sync, no word any more."""

import asyncio
import struct
from pathlib import Path
from urllib.parse import parse_qs, urlsplit


class RawSession:
    """One session over a Unix socket that trusts us."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, dsn: str) -> "RawSession":
        parts = urlsplit(dsn)
        folder = Path(parse_qs(parts.query)["host"][0])
        session = cls(*await asyncio.open_unix_connection(folder / ".s.PGSQL.5432"))
        user, database = parts.netloc.rpartition("@")[0], parts.path.lstrip("/")
        body = struct.pack("!i", 196608) + f"user\0{user}\0database\0{database}\0\0".encode()
        session._writer.write(struct.pack("!i", len(body) + 4) + body)
        await session._until(b"Z")
        return session

    async def say(self, sql: str) -> None:
        """A whole statement, and its end."""
        self._send(b"Q", sql.encode() + b"\0")
        await self._until(b"Z")

    async def begin_to_say(self, sql: str) -> None:
        """A statement's parts up to its execution, which is waited for; the Sync that would end it never comes."""
        self._send(b"P", b"\0" + sql.encode() + b"\0\0\0")
        self._send(b"B", b"\0\0\0\0\0\0\0\0")
        self._send(b"E", b"\0\0\0\0\0")
        self._send(b"H", b"")
        await self._until(b"C")

    async def gone(self) -> None:
        """Wait until the server has ended it."""
        while await self._reader.read(4096):
            pass

    def close(self) -> None:
        self._writer.close()

    def _send(self, kind: bytes, body: bytes) -> None:
        self._writer.write(kind + struct.pack("!i", len(body) + 4) + body)

    async def _until(self, kind: bytes) -> None:
        while True:
            head = await self._reader.readexactly(5)
            body = await self._reader.readexactly(struct.unpack("!i", head[1:])[0] - 4)
            assert head[:1] != b"E", body
            if head[:1] == kind:
                return
