"""The sweep: who is closed for what, who is pinged, who is cut off, and that nobody is for what was our fault."""

from dataclasses import dataclass, field

import pytest

from server.batching.loop import Occasion, Turn
from server.core.identity import ANONYMOUS, Identity
from server.edge.clock import VirtualClock
from server.handlers.connection import CLOSE_S, HANDSHAKE_S
from server.handlers.hub import AT_THE_DOOR, SLICE, Hub
from server.settings import load
from tests.handlers.pipe import CLOSE, HANDSHAKE, PONG, Inn, Pipe, frame, made, opened

pytestmark = pytest.mark.pure


class Lodge(Inn):
    """An inn that keeps a hub, as the server does."""

    def __init__(self, hub: Hub, clock: VirtualClock) -> None:
        super().__init__(clock)
        self.hub = hub

    def greet(self, connection: object) -> bool:
        self.hub.expect(connection, HANDSHAKE_S)  # type: ignore[arg-type]
        return not self.hub.crowded

    def welcome(self, connection: object, who: Identity) -> object:  # type: ignore[override]
        self.hub.met(connection)  # type: ignore[arg-type]
        diary = super().welcome(connection, who)  # type: ignore[arg-type]
        self.hub.add(One(connection), "")
        return diary

    def expect_end(self, connection: object) -> None:
        self.hub.expect(connection, CLOSE_S)  # type: ignore[arg-type]

    def gone(self, connection: object) -> None:
        self.hub.met(connection)  # type: ignore[arg-type]


@dataclass(eq=False)
class One:
    """A member."""

    connection: object = None
    who: Identity = ANONYMOUS
    flooding: bool = False
    waits_s: float = 0.0
    closed: list[int] = field(default_factory=list)

    def waiting_s(self, now: float) -> float:
        return self.waits_s

    def offer(self, payload: bytes) -> bool:
        return True

    def close(self, code: int, reason: str) -> None:
        assert reason
        self.closed.append(code)
        if self.connection is not None:
            self.connection.close(code, reason)  # type: ignore[attr-defined]

    def tend(self, now: float, interval_s: float) -> bool:
        return self.connection is not None and self.connection.tend(now, interval_s)  # type: ignore[attr-defined]


@dataclass
class World:
    hub: Hub
    clock: VirtualClock
    inn: Lodge

    async def sweeps(self, count: int, each_s: float = 1.0) -> Turn:
        for _ in range(count):
            await self.clock.advance(each_s)
            turn = await self.hub.sweep(Occasion("tick", 1, self.clock.now_ms()))
        return turn


@pytest.fixture
def world() -> World:
    clock = VirtualClock()
    hub = Hub(load({"PING_INTERVAL_MS": "20000", "SLOW_CLIENT_TIMEOUT_MS": "30000"}), clock)
    return World(hub, clock, Lodge(hub, clock))


async def test_expired_slow_and_flooding_ones_are_closed_each_with_its_code(world: World) -> None:
    expired = One(who=Identity("paul", frozenset(), expires_ms=world.clock.now_ms() + 1500))
    slow, flooding, good = One(waits_s=30.5), One(flooding=True), One(waits_s=29.5)
    for one in (expired, slow, flooding, good):
        world.hub.add(one, "")
    assert (await world.sweeps(1)).done == 2
    assert [one.closed for one in (expired, slow, flooding, good)] == [[], [4003], [4002], []]
    await world.sweeps(1)
    assert expired.closed == [4001]


async def test_who_is_silent_is_pinged_and_who_stays_silent_is_closed_and_then_cut_off(world: World) -> None:
    _, pipe, _ = opened(world.inn)
    await world.sweeps(19)
    assert pipe.sent() == []
    await world.sweeps(1)
    assert pipe.sent() == [(0x89, b"")]
    await world.sweeps(19)
    assert len(pipe.sent()) == 1
    await world.sweeps(1)
    first, payload = pipe.sent()[-1]
    assert (first, payload[:2]) == (0x88, b"\x03\xf3")
    assert not pipe.closing
    await world.sweeps(1)
    assert pipe.closing
    assert world.hub.expected == []


async def test_who_answers_its_pings_stays(world: World) -> None:
    connection, pipe, _ = opened(world.inn)
    for number in range(10):
        await world.sweeps(20)
        assert len(pipe.sent()) == number + 1
        connection.data_received(frame(PONG))
    assert connection.open


async def test_a_sweep_that_came_late_closes_nobody_for_silence(world: World) -> None:
    connection, pipe, _ = opened(world.inn)
    await world.sweeps(20)
    await world.sweeps(1, each_s=600.0)
    assert connection.open
    connection.data_received(frame(PONG))
    await world.sweeps(1)
    assert connection.open
    assert pipe.sent() == [(0x89, b"")]


async def test_a_handshake_that_does_not_end_is_cut_off_and_one_that_does_is_not(world: World) -> None:
    _, silent = made(world.inn)
    _, slow = made(world.inn)
    slow.protocol.data_received(HANDSHAKE[:50])
    _, good, _ = opened(world.inn)
    await world.sweeps(9)
    assert [pipe.closing for pipe in (silent, slow, good)] == [False] * 3
    slow.protocol.data_received(HANDSHAKE[50:60])
    await world.sweeps(1)
    assert [pipe.closing for pipe in (silent, slow, good)] == [True, True, False]


async def test_who_is_refused_or_has_closed_and_does_not_hang_up_is_cut_off(world: World) -> None:
    _, refused = made(world.inn)
    refused.protocol.data_received(HANDSHAKE.replace(b"/ws", b"/else"))
    closing, pipe, _ = opened(world.inn)
    closing.data_received(frame(CLOSE, b"\x03\xe8"))
    _, polite, _ = opened(world.inn)
    polite.protocol.data_received(frame(CLOSE, b"\x03\xe8"))
    polite.protocol.connection_lost(None)
    assert len(world.hub.expected) == 2
    await world.sweeps(1)
    assert (refused.closing, pipe.closing, polite.closing) == (True, True, False)


async def test_there_is_room_for_so_many_at_the_door(world: World) -> None:
    guests = [Pipe() for _ in range(AT_THE_DOOR)]
    for guest in guests:
        assert not world.hub.crowded
        world.hub.expect(guest, 5.0)
    assert world.hub.crowded
    world.hub.met(guests[0])
    assert not world.hub.crowded


async def test_a_sweep_over_many_lets_others_in_between(world: World) -> None:
    for _ in range(3 * SLICE):
        world.hub.add(One(), "")
    sweep = world.hub.sweep(Occasion("tick", 1, 0))
    steps = 0
    try:
        while True:
            sweep.send(None)
            steps += 1
    except StopIteration as end:
        assert end.value == Turn(0, 0)
    assert steps == 3
