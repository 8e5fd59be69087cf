"""The people of the bench: the same for the same seed, whatever their neighbours, and good rows of an import."""

from collections import Counter

import orjson
import pytest

from server.batching.tiers.people import entry_of
from server.batching.tiers.rules import RATINGS
from tests.bench.tier_people import TIERS, lines, person

pytestmark = pytest.mark.pure


def test_people_are_the_same_in_whatever_company() -> None:
    together = lines(7, range(50)).splitlines()
    assert together == [lines(7, [number]).strip() for number in range(50)]
    assert together != lines(8, range(50)).splitlines()


def test_every_row_is_good_and_says_what_the_person_was_given() -> None:
    for number in range(300):
        entry = entry_of(orjson.loads(orjson.dumps(person(1, number))))
        assert entry.key == f"p{number:07d}"


def test_ratings_are_spread_as_the_product_expects() -> None:
    found = Counter(rating for number in range(2000) for of in RATINGS if (rating := person(1, number)[of]))
    assert [tier for tier, _ in found.most_common()] == list(TIERS)
