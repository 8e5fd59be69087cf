"""The requests of the provider's official client over aiohttp: bodies bounded, no redirects followed, no proxies of the environment.

The client decides what is sent and what is tried again; here it is sent. What the provider says with `Retry-After`, which the
client's errors leave out, is kept beside for whoever made the call (RETRY_AFTER, one for each task).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextvars import ContextVar
from typing import Final

import aiohttp
import orjson
from apify_client.http_clients import HttpClientAsync
from yarl import URL

BODY_MOST: Final = 32 << 20
"""Bytes of one answer, unpacked."""
RETRY_AFTER: Final[ContextVar[str | None]] = ContextVar("apify_retry_after", default=None)


class TooLarge(Exception):
    """The answer has more bytes than may be read."""


class Answer:
    """An answer that was read to its end: what the client's HttpResponse asks for."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status_code = status
        self.headers = headers
        self.content = body

    @property
    def text(self) -> str:
        return self.content.decode("utf-8", "replace")

    def json(self) -> object:
        return orjson.loads(self.content)

    def read(self) -> bytes:
        return self.content

    async def aread(self) -> bytes:
        return self.content

    def close(self) -> None:
        """Nothing is open."""

    async def aclose(self) -> None:
        """Nothing is open."""

    def iter_bytes(self) -> Iterator[bytes]:
        yield self.content

    async def aiter_bytes(self) -> AsyncIterator[bytes]:
        yield self.content


class Transport(HttpClientAsync):
    """The client's requests over aiohttp: bodies bounded, no redirects, no proxies."""

    def __init__(self, session: aiohttp.ClientSession, retries: int) -> None:
        super().__init__(max_retries=retries, user_agent_suffix="batchcast")
        self._aiohttp = session

    def is_retryable_transport_error(self, exc: Exception) -> bool:
        return isinstance(exc, aiohttp.ClientError | OSError)

    async def send_request(
        self,
        *,
        method: str,
        url: str,
        headers: dict[str, str],
        content: bytes | AsyncIterator[bytes] | None,
        timeout: float | None,
        stream: bool,
    ) -> Answer:
        """One request; the session's own time limit holds, not the client's (six minutes)."""
        asked = self._aiohttp.request(
            method, URL(url, encoded=True), headers=headers, data=content, allow_redirects=False
        )
        async with asked as answer:
            RETRY_AFTER.set(answer.headers.get("Retry-After"))
            return Answer(answer.status, answer.headers, await _body(answer))


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for chunk in answer.content.iter_any():
        parts.append(chunk)
        size += len(chunk)
        if size > BODY_MOST:
            raise TooLarge(f"the provider's answer has more than {BODY_MOST} bytes")
    return b"".join(parts)
