"""Counts in, grants out, on the real database: what is kept, what is paid, what completes, what a replay does, time zones."""

from __future__ import annotations

import random
import time
from dataclasses import replace

import pytest

from server.batching.tracking import settlement
from server.batching.tracking.money import VIEWS_MOST, Observed
from server.batching.tracking.store import serving
from server.edge.postgres import Database
from tests.batching.tracking.world import ADMIN, MARY, PAUL, Place, hour
from tests.oracle.earnings import Oracle, Post


@pytest.fixture
def place(db: Database) -> Place:
    return Place(db)


async def test_growth_above_the_baseline_is_paid_to_the_cent(place: Place) -> None:
    campaign = await place.campaign(rate=150)
    post = await place.post(campaign)
    assert (await place.count(post, 1_000, 1)).grants == 0
    recorded = await place.count(post, 13_345, 2)
    assert (recorded.grants, recorded.granted_cents) == (1, 1851)
    post = await place.show(post.id)
    assert (post.earned_cents, post.baseline_views, post.baseline_at, post.best_views) == (1851, 1_000, hour(1), 13_345)
    assert await place.spent(campaign) == await place.ledger(campaign) == 1851
    await place.right()


async def test_the_same_observation_again_changes_nothing_whatever_count_it_brings(place: Place) -> None:
    post = await place.post(await place.campaign())
    first = [Observed(post.clip_id, 0, hour(1)), Observed(post.clip_id, 50_000, hour(2))]
    assert (await place.settlement.record(first)).granted_cents == 7_500
    again = await place.settlement.record([*first, replace(first[1], views=90_000)])
    assert (again.stored, again.replayed, again.granted_cents) == ((), 3, 0)
    both = await place.settlement.record([Observed(post.clip_id, views, hour(3)) for views in (60_000, 70_000)])
    assert (both.replayed, [one.views for one in both.stored]) == (1, [60_000])
    assert (await place.show(post.id)).earned_cents == 9_000
    await place.right()


async def test_a_clip_that_there_is_not_is_said_and_the_others_are_taken(place: Place) -> None:
    post = await place.post(await place.campaign())
    recorded = await place.settlement.record([Observed(post.clip_id, 5, hour(1)), Observed(987_654, 5, hour(1))])
    assert (len(recorded.stored), recorded.unknown, recorded.replayed) == (1, 1, 0)


async def test_a_lower_count_is_kept_and_flagged_and_what_was_earned_stays(place: Place) -> None:
    post = await place.post(await place.campaign())
    for at, views in enumerate((100, 10_100, 4_000, 10_100, 20_100)):
        await place.count(post, views, at + 1)
    seen = await place.submissions.views(post.id, ADMIN)
    assert [(one.views, one.state) for one in reversed(seen)] == [
        (100, "counted"),
        (10_100, "counted"),
        (4_000, "lower"),
        (10_100, "counted"),
        (20_100, "counted"),
    ]
    assert (await place.show(post.id)).earned_cents == 3_000
    await place.right()


async def test_a_count_that_comes_late_is_kept_and_pays_nothing(place: Place) -> None:
    post = await place.post(await place.campaign())
    await place.count(post, 100, 1)
    await place.count(post, 200, 5)
    recorded = await place.count(post, 90_000, 3)
    assert (recorded.stored[0].state, recorded.granted_cents) == ("late", 0)
    assert (await place.show(post.id)).best_views == 200


async def test_a_gap_without_counts_is_paid_by_the_next_one(place: Place) -> None:
    post = await place.post(await place.campaign())
    await place.count(post, 0, 1)
    assert (await place.count(post, 40_000, 400)).granted_cents == 6_000


async def test_the_grant_that_takes_the_last_cent_completes_the_campaign_in_the_same_transaction(place: Place) -> None:
    campaign = await place.campaign(1_500, 1_000, reserved_cents=500)
    paul, mary = await place.post(campaign), await place.post(campaign, MARY)
    extra = await place.post(campaign, MARY)
    await place.settlement.record([Observed(one.clip_id, 0, hour(1)) for one in (paul, mary, extra)])
    run = [
        Observed(paul.clip_id, 700, hour(2)),
        Observed(mary.clip_id, 900, hour(3)),
        Observed(extra.clip_id, 400, hour(4)),
    ]
    recorded = await place.settlement.record(run)
    assert (recorded.granted_cents, recorded.completed) == (1_000, (campaign,))
    shown = await place.campaigns.show(campaign, ADMIN)
    assert (shown.status, shown.spent_cents, shown.left_cents, shown.spent_percent) == ("COMPLETED", 1_000, 0, 100.0)
    assert shown.completed_at is not None
    assert [(await place.show(one.id)).final_cents for one in (paul, mary, extra)] == [700, 300, 0]
    told = {who.user: await place.earnings.notifications(who) for who in (PAUL, MARY)}
    ended = {name: [one for one in all_ if one.kind == "campaign-completed"] for name, all_ in told.items()}
    assert [one.message for one in ended["mary"]] == [
        'the campaign "Spring" is complete; your posts earned $3.00 in it'
    ]
    assert [one.amount_cents for one in ended["paul"]] == [700]
    await place.right()


async def test_after_completion_counts_are_kept_and_earn_nothing(place: Place) -> None:
    campaign = await place.earn(PAUL, 1_000)
    (post,) = await place.submissions.list(PAUL)
    recorded = await place.count(post, 90_000, 50)
    assert (recorded.stored[0].state, recorded.granted_cents) == ("counted", 0)
    assert await place.spent(campaign) == 1_000
    await place.right()


async def test_one_count_settles_every_submission_of_the_post(place: Place) -> None:
    url = "https://youtu.be/sharedpost1"
    ones = [await place.post(await place.campaign(rate=rate), url=url) for rate in (100, 200)]
    assert len({one.clip_id for one in ones}) == 1
    await place.count(ones[0], 0, 1)
    recorded = await place.count(ones[0], 10_000, 2)
    assert (recorded.grants, recorded.granted_cents) == (2, 1_000 + 2_000)
    await place.right()


async def test_what_clips_know_of_their_campaigns_follows_each_change(place: Place) -> None:
    campaign = await place.campaign(1_000, 1_000)
    post = await place.post(campaign)
    other = await place.post(campaign, MARY)

    async def known(clip: int) -> tuple[object, ...]:
        sql = "select tracked, pressing, baseline_wanted, newest_campaign_at is not null from tracking.clips where id = $1"
        return tuple((await place.rows(sql, clip))[0])

    assert await known(post.clip_id) == ("active", False, True, True)
    await place.count(post, 0, 1)
    assert await known(post.clip_id) == ("active", False, False, True)
    await place.count(post, 800, 2)
    assert await known(other.clip_id) == ("active", True, True, True)
    await place.count(post, 1_000, 3)
    assert await known(post.clip_id) == ("ended", False, False, False)
    assert await known(other.clip_id) == ("ended", False, False, False)


async def test_ten_thousand_observations_may_come_in_one_call_and_are_settled_in_slices(place: Place) -> None:
    campaign = await place.campaign(10_000_000, 1_000)
    post = await place.post(campaign)
    count = settlement.OBSERVATIONS_MOST + 10
    recorded = await place.settlement.record([Observed(post.clip_id, 10 * n, hour(n)) for n in range(1, count + 1)])
    assert (len(recorded.stored), recorded.granted_cents) == (count, 10 * (count - 1))
    await place.right()


async def test_an_absurd_count_is_a_bug_of_the_caller_and_leaves_nothing(place: Place) -> None:
    post = await place.post(await place.campaign())
    for views in (-1, VIEWS_MOST + 1):
        with pytest.raises(AssertionError):
            await place.count(post, views, 1)
    assert await place.ask("select count(*) from tracking.view_tracking") == 0


async def test_a_settlement_inside_somebody_elses_transaction_goes_with_it(place: Place) -> None:
    campaign = await place.campaign()
    post = await place.post(campaign)
    await place.count(post, 0, 1)
    with pytest.raises(RuntimeError):
        async with serving(place.db) as connection:
            recorded, _ = await settlement.record_in(connection, [Observed(post.clip_id, 50_000, hour(2))], 7)
            assert recorded.granted_cents == 7_500
            raise RuntimeError
    assert await place.ledger(campaign) == await place.spent(campaign) == 0
    assert (await place.count(post, 50_000, 2)).granted_cents == 7_500
    await place.right()


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "America/St_Johns"])
async def test_the_time_zone_of_the_process_changes_nothing(
    place: Place, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        post = await place.post(await place.campaign(1_000, 1_000))
        await place.count(post, 10, 1)
        await place.count(post, 510, 2)
        (seen, first) = await place.submissions.views(post.id, ADMIN)
        assert (first.at, seen.at) == (hour(1), hour(2))
        assert (await place.show(post.id)).baseline_at == hour(1)
        assert await place.ask("select max(observed_at) = '2026-03-01T02:00:00Z' from tracking.view_tracking")
        assert (await place.count(post, 2_000, 3)).completed
        assert (await place.show(post.id)).earned_cents == 1_000
        await place.right()
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("seed", range(3))
async def test_random_histories_come_to_what_the_slow_way_says_in_one_call_or_in_many(place: Place, seed: int) -> None:
    dice = random.Random(seed)
    rates = [dice.choice([7, 150, 999]) for _ in range(2)]
    budgets = [dice.randint(500, 30_000) for _ in range(2)]
    observations = [
        (clip, at, dice.choice([dice.randint(0, 9_000), dice.randint(0, 10**7)]))
        for clip in range(3)
        for at in range(1, 9)
    ]
    ends = []
    for batched in (True, False):
        oracle = await history(
            place, rates, budgets, [f"https://x.com/i/status/1{batched:d}{n}" for n in range(3)], observations, batched
        )
        ends.append([oracle.paid.get(one.number, []) for one in oracle.posts])
    assert ends[0] == ends[1]
    await place.right()


async def history(
    place: Place,
    rates: list[int],
    budgets: list[int],
    urls: list[str],
    observations: list[tuple[int, int, int]],
    batched: bool,
) -> Oracle:
    """Play it on new campaigns, compare with the slow way."""
    campaigns = [await place.campaign(budget, rate) for rate, budget in zip(rates, budgets, strict=True)]
    posts = [await place.post(campaign, url=url) for campaign in campaigns for url in urls]
    clips = [one.clip_id for one in posts[:3]]
    taken = sorted(
        (Observed(clips[clip], views, hour(at)) for clip, at, views in observations), key=lambda o: (o.at, o.clip_id)
    )
    oracle = Oracle(
        {number: (rate, budget) for number, rate, budget in zip(campaigns, rates, budgets, strict=True)},
        [Post(one.id, one.campaign_id, one.clip_id, True, hour(0)) for one in posts],
    )
    states = [oracle.count(one.clip_id, one.at, one.views) for one in taken]
    calls = [taken] if batched else [[one] for one in taken]
    stored = [one.state for call in calls for one in (await place.settlement.record(call)).stored]
    assert stored == states
    for campaign in campaigns:
        rows = await place.rows(
            "select submission_id, amount_cents from tracking.earnings_ledger where campaign_id = $1 order by id",
            campaign,
        )
        paid = {one.id: [r["amount_cents"] for r in rows if r["submission_id"] == one.id] for one in posts}
        assert {n: p for n, p in paid.items() if p} == {
            p.number: oracle.paid[p.number] for p in oracle.posts if p.campaign == campaign and p.number in oracle.paid
        }
        assert (await place.status(campaign) == "COMPLETED") == oracle.full(campaign)
    return oracle
