"""The demo's schedules: a scraping provider beside the server, and businesses whose reviews are scraped while the demo runs.

The provider is the double of the tests, a process of its own; so this part of the demo is there in a checkout only. No slot of a real
schedule comes within minutes, so every TRIGGER_MS a few are triggered over HTTP, like anybody would. Of some places nothing is found
and now and then a run fails, so that there is a retry queue to look at.
"""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import resources
from pathlib import Path
from typing import Final

import aiohttp

import server
from server.batching.loop import Occasion, Turn
from server.commands.calling import Failed, Server
from server.commands.jobs import rows_of

ROOT: Final = Path(server.__file__).resolve().parents[1]
DOUBLE: Final = ROOT / "tests" / "doubles" / "apify"
SIZE: Final = ("--reviews", "14", "--run-ms", "4000", "--noise", "1")
TOKEN: Final = "apify_api_good"
SECRET: Final = "what the demo's provider sends, which is no secret"
PACE: Final = {
    "SCHEDULES_DISPATCH_MS": "2000",
    "SCHEDULES_POLL_MS": "10000",
    "SCHEDULES_RETRY_MS": "10000",
    "SCHEDULES_RETRY_FIRST_MS": "30000",
    "SCHEDULES_GOOGLE_CAPACITY": "20",
}
TRIGGER_MS: Final = 15_000
TRIGGERED_A_TURN: Final = 3
MISSING: Final = 4
"""Places of which nothing is found."""
FAILS_EVERY: Final = 5
"""In every so many turns one run times out with half of its items."""
STOP_S: Final = 5.0


@contextmanager
def scraper(given: Mapping[str, str], http_port: int | None, since_s: float | None = None) -> Iterator[dict[str, str]]:
    """The double, running, as settings of the server; nothing outside of a checkout, or when a provider is set already.

    `since_s` is when the views of its posts began to grow (showing_tracking.py)."""
    if {"APIFY_URL", "APIFY_TOKEN"} & set(given) or not DOUBLE.exists():
        yield {}
        return
    missing = [part for place in places()[1::7][:MISSING] for part in ("--missing", place)]
    grown = () if since_s is None else ("--since", str(since_s))
    command = [sys.executable, "-m", "tests.doubles.apify", *SIZE, *missing, *grown]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        try:
            yield _settings(url, given, http_port) if url else {}
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_S)
            process.kill()


def _settings(url: str, given: Mapping[str, str], http_port: int | None) -> dict[str, str]:
    """Told of ends where our port is known; else the provider is asked."""
    port = http_port if http_port is not None else int(given.get("HTTP_PORT", "8080"))
    ours = {"APIFY_URL": url, "APIFY_TOKEN": TOKEN, "APIFY_WEBHOOK_SECRET": SECRET, **PACE}
    return ours if port == 0 else {**ours, "PUBLIC_URL": f"http://127.0.0.1:{port}"}


def sample() -> bytes:
    """The sample's businesses, CSV."""
    return (resources.files("server") / "sample" / "schedules" / "businesses.csv").read_bytes()


def places() -> list[str]:
    """Their Google places."""
    return [row["google"] for row in csv.DictReader(sample().decode().splitlines())]


class Scrapes:
    """The client that takes the businesses in and triggers runs."""

    def __init__(self, url: str, token: str, provider: str) -> None:
        self._url = url
        self._token = token
        self._provider = provider
        self._ready = False
        self._next = 0

    async def turn(self, occasion: Occasion) -> Turn:
        """First the businesses; then a few schedules a turn."""
        async with Server(self._url, self._token) as there:
            if not self._ready:
                await there.upload("/admin/businesses", [("key", "demo")], _pieces(), "text/csv")
                self._ready = True
            if occasion.number % FAILS_EVERY == 1:
                await self._fail_one()
            return await self._trigger(there)

    async def _trigger(self, there: Server) -> Turn:
        answer = await there.get("/admin/schedules", [("state", "active"), ("limit", "1000")])
        used = [row["id"] for row in rows_of(answer, "schedules") if row.get("businesses")]
        chosen = [used[(self._next + n) % len(used)] for n in range(min(TRIGGERED_A_TURN, len(used)))]
        self._next += len(chosen)
        failed = 0
        for schedule in chosen:
            try:
                await there.call("POST", f"/admin/schedules/{schedule}/trigger")
            except Failed:  # Its last business has just gone.
                failed += 1
        return Turn(len(chosen), len(chosen) - failed, failed)

    async def _fail_one(self) -> None:
        outcome = {"status": "TIMED-OUT", "share": 0.5, "message": "the demo has it fail"}
        with suppress(aiohttp.ClientError, OSError):
            async with aiohttp.ClientSession() as session:
                await session.put(f"{self._provider}/control/outcomes", json=[outcome])


async def _pieces() -> AsyncIterator[bytes]:
    yield sample()
