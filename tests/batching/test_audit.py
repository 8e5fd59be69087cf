"""The audit trail: entries live and die with the change they tell of, and are found by who, what and which thing."""

import asyncpg
import pytest

from server.batching import audit
from server.batching.audit import Search
from server.edge.postgres import Database


async def entries(db: Database, **asked: object) -> list[tuple[str | None, str, str | None]]:
    async with db.connection() as connection:
        found = await audit.page(connection, Search(**asked))  # type: ignore[arg-type]
    return [(one.who, one.action, one.target) for one in found]


async def test_an_entry_is_written_in_its_transaction_and_gone_with_it(db: Database) -> None:
    with pytest.raises(KeyError):
        async with db.transaction() as connection:
            await audit.write(connection, "ada", "configure", "batching")
            raise KeyError
    assert await entries(db) == []
    async with db.transaction() as connection:
        number = await audit.write(connection, "ada", "configure", "batching", {"a": 1}, {"a": [2, None]})
    async with db.connection() as connection:
        (only,) = await audit.page(connection, Search())
    assert (only.id, only.before, only.after) == (number, {"a": 1}, {"a": [2, None]})
    assert only.at_ms > 1_700_000_000_000


async def test_entries_come_newest_first_in_pages_and_by_who_what_and_which(db: Database) -> None:
    async with db.transaction() as connection:
        for n in range(6):
            number = await audit.write(connection, ("ada", "ben", None)[n % 3], ("a", "b")[n % 2], f"job {n // 3}")
    assert [target for _, _, target in await entries(db)] == ["job 1"] * 3 + ["job 0"] * 3
    assert await entries(db, limit=2) == [(None, "b", "job 1"), ("ben", "a", "job 1")]
    assert len(await entries(db, before=number - 1)) == 4
    assert await entries(db, who="ada") == [("ada", "b", "job 1"), ("ada", "a", "job 0")]
    assert await entries(db, action="b", target="job 0") == [("ben", "b", "job 0")]
    assert await entries(db, who="eve") == []


async def test_a_value_that_is_too_long_to_keep_fails_no_change(db: Database) -> None:
    async with db.transaction() as connection:
        await audit.write(connection, "ada", "a", "b", after={"text": "x" * audit.VALUE_BYTES})
        (only,) = await audit.page(connection, Search())
    assert only.after == {"omittedBytes": audit.VALUE_BYTES + 11}


@pytest.mark.parametrize("role", ["batchcast_owner", "batchcast_worker"])
async def test_a_role_adds_entries_but_neither_reads_nor_alters_nor_dates_them(db: Database, role: str) -> None:
    async with db.transaction() as connection:
        await connection.execute(f"set local role {role}")
        assert await audit.write(connection, "ada", "a", "b") > 0
    for sql in (
        "select who from ops.audit",
        "update ops.audit set who = 'eve'",
        "delete from ops.audit",
        "insert into ops.audit (who, action, at) values ('eve', 'a', 'epoch')",
    ):
        async with db.connection() as connection:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                async with connection.transaction():
                    await connection.execute(f"set local role {role}")
                    await connection.execute(sql)
