"""Runs of classification and of planning: opened behind the gates, worked off in batches, shown, stopped.

    classify | generate --open--> running --nobody waits any more--> done
                          ^          | stop, or a newer run of the same
             (resume)     '----------+--> stopped

A run is a row, and whoever has time works on it: the loop of any server, and the command that opened it. Killed anywhere,
it is still `running`, and the next one to work on it goes on where it was. What it plans by (`planned_at`) is in the row.

Opening what runs already joins it. Opening what was left by a process that died begins a new run, which finds done what was
done; `resume` goes on with the old one, and is refused when there is none.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import asyncpg

from server.batching.tiers.gates import Month, closed
from server.batching.tiers.months import date_of, days_of, name_of
from server.batching.tiers.rules import TIERS, Tier
from server.batching.tiers.store import PAGE_MOST, no_person
from server.edge.postgres import Connection
from server.errors import Code, Refused

Scope: TypeAlias = Literal["all", "new", "tier", "person"]
RunStatus: TypeAlias = Literal["running", "done", "stopped"]
ItemStatus: TypeAlias = Literal["done", "failed", "skipped", "replaced"]
ALIVE_S: Final = 60.0
"""A run that nobody has moved for so long was left by a process that died."""

_VIEW: Final = """
    id, kind, scope, tier::text, to_char(month, 'YYYY-MM'), celebrity_id, replace, override, status, total, done, unchanged,
    failed, skipped, slots, started_by, planned_at, started_at, progress_at, finished_at, position"""
OPEN: Final = f"""
insert into tiers.runs (kind, scope, tier, month, celebrity_id, replace, override, planned_at, total, unchanged, started_by)
values ($1, $2, $3::text::tiers.tier, $4, $5, $6, $7, to_timestamp($8::bigint), $9, $10, $11) returning {_VIEW}"""  # noqa: S608  names are ours
SHOW: Final = f"select {_VIEW} from tiers.runs where id = $1"  # noqa: S608  names are ours
LIST: Final = f"""
select {_VIEW} from tiers.runs where ($1::text is null or kind = $1) and ($2::bigint is null or id < $2)
order by id desc limit $3"""  # noqa: S608
OPENED: Final = f"""
select {_VIEW}, clock_timestamp() - progress_at < make_interval(secs => {ALIVE_S}) as alive from tiers.runs
where kind = $1 and scope = $2 and tier is not distinct from $3::text::tiers.tier and month is not distinct from $4
    and celebrity_id is not distinct from $5 and replace = $6 and (status = 'running' or $7 and status = 'stopped')
order by id desc limit 1"""  # noqa: S608
AGAIN: Final = f"""
update tiers.runs set status = 'running', finished_at = null, progress_at = clock_timestamp() where id = $1
returning {_VIEW}"""  # noqa: S608
END: Final = f"""
update tiers.runs set status = $2, finished_at = clock_timestamp(), progress_at = clock_timestamp()
where id = $1 and status = 'running' returning {_VIEW}"""  # noqa: S608
UNDER_WAY: Final = """
select exists (select from tiers.runs where kind = 'generate' and scope = 'tier' and tier = $1::text::tiers.tier and month = $2
    and not replace and status = 'running')"""
RUNNING: Final = "select id from tiers.runs where status = 'running' order by id limit 1"
ITEMS: Final = """
select i.celebrity_id, c.key, c.name, i.status, i.reason, i.physical, i.virtual, i.short::text, i.at
from tiers.run_items i join tiers.celebrities c on c.id = i.celebrity_id
where i.run_id = $1 and ($2::text is null or i.status = $2) and i.celebrity_id > $3 order by i.celebrity_id limit $4"""
REASONS: Final = """
select status, reason, count(*) from tiers.run_items where run_id = $1 and reason is not null
group by 1, 2 order by 3 desc, 2 limit $2"""
MISSING: Final = """
select count(*) filter (where s.tier is null) as missing, count(*) as people
from tiers.celebrities c left join tiers.celebrity_settings s on s.celebrity_id = c.id where c.excluded is null"""
VERDICTS: Final = """
select distinct on (tier) tier::text, case when stale then 'stale' when passed then 'passed' else 'failed' end
from tiers.verifications where tier is not null and month = $1 order by tier, id desc"""
# Somebody who failed in the newest run that was ended does not wait: planning again would fail again. A tier with nobody in it is
# planned without a run.
PLANNED: Final = """
select t.tier from unnest($2::text[]) t (tier) cross join lateral (
    select max(id) as run from tiers.runs where kind = 'generate' and tier = t.tier::tiers.tier and month = $1 and status = 'done'
    having count(*) > 0
) newest where not exists (
    select from tiers.celebrity_settings s join tiers.celebrities c on c.id = s.celebrity_id
    where s.tier = t.tier::tiers.tier and c.excluded is null and not exists (
        select from tiers.run_items i where i.celebrity_id = s.celebrity_id and i.month = $1 and i.status = 'done')
    and not exists (select from tiers.run_items i where i.run_id = newest.run and i.celebrity_id = s.celebrity_id))
union select t.tier from unnest($2::text[]) t (tier) where (
    select true from tiers.celebrity_settings s join tiers.celebrities c on c.id = s.celebrity_id
    where s.tier = t.tier::tiers.tier and c.excluded is null limit 1) is null"""
LEFT_OUT: Final = """
insert into tiers.run_items (run_id, celebrity_id, month, status, reason)
select $1, c.id, $2, 'skipped', 'left out: ' || c.excluded
from tiers.celebrities c join tiers.celebrity_settings s on s.celebrity_id = c.id
where c.excluded is not null and ($3::text is null or s.tier = $3::text::tiers.tier)"""
COUNT_OUT: Final = f"update tiers.runs set skipped = $2, total = total + $2 where id = $1 returning {_VIEW}"  # noqa: S608
SIZE: Final = """
select count(*), count(*) filter (where $3::date is not null and exists (
    select from tiers.run_items i where i.celebrity_id = s.celebrity_id and i.month = $3 and i.status = 'done'))
from tiers.celebrity_settings s join tiers.celebrities c on c.id = s.celebrity_id
where c.excluded is null and ($1::text is null or s.tier = $1::text::tiers.tier) and ($2::bigint is null or s.celebrity_id = $2)
    and (not $4 or s.tier is null)"""
PERSON: Final = """
select s.tier::text, c.excluded from tiers.celebrities c join tiers.celebrity_settings s on s.celebrity_id = c.id
where c.id = $1"""
# What a run has filled is counted by others at once; with the statistics of empty tables that would take for ever.
ANALYZE: Final = {
    "classify": "analyze (skip_locked) tiers.celebrities, tiers.celebrity_settings, tiers.celebrity_pricing",
    "generate": "analyze (skip_locked) tiers.run_items, tiers.availability, tiers.rotations, tiers.celebrity_location_pool",
}
ANALYZE_FROM: Final = 1_000
"""People that a run has written; PostgreSQL looks by itself, too, every minute."""
# Whoever opens a run waits for others that do: two must not begin the same one.
LOCK: Final = "select pg_advisory_xact_lock(7238114, 7)"


@dataclass(frozen=True, slots=True)
class RunView:
    """A run. total = done + unchanged + failed + skipped + those that wait; `position` is how far classification is."""

    id: int
    kind: Literal["classify", "generate"]
    scope: Scope
    tier: Tier | None
    month: str | None
    person: int | None
    replace: bool
    override: bool
    status: RunStatus
    total: int
    done: int
    unchanged: int
    failed: int
    skipped: int
    slots: int
    started_by: str | None
    planned_at: dt.datetime
    started_at: dt.datetime
    progress_at: dt.datetime
    finished_at: dt.datetime | None
    position: int

    @property
    def handled(self) -> int:
        """People that the run is through with."""
        return self.done + self.unchanged + self.failed + self.skipped

    @property
    def seconds(self) -> float:
        """How long it has been worked on, by the database's clock."""
        return ((self.finished_at or self.progress_at) - self.started_at).total_seconds()

    @property
    def people_per_s(self) -> float | None:
        """Its pace; None before there is one."""
        worked = self.done + self.failed + self.skipped + (self.unchanged if self.kind == "classify" else 0)
        return worked / self.seconds if worked and self.seconds > 0 else None


@dataclass(frozen=True, slots=True)
class ItemView:
    """What became of one person in a run. `short`: JSON, which kind has fewer slots than its minimum and why."""

    celebrity_id: int
    key: str
    name: str
    status: ItemStatus
    reason: str | None
    physical: int
    virtual: int
    short: str | None
    at: dt.datetime


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody wants to be run; `month` as a number (months.py)."""

    kind: Literal["classify", "generate"]
    scope: Scope
    tier: Tier | None = None
    month: int | None = None
    person: int | None = None
    replace: bool = False
    override: bool = False
    resume: bool = False

    @property
    def first_day(self) -> dt.date | None:
        """The month as PostgreSQL has it."""
        return None if self.month is None else first_day(self.month)


def first_day(month: int) -> dt.date:
    """The first day of a month."""
    return date_of(days_of(month)[0])


async def open_run(connection: Connection, asked: Asked, now_s: int, who: str | None) -> tuple[RunView, bool]:
    """The run, and whether it is new; Refused where a gate is closed."""
    await connection.execute(LOCK)
    if asked.person is not None:
        await _person(connection, asked)
    if asked.kind == "generate":
        await _pass_gate(connection, asked)
    found = await connection.fetchrow(OPENED, *_identity(asked), asked.resume)
    if found is not None and (found["alive"] or asked.resume):
        return await _again(connection, RunView(*found[:-1])), False
    if asked.resume:
        raise Refused(Code.NOT_FOUND, "there is no run of this that could be resumed; begin one without resume")
    if found is not None:
        await end(connection, found["id"], "stopped")
    return await _new(connection, asked, now_s, who), True


async def under_way(connection: Connection, tier: Tier, month: int) -> bool:
    """Is there a run of this tier's month that was not ended, alive or not?"""
    found: bool = await connection.fetchval(UNDER_WAY, tier, first_day(month))
    return found


async def _person(connection: Connection, asked: Asked) -> None:
    assert asked.person is not None
    row = await connection.fetchrow(PERSON, asked.person)
    if row is None:
        raise no_person(asked.person)
    if row["excluded"] is not None:
        raise Refused(Code.CONFLICT, f"the celebrity {asked.person} is left out: {row['excluded']}", field="id")


async def tier_of(connection: Connection, person: int) -> Tier:
    """The tier of a person; Refused while it has none."""
    row = await connection.fetchrow(PERSON, person)
    if row is None:
        raise no_person(person)
    if row["tier"] is None:
        raise Refused(Code.CONFLICT, f"the celebrity {person} has no tier; classify it first", field="id")
    tier: Tier = row["tier"]
    return tier


async def _pass_gate(connection: Connection, asked: Asked) -> None:
    assert asked.tier is not None
    assert asked.month is not None
    state = await month_state(connection, asked.month, planned=False)
    why = closed(asked.tier, name_of(asked.month), state, asked.override)
    if why is not None:
        raise Refused(Code.CONFLICT, f"tier {asked.tier} must wait: {why}", field="gate")


async def month_state(connection: Connection, month: int, *, planned: bool = True) -> Month:
    """How far a month is; `planned` may be left out, as it asks for each tier."""
    date = first_day(month)
    count = await connection.fetchrow(MISSING)
    assert count is not None
    verdicts = {row[0]: row[1] for row in await connection.fetch(VERDICTS, date)}
    through = await connection.fetch(PLANNED, date, list(TIERS)) if planned else []
    return Month(count["missing"], verdicts, frozenset(row["tier"] for row in through), count["people"])


async def _again(connection: Connection, run: RunView) -> RunView:
    return run if run.status == "running" else RunView(*_one(await connection.fetchrow(AGAIN, run.id)))


async def _new(connection: Connection, asked: Asked, now_s: int, who: str | None) -> RunView:
    size = await connection.fetchrow(SIZE, asked.tier, asked.person, asked.first_day, asked.scope == "new")
    assert size is not None
    total, planned = size[0], 0 if asked.replace else size[1]
    kind, scope, tier, month, person, replace = _identity(asked)
    values = (kind, scope, tier, month, person, replace, asked.override, now_s, total, planned, who)
    run = RunView(*_one(await connection.fetchrow(OPEN, *values)))
    if scope in ("person", "new"):
        return run
    skipped = int((await connection.execute(LEFT_OUT, run.id, month, tier)).split()[-1])
    return RunView(*_one(await connection.fetchrow(COUNT_OUT, run.id, skipped)))


def _identity(asked: Asked) -> tuple[str, str, Tier | None, dt.date | None, int | None, bool]:
    return asked.kind, asked.scope, asked.tier, asked.first_day, asked.person, asked.replace


def _one(row: asyncpg.Record | None) -> asyncpg.Record:
    assert row is not None
    return row


async def show(connection: Connection, run: int) -> RunView:
    """One run."""
    row = await connection.fetchrow(SHOW, run)
    if row is None:
        raise Refused(Code.NOT_FOUND, f"there is no run {run}", field="run")
    return RunView(*row)


async def listed(
    connection: Connection, kind: str | None = None, before: int | None = None, limit: int = 50
) -> Sequence[RunView]:
    """Runs, newest first; `before` is the id that ended the page before."""
    return [RunView(*row) for row in await connection.fetch(LIST, kind, before, min(limit, PAGE_MOST))]


async def items(
    connection: Connection, run: int, status: str | None = None, after: int = 0, limit: int = 100
) -> Sequence[ItemView]:
    """People of a run by id; `after` is the last one of the page before."""
    return [ItemView(*row) for row in await connection.fetch(ITEMS, run, status, after, min(limit, PAGE_MOST))]


async def reasons(connection: Connection, run: int, limit: int = 50) -> Sequence[tuple[str, str, int]]:
    """Why people failed or were skipped, the commonest first: status, reason, how many."""
    return [(row[0], row[1], row[2]) for row in await connection.fetch(REASONS, run, limit)]


async def end(connection: Connection, run: int, status: RunStatus) -> RunView | None:
    """Close a run; None when it was not running."""
    row = await connection.fetchrow(END, run, status)
    return None if row is None else RunView(*row)


async def next_running(connection: Connection) -> int | None:
    """The oldest run that somebody should work on."""
    found: int | None = await connection.fetchval(RUNNING)
    return found
