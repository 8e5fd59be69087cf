"""When to flush: priority, adaptive and predictive, each against the fixed interval that sends as many messages.

An invented week (`rhythm.py`) goes through the journal's simulator: the world, the ranking and the frames are the server's own,
only time is virtual. The week before it is what the forecast was learnt from. A policy that flushes more often leaves counters
fresher and costs more messages, so each is set beside the fixed interval of *equal messages* (between two of FIXED_S, by
interpolation on logarithms): below 1 the policy spends its messages better than any fixed interval could. The 95th percentile
is the price: what moves in quiet hours waits longer, so that the many that move in busy ones wait less.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Final

from server.batching.scores.adaptive import Bounds
from server.batching.scores.columns import Columns
from server.batching.scores.journal.histories import Arrived, History, Input, Moved
from server.batching.scores.journal.policy import Policy
from server.batching.scores.journal.simulate import Outcome, simulated
from server.batching.scores.pace import Pace
from server.batching.scores.predictive import foreseen
from server.batching.scores.question import Window
from server.batching.scores.ranking import Rules
from server.batching.scores.score import Weights
from tests.bench import rhythm
from tests.bench.rhythm import HOUR_MS, WEEK_MS, Move, World, name_of
from tests.bench.suite import Context, Row

FIXED_S: Final = (300, 600, 900, 1800, 3600, 7200)
BASE_MS: Final = 900_000
MAX_BATCH: Final = 500
"""Half of it is what adaptive lets gather: at this many changes a week some ten minutes' worth."""
BOUNDS: Final = Bounds(15_000, 3_600_000)
RULES: Final = Rules(Weights(), Window(24 * HOUR_MS, 720 * HOUR_MS), 0.5)


def history_of(world: World, *, keep: Callable[[Move], bool] = lambda move: True) -> History:
    """Its last week, as inputs of the simulator."""
    began_ms = world.until_ms - WEEK_MS

    def columns() -> Columns:
        made = Columns()
        for event in world.events:
            made.put(event, began_ms)
        made.merge()
        return made

    def inputs() -> Iterator[Input]:
        for number, question in enumerate(world.questions):
            yield Arrived(began_ms, number, question)
        counts = [[0, 0, 0] for _ in world.events]
        for move in world.moves:
            if move.at_ms >= began_ms and keep(move):
                counts[move.event][move.counter] += 1
                scans, saves, rsvps = counts[move.event]
                yield Moved(move.at_ms, name_of(move.event), (scans, saves, rsvps), move.high)

    return History(RULES, began_ms, world.until_ms, columns, inputs)


def learnt(world: World) -> Callable[[], Pace]:
    """A pace that has seen the week before and nothing of the one that is simulated."""
    began_ms = world.until_ms - WEEK_MS
    counted = Counter(move.at_ms // HOUR_MS * HOUR_MS for move in world.moves if move.at_ms < began_ms)
    forecast = foreseen(counted, world.began_ms, began_ms)
    assert forecast is not None
    return lambda: Pace(BOUNDS, BASE_MS, BASE_MS, follows=False, foresees=True, begun_ms=began_ms, forecast=forecast)


@cache
def judged(seed: int, moves: int, max_batch: int) -> dict[str, Outcome]:
    """Every policy over the same week."""
    world = rhythm.world(seed, 2, moves=moves)
    history, foretold = history_of(world), learnt(world)
    began_ms = world.until_ms - WEEK_MS
    plain = Policy("fixed", BASE_MS, max_batch, urgent=False)
    both = replace(foretold(), follows=True)
    policies = {
        **{f"fixed {seconds}": replace(plain, interval_ms=1000 * seconds) for seconds in FIXED_S},
        "adaptive": replace(plain, pacer=lambda: Pace(BOUNDS, BASE_MS, BASE_MS, begun_ms=began_ms)),
        "predictive": replace(plain, pacer=foretold),
        "both": replace(plain, pacer=lambda: replace(both)),
        "priority": replace(plain, urgent=True),
    }
    found = {name: simulated(history, replace(policy, name=name)) for name, policy in policies.items()}
    high = history_of(world, keep=lambda move: move.high)
    found["high, fixed"] = simulated(high, plain, frames=False)
    found["high, urgent"] = simulated(high, replace(plain, urgent=True), frames=False)
    return found


def at_equal_messages(fixed: Sequence[Outcome], messages: int, measure: Callable[[Outcome], float]) -> float:
    """What a fixed interval that sends so many messages would measure."""
    points = sorted((math.log(one.messages), math.log(measure(one))) for one in fixed)
    wanted = math.log(messages)
    for (x, y), (nextx, nexty) in pairwise(points):
        if x <= wanted <= nextx:
            return math.exp(y + (nexty - y) * (wanted - x) / (nextx - x))
    raise ValueError(f"{messages} messages are not between those of the fixed intervals: {[o.messages for o in fixed]}")


def _week(context: Context) -> dict[str, Outcome]:
    """A small world is a quieter one: batches are as much smaller."""
    part = context.size(1, 20)
    return judged(context.seed, rhythm.MOVES // part, MAX_BATCH // part)


def _against(name: str, bars: Sequence[tuple[float, float]], context: Context) -> Iterator[Row]:
    outcomes = _week(context)
    one, fixed = outcomes[name], [outcomes[f"fixed {seconds}"] for seconds in FIXED_S]
    for (what, measure), (bar, goal) in zip(MEASURES.items(), bars, strict=True):
        beside = at_equal_messages(fixed, one.messages, measure)
        yield Row(
            f"{name}: {what} a counter waits, against a fixed interval of equal messages",
            f"a week of {one.moved:,} changes, {one.viewers} viewers",
            measure(one) / beside,
            "",
            bar,
            goal,
            against={name: measure(one) / 1000, "fixed": beside / 1000},
            note=f"{one.messages:,} messages, {one.bytes >> 20} MiB, {one.flushes:,} flushes, s",
        )


MEASURES: Final[dict[str, Callable[[Outcome], float]]] = {
    "the mean time": lambda one: one.wait_mean_ms,
    "the 95th percentile of the time": lambda one: one.wait_p95_ms,
}


def adaptive(context: Context) -> Iterator[Row]:
    """ADAPTIVE_BATCHING."""
    yield from _against("adaptive", ((0.97, 0.85), (1.6, 1.2)), context)


def predictive(context: Context) -> Iterator[Row]:
    """PREDICTIVE_BATCHING."""
    yield from _against("predictive", ((0.92, 0.88), (1.2, 1.1)), context)


def both(context: Context) -> Iterator[Row]:
    """Both of them."""
    yield from _against("both", ((0.95, 0.85), (1.5, 1.2)), context)


def priority(context: Context) -> Iterator[Row]:
    """`priority: high`: what it saves those who have it, and what it costs."""
    outcomes = _week(context)
    urgent, fixed = outcomes["high, urgent"], outcomes["high, fixed"]
    yield Row(
        "priority high: the mean time a counter waits, against the fixed interval",
        f"{urgent.moved:,} urgent changes in a week",
        urgent.wait_mean_ms / fixed.wait_mean_ms,
        "",
        0.01,
        0.005,
        against={"urgent": urgent.wait_mean_ms / 1000, "fixed": fixed.wait_mean_ms / 1000},
        note="s",
    )
    mixed, plain = outcomes["priority"], outcomes["fixed 900"]
    yield Row(
        "priority high: bytes, against the fixed interval without it",
        f"one change in {rhythm.HIGH_IN} is urgent",
        mixed.bytes / plain.bytes,
        "",
        1.5,
        1.25,
        against={"messages": float(mixed.messages), "messages without": float(plain.messages)},
    )


BENCHES: Final = (adaptive, predictive, both, priority)
