"""What clips have gained, for the events of the live map that they belong to.

    audit_id = await link(db, clip_id, event_id, who)        the event that moves with this clip; None: none
    await publish(connection, bus, clips)                    in the transaction that settled them, last
    for one in read(envelope.payload): ...                   whoever builds the process hands it to the feed

The views that an event was told of stand in the clip's row, and are changed with the message, so each view is told once. What a
clip had when it was linked, or at its first count, is where it begins. A message is a hint that may be lost with a process; no
money hangs on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from server.batching import audit
from server.batching.tracking.store import admin, serving
from server.core.identity import Identity
from server.edge.bus import Bus
from server.edge.postgres import Connection, Database
from server.errors import Code, Refused

TOPIC: Final = "tracking-popularity"
GROWTH_MOST: Final = 200
"""Events in one message."""
EVENT_MOST: Final = 200

LINKED: Final = "select event_id from tracking.clips where id = $1 for no key update"
LINK: Final = "update tracking.clips set event_id = $2, published_views = best_views where id = $1"
GROWN: Final = """
with known as (
    select id, event_id, best_views, published_views from tracking.clips
    where id = any($1) and event_id is not null and best_views is distinct from published_views order by id for no key update
), told as (
    update tracking.clips c set published_views = k.best_views from known k where c.id = k.id
)
select id, event_id, best_views, best_views - published_views as gained from known
where best_views > published_views order by id"""


@dataclass(frozen=True, slots=True)
class Growth:
    """An event has gained views; `key` is this growth's own, so that telling it twice is telling it once."""

    event_id: str
    views: int
    key: str


async def link(db: Database, clip_id: int, event_id: str | None, who: Identity) -> int:
    """Let an event move with a clip; the entry in the trail. Whether there is such an event is the feed's to know."""
    name = admin(who, "linking a post to an event")
    if event_id is not None and not (1 <= len(event_id) <= EVENT_MOST and event_id.isprintable()):
        message = f"an event's id has 1 to {EVENT_MOST} printable characters"
        raise Refused(Code.BAD_MESSAGE, message, field="eventId", limit=EVENT_MOST)
    async with serving(db) as connection:
        row = await connection.fetchrow(LINKED, clip_id)
        if row is None:
            raise Refused(Code.NOT_FOUND, f"there is no clip {clip_id}", field="clipId")
        await connection.execute(LINK, clip_id, event_id)
        before, after = {"event": row["event_id"]}, {"event": event_id}
        return await audit.write(connection, name, "tracking.link", f"clip {clip_id}", before, after)


async def publish(connection: Connection, bus: Bus, clips: Sequence[int]) -> int:
    """Tell what these have gained since it was last told; of how many events."""
    rows = await connection.fetch(GROWN, list(clips))
    for start in range(0, len(rows), GROWTH_MOST):
        part = rows[start : start + GROWTH_MOST]
        growth = [
            {"event": row["event_id"], "views": row["gained"], "key": f"tracking-{row['id']}-{row['best_views']}"}
            for row in part
        ]
        await bus.publish(connection, TOPIC, {"growth": growth})
    return len(rows)


def read(payload: Mapping[str, object]) -> tuple[Growth, ...]:
    """What a message says; what is not in its form (of another version's node) is left out."""
    listed = payload.get("growth")
    found = [_growth(one) for one in listed if isinstance(one, Mapping)] if isinstance(listed, list) else []
    return tuple(one for one in found if one is not None)


def _growth(one: Mapping[str, object]) -> Growth | None:
    event, views, key = one.get("event"), one.get("views"), one.get("key")
    if isinstance(event, str) and isinstance(views, int) and views > 0 and isinstance(key, str):
        return Growth(event, views, key)
    return None
