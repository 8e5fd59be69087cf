"""A person's rotations: consecutive half-open periods of whole weeks, without gap or overlap. Pure.

From a person's anchor day, before and after it, lie pairs of rotations, each pair as long as the tier's shortest and
longest rotation together: the first is drawn between these two, the second is what remains. So each length is as likely as
any other, and the rotations of any day are known at once, without those in between:

    anchor            + (least + most) weeks        + 2 (least + most) weeks
      |  drawn  | rest  |     drawn    | rest |        drawn   | ...

What is stored stays. Where the last stored rotation is none of this grid (the tier or the seed is another one now), its
end becomes the anchor of those that follow; so does the start of the first one for those before it. A month beyond the
stored ones gets those in between too, so that no gap is left when a month was skipped.

A rotation has up to 3 cities, each visited on one day. Months are planned one by one, so each month that a rotation
reaches into has an allowance of these, by arithmetic alone (`allowance`): at least one, but that of four months the
shortest end has none. Every month keeps an allowance of one at least.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from server.batching.tiers.chance import A_DIGEST, numbers, within
from server.batching.tiers.months import days_of, month_of
from server.batching.tiers.rules import CITIES_MOST, RULES, PlanError, Tier

EPOCH: Final = 19_723
"""1 January 2024: anchors lie in the weeks after it."""
ANCHORS: Final = 140
"""Days that anchors are spread over; as long as the longest pair."""
FILL_MOST: Final = 400
"""Rotations between the last stored one and the month that is planned; somebody left alone for longer is an error."""
WEEK: Final = 7


@dataclass(frozen=True, slots=True)
class Rotation:
    """One period, [first, end); `cities` are those of its physical slots, in the order of their days."""

    first: int
    end: int
    tier: Tier
    anchor: int
    cities: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Grid:
    """Where a person's rotations lie in a tier."""

    seed: bytes
    key: str
    tier: Tier
    anchor: int

    def between(self, first: int, end: int) -> Iterator[Rotation]:
        """Those that hold any of these days."""
        weeks = RULES[self.tier].rotation_weeks
        pair_days = WEEK * (weeks[0] + weeks[1])
        pair = (first - self.anchor) // pair_days
        starts = self.anchor + pair * pair_days
        block: int | None = None
        draws: tuple[int, ...] = ()
        while starts < end:
            if block != pair // A_DIGEST:
                block = pair // A_DIGEST
                draws = numbers(self.seed, self.key, "rotation", f"{self.tier} {self.anchor} {block}")
            middle = starts + WEEK * within(draws[pair % A_DIGEST], weeks)
            if middle > first:
                yield Rotation(starts, middle, self.tier, self.anchor)
            pair, starts = pair + 1, starts + pair_days
            if first < starts and middle < end:
                yield Rotation(middle, starts, self.tier, self.anchor)

    def holds(self, one: Rotation) -> bool:
        """Is it one of them?"""
        found = next(self.between(one.first, one.first + 1))
        return (found.first, found.end) == (one.first, one.end)


def anchor_of(seed: bytes, key: str) -> int:
    """Where a person's rotations begin to be counted, in whatever tier."""
    return EPOCH + within(numbers(seed, key, "anchor")[0], (0, ANCHORS - 1))


def laid(seed: bytes, key: str, tier: Tier, stored: Sequence[Rotation], month: int) -> list[Rotation]:
    """The rotations that a month needs, in order: those that hold its days, and those between it and the stored ones.

    `stored` are those that hold a day of the month or come later, and the last one before."""
    first, end = days_of(month)
    if not stored:
        return list(Grid(seed, key, tier, anchor_of(seed, key)).between(first, end))
    earliest, last = min(stored, key=_first), max(stored, key=_first)
    found = list(stored)
    if last.end < end:
        onward = Grid(seed, key, tier, last.anchor)
        if not onward.holds(last):
            onward = Grid(seed, key, tier, last.end)
        found += _bounded(key, onward, last.end, end)
    if first < earliest.first:
        backward = Grid(seed, key, tier, earliest.anchor)
        if not backward.holds(earliest):
            backward = Grid(seed, key, tier, earliest.first)
        found += _bounded(key, backward, first, earliest.first)
    # Stored ones outside of the month are only there to go on from: nobody asked for their visits.
    return sorted((one for one in found if one not in stored or (one.first < end and first < one.end)), key=_first)


def _bounded(key: str, grid: Grid, first: int, end: int) -> Iterator[Rotation]:
    for count, one in enumerate(grid.between(first, end)):
        if count >= FILL_MOST:
            raise PlanError(
                f"{key} has no rotations for {FILL_MOST} rotations before that month; plan a month nearer by"
            )
        yield one


def allowance(rotation: Rotation, month: int) -> int:
    """Cities that a rotation may have in that month."""
    earliest, latest = month_of(rotation.first), month_of(rotation.end - 1)
    many = latest - earliest + 1
    if many == 1:
        return CITIES_MOST
    if many == CITIES_MOST:
        return 1
    head = days_of(earliest)[1] - rotation.first
    tail = rotation.end - days_of(latest)[0]
    longer, shorter = (earliest, latest) if head >= tail else (latest, earliest)
    if many == 2:
        return 2 if month == longer else 1
    return 0 if month == shorter else 1


def _first(one: Rotation) -> int:
    return one.first
