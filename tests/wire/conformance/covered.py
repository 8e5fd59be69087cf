"""The table of docs/conformance.md, made from the rows; `python -m tests.wire.conformance.covered` writes it there."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tests.wire.conformance import closing, control, deflate, fragmentation, framing, limits, opening, utf8
from tests.wire.conformance.values import Case, Door

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "conformance.md"
START, END = "<!-- generated -->", "<!-- end of what is generated -->"
SECTIONS = {
    "6455 1.4": "nothing is answered behind a close",
    "6455 4.2.1": "the request: method, version, Host, Upgrade, Connection, key, syntax, sizes",
    "6455 4.2.2": "the answer: accept, subprotocols, bytes right behind the request, packets of any size",
    "6455 4.4": "versions",
    "6455 5.1": "frames without a mask",
    "6455 5.2": "lengths, reserved bits, opcodes, streams of frames",
    "6455 5.3": "masks",
    "6455 5.4": "fragments, control frames between them",
    "6455 5.5": "control frames that are too long",
    "6455 5.5.1": "the body of a close and what comes behind it",
    "6455 5.5.2": "pings",
    "6455 5.5.3": "pongs that nobody asked for",
    "6455 5.6": "binary messages, which are answered by an error",
    "6455 7.1.2": "what comes before a close",
    "6455 7.1.7": "what comes behind a broken frame",
    "6455 7.4.1": "close codes of the RFC and of the registry",
    "6455 7.4.2": "close codes of libraries, of applications, of nobody",
    "6455 8.1": "UTF-8: good and bad sequences; whole, over fragments, over packets; at once",
    "6455 9.1": "extensions that nobody knows, offers that are none",
    "6455 10.2": "origins",
    "6455 10.4": "limits: 128 KiB, 1 MiB, bombs",
    "7692 5": "several offers; control frames are never compressed",
    "7692 6": "which messages are compressed",
    "7692 6.1": "compressed fragments, the bit on the first only",
    "7692 7": "other extensions",
    "7692 7.1": "parameters that are unknown or twice",
    "7692 7.1.1": "both context takeovers",
    "7692 7.1.1.1": "the server's context takeover; snapshots that stand alone",
    "7692 7.1.1.2": "the client's context takeover",
    "7692 7.1.2.1": "the server's window",
    "7692 7.1.2.2": "the client's window",
    "7692 7.2.1": "blocks that say they are the last",
    "7692 7.2.2": "levels, strategies, blocks, empty messages, data that is broken",
    "7692 7.2.3.1": "the example of one block",
    "7692 7.2.3.2": "the example of a shared window, which was not agreed upon",
    "7692 7.2.3.3": "the example of a block without compression",
    "7692 7.2.3.4": "the example of a last block",
    "7692 7.2.3.5": "the example of two blocks",
    "7692 7.2.3.6": "the example of an empty message",
}
ROWS: tuple[Case | Door, ...] = (
    *framing.CASES,
    *fragmentation.CASES,
    *control.CASES,
    *utf8.CASES,
    *closing.CASES,
    *limits.CASES,
    *opening.DOORS,
    *deflate.DOORS,
    *deflate.CASES,
)


def coverage(rows: Iterable[Case | Door]) -> dict[str, int]:
    """How many rows each section has, in the order of the sections."""
    counts = Counter(row.section for row in rows)
    return dict(sorted(counts.items(), key=lambda item: [int(part) for part in item[0].replace(" ", ".").split(".")]))


def page() -> str:
    """What stands between the marks."""
    lines = [START, "", f"{len(ROWS)} rows:", "", "| section | what | rows |", "|---|---|---:|"]
    lines += [
        f"| RFC {section.replace(' ', ', ')} | {SECTIONS[section]} | {rows} |"
        for section, rows in coverage(ROWS).items()
    ]
    return "\n".join([*lines, "", END])


def main() -> None:
    told = DOCUMENT.read_text()
    DOCUMENT.write_text(told[: told.index(START)] + page() + told[told.index(END) + len(END) :])


if __name__ == "__main__":
    main()
