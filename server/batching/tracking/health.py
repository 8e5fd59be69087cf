"""How tracking is doing: one word for the last 24 hours, and the numbers that people ask for.

    health = await read(connection, interval_s)        HEALTHY, DEGRADED, UNHEALTHY, NO_DATA or STALE

The word follows from all clips of these hours together (`grade`, pure): a run of one clip weighs as much as one clip. Who runs,
and processes nothing because nothing is due, says nothing either.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from server.batching.tracking.quota import Usage
from server.batching.tracking.runs import RunView
from server.batching.tracking.sums import Sums
from server.batching.tracking.usage import ActorUse
from server.edge.postgres import Connection

Status: TypeAlias = Literal["HEALTHY", "DEGRADED", "UNHEALTHY", "NO_DATA", "STALE"]
HOURS: Final = 24
HEALTHY_ABOVE: Final = 90
DEGRADED_ABOVE: Final = 70
STALE_INTERVALS: Final = 2

READ: Final = f"""
select count(*) as runs, coalesce(sum(processed), 0)::bigint as processed, coalesce(sum(successful), 0)::bigint as successful,
    (select started_at from tracking.tracking_runs order by id desc limit 1) as last_run_at,
    extract(epoch from clock_timestamp() - (select started_at from tracking.tracking_runs order by id desc limit 1))::float8 as age_s
from tracking.tracking_runs where finished_at > clock_timestamp() - interval '{HOURS} hours'"""  # noqa: S608  a number of ours
QUEUES: Final = """
select count(*) as failed_open, count(*) filter (where retryable) as failed_retryable from tracking.failed_scrapes
where resolved_at is null"""


@dataclass(frozen=True, slots=True)
class Day:
    """The runs that ended within the last 24 hours, together, and when the last of all began."""

    runs: int
    processed: int
    successful: int
    last_run_at: dt.datetime | None
    age_s: float | None

    @property
    def success_percent(self) -> float | None:
        """Of all clips that were processed."""
        return 100 * self.successful / self.processed if self.processed else None


@dataclass(frozen=True, slots=True)
class Health:
    """The word and what it follows from. `configured`: is there a token; `running`: the run under way."""

    status: Status
    success_percent: float | None
    runs: int
    processed: int
    successful: int
    failed: int
    last_run_at: dt.datetime | None
    interval_ms: int
    stale_after_s: float
    configured: bool
    running: RunView | None
    quota: Usage


@dataclass(frozen=True, slots=True)
class Stats:
    """This UTC month's calls by actor, what waits, what cannot be read, and the money."""

    usage: Usage
    actors: tuple[ActorUse, ...]
    failed_open: int
    failed_retryable: int
    due: int
    leased: int
    live: int
    unavailable: int
    unsupported: int
    sums: Sums

    @property
    def campaigns_active(self) -> int:
        """Campaigns that still pay."""
        return self.sums.campaigns_active

    @property
    def campaigns_completed(self) -> int:
        """Campaigns that are over."""
        return self.sums.campaigns_completed

    @property
    def completion_percent(self) -> float | None:
        """Of all campaigns, those that are over."""
        total = self.sums.campaigns_active + self.sums.campaigns_paused + self.sums.campaigns_completed
        return 100 * self.sums.campaigns_completed / total if total else None


def grade(successful: int, processed: int, age_s: float | None, interval_s: float) -> Status:
    """The word. STALE comes before what old runs say; without any run there is nothing to say."""
    if age_s is None:
        return "NO_DATA"
    if age_s > STALE_INTERVALS * interval_s:
        return "STALE"
    if not processed:
        return "NO_DATA"
    if successful * 100 > HEALTHY_ABOVE * processed:
        return "HEALTHY"
    return "DEGRADED" if successful * 100 > DEGRADED_ABOVE * processed else "UNHEALTHY"


async def day(connection: Connection) -> Day:
    """What the database says of the last 24 hours."""
    row = await connection.fetchrow(READ)
    assert row is not None
    return Day(**dict(row))


async def queues(connection: Connection) -> tuple[int, int]:
    """Failed scrapes that are open, and those among them that are tried again."""
    row = await connection.fetchrow(QUEUES)
    assert row is not None
    return row["failed_open"], row["failed_retryable"]
