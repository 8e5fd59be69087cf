"""Whatever order messages come in, and however they are cut, every server's memory ends as what is stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.batching.scores.announced import Note, Told, announcement, differing, heard, judged, payloads
from server.batching.scores.plan import (
    Asked,
    Counted,
    Planner,
    Row,
    Settled,
    contents_needed,
    joined,
    rebuilt,
    tally_of,
    truth,
    versions_needed,
)
from server.core.event import Delete, Event, Op, Popularity, Upsert
from server.core.identity import Identity
from tests.batching.scores.test_plan import NEW, NOW, Memory

pytestmark = pytest.mark.pure
ROOT = Identity("root", frozenset({"admin"}))
IDS = ("a", "b", "c")


@dataclass
class Database:
    """What is stored, and what each transaction said."""

    rows: dict[str, Row] = field(default_factory=dict)
    version: int = 0
    said: list[Told] = field(default_factory=list)
    at_once: dict[str, int] = field(default_factory=dict)
    """Versions of which viewers must hear without a flush."""

    def commit(self, asked: list[Asked], *, batching: bool = True) -> None:
        needed = versions_needed(asked, publish_counters=not batching)
        versions = iter(range(self.version + 1, self.version + 1 + needed))
        self.version += needed
        rows = {one.op.id: self.rows[one.op.id] for one in asked if one.op.id in self.rows}
        tallies = {event_id: tally_of(row) for event_id, row in rows.items()}
        before = dict(tallies)
        events = {event_id: rows[event_id].event for event_id in contents_needed(asked) & rows.keys()}
        planner = Planner(tallies, events, {}, versions, NOW, publish_counters=not batching)
        group = planner.plan(asked)
        for event_id in group.deleted:
            self.rows.pop(event_id, None)
        self.rows.update(group.content)
        self.rows.update({i: joined(self.rows[i].event, tally) for i, tally in group.counters.items()})
        changes = planner.settled(())
        self.at_once.update({one.event_id: 0 for one in changes if one.published is not None})
        self.at_once.update(
            {i: self.rows[i].event.version for i in self.at_once if i in self.rows and not self.at_once[i]}
        )
        self.said.append(announcement(before, changes))

    def flush(self) -> None:
        counted = []
        for event_id, row in self.rows.items():
            if row.pending:
                self.version += 1
                counted.append((event_id, row.event.version, self.version))
                self.rows[event_id] = Row(rebuilt(row.event, {"version": self.version}), row.event.counts)
        self.said.append(Told((), tuple(counted), by_flush=True))


@dataclass
class Server:
    """One that only hears: a memory and its notes."""

    memory: Memory = field(default_factory=Memory)
    notes: dict[str, Note] = field(default_factory=dict)
    at_once: dict[str, int] = field(default_factory=dict)
    """The version of which viewers were last told at once."""

    def hear(self, told: Told, most: int) -> None:
        for payload in payloads(told, most):
            for event_id, note in heard(orjson.loads(orjson.dumps(payload))):
                before = self.notes.get(event_id)
                self.notes[event_id] = note if before is None else before.joined(note)

    def settle(self, rows: Mapping[str, Row]) -> None:
        for event_id, note in self.notes.items():
            event, row = self.memory.published.get(event_id), rows.get(event_id)
            known = None if event is None else event.version
            change = judged(event_id, note, known, None if row is None else tally_of(row))
            self.follow(change if change is not None else truth(event_id, row))
        self.notes.clear()

    def follow(self, change: Settled) -> None:
        if isinstance(change.published, Event):
            known = self.memory.published.get(change.event_id)
            assert known is None or known.version <= change.published.version, "memory never goes back"
        if isinstance(change.published, Event | Counted) and change.immediate:
            self.at_once[change.event_id] = change.published.version
        self.memory.follow([change])

    def is_true(self, rows: Mapping[str, Row]) -> None:
        assert self.memory.published == {i: rebuilt(row.event, {"counts": row.published}) for i, row in rows.items()}
        assert self.memory.pending == {i for i, row in rows.items() if row.pending}


ids = st.sampled_from(IDS)
ops: st.SearchStrategy[Op] = st.one_of(
    st.builds(lambda i, title: Upsert(i, {**NEW, "title": title}), ids, st.sampled_from("xy")),
    st.builds(lambda i, scan: Upsert(i, {"scan": scan}), ids, st.integers(0, 3)),
    st.builds(Delete, ids),
    st.builds(
        lambda i, scan, high: Popularity(i, (scan, None, None), high=high), ids, st.integers(0, 3), st.booleans()
    ),
)
steps = st.one_of(
    st.tuples(st.just("commit"), st.lists(ops, min_size=1, max_size=4), st.booleans()),
    st.tuples(st.just("flush")),
    st.tuples(st.just("hear"), st.integers(0, 9)),
    st.tuples(st.just("settle")),
)


@settings(max_examples=200)
@given(st.lists(steps, max_size=25), st.integers(1, 200), st.randoms(use_true_random=False))
def test_a_server_that_has_heard_everything_in_any_order_has_what_is_stored(history, most, dice) -> None:  # type: ignore[no-untyped-def]
    database, server, waiting = Database(), Server(), []
    for kind, *more in history:
        if kind == "commit":
            database.commit([Asked(op, ROOT) for op in more[0]], batching=more[1])
            waiting.append(database.said[-1])
        elif kind == "flush":
            database.flush()
            waiting.append(database.said[-1])
        elif kind == "hear" and waiting:
            server.hear(waiting.pop(more[0] % len(waiting)), most)
        elif kind == "settle":
            server.settle(database.rows)
    dice.shuffle(waiting)
    for told in waiting:
        server.hear(told, most)
    server.settle(database.rows)
    server.is_true(database.rows)
    for event_id, row in database.rows.items():
        if database.at_once[event_id] == row.event.version:
            assert server.at_once.get(event_id) == row.event.version, "nothing that may not wait is followed silently"


@given(st.lists(st.tuples(ids, st.booleans(), st.booleans()), max_size=30), st.integers(1, 60))
def test_messages_are_cut_to_size_and_say_together_what_one_would(items, most) -> None:  # type: ignore[no-untyped-def]
    names = [f"{name}{number}" for number, (name, _, _) in enumerate(items)]
    told = Told(tuple(names), tuple((n, 1, 2) for n in names), (), tuple(names), by_flush=True)
    parts = payloads(told, most)
    assert all(len(orjson.dumps(part)) <= max(most, 20) + 60 for part in parts)
    assert [i for part in parts for i in part.get("content", ())] == names  # type: ignore[attr-defined]
    assert [i[0] for part in parts for i in part.get("counted", ())] == names  # type: ignore[attr-defined]
    assert [i for part in parts for i in part.get("urgent", ())] == names  # type: ignore[attr-defined]
    assert all(part["flush"] for part in parts)


def test_counting_what_waits_already_is_told_to_nobody() -> None:
    database = Database()
    database.commit([Asked(Upsert("a", NEW), ROOT)])
    database.commit([Asked(Popularity("a", (1, None, None)), ROOT)])
    database.commit([Asked(Popularity("a", (2, None, None)), ROOT)])
    assert [bool(told) for told in database.said] == [True, True, False]
    assert payloads(database.said[2]) == []


def test_what_a_flush_publishes_is_not_told_at_once_and_what_is_urgent_is() -> None:
    database, server = Database(), Server()
    database.commit([Asked(Upsert("a", NEW), ROOT), Asked(Upsert("b", NEW), ROOT)])
    server.hear(database.said[-1], 100)
    server.settle(database.rows)
    assert set(server.at_once) == {"a", "b"}
    server.at_once.clear()
    database.commit(
        [Asked(Popularity("a", (1, None, None)), ROOT), Asked(Popularity("b", (1, None, None), high=True), ROOT)]
    )
    assert database.said[-1].urgent == ("b",)
    database.flush()
    for told in database.said[-2:]:
        server.hear(told, 100)
    server.settle(database.rows)
    assert server.at_once == {}
    server.is_true(database.rows)


def test_counts_that_follow_each_other_need_no_content_and_anything_else_does() -> None:
    first, second, other = Note(before=1, after=2), Note(before=2, after=3), Note(before=5, after=6)
    assert first.joined(second) == second.joined(first) == Note(before=1, after=3)
    assert first.joined(other).whole and other.joined(first).whole
    assert Note(urgent=True).joined(first) == Note(before=1, after=2, urgent=True)
    assert first.joined(Note(whole=True)).whole
    tally = tally_of(Row(Event("a", 0.0, 0.0, 0, counts=(4, 0, 0), version=3), (4, 0, 0)))
    assert judged("a", first.joined(second), 1, tally) == Settled("a", Counted((4, 0, 0), 3), False, False, False)
    assert judged("a", second, 1, tally) is None, "what lies between may be content"
    assert judged("a", first, 1, tally) is None, "more has happened since"


def test_a_note_of_what_waits_tells_nobody_of_a_version_whose_own_message_is_on_its_way() -> None:
    flushed = tally_of(Row(Event("a", 0.0, 0.0, 0, counts=(4, 0, 0), version=3), (4, 0, 0)))
    assert judged("a", Note(urgent=True), 2, flushed) == Settled("a", None, False, False)
    assert judged("a", Note(), None, flushed) is None, "an event that is not known yet is read"
    assert judged("a", Note(whole=True), 2, flushed) is None


def test_comparing_finds_every_kind_of_difference_and_nothing_else() -> None:
    stored = {
        name: tally_of(Row(Event(name, 0.0, 0.0, 0, counts=counts, version=3), (0, 0, 0)))
        for name, counts in (("same", (0, 0, 0)), ("newer", (0, 0, 0)), ("new", (0, 0, 0)), ("waits", (1, 0, 0)))
    }
    known = {"same": 3, "newer": 2, "new": None, "waits": 3}
    assert set(differing(stored, known, {})) == {"newer", "new", "waits"}
    assert set(differing(stored, known, {"waits": None, "same": None})) == {"newer", "new", "same"}
