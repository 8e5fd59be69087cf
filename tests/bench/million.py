"""A DATA_DIR with very many events in it, made once by SQL and kept under build/ until the schema or the number changes."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from pathlib import Path
from typing import Final

import asyncpg

from server.edge.clock import SystemClock
from server.edge.embedded import EmbeddedPostgres
from server.edge.postgres import Database, migrate

FILL: Final = """
insert into feed.event (id, title, emoji, description, categories, latitude, longitude, start_ms, timezone, status,
    confidence, private, shared_with, priority, created_ms, updated_ms, last_end_ms)
select 'e' || lpad(n::text, 7, '0'), 'Meeting ' || n || ' at the old market', '🎪', rpad('A word or two about it. ', 75, 'x'),
    array['music', 'food'], -45 + (n % 330) * 0.3 + random() * 0.25, -170 + (n % 331) * 1.02 + random() * 0.25,
    now + random() * 1.4e9, 'Europe/Berlin', 'VERIFIED', random(), false, '{}', 'normal', now, now, now + 300000000000
from generate_series(1, $1) n, (select (extract(epoch from clock_timestamp()) * 1000)::bigint as now) t"""
COUNT: Final = """
insert into feed.counters (event_id, scan, save, rsvp, pub_scan, pub_save, pub_rsvp, version)
select id, 3, 1, 0, 3, 1, 0, nextval('feed.version') from feed.event"""


def ready(folder: Path, count: int) -> Path:
    """The DATA_DIR; its events are far from ending, so no start finds anything to expire."""
    data_dir = folder / f"events-{count}"
    mark = data_dir / "made"
    wanted = f"{count} {_schema()} {hash_of(FILL + COUNT)}"
    if mark.exists() and mark.read_text() == wanted:
        return data_dir
    shutil.rmtree(data_dir, ignore_errors=True)
    data_dir.mkdir(parents=True)
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
        await connection.execute(FILL, count, timeout=1200)
        await connection.execute(COUNT, timeout=1200)
        for table in ("feed.event", "feed.counters"):
            await connection.execute(f"vacuum (analyze, freeze) {table}", timeout=1200)
    finally:
        await connection.close()


def _schema() -> str:
    """Changes with every migration."""
    folder = Path(__file__).resolve().parents[2] / "server" / "edge" / "schema"
    return hash_of("".join(file.read_text() for file in sorted(folder.glob("*.sql"))))


def hash_of(text: str) -> str:
    """Short."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
