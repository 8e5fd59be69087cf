"""The tree over the sorted rows, and what it knows of a moment.

`build` makes it after a merge, `prepare` fills it for a moment, `patch` keeps it right when rows change within that moment.
"""

from __future__ import annotations

import math

import numpy as np

from server.batching.scores.compiling import compiled
from server.batching.scores.shapes import (
    FANOUT,
    HOUR,
    LEAF,
    PRIVATE,
    SHOWN,
    SLACK,
    Floats,
    Ints,
    Moment,
    Words,
    World,
)


def nodes_for(rows: int) -> int:
    """How many nodes a tree over so many sorted rows has."""
    count, total = -(-rows // LEAF), 0
    while count > 1:
        total, count = total + count, -(-count // FANOUT)
    return total + count


@compiled
def hilbert(latitude: Floats, longitude: Floats) -> Words:
    """Sort keys: where the points lie on a Hilbert curve over the map."""
    keys = np.empty(latitude.size, np.uint64)
    for i in range(latitude.size):
        x = min(max(int((longitude[i] + 180.0) * (2147483648.0 / 360.0)), 0), 2147483647)
        y = min(max(int((latitude[i] + 90.0) * (2147483648.0 / 180.0)), 0), 2147483647)
        key = 0
        side = 1 << 30
        while side > 0:
            right, upper = int(x & side != 0), int(y & side != 0)
            key = 4 * key + ((3 * right) ^ upper)
            if upper == 0:
                if right == 1:
                    x, y = 2147483647 - x, 2147483647 - y
                x, y = y, x
            side >>= 1
        keys[i] = key
    return keys


@compiled
def build(world: World) -> None:
    """Levels, boxes and balls from the sorted rows. Their base and aggregates are `prepare`'s."""
    rows = world.sizes[0]
    count, node, level, span = (rows + LEAF - 1) // LEAF, 0, 0, LEAF
    world.first[0] = 0
    while count > 0:
        for i in range(count):
            low, high = i * span, min((i + 1) * span, rows)
            if level == 0:
                _bound_rows(world, node, low, high)
            else:
                child = world.first[level - 1] + i * FANOUT
                _bound_nodes(world, node, child, min(child + FANOUT, world.first[level]))
            _enclose(world, node, low, high)
            node += 1
        level += 1
        world.first[level] = node
        count = 0 if count == 1 else (count + FANOUT - 1) // FANOUT
        span *= FANOUT
    world.sizes[2], world.sizes[3] = node, level


@compiled
def _bound_rows(world: World, node: int, low: int, high: int) -> None:
    """A leaf's box, and the mean of its rows."""
    west, south, east, north = math.inf, math.inf, -math.inf, -math.inf
    x, y, z = 0.0, 0.0, 0.0
    for row in range(low, high):
        west, east = min(west, world.longitude[row]), max(east, world.longitude[row])
        south, north = min(south, world.latitude[row]), max(north, world.latitude[row])
        x, y, z = x + world.vector[0, row], y + world.vector[1, row], z + world.vector[2, row]
    box, ball = world.box[node], world.ball[node]
    box[0], box[1], box[2], box[3] = west, south, east, north
    ball[0], ball[1], ball[2] = x / (high - low), y / (high - low), z / (high - low)


@compiled
def _bound_nodes(world: World, node: int, low: int, high: int) -> None:
    """A parent's box, and the mean of its children's centres."""
    box, ball = world.box[node], world.ball[node]
    box[0], box[1], box[2], box[3] = math.inf, math.inf, -math.inf, -math.inf
    ball[:] = 0.0
    for child in range(low, high):
        one = world.box[child]
        box[0], box[1] = min(box[0], one[0]), min(box[1], one[1])
        box[2], box[3] = max(box[2], one[2]), max(box[3], one[3])
        for i in range(3):
            ball[i] += world.ball[child, i] / (high - low)


@compiled
def _enclose(world: World, node: int, low: int, high: int) -> None:
    """The ball's radius: the farthest of the node's rows."""
    ball = world.ball[node]
    x, y, z, farthest = ball[0], ball[1], ball[2], 0.0
    for row in range(low, high):
        dx, dy, dz = world.vector[0, row] - x, world.vector[1, row] - y, world.vector[2, row] - z
        farthest = max(farthest, dx * dx + dy * dy + dz * dz)
    ball[3] = math.sqrt(farthest) + SLACK


@compiled
def moment(now: int, weights: Floats, past: int, ahead: int) -> Moment:
    return Moment(now, now - past, now + ahead, weights[0], weights[1], weights[2], weights[3], weights[4])


@compiled
def base_of(at: Moment, start: int, created: int, popularity: float, confidence: float, open_: bool) -> float:
    """The part of raw that no viewer changes; NaN when not `open_` or outside the window."""
    hours = (start - at.now) / HOUR
    time = 0.1
    time = 0.8 - 0.5 * (hours - 24) / 48 if hours <= 72 else time
    time = 0.8 if hours <= 24 else time
    time = 1.0 if hours <= 2 else time
    time = max(0.0, 1 + hours / 24) if hours < 0 else time
    age = at.now - created
    recency = 0.3 if age <= 168 * HOUR else 0.1
    recency = 0.5 if age <= 72 * HOUR else recency
    recency = 0.7 if age <= 24 * HOUR else recency
    recency = 0.9 if age <= 6 * HOUR else recency
    recency = 1.0 if age <= HOUR else recency
    total = at.time * time + at.popularity * popularity + at.recency * recency + at.confidence * confidence
    return total if open_ & (start >= at.earliest) & (start <= at.latest) else math.nan


@compiled
def bases(world: World, low: int, high: int, at: Moment, out: Floats) -> None:
    """The base of the rows [low, high)."""
    start, created = world.start[low:high], world.created[low:high]
    popularity, confidence = world.popularity[low:high], world.confidence[low:high]
    state, slot = world.state[low:high], world.slot[low:high]
    for k in range(start.size):
        open_ = ((state[k] & (SHOWN | PRIVATE)) == SHOWN) & (slot[k] >= 0)
        out[k] = base_of(at, start[k], created[k], popularity[k], confidence[k], open_)


@compiled
def prepare(world: World, now: int, weights: Floats, past: int, ahead: int) -> None:
    """Base of all rows, and what nodes say of it, for this moment."""
    prepare_at(world, moment(now, weights, past, ahead))


@compiled
def prepare_at(world: World, at: Moment) -> None:
    used = world.sizes[1]
    bases(world, 0, used, at, world.base[:used])
    for level in range(world.sizes[3]):
        for node in range(world.first[level], world.first[level + 1]):
            _sum_up(world, level, node)


@compiled
def _sum_up(world: World, level: int, node: int) -> None:
    """Count, maximum and minimum of base, from the node's rows or its children."""
    live, best, least = 0, -math.inf, math.inf
    if level == 0:
        for value in world.base[node * LEAF : min((node + 1) * LEAF, world.sizes[0])]:
            live += int(not math.isnan(value))
            best = value if value > best else best
            least = value if value < least else least
    else:
        low = world.first[level - 1] + (node - world.first[level]) * FANOUT
        for child in range(low, min(low + FANOUT, world.first[level])):
            live += world.live[child]
            best, least = max(best, world.best[child]), min(least, world.least[child])
    world.live[node], world.best[node], world.least[node] = live, best, least


@compiled
def patch(world: World, rows: Ints, now: int, weights: Floats, past: int, ahead: int) -> None:
    """Base of these rows and the nodes above them, for the moment that the world is prepared for."""
    at = moment(now, weights, past, ahead)
    for i in range(rows.size):
        row = rows[i]
        bases(world, row, row + 1, at, world.base[row : row + 1])
    ordered = np.sort(rows)
    span = LEAF
    for level in range(world.sizes[3]):
        last = -1
        for i in range(ordered.size):
            node = world.first[level] + ordered[i] // span
            if ordered[i] < world.sizes[0] and node != last:
                _sum_up(world, level, node)
                last = node
        span *= FANOUT
