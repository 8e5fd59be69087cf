"""Frames (RFC 6455, sections 5.1, 5.2, 5.3, 5.6, 5.8): lengths, masks, reserved bits, opcodes."""

from tests.wire.conformance.values import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    Case,
    frame,
    padded,
    parts,
    ping,
    text,
    wide,
)

FINAL = 0x80
NAMES = {CONT: "continuation", TEXT: "text", BINARY: "binary", CLOSE: "close", PING: "ping", PONG: "pong"}

LENGTHS = [
    Case(f"a text message of {size} bytes", "6455 5.2", text(padded(size)), ("pong x",))
    for size in (124, 125, 126, 127, 128, 255, 256, 257, 4095, 4096, 4097, 65_534, 65_535, 65_536, 65_537, 131_072)
]
BINARIES = [
    Case(f"a binary message of {size} bytes", "6455 5.6", frame(BINARY, b"\xfe" * size), ("bad_message",))
    for size in (0, 1, 125, 126, 127, 65_535, 65_536)
]
# The sender must use as few octets as the length needs; what a receiver does with more is left open. They are read.
ROUNDABOUT = [
    Case(
        f"a length of {len(payload)} in {octets} octets, more than it needs",
        "6455 5.2",
        wide(FINAL | TEXT, payload, octets),
        ("pong x",),
    )
    for payload, octets in ((padded(60), 2), (padded(125), 2), (padded(60), 8), (padded(126), 8), (padded(65_535), 8))
]
LENGTHS_OF_NOTHING = [
    Case("an empty text message", "6455 5.2", text(b""), ("bad_json",)),
    Case("a length of 0 in 2 octets", "6455 5.2", wide(FINAL | TEXT, b"", 2), ("bad_json",)),
    Case("a length of 0 in 8 octets", "6455 5.2", wide(FINAL | TEXT, b"", 8), ("bad_json",)),
    # The highest bit must be 0; such a length is above every limit, which is what the close code says.
    Case("the highest bit of a length", "6455 5.2", wide(FINAL | TEXT, b"abcd", 8, 1 << 63), end=1009),
    Case("all bits of a length", "6455 5.2", wide(FINAL | BINARY, b"abcd", 8, (1 << 64) - 1), end=1009),
    Case("the largest length there is", "6455 5.2", wide(FINAL | TEXT, b"", 8, (1 << 63) - 1), end=1009),
    Case("a ping whose length stands in 2 octets", "6455 5.5", wide(FINAL | PING, b"x" * 126, 2), end=1002),
    Case("a ping whose length stands in 8 octets", "6455 5.5", wide(FINAL | PING, b"x" * 126, 8), end=1002),
]
MASKS = [
    Case(f"masked by {mask.hex(' ')}", "6455 5.3", text(mask=mask), ("pong x",))
    for mask in (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\1\0\0\0", b"\0\0\0\1", b'{"ty', b"\x81\x85\x00\x7f")
] + [
    Case(
        "each frame of a message by a mask of its own",
        "6455 5.3",
        frame(TEXT, ping()[:7], fin=False, mask=b"abcd") + frame(CONT, ping()[7:], mask=b"wxyz"),
        ("pong x",),
    ),
    *(
        Case(
            f"masked, {size} bytes, not a multiple of four",
            "6455 5.3",
            text(padded(size), mask=b"\7\xee\x13\x80"),
            ("pong x",),
        )
        for size in (41, 42, 43, 130, 1001)
    ),
]
UNMASKED = [
    Case(f"unmasked {NAMES[opcode]}", "6455 5.1", before + frame(opcode, payload, mask=None), end=1002)
    for opcode, before, payload in (
        (TEXT, b"", ping()),
        (TEXT, b"", b""),
        (BINARY, b"", b"x"),
        (CONT, frame(TEXT, ping()[:5], fin=False), ping()[5:]),
        (PING, b"", b""),
        (PONG, b"", b"x"),
        (CLOSE, b"", b"\x03\xe8"),
    )
]
RESERVED_BITS = (
    [
        Case(
            f"reserved bits {bits >> 4:03b} on a {NAMES[opcode]} frame",
            "6455 5.2",
            frame(opcode, payload, rsv=bits),
            end=1002,
        )
        for opcode, payload in ((TEXT, ping()), (BINARY, b"x"), (PING, b"x"), (PONG, b""), (CLOSE, b"\x03\xe8"))
        for bits in (0x40, 0x20, 0x10)
    ]
    + [
        Case(f"reserved bits {bits >> 4:03b} together", "6455 5.2", frame(TEXT, ping(), rsv=bits), end=1002)
        for bits in (0x30, 0x50, 0x60, 0x70)
    ]
    + [
        Case(
            f"reserved bits {bits >> 4:03b} on a continuation",
            "6455 5.2",
            frame(TEXT, ping()[:5], fin=False) + frame(CONT, ping()[5:], rsv=bits),
            end=1002,
        )
        for bits in (0x40, 0x20, 0x10)
    ]
)
RESERVED_OPCODES = [
    Case(f"opcode {opcode:#x}", "6455 5.2", frame(opcode, payload), end=1002)
    for opcode, payload in (
        (3, b""),
        (4, b"x"),
        (5, b""),
        (6, b"x"),
        (7, b""),
        (11, b""),
        (12, b"x"),
        (13, b""),
        (14, b"x"),
        (15, b""),
    )
] + [
    Case("a reserved opcode is refused by its first octets", "6455 5.2", b"\x83\x80", end=1002),
    Case("a reserved opcode within a fragmented message", "6455 5.2", text(b"{", fin=False) + frame(3, b"}"), end=1002),
]
STREAMS = [
    Case(
        "many frames in one packet are answered in order",
        "6455 5.2",
        b"".join(text(ping(f"r{n}")) for n in range(40)),
        tuple(f"pong r{n}" for n in range(40)),
    ),
    *(
        Case(
            f"frames in packets of {size} bytes",
            "6455 5.2",
            text(padded(200, "a")) + frame(PING, b"p") + text(padded(130, "b")),
            ("pong a", b"p", "pong b"),
            piece=size,
        )
        for size in (1, 2, 3, 7, 64)
    ),
    Case(
        "a long frame in small packets",
        "6455 5.2",
        text(padded(70_000)),
        ("pong x",),
        piece=1400,
    ),
    Case("what follows a broken frame has no effect", "6455 7.1.7", frame(3) + text() + frame(PING, b"x"), end=1002),
    Case("a second broken frame is not answered again", "6455 7.1.7", frame(3) + frame(4) + text(b"\xff"), end=1002),
    Case("a close behind a broken frame is not answered", "6455 7.1.7", frame(3) + frame(CLOSE, b"\x03\xe8"), end=1002),
    Case("binary and text in turn", "6455 5.6", (frame(BINARY, b"\xff") + text()) * 3, ("bad_message", "pong x") * 3),
    Case("a binary message in fragments", "6455 5.6", parts(BINARY, [b"\xff", b"\xfe", b""]), ("bad_message",)),
]

CASES = [
    *LENGTHS,
    *BINARIES,
    *ROUNDABOUT,
    *LENGTHS_OF_NOTHING,
    *MASKS,
    *UNMASKED,
    *RESERVED_BITS,
    *RESERVED_OPCODES,
    *STREAMS,
]
