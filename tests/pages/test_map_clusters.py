"""Where far more is in view than the map shows it says how many lie where, and what leaves says why: in a real browser."""

import json
import random
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.pages.conftest import Visit, Visitor
from tests.pages.looks import CONTRAST, NAMES
from tests.pages.site import ROOT, Site
from tests.pages.test_map import LONG, rows, until

pytestmark = pytest.mark.browser

SHOTS = ROOT / "build" / "screenshots"
TOWNS = {
    "sf": (37.77, -122.43, 150),
    "berlin": (52.52, 13.40, 1200),
    "tokyo": (35.68, 139.76, 60),
    "sydney": (-33.87, 151.21, 30),
    "lagos": (6.52, 3.38, 20),
    "rome": (41.9, 12.5, 130),
    "nairobi": (-1.29, 36.82, 1),
}
ALL = sum(count for _, _, count in TOWNS.values())
WORLD = "/#2.5/24/8"
EMOJI = "🎷🎤🍜🏃📚🎬☕🎵💃🍺"
PAINTED = """() => {
    window.words = new Set();
    const paint = CanvasRenderingContext2D.prototype.fillText;
    CanvasRenderingContext2D.prototype.fillText = function (text, ...rest) {
        window.words.add(text);
        return paint.call(this, text, ...rest);
    };
}"""


@pytest.fixture(scope="module")
def site(browser: Browser) -> Iterator[Site]:
    """A server with many events in a few towns."""
    site = Site()
    try:
        site.start()
        site.call("POST", "/events", towns())
        yield site
    finally:
        site.remove()


def towns() -> list[dict[str, object]]:
    chance = random.Random(7)
    return [
        one(f"{town}-{n}", latitude + chance.gauss(0, 0.6), longitude + chance.gauss(0, 0.6), hours(town, n))
        for town, (latitude, longitude, count) in TOWNS.items()
        for n in range(count)
    ]


def hours(town: str, number: int) -> float:
    """Rome's are so far off that time moves no score."""
    return 200 + number if town == "rome" else 2 + number % 60


def one(event_id: str, latitude: float, longitude: float, hours: float) -> dict[str, object]:
    start = datetime.now(UTC) + timedelta(hours=hours)
    return {
        "id": event_id,
        "emoji": EMOJI[len(event_id + str(hours)) * 7 % len(EMOJI)],
        "title": event_id.replace("-", " ").title(),
        "location": {"latitude": round(latitude, 5), "longitude": round(longitude, 5)},
        "start": start.isoformat(),
        "status": "VERIFIED",
        "scanCount": 10,
        "saveCount": 5 if event_id == "nairobi-0" else 0,
        "rsvpCount": 3 if event_id == "nairobi-0" else 0,
    }


def looked(visit: Visit, address: str = WORLD) -> Page:
    page = visit.open(address)
    expect(page.locator("#connection")).to_contain_text("Live", timeout=LONG)
    expect(bubbles(page).first).to_be_visible(timeout=LONG)
    return page


def bubbles(page: Page) -> Locator:
    return page.locator(".clusters button")


def counts(page: Page) -> list[int]:
    return [int(text.replace(",", "")) for text in bubbles(page).all_inner_texts()]


def zoom(page: Page) -> float:
    found = re.search(r"#([\d.]+)/", page.url)
    assert found is not None
    return float(found[1])


def test_bubbles_say_how_many_lie_where_and_the_list_says_of_how_many_it_shows_the_best(visit: Visitor) -> None:
    seen = visit()
    page = looked(seen)
    expect(page.locator("#events-count")).to_have_text(f"50 of {ALL:,}")
    expect(rows(page)).to_have_count(50)
    assert max(counts(page)) >= 1200
    assert ALL - 50 <= sum(counts(page)) <= ALL
    texts = bubbles(page).all_inner_texts()
    assert any("," in text for text in texts), "large counts are grouped"
    labels = [button.get_attribute("aria-label") for button in bubbles(page).all()]
    assert all(re.fullmatch(r"[\d,]+ events? here, ([\d,]+|none) shown\. Zoom in\.", label or "") for label in labels)
    expect(page.get_by_role("group", name="Places with more events than are shown")).to_have_count(1)
    asked = next(json.loads(frame) for frame in seen.sent if '"register"' in frame)
    assert (asked["clusters"], asked["reasons"]) == (True, True)


def test_a_place_whose_events_are_all_on_the_map_has_no_bubble(visit: Visitor) -> None:
    page = looked(visit())
    expect(rows(page).filter(has_text="Nairobi 0")).to_have_count(1)
    assert 1 not in counts(page)


def test_no_count_is_hidden_under_the_events_of_its_place(visit: Visitor) -> None:
    page = looked(visit())
    expect(rows(page)).to_have_count(50)
    page.wait_for_timeout(600)  # until what enters has faded in
    hidden = page.evaluate(
        """() => {
            const canvas = document.querySelector(".leaflet-overlay-pane canvas");
            const at = canvas.getBoundingClientRect();
            const ratio = canvas.width / at.width;
            const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
            const covered = (node) => {
                const box = node.getBoundingClientRect();
                const [x, y] = [box.x + box.width / 2 - at.x, box.y + box.height / 2 - at.y].map((part) => Math.round(part * ratio));
                return pixels[4 * (y * canvas.width + x) + 3] > 0;
            };
            const all = Array.from(document.querySelectorAll(".clusters button"));
            return [all.length, all.filter(covered).map((node) => node.textContent)];
        }"""
    )
    assert hidden[0] >= 5
    assert hidden[1] == []


def test_a_click_on_a_bubble_zooms_into_its_place_and_in_the_end_all_is_shown(visit: Visitor) -> None:
    page = looked(visit())
    before = zoom(page)
    page.mouse.click(*spot_on_a_bubble(page))
    until(page, lambda: zoom(page) > before, "the map has zoomed in")
    assert page.locator("#card").is_hidden()
    page.evaluate("() => { location.hash = '#9/-1.29/36.82' }")
    expect(rows(page)).to_have_count(1, timeout=LONG)
    expect(bubbles(page)).to_have_count(0)
    expect(page.locator("#events-count")).to_have_text("1")


def spot_on_a_bubble(page: Page) -> tuple[float, float]:
    """A point of some bubble that no event covers: hovered there, the bubble says that it is meant."""
    for button in bubbles(page).all():
        box = button.bounding_box()
        assert box is not None
        for step in range(1, 8):
            x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] * step / 8
            page.mouse.move(x, y)
            if page.locator(".clusters .pointed").count() and page.evaluate(OVER_MAP, [x, y]):
                return x, y
    raise AssertionError("events or panels cover every bubble")


OVER_MAP = "([x, y]) => document.elementFromPoint(x, y).closest('#map') !== null"


def test_the_keyboard_comes_to_the_fullest_goes_on_by_arrows_and_zooms_in_by_enter(visit: Visitor) -> None:
    page = looked(visit())
    assert page.locator(".clusters button[tabindex='0']").count() == 1
    page.locator("#map").focus()
    page.keyboard.press("Tab")
    first = page.evaluate("() => document.activeElement.getAttribute('aria-label')")
    assert first.startswith(f"{max(counts(page)):,} events here")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("() => document.activeElement === document.querySelectorAll('.clusters button')[1]")
    middle, before = page.url.split("/")[-2:], zoom(page)
    page.keyboard.press("Enter")
    until(page, lambda: zoom(page) > before, "the map has zoomed in")
    assert page.url.split("/")[-2:] != middle
    inside = "() => document.activeElement.closest('#map') !== null"
    until(page, lambda: page.evaluate(inside), "the focus has stayed on the map")


def test_counts_follow_a_batch_and_a_batch_that_only_counts_leaves_the_line_alone(visit: Visitor, site: Site) -> None:
    page = looked(visit(), "/#6/41.9/12.5")
    expect(page.locator("#events-count")).to_have_text("50 of 130")
    fullest = max(counts(page))
    try:
        site.call("POST", "/events", {**one("rome-late", 41.9, 12.5, 600), "scanCount": 0})
        expect(page.locator("#events-count")).to_have_text("50 of 131", timeout=LONG)
        assert max(counts(page)) == fullest + 1
        expect(page.locator("#batch-line")).to_have_text("Waiting for the first batch.")
    finally:
        site.call("DELETE", "/events/rome-late")
    expect(page.locator("#events-count")).to_have_text("50 of 130", timeout=LONG)


def test_an_event_that_leaves_fades_out_with_its_reason_in_words(visit: Visitor, site: Site) -> None:
    seen = visit()
    seen.page.add_init_script(f"({PAINTED})()")
    page = seen.open("/#9/-1.29/36.82")
    expect(rows(page)).to_have_count(1, timeout=LONG)
    names = ("gone", "moved", "hidden", "over")
    site.call("POST", "/events", [one(name, -1.3, 36.9 + n / 10, 5) for n, name in enumerate(names)])
    expect(rows(page)).to_have_count(5, timeout=LONG)
    past = (datetime.now(UTC) - timedelta(days=2)).isoformat()
    steps = {
        "removed": ("DELETE", "/events/gone", None),
        "outside the view": ("PATCH", "/events/moved", {"location": {"latitude": 0.0, "longitude": -30.0}}),
        "no longer visible to you": ("PATCH", "/events/hidden", {"isPrivate": True, "creatorId": "ada"}),
        "ended": ("PATCH", "/events/over", {"start": past}),
    }
    try:
        for left, (words, (method, path, body)) in enumerate(steps.items()):
            site.call(method, path, body)
            expect(rows(page)).to_have_count(4 - left, timeout=LONG)
            until(page, lambda words=words: words in page.evaluate("() => [...window.words]"), f"{words!r} is painted")
        expect(page.locator("#departed")).to_contain_text("outside the view")
    finally:
        for name in names[1:]:
            site.call("DELETE", f"/events/{name}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("phone", [False, True], ids=["desktop", "phone"])
def test_names_contrast_and_a_screenshot(visit: Visitor, scheme: str, phone: bool) -> None:
    page = looked(visit(scheme=scheme, phone=phone), "/#3/40/15" if not phone else "/#2/24/8")
    expect(rows(page)).to_have_count(50, timeout=LONG)
    # A card that was never opened has no title yet.
    assert [wrong for wrong in page.evaluate(NAMES) if "card-title" not in wrong] == []
    assert page.evaluate(CONTRAST) == []
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"clusters-{'phone' if phone else 'desktop'}-{scheme}.png")
