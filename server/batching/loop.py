"""Loop and Turn: the one way in which anything recurs here.

A `Loop` owns WHEN. A turn is a function that does one bounded slice of work and says what became of it:
`Turn(taken, done, failed, deferred, more)`, where taken = done + failed + deferred. There is nothing to inherit.

                    tick of the interval or of the cron line, wake(), run_now(), more=True
                                                    |
        waiting  ----------------------------------------------------------->  turn  ---> record ---> waiting
           ^  pause(): only run_now() starts a turn                             |  raises: a failed record
           +--- resume()                                stop(): the last turn ends, perhaps one more, then the end

What it promises:
- Turns of one loop never overlap.
- Ticks stay on their grid. A tick that passes while a turn runs is dropped and counted in `missed` of the next record;
  one that passes while the loop is paused, or is not this node's to run, is nobody's and is not counted.
- `run_now` is answered with the first turn that starts after the call, shared by all who asked, also while paused.
- `wake(after_ms)` is a turn no later than that, but not sooner than `min_gap_ms` after the last turn ended. Any turn
  that starts meanwhile serves it, so a turn that wants to be called again wakes its own loop. A wake is a debt: when
  the turn that served it (or one owed by `more`) raises, it is owed again, after a wait that doubles.
- `set_interval` re-times the wait in progress, measured from the last tick; already past means at once.
- A turn that raises is a failed record, not a dead loop. The log tells when failing starts and when it ends.
- A loop whose `may_run` says no (another node leads) takes no turn of any kind and keeps no wake: who becomes the
  leader wakes its loops.
- Every await may be the last line that runs: when the task of `run` is cancelled, the turn under way gets a failed
  record and all who wait for one are refused.

All decisions are made in one synchronous step, `_due`, from what was noted; the notes only set `_signal`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import structlog

from server.batching.ticks import LOOK_AT_LEAST_EVERY_MS, CronTicks, GridTicks, Ticks
from server.edge.clock import Clock
from server.edge.logs import redacted
from server.errors import Refused, Unavailable

Trigger = Literal["interval", "cron", "wake", "forced", "more", "shutdown"]
Detail = Mapping[str, int | float | str]

# A wake whose turn failed is owed again after this, doubling with each failure in a row.
OWED_AGAIN_MS = 1_000
OWED_AGAIN_AT_MOST_MS = 30_000
# Longer error texts are cut in records.
ERROR_TEXT_AT_MOST = 500

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Occasion:
    """Why and when a turn is called; `number` counts the turns of the loop from 1."""

    trigger: Trigger
    number: int
    now_ms: int


@dataclass(frozen=True, slots=True)
class Turn:
    """What became of one slice of work. `more` asks for another turn at once."""

    taken: int = 0
    done: int = 0
    failed: int = 0
    deferred: int = 0
    more: bool = False
    detail: Detail = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert min(self.taken, self.done, self.failed, self.deferred) >= 0, f"a turn counts from zero: {self}"
        assert self.taken == self.done + self.failed + self.deferred, f"a turn does not add up: {self}"


@dataclass(frozen=True, slots=True)
class TurnRecord:
    """One turn as history, statistics, health and alerts see it. `error` is the text of what it raised."""

    loop: str
    number: int
    trigger: Trigger
    started_at_ms: int
    seconds: float
    taken: int = 0
    done: int = 0
    failed: int = 0
    deferred: int = 0
    more: bool = False
    missed: int = 0
    error: str | None = None
    detail: Detail = field(default_factory=dict)


def always() -> bool:
    """The `may_run` of a loop that every node runs for itself."""
    return True


def nobody() -> str | None:
    """The `leader` of a loop that does not know who leads."""
    return None


class Loop:
    """One recurring piece of work: when it runs, and what became of each run."""

    def __init__(
        self,
        name: str,
        turn: Callable[[Occasion], Awaitable[Turn]],
        *,
        clock: Clock,
        record: Callable[[TurnRecord], None],
        interval_ms: int | None = None,
        cron: str | None = None,
        min_gap_ms: int = 0,
        may_run: Callable[[], bool] = always,
        leader: Callable[[], str | None] = nobody,
        paused: bool = False,
    ) -> None:
        assert interval_ms is None or cron is None, f"the loop {name} has both an interval and a cron line"
        self.name = name
        self.cron = cron
        self.min_gap_ms = min_gap_ms
        self.may_run = may_run
        self.paused = paused
        self.running_since_ms: int | None = None
        self.turns = 0
        self._turn = turn
        self._clock = clock
        self._record = record
        self._leader = leader
        self._ticks: Ticks = CronTicks(clock, cron) if cron is not None else GridTicks(clock, interval_ms)
        self._signal = asyncio.Event()
        self._asked: asyncio.Future[TurnRecord] | None = None
        self._wake_us: int | None = None
        self._more_owed = False
        self._last_end_us: int | None = None
        self._missed = 0
        self._failures = 0
        self._stopping: Literal["no", "stop", "last turn"] = "no"
        self._ended: asyncio.Event | None = None

    # What others see, and the verbs: each leaves a note for the body below.

    @property
    def running(self) -> bool:
        """Whether a turn is under way."""
        return self.running_since_ms is not None

    @property
    def interval_ms(self) -> int | None:
        """The interval now in force; None for a loop that has a cron line or is only woken."""
        return self._ticks.interval_ms

    def next_at_ms(self) -> int | None:
        """When the next turn is due, in UTC; None when none is planned here (paused, stopped, another node leads)."""
        if self.paused or self._stopping != "no" or not self.may_run():
            return None
        wait_s = self._wait_s()
        return None if wait_s is None else self._clock.now_ms() + round(wait_s * 1000)

    def wake(self, after_ms: int = 0) -> None:
        """A turn no later than that; several wakes become the earliest."""
        at_us = self._now_us() + after_ms * 1000
        self._wake_us = at_us if self._wake_us is None else min(self._wake_us, at_us)
        self._signal.set()

    async def run_now(self) -> TurnRecord:
        """The record of the first turn that starts after this call."""
        if self._stopping == "stop" or (self._ended is not None and self._ended.is_set()):
            raise self._refusal_of_the_stopped()
        if not self.may_run():
            raise self._refusal_of_the_led()
        if self._asked is None:
            self._asked = asyncio.get_running_loop().create_future()
        self._signal.set()
        return await asyncio.shield(self._asked)

    def pause(self) -> None:
        """No turn but by `run_now`, until `resume`; the one under way ends normally."""
        self.paused = True
        self._signal.set()

    def resume(self) -> None:
        """Go on with the next tick; what was woken or owed meanwhile runs at once."""
        self.paused = False
        self._signal.set()

    def set_interval(self, interval_ms: int | None) -> None:
        """Re-time the wait in progress, from the last tick; None leaves only wakes."""
        self._ticks.retime(interval_ms)
        self._signal.set()

    async def stop(self, last_turn: bool = False) -> None:
        """Let the turn under way end, take one last one if told, and wait for the end of `run`."""
        if self._stopping != "last turn":
            self._stopping = "last turn" if last_turn else "stop"
        self._signal.set()
        if self._ended is not None:
            await self._ended.wait()

    # The body.

    async def run(self) -> None:
        """Take turns until stopped; to be started once, as a task."""
        assert self._ended is None, f"the loop {self.name} was started twice"
        self._ended = asyncio.Event()
        self._ticks.start()
        try:
            while self._stopping == "no":
                await self._step()
            if self._stopping == "last turn" and self.may_run():
                await self._take("shutdown")
        finally:
            self._refuse_who_asked(self._refusal_of_the_stopped())
            self._ended.set()

    async def _step(self) -> None:
        trigger = self._due()
        if trigger is not None:
            await self._take(trigger)
            await self._clock.sleep(0)  # Turns that never wait must not starve the others.
            return
        self._signal.clear()
        await self._clock.wait(self._signal, self._wait_s(LOOK_AT_LEAST_EVERY_MS / 1000 if self.cron else None))

    def _due(self) -> Trigger | None:
        """Decide what to do now, from all that was noted. Ticks that have come are served by whatever starts now."""
        ticks = self._ticks.take()
        if not self.may_run():
            self._more_owed, self._wake_us = False, None
            self._refuse_who_asked(self._refusal_of_the_led())
            return None
        self._missed += 0 if self.paused else max(0, ticks - 1)
        if self._asked is not None:
            return "forced"
        return None if self.paused else self._due_by_itself(ticks > 0)

    def _due_by_itself(self, ticked: bool) -> Trigger | None:
        if self._more_owed:
            return "more"
        if ticked:
            return "interval" if self.cron is None else "cron"
        return "wake" if self._wake_us is not None and self._wake_due_us(self._wake_us) <= self._now_us() else None

    def _wait_s(self, at_most_s: float | None = None) -> float | None:
        """How long nothing is due, unless a note comes in."""
        waits = [at_most_s, self._ticks.next_in_s()]
        if self._wake_us is not None and not self.paused:
            waits.append(max(0, self._wake_due_us(self._wake_us) - self._now_us()) / 1e6)
        return min((wait for wait in waits if wait is not None), default=None)

    def _wake_due_us(self, wake_us: int) -> int:
        return wake_us if self._last_end_us is None else max(wake_us, self._last_end_us + self.min_gap_ms * 1000)

    async def _take(self, trigger: Trigger) -> None:
        """One turn, from its start to its record. Nothing is awaited but the turn itself."""
        asked, self._asked = self._asked, None
        missed, self._missed = self._missed, 0
        owed, self._wake_us, self._more_owed = self._wake_us is not None or self._more_owed, None, False
        self.turns += 1
        occasion = Occasion(trigger, self.turns, self._clock.now_ms())
        self.running_since_ms = occasion.now_ms
        started = self._clock.monotonic()
        outcome = await self._attempt(occasion)
        record = _record_of(self.name, occasion, self._clock.monotonic() - started, missed, outcome)
        self._settle(record, outcome, owed)
        if asked is not None and not asked.done():
            asked.set_result(record)
        self._keep(record)
        if _being_cancelled():
            raise outcome if isinstance(outcome, asyncio.CancelledError) else asyncio.CancelledError

    async def _attempt(self, occasion: Occasion) -> Turn | BaseException:
        try:
            turn = await self._turn(occasion)
            assert isinstance(turn, Turn), f"the turn of {self.name} returned {turn!r}"
        except asyncio.CancelledError as error:
            return error  # Raised again when it was meant for the loop itself; else it is the turn's own failure.
        except Exception as error:  # noqa: BLE001 - whatever a turn raises is a record; it must not end the loop
            return error
        return turn

    def _settle(self, record: TurnRecord, outcome: Turn | BaseException, owed: bool) -> None:
        self.running_since_ms = None
        self._last_end_us = self._now_us()
        passed = self._ticks.drop()
        self._missed += 0 if self.paused else passed
        self._more_owed = record.more
        if isinstance(outcome, Turn):
            self._note_success()
        else:
            self._note_failure(record, outcome)
            if owed:
                self.wake(min(OWED_AGAIN_AT_MOST_MS, OWED_AGAIN_MS << min(self._failures - 1, 16)))

    def _note_success(self) -> None:
        if self._failures:
            log.info("turn recovered", loop=self.name, failures=self._failures)
        self._failures = 0

    def _note_failure(self, record: TurnRecord, error: BaseException) -> None:
        self._failures += 1
        if self._failures > 1:
            return
        if isinstance(error, Unavailable):
            log.warning("turn failed", loop=self.name, trigger=record.trigger, error=record.error)
        else:
            log.error("turn failed", loop=self.name, trigger=record.trigger, error=record.error, exc_info=error)

    def _keep(self, record: TurnRecord) -> None:
        try:
            self._record(record)
        except Exception as error:
            log.error("turn record lost", loop=self.name, number=record.number, exc_info=error)

    def _now_us(self) -> int:
        return round(self._clock.monotonic() * 1e6)

    def _refuse_who_asked(self, refusal: Refused) -> None:
        asked, self._asked = self._asked, None
        if asked is not None and not asked.done():
            asked.set_exception(refusal)
            asked.exception()  # Seen, even if all who asked have gone away.

    def _refusal_of_the_stopped(self) -> Refused:
        return Refused("shutting_down", f"the loop {self.name} has stopped; ask again when the server is back")

    def _refusal_of_the_led(self) -> Refused:
        leader = self._leader()
        led = "another node leads, or none yet" if leader is None else f"{leader} leads"
        return Refused("unavailable", f"the loop {self.name} runs only on the leader; {led}: ask there, or try again")


def _record_of(name: str, occasion: Occasion, seconds: float, missed: int, outcome: Turn | BaseException) -> TurnRecord:
    turn = outcome if isinstance(outcome, Turn) else Turn()
    return TurnRecord(
        loop=name,
        number=occasion.number,
        trigger=occasion.trigger,
        started_at_ms=occasion.now_ms,
        seconds=seconds,
        taken=turn.taken,
        done=turn.done,
        failed=turn.failed,
        deferred=turn.deferred,
        more=turn.more,
        missed=missed,
        error=None if isinstance(outcome, Turn) else _error_text(outcome),
        detail=turn.detail,
    )


def _error_text(error: BaseException) -> str:
    return redacted(f"{type(error).__name__}: {error}")[:ERROR_TEXT_AT_MOST]


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
