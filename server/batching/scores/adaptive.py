"""The interval that follows activity. Pure: what was counted goes in, the next interval comes out.

Quiet: the longest interval, nobody is woken for nothing. Busy: short enough that a batch stays near SHARE of MAX_BATCH_SIZE,
so that maps follow the crowd and the size bound is a safety net, not the clock. Activity is events whose popularity moved a
second, smoothed over some SMOOTH_S so that one burst does not swing it; an interval changes only when the new one differs by
more than HYSTERESIS, because every change re-times the wait in progress.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

SHARE: Final = 0.5
SMOOTH_S: Final = 60.0
HYSTERESIS: Final = 0.2


@dataclass(frozen=True, slots=True)
class Bounds:
    """The least and the greatest interval, ms."""

    least_ms: int
    most_ms: int


@dataclass(frozen=True, slots=True)
class Activity:
    """Events whose popularity moved per second, smoothed, and when that was worked out (ms; None: not yet)."""

    rate: float = 0.0
    at_ms: int | None = None

    def after(self, events: int, now_ms: int) -> Activity:
        """`events` have moved since the last look: an exponential average that weighs a look by how long it covers."""
        if self.at_ms is None or now_ms <= self.at_ms:
            return Activity(self.rate, now_ms)
        seconds = (now_ms - self.at_ms) / 1000
        keep = math.exp(-seconds / SMOOTH_S)
        return Activity(keep * self.rate + (1 - keep) * events / seconds, now_ms)


def wanted_ms(activity: Activity, max_batch: int, bounds: Bounds) -> int:
    """The interval after which SHARE of a batch would be waiting at this rate, within bounds."""
    if activity.rate <= 0:
        return bounds.most_ms
    return round(min(max(1000 * SHARE * max_batch / activity.rate, bounds.least_ms), bounds.most_ms))


def following_ms(current_ms: int, activity: Activity, max_batch: int, bounds: Bounds) -> int:
    """The interval from now on: the present one, unless what is wanted differs by more than the hysteresis."""
    wanted = wanted_ms(activity, max_batch, bounds)
    inside = bounds.least_ms <= current_ms <= bounds.most_ms
    return current_ms if inside and abs(wanted - current_ms) <= HYSTERESIS * current_ms else wanted
