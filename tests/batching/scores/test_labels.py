"""Labels stand in the order of their ids, whatever comes in whatever order, and few of them move."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.batching.scores.labels import Labels

pytestmark = pytest.mark.pure
IDS = st.text("ab\U0001f600ÿ~", min_size=1, max_size=5)
TINY = {"block": 4, "top": 1 << 12, "narrowest": 32}
"""So that a few dozen ids split blocks, use gaps up and share ranges out anew."""


class Written:
    """Labels beside what an owner has written down of what it was told."""

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        self.of: dict[str, int] = {}
        self.moved = 0

    def insert(self, event_id: str) -> None:
        told = dict(self.labels.insert(event_id))
        assert event_id in told
        self.moved += len(told)
        self.of.update(told)

    def remove(self, event_id: str) -> None:
        self.labels.remove(event_id)
        self.of.pop(event_id, None)

    def check(self) -> None:
        pages = [pair for ids, labels in self.labels.pages() for pair in zip(ids, labels, strict=True)]
        assert [one for one, _ in pages] == sorted(self.of)
        assert dict(pages) == self.of
        values = [label for _, label in pages]
        assert all(a < b for a, b in itertools.pairwise(values))
        assert all(0 <= label < 1 << 63 for label in values)
        assert len(self.labels) == len(self.of)


@settings(max_examples=100, deadline=None)
@given(st.lists(IDS, unique=True, max_size=30), st.lists(st.tuples(st.booleans(), IDS), max_size=120))
def test_labels_stand_in_the_order_of_ids_after_any_inserts_and_removals(
    first: list[str], steps: list[tuple[bool, str]]
) -> None:
    written = Written(Labels(**TINY))
    written.labels.spread(first)
    written.of = {one: label for ids, labels in written.labels.pages() for one, label in zip(ids, labels, strict=True)}
    for added, event_id in steps:
        if not added:
            written.remove(event_id)
        elif event_id not in written.of:
            written.insert(event_id)
        written.check()


ORDERS: dict[str, Callable[[int], str]] = {
    "always before the same id": lambda i: f"m{1_000_000 - i:07d}",
    "always after the same id": lambda i: f"m{i:07d}",
    "before everything": lambda i: f"a{1_000_000 - i:07d}",
    "after everything": lambda i: f"z{i:07d}",
    "from both sides into one gap": lambda i: f"m{i if i % 2 else 1_000_000 - i:07d}",
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("tiny", [False, True])
def test_the_worst_orders_move_few_labels(order: str, tiny: bool) -> None:
    written = Written(Labels(block=4, top=1 << 20, narrowest=64) if tiny else Labels())
    for i in range(100):
        written.insert(f"k{i}")
        written.insert(f"p{i}")
    count = 800 if tiny else 6000
    before = written.moved
    for i in range(count):
        written.insert(ORDERS[order](i))
    written.check()
    assert (written.moved - before) / count < 80


@pytest.mark.parametrize("order", list(ORDERS)[:4])
def test_ids_that_are_counted_up_or_down_move_hardly_any(order: str) -> None:
    written = Written(Labels())
    for i in range(100):
        written.insert(f"k{i}")
        written.insert(f"p{i}")
    before = written.moved
    for i in range(6000):
        written.insert(ORDERS[order](i))
    assert (written.moved - before) / 6000 < 4


def test_a_bulk_load_leaves_room_between_all() -> None:
    ids = [f"e{i}" for i in random.Random(1).sample(range(10**9), 20_000)]
    written = Written(Labels())
    written.labels.spread(ids)
    written.of = {one: label for ids, labels in written.labels.pages() for one, label in zip(ids, labels, strict=True)}
    written.check()
    values = sorted(written.of.values())
    assert min(b - a for a, b in itertools.pairwise(values)) > 1 << 40
    for i in range(1000):
        written.insert(f"e{i}x")
    written.check()


def test_what_was_removed_is_gone_and_can_come_again() -> None:
    written = Written(Labels(**TINY))
    for i in range(60):
        written.insert(f"{i:03d}")
    for i in range(60):
        written.remove(f"{i:03d}")
        written.remove("never there")
        written.check()
    written.insert("007")
    written.check()
    assert list(written.of) == ["007"]
