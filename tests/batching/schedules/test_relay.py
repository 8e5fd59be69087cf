"""What has changed is told to followers: once, to all processes, and again to whom there was no room for."""

from typing import Any

import pytest
import pytest_asyncio

from server.batching.loop import Occasion
from server.batching.parts import Follow
from server.batching.schedules.relay import AREAS, TOPIC, relay
from server.edge.bus import Bus, Lost
from server.edge.clock import SystemClock
from server.edge.postgres import Database
from server.errors import Unavailable


class Node:
    """One process: its end of the bus, its followers, what they were told."""

    def __init__(self, db: Database) -> None:
        self.told: list[Any] = []
        self.topics, self.room, self.wakes = [TOPIC], True, 0
        self.bus = Bus(db, node="a node")
        self.relay = relay(db, self.bus, SystemClock(), Follow(lambda: self.topics, self._tell))
        self.relay.woken = self._woken
        self.bus.subscribe([TOPIC], self.relay.heard, lost=self.relay.lost)

    def _tell(self, topic: str, message: dict[str, object]) -> bool:
        assert topic == TOPIC
        if self.room:
            self.told.append(message["detail"])
        return self.room

    def _woken(self) -> None:
        self.wakes += 1

    async def turn(self) -> Any:
        await self.bus.step()
        return await self.relay.turn(Occasion("wake", 1, 0))


@pytest_asyncio.fixture
async def nodes(db: Database) -> tuple[Node, Node]:
    both = Node(db), Node(db)
    for node in both:
        await node.bus.step()
    return both


async def test_what_one_has_changed_both_tell_once(nodes: tuple[Node, Node]) -> None:
    here, there = nodes
    here.relay.note("runs", ids=[3])
    here.relay.note("retries", ids=[1])
    for _ in range(3):
        await here.turn()
        await there.turn()
    expected = {"changed": ["retries", "runs"], "schedules": [1, 3]}
    assert here.told == there.told == [expected]
    assert there.wakes > 0


async def test_without_a_followers_room_it_is_told_again_with_what_came_since(nodes: tuple[Node, Node]) -> None:
    here, _ = nodes
    here.room = False
    here.relay.note("runs", ids=[3])
    assert (await here.turn()).deferred == 1
    here.room = True
    here.relay.note("teams")
    assert (await here.turn()).done == 1
    assert here.told == [{"changed": ["runs", "teams"], "schedules": [3]}]


async def test_nobody_who_follows_is_told_nothing(nodes: tuple[Node, Node]) -> None:
    here, there = nodes
    here.topics = ["loops"]
    here.relay.note("runs")
    await here.turn()
    await there.turn()
    assert (here.told, len(there.told)) == ([], 1)
    here.topics = [TOPIC]
    assert (await here.turn()).taken == 0


async def test_what_was_lost_may_have_been_anything(nodes: tuple[Node, Node]) -> None:
    here, _ = nodes
    await here.relay.lost(Lost("a node", 1, 2))
    await here.turn()
    assert here.told == [{"changed": sorted(AREAS), "schedules": None}]


async def test_what_could_not_be_published_is_published_later(nodes: tuple[Node, Node], dsn: str) -> None:
    here, there = nodes
    here.relay.note("runs", ids=[3])
    closed = await Database.open(dsn, clock=SystemClock())
    await closed.close()
    working, here.relay._db = here.relay._db, closed
    with pytest.raises(Unavailable):
        await here.relay.turn(Occasion("wake", 1, 0))
    here.relay._db = working
    await here.turn()
    await there.turn()
    assert here.told == there.told == [{"changed": ["runs"], "schedules": [3]}]
