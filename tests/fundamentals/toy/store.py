"""The rows: texts that wait, and what became of them."""

import asyncpg

from tests.fundamentals.toy.plan import Plan, Text

SCHEMA = """
create table toy_text (
    id      bigint generated always as identity primary key,
    body    text not null,
    status  text not null default 'waiting',
    words   int
)
"""

CLAIM = "select id, body from toy_text where status = 'waiting' order by id limit $1 for update skip locked"
COUNTED = "update toy_text set status = 'counted', words = $2 where id = $1"
REFUSED = "update toy_text set status = 'refused' where id = any($1)"


async def claim(connection: asyncpg.Connection, limit: int) -> list[Text]:
    return [Text(row["id"], row["body"]) for row in await connection.fetch(CLAIM, limit)]


async def settle(connection: asyncpg.Connection, plan: Plan) -> None:
    await connection.executemany(COUNTED, list(plan.counted.items()))
    await connection.execute(REFUSED, plan.refused)
