"""Every limit of a connection, and of connections: what is answered at the bound, and that life goes on beyond it."""

import asyncio
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from server.handlers.websocket import Peer
from server.handlers.wire import ANSWERS
from tests.serving import BERLIN, LIMIT_S, Live, Start, Talk, event, hear, refused, until

KIB = 1024


# --- messages ---


@pytest.mark.parametrize("text", ["x" * 130 * KIB, "€" * 50 * KIB])
async def test_a_message_above_the_limit_is_too_large_and_the_connection_goes_on(place: Live, text: str) -> None:
    talk = await place.talk()
    await talk.send("ping", padding=text)
    answer = await talk.get("error")
    assert (refused(answer), answer["limit"]) == (("too_large", None), place.settings.message_bytes)
    assert (await talk.ask("ping", padding="x" * 127 * KIB))["type"] == "pong"


async def test_a_frame_above_one_mebibyte_closes_with_1009(place: Live) -> None:
    talk = await place.talk()
    await talk.send("ping", padding="x" * (KIB * KIB + 1))
    assert (await talk.closed())[0] == 1009


async def pings(talk: Talk, number: int) -> list[str]:
    """What so many pings sent at once are answered by."""
    for _ in range(number):
        await talk.send("ping")
    return [said_of(await talk._read()) for _ in range(number)]


def said_of(message: dict[str, Any]) -> str:
    return str(message.get("code", message["type"]))


async def test_too_many_messages_are_refused_and_after_a_while_taken_again(start: Start) -> None:
    place = await start(MESSAGES_PER_S=2)
    talk = await place.talk()
    said = await pings(talk, 60)
    assert said[:50] == ["pong"] * 50
    assert "too_many" in said[50:]
    await talk.send("ping")
    answer = await talk._read()
    while answer["type"] == "error":
        assert (refused(answer), answer["limit"], answer["retry"]) == (("too_many", None), 2, True)
        await asyncio.sleep(0.1)  # tokens come back with time, and only with time
        await talk.send("ping")
        answer = await talk._read()
    assert answer["type"] == "pong"


async def test_each_connection_has_a_limit_of_its_own(start: Start) -> None:
    place = await start(MESSAGES_PER_S=1, MESSAGES_BURST=5)
    first, second = await place.talk(), await place.talk()
    assert "too_many" in await pings(first, 8)
    assert await pings(second, 5) == ["pong"] * 5


async def test_producers_have_a_higher_limit_that_counts_every_element_of_an_array(start: Start) -> None:
    place = await start(MESSAGES_PER_S=1, MESSAGES_BURST=5, PRODUCER_MESSAGES_PER_S=100)
    talk = await place.talk("producer")
    assert await pings(talk, 60) == ["pong"] * 60
    update = {"type": "popularity-update", "eventId": "none", "scanCount": 1}
    await talk.say([update] * 101)
    assert refused(await talk.get("error")) == ("too_many", None)
    late = await place.talk()
    await late.ask("authenticate", token=place.token("producer"))
    await late.say([update] * 90)
    assert [refused(await late.get("error")) for _ in range(90)] == [("not_found", "eventId")] * 90


async def test_twice_the_limit_for_ten_seconds_closes_with_4002(start: Start) -> None:
    place = await start(MESSAGES_PER_S=1, MESSAGES_BURST=1)
    flooding, polite = await place.talk(), await place.talk()
    reading = asyncio.ensure_future(flooding.closed())
    async with asyncio.timeout(LIMIT_S):
        try:
            while not reading.done():
                await flooding.send("ping")
                await asyncio.sleep(0.1)  # ten times the limit, for the ten seconds that the server looks at
        except ConnectionClosed:
            pass
    code, reason = await reading
    assert (code, bool(reason)) == (4002, True)
    assert (await polite.ask("ping"))["type"] == "pong"


# --- a client that asks and does not read ---


async def test_who_asks_ten_thousand_times_and_never_reads_is_not_read_from(start: Start) -> None:
    place = await start(MESSAGES_PER_S=100_000, MESSAGES_BURST=100_000)
    await place.put(event("a"))
    other = await place.watching("admin")
    deaf = await place.deaf()
    peer = newest_peer(place)
    sending = asyncio.ensure_future(send_pings(deaf, 10_000))
    await until(lambda: peer.wire.answers >= ANSWERS, "the queue of answers is full")
    await until(lambda: not peer._connection.reading, "it is not read from")
    assert peer.wire.answers <= ANSWERS + 1
    assert peer._connection.transport.get_write_buffer_size() < 64 * KIB
    assert peer.wire.sent < 10_000
    await place.count("a", scanCount=5)
    assert (await other.ask("force-batch"))["turn"]["deferred"] == 0
    await other.get("batch-update")
    hear(deaf)
    for number in range(10_000):
        assert (await deaf._read())["ref"] == f"{number:064}"
    await sending


async def send_pings(talk: Talk, count: int) -> None:
    for number in range(count):
        await talk.send("ping", ref=f"{number:064}")


def newest_peer(place: Live) -> Peer:
    peer = list(place.app.hub)[-1]
    assert isinstance(peer, Peer)
    return peer


async def test_an_array_has_no_more_answers_waiting_than_single_messages_have(start: Start) -> None:
    place = await start()
    deaf = await place.deaf("producer")
    peer = newest_peer(place)
    array = [{"type": "popularity-update", "ref": "x" * 64}] * 900
    sending = asyncio.ensure_future(say_often(deaf, array, 5))
    await until(lambda: peer.wire.answers >= ANSWERS, "the queue of answers is full")
    await until(lambda: not peer._connection.reading or sending.done(), "it is not read from")
    assert peer.wire.answers <= ANSWERS + 1
    hear(deaf)
    for _ in range(4500):
        assert refused(await deaf._read()) == ("bad_message", "eventId")
    await sending


async def say_often(talk: Talk, payload: object, times: int) -> None:
    for _ in range(times):
        await talk.say(payload)


# --- the door ---


async def turned_away(place: Live, role: str | None = None, sub: str | None = None, **options: Any) -> int:
    """The HTTP status with which a connection is refused."""
    with pytest.raises(InvalidStatus) as caught:
        await place.talk(role, sub, **options)
    response = caught.value.response
    assert b'"error"' in (response.body or b"")
    assert (response.status_code == 503) == ("Retry-After" in response.headers)
    return response.status_code


async def test_a_user_has_so_many_connections_and_the_next_one_is_refused(start: Start) -> None:
    place = await start(CONNECTIONS_PER_USER=2)
    first, _ = await place.talk(sub="paul"), await place.talk(sub="paul")
    assert await turned_away(place, sub="paul") == 503
    guest = await place.talk()
    assert await guest.refusal("authenticate", token=place.token(sub="paul")) == ("too_many", None)
    assert (await guest.ask("authenticate", token=place.token(sub="petra")))["sub"] == "petra"
    await first.socket.close()
    await until(lambda: len(place.app.hub) == 2, "the first has gone")
    assert (await guest.ask("authenticate", token=place.token(sub="paul")))["sub"] == "paul"
    assert len([await place.talk() for _ in range(5)]) == 5, "anonymous connections from loopback are not counted"


async def test_the_limit_of_a_user_also_holds_when_all_come_at_once(start: Start) -> None:
    place = await start(CONNECTIONS_PER_USER=3)
    came = await asyncio.gather(*(place.talk(sub="paul") for _ in range(20)), return_exceptions=True)
    assert sum(isinstance(one, Talk) for one in came) == 3


async def test_a_full_server_refuses_the_next_connection_and_keeps_the_limit_of_each_user(start: Start) -> None:
    place = await start(MAX_CONNECTIONS=3, CONNECTIONS_PER_USER=1)
    await place.talk(sub="paul")
    guest, last = await place.talk(), await place.talk()
    assert await turned_away(place) == 503
    assert await guest.refusal("authenticate", token=place.token(sub="paul")) == ("too_many", None)
    assert (await guest.ask("authenticate", token=place.token(sub="petra")))["sub"] == "petra"
    await last.socket.close()
    await until(lambda: len(place.app.hub) == 2, "the last has gone")
    assert (await (await place.talk()).ask("ping"))["type"] == "pong"


async def test_pages_of_strangers_may_not_connect(start: Start) -> None:
    place = await start(ALLOWED_ORIGINS="https://app.example")
    for origin in ("https://evil.example", "null", "http://app.example", "https://app.example:444"):
        assert await turned_away(place, origin=origin) == 403
    for friend in ("https://app.example", "http://localhost:3000", "http://127.0.0.1:8080", None):
        talk = await place.talk(origin=friend)
        assert (await talk.ask("ping"))["type"] == "pong"


async def test_a_token_in_the_address_a_bad_one_in_the_header_and_another_path_are_refused(place: Live) -> None:
    base = place.app.ws_url
    for address, headers, status in (
        (f"{base}?token={place.token('admin')}", {}, 422),
        (base.removesuffix("/ws") + "/other", {}, 404),
        (base, {"Authorization": "Bearer nonsense"}, 401),
    ):
        assert await turned_away(place, url=address, additional_headers=headers) == status
    talk = await place.talk(additional_headers={"Authorization": f"Bearer {place.token('admin')}"})
    assert (await talk.ask("register", viewport=BERLIN))["type"] == "registered"
    assert (await talk.ask("get-stats"))["type"] == "stats"
