"""`batchcast load` against a real server: what it reports, what it leaves behind, and that it notices a wrong byte."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from server.commands import load
from server.commands.load_report import quantiles
from tests.commands.conftest import Command
from tests.pages.site import ROOT, Site, free_port, until

LONG_S = 120.0
"""A process that is started on a busy machine takes its time."""


def events_left(site: Site, prefix: str) -> list[str]:
    with urllib.request.urlopen(f"{site.url}/events?limit=1000") as answer:
        return [event["id"] for event in json.load(answer)["events"] if event["id"].startswith(prefix)]


def test_it_connects_updates_checks_every_digest_and_removes_its_events(batchcast: Command, site: Site) -> None:
    said = batchcast(
        "load", "--viewers", 25, "--rate", 80, "--for", "3s", "--seed", 5, "--high", 0.3, "--json", site.url
    )
    assert said.code == 0, said.err + said.out
    found = said.json
    assert (found["viewers"], found["connected"], found["divergences"], found["failed"]) == (25, 25, 0, {})
    assert found["updatesSent"] == found["updatesAcked"] == 240
    assert found["digestsChecked"] > 25
    assert found["frames"]["replace-all"] == 25
    assert found["latencyHighMs"]["count"] > 0
    assert found["ackMs"]["p50"] > 0
    assert found["batchEntries"]["count"] > 0, "the server batches once a second"
    assert found["serverCpuSeconds"] > 0
    assert events_left(site, "load-5-") == []


def test_the_report_is_a_table_for_people(batchcast: Command, site: Site) -> None:
    said = batchcast("load", "--viewers", 3, "--rate", 20, "--for", "1s", "--seed", 6, "--viewports", "world", site.url)
    assert said.code == 0, said.err + said.out
    for words in ("3 of 3 connected", "priority high", "digests", "CPU of the server"):
        assert words in said.out


def test_without_a_token_it_only_watches(command: Command, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_DIR", "/nonexistent")
    found = command("load", "--viewers", 4, "--for", "1s", "--json", site.url).json
    assert (found["connected"], found["updatesSent"], found["events"]) == (4, 0, 0)


def test_a_token_without_the_role_is_said_to_be_wrong(batchcast: Command, site: Site, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(batchcast("token", "create", "--sub", "ann", "--role", "viewer").out)
    said = batchcast("load", "--viewers", 1, "--for", "1s", "--token-file", file, site.url)
    assert said.code == 1
    assert "producer's token" in said.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--for", "soon"], "--for is a number with its unit"),
        (["--viewports", "/nonexistent"], "cannot read /nonexistent"),
        (["--token-file", "/nonexistent"], "cannot read --token-file"),
        (["--viewers", "-1"], "--viewers"),
    ],
)
def test_wrong_usage_ends_with_2(batchcast: Command, site: Site, arguments: list[str], words: str) -> None:
    said = batchcast("load", *arguments, site.url)
    assert said.code == 2
    assert words in said.err


def test_no_server_ends_with_2(command: Command) -> None:
    assert command("load", f"http://127.0.0.1:{free_port()}").code == 2


def test_a_file_says_where_viewers_look(batchcast: Command, site: Site, tmp_path: Path) -> None:
    file = tmp_path / "boxes"
    file.write_text("# west,south,east,north\n170,-20,-170,20\n10,50,11,51\n")
    said = batchcast("load", "--viewers", 4, "--rate", 20, "--for", "1s", "--viewports", file, "--json", site.url)
    assert (said.code, said.json["connected"]) == (0, 4)
    file.write_text("1,2,3\n")
    assert batchcast("load", "--viewports", file, site.url).code == 2


def test_interrupted_it_prints_what_it_has_and_removes_its_events(site: Site) -> None:
    command = [sys.executable, "-m", "server", "load", "--viewers", "5", "--rate", "50", "--for", "10m", "--seed", "7"]
    env = {**os.environ, "DATA_DIR": str(site.data_dir), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([*command, "--json", site.url], env=env, cwd=ROOT, stdout=subprocess.PIPE) as running:
        try:
            until(lambda: events_left(site, "load-7-"), "it has made its events", LONG_S)
            running.send_signal(signal.SIGINT)
            printed, _ = running.communicate(timeout=LONG_S)
        finally:
            running.kill()
    found = json.loads(printed)
    assert (running.returncode, found["interrupted"]) == (0, True)
    assert events_left(site, "load-7-") == []


# --- a wrong byte ---


class Falsifier:
    """A way to a WebSocket port that changes one digit of the first digest that it carries, once told to."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.port = 0
        self.frames_to_pass = 0
        self.changed = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.target)
        await asyncio.gather(self._carry(reader, back), self._falsify(there, writer))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
        writer.close()

    async def _falsify(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            at = data.find(b'"digest":"')
            if not self.changed and at >= 0 and len(data) > at + 10:
                self.changed += 1
                digit = b"0" if data[at + 10 : at + 11] != b"0" else b"1"
                data = data[: at + 10] + digit + data[at + 11 :]
            writer.write(data)
        writer.close()


@contextmanager
def falsified(port: int) -> Iterator[Falsifier]:
    """The falsifier, in a thread with an event loop of its own."""
    made, ready, stop = Falsifier(port), threading.Event(), threading.Event()

    async def listen() -> None:
        server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
        made.port = server.sockets[0].getsockname()[1]
        ready.set()
        await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=lambda: asyncio.run(listen()))
    thread.start()
    ready.wait(30)
    try:
        yield made
    finally:
        stop.set()
        thread.join(30)


def test_one_changed_byte_is_one_divergence_and_ends_with_1(
    batchcast: Command, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    with falsified(site.ws_port) as proxy:

        async def by_the_proxy(server: object) -> str:
            return f"ws://127.0.0.1:{proxy.port}/ws"

        monkeypatch.setattr(load, "ws_url", by_the_proxy)
        said = batchcast("load", "--viewers", 3, "--rate", 30, "--for", "2s", "--seed", 8, "--json", site.url)
        assert proxy.changed == 1
    assert said.code == 1
    assert (said.json["divergences"], said.json["connected"]) == (1, 3)
    assert "the server says" in said.json["firstDivergence"]
    assert said.json["frames"]["replace-all"] == 4, "the one that differed asked for everything anew"


def test_connections_that_break_are_counted_and_end_with_1(
    batchcast: Command, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nowhere(server: object) -> str:
        return f"ws://127.0.0.1:{free_port()}/ws"

    monkeypatch.setattr(load, "ws_url", nowhere)
    said = batchcast("load", "--viewers", 3, "--rate", 0, "--for", "1s", "--json", site.url)
    assert (said.code, said.json["connected"], sum(said.json["failed"].values())) == (1, 0, 3)


def test_quantiles_are_values_that_were_measured() -> None:
    found = quantiles([3.0, 1.0, 2.0, 4.0], 9, 10.0)
    assert (found.count, found.p50, found.p95, found.max) == (9, 20.0, 40.0, 40.0)
    assert quantiles([], 0).p50 is None


def test_the_same_seed_looks_at_the_same_places() -> None:
    assert load.boxes("city", 3) == load.boxes("city", 3) != load.boxes("city", 4)
    assert all(box[0] < box[2] and box[1] < box[3] for box in load.boxes("city", 3))
