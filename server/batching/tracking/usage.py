"""What each actor has done and cost: by UTC month for people, of late for choosing between actors.

    await note(connection, answer, month)                  in the transaction that ends a call
    standings = await standings_of(connection)             by platform and actor, as actors.in_order wants them
    uses = await uses(connection, month, holding)          calls, posts, success, cost, seconds of a month

A post that its platform does not have any more counts neither for nor against the actor that says so.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from server.batching.tracking.actors import HALF_S, Standing
from server.batching.tracking.posts import Platform
from server.batching.tracking.provider import Answer
from server.batching.tracking.trying import Failure
from server.edge.postgres import Connection

NOTE: Final = """
insert into tracking.actor_usage as u (platform, actor, month, calls, posts, succeeded, failed, cost_micros, seconds)
values ($1, $2, date_trunc('month', clock_timestamp() at time zone 'UTC')::date, 1, $3, $4, $5, $6, $7)
on conflict (platform, actor, month) do update set calls = u.calls + 1, posts = u.posts + excluded.posts,
    succeeded = u.succeeded + excluded.succeeded, failed = u.failed + excluded.failed,
    cost_micros = u.cost_micros + excluded.cost_micros, seconds = u.seconds + excluded.seconds"""
STAND: Final = """
insert into tracking.actor_standing as s (platform, actor, succeeded, failed) values ($1, $2, $3, $4)
on conflict (platform, actor) do update set
    succeeded = s.succeeded * power(0.5, extract(epoch from clock_timestamp() - s.at) / $5) + excluded.succeeded,
    failed = s.failed * power(0.5, extract(epoch from clock_timestamp() - s.at) / $5) + excluded.failed,
    at = clock_timestamp()"""
STANDINGS: Final = """
select platform::text, actor, succeeded * share as succeeded, failed * share as failed from tracking.actor_standing
cross join lateral (select power(0.5, extract(epoch from clock_timestamp() - at) / $1)::float8 as share) s"""
USES: Final = """
select platform::text, actor, calls, posts, succeeded, failed, cost_micros, seconds from tracking.actor_usage
where month = $1 order by platform, actor"""


@dataclass(frozen=True, slots=True)
class ActorUse:
    """An actor in a month. `holds`: its success rate of late is good enough to be asked before dearer ones."""

    platform: Platform
    actor: str
    calls: int
    posts: int
    succeeded: int
    failed: int
    cost_micros: int
    seconds: float
    holds: bool

    @property
    def success_percent(self) -> float | None:
        """Of posts that could succeed."""
        total = self.succeeded + self.failed
        return 100 * self.succeeded / total if total else None

    @property
    def average_seconds(self) -> float | None:
        """Of a call."""
        return self.seconds / self.calls if self.calls else None

    @property
    def cost_per_success_micros(self) -> int | None:
        """In millionths of a dollar."""
        return round(self.cost_micros / self.succeeded) if self.succeeded else None


def tally(answer: Answer) -> tuple[int, int]:
    """Posts that succeeded, and that failed."""
    failed = [
        one for one in answer.verdicts.values() if isinstance(one, Failure) and one.reason not in ("not_found", "auth")
    ]
    return len(answer.counts), len(failed)


async def note(connection: Connection, answer: Answer) -> None:
    """One call more."""
    call, (succeeded, failed) = answer.call, tally(answer)
    name, posts = call.actor.actor, len(call.tries)
    await connection.execute(NOTE, call.platform, name, posts, succeeded, failed, call.cost_micros, answer.seconds)
    await connection.execute(STAND, call.platform, name, float(succeeded), float(failed), HALF_S)


async def standings_of(connection: Connection) -> dict[tuple[str, str], Standing]:
    """How every actor does, by platform and name."""
    rows = await connection.fetch(STANDINGS, HALF_S)
    return {(row["platform"], row["actor"]): Standing(row["succeeded"], row["failed"]) for row in rows}


async def uses(connection: Connection, month: dt.date, holds: Callable[[str, str], bool]) -> tuple[ActorUse, ...]:
    """Every actor that was asked in a month."""
    rows: list[Mapping[str, object]] = [dict(row) for row in await connection.fetch(USES, month)]
    return tuple(ActorUse(**row, holds=holds(str(row["platform"]), str(row["actor"]))) for row in rows)  # type: ignore[arg-type]  # as selected
