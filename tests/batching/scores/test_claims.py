"""Those who come back in one round share whatever is equal, and are told no more than they may know."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest

from server.batching.scores.audience import Held, Viewer
from server.batching.scores.columns import Columns
from server.batching.scores.lookout import Lookout
from server.batching.scores.views import Draft, Kind, Sight, deliver, draw
from server.core.event import Event
from tests.batching.scores.test_frames import RULES, WORLD, Paper
from tests.batching.scores.test_ranking import NOW

pytestmark = pytest.mark.pure


def event(event_id: str, version: int, latitude: float, **fields: object) -> Event:
    return Event(event_id, latitude, 0.0, NOW, created_ms=NOW, version=version, **fields)  # type: ignore[arg-type]


@pytest.fixture
def lookout() -> Lookout:
    columns = Columns()
    for number in range(4):
        columns.put(event(f"e{number}", number + 1, number / 10), NOW)
    return Lookout(columns, RULES)


def viewer(held: Held | None = None, user: str | None = None) -> Viewer:
    made = Viewer("s", replace(WORLD, user=user), Paper(), reasons=True)  # type: ignore[arg-type]  # it never ends
    if held is not None:
        made.hold(held)
    return made


def claiming(*claimed: tuple[str, int]) -> Sight:
    return Sight(viewer(), Kind.ANSWER, 0.01, None, list(claimed))


def tails(drafts: list[Draft]) -> int:
    """How many were put together."""
    return len({id(draft.frame.tail) for draft in drafts if draft.frame is not None})


def updates(draft: Draft) -> dict[str, object]:
    assert draft.frame is not None
    told: dict[str, object] = orjson.loads(draft.frame.text)["updates"]
    return told


def snapshot(lookout: Lookout, user: str | None = None) -> Held:
    one = viewer(user=user)
    assert deliver(draw(lookout, [Sight(one, Kind.SNAPSHOT, None)], NOW)[0])
    return one.held


def test_equal_claims_are_answered_by_one_difference(lookout: Lookout) -> None:
    drafts = draw(lookout, [claiming(("e0", 1), ("gone", 7)) for _ in range(50)], NOW)
    assert (tails(drafts), len({id(draft.held) for draft in drafts})) == (1, 1)


def test_claims_that_differ_only_in_what_nobody_knows_are_answered_each_by_its_own(lookout: Lookout) -> None:
    drafts = draw(
        lookout, [claiming(("e0", 1), ("gone", 7)), claiming(("e0", 1), ("went", 7)), claiming(("e0", 1))], NOW
    )
    assert [updates(draft)["deletes"] for draft in drafts] == [["gone"], ["went"], []]


def test_what_is_remembered_alike_is_answered_by_one_difference_also_when_it_was_learnt_apart(lookout: Lookout) -> None:
    held = [snapshot(lookout) for _ in range(2)]
    assert held[0] == held[1] and held[0] is not held[1]
    drafts = draw(lookout, [Sight(viewer(one), Kind.ANSWER, 0.01) for one in held], NOW)
    assert tails(drafts) == 1


def test_what_was_handed_over_may_be_called_hidden_and_what_is_only_claimed_may_not(lookout: Lookout) -> None:
    lookout.columns.put(event("hers", 9, 0.9, private=True, creator_id="ann"), NOW)
    known = draw(lookout, [Sight(viewer(snapshot(lookout, "ann")), Kind.ANSWER, 0.01)], NOW)[0]
    claimed = draw(lookout, [claiming(("hers", 9))], NOW)[0]
    assert (updates(known)["reasons"], updates(claimed)["reasons"]) == ({"hers": "hidden"}, {"hers": "removed"})
