"""What is decided about who is asked for in which batch. Pure: values in, values out; placing.py and upkeep.py act on it.

A LINE is platform x type x interval. Its businesses are shared out among numbered BATCHES of a bounded size; batch 0 is made
when a line is first needed, further ones when all are full. Three facts about a batch, never one flag: paused (an administrator's
doing), active (consolidation emptied it and set it aside: it gets nothing until the others are full), empty.

Plans speak of numbers: so many from this batch to that one. Which businesses go is the store's choice, so nothing can be lost or
doubled on the way; what is promised of the numbers:

- `seats`: one after another, each into the least loaded open batch with room, the lowest index of those; full: the lowest batch
  that was set aside, else a new one.
- `rebalance`: when the loads of the open batches spread by more than a fifth of their mean, the fewest moves after which they
  don't. One business of difference is no spread: it can't be any less.
- `consolidate`: batches below 30 % of their capacity are emptied, the smallest first, while the others have room.
- Both leave nothing to do for a second plan, and never put more into a batch than its capacity. A batch that holds more already
  (its capacity was lowered) is relieved by `rebalance`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Final, Literal, TypeAlias, get_args

Platform: TypeAlias = Literal["google", "facebook", "tripadvisor", "booking"]
Type: TypeAlias = Literal["reviews", "overview"]
Tier: TypeAlias = Literal["starter", "professional", "enterprise"]
Health: TypeAlias = Literal["healthy", "warning", "critical"]

PLATFORMS: Final[tuple[Platform, ...]] = get_args(Platform)
TYPES: Final[tuple[Type, ...]] = get_args(Type)
TIERS: Final[tuple[Tier, ...]] = get_args(Tier)
HOURS: Final = (6, 12, 24, 72)
"""The intervals of the base schedules; another one gets a line of its own when a team has it."""
HOURS_LEAST: Final = 1
HOURS_MOST: Final = 168
TIER_HOURS: Final[dict[Tier, dict[Type, int]]] = {
    "starter": {"reviews": 24, "overview": 48},
    "professional": {"reviews": 12, "overview": 24},
    "enterprise": {"reviews": 6, "overview": 12},
}
CUSTOM_TIER: Final[Tier] = "enterprise"
"""The only tier that may have intervals of its own."""

WARNING: Final = 0.80
CRITICAL: Final = 0.95
SPREAD_MOST: Final = 0.20
"""Share of the mean load by which the loads of a line's batches may differ."""
UNDERUSED: Final = 0.30


@dataclass(frozen=True, slots=True, order=True)
class Line:
    """What batches share: businesses move between the batches of a line freely."""

    platform: Platform
    type: Type
    hours: int


BASE_LINES: Final[tuple[Line, ...]] = tuple(Line(p, t, h) for p in PLATFORMS for t in TYPES for h in HOURS)
"""The 32 schedules that are always shown."""


@dataclass(frozen=True, slots=True)
class Seat:
    """A batch as plans see it. `open`: active and not paused, so that it may get businesses."""

    index: int
    load: int
    capacity: int
    active: bool = True
    paused: bool = False

    @property
    def open(self) -> bool:
        """May businesses be put in here?"""
        return self.active and not self.paused

    @property
    def room(self) -> int:
        """How many more there is place for."""
        return max(0, self.capacity - self.load)


@dataclass(frozen=True, slots=True)
class Transfer:
    """So many businesses from one batch to another, by their indexes."""

    source: int
    target: int
    count: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do to a line: batches to make, businesses to move, batches to set aside once they are empty."""

    transfers: tuple[Transfer, ...] = ()
    created: tuple[int, ...] = ()
    retired: tuple[int, ...] = ()

    @property
    def moves(self) -> int:
        """How many businesses it moves."""
        return sum(transfer.count for transfer in self.transfers)

    @property
    def idle(self) -> bool:
        """Is there nothing to do?"""
        return not (self.transfers or self.created or self.retired)


# Intervals


@dataclass(frozen=True, slots=True)
class Custom:
    """An interval of a team's own; without `expires_at` until it is removed."""

    hours: int
    expires_at: dt.datetime | None = None

    def holds(self, now: dt.datetime) -> bool:
        """Does it still count?"""
        return self.expires_at is None or now < self.expires_at


def hours_of(tier: Tier, type: Type, custom: Custom | None, now: dt.datetime) -> int:
    """How often a team's businesses are asked for: its own interval while it holds and its tier allows one, else the tier's."""
    if custom is not None and tier == CUSTOM_TIER and custom.holds(now):
        return custom.hours
    return TIER_HOURS[tier][type]


def health(load: int, capacity: int) -> Health:
    """The grade of a batch."""
    if load >= CRITICAL * capacity:
        return "critical"
    return "warning" if load >= WARNING * capacity else "healthy"


# Placing


def seats(batches: Sequence[Seat], wanted: int, capacity: int) -> list[int]:
    """The index of the batch for each of so many businesses, in turn; indexes that are not among `batches` are new ones.

    New batches have `capacity`. The same as placing them one by one."""
    known = {batch.index: batch for batch in batches}
    heap = [(batch.load, batch.index) for batch in batches if batch.open and batch.room]
    heapify(heap)
    aside = sorted((b.index for b in batches if not b.active and not b.paused and b.room), reverse=True)
    following = max(known, default=-1) + 1
    chosen: list[int] = []
    while len(chosen) < wanted:
        if not heap:
            index = aside.pop() if aside else following
            following = max(following, index + 1)
            heap.append((known[index].load if index in known else 0, index))
        load, index = heappop(heap)
        chosen.append(index)
        if load + 1 < (known[index].capacity if index in known else capacity):
            heappush(heap, (load + 1, index))
    return chosen


# Balancing


def spread_allowed(total: int, batches: int) -> float:
    """By how many businesses the fullest and the emptiest of so many batches may differ."""
    return max(1.0, SPREAD_MOST * total / batches)


def unbalanced(batches: Sequence[Seat]) -> bool:
    """Do the loads of the open batches differ by too much, or does one hold more than it may?"""
    loads = [batch.load for batch in batches if batch.open]
    if not loads:
        return False
    spread = max(loads) - min(loads)
    return spread > spread_allowed(sum(loads), len(loads)) or any(b.load > b.capacity for b in batches if b.open)


def rebalance(batches: Sequence[Seat], capacity: int) -> Plan:
    """The fewest moves after which the open batches are balanced; new batches only for what has no room at all."""
    if not unbalanced(batches):
        return Plan()
    open_ = [batch for batch in batches if batch.open]
    created = _needed(open_, batches, capacity)
    goals = _goals([*open_, *created])
    return Plan(_flow(open_ + created, goals), tuple(batch.index for batch in created))


def _needed(open_: Sequence[Seat], batches: Sequence[Seat], capacity: int) -> list[Seat]:
    """Batches to make because all of the open ones together are too small."""
    over = sum(batch.load - batch.capacity for batch in open_)
    following = max(batch.index for batch in batches) + 1
    return [Seat(following + n, 0, capacity) for n in range(-(-max(0, over) // capacity))]


def _goals(batches: Sequence[Seat]) -> list[int]:
    """The loads to reach: within a window [low, high] of the allowed width, at the place where it costs the fewest moves."""
    total, n = sum(batch.load for batch in batches), len(batches)
    width = int(spread_allowed(total, n))
    windows = range(max(0, -(-total // n) - width), total // n + 1)
    low = min(windows, key=lambda low: (_cost(batches, low, low + width), -low))
    return _levelled(batches, low, low + width)


def _cost(batches: Sequence[Seat], low: int, high: int) -> int:
    """The moves into this window: all that is above it has to leave, all that is missing below has to come."""
    above = sum(max(0, b.load - min(high, b.capacity)) for b in batches)
    below = sum(max(0, min(low, b.capacity) - b.load) for b in batches)
    return max(above, below)


def _levelled(batches: Sequence[Seat], low: int, high: int) -> list[int]:
    """Each load clipped to the window; then the lowest get what is left over, or the highest give what is missing."""
    goals = [min(max(b.load, min(low, b.capacity)), min(high, b.capacity)) for b in batches]
    left = sum(b.load for b in batches) - sum(goals)
    step = 1 if left > 0 else -1
    heap = [(step * g, n) for n, g in enumerate(goals) if step < 0 or g < batches[n].capacity]
    heapify(heap)
    for _ in range(abs(left)):
        _, n = heappop(heap)
        goals[n] += step
        if step < 0 or goals[n] < batches[n].capacity:
            heappush(heap, (step * goals[n], n))
    return goals


def _flow(batches: Sequence[Seat], goals: Sequence[int]) -> tuple[Transfer, ...]:
    """From those above their goal to those below it, in the order of their indexes."""
    give = [[b.index, b.load - g] for b, g in zip(batches, goals, strict=True) if b.load > g]
    transfers: list[Transfer] = []
    for batch, goal in zip(batches, goals, strict=True):
        missing = goal - batch.load
        while missing > 0:
            source, count = give[-1][0], min(missing, give[-1][1])
            transfers.append(Transfer(source, batch.index, count))
            missing, give[-1][1] = missing - count, give[-1][1] - count
            if not give[-1][1]:
                give.pop()
    return tuple(transfers)


def consolidate(batches: Sequence[Seat]) -> Plan:
    """Empty what is hardly used, the smallest first, while the other open batches have room; the emptied are set aside.

    What is poured out goes to the least loaded, so that these rise above the mark. A batch is judged by what is in it by then,
    but the order is that of the loads at the beginning: emptying what others were poured into would only cost more moves. An
    empty batch is only set aside; the last open batch of a line stays."""
    open_ = [batch for batch in batches if batch.open]
    loads = {batch.index: batch.load for batch in open_}
    capacity = {batch.index: batch.capacity for batch in open_}
    order = sorted(loads, key=lambda index: (loads[index], -index))
    room = sum(batch.room for batch in open_)
    heap = [(batch.load, batch.index) for batch in open_]
    heapify(heap)
    retired: list[int] = []
    for index in order[:-1]:
        room -= capacity[index] - loads[index]
        least = _least(heap, loads)
        if loads[least] >= UNDERUSED * capacity[least] or loads[index] > room:
            break
        retired.append(index)
        count = loads.pop(index)
        room -= count
        _pour(heap, count, loads, capacity)
    if not retired:
        return Plan()
    return Plan(_flow(open_, [loads.get(batch.index, 0) for batch in open_]), retired=tuple(sorted(retired)))


def _least(heap: list[tuple[int, int]], loads: dict[int, int]) -> int:
    """The least loaded that is still there; what is stale on the way is dropped."""
    while loads.get(heap[0][1]) != heap[0][0]:
        heappop(heap)
    return heap[0][1]


def _pour(heap: list[tuple[int, int]], count: int, loads: dict[int, int], capacity: dict[int, int]) -> None:
    """So many into the least loaded, one after another; what is full stays as it is."""
    full: list[tuple[int, int]] = []
    while count:
        index = _least(heap, loads)
        if loads[index] >= capacity[index]:
            full.append(heappop(heap))
            continue
        loads[index] += 1
        heappush(heap, (loads[index], index))
        count -= 1
    for seat in full:
        heappush(heap, seat)
