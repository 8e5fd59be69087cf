"""An explanation says of any event what the view does with it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.batching.scores.columns import Columns
from server.batching.scores.explain import explain
from server.batching.scores.lookout import Lookout
from server.batching.scores.question import Question
from server.batching.scores.ranking import Rules, rank
from server.batching.scores.score import HOUR_MS, Weights
from server.core.event import Event
from server.errors import Code, Refused
from server.protocol.outgoing import Explanation
from server.protocol.values import Filter, Viewport
from tests.batching.scores.test_ranking import NOW, WINDOW, as_event, as_question, events, questions
from tests.oracle import view as oracle

pytestmark = pytest.mark.pure
RULES = Rules(Weights(), WINDOW, 0.5)
NEAR = Viewport(west=-1, south=-1, east=1, north=1)
EVENT = Event("a", 0.0, 0.0, NOW, created_ms=NOW, version=1)


def asked(question: Question, event_id: str, *world: Event) -> dict[str, Any]:
    columns = Columns()
    for one in world:
        columns.put(one, NOW)
    explanation = explain(Lookout(columns, RULES), question, event_id, NOW)
    message = {"type": "explanation", **explanation}
    assert Explanation.model_validate(message).model_dump(mode="json", by_alias=True, exclude_unset=True) == message
    return explanation


def test_an_event_in_view_has_its_rank_and_score() -> None:
    found = asked(Question(NEAR), "a", EVENT)
    assert (found["inView"], found["rank"], found["place"], found["candidates"]) == (True, 1, 1, 1)
    assert (found["relativeScore"], found["distanceKm"], found["cut"], found["spacingNeighbour"]) == (
        1.0,
        0.0,
        None,
        None,
    )
    assert found["components"] == {"time": 1.0, "distance": 1.0, "popularity": 0.0, "recency": 1.0, "confidence": 0.5}
    assert found["raw"] == 0.65
    assert all(found[test] is True for test in ("access", "status", "window", "viewport", "filters"))


@pytest.mark.parametrize(
    ("change", "test"),
    [
        ({"status": "REJECTED"}, "status"),
        ({"status": "EXPIRED"}, "status"),
        ({"start_ms": NOW - 25 * HOUR_MS}, "window"),
        ({"start_ms": NOW + 721 * HOUR_MS}, "window"),
        ({"latitude": 5.0}, "viewport"),
        ({"title": "Food"}, "filters"),
    ],
)
def test_an_event_that_is_no_candidate_fails_exactly_the_test_that_keeps_it_out(
    change: dict[str, Any], test: str
) -> None:
    question = Question(NEAR, (Filter.model_validate({"text": "jazz"}),))
    found = asked(question, "a", replace(EVENT, **{"title": "Jazz", **change}))
    tests = ("access", "status", "window", "viewport", "filters")
    assert [name for name in tests if not found[name]] == [test]
    assert (found["inView"], found["rank"], found["relativeScore"], found["place"]) == (False, None, None, None)
    assert found["raw"] > 0


def test_one_that_is_cut_off_is_told_what_to_beat() -> None:
    better = replace(EVENT, id="b", latitude=0.5, counts=(10, 5, 3))
    found = asked(Question(NEAR, limit=1), "a", EVENT, better)
    assert (found["inView"], found["place"], found["relativeScore"]) == (False, 2, 0.6)
    assert found["cut"]["eventId"] == "b"
    assert found["cut"]["raw"] > found["raw"]
    assert found["spacingNeighbour"] is None


def test_one_that_stands_too_near_to_a_better_one_is_told_to_which() -> None:
    better = replace(EVENT, id="b", latitude=0.001, counts=(10, 5, 3))
    found = asked(Question(NEAR), "a", EVENT, better)
    assert (found["inView"], found["spacingNeighbour"], found["cut"]) == (False, "b", None)


def test_of_two_equal_ones_in_one_place_the_first_id_is_shown_and_the_other_told() -> None:
    found = asked(Question(NEAR), "b", EVENT, replace(EVENT, id="b"))
    assert (found["inView"], found["spacingNeighbour"]) == (False, "a")


@pytest.mark.parametrize("user", [None, "bob"])
def test_one_that_may_not_be_seen_is_not_found_exactly_as_an_unknown_one(user: str | None) -> None:
    hidden = replace(EVENT, private=True, creator_id="ann")
    answers = []
    for world in ((hidden,), ()):
        with pytest.raises(Refused) as caught:
            asked(Question(NEAR, user=user), "a", *world)
        answers.append((caught.value.code, caught.value.message, caught.value.field))
    assert answers[0] == answers[1] == (Code.NOT_FOUND, "no event 'a'", "eventId")
    assert asked(Question(NEAR, user="ann"), "a", hidden)["inView"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(events().filter(bool), questions(), st.data())
def test_it_agrees_with_the_view_and_the_oracle(
    world: list[dict[str, Any]], question: dict[str, Any], data: st.DataObject
) -> None:
    one = data.draw(st.sampled_from(world))
    columns = Columns()
    for each in world:
        columns.put(as_event(each), NOW)
    look, asks = Lookout(columns, RULES), as_question(question)
    if not oracle.visible(one, question["user"]):
        with pytest.raises(Refused):
            explain(look, asks, one["id"], NOW)
        return
    found = explain(look, asks, one["id"], NOW)
    shown = [columns.id_of(slot) for slot in rank(columns, asks, RULES, NOW).slots.tolist()]
    candidates = oracle.candidates(world, question, NOW)
    assert found["inView"] is (one["id"] in shown)
    assert found["rank"] == (shown.index(one["id"]) + 1 if one["id"] in shown else None)
    assert found["candidates"] == len(candidates)
    assert (
        (found["place"] is not None)
        is (one in candidates)
        is all(found[name] for name in ("access", "status", "window", "viewport", "filters"))
    )
    assert found["raw"] == pytest.approx(oracle.raw(one, question, NOW), abs=2e-9)
    outranked = len(shown) == asks.limit and not found["inView"]
    if found["place"] is not None and not found["inView"]:
        assert outranked or found["spacingNeighbour"] in shown
