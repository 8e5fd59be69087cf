"""The tracking page as a creator meets it: the own posts, what they earn, payouts, and nothing of anybody else's."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.pages.conftest import Visitor
from tests.pages.person import LONG, drawer, pressed, row, told
from tests.pages.site import Site
from tests.pages.tracking import SPRING, creator, filled, forgive, looked_at
from tests.pages.viewing import Viewing, campaign, payable, ran, submitted, viewing, youtube

pytestmark = pytest.mark.browser

ADMINS = re.compile(r"/tracking/(held|runs|health|stats|plan|failed|verification)|creator=")


@pytest.fixture(scope="module")
def double() -> Iterator[Viewing]:
    with viewing() as double:
        yield double


@pytest.fixture(scope="module")
def site(browser: Browser, double: Viewing) -> Iterator[Site]:
    with filled(double) as site:
        yield site


def test_without_a_token_the_page_says_how_to_get_in_and_asks_for_nothing(visit: Visitor) -> None:
    seen = visit()
    page = seen.open("/tracking")
    expect(page.locator("#connection")).to_contain_text("Live", timeout=LONG)
    expect(page.locator("#gate")).to_contain_text("Sign in to see your posts and what they earn")
    expect(page.locator("#admin")).to_be_hidden()
    expect(page.locator("#creator")).to_be_hidden()
    assert not [url for url in seen.weights if "/tracking/" in url]
    page.get_by_role("button", name="Sign in with a token").click()
    expect(page.get_by_label("Token", exact=True)).to_be_focused()


def test_a_creator_sees_its_own_and_nothing_of_anybody_elses(visit: Visitor, site: Site) -> None:
    seen = visit()
    page = creator(seen, "linus")
    expect(page.locator("#posts tbody tr")).to_have_count(3, timeout=LONG)
    expect(row(page, "posts", "TikTok …90123456")).to_contain_text("15,500", timeout=LONG)
    expect(page.locator("#posts")).not_to_contain_text("steady00001")
    expect(page.locator("#admin")).to_be_hidden()
    expect(page.locator("#admin-actions")).to_be_hidden()
    expect(page.locator("#open-campaigns")).not_to_contain_text("left")
    assert not [url for url in seen.weights if ADMINS.search(url)], "nothing is asked that would be refused"
    assert not [frame for frame in seen.sent if '"subscribe"' in frame]
    page.locator("#account").click()
    page.get_by_role("dialog").get_by_role("button", name="Sign out").click()
    expect(page.locator("#gate")).to_be_visible(timeout=LONG)
    assert page.locator("#posts tr").count() == 0
    assert page.evaluate("() => sessionStorage.length") == 0


def test_a_link_to_another_creators_post_shows_nothing(visit: Visitor, site: Site) -> None:
    theirs = site.call("GET", "/tracking/submissions?creator=ada")["submissions"][0]["id"]
    seen = visit()
    page = creator(seen, "linus", f"/tracking?submission={theirs}")
    expect(drawer(page)).to_contain_text("or none that you may see", timeout=LONG)
    forgive(seen, "404")


def test_a_post_is_submitted_from_an_empty_page_and_earns(visit: Visitor, site: Site, double: Viewing) -> None:
    where = campaign(site, "For newcomers", baseline="zero", rateCents=200)
    seen = visit()
    page = creator(seen, "newcomer")
    expect(page.locator("#posts .table-status")).to_contain_text("You have not submitted a post yet", timeout=LONG)
    expect(page.locator("#own-payouts .table-status")).to_contain_text("You have not asked for a payout yet")
    row(page, "open-campaigns", "For newcomers").get_by_role("button", name="Submit a post to For newcomers").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Campaign")).to_have_value(str(where["id"]))
    expect(dialog).to_contain_text("it earns for all views")
    expect(dialog.get_by_label("Creator")).to_have_count(0)
    dialog.get_by_label("Address of the post").fill("https://www.tiktok.com/@newcomer")
    dialog.get_by_role("button", name="Submit it").click()
    expect(dialog.get_by_role("alert")).to_contain_text("tiktok.com/@name/video/", timeout=LONG)
    dialog.get_by_label("Address of the post").fill("https://youtu.be/newcomer001")
    dialog.get_by_role("button", name="Submit it").dblclick()
    told(page, "Submitted YouTube newcomer001 to “For newcomers”")
    expect(row(page, "posts", "newcomer001")).to_contain_text("to decide", timeout=LONG)
    page.locator("#submit-post").click()
    dialog.get_by_label("Campaign").select_option(str(where["id"]))
    dialog.get_by_label("Address of the post").fill("https://youtu.be/newcomer001")
    dialog.get_by_role("button", name="Submit it").click()
    expect(dialog.get_by_role("alert")).to_contain_text("submitted to the campaign", timeout=LONG)
    dialog.get_by_role("button", name="Cancel").click()
    double.seen(newcomer001=12_345)
    post = site.call("GET", "/tracking/submissions?creator=newcomer")["submissions"][0]["id"]
    site.call("POST", f"/tracking/submissions/{post}/approve")
    ran(site)
    # Nobody tells a creator: the page asks again by itself.
    expect(row(page, "posts", "newcomer001")).to_contain_text(re.compile(r"approved.*12,345.*\$24.69"), timeout=LONG)
    expect(page.locator("#balance .tile").nth(1)).to_contain_text("$24.69", timeout=LONG)
    expect(row(page, "ledger", "$24.69")).to_be_visible(timeout=LONG)
    row(page, "posts", "newcomer001").get_by_role("button").click()
    expect(drawer(page).locator(".pace-figure")).to_have_text("12,345 views", timeout=LONG)
    expect(drawer(page).get_by_role("button", name=re.compile("Approve|Reject"))).to_have_count(0)
    expect(drawer(page).locator("tbody tr").first).to_contain_text("counted", timeout=LONG)
    forgive(seen, "422", "409")


def test_a_payout_is_asked_for_once_there_is_enough(visit: Visitor, site: Site, double: Viewing) -> None:
    payable(site, double, "hedy", "hedysPost01", 1_900)
    seen = visit()
    page = creator(seen, "hedy")
    ask = page.get_by_role("button", name="Request a payout…")
    expect(page.locator("#balance")).to_contain_text("A payout is $20 at least", timeout=LONG)
    expect(ask).to_be_disabled()
    payable(site, double, "hedy", "hedysPost02", 10_000)
    expect(ask).to_be_enabled(timeout=LONG)
    expect(row(page, "notifications", "hedysPost02")).to_be_visible(timeout=LONG)
    ask.click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("$119 at most, $20 at least")
    expect(dialog).to_contain_text("A fee of 2.5 % is usual")
    expect(dialog.get_by_label("Amount in dollars")).to_have_value("119")
    dialog.get_by_label("Amount in dollars").fill("50.25")
    pressed(page, "Request it")
    told(page, r"Asked for \$50.25: request \d+")
    expect(page.locator("#balance")).to_contain_text("One request at a time", timeout=LONG)
    expect(ask).to_be_disabled()
    expect(row(page, "own-payouts", "$50.25")).to_contain_text("to decide", timeout=LONG)
    row(page, "own-payouts", "$50.25").get_by_role("button").click()
    expect(drawer(page)).to_contain_text("set when it is approved", timeout=LONG)
    expect(drawer(page).get_by_role("button", name=re.compile("Approve|Reject"))).to_have_count(0)


def test_what_an_administrator_writes_about_a_post_is_there_to_read(visit: Visitor, site: Site) -> None:
    where = next(one for one in site.call("GET", "/tracking/campaigns")["campaigns"] if one["name"] == SPRING)
    post = submitted(site, where, youtube("lise0000001"), "lise", approve=False)
    site.call("POST", f"/tracking/submissions/{post['id']}/reject", {"note": "the sound is missing"})
    page = creator(visit(), "lise", f"/tracking?submission={post['id']}")
    expect(drawer(page)).to_contain_text("the sound is missing", timeout=LONG)
    expect(drawer(page).locator(".status").first).to_have_text("rejected")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("phone", [False, True], ids=["desktop", "phone"])
def test_names_contrast_and_a_screenshot(visit: Visitor, site: Site, scheme: str, phone: bool) -> None:
    kind = f"{'phone' if phone else 'desktop'}-{scheme}"
    page = creator(visit(scheme=scheme, phone=phone), "ada")
    for place in ("posts", "own-payouts", "ledger", "notifications"):
        expect(page.locator(f"#{place} tbody tr").first).to_be_visible(timeout=LONG)
    page.get_by_role("button", name="Close this notice").click()
    looked_at(page, f"creator-{kind}", whole=True)
    page.locator("#submit-post").click()
    expect(page.get_by_role("dialog")).to_be_visible(timeout=LONG)
    looked_at(page, f"submit-{kind}")
