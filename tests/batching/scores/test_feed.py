"""The feed's verbs, with its loops running in virtual time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio

from server.batching.scores.views import Kind
from server.core.event import Op
from server.edge.clock import SystemClock
from server.edge.postgres import Database
from server.errors import Refused
from server.protocol.event import event_op, popularity_op
from tests.batching.scores.world import ADMIN, Trial, make_feed, trial

INTERVAL_MS = 900_000
EVERYWHERE = {"north": 90, "south": -90, "east": 180, "west": -180}
NOWHERE = {"north": -80, "south": -81, "east": -170, "west": -171}


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


ADAPTIVE = {"adaptive_batching": True, "adaptive_min_interval_ms": 2_000, "adaptive_max_interval_ms": 600_000}


@asynccontextmanager
async def live(db: Database, **settings: Any) -> AsyncIterator[Trial]:
    async with trial(db, **settings) as one:
        one.feed._panel.start()
        await one.clock.settle()
        yield one
        await one.feed._panel.stop()
        await one.feed._panel._tasks.close()


def place(event_id: str, start_ms: int) -> Op:
    return event_op({"id": event_id, "location": {"latitude": 0, "longitude": 0}, "start": start_ms})


async def test_an_adaptive_interval_follows_activity_and_says_so(db: Database) -> None:
    async with live(db, **ADAPTIVE, max_batch_size=100) as one:
        feed, clock = one.feed, one.clock
        assert feed.config()["nextBatchAt"] == clock.now_ms() + 600_000, "it begins within its bounds"
        await feed.ingest([place(f"e{n}", clock.now_ms()) for n in range(40)], ADMIN)
        for turn in range(20):
            counted = [popularity_op({"eventId": f"e{n}", "scanCount": turn + 1}) for n in range(40)]
            await feed.ingest(counted, ADMIN)
            await clock.advance(5)
        busy = (await feed.stats())["adaptive"]
        assert isinstance(busy, dict)
        assert 2_000 <= busy["intervalMs"] <= 20_000
        assert busy["rate"] > 2
        assert feed._flush.turns > 3
        await clock.advance(1800)
        calm = (await feed.stats())["adaptive"]
        assert isinstance(calm, dict) and calm["intervalMs"] >= 480_000


async def test_without_the_setting_the_interval_stands_still(running: Trial) -> None:
    assert (await running.feed.stats())["adaptive"] is None
    assert "adapt" not in [state.name for state in running.feed._panel.list()]


async def test_an_event_that_soars_goes_out_early_only_while_adaptive(db: Database) -> None:
    for adaptive in (True, False):
        async with live(db, **{**ADAPTIVE, "adaptive_batching": adaptive}) as one:
            feed, clock = one.feed, one.clock
            await feed.ingest([place("hot", clock.now_ms()), place("mild", clock.now_ms())], ADMIN)
            await feed.ingest(
                [popularity_op({"eventId": "hot", "rsvpCount": 3}), popularity_op({"eventId": "mild", "scanCount": 1})],
                ADMIN,
            )
            if adaptive:
                await clock.until(lambda pending=feed.desk.pending: list(pending) == ["mild"])  # type: ignore[misc]
            else:
                assert (list(feed.desk.pending), feed.desk.urgent) == (["hot", "mild"], set())


async def test_a_start_orders_the_world_once_however_many_pages_it_reads(running: Trial) -> None:
    place_all = [place(f"e{n:05d}", running.clock.now_ms()) for n in range(6000)]
    for start in range(0, len(place_all), 1000):
        await running.feed.ingest(place_all[start : start + 1000], ADMIN)
    again = make_feed(running.db, SystemClock(), running.feed._settings, threaded=True)
    assert await again.load() == 6000
    assert await again._engine.ask(lambda lookout: (len(lookout.columns), lookout.columns.merges)) == (6000, 1)
    await again.close()


async def test_no_change_comes_between_a_new_registration_and_its_snapshot(running: Trial) -> None:
    """The round below is drawn when the viewer already asks something else, and is still no answer to that."""
    await running.feed.ingest([place("a", running.clock.now_ms())], ADMIN)
    feed, gate = make_feed(running.db, running.clock, running.feed._settings, threaded=True), threading.Event()
    await feed.load()
    threaded = Trial(feed, running.clock, running.db)
    client = await threaded.join(1, {"viewport": EVERYWHERE})
    assert client.viewer is not None and list(client.view.events) == ["a"]
    busy = feed._engine.ask(lambda lookout: gate.wait(30))
    walk = asyncio.create_task(
        threaded.turns._walk([client.viewer], Kind.IMMEDIATE, None, running.clock.now_ms(), urgent=True)
    )
    await asyncio.sleep(0)
    again = asyncio.create_task(threaded.join(1, {"viewport": NOWHERE}))
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(busy, walk, again)
    assert [frame["type"] for frame in client.frames] == ["replace-all", "replace-all"]
    assert client.view.events == {}
    await feed.close()
