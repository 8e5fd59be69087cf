"""The provider's actors: which one is asked for which posts, with what, and what its items say of each of them. Pure.

    order = in_order(actors, standings, least)        the cheapest whose success rate holds first
    calls = shared_out(tries, orders)                 calls of at most so many posts as their actor takes
    run_input(call.actor, posts)                      what its run is started with
    read(call.actor, posts, items)                    of each clip: its count, or why there is none

A count is a whole number that is there, is not negative and can be; anything else is a failure, and never 0. An item is a post's
when one of the fields that name posts has its address, however that is written, or its id. Items of posts that nobody asked for
are passed over.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from server.batching.tracking.money import VIEWS_MOST, plausible
from server.batching.tracking.posts import Platform, post_of
from server.batching.tracking.trying import ERROR_MOST, Failure, Try, Wanted, of_status
from server.errors import Refused
from server.settings.tracking import Actor

TRIED_LEAST: Final = 20.0
"""Posts asked for of late before an actor's success rate says anything."""
HALF_S: Final = 21_600.0
"""What an actor did counts half after this, so one that failed gets another chance within a day or two."""
STATUS: Final = ("statusCode", "status", "errorCode", "error")
"""Where actors say that a post is gone or refused."""
NUMBER: Final = re.compile("[1-5][0-9][0-9]", re.ASCII)
WORDS: Final = {"not_found": 404, "not-found": 404, "notfound": 404, "gone": 410, "deleted": 410, "removed": 410}

Verdict: TypeAlias = int | Failure
Item: TypeAlias = Mapping[str, object]
Orders: TypeAlias = Mapping[Platform, Sequence[Actor]]


@dataclass(frozen=True, slots=True)
class Standing:
    """How an actor has done of late; a single success or failure counts less and less."""

    succeeded: float = 0.0
    failed: float = 0.0

    def holds(self, least_percent: float) -> bool:
        """Does it succeed often enough, or is too little known of it?"""
        total = self.succeeded + self.failed
        return total < TRIED_LEAST or 100 * self.succeeded >= least_percent * total

    @property
    def rate(self) -> float:
        """The share that succeeded; of an unknown one all of it."""
        total = self.succeeded + self.failed
        return self.succeeded / total if total else 1.0


@dataclass(frozen=True, slots=True)
class Call:
    """One call: posts that one actor is asked for together."""

    platform: Platform
    actor: Actor
    tries: tuple[Try, ...]

    @property
    def posts(self) -> tuple[Wanted, ...]:
        """What is asked for."""
        return tuple(one.post for one in self.tries)

    @property
    def cost_micros(self) -> int:
        """What it costs, in millionths of a dollar."""
        return self.actor.price_micros * len(self.tries)


def in_order(actors: Iterable[Actor], standings: Mapping[str, Standing], least_percent: float) -> list[Actor]:
    """As they are asked: the cheapest that holds, then dearer ones that do, then the others, the best first."""

    def key(actor: Actor) -> tuple[bool, float, int]:
        standing = standings.get(actor.actor, Standing())
        holds = standing.holds(least_percent)
        return not holds, 0.0 if holds else -standing.rate, actor.price_micros

    return sorted(actors, key=key)


def chosen(order: Sequence[Actor], tried: Sequence[str]) -> Actor:
    """The first that was not tried; when all were, the one that was tried least recently."""
    untried = [actor for actor in order if actor.actor not in tried]
    return untried[0] if untried else min(order, key=lambda actor: _last(tried, actor.actor))


def _last(tried: Sequence[str], name: str) -> int:
    return max(place for place, one in enumerate(tried) if one == name)


def shared_out(tries: Iterable[Try], orders: Orders) -> list[Call]:
    """Calls, those with the most urgent posts first; every platform of these has an actor."""
    groups: dict[tuple[Platform, str, int | None], list[Try]] = defaultdict(list)
    calls: list[tuple[int, Call]] = []
    listed = list(tries)
    places = {one.post.clip_id: place for place, one in enumerate(listed)}
    chosen_for: dict[str, Actor] = {}
    for one in listed:
        actor = chosen(orders[one.post.platform], one.tried)
        chosen_for[actor.actor] = actor
        groups[one.post.platform, actor.actor, one.post.clip_id if one.alone else None].append(one)
    for (platform, name, _), group in groups.items():
        actor = chosen_for[name]
        for start in range(0, len(group), actor.urls):
            part = tuple(group[start : start + actor.urls])
            calls.append((places[part[0].post.clip_id], Call(platform, actor, part)))
    return [call for _, call in sorted(calls, key=lambda pair: pair[0])]


def run_input(actor: Actor, posts: Sequence[Wanted]) -> dict[str, object]:
    """What a run of it is started with."""
    addresses = [{"url": post.url} for post in posts] if actor.objects else [post.url for post in posts]
    return {**actor.also, actor.input: addresses}


# --- what it answers ---


def read(actor: Actor, posts: Sequence[Wanted], items: Iterable[object]) -> dict[int, Verdict]:
    """The count of each clip, or why there is none."""
    found: dict[int, list[Verdict]] = defaultdict(list)
    named = _Named(posts)
    for item in items:
        if not isinstance(item, Mapping):
            continue
        post = named.find(actor, item)
        if post is None and len(posts) == 1 and not _names(actor, item) and _status(item) is not None:
            post = posts[0]  # An item without an address that only says what went wrong is about what was asked for.
        if post is not None:
            found[post.clip_id].append(_verdict(actor, item))
    return {post.clip_id: _best(found.get(post.clip_id, ())) for post in posts}


class _Named:
    """Posts by what an item may call them."""

    def __init__(self, posts: Sequence[Wanted]) -> None:
        self._by_key = {(post.platform, post.post_id): post for post in posts}
        self._by_id = {post.post_id: post for post in posts}

    def find(self, actor: Actor, item: Item) -> Wanted | None:
        for name in _names(actor, item):
            key = _key(name)
            post = self._by_id.get(name) or (None if key is None else self._by_key.get(key))
            if post is not None:
                return post
        return None


def _names(actor: Actor, item: Item) -> list[str]:
    values = [at(item, path) for path in actor.post]
    return [str(value) for value in values if isinstance(value, str | int) and value not in ("", True, False)]


def _key(name: str) -> tuple[Platform, str] | None:
    try:
        post = post_of(name)
    except Refused:
        return None
    return post.platform, post.post_id


def at(item: Item, path: str) -> object:
    """What an item has there, by dots; None when it has nothing."""
    value: object = item
    for name in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value


def _verdict(actor: Actor, item: Item) -> Verdict:
    status = _status(item)
    if status is not None and status >= 400:
        return of_status(status, _said(item))
    values = [at(item, path) for path in actor.views]
    value = next((one for one in values if one is not None), None)
    if value is None:
        return Failure("missing", f"{actor.actor} found the post, but no count of views")
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or value % 1:
        return Failure("implausible", f"{actor.actor} says {str(value)[:60]!r}, which is no count of views")
    if not plausible(views := int(value)):
        return Failure("implausible", f"{actor.actor} says {str(value)[:60]} views; a count is from 0 to {VIEWS_MOST}")
    return views


def _status(item: Item) -> int | None:
    for path in STATUS:
        value = at(item, path)
        if isinstance(value, str):
            word = value.strip().lower()
            value = int(word) if NUMBER.fullmatch(word) else WORDS.get(word)
        if isinstance(value, int) and not isinstance(value, bool) and 100 <= value < 600:
            return value
    return None


def _said(item: Item) -> str:
    for path in ("errorDescription", "message", "error"):
        value = at(item, path)
        if isinstance(value, str) and value:
            return value[:ERROR_MOST]
    return ""


def _best(verdicts: Sequence[Verdict]) -> Verdict:
    """Several items of one post: the highest count; without one, what says most about why."""
    counts = [one for one in verdicts if isinstance(one, int)]
    if counts:
        return max(counts)
    failures = [one for one in verdicts if isinstance(one, Failure)]
    default = Failure("missing", "the provider's answer does not have the post")
    return min(failures, key=lambda one: (one.reason != "not_found", one.reason == "missing"), default=default)
