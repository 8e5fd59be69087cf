"""How late the event loop comes to what is due: a number we publish.

A probe is due every CALM_MS, while somebody `watches` (a flush) every CLOSE_MS; whatever holds up the loop makes it late by as
much. `worst_s` is since the start, `watched_s` of the last watch that ended or of the one under way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from server.batching.loop import Occasion, Turn
from server.edge.clock import Clock

CALM_MS: Final = 100
CLOSE_MS: Final = 10


class Lag:
    """One per event loop; `retime` gives its loop another interval (ms)."""

    def __init__(self, clock: Clock, retime: Callable[[int], None] = lambda interval_ms: None) -> None:
        self._clock = clock
        self.retime = retime
        self._interval_ms = CALM_MS
        self._due: float | None = None
        self.worst_s = 0.0
        self.watched_s = 0.0
        self._watchers = 0

    async def turn(self, occasion: Occasion) -> Turn:
        """Note how late this turn is."""
        self._note()
        self._due = self._clock.monotonic() + self._interval_ms / 1000
        return Turn()

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Look closely as long as this lasts."""
        if not self._watchers:
            self.watched_s = 0.0
            self._look(CLOSE_MS)
        self._watchers += 1
        try:
            yield
        finally:
            self._note()
            self._watchers -= 1
            if not self._watchers:
                self._look(CALM_MS)

    def _look(self, interval_ms: int) -> None:
        self._interval_ms = interval_ms
        self._due = self._clock.monotonic() + interval_ms / 1000
        self.retime(interval_ms)

    def _note(self) -> None:
        if self._due is None:
            return
        late = self._clock.monotonic() - self._due
        self.worst_s = max(self.worst_s, late)
        if self._watchers:
            self.watched_s = max(self.watched_s, late)
