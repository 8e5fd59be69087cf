"""Text is UTF-8 (RFC 6455, sections 5.6 and 8.1; RFC 3629): each class of sequence, whole, in fragments, in packets.

A message that has become wrong is refused with the frame that made it so, not when it is whole: rows `at once` never
finish theirs. Within one frame the server waits for its end, which the RFC allows.
"""

from tests.wire.conformance.values import BINARY, CONT, PING, TEXT, Case, frame, parts, ping, text

S = "6455 8.1"
GOOD = {
    "the last of one byte": b"\x7f",
    "the first of two bytes": b"\xc2\x80",
    "the last of two bytes": b"\xdf\xbf",
    "the first of three bytes": b"\xe0\xa0\x80",
    "the last before the surrogates": b"\xed\x9f\xbf",
    "the first after the surrogates": b"\xee\x80\x80",
    "the replacement character": b"\xef\xbf\xbd",
    "a byte order mark within": b"\xef\xbb\xbf",
    "not a character, U+FFFE": b"\xef\xbf\xbe",
    "not a character, U+FFFF": b"\xef\xbf\xbf",
    "not a character, U+FDD0": b"\xef\xb7\x90",
    "the first of four bytes": b"\xf0\x90\x80\x80",
    "not a character, U+1FFFE": b"\xf0\x9f\xbf\xbe",
    "an emoji": "🍜".encode(),
    "the last there is, U+10FFFF": b"\xf4\x8f\xbf\xbf",
    "a word of many lengths": "κόσμε ö 漢字 🎷".encode(),
}
BAD = {
    # name: bytes, how many of them are enough to know (a surrogate is known by its second byte, and refused with its third)
    "a continuation byte alone, the first": (b"\x80", 1),
    "a continuation byte alone, the last": (b"\xbf", 1),
    "one continuation byte too many": (b"\xc3\xb6\x80", 3),
    "slash in two bytes": (b"\xc0\xaf", 1),
    "NUL in two bytes": (b"\xc0\x80", 1),
    "the largest that needs one byte, in two": (b"\xc1\xbf", 1),
    "slash in three bytes": (b"\xe0\x80\xaf", 2),
    "the largest that needs two bytes, in three": (b"\xe0\x9f\xbf", 2),
    "slash in four bytes": (b"\xf0\x80\x80\xaf", 2),
    "the largest that needs three bytes, in four": (b"\xf0\x8f\xbf\xbf", 2),
    "the first high surrogate": (b"\xed\xa0\x80", 3),
    "the last high surrogate": (b"\xed\xaf\xbf", 3),
    "the first low surrogate": (b"\xed\xb0\x80", 3),
    "the last low surrogate": (b"\xed\xbf\xbf", 3),
    "a pair of surrogates": (b"\xed\xa0\xbd\xed\xb8\x80", 3),
    "the first above U+10FFFF": (b"\xf4\x90\x80\x80", 2),
    "far above U+10FFFF": (b"\xf5\x80\x80\x80", 1),
    "five bytes": (b"\xf8\x88\x80\x80\x80", 1),
    "six bytes": (b"\xfc\x84\x80\x80\x80\x80", 1),
    "FE": (b"\xfe", 1),
    "FF": (b"\xff", 1),
    "two bytes, the second is none": (b"\xc3\x28", 2),
    "three bytes, the second is none": (b"\xe2\x28\xa1", 2),
    "three bytes, the third is none": (b"\xe2\x82\x28", 3),
    "four bytes, the second is none": (b"\xf0\x28\x8c\xbc", 2),
    "four bytes, the third is none": (b"\xf0\x90\x28\xbc", 3),
    "four bytes, the fourth is none": (b"\xf0\x90\x80\x28", 4),
    "a start within a character": (b"\xe2\x82\xe2\x82\xac", 3),
}
CUT_OFF = {
    "one of two bytes": b"\xc3",
    "two of three bytes": b"\xe2\x82",
    "one of three bytes": b"\xe2",
    "three of four bytes": b"\xf0\x9f\x8d",
}

WELL = (
    [
        Case(f"{name} comes back", S, text(ping(char.decode())), (f"pong {char.decode()}",))
        for name, char in GOOD.items()
    ]
    + [
        Case(
            f"{name} in a fragment for every byte",
            S,
            parts(TEXT, [ping()[:22], *(char[n : n + 1] for n in range(len(char))), b'"}']),
            (f"pong {char.decode()}",),
        )
        for name, char in GOOD.items()
        if len(char) > 2
    ]
    + [
        Case("a byte order mark is text, if no JSON", S, text(b"\xef\xbb\xbf" + ping()), ("bad_json",)),
        Case("NUL is text, if no JSON", S, text(b"\x00"), ("bad_json",)),
        Case("characters in packets of one byte", S, text(ping("κόσμε 🍜")), ("pong κόσμε 🍜",), piece=1),
        Case(
            "a character cut by a ping",
            S,
            parts(TEXT, [ping()[:22] + b"\xf0\x9f", b"\x8d\x9c" + b'"}'], frame(PING, b"\x8d\x9c")),
            (b"\x8d\x9c", "pong 🍜"),
        ),
    ]
)
WHOLE = [Case(f"{name}", S, text(b"text " + bad + b" text"), end=1007) for name, (bad, _) in BAD.items()]
AT_ONCE = [
    Case(
        f"{name}, at once",
        S,
        parts(TEXT, [b"text", bad[:enough], b"never said"])[: -(6 + len(b"never said"))],
        end=1007,
    )
    for name, (bad, enough) in BAD.items()
]
SPLIT = [
    Case(
        f"{name}, over two fragments, at once",
        S,
        frame(TEXT, b"x" + bad[: enough - 1], fin=False) + frame(CONT, bad[enough - 1 : enough], fin=False),
        end=1007,
    )
    for name, (bad, enough) in BAD.items()
    if enough > 1
]
ENDS = [Case(f"ends with {name}", S, text(b"x" + cut), end=1007) for name, cut in CUT_OFF.items()] + [
    Case(f"ends with {name}, an empty last fragment", S, parts(TEXT, [b"x" + cut, b""]), end=1007)
    for name, cut in CUT_OFF.items()
]
PACKETS = [
    Case("a wrong character in packets of one byte", S, text(b"x\xed\xa0\x80x"), end=1007, piece=1),
    Case(
        "wrong over fragments in packets of one byte", S, parts(TEXT, [b"x\xed", b"\xa0", b"\x80x"]), end=1007, piece=1
    ),
    Case("what follows wrong text has no effect", S, text(b"\xff") + text() + frame(PING, b"x"), end=1007),
    Case("wrong text behind a good message", S, text() + text(b"\xff"), ("pong x",), end=1007),
    Case("wrong text behind 64 KiB of good text", S, text(b"x" * 65_536 + b"\xff"), end=1007),
    Case(
        "wrong UTF-8 in a binary message is nobody's concern",
        "6455 5.6",
        frame(BINARY, b"\xff\xc0\x80"),
        ("bad_message",),
    ),
    Case("wrong UTF-8 over binary fragments", "6455 5.6", parts(BINARY, [b"\xed", b"\xa0", b"\x80"]), ("bad_message",)),
    Case(
        "text behind a binary message that ended within a character",
        "6455 5.6",
        frame(BINARY, b"\xe2\x82") + text(),
        ("bad_message", "pong x"),
    ),
]
CASES = [*WELL, *WHOLE, *AT_ONCE, *SPLIT, *ENDS, *PACKETS]
