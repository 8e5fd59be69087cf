"""RFC 6455 and 7692 by hand: what every kind of frame, broken frame and broken handshake leads to."""

import asyncio
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from websockets.asyncio.client import connect
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from tests.handlers.pipe import BINARY, CLOSE, CONT, HANDSHAKE, PING, PONG, TEXT, frame
from tests.serving import BERLIN, Live, Talk, deaf_socket, live, spread, until
from tests.wire.raw import Raw, ping, say_ping


@pytest_asyncio.fixture
async def place(dsn: str, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Live]:
    """A server; its settings may be given by `indirect`."""
    async with live(tmp_path / "data", dsn, **getattr(request, "param", {})) as made:
        yield made


async def alive(place: Live) -> None:
    """The server goes on, and nobody but who asks is connected."""
    await until(lambda: len(place.app.hub) == 0, "all have gone")
    await until(lambda: place.app.hub.expected == [], "and hung up")
    assert place.app.tasks.died == {}
    raw = await Raw.open(place.ws_port)
    raw.say(say_ping("alive"))
    assert (await raw.message())["ref"] == "alive"
    raw.leave()


# --- frames ---


async def test_whole_frames_fragments_and_control_frames_between_them_are_understood(place: Live) -> None:
    raw = await Raw.open(place.ws_port)
    text = '{"type":"ping","ref":"größer €"}'.encode()
    for size in (1, 2, 3, 7, len(text) - 1):
        parts = [text[n : n + size] for n in range(0, len(text), size)]
        for number, part in enumerate(parts):
            raw.say(frame(CONT if number else TEXT, part, fin=number == len(parts) - 1), frame(PING, b"%d" % number))
        pongs = [await raw.frame() for _ in parts[:-1]]
        assert pongs == [(0x8A, b"%d" % number) for number in range(len(parts) - 1)]
        rest = sorted([await raw.frame(), await raw.frame()])
        assert rest[1] == (0x8A, b"%d" % (len(parts) - 1))
        assert "größer €".encode() in rest[0][1]
    raw.say(frame(PONG, b"nobody asked"), frame(PING), say_ping("last"))
    assert await raw.frame() == (0x8A, b"")
    assert (await raw.message())["ref"] == "last"
    raw.say(frame(BINARY, b"\xff\xfe"), frame(TEXT, b""), frame(TEXT, b"", fin=False), frame(CONT, b""))
    assert [(await raw.message())["code"] for _ in range(3)] == ["bad_message", "bad_json", "bad_json"]
    raw.leave()
    await alive(place)


async def test_a_packet_with_many_frames_and_frames_in_many_packets_are_answered_in_order(place: Live) -> None:
    raw = await Raw.dial(place.ws_port)
    refs = [f"r{n}" for n in range(40)]
    raw.say(HANDSHAKE, *(say_ping(ref) for ref in refs))
    await raw.http()
    assert [(await raw.message())["ref"] for _ in refs] == refs
    raw.leave()
    slow = await Raw.dial(place.ws_port)
    await slow.piecemeal(HANDSHAKE + say_ping("slow") + frame(PING, b"x") + frame(CLOSE, b"\x03\xe8"))
    await slow.http()
    assert {await slow.frame(), await slow.frame()} == {(0x8A, b"x"), (0x81, b'{"type":"pong","ref":"slow"}')}
    assert await slow.closed() == 1000
    await alive(place)


BROKEN = {
    "unmasked": (frame(TEXT, ping("x"), mask=None), 1002),
    "first reserved bit": (frame(TEXT, ping("x"), rsv=0x40), 1002),
    "second reserved bit": (frame(TEXT, ping("x"), rsv=0x20), 1002),
    "third reserved bit": (frame(PING, b"", rsv=0x10), 1002),
    "unknown data opcode": (frame(3, b"x"), 1002),
    "unknown control opcode": (frame(11, b""), 1002),
    "long ping": (frame(PING, b"x" * 126), 1002),
    "fragmented ping": (frame(PING, b"x", fin=False), 1002),
    "continuation of nothing": (frame(CONT, b"x"), 1002),
    "a new message in a fragmented one": (frame(TEXT, b"{", fin=False) + frame(TEXT, b"}"), 1002),
    "a broken close in a fragmented message": (frame(TEXT, b"{", fin=False) + frame(CLOSE, b"\x03"), 1002),
    "text that is not UTF-8": (frame(TEXT, b"\xc3\x28"), 1007),
    "a character cut off at the end": (frame(TEXT, b"x", fin=False) + frame(CONT, b"\xe2\x82"), 1007),
    "a surrogate": (frame(TEXT, b"\xed\xa0", fin=False) + frame(CONT, b"\x80"), 1007),
    "a close reason that is not UTF-8": (frame(CLOSE, b"\x03\xe8\xff"), 1007),
    "half a close code": (frame(CLOSE, b"\x03"), 1002),
    "a close code that must not be sent": (frame(CLOSE, b"\x03\xed"), 1002),
    "a close code of nobody's": (frame(CLOSE, b"\x00\x07"), 1002),
    "one frame above the limit, only announced": (b"\x81\xff\x00\x00\x00\x00\x00\x10\x00\x01abcd", 1009),
    "an absurd length": (b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xffabcd", 1009),
    "fragments above the limit": (frame(TEXT, b"x" * 1_000_000, fin=False) + frame(CONT, b"x" * 50_000), 1009),
}


async def test_every_broken_frame_closes_with_its_code_and_what_follows_is_not_read(place: Live) -> None:
    for name, (stream, code) in BROKEN.items():
        raw = await Raw.open(place.ws_port)
        raw.say(say_ping("before"), stream, say_ping("after"))
        first, payload = await raw.frame()
        if first == 0x81:
            assert b'"before"' in payload, name
            first, payload = await raw.frame()
        assert (first, int.from_bytes(payload[:2], "big")) == (0x88, code), name
        await raw.ended()
        raw.leave()
    await alive(place)


# --- the close ---


@pytest.mark.parametrize(
    ("said", "heard"), [(b"", 0), (b"\x03\xe8", 1000), (b"\x03\xe9going", 1001), (b"\x0f\xa0", 4000)]
)
async def test_a_close_is_answered_by_the_same_and_by_the_end(place: Live, said: bytes, heard: int) -> None:
    raw = await Raw.open(place.ws_port)
    raw.say(frame(CLOSE, said), say_ping("too late"))
    assert await raw.closed() == heard
    raw.leave()
    await alive(place)


async def test_a_close_while_a_frame_waits_comes_behind_the_whole_frame(place: Live) -> None:
    await place.put(*spread(300, description="x" * 9000))
    raw = await Raw.open(place.ws_port, sock=deaf_socket(place.ws_port))
    raw.writer.transport.pause_reading()  # type: ignore[attr-defined]
    raw.say(frame(TEXT, b'{"type":"register","viewport":{"west":13,"south":52,"east":14,"north":53},"maxEvents":500}'))
    await until(lambda: len(place.app.feed.desk.audience) == 1, "it is registered")
    await until(lambda: any(not one.wire.free for one in place.app.hub), "its frame waits")
    raw.say(frame(PING, b"still there?"), frame(CLOSE, b"\x03\xe8"))
    await until(lambda: len(place.app.hub.expected) == 1, "its close has been read")
    raw.writer.transport.resume_reading()  # type: ignore[attr-defined]
    assert (await raw.message())["type"] == "registered"
    assert len((await raw.message())["events"]) == 300
    assert await raw.closed() == 1000
    raw.leave()
    await alive(place)


async def test_who_hangs_up_half_of_the_connection_has_left(place: Live) -> None:
    for said in (b"", say_ping("x"), frame(TEXT, b"half", fin=False), say_ping("x")[:5]):
        raw = await Raw.open(place.ws_port)
        raw.say(said)
        raw.writer.write_eof()
        async with asyncio.timeout(30):
            await raw.reader.read(-1)
        raw.leave()
    await alive(place)


async def test_a_client_that_does_not_hang_up_after_its_close_is_cut_off(place: Live) -> None:
    raw = await Raw.open(place.ws_port)
    raw.say(frame(CLOSE, b"\x03\xe8"))
    assert await raw.closed() == 1000
    await until(lambda: len(place.app.hub) == 0, "it has been cut off")
    raw.leave()
    await alive(place)


@pytest.mark.parametrize("place", [{"PING_INTERVAL_MS": 100}], indirect=True)
async def test_who_says_nothing_is_pinged_and_who_does_not_answer_is_closed_with_1011(place: Live) -> None:
    good, silent = await Raw.open(place.ws_port), await Raw.open(place.ws_port)
    for _ in range(3):
        assert await good.frame() == (0x89, b"")
        good.say(frame(PONG))
    assert await silent.frame() == (0x89, b"")
    assert await silent.closed() == 1011
    silent.leave()
    assert len(place.app.hub) == 1
    good.leave()
    await alive(place)


# --- the handshake ---

REQUESTS = {
    "no upgrade": (b"GET /ws HTTP/1.1\r\nHost: x\r\n\r\n", 426),
    "a page": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 404),
    "another method": (HANDSHAKE.replace(b"GET", b"POST"), 405),
    "another version of the protocol": (HANDSHAKE.replace(b"Version: 13", b"Version: 8"), 400),
    "no key": (HANDSHAKE.replace(b"Sec-WebSocket-Key", b"X-Key"), 400),
    "a short key": (HANDSHAKE.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"dGhl"), 400),
    "an older HTTP": (HANDSHAKE.replace(b"HTTP/1.1", b"HTTP/1.0"), 505),
    "a body": (HANDSHAKE.replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\nhello"), 400),
    "no HTTP": (b"hello\r\n\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n" + b"x" * 200, 400),
    "an endless line": (b"GET /ws?" + b"x" * 10_000, 414),
    "an endless header": (b"GET /ws HTTP/1.1\r\nX: " + b"x" * 10_000, 431),
    "headers without end": (b"GET /ws HTTP/1.1\r\n" + b"X: y\r\n" * 300, 431),
}


async def test_every_request_that_is_no_handshake_gets_an_answer_and_the_end(place: Live) -> None:
    for name, (request, status) in REQUESTS.items():
        raw = await Raw.dial(place.ws_port)
        raw.say(request)
        assert await raw.status() == status, name
        raw.leave()
    await alive(place)


@pytest.mark.parametrize("size", [1, 3, 50])
async def test_a_handshake_in_pieces_is_one(place: Live, size: int) -> None:
    raw = await Raw.dial(place.ws_port)
    await raw.piecemeal(HANDSHAKE, size)
    assert b"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in await raw.http()
    raw.say(say_ping("x"))
    assert (await raw.message())["ref"] == "x"
    raw.leave()


# --- compression ---

DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"
compressed = pytest.mark.parametrize("place", [{"COMPRESSION": "true"}], indirect=True)


def squeezed(text: bytes, **how: Any) -> bytes:
    """A compressed text frame of a client's."""
    engine = zlib.compressobj(wbits=-15)
    small = (engine.compress(text) + engine.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\0\0\xff\xff")
    return frame(TEXT, small, rsv=0x40, **how)


@compressed
async def test_with_compression_a_message_goes_both_ways_and_short_ones_are_left_alone(place: Live) -> None:
    await place.put(*spread(30, description="x" * 200))
    raw = await Raw.open(place.ws_port, DEFLATE)
    assert b"permessage-deflate; server_no_context_takeover; client_no_context_takeover" in raw.answer
    viewport = b'{"west":13,"south":52,"east":14,"north":53}'
    for _ in range(2):
        raw.say(squeezed(b'{"type":"register","viewport":%b}' % viewport))
        first, _ = await raw.frame()
        assert first in (0x81, 0xC1)
        first, payload = await raw.frame()
        assert first == 0xC1
        text = zlib.decompressobj(wbits=-15).decompress(payload + b"\0\0\xff\xff")
        assert text.startswith(b'{"type":"replace-all"')
        assert len(payload) < len(text) / 4
    raw.say(squeezed(ping("short")), squeezed(ping("short"), mask=b"mask"))
    assert [(await raw.message())["ref"] for _ in range(2)] == ["short", "short"]
    raw.leave()
    await alive(place)


@compressed
async def test_a_small_frame_that_becomes_large_is_closed_with_1009(place: Live) -> None:
    raw = await Raw.open(place.ws_port, DEFLATE)
    raw.say(squeezed(b" " * (1 << 20)))
    assert (await raw.message())["code"] in ("bad_json", "too_large")
    raw.say(squeezed(b" " * ((1 << 20) + 1)))
    assert await raw.closed() == 1009
    for broken, code in ((frame(TEXT, b"\xff\xff\xff", rsv=0x40), 1002), (squeezed(b"\xff"), 1007)):
        raw = await Raw.open(place.ws_port, DEFLATE)
        raw.say(broken)
        assert await raw.closed() == code
    await alive(place)


@compressed
async def test_who_has_little_memory_is_sent_plain_text(place: Live) -> None:
    await place.put(*spread(30, description="x" * 200))
    raw = await Raw.open(place.ws_port, DEFLATE.replace(b"\r\n", b"; server_max_window_bits=10\r\n"))
    raw.say(frame(TEXT, b'{"type":"register","viewport":{"west":13,"south":52,"east":14,"north":53}}'))
    assert (await raw.message())["type"] == "registered"
    assert len((await raw.message())["events"]) == 30
    raw.leave()


@compressed
async def test_real_clients_with_and_without_compression_see_the_same(place: Live) -> None:
    await place.put(*spread(40, description="straße " * 50))
    factory = ClientPerMessageDeflateFactory(server_max_window_bits=12)
    options: list[dict[str, Any]] = [
        {"compression": None},
        {"compression": "deflate"},
        {"compression": None, "extensions": [factory]},
    ]
    talks = [Talk(await connect(place.app.ws_url, **one), place.still) for one in options]
    for talk in talks:
        await talk.ask("register", viewport=BERLIN)
        await talk.get("replace-all")
    await place.put({"id": "e1", "title": "Changed " * 50})
    await place.still()
    await place.count("e2", scanCount=5)
    await place.force()
    for talk in talks:
        await talk.get("update-event")
        await talk.get("batch-update")
    assert talks[0].view.events == talks[1].view.events == talks[2].view.events
    for talk in talks:
        await talk.socket.close()
        assert talk.socket.close_code == 1000
    await alive(place)


async def test_without_the_setting_compression_is_not_agreed_upon(place: Live) -> None:
    raw = await Raw.open(place.ws_port, DEFLATE)
    assert b"permessage-deflate" not in raw.answer
    raw.say(squeezed(ping("x")))
    assert await raw.closed() == 1002
