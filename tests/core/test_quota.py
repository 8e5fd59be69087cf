import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.core.quota import Bucket

pytestmark = pytest.mark.pure


def test_a_burst_may_be_taken_at_once_and_nothing_beyond_it() -> None:
    bucket = Bucket.full(20, 50, now=100)
    assert [bucket.take(100) for _ in range(51)] == [True] * 50 + [False]


def test_it_fills_with_the_rate_and_no_higher_than_the_burst() -> None:
    bucket = Bucket.full(20, 50, now=0)
    assert bucket.take(0, 50)
    assert not bucket.take(0.04)
    assert bucket.take(0.05)
    assert bucket.take(1000, 50)
    assert not bucket.take(1000)


def test_what_is_refused_takes_nothing() -> None:
    bucket = Bucket.full(1, 10, now=0)
    assert not bucket.take(0, 11)
    assert bucket.take(0, 10)


def test_refusals_do_not_put_off_the_next_token() -> None:
    bucket = Bucket.full(1, 1, now=0)
    assert bucket.take(0)
    assert [bucket.take(tenth / 8) for tenth in range(1, 8)] == [False] * 7
    assert bucket.take(1)


GAPS = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 5)), max_size=60)


@given(st.integers(1, 8), st.integers(1, 20), GAPS)
def test_no_window_lets_through_more_than_burst_plus_rate_times_its_length(
    rate: int, burst: int, asked: list[tuple[int, int]]
) -> None:
    bucket, now = Bucket.full(rate, burst, now=0), 0.0
    taken: list[tuple[float, int]] = []
    for eighths, amount in asked:
        now += eighths / 8
        if bucket.take(now, amount):
            taken.append((now, amount))
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            total = sum(amount for _, amount in taken[first : last + 1])
            assert total <= burst + rate * (taken[last][0] - taken[first][0])


@given(st.sampled_from([1, 2, 4, 8]), st.integers(1, 20), GAPS)
def test_who_stays_below_the_rate_is_never_refused(rate: int, burst: int, asked: list[tuple[int, int]]) -> None:
    bucket, now = Bucket.full(rate, burst, now=0), 0.0
    for eighths, amount in asked:
        amount = min(amount, burst)
        now += eighths / 8 + amount / rate
        assert bucket.take(now, amount)
