"""Counts go in, grants come out: one transaction that locks the campaigns, appends to the ledger and updates the sums.

    recorded = await settlement.record([Observed(clip_id, views, at), ...], run_id)

What holds at every commit: the sum of a campaign's ledger is what it has spent, and that is at most its budget without the
reserve. The transaction that grants the last cent completes the campaign, fixes what each submission earned in all, and leaves one
notification for each creator. The same observation once more is nothing, also when it comes while the first one is under way.

    campaigns of the clips, by id    lock        nobody else changes them or their submissions
    the clips, by id                 lock        nobody else counts them
    observations                     judge       money.py; those that are there already are left out
    submissions of the clips         settle      money.py, in the order of the observations
    everything that changed          write       a statement a table

`book` writes what money.py decided; approvals and reactivations use it too. Whoever calls it holds the campaigns.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from server.batching import audit
from server.batching.tracking import money as m
from server.batching.tracking.store import freshen, refresh, serving
from server.core.money import dollars
from server.edge.postgres import Connection, Database

OBSERVATIONS_MOST: Final = 1_000
"""Of one transaction; `record` takes more in slices. It bounds how long a campaign is held and the event loop is kept busy."""

CAMPAIGNS_OF: Final = """
select distinct campaign_id from tracking.clip_submissions where clip_id = any($1) and status <> 'REJECTED'"""
HOLD_CAMPAIGNS: Final = """
select id, status, rate_cents, budget_cents - reserved_cents as available_cents, spent_cents
from tracking.campaigns where id = any($1) order by id for no key update"""
HOLD_CLIPS: Final = """
select id, views, best_views, last_checked_at, checks from tracking.clips where id = any($1) order by id for no key update"""
ENTRIES: Final = """
select id, campaign_id, clip_id, creator, status = 'APPROVED' as approved, baseline_from, baseline_views, baseline_at, earned_cents
from tracking.clip_submissions where clip_id = any($1) and campaign_id = any($2) and status <> 'REJECTED' order by id"""
KNOWN: Final = """
select clip_id, observed_at from unnest($1::bigint[], $2::timestamptz[]) as asked (clip_id, observed_at)
join tracking.view_tracking using (clip_id, observed_at)"""
INSERT: Final = """
insert into tracking.view_tracking (clip_id, observed_at, views, state, before, run_id)
select o.clip_id, o.at, o.views, o.state, o.before, $6
from unnest($1::bigint[], $2::timestamptz[], $3::bigint[], $4::text[], $5::bigint[]) with ordinality
    as o (clip_id, at, views, state, before, number) order by o.number
returning id, clip_id, observed_at"""
SEEN: Final = """
update tracking.clips c set views = s.views, best_views = s.best, last_checked_at = s.last_at, checks = s.checks,
    first_checked_at = coalesce(c.first_checked_at, s.last_at), best_observation_id = coalesce(s.best_id, c.best_observation_id)
from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::timestamptz[], $5::int[], $6::bigint[])
    as s (id, views, best, last_at, checks, best_id) where c.id = s.id"""

GRANT: Final = """
insert into tracking.earnings_ledger (campaign_id, submission_id, creator, observation_id, activation, amount_cents, views, run_id)
select g.campaign_id, g.submission_id, g.creator, g.observation_id, c.activation, g.amount_cents, g.views, $7
from unnest($1::bigint[], $2::bigint[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[]) with ordinality
    as g (campaign_id, submission_id, creator, observation_id, amount_cents, views, number)
join tracking.campaigns c on c.id = g.campaign_id order by g.number"""
ENTER: Final = """
update tracking.clip_submissions s
set baseline_views = e.baseline, baseline_at = e.baseline_at, earned_cents = e.earned
from unnest($1::bigint[], $2::bigint[], $3::timestamptz[], $4::bigint[]) as e (id, baseline, baseline_at, earned) where s.id = e.id"""
SPEND: Final = """
update tracking.campaigns c
set spent_cents = s.spent, status = case when s.ended then 'COMPLETED' else c.status end,
    completed_at = case when s.ended then clock_timestamp() else c.completed_at end, changes = c.changes + s.told
from unnest($1::bigint[], $2::bigint[], $3::bool[], $4::int[]) as s (id, spent, ended, told) where c.id = s.id"""
FINAL: Final = """
update tracking.clip_submissions set final_cents = earned_cents where campaign_id = any($1) and status = 'APPROVED'"""
TOLD: Final = """
insert into tracking.notifications (creator, key, kind, message, campaign_id, amount_cents)
select s.creator, format('campaign-completed:%s:%s:%s', c.id, c.activation, s.creator), 'campaign-completed',
    format('the campaign "%s" is complete; your posts earned $%s in it', c.name,
        trim(to_char(coalesce(sum(s.final_cents), 0) / 100.0, '999,999,999,990.00'))), c.id, coalesce(sum(s.final_cents), 0)
from tracking.campaigns c join tracking.clip_submissions s on s.campaign_id = c.id and s.status <> 'REJECTED'
where c.id = any($1) group by c.id, s.creator
on conflict (key) do nothing"""


@dataclass(frozen=True, slots=True)
class Stored:
    """An observation as it was kept; `before` and `best` are the clip's best count before and after it."""

    observation_id: int
    clip_id: int
    at: dt.datetime
    views: int
    state: m.State
    before: int | None
    best: int | None


@dataclass(frozen=True, slots=True)
class Recorded:
    """What came of observations: those kept, how many were there already, of clips that there are not, and the money."""

    stored: tuple[Stored, ...]
    replayed: int
    unknown: int
    grants: int
    granted_cents: int
    completed: tuple[int, ...]

    def __add__(self, other: Recorded) -> Recorded:
        """Both together."""
        return Recorded(
            self.stored + other.stored,
            self.replayed + other.replayed,
            self.unknown + other.unknown,
            self.grants + other.grants,
            self.granted_cents + other.granted_cents,
            self.completed + other.completed,
        )


NOTHING: Final = Recorded((), 0, 0, 0, 0, ())


class Settlement:
    """Observations, taken in."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def record(self, observations: Sequence[m.Observed], run_id: int | None = None) -> Recorded:
        """Take them all, so many in one transaction, then tell the clips of campaigns that changed by it."""
        ordered, recorded, changed = m.in_order(observations), NOTHING, set[int]()
        for start in range(0, len(ordered), OBSERVATIONS_MOST):
            async with serving(self._db) as connection:
                part, told = await record_in(connection, ordered[start : start + OBSERVATIONS_MOST], run_id)
            recorded, changed = recorded + part, changed.union(told)
        if changed:
            await freshen(self._db, sorted(changed))
        return recorded


async def record_in(
    connection: Connection, observations: Sequence[m.Observed], run_id: int | None = None
) -> tuple[Recorded, tuple[int, ...]]:
    """The same in the caller's transaction, as service, before it holds any clip; and the campaigns to `freshen` after the commit."""
    assert len(observations) <= OBSERVATIONS_MOST, f"{len(observations)} observations in one transaction"
    assert all(m.plausible(one.views) for one in observations), "a count that is none is a failed scrape"
    asked = {(one.clip_id, one.at): one for one in reversed(m.in_order(observations))}
    clips = sorted({one.clip_id for one in observations})
    accounts = await hold_campaigns(connection, clips)
    sights = await hold_clips(connection, clips)
    new = await _new(connection, [one for one in asked.values() if one.clip_id in sights])
    judged, seen = m.judge(sights, new)
    stored = await _store(connection, judged, run_id)
    entries = await entries_of(connection, sorted(seen), accounts)
    sightings = [m.sighted(one, kept.observation_id) for one, kept in zip(judged, stored, strict=True)]
    settled = m.settle(accounts, entries, [one for one in sightings if one is not None])
    await _write_seen(connection, seen, stored)
    changed = await book(connection, settled, run_id)
    await refresh(connection, settled.based)
    unknown = sum(one.clip_id not in sights for one in observations)
    replayed = len(observations) - unknown - len(stored)
    result = Recorded(stored, replayed, unknown, len(settled.grants), settled.granted_cents, settled.completed)
    return result, changed


async def hold_campaigns(connection: Connection, clips: Sequence[int]) -> list[m.Account]:
    """Lock the campaigns that these clips are in."""
    rows = await connection.fetch(CAMPAIGNS_OF, clips)
    return await hold_accounts(connection, [row["campaign_id"] for row in rows])


async def hold_accounts(connection: Connection, campaigns: Sequence[int]) -> list[m.Account]:
    """Lock these campaigns, by id."""
    return [
        m.Account(row["id"], row["status"] == "ACTIVE", row["rate_cents"], row["available_cents"], row["spent_cents"])
        for row in await connection.fetch(HOLD_CAMPAIGNS, campaigns)
    ]


async def hold_clips(connection: Connection, clips: Sequence[int]) -> dict[int, m.Sight]:
    """Lock these clips, by id."""
    return {row["id"]: m.Sight(*row) for row in await connection.fetch(HOLD_CLIPS, clips)}


async def entries_of(connection: Connection, clips: Sequence[int], accounts: Sequence[m.Account]) -> list[m.Entry]:
    """The submissions of clips to campaigns that are held."""
    rows = await connection.fetch(ENTRIES, clips, [one.campaign_id for one in accounts])
    return [m.Entry(*row) for row in rows]


async def book(connection: Connection, settled: m.Settled, run_id: int | None = None) -> tuple[int, ...]:
    """Write what was decided about submissions and campaigns; the campaigns whose clips have to be told afterwards."""
    if settled.grants:
        await connection.execute(GRANT, *_columns(settled.grants, _GRANT), run_id)
    if settled.entries:
        await connection.execute(ENTER, *_columns(settled.entries, _ENTRY))
    if settled.accounts:
        await _spend(connection, settled)
    return tuple(sorted({*settled.completed, *settled.crossed}))


async def complete(connection: Connection, campaigns: Sequence[int]) -> None:
    """What follows when campaigns have become COMPLETED: what was earned in all, and its creators are told."""
    await connection.execute(FINAL, campaigns)
    await connection.execute(TOLD, campaigns)


_GRANT: Final = ("campaign_id", "submission_id", "creator", "observation_id", "amount_cents", "views")
_ENTRY: Final = ("submission_id", "baseline", "baseline_at", "earned_cents")


def _columns(rows: Iterable[object], names: Sequence[str]) -> list[list[object]]:
    listed = list(rows)
    return [[getattr(row, name) for row in listed] for name in names]


async def _new(connection: Connection, observations: Sequence[m.Observed]) -> list[m.Observed]:
    known = await connection.fetch(KNOWN, *_columns(observations, ("clip_id", "at")))
    there = {(row["clip_id"], row["observed_at"]) for row in known}
    return [one for one in observations if (one.clip_id, one.at) not in there]


async def _store(connection: Connection, judged: Sequence[m.Judged], run_id: int | None) -> tuple[Stored, ...]:
    if not judged:
        return ()
    columns = _columns([one.observed for one in judged], ("clip_id", "at", "views"))
    rows = await connection.fetch(INSERT, *columns, *_columns(judged, ("state", "before")), run_id)
    ids = {(row["clip_id"], row["observed_at"]): row["id"] for row in rows}
    return tuple(
        Stored(ids[o.clip_id, o.at], o.clip_id, o.at, o.views, one.state, one.before, one.best)
        for one, o in ((one, one.observed) for one in judged)
    )


async def _write_seen(connection: Connection, seen: dict[int, m.Sight], stored: Iterable[Stored]) -> None:
    rises = {one.clip_id: one.observation_id for one in stored if one.best is not None and one.best != one.before}
    rows = sorted(seen.values(), key=lambda one: one.clip_id)
    columns = _columns(rows, ("clip_id", "views", "best", "last_at", "checks"))
    await connection.execute(SEEN, *columns, [rises.get(one.clip_id) for one in rows])


async def _spend(connection: Connection, settled: m.Settled) -> None:
    full, told = set(settled.completed), {*settled.completed, *settled.crossed}
    ids, spent = _columns(settled.accounts, ("campaign_id", "spent_cents"))
    flags = [one in full for one in ids]
    await connection.execute(SPEND, ids, spent, flags, [int(one in told) for one in ids])
    if full:
        await complete(connection, settled.completed)
        for one in settled.accounts:
            if one.campaign_id in full:
                after = {"status": "COMPLETED", "spentCents": one.spent_cents, "spent": dollars(one.spent_cents)}
                await audit.write(
                    connection, None, "tracking.campaign.full", f"campaign {one.campaign_id}", None, after
                )
