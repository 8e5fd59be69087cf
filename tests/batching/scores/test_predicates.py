"""Compiled filters let through what `question.passes` does, for every event in view, after any changes."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.batching.scores import kernel, predicates
from server.batching.scores.columns import Columns
from server.batching.scores.kernel import Clauses, World
from server.batching.scores.predicates import PREDICATES, SAID_MOST, TESTS_MOST, Compiler, slots_in
from server.batching.scores.question import Question, Window, admits, day_start_ms, in_viewport, passes
from server.batching.scores.ranking import candidate_rows
from server.batching.scores.score import HOUR_MS
from server.core.event import STATUSES, Event
from server.protocol.values import Filter, Location, Viewport
from tests.batching.scores.test_columns import page_of
from tests.batching.scores.test_ranking import LATITUDES, LONGITUDES, NOW, as_event, event, viewports

pytestmark = pytest.mark.pure
WORLD = Viewport(west=-180, south=-90, east=180, north=90)
TAGS = ["music", "art", "food", "Straße"]
STAMPS = st.none() | st.sampled_from(["2026-09-20", "2026-09-21", "2026-09-22", "0001-01-01", "9999-12-31"])
TIMES = STAMPS | st.sampled_from([NOW - HOUR_MS, NOW, NOW + HOUR_MS, NOW + 30 * HOUR_MS])


@st.composite
def filters(draw: st.DrawFn) -> dict[str, Any]:
    one: dict[str, Any] = {}
    if draw(st.booleans()):
        one["categories"] = {
            "include": draw(st.lists(st.sampled_from(TAGS), max_size=2)),
            "exclude": draw(st.lists(st.sampled_from(TAGS), max_size=2)),
        }
    if draw(st.booleans()):
        one["text"] = draw(st.sampled_from(["", " ", "jazz", "NIGHT jazz", "strasse", "STRAßE", "zzz", "music\nfair"]))
    if draw(st.booleans()):
        one["status"] = draw(st.lists(st.sampled_from(STATUSES), max_size=3))
    if draw(st.booleans()):
        radius = draw(st.sampled_from([0, 1, 500, 2000, 100_000, 30_000_000]))
        one["location"] = {"latitude": draw(LATITUDES), "longitude": draw(LONGITUDES), "radius": radius}
    if draw(st.booleans()):
        span = {"start": draw(TIMES), "end": draw(TIMES)}
        if type(span["start"]) is not type(span["end"]) or span["start"] is None or span["start"] <= span["end"]:
            one["dateRange"] = span
    return one


ASKED = st.builds(
    lambda view, wanted, user, limit: Question(
        Viewport.model_validate(view), tuple(Filter.model_validate(f) for f in wanted), None, user, limit
    ),
    viewports(),
    st.lists(filters(), max_size=3),
    st.sampled_from([None, "ann", "bob"]),
    st.integers(1, 500),
)
STEP = st.one_of(
    st.tuples(st.just("put"), st.integers(0, 15).flatmap(lambda i: event(f"e{i:02d}"))),
    st.tuples(st.just("remove"), st.integers(0, 15).map("e{:02d}".format)),
    st.tuples(st.just("ask"), st.lists(ASKED, min_size=1, max_size=4)),
    st.sampled_from([("merge",), ("forget",), ("publish",)]),
)


def lets_through(clauses: Clauses, number: int, world: World, slot: int) -> bool:
    """Filter `number`, as the kernel reads it, in plain Python."""
    if number < 0:
        return True
    row = world.row_of[slot]
    return any(_clause(clauses, c, world, slot, row) for c in range(clauses.first[number], clauses.first[number + 1]))


def _clause(clauses: Clauses, c: int, world: World, slot: int, row: int) -> bool:
    zone, place = world.zone[row], clauses.place[c]
    apart = [(place[i] - world.vector[i, row]) ** 2 for i in range(3)]
    return bool(
        clauses.status[c] >> (world.state[row] >> kernel.STATUS_SHIFT) & 1
        and (place[3] < 0 or apart[0] + apart[1] + apart[2] <= place[3])
        and clauses.begins[c, zone] <= world.end[row]
        and clauses.ends[c, zone] >= world.start[row]
        and all(b < 0 or clauses.bits[b, slot >> 3] >> (slot & 7) & 1 for b in clauses.bitmap[c])
    )


def check(columns: Columns, compiler: Compiler, asked: list[Question]) -> None:
    records, clauses, private = compiler.questions(asked)
    world = columns.world
    slots = world.slot[: world.sizes[1]]
    events = [(slot, columns.event(slot), columns.starts(slot)) for slot in slots[slots >= 0].tolist()]
    for one, record in zip(asked, records, strict=True):
        for slot, known, when in events:
            if in_viewport(one.viewport, known.latitude, known.longitude):
                expected = passes(one.filters, known, *when)
                assert lets_through(clauses, int(record["filter"]), world, slot) == expected
        first, count = record["private_first"], record["private_count"]
        seen = [] if one.user is None else columns.private_slots(one.user).tolist()
        assert private[first : first + count].tolist() == seen
        view = one.viewport
        assert record.item()[:8] == (view.west, view.south, view.east, view.north, *one.origin(), one.limit)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(STEP, max_size=14), st.lists(ASKED, min_size=1, max_size=4))
def test_compiled_filters_are_what_question_says_after_any_changes(
    steps: list[tuple[Any, ...]], last: list[Question]
) -> None:
    columns = Columns()
    compiler = Compiler(columns)
    for number, (kind, *rest) in enumerate(steps):
        if kind == "put":
            columns.put(replace(as_event(rest[0]), version=number + 1), NOW)
        elif kind == "remove":
            columns.remove(rest[0])
        elif kind == "ask":
            check(columns, compiler, rest[0])
        elif kind == "merge":
            columns.merge()
        elif kind == "forget":
            columns.forget(np.empty(0, np.int32))
        else:
            columns.publish("e03", (1, 2, 3), number + 1)
    check(columns, compiler, last)
    check(columns, compiler, last[::-1])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.lists(viewports(), min_size=1, max_size=8), st.sampled_from([0, 1, 31, 33, 600, 3000]))
def test_the_slots_in_a_viewport_are_found_by_the_tree(seed: int, views: list[dict[str, float]], count: int) -> None:
    chance = np.random.default_rng(seed)
    columns = Columns()
    spread = chance.choice([0.01, 1.0, 60.0, 180.0], count)
    longitude = np.clip(chance.normal(0, 1, count) * spread + chance.choice([0.0, 179.0, -179.0], count), -180, 180)
    latitude = np.clip(chance.normal(0, 30, count), -90, 90)
    places = list(zip(latitude.tolist(), longitude.tolist(), strict=True))
    events = [Event(f"e{i}", lat, lon, NOW, version=1) for i, (lat, lon) in enumerate(places)]
    columns.load(page_of(events), NOW)
    columns.merge()
    for one in events[: count // 10]:
        columns.remove(one.id)
    columns.put(Event("late", 0.0, 179.9, NOW, version=1), NOW)
    for given_view in views:
        view = Viewport.model_validate(given_view)
        found = slots_in(columns.world, (view.west, view.south, view.east, view.north))
        alive = [*events[count // 10 :], Event("late", 0.0, 179.9, NOW)]
        expected = [columns.slot_of(e.id) for e in alive if in_viewport(view, e.latitude, e.longitude)]
        assert sorted(found.tolist()) == sorted(slot for slot in expected if slot is not None)


def test_a_bare_date_is_the_local_day_of_each_event_to_the_millisecond() -> None:
    columns = Columns()
    compiler = Compiler(columns)
    asked = [
        Question(WORLD, (Filter.model_validate({"dateRange": span}),))
        for day in ("2026-03-29", "2026-10-25")
        for span in ({"start": day}, {"end": day}, {"start": day, "end": day})
    ]
    number = 0
    # Zones come one by one: bounds made for fewer of them must not stay.
    for zone in (None, "Europe/Berlin", "Asia/Kolkata", "Pacific/Auckland", "America/New_York"):
        for day in ("2026-03-29", "2026-03-30", "2026-10-25", "2026-10-26"):
            midnight = day_start_ms(day, zone)
            for start, end in ((-1, None), (0, None), (-(10**8), -1), (-(10**8), 0), (-(10**8), 10**9)):
                begins, ends = midnight + start, None if end is None else midnight + end
                number += 1
                columns.put(Event(f"e{number}", 0.0, 0.0, begins, end_ms=ends, timezone=zone, version=1), NOW)
        check(columns, compiler, asked)


ONE_BY_ONE = [
    *(
        {"text": text}
        for text in ("jazz", "JAZZ night", "strasse", "STRAßE", "straße", "evening", "t\na", "", "ght mus")
    ),
    *({"categories": {"include": one}} for one in (["music"], ["Music"], ["absent"], ["absent", "art"], [])),
    *({"categories": {"exclude": one}} for one in (["music"], ["absent"], [])),
    {"categories": {"include": ["music"], "exclude": ["art"]}},
    {"categories": {"include": ["music"]}, "text": "straße"},
    *({"status": one} for one in (["PENDING"], ["REJECTED", "EXPIRED"], [])),
    *({"location": {"latitude": 1, "longitude": 2, "radius": radius}} for radius in (0, 157_000, 158_000, 2e7)),
    *({"dateRange": {"start": at}} for at in (NOW, NOW + 1, NOW + HOUR_MS, NOW + HOUR_MS + 1)),
    *({"dateRange": {"end": at}} for at in (NOW - 1, NOW, NOW + HOUR_MS - 1)),
]


@pytest.mark.parametrize("wanted", ONE_BY_ONE)
def test_each_kind_of_filter_alone(wanted: dict[str, Any]) -> None:
    columns = Columns()
    texts = [("Jazz Night", ("music", "art"), None), ("Straße", ("art",), "in the EVENING"), ("", (), "jazz")]
    number = 0
    for title, categories, description in texts:
        for status in STATUSES:
            for end in (None, NOW + HOUR_MS):
                number += 1
                one = Event(f"e{number}", 1.0, 2.0, NOW, title, None, description, categories, end, status=status)
                columns.put(replace(one, version=1), NOW)
                columns.put(replace(one, id=f"far {number}", latitude=2.0, longitude=3.0, version=1), NOW)
    question = Question(WORLD, (Filter.model_validate(wanted),))
    check(columns, Compiler(columns), [question])
    window = Window(0, 1)
    slots = [
        slot
        for slot in range(len(columns))
        if admits(question, columns.event(slot), *columns.starts(slot), window, NOW)
    ]
    rows = candidate_rows(columns, question, window, NOW)
    assert sorted(columns.world.slot[rows].tolist()) == slots


def says(*words: str) -> Question:
    return Question(WORLD, tuple(Filter(text=word) for word in words))


def test_more_predicates_than_are_kept_are_right_at_once_and_go_again() -> None:
    columns = Columns()
    compiler = Compiler(columns)
    for i in range(20):
        columns.put(Event(f"e{i}", 0.0, float(i), NOW, title=f"w{i} w{i * 7 % 20}x", version=1), NOW)
    for begin in (0, 100, 37):
        check(columns, compiler, [says(f"w{i % 23}x", f"t{i}") for i in range(begin, begin + PREDICATES)])
        columns.put(Event("e3", 0.0, 3.0, NOW, title=f"t{begin + 5}", version=begin + 2), NOW)
    for begin in range(0, 2 * PREDICATES, 40):
        check(columns, compiler, [says(f"w{i % 23}x", f"t{i}") for i in range(begin, begin + 60)])
        assert len(compiler._bitmaps._rows) <= PREDICATES
    assert len(compiler._bitmaps.bits) == PREDICATES


def test_more_changes_than_are_tested_at_once_are_asked_about_later() -> None:
    columns = Columns()
    compiler = Compiler(columns)
    changed = TESTS_MOST // 200 + 1
    for i in range(changed + 20):
        columns.put(Event(f"e{i}", 0.0, i / 10, NOW, title=f"w{i % 50}", version=1), NOW)
    asked = [says(f"w{i}") for i in range(200)]
    check(columns, compiler, asked)
    for i in range(changed):
        columns.put(Event(f"e{i}", 0.0, i / 10, NOW, title=f"w{(i + 1) % 50}", version=2), NOW)
    check(columns, compiler, asked[:3])
    columns.put(Event("e119", 0.0, 0.0, NOW, title="w7 w8 w9", version=2), NOW)
    check(columns, compiler, asked)


def test_an_event_that_moves_into_view_is_asked_about() -> None:
    columns = Columns()
    compiler = Compiler(columns)
    near = Viewport(west=0, south=0, east=1, north=1)
    asked = [Question(near, (Filter(text="jazz"),))]
    columns.put(Event("a", 50.0, 50.0, NOW, title="Jazz", version=1), NOW)
    check(columns, compiler, asked)
    columns.put(Event("a", 0.5, 0.5, NOW, title="Jazz", version=2), NOW)
    check(columns, compiler, asked)
    for i in range(2000):
        columns.put(Event(f"e{i}", 0.5, 0.5, NOW, title="jazz" * (i % 2), version=1), NOW)
    check(columns, compiler, asked)


def test_an_event_that_came_and_went_and_was_forgotten_between_two_questions_is_not_asked_about() -> None:
    columns = Columns()
    compiler = Compiler(columns)
    asked = [says("jazz")]
    columns.put(Event("a", 0.5, 0.5, NOW, title="Jazz", version=1), NOW)
    check(columns, compiler, asked)
    columns.put(Event("b", 0.5, 0.5, NOW, title="Jazz", version=2), NOW)
    columns.put(Event("c", 0.5, 0.5, NOW, title="Jazz", version=3), NOW)
    columns.remove("b")
    columns.forget(np.empty(0, np.int32))
    check(columns, compiler, asked)
    columns.put(Event("d", 0.5, 0.5, NOW, title="Rock", version=4), NOW)
    check(columns, compiler, asked)


def test_pages_that_are_loaded_later_are_asked_about() -> None:
    columns = Columns()
    compiler = Compiler(columns)
    asked = [says("jazz"), says("w3")]
    for begin in (0, 10, 3000):
        events = [Event(f"e{i}", 0.0, i / 100, NOW, title=f"w{i % 9} jazz", version=1) for i in range(begin, begin + 9)]
        columns.load(page_of(events), NOW)
        check(columns, compiler, asked)
        columns.merge()
        check(columns, compiler, asked)


def test_categories_of_many_events_are_told_at_a_glance_and_right() -> None:
    columns = Columns()
    compiler = Compiler(columns)
    tags = ["music", "mus", 'say "hi"', "back\\slash", "Straße", "new\nline", "🎷", "categories"]
    chance = random.Random(3)
    events = [
        Event(f"music{i}", 0.0, 1.0, NOW, title="music art", categories=tuple(chance.sample(tags, i % 3)), version=1)
        for i in range(SAID_MOST // 4 + 2)
    ]
    columns.load(page_of(events), NOW)
    columns.merge()
    wanted = [{"include": [tag]} for tag in tags] + [{"exclude": [tag]} for tag in tags]
    wanted += [{"include": ["mus", "absent"], "exclude": ["music"]}, {"include": ["absent"], "exclude": ["music"]}]
    asked = [Question(WORLD, (Filter.model_validate({"categories": one}),)) for one in wanted]
    _, clauses, _ = compiler.questions(asked)
    for number, question in enumerate(asked):
        for slot, one in enumerate(events):
            expected = passes(question.filters, one, one.start_ms, one.end_ms)
            assert bool(clauses.bits[clauses.bitmap[number, 0], slot >> 3] >> (slot & 7) & 1) == expected


def test_much_to_ask_can_be_asked_in_parts() -> None:
    columns = Columns()
    compiler = Compiler(columns)
    for i in range(100):
        columns.put(Event(f"e{i}", 0.0, float(i), NOW, title=f"w{i % 7}", version=1), NOW)
    asked = [says("w3"), says("w4"), Question(WORLD)]
    parts = 1
    while not compiler.ready(asked, 30):
        parts += 1
        columns.put(Event("e1", 0.0, 0.0, NOW, title="w3", version=parts), NOW)
    assert parts == 7
    assert int(np.unpackbits(compiler._bitmaps._known).sum()) == 200
    check(columns, compiler, asked)
    assert compiler.ready(asked, 0)
    assert compiler.ready([Question(WORLD)], 0)


def test_what_lies_out_of_view_is_not_decoded() -> None:
    columns = Columns()
    compiler = Compiler(columns)
    for i in range(100):
        columns.put(Event(f"e{i}", 0.0, float(i), NOW, title="x", version=1), NOW)
    compiler.questions([Question(Viewport(west=0, south=-1, east=9, north=1), (Filter(text="x"),))])
    assert int(np.unpackbits(compiler._bitmaps._known).sum()) == 10


def test_nobody_asking_makes_empty_arrays_of_the_right_shape() -> None:
    records, clauses, private = Compiler(Columns()).questions([])
    assert (len(records), records.dtype) == (0, kernel.QUESTION)
    assert (clauses.first.tolist(), clauses.place.shape, clauses.begins.shape) == ([0], (0, 4), (0, 1))
    assert (clauses.bitmap.shape, clauses.bits.ndim, private.dtype) == ((0, 2), 2, np.int32)
    near = Question(WORLD, location=Location(latitude=1, longitude=2))
    records, *_ = Compiler(Columns()).questions([near])
    assert records["filter"].tolist() == [-1]


def test_equal_words_are_one_predicate() -> None:
    columns = Columns()
    compiler = Compiler(columns)
    columns.put(Event("a", 0.0, 0.0, NOW, title="Night jazz", version=1), NOW)
    compiler.questions([says("jazz night"), says("NIGHT  Jazz jazz")])
    assert len(compiler._bitmaps._rows) == 1
    assert predicates.clause_of(Filter(text=" ")).saying is None
