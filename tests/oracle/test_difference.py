import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.core.event import held_hash
from tests.oracle.difference import DIGEST_MASK, Difference, Held, Shown, apply, difference, moved
from tests.oracle.view import digest

pytestmark = pytest.mark.pure

IDS = st.sampled_from([f"e{i}" for i in range(8)])
SCORES = st.sampled_from([0.0, 0.005, 0.01, 0.5, 0.505, 0.51, 0.52, 1.0]) | st.floats(0, 1)
THRESHOLDS = st.sampled_from([None, 0.0, 0.01, 0.5])


def shown(event_id: str, version: int, score: float) -> Shown:
    return Shown(event_id, version, score, held_hash(event_id, version))


def held(event_id: str, version: int, score: float) -> Held:
    return Held(version, score, held_hash(event_id, version))


VIEWS = st.lists(st.tuples(IDS, st.integers(1, 3), SCORES), unique_by=lambda one: one[0]).map(
    lambda found: [shown(*one) for one in found]
)
HOLDINGS = VIEWS.map(lambda found: {one.id: Held(one.version, one.score, one.mark) for one in found})


def total(holding: dict[str, Held]) -> int:
    return int(digest({event_id: one.version for event_id, one in holding.items()}), 16)


@given(HOLDINGS, VIEWS, THRESHOLDS)
def test_what_is_held_and_the_difference_give_the_fresh_view(
    holding: dict[str, Held], fresh: list[Shown], threshold: float | None
) -> None:
    before = dict(holding)
    change = difference(holding, fresh, threshold)
    assert holding == before, "looking changes nothing"
    shift = apply(holding, fresh, change)
    assert {i: one.version for i, one in holding.items()} == {one.id: one.version for one in fresh}
    assert holding.keys() == {one.id for one in fresh}
    for one in fresh:
        if threshold is not None:
            far = abs(holding[one.id].score - one.score)
            assert far < threshold or far == 0
    assert (total(before) + shift) & DIGEST_MASK == total(holding)


@given(HOLDINGS, VIEWS, THRESHOLDS)
def test_creates_updates_and_deletes_never_overlap_and_keep_the_order_of_the_view(
    holding: dict[str, Held], fresh: list[Shown], threshold: float | None
) -> None:
    change = difference(holding, fresh, threshold)
    creates, updates = [fresh[p].id for p in change.creates], [fresh[p].id for p in change.updates]
    assert len({*creates, *updates, *change.deletes}) == len(change)
    assert list(change.creates) == sorted(change.creates) and list(change.updates) == sorted(change.updates)
    assert not set(creates) & holding.keys()
    assert set(updates) <= holding.keys() and set(change.deletes) <= holding.keys()


@given(HOLDINGS, VIEWS, THRESHOLDS)
def test_applied_once_there_is_nothing_more_to_send(
    holding: dict[str, Held], fresh: list[Shown], threshold: float | None
) -> None:
    apply(holding, fresh, difference(holding, fresh, threshold))
    assert not difference(holding, fresh, threshold)


@given(HOLDINGS, VIEWS, THRESHOLDS)
def test_no_update_is_sent_without_a_reason(
    holding: dict[str, Held], fresh: list[Shown], threshold: float | None
) -> None:
    for position in difference(holding, fresh, threshold).updates:
        one = fresh[position]
        known = holding[one.id]
        assert known.version != one.version or (
            threshold is not None and one.score != known.score and abs(one.score - known.score) >= threshold
        )


@pytest.mark.parametrize(
    ("before", "after", "threshold", "sent"),
    [
        (0.5, 0.51, 0.01, True),
        (0.5, 0.5099, 0.01, False),
        (0.51, 0.5, 0.01, True),
        (0.0, 0.25, 0.25, True),
        (0.5, 0.5, 0.0, False),
        (0.5, 0.5000001, 0.0, True),
        (0.0, 1.0, 1.0, True),
        (0.0, 0.9999, 1.0, False),
        (0.0, 1.0, None, False),
        (-1.0, 0.0, 1.0, True),
    ],
)
def test_a_score_is_sent_when_it_moved_by_the_threshold_or_more(
    before: float, after: float, threshold: float | None, sent: bool
) -> None:
    assert moved(before, after, threshold) is sent
    change = difference({"a": held("a", 1, before)}, [shown("a", 1, after)], threshold)
    assert change.updates == ((0,) if sent else ())


def test_moves_below_the_threshold_add_up_until_they_are_sent() -> None:
    holding, sent = {"a": held("a", 1, 0.0)}, []
    for step in range(1, 9):
        view = [shown("a", 1, step / 256)]
        change = difference(holding, view, 4 / 256)
        apply(holding, view, change)
        sent.append(bool(change))
    assert sent == [False, False, False, True, False, False, False, True]


def test_without_a_threshold_only_content_and_membership_are_sent() -> None:
    holding = {"a": held("a", 1, 0.1), "b": held("b", 1, 0.1), "gone": held("gone", 1, 0.1)}
    fresh = [shown("new", 1, 0.9), shown("a", 2, 0.9), shown("b", 1, 0.9)]
    assert difference(holding, fresh, None) == Difference((0,), (1,), ("gone",))


def test_an_empty_difference_is_false_and_has_no_length() -> None:
    assert not Difference()
    assert len(Difference((0,), (1, 2), ("a",))) == 4
    assert apply({}, [], Difference()) == 0


def test_the_digest_of_nothing_is_zero_and_that_of_one_is_its_mark() -> None:
    holding: dict[str, Held] = {}
    view = [shown("a", 7, 0.5)]
    mark = apply(holding, view, difference(holding, view, 0.01))
    assert f"{mark:016x}" == digest({"a": 7})
    assert (mark + apply(holding, [], difference(holding, [], 0.01))) & DIGEST_MASK == 0
