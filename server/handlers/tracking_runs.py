"""The runs of tracking, for administrators: a run now, how runs went, health, what calls cost, what failed, how much is needed.

Opening a run is quick; it is worked off in the background and followed by `GET /tracking/runs/{id}` or by the topic `tracking`.
Rates are per cent, money is cents; what calls cost is in millionths of a dollar (`...Micros`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from aiohttp import web

from server.batching.tracking.health import Stats
from server.batching.tracking.quota import Usage
from server.batching.tracking.runs import KEY_MOST, RunView
from server.batching.tracking.tracker import Opened, Planned
from server.batching.tracking.usage import ActorUse
from server.core.identity import Identity
from server.edge.web import json, whole_number
from server.errors import Code, Refused
from server.handlers.imports import AUDIT_ID, BEFORE, KEY_HEADER, id_of
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
    list_of,
    object_of,
    of_json,
    or_null,
    ref,
)
from server.handlers.saying import fields, number, said
from server.handlers.tracking import CENTS, LIMIT, PLATFORM, PLATFORMS, asked, limit_in
from server.protocol.tracking import CLIPS_MOST, EventLinkIn, RunIn
from server.settings.declare import DAY_MS
from server.settings.tracking import pace_of, plan_of

LOOPS: Final = "tracking-"
WEEK_MOST: Final = 10_000_000
DAYS_MOST: Final = 3_650
CHECKS_MOST: Final = 1_440
POSTS_MOST: Final = 1_000
EVERY_LEAST_MS: Final = 1_000
CLIPS: Final = ("due", "leased", "live", "unavailable", "unsupported")
CAMPAIGNS: Final = ("active", "paused", "completed", "pressing")


# --- runs ---


async def start_tracking_run(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """A run now, or the one that is under way."""
    key = request.headers.get(KEY_HEADER)
    if key is not None and not (1 <= len(key) <= KEY_MOST and key.isascii() and key.isprintable()):
        message = f"{KEY_HEADER} has 1 to {KEY_MOST} printable characters of ASCII"
        raise Refused(Code.BAD_MESSAGE, message, field=KEY_HEADER, limit=KEY_MOST)
    body = await asked(request, RunIn)
    return _opened(await ports.tracker.run_now(who, body.limit, key))


async def stop_tracking_run(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """No further batch of calls."""
    return _opened(await ports.tracker.stop(id_of(request), who))


def _opened(opened: Opened) -> web.StreamResponse:
    return json({"run": run_json(opened.run), "new": opened.new, "auditId": opened.audit_id})


def run_json(run: RunView) -> dict[str, object]:
    """A run and how far it is."""
    shown = fields(
        run,
        status=run.status,
        seconds=round(run.seconds, 3),
        callSeconds=round(run.call_seconds, 3),
        averageSeconds=_rounded(run.average_seconds, 3),
        successRate=_rounded(run.success_percent),
        percent=round(run.percent, 1),
    )
    return {name: value for name, value in shown.items() if name not in ("now", "stopping")}


def _rounded(value: float | None, places: int = 1) -> float | None:
    return None if value is None else round(value, places)


async def list_tracking_runs(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """A page of runs."""
    limit = limit_in(request)
    found = await ports.tracker.runs(who, number(request, "before"), limit)
    return json({"runs": [run_json(run) for run in found], "next": found[-1].id if len(found) == limit else None})


async def read_tracking_run(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """One run."""
    return json(run_json(await ports.tracker.run(id_of(request), who)))


# --- what failed ---


async def list_failed(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """A page of posts that could not be read."""
    limit = limit_in(request)
    found = await ports.tracker.failed(who, number(request, "before"), limit)
    return json({"failed": said(found), "next": found[-1].id if len(found) == limit else None})


async def retry_failed(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Let a post be read with the next run."""
    retried = await ports.tracker.retry(id_of(request), who)
    return json(fields(retried))


async def link_clip(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Which event of the live map moves with a clip."""
    clip, body = id_of(request), await asked(request, EventLinkIn)
    audit_id = await ports.tracker.link(clip, body.event_id, who)
    return json({"clipId": clip, "eventId": body.event_id, "auditId": audit_id})


# --- how it is ---


async def read_tracking_health(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """How runs went in the last day, and the month's calls."""
    health = await ports.tracker.health(who)
    return json(
        {
            "status": health.status,
            "successRate": _rounded(health.success_percent),
            **{name: getattr(health, name) for name in ("runs", "processed", "successful", "failed")},
            "lastRunAtMs": fields(health)["lastRunAtMs"],
            "intervalMs": health.interval_ms,
            "running": None if health.running is None else run_json(health.running),
            "quota": quota_json(health.quota),
            "provider": {"configured": health.configured},
            "loops": _loops(ports),
            "serverTime": ports.clock.now_ms(),
        }
    )


def quota_json(usage: Usage) -> dict[str, object]:
    """The month's calls."""
    return {
        "provider": usage.provider,
        "month": f"{usage.month:%Y-%m}",
        "used": usage.calls,
        "reserved": usage.reserved,
        "limit": usage.quota,
        "left": usage.left,
        "percent": round(usage.percent, 1),
        "projected": usage.projected,
        "projectedPercent": round(usage.projected_percent, 1),
    }


def _loops(ports: Ports) -> list[dict[str, object]]:
    return [
        {
            "name": state.name,
            "health": state.health,
            "paused": state.paused,
            "lastAtMs": None if state.last is None else state.last.started_at_ms,
        }
        for state in ports.panel.list()
        if state.name.startswith(LOOPS)
    ]


async def read_tracking_stats(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """What calls did and cost in this month, what waits, how campaigns are."""
    stats = await ports.tracker.stats(who)
    return json({**stats_json(stats), "serverTime": ports.clock.now_ms()})


def stats_json(stats: Stats) -> dict[str, object]:
    """Statistics as JSON."""
    sums = stats.sums
    return {
        "quota": quota_json(stats.usage),
        "actors": [actor_json(one) for one in stats.actors],
        "platforms": [_platform(name, [one for one in stats.actors if one.platform == name]) for name in PLATFORMS],
        "failed": {"open": stats.failed_open, "retryable": stats.failed_retryable},
        "clips": {name: getattr(stats, name) for name in CLIPS},
        "campaigns": {
            **{name: getattr(sums, f"campaigns_{name}") for name in CAMPAIGNS},
            "completionPercent": _rounded(stats.completion_percent),
        },
        "money": {
            "spentCents": sums.spent_cents,
            "leftCents": sums.left_cents,
            "paidCents": sums.paid_cents,
            "payoutsCents": sums.payouts_cents,
        },
        "waiting": {
            "submissions": sums.submissions_pending,
            "held": sums.held,
            "heldHours": round(sums.held_hours, 1),
            "payoutsPending": sums.payouts_pending,
            "payoutsApproved": sums.payouts_approved,
            "payoutsHours": round(sums.payouts_hours, 1),
        },
    }


def actor_json(use: ActorUse) -> dict[str, object]:
    """An actor in this month."""
    return fields(
        use,
        seconds=round(use.seconds, 3),
        successRate=_rounded(use.success_percent),
        averageSeconds=_rounded(use.average_seconds, 3),
        costPerSuccessMicros=use.cost_per_success_micros,
    )


def _platform(name: str, actors: Sequence[ActorUse]) -> dict[str, object]:
    calls, good = sum(one.calls for one in actors), sum(one.succeeded for one in actors)
    judged = good + sum(one.failed for one in actors)
    return {
        "platform": name,
        "calls": calls,
        "posts": sum(one.posts for one in actors),
        "averageSeconds": round(sum(one.seconds for one in actors) / calls, 3) if calls else None,
        "successRate": round(100 * good / judged, 1) if judged else None,
    }


# --- how much is needed ---


async def read_tracking_plan(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Live clips, calls and plans for so many clips a week."""
    pace = pace_of(ports.settings)
    given = {
        "clipsPerWeek": whole_number(request, "clipsPerWeek", 500, 0, WEEK_MOST),
        "lifeDays": whole_number(request, "lifeDays", 30, 1, DAYS_MOST),
        "checksPerDay": whole_number(request, "checksPerDay", 6, 1, CHECKS_MOST),
        "postsPerCall": whole_number(request, "postsPerCall", 1, 1, POSTS_MOST),
        "runClips": whole_number(request, "runClips", pace.limit, 1, CLIPS_MOST),
        "runEveryMs": whole_number(request, "runEveryMs", pace.interval_ms, EVERY_LEAST_MS, DAY_MS),
    }
    planned = await ports.tracker.plan(
        who,
        clips_per_week=given["clipsPerWeek"],
        life_days=given["lifeDays"],
        checks_per_day=given["checksPerDay"],
        posts_per_call=given["postsPerCall"],
        run_clips=given["runClips"],
        run_every_s=given["runEveryMs"] // 1000,
    )
    runs_per_day = round(DAY_MS / given["runEveryMs"], 2)
    return json({"given": given, **plan_json(planned, plan_of(ports.settings).name, runs_per_day)})


def plan_json(planned: Planned, ours: str, runs_per_day: float) -> dict[str, object]:
    """What is needed, and which plans are enough."""
    needed = planned.demand
    plans = [
        {
            "name": offer.plan.name,
            "calls": offer.plan.calls,
            "monthlyCents": offer.plan.price_cents,
            "percent": round(100 * offer.share, 1),
            "enough": offer.enough,
            "ours": offer.plan.name == ours,
        }
        for offer in needed.offers
    ]
    return {
        "liveClips": needed.live,
        "checksPerDay": needed.checks_per_day,
        "callsPerDay": needed.calls_per_day,
        "callsPerMonth": needed.calls_per_month,
        "capacity": {
            "runsPerDay": runs_per_day,
            "perDay": needed.capacity_per_day,
            "perWeek": needed.capacity_per_week,
            "clipsPerRun": needed.clips_per_run,
            "enough": needed.enough_capacity,
        },
        "plans": plans,
        "cheapest": None if needed.cheapest is None else needed.cheapest.name,
        "actual": {"liveClips": planned.live.active + planned.live.ended},
    }


# --- as told to the OpenAPI document ---

_RATE: Final = or_null({"type": "number", "minimum": 0, "maximum": 100})
_REASONS: Final = ("done", "time_limit", "quota", "provider_auth", "stopped", "lost")
MICROS: Final = {"type": "integer", "description": "millionths of a dollar"}
RUN: Final = object_of(
    {
        "id": WHOLE,
        "occasion": {"enum": ["interval", "forced"]},
        "node": TEXT,
        "limit": WHOLE,
        "status": {"enum": ["running", "done"]},
        **dict.fromkeys(("claimed", "processed", "successful", "failed", "calls"), WHOLE),
        "successRate": _RATE,
        "averageSeconds": or_null(NUMBER),
        **dict.fromkeys(("seconds", "callSeconds", "percent"), NUMBER),
        "earnedCents": CENTS,
        "stopReason": or_null({"enum": list(_REASONS)}),
        "error": or_null(TEXT),
        "startedAtMs": EPOCH_MS,
        "finishedAtMs": or_null(EPOCH_MS),
    }
)
QUOTA: Final = object_of(
    {
        "provider": TEXT,
        "month": {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}$", "description": "in UTC"},
        **dict.fromkeys(("used", "reserved", "limit", "left", "projected"), WHOLE),
        **dict.fromkeys(("percent", "projectedPercent"), NUMBER),
    }
)
_LOOP: Final = object_of({"name": TEXT, "health": TEXT, "paused": TRUTH, "lastAtMs": or_null(EPOCH_MS)})
HEALTH: Final = object_of(
    {
        "status": {"enum": ["HEALTHY", "DEGRADED", "UNHEALTHY", "NO_DATA", "STALE"]},
        "successRate": _RATE,
        **dict.fromkeys(("runs", "processed", "successful", "failed", "intervalMs"), WHOLE),
        "lastRunAtMs": or_null(EPOCH_MS),
        "running": or_null(ref("TrackingRun")),
        "quota": ref("TrackingQuota"),
        "provider": object_of({"configured": TRUTH}),
        "loops": list_of(_LOOP),
        "serverTime": EPOCH_MS,
    }
)
FAILED: Final = object_of(
    {
        "id": WHOLE,
        "clipId": WHOLE,
        "platform": PLATFORM,
        **dict.fromkeys(("postId", "url", "reason", "error"), TEXT),
        "runId": or_null(WHOLE),
        "retryable": TRUTH,
        "attempts": WHOLE,
        "nextAttemptAtMs": or_null(EPOCH_MS),
        **dict.fromkeys(("firstAtMs", "lastAtMs"), EPOCH_MS),
    }
)
_ACTOR: Final = object_of(
    {
        "platform": PLATFORM,
        "actor": TEXT,
        **dict.fromkeys(("calls", "posts", "succeeded", "failed"), WHOLE),
        "successRate": _RATE,
        "averageSeconds": {**or_null(NUMBER), "description": "of a call"},
        "seconds": NUMBER,
        "costMicros": MICROS,
        "costPerSuccessMicros": or_null(MICROS),
        "holds": {**TRUTH, "description": "its success rate holds, so it is asked before dearer ones"},
    }
)
_PLATFORM: Final = object_of(
    {
        "platform": PLATFORM,
        "calls": WHOLE,
        "posts": WHOLE,
        "averageSeconds": {**or_null(NUMBER), "description": "of a call"},
        "successRate": _RATE,
    }
)
_CENTS_OF: Final = ("spentCents", "leftCents", "paidCents", "payoutsCents")
STATS: Final = object_of(
    {
        "quota": ref("TrackingQuota"),
        "actors": list_of(_ACTOR),
        "platforms": list_of(_PLATFORM),
        "failed": object_of(dict.fromkeys(("open", "retryable"), WHOLE)),
        "clips": object_of(dict.fromkeys(CLIPS, WHOLE)),
        "campaigns": object_of({**dict.fromkeys(CAMPAIGNS, WHOLE), "completionPercent": or_null(NUMBER)}),
        "money": object_of(dict.fromkeys(_CENTS_OF, CENTS)),
        "waiting": object_of(
            {
                **dict.fromkeys(("submissions", "held", "payoutsPending", "payoutsApproved"), WHOLE),
                **dict.fromkeys(("heldHours", "payoutsHours"), NUMBER),
            }
        ),
        "serverTime": EPOCH_MS,
    }
)
_GIVEN: Final = ("clipsPerWeek", "lifeDays", "checksPerDay", "postsPerCall", "runClips", "runEveryMs")
_OFFER: Final = object_of(
    {
        "name": TEXT,
        "calls": WHOLE,
        "monthlyCents": CENTS,
        "percent": {**NUMBER, "description": "of its calls, what is needed"},
        "enough": TRUTH,
        "ours": TRUTH,
    }
)
PLAN: Final = object_of(
    {
        "given": object_of(dict.fromkeys(_GIVEN, WHOLE)),
        **dict.fromkeys(("liveClips", "checksPerDay", "callsPerDay", "callsPerMonth"), WHOLE),
        "capacity": object_of(
            {
                "runsPerDay": NUMBER,
                "perDay": WHOLE,
                "perWeek": WHOLE,
                "clipsPerRun": {**WHOLE, "description": "what a run would have to take"},
                "enough": TRUTH,
            }
        ),
        "plans": list_of(_OFFER),
        "cheapest": or_null(TEXT),
        "actual": object_of({"liveClips": WHOLE}),
    }
)
_STARTED: Final = of_json(
    object_of({"run": ref("TrackingRun"), "new": TRUTH, "auditId": or_null(AUDIT_ID)}),
    "The run; not new: one was under way, or it is this key's",
)
_STOPPED: Final = of_json(
    object_of({"run": ref("TrackingRun"), "new": TRUTH, "auditId": AUDIT_ID}), "The run, which takes no further batch"
)
_RETRIED: Final = of_json(object_of({"failed": ref("FailedScrape"), "auditId": AUDIT_ID}), "It is due at once")
_LINKED: Final = of_json(object_of({"clipId": WHOLE, "eventId": or_null(TEXT), "auditId": AUDIT_ID}))


def _number(name: str, meaning: str, usual: int | str) -> Query:
    about: dict[str, object] = {"default": usual} if isinstance(usual, int) else {"description": usual}
    return Query(name, meaning, {**WHOLE, **about})


_BASE: Final = "/tracking/runs"
ROUTES: Final = (
    Route(
        "POST",
        _BASE,
        start_tracking_run,
        "Begin a run of the clips that are due, or join the one under way",
        _STARTED,
        body=Content({"application/json": ref("RunIn")}, required=False),
        refusals=(400, 409, 413, 422, 503),
        headers={KEY_HEADER: "asking again with the same key begins nothing new"},
    ),
    Route(
        "GET",
        _BASE,
        list_tracking_runs,
        "List runs, newest first",
        of_json(object_of({"runs": list_of(ref("TrackingRun")), "next": or_null(WHOLE)})),
        (BEFORE, LIMIT),
        refusals=(422, 503),
    ),
    Route("GET", f"{_BASE}/{{id}}", read_tracking_run, "Read a run", of_json(ref("TrackingRun")), refusals=(404, 503)),
    Route(
        "POST",
        f"{_BASE}/{{id}}/stop",
        stop_tracking_run,
        "Let a run take no further batch of calls; what was not asked for stays due",
        _STOPPED,
        refusals=(404, 409, 503),
    ),
    Route(
        "GET",
        "/tracking/failed",
        list_failed,
        "List posts that could not be read and still cannot, newest first",
        of_json(object_of({"failed": list_of(ref("FailedScrape")), "next": or_null(WHOLE)})),
        (BEFORE, LIMIT),
        refusals=(422, 503),
    ),
    Route(
        "POST",
        "/tracking/failed/{id}/retry",
        retry_failed,
        "Let a post that could not be read be read with the next run",
        _RETRIED,
        refusals=(404, 503),
    ),
    Route(
        "PUT",
        "/tracking/clips/{id}/event",
        link_clip,
        "Let an event of the live map move with a clip (TRACKING_POPULARITY), or none",
        _LINKED,
        body=of_json(ref("EventLinkIn")),
        refusals=(400, 404, 413, 422, 503),
    ),
    Route(
        "GET",
        "/tracking/health",
        read_tracking_health,
        "How runs went in the last day, and how many of the month's calls are used",
        of_json(ref("TrackingHealth")),
        refusals=(503,),
    ),
    Route(
        "GET",
        "/tracking/stats",
        read_tracking_stats,
        "What calls did and cost in this month (UTC), what waits, how campaigns are",
        of_json(ref("TrackingStats")),
        refusals=(503,),
    ),
    Route(
        "GET",
        "/tracking/plan",
        read_tracking_plan,
        "Live clips, calls a day and a month, and which of the provider's plans is enough",
        of_json(ref("TrackingPlan")),
        (
            _number("clipsPerWeek", "New clips a week.", 500),
            _number("lifeDays", "Days that a clip is looked at.", 30),
            _number("checksPerDay", "How often a day each is looked at.", 6),
            _number("postsPerCall", "Posts that one call asks for.", 1),
            _number("runClips", "Clips a run takes.", "as set"),
            _number("runEveryMs", "From one run to the next (ms).", "as set"),
        ),
        refusals=(422, 503),
    ),
)
