"""Whose role a transaction takes, the clips of changed campaigns, and what more than one of the verbs shares.

    async with serving(db) as connection:          batchcast_tracking: the work itself and every change; everything is visible
    async with reading(db, who) as connection:     admins the same; everybody else batchcast_creator: own rows, nothing to write

Locks are taken in this order, by everybody: campaigns by id, clips by id, submissions, payout requests, then the rest. Whoever writes to
a submission holds its campaign (payouts share it), so two writers of one submission meet at the campaign, and nowhere later. A transaction
that holds clips asks for no campaign, and asks for no further clips either. So what a change of a campaign means for all its clips is
written by `freshen`, in slices, after the change was committed; `changes` and `refreshed` of its row say that this is owed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from server.core.identity import Identity
from server.edge.postgres import Connection, Database
from server.errors import Code, Refused

PAGE_MOST: Final = 500
"""Rows of one page of anything."""
MESSAGE_MOST: Final = 1_000
"""Longer messages to creators are cut."""
IDLE_LIMIT_S: Final = 10
"""A process that froze in the middle of a transaction holds a campaign for so long; then PostgreSQL ends it."""
REFRESH_SLICE: Final = 1_000
"""So many clips of a campaign are told of its change in one transaction."""
STALE_MOST: Final = 100
"""Campaigns that one call of `freshen` serves."""

SERVICE: Final = "batchcast_tracking"
CREATOR: Final = "batchcast_creator"

ACT: Final = f"""
select set_config('idle_in_transaction_session_timeout', '{IDLE_LIMIT_S}s', true), set_config('role', $1, true),
    set_config('batchcast.creator', $2, true)"""
REFRESH: Final = "select tracking.refresh($1)"
STALE: Final = """
select id, changes from tracking.campaigns where refreshed < changes and ($1::bigint[] is null or id = any($1)) order by id limit $2"""
CLIPS_OF: Final = """
select clip_id from tracking.clip_submissions
where campaign_id = $1 and taken and status <> 'REJECTED' and clip_id > $2 order by clip_id limit $3"""
# `taken` says nothing new: it lets the unique index of posts serve this.
FRESH: Final = "update tracking.campaigns set refreshed = greatest(refreshed, $2) where id = $1"
NOTIFY: Final = """
insert into tracking.notifications (creator, key, kind, message, campaign_id, amount_cents) values ($1, $2, $3, $4, $5, $6)
on conflict (key) do nothing"""


@dataclass(frozen=True, slots=True)
class Notice:
    """What a creator is told; the same key again is nothing."""

    creator: str
    key: str
    kind: str
    message: str
    campaign_id: int | None = None
    amount_cents: int | None = None


@asynccontextmanager
async def serving(db: Database) -> AsyncIterator[Connection]:
    """A transaction that may do everything."""
    async with db.transaction() as connection:
        await connection.execute(ACT, SERVICE, "")
        yield connection


@asynccontextmanager
async def reading(db: Database, who: Identity) -> AsyncIterator[Connection]:
    """A transaction that sees what this caller may see."""
    user = named(who)
    async with db.transaction() as connection:
        await connection.execute(ACT, SERVICE if who.admin else CREATOR, user)
        yield connection


def named(who: Identity) -> str:
    """The caller's name; nobody without one has anything here."""
    if not who.user:
        raise Refused(Code.UNAUTHORIZED, "campaigns need a token that says who you are")
    return who.user


def admin(who: Identity, what: str) -> str:
    """The name of an admin; `what` is what only admins may do."""
    if not who.admin:
        raise Refused(Code.FORBIDDEN, f"{what} is for admins")
    return named(who)


def creator_of(who: Identity, creator: str | None) -> str:
    """On whose behalf: one's own, or for admins anybody's."""
    if creator is not None and creator != who.user:
        admin(who, "acting for another creator")
    name = creator or named(who)
    if len(name) > 200 or not name.isprintable():
        raise Refused(
            Code.BAD_MESSAGE, "a creator's name has 1 to 200 printable characters", field="creator", limit=200
        )
    return name


def told(text: str, field: str, most: int = 500) -> str:
    """A text of a person's, within its bound and without what PostgreSQL cannot hold."""
    if len(text) > most or "\x00" in text:
        raise Refused(Code.BAD_MESSAGE, f"{field} has at most {most} characters and no NUL", field=field, limit=most)
    return text


async def notify(connection: Connection, notice: Notice) -> None:
    """Tell a creator, in the transaction of what it is told of."""
    message = notice.message[:MESSAGE_MOST]
    values = (notice.kind, message, notice.campaign_id, notice.amount_cents)
    await connection.execute(NOTIFY, notice.creator, notice.key, *values)


async def refresh(connection: Connection, clips: Sequence[int]) -> None:
    """Let clips know what their submissions and campaigns are by now; they are locked by id."""
    if clips:
        await connection.execute(REFRESH, sorted(clips))


async def freshen(db: Database, campaigns: Sequence[int] | None = None) -> int:
    """Tell the clips of changed campaigns, of these or of all; how many campaigns that were. Repeating it does no harm."""
    async with serving(db) as connection:
        stale = await connection.fetch(STALE, campaigns, STALE_MOST)
    for row in stale:
        await _freshen(db, row["id"], row["changes"])
    return len(stale)


async def _freshen(db: Database, campaign: int, changes: int) -> None:
    after = 0
    while True:
        async with serving(db) as connection:
            clips = [row["clip_id"] for row in await connection.fetch(CLIPS_OF, campaign, after, REFRESH_SLICE)]
            await refresh(connection, clips)
        if len(clips) < REFRESH_SLICE:
            break
        after = clips[-1]
    async with serving(db) as connection:
        await connection.execute(FRESH, campaign, changes)
