"""Progress of runs, told to those who follow the topic `tiers`.

A process that works on a run says on the bus that it has moved. The relay notes that while somebody here follows, and reads
and tells each run at most every TOLD_EVERY_S, so that the last state always comes. What a follower had no room for is told
again; after messages were lost on the bus, all runs under way are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from server.batching.loop import Occasion, Turn
from server.batching.tiers import runs
from server.batching.tiers.runs import RunView
from server.batching.tiers.store import TOPIC, serving
from server.edge.bus import Envelope, Lost
from server.edge.clock import Clock
from server.edge.postgres import Database
from server.errors import Refused

TOLD_EVERY_S: Final = 0.5
NOTED_MOST: Final = 100
"""Runs that wait to be told; at the bound the others are told when they move again."""

Tell = Callable[[str, dict[str, object]], bool]


class Relay:
    """One node's end: `heard` and `lost` are the bus's handlers, `turn` the loop's."""

    def __init__(self, db: Database, clock: Clock, topics: Callable[[], Iterable[str]], tell: Tell) -> None:
        self.woken: Callable[[int], None] = _nothing
        self._db = db
        self._clock = clock
        self._topics = topics
        self._tell = tell
        self._noted: dict[int, None] = {}
        self._told_at = -TOLD_EVERY_S

    async def heard(self, messages: list[Envelope]) -> None:
        """Note the runs that have moved."""
        if TOPIC not in set(self._topics()):
            return
        for message in messages:
            moved = message.payload.get("runs")
            self._note(moved if isinstance(moved, list) else [])

    async def lost(self, lost: Lost) -> None:
        """Nobody knows what moved: the newest run does for all."""
        async with serving(self._db) as connection:
            self._note([run.id for run in await runs.listed(connection, limit=1)])

    def _note(self, moved: Iterable[object]) -> None:
        for run in moved:
            if isinstance(run, int) and len(self._noted) < NOTED_MOST:
                self._noted[run] = None
        if self._noted:
            self.woken(self._wait_ms())

    def _wait_ms(self) -> int:
        return max(0, round((self._told_at + TOLD_EVERY_S - self._clock.monotonic()) * 1000))

    async def turn(self, occasion: Occasion) -> Turn:
        """Tell what was noted."""
        if self._wait_ms() > 0:
            self.woken(self._wait_ms())
            return Turn()
        self._told_at = self._clock.monotonic()
        noted, self._noted = self._noted, {}
        try:
            again = [run for run in noted if not await self._told(run)]
        except BaseException:
            self._noted |= noted
            raise
        self._note(again)
        return Turn(len(noted), len(noted) - len(again), deferred=len(again))

    async def _told(self, run: int) -> bool:
        try:
            async with serving(self._db) as connection:
                view = await runs.show(connection, run)
        except Refused:  # It is old, and gone.
            return True
        return self._tell(TOPIC, said_of(view))


def said_of(run: RunView) -> dict[str, object]:
    """The message `progress` of a run."""
    rate = run.people_per_s or 0.0
    left = max(0, run.total - run.handled)
    running = run.status == "running"
    return {
        "type": "progress",
        "topic": TOPIC,
        "run": run.id,
        "kind": run.kind,
        "tier": run.tier,
        "month": run.month,
        "person": run.person,
        "status": run.status,
        "total": run.total,
        "taken": run.handled,
        "done": run.done,
        "unchanged": run.unchanged,
        "failed": run.failed,
        "skipped": run.skipped,
        "slots": run.slots,
        "percent": percent(run),
        "rate": round(rate, 1),
        "etaMs": round(left / rate * 1000) if running and rate else None,
    }


def percent(run: RunView) -> float:
    """How far it is; a run without anybody is done when it has ended."""
    if not run.total:
        return 100.0 if run.status == "done" else 0.0
    return round(min(100.0, 100 * run.handled / run.total), 1)


def _nothing(after_ms: int) -> None:
    """Nobody to wake yet."""
