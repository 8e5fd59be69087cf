"""The land file and the script that makes it."""

import gzip
import importlib.util
import json
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]
LAND = ROOT / "server" / "handlers" / "site" / "land.json"

pytestmark = pytest.mark.pure


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_land", ROOT / "scripts" / "make_land.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make_land = load_script()


def unpacked(ring: list[int], scale: int) -> list[tuple[float, float]]:
    x = y = 0
    points = []
    for dx, dy in zip(ring[::2], ring[1::2], strict=True):
        x, y = x + dx, y + dy
        points.append((x / scale, y / scale))
    return points


def land() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(LAND.read_text())
    return content


def inside(rings: list[list[tuple[float, float]]], longitude: float, latitude: float) -> bool:
    """The even-odd rule, the slow way."""
    odd = False
    for ring in rings:
        for (ax, ay), (bx, by) in zip(ring, ring[1:] + ring[:1], strict=True):
            if (ay > latitude) != (by > latitude) and longitude < ax + (latitude - ay) * (bx - ax) / (by - ay):
                odd = not odd
    return odd


def test_the_land_file_is_small_on_the_grid_and_inside_the_world() -> None:
    assert len(gzip.compress(LAND.read_bytes())) < 60 * 1024
    content = land()
    for ring in content["rings"]:
        points = unpacked(ring, content["scale"])
        assert len(points) >= 4
        assert all(-180 <= x <= 180 and -90 <= y <= 90 for x, y in points)


def test_no_ring_jumps_across_the_antimeridian() -> None:
    content = land()
    for ring in content["rings"]:
        points = unpacked(ring, content["scale"])
        steps = [abs(b[0] - a[0]) for a, b in pairwise(points) if a[1] > -89 and b[1] > -89]
        assert max(steps, default=0) < 180


@pytest.mark.parametrize(
    ("place", "longitude", "latitude", "dry"),
    [
        ("Berlin", 13.4, 52.5, True),
        ("Alice Springs", 133.9, -23.7, True),
        ("the South Pole's plateau", 0.0, -88.0, True),
        ("Chukotka beyond the line", -178.0, 66.8, True),
        ("the Atlantic", -40.0, 30.0, False),
        ("the Pacific", -150.0, 0.0, False),
        ("the Caspian Sea", 51.0, 42.0, False),
    ],
)
def test_places_known_to_be_dry_or_wet_are(place: str, longitude: float, latitude: float, dry: bool) -> None:
    content = land()
    rings = [unpacked(ring, content["scale"]) for ring in content["rings"]]
    assert inside(rings, longitude, latitude) is dry, place


def test_the_named_places_are_in_the_file() -> None:
    names = {name for _, _, _, name in land()["places"]}
    assert {"San Francisco", "São Paulo", "Suva"} <= names


def test_a_ring_over_the_antimeridian_is_cut_into_two() -> None:
    ring = [(170.0, 0.0), (-170.0, 0.0), (-170.0, 10.0), (170.0, 10.0), (170.0, 0.0)]
    pieces = list(make_land.cut(make_land.unwrap(ring)))
    assert sorted((min(x for x, _ in piece), max(x for x, _ in piece)) for piece in pieces) == [
        (-180.0, -170.0),
        (170.0, 180.0),
    ]


def test_a_ring_round_the_pole_is_closed_along_it() -> None:
    ring = [(float(x), -70.0) for x in range(-180, 181, 30)]
    closed = make_land.unwrap([(x if x < 180 else -180.0, y) for x, y in ring])
    assert min(y for _, y in closed) == -90
    assert closed[0] == closed[-1]


@given(st.lists(st.tuples(st.floats(-170, 170), st.floats(-80, 80)), min_size=4, max_size=40))
def test_simplifying_keeps_only_points_of_the_ring(points: list[tuple[float, float]]) -> None:
    ring = [*points, points[0]]
    thin = make_land.simplify(ring, 0.01)
    assert set(thin) <= set(ring)
    assert not thin or (thin[0] == thin[-1] and len(thin) >= 4)
