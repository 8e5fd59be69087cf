"""How values of the schedules become JSON: names in camelCase, times as milliseconds since 1970 under names that end in `Ms`."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping
from typing import Final

from aiohttp import web
from pydantic.alias_generators import to_camel

from server.edge.web import whole_number
from server.errors import Code, Refused
from server.handlers.imports import epoch_ms
from server.handlers.ports import WHOLE, Query

TEAM_MOST: Final = 200
AFTER: Final = Query("after", "The `next` of the page before.", WHOLE)


def said(value: object) -> object:
    """A value as JSON. A field `..._at` is a time, also where it is null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dict(_field(f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
    if isinstance(value, list | tuple):
        return [said(one) for one in value]
    if isinstance(value, Mapping):
        return {name: said(one) for name, one in value.items()}
    return value


def fields(value: object, **more: object) -> dict[str, object]:
    """A dataclass as a JSON object, with more fields."""
    given = said(value)
    assert isinstance(given, dict)
    return {**given, **more}


def _field(name: str, value: object) -> tuple[str, object]:
    if name == "at" or name.endswith("_at"):
        assert value is None or isinstance(value, dt.datetime), f"{name} is a time"
        return f"{to_camel(name)}Ms", epoch_ms(value)
    return to_camel(name), said(value)


def chosen(request: web.Request, name: str, among: tuple[str, ...]) -> str | None:
    """A word of the query that must be one of these; None when it is not given."""
    text = request.query.get(name, "")
    if text and text not in among:
        raise Refused(Code.BAD_MESSAGE, f"{name} is one of {', '.join(among)}, not {text[:40]!r}", field=name)
    return text or None


def words(request: web.Request, name: str, most: int = 200) -> str | None:
    """A text of the query; None when it is not given."""
    text = request.query.get(name, "")
    if len(text) > most or "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise Refused(Code.BAD_MESSAGE, f"{name} has at most {most} characters", field=name, limit=most)
    return text or None


def team_of(request: web.Request) -> str:
    """The team in the path; what can be none is not found."""
    team = request.match_info["team"]
    if not team.isprintable() or len(team) > TEAM_MOST:
        raise Refused(Code.NOT_FOUND, f"a team's name has at most {TEAM_MOST} printable characters", field="team")
    return team


def number(request: web.Request, name: str) -> int | None:
    """A cursor or id of the query; None when it is not given."""
    return whole_number(request, name, 0, 1, (1 << 63) - 1) or None
