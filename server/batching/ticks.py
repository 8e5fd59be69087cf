"""The ticks of a loop: at an interval on a grid that stays anchored, or at the minutes of a cron line (UTC).

A grid lives on the monotonic clock in whole microseconds, so that sums stay exact; a cron line lives on the wall clock.
Both answer the same questions and know nothing of turns: how long until the next tick, how many have come (`take`),
how many have passed unanswered (`drop`: strictly before now, so that one coming at this instant is still to be taken).
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Protocol

from cronsim import CronSim

from server.edge.clock import Clock

# A cron line looks at the wall clock at least this often, so that a clock which is set is noticed.
LOOK_AT_LEAST_EVERY_MS = 60_000
# A wall clock set back by less than this repeats no tick; by more, the line starts afresh.
SET_BACK_MS = 3_600_000
# Cron ticks beyond this number are passed over without being counted.
COUNTED_AT_MOST = 10_000


class Ticks(Protocol):
    """When a loop is due by itself."""

    interval_ms: int | None

    def start(self) -> None:
        """Count from now."""
        ...

    def next_in_s(self) -> float | None:
        """Seconds until the next tick, zero when it has come, None when there is none."""
        ...

    def take(self) -> int:
        """How many ticks have come since the last; they are answered now."""
        ...

    def drop(self) -> int:
        """How many ticks have passed before this instant; they will not be answered."""
        ...

    def retime(self, interval_ms: int | None) -> None:
        """Another interval, measured from the last tick."""
        ...


class GridTicks:
    """Ticks at last + interval, last + 2 interval, …; none at all without an interval."""

    def __init__(self, clock: Clock, interval_ms: int | None) -> None:
        assert interval_ms is None or interval_ms > 0, f"an interval is positive, not {interval_ms} ms"
        self.interval_ms = interval_ms
        self._clock = clock
        self._last_us: int | None = None

    def start(self) -> None:
        self._last_us = self._now_us()

    def next_in_s(self) -> float | None:
        if self.interval_ms is None or self._last_us is None:
            return None
        return max(0, self._last_us + self.interval_ms * 1000 - self._now_us()) / 1e6

    def take(self) -> int:
        return self._pass_until(self._now_us())

    def drop(self) -> int:
        return self._pass_until(self._now_us() - 1)

    def retime(self, interval_ms: int | None) -> None:
        had_none, self.interval_ms = self.interval_ms is None, interval_ms
        if interval_ms is None or self._last_us is None:
            return
        now = self._now_us()
        # Already past means at once: the grid is moved so that a tick comes at this instant.
        self._last_us = now if had_none else max(self._last_us, now - interval_ms * 1000)

    def _now_us(self) -> int:
        return round(self._clock.monotonic() * 1e6)

    def _pass_until(self, until_us: int) -> int:
        if self.interval_ms is None or self._last_us is None:
            return 0
        count = max(0, (until_us - self._last_us) // (self.interval_ms * 1000))
        self._last_us += count * self.interval_ms * 1000
        return count


class CronTicks:
    """Ticks at the times of a cron line, in UTC."""

    interval_ms: int | None = None

    def __init__(self, clock: Clock, line: str) -> None:
        self._clock = clock
        self._line = line
        self._last_ms = clock.now_ms()
        self._next_ms = self._after(self._last_ms)

    def start(self) -> None:
        self._last_ms = self._clock.now_ms()
        self._next_ms = self._after(self._last_ms)

    def next_in_s(self) -> float | None:
        if self._clock.now_ms() < self._last_ms - SET_BACK_MS:
            self.start()
        return None if self._next_ms is None else max(0, self._next_ms - self._clock.now_ms()) / 1000

    def take(self) -> int:
        return self._pass_until(self._clock.now_ms())

    def drop(self) -> int:
        return self._pass_until(self._clock.now_ms() - 1)

    def retime(self, interval_ms: int | None) -> None:
        raise AssertionError(f"the times of a loop come from its cron line {self._line!r}, not from an interval")

    def _pass_until(self, until_ms: int) -> int:
        if self._next_ms is None or self._next_ms > until_ms:
            return 0
        count = 0
        for tick_ms in self._ticks_after(self._last_ms):
            if tick_ms > until_ms or count == COUNTED_AT_MOST:
                break
            self._last_ms, count = tick_ms, count + 1
        self._last_ms = max(self._last_ms, until_ms) if count == COUNTED_AT_MOST else self._last_ms
        self._next_ms = self._after(self._last_ms)
        return count

    def _after(self, instant_ms: int) -> int | None:
        return next(self._ticks_after(instant_ms), None)

    def _ticks_after(self, instant_ms: int) -> Iterator[int]:
        for moment in CronSim(self._line, datetime.fromtimestamp(instant_ms / 1000, UTC)):
            yield round(moment.timestamp() * 1000)
