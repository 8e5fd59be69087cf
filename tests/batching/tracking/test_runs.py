"""A run from its opening to its end: who is asked for what, what is written down, why it stops."""

from __future__ import annotations

import asyncio

import pytest

from server.batching.tracking.checking import verify
from server.edge.postgres import Database
from server.errors import Refused
from tests.batching.tracking.running import ADMIN, PAUL, node, until, youtube
from tests.doubles.apify.views import ABSENT, INSTAGRAM, MISSING, TIKTOK, YOUTUBE, YOUTUBE_TOO, Status, X

POSTS = {
    "tiktok": "https://www.tiktok.com/@name/video/7301234567890123456",
    "instagram": "https://www.instagram.com/reel/Cabc123DEF_/",
    "youtube": "https://youtu.be/dQw4w9WgXcQ",
    "x": "https://twitter.com/name/status/1234567890123456789",
}


async def test_a_run_counts_posts_of_all_platforms_and_pays_for_what_they_gained(db: Database) -> None:
    async with node(db) as here:
        campaign = await here.campaign(rate=1_000)
        made = [await here.post(campaign, url=url) for url in POSTS.values()]
        first = await here.work()
        assert (first.stop_reason, first.processed, first.successful, first.calls) == ("done", 4, 4, 4)
        assert {actor for actor, _ in here.views.asked} == {TIKTOK, INSTAGRAM, YOUTUBE, X}
        here.views.usual = 150
        await here.due_again()
        second = await here.work()
        assert second.earned_cents == 4 * 50
        assert {(await here.show(one.id)).earned_cents for one in made} == {50}
        assert await here.calls() == 8
        assert (await verify(db)).ok


async def test_a_run_with_nothing_due_ends_at_once_without_a_call(db: Database) -> None:
    async with node(db) as here:
        view = await here.work()
        assert (view.stop_reason, view.processed, view.calls, here.double.runs) == ("done", 0, 0, [])


async def test_posts_of_one_platform_share_calls_and_no_call_has_more_than_its_actor_takes(db: Database) -> None:
    async with node(db, tracking_youtube_actors=youtube(7)) as here:
        campaign = await here.campaign()
        await here.posts(campaign, 16)
        view = await here.work()
        assert sorted(len(posts) for _, posts in here.views.asked) == [2, 7, 7]
        assert (view.calls, view.processed) == (3, 16)


async def test_a_post_in_two_campaigns_is_asked_for_once_and_settled_in_both(db: Database) -> None:
    async with node(db) as here:
        one, other = await here.campaign(rate=1_000), await here.campaign(rate=2_000)
        mine, yours = await here.post(one, "shared"), await here.post(other, "shared")
        await here.work()
        here.views.usual = 200
        await here.due_again()
        view = await here.work()
        assert view.calls == 1
        assert ((await here.show(mine.id)).earned_cents, (await here.show(yours.id)).earned_cents) == (100, 200)


async def test_no_run_takes_more_clips_than_its_limit_and_the_others_stay_due(db: Database) -> None:
    async with node(db) as here:
        await here.posts(await here.campaign(), 5)
        view = await here.work(limit=3)
        assert (view.limit, view.claimed, view.processed) == (3, 3, 3)
        assert (await here.work()).processed == 2


async def test_at_most_so_many_calls_are_under_way_at_a_time(db: Database) -> None:
    async with node(db, tracking_youtube_actors=youtube(1), tracking_batch=3, how={"run_s": 0.05}) as here:
        await here.posts(await here.campaign(), 8)
        view = await here.work()
        assert (view.processed, here.double.platform.peak) == (8, 3)


async def test_what_is_no_count_is_a_failed_scrape_and_never_zero(db: Database) -> None:
    odd = (-1, "many", "1,234", "12.5", True, 3.5, 10**14, {"n": 1}, [5])
    async with node(db) as here:
        campaign = await here.campaign()
        posts = [await here.post(campaign, f"odd{n}") for n in range(len(odd))]
        here.views.counts.update({f"odd{n}_______": said for n, said in enumerate(odd)})
        view = await here.work()
        assert (view.successful, view.failed) == (0, len(odd))
        failed = await here.tracker.failed(ADMIN)
        assert {one.clip_id for one in failed} == {one.clip_id for one in posts}
        assert {(one.reason, one.attempts, one.next_attempt_at is None) for one in failed} == {
            ("implausible", 1, False)
        }
        assert await here.ask("select count(*) from tracking.view_tracking") == 0
        assert await here.ask("select count(*) from tracking.clips where views is not null") == 0


async def test_a_count_of_zero_is_a_count(db: Database) -> None:
    async with node(db) as here:
        post = await here.post(await here.campaign(), "zero")
        here.views.counts["zero_______"] = 0
        view = await here.work()
        assert (view.successful, (await here.show(post.id)).views) == (1, 0)


async def test_a_post_without_a_count_in_the_answer_is_a_failed_scrape(db: Database) -> None:
    async with node(db, tracking_youtube_actors=youtube(1)) as here:
        campaign = await here.campaign()
        for n, said in enumerate((ABSENT, MISSING, None)):
            await here.post(campaign, f"empty{n}")
            here.views.counts[f"empty{n}_____"] = said
        view = await here.work()
        failed = await here.tracker.failed(ADMIN)
        assert (view.failed, [one.reason for one in failed], view.calls) == (3, ["missing"] * 3, 3)


async def test_a_post_that_is_gone_three_times_in_a_row_is_not_looked_at_again_until_somebody_says_so(
    db: Database,
) -> None:
    async with node(db) as here:
        post = await here.post(await here.campaign(), "gone")
        here.views.script("gone_______", Status(404), Status(410), 50, *[Status(404)] * 3)
        states = []
        for _ in range(6):
            await here.work()
            await here.due_again()
            states.append((await here.show(post.id)).state)
        assert states == ["ok"] * 5 + ["unavailable"], "a count in between begins anew"
        assert (await here.work()).processed == 0
        (failed,) = await here.tracker.failed(ADMIN)
        assert (failed.reason, failed.retryable, failed.next_attempt_at) == ("not_found", False, None)
        await here.tracker.retry(failed.id, ADMIN)
        assert (await here.work()).successful == 1
        assert (await here.show(post.id)).state == "ok"
        assert await here.tracker.failed(ADMIN) == []


async def test_a_platform_without_an_actor_is_unsupported_until_it_has_one(db: Database) -> None:
    async with node(db, tracking_x_actors="[]") as here:
        post = await here.post(await here.campaign(), url=POSTS["x"])
        view = await here.work()
        assert (view.failed, view.calls, (await here.show(post.id)).state) == (1, 0, "unsupported")
        (failed,) = await here.tracker.failed(ADMIN)
        assert failed.reason == "unsupported" and "TRACKING_X_ACTORS" in failed.error
        assert (await here.work()).processed == 0
    async with node(db) as here:
        await here.turn("plan")
        view = await here.finish((await here.tracker.runs(ADMIN))[0].id)
        assert (view.successful, (await here.show(post.id)).state) == (1, "ok")


async def test_of_an_actor_that_answers_one_post_only_the_others_are_asked_for_by_themselves(db: Database) -> None:
    async with node(db, tracking_youtube_actors=youtube(4)) as here:
        here.views.first_only.add(YOUTUBE)
        await here.posts(await here.campaign(), 4)
        view = await here.work()
        assert (view.successful, view.failed, view.calls) == (4, 0, 4)


async def test_items_that_nobody_asked_for_change_nothing(db: Database) -> None:
    async with node(db) as here:
        here.views.noise = 3
        await here.posts(await here.campaign(), 2)
        assert (await here.work()).successful == 2
        assert await here.ask("select count(*) from tracking.view_tracking") == 2


async def test_where_the_cheapest_actor_finds_nothing_the_next_one_is_asked(db: Database) -> None:
    dear = {"actor": YOUTUBE_TOO, "priceMicros": 9_000}
    async with node(db, tracking_youtube_actors=youtube(10, dear)) as here:
        here.views.silent.add(YOUTUBE)
        await here.posts(await here.campaign(), 2)
        view = await here.work()
        assert (view.successful, [actor for actor, _ in here.views.asked]) == (2, [YOUTUBE, YOUTUBE_TOO])


async def test_an_actor_whose_success_rate_does_not_hold_gives_way_and_its_cost_per_success_is_told(
    db: Database,
) -> None:
    dear = {"actor": YOUTUBE_TOO, "priceMicros": 9_000}
    async with node(db, tracking_youtube_actors=youtube(10, dear)) as here:
        here.views.silent.add(YOUTUBE)
        await here.posts(await here.campaign(), 30)
        await here.work()
        await here.due_again()
        here.views.asked.clear()
        await here.work()
        assert {actor for actor, _ in here.views.asked} == {YOUTUBE_TOO}
        stats = await here.tracker.stats(ADMIN)
        uses = {use.actor: use for use in stats.actors}
        assert (uses[YOUTUBE].holds, uses[YOUTUBE].succeeded, uses[YOUTUBE].cost_per_success_micros) == (False, 0, None)
        assert (uses[YOUTUBE_TOO].holds, uses[YOUTUBE_TOO].cost_per_success_micros) == (True, 9_000)


async def test_what_the_cache_knows_is_not_paid_for_again(db: Database) -> None:
    async with node(db) as here:
        post = await here.post(await here.campaign())
        await here.work()
        before = await here.show(post.id)
        await here.tell(
            """update tracking.clips set next_due_at = clock_timestamp() - interval '1 day',
            last_checked_at = last_checked_at - interval '9 h'"""
        )
        view = await here.work()
        assert (view.successful, view.calls, len(here.double.runs)) == (1, 0, 1)
        assert await here.ask("select count(*) from tracking.view_tracking") == 1, (
            "the same count is the same observation"
        )
        assert before.views == 100


async def test_a_clip_that_wants_a_baseline_is_not_answered_from_the_cache(db: Database) -> None:
    async with node(db) as here:
        first = await here.post(await here.campaign(), "again")
        await here.work()
        second = await here.post(await here.campaign(), "again")
        here.views.usual = 5_000
        view = await here.work()
        assert (view.calls, first.clip_id) == (1, second.clip_id)
        assert (await here.show(second.id)).baseline_views == 5_000


async def test_only_one_run_is_open_and_asking_again_joins_it(db: Database) -> None:
    async with node(db) as here:
        await here.posts(await here.campaign(), 2)
        first = await here.tracker.run_now(ADMIN)
        second = await here.tracker.run_now(ADMIN, 1)
        assert (first.new, second.new, first.run.id) == (True, False, second.run.id)
        assert (first.audit_id is not None, second.audit_id) == (True, None)
        await here.finish(first.run.id)
        assert (await here.tracker.run_now(ADMIN)).run.id != first.run.id


async def test_the_same_key_is_the_same_run_also_when_it_has_ended(db: Database) -> None:
    async with node(db) as here:
        first = await here.tracker.run_now(ADMIN, key="abc")
        await here.finish(first.run.id)
        again = await here.tracker.run_now(ADMIN, key="abc")
        assert (again.run.id, again.new, again.run.status) == (first.run.id, False, "done")


async def test_a_run_that_is_stopped_sends_no_further_batch_and_gives_back_what_it_claimed(db: Database) -> None:
    async with node(db, tracking_youtube_actors=youtube(1), tracking_batch=2) as here:
        await here.posts(await here.campaign(), 6)
        opened = await here.tracker.run_now(ADMIN)
        await here.turn()
        stopped = await here.tracker.stop(opened.run.id, ADMIN)
        view = await here.finish(opened.run.id)
        assert (view.stop_reason, view.processed, view.calls, view.claimed) == ("stopped", 2, 2, 2)
        assert stopped.audit_id is not None
        assert (await here.work()).processed == 4
        with pytest.raises(Refused, match="there is nothing to stop"):
            await here.tracker.stop(opened.run.id, ADMIN)


async def test_only_admins_see_and_start_runs(db: Database) -> None:
    async with node(db) as here:
        for asked in (
            here.tracker.run_now(PAUL),
            here.tracker.runs(PAUL),
            here.tracker.run(1, PAUL),
            here.tracker.stop(1, PAUL),
            here.tracker.health(PAUL),
            here.tracker.stats(PAUL),
            here.tracker.failed(PAUL),
            here.tracker.retry(1, PAUL),
            here.tracker.link(1, "e", PAUL),
            here.tracker.plan(PAUL),
        ):
            with pytest.raises(Refused) as refused:
                await asked
            assert refused.value.code == "forbidden"


@pytest.mark.parametrize("limit", [0, -1, 10_001])
async def test_a_run_takes_from_one_to_ten_thousand_clips(db: Database, limit: int) -> None:
    async with node(db) as here:
        with pytest.raises(Refused) as refused:
            await here.tracker.run_now(ADMIN, limit)
        assert (refused.value.code, refused.value.field) == ("bad_message", "limit")


async def test_without_a_token_no_run_is_opened_and_the_refusal_says_what_to_set(db: Database) -> None:
    async with node(db, token=False) as here:
        await here.post(await here.campaign())
        await here.turn("plan")
        assert await here.tracker.runs(ADMIN) == []
        with pytest.raises(Refused, match="APIFY_TOKEN"):
            await here.tracker.run_now(ADMIN)


async def test_the_loops_alone_open_a_run_and_work_it_off(db: Database) -> None:
    async with node(db, tracking_interval_ms=1_000) as here:
        await here.posts(await here.campaign(), 3)
        here.panel.start()
        await until(
            lambda: here.ask(
                "select exists (select from tracking.tracking_runs where successful = 3 and stop_reason = 'done')"
            )
        )
        assert (await here.tracker.runs(ADMIN))[-1].occasion == "interval"
        assert {"runs", "submissions"} <= set(here.noted)


async def test_two_nodes_share_a_run_and_no_clip_is_asked_for_twice(db: Database) -> None:
    one_a_call = {"tracking_youtube_actors": youtube(1), "tracking_batch": 3}
    async with (
        node(db, how={"run_s": 0.03}, **one_a_call) as here,
        node(db, name="there", double=here.double, views=here.views, **one_a_call) as there,
    ):
        posts = await here.posts(await here.campaign(), 24)
        opened = await here.tracker.run_now(ADMIN)
        view, _ = await asyncio.gather(here.finish(opened.run.id), there.finish(opened.run.id))
        assert (view.stop_reason, view.processed, view.calls) == ("done", 24, 24)
        assert all(here.views.looks(one.post_id) == 1 for one in posts)
        assert min(here.tracker.worker.totals["calls"], there.tracker.worker.totals["calls"]) > 0
        assert await here.ask("select count(*) from tracking.call_reservations") == 0
        assert await here.ask("select count(*) from tracking.run_workers") == 0


async def test_the_clean_up_forgets_what_is_old_and_nothing_else(db: Database) -> None:
    async with node(db, tracking_keep_days=10) as here:
        campaign = await here.campaign()
        await here.posts(campaign, 2)
        await here.post(campaign, "gone")
        here.views.script("gone_______", Status(404))
        await here.work()
        assert (await here.turn("clean")).taken == 0
        await here.due_again()
        await here.work()
        for table, column in (("tracking_runs", "finished_at"), ("failed_scrapes", "resolved_at")):
            await here.tell(f"update tracking.{table} set {column} = {column} - interval '11 days' where id = 1")
        await here.tell("update tracking.scrape_cache set scraped_at = scraped_at - interval '2 hours'")
        turn = await here.turn("clean")
        assert turn.detail == {"views": 0, "runs": 1, "failed": 1, "cached": 3}
        assert [run.id for run in await here.tracker.runs(ADMIN)] == [2]


async def test_the_planning_turn_tells_clips_what_became_of_their_campaigns(db: Database) -> None:
    async with node(db) as here:
        campaign = await here.campaign()
        post = await here.post(campaign)
        await here.tell(
            "update tracking.campaigns set status = 'PAUSED', changes = changes + 1 where id = $1", campaign
        )
        await here.turn("plan")
        assert await here.ask("select tracked from tracking.clips where id = $1", post.clip_id) == "none"
        assert (await here.finish(1)).processed == 0
