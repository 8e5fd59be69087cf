"""RFC 6455 read the slow, obvious way: what a list of frames must lead to. It knows no bytes, no packets and no library.

    wanted = read(frames)       # pongs and messages in their order, and how it may end

Where a frame is wrong in two ways, either of the two codes will do.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import orjson

from tests.wire.conformance.values import BINARY, CLOSE, CONT, EMPTY, OPEN, PING, TEXT

CODES = {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}
HARD = 1 << 20


@dataclass(frozen=True, slots=True)
class Said:
    """One frame of a client's."""

    opcode: int
    payload: bytes
    fin: bool = True
    rsv: int = 0
    masked: bool = True


@dataclass(slots=True)
class Wanted:
    """What it must lead to."""

    heard: list[str | bytes] = field(default_factory=list)
    ends: frozenset[int] = frozenset({OPEN})


def read(frames: Iterable[Said]) -> Wanted:
    """The whole stream."""
    wanted, parts, opcode = Wanted(), b"", None
    for said in frames:
        wrong = faults(said, parts, opcode)
        if wrong:
            wanted.ends = frozenset(wrong)
            return wanted
        if said.opcode == CLOSE:
            wanted.ends = frozenset({int.from_bytes(said.payload[:2], "big") if said.payload else EMPTY})
            return wanted
        if said.opcode == PING:
            wanted.heard.append(said.payload)
        elif said.opcode in (CONT, TEXT, BINARY):
            opcode, parts = opcode if said.opcode == CONT else said.opcode, parts + said.payload
            if said.fin:
                wanted.heard.append(answer(parts, opcode == TEXT))
                opcode, parts = None, b""
    if opcode is not None:
        wanted.ends = frozenset({OPEN - 1})
    return wanted


def faults(said: Said, parts: bytes, opcode: int | None) -> set[int]:
    """The close codes that this frame deserves, behind `parts` of a message that began with `opcode`."""
    wrong = set()
    control = said.opcode >= CLOSE
    if said.rsv or not said.masked or said.opcode not in (0, 1, 2, 8, 9, 10):
        wrong.add(1002)
    if control and (len(said.payload) > 125 or not said.fin):
        wrong.add(1002)
    if (said.opcode == CONT and opcode is None) or (said.opcode in (TEXT, BINARY) and opcode is not None):
        wrong.add(1002)
    if said.opcode == TEXT or (said.opcode == CONT and opcode == TEXT):
        text = said.payload if said.opcode == TEXT else parts + said.payload
        if not is_utf8(text, said.fin):
            wrong.add(1007)
    if said.opcode == CLOSE:
        wrong |= close_faults(said.payload)
    return wrong


def close_faults(payload: bytes) -> set[int]:
    wrong = set()
    if payload and (len(payload) == 1 or int.from_bytes(payload[:2], "big") not in CODES):
        wrong.add(1002)
    if not is_utf8(payload[2:], True):
        wrong.add(1007)
    return wrong


def is_utf8(data: bytes, whole: bool) -> bool:
    """Is it text; is it the beginning of one? Character by character, by the table of RFC 3629, section 4."""
    if not whole and len(data) > 1 and data[-2] == 0xED and data[-1] >= 0xA0:
        data = data[:-2]  # A surrogate may be refused with its third byte.
    at = 0
    while at < len(data):
        first = data[at]
        ranges = followed_by(first)
        if ranges is None:
            return False
        for offset, (low, high) in enumerate(ranges, 1):
            if at + offset >= len(data):
                return not whole
            if not low <= data[at + offset] <= high:
                return False
        at += 1 + len(ranges)
    return True


def followed_by(first: int) -> list[tuple[int, int]] | None:
    """The ranges of the bytes behind a first one; None when no character begins with it."""
    tail = (0x80, 0xBF)
    if first <= 0x7F:
        return []
    if 0xC2 <= first <= 0xDF:
        return [tail]
    if 0xE0 <= first <= 0xEF:
        return [{0xE0: (0xA0, 0xBF), 0xED: (0x80, 0x9F)}.get(first, tail), tail]
    if 0xF0 <= first <= 0xF4:
        return [{0xF0: (0x90, 0xBF), 0xF4: (0x80, 0x8F)}.get(first, tail), tail, tail]
    return None


def answer(message: bytes, text: bool) -> str:
    """What this server says to a message of these tests."""
    if not text:
        return "bad_message"
    try:
        value = orjson.loads(message)
    except orjson.JSONDecodeError:
        return "bad_json"
    if isinstance(value, dict) and value.get("type") == "ping":
        return f"pong {value['ref']}"
    return "bad_message"
