"""A worker of the queue: one claimer, its lanes, its heartbeat, and the loops that keep the queue in order.

    queue    --TURN: ends claims, counts them, makes new ones-->  waiting  --a lane takes-->  step, step, ...  --> told --.
      ^                                                                                                                |
      '----------------------------------------------------------------------------------------------------------------'

`imports` is the one claimer of a process: a turn hands back what its lanes ended and takes the next jobs, in one statement;
it is woken by lanes that run dry, by NOTIFY, and by its interval. `imports-lane-N` takes a job and does steps of it: one page
a turn, or as many quick jobs as fit into a slice. `imports-due` moves what is due among the waiting, `imports-rescue` returns
the jobs of workers whose lease has ended, `imports-age` lets those that wait grow in priority, `imports-retire` removes what
is old. These four may run anywhere, and at the same time.

What it promises. A job is this worker's while its row says so with the number of this claim; whatever the worker writes
later, and be it frozen for an hour, is refused. An answer that gets lost is doubt, not fact: before the next claim the
worker lets go of what it does not know to be its own, and a lane reads its job again before it goes on. A step that raises
or takes too long is a failure of its job, never of its lane. PostgreSQL away is nobody's failure: lanes wait and go on. On
stop the pages under way are stored, and what is not finished goes back without having cost a retry.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import structlog

from server.batching.imports import claims
from server.batching.imports.heart import Heart, Pulse
from server.batching.imports.plan import (
    Again,
    Done,
    Ending,
    Job,
    Ladder,
    Lost,
    Onward,
    Released,
    Verdict,
    rescued,
    settled,
    wanted,
)
from server.batching.imports.retiring import retire
from server.batching.loop import Loop, Occasion, Turn, TurnRecord
from server.batching.panel import Panel
from server.core.lease import look_every_s
from server.edge.bus import HINT, Bus
from server.edge.clock import Clock
from server.edge.line import Line
from server.edge.logs import redacted
from server.edge.postgres import Connection, Database
from server.errors import Unavailable

SLICE_S: Final = 0.008
"""Quick jobs share the event loop with everybody else: a lane's turn ends after this."""
STEP_LIMIT_S: Final = 600.0
"""A step that takes longer has failed."""
TOLD_MOST: Final = 500
"""Claims ended by one statement; the rest follows in the next."""
STUCK_S: Final = 1.0
"""Jobs claimed ahead go back when all lanes have been busy for so long: another worker may have one free."""
HINT_GAP_MS: Final = 100
"""Who listens on the bus is woken by endings at most so often: that costs both sides more than writing down ten of them."""
TEND_SLICE: Final = 1_000
TEND_MS: Final = 1_000
AGE_MS: Final = 30_000
RETIRE_MS: Final = 600_000
DAY_S: Final = 86_400.0

Work: TypeAlias = Callable[[Job], Awaitable[Verdict]]
Record: TypeAlias = Callable[[TurnRecord], None]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Terms:
    """How a worker works; see the settings IMPORTS_*."""

    lanes: int = 4
    lease_s: float = 30.0
    claim_most: int = 100
    poll_ms: int = 1_000
    age_s: float = 300.0
    ladder: Ladder = field(default_factory=Ladder)
    keep_jobs_s: float = 30 * DAY_S
    keep_workers_s: float = DAY_S
    keep_stats_s: float = 400 * DAY_S
    folder: str | None = None
    """The id of the folder of files that this worker reads."""


class Lane:
    """One worker slot: the job it is at, and its turns."""

    def __init__(self, queue: Queue, work: Work) -> None:
        self.job: Job | None = None
        self._queue = queue
        self._work = work
        self._doubt = False

    async def turn(self, occasion: Occasion) -> Turn:
        """One page of a job, or as many quick jobs as fit into a slice."""
        begun = self.job is not None
        try:
            async with asyncio.timeout(STEP_LIMIT_S):
                done, failed = await self._steps()
        except TimeoutError:
            job, self.job = self.job, None
            assert job is not None, "a turn that took too long was at a job"
            self._queue.tell(job, Again(f"the step took longer than {STEP_LIMIT_S:.0f} s"))
            done, failed = 0, 1
        if begun or done + failed:
            self._queue.nudge()
        more = self.job is not None or self._queue.has_waiting
        return Turn(done + failed, done, failed, more=more)

    async def _steps(self) -> tuple[int, int]:
        now = began = self._queue.clock.monotonic()
        done = failed = 0
        while await self._has_job() if self._doubt else self._takes(now):
            if not done + failed:
                self._queue.wake_others()
            ended_well = await self._step()
            done, failed = done + ended_well, failed + (not ended_well)
            now = self._queue.clock.monotonic()
            if now - began >= SLICE_S:
                break
        return done, failed

    async def _has_job(self) -> bool:
        if self.job is not None:
            self.job = await self._queue.reread(self.job)
        self._doubt = False
        return self._takes(self._queue.clock.monotonic())

    def _takes(self, now: float) -> bool:
        if self.job is None or not self._queue.holds(self.job):
            self.job = self._queue.take(now)
        return self.job is not None

    async def _step(self) -> bool:
        job, self._doubt = self.job, True
        assert job is not None
        verdict = await self._attempt(job)
        self._doubt = False
        if isinstance(verdict, Onward):
            self.job = verdict.job
            return True
        self.job = None
        if isinstance(verdict, Lost):
            self._queue.forget(job)
            return False
        self._queue.tell(job, verdict)
        return isinstance(verdict, (Done, Released))

    async def _attempt(self, job: Job) -> Verdict:
        try:
            return await self._work(job)
        except Unavailable:
            raise  # PostgreSQL is away: the turn fails, the job stays, and is read again before the next step.
        except Exception as error:
            log.warning("job step failed", job=job.id, exc_info=error)
            return Again(redacted(f"{type(error).__name__}: {error}"))


class Queue:
    """The worker of this process. Loops run it; `stop` of the panel drains it; `close` ends what is left."""

    def __init__(
        self, db: Database, bus: Bus, clock: Clock, panel: Panel, record: Record, work: Work, terms: Terms, version: str
    ) -> None:
        self.clock = clock
        self.pulse = Pulse()
        self._db = db
        self._bus = bus
        self._panel = panel
        self._terms = terms
        self._version = version
        self._line = Line(db, self._prepare, self._poked)
        self._worker: int | None = None
        self._heart: Heart | None = None
        self._doubt = False
        self._held: dict[int, int] = {}
        self._waiting: deque[Job] = deque()
        self._told: dict[int, tuple[Job, Ending]] = {}
        self._ended_since = 0
        self._unheard, self._hinted_at = False, -1.0
        self._turned_at = self._taken_at = clock.monotonic()
        self._lanes = [Lane(self, work) for _ in range(terms.lanes)]
        self._add_loops(record)

    def _add_loops(self, record: Record) -> None:
        def add(name: str, turn: Callable[[Occasion], Awaitable[Turn]], interval_ms: int | None, **how: bool) -> Loop:
            loop = Loop(name, turn, clock=self.clock, record=record, interval_ms=interval_ms)
            return self._panel.add(loop, fold=True, **how)

        # Stopped in reverse: the lanes end their pages, then the claimer's last turn hands everything back.
        self._claimer = add("imports", self._turn, self._terms.poll_ms, last_turn=True)
        self._due = add("imports-due", self._tend, TEND_MS)
        add("imports-rescue", self._rescue, round(look_every_s(self._terms.lease_s) * 1000))
        add("imports-age", self._age, AGE_MS)
        add("imports-retire", self._retire, RETIRE_MS)
        self._lane_loops = [add(f"imports-lane-{n}", lane.turn, None) for n, lane in enumerate(self._lanes, 1)]
        self._claimer.wake()

    @property
    def worker(self) -> int | None:
        """This worker's number in batch_processing_workers; None while it has none."""
        return self._worker

    @property
    def has_waiting(self) -> bool:
        """Whether claimed jobs wait for a lane."""
        return bool(self._waiting)

    # What lanes ask and say. All of it is memory.

    def take(self, now: float) -> Job | None:
        """The next claimed job."""
        if not self._waiting:
            return None
        self._taken_at = now
        job = self._waiting.popleft()
        self.pulse.job = job.id
        return job

    def holds(self, job: Job) -> bool:
        """Whether, as far as is known here, the job is still this worker's."""
        return self._held.get(job.id) == job.lease

    def tell(self, job: Job, ending: Ending) -> None:
        """A claim has ended like this; the next turn of the claimer writes it down."""
        if self.holds(job):
            self._told[job.id] = (job, ending)
            self._ended_since += 1
            self.pulse.jobs += 1
            self.pulse.members += ending.seen if isinstance(ending, Done) else 0
            if self.pulse.job == job.id:
                self.pulse.job = None

    def forget(self, job: Job) -> None:
        """The job has gone to somebody else."""
        log.info("claim lost", job=job.id, lease=job.lease)
        if self.holds(job):
            del self._held[job.id]

    def nudge(self) -> None:
        """A lane's turn has ended: there may be something to hand back, or room."""
        if self._told or not self._waiting:
            self._claimer.wake()

    async def reread(self, job: Job) -> Job | None:
        """What is stored of a job, when it is not known whether the last step was."""
        async with self.acting() as connection:
            found = await claims.again(connection, job)
        if found is None:
            self.forget(job)
        return found

    @asynccontextmanager
    async def acting(self) -> AsyncIterator[Connection]:
        """A transaction under the workers' role."""
        async with self._db.transaction() as connection:
            await connection.execute(claims.ACT)
            yield connection

    # The claimer.

    async def _turn(self, occasion: Occasion) -> Turn:
        if occasion.trigger == "shutdown":
            return await self._leave()
        self._hand_back_stuck()
        told = list(self._told.values())[:TOLD_MOST]
        want = self._wanted()
        if not told and not want:
            await self._hint()
            return Turn()
        worker = await self._registered()
        claimed = await self._exchange(worker, told, want)
        self._wake_one()
        await self._hint()
        more = bool(self._told) or (claimed == want > 0 and self._wanted() > 0)
        return Turn(len(told) + claimed, len(told) + claimed, more=more)

    def wake_others(self) -> None:
        """A lane begins: should it have to wait while jobs do, the next one is woken, which wakes the next. Quick jobs are
        done before that comes to pass, and cost no other lane a turn."""
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._wake_one)

    def _wake_one(self) -> None:
        if not self._waiting:
            return
        for lane, loop in zip(self._lanes, self._lane_loops, strict=True):
            if lane.job is None:
                loop.wake()
                return

    def _hand_back_stuck(self) -> None:
        if self._waiting and self.clock.monotonic() - self._taken_at > STUCK_S:
            for job in self._waiting:
                self._told[job.id] = (job, Released())
            self._waiting.clear()

    def _wanted(self) -> int:
        now = self.clock.monotonic()
        rate = self._ended_since / max(now - self._turned_at, 0.001)
        idle = sum(lane.job is None for lane in self._lanes)
        return wanted(idle, len(self._waiting), rate, self._terms.claim_most)

    async def _registered(self) -> int:
        """This worker's number. A worker that was declared dead, or is new, gets one, with a heart of its own."""
        if self._worker is None:
            terms = self._terms
            host, pid = socket.gethostname(), os.getpid()
            async with self._line.use() as connection:
                self._worker = await claims.register(
                    connection, f"{host}-{pid}", terms.lease_s, terms.lanes, host, pid, self._version, terms.folder
                )
            self._heart = Heart(self._db.dsn, self._worker, terms.lease_s, self.pulse, self._lost)
            self._heart.start()
            log.info("worker registered", worker=self._worker, lanes=terms.lanes)
        return self._worker

    async def _exchange(self, worker: int, told: list[tuple[Job, Ending]], want: int) -> int:
        done = [job for job, ending in told if isinstance(ending, Done)]
        rest = ((job, ending) for job, ending in told if not isinstance(ending, Done))
        rows = [settled(job, ending, self._terms.ladder, self.clock.random()) for job, ending in rest]
        self._doubt, doubted = True, self._doubt
        async with self._line.use() as connection:
            if doubted:
                await claims.reconcile(connection, worker, list(self._held))
            hint = self._rested()
            harvested = await claims.turn(connection, worker, rows, want, self._bus.node, done, hint)
        self._doubt = False
        if harvested.ended:
            self._heard(hint)
        self._settle(told, harvested)
        return len(harvested.claimed)

    def _rested(self) -> bool:
        return self.clock.monotonic() - self._hinted_at >= HINT_GAP_MS / 1000

    def _heard(self, hint: bool) -> None:
        self._unheard = not hint
        self._hinted_at = self.clock.monotonic() if hint else self._hinted_at

    async def _hint(self) -> None:
        """Wake who listens, for all that was told without."""
        if self._unheard and self._rested():
            async with self._line.use() as connection:
                await connection.execute(HINT)
            self._heard(True)
        elif self._unheard:
            self._claimer.wake(HINT_GAP_MS)

    def _settle(self, told: list[tuple[Job, Ending]], harvested: claims.Harvested) -> None:
        for job, _ in told:
            if job.id not in harvested.ended:
                log.info("claim lost", job=job.id, lease=job.lease)
            self._told.pop(job.id, None)
            self._held.pop(job.id, None)
        for job in harvested.claimed:
            self._held[job.id] = job.lease
            self._waiting.append(job)
        if harvested.claimed:
            self._taken_at = self.clock.monotonic()
        self._ended_since, self._turned_at = 0, self.clock.monotonic()

    def _lost(self) -> None:
        """Declared dead: everything that was held is somebody else's. The next turn registers anew."""
        self._worker = None
        self._held.clear()
        self._waiting.clear()
        self._told.clear()
        self._claimer.wake()

    async def _leave(self) -> Turn:
        """The last turn: what has ended is written, the rest goes back, the heart stops."""
        told = list(self._told.values())
        if self._worker is not None:
            self._hinted_at = -1.0
            await self._exchange(self._worker, told, 0)
            await self._hint()
            async with self._line.use() as connection:
                await claims.leave(connection, self._worker, self.pulse.jobs, self.pulse.members)
        await self.close()
        return Turn(len(told), len(told))

    async def close(self) -> None:
        """End the heart and the line. What the database still says is held goes back when the lease ends."""
        heart, self._heart = self._heart, None
        if heart is not None:
            await asyncio.to_thread(heart.stop)
        self._line.cut()

    async def _prepare(self, connection: Connection) -> None:
        await connection.execute(claims.PREPARE)
        await connection.add_listener(claims.CHANNEL, self._poked)

    def _poked(self, *_: object) -> None:
        self._claimer.wake()

    # What keeps the queue in order.

    async def _tend(self, occasion: Occasion) -> Turn:
        async with self.acting() as connection:
            moved = await claims.promote(connection, TEND_SLICE)
            await claims.advance(connection)
            due_s = await claims.next_due_s(connection)
        if due_s is not None and due_s * 1000 < TEND_MS:
            self._due.wake(max(1, round(due_s * 1000)))
        return Turn(moved, moved, more=moved == TEND_SLICE)

    async def _rescue(self, occasion: Occasion) -> Turn:
        async with self.acting() as connection:
            for worker, name in await claims.bury(connection):
                log.warning("worker died", worker=worker, name=name)
            found = await claims.orphans(connection, TOLD_MOST)
            rows = [rescued(job, self._terms.ladder, self.clock.random()) for job in found]
            if rows:
                await connection.execute(claims.WAKE)
                await claims.turn(connection, 0, rows, 0, self._bus.node)
                log.info("jobs rescued", jobs=len(rows), failed=sum(row.status == "failed" for row in rows))
        return Turn(len(found), len(found), more=len(found) == TOLD_MOST)

    async def _age(self, occasion: Occasion) -> Turn:
        async with self.acting() as connection:
            moved = await claims.age(connection, self._terms.age_s, TEND_SLICE)
        return Turn(moved, moved, more=moved == TEND_SLICE)

    async def _retire(self, occasion: Occasion) -> Turn:
        terms = self._terms
        async with self.acting() as connection:
            ages = (terms.keep_jobs_s, terms.keep_workers_s, terms.keep_stats_s)
            removed, more = await retire(connection, *ages, TEND_SLICE)
        return Turn(removed, removed, more=more)
