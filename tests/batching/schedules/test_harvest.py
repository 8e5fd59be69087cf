"""What items say, read from any platform's words: strangers' values never break it, and a review stays the same review."""

from __future__ import annotations

import datetime as dt
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.batching.schedules.harvest import Place, read
from server.batching.schedules.plan import PLATFORMS, TYPES
from server.edge.apify import Retryable, items_of
from tests.batching.schedules.running import place
from tests.doubles.apify.reviews import ACTORS, World

pytestmark = pytest.mark.pure
KNOWN = [
    "placeId",
    "inputPlaceId",
    "reviewId",
    "id",
    "text",
    "stars",
    "rating",
    "name",
    "user",
    "publishedAtDate",
    "date",
    "error",
    "facebookUrl",
    "facebookId",
    "locationId",
    "hotelId",
    "startUrl",
    "input",
    "likedText",
    "dislikedText",
    "isRecommended",
    "totalScore",
    "reviewsCount",
    "title",
    "hash",
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("https://booking.com/a/b"),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(KNOWN), inner, max_size=3),
    max_leaves=4,
)
ITEMS = st.lists(VALUES | st.dictionaries(st.sampled_from(KNOWN), VALUES, max_size=8), max_size=8)


@given(st.sampled_from(PLATFORMS), st.sampled_from(TYPES), ITEMS)
def test_whatever_stands_in_a_dataset_is_read(platform: Any, type: Any, items: list[Any]) -> None:
    harvest = read(platform, type, items)
    assert (harvest.items, harvest.unread) == (len(items), harvest.of.count(-1))
    assert set(harvest.of) - {-1} == set(range(len(harvest.places)))
    keys = [(review.place, review.id) for review in harvest.reviews]
    assert len(set(keys)) == len(keys)
    for review in harvest.reviews:
        for text in (review.id, review.title, review.text, review.author, review.url):
            assert text is None or (text and "\0" not in text and len(text) <= 40_001)
        assert review.published_at is None or review.published_at.tzinfo is not None


@pytest.mark.parametrize("platform", PLATFORMS)
def test_every_platform_is_read_in_full(platform: Any) -> None:
    world = World(reviews=4)
    address = place(1, platform)
    sent = address if platform == "google" else address.replace("https://", "https://www.")
    asked = {"placeIds": [sent]} if platform == "google" else {"startUrls": [{"url": sent}]}
    harvest = read(platform, "reviews", world.actors()[ACTORS[platform, "reviews"]](asked))
    assert [one.sent for one in harvest.places] == [address]
    for found, truth in zip(harvest.reviews, world.of(platform, sent), strict=True):
        assert (found.id, found.text, found.author) == (truth.id, truth.text, truth.author)
        assert found.published_at == truth.published.replace(microsecond=0)
        scale = {"facebook": 5.0 if truth.rating > 2 else 1.0, "booking": truth.rating * 2.0}
        assert found.rating == scale.get(platform, truth.rating)
    overview = read(platform, "overview", world.actors()[ACTORS[platform, "overview"]](asked)).overviews[0]
    assert (overview.count, overview.name) == (4, f"Place {sent}")


def test_the_hash_tells_an_edit_and_nothing_else() -> None:
    item = {"placeId": place(1), "reviewId": "r", "text": "good", "stars": 4, "name": "Ada", "likesCount": 1}

    def hashed(**change: object) -> bytes:
        return read("google", "reviews", [{**item, **change}]).reviews[0].hash

    assert hashed() == hashed(likesCount=99, reviewUrl="https://x.test")
    assert len({hashed(), hashed(text="bad"), hashed(stars=5), hashed(name="Bob"), hashed(text=None)}) == 5


def test_a_review_without_an_id_keeps_the_one_that_its_author_and_date_make() -> None:
    item = {"placeId": place(1), "text": "good", "stars": 4, "name": "Ada", "publishedAtDate": "2026-01-02T03:04:05Z"}
    first, edited, other = (
        read("google", "reviews", [{**item, **change}]).reviews[0] for change in ({}, {"text": "bad"}, {"name": "Bob"})
    )
    assert first.id == edited.id != other.id
    assert read("google", "reviews", [{"placeId": place(1), "name": "Ada"}]).reviews == ()


def test_of_one_review_twice_the_last_counts() -> None:
    items = [{"placeId": place(1), "reviewId": "r", "text": text} for text in ("one", "two")]
    [review] = read("google", "reviews", items).reviews
    assert review.text == "two"


def test_an_item_that_says_that_it_failed_is_not_of_a_place() -> None:
    items = [{"placeId": place(1), "error": "place not found"}, {"placeId": place(2)}]
    harvest = read("google", "reviews", items)
    assert (harvest.of, harvest.places) == ((-1, 0), (Place(place(2), place(2)),))


@pytest.mark.parametrize(
    ("given_", "wanted"),
    [
        ("2026-01-02", dt.datetime(2026, 1, 2, tzinfo=dt.UTC)),
        ("2026-01-02T03:04:05.678Z", dt.datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=dt.UTC)),
        ("2026-01-02T03:04:05+02:00", dt.datetime(2026, 1, 2, 1, 4, 5, tzinfo=dt.UTC)),
        (1_767_322_800, dt.datetime(2026, 1, 2, 3, tzinfo=dt.UTC)),
        (1_767_322_800_000, dt.datetime(2026, 1, 2, 3, tzinfo=dt.UTC)),
        ("a week ago", None),
        (1e300, None),
        ("0001-01-01T00:00:00+14:00", None),
        (True, None),
    ],
)
def test_dates_in_all_their_forms(given_: object, wanted: dt.datetime | None) -> None:
    [review] = read("google", "reviews", [{"placeId": place(1), "reviewId": "r", "date": given_}]).reviews
    assert review.published_at == wanted


def test_what_was_liked_and_what_was_not_is_one_text() -> None:
    item = {"hotelId": 7, "id": "r", "likedText": "bed", "dislikedText": "noise", "reviewTitle": "So so"}
    [review] = read("booking", "reviews", [item]).reviews
    assert (review.title, review.text) == ("So so", "bed\nnoise")


def test_a_page_of_items_is_read_also_with_half_an_emoji_in_it() -> None:
    assert items_of(b'[{"text": "\\ud83d"}, 7]') == [{"text": "?"}, 7]
    assert items_of(b'{"a": 1}') == [{"a": 1}]
    assert items_of(orjson.dumps([])) == []
    with pytest.raises(Retryable):
        items_of(b"[{")
