"""Claims against the slow order in random worlds; leases; several who claim at once; what a campaign's changes mean for its clips."""

from __future__ import annotations

import asyncio
import datetime as dt
import random
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from server.batching.tracking import selection
from server.batching.tracking.cadence import EVERY_H, STRETCH, Count
from server.batching.tracking.money import Observed
from server.batching.tracking.selection import Release, claim, due, let_go, live, more, release, renew
from server.batching.tracking.settlement import record_in
from server.batching.tracking.store import refresh, serving
from server.edge.clock import SystemClock
from server.edge.postgres import Database
from tests.batching.tracking.world import ADMIN, Place
from tests.oracle import urgency

NOW = dt.datetime(2026, 3, 20, 12, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
MINUTE = dt.timedelta(minutes=1)
TICK = dt.timedelta(microseconds=1)
WORLDS = 300
COLUMNS = (
    *(
        "id",
        "platform",
        "post_id",
        "url",
        "tracked",
        "state",
        "created_at",
        "last_checked_at",
        "newest_campaign_at",
        "young",
    ),
    *("pressing", "baseline_wanted", "next_due_at", "pace", "lease", "lease_until", "lease_run"),
)
LEASE_S = 600.0


@pytest.fixture
async def db(dsn: str) -> AsyncIterator[Database]:
    database = await Database.open(dsn, pool_size=12, clock=SystemClock())
    yield database
    await database.close()


@pytest.fixture
def place(db: Database) -> Place:
    return Place(db)


def clip(number: int, **more: Any) -> urgency.Clip:
    """A clip of an old campaign, looked at ten hours ago and due for six."""
    base = {
        **{"id": number, "platform": "x", "post_id": str(number), "url": f"https://x.com/i/status/{number}"},
        **{"tracked": "active", "state": "ok", "created_at": NOW - 500 * HOUR, "last_checked_at": NOW - 10 * HOUR},
        **{"newest_campaign_at": NOW - 400 * HOUR, "pressing": False, "baseline_wanted": False},
        **{"next_due_at": NOW - 6 * HOUR, "pace": "normal", "lease": 0, "lease_until": None, "lease_run": None},
        **more,
    }
    began = base["newest_campaign_at"]
    return {"young": began is not None and began > NOW - 7 * 24 * HOUR, **base}


async def fill(db: Database, clips: Sequence[urgency.Clip]) -> None:
    """These clips and no others."""
    async with db.connection() as connection:
        await connection.execute("delete from tracking.view_tracking; delete from tracking.clips")
        await connection.copy_records_to_table(
            "clips",
            schema_name="tracking",
            columns=["id", *COLUMNS[1:]],
            records=[tuple(one[name] for name in COLUMNS) for one in clips],
        )


async def ids(db: Database, wanted: int, now: dt.datetime | None = NOW, run: int = 1) -> list[int]:
    return [one.clip_id for one in await claim(db, run, wanted, LEASE_S, now)]


# --- exactness ---


def world(dice: random.Random) -> list[urgency.Clip]:
    """Clips at and beside all bounds there are: bands, lanes, leases, seven days, due or not; alike ones, too. In every other world many
    of them stand in one lane."""
    clips = [drawn(dice, number) for number in range(1, dice.randint(2, 60))]
    if dice.random() < 0.5:
        crowd = {name: dice.choice(clips)[name] for name in ("tracked", "newest_campaign_at", "young")}
        began = crowd["newest_campaign_at"]
        crowd["young"] = began is not None and began > NOW - 7 * 24 * HOUR
        for one in dice.sample(clips, len(clips) * 3 // 4):
            looked = NOW - dice.randint(17, 23) * HOUR - moment(dice, [0, 1, 2])
            one |= {**crowd, "state": "ok", "last_checked_at": looked, "next_due_at": looked + 16 * HOUR}
    return clips


def drawn(dice: random.Random, number: int) -> urgency.Clip:
    looked = (
        None if dice.random() < 0.15 else NOW - moment(dice, [0, 2, 4, 8, 10, 12, 15, 16, 24, 48, 72, 96, 499, 700])
    )
    waits = dice.choice([*{EVERY_H[pace] * times for pace in EVERY_H for times in STRETCH[pace]}, 0, 0.5, 100])
    due_at = (looked or NOW - moment(dice, [0, 1, 30])) + waits * HOUR - dice.choice([0, 1, 5, 10, 11]) * MINUTE
    if dice.random() < 0.2:  # put off after a failure, or wanted at once
        due_at = NOW + moment(dice, [-30, -1, 0, 1])
    began = dice.choice([None, NOW - moment(dice, [1, 100, 167, 168, 169, 400])])
    lease = NOW + dice.choice([-HOUR, -TICK, dt.timedelta(0), TICK, HOUR]) if dice.random() < 0.2 else None
    return clip(
        number,
        tracked=dice.choice(["active"] * 5 + ["ended", "none"]),
        state=dice.choice(["ok"] * 6 + ["unavailable", "unsupported"]),
        created_at=NOW - moment(dice, [1, 24, 300]),
        last_checked_at=looked,
        newest_campaign_at=began,
        # What time alone has made untrue is noticed; what it will make untrue can't be written yet.
        young=began is not None and (began > NOW - 7 * 24 * HOUR or dice.random() < 0.7),
        pressing=dice.random() < 0.2,
        baseline_wanted=dice.random() < 0.2,
        next_due_at=due_at,
        pace=dice.choice(list(EVERY_H)),
        lease=dice.randint(0, 5),
        lease_until=lease,
        lease_run=lease and 7,
    )


def moment(dice: random.Random, hours: Sequence[float]) -> dt.timedelta:
    exact = dice.choice(hours) * HOUR
    return dice.choice([exact, exact, exact - TICK, exact + TICK, exact + dice.randint(-90, 90) * MINUTE])


async def test_in_hundreds_of_random_worlds_a_claim_is_the_slow_order(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed = 0
    for seed in range(WORLDS):
        dice = random.Random(seed)
        clips = world(dice)
        await fill(db, clips)
        monkeypatch.setattr(selection, "SPARES", dice.choice([(0, 0), (16, 1_000)]))
        for _ in range(dice.randint(1, 3)):  # what was claimed is leased, and the rest goes on
            wanted = dice.randint(1, 25)
            expected = urgency.most_urgent(clips, NOW, wanted)
            assert await ids(db, wanted) == expected, f"seed {seed}"
            claimed += len(expected)
            for one in clips:
                one["lease_until"] = NOW + HOUR if one["id"] in expected else one["lease_until"]
    assert claimed > 3 * WORLDS


async def test_what_is_due_is_counted_as_slowly(db: Database) -> None:
    for seed in range(40):
        clips = world(random.Random(seed))
        await fill(db, clips)
        free = [one for one in clips if urgency.may({**one, "lease_until": None}, NOW)]
        leased = [one for one in free if not urgency.may(one, NOW)]
        late = max(((NOW - one["next_due_at"]).total_seconds() for one in free), default=0)
        async with serving(db) as connection:
            found = await due(connection, NOW)
            assert await more(connection, NOW) is (len(free) > len(leased)), seed
        never = [one for one in free if one["last_checked_at"] is None]
        seen = [one for one in free if one["last_checked_at"] is not None]
        active = [one for one in seen if one["tracked"] == "active"]
        expected = (len(never), len(active), len(seen) - len(active), len(leased), pytest.approx(late), False)
        assert (found.never, found.active, found.ended, found.leased, found.late_s, found.capped) == expected, seed


async def test_every_wait_a_pace_can_ask_for_is_the_bound_of_a_lane() -> None:
    assert {EVERY_H[pace] * times for pace in EVERY_H for times in STRETCH[pace]} <= set(selection.WAITS_H)


async def test_the_lanes_that_are_read_are_the_lanes_there_are(db: Database) -> None:
    clips, waits = [], [0, *selection.WAITS_H[1:], 400]
    for tracked in ("active", "ended"):
        for began in (None, NOW - HOUR):
            for looked in (None, NOW - 10 * HOUR):
                clips += [
                    clip(
                        len(clips) + n,
                        tracked=tracked,
                        newest_campaign_at=began,
                        last_checked_at=looked,
                        next_due_at=NOW - 10 * HOUR + wait * HOUR,
                    )
                    for n, wait in enumerate(waits, 1)
                ]
    await fill(db, clips)
    async with db.connection() as connection:
        lanes = {row["lane"] for row in await connection.fetch("select distinct lane from tracking.clips")}
    assert lanes == {*selection.ACTIVE, *selection.ENDED}


# --- leases ---


async def test_a_claim_says_what_a_run_needs_to_know(db: Database) -> None:
    await fill(db, [clip(1, baseline_wanted=True, pressing=True, lease=4)])
    (one,) = await claim(db, 9, 10, LEASE_S, NOW)
    assert (one.clip_id, one.lease, one.hold, one.platform, one.post_id) == (1, 5, (1, 5), "x", "1")
    assert (one.url, one.tracked, one.pace, one.not_found) == ("https://x.com/i/status/1", "active", "normal", 0)
    assert (one.pressing, one.baseline_wanted, one.priority) == (True, True, 20.0)
    async with db.connection() as connection:
        row = await connection.fetchrow("select lease, lease_run, lease_until from tracking.clips")
    assert row is not None and tuple(row) == (5, 9, NOW + dt.timedelta(seconds=LEASE_S))


async def test_what_is_leased_is_nobody_elses_until_the_lease_has_run_out(db: Database) -> None:
    await fill(db, [clip(1)])
    assert await ids(db, 1) == [1]
    assert await ids(db, 1) == []
    lease = dt.timedelta(seconds=LEASE_S)
    assert await ids(db, 1, NOW + lease - TICK) == []
    assert await ids(db, 1, NOW + lease) == [1]


async def test_a_release_says_when_it_is_due_and_lets_go(db: Database) -> None:
    await fill(db, [clip(1)])
    (one,) = await claim(db, 1, 1, LEASE_S, NOW)
    async with serving(db) as connection:
        done = Release(one.clip_id, one.lease, NOW + 4 * HOUR, "viral", not_found=2)
        assert await release(connection, [done]) == {1}
    assert await ids(db, 1, NOW + 4 * HOUR - TICK) == []
    (again,) = await claim(db, 1, 1, LEASE_S, NOW + 4 * HOUR)
    assert (again.pace, again.not_found) == ("viral", 2)


async def test_one_that_is_unavailable_is_not_claimed_again(db: Database) -> None:
    await fill(db, [clip(1)])
    (one,) = await claim(db, 1, 1, LEASE_S, NOW)
    async with serving(db) as connection:
        await release(connection, [Release(1, one.lease, NOW, "normal", "unavailable", 3)])
    assert await ids(db, 1, NOW + 900 * HOUR) == []


async def test_who_has_lost_its_lease_changes_nothing(db: Database) -> None:
    await fill(db, [clip(1)])
    (dead,) = await claim(db, 1, 1, 1.0, NOW)
    (other,) = await claim(db, 2, 1, 9e8, NOW + 2 * HOUR)
    assert (dead.clip_id, other.clip_id, other.lease) == (1, 1, dead.lease + 1)
    async with serving(db) as connection:
        assert await release(connection, [Release(1, dead.lease, NOW + HOUR, "slow")]) == frozenset()
        assert await renew(connection, [dead.hold], LEASE_S) == frozenset()
        assert await let_go(connection, [dead.hold]) == 0
        assert await renew(connection, [other.hold], LEASE_S) == {1}
        assert await release(connection, [Release(1, other.lease, NOW + HOUR, "slow")]) == {1}
        assert await release(connection, [Release(1, other.lease, NOW, "viral")]) == frozenset()
        assert await connection.fetchval("select pace from tracking.clips") == "slow"


async def test_what_is_given_back_is_still_due_and_first_again(db: Database) -> None:
    await fill(db, [clip(1, last_checked_at=NOW - 11 * HOUR), clip(2)])
    (one,) = await claim(db, 1, 1, LEASE_S, NOW)
    async with serving(db) as connection:
        assert await let_go(connection, [one.hold]) == 1
    assert await ids(db, 2) == [1, 2]


async def test_a_renewed_lease_lasts_so_long_from_now(db: Database) -> None:
    await fill(db, [clip(1)])
    claimed = await claim(db, 1, 1, 5.0)
    async with serving(db) as connection:
        assert await renew(connection, [one.hold for one in claimed], 3_600.0) == {1}
        left = await connection.fetchval("select lease_until - clock_timestamp() from tracking.clips")
    assert 59 * MINUTE < left <= 60 * MINUTE


async def test_nothing_is_asked_of_the_database_for_no_clips(db: Database) -> None:
    async with serving(db) as connection:
        assert await release(connection, []) == await renew(connection, [], 1.0) == frozenset()
        assert await let_go(connection, []) == 0
        assert await selection.counts_of(connection, []) == {}


# --- several at once ---


async def test_workers_that_claim_at_once_get_different_clips_and_all_there_are(db: Database) -> None:
    await fill(db, [clip(number) for number in range(1, 301)])
    claims = await asyncio.gather(*(ids(db, 40, run=run) for run in range(8)))
    assert sorted(number for one in claims for number in one) == list(range(1, 301))
    assert [number for one in sorted(claims) for number in one] == sorted(number for one in claims for number in one)
    assert sorted(map(len, claims)) == [20, *[40] * 7]


async def test_one_whose_row_somebody_else_holds_is_passed_over_and_the_next_one_taken(db: Database) -> None:
    await fill(db, [clip(number) for number in range(1, 6)])
    async with db.transaction() as other:
        await other.execute("select 1 from tracking.clips where id in (1, 3) for no key update")
        assert await ids(db, 2) == [2, 4]
    assert await ids(db, 9) == [1, 3, 5]


async def test_many_that_somebody_else_holds_are_passed_over_too(db: Database) -> None:
    await fill(db, [clip(number) for number in range(1, 301)])
    async with db.transaction() as other:
        await other.execute("select 1 from tracking.clips where id <= 200 for no key update")
        assert await ids(db, 5) == [201, 202, 203, 204, 205]


async def test_one_that_changed_while_it_was_chosen_is_looked_at_as_it_is_now(db: Database) -> None:
    await fill(db, [clip(number) for number in range(1, 4)])
    async with db.transaction() as other:
        await other.execute("select pg_advisory_xact_lock($1)", selection.CLAIMING)
        waiting = asyncio.ensure_future(ids(db, 3))
        await Place(db).waiting(1)
        await other.execute("update tracking.clips set next_due_at = $1 where id = 2", NOW + HOUR)
    assert await waiting == [1, 3]


# --- a campaign's age ---


async def test_a_campaign_that_becomes_seven_days_old_moves_its_clips_at_that_moment(db: Database) -> None:
    began = NOW - 7 * 24 * HOUR
    new = clip(1, newest_campaign_at=began + TICK, young=True)
    await fill(db, [new, clip(2, last_checked_at=NOW - 12 * HOUR)])
    assert await ids(db, 1) == [1]
    await fill(db, [new, clip(2, last_checked_at=NOW - 12 * HOUR)])
    assert await ids(db, 1, NOW + TICK) == [2]


async def test_aging_goes_in_slices_and_says_how_many_it_was(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "AGE_SLICE", 4)
    began = NOW - 8 * 24 * HOUR
    await fill(db, [clip(number, newest_campaign_at=began, young=True) for number in range(1, 12)])
    assert await selection.age(db, NOW) == 11
    assert await selection.age(db, NOW) == 0
    async with db.connection() as connection:
        assert await connection.fetchval("select count(*) from tracking.clips where young") == 0


# --- what its campaigns and counts mean for a clip ---


async def test_a_new_submission_is_due_at_once_and_first(place: Place) -> None:
    post = await place.post(await place.campaign())
    (one,) = await claim(place.db, 1, 5, LEASE_S)
    assert (one.clip_id, one.priority, one.pace) == (post.clip_id, 1498.5, "new")


async def state(place: Place) -> Any:
    (row,) = await place.rows("select last_checked_at, next_due_at, pace, young, tracked from tracking.clips")
    return row


async def test_a_campaign_that_has_nearly_spent_its_budget_makes_its_clips_due_two_hours_after_their_last_look(
    place: Place,
) -> None:
    post = await place.post(await place.campaign(1_000, 1_000))
    await place.count(post, 0, 1)
    await place.tell("update tracking.clips set next_due_at = last_checked_at + interval '8 hours'")
    await place.count(post, 800, 2)
    row = await state(place)
    assert row["next_due_at"] == row["last_checked_at"] + 119 * MINUTE


async def test_when_the_campaign_is_over_a_clip_is_due_a_day_after_its_last_look(place: Place) -> None:
    post = await place.post(await place.campaign(1_000, 1_000))
    await place.count(post, 0, 1)
    await place.tell("update tracking.clips set next_due_at = last_checked_at + interval '2 hours', pace = 'viral'")
    await place.count(post, 5_000, 2)
    row = await state(place)
    assert (row["tracked"], row["pace"]) == ("ended", "daily")
    assert row["next_due_at"] == row["last_checked_at"] + 24 * HOUR - MINUTE


async def test_when_a_campaign_goes_on_its_clips_are_due_at_once(place: Place) -> None:
    campaign = await place.campaign()
    post = await place.post(campaign)
    await place.campaigns.pause(campaign, ADMIN)
    assert await claim(place.db, 1, 5, LEASE_S) == []
    await place.tell("update tracking.clips set next_due_at = clock_timestamp() + interval '1 day'")
    await place.campaigns.reactivate(campaign, ADMIN)
    assert [one.clip_id for one in await claim(place.db, 1, 5, LEASE_S)] == [post.clip_id]


async def test_the_age_of_a_campaign_is_known_to_its_clips_from_the_first_moment_on(place: Place) -> None:
    campaign = await place.campaign()
    await place.post(campaign)
    assert (await state(place))["young"]
    await place.tell("update tracking.campaigns set created_at = created_at - interval '7 days'")
    async with serving(place.db) as connection:
        await refresh(connection, [row["id"] for row in await place.rows("select id from tracking.clips")])
    assert not (await state(place))["young"]


async def test_the_last_counts_that_count_newest_first(place: Place) -> None:
    post = await place.post(await place.campaign())
    for at, views in enumerate([100, 200, 300, 250, 400_000, 500], 1):  # the fifth is held, the fourth is lower
        await place.count(post, views, at)
    async with serving(place.db) as connection:
        found = (await selection.counts_of(connection, [post.clip_id, 999]))[post.clip_id]
    assert [one.views for one in found] == [500, 250, 300, 200]
    assert list(found) == sorted(found, key=lambda one: one.at, reverse=True)
    assert isinstance(found[0], Count)


async def test_a_look_is_recorded_and_released_in_one_transaction(place: Place) -> None:
    await place.post(await place.campaign())
    (one,) = await claim(place.db, 1, 1, LEASE_S)
    async with serving(place.db) as connection:
        at = await selection.moment_of(connection)
        await record_in(connection, [Observed(one.clip_id, 5, at)], None)
        assert await release(connection, [Release(one.clip_id, one.lease, at + 4 * HOUR, "new")]) == {one.clip_id}
    async with serving(place.db) as connection:
        assert (await due(connection, at + 4 * HOUR - TICK)).all == 0
        assert (await due(connection, at + 4 * HOUR)).all == 1


async def test_live_clips_are_counted_by_pace(db: Database) -> None:
    await fill(
        db,
        [
            *(clip(number, pace="slow") for number in (1, 2)),
            clip(3, pace="viral"),
            clip(4, pace="slow", pressing=True),
            clip(5, tracked="ended", pace="daily"),
            clip(6, tracked="none"),
            clip(7, state="unavailable"),
            clip(8, state="unsupported", tracked="ended"),
        ],
    )
    async with serving(db) as connection:
        found = await live(connection)
    assert (found.paces, found.pressing, found.active) == ({"slow": 2, "viral": 1}, 1, 4)
    assert (found.ended, found.unavailable, found.unsupported) == (1, 1, 1)


# --- the plan ---


async def test_a_claim_reads_the_index_and_nothing_else_however_many_clips_there_are(db: Database) -> None:
    await fill(db, [clip(number, next_due_at=NOW + (number % 50 - 1) * HOUR) for number in range(1, 20_001)])
    async with serving(db) as connection:
        await connection.execute("reset role; analyze tracking.clips")
        await connection.execute(selection.BEGIN, selection.CLAIMING)
        lanes = list(selection.ACTIVE)
        values = (NOW, lanes, selection._untils(lanes, NOW), 200, 100, 1, 60.0)
        explained = await connection.fetch(f"explain {selection.CLAIM}", *values)
    said = "\n".join(row[0] for row in explained)
    assert "Index Scan using clips_urgent" in said or "Index Only Scan using clips_urgent" in said
    assert "Seq Scan" not in said and "Bitmap" not in said and "Hash" not in said
