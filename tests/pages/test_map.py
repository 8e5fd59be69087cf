"""The live map as a person meets it: in a real browser, against a real server with real events."""

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.pages.conftest import Visit, Visitor, restore
from tests.pages.looks import CONTRAST, NAMES
from tests.pages.site import ROOT, SAMPLES, Site

pytestmark = pytest.mark.browser

LONG = 30_000
SHOTS = ROOT / "build" / "screenshots"
HERE = 9
"""How many of the sample events are in the first view."""


def rows(page: Page) -> Locator:
    return page.locator("#ranking li")


def titles(page: Page) -> list[str]:
    return page.locator("#ranking .title").all_inner_texts()


def row(page: Page, title: str) -> Locator:
    return rows(page).filter(has_text=title)


def until(page: Page, fact: Callable[[], object], what: str) -> None:
    """Ask until the fact holds, letting the browser's events in meanwhile."""
    for _ in range(LONG // 50):
        if fact():
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"still not so: {what}")


def settled(visit: Visit, address: str = "/#11/37.77/-122.43") -> Page:
    page = visit.open(address)
    expect(page.locator("#connection")).to_contain_text("Live", timeout=LONG)
    expect(rows(page)).to_have_count(HERE, timeout=LONG)
    return page


def sign_in(page: Page, token: str) -> None:
    page.get_by_role("button", name="Sign in").click()
    page.get_by_label("Token", exact=True).fill(token)
    page.get_by_role("dialog").get_by_role("button", name="Sign in").click()


def test_the_events_in_view_are_listed_best_score_first_and_painted(visit: Visitor) -> None:
    page = settled(visit())
    scores = [float(text) for text in page.locator("#ranking .score").all_inner_texts()]
    assert scores == sorted(scores, reverse=True)
    assert "Beer garden in Berlin" not in titles(page)
    expect(page.locator("#events-count")).to_have_text(str(HERE))
    until(page, lambda: painted(page) > 1000, "the emoji are on the canvas")


def painted(page: Page) -> int:
    """How many pixels of the emoji canvas are not clear."""
    count = page.evaluate(
        """() => {
            const canvas = document.querySelector(".leaflet-overlay-pane canvas");
            const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
            return pixels.filter((part, i) => i % 4 === 3 && part > 128).length;
        }"""
    )
    return int(count)


def test_land_is_drawn_below_the_events(visit: Visitor) -> None:
    page = visit().open("/#3/50/10")
    count = """() => {
        const canvas = document.querySelector(".leaflet-tile-pane canvas");
        const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
        let painted = 0;
        for (let i = 3; i < pixels.length; i += 4) if (pixels[i] > 128) painted++;
        return painted / (pixels.length / 4);
    }"""
    until(page, lambda: 0.2 < page.evaluate(count) < 0.9, "land covers a part of the map")


def test_moving_the_map_sends_the_new_viewport_and_brings_its_events(visit: Visitor) -> None:
    seen = visit()
    page = settled(seen)
    page.evaluate("() => { location.hash = '#11/52.52/13.40' }")
    expect(rows(page)).to_have_count(1, timeout=LONG)
    assert titles(page) == ["Beer garden in Berlin"]
    sent = [json.loads(frame) for frame in seen.sent if '"viewport-update"' in frame]
    assert sent[-1]["viewport"]["west"] < 13.40 < sent[-1]["viewport"]["east"]


def test_a_drag_moves_the_map_and_the_address_keeps_the_place(visit: Visitor) -> None:
    seen = visit()
    page = settled(seen)
    page.mouse.move(720, 700)
    page.mouse.down()
    page.mouse.move(720, 500, steps=8)
    page.mouse.up()
    until(page, lambda: any('"viewport-update"' in frame for frame in seen.sent), "the drag sent a viewport")
    expect(page).not_to_have_url(re.compile(r"37\.7700"))


def test_a_view_across_the_antimeridian_shows_both_sides(visit: Visitor) -> None:
    page = visit().open("/#8/-18.1/180")
    expect(rows(page)).to_have_count(2, timeout=LONG)
    assert set(titles(page)) == {"Concert west of the line", "Salsa east of the line"}


def test_words_and_categories_filter_and_the_address_keeps_them(visit: Visitor) -> None:
    page = settled(visit())
    page.get_by_role("button", name="Filters").first.click()
    page.get_by_role("button", name="music: any").click()
    expect(rows(page)).to_have_count(2, timeout=LONG)
    page.get_by_label("Words").fill("jazz")
    expect(rows(page)).to_have_count(1, timeout=LONG)
    expect(page.locator("#filters-count")).to_have_text("2 on")
    page.reload()
    expect(rows(page)).to_have_count(1, timeout=LONG)
    page.get_by_role("button", name="Clear").click()
    expect(rows(page)).to_have_count(HERE, timeout=LONG)
    assert "only=" not in page.url


def test_a_category_can_be_left_out_and_the_radius_narrows(visit: Visitor) -> None:
    page = settled(visit())
    page.get_by_role("button", name="Filters").first.click()
    page.get_by_role("button", name="music: any").click()
    page.get_by_role("button", name="music: only these").click()
    expect(rows(page)).to_have_count(HERE - 2, timeout=LONG)
    page.get_by_label("Only near the middle of the map").check()
    page.locator("[name=radius]").fill("20")
    expect(page.locator("path.radius")).to_be_attached()
    expect(rows(page)).not_to_have_count(HERE - 2, timeout=LONG)


def test_filters_that_match_nothing_say_so_and_offer_the_way_back(visit: Visitor) -> None:
    page = settled(visit())
    page.get_by_role("button", name="Filters").first.click()
    page.get_by_label("Words").fill("no such thing")
    expect(page.locator("#events-state")).to_contain_text("matches the filters", timeout=LONG)
    page.get_by_role("button", name="Clear the filters").click()
    expect(rows(page)).to_have_count(HERE, timeout=LONG)


def test_an_empty_view_says_how_to_fill_it(visit: Visitor) -> None:
    page = visit().open("/#9/-40/-110")
    state = page.locator("#events-state")
    expect(state).to_contain_text("No events in this view", timeout=LONG)
    expect(state).to_contain_text("batchcast demo")
    expect(state).to_contain_text("POST /events")


def test_a_click_on_an_emoji_explains_its_score(visit: Visitor) -> None:
    page = settled(visit(), "/#13/37.7693/-122.4193")
    box = page.locator("#map").bounding_box()
    assert box is not None
    # The jazz cellar is 0.01 degrees north of the middle of the map: at zoom 13, 73 pixels up.
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2 - 73)
    card = page.locator("#card")
    expect(card.locator("h2")).to_have_text("Jazz cellar", timeout=LONG)
    expect(card.locator(".terms tbody tr")).to_have_count(5, timeout=LONG)
    added = [float(text) for text in card.locator(".terms tbody td:last-child").all_inner_texts()]
    raw = float(card.locator(".terms tfoot td").last.inner_text())
    assert abs(sum(added) - raw) < 0.004
    expect(card).to_contain_text("Rank")
    expect(card.get_by_role("img")).to_have_attribute("aria-label", re.compile("five terms"))


def test_an_event_below_the_cut_is_explained_with_what_it_would_take(visit: Visitor, site: Site) -> None:
    page = settled(visit())
    last = titles(page)[-1]
    row(page, last).click()
    expect(page.locator("#card")).to_contain_text(f"Rank {HERE}", timeout=LONG)
    newer = [
        {"id": f"crowd-{n}", "title": f"Crowd {n}", "start": "2020-01-01T00:00:00Z", "recurrence": "FREQ=DAILY"}
        | {
            "location": {"latitude": 37.70 + n * 0.006, "longitude": -122.30},
            "rsvpCount": 9,
            "saveCount": 9,
            "scanCount": 99,
        }
        for n in range(25)
    ]
    page.get_by_role("button", name="Filters").first.click()
    page.get_by_label("Show at most").select_option("25")
    try:
        site.call("POST", "/events", newer)
        expect(page.locator("#departed")).to_contain_text("outranked", timeout=LONG)
        expect(page.locator("#card")).to_contain_text("not shown", ignore_case=True, timeout=LONG)
        expect(page.locator("#card")).to_contain_text("more raw score", timeout=LONG)
    finally:
        for event in newer:
            site.call("DELETE", f"/events/{event['id']}")


def test_the_list_works_by_keyboard_alone(visit: Visitor) -> None:
    page = settled(visit())
    listbox = page.get_by_role("listbox", name="Events in view, best score first")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the ranked list")).to_be_focused()
    page.keyboard.press("Enter")
    page.locator("#ranking").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator("#card h2")).to_be_focused()
    expect(page.get_by_role("option", selected=True)).to_have_count(1)
    page.keyboard.press("Escape")
    expect(page.locator("#card")).to_be_hidden()
    expect(listbox).to_be_focused()


def test_a_batch_lands_and_one_line_says_what_it_brought(visit: Visitor, site: Site) -> None:
    page = settled(visit())
    expect(page.locator("#countdown")).to_contain_text(re.compile("Next batch in|Batch under way"), timeout=LONG)
    last = titles(page)[-1]
    ids = {title: id_ for id_, _, title, *_ in SAMPLES}
    try:
        site.call("POST", "/popularity", {"eventId": ids[last], "rsvpCount": 3, "saveCount": 5, "scanCount": 10})
        expect(page.locator("#batch-line")).to_contain_text("18 updates in one message", timeout=LONG)
        expect(rows(page).last).not_to_contain_text(last)
        page.get_by_role("button", name="Batches in detail").click()
        expect(page.locator("#history tbody tr").last).to_contain_text("18")
        expect(page.locator("#in-step")).to_contain_text("In step with the server")
    finally:
        restore(site)


def test_an_event_that_is_deleted_leaves_with_its_reason(visit: Visitor, site: Site) -> None:
    page = settled(visit())
    try:
        site.call("DELETE", "/events/yoga")
        expect(rows(page)).to_have_count(HERE - 1, timeout=LONG)
        expect(page.locator("#departed")).to_contain_text("Sunrise yoga")
        expect(page.locator("#departed")).to_contain_text("removed")
    finally:
        restore(site)
    expect(rows(page)).to_have_count(HERE, timeout=LONG)
    expect(page.locator("#departed")).to_be_hidden()


def test_what_events_say_about_themselves_is_shown_as_text(visit: Visitor, site: Site) -> None:
    nasty = '<img src=x onerror=alert(1)> & "quotes"'
    page = settled(visit())
    try:
        site.call("PATCH", "/events/hack", {"title": nasty, "categories": ["<b>tech</b>"]})
        expect(row(page, nasty)).to_have_count(1, timeout=LONG)
        row(page, nasty).click()
        expect(page.locator("#card h2")).to_have_text(nasty)
        assert page.locator("#ranking img, #card img, #categories b").count() == 0
    finally:
        restore(site)


def test_a_wrong_token_is_refused_in_the_servers_words(visit: Visitor) -> None:
    page = settled(visit())
    sign_in(page, "not-a-token")
    expect(page.locator("#token-error")).not_to_be_empty(timeout=LONG)
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_role("button", name="Sign in")).to_be_focused()


def test_an_admin_signs_in_flushes_and_signs_out(visit: Visitor, site: Site) -> None:
    page = settled(visit())
    page.get_by_role("button", name="Batches in detail").click()
    flush = page.get_by_role("button", name="Flush now")
    expect(flush).to_be_disabled()
    sign_in(page, site.token)
    expect(flush).to_be_enabled(timeout=LONG)
    expect(page.locator("#flush-words")).to_contain_text("Publishes")
    flush.click()
    expect(page.locator("#notices")).to_contain_text("Flushed", timeout=LONG)
    page.reload()
    expect(page.locator("#account")).to_contain_text("admin", timeout=LONG)
    assert site.token not in page.url
    page.locator("#account").click()
    page.get_by_role("dialog").get_by_role("button", name="Sign out").click()
    expect(page.locator("#account")).to_have_text("Sign in", timeout=LONG)
    assert page.evaluate("() => sessionStorage.length") == 0
    expect(page.locator("#connection")).to_contain_text("Live", timeout=LONG)


def test_a_lost_connection_says_since_when_and_comes_back_without_losing_its_place(visit: Visitor, site: Site) -> None:
    seen = visit()
    page = settled(seen)
    row(page, "Book swap").click()
    expect(page.locator("#card .terms")).to_be_visible(timeout=LONG)
    address = page.url
    site.stop()
    expect(page.locator("#connection")).to_contain_text(re.compile(r"Lost since \d\d:\d\d"), timeout=LONG)
    expect(rows(page)).to_have_count(HERE)
    expect(page.get_by_role("button", name="Try now")).to_be_visible()
    site.start()
    expect(page.locator("#connection")).to_contain_text("Live", timeout=2 * LONG)
    expect(rows(page)).to_have_count(HERE)
    expect(page.get_by_role("option", selected=True)).to_contain_text("Book swap")
    assert page.url == address
    resumed = [json.loads(frame) for frame in seen.sent if '"resume"' in frame]
    assert len(resumed[-1]["resume"]["held"]) == HERE
    # The browser itself complains about each attempt while nobody listened; everything else still counts.
    expected = re.compile(r"WebSocket connection to|ERR_CONNECTION_REFUSED|failed: .*/stats|ERR_")
    seen.problems[:] = [problem for problem in seen.problems if not expected.search(problem)]


def test_on_a_phone_panels_are_sheets_that_open_one_at_a_time(visit: Visitor) -> None:
    page = settled(visit(phone=True), "/#10/37.77/-122.43")
    expect(page.locator("#ranking")).to_be_hidden()
    page.get_by_role("button", name="Events", exact=True).click()
    expect(page.locator("#ranking")).to_be_visible()
    page.locator(".tabs").get_by_role("button", name="Filters").click()
    expect(page.locator("#ranking")).to_be_hidden()
    expect(page.get_by_label("Words")).to_be_visible()
    page.get_by_role("button", name="Events", exact=True).click()
    rows(page).nth(1).click()
    expect(page.locator("#card .terms")).to_be_visible(timeout=LONG)
    page.get_by_role("button", name="Close the explanation").click()
    expect(page.locator("#card")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("phone", [False, True], ids=["desktop", "phone"])
def test_names_contrast_and_a_screenshot(visit: Visitor, scheme: str, phone: bool) -> None:
    page = settled(visit(scheme=scheme, phone=phone), "/#11/37.77/-122.43" if not phone else "/#10/37.77/-122.43")
    if phone:
        page.get_by_role("button", name="Events", exact=True).click()
    else:
        page.get_by_role("button", name="Filters").first.click()
        page.get_by_role("button", name="Batches in detail").click()
    rows(page).nth(1).click()
    expect(page.locator("#card .terms")).to_be_visible(timeout=LONG)
    assert page.evaluate(NAMES) == []
    assert page.evaluate(CONTRAST) == []
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"map-{'phone' if phone else 'desktop'}-{scheme}.png")


def test_the_whole_page_is_small_and_strict(visit: Visitor) -> None:
    seen = visit()
    settled(seen)
    weight = sum(len(gzip.compress(answer.body())) for answer in seen.weights.values() if answer.status == 200)
    assert weight < 200 * 1024
    headers = seen.weights[f"{seen.site.url}/"].headers
    policy = headers["content-security-policy"]
    assert "script-src 'self'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert "referrer-policy" in headers


def test_reduced_motion_still_shows_every_change(visit: Visitor, site: Site) -> None:
    seen = visit()
    seen.page.emulate_media(reduced_motion="reduce")
    page = settled(seen)
    try:
        site.call("DELETE", "/events/film")
        expect(rows(page)).to_have_count(HERE - 1, timeout=LONG)
    finally:
        restore(site)


def test_the_html_has_no_inline_script_or_style() -> None:
    html = Path(ROOT / "server/handlers/site/index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)", html)
