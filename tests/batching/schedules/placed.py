"""What the tests of placing share: a system with small batches over the test's database and a clock that stands still."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any

from server.batching.schedules.placing import Profiled
from server.batching.schedules.plan import Line, Platform
from server.batching.schedules.store import Terms
from server.batching.schedules.verbs import Schedules
from server.core.identity import Identity
from server.edge.clock import VirtualClock
from server.edge.postgres import Connection, Database

ADMIN = Identity("root", frozenset(["admin"]))
SMALL = Terms(capacities={"google": 3, "facebook": 2, "tripadvisor": 2, "booking": 2})
HOUR_S = 3_600.0
START_MS = 1_790_000_100_000
REVIEWS, OVERVIEW = Line("google", "reviews", 24), Line("google", "overview", 48)


def member(team: str) -> Identity:
    """Somebody with a token of that team."""
    return Identity(f"someone of {team}", frozenset(), team=team)


def place(n: int) -> str:
    """A place id."""
    return f"ChIJplace{n:06d}"


async def leading(connection: Connection) -> int:
    """A fence that holds."""
    return 1


@dataclass
class Placed:
    """One node, and questions to its database."""

    db: Database
    terms: Terms = SMALL
    clock: VirtualClock = field(default_factory=lambda: VirtualClock(START_MS))

    def __post_init__(self) -> None:
        self.core = Schedules(self.db, self.clock, self.terms)

    @property
    def now(self) -> dt.datetime:
        return self.core.placing.now

    async def pass_hours(self, hours: float) -> None:
        await self.clock.advance(hours * HOUR_S)

    async def follow(self, numbers: Iterable[int], team: str = "a", platform: Platform = "google") -> list[Profiled]:
        """Follow these places for a team."""
        names = [place(n) if platform == "google" else f"https://{platform}.com/place/{n}" for n in numbers]
        return [await self.core.placing.create(team, platform, name, member(team)) for name in names]

    async def ask(self, sql: str, *values: Any) -> Any:
        async with self.db.connection() as connection:
            return await connection.fetchval(sql, *values)

    async def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        async with self.db.connection() as connection:
            return [tuple(row) for row in await connection.fetch(sql, *values)]

    async def tell(self, sql: str, *values: Any) -> None:
        async with self.db.connection() as connection:
            await connection.execute(sql, *values)

    async def loads(self, line: Line) -> list[int]:
        """The counts of a line's batches by index."""
        rows = await self.rows(
            """select businesses from schedules.schedule where platform = $1 and type = $2 and interval_hours = $3
            order by batch_index""",
            line.platform,
            line.type,
            line.hours,
        )
        return [row[0] for row in rows]

    async def where(self, business_id: int) -> dict[str, int]:
        """The interval that a business is asked for with, by platform/type."""
        rows = await self.rows(
            """select m.platform || '/' || m.type, s.interval_hours from schedules.mapping m
            join schedules.schedule s on s.id = m.schedule_id where m.business_id = $1""",
            business_id,
        )
        return {row[0]: row[1] for row in rows}

    async def sound(self) -> None:
        """Every check holds."""
        report = await self.core.checking.validate()
        assert report.ok, [(check.name, check.examples) for check in report.checks if not check.ok]

    async def days(self, count: int, step_minutes: int = 15) -> AsyncIterator[dt.datetime]:
        """The clock goes on, and stops at each step."""
        for _ in range(count * 24 * 60 // step_minutes):
            await self.pass_hours(step_minutes / 60)
            yield self.now
