"""The whole server in a process of its own: a flush into thousands of sockets, memory, and a start with a million events."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import orjson

from server.protocol.event import event_json
from tests.bench import crowds, million
from tests.bench.clients import Clients, Heard
from tests.bench.crowds import Crowd, Views, event_id
from tests.bench.processes import Cpu
from tests.bench.served import ROOT, Server, serving
from tests.bench.suite import Context, Row

UPDATES: Final = 10
"""Updates in every frame."""
HOT: Final = 1000
ROUNDS: Final = 5
STARTS: Final = 3
"""After one that does not count: it may have to compile the kernel, and finds the disk cold."""


@dataclass(frozen=True, slots=True)
class Flushed:
    """One flush into sockets."""

    cpu: Cpu
    lag_s: float
    heard: Heard


def sockets(context: Context) -> Iterator[Row]:
    """A flush into real sockets: each viewer gets one frame with ten updates of 600 bytes."""
    viewers = context.size(10_000, 200)
    crowd, views = crowds.square(context.seed, 10_000, viewers, 0.05)
    hot = np.random.default_rng(context.seed).choice(len(crowd), HOT, replace=False)
    with serving() as server, Clients() as clients:
        fill(server, crowd, hot)
        clients.connect(server.ws_port, viewers)
        clients.register([registration(views, number) for number in range(len(views))])
        done = [flushed(server, clients, hot, number, viewers) for number in range(ROUNDS)]
    yield from _socket_rows(viewers, done)


def _socket_rows(viewers: int, done: list[Flushed]) -> Iterator[Row]:
    heard = done[-1].heard
    postgres = statistics.median(one.cpu.below for one in done)
    yield Row(
        "flush into sockets",
        f"{viewers:,} loopback connections, each with a view of its own, {heard.updates / heard.frames:.1f} updates of 600 "
        "bytes a frame, 1,000 pending, 10,000 events",
        statistics.median(one.cpu.own for one in done),
        "s",
        1.4,
        0.8,
        machine=True,
        note=f"CPU of the server; PostgreSQL {postgres:.2f} s, clients {heard.cpu_s:.2f} s; the last frame after "
        f"{heard.seconds:.2f} s; {heard.bytes / heard.frames / 1024:.1f} KiB a frame",
    )
    yield Row(
        "event-loop lag in it",
        "the worst lag of the server's event loop, its clients on the same cores",
        statistics.median(one.lag_s for one in done) * 1e3,
        "ms",
        50,
        20,
        machine=True,
        note=f"of {ROUNDS} flushes the median; {max(one.lag_s for one in done) * 1e3:.0f} ms the worst of them",
    )


def flushed(server: Server, clients: Clients, hot: crowds.Longs, number: int, viewers: int) -> Flushed:
    """Count every hot event once more, then flush: all of it is measured from the force to the last frame read."""
    rows = [{"eventId": event_id(one), "scanCount": 20 + number} for one in hot.tolist()]
    answer = server.ask("POST", "/popularity", orjson.dumps(rows))
    assert answer["accepted"] == len(rows), answer
    time.sleep(1.0)  # what the counting left to do is done
    server.worst_lag_s()
    before = server.cpu()
    clients.expect(b'{"type":"batch-update"', viewers)
    turn = server.ask("POST", "/force-batch")["turn"]
    heard = clients.heard()
    after = server.cpu()
    assert heard.frames + turn["deferred"] >= viewers, turn
    time.sleep(0.25)  # the lag is looked for every 100 ms
    return Flushed(after - before, server.worst_lag_s(), heard)


def fill(server: Server, crowd: Crowd, hot: crowds.Longs) -> None:
    """Events of which the hot ones fill every view and stay there: nothing but their counters is ever to be told."""
    chosen = set(hot.tolist())
    shift = round(time.time() * 1000) - crowds.NOW_MS
    lines = []
    for number, event in enumerate(crowd.events()):
        row = event_json(event)
        row |= {
            "scanCount": 0,
            "saveCount": 0,
            "rsvpCount": 0,
            "confidence": 0,
            "status": "VERIFIED",
            "isPrivate": False,
        }
        row |= {"start": event.start_ms + shift, "createdAt": event.created_ms + shift}
        if number in chosen:
            row |= {"scanCount": 15, "saveCount": 9, "rsvpCount": 9, "confidence": 1}
        lines.append(orjson.dumps({name: value for name, value in row.items() if name not in NOT_SENT}))
    answer = server.ask("POST", "/events", b"\n".join(lines), "application/x-ndjson")
    assert answer["accepted"] == len(lines), answer


NOT_SENT: Final = frozenset(("version", "updatedAt", "creatorId"))


def registration(views: Views, number: int) -> bytes:
    """What a viewer says."""
    box = {name: float(getattr(views, name)[number]) for name in ("west", "south", "east", "north")}
    return orjson.dumps({"type": "register", "viewport": box, "maxEvents": UPDATES})


def idle_connections(context: Context) -> Iterator[Row]:
    """What a connection that says nothing costs."""
    count, first = context.size(5000, 300), context.size(500, 50)
    with serving() as server, Clients() as clients:
        clients.connect(server.ws_port, first)  # what is made once is made now
        before = server.rss()
        clients.connect(server.ws_port, count)
        time.sleep(2.0)  # the sweep has seen them all
        each = (server.rss() - before) / count / 1024
    yield Row(
        "memory, idle connection",
        f"resident memory of the server per connection, {count:,} of them",
        each,
        "KiB",
        24,
        16,
    )


def event_memory(context: Context) -> Iterator[Row]:
    """What an event costs in memory, in columns and encoded."""
    count = context.size(200_000, 10_000)
    command = [sys.executable, "-m", "tests.bench.memory", str(count), str(context.seed)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=600)
    assert ended.returncode == 0, ended.stderr.decode()[-600:]
    found = orjson.loads(ended.stdout.splitlines()[-1])
    yield Row(
        "memory, event",
        f"an event in columns plus encoded, {count:,} events of {found['body']:.0f} bytes of JSON",
        found["each"] / 1024,
        "KiB",
        2,
        1.2,
        note="resident memory of a process with nothing else in it: arrays, ids, indexes, the JSON, what Python adds",
    )


def start(context: Context) -> Iterator[Row]:
    """From the command to the first connection that is accepted, with a million events on disk."""
    count = context.size(1_000_000, 20_000)
    folder = million.ready(context.folder, count)
    first, *found = [started(folder) for _ in range(1 + STARTS)]
    seconds, cpu, memory = sorted(found, key=lambda one: one[0])[len(found) // 2]
    yield Row(
        "start",
        f"{count:,} events on disk: from the command to accepting, median of {len(found)}",
        seconds,
        "s",
        30,
        10,
        machine=True,
        note=f"time that passes; CPU {cpu.own:.1f} s, PostgreSQL {cpu.below:.1f} s, {memory / 2**30:.2f} GiB resident; "
        f"the first start, not counted: {first[0]:.1f} s, CPU {first[1].own:.1f} s",
    )


def started(folder: Path) -> tuple[float, Cpu, int]:
    """Seconds, CPU and resident bytes of one start."""
    server = Server(folder)
    try:
        seconds = server.start()
        return seconds, server.cpu(), server.rss()
    finally:
        server.stop()


BENCHES: Final = (sockets, idle_connections, event_memory, start)
