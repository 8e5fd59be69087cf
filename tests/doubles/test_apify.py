"""The loopback provider answers as the real one does: schedules and tracking are judged by it, so it is judged first."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from tests.doubles.apify import EVENTS, Act, Apify, Outcome, Sending
from tests.doubles.apify.http import TOKEN
from tests.doubles.apify.platform import actor_id
from tests.doubles.apify.reviews import ACTORS, World, asked_for, returned

ROOT = Path(__file__).parents[2]
GOOGLE = ACTORS["google", "reviews"]
PATH = GOOGLE.replace("/", "~")


@pytest_asyncio.fixture
async def double() -> AsyncIterator[Apify]:
    async with Apify(World(reviews=5).actors()) as one:
        yield one


@pytest_asyncio.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}, auto_decompress=False) as one:
        yield one


async def ask(
    session: aiohttp.ClientSession, double: Apify, method: str, path: str, **more: Any
) -> tuple[int, Any, Any]:
    async with session.request(method, f"{double.url}/v2{path}", **more) as answer:
        body = await answer.read()
        packed = answer.headers.get("Content-Encoding") == "gzip"
        text = gzip.decompress(body) if packed else body
        return answer.status, json.loads(text) if text else None, answer.headers


async def start(session: aiohttp.ClientSession, double: Apify, *places: str, **query: str) -> dict[str, Any]:
    asked = {"placeIds": list(places or ("A",))}
    status, value, _ = await ask(session, double, "POST", f"/acts/{PATH}/runs", json=asked, params=query)
    assert status == 201, value
    run: dict[str, Any] = value["data"]
    return run


def hooks(url: str, **more: Any) -> str:
    hook = {"eventTypes": list(EVENTS.values()), "requestUrl": url, **more}
    return base64.b64encode(json.dumps([hook]).encode()).decode()


class Ear:
    """Somebody who is told."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.heard: list[dict[str, Any]] = []
        self.headers: list[Any] = []
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        self.heard.append(await request.json())
        self.headers.append(request.headers)
        return web.Response(status=self.statuses.pop(0) if self.statuses else 200)


@pytest_asyncio.fixture
async def ear() -> AsyncIterator[Ear]:
    one = Ear()
    app = web.Application()
    app.router.add_post("/", one.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    one.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    yield one
    await runner.cleanup()


@pytest.mark.parametrize("root", ["acts", "actors"])
@pytest.mark.parametrize("actor", [PATH, actor_id(GOOGLE)])
async def test_an_actor_is_known_by_its_name_and_its_id_under_both_paths(
    session: aiohttp.ClientSession, double: Apify, root: str, actor: str
) -> None:
    status, value, _ = await ask(session, double, "POST", f"/{root}/{actor}/runs", json={"placeIds": ["A"]})
    assert (status, value["data"]["actId"]) == (201, actor_id(GOOGLE))
    status, value, _ = await ask(session, double, "GET", f"/{root}/{actor}/runs")
    assert value["data"]["total"] == 1


async def test_who_has_no_token_or_asks_for_nothing_known_is_refused(
    session: aiohttp.ClientSession, double: Apify
) -> None:
    status, value, _ = await ask(session, double, "GET", "/users/me", headers={"Authorization": "Bearer wrong"})
    assert (status, value["error"]["type"]) == (401, "user-or-token-not-found")
    for path in ("/acts/nobody~nothing", "/actor-runs/x", "/datasets/x", "/datasets/x/items", "/schedules/x"):
        assert (await ask(session, double, "GET", path))[0] == 404
    assert (await ask(session, double, "POST", f"/acts/{PATH}/runs", data="{"))[0] == 400


async def test_a_dataset_is_paged_with_its_count_in_the_headers_and_packed(
    session: aiohttp.ClientSession, double: Apify
) -> None:
    run = await start(session, double, "A", "B", "C")
    await double.settle()
    seen = []
    for offset in (0, 10, 20):
        path = f"/datasets/{run['defaultDatasetId']}/items?offset={offset}&limit=10"
        _, items, headers = await ask(session, double, "GET", path, headers={"Accept-Encoding": "gzip"})
        assert headers["X-Apify-Pagination-Total"] == "15"
        assert int(headers["X-Apify-Pagination-Count"]) == len(items) == (10, 5, 0)[offset // 10]
        assert (headers.get("Content-Encoding") == "gzip") == bool(items)
        seen += items
    assert len({item["reviewId"] for item in seen}) == 15


async def test_a_request_may_be_packed_too(session: aiohttp.ClientSession, double: Apify) -> None:
    body = gzip.compress(json.dumps({"placeIds": ["A"]}).encode())
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    await ask(session, double, "POST", f"/acts/{PATH}/runs", data=body, headers=headers)
    assert double.runs[0].input == {"placeIds": ["A"]}
    _, value, _ = await ask(session, double, "GET", f"/key-value-stores/{double.runs[0].store_id}/records/INPUT")
    assert value == {"placeIds": ["A"]}


async def test_runs_are_listed_by_time_and_status(session: aiohttp.ClientSession, double: Apify) -> None:
    double.platform.outcomes.append(Outcome("FAILED"))
    first, second = await start(session, double), await start(session, double)
    await double.settle()

    async def listed(query: str) -> list[str]:
        _, value, _ = await ask(session, double, "GET", f"/actor-runs?{query}")
        return [run["id"] for run in value["data"]["items"]]

    assert await listed("desc=1") == [second["id"], first["id"]]
    assert await listed("limit=1&offset=1") == [second["id"]]
    assert await listed("status=FAILED") == [first["id"]]
    assert await listed("startedAfter=2099-01-01T00:00:00.000Z") == []
    assert await listed("startedBefore=2099-01-01T00:00:00.000Z&startedAfter=2020-01-01T00:00:00Z") == [
        first["id"],
        second["id"],
    ]


@pytest.mark.parametrize("status", ["FAILED", "ABORTED", "TIMED-OUT"])
async def test_a_run_ends_as_it_was_decided_with_its_share_of_items(
    session: aiohttp.ClientSession, double: Apify, status: str
) -> None:
    double.platform.outcomes.append(Outcome(status, share=0.4))
    run = await start(session, double)
    await double.settle()
    assert (double.runs[0].status, len(double.runs[0].items)) == (status, 2)
    _, value, _ = await ask(session, double, "GET", f"/actor-runs/{run['id']}")
    assert value["data"]["status"] == status


async def test_webhooks_carry_headers_template_and_note_and_are_sent_until_they_are_taken(
    session: aiohttp.ClientSession, double: Apify, ear: Ear
) -> None:
    ear.statuses = [500, 503]
    template = '{"eventType": {{eventType}}, "resource": {{resource}}, "note": "mine"}'
    hook = hooks(ear.url, headersTemplate='{"X-Secret": "s"}', payloadTemplate=template, idempotencyKey="k")
    run = await start(session, double, webhooks=hook)
    await start(session, double, webhooks=hook)
    await double.settle()
    assert len(ear.heard) == 3, "twice refused, then taken; the second run's key was used"
    assert ear.heard[0] == ear.heard[2]
    assert (ear.heard[0]["eventType"], ear.heard[0]["resource"]["id"], ear.heard[0]["note"]) == (
        "ACTOR.RUN.SUCCEEDED",
        run["id"],
        "mine",
    )
    assert ear.headers[0]["X-Secret"] == "s"


async def test_webhooks_come_late_twice_never_or_before_the_answer(
    session: aiohttp.ClientSession, double: Apify, ear: Ear
) -> None:
    double.sendings.extend([Sending(times=2, delay_s=0.05), Sending(never=True)])
    await start(session, double, webhooks=hooks(ear.url))
    await start(session, double, webhooks=hooks(ear.url))
    await double.settle()
    assert len(ear.heard) == 2
    double.script("start", Act(hook_first=True, delay_s=5))
    starting = asyncio.ensure_future(start(session, double, webhooks=hooks(ear.url)))
    async with asyncio.timeout(4):
        while len(ear.heard) < 3:
            await asyncio.sleep(0.01)
    assert not starting.done()
    starting.cancel()


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("act", [{"status": 500}, {"cut": "now"}])
async def test_what_fails_was_done_or_not_as_it_was_told(
    session: aiohttp.ClientSession, double: Apify, act: dict[str, Any], done: bool
) -> None:
    double.script("start", Act(done=done, **act))
    try:
        await ask(session, double, "POST", f"/acts/{PATH}/runs", json={})
    except aiohttp.ClientError:
        assert act == {"cut": "now"}
    assert len(double.runs) == done


async def test_an_account_has_room_for_so_many_runs(session: aiohttp.ClientSession, double: Apify) -> None:
    double.held, double.platform.concurrent = True, 1
    run = await start(session, double)
    status, value, _ = await ask(session, double, "POST", f"/acts/{PATH}/runs", json={})
    assert (status, value["error"]["type"]) == (402, "concurrent-runs-limit-exceeded")
    await ask(session, double, "POST", f"/actor-runs/{run['id']}/abort")
    await start(session, double)
    assert (double.runs[0].status, double.platform.peak) == ("ABORTED", 1)


async def test_schedules_have_names_of_their_own_and_start_runs(session: aiohttp.ClientSession, double: Apify) -> None:
    action = {"type": "RUN_ACTOR", "actorId": actor_id(GOOGLE), "runInput": {"body": '{"placeIds": ["A"]}'}}
    fields = {"name": "one", "cronExpression": "5 * * * *", "isEnabled": True, "isExclusive": True, "actions": [action]}
    status, value, _ = await ask(session, double, "POST", "/schedules", json=fields)
    made = value["data"]
    assert status == 201 and made["nextRunAt"]
    assert (await ask(session, double, "POST", "/schedules", json=fields))[0] == 409
    wrong = {**fields, "name": "two", "cronExpression": "never"}
    assert (await ask(session, double, "POST", "/schedules", json=wrong))[0] == 400
    _, value, _ = await ask(session, double, "PUT", f"/schedules/{made['id']}", json={"isEnabled": False})
    assert (value["data"]["nextRunAt"], value["data"]["name"]) == (None, "one")
    [run] = double.fire(made["id"])
    _, value, _ = await ask(session, double, "GET", f"/actor-runs/{run.id}")
    assert value["data"]["meta"] == {"origin": "SCHEDULER", "scheduleId": made["id"]}
    assert (await ask(session, double, "DELETE", f"/schedules/{made['id']}"))[0] == 204
    assert (await ask(session, double, "DELETE", f"/schedules/{made['id']}"))[0] == 404


@pytest.mark.pure
@pytest.mark.parametrize(("platform", "kind"), list(ACTORS))
def test_a_world_is_the_same_for_a_seed_and_another_for_another(platform: str, kind: str) -> None:
    urls = [{"url": f"https://www.{platform}.com/x-d{n}-y"} for n in range(3)]
    given = {"placeIds": ["A", "B", "C"]} if platform == "google" else {"startUrls": urls}
    first, again, other = (World(seed=s).actors()[ACTORS[platform, kind]](given) for s in (1, 1, 2))
    assert first == again != other
    assert len(asked_for(platform, given)) == 3


@pytest.mark.pure
def test_places_change_as_they_are_told() -> None:
    world = World(reviews=3, missing={"B"}, empty={"C"}, noise=1)
    produce = world.actors()[GOOGLE]
    late, edited = world.add("google", "A", days_ago=900), world.edit("google", "A", 1)
    items = produce({"placeIds": ["A", "B", "C"]})
    of = [(item["placeId"], item.get("reviewId")) for item in items]
    assert [place for place, _ in of] == ["A"] * 4 + ["C"] + ["nobody-asked-0"] * 3
    assert of[3] == ("A", late.id), "an old one comes last"
    assert items[1]["text"] == edited.text
    assert len(produce({"placeIds": ["A"], "maxReviews": 2})) == 2 + 2


@pytest.mark.pure
def test_a_place_is_named_by_the_provider_also_when_its_address_is_left_out() -> None:
    world = World(reviews=1, silent=True)
    url = "https://www.tripadvisor.com/Hotel_Review-g1-d4711-Reviews-X.html"
    [item] = world.actors()[ACTORS["tripadvisor", "reviews"]]({"startUrls": [{"url": url}]})
    assert (item["locationId"], "input" in item) == ("4711", False)
    assert returned("booking", "a") != returned("booking", "b")


def test_by_hand_it_says_where_it_listens_and_obeys_its_controls() -> None:
    command = [sys.executable, "-m", "tests.doubles.apify", "--run-ms", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        try:
            asyncio.run(_control(url))
        finally:
            process.kill()


async def _control(url: str) -> None:
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}) as session:
        await session.put(f"{url}/control/script", json={"start": [{"status": 503}]})
        await session.put(f"{url}/control/outcomes", json=[{"status": "FAILED"}])
        statuses = []
        for _ in range(2):
            async with session.post(f"{url}/v2/actors/{PATH}/runs", json={"placeIds": ["A"]}) as answer:
                statuses.append(answer.status)
        assert statuses == [503, 201]
        async with asyncio.timeout(10):
            while (told := await (await session.get(f"{url}/control")).json())["runs"] != {"FAILED": 1}:
                await asyncio.sleep(0.02)
        assert told["asked"] == {"start": 2}
