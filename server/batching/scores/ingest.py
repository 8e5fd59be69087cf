"""The writer: every change to events goes through it, in arrival order, many producers in one transaction.

An outcome is given after the commit and after memory has followed. A group that the database refuses is retried in halves, so
that one poison row fails alone. When the connection is lost nobody knows what was committed: the callers get `Unavailable`,
the ids become suspects, and the next transaction that works reads them back first, so memory never stays behind the truth.

                 write() --> waiting requests --> turn: lock rows, plan (pure), write, commit --> desk --> outcomes
                 publish() ------------------------> the same lock, the same order

Where several servers share the database (`outbox`), a transaction says last what it did, ids that do not exist yet are reserved
before rows are locked, and `order` is held by whoever brings memory up to date with what others wrote.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import asyncpg
import structlog

from server.batching.loop import Occasion, Turn
from server.batching.scores import cluster_store, store
from server.batching.scores.announced import Told, announcement
from server.batching.scores.desk import Desk
from server.batching.scores.loading import load_pages
from server.batching.scores.plan import (
    Asked,
    Counted,
    Planner,
    Settled,
    Tally,
    contents_needed,
    truth,
    versions_needed,
)
from server.core.event import Event, Outcome, Popularity, Rejected
from server.edge.clock import Clock
from server.edge.postgres import Database
from server.errors import Code, Unavailable

GROUP_ROWS: Final = 1000
"""Rows of one transaction that only count; more wait for the next."""
CONTENT_ROWS: Final = 4
"""As so many of them counts a row with content, which is that much more work."""
PLAN_ROWS: Final = 200
"""Rows that are planned before others are served."""
RECONCILE_MS: Final = 500
"""How long after a lost connection suspects are looked at again."""
REFUSED: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, ValueError)
"""How the database says no to a row; what is the world's fault is Unavailable by then."""

log = structlog.get_logger()


class Outbox(Protocol):
    """Where a transaction says what it did, for the other servers; it is called last in it."""

    async def __call__(self, connection: asyncpg.Connection, told: Told) -> None:
        """Say it if the transaction commits."""


@dataclass(slots=True)
class _Request:
    asked: Sequence[Asked]
    answer: asyncio.Future[list[Outcome]]
    weight: int
    """How many rows that only count would be as much work."""


@dataclass(slots=True)
class Writer:
    """One per node. `wake` makes the loop that calls `turn` take one."""

    db: Database
    clock: Clock
    desk: Desk
    queue_rows: int
    growth: float = 0.0
    """See Planner."""
    wake: Callable[[int], None] = lambda after_ms: None
    outbox: Outbox | None = None
    """None: nobody else writes to this database."""
    order: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held from before a transaction until memory has followed it."""
    _waiting: deque[_Request] = field(default_factory=deque)
    _rows: int = 0
    _room: asyncio.Event = field(default_factory=asyncio.Event)
    _suspects: set[str] = field(default_factory=set)

    async def write(self, asked: Sequence[Asked]) -> list[Outcome]:
        """One outcome per operation, in order, after the commit. Waits for room; Unavailable when nothing was written."""
        return await (await self.submit(asked)) if asked else []

    async def submit(self, asked: Sequence[Asked]) -> asyncio.Future[list[Outcome]]:
        """The same in two steps: waits for room only, then hands back the future of the outcomes."""
        while self._rows >= self.queue_rows:
            self._room.clear()
            await self._room.wait()
        contents = sum([type(op) is not Popularity for op, _ in asked])
        answer: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()
        request = _Request(asked, answer, len(asked) + contents * (CONTENT_ROWS - 1))
        self._waiting.append(request)
        self._rows += len(asked)
        self.wake(0)
        return answer

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
        refused = sum([type(outcome) is Rejected for outcome in outcomes])
        return Turn(len(asked), len(asked) - refused, refused, 0, more=bool(self._waiting))

    async def publish(self, ids: Sequence[str], *, urgent: bool = False) -> int:
        """Publish the stored counters of these events; returns how many were new. `urgent`: not for a flush, viewers hear of it
        at once."""
        async with self.order:
            suspects = frozenset(self._suspects)
            self._suspects.update(ids)
            async with self.db.transaction() as connection:
                published = await store.publish(connection, ids)
                rows = await store.read_rows(connection, suspects) if suspects else {}
                if self.outbox is not None:
                    counted = tuple((one.id, one.before, one.version) for one in published)
                    await self.outbox(connection, Told(tuple(suspects), counted, by_flush=not urgent))
            self._suspects.clear()
            changes = {event_id: Settled(event_id, None, pending=False) for event_id in ids}
            changes |= {one.id: _published(one) for one in published}
            # Who publishes an event tells of it, whenever it was that the commit went through.
            changes |= {i: truth(i, row)._replace(immediate=i not in changes) for i, row in rows.items()}
            self.desk.settle(list(changes.values()), self.clock.now_ms())
            return len(published)

    async def load(self) -> int:
        """Read every event and what is pending; for the start. Returns the number of events."""
        now_ms = self.clock.now_ms()
        connection = await self.db.dedicated()  # the pool's time limit is not for a million rows
        try:
            with self.db.translated(), self.desk.engine.drawn():  # one merge behind the last page, not one a page
                count = await load_pages(connection, lambda page: self.desk.load(page, now_ms))
                await self.desk.engine.ask(lambda lookout: lookout.columns.merge())
        finally:
            await connection.close()
        return count

    @property
    def idle(self) -> bool:
        """Is nothing waiting or being written?"""
        return not self._waiting and not self.order.locked()

    @property
    def rows(self) -> int:
        """How many rows wait for a turn."""
        return self._rows

    @property
    def doubtful(self) -> int:
        """How many events are in a transaction under way, or in one of which nobody knows whether it was committed."""
        return len(self._suspects)

    def _next_group(self) -> list[_Request]:
        group: list[_Request] = []
        room = GROUP_ROWS
        while self._waiting and (not group or self._waiting[0].weight <= room):
            request = self._waiting.popleft()
            self._rows -= len(request.asked)
            room -= request.weight
            group.append(request)
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
        async with self.order:
            suspects = frozenset(self._suspects)
            self._suspects.update(one.op.id for one in asked)
            try:
                async with self.db.transaction() as connection:
                    now_ms = self.clock.now_ms()
                    tallies, events = await self._lock(connection, asked, suspects)
                    before = dict(tallies) if self.outbox is not None else {}
                    planner = await self._plan(connection, asked, tallies, events, now_ms)
                    await store.write_group(connection, planner.group, now_ms)
                    changes = planner.settled(suspects)
                    if self.outbox is not None:
                        await self.outbox(connection, announcement(before, changes))
            except REFUSED:
                # Rolled back for certain. An id that no row can have must not come along in the next transaction too.
                self._suspects = set(suspects)
                raise
            self._suspects.clear()
            if self.desk.recorder is not None:
                self.desk.recorder.counted(planner.group.counters, planner.group.urgent, now_ms)
            self.desk.settle(changes, now_ms)
            return planner.group.outcomes

    async def _lock(
        self, connection: asyncpg.Connection, asked: Sequence[Asked], suspects: frozenset[str]
    ) -> tuple[dict[str, Tally], dict[str, Event]]:
        """What there is of the events that are named, and nobody else's to change until the transaction ends."""
        contents, named = contents_needed(asked), suspects.union(one.op.id for one in asked)
        if self.outbox is None:
            return await store.lock(connection, named, suspects | contents)
        reserved = await cluster_store.reserve(connection, contents)
        tallies, events = await store.lock(connection, named, suspects | contents)
        removed = contents - tallies.keys() - reserved
        if removed:
            # They were there a moment ago. Locked out of order, so that two such groups may wait for each other: PostgreSQL
            # then ends one, which is tried again in halves.
            await cluster_store.reserve(connection, removed)
            more, whole = await store.lock(connection, removed, removed)
            tallies, events = tallies | more, events | whole
        return tallies, events

    async def _plan(
        self,
        connection: asyncpg.Connection,
        asked: Sequence[Asked],
        tallies: dict[str, Tally],
        events: dict[str, Event],
        now_ms: int,
    ) -> Planner:
        batching = self.desk.tunables.enabled
        known = await store.known_updates(connection, _update_keys(asked))
        needed = versions_needed(asked, publish_counters=not batching)
        versions = iter(await store.draw_versions(connection, needed))
        planner = Planner(tallies, events, known, versions, now_ms, not batching, self.growth)
        for start in range(0, len(asked), PLAN_ROWS):
            planner.plan(asked[start : start + PLAN_ROWS])
            await self.clock.sleep(0)
        return planner

    def _answer(self, group: list[_Request], outcomes: list[Outcome]) -> None:
        start = 0
        for request in group:
            end = start + len(request.asked)
            if not request.answer.done():
                request.answer.set_result(outcomes[start:end])
            start = end


def _published(one: store.Published) -> Settled:
    """A flush tells what it publishes, and so does the urgent turn: not the immediate one."""
    return Settled(one.id, Counted(one.counts, one.version), pending=False, immediate=False)


def _update_keys(asked: Sequence[Asked]) -> list[tuple[str, str]]:
    return [(who.user or "", op.update_id) for op, who in asked if type(op) is Popularity and op.update_id is not None]


def _poison(one: Asked, error: Exception) -> Outcome:
    log.info("row refused by the database", id=one.op.id, error=f"{type(error).__name__}: {error}"[:200])
    return Rejected(one.op.id, Code.BAD_MESSAGE, f"the database refused this row: {error}"[:300])


def _fail(request: _Request, error: Exception) -> None:
    if not request.answer.done():
        request.answer.set_exception(error)
