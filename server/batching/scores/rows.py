"""The kernel's arrays: made, grown, rearranged, and computed many at once. Columns owns them; nothing here keeps one.

And what of columns can be taken out and put back: the counters of some events, or all of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np

from server.batching.scores import kernel
from server.batching.scores.content import Content
from server.batching.scores.kernel import Bytes, Floats, Ints, Longs, Words, World
from server.core.event import SHOWN, STATUSES

Array = TypeVar("Array", Bytes, Floats, Ints, Longs, Words)

STATES: Final[Bytes] = np.array(
    [
        (kernel.SHOWN if status in SHOWN else 0) | number << kernel.STATUS_SHIFT
        for number, status in enumerate(STATUSES)
    ],
    np.uint8,
)
"""By index into STATUSES: the `state` of a public event."""
BY_ROW: Final = (
    *("latitude", "longitude", "start", "end", "created", "popularity", "confidence"),
    *("state", "zone", "label", "slot", "base"),
)
BY_SLOT: Final = ("row_of", "version", "mark")


@dataclass(frozen=True, slots=True)
class Counters:
    """Of some events, by slot, what a publish changes."""

    slots: Ints
    contents: Sequence[Content | None]
    popularity: Floats
    version: Longs
    mark: Words


def blank_world(rows: int, slots: int) -> World:
    """Arrays for so many rows and slots, without an event."""
    nodes = kernel.nodes_for(rows)
    longs, floats = (np.int64, np.float64)
    return World(
        sizes=np.zeros(4, longs),
        latitude=np.zeros(rows, floats),
        longitude=np.zeros(rows, floats),
        vector=np.zeros((3, rows), floats),
        start=np.zeros(rows, longs),
        end=np.zeros(rows, longs),
        created=np.zeros(rows, longs),
        popularity=np.zeros(rows, floats),
        confidence=np.zeros(rows, floats),
        state=np.zeros(rows, np.uint8),
        zone=np.zeros(rows, np.int32),
        label=np.zeros(rows, longs),
        slot=np.full(rows, -1, np.int32),
        row_of=np.full(slots, -1, np.int32),
        version=np.zeros(slots, longs),
        mark=np.zeros(slots, np.uint64),
        base=np.zeros(rows, floats),
        first=np.zeros(kernel.MAX_LEVELS + 1, longs),
        box=np.zeros((nodes, 4)),
        ball=np.zeros((nodes, 4)),
        live=np.zeros(nodes, np.int32),
        best=np.zeros(nodes, floats),
        least=np.zeros(nodes, floats),
    )


def with_nodes(world: World) -> World:
    """The world, with room for the tree over its sorted rows."""
    if kernel.nodes_for(world.sizes.item(0)) <= len(world.live):
        return world
    blank = blank_world(len(world.slot), 0)
    return world._replace(box=blank.box, ball=blank.ball, live=blank.live, best=blank.best, least=blank.least)


def rearrange(world: World, key: Words, order: Longs) -> None:
    """The rows of `order` become the first, in that order, all of them sorted."""
    count = len(order)
    scratch = np.empty(count, np.float64)
    for column in (*(getattr(world, name) for name in BY_ROW), *world.vector, key):
        room = scratch.view(column.dtype)[:count]
        np.take(column, order, out=room, mode="clip")
        column[:count] = room
    world.slot[count : world.sizes.item(1)] = -1
    world.row_of[world.slot[:count]] = np.arange(count, dtype=np.int32)
    world.sizes[:2] = count


def grown(array: Array, size: int) -> Array:
    """A longer copy, zeros at the end."""
    longer = np.zeros((*array.shape[:-1], size), array.dtype)
    longer[..., : array.shape[-1]] = array
    return longer


def unit_vectors(latitude: Floats, longitude: Floats) -> Floats:
    """Points on the unit sphere, (3, n): bit for bit what `unit_vector` gives, which NumPy's own sine may not be."""
    phi, lam = np.radians(latitude).tolist(), np.radians(longitude).tolist()
    count = len(phi)
    across = np.fromiter(map(math.cos, phi), np.float64, count)
    east = across * np.fromiter(map(math.cos, lam), np.float64, count)
    north = across * np.fromiter(map(math.sin, lam), np.float64, count)
    return np.stack([east, north, np.fromiter(map(math.sin, phi), np.float64, count)])


def popularity_terms(counts: Longs) -> Floats:
    """P of each row of (scans, saves, RSVPs): what `popularity_term` gives."""
    scan, save, rsvp = (np.minimum(counts[:, i] / full, 1) for i, full in enumerate((10, 5, 3)))
    return np.asarray((scan + 3 * save + 5 * rsvp) / 9)


@dataclass(frozen=True, slots=True)
class Copy:
    """Columns at a moment, by slot; what stands at a slot of `gone` or `free` doesn't matter."""

    ids: list[str]
    """Also those of removed events that are remembered; "" at a free slot."""
    contents: list[Content | None]
    gone: frozenset[int]
    free: list[int]
    """In the order in which they were given back: the last is used first."""
    turning: dict[int, int]
    """By slot of a recurring event: until when its occurrence counts."""
    worded: Sequence[int]
    """By slot: the version since which nothing but counters has changed."""
