"""A client of the live feed: one WebSocket, one true view. One file, needs only `websockets`; copy it into your program.

    async with Client("ws://127.0.0.1:8081/ws", viewport=(-180, -85, 180, 85)) as client:
        print(client.ranked()[:3])                    # the snapshot is already there
        while True:
            change = await client.next_change()       # waits for the next message that changed the view
            print(change.type, len(change.creates), len(change.updates), change.deletes)

What it promises
- `events` is what the server believes this connection holds. Each change is applied in one step in the order of the
  protocol (deletes, creates, updates); its `seq` must follow the last one and its `digest` must equal ours: the sum modulo
  2^64 over what is held of the first 8 bytes, big-endian, of SHA-256(id + "\\n" + version), as 16 hexadecimal digits.
  When either is wrong `divergences` counts it and a `resync` with what we hold is sent; when that did not help, one without.
- A lost connection comes back by itself: exponential backoff with full jitter, as the close code asks (COME_BACK), after
  the milliseconds that a restarting server names. It resumes: `session`, the last `seq` and what is held; the answer is one
  difference, seen as a change like any other.
- No background task, but for a connection that is being made. Whoever waits in `next_change` or `request` reads the socket, so
  one task uses a client at a time; a program that does not ask for changes is a slow reader, which the server knows how to
  treat. What waits to be asked for is bounded: the newest KEPT changes, answers only for requests under way.
- A request has one answer: `request` returns it or raises `Refusal` with the server's words, or `Lost` when the connection
  broke meanwhile (then nobody knows whether it was carried out; updates with an updateId may simply be sent again). What the
  server did not read because there were too many messages is sent again after a wait; what it refuses for good is not said
  again at the next connection.
- What it does not know it leaves alone: a message of an unknown type, one that is not JSON. A gap in `seq` tells of it.

This module imports nothing of the server. `batchcast watch` and the tests use it as it is, client-examples/python_client.py
is a short program around it: so there is one copy of what a client must get right, and it is a file that can be taken away.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import random
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

Event: TypeAlias = dict[str, Any]
Message: TypeAlias = dict[str, Any]
Viewport: TypeAlias = Mapping[str, float] | Sequence[float]

FIRST_WAIT_S: Final = 0.5
LONGEST_WAIT_S: Final = 30.0
LONGEST_NAMED_S: Final = 600.0
SLOWER_ATTEMPTS: Final = 5
"""After being closed for flooding the backoff starts as if so many attempts had failed."""
ANSWER_S: Final = 30.0
FRAME_BYTES: Final = 64 << 20
KEPT: Final = 1000
TOO_MANY_S: Final = 1.0
HELD_MOST: Final = 500
HELD_BYTES: Final = 96 << 10
"""What the server takes as `held`: so many ids, in a message of 128 KiB with everything else in it."""
QUIET_S: Final = 20.0
PULSE_S: Final = 20.0
CLOSE_S: Final = 10.0
PARTS: Final = ("creates", "updates", "deletes")

COME_BACK: Final = {
    1002: "no",
    1003: "no",
    1007: "no",
    1009: "no",
    1012: "named",
    4001: "token",
    4002: "slower",
}
"""What to do after a close code; every other one means: come back with backoff."""
NEVER: Final = frozenset((400, 401, 403, 404))
"""Answers to the handshake that coming back can't change."""


class Refusal(Exception):
    """The server said no: `code` is from its error table, `retry` whether the same request may succeed later."""

    def __init__(self, message: Message) -> None:
        super().__init__(f"{message.get('message')} ({message.get('code')})")
        self.code = str(message.get("code"))
        self.field = message.get("field")
        self.retry = bool(message.get("retry"))


class Lost(Exception):
    """The connection is gone; the text says why."""


class Closed(Lost):
    """The connection is gone and this client does not come back by itself: closed for good, or the token has expired."""


@dataclass(frozen=True, slots=True)
class Change:
    """What one message did to the view. `matches`: the digest and seq were right afterwards."""

    type: str
    message: Message
    creates: list[Event] = field(default_factory=list)
    updates: list[Event] = field(default_factory=list)
    deletes: list[str] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    matches: bool = True


class View:
    """The events held, their digest, and the number of the last change. Pure: messages in, changes out."""

    def __init__(self) -> None:
        self.events: dict[str, Event] = {}
        self.seq = 0
        self._sum = 0

    @property
    def digest(self) -> str:
        """Over what is held, as the server computes it."""
        return f"{self._sum:016x}"

    def ranked(self) -> list[Event]:
        """The best first: by score, then start, then id."""
        return sorted(self.events.values(), key=lambda e: (-e.get("relevanceScore", 0.0), str(e.get("start")), e["id"]))

    def held(self) -> list[list[Any]]:
        """Ids and versions, as `resume` and `resync` want them."""
        return [[event["id"], event["version"]] for event in self.events.values()]

    def said(self) -> Message:
        """`held` as a field of a message; nothing when there is more than a message can say: then all is sent anew."""
        held = self.held()
        fits = len(held) <= HELD_MOST and len(json.dumps(held)) <= HELD_BYTES
        return {"held": held} if fits else {}

    def apply(self, message: Message) -> Change:
        """One change message: deletes, then creates, then updates."""
        creates, updates, deletes = self._parts(message)
        for event_id in deletes:
            self._put(event_id, None)
        for event in (*creates, *updates):
            self._put(event["id"], {**self.events.get(event["id"], {}), **event})
        follows = message["seq"] == self.seq + 1
        self.seq = message["seq"]
        matches = follows and message.get("digest", self.digest) == self.digest
        return Change(message["type"], message, creates, updates, deletes, _reasons(message), matches)

    def _parts(self, message: Message) -> tuple[list[Event], list[Event], list[str]]:
        kind = message["type"]
        if kind == "replace-all":
            return self._replaced(message["events"])
        if kind == "add-event":
            return [message["event"]], [], []
        if kind == "update-event":
            return [], [message["event"]], []
        if kind == "delete-event":
            return [], [], [message["id"]]
        # Of a kind of change that we don't know only seq and digest count.
        parts = message.get("updates", {})
        creates, updates, deletes = (parts.get(name, []) for name in PARTS)
        return creates, updates, deletes

    def _replaced(self, events: list[Event]) -> tuple[list[Event], list[Event], list[str]]:
        """A snapshot as a difference: what it does not name is gone, and nothing of an old state shines through."""
        named = {event["id"] for event in events}
        known = named & self.events.keys()
        gone = [event_id for event_id in self.events if event_id not in named]
        for event_id in known:
            self._put(event_id, None)
        return [e for e in events if e["id"] not in known], [e for e in events if e["id"] in known], gone

    def _put(self, event_id: str, event: Event | None) -> None:
        before = self.events.pop(event_id, None)
        if before is not None:
            self._sum -= _hash(before)
        if event is not None:
            self.events[event_id] = event
            self._sum += _hash(event)
        self._sum %= 1 << 64


def _hash(event: Event) -> int:
    text = f"{event['id']}\n{event['version']}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _reasons(message: Message) -> dict[str, str]:
    if message["type"] == "delete-event":
        return {message["id"]: message["reason"]} if "reason" in message else {}
    return dict(message.get("updates", {}).get("reasons", {}))


class Client:
    """See the module's docstring. `token` may be a function that gives a fresh one after the old one has expired."""

    def __init__(
        self,
        url: str,
        *,
        viewport: Viewport,
        token: str | Callable[[], str] | None = None,
        filters: Sequence[Message] = (),
        max_events: int | None = None,
        location: Mapping[str, float] | None = None,
        fields: str | None = None,
        reasons: bool = True,
        options: Mapping[str, Any] | None = None,
        reconnect: bool = True,
        quiet_s: float = QUIET_S,
        pulse_s: float = PULSE_S,
        jitter: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.url = url
        self.view = View()
        self.registered: Message = {}
        self.notices: deque[Message] = deque(maxlen=KEPT)
        self.problems: deque[Refusal] = deque(maxlen=KEPT)
        self.connections = 0
        self.divergences = 0
        self._token = token
        self._wishes: Message = {
            "viewport": _box(viewport),
            "filters": list(filters),
            "maxEvents": max_events,
            "location": location,
            "fields": fields,
            "reasons": reasons,
            **(options or {}),
        }
        self._reconnect = reconnect
        self._quiet_s, self._pulse_s = quiet_s, pulse_s
        self._jitter = jitter
        self._sleep = sleep
        self._socket: ClientConnection | None = None
        self._coming: asyncio.Future[None] | None = None
        self._changes: deque[Change] = deque(maxlen=KEPT)
        self._answers: dict[str, Message | None] = {}
        self._refs = 0
        self._attempt = 0
        self._wait_s = 0.0
        self._why = "this client is closed"
        self._handed_over = 0
        self._resyncs = 0
        self._resync_owed = False
        self._resync_ref: str | None = None

    # ---- what a program uses ------------------------------------------------------------------------------------------

    @property
    def events(self) -> dict[str, Event]:
        """What is held, by id; the client's own, don't change it."""
        return self.view.events

    @property
    def digest(self) -> str:
        """Over what is held; compare it with a change's `message["digest"]`."""
        return self.view.digest

    @property
    def session(self) -> str | None:
        """The session's name, once registered."""
        return self.registered.get("session")

    @property
    def connected(self) -> bool:
        """Is there a connection just now?"""
        return self._socket is not None

    def ranked(self) -> list[Event]:
        """What is held, the best first."""
        return self.view.ranked()

    async def __aenter__(self) -> Client:
        try:
            await self._arrive()
            while not self._changes:
                await self._receive()
        except BaseException:
            await self.close()
            raise
        self._changes.clear()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Leave; afterwards the client can't be used any more."""
        self._reconnect = False
        coming, self._coming = self._coming, None
        if coming is not None:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)
        socket, self._socket = self._socket, None
        if socket is not None:
            await socket.close()

    async def next_change(self, timeout_s: float | None = None) -> Change:
        """The next change of the view, in order; comes back by itself meanwhile. TimeoutError when none came in time."""
        async with asyncio.timeout(timeout_s):
            while not self._changes:
                await self._receive()
        return self._changes.popleft()

    async def request(self, kind: str, **fields: Any) -> Message:
        """Send one message and wait for its answer; its fields are the protocol's."""
        await self._come_back()
        return await self._ask(kind, **fields)

    async def set_viewport(self, viewport: Viewport) -> Message:
        """Look elsewhere; the answer (`changes`) is also seen as a change."""
        return await self._wish("viewport-update", "viewport", _box(viewport))

    async def set_filters(self, filters: Sequence[Message]) -> Message:
        """Look for something else; the answer (`changes`) is also seen as a change."""
        return await self._wish("filters-update", "filters", list(filters))

    async def _wish(self, kind: str, name: str, value: object) -> Message:
        """From now on, also at the next connection; unless it is refused for good."""
        before, self._wishes[name] = self._wishes[name], value
        try:
            return await self.request(kind, **{name: value})
        except Refusal as refusal:
            if not refusal.retry:
                self._wishes[name] = before
            raise

    async def resync(self, *, held: bool = True) -> Message:
        """Ask for the difference to what is held, or for everything."""
        return await self.request("resync", **(self.view.said() if held else {}))

    # ---- the connection -----------------------------------------------------------------------------------------------

    async def _arrive(self) -> None:
        """One attempt. When whoever waits for it stops waiting it goes on, for the next who waits."""
        if self._coming is None:
            self._coming = asyncio.ensure_future(self._come())
        try:
            await asyncio.shield(self._coming)
        finally:
            if self._coming is not None and self._coming.done():
                self._coming = None

    async def _come(self) -> None:
        """One attempt: connect, say who we are, register."""
        try:
            self._socket = await connect(
                self.url,
                compression=None,
                max_size=FRAME_BYTES,
                ping_interval=self._quiet_s,
                ping_timeout=self._pulse_s,
                close_timeout=min(CLOSE_S, self._pulse_s),
            )
        except (OSError, InvalidHandshake, TimeoutError) as error:
            raise self._not_there(error) from None
        self.connections += 1
        self.view.seq, self._resyncs, self._resync_owed, self._resync_ref = 0, 0, False, None
        if self._token is not None:
            await self._identify(self._token)
        self.registered = await self._ask("register", **self._registration())

    async def _identify(self, token: str | Callable[[], str]) -> None:
        """A token that is not taken is asked for once more, when there is somebody to ask."""
        try:
            await self._ask("authenticate", token=token() if callable(token) else token)
        except Refusal as refusal:
            if refusal.code != "unauthorized" or not callable(token):
                raise
            await self._ask("authenticate", token=token())

    def _registration(self) -> Message:
        wishes = {name: value for name, value in self._wishes.items() if value is not None}
        if self.session is None:
            return wishes
        resume: Message = {"session": self.session, **self.view.said()}
        if self._handed_over:
            resume["seq"] = self._handed_over
        return {**wishes, "resume": resume}

    async def _come_back(self) -> None:
        """Wait as long as is asked for, try again; until it works or can't."""
        while self._socket is None or self._coming is not None:
            if self._coming is None:
                if not self._reconnect:
                    raise Closed(self._why)
                await self._sit_out()
            try:
                await self._arrive()
            except Closed:
                raise
            except Lost:
                continue
            except Refusal as refusal:
                await self._drop()
                if not refusal.retry:
                    raise

    async def _sit_out(self) -> None:
        """Wait; a wait that is cut off by somebody's timeout goes on where it was."""
        now = asyncio.get_running_loop().time
        started = now()
        try:
            await self._sleep(self._wait_s)
        except asyncio.CancelledError:
            self._wait_s = max(0.0, self._wait_s - (now() - started))
            raise

    def _backoff(self) -> float:
        """Full jitter: anything up to a bound that doubles with each attempt."""
        bound = min(LONGEST_WAIT_S, FIRST_WAIT_S * float(2**self._attempt))
        self._attempt = min(self._attempt + 1, 20)
        return bound * self._jitter()

    def _not_there(self, error: Exception) -> Lost:
        status = error.response.status_code if isinstance(error, InvalidStatus) else 0
        text = f"cannot connect to {self.url}: {error}"
        self._wait_s = self._backoff()
        if isinstance(error, InvalidStatus):
            self._wait_s = max(self._wait_s, _seconds(error.response.headers.get("Retry-After")))
        return Closed(text) if status in NEVER else Lost(text)

    def _gone(self, closed: ConnectionClosed) -> Lost:
        """Note when to come back, or that there is no coming back."""
        self._socket = None
        code, reason = (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, "")
        what = COME_BACK.get(code, "backoff")
        self._why = f"closed by the server: {code} {reason}".strip()
        if what == "no" or (what == "token" and not callable(self._token)):
            self._reconnect = False
            return Closed(self._why)
        if what == "slower":
            self._attempt = max(self._attempt, SLOWER_ATTEMPTS)
        self._wait_s = self._backoff() + (_named_wait_s(reason) if what == "named" else 0.0)
        return Lost(self._why)

    async def _drop(self) -> None:
        self._wait_s = self._backoff()
        socket, self._socket = self._socket, None
        if socket is not None:
            await socket.close()

    # ---- messages -----------------------------------------------------------------------------------------------------

    async def _ask(self, kind: str, **fields: Any) -> Message:
        self._refs += 1
        ref = f"r{self._refs}"
        message = {"type": kind, "ref": ref, **fields}
        try:
            async with asyncio.timeout(ANSWER_S):
                answer = await self._exchange(ref, message)
                while kind not in ("authenticate", "register") and _unread(answer):
                    await self._sleep(_seconds(answer.get("retryAfterMs"), 1000) or TOO_MANY_S)
                    answer = await self._exchange(ref, message)
        except TimeoutError:
            await self._drop()
            raise Lost(f"no answer to {kind} in {ANSWER_S:.0f} s") from None
        if answer["type"] == "error":
            raise Refusal(answer)
        return answer

    async def _exchange(self, ref: str, message: Message) -> Message:
        self._answers[ref] = None
        try:
            await self._send(message)
            while (answer := self._answers[ref]) is None:
                await self._read()
        finally:
            del self._answers[ref]
        return answer

    async def _receive(self) -> None:
        """Take one message in; when the connection is gone, come back instead."""
        await self._come_back()
        try:
            await self._pay_resync()
            await self._read()
        except Closed:
            raise
        except Lost:
            return

    async def _send(self, message: Message) -> None:
        if self._socket is None:
            raise Lost("not connected")
        try:
            await self._socket.send(json.dumps(message))
        except ConnectionClosed as closed:
            raise self._gone(closed) from None

    async def _read(self) -> None:
        if self._socket is None:
            raise Lost("not connected")
        try:
            text = await self._socket.recv()
        except ConnectionClosed as closed:
            raise self._gone(closed) from None
        message = _parsed(text)
        if message is not None:
            self._take(message)

    def _take(self, message: Message) -> None:
        """State moves here, in one step without waiting."""
        ref = message.get("ref")
        if "seq" in message:
            self._changed(message)
        elif message.get("type") == "error" and ref not in self._answers:
            self.problems.append(Refusal(message))
        elif ref is None:
            self.notices.append(message)
        if ref in self._answers:
            self._answers[ref] = message
        if ref is not None and ref == self._resync_ref:
            self._resync_ref = None

    def _changed(self, message: Message) -> None:
        change = self.view.apply(message)
        self._changes.append(change)
        self._handed_over, self._attempt = self.view.seq, 0
        if change.matches:
            self._resyncs = 0
        elif self._resync_ref is None or message.get("ref") == self._resync_ref:
            self.divergences += 1
            self._resync_owed = self._resyncs < 2
            self._resyncs = (self._resyncs + 1) % 3

    async def _pay_resync(self) -> None:
        """First with what is held, then for everything; when even that differs, not again before the next change."""
        if not self._resync_owed:
            return
        self._refs += 1
        self._resync_owed, self._resync_ref = False, f"r{self._refs}"
        held = self.view.said() if self._resyncs == 1 else {}
        await self._send({"type": "resync", "ref": self._resync_ref, **held})


def _box(viewport: Viewport) -> dict[str, float]:
    if isinstance(viewport, Mapping):
        return dict(viewport)
    west, south, east, north = viewport
    return {"west": west, "south": south, "east": east, "north": north}


def _parsed(text: str | bytes) -> Message | None:
    """A message, or None: what is none is left alone."""
    try:
        message = json.loads(text)
    except ValueError:
        return None
    return message if isinstance(message, dict) and isinstance(message.get("type"), str) else None


def _unread(answer: Message) -> bool:
    """Was it refused unread, for being one of too many? What names a `field` is about something else than the rate."""
    return answer["type"] == "error" and answer.get("code") == "too_many" and "field" not in answer


def _named_wait_s(reason: str) -> float:
    """The wait that a restarting server names in its close reason, {"retryAfterMs": n}; 0 when it names none."""
    try:
        return _seconds(json.loads(reason)["retryAfterMs"], 1000)
    except (ValueError, KeyError, TypeError):
        return 0.0


def _seconds(text: object, unit: float = 1) -> float:
    """A wait as somebody else wrote it: never negative, never longer than LONGEST_NAMED_S."""
    try:
        seconds = float(str(text)) / unit
    except ValueError:
        return 0.0
    return min(max(seconds, 0.0), LONGEST_NAMED_S) if math.isfinite(seconds) else 0.0
