"""Plays one row on a real server and compares."""

import asyncio
import zlib
from typing import Any

import orjson

from tests.serving import LIMIT_S
from tests.wire.conformance.values import CLOSE, EMPTY, OPEN, PONG, TEXT, Case, Door, frame, ping
from tests.wire.raw import Raw

PROBE = "does it go on?"
COMPRESSED = 0xC0
Heard = list[str | bytes]


async def play(port: int, case: Case, offer: bytes = b"") -> None:
    """One connection, one row."""
    raw = await Raw.open(port, case.offer or offer)
    try:
        await _say(raw, case.said, case.piece)
        if case.end == OPEN:
            raw.say(frame(TEXT, ping(PROBE)))
        heard, end = await listen(raw)
        assert end == case.end, f"ended with {end}, not {case.end}; heard {_short(heard)}"
        compare(heard, list(case.heard), whole=end == OPEN)
    finally:
        raw.leave()


async def knock(port: int, door: Door) -> None:
    """One request."""
    raw = await Raw.dial(port)
    try:
        await _say(raw, door.said, door.piece)
        head = (await raw.http()).decode("latin-1").lower().split("\r\n")
        assert int(head[0].split(" ")[1]) == door.status, head
        assert head[0].startswith("http/1.1 ")
        assert [line for line in door.has if line not in head] == [], head
        assert [line for line in head if line.partition(":")[0] in door.lacks] == [], head
        if door.status == 101:
            raw.say(frame(TEXT, ping(PROBE)))
            heard, end = await listen(raw)
            assert end == OPEN, end
            compare(heard, list(door.heard), whole=True)
        else:
            async with asyncio.timeout(LIMIT_S):
                await _body_and_end(raw, head)
    finally:
        raw.leave()


async def _body_and_end(raw: Raw, head: list[str]) -> None:
    """An answer that refuses has the body it announces, says that it is the last, and is."""
    assert "connection: close" in head, head
    size = next(int(line.split(":")[1]) for line in head if line.startswith("content-length:"))
    assert len(await raw.reader.read(-1)) == size


async def _say(raw: Raw, data: bytes, piece: int) -> None:
    if piece:
        await raw.piecemeal(data, piece)
    else:
        raw.say(data)


async def listen(raw: Raw) -> tuple[Heard, int]:
    """All that is said until the probe is answered or the connection ends; how it ended."""
    heard: Heard = []
    while True:
        first, payload = await raw.frame()
        if first == 0x80 | CLOSE:
            await raw.ended()
            return heard, int.from_bytes(payload[:2], "big") if payload else EMPTY
        one = _said(first, payload)
        if one == f"pong {PROBE}":
            return heard, OPEN
        heard.append(one)


def _said(first: int, payload: bytes) -> str | bytes:
    """A frame of the server's, in the words of a row; its own frames must be whole and final."""
    if first == 0x80 | PONG:
        return payload
    assert first in (0x80 | TEXT, COMPRESSED | TEXT), f"the server sent a frame that begins with {first:#x}"
    if first == COMPRESSED | TEXT:
        payload = _inflated(payload)
    message: dict[str, Any] = orjson.loads(payload)
    if message["type"] == "pong":
        return f"pong {message.get('ref', '')}"
    return str(message.get("code", message["type"]))


def _inflated(payload: bytes) -> bytes:
    """By itself, without the messages before it (RFC 7692, 7.1.1.1)."""
    engine = zlib.decompressobj(wbits=-15)
    return engine.decompress(payload + b"\0\0\xff\xff")


def compare(heard: Heard, due: Heard, *, whole: bool) -> None:
    """Pongs and messages, each in their order. When the connection ended, some answers may have been too late."""
    for kind in (bytes, str):
        got, wanted = [one for one in heard if isinstance(one, kind)], [one for one in due if isinstance(one, kind)]
        if not whole and kind is str:
            wanted = wanted[: len(got)]
        assert got == wanted, f"heard {_short(got)}, due was {_short(wanted)}"


def _short(heard: list[Any]) -> str:
    return f"{len(heard)} times {str(heard)[:300]}"
