"""The verbs of whoever asks, and who may do what: rules, idempotence, other people's rows, roles by table and verb."""

import asyncio

import asyncpg
import pytest

from server.batching import audit
from server.batching.imports import claims
from server.batching.imports.store import Imports, Request
from server.core.identity import ANONYMOUS, Identity
from server.core.member import Page
from server.edge.bus import Bus
from server.edge.postgres import Database
from server.errors import Refused
from tests.batching.imports.world import ADMIN, PAUL, ask, claim, end, job, member, put, tell, worker

MARY = Identity("mary")


@pytest.fixture
async def imports(db: Database) -> Imports:
    await tell(
        db,
        """insert into imports.credentials (owner, account, provider, sealed, key_id)
        values ('paul', 'acme', 'whop', '', 'k'), ('mary', 'acme', 'whop', '', 'k')""",
    )
    return Imports(db, Bus(db, node="test"))


def wish(**more: object) -> Request:
    return Request(**{"provider": "whop", "account": "acme", "list_name": "People", **more})  # type: ignore[arg-type]


async def refusal(asking: object) -> tuple[str, str | None]:
    with pytest.raises(Refused) as refused:
        await asking  # type: ignore[misc]
    return str(refused.value.code), refused.value.field


# --- creating ---


async def test_a_job_is_queued_and_its_list_made_in_one_transaction(db: Database, imports: Imports) -> None:
    made = await imports.create(wish(client_key="k1"), PAUL)
    assert made.new
    assert (made.job.status, made.job.priority, made.job.owner) == ("pending", 5, "paul")
    (only,) = await imports.audiences(PAUL)
    assert (only.name, only.id) == ("People", made.job.audience_id)


async def test_the_same_client_key_answers_with_the_same_job_and_makes_nothing(db: Database, imports: Imports) -> None:
    first = await imports.create(wish(client_key="k1"), PAUL)
    again = await imports.create(wish(client_key="k1"), PAUL)
    assert (again.new, again.job.id) == (False, first.job.id)
    assert len(await imports.audiences(PAUL)) == 1
    assert (await imports.create(wish(client_key="k1"), MARY)).new
    assert await refusal(imports.create(wish(client_key="k1", source="file", file="x"), PAUL)) == (
        "conflict",
        "key",
    )


async def test_many_who_create_with_one_key_at_the_same_time_make_one_job(db: Database, imports: Imports) -> None:
    made = await asyncio.gather(*(imports.create(wish(client_key="k"), PAUL) for _ in range(6)))
    assert len({one.job.id for one in made}) == 1
    assert sum(one.new for one in made) == 1
    assert await ask(db, "select count(*) from imports.audiences") == 1


@pytest.mark.parametrize(
    ("more", "code", "field"),
    [
        ({"account": "unknown"}, "not_found", "account"),
        ({"list_name": None, "audience_id": 99}, "not_found", "listId"),
        ({"list_name": None}, "bad_message", "listName"),
        ({"list_name": "x", "audience_id": 1}, "bad_message", "listName"),
        ({"list_name": "  "}, "bad_message", "listName"),
        ({"priority": 6}, "forbidden", "priority"),
        ({"priority": 10}, "bad_message", "priority"),
        ({"client_key": ""}, "bad_message", "key"),
        ({"max_retries": 101}, "bad_message", "maxRetries"),
        ({"account": None}, "bad_message", "account"),
        ({"source": "file"}, "bad_message", "file"),
        ({"source": "file", "file": ""}, "bad_message", "file"),
    ],
)
async def test_what_cannot_be_imported_is_refused_and_nothing_is_made(
    db: Database, imports: Imports, more: dict[str, object], code: str, field: str
) -> None:
    assert await refusal(imports.create(wish(**more), PAUL)) == (code, field)
    assert await ask(db, "select count(*) from imports.batch_processing_queue") == 0
    assert await ask(db, "select count(*) from imports.audiences") == 0


async def test_nobody_imports_without_a_name_nor_into_anothers_list(db: Database, imports: Imports) -> None:
    assert (await refusal(imports.create(wish(), ANONYMOUS)))[0] == "unauthorized"
    theirs = (await imports.create(wish(), MARY)).job.audience_id
    assert await refusal(imports.create(wish(list_name=None, audience_id=theirs), PAUL)) == ("not_found", "listId")
    assert (await imports.create(wish(priority=9), Identity("paul", frozenset(["admin"])))).job.tier == 0


# --- changing ---


async def test_a_waiting_job_can_be_moved_cancelled_and_requeued(db: Database, imports: Imports) -> None:
    number = (await imports.create(wish(), PAUL)).job.id
    moved = (await imports.set_priority(number, 2, PAUL)).job
    assert (moved.priority, moved.tier) == (2, 7)
    assert (await imports.cancel(number, PAUL)).job.status == "cancelled"
    assert (await refusal(imports.cancel(number, PAUL)))[0] == "conflict"
    assert (await refusal(imports.set_priority(number, 3, PAUL)))[0] == "conflict"
    back = (await imports.requeue(number, PAUL)).job
    assert (back.status, back.retry_count, back.error, back.finished_at) == ("pending", 0, None, None)
    assert await refusal(imports.set_priority(number, 6, PAUL)) == ("forbidden", "priority")


async def test_cancelling_a_job_that_is_worked_on_takes_it_from_its_worker(db: Database, imports: Imports) -> None:
    number = (await imports.create(wish(), PAUL)).job.id
    async with db.connection() as connection:
        by = await worker(connection)
        (held,) = await claim(connection, by)
        assert (await refusal(imports.requeue(number, PAUL)))[0] == "conflict"
        await imports.cancel(number, PAUL)
        assert not await end(connection, by, held)
    assert (await job(db, number))["status"] == "cancelled"


async def test_a_requeued_job_goes_on_from_where_it_stopped(db: Database, imports: Imports) -> None:
    number = (await imports.create(wish(), PAUL)).job.id
    async with db.connection() as connection:
        by = await worker(connection)
        (held,) = await claim(connection, by)
        after = await claims.save_page(connection, held, Page((member(1),), "next", True, 2))
        assert after is not None
        await end(connection, by, after, "failed", error="gone")
        await imports.requeue(number, PAUL)
        (again,) = await claim(connection, by)
    assert (again.cursor, again.seen, again.lease) == ("next", 1, 2)


async def test_changes_are_told_on_the_bus(db: Database, imports: Imports) -> None:
    number = (await imports.create(wish(), PAUL)).job.id
    await imports.cancel(number, PAUL)
    assert await ask(db, "select payload->>'jobs' from ops.outbox where topic = 'imports'") == f"[{number}]"


async def test_a_change_and_its_entry_in_the_audit_trail_are_one(db: Database, imports: Imports) -> None:
    made = await imports.create(wish(), PAUL)
    number, audience = made.job.id, made.job.audience_id
    assert audience is not None
    moved = await imports.set_priority(number, 2, PAUL)
    async with db.connection() as connection:
        entries = await audit.page(connection, audit.Search(target=f"job {number}"))
    assert [(one.id, one.who, one.action) for one in entries] == [
        (moved.audit_id, "paul", "import-set-priority"),
        (made.audit_id, "paul", "import"),
    ]
    assert (entries[0].before, entries[0].after) == (
        {"status": "pending", "priority": 5},
        {"status": "pending", "priority": 2},
    )
    await tell(db, "revoke insert on ops.audit from batchcast_owner")
    for asking in (
        imports.create(wish(list_name="Other"), PAUL),
        imports.set_priority(number, 3, PAUL),
        imports.cancel(number, PAUL),
        imports.delete_list(audience, PAUL),
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await asking
    assert [(one.status, one.priority) for one in await imports.list(PAUL)] == [("pending", 2)]
    assert [one.name for one in await imports.audiences(PAUL)] == ["People"]


async def test_a_deleted_list_is_filled_by_nobody_any_more(db: Database, imports: Imports) -> None:
    made = (await imports.create(wish(), PAUL)).job
    assert made.audience_id is not None
    await imports.delete_list(made.audience_id, PAUL)
    assert (await refusal(imports.requeue(made.id, PAUL)))[0] == "conflict"
    assert (await imports.show(made.id, PAUL)).status == "cancelled"


async def test_a_list_that_is_deleted_while_somebody_orders_into_it_has_no_job_left(
    db: Database, imports: Imports
) -> None:
    for _ in range(10):
        audience = (await imports.create(wish(), PAUL)).job.audience_id
        assert audience is not None
        wishes = [imports.create(wish(list_name=None, audience_id=audience), PAUL) for _ in range(4)]
        await asyncio.gather(*wishes, imports.delete_list(audience, PAUL), return_exceptions=True)
        active = "select count(*) from imports.batch_processing_queue where audience_id = $1 and status = 'pending'"
        assert await ask(db, active, audience) == 0


# --- seeing ---


async def test_what_is_anothers_is_not_there(db: Database, imports: Imports) -> None:
    made = (await imports.create(wish(), PAUL)).job
    assert made.audience_id is not None
    for asking in (
        imports.show(made.id, MARY),
        imports.cancel(made.id, MARY),
        imports.requeue(made.id, MARY),
        imports.set_priority(made.id, 1, MARY),
        imports.contacts(made.audience_id, MARY),
        imports.delete_list(made.audience_id, MARY),
        imports.rejected(made.id, MARY),
    ):
        assert (await refusal(asking))[0] == "not_found"
    assert await imports.list(MARY) == []
    assert [one.id for one in await imports.list(ADMIN)] == [made.id]
    assert (await imports.show(made.id, ADMIN)).owner == "paul"


async def test_jobs_are_listed_newest_first_in_pages_and_by_status(db: Database, imports: Imports) -> None:
    ids = [(await imports.create(wish(), PAUL)).job.id for _ in range(5)]
    await imports.cancel(ids[2], PAUL)
    page = await imports.list(PAUL, limit=2)
    assert [one.id for one in page] == [ids[4], ids[3]]
    assert [one.id for one in await imports.list(PAUL, before=ids[3])] == [ids[2], ids[1], ids[0]]
    assert [one.id for one in await imports.list(PAUL, status="cancelled")] == [ids[2]]


async def test_contacts_come_in_pages_can_be_searched_and_exported(db: Database, imports: Imports) -> None:
    made = (await imports.create(wish(), PAUL)).job
    assert made.audience_id is not None
    async with db.connection() as connection:
        (held,) = await claim(connection, await worker(connection))
        people = tuple(member(n, name=f"Name {n}", username=f"user{n}") for n in range(10, 35))
        await claims.save_page(connection, held, Page(people, None, False))
    page = await imports.contacts(made.audience_id, PAUL, limit=10)
    rest = await imports.contacts(made.audience_id, PAUL, after=page[-1].email)
    assert [one.email for one in [*page, *rest]] == [f"m{n}@example.com" for n in range(10, 35)]
    assert [one.email for one in await imports.contacts(made.audience_id, PAUL, search="NAME 12")] == [
        "m12@example.com"
    ]
    assert len([one async for one in imports.export(made.audience_id, PAUL)]) == 25


async def test_a_deleted_list_is_gone_for_everybody_and_its_jobs_are_cancelled(db: Database, imports: Imports) -> None:
    made = (await imports.create(wish(), PAUL)).job
    assert made.audience_id is not None
    await imports.delete_list(made.audience_id, PAUL)
    assert await imports.audiences(PAUL) == []
    assert (await refusal(imports.contacts(made.audience_id, PAUL)))[0] == "not_found"
    assert (await imports.show(made.id, PAUL)).status == "cancelled"
    assert (await refusal(imports.create(wish(list_name=None, audience_id=made.audience_id), PAUL)))[0] == "not_found"


async def test_the_state_of_everything_is_for_admins(db: Database, imports: Imports) -> None:
    await put(db, 3)
    async with db.connection() as connection:
        by = await worker(connection)
        (held,) = await claim(connection, by)
        await end(connection, by, held)
    overview = await imports.overview(ADMIN)
    assert overview.by_status == {"pending": 2, "completed": 1}
    assert [one.status for one in overview.workers] == ["active"]
    assert overview.days[0].completed_jobs == 1
    assert (await refusal(imports.overview(PAUL)))[0] == "forbidden"


# --- roles ---

TABLES = (
    "audiences",
    "contacts",
    "credentials",
    "rejected_rows",
    "batch_processing_workers",
    "batch_processing_queue",
    "batch_processing_stats",
    "stats_shard",
    "tier",
    "place",
    "removed",
)
OWNER_MAY = {
    "audiences": {"select", "insert", "update"},
    "contacts": {"select"},
    "credentials": {"select"},
    "rejected_rows": {"select"},
    "batch_processing_queue": {"select", "insert", "update"},
    "tier": {"select"},
    "place": {"select", "insert", "update"},
}
SERVICE_MAY = {"batch_processing_stats": {"select"}, "removed": {"select", "update"}}
"""Where it may not do everything."""
STATEMENTS = {
    "audiences": ("insert into {t} (owner, name) values ('paul', 'x')", "update {t} set name = 'y'"),
    "contacts": ("insert into {t} (audience_id, email) values (1, 'z')", "update {t} set name = 'y'"),
    "credentials": (
        "insert into {t} (owner, account, provider, sealed, key_id) values ('paul', 'b', 'w', '', 'k')",
        "update {t} set account = 'y'",
    ),
    "rejected_rows": ("insert into {t} (job_id, row, reason) values (1, 9, 'x')", "update {t} set reason = 'y'"),
    "batch_processing_workers": (
        "insert into {t} (name, lease_until, lanes, host, pid, version) values ('w', now(), 1, 'h', 1, '0')",
        "update {t} set name = 'y'",
    ),
    "batch_processing_queue": (
        "insert into {t} (owner, source) values ('paul', 'file')",
        "update {t} set priority = 4",
    ),
    "batch_processing_stats": ("insert into {t} (date) values ('2026-01-01')", "update {t} set date = '2026-01-01'"),
    "stats_shard": ("insert into {t} (date, worker_id) values ('2026-01-01', 9)", "update {t} set failed = 1"),
    "tier": ("insert into {t} (tier) values (3)", "update {t} set turn = 5"),
    "place": ("insert into {t} (tier, owner, turn) values (3, 'paul', 1)", "update {t} set turn = 5"),
    "removed": ("insert into {t} (completed) values (1)", "update {t} set completed = 5"),
}
COLUMNS = {"credentials": "id, owner, account"}


@pytest.fixture
async def furnished(db: Database) -> Database:
    """A row of Paul's, or of nobody's, and where there are owners one of Mary's in every table."""
    await tell(
        db,
        """
        insert into imports.audiences (owner, name) values ('paul', 'p'), ('mary', 'm');
        insert into imports.contacts (audience_id, email) values (1, 'p'), (2, 'm');
        insert into imports.credentials (owner, account, provider, sealed, key_id)
            values ('paul', 'a', 'w', 'x', 'k'), ('mary', 'a', 'w', 'x', 'k');
        insert into imports.batch_processing_queue (owner, source) values ('paul', 'file'), ('mary', 'file');
        insert into imports.rejected_rows (job_id, row, reason) values (1, 0, 'p'), (2, 0, 'm');
        insert into imports.batch_processing_workers (name, lease_until, lanes, host, pid, version)
            values ('w', now(), 1, 'h', 1, '0');
        insert into imports.stats_shard (date, worker_id) values ('2026-01-02', 1);
        insert into imports.place (tier, owner, turn) values (4, 'paul', 1), (4, 'mary', 1);
        delete from imports.tier where tier = 3;
        """,
    )
    return db


async def attempt(db: Database, role: str, table: str, verb: str) -> int | None:
    """The number of rows reached; None when PostgreSQL forbids the verb."""
    insert, update = STATEMENTS[table]
    sql = {
        "select": f"select {COLUMNS.get(table, '*')} from {{t}}",
        "insert": insert,
        "update": update,
        "delete": "delete from {t}",
    }[verb]
    async with db.connection() as connection:
        change = connection.transaction()
        await change.start()
        try:
            await connection.execute(
                "select set_config('role', $1, true), set_config('batchcast.owner', 'paul', true)", role
            )
            tag = await connection.execute(sql.format(t=f"imports.{table}"))
            return int(tag.split()[-1])
        except asyncpg.InsufficientPrivilegeError:
            return None
        except asyncpg.ObjectNotInPrerequisiteStateError:
            return None  # A view of sums is nobody's to write.
        finally:
            await change.rollback()


async def test_an_owner_may_do_to_each_table_what_the_matrix_says_and_reaches_only_its_own_rows(
    furnished: Database,
) -> None:
    for table in TABLES:
        for verb in ("select", "insert", "update", "delete"):
            reached = await attempt(furnished, "batchcast_owner", table, verb)
            may = verb in OWNER_MAY.get(table, set())
            assert reached == ((9 if table == "tier" else 1) if may else None), (table, verb)


async def test_the_service_role_reaches_every_row_of_every_table(furnished: Database) -> None:
    for table in TABLES:
        owned = table not in {"batch_processing_workers", "batch_processing_stats", "stats_shard", "removed"}
        rows = 9 if table == "tier" else 2 if owned else 1
        for verb, expected in (("select", rows), ("insert", 1), ("update", rows), ("delete", rows)):
            reached = await attempt(furnished, "batchcast_worker", table, verb)
            may = verb in SERVICE_MAY.get(table, {verb})
            assert reached == (expected if may else None), (table, verb)


async def test_every_table_of_the_schema_has_row_level_security(db: Database) -> None:
    bare = await ask(
        db,
        """select array_agg(relname) from pg_class where relnamespace = 'imports'::regnamespace and relkind = 'r'
        and not relrowsecurity""",
    )
    known = await ask(
        db,
        "select array_agg(relname::text) from pg_class where relnamespace = 'imports'::regnamespace and relkind in ('r', 'v')",
    )
    assert bare is None
    assert set(known) == set(TABLES)


@pytest.mark.parametrize(
    "sql",
    [
        "select sealed from imports.credentials",
        "update imports.batch_processing_queue set lease = 99",
        "update imports.batch_processing_queue set owner = 'paul'",
        "insert into imports.batch_processing_queue (owner, source) values ('mary', 'file')",
        "insert into imports.audiences (owner, name) values ('mary', 'x')",
        "update imports.audiences set owner = 'mary'",
        "insert into imports.place (tier, owner, turn) values (3, 'mary', 1)",
    ],
)
async def test_an_owner_never_sees_a_sealed_key_nor_acts_for_another_nor_touches_a_lease(
    furnished: Database, sql: str
) -> None:
    async with furnished.connection() as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with connection.transaction():
                await connection.execute(
                    "select set_config('role', 'batchcast_owner', true), set_config('batchcast.owner', 'paul', true)"
                )
                await connection.execute(sql)


async def test_without_a_name_an_owner_sees_nothing(furnished: Database) -> None:
    async with furnished.transaction() as connection:
        await connection.execute("set local role batchcast_owner")
        for table in ("audiences", "contacts", "batch_processing_queue", "rejected_rows", "place"):
            assert await connection.fetch(f"select * from imports.{table}") == []
