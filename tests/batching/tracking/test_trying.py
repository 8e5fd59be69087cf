"""What a failure means, and when it is tried again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.batching.tracking.trying import SETTLE_S, Failure, Reason, Terms, Try, Wanted, again, fits, of_status

pytestmark = pytest.mark.pure

POST = Wanted(1, "x", "1", "https://x.com/i/status/1")
TERMS = Terms(retries=2, first_s=5.0, call_s=60.0)


def retry(
    one: Try, failure: Failure, *, others: int = 0, together: bool = False, jitter: float = 0.0, now_s: float = 100.0
) -> Try | None:
    return again(one, failure, "a/1", others=others, together=together, now_s=now_s, jitter=jitter, terms=TERMS)


@pytest.mark.parametrize(
    ("status", "reason", "retryable"),
    [
        (400, "rejected", False),
        (401, "rejected", False),
        (403, "rejected", False),
        (404, "not_found", False),
        (410, "not_found", False),
        (408, "provider", True),
        (409, "rejected", False),
        (425, "provider", True),
        (429, "limited", True),
        (499, "rejected", False),
        (500, "provider", True),
        (503, "provider", True),
        (599, "provider", True),
    ],
)
def test_a_status_says_whether_it_may_work_later(status: int, reason: str, retryable: bool) -> None:
    failure = of_status(status)
    assert (failure.reason, failure.retryable) == (reason, retryable)


@pytest.mark.parametrize("jitter", [0.0, 0.5, 0.999])
def test_the_first_retry_comes_after_five_seconds_at_least_and_the_next_after_ten(jitter: float) -> None:
    failure = Failure("provider", "", retryable=True)
    first = retry(Try(POST), failure, jitter=jitter)
    assert first is not None and 105 <= first.due_s <= 106.25
    second = retry(first, failure, jitter=jitter)
    assert second is not None and 110 <= second.due_s <= 112.5
    assert (second.attempt, second.tried) == (3, ("a/1", "a/1"))
    assert retry(second, failure) is None


def test_who_says_when_to_come_back_is_believed_but_not_before_the_usual_wait() -> None:
    late = retry(Try(POST), Failure("limited", "", True, after_s=90.0))
    soon = retry(Try(POST), Failure("limited", "", True, after_s=1.0))
    assert late is not None and late.due_s == 190
    assert soon is not None and soon.due_s >= 105


def test_a_post_that_is_gone_or_refused_is_not_asked_for_again() -> None:
    for failure in (Failure("not_found", ""), Failure("auth", ""), Failure("unsupported", "")):
        assert retry(Try(POST), failure, others=3, together=True) is None


@pytest.mark.parametrize("reason", ["missing", "implausible", "rejected", "no_actor"])
def test_what_one_actor_cannot_do_another_may(reason: Reason) -> None:
    assert retry(Try(POST), Failure(reason, ""), others=0) is None
    other = retry(Try(POST), Failure(reason, ""), others=1)
    assert other is not None and other.tried == ("a/1",)


def test_what_was_missing_among_others_is_asked_for_alone_of_the_same_actor() -> None:
    alone = retry(Try(POST), Failure("missing", ""), together=True)
    assert alone is not None and (alone.alone, alone.tried) == (True, ())
    assert retry(alone, Failure("missing", ""), together=False) is None
    assert retry(Try(POST), Failure("implausible", ""), together=True) is None, "it was there, and said nonsense"


@given(
    st.sampled_from(["timeout", "missing", "implausible", "not_found", "rejected", "limited"]),
    st.booleans(),
    st.integers(0, 3),
    st.booleans(),
    st.floats(0, 0.999),
)
def test_whatever_fails_there_are_at_most_two_retries(
    reason: Reason, retryable: bool, others: int, together: bool, jitter: float
) -> None:
    one: Try | None = Try(POST)
    tries = 0
    while one is not None:
        tries += 1
        one = retry(one, Failure(reason, "", retryable), others=others, together=together, jitter=jitter)
    assert 1 <= tries <= 3


@pytest.mark.parametrize(
    ("now", "yes"), [(0.0, True), (300 - 60 - SETTLE_S, True), (300 - 60 - SETTLE_S + 0.001, False), (300.0, False)]
)
def test_no_batch_begins_that_could_not_end_in_time(now: float, yes: bool) -> None:
    assert fits(now, 300.0, 60.0) is yes
