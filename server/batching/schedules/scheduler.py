"""All of the schedules in one process: who is placed where, the runs at the provider, and what is told of them.

    scheduler = await Scheduler.open(parts, lead, follow)
    scheduler.core.placing.create(...)   core.catalog, core.intervals, core.upkeep        who is placed where: verbs.py
    scheduler.runs.receive(...)          scheduler.trigger(...)   scheduler.revive(...)   the provider's side: runs.py
    scheduler.reading.reviews(...)       scheduler.health(...)    scheduler.validate(...)
    scheduler.note("runs")               something has changed: followers of the topic `schedules` are told (relay.py)
    await scheduler.close()

Beside the loops of verbs.py and runs.py: `schedules-tell` tells followers and the other nodes what has changed. What a loop's turn
has changed is known by its name (AREAS_OF).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Iterable
from dataclasses import dataclass, field
from typing import Final

from server.batching import audit
from server.batching.checks import Report
from server.batching.hints import GAP_MS
from server.batching.loop import Loop, TurnRecord
from server.batching.parts import Follow, Lead, Parts
from server.batching.schedules import figures as f
from server.batching.schedules import intents, provider
from server.batching.schedules import runs as r
from server.batching.schedules.catalog import Wellbeing
from server.batching.schedules.inputs import Asked
from server.batching.schedules.outcomes import Ladder
from server.batching.schedules.plan import PLATFORMS, TYPES, Platform, Type
from server.batching.schedules.reading import Reading
from server.batching.schedules.relay import TELL, TOPIC, Area, relay
from server.batching.schedules.rows import Unusable
from server.batching.schedules.store import Terms
from server.batching.schedules.taking import Taken
from server.batching.schedules.verbs import Schedules
from server.core.identity import Identity
from server.edge import apify
from server.errors import Code, Refused
from server.protocol.intake import Format
from server.settings import Settings

PREFIX: Final = "schedules-"
ERRORS_MOST: Final = 1_000
"""Rows of a file that are told of, those that did not go in; the others are counted."""
ASK_EVERY_S: Final = 60.0
"""Whether the provider answers is asked anew after this, when somebody wants to know."""
ASK_S: Final = 5.0
AREAS_OF: Final[dict[str, tuple[Area, ...]]] = {
    r.DISPATCH: ("runs", "schedules"),
    r.POLL: ("runs",),
    r.PROCESS: ("runs", "retries", "businesses"),
    r.RETRY: ("retries", "runs"),
    r.CLEANUP: ("runs", "retries"),
    r.MIRROR: ("schedules",),
    "schedules-expire": ("teams", "schedules"),
    "schedules-balance": ("schedules",),
    "schedules-tidy": ("schedules",),
}


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of a file of businesses. `errors`: the first rows that did not go in."""

    rows: int
    placed: int
    known: int
    refused: int
    resumed_at_row: int
    errors: tuple[Unusable, ...]
    audit_id: int


@dataclass(slots=True)
class _Reached:
    """What the provider said when it was last asked."""

    at: float | None = None
    ok: bool | None = None
    message: str | None = None


@dataclass(slots=True)
class _Errors:
    """The first rows of a file that did not go in."""

    rows: list[Unusable] = field(default_factory=list)

    def told(self, taken: Taken, unusable: Iterable[Unusable]) -> None:
        self.rows += list(unusable)[: ERRORS_MOST - len(self.rows)]


class Scheduler:
    """See the module's docstring."""

    def __init__(self, parts: Parts, lead: Lead, client: apify.Apify | None, follow: Follow) -> None:
        settings = parts.settings
        self.settings = settings
        self._db, self._clock, self._panel, self._record_on = parts.db, parts.clock, parts.panel, parts.record
        self._client = client
        terms = core_terms(settings)
        self.core = Schedules(parts.db, parts.clock, terms)
        self.reading = Reading(parts.db, terms.capacities)
        self.runs = r.Runs(
            parts.db, parts.clock, provider.Provider(client, provider_terms(settings)), lead, run_terms(settings)
        )
        self.relay = relay(parts.db, parts.bus, parts.clock, follow)
        self._reached = _Reached()
        self._add_loops(parts, lead)

    @classmethod
    async def open(cls, parts: Parts, lead: Lead, follow: Follow) -> Scheduler:
        """Built, its loops on the panel; StartRefused for an address that the token can't be sent to."""
        settings, token = parts.settings, parts.settings.apify_token
        terms = apify.Terms(url=settings.apify_url, timeout_ms=settings.apify_timeout_ms)
        client = None if token is None else await apify.Apify.open(terms, token)
        return cls(parts, lead, client, follow)

    def _add_loops(self, parts: Parts, lead: Lead) -> None:
        tell = Loop(TELL, self.relay.turn, clock=parts.clock, record=parts.record, min_gap_ms=GAP_MS)
        self.relay.woken = parts.panel.add(tell, fold=True).wake
        parts.bus.subscribe([TOPIC], self.relay.heard, lost=self.relay.lost)
        self.core.add_loops(parts.panel, self._record, lead.leads, lead.leader)
        self.runs.add_loops(parts.panel, self._record)

    def _record(self, record: TurnRecord) -> None:
        """A turn that has done something has changed what its loop is there for."""
        self._record_on(record)
        if record.taken or any(record.detail.values()):
            self.note(*AREAS_OF.get(record.loop, ()), schedules=None)

    def note(self, *areas: Area, schedules: Iterable[int] | None = ()) -> None:
        """This has changed; None: any schedule may have."""
        self.relay.note(*areas, ids=schedules)

    def measure(self, gauge: f.Measure) -> None:
        """Put the figures among the server's numbers."""
        self.runs.watch.measure(gauge)

    async def close(self) -> None:
        """After the loops have stopped."""
        if self._client is not None:
            await self._client.close()

    # Verbs that need both sides, or the trail.

    async def trigger(self, schedule: int, who: Identity, key: str | None) -> tuple[r.Triggered, int | None]:
        """A run of a batch now, and its entry in the trail; a run that is under way already is answered as it is."""
        started = await self.runs.trigger(schedule, key or self._new_key(), who)
        return started, started.audit_id

    async def revive(self, business: int, who: Identity, platform: Platform | None, type: Type | None) -> int:
        """Try a business at once; the entry in the trail."""
        revived = await self.runs.revive(business, platform, type, who)
        if revived.audit_id is None:
            where = " ".join(["there", *([f"on {platform}"] if platform else []), *([f"({type})"] if type else [])])
            message = f"business {business} is not followed {where}, or is tried at this moment"
            raise Refused(Code.NOT_FOUND, message, field="id")
        return revived.audit_id

    async def take_in(self, key: str, fmt: Format, pieces: AsyncIterable[bytes], who: Identity) -> Imported:
        """A file of businesses, from where the last attempt with this key stopped."""
        errors = _Errors()
        taken = await self.core.taking.take_in(key, fmt, pieces, errors.told)
        self.note("businesses", "teams", "schedules", schedules=None)
        counts = {"rows": taken.rows, "placed": taken.placed, "known": taken.known, "refused": taken.refused}
        entry = await self._note(who, "schedules.import", key[:200], counts)
        return Imported(**counts, resumed_at_row=taken.resumed_at, errors=tuple(errors.rows), audit_id=entry)

    async def validate(self) -> Report:
        """Every check of what is stored, and the provider's side."""
        stored = await self.core.checking.validate()
        return Report((*stored.checks, await self.runs.mirror.drift()))

    async def trail(self, search: audit.Search) -> list[audit.Entry]:
        """The audit trail of all systems."""
        async with self._db.transaction() as connection:
            return await audit.page(connection, search)

    async def health(self, who: Identity) -> dict[str, object]:
        """How all of it is doing, in one answer."""
        wellbeing, webhooks = await self.core.catalog.wellbeing(), await self.reading.webhooks(who)
        async with self.runs.acting() as connection:
            under_way = await intents.under_way(connection)
        reached = await self._ask_provider()
        failed = wellbeing.retries.get("failed", 0)
        return {
            "status": self._status(wellbeing),
            "schedules": {n: getattr(wellbeing, n) for n in ("total", "active", "paused", "empty")},
            "batches": {n: getattr(wellbeing, n) for n in ("healthy", "warning", "critical")},
            "businesses": wellbeing.businesses,
            "teams": wellbeing.teams,
            "retries": {s: wellbeing.retries.get(s, 0) for s in ("waiting", "running", "resolved", "failed")},
            "permanentlyFailed": failed,
            "runs": {"underWay": under_way, "most": self.settings.schedules_runs_most},
            "lastWebhookAtMs": webhooks.last_ms,
            "webhooksWaiting": webhooks.waiting,
            "provider": {
                "configured": self._client is not None,
                "reachable": reached.ok,
                "message": reached.message,
                "webhooks": self.runs.provider.told,
            },
            "clock": self.settings.schedules_clock,
            "loops": self._loops(),
            "serverTime": self._clock.now_ms(),
        }

    # Parts.

    def _status(self, wellbeing: Wellbeing) -> str:
        waiting = sum(wellbeing.retries.get(state, 0) for state in ("waiting", "running"))
        if wellbeing.retries.get("failed", 0) > f.FAILED_MOST or wellbeing.full:
            return "critical"
        sick = any(loop["health"] in ("failing", "late") for loop in self._loops())
        return "warning" if sick or waiting > f.RETRIES_MOST or self._reached.ok is False else "ok"

    def _loops(self) -> list[dict[str, object]]:
        states = [state for state in self._panel.list() if state.name.startswith(PREFIX)]
        return [
            {
                "name": state.name,
                "health": state.health,
                "paused": state.paused,
                "lastAtMs": None if state.last is None else state.last.started_at_ms,
            }
            for state in states
        ]

    async def _ask_provider(self) -> _Reached:
        """Does it answer, and take our token? Not more often than ASK_EVERY_S."""
        now, client = self._clock.monotonic(), self._client
        if client is None or (self._reached.at is not None and now - self._reached.at < ASK_EVERY_S):
            return self._reached
        self._reached.at = now
        try:
            async with asyncio.timeout(ASK_S):
                await client.ping()
            self._reached.ok, self._reached.message = True, None
        except TimeoutError:
            self._reached.ok, self._reached.message = False, f"the provider did not answer within {ASK_S:g} s"
        except apify.Trouble as trouble:
            self._reached.ok, self._reached.message = False, trouble.message
        return self._reached

    async def _note(self, who: Identity, action: str, target: str, after: object) -> int:
        async with self._db.transaction() as connection:
            return await audit.write(connection, who.user, action, target, after=after)

    def _new_key(self) -> str:
        return f"{self._clock.now_ms():x}-{round(self._clock.random() * 2**52):013x}"


# --- from the settings ---


def core_terms(settings: Settings) -> Terms:
    """How businesses are placed."""
    capacities = {platform: int(getattr(settings, f"schedules_{platform}_capacity")) for platform in PLATFORMS}
    return Terms(
        capacities=capacities, keep_reviews=settings.schedules_keep_reviews, balance=settings.schedules_rebalance
    )


def provider_terms(settings: Settings) -> provider.Terms:
    """How runs are started."""
    actors = {(p, t): str(getattr(settings, f"schedules_{p}_{t}_actor")) for p in PLATFORMS for t in TYPES}
    return provider.Terms(
        actors=actors,
        asked=Asked(settings.schedules_reviews_most, settings.schedules_language),
        timeout_s=settings.schedules_run_timeout_s,
        memory_mb=settings.schedules_run_memory_mb,
        public_url=settings.public_url,
        secret=settings.apify_webhook_secret,
    )


def run_terms(settings: Settings) -> r.Terms:
    """How runs are worked on."""
    return r.Terms(
        own_clock=settings.schedules_clock == "server",
        secret=settings.apify_webhook_secret,
        runs_most=settings.schedules_runs_most,
        page_items=settings.schedules_page_items,
        dispatch_ms=settings.schedules_dispatch_ms,
        poll_ms=settings.schedules_poll_ms,
        process_ms=settings.schedules_process_ms,
        retry_ms=settings.schedules_retry_ms,
        ladder=Ladder(settings.schedules_retry_first_ms / 1000, retries=settings.schedules_retries),
        retries_at_once=settings.schedules_retries_at_once,
        keep_resolved_days=settings.schedules_keep_resolved_days,
        keep_failed_days=settings.schedules_keep_failed_days,
        keep_runs_days=settings.schedules_keep_runs_days,
        keep_overviews_days=settings.schedules_keep_overviews_days,
        batches_most=Terms().batches_most,
    )
