"""The world that the review scrapers look at: places with reviews, the same for a seed, and what changes in them.

    world = World(seed=7, reviews=20)
    double = Apify(world.actors())

Eight actors, a pair for each platform. Input as the real ones take it: `placeIds` (Google), `startUrls: [{"url"}]` (the others).
The items are what the real ones send, shortened: TripAdvisor names a place by `locationId`, Booking by `hotelId`, beside the
URL that was asked for (`world.silent`: without it, as they do when a page redirects). Facebook and Google name what was sent.

What can be done to a place: `add` (a review that comes late), `edit`, `missing` (nothing is found of it), `empty` (it has no
reviews). `noise` items are of places that nobody asked for.
"""

from __future__ import annotations

import datetime as dt
import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.doubles.apify.platform import Item, Produce, iso

NEWEST = dt.datetime(2026, 4, 1, 12, tzinfo=dt.UTC)
WORDS = (
    "Great",
    "tëa",
    "slow",
    "kind",
    "staff",
    "noisy",
    "clean",
    "room",
    "view",
    "again",
    "never",
    "😀",
    "price",
    "quiet",
)
ACTORS = {
    ("google", "reviews"): "compass/google-maps-reviews-scraper",
    ("google", "overview"): "compass/crawler-google-places",
    ("facebook", "reviews"): "apify/facebook-reviews-scraper",
    ("facebook", "overview"): "apify/facebook-pages-scraper",
    ("tripadvisor", "reviews"): "maxcopell/tripadvisor-reviews",
    ("tripadvisor", "overview"): "maxcopell/tripadvisor",
    ("booking", "reviews"): "voyager/booking-reviews-scraper",
    ("booking", "overview"): "voyager/booking-scraper",
}


@dataclass(frozen=True)
class Review:
    """One review as it is now."""

    id: str
    rating: int
    text: str
    author: str
    published: dt.datetime


@dataclass
class World:
    """All places there could be: one is made when it is first asked for."""

    seed: int = 1
    reviews: int = 12
    """Reviews of a place when nothing else was said."""
    missing: set[str] = field(default_factory=set)
    empty: set[str] = field(default_factory=set)
    silent: bool = False
    noise: int = 0
    places: dict[tuple[str, str], list[Review]] = field(default_factory=dict)

    def actors(self) -> dict[str, Produce]:
        """For `Apify`."""
        return {name: self._produce(platform, kind) for (platform, kind), name in ACTORS.items()}

    def of(self, platform: str, identifier: str) -> list[Review]:
        """The reviews of a place, newest first."""
        key = (platform, identifier)
        if key not in self.places:
            count = 0 if identifier in self.empty else self.reviews
            self.places[key] = [review(f"{self.seed}/{platform}/{identifier}", n) for n in range(count)]
        return self.places[key]

    def add(self, platform: str, identifier: str, days_ago: int = 0) -> Review:
        """A review that was not there before, perhaps an old one."""
        found = self.of(platform, identifier)
        made = review(f"{self.seed}/{platform}/{identifier}/late", len(found), days_ago)
        self.places[platform, identifier] = sorted([made, *found], key=lambda one: one.published, reverse=True)
        return made

    def edit(self, platform: str, identifier: str, number: int = 0, text: str = "I changed my mind") -> Review:
        """The number-th review reads otherwise now."""
        found = self.of(platform, identifier)
        old = found[number]
        found[number] = Review(old.id, 6 - old.rating, text, old.author, old.published)
        return found[number]

    def _produce(self, platform: str, kind: str) -> Produce:
        def produce(run_input: Mapping[str, Any]) -> list[Item]:
            asked = [one for one in asked_for(platform, run_input) if one not in self.missing]
            others = [f"nobody-asked-{n}" for n in range(self.noise)]
            make = overview_item if kind == "overview" else review_item
            items: list[Item] = []
            for identifier in [*asked, *others]:
                found = self.of(platform, identifier)
                if kind == "overview":
                    items.append(make(platform, identifier, found, None))
                    continue
                limit = per_place(platform, run_input)
                items += [make(platform, identifier, found, one) for one in found[:limit]]
                if not found:
                    items.append(nothing_item(platform, identifier))
            total = run_input.get("resultsLimit") if platform == "facebook" and kind == "reviews" else None
            items = items if total is None else items[: int(total)]
            return [without_url(item) for item in items] if self.silent else items

        return produce


def asked_for(platform: str, run_input: Mapping[str, Any]) -> list[str]:
    """The identifiers in an input."""
    if platform == "google":
        return [str(one) for one in run_input.get("placeIds", [])]
    return [str(one["url"]) for one in run_input.get("startUrls", [])]


def per_place(platform: str, run_input: Mapping[str, Any]) -> int | None:
    name = {"google": "maxReviews", "tripadvisor": "maxItemsPerQuery", "booking": "maxReviewsPerHotel"}.get(platform)
    value = run_input.get(name) if name else None
    return int(value) if value else None


def review(place: str, number: int, days_ago: int | None = None) -> Review:
    """Review `number` of a place, the same each time."""
    dice = random.Random(f"{place}/{number}")
    text = " ".join(dice.choice(WORDS) for _ in range(dice.randrange(3, 40)))
    published = NEWEST - dt.timedelta(days=number if days_ago is None else days_ago, minutes=dice.randrange(600))
    return Review(
        f"r{dice.getrandbits(64):016x}", dice.randrange(1, 6), text, f"Author {dice.randrange(999)}", published
    )


def returned(platform: str, identifier: str) -> str:
    """What a platform calls a place that was asked for by its URL."""
    number = re.search(r"-d(\d+)-", identifier)
    if platform == "tripadvisor" and number:
        return number[1]
    return str(random.Random(f"{platform}/{identifier}").randrange(10_000, 10_000_000))


def review_item(platform: str, identifier: str, found: list[Review], one: Review | None) -> Item:
    """One review as the platform's actor sends it."""
    assert one is not None
    published, mean = iso(one.published), average(found)
    match platform:
        case "google":
            return {
                "placeId": identifier,
                "title": f"Place {identifier}",
                "reviewId": one.id,
                "name": one.author,
                "text": one.text,
                "publishedAtDate": published,
                "stars": one.rating,
                "reviewUrl": f"https://www.google.com/maps/reviews/{one.id}",
                "totalScore": mean,
                "reviewsCount": len(found),
            }
        case "facebook":
            return {
                "facebookUrl": identifier,
                "facebookId": returned(platform, identifier),
                "id": one.id,
                "url": f"{identifier}/posts/{one.id}",
                "user": {"name": one.author},
                "text": one.text,
                "date": published,
                "isRecommended": one.rating > 2,
            }
        case "tripadvisor":
            return {
                "id": one.id,
                "url": f"https://www.tripadvisor.com/ShowUserReviews-{one.id}",
                "title": one.text[:20],
                "text": one.text,
                "rating": one.rating,
                "publishedDate": published,
                "user": {"name": one.author},
                "locationId": returned(platform, identifier),
                "input": identifier,
                "placeInfo": {"id": returned(platform, identifier), "rating": mean, "numberOfReviews": len(found)},
            }
        case _:
            return {
                "id": one.id,
                "hotelId": returned(platform, identifier),
                "startUrl": identifier,
                "reviewTitle": one.text[:20],
                "likedText": one.text,
                "dislikedText": None,
                "rating": one.rating * 2,
                "reviewDate": published,
                "userName": one.author,
            }


def overview_item(platform: str, identifier: str, found: list[Review], one: Review | None = None) -> Item:
    """A place as the platform's actor sends it."""
    mean, name, place = average(found), f"Place {identifier}", returned(platform, identifier)
    match platform:
        case "google":
            return {"placeId": identifier, "title": name, "totalScore": mean, "reviewsCount": len(found)}
        case "facebook":
            head = {"facebookUrl": identifier, "facebookId": place, "title": name}
            return {**head, "ratingOverall": mean, "ratingCount": len(found)}
        case "tripadvisor":
            head = {"locationId": place, "input": identifier, "name": name}
            return {**head, "rating": mean, "numberOfReviews": len(found)}
        case _:
            head = {"hotelId": place, "startUrl": identifier, "name": name}
            return {**head, "rating": round(mean * 2, 1), "reviews": len(found)}


def nothing_item(platform: str, identifier: str) -> Item:
    """A place that was found and has no reviews: said in an item of its own, so that it isn't taken for missing."""
    head = overview_item(platform, identifier, [])
    return {name: value for name, value in head.items() if name not in ("rating", "ratingOverall", "totalScore")}


def average(found: Iterable[Review]) -> float:
    ratings = [one.rating for one in found]
    return round(sum(ratings) / len(ratings), 1) if ratings else 0.0


def without_url(item: Item) -> Item:
    """What some actors send after a redirect: only their own name of the place."""
    return {name: value for name, value in item.items() if name not in ("input", "startUrl", "facebookUrl")}
