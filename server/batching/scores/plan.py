"""What a group of operations does to the rows they name. Pure: rows in, rows and outcomes out.

Two states: stored (committed) and published (what ranking sees). When only counters differ from what is stored it is
popularity: the stored counters move, the published ones wait for a flush. Anything else is published at once, together with
counters of that event that were waiting. An operation that changes nothing publishes nothing and keeps the version.

Versions come from one database sequence and are handed in as an iterator; the caller has locked the rows before drawing
them, so for one id they only grow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

from server.core import recurrence
from server.core.event import (
    COUNTER_MAX,
    NO_COUNTS,
    Accepted,
    Counts,
    Delete,
    Event,
    Op,
    Outcome,
    Popularity,
    Rejected,
    Upsert,
)
from server.core.identity import Identity
from server.errors import Code

COUNTERS: Final = ("scan", "save", "rsvp")
_DEFAULTS: Final = {f.name: f.default for f in fields(Event)}


@dataclass(frozen=True, slots=True)
class Row:
    """An event as stored, with the counters that are published. Pending: the two differ."""

    event: Event
    published: Counts

    @property
    def pending(self) -> bool:
        """Is there popularity that no flush has published yet?"""
        return self.event.counts != self.published


@dataclass(frozen=True, slots=True)
class Asked:
    """One operation and who wants it."""

    op: Op
    who: Identity


@dataclass(slots=True)
class Group:
    """The plan of one transaction: rows as they shall be, by what must be written, and the answers in order."""

    outcomes: list[Outcome] = field(default_factory=list)
    content: dict[str, Row] = field(default_factory=dict)
    """Rows whose content (and counters) must be written and are published at once."""
    counters: dict[str, Row] = field(default_factory=dict)
    """Rows of which only counters must be written; published at once when their version is new."""
    deleted: dict[str, int] = field(default_factory=dict)
    applied: list[tuple[str, str, str, int]] = field(default_factory=list)
    """Updates to remember: sub, update id, event id, version."""
    urgent: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Planner:
    """Plans one group over locked rows. `publish_counters`: batching is off, counters are published at once."""

    rows: dict[str, Row | None]
    known: Mapping[tuple[str, str], Accepted]
    versions: Iterator[int]
    now_ms: int
    publish_counters: bool
    group: Group = field(default_factory=Group)
    seen: dict[tuple[str, str], Accepted] = field(default_factory=dict)

    def plan(self, asked: Sequence[Asked]) -> Group:
        """All operations, in order, each seeing what those before it did."""
        for one in asked:
            self.group.outcomes.append(self._one(one.op, one.who))
        return self.group

    def _one(self, op: Op, who: Identity) -> Outcome:
        match op:
            case Upsert():
                return self._upsert(op, who)
            case Delete():
                return self._delete(op, who)
            case Popularity():
                return self._popularity(op, who)

    def _upsert(self, op: Upsert, who: Identity) -> Outcome:
        row = self.rows.get(op.id)
        refusal = _not_yours(row, who) or _stale(row, op.id, op.if_version)
        if refusal is not None:
            return replace(refusal, id=op.id)
        merged = merge(None if row is None else row.event, op, self.now_ms)
        if isinstance(merged, Rejected):
            return merged
        if row is None or content_differs(row.event, merged):
            return self._publish(replace(merged, updated_ms=self.now_ms))
        return self._count(row, merged.counts, high=row.event.priority == "high")

    def _delete(self, op: Delete, who: Identity) -> Outcome:
        row = self.rows.get(op.id)
        if row is None:
            return Rejected(op.id, Code.NOT_FOUND, "no event with this id", "id")
        refusal = _not_yours(row, who) or _stale(row, op.id, op.if_version)
        if refusal is not None:
            return replace(refusal, id=op.id)
        version = next(self.versions)
        self.rows[op.id] = None
        self.group.content.pop(op.id, None)
        self.group.counters.pop(op.id, None)
        self.group.deleted[op.id] = version
        return Accepted(op.id, version)

    def _popularity(self, op: Popularity, who: Identity) -> Outcome:
        key = None if op.update_id is None else (who.user or "", op.update_id)
        if key is not None and (before := self.known.get(key) or self.seen.get(key)) is not None:
            return before
        row = self.rows.get(op.id)
        if row is None:
            return Rejected(op.id, Code.NOT_FOUND, "no event with this id", "eventId")
        outcome = self._count(row, counted(row.event.counts, op), high=op.high or row.event.priority == "high")
        if key is not None:
            self.seen[key] = outcome
            self.group.applied.append((*key, op.id, outcome.version))
        return outcome

    def _count(self, row: Row, counts: Counts, *, high: bool) -> Accepted:
        """Only counters may differ: they wait, unless batching is off."""
        event_id = row.event.id
        if counts != row.event.counts:
            moved = Row(replace(row.event, counts=counts), row.published)
            if self.publish_counters:
                return self._publish(moved.event, counters_only=True)
            self._keep(moved)
            row = moved
        if high and row.pending:
            self.group.urgent.add(event_id)
        return Accepted(event_id, row.event.version)

    def _publish(self, event: Event, *, counters_only: bool = False) -> Accepted:
        event = replace(event, version=next(self.versions))
        row = self.rows[event.id] = Row(event, event.counts)
        if counters_only and event.id not in self.group.content:
            self.group.counters[event.id] = row
        else:
            self.group.counters.pop(event.id, None)
            self.group.content[event.id] = row
        return Accepted(event.id, event.version)

    def _keep(self, row: Row) -> None:
        self.rows[row.event.id] = row
        target = self.group.content if row.event.id in self.group.content else self.group.counters
        target[row.event.id] = row


def merge(known: Event | None, op: Upsert, now_ms: int) -> Event | Rejected:
    """The event after the upsert: absent keeps, null clears, defaults for a new one."""
    if known is None:
        missing = [name for name in ("latitude", "start_ms") if op.fields.get(name) is None]
        if missing:
            name = {"latitude": "location", "start_ms": "start"}[missing[0]]
            reason = f"a new event needs {name}; give it, or map a field of yours to it ({name}=PATH)"
            return Rejected(op.id, Code.BAD_MESSAGE, reason, name)
        known = Event(op.id, 0.0, 0.0, 0, created_ms=now_ms)
    values: dict[str, Any] = {k: _or_default(k, v, now_ms) for k, v in op.fields.items() if k not in COUNTERS}
    scan, save, rsvp = (_given_count(op, name, old) for name, old in zip(COUNTERS, known.counts, strict=True))
    merged = replace(known, **values, counts=(scan, save, rsvp))
    problem = _inconsistent(merged, op)
    return merged if problem is None else problem


def _or_default(name: str, value: object, now_ms: int) -> object:
    if value is not None:
        return value
    return now_ms if name == "created_ms" else _DEFAULTS[name]


def _given_count(op: Upsert, name: str, before: int) -> int:
    given = op.fields.get(name)
    return given if isinstance(given, int) else before


def _inconsistent(event: Event, op: Upsert) -> Rejected | None:
    """What only the merged event shows: an end before its start, a rule that its start can't carry."""
    for name, wire in (("start_ms", "start"), ("latitude", "location")):
        if op.fields.get(name, 0) is None:
            return Rejected(op.id, Code.BAD_MESSAGE, f"{wire} can't be cleared: every event has one", wire)
    if event.end_ms is not None and event.end_ms < event.start_ms:
        return Rejected(op.id, Code.BAD_MESSAGE, "end must not be before start", "end")
    if event.recurrence is not None and {"recurrence", "start_ms", "timezone"} & op.fields.keys():
        try:
            recurrence.check(event.recurrence, event.start_ms, event.timezone)
        except ValueError as error:
            return Rejected(op.id, Code.BAD_MESSAGE, str(error), "recurrence")
    return None


def content_differs(before: Event, after: Event) -> bool:
    """Does anything differ but counters and the server's own stamps?"""
    return replace(before, counts=NO_COUNTS, updated_ms=0, version=0) != replace(
        after, counts=NO_COUNTS, updated_ms=0, version=0
    )


def counted(before: Counts, op: Popularity) -> Counts:
    """Counters after an update; a negative result clamps to 0, one too large to the 64-bit limit."""
    scan, save, rsvp = (
        min(max((old if new is None else new) + delta, 0), COUNTER_MAX)
        for old, new, delta in zip(before, op.counts, op.deltas, strict=True)
    )
    return scan, save, rsvp


def _not_yours(row: Row | None, who: Identity) -> Rejected | None:
    if row is None or who.admin or row.event.creator_id in (None, who.user):
        return None
    return Rejected(row.event.id, Code.FORBIDDEN, "a producer may change only events of its own or of nobody", "id")


def _stale(row: Row | None, event_id: str, if_version: int | None) -> Rejected | None:
    current = 0 if row is None else row.event.version
    if if_version is None or if_version == current:
        return None
    return Rejected(event_id, Code.CONFLICT, f"the version is {current}, not {if_version}; read it again", "ifVersion")


def versions_needed(asked: Iterable[Asked], *, publish_counters: bool) -> int:
    """How many new versions the group can use at most."""
    return sum(publish_counters or not isinstance(one.op, Popularity) for one in asked)
