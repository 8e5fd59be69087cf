"""Payouts: what is payable, the minimum, one open request, each step once, fees, and what comes back when a payment does not."""

from __future__ import annotations

import asyncio

import pytest

from server.batching.tracking.payouts import Payouts, Terms
from server.core.identity import ANONYMOUS
from server.edge.postgres import Database
from server.errors import Refused
from tests.batching.tracking.world import ADMIN, MARY, PAUL, Place, refusal


@pytest.fixture
def place(db: Database) -> Place:
    return Place(db)


async def asked(place: Place, cents: int = 5_000) -> int:
    """A request over all that was earned."""
    await place.earn(PAUL, cents)
    return (await place.payouts.request(PAUL)).request.id


async def test_the_way_of_a_payout_with_the_net_in_both_records(place: Place) -> None:
    request = await asked(place, 5_001)
    approved = (await place.payouts.approve(request, ADMIN, 250)).request
    assert (approved.status, approved.amount_cents, approved.fee_cents, approved.net_cents) == (
        "APPROVED",
        5_001,
        125,
        4_876,
    )
    paid = (await place.payouts.complete(request, ADMIN, " wire-1 ")).request
    assert (paid.status, paid.transaction_id, paid.net_cents) == ("COMPLETED", "wire-1", 4_876)
    (row,) = await place.rows("select amount_cents, fee_cents, net_cents, paid_by from tracking.payouts")
    assert tuple(row) == (5_001, 125, 4_876, "root")
    balance = await place.payouts.balance(PAUL)
    assert (balance.earned_cents, balance.payable_cents, balance.requested_cents, balance.paid_cents) == (
        5_001,
        0,
        0,
        4_876,
    )
    told = [one.kind for one in await place.earnings.notifications(PAUL)][:2]
    assert told == ["payout-completed", "payout-approved"]
    await place.right()


async def test_money_of_campaigns_that_go_on_is_never_payable(place: Place) -> None:
    await place.earn(PAUL, 3_000, end=False)
    balance = await place.payouts.balance(PAUL)
    assert (balance.earned_cents, balance.payable_cents, balance.active_cents) == (3_000, 0, 3_000)
    assert await refusal(place.payouts.request(PAUL)) == ("conflict", "amountCents")
    ended = await place.earn(PAUL, 2_500)
    assert await refusal(place.payouts.request(PAUL, 2_501)) == ("conflict", "amountCents")
    request = (await place.payouts.request(PAUL)).request
    assert request.amount_cents == 2_500
    items = await place.rows(
        "select s.campaign_id from tracking.payout_items i join tracking.clip_submissions s on s.id = i.submission_id"
    )
    assert [row["campaign_id"] for row in items] == [ended]
    await place.right()


async def test_paused_campaigns_owe_nothing_either(place: Place) -> None:
    campaign = await place.earn(PAUL, 3_000, end=False)
    await place.campaigns.pause(campaign, ADMIN)
    assert await refusal(place.payouts.request(PAUL)) == ("conflict", "amountCents")
    await place.campaigns.complete(campaign, ADMIN)
    assert (await place.payouts.request(PAUL)).request.amount_cents == 3_000


async def test_the_minimum_is_a_setting_and_holds_for_parts_too(place: Place) -> None:
    await place.earn(PAUL, 1_999)
    assert await refusal(place.payouts.request(PAUL)) == ("conflict", "amountCents")
    await place.earn(PAUL, 3_000)
    assert await refusal(place.payouts.request(PAUL, 1_999)) == ("conflict", "amountCents")
    assert await refusal(place.payouts.request(PAUL, -5)) == ("conflict", "amountCents")
    assert (await place.payouts.request(PAUL, 2_000)).request.amount_cents == 2_000
    await place.earn(MARY, 100)
    assert (await Payouts(place.db, Terms(minimum_cents=100)).request(MARY)).request.amount_cents == 100
    await place.right()


async def test_a_part_takes_the_oldest_money_and_the_rest_can_be_asked_for_later(place: Place) -> None:
    for cents in (1_500, 1_500, 1_500):
        await place.earn(PAUL, cents)
    first = (await place.payouts.request(PAUL, 2_000)).request
    claimed = [row[0] for row in await place.rows("select claimed_cents from tracking.clip_submissions order by id")]
    assert claimed == [1_500, 500, 0]
    await place.payouts.approve(first.id, ADMIN)
    await place.payouts.complete(first.id, ADMIN, "t1")
    assert (await place.payouts.request(PAUL)).request.amount_cents == 2_500
    await place.right()


async def test_one_open_request_of_a_creator_at_a_time(place: Place) -> None:
    request = await asked(place)
    await place.earn(PAUL, 5_000)
    assert await refusal(place.payouts.request(PAUL)) == ("conflict", "creator")
    await place.payouts.approve(request, ADMIN)
    assert await refusal(place.payouts.request(PAUL)) == ("conflict", "creator")
    await place.payouts.complete(request, ADMIN, "t1")
    assert (await place.payouts.request(PAUL)).request.amount_cents == 5_000


async def test_of_requests_at_the_same_time_one_wins(place: Place) -> None:
    await place.earn(PAUL, 10_000)
    made = await asyncio.gather(*(place.payouts.request(PAUL, 2_000 + n) for n in range(5)), return_exceptions=True)
    refused = [one for one in made if isinstance(one, Refused)]
    assert [(str(one.code), one.field) for one in refused] == [("conflict", "creator")] * 4
    assert len(await place.payouts.list(PAUL)) == 1
    await place.right()


async def test_a_request_waits_for_whoever_takes_money_of_the_same_submissions_and_looks_again(place: Place) -> None:
    await place.earn(PAUL, 5_000)
    async with place.db.transaction() as connection:
        await connection.execute("update tracking.clip_submissions set claimed_cents = earned_cents")
        asking = asyncio.ensure_future(place.payouts.request(PAUL))
        await place.waiting(1)
    assert await refusal(asking) == ("conflict", "amountCents")


async def test_completing_twice_pays_once_also_at_the_same_time(place: Place) -> None:
    request = await asked(place)
    await place.payouts.approve(request, ADMIN)
    async with place.db.transaction() as connection:
        await connection.execute("select from tracking.payout_requests for no key update")
        completing = [asyncio.ensure_future(place.payouts.complete(request, ADMIN, f"t{n}")) for n in range(4)]
        await place.waiting(4)
    done = await asyncio.gather(*completing, return_exceptions=True)
    assert sum(isinstance(one, Refused) for one in done) == 3
    assert await refusal(place.payouts.complete(request, ADMIN, "t9")) == ("conflict", "status")
    assert await place.ask("select count(*) from tracking.payouts") == 1
    await place.right()


async def test_completing_needs_an_approval_and_a_transaction_of_its_own(place: Place) -> None:
    request = await asked(place)
    complete = place.payouts.complete
    assert await refusal(complete(request, ADMIN, "t1")) == ("conflict", "status")
    await place.payouts.approve(request, ADMIN)
    assert await refusal(complete(request, ADMIN, "  ")) == ("bad_message", "transactionId")
    assert await refusal(complete(request, ADMIN, "x" * 201)) == ("bad_message", "transactionId")
    await complete(request, ADMIN, "t1")
    await place.earn(MARY, 5_000)
    other = (await place.payouts.request(MARY)).request.id
    await place.payouts.approve(other, ADMIN)
    assert await refusal(complete(other, ADMIN, "t1")) == ("conflict", "transactionId")
    assert (await place.payouts.show(other, ADMIN)).status == "APPROVED"
    await place.right()


@pytest.mark.parametrize(("basis", "fee"), [(0, 0), (1, 0), (1_000, 500)])
async def test_fees_go_from_nothing_to_ten_per_cent(place: Place, basis: int, fee: int) -> None:
    request = await asked(place)
    for wrong in (-1, 1_001):
        assert await refusal(place.payouts.approve(request, ADMIN, wrong)) == ("bad_message", "feeBasis")
    approved = (await place.payouts.approve(request, ADMIN, basis)).request
    assert (approved.fee_cents, approved.net_cents) == (fee, 5_000 - fee)


async def test_the_fee_of_the_settings_is_taken_unless_the_approval_names_one(place: Place) -> None:
    request = await asked(place)
    approved = await Payouts(place.db, Terms(fee_basis=300)).approve(request, ADMIN)
    assert approved.request.fee_cents == 150


async def test_a_rejected_request_gives_its_money_back(place: Place) -> None:
    request = await asked(place)
    rejected = (await place.payouts.reject(request, ADMIN, "wrong account")).request
    assert (rejected.status, rejected.note) == ("REJECTED", "wrong account")
    assert (await place.payouts.balance(PAUL)).payable_cents == 5_000
    second = (await place.payouts.request(PAUL)).request.id
    await place.payouts.approve(second, ADMIN)
    await place.payouts.reject(second, ADMIN)
    for step in (
        place.payouts.reject(second, ADMIN),
        place.payouts.approve(second, ADMIN),
        place.payouts.revert(second, ADMIN),
    ):
        assert await refusal(step) == ("conflict", "status")
    await place.right()


async def test_reverting_takes_back_an_approval_and_then_a_payment_that_did_not_arrive(place: Place) -> None:
    request = await asked(place)
    await place.payouts.approve(request, ADMIN, 1_000)
    back = (await place.payouts.revert(request, ADMIN)).request
    assert (back.status, back.fee_cents, back.net_cents) == ("PENDING", None, None)
    await place.payouts.approve(request, ADMIN, 500)
    await place.payouts.complete(request, ADMIN, "t1")
    reverted = (await place.payouts.revert(request, ADMIN, "account closed")).request
    assert (reverted.status, reverted.reverted_at is not None, reverted.net_cents) == ("REVERTED", True, 4_750)
    balance = await place.payouts.balance(PAUL)
    assert (balance.payable_cents, balance.paid_cents) == (5_000, 0)
    assert await refusal(place.payouts.revert(request, ADMIN)) == ("conflict", "status")
    assert (await place.payouts.request(PAUL)).request.amount_cents == 5_000
    await place.right()


async def test_a_reactivated_campaign_neither_pays_again_what_was_paid_nor_eats_what_others_owe(place: Place) -> None:
    campaign = await place.earn(PAUL, 3_000)
    first = (await place.payouts.request(PAUL)).request.id
    await place.payouts.approve(first, ADMIN)
    await place.payouts.complete(first, ADMIN, "t1")
    await place.campaigns.set_budget(campaign, ADMIN, budget_cents=6_000)
    await place.campaigns.reactivate(campaign, ADMIN)
    await place.earn(PAUL, 2_000)
    assert (await place.payouts.balance(PAUL)).payable_cents == 2_000
    (post, *_) = await place.submissions.list(PAUL, campaign=campaign)
    await place.count(post, 6_000, 9)
    assert (await place.payouts.request(PAUL)).request.amount_cents == 5_000
    await place.right()


async def test_who_may_do_and_see_what(place: Place) -> None:
    request = await asked(place)
    steps = place.payouts
    for asking in (
        steps.approve(request, PAUL),
        steps.complete(request, PAUL, "t1"),
        steps.reject(request, PAUL),
        steps.revert(request, PAUL),
        steps.request(PAUL, creator="mary"),
        steps.balance(PAUL, "mary"),
        steps.list(PAUL, creator="mary"),
    ):
        assert (await refusal(asking))[0] == "forbidden"
    assert (await refusal(steps.request(ANONYMOUS)))[0] == "unauthorized"
    assert await refusal(steps.show(request, MARY)) == ("not_found", "id")
    assert await steps.list(MARY) == []
    assert [one.id for one in await steps.list(ADMIN, status="PENDING")] == [request]
    assert (await steps.balance(ADMIN, "paul")).requested_cents == 5_000
    for step in (steps.approve(99_999, ADMIN), steps.reject(99_999, ADMIN)):
        assert await refusal(step) == ("not_found", "id")


async def test_every_step_is_in_the_trail(place: Place) -> None:
    request = await asked(place)
    await place.payouts.approve(request, ADMIN)
    done = await place.payouts.complete(request, ADMIN, "t1")
    entries = await place.rows(
        "select id, who, action from ops.audit where target = $1 order by id", f"payout request {request}"
    )
    assert [(one["who"], one["action"]) for one in entries] == [
        ("paul", "tracking.payout.requested"),
        ("root", "tracking.payout.approved"),
        ("root", "tracking.payout.completed"),
    ]
    assert entries[-1]["id"] == done.audit_id
