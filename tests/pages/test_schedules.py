"""The schedules page as an administrator meets it: a real browser, a real server that starts runs at the scraping provider's double."""

import gzip
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from server.batching.schedules.plan import TIER_HOURS
from tests.pages.conftest import Visitor
from tests.pages.person import LONG, drawer, pressed, row, told
from tests.pages.schedules import admin, batch_id, filled, follow, looked_at, processed
from tests.pages.scraping import LOST, Scraping, scraping
from tests.pages.site import ROOT, Site

pytestmark = pytest.mark.browser

BUDGET = 72 * 1024
"""Compressed, all of the page and of what the pages share."""
BATCH = "Google reviews, every 6 h, batch 0"


@pytest.fixture(scope="module")
def provider() -> Iterator[Scraping]:
    with scraping() as double:
        yield double


@pytest.fixture(scope="module")
def site(browser: Browser, provider: Scraping) -> Iterator[Site]:
    with filled(provider) as site:
        yield site


# --- what an administrator sees ---


def test_all_32_schedules_stand_there_with_load_and_health_and_lead_to_their_batches(visit: Visitor) -> None:
    page = admin(visit())
    expect(page.locator("#lines .line-types .line")).to_have_count(32, timeout=LONG)
    cell = page.locator('[data-line="google reviews 6"]')
    expect(cell).to_contain_text(re.compile(r"6 h.*(healthy|warning|critical).*\d+ of \d+.*in \d+", re.S))
    expect(cell).to_have_attribute(
        "aria-label", re.compile(r"Google reviews, every 6 h: \d+ businesses of \d+ in \d+ batches")
    )
    expect(page.locator('[data-line="facebook reviews 72"]')).to_contain_text("no business yet")
    hours = page.locator(".line-type[data-type=reviews] .line b").all_inner_texts()
    assert hours[:4] == ["6 h", "12 h", "24 h", "72 h"]
    cell.click()
    expect(page.get_by_label("Interval of batches")).to_have_value("6")
    expect(row(page, "batches", BATCH)).to_be_visible(timeout=LONG)
    others = page.locator("#batches tbody td:first-child").filter(has_not_text="Google reviews, every 6 h")
    expect(others).to_have_count(0, timeout=LONG)
    expect(page.locator("#batches-title")).to_be_in_viewport()
    bar, title = page.locator(".bar").bounding_box(), page.locator("#batches-title").bounding_box()
    assert bar is not None and title is not None and bar["y"] == 0 and title["y"] > bar["height"], (
        "the bar stays, nothing under it"
    )


def test_an_interval_that_is_none_of_the_four_is_found_by_its_cell_and_by_a_link(visit: Visitor) -> None:
    seen = visit()
    page = admin(seen)
    page.locator('[data-line="google overview 48"]').click()
    expect(page.locator("#batches tbody tr")).to_have_count(1, timeout=LONG)
    expect(page.locator("#batches tbody tr")).to_contain_text("Google overview, every 48 h, batch 0")
    assert "batches.hours=48" in page.url
    page.reload()
    expect(page.get_by_label("Interval of batches")).to_have_value("48", timeout=LONG)
    expect(page.locator("#batches tbody tr")).to_have_count(1, timeout=LONG)
    page.get_by_label("Health of batches").select_option("critical")
    expect(page.locator("#batches .table-status")).to_contain_text("Nothing matches", timeout=LONG)
    page.get_by_role("button", name="Clear the filter").click()
    expect(row(page, "batches", "Booking overview, every 6 h")).to_contain_text("not made yet", timeout=LONG)
    assert "batches." not in page.url


def test_the_tiles_tell_of_health_and_lead_to_what_they_count(visit: Visitor, site: Site) -> None:
    page = admin(visit())
    expect(page.locator("#tiles [data-name=Businesses] dd")).to_have_text(re.compile(r"^\d\d"), timeout=LONG)
    expect(page.locator("#tiles [data-name=Answers] dd")).to_contain_text("yes")
    expect(page.locator("#tiles [data-name=Loops] dd")).to_contain_text(re.compile(r"\d+ work"))
    figures = site.call("GET", "/admin/health")
    expect(page.locator("[data-count=critical] b")).to_have_text(str(figures["batches"]["critical"]))
    page.locator("[data-count=critical]").click()
    expect(page.get_by_label("Health of batches")).to_have_value("critical")
    expect(page.locator("#batches tbody tr")).to_have_count(figures["batches"]["critical"], timeout=LONG)
    others = page.locator("#batches .status").filter(has_not_text=re.compile("critical|active|paused"))
    expect(others).to_have_count(0, timeout=LONG)
    page.locator("#tiles [data-count=failed]").click()
    expect(page.get_by_label("State of retries")).to_have_value("failed")


def test_batches_are_sorted_filtered_and_copied_as_csv(visit: Visitor) -> None:
    page = admin(visit())
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("#batches").get_by_role("button", name="Load", exact=True).click()
    expect(page.locator("#batches th[aria-sort]")).to_contain_text("Load ↓")
    expect(page.locator("#batches tbody tr").first).to_contain_text("100 %")
    page.get_by_label("Filter batches").fill("tripadvisor reviews")
    expect(page.locator("#batches tbody tr")).to_have_count(4, timeout=LONG)
    page.locator("#batches").get_by_role("button", name="Copy as CSV").click()
    expect(page.locator("#notices")).to_contain_text("Copied 4 rows of batches", timeout=LONG)
    lines = page.evaluate("() => navigator.clipboard.readText()").splitlines()
    assert lines[0] == "Batch,Businesses,Load,Health,State,Next run,Last run,Do" and len(lines) == 5
    assert any(
        re.search(r'^"TripAdvisor reviews, every 6 h, batch 0",\d+,0\.\d+,healthy,active,20\d\d-', line)
        for line in lines
    )
    assert "batches.sort=-load" in page.url and "batches.filter=" in page.url


def test_the_page_knows_the_tiers_as_the_server_does(visit: Visitor) -> None:
    page = visit().open("/schedules")
    expect(page.locator("#connection")).to_contain_text("Live", timeout=LONG)
    tiers = page.evaluate("async () => (await import('/site/schedules-words.js')).TIERS")
    assert tiers == {tier: dict(hours) for tier, hours in TIER_HOURS.items()}


def test_a_rating_that_moves_is_drawn_between_its_lowest_and_its_highest(visit: Visitor) -> None:
    page = visit().open("/schedules")
    expect(page.locator("#connection")).to_contain_text("Live", timeout=LONG)
    drawn = page.evaluate(
        """async () => {
            const { ratingNodes } = await import("/site/schedules-team.js");
            const history = [4.2, null, 4.4, 4.0].map((rating) => ({ rating, reviewCount: 1, fetchedAtMs: Date.now() }));
            const picture = ratingNodes(history[0], history).at(-1);
            return [picture.getAttribute("aria-label"), picture.querySelector("polyline").getAttribute("points")];
        }"""
    )
    assert drawn == ["Rating the last 3 times, between 4 and 4.4: 4, 4.4, 4.2", "3.0,25.0 60.0,3.0 117.0,14.0"]


def test_only_an_https_address_of_a_review_is_made_a_link(visit: Visitor) -> None:
    page = visit().open("/schedules")
    expect(page.locator("#connection")).to_contain_text("Live", timeout=LONG)
    made = page.evaluate(
        """async () => {
            const { published } = await import("/site/schedules-team.js");
            const urls = ["https://a.example/1", "javascript:alert(1)", "http://a.example/", null];
            return urls.map((url) => published(null, { url }).tagName ?? "words");
        }"""
    )
    assert made == ["A", "words", "words", "words"]


# --- a batch ---


def by_hand(site: Site) -> int:
    """Runs that somebody asked for; others come when their time has."""
    return sum(run["kind"] == "triggered" for run in site.call("GET", "/admin/runs?limit=1000")["runs"])


def test_a_batch_is_run_by_hand_and_its_reviews_arrive_at_the_business(visit: Visitor, site: Site) -> None:
    page = admin(visit())
    before = by_hand(site)
    row(page, "batches", BATCH).get_by_role("button", name=f"Run {BATCH} now").click()
    expect(page.get_by_role("dialog")).to_contain_text(f"for the 5 businesses of {BATCH}")
    page.get_by_role("dialog").get_by_role("button", name="Run it").dblclick()
    told(page, r"Run \d+ is on its way: Google reviews, every 6 h, batch 0")
    expect(row(page, "runs", "Google reviews", "by hand")).to_contain_text("succeeded", timeout=LONG)
    number = int(row(page, "runs", "Google reviews").get_by_role("button").first.inner_text().removeprefix("#"))
    run = processed(site, number)
    assert by_hand(site) == before + 1, "pressed twice it is one run"
    expect(row(page, "runs", f"#{number}").locator(".status")).to_have_text("succeeded", timeout=LONG)
    row(page, "runs", f"#{number}").get_by_role("button", name=f"Run {number}: details").click()
    expect(drawer(page).locator("[data-name=Items] dd")).to_have_text(str(run["items"]))
    drawer(page).get_by_role("button", name=re.compile("Batch .*: details")).click()
    expect(drawer(page)).to_contain_text("5 of 5 businesses", timeout=LONG)
    drawer(page).get_by_role("button", name="Acme house 0: details").click()
    rating = re.compile(r"\d.*12 reviews, .* ago, the same the last 2 times")
    expect(drawer(page).locator(".rating")).to_contain_text(rating, timeout=LONG)
    reviews = drawer(page).locator(".stacks tbody tr")
    expect(reviews).to_have_count(12, timeout=LONG)
    expect(reviews.first).to_contain_text(re.compile(r"Author \d+"))
    expect(reviews.first.get_by_role("link")).to_have_attribute("rel", "noopener noreferrer")
    assert "business=" in page.url and "platform=google" in page.url
    page.reload()
    expect(drawer(page).locator(".stacks tbody tr")).to_have_count(12, timeout=LONG)


def test_a_batch_is_paused_and_resumed(visit: Visitor, site: Site) -> None:
    name = "Booking reviews, every 12 h, batch 0"
    page = admin(visit())
    row(page, "batches", name).get_by_role("button", name=f"Pause {name}").click()
    expect(page.get_by_role("dialog")).to_contain_text(f"No further runs of {name}")
    pressed(page, "Pause it")
    told(page, f"Paused {name}")
    expect(row(page, "batches", name)).to_contain_text("paused")
    expect(row(page, "batches", name).locator("td").nth(5)).to_have_text("–")
    expect(page.locator('[data-line="booking reviews 12"]')).to_contain_text("paused", timeout=LONG)
    expect(page.locator("[data-count=paused] b")).to_have_text("1", timeout=LONG)
    expect(row(page, "audit", "schedules.pause")).to_contain_text("paused: false → true", timeout=LONG)
    page.locator("#batches").get_by_role("button", name=name, exact=True).click()
    drawer(page).get_by_role("button", name="Resume…").click()
    pressed(page, "Resume it")
    told(page, f"Resumed {name}; next run")
    expect(drawer(page).get_by_role("button", name="Pause…")).to_be_visible()
    expect(drawer(page)).to_contain_text("schedules.resume", timeout=LONG)
    expect(row(page, "batches", name)).to_contain_text("active")


def test_what_somebody_else_changes_shows_without_a_reload_and_costs_no_focus(visit: Visitor, site: Site) -> None:
    name = "TripAdvisor reviews, every 12 h, batch 0"
    seen = visit()
    page = admin(seen)
    link = page.locator("#batches").get_by_role("button", name=name, exact=True)
    link.focus()
    expect(page.locator("#tiles [data-name=Answers]")).to_be_visible(timeout=LONG)
    expect(page.locator("#audit tbody tr").first).to_be_visible(timeout=LONG)
    before = len(seen.weights)
    site.call("PUT", f"/admin/schedules/{batch_id(site, platform='tripadvisor', type='reviews', hours=12)}/pause")
    expect(row(page, "batches", name)).to_contain_text("paused", timeout=LONG)
    expect(link).to_be_focused()
    site.call("PUT", f"/admin/schedules/{batch_id(site, platform='tripadvisor', type='reviews', hours=12)}/resume")
    expect(row(page, "batches", name)).to_contain_text("active", timeout=LONG)
    assert any('"subscribe"' in frame and '"schedules"' in frame for frame in seen.sent)
    assert len(seen.weights) == before, "only what was asked for before is asked for again"


def test_batches_are_evened_out_after_a_look_at_what_would_move(visit: Visitor, site: Site) -> None:
    businesses = follow(site, "hooli", 9, hours=5)
    line = {"platform": "google", "type": "reviews", "hours": 5}
    first = batch_id(site, **line)
    there = [one["businessId"] for one in site.call("GET", f"/admin/schedules/{first}/businesses")["businesses"]]
    assert len(there) == 5 and len(businesses) == 9
    for business in there[:3]:
        site.call("DELETE", f"/api/google/profile/{business}")
    page = admin(visit(), f"/schedules?schedule={first}")
    dialog = page.get_by_role("dialog")
    drawer(page).get_by_role("button", name="Rebalance…").click()
    expect(dialog).to_contain_text("1 from batch 1 to 0", timeout=LONG)
    assert site.call("GET", f"/admin/schedules/{first}/businesses")["schedule"]["businesses"] == 2, "it was only shown"
    pressed(page, "Move 1 business")
    told(page, "Rebalanced 1 schedule: 1 business moved")
    expect(drawer(page)).to_contain_text("3 of 5 businesses", timeout=LONG)
    drawer(page).get_by_role("button", name="Rebalance…").click()
    expect(page.locator("#notices")).to_contain_text("Google reviews, every 5 h: nothing to do", timeout=LONG)
    there = [one["businessId"] for one in site.call("GET", f"/admin/schedules/{first}/businesses")["businesses"]]
    for business in there[:2]:
        site.call("DELETE", f"/api/google/profile/{business}")
    drawer(page).get_by_role("button", name="Consolidate…").click()
    expect(dialog).to_contain_text("sets aside batch", timeout=LONG)
    pressed(page, "Move 1 business")
    told(page, "Consolidated 1 schedule: 1 business moved, 0 batches made, 1 set aside")
    page.get_by_label("State of batches").select_option("aside")
    expect(row(page, "batches", "Google reviews, every 5 h")).to_contain_text("set aside, empty", timeout=LONG)


# --- retries, the trail, checks ---


def test_a_business_that_is_never_found_waits_in_the_retry_queue_and_is_tried_at_once(
    visit: Visitor, site: Site
) -> None:
    lost = next(one for one in site.call("GET", "/api/google/profile/globex")["profiles"] if one["identifier"] == LOST)
    batch = next(one["scheduleId"] for one in lost["placements"] if one["type"] == "reviews")
    page = admin(visit())
    processed(site, site.call("POST", f"/admin/schedules/{batch}/trigger")["runId"])
    retry = row(page, "retries", "globex")
    expect(retry).to_contain_text("waiting", timeout=LONG)
    expect(page.locator("#tiles [data-count=waiting] b")).to_have_text("1", timeout=LONG)
    retry.get_by_role("button", name=re.compile("Retry business")).click()
    expect(page.get_by_role("dialog")).to_contain_text(
        f"Tries business {lost['id']} of globex again at once, Google reviews"
    )
    pressed(page, "Try again")
    told(page, f"Business {lost['id']} is tried again: 1 retry due now")
    expect(row(page, "runs", "retry")).to_contain_text(f"business #{lost['id']}", timeout=LONG)
    expect(retry.locator("td").nth(4)).to_have_text("1", timeout=LONG)
    expect(retry).to_contain_text("waiting", timeout=LONG)
    expect(row(page, "audit", "schedules.retry")).to_be_visible(timeout=LONG)
    retry.get_by_role("button", name=f"#{lost['id']}: details").click()
    expect(drawer(page).get_by_role("heading", name="Lost and gone")).to_be_visible(timeout=LONG)
    expect(drawer(page).get_by_role("button", name="Fetch again…")).to_be_visible()


def test_a_run_that_fails_says_why(visit: Visitor, site: Site, provider: Scraping) -> None:
    provider.outcomes({"status": "FAILED", "message": "the site has a new door"})
    batch = batch_id(site, platform="booking", type="reviews", hours=6)
    page = admin(visit())
    run = site.call("POST", f"/admin/schedules/{batch}/trigger")["runId"]
    expect(row(page, "runs", f"#{run}", "Booking reviews")).to_contain_text("failed", timeout=LONG)
    page.get_by_role("button", name=f"Run {run}: details").first.click()
    expect(drawer(page).locator(".status").first).to_have_text("failed")
    processed(site, run)
    expect(drawer(page).locator(".job-error")).to_be_visible(timeout=LONG)
    page.get_by_label("State of runs").first.select_option("failed")
    expect(page.locator("#runs tbody tr")).to_have_count(1, timeout=LONG)


def test_the_trail_is_narrowed_to_an_action_and_names_who_did_it(visit: Visitor, site: Site) -> None:
    page = admin(visit())
    page.get_by_label("Action of audit trail").select_option("schedules.import")
    expect(row(page, "audit", "sample")).to_contain_text("admin", timeout=LONG)
    actions = page.locator("#audit tbody td:nth-child(4)")
    expect(actions.filter(has_not_text="schedules.import")).to_have_count(0, timeout=LONG)
    assert "audit.action=schedules.import" in page.url


def test_everything_is_checked_and_each_check_says_what_it_means(visit: Visitor) -> None:
    page = admin(visit())
    page.get_by_role("button", name="Check everything").click()
    expect(drawer(page)).to_contain_text(re.compile(r"all \d+ checks hold"), timeout=LONG)
    expect(drawer(page)).to_contain_text("coverage")
    expect(drawer(page)).to_contain_text("batchcast schedules validate")


# --- trouble, keyboard, looks ---


def test_what_the_server_refuses_stays_in_the_dialog_in_its_words(visit: Visitor, site: Site) -> None:
    business = follow(site, "tyrell", 1, hours=4)[0]
    batch = batch_id(site, platform="google", type="reviews", hours=4)
    seen = visit()
    page = admin(seen, f"/schedules?schedule={batch}")
    drawer(page).get_by_role("button", name="Run now…").click()
    site.call("DELETE", f"/api/google/profile/{business}")
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Run it").click()
    expect(dialog.get_by_role("alert")).to_contain_text("business", timeout=LONG)
    expect(dialog.get_by_role("button", name="Run it")).to_be_enabled()
    seen.problems[:] = [problem for problem in seen.problems if "409" not in problem]


def test_a_lost_server_leaves_everything_in_its_place_and_the_page_comes_back(visit: Visitor, site: Site) -> None:
    seen = visit()
    page = admin(seen)
    page.locator("#batches").get_by_role("button", name=BATCH, exact=True).click()
    expect(drawer(page)).to_contain_text("5 of 5 businesses", timeout=LONG)
    rows, address = page.locator("#batches tbody tr").count(), page.url
    site.stop()
    expect(page.locator("#connection")).to_contain_text(re.compile(r"Lost since \d\d:\d\d"), timeout=LONG)
    page.get_by_label("Health of batches").select_option("critical")
    expect(page.locator("#batches .table-status")).to_contain_text("can’t be reached", timeout=LONG)
    page.get_by_label("Health of batches").select_option("")
    site.start()
    expect(page.locator("#connection")).to_contain_text("Live", timeout=2 * LONG)
    expect(page.locator("#batches .table-status")).to_be_empty(timeout=LONG)
    expect(page.locator("#batches tbody tr")).to_have_count(rows, timeout=LONG)
    expect(page.locator("#batches tr[aria-current=true]")).to_have_count(1)
    expect(drawer(page)).to_contain_text("5 of 5 businesses")
    assert page.url == address
    followed = [frame for frame in seen.sent if '"subscribe"' in frame and '"schedules"' in frame]
    assert len(followed) == 2, "the topic is followed again on the new connection"
    # The browser itself complains about each attempt while nobody listened; everything else still counts.
    expected = re.compile(r"WebSocket connection to|ERR_|failed: ")
    seen.problems[:] = [problem for problem in seen.problems if not expected.search(problem)]


def test_rows_and_details_work_by_keyboard_alone(visit: Visitor) -> None:
    page = admin(visit())
    link = page.locator("#batches").get_by_role("button", name=BATCH, exact=True)
    link.focus()
    top = link.bounding_box()
    page.keyboard.press("Enter")
    expect(drawer(page).get_by_role("heading", level=2)).to_be_focused()
    moved = link.bounding_box()
    assert top is not None and moved is not None and abs(top["y"] - moved["y"]) < 2, (
        "what was pressed stays in its place"
    )
    page.keyboard.press("Escape")
    expect(drawer(page)).to_be_hidden()
    expect(link).to_be_focused()
    assert "schedule=" not in page.url


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("phone", [False, True], ids=["desktop", "phone"])
def test_names_contrast_and_a_screenshot(visit: Visitor, site: Site, scheme: str, phone: bool) -> None:
    kind = f"{'phone' if phone else 'desktop'}-{scheme}"
    page = admin(visit(scheme=scheme, phone=phone))
    expect(page.locator("#lines .line-types .line")).to_have_count(32, timeout=LONG)
    expect(page.locator("#tiles [data-name=Answers]")).to_be_visible(timeout=LONG)
    expect(page.locator("#audit tbody tr").first).to_be_visible(timeout=LONG)
    page.get_by_role("button", name="Close this notice").click()
    looked_at(page, kind, whole=True)
    page.get_by_role("button", name="Team acme: details").first.click()
    expect(drawer(page).get_by_role("button", name="Acme house 0: details").first).to_be_visible(timeout=LONG)
    looked_at(page, f"team-{kind}")
    drawer(page).get_by_role("button", name="Own interval…").click()
    looked_at(page, f"interval-{kind}")
    page.get_by_role("button", name="Cancel").click()
    drawer(page).get_by_role("button", name="Acme house 0: details").first.click()
    expect(drawer(page).get_by_role("heading", name="Acme house 0")).to_be_visible(timeout=LONG)
    expect(drawer(page).locator(".table-status").first).not_to_have_text("Loading…", timeout=LONG)
    looked_at(page, f"business-{kind}")


def test_the_whole_page_is_small_and_strict(visit: Visitor) -> None:
    seen = visit()
    admin(seen)
    files = [answer for url, answer in seen.weights.items() if "/site/" in url or url.endswith("/schedules")]
    files = [answer for answer in files if answer.status == 200]
    weight = sum(len(gzip.compress(answer.body())) for answer in files)
    assert len(files) > 10 and weight < BUDGET
    policy = seen.weights[f"{seen.site.url}/schedules"].headers["content-security-policy"]
    assert "script-src 'self'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy


def test_the_html_has_no_inline_script_or_style() -> None:
    html = Path(ROOT / "server/handlers/site/schedules.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)", html)
