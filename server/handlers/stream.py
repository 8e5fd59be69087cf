"""Long answers in pieces: rows from the database as fast as the asker takes them.

When the database goes away in mid-stream the connection is cut, so that nobody takes a part for the whole.
"""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Final, TypeVar

import structlog
from aiohttp import web

from server.edge.web import accepts_gzip
from server.errors import Unavailable

T = TypeVar("T")
PIECE: Final = 64 << 10
"""A stream is sent in pieces of about this many bytes."""

log = structlog.get_logger()


async def stream(
    request: web.Request, pieces: AsyncIterator[bytes], content_type: str, filename: str
) -> web.StreamResponse:
    """Answer with these pieces, as a file to keep. What is refused before the first piece is refused as usual."""
    first = await anext(pieces, b"")
    headers = {
        "Cache-Control": "no-store",
        "Content-Type": f"{content_type}; charset=utf-8",
        "Content-Disposition": f'attachment; filename="{filename}"',
    }
    if request.method == "HEAD":
        return web.Response(headers=headers)
    response = web.StreamResponse(headers=headers)
    if accepts_gzip(request):
        response.enable_compression(web.ContentCoding.gzip)
    await response.prepare(request)
    await _send(request, response, first, pieces)
    return response


async def _send(request: web.Request, response: web.StreamResponse, first: bytes, rest: AsyncIterator[bytes]) -> None:
    try:
        await response.write(first)
        async for piece in rest:
            await response.write(piece)
        await response.write_eof()
    except Unavailable as error:
        log.info("export cut", reason=error.message)
        if request.transport is not None:
            request.transport.abort()
    except ConnectionError:
        log.debug("export left", path=request.path)


async def joined(
    rows: AsyncIterator[T], write: Callable[[T], bytes], *, head: bytes = b"", tail: bytes = b""
) -> AsyncIterator[bytes]:
    """Pieces of a fair size; the first one comes only after the database has answered."""
    parts, size = [head], 0
    async for row in rows:
        parts.append(write(row))
        size += len(parts[-1])
        if size >= PIECE:
            yield b"".join(parts)
            parts, size = [], 0
    yield b"".join((*parts, tail))


def record(cells: Iterable[str]) -> bytes:
    """One line of CSV."""
    line = io.StringIO()
    csv.writer(line).writerow(cells)
    return line.getvalue().encode()
