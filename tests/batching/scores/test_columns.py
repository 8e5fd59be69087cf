"""The columns hold what was put, whatever was put, published, removed, merged, forgotten and loaded in whatever order."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.batching.scores import columns as columns_module
from server.batching.scores import content, kernel
from server.batching.scores.columns import TAIL, Columns
from server.batching.scores.loading import Page
from server.batching.scores.score import HOUR_MS, confidence_term, popularity_term, unit_vector
from server.core.event import SHOWN, STATUSES, Event, held_hash, visible_to
from server.protocol.event import event_bytes
from tests.batching.scores.test_ranking import NOW, WINDOW, as_event, event
from tests.oracle import view as oracle

pytestmark = pytest.mark.pure
WEIGHTS = np.array([0.25, 0.20, 0.30, 0.15, 0.10])
MOMENT = (WEIGHTS, WINDOW.past_ms, WINDOW.ahead_ms)
USERS = ("ann", "bob", "cy", "stranger")
IDS = [f"e{i}" for i in range(5)]


@dataclass(slots=True)
class Model:
    """What the columns should hold."""

    columns: Columns = field(default_factory=Columns)
    events: dict[str, Event] = field(default_factory=dict)
    remembered: dict[str, int] = field(default_factory=dict)
    now_ms: int = NOW
    version: int = 0

    def put(self, one: Event) -> None:
        self.version += 1
        one = replace(one, version=self.version)
        slot = self.columns.put(one, self.now_ms)
        assert self.remembered.setdefault(one.id, slot) == slot
        self.events[one.id] = one

    def move(self, event_id: str) -> None:
        if event_id in self.events:
            self.put(replace(self.events[event_id], latitude=-self.events[event_id].latitude / 2 + 1))

    def publish(self, event_id: str, counts: tuple[int, int, int]) -> None:
        known = self.events.get(event_id)
        if known is None:
            assert not self.columns.publish(event_id, counts, 1 << 40)
            return
        assert not self.columns.publish(event_id, (9, 9, 9), known.version)
        self.version += 1
        assert self.columns.publish(event_id, counts, self.version)
        self.events[event_id] = replace(known, counts=counts, version=self.version)

    def remove(self, event_id: str) -> None:
        assert self.columns.remove(event_id) == (self.events.pop(event_id, None) is not None)

    def forget(self, held: list[str]) -> None:
        slots = np.array([self.remembered[i] for i in held if i in self.remembered], np.int32)
        gone = [i for i in self.remembered if i not in self.events and i not in held]
        assert self.columns.forget(slots) == len(gone)
        for one in gone:
            del self.remembered[one]

    def refresh(self, hours: float) -> None:
        self.now_ms += round(hours * HOUR_MS)
        self.columns.refresh(self.now_ms)

    def check(self) -> None:
        columns = self.columns
        assert len(columns) == len(self.events)
        for event_id, slot in self.remembered.items():
            assert columns.slot_of(event_id) == slot
            assert columns.id_of(slot) == event_id
            assert columns.exists(slot) == (event_id in self.events)
        for one in self.events.values():
            check_event(columns, one, self.now_ms)
        check_rows(columns)
        check_order(columns)
        for user in USERS:
            expected = {columns.slot_of(e.id) for e in self.events.values() if e.private and visible_to(e, user)}
            assert set(columns.private_slots(user).tolist()) == expected


def check_event(columns: Columns, one: Event, now_ms: int) -> None:
    """Everything that is to be had of an event."""
    slot = columns.slot_of(one.id)
    assert slot is not None
    assert columns.event(slot) == one
    assert columns.words(slot) == (one.title, one.categories, one.description)
    assert columns.mark(slot) == held_hash(one.id, one.version)
    as_oracle = {"start": one.start_ms, "end": one.end_ms, "recurrence": one.recurrence, "timezone": one.timezone}
    start, end = oracle.occurrence(as_oracle, now_ms)
    assert columns.starts(slot) == (start, end)
    world, row = columns.world, columns.world.row_of[slot]
    assert (world.start[row], world.end[row]) == (start, start if end is None else end)
    assert (world.latitude[row], world.longitude[row]) == (one.latitude, one.longitude)
    assert tuple(world.vector[:, row].tolist()) == unit_vector(one.latitude, one.longitude)
    assert world.created[row] == one.created_ms
    assert world.popularity[row] == popularity_term(one.counts)
    assert world.confidence[row] == confidence_term(one.confidence)
    assert bool(world.state[row] & kernel.SHOWN) == (one.status in SHOWN)
    assert bool(world.state[row] & kernel.PRIVATE) == one.private
    assert STATUSES[world.state[row] >> kernel.STATUS_SHIFT] == one.status
    assert columns.zones[world.zone[row]] == (one.timezone or "UTC")
    assert world.version[slot] == one.version


def check_rows(columns: Columns) -> None:
    """Slots and rows name each other; the sorted part is in the order of the curve."""
    world = columns.world
    ordered, used = world.sizes[:2].tolist()
    living = np.flatnonzero(world.slot[:used] >= 0)
    assert (world.row_of[world.slot[living]] == living).all()
    assert (world.row_of >= 0).sum() == len(living) == len(columns)
    assert used - ordered <= TAIL
    for name, array in world._asdict().items():
        assert array.flags.c_contiguous, name
    if kernel.NUMBA:
        curve = living[living < ordered]
        keys = kernel.hilbert(world.latitude[curve], world.longitude[curve])
        assert (keys[1:] >= keys[:-1]).all()


def check_order(columns: Columns) -> None:
    """Labels stand as ids do."""
    world = columns.world
    rows = np.flatnonzero(world.slot[: world.sizes[1]] >= 0)
    ids = [columns.id_of(slot) for slot in world.slot[rows[np.argsort(world.label[rows])]]]
    assert ids == sorted(ids)
    assert len(columns._labels) == len(ids)
    assert len(np.unique(world.label[rows])) == len(rows)


STEPS = st.one_of(
    st.tuples(st.just("put"), st.sampled_from(IDS).flatmap(event)),
    st.tuples(st.just("move"), st.sampled_from(IDS)),
    st.tuples(st.just("remove"), st.sampled_from(IDS)),
    st.tuples(st.just("publish"), st.sampled_from(IDS), st.tuples(*[st.sampled_from([0, 1, 3, 2**62])] * 3)),
    st.tuples(st.just("merge")),
    st.tuples(st.just("body"), st.sampled_from(IDS)),
    st.tuples(st.just("mark"), st.sampled_from(IDS)),
    st.tuples(st.just("forget"), st.lists(st.sampled_from(IDS), max_size=4)),
    st.tuples(st.just("refresh"), st.sampled_from([0, 0.5, 3, 24, 100])),
)


def take(model: Model, step: tuple[Any, ...]) -> None:
    kind, *rest = step
    if kind == "put":
        model.put(as_event(rest[0]))
    elif kind == "merge":
        model.columns.merge()
    elif kind in ("body", "mark"):
        if rest[0] in model.events:
            slot, one = model.remembered[rest[0]], model.events[rest[0]]
            expected = event_bytes(one) if kind == "body" else held_hash(one.id, one.version)
            assert getattr(model.columns, kind)(slot) == expected
    else:
        getattr(model, kind)(*rest)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(st.sampled_from(IDS).flatmap(event), max_size=8), st.lists(STEPS, min_size=5, max_size=40))
def test_after_any_history_the_columns_hold_what_was_published(
    first: list[dict[str, Any]], steps: list[tuple[Any, ...]]
) -> None:
    model = Model()
    for one in first:
        model.put(as_event(one))
    model.columns.merge()
    for step in steps:
        before = model.columns.generation
        take(model, step)
        assert model.columns.generation >= before
    model.check()
    model.columns.merge()
    model.check()
    assert model.columns.world.sizes[0] == model.columns.world.sizes[1] == len(model.events)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.tuples(*map(event, IDS)), st.lists(STEPS, max_size=10))
def test_what_is_noted_as_dirty_is_all_that_has_to_be_patched(
    first: tuple[dict[str, Any], ...], then: list[tuple[Any, ...]]
) -> None:
    model = Model()
    for one in first:
        model.put(as_event(one))
    model.columns.merge()
    kernel.prepare(model.columns.world, NOW, *MOMENT)
    model.columns.take_dirty()
    for step in then:
        if step[0] != "merge":
            take(model, step)
    kernel.patch(model.columns.world, model.columns.take_dirty(), NOW, *MOMENT)
    patched = [array.copy() for array in prepared(model.columns)]
    kernel.prepare(model.columns.world, NOW, *MOMENT)
    for got, expected in zip(patched, prepared(model.columns), strict=True):
        np.testing.assert_array_equal(got, expected)
    assert not len(model.columns.take_dirty())


def prepared(columns: Columns) -> list[Any]:
    world = columns.world
    nodes = world.sizes[2]
    return [world.base[: world.sizes[1]], world.live[:nodes], world.best[:nodes], world.least[:nodes]]


def page_of(events: list[Event]) -> Page:
    """As loading.py makes it."""
    ends = [e.end_ms is not None for e in events]
    counts = np.array([e.counts for e in events], np.int64).reshape(-1, 3)
    return Page(
        ids=[e.id for e in events],
        contents=[content.of_event(e) for e in events],
        latitude=np.array([e.latitude for e in events], np.float64),
        longitude=np.array([e.longitude for e in events], np.float64),
        start=np.array([e.start_ms for e in events], np.int64),
        end=np.array([e.start_ms if e.end_ms is None else e.end_ms for e in events], np.int64),
        ends=np.array(ends, np.bool_),
        created=np.array([e.created_ms for e in events], np.int64),
        stored=counts,
        published=counts,
        pending=np.zeros(len(events), np.bool_),
        confidence=np.array([np.nan if e.confidence is None else e.confidence for e in events], np.float64),
        status=np.array([STATUSES.index(e.status) for e in events], np.uint8),
        private=np.array([e.private for e in events], np.bool_),
        high=np.zeros(len(events), np.bool_),
        version=np.array([e.version for e in events], np.int64),
        zones=[e.timezone for e in events],
        recurrence={i: e.recurrence for i, e in enumerate(events) if e.recurrence is not None},
        people={i: (e.creator_id, e.shared_with) for i, e in enumerate(events) if e.private},
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(st.integers(0, 40).flatmap(lambda i: event(f"e{i:02d}")), max_size=20, unique_by=lambda e: e["id"]))
def test_pages_loaded_are_events_put(world: list[dict[str, Any]]) -> None:
    events = [replace(as_event(e), version=i + 1) for i, e in enumerate(world)]
    model = Model()
    half = len(events) // 2
    for part in (events[:half], events[half:]):
        model.columns.load(page_of(part), NOW)
    model.columns.merge()
    model.events = {e.id: e for e in events}
    model.check()
    model.refresh(30)
    model.check()
    for one in events[::2]:
        model.remove(one.id)
    model.put(Event("a new one", 1.0, 2.0, NOW))
    model.check()


def test_what_is_known_already_is_newer_than_a_page() -> None:
    columns = Columns()
    columns.put(Event("a", 1.0, 1.0, NOW, title="new", version=5), NOW)
    columns.put(Event("b", 1.0, 1.0, NOW, version=6), NOW)
    columns.remove("b")
    columns.load(page_of([Event(i, 0.0, 0.0, NOW, title="old", version=1, private=i != "c") for i in "abc"]), NOW)
    columns.load(page_of([Event("a", 0.0, 0.0, NOW)]), NOW)
    columns.merge()
    assert len(columns) == 2
    for event_id, title, slot in (("a", "new", 0), ("c", "old", 2)):
        assert columns.slot_of(event_id) == slot
        assert columns.event(slot).title == title
    assert not columns.exists(1)
    assert columns.private_slots("ann").tolist() == []


def test_events_may_be_put_while_pages_are_still_coming() -> None:
    columns = Columns()
    events = [Event(f"p{i:05d}", i / 100, 0.5, NOW, version=1) for i in range(2 * TAIL)]
    columns.load(page_of(events[:TAIL]), NOW)
    for i in (3, 4):
        columns.put(replace(events[i], latitude=-1.0, version=2), NOW)
    columns.load(page_of(events[TAIL:]), NOW)
    columns.put(Event("a new one", 0.0, 0.0, NOW, version=3), NOW)
    columns.remove("p00009")
    columns.merge()
    assert len(columns) == 2 * TAIL
    check_rows(columns)
    check_order(columns)


def test_a_full_tail_is_merged_before_it_grows() -> None:
    model = Model()
    chance = random.Random(4)
    for i in range(TAIL):
        model.columns.put(Event(f"e{i:04d}", chance.uniform(-90, 90), chance.uniform(-180, 180), NOW, version=1), NOW)
    assert (model.columns.merges, model.columns.merge_due) == (0, True)
    model.columns.put(Event("one more", 0.0, 0.0, NOW, version=1), NOW)
    assert (model.columns.merges, model.columns.merge_due) == (1, False)
    assert model.columns.world.sizes[:2].tolist() == [TAIL, TAIL + 1]
    check_rows(model.columns)
    check_order(model.columns)


def test_a_moving_event_leaves_one_tombstone_however_often_it_moves() -> None:
    columns = Columns()
    for i in range(300):
        columns.put(Event(f"e{i}", 0.0, 0.0, NOW, version=1), NOW)
    assert columns.merge_due
    columns.merge()
    assert not columns.merge_due
    for i in range(50):
        columns.put(Event("e7", 1.0 + i, 0.0, NOW, version=2 + i), NOW)
    assert columns.world.sizes[:2].tolist() == [300, 301]
    assert len(columns) == 300


def test_an_event_that_stays_where_it_is_keeps_its_row() -> None:
    columns = Columns()
    slot = columns.put(Event("a", 10.0, 20.0, NOW, version=1), NOW)
    columns.merge()
    row = columns.world.row_of[slot]
    columns.take_dirty()
    columns.put(Event("a", 10.0, 20.0, NOW + 5, version=2, title="other", status="REJECTED"), NOW)
    assert columns.world.row_of[slot] == row
    assert columns.take_dirty().tolist() == [row]
    columns.publish("a", (1, 0, 0), 3)
    assert columns.take_dirty().tolist() == [row]
    assert columns.world.sizes[:2].tolist() == [1, 1]


def test_many_tombstones_make_a_merge_due() -> None:
    columns = Columns()
    for i in range(1000):
        columns.put(Event(f"e{i}", 0.0, 0.0, NOW, version=1), NOW)
    columns.merge()
    for i in range(251):
        columns.remove(f"e{i}")
    assert not columns.merge_due
    for i in range(251, 260):
        columns.remove(f"e{i}")
    assert columns.merge_due
    columns.merge()
    assert not columns.merge_due
    assert columns.world.sizes[:2].tolist() == [740, 740]


def test_a_slot_is_used_again_only_when_nobody_holds_it() -> None:
    columns = Columns()
    slots = {i: columns.put(Event(i, 0.0, 0.0, NOW, version=1), NOW) for i in "abc"}
    for event_id in "ab":
        assert columns.remove(event_id)
        assert not columns.remove(event_id)
    assert columns.put(Event("d", 0.0, 0.0, NOW, version=1), NOW) == 3
    assert columns.forget(np.array([slots["a"], slots["c"]], np.int32)) == 1
    assert columns.slot_of("b") is None
    assert columns.id_of(slots["a"]) == "a"
    assert columns.put(Event("e", 0.0, 0.0, NOW, version=9), NOW) == slots["b"]
    assert columns.mark(slots["b"]) == held_hash("e", 9)
    assert columns.put(Event("a", 0.0, 0.0, NOW, version=2), NOW) == slots["a"]
    assert columns.forget(np.empty(0, np.int32)) == 0


def test_marks_are_made_for_those_who_have_none() -> None:
    columns = Columns()
    slots = np.array([columns.put(Event(f"e{i}", 0.0, 0.0, NOW, version=i), NOW) for i in range(9)], np.int32)
    columns.ensure_marks(slots[:5])
    assert columns.world.mark[slots[:5]].tolist() == [held_hash(f"e{i}", i) for i in range(5)]
    assert not columns.world.mark[slots[5:]].any()
    columns.publish("e3", (1, 1, 1), 70)
    assert columns.mark(slots.item(3)) == held_hash("e3", 70)


def test_a_body_is_made_once_per_version() -> None:
    columns = Columns()
    slot = columns.put(Event("a", 0.0, 0.0, NOW, version=1), NOW)
    assert columns.body(slot) is columns.body(slot)
    before = columns.body(slot)
    columns.publish("a", (1, 2, 3), 2)
    assert columns.body(slot) == event_bytes(Event("a", 0.0, 0.0, NOW, counts=(1, 2, 3), version=2)) != before


def test_a_daily_event_moves_on_and_its_version_stays() -> None:
    columns = Columns()
    one = Event("a", 0.0, 0.0, NOW, end_ms=NOW + HOUR_MS, recurrence="FREQ=DAILY", version=3)
    slot = columns.put(one, NOW)
    columns.merge()
    for hours in (0, 0.5, 1, 23, 24, 24.5, 25, 200):
        columns.refresh(NOW + round(hours * HOUR_MS))
        expected = oracle.occurrence(
            {"start": NOW, "end": NOW + HOUR_MS, "recurrence": "FREQ=DAILY"}, NOW + round(hours * HOUR_MS)
        )
        assert columns.starts(slot) == expected
    assert columns.event(slot) == one
    assert columns.take_dirty().tolist() == [0]


def test_a_recurring_event_that_is_gone_moves_on_no_more() -> None:
    columns = Columns()
    columns.put(Event("a", 0.0, 0.0, NOW, recurrence="FREQ=DAILY", version=1), NOW)
    columns.put(Event("b", 0.0, 0.0, NOW, recurrence="FREQ=DAILY", version=1), NOW)
    columns.remove("a")
    columns.take_dirty()
    columns.refresh(NOW + HOUR_MS)
    assert columns.take_dirty().tolist() == [1]
    columns.forget(np.empty(0, np.int32))
    generation = columns.generation
    columns.refresh(NOW + 2 * HOUR_MS)
    assert columns.generation == generation


def test_an_event_that_should_never_have_been_let_in_changes_nothing() -> None:
    model = Model()
    model.put(Event("a", 1.0, 0.0, NOW))
    for bad in (Event("b", 0.0, 0.0, NOW, recurrence="FREQ=NEVER"), Event("a", 0.0, 0.0, NOW, title="\ud800")):
        with pytest.raises((ValueError, TypeError)):
            model.columns.put(bad, NOW)
    model.check()
    assert model.columns.slot_of("b") is None


def test_a_recurring_event_that_is_put_often_leaves_few_notes() -> None:
    columns = Columns()
    for i in range(2000):
        columns.put(Event("a", 0.0, 0.0, NOW + i, recurrence="FREQ=DAILY", version=i), NOW)
    assert len(columns._turning) < 2 * columns_module.SOME
    columns.put(Event("a", 0.0, 0.0, NOW, version=3000), NOW)
    columns.refresh(NOW + 99 * 24 * HOUR_MS)
    assert columns.starts(0) == (NOW, None)
    assert (columns._turning, columns._turn) == ([], {})


def test_capacity_grows_and_keeps_every_event() -> None:
    model = Model()
    model.columns.load(page_of([Event(f"p{i:05d}", i / 100, 0.5, NOW, version=1) for i in range(5000)]), NOW)
    model.columns.merge()
    for i in range(3000):
        model.columns.put(Event(f"e{i:04d}", -i / 100, 0.5, NOW, version=1), NOW)
    model.columns.merge()
    check_rows(model.columns)
    check_order(model.columns)
    columns = model.columns
    for i in range(0, 5000, 97):
        assert columns.event(columns.slot_of(f"p{i:05d}") or 0).latitude == i / 100


def test_what_was_put_is_noted_for_those_who_index_words() -> None:
    columns = Columns()
    columns.put(Event("a", 0.0, 0.0, NOW, version=1), NOW)
    columns.put(Event("b", 0.0, 0.0, NOW, version=1), NOW)
    columns.publish("a", (1, 0, 0), 2)
    noted = columns.take_reworded()
    assert noted is not None
    assert noted.tolist() == [0, 1]
    columns.publish("a", (2, 0, 0), 3)
    columns.remove("b")
    assert columns.take_reworded() is not None
    columns.load(page_of([Event("c", 0.0, 0.0, NOW)]), NOW)
    assert columns.take_reworded() is None
