"""Clocks: the machine's, and the one that stands still until it is moved."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.edge.clock import SystemClock, VirtualClock
from server.edge.tasks import Tasks


async def test_virtual_sleepers_wake_in_order_of_their_time_and_see_it() -> None:
    clock, tasks = VirtualClock(start_ms=0), Tasks()
    seen: list[tuple[str, int]] = []

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        seen.append((name, clock.now_ms()))

    for name, seconds in [("c", 0.3), ("a", 0.1), ("b", 0.2), ("b2", 0.2)]:
        tasks.start(name, sleeper(name, seconds))
    await clock.advance(0.25)
    assert seen == [("a", 100), ("b", 200), ("b2", 200)]
    assert clock.now_ms() == 250
    await clock.advance(1)
    assert seen[-1] == ("c", 300)


async def test_what_a_woken_task_waits_for_next_is_due_within_the_same_advance() -> None:
    clock, tasks = VirtualClock(start_ms=0), Tasks()
    seen: list[int] = []

    async def steps() -> None:
        for _ in range(5):
            await clock.sleep(0.1)
            await asyncio.sleep(0)
            seen.append(clock.now_ms())

    tasks.start("steps", steps())
    await clock.advance(0.5)
    assert seen == [100, 200, 300, 400, 500]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 20_000), max_size=20), st.lists(st.integers(0, 30_000), max_size=10))
def test_sums_of_virtual_sleeps_and_advances_are_exact(sleeps_ms: list[int], advances_ms: list[int]) -> None:
    async def scenario() -> None:
        clock, tasks = VirtualClock(start_ms=0), Tasks()
        seen: list[int] = []

        async def steps() -> None:
            for sleep_ms in sleeps_ms:
                await clock.sleep(sleep_ms / 1000)
                seen.append(clock.now_ms())

        tasks.start("steps", steps())
        for advance_ms in advances_ms:
            await clock.advance(advance_ms / 1000)
        sums = [sum(sleeps_ms[: end + 1]) for end in range(len(sleeps_ms))]
        assert seen == [total for total in sums if total <= sum(advances_ms)]
        await tasks.close()

    asyncio.run(scenario())


async def test_waiting_for_an_event_says_whether_it_came_in_time() -> None:
    clock, tasks = VirtualClock(), Tasks()
    event = asyncio.Event()
    in_time = tasks.start("in time", clock.wait(event, 1))
    too_late = tasks.start("too late", clock.wait(asyncio.Event(), 1))
    await clock.advance(0.5)
    event.set()
    await clock.settle()
    assert in_time.result() is True
    assert not too_late.done()
    await clock.advance(0.5)
    assert too_late.result() is False


async def test_a_cancelled_virtual_wait_leaves_nothing_behind() -> None:
    clock, tasks = VirtualClock(), Tasks()
    waiting = tasks.start("waits", clock.sleep(10))
    await clock.settle()
    waiting.cancel()
    await clock.advance(20)
    assert waiting.cancelled()


async def test_virtual_chance_repeats_with_its_seed() -> None:
    first, second, other = VirtualClock(seed=7), VirtualClock(seed=7), VirtualClock(seed=8)
    draws = [first.random() for _ in range(5)]
    assert draws == [second.random() for _ in range(5)]
    assert draws != [other.random() for _ in range(5)]
    assert all(0 <= draw < 1 for draw in draws)


async def test_a_task_that_spins_is_reported_and_not_waited_for_for_ever() -> None:
    clock, tasks = VirtualClock(), Tasks()

    async def spin() -> None:
        while True:
            await clock.sleep(0)

    tasks.start("spin", spin())
    with pytest.raises(AssertionError, match="spins"):
        await clock.advance(1)
    await tasks.close()


async def test_the_system_clock_waits_for_events_and_gives_up_at_the_timeout() -> None:
    clock = SystemClock()
    event = asyncio.Event()
    assert await clock.wait(event, 0.001) is False
    event.set()
    assert await clock.wait(event, 60) is True
    assert await clock.wait(event, None) is True
    before = clock.monotonic()
    await clock.sleep(0.001)
    assert clock.monotonic() > before
    assert clock.now_ms() > 1_600_000_000_000
    assert 0 <= clock.random() < 1
