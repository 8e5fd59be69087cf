"""Order maintenance: every id has an int64 label, and labels stand in the order of the ids, so that compiled code compares numbers.

The ids lie sorted in blocks; a block owns a range of labels, and its ids have labels within it. A new id takes the middle of
the gap it falls into, or, next to the id that came before it, a place near that one: ids that are counted up or down use a
gap up slowly. A gap that is used up spaces its block out again; a block that is full is split; a range too narrow to
be split is shared out anew among the fewest neighbours whose ranges are wide enough together. The more neighbours, the wider
they must be, so that such a sharing is paid for by the many inserts before it, also when these all come at one place.

`insert` says which labels must be written: that of the new id, and those that moved for it.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

BLOCK: Final = 512
"""Ids in a block after a bulk load or a split; twice as many split it."""
TOP: Final = 1 << 62
"""Labels are below it."""
NARROWEST: Final = 1 << 36
"""A block's range is never narrower: spaced out, its ids have 2^26 labels and more between them."""
NEAR: Final = 5
"""A gap is 2^NEAR times as wide as the step from an id to the one that follows it in a run."""
SLACK: Final = 1.5
"""By how much wider than for half the neighbours the ranges must be to be shared out among them."""


@dataclass(slots=True)
class Block:
    """Sorted ids, their labels, and where the block's range of labels begins; it ends where the next block's begins."""

    low: int
    ids: list[str]
    labels: array[int]

    def space(self, high: int) -> None:
        """Spread the labels evenly over [low, high)."""
        step = (high - self.low) // (len(self.ids) + 1)
        self.labels = array("q", range(self.low + step, self.low + step * len(self.ids) + 1, step))


class Labels:
    """The ids that exist and their labels."""

    def __init__(self, block: int = BLOCK, top: int = TOP, narrowest: int = NARROWEST) -> None:
        self._block, self._top, self._narrowest = block, top, narrowest
        self._blocks = [Block(0, [], array("q"))]
        self._firsts = [""]
        """By block: no id in it is smaller, none in the block before is as great."""
        self._latest = ""

    def __len__(self) -> int:
        return sum(len(block.ids) for block in self._blocks)

    def spread(self, ids: Iterable[str]) -> None:
        """Begin anew with these ids, in any order, all different."""
        ordered = sorted(ids)
        parts = [ordered[i : i + self._block] for i in range(0, len(ordered), self._block)] or [[]]
        self._blocks = [Block(0, part, array("q")) for part in parts]
        self._firsts = ["", *(part[0] for part in parts[1:])]
        self._share(0, len(parts))
        self._space(0, len(parts))

    def pages(self) -> Iterator[tuple[list[str], array[int]]]:
        """All ids in order with their labels, a block at a time; not to be changed."""
        for block in self._blocks:
            yield block.ids, block.labels

    def insert(self, event_id: str) -> Sequence[tuple[str, int]]:
        """Add an id that doesn't exist; answers the labels that have to be written, its own among them."""
        number = self._block_of(event_id)
        block = self._blocks[number]
        place = bisect_left(block.ids, event_id)
        label = self._between(number, place)
        self._latest = event_id
        block.ids.insert(place, event_id)
        if label is not None:
            block.labels.insert(place, label)
        if len(block.ids) >= 2 * self._block:
            return self._split(number)
        if label is None:
            return self._respaced(number, number + 1)
        return ((event_id, label),)

    def remove(self, event_id: str) -> None:
        """Forget an id; unknown ones are fine."""
        number = self._block_of(event_id)
        block = self._blocks[number]
        place = bisect_left(block.ids, event_id)
        if place < len(block.ids) and block.ids[place] == event_id:
            del block.ids[place]
            del block.labels[place]
            self._join(number)

    def _block_of(self, event_id: str) -> int:
        return bisect_right(self._firsts, event_id) - 1 if event_id else 0

    def _high(self, number: int) -> int:
        return self._blocks[number + 1].low if number + 1 < len(self._blocks) else self._top

    def _between(self, number: int, place: int) -> int | None:
        """A label in the gap before the `place`-th id of a block, None when nothing is left of it."""
        block = self._blocks[number]
        below = block.labels[place - 1] if place else block.low - 1
        above = block.labels[place] if place < len(block.labels) else self._high(number)
        gap = above - below
        if gap <= 1:
            return None
        if place and block.ids[place - 1] == self._latest:
            return below + max(1, gap >> NEAR)
        if place < len(block.ids) and block.ids[place] == self._latest:
            return above - max(1, gap >> NEAR)
        return below + gap // 2

    def _split(self, number: int) -> Sequence[tuple[str, int]]:
        """The upper half of a block becomes one of its own."""
        block = self._blocks[number]
        upper = block.ids[self._block :]
        del block.ids[self._block :]
        middle = (block.low + self._high(number)) // 2
        begin, end = number, number + 2
        self._blocks.insert(number + 1, Block(middle, upper, array("q")))
        self._firsts.insert(number + 1, upper[0])
        if middle - block.low < self._narrowest:
            begin, end = self._window(number)
            self._share(begin, end)
        return self._respaced(begin, end)

    def _window(self, number: int) -> tuple[int, int]:
        """The fewest neighbours, doubling, with room enough for each; all blocks, when there is none."""
        size, width, most = 2, 2.0 * self._narrowest, len(self._blocks)
        while size < most:
            begin = max(0, min(number - size // 2 + 1, most - size))
            room = self._high(begin + size - 1) - self._blocks[begin].low
            if room >= size * width:
                return begin, begin + size
            size, width = 2 * size, width * SLACK
        return 0, most

    def _share(self, begin: int, end: int) -> None:
        """Give the blocks [begin, end) equal parts of their ranges together."""
        low, high = self._blocks[begin].low, self._high(end - 1)
        width = (high - low) // (end - begin)
        assert width > 2 * self._block, "more ids than labels"
        for number in range(begin, end):
            self._blocks[number].low = low + (number - begin) * width

    def _space(self, begin: int, end: int) -> None:
        for number in range(begin, end):
            self._blocks[number].space(self._high(number))

    def _respaced(self, begin: int, end: int) -> Sequence[tuple[str, int]]:
        self._space(begin, end)
        return [pair for b in self._blocks[begin:end] for pair in zip(b.ids, b.labels, strict=True)]

    def _join(self, number: int) -> None:
        """A block nearly empty moves into the one before it: the labels stand in order there too."""
        block, before = self._blocks[number], self._blocks[number - 1]
        if number and len(block.ids) + len(before.ids) < self._block // 2:
            before.ids += block.ids
            before.labels += block.labels
            del self._blocks[number], self._firsts[number]
