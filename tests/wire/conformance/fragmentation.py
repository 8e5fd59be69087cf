"""Fragmentation (RFC 6455, section 5.4)."""

from tests.wire.conformance.values import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    Case,
    close,
    frame,
    padded,
    parts,
    ping,
    sliced,
    text,
)

S = "6455 5.4"
WHOLE = ping("größer €")
HALF = len(WHOLE) // 2

WELL = [
    Case(f"{name}", S, parts(TEXT, payloads), ("pong größer €",))
    for name, payloads in (
        ("two fragments", [WHOLE[:HALF], WHOLE[HALF:]]),
        ("three fragments", [WHOLE[:3], WHOLE[3:9], WHOLE[9:]]),
        ("a fragment for every byte", sliced(WHOLE, 1)),
        ("cut within characters", sliced(WHOLE, 3)),
        ("all in the first, an empty last", [WHOLE, b""]),
        ("an empty first, all in the last", [b"", WHOLE]),
        ("an empty first and last", [b"", WHOLE, b""]),
        ("empty fragments within", [WHOLE[:5], b"", b"", WHOLE[5:9], b"", WHOLE[9:]]),
    )
] + [
    Case("nothing but empty fragments", S, parts(TEXT, [b""] * 5), ("bad_json",)),
    Case("one empty fragment and its empty end", S, parts(TEXT, [b"", b""]), ("bad_json",)),
    Case("nothing but empty binary fragments", S, parts(BINARY, [b""] * 3), ("bad_message",)),
    Case(
        "fragmented and whole messages in turn",
        S,
        (parts(TEXT, sliced(ping("a"), 9)) + text(ping("b"))) * 3,
        ("pong a", "pong b") * 3,
    ),
    Case("fragments in packets of one byte", S, parts(TEXT, sliced(WHOLE, 5)), ("pong größer €",), piece=1),
    Case(
        "fragments of growing size",
        S,
        parts(TEXT, [padded(2000)[n * (n - 1) // 2 : n * (n + 1) // 2] for n in range(1, 64)]),
        ("pong x",),
    ),
    Case(
        "a fragment whose length stands in 8 octets",
        S,
        parts(TEXT, [padded(70_000)[:1], padded(70_000)[1:]]),
        ("pong x",),
    ),
    Case("a thousand fragments of one byte", S, parts(TEXT, sliced(padded(1000), 1)), ("pong x",)),
    Case("a thousand empty fragments", S, parts(TEXT, [ping()[:4], *[b""] * 1000, ping()[4:]]), ("pong x",)),
    Case("four thousand fragments of sixteen bytes", S, parts(TEXT, sliced(padded(64_000), 16)), ("pong x",)),
]
BETWEEN = [
    Case(
        "a ping between two fragments",
        S,
        parts(TEXT, sliced(WHOLE, HALF + 1), frame(PING, b"p")),
        (b"p", "pong größer €"),
    ),
    Case(
        "a ping between any two fragments",
        S,
        parts(TEXT, sliced(WHOLE, 4), frame(PING, b"p")),
        (*[b"p"] * (len(sliced(WHOLE, 4)) - 1), "pong größer €"),
    ),
    Case(
        "pings of every size between",
        S,
        parts(TEXT, sliced(WHOLE, 9), frame(PING) + frame(PING, b"x" * 125)),
        (*[b"", b"x" * 125] * (len(sliced(WHOLE, 9)) - 1), "pong größer €"),
    ),
    Case(
        "a pong that nobody asked for between two fragments",
        S,
        parts(TEXT, sliced(WHOLE, 9), frame(PONG, b"\xff")),
        ("pong größer €",),
    ),
    Case(
        "a ping is answered before the message is whole",
        S,
        text(b"{", fin=False) + frame(PING, b"now") + close(1000),
        (b"now",),
        end=1000,
    ),
    Case(
        "pings between in packets of one byte",
        S,
        parts(TEXT, sliced(WHOLE, 9), frame(PING, b"1")),
        (*[b"1"] * (len(sliced(WHOLE, 9)) - 1), "pong größer €"),
        piece=1,
    ),
    Case(
        "a ping between empty fragments",
        S,
        parts(TEXT, [b"", b"", WHOLE], frame(PING, b"p")),
        (b"p", b"p", "pong größer €"),
    ),
    # A close is a control frame like the others; what was begun is never finished and dropped.
    Case("a close between two fragments is answered by its code", S, text(b"{", fin=False) + close(1000), end=1000),
    Case("a close without a code between two fragments", S, text(b"{", fin=False) + close(), end=0),
    Case(
        "a close behind several fragments",
        S,
        parts(TEXT, [b"{", b" ", b" "], frame(PING, b"p"))[:-7] + close(4000),
        (b"p", b"p"),
        end=4000,
    ),
]
BROKEN = [
    Case(name, S, said, end=1002)
    for name, said in (
        ("a continuation of nothing", frame(CONT, b"x")),
        ("a continuation of nothing, not final", frame(CONT, b"x", fin=False)),
        ("an empty continuation of nothing", frame(CONT)),
        ("a continuation behind a whole message", text() + frame(CONT, b"x")),
        ("a continuation behind the last fragment", parts(TEXT, [ping()[:5], ping()[5:]]) + frame(CONT)),
        ("a text frame within a text message", text(b"{", fin=False) + text(b"}")),
        ("a text fragment within a text message", text(b"{", fin=False) + text(b"}", fin=False)),
        ("a binary frame within a text message", text(b"{", fin=False) + frame(BINARY, b"}")),
        ("a text frame within a binary message", frame(BINARY, b"{", fin=False) + text(b"}")),
        ("an empty text frame within a text message", text(b"{", fin=False) + text(b"")),
        ("a text frame within, behind a ping", text(b"{", fin=False) + frame(PONG) + text(b"}")),
        ("a text frame within a message that is empty so far", text(b"", fin=False) + text()),
        ("a fragmented ping", frame(PING, b"x", fin=False)),
        ("a fragmented empty ping", frame(PING, fin=False)),
        ("a fragmented pong", frame(PONG, b"x", fin=False)),
        ("a fragmented close", frame(CLOSE, b"\x03\xe8", fin=False)),
        ("a fragmented ping within a message", text(b"{", fin=False) + frame(PING, b"x", fin=False)),
        ("a fragmented ping and its continuation", frame(PING, b"x", fin=False) + frame(CONT, b"y")),
    )
]
CASES = [*WELL, *BETWEEN, *BROKEN]
