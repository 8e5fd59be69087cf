"""Campaigns: what can be asked for, the states, what a reactivation pays, who sees the money."""

from __future__ import annotations

import pytest

from server.batching.tracking import store
from server.batching.tracking.campaigns import NewCampaign
from server.core.identity import ANONYMOUS
from server.edge.postgres import Database
from tests.batching.tracking.world import ADMIN, MARY, PAUL, Place, refusal


@pytest.fixture
def place(db: Database) -> Place:
    return Place(db)


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"name": "  "}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": "a\x00b"}, "name"),
        ({"budget_cents": 0}, "budgetCents"),
        ({"budget_cents": 10**11 + 1}, "budgetCents"),
        ({"rate_cents": 0}, "rateCents"),
        ({"rate_cents": 100_001}, "rateCents"),
        ({"reserved_cents": 1_000}, "reservedCents"),
        ({"reserved_cents": -1}, "reservedCents"),
        ({"baseline": "never"}, "baseline"),
    ],
)
async def test_what_makes_no_campaign_is_refused_by_its_field(
    place: Place, more: dict[str, object], field: str
) -> None:
    wish = NewCampaign(**{"name": "Spring", "budget_cents": 1_000, "rate_cents": 150, **more})  # type: ignore[arg-type]
    assert await refusal(place.campaigns.create(wish, ADMIN)) == ("bad_message", field)
    assert await place.campaigns.list(ADMIN) == []


async def test_what_changes_a_campaign_is_for_admins(place: Place) -> None:
    campaign = await place.campaign()
    verbs = place.campaigns
    for asking in (
        verbs.create(NewCampaign("x", 1_000, 150), PAUL),
        verbs.pause(campaign, PAUL),
        verbs.complete(campaign, PAUL),
        verbs.reactivate(campaign, PAUL),
        verbs.set_budget(campaign, PAUL, budget_cents=10**6),
    ):
        assert (await refusal(asking))[0] == "forbidden"
    assert (await refusal(verbs.list(ANONYMOUS)))[0] == "unauthorized"


async def test_creators_see_open_campaigns_and_those_they_are_in_without_the_money(place: Place) -> None:
    open_, mine, other = [await place.campaign() for _ in range(3)]
    await place.post(mine, PAUL)
    await place.post(other, MARY)
    for campaign in (mine, other):
        await place.campaigns.pause(campaign, ADMIN)
    seen = await place.campaigns.list(PAUL)
    assert [one.id for one in seen] == [mine, open_]
    assert {(one.budget_cents, one.spent_cents, one.left_cents, one.spent_percent) for one in seen} == {(None,) * 4}
    assert (await refusal(place.campaigns.show(other, PAUL)))[0] == "not_found"
    assert [one.id for one in await place.campaigns.list(ADMIN, status="PAUSED")] == [other, mine]
    assert [one.id for one in await place.campaigns.list(ADMIN, before=other, limit=1)] == [mine]


async def test_states_lead_only_where_they_may(place: Place) -> None:
    campaign = await place.campaign()
    verbs = place.campaigns
    assert await refusal(verbs.reactivate(campaign, ADMIN)) == ("conflict", "status")
    await verbs.pause(campaign, ADMIN)
    assert await refusal(verbs.pause(campaign, ADMIN)) == ("conflict", "status")
    await verbs.reactivate(campaign, ADMIN)
    await verbs.complete(campaign, ADMIN)
    for asking in (verbs.pause(campaign, ADMIN), verbs.complete(campaign, ADMIN)):
        assert await refusal(asking) == ("conflict", "status")
    assert (await refusal(verbs.pause(99_999, ADMIN)))[0] == "not_found"


async def test_a_paused_campaign_grants_nothing_and_pays_the_gap_when_it_goes_on(place: Place) -> None:
    campaign = await place.campaign(rate=100)
    post = await place.post(campaign)
    await place.count(post, 0, 1)
    await place.campaigns.pause(campaign, ADMIN)
    assert await place.ask("select tracked from tracking.clips") == "none"
    assert (await place.count(post, 50_000, 2)).granted_cents == 0
    changed = await place.campaigns.reactivate(campaign, ADMIN)
    assert (changed.granted_cents, changed.campaign.spent_cents) == (5_000, 5_000)
    assert await place.ask("select tracked from tracking.clips") == "active"
    await place.right()


async def test_raising_the_budget_and_reactivating_pays_the_gap_once_also_that_of_the_count_that_was_cut(
    place: Place,
) -> None:
    campaign = await place.campaign(1_000, 1_000)
    post = await place.post(campaign)
    await place.count(post, 0, 1)
    assert (await place.count(post, 1_700, 2)).granted_cents == 1_000
    assert await refusal(place.campaigns.reactivate(campaign, ADMIN)) == ("conflict", "budgetCents")
    await place.campaigns.set_budget(campaign, ADMIN, budget_cents=5_000)
    assert await place.status(campaign) == "COMPLETED"
    changed = await place.campaigns.reactivate(campaign, ADMIN)
    assert (changed.granted_cents, changed.campaign.status, changed.campaign.completed_at) == (700, "ACTIVE", None)
    post = await place.show(post.id)
    assert (post.earned_cents, post.final_cents) == (1_700, None)
    assert (await place.count(post, 1_700, 3)).granted_cents == 0
    await place.campaigns.pause(campaign, ADMIN)
    assert (await place.campaigns.reactivate(campaign, ADMIN)).granted_cents == 0
    await place.right()


async def test_a_gap_larger_than_the_new_budget_completes_the_campaign_again_and_tells_again(place: Place) -> None:
    campaign = await place.campaign(1_000, 1_000)
    post = await place.post(campaign)
    await place.count(post, 0, 1)
    await place.count(post, 9_000, 2)
    await place.campaigns.set_budget(campaign, ADMIN, budget_cents=3_000)
    changed = await place.campaigns.reactivate(campaign, ADMIN)
    assert (changed.granted_cents, changed.campaign.status) == (2_000, "COMPLETED")
    told = [one.amount_cents for one in await place.earnings.notifications(PAUL) if one.kind == "campaign-completed"]
    assert told == [3_000, 1_000]
    await place.right()


async def test_a_budget_cannot_fall_below_what_was_spent(place: Place) -> None:
    campaign = await place.campaign(10_000, 1_000)
    post = await place.post(campaign)
    await place.count(post, 0, 1)
    await place.count(post, 4_000, 2)
    change = place.campaigns.set_budget
    assert await refusal(change(campaign, ADMIN, budget_cents=4_000)) == ("conflict", "budgetCents")
    assert await refusal(change(campaign, ADMIN, reserved_cents=6_000)) == ("conflict", "budgetCents")
    changed = (await change(campaign, ADMIN, budget_cents=9_001, reserved_cents=5_000)).campaign
    assert (changed.left_cents, changed.spent_percent) == (1, 100.0)
    assert await place.ask("select pressing from tracking.clips")
    await place.right()


async def test_completing_by_hand_fixes_earnings_and_tells_the_creators(place: Place) -> None:
    campaign = await place.campaign(10_000, 1_000)
    post = await place.post(campaign)
    waiting = await place.post(campaign, MARY, approve=False)
    await place.count(post, 0, 1)
    await place.count(post, 2_500, 2)
    await place.campaigns.complete(campaign, ADMIN)
    assert (await place.show(post.id)).final_cents == 2_500
    assert (await place.show(waiting.id)).final_cents is None
    kinds = [one.kind for one in await place.earnings.notifications(MARY)]
    assert kinds == ["campaign-completed"]
    await place.right()


async def test_every_change_is_in_the_trail(place: Place) -> None:
    campaign = await place.campaign()
    audit_id = (await place.campaigns.pause(campaign, ADMIN)).audit_id
    (entry,) = await place.rows("select who, action, target, before, after from ops.audit where id = $1", audit_id)
    assert tuple(entry)[:3] == ("root", "tracking.campaign.paused", f"campaign {campaign}")
    assert '"ACTIVE"' in entry["before"] and '"PAUSED"' in entry["after"]
    assert await place.ask("select count(*) from tracking.audit") == 2


async def test_a_crash_between_a_change_and_telling_its_clips_is_made_good(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = await place.campaign()
    for _ in range(3):
        await place.post(campaign)
    monkeypatch.setattr(store, "REFRESH_SLICE", 2)
    await place.tell("update tracking.campaigns set status = 'PAUSED', changes = changes + 1 where id = $1", campaign)
    assert await place.ask("select count(*) from tracking.clips where tracked = 'active'") == 3
    assert await store.freshen(place.db) == 1
    assert await place.ask("select count(*) from tracking.clips where tracked = 'none'") == 3
    assert await store.freshen(place.db) == 0
