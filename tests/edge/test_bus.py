"""The bus: one process turn by turn, then two operating-system processes whose listening sessions are cut."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.edge import bus as bus_module
from server.edge.bus import PAYLOAD_BYTES, SLICE, Bus, Envelope, Lost, Subscription
from server.edge.clock import SystemClock
from server.edge.postgres import Database
from server.errors import Unavailable
from tests.edge.peer_process import Message, Peer

PATIENCE_S = 60

LISTENERS = """
select pg_terminate_backend(pid, 10000) from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid()
    and (query like 'LISTEN%' or query like '%message.payload%' or query = 'select node, last_seq from ops.node')
"""


@dataclass
class Ear:
    """A handler that writes down what it hears."""

    heard: list[Envelope] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)

    async def hear(self, messages: list[Envelope]) -> None:
        self.heard.extend(messages)

    async def miss(self, lost: Lost) -> None:
        self.lost.append(lost)

    def numbers(self, node: str | None = None) -> list[object]:
        return [one.payload["number"] for one in self.heard if node in (None, one.node)]


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def end(db: Database, stack: AsyncExitStack) -> Callable[[str], Bus]:
    """Makes a node's end of the bus."""

    def make(node: str) -> Bus:
        made = Bus(db, node=node)
        stack.push_async_callback(made.close)
        return made

    return make


async def say(db: Database, bus: Bus, *numbers: int, topic: str = "numbers") -> None:
    """Each in a transaction of its own."""
    for number in numbers:
        async with db.transaction() as connection:
            await bus.publish(connection, topic, {"number": number})


async def say_and_roll_back(db: Database, bus: Bus, number: int) -> None:
    with pytest.raises(Unavailable):
        async with db.transaction() as connection:
            await bus.publish(connection, "numbers", {"number": number})
            raise Unavailable("thought better of it")


async def drain(bus: Bus) -> int:
    """Turns until nothing is left; how many it took."""
    turns = 1
    while (await bus.step()).more:
        turns += 1
    return turns


async def run(db: Database, sql: str) -> None:
    async with db.connection() as connection:
        await connection.execute(sql)


async def steps(bus: Bus) -> bool:
    try:
        await bus.step()
    except Unavailable:
        return False
    return True


# One process, turn by turn


async def test_messages_come_in_order_with_their_numbers(db: Database, end: Callable[[str], Bus]) -> None:
    bus, ear = end("a"), Ear()
    bus.subscribe({"numbers"}, ear.hear, {})
    await say(db, bus, 7, 8, 9)
    await bus.step()
    assert [(one.node, one.seq, one.topic, one.payload) for one in ear.heard] == [
        ("a", 1, "numbers", {"number": 7}),
        ("a", 2, "numbers", {"number": 8}),
        ("a", 3, "numbers", {"number": 9}),
    ]


async def test_the_own_messages_come_too_and_are_marked(db: Database, end: Callable[[str], Bus]) -> None:
    here, there, ear = end("here"), end("there"), Ear()
    here.subscribe({"numbers"}, ear.hear, {})
    await say(db, here, 1)
    await say(db, there, 2)
    await here.step()
    assert {one.node: one.own for one in ear.heard} == {"here": True, "there": False}


async def test_a_second_turn_does_not_say_it_again(db: Database, end: Callable[[str], Bus]) -> None:
    bus, ear = end("a"), Ear()
    bus.subscribe({"numbers"}, ear.hear, {})
    await say(db, bus, 1)
    await bus.step()
    assert (await bus.step()).count == 0
    assert ear.numbers() == [1]


async def test_a_rolled_back_transaction_says_nothing_and_leaves_no_gap(
    db: Database, end: Callable[[str], Bus]
) -> None:
    bus, ear = end("a"), Ear()
    bus.subscribe({"numbers"}, ear.hear, {}, lost=ear.miss)
    await say(db, bus, 1)
    await say_and_roll_back(db, bus, 2)
    await bus.step()
    await say(db, bus, 3)
    await bus.step()
    assert [(one.seq, one.payload["number"]) for one in ear.heard] == [(1, 1), (2, 3)]
    assert ear.lost == []


async def test_without_a_position_it_begins_with_the_first_turn(db: Database, end: Callable[[str], Bus]) -> None:
    bus, ear = end("a"), Ear()
    await say(db, bus, 1)
    subscription = bus.subscribe({"numbers"}, ear.hear)
    assert subscription.position is None
    await bus.step()
    await say(db, bus, 2)
    await bus.step()
    assert ear.numbers() == [2]


async def test_a_node_that_appears_later_is_heard_from_its_first_message(
    db: Database, end: Callable[[str], Bus]
) -> None:
    bus, newcomer, ear = end("a"), end("b"), Ear()
    bus.subscribe({"numbers"}, ear.hear)
    await bus.step()
    await say(db, newcomer, 1, 2)
    await bus.step()
    assert ear.numbers("b") == [1, 2]


async def test_a_subscriber_catches_up_from_its_position(db: Database, end: Callable[[str], Bus]) -> None:
    bus, ear = end("a"), Ear()
    await say(db, bus, 1, 2)
    async with db.connection() as connection:
        position = await bus.position(connection)
    await say(db, bus, 3, 4)
    bus.subscribe({"numbers"}, ear.hear, position)
    await bus.step()
    assert ear.numbers() == [3, 4]


async def test_the_position_of_a_subscription_lets_another_go_on(db: Database, end: Callable[[str], Bus]) -> None:
    bus, first, second = end("a"), Ear(), Ear()
    subscription = bus.subscribe({"numbers"}, first.hear, {})
    await say(db, bus, 1, 2)
    await bus.step()
    subscription.close()
    await say(db, bus, 3)
    bus.subscribe({"numbers"}, second.hear, subscription.position)
    await bus.step()
    assert (first.numbers(), second.numbers()) == ([1, 2], [3])


async def test_a_restarted_node_goes_on_with_its_numbers(db: Database, end: Callable[[str], Bus]) -> None:
    before, after, ear = end("a"), end("a"), Ear()
    after.subscribe({"numbers"}, ear.hear, {})
    await say(db, before, 1)
    await before.close()
    await say(db, after, 2)
    await after.step()
    assert [one.seq for one in ear.heard] == [1, 2]


async def test_each_subscriber_gets_its_topics_and_moves_past_the_others(
    db: Database, end: Callable[[str], Bus]
) -> None:
    bus, odd, both = end("a"), Ear(), Ear()
    narrow = bus.subscribe({"odd"}, odd.hear, {})
    bus.subscribe({"odd", "even"}, both.hear, {})
    for number in range(6):
        await say(db, bus, number, topic="odd" if number % 2 else "even")
    await bus.step()
    assert (odd.numbers(), both.numbers()) == ([1, 3, 5], [0, 1, 2, 3, 4, 5])
    assert narrow.position == {"a": 6}


async def test_a_turn_reads_a_slice_and_says_that_there_is_more(db: Database, end: Callable[[str], Bus]) -> None:
    bus, ear = end("a"), Ear()
    bus.subscribe({"numbers"}, ear.hear, {})
    async with db.transaction() as connection:
        for number in range(SLICE + 1):
            await bus.publish(connection, "numbers", {"number": number})
    assert (await bus.step()).more
    assert not (await bus.step()).more
    assert ear.numbers() == list(range(SLICE + 1))


async def test_a_handler_that_raises_gets_the_same_again_and_holds_up_nobody(
    db: Database, end: Callable[[str], Bus]
) -> None:
    bus, good = end("a"), Ear()
    refused: list[list[Envelope]] = []

    async def refuse_twice(messages: list[Envelope]) -> None:
        if len(refused) < 2:
            refused.append(messages)
            raise ValueError("not now")
        await late.hear(messages)

    late = Ear()
    bus.subscribe({"numbers"}, refuse_twice, {})
    bus.subscribe({"numbers"}, good.hear, {})
    await say(db, bus, 1, 2)
    for _ in range(2):
        with pytest.raises(ValueError, match="not now"):
            await bus.step()
    assert good.numbers() == [1, 2]
    await bus.step()
    assert late.numbers() == [1, 2]
    assert good.numbers() == [1, 2]


async def test_a_closed_subscription_hears_nothing_more(db: Database, end: Callable[[str], Bus]) -> None:
    bus, ear = end("a"), Ear()
    subscription = bus.subscribe({"numbers"}, ear.hear, {})
    await say(db, bus, 1)
    subscription.close()
    await bus.step()
    assert ear.heard == []


async def test_a_handler_may_subscribe_and_close_while_it_is_called(db: Database, end: Callable[[str], Bus]) -> None:
    bus, later = end("a"), Ear()
    mine: list[Subscription] = []

    async def swap(messages: list[Envelope]) -> None:
        mine[0].close()
        bus.subscribe({"numbers"}, later.hear, mine[0].position)

    mine.append(bus.subscribe({"numbers"}, swap, {}))
    await say(db, bus, 1)
    await bus.step()
    await bus.step()
    assert later.numbers() == [1]


async def test_a_message_outside_of_a_transaction_or_too_large_is_a_bug(
    db: Database, end: Callable[[str], Bus]
) -> None:
    bus = end("a")
    async with db.connection() as connection:
        with pytest.raises(AssertionError, match="transaction"):
            await bus.publish(connection, "numbers", {})
    async with db.transaction() as connection:
        with pytest.raises(AssertionError, match="send ids"):
            await bus.publish(connection, "numbers", {"text": "x" * PAYLOAD_BYTES})


async def test_a_message_keeps_every_character(db: Database, end: Callable[[str], Bus]) -> None:
    bus, ear = end("a"), Ear()
    bus.subscribe({"numbers"}, ear.hear, {})
    payload = {"number": 2**53, "text": "naïve \u0000 \U0001f389 \"' \\", "z": [1.5, None, True], "a": {}}
    async with db.transaction() as connection:
        await bus.publish(connection, "numbers", payload)
    await bus.step()
    assert ear.heard[0].payload == payload


# Waking


async def test_a_commit_wakes_the_others_and_a_transaction_of_many_wakes_once(
    db: Database, end: Callable[[str], Bus]
) -> None:
    talker, listener, ear = end("a"), end("b"), Ear()
    await listener.step()
    wakes: asyncio.Queue[None] = asyncio.Queue()
    listener.woken = lambda: wakes.put_nowait(None)
    async with db.transaction() as connection:
        for number in range(50):
            await talker.publish(connection, "numbers", {"number": number})
    await say(db, talker, 50)
    async with asyncio.timeout(PATIENCE_S):
        await wakes.get()
        await wakes.get()
    assert wakes.empty()
    listener.subscribe({"numbers"}, ear.hear, {})
    await listener.step()
    assert ear.numbers() == list(range(51))


async def test_a_cut_session_wakes_and_the_next_turns_make_good_what_was_missed(
    db: Database, end: Callable[[str], Bus]
) -> None:
    talker, listener, ear = end("a"), end("b"), Ear()
    listener.subscribe({"numbers"}, ear.hear, {})
    woken = asyncio.Event()
    for number in range(5):
        await listener.step()
        woken.clear()
        listener.woken = woken.set
        await run(db, LISTENERS)
        async with asyncio.timeout(PATIENCE_S):
            await woken.wait()
        await say(db, talker, number)
    while not await steps(listener):
        pass
    assert ear.numbers() == [0, 1, 2, 3, 4]


async def test_a_closed_bus_is_woken_no_more(db: Database, end: Callable[[str], Bus]) -> None:
    bus = end("a")
    wakes: list[int] = []
    bus.woken = lambda: wakes.append(1)
    await bus.step()
    await bus.close()
    await run(db, LISTENERS)
    assert wakes == []


# What is kept


async def age(db: Database, condition: str) -> None:
    await run(db, f"update ops.outbox set at = at - interval '1 day' where {condition}")


async def test_old_messages_are_removed_and_a_subscriber_before_them_is_told(
    db: Database, end: Callable[[str], Bus]
) -> None:
    bus, ear = end("a"), Ear()
    bus.subscribe({"numbers"}, ear.hear, {"a": 1}, lost=ear.miss)
    await say(db, bus, 1, 2, 3, 4, 5)
    await age(db, "seq <= 3")
    assert (await bus.retain(600)).count == 3
    await bus.step()
    assert ear.lost == [Lost("a", 1, 4)]
    assert ear.numbers() == [4, 5]


async def test_who_has_heard_what_was_removed_is_told_nothing(db: Database, end: Callable[[str], Bus]) -> None:
    bus, ear = end("a"), Ear()
    bus.subscribe({"numbers"}, ear.hear, {}, lost=ear.miss)
    await say(db, bus, 1, 2)
    await bus.step()
    await age(db, "true")
    await bus.retain(600)
    await say(db, bus, 3)
    await bus.step()
    assert (ear.numbers(), ear.lost) == ([1, 2, 3], [])


async def test_when_all_is_removed_the_subscriber_is_told_once(db: Database, end: Callable[[str], Bus]) -> None:
    bus, ear = end("a"), Ear()
    subscription = bus.subscribe({"numbers"}, ear.hear, {}, lost=ear.miss)
    await say(db, bus, 1, 2, 3)
    await age(db, "true")
    await bus.retain(600)
    await drain(bus)
    await drain(bus)
    assert (ear.lost, ear.numbers()) == ([Lost("a", 0, 4)], [])
    assert subscription.position == {"a": 3}


async def test_a_clock_that_was_set_back_does_not_tear_a_hole(db: Database, end: Callable[[str], Bus]) -> None:
    bus = end("a")
    await say(db, bus, 1, 2, 3)
    await age(db, "seq in (1, 3)")
    assert (await bus.retain(600)).count == 1


async def test_removal_goes_in_slices(db: Database, end: Callable[[str], Bus], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus_module, "REMOVE_SLICE", 2)
    one, other = end("a"), end("b")
    await say(db, one, 1, 2, 3)
    await say(db, other, 1)
    await age(db, "true")
    turns = [await one.retain(600), await one.retain(600)]
    assert [(turn.count, turn.more) for turn in turns] == [(3, True), (1, False)]


async def test_a_counter_that_went_back_is_told_as_lost(db: Database, end: Callable[[str], Bus]) -> None:
    bus, ear = end("a"), Ear()
    bus.subscribe({"numbers"}, ear.hear, {}, lost=ear.miss)
    await say(db, bus, 1, 2, 3)
    await bus.step()
    await run(db, "delete from ops.outbox where seq > 1; update ops.node set last_seq = 1")
    await bus.step()
    assert ear.lost == [Lost("a", 3, 2)]
    await say(db, bus, 4)
    await bus.step()
    assert ear.numbers() == [1, 2, 3, 4]


async def test_a_name_silent_for_long_is_forgotten_and_may_come_back(db: Database, end: Callable[[str], Bus]) -> None:
    bus, ear = end("a"), Ear()
    bus.subscribe({"numbers"}, ear.hear, {}, lost=ear.miss)
    await say(db, bus, 1)
    await bus.step()
    await age(db, "true")
    await bus.retain(600)
    await run(db, "update ops.node set published_at = published_at - interval '31 days'")
    await bus.retain(600)
    await bus.step()
    await say(db, bus, 2)
    await bus.step()
    assert ([(one.seq, one.payload["number"]) for one in ear.heard], ear.lost) == ([(1, 1), (1, 2)], [])


# Many at once


async def test_transactions_that_overlap_are_numbered_as_they_commit(db: Database, end: Callable[[str], Bus]) -> None:
    """A reader that looks all the time while twenty publish at once misses nothing and sees each number once."""
    talker, listener, ear = end("a"), end("b"), Ear()
    listener.subscribe({"numbers"}, ear.hear, {}, lost=ear.miss)

    async def talk(start: int) -> None:
        for number in range(start, start + 10):
            await say_slowly(db, talker, number)

    talking = asyncio.gather(*(talk(start) for start in range(0, 60, 10)))
    while not talking.done():
        await listener.step()
    await talking
    await drain(listener)
    assert [one.seq for one in ear.heard] == list(range(1, 61))
    assert sorted(ear.numbers(), key=str) == sorted(range(60), key=str)
    assert ear.lost == []


async def say_slowly(db: Database, bus: Bus, number: int) -> None:
    """The transaction stays open for a while after it has got its number."""
    async with db.transaction() as connection:
        await bus.publish(connection, "numbers", {"number": number})
        await connection.execute("select pg_sleep(0.001)")


doings = st.sampled_from(["say a", "say b", "two b", "roll back a", "hear", "cut", "remove"])


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(doings, max_size=25))
async def test_whatever_happens_in_between_each_message_comes_once_and_in_order(
    db: Database, end: Callable[[str], Bus], doings: list[str]
) -> None:
    await run(db, "truncate ops.outbox, ops.node")
    nodes, ear = {"a": end("a"), "b": end("b")}, Ear()
    nodes["a"].subscribe({"numbers"}, ear.hear, {}, lost=ear.miss)
    said: dict[str, list[int]] = {"a": [], "b": []}
    for number, doing in enumerate(doings):
        match doing.rsplit(" ", 1):
            case ["say", node]:
                await say(db, nodes[node], number)
                said[node].append(number)
            case ["two", node]:
                async with db.transaction() as connection:
                    for each in (number, -number):
                        await nodes[node].publish(connection, "numbers", {"number": each})
                        said[node].append(each)
            case ["roll back", node]:
                await say_and_roll_back(db, nodes[node], number)
            case ["hear"]:
                await steps(nodes["a"])
            case ["cut"]:
                await run(db, LISTENERS)
            case ["remove"]:
                await nodes["b"].retain(600)
    while not await steps(nodes["a"]):
        pass
    assert ({node: ear.numbers(node) for node in said}, ear.lost) == (said, [])
    await nodes["a"].close()


# Processes


async def test_two_processes_hear_each_other_in_order_while_their_sessions_are_cut(
    dsn: str, db: Database, stack: AsyncExitStack
) -> None:
    count, peers = 300, [await Peer.start(stack, "bus", dsn, node) for node in ("a", "b")]
    for peer in peers:
        await peer.told(lambda message: "started" in message)
        await peer.tell("publish", 1, count + 1)
    await asyncio.gather(cut_often(db), *(heard_all(peer, {"a": count, "b": count}) for peer in peers))
    for peer in peers:
        for node in ("a", "b"):
            heard = [message for message in peer.heard if message.get("node") == node]
            assert [message["seq"] for message in heard] == list(range(1, count + 1))
            assert [message["number"] for message in heard] == list(range(1, count + 1))
            assert all(message["own"] == (node == peer.node) for message in heard)


async def cut_often(db: Database) -> None:
    for _ in range(20):
        await run(db, LISTENERS)
        await SystemClock().sleep(0.05)


async def heard_all(peer: Peer, wanted: dict[str, int]) -> None:
    missing = set(wanted.items())

    def last(message: Message) -> bool:
        missing.discard((str(message.get("node")), cast(int, message.get("seq"))))
        return not missing

    await peer.told(last)


async def test_a_process_that_was_killed_and_started_again_goes_on(
    dsn: str, db: Database, stack: AsyncExitStack
) -> None:
    listener = await Peer.start(stack, "bus", dsn, "b")
    await listener.told(lambda message: "started" in message)
    for life in range(3):
        talker = await Peer.start(stack, "bus", dsn, "a")
        await talker.ask("publish", life * 10, life * 10 + 10)
        talker.process.kill()
        await talker.process.wait()
    await heard_all(listener, {"a": 30})
    heard = [message for message in listener.heard if message.get("node") == "a"]
    assert [message["number"] for message in heard] == list(range(30))
