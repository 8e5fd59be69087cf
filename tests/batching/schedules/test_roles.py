"""Who may do what: every table under every role with every verb, and nobody another team's rows."""

from __future__ import annotations

from itertools import product
from typing import Final

import asyncpg
import pytest_asyncio

from server.batching.schedules import store as s
from server.edge.postgres import Connection, Database
from tests.batching.schedules.placed import ADMIN, Placed

Verb = str
ALL: Final = "select insert update delete"
# What the role of a team may do at all, table by table; the service may do everything.
TEAM: Final[dict[str, str]] = {
    "schedule": "select",
    "team": "select",
    "business": ALL,
    "mapping": "select",
    "custom_interval": "select",
    "custom_interval_history": "select",
    "provider_run": "",
    "webhook_delivery": "",
    "retry": "select",
    "review": "select",
    "overview": "select",
    "intake": "",
}
OWNED: Final = [name for name, verbs in TEAM.items() if verbs and name != "schedule"]
# One statement that uses no column that the team's role may not see.
SELECT: Final = "select {columns} from schedules.{table}"
COLUMNS: Final = {"schedule": "id, platform, next_run_at", "retry": "id, team, state"}
UPDATE: Final = {
    "schedule": "paused = paused",
    "team": "tier = tier",
    "business": "name = name || '!'",
    "mapping": "identifier = identifier",
    "custom_interval": "reason = reason",
    "custom_interval_history": "reason = reason",
    "provider_run": "error = error",
    "webhook_delivery": "error = error",
    "retry": "state = state",
    "review": "title = title",
    "overview": "name = name",
    "intake": "rows = rows",
}
INSERT: Final = {
    "schedule": """(platform, type, interval_hours, batch_index, offset_minutes, capacity, next_run_at)
        values ('booking', 'reviews', 1, 0, 0, 1, now())""",
    "team": "(team) values ('new')",
    "business": "(team, identifiers) values ('a', '{}')",
    "mapping": """(business_id, team, platform, type, schedule_id, identifier)
        select id, team, 'facebook', 'reviews', (select min(id) from schedules.schedule), 'x'
        from schedules.business where team = 'a' limit 1""",
    "custom_interval": "(team, platform, type, interval_hours, set_by) values ('a', 'booking', 'reviews', 1, 'x')",
    "custom_interval_history": "(team, platform, type, change) values ('a', 'booking', 'reviews', 'set')",
    "provider_run": "(intent_key, kind, platform, type) values ('k', 'triggered', 'google', 'reviews')",
    "webhook_delivery": "(run_id, event, body) values ('r', 'e', '{}')",
    "retry": "(team, business_id, platform, type) select team, business_id, platform, type from schedules.mapping limit 0",
    "review": "(team, business_id, platform, review_id, hash, fetched_at) values ('a', 1, 'google', 'new', '', now())",
    "overview": "(team, business_id, platform, fetched_at) values ('a', 1, 'google', now())",
    "intake": "(file) values ('new')",
}


@pytest_asyncio.fixture
async def world(db: Database) -> Placed:
    """Two teams with one row in every table each."""
    world = Placed(db)
    for team, number in (("a", 1), ("b", 2)):
        await world.core.intervals.set_tier(team, "enterprise", ADMIN)
        [made] = await world.follow([number], team)
        await world.core.intervals.set_own(team, number, ADMIN, platforms=["google"], types=["reviews"])
        at = (team, made.business_id)
        await world.tell(
            """insert into schedules.review (team, business_id, platform, review_id, hash, fetched_at)
            values ($1, $2, 'google', 'r', '', now())""",
            *at,
        )
        await world.tell(
            "insert into schedules.overview (team, business_id, platform, fetched_at) values ($1, $2, 'google', now())",
            *at,
        )
        await world.tell(
            "insert into schedules.retry (team, business_id, platform, type) values ($1, $2, 'google', 'reviews')", *at
        )
    await world.tell(
        "insert into schedules.provider_run (intent_key, kind, platform, type) values ('i', 'retry', 'google', 'reviews')"
    )
    await world.tell("insert into schedules.webhook_delivery (run_id, event, body) values ('i', 'e', '{}')")
    await world.tell("insert into schedules.intake (file) values ('i')")
    return world


def statement(table: str, verb: Verb) -> str:
    return {
        "select": SELECT.format(columns=COLUMNS.get(table, "*"), table=table),
        "insert": f"insert into schedules.{table} {INSERT[table]}",
        "update": f"update schedules.{table} set {UPDATE[table]}",
        "delete": f"delete from schedules.{table} where false",
    }[verb]


async def attempt(connection: Connection, role: str, team: str, sql: str) -> str:
    """What comes of a statement in a role: rows touched, or the refusal; undone afterwards."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        await s.act_as(connection, role, team)
        return await connection.execute(sql)
    except asyncpg.InsufficientPrivilegeError:
        return "refused"
    finally:
        await transaction.rollback()


async def test_a_role_may_do_to_a_table_what_the_matrix_says_and_no_more(world: Placed) -> None:
    async with world.db.connection() as connection:
        for table, verb in product(TEAM, ALL.split()):
            sql = statement(table, verb)
            assert await attempt(connection, s.SERVICE, "", sql) != "refused", (table, verb)
            allowed = verb in TEAM[table].split()
            assert (await attempt(connection, s.TEAM, "a", sql) != "refused") is allowed, (table, verb)


async def test_every_table_is_in_the_matrix_and_under_row_level_security(world: Placed) -> None:
    rows = await world.rows(
        "select relname, relrowsecurity from pg_class where relnamespace = 'schedules'::regnamespace and relkind = 'r'"
    )
    assert {name for name, _ in rows} == set(TEAM) and all(secured for _, secured in rows)


async def test_a_team_sees_its_own_rows_and_no_others(world: Placed) -> None:
    async with world.db.connection() as connection:
        for table, team in product(OWNED, "ab"):
            async with connection.transaction():
                await s.act_as(connection, s.TEAM, team)
                teams = [row["team"] for row in await connection.fetch(f"select team from schedules.{table}")]
                assert teams and set(teams) == {team}, table
        for table, team in product(OWNED, ("", "nobody")):
            assert await attempt(connection, s.TEAM, team, statement(table, "select")) == "SELECT 0", table


async def test_a_team_sees_only_the_batches_that_it_is_in_and_not_how_full_they_are(world: Placed) -> None:
    async with world.db.connection() as connection:
        for team, hours in (("a", [1, 12]), ("b", [2, 12])):
            async with connection.transaction():
                await s.act_as(connection, s.TEAM, team)
                seen = await connection.fetch("select interval_hours from schedules.schedule order by 1")
                assert [row[0] for row in seen] == hours
        for column in ("businesses", "capacity", "input_version", "provider_schedule_id"):
            assert await attempt(connection, s.TEAM, "a", f"select {column} from schedules.schedule") == "refused"
        for column in ("lease", "lease_until", "run_id"):
            assert await attempt(connection, s.TEAM, "a", f"select {column} from schedules.retry") == "refused"


async def test_a_team_can_neither_change_nor_remove_nor_forge_anothers_business(world: Placed) -> None:
    async with world.db.connection() as connection:
        theirs = await connection.fetchval("select id from schedules.business where team = 'b'")
        for sql, touched in (
            (f"update schedules.business set name = 'x' where id = {theirs}", "UPDATE 0"),
            (f"delete from schedules.business where id = {theirs}", "DELETE 0"),
            ("update schedules.business set team = 'b'", "refused"),
            ("insert into schedules.business (team, identifiers) values ('b', '{}')", "refused"),
        ):
            assert await attempt(connection, s.TEAM, "a", sql) == touched, sql


async def test_the_service_may_write_the_trail_and_not_read_it(world: Placed) -> None:
    async with world.db.connection() as connection:
        for sql in (
            "select * from ops.audit",
            "select * from schedules.audit",
            "delete from ops.audit",
            "update ops.audit set who = ''",
        ):
            for role in (s.SERVICE, s.TEAM):
                assert await attempt(connection, role, "a", sql) == "refused", (role, sql)
        note = "insert into ops.audit (who, action) values ('x', 'y')"
        assert await attempt(connection, s.SERVICE, "", note) == "INSERT 0 1"
        assert await attempt(connection, s.TEAM, "a", note) == "refused"
    assert await world.ask("select count(*) from schedules.audit where action = 'schedules.tier'") == 2
