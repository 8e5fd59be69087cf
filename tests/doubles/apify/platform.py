"""What the provider keeps: actors, runs, datasets, schedules. No HTTP, no waiting: that is for http.py and sending.py."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import random
import string
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cronsim import CronSim, CronSimError

Item = dict[str, Any]
Produce = Callable[[Mapping[str, Any]], list[Item]]
"""An actor: its input, and the items that it finds."""

EVENTS = {
    "SUCCEEDED": "ACTOR.RUN.SUCCEEDED",
    "FAILED": "ACTOR.RUN.FAILED",
    "ABORTED": "ACTOR.RUN.ABORTED",
    "TIMED-OUT": "ACTOR.RUN.TIMED_OUT",
}
SCHEDULES_MOST = 100
ALPHABET = string.ascii_letters + string.digits


@dataclass(frozen=True)
class Outcome:
    """How a run ends: with what status, after how long, with which share of its items."""

    status: str = "SUCCEEDED"
    after_s: float | None = None
    """None: after the provider's usual time."""
    share: float = 1.0
    expired: bool = False
    """The dataset is gone when somebody asks for it."""
    message: str | None = None


@dataclass
class Run:
    """One run, its input and its items."""

    id: str
    actor: str
    actor_id: str
    input: Any
    started: dt.datetime
    outcome: Outcome
    options: dict[str, Any]
    webhooks: list[dict[str, Any]]
    origin: str = "API"
    schedule_id: str | None = None
    status: str = "RUNNING"
    finished: dt.datetime | None = None
    items: list[Item] = field(default_factory=list)
    expired: bool = False
    sent: int = 0
    """Webhooks that were taken by who was told."""

    @property
    def dataset_id(self) -> str:
        return f"ds{self.id}"

    @property
    def store_id(self) -> str:
        return f"kv{self.id}"

    def told(self) -> dict[str, Any]:
        """As the API tells of it."""
        return {
            "id": self.id,
            "actId": self.actor_id,
            "userId": "user1",
            "startedAt": iso(self.started),
            "finishedAt": None if self.finished is None else iso(self.finished),
            "status": self.status,
            "statusMessage": self.outcome.message if self.finished else None,
            "meta": {"origin": self.origin, **({"scheduleId": self.schedule_id} if self.schedule_id else {})},
            "stats": {"inputBodyLen": len(json.dumps(self.input)), "restartCount": 0, "computeUnits": 0.01},
            "options": {
                "build": "latest",
                "timeoutSecs": 3600,
                "memoryMbytes": 1024,
                "diskMbytes": 2048,
                **self.options,
            },
            "buildId": "build1",
            "buildNumber": "0.0.1",
            "exitCode": {"SUCCEEDED": 0, "FAILED": 1}.get(self.status),
            "usageTotalUsd": round(0.001 + 0.0005 * len(self.items), 4),
            "defaultKeyValueStoreId": self.store_id,
            "defaultDatasetId": self.dataset_id,
            "defaultRequestQueueId": f"rq{self.id}",
        }


class Refusal(Exception):
    """What the API answers instead: status, type and message."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status, self.kind, self.message = status, kind, message


class Platform:
    """One account of the provider."""

    def __init__(self, actors: Mapping[str, Produce], *, seed: int = 1, concurrent: int = 1_000) -> None:
        self.actors = dict(actors)
        self.runs: dict[str, Run] = {}
        self.schedules: dict[str, dict[str, Any]] = {}
        self.outcomes: deque[Outcome] = deque()
        """For the next runs, one each; then `usual`."""
        self.usual = Outcome()
        self.concurrent = concurrent
        self.peak = 0
        """The most runs that there were at a time."""
        self.hooks: set[str] = set()
        """Idempotency keys of webhooks that were made."""
        self._dice = random.Random(seed)
        self._numbers = itertools.count(1)

    def new_id(self) -> str:
        return f"{next(self._numbers):05d}" + "".join(self._dice.choices(ALPHABET, k=12))

    # Actors and runs.

    def actor(self, name: str) -> tuple[str, str]:
        """Name and id of an actor, by either; `user~name` is `user/name`."""
        plain = name.replace("~", "/")
        for known in self.actors:
            if plain in (known, actor_id(known)):
                return known, actor_id(known)
        raise Refusal(404, "record-not-found", "Actor was not found")

    def active(self) -> list[Run]:
        return [run for run in self.runs.values() if run.finished is None]

    def start(
        self,
        name: str,
        run_input: Any,
        options: dict[str, Any],
        webhooks: list[dict[str, Any]],
        *,
        origin: str = "API",
        schedule_id: str | None = None,
    ) -> Run:
        """A new run, which costs money."""
        actor, identity = self.actor(name)
        if len(self.active()) >= self.concurrent:
            raise Refusal(402, "concurrent-runs-limit-exceeded", "You have too many runs at a time")
        outcome = self.outcomes.popleft() if self.outcomes else self.usual
        fresh = [hook for hook in webhooks if self._is_new(hook)]
        run = Run(self.new_id(), actor, identity, run_input, now(), outcome, options, fresh, origin, schedule_id)
        self.runs[run.id] = run
        self.peak = max(self.peak, len(self.active()))
        return run

    def _is_new(self, hook: Mapping[str, Any]) -> bool:
        key = hook.get("idempotencyKey")
        if key is None or key not in self.hooks:
            self.hooks.add(str(key))
            return True
        return False

    def finish(self, run: Run, outcome: Outcome | None = None) -> None:
        """The run ends; its items are found now."""
        if run.finished is not None:
            return
        run.outcome = outcome or run.outcome
        found = self.actors[run.actor](run.input if isinstance(run.input, Mapping) else {})
        share = run.outcome.share if run.outcome.status != "FAILED" or run.outcome.share < 1 else 0.0
        run.items = found[: round(len(found) * share)]
        run.status, run.finished, run.expired = run.outcome.status, now(), run.outcome.expired

    def abort(self, run: Run) -> None:
        self.finish(run, Outcome("ABORTED", share=0.0))

    def run(self, run_id: str) -> Run:
        if run_id not in self.runs:
            raise Refusal(404, "record-not-found", "Actor run was not found")
        return self.runs[run_id]

    def dataset(self, dataset_id: str) -> Run:
        run = self.runs.get(dataset_id.removeprefix("ds"))
        if run is None or run.expired:
            raise Refusal(404, "record-not-found", "Dataset was not found")
        return run

    # Schedules.

    def schedule(self, schedule_id: str) -> dict[str, Any]:
        if schedule_id not in self.schedules:
            raise Refusal(404, "record-not-found", "Schedule was not found")
        return self.schedules[schedule_id]

    def put_schedule(self, schedule_id: str | None, fields: Mapping[str, Any]) -> dict[str, Any]:
        """A new schedule, or new fields of one that there is."""
        name = fields.get("name")
        if any(s["name"] == name and s["id"] != schedule_id for s in self.schedules.values()):
            raise Refusal(409, "schedule-name-not-unique", "There is a schedule of that name")
        if schedule_id is None and len(self.schedules) >= SCHEDULES_MOST:
            raise Refusal(403, "max-schedules-exceeded", f"There are {SCHEDULES_MOST} schedules already")
        before = {} if schedule_id is None else self.schedule(schedule_id)
        made = {**blank(schedule_id or self.new_id(), str(name)), **before, **fields, "modifiedAt": iso(now())}
        made["actions"] = [{"id": "action1", **action} for action in made["actions"]]
        made["nextRunAt"] = iso(next_at(made["cronExpression"], now())) if made["isEnabled"] else None
        self.schedules[made["id"]] = made
        return made

    def fire(self, schedule_id: str) -> list[Run]:
        """What the provider does when a schedule is due."""
        schedule = self.schedule(schedule_id)
        schedule["lastRunAt"] = iso(now())
        schedule["nextRunAt"] = iso(next_at(schedule["cronExpression"], now()))
        started = []
        for action in schedule["actions"]:
            body = json.loads((action.get("runInput") or {}).get("body") or "{}")
            options = action.get("runOptions") or {}
            started.append(
                self.start(action["actorId"], body, options, [], origin="SCHEDULER", schedule_id=schedule_id)
            )
        return started


def actor_id(name: str) -> str:
    """The id of an actor that is known by name: the same in every run of the double."""
    dice = random.Random(name)
    return "".join(dice.choices(ALPHABET, k=17))


def blank(schedule_id: str, name: str) -> dict[str, Any]:
    return {
        "id": schedule_id,
        "userId": "user1",
        "name": name,
        "cronExpression": "@daily",
        "timezone": "UTC",
        "isEnabled": True,
        "isExclusive": True,
        "createdAt": iso(now()),
        "modifiedAt": iso(now()),
        "nextRunAt": None,
        "lastRunAt": None,
        "actions": [],
    }


def next_at(cron: str, after: dt.datetime) -> dt.datetime:
    names = {"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@weekly": "0 0 * * 0"}
    try:
        return next(CronSim(names.get(cron, cron), after))
    except (CronSimError, StopIteration):
        raise Refusal(400, "invalid-cron-expression", f"{cron!r} is not a cron expression") from None


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def iso(time: dt.datetime) -> str:
    return time.astimezone(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
