"""How a setting is declared: one field of a model, with everything that is known about it."""

from __future__ import annotations

from typing import Any, Final

from pydantic import Field

MINUTE_MS: Final = 60_000
DAY_MS: Final = 86_400_000


def setting(default: Any, doc: str, *, group: str, runtime: str = "", **bounds: Any) -> Any:
    """A declared setting; `runtime` is its camelCase name on the wire when it may change while the server runs."""
    return Field(default, description=doc, json_schema_extra={"group": group, "runtime": runtime}, **bounds)
