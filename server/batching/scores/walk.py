"""From the candidates to the view: best first, spaced, cut, with each event's place among all candidates.

Two ways that give the same. Candidates that are all known are spread over bins of keys, and only the bins that the walk
reaches are put in order. Where many are in view, nodes wait in a heap under an upper bound of what is in them; a node taken
from it gives its best child or row, and waits on under the bound of the next. An entry of the heap is a row, or
-1 - (LEAF * node + step). A node comes before a row of equal key, for it may hide one that starts earlier.

Candidates are counted by the cells of a grid in the same spirit: a node as a whole where nothing in it can matter.
"""

from __future__ import annotations

import math

import numpy as np

from server.batching.scores.candidates import distance, score
from server.batching.scores.compiling import compiled
from server.batching.scores.shapes import (
    BINS,
    FANOUT,
    FAR,
    FINE,
    LEAF,
    QUANTA,
    SHIFT,
    SLACK,
    SPAN,
    Bytes,
    Cells,
    Floats,
    Ints,
    Longs,
    Record,
    Scratch,
    World,
)


@compiled
def before(key_a: float, a: int, key_b: float, b: int, start: Longs, label: Longs) -> bool:
    """Does entry `a` come first? By key, then nodes, then start, then id."""
    if key_a != key_b:
        return key_a > key_b
    if a < 0 or b < 0:
        return b >= 0
    return bool(start[a] < start[b] or (start[a] == start[b] and label[a] < label[b]))


@compiled
def _sink(key: Floats, entry: Longs, begin: int, at: int, size: int, start: Longs, label: Longs) -> None:
    """Restore the heap of `size` entries that begins there, below `at`, whose entry may have to go down."""
    moving, one, child = key[begin + at], entry[begin + at], 2 * at + 1
    while child < size:
        here = begin + child
        if child + 1 < size and before(key[here + 1], entry[here + 1], key[here], entry[here], start, label):
            child, here = child + 1, here + 1
        if not before(key[here], entry[here], moving, one, start, label):
            break
        key[begin + at], entry[begin + at] = key[here], entry[here]
        at, child = child, 2 * child + 1
    key[begin + at], entry[begin + at] = moving, one


@compiled
def _push(key: Floats, entry: Longs, size: int, value: float, one: int, start: Longs, label: Longs) -> int:
    """Put an entry into the heap; returns its size."""
    at = size
    while at > 0 and before(value, one, key[(at - 1) >> 1], entry[(at - 1) >> 1], start, label):
        key[at], entry[at] = key[(at - 1) >> 1], entry[(at - 1) >> 1]
        at = (at - 1) >> 1
    key[at], entry[at] = value, one
    return size + 1


@compiled
def _pop(key: Floats, entry: Longs, begin: int, size: int, start: Longs, label: Longs) -> int:
    """Take the first entry out of the heap; returns its size."""
    size -= 1
    if size > 0:
        key[begin], entry[begin] = key[begin + size], entry[begin + size]
        _sink(key, entry, begin, 0, size, start, label)
    return size


@compiled
def too_near(xs: Floats, ys: Floats, zs: Floats, count: int, x: float, y: float, z: float, spacing: float) -> bool:
    """Is the point nearer than the spacing to one of those kept? No early way out: so it is vectorised."""
    near = 0
    for k in range(count):
        dx, dy, dz = xs[k] - x, ys[k] - y, zs[k] - z
        near += int(dx * dx + dy * dy + dz * dz < spacing)
    return near > 0


@compiled
def spread(work: Scratch, count: int, lowest: float, highest: float) -> int:
    """Put the candidates into bins of keys, greatest first; returns how many bins."""
    key, entry, bound, at, to_key, to_entry = (
        work.key, work.entry, work.bound, work.at, work.binned_key, work.binned_entry
    )  # fmt: skip
    bins = min(BINS, count // 2 + 1) if highest > lowest else 1
    scale = (bins - 1) / (highest - lowest) if bins > 1 else 0.0
    for i in range(bins + 1):
        bound[i] = 0
    for i in range(count):
        bound[int((highest - key[i]) * scale) + 1] += 1
    for i in range(bins):
        at[i] = bound[i]
        bound[i + 1] += bound[i]
    for i in range(count):
        chosen = int((highest - key[i]) * scale)
        to_key[at[chosen]], to_entry[at[chosen]] = key[i], entry[i]
        at[chosen] += 1
    return bins


@compiled
def walk_bins(
    world: World,
    limit: int,
    spacing: float,
    work: Scratch,
    bins: int,
    row_out: Ints,
    key_out: Floats,
    place_out: Floats,
) -> int:
    """Keep from the best down what is not too near to one kept; returns how many.

    Also says of each how many candidates have a strictly greater key: where its group of equals began in the walk, those
    dropped included.
    """
    start, label, key, entry, bound = world.start, world.label, work.binned_key, work.binned_entry, work.bound
    x, y, z, xs, ys, zs = world.vector[0], world.vector[1], world.vector[2], work.x, work.y, work.z
    kept, walked, group, last = 0, 0, 0, math.inf
    for nth in range(bins):
        begin, size = bound[nth], bound[nth + 1] - bound[nth]
        for i in range(size // 2 - 1, -1, -1):
            _sink(key, entry, begin, i, size, start, label)
        while size > 0 and kept < limit:
            value, row = key[begin], entry[begin]
            size = _pop(key, entry, begin, size, start, label)
            group = walked if value != last else group
            last, walked = value, walked + 1
            if spacing <= 0 or not too_near(xs, ys, zs, kept, x[row], y[row], z[row], spacing):
                xs[kept], ys[kept], zs[kept] = x[row], y[row], z[row]
                row_out[kept], key_out[kept], place_out[kept] = row, value, group
                kept += 1
        if kept == limit:
            break
    return kept


@compiled
def walk_nodes(
    world: World, one: Record, weight: float, spacing: float, work: Scratch, size: int, bar: float,
    row_out: Ints, key_out: Floats, place_out: Floats
) -> int:  # fmt: skip
    """The same over a heap of rows and nodes; what has a key below `bar` stays out of it, and is not kept."""
    start, label, base, ball, best, first = world.start, world.label, world.base, world.ball, world.best, world.first
    key, entry, order, ordered, bounds, leaves = (
        work.key, work.entry, work.order, work.ordered, work.scored, world.first[1]
    )  # fmt: skip
    x, y, z, xs, ys, zs = world.vector[0], world.vector[1], world.vector[2], work.x, work.y, work.z
    ox, oy, oz, limit = one["x"], one["y"], one["z"], one["limit"]
    kept, walked, group, last = 0, 0, 0, math.inf
    while size > 0 and kept < limit:
        value, what = key[0], entry[0]
        if what >= 0:
            size = _pop(key, entry, 0, size, start, label)
            group = walked if value != last else group
            last, walked = value, walked + 1
            if spacing <= 0 or not too_near(xs, ys, zs, kept, x[what], y[what], z[what], spacing):
                xs[kept], ys[kept], zs[kept] = x[what], y[what], z[what]
                row_out[kept], key_out[kept], place_out[kept] = what, value, group
                kept += 1
            continue
        node, step = (-1 - what) >> SHIFT, (-1 - what) & (LEAF - 1)
        chord = away(ball, node, ox, oy, oz)
        near, at = toward(chord - ball[node, 3] - SLACK), node * LEAF
        if node < leaves:
            values, low, high = base, at, min(at + LEAF, world.sizes[0])
        else:
            values, (low, high), at = best, children(first, node), leaves * LEAF + (node - leaves) * FANOUT
            if near != toward(chord + ball[node, 3] + SLACK):
                size = _pop(key, entry, 0, size, start, label)
                _bound(ball[low:high], best[low:high], ox, oy, oz, weight, bounds)
                for child in range(low, high):
                    if bounds[child - low] >= bar:
                        size = _push(key, entry, size, bounds[child - low], -1 - (child << SHIFT), start, label)
                continue
        if ordered[node] == 0:
            ordered[node] = _order(values, low, high, order, at)
        found, following = low + order[at + step], -math.inf
        if step + 1 < ordered[node]:
            following = np.rint((values[low + order[at + step + 1]] + weight * near + SLACK) * QUANTA)
        if following >= bar:
            key[0], entry[0] = following, what - 1
            _sink(key, entry, 0, 0, size, start, label)
        else:
            size = _pop(key, entry, 0, size, start, label)
        if node < leaves:
            dx, dy, dz = x[found] - ox, y[found] - oy, z[found] - oz
            value = np.rint((base[found] + weight * distance(dx * dx + dy * dy + dz * dz)) * QUANTA)
        else:
            value, found = np.rint((best[found] + weight * near + SLACK) * QUANTA), -1 - (found << SHIFT)
        if value >= bar:
            size = _push(key, entry, size, value, found, start, label)
    return kept


@compiled
def _bound(ball: Floats, best: Floats, ox: float, oy: float, oz: float, weight: float, out: Floats) -> None:
    """Upper bounds of the keys in nodes side by side; NaN or minus infinity where nothing is on the map."""
    for k in range(best.size):
        dx, dy, dz = ball[k, 0] - ox, ball[k, 1] - oy, ball[k, 2] - oz
        near = max(0.0, math.sqrt(dx * dx + dy * dy + dz * dz) - ball[k, 3] - SLACK)
        out[k] = np.rint((best[k] + weight * distance(near * near) + SLACK) * QUANTA)


@compiled
def _order(values: Floats, low: int, high: int, order: Bytes, at: int) -> int:
    """Note the order of a node's rows or children, greatest value first, without those that have none; returns how many."""
    count = 0
    for i in range(low, high):
        if values[i] > -math.inf:
            place = count
            while place > 0 and values[low + order[at + place - 1]] < values[i]:
                order[at + place] = order[at + place - 1]
                place -= 1
            order[at + place] = i - low
            count += 1
    return count


@compiled
def children(first: Longs, node: int) -> tuple[int, int]:
    """The nodes right below one that is no leaf."""
    level = 1
    while node >= first[level + 1]:
        level += 1
    low = first[level - 1] + (node - first[level]) * FANOUT
    return low, min(low + FANOUT, first[level])


@compiled
def away(ball: Floats, node: int, ox: float, oy: float, oz: float) -> float:
    """The chord from the origin to the centre of a node's ball."""
    dx, dy, dz = ball[node, 0] - ox, ball[node, 1] - oy, ball[node, 2] - oz
    return math.sqrt(dx * dx + dy * dy + dz * dz)


@compiled
def toward(chord: float) -> float:
    """D at the end of a chord; most are far, and quickly told."""
    return 0.1 if chord > FAR else distance(max(0.0, chord) ** 2)


@compiled
def enqueue(world: World, one: Record, weight: float, picked: int, work: Scratch, found: int, bar: float) -> int:
    """Make a heap of the candidates found so far and the nodes picked, without those below `bar`; returns its size."""
    start, label, key, entry, ball = world.start, world.label, work.key, work.entry, world.ball
    ox, oy, oz, size = one["x"], one["y"], one["z"], 0
    for i in range(found):
        key[size], entry[size] = key[i], entry[i]
        size += int(key[i] >= bar)
    for i in range(picked):
        if work.level[i] >= 0:
            near = toward(away(ball, work.node[i], ox, oy, oz) - ball[work.node[i], 3] - SLACK)
            key[size] = np.rint((world.best[work.node[i]] + weight * near + SLACK) * QUANTA)
            entry[size] = -1 - (work.node[i] << SHIFT)
            size += int(key[size] >= bar)
    for i in range(size // 2 - 1, -1, -1):
        _sink(key, entry, 0, i, size, start, label)
    return size


@compiled
def lowest_of(world: World, one: Record, weight: float, picked: int, work: Scratch, lowest: float) -> float:
    """The least key in the nodes picked, or `lowest` when that is less. Branch and bound: exact."""
    first, ball, least, live, base, vector = world.first, world.ball, world.least, world.live, world.base, world.vector
    stack, scored, ox, oy, oz = work.stack, work.scored, one["x"], one["y"], one["z"]
    for i in range(picked):
        stack[0], depth = work.node[i], int(work.level[i] >= 0)
        while depth > 0:
            depth -= 1
            node = stack[depth]
            if live[node] == 0:
                continue
            chord = away(ball, node, ox, oy, oz)
            near, far = toward(chord - ball[node, 3] - SLACK), toward(chord + ball[node, 3] + SLACK)
            bound = np.rint((least[node] + weight * far - SLACK) * QUANTA)
            if far == near:
                lowest = min(lowest, np.rint((least[node] + weight * far) * QUANTA))
            elif bound <= lowest and node < first[1]:
                low, high = node * LEAF, min(node * LEAF + LEAF, world.sizes[0])
                score(
                    vector[0, low:high],
                    vector[1, low:high],
                    vector[2, low:high],
                    base[low:high],
                    ox,
                    oy,
                    oz,
                    weight,
                    scored,
                )
                for k in range(high - low):
                    lowest = scored[k] if scored[k] < lowest else lowest
            elif bound <= lowest:
                low, high = children(first, node)
                for child in range(low, high):
                    stack[depth] = child
                    depth += 1
    return lowest


@compiled
def relative(count: int, greater: float, key: float, lowest: float, highest: float) -> float:
    """The law's relative score; lowest and highest as keys."""
    if count == 1:
        return 1.0
    place = 1 - greater / (count - 1)
    if count <= 3:
        return 0.6 + 0.4 * place
    if count <= 10:
        return 0.3 + 0.7 * place
    curved = math.sqrt(place) if count >= 50 else place ** (1 / (1 + count / 50))
    if highest <= lowest:
        return curved
    share = min(0.3, count / 100)
    return (1 - share) * curved + share * (key - lowest) / (highest - lowest)


@compiled
def cell_of(latitude: float, longitude: float, grid: Record, edges: Floats) -> int:
    """The cell in which a point of the viewport lies."""
    column = min(int((longitude + 180.0) * grid["scale"]), grid["side"] - 1) - grid["first"]
    row = 0
    for edge in edges:
        row += int(latitude <= edge)
    return int(row * SPAN + (column if column >= 0 else column + grid["side"]))


@compiled
def tally(
    latitude: Floats, longitude: Floats, start: Longs, label: Longs, entry: Longs, key: Floats, count: int, grid: Record,
    edges: Floats, cells: Cells
) -> None:  # fmt: skip
    """Count candidates (those with a key) in their cells, and find the best of each."""
    members, top, best, north, east = cells.members, cells.top, cells.best, cells.latitude, cells.longitude
    for i in range(count):
        if math.isnan(key[i]):
            continue
        row = entry[i]
        cell = cell_of(latitude[row], longitude[row], grid, edges)
        members[cell] += 1
        north[cell] += int(np.rint(latitude[row] * FINE))
        east[cell] += int(np.rint(longitude[row] * FINE))
        better, other = key[i] > best[cell], top[cell]
        if key[i] == best[cell]:
            better = start[row] < start[other] or (start[row] == start[other] and label[row] < label[other])
        if better:
            best[cell], top[cell] = key[i], row


@compiled
def tally_node(
    world: World, one: Record, weight: float, node: int, level: int, grid: Record, edges: Floats, sums: Longs, stamp: int,
    work: Scratch, cells: Cells
) -> None:  # fmt: skip
    """Count the public candidates in a node that is wholly in view.

    A node within one cell is counted as a whole when nothing in it can be the best there; others are looked into, of
    siblings the most promising first, so that it is soon known what must be beaten. Nothing that is called for every node
    takes the world: to pass so many arrays costs more than what it does.
    """
    stack, stack_level, box, ball, best, live, first = (
        work.stack, work.stack_level, world.box, world.ball, world.best, world.live, world.first
    )  # fmt: skip
    latitude, longitude, base, used, x, y, z = (
        world.latitude, world.longitude, world.base, world.sizes[0], world.vector[0], world.vector[1], world.vector[2]
    )  # fmt: skip
    stack[0], stack_level[0], depth, ox, oy, oz = node, level, 1, one["x"], one["y"], one["z"]
    while depth > 0:
        depth -= 1
        node, level = stack[depth], stack_level[depth]
        if live[node] == 0:
            continue
        low = (node - first[level]) * (LEAF << (4 * level))
        high = min(low + (LEAF << (4 * level)), used)
        cell = cell_of(box[node, 3], box[node, 0], grid, edges)
        if cell == cell_of(box[node, 1], box[node, 2], grid, edges):
            near = toward(away(ball, node, ox, oy, oz) - ball[node, 3] - SLACK)
            if np.rint((best[node] + weight * near + SLACK) * QUANTA) < cells.best[cell]:
                if sums[node, 2] != stamp:
                    sums[node, 0], sums[node, 1] = _sums(latitude[low:high], longitude[low:high], base[low:high])
                    sums[node, 2] = stamp
                cells.members[cell] += live[node]
                cells.latitude[cell] += sums[node, 0]
                cells.longitude[cell] += sums[node, 1]
                continue
        if level == 0:
            score(x[low:high], y[low:high], z[low:high], base[low:high], ox, oy, oz, weight, work.scored)
            for k in range(high - low):
                work.entry[k] = low + k
            tally(
                latitude, longitude, world.start, world.label, work.entry, work.scored, high - low, grid, edges, cells
            )
            continue
        low = first[level - 1] + (node - first[level]) * FANOUT
        last = depth
        for child in range(low, min(low + FANOUT, first[level])):
            stack[depth], stack_level[depth] = child, level - 1
            last = depth if best[child] > best[stack[last]] else last
            depth += 1
        stack[last], stack[depth - 1] = stack[depth - 1], stack[last]


@compiled
def _sums(latitude: Floats, longitude: Floats, base: Floats) -> tuple[int, int]:
    """Of the coordinates of what is on the map."""
    north, east = 0, 0
    for k in range(base.size):
        if not math.isnan(base[k]):
            north += int(np.rint(latitude[k] * FINE))
            east += int(np.rint(longitude[k] * FINE))
    return north, east
