"""One, two and three servers over one PostgreSQL, side by side: what it costs that each hears of the others, and how fast."""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg
import orjson
import uvloop

from server.edge import logs
from server.edge.embedded import DATABASE, EmbeddedPostgres
from tests.bench import processes
from tests.bench.clients import Clients
from tests.bench.served import Server, until
from tests.bench.suite import Context, Row

EVENTS: Final = 5_000
ARRAY: Final = 1_000
CHANGES: Final = 250
"""Rows with content in one array: a transaction's worth."""
HOT: Final = 1_000
"""The last ones: nearest to the middle of every view, so that they fill it."""
PRODUCERS: Final = 6
ROUNDS: Final = 5
AFTERWARDS_S: Final = 0.5
"""So long the others are given to follow what was done last."""
WAYS: Final = (("alone", 1, "off"), ("1", 1, "on"), ("2", 2, "on"), ("3", 3, "on"))
"""How the servers are grouped: each group has a database of its own in one PostgreSQL."""
BOX: Final = {"west": 13.0, "south": 52.0, "east": 14.0, "north": 53.0}


@dataclass(frozen=True, slots=True)
class Spent:
    """One round of one group: CPU of its servers and of PostgreSQL, and the time that passed."""

    servers: float
    postgres: float
    wall: float

    @property
    def cpu(self) -> float:
        """All of it."""
        return self.servers + self.postgres


@dataclass(frozen=True, slots=True)
class Group:
    """Servers over one database."""

    servers: tuple[Server, ...]
    postmaster: int

    def __getitem__(self, number: int) -> Server:
        return self.servers[number % len(self.servers)]

    def spend(self, work: Callable[[], object]) -> Spent:
        """Do it, and wait until nothing of it is left to do."""
        servers, postgres, began = self._servers(), processes.cpu(self.postmaster).all, time.monotonic()
        work()
        wall = time.monotonic() - began
        time.sleep(AFTERWARDS_S)
        until(self.agree, "all servers have the same")
        return Spent(self._servers() - servers, processes.cpu(self.postmaster).all - postgres, wall)

    def _servers(self) -> float:
        return sum(server.cpu().own for server in self.servers)

    def agree(self) -> bool:
        """Does the same wait for a flush at each?"""
        waiting = {server.ask("GET", "/stats")["pendingUpdates"] for server in self.servers}
        return len(waiting) == 1

    def abreast(self, tasks: Sequence[tuple[str, bytes]]) -> None:
        """Requests, a few producers at a time, in turn to each server."""

        def post(number: int) -> None:
            path, body = tasks[number]
            assert self[number].ask("POST", path, body)["rejected"] == []

        with ThreadPoolExecutor(PRODUCERS) as pool:
            list(pool.map(post, range(len(tasks))))


@contextmanager
def groups() -> Iterator[dict[str, Group]]:
    """All ways at a time, each with the same events."""
    folder = Path(tempfile.mkdtemp(prefix="batchcast-bench-", dir="/tmp"))
    folder.chmod(0o711)  # PostgreSQL's account must be able to enter
    logs.configure(level="warning")
    postgres = EmbeddedPostgres(folder / "shared", settings={"max_connections": "200"})
    (folder / "shared").mkdir()
    with ExitStack() as ends:
        ends.callback(shutil.rmtree, folder, ignore_errors=True)
        dsn = postgres.start_now()
        ends.callback(postgres.stop_now)
        postmaster = int((folder / "shared" / "postgres" / "postmaster.pid").read_text().split()[0])
        found = {}
        for name, count, cluster in WAYS:
            uvloop.run(_create(dsn, f"way_{name}"))
            url = dsn.replace(f"/{DATABASE}?", f"/way_{name}?")
            servers = [
                Server(folder / f"{name}-{n}", DATABASE_URL=url, CLUSTER=cluster, DATABASE_POOL=4) for n in range(count)
            ]
            for server in servers:
                ends.callback(server.stop)
                server.start()
            found[name] = Group(tuple(servers), postmaster)
            _fill(found[name])
        yield found


async def _create(dsn: str, name: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(f"create database {name}")
    finally:
        await connection.close()


def _event(number: int, title: str) -> dict[str, object]:
    place = {"latitude": 52.005 + 0.0098 * (number // 100), "longitude": 13.005 + 0.0098 * (number % 100)}
    start = round(time.time() * 1000) + 3_600_000
    return {"id": f"event-{number:06}", "title": title, "location": place, "start": start}


def _fill(group: Group) -> None:
    rows = [orjson.dumps(_event(number, "An evening by the river")) for number in range(EVENTS)]
    answer = group[0].ask("POST", "/events", b"\n".join(rows), "application/x-ndjson")
    assert answer["accepted"] == EVENTS, answer
    until(
        lambda: all(server.ask("GET", "/stats")["events"] == EVENTS for server in group.servers), "all have all events"
    )


def _rounds(found: dict[str, Group], work: Callable[[Group, int], object]) -> dict[str, list[Spent]]:
    """Every way in turn, round by round; the first one does not count."""
    spent: dict[str, list[Spent]] = {name: [] for name in found}
    for number in range(1 + ROUNDS):
        for name, group in found.items():
            spent[name].append(group.spend(lambda group=group: work(group, number)))  # type: ignore[misc]  # noqa: B023
    return {name: rounds[1:] for name, rounds in spent.items()}


def _ratio(spent: dict[str, list[Spent]], one: str, other: str) -> float:
    return statistics.median(a.cpu / b.cpu for a, b in zip(spent[one], spent[other], strict=True))


def _said(spent: dict[str, list[Spent]], units: int) -> str:
    """What each way costs and takes."""
    parts = []
    for name, rounds in spent.items():
        servers, postgres, wall = (
            statistics.median(getattr(one, kind) for one in rounds) for kind in ("servers", "postgres", "wall")
        )
        each = f"{servers / units * 1e6:.0f} + {postgres / units * 1e6:.0f} us"
        parts.append(f"{'alone' if name == 'alone' else f'of {name}'} {each}, {units / wall:,.0f}/s")
    return "CPU each (servers + PostgreSQL): " + "; ".join(parts)


def together(context: Context) -> Iterator[Row]:
    """Everything with the same servers: they take a while to start."""
    with groups() as found:
        yield from _counting(found, context.size(60, 4))
        yield from _changing(found, context.size(20, 2))
        yield from _flushing(found, context.size(900, 30))
        yield from _reaching(found, context.size(60, 5))


def _counting(found: dict[str, Group], arrays: int) -> Iterator[Row]:
    bodies = [
        orjson.dumps(
            [{"eventId": f"event-{(a * 7919 + n * 31) % EVENTS:06}", "delta": {"scanCount": 1}} for n in range(ARRAY)]
        )
        for a in range(arrays)
    ]
    spent = _rounds(found, lambda group, _: group.abreast([("/popularity", body) for body in bodies]))
    said = _said(spent, arrays * ARRAY)
    yield Row(
        "outbox, counting",
        f"{arrays * ARRAY:,} counters in arrays of {ARRAY}: one server that tells others against one that is alone, CPU",
        _ratio(spent, "1", "alone"),
        "times",
        1.15,
        1.05,
        note=said,
    )
    yield Row(
        "ingest, three servers",
        "the same counters, taken by three servers in turn, against one that is alone, CPU of all",
        _ratio(spent, "3", "alone"),
        "times",
        1.6,
        1.25,
        against={"two servers": _ratio(spent, "2", "alone")},
    )


def _changing(found: dict[str, Group], arrays: int) -> Iterator[Row]:
    def work(group: Group, number: int) -> None:
        rows = [_event(n % EVENTS, f"Round {number}") for n in range(arrays * CHANGES)]
        group.abreast([("/events", orjson.dumps(rows[n : n + CHANGES])) for n in range(0, len(rows), CHANGES)])

    spent = _rounds(found, work)
    yield Row(
        "outbox, content",
        f"{arrays * CHANGES:,} events changed, each of which is told: one server that tells others against one alone, CPU",
        _ratio(spent, "1", "alone"),
        "times",
        1.3,
        1.15,
        note=_said(spent, arrays * CHANGES),
    )
    yield Row(
        "content, three servers",
        "the same changes, followed by all three, against one that is alone, CPU of all",
        _ratio(spent, "3", "alone"),
        "times",
        3,
        2,
        against={"two servers": _ratio(spent, "2", "alone")},
    )


def _flushing(found: dict[str, Group], viewers: int) -> Iterator[Row]:
    with ExitStack() as ends:
        clients = {name: ends.enter_context(Clients()) for name in found}
        for name, group in found.items():
            for server in group.servers:
                clients[name].connect(server.ws_port, viewers // len(group.servers))
            clients[name].register([orjson.dumps({"type": "register", "viewport": BOX, "maxEvents": 50})])

        def work(group: Group, number: int) -> None:
            name = next(n for n, one in found.items() if one is group)
            clients[name].expect(b'{"type":"batch-update"', viewers // len(group.servers) * len(group.servers))
            group[number].ask("POST", "/force-batch")
            clients[name].heard()

        spent: dict[str, list[Spent]] = {name: [] for name in found}
        for number in range(1 + ROUNDS):
            for name, group in found.items():
                rows = [
                    {"eventId": f"event-{n:06}", "scanCount": 100 * number + n % 7 + 50}
                    for n in range(EVENTS - HOT, EVENTS)
                ]
                group.abreast([("/popularity", orjson.dumps(rows))])
                until(group.agree, "all know what waits")
                spent[name].append(group.spend(lambda group=group: work(group, number)))  # type: ignore[misc]  # noqa: B023
    spent = {name: rounds[1:] for name, rounds in spent.items()}
    walls = {name: statistics.median(one.wall for one in rounds) * 1e3 for name, rounds in spent.items()}
    yield Row(
        "flush, three servers",
        f"{HOT:,} pending, {viewers:,} sockets in all, forced at any: three servers against one that is alone, CPU of all",
        _ratio(spent, "3", "alone"),
        "times",
        3,
        2,
        against={"one that tells": _ratio(spent, "1", "alone"), "two servers": _ratio(spent, "2", "alone")},
        note="from the force to the last frame read, ms: " + ", ".join(f"{n} {ms:.0f}" for n, ms in walls.items()),
    )


def _reaching(found: dict[str, Group], times: int) -> Iterator[Row]:
    """From the request at one server to the frame at a viewer of another, one change at a time."""
    waits = {}
    for name, group in found.items():
        with Clients() as clients:
            clients.connect(group[-1].ws_port, 1)
            clients.register([orjson.dumps({"type": "register", "viewport": BOX, "maxEvents": 500})])
            waits[name] = sorted(_reached(group, clients, number) for number in range(times))
    half = {name: wait[len(wait) // 2] * 1e3 for name, wait in waits.items()}
    yield Row(
        "reaching another server's viewer",
        "one immediate change, from the request at the first server to the frame read at the last of three, p50",
        half["3"],
        "ms",
        100,
        25,
        machine=True,
        against={"alone, its own viewer": half["alone"], "two servers": half["2"]},
        note=f"p99 {waits['3'][int(0.99 * (len(waits['3']) - 1))] * 1e3:.1f} ms",
    )


def _reached(group: Group, clients: Clients, number: int) -> float:
    time.sleep(0.06)  # a burst would be grouped
    clients.expect(b'{"type":"', 1)
    row = orjson.dumps([{**_event(EVENTS - 50, f"Change {number}"), "scanCount": 1_000_000, "confidence": 1}])
    assert group[0].ask("POST", "/events", row)["accepted"] == 1
    return clients.heard().seconds


BENCHES: Final = (together,)
