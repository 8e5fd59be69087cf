"""JSON Schema of the whole protocol, with one full example of every message.

`protocol_schema()` is one document (draft 2020-12): `$defs` has a schema for every message and every part, ClientMessage and
ServerMessage are the `oneOf` of each direction. Unknown fields are ignored by both sides, so no schema forbids them. The
same at every call: client-examples/protocol.schema.json is compared with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, models_json_schema

from server.protocol.event import EventIn
from server.protocol.examples import RECEIVED_EXAMPLES, SENT_EXAMPLES
from server.protocol.incoming import MESSAGES
from server.protocol.outgoing import SENT

EXAMPLES: Final = {**RECEIVED_EXAMPLES, **SENT_EXAMPLES}
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_ABOUT: Final = (
    "The WebSocket protocol of batchcast: JSON text, one object a frame. A popularity-update may also be an array."
)


class _Plain(GenerateJsonSchema):
    """Without a title for every field: it only repeats the name."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


@lru_cache(maxsize=1)
def _document() -> dict[str, Any]:
    models: list[tuple[type[BaseModel], JsonSchemaMode]] = [
        (model, "validation") for model in (*MESSAGES.values(), EventIn, *SENT.values())
    ]
    _, generated = models_json_schema(models, schema_generator=_Plain)
    definitions: dict[str, Any] = generated["$defs"]
    definitions["EventUpsert"]["properties"]["event"] = {"$ref": "#/$defs/EventIn"}
    for kind, message in (*MESSAGES.items(), *SENT.items()):
        definitions[message.__name__]["examples"] = [EXAMPLES[kind]]
    definitions["ClientMessage"] = _one_of(MESSAGES, "What a client sends", _SEVERAL)
    definitions["ServerMessage"] = _one_of(SENT, "What the server sends")
    return {
        "$schema": DIALECT,
        "title": "batchcast",
        "description": _ABOUT,
        "oneOf": [{"$ref": "#/$defs/ClientMessage"}, {"$ref": "#/$defs/ServerMessage"}],
        "$defs": dict(sorted(definitions.items())),
    }


_SEVERAL: Final = {"type": "array", "items": {"$ref": "#/$defs/PopularityUpdate"}, "minItems": 1}


def _one_of(models: Mapping[str, type[BaseModel]], description: str, *others: object) -> dict[str, object]:
    refs: list[object] = [{"$ref": f"#/$defs/{model.__name__}"} for model in models.values()]
    return {"description": description, "oneOf": [*refs, *others]}


def protocol_schema() -> dict[str, Any]:
    """The document; the caller's to keep, not to change."""
    return _document()
