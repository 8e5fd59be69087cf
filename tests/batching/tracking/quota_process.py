"""A process with a time zone of its own that reserves and sends a call at each of these moments, and says in which month it was counted:
`python -m tests.batching.tracking.quota_process DSN MOMENT...`."""

from __future__ import annotations

import asyncio
import datetime as dt
import sys

from server.batching.tracking import quota
from server.batching.tracking.store import serving
from server.edge.clock import SystemClock
from server.edge.postgres import Database


async def main(dsn: str, moments: list[str]) -> None:
    db = await Database.open(dsn, clock=SystemClock())
    for text in moments:
        at, terms = dt.datetime.fromisoformat(text), quota.Terms(quota=1)
        async with serving(db) as connection:
            places = await quota.reserve(connection, ["x"], terms, 1, at)
        async with serving(db) as connection:
            await quota.send(connection, places.granted, terms, at)
            print((await quota.usage(connection, terms, at)).month)
        async with serving(db) as connection:
            assert (await quota.reserve(connection, ["x"], terms, 1, at)).spent
    await db.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
