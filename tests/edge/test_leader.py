"""Election: real PostgreSQL, and real processes where one of them is killed or stopped."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import cast

import asyncpg
import pytest

from server.edge.clock import SystemClock, VirtualClock
from server.edge.leader import LEASE_S, TURNS_A_LEASE, Leadership, NotLeader
from server.edge.postgres import Database
from server.errors import Refused, Unavailable
from tests.edge.peer_process import Message, Peer

SHORT_S = 2.0
PATIENCE_S = 60

RUN_OUT = "update ops.lease set expires_at = clock_timestamp() - interval '1 ms'"
SESSIONS = """
select pid from pg_locks where locktype = 'advisory' and granted
    and database = (select oid from pg_database where datname = current_database()) and objsubid = 2
"""


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def node(db: Database, stack: AsyncExitStack) -> Callable[..., Leadership]:
    """Makes a node of that name that takes part in the election when it is stepped."""

    def make(name: str, clock: VirtualClock | None = None, lease_s: float = LEASE_S) -> Leadership:
        made = Leadership(db, clock or SystemClock(), node=name, lease_s=lease_s)
        stack.push_async_callback(made.resign)
        return made

    return make


async def holds(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until it does."""
    async with asyncio.timeout(PATIENCE_S):
        while not await condition():
            await SystemClock().sleep(0.02)


async def row(db: Database) -> asyncpg.Record:
    async with db.connection() as connection:
        found = await connection.fetchrow("select * from ops.lease where name = 'main'")
    assert found is not None
    return found


async def run(db: Database, sql: str) -> None:
    async with db.connection() as connection:
        await connection.execute(sql)


async def cut_sessions(db: Database) -> int:
    """End every session that holds a lock of the election, and wait until they are gone."""
    async with db.connection() as connection:
        pids = {record["pid"] for record in await connection.fetch(SESSIONS)}
        for pid in pids:
            await connection.execute("select pg_terminate_backend($1, 10000)", pid)
    return len(pids)


# One process, turn by turn


async def test_the_first_to_ask_leads_and_the_second_does_not(db: Database, node: Callable[..., Leadership]) -> None:
    first, second = node("first"), node("second")
    assert await first.step()
    assert not await second.step()
    assert (first.term, second.term) == (1, None)
    assert (first.leader(), second.leader()) == ("first", "first")


async def test_of_many_that_ask_at_once_exactly_one_leads(db: Database) -> None:
    """Also in the very first turn of a lease that nobody has asked for before."""
    for round_ in range(10):
        nodes = [Leadership(db, SystemClock(), node=f"node-{number}", name=f"lease-{round_}") for number in range(6)]
        answers = await asyncio.gather(*(each.step() for each in nodes))
        assert answers.count(True) == 1
        assert [each.term for each in nodes if each.term] == [1]
        for each in nodes:
            await each.resign()


async def test_different_leases_have_different_leaders(db: Database, node: Callable[..., Leadership]) -> None:
    one = node("one")
    other = Leadership(db, SystemClock(), node="other", name="else")
    assert await one.step()
    assert await other.step()
    await other.resign()


async def test_a_renewal_keeps_the_term_and_moves_the_end(db: Database, node: Callable[..., Leadership]) -> None:
    leader = node("leader")
    await leader.step()
    before = await row(db)
    await leader.step()
    after = await row(db)
    assert after["term"] == before["term"]
    assert after["expires_at"] > before["expires_at"]


async def test_a_leader_that_is_not_renewed_stops_believing_when_its_lease_ends(
    db: Database, node: Callable[..., Leadership]
) -> None:
    clock = VirtualClock()
    leader = node("leader", clock)
    await leader.step()
    await clock.advance(LEASE_S - 0.001)
    assert leader.leads()
    await clock.advance(0.001)
    assert not leader.leads()
    assert leader.term is None
    assert leader.leader() is None


async def test_a_lease_counts_from_before_the_renewal_was_sent(db: Database, node: Callable[..., Leadership]) -> None:
    clock = VirtualClock()
    leader = node("leader", clock)
    await leader.step()
    async with db.transaction() as connection:
        await connection.fetch("select * from ops.lease for update")
        renewal = asyncio.ensure_future(leader.step())
        await waiting_for_a_row(db)
        await clock.advance(1)
    await renewal
    await clock.advance(LEASE_S - 1)
    assert not leader.leads()


async def waiting_for_a_row(db: Database) -> None:
    async def somebody_waits() -> bool:
        async with db.connection() as connection:
            return bool(
                await connection.fetchval(
                    "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
                )
            )

    await holds(somebody_waits)


async def test_a_leader_late_with_its_renewal_goes_on_in_its_term_if_nobody_came(
    db: Database, node: Callable[..., Leadership]
) -> None:
    clock = VirtualClock()
    leader = node("leader", clock)
    await leader.step()
    await run(db, RUN_OUT)
    await clock.advance(100)
    assert not leader.leads()
    assert await leader.step()
    assert leader.term == 1


async def test_a_lease_that_has_not_run_out_is_left_alone_even_when_the_lock_is_free(
    db: Database, node: Callable[..., Leadership]
) -> None:
    leader, contender = node("leader"), node("contender")
    await leader.step()
    assert await cut_sessions(db) == 1
    assert not await contender.step()
    assert leader.leads()


async def test_a_lease_that_has_run_out_goes_to_who_asks_next_with_the_next_term(
    db: Database, node: Callable[..., Leadership]
) -> None:
    leader, contender = node("leader"), node("contender")
    await leader.step()
    await cut_sessions(db)
    await run(db, RUN_OUT)
    assert await contender.step()
    assert contender.term == 2
    assert not await leader.step()
    assert (leader.term, leader.leader()) == (None, "contender")


async def test_who_resigns_hands_over_at_once_and_for_good(db: Database, node: Callable[..., Leadership]) -> None:
    leader, contender = node("leader"), node("contender")
    await leader.step()
    await contender.step()
    await leader.resign()
    assert not leader.leads()
    assert await contender.step()
    assert contender.term == 2
    await contender.resign()
    assert not await leader.step()
    assert (await row(db))["holder"] is None


async def test_a_node_that_starts_again_takes_its_own_lease_back_at_once(
    db: Database, node: Callable[..., Leadership]
) -> None:
    await node("same").step()
    await cut_sessions(db)
    again = node("same")
    assert await again.step()
    assert again.term == 2


async def test_two_processes_under_one_name_do_not_both_lead(db: Database, node: Callable[..., Leadership]) -> None:
    assert await node("same").step()
    assert not await node("same").step()


async def test_a_leader_whose_connection_was_cut_leads_again_after_a_turn_or_two(
    db: Database, node: Callable[..., Leadership]
) -> None:
    leader = node("leader")
    await leader.step()
    for _ in range(3):
        await cut_sessions(db)
        await holds(partial(steps, leader))
    assert leader.term == 4


async def steps(leadership: Leadership) -> bool:
    try:
        return await leadership.step()
    except Unavailable:
        return False


async def test_a_turn_that_is_cancelled_half_way_does_not_stand_in_the_way_of_the_next(
    db: Database, node: Callable[..., Leadership]
) -> None:
    leader = node("leader")
    await node("other").step()
    await cut_sessions(db)
    await run(db, RUN_OUT)
    async with db.transaction() as connection:
        await connection.fetch("select * from ops.lease for update")
        turn = asyncio.ensure_future(leader.step())
        await waiting_for_a_row(db)
        turn.cancel()
        with pytest.raises(asyncio.CancelledError):
            await turn
    assert not leader.leads()
    await holds(partial(steps, leader))
    assert leader.term == (await row(db))["term"]


# The fence


async def test_a_fenced_transaction_of_the_leader_passes(db: Database, node: Callable[..., Leadership]) -> None:
    leader = node("leader")
    await leader.step()
    async with db.transaction() as connection:
        assert await leader.fenced(connection) == 1


async def test_the_fence_refuses_who_does_not_lead(db: Database, node: Callable[..., Leadership]) -> None:
    leader, other = node("leader"), node("other")
    await leader.step()
    await other.step()
    with pytest.raises(NotLeader, match="leader leads") as refusal:
        async with db.transaction() as connection:
            await other.fenced(connection)
    assert isinstance(refusal.value, Refused)
    assert refusal.value.retry


async def test_the_fence_refuses_the_past_term_of_a_node_that_leads_again(
    db: Database, node: Callable[..., Leadership]
) -> None:
    leader = node("leader")
    await leader.step()
    await cut_sessions(db)
    await holds(partial(steps, leader))
    assert leader.term == 2
    with pytest.raises(NotLeader):
        async with db.transaction() as connection:
            await leader.fenced(connection, 1)


async def test_a_fence_outside_of_a_transaction_is_a_bug(db: Database, node: Callable[..., Leadership]) -> None:
    leader = node("leader")
    await leader.step()
    async with db.connection() as connection:
        with pytest.raises(AssertionError, match="outside of a transaction"):
            await leader.fenced(connection)


async def test_a_long_fenced_transaction_does_not_keep_the_leader_from_renewing(
    db: Database, node: Callable[..., Leadership]
) -> None:
    leader = node("leader")
    await leader.step()
    before = await row(db)
    async with db.transaction() as connection:
        await leader.fenced(connection)
        assert await leader.step()
        assert (await row(db))["expires_at"] > before["expires_at"]


async def test_a_change_of_the_term_waits_for_a_fenced_transaction(
    db: Database, node: Callable[..., Leadership]
) -> None:
    leader, contender = node("leader"), node("contender")
    await leader.step()
    async with db.transaction() as connection:
        await leader.fenced(connection)
        await leader.resign()
        await run(db, "update ops.lease set expires_at = clock_timestamp() + interval '1 hour'")
        assert not await steps(contender)
    await holds(partial(steps, contender))
    assert (await row(db))["term"] == contender.term


async def test_a_fenced_transaction_left_open_past_the_lease_is_ended(
    db: Database, node: Callable[..., Leadership]
) -> None:
    leader, contender = node("leader"), node("contender")
    await leader.step()
    with pytest.raises(Unavailable):
        async with db.transaction() as connection:
            await leader.fenced(connection)
            await cut_lock_only(db)
            await run(db, RUN_OUT)
            await holds(partial(steps, contender))
            await connection.execute("select 1")
    assert contender.term == 2


async def cut_lock_only(db: Database) -> None:
    await run(
        db,
        "select pg_terminate_backend(pid, 10000) from pg_locks where locktype = 'advisory' and mode = 'ExclusiveLock'",
    )


async def test_a_contender_in_the_middle_of_its_turn_is_not_ended_by_another(
    db: Database, node: Callable[..., Leadership]
) -> None:
    """It has the lock and not yet the row, which is as old as can be."""
    first, second = node("first"), node("second")
    await first.step()
    await first.resign()
    await run(db, "update ops.lease set expires_at = 'epoch'")
    async with db.transaction() as connection:
        await connection.fetch("select * from ops.lease for update")
        half_way = asyncio.ensure_future(node("third").step())
        await waiting_for_a_row(db)
        assert not await second.step()
    assert await half_way


# Processes


async def led_table(db: Database) -> None:
    await run(db, "create table led (node text, term bigint)")


async def two(stack: AsyncExitStack, dsn: str, db: Database, lease_s: float = SHORT_S) -> tuple[Peer, Peer, int]:
    """Two processes of which the first returned leads, in that term."""
    await led_table(db)
    leader = await Peer.start(stack, "lead", dsn, "a", lease_s)
    term = (await leader.told(lambda message: bool(message.get("term"))))["term"]
    follower = await Peer.start(stack, "lead", dsn, "b", lease_s)
    await follower.told(lambda message: message.get("leader") == "a")
    assert isinstance(term, int)
    return leader, follower, term


async def leads_alone(db: Database, peers: list[Peer], at_least: int = 1) -> bool:
    """The node in the row may write in its term, the others in no term."""
    lease = await row(db)
    if lease["term"] < at_least:
        return False
    for peer in peers:
        answer = await peer.ask("write", lease["term"])
        if answer["written"] != (peer.node == lease["holder"]):
            return False
    return True


async def test_only_one_of_two_processes_leads_and_the_fence_tells_them_apart(
    dsn: str, db: Database, stack: AsyncExitStack
) -> None:
    leader, follower, _ = await two(stack, dsn, db)
    await holds(partial(leads_alone, db, [leader, follower]))


def test_the_default_lease_moves_a_dead_leader_within_ten_seconds() -> None:
    """It runs out LEASE_S after its last renewal, and a follower looks each third of that."""
    assert LEASE_S + LEASE_S / TURNS_A_LEASE <= 9


def later(term: int) -> Callable[[Message], bool]:
    return lambda message: cast(int, message.get("term") or 0) > term


async def test_the_leader_killed_is_replaced_in_a_later_term(dsn: str, db: Database, stack: AsyncExitStack) -> None:
    leader, follower, term = await two(stack, dsn, db)
    leader.signal(signal.SIGKILL)
    await follower.told(later(term))
    await holds(partial(leads_alone, db, [follower], term + 1))


async def test_the_leader_killed_in_a_fenced_transaction_is_replaced(
    dsn: str, db: Database, stack: AsyncExitStack
) -> None:
    leader, follower, term = await two(stack, dsn, db)
    await leader.ask("hold", term)
    leader.signal(signal.SIGKILL)
    await follower.told(later(term))


async def test_the_leader_stopped_past_its_lease_is_thrown_out_and_knows_it_when_it_wakes(
    dsn: str, db: Database, stack: AsyncExitStack
) -> None:
    leader, follower, term = await two(stack, dsn, db)
    leader.signal(signal.SIGSTOP)
    await follower.told(later(term))
    await leader.tell("write", term)
    leader.signal(signal.SIGCONT)
    answer = await leader.told(lambda message: message.get("answer") == "write")
    assert (answer["written"], answer["leads"]) == (False, False)
    await holds(partial(leads_alone, db, [leader, follower], term + 1))


async def test_the_leader_stopped_in_a_fenced_transaction_is_thrown_out(
    dsn: str, db: Database, stack: AsyncExitStack
) -> None:
    leader, follower, term = await two(stack, dsn, db)
    await leader.ask("hold", term)
    leader.signal(signal.SIGSTOP)
    await follower.told(later(term))


async def test_a_process_that_resigns_is_replaced_before_its_lease_ends(
    dsn: str, db: Database, stack: AsyncExitStack
) -> None:
    """With a lease of an hour nothing but the resignation can have done it; the follower is asked to look once more."""
    leader, _, term = await two(stack, dsn, db, lease_s=3600)
    assert (await leader.ask("resign"))["leads"] is False
    late = await Peer.start(stack, "lead", dsn, "c", 3600)
    assert (await late.told(lambda message: bool(message.get("term"))))["term"] == term + 1


async def test_cut_connections_of_two_processes_leave_one_leader(dsn: str, db: Database, stack: AsyncExitStack) -> None:
    leader, follower, _ = await two(stack, dsn, db)
    for _ in range(3):
        before = (await row(db))["term"]
        await cut_sessions(db)
        await holds(partial(later_term, db, before))
    await holds(partial(leads_alone, db, [leader, follower], 4))


async def later_term(db: Database, term: int) -> bool:
    return bool((await row(db))["term"] > term)
