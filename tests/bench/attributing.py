"""Datasets read while webhooks come in, as a user sees it: a real server, a provider on loopback, and a sender of webhooks.

    with provider_on_loopback() as url, Attributing(url, datasets=100) as one:
        one.start()                          all runs are started and have ended; nobody has told the server yet
        harvest = one.read()                 it is told of the large ones; meanwhile webhooks of small ones come in, one by one

`python -m tests.bench.attributing` is that provider: the double of tests/doubles, whose datasets are made up as they are read.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import asyncpg
import orjson

from server.batching.schedules import hooks
from server.batching.schedules.plan import Platform, Type
from server.edge.apify import EVENTS
from server.edge.attached import attached
from tests.bench.processes import Cpu
from tests.bench.scheduling import KINDS, item
from tests.bench.served import LIMIT_S, ROOT, Server
from tests.doubles.apify import Apify, Sending
from tests.doubles.apify.http import TOKEN

SECRET: Final = "a secret of the benches' webhooks"
EACH: Final = 100
"""Reviews of a place; of a Facebook page there are a few."""
FEW: Final = 5
PLACES: Final = 50
"""In a large dataset."""
SMALL: Final = 500
RATE: Final = 20
"""Webhooks a second."""
LOOK_S: Final = 0.25
OPEN: Final = "select count(*) from schedules.provider_run where kind = 'triggered' and state <> 'running' and processed_at is null"
STARTED: Final = "select count(*) from schedules.provider_run where kind = 'triggered' and state = 'running'"
RUNS: Final = """
select platform::text, provider_run_id from schedules.provider_run where kind = 'triggered' order by id"""
DONE: Final = """
select sum(items), sum(attributed), sum(missing), count(*),
    extract(epoch from max(processed_at) - (select min(received_at) from schedules.webhook_delivery))::float8
from schedules.provider_run where kind = 'triggered' and platform = 'google' and processed_at is not null"""
SCHEDULES: Final = (
    "select id from schedules.schedule where type = 'reviews' and businesses > 0 order by platform desc, id"
)


class Items(list[dict[str, object]]):
    """Items that are made when somebody reads them. The double cuts them at their end's share (no start) and in pages."""

    def __init__(self, platform: Platform, type: Type, places: Sequence[str], each: int) -> None:
        super().__init__()
        self._of = (platform, type)
        self._places, self._each = places, each

    def __len__(self) -> int:
        return len(self._places) * self._each

    def __getitem__(self, part: Any) -> Any:
        if part.start is None:
            return self
        numbers = range(*part.indices(len(self)))
        return [item(*self._of, self._places[n // self._each], f"{self._places[n // self._each]}-{n}") for n in numbers]


def actors() -> dict[str, Callable[[Mapping[str, Any]], Items]]:
    """For the double: each place has as many reviews as its platform's places have here."""

    def made(platform: Platform, type: Type) -> Callable[[Mapping[str, Any]], Items]:
        def produce(run_input: Mapping[str, Any]) -> Items:
            places = run_input.get("placeIds") or [one["url"] for one in run_input.get("startUrls", ())]
            return Items(platform, type, places, 1 if type == "overview" else EACH if platform == "google" else FEW)

        return produce

    return {name: made(*kind) for name, kind in KINDS.items()}


async def serve() -> None:
    """The double, until somebody ends it."""
    double = Apify(actors())
    double.sending = Sending(never=True)
    await double.start()
    print(double.url, flush=True)
    await asyncio.Event().wait()


@contextmanager
def provider_on_loopback() -> Iterator[str]:
    """The double in a process of its own; its address."""
    command = [sys.executable, "-m", "tests.bench.attributing"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@dataclass(frozen=True, slots=True)
class Harvest:
    """What reading the large datasets came to, and how long each webhook waited for its answer meanwhile."""

    items: int
    seconds: float
    latencies: tuple[float, ...]
    cpu: Cpu
    worst_lag_s: float

    def within(self, share: float) -> float:
        """The latency that so many stay within, ms."""
        return sorted(self.latencies)[min(len(self.latencies) - 1, int(share * len(self.latencies)))] * 1e3


class Attributing:
    """A server that has run many actors there."""

    def __init__(self, url: str, datasets: int, small: int = SMALL) -> None:
        self.datasets, self.small = datasets, small
        folder = Path(tempfile.mkdtemp(prefix="batchcast-bench-", dir="/tmp"))
        folder.chmod(0o711)  # PostgreSQL's account must be able to enter
        told = {"APIFY_URL": url, "APIFY_TOKEN": TOKEN, "APIFY_WEBHOOK_SECRET": SECRET}
        # Only webhooks say that a run has ended, and a batch of Facebook's is one page.
        quick = {"SCHEDULES_POLL_MS": 3_600_000, "SCHEDULES_RUNS_MOST": 1_000, "SCHEDULES_FACEBOOK_CAPACITY": 1}
        self.server = Server(folder, **told, **quick)

    def __enter__(self) -> Attributing:
        self.server.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.server.stop()
        shutil.rmtree(self.server.data_dir, ignore_errors=True)

    def start(self) -> None:
        """Place the businesses, trigger all batches, and wait until each has a run."""
        self.server.ask("POST", "/admin/businesses?key=bench", b"".join(self._file()), "text/csv")
        batches = [row[0] for row in self._rows(SCHEDULES)]
        assert len(batches) == self.datasets + self.small, len(batches)
        for batch in batches:
            self.server.ask("POST", f"/admin/schedules/{batch}/trigger", b"")
        ends = time.monotonic() + LIMIT_S
        while self._rows(STARTED)[0][0] < len(batches):
            assert time.monotonic() < ends, "the runs are not started"
            time.sleep(LOOK_S)

    def _file(self) -> Iterator[bytes]:
        yield b"team,name,tier,platform,identifier\n"
        for number in range(self.datasets * PLACES):
            yield f"team {number % 1000},Place {number},starter,google,ChIJbench{number:08d}\n".encode()
        for number in range(self.small):
            yield f"team {number},Page {number},starter,facebook,https://www.facebook.com/bench{number}\n".encode()

    def read(self) -> Harvest:
        """Tell of the large runs, then of the small ones at RATE until the large ones are read."""
        runs = self._rows(RUNS)
        large = [run for platform, run in runs if platform == "google"]
        # Each run has four events that could be told of; three of them are not true, and the provider is asked all the same.
        small = [(run, event) for event in EVENTS for platform, run in runs if platform != "google"]
        self.server.worst_lag_s()
        before = self.server.cpu()
        latencies = asyncio.run(self._tell(large, small))
        cpu, lag = self.server.cpu() - before, self.server.worst_lag_s()
        items, attributed, missing, count, seconds = self._rows(DONE)[0]
        assert (count, missing) == (self.datasets, 0), (count, missing)
        assert items == attributed == self.datasets * PLACES * EACH, (items, attributed)
        return Harvest(int(items), seconds, tuple(latencies), cpu, lag)

    async def _tell(self, large: Sequence[str], small: Sequence[tuple[str, str]]) -> list[float]:
        connection = await asyncpg.connect(attached(self.server.data_dir))
        port = int(self.server.http_url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        latencies: list[float] = []
        try:
            for run in large:
                await _told(reader, writer, run, EVENTS[0])
            began = time.monotonic()
            for number, (run, event) in enumerate(small):
                due = began + number / RATE
                await asyncio.sleep(due - time.monotonic())
                await _told(reader, writer, run, event)
                latencies.append(time.monotonic() - due)
                if number % RATE == 0 and await _read(connection, len(large)):
                    break
            while not await _read(connection, len(large)):
                assert time.monotonic() < began + LIMIT_S, "the datasets are not read"
                await asyncio.sleep(LOOK_S)
        finally:
            writer.close()
            await connection.close()
        return latencies

    def _rows(self, sql: str) -> list[asyncpg.Record]:
        return asyncio.run(_rows(attached(self.server.data_dir), sql))


async def _read(connection: asyncpg.Connection[asyncpg.Record], datasets: int) -> bool:
    return bool((await connection.fetchrow(DONE))[3] == datasets)  # type: ignore[index]  # an aggregate has a row


async def _rows(dsn: str, sql: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(dsn)
    try:
        return list(await connection.fetch(sql))
    finally:
        await connection.close()


async def _told(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, run: str, event: str) -> None:
    """One webhook, and its answer."""
    body = orjson.dumps({"eventType": event, "eventData": {"actorRunId": run}})
    head = (
        f"POST {hooks.PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\n{hooks.HEADER}: {SECRET}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    said = await reader.readuntil(b"\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 200"), said
    lengths = [line for line in said.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    await reader.readexactly(int(lengths[0].partition(b":")[2]))


if __name__ == "__main__":
    asyncio.run(serve())
