"""Every WebSocket message the server sends, as pydantic models: the published schema, and nothing else.

Messages with events in them are hot and assembled from bytes (server/batching/scores/frames.py), the others are built as
plain dicts where they are answered; tests hold what is really sent against these models. A field that may be absent is
declared with `maybe()`: when it is there it is not null.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import Field

from server.core.event import Priority, Status
from server.errors import Code
from server.protocol.event import Counter
from server.protocol.incoming import Ref
from server.protocol.values import Identifier, Location, Wire

Reason = Literal["left_view", "outranked", "filtered", "ended", "removed", "hidden"]
Time = Annotated[str, Field(description="ISO 8601, UTC, milliseconds, Z", json_schema_extra={"format": "date-time"})]
EpochMs = Annotated[int, Field(description="UTC, milliseconds since 1970")]
Seq = Annotated[int, Field(ge=1, description="number of the change message on this connection, without gaps")]
Digest = Annotated[
    str,
    Field(pattern="^[0-9a-f]{16}$", description="of what the client holds once this is applied"),
]
Version = Annotated[
    int, Field(ge=1, lt=2**53, description="grows with every published change, never used twice for an id")
]
Score = Annotated[float, Field(ge=0, le=1, description="4 decimals, among the viewer's candidates")]
Counts = Annotated[int, Field(ge=0)]
AuditId = Annotated[int, Field(ge=1, description="number of the entry in the audit trail")]


def _no_default(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


def maybe(description: str = "") -> Any:
    """A field that may be absent; null it never is."""
    return Field(default=None, description=description or None, json_schema_extra=_no_default)


class EventOut(Wire):
    """An event as a viewer gets it: the published state, without sharedWith, with the viewer's score."""

    id: Identifier
    title: str
    emoji: str | None
    description: str | None
    categories: tuple[str, ...]
    location: Location
    start: Time
    end: Time | None
    timezone: str | None
    status: Status
    scan_count: Counter
    save_count: Counter
    rsvp_count: Counter
    confidence: float | None
    is_private: bool
    creator_id: str | None
    recurrence: str | None
    priority: Priority
    created_at: Time
    updated_at: Time
    version: Version
    properties: dict[str, Any] | None
    relevance_score: Score


class ChangedFields(Wire):
    """What changed of an event that the client holds, when it registered with `fields: delta`; laid over what it holds.

    Without counters: the version that is held, with another score. With them: nothing else but the score has changed since.
    """

    id: Identifier
    version: Version
    scan_count: Counter = maybe()
    save_count: Counter = maybe()
    rsvp_count: Counter = maybe()
    relevance_score: Score


class Updates(Wire):
    """Apply deletes, then creates, then updates; they never overlap."""

    creates: tuple[EventOut, ...]
    updates: tuple[EventOut | ChangedFields, ...]
    deletes: tuple[Identifier, ...]
    reasons: dict[str, Reason] = maybe("why each of `deletes` is gone, when the client asked for reasons")


class Summary(Wire):
    """The batch in four numbers."""

    total_events: Annotated[Counts, Field(description="what the viewer now holds")]
    new_events: Counts
    updated_events: Counts
    deleted_events: Counts


class Cluster(Wire):
    """A cell of the map, and how many candidates lie in it."""

    cell: Annotated[str, Field(description="`level/x/y`, a tile of the slippy map (Web Mercator)")]
    location: Annotated[Location, Field(description="the mean of theirs")]
    count: Annotated[int, Field(ge=1, description="whatever the viewer may see that matches, shown or not")]
    top_event_id: Annotated[Identifier, Field(description="the one with the highest score")]


class Values(Wire):
    """The run-time settings."""

    batch_interval_ms: int
    max_batch_size: int
    enable_batching: bool


Sources = Annotated[
    dict[str, Literal["default", "environment", "runtime"]],
    Field(description="where each value comes from"),
]
NextBatch = Annotated[int | None, Field(description="when the next batch is due, UTC epoch ms; null: no time is set")]


class ConfigOut(Values):
    """The run-time settings and where each comes from."""

    sources: Sources


class Times(Wire):
    """The server's time, and when the next batch is due: what a countdown needs."""

    server_time: EpochMs
    next_batch_at: NextBatch


class Withheld(Wire):
    """By SCORE_THRESHOLD."""

    updates_withheld: Annotated[Counts, Field(description="scores of events in view that had moved by less")]


class Spared(Wire):
    """By `fields: delta`."""

    bytes: Annotated[Counts, Field(description="of updates, before compression")]


class Merged(Wire):
    """By `minIntervalMs`."""

    messages_merged: Annotated[Counts, Field(description="that went with another one, once the interval was over")]


class Carried(Wire):
    """By `maxBytesPerBatch`."""

    events_carried: Annotated[Counts, Field(description="creates and updates that came with a later message")]


class Shared(Wire):
    """By viewers that ask the same and hold the same."""

    frames_shared: Annotated[Counts, Field(description="frames that were put together once for several")]


class Savings(Wire):
    """What was not sent, or not made, since the process started."""

    threshold: Withheld
    delta: Spared
    min_interval: Merged
    max_bytes: Carried
    sharing: Shared


class NodeOut(Wire):
    """One of several servers over one database."""

    node: str
    registered_users: Counts
    total_users_updated: Counts
    lag_ms: Annotated[
        Counts, Field(description="how old the oldest message of another server was when it came, of late")
    ]
    leader: Annotated[bool, Field(description="its flushes are those of all")]
    seen_at: Annotated[EpochMs, Field(description="when it last said that it is there")]


class Statistics(Times):
    """The batch statistics since the process started; of several servers over one database, those of all."""

    batches_processed: Annotated[Counts, Field(description="flushes that took at least one pending event")]
    total_events_processed: Annotated[Counts, Field(description="pending events they published")]
    total_users_updated: Annotated[
        Counts, Field(description="frames sent by flushes, summed over the servers that are there")
    ]
    average_batch_size: Annotated[float, Field(ge=0)]
    last_batch_time: Annotated[int, Field(description="UTC epoch ms; 0 before the first")]
    pending_updates: Annotated[Counts, Field(description="events whose popularity waits for a flush")]
    registered_users: Annotated[Counts, Field(description="registered connections, of all servers")]
    is_processing_batch: bool
    config: Values
    events: Annotated[Counts, Field(description="events in memory")]
    frames_deferred: Annotated[Counts, Field(description="frames of flushes that had to wait for a slow reader")]
    sessions_remembered: Annotated[Counts, Field(description="sessions whose connection has ended that may be resumed")]
    last_batch_seconds: Annotated[float, Field(ge=0)]
    savings: Savings
    ready: bool
    nodes: tuple[NodeOut, ...] = maybe("the servers over this database, where there may be several")


class Flushed(Wire):
    """One flush: taken = done + failed + deferred."""

    taken: Counts
    done: Counts
    failed: Counts
    deferred: Annotated[
        Counts,
        Field(description="viewers whose frame waits: for the one before to be read, or for their minIntervalMs"),
    ]
    seconds: Annotated[float, Field(ge=0)]
    missing: tuple[str, ...] = maybe("of several servers those that did not say in time that their viewers were told")


class Components(Wire):
    """The five terms of a score, each 0 to 1; or their weights."""

    time: float
    distance: float
    popularity: float
    recency: float
    confidence: float


class Cut(Wire):
    """The last event kept of a full view: what another must beat."""

    event_id: Identifier
    raw: float
    score: Score


class Sent(Wire):
    """What every message shares."""


class Answered(Sent):
    """What every answer shares."""

    ref: Ref = maybe("that of the request")


class Changed(Sent):
    """What every change of the view shares."""

    seq: Seq
    timestamp: Time
    digest: Digest
    clusters: tuple[Cluster, ...] = maybe(
        "when the client asked for clusters: these instead of those told before; empty: there is no more in view than shown, "
        "or not far more; absent: as before"
    )


class ReplaceAll(Changed, Answered):
    """The snapshot: hold exactly this."""

    type: Literal["replace-all"]
    events: Annotated[tuple[EventOut, ...], Field(description="best first")]


class AddEvent(Changed):
    """One event comes in, at once."""

    type: Literal["add-event"]
    event: EventOut


class UpdateEvent(Changed):
    """One event held has changed, at once."""

    type: Literal["update-event"]
    event: EventOut | ChangedFields


class DeleteEvent(Changed):
    """One event goes, at once."""

    type: Literal["delete-event"]
    id: Identifier
    reason: Reason = maybe("why, when the client asked for reasons")


class Changes(Changed, Answered):
    """Several changes at once; the answer to a pan, other filters, a resync, a resume."""

    type: Literal["changes"]
    updates: Updates


class BatchUpdate(Changed):
    """The consolidated batch: all that changed for this viewer since it was last told."""

    type: Literal["batch-update"]
    updates: Updates
    summary: Summary


class Authenticated(Answered):
    """The token is good."""

    type: Literal["authenticated"]
    sub: str | None
    roles: tuple[str, ...]
    expires_at: Annotated[Time | None, Field(description="then the connection is closed; null: never")]


class Registered(Answered, Times):
    """Registered; a snapshot or the difference to what the client holds follows."""

    type: Literal["registered"]
    session: Annotated[str, Field(description="name it in `resume` to come back")]
    recovered: Annotated[bool, Field(description="a difference follows, not a snapshot")]
    config: ConfigOut


class Unregistered(Answered):
    """No more changes are sent."""

    type: Literal["unregistered"]


class Subscribed(Answered):
    """Messages of the topic are sent from now on."""

    type: Literal["subscribed"]
    topic: str


class Unsubscribed(Answered):
    """Messages of the topic are sent no more."""

    type: Literal["unsubscribed"]
    topic: str


class Pong(Answered):
    """Yes, here."""

    type: Literal["pong"]


class Ack(Answered):
    """The operation is committed."""

    type: Literal["ack"]
    id: Identifier
    version: Annotated[int, Field(ge=1, lt=2**53, description="the event's version then; of a delete, that of its end")]


class ImportCreated(Answered):
    """The job that will do the import; `subscribe` to job:ID for its progress."""

    type: Literal["import-created"]
    id: Annotated[int, Field(ge=1)]
    new: Annotated[bool, Field(description="false: this key has made it before")]


class Explanation(Answered):
    """Why an event has its place in the view, or none."""

    type: Literal["explanation"]
    event_id: Identifier
    in_view: bool
    rank: Annotated[int | None, Field(ge=1, description="place in the view, from 1")]
    access: Annotated[bool, Field(description="true: of an event that may not be seen nothing is said at all")]
    status: Annotated[bool, Field(description="is its status one that is shown?")]
    window: Annotated[bool, Field(description="does it start within the time window?")]
    viewport: Annotated[bool, Field(description="is it inside?")]
    filters: Annotated[bool, Field(description="does it match?")]
    components: Components
    weights: Components
    distance_km: Annotated[float, Field(ge=0)]
    raw: Annotated[float, Field(description="the weighted sum")]
    relative_score: Annotated[Score | None, Field(description="among the candidates; null when it is none")]
    place: Annotated[int | None, Field(ge=1, description="among the candidates, before spacing and cut")]
    candidates: Counts
    cut: Cut | None
    spacing_neighbour: Annotated[str | None, Field(description="the better event that stands too near")]


class Stats(Answered, Statistics):
    """The statistics."""

    type: Literal["stats"]


class Config(Answered, ConfigOut, Times):
    """The run-time settings now in force."""

    type: Literal["config"]
    audit_id: AuditId


class BatchForced(Answered):
    """The flush is over: every viewer's frame is handed to its socket or counted as deferred."""

    type: Literal["batch-forced"]
    turn: Flushed
    stats: Statistics
    audit_id: AuditId


class Error(Answered):
    """The request was refused; the connection goes on."""

    type: Literal["error"]
    code: Code
    message: str
    field: str = maybe("the field at fault, from the top of the message (or of the event in it)")
    limit: float = maybe("the limit that was passed")
    retry: Annotated[bool, Field(description="may the same request succeed later, unchanged?")]
    retry_after_ms: int = maybe("how long to wait before")


class StatusOut(Sent):
    """One turn of a loop (topic `loops`), or what has changed since last told (topics `schedules`, `tracking`: `detail.changed`)."""

    type: Literal["status"]
    topic: str
    loop: str
    number: Annotated[int, Field(ge=1)]
    trigger: Literal["interval", "cron", "wake", "forced", "more", "shutdown"]
    seconds: Annotated[float, Field(ge=0)]
    taken: Counts
    done: Counts
    failed: Counts
    deferred: Counts
    error: str | None
    detail: Annotated[dict[str, Any], Field(description="what else the loop tells of its turn")]


class AlertOut(Sent):
    """An alert was raised or has recovered (topic `alerts`)."""

    type: Literal["alert"]
    kind: Literal["raised", "recovered"]
    node: str
    rule: str
    severity: Literal["INFO", "WARNING", "ERROR", "CRITICAL"]
    message: str
    raised_at: EpochMs
    recovered_at: EpochMs | None


class Progress(Sent):
    """How far an import is (topic `job:ID`; for admins also topic `imports`, of all jobs), at most twice a second."""

    type: Literal["progress"]
    topic: str
    job: Annotated[int, Field(ge=1)]
    status: Annotated[
        Literal["scheduled", "pending", "processing", "completed", "failed", "cancelled"],
        Field(description="scheduled: it failed and will be tried again; the last three are final"),
    ]
    percent: Annotated[float | None, Field(ge=0, le=100, description="null while the total is not known")]
    rate: Annotated[float, Field(ge=0, description="members per second; 0 while it is not known")]
    eta_ms: Annotated[int | None, Field(description="time left; null while it is not known")]
    pages: Counts
    total: Annotated[int | None, Field(description="members in all, when the source says so")]
    seen: Annotated[Counts, Field(description="imported + duplicates + withoutEmail")]
    imported: Counts
    duplicates: Counts
    without_email: Counts
    rejected: Annotated[Counts, Field(description="rows of the source that are no members")]
    error: str | None


Outgoing: TypeAlias = (
    ReplaceAll
    | AddEvent
    | UpdateEvent
    | DeleteEvent
    | Changes
    | BatchUpdate
    | Authenticated
    | Registered
    | Unregistered
    | Subscribed
    | Unsubscribed
    | Pong
    | Ack
    | ImportCreated
    | Explanation
    | Stats
    | Config
    | BatchForced
    | Error
    | StatusOut
    | AlertOut
    | Progress
)
SENT: Final[dict[str, type[Outgoing]]] = {
    "registered": Registered,
    "replace-all": ReplaceAll,
    "add-event": AddEvent,
    "update-event": UpdateEvent,
    "delete-event": DeleteEvent,
    "changes": Changes,
    "batch-update": BatchUpdate,
    "authenticated": Authenticated,
    "unregistered": Unregistered,
    "subscribed": Subscribed,
    "unsubscribed": Unsubscribed,
    "pong": Pong,
    "ack": Ack,
    "import-created": ImportCreated,
    "explanation": Explanation,
    "stats": Stats,
    "config": Config,
    "batch-forced": BatchForced,
    "error": Error,
    "status": StatusOut,
    "alert": AlertOut,
    "progress": Progress,
}
