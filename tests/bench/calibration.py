"""How slow this machine is just now, against the one whose figure is recorded here: a fixed piece of NumPy and Python work.

Half of it is what NumPy and compiled code do (sorting, gathering, arithmetic over more than a cache holds), half what the
interpreter does (objects, dictionaries, bytes). Change the work and RECORDED_S must be recorded anew.
"""

from __future__ import annotations

import statistics
import time
from typing import Final

import numpy as np

RECORDED_S: Final = 0.077
RECORDED_ON: Final = "AMD EPYC (family 25, model 17), 2 cores, Python 3.11.7, NumPy 2.4.6"
ROUNDS: Final = 3


class Calibration:
    """Measures whenever asked, and remembers."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        once()  # the first one finds caches and memory cold

    def factor(self) -> float:
        """This moment's CPU time over the recorded one; the median of a few runs."""
        now = statistics.median(once() for _ in range(ROUNDS))
        self.seconds.append(now)
        return now / RECORDED_S

    @property
    def typical(self) -> float:
        """CPU seconds, the median of all that was measured."""
        return statistics.median(self.seconds)


def once() -> float:
    """CPU seconds of the fixed work."""
    began = time.process_time()
    _compiled(400_000)
    _interpreted(60_000)
    return time.process_time() - began


def _compiled(size: int) -> float:
    values = np.sin(np.arange(size, dtype=np.float64) * 1.7)
    order = np.argsort(values, kind="stable")
    gathered = values[order][::-1] * 0.25 + np.sqrt(np.abs(values))
    return float(np.rint(gathered * 1e9).sum())


def _interpreted(size: int) -> int:
    table: dict[str, tuple[int, float]] = {}
    for number in range(size):
        table[f"e{number}"] = (number, number * 0.5)
    parts = [b'{"id":"%b","score":%b}' % (key.encode(), repr(value[1]).encode()) for key, value in table.items()]
    return len(b",".join(sorted(parts)))
