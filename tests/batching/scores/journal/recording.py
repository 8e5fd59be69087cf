"""A live feed on a virtual clock that keeps a journal, with its turns taken by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from server.batching.loop import Occasion
from server.batching.scores.budget import Budget
from server.batching.scores.journal.reader import opened
from server.batching.scores.journal.replay import Report, replayed
from server.core.event import Delete
from server.edge.postgres import Database
from tests.batching.scores.world import HOUR, START, Trial, trial

WORLD = {"viewport": {"west": -180, "south": -90, "east": 180, "north": 90}}


def row(event_id: str, **more: Any) -> dict[str, Any]:
    place = {"latitude": float(ord(event_id[-1]) % 60), "longitude": 8.0}
    return {"id": event_id, "title": event_id, "location": place, "start": START + HOUR, **more}


async def story(one: Trial, name: str = "a", client: int = 0) -> None:
    """Something of everything."""
    await one.upsert(row(f"{name}1"))
    await one.upsert(row(f"{name}2", isPrivate=True, creatorId="ann"))
    await one.join(client, {**WORLD, "user": "ann"})
    await one.count({"eventId": f"{name}1", "rsvpCount": 2})
    await one.clock.advance(60)
    await one.flush()
    await one.upsert(row(f"{name}3", recurrence="FREQ=DAILY;COUNT=9", end=START + 2 * HOUR))
    await one.count({"eventId": f"{name}2", "saveCount": 4, "priority": "high"})
    await one.clock.advance(26 * 3600)
    await one.ask(one.clients[client], viewport={"west": 0, "south": -90, "east": 180, "north": 90})
    await one.write(Delete(f"{name}1"))
    one.model.delete(f"{name}1")
    await one.turns.forget(one.occasion())
    await one.flush()


async def spared(one: Trial, client: int = 7) -> None:
    """Somebody with a narrow budget, who is told of clusters: carried over, caught up, resumed, and counted anew."""
    for n in range(12):
        await one.upsert(row(f"s{chr(97 + n)}", description="x" * 400))
    budget = Budget(delta=True, min_interval_ms=5000, max_bytes=1500)
    viewer = (await one.join(client, {**WORLD, "maxEvents": 4, "budget": budget, "clusters": True})).viewer
    assert viewer is not None
    assert viewer.ages, "nothing was carried over"
    for n in range(6):
        await one.count({"eventId": f"s{chr(97 + n)}", "rsvpCount": n})
        await one.flush()
        await one.clock.advance(20)
        await one.catch_up()
        for _ in range(3):  # Batches with nothing in them: clusters were told already.
            await one.clock.advance(6)
            await one.catch_up()
            await one.flush()
        await write(one)
    await one.join(client, {**WORLD, "maxEvents": 12, "budget": budget, "clusters": True})
    for n in range(12):
        await one.clock.advance(20)
        for event_id in ("sa", "sb", "sc"):  # More than fits, whatever waited before.
            await one.upsert(row(event_id, description="y" * (500 + n)))
        await one.count({"eventId": f"s{chr(97 + n)}", "saveCount": 1})
        await (one.flush() if n % 3 == 0 else one.catch_up())
        await write(one)
    one.feed.lose(viewer)
    known = one.feed.come_back(None, viewer.question.user, viewer.session, viewer.seq)
    assert known is not None
    other_end = one.clients[client]
    viewer.seq = other_end.view.seq = 0
    other_end.asking = True
    await one.feed.join(viewer, None, known)
    other_end.asking = False
    await one.flush()


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
