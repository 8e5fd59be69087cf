"""What has changed in tracking is told with how far the newest run is, and told again when that could not be read."""

from collections.abc import Mapping
from typing import Any

import pytest

from server.batching.hints import Hints, News
from server.batching.loop import Occasion
from server.batching.parts import Follow
from server.batching.tracking.relay import AREAS, TOPIC
from server.edge.bus import Bus
from server.edge.clock import SystemClock
from server.edge.postgres import Database
from server.errors import Unavailable


class Node:
    """One process with a follower; `run` is the newest one, None while it can't be read."""

    def __init__(self, db: Database) -> None:
        self.told: list[Any] = []
        self.run: dict[str, object] | None = {"id": 7}
        self.reads = 0
        self.topics = [TOPIC]
        follow = Follow(lambda: self.topics, self._tell)
        self.hints = Hints(
            TOPIC, AREAS, db=db, bus=Bus(db, node="a node"), clock=SystemClock(), follow=follow, more=self._more
        )

    def _tell(self, topic: str, message: dict[str, object]) -> bool:
        self.told.append(message["detail"])
        return True

    async def _more(self, news: News) -> Mapping[str, object]:
        self.reads += 1
        if self.run is None:
            raise Unavailable("away")
        return {"run": self.run if "runs" in news.areas else None}

    async def turn(self) -> Any:
        return await self.hints.turn(Occasion("wake", 1, 0))


async def test_the_run_goes_along_with_runs(db: Database) -> None:
    node = Node(db)
    node.hints.note("campaigns")
    await node.turn()
    node.hints.note("runs", "held")
    await node.turn()
    assert node.told == [{"changed": ["campaigns"], "run": None}, {"changed": ["held", "runs"], "run": {"id": 7}}]


async def test_what_could_not_be_read_is_told_later_with_what_came_since(db: Database) -> None:
    node = Node(db)
    node.run = None
    node.hints.note("runs")
    with pytest.raises(Unavailable):
        await node.turn()
    node.run = {"id": 8}
    node.hints.note("payouts")
    await node.turn()
    assert node.told == [{"changed": ["payouts", "runs"], "run": {"id": 8}}]


async def test_nothing_is_read_for_nobody(db: Database) -> None:
    node = Node(db)
    node.topics = []
    node.hints.note("runs")
    await node.turn()
    assert (node.reads, node.told) == (0, [])


async def test_an_area_that_there_is_not_is_a_bug_here_and_nothing_from_a_newer_node(db: Database) -> None:
    node = Node(db)
    with pytest.raises(AssertionError):
        node.hints.note("moon")
    news = News(AREAS)
    news.read({"changed": ["moon", "runs", 7]})
    assert news.said() == {"changed": ["runs"]}
    news.read({})
    assert news.areas == set(AREAS)
