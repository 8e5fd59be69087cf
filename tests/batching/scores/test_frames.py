"""Frames are what the published schema says, and tell a client exactly what it must hold."""

from __future__ import annotations

from typing import Any

import jsonschema  # type: ignore[import-untyped]  # no stubs are installed
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.batching.scores import frames
from server.batching.scores.audience import Viewer, count, records
from server.batching.scores.columns import Columns
from server.batching.scores.frame import Frame
from server.batching.scores.frames import Parts
from server.batching.scores.lookout import Lookout
from server.batching.scores.question import Question
from server.batching.scores.ranking import Rules
from server.batching.scores.score import Weights
from server.batching.scores.views import Kind, Sight, deliver, draw
from server.client import View
from server.core.event import Event
from server.protocol.event import event_bytes
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

    def hand(self, frame: Frame) -> None:
        self.messages.append(orjson.loads(frame.text))

    async def until_free(self) -> None:
        return


def show(lookout: Lookout, sight: Sight, now_ms: int) -> bool | None:
    """One look at one viewer, handed over."""
    return deliver(draw(lookout, [sight], now_ms)[0])


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
    lookout = Lookout(columns, RULES)
    for one in world:
        columns.put(as_event(one), NOW)
    show(lookout, Sight(viewer, Kind.SNAPSHOT, None, "r1"), NOW)
    for number, change in enumerate(changes, 2):
        alter(columns, change, number)
        show(lookout, Sight(viewer, (Kind.IMMEDIATE, Kind.BATCH)[number % 2], 0.01), NOW + number)
    viewer.question = as_question(second)
    show(lookout, Sight(viewer, Kind.ANSWER, 0.01, "r2"), NOW + 99)
    for message in paper.messages:
        fits(message)
        assert view.apply(message).matches
        counted(message, len(view.events))
    assert view.digest == f"{viewer.digest:016x}"
    assert {i: e["version"] for i, e in view.events.items()} == {
        columns.id_of(int(held["slot"])): held["version"] for held in records([viewer.held])
    }
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


AT = frames.stamp(NOW)


def pieces(ids: str) -> list[bytes]:
    return [p for i in ids for p in (event_bytes(Event(i, 0.0, 0.0, NOW, version=7)), frames.SCORES[9000])]


def parts(creates: str = "", updates: str = "", deletes: tuple[str, ...] = (), why: str | None = None) -> Parts:
    reasons = {} if why is None else dict.fromkeys(deletes, why)
    return Parts(pieces(creates), pieces(updates), deletes, reasons, 0xAB)


def read(message: frames.Message, ref: str | None = None) -> dict[str, Any]:
    """The message as a client reads it; it fits its schema."""
    found: dict[str, Any] = orjson.loads(message.head(3, ref) + message.tail)
    fits(found)
    return found


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (parts("a"), "add-event"),
        (parts("", "a"), "update-event"),
        (parts(deletes=("gone",), why="ended"), "delete-event"),
        (parts("a", deletes=("gone",)), "changes"),
        (parts("ab"), "changes"),
        (parts(), "changes"),
    ],
)
def test_one_immediate_change_is_the_message_of_its_kind_and_more_are_changes(change: Parts, kind: str) -> None:
    message = read(frames.immediate(AT, change))
    assert (message["type"], message["seq"], message["digest"]) == (kind, 3, "00000000000000ab")
    if kind == "delete-event":
        assert (message["id"], message["reason"]) == ("gone", "ended")


def test_without_a_reason_none_is_sent() -> None:
    for make in (frames.immediate, frames.changes):
        message = read(make(AT, parts(deletes=("gone",))))
        assert "reason" not in message and "reasons" not in message.get("updates", {})


def test_a_batch_has_the_shape_of_the_source() -> None:
    message = read(frames.batch_update(AT, parts("a", "b", ("gone",)), 2))
    assert set(message) == {"type", "seq", "timestamp", "updates", "summary", "digest"}
    assert message["timestamp"] == "2026-09-21T14:13:20.000Z"
    assert [e["id"] for e in message["updates"]["creates"]] == ["a"]
    assert [e["id"] for e in message["updates"]["updates"]] == ["b"]
    assert message["summary"] == {"totalEvents": 2, "newEvents": 1, "updatedEvents": 1, "deletedEvents": 1}


@pytest.mark.parametrize("text", ['"', "\\", "\n", "é 🍜", "\u2028", "\x7f", "</script>"])
def test_whatever_a_text_holds_a_frame_is_json(text: str) -> None:
    columns, paper = Columns(), Paper()
    columns.put(Event("id" + text, 0.0, 0.0, NOW, title=text, version=1, properties='{"a":1}'), NOW)
    viewer, lookout = Viewer("s1", WORLD, paper, reasons=True), Lookout(columns, RULES)
    show(lookout, Sight(viewer, Kind.SNAPSHOT, None, text), NOW)
    columns.remove("id" + text)
    show(lookout, Sight(viewer, Kind.IMMEDIATE, None), NOW)
    for message in paper.messages:
        fits(message)
    assert (paper.messages[0]["ref"], paper.messages[0]["events"][0]["id"]) == (text, "id" + text)
    assert (paper.messages[1]["id"], paper.messages[1]["reason"]) == ("id" + text, "removed")


def test_a_score_has_four_decimals_on_the_wire() -> None:
    for tenth, text in enumerate(frames.SCORES):
        sent = orjson.loads(b'{"a":1' + text[:-1])["relevanceScore"]
        assert (sent, text[-1:]) == (round(tenth / 10_000, 4), b",")
        assert len(text.rpartition(b":")[2].rstrip(b"},").partition(b".")[2]) <= 4


@given(st.integers(0, 2**64 - 1))
def test_a_digest_is_sixteen_hex_digits(digest: int) -> None:
    message = read(frames.replace_all(AT, Parts([], [], [], {}, digest)))
    assert len(message["digest"]) == 16 and int(message["digest"], 16) == digest


def test_equal_viewers_share_what_is_not_their_own() -> None:
    columns = Columns()
    columns.put(Event("a", 0.0, 0.0, NOW, version=1), NOW)
    lookout = Lookout(columns, RULES)
    viewers = [Viewer(f"s{n}", WORLD, Paper()) for n in range(3)]
    viewers[1].seq = 7
    drafts = draw(lookout, [Sight(v, Kind.SNAPSHOT, None) for v in viewers], NOW)
    frames_of = [d.frame for d in drafts]
    assert all(frame is not None and frame.tail is frames_of[0].tail for frame in frames_of)  # type: ignore[union-attr]
    assert all(d.held is drafts[0].held for d in drafts)
    assert [orjson.loads(f.text)["seq"] for f in frames_of if f is not None] == [1, 8, 1]


def test_a_draft_that_was_overtaken_is_not_handed_over() -> None:
    columns, paper = Columns(), Paper()
    viewer, lookout = Viewer("s1", WORLD, paper), Lookout(columns, RULES)
    columns.put(Event("a", 0.0, 0.0, NOW, version=1), NOW)
    first, second = draw(lookout, [Sight(viewer, Kind.SNAPSHOT, None)] * 2, NOW)
    assert deliver(first) is True
    assert deliver(second) is None
    (third,) = draw(lookout, [Sight(viewer, Kind.ANSWER, None)], NOW)
    viewer.question = Question(Viewport(west=1, south=1, east=2, north=2))
    assert deliver(third) is None
    assert ([m["type"] for m in paper.messages], viewer.seq, count(viewer.held)) == (["replace-all"], 1, 1)


def test_what_a_client_claims_to_hold_is_mended_in_one_frame() -> None:
    columns, paper = Columns(), Paper()
    viewer, lookout = Viewer("s1", WORLD, paper, reasons=True), Lookout(columns, RULES)
    for event_id, longitude, private in (("a", 0.0, False), ("b", 1.0, False), ("secret", 2.0, True)):
        columns.put(Event(event_id, 0.0, longitude, NOW, version=5, private=private), NOW)
    held = [("a", 5), ("stranger", 1), ("secret", 5), ("stranger", 2)]
    show(lookout, Sight(viewer, Kind.ANSWER, 0.01, None, held), NOW)
    updates = paper.messages[0]["updates"]
    assert [e["id"] for e in updates["creates"]] == ["b"]
    assert [e["id"] for e in updates["updates"]] == ["a"]
    assert updates["reasons"] == {"secret": "removed", "stranger": "removed"}


def test_an_empty_world_is_an_empty_snapshot_and_an_empty_batch_is_not_sent() -> None:
    paper = Paper()
    viewer, lookout = Viewer("s1", WORLD, paper), Lookout(Columns(), RULES)
    show(lookout, Sight(viewer, Kind.SNAPSHOT, None), NOW)
    for kind in (Kind.BATCH, Kind.IMMEDIATE):
        assert show(lookout, Sight(viewer, kind, 0.01), NOW) is False
    assert [m["type"] for m in paper.messages] == ["replace-all"]
    fits(paper.messages[0])
    assert (paper.messages[0]["events"], paper.messages[0]["digest"]) == ([], "0" * 16)


def test_two_who_claim_only_strangers_in_one_round_each_lose_their_own() -> None:
    lookout, papers = Lookout(Columns(), RULES), [Paper(), Paper()]
    viewers = [Viewer(f"s{n}", WORLD, paper) for n, paper in enumerate(papers)]
    sights = [Sight(viewer, Kind.ANSWER, 0.01, None, [(f"mine{n}", 1)]) for n, viewer in enumerate(viewers)]
    for draft in draw(lookout, sights, NOW):
        deliver(draft)
    assert [paper.messages[0]["updates"]["deletes"] for paper in papers] == [["mine0"], ["mine1"]]
