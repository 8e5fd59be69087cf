"""A journal file as its header, the world it begins with, and its records in order.

    with opened(path) as journal:  journal.header, journal.columns(), for record in journal.records(): ...

Blocks are looked through once when it is opened, so a damaged head is known before anything is done; the data are read when
they are asked for, one block at a time: a long journal needs no more memory than its world. A file without all of its
checkpoint can't be replayed, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

import orjson

from server.batching.scores.columns import Columns
from server.batching.scores.journal.blocks import Block, Extent, Kind, check_first_line, damaged, scan
from server.batching.scores.journal.checkpoint import columns_of, copy_of
from server.batching.scores.journal.codec import Decoder, header_of
from server.batching.scores.journal.records import Header, Record
from server.batching.scores.rows import Copy
from server.errors import Code, Refused

T = TypeVar("T")


class Journal:
    """An open file."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self.name = name
        check_first_line(file, name)
        found = list(scan(file))
        extent = found.pop()
        assert isinstance(extent, Extent)
        self.extent = extent
        """What of the file is whole, and what a crash has torn off."""
        self.blocks = [one for one in found if isinstance(one, Block)]
        if not self.blocks or self.blocks[0].kind is not Kind.HEADER:
            raise Refused(Code.BAD_MESSAGE, f"{name} has no header: it was cut off while it began")
        self.header: Header = _understood(self.blocks[0], lambda payload: header_of(orjson.loads(payload)), file)

    @property
    def bytes(self) -> int:
        """Of the records' blocks, as they are stored: what `records` goes through."""
        return sum(one.stored for one in self.blocks if one.kind is Kind.RECORDS)

    @property
    def replayable(self) -> bool:
        """Is the checkpoint whole? Only its last pages tell: this reads all of it."""
        return len(self._copy().ids) == self.header.slots

    def columns(self) -> Columns:
        """The world as it was when the file began; Refused when the checkpoint is not whole."""
        copy = self._copy()
        if len(copy.ids) != self.header.slots:
            raise Refused(
                Code.BAD_MESSAGE,
                f"{self.name} was cut off before its checkpoint was written ({len(copy.ids):,} of {self.header.slots:,} "
                "slots): nothing can be replayed from it; take the file before it",
            )
        return columns_of(copy)

    def _copy(self) -> Copy:
        return copy_of(self.header, (one.read(self._file) for one in self.blocks if one.kind is Kind.WORLD))

    def records(self, read: Callable[[int], object] = lambda count: None) -> Iterator[Record]:
        """What happened, in order; `read` is told the bytes of each block that is done."""
        decoder = Decoder()
        for block in self.blocks:
            if block.kind is Kind.RECORDS:
                yield from _understood(block, lambda payload: list(decoder.records(payload)), self._file)
                read(block.stored)


def _understood(block: Block, meaning: Callable[[bytes], T], file: BinaryIO) -> T:
    payload = block.read(file)
    try:
        return meaning(payload)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise damaged(block.at, f"{type(error).__name__}: {error}"[:200]) from None


@contextmanager
def opened(path: Path) -> Iterator[Journal]:
    """A journal; Refused when it is none, of another format, or damaged."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise Refused(Code.BAD_MESSAGE, f"{path} can't be read: {error.strerror}") from None
    with file:
        yield Journal(file, path.name)
