"""A run that could not serve all clips at their paces lets them wait longer; one that can does not."""

from __future__ import annotations

import datetime as dt

import pytest

from server.edge.postgres import Database
from tests.batching.tracking.running import node

WAIT = "select next_due_at - last_checked_at from tracking.clips where last_checked_at is not null"


@pytest.mark.parametrize(("limit", "hours"), [(100, 4), (1, 16)])
async def test_a_clip_waits_longer_when_the_runs_could_not_serve_all_of_them(
    db: Database, limit: int, hours: int
) -> None:
    async with node(db, tracking_limit=limit) as one:
        await one.posts(await one.campaign(), 20)
        await one.tell("update tracking.clips set created_at = created_at - interval '9 days'")
        run = await one.work(1)
        assert run.successful == 1
        wait = await one.ask(WAIT)
    assert abs(wait - dt.timedelta(hours=hours)) < dt.timedelta(minutes=10)
