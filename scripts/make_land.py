"""Derive the map page's land file from Natural Earth's public-domain coastlines.

    python scripts/make_land.py land-50m.json server/handlers/site/land.json

The input is a TopoJSON file as the npm package `world-atlas` carries it (`npm pack world-atlas`, then
`package/land-50m.json`). What this script promises about the output:

- no ring crosses the antimeridian: a crossing ring is cut there, and one that goes round a pole is closed along the edge
  of the map, so that a renderer can draw every ring on a flat plane without thinking;
- the rings of one file may be filled together with the even-odd rule (lakes are rings like any other);
- the file stays below `BUDGET_BYTES` when compressed: points that matter least to the shape are left out first
  (Visvalingam and Whyatt), until it fits;
- the same input gives the same bytes.

Output: {"scale": S, "attribution": text, "rings": [[x0, y0, dx, dy, ...], ...], "places": [[tier, latitude, longitude,
name], ...]}; x and y are degrees of longitude and latitude times S, as integers, each point but the first as the
difference to the one before. The places are those of places.txt beside this script.
"""

from __future__ import annotations

import gzip
import heapq
import json
import math
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

SCALE = 100
BUDGET_BYTES = 58 * 1024
PLACES = Path(__file__).with_name("places.txt")
# The smallest triangle (square degrees, as seen at its latitude) worth a point: tried from fine to coarse until the file fits.
TOLERANCES = (0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.01, 0.02)

Point = tuple[float, float]
Ring = list[Point]


def main(source: Path, target: Path) -> None:
    rings = [piece for ring in read_rings(json.loads(source.read_text())) for piece in cut(unwrap(ring))]
    for tolerance in TOLERANCES:
        text = encode([thin for ring in rings if len(thin := simplify(ring, tolerance)) >= 4])
        size = len(gzip.compress(text.encode(), mtime=0))
        if size <= BUDGET_BYTES:
            target.write_text(text)
            print(f"{target}: tolerance {tolerance}, {len(text)} bytes, {size} compressed")
            return
    raise SystemExit(f"{source} does not fit into {BUDGET_BYTES} bytes at the coarsest tolerance")


def read_rings(topology: dict[str, Any]) -> Iterator[Ring]:
    """Every ring of every polygon, in degrees."""
    arcs = [decode_arc(arc, topology["transform"]) for arc in topology["arcs"]]
    for name in sorted(topology["objects"]):
        for polygon in polygons(topology["objects"][name]):
            for indices in polygon:
                yield join([arcs[i] if i >= 0 else arcs[~i][::-1] for i in indices])


def decode_arc(arc: list[list[int]], transform: dict[str, list[float]]) -> Ring:
    (scale_x, scale_y), (shift_x, shift_y) = transform["scale"], transform["translate"]
    x = y = 0
    points: Ring = []
    for dx, dy in arc:
        x, y = x + dx, y + dy
        points.append((x * scale_x + shift_x, y * scale_y + shift_y))
    return points


def polygons(geometry: dict[str, Any]) -> Iterator[list[list[int]]]:
    kind = geometry["type"]
    if kind == "GeometryCollection":
        for part in geometry["geometries"]:
            yield from polygons(part)
    elif kind == "MultiPolygon":
        yield from geometry["arcs"]
    elif kind == "Polygon":
        yield geometry["arcs"]


def join(arcs: list[Ring]) -> Ring:
    """One ring out of its arcs; each arc begins where the one before ended."""
    ring: Ring = []
    for arc in arcs:
        ring.extend(arc if not ring else arc[1:])
    return ring


def unwrap(ring: Ring) -> Ring:
    """The ring with longitudes that never jump; one that goes round a pole is closed along the pole."""
    points = [ring[0]]
    for x, y in ring[1:]:
        turns = round((points[-1][0] - x) / 360)
        points.append((x + 360 * turns, y))
    drift = points[-1][0] - points[0][0]
    if abs(drift) > 180:
        pole = math.copysign(90.0, sum(y for _, y in points))
        points += [(points[-1][0], pole), (points[0][0], pole), points[0]]
    return points


def cut(ring: Ring) -> Iterator[Ring]:
    """The parts of an unwrapped ring in each copy of the world, moved back into [-180, 180]."""
    west, east = min(x for x, _ in ring), max(x for x, _ in ring)
    for copy in range(math.floor((west + 180) / 360), math.floor((east + 180) / 360) + 1):
        left = -180.0 + 360 * copy
        inside = clip(clip(ring, left, keep_greater=True), left + 360, keep_greater=False)
        if len(inside) >= 4:
            yield [(x - 360 * copy, y) for x, y in inside]


def clip(ring: Ring, edge: float, *, keep_greater: bool) -> Ring:
    """One pass of Sutherland and Hodgman against a meridian; closed in, closed out."""
    out: Ring = []
    for (ax, ay), (bx, by) in pairwise(ring):
        a_in = ax >= edge if keep_greater else ax <= edge
        b_in = bx >= edge if keep_greater else bx <= edge
        if a_in:
            out.append((ax, ay))
        if a_in != b_in:
            out.append((edge, ay + (by - ay) * (edge - ax) / (bx - ax)))
    return [*out, out[0]] if out else out


def simplify(ring: Ring, tolerance: float) -> Ring:
    """The closed ring without the points whose triangle with their neighbours is smaller than `tolerance`."""
    points = ring[:-1]
    count = len(points)
    if count < 3 or extent(points) < 4 * tolerance:
        return []
    before, after = [(i - 1) % count for i in range(count)], [(i + 1) % count for i in range(count)]
    area = [triangle(points[before[i]], points[i], points[after[i]]) for i in range(count)]
    heap = [(size, i) for i, size in enumerate(area)]
    heapq.heapify(heap)
    gone, left = [False] * count, count
    while heap and left > 3:
        size, i = heapq.heappop(heap)
        if gone[i] or size != area[i]:
            continue
        if size >= tolerance:
            break
        gone[i], left = True, left - 1
        a, b = before[i], after[i]
        after[a], before[b] = b, a
        for j in (a, b):
            # Never smaller than what was just removed: a point doesn't become unimportant by its neighbour leaving.
            area[j] = max(size, triangle(points[before[j]], points[j], points[after[j]]))
            heapq.heappush(heap, (area[j], j))
    kept = [point for point, out in zip(points, gone, strict=True) if not out]
    return [*kept, kept[0]]


def triangle(a: Point, b: Point, c: Point) -> float:
    if abs(b[0]) == 180 and a[0] == b[0] == c[0]:
        return 0.0
    twice = abs((b[0] - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (b[1] - a[1]))
    return twice / 2 * max(0.05, math.cos(math.radians(b[1])))


def extent(points: Ring) -> float:
    """The area of the bounding box, as seen at its latitude."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return (max(xs) - min(xs)) * (max(ys) - min(ys)) * max(0.05, math.cos(math.radians(ys[0])))


def encode(rings: list[Ring]) -> str:
    packed = [pack(ring) for ring in rings]
    packed = sorted((ring for ring in packed if len(ring) >= 8), key=len, reverse=True)
    document = {
        "scale": SCALE,
        "attribution": "Natural Earth (public domain)",
        "rings": packed,
        "places": read_places(),
    }
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False) + "\n"


def read_places() -> list[tuple[int, float, float, str]]:
    rows = [line.split(maxsplit=3) for line in PLACES.read_text().splitlines() if not line.startswith("#")]
    return [(int(tier), float(latitude), float(longitude), name) for tier, latitude, longitude, name in rows]


def pack(ring: Ring) -> list[int]:
    """The ring on the grid, as differences; points that fall together become one."""
    out: list[int] = []
    last = (0, 0)
    for x, y in ring:
        point = (round(x * SCALE), round(y * SCALE))
        if not out or point != last:
            out += [point[0] - last[0], point[1] - last[1]]
        last = point
    return out


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
