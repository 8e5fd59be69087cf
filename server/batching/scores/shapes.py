"""The arrays that the compiled hot path works on, and the numbers they are laid out by. No code: owners make and fill them.

Rows and slots. A *row* is a place in the columns: rows [0, sorted) are in Hilbert order, LEAF rows a leaf; rows [sorted, used)
are the unsorted tail. A merge renumbers rows. A *slot* is an event's number: it stays as long as anybody may hold the event.
A tombstone is a row whose `slot` is -1: it is never a candidate.

Tree. Level 0 are the leaves, FANOUT nodes of a level have one parent, up to a single root; the nodes of level L are
[first[L], first[L + 1]). Each node has a box (west, south, east, north; degrees; it may be wider than what lives in it, never
narrower) and a ball (centre x, y, z and a chord radius) that bounds distances from any origin, at the poles and across +-180
too.

Per moment (`prepare`): `base[row]` is the part of raw that no viewer changes, wT T + wP P + wR R + wC C, or NaN when the row
is not on the public map now (tombstone, not shown, private, outside the window). `live`, `best`, `least` of a node are count,
maximum and minimum of base over its rows. Private events are never counted there: a question brings the slots of those that
its user may see.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Longs = npt.NDArray[np.int64]
Ints = npt.NDArray[np.int32]
Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.bool_]
Records = npt.NDArray[np.void]
Record: TypeAlias = np.void

LEAF: Final = 32
SHIFT: Final = 5
"""LEAF is 1 << SHIFT."""
FANOUT: Final = 16
MAX_LEVELS: Final = 8
"""A tree of so many levels holds more rows than an int32 can number."""
SHOWN: Final = 1
"""Bit of `state`: the status is PENDING or VERIFIED."""
PRIVATE: Final = 2
"""Bit of `state`."""
STATUS_SHIFT: Final = 2
"""`state >> STATUS_SHIFT` is the index into core.event.STATUSES."""
HOUR: Final = 3_600_000
"""In ms."""
QUANTA: Final = 1e9
"""Raw scores are whole multiples of 1 / QUANTA."""
EARTH_KM: Final = 6371.0088


def _chord2(km: float) -> float:
    return 4 * math.sin(km / EARTH_KM / 2) ** 2


NEAR1: Final = _chord2(1)
NEAR5: Final = _chord2(5)
NEAR15: Final = _chord2(15)
NEAR50: Final = _chord2(50)
FAR: Final = math.sqrt(NEAR50) + 1e-9
"""A chord beyond which D has its least value."""
SLOPE: Final = 0.4 / 35
"""What D loses per km between 15 and 50."""
SLACK: Final = 1e-12
"""Chord added to every bound: some thousand times the error of computing one, some micrometres on the ground."""
RUN: Final = 512
"""Rows scored at once; their scores stay in the first-level cache."""
WIDE: Final = 2048
"""Rows in view from which nodes wait in the queue under their bounds instead of being scored at once."""
MARGIN: Final = 1e7
"""In quanta: how much lower than its neighbour's a question's least key is looked for at first."""
NO_BAR: Final = -1e300
"""A bar below every key, yet above minus infinity: what has nothing to offer never passes one."""
BROAD: Final = 10.0
"""Degrees of latitude from which a view is broad."""
BINS: Final = 1024
"""At most so many bins of keys; only those that the walk reaches are put in order."""
MOST: Final = 500
"""The greatest limit of a question."""
SPAN: Final = 10
"""Cells of a grid side by side, at most."""
CELLS: Final = SPAN * SPAN
"""Cells that a view is counted in, at most."""
FINE: Final = 1e7
"""Parts of a degree: coordinates are summed up as whole numbers of them, so that a mean does not depend on the order."""

QUESTION: Final = np.dtype(
    [
        ("west", "f8"),  # west > east crosses the antimeridian
        ("south", "f8"),
        ("east", "f8"),
        ("north", "f8"),
        ("x", "f8"),  # where distances are measured from
        ("y", "f8"),
        ("z", "f8"),
        ("limit", "i4"),  # 1..MOST
        ("filter", "i4"),  # index into Clauses.first, -1: no filters
        ("private_first", "i4"),  # range in the `private` array of slots
        ("private_count", "i4"),
    ],
    align=True,
)
"""One question, compiled."""

GRID: Final = np.dtype([("scale", "f8"), ("side", "i4"), ("first", "i4")], align=True)
"""The cells of one question: columns a degree, columns round the globe, and the one that the view begins with. See cells.py."""

HELD: Final = np.dtype([("slot", "i4"), ("mark", "u8"), ("version", "i8"), ("score", "f8")], align=True)
"""One event as a connection was last handed it: `mark` is its part of the digest under that version, `score` unrounded."""


class World(NamedTuple):
    """All published events, as arrays. Lengths: R rows (capacity), S slots (capacity), M nodes (`nodes_for` the rows)."""

    sizes: Longs
    """[sorted rows, used rows, nodes, levels]; the last two are `build`'s."""
    latitude: Floats
    longitude: Floats
    vector: Floats
    """(3, R), C order: x, y, z of unit vectors."""
    start: Longs
    """Of the occurrence that counts, UTC epoch ms."""
    end: Longs
    """Its end; the start when it has none."""
    created: Longs
    popularity: Floats
    """P, 0..1."""
    confidence: Floats
    """C, 0..1."""
    state: Bytes
    zone: Ints
    """Index of the event's time zone in the interned list."""
    label: Longs
    """Order of ids: a smaller label is a smaller id."""
    slot: Ints
    row_of: Ints
    """By slot: its row, -1 when the event is gone."""
    version: Longs
    """By slot."""
    mark: Words
    """By slot: the event's part of a digest; 0 while nobody has computed it."""
    base: Floats
    """By row; see above. Valid for the moment of the last `prepare`."""
    first: Longs
    """MAX_LEVELS + 1 entries, by level: where its nodes begin."""
    box: Floats
    """(M, 4)"""
    ball: Floats
    """(M, 4)"""
    live: Ints
    best: Floats
    least: Floats


class Clauses(NamedTuple):
    """Filters, compiled. Filter f passes when any of its clauses [first[f], first[f + 1]) does; a clause when all its tests do."""

    first: Ints
    status: Bytes
    """Bit i: status i of core.event.STATUSES passes (no status filter: all bits)."""
    place: Floats
    """(C, 4): unit vector and the greatest squared chord; a negative one: no place filter."""
    begins: Longs
    """(C, zones): the event's end must be at or after it, by the event's zone (no bound: the least int64)."""
    ends: Longs
    """(C, zones): the event's start must be at or before it (no bound: the greatest int64)."""
    bitmap: Ints
    """(C, 2): rows of `bits` that must have the event's slot set (categories, text); -1: no such test."""
    bits: Bytes
    """(B, S / 8): bit slot & 7 of byte slot >> 3."""


class Ranked(NamedTuple):
    """Fresh views of Q questions, best first: those of question q are [first[q], first[q + 1])."""

    first: Longs
    row: Ints
    raw: Floats
    score: Floats
    candidates: Longs
    """By question: N."""
    prepared: bool = False
    """Are base and the nodes those of this moment?"""


class Changes(NamedTuple):
    """What V viewers must be sent. Viewer v's fresh view is [first[v], first[v + 1]) of `next` and `op`."""

    first: Longs
    next: Records
    """HELD: what the viewer holds once the frame is handed over (a score that was not sent stays the old one)."""
    op: Bytes
    """By fresh event: 0 unchanged, 1 create, 2 update."""
    tenth: Ints
    """By fresh event: the fresh score in ten-thousandths, as the wire shows it."""
    gone_first: Longs
    gone: Ints
    """Slots that were held and are no longer in view; viewer v's are [gone_first[v], gone_first[v + 1])."""
    counts: Longs
    """(V, 4): creates, updates, deletes, moves of scores that stay below the threshold."""
    digest: Words
    """By viewer: the sum of next.mark modulo 2^64."""


class Cells(NamedTuple):
    """By question and cell (SPAN of them a row, from the north-west), or by cell of one question."""

    members: Longs
    """How many candidates."""
    top: Ints
    """The row of the best of them, -1: there is none."""
    best: Floats
    """Its key."""
    latitude: Longs
    longitude: Longs
    """Sums over the candidates, in parts of a degree (FINE)."""


class Moment(NamedTuple):
    """Now, the window's bounds on starts, and the weights."""

    now: int
    earliest: int
    latest: int
    time: float
    distance: float
    popularity: float
    recency: float
    confidence: float


class Scratch(NamedTuple):
    """What one call of `rank` works in, allocated once: pages that nothing touches cost nothing."""

    key: Floats
    entry: Longs
    """Candidates found, or the heap: see `walk.py`."""
    binned_key: Floats
    binned_entry: Longs
    bound: Longs
    """Where the bins begin."""
    at: Longs
    node: Longs
    level: Longs
    """Nodes picked; level -1 is a leaf only partly inside."""
    stack: Longs
    stack_level: Longs
    scored: Floats
    base: Floats
    """By row: what a question computes itself when the moment is not prepared."""
    order: Bytes
    """The order of a leaf's rows (LEAF each), then that of an inner node's children (FANOUT each)."""
    ordered: Bytes
    """By node: how many of them; 0 while nobody has asked."""
    bar: Floats
    """[least key kept by the last question that walked nodes, less MARGIN; its limit]"""
    x: Floats
    y: Floats
    z: Floats
    """Where the events kept are."""
