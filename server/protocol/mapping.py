"""How a foreign row becomes an event: which value of it feeds which field, what is fixed, how far its times move.

A row is a JSON object, a GeoJSON Feature or a line of CSV. Without a mapping its values feed the fields of the same name and
everything that is not ours stays beside them (`event_op` puts that into `properties`). A `Mapping` changes that:

    start=time              the value at a path feeds the field; that source no longer goes to `properties`
    title=event.names.0     a path goes into objects by name and into lists by number; a column whose whole name is
                            `event.names.0` is found first; in a Feature it is looked for first in the Feature, then in
                            its properties (`geometry.coordinates.2`, `mag`)
    status=                 the field is left out; `properties=` leaves out everything that is not ours
    id=@content             an id made of the row itself: the same content has the same id in every run

Values that were mapped, fixed or read from CSV are converted where no one can be mistaken: numbers to text and back, `a;b` and
`a|b` to a list, `[longitude, latitude]`, {latitude, longitude}, a Point and separate latitude / longitude (lat, lon, lng)
to a place. Never guessed: epoch seconds (numbers are epoch milliseconds), times without an offset, "52.5, 13.4" as text.
What can't be converted stays as it is and is refused by `event_op` with the field's name. Pure.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

import orjson

from server.core.event import COUNTER_MAX
from server.errors import Code, Refused
from server.protocol.event import EventIn, canonical
from server.protocol.values import to_iso, to_ms

Row: TypeAlias = dict[str, object]

FIELDS: Final = tuple(str(info.alias) for info in EventIn.model_fields.values())
PLACE_FIELDS: Final = ("latitude", "longitude")
MAPPABLE: Final = (*FIELDS, *PLACE_FIELDS)
CONTENT: Final = "@content"
LOG_TIMES: Final = ("at", "timestamp", "time", "recordedAt", "recorded_at", "observedAt", "loggedAt", "receivedAt")
"""Where a log usually has its own time; the first of these that any row has is what `--shift-to-now` moves to now."""

_TIMES: Final = ("start", "end", "createdAt")
_LATITUDES: Final = ("latitude", "lat")
_LONGITUDES: Final = ("longitude", "lon", "lng")
_FEATURE_OWN: Final = frozenset(("type", "geometry", "properties", "bbox"))
_UNTIL: Final = re.compile(r"(UNTIL=)(\d{8}T\d{6}Z)", re.IGNORECASE)
_TRUTHS: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_EARLIEST_MS: Final = 315_532_800_000
"""1980. A number below it, read as milliseconds, is no time of recording (it may be seconds, or a duration)."""
MISSING: Final = object()


@dataclass(frozen=True, slots=True)
class Mapping:
    """Which path feeds which field ("" leaves it out), which fields are fixed, and by how much times move."""

    paths: dict[str, str] = field(default_factory=dict)
    fixed: dict[str, object] = field(default_factory=dict)
    shift_ms: int = 0

    @classmethod
    def of(cls, maps: Sequence[str] = (), sets: Sequence[str] = ()) -> Mapping:
        """From the texts of --map and --set (?map=, ?set=): FIELD=PATH, FIELD=VALUE; Refused when one makes no sense."""
        paths = dict(_pair(text, "map") for text in maps)
        return cls(paths, {name: _CONVERT[name](value) for name, value in (_pair(text, "set") for text in sets)})

    @property
    def plain(self) -> bool:
        """Nothing mapped, fixed or moved: rows go through as they are."""
        return not (self.paths or self.fixed or self.shift_ms)

    def shifted(self, shift_ms: int) -> Mapping:
        """The same, with all times moved."""
        return replace(self, shift_ms=shift_ms)

    def event(self, row: Row, *, texts: bool = False) -> Row:
        """The event that a row tells of, not yet validated; `texts`: the row's values are text (CSV)."""
        feature = is_feature(row)
        flat = _flat(row) if feature else dict(row)
        if texts:
            flat = {name: _CONVERT[name](value) if name in _CONVERT else value for name, value in flat.items()}
        self._map(row, flat)
        flat.update(self.fixed)
        _place(flat, ours=any(name in self.paths or name in self.fixed for name in PLACE_FIELDS))
        if feature and "location" not in flat and self.paths.get("location") != "":
            flat["location"] = _coordinates(row.get("geometry"))
        if self.shift_ms:
            _move(flat, self.shift_ms)
        if self.paths.get("properties") == "":
            return {name: value for name, value in flat.items() if name in FIELDS}
        return flat

    def _map(self, row: Row, flat: Row) -> None:
        found = {name: (path, lookup(row, path)) for name, path in self.paths.items()}
        for name, (path, value) in found.items():
            flat.pop(name, None)
            if path not in MAPPABLE:
                flat.pop(path, None)
            if value is not MISSING:
                flat[name] = _CONVERT[name](value)


PLAIN: Final = Mapping()


class Newest:
    """The newest time that the rows of a file have at a path; without a path at the log's own time, else at `start`."""

    def __init__(self, mapping: Mapping, path: str | None = None) -> None:
        start = mapping.paths.get("start") or "start"
        self._path = path
        self._candidates = (path,) if path else (*LOG_TIMES, start)
        self._newest: dict[str, int] = {}

    def see(self, row: object) -> None:
        """Take one row into account."""
        if not isinstance(row, dict):
            return
        for path in self._candidates:
            value = lookup(row, path)
            ms = _time(value)
            if ms is not None and (isinstance(value, str) or ms >= _EARLIEST_MS):
                self._newest[path] = max(ms, self._newest.get(path, ms))

    def ms(self) -> int:
        """The newest time seen; Refused when there was none."""
        for path in self._candidates:
            if path in self._newest:
                return self._newest[path]
        place = self._path or "start"
        message = f"no row has a time at {place!r} (ISO 8601 with offset, or epoch milliseconds); name another path to shift by"
        raise Refused(Code.BAD_MESSAGE, message, field="shift")


def is_feature(row: Row) -> bool:
    """A GeoJSON Feature, and not an event with a field of that name?"""
    return row.get("type") == "Feature" and ("geometry" in row or "properties" in row)


def lookup(row: Row, path: str) -> object:
    """The value at a path of a row (see the module's docstring); a private marker when there is none."""
    if path == "":
        return MISSING
    if path == CONTENT:
        return content_id(row)
    value = _walk(row, path)
    inner = row.get("properties")
    if value is MISSING and is_feature(row) and isinstance(inner, dict):
        return _walk(inner, path)
    return value


def content_id(row: Row) -> str:
    """32 hexadecimal digits that equal content shares, whatever the order of its names."""
    return hashlib.sha256(canonical(row).encode()).hexdigest()[:32]


def hint(name: str | None) -> str:
    """What to do about a field of a foreign row that was refused."""
    top = (name or "").split(".")[0]
    if top == "id":
        return "; name it with --map id=PATH, or make one of the content with --map id=@content"
    if top in ("start", "location", "latitude", "longitude", "geometry"):
        wanted = "start=PATH" if top == "start" else "latitude=PATH --map longitude=PATH"
        return f"; say where it is with --map {wanted}"
    if top in FIELDS:
        return f"; take it from elsewhere with --map {top}=PATH, leave it out with --map {top}=, or fix it with --set {top}=VALUE"
    return ""


def _pair(text: str, what: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise Refused(Code.BAD_MESSAGE, f"{text!r} has no =; write {what} as FIELD=...", field=what)
    if name not in MAPPABLE:
        near = difflib.get_close_matches(name, MAPPABLE, n=1, cutoff=0.0)[0]
        raise Refused(Code.BAD_MESSAGE, f"an event has no field {name!r}; the nearest is {near}", field=what)
    return name, value


def _walk(value: object, path: str) -> object:
    if isinstance(value, dict) and path in value:
        found: object = value[path]
        return found
    head, dot, rest = path.partition(".")
    if isinstance(value, dict) and head in value:
        return _walk(value[head], rest) if dot else value[head]
    if isinstance(value, list) and head.isdecimal() and int(head) < len(value):
        return _walk(value[int(head)], rest) if dot else value[int(head)]
    return MISSING


def _flat(feature: Row) -> Row:
    """A Feature's members and properties side by side, the members first in rank; its id as text."""
    inner = feature.get("properties")
    members = {name: value for name, value in feature.items() if name not in _FEATURE_OWN and value is not None}
    flat = {**(inner if isinstance(inner, dict) else {}), **members}
    if "id" in flat:
        flat["id"] = _text(flat["id"])
    return flat


def _coordinates(geometry: object) -> Row:
    """The place of a Feature; Refused for anything but a Point."""
    if not isinstance(geometry, dict):
        raise Refused(Code.BAD_MESSAGE, "the Feature has no geometry; an event needs a Point", field="geometry")
    if geometry.get("type") != "Point":
        raise Refused(Code.BAD_MESSAGE, f"the geometry is a {geometry.get('type')}, not a Point", field="geometry")
    coordinates = geometry.get("coordinates")
    if not isinstance(coordinates, list) or len(coordinates) < 2:
        raise Refused(Code.BAD_MESSAGE, "a Point has coordinates [longitude, latitude]", field="geometry")
    return {"longitude": coordinates[0], "latitude": coordinates[1]}


def _place(flat: Row, *, ours: bool) -> None:
    """Separate latitude and longitude become the location when there is no other, or when they were asked for (`ours`)."""
    latitude = next((name for name in _LATITUDES if name in flat), None)
    longitude = next((name for name in _LONGITUDES if name in flat), None)
    if latitude is None or longitude is None or ("location" in flat and not ours):
        return
    flat["location"] = {"latitude": _number(flat.pop(latitude)), "longitude": _number(flat.pop(longitude))}


def _move(flat: Row, shift_ms: int) -> None:
    for name in _TIMES:
        ms = _time(flat.get(name))
        if ms is not None:
            flat[name] = ms + shift_ms
    rule = flat.get("recurrence")
    if isinstance(rule, str):
        flat["recurrence"] = _UNTIL.sub(lambda found: found[1] + _until(found[2], shift_ms), rule)


def _until(basic: str, shift_ms: int) -> str:
    """UNTIL of a rule (20260501T180000Z), moved."""
    return re.sub(r"[-:]|\.\d+", "", to_iso(to_ms(basic) + shift_ms))


def _time(value: object) -> int | None:
    try:
        return to_ms(_moment(value))
    except ValueError:
        return None


# How a value becomes what its field wants; what can't be converted is handed on for event_op to refuse.


def _text(value: object) -> object:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value) if isinstance(value, int | float) else value


def _upper(value: object) -> object:
    return value.strip().upper() if isinstance(value, str) else value


def _number(value: object) -> object:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _count(value: object) -> object:
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d{1,19}\s*", value):
        number: object = int(value)
    else:
        number = _number(value)
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    return number if isinstance(number, int) and abs(number) <= COUNTER_MAX else value


def _truth(value: object) -> object:
    return _TRUTHS.get(str(value).strip().lower(), value)


def _moment(value: object) -> object:
    return int(value) if isinstance(value, str) and re.fullmatch(r"-?\d{1,15}", value) else value


def _list(value: object) -> object:
    value = _json(value)
    if isinstance(value, str):
        value = re.split(r"[;|]", value)
    elif isinstance(value, int | float):
        value = [value]
    if not isinstance(value, list):
        return value
    texts = [_text(part) for part in value]
    return [part.strip() if isinstance(part, str) else part for part in texts if part not in (None, "")]


def _json(value: object) -> object:
    """JSON written into a cell."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            parsed: object = orjson.loads(value)
            return parsed
        except orjson.JSONDecodeError:
            return value
    return value


_CONVERT: Final[dict[str, Callable[[object], object]]] = {
    **dict.fromkeys(FIELDS, _text),
    **dict.fromkeys(_TIMES, _moment),
    **dict.fromkeys(("scanCount", "saveCount", "rsvpCount"), _count),
    **dict.fromkeys(("confidence", *PLACE_FIELDS), _number),
    **dict.fromkeys(("categories", "sharedWith"), _list),
    **dict.fromkeys(("location", "properties"), _json),
    "status": _upper,
    "isPrivate": _truth,
}
