"""Actors that count views, for tests: what each says of each post is scripted, and what they were asked is kept.

    views = Views()
    double = Apify(views.actors())
    views.counts["dQw4w9WgXcQ"] = 1_000                        from now on
    views.script("dQw4w9WgXcQ", 5, ABSENT, -3, "many", Status(404))      for the next looks at it, one each; then `counts`
    views.first_only.add(YOUTUBE)                              answers for the first of its posts alone, as some real ones do

A post of which nothing was said has `usual` views. What may be said: a number (also one that can't be), anything else in its place,
ABSENT (no item at all), MISSING (an item without a count), Status (the platform's refusal).
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.doubles.apify.platform import Item, Produce

POST = re.compile(r"/(?:video|status|p|reel)/([A-Za-z0-9_-]+)|[?&]v=([A-Za-z0-9_-]{11})")
TIKTOK, TIKTOK_TOO = "clockworks/tiktok-scraper", "clockworks/free-tiktok-scraper"
INSTAGRAM = "apify/instagram-scraper"
YOUTUBE, YOUTUBE_TOO = "streamers/youtube-scraper", "dear/youtube-counter"
X = "apidojo/tweet-scraper"

ABSENT = object()
MISSING = object()


@dataclass(frozen=True)
class Status:
    """What an item says instead of a count."""

    code: int | str
    text: str = ""


@dataclass(frozen=True)
class Shape:
    """The names that an actor uses."""

    input: str
    count: str
    post: str


SHAPES = {
    TIKTOK: Shape("postURLs", "playCount", "webVideoUrl"),
    TIKTOK_TOO: Shape("postURLs", "playCount", "webVideoUrl"),
    INSTAGRAM: Shape("directUrls", "videoPlayCount", "url"),
    YOUTUBE: Shape("startUrls", "viewCount", "url"),
    YOUTUBE_TOO: Shape("startUrls", "viewCount", "url"),
    X: Shape("startUrls", "viewCount", "url"),
}


@dataclass
class Views:
    """All posts that there could be."""

    usual: int = 100
    counts: dict[str, Any] = field(default_factory=dict)
    scripts: dict[str, deque[Any]] = field(default_factory=dict)
    by_actor: dict[tuple[str, str], Any] = field(default_factory=dict)
    """What one actor says of a post, whatever the others do."""
    first_only: set[str] = field(default_factory=set)
    silent: set[str] = field(default_factory=set)
    """Actors that find nothing."""
    noise: int = 0
    """Items of posts that nobody asked for."""
    asked: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    """Actor and posts of each run that came to its end, in their order."""

    def script(self, post: str, *said: Any) -> None:
        """What the next looks at a post find."""
        self.scripts.setdefault(post, deque()).extend(said)

    def actors(self) -> dict[str, Produce]:
        """For `Apify`."""
        return {name: self._produce(name, shape) for name, shape in SHAPES.items()}

    def looks(self, post: str) -> int:
        """How often it was asked for."""
        return sum(posts.count(post) for _, posts in self.asked)

    def _produce(self, name: str, shape: Shape) -> Produce:
        def produce(given: Mapping[str, Any]) -> list[Item]:
            urls = [one["url"] if isinstance(one, Mapping) else str(one) for one in given.get(shape.input, ())]
            self.asked.append((name, tuple(post_id(url) for url in urls)))
            if name in self.silent:
                return []
            kept = urls[:1] if name in self.first_only else urls
            found = [item for url in kept for item in self._items(name, shape, url)]
            return found + [{shape.post: f"https://youtu.be/nobody{n:05}", shape.count: 7} for n in range(self.noise)]

        return produce

    def _items(self, name: str, shape: Shape, url: str) -> list[Item]:
        post = post_id(url)
        script = self.scripts.get(post)
        said = script.popleft() if script else self.by_actor.get((name, post), self.counts.get(post, self.usual))
        if said is ABSENT:
            return []
        item = {shape.post: url, "title": "a post"}
        if isinstance(said, Status):
            return [{**item, "statusCode": said.code, "errorDescription": said.text}]
        return [item if said is MISSING else {**item, shape.count: said}]


def post_id(url: str) -> str:
    """The id in the address that actors are given."""
    match = POST.search(url)
    return next((text for text in match.groups() if text), "") if match else ""
