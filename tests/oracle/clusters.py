"""The oracle of clusters: what a viewer who asked for them is told, in plain Python, slow and obvious.

It shares no code with the server but the oracle of views. The tile of a point is computed point by point, by the formula that
every slippy map uses.
"""

from __future__ import annotations

import math
from typing import Any

from tests.oracle.view import candidates, occurrence, raw


def level_of(viewport: dict[str, float]) -> int:
    """The finest level, up to 24, at which the viewport's longer side is at most 8.1 cells long."""
    width = viewport["east"] - viewport["west"]
    width = (width + 360 if width <= 0 else width) / 360
    height = down(viewport["south"]) - down(viewport["north"])
    return max(level for level in range(25) if level == 0 or max(width, height) * 2**level <= 8.1)


def down(latitude: float) -> float:
    """How far down the map of the world, 0 to 1; what is beyond its ends is at them."""
    end = math.degrees(math.atan(math.sinh(math.pi)))
    clamped = math.radians(min(max(latitude, -end), end))
    return min(max((1 - math.asinh(math.tan(clamped)) / math.pi) / 2, 0.0), 1.0)


def cell(latitude: float, longitude: float, level: int) -> str:
    side = 2**level
    x = min(math.floor((longitude + 180) * (side / 360)), side - 1)
    y = min(math.floor(down(latitude) * side), side - 1)
    # The formula rounds: right beside an edge between two rows the comparison decides.
    if y + 1 < side and latitude <= edge(y + 1, side):
        y += 1
    if y > 0 and latitude > edge(y, side):
        y -= 1
    return f"{level}/{x}/{y}"


def edge(row: int, side: int) -> float:
    """The latitude at which a row begins; a point on it belongs to that row."""
    return math.degrees(math.atan(math.sinh(math.pi * (1 - 2 * row / side))))


def clusters(events: list[dict[str, Any]], question: dict[str, Any], now: int) -> list[dict[str, Any]]:
    """The clusters told now: none unless there are more than twice maxEvents candidates."""
    found = candidates(events, question, now)
    if len(found) <= 2 * question.get("maxEvents", 50):
        return []
    level, members = level_of(question["viewport"]), dict[str, list[dict[str, Any]]]()
    for event in found:
        members.setdefault(cell(event["latitude"], event["longitude"], level), []).append(event)
    told = []
    for name, inside in members.items():
        best = min(inside, key=lambda e: (-raw(e, question, now), occurrence(e, now)[0], e["id"]))
        told.append(
            {
                "cell": name,
                "location": {axis: mean([e[axis] for e in inside]) for axis in ("latitude", "longitude")},
                "count": len(inside),
                "topEventId": best["id"],
            }
        )
    return told


def mean(values: list[float]) -> float:
    """Of values to seven decimals, to five."""
    return round(sum(round(value * 1e7) for value in values) / len(values) / 1e7, 5)
