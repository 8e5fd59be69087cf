"""The disk under PostgreSQL is full while producers write: reads are served, writes refused in words, and nothing acknowledged is lost.

All of DATA_DIR lies on a small tmpfs, so that tables, the write-ahead log and our own log run out of room together.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from server.client import Client
from tests.adversity.population import MILD, Population, at_rest, in_memory_process
from tests.serving import WORLD, Process

ROOM: Final = 256 << 20
WATCHERS: Final = 12
PIECE: Final = 1 << 20
ROWS: Final = 20
ATTEMPTS_MOST: Final = 2_000


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    options = f"size={ROOM},mode=711"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Process]:
    with in_memory_process(**MILD) as made, small_disk(made.data_dir):
        await made.start()
        yield made
        await made.kill()


def fill(folder: Path) -> Path:
    """A file that takes all the room that is left."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (PIECE, 4096, 1):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError:
                continue
    return ballast


async def until_refused(server: Process) -> str:
    """Write what needs new pages until there are none: why it was refused."""
    rng = random.Random(0)
    for number in range(ATTEMPTS_MOST):
        filler = {"text": rng.randbytes(3_000).hex()}
        rows = [{"id": f"fill-{number}-{n}", "location": [0, 0], "start": 0, "properties": filler} for n in range(ROWS)]
        answer = await server.ask("POST", "/events", rows)
        if answer.status == 503:
            assert int(answer.headers["Retry-After"]) > 0
            error = answer.json["error"]
            assert error["code"] == "unavailable"
            return str(error["message"])
        assert answer.status == 200, answer.body
    raise AssertionError("the disk is never full")


async def test_on_a_full_disk_reads_are_served_writes_refused_and_all_converge_when_there_is_room(
    server: Process,
) -> None:
    async with Population(server, seed=2, count=WATCHERS) as people:
        people.begin()
        await people.more_acknowledged(10)
        ballast = await asyncio.to_thread(fill, server.data_dir)
        said = await until_refused(server)
        assert "the disk of the database is full" in said or "cannot be reached" in said
        async with Client(server.ws_url, viewport=tuple(WORLD.values()), max_events=500) as late:
            assert late.events
        assert (await server.ask("GET", "/stats")).status == 200
        assert (await server.ask("GET", "/healthz")).status == 200
        ballast.unlink()
        await people.more_acknowledged(10)
        await empty_again(server)
        await people.converge()
        await at_rest(server)


async def empty_again(server: Process) -> None:
    """What was written to fill the disk goes: nobody expects it."""
    while ids := [one["id"] for one in (await server.ask("GET", "/events?limit=1000&bbox=-1,-1,1,1")).json["events"]]:
        for event_id in ids:
            await server.ask("DELETE", f"/events/{event_id}")
