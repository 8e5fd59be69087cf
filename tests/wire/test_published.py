"""What is published at once and what waits for the batch, as a viewer sees it."""

from typing import Any

import asyncpg
import pytest

from tests.serving import BERLIN, WORLD, Live, Message, Start, Talk, event, spread, until


def counters(one: Message) -> tuple[int, int, int]:
    return one["scanCount"], one["saveCount"], one["rsvpCount"]


def ids(events: list[Message]) -> list[str]:
    return [one["id"] for one in events]


# --- at once ---


async def test_create_change_and_delete_come_at_once_as_messages_of_their_own(place: Live) -> None:
    talk, producer = await place.watching(), await place.talk("producer")
    ack = await producer.ask("event-upsert", event=event("a", sharedWith=["carla"]))
    added = await talk.get("add-event")
    assert (added["seq"], added["event"]["id"], added["event"]["version"]) == (2, "a", ack["version"])
    assert added["event"]["relevanceScore"] == 1.0
    assert "sharedWith" not in added["event"]
    ack = await producer.ask("event-upsert", event={"id": "a", "title": "Changed"})
    changed = await talk.get("update-event")
    assert (changed["event"]["title"], changed["event"]["version"]) == ("Changed", ack["version"])
    await producer.ask("event-delete", id="a")
    assert (await talk.get("delete-event"))["id"] == "a"
    assert talk.view.events == {}


async def test_several_changes_at_once_are_one_message(start: Start) -> None:
    place = await start(IMMEDIATE_GROUP_MS=50)
    talk = await place.watching()
    await place.put(*spread(5))
    change = await talk.get("changes")
    assert "ref" not in change
    assert sorted(ids(change["updates"]["creates"])) == [f"e{n}" for n in range(5)]
    await place.put({"id": "e0", "title": "x"}, {"id": "e1", "status": "REJECTED"}, event("e9"))
    updates = (await talk.get("changes"))["updates"]
    assert (ids(updates["creates"]), ids(updates["updates"]), updates["deletes"]) == (["e9"], ["e0"], ["e1"])


async def test_an_upsert_that_changes_nothing_sends_nothing(place: Live) -> None:
    row = event("a", categories=["music"], properties={"b": 1, "a": [1, 2]})
    await place.put(row)
    talk = await place.watching()
    await place.put({**row, "properties": {"a": [1, 2], "b": 1}}, {"id": "a"})
    assert await talk.settled() == []


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"isPrivate": True}, "delete-event"),
        ({"status": "REJECTED"}, "delete-event"),
        ({"status": "EXPIRED"}, "delete-event"),
        ({"location": {"latitude": 0, "longitude": 0}}, "delete-event"),
        ({"start": 4_000_000_000_000}, "delete-event"),
        ({"location": {"latitude": 52.6, "longitude": 13.4}}, "update-event"),
        ({"status": "PENDING"}, "update-event"),
        ({"priority": "high"}, "update-event"),
    ],
)
async def test_a_change_that_takes_an_event_out_of_view_is_a_delete_any_other_an_update(
    place: Live, change: Message, kind: str
) -> None:
    await place.put(event("a"))
    talk = await place.watching()
    await place.put({"id": "a", **change})
    assert kind == (await talk.get(kind))["type"]


async def test_what_becomes_private_is_deleted_for_others_and_stays_for_its_creator_and_those_it_is_shared_with(
    place: Live,
) -> None:
    await place.put(event("a", creatorId="carla", sharedWith=["sam"]))
    carla, sam, nosy, nobody = [await place.watching(sub=sub) for sub in ("carla", "sam", "nosy", None)]
    await place.put({"id": "a", "isPrivate": True})
    for talk in (carla, sam):
        assert (await talk.get("update-event"))["event"]["isPrivate"] is True
    for talk in (nosy, nobody):
        assert (await talk.get("delete-event"))["id"] == "a"
    await place.put({"id": "a", "sharedWith": ["nosy"]})
    await sam.get("delete-event")
    await nosy.get("add-event")
    assert await nobody.settled() == []


async def test_a_newcomer_pushes_the_last_one_out_of_a_full_view_and_a_worse_one_touches_nobody(place: Live) -> None:
    await place.put(
        event("good", rsvpCount=3, location=[13.4, 52.5]), event("last", location=[13.5, 52.5], rsvpCount=1)
    )
    talk = await place.watching(maxEvents=2)
    await place.put(event("worse", location=[13.9, 52.9]))
    assert await talk.settled() == []
    await place.put(event("better", rsvpCount=2, location=[13.45, 52.5]))
    updates = (await talk.get("changes"))["updates"]
    assert (ids(updates["creates"]), ids(updates["updates"]), updates["deletes"]) == (["better"], [], ["last"])
    await place.ask("DELETE", "/events/good")
    updates = (await talk.get("changes"))["updates"]
    assert (ids(updates["creates"]), updates["deletes"]) == (["last"], ["good"])


async def test_with_reasons_a_delete_says_why(place: Live) -> None:
    changes: dict[str, Message] = {
        "left_view": {"location": [0, 0]},
        "filtered": {"title": "Something else"},
        "ended": {"start": 0},
        "removed": {"status": "REJECTED"},
        "hidden": {"isPrivate": True},
    }
    await place.put(*(event(why, location=[13.1 + n / 10, 52.5]) for n, why in enumerate(changes)))
    talk, plain = await place.watching(reasons=True, filters=[{"text": "title"}]), await place.watching()
    for why, change in changes.items():
        await place.put({"id": why, **change})
        gone = await talk.get("delete-event")
        assert (gone["id"], gone["reason"]) == (why, why)
        assert "reason" not in str(await plain.settled())
    await place.put(*spread(2, "t", title="title"))
    await talk.settled()
    await place.ask("DELETE", "/events/t0")
    assert (await talk.get("delete-event"))["reason"] == "removed"
    away = await talk.ask("viewport-update", viewport={**BERLIN, "west": 13.9})
    assert away["updates"]["reasons"] == {"t1": "left_view"}


async def test_what_is_pushed_out_is_outranked_and_what_is_hidden_and_refused_is_only_hidden(place: Live) -> None:
    await place.put(event("first", rsvpCount=9), event("second", location=[13.6, 52.5], rsvpCount=1))
    talk = await place.watching(reasons=True, maxEvents=2)
    await place.put(event("third", location=[13.5, 52.5], rsvpCount=2))
    assert (await talk.get("changes"))["updates"]["reasons"] == {"second": "outranked"}
    await place.put({"id": "first", "isPrivate": True, "status": "REJECTED"})
    assert (await talk.get("changes"))["updates"]["reasons"] == {"first": "hidden"}


# --- with the batch ---


async def test_popularity_waits_for_the_batch_and_then_comes_once_with_the_newest_counters(place: Live) -> None:
    await place.put(*spread(12), event("b", location={"latitude": 52.6, "longitude": 13.4}))
    talk, producer = await place.watching(), await place.talk("producer")
    for number in range(1, 4):
        await producer.ask("popularity-update", eventId="b", scanCount=number, rsvpCount=number)
    assert counters((await place.ask("GET", "/events/b")).json) == (3, 0, 3)
    assert await talk.settled() == []
    assert counters(await snapshot_of(place, "b")) == (0, 0, 0)
    assert (await place.stats())["pendingUpdates"] == 1
    turn = await place.force()
    assert (turn["taken"], turn["done"]) == (1, 1)
    batch = await talk.get("batch-update")
    assert counters(next(e for e in batch["updates"]["updates"] if e["id"] == "b")) == (3, 0, 3)
    assert batch["summary"] == {
        "totalEvents": 13,
        "newEvents": 0,
        "updatedEvents": len(batch["updates"]["updates"]),
        "deletedEvents": 0,
    }
    assert batch["timestamp"].endswith("Z")
    await place.force()
    assert await talk.settled() == []


async def snapshot_of(place: Live, event_id: str, **registration: Any) -> Message:
    """The published state, as a viewer that comes now gets it."""
    talk = await place.watching(**{"viewport": WORLD, **registration})
    found: Message = talk.view.events[event_id]
    await talk.socket.close()
    return found


async def test_counters_that_come_back_to_what_is_published_are_not_pending(place: Live) -> None:
    await place.put(event("a", scanCount=1))
    talk = await place.watching()
    await place.count("a", delta={"scanCount": 4})
    await place.count("a", delta={"scanCount": -4})
    assert (await place.stats())["pendingUpdates"] == 0
    assert (await place.force())["taken"] == 0
    assert await talk.settled() == []


async def test_each_viewer_gets_one_frame_for_many_events_in_slices(start: Start) -> None:
    place = await start(MAX_BATCH_SIZE=10)
    await place.put(*spread(25))
    await place.ask("PATCH", "/config", json={"maxBatchSize": 10})
    talks = [await place.watching() for _ in range(3)]
    rows = [{"eventId": f"e{n}", "scanCount": 9} for n in range(25)]
    await place.ask("POST", "/popularity", json=rows)
    await place.force()
    for talk in talks:
        assert (await talk.get("batch-update"))["summary"]["updatedEvents"] == 25
        assert await talk.settled() == []


async def test_max_batch_size_pending_events_cause_an_early_flush(start: Start) -> None:
    place = await start(MAX_BATCH_SIZE=3, MIN_FLUSH_GAP_MS=0)
    await place.put(*spread(3))
    talk = await place.watching()
    for number in range(2):
        await place.count(f"e{number}", scanCount=5)
    assert await talk.settled() == []
    await place.count("e2", scanCount=5)
    assert (await talk.get("batch-update"))["summary"]["updatedEvents"] == 3


async def test_the_interval_flushes_and_where_nothing_changed_nothing_is_sent(start: Start) -> None:
    place = await start(BATCH_INTERVAL_MS=100)
    await place.put(event("a"))
    talk = await place.watching()
    admin = await place.talk("admin")
    await place.count("a", scanCount=5)
    assert counters((await talk.get("batch-update"))["updates"]["updates"][0]) == (5, 0, 0)
    before = (await admin.ask("get-stats"))["totalUsersUpdated"]
    await admin.ask("subscribe", topic="loops")
    flushes = 0
    while flushes < 3:
        flushes += (await admin.get("status"))["loop"] == "scores"
    assert await talk.settled() == []
    assert (await admin.ask("get-stats"))["totalUsersUpdated"] == before


async def test_pending_counters_leave_with_an_immediate_change_of_their_event(place: Live) -> None:
    await place.put(event("a"), event("b", location={"latitude": 52.6, "longitude": 13.4}))
    talk = await place.watching()
    await place.count("a", scanCount=5)
    await place.put({"id": "a", "title": "Changed"})
    changed = (await talk.get("update-event"))["event"]
    assert (changed["title"], counters(changed)) == ("Changed", (5, 0, 0))
    assert (await place.stats())["pendingUpdates"] == 0
    assert (await place.force())["taken"] == 0


async def test_priority_high_on_the_update_or_the_event_does_not_wait_for_the_batch(start: Start) -> None:
    place = await start(URGENT_GAP_MS=100)
    await place.put(event("a"), event("b", location={"latitude": 52.6, "longitude": 13.4}, priority="high"))
    talk = await place.watching()
    await place.count("a", scanCount=5, priority="high")
    assert counters((await talk.get("update-event"))["event"]) == (5, 0, 0)
    for number in (1, 2):
        await place.count("b", scanCount=number)
        assert counters((await talk.get("update-event"))["event"]) == (number, 0, 0)
    await place.count("a", scanCount=6)
    assert await talk.settled() == []
    assert (await place.stats())["pendingUpdates"] == 1


# --- scores ---


def rivals() -> list[Message]:
    """Eleven events whose relative scores all move when one of them becomes popular."""
    return spread(11, confidence=0.5)


async def test_scores_that_others_moved_wait_for_the_batch(place: Live) -> None:
    await place.put(*rivals())
    talk = await place.watching()
    await place.put({"id": "e3", "rsvpCount": 9, "title": "Now popular"})
    assert (await talk.get("update-event"))["event"]["relevanceScore"] == 1.0
    assert await talk.settled() == []
    await place.force()
    moved = (await talk.get("batch-update"))["updates"]["updates"]
    assert "e3" not in ids(moved)
    assert len(moved) == 10


async def test_a_score_that_moved_by_less_than_the_threshold_is_not_sent(start: Start) -> None:
    place = await start(SCORE_THRESHOLD=1)
    await place.put(*rivals())
    talk = await place.watching()
    await place.count("e3", rsvpCount=9)
    await place.force()
    assert ids((await talk.get("batch-update"))["updates"]["updates"]) == ["e3"]


async def test_after_every_batch_what_is_held_equals_a_fresh_snapshot(place: Live) -> None:
    await place.put(*spread(60))
    talk = await place.watching(maxEvents=20)
    for number in range(60):
        await place.count(f"e{number}", scanCount=number % 11, rsvpCount=(7 * number) % 4)
        if number % 15 == 14:
            await place.force()
            await talk.get("batch-update")
            fresh = await place.watching(maxEvents=20)
            assert sorted(fresh.view.held()) == sorted(talk.view.held())
            for event_id, one in fresh.view.events.items():
                assert abs(one["relevanceScore"] - talk.view.events[event_id]["relevanceScore"]) < 0.0101


# --- without batching ---


async def test_without_batching_counters_and_every_score_they_move_come_at_once(start: Start) -> None:
    place = await start(ENABLE_BATCHING="false")
    await place.put(*rivals())
    talk = await place.watching()
    await place.count("e3", rsvpCount=9)
    updates = (await talk.get("changes"))["updates"]["updates"]
    assert len(updates) == 11
    assert counters(next(e for e in updates if e["id"] == "e3")) == (0, 0, 9)
    stats = await place.stats()
    assert (stats["pendingUpdates"], stats["batchesProcessed"], stats["nextBatchAt"]) == (0, 0, None)


async def test_without_batching_force_still_works_and_the_statistics_stand_still(start: Start) -> None:
    place = await start(ENABLE_BATCHING="false")
    await place.put(event("a"))
    talk = await place.watching("admin")
    await place.count("a", scanCount=5)
    await talk.get("update-event")
    forced = await talk.ask("force-batch")
    assert (forced["turn"]["taken"], forced["stats"]["batchesProcessed"], forced["stats"]["totalUsersUpdated"]) == (
        0,
        0,
        0,
    )


async def test_switching_batching_off_flushes_first_and_on_starts_the_timer(place: Live) -> None:
    await place.put(event("a"))
    talk = await place.watching("admin")
    await place.count("a", scanCount=5)
    config = await talk.ask("update-batch-config", enableBatching=False)
    assert (config["enableBatching"], config["nextBatchAt"]) == (False, None)
    assert counters((await talk.get("batch-update"))["updates"]["updates"][0]) == (5, 0, 0)
    await place.count("a", scanCount=6)
    assert counters((await talk.get("update-event"))["event"]) == (6, 0, 0)
    config = await talk.ask("update-batch-config", enableBatching=True)
    assert config["nextBatchAt"] > config["serverTime"]
    await place.count("a", scanCount=7)
    assert await talk.settled() == []


async def test_what_was_pending_when_batching_went_off_is_not_left_behind(start: Start, dsn: str) -> None:
    first = await start()
    await first.put(event("a"), event("b", location={"latitude": 52.6, "longitude": 13.4}))
    connection = await asyncpg.connect(dsn)
    await connection.execute("update feed.counters set scan = 5 where event_id = 'a'")
    await connection.close()
    second = await start(ENABLE_BATCHING="false", URGENT_GAP_MS=0)
    talk = await second.watching()
    assert counters(talk.view.events["a"]) == (0, 0, 0)
    await second.put({"id": "b", "title": "Changed"})
    await until(lambda: not second.app.feed.desk.pending, "what was pending is published")
    while counters(talk.view.events["a"]) != (5, 0, 0):
        await talk._read()


async def test_the_views_of_two_viewers_with_other_questions_are_their_own(place: Live) -> None:
    await place.put(event("a", categories=["music"]), event("b", location=[13.6, 52.6], categories=["food"]))
    music = await place.watching(filters=[{"categories": {"include": ["music"]}}])
    food = await place.watching(filters=[{"categories": {"exclude": ["music"]}}])
    assert (list(music.view.events), list(food.view.events)) == (["a"], ["b"])
    await place.put({"id": "a", "categories": ["food"]})
    await music.get("delete-event")
    await food.get("add-event")
    assert await all_quiet(music, food)


async def all_quiet(*talks: Talk) -> bool:
    return [await talk.settled() for talk in talks] == [[] for _ in talks]


async def test_bounds_of_the_viewport_belong_to_it_also_across_the_antimeridian(place: Live) -> None:
    corners = [event(f"c{lon}", location=[lon, 0]) for lon in (170, 180, -180, -170, 0)]
    await place.put(*corners)
    talk = await place.watching(viewport={"west": 170.0, "south": 0.0, "east": -170.0, "north": 1.0})
    assert {"c170", "c-170"} < set(talk.view.events) <= {"c170", "c180", "c-180", "c-170"}
    assert BERLIN["west"] < BERLIN["east"]
