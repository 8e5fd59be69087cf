"""Every WebSocket message a client may send. `parse` turns one frame into one message, or a bad one into its error.

A frame is one JSON object; a popularity-update may also be a JSON array of such objects, each answered on its own.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeAlias

import orjson
from pydantic import Field, StringConstraints, ValidationError

from server.core.event import Delete, Popularity, Upsert
from server.errors import Code, Refused
from server.protocol.event import PopularityIn, event_op, refused, short
from server.protocol.imports import ImportIn
from server.protocol.values import Detail, Filters, Identifier, Location, Viewport, Whole, Wire

Ref = Annotated[str, StringConstraints(strict=True, max_length=64)]
HELD_MOST: Final = 500
Held = Annotated[tuple[tuple[Identifier, Whole], ...], Field(max_length=HELD_MOST)]
Token = Annotated[str, StringConstraints(strict=True, max_length=16_384)]
MAX_EVENTS: Final = 500


class Request(Wire):
    """What every request shares: `ref`, echoed in its answer."""

    ref: Ref | None = Field(default=None, description="echoed in the answer")


class Authenticate(Request):
    """Say who you are; the token is a JWT."""

    type: Literal["authenticate"]
    token: Token


class Resume(Wire):
    """Come back to an earlier session; `held` is what the client still holds, [[id, version], ...]."""

    session: Annotated[str, StringConstraints(max_length=64), Field(description="as in `registered`")]
    seq: Whole | None = Field(default=None, description="the last one that arrived")
    held: Held | None = Field(default=None, description="[[id, version], ...]; wins whenever it is given")


class Register(Request):
    """Look at a part of the map; a second one replaces the first."""

    type: Literal["register"]
    token: Token | None = Field(default=None, description="as `authenticate` before it")
    viewport: Viewport
    filters: Filters = Field(default=(), description="any of them must match; empty: everything accessible")
    max_events: Annotated[int, Field(strict=True, ge=1, le=MAX_EVENTS)] | None = Field(
        default=None, description="how many events the view holds at most; else DEFAULT_MAX_EVENTS"
    )
    location: Location | None = Field(
        default=None, description="where distances are measured from; else the viewport's centre"
    )
    fields: Detail = Field(default="full", description="delta: updates carry only what changed")
    reasons: Annotated[bool, Field(strict=True)] = Field(default=False, description="say why events leave the view")
    clusters: Annotated[bool, Field(strict=True)] = Field(
        default=False, description="when far more is in view than maxEvents, also say how many lie where"
    )
    min_interval_ms: Annotated[int, Field(strict=True, ge=0, le=86_400_000)] | None = Field(
        default=None, description="no change that was not asked for sooner than this after the last one"
    )
    max_bytes_per_batch: Annotated[int, Field(strict=True, ge=1024, le=1 << 30)] | None = Field(
        default=None, description="a message that would be larger brings the best first; the rest follows"
    )
    resume: Resume | None = None


class ViewportUpdate(Request):
    """Pan or zoom; answered by what changes."""

    type: Literal["viewport-update"]
    viewport: Viewport


class FiltersUpdate(Request):
    """Other filters; answered by what changes."""

    type: Literal["filters-update"]
    filters: Filters


class Unregister(Request):
    """Look at nothing any more."""

    type: Literal["unregister"]


class Resync(Request):
    """The digests differ: send the difference to `held`, or everything."""

    type: Literal["resync"]
    held: Held | None = Field(default=None, description="[[id, version], ...]; absent: send everything")


class Ping(Request):
    """Are you there?"""

    type: Literal["ping"]


class Explain(Request):
    """Why has this event this place in my view, or none?"""

    type: Literal["explain"]
    event_id: Identifier


class EventUpsert(Request):
    """Create or change an event."""

    type: Literal["event-upsert"]
    event: dict[str, Any]
    if_version: Whole | None = Field(
        default=None, description="refused with conflict unless this is its version; 0: it is new"
    )

    def op(self) -> Upsert:
        """As the operation; Refused when the event can't be understood."""
        return event_op(self.event, self.if_version)


class EventDelete(Request):
    """Remove an event."""

    type: Literal["event-delete"]
    id: Identifier
    if_version: Whole | None = Field(default=None, description="refused with conflict unless this is its version")

    def op(self) -> Delete:
        """As the operation."""
        return Delete(self.id, self.if_version)


class PopularityUpdate(Request, PopularityIn):
    """New counters of one event, or how far they move."""

    type: Literal["popularity-update"]


class ImportCreate(Request, ImportIn):
    """Import the members of a provider's account into a list; a key makes it safe to ask again."""

    type: Literal["import-create"]


class GetStats(Request):
    """The nine statistics and more."""

    type: Literal["get-stats"]


class UpdateBatchConfig(Request):
    """Change the batching at run time."""

    type: Literal["update-batch-config"]
    batch_interval_ms: Whole | None = None
    max_batch_size: Whole | None = None
    enable_batching: Annotated[bool, Field(strict=True)] | None = None


class ForceBatch(Request):
    """Flush now."""

    type: Literal["force-batch"]


class Subscribe(Request):
    """Follow a topic: job:ID (its owner and admins), imports, loops, alerts, schedules, tiers, tracking."""

    type: Literal["subscribe"]
    topic: Identifier


class Unsubscribe(Request):
    """Follow it no more."""

    type: Literal["unsubscribe"]
    topic: Identifier


Produced: TypeAlias = EventUpsert | EventDelete | PopularityUpdate
Message: TypeAlias = (
    Authenticate
    | Register
    | ViewportUpdate
    | FiltersUpdate
    | Unregister
    | Resync
    | Ping
    | Explain
    | Produced
    | ImportCreate
    | GetStats
    | UpdateBatchConfig
    | ForceBatch
    | Subscribe
    | Unsubscribe
)
MESSAGES: Final[dict[str, type[Message]]] = {
    "authenticate": Authenticate,
    "register": Register,
    "viewport-update": ViewportUpdate,
    "filters-update": FiltersUpdate,
    "unregister": Unregister,
    "resync": Resync,
    "ping": Ping,
    "explain": Explain,
    "event-upsert": EventUpsert,
    "event-delete": EventDelete,
    "popularity-update": PopularityUpdate,
    "import-create": ImportCreate,
    "get-stats": GetStats,
    "update-batch-config": UpdateBatchConfig,
    "force-batch": ForceBatch,
    "subscribe": Subscribe,
    "unsubscribe": Unsubscribe,
}


def decode(frame: str | bytes) -> object:
    """The frame's JSON value; Refused(bad_json) when it is none."""
    try:
        value: object = orjson.loads(frame)
    except orjson.JSONDecodeError as error:
        raise Refused(Code.BAD_JSON, f"not JSON: {error}") from None
    return value


def ref_of(value: object) -> str | None:
    """The `ref` of a message that may otherwise be bad, so that even its error can be matched."""
    ref = value.get("ref") if isinstance(value, dict) else None
    return ref if isinstance(ref, str) and len(ref) <= 64 else None


def parse(value: object) -> Message:
    """The message of one decoded frame; Refused with the code that the bad place asks for."""
    if not isinstance(value, dict):
        raise Refused(Code.BAD_MESSAGE, f"a message is a JSON object with a type, not {type(value).__name__}")
    kind = value.get("type")
    model = MESSAGES.get(kind) if isinstance(kind, str) else None
    if model is None:
        known = ", ".join(MESSAGES)
        raise Refused(Code.BAD_MESSAGE, f"unknown type {short(kind)}; known are {known}", field="type")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise _too_many(error) or refused(error) from None


def _too_many(error: ValidationError) -> Refused | None:
    """More is held than can be said: that is answered as any bound is, with the limit."""
    first = error.errors(include_url=False)[0]
    if first["type"] != "too_long" or first["loc"][-1] != "held":
        return None
    message = f"at most {HELD_MOST} ids in `held`; leave it out and get a snapshot"
    field = ".".join(map(str, first["loc"]))
    return Refused(Code.TOO_MANY, message, field=field, limit=HELD_MOST, retry=False)


def op_of(message: Produced) -> Upsert | Delete | Popularity:
    """The operation that a producer's message asks for; Refused when its event can't be understood."""
    return message.op()
