"""The provider's double as a process of its own whose posts have been seen as often as a test says, and a server that asks it.

    with viewing() as double:
        double.seen(aaaaaaaaaaa=1_000)          a number, or anything else that its item is to say instead of one
        site = tracked_site(double)

A post that was never named is not found.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.doubles.apify.growing import ACTORS, POST, Shape
from tests.doubles.apify.http import TOKEN, Apify
from tests.doubles.apify.platform import Item, Produce
from tests.pages.scraping import Scraping
from tests.pages.site import ROOT, Site, free_port, until

DAY_MS = "86400000"
STILL = {
    "TRACKING_INTERVAL_MS": DAY_MS,
    "TRACKING_BATCH": "1",
    "TRACKING_PAUSE_MS": "700",
    "TRACKING_CACHE_MS": "0",
    "TRACKING_RETRIES": "0",
    "TRACKING_FEE_BASIS": "250",
    "IMPORTS_LANES": "0",
}
"""Runs begin by hand only, and go a call at a time, so that one can be watched."""


@dataclass
class Viewing:
    """Where it is, and how often its posts have been seen."""

    url: str
    file: Path
    counts: dict[str, object] = field(default_factory=dict)

    def seen(self, **posts: object) -> None:
        """From now on."""
        self.counts |= posts
        fresh = self.file.with_suffix(".new")
        fresh.write_text(json.dumps(self.counts))
        fresh.replace(self.file)

    def slow(self, *seconds: float) -> None:
        """So long the next calls are held back, one each."""
        Scraping(self.url).script(start=[{"delay_s": one} for one in seconds])


@contextmanager
def viewing() -> Iterator[Viewing]:
    """Running, with runs that take a fifth of a second."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="batchcast-views-") as folder:
        double = Viewing(f"http://127.0.0.1:{port}", Path(folder) / "counts.json")
        double.seen()
        command = [sys.executable, "-m", "tests.pages.viewing", "--port", str(port), "--counts", str(double.file)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            until(Scraping(double.url).answers, "the provider's double answers")
            yield double
        finally:
            process.terminate()
            process.wait(10)


def tracked_site(double: Viewing, **more: str) -> Site:
    """A server whose provider this is; not started yet."""
    site = Site()
    site.settings |= {"APIFY_URL": double.url, "APIFY_TOKEN": TOKEN, **STILL, **more}
    return site


# --- what a test does at the server, as an administrator ---


def campaign(site: Site, name: str, **more: object) -> dict[str, Any]:
    wish = {"name": name, "budgetCents": 200_000, "rateCents": 150, **more}
    return dict(site.call("POST", "/tracking/campaigns", wish)["campaign"])


def submitted(site: Site, where: Mapping[str, Any], url: str, creator: str, *, approve: bool = True) -> dict[str, Any]:
    body = {"campaignId": where["id"], "url": url, "creator": creator}
    made = dict(site.call("POST", "/tracking/submissions", body)["submission"])
    if approve:
        made = dict(site.call("POST", f"/tracking/submissions/{made['id']}/approve")["submission"])
    return made


def ran(site: Site, *due: Mapping[str, Any]) -> dict[str, Any]:
    """A run to its end; before it the posts of these campaigns are made due, which a campaign's return does."""
    for where in due:
        site.call("POST", f"/tracking/campaigns/{where['id']}/pause")
        site.call("POST", f"/tracking/campaigns/{where['id']}/reactivate")
    number = site.call("POST", "/tracking/runs")["run"]["id"]
    until(lambda: site.call("GET", f"/tracking/runs/{number}")["status"] != "running", f"run {number} has ended")
    return dict(site.call("GET", f"/tracking/runs/{number}"))


def payable(site: Site, double: Viewing, creator: str, post: str, cents: int) -> dict[str, Any]:
    """A campaign that is completed because this creator's one post has earned all of it."""
    double.seen(**{post: 40_000_000})
    where = campaign(site, f"All for {creator}, {post}", budgetCents=cents, rateCents=100, baseline="zero")
    submitted(site, where, youtube(post), creator)
    ran(site)
    return dict(site.call("GET", f"/tracking/campaigns/{where['id']}"))


def youtube(post: str) -> str:
    assert len(post) == 11
    return f"https://youtu.be/{post}"


def tiktok(post: str) -> str:
    return f"https://www.tiktok.com/@someone/video/{post}"


def instagram(post: str) -> str:
    return f"https://www.instagram.com/reel/{post}/"


# --- the process ---


def _actor(shape: Shape, file: Path) -> Produce:
    def produce(given: Mapping[str, Any]) -> list[Item]:
        counts = json.loads(file.read_text())
        addresses = [one["url"] if isinstance(one, Mapping) else str(one) for one in given.get(shape.input, ())]
        return [_item(shape, address, counts) for address in addresses]

    return produce


def _item(shape: Shape, address: str, counts: Mapping[str, object]) -> Item:
    match = POST.search(address)
    post = next((text for text in match.groups() if text), "") if match else ""
    named = dict.fromkeys(shape.post, address)
    if post not in counts:
        return {**named, "error": "not_found"}
    return {**named, shape.id: post, shape.count: counts[post]}


async def _serve(port: int, file: Path) -> None:
    double = Apify({name: _actor(shape, file) for name, shape in ACTORS.items()}, run_s=0.2)
    await double.start("127.0.0.1", port)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--counts", type=Path, required=True)
    chosen = parser.parse_args()
    asyncio.run(_serve(chosen.port, chosen.counts))
