"""The way out of one connection: everything in the order it came, at most one frame waiting, a short queue of answers.

Frames (snapshots and changes) and answers (pong, ack, error ...) share one socket. What comes while nothing waits is written
at once, by whoever brings it; there is no writer task. What comes while the kernel has not taken all that was written
before (`blocked`) waits here:

        hand(frame) --+-- nothing waits --> socket           a frame waits while it stands in the queue, and while
                      |                       ^              the transport still holds a byte of it or before it
        answer(bytes)-+-- blocked --> queue --+ resumed()

A frame is taken only while none waits (`free`). Answers may be ANSWERS in the queue; when it is full whoever wants to add one
waits, which stops reading from that connection: a client that does not read is not read from, and costs one frame and a few
answers of memory, whatever the others do. `drained` is told when a frame that had to wait is out.

One coroutine at a time may wait here: the one that handles the connection's messages.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from server.errors import SUPERSEDED
from server.handlers.connection import Connection
from server.handlers.framing import Payload

ANSWERS: Final = 32
"""Answers that may wait; above, reading from the connection stops."""
NOWHERE: Final = -1


class WireClosed(Exception):
    """The connection is gone; who waits for its way out need not wait any more."""


class Wire:
    """One connection's way out; an `Outlet` of the feed."""

    __slots__ = ("_connection", "_drained", "_moved", "_place", "_stuck", "_waiting", "sent")

    def __init__(self, connection: Connection, drained: Callable[[], None]) -> None:
        self._connection = connection
        self._drained = drained
        self._waiting: list[Payload] = []
        self._place = NOWHERE
        """Where in the queue the frame stands."""
        self._stuck = False
        """Is the frame the last thing the transport was given, and not all of it gone?"""
        self._moved: asyncio.Future[None] | None = None
        self.sent = 0

    @property
    def free(self) -> bool:
        """Does no frame wait? Of a connection that is about to end nothing leaves any more: what was handed over stays true."""
        return self._connection.open and not self._stuck and self._place == NOWHERE

    @property
    def idle(self) -> bool:
        """Is everything out?"""
        return not self._waiting and not self._connection.blocked

    @property
    def answers(self) -> int:
        """How many answers wait."""
        return len(self._waiting) - (self._place != NOWHERE)

    def waiting_s(self, now: float) -> float:
        """How long the kernel has not taken what it was last given; 0 when it has."""
        return now - self._connection.blocked_at if self._connection.blocked else 0.0

    def hand(self, frame: Payload) -> None:
        """Take one frame; only while free."""
        assert not self._stuck, "a frame waits already"
        assert self._place < 0, "a frame waits already"
        connection = self._connection
        if connection.blocked:
            self._place = len(self._waiting)
            self._waiting.append(frame)
        else:
            connection.send(frame)
            self.sent += 1
            self._stuck = connection.blocked

    def answer(self, payload: bytes) -> None:
        """Send an answer or queue it. Callers that read from the connection wait for room first."""
        if self._connection.blocked:
            self._waiting.append(payload)
        else:
            self._connection.send(payload)
            self.sent += 1

    def offer(self, payload: bytes) -> bool:
        """Send or queue a hint (progress, an alert) if there is room; False drops it."""
        if self.answers >= ANSWERS:
            return False
        self.answer(payload)
        return True

    async def until_free(self) -> None:
        """Wait until a frame may be handed over; WireClosed when none ever will."""
        while not self.free:
            if self._connection.lost:
                raise WireClosed
            await self.until_moved()

    def supersede(self) -> None:
        """Another connection has come back to its session: this one ends."""
        self._connection.close(SUPERSEDED, "another connection has come back to this session")

    async def until_room(self) -> None:
        """Wait until an answer may be added; when the connection is gone there is room for nothing and need of none."""
        while self.answers >= ANSWERS and not self._connection.lost:
            await self.until_moved()

    async def until_moved(self) -> None:
        """Wait until something here has changed, or `move` says that something elsewhere has."""
        assert self._moved is None, "one coroutine waits at a time"
        self._moved = asyncio.get_running_loop().create_future()
        try:
            await self._moved
        finally:
            self._moved = None

    def move(self) -> None:
        """Let the coroutine that waits look again."""
        if self._moved is not None and not self._moved.done():
            self._moved.set_result(None)

    def resumed(self) -> None:
        """The transport is empty: send what waits until it is not."""
        held, self._stuck = not self.free, False
        while self._waiting and not self._connection.blocked:
            self._send_oldest()
        if held and self.free:
            self._drained()
        self.move()

    def lost(self) -> None:
        """Nothing leaves any more; a frame that waited does so for ever, so that no other is made."""
        self._stuck = self._stuck or self._place != NOWHERE
        self._place = NOWHERE
        self._waiting.clear()
        self._drained = _nobody
        self.move()

    def _send_oldest(self) -> None:
        self._connection.send(self._waiting.pop(0))
        self.sent += 1
        if self._place == 0:
            self._stuck = self._connection.blocked
        if self._place != NOWHERE:
            self._place -= 1


def _nobody() -> None:
    """Who is told of a frame that never leaves; not the peer, which would refer to itself in a circle."""
