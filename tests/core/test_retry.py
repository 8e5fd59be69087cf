"""The ladder of waits: doubling, capped, spread."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.core.retry import delay_s, exhausted

pytestmark = pytest.mark.pure


def test_without_jitter_the_wait_doubles_from_the_first_and_stops_at_the_cap() -> None:
    waits = [delay_s(n, first_s=5, cap_s=60, jitter=0) for n in range(1, 7)]
    assert waits == [5, 10, 20, 40, 60, 60]


@given(st.integers(1, 10_000), st.floats(0.001, 100), st.floats(0.001, 1e6), st.floats(0, 0.999999), st.floats(0, 1))
def test_a_wait_is_never_longer_than_the_cap_nor_shorter_than_its_share(
    failures: int, first: float, cap: float, jitter: float, spread: float
) -> None:
    wait = delay_s(failures, first_s=first, cap_s=cap, jitter=jitter, spread=spread)
    whole = delay_s(failures, first_s=first, cap_s=cap, jitter=0)
    assert whole * (1 - spread) * (1 - 1e-9) <= wait <= whole <= cap


def test_different_jitter_spreads_those_who_failed_together() -> None:
    waits = {delay_s(1, first_s=5, cap_s=60, jitter=n / 100) for n in range(100)}
    assert len(waits) == 100
    assert min(waits) >= 2.5


@given(st.integers(0, 100))
def test_the_first_attempt_is_not_a_retry(max_retries: int) -> None:
    assert not exhausted(max_retries, max_retries)
    assert exhausted(max_retries + 1, max_retries)


@pytest.mark.parametrize("bad", [{"failures": 0}, {"jitter": 1.0}, {"jitter": -0.1}, {"spread": 1.1}])
def test_what_makes_no_sense_is_a_bug(bad: dict[str, float]) -> None:
    with pytest.raises(AssertionError):
        delay_s(**{"failures": 1, "first_s": 5, "cap_s": 60, "jitter": 0, "spread": 0.5, **bad})  # type: ignore[arg-type]
