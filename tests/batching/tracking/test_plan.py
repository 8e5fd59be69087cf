"""The score of a clip, to the hundredth of an hour, and the whole order against the slow one in tests/oracle."""

import datetime as dt
from dataclasses import asdict, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.batching.tracking.plan import Clip, eligible, is_new, most_urgent, priority
from tests.oracle import urgency

pytestmark = pytest.mark.pure

NOW = dt.datetime(2026, 3, 20, 12, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
TICK = dt.timedelta(microseconds=1)
OLD = NOW - 30 * 24 * HOUR


def ago(hours: float) -> dt.datetime:
    return NOW - hours * HOUR


def clip(number: int = 1, **more: object) -> Clip:
    base = Clip(number, "active", "ok", OLD, ago(10), OLD, ago(1))
    return replace(base, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("hours", "campaign_days", "score"),
    [
        (10, 30, 20.0),
        (7.99, 30, 7.99),
        (3.99, 30, 1.995),
        (10, 6.99, 30.0),
        (8, 30, 16.0),
        (4, 30, 4.0),
        (10, 7, 20.0),
        (5, 1, 7.5),
        (2, 1, 1.5),
        (0, 1, 0.0),
    ],
)
def test_the_score_of_so_many_hours_and_a_campaign_so_many_days_old(
    hours: float, campaign_days: float, score: float
) -> None:
    assert priority(ago(hours), ago(24 * campaign_days), NOW) == pytest.approx(score, abs=1e-9)


def test_what_was_never_looked_at_scores_999_and_half_as_much_again_in_a_new_campaign() -> None:
    assert priority(None, OLD, NOW) == 999.0
    assert priority(None, ago(1), NOW) == 1498.5
    assert priority(None, None, NOW) == 999.0


def test_a_campaign_is_new_until_the_moment_it_is_seven_days_old() -> None:
    week = dt.timedelta(days=7)
    assert is_new(NOW - week + TICK, NOW)
    assert not is_new(NOW - week, NOW)
    assert not is_new(None, NOW)


def test_a_microsecond_before_a_band_the_lower_weight_still_holds() -> None:
    assert priority(ago(8) + TICK, OLD, NOW) < 8 < priority(ago(8), OLD, NOW)
    assert priority(ago(4) + TICK, OLD, NOW) < 2 < priority(ago(4), OLD, NOW)


def test_never_looked_at_comes_before_any_score() -> None:
    years = clip(1, last_checked_at=NOW - dt.timedelta(days=900))
    assert [one.id for one in most_urgent([years, clip(2, last_checked_at=None)], NOW, 2)] == [2, 1]


def test_a_new_campaign_overtakes_what_has_waited_less_than_half_as_long_again() -> None:
    new = clip(1, last_checked_at=ago(10), newest_campaign_at=ago(1))
    order = most_urgent([new, clip(2, last_checked_at=ago(14.9)), clip(3, last_checked_at=ago(15.1))], NOW, 3)
    assert [one.id for one in order] == [3, 1, 2]


def test_of_equal_scores_the_one_looked_at_longer_ago_comes_first_and_then_the_lower_id() -> None:
    new = clip(1, last_checked_at=ago(10), newest_campaign_at=ago(1))
    old = clip(9, last_checked_at=ago(15))
    assert priority(new.last_checked_at, ago(1), NOW) == priority(old.last_checked_at, OLD, NOW)
    assert [one.id for one in most_urgent([new, clip(2, last_checked_at=ago(15)), old], NOW, 3)] == [2, 9, 1]


def test_of_those_never_looked_at_the_one_that_came_first_is_first_whatever_its_id() -> None:
    late, early = clip(1, last_checked_at=None, created_at=ago(1)), clip(2, last_checked_at=None, created_at=ago(2))
    assert [one.id for one in most_urgent([late, early], NOW, 2)] == [2, 1]


def test_clips_of_campaigns_that_are_over_get_what_is_left() -> None:
    over = clip(1, tracked="ended", last_checked_at=None)
    assert [one.id for one in most_urgent([over, clip(2, last_checked_at=ago(0.1))], NOW, 2)] == [2, 1]
    assert [one.id for one in most_urgent([over, clip(2)], NOW, 1)] == [2]


@pytest.mark.parametrize(
    ("more", "may"),
    [
        ({}, True),
        ({"tracked": "none"}, False),
        ({"tracked": "ended"}, True),
        ({"state": "unavailable"}, False),
        ({"state": "unsupported"}, False),
        ({"next_due_at": NOW}, True),
        ({"next_due_at": NOW + TICK}, False),
        ({"lease_until": NOW}, True),
        ({"lease_until": NOW + TICK}, False),
        ({"lease_until": NOW - TICK}, True),
    ],
)
def test_who_may_be_looked_at(more: dict[str, object], may: bool) -> None:
    assert eligible(clip(**more), NOW) is may


HOURS = st.one_of(
    st.sampled_from([0.0, 4, 8, 10, 12, 15, 24]), st.floats(0, 200, allow_nan=False), st.integers(0, 60).map(float)
)
EDGE = st.sampled_from([-TICK, dt.timedelta(0), TICK])


def moments(hours: st.SearchStrategy[float] = HOURS) -> st.SearchStrategy[dt.datetime]:
    return st.builds(lambda h, edge: ago(h) + edge, hours, EDGE)


CLIPS = st.lists(
    st.builds(
        Clip,
        id=st.just(0),
        tracked=st.sampled_from(["active", "active", "active", "ended", "none"]),
        state=st.sampled_from(["ok", "ok", "ok", "unavailable"]),
        created_at=moments(),
        last_checked_at=st.one_of(st.none(), moments(), moments()),
        newest_campaign_at=st.one_of(st.none(), moments(st.sampled_from([1.0, 168.0, 500.0]))),
        next_due_at=moments(st.sampled_from([-5.0, 0.0, 3.0])),
        lease_until=st.one_of(st.none(), st.none(), moments(st.sampled_from([-1.0, 0.0, 1.0]))),
    ),
    max_size=25,
)


@settings(max_examples=200)
@given(CLIPS, st.integers(1, 30))
def test_the_order_is_the_slow_one(drawn: list[Clip], limit: int) -> None:
    clips = [replace(one, id=number) for number, one in enumerate(drawn)]
    chosen = [one.id for one in most_urgent(clips, NOW, limit)]
    assert chosen == urgency.most_urgent([asdict(one) for one in clips], NOW, limit)
