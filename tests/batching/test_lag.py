"""The lag is how late a probe comes, seen closely while somebody watches."""

from __future__ import annotations

import asyncio

import pytest

from server.batching.lag import CALM_MS, CLOSE_MS, Lag
from server.batching.loop import Loop, Occasion
from server.edge.clock import VirtualClock

pytestmark = pytest.mark.pure
OCCASION = Occasion("interval", 1, 0)


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(start_ms=0)


async def test_a_probe_that_comes_in_time_shows_no_lag_and_a_late_one_how_late(clock: VirtualClock) -> None:
    lag = Lag(clock)
    await lag.turn(OCCASION)
    await clock.advance(CALM_MS / 1000)
    await lag.turn(OCCASION)
    assert lag.worst_s == pytest.approx(0)
    await clock.advance(CALM_MS / 1000 + 0.25)
    await lag.turn(OCCASION)
    await clock.advance(CALM_MS / 1000 + 0.05)
    await lag.turn(OCCASION)
    assert lag.worst_s == pytest.approx(0.25)
    assert lag.watched_s == 0.0


async def test_a_watch_is_close_and_keeps_its_own_worst(clock: VirtualClock) -> None:
    intervals: list[int] = []
    lag = Lag(clock, intervals.append)
    await lag.turn(OCCASION)
    await clock.advance(1)
    await lag.turn(OCCASION)
    with lag.watch():
        await clock.advance(CLOSE_MS / 1000 + 0.03)
        with lag.watch():
            await lag.turn(OCCASION)
    assert (lag.watched_s, lag.worst_s) == (pytest.approx(0.03), pytest.approx(0.9))
    assert intervals == [CLOSE_MS, CALM_MS]
    with lag.watch():
        pass
    assert lag.watched_s == pytest.approx(0, abs=1e-9) and lag.worst_s == pytest.approx(0.9)


async def test_what_held_up_the_loop_to_the_end_of_a_watch_counts_too(clock: VirtualClock) -> None:
    lag = Lag(clock)
    with lag.watch():
        await clock.advance(0.5)
    assert lag.watched_s == pytest.approx(0.5 - CLOSE_MS / 1000)


async def test_as_a_loop_it_is_retimed_while_somebody_watches(clock: VirtualClock) -> None:
    lag = Lag(clock)
    loop = Loop("lag", lag.turn, clock=clock, record=lambda record: None, interval_ms=CALM_MS)
    lag.retime = loop.set_interval
    task = asyncio.get_running_loop().create_task(loop.run())
    await clock.advance(1)
    calm = loop.turns
    with lag.watch():
        await clock.advance(1)
    assert loop.turns - calm > 5 * calm
    await loop.stop()
    await task
    assert lag.worst_s == pytest.approx(0, abs=1e-6)
