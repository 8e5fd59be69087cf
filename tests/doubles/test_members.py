"""The loopback provider answers as it promises: imports are judged by it, so it is judged first."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.doubles.members import FORBIDDEN, GOOD, NO_SCOPE, Act, Members, Script, member

ROOT = Path(__file__).parents[2]


@pytest_asyncio.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as one:
        yield one


async def ask(
    session: aiohttp.ClientSession, double: Members, after: str | None = None, *, key: str = GOOD, **query: str
) -> tuple[int, Any]:
    params = {"company_id": "biz_demo", "first": "10"} | query | ({} if after is None else {"after": after})
    url = double.url + "/api/v1/members"
    async with session.get(
        url, params=params, headers={"Authorization": f"Bearer {key}"}, allow_redirects=False
    ) as answer:
        return answer.status, await answer.json()


async def walk(session: aiohttp.ClientSession, double: Members) -> list[str]:
    seen, after = [], None
    while True:
        status, page = await ask(session, double, after)
        assert status == 200
        seen += [row["id"] for row in page["data"]]
        after = page["page_info"]["end_cursor"]
        if not page["page_info"]["has_next_page"]:
            return seen


async def test_paging_shows_every_member_once_in_order(session: aiohttp.ClientSession) -> None:
    async with Members(members=95) as double:
        assert await walk(session, double) == [row["id"] for row in double.truth()]
        assert len(double.asked) == 10


@pytest.mark.pure
def test_the_same_seed_makes_the_same_members_and_another_one_others() -> None:
    assert [member(7, n) for n in range(50)] == [member(7, n) for n in range(50)]
    assert [member(7, n) for n in range(50)] != [member(8, n) for n in range(50)]


@pytest.mark.pure
def test_among_many_members_are_all_the_oddities_that_an_import_must_stand() -> None:
    rows = [member(1, n) for n in range(5_000)]
    emails = [row["user"]["email"] for row in rows if row["user"] is not None]
    plain = [email.strip().lower() for email in emails if email]

    assert any(row["user"] is None for row in rows)
    assert None in emails
    assert len(set(plain)) < len(plain)
    assert any(email and email != email.strip() for email in emails)
    assert any(email and email.strip() != email.strip().lower() for email in emails)
    assert any("phone" not in row for row in rows)


async def test_a_page_holds_no_more_than_the_cap_whatever_is_asked(session: aiohttp.ClientSession) -> None:
    async with Members(members=95, cap=7) as double:
        _, page = await ask(session, double, first="100")
        assert len(page["data"]) == 7
        assert double.asked[0].first == 100


async def test_who_joins_meanwhile_pushes_members_already_seen_into_the_next_page(
    session: aiohttp.ClientSession,
) -> None:
    async with Members(Script([Act(), Act(arrivals=3)]), members=40) as double:
        seen = await walk(session, double)
        assert seen[10:13] == seen[7:10]
        assert set(seen) == {row["id"] for row in double.truth()[3:]}


@pytest.mark.parametrize(("key", "status"), [(FORBIDDEN, 403), ("whop_unknown", 401), ("", 401)])
async def test_a_key_without_rights_is_refused(session: aiohttp.ClientSession, key: str, status: int) -> None:
    async with Members(members=5) as double:
        got, body = await ask(session, double, key=key)
        assert got == status
        assert body["error"]["message"]


async def test_a_key_without_the_scope_sees_members_but_no_email(session: aiohttp.ClientSession) -> None:
    async with Members(members=30) as double:
        _, page = await ask(session, double, key=NO_SCOPE)
        assert len(page["data"]) == 10
        assert {row["user"]["email"] for row in page["data"] if row["user"]} == {None}


async def test_an_account_has_the_size_in_its_name_and_unknown_ones_are_404(session: aiohttp.ClientSession) -> None:
    async with Members(members=30) as double:
        _, page = await ask(session, double, company_id="biz_4")
        assert (len(page["data"]), page["page_info"]["has_next_page"]) == (4, False)
        assert (await ask(session, double, company_id="acme"))[0] == 404


async def test_acts_are_dealt_one_to_each_request_then_the_truth_again(session: aiohttp.ClientSession) -> None:
    acts = [Act(status=500), Act(says_next=False), Act(empty=True), Act(no_cursor=True), Act(status=429)]
    async with Members(Script(acts), members=30) as double:
        first = [await ask(session, double) for _ in range(6)]
        assert [status for status, _ in first] == [500, 200, 200, 200, 429, 200]
        assert first[1][1]["page_info"]["has_next_page"] is False
        assert first[2][1]["data"] == []
        assert first[3][1]["page_info"]["end_cursor"] is None
        assert first[5][1]["page_info"]["has_next_page"] is True


@pytest.mark.parametrize("cut", ["before", "body"])
async def test_a_cut_connection_is_an_error_of_the_connection(session: aiohttp.ClientSession, cut: str) -> None:
    async with Members(Script(always=Act(cut=cut)), members=30) as double:
        with pytest.raises(aiohttp.ClientError):
            await ask(session, double)
        double.script = Script()
        assert (await ask(session, double))[0] == 200


async def test_above_its_rate_a_key_is_told_when_to_come_back(session: aiohttp.ClientSession) -> None:
    async with Members(members=30, rate=1) as double:
        assert [(await ask(session, double))[0] for _ in range(2)] == [200, 429]
        assert (await ask(session, double, key=NO_SCOPE))[0] == 200


async def test_a_script_can_be_set_and_what_was_asked_be_read_by_hand(session: aiohttp.ClientSession) -> None:
    async with Members(members=30) as double:
        control = double.url + "/control/"
        assert (await session.put(control + "script", json={"acts": [{"status": 503}]})).status == 204
        assert (await session.put(control + "script", json={"acts": [{"nonsense": 1}]})).status == 422
        assert (await ask(session, double))[0] == 503
        asked = await (await session.get(control + "asked")).json()
        assert (asked["count"], asked["byStatus"]) == (1, {"503": 1})
        assert (await session.delete(control + "asked")).status == 204
        assert double.asked == []


async def test_it_starts_by_hand_and_prints_its_address(session: aiohttp.ClientSession) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.doubles.members", "--members", "12", "--seed", "9", "--total"),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        url = (await asyncio.wait_for(process.stdout.readline(), 30)).decode().strip()
        question = session.get(f"{url}/api/v1/members?company_id=biz_1", headers={"Authorization": f"Bearer {GOOD}"})
        async with question as answer:
            page = json.loads(await answer.read())
        assert page["data"][0]["id"] == "mber_9_0"
        assert page["page_info"]["total_count"] == 1
    finally:
        process.terminate()
        await process.wait()
