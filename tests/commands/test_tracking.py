"""`batchcast tracking` against a running server that asks the provider's double: from a campaign to a payout, with its exit codes."""

import asyncio
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from server.batching.loop import Occasion
from server.batching.tracking.figures import RULES
from server.batching.tracking.sums import RULES as MONEY_RULES
from server.commands.showing_tracking import TRANSACTION, Clips, clips
from server.edge.attached import attached
from server.settings import FIELDS
from tests.commands.conftest import Command, Said
from tests.doubles.apify.http import TOKEN
from tests.pages.site import Site, until

ROOT = Path(__file__).resolve().parents[2]
DOCS = (ROOT / "docs" / "tracking.md").read_text()
GONE = "7399999999999999404"
DAY_MS = "86400000"


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    """The double in a process of its own; its address."""
    command = [sys.executable, "-m", "tests.doubles.apify", "--run-ms", "20", "--missing", GONE]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()


@pytest.fixture(scope="module")
def tracked(provider: str) -> Iterator[Site]:
    """The server; it looks at clips only when it is told to."""
    site = Site(
        settings={
            "APIFY_URL": provider,
            "APIFY_TOKEN": TOKEN,
            "TRACKING_INTERVAL_MS": DAY_MS,
            "TRACKING_PAUSE_MS": "0",
            "TRACKING_CACHE_MS": "0",
            "TRACKING_RETRY_FIRST_MS": "10",
            "TRACKING_POPULARITY": "true",
        }
    )
    try:
        site.start()
        # The leader begins with a run of its own; from then on only commands do.
        site.call("POST", "/loops/tracking-plan/pause")
        until(lambda: _rests(site), "no run is under way")
        yield site
    finally:
        site.remove()


def _rests(site: Site) -> bool:
    return all(run["status"] == "done" for run in site.call("GET", "/tracking/runs")["runs"])


@pytest.fixture
def batchcast(command: Command, tracked: Site, monkeypatch: pytest.MonkeyPatch) -> Command:
    """`batchcast` on the machine of that server."""
    monkeypatch.setenv("BATCHCAST_URL", tracked.url)
    monkeypatch.setenv("DATA_DIR", str(tracked.data_dir))
    return command


def done(said: Said, *words: str, code: int = 0) -> Said:
    """It ended so, and said all of that."""
    assert said.code == code, said
    assert [word for word in words if word not in said.out + said.err] == [], said
    return said


def campaign(batchcast: Command, name: str, *more: object, budget: object = 100, rate: object = 1) -> int:
    """A new campaign's number."""
    money = ("--budget", budget, "--rate", rate)
    made = done(batchcast("tracking", "campaigns", "create", name, *money, *more, "--json"))
    return int(made.json["campaign"]["id"])


def post(batchcast: Command, campaign_id: int, url: str, creator: str, *, approve: bool = True) -> Any:
    """A new submission."""
    made = done(batchcast("tracking", "submissions", "add", campaign_id, url, "--creator", creator, "--json")).json
    if approve:
        done(batchcast("tracking", "submissions", "approve", made["submission"]["id"]), "APPROVED")
    return made["submission"]


def sql(site: Site, statement: str, *values: object) -> list[asyncpg.Record]:
    """What the server's database answers."""

    async def asked() -> list[asyncpg.Record]:
        connection = await asyncpg.connect(attached(site.data_dir))
        try:
            return await connection.fetch(statement, *values)
        finally:
            await connection.close()

    return asyncio.run(asked())


def test_four_posts_earn_a_full_campaign_and_are_paid_out(batchcast: Command) -> None:
    full = campaign(batchcast, "Full [b]", "--baseline", "zero", "--reserved", "5", budget="$45.00", rate="10.00")
    urls = {
        "tiktok": "https://www.tiktok.com/@a/video/7311000000000000001?lang=en",
        "instagram": "https://www.instagram.com/reel/CfullAda001/",
        "youtube": "https://youtu.be/fullAda0001",
        "x": "https://twitter.com/a/status/1811000000000000001",
    }
    for url in urls.values():
        post(batchcast, full, url, "ada")
    said = done(batchcast("tracking", "run", "--limit", "50"), "4 successful, 0 failed", "stopped: done")
    assert "$40.00 earned" in said.out
    rows = batchcast("tracking", "campaigns", "list", "--status", "completed", "--json").json["campaigns"]
    row = next(row for row in rows if row["id"] == full)
    assert (row["spentCents"], row["leftCents"], row["reservedCents"]) == (4_000, 0, 500)
    done(batchcast("tracking", "campaigns", "list"), "Full [b]", "COMPLETED", "$40.00", "100.0 %")
    listed = done(batchcast("tracking", "submissions", "list", "--campaign", full, "--json")).json["submissions"]
    assert {row["platform"]: row["status"] for row in listed} == dict.fromkeys(urls, "APPROVED")
    assert sum(row["earnedCents"] for row in listed) == 4_000 and all(row["views"] > 0 for row in listed)
    done(batchcast("tracking", "submissions", "list", "--creator", "ada"), "tiktok:7311000000000000001")

    done(batchcast("tracking", "payouts", "balance", "--creator", "ada"), "$40.00 earned", "$40.00 payable")
    asked = done(batchcast("tracking", "payouts", "request", "--creator", "ada", "--json")).json["payout"]
    done(batchcast("tracking", "payouts", "request", "--creator", "ada"), code=1)
    done(batchcast("tracking", "payouts", "approve", asked["id"], "--fee", "2.5"), "APPROVED", "$39.00 after fees")
    done(batchcast("tracking", "payouts", "complete", asked["id"], "bank-17"), "COMPLETED", "transaction bank-17")
    done(batchcast("tracking", "payouts", "list", "--status", "completed"), "bank-17", "$1.00", "$39.00")
    done(batchcast("tracking", "payouts", "revert", asked["id"], "--note", "came back"), "REVERTED")
    again = done(batchcast("tracking", "payouts", "request", "25.50", "--creator", "ada", "--json")).json["payout"]
    assert again["amountCents"] == 2_550
    done(batchcast("tracking", "payouts", "reject", again["id"], "--note", "wrong name"), "REJECTED")

    done(batchcast("tracking", "verify"), "campaign-spent", "ok")
    assert batchcast("tracking", "verify", "--json").json["ok"]
    done(batchcast("tracking", "runs"), "forced", "done", "$40.00")
    assert batchcast("tracking", "runs", "--json").json["runs"][0]["successful"] == 4
    done(batchcast("tracking", "health"), "HEALTHY", "calls", "loops: tracking-plan is paused")
    done(batchcast("tracking", "stats"), "tiktok", "clockworks/tiktok-scraper")


def test_a_campaign_is_paused_goes_on_gets_money_and_ends(batchcast: Command) -> None:
    number = campaign(batchcast, "Spring", budget="1500")
    done(batchcast("tracking", "campaigns", "pause", number), "PAUSED")
    url = "https://youtu.be/springBo001"
    done(batchcast("tracking", "submissions", "add", number, url, "--creator", "bo"), "PAUSED", code=1)
    done(batchcast("tracking", "campaigns", "reactivate", number), "ACTIVE", "$1,500.00 left")
    done(batchcast("tracking", "campaigns", "budget", number, "2000.50", "--reserved", "0.50"), "$2,000.00 left")
    done(batchcast("tracking", "campaigns", "budget", number, "--reserved", "1000.50"), "$1,000.00 left")
    mine = post(batchcast, number, url, "bo", approve=False)
    done(batchcast("tracking", "submissions", "add", number, f"{url}?si=x", "--creator", "bo"), "already", code=1)
    done(batchcast("tracking", "submissions", "list", "--status", "pending"), "springBo001", "never")
    done(batchcast("tracking", "submissions", "reject", mine["id"], "--note", "no product"), "REJECTED")
    done(batchcast("tracking", "campaigns", "complete", number), "COMPLETED")
    done(batchcast("tracking", "campaigns", "complete", number), code=1)


def test_what_is_asked_wrongly_ends_with_2_and_what_is_refused_with_1(batchcast: Command) -> None:
    number = campaign(batchcast, "Wrong")
    for arguments in (
        ("campaigns", "create", "A", "--budget", "12.345", "--rate", "1"),
        ("campaigns", "create", "A", "--budget", "1e3", "--rate", "1"),
        ("campaigns", "create", "A", "--rate", "1"),
        ("campaigns", "budget", number),
        ("payouts", "approve", 1, "--fee", "a lot"),
        ("run", "--limit", 0),
        ("held", "accept"),
        ("nothing",),
    ):
        assert batchcast("tracking", *arguments).code == 2, arguments
    for arguments in (
        ("campaigns", "create", "A", "--budget", "0", "--rate", "1"),
        ("campaigns", "create", "A", "--budget", "5", "--rate", "1", "--baseline", "never"),
        ("campaigns", "pause", 10**9),
        ("submissions", "add", number, "https://www.youtube.com/@somebody"),
        ("submissions", "approve", 10**9),
        ("payouts", "request", "--creator", "nobody"),
        ("payouts", "approve", 10**9, "--fee", "10.01"),
        ("held", "accept", 10**9),
        ("failed", "retry", 10**9),
        ("stop", 10**9),
    ):
        assert batchcast("tracking", *arguments).code == 1, arguments
    done(batchcast("tracking", "runs", "--url", "http://127.0.0.1:9"), code=2)


def test_a_clip_that_cannot_be_read_ends_the_run_with_1_and_can_be_tried_again(batchcast: Command) -> None:
    number = campaign(batchcast, "Gone")
    post(batchcast, number, f"https://www.tiktok.com/@a/video/{GONE}", "eve")
    done(batchcast("tracking", "run"), "1 failed", "stopped: done", code=1)
    (row,) = batchcast("tracking", "failed", "--json").json["failed"]
    assert (row["postId"], row["reason"]) == (GONE, "not_found")
    done(batchcast("tracking", "failed"), f"tiktok:{GONE}", "not_found")
    assert "0 clips" in batchcast("tracking", "run").out, "it is not due"
    done(batchcast("tracking", "failed", "retry", row["id"]), "due now")
    again = done(batchcast("tracking", "run", "--json"), code=1).json
    assert (again["processed"], again["failed"]) == (1, 1)
    assert batchcast("tracking", "failed", "--json").json["failed"][0]["attempts"] == 2
    done(batchcast("tracking", "stop", again["id"]), code=1)
    done(batchcast("tracking", "campaigns", "complete", number))


def test_the_same_key_starts_one_run(batchcast: Command) -> None:
    first = done(batchcast("tracking", "run", "--key", "nightly 1", "--json")).json
    assert done(batchcast("tracking", "run", "--key", "nightly 1", "--json")).json["id"] == first["id"]
    assert done(batchcast("tracking", "run", "--detach", "--json")).json["id"] == first["id"] + 1


def test_a_held_count_is_paid_when_it_is_accepted(batchcast: Command, tracked: Site) -> None:
    number = campaign(batchcast, "Held", budget=900)
    one, two = (post(batchcast, number, f"https://youtu.be/heldEve000{n}", "eve") for n in (1, 2))
    done(batchcast("tracking", "run"), "2 successful")
    held = """insert into tracking.view_tracking (clip_id, observed_at, views, state, before)
        values ($1, clock_timestamp(), 9000000, 'held', 7) returning id"""
    first, second = (sql(tracked, held, one["clipId"] if n else two["clipId"])[0]["id"] for n in (1, 0))
    done(batchcast("tracking", "held"), "youtube:heldEve0001", "9,000,000", "x1,285,714")
    assert [row["observationId"] for row in batchcast("tracking", "held", "--json").json["held"]] == [first, second]
    done(
        batchcast("tracking", "held", "accept", first, "--note", "it is true"),
        "accepted",
        "$900.00 granted",
        "completed",
    )
    done(batchcast("tracking", "held", "reject", second), "rejected", "$0.00 granted")
    done(batchcast("tracking", "held", "reject", second), code=1)
    assert batchcast("tracking", "held", "--json").json["held"] == []
    done(batchcast("tracking", "verify"))


def test_verify_and_health_end_with_1_and_say_why(batchcast: Command, tracked: Site) -> None:
    number = campaign(batchcast, "Tampered")
    sql(tracked, "update tracking.campaigns set spent_cents = 7 where id = $1", number)
    said = done(batchcast("tracking", "verify"), f"campaign {number} has spent 7 cents", code=1)
    assert "campaign-spent" in said.err
    assert batchcast("tracking", "verify", "--json").code == 1
    sql(tracked, "update tracking.campaigns set spent_cents = 0 where id = $1", number)
    done(batchcast("tracking", "verify"))
    with_runs = """insert into tracking.tracking_runs (node, limit_clips, processed, successful, failed, stop_reason, finished_at)
        values ('n', 1000, $1::int, $2::int, $1::int - $2::int, 'done', clock_timestamp()) returning id"""
    ((good,),) = sql(tracked, with_runs, 100_000, 99_000)
    done(batchcast("tracking", "health"), "HEALTHY: 99.0 %")
    ((bad,),) = sql(tracked, with_runs, 1_000_000, 400_000)
    done(batchcast("tracking", "health"), "UNHEALTHY: 45", "see `tracking runs`", code=1)
    assert batchcast("tracking", "health", "--json").json["status"] == "UNHEALTHY"
    sql(tracked, "delete from tracking.tracking_runs where id = any($1)", [good, bad])


def test_the_planner_sizes_the_demand_honestly(batchcast: Command) -> None:
    preset = ("--run-clips", 100, "--run-every", 4)
    said = done(batchcast("tracking", "plan", *preset), "2,143 live clips", "12,857 calls a day", "385,714 a month")
    done(said, "600 looks a day", "4,200 a week", "too few", "$49.00", "$499.00")
    rows = {line.split()[0]: line for line in said.out.splitlines() if line.startswith(("free", "starter", "team"))}
    assert "too small, ours" in rows["starter"] and "enough, the cheapest" in rows["team"]
    more = batchcast("tracking", "plan", "--posts-per-call", 20, "--clips-per-week", 1000, "--json").json
    assert (more["liveClips"], more["cheapest"]) == (4_286, "starter")
    none = ("--clips-per-week", 100_000)
    done(batchcast("tracking", "plan", *none), "none of the plans is enough")
    assert batchcast("tracking", "plan", "--run-every", 0).code == 1


def test_a_creator_sees_its_own_and_decides_nothing(batchcast: Command) -> None:
    number = campaign(batchcast, "Open")
    token = done(batchcast("token", "create", "--sub", "finn")).out.strip()
    as_finn = ("--token", token)
    added = done(
        batchcast("tracking", "submissions", "add", number, "https://youtu.be/openFinn001", *as_finn, "--json")
    )
    post(batchcast, number, "https://youtu.be/openGwen001", "gwen")
    seen = done(batchcast("tracking", "submissions", "list", *as_finn, "--json")).json["submissions"]
    assert [row["id"] for row in seen] == [added.json["submission"]["id"]]
    assert "$" not in batchcast("tracking", "campaigns", "list", *as_finn).out.replace("$1.00", "")
    done(batchcast("tracking", "payouts", "balance", *as_finn), "finn: $0.00 earned")
    for arguments in (("submissions", "approve", seen[0]["id"]), ("runs",), ("run",), ("verify",), ("health",)):
        assert batchcast("tracking", *arguments, *as_finn).code == 1, arguments


def test_the_documents_queries_run_and_its_names_exist(batchcast: Command, tracked: Site) -> None:
    text = DOCS.partition("```sql\n")[2].partition("```")[0]
    queries = [query for query in text.split(";") if query.strip()]

    async def asked() -> list[list[asyncpg.Record]]:
        connection = await asyncpg.connect(attached(tracked.data_dir))
        try:
            await connection.execute("set search_path to tracking; set role batchcast_tracking")
            found = [await connection.fetch(query) for query in queries[:-1]]
            await connection.execute("reset role")
            return [*found, await connection.fetch(queries[-1])]
        finally:
            await connection.close()

    found = asyncio.run(asked())
    assert len(found) == len(queries) == 12
    campaigns_ = found[6]
    assert campaigns_ and all(row["ledger_cents"] == row["spent_cents"] for row in campaigns_)
    told = {tuple(line.split(" | ")[:2]) for line in DOCS.splitlines() if line.startswith("| `tracking-")}
    assert told == {(f"| `{rule.name}`", rule.severity.value.upper()) for rule in (*RULES, *MONEY_RULES)}
    with urllib.request.urlopen(f"{tracked.url}/metrics") as answer:
        shown = {
            line.split()[2]
            for line in answer.read().decode().splitlines()
            if line.startswith("# HELP batchcast_tracking_")
        }
    assert set(re.findall("`(batchcast_tracking_[a-z_]+)`", DOCS)) == shown
    named = set(re.findall("TRACKING_[A-Z_]+[A-Z]", DOCS))
    assert {name.lower() for name in named} <= set(FIELDS), named


def test_the_demo_earns_pays_and_moves_an_event(tracked: Site) -> None:
    event = next(clip.event for clip in clips() if clip.event)
    soon = {"id": event, "title": "Night market", "location": {"latitude": 41.7, "longitude": 44.8}}
    tracked.call("POST", "/events", {**soon, "start": round(time.time() * 1000) + 3_600_000})
    demo = Clips(tracked.url, tracked.token, attached(tracked.data_dir))
    asyncio.run(_shown(demo, tracked, event))


async def _shown(demo: Clips, site: Site, event: str) -> None:
    """Turn by turn, with a run after each, until all of it has been seen."""
    seen: set[str] = set()
    async with asyncio.timeout(120):
        number = 0
        while not seen >= {"earned", "asked", "paid", "moved"}:
            number += 1
            turn = await demo.turn(Occasion("interval", number, time.time_ns() // 1_000_000))
            await asyncio.to_thread(_run, site)
            found = await asyncio.to_thread(site.call, "GET", "/tracking/campaigns?limit=500")
            paying = [row for row in found["campaigns"] if row["name"] == "Spring sneakers" and row["spentCents"]]
            payouts = (await asyncio.to_thread(site.call, "GET", "/tracking/payouts?limit=500"))["payouts"]
            moved = await asyncio.to_thread(site.call, "GET", f"/events/{event}")
            seen |= {"earned"} if paying else set()
            seen |= {"asked"} if turn.detail.get("asked") else set()
            seen |= {"paid"} if any(str(row["transactionId"]).startswith(TRANSACTION) for row in payouts) else set()
            seen |= {"moved"} if moved["scanCount"] > 0 else set()
    again = Clips(site.url, site.token, demo.dsn)
    await again.turn(Occasion("interval", 1, 0))
    assert again.clips == demo.clips, "what there was is found again"


def _run(site: Site) -> None:
    run = site.call("POST", "/tracking/runs", {})["run"]
    while run["status"] == "running":
        time.sleep(0.05)  # what is waited for is on the other side of a socket
        run = site.call("GET", f"/tracking/runs/{run['id']}")
