"""What a client asks to be spared, and which part of a difference then goes first. Pure.

    fields "delta"     an update of an event carries only what may have changed since what this connection holds
    minIntervalMs      change messages that nobody asked for rest so long after the last one; one difference covers them all
    maxBytesPerBatch   a message stays within it: what does not fit is carried over to the next one

Nothing here remembers a message. What was carried over is simply still different from what the connection holds, so it is in
the next difference, whatever has happened meanwhile; only its *age*, how many messages have left it out, is kept.

Deletes always go. Of creates and updates half the room belongs to those that were left out longest, the rest to the best. So
the first message is the best that fits, and nothing starves: each message takes at least one of the oldest, and nothing new
ever becomes as old as they are. With n events left out at once the last of them is out n messages later at most, however
often better ones change; by bytes, when twice as many as they have were sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias

CARRY_GAP_MS: Final = 1000
"""How soon what was carried over follows: often enough to catch up, seldom enough that the bound on bytes means something."""

Ages: TypeAlias = Mapping[int, int]
"""By slot: how many messages have left this event's difference out."""
NO_AGES: Final[Ages] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Budget:
    """What one registration asked for."""

    delta: bool = False
    min_interval_ms: int = 0
    max_bytes: int | None = None

    @staticmethod
    def asked(*, delta: bool, min_interval_ms: int | None, max_bytes: int | None) -> Budget:
        """As registered; who asks for nothing gets PLAIN itself."""
        budget = Budget(delta, min_interval_ms or 0, max_bytes)
        return PLAIN if budget == PLAIN else budget

    def rest_ms(self, *, carrying: bool) -> int:
        """How long nothing that nobody asked for may follow a message."""
        return max(self.min_interval_ms, CARRY_GAP_MS if carrying else 0)


PLAIN: Final = Budget()


class Terms(NamedTuple):
    """What makes the messages of two viewers different that are equal otherwise. Compare `key`, not the terms."""

    delta: bool
    room: int | None
    """Bytes for all but seq and ref."""
    ages: Ages

    @property
    def key(self) -> tuple[bool, int | None, int]:
        """Ages are shared by viewers that were left out the same things: the same object."""
        return self.delta, self.room, id(self.ages)


def terms_of(budget: Budget, ages: Ages, head: int) -> Terms | None:
    """What a message whose head is so long has to keep to; None: nothing."""
    if budget.max_bytes is None:
        return Terms(True, None, NO_AGES) if budget.delta else None
    return Terms(budget.delta, budget.max_bytes - head, ages)


def choose(sizes: Sequence[int], ages: Sequence[int], room: int) -> set[int]:
    """The places of those that go now, of events in their order (best first); at least one, even when it is too large."""
    chosen: set[int] = set()
    longest = sorted((place for place, age in enumerate(ages) if age), key=lambda place: -ages[place])
    left = room - _fill(chosen, longest, sizes, room // 2)
    _fill(chosen, range(len(sizes)), sizes, left)
    return chosen


def _fill(chosen: set[int], places: Iterable[int], sizes: Sequence[int], room: int) -> int:
    """Take places in this order until the first that does not fit; returns the bytes taken. The very first always fits."""
    taken = 0
    for place in places:
        if place in chosen:
            continue
        if chosen and taken + sizes[place] > room:
            break
        chosen.add(place)
        taken += sizes[place]
    return taken


def older(slots: Iterable[int], ages: Ages) -> Ages:
    """What was left out once more."""
    return {slot: ages.get(slot, 0) + 1 for slot in slots} or NO_AGES
