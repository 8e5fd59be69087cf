"""Submissions: what is taken, baselines of each kind, what an approval pays, what a rejection ends."""

from __future__ import annotations

import pytest

from server.batching.tracking import submissions
from server.core.identity import ANONYMOUS, Identity
from server.edge.postgres import Database
from server.errors import Refused
from tests.batching.tracking.world import ADMIN, MARY, PAUL, Place, hour, refusal

URL = "https://www.youtube.com/watch?v=dQw4w9WgXcQ"


@pytest.fixture
def place(db: Database) -> Place:
    return Place(db)


async def test_a_post_is_taken_once_however_its_address_is_written(place: Place) -> None:
    campaign = await place.campaign()
    made = await place.submissions.create(campaign, URL, PAUL)
    assert (made.submission.status, made.submission.creator, made.submission.post_id) == (
        "PENDING",
        "paul",
        "dQw4w9WgXcQ",
    )
    for who in (PAUL, MARY):
        again = place.submissions.create(campaign, "https://youtu.be/dQw4w9WgXcQ?si=x", who)
        assert await refusal(again) == ("conflict", "url")
    other = await place.submissions.create(await place.campaign(), URL, MARY)
    assert other.submission.clip_id == made.submission.clip_id
    assert (await place.campaigns.show(campaign, ADMIN)).submissions == 1


async def test_a_new_post_is_due_at_once_and_wants_its_baseline(place: Place) -> None:
    campaign = await place.campaign()
    post = await place.post(campaign, url=URL)
    await place.count(post, 5, 1)
    await place.tell("update tracking.clips set next_due_at = clock_timestamp() + interval '1 day'")
    await place.submissions.create(await place.campaign(), URL, MARY)
    due = "select next_due_at <= clock_timestamp() and baseline_wanted and tracked = 'active' from tracking.clips"
    assert await place.ask(due)


@pytest.mark.parametrize(("end", "words"), [("full", "is full"), ("complete", "has ended"), ("pause", "is PAUSED")])
async def test_a_full_or_inactive_campaign_takes_nothing_and_says_why(place: Place, end: str, words: str) -> None:
    campaign = await place.earn(PAUL, 100) if end == "full" else await place.campaign()
    if end != "full":
        await getattr(place.campaigns, end)(campaign, ADMIN)
    with pytest.raises(Refused, match=words) as refused:
        await place.submissions.create(campaign, URL, MARY)
    assert (refused.value.code, refused.value.field) == ("conflict", "campaignId")


async def test_what_cannot_be_submitted_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    campaign = await place.campaign()
    create = place.submissions.create
    assert await refusal(create(99_999, URL, PAUL)) == ("not_found", "campaignId")
    assert await refusal(create(campaign, "https://www.youtube.com/@name", PAUL)) == ("bad_message", "url")
    assert (await refusal(create(campaign, URL, PAUL, creator="mary")))[0] == "forbidden"
    assert (await refusal(create(campaign, URL, ANONYMOUS)))[0] == "unauthorized"
    assert await refusal(create(campaign, URL, Identity("a\x00b"))) == ("bad_message", "creator")
    assert (await create(campaign, URL, ADMIN, creator="mary")).submission.creator == "mary"
    monkeypatch.setattr(submissions, "SUBMISSIONS_MOST", 1)
    assert await refusal(create(campaign, "https://youtu.be/another0001", PAUL)) == ("too_many", "campaignId")


async def test_a_creator_sees_only_its_own_and_an_admin_all(place: Place) -> None:
    campaign = await place.campaign()
    mine, other = await place.post(campaign), await place.post(campaign, MARY)
    assert [one.id for one in await place.submissions.list(PAUL)] == [mine.id]
    assert [one.id for one in await place.submissions.list(ADMIN)] == [other.id, mine.id]
    assert [one.id for one in await place.submissions.list(ADMIN, creator="mary", campaign=campaign)] == [other.id]
    assert await place.submissions.list(ADMIN, status="REJECTED") == []
    for asking in (place.submissions.show(other.id, PAUL), place.submissions.views(other.id, PAUL)):
        assert await refusal(asking) == ("not_found", "id")
    assert (await refusal(place.submissions.list(PAUL, creator="mary")))[0] == "forbidden"


# --- baselines ---


async def test_with_the_baseline_of_the_submission_growth_while_it_waits_is_paid_by_the_approval(place: Place) -> None:
    post = await place.post(await place.campaign(rate=100), approve=False)
    await place.count(post, 1_000, 1)
    assert (await place.count(post, 31_000, 2)).granted_cents == 0
    decided = await place.submissions.approve(post.id, ADMIN)
    assert (decided.granted_cents, decided.submission.earned_cents) == (3_000, 3_000)
    line = (await place.rows("select observation_id, views from tracking.earnings_ledger"))[0]
    assert (line["observation_id"], line["views"]) == (2, 31_000)
    await place.right()


async def test_with_the_baseline_of_the_approval_only_growth_after_it_is_paid(place: Place) -> None:
    post = await place.post(await place.campaign(rate=100, baseline="approval"), approve=False)
    await place.count(post, 1_000, 1)
    assert (await place.submissions.approve(post.id, ADMIN)).granted_cents == 0
    assert await place.ask("select baseline_wanted and next_due_at <= clock_timestamp() from tracking.clips")
    await place.count(post, 2_000, 2)
    assert (await place.show(post.id)).baseline_views is None, "observed before the approval"
    await place.tell("update tracking.clip_submissions set baseline_from = $1", hour(3))
    assert (await place.count(post, 50_000, 3)).granted_cents == 0
    assert (await place.count(post, 60_000, 4)).granted_cents == 1_000
    assert (await place.show(post.id)).baseline_views == 50_000
    await place.right()


async def test_with_the_baseline_zero_every_view_is_paid(place: Place) -> None:
    post = await place.post(await place.campaign(rate=100, baseline="zero"))
    assert (await place.count(post, 50_000, 1)).granted_cents == 5_000
    assert not await place.ask("select baseline_wanted from tracking.clips")
    await place.right()


async def test_a_baseline_that_could_not_be_read_stays_unset_and_nothing_is_earned_until_it_is(place: Place) -> None:
    post = await place.post(await place.campaign())
    await place.tell("update tracking.clip_submissions set baseline_from = $1", hour(10))
    await place.count(post, 10_000, 5)
    assert (await place.count(post, 90_000, 9)).granted_cents == 0
    assert (await place.show(post.id)).baseline_views is None
    assert await place.ask("select baseline_wanted from tracking.clips")
    await place.count(post, 95_000, 11)
    assert (await place.show(post.id)).baseline_views == 95_000
    await place.right()


async def test_a_baseline_taken_at_a_lower_count_is_the_best_of_that_time(place: Place) -> None:
    first = await place.post(await place.campaign(), url=URL)
    await place.count(first, 50_000, 1)
    late = await place.post(await place.campaign(rate=100), MARY, url=URL)
    await place.tell("update tracking.clip_submissions set baseline_from = $2 where id = $1", late.id, hour(2))
    await place.count(late, 20_000, 3)
    assert (await place.show(late.id)).baseline_views == 50_000
    assert (await place.count(late, 51_000, 4)).granted_cents == 100 + 150
    await place.right()


# --- judging ---


async def test_judging_leads_only_where_it_may_and_is_told_and_noted(place: Place) -> None:
    post = await place.post(await place.campaign(), approve=False)
    approved = await place.submissions.approve(post.id, ADMIN)
    assert await refusal(place.submissions.approve(post.id, ADMIN)) == ("conflict", "status")
    rejected = await place.submissions.reject(post.id, ADMIN, "bought views")
    assert (rejected.submission.status, rejected.submission.note) == ("REJECTED", "bought views")
    for asking in (place.submissions.approve(post.id, ADMIN), place.submissions.reject(post.id, ADMIN)):
        assert await refusal(asking) == ("conflict", "status")
    told = [(one.kind, "bought views" in one.message) for one in await place.earnings.notifications(PAUL)]
    assert told == [("submission-rejected", True), ("submission-approved", False)]
    entries = await place.rows(
        "select id, who, action from ops.audit where target = $1 order by id", f"submission {post.id}"
    )
    assert [one["action"].rpartition(".")[2] for one in entries] == ["created", "approved", "rejected"]
    assert [one["who"] for one in entries] == ["paul", "root", "root"]
    assert [one["id"] for one in entries][1:] == [approved.audit_id, rejected.audit_id]


async def test_judging_is_for_admins(place: Place) -> None:
    post = await place.post(await place.campaign(), approve=False)
    for asking in (place.submissions.approve(post.id, PAUL), place.submissions.reject(post.id, PAUL)):
        assert (await refusal(asking))[0] == "forbidden"
    assert await refusal(place.submissions.approve(99_999, ADMIN)) == ("not_found", "id")
    assert await refusal(place.submissions.reject(post.id, ADMIN, "x" * 501)) == ("bad_message", "note")


async def test_in_a_completed_campaign_nothing_is_approved(place: Place) -> None:
    campaign = await place.campaign()
    post = await place.post(campaign, approve=False)
    await place.campaigns.complete(campaign, ADMIN)
    assert await refusal(place.submissions.approve(post.id, ADMIN)) == ("conflict", "status")


async def test_an_approval_may_fill_the_campaign(place: Place) -> None:
    campaign = await place.campaign(1_000, 1_000)
    post = await place.post(campaign, approve=False)
    await place.count(post, 0, 1)
    await place.count(post, 5_000, 2)
    decided = await place.submissions.approve(post.id, ADMIN)
    assert (decided.granted_cents, decided.completed, decided.submission.final_cents) == (1_000, (campaign,), 1_000)
    await place.right()


async def test_a_rejected_submission_earns_no_more_and_keeps_what_it_has(place: Place) -> None:
    campaign = await place.campaign(rate=100)
    post = await place.post(campaign)
    await place.count(post, 0, 1)
    await place.count(post, 10_000, 2)
    await place.submissions.reject(post.id, ADMIN)
    assert (await place.count(post, 90_000, 3)).granted_cents == 0
    assert (await place.show(post.id)).earned_cents == 1_000
    assert await place.ask("select tracked from tracking.clips") == "none"
    await place.right()


async def test_a_rejected_post_may_come_again_unless_it_has_earned(place: Place) -> None:
    campaign = await place.campaign(baseline="zero")
    first = await place.post(campaign, approve=False, url=URL)
    await place.submissions.reject(first.id, ADMIN)
    second = await place.post(campaign, url=URL)
    await place.count(second, 10_000, 1)
    await place.submissions.reject(second.id, ADMIN)
    assert await refusal(place.submissions.create(campaign, URL, PAUL)) == ("conflict", "url")
