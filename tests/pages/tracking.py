"""What a person does on the tracking page again and again, and a server that has something to show there."""

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Page, expect

from tests.pages import person
from tests.pages.conftest import Visit
from tests.pages.person import LONG
from tests.pages.site import Site
from tests.pages.viewing import Viewing, campaign, instagram, payable, ran, submitted, tiktok, tracked_site, youtube

SPRING = "Spring launch"
JUMPED = "jumped00001"


@contextmanager
def filled(double: Viewing) -> Iterator[Site]:
    """A server with two runs over the posts of three creators: one earns, one has jumped, one is not found, two are to decide; and a
    payout of ada that waits, one that was paid."""
    site = tracked_site(double)
    try:
        site.start()
        double.seen(
            **{
                "steady00001": 1_000,
                JUMPED: 5_000,
                "CspringAda1": 700,
                "7301234567890123456": 12_000,
                "toDecide001": 80,
            }
        )
        spring = campaign(site, SPRING, reservedCents=20_000)
        submitted(site, spring, youtube("steady00001"), "ada")
        submitted(site, spring, youtube(JUMPED), "grace")
        submitted(site, spring, instagram("CspringAda1"), "ada")
        submitted(site, spring, tiktok("7301234567890123456"), "linus")
        submitted(site, spring, youtube("lostForEver"), "linus")
        submitted(site, spring, youtube("toDecide001"), "grace", approve=False)
        submitted(site, spring, "https://x.com/linus/status/1811000000000000103", "linus", approve=False)
        quiet = campaign(site, "Quiet November", budgetCents=50_000)
        site.call("POST", f"/tracking/campaigns/{quiet['id']}/pause")
        ran(site)
        double.seen(steady00001=19_000, **{JUMPED: 900_000, "7301234567890123456": 15_500})
        ran(site, spring)
        payable(site, double, "ada", "paidInFull1", 50_000)
        for cents, step in ((3_000, "complete"), (7_500, None)):
            asked = site.call("POST", "/tracking/payouts", {"creator": "ada", "amountCents": cents})["payout"]["id"]
            if step:
                site.call("POST", f"/tracking/payouts/{asked}/approve", {"feeBasis": 250})
                site.call("POST", f"/tracking/payouts/{asked}/{step}", {"transactionId": f"SEPA-{asked}-0001"})
        yield site
    finally:
        site.remove()


def arrived(visit: Visit, token: str, address: str = "/tracking") -> Page:
    return person.arrived(visit, token, address)


def admin(visit: Visit, address: str = "/tracking") -> Page:
    """Signed in, with everything there."""
    page = arrived(visit, visit.site.token, address)
    expect(page.locator("#campaigns tbody tr, #campaigns.table-empty").first).to_be_attached(timeout=LONG)
    expect(page.locator("#tiles [data-name=Granted]")).to_be_visible(timeout=LONG)
    return page


def creator(visit: Visit, sub: str, address: str = "/tracking") -> Page:
    page = arrived(visit, person.token_of(visit.site, sub), address)
    expect(page.locator("#posts tbody tr, #posts.table-empty").first).to_be_attached(timeout=LONG)
    return page


def looked_at(page: Page, name: str, *, whole: bool = False) -> None:
    person.looked_at(page, f"tracking-{name}", whole=whole)


def forgive(seen: Visit, *words: str) -> None:
    """The browser itself complains about an answer that a test asked for; everything else still counts."""
    seen.problems[:] = [problem for problem in seen.problems if not any(word in problem for word in words)]
