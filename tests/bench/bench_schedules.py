"""Schedules: a crowd placed, moved, balanced and lived with for a day; a file taken in as a user does it; webhooks answered while
datasets are read. CPU is that of this process (or the server) and PostgreSQL together."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from server.edge.secrets import mint
from server.settings import load
from tests.bench.attributing import EACH, PLACES, RATE, SMALL, Attributing, provider_on_loopback
from tests.bench.scheduling import Cluster, Life, lines
from tests.bench.served import ROOT, SECRET, Server, serving
from tests.bench.suite import Context, Row

BUSINESSES: Final = 100_000
FEWER: Final = 10
"""So many times fewer are measured beside them."""
DATASETS: Final = 100


def crowd(context: Context) -> Iterator[Row]:
    """Businesses placed from a file, moved by tier changes, balanced, and a day of their runs."""
    count = context.size(BUSINESSES, 1_000)
    with Cluster() as cluster:
        cluster.live(count // FEWER // FEWER)  # so that nobody pays for what is only done once
        small, large = cluster.live(count // FEWER), cluster.live(count)
    yield Row(
        f"{count:,} businesses placed",
        f"a CSV file through the verb of an intake, a team for every {count // (count // 10)} of them, two mappings each; "
        "businesses a second",
        large.placed.rate,
        "/s",
        5_000,
        20_000,
        more=True,
        machine=True,
        note=f"{large.placed}; of {small.count:,}: {small.placed.rate:,.0f}/s",
    )
    yield _ratio("placing", small, large, large.placed.cpu / small.placed.cpu, large.placed.wall / small.placed.wall)
    yield Row(
        "a tenth moved by tier changes",
        f"{large.moved.done:,} mappings, a team a transaction, four at a time; mappings a second",
        large.moved.rate,
        "/s",
        more=True,
        note=f"{large.moved}; of {small.count:,}: {small.moved.rate:,.0f}/s",
    )
    yield _ratio("tier changes", small, large, large.moved.cpu / small.moved.cpu, large.moved.wall / small.moved.wall)
    yield Row(
        "rebalanced",
        f"all lines consolidated and rebalanced after that: {large.balanced.done:,} mappings moved",
        large.balanced.wall,
        "s",
        note=f"{large.balanced}; of {small.count:,}: {small.balanced} for {small.balanced.done:,}",
    )
    yield Row(
        "a day of runs",
        f"{large.intents:,} runs on a virtual clock, minute by minute: intents, starts, webhooks noted and looked into, {large.items:,} "
        "items (a review or an overview of each place) attributed, runs settled; the provider answers in this process, and its own time "
        "is left out",
        large.day.wall,
        "s",
        60,
        20,
        machine=True,
        note=f"{large.day}; {large.day.rate:,.0f} runs/s; of {small.count:,}: {small.day}",
    )
    yield _ratio("the day", small, large, large.day.cpu / small.day.cpu, large.day.wall / small.day.wall)


def _ratio(what: str, small: Life, large: Life, cpu: float, wall: float) -> Row:
    work = f"CPU of {large.count:,} businesses / of {small.count:,}"
    return Row(f"{what}, x{FEWER}", work, cpu, "", 12, 10, note=f"on the wall {wall:.1f}")


def imported(context: Context) -> Iterator[Row]:
    """`schedules import`, as it is typed."""
    count = context.size(BUSINESSES, 1_000)
    with serving() as server, tempfile.NamedTemporaryFile(suffix=".csv") as file:
        file.writelines(lines(count))
        file.flush()
        seconds, said = _command(server, "schedules", "import", file.name)
        assert f"{count:,} profiles placed" in said, said
        again, said = _command(server, "schedules", "import", file.name)
        assert f"{count:,} known before" in said, said
        checked, _ = _command(server, "schedules", "validate")
    yield Row(
        f"`schedules import` of {count:,}",
        "the command from its start to its end, over HTTP into an empty server, all of it validated; businesses a second",
        count / seconds,
        "/s",
        5_000,
        20_000,
        more=True,
        machine=True,
        note=f"{seconds:.1f} s; the same file again {again:.1f} s; `schedules validate` alone {checked:.1f} s",
    )


def _command(server: Server, *arguments: str) -> tuple[float, str]:
    """Seconds of a command, and what it says."""
    token = mint(load({"JWT_SECRET": SECRET, "DATA_DIR": str(server.data_dir)}), sub="bench", roles=["admin"])
    environ = {
        **os.environ,
        "BATCHCAST_URL": server.http_url,
        "BATCHCAST_TOKEN": token,
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "200",
    }
    began = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-m", "server", *arguments],
        env=environ,
        cwd=Path(server.data_dir),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return time.monotonic() - began, ended.stdout + ended.stderr


def webhooks(context: Context) -> Iterator[Row]:
    """Webhooks answered while large datasets are attributed."""
    datasets = context.size(DATASETS, 3)
    with provider_on_loopback() as url, Attributing(url, datasets, context.size(SMALL, 20)) as one:
        one.start()
        harvest = one.read()
    yield Row(
        "a webhook, p99",
        f"{RATE} a second, each looked into afterwards, while {datasets} datasets of {PLACES * EACH:,} items are attributed: from "
        "when it was due until its answer was read",
        harvest.within(0.99),
        "ms",
        50,
        20,
        machine=True,
        note=f"{len(harvest.latencies):,} webhooks, p50 {harvest.within(0.5):.1f} ms, worst {harvest.within(1):.0f} ms; worst lag of "
        f"the event loop {harvest.worst_lag_s * 1e3:.0f} ms",
    )
    yield Row(
        "attribution",
        f"{harvest.items:,} items of {datasets} datasets over HTTP into new reviews meanwhile; items a second",
        harvest.items / harvest.seconds,
        "/s",
        5_000,
        15_000,
        more=True,
        machine=True,
        note=f"{harvest.seconds:.1f} s; CPU an item: server {harvest.cpu.own / harvest.items * 1e6:.0f} us, PostgreSQL "
        f"{harvest.cpu.below / harvest.items * 1e6:.0f} us",
    )


BENCHES: Final = (crowd, imported, webhooks)
