"""What all turns of the runs stand on: the database in the service's role, the provider, the terms, and who may be woken.

Here too are the two steps that several turns take: a run of the provider's becomes ours (`adopt`), and one of ours has ended
(`ended`). Both change one row, or find that somebody else has done so.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import structlog
from pydantic import SecretStr

from server.batching.loop import Turn
from server.batching.parts import Lead
from server.batching.schedules import intents
from server.batching.schedules.outcomes import ENDED, Ladder
from server.batching.schedules.provider import Provider
from server.batching.schedules.store import BY_KEYS, NOTING
from server.edge import apify
from server.edge.clock import Clock
from server.edge.postgres import Connection, Database

DISPATCH: Final = "schedules-dispatch"
POLL: Final = "schedules-poll"
PROCESS: Final = "schedules-process"
RETRY: Final = "schedules-retry"
CLEANUP: Final = "schedules-cleanup"
MIRROR: Final = "schedules-mirror"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Terms:
    """How runs are worked on; see the settings SCHEDULES_*. `own_clock`: this server starts the runs, not the provider."""

    own_clock: bool = True
    secret: SecretStr | None = None
    runs_most: int = 20
    page_items: int = 500
    dispatch_ms: int = 10_000
    poll_ms: int = 30_000
    process_ms: int = 5_000
    retry_ms: int = 300_000
    ladder: Ladder = field(default_factory=Ladder)
    retries_at_once: int = 5
    keep_resolved_days: int = 7
    keep_failed_days: int = 90
    keep_runs_days: int = 90
    keep_overviews_days: int = 400
    batches_most: int = 10_000


@dataclass(slots=True)
class Tally:
    """What a turn has done so far."""

    done: int = 0
    failed: int = 0
    deferred: int = 0
    more: bool = False
    detail: dict[str, int | float | str] = field(default_factory=dict)

    def add(self, name: str, count: int = 1) -> None:
        self.detail[name] = int(self.detail.get(name, 0)) + count

    def turn(self) -> Turn:
        taken = self.done + self.failed + self.deferred
        return Turn(taken, self.done, self.failed, self.deferred, self.more, self.detail)


class Floor:
    """See the module's docstring."""

    def __init__(self, db: Database, clock: Clock, provider: Provider, lead: Lead, terms: Terms) -> None:
        self.db = db
        self.clock = clock
        self.provider = provider
        self.lead = lead
        self.terms = terms
        self.wakes: dict[str, Callable[[], None]] = {}

    def wake(self, name: str) -> None:
        """One of the loops, soon; nothing where this node does not lead: there the leader's own interval does."""
        if name in self.wakes:
            self.wakes[name]()

    @asynccontextmanager
    async def acting(self) -> AsyncIterator[Connection]:
        """A transaction of the service's."""
        async with self.db.transaction(BY_KEYS) as connection:
            yield connection

    @asynccontextmanager
    async def noting(self) -> AsyncIterator[Connection]:
        """One that may be lost when PostgreSQL crashes right afterwards: see NOTING."""
        async with self.db.transaction(NOTING) as connection:
            yield connection

    async def adopt(self, intent: int, run: apify.Run) -> bool:
        """The provider has this run for that intent; False when somebody has said so before."""
        return intent in await self.adopt_all([(intent, run)])

    async def adopt_all(self, started: Sequence[tuple[int, apify.Run]]) -> set[int]:
        """The provider has these runs for those intents; of which of them nobody had said so before."""
        async with self.noting() as connection:
            return await intents.runs(connection, started)

    async def ended(self, connection: Connection, runs: Sequence[apify.Run]) -> set[str]:
        """The provider says that they have ended; of which of them that is new."""
        new = await intents.ended(connection, [(run, ENDED[run.status]) for run in runs])
        for run in {run.id: run for run in runs if run.id in new}.values():
            log.info("run ended", run=run.id, state=ENDED[run.status])
        if new:
            self.wake(PROCESS)
            self.wake(DISPATCH)
        return new
