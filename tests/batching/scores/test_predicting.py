"""PREDICTIVE_BATCHING in a feed whose loops run in virtual time, over two weeks of a rhythm."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from server.batching.loop import TurnRecord
from server.batching.scores.predictive import HOUR_MS, WEEK_MS, hour_of_week
from server.edge.postgres import Database
from server.errors import StartRefused
from server.settings import load
from tests.batching.scores.test_feed import live
from tests.batching.scores.world import START, Trial, trial

SETTINGS: dict[str, Any] = {
    "predictive_batching": True,
    "batch_interval_ms": 3_600_000,
    "adaptive_min_interval_ms": 60_000,
    "adaptive_max_interval_ms": 86_400_000,
}
INSERT = """
insert into ops.batch_runs (node, loop, number, trigger, started_at, seconds, taken, done, failed, deferred, missed, more)
select 'other', $1, row_number() over (), 'wake', at, 0, n, n, 0, 0, 0, false from unnest($2::timestamptz[], $3::bigint[]) as r (at, n)"""


def busy(at_ms: int) -> bool:
    """Seven to ten in the evening."""
    return 19 <= hour_of_week(at_ms) % 24 < 22


async def remember(db: Database, since_ms: int, until_ms: int) -> None:
    """A row a minute, as the ledger folds them: 300 accepted a minute in the evening, 3 else."""
    minutes = range(since_ms, until_ms, 60_000)
    times = [datetime.fromtimestamp(ms / 1000, UTC) for ms in minutes]
    async with db.connection() as connection:
        await connection.execute("delete from ops.batch_runs")
        await connection.execute(INSERT, "ingest", times, [300 if busy(ms) else 3 for ms in minutes])
        await connection.execute(INSERT, "ledger", times[:1], [0])


async def turned_at(one: Trial, hours: int) -> list[int]:
    """When flushes came by themselves in so many hours."""
    found: list[int] = []
    flush = one.feed._flush
    record = flush._record

    def watch(turn: TurnRecord) -> None:
        if turn.trigger == "interval":
            found.append(turn.started_at_ms)
        record(turn)

    flush._record = watch
    for _ in range(hours * 12):
        await one.clock.advance(300)
        await one.clock.until(lambda: not any(loop.running for loop in one.feed._panel._loops.values()))
        await one.clock.settle()
    return found


async def test_flushes_crowd_where_past_weeks_were_busy(db: Database) -> None:
    await remember(db, START - 2 * WEEK_MS, START)
    async with live(db, **SETTINGS) as one:
        await one.clock.until(lambda: one.feed._panel._ledger.recent("predict") != [])
        foretold = (await one.feed.stats())["predictive"]
        assert isinstance(foretold, dict)
        assert foretold["knownHours"] >= 335
        assert foretold["peakRate"] == 5.0
        times = await turned_at(one, 48)
        evening = [at for at in times if busy(at)]
        rest = [at for at in times if not busy(at)]
        assert len(evening) / 6 > 5 * len(rest) / 42, "flushes an hour"
        assert 30 <= len(times) <= 66, "about as many as the set interval would make"


def test_bounds_the_wrong_way_round_stop_the_start_also_without_adaptive_batching() -> None:
    wrong = {"ADAPTIVE_MIN_INTERVAL_MS": "2000", "ADAPTIVE_MAX_INTERVAL_MS": "1000"}
    load(wrong)
    with pytest.raises(StartRefused, match="ADAPTIVE_MIN_INTERVAL_MS=2000"):
        load({**wrong, "PREDICTIVE_BATCHING": "true"})


async def test_off_by_default_and_not_in_the_way(db: Database) -> None:
    async with trial(db) as one:
        assert (await one.feed.stats())["predictive"] is None
        assert "predict" not in one.feed._panel._loops


async def test_a_server_that_knows_less_than_a_day_keeps_the_set_interval(db: Database) -> None:
    await remember(db, START - 20 * HOUR_MS, START)
    async with live(db, **SETTINGS) as one:
        await one.clock.until(lambda: one.feed._panel._ledger.recent("predict") != [])
        await one.clock.advance(10)
        foretold = (await one.feed.stats())["predictive"]
        assert isinstance(foretold, dict)
        assert (foretold["knownHours"], foretold["rate"], foretold["intervalMs"]) == (0, None, 3_600_000)
