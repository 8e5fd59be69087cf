"""Housekeeping takes what is old, a slice at a time, and the number of completed jobs stays right although nobody counts them."""

from server.batching.imports.retiring import retire
from server.batching.imports.store import BY_STATUS, Imports
from server.edge.bus import Bus
from server.edge.postgres import Database
from tests.batching.imports.world import ADMIN, PAUL, claim, end, put, statuses, tell, worker

DAY_S = 86_400


async def test_finished_jobs_dead_workers_old_days_and_deleted_lists_are_removed_in_slices(db: Database) -> None:
    await tell(
        db,
        """insert into imports.batch_processing_queue (owner, source, status, finished_at)
        select 'paul', 'provider', 'completed', now() - n * interval '1 day' from generate_series(0, 9) n;
        insert into imports.batch_processing_workers (name, status, lease_until, last_heartbeat, lanes, host, pid, version)
        select 'w', s, 'epoch', now() - interval '3 days', 1, 'h', 1, '0' from unnest(array['dead', 'active']) s;
        insert into imports.stats_shard (date, worker_id, completed)
        select (now() at time zone 'utc')::date - n, 1, 1 from generate_series(0, 9) n;
        insert into imports.audiences (owner, name, deleted_at) values ('paul', 'gone', now()), ('paul', 'here', null);
        insert into imports.contacts (audience_id, email) select a.id, n || '@x' from imports.audiences a,
            generate_series(1, 5) n""",
    )
    async with db.connection() as connection:
        turns = 0
        more = True
        while more:
            _, more = await retire(connection, 4.5 * 86_400, 2 * 86_400, 4 * 86_400, 2)
            turns += 1
        assert turns >= 3
        assert await connection.fetchval("select count(*) from imports.batch_processing_queue") == 5
        assert await connection.fetchval("select status from imports.batch_processing_workers") == "active"
        assert await connection.fetchval("select count(*) from imports.stats_shard") == 5
        assert await connection.fetchval("select name from imports.audiences") == "here"
        assert await connection.fetchval("select count(*) from imports.contacts") == 5


async def counted(db: Database) -> dict[str, int]:
    return (await Imports(db, Bus(db, node="test")).overview(ADMIN)).by_status


async def work(db: Database, count: int, status: str) -> None:
    await put(db, count)
    async with db.connection() as connection:
        by = await worker(connection)
        for held in await claim(connection, by, count):
            assert await end(connection, by, held, status)


async def test_the_queue_by_status_is_what_the_table_holds_whatever_was_done_and_removed(db: Database) -> None:
    imports = Imports(db, Bus(db, node="test"))
    assert await counted(db) == {}
    await work(db, 7, "completed")
    await work(db, 3, "failed")
    cancelled, again = await put(db, 2, audience_id=None)
    await imports.cancel(cancelled, PAUL)
    await imports.cancel(again, PAUL)
    await imports.requeue(again, PAUL)
    assert await counted(db) == await statuses(db) == {"completed": 7, "failed": 3, "cancelled": 1, "pending": 1}
    await tell(db, "update imports.batch_processing_queue set finished_at = 'epoch' where id in (1, 2, 8)")
    async with db.connection() as connection:
        assert await retire(connection, DAY_S, DAY_S, DAY_S, 100) == (3, False)
    assert await counted(db) == await statuses(db)
    await tell(db, "update imports.stats_shard set date = '2020-01-01'")
    async with db.connection() as connection:
        await retire(connection, DAY_S, DAY_S, DAY_S, 100)
    assert await counted(db) == await statuses(db) == {"completed": 5, "failed": 2, "cancelled": 1, "pending": 1}
    await work(db, 2, "completed")
    assert (await counted(db))["completed"] == 7


async def test_the_queue_by_status_is_told_without_reading_what_is_completed(db: Database) -> None:
    await tell(
        db,
        """insert into imports.batch_processing_queue (owner, source, status, finished_at)
        select 'paul', 'provider', 'completed', now() from generate_series(1, 20000)""",
    )
    await put(db, 20)
    await tell(db, "vacuum analyze imports.batch_processing_queue")
    async with db.connection() as connection:
        rows = await connection.fetch(f"explain {BY_STATUS}")
    plan = "\n".join(row[0] for row in rows)
    assert "Seq Scan on batch_processing_queue" not in plan
    assert "batch_processing_queue_pkey" not in plan
    for index in ("queue_due", "queue_next", "queue_held", "queue_unfinished"):
        assert f"Index Only Scan using {index}" in plan, plan
