"""The way out: everything in order, one frame waiting, a bounded queue of answers, and who is told when it has drained."""

import asyncio
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.batching.scores.frame import Frame, Shared
from server.handlers.wire import ANSWERS, Wire, WireClosed
from tests.handlers.pipe import CLOSE, Pipe, close_of, frames_in, opened

pytestmark = pytest.mark.pure


@dataclass
class Out:
    """A wire over a connection whose kernel takes nothing until it is told to."""

    wire: Wire
    pipe: Pipe
    drained: list[int]

    def texts(self) -> list[bytes]:
        """What the kernel took in whole frames."""
        return [payload for _, payload in self.pipe.sent()]


def out(room: int = 0) -> Out:
    connection, pipe, diary = opened()
    drained: list[int] = []
    wire = Wire(connection, lambda: drained.append(wire.sent))
    diary.on_resumed = wire.resumed
    pipe.room = room
    return Out(wire, pipe, drained)


def test_while_the_kernel_takes_everything_nothing_ever_waits() -> None:
    it = out(room=10_000)
    for number in range(5):
        it.wire.hand(b"frame %d" % number)
        it.wire.answer(b"answer %d" % number)
        assert it.wire.offer(b"hint %d" % number)
        assert (it.wire.free, it.wire.idle, it.wire.waiting_s(99.0)) == (True, True, 0.0)
    assert it.texts() == [b"%b %d" % (kind, n) for n in range(5) for kind in (b"frame", b"answer", b"hint")]
    assert (it.wire.sent, it.drained) == (15, [])


def test_a_frame_waits_until_the_kernel_has_taken_its_last_byte() -> None:
    it = out(room=3)
    it.wire.hand(b"frame")
    assert (it.wire.free, it.wire.idle) == (False, False)
    with pytest.raises(AssertionError):
        it.wire.hand(b"another")
    it.pipe.let(3)
    assert (it.wire.free, it.drained) == (False, [])
    it.pipe.let(1)
    assert (it.wire.free, it.wire.idle, it.drained) == (True, True, [1])
    assert it.texts() == [b"frame"]


def test_a_frame_behind_an_answer_waits_too_and_comes_after_it() -> None:
    it = out()
    it.wire.answer(b"registered")
    assert it.wire.free
    it.wire.hand(Frame(b"snap", Shared(b"shot")))
    it.wire.answer(b"pong")
    assert (it.wire.free, it.wire.answers) == (False, 1)
    with pytest.raises(AssertionError):
        it.wire.hand(b"another")
    it.pipe.let(12 + 3)
    assert (it.wire.free, it.wire.answers, it.drained) == (False, 1, [])
    it.pipe.let(100)
    assert it.texts() == [b"registered", b"snapshot", b"pong"]
    assert (it.wire.free, it.drained) == (True, [3])


def test_an_answer_that_waits_holds_no_frame_up_and_tells_nobody() -> None:
    it = out()
    it.wire.answer(b"one")
    it.wire.answer(b"two")
    assert it.wire.free
    it.pipe.let(100)
    assert (it.texts(), it.drained) == ([b"one", b"two"], [])


def test_hints_are_dropped_when_the_queue_is_full_and_answers_are_not_counted_with_the_frame() -> None:
    it = out()
    it.wire.answer(b"answer")
    it.wire.hand(b"frame")
    while it.wire.offer(b"hint"):
        pass
    assert it.wire.answers == ANSWERS
    assert not it.wire.offer(b"hint")
    it.pipe.let(1000)
    assert it.texts() == [b"answer", b"frame"] + [b"hint"] * ANSWERS


async def test_who_waits_for_room_is_woken_when_there_is_some_and_who_waits_for_the_frame_when_it_is_out() -> None:
    it = out(room=1)
    it.wire.hand(b"frame")
    while it.wire.offer(b"hint"):
        pass
    room = asyncio.ensure_future(it.wire.until_room())
    await asyncio.sleep(0)
    assert not room.done()
    it.pipe.let(6)
    await room
    assert it.wire.free
    await it.wire.until_free()


async def test_the_wait_ends_when_the_connection_is_lost() -> None:
    it = out()
    it.wire.hand(b"frame")
    waiting = asyncio.ensure_future(it.wire.until_free())
    await asyncio.sleep(0)
    it.pipe.abort()
    it.wire.lost()
    with pytest.raises(WireClosed):
        await waiting
    await it.wire.until_room()
    assert not it.wire.free, "so that nothing more is made for it"
    it.wire.answer(b"nobody hears this")
    assert it.drained == []


steps = st.lists(
    st.one_of(st.just("hand"), st.just("answer"), st.just("offer"), st.integers(1, 60)), min_size=1, max_size=60
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=100)
@given(steps=steps, room=st.integers(0, 40))
def test_whatever_happens_all_leaves_in_order_and_a_frame_that_had_to_wait_is_told_of(
    steps: list[str | int], room: int
) -> None:
    it, expected, owed, end = out(room), [], 0, 0
    before = len(it.pipe.taken)
    for number, step in enumerate(steps):
        text = b"%b %d" % (str(step).encode(), number)
        if isinstance(step, int):
            it.pipe.let(step)
        elif step == "hand" and it.wire.free:
            it.wire.hand(text)
            expected.append(text)
            owed += not it.wire.free
            end = sum(2 + len(one) for one in expected)
        elif step == "answer":
            it.wire.answer(text)
            expected.append(text)
        elif step == "offer" and it.wire.offer(text):
            expected.append(text)
        assert len(it.pipe.stuck) <= 20, "one message at most is in the transport"
        assert it.wire.idle == (not it.pipe.stuck)
        assert it.wire.free == (len(it.pipe.taken) - before >= end), "free: the last frame's last byte was taken"
    for _ in range(len(steps) + 1):
        it.pipe.let(1000)
    assert it.texts() == expected
    assert (it.wire.free, it.wire.idle, len(it.drained)) == (True, True, owed)
    assert frames_in(b"") == []


def test_of_a_connection_that_is_about_to_end_nothing_leaves_any_more_and_nothing_is_made_for_it() -> None:
    it = out(room=10_000)
    it.wire.hand(b"frame")
    assert it.wire.free
    it.wire.supersede()
    assert not it.wire.free
    assert [close_of(payload) for kind, payload in it.pipe.sent() if kind == 0x80 | CLOSE] == [4004]
