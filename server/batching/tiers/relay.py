"""What is told of runs to those who follow the topic `tiers` (../relay.py)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from server.batching.relay import Said
from server.batching.tiers import runs
from server.batching.tiers.runs import RunView
from server.batching.tiers.store import TOPIC, serving
from server.edge.postgres import Database
from server.errors import Refused


class Runs:
    """The runs, as a relay tells of them."""

    named = "runs"

    def __init__(self, db: Database) -> None:
        self._db = db

    def followed(self, id: int, topics: Collection[str]) -> bool:
        """All have one topic."""
        return TOPIC in topics

    async def unseen(self, topics: Collection[str]) -> Iterable[int]:
        """The newest run does for all."""
        async with serving(self._db) as connection:
            return [run.id for run in await runs.listed(connection, limit=1)]

    async def read(self, ids: Sequence[int]) -> Sequence[Said]:
        """Progress; nothing of those that were old, and are gone."""
        found = []
        async with serving(self._db) as connection:
            for run in ids:
                try:
                    found.append(await runs.show(connection, run))
                except Refused:
                    continue
        return [Said(run.id, ((TOPIC, said_of(run)),)) for run in found]


def said_of(run: RunView) -> dict[str, object]:
    """The message `progress` of a run."""
    rate = run.people_per_s or 0.0
    left = max(0, run.total - run.handled)
    running = run.status == "running"
    return {
        "type": "progress",
        "topic": TOPIC,
        "run": run.id,
        "kind": run.kind,
        "tier": run.tier,
        "month": run.month,
        "person": run.person,
        "status": run.status,
        "total": run.total,
        "taken": run.handled,
        "done": run.done,
        "unchanged": run.unchanged,
        "failed": run.failed,
        "skipped": run.skipped,
        "slots": run.slots,
        "percent": percent(run),
        "rate": round(rate, 1),
        "etaMs": round(left / rate * 1000) if running and rate else None,
    }


def percent(run: RunView) -> float:
    """How far it is; a run without anybody is done when it has ended."""
    if not run.total:
        return 100.0 if run.status == "done" else 0.0
    return round(min(100.0, 100 * run.handled / run.total), 1)
