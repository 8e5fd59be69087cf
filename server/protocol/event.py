"""An event coming in (a JSON object becomes an `Upsert`) and going out (an `Event` becomes JSON bytes).

Coming in: a field that is absent keeps its value, null clears it; so an Upsert holds exactly the fields that were given.
Names that are not ours go to `properties`. Going out: the published fields in a fixed order, without sharedWith, so that
the bytes of one version are made once and closed with each viewer's relevanceScore.
"""

from __future__ import annotations

from reprlib import Repr
from typing import Annotated, Any, Final, TypeGuard
from zoneinfo import ZoneInfo

import orjson
from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, ValidationError, model_validator

from server.core import recurrence as rrule
from server.core.event import COUNTER_MAX, NO_COUNTS, Counts, Event, Popularity, Priority, Status, Upsert
from server.errors import Code, Refused
from server.protocol.values import Identifier, Location, Moment, Wire, to_iso

MAX_PROPERTIES: Final = 8 * 1024
MAX_ID: Final = 128
"""Characters of an Identifier."""
Counter = Annotated[int, Field(strict=True, ge=0, le=COUNTER_MAX)]
Change = Annotated[int, Field(strict=True, ge=-COUNTER_MAX, le=COUNTER_MAX)]


def _zone(name: str | None) -> str | None:
    try:
        return name if name is None or ZoneInfo(name) else None
    except (KeyError, ValueError, OSError):
        raise ValueError(f"{name!r} is not an IANA time zone (Europe/Berlin)") from None


def _point(value: object) -> object:
    """Also [longitude, latitude] and a GeoJSON Point are places."""
    if isinstance(value, dict) and value.get("type") == "Point":
        value = value.get("coordinates")
    if isinstance(value, list) and len(value) in (2, 3):
        return {"longitude": value[0], "latitude": value[1]}
    return value


def _properties(value: dict[str, Any] | None) -> dict[str, Any] | None:
    try:
        size = 0 if value is None else len(canonical(value).encode())
    except orjson.JSONEncodeError as error:
        raise ValueError(f"not JSON that can be kept: {error}") from None
    if size > MAX_PROPERTIES:
        raise ValueError(f"at most {MAX_PROPERTIES} bytes of JSON, not {size}")
    return value


def _tags(value: object) -> object:
    return [value] if isinstance(value, str) else value


class EventIn(Wire):
    """An event as clients send it. Only `id` is always needed; a new event also needs location and start."""

    id: Identifier
    title: Annotated[str, StringConstraints(strict=True, max_length=500)] | None = None
    emoji: Annotated[str, StringConstraints(strict=True, max_length=32)] | None = None
    description: Annotated[str, StringConstraints(strict=True, max_length=10_000)] | None = None
    categories: Annotated[tuple[Identifier, ...], BeforeValidator(_tags)] | None = Field(default=None, max_length=50)
    location: Annotated[Location, BeforeValidator(_point)] | None = None
    start: Moment | None = None
    end: Moment | None = None
    timezone: Annotated[str, AfterValidator(_zone)] | None = None
    status: Status | None = None
    scan_count: Counter | None = None
    save_count: Counter | None = None
    rsvp_count: Counter | None = None
    confidence: Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)] | None = None
    is_private: Annotated[bool, Field(strict=True)] | None = None
    creator_id: Identifier | None = None
    shared_with: tuple[Identifier, ...] | None = Field(default=None, max_length=1000)
    recurrence: Annotated[str, StringConstraints(strict=True, max_length=500)] | None = None
    priority: Priority | None = None
    created_at: Moment | None = None
    properties: Annotated[dict[str, Any], AfterValidator(_properties)] | None = None

    @model_validator(mode="after")
    def _rule_holds(self) -> EventIn:
        if self.recurrence is not None:
            rrule.check(self.recurrence, self.start or 0, self.timezone)
        if self.start is not None and self.end is not None and self.end < self.start:
            raise ValueError("end must not be before start")
        return self


class PopularityDelta(Wire):
    """How far each counter moves; a negative result clamps to 0."""

    scan_count: Change = 0
    save_count: Change = 0
    rsvp_count: Change = 0


class PopularityIn(Wire):
    """New counters of one event, or how far they move."""

    event_id: Identifier
    scan_count: Counter | None = None
    save_count: Counter | None = None
    rsvp_count: Counter | None = None
    delta: PopularityDelta | None = None
    update_id: Identifier | None = Field(default=None, description="makes a retry harmless: the same answer again")
    priority: Priority | None = Field(default=None, description="high: published within URGENT_GAP_MS")

    @model_validator(mode="after")
    def _one_way(self) -> PopularityIn:
        given = (self.scan_count, self.save_count, self.rsvp_count) != (None, None, None)
        if given == (self.delta is not None):
            raise ValueError("give counters (scanCount, saveCount, rsvpCount) or a delta, one of the two")
        return self

    def op(self) -> Popularity:
        """As the operation."""
        delta = self.delta or PopularityDelta()
        return Popularity(
            self.event_id,
            (self.scan_count, self.save_count, self.rsvp_count),
            (delta.scan_count, delta.save_count, delta.rsvp_count),
            self.update_id,
            self.priority == "high",
        )


# What a client's field is called inside, where it is more than a change of case.
_INSIDE: Final = {"start": "start_ms", "end": "end_ms", "created_at": "created_ms", "is_private": "private"}
_COUNTERS: Final = {"scan_count": "scan", "save_count": "save", "rsvp_count": "rsvp"}
_OURS: Final = frozenset(str(info.alias) for info in EventIn.model_fields.values())
_SERVERS: Final = frozenset(("version", "updatedAt", "relevanceScore"))


def canonical(value: object) -> str:
    """JSON text with sorted keys: equal values give equal text."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS).decode()


def event_op(row: object, if_version: int | None = None) -> Upsert:
    """The Upsert that a JSON object asks for; Refused (bad_message, with the field) when it can't be understood."""
    if not isinstance(row, dict):
        raise Refused(Code.BAD_MESSAGE, f"an event is a JSON object, not {type(row).__name__}", field="event")
    try:
        model = EventIn.model_validate(_gathered(row))
    except ValidationError as error:
        raise refused(error) from None
    return Upsert(model.id, _given(model), if_version)


def _gathered(row: dict[str, Any]) -> dict[str, Any]:
    """The row with its foreign names in `properties`; where these can't be joined it is left for the model to refuse."""
    foreign = {k: v for k, v in row.items() if k not in _OURS and k not in _SERVERS}
    given = row.get("properties")
    if not foreign or not isinstance(given, dict | None):
        return row
    return {**row, "properties": {**foreign, **(given or {})}}


def popularity_op(row: object) -> Popularity:
    """The Popularity that a JSON object asks for; Refused (bad_message, with the field) when it can't be understood."""
    plain = plain_popularity(row)
    if plain is not None:
        return plain
    plain = plain_popularity(row)
    if plain is not None:
        return plain
    try:
        return PopularityIn.model_validate(row).op()
    except ValidationError as error:
        raise refused(error) from None


PLAIN: Final = frozenset(("eventId", "scanCount", "saveCount", "rsvpCount", "delta", "updateId", "priority"))
_WIRE_COUNTERS: Final = frozenset(("scanCount", "saveCount", "rsvpCount"))
_PRIORITIES: Final = (None, "normal", "high")
_ABSENT: Final = (None, None, None)


def plain_popularity(row: object, names: frozenset[str] = PLAIN) -> Popularity | None:
    """What nearly all producers send, at a fifth of the model's cost. None: let the model look, and say what is wrong.

    It takes nothing that the model refuses, and makes the same of what it takes; a test holds the two together. `names`
    are those that may be there: a message has more, which are its reader's to look at."""
    if type(row) is not dict or not row.keys() <= names:
        return None
    get = row.get
    event_id, update_id, priority, delta = get("eventId"), get("updateId"), get("priority"), get("delta")
    if not (_plain_id(event_id) and (update_id is None or _plain_id(update_id)) and priority in _PRIORITIES):
        return None
    counts = scan, save, rsvp = get("scanCount"), get("saveCount"), get("rsvpCount")
    if delta is None:
        good = counts != _ABSENT and _plain_count(scan) and _plain_count(save) and _plain_count(rsvp)
        return Popularity(event_id, counts, NO_COUNTS, update_id, priority == "high") if good else None
    deltas = _plain_deltas(delta) if counts == _ABSENT else None
    return None if deltas is None else Popularity(event_id, _ABSENT, deltas, update_id, priority == "high")


def _plain_id(value: object) -> TypeGuard[str]:
    return type(value) is str and 0 < len(value) <= MAX_ID and value.isascii() and "\0" not in value


def _plain_count(count: object) -> bool:
    return count is None or (type(count) is int and 0 <= count <= COUNTER_MAX)


def _plain_deltas(delta: object) -> Counts | None:
    if type(delta) is not dict or not delta.keys() <= _WIRE_COUNTERS:
        return None
    deltas = scan, save, rsvp = delta.get("scanCount", 0), delta.get("saveCount", 0), delta.get("rsvpCount", 0)
    whole = type(scan) is int and type(save) is int and type(rsvp) is int
    return deltas if whole and min(deltas) >= -COUNTER_MAX and max(deltas) <= COUNTER_MAX else None


def refused(error: ValidationError) -> Refused:
    """A pydantic error as our own, with the code that its place asks for."""
    first = error.errors(include_url=False)[0]
    path = [str(part) for part in first["loc"]]
    message = str(first["msg"]).removeprefix("Value error, ")
    if not path:
        path = [word for word in (message.split(" ")[0],) if word in _OURS]
    code = Code.BAD_MESSAGE
    if "viewport" in path[:2]:
        code = Code.BAD_VIEWPORT
    elif "filters" in path[:2]:
        code = Code.BAD_FILTER
    shown = "" if first["type"] == "missing" else f" (got {short(first['input'])})"
    return Refused(code, f"{message}{shown}", field=".".join(path) or None)


_REPR: Final = Repr()
_REPR.maxlevel, _REPR.maxstring, _REPR.maxother = 3, 60, 60


def short(value: object) -> str:
    """A value as an error message shows it, however long or deep a stranger made it."""
    text = _REPR.repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _given(model: EventIn) -> dict[str, object]:
    fields: dict[str, object] = {}
    for name in sorted(model.model_fields_set - {"id"}):
        value = getattr(model, name)
        if name == "location":
            fields["latitude"], fields["longitude"] = (
                (None, None) if value is None else (value.latitude, value.longitude)
            )
        elif name in _COUNTERS:
            fields[_COUNTERS[name]] = value
        elif name == "properties":
            fields[name] = None if value is None else canonical(value)
        else:
            fields[_INSIDE.get(name, name)] = value
    return fields


def event_json(event: Event, *, with_shares: bool = False) -> dict[str, object]:
    """An event as it goes out; sharedWith only to its creator and admins."""
    out: dict[str, object] = {
        "id": event.id,
        "title": event.title,
        "emoji": event.emoji,
        "description": event.description,
        "categories": event.categories,
        "location": {"latitude": event.latitude, "longitude": event.longitude},
        "start": to_iso(event.start_ms),
        "end": None if event.end_ms is None else to_iso(event.end_ms),
        "timezone": event.timezone,
        "status": event.status,
        "scanCount": event.counts[0],
        "saveCount": event.counts[1],
        "rsvpCount": event.counts[2],
        "confidence": event.confidence,
        "isPrivate": event.private,
        "creatorId": event.creator_id,
        "recurrence": event.recurrence,
        "priority": event.priority,
        "createdAt": to_iso(event.created_ms),
        "updatedAt": to_iso(event.updated_ms),
        "version": event.version,
        "properties": None if event.properties is None else orjson.Fragment(event.properties),
    }
    if with_shares:
        out["sharedWith"] = event.shared_with
    return out


def event_bytes(event: Event) -> bytes:
    """The JSON of an event without its closing brace, ready for `,"relevanceScore":0.1234}`."""
    return orjson.dumps(event_json(event))[:-1]
