"""`verify` finds each way in which money can be wrong, and names it; the figures say what waits."""

from __future__ import annotations

import pytest

from server.batching.loop import TurnRecord
from server.batching.tracking.checking import CHECKS, verify
from server.batching.tracking.store import serving
from server.batching.tracking.sums import RULES, read
from server.edge.postgres import Database
from tests.batching.tracking.world import ADMIN, MARY, PAUL, Place

SPOILED = {
    "campaign-spent": (
        "update tracking.campaigns set spent_cents = spent_cents - 1 where id = 1",
        "campaign 1 has spent 2999 cents, its ledger says 3000",
    ),
    "campaign-budget": (
        "update tracking.earnings_ledger set amount_cents = amount_cents + 1 where campaign_id = 1",
        "campaign 1 (COMPLETED) may grant 3000 cents, its ledger says 3001",
    ),
    "submission-earned": (
        "update tracking.clip_submissions set earned_cents = 3005 where id = 1",
        "submission 1 has earned 3005 cents, its ledger says 3000",
    ),
    "ledger-owner": (
        "update tracking.earnings_ledger set creator = 'eve' where campaign_id = 1",
        "line 1 of submission 1 names campaign 1 and eve, not 1 and paul",
    ),
    "entitlement": (
        "update tracking.clips set best_views = 2000 where id = 1",
        "submission 1 of campaign 1 was granted 3000 cents",
    ),
    "owed": (
        "delete from tracking.earnings_ledger where campaign_id = 2; update tracking.clip_submissions set earned_cents = 0 where id = 2",
        "submission 2 of campaign 2 has earned 0 cents and should have 500",
    ),
    "final": ("update tracking.clip_submissions set final_cents = 7 where id = 1", "its final earnings say 7"),
    "best-views": (
        "update tracking.clips set best_views = 499 where id = 2",
        "clip 2 has the best count 499, its observations say 500",
    ),
    "claimed": (
        "update tracking.clip_submissions set claimed_cents = 2999 where id = 1",
        "submission 1 has 2999 cents claimed, its requests say 3000",
    ),
    "requests": (
        "update tracking.payout_items set amount_cents = 2999",
        "payout request 1 of paul is over 3000 cents, its items say 2999",
    ),
    "payouts": (
        "update tracking.payouts set fee_cents = 1, net_cents = 2999",
        "payout request 1 is COMPLETED, its payout says 3000 cents, fee 1, net 2999",
    ),
    "told": (
        "delete from tracking.notifications where kind = 'campaign-completed'",
        "paul was told 0 times that campaign 1 is complete",
    ),
}


@pytest.fixture
async def place(db: Database) -> Place:
    """Paul has earned 3,000 cents and been paid, Mary has earned 500 in a campaign that goes on."""
    place = Place(db)
    await place.earn(PAUL, 3_000)
    await place.earn(MARY, 500, end=False)
    request = (await place.payouts.request(PAUL)).request.id
    await place.payouts.approve(request, ADMIN)
    await place.payouts.complete(request, ADMIN, "t1")
    return place


async def test_every_check_finds_its_own_fault_and_names_it(place: Place) -> None:
    assert set(SPOILED) == set(CHECKS)
    await place.right()
    for name, (sql, words) in SPOILED.items():
        async with place.db.connection() as connection:
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute(sql)
            rows = await connection.fetch(CHECKS[name][1])
            await transaction.rollback()
        assert [words in row["what"] for row in rows] == [True], (name, rows)


async def test_verify_says_how_many_and_shows_the_first(place: Place) -> None:
    await place.tell("update tracking.campaigns set spent_cents = 1")
    report = await verify(place.db)
    (wrong,) = [check for check in report.checks if not check.ok]
    assert (report.ok, wrong.name, wrong.failed) == (False, "campaign-spent", 2)
    assert wrong.examples[0] == "campaign 1 has spent 1 cents, its ledger says 3000"


async def test_figures_say_what_was_granted_and_what_waits(place: Place) -> None:
    post = (await place.submissions.list(MARY))[0]
    await place.count(post, 10_000_000, 9)
    await place.earn(MARY, 2_500)
    await place.payouts.request(MARY)
    await place.post(await place.campaign(1_000), approve=False)
    async with serving(place.db) as connection:
        sums = await read(connection)
    assert (sums.campaigns_active, sums.campaigns_completed, sums.campaigns_pressing) == (2, 2, 1)
    assert (sums.spent_cents, sums.left_cents, sums.paid_cents) == (6_000, 1_001, 3_000)
    assert (sums.payouts_pending, sums.payouts_approved, sums.payouts_cents, sums.submissions_pending) == (
        1,
        0,
        2_500,
        1,
    )
    assert sums.held == 1 and sums.held_hours > 24
    assert set(sums.detail) >= {"held", "payouts_hours"}


def record(**detail: int | float) -> TurnRecord:
    return TurnRecord("tracking-watch", 1, "interval", 0, 0.0, detail=detail)


def test_alerts_tell_of_counts_and_payouts_that_wait_too_long() -> None:
    held, payouts = RULES
    said = {"held": 2, "held_hours": 25.0, "payouts_pending": 1, "payouts_approved": 1, "payouts_hours": 73.0}
    assert "2, the oldest for 25 h" in (held.test({"tracking-watch": (record(**said),)}, 0) or "")
    assert "2, the oldest for 73 h" in (payouts.test({"tracking-watch": (record(**said),)}, 0) or "")
    calm = {"held": 2, "held_hours": 24.0, "payouts_hours": 72.0}
    for rule in RULES:
        assert rule.test({"tracking-watch": (record(**calm),)}, 0) is None
        assert rule.test({}, 0) is None
