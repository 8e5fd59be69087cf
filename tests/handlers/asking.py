"""A running server as a client sees it, and what tests of the HTTP API say again and again."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson
from multidict import CIMultiDictProxy

from server.app import App
from server.edge.secrets import mint
from server.settings import Settings

SECRET = "a secret of the tests, long enough to be taken"
NDJSON = {"Content-Type": "application/x-ndjson"}


@asynccontextmanager
async def started(settings: Settings) -> AsyncIterator[App]:
    """A server with these settings, until the end."""
    app = App(settings)
    await app.start()
    try:
        yield app
    finally:
        await app.stop()


@dataclass
class Answer:
    """One answer."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


@dataclass
class Serving:
    """A running server and a client to ask it with."""

    app: App
    client: aiohttp.ClientSession

    def url(self, path: str) -> str:
        return self.app.http_url + path

    @property
    def ws_port(self) -> int:
        return int(self.app.ws_url.rpartition(":")[2].removesuffix("/ws"))

    def headers(self, role: str | None, sub: str | None = None) -> dict[str, str]:
        if role is None:
            return {}
        token = mint(self.app.settings, sub=sub or f"a {role}", roles=[role])
        return {"Authorization": f"Bearer {token}"}

    async def ask(
        self, method: str, path: str, role: str | None = "admin", *, sub: str | None = None, **options: Any
    ) -> Answer:
        """One request with a token of that role (None: without)."""
        headers = {**self.headers(role, sub), **options.pop("headers", {})}
        async with self.client.request(method, self.url(path), headers=headers, **options) as response:
            return Answer(response.status, response.headers, await response.read())


Start = Callable[..., Awaitable[Serving]]


def error(answer: Answer) -> tuple[int, str, str | None]:
    """Status, code and field of an error; its shape is checked."""
    assert set(answer.json) >= {"error"}, answer.body
    said = answer.json["error"]
    assert set(said) <= {"code", "message", "field", "limit"}
    assert said["message"]
    return answer.status, said["code"], said.get("field")


def lines(rows: list[Any]) -> bytes:
    """As NDJSON."""
    return b"".join(orjson.dumps(row) + b"\n" for row in rows)


def many(count: int, event: dict[str, Any], prefix: str = "e") -> list[dict[str, Any]]:
    """The same event under many ids."""
    return [{**event, "id": f"{prefix}{n}"} for n in range(count)]


async def ids(serving: Serving) -> set[str]:
    """The ids of all events (of the first thousand)."""
    answer = await serving.ask("GET", "/events?limit=1000")
    return {event["id"] for event in answer.json["events"]}


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    """Ask again and again until it holds."""
    async with asyncio.timeout(30):
        while not await true():  # what is waited for is on the other side of a socket
            await asyncio.sleep(0.01)
