"""Posts whose views grow while one looks, and the actors that count them: the double by hand, for the demo and the commands.

    actors(seed=1, missing={"7399..."}, clock=time.time, since=0)      for `Apify`, by the names of the actors that are the defaults

How often a post has been seen follows from the seed, its id and the seconds since `since`: so many at first, and so many a
second from then on, until that is GROWN_TIMES what it had. Some soar, most go on, a few stand still; one whose id ends in JUMPER
jumps by more than anybody believes.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from tests.doubles.apify.platform import Item, Produce

POST = re.compile(r"/(?:video|status|p|reel)/([A-Za-z0-9_-]+)|[?&]v=([A-Za-z0-9_-]{11})")
FIRST = (800, 30_000)
A_SECOND = {"soars": (6.0, 20.0), "goes on": (0.5, 4.0), "stands still": (0.0, 0.0)}
KINDS = ("soars", "goes on", "goes on", "goes on", "stands still")
GROWN_TIMES = 15
"""No look after a rest, however long, finds more than x20."""
JUMPS_AFTER_S = 90
JUMP = 40
"""Times as many as it had at first and 150,000 more, where the id ends in JUMPER."""
JUMPER = "jump"


@dataclass(frozen=True)
class Shape:
    """How an actor is asked and answers."""

    input: str
    count: str
    post: tuple[str, ...]
    id: str


TIKTOK = Shape("postURLs", "playCount", ("submittedVideoUrl", "webVideoUrl"), "id")
ACTORS = {
    "clockworks/tiktok-scraper": TIKTOK,
    "clockworks/free-tiktok-scraper": TIKTOK,
    "apify/instagram-scraper": Shape("directUrls", "videoPlayCount", ("inputUrl", "url"), "shortCode"),
    "streamers/youtube-scraper": Shape("startUrls", "viewCount", ("url",), "id"),
    "apidojo/tweet-scraper": Shape("startUrls", "viewCount", ("url", "twitterUrl"), "id"),
}


def views_at(seed: int, post: str, seconds: float) -> int:
    """How often it was seen so long after the beginning."""
    drawn = random.Random(f"{seed} {post}")
    first, kind = drawn.randint(*FIRST), drawn.choice(KINDS)
    grown = first + min(int(max(0.0, seconds) * drawn.uniform(*A_SECOND[kind])), GROWN_TIMES * first)
    jumped = post.lower().endswith(JUMPER) and seconds >= JUMPS_AFTER_S
    return grown + JUMP * first + 150_000 if jumped else grown


def actors(
    *, seed: int, missing: Collection[str], clock: Callable[[], float], since: float | None = None
) -> dict[str, Produce]:
    """For `Apify`; without `since` the time begins now."""
    began = clock() if since is None else since
    return {name: _actor(shape, seed, missing, lambda: clock() - began) for name, shape in ACTORS.items()}


def _actor(shape: Shape, seed: int, missing: Collection[str], age_s: Callable[[], float]) -> Produce:
    def produce(given: Mapping[str, Any]) -> list[Item]:
        addresses = [one["url"] if isinstance(one, Mapping) else str(one) for one in given.get(shape.input, ())]
        return [_item(shape, address, seed, missing, age_s()) for address in addresses]

    return produce


def _item(shape: Shape, address: str, seed: int, missing: Collection[str], seconds: float) -> Item:
    match = POST.search(address)
    post = next((text for text in match.groups() if text), "") if match else ""
    named = dict.fromkeys(shape.post, address)
    if not post or post in missing:
        return {**named, "error": "not_found"}
    return {**named, shape.id: post, shape.count: views_at(seed, post, seconds)}
