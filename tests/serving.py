"""Whole servers for tests that may only use what a client has: sockets, HTTP, processes and signals.

`Live` is an `App` in this process over the test's own database: quick to start, its clients are real. `Process` is
`python -m server serve` with a DATA_DIR of its own, which a test may kill and start again. `Talk` is one raw connection: it
applies every change it reads and asserts what the protocol promises of each (seq, digest, no overlap).
"""

import asyncio
import itertools
import os
import shutil
import signal
import socket as sockets
import subprocess
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from server.client import Client, View
from server.edge import postmaster
from server.edge.secrets import mint
from server.settings import Settings, load
from tests.conftest import short_folder
from tests.handlers.asking import SECRET, Answer, Serving, started

ROOT = Path(__file__).resolve().parents[1]
WORLD = {"west": -180.0, "south": -85.0, "east": 180.0, "north": 85.0}
BERLIN = {"west": 13.0, "south": 52.0, "east": 14.0, "north": 53.0}
LATE_MS = "3600000"
"""An interval that no test lives to see: batches come only when they are asked for."""
LIMIT_S = 30.0
START_S = 120.0
"""A start needs seconds of CPU, of which a busy machine gives it few."""
HOUR_MS = 3_600_000
CHANGES = ("replace-all", "add-event", "update-event", "delete-event", "changes", "batch-update")

Message = dict[str, Any]


def now_ms() -> int:
    return round(time.time() * 1000)


def event(event_id: str, **more: Any) -> Message:
    """An event an hour from now, in the middle of Berlin unless it is told otherwise."""
    place = {"latitude": 52.5, "longitude": 13.4}
    return {"id": event_id, "title": f"Title of {event_id}", "location": place, "start": now_ms() + HOUR_MS, **more}


def spread(count: int, prefix: str = "e", **more: Any) -> list[Message]:
    """Events in Berlin's viewport, each further than a kilometre from the next, none better than another."""
    places = ({"latitude": 52.1 + 0.02 * (n // 30), "longitude": 13.05 + 0.03 * (n % 30)} for n in range(count))
    return [event(f"{prefix}{n}", location=place, **more) for n, place in enumerate(places)]


async def until(true: Callable[[], bool], what: str = "", limit_s: float = LIMIT_S) -> None:
    """Look again and again until it holds; the bound is only there to end a broken run."""
    try:
        async with asyncio.timeout(limit_s):
            while not true():
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"still not so after {limit_s:.0f} s: {what}") from None


# --- one connection ---


class Talk:
    """One raw connection."""

    def __init__(self, socket: ClientConnection, still: Callable[[], Awaitable[None]] | None = None) -> None:
        self.socket = socket
        self._still = still
        self.view = View()
        self.unread: deque[Message] = deque()
        self._refs = itertools.count(1)

    async def say(self, payload: object) -> None:
        """Anything, as it is when it is text or bytes, else as JSON."""
        await self.socket.send(payload if isinstance(payload, str | bytes) else orjson.dumps(payload).decode())

    async def send(self, kind: str, **fields: Any) -> None:
        await self.say({"type": kind, **fields})

    async def ask(self, kind: str, **fields: Any) -> Message:
        """One request and its answer; what comes before it stays to be read with `get`."""
        ref = f"r{next(self._refs)}"
        await self.send(kind, ref=ref, **fields)
        async with asyncio.timeout(LIMIT_S):
            while (message := await self._read()).get("ref") != ref:
                self.unread.append(message)
        return message

    async def refusal(self, kind: str, **fields: Any) -> tuple[str, str | None]:
        """Code and field of the error that answers."""
        return refused(await self.ask(kind, **fields))

    async def get(self, kind: str) -> Message:
        """The next message, which must be of this kind."""
        async with asyncio.timeout(LIMIT_S):
            message = self.unread.popleft() if self.unread else await self._read()
        assert message["type"] == kind, f"{kind} was due, this came: {str(message)[:600]}"
        return message

    async def settled(self) -> list[Message]:
        """All that the server had to say of what it knew until now, unread so far.

        First its turns are waited for, then two answers: a frame goes out after the answer that it came with."""
        if self._still is not None:
            await self._still()
        await self.ask("ping")
        await self.ask("ping")
        read = list(self.unread)
        self.unread.clear()
        return read

    async def closed(self) -> tuple[int, str]:
        """Read to the end: the close code and its reason."""
        try:
            async with asyncio.timeout(LIMIT_S):
                while True:
                    self.unread.append(await self._read())
        except ConnectionClosed as gone:
            return (gone.rcvd.code, gone.rcvd.reason) if gone.rcvd else (1006, "")

    async def _read(self) -> Message:
        message: Message = orjson.loads(await self.socket.recv())
        if message["type"] in CHANGES:
            self._apply(message)
        return message

    def _apply(self, message: Message) -> None:
        change = self.view.apply(message)
        assert change.matches, f"seq or digest differs after {str(message)[:600]}"
        named = [*(e["id"] for e in change.creates), *(e["id"] for e in change.updates), *change.deletes]
        assert len(named) == len(set(named)), f"one event twice in {str(message)[:600]}"


def refused(message: Message) -> tuple[str, str | None]:
    assert message["type"] == "error", message
    assert message["message"]
    return message["code"], message.get("field")


def deaf_socket(port: int) -> sockets.socket:
    """A connection whose kernel takes next to nothing: a frame that its owner does not read soon waits at the server."""
    made = sockets.socket()
    made.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
    made.connect(("127.0.0.1", port))
    made.setblocking(False)
    return made


def hear(talk: Talk) -> None:
    """End the deafness: read, and let the kernel take as much as it likes."""
    transport = talk.socket.transport
    transport.get_extra_info("socket").setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4 << 20)
    transport.resume_reading()


# --- a server in this process ---


@dataclass
class Live(Serving):
    """A running server, and the ways to it."""

    ends: AsyncExitStack

    @property
    def settings(self) -> Settings:
        return self.app.settings

    def token(self, role: str | None = None, sub: str | None = None, ttl_s: int | None = None) -> str:
        roles = [] if role is None else [role]
        return mint(self.settings, sub=sub or f"a {role or 'viewer'}", roles=roles, ttl_s=ttl_s)

    async def talk(self, role: str | None = None, sub: str | None = None, **options: Any) -> Talk:
        """A new connection; with a role or a name it says who it is in the handshake."""
        headers = options.pop("additional_headers", {})
        if role is not None or sub is not None:
            headers = {**headers, "Authorization": f"Bearer {self.token(role, sub)}"}
        options = {"compression": None, "max_size": None, "close_timeout": 1, "additional_headers": headers, **options}
        url = options.pop("url", None) or self.app.ws_url
        return Talk(await self.ends.enter_async_context(connect(url, **options)), self.still)

    async def still(self) -> None:
        """Wait until everything that is due at once has been handed over."""
        feed = self.app.feed
        desk, loops = feed.desk, [self.app.panel.loop(n) for n in ("ingest", "urgent", "immediate", "catch-up")]

        def quiet() -> bool:
            return not (desk.changed or desk.urgent or desk.drained or any(loop.running for loop in loops))

        await until(quiet, "the writer has nothing to do")
        await feed._engine.ask(lambda lookout: None)  # What was posted to the engine has been told by then.
        await until(quiet, "nothing is due")

    async def watching(
        self, role: str | None = None, sub: str | None = None, *, options: Message | None = None, **registration: Any
    ) -> Talk:
        """A new connection that has registered (for Berlin unless told otherwise) and has read its snapshot."""
        talk = await self.talk(role, sub, **(options or {}))
        registered = await talk.ask("register", **{"viewport": BERLIN, **registration})
        assert registered["type"] == "registered", registered
        await talk.get("replace-all")
        return talk

    async def deaf(self, role: str | None = None) -> Talk:
        """A connection that reads nothing before `hear`."""
        talk = await self.talk(role, sock=deaf_socket(self.ws_port), ping_interval=None)
        talk.socket.transport.pause_reading()
        return talk

    async def real_client(self, token: str | None = None, **options: Any) -> Client:
        """The real client, with its snapshot."""
        options = {"viewport": tuple(BERLIN.values()), **options}
        return await self.ends.enter_async_context(Client(self.app.ws_url, token=token, **options))

    async def put(self, *events: Message, sub: str | None = None, role: str = "admin") -> None:
        """Store events; all must be taken."""
        answer = await self.ask("POST", "/events", role, sub=sub, json=list(events))
        assert answer.status == 200, answer.body
        assert answer.json["rejected"] == [], answer.json

    async def count(self, event_id: str, **counters: Any) -> None:
        """Store counters."""
        answer = await self.ask("POST", "/popularity", json=[{"eventId": event_id, **counters}])
        assert answer.json.get("rejected") == [], answer.body

    async def force(self) -> Message:
        """A flush; the turn."""
        answer = await self.ask("POST", "/force-batch")
        assert answer.status == 200, answer.body
        turn: Message = answer.json["turn"]
        assert turn["taken"] == turn["done"] + turn["failed"] + turn["deferred"]
        return turn

    async def stats(self) -> Message:
        return dict((await self.ask("GET", "/stats")).json)


Start = Callable[..., Awaitable[Live]]


@asynccontextmanager
async def live(data_dir: Path, dsn: str | None, **environ: object) -> AsyncIterator[Live]:
    """A server with these settings (named as in the environment), until the end; without a DSN with its own PostgreSQL."""
    given = {
        "DATA_DIR": data_dir,
        "DATABASE_URL": dsn or "",
        "HTTP_PORT": 0,
        "WS_PORT": 0,
        "JWT_SECRET": SECRET,
        "SHUTDOWN_TIMEOUT_MS": 2000,
        "BATCH_INTERVAL_MS": LATE_MS,
        **environ,
    }
    settings = load({name: str(value) for name, value in given.items()})
    async with started(settings) as app, AsyncExitStack() as ends, aiohttp.ClientSession() as session:
        yield Live(app, session, ends)


@pytest_asyncio.fixture
async def start(dsn: str, tmp_path: Path) -> AsyncIterator[Start]:
    """Starts servers over this test's database; all are taken down after the test, the last first."""
    async with AsyncExitStack() as stack:

        async def begin(**environ: object) -> Live:
            return await stack.enter_async_context(live(tmp_path / "data", dsn, **environ))

        yield begin


@pytest_asyncio.fixture
async def place(start: Start) -> Live:
    """A server that batches only when it is told to."""
    return await start()


# --- a server in a process of its own ---

PORTS = range(12_000, 32_000)
"""Below those that the kernel gives to whoever asks for any: a server that comes back finds its own free."""
_tried = itertools.count(os.getpid() * 64)


def lasting_port() -> str:
    """A free one of PORTS; processes of the tests look in different places."""
    while True:
        port = PORTS[next(_tried) % len(PORTS)]
        with sockets.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return str(port)


@dataclass
class Process:
    """`python -m server serve`, on ports that it keeps over restarts."""

    data_dir: Path
    environ: dict[str, str] = field(default_factory=dict)
    popen: subprocess.Popen[bytes] | None = None
    ports: dict[str, str] = field(default_factory=lambda: {name: lasting_port() for name in ("HTTP_PORT", "WS_PORT")})
    http_url: str = ""
    ws_url: str = ""
    lines_seen: int = 0

    async def start(self) -> None:
        """Returns when it accepts connections."""
        env = {name: value for name in ("PATH", "HOME", "LANG") if (value := os.environ.get(name))}
        env |= {"DATA_DIR": str(self.data_dir), "LOG_FORMAT": "json", "JWT_SECRET": SECRET, "PYTHONPATH": str(ROOT)}
        env |= {"BATCH_INTERVAL_MS": LATE_MS, **self.environ, **self.ports}
        self.lines_seen = len(self.log())
        self._launch(env)
        await until(self._started, "server started", START_S)
        said = next(line for line in self.log()[self.lines_seen :] if line.get("event") == "server started")
        self.http_url, self.ws_url = said["http"], said["ws"]
        self.ports = {"HTTP_PORT": port_of(self.http_url), "WS_PORT": port_of(self.ws_url)}

    def _launch(self, env: dict[str, str]) -> None:
        with self.log_path.open("ab") as log:
            command = [sys.executable, "-m", "server", "serve"]
            self.popen = subprocess.Popen(command, env=env, cwd=self.data_dir, stdout=log, stderr=log)

    def _started(self) -> bool:
        assert self.popen is not None
        assert self.popen.poll() is None, f"the server ended:\n{self.log_path.read_text()[-3000:]}"
        return self.said("server started")

    @property
    def log_path(self) -> Path:
        return self.data_dir / "server.log"

    def log(self) -> list[Message]:
        """Every line it has logged, of all its lives."""
        if not self.log_path.exists():
            return []
        lines = self.log_path.read_bytes().splitlines()
        return [orjson.loads(line) for line in lines if line.startswith(b"{") and line.endswith(b"}")]

    def said(self, what: str) -> bool:
        """Has it logged that event in this life?"""
        return any(line.get("event") == what for line in self.log()[self.lines_seen :])

    @property
    def pid(self) -> int:
        assert self.popen is not None
        return self.popen.pid

    def postgres(self) -> list[int]:
        """The PostgreSQL processes that work in its data directory."""
        return postmaster.working_in(self.data_dir / "postgres")

    def postmaster(self) -> int:
        return int((self.data_dir / "postgres" / "postmaster.pid").read_text().splitlines()[0])

    async def kill(self) -> None:
        """kill -9."""
        self.signal(signal.SIGKILL)
        await self.ended()

    def signal(self, number: signal.Signals) -> None:
        assert self.popen is not None
        self.popen.send_signal(number)

    async def ended(self) -> int:
        """Wait for its end; the exit code."""
        popen = self.popen
        assert popen is not None
        await until(lambda: popen.poll() is not None, "the server has ended")
        return int(popen.returncode)

    def token(self, role: str, sub: str | None = None) -> str:
        return mint(load({"JWT_SECRET": SECRET, "DATA_DIR": str(self.data_dir)}), sub=sub or role, roles=[role])

    async def ask(self, method: str, path: str, body: object = None, role: str = "admin") -> Answer:
        headers = {"Authorization": f"Bearer {self.token(role)}"}
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, self.http_url + path, json=body, headers=headers) as response,
        ):
            return Answer(response.status, response.headers, await response.read())

    async def gauge(self, name: str) -> float:
        """A number of /metrics."""
        return gauge_in((await self.ask("GET", "/metrics")).body, name)

    def remove(self) -> None:
        if self.popen is not None and self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(LIMIT_S)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait(LIMIT_S)
        shutil.rmtree(self.data_dir, ignore_errors=True)


def port_of(url: str) -> str:
    return url.removesuffix("/ws").rpartition(":")[2]


def gauge_in(metrics: bytes, name: str) -> float:
    """The value of a number without labels in Prometheus' text format."""
    return float(
        next(line.split()[1] for line in metrics.splitlines() if line.split()[0] == f"batchcast_{name}".encode())
    )


@contextmanager
def process(**environ: object) -> Iterator[Process]:
    """A process with these settings, not yet started; nothing of it is left afterwards."""
    made = Process(short_folder(), {name: str(value) for name, value in environ.items()})
    try:
        yield made
    finally:
        made.remove()


@pytest.fixture
def own_process() -> Iterator[Process]:
    """A server with an embedded PostgreSQL of its own, not yet started."""
    with process() as made:
        yield made
