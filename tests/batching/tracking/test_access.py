"""Row-level security as the database has it: role x table x verb, and whose rows a creator sees."""

from __future__ import annotations

import asyncpg
import pytest

from server.batching.tracking.store import ACT, CREATOR, SERVICE
from server.edge.postgres import Connection, Database
from tests.batching.tracking.world import ADMIN, MARY, PAUL, Place

OWN = {"clip_submissions", "earnings_ledger", "payout_requests", "payout_items", "payouts", "notifications"}
SEEN = OWN | {"campaigns", "clips", "view_tracking"}
APPENDED = {"earnings_ledger"}
KEPT = {"campaigns", "clip_submissions", "payout_requests", "payout_items", "payouts", "earnings_ledger"}
COLUMN = {
    **{"scrape_cache": "post_id", "provider_usage": "provider", "actor_usage": "actor", "actor_standing": "actor"},
    **{"payout_items": "creator", "run_workers": "worker"},
}
"""Of tables without an id."""


@pytest.fixture
async def place(db: Database) -> Place:
    """Paul and Mary have each earned, been paid, and been told; Mary also is in a campaign that is PAUSED."""
    place = Place(db)
    for who in (PAUL, MARY):
        await place.earn(who, 3_000)
        request = (await place.payouts.request(who)).request.id
        await place.payouts.approve(request, ADMIN)
        await place.payouts.complete(request, ADMIN, f"paid-{who.user}")
    paused = await place.campaign()
    await place.post(paused, MARY)
    await place.campaigns.pause(paused, ADMIN)
    return place


async def tables(connection: Connection) -> list[str]:
    sql = "select relname from pg_class where relnamespace = 'tracking'::regnamespace and relkind in ('r', 'p') order by 1"
    return [row["relname"] for row in await connection.fetch(sql)]


async def allowed(place: Place, role: str, sql: str, user: str = "paul") -> bool:
    async with place.db.connection() as connection:
        transaction = connection.transaction()
        await transaction.start()
        try:
            await connection.execute(ACT, role, user)
            await connection.execute(sql)
        except asyncpg.InsufficientPrivilegeError:
            return False
        finally:
            await transaction.rollback()
        return True


async def test_every_table_is_under_row_level_security(place: Place) -> None:
    sql = "select relname from pg_class where relnamespace = 'tracking'::regnamespace and relkind = 'r' and not relrowsecurity"
    assert await place.rows(sql) == []


async def test_role_by_table_by_verb(place: Place) -> None:
    async with place.db.connection() as connection:
        names = await tables(connection)
    assert set(names) >= SEEN
    for name in names:
        column = await writable(place, name)
        verbs = {
            "select": f"select {COLUMN.get(name, 'id')} from tracking.{name}",
            "insert": f"insert into tracking.{name} ({column}) select {column} from tracking.{name} where false",
            "update": f"update tracking.{name} set {column} = null where false",
            "delete": f"delete from tracking.{name} where false",
        }
        creator = {verb: await allowed(place, CREATOR, sql) for verb, sql in verbs.items()}
        service = {verb: await allowed(place, SERVICE, sql) for verb, sql in verbs.items()}
        assert creator == {"select": name in SEEN, "insert": False, "update": False, "delete": False}, name
        wanted = {"select": True, "insert": True, "update": name not in APPENDED, "delete": name not in KEPT}
        assert service == wanted, name


async def writable(place: Place, table: str) -> str:
    """A column that may be written at all."""
    sql = """select attname from pg_attribute where attrelid = format('tracking.%s', $1::text)::regclass and attnum > 0
        and attidentity = '' and not attisdropped order by attnum limit 1"""
    return str(await place.ask(sql, table))


async def test_a_creator_sees_its_own_rows_and_no_others(place: Place) -> None:
    async with place.db.transaction() as connection:
        await connection.execute(ACT, CREATOR, "paul")
        for name in sorted(OWN):
            seen = {row["creator"] for row in await connection.fetch(f"select creator from tracking.{name}")}
            assert seen == {"paul"}, name
        for table, column in (("clips", "id"), ("view_tracking", "clip_id")):
            mine = {row[0] for row in await connection.fetch(f"select {column} from tracking.{table}")}
            assert mine == {row[0] for row in await connection.fetch("select clip_id from tracking.clip_submissions")}
        names = await connection.fetch("select status from tracking.campaigns")
        assert [row["status"] for row in names] == ["COMPLETED"]


async def test_without_a_name_nothing_is_seen(place: Place) -> None:
    async with place.db.transaction() as connection:
        await connection.execute(ACT, CREATOR, "")
        for name in sorted(SEEN - {"campaigns"}):
            sql = f"select count({COLUMN.get(name, 'id')}) from tracking.{name}"
            assert await connection.fetchval(sql) == 0, name


@pytest.mark.parametrize(
    "column",
    [
        "campaigns.budget_cents",
        "campaigns.spent_cents",
        "campaigns.reserved_cents",
        "clip_submissions.judged_by",
        "payouts.paid_by",
        "view_tracking.judged_by",
        "earnings_ledger.run_id",
        "clips.lease",
        "payout_requests.changed_by",
    ],
)
async def test_what_is_the_operators_is_hidden_from_creators(place: Place, column: str) -> None:
    table, name = column.split(".")
    assert not await allowed(place, CREATOR, f"select {name} from tracking.{table}")
    assert await allowed(place, SERVICE, f"select {name} from tracking.{table}")


async def test_creators_may_neither_run_the_servers_functions_nor_touch_the_trail(place: Place) -> None:
    assert not await allowed(place, CREATOR, "select tracking.refresh(array[1])")
    assert not await allowed(place, CREATOR, "insert into ops.audit (who, action, target) values ('x', 'y', 'z')")
    assert not await allowed(place, SERVICE, "delete from ops.audit")
    assert not await allowed(place, SERVICE, "select who from ops.audit")


async def test_the_ledger_and_the_notifications_are_read_by_whose_they_are(place: Place) -> None:
    assert {one.creator for one in await place.earnings.ledger(PAUL)} == {"paul"}
    assert {one.creator for one in await place.earnings.ledger(ADMIN)} == {"paul", "mary"}
    assert {one.creator for one in await place.earnings.ledger(ADMIN, creator="mary")} == {"mary"}
    (line,) = await place.earnings.ledger(PAUL)
    assert await place.earnings.ledger(PAUL, campaign=line.campaign_id, submission=line.submission_id) == [line]
    assert await place.earnings.ledger(PAUL, before=line.id) == []
    assert {one.creator for one in await place.earnings.notifications(MARY)} == {"mary"}
    first, second, *_ = await place.earnings.notifications(ADMIN)
    assert (await place.earnings.notifications(ADMIN, before=first.id, limit=1)) == [second]
