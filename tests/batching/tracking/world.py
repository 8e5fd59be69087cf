"""What the tests of tracking share: people, campaigns with posts in them, counts at given hours, all money read back."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest

from server.batching.tracking.campaigns import Campaigns, NewCampaign
from server.batching.tracking.checking import verify
from server.batching.tracking.earnings import Earnings
from server.batching.tracking.money import Observed
from server.batching.tracking.payouts import Payouts
from server.batching.tracking.reviews import Reviews
from server.batching.tracking.settlement import Recorded, Settlement
from server.batching.tracking.submissions import Submission, Submissions
from server.core.identity import Identity
from server.edge.postgres import Database
from server.errors import Refused

ADMIN = Identity("root", frozenset(["admin"]))
PAUL = Identity("paul")
MARY = Identity("mary")
START = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
"""Before everything: tests move submissions back to it, so that their counts may carry any hour after it."""


def hour(number: float) -> dt.datetime:
    return START + dt.timedelta(hours=number)


@dataclass
class Place:
    """All verbs on one database."""

    db: Database
    campaigns: Campaigns = field(init=False)
    submissions: Submissions = field(init=False)
    settlement: Settlement = field(init=False)
    reviews: Reviews = field(init=False)
    payouts: Payouts = field(init=False)
    earnings: Earnings = field(init=False)
    posts: int = 0

    def __post_init__(self) -> None:
        self.campaigns = Campaigns(self.db)
        self.submissions = Submissions(self.db)
        self.settlement = Settlement(self.db)
        self.reviews = Reviews(self.db)
        self.payouts = Payouts(self.db)
        self.earnings = Earnings(self.db)

    async def campaign(self, budget: int = 100_000, rate: int = 150, **more: Any) -> int:
        made = await self.campaigns.create(NewCampaign("Spring", budget, rate, **more), ADMIN)
        return made.campaign.id

    async def post(self, campaign: int, who: Identity = PAUL, approve: bool = True, url: str = "") -> Submission:
        """A new post in a campaign, submitted at START."""
        self.posts += 1
        address = url or f"https://youtu.be/video{self.posts:06}"
        made = (await self.submissions.create(campaign, address, who)).submission
        await self.tell(
            "update tracking.clip_submissions set baseline_from = $2 where id = $1 and baseline_from is not null",
            made.id,
            START,
        )
        if approve:
            await self.submissions.approve(made.id, ADMIN)
        return await self.show(made.id)

    async def show(self, submission: int) -> Submission:
        return await self.submissions.show(submission, ADMIN)

    async def count(self, post: Submission, views: int, at: float) -> Recorded:
        """One count at this hour."""
        return await self.settlement.record([Observed(post.clip_id, views, hour(at))])

    async def earn(self, who: Identity, cents: int, end: bool = True) -> int:
        """A campaign in which somebody has earned so much, COMPLETED by it or not; its id."""
        campaign = await self.campaign(cents if end else cents + 1, 1000)
        post = await self.post(campaign, who)
        await self.count(post, 0, 1)
        await self.count(post, min(cents, 100_000), 2)
        for step in range(200_000, cents + 100_000, 100_000):
            await self.count(post, min(step, cents), 2 + step / 100_000)
        return campaign

    async def status(self, campaign: int) -> str:
        return (await self.campaigns.show(campaign, ADMIN)).status

    async def spent(self, campaign: int) -> int:
        return int(await self.ask("select spent_cents from tracking.campaigns where id = $1", campaign))

    async def ledger(self, campaign: int) -> int:
        sql = "select coalesce(sum(amount_cents), 0)::bigint from tracking.earnings_ledger where campaign_id = $1"
        return int(await self.ask(sql, campaign))

    async def waiting(self, count: int) -> None:
        """So many statements wait for a lock that somebody else holds; the bound is only there to end a broken run."""
        sql = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        async with asyncio.timeout(15):
            while await self.ask(sql) < count:
                await asyncio.sleep(0.01)

    async def ask(self, sql: str, *values: Any) -> Any:
        async with self.db.connection() as connection:
            return await connection.fetchval(sql, *values)

    async def rows(self, sql: str, *values: Any) -> list[asyncpg.Record]:
        async with self.db.connection() as connection:
            return await connection.fetch(sql, *values)

    async def tell(self, sql: str, *values: Any) -> None:
        async with self.db.connection() as connection:
            await connection.execute(sql, *values)

    async def right(self) -> None:
        """All money adds up."""
        report = await verify(self.db)
        assert report.ok, [(check.name, check.examples) for check in report.checks if not check.ok]


async def refusal(asking: Awaitable[object]) -> tuple[str, str | None]:
    """The code and the field of a refusal."""
    with pytest.raises(Refused) as refused:
        await asking
    return str(refused.value.code), refused.value.field
