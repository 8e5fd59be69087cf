"""What `batchcast journal` does (journal.py says how it is asked). Apart from it, because this needs the engine."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import orjson
import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from server.batching.scores import kernel
from server.batching.scores.journal.codec import header_row, question_row, settled_row
from server.batching.scores.journal.files import Folder
from server.batching.scores.journal.reader import Journal, opened
from server.batching.scores.journal.records import Drew, Header, Look, Patched, Record
from server.batching.scores.journal.replay import Difference, Report, replayed, said_of
from server.commands.calling import FAILED, Failed, Json, err, out, stop
from server.edge.clock import SystemClock
from server.errors import Refused, StartRefused
from server.protocol.values import to_iso, to_ms
from server.settings import load


def list_files(folder: Path | None, *, as_json: bool) -> None:
    """Show the files, oldest first."""
    where = folder or _folder()
    found = [_described(one.path, one.size) for one in Folder(where, 0).files()]
    if as_json:
        out.print_json(data=found)
        return
    if not found:
        out.print(f"no journals in {where}; record with JOURNAL=true", markup=False, soft_wrap=True)
        return
    table = Table("file", "began", "MiB", "events", "viewers", "state", box=None, pad_edge=False)
    for one in found:
        size = f"{int(str(one['bytes'])) / (1 << 20):,.1f}"
        table.add_row(*(escape(str(one[name])) for name in ("file", "began")), size, *_cells(one))
    out.print(table)


def _cells(one: Json) -> list[str]:
    return [escape(str(one.get(name, "-"))) for name in ("events", "viewers", "state")]


def show(file: Path, head: int, *, as_json: bool) -> None:
    """Show the header, then the first records."""
    with _refusals(), opened(file) as journal:
        header = _header_json(journal.header)
        if as_json:
            header |= {"gone": list(journal.header.gone), "pending": list(journal.header.pending)}
        typer.echo(orjson.dumps(header))
        for record in islice(journal.records(), head):
            typer.echo(orjson.dumps(_record_json(record), default=str))


def replay(file: Path, to: str | None, *, verify: bool, as_json: bool) -> None:
    """Play a journal again; the exit code says whether a frame differed."""
    until_ms = _moment(to)
    clock = SystemClock()
    began = clock.monotonic()
    with _refusals(), opened(file) as journal, _bar(journal) as advance:
        report = replayed(journal, verify=verify, to_ms=until_ms, read=advance)
        header, torn = journal.header, journal.extent.torn
    seconds = clock.monotonic() - began
    if as_json:
        out.print_json(data=_report_json(report, header, seconds, torn, verified=verify))
    else:
        for line in _summary(report, header, seconds, torn, verified=verify):
            out.print(line, markup=False, soft_wrap=True)
    if report.difference is not None:
        raise typer.Exit(FAILED)


# --- what is said ---


def _summary(report: Report, header: Header, seconds: float, torn: int, *, verified: bool) -> Iterator[str]:
    span = (report.until_ms - report.began_ms) / 1000
    yield (
        f"{to_iso(report.began_ms)} to {to_iso(report.until_ms)}: {report.records:,} records, {report.rounds:,} rounds, "
        f"{report.viewers:,} viewers at most, {report.frames:,} frames, {report.bytes:,} bytes"
    )
    yield f"{span:,.1f} s of journal in {seconds:,.1f} s ({span / max(seconds, 0.001):,.0f} times its speed)"
    if torn:
        yield f"cut off {torn:,} bytes at the end: the block that was being written when the server died"
    if report.difference is not None:
        yield _told(report.difference)
        yield from said_of(header)
    elif verified:
        yield f"verified: all {report.frames:,} frames are the same to the byte, and {report.nothing:,} times nothing was due"


def _told(one: Difference) -> str:
    def size(count: int | None) -> str:
        return "no frame" if count is None else f"{count:,} bytes"

    return (
        f"DIFFERS at {to_iso(one.now_ms)}: viewer {one.viewer}, seq {one.seq} ({one.kind.value}): recorded {size(one.recorded)}, "
        f"replayed {size(one.replayed)}"
    )


def _report_json(report: Report, header: Header, seconds: float, torn: int, *, verified: bool) -> Json:
    said = {"".join(_camel(name)): value for name, value in asdict(report).items() if name != "difference"}
    different = None
    if report.difference is not None:
        one = report.difference
        different = {
            "time": to_iso(one.now_ms),
            "viewer": one.viewer,
            "kind": one.kind.value,
            "seq": one.seq,
            "recordedBytes": one.recorded,
            "replayedBytes": one.replayed,
        }
    rest = {"seconds": round(seconds, 3), "tornBytes": torn, "verified": verified, "notes": list(said_of(header))}
    return {**said, **rest, "difference": different}


def _camel(name: str) -> Iterator[str]:
    first, *more = name.split("_")
    yield first
    yield from (word.capitalize() for word in more)


def _header_json(header: Header) -> Json:
    """The header for people: long lists as their lengths."""
    row = dict(header_row(header))
    for name, values in (("pending", header.pending), ("gone", header.gone), ("free", header.free)):
        row[name] = len(values)
    row["turning"] = len(header.turning)
    row["began"] = to_iso(header.began_ms)
    return row


def _record_json(record: Record) -> Json:
    said: Json = {"record": type(record).__name__.lower()}
    match record:
        case Drew():
            at = {"time": to_iso(record.now_ms), "draw": record.draw}
            return {**said, **at, "looks": [_look_json(look) for look in record.looks]}
        case Patched():
            return {**said, "time": to_iso(record.now_ms), "changes": [settled_row(one) for one in record.changes]}
        case _:
            values = asdict(record)
            return {**said, **{"".join(_camel(name)): value for name, value in values.items()}}


def _look_json(look: Look) -> Json:
    said: Json = {"viewer": look.viewer, "kind": look.kind.value, "question": question_row(look.question)}
    given: Mapping[str, object] = {
        "threshold": look.threshold,
        "ref": look.ref,
        "claimed": look.claimed,
        "seq": look.seq,
        "fields": "delta" if look.budget.delta else None,
        "maxBytesPerBatch": look.budget.max_bytes,
        "clusters": look.clusters or None,
    }
    return {**said, **{name: value for name, value in given.items() if value is not None}}


def _described(path: Path, size: int) -> Json:
    try:
        with opened(path) as journal:
            header = journal.header
            state = "whole" if not journal.extent.torn else f"cut off, {journal.extent.torn:,} bytes are lost"
            return {
                "file": path.name,
                "began": to_iso(header.began_ms),
                "bytes": size,
                "events": header.events,
                "viewers": len(header.watching),
                "state": state,
            }
    except Refused as refused:
        return {"file": path.name, "began": "-", "bytes": size, "state": refused.message}


# --- where and when ---


def _folder() -> Path:
    try:
        settings = load(os.environ)
    except StartRefused as refused:
        stop(str(refused))
    return settings.journal_dir or settings.data_dir / "journal"


def _moment(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return to_ms(int(text) if text.isdecimal() else text)
    except ValueError as error:
        stop(f"--to {text}: {error}")


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except Refused as refused:
        raise Failed(refused.message, FAILED) from None


@contextmanager
def _bar(journal: Journal) -> Iterator[Callable[[int], object]]:
    """A bar, where somebody looks."""
    if kernel.NUMBA:
        kernel.warm()
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(f"replaying {journal.name}", total=journal.bytes)
        yield lambda count: bar.advance(task, count)
