"""The score: algorithm `mapmoji`, version 1, as pure scalar functions; the fast path in `ranking.py` must equal it.

raw = .25 T + .20 D + .30 P + .15 R + .10 C (weights are settings), rounded to a multiple of 1e-9 before any comparison, so
that two ways of computing it cannot disagree about an order. The relative score places an event among its viewer's N
candidates and is strictly monotone in raw: order, spacing and cut need only raw.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, TypeAlias

from server.core.event import Counts, Event

EARTH_KM: Final = 6371.0088
"""Mean Earth radius R1 of the IUGG, km."""
HOUR_MS: Final = 3_600_000
QUANTUM: Final = 1e9
"""Raw scores are whole multiples of 1 / QUANTUM."""
Vector: TypeAlias = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Weights:
    """What each of the five terms counts."""

    time: float = 0.25
    distance: float = 0.20
    popularity: float = 0.30
    recency: float = 0.15
    confidence: float = 0.10


@dataclass(frozen=True, slots=True)
class Components:
    """The five terms of one event for one viewer, each 0..1, before weights."""

    time: float
    distance: float
    popularity: float
    recency: float
    confidence: float


def time_term(start_ms: int, now_ms: int) -> float:
    """T: 1 in the two hours before the start, fading over the day after it and the three days before."""
    hours = (start_ms - now_ms) / HOUR_MS
    if hours < 0:
        return max(0.0, 1 + hours / 24)
    if hours <= 2:
        return 1.0
    if hours <= 24:
        return 0.8
    return 0.8 - 0.5 * (hours - 24) / 48 if hours <= 72 else 0.1


def distance_term(km: float) -> float:
    """D: 1 within a kilometre, .1 beyond fifty."""
    for bound, value in ((1, 1.0), (5, 0.8), (15, 0.6)):
        if km <= bound:
            return value
    return 0.6 - 0.4 * (km - 15) / 35 if km <= 50 else 0.1


def popularity_term(counts: Counts) -> float:
    """P: scans, saves and RSVPs, each up to its fill, weighted 1, 3 and 5."""
    scan, save, rsvp = counts
    return (min(scan / 10, 1) + 3 * min(save / 5, 1) + 5 * min(rsvp / 3, 1)) / 9


def recency_term(created_ms: int, now_ms: int) -> float:
    """R: age since creation."""
    hours = (now_ms - created_ms) / HOUR_MS
    for bound, value in ((1, 1.0), (6, 0.9), (24, 0.7), (72, 0.5), (168, 0.3)):
        if hours <= bound:
            return value
    return 0.1


def confidence_term(confidence: float | None) -> float:
    """C: what is known about the event's truth; unknown counts half, 0 is 0."""
    return 0.5 if confidence is None else confidence


def quantise(raw: float) -> float:
    """Raw as the nearest multiple of 1e-9 (half to even)."""
    return round(raw * QUANTUM) / QUANTUM


def components(event: Event, start_ms: int, km: float, now_ms: int) -> Components:
    """The five terms of an event whose counting occurrence starts at `start_ms`, `km` away."""
    return Components(
        time_term(start_ms, now_ms),
        distance_term(km),
        popularity_term(event.counts),
        recency_term(event.created_ms, now_ms),
        confidence_term(event.confidence),
    )


def raw_score(terms: Components, weights: Weights) -> float:
    """The weighted sum, quantised."""
    return quantise(
        weights.time * terms.time
        + weights.distance * terms.distance
        + weights.popularity * terms.popularity
        + weights.recency * terms.recency
        + weights.confidence * terms.confidence
    )


def relative_score(candidates: int, greater: int, raw: float, lowest: float, highest: float) -> float:
    """The score of one of `candidates` events when `greater` of them have a strictly greater raw."""
    if candidates == 1:
        return 1.0
    place = 1 - greater / (candidates - 1)
    if candidates <= 3:
        return 0.6 + 0.4 * place
    if candidates <= 10:
        return 0.3 + 0.7 * place
    curved = float(place ** (1 / min(2.0, 1 + candidates / 50)))
    if highest <= lowest:
        return curved
    share = min(0.3, candidates / 100)
    return (1 - share) * curved + share * (raw - lowest) / (highest - lowest)


def unit_vector(latitude: float, longitude: float) -> Vector:
    """A point on the unit sphere."""
    phi, lam = math.radians(latitude), math.radians(longitude)
    return (math.cos(phi) * math.cos(lam), math.cos(phi) * math.sin(lam), math.sin(phi))


def chord2(a: Vector, b: Vector) -> float:
    """Squared straight-line distance of two points on the unit sphere, 0..4."""
    return (a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2 + (a[2] - b[2]) ** 2


def chord2_of_km(km: float) -> float:
    """The squared chord that a great-circle distance spans; distances compare as their chords do."""
    return 4 * math.sin(min(km / EARTH_KM, math.pi) / 2) ** 2


def km_of_chord2(squared: float) -> float:
    """The great-circle distance that a squared chord spans, km."""
    return 2 * EARTH_KM * math.asin(min(1.0, math.sqrt(squared) / 2))
