"""Which actor is asked for what, and what its items say."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.batching.tracking.actors import Standing, chosen, in_order, read, run_input, shared_out
from server.batching.tracking.posts import post_of
from server.batching.tracking.trying import Failure, Try, Wanted
from server.settings.tracking import Actor

pytestmark = pytest.mark.pure

IDS = ("dQw4w9WgXcQ", "aaaaaaaaaaa", "bbbbbbbbbbb")
ADDRESSES = (
    "https://youtu.be/{}?si=x",
    "https://m.youtube.com/watch?v={}&t=3",
    "https://www.youtube.com/shorts/{}/",
    "https://www.youtube.com/watch?v={}",
)


def actor(name: str = "a/one", price: int = 1_000, urls: int = 10, **more: Any) -> Actor:
    shape = {"input": "startUrls", "views": ["viewCount", "stats.plays"], "post": ["url", "id"]}
    return Actor(**{"actor": name, "priceMicros": price, "urls": urls, **shape, **more})


def wanted(*posts: str) -> list[Wanted]:
    return [Wanted(n, "youtube", post, post_of(f"https://youtu.be/{post}").url) for n, post in enumerate(posts, 1)]


def verdict(item: object, *others: object) -> int | Failure:
    """What one actor says of one post."""
    return read(actor(), wanted(IDS[0]), [item, *others])[1]


def reason(item: object, *others: object) -> str:
    found = verdict(item, *others)
    assert isinstance(found, Failure), found
    return found.reason


def named(**more: Any) -> dict[str, Any]:
    return {"url": f"https://youtu.be/{IDS[0]}", **more}


# --- what an item says ---


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_item_is_a_posts_however_its_address_is_written(address: str) -> None:
    assert verdict({"url": address.format(IDS[0]), "viewCount": 7}) == 7


def test_an_item_is_a_posts_also_by_its_id() -> None:
    assert verdict({"id": IDS[0], "viewCount": 7}) == 7
    assert reason({"id": IDS[1], "viewCount": 7}) == "missing"
    assert reason({"url": "https://example.com", "viewCount": 7}) == "missing"


def test_a_count_may_lie_deeper_and_the_first_that_is_there_is_taken() -> None:
    assert verdict(named(stats={"plays": 9})) == 9
    assert verdict(named(viewCount=None, stats={"plays": 9})) == 9
    assert verdict(named(viewCount=0, stats={"plays": 9})) == 0
    assert reason(named(stats=4)) == "missing"


@pytest.mark.parametrize("views", [0, 1, 10**13, 12.0])
def test_whole_numbers_that_can_be_are_counts(views: float) -> None:
    assert verdict(named(viewCount=views)) == int(views)


@pytest.mark.parametrize(
    "views", ["7", "", -1, -0.5, 1.5, math.nan, math.inf, -math.inf, True, False, [7], {}, 10**13 + 1, 10**400]
)
def test_anything_else_is_none(views: object) -> None:
    assert reason(named(viewCount=views)) == "implausible"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"statusCode": 404}, "not_found"),
        ({"statusCode": "410"}, "not_found"),
        ({"error": "not_found"}, "not_found"),
        ({"error": "Not_Found "}, "not_found"),
        ({"errorCode": 403}, "rejected"),
        ({"status": 429}, "limited"),
        ({"status": 500}, "provider"),
        ({"error": "something"}, "missing"),
        ({"status": "public"}, "missing"),
        ({"status": 200}, "missing"),
    ],
)
def test_an_item_may_say_what_became_of_its_post(said: dict[str, Any], expected: str) -> None:
    assert reason(named(**said)) == expected


def test_a_refusal_without_an_address_is_about_the_only_post_asked_for() -> None:
    assert reason({"statusCode": 404}) == "not_found"
    found = read(actor(), wanted(*IDS[:2]), [{"statusCode": 404}])
    assert {one.reason for one in found.values() if isinstance(one, Failure)} == {"missing"}
    assert reason({"viewCount": 7}) == "missing", "a count without an address is nobody's"


def test_of_several_items_of_a_post_the_highest_count_holds() -> None:
    assert verdict(named(viewCount=3), named(viewCount=9), named(viewCount="x")) == 9
    assert reason(named(viewCount="x"), named(statusCode=404)) == "not_found"


@pytest.mark.parametrize("items", [[], [None, 3, "x", [named(viewCount=3)]], [{}]])
def test_an_answer_without_the_post_says_nothing_of_it(items: list[object]) -> None:
    assert reason(*items) == "missing" if items else read(actor(), wanted(IDS[0]), [])[1].reason == "missing"  # type: ignore[union-attr]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([f"https://youtu.be/{one}" for one in IDS]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["url", "id", "viewCount", "stats", "plays", "status", "error"]), inner, max_size=5
        )
    ),
    max_leaves=12,
)


@given(st.lists(JSON, max_size=6))
def test_whatever_the_items_are_each_post_has_one_answer_and_a_count_is_one_that_an_item_had(
    items: list[object],
) -> None:
    posts = wanted(*IDS)
    found = read(actor(), posts, items)
    assert set(found) == {post.clip_id for post in posts}
    numbers = set(_numbers(items))
    for one in found.values():
        assert isinstance(one, Failure) or (one in numbers and 0 <= one <= 10**13)


def _numbers(value: object) -> list[float]:
    if isinstance(value, dict):
        return [number for one in value.values() for number in _numbers(one)]
    if isinstance(value, list):
        return [number for one in value for number in _numbers(one)]
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else []


# --- whom to ask ---


def test_addresses_go_in_as_the_actor_takes_them() -> None:
    posts = wanted(IDS[0])
    assert run_input(actor(also={"maxResults": 1}), posts) == {"maxResults": 1, "startUrls": [posts[0].url]}
    assert run_input(actor(objects=True), posts) == {"startUrls": [{"url": posts[0].url}]}


def test_the_cheapest_that_holds_is_asked_first() -> None:
    cheap, dear, dearest = actor("a/1", 1), actor("a/2", 2), actor("a/3", 3)
    failing = {"a/1": Standing(5, 95)}
    assert [one.actor for one in in_order([dear, cheap, dearest], {}, 80)] == ["a/1", "a/2", "a/3"]
    assert [one.actor for one in in_order([dear, cheap, dearest], failing, 80)] == ["a/2", "a/3", "a/1"]
    worse = {**failing, "a/2": Standing(4, 96), "a/3": Standing(1, 99)}
    assert [one.actor for one in in_order([cheap, dear, dearest], worse, 80)] == ["a/1", "a/2", "a/3"], "then the best"


@pytest.mark.parametrize(
    ("succeeded", "failed", "holds"),
    [
        (0, 0, True),
        (0, 19.9, True),
        (0, 20, False),
        (16, 4, True),
        (15.9, 4.1, False),
        (80, 20, True),
        (79.9, 20.1, False),
    ],
)
def test_a_success_rate_holds_at_the_least_and_before_enough_is_known(
    succeeded: float, failed: float, holds: bool
) -> None:
    assert Standing(succeeded, failed).holds(80) is holds


def test_the_next_attempt_goes_to_an_actor_that_was_not_tried_then_to_the_one_tried_longest_ago() -> None:
    order = [actor("a/1"), actor("a/2")]
    assert chosen(order, ()).actor == "a/1"
    assert chosen(order, ("a/1",)).actor == "a/2"
    assert chosen(order, ("a/1", "a/2")).actor == "a/1"
    assert chosen(order, ("a/1", "a/2", "a/1")).actor == "a/2"


def test_posts_are_shared_out_into_calls_the_most_urgent_first() -> None:
    tries = [Try(post) for post in wanted(*(f"post{n:07}" for n in range(7)))]
    calls = shared_out(tries, {"youtube": [actor(urls=3)]})
    assert [[post.clip_id for post in call.posts] for call in calls] == [[1, 2, 3], [4, 5, 6], [7]]
    assert calls[0].cost_micros == 3_000


def test_what_is_asked_for_alone_has_a_call_of_its_own() -> None:
    tries = [Try(post, alone=n == 1) for n, post in enumerate(wanted(*IDS))]
    calls = shared_out(tries, {"youtube": [actor(urls=3)]})
    assert [[post.clip_id for post in call.posts] for call in calls] == [[1, 3], [2]]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["youtube", "x", "tiktok"]), st.booleans(), st.sampled_from([(), ("a/1",), ("a/2", "a/1")])
        ),
        max_size=40,
    ),
    st.integers(1, 6),
    st.integers(1, 6),
)
def test_every_post_is_in_one_call_of_an_actor_of_its_platform_that_takes_so_many(
    tries: list[Any], one: int, two: int
) -> None:
    listed = [
        Try(Wanted(n, platform, f"p{n}", "u"), alone=alone, tried=tried)
        for n, (platform, alone, tried) in enumerate(tries)
    ]
    orders = {platform: [actor("a/1", urls=one), actor("a/2", urls=two)] for platform in ("youtube", "x", "tiktok")}
    calls = shared_out(listed, orders)  # type: ignore[arg-type]
    assert sorted(post.clip_id for call in calls for post in call.posts) == list(range(len(listed)))
    for call in calls:
        assert len(call.tries) <= call.actor.urls
        assert {attempt.post.platform for attempt in call.tries} == {call.platform}
        assert len(call.tries) == 1 or not any(attempt.alone for attempt in call.tries)
    assert [call.posts[0].clip_id for call in calls] == sorted(call.posts[0].clip_id for call in calls)
