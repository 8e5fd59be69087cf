"""What a person does on the schedules page again and again, and a server that has something to show them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Page, expect

from tests.pages import person
from tests.pages.conftest import Visit
from tests.pages.person import LONG
from tests.pages.scraping import Scraping, fill, scraped_site, send
from tests.pages.site import Site, until


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


def arrived(visit: Visit, token: str, address: str = "/schedules") -> Page:
    return person.arrived(visit, token, address)


def admin(visit: Visit, address: str = "/schedules") -> Page:
    page = arrived(visit, visit.site.token, address)
    expect(page.locator("#batches tbody tr").first).to_be_visible(timeout=LONG)
    return page


def looked_at(page: Page, name: str, *, whole: bool = False) -> None:
    person.looked_at(page, f"schedules-{name}", whole=whole)


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
