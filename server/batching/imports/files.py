"""Members from a file, CSV or NDJSON: a Source whose cursor is a place in the file, and the spooling of a body to disk.

    await spool(chunks, folder / new_name(now_ms, chance, fmt), most)   from an HTTP body; on disk when it returns
    source = FileMembers(path, Format.CSV)
    page = await source.page(None)                                     page.rejected: BadRow(row, field, reason)

Columns (a CSV's header, an NDJSON line's keys; case and order do not matter): email, name, username, id, joined, status,
phone. All others go to `extra`. `joined` is ISO 8601, epoch seconds or milliseconds. Rows are numbered from 0, a CSV's
header not counted; one that is no member is reported with its number, field and reason, and the others go on.

The cursor is "ROW@OFFSET/SIZE": how many rows came before, the byte where the next one begins, and the size of the file,
which must not have changed meanwhile. So a page can be asked for again, by another process too, and gives the same rows.

Memory is bounded: a page of rows, each at most ROW_BYTES. UTF-8 only (with or without BOM): a row that is not is reported,
a file in UTF-16 or UTF-32 is refused. Quotes as in RFC 4180, so a cell may hold line ends; separators , ; or tab.
`total` is an estimate from the bytes read, and exact on the last page. Reading happens in a thread.

A folder of such files knows its own id, in a file beside them: hosts that share the folder see the same id, others another
one, and so a job of a file goes to a worker that can read it. Only files whose names are of our making are ever removed.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
from collections.abc import AsyncIterable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

from server.core.event import Rejected
from server.core.member import BadRow, Member, Page, Unusable, email_of, extra_of, moment_of, text_of
from server.errors import Code, Refused, Unavailable
from server.protocol.intake import ROW_BYTES, Format, Read, Reader, reader

T = TypeVar("T")

COLUMNS: Final = ("email", "name", "username", "id", "joined", "status", "phone")
PAGE_ROWS: Final = 500
READ_BYTES: Final = 1 << 16
NO_ROOM_S: Final = 60.0
UNWRITABLE_S: Final = 10.0
"""When whoever sends a file that the disk does not take is asked to come back."""
ENDINGS: Final = {Format.CSV: ".csv", Format.NDJSON: ".ndjson"}
FOLDER_ID: Final = ".folder-id"
NOBODY: Final = f"has none of the columns {', '.join(COLUMNS)}"

_OURS: Final = re.compile(r"[0-9a-f]+-[0-9a-f]{13,14}\.(csv|ndjson)(\.part)?")
_KNOWN: Final = frozenset(COLUMNS)
_FOREIGN_MARKS: Final = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")
_NO_ROOM: Final = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page begins."""

    row: int
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.row}@{self.offset}/{self.size}"

    @classmethod
    def of(cls, cursor: str | None, size: int) -> Place:
        """The place of a cursor in a file of this size; Unusable when it is another file's."""
        if cursor is None:
            return cls(0, 0, size)
        try:
            row, _, rest = cursor.partition("@")
            offset, _, was = rest.partition("/")
            place = cls(int(row), int(offset), int(was))
        except ValueError:
            raise Unusable(f"{cursor[:80]!r} is no cursor of a file (ROW@OFFSET/SIZE)") from None
        if place.size != size or not 0 <= place.offset <= size or place.row < 0:
            raise Unusable(
                f"the file has changed since it was begun ({place.size} bytes then, {size} now): import it anew"
            )
        return place


class FileMembers:
    """A Source; see the module's docstring."""

    def __init__(self, path: Path, fmt: Format, *, page_rows: int = PAGE_ROWS, row_bytes: int = ROW_BYTES) -> None:
        if fmt is Format.JSON:
            raise Refused(Code.BAD_MESSAGE, "members come as CSV or NDJSON (one object a line)", field="format")
        self._path = path
        self._format = fmt
        self._page_rows = page_rows
        self._row_bytes = row_bytes

    async def page(self, cursor: str | None) -> Page:
        """The page at this cursor."""
        return await asyncio.to_thread(self.read, cursor)

    def read(self, cursor: str | None) -> Page:
        """The same, in this thread."""
        try:
            with open(self._path, "rb") as file:
                place = Place.of(cursor, os.fstat(file.fileno()).st_size)
                return self._page(file, place)
        except FileNotFoundError:
            raise Unusable(f"the file {self._path.name} is not there any more (on this host): import it anew") from None
        except OSError as error:
            raise Unusable(f"the file {self._path.name} cannot be read: {error.strerror}") from None
        except Refused as refused:
            raise Unusable(refused.message) from None

    def _page(self, file: BinaryIO, place: Place) -> Page:
        rows = _Rows(file, reader(self._format, row_bytes=self._row_bytes))
        if place.offset == 0:
            _check_encoding(file)
        elif self._format is Format.CSV:
            rows.skip_head()
        file.seek(place.offset)
        found = rows.take(self._page_rows)
        return self._made(place, found, file.tell())

    def _made(self, place: Place, found: list[Read], end: int) -> Page:
        judged = [_judged(number, row) for number, row in enumerate(found, place.row)]
        members = tuple(one for one in judged if isinstance(one, Member))
        rejected = tuple(one for one in judged if isinstance(one, BadRow))
        row, has_next = place.row + len(found), end < place.size
        _check_columns(place, rejected, len(found), self._format)
        total = row * place.size // end if has_next and end else row
        return Page(members, str(Place(row, end, place.size)), has_next, total, rejected)


class _Rows:
    """Rows of a file, each read to its very end and no further: a line is fed, and what it completes is a row.

    The reader knows when quotes go on over lines, so a row has come exactly when it hands one out; bytes that it has taken
    without handing one out are blank lines or the header, which may be read twice.
    """

    def __init__(self, file: BinaryIO, to_rows: Reader) -> None:
        self._file = file
        self._reader = to_rows

    def skip_head(self) -> None:
        """Let the reader learn the header again: it has, when it hands out the first row."""
        self._file.seek(0)
        self.take(1)

    def take(self, most: int) -> list[Read]:
        """The next rows; the file stands behind the last of them."""
        rows: list[Read] = []
        while len(rows) < most:
            line = self._file.readline(READ_BYTES)
            if not line:
                rows += self._reader.close()
                break
            rows += self._reader.feed(line)
        return rows


def member_of(row: Mapping[str, object]) -> Member:
    """The member in a row; BadField says which of its fields is none."""
    named = {name.strip().lower(): value for name, value in row.items()}
    return Member(
        external_id=_field(text_of, named, "id"),
        email=_field(email_of, named, "email"),
        name=_field(text_of, named, "name"),
        username=_field(text_of, named, "username"),
        joined_ms=_field(moment_of, named, "joined"),
        status=_field(text_of, named, "status"),
        phone=_field(text_of, named, "phone"),
        extra=extra_of(named, _KNOWN),
    )


@dataclass(frozen=True, slots=True)
class Spooled:
    """A file that was taken in: its name, and the id of the folder it is in."""

    name: str
    folder: str | None


def new_name(now_ms: int, chance: float, fmt: Format) -> str:
    """A name that no other file has; it sorts by age."""
    return f"{now_ms:x}-{round(chance * 2**52):013x}{ENDINGS[fmt]}"


def id_of_folder(folder: Path, fresh: str) -> str | None:
    """The id of a folder of files; `fresh` becomes it when there is none yet. None when the folder can be neither made nor read."""
    mark = folder / FOLDER_ID
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not mark.exists():
            _write_once(mark, fresh)
        return mark.read_text().strip() or None
    except OSError:
        return None


def _write_once(mark: Path, text: str) -> None:
    """Whole or not at all; of several at the same time one wins."""
    draft = mark.with_name(f"{mark.name}.{text}")
    try:
        draft.write_text(text)
        with suppress(FileExistsError):
            os.link(draft, mark)
    finally:
        draft.unlink(missing_ok=True)


def files_after(folder: Path, name: str, most: int) -> list[Path]:
    """The next files of ours, by name; half-written ones too."""
    try:
        found = sorted(path for path in folder.iterdir() if path.name > name and _OURS.fullmatch(path.name))
    except FileNotFoundError:
        return []
    return found[:most]


def untouched(files: list[Path], before_s: float) -> list[Path]:
    """Those that were last written before that time."""
    return [path for path in files if _written_s(path, before_s) < before_s]


def _written_s(path: Path, otherwise: float) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # Another process has removed it.
        return otherwise


def remove(files: list[Path]) -> None:
    """Away with them."""
    for path in files:
        with suppress(FileNotFoundError):
            path.unlink()


class BadField(ValueError):
    """A field that cannot be read."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field
        self.reason = reason


async def spool(chunks: AsyncIterable[bytes], path: Path, most_bytes: int) -> int:
    """Write a body to this file and answer with its size; all of it is on the disk, under its name, or nothing is.

    Refused above `most_bytes`; Unavailable when the disk has no room. Errors of the body itself pass through.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        size = await _write(chunks, part, most_bytes)
        with _disk():
            await asyncio.to_thread(_settle, part, path)
    finally:
        with suppress(OSError):  # After success it has its name; after a failure it may never have been there.
            part.unlink()
    return size


async def _write(chunks: AsyncIterable[bytes], part: Path, most_bytes: int) -> int:
    size = 0
    with _disk():
        file = await asyncio.to_thread(_opened, part)
    try:
        async for chunk in chunks:
            size += len(chunk)
            if size > most_bytes:
                raise Refused(Code.TOO_LARGE, f"a file of members has at most {most_bytes} bytes", limit=most_bytes)
            with _disk():
                await asyncio.to_thread(_write_all, file, chunk)
    finally:
        await asyncio.to_thread(file.close)
    return size


@contextmanager
def _disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            message = "the disk of IMPORTS_FOLDER has no room for this file; nothing of it was kept. Make some, and send it again"
            raise Unavailable(message, NO_ROOM_S) from None
        raise Unavailable(f"the file cannot be kept in IMPORTS_FOLDER: {error.strerror}", UNWRITABLE_S) from None


def _opened(part: Path) -> BinaryIO:
    """Unbuffered, so that a full disk is noticed where the write is, not when the file is closed."""
    part.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return open(part, "wb", buffering=0, opener=_private)


def _write_all(file: BinaryIO, chunk: bytes) -> None:
    """An unbuffered write may take a part, the last that fits; the next one then says why."""
    rest = memoryview(chunk)
    while rest:
        rest = rest[file.write(rest) :]


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def _settle(part: Path, path: Path) -> None:
    with open(part, "rb") as file:
        os.fsync(file.fileno())
    os.replace(part, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _check_encoding(file: BinaryIO) -> None:
    head = file.read(READ_BYTES)
    if head.startswith(_FOREIGN_MARKS) or b"\0" in head:
        raise Unusable("the file is not UTF-8 text (it looks like UTF-16, or is no text): save it as CSV in UTF-8")


def _check_columns(place: Place, rejected: tuple[BadRow, ...], rows: int, fmt: Format) -> None:
    """A foreign file, or one without a header, is better refused as a whole than reported row by row."""
    if place.row == 0 and rows and sum(bad.reason == NOBODY for bad in rejected) == rows:
        where = "header" if fmt is Format.CSV else "lines"
        raise Unusable(f"the file {NOBODY} (looked for in its {where}): is it a file of members?")


def _judged(number: int, row: Read) -> Member | BadRow:
    if isinstance(row, Rejected):
        return BadRow(number, None, row.reason)
    if not isinstance(row, dict):
        return BadRow(number, None, "a row is a JSON object")
    try:
        member = member_of(row)
    except BadField as bad:
        return BadRow(number, bad.field, bad.reason)
    return BadRow(number, None, NOBODY) if member == Member(None, extra=member.extra) else member


def _field(read: Callable[[object], T], row: Mapping[str, object], name: str) -> T:
    try:
        return read(row.get(name))
    except ValueError as error:
        raise BadField(name, f"{name} {error}") from None
