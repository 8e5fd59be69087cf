"""Whole servers, on ports of their own, over a database of their own."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from server.settings import load
from tests.conftest import named, numbers, run_apart, tell
from tests.handlers.asking import SECRET, Serving, Start, started


@asynccontextmanager
async def served(dsn: str, folder: Path, **chosen: Any) -> AsyncIterator[Serving]:
    """A server with these settings, until the end."""
    given = {"jwt_secret": SECRET, "http_port": 0, "ws_port": 0, "shutdown_timeout_ms": 1000, **chosen}
    settings = load({}, data_dir=folder / "data", database_url=dsn, **given)
    async with started(settings) as app, aiohttp.ClientSession() as client:
        yield Serving(app, client)


@pytest_asyncio.fixture
async def start(dsn: str, tmp_path: Path) -> AsyncIterator[Start]:
    """Starts a server from settings; all are taken down after the test."""
    async with AsyncExitStack() as stack:

        async def begin(**chosen: Any) -> Serving:
            return await stack.enter_async_context(served(dsn, tmp_path, **chosen))

        yield begin


@pytest_asyncio.fixture
async def serving(start: Start) -> Serving:
    """A server on loopback with default settings, for one test."""
    return await start()


@pytest.fixture(scope="module")
def shared_dsn(cluster: str, template: str) -> Iterator[str]:
    """A database for the tests of one file that leave nothing behind."""
    name = f"shared_{next(numbers)}"
    run_apart(tell(cluster, f"create database {name} template {template}"))
    yield named(cluster, name)
    run_apart(tell(cluster, f"drop database if exists {name} with (force)"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(shared_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serving]:
    """A server for the tests of one file that change nothing (run in the file's own event loop)."""
    async with served(shared_dsn, tmp_path_factory.mktemp("shared")) as serving:
        yield serving


@pytest.fixture
def berlin() -> dict[str, Any]:
    """An event as a client sends it."""
    return {
        "id": "berlin",
        "title": "Concert",
        "emoji": "🎵",
        "categories": ["music"],
        "location": {"latitude": 52.5, "longitude": 13.4},
        "start": "2030-05-01T18:00:00Z",
    }
