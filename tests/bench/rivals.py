"""What ranking could have been made with instead: plain Python, NumPy over all columns, an R-tree. All of them exact.

Each is given the same arrays and answers with the same `Seen`: numbers of the events in view, best first, their scores, and
how many candidates there were. `tests/oracle` judges them once (test_rivals.py), and a bench compares ours with them on a
sample of the viewers that it measures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from server.batching.scores import score
from server.batching.scores.score import HOUR_MS, Vector, Weights, chord2, chord2_of_km, relative_score, unit_vector
from tests.bench.crowds import NOW_MS, Crowd, Flags, Floats, Longs, Views

PAST_MS: Final = 24 * HOUR_MS
AHEAD_MS: Final = 720 * HOUR_MS
SPACING_KM: Final = 0.5
WEIGHTS: Final = Weights()
QUANTUM: Final = 1e9


@dataclass(frozen=True, slots=True)
class Seen:
    """A fresh view."""

    events: tuple[int, ...]
    scores: tuple[float, ...]
    candidates: int

    def equals(self, other: Seen) -> bool:
        """The same events in the same order, and the same scores but for the last bits."""
        same = self.events == other.events and self.candidates == other.candidates
        return same and np.allclose(self.scores, other.scores, rtol=0, atol=1e-9)


NOTHING: Final = Seen((), (), 0)


class Naive:
    """Plain Python: every event of the world is looked at for every viewer, and all in view are scored."""

    def __init__(self, crowd: Crowd, now_ms: int = NOW_MS) -> None:
        self.now_ms = now_ms
        confidence = np.where(np.isnan(crowd.confidence), 0.5, crowd.confidence)
        columns = (
            crowd.latitude,
            crowd.longitude,
            crowd.start,
            crowd.shown & ~crowd.private,
            crowd.created,
            confidence,
        )
        self.events = list(
            zip(*(column.tolist() for column in columns), map(tuple, crowd.counts.tolist()), strict=True)
        )

    def view(self, views: Views, viewer: int) -> Seen:
        """One viewer's fresh view."""
        west, south, east, north = (float(getattr(views, n)[viewer]) for n in ("west", "south", "east", "north"))
        first, last = self.now_ms - PAST_MS, self.now_ms + AHEAD_MS
        inside = [
            number
            for number, (latitude, longitude, start, public, *_) in enumerate(self.events)
            if south <= latitude <= north and west <= longitude <= east and public and first <= start <= last
        ]
        origin = unit_vector(float(views.latitude[viewer]), float(views.longitude[viewer]))
        places = {number: unit_vector(*self.events[number][:2]) for number in inside}
        raw = {number: self._raw(number, score.km_of_chord2(chord2(places[number], origin))) for number in inside}
        order = sorted(inside, key=lambda number: (-raw[number], self.events[number][2], number))
        return _scored(_spaced_plainly(order, places, views.limit), raw, order)

    def _raw(self, number: int, km: float) -> float:
        _, _, start, _, created, confidence, counts = self.events[number]
        return score.quantise(
            WEIGHTS.time * score.time_term(start, self.now_ms)
            + WEIGHTS.distance * score.distance_term(km)
            + WEIGHTS.popularity * score.popularity_term(counts)
            + WEIGHTS.recency * score.recency_term(created, self.now_ms)
            + WEIGHTS.confidence * confidence
        )


def _spaced_plainly(order: list[int], places: dict[int, Vector], limit: int) -> list[int]:
    least = chord2_of_km(SPACING_KM)
    kept: list[int] = []
    for number in order:
        if all(chord2(places[number], places[one]) >= least for one in kept):
            kept.append(number)
            if len(kept) == limit:
                break
    return kept


def _scored(kept: list[int], raw: dict[int, float], order: list[int]) -> Seen:
    if not order:
        return NOTHING
    greater: dict[float, int] = {}
    for place, number in enumerate(order):
        greater.setdefault(raw[number], place)
    highest, lowest, n = raw[order[0]], raw[order[-1]], len(order)
    scores = (relative_score(n, greater[raw[number]], raw[number], lowest, highest) for number in kept)
    return Seen(tuple(kept), tuple(scores), n)


class Columns:
    """What both NumPy rivals know of the world."""

    def __init__(self, crowd: Crowd, now_ms: int = NOW_MS) -> None:
        phi, lam = np.radians(crowd.latitude), np.radians(crowd.longitude)
        self.crowd, self.now_ms = crowd, now_ms
        self.vector = np.column_stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)])
        self.public = crowd.shown & ~crowd.private
        self.confidence = np.where(np.isnan(crowd.confidence), 0.5, crowd.confidence)
        filled = np.minimum(crowd.counts / np.array([10, 5, 3]), 1)
        self.popularity = (filled[:, 0] + 3 * filled[:, 1] + 5 * filled[:, 2]) / 9

    def pick(self, rows: Longs, views: Views, viewer: int) -> Seen:
        """The view, of the rows that are in the box."""
        start = self.crowd.start[rows]
        rows = rows[self.public[rows] & (start >= self.now_ms - PAST_MS) & (start <= self.now_ms + AHEAD_MS)]
        if not len(rows):
            return NOTHING
        origin = np.array(unit_vector(float(views.latitude[viewer]), float(views.longitude[viewer])))
        raw = self._raw(rows, origin)
        order = np.lexsort((rows, self.crowd.start[rows], -raw))
        rows, raw = rows[order], raw[order]
        kept = spaced(self.vector[rows], views.limit)
        greater = np.searchsorted(-raw, -raw[kept], side="left").tolist()
        n, low, high = len(rows), float(raw[-1]), float(raw[0])
        scores = (relative_score(n, g, r, low, high) for g, r in zip(greater, raw[kept].tolist(), strict=True))
        return Seen(tuple(rows[kept].tolist()), tuple(scores), n)

    def _raw(self, rows: Longs, origin: Floats) -> Floats:
        total = (
            WEIGHTS.time * _time((self.crowd.start[rows] - self.now_ms) / HOUR_MS)
            + WEIGHTS.distance * _distance(self.vector[rows] - origin)
            + WEIGHTS.popularity * self.popularity[rows]
            + WEIGHTS.recency * _RECENCY[np.searchsorted(_AGES, (self.now_ms - self.crowd.created[rows]) / HOUR_MS)]
            + WEIGHTS.confidence * self.confidence[rows]
        )
        return np.asarray(np.rint(total * QUANTUM) / QUANTUM)


class Brute:
    """NumPy: all columns are compared with the box of every viewer."""

    def __init__(self, crowd: Crowd, now_ms: int = NOW_MS) -> None:
        self.columns = Columns(crowd, now_ms)

    def view(self, views: Views, viewer: int) -> Seen:
        """One viewer's fresh view."""
        crowd = self.columns.crowd
        inside = (crowd.longitude >= views.west[viewer]) & (crowd.longitude <= views.east[viewer])
        inside &= (crowd.latitude >= views.south[viewer]) & (crowd.latitude <= views.north[viewer])
        return self.columns.pick(np.flatnonzero(inside), views, viewer)


class RTree:
    """shapely's STRtree finds what is in the box, NumPy scores it."""

    def __init__(self, crowd: Crowd, now_ms: int = NOW_MS) -> None:
        import shapely  # only `make bench` installs it

        self.columns = Columns(crowd, now_ms)
        self.tree = shapely.STRtree(shapely.points(crowd.longitude, crowd.latitude))
        self.box = shapely.box

    def view(self, views: Views, viewer: int) -> Seen:
        """One viewer's fresh view."""
        corners = (float(getattr(views, n)[viewer]) for n in ("west", "south", "east", "north"))
        rows = np.sort(self.tree.query(self.box(*corners), predicate="intersects"))
        return self.columns.pick(rows, views, viewer)


_AGES: Final = np.array([1.0, 6.0, 24.0, 72.0, 168.0])
_RECENCY: Final = np.array([1.0, 0.9, 0.7, 0.5, 0.3, 0.1])
BLOCK: Final = 128


def _time(hours: Floats) -> Floats:
    soon = np.where(hours <= 24, 0.8, np.where(hours <= 72, 0.8 - 0.5 * (hours - 24) / 48, 0.1))
    return np.where(hours < 0, np.maximum(0.0, 1 + hours / 24), np.where(hours <= 2, 1.0, soon))


def _distance(apart: Floats) -> Floats:
    chord = np.sqrt(np.minimum((apart * apart).sum(axis=1), 4.0))
    km = 2 * score.EARTH_KM * np.arcsin(np.minimum(1.0, chord / 2))
    far = np.where(km <= 15, 0.6, np.where(km <= 50, 0.6 - 0.4 * (km - 15) / 35, 0.1))
    return np.where(km <= 1, 1.0, np.where(km <= 5, 0.8, far))


def spaced(vectors: Floats, limit: int) -> Longs:
    """Positions kept by the greedy spacing, in blocks: one matrix product says who is too near to whom."""
    most = 1 - chord2_of_km(SPACING_KM) / 2
    kept = np.empty(0, np.int64)
    for begin in range(0, len(vectors), BLOCK):
        block = vectors[begin : begin + BLOCK]
        free: Flags = np.ones(len(block), np.bool_)
        if len(kept):
            free &= ~(block @ vectors[kept].T > most).any(axis=1)
        near = np.triu(block @ block.T > most, 1)
        for position in np.flatnonzero(near.any(axis=1)).tolist():
            if free[position]:
                free &= ~near[position]
        kept = np.concatenate([kept, begin + np.flatnonzero(free)])
        if len(kept) >= limit:
            break
    return kept[:limit]
