"""What is told of a view in which there is far more than is shown: how many candidates lie in each cell, and the best of them.

Counted are exactly the candidates that ranking counts; spacing and cut leave nothing out. Only viewers that asked for clusters
cost anything, and equal questions are counted once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import orjson

from server.batching.scores.cells import Grid, grid_of
from server.batching.scores.columns import Columns
from server.batching.scores.kernel import Cells, Ranked
from server.batching.scores.lookout import Lookout
from server.batching.scores.question import Question
from server.batching.scores.shapes import FINE

FAR_MORE: Final = 2
"""There is far more in view than is shown when there are more than so many times maxEvents candidates."""
PLACES: Final = 5
"""Decimals of a cluster's coordinates: about a metre."""
MARK_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Clusters:
    """What is told of them, and a mark by which it is known whether that was told before."""

    json: bytes
    mark: bytes


def clusters_of(
    lookout: Lookout, ranked: Ranked, questions: Sequence[Question], wanted: Iterable[int], now_ms: int
) -> Mapping[int, Clusters]:
    """By number, the clusters of those questions for which somebody wants them; right behind their ranking."""
    numbers = dict.fromkeys(wanted)
    crowded = [n for n in numbers if int(ranked.candidates[n]) > FAR_MORE * questions[n].limit]
    told = dict.fromkeys(numbers, NONE)
    if crowded:
        grids = [grid_of(questions[n].viewport) for n in crowded]
        counted = lookout.count_cells([questions[n] for n in crowded], grids, now_ms, prepared=ranked.prepared)
        for place, number in enumerate(crowded):
            cells = Cells(*(part[place] for part in counted))
            assert int(cells.members.sum()) == int(ranked.candidates[number]), "a candidate is in no cell"
            told[number] = _told(lookout.columns, grids[place], cells)
    return told


def _told(columns: Columns, grid: Grid, cells: Cells) -> Clusters:
    """The cells in which there is anything: most candidates first, then from the north-west."""
    slots = columns.world.slot
    there = np.flatnonzero(cells.members)
    rows = zip(
        there.tolist(),
        cells.members[there].tolist(),
        (cells.latitude[there] / cells.members[there] / FINE).tolist(),
        (cells.longitude[there] / cells.members[there] / FINE).tolist(),
        slots[cells.top[there]].tolist(),
        strict=True,
    )
    return _marked(
        [
            {
                "cell": grid.name(cell),
                "location": {"latitude": round(latitude, PLACES), "longitude": round(longitude, PLACES)},
                "count": count,
                "topEventId": columns.id_of(slot),
            }
            for cell, count, latitude, longitude, slot in sorted(rows, key=lambda row: (-row[1], row[0]))
        ]
    )


def _marked(told: Sequence[Mapping[str, object]]) -> Clusters:
    text = orjson.dumps(told)
    return Clusters(text, hashlib.blake2b(text, digest_size=MARK_BYTES).digest())


NONE: Final = _marked([])
