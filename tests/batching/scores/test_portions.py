"""Messages within a budget, drawn from any world: of the right size, true to their digest, and complete in the end."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.batching.scores.audience import Viewer, records
from server.batching.scores.budget import Budget
from server.batching.scores.columns import Columns
from server.batching.scores.lookout import Lookout
from server.batching.scores.views import Kind, Sight, deliver, draw
from server.client import View
from server.core.event import Event
from tests.batching.scores.test_frames import LAX, RULES, WORLD, Paper, alter, fits
from tests.batching.scores.test_ranking import NOW, as_event, as_question, event, events, questions

pytestmark = pytest.mark.pure
BUDGETS = st.builds(Budget, st.booleans(), st.just(0), st.sampled_from([None, 1024, 1200, 2048]))
CHANGES = st.lists(event("e03") | event("new") | st.sampled_from(["e00", "e01", "e03"]), max_size=4)


class Scale(Paper):
    """Keeps the messages, and how long each was."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def hand(self, frame: Any) -> None:
        super().hand(frame)
        self.sizes.append(len(frame.text))


def new(paper: Paper, budget: Budget, question: Any = WORLD, *, reasons: bool = False) -> Viewer:
    viewer = Viewer("s1", question, paper, reasons=reasons)
    viewer.budget = budget
    return viewer


def show(lookout: Lookout, sight: Sight, now_ms: int) -> None:
    deliver(draw(lookout, [sight], now_ms)[0])


def holds(viewer: Viewer, columns: Columns) -> dict[str, int]:
    return {columns.id_of(int(held["slot"])): int(held["version"]) for held in records([viewer.held])}


@settings(max_examples=50, deadline=None, suppress_health_check=LAX)
@given(events(), CHANGES, questions(), questions(), st.booleans(), BUDGETS)
def test_whatever_the_budget_the_client_holds_what_the_server_believes_and_in_the_end_all_of_it(
    world: list[dict[str, Any]],
    changes: list[Any],
    first: dict[str, Any],
    second: dict[str, Any],
    reasons: bool,
    budget: Budget,
) -> None:
    columns, paper, plain = Columns(), Scale(), Paper()
    viewers = [new(paper, budget, as_question(first), reasons=reasons), new(plain, Budget(), as_question(first))]
    lookout = Lookout(columns, RULES)
    for one in world:
        columns.put(as_event(one), NOW)
    for viewer in viewers:
        show(lookout, Sight(viewer, Kind.SNAPSHOT, None, "r1"), NOW)
    for number, change in enumerate(changes, 2):
        alter(columns, change, number)
        kind = (Kind.IMMEDIATE, Kind.BATCH)[number % 2]
        for viewer in viewers:
            show(lookout, Sight(viewer, kind, None if number % 3 == 0 else 0.01), NOW + number)
    for viewer in viewers:
        viewer.question = as_question(second)
        show(lookout, Sight(viewer, Kind.ANSWER, 0.01, "r2"), NOW + 99)
    frames = len(holds(viewers[1], columns))
    while viewers[0].ages:
        show(lookout, Sight(viewers[0], Kind.BATCH, 0.01), NOW + 99)
        frames -= 1
        assert frames >= 0, "each message takes at least one of the oldest"
    judge(paper, budget)
    view = read(paper)
    assert view.digest == f"{viewers[0].digest:016x}"
    assert {i: e["version"] for i, e in view.events.items()} == holds(viewers[0], columns) == holds(viewers[1], columns)
    whole = read(plain)
    for event_id, one in view.events.items():
        other = whole.events[event_id]
        assert abs(one["relevanceScore"] - other["relevanceScore"]) <= 0.0102
        assert {**one, "relevanceScore": 0} == {**other, "relevanceScore": 0}, "delta has lost nothing"


def judge(paper: Scale, budget: Budget) -> None:
    for message, size in zip(paper.messages, paper.sizes, strict=True):
        fits(message)
        updates = message.get("updates", {})
        count = len(message.get("events", ())) + sum(len(updates.get(name, ())) for name in ("creates", "updates"))
        if count > 1 and budget.max_bytes is not None and not updates.get("deletes"):
            assert size <= budget.max_bytes
        if message["type"] == "batch-update":
            assert message["summary"]["newEvents"] == len(updates["creates"])


def read(paper: Paper) -> View:
    view = View()
    for message in paper.messages:
        assert view.apply(message).matches
        if message["type"] == "batch-update":
            assert message["summary"]["totalEvents"] == len(view.events)
    return view


def one(event_id: str, version: int = 1, **fields: Any) -> Event:
    return Event(event_id, 0.0, int(event_id[1:]) / 50, NOW, created_ms=NOW, version=version, **fields)


def filled(count: int, **fields: Any) -> Lookout:
    columns = Columns()
    for number in range(count):
        columns.put(one(f"e{number:03}", number + 1, **fields), NOW)
    return Lookout(columns, RULES)


def test_a_message_is_as_full_as_its_budget_allows() -> None:
    lookout = filled(100)
    for size in (1024, 3000, 20_000):
        paper = Scale()
        show(lookout, Sight(new(paper, Budget(max_bytes=size)), Kind.SNAPSHOT, None, "r" * 64), NOW)
        each = paper.sizes[0] / len(paper.messages[0]["events"])
        assert size - 1.2 * each - 64 < paper.sizes[0] <= size


def test_equal_viewers_share_what_they_are_sent_and_what_is_left_out() -> None:
    lookout = filled(20)
    viewers = [new(Scale(), Budget(delta=True, max_bytes=2048)) for _ in range(3)]
    other = new(Scale(), Budget(max_bytes=2048))
    for kind in (Kind.SNAPSHOT, Kind.BATCH, Kind.BATCH):
        drafts = draw(lookout, [Sight(v, kind, 0.01) for v in (*viewers, other)], NOW)
        assert [draft.shared for draft in drafts] == [False, True, True, False]
        assert len({id(draft.frame.tail) for draft in drafts if draft.frame is not None}) == 2
        assert all(deliver(draft) for draft in drafts)
    assert len({id(viewer.ages) for viewer in viewers}) == 1


def test_a_snapshot_begins_with_the_best_again_whatever_was_left_out_before() -> None:
    lookout = filled(20)
    paper = Scale()
    viewer = new(paper, Budget(max_bytes=2048))
    for kind in (Kind.SNAPSHOT, Kind.BATCH, Kind.SNAPSHOT):
        show(lookout, Sight(viewer, kind, 0.01), NOW)
    assert paper.messages[0]["events"] == paper.messages[2]["events"]
    assert set(viewer.ages.values()) == {1}


def test_what_waits_for_its_score_alone_is_not_forgotten_by_a_message_that_looks_at_none() -> None:
    lookout = filled(30, description="x" * 200)
    paper = Scale()
    viewer = new(paper, Budget(max_bytes=1024))
    viewer.budget = Budget()
    show(lookout, Sight(viewer, Kind.SNAPSHOT, None), NOW)
    viewer.budget = Budget(max_bytes=1024)
    for number in range(30):
        lookout.columns.publish(f"e{number:03}", (number % 7, 3, 1), 1000 + number)
    lookout.columns.publish("e007", (10, 5, 3), 2000)
    show(lookout, Sight(viewer, Kind.BATCH, 0.01), NOW + 1)
    before = dict(viewer.ages)
    assert before
    held = {int(h["slot"]): int(h["version"]) for h in records([viewer.held])}
    show(lookout, Sight(viewer, Kind.IMMEDIATE, None), NOW + 2)
    assert viewer.ages
    gone = set(before) - set(viewer.ages)
    now_held = {int(h["slot"]): int(h["version"]) for h in records([viewer.held])}
    assert all(now_held[slot] != held[slot] for slot in gone), "only what was sent waits no longer"


def test_scores_that_wait_wait_on_through_an_immediate_change() -> None:
    """The batch was too large for all scores that time has moved; an immediate change in between looks at none of them."""
    lookout = filled(12, description="x" * 300)
    viewer = new(Scale(), Budget())
    show(lookout, Sight(viewer, Kind.SNAPSHOT, None), NOW)
    viewer.budget = Budget(max_bytes=1024)
    lookout.columns.publish("e011", (10, 5, 3), 1000)
    show(lookout, Sight(viewer, Kind.BATCH, 0.01), NOW + 1)
    before = dict(viewer.ages)
    assert len(before) > 3
    show(lookout, Sight(viewer, Kind.IMMEDIATE, None), NOW + 2)
    assert viewer.ages.keys() <= before.keys()
    assert len(viewer.ages) >= len(before) - 2


def test_an_event_whose_bytes_alone_are_too_many_goes_alone() -> None:
    lookout = filled(3, description="x" * 5000)
    paper = Scale()
    viewer = new(paper, Budget(max_bytes=1024))
    show(lookout, Sight(viewer, Kind.SNAPSHOT, None), NOW)
    for _ in range(2):
        show(lookout, Sight(viewer, Kind.BATCH, 0.01), NOW)
    assert [len(m.get("events") or m["updates"]["creates"]) for m in paper.messages] == [1, 1, 1]
    assert not viewer.ages


def test_deletes_always_go_and_leave_room_for_one_event() -> None:
    lookout = filled(300)
    paper = Scale()
    viewer = new(paper, Budget(), reasons=True)
    show(lookout, Sight(viewer, Kind.SNAPSHOT, None), NOW)
    viewer.budget = Budget(max_bytes=1024)
    for number in range(0, 300, 2):
        lookout.columns.remove(f"e{number:03}")
    show(lookout, Sight(viewer, Kind.BATCH, 0.01), NOW)
    updates = paper.messages[-1]["updates"]
    assert len(updates["deletes"]) >= 20
    assert len(updates["creates"]) + len(updates["updates"]) == 1
    read(paper)


def test_a_claim_is_answered_within_the_budget_too_and_what_is_left_out_stays_as_claimed() -> None:
    lookout = filled(20, description="x" * 200)
    paper = Scale()
    viewer = new(paper, Budget(max_bytes=1024))
    claimed = [(f"e{number:03}", number + 1) for number in range(20)]
    show(lookout, Sight(viewer, Kind.ANSWER, 0.01, "r1", claimed), NOW)
    assert holds(viewer, lookout.columns) == dict(claimed)
    assert len(paper.messages[0]["updates"]["updates"]) < 20
    view = View()
    for event_id, version in claimed:
        view._put(event_id, {"id": event_id, "version": version})
    assert view.apply(paper.messages[0]).matches


def test_the_bytes_of_delta_are_those_that_full_updates_would_have_had() -> None:
    lookout = filled(5, description="ü" * 300)
    full, brief = new(Scale(), Budget()), new(Scale(), Budget(delta=True))
    for viewer in (full, brief):
        show(lookout, Sight(viewer, Kind.SNAPSHOT, None), NOW)
    lookout.columns.publish("e003", (1, 2, 3), 1000)
    drafts = draw(lookout, [Sight(v, Kind.BATCH, 0.01) for v in (full, brief)], NOW + 1)
    assert drafts[0].frame is not None and drafts[1].frame is not None
    assert drafts[1].saved.spared == len(drafts[0].frame) - len(drafts[1].frame) > 500
    assert orjson.loads(drafts[1].frame.text)["updates"]["updates"][0].keys() >= {"id", "version", "relevanceScore"}
