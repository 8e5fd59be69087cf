"""Builds everything from Settings, runs it, takes it down in order. The only place that wires systems.

Up:   data directory -> PostgreSQL -> migrations -> ledger, panel, alerts, leadership, bus -> feed loaded -> ports -> loops
Down: ports stop accepting -> last flush -> frames drain, clients are told to come back -> loops -> lead handed over ->
      PostgreSQL. `run` is the program: it answers with the exit code (0 after SIGTERM or SIGINT, 2 when it could not start).
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

import structlog
import uvloop

from server import __version__
from server.batching.alerts import Alerts
from server.batching.imports import figures
from server.batching.imports.importer import Importer
from server.batching.lag import CALM_MS, Lag
from server.batching.ledger import Ledger
from server.batching.loop import Loop, Occasion, Turn, TurnRecord
from server.batching.panel import Panel
from server.batching.parts import Follow, Lead, Parts
from server.batching.schedules import figures as schedule_figures
from server.batching.schedules.scheduler import Scheduler
from server.batching.scores.feed import Feed
from server.batching.scores.journal import figures as journal_figures
from server.batching.sinks import LogSink, MailServer, MailSink, TopicSink, WebhookSink
from server.batching.tiers import figures as tier_figures
from server.batching.tiers.lookup import Lookup
from server.batching.tiers.tiers import LED, Tiers
from server.batching.tracking import figures as tracking_figures
from server.batching.tracking import growth, sums, tracker
from server.batching.tracking import relay as tracking_relay
from server.batching.tracking.desk import Desk, terms_of
from server.batching.tracking.popularity import POPULARITY, Popularity
from server.batching.tracking.tracker import Tracker
from server.edge import garbage, logs, notify
from server.edge.bus import Bus
from server.edge.clock import Clock, SystemClock
from server.edge.embedded import EmbeddedPostgres, locate
from server.edge.leader import Leadership
from server.edge.postgres import Database, migrate
from server.edge.secrets import exposed, open_keys
from server.edge.tasks import Tasks
from server.edge.web import Listener
from server.errors import StartRefused, Unavailable
from server.handlers.http import build
from server.handlers.hub import SWEEP_MS, Hub
from server.handlers.metrics import Metrics
from server.handlers.ports import Ports
from server.handlers.tracking_runs import run_json
from server.handlers.websocket import Deps, WebSocketServer
from server.settings import Settings
from server.settings import warnings as slips

LEDGER_MS: Final = 1000
ALERTS_MS: Final = 10_000
RETIRE_MS: Final = 3_600_000
BUS_MS: Final = 2000
RETAIN_MS: Final = 60_000
COLLECT_MS: Final = 600_000
LANES: Final = "imports-lane-"

log = structlog.get_logger()


class App:
    """One server. `start`, then `stop`; everything it made is reachable from here, for tests and for the demo."""

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        self.settings = settings
        self.clock = clock or SystemClock()
        self.tasks = Tasks()
        self.node = f"{socket.gethostname()}-{os.getpid()}"
        self.lag = Lag(self.clock)
        self._embedded: EmbeddedPostgres | None = None
        self._database: Database | None = None
        self._listener: Listener | None = None
        self._sockets: WebSocketServer | None = None

    async def start(self) -> None:
        """All of it, or StartRefused."""
        try:
            await self._open_database()
            self._wire()
            await self._wire_systems()
            count = await self.feed.load()
            await self._open_ports()
        except BaseException:
            await self.stop()
            raise
        with suppress(Unavailable):  # Then the loop looks for it.
            await self._lead_turn(Occasion("wake", 0, self.clock.now_ms()))
        self.panel.start()
        log.info("server started", events=count, http=self.http_url, ws=self.ws_url, node=self.node)

    async def _open_database(self) -> None:
        self.settings.data_dir.mkdir(parents=True, exist_ok=True)
        self.keys = open_keys(self.settings, self.clock)
        url = self.settings.database_url
        found = locate(url.get_secret_value() if url else None, self.settings.data_dir)
        if isinstance(found, EmbeddedPostgres):
            self._embedded = found
            found = await found.start()
        try:
            self._database = await Database.open(found, pool_size=self.settings.database_pool, clock=self.clock)
        except Unavailable as error:
            raise StartRefused(f"{error.message} Check DATABASE_URL, or leave it unset for the embedded one.") from None
        applied = await migrate(self._database)
        if applied:
            log.info("migrations applied", numbers=applied)

    def _wire(self) -> None:
        assert self._database is not None
        settings, clock, db = self.settings, self.clock, self._database
        self.ledger = Ledger(db, clock, node=self.node, keep_days=settings.runs_keep_days)
        self.panel = Panel(self.ledger, clock=clock, tasks=self.tasks)
        self.metrics = Metrics(self.panel.metrics)
        self.alerts = Alerts(self.ledger, db, clock)
        self.leadership = Leadership(db, clock, node=self.node)
        self.bus = Bus(db, node=self.node)
        self.hub = Hub(settings, clock)
        self._add_loops()
        self.lead = Lead(self.leadership.leads, self.leadership.leader, self.leadership.fenced)
        self.feed = Feed(settings, db, clock, self.panel, self.record, self.lead, self.bus, lag=self.lag)
        self._add_sinks()
        self._add_gauges()

    async def _wire_systems(self) -> None:
        assert self._database is not None
        parts = Parts(self.settings, self._database, self.bus, self.clock, self.panel, self.record, self.tasks)
        follow = Follow(lambda: self.hub.topics, self._told_all)
        gauge, counter = self.metrics.gauge, self.metrics.counter
        self.importer = await Importer.open(parts, __version__, follow)
        self.importer.measure(gauge, counter, self.metrics.counters)
        self.schedules = await Scheduler.open(parts, self.lead, follow)
        self.schedules.measure(gauge)
        self.tiers = await Tiers.open(parts, self.lead, follow)
        self.tiers.measure(gauge, counter)
        self.lookup = Lookup(self._database)
        await self._wire_tracking(parts, follow)
        self.tracker.measure(gauge, counter)
        self.alerts.rules += (*figures.RULES, *schedule_figures.RULES, *tier_figures.RULES)
        self.alerts.rules += (*tracking_figures.RULES, *sums.RULES, *journal_figures.RULES)

    async def _wire_tracking(self, parts: Parts, follow: Follow) -> None:
        self.tracker = await Tracker.open(parts, self.lead)
        self.hints = tracking_relay.tell(parts, follow, self._newest_run)
        self.tracker.note = self.hints.note
        self.books = Desk(parts.db, terms_of(parts.settings), self.hints.note)
        if parts.settings.tracking_popularity:
            popularity = Popularity(self.feed.ingest)
            loop = Loop(POPULARITY, popularity.turn, clock=parts.clock, record=parts.record)
            popularity.woken = parts.panel.add(loop, fold=True).wake
            parts.bus.subscribe([growth.TOPIC], popularity.heard)

    async def _newest_run(self) -> Mapping[str, object] | None:
        run = await self.tracker.newest()
        return None if run is None else run_json(run)

    def _told_all(self, topic: str, message: dict[str, object]) -> bool:
        """Publish; did all who follow have room?"""
        dropped = self.hub.hints_dropped
        self.hub.publish(topic, message)
        return self.hub.hints_dropped == dropped

    def record(self, record: TurnRecord) -> None:
        """Every turn of every loop: one record, from which all else follows."""
        self.ledger.record(record)
        self.metrics.observe(record)
        if not (record.loop in QUIET or record.loop.startswith(LANES)):
            self.hub.publish("loops", {"type": "status", "topic": "loops", **_said(record)})

    def _add_loops(self) -> None:
        def add(name: str, turn: Callable[[Occasion], object], interval_ms: int, **how: bool) -> Loop:
            loop = Loop(name, turn, clock=self.clock, record=self.record, interval_ms=interval_ms)  # type: ignore[arg-type]  # every turn here returns a Turn
            return self.panel.add(loop, fold=True, **how)

        add("ledger", self.ledger.flush, LEDGER_MS, last_turn=True)
        add("ledger-retire", self.ledger.retire, RETIRE_MS)
        add("alerts", self.alerts.evaluate, ALERTS_MS)
        add("alerts-retire", self.alerts.retire, RETIRE_MS)
        add("leader", self._lead_turn, round(self.leadership.interval_s * 1000))
        bus = add("bus", self._bus_turn, BUS_MS)
        self.bus.woken = bus.wake
        add("bus-retain", self._retain_turn, RETAIN_MS)
        add("connections", self.hub.sweep, SWEEP_MS)
        add("garbage", self._collect, COLLECT_MS)
        self.lag.retime = add("lag", self.lag.turn, CALM_MS).set_interval

    async def _lead_turn(self, occasion: Occasion) -> Turn:
        before = self.leadership.leads()
        leads = await self.leadership.step()
        if leads and not before:
            # Off, the monthly generation is not to turn by itself.
            off = () if self.settings.tiers_monthly else (tier_figures.MONTHLY,)
            for name in {"expire", "tidy", *LED, *tracker.LED}.difference(off):
                self.panel.loop(name).wake()
            self.feed.led()
        return Turn(detail={"leads": int(leads)})

    async def _bus_turn(self, occasion: Occasion) -> Turn:
        progress = await self.bus.step()
        return Turn(progress.count, progress.count, more=progress.more)

    async def _retain_turn(self, occasion: Occasion) -> Turn:
        progress = await self.bus.retain()
        return Turn(progress.count, progress.count, more=progress.more)

    def _add_sinks(self) -> None:
        settings = self.settings
        self.alerts.add_sink(LogSink())
        self.alerts.add_sink(TopicSink(lambda topic, message: _ignore(self.hub.publish(topic, dict(message)))))
        if settings.alert_webhook_url is not None:
            url = settings.alert_webhook_url.get_secret_value()
            self.alerts.add_sink(WebhookSink(url, settings.alert_webhook_format))
        if settings.alert_smtp_url is not None:
            if not settings.alert_mail_to:
                raise StartRefused("ALERT_SMTP_URL is set but ALERT_MAIL_TO is not; say who gets the mails.")
            server = MailServer.parse(settings.alert_smtp_url.get_secret_value())
            self.alerts.add_sink(MailSink(server, settings.alert_mail_from, settings.alert_mail_to))

    def _add_gauges(self) -> None:
        desk, database = self.feed.desk, self._database
        assert database is not None
        gauge = self.metrics.gauge
        gauge("viewers", "registered viewers", lambda: len(desk.audience))
        gauge("connections", "open WebSocket connections", lambda: len(self.hub))
        gauge("connections_expected", "connections at the door or about to end", lambda: len(self.hub.expected))
        gauge("tasks", "tasks under way, a loop's included", lambda: len(self.tasks))
        gauge("sessions_remembered", "ended sessions that may be come back to", lambda: len(desk.sessions))
        gauge("sessions_remembered_events", "events that they hold", lambda: desk.sessions.events)
        self.feed.measure(gauge)
        gauge("events", "events in memory", self.feed.events)
        gauge("postgres_up", "1 while PostgreSQL answers", lambda: int(database.up))
        gauge("event_loop_lag_seconds", "worst lag of the event loop since start", lambda: self.lag.worst_s)
        gauge("flush_lag_seconds", "worst lag of the event loop in the last flush", lambda: self.lag.watched_s)
        self.metrics.counter(
            "hints_dropped", "topic messages for which there was no room", lambda: self.hub.hints_dropped
        )
        self.metrics.counters("saved", "what viewers were not sent, by what it is", "what", desk.pacing.savings.counts)
        gauge("leader", "1 on the node that leads", lambda: int(self.leadership.leads()))
        self.metrics.gauges(
            "alert_open",
            "1 while an alert of that rule stands here",
            "rule",
            lambda: {a.rule: 1 for a in self.alerts.open},
        )

    async def _open_ports(self) -> None:
        deps = Deps(self.settings, self.clock, self.tasks, self.feed, self.importer, self.hub, self.keys)
        self._sockets = WebSocketServer(deps)
        try:
            await self._sockets.start()
        except OSError as error:
            where = f"{self.settings.host}:{self.settings.ws_port}"
            reason = error.strerror or type(error).__name__
            raise StartRefused(f"WebSocket cannot listen on {where} ({reason}); set HOST or WS_PORT.") from None
        ports = Ports(
            settings=self.settings,
            feed=self.feed,
            importer=self.importer,
            schedules=self.schedules,
            tiers=self.tiers,
            lookup=self.lookup,
            books=self.books,
            tracker=self.tracker,
            panel=self.panel,
            alerts=self.alerts,
            keys=self.keys,
            metrics=self.metrics,
            clock=self.clock,
            tasks=self.tasks,
            accepting=self._accepting,
            ws_port=self._ws_port,
            exposed=exposed(self.settings),
        )
        self._listener = await Listener.open(build(ports), self.settings.host, self.settings.http_port)

    async def _collect(self, occasion: Occasion) -> Turn:
        """The only full collection: with thousands of connections it holds up everything for tens of milliseconds."""
        if self.panel.loop("scores").running:
            return Turn()
        found = gc.collect()
        return Turn(found, found)

    def _accepting(self) -> bool:
        return self._sockets is not None and self._sockets.accepting and self._listener is not None

    def _ws_port(self) -> int:
        assert self._sockets is not None
        return self._sockets.port

    @property
    def http_url(self) -> str:
        """Where the pages and the HTTP API are."""
        assert self._listener is not None
        return f"http://{self._reachable()}:{self._listener.port}"

    @property
    def ws_url(self) -> str:
        """Where the WebSocket is."""
        return f"ws://{self._reachable()}:{self._ws_port()}/ws"

    def _reachable(self) -> str:
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.settings.host, self.settings.host)
        return host

    async def stop(self) -> None:
        """In order, whatever was started; nothing that was accepted is lost."""
        drain_s = self.settings.shutdown_timeout_ms / 1000
        if self._listener is not None:
            await self._listener.close()
        if hasattr(self, "panel") and self._sockets is not None:
            await self._last_flush(drain_s)
            await self._sockets.stop(drain_s)
        if hasattr(self, "panel"):
            await self._stop_loops(drain_s)
            await self._hand_over()
        if hasattr(self, "feed"):
            await self.feed.close()
        await self.tasks.close()
        if self._database is not None:
            await self._database.close()
        if self._embedded is not None:
            await self._embedded.stop()
        log.info("server stopped")

    async def _stop_loops(self, drain_s: float) -> None:
        if not hasattr(self, "importer"):
            await self.panel.stop()
            return
        if not self.importer.closing:  # Stopping twice is once.
            self.tasks.start("imports cut", self.importer.cut(drain_s))
            if hasattr(self, "tracker"):
                self.tasks.start("tracking cut", self.tracker.cut(drain_s))
        await self.panel.stop()
        await self.importer.close()
        if hasattr(self, "schedules"):
            await self.schedules.close()
        if hasattr(self, "tracker"):
            await self.tracker.close()

    async def _last_flush(self, drain_s: float) -> None:
        """Publish what is pending and hand every viewer its batch, while the sockets are still there."""
        try:
            async with asyncio.timeout(max(drain_s, 1.0)):
                await self.panel.loop("scores").stop(last_turn=True)
        except TimeoutError:
            log.warning("last flush given up", seconds=drain_s)

    async def _hand_over(self) -> None:
        try:
            async with asyncio.timeout(5):
                await self.leadership.resign()
                await self.bus.close()
        except (TimeoutError, Unavailable) as error:
            log.info("lead left to run out", reason=str(error))


QUIET: Final = frozenset(
    (
        *("ledger", "bus", "connections", "ingest", "immediate", "catch-up", "forget", "leader", "alerts", "lag"),
        *("peers", "peers-hint", "nodes", "scores-wanted"),
        "journal",
        *("imports", "imports-due", "imports-rescue", "imports-progress"),
        "schedules-tell",
        *(tracking_relay.TELL, tracker.RUN, tracker.BEAT, POPULARITY),
        *("tiers-run", "tiers-watch", "tiers-progress"),
    )
)
"""Loops whose every turn is not told to the topic `loops`: they turn many times a second, or tell themselves."""


def _said(record: TurnRecord) -> dict[str, object]:
    return {
        "loop": record.loop,
        "number": record.number,
        "trigger": record.trigger,
        "seconds": round(record.seconds, 6),
        "taken": record.taken,
        "done": record.done,
        "failed": record.failed,
        "deferred": record.deferred,
        "error": record.error,
        "detail": dict(record.detail),
    }


def _ignore(_: object) -> None:
    """For ports that want no answer."""


async def serve(settings: Settings, started: Callable[[App], object] | None = None) -> int:
    """Run until told to stop; the exit code. `started` is called once everything accepts."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    app = App(settings)
    try:
        await app.start()
    except StartRefused as error:
        log.error("start refused", reason=str(error))
        return 2
    garbage.settle(itself=False)
    if started is not None:
        started(app)
    notify.tell(notify.READY)
    await stop.wait()
    log.info("server stopping")
    notify.tell(notify.STOPPING)
    await app.stop()
    return 0


def run(settings: Settings, started: Callable[[App], object] | None = None) -> int:
    """The program; the exit code."""
    logs.configure(settings.log_format, settings.log_level)
    logs.trace_crashes()
    for slip in slips(os.environ):
        log.warning("variable passed over", reason=slip)
    logging.getLogger("websockets").setLevel(logging.WARNING)  # a line per connection says nothing that /stats does not
    return uvloop.run(serve(settings, started))
