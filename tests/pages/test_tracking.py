"""The tracking page as an administrator meets it: a real browser, a real server that counts views at the provider's double."""

import gzip
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.pages.conftest import Visitor
from tests.pages.person import LONG, drawer, pressed, row, told
from tests.pages.site import ROOT, Site
from tests.pages.tracking import SPRING, admin, filled, forgive, looked_at
from tests.pages.viewing import Viewing, campaign, payable, ran, submitted, tiktok, tracked_site, viewing, youtube

pytestmark = pytest.mark.browser

SOON = 12_000
"""Before the page asks again by itself."""
BUDGET = 74 * 1024
"""Compressed, all of the page and of what the pages share."""


@pytest.fixture(scope="module")
def double() -> Iterator[Viewing]:
    with viewing() as double:
        yield double


@pytest.fixture(scope="module")
def site(browser: Browser, double: Viewing) -> Iterator[Site]:
    with filled(double) as site:
        yield site


@pytest.fixture
def fresh(browser: Browser, double: Viewing) -> Iterator[Site]:
    """A server on which nothing was done yet, and no run can begin."""
    site = tracked_site(double, APIFY_TOKEN="")
    try:
        site.start()
        yield site
    finally:
        site.remove()


def figure(page: Page, name: str) -> str:
    return page.locator(f'#tiles [data-name="{name}"] dd').inner_text()


def named(site: Site, what: str, **wanted: object) -> int:
    """The number of the first one of which this is so."""
    rows = site.call("GET", f"/tracking/{what}?limit=500")[what]
    return int(next(one["id"] for one in rows if all(one[name] == value for name, value in wanted.items())))


# --- how it stands ---


def test_the_tiles_say_what_the_server_says_and_lead_to_what_waits(visit: Visitor, site: Site) -> None:
    page = admin(visit())
    health, stats = site.call("GET", "/tracking/health"), site.call("GET", "/tracking/stats")
    expect(page.locator("#tiles .tile-status")).to_have_text(health["status"].lower(), timeout=LONG)
    expect(page.locator("#tiles")).to_contain_text(f"of {health['processed']} checks brought a count")
    assert figure(page, "Used").startswith(f"{health['quota']['used']} (")
    assert figure(page, "Allowed") == "100,000"
    assert figure(page, "Loops") == f"{len(health['loops'])} work"
    for name in ("submissions", "held", "payoutsPending"):
        expect(page.locator(f"[data-count={name}] b")).to_have_text(str(stats["waiting"][name]))
    expect(page.locator("[data-count=failed] b")).to_have_text(str(stats["failed"]["open"]))
    page.locator("[data-count=submissions]").click()
    expect(page.get_by_label("State of submitted posts")).to_have_value("PENDING")
    expect(page.locator("#submissions tbody tr")).to_have_count(stats["waiting"]["submissions"], timeout=LONG)
    expect(page.locator("#submissions-title")).to_be_in_viewport()
    assert "posts.status=PENDING" in page.url
    page.reload()
    expect(page.get_by_label("State of submitted posts")).to_have_value("PENDING", timeout=LONG)
    expect(page.locator("#submissions tbody tr")).to_have_count(stats["waiting"]["submissions"], timeout=LONG)


def test_the_calls_of_each_actor_stand_there_with_what_they_cost(visit: Visitor) -> None:
    page = admin(visit())
    youtube_row = row(page, "actors", "streamers/youtube-scraper")
    expect(youtube_row).to_contain_text("used", timeout=LONG)
    expect(youtube_row.locator("td").nth(7)).to_have_text(re.compile(r"^\$\d"))
    expect(page.locator("#clips")).to_contain_text(re.compile(r"\d+ live posts"))


# --- runs ---


def test_a_run_is_begun_once_watched_as_it_goes_and_told_of_at_its_end(
    visit: Visitor, site: Site, double: Viewing
) -> None:
    where = campaign(site, "To be run", baseline="zero")
    double.seen(runs0000001=2_000, runs0000002=4_000, **{"7301234567890999999": 12_000})
    for post in ("runs0000001", "runs0000002"):
        submitted(site, where, youtube(post), "grace")
    submitted(site, where, tiktok("7301234567890999999"), "grace")
    before = len(site.call("GET", "/tracking/runs?limit=500")["runs"])
    page = admin(visit())
    double.slow(1, 3)
    page.get_by_role("button", name="Run now…").click()
    expect(page.get_by_role("dialog")).to_contain_text("Each call of the provider counts against the month’s quota")
    page.get_by_role("dialog").get_by_role("button", name="Run it").dblclick()
    told(page, r"Run \d+ is on its way")
    expect(page.locator("#running-now")).to_contain_text(
        re.compile(r"running.*\d+ % · [12] of [23] posts · [\d.]+ posts/s"), timeout=LONG
    )
    expect(page.locator("#notices")).to_contain_text(
        re.compile(r"Run \d+ has ended \(done\): 3 posts looked at, 100 % brought a count, \$27 granted"), timeout=LONG
    )
    expect(page.locator("#running-now")).to_be_hidden()
    assert len(site.call("GET", "/tracking/runs?limit=500")["runs"]) == before + 1, "pressed twice it is one run"
    newest = page.locator("#runs tbody tr").first
    expect(newest).to_contain_text(re.compile(r"done.*100 %.*\$27.*by hand"), timeout=LONG)
    expect(row(page, "submissions", "runs0000002")).to_contain_text(re.compile(r"4,000.*\$6"), timeout=LONG)
    expect(row(page, "campaigns", "To be run")).to_contain_text("$27", timeout=LONG)
    newest.get_by_role("button").click()
    expect(drawer(page).locator('[data-name="Looked at"] dd')).to_have_text("3 of 3")
    assert "run=" in page.url
    page.reload()
    expect(drawer(page)).to_contain_text("Every post that was due was looked at", timeout=LONG)


def test_a_run_that_somebody_else_began_shows_by_itself(visit: Visitor, site: Site) -> None:
    page = admin(visit())
    expect(page.locator("#runs tbody tr").first).to_be_visible(timeout=LONG)
    before = int(figure(page, "Runs"))
    run = ran(site)["id"]
    # Of the table: while it runs another such button stands above.
    expect(page.locator("#runs").get_by_role("button", name=f"Run {run}: details")).to_be_visible(timeout=SOON)
    expect(page.locator("#tiles [data-name=Runs] dd")).to_have_text(str(before + 1), timeout=SOON)
    expect(page.locator("#running-now")).to_be_hidden(timeout=SOON)


def test_the_progress_of_a_run_says_how_far_how_fast_and_how_long(visit: Visitor) -> None:
    page = visit().open("/tracking")
    expect(page.locator("#connection")).to_contain_text("Live", timeout=LONG)
    said = page.evaluate(
        """async () => {
            const { progressWords } = await import("/site/tracking-state.js");
            const run = { percent: 42, processed: 42, claimed: 100, averageSeconds: 0.5, status: "running" };
            const begun = { ...run, percent: 0, processed: 0, averageSeconds: null };
            return [run, begun, { ...run, percent: 100, status: "done" }].map((one) => progressWords(one).join(" · "));
        }"""
    )
    assert said == [
        "42 % · 42 of 100 posts · 2 posts/s · 29 s left",
        "0 % · 0 of 100 posts",
        "100 % · 42 of 100 posts · 2 posts/s",
    ]


def test_a_run_under_way_is_stopped(visit: Visitor, site: Site, double: Viewing) -> None:
    where = campaign(site, "To be stopped")
    double.seen(stops000001=10, CstopsStop1=10)
    for address in (
        youtube("stops000001"),
        "https://www.instagram.com/p/CstopsStop1/",
        "https://www.tiktok.com/@a/video/7399999999999999999",
        "https://x.com/a/status/1811999999999999999",
    ):
        submitted(site, where, address, "grace")
    page = admin(visit())
    double.slow(8)
    site.call("POST", "/tracking/runs")
    page.get_by_role("button", name=re.compile(r"Stop run \d+")).click(timeout=LONG)
    expect(page.get_by_role("dialog")).to_contain_text("What was counted stays")
    pressed(page, "Stop it")
    told(page, r"Stopping run \d+")
    expect(page.locator("#runs tbody tr").first).to_contain_text("stopped", timeout=LONG)
    expect(page.locator("#running-now")).to_be_hidden(timeout=LONG)


def test_the_success_rate_is_drawn_run_by_run(visit: Visitor, site: Site) -> None:
    page = admin(visit())
    runs = [run for run in site.call("GET", "/tracking/runs?limit=50")["runs"] if run["successRate"] is not None]
    chart = page.locator("#rates svg")
    expect(chart).to_have_attribute(
        "aria-label", re.compile(rf"Success rate of the last {len(runs)} runs"), timeout=LONG
    )
    expect(chart.locator("g")).to_have_count(len(runs))
    expect(chart.locator("line")).to_have_count(2)
    titles = [title.strip() for title in chart.locator("title").all_text_contents()]
    assert titles[-1].startswith(f"Run {runs[0]['id']},") and titles[0].startswith(f"Run {runs[-1]['id']},")


# --- campaigns ---


def test_a_campaign_is_made_gets_another_budget_and_goes_through_its_states(visit: Visitor, site: Site) -> None:
    seen = visit()
    page = admin(seen)
    page.get_by_role("button", name="New campaign…").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("Autumn")
    dialog.get_by_label("Dollars per 1,000 views").fill("1.50")
    dialog.get_by_label("Budget in dollars").fill("100")
    dialog.get_by_label("Held back, in dollars").fill("25.50")
    expect(dialog).to_contain_text("pays $1.50 per 1,000 views until $74.50 are granted: 49,666 views in all")
    pressed(page, "Create it")
    told(page, "Campaign “Autumn” takes posts, with \\$74.50 to grant")
    autumn = row(page, "campaigns", "Autumn")
    expect(autumn).to_contain_text("$74.50 left", timeout=LONG)
    expect(autumn.get_by_role("img")).to_have_attribute(
        "aria-label", re.compile(r"\$25.50 held back, \$74.50 left of \$100")
    )
    autumn.get_by_role("button", name="Campaign Autumn: details").click()
    drawer(page).get_by_role("button", name="Budget…").click()
    dialog.get_by_label("Budget in dollars").fill("20")
    expect(dialog).to_contain_text("$5.50 too little for what is granted and held back")
    dialog.get_by_role("button", name="Change the budget").click()
    expect(dialog.get_by_role("alert")).to_contain_text("reservedCents", timeout=LONG)
    dialog.get_by_label("Budget in dollars").fill("200")
    pressed(page, "Change the budget")
    told(page, "“Autumn”: \\$0 granted, \\$25.50 held back, \\$174.50 left of \\$200")
    expect(drawer(page)).to_contain_text("$174.50 left of $200")
    for button, press, words in (
        ("Pause…", "Pause it", "Paused “Autumn”"),
        ("Reactivate…", "Reactivate it", "Reactivated “Autumn”"),
        ("Complete…", "Complete it", "Completed “Autumn”"),
    ):
        drawer(page).get_by_role("button", name=button).click()
        pressed(page, press)
        told(page, words)
    expect(drawer(page).locator(".status").first).to_have_text("completed")
    expect(autumn).to_contain_text("completed")
    expect(drawer(page).get_by_role("button", name="Complete…")).to_have_count(0)
    completed = site.call("GET", "/tracking/campaigns?status=COMPLETED")["campaigns"]
    assert "Autumn" in [one["name"] for one in completed]
    forgive(seen, "422")


def test_campaigns_are_filtered_sorted_and_copied_as_csv(visit: Visitor) -> None:
    page = admin(visit())
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_label("State of campaigns").select_option("PAUSED")
    expect(page.locator("#campaigns tbody tr")).to_have_count(1, timeout=LONG)
    page.locator("#campaigns").get_by_role("button", name="Copy as CSV").click()
    expect(page.locator("#notices")).to_contain_text("Copied 1 row of campaigns", timeout=LONG)
    lines = page.evaluate("() => navigator.clipboard.readText()").splitlines()
    assert lines[0] == "Campaign,State,Budget,Granted,Rate,Posts,Made,Do"
    assert lines[1].startswith('Quiet November,paused,"$0 granted, $500 left of $500",$0,$1.50,0,20')
    page.get_by_label("State of campaigns").select_option("")
    page.locator("#campaigns").get_by_role("button", name="Granted", exact=True).click()
    expect(page.locator("#campaigns th[aria-sort]")).to_contain_text("Granted ↓")
    expect(page.locator("#campaigns tbody tr").first).to_contain_text("$500")
    assert "campaigns.sort=-spentCents" in page.url and "campaigns.status" not in page.url


# --- posts ---


def test_a_post_is_added_for_a_creator_approved_and_its_counts_are_drawn(
    visit: Visitor, site: Site, double: Viewing
) -> None:
    where = campaign(site, "For posts", baseline="zero")
    double.seen(added000001=3_000)
    seen = visit()
    page = admin(seen)
    page.get_by_role("button", name="Add a post…").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Campaign").select_option(str(where["id"]))
    dialog.get_by_label("Address of the post").fill("https://www.youtube.com/@somebody")
    dialog.get_by_label("Creator").fill("hedy")
    dialog.get_by_role("button", name="Submit it").click()
    expect(dialog.get_by_role("alert")).to_contain_text("youtu.be", timeout=LONG)
    expect(dialog.get_by_label("Address of the post")).to_be_focused()
    dialog.get_by_label("Address of the post").fill("https://m.youtube.com/watch?v=added000001&utm_source=x")
    pressed(page, "Submit it")
    told(page, "Submitted YouTube added000001 to “For posts”")
    added = row(page, "submissions", "hedy")
    expect(added).to_contain_text("to decide", timeout=LONG)
    added.get_by_role("button", name="Approve YouTube added000001").click()
    expect(dialog).to_contain_text("YouTube added000001 of hedy for “For posts”")
    pressed(page, "Approve it")
    told(page, "Approved YouTube added000001 of hedy")
    expect(added).to_contain_text("approved")
    for views in (3_000, 5_000, 4_800):
        double.seen(added000001=views)
        ran(site, where)
    expect(added).to_contain_text(re.compile(r"5,000.*\$7.50"), timeout=LONG)
    added.get_by_role("button", name=re.compile("details")).first.click()
    expect(drawer(page).locator(".pace-figure")).to_have_text("5,000 views", timeout=LONG)
    expect(drawer(page).locator(".course svg")).to_have_attribute(
        "aria-label", re.compile(r"3 counts: 3,000, 5,000, 4,800"), timeout=LONG
    )
    expect(drawer(page).locator("tbody tr").first).to_contain_text(re.compile(r"4,800.*lower", re.S))
    expect(drawer(page).locator('[data-name="Last count"] dd')).to_have_text("4,800")
    expect(drawer(page).get_by_role("link", name="YouTube: open the post")).to_have_attribute(
        "rel", "noopener noreferrer"
    )
    forgive(seen, "422")


def test_a_post_is_rejected_with_a_note(visit: Visitor, site: Site, double: Viewing) -> None:
    where = campaign(site, "For rejection")
    submitted(site, where, youtube("reject00001"), "hedy", approve=False)
    page = admin(visit())
    row(page, "submissions", "reject00001").get_by_role("button", name="Reject YouTube reject00001").click()
    page.get_by_role("dialog").get_by_label("Note").fill("another product")
    pressed(page, "Reject it")
    told(page, "Rejected YouTube reject00001 of hedy")
    rejected = row(page, "submissions", "reject00001")
    expect(rejected).to_contain_text("rejected")
    rejected.get_by_role("button").first.click()
    expect(drawer(page)).to_contain_text("another product", timeout=LONG)
    expect(drawer(page).get_by_role("button", name="Approve…")).to_have_count(0)


@pytest.mark.parametrize(("press", "words"), [("Accept", "accepted"), ("Reject", "rejected")])
def test_a_count_that_jumped_is_judged_once(
    visit: Visitor, site: Site, double: Viewing, press: str, words: str
) -> None:
    post = f"jump{words}"[:11].ljust(11, "0")
    where = campaign(site, f"To be {words}", baseline="zero")
    double.seen(**{post: 6_000})
    submitted(site, where, youtube(post), "hedy")
    ran(site)
    double.seen(**{post: 600_000})
    ran(site, where)
    page = admin(visit())
    held = row(page, "held", post)
    expect(held).to_contain_text(re.compile(r"600,000.*6,000.*× 100", re.S), timeout=LONG)
    held.get_by_role("button", name=f"{press} 600,000 views of YouTube {post}").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(f"{press}s 600,000 views of YouTube {post}, 6,000 before")
    dialog.get_by_label("Note").fill("looked at the profile")
    pressed(page, f"{press} it")
    told(page, rf"{press}ed 600,000 views of YouTube {post}.*" + (r"\$891 granted" if press == "Accept" else ""))
    expect(page.locator("#held tbody tr").filter(has_text=post)).to_have_count(0, timeout=LONG)
    earned = {"Accept": r"\$900", "Reject": r"\$9"}[press]
    expect(row(page, "submissions", post)).to_contain_text(re.compile(earned + r"(?!\d)"), timeout=LONG)


def test_what_could_not_be_counted_says_why_and_is_tried_again(visit: Visitor, site: Site, double: Viewing) -> None:
    page = admin(visit())
    lost = row(page, "failed", "lostForEver")
    expect(lost).to_contain_text("not found", timeout=LONG)
    lost.get_by_role("button", name="Try YouTube lostForEver again").click()
    pressed(page, "Try again")
    told(page, "YouTube lostForEver is due")
    expect(lost).to_contain_text("due", timeout=LONG)
    double.seen(lostForEver=321)
    ran(site)
    expect(page.locator("#failed tbody tr").filter(has_text="lostForEver")).to_have_count(0, timeout=LONG)
    expect(row(page, "submissions", "lostForEver")).to_contain_text("321", timeout=LONG)


# --- payouts ---


def test_a_payout_goes_its_way_from_asked_for_to_paid_and_back(visit: Visitor, site: Site, double: Viewing) -> None:
    payable(site, double, "margaret", "paysMargar1", 12_345)
    number = site.call("POST", "/tracking/payouts", {"creator": "margaret"})["payout"]["id"]
    seen = visit()
    page = admin(seen)
    asked = row(page, "payouts", "margaret")
    expect(asked).to_contain_text(re.compile(r"to decide.*\$123.45"), timeout=LONG)
    asked.get_by_role("button", name=f"Approve payout request {number}").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Fee in per cent")).to_have_value("2.5")
    dialog.get_by_label("Fee in per cent").fill("10")
    expect(dialog).to_contain_text("$111.11 to pay out, $12.34 fee")
    pressed(page, "Approve it")
    told(page, rf"Approved payout request {number} of margaret, \$123.45: \$111.11 to pay out")
    asked.get_by_role("button", name=f"Take back the approval of payout request {number}").click()
    pressed(page, "Take it back")
    told(page, "Back to be decided")
    asked.get_by_role("button", name=f"Approve payout request {number}").click()
    pressed(page, "Approve it")
    asked.get_by_role("button", name=f"Mark as paid: payout request {number}").click()
    dialog.get_by_role("button", name="Mark as paid").click()
    expect(dialog).to_be_visible()  # Without a transaction id nothing was paid: the browser asks for it.
    dialog.get_by_label("Transaction id").fill("SEPA-77")
    pressed(page, "Mark as paid")
    told(page, rf"Paid: payout request {number} of margaret")
    expect(asked).to_contain_text(re.compile(r"paid.*\$120.37.*SEPA-77"))
    asked.get_by_role("button", name=f"Payout request {number}: details").click()
    expect(drawer(page).locator('[data-name="Paid before"] dd')).to_have_text("$120.37", timeout=LONG)
    drawer(page).get_by_role("button", name="Revert…").click()
    dialog.get_by_label("Note").fill("the account is closed")
    pressed(page, "Revert it")
    told(page, "Reverted: payout request")
    expect(drawer(page).locator(".status").first).to_have_text("reverted")
    expect(drawer(page).locator('[data-name="Payable"] dd')).to_have_text("$123.45", timeout=LONG)
    assert site.call("GET", "/tracking/balance?creator=margaret")["payableCents"] == 12_345


def test_a_payout_is_rejected_and_what_the_server_refuses_stays_in_the_dialog(
    visit: Visitor, site: Site, double: Viewing
) -> None:
    payable(site, double, "barbara", "paysBarbar1", 5_000)
    number = site.call("POST", "/tracking/payouts", {"creator": "barbara"})["payout"]["id"]
    seen = visit()
    page = admin(seen)
    asked = row(page, "payouts", "barbara")
    asked.get_by_role("button", name=f"Approve payout request {number}").click()
    dialog = page.get_by_role("dialog")
    site.call("POST", f"/tracking/payouts/{number}/reject", {"note": "meanwhile"})
    dialog.get_by_role("button", name="Approve it").click()
    expect(dialog.get_by_role("alert")).to_contain_text("REJECTED", timeout=LONG)
    expect(dialog.get_by_role("button", name="Approve it")).to_be_enabled()
    dialog.get_by_role("button", name="Cancel").click()
    expect(asked).to_contain_text("rejected", timeout=LONG)
    number = site.call("POST", "/tracking/payouts", {"creator": "barbara"})["payout"]["id"]
    row(page, "payouts", f"#{number}").get_by_role("button", name=f"Reject payout request {number}").click(timeout=LONG)
    dialog.get_by_label("Note").fill("no account")
    pressed(page, "Reject it")
    told(page, f"Rejected: payout request {number} of barbara")
    forgive(seen, "409")


# --- planner, checks ---


def test_the_planner_reckons_with_what_is_asked_and_keeps_it_in_the_address(visit: Visitor) -> None:
    seen = visit()
    page = admin(seen)
    plan = page.locator("#plan")
    expect(plan.locator('[data-name="Calls a month"] dd')).to_have_text("385,714", timeout=LONG)
    expect(plan.locator('[data-name="Live posts"] dd')).to_have_text("2,143")
    expect(row(page, "plan", "starter")).to_contain_text("too small, yours")
    expect(row(page, "plan", "team")).to_contain_text(re.compile(r"\$499.*enough, the cheapest"))
    expect(plan.locator(".plan-verdict")).to_contain_text("team is the cheapest plan that is enough")
    plan.get_by_label("Posts a call").fill("20")
    expect(plan.locator('[data-name="Calls a month"] dd')).to_have_text("19,286", timeout=LONG)
    expect(row(page, "plan", "starter")).to_contain_text("enough, the cheapest, yours")
    assert "plan.postsPerCall=20" in page.url
    page.reload()
    expect(plan.get_by_label("Posts a call")).to_have_value("20", timeout=LONG)
    expect(plan.locator('[data-name="Calls a month"] dd')).to_have_text("19,286", timeout=LONG)
    plan.get_by_label("Posts a call").fill("0")
    expect(plan.locator(".plan-verdict")).to_contain_text("postsPerCall", timeout=LONG)
    forgive(seen, "422")


def test_everything_is_checked_and_each_check_says_what_it_means(visit: Visitor) -> None:
    page = admin(visit())
    page.get_by_role("button", name="Check everything").click()
    expect(drawer(page)).to_contain_text(re.compile(r"all \d+ checks hold"), timeout=LONG)
    expect(drawer(page)).to_contain_text("what a campaign has spent is the sum of its ledger")
    expect(drawer(page)).to_contain_text("batchcast tracking verify")


# --- trouble, keyboard, looks ---


def test_what_somebody_else_changes_shows_without_a_reload_and_costs_no_focus(visit: Visitor, site: Site) -> None:
    where = campaign(site, "Changed elsewhere")
    seen = visit()
    page = admin(seen)
    link = page.get_by_role("button", name="Campaign Changed elsewhere: details")
    link.focus()
    site.call("POST", f"/tracking/campaigns/{where['id']}/pause")
    expect(row(page, "campaigns", "Changed elsewhere")).to_contain_text("paused", timeout=LONG)
    expect(link).to_be_focused()
    site.call("PATCH", f"/tracking/campaigns/{where['id']}", {"budgetCents": 123_400})
    expect(row(page, "campaigns", "Changed elsewhere")).to_contain_text("$1,234 left", timeout=LONG)
    assert any('"subscribe"' in frame and '"tracking"' in frame for frame in seen.sent)


def test_a_lost_server_leaves_everything_in_its_place_and_the_page_comes_back(visit: Visitor, site: Site) -> None:
    seen = visit()
    page = admin(seen)
    page.get_by_role("button", name=f"Campaign {SPRING}: details").first.click()
    expect(drawer(page)).to_contain_text("held back", timeout=LONG)
    rows, address = page.locator("#campaigns tbody tr").count(), page.url
    site.stop()
    expect(page.locator("#connection")).to_contain_text(re.compile(r"Lost since \d\d:\d\d"), timeout=LONG)
    page.get_by_label("State of campaigns").select_option("PAUSED")
    expect(page.locator("#campaigns .table-status")).to_contain_text("can’t be reached", timeout=LONG)
    looked_at(page, "lost")
    page.get_by_label("State of campaigns").select_option("")
    site.start()
    expect(page.locator("#connection")).to_contain_text("Live", timeout=2 * LONG)
    expect(page.locator("#campaigns .table-status")).to_be_empty(timeout=LONG)
    expect(page.locator("#campaigns tbody tr")).to_have_count(rows, timeout=LONG)
    expect(page.locator("#campaigns tr[aria-current=true]")).to_have_count(1)
    expect(drawer(page)).to_contain_text("held back")
    assert page.url == address
    followed = [frame for frame in seen.sent if '"subscribe"' in frame and '"tracking"' in frame]
    assert len(followed) == 2, "the topic is followed again on the new connection"
    forgive(seen, "WebSocket connection to", "ERR_", "failed: ")


def test_rows_and_details_work_by_keyboard_alone(visit: Visitor) -> None:
    page = admin(visit())
    link = page.get_by_role("button", name=f"Campaign {SPRING}: details").first
    link.focus()
    page.keyboard.press("Enter")
    expect(drawer(page).get_by_role("heading", level=2)).to_be_focused()
    expect(drawer(page).get_by_role("heading", level=2)).to_have_text(SPRING)
    page.keyboard.press("Escape")
    expect(drawer(page)).to_be_hidden()
    expect(link).to_be_focused()
    assert "campaign=" not in page.url.split("?")[-1]
    page.locator("#new-campaign").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog").get_by_label("Name")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_an_empty_page_says_how_each_part_is_filled_and_what_is_missing(visit: Visitor, fresh: Site) -> None:
    seen = visit()
    seen.site = fresh
    page = admin(seen)
    expect(page.locator("#tiles")).to_contain_text("No run can begin without a token of the provider", timeout=LONG)
    expect(page.locator("#tiles .tile-status")).to_have_text("no data")
    for place, words in (
        ("runs", "batchcast tracking run"),
        ("campaigns", "batchcast tracking campaigns create"),
        ("submissions", "Nobody has submitted a post yet"),
        ("held", "No count waits"),
        ("payouts", "Nobody has asked for a payout yet"),
        ("failed", "None open"),
        ("actors", "No call this month"),
    ):
        expect(page.locator(f"#{place} .table-status")).to_contain_text(words, timeout=LONG)
    page.get_by_role("button", name="Close this notice").click()
    looked_at(page, "empty", whole=True)
    page.get_by_role("button", name="Add a post…").click()
    expect(page.locator("#notices")).to_contain_text("No campaign takes posts just now", timeout=LONG)
    page.get_by_role("button", name="Run now…").click()
    page.get_by_role("dialog").get_by_role("button", name="Run it").click()
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("APIFY_TOKEN", timeout=LONG)
    looked_at(page, "refused")
    forgive(seen, "409")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("phone", [False, True], ids=["desktop", "phone"])
def test_names_contrast_and_a_screenshot(visit: Visitor, site: Site, scheme: str, phone: bool) -> None:
    kind = f"{'phone' if phone else 'desktop'}-{scheme}"
    page = admin(visit(scheme=scheme, phone=phone))
    for place in ("runs", "submissions", "payouts", "actors", "plan"):
        expect(page.locator(f"#{place} tbody tr").first).to_be_visible(timeout=LONG)
    expect(page.locator("#rates svg")).to_be_visible()
    page.get_by_role("button", name="Close this notice").click()
    looked_at(page, kind, whole=True)
    spring = named(site, "campaigns", name=SPRING)
    page.goto(f"{site.url}/tracking?campaign={spring}")
    expect(drawer(page).locator("tbody tr").first).to_be_visible(timeout=LONG)
    looked_at(page, f"campaign-{kind}")
    drawer(page).get_by_role("button", name="Budget…").click()
    looked_at(page, f"budget-{kind}")
    page.get_by_role("button", name="Cancel").click()
    page.goto(f"{site.url}/tracking?submission={named(site, 'submissions', postId='steady00001')}")
    expect(drawer(page).locator(".course svg")).to_be_visible(timeout=LONG)
    looked_at(page, f"post-{kind}")
    page.goto(f"{site.url}/tracking?payout={named(site, 'payouts', status='PENDING')}")
    expect(drawer(page).locator('[data-name="Payable"]')).to_be_visible(timeout=LONG)
    drawer(page).get_by_role("button", name="Approve…").click()
    looked_at(page, f"approve-{kind}")


def test_the_whole_page_is_small_and_strict(visit: Visitor) -> None:
    seen = visit()
    admin(seen)
    files = [answer for url, answer in seen.weights.items() if "/site/" in url or url.endswith("/tracking")]
    files = [answer for answer in files if answer.status == 200]
    weight = sum(len(gzip.compress(answer.body())) for answer in files)
    assert len(files) > 10 and weight < BUDGET
    policy = seen.weights[f"{seen.site.url}/tracking"].headers["content-security-policy"]
    assert "script-src 'self'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy


def test_the_html_has_no_inline_script_or_style() -> None:
    html = Path(ROOT / "server/handlers/site/tracking.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)", html)
