"""The schedules for administrators: batches and their businesses, trigger, pause, evening out, runs, whether all is well.

Each handler calls one verb and answers; what changes something answers with the number of its entry in the audit trail.
A base schedule that nobody has needed yet is listed too, without an id.
"""

from __future__ import annotations

from typing import Final, get_args

from aiohttp import web

from server.batching.schedules.catalog import STATES, Batch, Turned
from server.batching.schedules.plan import HOURS_MOST, PLATFORMS, TYPES, Health, Line, Platform, Type
from server.batching.schedules.reading import RUN_STATES
from server.batching.schedules.upkeep import Action
from server.core.identity import Identity
from server.edge.web import json, json_object, whole_number
from server.errors import Code, Refused
from server.handlers.admin import SMALL_BODY
from server.handlers.businesses import PLATFORM, TYPE
from server.handlers.imports import AUDIT_ID, BEFORE, KEY_HEADER, id_of, limit_of
from server.handlers.ports import (
    EPOCH_MS,
    NUMBER,
    TEXT,
    TRUTH,
    WHOLE,
    Content,
    Ports,
    Query,
    Route,
    Schema,
    list_of,
    object_of,
    of_json,
    or_null,
    ref,
)
from server.handlers.saying import AFTER, chosen, fields, number, said, words
from server.protocol.schedules import BalanceIn, asked

PAGE_MOST: Final = 1_000
GRADES: Final[tuple[Health, ...]] = get_args(Health)
SUMS: Final = ("batches", "businesses", "capacity", "paused")


# --- batches ---


async def list_lines(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """The 32 and those of teams' own intervals, each with all its batches together."""
    lines = await ports.schedules.reading.lines(who)
    shown = [
        fields(line, base=line.base, load=_share(line.businesses, line.capacity), health=line.worst) for line in lines
    ]
    grades = {str(grade): sum(getattr(line, grade) for line in lines) for grade in GRADES}
    sums = {name: sum(getattr(line, name) for line in lines) for name in SUMS}
    summary: dict[str, object] = {"lines": len(lines), **sums, "byHealth": grades}
    return json({"lines": shown, "summary": summary})


def _share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0


async def list_schedules(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """A page of batches."""
    limit = whole_number(request, "limit", 100, 1, PAGE_MOST)
    batches = await ports.schedules.core.catalog.batches(
        who,
        platform=_platform(request),
        type=_type(request),
        hours=whole_number(request, "hours", 0, 1, HOURS_MOST) or None,
        health=_health(request),
        state=chosen(request, "state", STATES),
        after=words(request, "after"),
        limit=limit,
    )
    following = batches[-1].cursor if len(batches) == limit else None
    return json({"schedules": [schedule_json(batch) for batch in batches], "next": following})


def schedule_json(batch: Batch) -> dict[str, object]:
    """A batch as JSON."""
    shown = fields(batch, load=_share(batch.businesses, batch.capacity), health=batch.health, empty=batch.empty)
    return {**shown, "base": batch.base}


def _platform(request: web.Request) -> Platform | None:
    text = chosen(request, "platform", PLATFORMS)
    return next((platform for platform in PLATFORMS if platform == text), None)


def _type(request: web.Request) -> Type | None:
    text = chosen(request, "type", TYPES)
    return next((type for type in TYPES if type == text), None)


def _health(request: web.Request) -> Health | None:
    text = chosen(request, "health", GRADES)
    return next((grade for grade in GRADES if grade == text), None)


async def list_members(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """A page of a batch's businesses."""
    limit = whole_number(request, "limit", 50, 1, PAGE_MOST)
    schedule, verbs = id_of(request), ports.schedules.core.catalog
    batch = await verbs.batch(schedule, who)
    members = await verbs.members(schedule, who, after=number(request, "after") or 0, limit=limit)
    following = members[-1].business_id if len(members) == limit else None
    return json({"schedule": schedule_json(batch), "businesses": said(members), "next": following})


async def trigger_schedule(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Start a run now."""
    key = request.headers.get(KEY_HEADER)
    if key is not None and not (1 <= len(key) <= 100 and key.isprintable()):
        raise Refused(Code.BAD_MESSAGE, f"{KEY_HEADER} has 1 to 100 printable characters", field=KEY_HEADER, limit=100)
    schedule = id_of(request)
    started, audit_id = await ports.schedules.trigger(schedule, who, key)
    ports.schedules.note("runs", "schedules", schedules=[schedule])
    return json({"runId": started.run, "new": started.new, "auditId": audit_id})


async def pause_schedule(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """No runs, and no further businesses, until it is resumed."""
    return await _turned(ports, await ports.schedules.core.catalog.pause(id_of(request), who))


async def resume_schedule(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Go on with the next slot."""
    return await _turned(ports, await ports.schedules.core.catalog.resume(id_of(request), who))


async def _turned(ports: Ports, turned: Turned) -> web.StreamResponse:
    ports.schedules.note("schedules", schedules=[turned.batch.id or 0])
    return json({"schedule": schedule_json(turned.batch), "auditId": turned.audit_id})


# --- evening out ---


async def rebalance(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Even out the loads of batches."""
    return await _balance(request, ports, who, "rebalance")


async def consolidate(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Empty batches that are hardly used."""
    return await _balance(request, ports, who, "consolidate")


async def _balance(request: web.Request, ports: Ports, who: Identity, action: Action) -> web.StreamResponse:
    body = asked(BalanceIn, await json_object(request, SMALL_BODY) if request.can_read_body else {})
    line, verbs = _line(body), ports.schedules.core.upkeep
    if body.preview:
        plans = await verbs.proposals([action], line)
        counts = {
            "lines": len(plans),
            "moves": sum(one.plan.moves for one in plans),
            "created": sum(len(one.plan.created) for one in plans),
            "retired": sum(len(one.plan.retired) for one in plans),
            "more": False,
        }
        told = [fields(one.plan, **_line_json(one.line), action=one.action) for one in plans]
        return json({"preview": True, **counts, "plans": told, "auditId": None})
    done = await verbs.balance(who, [action], line)
    ports.schedules.note("schedules", schedules=None)
    return json(fields(done, preview=False, plans=[]))


def _line(body: BalanceIn) -> Line | None:
    given = (body.platform, body.type, body.hours)
    if body.platform is None or body.type is None or body.hours is None:
        if given != (None, None, None):
            raise Refused(Code.BAD_MESSAGE, "name platform, type and hours, or none of them", field="platform")
        return None
    return Line(body.platform, body.type, body.hours)


def _line_json(line: Line) -> dict[str, object]:
    return {"platform": line.platform, "type": line.type, "hours": line.hours}


# --- runs, checks, health ---


async def list_provider_runs(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """A page of runs."""
    return await _runs(request, ports, who, None)


async def list_runs_of(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """A page of a batch's runs."""
    schedule = id_of(request)
    await ports.schedules.core.catalog.batch(schedule, who)
    return await _runs(request, ports, who, schedule)


async def _runs(request: web.Request, ports: Ports, who: Identity, schedule: int | None) -> web.StreamResponse:
    limit = whole_number(request, "limit", 50, 1, PAGE_MOST)
    state = chosen(request, "state", RUN_STATES)
    runs = await ports.schedules.reading.runs(
        who, schedule=schedule, state=state, before=number(request, "before"), limit=limit
    )
    return json({"runs": said(runs), "next": runs[-1].id if len(runs) == limit else None})


async def validate(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Every check of what is stored, and of the provider's side."""
    report = await ports.schedules.validate()
    checks = [fields(check, ok=check.ok) for check in report.checks]
    return json({"ok": report.ok, "checks": checks})


async def read_health(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """How the schedules are doing."""
    return json(await ports.schedules.health(who))


# --- as told to the OpenAPI document ---

_HEALTH: Final[Schema] = {"enum": list(GRADES)}
_SUMS: Final = dict.fromkeys(SUMS, WHOLE)
SCHEDULE: Final = object_of(
    {
        "id": or_null(WHOLE),
        "platform": PLATFORM,
        "type": TYPE,
        "hours": WHOLE,
        "index": WHOLE,
        "base": TRUTH,
        "businesses": WHOLE,
        "capacity": WHOLE,
        "load": NUMBER,
        "health": _HEALTH,
        "active": TRUTH,
        "paused": TRUTH,
        "empty": TRUTH,
        "nextRunAtMs": or_null(EPOCH_MS),
        "lastRunAtMs": or_null(EPOCH_MS),
        "inputVersion": WHOLE,
        "providerScheduleId": or_null(TEXT),
    }
)
LINE: Final = object_of(
    {
        "platform": PLATFORM,
        "type": TYPE,
        "hours": WHOLE,
        "base": TRUTH,
        **_SUMS,
        **dict.fromkeys(GRADES, WHOLE),
        "load": NUMBER,
        "health": _HEALTH,
        "nextRunAtMs": or_null(EPOCH_MS),
        "lastRunAtMs": or_null(EPOCH_MS),
    }
)
RUN: Final = object_of(
    {
        "id": WHOLE,
        "kind": {"enum": ["scheduled", "triggered", "retry"]},
        "scheduleId": or_null(WHOLE),
        "platform": PLATFORM,
        "type": TYPE,
        "businessId": or_null(WHOLE),
        "state": {"enum": list(RUN_STATES)},
        "providerRunId": or_null(TEXT),
        **dict.fromkeys(("asked", "items", "attributed", "unasked", "missing", "attempts"), WHOLE),
        "error": or_null(TEXT),
        "createdAtMs": EPOCH_MS,
        **dict.fromkeys(("startedAtMs", "finishedAtMs", "processedAtMs"), or_null(EPOCH_MS)),
    }
)
_SUMMARY: Final = object_of({"lines": WHOLE, **_SUMS, "byHealth": object_of(dict.fromkeys(GRADES, WHOLE))})
_MEMBER: Final = object_of(
    {
        "businessId": WHOLE,
        "team": TEXT,
        "name": TEXT,
        "identifier": TEXT,
        "returned": or_null(TEXT),
        "status": {"enum": ["active", "paused"]},
    }
)
_TRANSFER: Final = object_of({"source": WHOLE, "target": WHOLE, "count": WHOLE})
_PLAN: Final = object_of(
    {
        "platform": PLATFORM,
        "type": TYPE,
        "hours": WHOLE,
        "action": {"enum": ["rebalance", "consolidate"]},
        "transfers": list_of(_TRANSFER),
        "created": list_of(WHOLE),
        "retired": list_of(WHOLE),
    }
)
_BALANCED: Final = of_json(
    object_of(
        {
            "preview": TRUTH,
            **dict.fromkeys(("lines", "moves", "created", "retired"), WHOLE),
            "more": TRUTH,
            "plans": list_of(_PLAN),
            "auditId": or_null(AUDIT_ID),
        }
    ),
    "What was done, or would be; batches by their index. `more`: a schedule was too much for once, ask again",
)
_STARTED: Final = of_json(
    object_of({"runId": WHOLE, "new": TRUTH, "auditId": or_null(AUDIT_ID)}),
    "The run; not new: by its key, or because it was under way already",
)
_TURNED: Final = of_json(object_of({"schedule": ref("Schedule"), "auditId": or_null(AUDIT_ID)}), "The schedule now")
_RUNS: Final = of_json(object_of({"runs": list_of(ref("Run")), "next": or_null(WHOLE)}))
_RUN_QUERY: Final = (Query("state", "Only those.", {"enum": list(RUN_STATES)}), BEFORE, limit_of(50))
_CHECK: Final = object_of({"name": TEXT, "meaning": TEXT, "ok": TRUTH, "failed": WHOLE, "examples": list_of(TEXT)})
_LOOP: Final = object_of({"name": TEXT, "health": TEXT, "paused": TRUTH, "lastAtMs": or_null(EPOCH_MS)})
HEALTH: Final = object_of(
    {
        "status": {"enum": ["ok", "warning", "critical"]},
        "schedules": object_of(dict.fromkeys(("total", "active", "paused", "empty"), WHOLE)),
        "batches": object_of(dict.fromkeys(GRADES, WHOLE)),
        "businesses": WHOLE,
        "teams": WHOLE,
        "retries": object_of(dict.fromkeys(("waiting", "running", "resolved", "failed"), WHOLE)),
        "permanentlyFailed": WHOLE,
        "runs": object_of({"underWay": WHOLE, "most": WHOLE}),
        "lastWebhookAtMs": or_null(EPOCH_MS),
        "webhooksWaiting": WHOLE,
        "provider": object_of(
            {"configured": TRUTH, "reachable": or_null(TRUTH), "message": or_null(TEXT), "webhooks": TRUTH}
        ),
        "clock": {"enum": ["server", "provider"]},
        "loops": list_of(_LOOP),
        "serverTime": EPOCH_MS,
    }
)
_BASE: Final = "/admin/schedules"
ROUTES: Final = (
    Route(
        "GET",
        f"{_BASE}/lines",
        list_lines,
        "The 32 schedules and those of teams' own intervals, with all their batches together",
        of_json(object_of({"lines": list_of(ref("ScheduleLine")), "summary": _SUMMARY})),
        refusals=(503,),
    ),
    Route(
        "GET",
        _BASE,
        list_schedules,
        "List schedules: a row a batch, by platform, type, interval and index; the 32 are always there",
        of_json(object_of({"schedules": list_of(ref("Schedule")), "next": or_null(TEXT)})),
        (
            Query("platform", "Only those.", PLATFORM),
            Query("type", "Only those.", TYPE),
            Query("hours", "Only those of this interval.", WHOLE),
            Query("health", "Only those.", _HEALTH),
            Query("state", "Only those; aside: emptied by consolidation.", {"enum": list(STATES)}),
            Query("after", "The `next` of the page before."),
            limit_of(100),
        ),
        refusals=(422, 503),
    ),
    Route(
        "GET",
        f"{_BASE}/validation",
        validate,
        "Is all that is stored right?",
        of_json(object_of({"ok": TRUTH, "checks": list_of(_CHECK)})),
        refusals=(503,),
    ),
    Route(
        "POST",
        f"{_BASE}/rebalance",
        rebalance,
        "Even out the loads of batches, or only show what would be done",
        _BALANCED,
        body=Content({"application/json": ref("BalanceIn")}, required=False),
        refusals=(400, 413, 422, 503),
    ),
    Route(
        "POST",
        f"{_BASE}/consolidate",
        consolidate,
        "Empty batches that are hardly used, or only show what would be done",
        _BALANCED,
        body=Content({"application/json": ref("BalanceIn")}, required=False),
        refusals=(400, 413, 422, 503),
    ),
    Route(
        "GET",
        f"{_BASE}/{{id}}/businesses",
        list_members,
        "The businesses of a schedule",
        of_json(object_of({"schedule": ref("Schedule"), "businesses": list_of(_MEMBER), "next": or_null(WHOLE)})),
        (AFTER, limit_of(50)),
        refusals=(404, 422, 503),
    ),
    Route(
        "GET",
        f"{_BASE}/{{id}}/runs",
        list_runs_of,
        "A schedule's runs, newest first",
        _RUNS,
        _RUN_QUERY,
        refusals=(404, 422, 503),
    ),
    Route(
        "POST",
        f"{_BASE}/{{id}}/trigger",
        trigger_schedule,
        "Start a run of a schedule now",
        _STARTED,
        refusals=(404, 409, 422, 503),
        headers={KEY_HEADER: "asking again with the same key starts nothing new"},
    ),
    Route(
        "PUT",
        f"{_BASE}/{{id}}/pause",
        pause_schedule,
        "No runs, and no further businesses, until resume",
        _TURNED,
        refusals=(404, 503),
    ),
    Route("PUT", f"{_BASE}/{{id}}/resume", resume_schedule, "Go on with the next slot", _TURNED, refusals=(404, 503)),
    Route(
        "GET",
        "/admin/runs",
        list_provider_runs,
        "Runs at the provider, newest first",
        _RUNS,
        _RUN_QUERY,
        refusals=(422, 503),
    ),
    Route(
        "GET",
        "/admin/health",
        read_health,
        "How the schedules are doing",
        of_json(ref("SchedulesHealth")),
        refusals=(503,),
    ),
)
