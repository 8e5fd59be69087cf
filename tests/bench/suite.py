"""The frame of all benches: a `Row` is one claim, `measure` the CPU of several ways side by side, `Suite` judges and keeps.

A row never loses the others: what a bench raises becomes a row that says so. A bar that depends on the machine is stretched
by how much slower than the recorded one this machine is at this moment (`calibration.py`); a faster one does not tighten it.
"""

from __future__ import annotations

import gc
import statistics
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

ROUNDS: Final = 5
SEED: Final = 20_260_101


@dataclass(frozen=True, slots=True)
class Context:
    """What a bench is given. `small` is for trying the benches out: tiny worlds, no bar is judged."""

    folder: Path
    """Where it may keep what is expensive to make, from one run to the next."""
    seed: int = SEED
    small: bool = False

    def size(self, whole: int, small: int) -> int:
        """The whole work, or the small one."""
        return small if self.small else whole


@dataclass(frozen=True, slots=True)
class Row:
    """One claim: `value` in `unit`, and what was measured beside it in the same run and unit."""

    name: str
    work: str
    value: float
    unit: str
    bar: float | None = None
    goal: float | None = None
    more: bool = False
    """Is a greater value the better one?"""
    machine: bool = False
    """Does the bar depend on the machine, so that calibration stretches it? Ratios and sizes don't."""
    against: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    error: str = ""


Bench: TypeAlias = Callable[[Context], Iterator[Row]]


@dataclass(frozen=True, slots=True)
class Run:
    """One way of doing the work: `before` is not measured; `share` is the part of the whole that a run does."""

    work: Callable[[], object]
    before: Callable[[], object] | None = None
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Timing:
    """CPU seconds of the whole work: the median and the least of the rounds."""

    seconds: float
    least: float
    rounds: tuple[float, ...]

    def __truediv__(self, other: Timing) -> float:
        """How many times as long as the other: the median over rounds, whose two runs stood side by side."""
        return statistics.median(mine / theirs for mine, theirs in zip(self.rounds, other.rounds, strict=True))


def measure(
    side_by_side: Mapping[str, Run | Callable[[], object]],
    rounds: int = ROUNDS,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, Timing]:
    """CPU of each way of doing the same work in this process."""
    ways = {name: way if isinstance(way, Run) else Run(way) for name, way in side_by_side.items()}
    return compare({name: partial(_once, way, clock) for name, way in ways.items()}, rounds)


def compare(side_by_side: Mapping[str, Callable[[], float]], rounds: int = ROUNDS) -> dict[str, Timing]:
    """Ways that say themselves what they cost, interleaved: every round asks all of them, every other one in the opposite
    order, so that what the machine does meanwhile befalls all alike; a round before the first warms up and doesn't count."""
    found: dict[str, list[float]] = {name: [] for name in side_by_side}
    for number in range(-1, rounds):
        for name in list(found) if number % 2 else list(reversed(found)):
            seconds = side_by_side[name]()
            if number >= 0:
                found[name].append(seconds)
    return {name: Timing(statistics.median(all_), min(all_), tuple(all_)) for name, all_ in found.items()}


def _once(way: Run, clock: Callable[[], float]) -> float:
    if way.before is not None:
        way.before()
    gc.collect()
    began = clock()
    way.work()
    return (clock() - began) / way.share


@dataclass(frozen=True, slots=True)
class Judged:
    """A row and what became of it; `allowed` and `aim` are bar and goal on this machine."""

    row: Row
    factor: float
    holds: bool
    lenient: bool = False
    """In a small world nothing is judged."""

    @property
    def allowed(self) -> float | None:
        """The bar on this machine."""
        return _stretched(self.row, self.row.bar, self.factor)

    @property
    def aim(self) -> float | None:
        """The goal on this machine."""
        return _stretched(self.row, self.row.goal, self.factor)

    @property
    def reached(self) -> bool:
        """Is the goal reached, too?"""
        return self.holds and (self.aim is None or within(self.row, self.aim))

    def json(self) -> dict[str, object]:
        """As it stands in build/bench.json."""
        row = self.row
        said = {"name": row.name, "value": row.value, "unit": row.unit, "bar": row.bar, "goal": row.goal}
        beside = {"reached": self.reached, "factor": round(self.factor, 3), "against": dict(row.against)}
        return {**said, "holds": self.holds, **beside, "work": row.work, "note": row.note, "error": row.error}


def judge(row: Row, factor: float, *, small: bool = False) -> Judged:
    """Does the row hold on a machine that is `factor` times as slow as the recorded one?"""
    allowed = _stretched(row, row.bar, factor)
    return Judged(row, factor, not row.error and (small or allowed is None or within(row, allowed)), small)


def within(row: Row, bound: float) -> bool:
    """Is the value at the bound or on its better side?"""
    return row.value >= bound if row.more else row.value <= bound


def _stretched(row: Row, bound: float | None, factor: float) -> float | None:
    if bound is None or not row.machine:
        return bound
    slower = max(1.0, factor)
    return bound / slower if row.more else bound * slower


@dataclass
class Suite:
    """Runs benches one after the other and keeps their rows; `factor` is asked before each, `show` told after each row."""

    context: Context
    factor: Callable[[], float]
    show: Callable[[Judged], object]
    rows: list[Judged] = field(default_factory=list)

    def run(self, bench: Bench) -> None:
        """All rows of one bench; an error is a row of its own and ends only this bench."""
        factor = self.factor()
        try:
            for row in bench(self.context):
                self.add(row, factor)
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            said = f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
            self.add(Row(bench.__name__, (bench.__doc__ or "").strip(), float("nan"), "", error=said), factor)

    def add(self, row: Row, factor: float = 1.0) -> None:
        """Judge, keep and show one row."""
        self.rows.append(judge(row, factor, small=self.context.small))
        self.show(self.rows[-1])

    @property
    def exit_code(self) -> int:
        """0 when every bar holds and nothing was raised."""
        return int(not all(judged.holds for judged in self.rows))
