"""Ways to send frames over WebSocket, each a server in a process of its own: ours, other libraries, and the bare transport.

Every one has the same clients and sends the same distinct messages of 1 KiB, prepared before the clock runs: what is measured
is framing and handing over, and the kernel's share of it, until nothing waits in the process any more.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import multiprocessing as mp
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from multiprocessing.connection import Connection as Pipe
from typing import Any, Final, Protocol

import uvloop
from aiohttp import web
from websockets.asyncio.server import ServerConnection, serve

from server.batching.scores.frame import Frame, Shared
from server.core.identity import ANONYMOUS, Identity
from server.edge.clock import SystemClock
from server.handlers.connection import Connection
from server.handlers.framing import opening
from server.handlers.wire import Wire
from tests.bench.served import allow_files

SIZE: Final = 1024
HEAD: Final = b'{"type":"batch-update","seq":%09d'
POLL_S: Final = 0.001
GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Sender(Protocol):
    """One way: it listens, and sends prepared messages."""

    async def listen(self) -> int:
        """The port."""

    def prepare(self, head: bytes, body: bytes) -> Any:
        """One message, as it is given to `send`."""

    async def send(self, messages: Sequence[Any]) -> None:
        """One message to each connection."""

    def waiting(self) -> int:
        """Bytes that the kernel has not taken yet."""


class Raw(asyncio.Protocol):
    """The bare transport: frames built beforehand, a handshake and nothing else."""

    def __init__(self, transports: list[Any]) -> None:
        self._transports = transports

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        found = re.search(rb"Sec-WebSocket-Key: (\S+)", data)
        if found:
            accept = base64.b64encode(hashlib.sha1(found[1] + GUID).digest())
            said = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            self._transport.write(b"%bSec-WebSocket-Accept: %b\r\n\r\n" % (said, accept))
            self._transports.append(self._transport)


class Bare:
    """See Raw."""

    def __init__(self) -> None:
        self.transports: list[Any] = []

    async def listen(self) -> int:
        server = await asyncio.get_running_loop().create_server(lambda: Raw(self.transports), "127.0.0.1", 0)
        return int(server.sockets[0].getsockname()[1])

    def prepare(self, head: bytes, body: bytes) -> bytes:
        return opening(len(head) + len(body)) + head + body

    async def send(self, messages: Sequence[bytes]) -> None:
        for transport, message in zip(self.transports, messages, strict=True):
            transport.write(message)

    def waiting(self) -> int:
        return sum(transport.get_write_buffer_size() for transport in self.transports)


class Peer:
    """Lives behind one of our connections and says nothing."""

    def __init__(self, connection: Connection) -> None:
        self.wire = Wire(connection, lambda: None)

    def arrived(self) -> None: ...
    def nudged(self) -> None: ...

    def resumed(self) -> None:
        self.wire.resumed()

    def lost(self) -> None:
        self.wire.lost()


class Ours:
    """Our connection shell and its single writer, as the server uses them; it is also the house that connections come to."""

    def __init__(self) -> None:
        self.clock = SystemClock()
        self.extensions = ()
        self.wires: list[Wire] = []
        self.connections: list[Connection] = []

    async def listen(self) -> int:
        server = await asyncio.get_running_loop().create_server(lambda: Connection(self), "127.0.0.1", 0)
        return int(server.sockets[0].getsockname()[1])

    def prepare(self, head: bytes, body: bytes) -> Frame:
        return Frame(head, Shared(body))

    async def send(self, messages: Sequence[Frame]) -> None:
        for wire, message in zip(self.wires, messages, strict=True):
            if wire.free:
                wire.hand(message)
            else:
                await wire.until_free()
                wire.hand(message)

    def waiting(self) -> int:
        return sum(connection.transport.get_write_buffer_size() for connection in self.connections)

    # The house.

    def greet(self, connection: Connection) -> bool:
        return True

    def admit(self, request: object, address: str) -> Identity:
        return ANONYMOUS

    def welcome(self, connection: Connection, who: Identity) -> Peer:
        peer = Peer(connection)
        self.connections.append(connection)
        self.wires.append(peer.wire)
        return peer

    def expect_end(self, connection: Connection) -> None: ...
    def gone(self, connection: Connection) -> None: ...


class Websockets:
    """The asyncio server of `websockets`, its own send."""

    def __init__(self) -> None:
        self.connections: list[ServerConnection] = []

    async def listen(self) -> int:
        async def stay(connection: ServerConnection) -> None:
            self.connections.append(connection)
            await connection.wait_closed()

        server = await serve(stay, "127.0.0.1", 0, compression=None, ping_interval=None)
        return int(next(iter(server.sockets)).getsockname()[1])

    def prepare(self, head: bytes, body: bytes) -> bytes:
        return head + body

    async def send(self, messages: Sequence[bytes]) -> None:
        for connection, message in zip(self.connections, messages, strict=True):
            await connection.send(message, text=True)

    def waiting(self) -> int:
        return sum(connection.transport.get_write_buffer_size() for connection in self.connections)


class Aiohttp:
    """aiohttp's WebSocketResponse."""

    def __init__(self) -> None:
        self.answers: list[web.WebSocketResponse] = []
        self.transports: list[Any] = []

    async def listen(self) -> int:
        async def stay(request: web.Request) -> web.WebSocketResponse:
            answer = web.WebSocketResponse(compress=False)
            await answer.prepare(request)
            self.answers.append(answer)
            self.transports.append(request.transport)
            async for _ in answer:
                pass
            return answer

        app = web.Application()
        app.router.add_get("/ws", stay)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return int(runner.addresses[0][1])

    def prepare(self, head: bytes, body: bytes) -> str:
        return (head + body).decode()

    async def send(self, messages: Sequence[str]) -> None:
        for answer, message in zip(self.answers, messages, strict=True):
            await answer.send_str(message)

    def waiting(self) -> int:
        return sum(transport.get_write_buffer_size() for transport in self.transports)


class Picows:
    """picows, which is compiled."""

    def __init__(self) -> None:
        self.transports: list[Any] = []

    async def listen(self) -> int:
        import picows  # only `make bench` installs it

        transports = self.transports
        self.text = picows.WSMsgType.TEXT

        class Listener(picows.WSListener):  # type: ignore[misc]
            def on_ws_connected(self, transport: Any) -> None:
                transports.append(transport)

        server = await picows.ws_create_server(lambda _: Listener(), "127.0.0.1", 0)
        return int(server.sockets[0].getsockname()[1])

    def prepare(self, head: bytes, body: bytes) -> bytes:
        return head + body

    async def send(self, messages: Sequence[bytes]) -> None:
        for transport, message in zip(self.transports, messages, strict=True):
            transport.send(self.text, message)

    def waiting(self) -> int:
        return sum(transport.underlying_transport.get_write_buffer_size() for transport in self.transports)


SENDERS: Final[Mapping[str, Callable[[], Sender]]] = {
    "ours": Ours,
    "raw transport": Bare,
    "websockets": Websockets,
    "aiohttp": Aiohttp,
    "picows": Picows,
}


async def attend(name: str, pipe: Pipe) -> None:
    """Say the port; then, for each number of sweeps asked for, send that many to every connection and say the CPU seconds."""
    sender = SENDERS[name]()
    pipe.send(await sender.listen())
    while (said := await asyncio.to_thread(pipe.recv)) is not None:
        sweeps, connections = said
        filling = b"x" * (SIZE - len(HEAD % 0))
        work = [
            [sender.prepare(HEAD % (sweep * connections + number), filling) for number in range(connections)]
            for sweep in range(sweeps)
        ]
        pipe.send(await _timed(sender.send, sender.waiting, work))


async def _timed(
    send: Callable[[Sequence[Any]], Awaitable[None]], waiting: Callable[[], int], work: Sequence[Sequence[Any]]
) -> float:
    began = time.process_time()
    for messages in work:
        await send(messages)
        await asyncio.sleep(0)
    while waiting():
        await asyncio.sleep(POLL_S)
    return time.process_time() - began


def main(name: str, pipe: Pipe) -> None:
    """The process of one sender."""
    allow_files()
    uvloop.run(attend(name, pipe))


class Process:
    """A sender as the bench sees it."""

    def __init__(self, name: str) -> None:
        context = mp.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=main, args=(name, theirs), daemon=True)
        self._process.start()
        self.port: int = self._pipe.recv()

    def send(self, sweeps: int, connections: int) -> float:
        """CPU seconds of so many messages to each connection."""
        self._pipe.send((sweeps, connections))
        return float(self._pipe.recv())

    def close(self) -> None:
        """End it."""
        self._pipe.send(None)
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
