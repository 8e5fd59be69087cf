"""Schedules in one process, but for the provider: the verbs that every control surface calls, and the loops that keep order.

    schedules = Schedules(db, clock, Terms(...))
    schedules.add_loops(panel, record, leads, leader)
    schedules.placing.create(...)    intervals.set_tier(...)    catalog.batches(...)    upkeep.balance(...)
    schedules.checking.validate()    taking.take_in(...)        due(...)

Loops, all of them the leader's: `schedules-expire` moves back the businesses of intervals that have run out, `schedules-balance`
consolidates and rebalances every night (Terms.balance switches it off; `loops run` still takes a turn), `schedules-tidy` forgets what is
old and gives batches the capacity that is set.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from server.batching.loop import Loop, Occasion, Turn, TurnRecord
from server.batching.panel import Panel
from server.batching.schedules import dispatch
from server.batching.schedules.catalog import Catalog
from server.batching.schedules.checking import Checking
from server.batching.schedules.intervals import Intervals
from server.batching.schedules.placing import Placing
from server.batching.schedules.store import Terms
from server.batching.schedules.taking import Taking
from server.batching.schedules.upkeep import Upkeep
from server.edge.clock import Clock
from server.edge.postgres import Database

EXPIRE_MS: Final = 60_000
BALANCE_CRON: Final = "17 3 * * *"
"""At night (UTC). By the clock on the wall: a day counted from the start would never be over on a server that is restarted daily."""
TIDY_MS: Final = 3_600_000

Turning: TypeAlias = Callable[[Occasion], Awaitable[Turn]]


class Schedules:
    """See the module's docstring."""

    def __init__(self, db: Database, clock: Clock, terms: Terms | None = None) -> None:
        self._db = db
        self._clock = clock
        self.terms = terms or Terms()
        self.placing = Placing(db, clock, self.terms)
        self.intervals = Intervals(self.placing)
        self.catalog = Catalog(self.placing)
        self.upkeep = Upkeep(self.placing)
        self.checking = Checking(self.placing)
        self.taking = Taking(self.placing)

    def add_loops(
        self,
        panel: Panel,
        record: Callable[[TurnRecord], None],
        leads: Callable[[], bool],
        leader: Callable[[], str | None],
    ) -> None:
        """Put the loops on the panel."""

        def add(
            name: str, turn: Turning, interval_ms: int | None = None, cron: str | None = None, paused: bool = False
        ) -> Loop:
            loop = Loop(
                name,
                turn,
                clock=self._clock,
                record=record,
                interval_ms=interval_ms,
                cron=cron,
                may_run=leads,
                leader=leader,
                paused=paused,
            )
            return panel.add(loop)

        add("schedules-expire", self.expire_turn, EXPIRE_MS)
        add("schedules-balance", self.balance_turn, cron=BALANCE_CRON, paused=not self.terms.balance)
        add("schedules-tidy", self.tidy_turn, TIDY_MS)

    async def due(self, limit: int, fence: dispatch.Fence) -> dispatch.Due:
        """The intents of what is due now; see dispatch.py."""
        return await dispatch.due(self._db, self.placing.now, limit, fence)

    async def expire_turn(self, occasion: Occasion) -> Turn:
        """Teams whose intervals have run out."""
        teams, more = await self.intervals.expire()
        return Turn(teams, teams, more=more)

    async def balance_turn(self, occasion: Occasion) -> Turn:
        """All lines."""
        done = await self.upkeep.balance(None)
        detail = {"lines": done.lines, "created": done.created, "retired": done.retired}
        return Turn(done.moves, done.moves, more=done.more, detail=detail)

    async def tidy_turn(self, occasion: Occasion) -> Turn:
        """What is old."""
        resized = await self.upkeep.settle_capacities()
        forgotten, more = await self.upkeep.forget(self.placing.now - dt.timedelta(days=self.terms.keep_history_days))
        done = resized + forgotten
        return Turn(done, done, more=more, detail={"resized": resized, "forgotten": forgotten})
