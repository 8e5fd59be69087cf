"""A live feed on a virtual clock that keeps a journal, with its turns taken by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from server.batching.loop import Occasion
from server.batching.scores.journal.reader import opened
from server.batching.scores.journal.replay import Report, replayed
from server.edge.postgres import Database
from tests.batching.scores.world import Trial, trial


@asynccontextmanager
async def recorded(db: Database, folder: Path, **settings: Any) -> AsyncIterator[Trial]:
    """A trial that records from its first moment on; when it ends, the file is whole."""
    async with trial(db, journal=True, journal_dir=folder, **settings) as one:
        await write(one)
        yield one
        await one.feed.close()


async def write(one: Trial) -> None:
    """Take the journal's turn until nothing is left to write."""
    journal = one.feed.journal
    assert journal is not None
    for number in range(1000):
        turn = await journal.turn(Occasion("wake", number, one.clock.now_ms()))
        if not turn.more:
            return
    raise AssertionError("the journal did not come to an end")


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.journal"))


def verified(path: Path) -> Report:
    """Replayed and compared."""
    with opened(path) as journal:
        report = replayed(journal, verify=True)
    assert report.difference is None, report.difference
    return report
