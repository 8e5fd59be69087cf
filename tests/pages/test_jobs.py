"""The jobs page as a person meets it: a real browser, a real server with its workers, a membership provider on loopback."""

import gzip
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect

from server.edge.secrets import mint
from server.settings import load
from tests.pages.conftest import Visit, Visitor
from tests.pages.looks import CONTRAST, NAMES
from tests.pages.membership import Membership, membership
from tests.pages.site import ROOT, Site

pytestmark = pytest.mark.browser

LONG = 30_000
SHOTS = ROOT / "build" / "screenshots"
ACCOUNT = "biz_2000"
SLOW = 0.25
"""Seconds a page, for imports that are looked at while they run: 20 pages of 100 members."""
FILE = "email,name\nada@example.com,Ada\nno address,Bob\nchidi@example.com,Chidi\nADA@example.com,Ada again\n"


@pytest.fixture(scope="module")
def provider() -> Iterator[Membership]:
    with membership() as double:
        yield double


@pytest.fixture(scope="module")
def site(browser: Browser, provider: Membership) -> Iterator[Site]:
    """A server with one lane, a credential of the admin's and one completed import of 250 members."""
    settings = {"IMPORTS_PROVIDER_URL": provider.url, "IMPORTS_KEY": "k" * 40, "IMPORTS_LANES": "1"}
    site = Site(settings=settings | {"IMPORTS_CALLS_PER_S": "1000", "IMPORTS_CALLS_BURST": "1000"})
    try:
        site.start()
        for account in (ACCOUNT, "biz_250"):
            site.call("POST", "/credentials", {"account": account, "value": "whop_good"})
        site.call("POST", "/imports", {"listName": "Everybody", "account": "biz_250"})
        yield site
    finally:
        site.remove()


@pytest.fixture(autouse=True)
def nothing_under_way(site: Site, provider: Membership) -> Iterator[None]:
    yield
    provider.behave()
    for status in ("processing", "pending", "scheduled"):
        for job in site.call("GET", f"/imports?status={status}")["jobs"]:
            site.call("POST", f"/imports/{job['id']}/cancel")


def sign_in(page: Page, token: str) -> None:
    page.locator("#account").click()
    page.get_by_label("Token", exact=True).fill(token)
    page.get_by_role("dialog").get_by_role("button", name="Sign in").click()


def signed_in(visit: Visit, address: str = "/jobs", token: str | None = None) -> Page:
    page = visit.open(address)
    expect(page.locator("#connection")).to_contain_text("Live", timeout=LONG)
    sign_in(page, token or visit.site.token)
    expect(page.locator("#signed-in")).to_be_visible(timeout=LONG)
    expect(page.locator("#jobs tbody tr, #jobs .table-empty, #jobs.table-empty").first).to_be_attached(timeout=LONG)
    return page


def token_of(site: Site, sub: str) -> str:
    return mint(load({"DATA_DIR": str(site.data_dir)}), sub=sub)


def row(page: Page, *words: str) -> Locator:
    rows = page.locator("#jobs tbody tr")
    for word in words:
        rows = rows.filter(has_text=word)
    return rows.first


def drawer(page: Page) -> Locator:
    return page.locator("#drawer")


def new_list(page: Page, name: str, account: str = ACCOUNT) -> None:
    """Through the form, from an account."""
    page.locator("#new-list").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name of the list").fill(name)
    dialog.locator("[name=account]").select_option(label=f"whop · {account}")
    dialog.get_by_role("button", name="Queue the import").click()
    expect(dialog).to_have_count(0, timeout=LONG)


def test_without_a_token_the_page_says_how_to_get_in_and_asks_for_nothing(visit: Visitor) -> None:
    seen = visit()
    page = seen.open("/jobs")
    expect(page.locator("#connection")).to_contain_text("Live", timeout=LONG)
    expect(page.locator("#gate")).to_contain_text("Sign in to see your jobs")
    expect(page.locator("#signed-in")).to_be_hidden()
    assert not [url for url in seen.weights if re.search("/(imports|audiences|credentials)", url)]
    page.get_by_role("button", name="Sign in with a token").click()
    expect(page.get_by_label("Token", exact=True)).to_be_focused()


def test_a_list_is_made_from_a_credential_and_its_progress_is_followed_to_the_contacts(
    visit: Visitor, provider: Membership, tmp_path: Path
) -> None:
    page = signed_in(visit())
    provider.behave(delay_s=SLOW)
    new_list(page, "Spring newsletter")
    expect(page.locator("#notices")).to_contain_text(re.compile(r"Queued import \d+ from whop · biz_2000. Audit \d+"))
    job = row(page, "Spring newsletter")
    expect(job).to_contain_text("working", timeout=LONG)
    expect(job).to_contain_text(re.compile(r"\d+ % · [\d.,]+ members/s · .* left"), timeout=LONG)
    job.get_by_role("button", name="details").click()
    expect(drawer(page)).to_contain_text("Priority")
    provider.behave()
    expect(drawer(page).locator(".status")).to_have_text("completed", timeout=LONG)
    expect(page.locator("#notices")).to_contain_text("is complete", timeout=LONG)
    expect(drawer(page).locator("[data-name='Read'] dd")).to_contain_text("2,000")
    drawer(page).get_by_role("button", name="Spring newsletter").click()
    expect(drawer(page).locator("tbody tr")).to_have_count(100, timeout=LONG)
    drawer(page).get_by_role("button", name="More", exact=True).click()
    expect(drawer(page).locator("tbody tr")).to_have_count(200, timeout=LONG)
    with page.expect_download() as saved:
        drawer(page).get_by_role("button", name="Export CSV").click()
    saved.value.save_as(tmp_path / "list.csv")
    lines = (tmp_path / "list.csv").read_text().splitlines()
    assert lines[0].startswith("email,") and len(lines) > 1000


def test_contacts_are_searched_on_the_server_and_a_link_shows_the_same(visit: Visitor) -> None:
    seen = visit()
    page = signed_in(seen)
    page.locator("#lists").get_by_role("button", name="Everybody").click()
    expect(drawer(page).locator("tbody tr")).to_have_count(100, timeout=LONG)
    email = drawer(page).locator("tbody td").first.inner_text()
    drawer(page).get_by_role("searchbox").fill(email)
    expect(drawer(page).locator("tbody tr")).to_have_count(1, timeout=LONG)
    assert "list=" in page.url and "contacts.filter=" in page.url
    page.reload()
    expect(drawer(page).locator("tbody tr")).to_have_count(1, timeout=LONG)
    expect(drawer(page).locator("tbody td").first).to_have_text(email)
    page.keyboard.press("Escape")
    expect(drawer(page)).to_be_hidden()
    assert "list=" not in page.url and "contacts" not in page.url


def test_a_file_is_imported_and_its_rejected_rows_are_told(visit: Visitor) -> None:
    page = signed_in(visit())
    page.locator("#new-list").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name of the list").fill("From a file")
    dialog.get_by_label("a file of mine").check()
    dialog.locator("input[type=file]").set_input_files(
        {"name": "members.csv", "mimeType": "text/csv", "buffer": FILE.encode()}
    )
    dialog.get_by_role("button", name="Queue the import").click()
    expect(row(page, "From a file")).to_contain_text("completed", timeout=LONG)
    expect(row(page, "From a file")).to_contain_text("1 row rejected", timeout=LONG)
    expect(row(page, "From a file")).to_contain_text("members.csv")
    row(page, "From a file").get_by_role("button", name="details").click()
    expect(drawer(page).locator("tbody tr")).to_have_count(1, timeout=LONG)
    expect(drawer(page).locator("tbody tr")).to_contain_text("email")
    expect(drawer(page).locator("[data-name='New in the list'] dd")).to_have_text("2")


def test_the_form_waits_for_the_credentials_it_offers(visit: Visitor) -> None:
    held: list[Route] = []
    seen = visit()
    seen.page.route("**/credentials**", lambda route: held.append(route))
    page = signed_in(seen)
    page.locator("#new-list").click()
    expect(page.locator("#new-list")).to_have_attribute("aria-busy", "true")
    for route in held:
        route.continue_()
    page.unroute("**/credentials**")
    expect(page.get_by_role("dialog").locator("[name=account] option").first).to_be_attached(timeout=LONG)


def test_a_file_of_another_kind_is_refused_before_it_is_sent(visit: Visitor) -> None:
    seen = visit()
    page = signed_in(seen)
    page.locator("#new-list").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name of the list").fill("Picture")
    dialog.get_by_label("a file of mine").check()
    dialog.locator("input[type=file]").set_input_files({"name": "cat.png", "mimeType": "image/png", "buffer": b"PNG"})
    dialog.get_by_role("button", name="Queue the import").click()
    expect(dialog.get_by_role("alert")).to_contain_text("cat.png is neither")


def test_an_import_is_cancelled_requeued_and_given_another_priority(visit: Visitor, provider: Membership) -> None:
    page = signed_in(visit())
    provider.behave(delay_s=SLOW)
    new_list(page, "First")
    expect(row(page, "First")).to_contain_text("working", timeout=LONG)
    new_list(page, "Second")
    row(page, "Second").get_by_role("button", name="details").click()
    panel, dialog = drawer(page), page.get_by_role("dialog")
    panel.get_by_role("button", name="Priority…").click()
    expect(dialog).to_contain_text("has priority 5")
    dialog.get_by_label("New priority").select_option("9")
    dialog.get_by_role("button", name="Change").click()
    expect(page.locator("#notices")).to_contain_text(re.compile(r"has priority 9 now. Audit \d+"), timeout=LONG)
    expect(panel.locator("[data-name=Priority]")).to_contain_text("9 of 9")
    row(page, "First").get_by_role("button", name="details").click()
    panel.get_by_role("button", name="Cancel…").click()
    expect(dialog).to_contain_text("Stops the import from whop · biz_2000 into “First”")
    dialog.get_by_role("button", name="Cancel the import").click()
    expect(page.locator("#notices")).to_contain_text(re.compile(r"Cancelled import \d+. Audit \d+"), timeout=LONG)
    expect(panel.locator(".status")).to_have_text("cancelled", timeout=LONG)
    panel.get_by_role("button", name="Requeue…").click()
    dialog.get_by_role("button", name="Requeue", exact=True).click()
    expect(page.locator("#notices")).to_contain_text(re.compile(r"waits again. Audit \d+"), timeout=LONG)
    expect(panel.locator(".status")).to_have_text(re.compile("waiting|working"), timeout=LONG)


def test_an_import_that_fails_says_why_in_the_row_and_in_the_details(visit: Visitor, site: Site) -> None:
    site.call("POST", "/credentials", {"account": "biz_9", "value": "whop_forbidden"})
    page = signed_in(visit())
    new_list(page, "Forbidden", "biz_9")
    expect(row(page, "Forbidden")).to_contain_text("failed", timeout=LONG)
    row(page, "Forbidden").get_by_role("button", name="details").click()
    expect(drawer(page).locator(".job-error")).to_contain_text("403", timeout=LONG)
    expect(row(page, "Forbidden").locator(".error-line")).to_have_attribute("title", re.compile("403"))
    expect(drawer(page).get_by_role("button", name="Requeue…")).to_be_enabled()
    expect(drawer(page).get_by_role("button", name="Cancel…")).to_have_count(0)


def test_a_form_pressed_twice_queues_once_and_the_list_can_be_deleted(visit: Visitor, site: Site) -> None:
    page = signed_in(visit())
    page.locator("#new-list").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name of the list").fill("Twice")
    dialog.get_by_role("button", name="Queue the import").dblclick()
    expect(row(page, "Twice")).to_contain_text("completed", timeout=LONG)
    assert [audience["name"] for audience in site.call("GET", "/audiences")["audiences"]].count("Twice") == 1
    page.locator("#lists").get_by_role("button", name="Twice").click()
    drawer(page).get_by_role("button", name="Delete…").click()
    expect(dialog).to_contain_text("with all its contacts, for everybody")
    dialog.get_by_role("button", name="Delete the list").click()
    expect(page.locator("#notices")).to_contain_text(re.compile(r"Deleted the list “Twice”. Audit \d+"), timeout=LONG)
    expect(drawer(page)).to_be_hidden()
    expect(page.locator("#lists").get_by_role("button", name="Twice")).to_have_count(0, timeout=LONG)
    expect(page.locator("#jobs tbody tr").first).to_contain_text("deleted list", timeout=LONG)


def test_what_the_server_refuses_stays_in_the_dialog_in_its_words(visit: Visitor, site: Site) -> None:
    seen = visit()
    page = signed_in(seen)
    page.locator("#new-credential").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Account").fill(ACCOUNT)
    dialog.get_by_label("API key").fill("whop_good")
    dialog.get_by_role("button", name="Add", exact=True).click()
    expect(dialog.get_by_role("alert")).to_contain_text(ACCOUNT, timeout=LONG)
    expect(dialog.get_by_role("button", name="Add", exact=True)).to_be_enabled()
    seen.problems[:] = [problem for problem in seen.problems if "409" not in problem]


def test_a_credential_is_checked_rotated_and_removed(visit: Visitor) -> None:
    page = signed_in(visit())
    page.locator("#new-credential").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Account").fill("biz_40")
    dialog.get_by_label("API key").fill("whop_wrong")
    dialog.get_by_role("button", name="Add", exact=True).click()
    mine = page.locator("#credentials tbody tr").filter(has_text="biz_40")
    mine.get_by_role("button", name="Check").click()
    expect(page.locator(".notice-error")).to_contain_text("biz_40:", timeout=LONG)
    page.get_by_role("button", name="Close this notice").last.click()
    mine.get_by_role("button", name="Rotate").click()
    dialog.get_by_label("API key").fill("whop_good")
    dialog.get_by_role("button", name="Rotate").click()
    expect(page.locator("#notices")).to_contain_text("Rotated the credential of biz_40", timeout=LONG)
    mine.get_by_role("button", name="Check").click()
    expect(page.locator("#notices")).to_contain_text(re.compile(r"biz_40: .*valid.*Audit \d+"), timeout=LONG)
    mine.get_by_role("button", name="Remove").click()
    dialog.get_by_role("button", name="Remove").click()
    expect(mine).to_have_count(0, timeout=LONG)


def test_a_person_sees_only_what_is_theirs_and_no_queue(visit: Visitor, site: Site) -> None:
    page = signed_in(visit(), token=token_of(site, "ada"))
    expect(page.locator("#account")).to_contain_text("ada")
    expect(page.locator("#jobs .table-status")).to_contain_text("No imports yet", timeout=LONG)
    expect(page.locator("#lists .table-status")).to_contain_text("No lists yet")
    expect(page.locator("#tiles")).to_be_hidden()
    expect(page.locator("#workers-panel")).to_be_hidden()
    page.locator("#new-list").click()
    expect(page.locator("[name=priority] option")).to_have_count(6, timeout=LONG)


def test_an_owner_follows_their_own_import_without_being_admin(
    visit: Visitor, site: Site, provider: Membership
) -> None:
    seen = visit()
    page = signed_in(seen, token=token_of(site, "grace"))
    page.locator("#new-credential").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Account").fill(ACCOUNT)
    dialog.get_by_label("API key").fill("whop_good")
    dialog.get_by_role("button", name="Add", exact=True).click()
    expect(page.locator("#credentials tbody tr")).to_have_count(1, timeout=LONG)
    provider.behave(delay_s=SLOW)
    new_list(page, "Grace’s")
    expect(row(page, "Grace’s")).to_contain_text(re.compile(r"\d+ % ·"), timeout=LONG)
    assert any('"subscribe"' in frame and '"job:' in frame for frame in seen.sent)
    page.locator("#account").click()
    page.get_by_role("dialog").get_by_role("button", name="Sign out").click()
    expect(page.locator("#gate")).to_be_visible(timeout=LONG)
    assert page.locator("#jobs tr").count() == 0
    assert page.evaluate("() => sessionStorage.length") == 0


def test_an_admin_sees_the_queue_the_workers_and_what_each_credential_has_left(visit: Visitor) -> None:
    page = signed_in(visit())
    expect(row(page, "Everybody")).to_contain_text("completed", timeout=LONG)
    expect(page.locator("#tiles")).to_contain_text("Queue")
    expect(page.locator(".count[data-status=completed] b")).not_to_have_text(re.compile("^[–0]$"), timeout=LONG)
    expect(page.locator("#tiles [data-name=Members] dd")).not_to_have_text(re.compile("^[–0]$"), timeout=LONG)
    expect(page.locator("#workers tbody tr").first).to_contain_text("active", timeout=LONG)
    expect(page.locator("#workers tbody tr").first).to_contain_text(re.compile("(ms|s) ago"))
    expect(page.locator("#credentials tbody tr").filter(has_text="biz_250")).to_contain_text(
        re.compile(r"\d+ left"), timeout=LONG
    )


def test_status_words_and_order_are_kept_in_the_address(visit: Visitor) -> None:
    page = signed_in(visit())
    expect(row(page, "Everybody")).to_be_visible(timeout=LONG)
    page.get_by_label("Status of imports").select_option("completed")
    page.get_by_role("button", name="Contacts", exact=True).click()
    expect(page.locator("#jobs th[aria-sort]")).to_contain_text("Contacts ↓")
    page.reload()
    expect(page.locator("#jobs th[aria-sort]")).to_contain_text("Contacts ↓", timeout=LONG)
    expect(page.get_by_label("Status of imports")).to_have_value("completed")
    expect(page.locator("#jobs .status").filter(has_not_text="completed")).to_have_count(0, timeout=LONG)
    page.get_by_label("Status of imports").select_option("scheduled")
    expect(page.locator("#jobs .table-status")).to_contain_text("Nothing matches", timeout=LONG)
    page.get_by_role("button", name="Clear the filter").click()
    expect(row(page, "Everybody")).to_be_visible(timeout=LONG)
    assert "status" not in page.url


def test_a_table_is_copied_as_csv(visit: Visitor) -> None:
    page = signed_in(visit())
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    expect(row(page, "Everybody")).to_be_visible(timeout=LONG)
    page.locator("#jobs").get_by_role("button", name="Copy as CSV").click()
    expect(page.locator("#notices")).to_contain_text("Copied", timeout=LONG)
    lines = page.evaluate("() => navigator.clipboard.readText()").splitlines()
    assert lines[0].startswith("Import,Status,List,Progress") and any("Everybody" in line for line in lines)


def test_a_lost_server_leaves_everything_in_its_place_and_the_page_comes_back(visit: Visitor, site: Site) -> None:
    seen = visit()
    page = signed_in(seen)
    row(page, "Everybody").get_by_role("button", name="details").click()
    expect(drawer(page)).to_contain_text("Members")
    rows, address = page.locator("#jobs tbody tr").count(), page.url
    site.stop()
    expect(page.locator("#connection")).to_contain_text(re.compile(r"Lost since \d\d:\d\d"), timeout=LONG)
    page.get_by_label("Status of imports").select_option("failed")
    expect(page.locator("#jobs .table-status")).to_contain_text("can’t be reached", timeout=LONG)
    page.get_by_label("Status of imports").select_option("")
    site.start()
    expect(page.locator("#connection")).to_contain_text("Live", timeout=2 * LONG)
    expect(page.locator("#jobs tbody tr")).to_have_count(rows, timeout=LONG)
    expect(page.locator("#jobs .table-status")).to_be_empty(timeout=LONG)
    expect(page.locator("#jobs tr[aria-current=true]")).to_have_count(1)
    assert page.url == address
    followed = [frame for frame in seen.sent if '"subscribe"' in frame and '"imports"' in frame]
    assert len(followed) == 2, "the topic is followed again on the new connection"
    # The browser itself complains about each attempt while nobody listened; everything else still counts.
    expected = re.compile(r"WebSocket connection to|ERR_|failed: ")
    seen.problems[:] = [problem for problem in seen.problems if not expected.search(problem)]


def test_rows_and_details_work_by_keyboard_alone(visit: Visitor) -> None:
    page = signed_in(visit())
    link = row(page, "Everybody").get_by_role("button", name="details")
    link.focus()
    page.keyboard.press("Enter")
    expect(drawer(page).get_by_role("heading", level=2)).to_be_focused()
    page.keyboard.press("Escape")
    expect(drawer(page)).to_be_hidden()
    expect(link).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("phone", [False, True], ids=["desktop", "phone"])
def test_names_contrast_and_a_screenshot(
    visit: Visitor, site: Site, provider: Membership, scheme: str, phone: bool
) -> None:
    provider.behave(delay_s=SLOW)
    site.call("POST", "/imports", {"listName": f"Members in {scheme}", "account": ACCOUNT})
    page = signed_in(visit(scheme=scheme, phone=phone))
    expect(row(page, f"Members in {scheme}", "working")).to_contain_text(re.compile(r"\d+ %"), timeout=LONG)
    SHOTS.mkdir(parents=True, exist_ok=True)
    name = f"{'phone' if phone else 'desktop'}-{scheme}"
    assert page.evaluate(NAMES) == []
    assert page.evaluate(CONTRAST) == []
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    page.get_by_role("button", name="Close this notice").click()
    page.screenshot(path=SHOTS / f"jobs-{name}.png", full_page=True)
    page.locator("#lists").get_by_role("button", name="Everybody").click()
    expect(drawer(page).locator("tbody tr")).to_have_count(100, timeout=LONG)
    assert page.evaluate(NAMES) == []
    assert page.evaluate(CONTRAST) == []
    page.evaluate("() => Promise.all(document.getAnimations().map((animation) => animation.finished))")
    page.screenshot(path=SHOTS / f"jobs-list-{name}.png")


def test_the_whole_page_is_small_and_strict(visit: Visitor) -> None:
    seen = visit()
    page = signed_in(seen)
    expect(row(page, "Everybody")).to_be_visible(timeout=LONG)
    files = [answer for url, answer in seen.weights.items() if "/site/" in url or url.endswith("/jobs")]
    weight = sum(len(gzip.compress(answer.body())) for answer in files if answer.status == 200)
    assert weight < 64 * 1024
    policy = seen.weights[f"{seen.site.url}/jobs"].headers["content-security-policy"]
    assert "script-src 'self'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy


def test_the_html_has_no_inline_script_or_style() -> None:
    html = Path(ROOT / "server/handlers/site/jobs.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)", html)
