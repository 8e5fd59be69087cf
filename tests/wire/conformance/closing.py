"""The close (RFC 6455, sections 5.5.1, 7.1.2, 7.4.1, 7.4.2): codes, reasons, what comes behind it."""

from tests.wire.conformance.values import CLOSE, EMPTY, PING, PONG, TEXT, Case, close, frame, parts, ping, text

GIVEN = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014)
"""In RFC 6455 or registered since (IANA's registry has 1012 to 1014)."""
FREE = (3000, 3001, 3999, 4000, 4001, 4999)
NEVER = {
    0: "0",
    1: "1",
    999: "999",
    1004: "1004, reserved",
    1005: "1005, which stands for none",
    1006: "1006, which stands for no close",
    1015: "1015, which stands for TLS",
}
NOBODYS = (1016, 1100, 1999, 2000, 2999)
BEYOND = (5000, 9999, 32_768, 65_535)

CODES = [
    *(Case(f"{code} is answered by {code}", "6455 7.4.1", close(code), end=code) for code in GIVEN),
    *(
        Case(f"{code} with a reason", "6455 7.4.1", close(code, "auf Wiedersehen, größte €".encode()), end=code)
        for code in (1000, 1001)
    ),
    *(Case(f"{code} is answered by {code}", "6455 7.4.2", close(code), end=code) for code in FREE),
    *(Case(f"{name} must not be sent", "6455 7.4.1", close(code), end=1002) for code, name in NEVER.items()),
    *(Case(f"{code} is not given to anybody", "6455 7.4.2", close(code), end=1002) for code in (*NOBODYS, *BEYOND)),
    Case("1005 with a reason", "6455 7.4.1", close(1005, b"why"), end=1002),
]
BODIES = [
    Case("no body is answered by none", "6455 5.5.1", close(), end=EMPTY),
    Case("half a code", "6455 5.5.1", frame(CLOSE, b"\x03"), end=1002),
    Case("half a code, zero", "6455 5.5.1", frame(CLOSE, b"\x00"), end=1002),
    Case("a reason of 123 bytes", "6455 5.5.1", close(1000, b"x" * 123), end=1000),
    Case("a reason of 123 bytes of two each and one", "6455 5.5.1", close(1000, b"x" + "ö".encode() * 61), end=1000),
    Case("a reason of 124 bytes", "6455 5.5", close(1000, b"x" * 124), end=1002),
    Case("a reason that is a NUL", "6455 5.5.1", close(1000, b"\0"), end=1000),
] + [
    Case(f"a reason with {name}", "6455 8.1", close(1000, b"bye " + bad), end=1007)
    for name, bad in {
        "FF": b"\xff",
        "slash in two bytes": b"\xc0\xaf",
        "a surrogate": b"\xed\xa0\x80",
        "a character cut off": b"\xe2\x82",
        "a continuation byte alone": b"\x80",
        "a code point above U+10FFFF": b"\xf4\x90\x80\x80",
    }.items()
]
BEHIND = [
    Case("a message behind the close is not read", "6455 5.5.1", close(1000) + text(), end=1000),
    Case("a ping behind the close is not answered", "6455 5.5.1", close(1000) + frame(PING, b"x"), end=1000),
    Case("a pong behind the close", "6455 5.5.1", close(1000) + frame(PONG, b"x"), end=1000),
    Case("a second close is not answered", "6455 5.5.1", close(1000) + close(1001), end=1000),
    Case("a broken frame behind the close is not answered", "6455 1.4", close(1000) + frame(3, b"x"), end=1000),
    Case("noise behind the close is not answered", "6455 1.4", close(1000) + b"\xff" * 1000, end=1000),
    Case("much noise behind the close is not answered", "6455 1.4", close(1000) + b"\xff" * 200_000, end=1000),
    Case("wrong text behind the close", "6455 1.4", close(1000) + text(b"\xff"), end=1000),
    Case("half a frame behind the close", "6455 1.4", close(1000) + text()[:5], end=1000),
]
BEFORE = [
    Case("a message before the close may still be answered", "6455 7.1.2", text() + close(1000), ("pong x",), end=1000),
    Case("a ping before the close is answered", "6455 7.1.2", frame(PING, b"last") + close(1000), (b"last",), end=1000),
    Case(
        "pings before the close are all answered",
        "6455 7.1.2",
        frame(PING, b"last") * 50 + close(1000),
        (b"last",) * 50,
        end=1000,
    ),
    Case(
        "a fragmented message before the close",
        "6455 7.1.2",
        parts(TEXT, [ping()[:9], ping()[9:]]) + close(1001),
        ("pong x",),
        end=1001,
    ),
    Case(
        "a close while a snapshot is made",
        "6455 7.1.2",
        text(b'{"type":"register","viewport":{"west":13,"south":52,"east":14,"north":53}}') + close(1000),
        ("registered", "replace-all"),
        end=1000,
    ),
    Case("a close behind forty messages", "6455 7.1.2", text() * 40 + close(1000), ("pong x",) * 40, end=1000),
    Case("the close in packets of one byte", "6455 7.1.2", close(1000, b"slowly"), end=1000, piece=1),
    Case("the close at once", "6455 7.1.2", close(1000), end=1000),
]
CASES = [*CODES, *BODIES, *BEHIND, *BEFORE]
