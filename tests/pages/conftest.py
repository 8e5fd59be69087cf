"""A server and a browser for the tests of the pages. Without a Chromium they are skipped with a reason; in CI they fail."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Playwright,
    Request,
    Response,
    sync_playwright,
)

from tests.pages.site import Site, sample_events

# The first has no windows to draw: it opens a page for half the CPU time of a whole browser.
CHROMIUM_NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
DESKTOP = (1440, 900)
PHONE = (390, 844)


def chromium_path() -> str:
    named = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if named is None:
        words = f"no Chromium found (looked for $CHROMIUM and on PATH for {', '.join(CHROMIUM_NAMES)})"
        if os.environ.get("CI") == "true":
            pytest.fail(words)
        pytest.skip(words)
    return named


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = chromium_path()
    # Module-wide, not for the whole run: while Playwright's loop runs in this thread, tests of asyncio can't.
    with sync_playwright() as playwright:
        yield launch(playwright, path)


def launch(playwright: Playwright, path: str) -> Browser:
    return playwright.chromium.launch(executable_path=path, args=ARGUMENTS)


@pytest.fixture(scope="module")
def site(browser: Browser) -> Iterator[Site]:
    """A server with the sample events; tests that change them put them back with `restore`."""
    site = Site()
    try:
        site.start()
        restore(site)
        yield site
    finally:
        site.remove()


def restore(site: Site) -> None:
    counters = {"scanCount": 0, "saveCount": 0, "rsvpCount": 0}
    site.call("POST", "/events", [{**event, **counters} for event in sample_events()])


@dataclass
class Visit:
    """One page in one browser context, with everything that went wrong in it."""

    page: Page
    site: Site
    problems: list[str] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    weights: dict[str, Response] = field(default_factory=dict)

    def open(self, address: str = "/#11/37.77/-122.43") -> Page:
        self.page.goto(self.site.url + address)
        return self.page

    def listen(self) -> None:
        page = self.page
        page.on("console", self.said)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("requestfailed", self.failed)
        page.on("request", self.asked)
        page.on("response", self.answered)
        page.on("websocket", lambda socket: socket.on("framesent", self.frame))

    def failed(self, request: Request) -> None:
        # What a reload cuts short has not failed.
        if request.failure != "net::ERR_ABORTED":
            self.problems.append(f"failed: {request.url}")

    def said(self, line: ConsoleMessage) -> None:
        if line.type in ("error", "warning"):
            self.problems.append(line.text)

    def asked(self, request: Request) -> None:
        if not request.url.startswith((self.site.url, "data:")):
            self.problems.append(f"a request to another host: {request.url}")

    def answered(self, response: Response) -> None:
        self.weights[response.url] = response
        if response.status >= 400:
            self.problems.append(f"{response.status}: {response.url}")

    def frame(self, payload: str | bytes) -> None:
        self.sent.append(payload if isinstance(payload, str) else payload.decode())


Visitor = Callable[..., Visit]


@pytest.fixture
def visit(browser: Browser, site: Site) -> Iterator[Visitor]:
    """Opens contexts of a size and colour scheme; at the end nothing may have gone wrong in any of them."""
    contexts: list[BrowserContext] = []
    visits: list[Visit] = []

    def go(*, scheme: str = "light", phone: bool = False) -> Visit:
        width, height = PHONE if phone else DESKTOP
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if scheme == "dark" else "light",
            is_mobile=phone,
            has_touch=phone,
            device_scale_factor=2 if phone else 1,
        )
        contexts.append(context)
        visits.append(Visit(context.new_page(), site))
        visits[-1].listen()
        return visits[-1]

    yield go
    problems = [problem for visit in visits for problem in visit.problems]
    for context in contexts:
        context.close()
    assert problems == []
