"""One event, lists of them, and exports: GET, PATCH and DELETE below /events. What is shown is the stored state.

PATCH merges the given fields into an event that there is: absent keeps, null clears. `If-Match: "VERSION"` (or `ifVersion` in the
body) refuses a stale write with 409. Without it the merge itself is what counts: it is done on whatever version is there.

Exports are streams: read from the database a page at a time, as fast as the asker takes them. What is exported can be imported
again (POST /events) in each of the three formats. When the database goes away in mid-stream the connection is cut, so that
nobody takes a part for the whole.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable
from typing import Final

import orjson
from aiohttp import web
from pydantic import ValidationError

from server.batching.scores.feed import SEARCH_MOST, decode_cursor
from server.batching.scores.store import Search
from server.core.event import STATUSES, Accepted, Delete, Status
from server.core.identity import Identity
from server.edge.web import json, json_object, whole_number
from server.errors import Code, Refused
from server.handlers.bulk import parse_if_match, version_of
from server.handlers.ports import TEXT, WHOLE, Content, Ports, Query, Route, list_of, object_of, of_json, or_null, ref
from server.handlers.stream import joined, record, stream
from server.protocol.event import event_op, refused
from server.protocol.values import Viewport

Row = dict[str, object]

LIST_DEFAULT: Final = 100
TEXT_AT_MOST: Final = 200
MERGE_TRIES: Final = 5
"""A merge without a version is tried again when the event changes between its reading and its writing."""
_CURSOR: Final = re.compile(r"[A-Za-z0-9_-]{1,700}")


async def read_event(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """An event as stored."""
    event = await ports.feed.stored(_id(request), who)
    return json(event, headers={"ETag": f'"{event["version"]}"'})


async def patch_event(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Merge fields into an event that there is."""
    fields = await json_object(request, ports.settings.http_body_bytes)
    event_id = _id(request)
    if fields.get("id", event_id) != event_id:
        raise Refused(
            Code.BAD_MESSAGE, "the id in the body is not the one in the path; an id can't be changed", field="id"
        )
    named = version_of(fields.pop("ifVersion", None))
    if "If-Match" in request.headers:
        named = parse_if_match(request.headers["If-Match"])
    return _accepted(await _merge(ports, who, {**fields, "id": event_id}, named))


async def _merge(ports: Ports, who: Identity, fields: Row, named: int | None) -> Accepted:
    """Never creates: what is not there, or may not be seen, is not found."""
    for tries_left in reversed(range(MERGE_TRIES)):
        event = await ports.feed.stored(str(fields["id"]), who)
        version = event["version"] if named is None else named
        assert isinstance(version, int)
        try:
            return await ports.feed.ingest_one(event_op(fields, version), who)
        except Refused as error:
            if error.code is not Code.CONFLICT or named is not None or not tries_left:
                raise
    raise AssertionError("the last try returns or raises")


async def delete_event(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Remove an event."""
    event_id = _id(request)
    header, query = request.headers.get("If-Match"), request.query.get("ifVersion")
    named = parse_if_match(header) if header is not None else None if query is None else parse_if_match(query)
    await ports.feed.stored(event_id, who)
    return _accepted(await ports.feed.ingest_one(Delete(event_id, named), who))


def _accepted(accepted: Accepted) -> web.Response:
    return json({"id": accepted.id, "version": accepted.version}, headers={"ETag": f'"{accepted.version}"'})


def _id(request: web.Request) -> str:
    """The id in the path. One that no event can have is not found, like any other."""
    event_id = request.match_info["id"]
    if "\0" in event_id or len(event_id) > 128 or not _is_text(event_id):
        raise Refused(Code.NOT_FOUND, "no event has such an id", field="id")
    return event_id


def _is_text(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


async def list_events(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """A page of events."""
    rows, following = await ports.feed.search(search_of(request), who)
    return json({"events": rows, "cursor": following})


def search_of(request: web.Request) -> Search:
    """What a query asks for; Refused names what is wrong with it."""
    text = request.query.get("text", "").strip()
    if len(text) > TEXT_AT_MOST:
        raise Refused(Code.BAD_MESSAGE, f"text has at most {TEXT_AT_MOST} characters", field="text", limit=TEXT_AT_MOST)
    if "\0" in text or not _is_text(text):
        raise Refused(Code.BAD_MESSAGE, "text holds what is no character", field="text")
    return Search(
        bbox=_bbox(request.query.get("bbox")),
        text=text or None,
        status=_statuses(request.query.getall("status", [])),
        cursor=_cursor(request.query.get("cursor")),
        limit=whole_number(request, "limit", LIST_DEFAULT, 1, SEARCH_MOST),
    )


def _cursor(text: str | None) -> str | None:
    if text and not (_CURSOR.fullmatch(text) and "\0" not in str(decode_cursor(text))):
        raise Refused(Code.BAD_MESSAGE, "this cursor is not one of ours; start without one", field="cursor")
    return text or None


def _bbox(text: str | None) -> Viewport | None:
    if not text:
        return None
    try:
        west, south, east, north = (float(part) for part in text.split(","))
    except ValueError:
        message = f"bbox is west,south,east,north in degrees, not {text[:60]!r}"
        raise Refused(Code.BAD_VIEWPORT, message, field="bbox") from None
    try:
        return Viewport(west=west, south=south, east=east, north=north)
    except ValidationError as error:
        raise Refused(Code.BAD_VIEWPORT, refused(error).message, field="bbox") from None


def _statuses(texts: Iterable[str]) -> tuple[Status, ...]:
    named = [name.strip().upper() for text in texts for name in text.split(",") if name.strip()]
    unknown = [name for name in named if name not in STATUSES]
    if unknown:
        message = f"{unknown[0][:40]!r} is no status; there are {', '.join(STATUSES)}"
        raise Refused(Code.BAD_MESSAGE, message, field="status")
    return tuple(status for status in STATUSES if status in named)


# --- exports ---


async def export_events(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """All that a search finds, as a stream."""
    name = request.query.get("format", "ndjson")
    if name not in EXPORTS:
        message = f"format is {', '.join(EXPORTS)}, not {name[:40]!r}"
        raise Refused(Code.BAD_MESSAGE, message, field="format")
    content_type, write = EXPORTS[name]
    return await stream(request, write(ports.feed.export(search_of(request), who)), content_type, f"events.{name}")


def _ndjson(rows: AsyncIterator[Row]) -> AsyncIterator[bytes]:
    return joined(rows, lambda row: orjson.dumps(_importable(row)) + b"\n")


def _geojson(rows: AsyncIterator[Row]) -> AsyncIterator[bytes]:
    separator = b""

    def feature(row: Row) -> bytes:
        nonlocal separator
        text, separator = separator + orjson.dumps(_feature(row)), b",\n"
        return text

    return joined(rows, feature, head=b'{"type":"FeatureCollection","features":[\n', tail=b"\n]}\n")


def _csv(rows: AsyncIterator[Row]) -> AsyncIterator[bytes]:
    return joined(rows, lambda row: record(_cells(row)), head=record(CSV_COLUMNS))


EXPORTS: Final = {
    "ndjson": ("application/x-ndjson", _ndjson),
    "geojson": ("application/geo+json", _geojson),
    "csv": ("text/csv", _csv),
}
_SERVERS: Final = ("version", "updatedAt")
"""The server's own; left out, as nobody can set them."""
CSV_COLUMNS: Final = (
    *(
        "id",
        "title",
        "emoji",
        "description",
        "categories",
        "latitude",
        "longitude",
        "start",
        "end",
        "timezone",
        "status",
    ),
    *("scanCount", "saveCount", "rsvpCount", "confidence", "isPrivate", "creatorId", "sharedWith", "recurrence"),
    *("priority", "createdAt", "properties"),
)


def _importable(row: Row) -> Row:
    return {name: value for name, value in row.items() if name not in _SERVERS}


def _feature(row: Row) -> Row:
    place = row["location"]
    assert isinstance(place, dict)
    point = {"type": "Point", "coordinates": [place["longitude"], place["latitude"]]}
    ours = {name: value for name, value in _importable(row).items() if name not in ("id", "location")}
    return {"type": "Feature", "id": row["id"], "geometry": point, "properties": ours}


def _cells(row: Row) -> list[str]:
    place = row["location"]
    assert isinstance(place, dict)
    flat = {**row, **place}
    return [_cell(flat.get(name)) for name in CSV_COLUMNS]


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return ";".join(str(part) for part in value)
    return str(value) if isinstance(value, str | int | float) else orjson.dumps(value).decode()


# --- as told to the OpenAPI document ---

WRITTEN: Final = object_of({"id": TEXT, "version": WHOLE})
_WRITTEN: Final = of_json(ref("Written"), "The event's version now")
_STORED: Final = {
    "application/x-ndjson": {"type": "string", "description": "one event a line"},
    "application/geo+json": {"type": "object", "description": "a FeatureCollection"},
    "text/csv": {"type": "string"},
}
_SEARCH: Final = (
    Query("bbox", "west,south,east,north in degrees; west > east crosses the antimeridian."),
    Query("text", "Words, all of them, in title, categories or description."),
    Query("status", "One or more statuses.", {"enum": list(STATUSES)}, many=True),
)
_IF_MATCH: Final = {"If-Match": "the version that the event must have, else 409"}
ROUTES: Final = (
    Route(
        "GET",
        "/events",
        list_events,
        "List stored events in id order",
        of_json(
            object_of({"events": list_of(ref("Event")), "cursor": or_null(TEXT)}), "A page; cursor leads to the next"
        ),
        (
            *_SEARCH,
            Query("cursor", "The cursor of the page before."),
            Query("limit", "Events a page.", {"type": "integer", "minimum": 1, "maximum": SEARCH_MOST, "default": 100}),
        ),
        refusals=(422, 503),
    ),
    Route(
        "GET",
        "/events/export",
        export_events,
        "Export stored events as a stream",
        Content({kind: _STORED[kind] for kind, _ in EXPORTS.values()}, "All events found"),
        (*_SEARCH, Query("format", "How they are written.", {"enum": list(EXPORTS), "default": "ndjson"})),
        refusals=(422, 503),
    ),
    Route("GET", "/events/{id}", read_event, "Read a stored event", of_json(ref("Event")), refusals=(404, 503)),
    Route(
        "PATCH",
        "/events/{id}",
        patch_event,
        "Merge fields into a stored event",
        _WRITTEN,
        body=of_json(ref("EventPatch"), "Absent keeps, null clears"),
        refusals=(400, 404, 409, 413, 422, 503),
        headers=_IF_MATCH,
    ),
    Route(
        "DELETE",
        "/events/{id}",
        delete_event,
        "Remove an event",
        _WRITTEN,
        (Query("ifVersion", "The version that the event must have, else 409.", {"type": "integer"}),),
        refusals=(404, 409, 422, 503),
        headers=_IF_MATCH,
    ),
)
