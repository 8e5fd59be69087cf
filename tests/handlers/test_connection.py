"""The shell over the library's Sans-I/O layer: any cutting of the stream is the same, and nothing in it grows without bound."""

import asyncio
import gc
import itertools
import weakref

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.handlers.connection import HANDSHAKE_BYTES, HARD_LIMIT, HEAVY, INBOX, PIECE, ROUND
from tests.handlers.pipe import (
    BINARY,
    CLOSE,
    CONT,
    HANDSHAKE,
    PING,
    PONG,
    TEXT,
    Inn,
    close_of,
    frame,
    made,
    opened,
)

pytestmark = pytest.mark.pure

LAX = [HealthCheck.too_slow]

# --- cutting ---

payloads = st.one_of(st.binary(max_size=20), st.text(max_size=12).map(str.encode), st.just(b"x" * 200))
good = st.one_of(
    st.builds(lambda p: [frame(TEXT, p)], st.text(max_size=12).map(str.encode)),
    st.builds(lambda p: [frame(BINARY, p)], payloads),
    st.builds(lambda p: [frame(PING, p[:125]), frame(PONG, p[:125])], payloads),
    st.builds(
        lambda whole, at, ping: [
            frame(TEXT, whole[:at], fin=False),
            *([frame(PING, b"between")] if ping else []),
            frame(CONT, whole[at:]),
        ],
        st.text(min_size=1, max_size=12).map(str.encode),
        st.integers(0, 40),
        st.booleans(),
    ),
)
anything = st.one_of(
    good,
    st.builds(
        lambda opcode, payload, fin, rsv, mask: [frame(opcode, payload, fin=fin, rsv=rsv, mask=mask)],
        st.integers(0, 15),
        payloads,
        st.booleans(),
        st.sampled_from((0, 0, 0, 0x40, 0x10)),
        st.sampled_from((b"abcd", b"\0\0\0\0", b"abcd", None)),
    ),
    st.builds(lambda code, text: [frame(CLOSE, code.to_bytes(2, "big") + text)], st.integers(990, 1020), payloads),
    st.binary(max_size=12).map(lambda one: [one]),
)
not_utf8 = st.sampled_from([b"\xff", b"x\xc3", b"\xed\xa0\x80", b"\xe2\x82"]).flatmap(
    lambda bad: st.sampled_from([[frame(TEXT, bad)], [frame(TEXT, bad[:1], fin=False), frame(CONT, bad[1:])]])
)
streams = st.lists(st.one_of(good, good, anything, not_utf8), max_size=8).map(
    lambda groups: b"".join(b"".join(g) for g in groups)
)
patience = st.lists(st.integers(0, 3), min_size=1, max_size=5)
"""How many messages are taken after each piece."""


def told(pieces: list[bytes], takes: list[int] | None = None) -> tuple[list[object], object, object, bool, bool]:
    """All that comes of a stream: messages, frames sent, the end."""
    inn = Inn()
    connection, pipe = made(inn)
    for number, piece in enumerate(pieces):
        connection.data_received(piece)
        if takes is not None and inn.diaries:
            inn.diaries[0].eager = False
            for _ in range(takes[number % len(takes)]):
                inn.diaries[0].take()
    diary = inn.diaries[0]
    while diary.take() is not None:
        pass
    return list(diary.got), pipe.sent(), inn.said, pipe.ended, connection.open


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[a:b] for a, b in itertools.pairwise(edges) if a < b]


@settings(deadline=None, max_examples=125, suppress_health_check=LAX)
@given(stream=streams, places=st.lists(st.integers(0, 10_000), max_size=12), takes=st.none() | patience)
def test_however_a_stream_is_cut_and_taken_the_same_comes_of_it(
    stream: bytes, places: list[int], takes: list[int] | None
) -> None:
    assert told(cut(HANDSHAKE + stream, places), takes) == told([HANDSHAKE, stream])


@settings(deadline=None, max_examples=60, suppress_health_check=LAX)
@given(stream=streams)
def test_a_byte_at_a_time_is_the_same(stream: bytes) -> None:
    whole = HANDSHAKE + stream
    assert told([whole[n : n + 1] for n in range(len(whole))]) == told([whole])


@settings(deadline=None, max_examples=75, suppress_health_check=LAX)
@given(messages=st.lists(st.text(max_size=30) | st.binary(max_size=30), max_size=30), size=st.integers(1, 7))
def test_what_is_sent_in_fragments_of_any_size_arrives_whole(messages: list[str | bytes], size: int) -> None:
    stream = b""
    for message in messages:
        data = message.encode() if isinstance(message, str) else message
        parts = [data[n : n + size] for n in range(0, len(data), size)] or [b""]
        for number, part in enumerate(parts):
            opcode = CONT if number else TEXT if isinstance(message, str) else BINARY
            stream += frame(opcode, part, fin=number == len(parts) - 1)
    got, sent, *_ = told([HANDSHAKE, stream])
    assert (got, sent) == (messages, [])


# --- reading no more than there is room for ---


async def rounds() -> None:
    """Let the event loop round until all that it put off is done."""
    for _ in range(HARD_LIMIT // ROUND + 2):
        await asyncio.sleep(0)


async def test_a_flood_that_fills_no_inbox_lets_others_have_their_turn_and_is_not_read_meanwhile() -> None:
    connection, pipe, diary = opened()
    one, count = frame(PING), 20_000
    connection.data_received(one * count)
    seen = [diary.nudges]
    while seen[-1] < count:
        assert not pipe.reads
        await asyncio.sleep(0)
        seen.append(diary.nudges)
    most = ROUND // len(one) + 1
    assert max(b - a for a, b in itertools.pairwise([0, *seen])) <= most
    assert pipe.reads
    assert pipe.sent() == [(0x8A, b"")] * count


async def test_a_flood_under_way_when_the_connection_is_lost_is_forgotten() -> None:
    connection, _, diary = opened()
    connection.data_received(frame(PING) * 20_000)
    connection.connection_lost(None)
    await rounds()
    assert diary.nudges < 20_000


def test_a_packet_of_tiny_messages_is_parsed_as_they_are_taken_and_nothing_is_read_meanwhile() -> None:
    connection, pipe, diary = opened()
    diary.eager = False
    count = 20_000
    connection.data_received(b"".join(frame(TEXT, b"%d" % n) for n in range(count)))
    assert not pipe.reads
    assert len(connection._inbox) <= INBOX + PIECE // 7
    while diary.take() is not None:
        assert len(connection._inbox) <= INBOX + PIECE // 7
        assert pipe.reads == (not connection._rest)
    assert diary.got == [str(n) for n in range(count)]
    assert pipe.reads


def test_what_still_comes_after_reading_was_paused_is_kept_in_order() -> None:
    connection, _, diary = opened()
    diary.eager = False
    stream = b"".join(frame(TEXT, b"%d" % n) for n in range(3000))
    connection.data_received(stream[:15_001])
    connection.data_received(stream[15_001:])
    while diary.take() is not None:
        pass
    assert diary.got == [str(n) for n in range(3000)]


async def test_of_large_messages_one_waits_at_a_time() -> None:
    connection, pipe, diary = opened()
    diary.eager = False
    connection.data_received(b"".join(frame(TEXT, b"%d" % n * 100_000) for n in range(5)))
    for number in range(5):
        await rounds()
        assert len(connection._inbox) == 1
        assert pipe.reads == (number == 4)
        assert diary.take() == f"{number}" * 100_000
    connection.data_received(frame(TEXT, b"small") + frame(TEXT, b"x" * (HEAVY + 1)) + frame(TEXT, b"x" * 9000))
    await rounds()
    assert (len(connection._inbox), pipe.reads) == (2, False)


def test_messages_that_came_before_the_close_are_still_to_be_had() -> None:
    connection, pipe, diary = opened()
    diary.eager = False
    connection.data_received(frame(TEXT, b"one") + frame(TEXT, b"two") + frame(CLOSE, b"\x03\xe8"))
    assert (connection.open, pipe.ended, pipe.sent()) == (False, True, [(0x88, b"\x03\xe8")])
    connection.connection_lost(None)
    assert [diary.take(), diary.take(), diary.take(), diary.losses] == ["one", "two", None, 1]


async def test_what_waits_or_comes_after_our_own_close_is_dropped_but_the_answer_to_it_is_heard() -> None:
    connection, pipe, diary = opened()
    diary.eager = False
    connection.data_received(b"".join(frame(TEXT, b"%d" % n) for n in range(5000)))
    assert not pipe.reads
    connection.close(4003, "slow")
    await rounds()
    assert pipe.reads
    connection.data_received(frame(TEXT, b"late") + frame(CLOSE, b"\x0f\xa3"))
    assert (diary.take(), pipe.ended) == (None, True)
    assert [close_of(payload) for _, payload in pipe.sent()] == [4003]
    connection.send(b"nobody hears this")
    connection.close(1000, "again")
    assert len(pipe.sent()) == 1


# --- writing while the kernel takes nothing ---


def test_while_nothing_leaves_only_the_newest_pong_waits() -> None:
    connection, pipe, diary = opened()
    pipe.room = 3
    connection.send(b"frame")
    assert connection.blocked
    for number in range(1000):
        connection.data_received(frame(PING, b"%d" % number))
    assert len(pipe.stuck) == 4
    pipe.let(1000)
    assert pipe.sent() == [(0x81, b"frame"), (0x8A, b"999")]
    assert (connection.blocked, diary.resumes, diary.nudges) == (False, 1, 1000)


def test_a_close_frame_goes_behind_what_is_under_way_and_in_front_of_all_else() -> None:
    connection, pipe, _ = opened()
    pipe.room = 3
    connection.send(b"frame")
    connection.data_received(frame(PING, b"x") + frame(CLOSE, b"\x03\xe8bye"))
    connection.send(b"no more of these")
    pipe.let(1000)
    assert pipe.sent() == [(0x81, b"frame"), (0x88, b"\x03\xe8bye")]
    assert pipe.ended


# --- keep-alive ---


async def test_who_is_silent_is_pinged_once_and_then_reported() -> None:
    inn = Inn()
    connection, pipe, _ = opened(inn)
    clock = inn.clock

    def tended() -> bool:
        return connection.tend(clock.monotonic(), 20.0)

    await clock.advance(19)  # type: ignore[attr-defined]
    assert (tended(), pipe.sent()) == (False, [])
    await clock.advance(1)  # type: ignore[attr-defined]
    assert [tended(), tended(), pipe.sent()] == [False, False, [(0x89, b"")]]
    await clock.advance(19)  # type: ignore[attr-defined]
    assert not tended()
    await clock.advance(1)  # type: ignore[attr-defined]
    assert tended()
    connection.data_received(frame(PONG))
    assert not tended()
    await clock.advance(20)  # type: ignore[attr-defined]
    assert (tended(), len(pipe.sent())) == (False, 2)


async def test_nobody_is_called_silent_while_we_do_not_read_or_it_has_not_taken_all_that_was_sent() -> None:
    inn = Inn()
    connection, pipe, diary = opened(inn)
    clock = inn.clock
    diary.eager = False
    connection.data_received(b"".join(frame(TEXT, b"x") for _ in range(5000)))
    await clock.advance(100)  # type: ignore[attr-defined]
    assert not connection.tend(clock.monotonic(), 20.0)
    while diary.take() is not None:
        pass
    assert not connection.tend(clock.monotonic(), 20.0)
    pipe.room = 0
    connection.send(b"frame")
    await clock.advance(100)  # type: ignore[attr-defined]
    assert not connection.tend(clock.monotonic(), 20.0)
    pipe.let(1000)
    assert not connection.tend(clock.monotonic(), 20.0)
    assert pipe.sent() == [(0x81, b"frame")]


# --- the door, and the end ---


def test_the_house_is_told_who_comes_who_is_in_who_must_go_and_who_has_gone() -> None:
    inn = Inn()
    connection, _, diary = opened(inn)
    connection.data_received(frame(CLOSE))
    connection.connection_lost(None)
    assert inn.said == ["greet", "welcome", "expect end", "gone"]
    assert diary.losses == 1


def test_a_full_house_cuts_off_unheard() -> None:
    inn = Inn()
    inn.room = False
    _, pipe = made(inn)
    assert (pipe.closing, pipe.taken, inn.said) == (True, b"", ["greet", "gone"])


def test_who_is_refused_is_answered_in_http_and_has_no_resident() -> None:
    inn = Inn()
    connection, pipe = made(inn)
    connection.data_received(HANDSHAKE.replace(b"/ws", b"/other") + frame(TEXT, b"hello"))
    assert pipe.taken.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"\r\nRetry-After: 5\r\n" in pipe.taken
    assert pipe.taken.endswith(b'{"error":{"code":"too_many","message":"no room"}}')
    assert (pipe.ended, connection.open, inn.said) == (True, False, ["greet", "expect end"])
    connection.eof_received()
    connection.connection_lost(None)
    assert not inn.diaries


@pytest.mark.parametrize(
    "said",
    [b"nonsense\r\n", b"GET /ws\r\n", b"POST /ws HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", b"\x16\x03\x01\n\r\n"],
)
def test_what_is_no_request_is_answered_once_by_400_or_405(said: bytes) -> None:
    connection, pipe = made()
    connection.data_received(said)
    assert pipe.taken.split(b" ")[1] in (b"400", b"405")
    assert pipe.ended
    answer = bytes(pipe.taken)
    connection.data_received(said)
    assert pipe.taken == answer


def test_a_request_that_goes_on_and_on_is_answered_by_431() -> None:
    connection, pipe = made()
    line = b"X-Header: " + b"x" * 1000 + b"\r\n"
    connection.data_received(b"GET /ws HTTP/1.1\r\n")
    sent = 0
    while not pipe.ended:
        connection.data_received(line)
        sent += len(line)
        assert sent < HANDSHAKE_BYTES + 2 * len(line)
    assert pipe.taken.startswith(b"HTTP/1.1 431 ")
    answer = bytes(pipe.taken)
    connection.data_received(line * 10 + b"\r\n")
    assert (pipe.taken, len(connection._protocol.reader.buffer)) == (answer, 0)


def test_who_leaves_before_a_request_is_whole_is_not_answered() -> None:
    inn = Inn()
    connection, pipe = made(inn)
    connection.data_received(HANDSHAKE[:40])
    connection.eof_received()
    connection.connection_lost(None)
    assert pipe.taken == b""
    assert inn.said == ["greet", "expect end", "gone"]


def test_nothing_of_a_connection_that_is_gone_waits_for_the_collector() -> None:
    gc.disable()
    try:
        for end in (b"", frame(CLOSE), frame(TEXT, b"\xff"), frame(3), frame(TEXT, b"x", fin=False)):
            connection, pipe, diary = opened()
            connection.data_received(end)
            connection.connection_lost(None)
            gone = weakref.ref(connection._protocol)
            del pipe.protocol  # as every transport does
            diary.connection = None  # type: ignore[assignment]  # as Peer does
            del connection, pipe, diary
            assert gone() is None, end
    finally:
        gc.enable()


async def test_the_largest_message_is_taken() -> None:
    connection, _, diary = opened()
    connection.data_received(frame(TEXT, b"x" * HARD_LIMIT))
    await rounds()
    assert [len(one) for one in diary.got] == [HARD_LIMIT]
    assert connection.open
