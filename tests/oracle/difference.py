"""The difference between what a connection holds and its fresh view. Pure.

Law: applying deletes, creates and updates to what is held gives the ids and versions of the fresh view, always; scores then
differ from the fresh ones by less than the threshold. Creates, updates and deletes never overlap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

DIGEST_MASK: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Held:
    """What a connection was last handed of one event: version, unrounded score, and its part of the digest."""

    version: int
    score: float
    mark: int


@dataclass(frozen=True, slots=True)
class Shown:
    """One event of a fresh view."""

    id: str
    version: int
    score: float
    mark: int


@dataclass(frozen=True, slots=True)
class Difference:
    """Creates and updates are positions in the fresh view (best first), deletes are ids."""

    creates: tuple[int, ...] = ()
    updates: tuple[int, ...] = ()
    deletes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.creates or self.updates or self.deletes)

    def __len__(self) -> int:
        return len(self.creates) + len(self.updates) + len(self.deletes)


def difference(held: Mapping[str, Held], fresh: Sequence[Shown], threshold: float | None) -> Difference:
    """What must be sent. `threshold` None: only content and membership, scores wait for the next batch."""
    creates: list[int] = []
    updates: list[int] = []
    for position, shown in enumerate(fresh):
        known = held.get(shown.id)
        if known is None:
            creates.append(position)
        elif known.version != shown.version or moved(known.score, shown.score, threshold):
            updates.append(position)
    kept = {shown.id for shown in fresh}
    return Difference(tuple(creates), tuple(updates), tuple(i for i in held if i not in kept))


def moved(before: float, after: float, threshold: float | None) -> bool:
    """Has a score moved enough to be sent?"""
    return threshold is not None and before != after and abs(after - before) >= threshold


def apply(held: dict[str, Held], fresh: Sequence[Shown], change: Difference) -> int:
    """Advance `held` by what was handed over; returns the change of its digest, modulo 2^64."""
    delta = 0
    for gone in change.deletes:
        delta -= held.pop(gone).mark
    for position in (*change.creates, *change.updates):
        shown = fresh[position]
        known = held.get(shown.id)
        delta += shown.mark - (known.mark if known else 0)
        held[shown.id] = Held(shown.version, shown.score, shown.mark)
    return delta & DIGEST_MASK
