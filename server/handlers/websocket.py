"""The WebSocket server: the door, one Peer per connection, the way down. The shell around session.py.

A connection's messages are handled strictly in order by one coroutine, in a task that exists only while there is something to
handle: a message, a look at what the viewer missed while its frame waited, the farewell. A connection that is silent has no
task. A message is handled only when its answer has room (wire.py), so a client that does not read is not read from.
Producers may send ahead: operations are handed to the writer in order and acknowledged as they commit, up to AHEAD of one
connection. A bad message is answered by `error` and closes nothing; only the limits below, a broken frame or our own bug do.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from dataclasses import replace as changed
from typing import Final
from urllib.parse import urlsplit

import orjson
import structlog
from websockets.extensions import ServerExtensionFactory
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.http11 import Request

from server.batching.imports.importer import Importer
from server.batching.imports.relay import job_of_topic
from server.batching.scores.audience import Viewer
from server.batching.scores.feed import Feed
from server.core.event import Outcome, Rejected
from server.core.forwarded import Client, client_of, trusted
from server.core.identity import ANONYMOUS, Identity
from server.core.quota import Bucket
from server.edge.auth import Keys
from server.edge.clock import Clock
from server.edge.tasks import Tasks
from server.errors import INTERNAL, RESTART, Code, Refused, Unavailable
from server.handlers import session as s
from server.handlers.access import JOB, origin_allowed
from server.handlers.connection import CLOSE_S, HANDSHAKE_S, Connection, Message
from server.handlers.hub import Hub, key_of
from server.handlers.imports import request_of
from server.handlers.wire import Wire, WireClosed
from server.protocol import incoming as m
from server.settings import Settings

AHEAD: Final = 1024
"""Operations of one connection that may wait for their commit; above, reading from it stops."""
FLOOD_WINDOW_S: Final = 10.0
TURN: Final = 32
"""Messages of one connection that are handled before the others have their turn."""
BACKLOG: Final = 1024
"""Connections the kernel holds until they are accepted; above, they try again by themselves."""
SHOWN: Final = 8
"""Characters of a session's name in the log: who knows all of it may come back to it."""
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
    importer: Importer
    hub: Hub
    keys: Keys


class Peer:
    """One connection."""

    __slots__ = (
        "_ahead",
        "_bucket",
        "_client",
        "_connection",
        "_deps",
        "_gone",
        "_session",
        "_viewer",
        "_window_at",
        "_window_count",
        "_working",
        "flooding",
        "wire",
    )

    def __init__(self, deps: Deps, connection: Connection, who: Identity, client: Client) -> None:
        self._deps = deps
        self._client = client
        self._connection = connection
        self._session = s.Session(id=connection.id, who=who)
        self.wire = Wire(connection, self._drained)
        self._viewer: Viewer | None = None
        self._ahead = 0
        self._gone = self._working = False
        self._bucket = self._new_bucket()
        self._window_at, self._window_count = deps.clock.monotonic(), 0
        self.flooding = False

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
        self._connection.close(code, reason)

    def tend(self, now: float, interval_s: float) -> bool:
        """Ping it when it is time to; True when it has been silent for too long."""
        return self._connection.tend(now, interval_s)

    def end(self) -> None:
        """The server is going away: begin nothing new."""
        self._session = changed(self._session, ending=True)

    # What the connection says.

    def arrived(self) -> None:
        """There are messages to take."""
        self._wake()

    def nudged(self) -> None:
        """A frame came that says nothing; it counts towards flooding, for it costs work all the same."""
        self._count(1)

    def resumed(self) -> None:
        """All that was sent has left."""
        self.wire.resumed()

    def lost(self) -> None:
        """The connection is gone: what came before is handled still, then all is forgotten."""
        self.wire.lost()
        self._wake()

    def _drained(self) -> None:
        """A frame that waited is out; the feed's next turn makes what was missed meanwhile."""
        if self._viewer is not None:
            self._deps.feed.drained(self._viewer)

    # The task.

    def _wake(self) -> None:
        if not self._working:
            self._working = True
            self._deps.tasks.start("connection", self._work())

    async def _work(self) -> None:
        """Handle what there is to handle. From the last look at it until the flag falls nothing is awaited."""
        try:
            handled = 0
            while (step := self._next()) is not None:
                await self._take(step)
                handled += 1
                if handled % TURN == 0:
                    await self._deps.clock.sleep(0)
        finally:
            self._working = False

    def _next(self) -> Coroutine[object, object, None] | None:
        """What comes next: a message, then the farewell."""
        message = self._connection.take()
        if message is not None:
            return self._read(message)
        return self._leave() if self._connection.lost and not self._gone else None

    async def _take(self, step: Coroutine[object, object, None]) -> None:
        try:
            await step
        except WireClosed:
            pass  # It waited for its frame to leave; nothing leaves any more.
        except Exception as error:
            log.error("connection failed", session=self._session.id[:SHOWN], exc_info=error)
            self.close(INTERNAL, "a bug of the server")

    async def _leave(self) -> None:
        self._gone = True
        self._deps.hub.remove(self)
        if self._viewer is not None:
            self._deps.feed.lose(self._viewer)

    # Reading.

    async def _read(self, frame: Message) -> None:
        await self.wire.until_room()
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

    def _decode(self, frame: Message) -> object:
        limit = self._deps.settings.message_bytes
        if isinstance(frame, bytes):
            self._take_token(1)
            raise Refused(Code.BAD_MESSAGE, "this protocol is JSON text; a binary frame is not read")
        if len(frame) > limit or (4 * len(frame) > limit and len(frame.encode()) > limit):
            self._take_token(1)
            raise Refused(Code.TOO_LARGE, f"a message has at most {limit} bytes; send less at once", limit=limit)
        return m.decode(frame)

    def _take_token(self, amount: int) -> None:
        if not self._bucket.take(self._count(amount), amount):
            raise Refused(Code.TOO_MANY, "too many messages; slow down", limit=round(self._bucket.rate))

    def _count(self, amount: int) -> float:
        """So many came; twice the limit over a window is flooding. Returns the time."""
        now = self._deps.clock.monotonic()
        self._window_count += amount
        if now - self._window_at >= FLOOD_WINDOW_S:
            elapsed = now - self._window_at
            self.flooding = self.flooding or self._window_count > 2 * self._bucket.rate * elapsed
            self._window_at, self._window_count = now, 0
        return now

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
        self._deps.hub.rename(self, key_of(who, self._client))
        producer = self._session.who.has("producer")
        if who.user != self._session.who.user:
            self._unfollow_jobs()
        self._session = s.become(self._session, who)
        if producer != who.has("producer"):
            self._bucket = self._new_bucket()

    def _unfollow_jobs(self) -> None:
        """Somebody else's jobs are not for the one who speaks now."""
        jobs = frozenset(topic for topic in self._session.topics if topic.startswith(JOB))
        for topic in jobs:
            self._deps.hub.follow(self, topic, on=False)
        self._session = changed(self._session, topics=self._session.topics - jobs)

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
                self._answer(s.answer("stats", effect.ref, **await self._deps.feed.stats()))
            case s.Configure() | s.Force():
                await self._administer(effect)
            case s.Create():
                created = await self._deps.importer.verbs.create(request_of(effect.asked), self._session.who)
                self._answer(s.answer("import-created", effect.ref, id=created.job.id, new=created.new))
            case s.Follow():
                await self._follow(effect)

    async def _follow(self, effect: s.Follow) -> None:
        job = None
        if effect.on and effect.topic.startswith(JOB):
            job = await self._job_of(effect.topic)
        self._deps.hub.follow(self, effect.topic, on=effect.on)
        kind = "subscribed" if effect.on else "unsubscribed"
        self._answer(s.answer(kind, effect.ref, topic=effect.topic))
        if job is not None and self._deps.importer.relay is not None:
            self._deps.importer.relay.note(job)

    async def _job_of(self, topic: str) -> int:
        """The job of a topic; Refused when there is none that this caller may see, and then it is not followed."""
        try:
            job = job_of_topic(topic)
            if job is None:
                raise Refused(Code.NOT_FOUND, f"there is no import {topic.removeprefix(JOB)[:40]!r}", field="topic")
            return (await self._deps.importer.verbs.show(job, self._session.who)).id
        except BaseException:
            self._session = changed(self._session, topics=self._session.topics - {topic})
            raise

    async def _view(self, effect: s.Enter | s.Ask | s.Reveal | s.Leave | s.Resync | s.Explain) -> None:
        feed = self._deps.feed
        match effect:
            case s.Enter():
                await self._enter(effect)
            case s.Ask():
                await feed.turn_to(self._watching(), effect.question, effect.ref)
            case s.Reveal():
                await feed.reveal(self._watching(), effect.question)
            case s.Leave():
                feed.leave(self._watching())
                self._answer(s.answer("unregistered", effect.ref))
            case s.Resync():
                await feed.resync(self._watching(), effect.held, effect.ref)
            case s.Explain():
                explanation = await feed.explain(self._watching(), effect.event_id)
                self._answer(s.answer("explanation", effect.ref, **explanation))

    async def _enter(self, effect: s.Enter) -> None:
        feed = self._deps.feed
        if not self._connection.open:
            raise WireClosed  # Nothing would be answered, and what is remembered is used once.
        user = effect.question.user
        known = None if effect.former is None else feed.come_back(self._viewer, user, *effect.former)
        if self._viewer is None:
            self._viewer = Viewer(self._session.id, effect.question, self.wire)
        viewer = self._viewer
        viewer.budget, viewer.reasons, viewer.clusters = effect.budget, effect.reasons, effect.clusters
        viewer.question = effect.question  # Last: it makes drafts under way stale.
        recovered = effect.held is not None or known is not None
        config = feed.config()
        times = {name: config.pop(name) for name in ("serverTime", "nextBatchAt")}
        fields = {"session": self._session.id, "recovered": recovered, "config": config, **times}
        self._answer(s.answer("registered", effect.ref, **fields))
        await feed.join(self._viewer, effect.held, known)

    def _watching(self) -> Viewer:
        assert self._viewer is not None, "the session said it was registered"
        return self._viewer

    async def _produce(self, effect: s.Produce) -> None:
        while self._ahead >= AHEAD:
            await self.wire.until_moved()
        outcome = await self._deps.feed.submit(effect.op, self._session.who)
        self._ahead += 1
        outcome.add_done_callback(lambda done: self._landed_one(done, effect.ref))

    def _landed_one(self, done: asyncio.Future[list[Outcome]], ref: str | None) -> None:
        self._ahead -= 1
        self.wire.move()
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


class WebSocketServer:
    """The listening side: the door, and the way down. The `House` of its connections."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._server: asyncio.Server | None = None
        self._ending = False
        self._proxies = trusted(deps.settings.trusted_proxies)
        self._at_the_door = Client("", proxied=False)
        self.clock = deps.clock
        self.extensions: Sequence[ServerExtensionFactory] = _extensions(deps.settings)

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
        settings, loop = self._deps.settings, asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self), settings.host, settings.ws_port, backlog=BACKLOG, start_serving=False
        )
        for one in self._server.sockets:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)  # Connections inherit it.
        await self._server.start_serving()

    async def stop(self, timeout_s: float) -> None:
        """Let frames drain, tell every client to come back at a time of its own, close."""
        self._ending = True
        if self._server is None:
            return
        self._server.close()
        for peer in self._peers():
            peer.end()
        deadline = self.clock.monotonic() + timeout_s
        while any(not p.wire.idle for p in self._peers()) and self.clock.monotonic() < deadline:
            await self.clock.sleep(0.02)
        for peer in self._peers():
            after_ms = round(self.clock.random() * self._deps.settings.return_jitter_ms)
            peer.close(RESTART, orjson.dumps({"retryAfterMs": after_ms}).decode())
        await self._until_empty(CLOSE_S)
        for guest in self._deps.hub.expected:
            guest.abort()
        await self._until_empty(CLOSE_S)

    async def _until_empty(self, timeout_s: float) -> None:
        hub, deadline = self._deps.hub, self.clock.monotonic() + timeout_s
        while (len(hub) or hub.expected) and self.clock.monotonic() < deadline:
            await self.clock.sleep(0.02)

    def _peers(self) -> list[Peer]:
        """Those connected now."""
        return [p for p in self._deps.hub if isinstance(p, Peer)]

    # What a connection asks.

    def greet(self, connection: Connection) -> bool:
        """One more at the door; False when there are too many."""
        if self._deps.hub.crowded:
            return False
        self._deps.hub.expect(connection, HANDSHAKE_S)
        return True

    def welcome(self, connection: Connection, who: Identity) -> Peer:
        """It is open. Between its `admit` and this nothing was awaited, so it is the one that stood at the door."""
        self._deps.hub.met(connection)
        client = self._at_the_door
        peer = Peer(self._deps, connection, who, client)
        self._deps.hub.add(peer, key_of(who, client))
        return peer

    def expect_end(self, connection: Connection) -> None:
        """It must be gone soon."""
        self._deps.hub.expect(connection, CLOSE_S)

    def gone(self, connection: Connection) -> None:
        """It is."""
        self._deps.hub.met(connection)

    def admit(self, request: Request, address: str) -> Identity:
        """Who it is; Refused when it may not come in."""
        client = client_of(address, request.headers.get_all("X-Forwarded-For"), self._proxies)
        self._at_the_door = client
        path, query = _place(request.path)
        if path != "/ws":
            raise Refused(Code.NOT_FOUND, "the WebSocket is at /ws")
        if "token=" in query:
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
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        who = self._deps.keys.verify(token.strip()) if scheme.lower() == "bearer" else ANONYMOUS
        refusal = self._deps.hub.refusal(key_of(who, client))
        if refusal is not None:
            raise refusal
        return who


def _place(target: str) -> tuple[str, str]:
    """Path and query of a request's target, which may be a whole address; without a path when it is none."""
    try:
        url = urlsplit(target)
    except ValueError:
        return "", ""
    return url.path, url.query


def _extensions(settings: Settings) -> Sequence[ServerExtensionFactory]:
    """Compression without memory between messages, so that one compressed tail serves all who share it."""
    if not settings.compression:
        return ()
    return (ServerPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True),)
