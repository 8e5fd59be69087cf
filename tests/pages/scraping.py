"""The scraping provider's double as a process of its own, and the teams whose businesses the pages of schedules are looked at with."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.doubles.apify.http import TOKEN
from tests.pages.site import ROOT, Site, free_port, until

HOUR_MS = "3600000"
LOST = "ChIJ_lost_00"
"""A place of which nothing is ever found."""
TEAMS = (("acme", "enterprise", 14), ("globex", "professional", 8), ("initech", "starter", 3))
HEAD = "team,tier,name,google,facebook,tripadvisor,booking"


@dataclass(frozen=True)
class Scraping:
    """Where it is, and what its next answers do."""

    url: str

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/control", timeout=5):
                return True
        except OSError:
            return False

    def script(self, **acts: Any) -> None:
        """What the next requests of a kind get (tests/doubles/apify/http.py, Act)."""
        self._put("script", acts)

    def outcomes(self, *outcomes: Any) -> None:
        """How the next runs end (tests/doubles/apify/platform.py, Outcome)."""
        self._put("outcomes", list(outcomes))

    def _put(self, what: str, body: object) -> None:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/control/{what}", json.dumps(body).encode(), headers, method="PUT")
        urllib.request.urlopen(request, timeout=5)


@contextmanager
def scraping() -> Iterator[Scraping]:
    """Running, with runs that take half a second."""
    port = free_port()
    command = [sys.executable, "-m", "tests.doubles.apify", "--port", str(port), "--run-ms", "500", "--missing", LOST]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        double = Scraping(f"http://127.0.0.1:{port}")
        until(double.answers, "the scraping double answers")
        yield double
    finally:
        process.terminate()
        process.wait(10)


def scraped_site(provider: Scraping, **more: str) -> Site:
    """A server whose runs begin by hand only and are told of by webhook; a batch holds five businesses of Google."""
    site = Site()
    secret = {"APIFY_URL": provider.url, "APIFY_TOKEN": TOKEN, "APIFY_WEBHOOK_SECRET": "s" * 40, "PUBLIC_URL": site.url}
    still = {"SCHEDULES_DISPATCH_MS": HOUR_MS, "SCHEDULES_RETRY_MS": HOUR_MS, "SCHEDULES_GOOGLE_CAPACITY": "5"}
    site.settings |= {**secret, **still, "IMPORTS_LANES": "0", **more}
    return site


def fill(site: Site) -> None:
    """The teams' businesses: all on Google, every third on Booking, every fourth on TripAdvisor; a lost one of globex."""
    rows = [HEAD]
    for team, tier, count in TEAMS:
        for n in range(count):
            booking = f"https://www.booking.com/hotel/de/{team}-{n}.html" if n % 3 == 0 else ""
            advisor = (
                f"https://www.tripadvisor.com/Hotel_Review-g1-d{len(team)}{n:04}-Reviews-x.html" if n % 4 == 0 else ""
            )
            rows.append(f"{team},{tier},{team.title()} house {n},ChIJ_{team}_{n:04},,{advisor},{booking}")
    rows.append(f"globex,professional,Lost and gone,{LOST},,,")
    send(site, "/admin/businesses?key=sample", "\n".join(rows))
    # Until it leads, a wake of the loop that starts runs is nobody's, and its next turn is an hour away.
    until(lambda: leads(site), "the server leads")


def leads(site: Site) -> bool:
    """Does it let us run a loop that only the leader runs?"""
    try:
        site.call("POST", "/loops/schedules-dispatch/run")
    except AssertionError:
        return False
    return True


def send(site: Site, path: str, text: str) -> Any:
    """A file as admin."""
    headers = {"Authorization": f"Bearer {site.token}", "Content-Type": "text/csv"}
    request = urllib.request.Request(site.url + path, text.encode(), headers, method="POST")
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)
