"""What is told of import jobs to those who follow them: topic `job:ID`, or `imports` for all of them (../relay.py)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final

from server.batching.imports.claims import TOPIC
from server.batching.imports.store import ACT_AS, SHOW, JobView
from server.batching.relay import Said
from server.edge.postgres import Database

JOB: Final = "job:"
SHOW_MANY: Final = SHOW.replace("where id = $1", "where id = any ($1::bigint[]) order by id")


class Jobs:
    """The jobs, as a relay tells of them: on the topic of each, and on that of all."""

    named = "jobs"

    def __init__(self, db: Database) -> None:
        self._db = db

    def followed(self, id: int, topics: Collection[str]) -> bool:
        """On either topic."""
        return TOPIC in topics or topic_of(id) in topics

    async def unseen(self, topics: Collection[str]) -> Iterable[int]:
        """All that are followed by their number."""
        return [job for job in map(job_of_topic, topics) if job is not None]

    async def read(self, ids: Sequence[int]) -> Sequence[Said]:
        """Progress."""
        async with self._db.transaction() as connection:
            await connection.execute(ACT_AS, "batchcast_worker", "")
            jobs = [JobView(*row) for row in await connection.fetch(SHOW_MANY, ids)]
        return [
            Said(job.id, tuple((topic, said_of(job, topic)) for topic in (topic_of(job.id), TOPIC))) for job in jobs
        ]


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
