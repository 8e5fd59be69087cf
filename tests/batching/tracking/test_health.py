"""One word for the last 24 hours, the figures, and when somebody is told."""

from __future__ import annotations

import pytest

from server.batching.alerts import findings
from server.batching.loop import TurnRecord
from server.batching.tracking.figures import RULES
from server.batching.tracking.health import grade
from server.batching.tracking.sums import WATCH
from server.edge.postgres import Database
from tests.batching.tracking.running import ADMIN, Node, node, youtube
from tests.doubles.apify import Act

HALF_HOUR_S = 1_800.0


@pytest.mark.parametrize(
    ("successful", "processed", "age_s", "word"),
    [
        (100, 100, 0.0, "HEALTHY"),
        (901, 1_000, 0.0, "HEALTHY"),
        (90, 100, 0.0, "DEGRADED"),
        (701, 1_000, 0.0, "DEGRADED"),
        (70, 100, 0.0, "UNHEALTHY"),
        (0, 1, 0.0, "UNHEALTHY"),
        (0, 0, None, "NO_DATA"),
        (0, 0, 10.0, "NO_DATA"),
        (100, 100, 2 * HALF_HOUR_S, "HEALTHY"),
        (100, 100, 2 * HALF_HOUR_S + 1, "STALE"),
        (0, 0, 90_000.0, "STALE"),
    ],
)
def test_the_word_follows_from_all_clips_together_and_from_when_the_last_run_was(
    successful: int, processed: int, age_s: float | None, word: str
) -> None:
    assert grade(successful, processed, age_s, HALF_HOUR_S) == word


async def past_run(here: Node, hours: float, processed: int, successful: int, reason: str = "done") -> None:
    """A run that ended so long ago."""
    await here.tell(
        """insert into tracking.tracking_runs (node, limit_clips, processed, successful, failed, started_at, finished_at, stop_reason)
        select 'x', 100, $2::int, $3::int, $2::int - $3::int, at, at, $4
        from (select now() - make_interval(mins => ($1::float8 * 60)::int) as at)""",
        hours,
        processed,
        successful,
        reason,
    )


async def test_a_large_run_weighs_more_than_a_small_one_and_what_is_older_than_a_day_weighs_nothing(
    db: Database,
) -> None:
    async with node(db) as here:
        assert (await here.tracker.health(ADMIN)).status == "NO_DATA"
        await past_run(here, 25, 1_000, 0)
        await past_run(here, 1, 2, 0)
        await past_run(here, 0.5, 98, 95)
        health = await here.tracker.health(ADMIN)
        assert (health.status, health.processed, health.successful, health.failed, health.runs) == (
            "HEALTHY",
            100,
            95,
            5,
            2,
        )
        assert health.success_percent == 95
        await here.tell("update tracking.tracking_runs set started_at = started_at - interval '61 minutes'")
        assert (await here.tracker.health(ADMIN)).status == "STALE"


async def said(here: Node) -> dict[str, str]:
    """What the rules say after a look."""
    turn = await here.turn("watch")
    record = TurnRecord(WATCH, 1, "interval", 0, 0.1, detail=turn.detail)
    return {name: text for name, text in findings(RULES, {WATCH: [record]}, 0).items() if text is not None}


async def test_nothing_is_said_while_all_is_well(db: Database) -> None:
    async with node(db) as here:
        assert await said(here) == {}
        await here.posts(await here.campaign(), 6)
        await here.work()
        assert await said(here) == {}
        assert (here.tracker.figures.calls_month, here.tracker.figures.processed_day) == (1, 6)
        assert here.tracker.sums.campaigns_active == 1


async def test_a_run_below_eighty_per_cent_is_told_and_so_is_a_day(db: Database) -> None:
    async with node(db) as here:
        await past_run(here, 0.4, 1_000, 1_000)
        await past_run(here, 0.3, 100, 79)
        assert "79.0 %" in (await said(here))["tracking-success"]
        await past_run(here, 0.2, 100, 80)
        assert await said(here) == {}
        await past_run(here, 0.1, 4, 0)
        assert await said(here) == {}, "four clips of so many"
        await here.tell("delete from tracking.tracking_runs where processed <> 4")
        assert "0.0 %" in (await said(here))["tracking-success"], "four clips are all there were"


@pytest.mark.parametrize(
    ("calls", "name"), [(80, None), (81, "tracking-quota"), (99, "tracking-quota"), (100, "tracking-quota-spent")]
)
async def test_more_than_eighty_per_cent_of_the_quota_is_told(db: Database, calls: int, name: str | None) -> None:
    async with node(db, tracking_plans="mini:100:0", tracking_plan="mini") as here:
        await past_run(here, 0.1, 10, 10)
        await here.tell(
            """insert into tracking.provider_usage (provider, month, calls)
            values ('apify', date_trunc('month', now() at time zone 'UTC')::date, $1)""",
            calls,
        )
        assert set(await said(here)) == ({name} if name else set())


async def test_a_refused_token_is_told_until_a_run_works_again(db: Database) -> None:
    async with node(db) as here:
        await here.posts(await here.campaign(), 6)
        here.double.always["start"] = Act(status=401)
        await here.work()
        found = await said(here)
        assert "APIFY_TOKEN" in found["tracking-auth"] and "tracking-success" in found
        here.double.always.clear()
        await here.work()
        assert set(await said(here)) == {"tracking-success"}, "half of the day's clips could not be read"


async def test_a_pace_that_is_not_kept_is_told(db: Database) -> None:
    async with node(db) as here:
        await past_run(here, 1.1, 10, 10)
        assert set(await said(here)) == {"tracking-stale"}
        post = await here.post(await here.campaign())
        await here.tell(
            "update tracking.clips set next_due_at = now() - interval '7 hours' where id = $1", post.clip_id
        )
        assert set(await said(here)) == {"tracking-stale", "tracking-late"}


async def test_a_platform_none_of_whose_actors_holds_is_told(db: Database) -> None:
    async with node(db, tracking_youtube_actors=youtube(10)) as here:
        here.views.silent.update(name for name, _ in here.views.actors().items())
        await here.posts(await here.campaign(), 30)
        await here.work()
        assert "youtube" in (await said(here))["tracking-actors"]


async def test_statistics_tell_calls_costs_queues_and_campaigns(db: Database) -> None:
    async with node(db) as here:
        campaign = await here.campaign()
        await here.posts(campaign, 3)
        await here.post(campaign, "odd")
        here.views.counts["odd________"] = -5
        await here.work()
        stats = await here.tracker.stats(ADMIN)
        (use,) = stats.actors
        assert (use.calls, use.posts, use.succeeded, use.failed, use.cost_micros) == (1, 4, 3, 1, 4 * 5_000)
        assert (use.success_percent, use.cost_per_success_micros) == (75, 6_667)
        assert use.average_seconds is not None and use.average_seconds > 0
        assert (stats.failed_open, stats.failed_retryable, stats.live, stats.due) == (1, 0, 4, 0)
        assert (stats.campaigns_active, stats.campaigns_completed, stats.usage.calls) == (1, 0, 1)


async def test_the_plan_says_what_is_needed_and_what_there_is(db: Database) -> None:
    async with node(db) as here:
        await here.posts(await here.campaign(), 2)
        planned = await here.tracker.plan(ADMIN, run_clips=100, run_every_s=14_400)
        assert (planned.demand.live, planned.demand.calls_per_day, planned.demand.calls_per_month) == (
            2_143,
            12_857,
            385_714,
        )
        assert (planned.demand.capacity_per_day, planned.demand.capacity_per_week) == (600, 4_200)
        assert planned.demand.cheapest is not None and planned.demand.cheapest.name == "team"
        assert planned.live.active == 2
