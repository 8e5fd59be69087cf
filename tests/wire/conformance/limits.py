"""Limits that RFC 6455 leaves to the server (section 10.4, close code 1009): 128 KiB are taken, more is told, 1 MiB ends it."""

from tests.wire.conformance.values import BINARY, CONT, PING, TEXT, Case, frame, padded, parts, sliced, text, wide

S = "6455 10.4"
SOFT, HARD = 131_072, 1 << 20

CASES = [
    Case("128 KiB", S, text(padded(SOFT)), ("pong x",)),
    Case("one byte above 128 KiB", S, text(padded(SOFT + 1)), ("too_large",)),
    Case("128 KiB in fragments", S, parts(TEXT, sliced(padded(SOFT), 10_000)), ("pong x",)),
    Case("one byte above 128 KiB in fragments", S, parts(TEXT, sliced(padded(SOFT + 1), 10_000)), ("too_large",)),
    Case("few characters, many bytes", S, text(b'"' + "€".encode() * (SOFT // 3 + 1) + b'"'), ("too_large",)),
    Case("1 MiB", S, text(padded(HARD)), ("too_large",)),
    Case("1 MiB in fragments", S, parts(TEXT, sliced(padded(HARD), 65_536)), ("too_large",)),
    Case("1 MiB and an empty last fragment", S, parts(TEXT, [padded(HARD), b""]), ("too_large",)),
    Case("1 MiB of binary", S, frame(BINARY, b"\0" * HARD), ("bad_message",)),
    Case("small messages behind a large one", S, text(padded(SOFT + 1)) + text() * 3, ("too_large", *["pong x"] * 3)),
    Case("large messages one behind the other", S, text(padded(300_000)) * 4, ("too_large",) * 4),
    Case("a ping behind a large message", S, text(padded(HARD)) + frame(PING, b"p"), ("too_large", b"p")),
    Case("one byte above 1 MiB, announced", S, wide(0x81, b"", 8, HARD + 1), end=1009),
    Case("one byte above 1 MiB of binary, announced", S, wide(0x82, b"", 8, HARD + 1), end=1009),
    Case("one byte above 1 MiB, said", S, text(padded(HARD + 1)), end=1009),
    Case("2 MiB said behind the end", S, text(b"x" * 2 * HARD), end=1009),
    Case("one byte above 1 MiB in fragments", S, text(b"x" * HARD, fin=False) + frame(CONT, b"x"), end=1009),
    Case(
        "fragments above 1 MiB, the last announced",
        S,
        text(b"x" * 1000, fin=False) + wide(0x80, b"", 8, HARD),
        end=1009,
    ),
    Case(
        "many fragments above 1 MiB, at once",
        S,
        text(b"", fin=False) + frame(CONT, b"x" * 65_536, fin=False) * 17,
        end=1009,
    ),
    Case("two messages of 1 MiB in fragments", S, parts(TEXT, sliced(padded(HARD), 300_000)) * 2, ("too_large",) * 2),
    Case("a frame of 4 GiB, announced", S, wide(0x81, b"x" * 100, 8, 1 << 32), end=1009),
]
