"""The turn: collect, plan, act, settle. Bounded by SLICE; more of it follows at once."""

from collections.abc import Callable

from server.batching.loop import Loop, Occasion, Turn, TurnRecord
from server.edge.clock import Clock
from server.edge.postgres import Database
from tests.fundamentals.toy.plan import plan
from tests.fundamentals.toy.store import claim, settle

SLICE = 10


def loop(db: Database, clock: Clock, record: Callable[[TurnRecord], None]) -> Loop:
    async def turn(occasion: Occasion) -> Turn:
        async with db.transaction() as connection:
            texts = await claim(connection, SLICE)
            planned = plan(texts)
            await settle(connection, planned)
        done, failed = len(planned.counted), len(planned.refused)
        words = sum(planned.counted.values())
        return Turn(len(texts), done, failed, more=len(texts) == SLICE, detail={"words": words})

    return Loop("toy", turn, clock=clock, record=record, interval_ms=60_000)
