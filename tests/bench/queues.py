"""Queues of no-op jobs side by side: one PostgreSQL with the server's own settings, a database each, workers in processes.

    with Cluster() as cluster:
        queue = cluster.queue("ours")
        queue.refill(20_000)
        spent = queue.work(20_000)                  CPU of the worker and PostgreSQL together, and the wall

Autovacuum is off while something is measured, so that nobody pays for what another has left behind: each refill starts from
empty, vacuumed and analyzed tables.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

import asyncpg
import orjson

from server.edge import logs
from server.edge.embedded import EmbeddedPostgres
from tests.bench import processes
from tests.bench.queue_workers import FILLS, NOTED, PREPARE, Noted

SETTINGS: Final = {"autovacuum": "off"}
EMPTY: Final[Mapping[str, str]] = {
    "ours": "delete from imports.batch_processing_queue where owner not like 'past%'; "
    "truncate imports.place, imports.stats_shard, imports.batch_processing_workers, ops.outbox, ops.node; "
    "update imports.tier set turn = 1",
    "pgqueuer": "truncate pgqueuer, pgqueuer_log, pgqueuer_statistics",
    "procrastinate": "truncate procrastinate_jobs, procrastinate_events, procrastinate_workers cascade",
}
ROOT: Final = Path(__file__).resolve().parents[2]
TABLES: Final[Mapping[str, str]] = {
    "ours": "imports.batch_processing_queue, imports.place, imports.tier, imports.stats_shard, imports.batch_processing_workers, "
    "ops.outbox, ops.node",
    "pgqueuer": "pgqueuer, pgqueuer_log",
    "procrastinate": "procrastinate_jobs, procrastinate_events",
}
"""What is vacuumed: all of a database would take longer than the work."""
LIMIT_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Spent:
    """What working off a queue cost: CPU seconds of workers and PostgreSQL, and of the clock on the wall."""

    workers: float
    postgres: float
    wall: float
    noted: Noted

    @property
    def cpu(self) -> float:
        """Both."""
        return self.workers + self.postgres


class Worker:
    """One process of queue_workers.py; ready, but not begun."""

    def __init__(self, kind: str, dsn: str, batch: int, noted: bool = False) -> None:
        command = [sys.executable, "-m", "tests.bench.queue_workers", kind, dsn, str(batch), *[NOTED] * noted]
        self._process = subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        said = self._line()
        assert said == "ready", f"the worker of {kind} says {said!r}"

    def tell(self, number: int) -> None:
        """Begin with so many jobs, or 0; or end."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{number}\n")
        self._process.stdin.flush()

    def said(self) -> Noted:
        """What it says at its end."""
        return [(job, owner, at) for job, owner, at in orjson.loads(self._line())]

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def cpu(self) -> float:
        """Its CPU seconds so far."""
        return processes.cpu(self._process.pid).all

    def close(self) -> None:
        """Wait for its end, which it has come to by itself unless something broke."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Queue:
    """One database with the tables of one queue."""

    def __init__(self, cluster: Cluster, kind: str, dsn: str, batch: int) -> None:
        self.kind, self.dsn, self.batch = kind, dsn, batch
        self._cluster = cluster
        asyncio.run(PREPARE[kind](dsn))

    def refill(self, count: int, owners: int = 1) -> None:
        """So many jobs wait in tables that are otherwise as they were."""
        self.tell(EMPTY[self.kind], f"vacuum {TABLES[self.kind]}")
        asyncio.run(FILLS[self.kind](self.dsn, count, owners))
        self.tell(f"vacuum (analyze) {TABLES[self.kind]}")

    def tell(self, *statements: str) -> None:
        """SQL, each a transaction."""
        asyncio.run(tell(self.dsn, statements))

    def worker(self, noted: bool = False) -> Worker:
        """One process that works for it; to be closed."""
        return Worker(self.kind, self.dsn, self.batch, noted)

    def work(self, count: int, noted: bool = False) -> Spent:
        """One worker does so many jobs."""
        worker = self.worker(noted)
        try:
            postgres, own, began = self._cluster.cpu(), worker.cpu(), time.monotonic()
            worker.tell(count)
            said = worker.said()
            wall = time.monotonic() - began
            return Spent(worker.cpu() - own, self._cluster.cpu() - postgres, wall, said)
        finally:
            worker.close()


class Cluster:
    """The PostgreSQL of all queues."""

    def __init__(self, settings: Mapping[str, str] = SETTINGS) -> None:
        logs.configure(level="warning")
        self.folder = Path(tempfile.mkdtemp(prefix="batchcast-bench-", dir="/tmp"))
        self.folder.chmod(0o711)  # PostgreSQL's account must be able to enter
        self._server = EmbeddedPostgres(self.folder, settings=settings)
        self._names = 0

    def __enter__(self) -> Cluster:
        self._server.start_now()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.stop_now()
        shutil.rmtree(self.folder, ignore_errors=True)

    def queue(self, kind: str, batch: int = 100) -> Queue:
        """A queue of that kind, empty."""
        self._names += 1
        name = f"{kind}_{self._names}"
        asyncio.run(tell(self._server.dsn, [f"create database {name}"]))
        return Queue(self, kind, self._server.dsn.replace("@/postgres?", f"@/{name}?"), batch)

    def cpu(self) -> float:
        """CPU seconds of PostgreSQL so far, all of its processes."""
        pid = self._server.pid
        assert pid is not None, "PostgreSQL does not run"
        return processes.cpu(pid).all


async def tell(dsn: str, statements: Iterable[str]) -> None:
    """SQL, each a transaction."""
    connection = await asyncpg.connect(dsn)
    try:
        for statement in statements:
            await connection.execute(statement, timeout=LIMIT_S)
    finally:
        await connection.close()
