"""What every HTTP handler is given, and how a route is declared: once, for the router and for the OpenAPI document alike.

A handler parses, calls one verb and answers. By then the shell (edge/web.py) has looked at the Origin, and the router
(http.py) at the token and the role (access.py): handlers find the caller in `who`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from aiohttp import web

from server.batching.alerts import Alerts
from server.batching.imports.importer import Importer
from server.batching.panel import Panel
from server.batching.schedules.scheduler import Scheduler
from server.batching.scores.feed import Feed
from server.batching.tiers.lookup import Lookup
from server.batching.tiers.tiers import Tiers
from server.batching.tracking.desk import Desk
from server.batching.tracking.tracker import Tracker
from server.core.identity import Identity
from server.edge.auth import Keys
from server.edge.clock import Clock
from server.edge.tasks import Tasks
from server.errors import Code, Refused
from server.handlers.metrics import Metrics
from server.settings import Settings

TRIALS_AT_ONCE: Final = 1
"""What-if questions under way; one more is refused with too_many."""
STREAMS_AT_ONCE: Final = 64
"""Long bodies that are read at the same time; one more is refused with too_many."""

Schema: TypeAlias = Mapping[str, object]
"""A JSON Schema, or `{"$ref": "#/components/schemas/NAME"}`."""


class Places(AbstractContextManager[None]):
    """So many at once; one more is refused, to come again soon."""

    def __init__(self, limit: int, what: str) -> None:
        self._free = limit
        self._limit = limit
        self._what = what

    def __enter__(self) -> None:
        if self._free == 0:
            raise Refused(
                Code.TOO_MANY, f"{self._limit} {self._what} at once are the most; try again", limit=self._limit
            )
        self._free -= 1

    def __exit__(self, *_: object) -> None:
        self._free += 1


@dataclass(frozen=True, slots=True)
class Ports:
    """The verbs behind the HTTP API. `accepting`: both ports accept; `ws_port` is asked, as it may be a free one."""

    settings: Settings
    feed: Feed
    importer: Importer
    schedules: Scheduler
    tiers: Tiers
    lookup: Lookup
    books: Desk
    tracker: Tracker
    panel: Panel
    alerts: Alerts
    keys: Keys
    metrics: Metrics
    clock: Clock
    tasks: Tasks
    accepting: Callable[[], bool]
    ws_port: Callable[[], int]
    exposed: bool
    streams: Places = field(default_factory=lambda: Places(STREAMS_AT_ONCE, "streams"))
    trials: Places = field(default_factory=lambda: Places(TRIALS_AT_ONCE, "what-if"))


Handle: TypeAlias = Callable[[web.Request, Ports, Identity], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Query:
    """One parameter of a URL's query."""

    name: str
    meaning: str
    schema: Schema = field(default_factory=lambda: {"type": "string"})
    many: bool = False


@dataclass(frozen=True, slots=True)
class Content:
    """A body: what it is, by media type."""

    by_type: Mapping[str, Schema]
    meaning: str = ""
    required: bool = True


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path. `refusals` are the statuses of errors beside 401 and 403, which follow from the verb."""

    method: str
    path: str
    handle: Handle
    summary: str
    answer: Content
    query: tuple[Query, ...] = ()
    body: Content | None = None
    refusals: tuple[int, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    pattern: str | None = None
    """What aiohttp matches, where that is more than `path`."""


def of_json(schema: Schema, meaning: str = "") -> Content:
    """A JSON body."""
    return Content({"application/json": schema}, meaning)


def ref(name: str) -> Schema:
    """A schema of the document, by name."""
    return {"$ref": f"#/components/schemas/{name}"}


def object_of(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> Schema:
    """The schema of an object with these fields."""
    return {"type": "object", "properties": {**required, **(optional or {})}, "required": list(required)}


TEXT: Final[Schema] = {"type": "string"}
WHOLE: Final[Schema] = {"type": "integer"}
NUMBER: Final[Schema] = {"type": "number"}
TRUTH: Final[Schema] = {"type": "boolean"}
EPOCH_MS: Final[Schema] = {"type": "integer", "description": "UTC, milliseconds since 1970"}


def list_of(schema: Schema) -> Schema:
    """The schema of a list."""
    return {"type": "array", "items": schema}


def or_null(schema: Schema) -> Schema:
    """The same, or null."""
    return {"anyOf": [schema, {"type": "null"}]}
