"""Alerts: what somebody should know, once, and that it is over.

A `Rule` is a pure function over turn records: `test(records, now_ms)` answers the sentence to be told, or None. The turn
`Alerts.evaluate` tests all rules on the ledger's memory and hands what changed to `plan`, which decides:

    quiet --fires: told "raised"--> open --fires no longer: told "recovered"--> over --fires after its window--> as quiet
                                                                                |  ^
                                                     fires within its window:   |  |  fires no longer: not told
                                                     not told                   v  |
                                                                             open again --still, window past--> as quiet

So a rule tells at most one alert a window and one recovery for each alert told; what flutters within the window reopens the
alert there is, and is told anew if it still stands when the window is past. Every loop has the rules of `loop_rules` by
itself; a rule that is gone has recovered.

Alerts live in `ops.alert`, one node's beside another's, and are read, listed and acknowledged there. Memory leads: while
PostgreSQL is away alerts are still told, and rows wait (bounded) until it is back. After a restart the open ones are read
again, so nothing is told twice. Sinks (`sinks.py`) are told through queues of their own; one that fails keeps its queue
(bounded, the oldest dropped), is tried again at the next turn, is logged when that begins and ends, and fails no turn.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal, Protocol

import asyncpg
import structlog

from server.batching.ledger import Ledger, Records, moment, storable
from server.batching.loop import Occasion, Turn
from server.edge.clock import Clock
from server.edge.logs import redacted
from server.edge.postgres import Database
from server.errors import Refused, Unavailable

HOUR_MS = 3_600_000
# A loop is failing after this many failed turns in a row.
FAILURES_IN_A_ROW = 3
# Notices that wait for one sink, and rows that wait for the table; at the bound the oldest are dropped.
NOTICES_AT_MOST = 100
ROWS_AT_MOST = 1_000
# A notice that a sink has refused so often is dropped, so that it cannot stand before all others for ever.
ATTEMPTS_AT_MOST = 20
# Longer messages are cut.
MESSAGE_AT_MOST = 1_000
# One page of the list.
PAGE_AT_MOST = 500

log = structlog.get_logger()


class Severity(StrEnum):
    """How much it matters, from a remark to "come at once"."""

    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"
    CRITICAL = "CRITICAL"


@dataclass(frozen=True, slots=True)
class Rule:
    """When to tell somebody. `test` is pure: records of all loops (oldest first) and now, to a sentence or None."""

    name: str
    severity: Severity
    test: Callable[[Records, int], str | None]
    window_ms: int = HOUR_MS


@dataclass(frozen=True, slots=True)
class Alert:
    """One thing told, open until it has recovered. `id` is the table's, None until it is there."""

    node: str
    rule: str
    severity: Severity
    message: str
    raised_at_ms: int
    recovered_at_ms: int | None = None
    acknowledged_at_ms: int | None = None
    acknowledged_by: str | None = None
    id: int | None = None


@dataclass(frozen=True, slots=True)
class Notice:
    """What sinks are told: an alert, raised or recovered."""

    kind: Literal["raised", "recovered"]
    alert: Alert


class Sink(Protocol):
    """Where notices go. `tell` raises when it could not."""

    @property
    def name(self) -> str:
        """How logs call it."""
        ...

    async def tell(self, notice: Notice) -> None:
        """Pass one notice on."""
        ...


@dataclass(frozen=True, slots=True)
class Standing:
    """The newest alert of a rule, and whether its recovery has been told."""

    alert: Alert
    recovery_told: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """An alert to be stored, and what is told of it, if anything."""

    alert: Alert
    told: Literal["raised", "recovered"] | None = None


# The decisions: pure.


def loop_rules(loop: str) -> tuple[Rule, ...]:
    """The rules that every loop has: it fails again and again, or cannot keep up with its interval."""

    def failing(records: Records, now_ms: int) -> str | None:
        last = records.get(loop, ())[-FAILURES_IN_A_ROW:]
        if len(last) < FAILURES_IN_A_ROW or any(record.error is None for record in last):
            return None
        return f"the last {len(last)} turns of the loop {loop} failed: {last[-1].error}"

    def late(records: Records, now_ms: int) -> str | None:
        last = records.get(loop, ())[-FAILURES_IN_A_ROW:]
        if len(last) < FAILURES_IN_A_ROW or any(record.missed == 0 for record in last):
            return None
        missed = sum(record.missed for record in last)
        return f"the loop {loop} cannot keep its interval: the last {len(last)} turns ran over {missed} ticks"

    return (
        Rule(f"loop {loop} failing", Severity.ERROR, failing),
        Rule(f"loop {loop} late", Severity.WARNING, late),
    )


def findings(rules: Iterable[Rule], records: Records, now_ms: int) -> dict[str, str | None]:
    """What each rule says; a rule that raises says so itself rather than stay silent."""
    said: dict[str, str | None] = {}
    for rule in rules:
        try:
            said[rule.name] = rule.test(records, now_ms)
        except Exception as error:  # noqa: BLE001 - one broken rule must not silence the others
            said[rule.name] = f"the rule {rule.name} is broken: {type(error).__name__}: {error}"
    return said


def plan(
    rules: Sequence[Rule], said: Mapping[str, str | None], standing: Mapping[str, Standing], node: str, now_ms: int
) -> list[Change]:
    """What changes now, given what each rule says and the newest alert of each."""
    changes: list[Change] = []
    for rule in rules:
        message, known = said.get(rule.name), standing.get(rule.name)
        changes += _quiet(known, now_ms) if message is None else _firing(rule, message, known, node, now_ms)
    names = {rule.name for rule in rules}
    for name, known in standing.items():
        changes += _quiet(known, now_ms) if name not in names else []
    return changes


def _quiet(known: Standing | None, now_ms: int) -> list[Change]:
    if known is None or known.alert.recovered_at_ms is not None:
        return []
    over = replace(known.alert, recovered_at_ms=now_ms)
    return [Change(over, None if known.recovery_told else "recovered")]


def _firing(rule: Rule, message: str, known: Standing | None, node: str, now_ms: int) -> list[Change]:
    raised = Change(Alert(node, rule.name, rule.severity, message[:MESSAGE_AT_MOST], now_ms), "raised")
    if known is None:
        return [raised]
    is_open = known.alert.recovered_at_ms is None
    if is_open and not known.recovery_told:
        return []
    if now_ms - known.alert.raised_at_ms >= rule.window_ms:
        return [Change(replace(known.alert, recovered_at_ms=now_ms)), raised] if is_open else [raised]
    return [] if is_open else [Change(replace(known.alert, recovered_at_ms=None))]


# Acting on them.


@dataclass(slots=True)
class _Outlet:
    """One sink and what it has not yet been told."""

    sink: Sink
    waiting: deque[Notice] = field(default_factory=deque)
    attempts: int = 0
    failing: bool = False

    def put(self, notice: Notice) -> None:
        if len(self.waiting) == NOTICES_AT_MOST:
            self.waiting.popleft()
            self.attempts = 0
            log.warning("alert notice dropped", sink=self.sink.name, waiting=NOTICES_AT_MOST)
        self.waiting.append(notice)

    async def deliver(self) -> Turn:
        """Tell all that waits, up to the first failure."""
        found, failed = len(self.waiting), 0
        while self.waiting:
            try:
                await self.sink.tell(self.waiting[0])
            except Exception as error:  # noqa: BLE001 - a failing sink must not fail the turn, whatever it raises
                failed = self._note_failure(error)
                break
            self._note_success()
        left = len(self.waiting)
        return Turn(found, found - left - failed, failed, left)

    def _note_success(self) -> None:
        self.waiting.popleft()
        self.attempts = 0
        if self.failing:
            self.failing = False
            log.info("alert sink recovered", sink=self.sink.name)

    def _note_failure(self, error: Exception) -> int:
        self.attempts += 1
        if not self.failing:
            self.failing = True
            log.warning("alert sink failed", sink=self.sink.name, error=redacted(str(error)) or type(error).__name__)
        if self.attempts < ATTEMPTS_AT_MOST:
            return 0
        self.attempts = 0
        notice = self.waiting.popleft()
        log.warning("alert notice dropped", sink=self.sink.name, rule=notice.alert.rule, attempts=ATTEMPTS_AT_MOST)
        return 1


class Alerts:
    """The alerts of this node, and the verbs over those of all."""

    def __init__(
        self, ledger: Ledger, db: Database, clock: Clock, *, rules: Sequence[Rule] = (), sinks: Sequence[Sink] = ()
    ) -> None:
        self.rules = [*rules]
        self._ledger = ledger
        self._db = db
        self._clock = clock
        self._outlets = [_Outlet(sink) for sink in sinks]
        self._standing: dict[str, Standing] = {}
        self._unwritten: dict[tuple[str, int], Alert] = {}
        self._loaded = False

    def add_sink(self, sink: Sink) -> None:
        """Tell this one too, from now on."""
        self._outlets.append(_Outlet(sink))

    @property
    def open(self) -> Sequence[Alert]:
        """What stands now on this node."""
        return [known.alert for known in self._standing.values() if known.alert.recovered_at_ms is None]

    async def evaluate(self, occasion: Occasion) -> Turn:
        """The turn of the alerts' loop: test the rules, store what changed, tell the sinks."""
        records = self._ledger.records()
        await self._load(occasion.now_ms)
        rules = [*self.rules, *(rule for loop in records for rule in loop_rules(loop))]
        said = findings(rules, records, occasion.now_ms)
        changes = plan(rules, said, self._standing, self._ledger.node, occasion.now_ms)
        self._apply(changes, {rule.name for rule in rules})
        with suppress(Unavailable):  # Rows wait; that PostgreSQL is away is told elsewhere.
            await self._write()
        told = [await outlet.deliver() for outlet in self._outlets]
        return Turn(
            taken=sum(turn.taken for turn in told),
            done=sum(turn.done for turn in told),
            failed=sum(turn.failed for turn in told),
            deferred=sum(turn.deferred for turn in told),
            detail={"open": len(self.open), "changed": len(changes), "unwritten": len(self._unwritten)},
        )

    async def retire(self, occasion: Occasion) -> Turn:
        """A turn that removes a slice of what is over and older than the ledger's days; also what a lost node left."""
        until = moment(occasion.now_ms) - timedelta(days=self._ledger.keep_days)
        async with self._db.transaction() as connection:
            answer: str = await connection.execute(REMOVE, until, self._ledger.node, ROWS_AT_MOST)
        gone = int(answer.rpartition(" ")[2])
        return Turn(gone, gone, more=gone == ROWS_AT_MOST)

    async def list(self, *, open_only: bool = False, limit: int = 50, before_id: int | None = None) -> Sequence[Alert]:
        """Alerts of all nodes, newest first; `before_id` is the last id of the page before."""
        limit = max(1, min(limit, PAGE_AT_MOST))
        async with self._db.connection() as connection:
            return [_alert(row) for row in await connection.fetch(LIST, open_only, before_id, limit)]

    async def acknowledge(self, alert_id: int, by: str) -> Alert:
        """Note that somebody knows; the first who says so is kept."""
        async with self._db.transaction() as connection:
            row = await connection.fetchrow(ACKNOWLEDGE, alert_id, moment(self._clock.now_ms()), storable(by))
        if row is None:
            raise Refused("not_found", f"there is no alert {alert_id}; the list of alerts has their ids")
        return _alert(row)

    def _apply(self, changes: Sequence[Change], names: set[str]) -> None:
        for change in changes:
            rule, alert = change.alert.rule, change.alert
            before = self._standing.get(rule)
            told_before = before is not None and before.recovery_told and change.told is None
            self._standing[rule] = Standing(alert, change.told == "recovered" or told_before)
            self._to_write(alert)
            if change.told is not None:
                self._announce(Notice(change.told, alert))
        for rule in self._standing.keys() - names:
            del self._standing[rule]

    def _announce(self, notice: Notice) -> None:
        for outlet in self._outlets:
            outlet.put(notice)

    def _to_write(self, alert: Alert) -> None:
        self._unwritten[alert.rule, alert.raised_at_ms] = alert
        if len(self._unwritten) > ROWS_AT_MOST:
            del self._unwritten[next(iter(self._unwritten))]

    async def _load(self, now_ms: int) -> None:
        """Once: the alerts that an earlier process of this node left open. Those raised anew meanwhile are closed."""
        if self._loaded:
            return
        with suppress(Unavailable):
            async with self._db.connection() as connection:
                left = [_alert(row) for row in await connection.fetch(LEFT_OPEN, self._ledger.node)]
            self._loaded = True
            for alert in left:
                if alert.rule in self._standing:
                    self._to_write(replace(alert, recovered_at_ms=now_ms))
                self._standing.setdefault(alert.rule, Standing(alert))

    async def _write(self) -> None:
        """Rows leave the queue only after the commit; writing one again is harmless."""
        rows = list(self._unwritten.items())
        if not rows:
            return
        async with self._db.transaction() as connection:
            await connection.executemany(UPSERT, [_columns(alert) for _, alert in rows])
        for key, alert in rows:
            if self._unwritten.get(key) is alert:
                del self._unwritten[key]


# Rows.

UPSERT = """
insert into ops.alert (node, rule, severity, message, raised_at, recovered_at) values ($1, $2, $3, $4, $5, $6)
on conflict (node, rule, raised_at) do update set recovered_at = excluded.recovered_at
"""

LEFT_OPEN = """
select distinct on (rule)
    id, node, rule, severity, message, raised_at, recovered_at, acknowledged_at, acknowledged_by
from ops.alert where node = $1 and recovered_at is null
order by rule, raised_at desc
"""

LIST = """
select id, node, rule, severity, message, raised_at, recovered_at, acknowledged_at, acknowledged_by
from ops.alert
where (not $1 or recovered_at is null) and ($2::bigint is null or id < $2)
order by id desc limit $3
"""

ACKNOWLEDGE = """
update ops.alert
set acknowledged_at = coalesce(acknowledged_at, $2), acknowledged_by = coalesce(acknowledged_by, $3)
where id = $1
returning id, node, rule, severity, message, raised_at, recovered_at, acknowledged_at, acknowledged_by
"""

# Ids grow with time, so the oldest rows are the first of the primary key.
REMOVE = """
with oldest as (select id, node, raised_at, recovered_at from ops.alert order by id limit $3)
delete from ops.alert where id in (
    select id from oldest where raised_at < $1 and (recovered_at is not null or node <> $2)
)
"""


def _columns(alert: Alert) -> tuple[object, ...]:
    over = None if alert.recovered_at_ms is None else moment(alert.recovered_at_ms)
    message = storable(alert.message)
    return (alert.node, storable(alert.rule), alert.severity.value, message, moment(alert.raised_at_ms), over)


def _alert(row: asyncpg.Record) -> Alert:
    return Alert(
        node=row["node"],
        rule=row["rule"],
        severity=Severity(row["severity"]),
        message=row["message"],
        raised_at_ms=_ms(row["raised_at"]),
        recovered_at_ms=None if row["recovered_at"] is None else _ms(row["recovered_at"]),
        acknowledged_at_ms=None if row["acknowledged_at"] is None else _ms(row["acknowledged_at"]),
        acknowledged_by=row["acknowledged_by"],
        id=row["id"],
    )


def _ms(time: datetime) -> int:
    return round(time.timestamp() * 1000)
