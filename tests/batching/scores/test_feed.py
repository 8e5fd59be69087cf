"""The feed's verbs, with its loops running in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from server.edge.postgres import Database
from server.errors import Refused
from tests.batching.scores.world import ADMIN, Trial, make_feed, trial

INTERVAL_MS = 900_000


@pytest_asyncio.fixture
async def running(db: Database) -> AsyncIterator[Trial]:
    async with trial(db) as one:
        one.feed._panel.start()
        await one.clock.settle()
        yield one
        await one.feed._panel.stop()
        await one.feed._panel._tasks.close()


async def test_batching_switched_off_flushes_first_and_switched_on_starts_the_timer_anew(running: Trial) -> None:
    feed, clock = running.feed, running.clock
    await feed.ingest([], ADMIN)
    assert feed.config()["nextBatchAt"] == clock.now_ms() + INTERVAL_MS
    await clock.advance(600)
    off = await feed.configure({"enableBatching": False}, ADMIN)
    assert off["nextBatchAt"] is None
    assert feed._flush.turns == 1
    await clock.advance(500)
    assert feed._flush.turns == 1, "an interval's flush came while batching was off"
    on = await feed.configure({"enableBatching": True}, ADMIN)
    assert on["nextBatchAt"] == clock.now_ms() + INTERVAL_MS


async def test_a_new_interval_retimes_the_wait_in_progress(running: Trial) -> None:
    feed, clock = running.feed, running.clock
    await clock.advance(100)
    later = await feed.configure({"batchIntervalMs": 150_000}, ADMIN)
    assert later["nextBatchAt"] == clock.now_ms() + 50_000
    await feed.configure({"batchIntervalMs": 60_000}, ADMIN)
    await clock.until(lambda: feed._flush.turns == 1)


async def test_a_run_time_value_survives_a_restart_and_can_be_reset(running: Trial) -> None:
    await running.feed.configure({"maxBatchSize": 7}, ADMIN)
    again = make_feed(running.db, running.clock, running.feed._settings)
    await again.load()
    assert (again.config()["maxBatchSize"], again.config()["sources"]) == (
        7,
        {"batchIntervalMs": "default", "maxBatchSize": "runtime", "enableBatching": "default"},
    )
    reset = await again.reset("maxBatchSize", ADMIN)
    assert reset["maxBatchSize"] == 1000
    async with running.db.connection() as connection:
        audit = await connection.fetch("select who, action from ops.audit order by id")
    assert [(row["who"], row["action"]) for row in audit] == [("root", "configure")] * 2


@pytest.mark.parametrize(
    ("name", "value"),
    [("batchIntervalMs", 99), ("batchIntervalMs", 86_400_001), ("maxBatchSize", 0), ("enableBatching", 1), ("nope", 1)],
)
async def test_a_value_out_of_bounds_is_refused_by_name_and_changes_nothing(
    running: Trial, name: str, value: object
) -> None:
    before = running.feed.config()
    with pytest.raises(Refused) as caught:
        await running.feed.configure({name: value}, ADMIN)
    assert caught.value.field == name
    assert running.feed.config() == before
