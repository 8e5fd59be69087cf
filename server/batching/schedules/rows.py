"""A row of a file of businesses, read. Pure.

    team, name, tier, google, facebook, tripadvisor, booking            a column for each platform, or
    team, name, tier, platform, identifier (or url, or placeId)         a row for each profile

team is needed, and at least one profile; tier counts for teams that are new. Other columns are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from server.batching.schedules.inputs import NAME_MOST, TEAM_MOST, identifier, words
from server.batching.schedules.plan import PLATFORMS, TIERS, Platform, Tier
from server.core.event import Rejected
from server.errors import Code, Refused

NAMES: Final = ("identifier", "url", "placeId", "place_id", "profileUrl")
TEAM_NAMES: Final = ("team", "teamId", "team_id")


@dataclass(frozen=True, slots=True)
class Row:
    """A business to follow; `number` is that of its row in the file, from 0."""

    number: int
    team: str
    name: str
    tier: Tier | None
    identifiers: dict[Platform, str]


@dataclass(frozen=True, slots=True)
class Unusable:
    """A row that is no business, or none that can be followed."""

    number: int
    field: str | None
    reason: str


def read(number: int, value: object) -> Row | Unusable:
    """One row of the file, from 0, as intake reads it."""
    if isinstance(value, Rejected):
        return Unusable(number, value.field, value.reason)
    if not isinstance(value, dict):
        return Unusable(number, None, "a row is a JSON object, or a record of CSV with a header")
    try:
        return _row(number, value)
    except Refused as refused:
        return Unusable(number, refused.field, refused.message)


def _row(number: int, value: Mapping[str, object]) -> Row:
    team = words(_text(value, TEAM_NAMES), "team", TEAM_MOST, 1)
    name = words(_text(value, ("name",)), "name", NAME_MOST)
    given = {platform: _text(value, (platform,)) for platform in PLATFORMS if platform in value}
    named = _text(value, ("platform",)).lower()
    if named:
        given[_platform(named)] = _text(value, NAMES)
    found = {platform: identifier(platform, text) for platform, text in given.items() if text}
    if not found:
        message = f"name a profile: a column {', '.join(PLATFORMS)}, or platform and identifier"
        raise Refused(Code.BAD_MESSAGE, message, field="identifier")
    return Row(number, team, name, _tier(_text(value, ("tier",)).lower()), found)


def _text(value: Mapping[str, object], names: tuple[str, ...]) -> str:
    """The first of these columns that has something in it."""
    for name in names:
        found = value.get(name)
        if isinstance(found, str | int) and not isinstance(found, bool) and (text := str(found).strip()):
            return text
        if found is not None and not isinstance(found, str | int):
            raise Refused(Code.BAD_MESSAGE, f"{name} is a text", field=name)
    return ""


def _platform(name: str) -> Platform:
    for platform in PLATFORMS:
        if platform == name:
            return platform
    raise Refused(Code.BAD_MESSAGE, f"a platform is one of {', '.join(PLATFORMS)}, not {name[:50]!r}", field="platform")


def _tier(name: str) -> Tier | None:
    for tier in TIERS:
        if tier == name:
            return tier
    if name:
        raise Refused(Code.BAD_MESSAGE, f"a tier is one of {', '.join(TIERS)}, not {name[:50]!r}", field="tier")
    return None
