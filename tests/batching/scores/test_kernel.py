"""The compiled path equals the oracle, the difference's law and its own definitions: everywhere, whatever the shape."""

from __future__ import annotations

import itertools
import math
import random
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.batching.scores import kernel
from server.batching.scores.score import HOUR_MS, chord2_of_km
from tests.batching.scores.arrays import WEIGHTS, Asked, asked_of, world_of, write
from tests.batching.scores.test_ranking import NOW, events, questions
from tests.oracle import view as oracle
from tests.oracle.difference import Held, Shown, apply, difference

pytestmark = pytest.mark.pure
WINDOW = (24 * HOUR_MS, 720 * HOUR_MS)
CALM = [HealthCheck.too_slow, HealthCheck.data_too_large]
SHAPES = ("city", "venue", "grid", "wide", "poles", "seam", "equal")


def ranked(
    world: kernel.World, asked: Asked, spacing: float, *, prepared: bool, now: int = NOW
) -> tuple[kernel.Ranked, list[list[int]]]:
    """The answer, and the slots of each view."""
    if prepared:
        kernel.prepare(world, now, WEIGHTS, *WINDOW)
    squared = chord2_of_km(spacing) if spacing > 0 else 0.0
    out = kernel.rank(world, *asked, now, WEIGHTS, *WINDOW, squared, prepared)
    views = [world.slot[out.row[a:b]].tolist() for a, b in zip(out.first[:-1], out.first[1:], strict=True)]
    return out, views


def check(
    plain: list[dict[str, Any]], world: kernel.World, wanted: list[dict[str, Any]], spacing: float, *, prepared: bool
) -> None:
    """Every question's view, scores and count are the oracle's."""
    asked = asked_of(wanted, plain)
    out, views = ranked(world, asked, spacing, prepared=prepared)
    for i, question in enumerate(wanted):
        expected = oracle.view(plain, question, NOW, spacing)
        assert [plain[slot]["id"] for slot in views[i]] == [e["id"] for e, _ in expected]
        scores = out.score[out.first[i] : out.first[i + 1]].tolist()
        assert scores == pytest.approx([s for _, s in expected], abs=1e-9)
        raws = out.raw[out.first[i] : out.first[i + 1]].tolist()
        assert raws == [oracle.raw(e, question, NOW) for e, _ in expected]
        assert out.candidates[i] == len(oracle.candidates(plain, question, NOW))


def place(chance: random.Random, shape: str, i: int) -> tuple[float, float]:
    """Where the i-th event of a shape lies."""
    if shape == "city":
        return chance.gauss(0, 0.15), chance.gauss(0, 0.15)
    if shape == "venue":
        return (0.001, 0.001) if i % 2 else (chance.uniform(-0.3, 0.3), chance.uniform(-0.3, 0.3))
    if shape == "poles":
        return chance.choice([-1, 1]) * chance.choice([90, chance.uniform(88, 90)]), chance.uniform(-180, 180)
    if shape == "seam":
        longitude = 180 - abs(chance.gauss(0, 0.5))
        return chance.gauss(0, 0.4), chance.choice([-1, 1]) * longitude
    if shape in ("grid", "equal"):
        return (i // 40) * 0.01, (i % 40) * 0.01
    return math.degrees(math.asin(chance.uniform(-1, 1))), chance.uniform(-180, 180)


def crowd(count: int, shape: str, seed: int) -> list[dict[str, Any]]:
    """Many events from a seed; "equal" and "grid" are full of ties."""
    chance = random.Random(f"{shape}{seed}")
    ids = [f"e{i:05d}" for i in range(count)]
    chance.shuffle(ids)
    made = []
    for i, event_id in enumerate(ids):
        latitude, longitude = place(chance, shape, i)
        even = shape == "equal"
        made.append(
            {
                "id": event_id,
                "latitude": latitude,
                "longitude": longitude,
                "start": NOW + (3 if even else round(chance.uniform(-26, 760) * 3600) * 1000 + 7),
                "end": None,
                "timezone": None,
                "status": "VERIFIED" if even else chance.choice(["VERIFIED", "VERIFIED", "PENDING", "REJECTED"]),
                "scan": 0 if even else chance.randrange(12),
                "save": 0 if shape in ("grid", "equal") else chance.randrange(6),
                "rsvp": 0 if shape in ("grid", "equal") else chance.randrange(4),
                "created": NOW - (0 if even else chance.randrange(200) * HOUR_MS),
                "confidence": None if shape in ("grid", "equal") else chance.choice([None, 0, chance.random()]),
                "private": not even and chance.random() < 0.08,
                "creator": chance.choice([None, "ann"]),
                "shared": [],
                "categories": chance.choice([[], ["music"]]),
                "title": "Jazz",
                "recurrence": None,
            }
        )
    return made


def looks(shape: str, seed: int) -> list[dict[str, Any]]:
    """Questions that suit a shape: narrow, broad, everything, across the antimeridian; small and large cuts."""
    chance = random.Random(seed)
    frames = {
        "poles": [(-180, 80, 180, 90), (-180, -90, 0, -89)],
        "seam": [(179.5, -1, -179.5, 1), (179.9, -0.3, -170, 0.3), (-179.8, -1, 179.8, 1)],
    }.get(shape, [(-0.1, -0.1, 0.2, 0.1), (-0.5, -0.5, 0.5, 0.5), (0.1, -1, -0.1, 1), (3, 3, 3.1, 3.1)])
    found = []
    for west, south, east, north in [*frames, (-180, -90, 180, 90)]:
        near = chance.choice([None, {"latitude": 0.05, "longitude": 0.1}, {"latitude": 90, "longitude": 0}])
        viewport = {"west": west, "south": south, "east": east, "north": north}
        filters = chance.choice([[], [], [{"categories": {"include": ["music"]}}], [{"status": ["PENDING"]}]])
        found.append(
            {
                "viewport": viewport,
                "filters": filters,
                "location": near,
                "user": chance.choice([None, "ann"]),
                "maxEvents": chance.choice([1, 2, 7, 50, 500]),
            }
        )
    return found


@settings(max_examples=60, deadline=None, suppress_health_check=CALM)
@given(
    events(),
    st.lists(questions(), min_size=1, max_size=3),
    st.sampled_from([0.0, 0.5, 200.0]),
    st.integers(0, 40),
    st.integers(0, 3),
    st.booleans(),
)
def test_a_view_equals_the_oracles(
    plain: list[dict[str, Any]], wanted: list[dict[str, Any]], spacing: float, tail: int, holes: int, prepared: bool
) -> None:
    check(plain, world_of(plain, NOW, tail=tail, holes=holes), wanted, spacing, prepared=prepared)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("count", "prepared"), [(31, True), (33, False), (400, True), (400, False)])
def test_views_of_many_events_equal_the_oracles(shape: str, count: int, prepared: bool) -> None:
    plain = crowd(count, shape, count)
    for spacing, tail, holes in ((0.5, 0, 0), (0.0, 45, 9), (200.0, 600, 3)):
        world = world_of(plain, NOW, tail=tail, holes=holes)
        check(plain, world, looks(shape, count), spacing, prepared=prepared)


@pytest.mark.parametrize("shape", SHAPES)
def test_what_waits_in_the_queue_as_nodes_gives_the_same_as_the_oracle(shape: str) -> None:
    plain = crowd(3400, shape, 1)
    wanted = [q | {"filters": []} for q in looks(shape, 1)]
    world = world_of(plain, NOW, tail=70, holes=20)
    kernel.prepare(world, NOW, WEIGHTS, *WINDOW)
    assert world.live[: world.first[1]].sum() >= kernel.WIDE, "else no node would wait"
    asked = asked_of(wanted[-1:] * 6, plain)
    for record, limit in zip(asked[0], (1, 50, 2, 500, 500, 50), strict=True):
        record["limit"] = limit
    _, views = ranked(world, asked, 0.5, prepared=True)
    longest = max(views, key=len)
    assert [len(v) for v in views] == [min(n, len(longest)) for n in (1, 50, 2, 500, 500, 50)]
    assert all(v == longest[: len(v)] for v in views)
    check(plain, world, wanted[-1:], 0.5, prepared=True)


def test_a_question_far_from_the_one_before_is_not_cut_by_its_scores() -> None:
    plain = crowd(3400, "city", 4)
    broad = looks("city", 1)[-1] | {"filters": [], "user": None, "maxEvents": 50}
    places = [{"latitude": 0, "longitude": 0}, {"latitude": 0, "longitude": 170}, {"latitude": 0.1, "longitude": 0}]
    check(plain, world_of(plain, NOW), [broad | {"location": one} for one in places], 0.5, prepared=True)


def test_a_slot_that_is_no_longer_private_is_not_counted_twice() -> None:
    plain = crowd(300, "city", 4)
    world = world_of(plain, NOW)
    table, clauses, private = asked_of(looks("city", 1), plain)
    _, views = ranked(world, (table, clauses, private), 0.5, prepared=True)
    stale = np.array([i for i, e in enumerate(plain) if not e["private"]], np.int32)
    table["private_first"], table["private_count"] = 0, len(stale)
    out, again = ranked(world, (table, clauses, stale), 0.5, prepared=True)
    public = [e | {"private": True, "creator": None} if e["private"] else e for e in plain]
    wanted = [len(oracle.candidates(public, q, NOW)) for q in looks("city", 1)]
    assert out.candidates.tolist() == wanted and len(again) == len(views)


def test_a_thousand_events_in_one_venue_are_one_in_view_and_all_of_them_count() -> None:
    plain = crowd(3000, "venue", 2)
    wanted = looks("venue", 3)
    check(plain, world_of(plain, NOW), wanted[1:2], 0.5, prepared=True)


@pytest.mark.parametrize("places", [1, 4])
def test_thousands_of_events_in_a_few_places_are_walked_to_their_end(places: int) -> None:
    """Fewer are in view than were asked for, though thousands wait as nodes; some of those have nobody on the map."""
    plain = [
        event
        | {"latitude": i % places * 0.02, "longitude": 0.0, "status": "REJECTED" if i % places == 3 else "VERIFIED"}
        for i, event in enumerate(crowd(kernel.WIDE + 900, "equal", 5))
    ]
    wanted = [looks("city", 1)[-1] | {"filters": [], "user": None, "maxEvents": n} for n in (50, 500)]
    check(plain, world_of(plain, NOW, tail=5), wanted, 0.5, prepared=True)


def test_many_questions_are_answered_in_their_order() -> None:
    plain = crowd(500, "city", 3)
    wanted = looks("city", 4) * 12
    world = world_of(plain, NOW)
    _, views = ranked(world, asked_of(wanted, plain), 0.5, prepared=True)
    assert views == [v for q in wanted for v in ranked(world, asked_of([q], plain), 0.5, prepared=True)[1]]


@pytest.mark.parametrize("shape", SHAPES)
def test_boxes_and_balls_hold_all_that_lives_in_their_nodes(shape: str) -> None:
    plain = crowd(1200, shape, 9)
    world = world_of(plain, NOW)
    span = kernel.LEAF
    for level in range(int(world.sizes[3])):
        for node in range(world.first[level], world.first[level + 1]):
            low = (node - world.first[level]) * span
            rows = slice(low, min(low + span, 1200))
            west, south, east, north = world.box[node]
            assert west == world.longitude[rows].min() and east == world.longitude[rows].max()
            assert south == world.latitude[rows].min() and north == world.latitude[rows].max()
            chords = np.sqrt(((world.vector[:, rows] - world.ball[node, :3, None]) ** 2).sum(axis=0))
            assert chords.max() <= world.ball[node, 3] <= chords.max() + 1e-9
        span *= kernel.FANOUT
    assert world.first[world.sizes[3]] == world.sizes[2] == kernel.nodes_for(1200)


@pytest.mark.parametrize("tail", [0, 120])
def test_a_patched_world_is_the_world_prepared_anew(tail: int) -> None:
    plain = crowd(700, "city", 5)
    world = world_of(plain, NOW, tail=tail)
    kernel.prepare(world, NOW, WEIGHTS, *WINDOW)
    chance, changed = random.Random(5), []
    for slot in chance.sample(range(700), 60):
        row = int(world.row_of[slot])
        write(world, row, plain[slot] | {"scan": 10, "save": 5, "start": NOW + chance.choice([1, 10**10])}, NOW)
        if slot % 3 == 0:
            world.slot[row] = world.row_of[slot] = -1
        changed.append(row)
    kernel.patch(world, np.array(changed, np.int32), NOW, WEIGHTS, *WINDOW)
    names = ("base", "live", "best", "least")
    patched = [getattr(world, name).copy() for name in names]
    kernel.prepare(world, NOW, WEIGHTS, *WINDOW)
    for name, before in zip(names, patched, strict=True):
        np.testing.assert_array_equal(getattr(world, name), before, name)


def test_a_narrow_question_does_not_prepare_the_world_and_leaves_what_is_prepared() -> None:
    plain = crowd(3000, "wide", 6)
    world = world_of(plain, NOW)
    kernel.prepare(world, NOW, WEIGHTS, *WINDOW)
    base = world.base.copy()
    narrow = {"viewport": {"west": 0, "south": 0, "east": 4, "north": 4}, "filters": [], "location": None}
    asked = asked_of([narrow | {"user": None, "maxEvents": 50}], plain)
    out, _ = ranked(world, asked, 0.5, prepared=False, now=NOW + HOUR_MS)
    assert not out.prepared
    np.testing.assert_array_equal(world.base, base)
    everything = asked_of(looks("wide", 1)[-1:], plain)
    assert ranked(world, everything, 0.5, prepared=False)[0].prepared


def test_no_events_and_no_questions_are_fine() -> None:
    world = world_of([], NOW, room=40)
    check([], world, looks("city", 1), 0.5, prepared=True)
    check([], world, looks("city", 1), 0.5, prepared=False)
    assert ranked(world, asked_of([], []), 0.5, prepared=True)[1] == []


def test_the_curve_passes_through_neighbours() -> None:
    side = 16
    cells = [(x, y) for x in range(side) for y in range(side)]
    latitude = np.array([(y + 0.5) * 180 / side - 90 for _, y in cells])
    longitude = np.array([(x + 0.5) * 360 / side - 180 for x, _ in cells])
    order = np.argsort(kernel.hilbert(latitude, longitude))
    steps = [abs(cells[a][0] - cells[b][0]) + abs(cells[a][1] - cells[b][1]) for a, b in itertools.pairwise(order)]
    assert set(steps) == {1}


VERSIONS = st.integers(1, 2)
SCORES = st.sampled_from([0.0, 0.005, 0.5, 0.51])
VIEW = st.lists(st.tuples(st.integers(0, 4), VERSIONS, SCORES), unique_by=lambda one: one[0], max_size=10)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(VERSIONS, min_size=10, max_size=10),
    st.lists(st.lists(st.tuples(st.integers(0, 4), SCORES), unique_by=lambda one: one[0]), min_size=1, max_size=3),
    st.lists(st.tuples(VIEW, st.sampled_from([None, 0.0, 0.01, 0.5]), st.integers(0, 2)), max_size=4),
)
def test_the_difference_obeys_the_law(
    versions: list[int],
    fresh: list[list[tuple[int, float]]],
    viewers: list[tuple[list[tuple[int, int, float]], float | None, int]],
) -> None:
    world = world_of([], NOW, room=10)
    world.slot[:] = world.row_of[:] = np.arange(10)
    world.version[:] = versions
    mark = {(slot, version): hash((slot, version)) % 2**64 for slot in range(10) for version in (1, 2, 3)}
    world.mark[:] = [mark[slot, versions[slot]] for slot in range(10)]
    flat = [one for many in fresh for one in many]
    first = np.cumsum([0, *map(len, fresh)])
    scores = np.array([s for _, s in flat])
    out = kernel.Ranked(first, np.array([s for s, _ in flat], np.int32), scores, scores, first, False)
    held = np.zeros(sum(len(v) for v, _, _ in viewers), kernel.HELD)
    for record, (slot, version, score) in zip(held, [o for v, _, _ in viewers for o in v], strict=True):
        record["slot"], record["version"], record["score"], record["mark"] = slot, version, score, mark[slot, version]
    which = np.array([q % len(fresh) for _, _, q in viewers], np.int32)
    thresholds = np.array([math.nan if t is None else t for _, t, _ in viewers])
    got = kernel.diff(world, out, which, held, np.cumsum([0, *(len(v) for v, _, _ in viewers)]), thresholds)
    for v, (view, threshold, _) in enumerate(viewers):
        mine = {str(s): Held(n, x, mark[s, n]) for s, n, x in view}
        shown = [Shown(str(s), versions[s], x, mark[s, versions[s]]) for s, x in fresh[which[v]]]
        change = difference(mine, shown, threshold)
        ops = got.op[got.first[v] : got.first[v + 1]].tolist()
        assert [i for i, op in enumerate(ops) if op == 1] == list(change.creates)
        assert [i for i, op in enumerate(ops) if op == 2] == list(change.updates)
        gone = got.gone[got.gone_first[v] : got.gone_first[v + 1]].tolist()
        assert [str(s) for s in gone] == list(change.deletes)
        sent = [len(change.creates), len(change.updates), len(change.deletes)]
        assert got.counts[v].tolist() == [*sent, withheld(mine, shown, threshold)]
        apply(mine, shown, change)
        kept = got.next[got.first[v] : got.first[v + 1]]
        assert {str(o["slot"]): Held(o["version"], o["score"], o["mark"]) for o in kept} == mine
        assert [str(o["slot"]) for o in kept] == [one.id for one in shown]
        assert got.digest[v] == sum(one.mark for one in mine.values()) % 2**64
        assert got.tenth[got.first[v] : got.first[v + 1]].tolist() == [round(one.score * 10_000) for one in shown]


def withheld(mine: dict[str, Held], shown: list[Shown], threshold: float | None) -> int:
    """How many scores have moved, but not enough."""
    same = [(mine[one.id].score, one.score) for one in shown if one.id in mine and mine[one.id].version == one.version]
    return sum(before != after and abs(after - before) < (threshold or 0) for before, after in same)


@settings(max_examples=60, deadline=None, suppress_health_check=CALM)
@given(events(), st.lists(questions(), min_size=1, max_size=2), st.data())
def test_whom_a_change_touches_follows_its_definition(
    plain: list[dict[str, Any]], wanted: list[dict[str, Any]], data: st.DataObject
) -> None:
    world, asked = world_of(plain, NOW), asked_of(wanted, plain)
    out, views = ranked(world, asked, 0.5, prepared=True)
    slots = st.sets(st.sampled_from(range(len(plain)))) if plain else st.just(set())
    changed = data.draw(slots)
    held = np.zeros(len(out.row), kernel.HELD)
    held["slot"] = world.slot[out.row]
    last = [v[-1] if v and len(v) == q["maxEvents"] else -1 for v, q in zip(views, wanted, strict=True)]
    flags = kernel.touched(
        world,
        *asked,
        held,
        out.first,
        np.array(last, np.int32),
        np.array(sorted(changed), np.int32),
        NOW,
        WEIGHTS,
        *WINDOW,
    )
    for question, view, end, flag in zip(wanted, views, last, flags.tolist(), strict=True):
        able = {e["id"] for e in oracle.candidates(plain, question, NOW)}
        mine = [plain[slot] for slot in changed if plain[slot]["id"] in able]
        better = end < 0 or any(rank_key(e, question) < rank_key(plain[end], question) for e in mine)
        assert flag == (bool(changed & set(view)) or (bool(mine) and better))


def rank_key(event: dict[str, Any], question: dict[str, Any]) -> tuple[float, int, str]:
    return (-oracle.raw(event, question, NOW), oracle.occurrence(event, NOW)[0], event["id"])


def test_a_view_whose_last_event_is_gone_is_touched_by_anything() -> None:
    plain = crowd(40, "city", 8)
    world = world_of(plain, NOW)
    asked = asked_of(looks("city", 1)[-1:], plain)
    world.row_of[3] = -1
    arguments = (world, *asked, np.zeros(0, kernel.HELD), np.array([0, 0]), np.array([3], np.int32))
    assert kernel.touched(*arguments, np.array([5], np.int32), NOW, WEIGHTS, *WINDOW).tolist() == [True]


PLAIN = """
import sys
sys.modules["numba"] = None
from server.batching.scores import kernel
from tests.batching.scores import test_kernel as t
assert not kernel.NUMBA
assert kernel.warm() < 60
plain = t.crowd(150, "city", 1)
t.check(plain, t.world_of(plain, t.NOW, tail=20, holes=2), t.looks("city", 2), 0.5, prepared=True)
t.check(plain, t.world_of(plain, t.NOW, tail=20, holes=2), t.looks("city", 2), 0.5, prepared=False)
kernel.rank.__globals__["WIDE"] = 50
t.check(plain, t.world_of(plain, t.NOW), [q | {"filters": []} for q in t.looks("city", 3)], 0.5, prepared=True)
"""


def test_without_numba_the_same_functions_run_as_plain_python() -> None:
    subprocess.run([sys.executable, "-W", "ignore::RuntimeWarning", "-c", PLAIN], check=True, timeout=120)
