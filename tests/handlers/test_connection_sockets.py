"""The shell over real sockets, on asyncio and on uvloop: that both call it as it expects to be called."""

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from server.batching.scores.frame import Frame, Shared
from server.edge.clock import SystemClock
from server.handlers.connection import Connection
from server.handlers.wire import Wire
from tests.handlers.pipe import CLOSE, CONT, PING, TEXT, Diary, Inn, frame
from tests.serving import deaf_socket, until
from tests.wire.raw import Raw

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
BIG = b"x" * 4_000_000
"""More than the kernels hold."""

Scenario = Callable[["Town"], Awaitable[None]]


class Town(Inn):
    """An inn that listens."""

    def __init__(self) -> None:
        super().__init__(SystemClock())
        self.port = 0

    async def visit(self, deaf: bool = False) -> tuple[Raw, Diary, Wire, list[int]]:
        """A client, and the other end of its connection."""
        raw = await Raw.open(self.port, sock=deaf_socket(self.port) if deaf else None)
        if deaf:
            raw.writer.transport.pause_reading()  # type: ignore[attr-defined]
        diary, drained = self.diaries[-1], []
        wire = Wire(diary.connection, lambda: drained.append(wire.sent))
        diary.on_resumed = wire.resumed
        return raw, diary, wire, drained


def hear(raw: Raw) -> None:
    sock = raw.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    raw.writer.transport.resume_reading()  # type: ignore[attr-defined]


async def frames_drain_in_order(town: Town) -> None:
    raw, diary, wire, drained = await town.visit(deaf=True)
    wire.hand(Frame(b"head", Shared(BIG)))
    assert (wire.free, wire.idle, diary.connection.transport.get_write_buffer_size() > 0) == (False, False, True)
    for number in range(5):
        wire.answer(b"answer %d" % number)
    raw.say(*(frame(PING, b"%d" % n) for n in range(100)))
    await until(lambda: diary.nudges == 100, "all pings were read")
    hear(raw)
    assert await raw.frame() == (0x81, b"head" + BIG)
    said = [await raw.frame() for _ in range(6)]
    assert said == [(0x8A, b"99"), *((0x81, b"answer %d" % n) for n in range(5))]
    await until(lambda: wire.idle, "all is out")
    assert (wire.free, drained) == (True, [6])
    wire.hand(b"again")
    assert await raw.frame() == (0x81, b"again")


async def a_frame_handed_on_when_the_one_before_has_drained_goes_out(town: Town) -> None:
    raw, _, wire, drained = await town.visit(deaf=True)
    wire._drained = lambda: wire.hand(b"next") if wire.free else None
    wire.hand(BIG)
    hear(raw)
    assert [size for _, size in [(await raw.frame()) for _ in range(2)]] == [BIG, b"next"]
    assert drained == []


async def a_flood_of_messages_is_read_as_it_is_taken(town: Town) -> None:
    raw, diary, _, _ = await town.visit()
    diary.eager = False
    count = 60_000
    raw.say(*(frame(TEXT, b"%d" % n) for n in range(count)))
    await until(lambda: not diary.connection.reading, "reading has stopped")
    while len(diary.got) < count:
        await until(lambda: diary.take() is not None, "one more")
        while diary.take() is not None:
            pass
    assert diary.got == [str(n) for n in range(count)]
    raw.say(frame(CLOSE))
    assert await raw.closed() == 0


async def a_close_goes_behind_the_frame_under_way(town: Town) -> None:
    for by_us in (False, True):
        raw, diary, wire, _ = await town.visit(deaf=True)
        wire.hand(BIG)
        wire.answer(b"too late")
        if by_us:
            diary.connection.close(1012, "bye")
        else:
            raw.say(frame(CLOSE, b"\x03\xf4bye"))
            await until(lambda diary=diary: not diary.connection.open, "its close was read")
        hear(raw)
        assert await raw.frame() == (0x81, BIG)
        assert await raw.frame() == (0x88, b"\x03\xf4bye")
        if by_us:
            raw.say(frame(CLOSE, b"\x03\xf4"))
        await raw.ended()
        raw.leave()
        await until(lambda diary=diary: diary.losses == 1, "it is gone")


async def hanging_up_in_any_way_is_noticed(town: Town) -> None:
    for said in (b"", frame(TEXT, b"x", fin=False), frame(TEXT, b"x" * 50)[:20]):
        for half in (True, False):
            raw, diary, _, _ = await town.visit()
            raw.say(said)
            raw.writer.write_eof() if half else raw.leave()
            await until(lambda diary=diary: diary.losses == 1, "it is gone")
            raw.leave()
    deaf, diary, wire, _ = await town.visit(deaf=True)
    wire.hand(BIG)
    deaf.leave()
    await until(lambda: diary.losses == 1, "the deaf one is gone")
    assert town.said.count("gone") == 7


async def cut_off_with_much_unsent_it_is_gone_at_once(town: Town) -> None:
    raw, diary, wire, _ = await town.visit(deaf=True)
    wire.hand(BIG)
    diary.connection.close(4003, "slow")
    diary.connection.abort()
    await until(lambda: diary.losses == 1, "it is gone")
    wire.answer(b"nobody hears this")
    diary.connection.close(1000, "again")
    raw.leave()


async def broken_frames_are_answered_and_ended(town: Town) -> None:
    for stream, code in (
        (frame(TEXT, b"\xff"), 1007),
        (frame(CONT), 1002),
        (b"\x81\xff" + b"\x7f" * 8 + b"x" * 400_000, 1009),
    ):
        raw, diary, _, _ = await town.visit()
        raw.say(stream)
        assert await raw.closed() == code
        raw.leave()
        await until(lambda diary=diary: diary.losses == 1, "it is gone")
    stranger = await Raw.dial(town.port)
    stranger.say(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert await stranger.status() == 503
    stranger.leave()


SCENARIOS = [
    frames_drain_in_order,
    a_frame_handed_on_when_the_one_before_has_drained_goes_out,
    a_flood_of_messages_is_read_as_it_is_taken,
    a_close_goes_behind_the_frame_under_way,
    hanging_up_in_any_way_is_noticed,
    cut_off_with_much_unsent_it_is_gone_at_once,
    broken_frames_are_answered_and_ended,
]


async def played(scenario: Scenario) -> None:
    loop, town, complaints = asyncio.get_running_loop(), Town(), []
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    server = await loop.create_server(lambda: Connection(town), "127.0.0.1", 0)
    town.port = server.sockets[0].getsockname()[1]
    async with asyncio.timeout(60):
        await scenario(town)
    server.close()
    assert complaints == []


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_on_real_sockets(scenario: Scenario, loop: str) -> None:
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(played(scenario))
