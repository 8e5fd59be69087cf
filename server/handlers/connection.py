"""One WebSocket connection: an asyncio.Protocol over the library's Sans-I/O layer, without a task or a timer of its own.

                     bytes in                                              bytes out
    transport --> data_received --> ServerProtocol --> inbox --> take()    send(frame) ------> transport
                                        |  pong, close, HTTP answer ---------------------------> "

    at the door --request, admit--> open --close frame of either side, broken frame--> leaving --> lost
        |                                                                                ^
        +---- refused: HTTP answer -------------------------------------------------------+

The library does the handshake, parses and checks frames, answers pings and closes; this shell assembles messages, adds the
check of their UTF-8, and decides when to read. It promises its resident (whoever lives behind it, see `Resident`):

- Messages come whole and in order through `take`; `arrived` says that there are some. At most INBOX of them wait (and what
  else is in the same PIECE), of large ones only one: beyond that the rest of what was received stays unparsed and nothing
  more is read, so memory is bounded by a message and one read of the transport's, however fast a client sends. What came
  before the client closed is still to be had afterwards.
- `blocked` is true while the transport holds a byte that the kernel has not taken (its high-water mark is zero); `resumed`
  says that it no longer does. While blocked nothing but a close frame should be sent; of the pongs due meanwhile only the
  newest is kept, as RFC 6455 allows, so a client that pings and does not read costs nothing.
- `lost` is called exactly once, last, for every resident.

To the house (the server) it says what must happen within a time: a handshake, and the end once a close has begun. Who is late
is cut off by the house's sweep. A half-closed connection counts as closed: this protocol has its own way to say goodbye.
"""

from __future__ import annotations

import asyncio
import codecs
import http
import logging
from collections.abc import Sequence
from typing import Final, Protocol, TypeAlias, cast

import orjson
from websockets.exceptions import InvalidMessage
from websockets.extensions import Extension, ServerExtensionFactory
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import CONT, TEXT, Opcode
from websockets.frames import Frame as Incoming
from websockets.http11 import Request, Response
from websockets.protocol import CONNECTING
from websockets.server import ServerProtocol
from websockets.typing import ExtensionName

from server.core.identity import Identity
from server.edge.clock import Clock
from server.errors import Code, Refused
from server.handlers.framing import Payload, deflated, plain
from server.handlers.inflating import Inflate

HARD_LIMIT: Final = 1 << 20
"""Bytes of a message above which the connection is closed with 1009; compressed ones are measured inflated."""
INBOX: Final = 8
"""Messages parsed and not yet taken; above, reading stops."""
HEAVY: Final = 64 * 1024
"""Bytes of a message that fills the inbox alone."""
PIECE: Final = 4096
"""Bytes parsed at a time, so that thousands of tiny messages in one packet neither fill memory nor hold up the others."""
ROUND: Final = 4 * PIECE
"""Bytes parsed before the event loop's other work has its turn; nothing more is read until then."""
HANDSHAKE_S: Final = 10.0
HANDSHAKE_BYTES: Final = 32 * 1024
"""Bytes of a request; above, it is answered by 431."""
CLOSE_S: Final = 1.0
"""How long a close frame is tried before the socket is reset."""
PING: Final = b"\x89\x00"
VERSION: Final = "13"
"""Of the protocol (RFC 6455, section 4.4); who asks for another is told."""
ONCE: Final = ("Host", "Origin", "Authorization")
"""Headers that must not stand in a request twice: which of the two would count?"""

Message: TypeAlias = str | bytes
_library_log: Final = logging.getLogger("websockets.server")


class Resident(Protocol):
    """Who lives behind a connection once it is open."""

    def arrived(self) -> None:
        """There are messages to take."""

    def nudged(self) -> None:
        """A control frame or an empty fragment came: it says nothing and still costs work."""

    def resumed(self) -> None:
        """All that was sent has left."""

    def lost(self) -> None:
        """The connection is gone; messages that came before may still be taken."""


class House(Protocol):
    """The server that connections come to."""

    clock: Clock
    extensions: Sequence[ServerExtensionFactory]

    def greet(self, connection: Connection) -> bool:
        """One more at the door; False when there are too many. The handshake is expected in time."""

    def admit(self, request: Request, address: str) -> Identity:
        """Who it is; Refused when it may not come in."""

    def welcome(self, connection: Connection, who: Identity) -> Resident:
        """It is open: who will live behind it?"""

    def expect_end(self, connection: Connection) -> None:
        """It must be gone soon."""

    def gone(self, connection: Connection) -> None:
        """It is gone: nothing is expected of it any more."""


class Connection(asyncio.Protocol):
    """See above."""

    __slots__ = (
        "_asked",
        "_at",
        "_busy",
        "_heavy",
        "_house",
        "_inbox",
        "_leaving",
        "_parts",
        "_pinged_at",
        "_pong",
        "_protocol",
        "_resident",
        "_rest",
        "_text",
        "_transport",
        "_turned_off",
        "blocked",
        "blocked_at",
        "deflates",
        "heard_at",
        "lost",
        "open",
        "reading",
    )

    def __init__(self, house: House) -> None:
        self._house = house
        self._protocol = _Parser(max_size=HARD_LIMIT, extensions=house.extensions, logger=_library_log)
        self._resident: Resident | None = None
        self._transport: asyncio.Transport
        self._inbox: list[Message] = []
        self._rest, self._at = b"", 0
        self._parts: bytearray | None = None
        self._text = True
        self._pong: bytes | None = None
        self._asked = 0
        self._busy = self._heavy = self._leaving = self._turned_off = False
        self._pinged_at = 0.0
        self.heard_at = self.blocked_at = house.clock.monotonic()
        self.open = self.blocked = self.deflates = self.lost = False
        self.reading = True

    # What the resident uses.

    @property
    def id(self) -> str:
        """A name for it that no other connection has."""
        return self._protocol.id.hex

    @property
    def address(self) -> str:
        """Where the other side is; empty when that is unknown."""
        name = self._transport.get_extra_info("peername")
        return str(name[0]) if name else ""

    @property
    def transport(self) -> asyncio.Transport:
        """The way to the kernel, for those who measure it."""
        return self._transport

    def take(self) -> Message | None:
        """The oldest message not yet taken."""
        if not self._inbox:
            return None
        message = self._inbox.pop(0)
        self._heavy = self._heavy and bool(self._inbox)
        if self._rest and not self._busy:  # else it goes on by itself
            self._read_on()
        return message

    def send(self, payload: Payload) -> None:
        """One message; forgotten once the connection is no longer open. The caller minds `blocked`."""
        if self.open:
            self._transport.write(deflated(payload) if self.deflates else plain(payload))

    def close(self, code: int, reason: str) -> None:
        """Begin to close. What waits to be taken, and what still comes, is dropped."""
        if not self.open:
            return
        self._turned_off = True
        self._inbox.clear()
        self._protocol.send_close(code, reason)
        self._flush()
        self._read_on()

    def abort(self) -> None:
        """Reset it, whatever its state."""
        self._transport.abort()

    def tend(self, now: float, interval_s: float) -> bool:
        """Ping it when nothing was heard for an interval. True: also the ping went unanswered for as long."""
        if not self.open or self.blocked or not self.reading or now - self.heard_at < interval_s:
            return False
        if self._pinged_at > self.heard_at:
            return now - self._pinged_at >= interval_s
        self._pinged_at = now
        self._transport.write(PING)
        return False

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are of a class of their own
        self._transport.set_write_buffer_limits(high=0)
        if not self._house.greet(self):
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self.heard_at = self._house.clock.monotonic()
        self._rest = self._rest[self._at :] + data if self._rest else data
        self._at = 0
        self._read_on()

    def eof_received(self) -> None:
        self._protocol.receive_eof()
        self._flush()
        self._leave()

    def pause_writing(self) -> None:
        self.blocked = True
        self.blocked_at = self._house.clock.monotonic()

    def resume_writing(self) -> None:
        self.blocked = False
        self.heard_at = self._house.clock.monotonic()  # What it has taken shows that it is alive.
        if self._pong is not None:
            pong, self._pong = self._pong, None
            self._transport.write(pong)
        if self._resident is not None:
            self._resident.resumed()

    def connection_lost(self, exc: Exception | None) -> None:
        self.open, self.lost = False, True
        self._rest, self._at, self._parts, self._pong = b"", 0, None, None
        self._house.gone(self)
        self._untie()
        resident, self._resident = self._resident, None
        if resident is not None:
            resident.lost()

    def _untie(self) -> None:
        """Parser and errors refer to the protocol, and it to them; what is not in a circle needs no collector."""
        self._protocol.parser.close()
        self._protocol.parser_exc = self._protocol.handshake_exc = None

    # Reading.

    def _read_on(self) -> None:
        """Parse what has come as long as there is room for it; read more only when all of it is parsed."""
        self._busy = True
        until = min(len(self._rest), self._at + ROUND)
        while self._at < until and (self._roomy or not self.open):
            self._parse(self._piece())
        self._busy = False
        if self._at >= len(self._rest):
            self._rest, self._at = b"", 0
        elif self._at >= until:
            self._busy = True
            asyncio.get_running_loop().call_soon(self._read_later)
        self._let_read(not self._rest)

    def _read_later(self) -> None:
        self._busy = False
        if not self.lost:
            self._read_on()

    @property
    def _roomy(self) -> bool:
        return len(self._inbox) < INBOX and not self._heavy

    def _piece(self) -> bytes:
        """The next bytes to parse. A handshake is parsed line by line: frames right behind it must wait for its answer."""
        start, end = self._at, min(self._at + PIECE, len(self._rest))
        if self._protocol.state is CONNECTING:
            end = self._rest.find(b"\n", start, end) + 1 or end
            self._measure(end - start)
        self._at = end
        return self._rest if end - start == len(self._rest) else self._rest[start:end]

    def _let_read(self, wanted: bool) -> None:
        if wanted == self.reading or self._transport.is_closing():
            return
        self.reading = wanted
        if wanted:
            self.heard_at = self._house.clock.monotonic()
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _parse(self, piece: bytes) -> None:
        self._protocol.receive_data(piece)
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                self._knocked(event)
            elif isinstance(event, Incoming):
                self._framed(event)
        if not self._leaving and isinstance(self._protocol.handshake_exc, InvalidMessage):
            self._transport.write(_NOT_HTTP)
        self._flush()
        if self._inbox and self._resident is not None:
            self._resident.arrived()

    def _framed(self, frame: Incoming) -> None:
        """One frame, already checked."""
        if frame.opcode in (Opcode.PING, Opcode.PONG) or not (frame.data or frame.fin):
            assert self._resident is not None, "frames come after the handshake"
            self._resident.nudged()
        if frame.opcode > Opcode.BINARY or self._turned_off:
            return
        if frame.opcode is not CONT:
            self._text = frame.opcode is TEXT
        if not frame.fin:
            self._parts = bytearray() if self._parts is None else self._parts
            self._parts += frame.data
            return
        whole = bytes(frame.data) if self._parts is None else bytes(self._parts + frame.data)
        self._parts = None
        self._heavy = self._heavy or len(whole) > HEAVY
        self._inbox.append(whole.decode() if self._text else whole)

    # The door.

    def _measure(self, size: int) -> None:
        """The library bounds each line and their number, which together are too much to keep for a stranger."""
        self._asked += size
        if self._asked > HANDSHAKE_BYTES and not self._leaving:
            status = http.HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            self._protocol.send_response(self._protocol.reject(status, "the request is too long\n"))
            self._flush()

    def _knocked(self, request: Request) -> None:
        fault = _fault(request)
        if fault is not None:
            self._protocol.send_response(_answer(self._protocol, http.HTTPStatus.BAD_REQUEST, Code.BAD_MESSAGE, fault))
            return
        try:
            who = self._house.admit(request, self.address)
        except Refused as refusal:
            self._protocol.send_response(_refusal(self._protocol, refusal))
            return
        response = self._protocol.accept(request)
        if request.headers.get_all("Sec-WebSocket-Version") != [VERSION]:
            response.headers["Sec-WebSocket-Version"] = VERSION
        self._protocol.send_response(response)
        self._flush()
        if response.status_code == http.HTTPStatus.SWITCHING_PROTOCOLS:
            self.deflates = any(_deflates_fully(one) for one in self._protocol.extensions)
            self._protocol.extensions = [Utf8(), *(Inflate() for _ in self._protocol.extensions)]
            self.open = True
            self._resident = self._house.welcome(self, who)

    # The end.

    def _flush(self) -> None:
        """Send what the library has to say: an HTTP answer, a pong, a close frame, the end."""
        said, leaving = self._protocol.data_to_send(), self._protocol.close_expected()
        due = [data for data in said if data]
        if due and self.blocked:
            due, self._pong = (due[-1:], None) if leaving else ([], due[-1])
        if due:
            self._transport.write(due[0] if len(due) == 1 else b"".join(due))
        if said and not said[-1]:
            self._transport.write_eof()
        if leaving:
            self._leave()

    def _leave(self) -> None:
        """A close has begun, from either side: it must end soon."""
        self.open = False
        self._pong = None
        if not self._leaving:
            self._leaving = True
            self._house.expect_end(self)


class _Parser(ServerProtocol):
    """The library's, except that a close may come between the fragments of a message (RFC 6455, section 5.4): what was begun
    is dropped, and the close is answered like any other. The library calls it a broken frame."""

    def recv_frame(self, frame: Incoming) -> None:
        if frame.opcode is Opcode.CLOSE:
            self.current_size = None
        super().recv_frame(frame)


class Utf8(Extension):
    """Checks text where the library lets extensions see each frame, so that it fails as any broken frame does: at once, and
    before anything behind it has had an effect. First in the list, it sees what the others have made of an incoming frame."""

    name = ExtensionName("utf-8")  # Never negotiated.

    def __init__(self) -> None:
        self._open: codecs.IncrementalDecoder | None = None
        """Of the text message whose fragments are coming in."""

    def decode(self, frame: Incoming, *, max_size: int | None = None) -> Incoming:
        frame.check()  # Reserved bits first: what they would have meant is not known, and so whether it is text.
        data = bytes(frame.data)
        if frame.opcode is TEXT and frame.fin:
            data.decode()
        elif frame.opcode is TEXT:
            self._open = _new_decoder()
            self._open.decode(data)
        elif frame.opcode is CONT and self._open is not None:
            self._open.decode(data, frame.fin)
            self._open = None if frame.fin else self._open
        return frame

    def encode(self, frame: Incoming) -> Incoming:
        return frame


_new_decoder: Final = codecs.getincrementaldecoder("utf-8")


def _deflates_fully(extension: object) -> bool:
    """May shared compressed bytes be sent? They use the whole window; who asks for a smaller one is sent plain text."""
    return isinstance(extension, PerMessageDeflate) and extension.local_max_window_bits == 15


def _fault(request: Request) -> str | None:
    """What is wrong with a request that the library leaves to us (RFC 7230, section 5.4)."""
    for name in ONCE:
        if len(request.headers.get_all(name)) > 1:
            return f"the header {name} stands in the request more than once"
    return None if "Host" in request.headers else "the request names no Host"


def _refusal(protocol: ServerProtocol, refusal: Refused) -> Response:
    busy = refusal.code is Code.TOO_MANY
    status = http.HTTPStatus.SERVICE_UNAVAILABLE if busy else http.HTTPStatus(refusal.status)
    return _answer(protocol, status, refusal.code, refusal.message)


def _answer(protocol: ServerProtocol, status: http.HTTPStatus, code: Code, message: str) -> Response:
    response = protocol.reject(status, "")
    response.body = orjson.dumps({"error": {"code": code, "message": message}})
    del response.headers["Content-Length"], response.headers["Content-Type"]
    response.headers["Content-Length"] = str(len(response.body))
    response.headers["Content-Type"] = "application/json"
    if status == http.HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["Retry-After"] = "5"
    return response


_NOT_HTTP_BODY: Final = orjson.dumps({"error": {"code": Code.BAD_MESSAGE, "message": "this is no HTTP/1.1 request"}})
_NOT_HTTP: Final = (
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
    % (len(_NOT_HTTP_BODY), _NOT_HTTP_BODY)
)
