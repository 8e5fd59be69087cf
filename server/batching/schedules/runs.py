"""All that happens to runs at the provider: started, watched, attributed, tried again. The verbs, and the loops.

    runs = Runs(db, clock, provider, lead, terms);  runs.add_loops(panel, record)
    await runs.receive(secret, body)                    a webhook: checked, noted, answered (hooks.py)
    await runs.trigger(schedule, key)                   a run of a batch, now
    await runs.revive(business, platform, type)         a business tried at once, with a fresh count

    schedules-dispatch   due batches -> intents -> starts: starting.py                (the leader)
    schedules-poll       runs whose webhook never came, starts of which nobody knows  (the leader)
    schedules-process    webhooks, ended runs -> reviews, retries: processing.py      (the leader)
    schedules-retry      due retries -> intents; retries that were lost               (the leader)
    schedules-mirror     the provider's own schedules (mirror.py)                     (the leader)
    schedules-cleanup    what was settled long ago                                    (the leader)
    schedules-watch      figures (figures.py)                                         (every node)

Only one node's loops work, so that the provider is asked once; but no promise rests on that: every step is claimed by its row.

A crash, wherever: before a start the intent is there and is started; between the start and its answer the row says `starting`, in
time nobody knows, and the provider's list says what happened; between two pages of a dataset the row says at which page; in a page
the transaction has not been.

Trouble at the provider ends a turn and leaves all rows as they are; the next turn comes by the clock.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from server.batching import audit
from server.batching.loop import Loop, Occasion, Turn, TurnRecord
from server.batching.panel import Panel
from server.batching.parts import Lead
from server.batching.schedules import attribution, hooks, intents, retries
from server.batching.schedules.figures import WATCH, WATCH_MS, Watch
from server.batching.schedules.floor import (
    CLEANUP,
    DISPATCH,
    MIRROR,
    POLL,
    PROCESS,
    RETRY,
    Floor,
    Tally,
    Terms,
)
from server.batching.schedules.mirror import Mirror
from server.batching.schedules.plan import PLATFORMS
from server.batching.schedules.processing import Processing
from server.batching.schedules.provider import Provider
from server.batching.schedules.starting import Starting
from server.batching.schedules.store import SERVICE, act_as, settled
from server.core.identity import Identity
from server.edge.clock import Clock
from server.edge.postgres import Connection, Database
from server.errors import Code, Refused

__all__ = (
    "CLEANUP",
    "DISPATCH",
    "MIRROR",
    "POLL",
    "PROCESS",
    "RETRY",
    "WATCH",
    "Received",
    "Revived",
    "Runs",
    "Terms",
    "Triggered",
)

Record: TypeAlias = Callable[[TurnRecord], None]
Turning: TypeAlias = Callable[[Occasion], Awaitable[Turn]]

TIDY_A_TURN: Final = 1_000
TIDY_MS: Final = 3_600_000
MIRROR_MS: Final = 60_000
KEY_MOST: Final = 100


@dataclass(frozen=True, slots=True)
class Received:
    """What became of a webhook: noted, known already, or of no interest."""

    kept: bool
    run_id: str | None = None
    event: str | None = None


@dataclass(frozen=True, slots=True)
class Triggered:
    """The run that was asked for; `new`: it was not there before."""

    run: int
    new: bool
    audit_id: int | None = None


@dataclass(frozen=True, slots=True)
class Revived:
    """How many retries were put in the queue, and the entry in the trail; none of them when each is tried already."""

    count: int
    audit_id: int | None = None


class Runs:
    """See the module's docstring."""

    def __init__(self, db: Database, clock: Clock, provider: Provider, lead: Lead, terms: Terms) -> None:
        self.provider = provider
        self.terms = terms
        self.mirror = Mirror(db, clock, provider, own_clock=terms.own_clock)
        self.floor = Floor(db, clock, provider, lead, terms)
        self.starting = Starting(self.floor, self.mirror)
        self.processing = Processing(self.floor)
        self.watch = Watch(db, clock, lead.leads, batches_most=terms.batches_most, retry_ms=terms.retry_ms)
        self.acting, self.wake = self.floor.acting, self.floor.wake
        self._overviews_to: attribution.Position | None = None

    def add_loops(self, panel: Panel, record: Record) -> None:
        """Put the loops on the panel: what works where this node leads, the watch everywhere."""
        clock, lead = self.floor.clock, self.floor.lead
        turns: dict[str, tuple[Turning, int]] = {
            DISPATCH: (self.starting.dispatch, self.terms.dispatch_ms),
            POLL: (self.starting.poll, self.terms.poll_ms),
            PROCESS: (self.processing.turn, self.terms.process_ms),
            RETRY: (self.retry, self.terms.retry_ms),
            MIRROR: (self.mirror.turn, MIRROR_MS),
            CLEANUP: (self.cleanup, TIDY_MS),
        }
        for name, (turn, every_ms) in turns.items():
            loop = Loop(
                name, turn, clock=clock, record=record, interval_ms=every_ms, may_run=lead.leads, leader=lead.leader
            )
            self.floor.wakes[name] = panel.add(loop, fold=True).wake
        watch = Loop(WATCH, self.watch.turn, clock=clock, record=record, interval_ms=WATCH_MS)
        panel.add(watch, fold=True).wake()

    # Verbs.

    async def receive(self, secret: str | None, body: bytes) -> Received:
        """A webhook, with what its header holds: Refused, or noted for the loop to work on."""
        hooks.verify(self.terms.secret, secret)
        delivery = hooks.parse(body)
        if delivery is None:
            return Received(False)
        async with self.floor.noting() as connection:
            kept = await hooks.keep(connection, delivery)
        self.wake(PROCESS)
        return Received(kept, delivery.run_id, delivery.event)

    async def trigger(self, schedule: int, key: str, who: Identity | None = None) -> Triggered:
        """A run of a batch, now, paused or not; the one that is under way or waits, if there is one. `key`: asked twice is once."""
        if not 0 < len(key) <= KEY_MOST:
            raise Refused(Code.BAD_MESSAGE, f"a key has 1 to {KEY_MOST} characters", field="key", limit=KEY_MOST)
        answer = await settled(self.floor.db, lambda connection: self._trigger(connection, schedule, key, who))
        self.wake(DISPATCH)
        return answer

    async def _trigger(self, connection: Connection, schedule: int, key: str, who: Identity | None) -> Triggered:
        await act_as(connection, SERVICE)
        intent_key = f"triggered:{schedule}:{key}"
        before = await intents.of_key(connection, intent_key)
        if before is not None:
            return Triggered(before[0].id, False)
        businesses = await intents.businesses(connection, schedule)
        if businesses is None:
            raise Refused(Code.NOT_FOUND, f"there is no schedule {schedule}; GET /admin/schedules lists them")
        if not businesses:
            raise Refused(Code.CONFLICT, f"the schedule {schedule} has no businesses: there is nothing to ask for")
        open_ = await intents.open_of(connection, schedule)
        if open_ is not None:
            return Triggered(open_.id, False)
        made = await intents.trigger(connection, schedule, intent_key)
        assert made is not None, "the batch is locked: nobody else can have used the key"
        name = None if who is None else who.user
        entry = await audit.write(connection, name, "schedules.trigger", f"schedule {schedule}", after={"run": made.id})
        return Triggered(made.id, True, entry)

    async def revive(
        self, business: int, platform: str | None = None, type: str | None = None, who: Identity | None = None
    ) -> Revived:
        """Try a business at once with a fresh count, whatever became of it before."""
        name, asked = None if who is None else who.user, {"platform": platform, "type": type}
        async with self.acting() as connection:
            count = await retries.revive(connection, business, platform, type)
            target = f"business {business}"
            entry = await audit.write(connection, name, "schedules.retry", target, after=asked) if count else None
        self.wake(RETRY)
        return Revived(count, entry)

    # Retry and clean up.

    async def retry(self, occasion: Occasion) -> Turn:
        """Intents for due retries, as many as a platform has places."""
        tally = Tally()
        async with self.acting() as connection:
            lost = await retries.orphans(connection, self.terms.ladder)
        tally.failed += lost
        for platform in PLATFORMS:
            async with self.acting() as connection:
                claimed = await retries.claim(connection, platform, self.terms.retries_at_once)
            tally.done += len(claimed)
        if tally.done:
            self.wake(DISPATCH)
        return tally.turn()

    async def cleanup(self, occasion: Occasion) -> Turn:
        """A slice of each table's oldest rows that nobody needs any more."""
        tally, terms = Tally(), self.terms
        slices: tuple[tuple[str, Callable[[Connection], Awaitable[int]]], ...] = (
            ("retries", lambda c: retries.tidy(c, terms.keep_resolved_days, terms.keep_failed_days, TIDY_A_TURN)),
            ("webhooks", lambda c: hooks.tidy(c, terms.keep_runs_days, TIDY_A_TURN)),
            ("runs", lambda c: intents.tidy(c, terms.keep_runs_days, TIDY_A_TURN)),
        )
        for name, remove in slices:
            async with self.acting() as connection:
                removed = await remove(connection)
            tally.add(name, removed)
            tally.done += removed
            tally.more = tally.more or removed == TIDY_A_TURN
        async with self.acting() as connection:
            passed = await attribution.tidy(connection, self._overviews_to, terms.keep_overviews_days, TIDY_A_TURN)
        self._overviews_to = passed.to
        tally.add("overviews", passed.removed)
        tally.done += passed.removed
        tally.more = tally.more or passed.to is not None
        return tally.turn()
