"""What a person does on any page again and again: sign in, find a row, press a dialog's button, be told what was done."""

import re

from playwright.sync_api import Locator, Page, expect

from server.edge.secrets import mint
from server.settings import load
from tests.pages.conftest import Visit
from tests.pages.looks import CONTRAST, NAMES
from tests.pages.site import ROOT, Site

LONG = 30_000
SHOTS = ROOT / "build" / "screenshots"
AUDIT = r"\. Audit \d+\."


def token_of(site: Site, sub: str, team: str | None = None) -> str:
    return mint(load({"DATA_DIR": str(site.data_dir)}), sub=sub, team=team)


def arrived(visit: Visit, token: str, address: str) -> Page:
    """Signed in with this token, through the form."""
    page = visit.open(address)
    expect(page.locator("#connection")).to_contain_text("Live", timeout=LONG)
    page.locator("#account").click()
    page.get_by_label("Token", exact=True).fill(token)
    page.get_by_role("dialog").get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("dialog")).to_have_count(0, timeout=LONG)
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


def looked_at(page: Page, name: str, *, whole: bool = False) -> None:
    """Names and contrast hold, nothing is wider than the screen; the picture is for a person to open."""
    page.evaluate("() => Promise.all(document.getAnimations().map((animation) => animation.finished))")
    assert page.evaluate(NAMES) == []
    assert page.evaluate(CONTRAST) == []
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png", full_page=whole)
