"""Who leads: at most one node at a time, and what the others wrote meanwhile cannot be undone by one that led before.

A leader holds two things: an advisory lock, which PostgreSQL frees the moment its session ends, and a row of ops.lease,
which runs out by the database's clock. Neither is enough. The lock alone would never be let go by a leader that hangs
(its socket stays open); the row alone would not say which session to end.

              step: free or run out, the lock taken              step in time: renewed
    follower ------------------------------------------> leader <---------------------.
        ^                                                  | |                         |
        |   another took the row; resign                   | '-------------------------'
        '--------------------------------------------------'

What it promises:
- The TERM grows with each change of the leader and is the fencing number. `fenced`, called in a transaction before it
  writes, raises NotLeader unless that term still holds, and keeps it from changing before the transaction ends. So
  what one term writes is never mixed with what a later term wrote, whatever stopped, slept or lost its network.
- `leads()` asks nobody: it is false as soon as the lease may have run out, counted on the MONOTONIC clock from before
  the last successful renewal was sent. PostgreSQL counts from when it came in, which is later: a leader stops believing
  before anybody else may begin. A process that was stopped for an hour knows it with its first instruction. (On a machine
  that was suspended as a whole that clock may have stood still. Then only the fence protects, and it does.)
- A leader that dies is replaced when its lease has run out, at the next turn of a follower: in lease_s x 4/3 at the
  latest when `step` is called each lease_s / 3. One that resigns is replaced at the next turn. A node that starts again
  under its old name need not wait for its own lease, as the lock is free.
- A leader that hangs is thrown out: who finds the row run out ends the sessions that could hold up the change, the one
  with the lock and those with a fenced transaction, and no others.

The fence holds the row FOR KEY SHARE, not FOR SHARE: a renewal changes no key and passes through, so that a long
transaction of the leader cannot make its own lease run out; a change of the term must wait for it (schema, ops.lease).
A row lock does not say whose it is, therefore each fenced transaction also holds a shared advisory lock that nobody ever
waits for: that is how a hung one is found.

A turn that reads before it writes should note `term` when it starts and hand it to `fenced`: without it a node that lost
and regained the lead in between would pass with what it read in the earlier term.
Leaves to others: when `step` is called (a Loop), and to wake the leader's loops when `term` has changed.
"""

import asyncio
import zlib
from dataclasses import dataclass

import asyncpg
import structlog

from server.edge.clock import Clock
from server.edge.line import Line
from server.edge.postgres import Connection, Database
from server.errors import Refused, Unavailable

# With a turn each third of it a leader survives one lost renewal, and a dead or hung one is replaced within about 8 s.
LEASE_S = 6.0
TURNS_A_LEASE = 3
# Advisory locks of ours are pairs of numbers: one of these and the checksum of the lease's name.
LOCK = 0x6263_0001
FENCE = 0x6263_0002

# Without a target, because the table has two unique keys and a conflict may show in either.
SEED = """
insert into ops.lease (name, term, renewed_at, expires_at) values ($1, 0, clock_timestamp(), clock_timestamp())
on conflict do nothing
"""
LOOK = "select holder, term, expires_at <= clock_timestamp() as expired from ops.lease where name = $1"
RENEW = """
update ops.lease set renewed_at = clock_timestamp(), expires_at = clock_timestamp() + make_interval(secs => $4)
where name = $1 and holder = $2 and term = $3
returning term
"""
# The session with the lock is ended only when it was silent for a whole lease, which spares a contender in the middle of
# its turn. Fenced transactions are all of the term that ran out.
EVICT = """
select count(pg_terminate_backend(held.pid, $5))
from ops.lease
join pg_locks held on held.locktype = 'advisory' and held.granted and held.objsubid = 2 and held.objid = $4::int::oid
    and held.database = (select oid from pg_database where datname = current_database())
    and held.pid <> pg_backend_pid()
join pg_stat_activity session on session.pid = held.pid
where lease.name = $1 and lease.expires_at <= clock_timestamp()
    and (held.classid = $3::int::oid or held.classid = $2::int::oid
        and session.query_start + make_interval(secs => $6) <= clock_timestamp())
"""
TRY_LOCK = "select pg_try_advisory_lock($1::int, $2::int)"
# Called only with the lock in hand, so a row with our own name is a former session of ours that has ended.
TAKE = """
update ops.lease set holder = $2, term = term + 1,
    renewed_at = clock_timestamp(), expires_at = clock_timestamp() + make_interval(secs => $3)
where name = $1 and (holder is null or holder = $2 or expires_at <= clock_timestamp())
returning term
"""
RESIGN = """
update ops.lease set holder = null where name = $1 and holder = $2 and term = $3
returning pg_advisory_unlock($4::int, $5::int)
"""
HOLD = """
select holder, term, pg_advisory_xact_lock_shared($2::int, $3::int) from ops.lease where name = $1 for key share
"""

log = structlog.get_logger()


class NotLeader(Refused):
    """Only the leader may do this, and this node is it no more, or not in the term in which the work began."""

    def __init__(self, name: str, node: str, leader: str | None) -> None:
        led = "nobody is known to lead" if leader in (None, node) else f"{leader} leads"
        super().__init__("unavailable", f"{node} does not lead {name} (now: {led}); nothing was written")
        self.leader = leader


@dataclass(frozen=True, slots=True)
class Lease:
    """The row as a contender sees it."""

    holder: str | None
    term: int
    expired: bool

    def open_to(self, node: str) -> bool:
        """Whether this node may try: nobody has it, it has run out, or its own former session left it."""
        return self.expired or self.holder in (None, node)


class Leadership:
    """This node's part in the election of one leader."""

    def __init__(self, db: Database, clock: Clock, *, node: str, name: str = "main", lease_s: float = LEASE_S) -> None:
        self.node = node
        self.name = name
        self.lease_s = lease_s
        self._clock = clock
        self._line = Line(db, self._prepare)
        self._key = zlib.crc32(name.encode()) & 0x7FFF_FFFF
        self._one_turn = asyncio.Lock()
        self._resigned = False
        self._seen: str | None = None
        self._term: int | None = None
        self._until_s = 0.0
        self._locked: Connection | None = None

    @property
    def interval_s(self) -> float:
        """How often `step` wants to be called."""
        return self.lease_s / TURNS_A_LEASE

    @property
    def term(self) -> int | None:
        """The fencing number; None: not the leader."""
        return self._term if self.leads() else None

    def leads(self) -> bool:
        """Whether this node leads for certain, at this moment."""
        return self._term is not None and not self._resigned and self._clock.monotonic() < self._until_s

    def leader(self) -> str | None:
        """Who leads, as of the last turn; None when nobody is known to."""
        if self.leads():
            return self.node
        return None if self._seen == self.node else self._seen

    async def step(self) -> bool:
        """One turn: renew, or look whether the lead is to be had. Answers `leads()`; Unavailable without PostgreSQL."""
        async with self._one_turn:
            if not self._resigned:
                async with self._line.use() as connection:
                    await self._renew_or_contend(connection)
        return self.leads()

    async def fenced(self, connection: Connection, term: int | None = None) -> int:
        """Hold the lead until the end of this transaction, or raise NotLeader. Without `term`: the present one."""
        assert connection.is_in_transaction(), "a fence outside of a transaction holds nothing"
        mine = self.term if term is None else term
        if mine is None:
            raise NotLeader(self.name, self.node, self.leader())
        row = await connection.fetchrow(HOLD, self.name, FENCE, self._key)
        if row is None or (row["holder"], row["term"]) != (self.node, mine):
            raise NotLeader(self.name, self.node, row["holder"] if row is not None else None)
        return mine

    async def resign(self) -> None:
        """Hand over, for good. When PostgreSQL is away the lease runs out by itself."""
        self._resigned = True
        async with self._one_turn:
            term, self._term = self._term, None
            if term is not None:
                await self._leave(term)
            self._line.cut()

    # The turn's parts. Every state change is one synchronous step after the answer has come.

    async def _prepare(self, connection: Connection) -> None:
        await connection.execute(f"set lock_timeout = '{self._wait_ms()}ms'", timeout=self._answer_s())
        await connection.execute(SEED, self.name, timeout=self._answer_s())

    async def _renew_or_contend(self, connection: Connection) -> None:
        if self._term is not None and connection is self._locked:
            await self._renew(connection, self._term)
        else:
            await self._contend(connection)

    async def _renew(self, connection: Connection, term: int) -> None:
        sent_s = self._clock.monotonic()
        renewed = await connection.fetchval(RENEW, self.name, self.node, term, self.lease_s, timeout=self._answer_s())
        if renewed is None:
            self._lose()
            self._line.cut()
            return
        self._until_s = sent_s + self.lease_s

    async def _contend(self, connection: Connection) -> None:
        lease = await self._look(connection)
        self._seen = lease.holder
        if self._term is not None and (lease.holder, lease.term) != (self.node, self._term):
            self._lose()
        if not lease.open_to(self.node):
            return
        if lease.expired:
            await self._evict(connection, lease)
        await self._take(connection)

    async def _look(self, connection: Connection) -> Lease:
        row = await connection.fetchrow(LOOK, self.name, timeout=self._answer_s())
        assert row is not None, f"the row of the lease {self.name} was removed by hand"
        return Lease(row["holder"], row["term"], row["expired"])

    async def _evict(self, connection: Connection, lease: Lease) -> None:
        ended = await connection.fetchval(
            EVICT, self.name, LOCK, FENCE, self._key, self._wait_ms(), self.lease_s, timeout=self._answer_s()
        )
        if ended:
            log.warning("hung leader evicted", lease=self.name, leader=lease.holder, term=lease.term, sessions=ended)

    async def _take(self, connection: Connection) -> None:
        sent_s = self._clock.monotonic()
        if not await connection.fetchval(TRY_LOCK, LOCK, self._key, timeout=self._answer_s()):
            return
        term = await self._take_row(connection)
        if term is None:
            self._line.cut()  # The lock goes with the session; the next turn tries again.
            return
        assert self._term is None or term > self._term, f"the term fell from {self._term} to {term}"
        self._term, self._until_s = term, sent_s + self.lease_s
        self._locked, self._seen = connection, self.node
        log.info("leadership taken", lease=self.name, node=self.node, term=term)

    async def _take_row(self, connection: Connection) -> int | None:
        """The new term; None when another was faster, or while a fenced transaction of the old term is under way."""
        try:
            term = await connection.fetchval(TAKE, self.name, self.node, self.lease_s, timeout=self._answer_s())
        except asyncpg.LockNotAvailableError:
            return None
        assert term is None or isinstance(term, int)
        return term

    async def _leave(self, term: int) -> None:
        try:
            async with self._line.use() as connection:
                await connection.fetchval(RESIGN, self.name, self.node, term, LOCK, self._key, timeout=self._answer_s())
        except Unavailable as error:
            log.warning("leadership left to run out", lease=self.name, node=self.node, term=term, error=error.message)
        else:
            log.info("leadership resigned", lease=self.name, node=self.node, term=term)

    def _lose(self) -> None:
        log.warning("leadership lost", lease=self.name, node=self.node, term=self._term, leader=self._seen)
        self._term, self._locked = None, None

    def _wait_ms(self) -> int:
        """How long PostgreSQL waits for others (a lock, the end of a session) before it answers."""
        return round(self.interval_s * 1000 / 2)

    def _answer_s(self) -> float:
        """How long an answer is waited for: a renewal sent in time, until the lease that it renews ends. Giving up sooner
        gains nothing, since the session that does not answer may still hold the lock."""
        return self.lease_s - self.interval_s
