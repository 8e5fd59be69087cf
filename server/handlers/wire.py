"""The way out of one connection: a single writer, at most one frame waiting, a short queue of answers.

Frames (snapshots and changes) and answers (pong, ack, error ...) share one socket. A frame is taken only while none waits
(`free`); it waits until the transport's buffer is empty again, because the write limit is zero. Answers wait in a queue of
ANSWERS; when it is full whoever wants to add one waits, which stops reading from that connection: a client that does not
read is not read from, and costs one frame and a few answers of memory, whatever the others do.

        hand(frame) ---> one slot --+
                                     +--> writer task --> socket          drained() is told when the slot is empty again
        answer(bytes) -> queue -----+
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from server.edge.clock import Clock

ANSWERS: Final = 32
"""Answers that may wait; above, reading from the connection stops."""


class WireClosed(Exception):
    """The connection is gone; who waits for its way out need not wait any more."""


class Wire:
    """One connection's way out; an `Outlet` of the feed."""

    def __init__(self, connection: ServerConnection, clock: Clock, drained: Callable[[], None]) -> None:
        self._connection = connection
        self._clock = clock
        self._drained = drained
        self._answers: deque[bytes] = deque()
        self._frame: bytes | None = None
        self._sending = False
        self._work = asyncio.Event()
        self._moved = asyncio.Event()
        self._waits_since: float | None = None
        self._closed = False
        self.sent = 0

    @property
    def free(self) -> bool:
        """Does no frame wait?"""
        return self._frame is None and not self._sending

    @property
    def idle(self) -> bool:
        """Is everything out?"""
        return self.free and not self._answers and self._waits_since is None

    def waiting_s(self, now: float) -> float:
        """How long the oldest thing has waited; 0 when nothing does."""
        return 0.0 if self._waits_since is None else now - self._waits_since

    def hand(self, frame: bytes) -> None:
        """Take one frame; only while free."""
        assert self.free, "a frame waits already"
        self._frame = frame
        self._wake()

    async def until_free(self) -> None:
        """Wait until a frame may be handed over."""
        while not self.free:
            await self._until_moved()

    async def until_room(self) -> None:
        """Wait until an answer may be added."""
        while len(self._answers) >= ANSWERS:
            await self._until_moved()

    def answer(self, payload: bytes) -> None:
        """Queue an answer. Callers that read from the connection wait for room first."""
        self._answers.append(payload)
        self._wake()

    def offer(self, payload: bytes) -> bool:
        """Queue a hint (progress, an alert) if there is room; False drops it."""
        if len(self._answers) >= ANSWERS:
            return False
        self.answer(payload)
        return True

    async def run(self) -> None:
        """The writer: until the connection is closed."""
        try:
            while True:
                await self._work.wait()
                await self._send_all()
                self._waits_since = None
                if self.idle:
                    self._work.clear()
        except ConnectionClosed:
            return
        finally:
            self._closed = True
            self._moved.set()

    async def _until_moved(self) -> None:
        if self._closed:
            raise WireClosed
        self._moved.clear()
        await self._moved.wait()

    async def _send_all(self) -> None:
        while self._answers:
            await self._send(self._answers[0])
            self._answers.popleft()
            self._moved.set()
        if self._frame is not None:
            frame, self._frame, self._sending = self._frame, None, True
            try:
                await self._send(frame)
            finally:
                self._sending = False
            self._moved.set()
            self._drained()

    async def _send(self, payload: bytes) -> None:
        self._waits_since = self._clock.monotonic()
        await self._connection.send(payload, text=True)
        self.sent += 1

    def _wake(self) -> None:
        if self._waits_since is None:
            self._waits_since = self._clock.monotonic()
        self._work.set()
