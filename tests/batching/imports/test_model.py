"""The queue's SQL against a model of a few dictionaries: any order of verbs by workers, owners and housekeeping.

After each step every row, every place in the order and the day's sums are what the model says. Claims are kept for ever, so
that whoever lost one comes back with it at any time.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from typing import TypeVar

import asyncpg
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from server.batching.imports import claims, store
from server.batching.imports.plan import Again, Done, Ending, Failed, Job, Ladder, Released, rescued, settled
from server.core.member import Member, Page

T = TypeVar("T")

LADDER = Ladder(first_s=1000, cap_s=10_000)
HISTORIES = int(os.environ.get("HISTORIES", "12"))
OWNERS = st.sampled_from(["ann", "bob", "cid"])
PRIORITIES = st.sampled_from([0, 4, 5, 9])
ENDINGS: st.SearchStrategy[Ending] = st.sampled_from(
    [Done(), Released(), Failed("no"), Failed("scope", True), Again("later")]
)
ANY = st.integers(0, 10_000)


@dataclass
class Row:
    """A job as the model has it."""

    owner: str
    priority: int
    tier: int
    turn: int
    status: str = "pending"
    retries: int = 0
    lease: int = 0
    worker: int | None = None
    cursor: str | None = None
    pages: int = 0
    seen: int = 0
    due: bool = False


@dataclass
class Model:
    """All that the tables hold."""

    jobs: dict[int, Row] = field(default_factory=dict)
    turns: dict[int, int] = field(default_factory=lambda: dict.fromkeys(range(10), 1))
    places: dict[tuple[int, str], int] = field(default_factory=dict)
    workers: dict[int, str] = field(default_factory=dict)
    completed: int = 0
    failed: int = 0
    members: int = 0

    def take(self, tier: int, owner: str, count: int = 1) -> int:
        least = self.turns[tier] - 1
        last = max(self.places.get((tier, owner), least), least) + count
        self.places[tier, owner] = last
        return last - count + 1

    def with_status(self, *wanted: str) -> list[int]:
        return [number for number, row in self.jobs.items() if row.status in wanted]

    def waiting(self) -> list[int]:
        return sorted(self.with_status("pending"), key=lambda n: (self.jobs[n].tier, self.jobs[n].turn, n))

    def holds(self, job: Job) -> bool:
        return self.jobs[job.id].status == "processing" and self.jobs[job.id].lease == job.lease

    def end(self, number: int, status: str, retries: int, afresh: bool = False) -> None:
        row = self.jobs[number]
        row.status, row.retries, row.worker, row.due = status, retries, None, False
        row.cursor = None if afresh else row.cursor
        self.completed += status == "completed"
        self.failed += status == "failed"
        self.members += row.seen if status == "completed" else 0


class Machine(RuleBasedStateMachine):
    dsn: str
    loop: asyncio.AbstractEventLoop

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.claims: list[Job] = []
        self.connection: asyncpg.Connection = self.run(asyncpg.connect(self.dsn))
        self.tell(
            """truncate imports.batch_processing_queue, imports.batch_processing_workers, imports.place, imports.stats_shard,
            imports.contacts restart identity; update imports.tier set turn = 1"""
        )
        self.tell(claims.PREPARE)

    def run(self, doing: Coroutine[object, object, T]) -> T:
        return self.loop.run_until_complete(doing)

    def tell(self, sql: str, *values: object) -> str:
        return self.run(self.connection.execute(sql, *values))

    def teardown(self) -> None:
        self.run(self.connection.close())

    def pick(self, numbers: list[int], any_number: int) -> int:
        return numbers[any_number % len(numbers)]

    # --- owners ---

    @rule(owner=OWNERS, priority=PRIORITIES, count=st.integers(1, 4), most=st.integers(0, 2))
    def put(self, owner: str, priority: int, count: int, most: int) -> None:
        tier = 9 - priority
        rows = self.run(
            self.connection.fetch(
                """insert into imports.batch_processing_queue (owner, source, audience_id, priority, tier, turn, max_retries)
                select $1, 'file', 1, $2, $3, first + n - 1, $5
                from (select imports.take_turns($3, $1, $4) as first) f, generate_series(1, $4) n returning id""",
                *(owner, priority, tier, count, most),
            )
        )
        first = self.model.take(tier, owner, count)
        for place, row in enumerate(rows):
            self.model.jobs[row["id"]] = Row(owner, priority, tier, first + place)

    @precondition(lambda self: self.model.jobs)
    @rule(which=ANY)
    def cancel(self, which: int) -> None:
        number = self.pick(list(self.model.jobs), which)
        changed = self.run(self.connection.fetchval(store.CANCEL, number)) is not None
        row = self.model.jobs[number]
        assert changed == (row.status in ("scheduled", "pending", "processing"))
        if changed:
            row.status, row.worker, row.due = "cancelled", None, False

    @precondition(lambda self: self.model.jobs)
    @rule(which=ANY)
    def requeue(self, which: int) -> None:
        number = self.pick(list(self.model.jobs), which)
        changed = self.run(self.connection.fetchval(store.REQUEUE, number)) is not None
        row = self.model.jobs[number]
        assert changed == (row.status in ("failed", "cancelled", "scheduled"))
        if changed:
            row.tier = 9 - row.priority
            row.status, row.retries, row.due, row.turn = "pending", 0, False, self.model.take(row.tier, row.owner)

    @precondition(lambda self: self.model.jobs)
    @rule(which=ANY, priority=PRIORITIES)
    def set_priority(self, which: int, priority: int) -> None:
        number = self.pick(list(self.model.jobs), which)
        changed = self.run(self.connection.fetchval(store.PATCH, number, priority, 9 - priority)) is not None
        row = self.model.jobs[number]
        assert changed == (row.status in ("scheduled", "pending"))
        if changed:
            row.priority, row.tier = priority, 9 - priority
            row.turn = self.model.take(row.tier, row.owner)

    # --- workers ---

    @rule()
    def register(self) -> None:
        number = self.run(claims.register(self.connection, "w", 1000.0, 1, "h", 1, "0"))
        self.model.workers[number] = "active"

    @precondition(lambda self: self.model.workers)
    @rule(which=ANY, count=st.integers(0, 5))
    def claim(self, which: int, count: int) -> None:
        worker = self.pick(list(self.model.workers), which)
        found = self.run(claims.turn(self.connection, worker, [], count, "test"))
        expected = self.model.waiting()[:count] if self.model.workers[worker] == "active" else []
        assert [job.id for job in found.claimed] == expected
        self.note_claims(worker, found.claimed)

    @precondition(lambda self: self.claims)
    @rule(which=st.lists(ANY, min_size=1, max_size=3), ending=ENDINGS, count=st.integers(0, 2))
    def end_and_claim(self, which: list[int], ending: Ending, count: int) -> None:
        """Also claims that were lost long ago; the same claim once a statement."""
        mine = {job.id: job for job in (self.claims[n % len(self.claims)] for n in which)}
        worker = self.pick(list(self.model.workers), which[0])
        rows = [settled(job, ending, LADDER, 0.0) for job in mine.values()]
        found = self.run(claims.turn(self.connection, worker, rows, count, "test"))
        held = {job.id for job in mine.values() if self.model.holds(job)}
        assert found.ended == held
        expected = self.model.waiting()[:count] if self.model.workers[worker] == "active" else []
        for row in rows:
            if row.job in held:
                self.model.end(row.job, row.status, row.failures, row.afresh)
        assert [job.id for job in found.claimed] == expected
        self.note_claims(worker, found.claimed)

    @precondition(lambda self: self.claims)
    @rule(which=ANY, count=st.integers(0, 3))
    def store_page(self, which: int, count: int) -> None:
        job = self.claims[which % len(self.claims)]
        members = tuple(Member(None, f"{job.id}-{job.pages}-{n}@x") for n in range(count))
        cursor = f"c{job.pages + 1}"
        after = self.run(claims.save_page(self.connection, job, Page(members, cursor, True)))
        row = self.model.jobs[job.id]
        ours = self.model.holds(job) and row.pages == job.pages
        assert (after is not None) == ours
        if after is not None:
            before = row.seen if row.cursor is not None else 0
            row.cursor = cursor if members else row.cursor
            row.pages, row.seen, row.retries = row.pages + 1, before + count, 0
            self.claims.append(after)

    @precondition(lambda self: self.model.workers)
    @rule(which=ANY, knows=st.booleans())
    def let_go(self, which: int, knows: bool) -> None:
        worker = self.pick(list(self.model.workers), which)
        held = [n for n in self.model.with_status("processing") if self.model.jobs[n].worker == worker]
        known = held[:1] if knows else []
        assert self.run(claims.reconcile(self.connection, worker, known)) == len(held) - len(known)
        for number in held[len(known) :]:
            self.model.jobs[number].status, self.model.jobs[number].worker = "pending", None

    @precondition(lambda self: self.model.workers)
    @rule(which=ANY)
    def leave(self, which: int) -> None:
        worker = self.pick(list(self.model.workers), which)
        self.run(claims.leave(self.connection, worker, 0, 0))
        for number in self.model.with_status("processing"):
            if self.model.jobs[number].worker == worker:
                self.model.jobs[number].status, self.model.jobs[number].worker = "pending", None
        if self.model.workers[worker] == "active":
            self.model.workers[worker] = "stopped"

    @precondition(lambda self: self.model.workers)
    @rule(which=ANY)
    def die(self, which: int) -> None:
        worker = self.pick(list(self.model.workers), which)
        self.tell("update imports.batch_processing_workers set lease_until = 'epoch' where id = $1", worker)
        buried = [number for number, _ in self.run(claims.bury(self.connection))]
        assert buried == ([worker] if self.model.workers[worker] == "active" else [])
        if buried:
            self.model.workers[worker] = "dead"
        assert self.run(claims.beat(self.connection, worker, 1.0, None, 0, 0)) is False

    # --- housekeeping ---

    @rule()
    def rescue(self) -> None:
        found = self.run(claims.orphans(self.connection, 100))
        expected = [
            number
            for number in self.model.with_status("processing")
            if self.model.workers[self.model.jobs[number].worker or 0] != "active"
        ]
        assert sorted(job.id for job in found) == sorted(expected)
        rows = [rescued(job, LADDER, 0.0) for job in found]
        self.run(claims.turn(self.connection, 0, rows, 0, "test"))
        for row in rows:
            self.model.end(row.job, row.status, row.failures)

    @precondition(lambda self: self.model.with_status("scheduled"))
    @rule(which=ANY)
    def time_passes(self, which: int) -> None:
        number = self.pick(self.model.with_status("scheduled"), which)
        self.tell("update imports.batch_processing_queue set next_attempt_at = 'epoch' where id = $1", number)
        self.model.jobs[number].due = True

    @rule()
    def promote(self) -> None:
        due = [number for number in self.model.with_status("scheduled") if self.model.jobs[number].due]
        assert self.run(claims.promote(self.connection, 100)) == len(due)
        for number in sorted(due):
            row = self.model.jobs[number]
            row.status, row.due, row.turn = "pending", False, self.model.take(row.tier, row.owner)

    @precondition(lambda self: self.model.with_status("pending"))
    @rule(which=ANY)
    def age(self, which: int) -> None:
        number = self.pick(self.model.with_status("pending"), which)
        self.tell("update imports.batch_processing_queue set waiting_since = 'epoch' where id = $1", number)
        row, turns = self.model.jobs[number], self.model.turns
        assert self.run(claims.age(self.connection, 1000.0, 100)) == (row.tier > 0)
        self.tell("update imports.batch_processing_queue set waiting_since = now() where id = $1", number)
        if row.tier > 0:
            row.turn = turns[row.tier - 1] + max(0, row.turn - turns[row.tier])
            row.tier -= 1

    @rule()
    def advance(self) -> None:
        self.run(claims.advance(self.connection))
        for tier in range(10):
            waiting = [row.turn for row in self.model.jobs.values() if (row.status, row.tier) == ("pending", tier)]
            last = [turn for (of, _), turn in self.model.places.items() if of == tier]
            now = min(waiting) if waiting else max(last) + 1 if last else 0
            self.model.turns[tier] = max(self.model.turns[tier], now)
        passed = [key for key, turn in self.model.places.items() if turn < self.model.turns[key[0]]]
        for key in passed:
            del self.model.places[key]

    # --- what always holds ---

    def note_claims(self, worker: int, found: tuple[Job, ...]) -> None:
        for job in found:
            row = self.model.jobs[job.id]
            row.status, row.worker, row.lease = "processing", worker, row.lease + 1
            assert (job.lease, job.retry_count, job.cursor, job.seen) == (row.lease, row.retries, row.cursor, row.seen)
            self.claims.append(replace(job))

    @invariant()
    def the_tables_are_the_model(self) -> None:
        rows = self.run(self.connection.fetch("select * from imports.batch_processing_queue order by id"))
        stored = {
            r["id"]: (
                r["status"],
                r["priority"],
                r["tier"],
                r["turn"],
                r["retry_count"],
                r["lease"],
                r["worker_id"],
                r["seen"],
            )
            for r in rows
        }
        assert stored == {
            n: (m.status, m.priority, m.tier, m.turn, m.retries, m.lease, m.worker, m.seen)
            for n, m in self.model.jobs.items()
        }
        sums = self.run(
            self.connection.fetchrow(
                "select coalesce(sum(completed), 0) c, coalesce(sum(failed), 0) f, coalesce(sum(members), 0) m "
                "from imports.stats_shard"
            )
        )
        assert sums is not None
        assert tuple(map(int, sums)) == (self.model.completed, self.model.failed, self.model.members)


def test_whatever_workers_owners_and_housekeeping_do_the_tables_are_what_the_model_says(dsn: str) -> None:
    loop = asyncio.new_event_loop()
    machine = type("Bound", (Machine,), {"dsn": dsn, "loop": loop})
    try:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=HISTORIES,
                stateful_step_count=30,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                print_blob=True,
            ),
        )
    finally:
        loop.close()
