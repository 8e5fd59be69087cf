"""Rotations by arithmetic: any day's are known at once, and every month may have a city."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.batching.tiers.months import days_of, month_of
from server.batching.tiers.rotations import Grid, Rotation, allowance, anchor_of, laid
from server.batching.tiers.rules import RULES, TIERS, Tier
from server.batching.tiers.visits import Days, Visit
from tests.batching.tiers.invented import SEED

pytestmark = pytest.mark.pure

tiers = st.sampled_from(TIERS)
keys = st.text(min_size=1, max_size=8)
days = st.integers(15_000, 30_000)


def grid(tier: Tier, key: str) -> Grid:
    return Grid(SEED, key, tier, anchor_of(SEED, key))


@given(tiers, keys, days, st.integers(1, 400))
def test_they_cover_all_days_in_whole_weeks_within_bounds(tier: Tier, key: str, first: int, many: int) -> None:
    found = list(grid(tier, key).between(first, first + many))
    least, most = RULES[tier].rotation_weeks
    assert found[0].first <= first and found[-1].end >= first + many
    assert all(one.end == other.first for one, other in pairwise(found))
    assert all((one.end - one.first) % 7 == 0 and least <= (one.end - one.first) // 7 <= most for one in found)
    assert all(one.end > first and one.first < first + many for one in found)


@given(tiers, keys, days, st.integers(0, 500))
def test_a_days_rotation_is_the_same_from_wherever_one_looks(tier: Tier, key: str, day: int, before: int) -> None:
    one = next(grid(tier, key).between(day, day + 1))
    assert one in list(grid(tier, key).between(day - before, day + 1))
    assert grid(tier, key).holds(one)
    assert not grid(tier, key).holds(Rotation(one.first, one.end + 7, tier, one.anchor))


@pytest.mark.parametrize("tier", TIERS)
def test_every_length_is_as_likely_as_any_other(tier: Tier) -> None:
    lengths = [(one.end - one.first) // 7 for n in range(60) for one in grid(tier, f"p{n}").between(20_000, 24_000)]
    least, most = RULES[tier].rotation_weeks
    shares = [lengths.count(weeks) / len(lengths) for weeks in range(least, most + 1)]
    assert shares == pytest.approx([1 / (most - least + 1)] * len(shares), abs=0.04)


@given(tiers, keys, days)
def test_a_rotation_has_three_cities_at_most_whatever_months_it_reaches_into(tier: Tier, key: str, day: int) -> None:
    one = next(grid(tier, key).between(day, day + 1))
    months = range(month_of(one.first), month_of(one.end - 1) + 1)
    assert sum(allowance(one, month) for month in months) == 3


@given(tiers, keys, st.integers(24_000, 27_000))
def test_every_month_may_have_a_city(tier: Tier, key: str, month: int) -> None:
    found = laid(SEED, key, tier, (), month)
    assert sum(allowance(one, month) for one in found) >= 1


@given(tiers, keys, st.integers(24_000, 27_000), st.integers(1, 5))
def test_months_that_follow_each_other_agree_on_what_they_share(tier: Tier, key: str, month: int, many: int) -> None:
    whole = list(grid(tier, key).between(days_of(month)[0], days_of(month + many)[1]))
    stored: list[Rotation] = []
    for step in range(many + 1):
        stored = [*stored, *(one for one in laid(SEED, key, tier, stored[-3:], month + step) if one not in stored)]
    assert stored == whole


def test_people_begin_at_different_days() -> None:
    assert len({anchor_of(SEED, f"p{number}") for number in range(500)}) > 120


def test_a_rotation_that_had_three_cities_in_other_months_has_no_room_left() -> None:
    """With another seed or tier its allowances were others."""
    first, end = days_of(24_327)
    long = Rotation(first - 20, first + 15, "C", first)
    visits = [Visit(city, first - 10 + city, 3) for city in range(3)]
    assert Days(24_327, (first, end), [long], visits).most == 0
    assert Days(24_327, (first, end), [long], visits[:1]).most == 1 == allowance(long, 24_327)
