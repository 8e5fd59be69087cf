"""Progress of import jobs, told to those who follow them.

A worker, in this process or another, says on the bus which jobs have changed. The relay notes those that somebody here
follows (topic `job:ID`, or `imports` for all of them) and reads and tells each at most every TOLD_EVERY_S, the newest state,
so that the last one always comes. What a follower had no room for is told again; a hint that was lost on the bus is made
good by reading all jobs that are followed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import ceil
from typing import Final

from server.batching.imports.claims import TOPIC
from server.batching.imports.store import ACT_AS, SHOW, JobView
from server.batching.loop import Occasion, Turn
from server.edge.bus import Envelope, Lost
from server.edge.clock import Clock
from server.edge.postgres import Database

JOB: Final = "job:"
TOLD_EVERY_S: Final = 0.5
TOLD_MOST: Final = 200
"""Jobs told in one turn; the others follow in the next."""
NOTED_MOST: Final = 10_000
"""Changed jobs that wait to be told; at the bound the others are told when they change again."""

SHOW_MANY: Final = SHOW.replace("where id = $1", "where id = any ($1::bigint[]) order by id")


class Relay:
    """One node's end: `heard` and `lost` are the bus's handlers, `turn` the loop's.

    `topics` are those followed here; `tell` answers whether all followers of the topic had room.
    """

    def __init__(
        self,
        db: Database,
        clock: Clock,
        topics: Callable[[], Iterable[str]],
        tell: Callable[[str, dict[str, object]], bool],
    ) -> None:
        self.woken: Callable[[int], None] = _nothing
        self._db = db
        self._clock = clock
        self._topics = topics
        self._tell = tell
        self._noted: dict[int, None] = {}
        self._told_at: dict[int, float] = {}

    async def heard(self, messages: list[Envelope]) -> None:
        """Note the jobs that somebody follows."""
        followed = set(self._topics())
        for job in (job for message in messages for job in _jobs(message.payload)):
            if TOPIC in followed or topic_of(job) in followed:
                self.note(job)

    async def lost(self, lost: Lost) -> None:
        """Nobody knows what changed: tell all that are followed."""
        for topic in self._topics():
            job = job_of_topic(topic)
            if job is not None:
                self.note(job)

    def note(self, job: int) -> None:
        """The job has changed, or somebody has begun to follow it."""
        if len(self._noted) < NOTED_MOST:
            self._noted[job] = None
            self.woken(0)

    async def turn(self, occasion: Occasion) -> Turn:
        """Tell what is due; wake again for what is not."""
        now = self._clock.monotonic()
        self._told_at = {job: at for job, at in self._told_at.items() if now - at < TOLD_EVERY_S}
        due = [job for job in self._noted if job not in self._told_at][:TOLD_MOST]
        for job in due:
            del self._noted[job]
        again = await self._told(due, now)
        if self._noted:
            next_at = min(self._told_at.get(job, -TOLD_EVERY_S) for job in self._noted) + TOLD_EVERY_S
            self.woken(max(0, ceil((next_at - now) * 1000)))
        return Turn(len(due), len(due) - again, deferred=again)

    async def _told(self, due: list[int], now: float) -> int:
        """How many must be told once more, because somebody had no room."""
        if not due:
            return 0
        try:
            jobs = await self._read(due)
        except BaseException:
            self._noted |= dict.fromkeys(due)
            raise
        again = [job.id for job in jobs if not self._tell_one(job)]
        self._told_at |= dict.fromkeys(due, now)
        self._noted |= dict.fromkeys(again)
        return len(again)

    async def _read(self, ids: list[int]) -> list[JobView]:
        async with self._db.transaction() as connection:
            await connection.execute(ACT_AS, "batchcast_worker", "")
            return [JobView(*row) for row in await connection.fetch(SHOW_MANY, ids)]

    def _tell_one(self, job: JobView) -> bool:
        said = [self._tell(topic, said_of(job, topic)) for topic in (topic_of(job.id), TOPIC)]
        return all(said)


def said_of(job: JobView, topic: str) -> dict[str, object]:
    """The message `progress` of a job."""
    progress = job.progress
    return {
        "type": "progress",
        "topic": topic,
        "job": job.id,
        "status": job.status,
        "percent": progress.percent,
        "rate": round(progress.members_per_s or 0.0, 1),
        "etaMs": eta_ms(job),
        "pages": job.pages,
        "total": job.total,
        "seen": job.seen,
        "imported": job.imported,
        "duplicates": job.duplicates,
        "withoutEmail": job.without_email,
        "rejected": job.rejected,
        "error": job.error,
    }


def eta_ms(job: JobView) -> int | None:
    """Time left; None while it is not known."""
    eta_s = job.progress.eta_s
    return None if eta_s is None else round(eta_s * 1000)


def topic_of(job: int) -> str:
    """The topic of one job."""
    return f"{JOB}{job}"


def job_of_topic(topic: str) -> int | None:
    """The job of a topic `job:ID`; None when it is another kind of topic, or no number that an id could be."""
    text = topic.removeprefix(JOB)
    if text == topic or not (text.isascii() and text.isdecimal() and len(text) <= 18):
        return None
    return int(text)


def _jobs(payload: Mapping[str, object]) -> list[int]:
    jobs = payload.get("jobs")
    return [job for job in jobs if isinstance(job, int)] if isinstance(jobs, list) else []


def _nothing(after_ms: int) -> None:
    """Nobody to wake yet."""
