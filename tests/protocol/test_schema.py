from collections.abc import Mapping
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # no stubs are installed
import orjson
import pytest
from pydantic import BaseModel

from server.protocol.examples import RECEIVED_EXAMPLES, SENT_EXAMPLES
from server.protocol.incoming import MESSAGES, EventUpsert, PopularityUpdate, op_of, parse
from server.protocol.outgoing import SENT
from server.protocol.schema import protocol_schema
from server.protocol.values import Wire
from tests.oracle.view import digest

pytestmark = pytest.mark.pure
DEFINITIONS = protocol_schema()["$defs"]
EXAMPLES = {**RECEIVED_EXAMPLES, **SENT_EXAMPLES}
MODELS: dict[str, type[BaseModel]] = {**MESSAGES, **SENT}


def validator(name: str | None = None) -> jsonschema.Draft202012Validator:
    document = protocol_schema() if name is None else {"$ref": f"#/$defs/{name}", "$defs": DEFINITIONS}
    return jsonschema.Draft202012Validator(document)


def test_the_document_is_a_schema_of_its_own_dialect() -> None:
    jsonschema.Draft202012Validator.check_schema(protocol_schema())
    orjson.dumps(protocol_schema())


def test_every_reference_leads_somewhere_and_every_part_is_used() -> None:
    text = orjson.dumps(protocol_schema()).decode()
    used = {part.split('"')[0] for part in text.split('"#/$defs/')[1:]}
    assert used == set(DEFINITIONS)


def test_every_message_of_either_direction_is_one_of_its_direction() -> None:
    for name, models, extra in (("ClientMessage", MESSAGES, 1), ("ServerMessage", SENT, 0)):
        refs = [one["$ref"] for one in DEFINITIONS[name]["oneOf"] if "$ref" in one]
        assert refs == [f"#/$defs/{model.__name__}" for model in models.values()]
        assert len(DEFINITIONS[name]["oneOf"]) == len(refs) + extra
    assert not MESSAGES.keys() & SENT.keys()


@pytest.mark.parametrize("kind", MODELS)
def test_every_message_has_one_full_example_that_fits(kind: str) -> None:
    model, example = MODELS[kind], EXAMPLES[kind]
    assert DEFINITIONS[model.__name__]["examples"] == [example]
    assert validator(model.__name__).is_valid(example)
    validator().validate(example)
    assert DEFINITIONS[model.__name__]["properties"]["type"]["const"] == kind
    either = {"delta"} if model is PopularityUpdate else set()
    assert set(example) == {str(field.alias) for field in model.model_fields.values()} - either


@pytest.mark.parametrize("kind", SENT)
def test_an_example_of_what_is_sent_says_nothing_that_its_model_does_not_know(kind: str) -> None:
    model = SENT[kind].model_validate(SENT_EXAMPLES[kind])
    assert model.model_dump(mode="json", by_alias=True, exclude_unset=True) == SENT_EXAMPLES[kind]


@pytest.mark.parametrize("kind", MESSAGES)
def test_an_example_of_what_is_received_parses(kind: str) -> None:
    message = parse(RECEIVED_EXAMPLES[kind])
    assert isinstance(message, MESSAGES[kind])
    if isinstance(message, EventUpsert):
        op = op_of(message)
        assert "properties" in op.fields  # type: ignore[union-attr]  # an Upsert
        assert set(RECEIVED_EXAMPLES[kind]["event"]) == set(DEFINITIONS["EventIn"]["properties"])


def test_the_parts_of_examples_are_full_too() -> None:
    register = RECEIVED_EXAMPLES["register"]
    assert set(register["filters"][0]) == set(DEFINITIONS["Filter"]["properties"])
    assert set(register["resume"]) == set(DEFINITIONS["Resume"]["properties"])
    assert set(SENT_EXAMPLES["add-event"]["event"]) == set(DEFINITIONS["EventOut"]["properties"])
    assert set(SENT_EXAMPLES["changes"]["updates"]) == set(DEFINITIONS["Updates"]["properties"])


def test_digests_of_examples_are_true() -> None:
    market, jazz, run = ("night-market", 4811), ("open-air-jazz", 4790), ("lake-run", 4812)
    held = {
        "replace-all": (market, jazz),
        "add-event": (market, jazz),
        "update-event": (market, jazz),
        "delete-event": (jazz,),
        "changes": (market, jazz, run),
        "batch-update": (market, jazz, run),
    }
    for kind, pairs in held.items():
        assert SENT_EXAMPLES[kind]["digest"] == digest(dict(pairs)), kind


def test_several_popularity_updates_may_come_in_one_array() -> None:
    one = RECEIVED_EXAMPLES["popularity-update"]
    validator().validate([one, {"type": "popularity-update", "eventId": "x", "delta": {"scanCount": -1}}])
    assert not validator().is_valid([])
    assert not validator().is_valid([RECEIVED_EXAMPLES["ping"]])


BAD: list[Mapping[str, Any]] = [
    {"type": "nothing"},
    {"type": "register"},
    {"type": "ping", "ref": "x" * 65},
    {"type": "event-upsert", "event": {"title": "without an id"}},
    {"type": "event-upsert", "event": {"id": "x", "scanCount": -1}},
    {**SENT_EXAMPLES["ack"], "version": None},
    {**SENT_EXAMPLES["error"], "code": "teapot"},
    {**SENT_EXAMPLES["error"], "field": None},
    {**SENT_EXAMPLES["replace-all"], "digest": "59B5"},
    {**SENT_EXAMPLES["delete-event"], "seq": 0},
]


@pytest.mark.parametrize("message", BAD, ids=lambda message: str(message["type"]))
def test_what_is_no_message_fits_nothing(message: Mapping[str, Any]) -> None:
    assert not validator().is_valid(message)


def test_unknown_fields_are_nobodys_error() -> None:
    for kind, example in EXAMPLES.items():
        validator(MODELS[kind].__name__).validate({**example, "unheardOf": 1})


def test_times_may_be_text_or_epoch_ms() -> None:
    for start in ("2026-05-01T18:00:00Z", 1_777_651_200_000):
        validator("EventUpsert").validate({"type": "event-upsert", "event": {"id": "x", "start": start}})
        day = {"dateRange": {"start": start, "end": "2026-05-02"}}
        validator("FiltersUpdate").validate({"type": "filters-update", "filters": [day]})


def test_every_part_on_the_wire_is_camel_case() -> None:
    for name, schema in DEFINITIONS.items():
        for field in schema.get("properties", {}):
            assert "_" not in field and field[0].islower(), f"{name}.{field}"
    assert all(issubclass(model, Wire) for model in MODELS.values())
