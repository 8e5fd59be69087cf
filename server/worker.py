"""A worker: the lanes of the imports' queue in a process of their own, without the live feed, its ports and its pages.

Up:   PostgreSQL (DATABASE_URL, or that of the server in DATA_DIR) -> migrations -> ledger, panel, bus, lanes -> metrics, if asked
Down: no new pages, those under way are stored, the rest goes back to the queue -> loops -> connections.

Any number of workers may run beside any number of servers over one PostgreSQL. `run` is the program; it answers with the exit code: 0
after SIGTERM or SIGINT, 2 when it could not start. A worker outlives losses of PostgreSQL, as a server does.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket

import structlog
import uvloop

from server import __version__
from server.batching.imports.importer import Importer
from server.batching.ledger import Ledger
from server.batching.loop import Loop, Occasion, Turn, TurnRecord
from server.batching.panel import Panel
from server.batching.parts import Parts
from server.edge import garbage, logs, notify
from server.edge.attached import attached
from server.edge.bus import Bus
from server.edge.clock import Clock, SystemClock
from server.edge.postgres import Database, migrate
from server.edge.secrets import exposed, keys_of
from server.edge.tasks import Tasks
from server.edge.web import Listener
from server.errors import StartRefused, Unavailable
from server.handlers.http import build_metrics
from server.handlers.metrics import Metrics
from server.settings import Settings
from server.settings import warnings as slips

LEDGER_MS = 1000
BUS_MS = 2000
# Nobody looks at a worker: what it reads may be late by this, and its own claims and pages don't wake it each time.
BUS_GAP_MS = 100

log = structlog.get_logger()


class Worker:
    """One worker process. `start`, then `stop`."""

    def __init__(self, settings: Settings, metrics_port: int | None = None, clock: Clock | None = None) -> None:
        self.settings = settings
        self.clock = clock or SystemClock()
        self.tasks = Tasks()
        self.node = f"{socket.gethostname()}-{os.getpid()}"
        self._metrics_port = metrics_port
        self._database: Database | None = None
        self._listener: Listener | None = None

    async def start(self) -> None:
        """All of it, or StartRefused."""
        try:
            self._database = await self._open()
            await self._wire(self._database)
            await self._open_port()
        except BaseException:
            await self.stop()
            raise
        self.panel.start()
        port = None if self._listener is None else self._listener.port
        log.info("worker started", lanes=self.settings.imports_lanes, node=self.node, metrics_port=port)

    async def _open(self) -> Database:
        url = self.settings.database_url
        dsn = url.get_secret_value() if url else await asyncio.to_thread(attached, self.settings.data_dir)
        try:
            database = await Database.open(dsn, pool_size=self.settings.database_pool, clock=self.clock)
        except Unavailable as error:
            raise StartRefused(f"{error.message} Check DATABASE_URL, or DATA_DIR when it is unset.") from None
        self._database = database
        await migrate(database)
        return database

    async def _wire(self, db: Database) -> None:
        self.ledger = Ledger(db, self.clock, node=self.node, keep_days=self.settings.runs_keep_days)
        self.panel = Panel(self.ledger, clock=self.clock, tasks=self.tasks)
        self.metrics = Metrics(self.panel.metrics)
        self.bus = Bus(db, node=self.node)
        ledger = Loop("ledger", self.ledger.flush, clock=self.clock, record=self.record, interval_ms=LEDGER_MS)
        self.panel.add(ledger, fold=True, last_turn=True)
        bus = Loop(
            "bus", self._bus_turn, clock=self.clock, record=self.record, interval_ms=BUS_MS, min_gap_ms=BUS_GAP_MS
        )
        self.bus.woken = self.panel.add(bus, fold=True).wake
        parts = Parts(self.settings, db, self.bus, self.clock, self.panel, self.record, self.tasks)
        self.importer = await Importer.open(parts, __version__)
        self.importer.measure(self.metrics.gauge, self.metrics.counter, self.metrics.counters)
        self.metrics.gauge("postgres_up", "1 while PostgreSQL answers", lambda: int(db.up))

    async def _open_port(self) -> None:
        if self._metrics_port is None:
            return
        settings = self.settings
        app = build_metrics(settings, self.metrics, keys_of(settings, self.clock), exposed=exposed(settings))
        self._listener = await Listener.open(app, settings.host, self._metrics_port)

    def record(self, record: TurnRecord) -> None:
        """Every turn of every loop."""
        self.ledger.record(record)
        self.metrics.observe(record)

    async def _bus_turn(self, occasion: Occasion) -> Turn:
        progress = await self.bus.step()
        return Turn(progress.count, progress.count, more=progress.more)

    async def stop(self) -> None:
        """In order, whatever was started; what is not finished goes back to the queue."""
        if self._listener is not None:
            await self._listener.close()
        if hasattr(self, "importer"):
            self.tasks.start("imports cut", self.importer.cut(self.settings.shutdown_timeout_ms / 1000))
            await self.panel.stop()
            await self.importer.close()
            await self.bus.close()
        await self.tasks.close()
        if self._database is not None:
            await self._database.close()
        log.info("worker stopped")


async def work(settings: Settings, metrics_port: int | None) -> int:
    """Run until told to stop; the exit code."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    worker = Worker(settings, metrics_port)
    try:
        await worker.start()
    except StartRefused as error:
        log.error("start refused", reason=str(error))
        return 2
    garbage.settle()
    notify.tell(notify.READY)
    await stop.wait()
    log.info("worker stopping")
    notify.tell(notify.STOPPING)
    await worker.stop()
    return 0


def run(settings: Settings, metrics_port: int | None = None) -> int:
    """The program; the exit code."""
    logs.configure(settings.log_format, settings.log_level)
    logs.trace_crashes()
    for slip in slips(os.environ):
        log.warning("variable passed over", reason=slip)
    return uvloop.run(work(settings, metrics_port))
