"""The folder of journals: names in the order of time, the bound of all files together, and the one that is being written.

Files are for their owner alone (0600, in a folder 0700): they hold events, also private ones, and ids of users. `room` removes
the oldest until there is place for more; the one that is written is never removed, so what alone exceeds the bound is `Full`.
Each block is one write; nothing waits for the disk to have it but the end of a file.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from server.batching.scores.journal.blocks import FIRST_LINE, Kind, packed
from server.protocol.values import to_iso

SUFFIX: Final = ".journal"
FILES_MOST: Final = 10_000
"""Files in the folder; the oldest go."""
_NAME: Final = re.compile(r"\d{8}T\d{9}Z(-\d+)?\.journal")


class Full(Exception):
    """The bound of all files leaves no room; the text says so with numbers."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A file of the folder."""

    path: Path
    size: int


class Folder:
    """Where the journals of one server are."""

    def __init__(self, path: Path, keep_bytes: int) -> None:
        self.path = path
        self.keep_bytes = keep_bytes

    def files(self) -> list[Kept]:
        """Ours, oldest first; what else lies there is left alone."""
        try:
            found = [one for one in os.scandir(self.path) if _NAME.fullmatch(one.name) and one.is_file()]
        except FileNotFoundError:
            return []
        return [Kept(Path(one.path), one.stat().st_size) for one in sorted(found, key=lambda one: one.name)]

    def create(self, now_ms: int) -> Path:
        """An empty file of this moment's name."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        stem = "".join(c for c in to_iso(now_ms) if c not in "-:.")
        for number in range(FILES_MOST):
            path = self.path / f"{stem}{f'-{number}' if number else ''}{SUFFIX}"
            try:
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            except FileExistsError:
                continue
            return path
        raise Full(f"there are {FILES_MOST} journals of one millisecond in {self.path}")

    def room(self, more: int, writing: Path) -> int:
        """Make room for so many bytes in the file that is written; how many old files had to go."""
        files = self.files()
        total = sum(one.size for one in files)
        removed = 0
        for one in files:
            if total + more <= self.keep_bytes and len(files) - removed <= FILES_MOST:
                break
            if one.path != writing:
                one.path.unlink(missing_ok=True)
                total -= one.size
                removed += 1
        if total + more > self.keep_bytes:
            raise Full(
                f"{writing.name} would have {total + more:,} bytes, more than all journals together may "
                f"({self.keep_bytes:,}); raise JOURNAL_KEEP_MB, or lower JOURNAL_FILE_MB"
            )
        return removed


class Written:
    """The file that is being written."""

    def __init__(self, folder: Folder, now_ms: int) -> None:
        self._folder = folder
        self.path = folder.create(now_ms)
        self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        self.size = 0
        self.recorded = 0
        """Bytes of it that are blocks of records: without the world at its beginning."""
        try:
            self._append(FIRST_LINE)
        except (Full, OSError):
            self.close()
            self.path.unlink()
            raise

    def write(self, kind: Kind, payload: bytes) -> None:
        """One more block."""
        block = packed(kind, payload)
        self._append(block)
        if kind is Kind.RECORDS:
            self.recorded += len(block)

    def _append(self, data: bytes) -> None:
        self._folder.room(len(data), self.path)
        done = 0
        try:
            while done < len(data):
                done += os.write(self._fd, data[done:])
        except OSError:
            os.ftruncate(self._fd, self.size)  # Half a block would be damage, once something stands behind it.
            raise
        self.size += len(data)

    def close(self) -> None:
        """Nothing more will be written; what is there reaches the disk."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
