"""How a journal lies on disk: blocks behind a first line, each compressed, each with checksums. Pure.

    batchcast journal 1\n
    block*      | "bj" | kind | stored bytes | raw bytes | checksum of the data | checksum of this head | data (zlib) |

A block is written by one call, so what kill -9 leaves is a beginning of one: too short, or nothing but zeros where power
failed. That is *torn*, and what stands before it is whole. Anything else that doesn't check is *damage*, and refused.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from struct import Struct
from typing import BinaryIO, Final

from server.errors import Code, Refused

FORMAT: Final = 1
"""Counts up whenever a record, an event's content or a checkpoint changes its shape."""
TITLE: Final = b"batchcast journal "
FIRST_LINE: Final = TITLE + b"%d\n" % FORMAT
RAW_MOST: Final = 256 << 20
"""Bytes of one block before compression; a head that says more is damaged."""
LEVEL: Final = 1
"""zlib's effort: the journal is written beside a server at work."""
_MARK: Final = b"bj"
_HEAD: Final = Struct(">2scxIII")
_CHECK: Final = Struct(">I")
HEAD_BYTES: Final = _HEAD.size + _CHECK.size


class Kind(Enum):
    """What a block holds."""

    HEADER = b"H"
    """One record: what the file is, and how the server stood."""
    WORLD = b"W"
    """A page of events as they were when the file began; the pages stand between blocks of records."""
    RECORDS = b"R"
    """What happened since."""


@dataclass(frozen=True, slots=True)
class Block:
    """Where a block lies; `read` gives what it holds."""

    kind: Kind
    at: int
    stored: int
    raw: int
    checksum: int

    def read(self, file: BinaryIO) -> bytes:
        """Its data; Refused when they are damaged."""
        file.seek(self.at + HEAD_BYTES)
        data = file.read(self.stored)
        if zlib.crc32(data) != self.checksum:
            raise damaged(self.at, "its checksum does not fit")
        try:
            payload = zlib.decompress(data, bufsize=self.raw)
        except zlib.error as error:
            raise damaged(self.at, str(error)) from None
        if len(payload) != self.raw:
            raise damaged(self.at, "it is not as long as it says")
        return payload


@dataclass(frozen=True, slots=True)
class Extent:
    """How far a file is whole, and how many bytes of a torn end stand behind that."""

    whole: int
    torn: int


def packed(kind: Kind, payload: bytes) -> bytes:
    """A block."""
    assert 0 < len(payload) <= RAW_MOST, f"a block of {len(payload)} bytes"
    data = zlib.compress(payload, LEVEL)
    head = _HEAD.pack(_MARK, kind.value, len(data), len(payload), zlib.crc32(data))
    return head + _CHECK.pack(zlib.crc32(head)) + data


def check_first_line(file: BinaryIO, name: str) -> None:
    """Refused unless this is a journal of our format."""
    file.seek(0)
    line = file.read(len(FIRST_LINE) + 8).partition(b"\n")[0] + b"\n"
    if line == FIRST_LINE:
        return
    if FIRST_LINE.startswith(line.removesuffix(b"\n")):
        raise Refused(Code.BAD_MESSAGE, f"{name} was cut off while it began; there is nothing in it")
    if line.startswith(TITLE):
        theirs = line.removeprefix(TITLE).strip().decode(errors="replace")
        raise Refused(
            Code.BAD_MESSAGE,
            f"{name} is a journal of format {theirs[:20]}, this program reads format {FORMAT}: use the version that wrote it",
        )
    raise Refused(Code.BAD_MESSAGE, f"{name} is not a journal: it does not begin with {TITLE.decode().strip()!r}")


def scan(file: BinaryIO) -> Iterator[Block | Extent]:
    """The blocks in order, then the extent. Their data are not read here."""
    at = len(FIRST_LINE)
    size = file.seek(0, 2)
    while at < size:
        block = _head_at(file, at, size)
        if block is None:
            break
        yield block
        at += HEAD_BYTES + block.stored
    yield Extent(at, size - at)


def _head_at(file: BinaryIO, at: int, size: int) -> Block | None:
    """The block that begins there; None when it is torn."""
    file.seek(at)
    bytes_ = file.read(HEAD_BYTES)
    if len(bytes_) < HEAD_BYTES:
        return None
    head, check = bytes_[: _HEAD.size], _CHECK.unpack(bytes_[_HEAD.size :])[0]
    mark, kind, stored, raw, checksum = _HEAD.unpack(head)
    if zlib.crc32(head) != check or mark != _MARK:
        if not any(bytes_) and _zeros(file, at):
            return None
        raise damaged(at, "it has no head")
    if raw > RAW_MOST or kind not in {k.value for k in Kind}:
        raise damaged(at, "its head makes no sense")
    if at + HEAD_BYTES + stored > size:
        return None
    return Block(Kind(kind), at, stored, raw, checksum)


def _zeros(file: BinaryIO, at: int) -> bool:
    file.seek(at)
    while chunk := file.read(1 << 20):
        if any(chunk):
            return False
    return True


def damaged(at: int, why: str) -> Refused:
    """The refusal of a file that is not as it was written."""
    return Refused(
        Code.BAD_MESSAGE, f"the journal is damaged: the block at byte {at:,} can't be read ({why}); copy the file again"
    )
