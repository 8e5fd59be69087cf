"""The interval that foresees activity. Pure: what was counted in past weeks goes in, how long to wait comes out.

The same number of flushes as BATCH_INTERVAL_MS makes, at better times. A counter that moves waits for the next flush, so with
r events a second a second of waiting costs r; for a given number of flushes the sum of all waiting is least when intervals are
as 1 / sqrt(r) (each flush then costs and saves alike). So a flush comes when the *pressure* sqrt(r) has added up, since the one
before, to what it adds up to in an average interval of the week:

    quiet |........|........ 3 am        a long wait; what comes is seen ahead, so it ends early when a peak is near
    peak  |.|.|.|.|.|.|.|.|  8 pm        short ones, evenly spread, each about as much work as its neighbours

r is a forecast by hour of the week (UTC, Monday 0 h is hour 0): the average of that hour in the weeks known, a newer week
counting more; of an hour that was never seen, the same hour of other days. Less than a day known is no forecast. What comes
otherwise than foreseen is not this file's business: adaptive.py follows it, and MAX_BATCH_SIZE bounds what waits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from server.batching.scores.adaptive import Bounds

HOUR_MS: Final = 3_600_000
DAY_HOURS: Final = 24
WEEK_HOURS: Final = 168
WEEK_MS: Final = WEEK_HOURS * HOUR_MS
HISTORY_WEEKS: Final = 8
"""Older weeks are not asked for; RUNS_KEEP_DAYS says how many there are."""
EPOCH_HOUR: Final = 72
"""The hour of the week in which 1970 began, a Thursday."""
KNOWN_LEAST: Final = DAY_HOURS
"""Hours that must be known before there is a forecast."""
FADE: Final = 0.6
"""What a week counts beside the one after it."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Events whose counters will move per second, by hour of the week, and how many hours that was learnt from."""

    rates: tuple[float, ...]
    known_hours: int

    def __post_init__(self) -> None:
        assert len(self.rates) == WEEK_HOURS, "a week has 168 hours"

    @property
    def mean_pressure(self) -> float:
        """Of a second of the average week."""
        return sum(map(math.sqrt, self.rates)) / WEEK_HOURS

    def rate(self, at_ms: int) -> float:
        """What is foreseen for that moment."""
        return self.rates[hour_of_week(at_ms)]


def hour_of_week(at_ms: int) -> int:
    """0 is Monday from midnight to one, UTC."""
    return (at_ms // HOUR_MS + EPOCH_HOUR) % WEEK_HOURS


def foreseen(counted: Mapping[int, int], since_ms: int, now_ms: int) -> Forecast | None:
    """The forecast from events per hour, by the hour's start; an hour since `since_ms` that is not in it had none.

    The hours in which watching began and in which we are, are not whole and do not count."""
    hours = range(-(-since_ms // HOUR_MS), now_ms // HOUR_MS)
    if len(hours) < KNOWN_LEAST:
        return None
    slots: list[list[tuple[float, float]]] = [[] for _ in range(WEEK_HOURS)]
    for hour in hours:
        weight = FADE ** ((hours.stop - 1 - hour) // WEEK_HOURS)
        slots[hour_of_week(hour * HOUR_MS)].append((weight, counted.get(hour * HOUR_MS, 0) / (HOUR_MS / 1000)))
    return Forecast(tuple(_mean(slots[h] or _same_hour(slots, h)) for h in range(WEEK_HOURS)), len(hours))


def _same_hour(slots: list[list[tuple[float, float]]], hour: int) -> list[tuple[float, float]]:
    """What is known of that hour of all days."""
    return [pair for day in range(hour % DAY_HOURS, WEEK_HOURS, DAY_HOURS) for pair in slots[day]]


def _mean(weighted: Iterable[tuple[float, float]]) -> float:
    pairs = list(weighted)
    return sum(weight * rate for weight, rate in pairs) / sum(weight for weight, _ in pairs)


def wait_ms(forecast: Forecast, begun_ms: int, base_ms: int, bounds: Bounds) -> int:
    """How long after the flush at `begun_ms` the next one comes, when an average wait is `base_ms`."""
    due = base_ms * forecast.mean_pressure
    if due <= 0:
        return _within(base_ms, bounds)
    for start, end in pairwise(_edges(begun_ms, begun_ms + bounds.most_ms)):
        pressure = math.sqrt(forecast.rate(start))
        if pressure * (end - start) >= due:
            return _within(start - begun_ms + math.ceil(due / pressure), bounds)
        due -= pressure * (end - start)
    return bounds.most_ms


def _edges(begin_ms: int, end_ms: int) -> list[int]:
    """The two moments, and the full hours between them."""
    first = begin_ms // HOUR_MS + 1
    return [begin_ms, *range(first * HOUR_MS, end_ms, HOUR_MS), end_ms]


def _within(wait: int, bounds: Bounds) -> int:
    return min(max(wait, bounds.least_ms), bounds.most_ms)
