"""Loops: growth of clips is handed to the feed once, by the node that settled it, and again when the feed was away."""

from collections.abc import Sequence

import pytest

from server.batching.loop import Occasion
from server.batching.tracking import popularity as module
from server.batching.tracking.popularity import PRODUCER, SLICE, Popularity
from server.core.event import Accepted, Op, Outcome, Rejected
from server.core.event import Popularity as Moved
from server.core.identity import Identity
from server.edge.bus import Envelope
from server.errors import Code, Unavailable


class Feed:
    """The other side of the port."""

    def __init__(self) -> None:
        self.taken: list[Op] = []
        self.away = False

    async def ingest(self, ops: Sequence[Op], who: Identity) -> Sequence[Outcome]:
        assert who is PRODUCER and who.has("producer") and not who.admin
        if self.away:
            raise Unavailable("away")
        self.taken += ops
        return [
            Rejected(op.id, Code.NOT_FOUND, "eventId", "no such event") if op.id == "gone" else Accepted(op.id, 1)
            for op in ops
        ]


def said(*growth: tuple[str, int], own: bool = True) -> Envelope:
    rows = [{"event": event, "views": views, "key": f"{event}-{views}"} for event, views in growth]
    return Envelope("a node", 1, "tracking-popularity", {"growth": rows}, 0, own)


def occasion() -> Occasion:
    return Occasion("wake", 1, 0)


async def test_growth_that_was_settled_here_is_handed_over_under_its_key() -> None:
    feed = Feed()
    popularity = Popularity(feed.ingest)
    wakes: list[int] = []
    popularity.woken = lambda: wakes.append(1)
    await popularity.heard([said(("a", 5)), said(("b", 7), own=False), said(("gone", 1), ("c", 2))])
    assert wakes
    turn = await popularity.turn(occasion())
    assert feed.taken == [
        Moved("a", deltas=(5, 0, 0), update_id="a-5"),
        Moved("gone", deltas=(1, 0, 0), update_id="gone-1"),
        Moved("c", deltas=(2, 0, 0), update_id="c-2"),
    ]
    assert (turn.taken, turn.done, turn.failed, turn.detail) == (3, 3, 0, {"unknown": 1})
    assert (await popularity.turn(occasion())).taken == 0


async def test_what_the_feed_could_not_take_is_handed_over_later_in_its_order() -> None:
    feed = Feed()
    popularity = Popularity(feed.ingest)
    await popularity.heard([said(("a", 1), ("b", 2))])
    feed.away = True
    with pytest.raises(Unavailable):
        await popularity.turn(occasion())
    await popularity.heard([said(("c", 3))])
    feed.away = False
    await popularity.turn(occasion())
    assert [op.id for op in feed.taken] == ["a", "b", "c"]


async def test_a_turn_takes_a_slice_and_the_oldest_go_when_too_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NOTED_MOST", SLICE + 10)
    feed = Feed()
    popularity = Popularity(feed.ingest)
    await popularity.heard([said(*((f"e{n}", 1) for n in range(SLICE + 15)))])
    first = await popularity.turn(occasion())
    assert (first.taken, first.more, feed.taken[0].id) == (SLICE, True, "e5")
    last = await popularity.turn(occasion())
    assert (last.taken, last.more) == (10, False)
