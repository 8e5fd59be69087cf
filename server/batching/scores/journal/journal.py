"""The loop `journal`: what the recorder noted is written, files begin and end, and nobody ever waits for it.

    resting --time has come--> begins: the world is copied in the engine's thread, a file begins there
       ^                          |
       |                       records: each turn writes what waits, and a page of the checkpoint while there is one left
       |                          |  a file is large or old enough: the next one begins, with a checkpoint of its own
       +--- the queue ran over, the disk is full or broken, the bound of all files is too small: one log line

All writing is done in a thread, one turn at a time. What goes wrong ends the recording, never anything else: the hooks fall
away, the server goes on, statistics and the alert `journal stopped` say why, and after REST_MS a fresh file begins.
"""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import orjson
import structlog

from server import __version__
from server.batching.loop import Occasion, Turn
from server.batching.scores import kernel
from server.batching.scores.desk import Desk
from server.batching.scores.journal.blocks import FORMAT, Kind
from server.batching.scores.journal.checkpoint import pages
from server.batching.scores.journal.codec import header_row
from server.batching.scores.journal.encoding import Encoder
from server.batching.scores.journal.files import Folder, Full, Written
from server.batching.scores.journal.recorder import Note, Recorder, Standing, Start
from server.batching.scores.journal.records import Ended, Header, Tuned, Watching
from server.batching.scores.lookout import Lookout
from server.batching.scores.ranking import Rules
from server.edge.clock import Clock
from server.settings import Settings

NAME: Final = "journal"
EVERY_MS: Final = 500
"""How often what waits is written: what kill -9 can take from the end of a file."""
REST_MS: Final = 60_000
"""How long it rests after it had to stop."""
SLICE: Final = 8192
"""Notes written in one turn."""
CLOSE_S: Final = 5.0
"""How long the end of the server waits for the rest to be written."""
MIB: Final = 1 << 20

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Terms:
    """What is settable."""

    folder: Path
    file_bytes: int
    keep_bytes: int
    file_ms: int


def terms_of(settings: Settings) -> Terms | None:
    """The terms, None while no journal is wanted."""
    if not settings.journal:
        return None
    folder = settings.journal_dir or settings.data_dir / "journal"
    minute_ms = 60_000
    return Terms(
        folder,
        settings.journal_file_mb * MIB,
        settings.journal_keep_mb * MIB,
        settings.journal_file_minutes * minute_ms,
    )


@dataclass(frozen=True, slots=True)
class Setting:
    """What the journal asks of the feed it belongs to."""

    desk: Desk
    rules: Rules
    tuned: Callable[[], Tuned]


@dataclass(slots=True)
class Writing:
    """One file under way; only the writing thread looks inside, one turn at a time."""

    file: Written
    encoder: Encoder
    pages: Iterator[bytes] | None
    began_ms: int


class Journal:
    """One per node, when it is wanted."""

    def __init__(self, terms: Terms, setting: Setting, clock: Clock) -> None:
        self._terms, self._setting, self._clock = terms, setting, clock
        self._folder = Folder(terms.folder, terms.keep_bytes)
        self._desk, self._engine = setting.desk, setting.desk.engine
        self._writing: Writing | None = None
        self._beginning = False
        self._again_ms = 0
        self._files = 0
        self._stopped: str | None = None

    async def open(self) -> None:
        """Begin, before anybody is here: then all that is ever sent is recorded."""
        await self.turn(Occasion("wake", 0, self._clock.now_ms()))

    async def turn(self, occasion: Occasion) -> Turn:
        """Write what waits; begin, go on with another file, or stop when need be."""
        if self._desk.recorder is None:
            if occasion.now_ms < self._again_ms:
                return Turn(detail=self._detail())
            self._desk.recorder = Recorder()
            await self._begin(self._desk.recorder, occasion.now_ms)
        elif self._rotates(occasion.now_ms):
            await self._begin(self._desk.recorder, occasion.now_ms)
        written = await self._work(self._desk.recorder)
        return Turn(written, written, more=self._more(), detail=self._detail())

    async def close(self) -> None:
        """The server ends: write what is left, within bounds, and end the file."""
        recorder = self._desk.recorder
        if recorder is None:
            return
        self._engine.witness = None
        recorder.told(Ended(self._clock.now_ms(), "the server stopped"))
        until = self._clock.monotonic() + CLOSE_S
        while self._desk.recorder is not None and self._more() and self._clock.monotonic() < until:
            await self._work(recorder)
        self._desk.recorder = None
        if self._writing is not None:
            await asyncio.to_thread(self._close_file)

    def said(self) -> dict[str, object]:
        """How statistics tell of it."""
        writing = self._writing
        return {
            "recording": self._desk.recorder is not None,
            "file": None if writing is None else writing.file.path.name,
            "bytes": 0 if writing is None else writing.file.size,
            "records": 0 if writing is None else writing.encoder.records,
            "frames": 0 if writing is None else writing.encoder.frames,
            "waiting": 0 if self._desk.recorder is None else len(self._desk.recorder),
            "filesBegun": self._files,
            "stopped": self._stopped,
        }

    def _detail(self) -> dict[str, int | float | str]:
        size = 0 if self._writing is None else self._writing.file.size
        return {"bytes": size, "files": self._files, "stopped": self._stopped or ""}

    def _more(self) -> bool:
        waits = self._desk.recorder is not None and len(self._desk.recorder) > 0
        return waits or (self._writing is not None and self._writing.pages is not None)

    def _rotates(self, now_ms: int) -> bool:
        writing = self._writing
        if writing is None or writing.pages is not None or self._beginning or not writing.file.recorded:
            return False
        return writing.file.recorded >= self._terms.file_bytes or now_ms - writing.began_ms >= self._terms.file_ms

    async def _begin(self, recorder: Recorder, now_ms: int) -> None:
        """A file begins where the engine's thread is now; the old one ends there."""

        def start(lookout: Lookout) -> Start:
            self._engine.witness = recorder
            return recorder.begin(lookout.columns)

        self._beginning = True
        begun = await self._engine.ask(start)
        watching = [(viewer, viewer.question) for viewer in self._desk.audience]
        begun.standing.append(Standing(now_ms, tuple(self._desk.pending), watching, self._setting.tuned()))

    async def _work(self, recorder: Recorder) -> int:
        """Returns how many notes were written."""
        if recorder.overrun:
            await self._stop("more happened than could be written: the queue ran over")
            return 0
        notes = recorder.take(SLICE)
        try:
            await asyncio.to_thread(self._write, notes)
        except (Full, OSError) as error:
            await self._stop(str(error) if isinstance(error, Full) else f"{self._terms.folder}: {error.strerror}")
            return 0
        if self._writing is not None and self._stopped is not None:
            log.info("journal resumed", file=str(self._writing.file.path))
            self._stopped = None
        return len(notes)

    async def _stop(self, why: str) -> None:
        self._engine.witness = None
        self._desk.recorder = None
        self._beginning = False
        self._again_ms = self._clock.now_ms() + REST_MS
        if self._stopped != why:
            log.error("journal stopped", reason=why, again_in_s=REST_MS // 1000)
        self._stopped = why
        await asyncio.to_thread(self._close_file, Ended(self._clock.now_ms(), why))

    # In a thread, one call at a time.

    def _write(self, notes: list[Note]) -> None:
        if notes and isinstance(notes[0], Start):
            self._close_file(Ended(notes[0].standing[0].now_ms, "another file goes on"))
            self._open(notes[0], notes[0].standing[0])
            notes = notes[1:]
        writing = self._writing
        if writing is None:
            return
        for payload in writing.encoder.payloads(notes):
            writing.file.write(Kind.RECORDS, payload)
        if writing.pages is not None:
            page = next(writing.pages, None)
            if page is None:
                writing.pages = None
            else:
                writing.file.write(Kind.WORLD, page)

    def _open(self, start: Start, standing: Standing) -> None:
        encoder = Encoder(start.first_draw)
        self._files += 1
        watching = tuple(Watching(encoder.number(viewer), question) for viewer, question in standing.watching)
        copy = start.copy
        header = Header(
            format=FORMAT,
            program=__version__,
            engine="compiled" if kernel.NUMBA else "numpy",
            versions=versions(),
            began_ms=standing.now_ms,
            number=self._files,
            first_draw=start.first_draw,
            events=len(copy.ids) - len({*copy.gone, *copy.free}),
            slots=len(copy.ids),
            rules=self._setting.rules,
            tuned=standing.tuned,
            pending=tuple(standing.pending),
            watching=watching,
            gone=tuple(sorted(copy.gone)),
            free=tuple(copy.free),
            turning=copy.turning,
        )
        self._writing = Writing(Written(self._folder, standing.now_ms), encoder, pages(copy), standing.now_ms)
        self._beginning = False
        self._writing.file.write(Kind.HEADER, orjson.dumps(header_row(header), option=orjson.OPT_NON_STR_KEYS))
        log.info("journal begun", file=str(self._writing.file.path), events=header.events)

    def _close_file(self, last: Ended | None = None) -> None:
        """Whatever is wrong with the disk: what can't be written any more is not."""
        writing, self._writing = self._writing, None
        if writing is None:
            return
        try:
            if last is not None:
                for payload in writing.encoder.payloads([last]):
                    writing.file.write(Kind.RECORDS, payload)
        except (Full, OSError):
            log.debug("journal ended without its last record", file=str(writing.file.path))
        try:
            writing.file.close()
            if writing.pages is not None:
                writing.file.path.unlink()  # Without the whole checkpoint nothing can be replayed from it.
        except OSError as error:
            log.warning("journal not synced", file=str(writing.file.path), reason=error.strerror)


def versions() -> Mapping[str, str]:
    """Of what computes."""
    found = {"python": platform.python_version(), "numpy": np.__version__}
    if kernel.NUMBA:
        import numba

        found["numba"] = numba.__version__
    return found
