"""What operations do to events, against a model that does one after the other in the plainest way."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.batching.scores import plan
from server.batching.scores.plan import (
    Asked,
    Counted,
    Gone,
    Group,
    Planner,
    Row,
    Settled,
    Tally,
    content_differs,
    contents_needed,
    counted,
    joined,
    rebuilt,
    tally_of,
    truth,
    versions_needed,
)
from server.core.event import (
    COUNTER_MAX,
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
from server.core.identity import ANONYMOUS, Identity
from server.errors import Code

pytestmark = pytest.mark.pure
NOW = 1_790_000_000_000
ANN = Identity("ann", frozenset({"producer"}))
BOB = Identity("bob", frozenset({"producer"}))
ROOT = Identity("root", frozenset({"admin"}))
PLACE = {"latitude": 1.0, "longitude": 2.0}
NEW = {**PLACE, "start_ms": NOW}


@dataclass
class Memory:
    """What is published and what is pending, from nothing but what the plans say has been settled."""

    published: dict[str, Event] = field(default_factory=dict)
    pending: set[str] = field(default_factory=set)

    def follow(self, changes: list[Settled]) -> None:
        assert len({one.event_id for one in changes}) == len(changes), "one an event"
        for one in changes:
            match one.published:
                case Event():
                    self.published[one.event_id] = one.published
                case Counted(counts, version):
                    known = self.published[one.event_id]
                    assert known.version < version
                    self.published[one.event_id] = rebuilt(known, {"counts": counts, "version": version})
                case Gone():
                    self.published.pop(one.event_id, None)
            (self.pending.add if one.pending else self.pending.discard)(one.event_id)


@dataclass
class Store:
    """What a database would hold, and the one sequence of versions."""

    rows: dict[str, Row] = field(default_factory=dict)
    known: dict[tuple[str, str], Accepted] = field(default_factory=dict)
    version: int = 0
    batching: bool = True
    settled: list[Settled] = field(default_factory=list)
    memory: Memory = field(default_factory=lambda: Memory())

    def commit(self, *asked: Asked, now_ms: int = NOW) -> Group:
        """One transaction: plan over the rows named, then do exactly what the plan wants written."""
        needed = versions_needed(asked, publish_counters=not self.batching)
        versions = iter(range(self.version + 1, self.version + 1 + needed))
        self.version += needed
        rows = {one.op.id: row for one in asked if (row := self.rows.get(one.op.id)) is not None}
        tallies = {event_id: tally_of(row) for event_id, row in rows.items()}
        events = {event_id: rows[event_id].event for event_id in contents_needed(asked) & rows.keys()}
        planner = Planner(tallies, events, self.known, versions, now_ms, publish_counters=not self.batching)
        group = planner.plan(asked)
        for event_id in group.deleted:
            self.rows.pop(event_id, None)
        assert not group.content.keys() & group.counters.keys(), "a row is written once"
        assert group.counters.keys() <= self.rows.keys(), "counters of events that are there"
        self.rows.update(group.content)
        self.rows.update({i: joined(self.rows[i].event, tally) for i, tally in group.counters.items()})
        self.known.update({(sub, update): Accepted(event_id, v) for sub, update, event_id, v in group.applied})
        named = {one.op.id for one in asked}
        assert planner.tallies == {i: tally_of(self.rows[i]) for i in named & self.rows.keys()}, "planned is written"
        self.settled = planner.settled(())
        self.memory.follow(self.settled)
        return group

    def do(self, op: Op, who: Identity = ANN, now_ms: int = NOW) -> Outcome:
        return self.commit(Asked(op, who), now_ms=now_ms).outcomes[0]


@pytest.fixture
def store() -> Store:
    return Store()


def accepted(outcome: Outcome) -> int:
    assert isinstance(outcome, Accepted), outcome
    return outcome.version


def rejected(outcome: Outcome) -> tuple[str, str | None]:
    assert isinstance(outcome, Rejected), outcome
    return outcome.code, outcome.field


# --- upserts ---


def test_a_new_event_has_the_defaults(store: Store) -> None:
    assert accepted(store.do(Upsert("a", NEW))) == 1
    assert store.rows["a"] == Row(Event("a", 1.0, 2.0, NOW, created_ms=NOW, updated_ms=NOW, version=1), (0, 0, 0))
    event = store.rows["a"].event
    assert (event.status, event.private, event.priority, event.counts) == ("VERIFIED", False, "normal", (0, 0, 0))


@pytest.mark.parametrize(("missing", "field"), [("latitude", "location"), ("start_ms", "start")])
def test_a_new_event_needs_a_place_and_a_start(store: Store, missing: str, field: str) -> None:
    for fields in ({k: v for k, v in NEW.items() if k != missing}, {**NEW, missing: None}):
        assert rejected(store.do(Upsert("a", fields))) == (Code.BAD_MESSAGE, field)
    assert store.rows == {}


@pytest.mark.parametrize(("name", "field"), [("latitude", "location"), ("start_ms", "start")])
def test_a_place_and_a_start_cannot_be_cleared(store: Store, name: str, field: str) -> None:
    store.do(Upsert("a", NEW))
    assert rejected(store.do(Upsert("a", {name: None}))) == (Code.BAD_MESSAGE, field)
    assert store.rows["a"].event.version == 1


def test_what_is_absent_keeps_its_value_and_null_clears_it(store: Store) -> None:
    store.do(
        Upsert("a", {**NEW, "title": "T", "emoji": "x", "end_ms": NOW + 5, "status": "PENDING", "categories": ("c",)})
    )
    store.do(Upsert("a", {"title": "U"}))
    event = store.rows["a"].event
    assert (event.title, event.emoji, event.end_ms, event.status, event.categories) == (
        "U",
        "x",
        NOW + 5,
        "PENDING",
        ("c",),
    )
    store.do(Upsert("a", {"title": None, "emoji": None, "end_ms": None, "status": None, "categories": None}))
    event = store.rows["a"].event
    assert (event.title, event.emoji, event.end_ms, event.status, event.categories) == ("", None, None, "VERIFIED", ())


def test_counters_change_only_when_given_and_null_is_nothing_given(store: Store) -> None:
    store.do(Upsert("a", {**NEW, "scan": 5, "save": None}))
    assert store.rows["a"].event.counts == (5, 0, 0)
    store.do(Upsert("a", {"title": "T", "scan": None, "rsvp": 2}))
    assert store.rows["a"].event.counts == (5, 0, 2)


def test_an_upsert_that_changes_nothing_keeps_the_version_and_the_time_of_change(store: Store) -> None:
    store.do(Upsert("a", {**NEW, "title": "T"}))
    before = dict(store.rows)
    group = store.commit(Asked(Upsert("a", {**NEW, "title": "T", "scan": 0}), ANN), now_ms=NOW + 9)
    assert group.outcomes == [Accepted("a", 1)]
    assert (store.rows, group.content, group.counters) == (before, {}, {})


def test_an_upsert_that_changes_only_counters_is_popularity(store: Store) -> None:
    store.do(Upsert("a", NEW))
    assert accepted(store.do(Upsert("a", {**NEW, "scan": 7}), now_ms=NOW + 9)) == 1
    row = store.rows["a"]
    assert (row.event.counts, row.published, row.pending, row.event.updated_ms) == ((7, 0, 0), (0, 0, 0), True, NOW)


def test_a_change_of_content_publishes_counters_that_were_pending(store: Store) -> None:
    store.do(Upsert("a", NEW))
    store.do(Popularity("a", (7, None, None)))
    assert store.rows["a"].pending
    group = store.commit(Asked(Upsert("a", {"title": "T"}), ANN), now_ms=NOW + 9)
    row = store.rows["a"]
    assert (row.published, row.pending, row.event.version, row.event.updated_ms) == ((7, 0, 0), False, 2, NOW + 9)
    assert list(group.content) == ["a"]


def test_an_end_before_the_start_is_refused_also_when_only_one_of_them_is_given(store: Store) -> None:
    store.do(Upsert("a", {**NEW, "end_ms": NOW + 5}))
    assert rejected(store.do(Upsert("a", {"start_ms": NOW + 6}))) == (Code.BAD_MESSAGE, "end")
    assert rejected(store.do(Upsert("a", {"end_ms": NOW - 1}))) == (Code.BAD_MESSAGE, "end")
    assert accepted(store.do(Upsert("a", {"start_ms": NOW + 5}))) > 1


def test_a_rule_that_the_merged_event_cannot_carry_is_refused(store: Store) -> None:
    store.do(Upsert("a", {**NEW, "recurrence": "FREQ=DAILY;UNTIL=20300101T000000Z"}))
    far = NOW + 5000 * 86_400_000
    assert rejected(store.do(Upsert("a", {"start_ms": far}))) == (Code.BAD_MESSAGE, "recurrence")
    assert accepted(store.do(Upsert("a", {"start_ms": far, "recurrence": None}))) > 1


# --- versions, deletes, ownership ---


def test_a_stale_write_is_a_conflict_and_says_the_version_that_is(store: Store) -> None:
    store.do(Upsert("a", NEW))
    outcome = store.do(Upsert("a", {"title": "T"}, if_version=7))
    assert isinstance(outcome, Rejected)
    assert (outcome.code, outcome.field) == (Code.CONFLICT, "ifVersion")
    assert "the version is 1, not 7" in outcome.reason
    assert accepted(store.do(Upsert("a", {"title": "T"}, if_version=1))) > 1
    assert rejected(store.do(Delete("a", if_version=1))) == (Code.CONFLICT, "ifVersion")
    assert accepted(store.do(Delete("a", if_version=store.rows["a"].event.version)))


def test_a_version_of_zero_asks_that_the_event_is_new(store: Store) -> None:
    assert accepted(store.do(Upsert("a", NEW, if_version=0)))
    assert rejected(store.do(Upsert("a", NEW, if_version=0))) == (Code.CONFLICT, "ifVersion")
    assert rejected(store.do(Upsert("b", NEW, if_version=1))) == (Code.CONFLICT, "ifVersion")


def test_a_producer_may_change_and_delete_its_own_and_nobodys_and_an_admin_any(store: Store) -> None:
    store.do(Upsert("a", {**NEW, "creator_id": "ann"}))
    store.do(Upsert("n", NEW))
    for op in (Upsert("a", {"title": "T"}), Upsert("a", {"scan": 5}), Delete("a")):
        assert rejected(store.do(op, BOB)) == (Code.FORBIDDEN, "id")
    assert accepted(store.do(Upsert("n", {"title": "T"}), BOB))
    assert accepted(store.do(Upsert("a", {"title": "T"}), ANN))
    assert accepted(store.do(Upsert("a", {"title": "U"}), ROOT))
    assert accepted(store.do(Popularity("a", (1, None, None)), BOB)), "popularity is for every producer"
    assert accepted(store.do(Delete("a"), ROOT))
    assert accepted(store.do(Delete("n"), BOB))


def test_an_event_without_a_creator_is_not_an_anonymous_callers(store: Store) -> None:
    store.do(Upsert("a", {**NEW, "creator_id": "ann"}))
    assert rejected(store.do(Delete("a"), ANONYMOUS)) == (Code.FORBIDDEN, "id")


def test_deleting_gives_the_version_of_the_end_and_an_unknown_id_is_not_found(store: Store) -> None:
    store.do(Upsert("a", NEW))
    assert accepted(store.do(Delete("a"))) == 2
    assert rejected(store.do(Delete("a"))) == (Code.NOT_FOUND, "id")
    assert rejected(store.do(Popularity("a", (1, None, None)))) == (Code.NOT_FOUND, "eventId")


def test_deleted_and_made_again_in_one_group_it_is_a_new_event_with_a_new_version(store: Store) -> None:
    store.do(Upsert("a", {**NEW, "title": "T", "scan": 5}))
    group = store.commit(
        Asked(Delete("a"), ANN), Asked(Upsert("a", NEW), ANN), Asked(Popularity("a", (2, None, None)), ANN)
    )
    assert [accepted(o) for o in group.outcomes] == [2, 3, 3]
    row = store.rows["a"]
    assert (row.event.title, row.event.counts, row.published, row.event.version) == ("", (2, 0, 0), (0, 0, 0), 3)
    assert (list(group.deleted), list(group.content)) == (["a"], ["a"])


def test_made_and_deleted_in_one_group_nothing_is_written(store: Store) -> None:
    group = store.commit(
        Asked(Upsert("a", NEW), ANN), Asked(Popularity("a", (1, None, None)), ANN), Asked(Delete("a"), ANN)
    )
    assert (store.rows, group.content, group.counters, list(group.deleted)) == ({}, {}, {}, ["a"])


# --- popularity ---


def test_only_counters_wait_as_pending_with_the_newest_and_keep_the_version(store: Store) -> None:
    store.do(Upsert("a", NEW))
    group = store.commit(*(Asked(Popularity("a", (n, None, None)), ANN) for n in (1, 2, 3)))
    assert group.outcomes == [Accepted("a", 1)] * 3
    assert (store.rows["a"].event.counts, store.rows["a"].published) == ((3, 0, 0), (0, 0, 0))
    assert (list(group.counters), group.content) == (["a"], {})


def test_popularity_that_goes_back_to_what_is_published_is_no_longer_pending(store: Store) -> None:
    store.do(Upsert("a", NEW))
    store.do(Popularity("a", deltas=(2, 0, 0)))
    store.do(Popularity("a", deltas=(-2, 0, 0)))
    assert not store.rows["a"].pending


def test_a_repeated_update_is_answered_the_same_and_counted_once(store: Store) -> None:
    store.do(Upsert("a", NEW))
    one = Popularity("a", deltas=(1, 0, 0), update_id="u")
    within = store.commit(Asked(one, ANN), Asked(one, ANN))
    again = store.do(one)
    store.do(Upsert("a", {"title": "T"}))
    assert [*within.outcomes, again, store.do(one)] == [Accepted("a", 1)] * 4
    assert store.rows["a"].event.counts == (1, 0, 0)
    assert within.applied == [("ann", "u", "a", 1)]


def test_update_ids_are_each_users_own(store: Store) -> None:
    store.do(Upsert("a", NEW))
    one = Popularity("a", deltas=(1, 0, 0), update_id="u")
    store.commit(Asked(one, ANN), Asked(one, BOB))
    assert store.rows["a"].event.counts == (2, 0, 0)


def test_a_refused_update_is_not_remembered(store: Store) -> None:
    one = Popularity("a", deltas=(1, 0, 0), update_id="u")
    assert rejected(store.do(one)) == (Code.NOT_FOUND, "eventId")
    store.do(Upsert("a", NEW))
    store.do(one)
    assert store.rows["a"].event.counts == (1, 0, 0)


@pytest.mark.parametrize(
    ("before", "op", "after"),
    [
        ((5, 5, 5), Popularity("a", deltas=(-9, -5, 1)), (0, 0, 6)),
        ((COUNTER_MAX, 0, 0), Popularity("a", deltas=(1, 0, COUNTER_MAX)), (COUNTER_MAX, 0, COUNTER_MAX)),
        ((5, 5, 5), Popularity("a", (0, None, 9)), (0, 5, 9)),
        ((5, 5, 5), Popularity("a"), (5, 5, 5)),
    ],
)
def test_counters_are_set_or_moved_and_clamped(before: Counts, op: Popularity, after: Counts) -> None:
    assert counted(before, op) == after


def test_high_priority_on_the_update_or_on_the_event_is_urgent_if_anything_is_pending(store: Store) -> None:
    store.do(Upsert("a", NEW))
    store.do(Upsert("h", {**NEW, "priority": "high"}))
    assert store.commit(Asked(Popularity("a", (1, None, None)), ANN)).urgent == set()
    assert store.commit(Asked(Popularity("a", (1, None, None), high=True), ANN)).urgent == {"a"}
    assert store.commit(Asked(Popularity("h", (0, None, None)), ANN)).urgent == set()
    assert store.commit(Asked(Popularity("h", (1, None, None)), ANN)).urgent == {"h"}
    assert store.commit(Asked(Upsert("h", {"scan": 2}), ANN)).urgent == {"h"}


def test_without_batching_counters_are_published_at_once(store: Store) -> None:
    store.do(Upsert("a", NEW))
    store.batching = False
    group = store.commit(Asked(Popularity("a", (1, None, None)), ANN), Asked(Popularity("a", (1, None, None)), ANN))
    assert [accepted(o) for o in group.outcomes] == [2, 2]
    assert (list(group.counters), group.content, store.rows["a"].pending) == (["a"], {}, False)


def test_no_group_uses_more_versions_than_were_drawn() -> None:
    asked = [Asked(Upsert("a", NEW), ANN), Asked(Delete("a"), ANN), Asked(Popularity("a"), ANN)]
    assert versions_needed(asked, publish_counters=False) == 2
    assert versions_needed(asked, publish_counters=True) == 3


def test_content_differs_when_any_of_the_values_named_is_another() -> None:
    one = Event("a", 1.0, 2.0, NOW)
    others: dict[str, object] = {
        "title": "T",
        "latitude": 1.5,
        "private": True,
        "status": "PENDING",
        "shared_with": ("x",),
        "created_ms": 5,
    }
    for name, value in others.items():
        assert content_differs(one, {"latitude": 1.0, name: value}), name
        assert not content_differs(rebuilt(one, {name: value}), {name: value})
    assert not content_differs(one, {})


def test_an_event_rebuilt_has_the_values_given_and_else_its_own() -> None:
    one = Event("a", 1.0, 2.0, NOW, "T", categories=("c",), counts=(1, 2, 3), shared_with=("x",), version=7)
    assert rebuilt(one, {}) == one
    assert rebuilt(one, {"version": 8, "counts": (0, 0, 0)}) == replace(one, version=8, counts=(0, 0, 0))


def test_high_priority_is_urgent_also_when_the_counters_waited_already(store: Store) -> None:
    store.do(Upsert("a", NEW))
    store.do(Popularity("a", (1, None, None)))
    store.do(Popularity("a", (1, None, None), high=True))
    assert store.settled == [Settled("a", None, pending=True, high=True)]


def test_of_a_suspect_memory_is_told_the_whole_truth_whatever_the_group_did(store: Store) -> None:
    store.do(Upsert("a", {**NEW, "priority": "high"}))
    row = store.rows["a"]
    planner = Planner({"a": tally_of(row)}, {"a": row.event}, {}, iter([9]), NOW, publish_counters=False)
    planner.plan([Asked(Popularity("a", (5, None, None)), ANN)])
    assert planner.settled({"a"}) == [Settled("a", row.event, pending=True, high=True)]
    assert Settled("gone", Gone(), pending=False) in planner.settled({"a", "gone"})
    assert truth("a", joined(row.event, Tally((5, 0, 0), (0, 0, 0), 1, high=True))).published == row.event


def test_of_what_is_read_back_pending_counters_of_an_urgent_event_are_urgent() -> None:
    high, normal = Event("a", 1.0, 2.0, NOW, priority="high", counts=(1, 0, 0)), Event("a", 1.0, 2.0, NOW)
    assert truth("a", Row(high, (0, 0, 0)))[2:4] == (True, True)
    assert truth("a", Row(normal, (1, 0, 0)))[2:4] == (True, False)
    assert truth("a", None) == Settled("a", Gone(), pending=False)


def test_what_is_told_of_an_event_carries_the_published_counters(store: Store) -> None:
    store.do(Upsert("a", NEW))
    group = [Asked(Upsert("a", {"title": "T"}), ANN), Asked(Popularity("a", (3, None, None)), ANN)]
    store.commit(*group)
    assert store.settled == [Settled("a", rebuilt(store.rows["a"].event, {"counts": (0, 0, 0)}), pending=True)]


def test_a_group_may_be_planned_in_parts(store: Store) -> None:
    ops = [
        Upsert("a", NEW),
        Popularity("a", deltas=(2, 0, 0)),
        Upsert("a", {"title": "T"}),
        Delete("a"),
        Upsert("a", NEW),
    ]
    whole = Store().commit(*(Asked(op, ANN) for op in ops))
    planner = Planner({}, {}, {}, iter(range(1, 9)), NOW, publish_counters=False)
    for op in ops:
        group = planner.plan([Asked(op, ANN)])
    assert (group.outcomes, group.content, group.counters) == (whole.outcomes, whole.content, whole.counters)


# --- anything at all, against the model ---


class Model:
    """Events as plain dicts, one operation after the other."""

    def __init__(self) -> None:
        self.events: dict[str, dict[str, Any]] = {}
        self.answers: dict[tuple[str, str], tuple[str, int]] = {}
        self.next_version = 1

    def draw(self) -> int:
        self.next_version += 1
        return self.next_version - 1

    def apply(self, op: Op, who: Identity, batching: bool, now: int) -> tuple[str, int] | str:
        """(id, version) or the code of the refusal."""
        event = self.events.get(op.id)
        if isinstance(op, Popularity):
            return self.count(op, who, event, batching)
        if event is None and isinstance(op, Delete):
            return "not_found"
        if event is not None and not who.admin and event["creator_id"] not in (None, who.user):
            return "forbidden"
        if op.if_version is not None and op.if_version != (event["version"] if event else 0):
            return "conflict"
        if isinstance(op, Delete):
            del self.events[op.id]
            return op.id, self.draw()
        return self.upsert(op, event, batching, now)

    def count(
        self, op: Popularity, who: Identity, event: dict[str, Any] | None, batching: bool
    ) -> tuple[str, int] | str:
        key = (who.user or "", op.update_id or "")
        if op.update_id and key in self.answers:
            return self.answers[key]
        if event is None:
            return "not_found"
        for i, name in enumerate(("scan", "save", "rsvp")):
            given = op.counts[i]
            event[name] = max(0, (event[name] if given is None else given) + op.deltas[i])
        self.settle(event, batching)
        if op.update_id:
            self.answers[key] = (op.id, event["version"])
        return op.id, event["version"]

    def upsert(self, op: Upsert, event: dict[str, Any] | None, batching: bool, now: int) -> tuple[str, int] | str:
        after = dict(event) if event else {**DEFAULTS, "created_ms": now}
        if event is None and not ("latitude" in op.fields and op.fields.get("start_ms") is not None):
            return "bad_message"
        for name, value in op.fields.items():
            if name in ("scan", "save", "rsvp"):
                after[name] = after[name] if value is None else value
            else:
                after[name] = value if value is not None else now if name == "created_ms" else DEFAULTS[name]
        if after["start_ms"] is None or (after["end_ms"] is not None and after["end_ms"] < after["start_ms"]):
            return "bad_message"
        if event is None or any(after[name] != event[name] for name in CONTENT):
            after["updated_ms"] = now
            after.update(version=self.draw(), published=(after["scan"], after["save"], after["rsvp"]))
            self.events[op.id] = after
        else:
            self.events[op.id] = after
            self.settle(after, batching)
        return op.id, after["version"]

    def settle(self, event: dict[str, Any], batching: bool) -> None:
        counts = (event["scan"], event["save"], event["rsvp"])
        if not batching and counts != event["before"]:
            event.update(version=self.draw(), published=counts)
        event["before"] = counts

    def note(self) -> None:
        for event in self.events.values():
            event["before"] = (event["scan"], event["save"], event["rsvp"])


DEFAULTS: dict[str, Any] = {
    "latitude": None,
    "longitude": None,
    "start_ms": None,
    "title": "",
    "end_ms": None,
    "status": "VERIFIED",
    "private": False,
    "creator_id": None,
    "priority": "normal",
    "created_ms": None,
    "categories": (),
    "scan": 0,
    "save": 0,
    "rsvp": 0,
}
CONTENT = [name for name in DEFAULTS if name not in ("scan", "save", "rsvp")]
VALUES: dict[str, list[Any]] = {
    "latitude": [1.0, 5.0],
    "start_ms": [NOW, NOW + 10, None],
    "title": ["T", "U", None],
    "end_ms": [NOW, NOW + 5, NOW + 20, None],
    "status": ["PENDING", "REJECTED", None],
    "private": [True, False, None],
    "creator_id": ["ann", "bob", None],
    "priority": ["high", None],
    "created_ms": [5, None],
    "categories": [("a",), (), None],
    "scan": [0, 1, 2, None],
    "save": [0, 1, None],
    "rsvp": [0, 3, None],
}
IDS = st.sampled_from("abc")


@st.composite
def operations(draw: st.DrawFn) -> Op:
    kind = draw(st.sampled_from(["upsert", "upsert", "count", "count", "delete"]))
    event_id = draw(IDS)
    if_version = draw(st.sampled_from([None] * 6 + [0, 1, 2, 3, 5]))
    if kind == "delete":
        return Delete(event_id, if_version)
    if kind == "count":
        update_id = draw(st.sampled_from([None, None, "u", "v"]))
        if draw(st.booleans()):
            small = st.integers(-3, 3)
            return Popularity(event_id, deltas=(draw(small), draw(small), draw(small)), update_id=update_id)
        one = st.sampled_from([None, 0, 1, 2])
        return Popularity(event_id, (draw(one), draw(one), draw(one)), update_id=update_id, high=draw(st.booleans()))
    fields = {
        name: draw(st.sampled_from(VALUES[name])) for name in draw(st.sets(st.sampled_from(list(VALUES)), max_size=5))
    }
    if draw(st.booleans()):
        fields = {**NEW, **fields}
    if "latitude" in fields:
        fields["longitude"] = 2.0
    return Upsert(event_id, fields, if_version)


WHO = st.sampled_from([ANN, ANN, BOB, ROOT])
GROUPS = st.lists(st.lists(st.tuples(operations(), WHO), min_size=1, max_size=6), min_size=1, max_size=8)


@settings(max_examples=75, deadline=None)
@given(GROUPS, st.booleans())
def test_groups_do_what_one_operation_after_the_other_does(
    groups: list[list[tuple[Op, Identity]]], batching: bool
) -> None:
    store, model = Store(batching=batching), Model()
    newest: dict[str, int] = {}
    for number, group in enumerate(groups):
        now = NOW + number
        model.next_version = store.version + 1
        expected = []
        for op, who in group:
            expected.append(model.apply(op, who, batching, now))
            model.note()
        planned = store.commit(*(Asked(op, who) for op, who in group), now_ms=now)
        assert [said(outcome) for outcome in planned.outcomes] == expected
        assert {i: plain(row) for i, row in store.rows.items()} == {i: shown(e) for i, e in model.events.items()}
        check_versions(store, planned, newest)
        assert store.memory.published == {event_id: plan.shown(row) for event_id, row in store.rows.items()}
        assert store.memory.pending == {event_id for event_id, row in store.rows.items() if row.pending}


def check_versions(store: Store, group: Group, newest: dict[str, int]) -> None:
    """Of one id versions only grow, also over its end and a new beginning, and none is given to two."""
    for event_id, version in (*group.deleted.items(), *((i, r.event.version) for i, r in store.rows.items())):
        assert version >= newest.get(event_id, 0)
        newest[event_id] = version
    versions = [row.event.version for row in store.rows.values()]
    assert len(versions) == len(set(versions))
    assert store.version >= max(itertools.chain(versions, [0]))


def said(outcome: Outcome) -> tuple[str, int] | str:
    return (outcome.id, outcome.version) if isinstance(outcome, Accepted) else str(outcome.code)


def plain(row: Row) -> dict[str, Any]:
    event = row.event
    values = {name: getattr(event, name) for name in CONTENT}
    scan, save, rsvp = event.counts
    counters = {"scan": scan, "save": save, "rsvp": rsvp, "published": row.published}
    return {**values, **counters, "version": event.version, "updated_ms": event.updated_ms}


def shown(event: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name != "before"}
