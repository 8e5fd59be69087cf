"""A thousand clients cut at the same moment, again and again: nothing of them stays, in no gauge and not in memory.

CROWD sets how many; QUEUE_SOAK=1 (`make soak`) makes it often. Two servers are looked at: one in this process, whose objects can
be counted; one in its own, whose memory can.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Final

import orjson
import pytest_asyncio

from tests.adversity.population import at_rest, nobody_is_there
from tests.adversity.test_crowd import resident_bytes
from tests.handlers.pipe import TEXT, frame
from tests.serving import BERLIN, Live, Process, Start, process, spread, until
from tests.ways import AT_ONCE
from tests.wire.raw import Raw

CROWD: Final = int(os.environ.get("CROWD", "1000"))
FEW: Final = 200
TOGETHER: Final = 50
CYCLES: Final = 20 if os.environ.get("QUEUE_SOAK") else 3
WARM: Final = 2
"""Cycles after which a process is as large as it needs to be."""
GROWTH_MOST: Final = 3 << 20
"""Bytes by which the memory of a process may differ after CYCLES more: 1 KiB a client; one idle connection costs six times that."""
BIG: Final = {"description": "x" * 4000}
EVENTS: Final = 150
DEAF: Final = 20
"""Every so manyth client reads nothing: half a megabyte waits for it in the kernels and in the server."""


async def one_of_them(port: int, number: int) -> Raw:
    """A registered viewer, with the beginning of its snapshot; a deaf one asks for more than the kernels hold."""
    raw = await Raw.open(port)
    limit = 500 if number % DEAF == 0 else 5
    raw.say(frame(TEXT, orjson.dumps({"type": "register", "viewport": BERLIN, "maxEvents": limit})))
    if number % DEAF == 0:
        raw.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's transport can
    else:
        assert [(await raw.message())["type"] for _ in range(2)] == ["registered", "replace-all"]
    return raw


async def come(port: int, count: int) -> list[Raw]:
    crowd: list[Raw] = []
    while len(crowd) < count:
        some = range(len(crowd), min(count, len(crowd) + TOGETHER))
        crowd += await asyncio.gather(*(one_of_them(port, number) for number in some))
    return crowd


def cut(crowd: list[Raw]) -> None:
    """All of them, by a RST each."""
    for raw in crowd:
        raw.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
        raw.leave()


# --- in a process of its own ---


@pytest_asyncio.fixture
async def server(dsn: str) -> AsyncIterator[Process]:
    with process(DATABASE_URL=dsn, SPACING_KM=0, RESUME_SESSIONS=CROWD) as made:  # As many as a cycle has.
        await made.start()
        yield made


async def cycle(server: Process) -> None:
    """They come, a flush has begun to tell them, and all are gone."""
    crowd = await come(int(server.ports["WS_PORT"]), CROWD)
    assert [await server.gauge(name) for name in ("connections", "viewers")] == [CROWD] * 2
    await server.ask("POST", "/popularity", [{"eventId": f"e{n}", "scanCount": n} for n in range(EVENTS)])
    flushing = asyncio.ensure_future(server.ask("POST", "/force-batch"))
    changing = asyncio.ensure_future(server.ask("POST", "/events", [{"id": "e1", "title": "Changed"}]))
    await asyncio.sleep(0)
    cut(crowd)
    assert [(await flushing).status, (await changing).status] == [200, 200]
    await nobody_is_there(server)


async def test_a_thousand_cut_at_once_leave_every_gauge_at_zero_and_memory_where_it_was(server: Process) -> None:
    await server.ask("POST", "/events", spread(EVENTS, **BIG))
    await at_rest(server)
    tasks = await server.gauge("tasks")
    sizes = []
    for _ in range(WARM + CYCLES):
        await cycle(server)
        sizes.append(resident_bytes(server.pid))
    print("MiB after each cycle:", *(round(size / (1 << 20), 1) for size in sizes))
    assert sizes[-1] - sizes[WARM - 1] < GROWTH_MOST, sizes
    assert await server.gauge("tasks") == tasks
    errors = [line for line in server.log() if line.get("level") == "error"]
    assert not errors


# --- in this process ---


def ours() -> Counter[str]:
    """How many objects there are of each class of the server's."""
    gc.collect()
    names = (f"{type(thing).__module__}.{type(thing).__qualname__}" for thing in gc.get_objects())
    return Counter(name for name in names if name.startswith("server."))


async def test_no_object_of_a_connection_outlives_it(start: Start) -> None:
    place = await start(SPACING_KM=0, RESUME_SESSIONS=20)  # What is remembered is full before the count begins.
    await place.put(*spread(EVENTS, **BIG))
    await in_and_out(place)
    before = ours()
    for _ in range(CYCLES):
        await in_and_out(place)
    more = {kind: (count, before[kind]) for kind, count in ours().items() if count - before[kind] >= FEW * CYCLES // 3}
    assert not more, "one a client of a cycle would be three times as many; histories fill up to their bounds"
    gone = ("Peer", "Wire", "Connection", "Viewer", "Session")
    assert not {kind: n for kind, n in ours().items() if kind.endswith(gone) and kind.rpartition(".")[2] in gone}


async def in_and_out(place: Live) -> None:
    crowd = await come(place.ws_port, FEW)
    await place.count("e1", delta={"scanCount": 1})
    forcing = asyncio.ensure_future(place.force())
    await until(running(place), "the flush has begun")
    cut(crowd)
    crowd.clear()
    await forcing
    await until(lambda: (len(place.app.hub), len(place.app.feed.desk.audience)) == (0, 0), "nobody is there")
    await place.still()


def running(place: Live) -> Callable[[], bool]:
    flushes = place.app.feed.statistics
    before = flushes.batches
    return lambda: place.app.panel.loop("scores").running or flushes.batches > before
