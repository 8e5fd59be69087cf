"""Time and chance, and the only file that reads either.

Everything else takes a `Clock`, so that a test can replace hours by a call and a replay can repeat a run to the byte.
`monotonic` is for waiting and for measuring, `now_ms` for rows and messages; neither is ever subtracted from the other.

`SystemClock` is the machine's. `VirtualClock` stands still until `advance` moves it: everything due is woken in order
of its time (of two at the same time, the one that began to wait first), and the event loop settles after each, so a test
sees the same run each time. What waits for the real world (a socket, a database, a thread) is outside of virtual time:
`until` gives it real time to arrive while the virtual time stands still.
"""

import asyncio
import heapq
import random
import time
from collections.abc import Callable, Sized
from typing import Protocol

# How many times a settling event loop is let round before the test is told that it never rests.
SETTLE_ROUNDS = 10_000
# How many rounds count as rest with an event loop that does not show what is ready to run (uvloop).
BLIND_ROUNDS = 50


class Clock(Protocol):
    """What reads the time, waits, and throws dice."""

    def monotonic(self) -> float:
        """Seconds that never run backwards; only for waiting and for measuring."""
        ...

    def now_ms(self) -> int:
        """UTC in milliseconds since 1970, for rows and messages."""
        ...

    def random(self) -> float:
        """A number in [0, 1), for jitter and ids."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait that long; zero lets the others run once."""
        ...

    async def wait(self, event: asyncio.Event, timeout_s: float | None) -> bool:
        """Wait for the event, at most that long: True when it is set, False at the timeout."""
        ...


class SystemClock(Clock):
    """The clock of this machine."""

    def monotonic(self) -> float:
        return time.monotonic()

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def random(self) -> float:
        return random.random()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def wait(self, event: asyncio.Event, timeout_s: float | None) -> bool:
        try:
            async with asyncio.timeout(timeout_s):
                await event.wait()
        except TimeoutError:
            return event.is_set()
        return True


def thread_seconds() -> float:
    """CPU seconds that the thread which asks has used; only for measuring."""
    return time.thread_time()


def process_seconds() -> float:
    """CPU seconds that this process has used; only for measuring."""
    return time.process_time()


class VirtualClock(Clock):
    """A clock that a test or a replay moves by hand. Nanoseconds inside, so that sums of intervals stay exact."""

    def __init__(self, start_ms: int = 1_700_000_000_000, seed: int = 0) -> None:
        self._start_ms = start_ms
        self._now_ns = 0
        self._dice = random.Random(seed)
        self._alarms: list[tuple[int, int, Callable[[], None]]] = []
        self._alarms_set = 0
        self._pending: set[int] = set()

    def monotonic(self) -> float:
        return self._now_ns / 1e9

    def now_ms(self) -> int:
        return self._start_ms + self._now_ns // 1_000_000

    def random(self) -> float:
        return self._dice.random()

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        await self.wait(asyncio.Event(), seconds)

    async def wait(self, event: asyncio.Event, timeout_s: float | None) -> bool:
        if timeout_s is None:
            return await event.wait()
        if timeout_s <= 0:
            await asyncio.sleep(0)
            return event.is_set()
        return await self._wait_until(event, self._now_ns + round(timeout_s * 1e9))

    async def advance(self, seconds: float) -> None:
        """Let that much time pass: run everything due on the way, in order, then stand still again."""
        end_ns = self._now_ns + round(seconds * 1e9)
        await self.settle()
        while self._alarms and self._alarms[0][0] <= end_ns:
            due_ns, number, ring = heapq.heappop(self._alarms)
            if number in self._pending:
                self._pending.remove(number)
                self._now_ns = max(self._now_ns, due_ns)
                ring()
                await self.settle()
        self._now_ns = end_ns

    async def settle(self) -> None:
        """Let every task run until all of them wait for time or for the outside world."""
        ready: Sized | None = getattr(asyncio.get_running_loop(), "_ready", None)
        calm = 0
        for _ in range(SETTLE_ROUNDS):
            await asyncio.sleep(0)
            calm = calm + 1 if not ready else 0
            if calm >= (BLIND_ROUNDS if ready is None else 2):
                return
        raise AssertionError(f"the tasks did not come to rest in {SETTLE_ROUNDS} rounds: one of them spins")

    async def until(self, true: Callable[[], bool], limit_s: float = 20) -> None:
        """Give the outside world real time, while the virtual one stands still, until the condition holds."""
        deadline = time.monotonic() + limit_s
        while not true():
            assert time.monotonic() < deadline, f"the condition did not come true within {limit_s} s"
            await asyncio.sleep(0.001)

    async def _wait_until(self, event: asyncio.Event, due_ns: int) -> bool:
        loop = asyncio.get_running_loop()
        number = -1
        try:
            async with asyncio.timeout(None) as scope:
                number = self._set_alarm(due_ns, lambda: scope.reschedule(loop.time()))
                await event.wait()
        except TimeoutError:
            return event.is_set()
        finally:
            self._pending.discard(number)
        return True

    def _set_alarm(self, due_ns: int, ring: Callable[[], None]) -> int:
        self._alarms_set += 1
        self._pending.add(self._alarms_set)
        heapq.heappush(self._alarms, (due_ns, self._alarms_set, ring))
        return self._alarms_set
