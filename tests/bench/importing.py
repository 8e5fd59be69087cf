"""The import of members as a user starts it: a provider on loopback in a process of its own, and servers that import from it.

with standing(50_000) as url, Importing(url) as server:
    server.work(50_000)                       one import, from the request to its end: CPU and wall
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final

import asyncpg

from server.edge import logs
from server.edge.attached import attached
from server.edge.clock import SystemClock
from server.edge.embedded import EmbeddedPostgres
from server.edge.postgres import SCHEMA, Database, migrate
from tests.bench.queues import Spent, tell
from tests.bench.served import LIMIT_S, ROOT, Server
from tests.doubles.members import GOOD

LIST: Final = 50_000
"""Contacts in each list that is there before."""
POLL_S: Final = 0.03
STANDING: Final = 1_000_000
"""Lists above this number are those of the imports that are measured."""
FILL: Final = """
insert into imports.contacts (audience_id, email, external_id, name, username, status, joined_ms, extra)
select $1, 'member' || n || '@example.test', 'mber_' || n, 'Ada Brandt', 'member' || n, 'joined', 1770000000000 + n,
    '{"access_level": "customer", "usd_total_spent": 12.5}'::jsonb
from generate_series($2::bigint, $2 + $3 - 1) n"""
QUIET: Final = (
    "alter table imports.contacts set (autovacuum_enabled = off)",
    f"delete from imports.audiences where id > {STANDING}",
    f"alter table imports.audiences alter column id restart with {STANDING + 1}",
)
EMPTY: Final = (f"delete from imports.contacts where audience_id > {STANDING}", "vacuum imports.contacts")


@contextmanager
def standing(members: int) -> Iterator[str]:
    """A provider with so many members; its address."""
    command = [sys.executable, "-m", "tests.doubles.members", "--members", str(members)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


class Importing:
    """A server that imports from there as fast as it can; `data_dir` is kept, without one it begins empty and leaves nothing."""

    def __init__(self, url: str, data_dir: Path | None = None) -> None:
        self._own = data_dir is None
        if data_dir is None:
            data_dir = Path(tempfile.mkdtemp(prefix="batchcast-bench-", dir="/tmp"))
            data_dir.chmod(0o711)  # PostgreSQL's account must be able to enter
        quick = {"IMPORTS_PROVIDER_URL": url, "IMPORTS_CALLS_PER_S": 10_000, "IMPORTS_CALLS_BURST": 10_000}
        self.server = Server(data_dir, IMPORTS_KEY="a key of the benches, long enough to be taken", **quick)

    def __enter__(self) -> Importing:
        self.server.start()
        self._tell(*QUIET)
        known = {one["account"] for one in self.server.ask("GET", "/credentials")["credentials"]}
        if "biz_bench" not in known:
            self.server.ask("POST", "/credentials", b'{"account": "biz_bench", "value": "%b"}' % GOOD.encode())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.server.stop()
        if self._own:
            shutil.rmtree(self.server.data_dir, ignore_errors=True)

    def work(self, members: int) -> Spent:
        """One import into a new list, after what the one before has left is gone."""
        self._tell(*EMPTY)
        before, began = self.server.cpu(), time.monotonic()
        self._import(members)
        wall, spent = time.monotonic() - began, self.server.cpu() - before
        return Spent(spent.own, spent.below, wall, [])

    def growth(self, members: int) -> int:
        """By how many bytes the server was larger than before, at the most, during an import."""
        self._tell(*EMPTY)
        before = self.server.rss()
        return max(self._import(members)) - before

    def _import(self, members: int) -> list[int]:
        job = self.server.ask("POST", "/imports", b'{"listName": "bench", "account": "biz_bench"}')["job"]
        sizes = []
        ends = time.monotonic() + LIMIT_S
        while job["status"] in ("pending", "processing"):
            assert time.monotonic() < ends, f"the import does not end: {job}"
            time.sleep(POLL_S)
            sizes.append(self.server.rss())
            job = self.server.ask("GET", f"/imports/{job['id']}")
        assert job["status"] == "completed", job
        assert job["seen"] == members, job
        return sizes

    def _tell(self, *statements: str) -> None:
        asyncio.run(tell(attached(self.server.data_dir), statements))


def ready(folder: Path, count: int) -> Path:
    """A DATA_DIR with so many contacts in lists of LIST, made once and kept until the schema or the number changes."""
    data_dir = folder / f"contacts-{count}"
    mark = data_dir / "made"
    texts = [*(path.read_text() for path in sorted(SCHEMA.glob("*.sql"))), FILL, *QUIET]
    wanted = f"{count} {hashlib.sha256(repr(texts).encode()).hexdigest()}"
    if mark.exists() and mark.read_text() == wanted:
        return data_dir
    shutil.rmtree(data_dir, ignore_errors=True)
    data_dir.mkdir(parents=True)
    logs.configure(level="warning")
    server = EmbeddedPostgres(data_dir, settings={"fsync": "off", "max_wal_size": "4GB"})
    try:
        asyncio.run(_fill(server.start_now(), count))
    finally:
        server.stop_now()
    mark.write_text(wanted)
    return data_dir


async def _fill(dsn: str, count: int) -> None:
    db = await Database.open(dsn, clock=SystemClock())
    try:
        await migrate(db)
    finally:
        await db.close()
    connection = await asyncpg.connect(dsn)
    try:
        for number, start in enumerate(range(0, count, LIST), 1):
            await connection.execute(FILL, number, start, min(LIST, count - start), timeout=LIMIT_S)
        await connection.execute("vacuum (analyze, freeze) imports.contacts", timeout=LIMIT_S)
    finally:
        await connection.close()
