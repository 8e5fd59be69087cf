"""What the items of a dataset say, platform by platform, in one shape. Pure.

    harvest = read("booking", "reviews", items)       or, some items at a time: Reader(...).feed(items), .harvest()
    harvest.places     each place once: what was sent for it, what the provider calls it (either may be missing)
    harvest.reviews    each review once, with the number of its place; the last one counts
    harvest.overviews  each place's figures once

Items are strangers' words: fields may be missing, null, of another type or endless. What names no place counts as `unread`; what
names one but says that it could not be scraped (`error`) does not count as found. A review without an id gets one from its author
and date, so that it stays the same review when its text is edited. Facebook has recommendations instead of stars: 5 and 1.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from math import isfinite
from typing import Final, TypeAlias

from server.batching.schedules.inputs import identifier
from server.batching.schedules.plan import Platform, Type
from server.errors import Refused

Item: TypeAlias = Mapping[str, object]

TEXT_MOST: Final = 20_000
TITLE_MOST: Final = 500
NAME_MOST: Final = 300
URL_MOST: Final = 2_000
ID_MOST: Final = 300
COUNT_MOST: Final = 2_000_000_000
SECONDS_BELOW: Final = 100_000_000_000
"""A date that is a number below it is epoch seconds, one above epoch milliseconds."""


@dataclass(frozen=True, slots=True)
class Words:
    """Under which names a platform's actors say things; the first that holds something counts."""

    sent: tuple[str, ...]
    returned: tuple[str, ...]
    id: tuple[str, ...]
    text: tuple[str, ...] = ("text", "reviewText")
    also: tuple[str, ...] = ()
    """What else the author wrote, in a line of its own."""
    title: tuple[str, ...] = ("title",)
    rating: tuple[str, ...] = ("rating", "stars")
    author: tuple[str, ...] = ("name", "userName", "author")
    url: tuple[str, ...] = ("reviewUrl", "url")
    date: tuple[str, ...] = ("publishedAtDate", "publishedDate", "reviewDate", "date", "publishedAt")
    name: tuple[str, ...] = ("title", "name")
    mean: tuple[str, ...] = ("rating",)
    count: tuple[str, ...] = ("reviewsCount", "numberOfReviews", "reviews")


WORDS: Final[dict[Platform, Words]] = {
    "google": Words(
        sent=("inputPlaceId", "placeId"),
        returned=("placeId",),
        id=("reviewId",),
        title=(),
        mean=("totalScore",),
    ),
    "facebook": Words(
        sent=("inputUrl", "facebookUrl", "pageUrl"),
        returned=("facebookId", "pageId"),
        id=("id", "legacyId"),
        mean=("ratingOverall", "rating"),
        count=("ratingCount", "reviewsCount"),
    ),
    "tripadvisor": Words(
        sent=("input", "startUrl", "webUrl"),
        returned=("locationId",),
        id=("id", "reviewId"),
    ),
    "booking": Words(
        sent=("startUrl", "input", "hotelUrl"),
        returned=("hotelId",),
        id=("id", "reviewId"),
        text=("likedText", "text"),
        also=("dislikedText",),
        title=("reviewTitle", "title"),
    ),
}
NOT_STARS: Final[dict[object, float]] = {True: 5.0, False: 1.0}


@dataclass(frozen=True, slots=True)
class Place:
    """A place that items are of; `sent` in the form in which identifiers are kept."""

    sent: str | None
    returned: str | None


@dataclass(frozen=True, slots=True)
class Review:
    """One review, ready to be stored; `place` is a number in `Harvest.places`."""

    place: int
    id: str
    rating: float | None
    title: str | None
    text: str | None
    author: str | None
    url: str | None
    published_at: dt.datetime | None
    hash: bytes


@dataclass(frozen=True, slots=True)
class Overview:
    """A place's figures."""

    place: int
    rating: float | None
    count: int | None
    name: str | None


@dataclass(frozen=True, slots=True)
class Harvest:
    """What a page of a dataset comes to. `of` is the place of each item, -1 for one that names none."""

    items: int
    unread: int
    places: tuple[Place, ...]
    of: tuple[int, ...]
    reviews: tuple[Review, ...] = ()
    overviews: tuple[Overview, ...] = ()


@dataclass(slots=True)
class _Places:
    """The places of a page by what items say, so that an address is brought into its form once."""

    platform: Platform
    numbers: dict[Place, int] = field(default_factory=dict)
    kept: dict[str, str | None] = field(default_factory=dict)

    def number(self, item: Item) -> int:
        """The place of an item, -1 when it names none or says that it was not scraped."""
        words = WORDS[self.platform]
        returned = _first_text(item, words.returned, ID_MOST)
        place = Place(self._sent(_first_text(item, words.sent, URL_MOST)), returned)
        if place == Place(None, None) or _is_error(item):
            return -1
        return self.numbers.setdefault(place, len(self.numbers))

    def _sent(self, text: str | None) -> str | None:
        if text is not None and text not in self.kept:
            self.kept[text] = _identifier(self.platform, text)
        return None if text is None else self.kept[text]


class Reader:
    """Reads a page some items at a time."""

    def __init__(self, platform: Platform, type: Type) -> None:
        self._type = type
        self._words = WORDS[platform]
        self._places = _Places(platform)
        self._of: list[int] = []
        self._reviews: dict[tuple[int, str], Review] = {}
        self._overviews: dict[int, Overview] = {}

    def feed(self, items: Iterable[object]) -> None:
        """Some items."""
        for item in items:
            place = self._places.number(item) if isinstance(item, Mapping) else -1
            self._of.append(place)
            if place < 0 or not isinstance(item, Mapping):
                continue
            if self._type == "overview":
                self._overviews[place] = _overview(place, item, self._words)
            elif (review := _review(place, item, self._words)) is not None:
                self._reviews[place, review.id] = review

    def harvest(self) -> Harvest:
        """All that they say."""
        of, found = tuple(self._of), tuple(self._places.numbers)
        overviews = tuple(self._overviews.values())
        return Harvest(len(of), of.count(-1), found, of, tuple(self._reviews.values()), overviews)


def read(platform: Platform, type: Type, items: Iterable[object]) -> Harvest:
    """All that a page says."""
    reader = Reader(platform, type)
    reader.feed(items)
    return reader.harvest()


def _is_error(item: Item) -> bool:
    return bool(item.get("error") or item.get("errorDescription"))


def _identifier(platform: Platform, text: str) -> str | None:
    try:
        return identifier(platform, text)
    except Refused:
        return None


def _review(place: int, item: Item, words: Words) -> Review | None:
    """None for an item that is of a place but no review: so actors say that there are none."""
    text, title = _text(item, words), _first_text(item, words.title, TITLE_MOST)
    rating = _rating(item, words.rating)
    author, published = _author(item, words), _moment(_first(item, words.date))
    given = _first_text(item, words.id, ID_MOST)
    if given is None and (published is None or (text is None and rating is None)):
        return None
    id_ = given or _digest((author, published)).hex()
    body = (rating, title, text, author, published)
    return Review(
        place, id_, rating, title, text, author, _first_text(item, words.url, URL_MOST), published, _digest(body)
    )


def _text(item: Item, words: Words) -> str | None:
    parts = (_first_text(item, words.text, TEXT_MOST), _first_text(item, words.also, TEXT_MOST))
    return "\n".join(part for part in parts if part) or None


def _author(item: Item, words: Words) -> str | None:
    user = item.get("user")
    inner = _first_text(user, ("name", "username"), NAME_MOST) if isinstance(user, Mapping) else None
    return inner or _first_text(item, words.author, NAME_MOST)


def _rating(item: Item, names: tuple[str, ...]) -> float | None:
    said = item.get("isRecommended")
    return NOT_STARS[said] if isinstance(said, bool) else _number(_first(item, names))


def _overview(place: int, item: Item, words: Words) -> Overview:
    count = _number(_first(item, words.count))
    whole = None if count is None or not 0 <= count <= COUNT_MOST else int(count)
    return Overview(place, _number(_first(item, words.mean)), whole, _first_text(item, words.name, NAME_MOST))


def _digest(parts: tuple[object, ...]) -> bytes:
    return blake2b(repr(parts).encode("utf-8", "replace"), digest_size=16).digest()


# One value of a stranger's


def _first(item: Item, names: tuple[str, ...]) -> object:
    for name in names:
        value = item.get(name)
        if value is not None and value != "":
            return value
    return None


def _first_text(item: Item, names: tuple[str, ...], most: int) -> str | None:
    for name in names:
        value = item.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if isinstance(value, str) and (clean := value.replace("\0", "").strip()):
            return clean[:most]
    return None


def _number(value: object) -> float | None:
    if isinstance(value, str) and len(value) <= 20:
        try:
            value = float(value.replace(",", "."))
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if isfinite(number) else None


def _moment(value: object) -> dt.datetime | None:
    try:
        if isinstance(value, str):
            moment = dt.datetime.fromisoformat(value.strip())
            return (moment if moment.tzinfo is not None else moment.replace(tzinfo=dt.UTC)).astimezone(dt.UTC)
        if isinstance(value, int | float) and not isinstance(value, bool):
            seconds = value if abs(value) < SECONDS_BELOW else value / 1000
            return dt.datetime.fromtimestamp(seconds, dt.UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return None
