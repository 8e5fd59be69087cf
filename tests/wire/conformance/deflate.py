"""permessage-deflate (RFC 7692): what is agreed upon, and what compressed messages may look like.

The server never keeps a window between messages, in either direction, and says so in every answer (7.1.1)."""

import zlib

from tests.wire.conformance.opening import WELCOME, asked
from tests.wire.conformance.values import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    Case,
    Door,
    close,
    deflated,
    frame,
    padded,
    parts,
    ping,
    sliced,
    text,
)

OFFER = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"
AGREED = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
RSV1, RSV2, RSV3 = 0x40, 0x20, 0x10
HARD = 1 << 20


def agreed(name: str, section: str, *offers: str, more: str = "") -> Door:
    lines = [f"Sec-WebSocket-Extensions: {offer}" for offer in offers]
    return Door(name, f"7692 {section}", asked(*lines), 101, (*WELCOME, f"sec-websocket-extensions: {AGREED}{more}"))


def declined(name: str, section: str, *offers: str) -> Door:
    lines = [f"Sec-WebSocket-Extensions: {offer}" for offer in offers]
    return Door(name, f"7692 {section}", asked(*lines), 101, WELCOME, ("sec-websocket-extensions",))


def broken(name: str, offer: str) -> Door:
    return Door(name, "6455 9.1", asked(f"Sec-WebSocket-Extensions: {offer}"), 400)


PMD = "permessage-deflate"
DOORS = [
    agreed("the offer without parameters", "7.1", PMD),
    agreed("server_no_context_takeover", "7.1.1.1", f"{PMD}; server_no_context_takeover"),
    agreed("client_no_context_takeover", "7.1.1.2", f"{PMD}; client_no_context_takeover"),
    agreed("both of them", "7.1.1", f"{PMD}; client_no_context_takeover; server_no_context_takeover"),
    declined("server_no_context_takeover with a value", "7.1.1.1", f"{PMD}; server_no_context_takeover=1"),
    declined("client_no_context_takeover with a value", "7.1.1.2", f"{PMD}; client_no_context_takeover=true"),
    declined(
        "server_no_context_takeover twice", "7.1", f"{PMD}; server_no_context_takeover; server_no_context_takeover"
    ),
    declined(
        "client_no_context_takeover twice", "7.1", f"{PMD}; client_no_context_takeover; client_no_context_takeover"
    ),
    *(
        agreed(
            f"server_max_window_bits={bits}",
            "7.1.2.1",
            f"{PMD}; server_max_window_bits={bits}",
            more=f"; server_max_window_bits={bits}",
        )
        for bits in (9, 10, 12, 15)
    ),
    # A window of 256 bytes is more than zlib can promise; to decline an offer is every server's right.
    declined("server_max_window_bits=8", "7.1.2.1", f"{PMD}; server_max_window_bits=8"),
    *(
        declined(f"server_max_window_bits{value}", "7.1.2.1", f"{PMD}; server_max_window_bits{value}")
        for value in ("", "=7", "=16", "=0", "=010", "=-10", "=x", "=1e1", '=""')
        if value != '=""'
    ),
    declined("server_max_window_bits twice", "7.1", f"{PMD}; server_max_window_bits=10; server_max_window_bits=11"),
    agreed(
        "server_max_window_bits in quotes",
        "7.1.2.1",
        f'{PMD}; server_max_window_bits="10"',
        more="; server_max_window_bits=10",
    ),
    agreed("client_max_window_bits", "7.1.2.2", f"{PMD}; client_max_window_bits"),
    *(
        agreed(
            f"client_max_window_bits={bits}",
            "7.1.2.2",
            f"{PMD}; client_max_window_bits={bits}",
            more=f"; client_max_window_bits={bits}",
        )
        for bits in (8, 9, 12, 15)
    ),
    *(
        declined(f"client_max_window_bits{value}", "7.1.2.2", f"{PMD}; client_max_window_bits{value}")
        for value in ("=7", "=16", "=09", "=x")
    ),
    declined("client_max_window_bits twice", "7.1", f"{PMD}; client_max_window_bits; client_max_window_bits=10"),
    declined("a parameter of nobody's", "7.1", f"{PMD}; level=9"),
    declined("a parameter in the wrong case", "7.1", f"{PMD}; Server_Max_Window_Bits=10"),
    declined("another extension", "7", "permessage-bzip2"),
    declined("a name in the wrong case", "7", "Permessage-Deflate"),
    declined("what browsers had before", "7", "x-webkit-deflate-frame"),
    agreed("an offer behind one that is declined", "5", f"{PMD}; server_max_window_bits=8, {PMD}"),
    agreed("an offer behind another extension", "5", f"x-unknown, {PMD}"),
    agreed(
        "the first of two offers", "5", f"{PMD}; client_max_window_bits=10, {PMD}", more="; client_max_window_bits=10"
    ),
    agreed("offers in two lines", "5", "x-unknown", PMD),
    agreed(
        "all parameters",
        "7.1",
        f"{PMD}; server_max_window_bits=11; client_max_window_bits=12; server_no_context_takeover",
        more="; server_max_window_bits=11; client_max_window_bits=12",
    ),
    agreed("spaces everywhere", "5", f"  {PMD}  ;  client_max_window_bits  "),
    broken("no name", "; server_no_context_takeover"),
    broken("no name of a parameter", f"{PMD}; =10"),
    broken("no end of quotes", f'{PMD}; server_max_window_bits="10'),
    broken("two names", f"{PMD} {PMD}"),
    broken("an empty value", f"{PMD}; server_max_window_bits="),
    broken("a value in quotes that is no token", f'{PMD}; server_max_window_bits="1 0"'),
]


def squeezed(payload: bytes = b'{"type":"ping","ref":"x"}', **how: int) -> bytes:
    """A compressed text message in one frame."""
    return frame(TEXT, deflated(payload, **how), rsv=RSV1)


def final(payload: bytes) -> bytes:
    """One block that says it is the last."""
    engine = zlib.compressobj(wbits=-15)
    return engine.compress(payload) + engine.flush(zlib.Z_FINISH)


def raw(payload: bytes) -> bytes:
    """A compressed text frame with exactly these bytes."""
    return frame(TEXT, payload, rsv=RSV1)


S = "7692 7.2.2"
LONG = padded(5000)
HELLO = "bad_json"
"""What answers `Hello`, which is text and no JSON."""
EXAMPLES = [
    Case("the example: Hello in one frame", "7692 7.2.3.1", raw(bytes.fromhex("f248cdc9c90700")), (HELLO,)),
    Case(
        "the example: Hello in two fragments",
        "7692 7.2.3.1",
        parts(TEXT, [bytes.fromhex("f248cd"), bytes.fromhex("c9c90700")], rsv=RSV1),
        (HELLO,),
    ),
    Case(
        "the example: a block that is not compressed",
        "7692 7.2.3.3",
        raw(bytes.fromhex("000500faff48656c6c6f00")),
        (HELLO,),
    ),
    Case(
        "the example: a block that says it is the last",
        "7692 7.2.3.4",
        raw(bytes.fromhex("f348cdc9c9070000")),
        (HELLO,),
    ),
    Case(
        "the example: two blocks",
        "7692 7.2.3.5",
        raw(bytes.fromhex("f248050000 00ffffcac9c90700".replace(" ", ""))),
        (HELLO,),
    ),
    Case("the example: an empty message", "7692 7.2.3.6", raw(b"\0"), ("bad_json",)),
    # The second Hello of 7.2.3.2 refers to the first; it was agreed that no message does.
    Case(
        "the example: a window kept against the agreement",
        "7692 7.2.3.2",
        raw(bytes.fromhex("f248cdc9c90700")) + raw(bytes.fromhex("f200110000")),
        (HELLO,),
        end=1002,
    ),
]
WELL = [
    *(Case(f"compressed at level {level}", S, squeezed(level=level), ("pong x",)) for level in range(10)),
    *(
        Case(f"compressed by {name}", S, squeezed(LONG, strategy=strategy), ("pong x",))
        for name, strategy in {"filtered": 1, "Huffman codes only": 2, "runs": 3, "fixed codes": 4}.items()
    ),
    *(
        Case(f"compressed in a window of {bits} bits", "7692 7.1.2.2", squeezed(LONG, wbits=-bits), ("pong x",))
        for bits in (9, 10, 12, 15)
    ),
    *(
        Case(
            f"compressed in the window of {bits} bits that was agreed on",
            "7692 7.1.2.2",
            squeezed(LONG, wbits=-max(bits, 9)),
            ("pong x",),
            offer=OFFER.replace(b"\r\n", b"; client_max_window_bits=%d\r\n" % bits),
        )
        for bits in (9, 12, 15)
    ),
    Case("not compressed, although agreed upon", "7692 6", text(), ("pong x",)),
    Case("compressed and not in turn", "7692 6", (squeezed(ping("a")) + text(ping("b"))) * 3, ("pong a", "pong b") * 3),
    Case("compressed binary", S, frame(BINARY, deflated(b"\xff" * 100), rsv=RSV1), ("bad_message",)),
    Case("no bytes at all", S, raw(b""), ("bad_json",)),
    Case("an empty block of the other kind", S, raw(b"\x02\x00"), ("bad_json",)),
    Case("empty messages, compressed and not", S, raw(b"\0") + text(b"") + raw(b""), ("bad_json",) * 3),
    Case("ten alike, each by itself", "7692 7.1.1.2", squeezed(LONG) * 10, ("pong x",) * 10),
    Case("in packets of one byte", S, squeezed(LONG), ("pong x",), piece=1),
    Case("compressed characters", S, squeezed(ping("größer 🍜")), ("pong größer 🍜",)),
    Case(
        "several blocks",
        S,
        raw(b"".join(deflated(one) + b"\0\0\xff\xff" for one in sliced(ping(), 6)) + b"\0"),
        ("pong x",),
    ),
    Case(
        "blocks that say they are the last, one behind the other",
        "7692 7.2.1",
        raw(b"".join(final(one) for one in sliced(ping(), 9)) + b"\0"),
        ("pong x",),
    ),
    Case(
        "a last block, then one that is not", "7692 7.2.1", raw(final(ping()[:9]) + deflated(ping()[9:])), ("pong x",)
    ),
    Case(
        "a last block in a fragment of its own",
        "7692 7.2.1",
        parts(TEXT, [final(ping()[:9]), final(ping()[9:]), b"\0"], rsv=RSV1),
        ("pong x",),
    ),
    Case("a last block, and nothing behind it", "7692 7.2.1", raw(final(ping())), ("pong x",)),
    Case(
        "the next message behind a last block",
        "7692 7.2.1",
        raw(final(ping("a")) + b"\0") + squeezed(ping("b")),
        ("pong a", "pong b"),
    ),
]
SMALL = deflated(LONG)
FRAGMENTS = [
    *(
        Case(
            f"compressed in fragments of {size} bytes",
            "7692 6.1",
            parts(TEXT, sliced(SMALL, size), rsv=RSV1),
            ("pong x",),
        )
        for size in (1, 7, 20)
    ),
    Case("an empty first fragment", "7692 6.1", parts(TEXT, [b"", SMALL], rsv=RSV1), ("pong x",)),
    Case("an empty last fragment", "7692 6.1", parts(TEXT, [SMALL, b""], rsv=RSV1), ("pong x",)),
    Case("empty fragments within", "7692 6.1", parts(TEXT, [SMALL[:9], b"", b"", SMALL[9:]], rsv=RSV1), ("pong x",)),
    Case("nothing but empty fragments", "7692 6.1", parts(TEXT, [b"", b"", b""], rsv=RSV1), ("bad_json",)),
    Case(
        "pings between, which are never compressed",
        "7692 5",
        parts(TEXT, sliced(SMALL, 20), frame(PING, b"p"), rsv=RSV1),
        (*[b"p"] * (len(sliced(SMALL, 20)) - 1), "pong x"),
    ),
    Case(
        "fragments, compressed and not in turn",
        "7692 6.1",
        parts(TEXT, sliced(SMALL, 9), rsv=RSV1) + parts(TEXT, sliced(ping("b"), 9)) + squeezed(),
        ("pong x", "pong b", "pong x"),
    ),
    Case(
        "a close between compressed fragments",
        "6455 5.4",
        frame(TEXT, SMALL[:9], fin=False, rsv=RSV1) + close(1000),
        end=1000,
    ),
]
BITS = [
    Case(name, section, said, end=1002)
    for name, section, said in (
        (
            "the bit on a continuation",
            "7692 6.1",
            frame(TEXT, SMALL[:9], fin=False, rsv=RSV1) + frame(CONT, SMALL[9:], rsv=RSV1),
        ),
        (
            "the bit on an empty continuation",
            "7692 6.1",
            frame(TEXT, SMALL, fin=False, rsv=RSV1) + frame(CONT, b"", rsv=RSV1),
        ),
        (
            "the bit on the continuation of a message without",
            "7692 6.1",
            frame(TEXT, b"{", fin=False) + frame(CONT, SMALL, rsv=RSV1),
        ),
        ("the bit on a continuation of nothing", "7692 6.1", frame(CONT, SMALL, rsv=RSV1)),
        ("the bit on a ping", "7692 6", frame(PING, b"p", rsv=RSV1)),
        ("the bit on an empty ping", "7692 6", frame(PING, rsv=RSV1)),
        ("the bit on a pong", "7692 6", frame(PONG, b"p", rsv=RSV1)),
        ("the bit on a close", "7692 6", frame(CLOSE, b"\x03\xe8", rsv=RSV1)),
        (
            "the bit on a ping between compressed fragments",
            "7692 6",
            frame(TEXT, SMALL[:9], fin=False, rsv=RSV1) + frame(PING, rsv=RSV1),
        ),
        ("the second bit on a compressed message", "6455 5.2", frame(TEXT, SMALL, rsv=RSV1 | RSV2)),
        ("the third bit on a compressed message", "6455 5.2", frame(TEXT, SMALL, rsv=RSV1 | RSV3)),
        ("the second bit on a message without compression", "6455 5.2", text(rsv=RSV2)),
        (
            "the third bit on a compressed continuation",
            "6455 5.2",
            frame(TEXT, SMALL[:9], fin=False, rsv=RSV1) + frame(CONT, SMALL[9:], rsv=RSV3),
        ),
        ("a new message within a compressed one", "6455 5.4", frame(TEXT, SMALL[:9], fin=False, rsv=RSV1) + squeezed()),
        (
            "a message without compression within a compressed one",
            "6455 5.4",
            frame(TEXT, SMALL[:9], fin=False, rsv=RSV1) + text(),
        ),
        ("an unmasked compressed message", "6455 5.1", frame(TEXT, SMALL, rsv=RSV1, mask=None)),
        ("text that is not compressed, with the bit", S, raw(ping())),
        ("noise", S, raw(b"\xff\xff\xff\xff")),
        ("a kind of block that there is not", S, raw(b"\x07\x00")),
        ("a block whose two lengths differ", S, raw(b"\x00\x05\x00\xfa\xfeHello\x00")),
        ("a distance before the beginning", S, raw(bytes.fromhex("f200110000"))),
        (
            "noise in the second fragment, at once",
            S,
            frame(TEXT, SMALL[:9], fin=False, rsv=RSV1) + frame(CONT, b"\xff" * 50, fin=False),
        ),
        ("noise behind a last block", "7692 7.2.1", raw(final(ping()) + b"\xff" * 9)),
        ("a message with the header of zlib", S, raw(zlib.compress(ping()))),
    )
]
TEXTS = [
    Case("wrong text, compressed", "6455 8.1", squeezed(b"\xc3\x28"), end=1007),
    Case("a character cut off, compressed", "6455 8.1", squeezed(b"x\xe2\x82"), end=1007),
    Case(
        "a surrogate over compressed fragments, at once",
        "6455 8.1",
        frame(TEXT, deflated(b"x\xed\xa0\x80") + b"\0\0\xff\xff", fin=False, rsv=RSV1),
        end=1007,
    ),
    Case(
        "wrong text in compressed binary", "6455 5.6", frame(BINARY, deflated(b"\xc3\x28"), rsv=RSV1), ("bad_message",)
    ),
]
BOMB = deflated(b"\0" * (8 * HARD), level=9)
"""8 KiB that become 8 MiB."""
LAST = b"\x03\x00"
"""An empty block that says it is the last."""
LIMITS = [
    Case("128 KiB inflated", "6455 10.4", squeezed(padded(131_072)), ("pong x",)),
    Case("one byte above 128 KiB inflated", "6455 10.4", squeezed(padded(131_073)), ("too_large",)),
    Case("1 MiB inflated", "6455 10.4", squeezed(b" " * HARD), ("too_large",)),
    Case("one byte above 1 MiB inflated", "6455 10.4", squeezed(b" " * (HARD + 1)), end=1009),
    Case("1 MiB that does not grow smaller", "6455 10.4", squeezed(padded(HARD - 1000), level=0), ("too_large",)),
    Case("a little that becomes 8 MiB", "6455 10.4", raw(BOMB), end=1009),
    Case(
        "a little that becomes 8 MiB, in fragments, at once",
        "6455 10.4",
        parts(TEXT, sliced(BOMB, 500), rsv=RSV1)[:-20],
        end=1009,
    ),
    Case("a little that becomes 8 MiB, not finished", "6455 10.4", frame(TEXT, BOMB, fin=False, rsv=RSV1), end=1009),
    Case(
        "fragments that together become more than 1 MiB",
        "6455 10.4",
        parts(TEXT, [deflated(b" " * 600_000) + b"\0\0\xff\xff"] * 3, rsv=RSV1),
        end=1009,
    ),
    Case(
        "1 MiB inflated, then one byte, not finished",
        "6455 10.4",
        frame(TEXT, deflated(b" " * HARD) + b"\0\0\xff\xff", fin=False, rsv=RSV1)
        + frame(CONT, deflated(b" "), fin=False),
        end=1009,
    ),
    Case("two bombs one behind the other", "6455 10.4", raw(BOMB) * 2, end=1009),
    Case("1 MiB twice, each by itself", "6455 10.4", squeezed(b" " * HARD) * 2, ("too_large",) * 2),
    Case("last blocks without end", "6455 10.4", raw(LAST * 300_000), end=1009),
    Case("last blocks without end in fragments", "6455 10.4", parts(TEXT, [LAST] * 3000, rsv=RSV1)[:-8], end=1009),
    Case("a bomb behind a last block", "6455 10.4", raw(final(b" ") + BOMB), end=1009),
]
REGISTER = b'{"type":"register","viewport":{"west":13,"south":52,"east":14,"north":53}}'
ANSWERS = [
    Case(
        f"snapshots are compressed each by itself{name}",
        "7692 7.1.1.1",
        squeezed(REGISTER) * 3,
        ("registered", "replace-all") * 3,
        offer=OFFER.replace(b"\r\n", more + b"\r\n"),
    )
    for name, more in {
        "": b"",
        ", asked for": b"; server_no_context_takeover",
        ", within a window": b"; server_max_window_bits=10",
    }.items()
]
CASES = [*EXAMPLES, *WELL, *FRAGMENTS, *BITS, *TEXTS, *LIMITS, *ANSWERS]
