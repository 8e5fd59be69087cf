"""The arithmetic of the planner, and sixty days lived through with the code that chooses and paces in earnest."""

import datetime as dt
import random
from collections.abc import Callable

import pytest

from server.batching.tracking.demand import HOUR, PLANS, START, Plan, Post, Simulated, Terms, plan, simulate

pytestmark = pytest.mark.pure

PER_WEEK = 500
DAYS = 60
DAY = dt.timedelta(days=1)
LATER = START + 9_999 * DAY


def test_clips_that_stay_live_for_weeks_add_up() -> None:
    found = plan()
    assert (found.live, found.calls_per_day, found.calls_per_month) == (2_143, 12_857, 385_714)
    assert found.checks_per_day == 12_857


def test_a_hundred_every_four_hours_are_600_a_day_and_4200_a_week() -> None:
    found = plan()
    assert (found.capacity_per_day, found.capacity_per_week) == (600, 4_200)
    assert not found.enough_capacity
    assert found.clips_per_run == 2_143


def test_each_plan_is_held_against_what_a_month_needs() -> None:
    free, starter, team = plan().offers
    assert [one.plan for one in (free, starter, team)] == list(PLANS)
    assert [one.enough for one in (free, starter, team)] == [False, False, True]
    assert team.share == pytest.approx(0.385714)
    assert plan().cheapest == Plan("team", 1_000_000, 49_900)


def test_several_posts_in_a_call_need_that_many_calls_fewer() -> None:
    found = plan(posts_per_call=20)
    assert (found.checks_per_day, found.calls_per_day, found.calls_per_month) == (12_857, 643, 19_286)
    assert found.cheapest == Plan("starter", 100_000, 4_900)


def test_the_plan_that_is_just_enough_is_enough_and_one_call_more_is_not() -> None:
    exact = plan(plans=[Plan("dear", 385_714, 2), Plan("cheap", 385_713, 1)])
    assert [one.enough for one in exact.offers] == [True, False]
    assert exact.cheapest is not None and exact.cheapest.name == "dear"


def test_the_cheapest_is_by_price_and_not_by_size() -> None:
    found = plan(plans=[Plan("small", 400_000, 50_000), Plan("large", 9_000_000, 10_000)])
    assert found.cheapest is not None and found.cheapest.name == "large"


def test_when_no_plan_is_enough_there_is_no_cheapest() -> None:
    assert plan(plans=PLANS[:2]).cheapest is None


def test_as_much_as_the_runs_take_is_enough() -> None:
    assert plan(700, 1, 6, run_clips=100).enough_capacity
    assert not plan(707, 1, 6, run_clips=100).enough_capacity
    assert plan(700, 1, 6, run_clips=100).clips_per_run == 100


def test_nothing_needs_nothing() -> None:
    found = plan(clips_per_week=0)
    assert (found.live, found.calls_per_month, found.clips_per_run) == (0, 0, 0)
    assert found.cheapest == PLANS[0]


# --- day by day ---


def seen(dice: random.Random) -> Callable[[float], int | None]:
    """Views of a post: most have few, a few have very many; they come fast at first and then trickle. One look in 33 fails."""
    most, half_h = 10 ** dice.gauss(3.6, 0.9), dice.choice([12, 24, 48, 96, 240])
    trickle = dice.choice([0, 0.001, 0.002])

    def look(hours: float) -> int | None:
        views = most * (1 - 2 ** (-hours / half_h) + trickle * hours / 24)
        return int(views) if dice.random() > 0.03 else None

    return look


def posts(seed: int, *, goes_on: bool) -> list[Post]:
    """500 a week, live for 30 days; then nobody asks for them, or their campaign is over and goes on being looked at."""
    dice, made = random.Random(seed), []
    for number in range(PER_WEEK * DAYS // 7):
        comes = START + number * 168 / PER_WEEK * HOUR
        campaign = START + ((comes - START) // (7 * DAY) - dice.choice([0, 0, 1, 2])) * 7 * DAY
        ends = comes + 30 * DAY
        spent = ends - 2 * DAY if dice.random() < 0.5 else LATER
        platform = ("tiktok", "instagram", "youtube", "x")[number % 4]
        look = seen(random.Random(f"{seed} {number}"))
        made.append(Post(comes, platform, look, campaign, spent, ends, None if goes_on else ends))
    return made


def shares(done: Simulated) -> tuple[float, float]:
    """Of all looks, and of those at clips that can earn: how many came within one run of being due."""
    return done.on_time / done.checks, (done.on_time - done.ended_on_time) / (done.checks - done.ended)


def test_in_sixty_days_of_500_clips_a_week_the_defaults_look_in_time_and_within_the_quota() -> None:
    done = simulate(posts(1, goes_on=False), DAYS)
    assert done.checks > 150_000
    assert shares(done)[0] >= 0.95
    assert done.within / done.checks >= 0.99
    assert done.unsent == 0
    assert max(done.calls.values()) <= 0.2 * Terms().quota
    assert done.paces.keys() == {"new", "viral", "normal", "slow", "dormant"}


def test_clips_of_campaigns_that_are_over_take_no_look_from_those_that_earn() -> None:
    done = simulate(posts(2, goes_on=True), 42)
    assert done.ended > 2_000
    assert shares(done)[1] >= 0.95


def test_with_a_call_for_every_post_the_month_is_stretched_to_its_quota_and_nothing_is_left_unsent() -> None:
    done = simulate(posts(3, goes_on=False), 45, Terms(posts_per_call=1))
    assert max(done.calls.values()) <= Terms().quota
    assert done.unsent == 0
    assert shares(done)[0] >= 0.95


def test_a_quota_that_is_far_too_small_stretches_everything_and_is_never_exceeded() -> None:
    made = posts(4, goes_on=False)[:500]
    free = simulate(made, 25, Terms(posts_per_call=1, quota=10**9))
    done = simulate(posts(4, goes_on=False)[:500], 25, Terms(posts_per_call=1, quota=5_000))
    assert set(free.levels) == {0}
    assert max(done.calls.values()) == 5_000 < max(free.calls.values())
    assert done.unsent > 0
    assert done.levels[3] > 100


def test_a_run_takes_no_more_than_its_limit() -> None:
    flood = [Post(START, "x", lambda hours: 5, START, LATER, LATER) for _ in range(50)]
    done = simulate(flood, 1, Terms(run_clips=1))
    assert done.checks == 48
    assert done.on_time == 2
    assert done.waiting > 40
