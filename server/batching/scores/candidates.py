"""Who answers a question: the nodes and leaves in its viewport, and the candidates with their keys.

A key is a raw score as a whole number of quanta in a float. Loops over rows take plain arrays and slices of them: so they
are vectorised, and nothing is counted or copied on the way.
"""

from __future__ import annotations

import math

import numpy as np

from server.batching.scores.compiling import compiled
from server.batching.scores.shapes import (
    EARTH_KM,
    FANOUT,
    LEAF,
    NEAR1,
    NEAR5,
    NEAR15,
    NEAR50,
    PRIVATE,
    QUANTA,
    RUN,
    SHOWN,
    SLOPE,
    STATUS_SHIFT,
    Clauses,
    Floats,
    Ints,
    Moment,
    Record,
    Scratch,
    World,
)
from server.batching.scores.tree import base_of


@compiled
def distance(chord2: float) -> float:
    """D of a squared chord. Between 15 and 50 km the series of the arc is exact to 1e-15."""
    s = chord2 * 0.25
    km = 2 * EARTH_KM * math.sqrt(s) * (1 + s * (1 / 6 + s * (3 / 40 + s * (5 / 112))))
    term = 0.6 - SLOPE * (km - 15) if chord2 <= NEAR50 else 0.1
    term = 0.6 if chord2 <= NEAR15 else term
    term = 0.8 if chord2 <= NEAR5 else term
    return 1.0 if chord2 <= NEAR1 else term


@compiled
def descend(world: World, one: Record, prepared: bool, work: Scratch) -> int:
    """Pick the nodes wholly inside the viewport (with their level) and the leaves partly inside; returns how many."""
    box, live, first, stack, stack_level = world.box, world.live, world.first, work.stack, work.stack_level
    west, south, east, north = one["west"], one["south"], one["east"], one["north"]
    picked, depth = 0, 0
    if world.sizes[3] > 0:
        stack[0], stack_level[0], depth = world.sizes[2] - 1, world.sizes[3] - 1, 1
    while depth > 0:
        depth -= 1
        node, level = stack[depth], stack_level[depth]
        left, lower, right, upper = box[node, 0], box[node, 1], box[node, 2], box[node, 3]
        if (prepared and live[node] == 0) or upper < south or lower > north:
            continue
        whole = lower >= south and upper <= north
        if west < east:
            outside, whole = right < west or left > east, whole and left >= west and right <= east
        else:
            outside, whole = right < west and left > east, whole and (left >= west or right <= east)
        if outside:
            continue
        if whole or level == 0:
            work.node[picked], work.level[picked] = node, level if whole else -1
            picked += 1
            continue
        low = first[level - 1] + (node - first[level]) * FANOUT
        for child in range(min(low + FANOUT, first[level]) - 1, low - 1, -1):
            stack[depth], stack_level[depth] = child, level - 1
            depth += 1
    return picked


@compiled
def run_of(world: World, work: Scratch, i: int, picked: int) -> tuple[int, int, bool]:
    """The rows of the i-th node picked, or of the tail after the last, and whether all of them are in view."""
    if i == picked:
        return world.sizes[0], world.sizes[1], False
    level = max(work.level[i], 0)
    low, span = work.node[i] - world.first[level], LEAF << (4 * level)
    return low * span, min((low + 1) * span, world.sizes[0]), work.level[i] >= 0


@compiled
def gather(world: World, base: Floats, one: Record, weight: float, picked: int, lazy: bool, work: Scratch) -> int:
    """The public candidates of what was picked, filters aside, with their keys; returns how many.

    `lazy` leaves out the nodes wholly inside.
    """
    first, node, level, key, entry = world.first, work.node, work.level, work.key, work.entry
    latitude, longitude, vector, scored = world.latitude, world.longitude, world.vector, work.scored
    x, y, z = vector[0], vector[1], vector[2]
    ox, oy, oz, west, south = one["x"], one["y"], one["z"], one["west"], one["south"]
    east, north, ordered, used, count = one["east"], one["north"], world.sizes[0], world.sizes[1], 0
    for i in range(picked + 1):
        low, high, whole = ordered, used, False
        if i < picked:
            span, whole = LEAF << (4 * max(level[i], 0)), level[i] >= 0
            low = (node[i] - first[max(level[i], 0)]) * span
            high = min(low + span, ordered)
        if whole and lazy:
            continue
        for begin in range(low, high, RUN):
            end = min(begin + RUN, high)
            score(x[begin:end], y[begin:end], z[begin:end], base[begin:end], ox, oy, oz, weight, scored)
            if not whole:
                crop(latitude[begin:end], longitude[begin:end], west, south, east, north, scored)
            for k in range(end - begin):
                key[count], entry[count] = scored[k], begin + k
                count += int(not math.isnan(scored[k]))
    return count


@compiled
def score(
    x: Floats, y: Floats, z: Floats, base: Floats, ox: float, oy: float, oz: float, weight: float, out: Floats
) -> None:
    """Keys of rows, as seen from the origin; NaN where base is."""
    for k in range(base.size):
        dx, dy, dz = x[k] - ox, y[k] - oy, z[k] - oz
        out[k] = np.rint((base[k] + weight * distance(dx * dx + dy * dy + dz * dz)) * QUANTA)


@compiled
def crop(
    latitude: Floats, longitude: Floats, west: float, south: float, east: float, north: float, out: Floats
) -> None:
    """NaN for the rows outside the viewport."""
    if west < east:
        for k in range(latitude.size):
            inside = (latitude[k] >= south) & (latitude[k] <= north) & (longitude[k] >= west) & (longitude[k] <= east)
            out[k] = out[k] if inside else math.nan
    else:
        for k in range(latitude.size):
            inside = (latitude[k] >= south) & (latitude[k] <= north) & ((longitude[k] >= west) | (longitude[k] <= east))
            out[k] = out[k] if inside else math.nan


@compiled
def keep_passing(world: World, clauses: Clauses, which: int, work: Scratch, count: int) -> int:
    """Of the candidates found, keep those that pass the filter; returns how many."""
    slot, zone, state, start, end, vector = world.slot, world.zone, world.state, world.start, world.end, world.vector
    x, y, z, key, entry, kept = vector[0], vector[1], vector[2], work.key, work.entry, 0
    begin, after = clauses.first[which], clauses.first[which + 1]
    for i in range(count):
        row, passed = entry[i], False
        for clause in range(begin, after):
            passed = passed or _matches(
                clauses, clause, slot[row], zone[row], state[row], start[row], end[row], x[row], y[row], z[row]
            )
        key[kept], entry[kept] = key[i], row
        kept += int(passed)
    return kept


@compiled
def passes(world: World, clauses: Clauses, which: int, row: int) -> bool:
    """Does the row pass the filter? Any clause, all of its tests."""
    x, y, z = world.vector[0, row], world.vector[1, row], world.vector[2, row]
    slot, zone, state, start, end = world.slot[row], world.zone[row], world.state[row], world.start[row], world.end[row]
    for clause in range(clauses.first[which], clauses.first[which + 1]):
        if _matches(clauses, clause, slot, zone, state, start, end, x, y, z):
            return True
    return False


@compiled
def _matches(
    clauses: Clauses, clause: int, slot: int, zone: int, state: int, start: int, end: int, x: float, y: float, z: float
) -> bool:
    place = clauses.place[clause]
    if (clauses.status[clause] >> (state >> STATUS_SHIFT)) & 1 == 0:
        return False
    if end < clauses.begins[clause, zone] or start > clauses.ends[clause, zone]:
        return False
    for i in range(2):
        bitmap = clauses.bitmap[clause, i]
        if bitmap >= 0 and (clauses.bits[bitmap, slot >> 3] >> (slot & 7)) & 1 == 0:
            return False
    if place[3] < 0:
        return True
    dx, dy, dz = x - place[0], y - place[1], z - place[2]
    return bool(dx * dx + dy * dy + dz * dz <= place[3])


@compiled
def gather_private(
    world: World, one: Record, private: Ints, clauses: Clauses, at: Moment, work: Scratch, count: int
) -> int:
    """Append those private events that the question's user may see and that are candidates."""
    for i in range(one["private_first"], one["private_first"] + one["private_count"]):
        row = world.row_of[private[i]]
        if row >= 0 and world.state[row] & PRIVATE != 0:
            value = key_of(world, row, one, clauses, at)
            work.key[count], work.entry[count] = value, row
            count += int(not math.isnan(value))
    return count


@compiled
def inside(one: Record, latitude: float, longitude: float) -> bool:
    """Is the point in the viewport? Bounds inclusive."""
    if latitude < one["south"] or latitude > one["north"]:
        return False
    if one["west"] < one["east"]:
        return bool(longitude >= one["west"] and longitude <= one["east"])
    return bool(longitude >= one["west"] or longitude <= one["east"])


@compiled
def key_of(world: World, row: int, one: Record, clauses: Clauses, at: Moment) -> float:
    """The key of an event that the user may see; NaN when it is no candidate."""
    shown = (world.state[row] & SHOWN) != 0 and inside(one, world.latitude[row], world.longitude[row])
    if not shown or (one["filter"] >= 0 and not passes(world, clauses, one["filter"], row)):
        return math.nan
    return fresh_key(world, row, one, at)


@compiled
def fresh_key(world: World, row: int, one: Record, at: Moment) -> float:
    """The key that an event has for the question now, whether it is in view or not; NaN outside the window."""
    base = base_of(at, world.start[row], world.created[row], world.popularity[row], world.confidence[row], True)
    dx, dy, dz = world.vector[0, row] - one["x"], world.vector[1, row] - one["y"], world.vector[2, row] - one["z"]
    return float(np.rint((base + at.distance * distance(dx * dx + dy * dy + dz * dz)) * QUANTA))
