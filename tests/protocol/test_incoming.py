"""Every message a client may send: what parses, and of what does not, the code and the field."""

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.core.event import Delete, Popularity, Upsert
from server.errors import Code, Refused
from server.protocol import incoming as m
from server.protocol.examples import RECEIVED_EXAMPLES

pytestmark = pytest.mark.pure
VIEW = {"west": 13.2, "south": 52.4, "east": 13.6, "north": 52.6}
REGISTER: dict[str, Any] = {"type": "register", "viewport": VIEW}
MINIMAL: dict[str, dict[str, Any]] = {
    "authenticate": {"token": "t"},
    "register": {"viewport": VIEW},
    "viewport-update": {"viewport": VIEW},
    "filters-update": {"filters": []},
    "explain": {"eventId": "17"},
    "event-upsert": {"event": {"id": "17"}},
    "event-delete": {"id": "17"},
    "popularity-update": {"eventId": "17", "scanCount": 1},
    "import-create": {"account": "biz_demo"},
    "subscribe": {"topic": "loops"},
    "unsubscribe": {"topic": "loops"},
}


def refusal(value: object) -> Refused:
    with pytest.raises(Refused) as caught:
        message = m.parse(value)
        if isinstance(message, m.EventUpsert | m.EventDelete | m.PopularityUpdate):
            m.op_of(message)
    return caught.value


@pytest.mark.parametrize("kind", m.MESSAGES)
def test_every_message_parses_from_what_it_needs_at_least(kind: str) -> None:
    message = m.parse({"type": kind, **MINIMAL.get(kind, {})})
    assert isinstance(message, m.MESSAGES[kind])
    assert message.ref is None
    assert m.parse({"type": kind, **MINIMAL.get(kind, {}), "ref": "r" * 64, "unknown": [1]}).ref == "r" * 64


@pytest.mark.parametrize("kind", MINIMAL)
def test_every_message_lacks_what_it_needs(kind: str) -> None:
    for name in MINIMAL[kind]:
        if kind == "popularity-update" and name == "scanCount":
            continue
        error = refusal({"type": kind, **{k: v for k, v in MINIMAL[kind].items() if k != name}})
        codes = {"viewport": Code.BAD_VIEWPORT, "filters": Code.BAD_FILTER}
        assert (error.code, error.field) == (codes.get(name, Code.BAD_MESSAGE), name)


def test_a_registration_has_the_defaults_of_the_protocol() -> None:
    message = m.parse(REGISTER)
    assert isinstance(message, m.Register)
    assert (message.filters, message.max_events, message.location, message.fields) == ((), None, None, "full")
    assert (message.reasons, message.clusters, message.resume, message.token) == (False, False, None, None)
    assert message.viewport.west == 13.2


BAD: list[tuple[dict[str, Any], Code, str]] = [
    ({**REGISTER, "viewport": None}, Code.BAD_VIEWPORT, "viewport"),
    ({**REGISTER, "viewport": [13, 52, 14, 53]}, Code.BAD_VIEWPORT, "viewport"),
    ({**REGISTER, "viewport": {**VIEW, "south": 52.6}}, Code.BAD_VIEWPORT, "viewport"),
    ({**REGISTER, "viewport": {**VIEW, "south": 53}}, Code.BAD_VIEWPORT, "viewport"),
    ({**REGISTER, "viewport": {**VIEW, "west": 13.6}}, Code.BAD_VIEWPORT, "viewport"),
    ({**REGISTER, "viewport": {**VIEW, "west": -181}}, Code.BAD_VIEWPORT, "viewport.west"),
    ({**REGISTER, "viewport": {**VIEW, "north": float("inf")}}, Code.BAD_VIEWPORT, "viewport.north"),
    ({**REGISTER, "viewport": {**VIEW, "north": float("nan")}}, Code.BAD_VIEWPORT, "viewport.north"),
    ({**REGISTER, "viewport": {**VIEW, "north": "52.6"}}, Code.BAD_VIEWPORT, "viewport.north"),
    ({"type": "viewport-update", "viewport": {}}, Code.BAD_VIEWPORT, "viewport.west"),
    ({**REGISTER, "filters": None}, Code.BAD_FILTER, "filters"),
    ({**REGISTER, "filters": {}}, Code.BAD_FILTER, "filters"),
    ({**REGISTER, "filters": [{}] * 21}, Code.BAD_FILTER, "filters"),
    ({**REGISTER, "filters": [5]}, Code.BAD_FILTER, "filters.0"),
    ({**REGISTER, "filters": [{}, {"text": 5}]}, Code.BAD_FILTER, "filters.1.text"),
    (
        {**REGISTER, "filters": [{"location": {"latitude": 0, "longitude": 0, "radius": -1}}]},
        Code.BAD_FILTER,
        "filters.0.location.radius",
    ),
    ({**REGISTER, "filters": [{"dateRange": {"start": "x"}}]}, Code.BAD_FILTER, "filters.0.dateRange.start"),
    ({"type": "filters-update", "filters": [{"status": ["OPEN"]}]}, Code.BAD_FILTER, "filters.0.status.0"),
    ({**REGISTER, "maxEvents": 0}, Code.BAD_MESSAGE, "maxEvents"),
    ({**REGISTER, "maxEvents": 501}, Code.BAD_MESSAGE, "maxEvents"),
    ({**REGISTER, "maxEvents": 1.5}, Code.BAD_MESSAGE, "maxEvents"),
    ({**REGISTER, "maxEvents": True}, Code.BAD_MESSAGE, "maxEvents"),
    ({**REGISTER, "location": {"latitude": 91, "longitude": 0}}, Code.BAD_MESSAGE, "location.latitude"),
    ({**REGISTER, "fields": "some"}, Code.BAD_MESSAGE, "fields"),
    ({**REGISTER, "reasons": 1}, Code.BAD_MESSAGE, "reasons"),
    ({**REGISTER, "clusters": "yes"}, Code.BAD_MESSAGE, "clusters"),
    ({**REGISTER, "minIntervalMs": -1}, Code.BAD_MESSAGE, "minIntervalMs"),
    ({**REGISTER, "maxBytesPerBatch": 1023}, Code.BAD_MESSAGE, "maxBytesPerBatch"),
    ({**REGISTER, "token": 5}, Code.BAD_MESSAGE, "token"),
    ({**REGISTER, "resume": {}}, Code.BAD_MESSAGE, "resume.session"),
    ({**REGISTER, "resume": {"session": "s", "seq": "1"}}, Code.BAD_MESSAGE, "resume.seq"),
    ({**REGISTER, "resume": {"session": "s", "held": [["a", 1]] * 501}}, Code.TOO_MANY, "resume.held"),
    ({"type": "resync", "held": [["a", 1]] * 501}, Code.TOO_MANY, "held"),
    ({"type": "resync", "held": [["a", "1"]]}, Code.BAD_MESSAGE, "held.0.1"),
    ({"type": "resync", "held": [["a"]]}, Code.BAD_MESSAGE, "held.0.1"),
    ({"type": "resync", "held": {"a": 1}}, Code.BAD_MESSAGE, "held"),
    ({"type": "ping", "ref": "r" * 65}, Code.BAD_MESSAGE, "ref"),
    ({"type": "ping", "ref": 5}, Code.BAD_MESSAGE, "ref"),
    ({"type": "authenticate", "token": "x" * 16_385}, Code.BAD_MESSAGE, "token"),
    ({"type": "explain", "eventId": ""}, Code.BAD_MESSAGE, "eventId"),
    ({"type": "event-upsert", "event": "17"}, Code.BAD_MESSAGE, "event"),
    ({"type": "event-upsert", "event": {}}, Code.BAD_MESSAGE, "id"),
    ({"type": "event-upsert", "event": {"id": "17", "scanCount": -1}}, Code.BAD_MESSAGE, "scanCount"),
    ({"type": "event-upsert", "event": {"id": "17"}, "ifVersion": "1"}, Code.BAD_MESSAGE, "ifVersion"),
    ({"type": "event-delete", "id": 17}, Code.BAD_MESSAGE, "id"),
    ({"type": "popularity-update", "eventId": "17", "scanCount": -1}, Code.BAD_MESSAGE, "scanCount"),
    ({"type": "update-batch-config", "batchIntervalMs": "fast"}, Code.BAD_MESSAGE, "batchIntervalMs"),
    ({"type": "update-batch-config", "enableBatching": 1}, Code.BAD_MESSAGE, "enableBatching"),
    ({"type": "subscribe", "topic": ""}, Code.BAD_MESSAGE, "topic"),
    ({"type": "unsubscribe", "topic": "x" * 129}, Code.BAD_MESSAGE, "topic"),
]


@pytest.mark.parametrize(
    ("value", "code", "field"), BAD, ids=[f"{v['type']}-{f}-{n}" for n, (v, _, f) in enumerate(BAD)]
)
def test_a_bad_message_has_the_code_and_field_of_its_bad_place(value: dict[str, Any], code: Code, field: str) -> None:
    error = refusal(value)
    assert (error.code, error.field) == (code, field)
    assert error.message and not error.retry, "the same words never get better"


def test_of_the_words_viewport_and_filters_only_the_places_count() -> None:
    error = refusal(
        {"type": "event-upsert", "event": {"id": "17", "location": {"latitude": "viewport", "longitude": 0}}}
    )
    assert error.code is Code.BAD_MESSAGE


@pytest.mark.parametrize("value", [None, 5, "ping", [], [{"type": "ping"}], True])
def test_what_is_no_object_is_no_message(value: object) -> None:
    assert refusal(value).code is Code.BAD_MESSAGE


@pytest.mark.parametrize("kind", [None, 5, "", "Ping", "nothing", ["ping"], {"ping": 1}, "x" * 1000])
def test_an_unknown_type_is_an_error_that_names_those_there_are(kind: object) -> None:
    error = refusal({"type": kind})
    assert (error.code, error.field) == (Code.BAD_MESSAGE, "type")
    assert "register" in error.message and len(error.message) < 400


@pytest.mark.parametrize("frame", ["", "{", "{'type':'ping'}", "nan", '{"a":1}{', b"\xff", '"\\ud800"', "[" * 2000])
def test_what_is_no_json_is_bad_json(frame: str | bytes) -> None:
    with pytest.raises(Refused) as caught:
        m.decode(frame)
    assert caught.value.code is Code.BAD_JSON


def test_a_frame_as_deep_as_json_may_go_is_refused_like_any_other() -> None:
    deep = "[" * 1000 + "]" * 1000
    for frame in (
        f'{{"type":{deep}}}',
        f'{{"type":"register","viewport":{deep}}}',
        f'{{"type":"event-upsert","event":{{"id":"x","a":{deep}}}}}',
    ):
        assert refusal(m.decode(frame)).code in (Code.BAD_MESSAGE, Code.BAD_VIEWPORT)


def test_even_a_bad_message_has_its_ref() -> None:
    assert m.ref_of({"type": "nothing", "ref": "r1"}) == "r1"
    without: tuple[object, ...] = ({"ref": 5}, {"ref": "r" * 65}, {}, None, [], "x")
    for value in without:
        assert m.ref_of(value) is None


def test_what_producers_send_becomes_an_operation() -> None:
    upsert, delete, popularity = (m.parse({"type": kind, **MINIMAL[kind], **more}) for kind, more in PRODUCED)
    assert isinstance(upsert, m.EventUpsert) and m.op_of(upsert) == Upsert("17", {}, 4)
    assert isinstance(delete, m.EventDelete) and m.op_of(delete) == Delete("17", 5)
    assert isinstance(popularity, m.PopularityUpdate)
    assert m.op_of(popularity) == Popularity("17", (1, None, None), update_id="u", high=True)


PRODUCED: tuple[tuple[str, dict[str, Any]], ...] = (
    ("event-upsert", {"ifVersion": 4}),
    ("event-delete", {"ifVersion": 5}),
    ("popularity-update", {"updateId": "u", "priority": "high"}),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=15,
)


def only_refused(value: object) -> None:
    try:
        message = m.parse(value)
        if isinstance(message, m.EventUpsert | m.EventDelete | m.PopularityUpdate):
            m.op_of(message)
    except Refused as error:
        assert len(error.message) < 1000


@settings(max_examples=100, deadline=None)
@given(JSON)
def test_nothing_but_a_refusal_comes_of_any_json(value: object) -> None:
    only_refused(value)


@st.composite
def nearly(draw: st.DrawFn) -> Any:
    """A good message in which one place holds something else."""
    value: Any = orjson.loads(orjson.dumps(draw(st.sampled_from(list(RECEIVED_EXAMPLES.values())))))
    place = value
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = draw(st.sampled_from(keys))
        if isinstance(place[key], dict | list) and place[key] and draw(st.booleans()):
            place = place[key]
            continue
        place[key] = draw(JSON)
        return value


@settings(max_examples=200, deadline=None)
@given(nearly())
def test_nothing_but_a_refusal_comes_of_a_message_that_is_wrong_in_one_place(value: Any) -> None:
    only_refused(value)


@given(st.text(max_size=50) | st.binary(max_size=50))
def test_any_frame_is_a_value_or_bad_json(frame: str | bytes) -> None:
    try:
        m.decode(frame)
    except Refused as error:
        assert error.code is Code.BAD_JSON
