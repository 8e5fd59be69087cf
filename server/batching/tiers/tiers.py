"""All of the tiers in one process: the verbs that every control surface calls, and the loops.

    tiers = await Tiers.open(parts, lead, follow)
    opened = await tiers.generate("S", month, who); run = await tiers.complete(opened.run.id)

    tiers-run       works off whatever run is under way, on every node; woken when one is opened
    tiers-monthly   (leader) S to D, each planned, then verified; stops with an alert at the first that fails (gates.py)
    tiers-expire    (leader) marks slots whose time has come
    tiers-clean     (leader) forgets cooldowns that are over and rows that are old
    tiers-watch     figures for metrics and alerts
    tiers-progress  tells followers how far runs are, where there are followers

A run is a row (runs.py): opening one is quick and passes the gates, working it off is anybody's. Every change that somebody
asks for leaves its audit entry in the transaction that makes it. Months are the numbers of months.py.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterable, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from server.batching import audit
from server.batching.loop import Loop, Occasion, Turn, always, nobody
from server.batching.parts import Follow, Lead, Parts
from server.batching.relay import Relay
from server.batching.tiers import booking, catalogue, checking, figures, people, reports, runs, upkeep
from server.batching.tiers.chance import seed_of
from server.batching.tiers.checking import Check, Verification
from server.batching.tiers.classifying import classify_one
from server.batching.tiers.gates import next_step
from server.batching.tiers.months import DAY_S, month_of, name_of
from server.batching.tiers.relay import Runs
from server.batching.tiers.rules import TIERS, Tier
from server.batching.tiers.runs import Asked, ItemView, RunView, Scope
from server.batching.tiers.store import TOPIC, no_person, put_cities, reading, serving
from server.batching.tiers.work import AGAIN_S, Worker
from server.core.identity import Identity
from server.edge.postgres import Connection
from server.errors import Code, Refused
from server.protocol.intake import Format

RUN: Final = "tiers-run"
EXPIRE: Final = "tiers-expire"
CLEAN: Final = "tiers-clean"
LED: Final = (figures.MONTHLY, EXPIRE, CLEAN)
"""Loops that only the leader runs; who becomes it wakes them."""
POLL_MS: Final = 5_000
"""How often a node looks for a run that another one has opened, or left behind."""
CLEAN_MS: Final = 3_600_000
FOLLOW_MS: Final = 1_000
"""While a tier is being planned, the monthly loop looks so often whether it is through."""
REASON_MOST: Final = 500

OVERRIDE: Final = """
update tiers.celebrities set review_tier = $2::text::tiers.tier, review_reason = $3, updated_at = clock_timestamp()
where id = $1 and (review_tier, review_reason) is distinct from ($2::text::tiers.tier, $3)"""
ACCEPT: Final = """
update tiers.celebrities c set accepted = s.flags, updated_at = clock_timestamp() from tiers.celebrity_settings s
where s.celebrity_id = c.id and c.id = $1 and c.accepted <> s.flags"""
DECIDED: Final = """
select s.tier::text, s.source, s.flags, c.accepted from tiers.celebrity_settings s join tiers.celebrities c on c.id = s.celebrity_id
where c.id = $1 for update of c, s"""

Measure: TypeAlias = Callable[[str, str, Callable[[], float]], None]
Turning: TypeAlias = Callable[[Occasion], Awaitable[Turn]]


@dataclass(frozen=True, slots=True)
class Opened:
    """A run; not new: it was under way, or is resumed. `audit_id`: of the entry that says who asked."""

    run: RunView
    new: bool
    audit_id: int


class Tiers:
    """See the module's docstring."""

    def __init__(self, parts: Parts, lead: Lead, follow: Follow | None) -> None:
        self._db, self._bus, self._clock = parts.db, parts.bus, parts.clock
        self._seed = seed_of(parts.settings.tiers_seed)
        self._settings = parts.settings
        self._worker = Worker(parts.db, parts.bus, parts.clock, self._seed, parts.settings.tiers_batch)
        self.figures = figures.Figures()
        self.counts = {"planned": 0, "classified": 0, "failed": 0}
        self._check: Check | None = None
        self._expired_to = 0.0
        self.relay = None if follow is None else Relay(Runs(parts.db), parts.clock, follow)
        self._add_loops(parts, lead)

    @classmethod
    async def open(cls, parts: Parts, lead: Lead, follow: Follow | None = None) -> Tiers:
        """Built, its loops on the panel, the cities in their table."""
        async with serving(parts.db) as connection:
            await put_cities(connection)
        return cls(parts, lead, follow)

    def _add_loops(self, parts: Parts, lead: Lead) -> None:
        def add(name: str, turn: Turning, interval_ms: int | None, led: bool = False) -> Loop:
            may, who = (lead.leads, lead.leader) if led else (always, nobody)
            loop = Loop(
                name, turn, clock=parts.clock, record=parts.record, interval_ms=interval_ms, may_run=may, leader=who
            )
            return parts.panel.add(loop, fold=True)

        settings = parts.settings
        self._wake_run = add(RUN, self._run_turn, POLL_MS).wake
        self._wake_month = add(
            figures.MONTHLY, self._month_turn, settings.tiers_look_ms if settings.tiers_monthly else None, True
        ).wake
        add(EXPIRE, self._expire_turn, settings.tiers_expire_ms, True).wake()
        add(CLEAN, self._clean_turn, CLEAN_MS, True)
        add(figures.WATCH, self._watch_turn, figures.WATCH_MS).wake()
        if self.relay is not None:
            self.relay.woken = add("tiers-progress", self.relay.turn, None).wake
            parts.bus.subscribe([TOPIC], self.relay.heard, lost=self.relay.lost)

    def measure(self, gauge: Measure, counter: Measure) -> None:
        """Put the figures among the server's numbers."""

        def figure(name: str) -> Callable[[], float]:
            return lambda: float(getattr(self.figures, name))

        def count(name: str) -> Callable[[], float]:
            return lambda: float(self.counts[name])

        for name, meaning in figures.GAUGES.items():
            gauge(f"tiers_{name}", f"tiers: {meaning}", figure(name))
        for name in self.counts:
            counter(f"tiers_people_{name}", f"tiers: people {name} by runs here", count(name))

    # Phase 1 and 2.

    async def import_people(self, chunks: AsyncIterable[bytes], fmt: Format, who: Identity) -> people.ImportReport:
        """People from a file; the good rows go in, the others are reported."""
        report = await people.take_in(self._db, chunks, fmt)
        told = {name: getattr(report, name) for name in ("rows", "created", "updated", "unchanged", "rejected")}
        async with serving(self._db) as connection:
            entry = await audit.write(connection, who.user, "tiers import", "people", after=told)
        return replace(report, audit_id=entry)

    async def classify(
        self, scope: Scope, who: Identity, *, tier: Tier | None = None, person: int | None = None, resume: bool = False
    ) -> Opened:
        """Open a run that gives people their tiers; one that is under way is joined."""
        if (scope == "tier") != (tier is not None) or (scope == "person") != (person is not None):
            raise Refused(
                Code.BAD_MESSAGE, f"the mode {scope} does not go with these: name a tier or a person", field="mode"
            )
        return await self._open(Asked("classify", scope, tier, None, person, resume=resume), who)

    async def generate(
        self,
        tier: Tier | None,
        month: int | None,
        who: Identity,
        *,
        person: int | None = None,
        replace: bool = False,
        override: bool = False,
        resume: bool = False,
        reason: str | None = None,
    ) -> Opened:
        """Open a run that plans a month of a tier, or of one person; Refused where the gate is closed. `reason`: of an
        override, for the audit trail."""
        if person is not None:
            async with serving(self._db) as connection:
                own = await runs.tier_of(connection, person)
            if tier not in (None, own):
                raise Refused(Code.CONFLICT, f"the celebrity {person} is in tier {own}, not {tier}", field="tier")
            tier = own
        if tier is None:
            raise Refused(Code.BAD_MESSAGE, f"name a tier ({', '.join(TIERS)}) or a person", field="tier")
        scope: Scope = "tier" if person is None else "person"
        asked = Asked("generate", scope, tier, self.month(month), person, replace, override, resume)
        return await self._open(asked, who, reason)

    async def _open(self, asked: Asked, who: Identity, reason: str | None = None) -> Opened:
        now_s = self._clock.now_ms() // 1000
        async with serving(self._db) as connection:
            run, new = await runs.open_run(connection, asked, now_s, who.user)
            told = {"run": run.id, "scope": run.scope, "tier": run.tier, "month": run.month, "override": run.override}
            told |= {"reason": reason} if reason else {}
            target = f"run {run.id}" if run.person is None else f"celebrity {run.person}"
            entry = await audit.write(connection, who.user, f"tiers {run.kind}", target, after=told)
            await self._bus.publish(connection, TOPIC, {"runs": [run.id]})
        self._wake_run()
        return Opened(run, new, entry)

    def month(self, month: int | None = None) -> int:
        """That month, or the one that it is now (UTC)."""
        return month_of(self._clock.now_ms() // (DAY_S * 1000)) if month is None else month

    async def complete(self, run: int, told: Callable[[RunView], None] | None = None) -> RunView:
        """Work on a run until it has ended, whoever ends it; `told` after each batch."""
        return await self._worker.complete(run, told)

    async def stop_run(self, run: int, who: Identity) -> Opened:
        """Stop a run after the batch under way; `resume` goes on with it."""
        async with serving(self._db) as connection:
            before = await runs.show(connection, run)
            ended = await runs.end(connection, run, "stopped")
            if ended is None:
                raise Refused(Code.CONFLICT, f"the run {run} is {before.status}; there is nothing to stop", field="run")
            entry = await audit.write(connection, who.user, "tiers stop", f"run {run}")
            await self._bus.publish(connection, TOPIC, {"runs": [run]})
        return Opened(ended, False, entry)

    async def run(self, run: int) -> RunView:
        """One run."""
        async with serving(self._db) as connection:
            return await runs.show(connection, run)

    async def runs(self, kind: str | None = None, before: int | None = None, limit: int = 50) -> Sequence[RunView]:
        """Runs, newest first."""
        async with serving(self._db) as connection:
            return await runs.listed(connection, kind, before, limit)

    async def items(self, run: int, status: str | None = None, after: int = 0, limit: int = 100) -> Sequence[ItemView]:
        """People of a run, by id."""
        async with serving(self._db) as connection:
            await runs.show(connection, run)
            return await runs.items(connection, run, status, after, limit)

    async def reasons(self, run: int) -> Sequence[tuple[str, str, int]]:
        """Why people of a run failed or were skipped: status, reason, how many."""
        async with serving(self._db) as connection:
            return await runs.reasons(connection, run)

    # Verification and reports.

    async def verify(
        self, tier: Tier | None, month: int | None, who: Identity, told: Callable[[str, int], None] | None = None
    ) -> list[Verification]:
        """A tier, or without one the foundation and all tiers; what was found is recorded. `told`: of what, people so far."""
        month = self.month(month)
        wanted = [(tier, month)] if tier is not None else [(None, None), *((one, month) for one in TIERS)]
        found = []
        for one, of in wanted:
            check = Check(one, of, self._clock)
            while not check.ended:
                await check.step(self._db)
                if told is not None:
                    told(checking.title(one, of), check.people)
            found.append(await check.save(self._db, who.user))
        return found

    async def verifications(self, before: int | None = None, limit: int = 50) -> list[Verification]:
        """Verifications, newest first."""
        async with serving(self._db) as connection:
            return await checking.listed(connection, before, limit)

    async def report(self, month: int | None = None) -> reports.Report:
        """How things stand."""
        async with serving(self._db) as connection:
            return await reports.report(connection, self.month(month))

    async def review_queue(self, after: int = 0, limit: int = 100) -> list[reports.ReviewRow]:
        """People who should be looked at."""
        async with serving(self._db) as connection:
            return await reports.review_queue(connection, after, limit)

    async def review(self, person: int, tier: Tier | None, reason: str, who: Identity) -> int:
        """Give a person a tier, or keep the one it has (None); its flags are accepted. The number of the audit entry."""
        reason = reason.strip()
        if not 1 <= len(reason) <= REASON_MOST or "\0" in reason:
            raise Refused(Code.BAD_MESSAGE, f"a decision has a reason of 1 to {REASON_MOST} characters", field="reason")
        async with serving(self._db) as connection:
            before = await _decided(connection, person)
            if tier is not None:
                await connection.execute(OVERRIDE, person, tier, reason)
            await classify_one(connection, person, self._seed, who.user)
            await connection.execute(ACCEPT, person)
            await classify_one(connection, person, self._seed, who.user)
            after = {**await _decided(connection, person), "reason": reason}
            return await audit.write(connection, who.user, "tiers review", f"celebrity {person}", before, after)

    async def history(self, person: int, limit: int = 100) -> list[reports.HistoryRow]:
        """The tiers that a person had, newest first."""
        async with serving(self._db) as connection:
            return await reports.history(connection, person, limit)

    # For the frontend.

    async def celebrities(self, wanted: catalogue.Wanted) -> list[catalogue.Celebrity]:
        """A page of people with a tier."""
        async with reading(self._db, None) as connection:
            return await catalogue.listed(connection, wanted)

    async def celebrity(self, person: int) -> catalogue.Celebrity:
        """One of them."""
        async with reading(self._db, None) as connection:
            return await catalogue.shown(connection, person)

    async def pricing(self, person: int) -> list[catalogue.PackageRow]:
        """What it costs."""
        async with reading(self._db, None) as connection:
            return await catalogue.prices(connection, person)

    async def availability(
        self, person: int, begin: dt.datetime, end: dt.datetime, who: Identity, limit: int = booking.SLOTS_MOST
    ) -> list[booking.SlotView]:
        """What can be booked of it, and what the caller has booked."""
        await self.celebrity(person)
        return await booking.listed(self._db, person, begin, end, who.user, limit)

    async def book(self, slot: int, key: str, who: Identity) -> booking.Booking:
        """Book a slot; the same key again answers with the same booking."""
        return await booking.book(self._db, slot, key, who)

    async def cancel(self, slot: int, who: Identity) -> booking.Cancelled:
        """Give a booking back."""
        return await booking.cancel(self._db, slot, who)

    # Turns.

    async def _run_turn(self, occasion: Occasion) -> Turn:
        async with serving(self._db) as connection:
            number = await runs.next_running(connection)
            if number is None:
                return Turn()
            run = await runs.show(connection, number)
        did = await self._worker.turn(run)
        self.counts["classified" if run.kind == "classify" else "planned"] += did.done
        self.counts["failed"] += did.failed
        if did.held:
            self._wake_run(round(AGAIN_S * 1000))
        detail = {"run": run.id, "kind": run.kind, "tier": run.tier or "", "unchanged": did.unchanged}
        return Turn(did.taken, did.done + did.unchanged, did.failed, more=not did.held, detail=detail)

    async def _month_turn(self, occasion: Occasion) -> Turn:
        """One step towards the month that begins soon."""
        month = month_of(occasion.now_ms // (DAY_S * 1000) + self._settings.tiers_ahead_days)
        if self._check is not None:
            return await self._check_turn(self._check)
        async with serving(self._db) as connection:
            state = await runs.month_state(connection, month)
            step = next_step(state)
            busy = (
                step.action == "plan" and step.tier is not None and await runs.under_way(connection, step.tier, month)
            )
        detail = {"action": step.action, "tier": step.tier or "", "month": name_of(month), "why": step.why}
        if step.action == "plan":
            await self._plan_month(step.tier, month, busy)
        elif step.action == "verify":
            self._check = Check(step.tier, month, self._clock)
        return Turn(more=step.action == "verify", detail=detail)

    async def _plan_month(self, tier: Tier | None, month: int, busy: bool) -> None:
        assert tier is not None
        if busy:
            self._wake_run()
        else:
            await self._open(Asked("generate", "tier", tier, month), Identity())
        self._wake_month(FOLLOW_MS)

    async def _check_turn(self, check: Check) -> Turn:
        try:
            await check.step(self._db)
            if check.ended:
                self._check = None
                await check.save(self._db, None)
        except BaseException:
            self._check = None
            raise
        return Turn(more=True, detail={"action": "verify", "tier": check.tier or "", "people": check.people})

    async def _expire_turn(self, occasion: Occasion) -> Turn:
        now_s = occasion.now_ms / 1000
        done = await upkeep.expire(self._db, self._expired_to)
        more = done == upkeep.SLICE
        if not more:  # A little less than now: this clock and the database's are two.
            self._expired_to = now_s - DAY_S
        return Turn(done, done, more=more)

    async def _clean_turn(self, occasion: Occasion) -> Turn:
        found = await upkeep.clean(self._db, self._settings.tiers_keep_days)
        done = sum(found.values())
        return Turn(done, done, more=upkeep.SLICE in found.values(), detail=found)

    async def _watch_turn(self, occasion: Occasion) -> Turn:
        async with serving(self._db) as connection:
            self.figures = await figures.read(connection)
        return Turn(detail=self.figures.detail)


async def _decided(connection: Connection, person: int) -> dict[str, object]:
    row = await connection.fetchrow(DECIDED, person)
    if row is None:
        raise no_person(person)
    return dict(row)
