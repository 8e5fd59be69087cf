"""The live feed as everyone else sees it: verbs for producers, viewers and admins, and its loops.

Built once by the app. Verbs raise Refused (the caller's fault) or Unavailable (the world's). What a verb accepted is
committed and in memory: it is in every snapshot, statistic and explanation that starts afterwards.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final, Protocol

import orjson
import structlog

from server.batching import audit
from server.batching.lag import Lag
from server.batching.loop import Loop, Occasion, Turn, TurnRecord
from server.batching.panel import Panel
from server.batching.parts import Lead
from server.batching.scores import kernel, store
from server.batching.scores.audience import Held, Owed, Viewer
from server.batching.scores.batch import Statistics, Turns
from server.batching.scores.cluster import Cluster, join, shared, warn_of_others
from server.batching.scores.columns import Columns
from server.batching.scores.desk import Desk
from server.batching.scores.engine import Engine
from server.batching.scores.explain import explain
from server.batching.scores.figures import Measure, measure
from server.batching.scores.ingest import Writer
from server.batching.scores.journal import journal as journals
from server.batching.scores.journal.records import Flushed, Tuned
from server.batching.scores.lookout import Lookout
from server.batching.scores.pace import foretold_of, said_of
from server.batching.scores.pacing import Pacing
from server.batching.scores.plan import Asked, Row
from server.batching.scores.question import Question
from server.batching.scores.remembered import Sessions
from server.batching.scores.store import Search
from server.batching.scores.tuning import TUNABLE, checked, pace_of, rules_of, tunables_of, value_of
from server.batching.scores.views import Kind, Sight
from server.batching.scores.whatif import Answer, Present, WhatIf, Wish
from server.core.event import Accepted, Op, Outcome, Rejected, visible_to
from server.core.identity import Identity
from server.edge.bus import Bus, Envelope
from server.edge.clock import Clock
from server.edge.postgres import Database
from server.errors import Code, Refused
from server.protocol.event import event_json
from server.settings import RUNTIME, Settings

ADAPT_EVERY_MS: Final = 5_000
PREDICT_EVERY_MS: Final = 3_600_000
EXPIRE_EVERY_MS: Final = 60_000
FORGET_EVERY_MS: Final = 30_000
TIDY_EVERY_MS: Final = 600_000

log = structlog.get_logger()
CONFIG_TOPIC: Final = "config"
EXPORT_PAGE: Final = 1000
SEARCH_MOST: Final = 1000


class Record(Protocol):
    """Where turn records go."""

    def __call__(self, record: TurnRecord) -> None:
        """Keep one."""


class Feed:
    """The live feed of this node."""

    def __init__(
        self,
        settings: Settings,
        db: Database,
        clock: Clock,
        panel: Panel,
        record: Record,
        lead: Lead,
        bus: Bus,
        *,
        lag: Lag | None = None,
        threaded: bool = True,
    ) -> None:
        self._settings = settings
        self._db = db
        self._clock = clock
        self._panel = panel
        self._bus = bus
        rules = rules_of(settings)
        self._engine = Engine(Lookout(Columns(), rules), clock, threaded=threaded)
        self.desk = Desk(self._engine, settings.score_threshold, tunables_of(settings), Pacing(clock))
        self.desk.sessions = Sessions(settings.resume_sessions, settings.resume_keep_ms / 1000)
        growth = settings.adaptive_growth if settings.adaptive_batching else 0.0
        self.journal = self._journal_of(settings)
        self._writer = Writer(db, clock, self.desk, settings.ingest_queue_rows, growth)
        self._turns = Turns(
            db,
            clock,
            self.desk,
            self._engine,
            self._writer,
            settings.event_keep_days,
            settings.update_ids_keep_h,
            settings.update_ids_keep_rows,
            fenced=lead.fenced,
            wake=lambda name, after_ms: panel.loop(name).wake(after_ms),
            lag=lag or Lag(clock),
            pace=pace_of(settings, clock.now_ms()),
            retimed=self._apply_tunables,
        )
        self._what_if = WhatIf(db, clock, self.desk, self._engine)
        self.ready = False
        self._add_loops(record, lead)

    # Start.

    def _add_loops(self, record: Record, lead: Lead) -> None:
        turns, settings = self._turns, self._settings

        def loop(name: str, turn: Callable[[Occasion], Awaitable[Turn]], **options: object) -> Loop:
            return Loop(name, turn, clock=self._clock, record=record, **options)  # type: ignore[arg-type]  # options are Loop's own keywords

        def observed(of_flush: TurnRecord) -> None:
            turns.statistics.observe(of_flush)
            if self.desk.recorder is not None:
                self.desk.recorder.told(Flushed.of(of_flush))
            record(of_flush)

        def wake(name: str) -> Callable[[int], None]:
            return lambda after_ms: self._panel.loop(name).wake(after_ms)

        self._panel.add(loop("ingest", self._writer.turn), fold=True)
        self._panel.add(loop("immediate", turns.immediate, min_gap_ms=settings.immediate_group_ms), fold=True)
        self._panel.add(loop("urgent", turns.urgent, min_gap_ms=settings.urgent_gap_ms), fold=True)
        self._panel.add(loop("drift", turns.drift, interval_ms=settings.drift_interval_ms), fold=True)
        self._panel.add(loop("catch-up", turns.catch_up), fold=True)
        self._panel.add(loop("forget", turns.forget, interval_ms=FORGET_EVERY_MS), fold=True)
        if turns.pace is not None:
            self._panel.add(loop("adapt", turns.adapt, interval_ms=ADAPT_EVERY_MS), fold=True)
        if self.journal is not None:
            self._panel.add(loop(journals.NAME, self.journal.turn, interval_ms=journals.EVERY_MS), fold=True)
        if settings.predictive_batching:
            self._panel.add(loop("predict", turns.predict, interval_ms=PREDICT_EVERY_MS)).wake()
        leads = {"may_run": lead.leads, "leader": lead.leader}
        self._panel.add(loop("expire", turns.expire, interval_ms=EXPIRE_EVERY_MS, **leads))
        self._panel.add(loop("tidy", turns.tidy, interval_ms=TIDY_EVERY_MS, **leads))
        flush = Loop(
            "scores",
            turns.flush,
            clock=self._clock,
            record=observed,
            interval_ms=self.desk.tunables.interval_ms,
            min_gap_ms=settings.min_flush_gap_ms,
            **(leads if shared(settings) else {}),  # type: ignore[arg-type]  # of several servers the leader flushes
        )
        self._flush = self._panel.add(flush, last_turn=True)
        self._cluster: Cluster | None = None
        if shared(settings):
            viewers, realign = lambda: len(self.desk.audience), self._realign
            how = {"record": record, "observed": observed}
            self._cluster = join(turns, self._bus, self._panel, lead, flush, viewers=viewers, realign=realign, **how)
        self._writer.wake = wake("ingest")
        self.desk.pacing.wake = wake("catch-up")
        self.desk.noticed = self._noticed

    async def load(self) -> int:
        """Compile, then read run-time settings, every event and what is pending. Returns the number of events."""
        await self._warm()
        async with self._db.connection() as connection:
            position = await self._bus.position(connection)
            self._bus.subscribe([CONFIG_TOPIC], self._told, position)
            if self._cluster is not None:
                self._cluster.subscribe(position)
            else:
                await warn_of_others(connection)
            stored = await connection.fetch("select name, value from ops.setting")
            await store.make_partitions(connection, self._clock.now_ms())
        for row in stored:
            if row["name"] in RUNTIME:
                self._adopt(row["name"], orjson.loads(row["value"]), "runtime")
        self._apply_tunables()
        count = await self._writer.load()
        if self.journal is not None:
            await self.journal.open()
        self.ready = True
        return count

    async def _warm(self) -> None:
        self._engine.start()
        if not kernel.NUMBA:
            log.warning(
                "kernel missing", effect="ranking takes some ten times as long", reason="numba is not installed"
            )
            return
        log.info("kernel loading", hint="the first start after an upgrade compiles it, for about half a minute")
        seconds = await self._engine.ask(lambda lookout: kernel.warm())
        log.info("kernel ready", seconds=round(seconds, 3))

    async def close(self) -> None:
        """End the engine's thread, and the journal; the loops have stopped."""
        if self._cluster is not None and self.ready:
            await self._cluster.rounds.leave()
        if self.journal is not None:
            await self.journal.close()
        await self._engine.close()

    def led(self) -> None:
        """This server has begun to lead."""
        if self._cluster is not None:
            self._cluster.led(self._flush)
            self._noticed()

    def _noticed(self) -> None:
        """Memory has changed: wake whom it concerns."""
        if self.desk.changed:
            self._panel.loop("immediate").wake()
        if not self.desk.tunables.enabled:
            self.desk.urgent.update(self.desk.pending)  # left from when batching was on: no batch comes for it
        if self.desk.urgent:
            self._panel.loop("urgent").wake()
        if len(self.desk.pending) >= self.desk.tunables.max_batch:
            self._flush.wake()

    # Producers.

    async def ingest(self, ops: Sequence[Op | Rejected], who: Identity) -> list[Outcome]:
        """One outcome per operation, in order; one that is refused already passes through."""
        asked = [Asked(op, who) for op in ops if not isinstance(op, Rejected)]
        written = iter(await self._writer.write(asked))
        return [op if isinstance(op, Rejected) else next(written) for op in ops]

    async def ingest_one(self, op: Op, who: Identity) -> Accepted:
        """The outcome of one; Refused when it was not accepted."""
        outcome = (await self.ingest([op], who))[0]
        if isinstance(outcome, Rejected):
            raise Refused(outcome.code, outcome.reason, field=outcome.field)
        return outcome

    async def submit(self, op: Op, who: Identity) -> asyncio.Future[list[Outcome]]:
        """Hand one operation over, in order, without waiting for its outcome; waits only for room."""
        return await self._writer.submit([Asked(op, who)])

    # Readers of the stored state.

    async def stored(self, event_id: str, who: Identity) -> dict[str, object]:
        """An event as stored; not_found also when the asker may not see it."""
        async with self._db.connection() as connection:
            row = (await store.read_rows(connection, [event_id])).get(event_id)
        if row is None or not (who.admin or visible_to(row.event, who.user)):
            raise Refused(Code.NOT_FOUND, f"no event {event_id!r}", field="id")
        return _stored_json(row, who)

    async def search(self, query: Search, who: Identity) -> tuple[list[dict[str, object]], str | None]:
        """A page in id order and the cursor of the next one (None: that was all)."""
        page = replace(query, cursor=decode_cursor(query.cursor), limit=min(query.limit, SEARCH_MOST))
        async with self._db.connection() as connection:
            rows = await store.search(connection, page, who.user, admin=who.admin)
        following = encode_cursor(rows[-1].event.id) if len(rows) == page.limit else None
        return [_stored_json(row, who) for row in rows], following

    async def export(self, query: Search, who: Identity) -> AsyncIterator[dict[str, object]]:
        """All that a search finds, a page at a time."""
        page = replace(query, limit=EXPORT_PAGE)
        while True:
            rows, following = await self.search(page, who)
            for row in rows:
                yield row
            if following is None:
                return
            page = replace(page, cursor=following)

    # Viewers.

    async def join(
        self, viewer: Viewer, held: Sequence[tuple[str, int]] | None = None, known: Held | None = None
    ) -> None:
        """Start (or start again) with a viewer: a snapshot, or the difference to what it says it holds, or is known to."""
        self.desk.audience.add(viewer)
        self.desk.sessions.enter(viewer)
        if held is None and known is not None:
            viewer.hold(known)
            await self._show(Sight(viewer, Kind.ANSWER, self.desk.threshold))
        else:
            await self.resync(viewer, held, None)

    def come_back(self, asking: Viewer | None, user: str | None, session: str, seq: int | None) -> Held | None:
        """What this user holds of an earlier session, None when that is not known; a connection left standing is ended.

        What is answered must be joined with at once: until somebody holds it, its slots may be given to other events."""
        former = self.desk.sessions.take(session, user, seq, self._clock.monotonic())
        if former.viewer is not None and former.viewer is not asking:
            self.leave(former.viewer)
            former.viewer.outlet.supersede()
        return former.held

    def lose(self, viewer: Viewer) -> None:
        """Its connection has ended: send nothing more, and remember what it was handed."""
        self.desk.sessions.keep(viewer, self._clock.monotonic())
        self.leave(viewer)

    def leave(self, viewer: Viewer) -> None:
        """Send nothing more."""
        self.desk.audience.remove(viewer)
        self.desk.sessions.leave(viewer)
        self.desk.pacing.forget(viewer)
        viewer.forget()
        viewer.owed = Owed.NOTHING
        if self.desk.recorder is not None:
            self.desk.recorder.left(viewer, self._clock.now_ms())

    async def turn_to(self, viewer: Viewer, question: Question, ref: str | None) -> None:
        """The viewer asks something else from now on: answer with what that changes."""
        viewer.question = question
        await self._show(Sight(viewer, Kind.ANSWER, self.desk.threshold, ref))

    async def reveal(self, viewer: Viewer, question: Question) -> None:
        """The viewer has become someone else: send what that shows or hides, if anything."""
        viewer.question = question
        await self._show(Sight(viewer, Kind.RECOUNT, None))

    async def resync(self, viewer: Viewer, held: Sequence[tuple[str, int]] | None, ref: str | None) -> None:
        """The client's digest differs: the difference to `held`, or everything."""
        if held is None:
            await self._show(Sight(viewer, Kind.SNAPSHOT, None, ref))
        else:
            await self._show(Sight(viewer, Kind.ANSWER, self.desk.threshold, ref, held))

    async def _show(self, sight: Sight) -> None:
        """Hand one sight over as soon as nothing waits; what falls due for its viewer meanwhile is owed."""
        viewer = sight.viewer
        viewer.expect()
        try:
            while viewer in self.desk.audience:
                await viewer.outlet.until_free()
                with self._engine.drawn():
                    (draft,) = await self._engine.see([sight])
                    if viewer.outlet.free and self.desk.pacing.deliver(draft) is not None:
                        return
        finally:
            viewer.expecting = False
            self.drained(viewer)

    def drained(self, viewer: Viewer) -> None:
        """The viewer's waiting frame is out: it will be sent what it missed."""
        if viewer.owed and viewer.free and viewer in self.desk.audience:
            self.desk.drained[viewer] = None
            self._panel.loop("catch-up").wake()

    async def explain(self, viewer: Viewer, event_id: str) -> dict[str, object]:
        """Why an event has its place in the viewer's view, or none."""
        question, now_ms = viewer.question, self._clock.now_ms()
        return await self._engine.ask(lambda lookout: explain(lookout, question, event_id, now_ms))

    # Admins.

    @property
    def statistics(self) -> Statistics:
        """The batch statistics."""
        return self._turns.statistics

    async def stats(self) -> dict[str, object]:
        """The nine statistics under the source's names, then the rest."""
        s, lag, pace = self.statistics, self._turns.lag, self._turns.pace
        events = await self._engine.ask(lambda lookout: len(lookout.columns))
        return {
            "batchesProcessed": s.batches,
            "totalEventsProcessed": s.events,
            "totalUsersUpdated": s.frames,
            "averageBatchSize": s.average,
            "lastBatchTime": s.last_ms,
            "pendingUpdates": len(self.desk.pending),
            "registeredUsers": len(self.desk.audience),
            "isProcessingBatch": self._flush.running or (self._cluster is not None and self._cluster.walking),
            "config": self._values(),
            **self._times(),
            "events": events,
            "eventLoopLag": {"worstMs": round(1000 * lag.worst_s, 1), "lastFlushMs": round(1000 * lag.watched_s, 1)},
            "engine": "compiled" if kernel.NUMBA else "numpy",
            "adaptive": said_of(pace) if pace is not None and pace.follows else None,
            "predictive": foretold_of(pace, self._clock.now_ms()) if pace is not None and pace.foresees else None,
            "journal": None if self.journal is None else self.journal.said(),
            "framesDeferred": s.deferred,
            "sessionsRemembered": len(self.desk.sessions),
            "lastBatchSeconds": round(s.last_seconds, 6),
            "savings": self.desk.pacing.savings.said(),
            "ready": self.ready,
            **({} if self._cluster is None else await self._cluster.sums()),
        }

    def events(self) -> int:
        """Events in memory; a look from outside the engine's thread, for a gauge."""
        return self._engine.events

    def measure(self, gauge: Measure) -> None:
        """Put the numbers of work under way among the server's."""
        measure(gauge, self.desk, self._engine, self._writer)

    def config(self) -> dict[str, object]:
        """The run-time settings, where each comes from, and when the next batch is due."""
        return {**self._values(), "sources": dict(self.desk.tunables.sources), **self._times()}

    async def configure(self, changes: Mapping[str, object], who: Identity) -> dict[str, object]:
        """Change run-time settings: checked, stored, audited, in force. Returns config()."""
        approved = {name: checked(name, value) for name, value in changes.items() if value is not None}
        if not approved:
            raise Refused(Code.BAD_MESSAGE, f"name at least one of {', '.join(RUNTIME)}")
        if approved.get("enableBatching") is False and self.desk.tunables.enabled:
            await self._flushed()
        audit_id = await self._store(approved, who)
        for name, value in approved.items():
            self._adopt(name, value, "runtime")
        self._apply_tunables()
        return {**self.config(), "auditId": audit_id}

    async def reset(self, name: str, who: Identity) -> dict[str, object]:
        """Forget the run-time value of one setting: environment or default counts again."""
        if name not in RUNTIME:
            raise Refused(Code.NOT_FOUND, f"{name!r} is not a run-time setting; there is {', '.join(RUNTIME)}")
        origin = tunables_of(self._settings)
        audit_id = await self._store({name: None}, who)
        value = value_of(origin, name)
        if name == "enableBatching" and value is False and self.desk.tunables.enabled:
            await self._flushed()
        self._adopt(name, value, origin.sources[name])
        self._apply_tunables()
        return {**self.config(), "auditId": audit_id}

    async def force(self, who: Identity) -> dict[str, object]:
        """Flush now; answers when every viewer's frame has been handed over or is counted as deferred."""
        async with self._db.connection() as connection:
            audit_id = await audit.write(connection, who.user, "force-batch", "scores")
        return {"turn": await self._flushed(), "stats": await self.stats(), "auditId": audit_id}

    async def _flushed(self) -> Mapping[str, object]:
        """A flush now, here or by all servers; how it went."""
        if self._cluster is not None:
            return await self._cluster.rounds.force()
        record = await self._flush.run_now()
        if record.error is not None:
            raise Refused(Code.UNAVAILABLE, f"the flush failed: {record.error}")
        turn = {name: getattr(record, name) for name in ("taken", "done", "failed", "deferred")}
        return {**turn, "seconds": round(record.seconds, 6)}

    async def what_if(self, wish: Wish) -> Answer:
        """What other settings would cost and change for those connected now; nothing is sent."""
        present = Present(
            rules_of(self._settings),
            self.desk.threshold,
            self._flush.interval_ms if self.desk.tunables.enabled else None,
            self.desk.tunables.max_batch,
            self._settings.min_flush_gap_ms,
        )
        return await self._what_if.answer(wish, present)

    def _values(self) -> dict[str, object]:
        return {name: value_of(self.desk.tunables, name) for name in RUNTIME}

    def _times(self) -> dict[str, object]:
        next_ms = self._flush.next_at_ms()
        if next_ms is None and self._cluster is not None and self.desk.tunables.enabled:
            next_ms = self._cluster.rounds.planned_ms
        return {"serverTime": self._clock.now_ms(), "nextBatchAt": next_ms}

    def _realign(self) -> None:
        """Another server has just flushed: should this one have to go on, its interval begins here."""
        self._flush.set_interval(None)
        self._apply_tunables()

    def _adopt(self, name: str, value: object, source: str) -> None:
        setattr(self.desk.tunables, TUNABLE[name], value)
        self.desk.tunables.sources[name] = source

    def _apply_tunables(self) -> None:
        """Batching on: the flush's timer runs and drift rests; off: the other way round."""
        tunables = self.desk.tunables
        pace = self._turns.pace
        wanted = None if not tunables.enabled else tunables.interval_ms if pace is None else pace.interval_ms
        if self._flush.interval_ms != wanted:
            self._flush.set_interval(wanted)  # From None: a timer that stood still starts anew.
        if self.desk.recorder is not None:
            self.desk.recorder.told(self._tuned())
        _set_running(self._flush, running=tunables.enabled)
        _set_running(self._panel.loop("drift"), running=not tunables.enabled)
        self._noticed()

    def _journal_of(self, settings: Settings) -> journals.Journal | None:
        """The journal, when one is wanted."""
        terms = journals.terms_of(settings)
        if terms is None:
            return None
        return journals.Journal(terms, journals.Setting(self.desk, rules_of(settings), self._tuned), self._clock)

    def _tuned(self) -> Tuned:
        tunables, interval_ms = self.desk.tunables, self._flush.interval_ms
        return Tuned(interval_ms or tunables.interval_ms, tunables.max_batch, tunables.enabled, self.desk.threshold)

    async def _told(self, envelopes: Sequence[Envelope]) -> None:
        """Another node's admin has changed run-time settings."""
        for envelope in envelopes:
            for name, change in envelope.payload.items():
                if not envelope.own and name in RUNTIME and isinstance(change, dict):
                    self._adopt(name, change["value"], change["source"])
        self._apply_tunables()

    async def _store(self, values: Mapping[str, object], who: Identity) -> int:
        """Keep run-time values (None: forget) with their audit entry, and tell the other nodes; returns the audit id."""
        before = {name: value_of(self.desk.tunables, name) for name in values}
        async with self._db.transaction() as connection:
            for name, value in values.items():
                if value is None:
                    await connection.execute(_UNSET, name)
                else:
                    await connection.execute(_SET, name, orjson.dumps(value).decode(), who.user)
            audit_id = await audit.write(connection, who.user, "configure", "batching", before, dict(values))
            await self._bus.publish(connection, CONFIG_TOPIC, {n: self._announced(n, v) for n, v in values.items()})
        return audit_id

    def _announced(self, name: str, value: object) -> dict[str, object]:
        origin = tunables_of(self._settings)
        if value is None:
            return {"value": value_of(origin, name), "source": origin.sources[name]}
        return {"value": value, "source": "runtime"}


_SET: Final = """
insert into ops.setting (name, value, set_by) values ($1, $2, $3)
on conflict (name) do update set value = excluded.value, set_by = excluded.set_by, set_at = clock_timestamp()"""
_UNSET: Final = "delete from ops.setting where name = $1"


def _set_running(loop: Loop, *, running: bool) -> None:
    """Not running: no ticks and no wakes, only run-now."""
    if running and loop.paused:
        loop.resume()
    elif not running and not loop.paused:
        loop.pause()


def encode_cursor(event_id: str) -> str:
    """An opaque cursor that stands after this id."""
    return base64.urlsafe_b64encode(event_id.encode()).decode().rstrip("=")


def decode_cursor(cursor: str | None) -> str | None:
    """The id a cursor stands after; Refused when it is none of ours."""
    if cursor is None:
        return None
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        return base64.b64decode(padded, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise Refused(Code.BAD_MESSAGE, "this cursor is not one of ours; start without one", field="cursor") from None


def _stored_json(row: Row, who: Identity) -> dict[str, object]:
    mine = who.admin or (who.user is not None and who.user == row.event.creator_id)
    return event_json(row.event, with_shares=mine)
