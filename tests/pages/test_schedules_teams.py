"""The schedules page and teams: what a team's own token shows, and what an administrator changes about a team."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, FilePayload, expect

from tests.pages.conftest import Visitor
from tests.pages.person import LONG, drawer, pressed, row, token_of, told
from tests.pages.schedules import admin, arrived, filled, follow, looked_at
from tests.pages.scraping import Scraping, scraping
from tests.pages.site import Site

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def provider() -> Iterator[Scraping]:
    with scraping() as double:
        yield double


@pytest.fixture(scope="module")
def site(browser: Browser, provider: Scraping) -> Iterator[Site]:
    with filled(provider) as site:
        yield site


# --- who may see what ---


def test_without_a_token_the_page_says_how_to_get_in_and_asks_for_nothing(visit: Visitor) -> None:
    seen = visit()
    page = seen.open("/schedules")
    expect(page.locator("#connection")).to_contain_text("Live", timeout=LONG)
    expect(page.locator("#gate")).to_contain_text("Sign in to see schedules or your businesses")
    expect(page.locator("#admin")).to_be_hidden()
    expect(page.locator("#team")).to_be_hidden()
    assert not [url for url in seen.weights if re.search("/(admin|api)/", url)]
    page.get_by_role("button", name="Sign in with a token").click()
    expect(page.get_by_label("Token", exact=True)).to_be_focused()


def test_a_token_without_a_team_is_told_what_it_lacks(visit: Visitor, site: Site) -> None:
    page = arrived(visit(), token_of(site, "nobody in particular"))
    expect(page.locator("#no-team")).to_contain_text("speaks for no team", timeout=LONG)
    expect(page.locator("#admin")).to_be_hidden()
    expect(page.locator("#team")).to_be_hidden()


def test_a_teams_token_sees_its_own_businesses_and_nothing_of_the_schedules(visit: Visitor, site: Site) -> None:
    seen = visit()
    page = arrived(seen, token_of(site, "ada", "initech"))
    expect(page.locator("#businesses-title")).to_have_text("Businesses of initech", timeout=LONG)
    expect(page.locator("#businesses tbody tr")).to_have_count(5, timeout=LONG)
    expect(row(page, "businesses", "Initech house 1")).to_contain_text("every 24 h, in")
    expect(page.locator("#admin")).to_be_hidden()
    expect(page.locator("#admin-actions")).to_be_hidden()
    page.get_by_label("Platform of businesses").select_option("booking")
    expect(page.locator("#businesses tbody tr")).to_have_count(1, timeout=LONG)
    assert not [url for url in seen.weights if "/admin/" in url]
    assert not [frame for frame in seen.sent if '"subscribe"' in frame]
    page.locator("#account").click()
    page.get_by_role("dialog").get_by_role("button", name="Sign out").click()
    expect(page.locator("#gate")).to_be_visible(timeout=LONG)
    assert page.locator("#businesses tr").count() == 0
    assert page.evaluate("() => sessionStorage.length") == 0


def test_a_link_to_another_teams_business_shows_a_team_nothing(visit: Visitor, site: Site) -> None:
    theirs = site.call("GET", "/api/google/profile/acme")["profiles"][0]
    seen = visit()
    page = arrived(
        seen, token_of(site, "ada", "initech"), f"/schedules?business={theirs['id']}&platform=google&team=acme"
    )
    expect(drawer(page)).to_contain_text(re.compile("initech.* has no business"), timeout=LONG)
    expect(drawer(page)).not_to_contain_text("Acme")
    seen.problems[:] = [problem for problem in seen.problems if "404" not in problem]


def test_a_team_follows_a_business_and_gives_it_up(visit: Visitor, site: Site) -> None:
    seen = visit()
    page = arrived(seen, token_of(site, "bob", "umbrella"))
    expect(page.locator("#businesses .table-status")).to_contain_text("No business yet", timeout=LONG)
    page.locator("#follow").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Platform").select_option("tripadvisor")
    expect(dialog).to_contain_text("https://www.tripadvisor.com/")
    dialog.get_by_label("Known there as").fill("not an address")
    dialog.get_by_label("Name").fill("Umbrella corner")
    dialog.get_by_role("button", name="Follow it").click()
    expect(dialog.get_by_role("alert")).to_contain_text("tripadvisor", timeout=LONG, ignore_case=True)
    dialog.get_by_label("Known there as").fill("https://www.tripadvisor.com/Hotel_Review-g1-d77-Reviews-x.html")
    pressed(page, "Follow it")
    told(page, "Following “Umbrella corner” on TripAdvisor")
    row(page, "businesses", "Umbrella corner").get_by_role("button").click()
    expect(drawer(page)).to_contain_text("No rating yet", timeout=LONG)
    expect(drawer(page)).to_contain_text("No review yet")
    expect(drawer(page).get_by_role("button", name="Fetch again…")).to_have_count(0)
    drawer(page).get_by_role("button", name="Stop following…").click()
    expect(dialog).to_contain_text("Follows “Umbrella corner” of umbrella on TripAdvisor no more")
    pressed(page, "Stop following")
    told(page, "followed on TripAdvisor no more; that was its last platform")
    expect(drawer(page)).to_be_hidden()
    expect(page.locator("#businesses .table-status")).to_contain_text("No business yet", timeout=LONG)
    seen.problems[:] = [problem for problem in seen.problems if "422" not in problem]


# --- teams ---


def test_a_team_gets_an_interval_of_its_own_and_gives_it_back(visit: Visitor, site: Site) -> None:
    # A handful of teams needs no search.
    for team in ("arrakis", "caladan", "stark"):
        follow(site, team, 2)
    page = admin(visit())
    page.get_by_label("Search teams").fill("star")
    expect(page.locator("#teams tbody tr")).to_have_count(1, timeout=LONG)
    page.get_by_role("button", name="Team stark: details").first.click()
    expect(drawer(page)).to_contain_text(re.compile("Google reviews every 6 h.*2 businesses", re.S), timeout=LONG)
    drawer(page).get_by_role("button", name="Own interval…").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Hours").fill("3")
    dialog.get_by_label("overview").uncheck()
    expect(dialog).to_contain_text(
        "Moves to every 3 h: Google reviews (2, now every 6 h). It holds until it is removed."
    )
    dialog.get_by_label("Reason").fill("opening week")
    dialog.get_by_label("Runs out").fill(page.evaluate("() => new Date(Date.now() + 9e8).toISOString().slice(0, 16)"))
    expect(dialog).to_contain_text("then back to the tier’s")
    pressed(page, "Set the interval")
    told(page, "stark is asked every 3 h now: 2 placements moved")
    expect(drawer(page)).to_contain_text(re.compile("Google reviews every 3 h own interval, runs out in"), timeout=LONG)
    expect(row(page, "expiring", "stark", "Google reviews")).to_contain_text("opening week", timeout=LONG)
    expect(page.locator('[data-line="google reviews 3"]')).to_contain_text("2 of 5", timeout=LONG)
    drawer(page).get_by_role("button", name="Take away the own interval for Google reviews").click()
    expect(dialog).to_contain_text("go back to every 6 h, as the tier enterprise has it")
    pressed(page, "Take it away")
    told(page, "stark, Google reviews: back to every 6 h, 2 placements moved")
    expect(drawer(page).locator("table", has_text="own intervals of stark over time")).to_contain_text(
        "removed", timeout=LONG
    )


def test_a_tier_moves_the_team_and_only_enterprise_has_intervals_of_its_own(visit: Visitor, site: Site) -> None:
    follow(site, "wayne", 2, tier="starter")
    page = admin(visit(), "/schedules?team=wayne")
    expect(drawer(page)).to_contain_text("Only enterprise teams may have intervals of their own", timeout=LONG)
    expect(drawer(page).get_by_role("button", name="Own interval…")).to_be_disabled()
    drawer(page).get_by_role("button", name="Change the tier…").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Change the tier").click()
    expect(dialog.get_by_role("alert")).to_contain_text("wayne is starter already")
    dialog.get_by_label("enterprise").check()
    expect(dialog).to_contain_text("Moves the 2 businesses of wayne to the batches of enterprise")
    pressed(page, "Change the tier")
    told(page, "wayne is enterprise now, was starter: 4 placements moved")
    expect(drawer(page).get_by_role("button", name="Own interval…")).to_be_enabled(timeout=LONG)
    expect(drawer(page)).to_contain_text(re.compile("Google reviews every 6 h"))
    expect(drawer(page)).to_contain_text("schedules.tier", timeout=LONG)


def test_a_file_of_businesses_goes_in_and_its_bad_rows_are_told(visit: Visitor) -> None:
    page = admin(visit())
    text = "team,tier,name,google\nsoylent,starter,Green,ChIJ_soylent_0000\n,starter,Nobody’s,ChIJ_soylent_0001\n"
    dialog = page.get_by_role("dialog")
    for words in ("1 placed, 0 known before", "0 placed, 1 known before"):
        page.locator("#import").click()
        file: FilePayload = {"name": "soylent.csv", "mimeType": "text/csv", "buffer": text.encode()}
        dialog.locator("input[type=file]").set_input_files(file)
        dialog.get_by_role("button", name="Import", exact=True).click()
        told(page, f"Imported soylent.csv: 2 rows, {words}, 1 refused")
        expect(dialog).to_contain_text("1 of 2 rows of soylent.csv did not go in", timeout=LONG)
        expect(dialog.locator("tbody tr")).to_contain_text("team")
        dialog.get_by_role("button", name="Close", exact=True).click()
    expect(row(page, "teams", "soylent")).to_contain_text("starter", timeout=LONG)
    page.locator("#import").click()
    dialog.locator("input[type=file]").set_input_files({"name": "cat.png", "mimeType": "image/png", "buffer": b"PNG"})
    dialog.get_by_role("button", name="Import", exact=True).click()
    expect(dialog.get_by_role("alert")).to_contain_text("cat.png is neither")


@pytest.mark.parametrize("phone", [False, True], ids=["desktop", "phone"])
def test_a_teams_own_page_in_a_screenshot(visit: Visitor, site: Site, phone: bool) -> None:
    page = arrived(visit(phone=phone), token_of(site, "ada", "acme"))
    expect(page.locator("#businesses tbody tr").first).to_be_visible(timeout=LONG)
    page.get_by_role("button", name="Close this notice").click()
    looked_at(page, f"own-{'phone' if phone else 'desktop'}", whole=True)
