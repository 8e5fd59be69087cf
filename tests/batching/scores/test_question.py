"""Which events a question admits: access, status, viewport, time window, filters."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.batching.scores.question import Question, Window, admits, centre, day_start_ms, in_viewport, passes
from server.core.event import Event
from server.protocol.values import MAX_MS, Filter, Location, Viewport, to_ms
from tests.oracle import view as oracle

pytestmark = pytest.mark.pure
NOW = 1_790_000_000_000
HOUR = 3_600_000
WINDOW = Window(24 * HOUR, 720 * HOUR)
WORLD = Viewport(west=-180, south=-90, east=180, north=90)
EVENT = Event(
    "a", 0.0, 0.0, NOW, title="Jazz Night", categories=("music",), description="An open stage", timezone="Europe/Berlin"
)


def box(west: float, south: float, east: float, north: float) -> Viewport:
    return Viewport(west=west, south=south, east=east, north=north)


def matches(one: dict[str, Any], event: Event = EVENT, **times: Any) -> bool:
    start, end = times.get("start", event.start_ms), times.get("end", event.end_ms)
    return passes((Filter.model_validate(one),), event, start, end)


# --- viewport ---


@pytest.mark.parametrize(
    ("viewport", "latitude", "longitude", "inside"),
    [
        (box(13, 52, 14, 53), 52.5, 13.5, True),
        (box(13, 52, 14, 53), 52, 13, True),
        (box(13, 52, 14, 53), 53, 14, True),
        (box(13, 52, 14, 53), 51.999999, 13.5, False),
        (box(13, 52, 14, 53), 53.000001, 13.5, False),
        (box(13, 52, 14, 53), 52.5, 12.999999, False),
        (box(13, 52, 14, 53), 52.5, 14.000001, False),
        (box(170, -10, -170, 10), 0, 170, True),
        (box(170, -10, -170, 10), 0, -170, True),
        (box(170, -10, -170, 10), 0, 180, True),
        (box(170, -10, -170, 10), 0, -180, True),
        (box(170, -10, -170, 10), 0, 169.999, False),
        (box(170, -10, -170, 10), 0, -169.999, False),
        (box(170, -10, -170, 10), 0, 0, False),
        (box(170, -10, -170, 10), 11, 180, False),
        (box(180, -10, -180, 10), 0, 180, True),
        (box(180, -10, -180, 10), 0, 179, False),
        (WORLD, 90, 180, True),
        (WORLD, -90, -180, True),
    ],
)
def test_bounds_are_inclusive_and_west_beyond_east_crosses_the_antimeridian(
    viewport: Viewport, latitude: float, longitude: float, inside: bool
) -> None:
    assert in_viewport(viewport, latitude, longitude) is inside


@pytest.mark.parametrize(
    ("viewport", "expected"),
    [
        (box(13, 52, 14, 53), (52.5, 13.5)),
        (WORLD, (0, 0)),
        (box(170, -10, -170, 10), (0, 180)),
        (box(170, 0, -160, 10), (5, -175)),
        (box(160, 0, -170, 10), (5, 175)),
        (box(1, 0, 0, 10), (5, -179.5)),
    ],
)
def test_the_centre_of_a_viewport_is_inside_it(viewport: Viewport, expected: tuple[float, float]) -> None:
    assert centre(viewport) == expected
    assert in_viewport(viewport, *expected)


@given(
    st.floats(-180, 180),
    st.floats(-180, 180),
    st.floats(-90, 90),
    st.floats(-90, 90),
    st.floats(-90, 90),
    st.floats(-180, 180),
)
def test_any_viewport_holds_what_the_oracle_says(
    west: float, east: float, south: float, north: float, latitude: float, longitude: float
) -> None:
    if west == east or south >= north:
        return
    viewport = box(west, south, east, north)
    assert in_viewport(viewport, latitude, longitude) == oracle.inside(viewport.model_dump(), latitude, longitude)
    assert centre(viewport) == pytest.approx(oracle.origin({"viewport": viewport.model_dump()}), abs=1e-9)


def test_distances_are_measured_from_the_location_else_from_the_centre() -> None:
    question = Question(box(170, -10, -170, 10))
    assert question.origin() == pytest.approx((-1, 0, 0))
    assert replace(question, location=Location(latitude=0, longitude=0)).origin() == (1, 0, 0)


# --- the window of time ---


@pytest.mark.parametrize(("hours", "inside"), [(-24, True), (720, True), (0, True)])
def test_the_window_is_inclusive_to_the_millisecond(hours: int, inside: bool) -> None:
    start = NOW + hours * HOUR
    assert WINDOW.holds(start, NOW) is inside
    outside = start - 1 if hours < 0 else start + 1
    assert WINDOW.holds(outside, NOW) is (hours == 0)


# --- dates ---


@pytest.mark.parametrize(
    ("span", "inside"),
    [
        ({}, True),
        ({"start": NOW}, True),
        ({"end": NOW}, True),
        ({"start": NOW + 1}, False),
        ({"end": NOW - 1}, False),
        ({"start": NOW - 5, "end": NOW + 5}, True),
        ({"start": NOW, "end": NOW}, True),
    ],
)
def test_a_range_of_dates_may_be_open_and_its_ends_count(span: dict[str, Any], inside: bool) -> None:
    assert matches({"dateRange": span}) is inside


@pytest.mark.parametrize(
    ("start", "end", "inside"),
    [(-9, -1, False), (-9, 0, True), (5, None, True), (5, 5, True), (10, 20, True), (11, None, False), (-9, 99, True)],
)
def test_a_range_must_overlap_the_event_from_start_to_end(start: int, end: int | None, inside: bool) -> None:
    event = replace(EVENT, start_ms=NOW + start, end_ms=None if end is None else NOW + end)
    assert matches({"dateRange": {"start": NOW, "end": NOW + 10}}, event) is inside


@pytest.mark.parametrize(
    ("zone", "moment", "inside"),
    [
        ("Europe/Berlin", "2026-05-01T00:00:00+02:00", True),
        ("Europe/Berlin", "2026-04-30T23:59:59.999+02:00", False),
        ("Europe/Berlin", "2026-05-01T23:59:59.999+02:00", True),
        ("Europe/Berlin", "2026-05-02T00:00:00+02:00", False),
        ("Pacific/Auckland", "2026-05-01T00:00:00+12:00", True),
        ("Pacific/Auckland", "2026-05-01T13:00:00Z", False),
        (None, "2026-05-01T00:00:00Z", True),
        (None, "2026-05-02T00:00:00Z", False),
    ],
)
def test_a_bare_date_is_that_local_day_of_the_event(zone: str | None, moment: str, inside: bool) -> None:
    event = replace(EVENT, timezone=zone, start_ms=to_ms(moment), end_ms=None)
    assert matches({"dateRange": {"start": "2026-05-01", "end": "2026-05-01"}}, event) is inside


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2026-05-01", 24)])
def test_a_day_is_as_long_as_the_clocks_make_it(day: str, hours: int) -> None:
    assert day_start_ms(day, "Europe/Berlin", after=True) - day_start_ms(day, "Europe/Berlin") == hours * HOUR


def test_a_day_whose_midnight_the_clock_change_leaves_out_begins_at_the_change() -> None:
    assert day_start_ms("2018-11-04", "America/Sao_Paulo") == to_ms("2018-11-04T03:00:00Z")


@pytest.mark.parametrize("zone", [None, "Pacific/Kiritimati", "Etc/GMT+12"])
def test_the_first_and_the_last_day_that_can_be_written_are_days_too(zone: str | None) -> None:
    assert day_start_ms("0001-01-01", zone) < day_start_ms("0001-01-01", zone, after=True)
    assert day_start_ms("9999-12-31", zone) < day_start_ms("9999-12-31", zone, after=True)
    assert matches({"dateRange": {"start": "0001-01-01", "end": "9999-12-31"}}, replace(EVENT, timezone=zone))
    late = replace(EVENT, timezone="UTC", start_ms=MAX_MS)
    assert matches({"dateRange": {"end": "9999-12-31"}}, late)


def test_of_a_recurring_event_the_occurrence_counts() -> None:
    assert matches({"dateRange": {"start": NOW + 5}}, start=NOW + 5, end=None)
    assert not matches({"dateRange": {"start": NOW + 5}}, start=NOW, end=NOW + 4)


# --- text, categories, status, place ---


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("jazz", True),
        ("JAZZ night", True),
        ("night jazz", True),
        ("azz", True),
        ("stage music", True),
        ("jazz brunch", False),
        ("", True),
        ("   ", True),
        ("nightmusic", False),
        ("%", False),
        ("jazz%night", False),
        ("_azz", False),
    ],
)
def test_all_words_must_be_in_title_categories_or_description(text: str, inside: bool) -> None:
    assert matches({"text": text}) is inside


def test_words_are_compared_without_case_in_every_language() -> None:
    event = replace(EVENT, title="Große Straße", description="ΣΊΣΥΦΟΣ İstanbul", categories=())
    for text in ("GROSSE", "straße", "STRASSE", "σίσυφος", "ΣΊΣΥΦΟΣ"):
        assert matches({"text": text}, event), text
    assert not matches({"text": "jazz"}, event)
    assert matches({"text": "jazz"}, replace(EVENT, description=None, categories=()))


@pytest.mark.parametrize(
    ("wanted", "inside"),
    [
        ({}, True),
        ({"include": ["music"]}, True),
        ({"include": ["food", "music"]}, True),
        ({"include": ["food"]}, False),
        ({"include": ["Music"]}, False),
        ({"include": [], "exclude": []}, True),
        ({"exclude": ["music"]}, False),
        ({"exclude": ["food"]}, True),
        ({"include": ["music"], "exclude": ["music"]}, False),
    ],
)
def test_categories_include_any_and_exclude_all(wanted: dict[str, Any], inside: bool) -> None:
    assert matches({"categories": wanted}) is inside
    assert matches({"categories": {"include": ["x"]}}, replace(EVENT, categories=())) is False


def test_a_status_is_one_of_those_asked_for_and_no_status_is_any() -> None:
    assert matches({"status": []}) and matches({"status": ["PENDING", "VERIFIED"]})
    assert not matches({"status": ["PENDING"]})


@pytest.mark.parametrize(
    ("radius", "latitude", "inside"),
    [
        (0, 0.0, True),
        (0, 0.0000001, False),
        (1000, 0.0, True),
        (1000, 0.00899, True),
        (1000, 0.009, False),
        (30_000_000, 90.0, True),
    ],
)
def test_a_radius_is_in_metres_and_zero_is_the_point_itself(radius: float, latitude: float, inside: bool) -> None:
    around = {"location": {"latitude": 0, "longitude": 0, "radius": radius}}
    assert matches(around, replace(EVENT, latitude=latitude)) is inside


def test_a_radius_reaches_over_the_antimeridian_and_round_a_pole() -> None:
    assert matches(
        {"location": {"latitude": 0, "longitude": 179.99, "radius": 3000}}, replace(EVENT, longitude=-179.99)
    )
    pole = {"location": {"latitude": 89.99, "longitude": 0, "radius": 3000}}
    assert matches(pole, replace(EVENT, latitude=89.99, longitude=180.0))


def test_filters_are_or_and_the_fields_of_one_are_and() -> None:
    jazz, food, pending = {"text": "jazz"}, {"text": "food"}, {"status": ["PENDING"]}

    def passed(*filters: dict[str, Any]) -> bool:
        return passes(tuple(Filter.model_validate(f) for f in filters), EVENT, EVENT.start_ms, EVENT.end_ms)

    assert passed() and passed({}) and passed(jazz) and passed(food, jazz)
    assert not passed(food) and not passed(food, pending)
    assert not passed({**jazz, **pending})


# --- all of it ---


@pytest.mark.parametrize(
    ("change", "user", "admitted"),
    [
        ({}, None, True),
        ({"status": "PENDING"}, None, True),
        ({"status": "REJECTED"}, None, False),
        ({"status": "EXPIRED"}, None, False),
        ({"private": True}, None, False),
        ({"private": True}, "bob", False),
        ({"private": True, "creator_id": "bob"}, "bob", True),
        ({"private": True, "shared_with": ("ann", "bob")}, "bob", True),
        ({"private": True, "creator_id": None}, None, False),
        ({"start_ms": NOW - 25 * HOUR}, None, False),
        ({"latitude": 80.0}, None, False),
    ],
)
def test_a_candidate_is_accessible_shown_in_view_in_time_and_wanted(
    change: dict[str, Any], user: str | None, admitted: bool
) -> None:
    event = replace(EVENT, **change)
    question = Question(box(-1, -1, 1, 1), user=user)
    assert admits(question, event, event.start_ms, None, WINDOW, NOW) is admitted
    wants_food = replace(question, filters=(Filter.model_validate({"text": "food"}),))
    assert not admits(wants_food, event, event.start_ms, None, WINDOW, NOW)


def test_equal_questions_are_one_key() -> None:
    asked = {"dateRange": {"start": "2026-05-01"}, "categories": {"include": ["a"]}, "status": ["PENDING"]}
    one, two = (Question(box(0, 0, 1, 1), (Filter.model_validate(asked),), user="ann") for _ in range(2))
    assert one == two and hash(one) == hash(two)
    assert len({one, two, replace(one, user="bob"), replace(one, limit=5), replace(one, filters=())}) == 4
