"""What a person does on the schedules page again and again, and a server that has something to show them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Locator, Page, expect

from server.edge.secrets import mint
from server.settings import load
from tests.pages.conftest import Visit
from tests.pages.looks import CONTRAST, NAMES
from tests.pages.scraping import Scraping, fill, scraped_site, send
from tests.pages.site import ROOT, Site, until

LONG = 30_000
SHOTS = ROOT / "build" / "screenshots"
AUDIT = r"\. Audit \d+\."


@contextmanager
def filled(provider: Scraping) -> Iterator[Site]:
    """A server with the businesses of three teams, of five of which the rating was fetched twice."""
    site = scraped_site(provider)
    try:
        site.start()
        fill(site)
        for _ in range(2):
            batch = batch_id(site, platform="google", type="overview", hours=12)
            processed(site, site.call("POST", f"/admin/schedules/{batch}/trigger")["runId"])
        yield site
    finally:
        site.remove()


def token_of(site: Site, sub: str, team: str | None = None) -> str:
    return mint(load({"DATA_DIR": str(site.data_dir)}), sub=sub, team=team)


def arrived(visit: Visit, token: str, address: str = "/schedules") -> Page:
    """Signed in with this token, through the form."""
    page = visit.open(address)
    expect(page.locator("#connection")).to_contain_text("Live", timeout=LONG)
    page.locator("#account").click()
    page.get_by_label("Token", exact=True).fill(token)
    page.get_by_role("dialog").get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("dialog")).to_have_count(0, timeout=LONG)
    return page


def admin(visit: Visit, address: str = "/schedules") -> Page:
    page = arrived(visit, visit.site.token, address)
    expect(page.locator("#batches tbody tr").first).to_be_visible(timeout=LONG)
    return page


def row(page: Page, table: str, *words: str | re.Pattern[str]) -> Locator:
    rows = page.locator(f"#{table} tbody tr")
    for word in words:
        rows = rows.filter(has_text=word)
    return rows.first


def drawer(page: Page) -> Locator:
    return page.locator("#drawer")


def told(page: Page, words: str) -> None:
    """A notice that says so, with the number of the entry in the trail."""
    notice = page.locator("#notices .notice", has_text=re.compile(words + ".*" + AUDIT, re.S))
    expect(notice.first).to_be_visible(timeout=LONG)


def pressed(page: Page, button: str) -> None:
    """The button of the dialog that is open; it closes when the server has done it."""
    page.get_by_role("dialog").get_by_role("button", name=button, exact=True).click()
    expect(page.get_by_role("dialog")).to_have_count(0, timeout=LONG)


def batch_id(site: Site, **line: object) -> int:
    query = "&".join(f"{name}={value}" for name, value in line.items())
    return int(next(one["id"] for one in site.call("GET", f"/admin/schedules?{query}")["schedules"] if one["id"]))


def follow(site: Site, team: str, count: int, hours: int | None = None, tier: str = "enterprise") -> list[int]:
    """So many businesses of a new team on Google; with `hours` they have reviews at an interval of its own."""
    rows = [f"{team},{tier},{team.title()} {n},ChIJ_{team}_{n}" for n in range(count)]
    send(site, f"/admin/businesses?key={team}", "\n".join(["team,tier,name,google", *rows]))
    if hours:
        site.call("POST", f"/admin/teams/{team}/custom-interval", {"hours": hours, "types": ["reviews"]})
    return [one["id"] for one in site.call("GET", f"/api/google/profile/{team}")["profiles"]]


def processed(site: Site, run: int) -> dict[str, Any]:
    """The run, once what it brought is attributed."""
    found: dict[str, Any] = {}

    def done() -> bool:
        found.update(next(one for one in site.call("GET", "/admin/runs?limit=1000")["runs"] if one["id"] == run))
        return found["processedAtMs"] is not None

    until(done, f"run {run} is processed")
    return found


def looked_at(page: Page, name: str, *, whole: bool = False) -> None:
    """Names and contrast hold, nothing is wider than the screen; the picture is for a person to open."""
    page.evaluate("() => Promise.all(document.getAnimations().map((animation) => animation.finished))")
    assert page.evaluate(NAMES) == []
    assert page.evaluate(CONTRAST) == []
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"schedules-{name}.png", full_page=whole)
