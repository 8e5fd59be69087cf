"""Calls of a month: reserved, counted when sent, never more than the quota, whoever sends them and whatever time zone they live in."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from server.batching.tracking import quota
from server.batching.tracking.posts import Platform
from server.batching.tracking.quota import Places, Sent, Terms, Usage
from server.batching.tracking.store import serving
from server.edge.postgres import Database
from tests.batching.tracking.running import ADMIN, node, until, youtube

ROOT = Path(__file__).parents[3]
DECEMBER = dt.datetime(2026, 12, 31, 23, 59, 59, 999_999, tzinfo=dt.UTC)
JANUARY = dt.datetime(2027, 1, 1, tzinfo=dt.UTC)


async def reserve(
    db: Database, wanted: Sequence[Platform], terms: Terms, at: dt.datetime | None = None, zone: str = "UTC"
) -> Places:
    async with serving(db) as connection:
        await connection.execute("select set_config('timezone', $1, true)", zone)
        return await quota.reserve(connection, wanted, terms, 1, at)


async def send(db: Database, ids: Sequence[int], terms: Terms, at: dt.datetime | None = None) -> Sent:
    async with serving(db) as connection:
        return await quota.send(connection, ids, terms, at)


async def over(db: Database, ids: Sequence[int]) -> None:
    async with serving(db) as connection:
        await quota.over(connection, ids)


async def usage(db: Database, terms: Terms, at: dt.datetime | None = None) -> Usage:
    async with serving(db) as connection:
        return await quota.usage(connection, terms, at)


async def expire(db: Database) -> None:
    """As if whoever reserved had been killed long ago."""
    async with db.connection() as connection:
        await connection.execute("update tracking.call_reservations set expires_at = clock_timestamp()")


async def test_a_call_is_reserved_then_counted_when_sent(db: Database) -> None:
    terms = Terms(quota=10)
    places = await reserve(db, ["x", "x", "youtube"], terms)
    used = await usage(db, terms)
    assert (used.calls, used.reserved, used.left) == (0, 3, 7)
    sent = await send(db, places.granted, terms)
    used = await usage(db, terms)
    assert (used.calls, used.reserved, used.left, sent.ids) == (3, 0, 7, frozenset(places.granted))
    await over(db, places.granted)
    assert (await usage(db, terms)).calls == 3, "a call that has ended was still a call"


async def test_what_is_reserved_is_taken_from_what_others_may_reserve_the_first_asked_for_first(db: Database) -> None:
    terms = Terms(quota=5)
    assert (await reserve(db, ["x"] * 3, terms)).spent is False
    places = await reserve(db, ["youtube", "x", "tiktok"], terms)
    assert ([one is not None for one in places.ids], places.spent) == ([True, True, False], True)
    assert (await reserve(db, ["x"], terms)).ids == (None,)


async def test_a_call_that_was_not_sent_gives_its_place_back(db: Database) -> None:
    terms = Terms(quota=2)
    places = await reserve(db, ["x", "x"], terms)
    await over(db, places.granted)
    assert len((await reserve(db, ["x", "x"], terms)).granted) == 2


async def test_reservations_of_a_killed_process_run_out_and_what_it_sent_stays_counted(db: Database) -> None:
    terms = Terms(quota=4)
    places = await reserve(db, ["x"] * 4, terms)
    await send(db, places.granted[:1], terms)
    assert (await reserve(db, ["x"], terms)).spent
    await expire(db)
    assert len((await reserve(db, ["x"] * 4, terms)).granted) == 3
    assert (await usage(db, terms)).calls == 1


async def test_who_froze_until_its_reservation_had_run_out_sends_nothing(db: Database) -> None:
    terms = Terms(quota=2)
    mine = await reserve(db, ["x", "x"], terms)
    await expire(db)
    assert (await send(db, mine.granted, terms)).ids == frozenset()
    theirs = await reserve(db, ["x", "x"], terms)
    assert (await send(db, mine.granted, terms)).ids == frozenset()
    assert (await send(db, theirs.granted, terms)).ids == frozenset(theirs.granted)
    assert (await send(db, theirs.granted, terms)).ids == frozenset(), "and nothing is sent twice"
    assert (await usage(db, terms)).calls == 2


async def test_a_platform_has_no_more_calls_under_way_than_it_may_all_nodes_together(db: Database) -> None:
    terms = Terms(quota=100, at_once=3)
    first = await reserve(db, ["x", "x", "youtube"], terms)
    await send(db, first.granted, terms)
    second = await reserve(db, ["x", "x", "youtube"], terms)
    assert ([one is not None for one in second.ids], second.busy, second.spent) == ([True, False, True], True, False)
    await over(db, first.granted[:1])
    assert len((await reserve(db, ["x", "x"], terms)).granted) == 1


async def test_many_at_once_never_exceed_the_quota(db: Database) -> None:
    terms = Terms(quota=50, at_once=1_000)

    async def caller() -> int:
        sent = 0
        for _ in range(5):
            places = await reserve(db, ["x"] * 3, terms)
            going = await send(db, places.granted[:2], terms)
            await over(db, places.granted)
            sent += len(going.ids)
        return sent

    sent = sum(await asyncio.gather(*(caller() for _ in range(8))))
    assert sent == (await usage(db, terms)).calls <= 50
    rest = await reserve(db, ["x"] * 60, terms)
    assert len(rest.granted) == 50 - sent


async def test_a_month_begins_at_midnight_in_utc_whatever_the_session_says(db: Database) -> None:
    terms = Terms(quota=3)
    for zone in ("Pacific/Kiritimati", "America/Los_Angeles", "UTC"):
        places = await reserve(db, ["x"], terms, DECEMBER, zone)
        await send(db, places.granted, terms, DECEMBER)
    assert (await reserve(db, ["x"], terms, DECEMBER, "Asia/Tokyo")).spent
    assert len((await reserve(db, ["x"], terms, JANUARY, "America/Los_Angeles")).granted) == 1
    december, january = await usage(db, terms, DECEMBER), await usage(db, terms, JANUARY)
    assert (december.month, december.calls) == (dt.date(2026, 12, 1), 3)
    assert (january.month, january.calls, january.reserved) == (dt.date(2027, 1, 1), 0, 1)


async def test_a_call_reserved_before_and_sent_after_midnight_counts_for_the_new_month_if_that_has_room(
    db: Database,
) -> None:
    terms = Terms(quota=2)
    places = await reserve(db, ["x", "x"], terms, DECEMBER)
    new = await reserve(db, ["x"], terms, JANUARY)
    sent = await send(db, [*places.granted, *new.granted], terms, JANUARY)
    assert (len(sent.ids), new.granted[0] in sent.ids) == (2, True)
    assert (await usage(db, terms, JANUARY)).calls == 2
    assert (await usage(db, terms, DECEMBER)).calls == 0


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/Los_Angeles", "UTC"])
async def test_processes_in_any_time_zone_write_the_same_month(db: Database, dsn: str, zone: str) -> None:
    command = [
        sys.executable,
        "-m",
        "tests.batching.tracking.quota_process",
        dsn,
        DECEMBER.isoformat(),
        JANUARY.isoformat(),
    ]
    told = await asyncio.to_thread(
        subprocess.run,
        command,
        cwd=ROOT,
        env={**os.environ, "TZ": zone, "PGTZ": zone},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert told.stdout.split() == ["2026-12-01", "2027-01-01"], told.stderr


@pytest.mark.parametrize(
    ("calls", "at", "projected"),
    [
        (100, dt.datetime(2026, 4, 1, 12, tzinfo=dt.UTC), 100 + 2_950),
        (1_500, dt.datetime(2026, 4, 16, tzinfo=dt.UTC), 3_000),
        (0, dt.datetime(2026, 4, 16, tzinfo=dt.UTC), 0),
    ],
)
def test_the_month_is_projected_from_what_was_used_so_far_the_first_day_is_a_day_long(
    calls: int, at: dt.datetime, projected: int
) -> None:
    used = Usage("apify", dt.date(2026, 4, 1), calls, 0, 6_000, at)
    assert used.projected == pytest.approx(projected, abs=1)
    assert used.projected_percent == pytest.approx(projected / 60, abs=0.1)


# --- in runs ---


def small_plan(calls: int) -> dict[str, Any]:
    return {"tracking_plans": f"mini:{calls}:0", "tracking_plan": "mini", "tracking_youtube_actors": youtube(1)}


async def test_a_run_stops_when_the_quota_is_spent_and_the_rest_stays_due(db: Database) -> None:
    async with node(db, **small_plan(7)) as here:
        await here.posts(await here.campaign(), 12)
        view = await here.work()
        assert (view.stop_reason, view.calls, view.successful, len(here.double.runs)) == ("quota", 7, 7, 7)
        assert view.claimed == 7
        assert (
            await here.ask("select count(*) from tracking.clips where next_due_at <= now() and lease_until is null")
            == 5
        )
        again = await here.work()
        assert (again.stop_reason, again.calls) == ("quota", 0)
        assert (await here.tracker.health(ADMIN)).quota.percent == 100


async def test_a_run_that_needs_exactly_what_is_left_is_done(db: Database) -> None:
    async with node(db, **small_plan(12)) as here:
        await here.posts(await here.campaign(), 12)
        assert (await here.work()).stop_reason == "done"


async def test_two_nodes_on_one_run_never_exceed_the_quota_nor_what_a_platform_may_have_under_way(db: Database) -> None:
    how = {**small_plan(17), "tracking_at_once": 4, "tracking_batch": 3}
    async with (
        node(db, how={"run_s": 0.02}, **how) as here,
        node(db, name="there", double=here.double, views=here.views, **how) as there,
    ):
        await here.posts(await here.campaign(), 30)
        opened = await here.tracker.run_now(ADMIN)
        here.panel.start()
        there.panel.start()
        there.tracker._wake_run(0)
        await until(lambda: here.ask("select stop_reason = 'quota' from tracking.tracking_runs"), "the run stops")
        view = await here.tracker.run(opened.run.id, ADMIN)
        assert (view.calls, view.successful, len(here.double.runs), await here.calls()) == (17, 17, 17, 17)
        assert here.double.platform.peak <= 4
