"""The connections of `batchcast load`: real WebSockets, light enough that thousands fit in one process.

    Peer        a connection over the Sans-I/O layer of `websockets`: no task, no stream, a callback a message
    Watcher     a viewer: applies every frame with the code of server/client.py and checks its seq and digest
    Sender      a producer: sends popularity, remembers when, and takes the answers
    Sightings   when each counter of ours was sent, so that whoever sees it in a frame knows how old it is

A watcher whose digest or seq differs counts one divergence, keeps what was wrong with the first, and asks for everything anew,
so that one broken frame is one divergence. Bounded: SENT_KEPT sent counters an event, LATENCIES_KEPT measured times a kind.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.uri import WebSocketURI, parse_uri

from server.client import Event, Message, View
from server.edge.clock import Clock

SENT_KEPT: Final = 256
LATENCIES_KEPT: Final = 200_000
"""Measured times of one kind; later ones are counted, not kept."""
FRAME_BYTES: Final = 64 << 20
CLOSED_WELL: Final = frozenset((1000, 1001))
COUNTER: Final = "scanCount"
"""What is counted up: its value says which update it comes from."""


class Peer(asyncio.Protocol):
    """One connection. `opened` is done once the handshake is; `heard` gets each message, `lost` the end, once."""

    def __init__(
        self, uri: WebSocketURI, heard: Callable[[bytes], None], lost: Callable[[int, str], None], token: str | None
    ) -> None:
        self._protocol = ClientProtocol(uri, max_size=FRAME_BYTES)
        self._heard = heard
        self._lost = lost
        self._token = token
        self._parts: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self.closing = False
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        request = self._protocol.connect()
        if self._token is not None:
            request.headers["Authorization"] = f"Bearer {self._token}"
        self._protocol.send_request(request)
        self._flush()

    def data_received(self, data: bytes) -> None:
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            self._take(event)
        self._flush()

    def eof_received(self) -> None:
        self._protocol.receive_eof()
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._protocol.state is not self._protocol.state.CLOSED:
            self._protocol.receive_eof()
        code, reason = self._protocol.close_code or 1006, self._protocol.close_reason or str(exc or "")
        if not self.opened.done():
            self.opened.set_exception(ConnectionError(reason or "closed in the handshake"))
        elif self.opened.exception() is None and not self.closing:
            self._lost(code, reason)

    def send(self, message: Mapping[str, object]) -> None:
        """One message; nothing, once the connection is gone."""
        if (
            self._transport is None
            or self._transport.is_closing()
            or self._protocol.state is not self._protocol.state.OPEN
        ):
            return
        self._protocol.send_text(orjson.dumps(message))
        self._flush()

    def close(self) -> None:
        """Say goodbye."""
        self.closing = True
        if self._protocol.state is self._protocol.state.OPEN:
            self._protocol.send_close(1000)
            self._flush()

    def cut(self) -> None:
        """End at once."""
        self.closing = True
        if self._transport is not None:
            self._transport.abort()

    def _take(self, event: object) -> None:
        if isinstance(event, Response):
            self._shaken(self._protocol.handshake_exc, event)
        elif isinstance(event, Frame) and event.opcode in (Opcode.TEXT, Opcode.CONT):
            self._parts.append(bytes(event.data))
            if event.fin:
                whole, self._parts = b"".join(self._parts), []
                self._heard(whole)

    def _shaken(self, error: Exception | None, response: Response) -> None:
        if self.opened.done():
            return
        if error is None:
            self.opened.set_result(None)
        elif isinstance(error, InvalidHandshake):
            self.opened.set_exception(ConnectionError(f"HTTP {response.status_code}"))
        else:
            self.opened.set_exception(error)

    def _flush(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        for data in self._protocol.data_to_send():
            if data:
                transport.write(data)
            elif transport.can_write_eof():
                transport.write_eof()


@dataclass(slots=True)
class Latencies:
    """Times of one kind, in seconds."""

    values: list[float] = field(default_factory=list)
    count: int = 0

    def add(self, seconds: float) -> None:
        """One more."""
        self.count += 1
        if len(self.values) < LATENCIES_KEPT:
            self.values.append(seconds)


@dataclass(slots=True)
class Tally:
    """What all connections have met, added up as it happens."""

    frames: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    batch_entries: Latencies = field(default_factory=Latencies)
    """Not times: creates, updates and deletes of each batch."""
    batch_bytes: Latencies = field(default_factory=Latencies)
    urgent: Latencies = field(default_factory=Latencies)
    batched: Latencies = field(default_factory=Latencies)
    acks: Latencies = field(default_factory=Latencies)
    checked: int = 0
    divergences: int = 0
    first_divergence: str | None = None
    errors: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)


class Sightings:
    """When each value of a counter of ours was sent, and whether it was urgent."""

    def __init__(self, clock: Clock, tally: Tally, prefix: str) -> None:
        self._clock = clock
        self._tally = tally
        self.prefix = prefix
        self._sent: dict[str, dict[int, tuple[float, bool]]] = {}

    def sent(self, event_id: str, value: int, urgent: bool) -> None:
        """It leaves now."""
        values = self._sent.setdefault(event_id, {})
        values[value] = (self._clock.monotonic(), urgent)
        if len(values) > SENT_KEPT:
            del values[next(iter(values))]

    def seen(self, event: Event) -> None:
        """A viewer sees it now."""
        found = self._sent.get(event["id"], {}).get(event.get(COUNTER, -1))
        if found is not None:
            since, urgent = found
            (self._tally.urgent if urgent else self._tally.batched).add(self._clock.monotonic() - since)


class Ids(View):
    """A view that remembers of each event what its digest needs, and no more."""

    def _put(self, event_id: str, event: Event | None) -> None:
        super()._put(event_id, None if event is None else {"id": event["id"], "version": event["version"]})


class Watcher:
    """One viewer."""

    def __init__(self, number: int, tally: Tally, sightings: Sightings) -> None:
        self._number = number
        self._tally = tally
        self._sightings = sightings
        self._view = Ids()
        self._counts: dict[str, int] = {}
        self.peer: Peer | None = None
        self.registered: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def join(self, make: Callable[[Watcher], Any], registration: Mapping[str, object], token: str | None) -> None:
        """Connect, register, read the snapshot. ConnectionError when that does not work."""
        self.peer = await make(self)
        await self.peer.opened
        self.peer.send({"type": "register", **registration, **({} if token is None else {"token": token})})
        await self.registered

    def heard(self, text: bytes) -> None:
        """One message."""
        message = _parsed(text)
        kind = str(message.get("type"))
        self._tally.frames[kind] += 1
        self._tally.bytes += len(text)
        if kind == "error":
            self._refused(message)
        elif "seq" in message:
            self._changed(message, len(text))

    def lost(self, code: int, reason: str) -> None:
        """The server has ended it, or the way there broke."""
        self._tally.lost[f"{code} {reason}".strip()] += 1
        if not self.registered.done():
            self.registered.set_exception(ConnectionError(f"closed before the snapshot: {code} {reason}"))

    def _refused(self, message: Message) -> None:
        self._tally.errors[str(message.get("code"))] += 1
        if not self.registered.done():
            self.registered.set_exception(ConnectionError(f"{message.get('code')}: {message.get('message')}"))

    def _changed(self, message: Message, size: int) -> None:
        change = self._view.apply(message)
        self._tally.checked += 1
        if not change.matches:
            self._diverged(message)
        if change.type == "batch-update":
            entries = len(change.creates) + len(change.updates) + len(change.deletes)
            self._tally.batch_entries.add(entries)
            self._tally.batch_bytes.add(size)
        for event in change.updates:
            if event["id"].startswith(self._sightings.prefix):
                self._sighted(event)
        if not self.registered.done():
            self.registered.set_result(None)

    def _sighted(self, event: Event) -> None:
        value = event.get(COUNTER, 0)
        if self._counts.get(event["id"], -1) < value:
            self._counts[event["id"]] = value
            self._sightings.seen(event)

    def _diverged(self, message: Message) -> None:
        self._tally.divergences += 1
        if self._tally.first_divergence is None:
            self._tally.first_divergence = (
                f"viewer {self._number}, {message.get('type')} with seq {message.get('seq')}: the server says "
                f"{message.get('digest')}, this viewer holds {len(self._view.events)} events with {self._view.digest}"
            )
        assert self.peer is not None
        self.peer.send({"type": "resync"})


class Sender:
    """One producer's connection."""

    def __init__(self, clock: Clock, tally: Tally) -> None:
        self._clock = clock
        self._tally = tally
        self._waiting: dict[str, tuple[float, bool]] = {}
        self._refs = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.peer: Peer | None = None
        self.refused: deque[str] = deque(maxlen=10)

    @property
    def waiting(self) -> int:
        """Messages without an answer."""
        return len(self._waiting)

    def send(self, message: Mapping[str, object], *, timed: bool = True) -> None:
        """One message that is answered by its ref; `timed`: its answer is one of the latencies."""
        assert self.peer is not None
        self._refs += 1
        ref = str(self._refs)
        self._waiting[ref] = (self._clock.monotonic(), timed)
        self._idle.clear()
        self.peer.send({**message, "ref": ref})

    async def answered(self, limit_s: float) -> bool:
        """Wait until every answer is there; False when some never came."""
        return await self._clock.wait(self._idle, limit_s)

    def heard(self, text: bytes) -> None:
        """An answer."""
        message = _parsed(text)
        since, timed = self._waiting.pop(str(message.get("ref")), (None, False))
        if not self._waiting:
            self._idle.set()
        if message.get("type") == "error":
            self._tally.errors[str(message.get("code"))] += 1
            self.refused.append(str(message.get("message")))
        elif since is not None and timed:
            self._tally.acks.add(self._clock.monotonic() - since)

    def lost(self, code: int, reason: str) -> None:
        """The server has ended it."""
        self._tally.lost[f"producer: {code} {reason}".strip()] += 1
        self._waiting.clear()
        self._idle.set()


async def connect(
    url: str, heard: Callable[[bytes], None], lost: Callable[[int, str], None], token: str | None = None
) -> Peer:
    """A connection on its way; `opened` tells when it is there. OSError when there is nobody."""
    uri = parse_uri(url)
    loop = asyncio.get_running_loop()
    context = True if uri.secure else None
    _, peer = await loop.create_connection(lambda: Peer(uri, heard, lost, token), uri.host, uri.port, ssl=context)
    return peer


def _parsed(text: bytes) -> Message:
    """A message; what is none is an error of the server's."""
    try:
        message = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {"type": "error", "code": "not JSON"}
    return message if isinstance(message, dict) else {"type": "error", "code": "not an object"}
