"""Many connections at once: what each costs, that a flush reaches all, and that storms of them leave nothing behind."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from websockets.asyncio.client import connect

from tests.handlers.asking import until as until_true
from tests.serving import BERLIN, Live, Process, Start, Talk, event, process, spread, until

CROWD = int(os.environ.get("CROWD", "1000"))
FIRST = 100
"""Connections that warm everything up before anything is measured."""
AT_ONCE = 50
BYTES_EACH_AT_MOST = 64 * 1024


@pytest_asyncio.fixture
async def server(dsn: str) -> AsyncIterator[Process]:
    """A process over this test's database: its memory is its own."""
    with process(DATABASE_URL=dsn) as made:
        await made.start()
        yield made


def resident_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))


async def crowd(url: str, count: int) -> list[Talk]:
    """So many registered viewers, a few coming at a time."""
    talks: list[Talk] = []
    while len(talks) < count:
        talks += await asyncio.gather(*(one_of_them(url) for _ in range(min(AT_ONCE, count - len(talks)))))
    return talks


async def one_of_them(url: str) -> Talk:
    talk = Talk(await connect(url, compression=None, ping_interval=None, close_timeout=1))
    await talk.ask("register", viewport=BERLIN)
    await talk.get("replace-all")
    return talk


async def test_an_idle_connection_costs_little_and_a_flush_reaches_all(server: Process) -> None:
    await server.ask("POST", "/events", spread(3))
    talks = await crowd(server.ws_url, FIRST)
    before = resident_bytes(server.pid)
    talks += await crowd(server.ws_url, CROWD)
    each = (resident_bytes(server.pid) - before) / CROWD
    print(f"{CROWD} idle connections cost {each / 1024:.1f} KiB each")
    assert each < BYTES_EACH_AT_MOST
    assert [await server.gauge(name) for name in ("connections", "viewers")] == [FIRST + CROWD] * 2
    await server.ask("POST", "/popularity", [{"eventId": "e1", "scanCount": 5}])
    turn = (await server.ask("POST", "/force-batch")).json["turn"]
    assert (turn["done"], turn["failed"], turn["deferred"]) == (1, 0, 0)
    for talk in talks:
        batch = await talk.get("batch-update")
        assert "e1" in [one["id"] for one in batch["updates"]["updates"]]
    for talk in talks:
        talk.socket.transport.abort()
    await until_true(lambda: gone(server))


async def gone(server: Process) -> bool:
    return [await server.gauge(name) for name in ("connections", "viewers")] == [0, 0]


async def test_storms_of_connections_leave_no_member_viewer_or_task(start: Start) -> None:
    place = await start(IMMEDIATE_GROUP_MS=0)
    await place.put(event("a"))
    tasks = len(place.app.tasks)
    for wave in range(4):
        leaving = [leave(place, way) for way in range(25 * 4)]
        changing = [place.put({"id": "a", "title": f"wave {wave}.{n}"}) for n in range(10)]
        await asyncio.gather(*leaving, *changing, place.force())
    await until(lambda: (len(place.app.hub), len(place.app.feed.desk.audience)) == (0, 0), "nobody is there")
    await until(lambda: len(place.app.tasks) == tasks, "no task is left")
    assert (place.app.tasks.died, place.app.hub._by_key, place.app.hub._topics.get("loops", {})) == ({}, {}, {})
    talk = await place.watching()
    assert talk.view.events["a"]["title"].startswith("wave 3")


async def leave(place: Live, way: int) -> None:
    """Come, and go in one of four ways."""
    if way % 4 == 0:
        await break_off_the_handshake(place)
        return
    headers = {"Authorization": f"Bearer {place.token('admin', f'user {way}')}"}
    socket = await connect(place.app.ws_url, compression=None, close_timeout=1, additional_headers=headers)
    if way % 4 == 1:
        await socket.send('{"type":"subscribe","topic":"loops"}')
        await socket.close()
        return
    await socket.send('{"type":"register","viewport":{"west":13,"south":52,"east":14,"north":53}}')
    if way % 4 == 2:
        await socket.recv()
    socket.transport.abort()


async def break_off_the_handshake(place: Live) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", place.ws_port)
    writer.write(b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n")
    await writer.drain()
    writer.close()
