from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.core.event import COUNTER_MAX, Event, Popularity, Upsert
from server.errors import Code, Refused
from server.protocol.event import (
    MAX_PROPERTIES,
    EventIn,
    canonical,
    event_bytes,
    event_json,
    event_op,
    popularity_op,
    short,
)
from server.protocol.outgoing import EventOut

pytestmark = pytest.mark.pure
FULL: dict[str, Any] = {
    "id": "17",
    "title": "Night Market",
    "emoji": "🍜",
    "description": "Street food",
    "categories": ["food", "market"],
    "location": {"latitude": 52.5, "longitude": 13.45},
    "start": "2026-05-01T18:00:00Z",
    "end": 1_777_672_800_000,
    "timezone": "Europe/Berlin",
    "status": "PENDING",
    "scanCount": 1,
    "saveCount": 2,
    "rsvpCount": 3,
    "confidence": 0,
    "isPrivate": True,
    "creatorId": "ada",
    "sharedWith": ["bob"],
    "recurrence": "FREQ=WEEKLY",
    "priority": "high",
    "createdAt": 0,
    "properties": {"b": 1, "a": [None]},
}


def refusal(row: object) -> Refused:
    with pytest.raises(Refused) as caught:
        event_op(row)
    assert caught.value.code is Code.BAD_MESSAGE
    return caught.value


def test_an_event_becomes_what_is_called_so_inside() -> None:
    assert event_op(FULL, 5) == Upsert(
        "17",
        {
            "title": "Night Market",
            "emoji": "🍜",
            "description": "Street food",
            "categories": ("food", "market"),
            "latitude": 52.5,
            "longitude": 13.45,
            "start_ms": 1_777_658_400_000,
            "end_ms": 1_777_672_800_000,
            "timezone": "Europe/Berlin",
            "status": "PENDING",
            "scan": 1,
            "save": 2,
            "rsvp": 3,
            "confidence": 0.0,
            "private": True,
            "creator_id": "ada",
            "shared_with": ("bob",),
            "recurrence": "FREQ=WEEKLY",
            "priority": "high",
            "created_ms": 0,
            "properties": '{"a":[null],"b":1}',
        },
        5,
    )


def test_what_is_absent_is_not_asked_for_and_null_is() -> None:
    assert event_op({"id": "17"}).fields == {}
    nulls = {name: None for name in FULL if name != "id"}
    fields = event_op({"id": "17", **nulls}).fields
    assert fields == dict.fromkeys(event_op(FULL).fields)


def test_every_field_inside_is_one_of_an_event_or_a_counter() -> None:
    assert set(event_op(FULL).fields) - {"scan", "save", "rsvp"} <= set(Event.__dataclass_fields__)


@pytest.mark.parametrize(
    "location",
    [
        {"latitude": 1, "longitude": 2},
        [2, 1],
        [2, 1, 500],
        {"type": "Point", "coordinates": [2, 1]},
        {"type": "Point", "coordinates": [2, 1, 500]},
    ],
)
def test_a_place_may_be_written_as_geojson_too(location: object) -> None:
    fields = event_op({"id": "17", "location": location}).fields
    assert (fields["latitude"], fields["longitude"]) == (1, 2)


def test_foreign_names_go_to_properties_and_the_servers_own_are_left_out() -> None:
    row = {
        "id": "17",
        "stage": "north",
        "version": 5,
        "updatedAt": "x",
        "relevanceScore": 1,
        "properties": {"stage": "south", "x": 1},
    }
    assert event_op(row).fields == {"properties": '{"stage":"south","x":1}'}
    assert event_op({"id": "17", "stage": "north", "properties": None}).fields == {"properties": '{"stage":"north"}'}
    assert event_op({"id": "17", "version": 5}).fields == {}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"id": ""}, "id"),
        ({"id": "x" * 129}, "id"),
        ({"id": 17}, "id"),
        ({"id": "a\0"}, "id"),
        ({"creatorId": "\0"}, "creatorId"),
        ({"sharedWith": ["bob", "\0"]}, "sharedWith.1"),
        ({"id": None}, "id"),
        ({"title": 5}, "title"),
        ({"title": "x" * 501}, "title"),
        ({"categories": ["x"] * 51}, "categories"),
        ({"categories": [""]}, "categories.0"),
        ({"location": {"latitude": 91, "longitude": 0}}, "location.latitude"),
        ({"location": {"latitude": 0}}, "location.longitude"),
        ({"location": [1]}, "location"),
        ({"location": {"type": "Polygon", "coordinates": []}}, "location.latitude"),
        ({"location": {"type": "Point", "coordinates": ["1", 2]}}, "location.longitude"),
        ({"start": "2026-05-01"}, "start"),
        ({"end": "2026-05-01T17:59:59Z"}, "end"),
        ({"timezone": "Berlin"}, "timezone"),
        ({"timezone": ""}, "timezone"),
        ({"timezone": "../etc/passwd"}, "timezone"),
        ({"status": "verified"}, "status"),
        ({"scanCount": -1}, "scanCount"),
        ({"scanCount": 1.0}, "scanCount"),
        ({"scanCount": "1"}, "scanCount"),
        ({"scanCount": COUNTER_MAX + 1}, "scanCount"),
        ({"confidence": 1.01}, "confidence"),
        ({"confidence": float("nan")}, "confidence"),
        ({"confidence": True}, "confidence"),
        ({"isPrivate": 1}, "isPrivate"),
        ({"isPrivate": "true"}, "isPrivate"),
        ({"sharedWith": ["x"] * 1001}, "sharedWith"),
        ({"recurrence": "FREQ=SECONDLY"}, "recurrence"),
        ({"recurrence": "x" * 501}, "recurrence"),
        ({"priority": "urgent"}, "priority"),
        ({"properties": [1]}, "properties"),
        ({"properties": "x"}, "properties"),
        ({"properties": {"x": "y" * MAX_PROPERTIES}}, "properties"),
        ({"properties": {"x": "é" * (MAX_PROPERTIES // 2)}}, "properties"),
        ({"properties": 5, "stage": "north"}, "properties"),
    ],
)
def test_a_bad_field_is_named(change: dict[str, Any], field: str) -> None:
    error = refusal({**FULL, **change})
    assert error.field == field
    assert len(error.message) < 600


def test_what_is_no_object_is_no_event() -> None:
    for row in (None, 5, "x", [FULL]):
        assert refusal(row).field == "event"


def test_properties_may_be_as_large_as_the_bound_and_no_deeper_than_json_goes() -> None:
    empty = len('{"x":""}')
    event_op({"id": "17", "properties": {"x": "y" * (MAX_PROPERTIES - empty)}})
    deep: Any = 1
    for _ in range(400):
        deep = [deep]
    assert refusal({"id": "17", "properties": {"x": deep}}).field == "properties"


def test_equal_properties_are_equal_text() -> None:
    assert canonical({"b": 1, "a": {"d": 1, "c": 2}}) == canonical({"a": {"c": 2, "d": 1}, "b": 1})


@pytest.mark.parametrize(
    "value", [None, 5, "x" * 10_000, [[[[[[[[[]]]]]]]]], {"a": {"b": {"c": {"d": {}}}}}, list(range(1000))]
)
def test_a_value_in_a_message_is_short(value: object) -> None:
    assert len(short(value)) <= 60


def test_popularity_sets_counters_or_moves_them() -> None:
    assert popularity_op({"eventId": "17", "scanCount": 5, "rsvpCount": 0}) == Popularity("17", (5, None, 0))
    delta = {"eventId": "17", "delta": {"saveCount": -2}, "updateId": "u", "priority": "high"}
    assert popularity_op(delta) == Popularity("17", deltas=(0, -2, 0), update_id="u", high=True)
    assert popularity_op({"eventId": "17", "scanCount": 1, "priority": "normal"}).high is False


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"scanCount": 1}, "eventId"),
        ({"eventId": 5, "scanCount": 1}, "eventId"),
        ({"eventId": "17"}, None),
        ({"eventId": "17", "scanCount": None}, None),
        ({"eventId": "17", "scanCount": 1, "delta": {}}, None),
        ({"eventId": "17", "scanCount": -1}, "scanCount"),
        ({"eventId": "17", "scanCount": 1.5}, "scanCount"),
        ({"eventId": "17", "delta": 5}, "delta"),
        ({"eventId": "17", "delta": {"scanCount": COUNTER_MAX + 1}}, "delta.scanCount"),
        ({"eventId": "17", "scanCount": 1, "updateId": ""}, "updateId"),
        ({"eventId": "17", "scanCount": 1, "priority": "low"}, "priority"),
        (5, None),
    ],
)
def test_popularity_that_cannot_be_understood_is_refused(row: object, field: str | None) -> None:
    with pytest.raises(Refused) as caught:
        popularity_op(row)
    assert (caught.value.code, caught.value.field) == (Code.BAD_MESSAGE, field)


EVENT = Event(
    "17", 52.5, 13.45, 0, counts=(1, 2, 3), shared_with=("bob",), creator_id="ada", version=9, properties='{"a":1}'
)


def test_an_event_goes_out_without_whom_it_is_shared_with_unless_asked() -> None:
    assert "sharedWith" not in event_json(EVENT)
    assert event_json(EVENT, with_shares=True)["sharedWith"] == ("bob",)
    assert b"bob" not in event_bytes(EVENT)


def test_the_bytes_of_an_event_are_closed_with_a_score_and_fit_the_schema() -> None:
    sent = orjson.loads(event_bytes(EVENT) + b',"relevanceScore":0.5}')
    assert EventOut.model_validate(sent).model_dump(mode="json", by_alias=True) == sent
    assert (sent["start"], sent["properties"], sent["scanCount"]) == ("1970-01-01T00:00:00.000Z", {"a": 1}, 1)


def test_what_comes_in_goes_out_again() -> None:
    names = {str(info.alias) for info in EventIn.model_fields.values()}
    assert names | {"version", "updatedAt", "relevanceScore"} == {
        *(str(info.alias) for info in EventOut.model_fields.values()),
        "sharedWith",
    }


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from([*FULL, "foreign"]), JSON | st.sampled_from(list(FULL.values())), max_size=12))
def test_any_object_is_an_operation_or_refused(row: dict[str, Any]) -> None:
    try:
        op = event_op({"id": "17", **row})
    except Refused as error:
        assert error.code is Code.BAD_MESSAGE
        return
    hash(tuple(sorted(op.fields)))
    assert isinstance(op, Upsert)
