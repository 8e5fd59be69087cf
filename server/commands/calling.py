"""How commands talk to a running server: HTTP with a token in a header, failures as sentences with an exit code."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterable, AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Final, NoReturn, TextIO, TypeAlias, TypeVar
from urllib.parse import quote

import aiohttp
import orjson
from rich.console import Console

from server.commands.asking import token_for

T = TypeVar("T")
Json: TypeAlias = dict[str, object]
Params: TypeAlias = Sequence[tuple[str, str]]

OK: Final = 0
FAILED: Final = 1
UNUSABLE: Final = 2
ANSWER_S: Final = 600.0
CONNECT_S: Final = 10.0
NDJSON: Final = "application/x-ndjson"

UNBOUNDED: Final = 10_000
"""Columns. Where no terminal is, nothing is cut or wrapped: `| grep`, a log and a file see whole lines."""


def _console(stream: TextIO, *, stderr: bool) -> Console:
    return Console(stderr=stderr, highlight=False, emoji=False, width=None if stream.isatty() else UNBOUNDED)


out: Final = _console(sys.stdout, stderr=False)
err: Final = _console(sys.stderr, stderr=True)


class Failed(Exception):
    """A command can't go on; the text is for a person, `exit_code` for a script."""

    def __init__(
        self, text: str, exit_code: int = FAILED, *, retry_after_s: float | None = None, status: int | None = None
    ) -> None:
        super().__init__(text)
        self.exit_code = exit_code
        self.retry_after_s = retry_after_s
        self.status = status


class Unreachable(Failed):
    """No server at that address, or it went away in the middle."""

    def __init__(self, url: str, error: Exception) -> None:
        why = str(error) or type(error).__name__
        super().__init__(
            f"cannot reach {url} ({why}); start a server with `batchcast serve` or name it with --url", UNUSABLE
        )


def run(work: Coroutine[object, object, T]) -> T:
    """Run a command's work to its end; ^C ends it like a person who has seen enough."""
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        sys.exit(OK)


class Server:
    """A running server, as a client sees it."""

    def __init__(self, url: str, token: str | None = None) -> None:
        self.url = url.rstrip("/")
        self.token = token_for(self.url, token)
        self.reached = False
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Server:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        timeout = aiohttp.ClientTimeout(total=ANSWER_S, sock_connect=CONNECT_S)
        self._session = aiohttp.ClientSession(headers=headers, timeout=timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None
        await self._session.close()

    async def get(self, path: str, params: Params = ()) -> Json:
        """What is at this path."""
        return await self.call("GET", path, params=params)

    async def call(
        self,
        method: str,
        path: str,
        *,
        params: Params = (),
        body: Mapping[str, object] | None = None,
        rows: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Json:
        """One request and its JSON answer; a body is an object, or rows of NDJSON. Failed when the server says no."""
        data = rows if rows is not None else None if body is None else orjson.dumps(body)
        kind = NDJSON if rows is not None else "application/json"
        async with self._request(method, path, params, data, kind, headers) as response:
            text = await response.read()
            if response.status >= 400 and not _reports(response, text):
                raise refusal(response, text, self.token)
            return _object(text, self.url)

    async def upload(self, path: str, params: Params, chunks: AsyncIterable[bytes], kind: str) -> Json:
        """Send a long body in pieces; the JSON answer. Failed when the server says no."""
        async with self._request("POST", path, params, chunks, kind) as response:
            text = await response.read()
            if response.status >= 400 and not _reports(response, text):
                raise refusal(response, text, self.token)
            return _object(text, self.url)

    @asynccontextmanager
    async def stream(self, path: str, params: Params = ()) -> AsyncIterator[AsyncIterator[bytes]]:
        """A long answer in pieces."""
        async with self._request("GET", path, params, None, "application/json") as response:
            if response.status >= 400:
                raise refusal(response, await response.read(), self.token)
            yield response.content.iter_chunked(1 << 16)

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        params: Params,
        data: bytes | AsyncIterable[bytes] | None,
        kind: str,
        more: Mapping[str, str] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        assert self._session is not None, "use `async with Server(...)`"
        headers = {**({} if data is None else {"Content-Type": kind}), **(more or {})}
        try:
            async with self._session.request(
                method, self.url + path, params=list(params), data=data, headers=headers
            ) as response:
                self.reached = True
                yield response
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise Unreachable(self.url, error) from None


def _reports(response: aiohttp.ClientResponse, text: bytes) -> bool:
    """Is it the report of rows that were all refused?"""
    return response.status == 422 and b'"rejected"' in text


def part(text: str) -> str:
    """A text as one part of a path."""
    return quote(text, safe="")


def refusal(response: aiohttp.ClientResponse, text: bytes, token: str | None) -> Failed:
    """What the server said no with, and what to do about it."""
    error = _error(text)
    message = f"{error.get('message') or response.reason} ({error.get('code') or response.status})"
    if error.get("field"):
        message += f" [{error['field']}]"
    if response.status == 401 and token is None:
        message += "; give a token with --token or BATCHCAST_TOKEN, or run this where the server's DATA_DIR is"
    after = response.headers.get("Retry-After", "")
    wait_s = float(after) if after.isdecimal() else 1.0 if response.status in (429, 503) else None
    return Failed(message, retry_after_s=wait_s, status=response.status)


def stop(text: str, exit_code: int = UNUSABLE) -> NoReturn:
    """End the command with this sentence."""
    raise Failed(text, exit_code)


def _error(text: bytes) -> Json:
    try:
        error = orjson.loads(text)["error"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return {}
    return error if isinstance(error, dict) else {}


def _object(text: bytes, url: str) -> Json:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise Failed(f"{url} did not answer with JSON; is it a batchcast server?", UNUSABLE) from None
    return value if isinstance(value, dict) else {"value": value}
