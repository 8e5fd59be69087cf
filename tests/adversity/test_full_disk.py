"""A file of members that the disk has no room for: refused in words, nothing of it stays, and the server goes on.

The disk is a small tmpfs where this account may mount one. Everywhere else, and there too, the kernel limits the size of the files
that the server writes, which looks the same from inside: a write takes a part, and the next one says why it takes no more.
"""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from server.batching.imports.files import FOLDER_ID
from tests.conftest import short_folder
from tests.handlers.asking import Answer
from tests.handlers.asking import until as until_true
from tests.serving import Process, process

ROOM = 1 << 20
CHUNK = b"".join(b"member%d@example.test,Somebody With A Name\n" % n for n in range(1_500))
HEAD = b"email,name\n"


@pytest.fixture
def folder() -> Iterator[Path]:
    place = short_folder()
    yield place
    shutil.rmtree(place, ignore_errors=True)


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(folder)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest_asyncio.fixture(params=["a full disk", "a limit of the kernel"])
async def server(request: pytest.FixtureRequest, dsn: str, folder: Path) -> AsyncIterator[Process]:
    """A server whose folder of files takes ROOM bytes."""
    with process(DATABASE_URL=dsn, IMPORTS_FOLDER=str(folder), IMPORTS_LANES="1") as made:
        if request.param == "a full disk":
            with small_disk(folder):
                await made.start()
                yield made
                await made.kill()
        else:
            await made.start()
            resource.prlimit(made.pid, resource.RLIMIT_FSIZE, (ROOM, ROOM))
            yield made


async def upload(server: Process, chunks: int, name: str) -> Answer:
    """A file of so many chunks, sent piece by piece."""

    async def pieces() -> AsyncIterator[bytes]:
        yield HEAD
        for _ in range(chunks):
            yield CHUNK

    headers = {"Authorization": f"Bearer {server.token('viewer', 'ada')}", "Content-Type": "text/csv"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{server.http_url}/imports?listName={name}", data=pieces(), headers=headers) as response,
    ):
        return Answer(response.status, response.headers, await response.read())


def kept(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name != FOLDER_ID]


async def test_a_file_without_room_is_refused_in_words_and_nothing_of_it_stays(server: Process, folder: Path) -> None:
    answers = await asyncio.gather(*(upload(server, 40, f"big{n}") for n in range(3)))
    for answer in answers:
        said = answer.json["error"]
        assert (answer.status, said["code"]) == (503, "unavailable")
        assert "IMPORTS_FOLDER has no room" in said["message"]
        assert answer.headers["Retry-After"] == "60"
    assert kept(folder) == []
    for path, name in (("/imports", "jobs"), ("/audiences", "audiences")):
        assert (await server.ask("GET", path)).json[name] == []

    small = await upload(server, 1, "small")
    assert small.status == 200, small.body
    number = small.json["job"]["id"]

    async def completed() -> bool:
        return bool((await server.ask("GET", f"/imports/{number}")).json["status"] == "completed")

    await until_true(completed)
    assert (await server.ask("GET", "/readyz")).status == 200
    assert not [line for line in server.log() if line.get("level") == "error"]
