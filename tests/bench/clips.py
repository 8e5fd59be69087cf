"""Clips as the benches of tracking need them: worlds of very many, campaigns to settle, and one PostgreSQL for all of it.

    with Cluster() as cluster:
        dsn = cluster.database("world")         a new one, migrated
        asyncio.run(populate(dsn, 1_000_000, seed))

A world is like one that has been running for weeks: few viral clips, many slow ones, some whose campaign is over, about one in twelve
due, some never looked at, some put off after a failure.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Final

from server.edge import logs
from server.edge.clock import SystemClock
from server.edge.embedded import EmbeddedPostgres
from server.edge.postgres import Database, migrate
from tests.bench.queues import tell

CAMPAIGNS: Final = 100
SLICE: Final = 100_000
"""Clips made by one statement: a statement of the server's own may not take longer than its limit."""

# What is drawn for a clip: `u` its pace, `v` where it stands between two looks.
POPULATE: Final = """
insert into tracking.clips
    (platform, post_id, url, tracked, newest_campaign_at, young, created_at, last_checked_at, pace, next_due_at)
select 'x', n, 'https://x.com/i/status/' || n, case when pace = 'daily' then 'ended' else 'active' end,
    campaign_at, campaign_at is not null, created_at, looked_at, pace, case
        when looked_at is null then created_at
        when w < 0.01 then now() + v * interval '5 hours'
        else looked_at + hours * interval '1 hour' - interval '90 seconds' end
from (
    select *, now() - interval '10 days' - n * interval '100 ms' as created_at,
        case when u >= 0.002 then now() - v * 1.09 * hours * interval '1 hour' end as looked_at,
        case when w > 0.8 and pace <> 'daily' then now() - w * w * interval '7 days' end as campaign_at
    from (
        select n, u, random() as v, random() as w,
            case when u < 0.05 then 'new' when u < 0.08 then 'viral' when u < 0.20 then 'normal'
                when u < 0.65 then 'slow' when u < 0.90 then 'dormant' else 'daily' end as pace,
            case when u < 0.05 then 4 when u < 0.08 then 2 when u < 0.20 then 4 when u < 0.65 then 8 else 24 end as hours
        from (select n, random() as u from generate_series($1::bigint, $2::bigint) n) drawn
    ) paced
) placed"""
SUBMIT: Final = (
    f"""insert into tracking.campaigns (name, rate_cents, budget_cents, baseline, created_by)
    select 'bench ' || n, 100, 100000000000, 'zero', 'bench' from generate_series(1, {CAMPAIGNS}) n""",
    f"""insert into tracking.clip_submissions (campaign_id, clip_id, creator, status, baseline_views)
    select 1 + id % {CAMPAIGNS}, id, 'creator ' || id % 500, 'APPROVED', 0 from tracking.clips""",
    f"""update tracking.campaigns set submissions = (select count(*) from tracking.clips) / {CAMPAIGNS}""",
)
ANALYZE: Final = ("vacuum (analyze) tracking.clips, tracking.clip_submissions, tracking.campaigns",)


class Cluster:
    """One PostgreSQL with the server's own settings, in a folder that is gone afterwards."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="batchcast-bench-", dir="/tmp"))
        self._folder.chmod(0o711)  # PostgreSQL's account must be able to enter
        self._server = EmbeddedPostgres(self._folder)

    def __enter__(self) -> Cluster:
        logs.configure(level="warning")
        self._server.start_now()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.stop_now()
        shutil.rmtree(self._folder, ignore_errors=True)

    def database(self, name: str) -> str:
        """A new one with the whole schema."""
        asyncio.run(tell(self._server.dsn, [f"create database {name}"]))
        dsn = self._server.dsn.replace("@/postgres?", f"@/{name}?")
        asyncio.run(_migrated(dsn))
        return dsn


@asynccontextmanager
async def opened(dsn: str) -> AsyncIterator[Database]:
    """The database, as the server opens it."""
    db = await Database.open(dsn, clock=SystemClock())
    try:
        yield db
    finally:
        await db.close()


async def _migrated(dsn: str) -> None:
    async with opened(dsn) as db:
        await migrate(db)


async def populate(dsn: str, count: int, seed: int, also: Sequence[str] = ()) -> None:
    """So many clips, the same ones for the same seed."""
    async with opened(dsn) as db, db.connection() as connection:
        await connection.execute(f"select setseed({seed % 1000 / 1000})")
        for first in range(1, count + 1, SLICE):
            await connection.execute(POPULATE, first, min(first + SLICE - 1, count))
    await tell(dsn, [*also, *ANALYZE])
