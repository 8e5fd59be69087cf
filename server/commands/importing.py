"""`batchcast events import FILE`: a file of events in any of the formats, mapped here, sent in batches, every bad row told.

The rows are read, mapped and shifted by protocol/intake.py in this process and go to POST /events as NDJSON, BATCH_ROWS at a
time, one batch after the other, so that a later row of the same event wins. A server that is away for a moment is waited for
and gets the batch again: an upsert may be sent twice. Only what no one understood stays behind, each row with its number,
field, reason and next step; exit code 1 then.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, BinaryIO, Final

import orjson
import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from server.commands.asking import DEFAULT_URL, Errors, Maps, RowFormat, Token, Url
from server.commands.calling import FAILED, Failed, Json, Server, Unreachable, err, run, stop
from server.core.event import Rejected
from server.edge.clock import SystemClock
from server.errors import Refused
from server.protocol.intake import Format, Intake, format_of, shift_to_now, sniff
from server.protocol.mapping import Mapping, Row, hint

BATCH_ROWS: Final = 1000
"""As many as the server lists refusals for in one answer."""
BATCH_BYTES: Final = 4 << 20
CHUNK: Final = 1 << 18
DOCUMENT_BYTES: Final = 1 << 30
"""A larger JSON document is refused: it would be held in memory; NDJSON and CSV have no bound."""
SHOWN: Final = 20
TRIES: Final = 8
LONGEST_WAIT_S: Final = 15.0
LOG_OWN_TIME: Final = "@log"

clock: Final = SystemClock()


@dataclass(frozen=True, slots=True)
class Bad:
    """A row that did not go in."""

    row: int
    id: str | None
    field: str | None
    reason: str

    def json(self) -> Json:
        """As it stands in an --errors file."""
        return {"row": self.row, "id": self.id, "field": self.field, "reason": self.reason}


@dataclass(slots=True)
class Report:
    """What became of a file so far; only the first SHOWN bad rows are kept, `tell` gets all."""

    rows: int = 0
    accepted: int = 0
    refused: int = 0
    first: list[Bad] = field(default_factory=list)
    tell: Callable[[Bad], object] | None = None

    def bad(self, bad: Bad) -> None:
        """Count one that did not go in."""
        self.refused += 1
        if len(self.first) < SHOWN:
            self.first.append(bad)
        if self.tell is not None:
            self.tell(bad)


def import_events(
    file: Annotated[Path, typer.Argument(help="JSON, GeoJSON, NDJSON or CSV; - is standard input.")],
    maps: Maps = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Give a field the same value in every row.")
    ] = None,
    shift: Annotated[
        bool, typer.Option("--shift-to-now", help="Move all times so that the newest time of recording is now.")
    ] = False,
    shift_path: Annotated[
        str | None,
        typer.Option(
            "--shift-path",
            metavar="PATH",
            help="Where that time is (also --shift-to-now=PATH); default: the log's own, else start.",
        ),
    ] = None,
    fmt: RowFormat = None,
    errors: Errors = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Bring a file of events in; good rows always go in, bad ones are reported."""
    try:
        mapping = Mapping.of(maps or [], sets or [])
    except Refused as refused:
        stop(f"--{refused.field}: {refused.message}")
    path = shift_path or (LOG_OWN_TIME if shift else None)
    with spooled(file, needed=path is not None) as (source, size), listed(errors) as tell:
        kind = _format(fmt, file, source)
        report = Report(tell=tell)
        try:
            if path is not None:
                mapping = shifted(kind, mapping, path, source)
            with bar(size) as advance:
                run(
                    _import(
                        Server(url, token),
                        chunks(source),
                        Intake(kind, mapping, document_bytes=DOCUMENT_BYTES),
                        report,
                        advance,
                    )
                )
        except Refused as refused:
            stop(f"{file}: {refused.message}", FAILED)
    tell_report(report, errors)
    if report.refused:
        raise typer.Exit(FAILED)


# --- reading ---


@contextmanager
def spooled(file: Path, *, needed: bool) -> Iterator[tuple[BinaryIO, int | None]]:
    """The file and its size; standard input that must be read twice is laid on disk first."""
    if str(file) != "-":
        with _opened(file) as source:
            yield source, file.stat().st_size
    elif not needed:
        yield sys.stdin.buffer, None
    else:
        with tempfile.TemporaryFile() as copy:
            shutil.copyfileobj(sys.stdin.buffer, copy)
            size = copy.tell()
            copy.seek(0)
            yield copy, size


def _opened(file: Path) -> BinaryIO:
    try:
        return file.open("rb")
    except OSError as error:
        stop(f"cannot read {file}: {error.strerror}")


def chunks(source: BinaryIO) -> Iterator[bytes]:
    """A file in pieces."""
    return iter(lambda: source.read(CHUNK), b"")


def _format(said: str | None, file: Path, source: BinaryIO) -> Format:
    if said is not None:
        return format_of(said) or stop(f"--format is json, geojson, ndjson or csv, not {said!r}")
    return format_of(file.name) or sniff(peek(source))


def peek(source: BinaryIO) -> bytes:
    """The first bytes, without taking them."""
    reader = getattr(source, "peek", None)
    if reader is not None:
        return bytes(reader(1 << 16))
    head = source.read(1 << 16)
    source.seek(0)
    return head


def shifted(fmt: Format, mapping: Mapping, path: str, source: BinaryIO) -> Mapping:
    """The first pass: how far times move."""
    wanted = None if path == LOG_OWN_TIME else path
    now_ms = clock.now_ms()
    mapping = shift_to_now(fmt, mapping, wanted, chunks(source), now_ms, document_bytes=DOCUMENT_BYTES)
    source.seek(0)
    return mapping


# --- sending ---


async def _import(
    server: Server, source: Iterable[bytes], intake: Intake, report: Report, advance: Callable[[int, int], object]
) -> None:
    async with server:
        await import_chunks(server, source, intake, report, advance)


async def import_chunks(
    server: Server, source: Iterable[bytes], intake: Intake, report: Report, advance: Callable[[int, int], object]
) -> None:
    """Send all the rows of these chunks; `advance(bytes read, rows done)` after each batch."""
    batch = Batch()
    for chunk in source:
        await _add(server, batch, intake.events(chunk), report)
        advance(len(chunk), report.rows)
    await _add(server, batch, intake.close_events(), report)
    await _deliver(server, batch, report)
    advance(0, report.rows)


@dataclass(slots=True)
class Batch:
    """Rows on their way: their numbers in the file and their JSON."""

    numbers: list[int] = field(default_factory=list)
    lines: list[bytes] = field(default_factory=list)
    size: int = 0

    def add(self, number: int, line: bytes) -> None:
        """One more."""
        self.numbers.append(number)
        self.lines.append(line)
        self.size += len(line)

    @property
    def full(self) -> bool:
        """Is it time to send it?"""
        return len(self.lines) >= BATCH_ROWS or self.size >= BATCH_BYTES


async def _add(server: Server, batch: Batch, rows: Sequence[Row | Rejected], report: Report) -> None:
    for row in rows:
        number, report.rows = report.rows, report.rows + 1
        if isinstance(row, Rejected):
            report.bad(Bad(number, row.id, row.field, row.reason))
            continue
        batch.add(number, orjson.dumps(row))
        if batch.full:
            await _deliver(server, batch, report)


async def _deliver(server: Server, batch: Batch, report: Report) -> None:
    """Send a batch and empty it."""
    if not batch.lines:
        return
    answer = await send_rows(server, "/events", batch.lines)
    rejected = answer.get("rejected")
    for one in rejected if isinstance(rejected, list) else []:
        number = batch.numbers[int(one["row"])]
        report.bad(Bad(number, one.get("id"), one.get("field"), advised(one)))
    report.accepted += int(str(answer.get("accepted", 0)))
    batch.numbers.clear()
    batch.lines.clear()
    batch.size = 0


def advised(refused: Json) -> str:
    """The server's reason, with the next step of someone who reads a file; its own may have one already."""
    reason, name = str(refused.get("reason")), refused.get("field")
    return reason if "PATH" in reason else reason + hint(str(name) if name else None)


async def send_rows(server: Server, path: str, lines: Sequence[bytes]) -> Json:
    """POST rows that may be sent twice; a server that is away for a moment is waited for."""
    body = b"\n".join(lines) + b"\n"
    wait_s = 0.5
    for tries_left in reversed(range(TRIES)):
        try:
            answer = await server.call("POST", path, rows=body)
            if "unwritten" not in answer:
                return answer
            failure = Failed(f"the server could not write all rows: {answer.get('error')}")
        except Unreachable as error:
            if not server.reached:
                raise
            failure = error
        except Failed as error:
            if error.retry_after_s is None:
                raise
            failure, wait_s = error, max(wait_s, error.retry_after_s)
        if tries_left:
            await clock.sleep(min(wait_s, LONGEST_WAIT_S))
            wait_s *= 2
    raise Failed(f"given up after {TRIES} tries: {failure}")


# --- showing ---


@contextmanager
def bar(size: int | None) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on a terminal: percent, rows, rate, time left."""
    columns = (
        TextColumn("{task.percentage:>3.0f}%"),
        BarColumn(),
        TextColumn("{task.fields[rows]:,} rows"),
        TextColumn("{task.fields[rate]:,.0f} rows/s"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task("", total=size, rows=0, rate=0.0)
        yield lambda read, rows: _advance(progress, task, read, rows)


def _advance(progress: Progress, task: TaskID, read: int, rows: int) -> None:
    elapsed = progress.tasks[0].elapsed or 0.0
    progress.update(task, advance=read, rows=rows, rate=rows / elapsed if elapsed > 0 else 0.0)


@contextmanager
def listed(file: Path | None) -> Iterator[Callable[[Bad], object] | None]:
    """Where every bad row is written, if anywhere."""
    if file is None:
        yield None
        return
    try:
        sink = file.open("wb")
    except OSError as error:
        stop(f"cannot write {file}: {error.strerror}")
    with sink:
        yield lambda bad: sink.write(orjson.dumps(bad.json()) + b"\n")


def tell_report(report: Report, errors: Path | None) -> None:
    """The end of it, in words; on standard error."""
    err.print(
        f"{report.accepted:,} of {report.rows:,} rows went in"
        + (f", {report.refused:,} did not" if report.refused else "")
    )
    if not report.first:
        return
    table = Table("row", "id", "field", "reason", box=None, pad_edge=False)
    for bad in sorted(report.first, key=lambda bad: bad.row):
        table.add_row(str(bad.row), escape(bad.id or ""), escape(bad.field or ""), escape(bad.reason))
    err.print(table)
    left = report.refused - len(report.first)
    if left > 0:
        err.print(f"and {left:,} more" + (f"; all are in {errors}" if errors else "; --errors FILE writes them all"))
