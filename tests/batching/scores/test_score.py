"""The score's terms at each of their boundaries, and equal to the oracle's and to the columns' everywhere else."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.batching.scores import ranking
from server.batching.scores.question import Question
from server.batching.scores.score import (
    EARTH_KM,
    HOUR_MS,
    Components,
    Weights,
    chord2,
    chord2_of_km,
    components,
    confidence_term,
    distance_term,
    km_of_chord2,
    popularity_term,
    quantise,
    raw_score,
    recency_term,
    relative_score,
    time_term,
    unit_vector,
)
from server.core.event import Event
from server.protocol.values import Location, Viewport
from tests.oracle import view as oracle

pytestmark = pytest.mark.pure
NOW = 1_790_000_000_000
LITTLE = 1e-9


@pytest.mark.parametrize(
    ("hours", "term"),
    [
        (-25, 0.0),
        (-24, 0.0),
        (-12, 0.5),
        (-1, 1 - 1 / 24),
        (0, 1.0),
        (2, 1.0),
        (24, 0.8),
        (48, 0.55),
        (72, 0.3),
        (720, 0.1),
    ],
)
def test_time(hours: int, term: float) -> None:
    assert time_term(NOW + hours * HOUR_MS, NOW) == pytest.approx(term, abs=1e-12)


@pytest.mark.parametrize(("hours", "after"), [(2, 0.8), (24, 0.8), (72, 0.1)])
def test_time_one_millisecond_beyond_a_boundary(hours: int, after: float) -> None:
    assert time_term(NOW + hours * HOUR_MS + 1, NOW) == pytest.approx(after, abs=1e-6)
    assert time_term(NOW - 1, NOW) < 1


@pytest.mark.parametrize(
    ("km", "term"),
    [(0, 1.0), (1, 1.0), (5, 0.8), (15, 0.6), (32.5, 0.4), (50, 0.2), (20_000, 0.1)],
)
def test_distance(km: float, term: float) -> None:
    assert distance_term(km) == pytest.approx(term, abs=1e-12)


@pytest.mark.parametrize(("km", "after"), [(1, 0.8), (5, 0.6), (15, 0.6), (50, 0.1)])
def test_distance_just_beyond_a_boundary(km: float, after: float) -> None:
    assert distance_term(km + LITTLE) == pytest.approx(after, abs=1e-6)


@pytest.mark.parametrize(
    ("counts", "ninths"),
    [
        ((0, 0, 0), 0),
        ((10, 0, 0), 1),
        ((5, 0, 0), 0.5),
        ((11, 0, 0), 1),
        ((0, 5, 0), 3),
        ((0, 1, 0), 0.6),
        ((0, 6, 0), 3),
        ((0, 0, 3), 5),
        ((0, 0, 4), 5),
        ((0, 0, 1), 5 / 3),
        ((10, 5, 3), 9),
        ((2**63 - 1, 2**63 - 1, 2**63 - 1), 9),
    ],
)
def test_popularity(counts: tuple[int, int, int], ninths: float) -> None:
    assert popularity_term(counts) == pytest.approx(ninths / 9, abs=1e-12)


@pytest.mark.parametrize(
    ("hours", "term", "after"),
    [(-5, 1.0, 1.0), (0, 1.0, 1.0), (1, 1.0, 0.9), (6, 0.9, 0.7), (24, 0.7, 0.5), (72, 0.5, 0.3), (168, 0.3, 0.1)],
)
def test_recency_at_a_boundary_and_one_millisecond_older(hours: int, term: float, after: float) -> None:
    assert recency_term(NOW - hours * HOUR_MS, NOW) == term
    assert recency_term(NOW - hours * HOUR_MS - 1, NOW) == after


@pytest.mark.parametrize(("confidence", "term"), [(None, 0.5), (0, 0), (0.0, 0.0), (0.3, 0.3), (1, 1)])
def test_confidence_and_zero_is_zero(confidence: float | None, term: float) -> None:
    assert confidence_term(confidence) == term


def test_the_raw_score_is_the_weighted_sum_to_a_billionth() -> None:
    assert raw_score(Components(1, 1, 1, 1, 1), Weights()) == 1.0
    for place, weight in enumerate((0.25, 0.20, 0.30, 0.15, 0.10)):
        assert raw_score(Components(*(float(i == place) for i in range(5))), Weights()) == weight
    assert quantise(0.123_456_789_4) == 0.123_456_789
    assert quantise(0.1 + 0.2) == 0.3


@pytest.mark.parametrize(
    ("candidates", "greater", "score"),
    [
        (1, 0, 1.0),
        (2, 0, 1.0),
        (2, 1, 0.6),
        (3, 1, 0.8),
        (3, 2, 0.6),
        (4, 0, 1.0),
        (4, 3, 0.3),
        (10, 9, 0.3),
        (10, 3, 0.3 + 0.7 * 6 / 9),
    ],
)
def test_the_relative_score_of_few(candidates: int, greater: int, score: float) -> None:
    assert relative_score(candidates, greater, 0.5, 0.1, 0.9) == pytest.approx(score, abs=1e-12)


def test_the_relative_score_of_eleven_and_more_is_curved_and_mixed_with_raw() -> None:
    assert relative_score(11, 0, 0.9, 0.1, 0.9) == pytest.approx(1.0)
    assert relative_score(11, 10, 0.1, 0.1, 0.9) == 0.0
    place, f, q = 0.5, 1 + 11 / 50, 0.11
    assert relative_score(11, 5, 0.3, 0.1, 0.9) == pytest.approx((1 - q) * place ** (1 / f) + q * 0.25)
    assert relative_score(1001, 500, 0.5, 0.1, 0.9) == pytest.approx(0.7 * 0.5**0.5 + 0.3 * 0.5)
    assert relative_score(11, 0, 0.5, 0.5, 0.5) == 1.0, "all equal: nothing to mix with"


@given(st.integers(1, 300), st.lists(st.integers(0, 10**9), min_size=2, max_size=30))
def test_the_relative_score_equals_the_oracles_and_never_rises_when_raw_falls(
    extra: int, billionths: list[int]
) -> None:
    raws = sorted((b / 1e9 for b in billionths), reverse=True)
    low, high = raws[-1], raws[0]
    for n in (len(raws), len(raws) + extra):
        scores = []
        for raw in raws:
            greater = sum(other > raw for other in raws)
            scores.append(relative_score(n, greater, raw, low, high))
            assert scores[-1] == pytest.approx(oracle.relative(n, greater, raw, low, high), abs=1e-12)
        assert all(0 <= score <= 1 for score in scores)
        pairs = list(zip(zip(raws, scores, strict=True), list(zip(raws, scores, strict=True))[1:], strict=False))
        assert all(a_score > b_score if a > b else a_score == b_score for (a, a_score), (b, b_score) in pairs)


# --- distances on the sphere ---

LATITUDES = st.sampled_from([0.0, 90.0, -90.0, 52.5]) | st.floats(-90, 90)
LONGITUDES = st.sampled_from([0.0, 180.0, -180.0, 13.4]) | st.floats(-180, 180)


@given(LATITUDES, LONGITUDES, LATITUDES, LONGITUDES)
def test_the_chord_gives_the_great_circle(a_lat: float, a_lon: float, b_lat: float, b_lon: float) -> None:
    km = km_of_chord2(chord2(unit_vector(a_lat, a_lon), unit_vector(b_lat, b_lon)))
    expected = oracle.great_circle_km(a_lat, a_lon, b_lat, b_lon)
    # Near the antipode a chord hardly changes with the angle; half a metre there is what float64 leaves.
    assert km == pytest.approx(expected, abs=1e-6 if expected < 19_000 else 5e-4)


@given(st.floats(0, 20_000))
def test_a_distance_and_its_chord_are_one(km: float) -> None:
    assert km_of_chord2(chord2_of_km(km)) == pytest.approx(km, abs=1e-6 if km < 19_000 else 5e-4)


def test_no_distance_is_longer_than_half_the_earth_round() -> None:
    assert chord2_of_km(1e9) == pytest.approx(4.0)
    assert km_of_chord2(4.0) == pytest.approx(math.pi * EARTH_KM)
    assert km_of_chord2(4.0000001) == pytest.approx(math.pi * EARTH_KM)


# --- scalar, columns and oracle are one ---

HOURS = st.sampled_from([-25, -24, -23.9, -2, 0, 2, 2.001, 24, 24.001, 48, 72, 72.001, 720]) | st.floats(-30, 730)
AGES = st.sampled_from([-1, 0, 1, 1.001, 6, 6.001, 24, 24.001, 72, 72.001, 168, 168.001]) | st.floats(-5, 900)
COUNTS = st.sampled_from([0, 1, 2, 3, 5, 9, 10, 11, 2**63 - 1])
CONFIDENCES = st.none() | st.sampled_from([0.0, 0.5, 1.0]) | st.floats(0, 1)


@st.composite
def worlds(draw: st.DrawFn) -> list[dict[str, Any]]:
    one = st.fixed_dictionaries(
        {
            "latitude": LATITUDES,
            "longitude": LONGITUDES,
            "start": HOURS.map(lambda h: NOW + round(h * HOUR_MS)),
            "created": AGES.map(lambda h: NOW - round(h * HOUR_MS)),
            "scan": COUNTS,
            "save": COUNTS,
            "rsvp": COUNTS,
            "confidence": CONFIDENCES,
        }
    )
    found = draw(st.lists(one, min_size=1, max_size=12))
    return [{**event, "id": f"e{n}"} for n, event in enumerate(found)]


def as_event(e: dict[str, Any]) -> Event:
    counts = (e["scan"], e["save"], e["rsvp"])
    return Event(
        e["id"],
        e["latitude"],
        e["longitude"],
        e["start"],
        counts=counts,
        confidence=e["confidence"],
        created_ms=e["created"],
        version=1,
    )


@given(worlds(), LATITUDES, LONGITUDES)
def test_the_terms_equal_the_oracles_and_the_columns(
    world: list[dict[str, Any]], latitude: float, longitude: float
) -> None:
    viewport = Viewport(west=-180, south=-90, east=180, north=90)
    question = Question(viewport, location=Location(latitude=latitude, longitude=longitude))
    asked = {"viewport": viewport.model_dump(), "location": {"latitude": latitude, "longitude": longitude}}
    vectors = np.array([unit_vector(e["latitude"], e["longitude"]) for e in world])
    columns = {
        "time": ranking.time_terms((np.array([e["start"] for e in world]) - NOW) / HOUR_MS),
        "distance": ranking.distance_terms(vectors, question),
        "recency": ranking.recency_terms((NOW - np.array([e["created"] for e in world])) / HOUR_MS),
    }
    for row, one in enumerate(world):
        km = km_of_chord2(chord2(unit_vector(one["latitude"], one["longitude"]), question.origin()))
        terms = components(as_event(one), one["start"], km, NOW)
        expected = oracle.terms(one, asked, NOW)
        for name, value in expected.items():
            if name == "distance" and near_a_step(km):
                continue
            assert getattr(terms, name) == pytest.approx(value, abs=1e-9), name
        for name, column in columns.items():
            assert column[row] == pytest.approx(getattr(terms, name), abs=1e-12), name


def near_a_step(km: float) -> bool:
    """Within a micrometre of a place where D jumps two ways of computing a distance may differ."""
    return any(abs(km - step) < 1e-6 for step in (1, 5, 50))
