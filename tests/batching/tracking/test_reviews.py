"""Counts that jump wait for an admin, and settle once when they are accepted."""

from __future__ import annotations

import asyncio

import pytest

from server.edge.postgres import Database
from server.errors import Refused
from tests.batching.tracking.world import ADMIN, MARY, PAUL, Place, hour, refusal


@pytest.fixture
def place(db: Database) -> Place:
    return Place(db)


async def jumped(place: Place, *counts: int, budget: int = 10_000_000) -> tuple[int, list[int]]:
    """A post with the baseline 1,000 and then these counts; the submission, and the numbers of what is held."""
    post = await place.post(await place.campaign(budget, 100))
    await place.count(post, 1_000, 1)
    stored = [(await place.count(post, views, at + 2)).stored[0] for at, views in enumerate(counts)]
    return post.id, [one.observation_id for one in stored if one.state == "held"]


async def test_a_jump_is_held_and_neither_counts_nor_earns(place: Place) -> None:
    submission, (held,) = await jumped(place, 200_000)
    post = await place.show(submission)
    assert (post.best_views, post.earned_cents, post.last_checked_at) == (1_000, 0, hour(2))
    (waiting,) = await place.reviews.held(ADMIN)
    assert (waiting.observation_id, waiting.views, waiting.before, waiting.url) == (held, 200_000, 1_000, post.url)
    await place.right()


async def test_an_accepted_jump_settles_once(place: Place) -> None:
    submission, (held,) = await jumped(place, 201_000)
    verdict = await place.reviews.accept(held, ADMIN)
    assert (verdict.state, verdict.granted_cents, verdict.also) == ("accepted", 20_000, ())
    assert (await place.show(submission)).best_views == 201_000
    assert await refusal(place.reviews.accept(held, ADMIN)) == ("conflict", "id")
    assert await refusal(place.reviews.reject(held, ADMIN)) == ("conflict", "id")
    assert (await place.show(submission)).earned_cents == 20_000
    assert await place.reviews.held(ADMIN) == []
    await place.right()


async def test_two_admins_who_accept_at_once_pay_once(place: Place) -> None:
    submission, (held,) = await jumped(place, 201_000)
    done = await asyncio.gather(*(place.reviews.accept(held, ADMIN) for _ in range(4)), return_exceptions=True)
    assert sum(isinstance(one, Refused) for one in done) == 3
    assert (await place.show(submission)).earned_cents == 20_000
    await place.right()


async def test_a_rejected_jump_never_counts_and_the_clip_goes_on_from_its_best(place: Place) -> None:
    submission, (held,) = await jumped(place, 200_000)
    verdict = await place.reviews.reject(held, ADMIN)
    assert (verdict.state, verdict.granted_cents) == ("rejected", 0)
    post = await place.show(submission)
    assert (await place.count(post, 11_000, 9)).granted_cents == 1_000
    assert (await place.show(submission)).best_views == 11_000
    await place.right()


async def test_accepting_one_accepts_those_before_it_and_those_after_it_that_are_no_jumps_by_then(place: Place) -> None:
    submission, held = await jumped(place, 150_000, 200_000, 300_000, 90_000_000)
    verdict = await place.reviews.accept(held[1], ADMIN)
    assert verdict.also == (held[0], held[2])
    assert [one.observation_id for one in await place.reviews.held(ADMIN)] == [held[3]]
    post = await place.show(submission)
    assert (post.best_views, post.views, post.earned_cents) == (300_000, 300_000, 29_900)
    await place.right()


async def test_rejecting_one_rejects_those_before_it_and_leaves_those_after_it(place: Place) -> None:
    _, held = await jumped(place, 150_000, 200_000, 300_000)
    verdict = await place.reviews.reject(held[1], ADMIN)
    assert verdict.also == (held[0],)
    assert [one.observation_id for one in await place.reviews.held(ADMIN)] == [held[2]]


async def test_accepting_may_fill_a_campaign(place: Place) -> None:
    submission, (held,) = await jumped(place, 200_000, budget=5_000)
    verdict = await place.reviews.accept(held, ADMIN)
    post = await place.show(submission)
    assert (verdict.granted_cents, verdict.completed, post.final_cents) == (5_000, (post.campaign_id,), 5_000)
    assert await place.ask("select tracked from tracking.clips") == "ended"
    await place.right()


async def test_a_submission_that_waits_for_its_baseline_gets_it_from_the_accepted_count(place: Place) -> None:
    _, (held,) = await jumped(place, 200_000)
    url = (await place.submissions.list(PAUL))[0].url
    late = await place.post(await place.campaign(), MARY, url=url)
    await place.tell(
        "update tracking.clip_submissions set baseline_views = null, baseline_at = null where id = $1", late.id
    )
    await place.reviews.accept(held, ADMIN)
    late = await place.show(late.id)
    assert (late.baseline_views, late.baseline_at, late.earned_cents) == (200_000, hour(2), 0)
    await place.right()


async def test_who_submitted_after_the_jump_does_not_earn_it(place: Place) -> None:
    first, (held,) = await jumped(place, 200_000)
    url = (await place.show(first)).url
    late = await place.post(await place.campaign(rate=100), MARY, url=url)
    await place.tell("update tracking.clip_submissions set baseline_from = $2 where id = $1", late.id, hour(5))
    await place.count(late, 1_500, 6)
    await place.reviews.accept(held, ADMIN)
    await place.count(late, 201_000, 7)
    assert [(await place.show(one)).earned_cents for one in (first, late.id)] == [20_000, 100]
    await place.right()


async def test_judging_is_for_admins_and_is_in_the_trail(place: Place) -> None:
    _, (held,) = await jumped(place, 200_000)
    for verb in (place.reviews.accept(held, PAUL), place.reviews.reject(held, PAUL), place.reviews.held(PAUL)):
        assert (await refusal(verb))[0] == "forbidden"
    assert await refusal(place.reviews.accept(99_999, ADMIN)) == ("not_found", "id")
    verdict = await place.reviews.accept(held, ADMIN)
    (entry,) = await place.rows("select who, action, target from ops.audit where id = $1", verdict.audit_id)
    assert tuple(entry) == ("root", "tracking.observation.accepted", f"observation {held}")
    judged = await place.rows("select state, judged_by from tracking.view_tracking where id = $1", held)
    assert [tuple(row) for row in judged] == [("accepted", "root")]
