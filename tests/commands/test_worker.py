"""`batchcast worker`: real processes beside a server that only serves, stopped and killed while they work."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
import pytest_asyncio

from tests.doubles.members import GOOD, Act, Members, Script
from tests.handlers.asking import SECRET
from tests.serving import ROOT, Live, Message, Process, Start, own_process, place, start, until

__all__ = ["own_process", "place", "start"]

KEY = "a key that seals what must stay secret"
MEMBERS = 930
PAGES = 10


@dataclass
class Hand:
    """A worker process."""

    folder: Path
    environ: dict[str, str]
    arguments: tuple[str, ...] = ()
    popen: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self) -> None:
        env = {name: value for name in ("PATH", "HOME", "LANG") if (value := os.environ.get(name))}
        env |= {"LOG_FORMAT": "json", "PYTHONPATH": str(ROOT), "JWT_SECRET": SECRET, **self.environ}
        with self.path.open("ab") as log:
            command = [sys.executable, "-m", "server", "worker", *self.arguments]
            self.popen = subprocess.Popen(command, env=env, cwd=self.folder, stdout=log, stderr=log)

    @property
    def path(self) -> Path:
        return self.folder / f"worker-{id(self)}.log"

    def log(self) -> list[Message]:
        lines = self.path.read_bytes().splitlines()
        return [orjson.loads(line) for line in lines if line.startswith(b"{") and line.endswith(b"}")]

    async def said(self, what: str) -> Message:
        """Its line about that event, waited for."""
        await until(lambda: self.over or any(line["event"] == what for line in self.log()), what)
        return next(line for line in self.log() if line["event"] == what)

    @property
    def over(self) -> bool:
        assert self.popen is not None
        return self.popen.poll() is not None

    async def end(self, number: signal.Signals) -> int:
        """Send a signal and wait for the end; the exit code."""
        assert self.popen is not None
        self.popen.send_signal(number)
        await until(lambda: self.over, "the worker has ended")
        return int(self.popen.returncode)


Hire = Callable[..., Hand]


@pytest.fixture
def hire(tmp_path: Path) -> Iterator[Hire]:
    """Starts workers; none of them outlives the test."""
    hands: list[Hand] = []

    def begin(*arguments: str, **environ: object) -> Hand:
        hand = Hand(tmp_path, {name: str(value) for name, value in environ.items()}, arguments)
        hands.append(hand)
        hand.start()
        return hand

    yield begin
    for hand in hands:
        if not hand.over:
            assert hand.popen is not None
            hand.popen.kill()
            hand.popen.wait(10)


@pytest_asyncio.fixture
async def double() -> AsyncIterator[Members]:
    """A provider that takes a moment for each page."""
    async with Members(members=MEMBERS, delay_s=0.05) as members:
        yield members


def environ(double: Members, **more: object) -> dict[str, object]:
    given = {"IMPORTS_KEY": KEY, "IMPORTS_PROVIDER_URL": double.url, "IMPORTS_LEASE_MS": 2000}
    return {**given, "IMPORTS_CALLS_PER_S": 1000, "IMPORTS_CALLS_BURST": 1000, **more}


async def serving(start: Start, double: Members) -> tuple[Live, int]:
    """A server without lanes, and a job that waits."""
    place = await start(**environ(double, IMPORTS_LANES=0))
    await place.ask("POST", "/credentials", json={"account": "biz_demo", "value": GOOD})
    answer = await place.ask("POST", "/imports", json={"listName": "L", "account": "biz_demo"})
    return place, int(answer.json["job"]["id"])


async def job_when(place: Live, job: int, true: Callable[[Message], bool]) -> Message:
    """The job, once that holds of it."""
    async with asyncio.timeout(60):
        while not true(seen := (await place.ask("GET", f"/imports/{job}")).json):
            await asyncio.sleep(0.02)  # what is waited for is in another process
    return dict(seen)


async def numbers_of(session: aiohttp.ClientSession, port: int) -> str:
    return await (await session.get(f"http://127.0.0.1:{port}/metrics")).text()


async def workers(place: Live) -> dict[str, int]:
    """How many workers there are, by status."""
    rows: list[Message] = (await place.ask("GET", "/imports/status")).json["workers"]
    return {status: sum(row["status"] == status for row in rows) for status in {row["status"] for row in rows}}


async def complete(place: Live, job: int) -> None:
    """It ends with every contact once."""
    seen = await job_when(place, job, lambda one: one["status"] in ("completed", "failed"))
    assert (seen["status"], seen["seen"], seen["pages"], seen["retryCount"]) == ("completed", MEMBERS, PAGES, 0), seen
    rows: list[Any] = []
    after: str | None = ""
    while after is not None:
        params = {"after": after, "limit": 1000}
        page = (await place.ask("GET", f"/audiences/{seen['listId']}/contacts", params=params)).json
        rows, after = rows + page["contacts"], page["next"]
    assert len(rows) == len({row["email"] for row in rows}) == seen["imported"]


async def test_told_to_stop_it_stores_the_page_under_way_and_hands_the_rest_back(
    start: Start, double: Members, hire: Hire, dsn: str
) -> None:
    place, job = await serving(start, double)
    assert (await job_when(place, job, lambda one: True))["status"] == "pending"
    first = hire("--lanes", "2", **environ(double, DATABASE_URL=dsn))
    assert (await first.said("worker started"))["lanes"] == 2
    await job_when(place, job, lambda one: one["pages"] >= 2)
    assert await first.end(signal.SIGTERM) == 0
    left = await job_when(place, job, lambda one: True)
    assert (left["status"], left["retryCount"], left["error"]) == ("pending", 0, None)
    assert 2 <= left["pages"] < PAGES and left["seen"] == 100 * left["pages"]
    assert await workers(place) == {"stopped": 1}
    hire(**environ(double, DATABASE_URL=dsn))
    await complete(place, job)
    assert [line["event"] for line in first.log()][-2:] == ["worker stopping", "worker stopped"]


async def test_killed_it_loses_and_doubles_nothing(start: Start, double: Members, hire: Hire, dsn: str) -> None:
    place, job = await serving(start, double)
    first = hire(**environ(double, DATABASE_URL=dsn))
    await job_when(place, job, lambda one: one["pages"] >= 3)
    await first.end(signal.SIGKILL)
    hire(**environ(double, DATABASE_URL=dsn))
    await complete(place, job)
    assert await workers(place) == {"dead": 1, "active": 1}


async def test_a_page_that_does_not_come_is_given_up_when_the_time_to_stop_is_over(
    start: Start, double: Members, hire: Hire, dsn: str
) -> None:
    place, job = await serving(start, double)
    double.script = Script(always=Act(delay_s=600))
    hand = hire("--metrics-port", "0", **environ(double, DATABASE_URL=dsn, SHUTDOWN_TIMEOUT_MS=200))
    port = (await hand.said("worker started"))["metrics_port"]
    async with asyncio.timeout(60):
        while 'batchcast_imports_provider_calls_total{credential="1"} 1.0' not in await numbers_of(place.client, port):
            await asyncio.sleep(0.02)
    assert await hand.end(signal.SIGTERM) == 0
    left = await job_when(place, job, lambda one: True)
    assert (left["status"], left["retryCount"], left["pages"]) == ("pending", 0, 0)
    assert (await hand.said("import page given up"))["level"] == "warning"


async def test_beside_a_server_it_works_on_the_servers_own_postgresql(
    own_process: Process, double: Members, hire: Hire
) -> None:
    server = own_process
    server.environ |= {name: str(value) for name, value in environ(double, IMPORTS_LANES=0).items()}
    await server.start()
    headers = {"Authorization": f"Bearer {server.token('admin')}"}
    async with aiohttp.ClientSession(server.http_url, headers=headers) as session:
        await session.post("/credentials", json={"account": "biz_demo", "value": GOOD})
        await session.post("/imports", json={"listName": "L", "account": "biz_demo"})
        hand = hire("--metrics-port", "0", **environ(double, DATA_DIR=server.data_dir))
        port = (await hand.said("worker started"))["metrics_port"]
        async with asyncio.timeout(60):
            while (await (await session.get("/imports/1")).json())["status"] != "completed":
                await asyncio.sleep(0.05)
        numbers = await numbers_of(session, port)
        assert (await session.get(f"http://127.0.0.1:{port}/healthz")).status == 200
        assert f'batchcast_imports_provider_pages_total{{credential="1"}} {float(PAGES)}' in numbers
        # What the worker asked of the provider is told where people look.
        async with asyncio.timeout(60):
            while not (await (await session.get("/imports/status")).json())["credentials"]:
                await asyncio.sleep(0.05)
    assert await hand.end(signal.SIGINT) == 0


async def test_without_a_database_it_does_not_start_and_says_what_to_do(hire: Hire, tmp_path: Path) -> None:
    hand = hire(DATA_DIR=tmp_path / "nothing")
    await until(lambda: hand.over)
    assert hand.popen is not None and hand.popen.returncode == 2
    (line,) = [line for line in hand.log() if line["event"] == "start refused"]
    assert "batchcast serve" in line["reason"] and "DATABASE_URL" in line["reason"]


async def test_it_outlives_its_servers_restart_and_stops_also_while_the_database_is_away(
    own_process: Process, double: Members, hire: Hire
) -> None:
    server = own_process
    server.environ |= {name: str(value) for name, value in environ(double, IMPORTS_LANES=0).items()}
    await server.start()
    hand = hire(**environ(double, DATA_DIR=server.data_dir, SHUTDOWN_TIMEOUT_MS=1000))
    await hand.said("worker registered")
    await server.kill()
    await server.start()
    async with aiohttp.ClientSession(
        server.http_url, headers={"Authorization": f"Bearer {server.token('admin')}"}
    ) as session:
        await session.post("/credentials", json={"account": "biz_demo", "value": GOOD})
        await session.post("/imports", json={"listName": "L", "account": "biz_demo"})
        async with asyncio.timeout(60):
            while (await (await session.get("/imports/1")).json())["status"] != "completed":
                await asyncio.sleep(0.05)
    server.signal(signal.SIGTERM)
    assert await server.ended() == 0
    assert await hand.end(signal.SIGTERM) == 0
