"""Whether an answer is what the OpenAPI document says of it: all that is promised is there, and nothing that is not said."""

from typing import Any

import jsonschema  # type: ignore[import-untyped]  # no stubs are installed


def fits(value: Any, document: Any, method: str, path: str) -> None:
    """The answer 200 of this method of this path."""
    operation = document["paths"][path][method.lower()]
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema.Draft202012Validator({**schema, "components": document["components"]}).validate(value)
    _nothing_unsaid(value, schema, document, f"{method} {path}")


def _nothing_unsaid(value: Any, schema: Any, document: Any, where: str) -> None:
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        schema = next((one for one in schema["anyOf"] if one.get("type") != "null"), {}) if value is not None else {}
        if "$ref" in schema:
            _nothing_unsaid(value, schema, document, where)
            return
    if isinstance(value, list):
        for one in value:
            _nothing_unsaid(one, schema.get("items", {}), document, where)
    elif isinstance(value, dict) and "properties" in schema:
        assert set(value) <= set(schema["properties"]), f"{where}: {set(value) - set(schema['properties'])}"
        for name, one in value.items():
            _nothing_unsaid(one, schema["properties"][name], document, f"{where}.{name}")
