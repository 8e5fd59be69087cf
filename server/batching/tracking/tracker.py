"""Tracking's runs in one process: the verbs that every control surface calls, and the loops. The books are desk.py's.

    tracker = await Tracker.open(parts, lead)
    tracker.note = hints.note                      who is told of what has changed
    opened = await tracker.run_now(who); run = await tracker.run(opened.run.id, who)

    tracking-plan    (leader) opens a run of what is due, in the pace of the settings
    tracking-run     works off the run that is open, a batch a turn, on every node that has a token; woken when one is opened
    tracking-beat    says that this node is alive, and holds the clips it holds
    tracking-clean   (leader) forgets what is old
    tracking-watch   figures for metrics and alerts

A run is a row (runs.py); how one is worked off is in working.py. Whoever opens one, here or elsewhere, wakes all nodes over the
bus. Without a token no run is opened, and everything else works.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import structlog

from server.batching import audit
from server.batching.loop import Loop, Occasion, Turn, always, nobody
from server.batching.parts import Lead, Parts
from server.batching.tracking import (
    cache,
    demand,
    failures,
    figures,
    growth,
    health,
    quota,
    runs,
    selection,
    sums,
    upkeep,
    usage,
)
from server.batching.tracking.demand import Demand
from server.batching.tracking.failures import FailedScrape, Retried
from server.batching.tracking.health import Health, Stats
from server.batching.tracking.posts import PLATFORMS
from server.batching.tracking.provider import Provider
from server.batching.tracking.runs import Asked, RunView
from server.batching.tracking.runs import Occasion as Why
from server.batching.tracking.selection import Live
from server.batching.tracking.store import admin, freshen, serving
from server.batching.tracking.trying import Terms as Trying
from server.batching.tracking.working import Terms, Worker
from server.core.identity import Identity
from server.core.lease import beat_every_s
from server.edge import apify
from server.edge.bus import Envelope
from server.errors import Code, Refused
from server.settings import Settings
from server.settings.declare import DAY_MS
from server.settings.tracking import actors_of, pace_of, plan_of, plans_of

PLAN: Final = "tracking-plan"
RUN: Final = "tracking-run"
BEAT: Final = "tracking-beat"
CLEAN: Final = "tracking-clean"
LED: Final = (PLAN, CLEAN)
"""Loops that only the leader runs; who becomes it wakes them."""
WORK: Final = "tracking-work"
"""The topic of the bus on which nodes are told that a run was opened."""
POLL_MS: Final = 5_000
"""How often a node looks for a run that it was not told of, or that was left behind."""
CLEAN_MS: Final = 3_600_000
GRACE_S: Final = 4 * POLL_MS / 1000
"""A run that nobody has begun with after this is lost, if leases are not longer."""

Turning: TypeAlias = Callable[[Occasion], Awaitable[Turn]]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Opened:
    """A run; not new: it was under way, or is the same key's. `audit_id`: of the entry that says who asked, or stopped it."""

    run: RunView
    new: bool
    audit_id: int | None


@dataclass(frozen=True, slots=True)
class Planned:
    """What so many clips need, and how it is at the moment."""

    demand: Demand
    live: Live
    usage: quota.Usage


class Tracker:
    """See the module's docstring."""

    def __init__(self, parts: Parts, lead: Lead, client: apify.Apify | None) -> None:
        settings = parts.settings
        self.note: Callable[..., None] = _nobody
        self.figures, self.sums = figures.Figures(), sums.Sums()
        self.terms = terms_of(settings)
        self._pace = pace_of(settings)
        self._settings = settings
        self._db, self._bus, self._clock, self._panel = parts.db, parts.bus, parts.clock, parts.panel
        self.provider = Provider(client, parts.clock, parts.tasks, self.terms.trying.call_s)
        name = f"{parts.bus.node}/{parts.clock.random()}"
        self.worker = Worker(parts.db, parts.bus, parts.clock, self.provider, self.terms, name)
        self._watched = figures.Watched(
            configured=self.provider.ready,
            quota=self.terms.quota,
            interval_s=self._pace.interval_ms / 1000,
            actors={platform: tuple(one.actor for one in actors) for platform, actors in self.terms.actors.items()},
            least_percent=self.terms.least_percent,
        )
        self._add_loops(parts, lead)

    @classmethod
    async def open(cls, parts: Parts, lead: Lead) -> Tracker:
        """Built, its loops on the panel; StartRefused for settings that make no sense."""
        settings, token = parts.settings, parts.settings.apify_token
        terms = apify.Terms(url=settings.apify_url, timeout_ms=settings.apify_timeout_ms)
        client = None if token is None else await apify.Apify.open(terms, token)
        return cls(parts, lead, client)

    def _add_loops(self, parts: Parts, lead: Lead) -> None:
        def add(name: str, turn: Turning, interval_ms: int | None, led: bool = False) -> Loop:
            may, who = (lead.leads, lead.leader) if led else (always, nobody)
            loop = Loop(
                name, turn, clock=parts.clock, record=parts.record, interval_ms=interval_ms, may_run=may, leader=who
            )
            return parts.panel.add(loop, fold=True)

        self._wake_plan = add(PLAN, self._plan_turn, self._pace.interval_ms, True).wake
        self._wake_run = self.worker.woken = add(RUN, self._run_turn, None).wake
        self._wake_run(POLL_MS)
        add(BEAT, self.worker.beat, round(beat_every_s(self.terms.lease_s) * 1000))
        add(CLEAN, self._clean_turn, CLEAN_MS, True)
        add(sums.WATCH, self._watch_turn, figures.WATCH_MS).wake()
        self.worker.noted = lambda *areas: self.note(*areas)
        self.worker.ended = self._after_run
        parts.bus.subscribe([WORK], self._heard)

    def measure(self, gauge: figures.Measure, counter: figures.Measure) -> None:
        """Put the figures among the server's numbers."""

        def figure(name: str) -> Callable[[], float]:
            return lambda: float(getattr(self.figures, name))

        def sum_(name: str) -> Callable[[], float]:
            return lambda: float(getattr(self.sums, name))

        def total(name: str) -> Callable[[], float]:
            return lambda: float(self.worker.totals[name])

        for name, meaning in figures.GAUGES.items():
            gauge(f"tracking_{name}", f"tracking: {meaning}", figure(name))
        for name in sums.Sums().detail:
            gauge(f"tracking_{name}", f"tracking: {name.replace('_', ' ')}", sum_(name))
        for name, meaning in COUNTERS.items():
            counter(f"tracking_{name}", f"tracking: {meaning}", total(name))

    async def cut(self, after_s: float) -> None:
        """Give up calls that are not done by then. To be run while the panel stops."""
        await self._clock.sleep(after_s)
        self.provider.cut()

    async def close(self) -> None:
        """After the loops have stopped: what is held here goes back."""
        await self.worker.close()
        await self.provider.close()

    # Runs.

    async def run_now(self, who: Identity, limit: int | None = None, key: str | None = None) -> Opened:
        """Open a run of what is due, or join the one that is under way."""
        name = admin(who, "starting a run")
        self.provider.check()
        asked = self._asked("forced", limit, key)
        runs.check(asked)
        async with serving(self._db) as connection:
            run, new = await runs.open_run(connection, asked)
            entry = None
            if new:
                entry = await audit.write(connection, name, "tracking.run", f"run {run.id}", None, {"limit": run.limit})
                await self._bus.publish(connection, WORK, {"run": run.id})
        self._wake_run(0)
        self.note("runs")
        return Opened(run, new, entry)

    def _asked(self, occasion: Why, limit: int | None, key: str | None = None) -> Asked:
        most = self._pace.limit if limit is None else limit
        return Asked(occasion, self._bus.node, most, max(self.terms.lease_s, GRACE_S), key)

    async def stop(self, run_id: int, who: Identity) -> Opened:
        """No further batch of calls; what is claimed and was not asked for stays due."""
        name = admin(who, "stopping a run")
        async with serving(self._db) as connection:
            before = await runs.show(connection, run_id)
            if before.finished_at is not None:
                message = f"the run {run_id} has ended ({before.stop_reason}); there is nothing to stop"
                raise Refused(Code.CONFLICT, message, field="run")
            await runs.halt(connection, run_id, "stopped", None)
            ended = await runs.leave(connection, run_id, "")
            entry = await audit.write(connection, name, "tracking.stop", f"run {run_id}")
            await self._bus.publish(connection, WORK, {"run": run_id})
            run = ended or await runs.show(connection, run_id)
        self._wake_run(0)
        self.note("runs")
        return Opened(run, False, entry)

    async def runs(self, who: Identity, before: int | None = None, limit: int = 50) -> Sequence[RunView]:
        """Runs, newest first."""
        admin(who, "seeing runs")
        async with serving(self._db) as connection:
            return await runs.listed(connection, before, limit)

    async def run(self, run_id: int, who: Identity) -> RunView:
        """One run."""
        admin(who, "seeing runs")
        async with serving(self._db) as connection:
            return await runs.show(connection, run_id)

    async def newest(self) -> RunView | None:
        """The newest run, for whoever tells admins of it."""
        async with serving(self._db) as connection:
            found = await runs.listed(connection, limit=1)
        return found[0] if found else None

    # How it is.

    async def health(self, who: Identity) -> Health:
        """How the last 24 hours were."""
        admin(who, "seeing how tracking is doing")
        interval_s = self._pace.interval_ms / 1000
        async with serving(self._db) as connection:
            day = await health.day(connection)
            used = await quota.usage(connection, self.terms.quota)
            running = await runs.opened(connection)
        return Health(
            status=health.grade(day.successful, day.processed, day.age_s, interval_s),
            success_percent=day.success_percent,
            runs=day.runs,
            processed=day.processed,
            successful=day.successful,
            failed=day.processed - day.successful,
            last_run_at=day.last_run_at,
            interval_ms=self._pace.interval_ms,
            stale_after_s=health.STALE_INTERVALS * interval_s,
            configured=self.provider.ready,
            running=running,
            quota=used,
        )

    async def stats(self, who: Identity) -> Stats:
        """Calls and costs of this month, what waits, what cannot be read, the money."""
        admin(who, "seeing statistics of tracking")
        async with serving(self._db) as connection:
            used = await quota.usage(connection, self.terms.quota)
            standings = await usage.standings_of(connection)
            due = await selection.due(connection)
            live = await selection.live(connection)
            failed_open, failed_retryable = await health.queues(connection)
            money = await sums.read(connection)

            def holds(platform: str, actor: str) -> bool:
                found = standings.get((platform, actor))
                return found is None or found.holds(self.terms.least_percent)

            actors = await usage.uses(connection, used.month, holds)
        return Stats(
            usage=used,
            actors=actors,
            failed_open=failed_open,
            failed_retryable=failed_retryable,
            due=due.all,
            leased=due.leased,
            live=live.active + live.ended,
            unavailable=live.unavailable,
            unsupported=live.unsupported,
            sums=money,
        )

    async def plan(
        self,
        who: Identity,
        *,
        clips_per_week: int = 500,
        life_days: int = 30,
        checks_per_day: int = 6,
        posts_per_call: int = 1,
        run_clips: int | None = None,
        run_every_s: int | None = None,
    ) -> Planned:
        """What so many clips would need, against our pace and the provider's plans, and what there is now."""
        admin(who, "planning")
        offers = tuple(demand.Plan(one.name, one.calls, one.cents) for one in plans_of(self._settings))
        needed = demand.plan(
            clips_per_week=clips_per_week,
            life_days=life_days,
            checks_per_day=checks_per_day,
            posts_per_call=posts_per_call,
            run_clips=run_clips or self._pace.limit,
            run_every_s=run_every_s or max(1, self._pace.interval_ms // 1000),
            plans=offers,
        )
        async with serving(self._db) as connection:
            return Planned(needed, await selection.live(connection), await quota.usage(connection, self.terms.quota))

    # What failed.

    async def failed(self, who: Identity, before: int | None = None, limit: int = 50) -> Sequence[FailedScrape]:
        """Posts that could not be read and still cannot, newest first."""
        admin(who, "seeing what failed")
        async with serving(self._db) as connection:
            return await failures.page(connection, before, limit)

    async def retry(self, failed_id: int, who: Identity) -> Retried:
        """Make one of them due at once."""
        retried = await failures.retry(self._db, failed_id, who)
        self.note("failed")
        return retried

    async def link(self, clip_id: int, event_id: str | None, who: Identity) -> int:
        """Which event of the live map moves with this clip; the entry in the trail."""
        return await growth.link(self._db, clip_id, event_id, who)

    # Turns.

    async def _run_turn(self, occasion: Occasion) -> Turn:
        """A batch waits for the provider for as long as it may: it looks again a while after its end, which makes no turn late."""
        try:
            return await self.worker.turn(occasion)
        finally:
            self._wake_run(POLL_MS)

    async def _plan_turn(self, occasion: Occasion) -> Turn:
        await freshen(self._db)
        if not self.provider.ready:
            return Turn(detail={"configured": 0})
        supported = [platform for platform in PLATFORMS if self.terms.actors.get(platform)]
        async with serving(self._db) as connection:
            freed = await failures.support(connection, supported)
        async with serving(self._db) as connection:
            run, new = await runs.open_run(connection, self._asked("interval", None))
            if new:
                await self._bus.publish(connection, WORK, {"run": run.id})
        self._wake_run(0)
        if new:
            self.note("runs")
        return Turn(detail={"run": run.id, "new": int(new), "supported": freed})

    async def _heard(self, messages: list[Envelope]) -> None:
        self._wake_run(0)

    def _after_run(self, run: RunView) -> None:
        """What a run that was lost had not come to is taken up at once, if this node leads; a wake of another node is nothing."""
        if run.stop_reason == "lost":
            self._wake_plan(0)

    async def _clean_turn(self, occasion: Occasion) -> Turn:
        keep_days = self._settings.tracking_keep_days
        views = await upkeep.forget(self._db, keep_days)
        async with serving(self._db) as connection:
            old_runs = await runs.forget(connection, keep_days)
            failed = await failures.forget(connection, keep_days)
            cached = await cache.forget(connection, max(self.terms.cache_s, 1.0))
        more = (
            views >= upkeep.FORGET_SLICE
            or old_runs >= runs.FORGET_SLICE
            or failed >= failures.FORGET_SLICE
            or cached >= cache.FORGET_SLICE
        )
        done = views + old_runs + failed + cached
        return Turn(
            done, done, more=more, detail={"views": views, "runs": old_runs, "failed": failed, "cached": cached}
        )

    async def _watch_turn(self, occasion: Occasion) -> Turn:
        async with serving(self._db) as connection:
            self.figures = await figures.read(connection, self._watched)
            self.sums = await sums.read(connection)
        return Turn(detail={**self.figures.detail, **self.sums.detail})


COUNTERS: Final = {
    "calls": "calls of the provider sent by this process",
    "counted": "clips counted by this process",
    "failed": "clips that this process could not read in a run",
}


def terms_of(settings: Settings) -> Terms:
    """How runs are worked off, from the settings."""
    call_s, pace = settings.tracking_call_timeout_ms / 1000, pace_of(settings)
    return Terms(
        actors={platform: actors_of(settings, platform) for platform in PLATFORMS},
        quota=quota.Terms("apify", plan_of(settings).calls, settings.tracking_at_once, call_s),
        trying=Trying(settings.tracking_retries, settings.tracking_retry_first_ms / 1000, call_s),
        batch=settings.tracking_batch,
        pause_s=settings.tracking_pause_ms / 1000,
        budget_s=settings.tracking_budget_ms / 1000,
        lease_s=settings.tracking_lease_ms / 1000,
        cache_s=settings.tracking_cache_ms / 1000,
        least_percent=float(settings.tracking_success_least),
        not_found_most=settings.tracking_not_found,
        popularity=settings.tracking_popularity,
        per_day=pace.limit * DAY_MS / pace.interval_ms,
    )


def _nobody(*areas: str) -> None:
    """Nobody to tell yet."""
