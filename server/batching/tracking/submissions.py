"""Posts that creators submit to campaigns, and whether they are approved.

    PENDING ---- approve ----> APPROVED ---- reject ----> REJECTED
       +---------------- reject ----------------------------^

A post is in a campaign once; the same post in several campaigns is one clip, looked at once. Only an APPROVED submission earns: from
its baseline on, which is the first count from its submission (or its approval) on, so a count that fails leaves it unset and nothing is
earned until one works. Approving pays at once what the counts since the baseline amount to. One that is rejected earns no more and keeps
what it has earned. Whoever changes a submission holds its campaign.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import asyncpg

from server.batching import audit
from server.batching.tracking import money as m
from server.batching.tracking import settlement
from server.batching.tracking.posts import Post, post_of
from server.batching.tracking.store import (
    PAGE_MOST,
    Notice,
    admin,
    creator_of,
    freshen,
    notify,
    reading,
    refresh,
    serving,
    told,
)
from server.core.identity import Identity
from server.core.money import dollars
from server.edge.postgres import Connection, Database
from server.errors import Code, Refused

Status: TypeAlias = Literal["PENDING", "APPROVED", "REJECTED"]
STATUSES: Final[tuple[Status, ...]] = ("PENDING", "APPROVED", "REJECTED")
SUBMISSIONS_MOST: Final = 100_000
"""Of one campaign: its completion writes a row for each creator, in one transaction."""

_VIEW: Final = """
select s.id, s.campaign_id, p.name, s.clip_id, c.platform, c.post_id, c.url, s.creator, s.status, s.baseline_views, s.baseline_at,
    c.views, c.best_views, c.last_checked_at, s.earned_cents, s.final_cents, s.note, s.submitted_at, s.judged_at, c.state
from tracking.clip_submissions s join tracking.clips c on c.id = s.clip_id join tracking.campaigns p on p.id = s.campaign_id
"""
SHOW: Final = _VIEW + "where s.id = $1"
LIST: Final = (
    _VIEW
    + """
where ($1::text is null or s.creator = $1) and ($2::bigint is null or s.campaign_id = $2) and ($3::text is null or s.status = $3)
    and ($4::bigint is null or s.id < $4)
order by s.id desc limit $5"""
)
VIEWS: Final = """
select v.id, v.observed_at, v.views, v.state from tracking.view_tracking v
where v.clip_id = $1 and ($2::timestamptz is null or v.observed_at < $2) order by v.observed_at desc limit $3"""
HOLD_CAMPAIGN: Final = """
select id, name, status, baseline, budget_cents - reserved_cents - spent_cents as left_cents, submissions
from tracking.campaigns where id = $1 for no key update"""
CLIP: Final = """
insert into tracking.clips as c (platform, post_id, url) values ($1, $2, $3)
on conflict (platform, post_id) do update set url = c.url returning id"""
CREATE: Final = """
insert into tracking.clip_submissions (campaign_id, clip_id, creator, baseline_from, baseline_views)
values ($1, $2, $3, case when $4 = 'submission' then clock_timestamp() end, case when $4 = 'zero' then 0 end)
on conflict (campaign_id, clip_id) where taken do nothing returning id"""
COUNT: Final = "update tracking.campaigns set submissions = submissions + $2 where id = $1"
WHERE: Final = "select campaign_id, clip_id from tracking.clip_submissions where id = $1"
STATUS: Final = "select status, judged_by from tracking.clip_submissions where id = $1"
JUDGE: Final = """
update tracking.clip_submissions set status = $2, judged_at = clock_timestamp(), judged_by = $3, note = $4,
    taken = $2 <> 'REJECTED' or earned_cents > 0,
    baseline_from = case when $2 = 'APPROVED' and $5 = 'approval' then clock_timestamp() else baseline_from end
where id = $1"""
BEST: Final = "select best_views, best_observation_id, last_checked_at from tracking.clips where id = $1"


@dataclass(frozen=True, slots=True)
class Submission:
    """A post in a campaign. `views` is its last count, `best_views` the best; `state` is the clip's (ok, unavailable, unsupported)."""

    id: int
    campaign_id: int
    campaign: str
    clip_id: int
    platform: str
    post_id: str
    url: str
    creator: str
    status: Status
    baseline_views: int | None
    baseline_at: dt.datetime | None
    views: int | None
    best_views: int | None
    last_checked_at: dt.datetime | None
    earned_cents: int
    final_cents: int | None
    note: str
    submitted_at: dt.datetime
    judged_at: dt.datetime | None
    state: str


@dataclass(frozen=True, slots=True)
class Seen:
    """One count of a post."""

    observation_id: int
    at: dt.datetime
    views: int
    state: m.State


@dataclass(frozen=True, slots=True)
class Decided:
    """The submission afterwards, what its approval paid, and the entry in the trail."""

    submission: Submission
    audit_id: int
    granted_cents: int = 0
    completed: tuple[int, ...] = ()


class Submissions:
    """The verbs on submissions."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def list(
        self,
        who: Identity,
        *,
        campaign: int | None = None,
        status: Status | None = None,
        creator: str | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> Sequence[Submission]:
        """Newest first; a creator's own, an admin's of everybody, or of one."""
        mine = creator_of(who, creator) if creator or not who.admin else None
        async with reading(self._db, who) as connection:
            rows = await connection.fetch(LIST, mine, campaign, status, before, min(limit, PAGE_MOST))
        return [Submission(*row) for row in rows]

    async def show(self, submission_id: int, who: Identity) -> Submission:
        """One of them."""
        async with reading(self._db, who) as connection:
            return await _show(connection, submission_id)

    async def views(
        self, submission_id: int, who: Identity, *, before: dt.datetime | None = None, limit: int = 100
    ) -> Sequence[Seen]:
        """The counts of its post, newest first; `before` is the time that ended the page before."""
        async with reading(self._db, who) as connection:
            submission = await _show(connection, submission_id)
            rows = await connection.fetch(VIEWS, submission.clip_id, before, min(limit, PAGE_MOST))
        return [Seen(*row) for row in rows]

    async def create(self, campaign_id: int, url: str, who: Identity, *, creator: str | None = None) -> Decided:
        """Submit a post; its first count is asked for at once."""
        post, name = post_of(url), creator_of(who, creator)
        async with serving(self._db) as connection:
            campaign = await _hold_campaign(connection, campaign_id)
            _check_open(campaign)
            clip: int = await connection.fetchval(CLIP, post.platform, post.post_id, post.url)
            made = await connection.fetchval(CREATE, campaign_id, clip, name, campaign["baseline"])
            if made is None:
                raise _twice(post, campaign)
            await connection.execute(COUNT, campaign_id, 1)
            await refresh(connection, [clip])
            after = {"campaign": campaign_id, "post": f"{post.platform}:{post.post_id}", "creator": name}
            audit_id = await _note(connection, who.user, "created", made, None, after)
            return Decided(await _show(connection, made), audit_id)

    async def approve(self, submission_id: int, who: Identity) -> Decided:
        """Let it earn, and pay what it has earned by its counts so far."""
        name = admin(who, "approving a submission")
        async with serving(self._db) as connection:
            campaign, clip = await _hold(connection, submission_id, ("PENDING",), "approved")
            if campaign["status"] == "COMPLETED":
                message = f"the campaign {campaign['id']} has ended; raise its budget and reactivate it first"
                raise Refused(Code.CONFLICT, message, field="status")
            await connection.execute(JUDGE, submission_id, "APPROVED", name, "", campaign["baseline"])
            settled, changed = await _pay(connection, submission_id, campaign["id"], clip)
            decided = await _judged(connection, submission_id, name, "approved", "PENDING", settled)
        if changed:
            await freshen(self._db, changed)
        return decided

    async def reject(self, submission_id: int, who: Identity, note: str = "") -> Decided:
        """Let it earn nothing, or no more."""
        name, text = admin(who, "rejecting a submission"), told(note, "note")
        async with serving(self._db) as connection:
            campaign, clip = await _hold(connection, submission_id, ("PENDING", "APPROVED"), "rejected")
            before = (await _show(connection, submission_id)).status
            await connection.execute(JUDGE, submission_id, "REJECTED", name, text, campaign["baseline"])
            await connection.execute(COUNT, campaign["id"], -1)
            await refresh(connection, [clip])
            return await _judged(connection, submission_id, name, "rejected", before, m.NOTHING)


async def _pay(
    connection: Connection, submission_id: int, campaign_id: int, clip: int
) -> tuple[m.Settled, tuple[int, ...]]:
    """What is owed for the counts so far; the clip is told, should it want a baseline now."""
    accounts = await settlement.hold_accounts(connection, [campaign_id])
    await settlement.hold_clips(connection, [clip])
    entries = await settlement.entries_of(connection, [clip], accounts)
    mine = [entry for entry in entries if entry.submission_id == submission_id]
    row = await connection.fetchrow(BEST, clip)
    best = {clip: m.Sighted(row[1], clip, row[0], row[0], row[2])} if row and row[0] is not None else {}
    settled = m.settle_gap(accounts, mine, best)
    changed = await settlement.book(connection, settled)
    await refresh(connection, [clip])
    return settled, changed


async def _judged(
    connection: Connection, submission_id: int, who: str, what: str, before: Status, settled: m.Settled
) -> Decided:
    submission = await _show(connection, submission_id)
    earned = f" and has earned {dollars(submission.earned_cents)} so far" if submission.earned_cents else ""
    because = f": {submission.note}" if submission.note else ""
    message = f'your post {submission.url} in "{submission.campaign}" was {what}{earned}{because}'
    key, kind = f"submission:{submission_id}:{what}", f"submission-{what}"
    await notify(connection, Notice(submission.creator, key, kind, message, submission.campaign_id))
    after = {"status": submission.status, "grantedCents": settled.granted_cents, "note": submission.note}
    audit_id = await _note(connection, who, what, submission_id, {"status": before}, after)
    return Decided(submission, audit_id, settled.granted_cents, settled.completed)


async def _hold(
    connection: Connection, submission_id: int, from_: tuple[Status, ...], what: str
) -> tuple[asyncpg.Record, int]:
    """Its campaign locked, and thereby itself; its clip's number; refused unless it is in one of these states."""
    where = await connection.fetchrow(WHERE, submission_id)
    if where is None:
        raise _unknown(submission_id)
    campaign = await _hold_campaign(connection, where["campaign_id"])
    row = await connection.fetchrow(STATUS, submission_id)
    assert row is not None
    if row["status"] not in from_:
        by = f" (by {row['judged_by']})" if row["judged_by"] else ""
        message = f"the submission {submission_id} is {row['status']}{by}; it cannot be {what}"
        raise Refused(Code.CONFLICT, message, field="status")
    return campaign, where["clip_id"]


async def _hold_campaign(connection: Connection, campaign_id: int) -> asyncpg.Record:
    row = await connection.fetchrow(HOLD_CAMPAIGN, campaign_id)
    if row is None:
        raise Refused(
            Code.NOT_FOUND, f"there is no campaign {campaign_id}, or none that you may see", field="campaignId"
        )
    return row


def _check_open(campaign: asyncpg.Record) -> None:
    name = f"the campaign {campaign['id']}"
    if campaign["status"] == "COMPLETED":
        why = "is full: its budget is spent" if not campaign["left_cents"] else "has ended"
        raise Refused(Code.CONFLICT, f"{name} {why}; submit to one that is ACTIVE", field="campaignId")
    if campaign["status"] != "ACTIVE":
        raise Refused(
            Code.CONFLICT, f"{name} is {campaign['status']}; submit when it is ACTIVE again", field="campaignId"
        )
    if campaign["submissions"] >= SUBMISSIONS_MOST:
        message = f"{name} has {SUBMISSIONS_MOST} submissions, which is the most; submit to another one"
        raise Refused(Code.TOO_MANY, message, field="campaignId", limit=SUBMISSIONS_MOST)


def _twice(post: Post, campaign: asyncpg.Record) -> Refused:
    message = f"the post {post.platform}:{post.post_id} has been submitted to the campaign {campaign['id']} already; submit another post"
    return Refused(Code.CONFLICT, message, field="url")


async def _show(connection: Connection, submission_id: int) -> Submission:
    row = await connection.fetchrow(SHOW, submission_id)
    if row is None:
        raise _unknown(submission_id)
    return Submission(*row)


def _unknown(submission_id: int) -> Refused:
    return Refused(Code.NOT_FOUND, f"there is no submission {submission_id}, or none that you may see", field="id")


async def _note(connection: Connection, who: str | None, what: str, number: int, before: object, after: object) -> int:
    return await audit.write(connection, who, f"tracking.submission.{what}", f"submission {number}", before, after)
