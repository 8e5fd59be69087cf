"""The schedules over HTTP for administrators, and the whole way from a file of businesses to the reviews of the right team."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from server.batching.schedules import plan
from server.batching.schedules.plan import BASE_LINES
from server.edge.apify import Options
from server.handlers import http
from server.protocol import schedules as protocol
from tests.doubles.apify import Act, Apify, Outcome
from tests.doubles.apify.reviews import World
from tests.handlers.asking import NDJSON, Start, error, lines, until
from tests.handlers.fitting import fits
from tests.handlers.scheduling import CSV, PLATFORMS, URLS, Desk, settings, world

HOUR_MS = 3_600_000
DOCS = Path(__file__).parents[2] / "docs" / "schedules.md"


@pytest_asyncio.fixture
async def provider() -> AsyncIterator[tuple[World, Apify]]:
    places, double = world()
    async with double:
        yield places, double


@pytest_asyncio.fixture
async def desk(start: Start, provider: tuple[World, Apify]) -> Desk:
    """A server whose schedules stand still unless they are told to go."""
    still = {"schedules_google_capacity": 5, "schedules_dispatch_ms": HOUR_MS, "schedules_retry_ms": HOUR_MS}
    return Desk(await start(**settings(provider[1], **still)))


async def filled(desk: Desk, count: int = 8, team: str = "acme") -> list[dict[str, Any]]:
    """So many businesses on Google, where a batch holds five."""
    return [await desk.follow(team, "google", f"ChIJ_place_{team}_{n}") for n in range(count)]


def kind(row: dict[str, Any]) -> tuple[str, str, int]:
    return row["platform"], row["type"], row["hours"]


async def audited(desk: Desk, number: int) -> dict[str, Any]:
    entry = (await desk.get(f"/admin/audit?before={number + 1}&limit=1"))["entries"][0]
    assert entry["id"] == number
    return dict(entry)


def test_what_is_asked_over_http_names_what_the_plans_know() -> None:
    assert (protocol.Platform, protocol.Type, protocol.Tier) == (plan.Platform, plan.Type, plan.Tier)


async def test_the_32_are_listed_before_anybody_needs_them(desk: Desk) -> None:
    answer = await desk.get("/admin/schedules/lines")
    assert {kind(line) for line in answer["lines"]} == {(x.platform, x.type, x.hours) for x in BASE_LINES}
    assert all(line["base"] and line["batches"] == line["businesses"] == 0 for line in answer["lines"])
    rows = await desk.pages("/admin/schedules", "schedules", limit=7)
    assert len(rows) == 32 == len({kind(row) for row in rows})
    assert all(row["id"] is None and row["empty"] and row["index"] == 0 for row in rows)
    assert (await desk.get("/admin/schedules?state=active"))["schedules"] == []
    assert len((await desk.get("/admin/schedules?state=empty&platform=booking"))["schedules"]) == 8


async def test_batches_are_listed_filtered_and_paged_each_once(desk: Desk) -> None:
    await filled(desk, 12)
    rows = await desk.pages("/admin/schedules?platform=google&type=reviews&hours=24", "schedules", limit=2)
    assert [row["index"] for row in rows] == [0, 1, 2]
    assert sum(row["businesses"] for row in rows) == 12
    assert [row["health"] for row in rows] == [
        "critical" if row["businesses"] == 5 else "warning" if row["businesses"] == 4 else "healthy" for row in rows
    ]
    critical = (await desk.get("/admin/schedules?health=critical"))["schedules"]
    assert {row["id"] for row in critical} >= {row["id"] for row in rows if row["businesses"] == 5}
    assert all(row["load"] >= 0.95 for row in critical)
    line = next(x for x in (await desk.get("/admin/schedules/lines"))["lines"] if kind(x) == ("google", "reviews", 24))
    assert (line["batches"], line["businesses"], line["capacity"], line["load"]) == (3, 12, 15, 0.8)
    members = await desk.pages(f"/admin/schedules/{rows[0]['id']}/businesses", "businesses", limit=2)
    assert len(members) == rows[0]["businesses"] and {one["team"] for one in members} == {"acme"}
    for query in ("health=x", "state=x", "platform=yelp", "hours=0", "after=x", "limit=0"):
        assert error(await desk.ask("GET", f"/admin/schedules?{query}"))[:2] == (422, "bad_message")
    assert error(await desk.ask("GET", "/admin/schedules/999999/businesses")) == (404, "not_found", "id")


async def test_a_paused_schedule_is_not_due_and_gets_no_further_business(desk: Desk) -> None:
    (first, *_), schedule = await filled(desk, 2), 0
    schedule = next(one["scheduleId"] for one in first["placements"] if one["type"] == "reviews")
    paused = await desk.good("PUT", f"/admin/schedules/{schedule}/pause")
    assert paused["schedule"]["paused"] and paused["auditId"] is not None
    assert (await desk.good("PUT", f"/admin/schedules/{schedule}/pause"))["auditId"] is None
    assert (await audited(desk, paused["auditId"]))["action"] == "schedules.pause"
    later = await desk.follow("acme", "google", "ChIJ_place_later")
    assert schedule not in {one["scheduleId"] for one in later["placements"]}
    resumed = await desk.good("PUT", f"/admin/schedules/{schedule}/resume")
    assert not resumed["schedule"]["paused"]
    assert resumed["schedule"]["nextRunAtMs"] > desk.serving.app.clock.now_ms()
    assert error(await desk.ask("PUT", "/admin/schedules/999999/pause")) == (404, "not_found", "id")


async def test_trigger_really_starts_a_run_once_a_key(desk: Desk, provider: tuple[World, Apify]) -> None:
    schedule = (await filled(desk, 1))[0]["placements"][0]["scheduleId"]
    key = {"headers": {"Idempotency-Key": "spring"}}
    first = await desk.good("POST", f"/admin/schedules/{schedule}/trigger", **key)
    again = await desk.good("POST", f"/admin/schedules/{schedule}/trigger", **key)
    assert (first["new"], again["new"], again["runId"], again["auditId"]) == (True, False, first["runId"], None)
    await desk.turn("dispatch")
    run = await desk.ended(first["runId"])
    assert (run["state"], run["kind"], run["asked"], run["missing"]) == ("succeeded", "triggered", 1, 0)
    assert len(provider[1].runs) == 1
    assert [one["id"] for one in (await desk.get(f"/admin/schedules/{schedule}/runs"))["runs"]] == [run["id"]]
    entry = await audited(desk, first["auditId"])
    assert (entry["action"], entry["target"], entry["after"]) == (
        "schedules.trigger",
        f"schedule {schedule}",
        {"run": run["id"]},
    )
    long = {"headers": {"Idempotency-Key": "x" * 101}}
    assert error(await desk.ask("POST", f"/admin/schedules/{schedule}/trigger", **long))[0] == 422
    assert error(await desk.ask("POST", "/admin/schedules/999999/trigger"))[:2] == (404, "not_found")


async def test_a_tier_moves_all_businesses_of_its_team_and_of_no_other(desk: Desk) -> None:
    await filled(desk, 4)
    await filled(desk, 2, "globex")
    change = await desk.good("PUT", "/admin/teams/acme/tier", {"tier": "professional"})
    assert (change["before"], change["after"], change["moved"]) == ("starter", "professional", 8)
    assert (await audited(desk, change["auditId"]))["before"] == {"tier": "starter"}
    view = await desk.get("/admin/teams/acme/schedules")
    assert {(line["type"], line["hours"], line["businesses"]) for line in view["lines"]} == {
        ("reviews", 12, 4),
        ("overview", 24, 4),
    }
    view = await desk.get("/admin/teams/globex/schedules")
    assert {(line["type"], line["hours"]) for line in view["lines"]} == {("reviews", 24), ("overview", 48)}
    teams = await desk.pages("/admin/teams", "teams", limit=1)
    assert [(one["team"], one["tier"], one["businesses"]) for one in teams] == [
        ("acme", "professional", 4),
        ("globex", "starter", 2),
    ]
    assert [one["team"] for one in (await desk.get("/admin/teams?search=GLOB"))["teams"]] == ["globex"]
    assert error(await desk.ask("PUT", "/admin/teams/acme/tier", {"tier": "gold"})) == (422, "bad_message", "tier")
    assert error(await desk.ask("GET", "/admin/teams/nobody/schedules")) == (404, "not_found", "team")


async def test_an_interval_of_its_own_is_an_enterprise_teams_and_has_a_history(desk: Desk) -> None:
    await filled(desk, 2)
    path, hours = "/admin/teams/acme/custom-interval", {"hours": 36, "platforms": ["google"], "types": ["reviews"]}
    assert error(await desk.ask("POST", path, hours)) == (409, "conflict", "team")
    await desk.good("PUT", "/admin/teams/acme/tier", {"tier": "enterprise"})
    ends = round(desk.serving.app.clock.now_ms() + HOUR_MS)
    set_ = await desk.good("POST", path, {**hours, "reason": "a fair", "expiresAtMs": ends})
    assert (set_["moved"], [(one["hours"], one["expiresAtMs"]) for one in set_["intervals"]]) == (2, [(36, ends)])
    assert kind(next(x for x in (await desk.get("/admin/schedules?hours=36"))["schedules"])) == (
        "google",
        "reviews",
        36,
    )
    assert not (await desk.get("/admin/schedules?hours=36"))["schedules"][0]["base"]
    assert [one["team"] for one in (await desk.get("/admin/custom-intervals?withinDays=1"))["expiring"]] == ["acme"]
    line = next(x for x in (await desk.get("/admin/teams/acme/schedules"))["lines"] if x["type"] == "reviews")
    assert (line["own"], line["hours"], line["expiresAtMs"]) == (True, 36, ends)
    gone = await desk.good("DELETE", f"{path}?platform=google&type=reviews")
    assert (gone["moved"], gone["intervals"]) == (2, [])
    assert (await desk.good("DELETE", path))["auditId"] is None
    told = await desk.pages(path, "history", cursor="before", limit=1)
    assert [(one["change"], one["hours"], one["reason"]) for one in told] == [
        ("removed", None, ""),
        ("set", 36, "a fair"),
    ]
    for bad in ({"hours": 0}, {"hours": 169}, {"hours": 6, "platforms": []}, {"hours": 6, "expiresAtMs": 1}, {}):
        assert error(await desk.ask("POST", path, bad))[:2] == (422, "bad_message")
    assert error(await desk.ask("POST", "/admin/teams/nobody/custom-interval", hours)) == (404, "not_found", "team")


async def test_balancing_is_shown_before_it_is_done(desk: Desk) -> None:
    made = await filled(desk, 10)
    for profile in made[:3]:
        await desk.good("DELETE", f"/api/google/profile/{profile['id']}")
    before = (await desk.get("/admin/schedules?platform=google&type=reviews&hours=24"))["schedules"]
    shown = await desk.good("POST", "/admin/schedules/rebalance", {"preview": True})
    assert shown["preview"] and shown["auditId"] is None
    assert (await desk.get("/admin/schedules?platform=google&type=reviews&hours=24"))["schedules"] == before
    one = {"platform": "google", "type": "reviews", "hours": 24}
    alone = await desk.good("POST", "/admin/schedules/rebalance", {"preview": True, **one})
    assert [kind(plan_) for plan_ in alone["plans"]] in ([], [("google", "reviews", 24)])
    done = await desk.good("POST", "/admin/schedules/rebalance")
    assert (done["moves"], done["lines"]) == (shown["moves"], shown["lines"]) and done["auditId"] is not None
    assert (await desk.good("POST", "/admin/schedules/rebalance", {}))["moves"] == 0
    assert (await desk.good("POST", "/admin/schedules/consolidate", {}))["preview"] is False
    assert error(await desk.ask("POST", "/admin/schedules/rebalance", {"platform": "google"})) == (
        422,
        "bad_message",
        "platform",
    )
    assert (await desk.get("/admin/schedules/validation"))["ok"]


async def test_what_a_run_did_not_bring_is_in_the_queue_and_an_admin_revives_it(
    desk: Desk, provider: tuple[World, Apify]
) -> None:
    places, _ = provider
    lost, found = await filled(desk, 2)
    places.missing.add(lost["identifier"])
    schedule = next(one["scheduleId"] for one in found["placements"] if one["type"] == "reviews")
    run = (await desk.good("POST", f"/admin/schedules/{schedule}/trigger"))["runId"]
    await desk.turn("dispatch")
    assert (await desk.ended(run))["missing"] == 1
    (retry,) = (await desk.get("/admin/retries?state=waiting"))["retries"]
    assert (retry["businessId"], retry["team"], retry["attempts"]) == (lost["id"], "acme", 0)
    assert retry["nextRetryAtMs"] > retry["createdAtMs"]
    assert (await desk.get("/admin/retries?team=globex"))["retries"] == []
    places.missing.clear()
    revived = await desk.good("POST", f"/admin/businesses/{lost['id']}/retry", {"type": "reviews"})
    assert [one["state"] for one in revived["retries"]] == ["waiting"]
    assert (await audited(desk, revived["auditId"]))["action"] == "schedules.retry"
    await desk.turn("retry")
    await desk.turn("dispatch")
    newest = (await desk.get("/admin/runs?limit=1"))["runs"][0]
    assert (newest["kind"], newest["businessId"]) == ("retry", lost["id"])
    await desk.ended(newest["id"])
    assert [one["state"] for one in (await desk.get("/admin/retries"))["retries"]] == ["resolved"]
    assert error(await desk.ask("POST", "/admin/businesses/99999/retry"))[:2] == (404, "not_found")


async def test_health_says_it_all_in_one_answer(desk: Desk, provider: tuple[World, Apify]) -> None:
    await filled(desk, 5)
    health = await desk.get("/admin/health")
    assert health["schedules"]["total"] == 2 and health["batches"]["critical"] == 2
    assert (health["businesses"], health["teams"], health["permanentlyFailed"]) == (5, 1, 0)
    assert health["provider"] == {"configured": True, "reachable": True, "message": None, "webhooks": True}
    assert {
        f"schedules-{name}" for name in ("dispatch", "poll", "process", "retry", "expire", "balance", "cleanup")
    } <= {loop["name"] for loop in health["loops"]}
    assert (health["lastWebhookAtMs"], health["webhooksWaiting"], health["clock"]) == (None, 0, "server")


async def test_without_a_token_nothing_is_started_and_all_else_works(start: Start) -> None:
    desk = Desk(await start())
    profile = await desk.follow("acme", "google", URLS["google"])
    run = (await desk.good("POST", f"/admin/schedules/{profile['placements'][0]['scheduleId']}/trigger"))["runId"]
    await desk.turn("dispatch")
    assert (await desk.get("/admin/runs"))["runs"][0] | {"id": run, "state": "intended"} == (
        await desk.get("/admin/runs")
    )["runs"][0]
    health = await desk.get("/admin/health")
    assert health["provider"] == {"configured": False, "reachable": None, "message": None, "webhooks": False}


FILE = (
    "team,name,tier,platform,identifier\n"
    f"acme,Adler,enterprise,google,{URLS['google']}\n"
    f"acme,Adler,,booking,{URLS['booking']}\n"
    f"globex,Hirsch,,google,{URLS['google']}\n"
    "globex,,,google,not a place id at all\n"
    "globex,,,yelp,x\n"
    f"globex,Hirsch,,tripadvisor,{URLS['tripadvisor']}\n"
)


async def test_the_whole_way_from_a_file_to_the_reviews_of_the_right_team(
    desk: Desk, provider: tuple[World, Apify]
) -> None:
    places, double = provider
    taken = await desk.good("POST", "/admin/businesses?key=f1", data=FILE.encode(), headers=CSV)
    assert (taken["rows"], taken["placed"], taken["known"], taken["refused"]) == (6, 4, 0, 2)
    assert [(one["number"], one["field"]) for one in taken["errors"]] == [(3, "identifier"), (4, "platform")]
    again = await desk.good("POST", "/admin/businesses?key=f2", data=FILE.encode(), headers=CSV)
    assert (again["placed"], again["known"]) == (0, 4)
    assert (await desk.get("/admin/schedules/validation"))["ok"]

    database = desk.serving.app._database
    assert database is not None
    async with database.transaction() as connection:  # Everything is due an interval ago.
        await connection.execute(
            "update schedules.schedule set next_run_at = next_run_at - make_interval(hours => interval_hours)"
        )
    due = (await desk.turn("dispatch"))["detail"]["due"]
    assert due == len({kind(row) for row in (await desk.get("/admin/schedules"))["schedules"] if row["id"]})

    async def processed() -> bool:
        await desk.turn("dispatch")
        runs = (await desk.get("/admin/runs?limit=1000"))["runs"]
        return len(runs) == due and all(run["processedAtMs"] is not None for run in runs)

    await until(processed)  # By webhooks alone: the poll has an interval of half a minute.
    assert len(double.runs) == due
    health = await desk.get("/admin/health")
    assert health["lastWebhookAtMs"] is not None
    for team, platform in (("acme", "google"), ("acme", "booking"), ("globex", "google"), ("globex", "tripadvisor")):
        (profile,) = (await desk.team(team, "GET", f"/api/{platform}/profile/{team}")).json["profiles"]
        base = f"/api/{platform}/profile/{team}/{profile['id']}"
        reviews = (await desk.team(team, "GET", f"{base}/reviews")).json["reviews"]
        expected = {one.id for one in places.of(platform, asked(double, platform))}
        assert {one["id"] for one in reviews} == expected
        assert (await desk.team(team, "GET", f"{base}/overview")).json["latest"]["reviewCount"] == 5
        other = "globex" if team == "acme" else "acme"
        assert (await desk.team(other, "GET", f"{base}/reviews")).status == 404


def asked(double: Apify, platform: str) -> str:
    """What was sent for the one place of this platform."""
    from tests.doubles.apify.reviews import asked_for

    return next(one for run in double.runs for one in asked_for(platform, run.input) if _names(platform, run.actor))


def _names(platform: str, actor: str) -> bool:
    return {"google": "google", "facebook": "facebook", "tripadvisor": "tripadvisor", "booking": "booking"}[
        platform
    ] in actor


async def test_answers_are_as_the_openapi_document_says(desk: Desk, provider: tuple[World, Apify]) -> None:
    await desk.good("PUT", "/admin/teams/acme/tier", {"tier": "enterprise"})
    profile = await desk.follow("acme", "google", URLS["google"])
    schedule = profile["placements"][0]["scheduleId"]
    provider[1].platform.outcomes.append(Outcome(status="FAILED"))
    base, own = "/api/{platform}/profile", "/admin/teams/{team}/custom-interval"
    asked_: list[tuple[str, str, object]] = [
        ("GET", "/api/me", None),
        ("POST", base, {"team": "acme", "identifier": URLS["google"]}),
        ("GET", base + "/{team}", None),
        ("GET", base + "/{team}/{business}/reviews", None),
        ("GET", base + "/{team}/{business}/overview", None),
        ("GET", "/admin/schedules", None),
        ("GET", "/admin/schedules/lines", None),
        ("GET", "/admin/schedules/{id}/businesses", None),
        ("POST", "/admin/schedules/{id}/trigger", None),
        ("PUT", "/admin/schedules/{id}/pause", None),
        ("PUT", "/admin/schedules/{id}/resume", None),
        ("GET", "/admin/schedules/{id}/runs", None),
        ("GET", "/admin/runs", None),
        ("POST", "/admin/schedules/rebalance", {"preview": True}),
        ("POST", "/admin/schedules/consolidate", {}),
        ("GET", "/admin/schedules/validation", None),
        ("GET", "/admin/teams", None),
        ("GET", "/admin/teams/{team}/schedules", None),
        ("POST", own, {"hours": 48, "expiresAtMs": 4_000_000_000_000, "types": ["overview"]}),
        ("GET", own, None),
        ("GET", "/admin/custom-intervals", None),
        ("DELETE", own, None),
        ("PUT", "/admin/teams/{team}/tier", {"tier": "starter"}),
        ("POST", "/admin/businesses/{business}/retry", {}),
        ("GET", "/admin/retries", None),
        ("GET", "/admin/health", None),
        ("GET", "/admin/audit", None),
        ("DELETE", base + "/{business}", None),
    ]
    values = {"platform": "google", "team": "acme", "business": str(profile["id"]), "id": str(schedule)}
    document = http.openapi_document()
    for method, path, body in asked_:
        url = path
        for name, value in values.items():
            url = url.replace("{" + name + "}", value)
        answer = await desk.ask(method, url, body)
        assert answer.status == 200, (method, url, answer.body)
        path = path.replace("businesses/{business}", "businesses/{id}").replace("profile/{business}", "profile/{id}")
        fits(answer.json, document, method, path)


async def test_a_file_that_is_none_is_refused(desk: Desk) -> None:
    assert error(await desk.ask("POST", "/admin/businesses?key=k", {"team": "acme"}))[:2] == (400, "bad_json")
    assert error(await desk.ask("POST", "/admin/businesses", data=b"x", headers=CSV)) == (422, "bad_message", "key")
    for platform in PLATFORMS:
        assert (await desk.get(f"/api/{platform}/profile/acme"))["profiles"] == []


async def test_a_file_has_a_bound(start: Start) -> None:
    desk = Desk(await start(schedules_import_bytes=1024))
    assert (await desk.good("POST", "/admin/businesses?key=k", data=FILE.encode(), headers=CSV))["placed"] == 4
    long = FILE.encode() + b"x,,,google,ChIJ_no_more_of_these\n" * 100

    async def pieces() -> AsyncIterator[bytes]:
        yield long

    for body in (long, pieces()):
        assert error(await desk.ask("POST", "/admin/businesses?key=long", data=body, headers=CSV))[:2] == (
            413,
            "too_large",
        )


async def test_characters_that_postgresql_cannot_hold_are_refused_not_a_bug(desk: Desk) -> None:
    for path in (
        "/api/google/profile/%00",
        "/api/google/profile/a%00b/1/reviews",
        "/admin/teams/%00/schedules",
        "/admin/teams/a%01b/custom-interval",
        f"/admin/teams/{'x' * 201}/schedules",
    ):
        assert error(await desk.ask("GET", path))[:2] == (404, "not_found"), path
    for query in ("search=%00", "after=%00"):
        assert error(await desk.ask("GET", f"/admin/teams?{query}"))[0] == 422
    for query in ("who=%00", "action=%00", "target=%00", "before=x"):
        assert error(await desk.ask("GET", f"/admin/audit?{query}"))[0] == 422
    assert error(await desk.ask("GET", "/admin/schedules?after=%00:reviews:6:0"))[0] == 422
    rows = (
        {"team": "a\0b", "google": "ChIJ_place_1"},
        {"team": "ok", "name": "x\0", "google": "ChIJ_place_2"},
        {"team": "ok", "google": "ChIJ_place_3"},
    )
    taken = await desk.good("POST", "/admin/businesses?key=n", data=lines([*rows]), headers=NDJSON)
    assert (taken["placed"], taken["refused"]) == (1, 2), taken


async def test_the_queries_of_the_handbook_work(desk: Desk, provider: tuple[World, Apify]) -> None:
    provider[0].missing.add("ChIJ_place_acme_1")
    first, *_ = await filled(desk, 2)
    schedule = next(one["scheduleId"] for one in first["placements"] if one["type"] == "reviews")
    run = (await desk.good("POST", f"/admin/schedules/{schedule}/trigger"))["runId"]
    await desk.turn("dispatch")
    await desk.ended(run)
    queries = [
        query for query in DOCS.read_text().partition("```sql\n")[2].partition("```")[0].split(";") if query.strip()
    ]
    assert len(queries) == 8
    database = desk.serving.app._database
    assert database is not None
    async with database.transaction() as connection:
        await connection.execute("set local search_path to schedules; set local role batchcast_schedules")
        found = [await connection.fetch(query) for query in queries[:-1]]
        await connection.execute("reset role")
        found.append(await connection.fetch(queries[-1]))
    assert [len(rows) for rows in found] == [2, 0, 4, 1, 0, 1, 1, 3]


async def test_figures_are_among_the_servers_numbers_and_rules(desk: Desk) -> None:
    metrics = (await desk.ask("GET", "/metrics")).body.decode()
    assert "batchcast_schedules_retries_waiting " in metrics and "batchcast_schedules_running " in metrics
    rules = {rule.name for rule in desk.serving.app.alerts.rules}
    assert {
        f"schedules-{name}" for name in ("full", "retry-queue", "failed", "retry-silent", "webhooks-slow", "stuck")
    } <= rules


async def test_with_the_providers_clock_an_interval_beyond_cron_is_refused(
    start: Start, provider: tuple[World, Apify]
) -> None:
    desk = Desk(await start(**settings(provider[1], schedules_clock="provider", schedules_dispatch_ms=HOUR_MS)))
    await desk.good("PUT", "/admin/teams/acme/tier", {"tier": "enterprise"})
    path = "/admin/teams/acme/custom-interval"
    assert error(await desk.ask("POST", path, {"hours": 36})) == (422, "bad_message", "hours")
    assert (await desk.good("POST", path, {"hours": 8}))["intervals"][0]["hours"] == 8


@pytest.mark.parametrize(
    ("state", "count", "status"),
    [
        ("waiting", 10, "ok"),
        ("waiting", 11, "warning"),
        ("failed", 10, "ok"),
        ("failed", 11, "critical"),
        ("resolved", 20, "ok"),
    ],
)
async def test_health_is_graded_by_what_waits_and_what_has_failed(
    desk: Desk, state: str, count: int, status: str
) -> None:
    await filled(desk, count)
    database = desk.serving.app._database
    assert database is not None
    async with database.transaction() as connection:
        await connection.execute(
            """insert into schedules.retry (team, business_id, platform, type, state, next_retry_at)
            select team, business_id, platform, type, $1, now() + interval '1 hour' from schedules.mapping where type = 'reviews'""",
            state,
        )
    health = await desk.get("/admin/health")
    assert (health["status"], health["retries"][state]) == (status, count)


async def test_a_provider_that_does_not_answer_is_told_once_a_minute(desk: Desk, provider: tuple[World, Apify]) -> None:
    provider[1].always["me"] = Act(status=401, repeats_token=True)
    health = await desk.get("/admin/health")
    assert (health["status"], health["provider"]["reachable"]) == ("warning", False)
    assert provider[1].token not in str(health) and "APIFY_TOKEN" in health["provider"]["message"]
    asked_so_far = provider[1].asked.count("me")
    assert (await desk.get("/admin/health"))["provider"] == health["provider"]
    assert provider[1].asked.count("me") == asked_so_far


async def test_validation_looks_at_the_providers_side_too(desk: Desk) -> None:
    assert {check["name"] for check in (await desk.get("/admin/schedules/validation"))["checks"]} >= {
        "coverage",
        "provider",
    }
    client = desk.serving.app.schedules.runs.provider.apify
    actor = desk.serving.app.schedules.runs.provider.actor("google", "reviews")
    await client.create_schedule("batchcast-left-over", "0 6 * * *", actor, {}, enabled=True, options=Options())
    answer = await desk.get("/admin/schedules/validation")
    wrong = [check for check in answer["checks"] if not check["ok"]]
    assert not answer["ok"] and [check["name"] for check in wrong] == ["provider"]
    assert "batchcast-left-over" in wrong[0]["examples"][0]
