"""What creators read about their money: the ledger's lines, and what they were told. Admins read everybody's."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from server.batching.tracking.store import PAGE_MOST, creator_of, reading
from server.core.identity import Identity
from server.edge.postgres import Database

LEDGER: Final = """
select l.id, l.campaign_id, l.submission_id, l.creator, l.amount_cents, l.views, l.at from tracking.earnings_ledger l
where ($1::text is null or l.creator = $1) and ($2::bigint is null or l.campaign_id = $2) and ($3::bigint is null or l.submission_id = $3)
    and ($4::bigint is null or l.id < $4)
order by l.id desc limit $5"""
NOTIFICATIONS: Final = """
select n.id, n.creator, n.kind, n.message, n.campaign_id, n.amount_cents, n.created_at from tracking.notifications n
where ($1::text is null or n.creator = $1) and ($2::bigint is null or n.id < $2) order by n.id desc limit $3"""


@dataclass(frozen=True, slots=True)
class Line:
    """A grant: `views` is the best count that it was made for."""

    id: int
    campaign_id: int
    submission_id: int
    creator: str
    amount_cents: int
    views: int
    at: dt.datetime


@dataclass(frozen=True, slots=True)
class Notification:
    """What a creator was told."""

    id: int
    creator: str
    kind: str
    message: str
    campaign_id: int | None
    amount_cents: int | None
    at: dt.datetime


class Earnings:
    """Reading."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def ledger(
        self,
        who: Identity,
        *,
        creator: str | None = None,
        campaign: int | None = None,
        submission: int | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> Sequence[Line]:
        """Grants, newest first."""
        mine = creator_of(who, creator) if creator or not who.admin else None
        async with reading(self._db, who) as connection:
            rows = await connection.fetch(LEDGER, mine, campaign, submission, before, min(limit, PAGE_MOST))
        return [Line(*row) for row in rows]

    async def notifications(
        self, who: Identity, *, creator: str | None = None, before: int | None = None, limit: int = 50
    ) -> Sequence[Notification]:
        """What was told, newest first."""
        mine = creator_of(who, creator) if creator or not who.admin else None
        async with reading(self._db, who) as connection:
            rows = await connection.fetch(NOTIFICATIONS, mine, before, min(limit, PAGE_MOST))
        return [Notification(*row) for row in rows]
