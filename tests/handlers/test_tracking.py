"""Tracking over HTTP: whole servers, from a campaign and a post to a payout; who sees and may do what."""

import datetime as dt

import pytest
import pytest_asyncio

from tests.handlers.asking import Serving, Start, error
from tests.handlers.tracked import Books

HOUR_MS = 3_600_000


@pytest_asyncio.fixture
async def books(start: Start) -> Books:
    return Books(await start(tracking_interval_ms=24 * HOUR_MS))


async def test_a_post_is_submitted_approved_counted_paid_for_and_paid_out(books: Books) -> None:
    made = await books.good("POST", "/campaigns", {"name": "Spring", "budgetCents": 5_000, "rateCents": 150})
    campaign = made["campaign"]["id"]
    assert (made["campaign"]["status"], made["campaign"]["leftCents"]) == ("ACTIVE", 5_000)
    assert (await books.audited(made["auditId"]))["action"] == "tracking.campaign.created"

    asked = {"campaignId": campaign, "url": "https://youtu.be/dQw4w9WgXcQ?si=abc"}
    made = await books.good("POST", "/submissions", asked, sub="paul")
    post = made["submission"]
    assert (post["status"], post["creator"], post["platform"]) == ("PENDING", "paul", "youtube")
    assert (await books.audited(made["auditId"]))["who"] == "paul"
    await books.tell("update tracking.clip_submissions set baseline_from = now() - interval '1000 days'")
    decided = await books.good("POST", f"/submissions/{post['id']}/approve")
    assert decided["submission"]["status"] == "APPROVED" and (decided["grantedCents"], decided["completed"]) == (0, [])

    await books.count(post, 1_000, 1)
    await books.count(post, 13_345, 2)
    mine = await books.get(f"/submissions/{post['id']}", sub="paul")
    assert (mine["baselineViews"], mine["bestViews"], mine["earnedCents"]) == (1_000, 13_345, 1_851)
    views = (await books.get(f"/submissions/{post['id']}/views", sub="paul"))["views"]
    assert [(one["views"], one["state"]) for one in views] == [(13_345, "counted"), (1_000, "counted")]
    balance = await books.get("/balance", sub="paul")
    assert (balance["earnedCents"], balance["payableCents"], balance["activeCents"]) == (1_851, 0, 1_851)
    assert (balance["minimumCents"], balance["feeBasis"]) == (2_000, 0)

    await books.count(post, 100_000, 3)
    shown = await books.get(f"/campaigns/{campaign}")
    assert (shown["status"], shown["spentCents"], shown["leftCents"], shown["spentPercent"]) == (
        "COMPLETED",
        5_000,
        0,
        100.0,
    )
    lines = (await books.get("/ledger", sub="paul"))["lines"]
    assert sum(line["amountCents"] for line in lines) == 5_000
    asked_for = await books.good("POST", "/payouts", sub="paul")
    payout = asked_for["payout"]["id"]
    assert (asked_for["payout"]["status"], asked_for["payout"]["amountCents"]) == ("PENDING", 5_000)
    approved = await books.good("POST", f"/payouts/{payout}/approve", {"feeBasis": 250})
    assert (approved["payout"]["feeCents"], approved["payout"]["netCents"]) == (125, 4_875)
    paid = await books.good("POST", f"/payouts/{payout}/complete", {"transactionId": "tx-1"})
    assert (paid["payout"]["status"], paid["payout"]["transactionId"]) == ("COMPLETED", "tx-1")
    assert (await books.audited(paid["auditId"]))["action"] == "tracking.payout.completed"
    kinds = {one["kind"] for one in (await books.get("/notifications", sub="paul"))["notifications"]}
    assert {"submission-approved", "payout-approved", "payout-completed"} <= kinds
    assert (await books.get("/balance", sub="paul"))["paidCents"] == 4_875
    assert (await books.get("/verification"))["ok"]


async def test_creators_see_their_own_only_and_campaigns_without_money(books: Books) -> None:
    campaign = await books.campaign()
    post = await books.post(campaign, "paul")
    await books.count(post, 0, 1)
    await books.count(post, 3_000, 2)
    closed = await books.campaign()
    await books.good("POST", f"/campaigns/{closed}/pause")
    for path, name in (("/submissions", "submissions"), ("/ledger", "lines"), ("/notifications", "notifications")):
        assert (await books.get(path, sub="mary"))[name] == []
        assert (await books.get(path, sub="paul"))[name] and (await books.get(path))[name]
    for path in (f"/submissions/{post['id']}", f"/submissions/{post['id']}/views"):
        assert error(await books.ask("GET", path, sub="mary"))[:2] == (404, "not_found")
    for who in ("mary", "paul"):
        listed = (await books.get("/campaigns", sub=who))["campaigns"]
        assert [one["id"] for one in listed] == [campaign]
        money = ("budgetCents", "reservedCents", "spentCents", "leftCents", "spentPercent", "submissions")
        assert {listed[0][name] for name in money} == {None}
        assert error(await books.ask("GET", f"/campaigns/{closed}", sub=who))[:2] == (404, "not_found")
    assert [one["id"] for one in (await books.get("/campaigns"))["campaigns"]] == [closed, campaign]
    for path in ("/submissions", "/ledger", "/notifications", "/payouts", "/balance"):
        assert error(await books.ask("GET", f"{path}?creator=paul", sub="mary"))[:2] == (403, "forbidden")
        assert (await books.ask("GET", f"{path}?creator=paul", sub="paul")).status == 200
        assert (await books.ask("GET", f"{path}?creator=paul")).status == 200
    other = {"campaignId": campaign, "url": "https://youtu.be/videovideo1", "creator": "paul"}
    assert error(await books.ask("POST", "/submissions", other, sub="mary"))[:2] == (403, "forbidden")
    assert (await books.good("POST", "/submissions", other))["submission"]["creator"] == "paul"
    assert error(await books.ask("POST", "/payouts", {"creator": "paul"}, sub="mary"))[:2] == (403, "forbidden")


WRITES: tuple[tuple[str, str, object], ...] = (
    ("POST", "/campaigns", {"name": "x", "budgetCents": 1, "rateCents": 1}),
    ("PATCH", "/campaigns/1", {"budgetCents": 2}),
    ("POST", "/campaigns/1/pause", None),
    ("POST", "/campaigns/1/complete", None),
    ("POST", "/campaigns/1/reactivate", None),
    ("POST", "/submissions/1/approve", None),
    ("POST", "/submissions/1/reject", None),
    ("GET", "/held", None),
    ("POST", "/held/1/accept", None),
    ("POST", "/held/1/reject", None),
    ("POST", "/payouts/1/approve", None),
    ("POST", "/payouts/1/complete", {"transactionId": "t"}),
    ("POST", "/payouts/1/reject", None),
    ("POST", "/payouts/1/revert", None),
    ("POST", "/runs", None),
    ("POST", "/runs/1/stop", None),
    ("GET", "/runs", None),
    ("GET", "/runs/1", None),
    ("GET", "/health", None),
    ("GET", "/stats", None),
    ("GET", "/plan", None),
    ("GET", "/failed", None),
    ("POST", "/failed/1/retry", None),
    ("PUT", "/clips/1/event", {"eventId": None}),
    ("GET", "/verification", None),
)


async def test_what_is_for_administrators_is_refused_to_all_others(books: Books) -> None:
    for method, path, body in WRITES:
        for role, status, code in (
            (None, 401, "unauthorized"),
            ("viewer", 403, "forbidden"),
            ("producer", 403, "forbidden"),
        ):
            answer = await books.ask(method, path, body, role=role, headers={"User-Agent": "vercel-cron/1.0"})
            assert error(answer)[:2] == (status, code), (method, path, role)
    for path in ("/campaigns", "/submissions", "/balance", "/ledger", "/notifications", "/payouts"):
        assert error(await books.ask("GET", path, role=None))[:2] == (401, "unauthorized")


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("POST", "/campaigns", {"budgetCents": 1, "rateCents": 1}, (422, "bad_message", "name")),
        ("POST", "/campaigns", {"name": " ", "budgetCents": 1, "rateCents": 1}, (422, "bad_message", "name")),
        ("POST", "/campaigns", {"name": "x", "budgetCents": 0, "rateCents": 1}, (422, "bad_message", "budgetCents")),
        (
            "POST",
            "/campaigns",
            {"name": "x", "budgetCents": 2**63, "rateCents": 1},
            (422, "bad_message", "budgetCents"),
        ),
        (
            "POST",
            "/campaigns",
            {"name": "x", "budgetCents": 10, "rateCents": 100_001},
            (422, "bad_message", "rateCents"),
        ),
        ("POST", "/campaigns", {"name": "x", "budgetCents": 10.5, "rateCents": 1}, (422, "bad_message", "budgetCents")),
        ("POST", "/campaigns", {"name": "x", "budgetCents": True, "rateCents": 1}, (422, "bad_message", "budgetCents")),
        ("POST", "/campaigns", {"name": "a\0b", "budgetCents": 10, "rateCents": 1}, (422, "bad_message", "name")),
        (
            "POST",
            "/campaigns",
            {"name": "x", "budgetCents": 10, "rateCents": 1, "baseline": "best"},
            (422, "bad_message", "baseline"),
        ),
        (
            "POST",
            "/campaigns",
            {"name": "x", "budgetCents": 10, "rateCents": 1, "reservedCents": 10},
            (422, "bad_message", "reservedCents"),
        ),
        (
            "POST",
            "/submissions",
            {"campaignId": 1, "url": "https://www.youtube.com/@somebody"},
            (422, "bad_message", "url"),
        ),
        ("POST", "/submissions", {"campaignId": 1, "url": "https://youtu.be/\0"}, (422, "bad_message", "url")),
        ("POST", "/submissions", {"campaignId": 1, "url": "x" * 2_001}, (422, "bad_message", "url")),
        (
            "POST",
            "/submissions",
            {"campaignId": "1", "url": "https://youtu.be/dQw4w9WgXcQ"},
            (422, "bad_message", "campaignId"),
        ),
        (
            "POST",
            "/submissions",
            {"campaignId": 2**63, "url": "https://youtu.be/dQw4w9WgXcQ"},
            (422, "bad_message", "campaignId"),
        ),
        (
            "POST",
            "/submissions",
            {"campaignId": 2**62, "url": "https://youtu.be/dQw4w9WgXcQ"},
            (404, "not_found", "campaignId"),
        ),
        (
            "POST",
            "/submissions",
            {"campaignId": 1, "url": "https://youtu.be/dQw4w9WgXcQ", "creator": "\0"},
            (422, "bad_message", "creator"),
        ),
        ("POST", "/submissions", [], (422, "bad_message", None)),
        ("POST", "/submissions/7/approve", None, (404, "not_found", "id")),
        ("POST", "/submissions/7/reject", {"note": "x" * 501}, (422, "bad_message", "note")),
        ("POST", "/submissions/7/reject", {"note": 7}, (422, "bad_message", "note")),
        ("POST", "/payouts", {"amountCents": -1}, (422, "bad_message", "amountCents")),
        ("POST", "/payouts", {"amountCents": 2**63}, (422, "bad_message", "amountCents")),
        ("POST", "/payouts", {"amountCents": 1_999}, (409, "conflict", "amountCents")),
        ("POST", "/payouts/7/approve", {"feeBasis": 1_001}, (422, "bad_message", "feeBasis")),
        ("POST", "/payouts/7/approve", {"feeBasis": 2**70}, (422, "bad_message", "feeBasis")),
        ("POST", "/payouts/7/approve", {"feeBasis": -1}, (422, "bad_message", "feeBasis")),
        ("POST", "/payouts/7/complete", {}, (422, "bad_message", "transactionId")),
        ("POST", "/payouts/7/complete", None, (422, "bad_message", "transactionId")),
        ("POST", "/payouts/7/complete", {"transactionId": "  "}, (422, "bad_message", "transactionId")),
        ("POST", "/payouts/7/complete", {"transactionId": "tx"}, (404, "not_found", "id")),
        ("POST", "/held/7/accept", None, (404, "not_found", "id")),
        ("POST", "/held/7/accept", {"note": "\0"}, (422, "bad_message", "note")),
        ("PATCH", "/campaigns/7", {"budgetCents": 5}, (404, "not_found", "id")),
        ("PATCH", "/campaigns/7", {"budgetCents": "5"}, (422, "bad_message", "budgetCents")),
        ("GET", "/campaigns/x", None, (404, "not_found", "id")),
        ("GET", f"/campaigns/{2**63}", None, (404, "not_found", "id")),
        ("GET", f"/campaigns/{'9' * 18}", None, (404, "not_found", "id")),
        ("GET", f"/submissions/{10**20}", None, (404, "not_found", "id")),
        ("GET", f"/submissions/1/views?before={10**19}", None, (422, "bad_message", "before")),
        ("GET", "/campaigns?status=active", None, (422, "bad_message", "status")),
        ("GET", f"/campaigns?before={2**63}", None, (422, "bad_message", "before")),
        ("GET", "/campaigns?limit=501", None, (422, "bad_message", "limit")),
        ("GET", "/submissions?status=DONE", None, (422, "bad_message", "status")),
        ("GET", f"/submissions?campaign={2**63}", None, (422, "bad_message", "campaign")),
        ("GET", "/submissions?creator=%00", None, (422, "bad_message", "creator")),
        ("GET", f"/submissions?creator={'x' * 201}", None, (422, "bad_message", "creator")),
        ("GET", "/ledger?submission=x", None, (422, "bad_message", "submission")),
        ("GET", "/payouts?status=PAID", None, (422, "bad_message", "status")),
        ("GET", f"/held?after={2**63}", None, (422, "bad_message", "after")),
    ],
)
async def test_what_cannot_be_says_what_and_where(
    shared: Serving, method: str, path: str, body: object, expected: tuple[int, str, str | None]
) -> None:
    answer = await Books(shared).ask(method, path, body)
    assert error(answer) == expected, answer.body


async def test_a_full_a_paused_and_an_ended_campaign_and_a_duplicate_are_refused_in_words(books: Books) -> None:
    campaign = await books.campaign()
    await books.post(campaign, url="https://youtu.be/dQw4w9WgXcQ")
    again = {"campaignId": campaign, "url": "https://m.youtube.com/watch?v=dQw4w9WgXcQ&utm_source=x"}
    answer = await books.ask("POST", "/submissions", again, sub="mary")
    assert error(answer) == (409, "conflict", "url") and "already" in answer.json["error"]["message"]
    other = {"campaignId": campaign, "url": "https://youtu.be/dQw4w9WgXcR"}
    for turn, words in (("pause", "PAUSED"), ("complete", "has ended")):
        await books.good("POST", f"/campaigns/{campaign}/{turn}")
        answer = await books.ask("POST", "/submissions", other, sub="mary")
        assert error(answer) == (409, "conflict", "campaignId") and words in answer.json["error"]["message"]
        assert error(await books.ask("POST", f"/campaigns/{campaign}/{turn}")) == (409, "conflict", "status")
    full = (await books.earned(2_000))["campaignId"]
    answer = await books.ask("POST", "/submissions", {**other, "campaignId": full}, sub="mary")
    assert error(answer) == (409, "conflict", "campaignId") and "full" in answer.json["error"]["message"]


async def test_a_raised_budget_and_reactivation_pay_the_gap_once(books: Books) -> None:
    post = await books.earned(2_000)
    campaign = post["campaignId"]
    await books.count(post, 5_000, 3)
    assert error(await books.ask("POST", f"/campaigns/{campaign}/reactivate")) == (409, "conflict", "budgetCents")
    raised = await books.good("PATCH", f"/campaigns/{campaign}", {"budgetCents": 9_000, "reservedCents": 500})
    assert (raised["campaign"]["status"], raised["campaign"]["leftCents"]) == ("COMPLETED", 6_500)
    changed = await books.good("POST", f"/campaigns/{campaign}/reactivate")
    assert (changed["campaign"]["status"], changed["grantedCents"]) == ("ACTIVE", 3_000)
    assert (await books.audited(changed["auditId"]))["after"]["grantedCents"] == 3_000
    answer = await books.ask("PATCH", f"/campaigns/{campaign}", {"budgetCents": 5_000})
    assert error(answer) == (409, "conflict", "budgetCents") and answer.json["error"]["limit"] == 5_001


async def test_a_jump_waits_until_it_is_judged_with_a_reason(books: Books) -> None:
    post = await books.post(await books.campaign(10_000_000))
    other = await books.post(await books.campaign(10_000_000), "mary")
    for one in (post, other):
        await books.count(one, 1_000, 1)
        await books.count(one, 200_000, 2)
    held = (await books.get("/held"))["held"]
    assert [(one["clipId"], one["views"], one["before"]) for one in held] == [
        (post["clipId"], 200_000, 1_000),
        (other["clipId"], 200_000, 1_000),
    ]
    assert await books.pages("/held", "held", "after", 1) == held
    path = f"/held/{held[0]['observationId']}/accept"
    verdict = await books.good("POST", path, {"note": "a celebrity shared it"})
    assert (verdict["state"], verdict["grantedCents"], verdict["also"]) == ("accepted", 199_000, [])
    entry = await books.audited(verdict["auditId"])
    assert (entry["action"], entry["after"]["note"]) == ("tracking.observation.accepted", "a celebrity shared it")
    assert error(await books.ask("POST", path)) == (409, "conflict", "id")
    verdict = await books.good("POST", f"/held/{held[1]['observationId']}/reject", {"note": "bots"})
    assert (verdict["state"], verdict["grantedCents"]) == ("rejected", 0)
    assert (await books.audited(verdict["auditId"]))["after"]["note"] == "bots"
    assert (await books.get("/held"))["held"] == []
    assert (await books.get(f"/submissions/{other['id']}"))["bestViews"] == 1_000


async def test_a_payout_is_turned_step_by_step_and_can_be_taken_back(books: Books) -> None:
    await books.earned(3_000)
    first = (await books.good("POST", "/payouts", {"amountCents": 2_000}, sub="paul"))["payout"]
    answer = await books.ask("POST", "/payouts", sub="paul")
    assert error(answer) == (409, "conflict", "creator") and "PENDING" in answer.json["error"]["message"]
    path = f"/payouts/{first['id']}"
    assert error(await books.ask("POST", f"{path}/complete", {"transactionId": "t"})) == (409, "conflict", "status")
    assert (await books.good("POST", f"{path}/approve"))["payout"]["feeCents"] == 0
    assert (await books.good("POST", f"{path}/revert", {"note": "wait"}))["payout"]["status"] == "PENDING"
    await books.good("POST", f"{path}/approve", {"feeBasis": 1_000})
    paid = (await books.good("POST", f"{path}/complete", {"transactionId": " tx-9 "}))["payout"]
    assert (paid["transactionId"], paid["netCents"], paid["payoutId"] is None) == ("tx-9", 1_800, False)
    assert (await books.good("POST", f"{path}/revert"))["payout"]["status"] == "REVERTED"
    second = (await books.good("POST", "/payouts", sub="paul"))["payout"]
    assert second["amountCents"] == 3_000
    turned = await books.good("POST", f"/payouts/{second['id']}/reject", {"note": "no address"})
    assert (turned["payout"]["status"], turned["payout"]["note"]) == ("REJECTED", "no address")
    assert error(await books.ask("GET", f"/payouts/{first['id']}", sub="mary"))[:2] == (404, "not_found")
    mine = await books.get("/payouts?status=REJECTED", sub="paul")
    assert [one["id"] for one in mine["payouts"]] == [second["id"]]
    assert (await books.get("/verification"))["ok"]


async def test_lists_come_in_pages_without_gaps_or_repeats(books: Books) -> None:
    campaign = await books.campaign()
    posts = [await books.post(campaign) for _ in range(5)]
    ids = [post["id"] for post in reversed(posts)]
    assert [one["id"] for one in await books.pages(f"/submissions?campaign={campaign}", "submissions")] == ids
    assert [one["id"] for one in await books.pages("/submissions", "submissions", sub="paul")] == ids
    others = [await books.campaign() for _ in range(2)]
    assert [one["id"] for one in await books.pages("/campaigns", "campaigns", limit=1)] == [*reversed(others), campaign]
    hour = dt.timedelta(hours=1)
    for step in range(5):  # Four counts within one millisecond: the cursor has to be finer.
        await books.count(posts[0], step, 1 + step * (dt.timedelta(microseconds=200) / hour))
    path = f"/submissions/{posts[0]['id']}/views"
    assert [one["views"] for one in await books.pages(path, "views", limit=1)] == [4, 3, 2, 1, 0]
    lines = await books.pages("/ledger", "lines", limit=1)
    assert [line["views"] for line in lines] == [4, 3, 2, 1]
    assert await books.pages(f"/ledger?submission={posts[1]['id']}", "lines") == []
    told = await books.pages("/notifications", "notifications", sub="paul")
    assert len(told) == 5 and [one["id"] for one in told] == sorted((one["id"] for one in told), reverse=True)


async def test_settings_of_payouts_are_those_of_the_server(start: Start) -> None:
    books = Books(await start(tracking_payout_least_cents=500, tracking_fee_basis=100))
    await books.earned(600)
    balance = await books.get("/balance?creator=paul")
    assert (balance["payableCents"], balance["minimumCents"], balance["feeBasis"]) == (600, 500, 100)
    assert error(await books.ask("POST", "/payouts", {"amountCents": 499}, sub="paul"))[:2] == (409, "conflict")
    made = (await books.good("POST", "/payouts", {"creator": "paul"}))["payout"]
    assert (await books.good("POST", f"/payouts/{made['id']}/approve"))["payout"]["feeCents"] == 6
