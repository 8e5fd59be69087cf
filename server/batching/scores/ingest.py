"""The writer: every change to events goes through it, in arrival order, many producers in one transaction.

An outcome is given after the commit and after memory has followed. A group that the database refuses is retried in halves, so
that one poison row fails alone. When the connection is lost nobody knows what was committed: the callers get `Unavailable`,
the ids become suspects, and the next transaction that works reads them back first, so memory never stays behind the truth.

                 write() --> waiting requests --> turn: lock rows, plan (pure), write, commit --> desk --> outcomes
                 publish() ------------------------> the same lock, the same order
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import asyncpg
import structlog

from server.batching.loop import Occasion, Turn
from server.batching.scores import store
from server.batching.scores.desk import Desk
from server.batching.scores.plan import Asked, Group, Planner, Row, versions_needed
from server.core.event import Outcome, Popularity, Rejected
from server.edge.clock import Clock
from server.edge.postgres import Database
from server.errors import Code, Unavailable

GROUP_ROWS: Final = 500
"""Rows of one transaction; more wait for the next. Planning so many keeps the event loop some 15 ms."""
RECONCILE_MS: Final = 500
"""How long after a lost connection suspects are looked at again."""
REFUSED: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, ValueError)
"""How the database says no to a row; what is the world's fault is Unavailable by then."""

log = structlog.get_logger()


@dataclass(slots=True)
class _Request:
    asked: Sequence[Asked]
    answer: asyncio.Future[list[Outcome]]


@dataclass(slots=True)
class Writer:
    """One per node. `wake` makes the loop that calls `turn` take one; `noticed` is called when memory has changed."""

    db: Database
    clock: Clock
    desk: Desk
    queue_rows: int
    wake: Callable[[int], None] = lambda after_ms: None
    noticed: Callable[[], None] = lambda: None
    _waiting: deque[_Request] = field(default_factory=deque)
    _rows: int = 0
    _room: asyncio.Event = field(default_factory=asyncio.Event)
    _order: asyncio.Lock = field(default_factory=asyncio.Lock)
    _suspects: set[str] = field(default_factory=set)

    async def write(self, asked: Sequence[Asked]) -> list[Outcome]:
        """One outcome per operation, in order, after the commit. Waits for room; Unavailable when nothing was written."""
        return await (await self.submit(asked)) if asked else []

    async def submit(self, asked: Sequence[Asked]) -> asyncio.Future[list[Outcome]]:
        """The same in two steps: waits for room only, then hands back the future of the outcomes."""
        while self._rows >= self.queue_rows:
            self._room.clear()
            await self._room.wait()
        request = _Request(asked, asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        self._rows += len(asked)
        self.wake(0)
        return request.answer

    async def turn(self, occasion: Occasion) -> Turn:
        """Commit one group of what waits."""
        group = self._next_group()
        asked = [one for request in group for one in request.asked]
        try:
            outcomes = await self._commit(asked)
        except Unavailable as error:
            for request in group:
                _fail(request, error)
            self.wake(RECONCILE_MS)
            return Turn(len(asked), 0, len(asked), 0, more=bool(self._waiting))
        except BaseException:
            for request in group:
                _fail(request, Unavailable("the writer failed on a bug of ours; its log tells", 5.0))
            raise
        self._answer(group, outcomes)
        refused = sum(isinstance(o, Rejected) for o in outcomes)
        return Turn(len(asked), len(asked) - refused, refused, 0, more=bool(self._waiting))

    async def publish(self, ids: Sequence[str]) -> int:
        """Publish the stored counters of these events; returns how many were new."""
        async with self._order:
            suspects = frozenset(self._suspects)
            self._suspects.update(ids)
            async with self.db.transaction() as connection:
                published = await store.publish(connection, ids)
                rows = await store.read_rows(connection, suspects) if suspects else {}
            now_ms = self.clock.now_ms()
            self._suspects.clear()
            for event_id, row in rows.items():
                self.desk.settle(event_id, row, now_ms)
            for one in published:
                self._publish(one, now_ms)
            for event_id in ids:
                self.desk.pending.pop(event_id, None)
                self.desk.urgent.discard(event_id)
            return len(published)

    async def load(self) -> int:
        """Read every event and what is pending; for the start."""
        now_ms, count = self.clock.now_ms(), 0
        async with self.db.connection() as connection:
            async for row in store.all_rows(connection):
                self.desk.load(row, now_ms)
                count += 1
        return count

    @property
    def idle(self) -> bool:
        """Is nothing waiting or being written?"""
        return not self._waiting and not self._order.locked()

    def _next_group(self) -> list[_Request]:
        group: list[_Request] = []
        rows = 0
        while self._waiting and (not group or rows + len(self._waiting[0].asked) <= GROUP_ROWS):
            request = self._waiting.popleft()
            rows += len(request.asked)
            group.append(request)
        self._rows -= rows
        self._room.set()
        return group

    async def _commit(self, asked: Sequence[Asked]) -> list[Outcome]:
        """Outcomes of a group; halves of it when the database refuses the whole."""
        if not asked and not self._suspects:
            return []
        try:
            return await self._transact(asked)
        except Unavailable:
            raise
        except REFUSED as error:
            if len(asked) <= 1:
                return [_poison(one, error) for one in asked]
            middle = len(asked) // 2
            return await self._commit(asked[:middle]) + await self._commit(asked[middle:])

    async def _transact(self, asked: Sequence[Asked]) -> list[Outcome]:
        async with self._order:
            suspects = frozenset(self._suspects)
            ids = {one.op.id for one in asked}
            self._suspects |= ids
            try:
                async with self.db.transaction() as connection:
                    now_ms = self.clock.now_ms()
                    group, rows = await self._plan(connection, asked, suspects, now_ms)
                    await store.write_group(connection, group, now_ms)
            except REFUSED:
                # Rolled back for certain. An id that no row can have must not come along in the next transaction too.
                self._suspects = set(suspects)
                raise
            self._suspects.clear()
            self._settle(rows, group, now_ms)
            return group.outcomes

    async def _plan(
        self, connection: asyncpg.Connection, asked: Sequence[Asked], suspects: Iterable[str], now_ms: int
    ) -> tuple[Group, dict[str, Row | None]]:
        batching = self.desk.tunables.enabled
        rows = await store.lock_rows(connection, {*suspects, *(one.op.id for one in asked)})
        known = await store.known_updates(connection, _update_keys(asked))
        needed = versions_needed(asked, publish_counters=not batching)
        versions = iter(await store.draw_versions(connection, needed))
        planner = Planner(rows, known, versions, now_ms, publish_counters=not batching)
        return planner.plan(asked), rows

    def _settle(self, rows: dict[str, Row | None], group: Group, now_ms: int) -> None:
        for event_id, row in rows.items():
            self.desk.settle(event_id, row, now_ms)
        self.desk.urgent.update(event_id for event_id in group.urgent if event_id in self.desk.pending)
        self.noticed()

    def _publish(self, one: store.Published, now_ms: int) -> None:
        entry = self.desk.columns.get(one.id)
        if entry is not None and entry.event.version < one.version:
            self.desk.columns.put(replace(entry.event, counts=one.counts, version=one.version), now_ms)

    def _answer(self, group: list[_Request], outcomes: list[Outcome]) -> None:
        start = 0
        for request in group:
            end = start + len(request.asked)
            if not request.answer.done():
                request.answer.set_result(outcomes[start:end])
            start = end


def _update_keys(asked: Sequence[Asked]) -> list[tuple[str, str]]:
    return [
        (one.who.user or "", one.op.update_id)
        for one in asked
        if isinstance(one.op, Popularity) and one.op.update_id is not None
    ]


def _poison(one: Asked, error: Exception) -> Outcome:
    log.info("row refused by the database", id=one.op.id, error=f"{type(error).__name__}: {error}"[:200])
    return Rejected(one.op.id, Code.BAD_MESSAGE, f"the database refused this row: {error}"[:300])


def _fail(request: _Request, error: Exception) -> None:
    if not request.answer.done():
        request.answer.set_exception(error)
