"""What is old is forgotten in slices; what waits stays, and nothing that is forgotten can be paid again."""

from __future__ import annotations

import pytest

from server.batching.tracking import upkeep
from server.edge.postgres import Database
from tests.batching.tracking.world import ADMIN, PAUL, Place


@pytest.fixture
def place(db: Database) -> Place:
    return Place(db)


async def test_counts_settled_long_ago_go_in_slices_and_money_still_adds_up(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "FORGET_SLICE", 2)
    post = await place.post(await place.campaign(rate=1_000))
    for at, views in enumerate((100, 600, 1_100, 90_000_000)):
        await place.count(post, views, at)
    assert [await upkeep.forget(place.db, 30) for _ in range(3)] == [2, 1, 0]
    (held,) = await place.reviews.held(ADMIN)
    assert (await place.count(post, 600, 1)).granted_cents == 0
    assert (await place.show(post.id)).earned_cents == 1_000
    await place.right()
    await place.reviews.accept(held.observation_id, ADMIN)
    await place.right()


async def test_what_is_younger_stays(place: Place) -> None:
    post = await place.post(await place.campaign())
    await place.count(post, 100, 1)
    await place.tell("update tracking.view_tracking set observed_at = clock_timestamp() - interval '29 days'")
    assert await upkeep.forget(place.db, 30) == 0


async def test_what_creators_were_told_goes_too_but_not_how_a_completed_campaign_ended(place: Place) -> None:
    await place.earn(PAUL, 2_500)
    await place.tell("update tracking.notifications set created_at = created_at - interval '31 days'")
    await upkeep.forget(place.db, 30)
    assert [one.kind for one in await place.earnings.notifications(PAUL)] == ["campaign-completed"]
    await place.right()
