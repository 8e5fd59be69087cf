"""Rows of a file of businesses."""

from __future__ import annotations

import pytest

from server.batching.schedules.rows import Row, Unusable, read
from server.core.event import Rejected
from server.errors import Code

pytestmark = pytest.mark.pure


def test_a_row_has_a_column_for_each_platform_or_names_one() -> None:
    wide = read(
        0, {"team": "a", "name": "Adler", "tier": "Enterprise", "google": "ChIJ0001", "facebook": "facebook.com/adler"}
    )
    assert wide == Row(0, "a", "Adler", "enterprise", {"google": "ChIJ0001", "facebook": "https://facebook.com/adler"})
    assert read(7, {"team": 12, "platform": "GOOGLE", "placeId": "ChIJ0001"}) == Row(
        7, "12", "", None, {"google": "ChIJ0001"}
    )


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"name": "x", "google": "ChIJ0001"}, "team"),
        ({"team": "t" * 201, "google": "ChIJ0001"}, "team"),
        ({"team": "a"}, "identifier"),
        ({"team": "a", "platform": "yelp", "url": "x"}, "platform"),
        ({"team": "a", "platform": "booking", "url": "https://example.org/x"}, "identifier"),
        ({"team": "a", "google": "ChIJ0001", "tier": "gold"}, "tier"),
        ({"team": "a", "google": "ChIJ0001", "name": "n" * 301}, "name"),
        ({"team": ["a"], "google": "ChIJ0001"}, "team"),
        (Rejected(None, Code.BAD_JSON, "not JSON", "header"), "header"),
        ([1, 2], None),
    ],
)
def test_a_row_that_cannot_be_used_says_why(row: object, field: str | None) -> None:
    unusable = read(3, row)
    assert isinstance(unusable, Unusable)
    assert (unusable.number, unusable.field) == (3, field) and unusable.reason
