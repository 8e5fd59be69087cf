"""A client that does not read costs one frame, delays nobody, and has one difference to read when it comes back to it."""

from server.handlers.websocket import Peer
from tests.serving import BERLIN, WORLD, Live, Message, Start, Talk, event, hear, spread, until

BIG = {"description": "x" * 9000}
"""More than two megabytes for three hundred of them: far more than the kernels hold for a connection."""
COUNT = 300


async def a_deaf_one(place: Live) -> tuple[Talk, Peer]:
    """A viewer whose snapshot is stuck half-way."""
    await place.put(*spread(COUNT, **BIG))
    deaf = await place.deaf()
    await deaf.send("register", viewport=BERLIN, maxEvents=500)
    await until(lambda: len(place.app.feed.desk.audience) == 1, "the deaf one is registered")
    peer = next(iter(place.app.hub))
    assert isinstance(peer, Peer)
    await until(lambda: peer._connection.transport.get_write_buffer_size() > 0, "its snapshot is stuck")
    return deaf, peer


async def snapshot_at_last(deaf: Talk) -> Message:
    hear(deaf)
    await deaf.get("registered")
    return await deaf.get("replace-all")


async def test_batches_go_on_for_the_others_and_one_difference_catches_up(place: Live) -> None:
    deaf, peer = await a_deaf_one(place)
    admin = await place.watching("admin", maxEvents=500)
    for number in range(1, 11):
        for event_id in ("e0", f"e{number}"):
            await place.count(event_id, scanCount=number)
        turn = (await admin.ask("force-batch"))["turn"]
        assert (turn["taken"], turn["done"], turn["deferred"]) == (3, 2, 1)
        assert "e0" in (e["id"] for e in (await admin.get("batch-update"))["updates"]["updates"])
        assert peer.wire._waiting == [], "only the frame under way waits"
    assert (await place.stats())["framesDeferred"] == 10
    await snapshot_at_last(deaf)
    caught_up = await deaf.get("batch-update")
    assert {f"e{n}" for n in range(11)} <= {e["id"] for e in caught_up["updates"]["updates"]}
    assert await deaf.settled() == []
    assert sorted(deaf.view.held()) == sorted(admin.view.held())
    await place.count("e0", scanCount=99)
    assert (await place.force())["deferred"] == 0
    await deaf.get("batch-update")


async def test_immediate_changes_missed_meanwhile_are_one_difference_too(place: Live) -> None:
    deaf, _ = await a_deaf_one(place)
    other = await place.watching(maxEvents=500)
    await place.put({"id": "e0", "title": "Changed"}, {"id": "e0", "title": "Changed again"})
    await other.get("update-event")
    await place.put({"id": "e1", "status": "REJECTED"})
    await other.get("delete-event")
    await place.put({"id": "e2", "isPrivate": True}, event("new"))
    await other.get("changes")
    await snapshot_at_last(deaf)
    updates = (await deaf.get("changes"))["updates"]
    assert sorted(updates["deletes"]) == ["e1", "e2"]
    assert "Changed again" in [e["title"] for e in updates["updates"]]
    assert await deaf.settled() == []
    assert sorted(deaf.view.held()) == sorted(other.view.held())


async def test_what_came_and_went_meanwhile_is_never_mentioned(place: Live) -> None:
    deaf, _ = await a_deaf_one(place)
    other = await place.watching(viewport=BERLIN, maxEvents=500)
    await place.put({"id": "e0", "isPrivate": True})
    await other.get("delete-event")
    await place.put({"id": "e0", "isPrivate": False})
    await other.get("add-event")
    await place.put(event("brief"))
    await other.get("add-event")
    await place.ask("DELETE", "/events/brief")
    await other.get("delete-event")
    await snapshot_at_last(deaf)
    caught_up = await deaf.get("update-event")
    assert caught_up["event"]["id"] == "e0"
    assert await deaf.settled() == []


async def test_a_pan_while_a_frame_waits_is_answered_when_there_is_room(place: Live) -> None:
    deaf, _ = await a_deaf_one(place)
    await deaf.send("viewport-update", viewport={**WORLD, "west": 100.0}, ref="pan")
    await deaf.send("viewport-update", viewport=BERLIN, ref="back")
    await place.count("e0", scanCount=5)
    await place.force()
    await snapshot_at_last(deaf)
    assert [(await deaf._read()).get("ref") for _ in range(2)] == ["pan", "back"], (
        "they cover the batch that was missed"
    )
    assert await deaf.settled() == []
    fresh = await place.watching(maxEvents=500)
    assert sorted(deaf.view.held()) == sorted(fresh.view.held())


async def test_who_stalls_for_too_long_is_closed_with_4003(start: Start) -> None:
    place = await start(SLOW_CLIENT_TIMEOUT_MS=200)
    deaf, peer = await a_deaf_one(place)
    await until(lambda: not peer._connection.open, "it is being closed")
    hear(deaf)
    code, reason = await deaf.closed()
    assert (code, bool(reason)) == (4003, True)
    await until(lambda: (len(place.app.hub), len(place.app.feed.desk.audience)) == (0, 0), "it has gone")


async def test_who_never_reads_again_is_cut_off_and_nobody_else_is(start: Start) -> None:
    place = await start(SLOW_CLIENT_TIMEOUT_MS=200)
    await a_deaf_one(place)
    other = await place.watching(maxEvents=1)
    await until(lambda: len(place.app.hub) == 1, "the deaf one has gone")
    assert (await place.stats())["registeredUsers"] == 1
    assert (await other.ask("ping"))["type"] == "pong"
    await until(lambda: not [t for t in place.app.tasks._alive if t.get_name() == "connection"], "nothing is left")


async def test_a_connection_that_breaks_off_in_mid_frame_leaves_nothing(place: Live) -> None:
    deaf, _ = await a_deaf_one(place)
    deaf.socket.transport.abort()
    await until(lambda: (len(place.app.hub), len(place.app.feed.desk.audience)) == (0, 0), "it has gone")
    assert (await place.force())["deferred"] == 0
