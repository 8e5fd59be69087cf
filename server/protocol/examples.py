"""One full example of every message: every field that may be there is there. Tests parse, validate and count them.

They are of one map, of Berlin, with a night market, open-air jazz and a lake run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

Example = Mapping[str, Any]

_HELD: Final = [["night-market", 4811], ["open-air-jazz", 4790]]
_TIMES: Final = {"serverTime": 1_777_651_200_000, "nextBatchAt": 1_777_652_100_000}
_VALUES: Final = {"batchIntervalMs": 900_000, "maxBatchSize": 1000, "enableBatching": True}
_SOURCES: Final = {"batchIntervalMs": "default", "maxBatchSize": "environment", "enableBatching": "runtime"}
_VIEWPORT: Final = {"west": 13.2, "south": 52.4, "east": 13.6, "north": 52.6}
_FILTERS: Final = [
    {
        "dateRange": {"start": "2026-05-01", "end": "2026-05-03T22:00:00Z"},
        "location": {"latitude": 52.52, "longitude": 13.405, "radius": 5000},
        "categories": {"include": ["music", "food"], "exclude": ["politics"]},
        "status": ["VERIFIED"],
        "text": "night market",
    }
]
_SHARED: Final = {
    "id": "night-market",
    "title": "Night Market",
    "emoji": "🍜",
    "description": "Street food until midnight",
    "categories": ["food"],
    "location": {"latitude": 52.5, "longitude": 13.45},
    "start": "2026-05-01T18:00:00.000Z",
    "end": "2026-05-01T22:00:00.000Z",
    "timezone": "Europe/Berlin",
    "status": "VERIFIED",
    "scanCount": 12,
    "saveCount": 4,
    "rsvpCount": 2,
    "confidence": 0.9,
    "isPrivate": False,
    "creatorId": "ada",
    "recurrence": "FREQ=WEEKLY;BYDAY=FR;COUNT=10",
    "priority": "normal",
    "createdAt": "2026-04-20T09:30:00.000Z",
    "properties": {"stage": "north gate"},
}
_EVENT_IN: Final = {**_SHARED, "sharedWith": ["bob"]}
_MARKET: Final = {**_SHARED, "updatedAt": "2026-05-01T15:59:30.000Z", "version": 4811, "relevanceScore": 1.0}
_JAZZ: Final = {
    **_MARKET,
    "id": "open-air-jazz",
    "title": "Open-air Jazz",
    "emoji": "🎷",
    "description": None,
    "categories": ["music"],
    "location": {"latitude": 52.53, "longitude": 13.38},
    "end": None,
    "recurrence": None,
    "properties": None,
    "version": 4790,
    "relevanceScore": 0.6,
}
_LAKE_RUN: Final = {
    "id": "lake-run",
    "version": 4812,
    "scanCount": 31,
    "saveCount": 0,
    "rsvpCount": 9,
    "relevanceScore": 0.8,
}
_CLUSTERS: Final = [
    {
        "cell": "12/2200/1343",
        "location": {"latitude": 52.515, "longitude": 13.4},
        "count": 214,
        "topEventId": "night-market",
    }
]
_UPDATES: Final = {
    "creates": [_MARKET],
    "updates": [_JAZZ, _LAKE_RUN],
    "deletes": ["book-fair"],
    "reasons": {"book-fair": "ended"},
}
_STATISTICS: Final = {
    "batchesProcessed": 42,
    "totalEventsProcessed": 5120,
    "totalUsersUpdated": 37_004,
    "averageBatchSize": 121.9,
    "lastBatchTime": 1_777_651_198_000,
    "pendingUpdates": 17,
    "registeredUsers": 903,
    "isProcessingBatch": False,
    "config": _VALUES,
    **_TIMES,
    "events": 10_000,
    "framesDeferred": 3,
    "sessionsRemembered": 12,
    "lastBatchSeconds": 0.065,
    "savings": {
        "threshold": {"updatesWithheld": 810_213},
        "delta": {"bytes": 11_905_120},
        "minInterval": {"messagesMerged": 2017},
        "maxBytes": {"eventsCarried": 388},
        "sharing": {"framesShared": 9216},
    },
    "ready": True,
    "nodes": [
        {
            "node": "berlin-4711",
            "registeredUsers": 903,
            "totalUsersUpdated": 37_004,
            "lagMs": 4,
            "leader": True,
            "seenAt": 1_777_651_199_000,
        }
    ],
}
_SAID: Final = {"timestamp": "2026-05-01T16:00:00.000Z", "clusters": _CLUSTERS}


def _received(kind: str, **fields: object) -> Example:
    return {"type": kind, "ref": "r1", **fields}


_REGISTRATION: Final = {
    "token": "HEADER.CLAIMS.SIGNATURE",
    "viewport": _VIEWPORT,
    "filters": _FILTERS,
    "maxEvents": 50,
    "location": {"latitude": 52.52, "longitude": 13.405},
    "fields": "full",
    "reasons": True,
    "clusters": True,
    "minIntervalMs": 5000,
    "maxBytesPerBatch": 65_536,
    "resume": {"session": "5f0c2a9be1d74c3c8d6f", "seq": 7, "held": _HELD},
}


_POPULARITY: Final = {"scanCount": 12, "saveCount": 4, "rsvpCount": 2, "updateId": "till-3-000017", "priority": "high"}

RECEIVED_EXAMPLES: Final[Mapping[str, Example]] = {
    "authenticate": _received("authenticate", token="HEADER.CLAIMS.SIGNATURE"),
    "register": _received("register", **_REGISTRATION),
    "viewport-update": _received("viewport-update", viewport=_VIEWPORT),
    "filters-update": _received("filters-update", filters=_FILTERS),
    "unregister": _received("unregister"),
    "resync": _received("resync", held=_HELD),
    "ping": _received("ping"),
    "explain": _received("explain", eventId="night-market"),
    "event-upsert": _received("event-upsert", event=_EVENT_IN, ifVersion=4811),
    "event-delete": _received("event-delete", id="night-market", ifVersion=4811),
    "popularity-update": _received("popularity-update", eventId="night-market", **_POPULARITY),
    "import-create": _received(
        "import-create",
        listName="Spring newsletter",
        listId=3,
        account="biz_demo",
        provider="whop",
        priority=5,
        key="spring-2026",
        maxRetries=5,
    ),
    "get-stats": _received("get-stats"),
    "update-batch-config": _received("update-batch-config", **_VALUES),
    "force-batch": _received("force-batch"),
    "subscribe": _received("subscribe", topic="loops"),
    "unsubscribe": _received("unsubscribe", topic="loops"),
}


def _change(kind: str, seq: int, digest: str, **fields: object) -> Example:
    return {"type": kind, "seq": seq, **_SAID, **fields, "digest": digest}


# Digests of what is held afterwards: one of the two events, both, or both and the lake run.
ONE: Final = "8b05467b15bd78a3"
BOTH: Final = "7808715f5626c055"
ALL: Final = "2636df9886f4384b"

SENT_EXAMPLES: Final[Mapping[str, Example]] = {
    "registered": _received(
        "registered",
        session="5f0c2a9be1d74c3c8d6f",
        recovered=True,
        config={**_VALUES, "sources": _SOURCES},
        **_TIMES,
    ),
    "replace-all": _change("replace-all", 1, BOTH, ref="r1", events=[_MARKET, _JAZZ]),
    "add-event": _change("add-event", 2, BOTH, event=_MARKET),
    "update-event": _change("update-event", 3, BOTH, event=_MARKET),
    "delete-event": _change("delete-event", 4, ONE, id="night-market", reason="outranked"),
    "changes": _change("changes", 5, ALL, ref="r1", updates=_UPDATES),
    "batch-update": _change(
        "batch-update",
        6,
        ALL,
        updates=_UPDATES,
        summary={"totalEvents": 3, "newEvents": 1, "updatedEvents": 2, "deletedEvents": 1},
    ),
    "authenticated": _received(
        "authenticated", sub="ada", roles=["producer", "viewer"], expiresAt="2026-05-01T20:00:00.000Z"
    ),
    "unregistered": _received("unregistered"),
    "subscribed": _received("subscribed", topic="loops"),
    "unsubscribed": _received("unsubscribed", topic="loops"),
    "pong": _received("pong"),
    "ack": _received("ack", id="night-market", version=4811),
    "import-created": _received("import-created", id=17, new=True),
    "explanation": _received(
        "explanation",
        eventId="open-air-jazz",
        inView=False,
        rank=None,
        access=True,
        status=True,
        window=True,
        viewport=True,
        filters=True,
        components={"time": 1.0, "distance": 0.8, "popularity": 0.7, "recency": 0.1, "confidence": 0.9},
        weights={"time": 0.25, "distance": 0.2, "popularity": 0.3, "recency": 0.15, "confidence": 0.1},
        distanceKm=1.935,
        raw=0.725,
        relativeScore=0.6,
        place=2,
        candidates=2,
        cut={"eventId": "night-market", "raw": 0.81, "score": 1.0},
        spacingNeighbour="night-market",
    ),
    "stats": _received("stats", **_STATISTICS),
    "config": _received("config", **_VALUES, sources=_SOURCES, **_TIMES, auditId=311),
    "batch-forced": _received(
        "batch-forced",
        turn={"taken": 18, "done": 17, "failed": 0, "deferred": 1, "seconds": 0.065, "missing": []},
        stats=_STATISTICS,
        auditId=312,
    ),
    "error": _received(
        "error",
        code="too_many",
        message="at most 32 topics a connection",
        field="topic",
        limit=32,
        retry=True,
        retryAfterMs=1000,
    ),
    "status": {
        "type": "status",
        "topic": "loops",
        "loop": "scores",
        "number": 43,
        "trigger": "interval",
        "seconds": 0.065,
        "taken": 18,
        "done": 17,
        "failed": 0,
        "deferred": 1,
        "error": None,
        "detail": {"events": 17, "frames": 903, "viewers": 904, "batching": 1},
    },
    "alert": {
        "type": "alert",
        "kind": "recovered",
        "node": "map-1",
        "rule": "loop-failing",
        "severity": "ERROR",
        "message": "the loop scores fails",
        "raisedAt": 1_777_651_100_000,
        "recoveredAt": 1_777_651_190_000,
    },
    "progress": {
        "type": "progress",
        "topic": "job:17",
        "job": 17,
        "status": "processing",
        "percent": 42.5,
        "rate": 210.0,
        "etaMs": 64_000,
        "pages": 213,
        "total": 50_000,
        "seen": 21_250,
        "imported": 20_100,
        "duplicates": 650,
        "withoutEmail": 500,
        "rejected": 3,
        "error": None,
    },
}
