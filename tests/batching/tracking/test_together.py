"""Many at the same time: not a cent too much, no deadlock, and at every commit the sums of the ledger are what the rows say.

The last is watched by the database itself: a constraint trigger, checked at each commit, that the tests put in.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress

import pytest

from server.batching.tracking.money import Observed
from server.batching.tracking.submissions import Submission
from server.edge.clock import SystemClock
from server.edge.postgres import Database
from server.errors import Refused
from tests.batching.tracking.world import ADMIN, MARY, PAUL, Place, hour

WATCH = """
create function tracking.watch() returns trigger language plpgsql security definer as $$
declare
    wrong text;
begin
    select format('campaign %s: spent %s, ledger %s, available %s', c.id, c.spent_cents, l.cents, c.budget_cents - c.reserved_cents)
    into wrong from tracking.campaigns c
    cross join lateral (select coalesce(sum(amount_cents), 0) as cents from tracking.earnings_ledger e where e.campaign_id = c.id) l
    where l.cents <> c.spent_cents or c.spent_cents > c.budget_cents - c.reserved_cents
        or (c.status = 'ACTIVE' and c.spent_cents = c.budget_cents - c.reserved_cents);
    if wrong is not null then
        raise exception '%', wrong;
    end if;
    return null;
end $$;
create constraint trigger watched after insert or update on tracking.campaigns deferrable initially deferred
    for each row execute function tracking.watch();
create constraint trigger watched after insert on tracking.earnings_ledger deferrable initially deferred
    for each row execute function tracking.watch()"""


@pytest.fixture
async def place(dsn: str) -> AsyncIterator[Place]:
    db = await Database.open(dsn, pool_size=12, clock=SystemClock())
    async with db.connection() as connection:
        await connection.execute(WATCH)
    yield Place(db)
    await db.close()


async def test_the_watch_sees_a_sum_that_is_wrong_at_a_commit(place: Place) -> None:
    campaign = await place.campaign()
    with pytest.raises(Exception, match="ledger 0"):
        await place.tell("update tracking.campaigns set spent_cents = 1 where id = $1", campaign)


async def test_ten_settlements_at_once_with_ten_dollars_left_grant_exactly_ten_dollars_fifty_times(
    place: Place,
) -> None:
    for lap in range(50):
        campaign = await place.campaign(1_000, 1_000)
        posts = await again(place, campaign)
        recorded = await asyncio.gather(*(place.count(post, 400, 2 * lap + 2) for post in posts))
        assert sum(one.granted_cents for one in recorded) == 1_000
        assert [one.completed for one in recorded if one.completed] == [(campaign,)]
        assert await place.ledger(campaign) == await place.spent(campaign) == 1_000
        assert await place.status(campaign) == "COMPLETED"
    told = await place.ask("select count(*) from tracking.notifications where kind = 'campaign-completed'")
    assert told == 50
    await place.right()


async def again(place: Place, campaign: int) -> list[Submission]:
    """Ten new posts in a campaign, approved, each with the baseline 0, by one statement."""
    rows = await place.rows(
        """with clip as (
            insert into tracking.clips (platform, post_id, url, tracked)
            select 'x', n, format('https://x.com/i/status/%s', n), 'active' from generate_series($1::bigint * 100, $1::bigint * 100 + 9) n
            returning id
        )
        insert into tracking.clip_submissions (campaign_id, clip_id, creator, status, baseline_views)
        select $1, id, 'paul', 'APPROVED', 0 from clip returning id""",
        campaign,
    )
    return [await place.show(row["id"]) for row in rows]


async def test_the_same_observations_from_several_at_once_are_settled_once(place: Place) -> None:
    posts = await again(place, await place.campaign(100_000, 1_000))
    run = [Observed(post.clip_id, 700, hour(1)) for post in posts]
    recorded = await asyncio.gather(*(place.settlement.record(random.Random(n).sample(run, 10)) for n in range(6)))
    assert sum(one.granted_cents for one in recorded) == 7_000
    assert sum(len(one.stored) for one in recorded) == 10
    await place.right()


async def test_a_clip_of_no_campaign_is_counted_by_one_at_a_time_too(place: Place) -> None:
    post = await place.post(await place.campaign(), approve=False)
    await place.submissions.reject(post.id, ADMIN)
    for lap in range(1, 6):
        recorded = await asyncio.gather(*(place.count(post, 100 * lap, lap) for _ in range(5)))
        assert sum(len(one.stored) for one in recorded) == 1
    assert await place.ask("select checks from tracking.clips") == 5


async def test_whatever_happens_at_once_nothing_deadlocks_and_all_money_adds_up(place: Place) -> None:
    dice = random.Random(5)
    campaigns = [await place.campaign(dice.randint(3_000, 9_000), 1_000) for _ in range(4)]
    posts = []
    for number in range(6):
        url = f"https://youtu.be/together{number:03}"
        who = (PAUL, MARY)[number % 2]
        posts += [await place.post(campaign, who, approve=number % 3 > 0, url=url) for campaign in campaigns]
    clips = sorted({post.clip_id for post in posts})

    async def counts(lap: int) -> None:
        run = [Observed(clip, lap * dice.randint(0, 120), hour(lap)) for clip in clips]
        await place.settlement.record(dice.sample(run, len(run)))

    async def ignoring(asking: Awaitable[object]) -> None:
        with suppress(Refused):
            await asking

    def anything(lap: int) -> Awaitable[object]:
        campaign, post = dice.choice(campaigns), dice.choice(posts)
        who = dice.choice([PAUL, MARY])
        return dice.choice(
            [
                lambda: counts(lap),
                lambda: counts(lap),
                lambda: place.campaigns.pause(campaign, ADMIN),
                lambda: place.campaigns.complete(campaign, ADMIN),
                lambda: place.campaigns.reactivate(campaign, ADMIN),
                lambda: place.campaigns.set_budget(campaign, ADMIN, budget_cents=dice.randint(3_000, 30_000)),
                lambda: place.submissions.approve(post.id, ADMIN),
                lambda: place.submissions.reject(post.id, ADMIN) if dice.random() < 0.2 else counts(lap),
                lambda: place.payouts.request(who),
                lambda: settle_payout(place, dice),
            ]
        )()

    for lap in range(1, 13):
        await asyncio.gather(*(ignoring(anything(lap)) for _ in range(8)))
    await place.right()


async def settle_payout(place: Place, dice: random.Random) -> None:
    for request in await place.payouts.list(ADMIN, limit=3):
        match request.status, dice.random() < 0.5:
            case "PENDING", True:
                await place.payouts.approve(request.id, ADMIN, dice.randint(0, 1_000))
            case "APPROVED", True:
                await place.payouts.complete(request.id, ADMIN, f"t{request.id}")
            case (("PENDING" | "APPROVED"), False):
                await place.payouts.reject(request.id, ADMIN)
            case "COMPLETED", False:
                await place.payouts.revert(request.id, ADMIN)


async def test_submitting_one_post_from_many_at_once_makes_one_submission(place: Place) -> None:
    campaign = await place.campaign()
    url = "https://youtu.be/manyatonce1"
    made = await asyncio.gather(
        *(place.submissions.create(campaign, url, PAUL) for _ in range(6)), return_exceptions=True
    )
    refused = [one for one in made if isinstance(one, Refused)]
    assert len(refused) == 5
    assert {(str(one.code), one.field) for one in refused} == {("conflict", "url")}


async def test_two_that_reactivate_at_once_pay_the_gap_once(place: Place) -> None:
    campaign = await place.earn(PAUL, 1_000)
    (post,) = await place.submissions.list(PAUL)
    await place.count(post, 3_000, 9)
    await place.campaigns.set_budget(campaign, ADMIN, budget_cents=90_000)
    done = await asyncio.gather(
        *(place.campaigns.reactivate(campaign, ADMIN) for _ in range(4)), return_exceptions=True
    )
    assert sorted(isinstance(one, Refused) for one in done) == [False, True, True, True]
    assert await place.ledger(campaign) == 3_000
    await place.right()
