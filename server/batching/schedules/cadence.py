"""When a batch runs. Pure.

Slots are minutes since 1970 (UTC, so no clock change moves them): those that are `offset` more than a multiple of the interval. A
batch that is made today and one made in a year share the same grid. Whatever slots passed while nobody served them are made up
for by ONE run, for the latest of them (`slot_at`), and then the grid goes on (`next_slot`): an outage of a day costs one run of a
schedule, not four.

Batch k of a line would run k x 15 minutes after batch 0, modulo the interval. `Minutes` moves it on to the next minute at which
no other batch of the platform ever runs; when there is none left, to the least crowded one. Two batches meet now and then when
their offsets agree modulo the greatest common divisor of their intervals.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from math import gcd
from typing import Final

import numpy as np
import numpy.typing as npt

STAGGER_MINUTES: Final = 15
"""Batch k runs k times this later than batch 0."""
MINUTE_MS: Final = 60_000
EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def slot_at(minute: int, hours: int, offset: int) -> int:
    """The latest slot that is not after this minute."""
    return minute - (minute - offset) % (hours * 60)


def next_slot(minute: int, hours: int, offset: int) -> int:
    """The first slot after this minute."""
    return slot_at(minute, hours, offset) + hours * 60


def minute_of(at: dt.datetime) -> int:
    """The minute since 1970 in which a time falls."""
    return int((at - EPOCH) // dt.timedelta(minutes=1))


def time_of(minute: int) -> dt.datetime:
    """The beginning of a minute."""
    return EPOCH + dt.timedelta(minutes=minute)


def wanted_offset(index: int, hours: int) -> int:
    """Where the batch of this index would run if it were alone."""
    return index * STAGGER_MINUTES % (hours * 60)


class Minutes:
    """The minutes that the batches of one platform have taken, each as (hours, offset)."""

    def __init__(self, taken: Iterable[tuple[int, int]] = ()) -> None:
        self._taken: dict[int, npt.NDArray[np.int64]] = {}
        for hours, offset in taken:
            self._note(hours, offset)

    def take(self, index: int, hours: int) -> int:
        """The offset of a new batch: the first minute from the wanted one on that meets the fewest others."""
        wanted = wanted_offset(index, hours)
        crowd = np.roll(self._crowd(hours * 60), -wanted)
        offset = (wanted + int(crowd.argmin())) % (hours * 60)
        self._note(hours, offset)
        return offset

    def meeting(self, hours: int, offset: int) -> int:
        """How many batches of the platform run at a minute at which this one does too."""
        return int(self._crowd(hours * 60)[offset])

    def _note(self, hours: int, offset: int) -> None:
        if hours * 60 not in self._taken:
            self._taken[hours * 60] = np.zeros(hours * 60, np.int64)
        self._taken[hours * 60][offset] += 1

    def _crowd(self, every: int) -> npt.NDArray[np.int64]:
        """For each offset of this interval: how many batches would ever be met."""
        crowd = np.zeros(every, np.int64)
        for other, counts in self._taken.items():
            shared = gcd(every, other)
            crowd += np.tile(counts.reshape(-1, shared).sum(axis=0), every // shared)
        return crowd
