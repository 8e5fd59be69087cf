"""What clips gain, told to the events that they belong to, each view once."""

from __future__ import annotations

import pytest

from server.batching.tracking import growth
from server.batching.tracking.growth import Growth
from server.edge.bus import Envelope
from server.edge.postgres import Database
from server.errors import Refused
from tests.batching.tracking.running import ADMIN, Node, node


async def told(here: Node) -> list[Growth]:
    """All that the bus was given, in its order."""
    rows = await here.rows("select payload from ops.outbox where topic = $1 order by seq", growth.TOPIC)
    heard: list[Growth] = []

    async def hear(messages: list[Envelope]) -> None:
        heard.extend(one for message in messages for one in growth.read(message.payload))

    subscription = here.bus.subscribe([growth.TOPIC], hear, {here.bus.node: 0})
    while (await here.bus.step()).more:
        pass
    subscription.close()
    assert len(heard) >= len(rows)
    return heard


async def look(here: Node, views: int) -> None:
    here.views.usual = views
    await here.due_again()
    await here.work()


async def test_an_event_is_told_what_its_clip_gained_since_it_was_linked_each_view_once(db: Database) -> None:
    async with node(db, tracking_popularity=True) as here:
        post = await here.post(await here.campaign())
        await here.work()
        audit_id = await here.tracker.link(post.clip_id, "event 1", ADMIN)
        assert audit_id > 0
        for views in (150, 150, 120, 151):
            await look(here, views)
        assert [(one.event_id, one.views) for one in await told(here)] == [("event 1", 50), ("event 1", 1)]
        keys = [one.key for one in await told(here)]
        assert len(set(keys)) == 2


async def test_what_a_clip_had_before_its_first_count_is_no_growth(db: Database) -> None:
    async with node(db, tracking_popularity=True) as here:
        post = await here.post(await here.campaign())
        await here.tracker.link(post.clip_id, "event 1", ADMIN)
        await look(here, 1_000_000)
        assert await told(here) == []
        await look(here, 1_000_010)
        assert [one.views for one in await told(here)] == [10]


async def test_a_jump_that_is_held_is_told_to_nobody(db: Database) -> None:
    async with node(db, tracking_popularity=True) as here:
        post = await here.post(await here.campaign())
        await here.work()
        await here.tracker.link(post.clip_id, "event 1", ADMIN)
        await look(here, 9_000_000)
        assert await told(here) == []
        assert "held" in here.noted


async def test_nothing_is_told_unless_the_setting_says_so_or_after_the_link_is_taken_away(db: Database) -> None:
    async with node(db) as here:
        post = await here.post(await here.campaign())
        await here.work()
        await here.tracker.link(post.clip_id, "event 1", ADMIN)
        await look(here, 200)
        assert await told(here) == []
    async with node(db, tracking_popularity=True) as here:
        await here.tracker.link(post.clip_id, None, ADMIN)
        await look(here, 300)
        assert await told(here) == []


async def test_a_link_needs_a_clip_and_an_id_that_can_be(db: Database) -> None:
    async with node(db) as here:
        post = await here.post(await here.campaign())
        for clip, event, code in (
            (post.clip_id, "", "bad_message"),
            (post.clip_id, "x" * 201, "bad_message"),
            (9_999, "e", "not_found"),
        ):
            with pytest.raises(Refused) as refused:
                await here.tracker.link(clip, event, ADMIN)
            assert refused.value.code == code


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"growth": 3},
        {"growth": [3, {}, {"event": 1, "views": 2, "key": "k"}, {"event": "e", "views": 0, "key": "k"}]},
    ],
)
def test_a_message_in_another_form_says_nothing(payload: dict[str, object]) -> None:
    assert growth.read(payload) == ()
