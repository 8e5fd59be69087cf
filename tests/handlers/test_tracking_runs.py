"""The runs of tracking over HTTP: whole servers that ask the provider's double, from a run now to a popular event on the map."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import orjson
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect

from server.handlers import http
from tests.doubles.apify import Act, Apify
from tests.doubles.apify.platform import Item
from tests.handlers.asking import Serving, Start, error, until
from tests.handlers.fitting import fits
from tests.handlers.tracked import Books

DAY_MS = 86_400_000
YOUTUBE = "streamers/youtube-scraper"
RULES = ("success", "quota", "quota-spent", "auth", "stale", "late", "failed", "actors", "held", "payouts")


class Seen:
    """What posts have been seen; one that is not here is not found."""

    def __init__(self) -> None:
        self.views: dict[str, int] = {}
        self.asked: list[str] = []

    def __call__(self, given: Mapping[str, Any]) -> list[Item]:
        posts = [one["url"].rpartition("=")[2] for one in given["startUrls"]]
        self.asked += posts
        return [{"id": post, "viewCount": self.views[post]} for post in posts if post in self.views]


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest_asyncio.fixture
async def double(seen: Seen) -> AsyncIterator[Apify]:
    async with Apify({YOUTUBE: seen}, run_s=0.01) as provider:
        yield provider


@pytest_asyncio.fixture
async def books(start: Start, double: Apify) -> Books:
    return Books(await started(start, double))


async def started(start: Start, double: Apify, **more: Any) -> Serving:
    """A server that begins no run by itself."""
    given = {"apify_url": double.url, "apify_token": double.token, "tracking_interval_ms": DAY_MS, "imports_lanes": 0}
    serving = await start(**{**given, "tracking_retry_first_ms": 10, "tracking_cache_ms": 0, **more})
    assert (await serving.ask("POST", "/loops/tracking-plan/pause")).status == 200
    plan = serving.app.panel.loop("tracking-plan")

    async def still() -> bool:
        return not plan.running and await idle(serving)

    await until(still)
    return serving


async def idle(serving: Serving) -> bool:
    """No run is under way."""
    return bool((await serving.ask("GET", "/tracking/health")).json["running"] is None)


async def ran(books: Books, **options: Any) -> Any:
    """A run now, followed to its end."""
    begun = await books.good("POST", "/runs", **options)
    assert begun["new"] and begun["auditId"]
    found: dict[str, Any] = {}

    async def over() -> bool:
        found.update(await books.get(f"/runs/{begun['run']['id']}"))
        return bool(found["status"] == "done")

    await until(over)
    return found


async def test_a_run_now_counts_pays_and_is_told_of(books: Books, seen: Seen) -> None:
    posts = [await books.post(await books.campaign(baseline="zero")) for _ in range(3)]
    seen.views |= {post["postId"]: 1_000 * (place + 1) for place, post in enumerate(posts)}
    admin = books.serving.headers("admin")
    async with asyncio.timeout(60), connect(books.serving.app.ws_url, additional_headers=admin) as socket:
        await socket.send(orjson.dumps({"type": "subscribe", "topic": "tracking"}).decode())
        assert orjson.loads(await socket.recv())["type"] == "subscribed"
        run = await ran(books)
        told: dict[str, Any] = {}
        while (told.get("run") or {}).get("status") != "done":
            told = orjson.loads(await socket.recv())["detail"]
        assert told["run"] == run and "runs" in told["changed"]
        await books.campaign()
        while "runs" in told["changed"]:
            told = orjson.loads(await socket.recv())["detail"]
        assert told["run"] is None
    assert (run["occasion"], run["stopReason"], run["processed"], run["successful"]) == ("forced", "done", 3, 3)
    assert (run["successRate"], run["percent"], run["calls"], run["earnedCents"]) == (100.0, 100.0, 1, 6_000)
    assert [(await books.get(f"/submissions/{post['id']}"))["earnedCents"] for post in posts] == [1_000, 2_000, 3_000]
    health = await books.get("/health")
    assert (health["status"], health["successRate"], health["processed"]) == ("HEALTHY", 100.0, 3)
    assert (health["quota"]["used"], health["quota"]["limit"], health["provider"]["configured"]) == (1, 100_000, True)
    assert {"tracking-plan", "tracking-run", "tracking-tell"} <= {loop["name"] for loop in health["loops"]}
    stats = await books.get("/stats")
    youtube = next(one for one in stats["platforms"] if one["platform"] == "youtube")
    assert (youtube["calls"], youtube["posts"], youtube["successRate"]) == (1, 3, 100.0)
    actor = stats["actors"][0]
    assert (actor["actor"], actor["costMicros"], actor["costPerSuccessMicros"]) == (YOUTUBE, 15_000, 5_000)
    assert (stats["money"]["spentCents"], stats["campaigns"]["active"]) == (6_000, 4)
    ids = [one["id"] for one in await books.pages("/runs", "runs", limit=1)]
    assert ids == sorted(ids, reverse=True) and ids[0] == run["id"]


async def test_who_comes_to_lead_begins_a_run_at_once(start: Start, double: Apify) -> None:
    serving = await start(apify_url=double.url, apify_token=double.token, tracking_interval_ms=DAY_MS)

    async def begun() -> bool:
        runs = (await serving.ask("GET", "/tracking/runs")).json["runs"]
        return any(run["occasion"] == "interval" for run in runs)

    await until(begun)


async def test_the_same_key_is_the_same_run(books: Books) -> None:
    again = {"headers": {"Idempotency-Key": "monday"}}
    run = await ran(books, body={"limit": 7}, **again)
    assert run["limit"] == 7
    answer = await books.good("POST", "/runs", {"limit": 9}, **again)
    assert (answer["run"], answer["new"], answer["auditId"]) == (run, False, None)
    for key in ("x" * 201, "ü"):
        answer = await books.ask("POST", "/runs", headers={"Idempotency-Key": key})
        assert error(answer) == (422, "bad_message", "Idempotency-Key")
    for body in ({"limit": 0}, {"limit": 10_001}, {"limit": "7"}):
        assert error(await books.ask("POST", "/runs", body)) == (422, "bad_message", "limit")


async def test_a_run_is_stopped_and_joined_while_it_is_under_way(start: Start, seen: Seen) -> None:
    async with Apify({YOUTUBE: seen}, run_s=600) as slow:
        books = Books(await started(start, slow))
        await books.post(await books.campaign())
        begun = await books.good("POST", "/runs")
        joined = await books.good("POST", "/runs")
        assert (joined["run"]["id"], joined["new"], joined["auditId"]) == (begun["run"]["id"], False, None)
        path = f"/runs/{begun['run']['id']}"
        stopped = await books.good("POST", f"{path}/stop")
        assert (await books.audited(stopped["auditId"]))["action"] == "tracking.stop"
        assert error(await books.ask("POST", "/runs/999/stop"))[:2] == (404, "not_found")


async def test_what_could_not_be_read_is_listed_and_tried_again(books: Books, seen: Seen) -> None:
    post = await books.post(await books.campaign(baseline="zero"))
    run = await ran(books)
    assert (run["successful"], run["failed"], run["successRate"]) == (0, 1, 0.0)
    (failed,) = (await books.get("/failed"))["failed"]
    assert (failed["clipId"], failed["platform"], failed["runId"]) == (post["clipId"], "youtube", run["id"])
    assert failed["reason"] and failed["error"] and failed["attempts"] == 1
    assert (await books.get("/stats"))["failed"]["open"] == 1
    seen.views[post["postId"]] = 500
    retried = await books.good("POST", f"/failed/{failed['id']}/retry")
    assert retried["failed"]["id"] == failed["id"]
    assert (await books.audited(retried["auditId"]))["who"] == "a admin"
    assert (await ran(books))["successful"] == 1
    assert (await books.get("/failed"))["failed"] == []
    assert error(await books.ask("POST", f"/failed/{failed['id']}/retry"))[:2] == (404, "not_found")


async def test_a_refused_token_stops_the_run_and_says_so(books: Books, double: Apify) -> None:
    await books.post(await books.campaign())
    double.always["start"] = Act(status=401)
    run = await ran(books)
    assert (run["stopReason"], run["successful"]) == ("provider_auth", 0)
    assert "APIFY_TOKEN" in run["error"] and double.token not in run["error"]


async def test_without_a_token_no_run_begins_and_the_books_work(start: Start) -> None:
    books = Books(await start())
    assert error(await books.ask("POST", "/runs"))[:2] == (409, "conflict")
    assert (await books.get("/health"))["provider"] == {"configured": False}
    assert (await books.get("/health"))["status"] == "NO_DATA"
    await books.post(await books.campaign())
    assert (await books.get("/runs"))["runs"] == []


async def test_growth_of_a_clip_is_popularity_of_its_event(
    start: Start, double: Apify, seen: Seen, berlin: Any
) -> None:
    books = Books(await started(start, double, tracking_popularity=True))
    assert (await books.serving.ask("POST", "/events", json=berlin)).status == 200
    post = await books.post(await books.campaign())
    seen.views[post["postId"]] = 1_000
    await ran(books)
    linked = await books.good("PUT", f"/clips/{post['clipId']}/event", {"eventId": "berlin"})
    assert linked == {"clipId": post["clipId"], "eventId": "berlin", "auditId": linked["auditId"]}
    other = await books.post(await books.campaign())
    await books.good("PUT", f"/clips/{other['clipId']}/event", {"eventId": "nowhere"})
    seen.views |= {post["postId"]: 1_700, other["postId"]: 5}
    await books.tell("update tracking.clips set next_due_at = now()")
    await ran(books)

    async def moved() -> bool:
        event = (await books.serving.ask("GET", "/events/berlin")).json
        return bool(event.get("scanCount") == 700)

    await until(moved)
    for path, body, expected in (
        (f"/clips/{post['clipId']}/event", {}, (422, "bad_message", "eventId")),
        (f"/clips/{post['clipId']}/event", {"eventId": "a\nb"}, (422, "bad_message", "eventId")),
        ("/clips/999/event", {"eventId": None}, (404, "not_found", "clipId")),
    ):
        assert error(await books.ask("PUT", path, body)) == expected
    assert (await books.good("PUT", f"/clips/{post['clipId']}/event", {"eventId": None}))["eventId"] is None


async def test_the_planner_says_what_is_needed_and_which_plan_is_enough(start: Start) -> None:
    books = Books(await start(tracking_preset="50-every-2h"))
    plan = await books.get("/plan?runClips=100&runEveryMs=14400000")
    assert (plan["liveClips"], plan["callsPerDay"], plan["callsPerMonth"]) == (2_143, 12_857, 385_714)
    assert (plan["capacity"]["perDay"], plan["capacity"]["perWeek"], plan["capacity"]["enough"]) == (600, 4_200, False)
    assert [(one["name"], one["monthlyCents"], one["enough"], one["ours"]) for one in plan["plans"]] == [
        ("free", 0, False, False),
        ("starter", 4_900, False, True),
        ("team", 49_900, True, False),
    ]
    assert (plan["cheapest"], plan["actual"]) == ("team", {"liveClips": 0})
    own = await books.get("/plan?clipsPerWeek=7&lifeDays=10&checksPerDay=2&postsPerCall=5")
    assert (own["liveClips"], own["checksPerDay"], own["callsPerDay"], own["cheapest"]) == (10, 20, 4, "free")
    assert (own["given"]["runClips"], own["given"]["runEveryMs"], own["capacity"]["perDay"]) == (50, 7_200_000, 600)
    for query in ("clipsPerWeek=-1", "lifeDays=0", "checksPerDay=x", "runEveryMs=0", f"clipsPerWeek={10**9}"):
        assert error(await books.ask("GET", f"/plan?{query}")) == (422, "bad_message", query.partition("=")[0])


async def test_answers_are_as_the_document_says(books: Books, seen: Seen) -> None:
    post = await books.post(await books.campaign(10_000_000))
    lost = await books.post(await books.campaign(), "mary")
    seen.views[post["postId"]] = 900
    run = await ran(books)
    await books.count(post, 400_000, 1e6)
    (held,) = (await books.get("/held"))["held"]
    (failed,) = (await books.get("/failed"))["failed"]
    await books.earned(2_500)
    payout = (await books.good("POST", "/payouts", sub="paul"))["payout"]["id"]
    wish = {"name": "x", "budgetCents": 5, "rateCents": 5}
    there: list[tuple[str, str, str, object]] = [
        ("GET", "/campaigns", "/campaigns", None),
        ("GET", "/campaigns/{id}", f"/campaigns/{post['campaignId']}", None),
        ("POST", "/campaigns", "/campaigns", wish),
        ("PATCH", "/campaigns/{id}", f"/campaigns/{lost['campaignId']}", {"budgetCents": 9}),
        ("POST", "/campaigns/{id}/pause", f"/campaigns/{lost['campaignId']}/pause", None),
        ("POST", "/campaigns/{id}/reactivate", f"/campaigns/{lost['campaignId']}/reactivate", None),
        ("POST", "/campaigns/{id}/complete", f"/campaigns/{lost['campaignId']}/complete", None),
        ("GET", "/submissions", "/submissions", None),
        ("GET", "/submissions/{id}", f"/submissions/{post['id']}", None),
        ("GET", "/submissions/{id}/views", f"/submissions/{post['id']}/views", None),
        ("POST", "/submissions/{id}/reject", f"/submissions/{lost['id']}/reject", {"note": "no"}),
        ("GET", "/held", "/held", None),
        ("POST", "/held/{id}/reject", f"/held/{held['observationId']}/reject", None),
        ("GET", "/balance", "/balance?creator=paul", None),
        ("GET", "/ledger", "/ledger", None),
        ("GET", "/notifications", "/notifications", None),
        ("GET", "/payouts", "/payouts", None),
        ("GET", "/payouts/{id}", f"/payouts/{payout}", None),
        ("POST", "/payouts/{id}/approve", f"/payouts/{payout}/approve", {}),
        ("POST", "/payouts/{id}/complete", f"/payouts/{payout}/complete", {"transactionId": "t"}),
        ("POST", "/payouts/{id}/revert", f"/payouts/{payout}/revert", None),
        ("POST", "/payouts", "/payouts", {"creator": "paul"}),
        ("GET", "/runs", "/runs", None),
        ("GET", "/runs/{id}", f"/runs/{run['id']}", None),
        ("GET", "/failed", "/failed", None),
        ("POST", "/failed/{id}/retry", f"/failed/{failed['id']}/retry", None),
        ("PUT", "/clips/{id}/event", f"/clips/{post['clipId']}/event", {"eventId": "e"}),
        ("GET", "/health", "/health", None),
        ("GET", "/stats", "/stats", None),
        ("GET", "/plan", "/plan", None),
        ("GET", "/verification", "/verification", None),
        ("POST", "/runs", "/runs", None),
    ]
    document = http.openapi_document()
    for method, path, url, body in there:
        fits(await books.good(method, url, body), document, method, f"/tracking{path}")


async def test_figures_are_among_the_servers_numbers_and_rules(books: Books) -> None:
    metrics = (await books.serving.ask("GET", "/metrics")).body.decode()
    for name in ("due", "quota_percent", "success_percent", "failed_open", "spent_cents", "held", "calls_total"):
        assert f"batchcast_tracking_{name}" in metrics, name
    rules = {rule.name for rule in books.serving.app.alerts.rules}
    assert {f"tracking-{name}" for name in RULES} <= rules
