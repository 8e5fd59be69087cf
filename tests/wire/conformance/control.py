"""Control frames (RFC 6455, sections 5.5, 5.5.2, 5.5.3): ping and pong. The close has a file of its own."""

from tests.wire.conformance.values import CLOSE, PING, PONG, Case, frame, text

PINGS = [
    Case(f"a ping of {len(payload)} bytes comes back", "6455 5.5.2", frame(PING, payload), (payload,))
    for payload in (b"", b"x", b"x" * 124, b"x" * 125, bytes(range(125)))
] + [
    Case(
        "a ping of bytes that are no text comes back",
        "6455 5.5.2",
        frame(PING, b"\xff\xfe\x00\xc3"),
        (b"\xff\xfe\x00\xc3",),
    ),
    Case("a ping that looks like a close comes back", "6455 5.5.2", frame(PING, b"\x03\xe8"), (b"\x03\xe8",)),
    Case(
        "pings are answered in order",
        "6455 5.5.2",
        b"".join(frame(PING, b"%d" % n) for n in range(10)),
        tuple(b"%d" % n for n in range(10)),
    ),
    Case("two thousand pings", "6455 5.5.2", frame(PING, b"storm") * 2000, (b"storm",) * 2000),
    Case("pings around messages", "6455 5.5.2", (frame(PING, b"p") + text()) * 5, (b"p", "pong x") * 5),
    Case("a ping in packets of one byte", "6455 5.5.2", frame(PING, b"slowly"), (b"slowly",), piece=1),
    Case("ten pings in packets of one byte", "6455 5.5.2", frame(PING, b"slowly") * 10, (b"slowly",) * 10, piece=1),
]
PONGS = [
    Case(f"a pong of {len(payload)} bytes that nobody asked for", "6455 5.5.3", frame(PONG, payload))
    for payload in (b"", b"x", b"\xff" * 125)
] + [
    Case("two thousand pongs that nobody asked for", "6455 5.5.3", frame(PONG, b"storm") * 2000),
    Case("a pong, a ping, a pong", "6455 5.5.3", frame(PONG, b"1") + frame(PING, b"2") + frame(PONG, b"3"), (b"2",)),
]
TOO_LONG = [
    Case(f"a {name} of {size} bytes", "6455 5.5", frame(opcode, b"\x03\xe8" + b"x" * (size - 2)), end=1002)
    for opcode, name in ((PING, "ping"), (PONG, "pong"), (CLOSE, "close"))
    for size in (126, 127, 65_536)
]
CASES = [*PINGS, *PONGS, *TOO_LONG]
