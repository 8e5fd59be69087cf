"""Makes tests/journals/everything.journal anew, for when the format counts up:

python -m tests.batching.scores.journal.incident FILE
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from pathlib import Path

from server.edge.clock import SystemClock
from server.edge.embedded import EmbeddedPostgres
from server.edge.postgres import Database, migrate
from tests.batching.scores.journal.recording import files, recorded, spared, story, verified, write
from tests.batching.scores.world import HOUR, Trial
from tests.conftest import FAST, short_folder


async def jazz(one: Trial) -> None:
    """Filters, a slow reader, claims, reasons, somebody who becomes somebody else, days that pass."""
    ann, bob = one.clients[0], one.clients[1]
    assert ann.viewer is not None and bob.viewer is not None
    await one.become(ann, "bob")
    await one.become(ann, "ann")
    bob.viewer.reasons = True
    now = one.clock.now_ms()
    for n in range(30):
        place = {"latitude": 10 + n / 100, "longitude": 8.0}
        kinds = ["art"] if n % 3 == 0 else []
        title = "Jazz" if n % 2 else "Food"
        await one.upsert(
            {"id": f"x{n}", "title": title, "location": place, "start": now + n * HOUR, "categories": kinds}
        )
    filters = [{"text": "jazz"}, {"categories": {"include": ["art"]}}]
    await one.ask(bob, filters=filters, viewport={"west": 7, "south": 9, "east": 9, "north": 12})
    ann.stalled = True
    for n in range(10):
        await one.count({"eventId": f"x{n}", "delta": {"rsvpCount": n % 4, "saveCount": 1}})
    await one.flush()
    await one.drain(ann)
    await one.feed.resync(bob.viewer, [("x1", 1), ("unknown", 3)], "r9")
    await one.clock.advance(30 * HOUR / 1000)
    await one.flush()
    one.feed.leave(ann.viewer)
    await one.flush()


async def make(dsn: str, folder: Path) -> Path:
    """The only file in the folder."""
    db = await Database.open(dsn, pool_size=2, clock=SystemClock())
    await migrate(db)
    async with recorded(db, folder, journal_file_minutes=10_080) as one:
        for name in "abc":
            await story(one, name, ord(name) % 2)
            await write(one)
        await jazz(one)
        await spared(one)
    await db.close()
    (path,) = files(folder)
    return path


def main(into: Path) -> None:
    folder = short_folder()
    server = EmbeddedPostgres(folder, settings=FAST)
    try:
        with tempfile.TemporaryDirectory() as journals:
            path = asyncio.run(make(server.start_now(), Path(journals)))
            print(verified(path))
            shutil.copy(path, into)
    finally:
        server.stop_now()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
