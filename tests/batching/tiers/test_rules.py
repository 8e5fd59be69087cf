"""The table of the tiers, number by number as the product says it."""

import pytest

from server.batching.tiers.rules import (
    BY_RANK,
    COOLDOWN_MONTHS,
    COUNTRIES,
    HOURS,
    LEAD_DAYS,
    PACKAGES,
    RANK,
    RULES,
    TIERS,
    higher,
)

pytestmark = pytest.mark.pure

# tier | people | dollars | slots in all | physical | virtual | weeks of a rotation | cities in each of 12 countries
TABLE = """
S | 10-50     | 100000-2000000 | 2-4   | 0-1 | 1-2  | 8-12 | 3-3
A | 200-500   | 20000-500000   | 4-8   | 1-2 | 1-4  | 6-8  | 3-4
B | 500-1000  | 5000-50000     | 8-15  | 1-3 | 2-6  | 4-6  | 3-5
C | 1000-3000 | 1000-10000     | 15-25 | 1-4 | 3-8  | 3-5  | 4-6
D | 5000-8000 | 100-2000       | 20-40 | 1-5 | 5-10 | 2-4  | 5-6
"""


def span(text: str, times: int = 1) -> tuple[int, int]:
    least, most = text.strip().split("-")
    return int(least) * times, int(most) * times


def test_every_number_is_that_of_the_table() -> None:
    lines = [line.split("|") for line in TABLE.strip().splitlines()]
    assert [line[0].strip() for line in lines] == list(RULES) == list(TIERS)
    for (_, people, dollars, *rest), rules in zip(lines, RULES.values(), strict=True):
        assert (rules.expected, rules.price_cents) == (span(people), span(dollars, 100))
        assert [span(text) for text in rest] == [
            rules.max_slots,
            rules.physical,
            rules.virtual,
            rules.rotation_weeks,
            rules.cities_each,
        ]


def test_what_holds_for_all_tiers() -> None:
    assert (COUNTRIES, COOLDOWN_MONTHS, dict(LEAD_DAYS)) == (12, (3, 6), {"physical": 7, "virtual": 3})
    assert dict(HOURS) == {"physical": (10, 21), "virtual": (9, 22)}
    assert len(PACKAGES) == len(set(PACKAGES)) == 6


def test_s_is_the_highest() -> None:
    assert [RANK[tier] for tier in TIERS] == [4, 3, 2, 1, 0] and [BY_RANK[RANK[tier]] for tier in TIERS] == list(TIERS)
    assert higher("S", "A") == higher("A", "S") == "S"
