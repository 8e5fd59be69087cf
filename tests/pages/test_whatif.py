"""The what-if panel of the map: for admins, tried beside the present settings, nothing changed."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.pages.conftest import Visitor
from tests.pages.looks import CONTRAST, NAMES
from tests.pages.site import Site
from tests.pages.test_map import LONG, SHOTS, row, settled, sign_in

pytestmark = pytest.mark.browser


def test_an_admin_tries_other_settings_and_sees_both_side_by_side(visit: Visitor, site: Site) -> None:
    page = settled(visit())
    expect(page.locator("#what-if")).to_be_hidden()
    sign_in(page, site.token)
    expect(page.locator("#what-if")).to_be_visible(timeout=LONG)
    page.get_by_role("button", name="Other settings, tried").click()
    page.get_by_label("Events a view").fill("3")
    page.get_by_label("Interval, seconds").fill("60")
    page.get_by_label("Popularity").fill("0.9")
    before = site.call("GET", "/config")
    page.get_by_role("button", name="Try it").click()
    result = page.locator("#what-if-result")
    expect(result).to_contain_text("1 of 1 view would differ", timeout=LONG)
    expect(result.get_by_role("row", name="Between two batches")).to_contain_text("60 s")
    expect(result.get_by_role("row", name="Messages an hour")).to_be_visible()
    expect(result).to_contain_text("Tried on 1 of 1 viewer")
    after = site.call("GET", "/config")
    assert {n: v for n, v in after.items() if n != "serverTime" and n != "nextBatchAt"} == {
        n: v for n, v in before.items() if n != "serverTime" and n != "nextBatchAt"
    }
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / "what-if-desktop.png")
    row(page, "Book swap").click()
    expect(page.locator("#card .terms")).to_be_visible(timeout=LONG)
    assert page.evaluate(NAMES) == []
    assert page.evaluate(CONTRAST) == []


def test_signed_out_the_panel_is_gone(visit: Visitor, site: Site) -> None:
    page = settled(visit(phone=True))
    tab = page.get_by_role("button", name="What if", exact=True)
    expect(tab).to_be_hidden()
    sign_in(page, site.token)
    tab.click(timeout=LONG)
    expect(page.locator("#what-if")).to_be_visible(timeout=LONG)
    page.get_by_label("Threshold").fill("0.5")
    page.get_by_role("button", name="Try it").click()
    expect(page.locator("#what-if-result")).to_contain_text("None of 1 view would differ", timeout=LONG)
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / "what-if-phone.png")
    page.locator("#account").click()
    page.get_by_role("dialog").get_by_role("button", name="Sign out").click()
    expect(page.locator("#what-if")).to_be_hidden(timeout=LONG)
