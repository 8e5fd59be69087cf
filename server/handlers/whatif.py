"""POST /what-if: what another interval, cut, threshold or weighting would cost and change, without sending anything."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from server.batching.scores.estimate import Side
from server.batching.scores.whatif import Answer, Tried, Wish
from server.core.identity import Identity
from server.edge.web import json, json_object
from server.handlers.admin import SMALL_BODY, camel
from server.handlers.ports import (
    EPOCH_MS,
    NUMBER,
    TRUTH,
    WHOLE,
    Ports,
    Route,
    Schema,
    object_of,
    of_json,
    or_null,
    ref,
)
from server.protocol.whatif import WhatIfIn, parsed


async def what_if(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Try other settings on the viewers now connected."""
    wish = wish_of(parsed(await json_object(request, SMALL_BODY)))
    with ports.trials:
        return json(what_if_json(await ports.feed.what_if(wish)))


def wish_of(asked: WhatIfIn) -> Wish:
    """What is to be tried."""
    weights = None if asked.weights is None else asked.weights.model_dump(exclude_none=True)
    return Wish(
        asked.interval_ms, asked.threshold, asked.max_events, weights, asked.spacing_km, asked.sample, asked.seed
    )


def what_if_json(answer: Answer) -> dict[str, object]:
    """The answer in camelCase, each setting with what it costs."""
    present, asked = answer.settings
    return {
        "serverTime": answer.at_ms,
        "viewers": answer.viewers,
        "sampled": answer.sampled,
        "deferred": answer.deferred,
        "seed": answer.seed,
        "events": answer.events,
        "estimatedFrom": camel(answer.estimated_from),
        "present": _side(present, answer.present),
        "asked": _side(asked, answer.asked),
        "change": camel(answer.change),
    }


def _side(settings: Tried, side: Side) -> dict[str, object]:
    costs = camel(side)
    assert isinstance(costs, dict)
    return {"settings": camel(settings), **costs}


# --- as told to the OpenAPI document ---


def _about(schema: Schema, meaning: str) -> Schema:
    return {**schema, "description": meaning}


_SPREAD: Final = object_of({"median": NUMBER, "p95": NUMBER})
_SETTINGS: Final = object_of(
    {
        "intervalMs": _about(or_null(WHOLE), "null: no batches"),
        "maxBatchSize": WHOLE,
        "threshold": NUMBER,
        "maxEvents": _about(or_null(WHOLE), "null: as many as each viewer asked for"),
        "weights": object_of(
            dict.fromkeys(("time", "distance", "popularity", "recency", "confidence"), NUMBER),
        ),
        "spacingKm": NUMBER,
    }
)
_NEXT: Final = object_of(
    {
        **dict.fromkeys(("frames", "bytes", "newEvents", "updatedEvents", "deletedEvents"), WHOLE),
        **dict.fromkeys(("allFrames", "allBytes"), WHOLE),
    }
)
_HOUR: Final = object_of(
    {
        "flushes": NUMBER,
        "messages": NUMBER,
        "bytes": NUMBER,
        "messagesPerViewer": _SPREAD,
        "bytesPerViewer": _SPREAD,
    }
)
_BATCH: Final = object_of(
    {
        "intervalMs": _about(or_null(NUMBER), "between two flushes, when batches fill before the interval is over too"),
        "events": _about(WHOLE, "events that one of many flushes publishes"),
        "lowerBound": _about(TRUTH, "the interval is longer than activity has been watched"),
        "frames": NUMBER,
        "updatesPerFrame": NUMBER,
        "cpuSeconds": _about(NUMBER, "ranking and putting together for all viewers, without SQL and sockets"),
    }
)
_WAITS: Final = object_of({"mean": or_null(NUMBER), "worst": or_null(NUMBER)})
SIDE: Final = object_of(
    {
        "settings": _SETTINGS,
        "next": _about(_NEXT, "the next flush: of the sample exactly, `all` counted up"),
        "hour": _about(_HOUR, "of batches to all viewers, estimated; bytes of the messages as text"),
        "batch": _BATCH,
        "stalenessMs": _about(_WAITS, "how long a moved counter waits"),
    }
)
WHAT_IF: Final = object_of(
    {
        "serverTime": EPOCH_MS,
        "viewers": _about(WHOLE, "registered here"),
        "sampled": _about(WHOLE, "viewers on whom it was tried"),
        "deferred": _about(WHOLE, "of those chosen: their frame waits, a flush now would owe them"),
        "seed": WHOLE,
        "events": WHOLE,
        "estimatedFrom": object_of(
            {
                "watchedMs": WHOLE,
                "moved": _about(WHOLE, "distinct events whose counters moved in that time"),
                "activityKnown": TRUTH,
                "waiting": WHOLE,
                "waitingTaken": WHOLE,
            }
        ),
        "present": ref("WhatIfSide"),
        "asked": ref("WhatIfSide"),
        "change": object_of(
            {
                "viewersDiffering": _about(WHOLE, "of the sample: their list would be another, or in another order"),
                "entering": WHOLE,
                "leaving": WHOLE,
                "topOverlap": _about(NUMBER, "of the best ten so much stays, on average"),
            }
        ),
    }
)
ROUTES: Final = (
    Route(
        "POST",
        "/what-if",
        what_if,
        "Try other settings on the viewers now connected; nothing is sent",
        of_json(ref("WhatIf"), "What the present settings and the asked ones cost, side by side"),
        body=of_json(ref("WhatIfIn")),
        refusals=(400, 422, 429, 503),
    ),
)
