import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from server.protocol.values import MAX_FILTERS, MAX_MS, MIN_MS, Filter, Location, Viewport, to_iso, to_ms

pytestmark = pytest.mark.pure


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-05-01T18:00:00Z", 1_777_658_400_000),
        ("2026-05-01T20:00:00+02:00", 1_777_658_400_000),
        ("2026-05-01T18:00:00.123456Z", 1_777_658_400_123),
        ("2026-05-01 18:00Z", 1_777_658_400_000),
        ("20260501T180000Z", 1_777_658_400_000),
        ("1969-12-31T23:59:59.999Z", -1),
        (1_777_658_400_000, 1_777_658_400_000),
        (1_777_658_400_000.9, 1_777_658_400_000),
        (0, 0),
        (-1, -1),
        ("0001-01-01T00:00:00Z", MIN_MS),
        ("9999-12-31T23:59:59.999Z", MAX_MS),
    ],
)
def test_a_time_is_iso_with_offset_or_z_or_epoch_milliseconds(value: Any, expected: int) -> None:
    assert to_ms(value) == expected


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("2026-05-01T18:00:00", "has no offset; write Z or"),
        ("2026-05-01", "has no offset"),
        ("tomorrow", "is not ISO 8601"),
        ("", "is not ISO 8601"),
        ("2026-13-01T00:00:00Z", "is not ISO 8601"),
        ("1777658400000", "is not ISO 8601"),
        (True, "a time is ISO 8601"),
        (None, "a time is ISO 8601"),
        ([1], "a time is ISO 8601"),
        (float("nan"), "finite"),
        (float("inf"), "finite"),
        (MAX_MS + 1, "between the years 1 and 9999"),
        (MIN_MS - 1, "between the years 1 and 9999"),
        (1e300, "between the years 1 and 9999"),
        ("0001-01-01T00:00:00+01:00", "between the years 1 and 9999"),
    ],
)
def test_what_is_no_time_says_why(value: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        to_ms(value)


@given(st.integers(MIN_MS, MAX_MS))
def test_a_time_survives_the_way_out_and_back(ms: int) -> None:
    text = to_iso(ms)
    assert len(text) == len("2026-05-01T18:00:00.000Z") and text.endswith("Z")
    assert to_ms(text) == ms


@given(st.datetimes(timezones=st.timezones(), min_value=dt.datetime(2, 1, 1), max_value=dt.datetime(9998, 1, 1)))
def test_any_offset_is_understood(moment: dt.datetime) -> None:
    expected = (moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) / dt.timedelta(milliseconds=1)
    assert to_ms(moment.isoformat()) == round(expected)


GOOD = {"west": 13.2, "south": 52.4, "east": 13.6, "north": 52.6}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"west": 179, "east": -179},
        {"west": -180, "south": -90, "east": 180, "north": 90},
        {"west": 13, "east": 14},
        {"unknown": 1},
    ],
)
def test_viewports_that_are_good(change: dict[str, Any]) -> None:
    view = Viewport.model_validate({**GOOD, **change})
    assert view.south < view.north
    assert hash(view) == hash(Viewport.model_validate({**GOOD, **change}))


@pytest.mark.parametrize(
    "change",
    [
        {"west": -180.1},
        {"east": 181},
        {"south": -90.5},
        {"north": 91},
        {"north": 52.4},
        {"north": 52.3},
        {"east": 13.2},
        {"west": float("nan")},
        {"north": float("inf")},
        {"west": "13.2"},
        {"west": True},
        {"west": None},
        {"west": [13]},
    ],
)
def test_viewports_that_are_not(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Viewport.model_validate({**GOOD, **change})


@pytest.mark.parametrize("missing", GOOD)
def test_a_viewport_has_four_sides(missing: str) -> None:
    with pytest.raises(ValidationError):
        Viewport.model_validate({k: v for k, v in GOOD.items() if k != missing})


def test_zero_is_a_coordinate() -> None:
    assert Location.model_validate({"latitude": 0, "longitude": 0}) == Location(latitude=0.0, longitude=0.0)


@pytest.mark.parametrize(
    "one",
    [
        {},
        {"dateRange": {}},
        {"dateRange": {"start": "2026-05-01"}},
        {"dateRange": {"end": 0}},
        {"dateRange": {"start": "2026-05-01", "end": "2026-05-01"}},
        {"dateRange": {"start": "2026-05-02", "end": "2026-05-01T23:00:00Z"}},
        {"location": {"latitude": 0, "longitude": 0, "radius": 0}},
        {"categories": {"include": [], "exclude": []}},
        {"categories": {"include": ["a"] * 100}},
        {"status": []},
        {"status": ["PENDING", "VERIFIED", "REJECTED", "EXPIRED"]},
        {"text": ""},
        {"text": None, "status": ["PENDING"], "dateRange": None},
    ],
)
def test_filters_that_are_good(one: dict[str, Any]) -> None:
    assert hash(Filter.model_validate(one)) == hash(Filter.model_validate(one))


@pytest.mark.parametrize(
    ("one", "place"),
    [
        ({"dateRange": {"start": "2026-02-30"}}, ("dateRange", "start")),
        ({"dateRange": {"start": "２０２６-05-01"}}, ("dateRange", "start")),
        ({"dateRange": {"start": "2026-05-02", "end": "2026-05-01"}}, ("dateRange",)),
        ({"dateRange": {"start": 2, "end": 1}}, ("dateRange",)),
        ({"dateRange": "today"}, ("dateRange",)),
        ({"location": {"latitude": 0, "longitude": 0}}, ("location", "radius")),
        ({"location": {"latitude": 0, "longitude": 0, "radius": -1}}, ("location", "radius")),
        ({"location": {"latitude": 91, "longitude": 0, "radius": 1}}, ("location", "latitude")),
        ({"categories": ["music"]}, ("categories",)),
        ({"categories": {"include": "music"}}, ("categories", "include")),
        ({"categories": {"include": ["a"] * 101}}, ("categories", "include")),
        ({"status": ["verified"]}, ("status", 0)),
        ({"status": "VERIFIED"}, ("status",)),
        ({"text": "x" * 201}, ("text",)),
        ({"text": 5}, ("text",)),
    ],
)
def test_filters_that_are_not_say_where(one: dict[str, Any], place: tuple[str | int, ...]) -> None:
    with pytest.raises(ValidationError) as caught:
        Filter.model_validate(one)
    assert caught.value.errors()[0]["loc"] == place


def test_the_bound_of_filters_is_the_protocols() -> None:
    assert MAX_FILTERS == 20
