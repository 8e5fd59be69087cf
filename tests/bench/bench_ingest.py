"""Durable ingest: counters over HTTP and WebSocket, each acknowledged after its commit, the load generator on the same cores."""

from __future__ import annotations

import asyncio
import random
import statistics
import struct
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import orjson
import uvloop

from server.edge.secrets import mint
from server.settings import load
from tests.bench import crowds
from tests.bench.crowds import NOW_MS, event_id
from tests.bench.processes import Cpu
from tests.bench.served import SECRET, Server, serving
from tests.bench.suite import Context, Row

EVENTS: Final = 10_000
CONNECTIONS: Final = 4
ROWS: Final = 1000
"""In one array."""
AHEAD: Final = 1000
"""Messages that a WebSocket producer sends before it has read their answers."""
RATE: Final = 5000
ROUNDS: Final = 3


@dataclass(frozen=True, slots=True)
class Load:
    """What one round of a generator did."""

    rows: int
    seconds: float
    latencies: tuple[float, ...]
    server: Cpu
    client_s: float

    @property
    def rate(self) -> float:
        """Rows a second."""
        return self.rows / self.seconds

    def cpu(self) -> str:
        """Who spent how much on a row."""
        micros = (x / self.rows * 1e6 for x in (self.server.own, self.server.below, self.client_s))
        return "CPU a row: server {:.1f} us, PostgreSQL {:.1f} us, generator {:.1f} us".format(*micros)

    def within(self, share: float) -> float:
        """The latency that so many stay within, ms."""
        return sorted(self.latencies)[min(len(self.latencies) - 1, int(share * len(self.latencies)))] * 1e3


class Generator:
    """Producers in this process."""

    def __init__(self, server: Server, seed: int, seconds: float) -> None:
        self.server = server
        self.dice = random.Random(seed)
        self.seconds = seconds
        self.rows = 0
        self.latencies: list[float] = []
        self.ends = 0.0

    def run(self, one: Callable[[int], Awaitable[None]]) -> Load:
        """All connections for so long, after a second that does not count."""
        return uvloop.run(self._run(one))

    async def _run(self, one: Callable[[int], Awaitable[None]]) -> Load:
        await self._for(1.0, one)
        self.rows, self.latencies = 0, []
        before, spent, began = self.server.cpu(), time.process_time(), time.monotonic()
        await self._for(self.seconds, one)
        seconds, spent = time.monotonic() - began, time.process_time() - spent
        return Load(self.rows, seconds, tuple(self.latencies), self.server.cpu() - before, spent)

    async def _for(self, seconds: float, one: Callable[[int], Awaitable[None]]) -> None:
        self.ends = time.monotonic() + seconds
        await asyncio.gather(*(one(number) for number in range(CONNECTIONS)))

    def update(self, **more: object) -> dict[str, object]:
        """Somebody counts on some event."""
        return {"eventId": event_id(self.dice.randrange(EVENTS)), "delta": {"scanCount": 1}, **more}

    async def arrays(self, number: int) -> None:
        """POST array after array, each when the one before is answered."""
        port = int(self.server.http_url.rpartition(":")[2])
        requests = [_post(self.server, orjson.dumps([self.update() for _ in range(ROWS)])) for _ in range(6)]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        turn = 0
        while time.monotonic() < self.ends:
            writer.write(requests[turn % len(requests)])
            turn += 1
            status, said = await _answer(reader)
            assert status == 200, said[:300]
            assert orjson.loads(said)["accepted"] == ROWS, said[:300]
            self.rows += ROWS
        writer.close()

    async def singles(self, number: int) -> None:
        """One update a message, many under way."""
        socket = await Socket.open(self.server, number)
        frames = [_frame(self.update(type="popularity-update", ref=f"r{n}")) for n in range(2000)]
        sent = answered = 0
        while time.monotonic() < self.ends or answered < sent:
            room = AHEAD - (sent - answered)
            if room >= AHEAD // 8 and time.monotonic() < self.ends:
                socket.writer.write(b"".join(frames[(sent + n) % len(frames)] for n in range(room)))
                sent += room
            acks = await socket.messages()
            assert all(b'"ack"' in ack for ack in acks), acks[:1]
            answered += len(acks)
            self.rows += len(acks)
        socket.writer.close()

    async def steady(self, number: int) -> None:
        """RATE updates a second between all connections, whatever the server does; each is timed from when it was due."""
        socket = await Socket.open(self.server, number)
        each = RATE / CONNECTIONS
        began, seconds = time.monotonic(), self.ends - time.monotonic()
        await asyncio.gather(
            self._send(socket, began, each, int(seconds * each)), self._time(socket, began, each, int(seconds * each))
        )
        socket.writer.close()

    async def _send(self, socket: Socket, began: float, each: float, count: int) -> None:
        sent = 0
        while sent < count:
            due = min(count, int((time.monotonic() - began) * each) + 1)
            if due > sent:
                updates = (self.update(type="popularity-update", ref=str(n)) for n in range(sent, due))
                socket.writer.write(b"".join(map(_frame, updates)))
                sent = due
            await asyncio.sleep(0.001)

    async def _time(self, socket: Socket, began: float, each: float, count: int) -> None:
        while count:
            acks = await socket.messages()
            now = time.monotonic()
            for ack in map(orjson.loads, acks):
                assert ack["type"] == "ack", ack
                self.latencies.append(now - (began + int(ack["ref"]) / each))
            count -= len(acks)
            self.rows += len(acks)


class Socket:
    """A producer's WebSocket, as cheap as can be: masks are zero."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer, self._rest = reader, writer, b""

    @classmethod
    async def open(cls, server: Server, number: int) -> Socket:
        """Connected, as a producer of its own."""
        reader, writer = await asyncio.open_connection("127.0.0.1", server.ws_port, limit=1 << 20)
        head = (
            f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{server.ws_port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            f"Authorization: Bearer {_token(server, 'producer', f'p{number}')}\r\n\r\n"
        )
        writer.write(head.encode())
        said = await reader.readuntil(b"\r\n\r\n")
        assert said.startswith(b"HTTP/1.1 101"), said
        return cls(reader, writer)

    async def messages(self) -> list[bytes]:
        """Those that have come; waits for more bytes first."""
        data = self._rest + await self.reader.read(1 << 18)
        assert data, "the server closed the connection"
        found, at = [], 0
        while at + 4 <= len(data):
            size, start = data[at + 1], at + 2
            if size == 126:
                size, start = struct.unpack_from(">H", data, start)[0], at + 4
            if start + size > len(data):
                break
            if data[at] & 15 == 1:
                found.append(data[start : start + size])
            at = start + size
        self._rest = data[at:]
        return found


def _frame(message: dict[str, object]) -> bytes:
    payload = orjson.dumps(message)
    size = len(payload)
    head = bytes((0x81, 0x80 | size)) if size < 126 else b"\x81\xfe" + size.to_bytes(2, "big")
    return head + bytes(4) + payload


def _token(server: Server, role: str, sub: str) -> str:
    return mint(load({"JWT_SECRET": SECRET, "DATA_DIR": str(server.data_dir)}), sub=sub, roles=[role])


def _post(server: Server, body: bytes) -> bytes:
    head = (
        f"POST /popularity HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {_token(server, 'admin', 'bench')}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    lengths = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    return int(head.split(b" ", 2)[1]), await reader.readexactly(int(lengths[0].partition(b":")[2]))


def ingest(context: Context) -> Iterator[Row]:
    """Rates and latency, in turns on one server."""
    seconds = 1.0 if context.small else 4.0
    with serving(PRODUCER_MESSAGES_PER_S=1_000_000) as server:
        _fill(server, context.seed)
        generator = Generator(server, context.seed, seconds)
        rounds = [
            [generator.run(one) for one in (generator.arrays, generator.singles, generator.steady)]
            for _ in range(ROUNDS)
        ]
    arrays, singles, steady = (sorted(kind, key=lambda load: load.rate) for kind in zip(*rounds, strict=True))
    yield _rate(
        "ingest, arrays over HTTP", f"arrays of {ROWS} counters, {CONNECTIONS} connections", arrays, 30_000, 45_000
    )
    yield _rate(
        "ingest, WebSocket messages", f"one counter a message, {CONNECTIONS} connections", singles, 15_000, 22_000
    )
    yield Row(
        f"ingest, p99 at {RATE:,}/s",
        "from when a message was due until its acknowledgement was read",
        statistics.median(load.within(0.99) for load in steady),
        "ms",
        30,
        15,
        machine=True,
        note=f"p50 {steady[1].within(0.5):.1f} ms, {steady[1].rate:,.0f}/s; {steady[1].cpu()}",
    )


def _rate(name: str, work: str, loads: Sequence[Load], bar: float, goal: float) -> Row:
    middle = loads[len(loads) // 2]
    work = f"{work}; rows a second, acknowledged after the commit"
    return Row(name, work, middle.rate, "/s", bar, goal, more=True, machine=True, note=middle.cpu())


def _fill(server: Server, seed: int) -> None:
    crowd, _ = crowds.square(seed, EVENTS, 1, 0.1)
    shift = round(time.time() * 1000) - NOW_MS
    lines = (
        {
            "id": event.id,
            "title": event.title,
            "location": {"latitude": event.latitude, "longitude": event.longitude},
            "start": event.start_ms + shift,
        }
        for event in crowd.events()
    )
    answer = server.ask("POST", "/events", b"\n".join(map(orjson.dumps, lines)), "application/x-ndjson")
    assert answer["accepted"] == EVENTS, answer


BENCHES: Final = (ingest,)
