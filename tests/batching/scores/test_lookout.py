"""A moment is prepared once and kept right; without the kernel the same views come of it, more slowly."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.batching.scores import kernel, lookout
from server.batching.scores.columns import Columns
from server.batching.scores.lookout import MANY, Lookout
from server.batching.scores.question import Question
from server.core.event import Event
from server.protocol.values import Viewport
from tests.batching.scores.test_frames import RULES, WORLD
from tests.batching.scores.test_ranking import NOW, as_event, as_question, events, questions

pytestmark = pytest.mark.pure
LAX = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]


def filled(world: list[dict[str, Any]]) -> Columns:
    columns = Columns()
    for one in world:
        columns.put(as_event(one), NOW)
    return columns


def views(looks: Lookout, asked: list[Question], now_ms: int) -> list[list[tuple[str, float]]]:
    """By question: ids and scores, best first."""
    ranked = looks.rank(asked, now_ms)
    slots = looks.columns.world.slot[ranked.row].tolist()
    pairs = [(looks.columns.id_of(slot), score) for slot, score in zip(slots, ranked.score.tolist(), strict=True)]
    return [pairs[ranked.first[q] : ranked.first[q + 1]] for q in range(len(asked))]


@settings(max_examples=40, deadline=None, suppress_health_check=LAX)
@given(events(), st.lists(questions(), min_size=1, max_size=4))
def test_without_the_kernel_the_same_views_come_of_it(world: list[dict[str, Any]], asked: list[dict[str, Any]]) -> None:
    looks, all_asked = Lookout(filled(world), RULES), [as_question(one) for one in asked]
    fast = views(looks, all_asked, NOW)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lookout.kernel, "NUMBA", False)
        plain = views(looks, all_asked, NOW)
    assert [[event_id for event_id, _ in view] for view in fast] == [[event_id for event_id, _ in v] for v in plain]
    for one, other in zip(fast, plain, strict=True):
        assert [score for _, score in one] == pytest.approx([score for _, score in other], abs=1e-9)


def one(event_id: str, version: int = 1, **fields: Any) -> Event:
    return Event(event_id, fields.pop("latitude", 0.0), 0.0, NOW, created_ms=NOW, version=version, **fields)


def test_what_changes_after_a_moment_was_prepared_is_in_it() -> None:
    columns = Columns()
    looks = Lookout(columns, RULES)
    columns.put(one("a"), NOW)
    columns.put(one("b", latitude=1.0), NOW)
    looks.prepare(NOW)
    assert [i for i, _ in views(looks, [WORLD], NOW)[0]] == ["a", "b"]
    columns.publish("b", (10, 5, 3), 2)
    columns.put(one("c", 3, latitude=2.0), NOW)
    columns.remove("a")
    assert [i for i, _ in views(looks, [WORLD], NOW)[0]] == ["b", "c"]
    columns.merge()
    assert [i for i, _ in views(looks, [WORLD], NOW)[0]] == ["b", "c"]


def test_another_moment_in_between_does_not_spoil_the_one_that_was_prepared() -> None:
    columns = Columns()
    looks = Lookout(columns, RULES)
    for number in range(200):
        columns.put(one(f"e{number:03d}", latitude=number / 10), NOW)
    columns.merge()
    far = [Question(Viewport(west=-180, south=-90, east=180, north=90), limit=n % 500 + 1) for n in range(MANY)]
    before = views(looks, far, NOW)
    later = NOW + 60 * 86_400_000
    assert views(looks, [WORLD], later) == [[]], "all of it is long over"
    assert views(looks, [WORLD], NOW)[0] == views(Lookout(columns, RULES), [WORLD], NOW)[0]
    assert views(looks, far, NOW) == before


def test_the_kernel_is_there_where_these_tests_run() -> None:
    assert kernel.NUMBA
