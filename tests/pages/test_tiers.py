"""The page of tiers as a person meets it: a real browser, a real server that plans only when it is told to."""

import datetime as dt
import gzip
import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from server.edge.secrets import mint
from server.settings import load
from tests.pages.conftest import Visit, Visitor
from tests.pages.looks import CONTRAST, NAMES
from tests.pages.site import ROOT, Site, until

pytestmark = pytest.mark.browser

LONG = 30_000
SHOTS = ROOT / "build" / "screenshots"
SAMPLE = ROOT / "server" / "sample" / "people.csv"
RATINGS = ("global_recognition", "career_legacy", "current_relevance", "demand", "affluence")
CROWD = 600
"""People of one tier whose planning is looked at while it runs, one person a transaction."""
SETTINGS = {"TIERS_MONTHLY": "false", "TIERS_BATCH": "1"}


def month_ahead(months: int = 2) -> str:
    """A month whose first days are beyond every lead time."""
    today = dt.datetime.now(dt.UTC).date()
    index = today.year * 12 + today.month - 1 + months
    return f"{index // 12:04d}-{index % 12 + 1:02d}"


MONTH = month_ahead()
WORDS = dt.date.fromisoformat(f"{MONTH}-01").strftime("%B %Y")
HERE = f"/tiers?month={MONTH}"


def bring_in(site: Site, body: bytes, kind: str) -> None:
    headers = {"Authorization": f"Bearer {site.token}", "Content-Type": kind}
    request = urllib.request.Request(f"{site.url}/tiers/people", body, headers, method="POST")
    urllib.request.urlopen(request, timeout=60).read()


def ran(site: Site, path: str, **asked: object) -> dict[str, Any]:
    """A run, begun over the API and followed to its end."""
    number = site.call("POST", path, asked)["run"]["id"]
    until(lambda: site.call("GET", f"/tiers/runs/{number}")["status"] != "running", f"run {number} has ended")
    return dict(site.call("GET", f"/tiers/runs/{number}"))


@pytest.fixture(scope="module")
def site(browser: Browser) -> Iterator[Site]:
    """A server with the sample people, classified; S is planned and verified for MONTH."""
    site = Site(settings=SETTINGS)
    try:
        site.start()
        bring_in(site, SAMPLE.read_bytes(), "text/csv")
        ran(site, "/tiers/classify")
        ran(site, "/tiers/generate", tier="S", month=MONTH)
        site.call("POST", "/tiers/verify", {"tier": "S", "month": MONTH})
        yield site
    finally:
        site.remove()


@pytest.fixture
def fresh(browser: Browser) -> Iterator[Site]:
    """A server that knows nobody yet."""
    site = Site(settings=SETTINGS)
    try:
        site.start()
        yield site
    finally:
        site.remove()


def sign_in(page: Page, token: str) -> None:
    page.locator("#account").click()
    page.get_by_label("Token", exact=True).fill(token)
    page.get_by_role("dialog").get_by_role("button", name="Sign in").click()


def signed_in(visit: Visit, address: str = HERE, token: str | None = None) -> Page:
    page = visit.open(address)
    expect(page.locator("#connection")).to_contain_text("Live", timeout=LONG)
    sign_in(page, token or visit.site.token)
    expect(page.locator("#admin")).to_be_visible(timeout=LONG)
    expect(page.locator("#steps tbody tr")).to_have_count(6, timeout=LONG)
    expect(page.locator("#people tbody tr, #people.table-empty").first).to_be_attached(timeout=LONG)
    return page


def token_of(site: Site, sub: str) -> str:
    return mint(load({"DATA_DIR": str(site.data_dir)}), sub=sub)


def row(page: Page, place: str, *words: str) -> Locator:
    rows = page.locator(f"#{place} tbody tr")
    for word in words:
        rows = rows.filter(has_text=word)
    return rows.first


def of_tier(page: Page, place: str, tier: str) -> Locator:
    letter = page.locator(".tier").filter(has_text=re.compile(f"^{tier}$"))
    return page.locator(f"#{place} tbody tr").filter(has=letter)


def drawer(page: Page) -> Locator:
    return page.locator("#drawer")


def dialog(page: Page) -> Locator:
    return page.get_by_role("dialog")


def told(page: Page, pattern: str) -> None:
    expect(page.locator("#notices")).to_contain_text(re.compile(pattern), timeout=LONG)


def forgive(seen: Visit, *words: str) -> None:
    """The browser itself complains about an answer that a test asked for; everything else still counts."""
    seen.problems[:] = [problem for problem in seen.problems if not any(word in problem for word in words)]


def crowd() -> bytes:
    """One tier of many people, some of another, and one row that is none."""
    people = [
        {"key": f"{tier}{n}", "name": f"{tier} Person {n}", "country": "DE", **dict.fromkeys(RATINGS, tier)}
        for tier, many in (("S", CROWD), ("D", 20))
        for n in range(many)
    ]
    lines = [*map(json.dumps, people), json.dumps({"key": "x", "name": "Nobody", "affluence": "Z"})]
    return "\n".join(lines).encode()


# --- who is not an administrator ---


def test_without_a_token_the_page_shows_what_a_frontend_sees_and_how_to_get_in(visit: Visitor) -> None:
    seen = visit()
    page = seen.open("/tiers")
    expect(page.locator("#hint-words")).to_contain_text("Without a token")
    expect(page.locator("#celebrities tbody tr")).to_have_count(50, timeout=LONG)
    page.get_by_label("Price of people who can be booked").select_option("from-100k")
    expect(page.locator("#celebrities tbody tr").first).to_contain_text(re.compile(r"\$\d\d\d,\d\d\d"), timeout=LONG)
    page.locator("#celebrities [data-celebrity]").first.click()
    expect(drawer(page)).to_contain_text("in person, 60 min", timeout=LONG)
    expect(drawer(page).locator("tbody tr").first).to_contain_text("available", timeout=LONG)
    assert not [url for url in seen.weights if "/tiers/" in url], "nothing is asked that would be refused"
    page.get_by_role("button", name="Sign in with a token").click()
    expect(page.get_by_label("Token", exact=True)).to_be_focused()


def test_a_link_to_a_person_shows_everybody_what_they_may_see(visit: Visitor, site: Site) -> None:
    page = visit().open("/tiers?person=1&celebrities.tier=S")
    expect(drawer(page)).to_contain_text("Packages", timeout=LONG)
    expect(drawer(page)).to_contain_text("POST /availability/ID/book")
    expect(page.locator("#celebrities tbody tr")).to_have_count(11, timeout=LONG)
    sign_in(page, site.token)
    expect(drawer(page)).to_contain_text("Evidence", timeout=LONG)
    expect(page.locator("#public")).to_be_hidden()


def test_a_viewer_is_told_which_role_is_missing(visit: Visitor, site: Site) -> None:
    seen = visit()
    page = seen.open("/tiers")
    expect(page.locator("#connection")).to_contain_text("Live", timeout=LONG)
    sign_in(page, token_of(site, "ada"))
    expect(page.locator("#hint-words")).to_contain_text("ada has the role viewer", timeout=LONG)
    expect(page.locator("#hint-sign-in")).to_be_hidden()
    expect(page.locator("#admin")).to_be_hidden()
    expect(page.locator("#celebrities tbody tr")).to_have_count(50, timeout=LONG)
    assert not [url for url in seen.weights if "/tiers/" in url]


# --- from nothing to a verified month ---


def test_people_are_imported_classified_planned_and_verified_from_an_empty_page(visit: Visitor, fresh: Site) -> None:
    seen = visit()
    seen.site = fresh
    page = signed_in(seen)
    expect(page.locator("#next")).to_contain_text("Nobody is here yet")
    expect(page.locator("#people .table-status")).to_contain_text("batchcast tiers import people.csv")
    page.locator("#next").get_by_role("button", name="Import people…").click()
    people = {"name": "people.ndjson", "mimeType": "application/x-ndjson", "buffer": crowd()}
    dialog(page).locator("input[type=file]").set_input_files(people)  # type: ignore[arg-type]  # its own TypedDict
    dialog(page).get_by_role("button", name="Import", exact=True).click()
    told(page, rf"Imported people.ndjson: {CROWD + 20} new, .* 1 refused. Audit \d+")
    expect(dialog(page)).to_contain_text("Rows that were refused", timeout=LONG)
    expect(dialog(page).locator("tbody tr")).to_contain_text("affluence")
    dialog(page).get_by_role("button", name="Close", exact=True).click()

    expect(page.locator("#next")).to_contain_text("Classify the people without a tier", timeout=LONG)
    page.locator("#next").get_by_role("button", name="Classify…").click()
    expect(dialog(page)).to_contain_text(f"only those without a tier: {CROWD + 20} people")
    dialog(page).get_by_role("button", name="Classify", exact=True).click()
    told(page, r"Began run \d+, Classify people without a tier. Audit \d+")
    told(page, rf"Run \d+ is through, Classify people without a tier: {CROWD + 20} done")

    expect(page.locator("#next")).to_contain_text(f"Generate S for {WORDS}", timeout=LONG)
    page.locator("#next").get_by_role("button", name="Generate S…").click()
    expect(dialog(page)).to_contain_text(f"for the {CROWD} people in tier S")
    dialog(page).get_by_role("button", name="Generate", exact=True).dblclick()
    told(page, rf"Began run \d+, Plan tier S for {WORDS}. Audit \d+")
    moving = page.locator("#running li")
    expect(moving).to_contain_text(re.compile(r"\d+ % · [\d.,]+ people/s · .* left"), timeout=LONG)
    expect(page.locator("#next")).to_contain_text("(under way)")
    moving.get_by_role("button").click()
    drawer(page).get_by_role("button", name="Stop…").click()
    expect(dialog(page)).to_contain_text("What is done stays")
    dialog(page).get_by_role("button", name="Stop the run").click()
    told(page, r"Stopped run \d+ after \d+ people. Audit \d+")
    expect(drawer(page).locator(".job-progress")).to_contain_text("stopped")
    expect(page.locator("#running")).to_be_hidden(timeout=LONG)
    drawer(page).get_by_role("button", name="Resume…").click()
    dialog(page).get_by_role("button", name="Resume", exact=True).click()
    told(page, r"Run \d+ goes on: .* Audit \d+")
    expect(drawer(page).locator(".job-progress")).to_contain_text(f"{CROWD} done", timeout=2 * LONG)
    assert len(fresh.call("GET", "/tiers/runs?kind=generate")["runs"]) == 1, "pressed twice, stopped, resumed: one run"

    page.keyboard.press("Escape")
    expect(page.locator("#next")).to_contain_text(f"Verify S for {WORDS}", timeout=LONG)
    page.locator("#next").get_by_role("button", name="Verify S…").click()
    dialog(page).get_by_role("button", name="Verify", exact=True).click()
    told(page, rf"Tier S for {WORDS}: passed. Recorded as verification \d+")
    expect(of_tier(page, "steps", "S")).to_contain_text("passed", timeout=LONG)
    expect(page.locator("#next")).to_contain_text(f"Verify A for {WORDS}", timeout=LONG)  # Nobody is in it.
    expect(of_tier(page, "availability", "S")).to_contain_text(f"{CROWD} of {CROWD}", timeout=LONG)


def test_a_file_of_which_every_row_is_refused_is_told_row_by_row(visit: Visitor) -> None:
    seen = visit()
    page = signed_in(seen)
    page.locator("#import").click()
    bad = {"name": "bad.csv", "mimeType": "text/csv", "buffer": b"name,affluence\nAda,Q\n,S\n"}
    dialog(page).locator("input[type=file]").set_input_files(bad)  # type: ignore[arg-type]
    dialog(page).get_by_role("button", name="Import", exact=True).click()
    expect(dialog(page)).to_contain_text("2 of 2 rows of bad.csv did not go in", timeout=LONG)
    expect(dialog(page).locator("tbody tr")).to_have_count(2)
    told(page, "0 new, 0 updated, 0 unchanged, 2 refused")
    forgive(seen, "422")


# --- gates and verification ---


def test_a_shut_gate_is_named_refuses_in_words_and_opens_to_a_reason(visit: Visitor, site: Site) -> None:
    seen = visit()
    page = signed_in(seen)
    expect(row(page, "steps", "waits: tier B is not verified")).to_be_visible()
    page.get_by_role("button", name="Generate tier C…").click()
    expect(dialog(page)).to_contain_text("The gate is shut: tier B is not verified")
    dialog(page).get_by_role("button", name="Generate", exact=True).click()
    expect(dialog(page).get_by_role("alert")).to_contain_text("tier C must wait", timeout=LONG)
    dialog(page).get_by_label("Go on all the same").fill("the premiere is next week")
    dialog(page).get_by_role("button", name="Generate", exact=True).click()
    told(page, rf"Began run \d+, Plan tier C for {WORDS}. Audit \d+")
    told(page, r"Run \d+ is through, .* slots")
    expect(of_tier(page, "steps", "C")).to_contain_text(re.compile(r"106 of 106, \d+ slots"), timeout=LONG)
    page.locator("#runs").get_by_role("button", name=re.compile(r"Run \d+: details")).first.click()
    expect(drawer(page)).to_contain_text("passed over with a reason")
    expect(drawer(page).locator("tbody tr").first).to_contain_text("done", timeout=LONG)
    forgive(seen, "409")


def test_what_verification_found_names_the_rule_and_the_person(visit: Visitor) -> None:
    page = signed_in(visit(), f"/tiers?month={month_ahead(5)}")
    expect(page.locator("#findings .table-status")).to_contain_text("Nothing", timeout=LONG)
    page.get_by_role("button", name="Verify tier A…").click()
    dialog(page).get_by_role("button", name="Verify", exact=True).click()
    expect(page.locator(".notice-error")).to_contain_text(
        re.compile(r"Failed. Tier A .*slots_present 12"), timeout=LONG
    )
    page.get_by_role("button", name="Close this notice").last.click()
    expect(page.locator("#findings-count")).to_contain_text("violations", timeout=LONG)
    page.get_by_role("searchbox", name="Filter findings").fill("slots_present")
    expect(page.locator("#findings tbody tr")).to_have_count(12)
    page.locator("#findings [data-person]").first.click()
    expect(drawer(page)).to_contain_text("Evidence", timeout=LONG)
    page.locator("#verifications [data-verification-link]").first.click()
    expect(drawer(page).locator(".rules li").filter(has_text="slots_present")).to_contain_text("12: slots are missing")
    expect(drawer(page).locator(".rules li").filter(has_text="cooldown")).to_contain_text("kept")
    assert "verification=" in page.url
    page.reload()
    expect(drawer(page).locator(".rules li")).to_have_count(7, timeout=LONG)


def test_a_month_without_a_verification_says_how_to_make_one(visit: Visitor) -> None:
    page = signed_in(visit(), f"/tiers?month={month_ahead(9)}")
    expect(page.locator("#next")).to_contain_text("Generate S for")
    expect(page.locator("#findings .table-status")).to_be_visible()
    expect(of_tier(page, "steps", "S")).to_contain_text("not verified yet")
    page.locator("#month-before").click()
    assert f"month={month_ahead(8)}" in page.url
    page.locator("#month").select_option(MONTH)
    expect(of_tier(page, "steps", "S")).to_contain_text("11 of 11", timeout=LONG)
    expect(page.locator("#availability-title")).to_contain_text(WORDS, timeout=LONG)


# --- people ---


def test_someone_for_review_is_accepted_with_a_reason_and_leaves_the_queue(visit: Visitor, site: Site) -> None:
    page = signed_in(visit())
    page.locator("#people-counts").get_by_role("button", name="no evidence").click()
    expect(page.get_by_label("Who of people")).to_have_value("review")
    expect(page.get_by_label("Flag of people")).to_have_value("no_evidence")
    queue = site.call("GET", "/tiers/people?review=true&excluded=false&flag=no_evidence")["people"]
    expect(page.locator("#people tbody tr")).to_have_count(len(queue), timeout=LONG)
    name = queue[0]["name"]
    page.get_by_role("button", name=f"Decide about {name}…").first.click()
    expect(dialog(page)).to_contain_text(f"Keeps {name} in tier D")
    dialog(page).get_by_role("button", name="Decide", exact=True).click()
    expect(dialog(page)).to_be_visible()  # A decision has a reason: the browser asks for it.
    dialog(page).get_by_label("Reason").fill("known to the editors")
    dialog(page).get_by_role("button", name="Decide", exact=True).click()
    told(page, rf"{name} stays in tier D. Audit \d+")
    expect(page.locator("#people tbody tr")).to_have_count(len(queue) - 1, timeout=LONG)
    assert not site.call("GET", f"/tiers/people/{queue[0]['id']}")["needsReview"]


def test_a_person_gets_another_tier_and_the_history_tells_of_it(visit: Visitor, site: Site) -> None:
    person = site.call("GET", "/tiers/people?tier=D&review=false&limit=1")["people"][0]
    page = signed_in(visit(), f"{HERE}&person={person['id']}")
    expect(drawer(page).locator(".history li")).to_have_count(1, timeout=LONG)
    drawer(page).get_by_role("button", name="Decide…").click()
    dialog(page).get_by_label("Tier", exact=True).select_option("B")
    expect(dialog(page)).to_contain_text(f"Puts {person['name']} into tier B at once")
    dialog(page).get_by_label("Reason").fill("a film has made her famous")
    dialog(page).get_by_role("button", name="Decide", exact=True).click()
    told(page, rf"{person['name']} is now in tier B. Audit \d+")
    expect(drawer(page).locator(".why-tier .tier")).to_have_text("B", timeout=LONG)
    expect(drawer(page).locator(".history li").first).to_contain_text("a film has made her famous")
    expect(drawer(page).locator("[data-name=Decision]")).to_contain_text("a reviewer")
    drawer(page).get_by_role("button", name="Classify again…").click()
    dialog(page).get_by_role("button", name="Classify", exact=True).click()
    told(page, r"Run \d+ is through, Classify person \d+: 0 done, 1 unchanged")


def test_a_person_says_why_what_it_costs_and_when(visit: Visitor, site: Site) -> None:
    person = site.call("GET", f"/celebrities?tier=S&search={'Quin'}")["celebrities"][0]
    page = signed_in(visit(), f"{HERE}&people.filter=Quin%20Bel")
    page.locator("#people").get_by_role("button", name=person["name"]).click()
    expect(drawer(page).locator(".why")).to_contain_text("a curated override", timeout=LONG)
    expect(drawer(page).locator(".packages tbody td")).to_have_count(6)
    expect(drawer(page).locator("[data-name='Current relevance']")).to_contain_text("S")
    slots = site.call("GET", f"/tiers/people/{person['id']}/calendar?month={MONTH}")["slots"]
    expect(drawer(page).locator(".mark")).to_have_count(len(slots), timeout=LONG)
    first = drawer(page).locator(".calendar tbody:not(.weeks tbody) tr td").first
    expect(first).to_have_attribute("title", re.compile(rf"{re.escape(slots[0]['timezone'])}. For you \("))
    drawer(page).get_by_role("button", name="The month after").click()
    expect(drawer(page).locator(".calendar")).to_contain_text("is not planned for this person", timeout=LONG)
    assert f"calendar={month_ahead(3)}" in page.url
    page.reload()
    expect(drawer(page).locator(".calendar")).to_contain_text("is not planned for this person", timeout=LONG)
    page.keyboard.press("Escape")
    assert "person=" not in page.url and "calendar=" not in page.url


def test_a_booking_is_seen_and_given_back(visit: Visitor, site: Site) -> None:
    person = next(p for p in site.call("GET", "/celebrities?tier=S")["celebrities"] if p["allowVirtual"])
    span = f"from={MONTH}-01&to={month_ahead(3)}-01"
    slot = site.call("GET", f"/celebrities/{person['id']}/availability?{span}")["slots"][0]
    book(site, slot["id"], "ada")
    page = signed_in(visit(), f"{HERE}&person={person['id']}")
    expect(drawer(page).locator(".mark[data-slot=booked]")).to_have_count(1, timeout=LONG)
    drawer(page).get_by_role("button", name=re.compile("Cancel the booking of")).click()
    expect(dialog(page)).to_contain_text("Cancels the booking of ada with")
    dialog(page).get_by_role("button", name="Cancel the booking").click()
    told(page, r"Cancelled the booking of ada, .* Audit \d+")
    expect(drawer(page).locator(".mark[data-slot=cancelled]")).to_have_count(1, timeout=LONG)
    expect(drawer(page).locator(".calendar-lead")).to_contain_text("1 cancelled")


def book(site: Site, slot: int, sub: str) -> None:
    headers = {"Authorization": f"Bearer {token_of(site, sub)}", "Idempotency-Key": f"{sub} {slot}"}
    request = urllib.request.Request(f"{site.url}/availability/{slot}/book", b"", headers, method="POST")
    urllib.request.urlopen(request, timeout=30).read()


CALENDAR = """async (slots) => {
    const { Calendar } = await import("/site/tiers-calendar.js");
    const calendar = new Calendar({ name: "Somebody", turn: () => undefined, cancel: () => undefined });
    const main = document.querySelector("main");
    main.replaceChildren(calendar.node);
    calendar.draw({ month: "2027-03", timezone: "America/New_York", slots, rotations: [], cooldowns: [], item: null });
}"""


def slot(number: int, status: str, when: str, **more: object) -> dict[str, object]:
    start = round(dt.datetime.fromisoformat(when).timestamp() * 1000)
    plain = {"meetingType": "virtual", "duration": 60, "timezone": "America/New_York", "city": None}
    times = {"startsAtMs": start, "endsAtMs": start + 3_600_000, "bookedAtMs": None, "cancelledAtMs": None}
    return {**plain, **times, "id": number, "status": status, "priceCents": 10_050, "bookedBy": None, **more}


def test_slots_stand_on_their_local_day_in_their_local_time_with_every_state(visit: Visitor) -> None:
    page = visit().open("/tiers")
    expect(page.locator("#connection")).to_contain_text("Live", timeout=LONG)
    berlin = {"city": {"city": 1, "name": "Berlin", "country": "DE"}, "timezone": "Europe/Berlin"}
    page.evaluate(
        CALENDAR,
        [
            # The night in which New York changes its clocks: two hours apart on the wall, one in the world.
            slot(1, "available", "2027-03-14T06:30:00+00:00", localDate="2027-03-14"),
            slot(2, "booked", "2027-03-14T08:00:00+00:00", localDate="2027-03-14", bookedBy="ada"),
            slot(3, "cancelled", "2027-03-20T10:00:00+00:00", localDate="2027-03-20", bookedBy="ada"),
            slot(4, "expired", "2027-03-31T22:30:00+00:00", localDate="2027-04-01", meetingType="physical", **berlin),
        ],
    )
    fourteenth = page.locator(".weeks td").filter(has_text=re.compile("^14"))
    expect(fourteenth.locator(".mark")).to_have_count(2)
    expect(fourteenth.locator(".mark").first).to_have_attribute("title", re.compile("Sun 14 Mar 01:30–03:30, virtual"))
    expect(page.locator(".mark[data-slot=booked]")).to_have_attribute("title", re.compile("04:00–05:00.*booked"))
    expect(page.locator(".mark")).to_have_count(3)  # What is on another local month's day has no place in the weeks,
    rows = page.locator(".table tbody tr")
    expect(rows).to_have_count(4)  # but all have a line that says everything in words.
    assert [line.split()[-1] for line in rows.locator("td:last-child .status").all_inner_texts()] == [
        "available",
        "booked",
        "cancelled",
        "expired",
    ]
    expect(rows.last).to_contain_text("Thu 1 Apr 00:30–01:30")
    expect(rows.last).to_contain_text("Berlin")
    expect(rows.nth(1)).to_contain_text("$100.50")


def test_people_are_searched_sorted_and_narrowed_and_a_link_shows_the_same(visit: Visitor) -> None:
    page = signed_in(visit())
    page.locator("#people").get_by_role("button", name="Name", exact=True).click()
    page.get_by_label("Tier of people").select_option("B")
    page.get_by_label("Country of people").select_option("US")
    page.get_by_role("searchbox", name="Search people").fill("e")
    expect(page.locator("#people th[aria-sort=ascending]")).to_contain_text("Name")
    expect(page.locator("#people tbody tr").first).to_contain_text("United States", timeout=LONG)
    page.wait_for_url(re.compile("people.filter=e"))
    for part in ("people.sort=name", "people.tier=B", "people.country=US"):
        assert part in page.url
    page.locator("#people").get_by_role("button", name="Name").click()
    expect(page.locator("#people th[aria-sort=ascending]")).to_contain_text("Name")  # The server knows one direction.
    expect(page.locator("#people .table-scroll")).not_to_have_attribute("aria-busy", "true")
    page.wait_for_load_state("networkidle")
    names = page.locator("#people tbody td:first-child").all_inner_texts()
    page.reload()
    expect(page.locator("#people tbody td:first-child")).to_have_text(names, timeout=LONG)
    expect(page.get_by_label("Tier of people")).to_have_value("B")


def test_more_people_come_by_the_page_and_a_table_is_copied_as_csv(visit: Visitor) -> None:
    page = signed_in(visit())
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    expect(page.locator("#people tbody tr")).to_have_count(25, timeout=LONG)
    page.locator("#people").get_by_role("button", name="More").click()
    expect(page.locator("#people tbody tr")).to_have_count(50, timeout=LONG)
    page.locator("#people").get_by_role("button", name="Copy as CSV").click()
    told(page, "Copied 50 rows of people, as far as they are loaded")
    lines = page.evaluate("() => navigator.clipboard.readText()").splitlines()
    assert lines[0] == "Name,Tier,Why,Review,Do,Country,Slots a month,Decided" and len(lines) == 51
    page.locator("#steps").get_by_role("button", name="Copy as CSV").click()
    expect(page.locator("#notices")).to_contain_text("Copied 6 rows", timeout=LONG)
    lines = page.evaluate("() => navigator.clipboard.readText()").splitlines()
    assert [line.split(",")[0] for line in lines] == ["Step", "foundation", "S", "A", "B", "C", "D"]
    page.locator("#prices").get_by_role("button", name="Copy as CSV").click()
    expect(page.locator("#notices")).to_contain_text("Copied 5 rows", timeout=LONG)
    lines = page.evaluate("() => navigator.clipboard.readText()").splitlines()
    assert [line[0] for line in lines[1:]] == ["S", "A", "B", "C", "D"] and "$" in lines[1]


def test_the_figures_of_every_tier_are_shown_with_what_is_unusual(visit: Visitor, site: Site) -> None:
    report = site.call("GET", f"/tiers/report?month={MONTH}")
    page = signed_in(visit())
    expect(page.locator("#warnings li").first).to_contain_text("of all people are in tier S", timeout=LONG)
    expect(page.locator("#distribution tbody tr").first).to_contain_text("11")
    for line, (share, price) in zip(
        page.locator("#prices tbody tr").all(), zip(report["distribution"], report["pricing"], strict=True), strict=True
    ):
        assert f"{price['maxCents'] / 100:,.0f}" in line.inner_text() and share["tier"] == price["tier"]
        assert "allowed" in (line.get_by_role("img").get_attribute("aria-label") or "")
    expect(of_tier(page, "availability", "S")).to_contain_text(
        f"{report['availability'][0]['withSlots']} of {report['availability'][0]['people']}"
    )


# --- the rest of the day ---


def test_a_lost_server_leaves_everything_in_its_place_and_the_page_comes_back(visit: Visitor, site: Site) -> None:
    seen = visit()
    page = signed_in(seen)
    page.locator("#people [data-person]").first.click()
    expect(drawer(page)).to_contain_text("Packages", timeout=LONG)
    address, steps = page.url, page.locator("#steps tbody").inner_text()
    site.stop()
    expect(page.locator("#connection")).to_contain_text(re.compile(r"Lost since \d\d:\d\d"), timeout=LONG)
    page.get_by_label("Tier of people").select_option("A")
    expect(page.locator("#people .table-status")).to_contain_text("can’t be reached", timeout=LONG)
    expect(page.locator("#people .table-status")).to_contain_text("Shown is what was read before")
    drawer(page).get_by_role("button", name="The month after").click()
    expect(drawer(page).locator(".calendar")).to_contain_text("can’t be reached", timeout=LONG)
    expect(page.locator("#as-of")).to_contain_text(re.compile(r"The figures are of \d\d:\d\d"), timeout=LONG)
    assert re.sub(r"\d+ \w+\. ago", "", page.locator("#steps tbody").inner_text()) == re.sub(
        r"\d+ \w+\. ago", "", steps
    )
    drawer(page).get_by_role("button", name="The month before").click()
    page.get_by_label("Tier of people").select_option("")
    site.start()
    expect(page.locator("#connection")).to_contain_text("Live", timeout=2 * LONG)
    expect(page.locator("#people .table-status")).to_be_empty(timeout=LONG)
    expect(page.locator("#as-of")).to_be_empty(timeout=LONG)
    expect(page.locator("#people tr[aria-current=true]")).to_have_count(1)
    expect(drawer(page).locator(".weeks")).to_be_visible(timeout=LONG)
    assert page.url == address
    followed = [frame for frame in seen.sent if '"subscribe"' in frame and '"tiers"' in frame]
    assert len(followed) == 2, "the topic is followed again on the new connection"
    forgive(seen, "WebSocket connection to", "ERR_", "failed: ")


def test_signing_out_leaves_nothing_of_the_administrator(visit: Visitor) -> None:
    page = signed_in(visit(), f"{HERE}&person=1")
    expect(drawer(page)).to_contain_text("Evidence", timeout=LONG)
    page.locator("#account").click()
    dialog(page).get_by_role("button", name="Sign out").click()
    expect(page.locator("#public")).to_be_visible(timeout=LONG)
    expect(page.locator("#admin")).to_be_hidden()
    expect(drawer(page)).not_to_contain_text("Evidence")
    for place in ("people", "steps", "runs", "findings", "verifications"):
        assert page.locator(f"#{place} tr").count() == 0
    assert page.evaluate("() => sessionStorage.length") == 0


def test_the_row_that_was_clicked_and_the_bar_stay_where_they_are(visit: Visitor) -> None:
    page = signed_in(visit())
    link = page.locator("#people [data-person]").nth(20)
    link.scroll_into_view_if_needed()
    height = "(node) => Math.round(node.getBoundingClientRect().top)"
    before = link.evaluate(height)
    link.click()
    expect(drawer(page)).to_be_visible()
    assert abs(link.evaluate(height) - before) <= 1
    page.keyboard.press("Escape")
    assert abs(link.evaluate(height) - before) <= 1
    page.evaluate("() => scrollTo(0, document.body.scrollHeight)")
    expect(page.locator("header.bar")).to_be_in_viewport(ratio=1)


def test_rows_details_and_months_work_by_keyboard_alone(visit: Visitor) -> None:
    page = signed_in(visit())
    link = page.locator("#people [data-person]").first
    link.focus()
    page.keyboard.press("Enter")
    expect(drawer(page).get_by_role("heading", level=2)).to_be_focused()
    page.keyboard.press("Escape")
    expect(drawer(page)).to_be_hidden()
    expect(link).to_be_focused()
    page.locator("#month-after").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#month")).to_have_value(month_ahead(3))
    expect(page.locator("#month-after")).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("phone", [False, True], ids=["desktop", "phone"])
def test_names_contrast_and_a_screenshot(visit: Visitor, scheme: str, phone: bool) -> None:
    page = signed_in(visit(scheme=scheme, phone=phone))
    SHOTS.mkdir(parents=True, exist_ok=True)
    name = f"{'phone' if phone else 'desktop'}-{scheme}"
    expect(page.locator("#prices tbody tr")).to_have_count(5, timeout=LONG)
    expect(page.locator("#bar a[aria-current], nav a[aria-current]")).to_be_in_viewport()
    looked_at(page)
    page.get_by_role("button", name="Close this notice").click()
    page.screenshot(path=SHOTS / f"tiers-{name}.png", full_page=True)
    page.locator("#people [data-person]").first.click()
    expect(drawer(page).locator(".mark").first).to_be_attached(timeout=LONG)
    looked_at(page)
    page.evaluate("() => Promise.all(document.getAnimations().map((animation) => animation.finished))")
    page.screenshot(path=SHOTS / f"tiers-person-{name}.png")
    drawer(page).get_by_role("button", name="Decide…").click()
    looked_at(page)
    page.screenshot(path=SHOTS / f"tiers-decide-{name}.png")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_everybody_sees_has_names_contrast_and_a_screenshot(visit: Visitor, scheme: str) -> None:
    page = visit(scheme=scheme, phone=scheme == "dark").open("/tiers")
    expect(page.locator("#celebrities tbody tr")).to_have_count(50, timeout=LONG)
    looked_at(page)
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"tiers-public-{scheme}.png")


def looked_at(page: Page) -> None:
    assert page.evaluate(NAMES) == []
    assert page.evaluate(CONTRAST) == []
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")


def test_the_whole_page_is_small_strict_and_painted_soon(visit: Visitor) -> None:
    seen = visit()
    page = signed_in(seen)
    files = [answer for url, answer in seen.weights.items() if "/site/" in url or url.split("?")[0].endswith("/tiers")]
    weight = sum(len(gzip.compress(answer.body())) for answer in files if answer.status == 200)
    assert weight < 76 * 1024
    policy = seen.weights[f"{seen.site.url}{HERE}"].headers["content-security-policy"]
    assert "script-src 'self'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert page.evaluate("() => performance.getEntriesByName('first-contentful-paint').length") == 1


def test_the_html_has_no_inline_script_or_style_and_preloads_every_module() -> None:
    html = Path(ROOT / "server/handlers/site/tiers.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)", html)
    modules = {path.name for path in (ROOT / "server/handlers/site").glob("tiers*.js")}
    assert modules == set(re.findall(r'/site/(tiers[a-z-]*\.js)"', html))
