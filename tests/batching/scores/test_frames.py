"""Frames are what the published schema says, and tell a client exactly what it must hold."""

from __future__ import annotations

from typing import Any

import jsonschema  # type: ignore[import-untyped]  # no stubs are installed
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.batching.scores import frames, views
from server.batching.scores.audience import Viewer
from server.batching.scores.columns import Columns
from server.batching.scores.diff import Difference
from server.batching.scores.frames import Fresh, Head, with_score
from server.batching.scores.question import Question
from server.batching.scores.ranking import Rules
from server.batching.scores.score import Weights
from server.batching.scores.views import Look
from server.client import View
from server.core.event import Event
from server.protocol.outgoing import SENT
from server.protocol.schema import protocol_schema
from server.protocol.values import Viewport
from tests.batching.scores.test_ranking import NOW, WINDOW, as_event, as_question, event, events, questions

pytestmark = pytest.mark.pure
RULES = Rules(Weights(), WINDOW, 0.5)
WORLD = Question(Viewport(west=-180, south=-90, east=180, north=90))
DEFINITIONS = protocol_schema()["$defs"]
SCHEMAS = {
    kind: jsonschema.Draft202012Validator({"$ref": f"#/$defs/{model.__name__}", "$defs": DEFINITIONS})
    for kind, model in SENT.items()
}


class Paper:
    """A connection that is always free and keeps what it is handed."""

    free = True

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []

    def hand(self, frame: bytes) -> None:
        self.messages.append(orjson.loads(frame))


def fits(message: dict[str, Any]) -> None:
    """It is a message of its schema, with nothing in it that its model does not know."""
    SCHEMAS[message["type"]].validate(message)
    model = SENT[message["type"]].model_validate(message)
    assert model.model_dump(mode="json", by_alias=True, exclude_unset=True) == message


LAX = [HealthCheck.too_slow, HealthCheck.data_too_large]


@settings(max_examples=80, deadline=None, suppress_health_check=LAX)
@given(
    events(),
    st.lists(event("e03") | event("new") | st.sampled_from(["e00", "e01", "e03"]), max_size=4),
    questions(),
    questions(),
    st.booleans(),
)
def test_every_frame_of_any_world_fits_its_schema_and_gives_the_client_what_the_server_believes(
    world: list[dict[str, Any]], changes: list[Any], first: dict[str, Any], second: dict[str, Any], reasons: bool
) -> None:
    columns, paper, view = Columns(), Paper(), View()
    viewer = Viewer("s1", as_question(first), paper, reasons=reasons)
    for one in world:
        columns.put(as_event(one), NOW)
    views.snapshot(viewer, Look(columns, RULES, NOW), "r1")
    for number, change in enumerate(changes, 2):
        alter(columns, change, number)
        send = (views.immediate, views.batch)[number % 2]
        send(viewer, Look(columns, RULES, NOW + number), 0.01)
    viewer.question = as_question(second)
    views.answer(viewer, Look(columns, RULES, NOW + 99), 0.01, "r2")
    for message in paper.messages:
        fits(message)
        assert view.apply(message).matches
        counted(message, len(view.events))
    assert view.digest == f"{viewer.digest:016x}"
    assert {i: e["version"] for i, e in view.events.items()} == {i: held.version for i, held in viewer.held.items()}
    assert [m.get("ref") for m in (paper.messages[0], paper.messages[-1])] == ["r1", "r2"]


def alter(columns: Columns, change: Any, version: int) -> None:
    if isinstance(change, str):
        columns.remove(change)
    else:
        values = as_event(change)
        columns.put(Event(**{**{f: getattr(values, f) for f in Event.__dataclass_fields__}, "version": version}), NOW)


def counted(message: dict[str, Any], held: int) -> None:
    if message["type"] == "replace-all":
        scores = [(-e["relevanceScore"], e["start"]) for e in message["events"]]
        assert [s[0] for s in scores] == sorted(s[0] for s in scores), "best first"
    if message["type"] == "batch-update":
        updates, summary = message["updates"], message["summary"]
        assert summary == {
            "totalEvents": held,
            "newEvents": len(updates["creates"]),
            "updatedEvents": len(updates["updates"]),
            "deletedEvents": len(updates["deletes"]),
        }
    if "reasons" in message.get("updates", {}):
        assert list(message["updates"]["reasons"]) == message["updates"]["deletes"]


def fresh(*ids: str) -> Fresh:
    columns = Columns()
    entries = [columns.put(Event(i, 0.0, 0.0, NOW, version=7), NOW) for i in ids]
    return Fresh(entries, [1 - n / 10 for n in range(len(ids))])


HEAD = Head(3, NOW, 0xAB, None)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (Difference(creates=(0,)), "add-event"),
        (Difference(updates=(0,)), "update-event"),
        (Difference(deletes=("gone",)), "delete-event"),
        (Difference(creates=(0,), deletes=("gone",)), "changes"),
        (Difference(creates=(0, 1)), "changes"),
        (Difference(), "changes"),
    ],
)
def test_one_immediate_change_is_the_message_of_its_kind_and_more_are_changes(change: Difference, kind: str) -> None:
    message = orjson.loads(frames.immediate(HEAD, fresh("a", "b"), change, {"gone": "ended"} if change.deletes else {}))
    fits(message)
    assert (message["type"], message["seq"], message["digest"]) == (kind, 3, "00000000000000ab")
    if kind == "delete-event":
        assert (message["id"], message["reason"]) == ("gone", "ended")


def test_without_a_reason_none_is_sent() -> None:
    for make in (frames.immediate, frames.changes):
        message = orjson.loads(make(HEAD, fresh(), Difference(deletes=("gone",))))
        fits(message)
        assert "reason" not in message and "reasons" not in message.get("updates", {})


def test_a_batch_has_the_shape_of_the_source() -> None:
    message = orjson.loads(frames.batch_update(HEAD, fresh("a", "b"), Difference((0,), (1,), ("gone",)), 2))
    fits(message)
    assert set(message) == {"type", "seq", "timestamp", "updates", "summary", "digest"}
    assert message["timestamp"] == "2026-09-21T14:13:20.000Z"
    assert [e["id"] for e in message["updates"]["creates"]] == ["a"]
    assert [e["id"] for e in message["updates"]["updates"]] == ["b"]
    assert message["summary"] == {"totalEvents": 2, "newEvents": 1, "updatedEvents": 1, "deletedEvents": 1}


@pytest.mark.parametrize("text", ['"', "\\", "\n", "é 🍜", "\u2028", "\x7f", "</script>"])
def test_whatever_a_text_holds_a_frame_is_json(text: str) -> None:
    columns = Columns()
    entry = columns.put(Event("id" + text, 0.0, 0.0, NOW, title=text, version=1, properties='{"a":1}'), NOW)
    made = Fresh([entry], [0.5])
    for frame in (
        frames.replace_all(Head(1, NOW, 1, text), made),
        frames.changes(Head(1, NOW, 1, text), made, Difference((0,), (), ("gone" + text,)), {"gone" + text: "ended"}),
    ):
        message = orjson.loads(frame)
        fits(message)
        assert message["ref"] == text
    assert orjson.loads(frames.replace_all(Head(1, NOW, 1), made))["events"][0]["id"] == "id" + text


@given(st.floats(0, 1))
def test_a_score_has_four_decimals_on_the_wire(score: float) -> None:
    columns = Columns()
    text = with_score(columns.put(Event("a", 0.0, 0.0, NOW, version=1), NOW), score).decode()
    sent = orjson.loads(text)["relevanceScore"]
    assert abs(sent - score) <= 0.00005 + 1e-12
    assert len(text.rpartition(":")[2].rstrip("}").partition(".")[2]) <= 4


@given(st.integers(0, 2**64 - 1))
def test_a_digest_is_sixteen_hex_digits(digest: int) -> None:
    message = orjson.loads(frames.replace_all(Head(1, NOW, digest), fresh()))
    assert len(message["digest"]) == 16 and int(message["digest"], 16) == digest


def test_an_event_is_encoded_once_per_version() -> None:
    columns = Columns()
    one = columns.put(Event("a", 0.0, 0.0, NOW, version=1), NOW)
    assert one.body is one.body
    assert columns.put(Event("a", 0.0, 0.0, NOW, title="T", version=2), NOW).body != one.body


def test_an_empty_world_is_an_empty_snapshot_and_an_empty_batch_is_not_sent() -> None:
    paper = Paper()
    viewer, look = Viewer("s1", WORLD, paper), Look(Columns(), RULES, NOW)
    views.snapshot(viewer, look)
    assert not views.batch(viewer, look, 0.01) and not views.immediate(viewer, look, 0.01)
    assert [m["type"] for m in paper.messages] == ["replace-all"]
    fits(paper.messages[0])
    assert (paper.messages[0]["events"], paper.messages[0]["digest"]) == ([], "0" * 16)
