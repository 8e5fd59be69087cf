"""What a connection costs between its messages, what becomes of messages sent in a hurry, and what is left when it has gone."""

import asyncio
import gc
import itertools
import weakref
from typing import Any

import orjson
import pytest

from server.handlers.websocket import TURN, Peer
from tests.handlers.pipe import CLOSE, TEXT, frame
from tests.serving import BERLIN, Live, Start, event, spread, until
from tests.wire.raw import Raw, say_ping


def tasks_of_connections(place: Live) -> int:
    return sum(task.get_name() == "connection" for task in place.app.tasks._alive)


def say(kind: str, **fields: Any) -> bytes:
    return frame(TEXT, orjson.dumps({"type": kind, **fields}))


async def test_silent_connections_have_no_task_whatever_is_sent_to_them(place: Live) -> None:
    await place.put(*spread(3))
    talks = [await place.watching() for _ in range(10)]
    await until(lambda: tasks_of_connections(place) == 0, "nobody has one")
    await place.put({"id": "e0", "title": "Changed"})
    for talk in talks:
        await talk.get("update-event")
    assert tasks_of_connections(place) == 0


async def test_what_a_producer_sent_before_it_hung_up_is_stored(place: Live) -> None:
    await place.put(event("a"))
    raw = await Raw.open(place.ws_port, b"Authorization: Bearer %b\r\n" % place.token("producer").encode())
    updates = [say("popularity-update", eventId="a", delta={"scanCount": 1}) for _ in range(300)]
    raw.say(*updates, frame(CLOSE, b"\x03\xe8"))
    first, payload = await raw.frame()
    while first == 0x81:
        first, payload = await raw.frame()
    assert (first, payload) == (0x88, b"\x03\xe8")
    raw.leave()
    await until(lambda: len(place.app.hub) == 0, "it has gone")
    await place.still()
    answer = await place.ask("GET", "/events/a")
    assert answer.json["scanCount"] == 300


async def test_messages_are_answered_in_the_order_they_were_sent_however_long_each_takes(place: Live) -> None:
    await place.put(*spread(3))
    raw = await Raw.open(place.ws_port, b"Authorization: Bearer %b\r\n" % place.token("admin").encode())
    sent = [
        say("force-batch", ref="0"),
        say("ping", ref="1"),
        say("update-batch-config", ref="2", maxBatchSize=7),
        say("register", ref="3", viewport=BERLIN),
        say("viewport-update", ref="4", viewport={**BERLIN, "east": 13.5}),
        say("get-stats", ref="5"),
        say("force-batch", ref="6"),
        say("unregister", ref="7"),
        say("nonsense", ref="8"),
    ]
    raw.say(*sent)
    refs = []
    while len(refs) < len(sent):
        message = await raw.message()
        refs += [message["ref"]] if "ref" in message else []
    assert refs == [str(n) for n in range(len(sent))]
    raw.leave()


async def test_who_sends_thousands_of_messages_at_once_lets_others_have_their_turn(start: Start) -> None:
    place = await start(MESSAGES_PER_S=100_000, MESSAGES_BURST=100_000)
    raw = await Raw.open(place.ws_port)
    peer = next(iter(place.app.hub))
    assert isinstance(peer, Peer)
    seen = [0]
    reading = asyncio.ensure_future(last_of(raw, "r2999"))
    raw.say(*(say_ping(f"r{n}") for n in range(3000)))
    while not reading.done():
        await asyncio.sleep(0)
        seen.append(peer.wire.sent)
    assert max(b - a for a, b in itertools.pairwise(seen)) <= TURN
    assert peer.wire.sent == 3000
    raw.leave()


async def last_of(raw: Raw, ref: str) -> None:
    while (await raw.message())["ref"] != ref:
        pass


async def test_a_bug_closes_its_own_connection_with_1011_and_no_other(
    place: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, raw = await place.watching(), await Raw.open(place.ws_port)
    real = place.app.feed.stats

    async def wrong() -> object:
        return (await real())["no such number"]

    monkeypatch.setattr(place.app.feed, "stats", wrong)
    raw.say(say("authenticate", token=place.token("admin")), say("get-stats"), say_ping("too late"))
    assert (await raw.message())["type"] == "authenticated"
    assert await raw.closed() == 1011
    raw.leave()
    assert (await other.ask("ping"))["type"] == "pong"
    await until(lambda: len(place.app.hub) == 1, "it has gone")
    assert place.app.tasks.died == {}


async def test_nothing_of_a_viewer_that_has_gone_waits_for_the_collector(place: Live) -> None:
    await place.put(*spread(3))
    gc.collect()
    gc.disable()
    try:
        for stream in (say("register", viewport=BERLIN), say("register", viewport=BERLIN) + frame(CLOSE), b"\xff\xff"):
            raw = await Raw.open(place.ws_port)
            peer = next(iter(place.app.hub))
            assert isinstance(peer, Peer)
            gone = weakref.ref(peer._connection._protocol)
            del peer
            raw.say(stream)
            await raw.frame()
            raw.leave()
            await until(lambda: len(place.app.hub) == 0, "it has gone")
            await until(lambda gone=gone: gone() is None, "nothing refers to it")
    finally:
        gc.enable()


async def test_a_storm_of_connections_that_only_knock_leaves_nobody_at_the_door(place: Live) -> None:
    raws = await asyncio.gather(*(Raw.dial(place.ws_port) for _ in range(200)))
    await until(lambda: len(place.app.hub.expected) == 200, "all stand at the door")
    for number, raw in enumerate(raws):
        raw.say((b"", b"GET", b"GET /ws HTTP/1.1\r\n", b"nonsense\r\n\r\n")[number % 4])
        raw.leave()
    await until(lambda: place.app.hub.expected == [], "all have gone")
    assert len(place.app.hub) == 0
