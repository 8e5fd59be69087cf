"""Clusters are exactly the candidates by cell, whoever counts them, and are told when the protocol says so."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.batching.scores import lookout
from server.batching.scores.audience import Viewer
from server.batching.scores.clusters import NONE, clusters_of
from server.batching.scores.columns import Columns
from server.batching.scores.lookout import Lookout
from server.batching.scores.question import Question
from server.batching.scores.ranking import Rules
from server.batching.scores.score import Weights
from server.batching.scores.views import Kind, Sight, draw
from server.core.event import Event
from server.protocol.values import Filter, Viewport
from tests.batching.scores.test_frames import RULES, WORLD, Paper, fits, show
from tests.batching.scores.test_kernel import SHAPES, crowd, looks
from tests.batching.scores.test_ranking import NOW, WINDOW, as_event, as_question, events, questions
from tests.oracle.clusters import cell as cell_of
from tests.oracle.clusters import clusters as oracle

pytestmark = pytest.mark.pure
LAX = [HealthCheck.too_slow, HealthCheck.data_too_large]
FEW = Question(WORLD.viewport, limit=2)


def filled(world: list[dict[str, Any]], sorted_rows: int | None = None) -> Columns:
    """Columns with these events; all but the first so many stay in the unsorted tail."""
    columns = Columns()
    for number, one in enumerate(world):
        columns.put(as_event(one), NOW)
        if number + 1 == sorted_rows:
            columns.merge()
    return columns


def told(looks: Lookout, asked: list[Question], now_ms: int = NOW) -> list[Any]:
    """The clusters of each question, as a client reads them."""
    ranked = looks.rank(asked, now_ms)
    found = clusters_of(looks, ranked, asked, range(len(asked)), now_ms)
    return [orjson.loads(found[n].json) for n in range(len(asked))]


def by_cell(clusters: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {one["cell"]: one for one in clusters}


def agree(looks: Lookout, world: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    """All that is told is the oracle's, most candidates first."""
    for clusters, question in zip(told(looks, [as_question(one) for one in wanted]), wanted, strict=True):
        assert by_cell(clusters) == by_cell(oracle(world, question, NOW))
        counts = [one["count"] for one in clusters]
        assert counts == sorted(counts, reverse=True)


# --- what is counted ---


@settings(max_examples=50, deadline=None, suppress_health_check=LAX)
@given(
    events(),
    st.lists(questions(), min_size=1, max_size=3),
    st.sampled_from([1, 2, 3]),
    st.sampled_from([0.0, 0.5, 200.0]),
    st.none() | st.integers(1, 30),
    st.booleans(),
)
def test_clusters_equal_the_oracles_whatever_the_spacing(
    world: list[dict[str, Any]],
    wanted: list[dict[str, Any]],
    limit: int,
    spacing: float,
    ordered: int | None,
    ready: bool,
) -> None:
    looks = Lookout(filled(world, ordered), Rules(Weights(), WINDOW, spacing))
    if ready:
        looks.prepare(NOW)
    agree(looks, world, [{**one, "maxEvents": limit} for one in wanted])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("count", "ready"), [(400, True), (400, False), (2500, True)])
def test_clusters_of_many_events_equal_the_oracles(shape: str, count: int, ready: bool) -> None:
    world = crowd(count, shape, count)
    looking = Lookout(filled(world, count - count // 10), RULES)
    wanted = [{**one, "maxEvents": min(one["maxEvents"], 50)} for seed in range(3) for one in looks(shape, seed)]
    if ready:
        looking.prepare(NOW)
        agree(looking, world, wanted)
    else:
        for one in wanted:
            agree(Lookout(looking.columns, RULES), world, [one])


@settings(max_examples=20, deadline=None, suppress_health_check=LAX)
@given(events(), st.lists(questions(), min_size=1, max_size=3))
def test_without_the_kernel_the_same_is_told(world: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lookout.kernel, "NUMBA", False)
        agree(Lookout(filled(world), RULES), world, [{**one, "maxEvents": 1} for one in wanted])


def test_counts_of_a_moment_follow_what_changes_in_it() -> None:
    world, chance = crowd(1500, "city", 3), random.Random(3)
    looking = Lookout(filled(world, 1400), RULES)
    everywhere = {**looks("wide", 0)[-1], "filters": [], "user": None, "maxEvents": 10}
    looking.prepare(NOW)
    agree(looking, world, [everywhere])
    for one in chance.sample(world, 40):
        one.update(
            latitude=chance.gauss(0, 0.15), start=NOW + chance.choice([60_000, 2 * 10**9]), scan=chance.choice([0, 10])
        )
        looking.columns.put(as_event(one), NOW)
    gone = world.pop(7)
    looking.columns.remove(gone["id"])
    agree(looking, world, [everywhere])
    looking.columns.merge()
    agree(looking, world, [everywhere])


def test_another_origin_has_other_tops_but_the_same_counts() -> None:
    world = crowd(2000, "city", 9)
    looking = Lookout(filled(world, 2000), RULES)
    asked = [{**looks("city", 0)[1], "filters": [], "user": None, "maxEvents": 5, "location": near} for near in NEAR]
    looking.prepare(NOW)
    agree(looking, world, asked)
    first, second = told(looking, [as_question(one) for one in asked])
    assert [(c["cell"], c["count"], c["location"]) for c in first] == [
        (c["cell"], c["count"], c["location"]) for c in second
    ]
    assert [c["topEventId"] for c in first] != [c["topEventId"] for c in second]


NEAR = ({"latitude": 0.1, "longitude": 0.1}, {"latitude": -0.1, "longitude": -0.1})


def test_a_private_event_counts_for_those_who_may_see_it_and_is_named_to_nobody_else() -> None:
    columns = filled([])
    for number in range(3):
        columns.put(one(f"e{number}", longitude=number), NOW)
    columns.put(one("secret", private=True, creator_id="ann", counts=(10, 5, 3)), NOW)
    asked = [Question(WORLD.viewport, user=user, limit=1) for user in ("ann", "bob", None)]
    anns, bobs, nobodys = told(Lookout(columns, RULES), asked)
    assert (anns[0]["count"], anns[0]["topEventId"]) == (4, "secret")
    assert bobs == nobodys
    assert (bobs[0]["count"], bobs[0]["topEventId"]) == (3, "e0")


def one(event_id: str, **fields: Any) -> Event:
    place = (fields.pop("latitude", 10.0), fields.pop("longitude", 10.0))
    return Event(event_id, *place, NOW, created_ms=NOW, version=fields.pop("version", 1), **fields)


@pytest.mark.parametrize(("events", "cells"), [(4, 0), (5, 1)])
def test_clusters_are_told_when_there_are_more_than_twice_as_many_as_are_shown(events: int, cells: int) -> None:
    columns = filled([])
    for number in range(events):
        columns.put(one(f"e{number}", longitude=10 + number), NOW)
    assert len(told(Lookout(columns, RULES), [FEW])[0]) == cells


def test_only_what_the_filters_let_in_is_counted() -> None:
    columns = filled([])
    for number in range(9):
        columns.put(one(f"e{number}", categories=("music",) if number % 3 else ()), NOW)
    music = (Filter.model_validate({"categories": {"include": ["music"]}}),)
    assert told(Lookout(columns, RULES), [Question(WORLD.viewport, music, limit=2)])[0][0]["count"] == 6


# --- when it is told ---


def watched(count: int, *, clusters: bool = True) -> tuple[Columns, Lookout, Viewer, Paper]:
    """A world of so many events side by side, and a viewer who sees two of them."""
    columns, paper = filled([]), Paper()
    for number in range(count):
        columns.put(one(f"e{number}", longitude=10 + number), NOW)
    viewer = Viewer("s1", FEW, paper)
    viewer.clusters = clusters
    return columns, Lookout(columns, RULES), viewer, paper


def test_a_snapshot_an_answer_and_a_batch_tell_the_clusters_and_an_immediate_change_does_not() -> None:
    columns, looking, viewer, paper = watched(6)
    show(looking, Sight(viewer, Kind.SNAPSHOT, None, "r1"), NOW)
    show(looking, Sight(viewer, Kind.ANSWER, 0.01, "r2"), NOW)
    columns.put(one("e0", version=2, title="other"), NOW)
    show(looking, Sight(viewer, Kind.IMMEDIATE, None), NOW)
    columns.put(one("e0", version=3, title="another"), NOW)
    show(looking, Sight(viewer, Kind.BATCH, 0.01), NOW)
    assert [message["type"] for message in paper.messages] == ["replace-all", "changes", "update-event", "batch-update"]
    assert ["clusters" in message for message in paper.messages] == [True, True, False, True]
    assert paper.messages[0]["clusters"] == [
        {"cell": "3/4/3", "location": {"latitude": 10.0, "longitude": 12.5}, "count": 6, "topEventId": "e0"}
    ]
    for message in paper.messages:
        fits(message)


def test_who_did_not_ask_is_told_of_none() -> None:
    _, looking, viewer, paper = watched(6, clusters=False)
    show(looking, Sight(viewer, Kind.SNAPSHOT, None), NOW)
    show(looking, Sight(viewer, Kind.ANSWER, 0.01, "r1"), NOW)
    assert ["clusters" in message for message in paper.messages] == [False, False]


def test_a_batch_is_sent_when_nothing_but_the_clusters_has_changed_and_only_then() -> None:
    columns, looking, viewer, paper = watched(6)
    show(looking, Sight(viewer, Kind.SNAPSHOT, None), NOW)
    held, digest = viewer.held, viewer.digest
    assert show(looking, Sight(viewer, Kind.BATCH, 1.0), NOW) is False
    columns.remove("e5")
    assert show(looking, Sight(viewer, Kind.IMMEDIATE, None), NOW) is False
    assert show(looking, Sight(viewer, Kind.BATCH, 1.0), NOW) is True
    batch = paper.messages[-1]
    fits(batch)
    assert batch["updates"] == {"creates": [], "updates": [], "deletes": []}
    assert batch["summary"] == {"totalEvents": 2, "newEvents": 0, "updatedEvents": 0, "deletedEvents": 0}
    assert (batch["clusters"][0]["count"], batch["seq"]) == (5, 2)
    assert digest == viewer.digest and len(held) == len(viewer.held)
    assert show(looking, Sight(viewer, Kind.BATCH, 1.0), NOW) is False


def test_when_not_far_more_is_in_view_any_more_that_is_told_by_an_empty_list_once() -> None:
    columns, looking, viewer, paper = watched(5)
    show(looking, Sight(viewer, Kind.SNAPSHOT, None), NOW)
    columns.remove("e4")
    show(looking, Sight(viewer, Kind.BATCH, 1.0), NOW)
    assert [message["clusters"] for message in paper.messages][1:] == [[]]
    assert viewer.told == NONE.mark
    columns.remove("e3")
    assert show(looking, Sight(viewer, Kind.BATCH, 1.0), NOW) is False


def test_a_recount_tells_the_clusters_only_when_they_are_others() -> None:
    columns, looking, viewer, paper = watched(6)
    show(looking, Sight(viewer, Kind.SNAPSHOT, None), NOW)
    assert show(looking, Sight(viewer, Kind.RECOUNT, None), NOW) is False
    columns.put(one("e0", version=2, title="other"), NOW)
    show(looking, Sight(viewer, Kind.RECOUNT, None), NOW)
    columns.remove("e5")
    show(looking, Sight(viewer, Kind.RECOUNT, None), NOW)
    assert [m["type"] for m in paper.messages] == ["replace-all", "update-event", "changes"]
    assert ["clusters" in message for message in paper.messages] == [True, False, True]
    for message in paper.messages:
        fits(message)


def test_a_draft_that_is_not_handed_over_tells_nobody_anything() -> None:
    columns, looking, viewer, _ = watched(6)
    show(looking, Sight(viewer, Kind.SNAPSHOT, None), NOW)
    told_before = viewer.told
    columns.remove("e5")
    draft = draw(looking, [Sight(viewer, Kind.BATCH, 1.0)], NOW)[0]
    assert (viewer.told, draft.frame is None) == (told_before, False)
    assert draft.told != told_before


def test_equal_viewers_share_one_tail_and_those_who_did_not_ask_or_were_told_otherwise_have_their_own() -> None:
    columns, looking, _, _ = watched(6)
    viewers = [Viewer(f"s{n}", FEW, Paper()) for n in range(5)]
    for viewer in viewers[:4]:
        viewer.clusters = True
    for viewer in viewers:
        show(looking, Sight(viewer, Kind.SNAPSHOT, None), NOW)
        viewer.held = viewers[0].held
    columns.publish("e0", (10, 5, 3), 2)
    drafts = draw(looking, [Sight(viewer, Kind.BATCH, 0.01) for viewer in viewers], NOW)
    tails = [draft.frame.tail for draft in drafts if draft.frame is not None]
    assert len({id(tail) for tail in tails[:4]}) == 1
    assert tails[4] is not tails[0]
    assert b"clusters" not in tails[4].body


def test_nobody_who_asked_means_nothing_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    _, looking, viewer, _ = watched(6, clusters=False)
    monkeypatch.setattr(Lookout, "count_cells", None)
    assert show(looking, Sight(viewer, Kind.SNAPSHOT, None), NOW) is True


def test_a_world_full_of_equal_events_names_the_first_id() -> None:
    size = 700
    columns = Columns()
    for number in np.random.default_rng(1).permutation(size).tolist():
        columns.put(one(f"e{number:03d}", latitude=number / 10, longitude=number / 10), NOW)
    columns.merge()
    looking = Lookout(columns, RULES)
    far = Viewport(west=-180, south=-90, east=180, north=90)
    looking.prepare(NOW)
    clusters = told(looking, [Question(far, limit=2)])[0]
    assert sum(one["count"] for one in clusters) == size
    assert all(one["topEventId"] == min(_inside(one["cell"], size)) for one in clusters if one["count"] > 12)


def _inside(cell: str, size: int) -> list[str]:
    return [f"e{n:03d}" for n in range(size) if cell_of(n / 10, n / 10, int(cell.split("/")[0])) == cell]
