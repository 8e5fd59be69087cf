"""The hot path, compiled: rank many questions over all events. Its arrays are described in `shapes.py`.

Everything is exact: bounds only decide what is looked at, never what is answered. `NUMBA` is False where Numba is not
installed: then the same functions run as plain Python, and `ranking.py` (NumPy) ranks instead. Every function releases the
GIL, and only the engine's thread calls it.

A question is answered in four steps: descend to the nodes wholly inside the viewport and the leaves partly inside; gather
candidates (many rows without a filter stay nodes, with an upper bound); find the lowest raw; walk from the best down.
Raw is kept as a whole number of quanta in a float, its *key*, so that equal means equal.
"""

from __future__ import annotations

import math

import numpy as np

from server.batching.scores.candidates import (
    descend,
    fresh_key,
    gather,
    gather_private,
    inside,
    keep_passing,
    key_of,
    run_of,
)
from server.batching.scores.changes import diff
from server.batching.scores.compiling import NUMBA, compiled
from server.batching.scores.shapes import (
    BINS,
    BROAD,
    CELLS,
    FANOUT,
    GRID,
    HELD,
    LEAF,
    MARGIN,
    MAX_LEVELS,
    MOST,
    NO_BAR,
    PRIVATE,
    QUANTA,
    QUESTION,
    RUN,
    SHOWN,
    SPAN,
    STATUS_SHIFT,
    WIDE,
    Bytes,
    Cells,
    Changes,
    Clauses,
    Flags,
    Floats,
    Ints,
    Longs,
    Moment,
    Ranked,
    Record,
    Records,
    Scratch,
    Words,
    World,
)
from server.batching.scores.tree import bases, build, hilbert, moment, nodes_for, patch, prepare, prepare_at
from server.batching.scores.walk import (
    before,
    enqueue,
    lowest_of,
    relative,
    spread,
    tally,
    tally_node,
    walk_bins,
    walk_nodes,
)
from server.edge.clock import SystemClock

__all__ = (
    "CELLS",
    "FANOUT",
    "GRID",
    "HELD",
    "LEAF",
    "MAX_LEVELS",
    "NUMBA",
    "PRIVATE",
    "QUANTA",
    "QUESTION",
    "SHOWN",
    "SPAN",
    "STATUS_SHIFT",
    "WIDE",
    "Bytes",
    "Cells",
    "Changes",
    "Clauses",
    "Flags",
    "Floats",
    "Ints",
    "Longs",
    "Ranked",
    "Records",
    "Words",
    "World",
    "build",
    "clusters",
    "diff",
    "hilbert",
    "nodes_for",
    "patch",
    "prepare",
    "rank",
    "touched",
    "warm",
)


@compiled
def rank(
    world: World, questions: Records, clauses: Clauses, private: Ints, now: int, weights: Floats, past: int, ahead: int,
    spacing_chord2: float, prepared: bool
) -> Ranked:  # fmt: skip
    """The fresh views of all questions at this moment.

    Not `prepared`: the few leaves that narrow questions touch are computed as they are needed; from a quarter of the
    world on everything is prepared, and the answer says so.
    """
    at, work, room = moment(now, weights, past, ahead), _scratch(world, private.size), 0
    for limit in questions["limit"]:
        room += limit
    out = Ranked(
        np.empty(questions.size, np.int64), np.empty(room, np.int32), np.empty(room), np.empty(room),
        np.empty(questions.size, np.int64), prepared
    )  # fmt: skip
    count, filled, touched_rows = np.empty(questions.size, np.int64), 0, 0
    for i in _neighbours_together(questions):
        picked = descend(world, questions[i], prepared, work)
        if not prepared:
            touched_rows += _rows_in(world, picked, work)
            if touched_rows > world.sizes[1] // 4:
                prepare_at(world, at)
                prepared = True
        out.first[i] = filled
        count[i] = _answer(world, questions[i], clauses, private, at, spacing_chord2, prepared, picked, work, out, i)
        filled += count[i]
    return _in_order(out, count, filled, prepared)


@compiled
def _neighbours_together(questions: Records) -> Longs:
    """The order in which to answer: along the curve, so that what one question read is still near for the next.

    A broad view is placed where it is seen from: what is best in it depends on that.
    """
    if questions.size < 32:
        return np.arange(questions.size)
    latitude, longitude = np.empty(questions.size), np.empty(questions.size)
    for i in range(questions.size):
        one = questions[i]
        latitude[i], longitude[i] = (one["south"] + one["north"]) / 2, (one["west"] + one["east"]) / 2
        if one["north"] - one["south"] > BROAD:
            latitude[i] = math.degrees(math.asin(min(1.0, max(-1.0, one["z"]))))
            longitude[i] = math.degrees(math.atan2(one["y"], one["x"]))
    return np.argsort(hilbert(latitude, longitude))


@compiled
def _in_order(out: Ranked, count: Longs, filled: int, prepared: bool) -> Ranked:
    """The same with the views in the order of the questions."""
    first = np.zeros(count.size + 1, np.int64)
    row, raw, score = np.empty(filled, np.int32), np.empty(filled), np.empty(filled)
    for i in range(count.size):
        shift = out.first[i] - first[i]
        first[i + 1] = first[i] + count[i]
        for j in range(first[i], first[i + 1]):
            row[j], raw[j], score[j] = out.row[j + shift], out.raw[j + shift] / QUANTA, out.score[j + shift]
    return Ranked(first, row, raw, score, out.candidates, prepared)


@compiled
def _scratch(world: World, private: int) -> Scratch:
    rows, nodes = world.sizes[1] + private + 1, world.sizes[2] + 1
    return Scratch(
        np.empty(rows + nodes), np.empty(rows + nodes, np.int64), np.empty(rows), np.empty(rows, np.int64),
        np.empty(BINS + 1, np.int64), np.empty(BINS, np.int64), np.empty(nodes, np.int64), np.empty(nodes, np.int64),
        np.empty(FANOUT * MAX_LEVELS, np.int64), np.empty(FANOUT * MAX_LEVELS, np.int64), np.empty(RUN), np.empty(rows),
        np.empty(LEAF * nodes + FANOUT * nodes, np.uint8), np.zeros(nodes, np.uint8), np.zeros(2), np.empty(MOST), np.empty(MOST),
        np.empty(MOST)
    )  # fmt: skip


@compiled
def _rows_in(world: World, picked: int, work: Scratch) -> int:
    """How many rows have to be looked at for what was picked, the tail too."""
    rows = 0
    for i in range(picked + 1):
        low, high, _ = run_of(world, work, i, picked)
        rows += high - low
    return rows


@compiled
def _answer(
    world: World, one: Record, clauses: Clauses, private: Ints, at: Moment, spacing: float, prepared: bool, picked: int,
    work: Scratch, out: Ranked, nth: int
) -> int:  # fmt: skip
    """Rank the nth question over what was picked; returns how many are in view."""
    whole, base = 0, _base(world, at, prepared, picked, work)
    if prepared and one["filter"] < 0:
        for i in range(picked):
            whole += world.live[work.node[i]] if work.level[i] >= 0 else 0
    bar = work.bar[0] if one["limit"] <= work.bar[1] else NO_BAR
    while True:
        found = _found(world, base, one, clauses, private, at, picked, whole >= WIDE, work)
        more = whole if whole >= WIDE else 0
        kept = _choose(world, one, at.distance, spacing, picked, found, more, bar, work, out, nth)
        if more == 0 or kept == one["limit"] or bar == NO_BAR:
            return kept
        bar = NO_BAR


@compiled
def _base(world: World, at: Moment, prepared: bool, picked: int, work: Scratch) -> Floats:
    """The base of all rows, or, computed here, of those in what was picked."""
    if prepared:
        return world.base
    for i in range(picked + 1):
        low, high, _ = run_of(world, work, i, picked)
        bases(world, low, high, at, work.base[low:high])
    return work.base


@compiled
def _found(
    world: World, base: Floats, one: Record, clauses: Clauses, private: Ints, at: Moment, picked: int, lazy: bool,
    work: Scratch
) -> int:  # fmt: skip
    """The candidates, `lazy` without those in nodes wholly in view; returns how many."""
    found = gather(world, base, one, at.distance, picked, lazy, work)
    if one["filter"] >= 0:
        found = keep_passing(world, clauses, one["filter"], work, found)
    if one["private_count"] > 0:
        found = gather_private(world, one, private, clauses, at, work, found)
    return found


@compiled
def _choose(
    world: World, one: Record, weight: float, spacing: float, picked: int, found: int, whole: int, bar: float,
    work: Scratch, out: Ranked, nth: int
) -> int:  # fmt: skip
    """The view: of the candidates found and, when there are any, `whole` more in nodes picked; no key below `bar`."""
    lowest, highest, key, begin = math.inf, -math.inf, work.key, out.first[nth]
    for i in range(found):
        lowest = key[i] if key[i] < lowest else lowest
        highest = key[i] if key[i] > highest else highest
    rows, keys, places = out.row[begin:], out.raw[begin:], out.score[begin:]
    if whole > 0:
        lowest = lowest_of(world, one, weight, picked, work, lowest)
        size = enqueue(world, one, weight, picked, work, found, bar)
        kept = walk_nodes(world, one, weight, spacing, work, size, bar, rows, keys, places)
        work.bar[1] = one["limit"] if kept == one["limit"] else 0
        work.bar[0] = keys[max(kept - 1, 0)] - MARGIN
    else:
        bins = spread(work, found, lowest, highest)
        kept = walk_bins(world, one["limit"], spacing, work, bins, rows, keys, places)
    count = out.candidates[nth] = found + whole
    if kept > 0:
        highest = keys[0]
    for i in range(kept):
        places[i] = relative(count, places[i], keys[i], lowest, highest)
    return kept


@compiled
def clusters(
    world: World, questions: Records, grids: Records, edges: Floats, clauses: Clauses, private: Ints, now: int,
    weights: Floats, past: int, ahead: int, prepared: bool, sums: Longs, stamp: int
) -> Cells:  # fmt: skip
    """The candidates of each question, exactly those that `rank` counts, by the cells of its grid.

    `sums` remembers by node where what lives in it lies, (latitude, longitude, stamp); another stamp, another moment.
    """
    at, work, shape = moment(now, weights, past, ahead), _scratch(world, private.size), (questions.size, CELLS)
    out = Cells(
        np.zeros(shape, np.int64), np.full(shape, -1, np.int32), np.full(shape, -math.inf), np.zeros(shape, np.int64),
        np.zeros(shape, np.int64)
    )  # fmt: skip
    for i in range(questions.size):
        cells = Cells(out.members[i], out.top[i], out.best[i], out.latitude[i], out.longitude[i])
        one, grid, edge, lazy = questions[i], grids[i], edges[i], prepared and questions[i]["filter"] < 0
        picked = descend(world, one, prepared, work)
        base = _base(world, at, prepared, picked, work)
        found = _found(world, base, one, clauses, private, at, picked, lazy, work)
        tally(world.latitude, world.longitude, world.start, world.label, work.entry, work.key, found, grid, edge, cells)
        for j in range(picked if lazy else 0):
            if work.level[j] >= 0:
                tally_node(
                    world, one, at.distance, work.node[j], work.level[j], grid, edge, sums, stamp, work, cells
                )  # fmt: skip
    return out


@compiled
def touched(
    world: World, questions: Records, clauses: Clauses, private: Ints, held: Records, held_first: Longs, last: Ints,
    changed: Ints, now: int, weights: Floats, past: int, ahead: int
) -> Flags:  # fmt: skip
    """By viewer, each with its question: must these changed slots re-rank it?

    It holds one of them, or one is a candidate and either the view is not full (`last` is -1) or it comes before the last
    event kept (`last`, a slot). A last one that is itself gone says yes.
    """
    at = moment(now, weights, past, ahead)
    noted, slots = np.zeros(world.row_of.size, np.uint8), held["slot"]
    for slot in changed:
        noted[slot] = 1
    answer = np.zeros(questions.size, np.bool_)
    for viewer in range(questions.size):
        for i in range(held_first[viewer], held_first[viewer + 1]):
            answer[viewer] |= noted[slots[i]] != 0
        if not answer[viewer]:
            answer[viewer] = _lets_in(world, questions[viewer], clauses, private, last[viewer], changed, at)
    return answer


@compiled
def _lets_in(world: World, one: Record, clauses: Clauses, private: Ints, last: int, changed: Ints, at: Moment) -> bool:
    """Would one of the changed slots, none of them held, stand in the view?"""
    row, bar = -1, -math.inf
    if last >= 0:
        row = world.row_of[last]
        bar = fresh_key(world, row, one, at) if row >= 0 else math.nan
        if math.isnan(bar):
            return True
    for slot in changed:
        fresh = world.row_of[slot]
        if fresh < 0 or not inside(one, world.latitude[fresh], world.longitude[fresh]):
            continue
        if world.state[fresh] & PRIVATE != 0 and not _may_see(one, private, slot):
            continue
        value = key_of(world, fresh, one, clauses, at)
        if value > bar or (value == bar and before(value, fresh, bar, row, world.start, world.label)):
            return True
    return False


@compiled
def _may_see(one: Record, private: Ints, slot: int) -> bool:
    for i in range(one["private_first"], one["private_first"] + one["private_count"]):  # noqa: SIM110
        if private[i] == slot:
            return True
    return False


def warm() -> float:
    """Compile everything, or load it from the cache, by calling it; returns the seconds that took."""
    clock = SystemClock()
    began = clock.monotonic()
    world, weights, none = _one_event(), np.ones(5), np.empty(0, np.int32)
    clauses = Clauses(
        np.array([0, 1], np.int32), np.full(1, 255, np.uint8), np.full((1, 4), -1.0), np.zeros((1, 1), np.int64),
        np.zeros((1, 1), np.int64), np.full((1, 2), -1, np.int32), np.zeros((1, 1), np.uint8)
    )  # fmt: skip
    questions = np.zeros(1, QUESTION)
    questions["south"], questions["north"], questions["east"], questions["limit"] = -1, 1, 1, 1
    hilbert(world.latitude, world.longitude)
    build(world)
    prepare(world, 0, weights, 0, 0)
    patch(world, none, 0, weights, 0, 0)
    ranked = rank(world, questions, clauses, none, 0, weights, 0, 0, 0.0, True)
    grids, edges, sums = np.zeros(1, GRID), np.full((1, SPAN - 1), -math.inf), np.zeros((1, 3), np.int64)
    clusters(world, questions, grids, edges, clauses, none, 0, weights, 0, 0, True, sums, 1)
    held, first = np.zeros(1, HELD), np.array([0, 1])
    touched(world, questions, clauses, none, held, first, np.zeros(1, np.int32), none, 0, weights, 0, 0)
    diff(world, ranked, np.zeros(1, np.int32), held, first, np.zeros(1))
    return clock.monotonic() - began


def _one_event() -> World:
    floats, longs, ints = np.zeros(LEAF), np.zeros(LEAF, np.int64), np.zeros(LEAF, np.int32)
    return World(
        np.array([1, 1, 0, 0]), floats, floats, np.zeros((3, LEAF)), longs, longs, longs, floats, floats,
        np.full(LEAF, SHOWN, np.uint8), ints, longs, ints, ints, longs, np.zeros(LEAF, np.uint64), floats.copy(),
        np.zeros(MAX_LEVELS + 1, np.int64), np.zeros((1, 4)), np.zeros((1, 4)), np.zeros(1, np.int32), np.zeros(1), np.zeros(1)
    )  # fmt: skip
