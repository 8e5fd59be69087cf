"""The heartbeat of a worker: a thread and a connection of its own, so that it beats while the event loop is blocked.

One statement renews the lease of the worker, which is that of all jobs it holds. It touches a row that nothing else locks:
no page that takes long, no claim, can hold it up. What it says about the worker's work it reads from `Pulse`, plain numbers
that the event loop's thread sets.

A beat that fails is tried again soon, on a new connection when the old one is gone. A worker that was declared dead stays
so: `lost` is called once, in the event loop's thread, and the worker has to register anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass

import asyncpg
import structlog

from server.batching.imports import claims
from server.core.lease import beat_again_s, beat_every_s, beat_limit_s
from server.edge.clock import Clock, SystemClock
from server.edge.postgres import CONNECT_LIMIT_S, WORLD, Connection

JOIN_LIMIT_S = 10.0

log = structlog.get_logger()


@dataclass(slots=True)
class Pulse:
    """What a heartbeat tells of the worker, beside that it lives."""

    job: int | None = None
    jobs: int = 0
    members: int = 0


class Heart:
    """Beats from `start` to `stop`, or until the worker is declared dead."""

    def __init__(self, dsn: str, worker: int, lease_s: float, pulse: Pulse, lost: Callable[[], None]) -> None:
        self.worker = worker
        self.beats = 0
        self._dsn = dsn
        self._lease_s = lease_s
        self._pulse = pulse
        self._lost = lost
        self._home = asyncio.get_running_loop()
        self._clock: Clock = SystemClock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._enough = asyncio.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._body, name=f"heartbeat {worker}", daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def stop(self) -> None:
        """No more beats. Waits for the one under way, which is bounded."""
        self._stopping.set()
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # It has ended by itself.
                loop.call_soon_threadsafe(self._enough.set)
        self._thread.join(JOIN_LIMIT_S)

    def _body(self) -> None:
        asyncio.run(self._beat_on())

    async def _beat_on(self) -> None:
        self._loop = asyncio.get_running_loop()
        connection: Connection | None = None
        failing = False
        while not self._stopping.is_set():
            try:
                connection = connection or await self._connect()
                alive = await self._beat(connection)
            except (*WORLD, asyncpg.PostgresError) as error:
                _log_failure(failing, self.worker, error)
                _cut(connection)
                connection, failing = None, True
            else:
                failing = False
                if not alive:
                    break
            await self._clock.wait(
                self._enough, beat_again_s(self._lease_s) if failing else beat_every_s(self._lease_s)
            )
        _cut(connection)
        if not self._stopping.is_set():
            log.error("worker declared dead", worker=self.worker)
            self._home.call_soon_threadsafe(self._lost)

    async def _connect(self) -> Connection:
        settings = {"application_name": "batchcast heartbeat", "role": "batchcast_worker"}
        return await asyncpg.connect(
            self._dsn,
            timeout=min(CONNECT_LIMIT_S, beat_limit_s(self._lease_s)),
            command_timeout=beat_limit_s(self._lease_s),
            server_settings=settings,
        )

    async def _beat(self, connection: Connection) -> bool:
        pulse = self._pulse
        alive = await claims.beat(connection, self.worker, self._lease_s, pulse.job, pulse.jobs, pulse.members)
        self.beats += 1
        return alive


def _cut(connection: Connection | None) -> None:
    if connection is not None:
        connection.terminate()


def _log_failure(failing: bool, worker: int, error: BaseException) -> None:
    if not failing:
        log.warning("heartbeat failed", worker=worker, error=str(error) or type(error).__name__)
