"""Claims, leases and pages in a real PostgreSQL: order, fences, rescue, statistics, and plans that stay what they are."""

import asyncio
import datetime as dt
from dataclasses import replace

import pytest

from server.batching.imports import claims
from server.batching.imports.plan import Done, Ladder, rescued, settled
from server.core.member import BadRow, Page
from server.edge.postgres import Database
from tests.batching.imports.world import ask, claim, end, expire, job, member, put, statuses, tell, until, worker

# --- order ---


async def test_the_highest_priority_comes_first_and_of_one_priority_the_oldest(db: Database) -> None:
    low, middle, high = await put(db, 2, priority=1), await put(db, 2, priority=5), await put(db, 2, priority=9)
    async with db.connection() as connection:
        number = await worker(connection)
        claimed = [one.id for one in await claim(connection, number, 10)]
    assert claimed == high + middle + low


async def test_within_a_priority_owners_take_turns_however_many_jobs_one_of_them_brings(db: Database) -> None:
    crowd = await put(db, 90, "crowd")
    crowd += [number for _ in range(10) for number in await put(db, 1, "crowd")]
    late = await put(db, 3, "late")
    async with db.connection() as connection:
        order = [one.id for one in await claim(connection, await worker(connection), 103)]
    assert order[:6] == [crowd[0], late[0], crowd[1], late[1], crowd[2], late[2]]
    assert order[6:] == crowd[3:]
    assert len(set(crowd)) == 100


async def test_of_a_thousand_owners_with_twenty_jobs_each_the_first_is_done_no_earlier_than_half_the_last(
    db: Database,
) -> None:
    async with db.transaction() as connection:
        for n in range(1000):
            await connection.execute(
                """insert into imports.batch_processing_queue (owner, source, turn)
                select $1, 'provider', first + n - 1
                from (select imports.take_turns(4::smallint, $1, 20) as first) f, generate_series(1, 20) n""",
                f"owner {n}",
            )
        number = await worker(connection)
        last: dict[str, int] = {}
        for position in range(0, 20_000, 500):
            last.update({one.owner: position for one in await claim(connection, number, 500)})
    assert min(last.values()) >= max(last.values()) / 2


async def test_who_comes_later_does_not_wait_behind_turns_that_have_passed_nor_overtakes_for_long(db: Database) -> None:
    await put(db, 50, "early")
    async with db.connection() as connection:
        number = await worker(connection)
        await claim(connection, number, 30)
        await claims.advance(connection)
        late = await put(db, 40, "late")
        order = [one.owner for one in await claim(connection, number, 60)]
    assert order[:40].count("late") == 20
    assert late


async def test_when_nobody_waits_any_more_all_owners_are_equal_again(db: Database) -> None:
    await put(db, 30, "busy")
    async with db.connection() as connection:
        number = await worker(connection)
        await claim(connection, number, 30)
        await claims.advance(connection)
        await claims.advance(connection)
        assert await connection.fetchval("select count(*) from imports.place") == 0
        await put(db, 5, "new")
        await put(db, 5, "busy")
        order = [one.owner for one in await claim(connection, number, 10)]
    assert order == ["new", "busy"] * 5


async def test_waiting_jobs_age_upwards_until_they_are_first(db: Database) -> None:
    (old,) = await put(db, priority=0)
    async with db.connection() as connection:
        for _ in range(9):
            await put(db, 1, "fresh", priority=9)
            await tell(db, "update imports.batch_processing_queue set waiting_since = 'epoch' where id = $1", old)
            assert await claims.age(connection, 300, 100) == 1
        assert (await job(db, old))["tier"] == 0
        order = [one.id for one in await claim(connection, await worker(connection), 2)]
    assert old in order
    assert (await job(db, old))["priority"] == 0


async def test_jobs_that_wait_not_long_enough_do_not_age(db: Database) -> None:
    await put(db, priority=0)
    async with db.connection() as connection:
        assert await claims.age(connection, 300, 100) == 0


async def test_a_crowd_that_ages_keeps_its_distance_and_does_not_overrun_the_tier_above(db: Database) -> None:
    await put(db, 50, "crowd", priority=0)
    above = await put(db, 3, "above", priority=1)
    await tell(db, "update imports.batch_processing_queue set waiting_since = 'epoch' where owner = 'crowd'")
    async with db.connection() as connection:
        assert await claims.age(connection, 300, 100) == 50
        order = [one.id for one in await claim(connection, await worker(connection), 53)]
    assert max(order.index(one) for one in above) <= 6


# --- claims ---


async def test_two_workers_never_get_the_same_job(db: Database) -> None:
    await put(db, 60)
    async with db.connection() as one, db.connection() as other:
        first, second = await worker(one), await worker(other)
        async with one.transaction(), other.transaction():
            mine = await claim(one, first, 30)
            theirs = await claim(other, second, 60)
    assert len(mine) == len(theirs) == 30
    assert not {j.id for j in mine} & {j.id for j in theirs}


async def test_completing_claims_the_next_in_the_same_statement_and_counts_the_day(db: Database) -> None:
    first, second = await put(db, 2)
    async with db.connection() as connection:
        number = await worker(connection)
        (held,) = await claim(connection, number)
        row = settled(replace(held, seen=7), Done(), Ladder(), 0.0)
        harvested = await claims.turn(connection, number, [row], 5, "test")
        assert harvested.ended == {first}
        assert [one.id for one in harvested.claimed] == [second]
        day = await connection.fetchrow("select * from imports.batch_processing_stats")
    assert (day["total_jobs"], day["completed_jobs"], day["failed_jobs"]) == (1, 1, 0)
    assert (await job(db, first))["finished_at"] is not None


async def test_the_days_of_all_workers_are_one_row_a_day(db: Database) -> None:
    await put(db, 3)
    async with db.connection() as connection:
        for status in ("completed", "completed", "failed"):
            number = await worker(connection)
            (held,) = await claim(connection, number)
            assert await end(connection, number, held, status)
        assert await connection.fetchval("select count(*) from imports.stats_shard") == 3
        (day,) = await connection.fetch("select * from imports.batch_processing_stats")
    assert (day["total_jobs"], day["completed_jobs"], day["failed_jobs"]) == (3, 2, 1)
    assert day["avg_processing_seconds"] >= 0


async def test_the_sources_own_queries_run_as_they_are_written(db: Database) -> None:
    await put(db, 2)
    async with db.connection() as connection:
        number = await worker(connection)
        (held,) = await claim(connection, number)
        await end(connection, number, held)
        await connection.execute("set search_path to imports")
        assert await connection.fetchval("SELECT COUNT(*) FROM batch_processing_queue WHERE status = 'pending';") == 1
        assert len(await connection.fetch("SELECT * FROM batch_processing_workers WHERE status = 'active';")) == 1
        days = await connection.fetch("SELECT * FROM batch_processing_stats ORDER BY date DESC LIMIT 7;")
        newest = await connection.fetch("SELECT * FROM batch_processing_queue ORDER BY created_at DESC LIMIT 10;")
        await connection.execute("reset search_path")
    assert [day["total_jobs"] for day in days] == [1]
    assert len(newest) == 2


async def test_a_job_for_later_is_not_claimed_until_it_is_due(db: Database) -> None:
    (later,) = await put(db)
    async with db.connection() as connection:
        number = await worker(connection)
        (held,) = await claim(connection, number)
        assert await end(connection, number, held, "scheduled", delay_s=3600.0, error="not now")
        assert await claim(connection, number) == []
        assert await claims.promote(connection, 100) == 0
        assert 3590 < (await claims.next_due_s(connection) or 0) <= 3600
        await tell(db, "update imports.batch_processing_queue set next_attempt_at = 'epoch'")
        assert await claims.promote(connection, 100) == 1
        assert [one.id for one in await claim(connection, number)] == [later]


async def test_what_becomes_due_takes_its_owners_next_turns_and_does_not_jump_the_queue(db: Database) -> None:
    await put(db, 10, "failing", status="scheduled", next_attempt_at=_long_ago())
    await put(db, 5, "other")
    async with db.connection() as connection:
        assert await claims.promote(connection, 100) == 10
        order = [one.owner for one in await claim(connection, await worker(connection), 15)]
    assert order[:10].count("other") == 5


async def test_a_worker_that_was_declared_dead_or_has_left_claims_nothing(db: Database) -> None:
    await put(db, 3)
    async with db.connection() as connection:
        dead, left = await worker(connection), await worker(connection)
        await expire(db, dead)
        assert [number for number, _ in await claims.bury(connection)] == [dead]
        await claims.leave(connection, left, 0, 0)
        assert await claim(connection, dead) == await claim(connection, left) == []
        assert not await claims.beat(connection, dead, 30, None, 0, 0)


# --- fences ---


async def test_whoever_lost_a_job_can_neither_complete_nor_fail_nor_retry_nor_release_it_nor_store_a_page(
    db: Database,
) -> None:
    (only,) = await put(db)
    async with db.connection() as connection:
        zombie, other = await worker(connection), await worker(connection)
        (old,) = await claim(connection, zombie)
        await expire(db, zombie)
        await claims.bury(connection)
        (orphan,) = await claims.orphans(connection, 10)
        await claims.turn(connection, 0, [rescued(orphan, Ladder(), 0.0)], 0, "test")
        (new,) = await claim(connection, other)
        assert (new.id, new.lease) == (only, old.lease + 1)
        for status in ("completed", "failed", "pending"):
            assert not await end(connection, zombie, old, status)
        assert not await end(connection, zombie, old, "scheduled", delay_s=1.0)
        assert await claims.save_page(connection, old, _page(3)) is None
        assert await connection.fetchval("select count(*) from imports.contacts") == 0
        assert await end(connection, other, new)
    assert (await job(db, only))["status"] == "completed"


async def test_a_cancelled_job_refuses_what_its_worker_still_writes(db: Database) -> None:
    await put(db)
    async with db.connection() as connection:
        number = await worker(connection)
        (held,) = await claim(connection, number)
        await tell(
            db,
            "update imports.batch_processing_queue set status = 'cancelled', worker_id = null, finished_at = now()",
        )
        assert await claims.save_page(connection, held, _page(3)) is None
        assert not await end(connection, number, held)


async def test_a_page_waits_for_the_cancellation_under_way_and_is_then_refused(db: Database) -> None:
    (only,) = await put(db)
    async with db.connection() as one, db.connection() as other:
        (held,) = await claim(one, await worker(one))
        cancelling = other.transaction()
        await cancelling.start()
        await other.execute(
            "update imports.batch_processing_queue set status = 'cancelled', worker_id = null, finished_at = now()"
        )
        saving = asyncio.ensure_future(claims.save_page(one, held, _page(3)))
        await _until_blocked(db)
        await cancelling.commit()
        assert await saving is None
    assert await ask(db, "select count(*) from imports.contacts") == 0
    assert (await job(db, only))["seen"] == 0


async def test_ending_a_claim_twice_counts_once(db: Database) -> None:
    await put(db)
    async with db.connection() as connection:
        number = await worker(connection)
        (held,) = await claim(connection, number)
        assert [await end(connection, number, held) for _ in range(2)] == [True, False]
        assert await connection.fetchval("select total_jobs from imports.batch_processing_stats") == 1


# --- leases ---


async def test_a_heartbeat_renews_by_the_databases_clock_and_says_what_the_worker_does(db: Database) -> None:
    async with db.connection() as connection:
        number = await worker(connection, 0.0)
        assert await claims.beat(connection, number, 30.0, 4, 5, 600)
        row = await connection.fetchrow(
            "select *, lease_until - clock_timestamp() as left from imports.batch_processing_workers"
        )
    assert 29 < row["left"].total_seconds() <= 30
    assert (row["current_job"], row["jobs_processed"], row["total_members_processed"]) == (4, 5, 600)


async def test_a_heartbeat_waits_for_no_lock_that_a_page_or_a_claim_holds(db: Database) -> None:
    await put(db, 2)
    async with db.connection() as one, db.connection() as other:
        number = await worker(one)
        async with one.transaction():
            held, _ = await claim(one, number, 2)
            assert await claims.save_page(one, held, _page(3)) is not None
            await end(one, number, held)
            await other.execute("set lock_timeout = '100ms'")
            assert await claims.beat(other, number, 30.0, held.id, 0, 0)


async def test_a_live_workers_jobs_are_nobodys_orphans(db: Database) -> None:
    await put(db)
    async with db.connection() as connection:
        await claim(connection, await worker(connection))
        assert await claims.bury(connection) == []
        assert await claims.orphans(connection, 10) == []


async def test_a_worker_frozen_in_the_middle_of_a_page_holds_up_only_that_job_and_not_for_long(db: Database) -> None:
    locked, free = await put(db, 2)
    async with db.connection() as frozen, db.connection() as other:
        number = await worker(other)
        held, _ = await claim(other, number, 2)
        page = frozen.transaction()
        await page.start()
        await frozen.execute(claims.ACT)
        assert await frozen.fetchval("show idle_in_transaction_session_timeout") == "10s"
        assert await claims.save_page(frozen, held, _page(1)) is not None
        await expire(db, number)
        await claims.bury(other)
        assert [one.id for one in await claims.orphans(other, 10)] == [free]
        await page.rollback()
        assert [one.id for one in await claims.orphans(other, 10)] == [locked, free]


async def test_a_crash_counts_as_one_attempt_and_the_last_one_ends_the_job(db: Database) -> None:
    (poison,) = await put(db, max_retries=2)
    async with db.connection() as connection:
        for attempt in (1, 2, 3):
            await tell(
                db, "update imports.batch_processing_queue set next_attempt_at = 'epoch' where status = 'scheduled'"
            )
            await claims.promote(connection, 10)
            number = await worker(connection)
            assert [one.retry_count for one in await claim(connection, number)] == [attempt - 1]
            await expire(db, number)
            await claims.bury(connection)
            rows = [rescued(one, Ladder(), 0.5) for one in await claims.orphans(connection, 10)]
            await claims.turn(connection, 0, rows, 0, "test")
            await claims.turn(connection, 0, rows, 0, "test")
    row = await job(db, poison)
    assert (row["status"], row["retry_count"]) == ("failed", 2)
    assert "died" in row["error"]


async def test_what_a_worker_does_not_know_to_be_its_own_is_let_go(db: Database) -> None:
    known, lost = await put(db, 2)
    async with db.connection() as connection:
        number, other = await worker(connection), await worker(connection)
        await claim(connection, number, 2)
        assert await claims.reconcile(connection, other, []) == 0
        assert await claims.reconcile(connection, number, [known]) == 1
    assert (await job(db, known))["status"] == "processing"
    assert (await job(db, lost))["status"] == "pending"


async def test_who_leaves_hands_everything_back_without_costing_a_retry(db: Database) -> None:
    await put(db, 3)
    async with db.connection() as connection:
        number = await worker(connection)
        await claim(connection, number, 2)
        await claims.leave(connection, number, 12, 345)
        row = await connection.fetchrow("select * from imports.batch_processing_workers")
    assert await statuses(db) == {"pending": 3}
    assert await ask(db, "select sum(retry_count) from imports.batch_processing_queue") == 0
    assert (row["status"], row["jobs_processed"], row["total_members_processed"]) == ("stopped", 12, 345)


# --- pages ---


async def test_a_page_stores_contacts_position_and_counts_together(db: Database) -> None:
    (only,) = await put(db, audience_id=1)
    async with db.connection() as connection:
        (held,) = await claim(connection, await worker(connection))
        page = Page((member(1), member(2, email=None), member(3, email=" M1@Example.com ")), "next", True, 50)
        after = await claims.save_page(connection, held, page)
    assert after is not None
    assert (after.cursor, after.seen, after.imported, after.without_email, after.total) == ("next", 3, 1, 1, 50)
    row = await job(db, only)
    assert (row["cursor"], row["seen"], row["imported"], row["without_email"], row["pages"]) == ("next", 3, 1, 1, 1)
    assert await ask(db, "select email from imports.contacts") == "m1@example.com"


async def test_members_of_earlier_pages_and_of_other_jobs_of_the_list_are_not_imported_twice(db: Database) -> None:
    await put(db, 2, audience_id=1)
    async with db.connection() as connection:
        number = await worker(connection)
        one, two = await claim(connection, number, 2)
        first = await claims.save_page(connection, one, Page((member(1), member(2)), "a", True))
        assert first is not None
        second = await claims.save_page(connection, first, Page((member(2), member(3)), None, False))
        third = await claims.save_page(connection, two, Page((member(1), member(4)), None, False))
    assert second is not None and third is not None
    assert (second.imported, second.drained, third.imported) == (3, True, 1)
    assert await ask(db, "select count(*) from imports.contacts") == 4


async def test_the_same_address_may_stand_in_two_lists(db: Database) -> None:
    await put(db, audience_id=1)
    await put(db, audience_id=2)
    async with db.connection() as connection:
        for held in await claim(connection, await worker(connection), 2):
            assert await claims.save_page(connection, held, Page((member(1),), None, False)) is not None
    assert await ask(db, "select count(*) from imports.contacts") == 2


async def test_a_page_whose_answer_was_lost_is_not_stored_twice(db: Database) -> None:
    (only,) = await put(db, audience_id=1)
    async with db.connection() as connection:
        (held,) = await claim(connection, await worker(connection))
        page = Page((member(1), member(2)), "next", True)
        assert await claims.save_page(connection, held, page) is not None
        assert await claims.save_page(connection, held, page) is None
        found = await claims.again(connection, held)
    assert found is not None
    assert (found.cursor, found.imported, found.seen) == ("next", 2, 2)
    assert (await job(db, only))["imported"] == 2


async def test_a_stored_page_wipes_the_count_of_failures(db: Database) -> None:
    (only,) = await put(db, retry_count=3, audience_id=1)
    async with db.connection() as connection:
        (held,) = await claim(connection, await worker(connection))
        await claims.save_page(connection, held, Page((member(1),), "next", True))
    assert (await job(db, only))["retry_count"] == 0


async def test_rows_that_are_no_members_are_reported_up_to_a_bound(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "REJECTED_MOST", 3)
    (only,) = await put(db, audience_id=1)
    async with db.connection() as connection:
        (held,) = await claim(connection, await worker(connection))
        bad = tuple(BadRow(n, "email", "is not an e-mail address") for n in range(2))
        after = await claims.save_page(connection, held, Page((member(1),), "1", True, rejected=bad))
        assert after is not None
        bad = tuple(BadRow(n, None, "is no row") for n in range(2, 6))
        await claims.save_page(connection, after, Page((member(2),), "2", True, rejected=bad))
        rows = await connection.fetch("select row, field, reason from imports.rejected_rows order by row")
    assert [row["row"] for row in rows] == [0, 1, 2]
    assert (await job(db, only))["rejected"] == 6


async def test_a_job_that_begins_afresh_counts_from_zero(db: Database) -> None:
    (only,) = await put(db, audience_id=1)
    async with db.connection() as connection:
        number = await worker(connection)
        (held,) = await claim(connection, number)
        after = await claims.save_page(connection, held, Page((member(1, email=None),), None, False))
        assert after is not None
        await end(connection, number, after, "failed", error="no scope", afresh=True)
        await tell(db, "update imports.batch_processing_queue set status = 'pending', finished_at = null")
        (again,) = await claim(connection, number)
        assert (again.cursor, again.drained) == (None, False)
        await claims.save_page(connection, again, Page((member(1),), None, False))
    row = await job(db, only)
    assert (row["seen"], row["imported"], row["without_email"], row["pages"]) == (1, 1, 0, 2)


# --- plans ---


async def test_claims_read_a_few_pages_however_much_is_finished_or_deferred(db: Database) -> None:
    await tell(
        db,
        """insert into imports.batch_processing_queue (owner, source, status, next_attempt_at, finished_at)
        select 'paul', 'provider', s, case s when 'scheduled' then now() + interval '1 day' end,
            case s when 'completed' then now() end
        from generate_series(1, 30000) n, unnest(array['scheduled', 'completed']) s;
        analyze imports.batch_processing_queue""",
    )
    await put(db, 50)
    async with db.connection() as connection:
        await connection.execute(claims.PREPARE)
        try:
            number = await worker(connection)
            sql = claims.TURN
            for position, value in ((11, True), (10, "'test'"), (9, 20), (1, number)):
                sql = sql.replace(f"${position}", str(value))
            kinds = ("text::bigint", "text::bigint", "text", "int", "float8", "text", "bool")
            for position, kind in enumerate(kinds, 2):
                sql = sql.replace(f"${position}::{kind}[]", f"'{{}}'::{kind}[]")
            plan = "\n".join(row[0] for row in await connection.fetch(f"explain (analyze, buffers, timing off) {sql}"))
        finally:
            await connection.execute("reset role")
    assert "queue_next" in plan
    assert "queue_held" not in plan
    assert "Seq Scan on batch_processing_queue" not in plan
    assert plan.count("Sort Key") == plan.count("Sort Key: moved.tier") == 1, "the claimed alone are sorted"
    assert rows_removed(plan) <= 20 + 1, plan  # The sum over the jobs that ended passes over the 20 that were claimed.


def rows_removed(plan: str) -> int:
    return sum(int(line.split(":")[1]) for line in plan.splitlines() if "Rows Removed by Filter" in line)


# --- helpers ---


def _page(count: int) -> Page:
    return Page(tuple(member(n) for n in range(count)), "next", True)


def _long_ago() -> dt.datetime:
    return dt.datetime(2000, 1, 1, tzinfo=dt.UTC)


async def _until_blocked(db: Database) -> None:
    async def blocked() -> bool:
        sql = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
        return bool(await ask(db, sql))

    await until(blocked, "somebody waits for a lock")
