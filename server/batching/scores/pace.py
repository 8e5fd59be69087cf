"""The interval of the flush, where it is not fixed: it follows activity, foresees it, or both. Pure.

ADAPTIVE_BATCHING answers what is happening (adaptive.py), PREDICTIVE_BATCHING what happened at this hour of past weeks
(predictive.py). With both the shorter interval counts: a burst that nobody foresaw is followed, a peak that has not begun yet
is awaited. Both keep ADAPTIVE_MIN_INTERVAL_MS and ADAPTIVE_MAX_INTERVAL_MS. Before anything is known the interval is
BATCH_INTERVAL_MS, within these bounds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from server.batching.scores.adaptive import Activity, Bounds, following_ms
from server.batching.scores.predictive import Forecast, wait_ms


@dataclass(slots=True)
class Pace:
    """The interval arrived at, and from what. `base_ms` is BATCH_INTERVAL_MS; `begun_ms` the last tick, or the start."""

    bounds: Bounds
    interval_ms: int
    base_ms: int = 0
    follows: bool = True
    """ADAPTIVE_BATCHING."""
    foresees: bool = False
    """PREDICTIVE_BATCHING."""
    begun_ms: int = 0
    activity: Activity = field(default_factory=Activity)
    counted: int = 0
    followed_ms: int | None = None
    forecast: Forecast | None = None

    def look(self, moved: int, max_batch: int, now_ms: int) -> bool:
        """`moved` events have moved since the start; True when another interval is asked for."""
        self.activity, self.counted = self.activity.after(moved - self.counted, now_ms), moved
        self._tick(now_ms)
        before, wanted = self.interval_ms, self._wanted(max_batch)
        self.interval_ms = min(wanted) if wanted else self.bounded(self.base_ms)
        self.begun_ms = max(self.begun_ms, now_ms - self.interval_ms)
        return self.interval_ms != before

    def _tick(self, now_ms: int) -> None:
        """Follow the ticks that have come, as the loop's own grid does (ticks.py)."""
        passed = (now_ms - self.begun_ms) // self.interval_ms
        self.begun_ms += max(0, passed) * self.interval_ms

    def _wanted(self, max_batch: int) -> list[int]:
        """What each side asks for."""
        wanted = []
        if self.follows:
            current = self.interval_ms if self.followed_ms is None else self.followed_ms
            self.followed_ms = following_ms(current, self.activity, max_batch, self.bounds)
            wanted.append(self.followed_ms)
        if self.forecast is not None:
            wanted.append(wait_ms(self.forecast, self.begun_ms, self.base_ms, self.bounds))
        return wanted

    def bounded(self, interval_ms: int) -> int:
        """An interval within the bounds."""
        return min(max(interval_ms, self.bounds.least_ms), self.bounds.most_ms)


def said_of(pace: Pace) -> dict[str, object]:
    """How statistics tell of the adaptive interval; `rate` is events whose popularity moved per second."""
    return {
        "intervalMs": pace.interval_ms,
        "rate": round(pace.activity.rate, 3),
        "minIntervalMs": pace.bounds.least_ms,
        "maxIntervalMs": pace.bounds.most_ms,
    }


def foretold_of(pace: Pace, now_ms: int) -> dict[str, object]:
    """How statistics tell of the forecast; `rate` is what is foreseen for now, None before a day is known."""
    forecast = pace.forecast
    return {
        "intervalMs": pace.interval_ms,
        "knownHours": 0 if forecast is None else forecast.known_hours,
        "rate": None if forecast is None else round(forecast.rate(now_ms), 3),
        "peakRate": None if forecast is None else round(max(forecast.rates), 3),
        "minIntervalMs": pace.bounds.least_ms,
        "maxIntervalMs": pace.bounds.most_ms,
    }
