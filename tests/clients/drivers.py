"""Three clients, one way to drive them: the Python one in this process, the JavaScript one in Node and in Chromium.

`Driver.open` begins a client, `look` tells what can be seen of it, `ask` sends requests at once and returns an answer for each:
a message of the server, {"refused": code, ...} or {"lost": why}. driver.js is the other half for JavaScript. Node is skipped with a
reason where there is none and fails in CI; so does Chromium (tests/pages/conftest.py).
"""

from __future__ import annotations

import asyncio
import functools
import http.server
import itertools
import json
import os
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from server.client import Change, Client, Closed, Lost, Refusal
from tests.pages.conftest import chromium_path, launch

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 60.0
JITTER = 0.1
"""Waits are short, but not nothing: a test may keep the server away for a while."""
NO_WEB_SOCKET = 21
"""The last Node that has a WebSocket only when it is asked for one."""

Message = dict[str, Any]
Look = dict[str, Any]


class Driver(Protocol):
    """One client. The options of `open` are those of batchcast.js, with `tokens` for the answers of a token hook."""

    async def open(self, url: str, **options: Any) -> None: ...

    async def look(self) -> Look: ...

    async def ask(self, *messages: Message) -> list[Message]: ...

    async def turn(self, what: str, value: object) -> Message: ...

    async def close(self) -> None: ...


async def seen(driver: Driver, fact: Callable[[Look], object], what: str) -> Look:
    """Look again and again until it holds; the bound is only there to end a broken run."""
    look: Look = {}
    try:
        async with asyncio.timeout(LIMIT_S):
            while not fact(look := await driver.look()):
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"still not so after {LIMIT_S:.0f} s: {what}; {str(look)[:3000]}") from None
    return look


# --- Python ---

BUDGET = ("minIntervalMs", "maxBytesPerBatch")
OPTIONS = {"maxEvents": "max_events", "quietMs": "quiet_s", "pulseMs": "pulse_s"}


class Python:
    """server/client.py with a program around it that always wants the next change and asks between two of them."""

    def __init__(self) -> None:
        self._client: Client = Client("ws://nowhere", viewport=(0, 0, 1, 1))
        self._task: asyncio.Task[None] | None = None
        self._asked: asyncio.Queue[tuple[Callable[[], Any], asyncio.Future[Message]]] = asyncio.Queue()
        self._changes: list[Message] = []
        self._state, self._reason, self._fresh = "connecting", "", 0

    async def open(self, url: str, **options: Any) -> None:
        tokens = options.pop("tokens", None)
        budget = {name: options.pop(name) for name in BUDGET if name in options}
        options |= {name: value / 1000 for name, value in options.items() if name.endswith("Ms")}
        named = {OPTIONS.get(name, name): value for name, value in options.items()} | {"options": budget}
        if tokens is not None:
            named["token"] = self._hook(list(tokens))
        named.setdefault("viewport", (-180, -85, 180, 85))
        self._changes, self._state, self._reason, self._fresh = [], "connecting", "", 0
        self._make = functools.partial(Client, url, jitter=lambda: JITTER, **named)
        self._client = self._make()
        self._task = asyncio.ensure_future(self._run())

    def _hook(self, left: list[str]) -> Callable[[], str]:
        calls = itertools.count()

        def token() -> str:
            self._fresh += next(calls) > 0
            return left.pop(0) if len(left) > 1 else left[0]

        return token

    async def _run(self) -> None:
        try:
            client = await self._enter()
            while True:
                if not self._asked.empty():
                    await self._carry_out(*self._asked.get_nowait())
                with suppress(TimeoutError):
                    self._note(await client.next_change(0.05))
        except (Closed, Refusal) as end:
            self._state, self._reason = "failed", str(end)

    async def _enter(self) -> Client:
        """The first connection is the program's own business: a client says at once when there is no server."""
        while True:
            try:
                await self._client.__aenter__()
            except Closed:
                raise
            except Lost:
                self._client = self._make()
                await asyncio.sleep(0.05)
            else:
                self._state = "live"
                return self._client

    async def _carry_out(self, ask: Callable[[], Any], answer: asyncio.Future[Message]) -> None:
        try:
            answer.set_result(await ask())
        except Refusal as refusal:
            answer.set_result({"refused": refusal.code, "field": refusal.field, "retry": refusal.retry})
        except Lost as lost:
            answer.set_result({"lost": str(lost)})

    def _note(self, change: Change) -> None:
        names = {"creates": [e["id"] for e in change.creates], "updates": [e["id"] for e in change.updates]}
        more = {"deletes": change.deletes, "matches": change.matches, "reasons": change.reasons}
        self._changes.append({"type": change.type, **names, **more})

    async def look(self) -> Look:
        client = self._client
        if self._task is not None and self._task.done() and self._state != "idle":
            self._task.result()
        ranked = client.ranked()
        return {
            "state": self._state if client.connected or self._state != "live" else "lost",
            "reason": self._reason,
            "ranked": [event["id"] for event in ranked],
            "held": {event["id"]: event["version"] for event in ranked},
            "scores": {event["id"]: event["relevanceScore"] for event in ranked},
            "titles": {event["id"]: event.get("title") for event in ranked},
            "clusters": client.clusters,
            "digest": client.digest,
            "seq": client.view.seq,
            "session": client.session,
            "recovered": client.registered.get("recovered"),
            "connections": client.connections,
            "divergences": client.divergences,
            "changes": list(self._changes),
            "problems": [problem.code for problem in client.problems],
            "fresh": self._fresh,
        }

    async def ask(self, *messages: Message) -> list[Message]:
        client = self._client
        return [await self._put(functools.partial(_request, client, message)) for message in messages]

    async def turn(self, what: str, value: Any) -> Message:
        client = self._client
        verb = client.set_viewport if what == "viewport" else client.set_filters
        answer = await self._put(lambda: verb(value))
        return answer if "type" not in answer else {"answer": answer}

    async def _put(self, ask: Callable[[], Any]) -> Message:
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._asked.put_nowait((ask, answer))
        async with asyncio.timeout(LIMIT_S):
            return await answer

    async def close(self) -> None:
        self._state = "idle"
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        await self._client.close()


async def _request(client: Client, message: Message) -> Message:
    fields = {name: value for name, value in message.items() if name != "type"}
    return await client.request(message["type"], **fields)


# --- JavaScript ---


class Script:
    """Commands for driver.js, wherever it runs."""

    async def call(self, **command: Any) -> Message:
        raise NotImplementedError

    async def open(self, url: str, **options: Any) -> None:
        options.setdefault("viewport", {"west": -180, "south": -85, "east": 180, "north": 85})
        await self.call(do="open", options={"url": url, **options})

    async def look(self) -> Look:
        return await self.call(do="look")

    async def ask(self, *messages: Message) -> list[Message]:
        answers: list[Message] = (await self.call(do="ask", messages=messages))["answers"]
        return answers

    async def turn(self, what: str, value: object) -> Message:
        return await self.call(do="turn", what=what, value=value)

    async def run(self, body: str) -> Any:
        """What only JavaScript has."""
        return (await self.call(do="run", body=body)).get("result")

    async def close(self) -> None:
        await self.call(do="close")


def checked(reply: Message) -> Message:
    assert "broken" not in reply, reply["broken"]
    return reply


def node_path() -> str:
    named = os.environ.get("NODE") or shutil.which("node")
    if named is None:
        words = "no Node found (looked for $NODE and on PATH for node)"
        if os.environ.get("CI") == "true":
            pytest.fail(words)
        pytest.skip(words)
    return named


async def node_arguments(path: str) -> list[str]:
    """What makes this Node offer a WebSocket."""
    process = await asyncio.create_subprocess_exec(path, "--version", stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    major = int(said.decode().lstrip("v").split(".")[0])
    return ["--experimental-websocket"] if major <= NO_WEB_SOCKET else []


class Node(Script):
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._reading = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            said = json.loads(line)
            self._waiting.pop(said["number"]).set_result(said["reply"])
        for answer in self._waiting.values():
            answer.set_exception(AssertionError("node has ended"))

    async def call(self, **command: Any) -> Message:
        assert self._process.stdin is not None
        number = next(self._numbers)
        self._waiting[number] = answer = asyncio.get_running_loop().create_future()
        self._process.stdin.write(json.dumps({"number": number, **command}).encode() + b"\n")
        async with asyncio.timeout(LIMIT_S):
            return checked(await answer)


@asynccontextmanager
async def in_node() -> AsyncIterator[Node]:
    path = node_path()
    program = str(Path(__file__).with_name("driver_node.mjs"))
    pipe = asyncio.subprocess.PIPE
    arguments = await node_arguments(path)
    process = await asyncio.create_subprocess_exec(
        path, "--no-warnings", *arguments, program, stdin=pipe, stdout=pipe, limit=1 << 24
    )
    node = Node(process)
    try:
        yield node
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await node._reading


# --- Chromium ---


class Quiet(http.server.SimpleHTTPRequestHandler):
    """The files of the checkout, without a line for each."""

    def log_message(self, format: str, *args: object) -> None:
        pass


@dataclass
class Chromium:
    """A browser in a thread of its own (Playwright's loop and pytest's can't share one), and the files of this checkout."""

    url: str
    _thread: ThreadPoolExecutor
    _browser: Browser
    pages: list[Page] = field(default_factory=list)

    async def run(self, what: Callable[[Browser], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, what, self._browser)


@contextmanager
def files() -> Iterator[str]:
    """This checkout over HTTP, as any host of files would serve it."""
    handler = functools.partial(Quiet, directory=str(ROOT))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def chromium() -> Iterator[Chromium]:
    path = chromium_path()
    with ThreadPoolExecutor(1) as thread, files() as url:
        playwright = thread.submit(lambda: sync_playwright().start()).result()
        browser = thread.submit(launch, playwright, path).result()
        try:
            yield Chromium(url, thread, browser)
        finally:
            thread.submit(browser.close).result()
            thread.submit(playwright.stop).result()


class Tab(Script):
    """The client in a page."""

    def __init__(self, chromium: Chromium, page: Page) -> None:
        self._chromium, self._page = chromium, page

    async def call(self, **command: Any) -> Message:
        script = "async (command) => (await import('/tests/clients/driver.js')).handle(command)"
        return checked(await self._chromium.run(lambda _: self._page.evaluate(script, command)))


@asynccontextmanager
async def in_tab(chromium: Chromium) -> AsyncIterator[Tab]:
    page: Page = await chromium.run(lambda browser: browser.new_page())
    try:
        await chromium.run(lambda _: page.goto(f"{chromium.url}/tests/clients/empty.html"))
        yield Tab(chromium, page)
    finally:
        await chromium.run(lambda _: page.close())
