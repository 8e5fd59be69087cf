"""Progress of jobs, told to followers: at most twice a second, the last one always, over a real PostgreSQL."""

from typing import Any

import asyncpg
import pytest_asyncio

from server.batching.imports.claims import TOPIC
from server.batching.imports.relay import Jobs, job_of_topic
from server.batching.loop import Occasion
from server.batching.parts import Follow
from server.batching.relay import TOLD_EVERY_S, Relay
from server.edge.bus import Envelope, Lost
from server.edge.clock import VirtualClock
from server.edge.postgres import Database

NOW = Occasion("wake", 1, 0)


class Room:
    """Followers that keep what they are told, when they have room."""

    def __init__(self) -> None:
        self.topics: list[str] = []
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.woken: list[int] = []
        self.full = False

    def tell(self, topic: str, message: dict[str, Any]) -> bool:
        if topic not in self.topics:
            return True
        if not self.full:
            self.told.append((topic, message))
        return not self.full

    def take(self) -> list[tuple[str, int]]:
        said, self.told = [(topic, message["seen"]) for topic, message in self.told], []
        return said


@pytest_asyncio.fixture
async def jobs(db: Database) -> list[int]:
    async with db.transaction() as connection:
        rows = await connection.fetch(
            "insert into imports.batch_processing_queue (owner, source) select 'ada', 'file' from generate_series(1, 3) returning id"
        )
    return [row["id"] for row in rows]


async def seen(db: Database, job: int, count: int) -> None:
    async with db.transaction() as connection:
        sql = "update imports.batch_processing_queue set seen = $2, imported = $2 where id = $1"
        await connection.execute(sql, job, count)


def relay(db: Database, clock: VirtualClock, room: Room) -> Relay:
    made = Relay(Jobs(db), clock, Follow(lambda: room.topics, room.tell))
    made.woken = room.woken.append
    return made


def hint(*jobs: object) -> list[Envelope]:
    return [Envelope("n", 1, TOPIC, {"jobs": list(jobs)}, 0, True)]


async def test_only_jobs_that_are_followed_are_read_and_told(db: Database, jobs: list[int]) -> None:
    clock, room = VirtualClock(), Room()
    made = relay(db, clock, room)
    await made.heard(hint(*jobs))
    assert room.woken == [] and (await made.turn(NOW)).taken == 0
    room.topics = [f"job:{jobs[1]}"]
    await made.heard(hint(*jobs, "x", None))
    assert (await made.turn(NOW)).taken == 1
    assert room.take() == [(f"job:{jobs[1]}", 0)]
    room.topics = [TOPIC]
    await made.heard(hint(jobs[0], jobs[2], 10**9))
    assert (await made.turn(NOW)).done == 3
    assert room.take() == [(TOPIC, 0), (TOPIC, 0)]


async def test_a_job_is_told_at_most_twice_a_second_and_its_newest_state_in_the_end(
    db: Database, jobs: list[int]
) -> None:
    clock, room = VirtualClock(), Room()
    made, topic = relay(db, clock, room), f"job:{jobs[0]}"
    room.topics = [topic]
    for count in range(1, 6):
        await seen(db, jobs[0], count)
        await made.heard(hint(jobs[0]))
        await made.turn(NOW)
        await clock.advance(0.09)
    assert room.take() == [(topic, 1)]
    assert 0 < room.woken[-1] <= 500
    await clock.advance(TOLD_EVERY_S)
    await made.turn(NOW)
    assert room.take() == [(topic, 5)]
    await made.turn(NOW)
    assert room.take() == []


async def test_what_a_follower_had_no_room_for_is_told_again(db: Database, jobs: list[int]) -> None:
    clock, room = VirtualClock(), Room()
    made, topic = relay(db, clock, room), f"job:{jobs[0]}"
    room.topics, room.full = [topic], True
    made.note(jobs[0])
    turn = await made.turn(NOW)
    assert (turn.deferred, room.take()) == (1, []) and room.woken[-1] > 0
    room.full = False
    await clock.advance(TOLD_EVERY_S)
    await made.turn(NOW)
    assert room.take() == [(topic, 0)]


async def test_after_a_loss_on_the_bus_all_followed_jobs_are_told(db: Database, jobs: list[int]) -> None:
    room = Room()
    made = relay(db, VirtualClock(), room)
    room.topics = ["loops", TOPIC, f"job:{jobs[0]}", f"job:{jobs[2]}", "job:x"]
    await made.lost(Lost("n", 1, 5))
    assert (await made.turn(NOW)).taken == 2


async def test_a_turn_that_cannot_read_keeps_its_jobs(db: Database, jobs: list[int]) -> None:
    room = Room()
    made = relay(db, VirtualClock(), room)
    room.topics = [f"job:{jobs[0]}"]
    made.note(jobs[0])
    async with db.transaction() as connection:
        await connection.execute("alter table imports.batch_processing_queue rename to elsewhere")
    try:
        await made.turn(NOW)
    except asyncpg.UndefinedTableError:
        pass
    else:
        raise AssertionError("the table is not there")
    async with db.transaction() as connection:
        await connection.execute("alter table imports.elsewhere rename to batch_processing_queue")
    assert (await made.turn(NOW)).done == 1


def test_topics_of_jobs_are_numbers_that_an_id_can_be() -> None:
    assert [job_of_topic(text) for text in ("job:17", "job:", "job:x", "loops", f"job:{10**18}", "job:١")] == [
        17,
        *[None] * 5,
    ]
