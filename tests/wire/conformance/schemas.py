"""Values that a JSON Schema allows (as much of it as the published protocol uses), and what is nearly one of them."""

import functools
import json
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

Schema = Mapping[str, Any]
Values = SearchStrategy[Any]

letters = st.characters(exclude_categories=("Cs",))  # type: ignore[arg-type]
LONGEST = 40
"""Characters of a text, unless it is drawn as long as it may be."""
leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(letters, max_size=12)
anything: Values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(letters, max_size=8), inner, max_size=4),
    max_leaves=8,
)
"""Any JSON value."""
nasty = st.sampled_from(
    [
        None,
        True,
        0,
        -1,
        1 << 31,
        1 << 53,
        1 << 63,
        -(1 << 63),
        1 << 64,
        1e308,
        -1e-308,
        0.5,
        "",
        "\0",
        "\ud7ff",
        "x" * 2000,
        "9" * 50,
        [],
        {},
        [[]],
        [None],
        {"": None},
        "2026-13-45",
        "NaN",
        "0001-01-01",
        "9999-12-31T23:59:59.999999999Z",
        "+275760-09-13",
    ]
)
"""Values at which programs stumble."""


class Shapes:
    """One document with its `$defs`; `known` gives values of its own to fields of that name."""

    def __init__(self, document: Schema, known: Mapping[str, Values]) -> None:
        self._definitions: Schema = document["$defs"]
        self._known = known

    @functools.cache  # noqa: B019  (lives as long as the tests)
    def named(self, name: str) -> Values:
        """Of this definition."""
        return st.deferred(lambda: self.of(self._definitions[name]))

    def of(self, schema: Schema) -> Values:
        """Of this schema."""
        if "$ref" in schema:
            return self.named(schema["$ref"].rpartition("/")[2])
        for word in ("anyOf", "oneOf"):
            if word in schema:
                return st.one_of([self.of(one) for one in schema[word]])
        if "const" in schema:
            return st.just(schema["const"])
        if "enum" in schema:
            return st.sampled_from(schema["enum"])
        kinds = schema.get("type")
        if kinds is None:
            return anything
        return st.one_of([self._of_kind(kind, schema) for kind in ([kinds] if isinstance(kinds, str) else kinds)])

    def _of_kind(self, kind: str, schema: Schema) -> Values:
        match kind:
            case "null":
                return st.none()
            case "boolean":
                return st.booleans()
            case "integer":
                most = schema.get("maximum", schema.get("exclusiveMaximum", 1 << 63) - 1)
                return st.integers(schema.get("minimum", -(1 << 63)), most)
            case "number":
                return st.floats(schema.get("minimum"), schema.get("maximum"), allow_nan=False, allow_infinity=False)
            case "string":
                return _texts(schema)
            case "array":
                return self._lists(schema)
            case "object":
                return self._objects(schema)
        raise AssertionError(f"no values of the type {kind}")

    def _lists(self, schema: Schema) -> Values:
        if "prefixItems" in schema:
            return st.tuples(*(self.of(one) for one in schema["prefixItems"])).map(list)
        most = min(schema.get("maxItems", 4), 4)
        return st.lists(self.of(schema.get("items", {})), min_size=schema.get("minItems", 0), max_size=most)

    def _objects(self, schema: Schema) -> Values:
        fields = {name: self._field(name, one) for name, one in schema.get("properties", {}).items()}
        if not fields:
            return st.dictionaries(st.text(letters, max_size=8), anything, max_size=3)
        needed = {name: fields.pop(name) for name in schema.get("required", ())}
        return st.fixed_dictionaries(needed, optional=fields)

    def _field(self, name: str, schema: Schema) -> Values:
        return self._known[name] if name in self._known else self.of(schema)


def _texts(schema: Schema) -> Values:
    least, most = schema.get("minLength", 0), schema.get("maxLength", LONGEST)
    short = st.text(letters, min_size=least, max_size=min(most, LONGEST))
    return short | st.just("m" * most) if "maxLength" in schema else short | _times


_times = st.datetimes().map(lambda moment: moment.isoformat() + "Z")


@st.composite
def nearly(draw: st.DrawFn, values: Values) -> Any:
    """One of them with a few places changed: another value, one less, one more."""
    value = json.loads(json.dumps(draw(values)))
    for _ in range(draw(st.integers(1, 3))):
        value = _changed(draw, value)
    return value


def _changed(draw: st.DrawFn, value: Any) -> Any:
    if isinstance(value, dict) and value and draw(st.integers(0, 9)):
        name = draw(st.sampled_from(sorted(value)))
        match draw(st.sampled_from(("deeper", "deeper", "deeper", "less", "more", "renamed"))):
            case "less":
                return {key: one for key, one in value.items() if key != name}
            case "more":
                return {**value, draw(st.text(letters, max_size=8)): draw(nasty | anything)}
            case "renamed":
                return {key.swapcase() if key == name else key: one for key, one in value.items()}
        return {**value, name: _changed(draw, value[name])}
    if isinstance(value, list) and value and draw(st.integers(0, 9)):
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], _changed(draw, value[at]), *value[at + draw(st.integers(0, 1)) :]]
    return draw(nasty | anything)
