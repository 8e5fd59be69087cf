"""For those who run the server: run-time settings, force-batch, loops and alerts.

Each handler calls one verb of the feed, the panel or the alerts and answers with its values in camelCase; names that end in
`Ms` are milliseconds, since 1970 where they are a time. Who changed what is logged.
"""

from __future__ import annotations

import dataclasses
from enum import Enum
from typing import Final

import structlog
from aiohttp import web
from pydantic.alias_generators import to_camel

from server.batching.ledger import Page
from server.core.identity import Identity
from server.edge.web import json, json_object, whole_number
from server.errors import Code, Refused
from server.handlers.metrics import FLUSH
from server.handlers.ports import (
    EPOCH_MS,
    NUMBER,
    TEXT,
    TRUTH,
    WHOLE,
    Ports,
    Query,
    Route,
    list_of,
    object_of,
    of_json,
    or_null,
    ref,
)

HISTORY_AT_MOST: Final = 500
ALERTS_AT_MOST: Final = 500
SMALL_BODY: Final = 64 << 10

log = structlog.get_logger()


def camel(value: object) -> object:
    """A value of ours as JSON: dataclasses become objects with camelCase names, enums their values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {to_camel(f.name): camel(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, list | tuple):
        return [camel(part) for part in value]
    return value.value if isinstance(value, Enum) else value


# --- configuration and flush ---


async def read_config(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """The run-time settings and where each comes from."""
    return json(ports.feed.config())


async def patch_config(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Change run-time settings."""
    return json(await ports.feed.configure(await json_object(request, SMALL_BODY), who))


async def reset_config(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Forget a run-time value."""
    return json(await ports.feed.reset(request.match_info["name"], who))


async def force_batch(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Flush now."""
    return json(await ports.feed.force(who))


# --- loops ---


async def list_loops(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """All loops as they are now."""
    return json({"loops": camel(ports.panel.list()), "serverTime": ports.clock.now_ms()})


async def read_loop(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """One loop and a page of its history."""
    name = request.match_info["name"]
    limit = whole_number(request, "limit", 50, 1, HISTORY_AT_MOST)
    page = await ports.panel.history(name, limit, request.query.get("before") or None)
    return json({"loop": camel(ports.panel.state(name)), **_history(page), "serverTime": ports.clock.now_ms()})


def _history(page: Page) -> dict[str, object]:
    turns = [{**_fields(row.turn), "node": row.node} for row in page.rows]
    return {"turns": turns, "next": None if page.next is None else str(page.next)}


def _fields(value: object) -> dict[str, object]:
    fields = camel(value)
    assert isinstance(fields, dict)
    return fields


async def run_loop(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Take a turn now; answers when it has ended."""
    name = request.match_info["name"]
    turn = await ports.panel.run(name)
    log.info("loop run", loop=name, by=who.user)
    return json({"turn": camel(turn)})


async def pause_loop(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """No turn but by run, until resume."""
    state = ports.panel.pause(request.match_info["name"])
    log.info("loop paused", loop=state.name, by=who.user)
    return json(camel(state))


async def resume_loop(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Go on."""
    state = ports.panel.resume(request.match_info["name"])
    log.info("loop resumed", loop=state.name, by=who.user)
    return json(camel(state))


async def patch_loop(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Another interval. The flush's is a run-time setting: stored, audited, and reset by DELETE /config/batchIntervalMs."""
    name = request.match_info["name"]
    interval_ms = (await json_object(request, SMALL_BODY)).get("intervalMs")
    ports.panel.state(name)
    if isinstance(interval_ms, bool) or not isinstance(interval_ms, int):
        raise Refused(Code.BAD_MESSAGE, "intervalMs is a whole number of milliseconds", field="intervalMs")
    if name == FLUSH:
        await ports.feed.configure({"batchIntervalMs": interval_ms}, who)
    else:
        ports.panel.set_interval(name, interval_ms)
    log.info("loop re-timed", loop=name, interval_ms=interval_ms, by=who.user)
    return json(camel(ports.panel.state(name)))


# --- alerts ---


async def list_alerts(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """A page of alerts, newest first."""
    open_only = request.query.get("open", "") in ("1", "true", "yes")
    limit = whole_number(request, "limit", 50, 1, ALERTS_AT_MOST)
    before = whole_number(request, "before", 0, 1, (1 << 63) - 1) or None
    alerts = await ports.alerts.list(open_only=open_only, limit=limit, before_id=before)
    return json({"alerts": camel(alerts), "next": alerts[-1].id if len(alerts) == limit else None})


async def acknowledge_alert(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Note that somebody knows."""
    text = request.match_info["id"]
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise Refused(Code.NOT_FOUND, f"there is no alert {text[:40]!r}; the list of alerts has their ids", field="id")
    return json(camel(await ports.alerts.acknowledge(int(text), who.user or "")))


# --- as told to the OpenAPI document ---

TIMES: Final = {"serverTime": EPOCH_MS, "nextBatchAt": or_null(EPOCH_MS)}
VALUES: Final = {"batchIntervalMs": WHOLE, "maxBatchSize": WHOLE, "enableBatching": TRUTH}
CONFIG: Final = object_of(
    {
        **VALUES,
        "sources": {"type": "object", "additionalProperties": {"enum": ["default", "environment", "runtime"]}},
        **TIMES,
    }
)
STATS: Final = object_of(
    {
        "batchesProcessed": WHOLE,
        "totalEventsProcessed": WHOLE,
        "totalUsersUpdated": WHOLE,
        "averageBatchSize": NUMBER,
        "lastBatchTime": EPOCH_MS,
        "pendingUpdates": WHOLE,
        "registeredUsers": WHOLE,
        "isProcessingBatch": TRUTH,
        "config": object_of(VALUES),
        **TIMES,
    },
    {
        "nodes": list_of(
            object_of(
                {
                    "node": TEXT,
                    "registeredUsers": WHOLE,
                    "totalUsersUpdated": WHOLE,
                    "lagMs": WHOLE,
                    "leader": TRUTH,
                    "seenAt": EPOCH_MS,
                }
            )
        )
    },
)
_COUNTS: Final = dict.fromkeys(("taken", "done", "failed", "deferred"), WHOLE)
FORCED: Final = object_of(
    {"turn": object_of({**_COUNTS, "seconds": NUMBER}, {"missing": list_of(TEXT)}), "stats": ref("Stats")}
)
TURN: Final = object_of(
    {
        "loop": TEXT,
        "number": WHOLE,
        "trigger": {"enum": ["interval", "cron", "wake", "forced", "more", "shutdown"]},
        "startedAtMs": EPOCH_MS,
        "seconds": NUMBER,
        **_COUNTS,
        "more": TRUTH,
        "missed": WHOLE,
        "error": or_null(TEXT),
        "detail": {"type": "object"},
    },
    {"node": TEXT},
)
TOTALS: Final = object_of(
    {
        "turns": WHOLE,
        **_COUNTS,
        "missed": WHOLE,
        "errors": WHOLE,
        "seconds": NUMBER,
        "longestS": NUMBER,
        "lastAtMs": EPOCH_MS,
    }
)
LOOP: Final = object_of(
    {
        "name": TEXT,
        "health": {"enum": ["ok", "failing", "late", "paused", "idle"]},
        "paused": TRUTH,
        "running": TRUTH,
        "ledHere": TRUTH,
        "intervalMs": or_null(WHOLE),
        "cron": or_null(TEXT),
        "nextAtMs": or_null(EPOCH_MS),
        "turns": WHOLE,
        "last": or_null(ref("Turn")),
        "totals": ref("Totals"),
    }
)
ALERT: Final = object_of(
    {
        "id": or_null(WHOLE),
        "node": TEXT,
        "rule": TEXT,
        "severity": {"enum": ["INFO", "WARNING", "ERROR", "CRITICAL"]},
        "message": TEXT,
        "raisedAtMs": EPOCH_MS,
        "recoveredAtMs": or_null(EPOCH_MS),
        "acknowledgedAtMs": or_null(EPOCH_MS),
        "acknowledgedBy": or_null(TEXT),
    }
)
_CONFIG: Final = of_json(ref("Config"), "The settings now in force")
_LOOP: Final = of_json(ref("Loop"), "The loop now")
_LOOPS: Final = object_of({"loops": list_of(ref("Loop")), "serverTime": EPOCH_MS})
_PAGE: Final = object_of(
    {"loop": ref("Loop"), "turns": list_of(ref("Turn")), "next": or_null(TEXT), "serverTime": EPOCH_MS}
)


def _limit(most: int) -> Query:
    return Query("limit", "Rows a page.", {"type": "integer", "minimum": 1, "maximum": most, "default": 50})


ROUTES: Final = (
    Route("GET", "/config", read_config, "Read the run-time settings and where each comes from", _CONFIG),
    Route(
        "PATCH",
        "/config",
        patch_config,
        "Change run-time settings",
        _CONFIG,
        body=of_json(ref("ConfigPatch")),
        refusals=(400, 422, 503),
    ),
    Route(
        "DELETE",
        "/config/{name}",
        reset_config,
        "Forget the run-time value of a setting: environment or default counts again",
        _CONFIG,
        refusals=(404, 503),
    ),
    Route(
        "POST",
        "/force-batch",
        force_batch,
        "Flush now; answers when every frame is handed over or counted as deferred",
        of_json(ref("Forced")),
        refusals=(503,),
    ),
    Route("GET", "/loops", list_loops, "List the loops", of_json(_LOOPS)),
    Route(
        "GET",
        "/loops/{name}",
        read_loop,
        "Read a loop and its history, newest turn first",
        of_json(_PAGE),
        (_limit(HISTORY_AT_MOST), Query("before", "The `next` of the page before.")),
        refusals=(404, 422, 503),
    ),
    Route(
        "PATCH",
        "/loops/{name}",
        patch_loop,
        "Change a loop's interval",
        _LOOP,
        body=of_json(object_of({"intervalMs": WHOLE})),
        refusals=(400, 404, 422, 503),
    ),
    Route(
        "POST",
        "/loops/{name}/run",
        run_loop,
        "Take a turn now; answers when it has ended",
        of_json(object_of({"turn": ref("Turn")})),
        refusals=(404, 503),
    ),
    Route(
        "POST",
        "/loops/{name}/pause",
        pause_loop,
        "Take no turn but by run, until resume",
        _LOOP,
        refusals=(404,),
    ),
    Route("POST", "/loops/{name}/resume", resume_loop, "Go on", _LOOP, refusals=(404,)),
    Route(
        "GET",
        "/alerts",
        list_alerts,
        "List alerts, newest first",
        of_json(object_of({"alerts": list_of(ref("Alert")), "next": or_null(WHOLE)})),
        (
            Query("open", "Only those that stand.", {"type": "boolean", "default": False}),
            _limit(ALERTS_AT_MOST),
            Query("before", "The `next` of the page before.", WHOLE),
        ),
        refusals=(422, 503),
    ),
    Route(
        "POST",
        "/alerts/{id}/acknowledge",
        acknowledge_alert,
        "Note that you know of an alert",
        of_json(ref("Alert")),
        refusals=(404, 503),
    ),
)
