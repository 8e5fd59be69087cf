"""The ranking equals the oracle: order, membership, scores, on random worlds full of ties and edges."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.batching.scores.columns import Columns
from server.batching.scores.question import Question, Window
from server.batching.scores.ranking import Rules, rank
from server.batching.scores.score import HOUR_MS, Weights
from server.core.event import Event
from server.protocol.values import Filter, Location, Viewport
from tests.oracle import view as oracle

pytestmark = pytest.mark.pure
NOW = 1_790_000_000_000
WINDOW = Window(24 * HOUR_MS, 720 * HOUR_MS)

LATITUDES = st.sampled_from([0.0, 0.001, 0.004, 0.01, 0.3, 0.9, -0.5, 45.0, 89.999, 90.0, -90.0]) | st.floats(-90, 90)
LONGITUDES = st.sampled_from([0.0, 0.001, 0.02, 0.5, 179.9, 179.999, 180.0, -180.0, -179.9]) | st.floats(-180, 180)
HOURS = st.sampled_from([-24, -23.5, -2, -0.5, 0, 1, 2, 2.5, 24, 30, 72, 100, 720, 721, -25])
ZONES = st.sampled_from([None, "UTC", "Europe/Berlin", "Asia/Kolkata", "Pacific/Auckland"])
RULES = st.sampled_from([None, None, None, "FREQ=DAILY", "FREQ=WEEKLY;COUNT=5", "FREQ=DAILY;INTERVAL=2;COUNT=3"])


@st.composite
def events(draw: st.DrawFn) -> list[dict[str, Any]]:
    count = draw(st.integers(0, 30))
    return [draw(event(f"e{i:02d}")) for i in range(count)]


@st.composite
def event(draw: st.DrawFn, event_id: str) -> dict[str, Any]:
    start = NOW + round(draw(HOURS) * HOUR_MS)
    length = draw(st.sampled_from([None, 0, 1, 5, 30]))
    return {
        "id": event_id,
        "latitude": draw(LATITUDES),
        "longitude": draw(LONGITUDES),
        "start": start,
        "end": None if length is None else start + length * HOUR_MS,
        "timezone": draw(ZONES),
        "status": draw(st.sampled_from(["VERIFIED", "VERIFIED", "PENDING", "REJECTED", "EXPIRED"])),
        "scan": draw(st.sampled_from([0, 3, 10, 11, 2**62])),
        "save": draw(st.sampled_from([0, 1, 5])),
        "rsvp": draw(st.sampled_from([0, 1, 2, 3])),
        "created": NOW - round(draw(st.sampled_from([0, 0.5, 1, 6, 7, 24, 72, 168, 200])) * HOUR_MS),
        "confidence": draw(st.sampled_from([None, 0, 0.5, 1])),
        "private": draw(st.sampled_from([False, False, False, True])),
        "creator": draw(st.sampled_from([None, "ann", "bob"])),
        "shared": draw(st.sampled_from([[], ["ann"], ["cy"]])),
        "categories": draw(st.sampled_from([[], ["music"], ["music", "art"], ["food"]])),
        "title": draw(st.sampled_from(["Jazz Night", "FOOD fair", "straße"])),
        "recurrence": draw(RULES),
    }


@st.composite
def viewports(draw: st.DrawFn) -> dict[str, float]:
    known = [
        (-180, -90, 180, 90),
        (-1, -1, 1, 1),
        (179, -1, -179, 1),
        (-0.002, -0.002, 0.002, 0.002),
        (170, 40, -170, 90),
    ]
    if draw(st.booleans()):
        west, south, east, north = draw(st.sampled_from(known))
    else:
        west, east = draw(LONGITUDES), draw(LONGITUDES)
        south, north = sorted((draw(LATITUDES), draw(LATITUDES)))
    if west == east or south >= north:
        west, south, east, north = known[0]
    return {"west": west, "south": south, "east": east, "north": north}


FILTERS = st.lists(
    st.sampled_from(
        [
            {},
            {"categories": {"include": ["music"]}},
            {"categories": {"exclude": ["art"]}, "status": ["PENDING"]},
            {"text": "jAzZ"},
            {"text": "STRASSE"},
            {"location": {"latitude": 0, "longitude": 0, "radius": 2000}},
            {"location": {"latitude": 0, "longitude": 0, "radius": 0}},
            {"dateRange": {"start": NOW}},
            {"dateRange": {"end": "2026-09-21"}},
            {"dateRange": {"start": "2026-09-22", "end": "2026-09-23"}},
        ]
    ),
    max_size=3,
)


@st.composite
def questions(draw: st.DrawFn) -> dict[str, Any]:
    near = {"latitude": draw(LATITUDES), "longitude": draw(LONGITUDES)}
    return {
        "viewport": draw(viewports()),
        "filters": draw(FILTERS),
        "location": draw(st.sampled_from([None, near])),
        "user": draw(st.sampled_from([None, "ann", "bob"])),
        "maxEvents": draw(st.sampled_from([1, 2, 3, 10, 500])),
    }


def as_event(e: dict[str, Any]) -> Event:
    return Event(
        id=e["id"],
        latitude=e["latitude"],
        longitude=e["longitude"],
        start_ms=e["start"],
        end_ms=e["end"],
        title=e["title"],
        timezone=e["timezone"],
        status=e["status"],
        counts=(e["scan"], e["save"], e["rsvp"]),
        created_ms=e["created"],
        confidence=e["confidence"],
        private=e["private"],
        creator_id=e["creator"],
        shared_with=tuple(e["shared"]),
        categories=tuple(e["categories"]),
        recurrence=e["recurrence"],
        version=1,
    )


def as_question(q: dict[str, Any]) -> Question:
    location = None if q["location"] is None else Location.model_validate(q["location"])
    filters = tuple(Filter.model_validate(f) for f in q["filters"])
    return Question(Viewport.model_validate(q["viewport"]), filters, location, q["user"], q["maxEvents"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(events(), questions(), st.sampled_from([0.0, 0.5, 200.0]), st.sampled_from([-1, 0, 7, 20]))
def test_a_view_equals_the_oracles(
    world: list[dict[str, Any]], question: dict[str, Any], spacing: float, merged: int
) -> None:
    columns = Columns()
    # Backwards, so that the order of rows is not by chance that of ids.
    for number, one in enumerate(reversed(world)):
        columns.put(as_event(one), NOW)
        if number == merged:
            columns.merge()
    ranking = rank(columns, as_question(question), Rules(Weights(), WINDOW, spacing), NOW)
    expected = oracle.view(world, question, NOW, spacing)
    assert [columns.id_of(slot) for slot in ranking.slots] == [e["id"] for e, _ in expected]
    assert ranking.scores.tolist() == pytest.approx([s for _, s in expected], abs=1e-9)
    assert ranking.candidates == len(oracle.candidates(world, question, NOW))


def test_a_daily_event_moves_on_to_its_next_occurrence() -> None:
    columns, rules = Columns(), Rules(Weights(), WINDOW, 0.5)
    start = NOW - 50 * 24 * HOUR_MS
    columns.put(Event("daily", 0.0, 0.0, start, end_ms=start + HOUR_MS, recurrence="FREQ=DAILY", version=1), NOW)
    question = Question(Viewport(west=-1, south=-1, east=1, north=1))
    for hours in (0, 0.5, 1, 23, 24, 30):
        later = NOW + round(hours * HOUR_MS)
        slot = rank(columns, question, rules, later).slots.item(0)
        expected = oracle.occurrence(
            {"start": start, "end": start + HOUR_MS, "recurrence": "FREQ=DAILY", "timezone": None}, later
        )
        assert columns.starts(slot) == expected


def test_what_was_removed_or_has_moved_is_ranked_where_it_is_now() -> None:
    columns, rules = Columns(), Rules(Weights(), WINDOW, 0)
    for i in range(3000):
        columns.put(Event(f"e{i}", i / 100, 0.0, NOW, version=1), NOW)
    columns.merge()
    columns.remove("e7")
    columns.put(Event("e8", -10.0, 0.0, NOW, version=2), NOW)
    columns.put(Event("again", 7.0, 0.0, NOW, version=1), NOW)
    for _ in range(2):
        found = rank(columns, Question(Viewport(west=-1, south=0, east=1, north=90), limit=500), rules, NOW)
        assert found.candidates == 2999
        columns.merge()
