"""Messages by chance, made from the published schema and bent out of it, to a real server.

Whatever is said: the connection stays open, every answer is one that the schema has and that belongs to what was asked, each
request is answered once, and the next valid request works.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import orjson
import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.handlers.pipe import TEXT, frame
from tests.serving import CHANGES, LIMIT_S, Live, spread
from tests.wire.conformance.schemas import Shapes, Values, anything, letters, nearly
from tests.wire.conformance.servers import shared
from tests.wire.raw import Raw

pytestmark = pytest.mark.asyncio(loop_scope="module")
DOCUMENT = json.loads((Path(__file__).resolve().parents[2] / "client-examples" / "protocol.schema.json").read_text())
DEFINITIONS = DOCUMENT["$defs"]
EXAMPLES = int(os.environ.get("FUZZ", "12"))
REGISTER = b'{"type":"register","ref":"r","viewport":{"west":13,"south":52,"east":14,"north":53}}'
OF_THE_REGISTERED = ("viewport-update", "filters-update", "resync", "explain", "unregister")

ANSWERED_BY = {
    "authenticate": ("authenticated",),
    "register": ("registered",),
    "viewport-update": ("changes",),
    "filters-update": ("changes",),
    "unregister": ("unregistered",),
    "resync": ("changes", "replace-all"),
    "ping": ("pong",),
    "explain": ("explanation",),
    "event-upsert": ("ack",),
    "event-delete": ("ack",),
    "popularity-update": ("ack",),
    "import-create": ("import-created",),
    "get-stats": ("stats",),
    "update-batch-config": ("config",),
    "force-batch": ("batch-forced",),
    "subscribe": ("subscribed",),
    "unsubscribe": ("unsubscribed",),
}
"""What each request is answered by when it is not refused (docs/protocol.md)."""
UNASKED = (*CHANGES, "status", "alert", "progress")
"""What may come at any time."""

events = st.sampled_from([f"e{n}" for n in range(5)])
moments = (
    st.none()
    | st.sampled_from(
        [
            "2026-05-01",
            "2026-05-01T18:00:00Z",
            "2026-05-01T18:00:00.123456+14:00",
            "1970-01-01T00:00:00Z",
            "9999-12-31T23:59:59Z",
        ]
    )
    | st.integers(1_700_000_000_000, 1_900_000_000_000)
)
known: dict[str, Values] = {
    "start": moments,
    "end": moments,
    "createdAt": moments,
    "timezone": st.sampled_from([None, "Europe/Berlin", "UTC", "America/St_Johns", "Nowhere/Land"]),
    "recurrence": st.sampled_from(
        [None, "FREQ=DAILY", "FREQ=WEEKLY;BYDAY=FR;COUNT=10", "FREQ=SECONDLY", "FREQ=DAILY;UNTIL=20260601"]
    ),
    "ifVersion": st.none() | st.none() | st.integers(0, 9),
    "confidence": st.none() | st.floats(0, 1),
    "text": st.sampled_from([None, "", "title", "Title of e1", "ß", " \n "]) | st.text(letters, max_size=9),
    "maxEvents": st.none() | st.integers(1, 500),
    "batchIntervalMs": st.none() | st.integers(100, 86_400_000),
    "maxBatchSize": st.none() | st.integers(1, 1_000_000),
    "eventId": events | st.text(letters, min_size=1, max_size=9),
    "id": events | st.text(letters, min_size=1, max_size=9),
    "ref": st.none() | st.text(letters, max_size=64),
    "topic": st.sampled_from(
        ["loops", "alerts", "schedules", "tiers", "tracking", "imports", "job:1", "job:x", "job:"]
    ),
    "west": st.floats(-180, 12, allow_nan=False),
    "east": st.floats(14, 180, allow_nan=False),
    "south": st.floats(-90, 52, allow_nan=False),
    "north": st.floats(53, 90, allow_nan=False),
}
shapes = Shapes(DOCUMENT, known)
KINDS = {
    DEFINITIONS[name]["properties"]["type"]["const"]: name
    for name in (one["$ref"].rpartition("/")[2] for one in DEFINITIONS["ClientMessage"]["oneOf"] if "$ref" in one)
}
ANSWERS = {
    DEFINITIONS[name]["properties"]["type"]["const"]: jsonschema.Draft202012Validator(
        {"$ref": f"#/$defs/{name}", "$defs": DEFINITIONS}
    )
    for name in (one["$ref"].rpartition("/")[2] for one in DEFINITIONS["ServerMessage"]["oneOf"])
}


class Line:
    """One connection that is used for many messages; a new one when that has failed."""

    def __init__(self, place: Live, role: str | None) -> None:
        self._place, self._role = place, role
        self._raw: Raw | None = None
        self._probes = 0

    async def answers(self, said: bytes, due: int) -> list[dict[str, Any]]:
        """So many answers to it, all else that came with them taken away; then a ping is answered, and by one pong."""
        raw = self._raw = self._raw or await self._open()
        try:
            return await self._answers(raw, said, due)
        except BaseException:
            self.leave()
            raise

    async def register(self) -> None:
        """Look at the events."""
        (answer,) = await self.answers(REGISTER, 1)
        assert answer["type"] == "registered", answer

    def leave(self) -> None:
        """Hang up."""
        if self._raw is not None:
            self._raw.leave()
        self._raw = None

    async def _open(self) -> Raw:
        token = b"" if self._role is None else b"Authorization: Bearer %b\r\n" % self._place.token(self._role).encode()
        return await Raw.open(self._place.ws_port, token)

    async def _answers(self, raw: Raw, said: bytes, due: int) -> list[dict[str, Any]]:
        self._probes += 1
        probe = f"probe {self._probes} of ours"
        raw.say(frame(TEXT, said), frame(TEXT, orjson.dumps({"type": "ping", "ref": probe})))
        got: list[dict[str, Any]] = []
        ponged = False
        async with asyncio.timeout(LIMIT_S):
            while not ponged or len(got) < due:
                message = await raw.message()
                if message.get("ref") == probe and not ponged:
                    ponged = message["type"] == "pong"
                    assert ponged, message
                elif is_answer(message):
                    got.append(message)
                check(message)
        return got


def is_answer(message: dict[str, Any]) -> bool:
    """Changes answer a request when they carry its ref; without one they can't be told from others, and are no answer."""
    return message["type"] not in UNASKED or "ref" in message


def check(message: dict[str, Any]) -> None:
    """It is a message of the published schema."""
    assert message["type"] in ANSWERS, message
    ANSWERS[message["type"]].validate(message)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(cluster: str, template: str) -> AsyncIterator[Live]:
    """A server that imports nothing."""
    async with shared(cluster, template, IMPORTS_LANES=0) as made:
        await made.put(*spread(5))
        yield made


@pytest.fixture(scope="module")
def admin(place: Live) -> Iterator[Line]:
    made = Line(place, "admin")
    yield made
    made.leave()


@pytest.fixture(scope="module")
def stranger(place: Live) -> Iterator[Line]:
    made = Line(place, None)
    yield made
    made.leave()


def ref_of(value: object) -> str | None:
    ref = value.get("ref") if isinstance(value, dict) else None
    return ref if isinstance(ref, str) and len(ref) <= 64 else None


def asked_in(value: object) -> list[object]:
    """The requests in one frame: an array of updates is as many, whatever else is said is one."""
    updates = isinstance(value, list) and all(
        isinstance(one, dict) and one.get("type") == "popularity-update" for one in value
    )
    return value if isinstance(value, list) and value and updates else [value]


def due_of(value: object) -> int:
    """How many answers are sure to be told from other messages: one for each request with a ref, or whose answer is no change."""
    if len(asked := asked_in(value)) > 1:
        return len(asked)
    kind = value.get("type") if isinstance(value, dict) else None
    blind = isinstance(kind, str) and set(ANSWERED_BY.get(kind, ())) & set(UNASKED) and ref_of(value) is None
    return 0 if blind else 1


def judge(value: object, got: list[dict[str, Any]]) -> None:
    """Each answer belongs to what was asked, and carries its ref."""
    due, asked = due_of(value), asked_in(value)
    assert len(got) == due or (due == 0 and len(got) <= 1), got
    kinds = {one.get("type") for one in asked if isinstance(one, dict) and isinstance(one.get("type"), str)}
    allowed = {"error", *(kind for one in kinds for kind in ANSWERED_BY.get(str(one), ()))}
    assert {message["type"] for message in got} <= allowed, got
    if due:
        refs = sorted(ref_of(one) or "" for one in asked)
        assert sorted(message.get("ref", "") for message in got) == refs, got


def text_of(value: object) -> bytes:
    """As JSON; also with what orjson does not write."""
    return json.dumps(value, ensure_ascii=False).encode()


@pytest.mark.parametrize("kind", sorted(KINDS))
@settings(max_examples=EXAMPLES)
@given(data=st.data())
async def test_a_message_of_the_schema_is_answered_as_documented(admin: Line, kind: str, data: st.DataObject) -> None:
    if kind in OF_THE_REGISTERED:
        await admin.register()
    value = data.draw(shapes.named(KINDS[kind]))
    judge(value, await admin.answers(text_of(value), due_of(value)))


@pytest.mark.parametrize("kind", sorted(KINDS))
@settings(max_examples=EXAMPLES)
@given(data=st.data())
async def test_a_message_bent_out_of_the_schema_is_refused_or_answered(
    admin: Line, kind: str, data: st.DataObject
) -> None:
    if kind in OF_THE_REGISTERED:
        await admin.register()
    value = data.draw(nearly(shapes.named(KINDS[kind])))
    await bent(admin, text_of(value))


@settings(max_examples=8 * EXAMPLES)
@given(data=st.data())
async def test_a_stranger_gets_refusals_and_nothing_breaks(stranger: Line, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(KINDS)))
    values = shapes.named(KINDS[kind])
    await bent(stranger, text_of(data.draw(values | nearly(values))))


@settings(max_examples=3 * EXAMPLES)
@given(data=st.data())
async def test_arrays_of_messages_are_answered_one_by_one_or_refused_as_one(admin: Line, data: st.DataObject) -> None:
    update = shapes.named("PopularityUpdate")
    await bent(admin, text_of(data.draw(st.lists(update | nearly(update), max_size=5))))


@settings(max_examples=3 * EXAMPLES)
@given(value=anything)
async def test_any_json_is_answered(stranger: Line, value: object) -> None:
    await bent(stranger, text_of(value))


@settings(max_examples=5 * EXAMPLES)
@given(data=st.data())
async def test_text_that_is_nearly_json_is_refused(stranger: Line, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(KINDS)))
    text = text_of(data.draw(shapes.named(KINDS[kind]))).decode()
    start, size = data.draw(st.integers(0, len(text))), data.draw(st.integers(0, 5))
    put = data.draw(
        st.sampled_from(
            ["", "}", '"', ",", "NaN", "-Infinity", "1e999", "\\ud800", "\\u0000", "//", "'", "\x00", "[" * 3000]
        )
    )
    await bent(stranger, (text[:start] + put + text[start + size :]).encode())


async def bent(line: Line, said: bytes) -> None:
    """Say it; what comes must fit what was said, as far as that can be read."""
    try:
        value = orjson.loads(said)
    except orjson.JSONDecodeError:
        value = None
    judge(value, await line.answers(said, due_of(value)))


async def test_every_kind_of_message_has_its_answers_here() -> None:
    assert set(KINDS) == set(ANSWERED_BY)


async def test_the_examples_of_the_schema_are_answered_as_documented(admin: Line) -> None:
    for name in KINDS.values():
        for value in DEFINITIONS[name]["examples"]:
            judge(value, await admin.answers(text_of(value), due_of(value)))
