"""People of the tests and what is done with them over HTTP."""

import datetime as dt
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg

from tests.handlers.asking import NDJSON, Answer, Serving, lines, until

CSV = {"Content-Type": "text/csv"}
ADA = {"role": "viewer", "sub": "ada"}
BOB = {"role": "viewer", "sub": "bob"}
TIERS = ("S", "A", "B", "C", "D")
RATINGS = ("global_recognition", "career_legacy", "current_relevance", "demand", "affluence")

Place = Callable[..., Awaitable[Serving]]


def rated(tier: str, number: int, **more: Any) -> dict[str, Any]:
    """Somebody whose five ratings are that tier's."""
    name = f"{tier} Person {number}"
    return {"key": f"{tier}{number}", "name": name, "country": "DE", **dict.fromkeys(RATINGS, tier), **more}


def everybody(each: int = 3) -> list[dict[str, Any]]:
    return [rated(tier, number) for tier in TIERS for number in range(each)]


def month_ahead(months: int = 2) -> str:
    """A month whose first days are beyond every lead time."""
    today = dt.datetime.now(dt.UTC).date()
    index = today.year * 12 + today.month - 1 + months
    return f"{index // 12:04d}-{index % 12 + 1:02d}"


MONTH = month_ahead()


async def import_people(serving: Serving, people: list[dict[str, Any]]) -> dict[str, Any]:
    answer = await serving.ask("POST", "/tiers/people", data=lines(people), headers=NDJSON)
    assert answer.status == 200, answer.body
    return dict(answer.json)


async def post(serving: Serving, path: str, body: dict[str, Any], **who: Any) -> Answer:
    return await serving.ask("POST", path, **who, json=body)


async def ran(serving: Serving, path: str, **asked: Any) -> dict[str, Any]:
    """A run, begun and followed to its end."""
    answer = await post(serving, path, asked)
    assert answer.status == 200, answer.body
    seen: dict[str, Any] = {}

    async def over() -> bool:
        seen.update((await serving.ask("GET", f"/tiers/runs/{answer.json['run']['id']}")).json)
        return bool(seen["status"] != "running")

    await until(over)
    return seen


async def classified(serving: Serving, people: list[dict[str, Any]] | None = None) -> dict[str, int]:
    """People with their tiers; ids by key."""
    await import_people(serving, everybody() if people is None else people)
    run = await ran(serving, "/tiers/classify")
    assert (run["status"], run["failed"]) == ("done", 0), run
    rows = (await serving.ask("GET", "/tiers/people?limit=500")).json["people"]
    return {row["key"]: row["id"] for row in rows}


async def planned(serving: Serving, *tiers: str) -> None:
    for tier in tiers:
        run = await ran(serving, "/tiers/generate", tier=tier, month=MONTH)
        assert (run["status"], run["failed"]) == ("done", 0), run
        answer = await post(serving, "/tiers/verify", {"tier": tier, "month": MONTH})
        assert answer.json["passed"], answer.json


async def audited(serving: Serving, number: int) -> asyncpg.Record:
    database = serving.app._database
    assert database is not None
    async with database.transaction() as connection:
        row = await connection.fetchrow("select who, action, target, after::text from ops.audit where id = $1", number)
    assert row is not None
    return row


async def slots_of(serving: Serving, person: int, role: str | None = None, **who: Any) -> list[dict[str, Any]]:
    path = f"/celebrities/{person}/availability?from={MONTH}-01&to={MONTH}-28"
    answer = await serving.ask("GET", path, **({"role": role} | who))
    assert answer.status == 200, answer.body
    return list(answer.json["slots"])
