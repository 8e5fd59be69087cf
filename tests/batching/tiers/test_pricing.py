"""Six prices: in range, in proportion to the cent, and spread over all of the range."""

from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.batching.tiers.chance import seed_of
from server.batching.tiers.pricing import Package, log_uniform, priced, window
from server.batching.tiers.rules import RULES, TIERS, Person, Tier
from tests.batching.tiers.invented import SEED

pytestmark = pytest.mark.pure

MANY = 4_000
WORTHS = st.none() | st.integers(0, 10**14)


def prices(packages: tuple[Package, ...]) -> dict[tuple[str, int], int]:
    return {(one.kind, one.minutes): one.price_cents for one in packages}


@given(st.sampled_from(TIERS), st.text(max_size=12), WORTHS, st.binary(min_size=1, max_size=64))
def test_every_price_is_in_range_and_in_proportion(tier: Tier, key: str, worth: int | None, seed: bytes) -> None:
    found = priced(tier, Person(key, "n", net_worth_cents=worth), seed)
    cents, (least, most) = prices(found.packages), RULES[tier].price_cents
    assert len(cents) == 6 and all(least <= price <= most for price in cents.values())
    share = Fraction(cents["virtual", 15], cents["physical", 15])
    assert Fraction(60, 100) <= share <= Fraction(80, 100)
    for kind, (minutes, times) in product(("physical", "virtual"), ((30, Fraction(9, 5)), (60, Fraction(3)))):
        assert Fraction(cents[kind, minutes]) == times * cents[kind, 15]
    assert all(Fraction(cents["virtual", m]) == share * cents["physical", m] for m in (15, 30, 60))


@given(st.sampled_from(TIERS), st.text(max_size=12), st.integers(0, 10**14))
def test_a_net_worth_caps_the_dearest_at_a_hundredth_or_flags(tier: Tier, key: str, worth: int) -> None:
    found = priced(tier, Person(key, "n", net_worth_cents=worth), SEED)
    free = prices(priced(tier, Person(key, "n"), SEED).packages)
    cents = prices(found.packages)
    assert found.over_net_worth == (100 * cents["physical", 60] > worth)
    assert cents["physical", 60] <= free["physical", 60]
    if found.over_net_worth:
        cheapest = RULES[tier].price_cents[0]
        assert cheapest <= cents["virtual", 15] < cheapest + 5 * 80


@pytest.mark.parametrize("tier", TIERS)
def test_prices_are_spread_over_the_window_evenly_by_logarithm(tier: Tier) -> None:
    found = [prices(priced(tier, Person(f"p{number}", "n"), SEED).packages) for number in range(MANY)]
    least, most = RULES[tier].price_cents
    dearest = sorted(one["physical", 60] for one in found)
    cheapest = min(one["virtual", 15] for one in found)
    assert len({tuple(one.values()) for one in found}) > MANY / 4
    assert cheapest < 1.02 * least and dearest[-1] > 0.98 * most
    shares = {Fraction(one["virtual", 15], one["physical", 15]) for one in found}
    assert shares == {Fraction(percent, 100) for percent in range(60, 81)}
    # Log-uniform between 3 min / v and max: a quarter of the people in each quarter of the logarithm, v taken as 0.7.
    start = 3 * least / 0.7
    quarters = [sum(cents < start * (most / start) ** (part / 4) for cents in dearest) / MANY for part in (1, 2, 3)]
    assert quarters == pytest.approx([0.25, 0.5, 0.75], abs=0.05)


def test_most_slots_are_spread_over_their_bounds() -> None:
    for tier in TIERS:
        found = {priced(tier, Person(f"p{number}", "n"), SEED).max_monthly_slots for number in range(1_000)}
        least, most = RULES[tier].max_slots
        assert found == set(range(least, most + 1))


def test_another_seed_tier_or_person_has_other_prices_and_the_same_has_the_same() -> None:
    one = priced("B", Person("a", "n"), SEED)
    assert one == priced("B", Person("a", "another name"), SEED)
    others = [
        priced("B", Person("b", "n"), SEED),
        priced("B", Person("a", "n"), seed_of("x")),
        priced("C", Person("a", "n"), SEED),
    ]
    assert all(one.packages != other.packages for other in others)


def test_what_is_not_allowed_is_priced_but_not_active() -> None:
    found = priced("A", Person("a", "n", allow_physical=False), SEED).packages
    assert [one.active for one in found] == [False] * 3 + [True] * 3
    assert prices(found) == prices(priced("A", Person("a", "n"), SEED).packages)


def test_a_log_uniform_draw_reaches_both_ends() -> None:
    assert log_uniform(25, 133, 0.0) == 25 and log_uniform(25, 133, 1 - 2**-32) == 133
    assert log_uniform(7, 7, 0.0) == log_uniform(7, 7, 0.99) == 7


def test_a_net_worth_just_at_the_cheapest_price_is_not_flagged_and_a_cent_less_is() -> None:
    free = priced("B", Person("a", "n"), SEED)
    percent = 100 * free.packages[3].price_cents // free.packages[0].price_cents
    cheapest = window(RULES["B"].price_cents, percent)[0] * 1500
    at = priced("B", Person("a", "n", net_worth_cents=100 * cheapest), SEED)
    below = priced("B", Person("a", "n", net_worth_cents=100 * cheapest - 1), SEED)
    assert (at.over_net_worth, at.packages[2].price_cents) == (False, cheapest)
    assert (below.over_net_worth, below.packages) == (True, at.packages)
