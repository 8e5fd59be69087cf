"""Files and bodies of events, chunk by chunk, into operations: JSON, GeoJSON, NDJSON and CSV, ours or foreign.

    intake = Intake(Format.NDJSON, Mapping.of(maps, sets))     # see mapping.py for what a mapping may do
    for chunk in body:
        ops += intake.feed(chunk)                              # list[Op | Rejected], in the order of the rows
    ops += intake.close()                                      # what was still open; raises Refused(bad_json) for a bad document
                                                               # (a long one: rows = intake.rest(), then entries() in parts)

Every row gives exactly one entry, so the n-th entry (from 0) is row n and good rows always go in. A row is

    JSON    a document of one object, an array of them, a Feature or a FeatureCollection; read as a whole, so bounded by
            `document_bytes` (Refused too_large); `single` says after close() that it was one object or Feature
    NDJSON  a line that is not blank; of either; a FeatureCollection on a line is as many rows as it has features
    CSV     a record after the header; the separator is the one of , ; tab that the header has most; an empty cell is
            absent; UTF-8, quotes as in RFC 4180

NDJSON and CSV hold at most one unfinished row: one above `row_bytes` is skipped up to the next line and is that row's error.
Popularity comes the same way with `op=popularity_op` and no mapping (rows go through as they are): `mapping=None`.

`events()` and `close_events()` give the mapped JSON objects instead of operations, for a client that sends them on.
Shifting a file's times to now needs its newest time first, that is two passes: `shift_to_now` is the first one.

    mapping = shift_to_now(Format.CSV, mapping, None, chunks(), now_ms)      # None: the log's own time, else start

`format_of` tells the format from a Content-Type or a file name, `sniff` from the first bytes. Pure: no clock, no I/O.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from typing import Final, Protocol, TypeAlias

import orjson

from server.core.event import Op, Rejected
from server.errors import Code, Refused
from server.protocol.event import event_op
from server.protocol.mapping import PLAIN, Mapping, Newest, Row, hint, is_feature, lookup

ROW_BYTES: Final = 1 << 20
DOCUMENT_BYTES: Final = 64 << 20
MAX_COLUMNS: Final = 1000
BOM: Final = b"\xef\xbb\xbf"
RECORD_SEPARATOR: Final = b"\x1e"
"""GeoJSON text sequences (RFC 8142) put it before each line; it is no part of the JSON."""

_TO_QUOTE: Final = re.compile(rb'(?:[^"]++|"")*+"')

Read: TypeAlias = object | Rejected
"""A row's JSON value as it was read, or why it could not be."""


class Format(StrEnum):
    """How rows are written."""

    JSON = "json"
    NDJSON = "ndjson"
    CSV = "csv"


_TYPES: Final = {
    "application/json": Format.JSON,
    "application/geo+json": Format.JSON,
    "application/vnd.geo+json": Format.JSON,
    "application/x-ndjson": Format.NDJSON,
    "application/ndjson": Format.NDJSON,
    "application/jsonl": Format.NDJSON,
    "application/x-jsonlines": Format.NDJSON,
    "application/geo+json-seq": Format.NDJSON,
    "text/csv": Format.CSV,
}
_ENDINGS: Final = {
    "json": Format.JSON,
    "geojson": Format.JSON,
    "ndjson": Format.NDJSON,
    "jsonl": Format.NDJSON,
    "geojsonl": Format.NDJSON,
    "geojsons": Format.NDJSON,
    "csv": Format.CSV,
    "tsv": Format.CSV,
}


def format_of(name: str) -> Format | None:
    """The format that a Content-Type, a file name or a word (json, geojson, ndjson, csv) stands for; None: unknown."""
    plain = name.partition(";")[0].strip().lower()
    return _TYPES.get(plain) or _ENDINGS.get(plain.rpartition(".")[2])


def sniff(head: bytes) -> Format:
    """The format of a file that begins like this: a bracket is JSON, a whole object on the first line NDJSON, else CSV."""
    text = head.removeprefix(BOM).lstrip(b" \t\r\n" + RECORD_SEPARATOR)
    if text[:1] not in (b"{", b"["):
        return Format.CSV
    first, newline, rest = text.partition(b"\n")
    whole = bool(newline) and bool(rest.strip()) and isinstance(_loads(first), dict)
    return Format.NDJSON if whole else Format.JSON


class Intake:
    """One file or body on its way in; see the module's docstring."""

    def __init__(
        self,
        fmt: Format,
        mapping: Mapping | None = PLAIN,
        *,
        op: Callable[[object], Op] = event_op,
        row_bytes: int = ROW_BYTES,
        document_bytes: int = DOCUMENT_BYTES,
    ) -> None:
        self._reader = reader(fmt, row_bytes=row_bytes, document_bytes=document_bytes)
        self._texts = fmt is Format.CSV
        self._mapping = mapping
        self._op = op

    @property
    def single(self) -> bool:
        """Was the whole document one object or Feature? Known after close()."""
        return isinstance(self._reader, DocumentReader) and self._reader.single

    def feed(self, chunk: bytes) -> list[Op | Rejected]:
        """The rows that this chunk completes."""
        return self.entries(self._reader.feed(chunk))

    def close(self) -> list[Op | Rejected]:
        """The rows still open at the end."""
        return self.entries(self._reader.close())

    def rest(self) -> list[Read]:
        """The same, not looked at yet: of a document these are all its rows, for `entries` to take a part at a time."""
        return self._reader.close()

    def entries(self, rows: Iterable[Read]) -> list[Op | Rejected]:
        """What each row asks for."""
        return [self._entry(row) for row in rows]

    def events(self, chunk: bytes) -> list[Row | Rejected]:
        """The rows that this chunk completes, as events in JSON, mapped but not validated."""
        return [self._event(row) for row in self._reader.feed(chunk)]

    def close_events(self) -> list[Row | Rejected]:
        """The rows still open at the end, as events in JSON."""
        return [self._event(row) for row in self._reader.close()]

    def _entry(self, row: Read) -> Op | Rejected:
        event: Read = row if self._mapping is None else self._event(row)
        if type(event) is Rejected:
            return event
        try:
            return self._op(event)
        except Refused as refused:
            return _rejected(event, refused, self._foreign(row))

    def _event(self, row: Read) -> Row | Rejected:
        if isinstance(row, Rejected):
            return row
        if not isinstance(row, dict):
            return Rejected(None, Code.BAD_MESSAGE, f"a row is a JSON object, not {_kind(row)}")
        try:
            return (self._mapping or PLAIN).event(row, texts=self._texts)
        except Refused as refused:
            return _rejected(row, refused, True, (self._mapping or PLAIN).paths.get("id", "id"))

    def _foreign(self, row: Read) -> bool:
        """Might the row be somebody else's format, so that a mapping is the next step?"""
        mapped = self._mapping is not None and not self._mapping.plain
        return mapped or self._texts or (isinstance(row, dict) and is_feature(row))


def shift_to_now(
    fmt: Format,
    mapping: Mapping,
    path: str | None,
    chunks: Iterable[bytes],
    now_ms: int,
    *,
    row_bytes: int = ROW_BYTES,
    document_bytes: int = DOCUMENT_BYTES,
) -> Mapping:
    """The mapping that also moves the newest time of these chunks to now; Refused (shift) when there is no time."""
    rows = reader(fmt, row_bytes=row_bytes, document_bytes=document_bytes)
    newest = Newest(mapping, path)
    for chunk in chunks:
        for row in rows.feed(chunk):
            newest.see(row)
    for row in rows.close():
        newest.see(row)
    return mapping.shifted(now_ms - newest.ms())


class Reader(Protocol):
    """Chunks of bytes in, rows out."""

    def feed(self, chunk: bytes) -> list[Read]:
        """The rows that this chunk completes."""
        ...

    def close(self) -> list[Read]:
        """The rows still open at the end."""
        ...


def reader(fmt: Format, *, row_bytes: int = ROW_BYTES, document_bytes: int = DOCUMENT_BYTES) -> Reader:
    """The reader of a format."""
    if fmt is Format.NDJSON:
        return NdjsonReader(row_bytes)
    return CsvReader(row_bytes) if fmt is Format.CSV else DocumentReader(document_bytes)


class _Lines:
    """Bytes cut at line feeds, at most `row_bytes` held back; None stands for a line that was longer and is gone.

    `goes_on(line, inside)` says of a whole line whether it ends inside of quotes, so that the next one belongs to it.
    """

    def __init__(self, row_bytes: int, goes_on: Callable[[bytes, bool], bool] | None = None) -> None:
        self._row_bytes = row_bytes
        self._goes_on = goes_on
        self._held: list[bytes] = []
        self._size = 0
        self._line_from = 0
        self._inside = False
        self._lost = False
        self._begun = False

    def feed(self, chunk: bytes) -> Iterator[bytes | None]:
        """The lines that this chunk completes, without their line ends."""
        if chunk and not self._begun:
            chunk, self._begun = chunk.removeprefix(BOM), True
        for piece in _at_newlines(chunk):
            self._hold(piece)
            if piece.endswith(b"\n") and (self._lost or not self._open()):
                yield self._take()

    def close(self) -> Iterator[bytes | None]:
        """The last line, when it had no end."""
        if self._held or self._lost:
            yield self._take()

    def _hold(self, piece: bytes) -> None:
        self._size += len(piece)
        self._lost = self._lost or self._size > self._row_bytes
        if self._lost:
            self._held.clear()
        else:
            self._held.append(piece)

    def _open(self) -> bool:
        if self._goes_on is None:
            return False
        self._inside = self._goes_on(b"".join(self._held[self._line_from :]), self._inside)
        self._line_from = len(self._held)
        return self._inside

    def _take(self) -> bytes | None:
        line = None if self._lost else b"".join(self._held).rstrip(b"\r\n")
        self._held.clear()
        self._size, self._line_from, self._inside, self._lost = 0, 0, False, False
        return line


class NdjsonReader:
    """One JSON value a line; blank lines are no rows."""

    def __init__(self, row_bytes: int = ROW_BYTES) -> None:
        self._lines = _Lines(row_bytes)
        self._row_bytes = row_bytes

    def feed(self, chunk: bytes) -> list[Read]:
        """The rows that this chunk completes."""
        return [row for line in self._lines.feed(chunk) for row in self._rows(line)]

    def close(self) -> list[Read]:
        """The last row, when its line had no end."""
        return [row for line in self._lines.close() for row in self._rows(line)]

    def _rows(self, line: bytes | None) -> list[Read]:
        if line is None:
            return [_too_long(self._row_bytes)]
        text = line.strip(b" \t\r" + RECORD_SEPARATOR)
        if not text:
            return []
        value = _loads(text)
        return _features(value) if _is_collection(value) else [value]


class CsvReader:
    """A header, then a record a row; cells are text, empty ones absent."""

    def __init__(self, row_bytes: int = ROW_BYTES) -> None:
        self._lines = _Lines(row_bytes, self._goes_on)
        self._row_bytes = row_bytes
        self._names: list[str] = []
        self._separator = ""

    def feed(self, chunk: bytes) -> list[Read]:
        """The rows that this chunk completes."""
        return [row for line in self._lines.feed(chunk) for row in self._rows(line)]

    def close(self) -> list[Read]:
        """The last row, when its line had no end."""
        return [row for line in self._lines.close() for row in self._rows(line)]

    def _goes_on(self, line: bytes, inside: bool) -> bool:
        self._separator = self._separator or max(",;\t", key=line.decode(errors="replace").count)
        return _ends_inside(line, self._separator.encode(), inside) if inside or b'"' in line else False

    def _rows(self, line: bytes | None) -> list[Read]:
        if line is not None and not line.strip():
            return []
        if not self._names:
            self._header(line)
            return []
        return [_too_long(self._row_bytes) if line is None else self._row(line)]

    def _header(self, line: bytes | None) -> None:
        text = (line or b"").decode(errors="replace")
        self._separator = self._separator or max(",;\t", key=text.count)
        self._names = [name.strip() for name in _cells(text, self._separator)]
        twice = sorted({name for name in self._names if name and self._names.count(name) > 1})
        if line is None or len(self._names) > MAX_COLUMNS:
            raise Refused(Code.TOO_LARGE, f"the header has more than {MAX_COLUMNS} columns or {self._row_bytes} bytes")
        if twice:
            raise Refused(Code.BAD_MESSAGE, f"the header names {twice[0]!r} twice", field="header")

    def _row(self, line: bytes) -> Read:
        try:
            cells = _cells(line.decode(), self._separator)
        except (UnicodeDecodeError, csv.Error) as error:
            return Rejected(None, Code.BAD_MESSAGE, f"not a CSV record in UTF-8: {error}")
        if len(cells) > len(self._names):
            return Rejected(None, Code.BAD_MESSAGE, f"{len(cells)} cells, but the header names {len(self._names)}")
        named = zip(self._names, cells, strict=False)
        return {name: cell for name, cell in named if name and cell.strip()}


class DocumentReader:
    """One JSON document, read as a whole."""

    def __init__(self, document_bytes: int = DOCUMENT_BYTES) -> None:
        self.single = False
        self._limit = document_bytes
        self._chunks: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[Read]:
        """Nothing yet; Refused when the document is too large."""
        self._size += len(chunk)
        if self._size > self._limit:
            message = f"a JSON document has at most {self._limit} bytes; send NDJSON, which has no bound"
            raise Refused(Code.TOO_LARGE, message, limit=self._limit)
        self._chunks.append(chunk)
        return []

    def close(self) -> list[Read]:
        """All the rows; Refused(bad_json) when it is no JSON."""
        text = b"".join(self._chunks).removeprefix(BOM)
        self._chunks.clear()
        value = _loads(text)
        if isinstance(value, Rejected):
            raise Refused(Code.BAD_JSON, f"{value.reason} (one object a line is NDJSON: application/x-ndjson)")
        if _is_collection(value):
            return _features(value)
        self.single = not isinstance(value, list)
        return value if isinstance(value, list) else [value]


def _at_newlines(chunk: bytes) -> list[bytes]:
    """Cut only at line feeds: a carriage return alone ends no line."""
    pieces = chunk.split(b"\n")
    return [piece + b"\n" for piece in pieces[:-1]] + ([pieces[-1]] if pieces[-1] else [])


def _loads(text: bytes) -> Read:
    try:
        value: object = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return Rejected(None, Code.BAD_JSON, f"not JSON: {error}")
    return value


def _cells(text: str, separator: str) -> list[str]:
    return next(csv.reader(io.StringIO(text, newline=""), delimiter=separator), [])


def _ends_inside(line: bytes, separator: bytes, inside: bool) -> bool:
    """Does a line of CSV end inside of quotes? A quote opens only where a cell begins: `5" pipe` is a plain cell."""
    at = 0
    while at != -1:
        if not inside and line[at : at + 1] == b'"':
            inside, at = True, at + 1
        if inside:
            closed = _TO_QUOTE.match(line, at)
            if closed is None:
                return True
            inside, at = False, closed.end()
        at = line.find(separator, at)
        at = at + 1 if at != -1 else -1
    return False


def _is_collection(value: object) -> bool:
    return (
        isinstance(value, dict) and value.get("type") == "FeatureCollection" and isinstance(value.get("features"), list)
    )


def _features(value: object) -> list[Read]:
    assert isinstance(value, dict)
    features: list[Read] = value["features"]
    return features


def _too_long(row_bytes: int) -> Rejected:
    return Rejected(None, Code.TOO_LARGE, f"a row has at most {row_bytes} bytes")


def _rejected(row: object, refused: Refused, foreign: bool, id_path: str = "id") -> Rejected:
    reason = refused.message + (hint(refused.field) if foreign else "")
    return Rejected(_named(row, id_path), refused.code, reason, refused.field)


def _named(row: object, id_path: str) -> str | None:
    """The id that a refused row seems to have, so that its owner finds it."""
    if not isinstance(row, dict):
        return None
    for path in (id_path, "eventId"):
        found = lookup(row, path)
        if isinstance(found, str | int) and not isinstance(found, bool):
            return str(found)[:128]
    return None


def _kind(value: object) -> str:
    return {list: "a list", str: "a text", int: "a number", float: "a number", type(None): "null"}.get(
        type(value), "that"
    )
