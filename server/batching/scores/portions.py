"""The part of a difference that a viewer with a budget is sent, and what it holds then. Runs in the engine's thread.

What is left out stays as it was: an update keeps the state that the connection holds, a create is not held yet. So the next
difference finds it again, and the digest is of what the client really has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from server.batching.scores.audience import Held
from server.batching.scores.budget import NO_AGES, Ages, Terms, choose, older
from server.batching.scores.columns import Columns
from server.batching.scores.kernel import HELD, Bytes, Flags, Records

CREATE: Final = 1
UPDATE: Final = 2


@dataclass(frozen=True, slots=True)
class Whole:
    """A difference before any budget: its fresh events; of those that are sent slots, operations and pieces (two each)."""

    fresh: Records
    op: Bytes
    slots: Sequence[int]
    ops: Sequence[int]
    pieces: Sequence[bytes]
    held: Held
    digest: int
    settles: bool
    """Does it look at scores too? Else what is left out of it says nothing about scores that were carried over."""


@dataclass(frozen=True, slots=True)
class Portion:
    """What of it goes now, and what is then held."""

    ops: Sequence[int]
    pieces: Sequence[bytes]
    after: Records
    digest: int
    ages: Ages
    spared: int
    """Bytes that `delta` has saved."""


class News:
    """What connections that hold an older version must be told of an event; made once a round for all who hold the same."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._known: dict[tuple[int, int], bytes | None] = {}

    def of(self, slot: int, held: int) -> bytes | None:
        """As `Columns.news`."""
        key = (slot, held)
        if key not in self._known:
            self._known[key] = self._columns.news(slot, held)
        return self._known[key]


def portion(news: News, whole: Whole, terms: Terms, fixed: Callable[[], int]) -> Portion:
    """The part that these terms let through; `fixed` are the bytes of the message without any create or update."""
    pieces = _shortened(news, whole) if terms.delta else whole.pieces
    room = terms.room if terms.room is None else terms.room - fixed()
    waiting = NO_AGES if whole.settles else _untouched(whole, terms.ages)
    size = sum(map(len, pieces))
    if room is None or size <= room:
        return Portion(whole.ops, pieces, whole.fresh, whole.digest, waiting, sum(map(len, whole.pieces)) - size)
    sizes = [len(body) + len(score) for body, score in zip(pieces[::2], pieces[1::2], strict=True)]
    chosen = choose(sizes, [terms.ages.get(slot, 0) for slot in whole.slots], room)
    left = (slot for place, slot in enumerate(whole.slots) if place not in chosen)
    return _cut(whole, pieces, sorted(chosen), {**waiting, **older(left, terms.ages)})


def _shortened(news: News, whole: Whole) -> Sequence[bytes]:
    """The pieces with updates cut down to what may have changed since what is held."""
    pieces = list(whole.pieces)
    held = np.frombuffer(whole.held, HELD)
    versions = dict(zip(held["slot"].tolist(), held["version"].tolist(), strict=True))
    for place, op in enumerate(whole.ops):
        brief = news.of(whole.slots[place], versions[whole.slots[place]]) if op == UPDATE else None
        if brief is not None:
            pieces[2 * place] = brief
    return pieces


def _cut(whole: Whole, pieces: Sequence[bytes], chosen: Sequence[int], ages: Ages) -> Portion:
    left = whole.op != 0
    left[np.flatnonzero(left)[chosen]] = False
    after = _held_after(whole, left)
    return Portion(
        [whole.ops[place] for place in chosen],
        [piece for place in chosen for piece in pieces[2 * place : 2 * place + 2]],
        after,
        int(after["mark"].sum(dtype=np.uint64)),
        ages,
        sum(len(whole.pieces[2 * place]) - len(pieces[2 * place]) for place in chosen),
    )


def _held_after(whole: Whole, left: Flags) -> Records:
    after, held = whole.fresh.copy(), np.frombuffer(whole.held, HELD)
    stay = np.flatnonzero(left & (whole.op == UPDATE))
    order = np.argsort(held["slot"])
    after[stay] = held[order[np.searchsorted(held["slot"][order], after["slot"][stay])]]
    kept: Records = after[~(left & (whole.op == CREATE))]
    return kept


def _untouched(whole: Whole, ages: Ages) -> Ages:
    """What waits for its score alone, which this difference does not look at, waits on."""
    same = whole.fresh["slot"][whole.op == 0].tolist() if ages else ()
    return {slot: ages[slot] for slot in same if slot in ages} or NO_AGES
