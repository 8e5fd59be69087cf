"""`batchcast events replay FILE --speed X`: a real log of RSVPs or check-ins as popularity, at x times real speed.

A log is a line a happening, oldest first (NDJSON, CSV, JSON). Of each line: what event it is about (--event), when it happened
(--time), whose it is (--key) and whether it counts (--value). A line that counts is +1 of the counter (--count), one that
doesn't is 0, and a later line with the same key replaces the earlier one, so yes, then no, is +1, then -1. Without --value each
line counts; without --key each stands for itself.

    rsvpId 7  response yes   ->  delta rsvpCount +1  updateId rsvpId:7:<time>
    rsvpId 7  response no    ->  delta rsvpCount -1  updateId rsvpId:7:<later time>

The first line of an event also creates or updates it, from the fields that --map names. updateIds are made of the log's own
values, so a second run of the same log adds nothing (for as long as the server remembers updateIds, a day). The fields of
RSVP_LOG are recognised by themselves. --no-shift leaves the events' times as they are; else the log's newest time is now.

Lines that are due are sent together a few times a second; --speed 0 sends as fast as the server commits.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, BinaryIO, Final, TypeVar

import orjson
import typer

from server.commands.asking import DEFAULT_URL, Errors, Maps, Token, Url
from server.commands.calling import FAILED, Json, Server, run, stop
from server.commands.importing import (
    BATCH_ROWS,
    DOCUMENT_BYTES,
    Bad,
    Report,
    bar,
    chunks,
    clock,
    listed,
    peek,
    send_rows,
    spooled,
    tell_report,
)
from server.core.event import Rejected
from server.errors import Refused
from server.protocol.intake import Format, Read, format_of, reader, shift_to_now, sniff
from server.protocol.mapping import Mapping, Row, lookup
from server.protocol.values import to_ms

T = TypeVar("T")

COUNTERS: Final = ("rsvpCount", "saveCount", "scanCount")
TICK_S: Final = 0.25
KEYS_KEPT: Final = 5_000_000
"""Keys whose last answer is remembered; above, the one heard of longest ago is forgotten (its next line counts anew)."""
EVENTS_KEPT: Final = 1_000_000
UPDATE_ID_AT_MOST: Final = 128
RSVP_LOG: Final = ("rsvpId", "response", "event", "at")
RSVP_MAPS: Final = (
    "id=event.id",
    "title=event.title",
    "start=event.start",
    "location=location",
    "categories=topics",
    "properties=",
)


@dataclass(frozen=True, slots=True)
class Reading:
    """Where a log's line says what."""

    event: str
    time: str
    count: str
    key: str | None = None
    value: tuple[str, str] | None = None
    mapping: Mapping | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """What one line asks for: perhaps an event to create or update, perhaps a counter to move."""

    row: int
    at_ms: int
    event: Row | None
    popularity: Json | None


@dataclass(slots=True)
class Log:
    """Lines in, steps out: which events are known, and what each key said last. Pure."""

    reading: Reading
    rows: int = 0
    _known: OrderedDict[str, None] = field(default_factory=OrderedDict)
    _said: OrderedDict[str, int] = field(default_factory=OrderedDict)

    def step(self, row: Read) -> Step | Bad:
        """What the next line asks for."""
        number, self.rows = self.rows, self.rows + 1
        if isinstance(row, Rejected) or not isinstance(row, dict):
            return Bad(number, None, None, row.reason if isinstance(row, Rejected) else "a line is a JSON object")
        try:
            return self._read(number, row)
        except Refused as refused:
            return Bad(number, _text(row, self.reading.event), refused.field, refused.message)
        except ValueError as error:
            return Bad(number, _text(row, self.reading.event), self.reading.time, str(error))

    def _read(self, number: int, row: Row) -> Step | Bad:
        event_id = _text(row, self.reading.event)
        if event_id is None:
            return Bad(number, None, self.reading.event, "no event there; name where its id is with --event PATH")
        found = lookup(row, self.reading.time)
        at_ms = to_ms(int(found) if isinstance(found, str) and found.isdecimal() else found)
        return Step(number, at_ms, self._new(event_id, row), self._moved(event_id, row, at_ms))

    def _new(self, event_id: str, row: Row) -> Row | None:
        if self.reading.mapping is None or event_id in self._known:
            return None
        self._known[event_id] = None
        _forget(self._known, EVENTS_KEPT)
        return {**self.reading.mapping.event(row), "id": event_id}

    def _moved(self, event_id: str, row: Row, at_ms: int) -> Json | None:
        reading = self.reading
        delta = int(reading.value is None or _text(row, reading.value[0]) == reading.value[1])
        key = None if reading.key is None else _text(row, reading.key)
        if key is None:
            return _popularity(event_id, reading.count, delta, f"{event_id}:{self.rows - 1}:{at_ms}")
        whose = f"{event_id}:{key}"
        before = self._said.pop(whose, 0)
        self._said[whose] = delta
        _forget(self._said, KEYS_KEPT)
        return _popularity(event_id, reading.count, delta - before, f"{whose}:{at_ms}")


def _popularity(event_id: str, count: str, delta: int, update_id: str) -> Json | None:
    """The update, when there is anything to move; an updateId that would be too long becomes its own digest."""
    if delta == 0:
        return None
    if len(update_id) > UPDATE_ID_AT_MOST:
        update_id = hashlib.sha256(update_id.encode()).hexdigest()
    return {"eventId": event_id, "delta": {count: delta}, "updateId": update_id}


def _text(row: Row, path: str) -> str | None:
    value = lookup(row, path)
    return str(value) if isinstance(value, str | int | float) else None


def _forget(book: OrderedDict[str, T], most: int) -> None:
    if len(book) > most:
        book.popitem(last=False)


# --- the command ---


def replay_log(
    file: Annotated[Path, typer.Argument(help="The log: NDJSON, CSV or JSON, oldest first; - is standard input.")],
    speed: Annotated[
        float, typer.Option("--speed", min=0, help="Times real speed; 0: as fast as the server commits.")
    ] = 1.0,
    event: Annotated[str | None, typer.Option("--event", metavar="PATH", help="Where a line says which event.")] = None,
    at: Annotated[str | None, typer.Option("--time", metavar="PATH", help="Where a line says when.")] = None,
    key: Annotated[
        str | None, typer.Option("--key", metavar="PATH", help="Whose line it is; a later one replaces it.")
    ] = None,
    value: Annotated[str | None, typer.Option("--value", metavar="PATH=TEXT", help="Only such lines count.")] = None,
    count: Annotated[
        str | None, typer.Option("--count", help="The counter: rsvpCount, saveCount or scanCount.")
    ] = None,
    maps: Maps = None,
    shift: Annotated[
        bool,
        typer.Option("--shift-to-now/--no-shift", help="Move the events' times so that the log's newest time is now."),
    ] = True,
    shift_path: Annotated[
        str | None,
        typer.Option(
            "--shift-path", metavar="PATH", help="Where that time is (also --shift-to-now=PATH); default: --time."
        ),
    ] = None,
    errors: Errors = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Play a log of RSVPs or check-ins again as popularity updates; the format of an RSVP log is recognised by itself."""
    with spooled(file, needed=True) as (source, _), listed(errors) as tell:
        fmt = format_of(file.name) or sniff(peek(source))
        try:
            rows = _rows(fmt, source)
            reading = recognised(next(rows, {}), event=event, at=at, key=key, value=value, count=count, maps=maps)
            source.seek(0)
            total = sum(1 for _ in _rows(fmt, source))
            source.seek(0)
            if shift and reading.mapping is not None:
                path = shift_path or reading.time
                moved = shift_to_now(
                    fmt, reading.mapping, path, chunks(source), clock.now_ms(), document_bytes=DOCUMENT_BYTES
                )
                reading = replace(reading, mapping=moved)
                source.seek(0)
            with bar(total) as advance:
                report = run(
                    Player(Server(url, token), speed, Report(tell=tell), advance).play(Log(reading), _rows(fmt, source))
                )
        except Refused as refused:
            stop(f"{file}: {refused.message}", FAILED)
    tell_report(report, errors)
    if report.refused:
        raise typer.Exit(FAILED)


def recognised(
    row: Read,
    *,
    event: str | None = None,
    at: str | None = None,
    key: str | None = None,
    value: str | None = None,
    count: str | None = None,
    maps: list[str] | None = None,
) -> Reading:
    """How to read a log that begins with this row: as told, and what was not told as the RSVP log has it, if it is one."""
    known = isinstance(row, dict) and all(name in row for name in RSVP_LOG)
    if known:
        event, at, key, value = event or "event.id", at or "at", key or "rsvpId", value or "response=yes"
        maps = maps or list(RSVP_MAPS)
    if event is None:
        stop("this log is not of a known format; say where a line names its event with --event PATH")
    if count is not None and count not in COUNTERS:
        stop(f"--count is one of {', '.join(COUNTERS)}, not {count!r}")
    path, equals, text = (value or "").partition("=")
    if value is not None and not equals:
        stop(f"--value is PATH=TEXT (response=yes), not {value!r}")
    mapping = Mapping.of(maps) if maps else None
    return Reading(
        event,
        at or "at",
        count or ("rsvpCount" if value else "scanCount"),
        key,
        (path, text) if value else None,
        mapping,
    )


def _rows(fmt: Format, source: BinaryIO) -> Iterator[Read]:
    lines = reader(fmt, document_bytes=DOCUMENT_BYTES)
    for chunk in chunks(source):
        yield from lines.feed(chunk)
    yield from lines.close()


@dataclass(slots=True)
class Player:
    """Sends a log's steps when they are due."""

    server: Server
    speed: float
    report: Report
    advance: Callable[[int, int], object]
    steps: list[Step] = field(default_factory=list)
    first_ms: int | None = None
    started_s: float = 0.0

    async def play(self, log: Log, rows: Iterator[Read]) -> Report:
        """All of it."""
        self.started_s = clock.monotonic()
        async with self.server:
            for row in rows:
                self.report.rows += 1
                step = log.step(row)
                if isinstance(step, Bad):
                    self.report.bad(step)
                    continue
                await self._until_due(step.at_ms)
                self.steps.append(step)
                if len(self.steps) >= BATCH_ROWS:
                    await self._send()
            await self._send()
        self.report.accepted = self.report.rows - self.report.refused
        return self.report

    async def _until_due(self, at_ms: int) -> None:
        """What is due has been sent when we wait for what is not."""
        if self.first_ms is None:
            self.first_ms = at_ms
        if self.speed <= 0:
            return
        due_s = self.started_s + (at_ms - self.first_ms) / 1000 / self.speed
        wait_s = due_s - clock.monotonic()
        if wait_s > 0:
            await self._send()
            await clock.sleep(max(wait_s, TICK_S))

    async def _send(self) -> None:
        """The events first: an update of an event that nobody knows is refused."""
        events = {step.event["id"]: step for step in self.steps if step.event is not None}
        refused = await self._post("/events", [(step, step.event) for step in events.values()])
        moves = [
            step for step in self.steps if step.popularity is not None and step.popularity["eventId"] not in refused
        ]
        await self._post("/popularity", [(step, step.popularity) for step in moves])
        self.advance(len(self.steps), self.report.rows)
        self.steps.clear()

    async def _post(self, path: str, rows: list[tuple[Step, Json | None]]) -> set[object]:
        """Send rows; answers with the ids of those refused, which are reported."""
        if not rows:
            return set()
        answer = await send_rows(self.server, path, [orjson.dumps(row) for _, row in rows])
        found = answer.get("rejected")
        rejected = found if isinstance(found, list) else []
        for one in rejected:
            row = rows[int(one["row"])][0].row
            self.report.bad(Bad(row, one.get("id"), one.get("field"), str(one.get("reason"))))
        return {one.get("id") for one in rejected}
