"""The decision: pure. How many words each text has; a text without words cannot be counted."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Text:
    id: int
    body: str


@dataclass(frozen=True, slots=True)
class Plan:
    counted: dict[int, int]
    refused: list[int]


def plan(texts: Sequence[Text]) -> Plan:
    counts = {text.id: len(text.body.split()) for text in texts}
    return Plan(
        counted={number: count for number, count in counts.items() if count},
        refused=[number for number, count in counts.items() if not count],
    )
