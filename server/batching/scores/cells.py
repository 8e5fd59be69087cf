"""The cells that a view is counted in. PURE.

A cell is a tile of the slippy map (Web Mercator), named `level/x/y` as everybody names them: 2^level columns from 180 degrees
west, 2^level rows from the north. So a cell is the same for everybody who looks, and a pan moves none. What lies beyond the
map's ends (85.05 degrees) belongs to its outermost row. The level follows from the size of the viewport alone: the finest at
which its longer side is at most ACROSS cells long; then it touches at most SPAN columns and SPAN rows.

Columns are told by arithmetic that is the same on every machine; rows by comparing with the latitudes of their edges, which
are computed once per viewport: a point's sine is never taken, so whoever counts (compiled or not) comes to the same cell.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from server.batching.scores.shapes import SPAN
from server.protocol.values import Viewport

ACROSS: Final = 8.1
"""Cells along the longer side, at most. A little more than 8, so that windows of usual sizes are not right at the bound, where
a millionth of a degree would decide between this level and the next."""
FINEST: Final = 24
"""The finest level: a cell is some two metres wide."""
LAST: Final = 85.05112877980659
"""Where the map ends, in degrees: there it is as high as wide."""


@dataclass(frozen=True, slots=True)
class Grid:
    """The cells of one viewport: those of `level` from column `x` (round the globe) and row `y` on."""

    level: int
    x: int
    y: int
    edges: tuple[float, ...]
    """The latitudes between its rows, from the north."""

    @property
    def side(self) -> int:
        """Cells round the globe."""
        return 1 << self.level

    @property
    def scale(self) -> float:
        """Columns a degree."""
        return self.side / 360

    def name(self, cell: int) -> str:
        """What a cell (SPAN of them a row) is called on the wire."""
        row, column = divmod(cell, SPAN)
        return f"{self.level}/{(self.x + column) % self.side}/{self.y + row}"


def grid_of(viewport: Viewport) -> Grid:
    """The cells that a viewport is counted in."""
    level = _level(viewport)
    north, south = _row(viewport.north, level), _row(viewport.south, level)
    edges = tuple(_edge(row, level) for row in range(north + 1, south + 1))
    assert len(edges) < SPAN, f"{viewport} has {len(edges) + 1} rows of cells at level {level}"
    return Grid(level, _column(viewport.west, level), north, edges)


def _level(viewport: Viewport) -> int:
    width = viewport.east - viewport.west
    longer = max((width if width > 0 else width + 360) / 360, _down(viewport.south) - _down(viewport.north))
    level = 0
    while level < FINEST and longer * (2 << level) <= ACROSS:
        level += 1
    return level


def _down(latitude: float) -> float:
    """How far down the map, from 0 to 1."""
    sine = math.sin(math.radians(min(max(latitude, -LAST), LAST)))
    return min(max(0.5 - math.log((1 + sine) / (1 - sine)) / (4 * math.pi), 0.0), 1.0)


def _column(longitude: float, level: int) -> int:
    return min(int((longitude + 180.0) * ((1 << level) / 360)), (1 << level) - 1)


def _row(latitude: float, level: int) -> int:
    """Near the place that `_down` says, the row between whose edges it is; an edge belongs to the row below it."""
    rows = 1 << level
    row = min(int(_down(latitude) * rows), rows - 1)
    while row + 1 < rows and latitude <= _edge(row + 1, level):
        row += 1
    while row > 0 and latitude > _edge(row, level):
        row -= 1
    return row


def _edge(row: int, level: int) -> float:
    """The latitude at which a row begins."""
    return math.degrees(math.atan(math.sinh(math.pi * (1 - 2 * row / (1 << level)))))
