"""Rank one viewer: candidates, raw scores, order, spacing, cut. Exact; NumPy over the columns, no state of its own.

This is the seam behind which a faster engine may stand: `rank(columns, question, rules, now_ms) -> Ranking`. The plain
version that judges it lives in tests/oracle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from server.batching.scores.columns import Columns, Entry, Flags, Floats, Longs
from server.batching.scores.question import Question, Window, passes
from server.batching.scores.score import EARTH_KM, HOUR_MS, QUANTUM, Weights, chord2_of_km, relative_score
from server.core.event import visible_to

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
    """A viewer's fresh view, best first: `scores[i]` and `raws[i]` are those of `entries[i]`; `candidates` is N."""

    entries: tuple[Entry, ...]
    scores: tuple[float, ...]
    raws: tuple[float, ...]
    candidates: int


def rank(columns: Columns, question: Question, rules: Rules, now_ms: int) -> Ranking:
    """The view of one question at one moment."""
    columns.refresh(now_ms)
    rows = candidate_rows(columns, question, rules.window, now_ms)
    if rows.size == 0:
        return Ranking((), (), (), 0)
    raw = raw_of(columns, rows, question, rules.weights, now_ms)
    order = best_first(columns, rows, raw)
    kept = spaced(columns.vector[rows[order]], rules.spacing_km, question.limit)
    chosen = order[kept]
    descending = -raw[order]
    greater = np.searchsorted(descending, -raw[chosen], side="left")
    lowest, highest, n = float(raw.min()), float(raw.max()), int(rows.size)
    raws = tuple(raw[chosen].tolist())
    scores = tuple(relative_score(n, g, r, lowest, highest) for g, r in zip(greater.tolist(), raws, strict=True))
    return Ranking(_entries(columns, rows[chosen]), scores, raws, n)


def candidate_rows(columns: Columns, question: Question, window: Window, now_ms: int) -> Longs:
    """The rows that the viewer may see and wants to: access, status, viewport, time window, filters."""
    view, used = question.viewport, columns.rows
    longitude = columns.longitude[:used]
    if view.west < view.east:
        inside = (longitude >= view.west) & (longitude <= view.east)
    else:
        inside = (longitude >= view.west) | (longitude <= view.east)
    latitude = columns.latitude[:used]
    inside &= (latitude >= view.south) & (latitude <= view.north) & columns.shown[:used]
    rows = np.flatnonzero(inside)
    start = columns.start[rows]
    rows = rows[(start >= now_ms - window.past_ms) & (start <= now_ms + window.ahead_ms)]
    return _filtered(columns, _accessible(columns, rows, question.user), question)


def _accessible(columns: Columns, rows: Longs, user: str | None) -> Longs:
    private = columns.private[rows]
    if not private.any():
        return rows
    if user is None:
        return rows[~private]
    seen = [
        not p or visible_to(_entry(columns, r).event, user)
        for r, p in zip(rows.tolist(), private.tolist(), strict=True)
    ]
    return rows[np.array(seen, np.bool_)]


def _filtered(columns: Columns, rows: Longs, question: Question) -> Longs:
    if not question.filters:
        return rows
    wanted = [_passes(_entry(columns, row), question) for row in rows.tolist()]
    return rows[np.array(wanted, np.bool_)]


def _passes(entry: Entry, question: Question) -> bool:
    return passes(question.filters, entry.event, entry.start_ms, entry.end_ms)


def raw_of(columns: Columns, rows: Longs, question: Question, weights: Weights, now_ms: int) -> Floats:
    """Raw scores of the rows for this viewer, quantised."""
    total = (
        weights.time * time_terms((columns.start[rows] - now_ms) / HOUR_MS)
        + weights.distance * distance_terms(columns.vector[rows], question)
        + weights.popularity * columns.popularity[rows]
        + weights.recency * recency_terms((now_ms - columns.created[rows]) / HOUR_MS)
        + weights.confidence * columns.confidence[rows]
    )
    return np.asarray(np.rint(total * QUANTUM) / QUANTUM)


def time_terms(hours: Floats) -> Floats:
    """T for hours to the start."""
    soon = np.where(hours <= 24, 0.8, np.where(hours <= 72, 0.8 - 0.5 * (hours - 24) / 48, 0.1))
    return np.where(hours < 0, np.maximum(0.0, 1 + hours / 24), np.where(hours <= 2, 1.0, soon))


def distance_terms(vectors: Floats, question: Question) -> Floats:
    """D for each point, from the viewer's location or the viewport's centre."""
    apart = vectors - np.array(question.origin())
    chord = np.sqrt(np.minimum((apart * apart).sum(axis=1), 4.0))
    km = 2 * EARTH_KM * np.arcsin(np.minimum(1.0, chord / 2))
    far = np.where(km <= 15, 0.6, np.where(km <= 50, 0.6 - 0.4 * (km - 15) / 35, 0.1))
    return np.where(km <= 1, 1.0, np.where(km <= 5, 0.8, far))


_AGES = np.array([1.0, 6.0, 24.0, 72.0, 168.0])
_RECENCY = np.array([1.0, 0.9, 0.7, 0.5, 0.3, 0.1])


def recency_terms(hours: Floats) -> Floats:
    """R for hours since creation."""
    return np.asarray(_RECENCY[np.searchsorted(_AGES, hours, side="left")])


def best_first(columns: Columns, rows: Longs, raw: Floats) -> Longs:
    """Positions in `rows`, raw descending, then start, then id."""
    start = columns.start[rows]
    order = np.lexsort((start, -raw))
    same = (raw[order[1:]] == raw[order[:-1]]) & (start[order[1:]] == start[order[:-1]])
    if not same.any():
        return order
    edges = np.flatnonzero(np.concatenate(([True], ~same, [True])))
    for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        if end - begin > 1:
            group = sorted(order[begin:end].tolist(), key=lambda i: _entry(columns, int(rows[i])).event.id)
            order[begin:end] = group
    return order


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


def _entry(columns: Columns, row: int) -> Entry:
    entry = columns.entries[row]
    assert entry is not None
    return entry


def _entries(columns: Columns, rows: Longs) -> tuple[Entry, ...]:
    return tuple(_entry(columns, row) for row in rows.tolist())
