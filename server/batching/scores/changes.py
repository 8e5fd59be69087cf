"""What each viewer must be sent: fresh views against what connections hold, compiled. The law stands in `tests/oracle`."""

from __future__ import annotations

import numpy as np

from server.batching.scores.compiling import compiled
from server.batching.scores.shapes import HELD, Bytes, Changes, Floats, Ints, Longs, Ranked, Records, World


@compiled
def diff(
    world: World, ranked: Ranked, question_of: Ints, held: Records, held_first: Longs, thresholds: Floats
) -> Changes:
    """What each viewer must be sent: its fresh view against what its connection holds.

    A NaN threshold asks for content and membership only. The caller has seen to the marks of all fresh slots.
    """
    viewers, room, most = question_of.size, 0, 1
    first, gone_first = np.zeros(viewers + 1, np.int64), np.zeros(viewers + 1, np.int64)
    for v in range(viewers):
        room += ranked.first[question_of[v] + 1] - ranked.first[question_of[v]]
        most = max(most, held_first[v + 1] - held_first[v])
        first[v + 1] = room
    fresh, op, tenth = np.empty(room, HELD), np.empty(room, np.uint8), np.empty(room, np.int32)
    gone, counts, digest = np.empty(held.size, np.int32), np.zeros((viewers, 4), np.int64), np.zeros(viewers, np.uint64)
    tables, met, left = np.empty(_twice(most), np.int64), np.empty(most, np.uint8), 0
    for v in range(viewers):
        mine, begin, end = held[held_first[v] : held_first[v + 1]], first[v], first[v + 1]
        table = tables[: _twice(mine.size)]
        _file(mine["slot"], table, met)
        digest[v] = _compare(
            world, ranked, ranked.first[question_of[v]], mine, table, met, thresholds[v], fresh[begin:end], op[begin:end],
            tenth[begin:end], counts[v]
        )  # fmt: skip
        for i in range(mine.size):
            gone[left] = mine["slot"][i]
            left += int(met[i] == 0)
        gone_first[v + 1] = left
        for i in range(begin, end):
            counts[v, 0] += int(op[i] == 1)
            counts[v, 1] += int(op[i] == 2)
        counts[v, 2] = left - gone_first[v]
    return Changes(first, fresh, op, tenth, gone_first, gone[:left], counts, digest)


@compiled
def _compare(
    world: World, ranked: Ranked, begin: int, mine: Records, table: Longs, met: Bytes, threshold: float,
    fresh: Records, op: Bytes, tenth: Ints, counts: Longs
) -> np.uint64:  # fmt: skip
    """One viewer's fresh view, event by event; returns its digest. Counts the moves that the threshold withholds."""
    slots, versions, marks, scores = fresh["slot"], fresh["version"], fresh["mark"], fresh["score"]
    digest = np.uint64(0)
    for i in range(op.size):
        slot, score = world.slot[ranked.row[begin + i]], ranked.score[begin + i]
        known = table[_place(mine["slot"], table, slot)]
        slots[i], versions[i], marks[i], scores[i] = slot, world.version[slot], world.mark[slot], score
        tenth[i], op[i] = int(np.rint(score * 10_000)), 1
        if known >= 0:
            before = mine["score"][known]
            moved = before != score and abs(score - before) >= threshold
            met[known], op[i] = 1, 2 if moved or mine["version"][known] != versions[i] else 0
            if op[i] == 0:
                scores[i] = before
                counts[3] += int(before != score and abs(score - before) < threshold)
        digest += marks[i]
    return digest


@compiled
def _twice(count: int) -> int:
    """The size of a table for so many: a power of two, at most half full."""
    size = 16
    while size < 2 * count:
        size *= 2
    return size


@compiled
def _place(slots: Ints, table: Longs, slot: int) -> int:
    """Where in the table the position of this slot is, or would be."""
    at = (slot * 40503 >> 4) & (table.size - 1)
    while table[at] >= 0 and slots[table[at]] != slot:
        at = (at + 1) & (table.size - 1)
    return at


@compiled
def _file(slots: Ints, table: Longs, met: Bytes) -> None:
    """Note by slot where it stands in what is held."""
    table[:] = -1
    for i in range(slots.size):
        table[_place(slots, table, slots[i])] = i
        met[i] = 0
