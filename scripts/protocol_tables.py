"""The generated part of docs/protocol.md: every message with its fields, who may send it, error codes and close codes.

Made from the JSON Schema (server/protocol/schema.py), the access table and the tables of server/errors.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from server.errors import CLOSES, ERRORS
from server.handlers.access import TABLE, Message
from server.protocol.incoming import MESSAGES
from server.protocol.outgoing import SENT
from server.protocol.schema import protocol_schema

Schema = Mapping[str, Any]


def protocol_tables() -> str:
    """The text between the markers."""
    definitions = protocol_schema()["$defs"]
    received = [model.__name__ for model in MESSAGES.values()]
    sent = [model.__name__ for model in SENT.values()]
    parts = [name for name in definitions if name not in {*received, *sent, "ClientMessage", "ServerMessage"}]
    sections = [
        "## What a client sends",
        _overview(definitions, received, "who"),
        *(_message(definitions[name]) for name in received),
        "## What the server sends",
        _overview(definitions, sent),
        *(_message(definitions[name]) for name in sent),
        "## Parts of messages",
        *(_part(name, definitions[name]) for name in parts),
        "## Error codes",
        _errors(),
        "## Close codes",
        _closes(),
    ]
    return "\n\n".join(sections) + "\n"


def _overview(definitions: Mapping[str, Schema], names: list[str], *columns: str) -> str:
    rows = []
    for name in names:
        kind = _kind(definitions[name])
        who = [_who(kind)] if columns else []
        rows.append([f"[`{kind}`](#{kind})", *who, _sentence(definitions[name])])
    return _table(["message", *columns, "what it is"], rows)


def _message(schema: Schema) -> str:
    kind = _kind(schema)
    example = json.dumps(schema["examples"][0], ensure_ascii=False)
    fields = _fields({**schema, "properties": {k: v for k, v in schema["properties"].items() if k != "type"}})
    return f"### `{kind}`\n\n{_sentence(schema)}\n\n{fields}\n\n<details><summary>Example</summary>\n\n```json\n{example}\n```\n</details>"


def _part(name: str, schema: Schema) -> str:
    body = _fields(schema) if "properties" in schema else f"One of {_type(schema)}."
    return f"### {name}\n\n{_sentence(schema)}\n\n{body}"


def _fields(schema: Schema) -> str:
    if not schema["properties"]:
        return "No fields."
    required = schema.get("required", ())
    rows = [
        [f"`{name}`", _type(field), "yes" if name in required else "no", _about(field)]
        for name, field in schema["properties"].items()
    ]
    return _table(["field", "type", "always", "meaning"], rows)


def _about(field: Schema) -> str:
    about = str(field.get("description", ""))
    default = field.get("default")
    if default in (None, [], False):
        return about
    return f"{about}; {json.dumps(default)} when absent".removeprefix("; ")


def _sentence(schema: Schema) -> str:
    return " ".join(str(schema.get("description", "")).split())


def _kind(schema: Schema) -> str:
    return str(schema["properties"]["type"]["const"])


def _who(kind: str) -> str:
    """The least role, as the access table has it; more than one when it depends on the topic."""
    roles = {
        f"{verb.role}" + (f" ({surface.topic})" if verb.name == "subscribe-job" else "")
        for verb in TABLE
        for surface in verb.surfaces
        if isinstance(surface, Message) and surface.type == kind
    }
    return ", ".join(sorted(roles))


def _type(schema: Schema) -> str:
    """A type in words."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " or ".join(_type(one) for one in schema[key])
    if "const" in schema or "enum" in schema:
        values = schema.get("enum", [schema.get("const")])
        return ", ".join(f"`{value}`" for value in values)
    kinds = schema.get("type", "anything")
    return " or ".join(_word(kind, schema) for kind in ([kinds] if isinstance(kinds, str) else kinds))


def _word(kind: str, schema: Schema) -> str:
    match kind:
        case "array" if "prefixItems" in schema:
            return f"[{', '.join(_type(item) for item in schema['prefixItems'])}]"
        case "array":
            return f"list of {_type(schema.get('items', {}))}" + _bounds(schema, "Items")
        case "object" if isinstance(schema.get("additionalProperties"), dict):
            return f"map of id to {_type(schema['additionalProperties'])}"
        case "string":
            return "text" + _bounds(schema, "Length")
        case "integer" | "number":
            return {"integer": "whole number", "number": "number"}[kind] + _bounds(schema, "imum")
        case "boolean":
            return "true or false"
        case _:
            return kind


def _bounds(schema: Schema, of: str) -> str:
    """` 0 to 5`, ` from 0`, ` up to 5`, or nothing."""
    low, high = schema.get(f"min{of}"), schema.get(f"max{of}")
    if low is not None and high is not None:
        return f" ({low:g} to {high:,})".replace(",", " ") if abs(high) >= 1e6 else f" ({low:g} to {high:g})"
    if low is not None:
        return f" (from {low:g})"
    return "" if high is None else f" (up to {high:g})"


def _errors() -> str:
    rows = [
        [f"`{code}`", str(kind.status), kind.meaning, "yes" if kind.retry else "no"] for code, kind in ERRORS.items()
    ]
    return _table(["code", "HTTP status", "meaning", "may the client try again?"], rows)


def _closes() -> str:
    rows = [[str(code), kind.meaning, kind.come_back] for code, kind in CLOSES.items()]
    return _table(["code", "meaning", "come back?"], rows)


def _table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(_lines(head, rows))


def _lines(head: list[str], rows: list[list[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
