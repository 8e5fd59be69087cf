"""Wire: the client and the example program against a real server, also over its restart."""

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from server.client import Client, Refusal
from tests.pages.site import Site, sample_events

ROOT = Path(__file__).resolve().parents[2]
BAY = (-123.0, 37.0, -122.0, 38.0)
LIMIT_S = 60


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    site = Site()
    try:
        site.start()
        yield site
    finally:
        site.remove()


@pytest.fixture
def ws(site: Site) -> str:
    site.call("POST", "/events", sample_events())
    return f"ws://127.0.0.1:{site.ws_port}/ws"


def elsewhere(name: str, title: str) -> dict[str, Any]:
    """One more event, where no other is: of two side by side only the better is shown."""
    place = {"latitude": 37.3, "longitude": -122.1 - len(name) / 50}
    return {**sample_events()[0], "id": name, "title": title, "location": place}


async def call(site: Site, method: str, path: str, body: object = None) -> Any:
    return await asyncio.to_thread(site.call, method, path, body)


async def test_what_a_client_holds_is_what_the_server_says(site: Site, ws: str) -> None:
    async with Client(ws, viewport=BAY) as client:
        assert len(client.events) > 5
        await call(site, "POST", "/events", elsewhere("extra", "Extra"))
        while "extra" not in client.events:
            assert (await client.next_change(LIMIT_S)).matches
        await call(site, "POST", "/popularity", {"eventId": "extra", "rsvpCount": 3})
        while client.events["extra"]["rsvpCount"] != 3:
            assert (await client.next_change(LIMIT_S)).matches
        await call(site, "DELETE", "/events/extra")
        while "extra" in client.events:
            assert (await client.next_change(LIMIT_S)).matches
        assert client.divergences == 0


async def test_a_pan_is_a_difference_and_a_resync_finds_nothing_to_do(ws: str) -> None:
    async with Client(ws, viewport=BAY) as client:
        assert "berlin" not in client.events
        await client.set_viewport((13.0, 52.0, 14.0, 53.0))
        assert set(client.events) == {"berlin"}
        answer = await client.resync()
        assert answer["type"] in ("changes", "replace-all")
        await client.set_filters([{"categories": {"include": ["music"]}}])
        assert client.events == {}
        with pytest.raises(Refusal, match="bad_viewport"):
            await client.set_viewport((0, 10, 1, -10))
        assert client.divergences == 0


async def test_a_damaged_view_is_mended(site: Site, ws: str) -> None:
    async with Client(ws, viewport=BAY) as client:
        whole = dict(client.events)
        client.view._put("jazz", None)
        client.view._put("yoga", {**whole["yoga"], "version": 1})
        await call(site, "POST", "/events", {**sample_events()[1], "title": "Open mic, later"})
        while not (await client.next_change(LIMIT_S)).matches or client.divergences == 0:
            pass
        assert set(client.events) == set(whole)
        assert client.events["yoga"]["version"] == whole["yoga"]["version"]


async def test_a_client_comes_back_after_a_restart_and_sees_what_it_missed(site: Site, ws: str) -> None:
    async with Client(ws, viewport=BAY) as client:
        await asyncio.to_thread(site.stop)
        await asyncio.to_thread(site.start)
        await call(site, "POST", "/events", elsewhere("missed", "Missed"))
        while "missed" not in client.events:
            await client.next_change(LIMIT_S)
        assert client.connections == 2
        assert client.divergences == 0


async def test_the_example_program_prints_the_view_and_its_changes(site: Site, ws: str) -> None:
    program = str(ROOT / "client-examples" / "python_client.py")
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    bay = ",".join(map(str, BAY))
    process = await asyncio.create_subprocess_exec(
        sys.executable, program, ws, bay, stdout=asyncio.subprocess.PIPE, env=environ
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(LIMIT_S):
            assert b"events in view" in await process.stdout.readline()
            await call(site, "POST", "/events", elsewhere("shown", "Shown at once"))
            while b"Shown at once" not in await process.stdout.readline():
                pass
    finally:
        process.kill()
        await process.wait()
