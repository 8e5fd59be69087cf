"""A holder beats often enough to lose two heartbeats, and others look often enough."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.core.lease import beat_again_s, beat_every_s, beat_limit_s, look_every_s, noticed_within_s

pytestmark = pytest.mark.pure

leases = st.floats(0.01, 86_400)


@given(leases)
def test_two_heartbeats_may_be_lost_and_the_third_still_comes_in_time(lease: float) -> None:
    assert 2 * beat_every_s(lease) + beat_limit_s(lease) < lease


@given(leases)
def test_an_answer_that_is_too_late_is_given_up_before_the_next_beat(lease: float) -> None:
    assert beat_limit_s(lease) < beat_every_s(lease)


@given(leases)
def test_a_beat_that_failed_is_tried_again_several_times_before_the_next_was_due(lease: float) -> None:
    assert 5 * beat_again_s(lease) < beat_every_s(lease)


def test_with_thirty_seconds_a_killed_worker_is_noticed_after_thirty_five() -> None:
    assert (beat_every_s(30), look_every_s(30), noticed_within_s(30)) == (10, 5, 35)


def test_a_lease_of_no_time_is_a_bug() -> None:
    with pytest.raises(AssertionError):
        beat_every_s(0)
