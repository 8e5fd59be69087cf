"""A viewport's cells are tiles of the slippy map: few, the same for everybody, and every point of the view lies in one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.batching.scores.cells import FINEST, Grid, grid_of
from server.batching.scores.shapes import GRID, SPAN
from server.batching.scores.walk import cell_of
from server.protocol.values import Viewport
from tests.batching.scores.test_ranking import viewports
from tests.oracle.clusters import cell as plain
from tests.oracle.clusters import level_of

pytestmark = pytest.mark.pure


def cell_in(grid: Grid, latitude: float, longitude: float) -> int:
    """As the compiled path counts."""
    edges = np.full(SPAN - 1, -np.inf)
    edges[: len(grid.edges)] = grid.edges
    return int(cell_of(latitude, longitude, np.array((grid.scale, grid.side, grid.x), GRID)[()], edges))


@st.composite
def looks(draw: st.DrawFn) -> tuple[dict[str, float], float, float]:
    """A viewport and a point in it."""
    one = draw(viewports())
    turn = 360 if one["west"] > one["east"] else 0
    longitude = draw(st.sampled_from([one["west"], one["east"]]) | st.floats(one["west"], one["east"] + turn))
    latitude = draw(st.sampled_from([one["south"], one["north"]]) | st.floats(one["south"], one["north"]))
    return one, latitude, longitude - 360 if longitude > 180 else longitude


@settings(max_examples=200, deadline=None)
@given(looks())
def test_every_point_of_a_view_lies_in_one_of_its_cells_which_is_the_tile_of_that_point(look: Any) -> None:
    viewport, latitude, longitude = look
    grid = grid_of(Viewport(**viewport))
    cell = cell_in(grid, latitude, longitude)
    assert 0 <= cell % SPAN < SPAN and 0 <= cell // SPAN <= len(grid.edges) < SPAN
    assert grid.name(cell) == plain(latitude, longitude, level_of(viewport))


def grid(west: float, south: float, east: float, north: float) -> Grid:
    return grid_of(Viewport(west=west, south=south, east=east, north=north))


@pytest.mark.parametrize(
    ("box", "level"),
    [
        ((-180, -90, 180, 90), 3),
        ((10, -90, 9.9, 90), 3),
        ((-180, -85, 180, 85), 3),
        ((0, 0, 45, 1), 6),
        ((0, 0, 46, 1), 5),
        ((179, -1, -179, 1), 10),
        ((-10, 89, 10, 90), 7),
        ((0, 0, 1e-9, 1e-9), FINEST),
    ],
)
def test_the_level_follows_from_the_size_of_the_view(box: tuple[float, float, float, float], level: int) -> None:
    assert grid(*box).level == level


def test_a_window_as_wide_as_a_power_of_two_does_not_change_its_level_by_rounding() -> None:
    levels = {
        grid(12.3 + shift, 40, 12.3 + shift + 45 + error, 41).level for shift in (0, 1e-6) for error in (-1e-6, 0, 1e-6)
    }
    assert levels == {6}


def test_a_pan_moves_no_cell() -> None:
    here, there = grid(13.2, 52.4, 13.6, 52.6), grid(13.25, 52.43, 13.65, 52.63)
    assert here.level == there.level
    assert here.name(cell_in(here, 52.5, 13.4)) == there.name(cell_in(there, 52.5, 13.4))


def test_across_the_antimeridian_columns_go_on_from_the_west() -> None:
    across = grid(179, -1, -179, 1)
    west, east = cell_in(across, 0.5, 179.5), cell_in(across, 0.5, -179.5)
    assert 0 < east - west < SPAN
    assert across.name(west) == "10/1022/510"
    assert across.name(east) == "10/1/510"


def test_what_lies_beyond_the_ends_of_the_map_is_in_its_outermost_row() -> None:
    world = grid(-180, -90, 180, 90)
    assert {world.name(cell_in(world, latitude, 0.5)) for latitude in (90, 89, 85.1, 84)} == {"3/4/0"}
    assert {world.name(cell_in(world, latitude, 0.5)) for latitude in (-90, -89, -85.1, -84)} == {"3/4/7"}


def test_an_edge_belongs_to_the_cell_south_and_east_of_it() -> None:
    world = grid(-180, -90, 180, 90)
    assert world.name(cell_in(world, 0.0, 0.0)) == "3/4/4"
    assert world.name(cell_in(world, 5e-324, 0.0)) == "3/4/3"
    assert world.name(cell_in(world, 0.0, -1e-13)) == "3/3/4"
