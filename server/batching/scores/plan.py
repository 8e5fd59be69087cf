"""What a group of operations does to the events they name. Pure: what is stored goes in, what to write and the outcomes come out.

Two states: stored (committed) and published (what ranking sees). When only counters differ from what is stored it is
popularity: the stored counters move, the published ones wait for a flush. Anything else is published at once, together with
counters of that event that were waiting. An operation that changes nothing publishes nothing and keeps the version.

An event is stored in two halves. Its `Tally` is narrow and all that counting needs; its content (an `Event`) is read only for
those that an `Upsert` or `Delete` names, because reading and building it costs ten times as much.

Versions come from one database sequence and are handed in as an iterator; the caller has locked the rows before drawing
them, so for one id they only grow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any, Final, NamedTuple, TypeAlias

from server.batching.scores.score import popularity_term
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
_NAMES: Final = tuple(_DEFAULTS)
_VALUES: Final = attrgetter(*_NAMES)
_TIMES: Final = ("start_ms", "end_ms", "recurrence", "timezone")
_RULE: Final = frozenset(("start_ms", "recurrence", "timezone"))


@dataclass(frozen=True, slots=True)
class Row:
    """An event as stored, with the counters that are published. Pending: the two differ."""

    event: Event
    published: Counts

    @property
    def pending(self) -> bool:
        """Is there popularity that no flush has published yet?"""
        return self.event.counts != self.published


class Tally(NamedTuple):
    """The narrow half of an event: its counters as stored and as published, its version, whether it is urgent by itself.

    A NamedTuple because thousands of them are made a second, at a third of what a frozen dataclass costs."""

    counts: Counts
    published: Counts
    version: int
    high: bool = False


class Asked(NamedTuple):
    """One operation and who wants it."""

    op: Op
    who: Identity


@dataclass(frozen=True, slots=True)
class Counted:
    """Counters that became the published ones under a new version; nothing else of the event differs."""

    counts: Counts
    version: int


@dataclass(frozen=True, slots=True)
class Gone:
    """The event is no more; `version` is that of its end, 0 when it is only known that it is not there."""

    version: int = 0


Change: TypeAlias = Event | Counted | Gone
"""What ranking has to see anew: a whole event with its published counters, counters alone, or an end."""


class Settled(NamedTuple):
    """What a committed transaction means for one event in memory; one per event and transaction."""

    event_id: str
    published: Change | None
    """None: nothing that ranking sees, only stored counters moved. A state that memory has already is no change."""
    pending: bool
    """Stored counters differ from the published ones now."""
    high: bool = False
    """If pending, it may not wait for the batch."""
    immediate: bool = True
    """Viewers are told by the immediate turn; False: by a flush, or by whoever asked for it."""


@dataclass(slots=True)
class Group:
    """The plan of one transaction: rows as they shall be, by what must be written, and the answers in order."""

    published: bool = False
    """Batching is off: counters that are written alone are published too."""
    outcomes: list[Outcome] = field(default_factory=list)
    content: dict[str, Row] = field(default_factory=dict)
    """Rows whose content (and counters) must be written and are published at once."""
    counters: dict[str, Tally] = field(default_factory=dict)
    """Events of which only counters must be written."""
    deleted: dict[str, int] = field(default_factory=dict)
    applied: list[tuple[str, str, str, int]] = field(default_factory=list)
    """Updates to remember: sub, update id, event id, version."""
    urgent: set[str] = field(default_factory=set)

    def settled(self) -> list[Settled]:
        """What memory must follow, once this is committed."""
        urgent, content, counters = self.urgent, self.content, self.counters
        changes = [Settled(i, Gone(version), False) for i, version in self.deleted.items() if i not in content]
        changes += [Settled(i, shown(row), row.pending, i in urgent) for i, row in content.items()]
        if self.published:
            changes += [Settled(i, Counted(t.published, t.version), False) for i, t in counters.items()]
        else:
            changes += [Settled(i, None, t.counts != t.published, i in urgent) for i, t in counters.items()]
        waiting = urgent - content.keys() - counters.keys() - self.deleted.keys()  # what waited already now may not
        return changes + [Settled(i, None, True, True) for i in waiting]


@dataclass(slots=True)
class Planner:
    """Plans one group over locked rows. `publish_counters`: batching is off, counters are published at once.

    `tallies` has every event that exists, of those that the group names; `events` the content of those that an upsert or
    a delete names (counters and version in there do not matter: the tally has them). Both follow what is planned."""

    tallies: dict[str, Tally]
    events: dict[str, Event]
    known: Mapping[tuple[str, str], Accepted]
    versions: Iterator[int]
    now_ms: int
    publish_counters: bool
    growth: float = 0.0
    """Popularity (0..1) that makes an event urgent when it has gained so much since it was published; 0: none does."""
    group: Group = field(init=False)
    seen: dict[tuple[str, str], Accepted] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.group = Group(published=self.publish_counters)

    def plan(self, asked: Sequence[Asked]) -> Group:
        """All operations, in order, each seeing what those before it did. A long group may come in parts."""
        self.group.outcomes += [
            self._popularity(op, who) if type(op) is Popularity else self._content(op, who) for op, who in asked
        ]
        self._finish()
        return self.group

    def settled(self, suspects: Iterable[str]) -> list[Settled]:
        """What memory must follow once the plan is committed; of suspects (their content was read) the whole truth."""
        changes = {one.event_id: one for one in self.group.settled()}
        for event_id in suspects:
            event, tally = self.events.get(event_id), self.tallies.get(event_id)
            row = None if event is None or tally is None else joined(event, tally)
            changes[event_id] = truth(event_id, row, urgent=event_id in self.group.urgent)
        return list(changes.values())

    def _content(self, op: Op, who: Identity) -> Outcome:
        match op:
            case Upsert():
                return self._upsert(op, who)
            case Delete():
                return self._delete(op, who)
            case Popularity():
                return self._popularity(op, who)

    def _upsert(self, op: Upsert, who: Identity) -> Outcome:
        known, tally = self.events.get(op.id), self.tallies.get(op.id)
        refusal = _not_yours(known, who) or _stale(op, tally)
        if refusal is not None:
            return refusal
        values = merge(known, op, self.now_ms)
        if isinstance(values, Rejected):
            return values
        counts = _counts(op, tally)
        if known is None or tally is None or content_differs(known, values):
            return self._publish(known or _blank(op.id, self.now_ms), values, counts)
        return self._count(op.id, tally, counts, tally.high)

    def _delete(self, op: Delete, who: Identity) -> Outcome:
        tally = self.tallies.get(op.id)
        if tally is None:
            return Rejected(op.id, Code.NOT_FOUND, "no event with this id", "id")
        refusal = _not_yours(self.events.get(op.id), who) or _stale(op, tally)
        if refusal is not None:
            return refusal
        version = next(self.versions)
        self.tallies.pop(op.id)
        self.events.pop(op.id)
        self.group.content.pop(op.id, None)
        self.group.counters.pop(op.id, None)
        self.group.deleted[op.id] = version
        return Accepted(op.id, version)

    def _popularity(self, op: Popularity, who: Identity) -> Outcome:
        event_id = op.id
        key = None
        if op.update_id is not None:
            key = (who.user or "", op.update_id)
            before = self.known.get(key) or self.seen.get(key)
            if before is not None:
                return before
        tally = self.tallies.get(event_id)
        if tally is None:
            return Rejected(event_id, Code.NOT_FOUND, "no event with this id", "eventId")
        outcome = self._count(event_id, tally, counted(tally.counts, op), op.high or tally.high)
        if key is not None:
            self.seen[key] = outcome
            self.group.applied.append((*key, event_id, outcome.version))
        return outcome

    def _count(self, event_id: str, tally: Tally, counts: Counts, high: bool) -> Accepted:
        """Only counters may differ: they wait, unless batching is off."""
        _, published, version, own = tally
        if counts != tally.counts:
            if self.publish_counters:
                published, version = counts, next(self.versions)
            self.tallies[event_id] = self.group.counters[event_id] = Tally(counts, published, version, own)
        if counts != published and (high or self._soars(counts, published)):
            self.group.urgent.add(event_id)
        return Accepted(event_id, version)

    def _soars(self, counts: Counts, published: Counts) -> bool:
        return self.growth > 0 and popularity_term(counts) - popularity_term(published) >= self.growth

    def _publish(self, known: Event, values: Mapping[str, object], counts: Counts) -> Accepted:
        """The content is new; so are its counters, whatever waited."""
        version = next(self.versions)
        event = rebuilt(known, {**values, "counts": counts, "version": version, "updated_ms": self.now_ms})
        self.tallies[event.id] = Tally(counts, counts, version, event.priority == "high")
        self.events[event.id] = event
        self.group.content[event.id] = Row(event, counts)
        return Accepted(event.id, version)

    def _finish(self) -> None:
        """A row is written once: counters that moved after (or before) its content in this group go with it."""
        content, counters = self.group.content, self.group.counters
        for event_id in content.keys() & counters.keys():
            del counters[event_id]
            tally = self.tallies[event_id]
            content[event_id] = joined(self.events[event_id], tally)


def truth(event_id: str, row: Row | None, *, urgent: bool = False) -> Settled:
    """All that memory must know of an event, when it can't be sure what it knows."""
    if row is None:
        return Settled(event_id, Gone(), False)
    return Settled(event_id, shown(row), row.pending, urgent or row.event.priority == "high")


def joined(event: Event, tally: Tally) -> Row:
    """The two halves of an event as one."""
    if event.counts != tally.counts or event.version != tally.version:
        event = rebuilt(event, {"counts": tally.counts, "version": tally.version})
    return Row(event, tally.published)


def tally_of(row: Row) -> Tally:
    """The narrow half alone."""
    return Tally(row.event.counts, row.published, row.event.version, row.event.priority == "high")


def shown(row: Row) -> Event:
    """The event as ranking sees it."""
    return rebuilt(row.event, {"counts": row.published}) if row.pending else row.event


def rebuilt(event: Event, changes: Mapping[str, object]) -> Event:
    """The event with these values: what dataclasses.replace does, at a fifth of its cost."""
    values: dict[str, Any] = dict(zip(_NAMES, _VALUES(event), strict=True))
    values.update(changes)
    return Event(**values)


def merge(known: Event | None, op: Upsert, now_ms: int) -> dict[str, object] | Rejected:
    """The content that the upsert names, as it shall be (null clears; absent keeps, or is the default of a new event)."""
    fields = op.fields
    if known is None:
        missing = [name for name in ("latitude", "start_ms") if fields.get(name) is None]
        if missing:
            name = {"latitude": "location", "start_ms": "start"}[missing[0]]
            reason = f"a new event needs {name}; give it, or map a field of yours to it ({name}=PATH)"
            return Rejected(op.id, Code.BAD_MESSAGE, reason, name)
        known = _blank(op.id, now_ms)
    values = {k: _or_default(k, now_ms) if v is None else v for k, v in fields.items() if k not in COUNTERS}
    return _inconsistent(known, values, op) or values


def _blank(event_id: str, now_ms: int) -> Event:
    return Event(event_id, 0.0, 0.0, 0, created_ms=now_ms)


def _or_default(name: str, now_ms: int) -> object:
    return now_ms if name == "created_ms" else _DEFAULTS[name]


def _counts(op: Upsert, tally: Tally | None) -> Counts:
    """Counters after the upsert: absent and null keep."""
    before = NO_COUNTS if tally is None else tally.counts
    if op.fields.keys().isdisjoint(COUNTERS):
        return before
    scan, save, rsvp = (_given_count(op, name, old) for name, old in zip(COUNTERS, before, strict=True))
    return scan, save, rsvp


def _given_count(op: Upsert, name: str, before: int) -> int:
    given = op.fields.get(name)
    return given if isinstance(given, int) else before


def _inconsistent(known: Event, values: Mapping[str, object], op: Upsert) -> Rejected | None:
    """What only the merged event shows: an end before its start, a rule that its start can't carry."""
    for name, wire in (("start_ms", "start"), ("latitude", "location")):
        if op.fields.get(name, 0) is None:
            return Rejected(op.id, Code.BAD_MESSAGE, f"{wire} can't be cleared: every event has one", wire)
    if values.keys().isdisjoint(_TIMES):
        return None
    times: dict[str, Any] = {name: values.get(name, getattr(known, name)) for name in _TIMES}
    start_ms, end_ms, rule = times["start_ms"], times["end_ms"], times["recurrence"]
    if end_ms is not None and end_ms < start_ms:
        return Rejected(op.id, Code.BAD_MESSAGE, "end must not be before start", "end")
    if rule is not None and not values.keys().isdisjoint(_RULE):
        try:
            recurrence.check(rule, start_ms, times["timezone"])
        except ValueError as error:
            return Rejected(op.id, Code.BAD_MESSAGE, str(error), "recurrence")
    return None


def content_differs(event: Event, values: Mapping[str, object]) -> bool:
    """Is any of these not what the event has?"""
    return any(getattr(event, name) != value for name, value in values.items())


def counted(before: Counts, op: Popularity) -> Counts:
    """Counters after an update; a negative result clamps to 0, one too large to the 64-bit limit."""
    (scan, save, rsvp), (a, b, c), (x, y, z) = before, op.counts, op.deltas
    scan, save, rsvp = (scan if a is None else a) + x, (save if b is None else b) + y, (rsvp if c is None else c) + z
    within = 0 <= scan <= COUNTER_MAX and 0 <= save <= COUNTER_MAX and 0 <= rsvp <= COUNTER_MAX
    return (scan, save, rsvp) if within else _clamped((scan, save, rsvp))


def _clamped(counts: Counts) -> Counts:
    scan, save, rsvp = (min(max(count, 0), COUNTER_MAX) for count in counts)
    return scan, save, rsvp


def _not_yours(event: Event | None, who: Identity) -> Rejected | None:
    if event is None or who.admin or event.creator_id in (None, who.user):
        return None
    return Rejected(event.id, Code.FORBIDDEN, "a producer may change only events of its own or of nobody", "id")


def _stale(op: Upsert | Delete, tally: Tally | None) -> Rejected | None:
    current = 0 if tally is None else tally.version
    if op.if_version is None or op.if_version == current:
        return None
    return Rejected(op.id, Code.CONFLICT, f"the version is {current}, not {op.if_version}; read it again", "ifVersion")


def contents_needed(asked: Iterable[Asked]) -> set[str]:
    """The ids of which more than the tally must be read."""
    return {op.id for op, _ in asked if type(op) is not Popularity}


def versions_needed(asked: Iterable[Asked], *, publish_counters: bool) -> int:
    """How many new versions the group can use at most."""
    return sum(publish_counters or type(op) is not Popularity for op, _ in asked)
