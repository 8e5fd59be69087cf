"""Runs: one at a time, opened by whoever plans or asks, worked off by every node that has time, ended by the last that leaves.

    opened = await open_run(connection, asked)           the one under way is joined; the same key is the same run
    state = await join(connection, run, worker, lease_s) what a worker has to know before each batch; None: there is none open
    await take(connection, run, wanted)                  clips that may still be claimed for it
    await halt(connection, run, "quota")                 no further batch, of anybody
    await count(connection, run, did)                    what a batch came to
    view = await leave(connection, run, worker)          ended by whoever leaves last

            open_run            join, beat                 halt or nothing left, the last one leaves
    (none) ---------> open ----------------> worked on -----------------------------------------------> done | time_limit | quota | ...
                        |  nobody's lease holds any more: they were killed
                        '------------------------------------------------------------------------------> lost

The run's lease and each worker's are renewed by heartbeats and end by the database's clock. Whoever looks and finds the run's
lease over ends it, so the next may begin; what its workers held is free as their leases on clips end. A worker that froze and
comes back finds its run ended: what it still writes are counts, which are harmless at any time.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from server.batching.tracking.store import PAGE_MOST
from server.edge.postgres import Connection
from server.errors import Code, Refused

Occasion: TypeAlias = Literal["interval", "forced"]
Stopping: TypeAlias = Literal["time_limit", "quota", "provider_auth", "stopped"]
StopReason: TypeAlias = Literal["done", "time_limit", "quota", "provider_auth", "stopped", "lost"]
LIMIT_MOST: Final = 10_000
"""Clips of one run."""
KEY_MOST: Final = 200
FORGET_SLICE: Final = 1_000

_VIEW: Final = """
    id, occasion, node, limit_clips, claimed, processed, successful, failed, calls, seconds, earned_cents, stopping, stop_reason,
    error, started_at, finished_at, clock_timestamp()"""
LOCK: Final = "select pg_advisory_xact_lock(7238114, 11)"
KEYED: Final = f"select {_VIEW} from tracking.tracking_runs where request_key = $1"  # noqa: S608  names are ours
OPENED: Final = f"select {_VIEW} from tracking.tracking_runs where finished_at is null"  # noqa: S608
OPEN: Final = f"""
insert into tracking.tracking_runs (occasion, node, limit_clips, request_key, lease_until)
values ($1, $2, $3, $4, clock_timestamp() + make_interval(secs => $5)) returning {_VIEW}"""  # noqa: S608
SHOW: Final = f"select {_VIEW} from tracking.tracking_runs where id = $1"  # noqa: S608
LIST: Final = f"""
select {_VIEW} from tracking.tracking_runs where $1::bigint is null or id < $1 order by id desc limit $2"""  # noqa: S608
STATE: Final = """
select id, limit_clips - claimed as left_clips, stopping, extract(epoch from clock_timestamp() - started_at)::float8 as elapsed_s,
    started_at, lease_until <= clock_timestamp() as over
from tracking.tracking_runs where finished_at is null"""
JOIN: Final = """
insert into tracking.run_workers as w (run_id, worker, lease_until) values ($1, $2, clock_timestamp() + make_interval(secs => $3))
on conflict (run_id, worker) do update set lease_until = excluded.lease_until"""
BEAT: Final = """
update tracking.tracking_runs set lease_until = clock_timestamp() + make_interval(secs => $2)
where id = $1 and finished_at is null"""
HOLD: Final = "select id from tracking.tracking_runs where id = $1 and finished_at is null for update"
TAKE: Final = """
update tracking.tracking_runs r set claimed = r.claimed + n.count
from (select least($2, limit_clips - claimed) as count from tracking.tracking_runs
    where id = $1 and finished_at is null and stopping is null) n
where r.id = $1 and n.count > 0 returning n.count"""
GIVE_BACK: Final = "update tracking.tracking_runs set claimed = claimed - $2 where id = $1 and finished_at is null"
HALT: Final = """
update tracking.tracking_runs set stopping = coalesce(stopping, $2), error = coalesce(error, left($3, 1000))
where id = $1 and finished_at is null"""
COUNT: Final = """
update tracking.tracking_runs set processed = processed + $2, successful = successful + $3, failed = failed + $4, calls = calls + $5,
    seconds = seconds + $6, earned_cents = earned_cents + $7 where id = $1 and finished_at is null"""
LEAVE: Final = "delete from tracking.run_workers where run_id = $1 and worker = $2"
OTHERS: Final = """
select exists (select from tracking.run_workers where run_id = $1 and lease_until > clock_timestamp())"""
END: Final = f"""
update tracking.tracking_runs
set finished_at = clock_timestamp(), stop_reason = case when $2 = 'lost' then 'lost' else coalesce(stopping, $2) end
where id = $1 and finished_at is null returning {_VIEW}"""  # noqa: S608
CLEAR: Final = "delete from tracking.run_workers where run_id = $1"
FORGET: Final = """
delete from tracking.tracking_runs where id in (
    select id from tracking.tracking_runs
    where finished_at < clock_timestamp() - make_interval(days => $1) order by finished_at limit $2)"""


@dataclass(frozen=True, slots=True)
class RunView:
    """A run as it is `now`, by the database's clock. processed = successful + failed; `claimed`: clips taken for it so far."""

    id: int
    occasion: Occasion
    node: str
    limit: int
    claimed: int
    processed: int
    successful: int
    failed: int
    calls: int
    call_seconds: float
    earned_cents: int
    stopping: Stopping | None
    stop_reason: StopReason | None
    error: str | None
    started_at: dt.datetime
    finished_at: dt.datetime | None
    now: dt.datetime

    @property
    def status(self) -> Literal["running", "done"]:
        """Has it ended?"""
        return "running" if self.finished_at is None else "done"

    @property
    def seconds(self) -> float:
        """From its start to its end, or to now."""
        return max(0.0, ((self.finished_at or self.now) - self.started_at).total_seconds())

    @property
    def average_seconds(self) -> float | None:
        """For each clip."""
        return self.seconds / self.processed if self.processed else None

    @property
    def success_percent(self) -> float | None:
        """Of the clips that were processed."""
        return 100 * self.successful / self.processed if self.processed else None

    @property
    def percent(self) -> float:
        """How far it is with what was claimed so far."""
        if self.finished_at is not None:
            return 100.0
        return min(100.0, 100 * self.processed / self.claimed) if self.claimed else 0.0


@dataclass(frozen=True, slots=True)
class Asked:
    """A run that somebody wants; `lease_s`: so long it waits for somebody to begin with it."""

    occasion: Occasion
    node: str
    limit: int
    lease_s: float
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """The open run as a worker finds it. `elapsed_s`: since its start, by the database's clock; `over`: its lease is."""

    id: int
    left_clips: int
    stopping: Stopping | None
    elapsed_s: float
    started_at: dt.datetime
    over: bool


@dataclass(frozen=True, slots=True)
class Did:
    """What a batch came to."""

    successful: int = 0
    failed: int = 0
    calls: int = 0
    seconds: float = 0.0
    earned_cents: int = 0

    @property
    def processed(self) -> int:
        """Clips that it is through with."""
        return self.successful + self.failed


async def open_run(connection: Connection, asked: Asked) -> tuple[RunView, bool]:
    """The run, and whether it is new."""
    check(asked)
    await connection.execute(LOCK)
    keyed = None if asked.key is None else await connection.fetchrow(KEYED, asked.key)
    if keyed is not None:
        return RunView(*keyed), False
    await end_lost(connection)
    opened = await connection.fetchrow(OPENED)
    if opened is not None:
        return RunView(*opened), False
    row = await connection.fetchrow(OPEN, asked.occasion, asked.node, asked.limit, asked.key, asked.lease_s)
    assert row is not None
    return RunView(*row), True


def check(asked: Asked) -> None:
    """Refuse what cannot be a run."""
    if not 1 <= asked.limit <= LIMIT_MOST:
        message = f"a run takes from 1 to {LIMIT_MOST} clips, not {asked.limit}"
        raise Refused(Code.BAD_MESSAGE, message, field="limit", limit=LIMIT_MOST)
    if asked.key is not None and not (1 <= len(asked.key) <= KEY_MOST and asked.key.isprintable()):
        message = f"a key has 1 to {KEY_MOST} printable characters"
        raise Refused(Code.BAD_MESSAGE, message, field="Idempotency-Key", limit=KEY_MOST)


async def show(connection: Connection, run_id: int) -> RunView:
    """One run."""
    row = await connection.fetchrow(SHOW, run_id)
    if row is None:
        raise Refused(Code.NOT_FOUND, f"there is no run {run_id}", field="run")
    return RunView(*row)


async def listed(connection: Connection, before: int | None = None, limit: int = 50) -> list[RunView]:
    """Runs, newest first; `before` is the id that ended the page before."""
    return [RunView(*row) for row in await connection.fetch(LIST, before, min(limit, PAGE_MOST))]


async def opened(connection: Connection) -> RunView | None:
    """The run that is under way."""
    row = await connection.fetchrow(OPENED)
    return None if row is None else RunView(*row)


# --- workers ---


async def standing(connection: Connection) -> Standing | None:
    """The open run, for somebody who might work on it."""
    row = await connection.fetchrow(STATE)
    return None if row is None else Standing(*row)


async def beat(connection: Connection, run_id: int, worker: str, lease_s: float) -> bool:
    """Join a run, or stay with it, for so long; False when it has ended."""
    if await connection.execute(BEAT, run_id, lease_s) == "UPDATE 0":
        return False
    await connection.execute(JOIN, run_id, worker, lease_s)
    return True


async def take(connection: Connection, run_id: int, wanted: int) -> int:
    """How many clips more may be claimed for it, at most so many; they count as claimed."""
    granted: int | None = await connection.fetchval(TAKE, run_id, wanted)
    return granted or 0


async def give_back(connection: Connection, run_id: int, clips: int) -> None:
    """So many were not there, or go back unseen."""
    if clips:
        await connection.execute(GIVE_BACK, run_id, clips)


async def halt(connection: Connection, run_id: int, why: Stopping, error: str | None = None) -> None:
    """No further clips for it; the first reason is kept."""
    await connection.execute(HALT, run_id, why, error)


async def count(connection: Connection, run_id: int, did: Did) -> None:
    """What a batch came to; nothing when the run has been ended meanwhile."""
    values = (did.processed, did.successful, did.failed, did.calls, did.seconds, did.earned_cents)
    await connection.execute(COUNT, run_id, *values)


async def leave(connection: Connection, run_id: int, worker: str) -> RunView | None:
    """A worker has nothing more to do; the run as it ended, when that was the last one."""
    if await connection.fetchval(HOLD, run_id) is None:
        return None
    await connection.execute(LEAVE, run_id, worker)
    if await connection.fetchval(OTHERS, run_id):
        return None
    return await _end(connection, run_id, "done")


async def end_lost(connection: Connection) -> RunView | None:
    """End the open run if nobody's lease on it holds; as it ended."""
    state = await standing(connection)
    if state is None or not state.over or await connection.fetchval(HOLD, state.id) is None:
        return None
    again = await standing(connection)
    if again is None or not again.over or await connection.fetchval(OTHERS, state.id):
        return None
    return await _end(connection, state.id, "lost")


async def _end(connection: Connection, run_id: int, reason: StopReason) -> RunView | None:
    row = await connection.fetchrow(END, run_id, reason)
    await connection.execute(CLEAR, run_id)
    return None if row is None else RunView(*row)


async def forget(connection: Connection, keep_days: int) -> int:
    """Remove a slice of the runs that ended so long ago; how many it was."""
    status: str = await connection.execute(FORGET, keep_days, FORGET_SLICE)
    return int(status.rpartition(" ")[2])
