"""Slots stay on their grid, and batches of one platform keep out of each other's way."""

from __future__ import annotations

import datetime as dt
from math import gcd

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.batching.schedules.cadence import Minutes, minute_of, next_slot, slot_at, time_of, wanted_offset

pytestmark = pytest.mark.pure

hours = st.sampled_from([6, 12, 24, 72, 1, 7, 48, 168])
minutes = st.integers(0, 60_000_000)


@settings(deadline=None)
@given(minutes, hours, st.data())
def test_a_slot_is_on_the_grid_and_the_next_one_an_interval_later(minute: int, hours: int, data: st.DataObject) -> None:
    offset = data.draw(st.integers(0, hours * 60 - 1))
    at, following = slot_at(minute, hours, offset), next_slot(minute, hours, offset)
    assert at <= minute < following == at + hours * 60
    assert at % (hours * 60) == offset
    assert next_slot(at, hours, offset) == following and slot_at(following, hours, offset) == following


@settings(deadline=None)
@given(minutes)
def test_a_minute_is_the_beginning_of_its_time(minute: int) -> None:
    assert minute_of(time_of(minute)) == minute == minute_of(time_of(minute) + dt.timedelta(seconds=59.9))


def test_batch_k_runs_a_quarter_of_an_hour_after_the_one_before() -> None:
    assert [wanted_offset(k, 6) for k in (0, 1, 2, 24, 25)] == [0, 15, 30, 0, 15]
    free = Minutes()
    assert [free.take(k, 6) for k in range(26)][:3] == [0, 15, 30]


def test_a_taken_minute_is_passed_over_for_the_next_one() -> None:
    taken = Minutes([(6, 0), (12, 1), (24, 15)])
    assert taken.take(0, 6) == 2
    assert taken.take(1, 72) == 16


def meet(a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Do two batches ever run in the same minute?"""
    return (a[1] - b[1]) % gcd(a[0] * 60, b[0] * 60) == 0


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), hours), max_size=30))
def test_no_two_share_a_minute_while_one_is_left(wanted: list[tuple[int, int]]) -> None:
    free, placed = Minutes(), list[tuple[int, int]]()
    for index, every in wanted:
        lonely = [m for m in range(every * 60) if not any(meet((every, m), other) for other in placed)]
        offset = free.take(index, every)
        assert offset in lonely if lonely else 0 <= offset < every * 60
        assert not lonely or (offset - wanted_offset(index, every)) % (every * 60) == min(
            (m - wanted_offset(index, every)) % (every * 60) for m in lonely
        )
        placed.append((every, offset))


def test_a_full_platform_shares_its_minutes_out_evenly() -> None:
    free = Minutes()
    offsets = [free.take(k, 6) for k in range(720)]
    assert all(offsets.count(minute) == 2 for minute in range(360))
    assert free.meeting(6, 0) == 2
