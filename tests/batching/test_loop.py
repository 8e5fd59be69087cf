"""Loops in virtual time: when turns start, who waits for which, and what their records say."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.batching.loop import Loop, Occasion, Turn, TurnRecord
from server.edge.clock import VirtualClock
from server.edge.tasks import Tasks
from server.errors import Refused

START_MS = 1_700_000_000_000  # 2023-11-14 22:13:20 UTC


@dataclass
class Work:
    """A turn that takes as long as it is told, and notes when it was called."""

    clock: VirtualClock
    seconds: list[float] = field(default_factory=list)
    results: list[Turn | BaseException] = field(default_factory=list)
    starts_ms: list[int] = field(default_factory=list)
    triggers: list[str] = field(default_factory=list)
    under_way: int = 0
    at_once: int = 0

    async def turn(self, occasion: Occasion) -> Turn:
        self.starts_ms.append(occasion.now_ms - START_MS)
        self.triggers.append(occasion.trigger)
        self.under_way += 1
        self.at_once = max(self.at_once, self.under_way)
        try:
            await self.clock.sleep(self.seconds.pop(0) if self.seconds else 0)
        finally:
            self.under_way -= 1
        result = self.results.pop(0) if self.results else Turn()
        if isinstance(result, BaseException):
            raise result
        return result


class Bench:
    """A virtual clock, tasks, and the loops of one test."""

    def __init__(self) -> None:
        self.clock = VirtualClock(START_MS)
        self.tasks = Tasks()
        self.work = Work(self.clock)
        self.records: list[TurnRecord] = []

    def loop(
        self,
        *,
        interval_ms: int | None = None,
        cron: str | None = None,
        min_gap_ms: int = 0,
        may_run: Callable[[], bool] = lambda: True,
        leader: Callable[[], str | None] = lambda: None,
        paused: bool = False,
    ) -> Loop:
        loop = Loop(
            "toy",
            self.work.turn,
            clock=self.clock,
            record=self.records.append,
            interval_ms=interval_ms,
            cron=cron,
            min_gap_ms=min_gap_ms,
            may_run=may_run,
            leader=leader,
            paused=paused,
        )
        self.tasks.start("toy", loop.run())
        return loop


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    await bench.tasks.close()


# Ticks of an interval


async def test_a_turn_starts_at_every_tick_of_the_interval(bench: Bench) -> None:
    bench.loop(interval_ms=100)
    await bench.clock.advance(0.35)
    assert bench.work.starts_ms == [100, 200, 300]
    assert [(record.number, record.trigger) for record in bench.records] == [
        (1, "interval"),
        (2, "interval"),
        (3, "interval"),
    ]


async def test_ticks_that_pass_during_a_turn_are_dropped_and_counted_in_the_next_record(bench: Bench) -> None:
    bench.work.seconds = [0.25]
    bench.loop(interval_ms=100)
    await bench.clock.advance(0.65)
    assert bench.work.starts_ms == [100, 400, 500, 600]
    assert [record.missed for record in bench.records] == [0, 2, 0, 0]


async def test_a_tick_at_the_instant_in_which_a_turn_ends_is_not_missed(bench: Bench) -> None:
    bench.work.seconds = [0.2]
    bench.loop(interval_ms=100)
    await bench.clock.advance(0.3)
    assert bench.work.starts_ms == [100, 300]
    assert [record.missed for record in bench.records] == [0, 1]


async def test_turns_never_overlap_whatever_asks_for_them(bench: Bench) -> None:
    bench.work.seconds = [0.5] * 10
    loop = bench.loop(interval_ms=100)
    for _ in range(10):
        loop.wake()
        asked = bench.tasks.start("asks", loop.run_now())
        await bench.clock.advance(0.17)
    await bench.clock.advance(1)
    assert asked.done()
    assert bench.work.at_once == 1


def obvious_starts(interval_ms: int, took_ms: list[int], until_ms: int) -> list[tuple[int, int]]:
    """The slow oracle: walk through every millisecond. (start, ticks missed since the start before)."""
    starts: list[tuple[int, int]] = []
    busy_until, missed = 0, 0
    for now in range(1, until_ms + 1):
        tick = now % interval_ms == 0
        if tick and now < busy_until:
            missed += 1
        elif tick:
            took = took_ms[len(starts)] if len(starts) < len(took_ms) else 0
            starts.append((now, missed))
            busy_until, missed = now + took, 0
    return starts


@settings(max_examples=60, deadline=None)
@given(interval_ms=st.integers(1, 60), took_ms=st.lists(st.integers(0, 200), max_size=8))
def test_the_grid_of_ticks_equals_the_slow_obvious_one(interval_ms: int, took_ms: list[int]) -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.work.seconds = [took / 1000 for took in took_ms]
        bench.loop(interval_ms=interval_ms)
        await bench.clock.advance(0.6)
        expected = obvious_starts(interval_ms, took_ms, 600)
        assert bench.work.starts_ms == [start for start, _ in expected]
        finished = [record.missed for record in bench.records]
        assert finished == [missed for _, missed in expected][: len(finished)]
        await bench.tasks.close()

    asyncio.run(scenario())


# Cron lines


async def test_a_cron_loop_runs_at_the_minutes_of_its_line_in_utc(bench: Bench) -> None:
    loop = bench.loop(cron="*/15 22-23 * * *")
    assert loop.next_at_ms() == START_MS + 100_000  # 22:15
    await bench.clock.advance(3600)
    assert bench.work.starts_ms == [100_000, 1_000_000, 1_900_000, 2_800_000]
    assert {record.trigger for record in bench.records} == {"cron"}


async def test_a_cron_tick_missed_by_a_long_turn_is_counted_not_made_up(bench: Bench) -> None:
    bench.work.seconds = [150]
    bench.loop(cron="* * * * *")
    await bench.clock.advance(300)
    assert bench.work.starts_ms == [40_000, 220_000, 280_000]
    assert [record.missed for record in bench.records] == [0, 2, 0]


# Run now


async def test_all_who_ask_before_a_turn_starts_share_it(bench: Bench) -> None:
    loop = bench.loop()
    asked = [bench.tasks.start("asks", loop.run_now()) for _ in range(3)]
    await bench.clock.settle()
    assert [task.result().number for task in asked] == [1, 1, 1]
    assert bench.work.triggers == ["forced"]


async def test_who_asks_during_a_turn_is_answered_with_the_next_one(bench: Bench) -> None:
    bench.work.seconds = [1.0]
    loop = bench.loop(interval_ms=1000)
    await bench.clock.advance(1.5)
    assert loop.running
    asked = bench.tasks.start("asks", loop.run_now())
    await bench.clock.advance(0.4)
    assert not asked.done()
    await bench.clock.advance(0.1)
    assert asked.result().number == 2
    assert asked.result().started_at_ms == START_MS + 2000


async def test_run_now_works_while_paused(bench: Bench) -> None:
    loop = bench.loop(interval_ms=100, paused=True)
    asked = bench.tasks.start("asks", loop.run_now())
    await bench.clock.advance(1)
    assert asked.result().trigger == "forced"
    assert bench.work.triggers == ["forced"]


async def test_who_stops_waiting_for_a_turn_does_not_take_it_from_the_others(bench: Bench) -> None:
    bench.work.seconds = [1.0]
    loop = bench.loop()
    hasty = bench.tasks.start("hasty", loop.run_now())
    patient = bench.tasks.start("patient", loop.run_now())
    await bench.clock.advance(0.5)
    hasty.cancel()
    await bench.clock.advance(1)
    assert patient.result().error is None
    assert len(bench.records) == 1


async def test_run_now_is_refused_where_another_node_leads_and_says_who(bench: Bench) -> None:
    loop = bench.loop(interval_ms=100, may_run=lambda: False, leader=lambda: "node-7")
    with pytest.raises(Refused, match="node-7 leads") as refusal:
        await loop.run_now()
    assert refusal.value.code == "unavailable"


async def test_who_asked_is_refused_when_the_lease_is_lost_before_the_turn(bench: Bench) -> None:
    leads = True
    loop = bench.loop(may_run=lambda: leads)
    asked = bench.tasks.start("asks", refusal_of(loop))
    await asyncio.sleep(0)
    leads = False
    await bench.clock.settle()
    assert asked.result() == "unavailable"
    assert bench.records == []


async def test_the_turns_of_a_loop_that_another_node_leads_are_taken_as_soon_as_this_one_leads(bench: Bench) -> None:
    leads = False
    bench.loop(interval_ms=100, may_run=lambda: leads)
    await bench.clock.advance(0.55)
    assert bench.records == []
    leads = True
    await bench.clock.advance(0.1)
    assert bench.work.starts_ms == [600]
    assert bench.records[0].missed == 0


async def test_a_wake_is_not_kept_where_another_node_leads(bench: Bench) -> None:
    leads = False
    loop = bench.loop(may_run=lambda: leads)
    loop.wake()
    await bench.clock.advance(1)
    leads = True
    await bench.clock.advance(1)
    assert bench.records == []
    loop.wake()
    await bench.clock.settle()
    assert bench.work.triggers == ["wake"]


# Failing turns


async def test_a_turn_that_raises_is_a_failed_record_and_the_loop_goes_on(bench: Bench) -> None:
    bench.work.results = [ValueError("no such column")]
    loop = bench.loop(interval_ms=100)
    asked = bench.tasks.start("asks", loop.run_now())
    await bench.clock.advance(0.1)
    assert asked.result().error == "ValueError: no such column"
    assert [record.error for record in bench.records] == ["ValueError: no such column", None]


async def test_a_turn_that_does_not_add_up_is_a_failed_record() -> None:
    with pytest.raises(AssertionError, match="does not add up"):
        Turn(taken=3, done=1, failed=1)


async def test_a_wake_whose_turn_failed_is_owed_again_after_a_growing_wait(bench: Bench) -> None:
    bench.work.results = [OSError("gone"), OSError("gone"), Turn()]
    loop = bench.loop()
    loop.wake()
    await bench.clock.advance(60)
    assert bench.work.starts_ms == [0, 1000, 3000]


async def test_a_turn_cancelled_from_inside_is_a_failure_of_its_own_not_the_end_of_the_loop(bench: Bench) -> None:
    bench.work.results = [asyncio.CancelledError("a task that it awaited was cancelled")]
    bench.loop(interval_ms=100)
    await bench.clock.advance(0.2)
    assert [record.error is None for record in bench.records] == [False, True]


async def test_cancelling_the_loop_leaves_a_failed_record_and_answers_all_who_wait(bench: Bench) -> None:
    bench.work.seconds = [5]
    loop = bench.loop()
    served = bench.tasks.start("served", loop.run_now())
    await bench.clock.advance(1)
    queued = bench.tasks.start("queued", refusal_of(loop))
    await bench.clock.settle()
    body = next(task for task in asyncio.all_tasks() if task.get_name() == "toy")
    body.cancel()
    await bench.clock.settle()
    assert body.cancelled()
    assert served.result().error is not None
    assert queued.result() == "shutting_down"
    assert bench.records == [served.result()]
    assert not loop.running


async def refusal_of(loop: Loop) -> str:
    try:
        await loop.run_now()
    except Refused as refusal:
        return str(refusal.code)
    return "not refused"


# Intervals that change


async def test_a_shorter_interval_re_times_the_wait_in_progress_from_the_last_tick(bench: Bench) -> None:
    loop = bench.loop(interval_ms=1000)
    await bench.clock.advance(1.1)
    loop.set_interval(300)
    await bench.clock.advance(0.6)
    assert bench.work.starts_ms == [1000, 1300, 1600]


async def test_an_interval_that_is_already_past_starts_a_turn_at_once(bench: Bench) -> None:
    loop = bench.loop(interval_ms=1000)
    await bench.clock.advance(0.7)
    loop.set_interval(200)
    await bench.clock.advance(0.5)
    assert bench.work.starts_ms == [700, 900, 1100]
    assert sum(record.missed for record in bench.records) == 0


async def test_a_longer_interval_puts_the_next_turn_off(bench: Bench) -> None:
    loop = bench.loop(interval_ms=100)
    await bench.clock.advance(0.25)
    loop.set_interval(1000)
    await bench.clock.advance(1)
    assert bench.work.starts_ms == [100, 200, 1200]


async def test_a_loop_without_an_interval_gets_one_and_loses_it_again(bench: Bench) -> None:
    loop = bench.loop()
    await bench.clock.advance(5)
    loop.set_interval(100)
    await bench.clock.advance(0.25)
    loop.set_interval(None)
    await bench.clock.advance(5)
    assert bench.work.starts_ms == [5100, 5200]
    assert loop.next_at_ms() is None


async def test_the_next_turn_is_foretold(bench: Bench) -> None:
    loop = bench.loop(interval_ms=900_000)
    await bench.clock.advance(100)
    assert loop.next_at_ms() == START_MS + 900_000
    loop.wake(after_ms=5_000)
    assert loop.next_at_ms() == START_MS + 105_000
    loop.pause()
    assert loop.next_at_ms() is None


# Wakes


async def test_several_wakes_become_one_turn_at_the_earliest(bench: Bench) -> None:
    loop = bench.loop()
    loop.wake(after_ms=300)
    loop.wake(after_ms=50)
    loop.wake(after_ms=200)
    await bench.clock.advance(10)
    assert bench.work.starts_ms == [50]
    assert bench.work.triggers == ["wake"]


async def test_a_wake_waits_for_the_gap_after_the_last_turn(bench: Bench) -> None:
    bench.work.seconds = [0.1]
    loop = bench.loop(min_gap_ms=500)
    loop.wake()
    await bench.clock.advance(0.2)
    loop.wake()
    await bench.clock.advance(10)
    assert bench.work.starts_ms == [0, 600]


async def test_a_wake_during_a_turn_is_another_turn_after_it(bench: Bench) -> None:
    bench.work.seconds = [0.1]
    loop = bench.loop()
    loop.wake()
    await bench.clock.advance(0.05)
    loop.wake()
    await bench.clock.advance(1)
    assert bench.work.starts_ms == [0, 100]


async def test_a_turn_that_starts_sooner_for_another_reason_serves_the_wake(bench: Bench) -> None:
    loop = bench.loop(interval_ms=1000)
    loop.wake(after_ms=1500)
    await bench.clock.advance(1.9)
    assert bench.work.starts_ms == [1000]


async def test_force_does_not_wait_for_the_gap(bench: Bench) -> None:
    loop = bench.loop(min_gap_ms=5000)
    loop.wake()
    await bench.clock.advance(0.1)
    asked = bench.tasks.start("asks", loop.run_now())
    await bench.clock.settle()
    assert asked.result().started_at_ms == START_MS + 100


@settings(max_examples=60, deadline=None)
@given(
    gap_ms=st.integers(0, 50),
    took_ms=st.integers(0, 30),
    calls=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 60)), max_size=12),
)
def test_every_wake_is_served_in_time_unless_a_turn_or_the_gap_stands_before_it(
    gap_ms: int, took_ms: int, calls: list[tuple[int, int]]
) -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.work.seconds = [took_ms / 1000] * 50
        loop = bench.loop(min_gap_ms=gap_ms)
        wanted: list[tuple[int, int]] = []
        for pause_ms, after_ms in calls:
            await bench.clock.advance(pause_ms / 1000)
            called_ms = bench.clock.now_ms() - START_MS
            wanted.append((called_ms, called_ms + after_ms))
            loop.wake(after_ms)
        await bench.clock.advance(2)
        starts = bench.work.starts_ms
        for called_ms, by_ms in wanted:
            served_ms = next(start for start in starts if start >= called_ms)
            assert served_ms <= by_ms + took_ms + gap_ms
        assert all(later - earlier >= took_ms + gap_ms for earlier, later in pairwise(starts))
        assert len(starts) <= len(wanted)
        await bench.tasks.close()

    asyncio.run(scenario())


# More, pause, stop


async def test_a_turn_that_has_more_to_do_is_followed_by_another_at_once(bench: Bench) -> None:
    bench.work.results = [Turn(2, 2, more=True), Turn(2, 1, 1, more=True), Turn(1, 0, 0, 1)]
    bench.loop(interval_ms=100)
    await bench.clock.advance(0.15)
    assert bench.work.triggers == ["interval", "more", "more"]
    assert bench.work.starts_ms == [100, 100, 100]


async def test_a_paused_loop_takes_no_turn_and_counts_no_tick_until_it_is_resumed(bench: Bench) -> None:
    loop = bench.loop(interval_ms=100)
    await bench.clock.advance(0.15)
    loop.pause()
    await bench.clock.advance(1)
    loop.resume()
    await bench.clock.advance(0.1)
    assert bench.work.starts_ms == [100, 1200]
    assert [record.missed for record in bench.records] == [0, 0]


async def test_what_was_woken_while_paused_runs_when_resumed(bench: Bench) -> None:
    loop = bench.loop(paused=True)
    loop.wake()
    await bench.clock.advance(1)
    assert bench.records == []
    loop.resume()
    await bench.clock.settle()
    assert bench.work.starts_ms == [1000]


async def test_stop_lets_the_turn_under_way_end(bench: Bench) -> None:
    bench.work.seconds = [1.0]
    loop = bench.loop()
    loop.wake()
    await bench.clock.advance(0.5)
    stopping = bench.tasks.start("stops", loop.stop())
    await bench.clock.advance(0.1)
    assert not stopping.done()
    await bench.clock.advance(0.4)
    assert stopping.done()
    assert [record.error for record in bench.records] == [None]


async def test_stop_with_a_last_turn_runs_exactly_one_more_and_awaits_it(bench: Bench) -> None:
    bench.work.seconds = [0.5, 0.5]
    loop = bench.loop(interval_ms=1000, paused=True)
    await bench.clock.advance(3)
    stopping = bench.tasks.start("stops", loop.stop(last_turn=True))
    await bench.clock.advance(0.4)
    assert not stopping.done()
    await bench.clock.advance(0.2)
    assert stopping.done()
    assert bench.work.triggers == ["shutdown"]


async def test_a_stopped_loop_refuses_to_run_now(bench: Bench) -> None:
    loop = bench.loop(interval_ms=100)
    await bench.clock.settle()
    await loop.stop()
    with pytest.raises(Refused, match="has stopped"):
        await loop.run_now()
