"""Rows in: POST /events and POST /popularity, one object or a stream without end.

A body becomes rows (protocol/intake.py), rows become slices, slices are written by `feed.ingest`. At most two slices are under
way while the next is read, so a stream is read no faster than it commits and holds a few thousand rows at most.

    body -> rows -> slice 7 (being read)   slice 6, slice 5 (being written)   slices 1..4 (tallied)

A slice is what has come in, at most SLICE_ROWS: a trickle is written row by row, a flood in full slices.

The answer is {accepted, rejected: [{row, id?, field, reason, code}]}: rows count from 0, good rows always go in. 200 when any
row was accepted or none was sent, 422 when all were refused. `rejected` lists the first REJECTED_LISTED, `rejectedTotal` counts
all. One object that went in also has its id and version.

When the world fails (PostgreSQL away) before any row was accepted the answer is 503 with Retry-After: nothing went in, send it
all again. After that it is 200 with `error` and `unwritten`, the ranges of rows that did not go in, [from, to) with null for the
end of the stream: send these again. A stream that turns out to be damaged is told in the same way.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import Final, TypeAlias

from aiohttp import web

from server.batching.scores.ingest import CONTENT_ROWS, GROUP_ROWS
from server.core.event import Accepted, Op, Outcome, Rejected, Upsert
from server.core.identity import Identity
from server.edge.clock import Clock
from server.edge.web import apart, body, check_length, chunks, error_of, json, media_type, refusal, unavailable
from server.errors import Code, Refused, Unavailable
from server.handlers.ports import TEXT, WHOLE, Content, Ports, Query, Route, list_of, object_of, of_json, or_null, ref
from server.protocol.event import event_op, popularity_op
from server.protocol.intake import Format, Intake, format_of, shift_to_now
from server.protocol.mapping import Mapping

Rows: TypeAlias = Sequence[Op | Rejected]

SLICE_ROWS: Final = GROUP_ROWS
"""Rows that are written together, when they only count; of events a few are as much work."""
SLICE_EVENTS: Final = GROUP_ROWS // CONTENT_ROWS
IN_FLIGHT: Final = 2
BITE: Final = 16 << 10
"""Bytes of a stream that are taken apart in one go, a few milliseconds' work,"""
BITE_ROWS: Final = 200
"""and rows of a document."""
REJECTED_LISTED: Final = 1000
SHORT_BODY: Final = 1 << 20
"""Bodies that say that they are no longer than this need no place among the streams (bytes)."""
APART_ABOVE: Final = 128 << 10
"""Documents longer than this are taken apart in a thread, so that others are served meanwhile (bytes)."""


async def post_events(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Create or change events."""
    fmt = _format(request)
    mapping = Mapping.of(request.query.getall("map", []), request.query.getall("set", []))
    if_version = _if_match(request)
    with _place(request, ports):
        source = _body(request, ports, fmt)
        path = request.query.get("shift")
        if path is not None:
            held = await body(request, ports.settings.http_body_bytes)
            mapping = await apart(lambda: _shifted(fmt, mapping, path or None, held, ports))
            source = _again(held)
        return await _take(ports, who, source, _intake(fmt, mapping, ports, event_row), SLICE_EVENTS, if_version)


async def post_popularity(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Set or move counters of events."""
    fmt = _format(request)
    if fmt is Format.CSV:
        raise Refused(Code.BAD_JSON, "popularity comes as JSON or NDJSON, not as CSV")
    with _place(request, ports):
        intake = _intake(fmt, None, ports, popularity_op)
        return await _take(ports, who, _body(request, ports, fmt), intake, SLICE_ROWS)


def _place(request: web.Request, ports: Ports) -> AbstractContextManager[None]:
    """Long bodies take one of a bounded number of places: each holds memory for as long as it lasts."""
    short = request.content_length is not None and request.content_length <= SHORT_BODY
    return nullcontext() if short else ports.streams


def event_row(row: object) -> Upsert:
    """A row as an operation; `ifVersion` stands beside the event's own fields."""
    if not isinstance(row, dict) or "ifVersion" not in row:
        return event_op(row)
    rest = {name: value for name, value in row.items() if name != "ifVersion"}
    return event_op(rest, version_of(row["ifVersion"]))


def version_of(value: object) -> int | None:
    """A version that a caller named; Refused when it is none."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise Refused(Code.BAD_MESSAGE, f"ifVersion is a whole number, not {str(value)[:40]!r}", field="ifVersion")
    return value


def _intake(fmt: Format, mapping: Mapping | None, ports: Ports, op: Callable[[object], Op]) -> Intake:
    settings = ports.settings
    return Intake(fmt, mapping, op=op, row_bytes=settings.row_bytes, document_bytes=settings.http_body_bytes)


def _format(request: web.Request) -> Format:
    """?format= counts more than the Content-Type; without either it is JSON."""
    said = request.query.get("format") or media_type(request)
    if said is None:
        return Format.JSON
    fmt = format_of(said)
    if fmt is None:
        kinds = "application/json, application/geo+json, application/x-ndjson or text/csv"
        raise Refused(Code.BAD_JSON, f"{said[:80]!r} is no format of rows; send {kinds} (or ?format=)")
    return fmt


def _if_match(request: web.Request) -> int | None:
    header = request.headers.get("If-Match")
    return None if header is None else parse_if_match(header)


def parse_if_match(header: str) -> int | None:
    """The version in an If-Match header (`"12"`, `W/"12"`, 12); None for `*`."""
    text = header.strip().removeprefix("W/").strip('"')
    if text == "*":
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 16):
        raise Refused(Code.BAD_MESSAGE, f"If-Match names one version, not {header[:40]!r}", field="If-Match")
    return int(text)


def _body(request: web.Request, ports: Ports, fmt: Format) -> AsyncIterator[bytes]:
    if fmt is Format.JSON:
        check_length(request, ports.settings.http_body_bytes)
    return chunks(request)


async def _again(held: bytes) -> AsyncIterator[bytes]:
    for part in _parts(held, APART_ABOVE):
        yield part


def _parts(held: bytes, size: int) -> Iterator[bytes]:
    return (held[start : start + size] for start in range(0, len(held), size))


def _shifted(fmt: Format, mapping: Mapping, path: str | None, held: bytes, ports: Ports) -> Mapping:
    settings = ports.settings
    sizes = {"row_bytes": settings.row_bytes, "document_bytes": settings.http_body_bytes}
    return shift_to_now(fmt, mapping, path, _parts(held, APART_ABOVE), ports.clock.now_ms(), **sizes)


async def _take(
    ports: Ports, who: Identity, source: AsyncIterator[bytes], intake: Intake, size: int, if_version: int | None = None
) -> web.Response:
    tally = Tally()
    rows = _slices(source, intake, ports.clock, size)
    await _write(ports, who, rows if if_version is None else _only(rows, if_version), tally)
    return answer(tally, intake.single)


async def _slices(source: AsyncIterator[bytes], intake: Intake, clock: Clock, size: int) -> AsyncIterator[Rows]:
    """The rows as they come, at most `size` together; others are served after each bite."""
    length = 0
    async for chunk in source:
        length += len(chunk)
        some: list[Op | Rejected] = []
        for piece in _parts(chunk, BITE):
            some += intake.feed(piece)
            await clock.sleep(0)
        for start in range(0, len(some), size):
            yield some[start : start + size]
    rest = await apart(intake.rest) if length > APART_ABOVE else intake.rest()
    for start in range(0, len(rest), size):
        yield await _entries(intake, rest[start : start + size], clock)


async def _entries(intake: Intake, rows: Sequence[object], clock: Clock) -> Rows:
    """A slice of a document, bite by bite."""
    some: list[Op | Rejected] = []
    for start in range(0, len(rows), BITE_ROWS):
        some += intake.entries(rows[start : start + BITE_ROWS])
        await clock.sleep(0)
    return some


async def _only(rows: AsyncIterator[Rows], if_version: int) -> AsyncIterator[Rows]:
    """If-Match speaks of one event: every row would have to have that version."""
    async for some in rows:
        yield [replace(op, if_version=if_version) if isinstance(op, Upsert) else op for op in some]


# --- writing ---


@dataclass(slots=True)
class Tally:
    """What became of the rows so far."""

    rows: int = 0
    accepted: int = 0
    rejected_total: int = 0
    rejected: list[dict[str, object]] = field(default_factory=list)
    last: Accepted | None = None
    """Of a slice of one row: what an answer about a single object also says."""
    unwritten: list[tuple[int, int | None]] = field(default_factory=list)
    failure: Refused | Unavailable | None = None

    def count(self, first: int, outcomes: Sequence[Outcome]) -> None:
        """Take the outcomes of a slice in; its first row is number `first`."""
        refused = [(row, outcome) for row, outcome in enumerate(outcomes, first) if isinstance(outcome, Rejected)]
        for row, outcome in refused:
            self._reject(row, outcome)
        self.accepted += len(outcomes) - len(refused)
        if len(outcomes) == 1 and isinstance(outcomes[0], Accepted):
            self.last = outcomes[0]

    def fail(self, start: int, end: int | None, failure: Refused | Unavailable) -> None:
        """Rows from `start` to before `end` did not go in; the first failure is the one told."""
        self.unwritten.append((start, end))
        self.failure = self.failure or failure

    def _reject(self, row: int, outcome: Rejected) -> None:
        self.rejected_total += 1
        if len(self.rejected) < REJECTED_LISTED:
            named = {} if outcome.id is None else {"id": outcome.id}
            said = {"field": outcome.field, "reason": outcome.reason, "code": str(outcome.code)}
            self.rejected.append({"row": row, **named, **said})


@dataclass(frozen=True, slots=True)
class _Slice:
    first: int
    size: int
    task: asyncio.Task[list[Outcome] | Refused | Unavailable]


async def _write(ports: Ports, who: Identity, rows: AsyncIterator[Rows], tally: Tally) -> None:
    """Write slice after slice, IN_FLIGHT at a time, until the end or the first failure."""
    flying: deque[_Slice] = deque()
    try:
        async for some in rows:
            flying.append(_start(ports, who, some, tally))
            if len(flying) >= IN_FLIGHT:
                await _land(flying.popleft(), tally)
            if tally.failure is not None:
                raise tally.failure
    except (Refused, Unavailable) as failure:  # Also a body that is bad itself; what was cut from it before stays.
        tally.fail(tally.rows, None, failure)
    while flying:
        await _land(flying.popleft(), tally)


def _start(ports: Ports, who: Identity, some: Rows, tally: Tally) -> _Slice:
    first, tally.rows = tally.rows, tally.rows + len(some)
    return _Slice(first, len(some), ports.tasks.start("http slice", _ingest(ports, who, some)))


async def _ingest(ports: Ports, who: Identity, some: Rows) -> list[Outcome] | Refused | Unavailable:
    """A refusal is a result here: the task has not died of it."""
    try:
        return await ports.feed.ingest(some, who)
    except (Refused, Unavailable) as failure:
        return failure


async def _land(one: _Slice, tally: Tally) -> None:
    outcomes = await one.task
    if isinstance(outcomes, Refused | Unavailable):
        tally.fail(one.first, one.first + one.size, outcomes)
        return
    assert len(outcomes) == one.size, f"{one.size} rows went in, {len(outcomes)} outcomes came out"
    tally.count(one.first, outcomes)


# --- answering ---


def answer(tally: Tally, single: bool) -> web.Response:
    """The answer to a body of rows."""
    if tally.failure is not None and not tally.accepted and not tally.rejected_total:
        return unavailable(tally.failure) if isinstance(tally.failure, Unavailable) else refusal(tally.failure)
    if isinstance(tally.failure, Unavailable) and not tally.accepted:
        return unavailable(tally.failure)
    said: dict[str, object] = {"accepted": tally.accepted, "rejected": tally.rejected}
    if tally.rejected_total > len(tally.rejected):
        said["rejectedTotal"] = tally.rejected_total
    if single and tally.last is not None:
        said = {"id": tally.last.id, "version": tally.last.version, **said}
    if tally.failure is not None:
        said |= {"error": error_of(tally.failure), "unwritten": sorted(tally.unwritten, key=itemgetter(0))}
    if tally.accepted or not tally.rejected_total:
        return json(said)
    return json({**said, "error": said.get("error") or _all_refused(tally, single)}, status=422)


def _all_refused(tally: Tally, single: bool) -> dict[str, object]:
    first = tally.rejected[0]
    words = f"no row was accepted, {tally.rejected_total} refused; row {first['row']}: {first['reason']}"
    where = {} if first["field"] is None else {"field": first["field"]}
    return {"code": first["code"], "message": first["reason"] if single else words, **where}


# --- as told to the OpenAPI document ---

REJECTED: Final = object_of({"row": WHOLE, "field": or_null(TEXT), "reason": TEXT, "code": ref("Code")}, {"id": TEXT})
BULK: Final = object_of(
    {"accepted": WHOLE, "rejected": list_of(ref("Rejected"))},
    {
        "rejectedTotal": WHOLE,
        "id": TEXT,
        "version": WHOLE,
        "error": ref("Problem"),
        "unwritten": list_of({"type": "array", "prefixItems": [WHOLE, or_null(WHOLE)]}),
    },
)
_LINES: Final = {"type": "string", "description": "one JSON value a line"}
_FORMAT: Final = Query(
    "format", "The body's format; counts more than its Content-Type.", {"enum": ["json", "ndjson", "csv"]}
)
_ANSWER: Final = of_json(ref("BulkAnswer"), "What went in and what did not (422: nothing did)")
ROUTES: Final = (
    Route(
        "POST",
        "/events",
        post_events,
        "Create or change events: one, many, GeoJSON, NDJSON or CSV",
        _ANSWER,
        (
            _FORMAT,
            Query("map", "FIELD=PATH feeds a field from a path or column; FIELD= leaves it out.", many=True),
            Query("set", "FIELD=VALUE fixes a field.", many=True),
            Query(
                "shift", "Move all times so that the newest at this path (default the log's own, else start) is now."
            ),
        ),
        Content(
            {
                "application/json": {
                    "anyOf": [ref("EventIn"), list_of(ref("EventIn")), ref("Feature"), ref("FeatureCollection")]
                },
                "application/geo+json": {"anyOf": [ref("Feature"), ref("FeatureCollection")]},
                "application/x-ndjson": _LINES,
                "text/csv": {"type": "string", "description": "a header, then one event a line"},
            }
        ),
        (400, 413, 429, 503),
        {"If-Match": "the version that the event must have (one event)"},
    ),
    Route(
        "POST",
        "/popularity",
        post_popularity,
        "Set or move counters of events: one, many or NDJSON",
        _ANSWER,
        (_FORMAT,),
        Content(
            {
                "application/json": {"anyOf": [ref("PopularityIn"), list_of(ref("PopularityIn"))]},
                "application/x-ndjson": _LINES,
            }
        ),
        (400, 413, 429, 503),
    ),
)
