"""What is decided about runs: which lost start belongs to which run, and what an end means for a business. Pure."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.batching.schedules.outcomes import ENDED, HESITATION_S, Ladder, Seen, fails, grace_s, match, stale_s, why
from server.edge import apify

pytestmark = pytest.mark.pure
A, B = {"placeIds": ["a"], "maxReviews": 5}, {"placeIds": ["b"], "maxReviews": 5}


def test_a_run_belongs_to_the_intent_with_its_input_each_to_one() -> None:
    seen = [Seen("r1", A), Seen("r2", A), Seen("r3", {"placeIds": ["c"]}), Seen("r4", None)]
    assert match([(1, A), (2, B), (3, A), (4, A)], seen) == {1: "r1", 3: "r2"}


def test_limits_that_were_set_anew_since_do_not_hide_a_run_but_an_equal_one_comes_first() -> None:
    old = {**A, "maxReviews": 100}
    assert match([(1, A)], [Seen("r1", old), Seen("r2", A)]) == {1: "r2"}
    assert match([(1, A), (2, A)], [Seen("r1", old), Seen("r2", A)]) == {1: "r2", 2: "r1"}
    assert match([(1, A)], [Seen("r1", {**old, "language": "de"})]) == {}


INPUTS = st.sampled_from([A, B, {**A, "maxReviews": 9}, {"startUrls": []}])


@given(st.lists(INPUTS, max_size=5), st.lists(INPUTS | st.none(), max_size=5))
def test_no_run_is_given_away_twice_and_none_is_left_that_would_fit(wanted: list, given_: list) -> None:
    seen = [Seen(f"r{n}", value) for n, value in enumerate(given_)]
    found = match(list(enumerate(wanted)), seen)
    assert len(set(found.values())) == len(found)
    left = [one.input for one in seen if one.run_id not in found.values()]
    assert not any(value in left for n, value in enumerate(wanted) if n not in found)


@given(st.floats(0.1, 600))
def test_a_start_is_not_taken_for_lost_while_it_may_still_be_made(call_s: float) -> None:
    latest_s = HESITATION_S + call_s
    assert latest_s < stale_s(call_s) < grace_s(call_s)


def test_every_end_that_the_provider_knows_has_a_name_of_ours() -> None:
    assert set(ENDED) == apify.ENDED
    assert len(set(ENDED.values())) == 4


def test_an_abort_is_held_against_a_retry_and_against_nobody_else() -> None:
    assert [fails(kind, "aborted") for kind in ("scheduled", "triggered", "retry")] == [False, False, True]
    assert all(fails("scheduled", state) for state in ("succeeded", "failed", "timed_out", "refused"))


def test_a_reason_is_a_sentence_of_bounded_length() -> None:
    assert "timed out: too slow" in why("timed_out", "too slow")
    assert len(why("failed", "x" * 9_999)) == 500


@given(st.integers(0, 10), st.floats(1, 1e6))
def test_a_ladder_grows_and_ends(retries: int, first_s: float) -> None:
    ladder = Ladder(first_s, retries=retries)
    waits = ladder.after_retries
    assert len(waits) == retries + 1 and waits[-1] is None
    assert all(a is not None and (b is None or b > a) for a, b in itertools.pairwise(waits))
