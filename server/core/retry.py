"""When to try again: a wait that doubles, up to a cap, spread so that many who failed together don't come back together. Pure."""

from __future__ import annotations

DOUBLINGS_MOST = 40
"""More would leave the range of what a wait can be long before they leave that of a float."""


def delay_s(failures: int, *, first_s: float, cap_s: float, jitter: float, spread: float = 0.5) -> float:
    """The wait after the `failures`-th failure in a row (from 1). `jitter` is a number in [0, 1): 0 is the whole wait,
    1 would be shorter by the share `spread`."""
    assert failures >= 1, f"a wait follows a failure, not {failures}"
    assert 0 <= jitter < 1, f"jitter is a number in [0, 1), not {jitter}"
    assert 0 <= spread <= 1, f"the spread is a share, not {spread}"
    whole_s = min(cap_s, first_s * 2.0 ** min(failures - 1, DOUBLINGS_MOST))
    return whole_s * (1 - spread * jitter)


def exhausted(failures: int, max_retries: int) -> bool:
    """Whether the `failures`-th failure was the last: the first attempt is not a retry."""
    return failures > max_retries
