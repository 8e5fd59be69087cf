"""The WebSocket server: accept, read, one writer per connection, close. The shell around session.py.

A message is read only when its answer has room (wire.py), so a client that does not read is not read from. Producers may
send ahead: operations are handed to the writer in order and acknowledged as they commit, up to AHEAD of one connection.
A bad message is answered by `error` and closes nothing; only the limits below, a broken frame or our own bug do.
"""

from __future__ import annotations

import asyncio
import http
import socket
from dataclasses import dataclass
from dataclasses import replace as changed
from typing import Final
from urllib.parse import urlsplit

import orjson
import structlog
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from server.batching.scores.audience import Viewer
from server.batching.scores.feed import Feed
from server.core.event import Outcome, Rejected
from server.core.identity import ANONYMOUS, Identity
from server.core.quota import Bucket
from server.edge.auth import Keys
from server.edge.clock import Clock
from server.edge.tasks import Tasks
from server.errors import INTERNAL, NORMAL, RESTART, Code, Refused, Unavailable
from server.handlers import session as s
from server.handlers.access import origin_allowed
from server.handlers.hub import Hub, key_of
from server.handlers.wire import Wire, WireClosed
from server.protocol import incoming as m
from server.settings import Settings

HARD_LIMIT: Final = 1 << 20
"""Bytes of a frame above which the connection is closed with 1009."""
AHEAD: Final = 1024
"""Operations of one connection that may wait for their commit; above, reading from it stops."""
FLOOD_WINDOW_S: Final = 10.0
CLOSE_S: Final = 1.0
"""How long a close frame is tried before the socket is reset."""
SEND_BUFFER: Final = 256 * 1024
"""Bytes of a connection that the kernel may hold; a bound that a reader who stalls can't grow."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Deps:
    """What every connection works with."""

    settings: Settings
    clock: Clock
    tasks: Tasks
    feed: Feed
    hub: Hub
    keys: Keys


class Peer:
    """One connection."""

    def __init__(self, deps: Deps, connection: ServerConnection, who: Identity) -> None:
        self._deps = deps
        self._connection = connection
        self._session = s.Session(id=connection.id.hex, who=who)
        self.wire = Wire(connection, deps.clock, self._drained)
        self._viewer: Viewer | None = None
        self._ahead = 0
        self._landed = asyncio.Event()
        self._bucket = self._new_bucket()
        self._window_at, self._window_count = deps.clock.monotonic(), 0
        self.flooding = False
        self._closing: asyncio.Task[None] | None = None

    # What the hub asks.

    @property
    def who(self) -> Identity:
        """Whose it is."""
        return self._session.who

    def waiting_s(self, now: float) -> float:
        """How long its oldest frame or answer has waited."""
        return self.wire.waiting_s(now)

    def offer(self, payload: bytes) -> bool:
        """Send a hint if there is room."""
        return self.wire.offer(payload)

    def close(self, code: int, reason: str) -> None:
        """Begin to close: the close frame is tried for a second, then the socket is reset."""
        if self._closing is None:
            self._closing = self._deps.tasks.start("close connection", self._close(code, reason))

    def end(self) -> None:
        """The server is going away: begin nothing new."""
        self._session = changed(self._session, ending=True)

    async def _close(self, code: int, reason: str) -> None:
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._connection.close(code, reason)
        except TimeoutError:
            self._connection.transport.abort()

    # Reading.

    async def run(self) -> None:
        """Serve the connection until it is closed."""
        writer = self._deps.tasks.start("connection writer", self.wire.run())
        try:
            while True:
                await self._read_one()
        except (ConnectionClosed, WireClosed):
            pass
        except Exception as error:
            log.error("connection failed", session=self._session.id, exc_info=error)
            self.close(INTERNAL, "a bug of the server")
        finally:
            if self._viewer is not None:
                self._deps.feed.leave(self._viewer)
            self._deps.hub.remove(self)
            writer.cancel()

    async def _read_one(self) -> None:
        await self.wire.until_room()
        frame = await self._connection.recv()
        value: object = None
        try:
            value = self._decode(frame)
            if isinstance(value, list) and value and all(_is_popularity(one) for one in value):
                await self._each(value)
            else:
                self._take_token(1)
                await self._receive(value)
        except Refused as refusal:
            self._answer(s.error(refusal, m.ref_of(value)))
        except Unavailable as trouble:
            self._answer(_unavailable(trouble, m.ref_of(value)))

    async def _each(self, values: list[object]) -> None:
        self._take_token(len(values))
        for value in values:
            await self.wire.until_room()
            try:
                await self._receive(value)
            except Refused as refusal:
                self._answer(s.error(refusal, m.ref_of(value)))

    def _decode(self, frame: str | bytes) -> object:
        limit = self._deps.settings.message_bytes
        if isinstance(frame, bytes):
            self._take_token(1)
            raise Refused(Code.BAD_MESSAGE, "this protocol is JSON text; a binary frame is not read")
        if len(frame) > limit or (4 * len(frame) > limit and len(frame.encode()) > limit):
            self._take_token(1)
            raise Refused(Code.TOO_LARGE, f"a message has at most {limit} bytes; send less at once", limit=limit)
        return m.decode(frame)

    def _take_token(self, amount: int) -> None:
        now = self._deps.clock.monotonic()
        self._window_count += amount
        if now - self._window_at >= FLOOD_WINDOW_S:
            elapsed = now - self._window_at
            self.flooding = self.flooding or self._window_count > 2 * self._bucket.rate * elapsed
            self._window_at, self._window_count = now, 0
        if not self._bucket.take(now, amount):
            raise Refused(Code.TOO_MANY, "too many messages; slow down", limit=round(self._bucket.rate))

    def _new_bucket(self) -> Bucket:
        settings, now = self._deps.settings, self._deps.clock.monotonic()
        if self._session.who.has("producer"):
            rate = settings.producer_messages_per_s
            return Bucket.full(rate, max(rate, settings.messages_burst), now)
        return Bucket.full(settings.messages_per_s, settings.messages_burst, now)

    async def _receive(self, value: object) -> None:
        message = m.parse(value)
        token = s.token_of(message)
        if token is not None:
            self._become(self._deps.keys.verify(token))
        self._session, effects = s.receive(self._session, message, self._deps.settings.default_max_events)
        for effect in effects:
            await self._carry_out(effect)

    def _become(self, who: Identity) -> None:
        self._deps.hub.rename(self, key_of(who, _address(self._connection)))
        producer = self._session.who.has("producer")
        self._session = s.become(self._session, who)
        if producer != who.has("producer"):
            self._bucket = self._new_bucket()

    # Effects.

    async def _carry_out(self, effect: s.Effect) -> None:
        match effect:
            case s.Answer():
                self._answer(effect.payload)
            case s.Enter() | s.Ask() | s.Reveal() | s.Leave() | s.Resync() | s.Explain():
                await self._view(effect)
            case s.Produce():
                await self._produce(effect)
            case s.Tell():
                self._answer(s.answer("stats", effect.ref, **self._deps.feed.stats()))
            case s.Configure() | s.Force():
                await self._administer(effect)
            case s.Follow():
                self._deps.hub.follow(self, effect.topic, on=effect.on)
                kind = "subscribed" if effect.on else "unsubscribed"
                self._answer(s.answer(kind, effect.ref, topic=effect.topic))

    async def _view(self, effect: s.Enter | s.Ask | s.Reveal | s.Leave | s.Resync | s.Explain) -> None:
        if not isinstance(effect, s.Explain):
            await self.wire.until_free()
        feed = self._deps.feed
        match effect:
            case s.Enter():
                self._enter(effect)
            case s.Ask():
                viewer = self._watching()
                viewer.question = effect.question
                feed.turn_to(viewer, effect.ref)
            case s.Reveal():
                viewer = self._watching()
                viewer.question = effect.question
                feed.reveal(viewer)
            case s.Leave():
                feed.leave(self._watching())
                self._answer(s.answer("unregistered", effect.ref))
            case s.Resync():
                feed.resync(self._watching(), effect.held, effect.ref)
            case s.Explain():
                explanation = feed.explain(self._watching(), effect.event_id)
                self._answer(s.answer("explanation", effect.ref, **explanation))

    def _enter(self, effect: s.Enter) -> None:
        feed = self._deps.feed
        if self._viewer is None:
            self._viewer = Viewer(self._session.id, effect.question, self.wire)
        self._viewer.question, self._viewer.reasons = effect.question, effect.reasons
        config = feed.config()
        times = {name: config.pop(name) for name in ("serverTime", "nextBatchAt")}
        fields = {"session": self._session.id, "recovered": effect.held is not None, "config": config, **times}
        self._answer(s.answer("registered", effect.ref, **fields))
        feed.join(self._viewer, effect.held)

    def _watching(self) -> Viewer:
        assert self._viewer is not None, "the session said it was registered"
        return self._viewer

    async def _produce(self, effect: s.Produce) -> None:
        while self._ahead >= AHEAD:
            self._landed.clear()
            await self._landed.wait()
        outcome = await self._deps.feed.submit(effect.op, self._session.who)
        self._ahead += 1
        outcome.add_done_callback(lambda done: self._landed_one(done, effect.ref))

    def _landed_one(self, done: asyncio.Future[list[Outcome]], ref: str | None) -> None:
        self._ahead -= 1
        self._landed.set()
        if done.cancelled():
            return
        trouble = done.exception()
        if isinstance(trouble, Unavailable):
            self._answer(_unavailable(trouble, ref))
        elif trouble is None:
            self._answer(_acknowledged(done.result()[0], ref))

    async def _administer(self, effect: s.Configure | s.Force) -> None:
        if isinstance(effect, s.Configure):
            config = await self._deps.feed.configure(effect.changes, self._session.who)
            self._answer(s.answer("config", effect.ref, **config))
        else:
            self._answer(s.answer("batch-forced", effect.ref, **await self._deps.feed.force(self._session.who)))

    def _answer(self, payload: object) -> None:
        self.wire.answer(orjson.dumps(payload))

    def _drained(self) -> None:
        if self._viewer is not None:
            self._deps.feed.drained(self._viewer)


def _is_popularity(value: object) -> bool:
    return isinstance(value, dict) and value.get("type") == "popularity-update"


def _acknowledged(outcome: Outcome, ref: str | None) -> dict[str, object]:
    if isinstance(outcome, Rejected):
        return s.error(Refused(outcome.code, outcome.reason, field=outcome.field), ref)
    return s.answer("ack", ref, id=outcome.id, version=outcome.version)


def _unavailable(trouble: Unavailable, ref: str | None) -> dict[str, object]:
    retry_ms = round(trouble.retry_after_s * 1000)
    message = s.error(Refused(trouble.code, trouble.message), ref)
    return {**message, "retryAfterMs": retry_ms}


def _address(connection: ServerConnection) -> str:
    remote = connection.remote_address
    return str(remote[0]) if remote else ""


class WebSocketServer:
    """The listening side: the door, and the way down."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._server: Server | None = None
        self._ending = False

    @property
    def port(self) -> int:
        """The port it listens on."""
        assert self._server is not None
        return int(next(iter(self._server.sockets)).getsockname()[1])

    @property
    def accepting(self) -> bool:
        """Does it take connections?"""
        return self._server is not None and not self._ending

    async def start(self) -> None:
        """Listen."""
        settings = self._deps.settings
        ping_s = settings.ping_interval_ms / 1000
        self._server = await serve(
            self._serve,
            settings.host,
            settings.ws_port,
            process_request=self._at_the_door,
            max_size=HARD_LIMIT,
            max_queue=4,
            write_limit=0,
            compression=None,
            ping_interval=ping_s,
            ping_timeout=ping_s,
            close_timeout=CLOSE_S,
            server_header=None,
        )

    async def stop(self, timeout_s: float) -> None:
        """Let frames drain, tell every client to come back at a time of its own, close."""
        self._ending = True
        if self._server is None:
            return
        self._server.close(close_connections=False)
        for peer in self._peers():
            peer.end()
        deadline = self._deps.clock.monotonic() + timeout_s
        while any(not p.wire.idle for p in self._peers()) and self._deps.clock.monotonic() < deadline:
            await self._deps.clock.sleep(0.02)
        for peer in self._peers():
            after_ms = round(self._deps.clock.random() * self._deps.settings.return_jitter_ms)
            peer.close(RESTART, orjson.dumps({"retryAfterMs": after_ms}).decode())
        while len(self._deps.hub) and self._deps.clock.monotonic() < deadline + 2 * CLOSE_S:
            await self._deps.clock.sleep(0.02)

    def _peers(self) -> list[Peer]:
        """Those connected now."""
        return [p for p in self._deps.hub if isinstance(p, Peer)]

    async def _serve(self, connection: ServerConnection) -> None:
        who = getattr(connection, "batchcast_who", ANONYMOUS)
        peer = Peer(self._deps, connection, who)
        _limit_kernel_buffer(connection)
        self._deps.hub.add(peer, key_of(who, _address(connection)))
        await peer.run()
        await connection.close(NORMAL)

    def _at_the_door(self, connection: ServerConnection, request: Request) -> Response | None:
        """None lets it in; else the HTTP answer."""
        try:
            who = self._admit(connection, request)
        except Refused as refusal:
            status = 503 if refusal.code is Code.TOO_MANY else refusal.status
            return _response(connection, status, refusal.code, refusal.message)
        connection.batchcast_who = who  # type: ignore[attr-defined]  # ours, read by _serve
        return None

    def _admit(self, connection: ServerConnection, request: Request) -> Identity:
        url = urlsplit(request.path)
        if url.path != "/ws":
            raise Refused(Code.NOT_FOUND, "the WebSocket is at /ws")
        if "token=" in url.query:
            raise Refused(
                Code.BAD_MESSAGE, "a token never goes in a URL; send `authenticate` or an Authorization header"
            )
        if self._ending:
            raise Refused(Code.SHUTTING_DOWN, "the server is going away; connect again in a moment")
        origin, host = request.headers.get("Origin"), request.headers.get("Host")
        if not origin_allowed(origin, host, self._deps.settings.allowed_origins):
            raise Refused(
                Code.FORBIDDEN, f"pages of {origin[:80] if origin else origin} may not connect; see ALLOWED_ORIGINS"
            )
        header = request.headers.get("Authorization", "")
        who = self._deps.keys.verify(header[7:].strip()) if header.lower().startswith("bearer ") else ANONYMOUS
        refusal = self._deps.hub.refusal(key_of(who, _address(connection)))
        if refusal is not None:
            raise refusal
        return who


def _response(connection: ServerConnection, status: int, code: Code, message: str) -> Response:
    response = connection.respond(http.HTTPStatus(status), "")
    response.body = orjson.dumps({"error": {"code": code, "message": message}})
    del response.headers["Content-Length"], response.headers["Content-Type"]
    response.headers["Content-Length"] = str(len(response.body))
    response.headers["Content-Type"] = "application/json"
    if status == http.HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["Retry-After"] = "5"
    return response


def _limit_kernel_buffer(connection: ServerConnection) -> None:
    sock = connection.transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
