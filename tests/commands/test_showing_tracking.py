"""Rules: the demo's campaigns and posts, how their views grow, and amounts as people write them."""

import os
from itertools import pairwise
from pathlib import Path

import orjson
import pytest

from server.batching.tracking.money import BASELINES, entitlement, is_jump
from server.batching.tracking.posts import PLATFORMS, post_of
from server.commands.calling import Failed
from server.commands.running import sample
from server.commands.scraping import TOKEN
from server.commands.showing_tracking import STAYS_PAUSED, begun, campaigns, clips, pace
from server.commands.tracking_lists import hundredths
from server.edge.secrets import KEY_FILE
from server.settings import Settings, load
from server.settings.tracking import TRACKED, actors_of
from tests.doubles.apify import growing
from tests.doubles.apify.http import TOKEN as ITS_TOKEN

pytestmark = pytest.mark.pure
LOOK_S = 15
SEED = 1


def settings() -> Settings:
    return load({"APIFY_TOKEN": TOKEN, **pace({})})


def test_the_samples_posts_are_of_all_platforms_and_belong_to_its_campaigns() -> None:
    names = {str(one["name"]): one for one in campaigns()}
    posts = [post_of(clip.url) for clip in clips()]
    assert {post.platform for post in posts} == set(PLATFORMS)
    assert {clip.campaign for clip in clips()} == set(names) and STAYS_PAUSED in names
    assert len({(clip.campaign, post) for clip, post in zip(clips(), posts, strict=True)}) == len(posts)
    assert len(set(posts)) == len(posts) - 1, "one post is in two campaigns, and looked at once"
    assert {one["baseline"] for one in names.values()} == set(BASELINES)
    assert {clip.decision for clip in clips()} == {"approve", "reject", ""}


def test_the_linked_event_is_one_of_the_samples() -> None:
    (event,) = {clip.event for clip in clips()} - {""}
    assert event in {orjson.loads(line)["id"] for line in sample().splitlines()}


def test_the_double_counts_what_the_default_actors_are_asked() -> None:
    chosen = settings()
    names = {one.actor for platform in TRACKED for one in actors_of(chosen, platform)}
    assert names == set(growing.ACTORS) and TOKEN == ITS_TOKEN
    made = growing.actors(seed=SEED, missing={"gone"}, clock=lambda: 0.0)
    for platform in TRACKED:
        for actor in actors_of(chosen, platform):
            urls = [post_of(clip.url).url for clip in clips() if post_of(clip.url).platform == platform]
            items = made[actor.actor]({actor.input: [{"url": url} for url in urls] if actor.objects else urls})
            assert all(any(isinstance(item.get(name), int) for name in actor.views) for item in items)
            assert all(any(item.get(name) in urls for name in actor.post) for item in items)
    assert made["apidojo/tweet-scraper"]({"startUrls": ["https://x.com/i/status/gone"]})[0]["error"] == "not_found"


def test_views_grow_the_same_way_each_time_and_one_clip_jumps() -> None:
    looks = [[growing.views_at(SEED, post_of(clip.url).post_id, LOOK_S * n) for n in range(40)] for clip in clips()]
    again = [[growing.views_at(SEED, post_of(clip.url).post_id, LOOK_S * n) for n in range(40)] for clip in clips()]
    assert looks == again and all(views == sorted(views) for views in looks)
    jumps = [sum(is_jump(after, before) for before, after in pairwise(views)) for views in looks]
    assert sum(jumps) == 1 and jumps[[clip.url.endswith("jump") for clip in clips()].index(True)] == 1


def test_something_is_earned_at_the_first_look_and_by_growth_within_a_minute() -> None:
    rates = {str(one["name"]): one for one in campaigns()}
    earned: dict[str, int] = {}
    for clip in clips():
        rate, first = int(str(rates[clip.campaign]["rateCents"])), growing.views_at(SEED, post_of(clip.url).post_id, 0)
        later = growing.views_at(SEED, post_of(clip.url).post_id, 60)
        base = 0 if rates[clip.campaign]["baseline"] == "zero" else first
        if clip.decision == "approve":
            earned[clip.campaign] = earned.get(clip.campaign, 0) + entitlement(later, base, rate)
    full = next(str(one["name"]) for one in campaigns() if one["baseline"] == "zero")
    assert earned[full] > int(str(rates[full]["budgetCents"])), "it is full at its first look"
    assert sum(cents > 0 for name, cents in earned.items() if name != full) >= 2


def test_after_a_restart_views_go_on_where_they_were_and_no_rest_makes_them_jump(tmp_path: Path) -> None:
    assert begun(tmp_path) is None
    (tmp_path / KEY_FILE).touch()
    os.utime(tmp_path / KEY_FILE, (1_000.0, 1_000.0))
    assert begun(tmp_path) == 1_000.0
    posts = [post_of(clip.url).post_id for clip in clips() if not clip.url.endswith(growing.JUMPER)]
    for post in posts:
        first, later = (growing.views_at(SEED, post, seconds) for seconds in (0.0, 365 * 86_400.0))
        assert not is_jump(later, first), "the demo rested for a year"
    made = growing.actors(seed=SEED, missing=(), clock=lambda: 1_600.0, since=1_000.0)
    (item,) = made["apidojo/tweet-scraper"]({"startUrls": ["https://x.com/i/status/1811000000000000103"]})
    assert item["viewCount"] == growing.views_at(SEED, "1811000000000000103", 600.0)


def test_the_demo_may_be_given_a_preset() -> None:
    assert "TRACKING_INTERVAL_MS" in pace({})
    load({**pace({"TRACKING_PRESET": "50-every-2h"}), "TRACKING_PRESET": "50-every-2h"})


@pytest.mark.parametrize(
    ("text", "cents"),
    [
        ("12.50", 1_250),
        ("$1,500", 150_000),
        ("1,234,567.8", 123_456_780),
        ("0.01", 1),
        ("7.5", 750),
        ("1000000000.00", 100_000_000_000),
        (" 3 ", 300),
    ],
)
def test_amounts_are_read_to_the_cent(text: str, cents: int) -> None:
    assert hundredths(text, "--budget") == cents


@pytest.mark.parametrize(
    "text", ["", "1.234", "-1", "1e3", "nan", "1.", ".5", "١", "12,50", "1,5000", ",500", "$", "10000000000.00", "1 2"]
)
def test_what_is_no_amount_is_refused_with_2(text: str) -> None:
    with pytest.raises(Failed) as failed:
        hundredths(text, "--budget")
    assert failed.value.exit_code == 2 and "--budget" in str(failed.value)
