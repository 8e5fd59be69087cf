"""Rank one viewer: candidates, raw scores, order, spacing, cut. Exact; NumPy over all rows, no tree, no state of its own.

For machines without Numba, and for explanations. The plain version that judges it lives in tests/oracle, as it judges the
kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from server.batching.scores import kernel
from server.batching.scores.cells import Grid
from server.batching.scores.columns import Columns
from server.batching.scores.kernel import Cells, Flags, Floats, Ints, Longs
from server.batching.scores.predicates import Clause, bounds_of, clause_of, said_of
from server.batching.scores.question import Question, Window
from server.batching.scores.score import EARTH_KM, HOUR_MS, QUANTUM, Weights, chord2_of_km, relative_score
from server.batching.scores.shapes import FINE
from server.protocol.values import Filter

BLOCK: Final = 128
"""Events that the spacing compares at once."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings that a score depends on."""

    weights: Weights
    window: Window
    spacing_km: float


@dataclass(frozen=True, slots=True)
class Ranking:
    """A viewer's fresh view, best first: `scores[i]` and `raws[i]` are those of `slots[i]`; `candidates` is N."""

    slots: Ints
    scores: Floats
    raws: Floats
    candidates: int


def rank(columns: Columns, question: Question, rules: Rules, now_ms: int) -> Ranking:
    """The view of one question at one moment."""
    columns.refresh(now_ms)
    rows = candidate_rows(columns, question, rules.window, now_ms)
    if rows.size == 0:
        return Ranking(np.empty(0, np.int32), np.empty(0), np.empty(0), 0)
    raw = raw_of(columns, rows, question, rules.weights, now_ms)
    order = best_first(columns, rows, raw)
    kept = spaced(columns.world.vector[:, rows[order]].T, rules.spacing_km, question.limit)
    chosen = order[kept]
    greater = np.searchsorted(-raw[order], -raw[chosen], side="left")
    lowest, highest, n = float(raw.min()), float(raw.max()), int(rows.size)
    pairs = zip(greater.tolist(), raw[chosen].tolist(), strict=True)
    scores = [relative_score(n, above, value, lowest, highest) for above, value in pairs]
    return Ranking(columns.world.slot[rows[chosen]], np.array(scores), raw[chosen], n)


def count_cells(columns: Columns, question: Question, grid: Grid, rules: Rules, now_ms: int) -> Cells:
    """The candidates of one question by cell."""
    rows, world = candidate_rows(columns, question, rules.window, now_ms), columns.world
    raw = raw_of(columns, rows, question, rules.weights, now_ms)
    latitude, longitude = world.latitude[rows], world.longitude[rows]
    column = np.minimum(((longitude + 180.0) * grid.scale).astype(np.int64), grid.side - 1) - grid.x
    row = (latitude[:, np.newaxis] <= np.array(grid.edges).reshape(1, -1)).sum(axis=1)
    cell = row * kernel.SPAN + np.where(column < 0, column + grid.side, column)
    top, best = np.full(kernel.CELLS, -1, np.int32), np.full(kernel.CELLS, -np.inf)
    worst_first = best_first(columns, rows, raw)[::-1]
    top[cell[worst_first]], best[cell[worst_first]] = rows[worst_first], raw[worst_first]
    sums = np.zeros((2, kernel.CELLS), np.int64)
    np.add.at(sums[0], cell, np.rint(latitude * FINE).astype(np.int64))
    np.add.at(sums[1], cell, np.rint(longitude * FINE).astype(np.int64))
    return Cells(np.bincount(cell, minlength=kernel.CELLS), top, best, *sums)


def candidate_rows(columns: Columns, question: Question, window: Window, now_ms: int) -> Longs:
    """The rows that the viewer may see and wants to: access, status, viewport, time window, filters."""
    view, world = question.viewport, columns.world
    used = world.sizes.item(1)
    longitude, latitude = world.longitude[:used], world.latitude[:used]
    if view.west < view.east:
        inside = (longitude >= view.west) & (longitude <= view.east)
    else:
        inside = (longitude >= view.west) | (longitude <= view.east)
    inside &= (latitude >= view.south) & (latitude <= view.north)
    inside &= (world.slot[:used] >= 0) & ((world.state[:used] & kernel.SHOWN) != 0)
    rows: Longs = np.flatnonzero(inside)
    start = world.start[rows]
    rows = rows[(start >= now_ms - window.past_ms) & (start <= now_ms + window.ahead_ms)]
    return _filtered(columns, _accessible(columns, rows, question.user), question.filters)


def _accessible(columns: Columns, rows: Longs, user: str | None) -> Longs:
    open_ = (columns.world.state[rows] & kernel.PRIVATE) == 0
    if user is not None and not open_.all():
        open_ |= np.isin(columns.world.slot[rows], columns.private_slots(user))
    return np.asarray(rows[open_])


def _filtered(columns: Columns, rows: Longs, filters: tuple[Filter, ...]) -> Longs:
    if not filters:
        return rows
    passed = np.zeros(len(rows), np.bool_)
    for one in filters:
        # What another filter has let in needs no further test.
        rest = np.flatnonzero(~passed)
        passed[rest[_passing(columns, rows[rest], clause_of(one))]] = True
    return rows[passed]


def _passing(columns: Columns, rows: Longs, clause: Clause) -> Longs:
    """Places of the rows that pass a filter: what is cheap first, words last."""
    world = columns.world
    least, most = (bound[world.zone[rows]] for bound in bounds_of(clause.span, columns.zones))
    passed = (clause.status >> (world.state[rows] >> kernel.STATUS_SHIFT)) & 1 == 1
    passed &= (world.end[rows] >= least) & (world.start[rows] <= most)
    *here, farthest = clause.place
    if farthest >= 0:
        passed &= chords2(world.vector[:, rows], here) <= farthest
    places = np.flatnonzero(passed)
    tests = [test for test in (clause.tagged, clause.saying) if test is not None]
    if not tests:
        return places
    said = (said_of(columns, slot) for slot in world.slot[rows[places]].tolist())
    return places[np.fromiter((all(test.holds(one) for test in tests) for one in said), np.bool_, len(places))]


def raw_of(columns: Columns, rows: Longs, question: Question, weights: Weights, now_ms: int) -> Floats:
    """Raw scores of the rows for this viewer, quantised."""
    world = columns.world
    total = (
        weights.time * time_terms((world.start[rows] - now_ms) / HOUR_MS)
        + weights.distance * distance_terms(world.vector[:, rows].T, question)
        + weights.popularity * world.popularity[rows]
        + weights.recency * recency_terms((now_ms - world.created[rows]) / HOUR_MS)
        + weights.confidence * world.confidence[rows]
    )
    return np.asarray(np.rint(total * QUANTUM) / QUANTUM)


def time_terms(hours: Floats) -> Floats:
    """T for hours to the start."""
    soon = np.where(hours <= 24, 0.8, np.where(hours <= 72, 0.8 - 0.5 * (hours - 24) / 48, 0.1))
    return np.where(hours < 0, np.maximum(0.0, 1 + hours / 24), np.where(hours <= 2, 1.0, soon))


def distance_terms(vectors: Floats, question: Question) -> Floats:
    """D for each point, from the viewer's location or the viewport's centre."""
    chord = np.sqrt(np.minimum(chords2(vectors.T, question.origin()), 4.0))
    km = 2 * EARTH_KM * np.arcsin(np.minimum(1.0, chord / 2))
    far = np.where(km <= 15, 0.6, np.where(km <= 50, 0.6 - 0.4 * (km - 15) / 35, 0.1))
    return np.where(km <= 1, 1.0, np.where(km <= 5, 0.8, far))


def chords2(vectors: Floats, here: Sequence[float]) -> Floats:
    """Squared chords between each point of (3, n) and one, added up in the order in which `chord2` does."""
    x, y, z = vectors
    return np.asarray((here[0] - x) ** 2 + (here[1] - y) ** 2 + (here[2] - z) ** 2)


_AGES = np.array([1.0, 6.0, 24.0, 72.0, 168.0])
_RECENCY = np.array([1.0, 0.9, 0.7, 0.5, 0.3, 0.1])


def recency_terms(hours: Floats) -> Floats:
    """R for hours since creation."""
    return np.asarray(_RECENCY[np.searchsorted(_AGES, hours, side="left")])


def best_first(columns: Columns, rows: Longs, raw: Floats) -> Longs:
    """Positions in `rows`, raw descending, then start, then id."""
    world = columns.world
    return np.lexsort((world.label[rows], world.start[rows], -raw))


def spaced(vectors: Floats, spacing_km: float, limit: int) -> Longs:
    """Positions kept, walking from the top: nearer than `spacing_km` to one kept is dropped; at most `limit`.

    In blocks: one matrix product says who is too near to whom, and only where somebody is does a walk have to be made.
    """
    if spacing_km <= 0 or len(vectors) == 1:
        return np.arange(min(limit, len(vectors)))
    most = 1 - chord2_of_km(spacing_km) / 2
    kept = np.empty(0, np.int64)
    for begin in range(0, len(vectors), BLOCK):
        block = vectors[begin : begin + BLOCK]
        free: Flags = np.ones(len(block), np.bool_)
        if len(kept):
            free &= ~(block @ vectors[kept].T > most).any(axis=1)
        kept = np.concatenate([kept, begin + _walk(block, free, most)])
        if len(kept) >= limit:
            break
    return kept[:limit]


def _walk(block: Floats, free: Flags, most: float) -> Longs:
    """The greedy walk within a block, over those still free; two points are too near when their cosine is above `most`."""
    near = np.triu(block @ block.T > most, 1)
    for position in np.flatnonzero(near.any(axis=1)).tolist():
        if free[position]:
            free &= ~near[position]
    return np.flatnonzero(free)
