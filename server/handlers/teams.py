"""Teams for administrators: their tiers and intervals, the retry queue of their businesses, and the audit trail of everything."""

from __future__ import annotations

import datetime as dt
from typing import Final

from aiohttp import web

from server.batching import audit
from server.batching.schedules.intervals import IntervalChange
from server.batching.schedules.mirror import cron
from server.batching.schedules.plan import PLATFORMS, TIERS, TYPES
from server.batching.schedules.reading import RETRY_STATES
from server.core.identity import Identity
from server.edge.web import json, json_object, whole_number
from server.handlers.admin import SMALL_BODY
from server.handlers.businesses import PLATFORM, TYPE
from server.handlers.imports import AUDIT_ID, BEFORE, id_of, limit_of
from server.handlers.ports import (
    EPOCH_MS,
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
from server.handlers.saying import AFTER, chosen, fields, number, said, team_of, words
from server.protocol.schedules import IntervalIn, RetryIn, TierIn, asked

PAGE_MOST: Final = 1_000
DAYS_MOST: Final = 3_650


async def list_teams(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """A page of teams."""
    limit = whole_number(request, "limit", 50, 1, PAGE_MOST)
    after, search = words(request, "after") or "", words(request, "search")
    teams = await ports.schedules.reading.teams(who, search=search, after=after, limit=limit)
    return json({"teams": said(teams), "next": teams[-1].team if len(teams) == limit else None})


async def read_team(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """A team's intervals and batches."""
    team, core = team_of(request), ports.schedules.core
    view = await core.catalog.team(team, who)
    return json(fields(view, own=said(await core.intervals.own(team, who))))


async def change_tier(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Another tier; all businesses of the team move with it."""
    body = asked(TierIn, await json_object(request, SMALL_BODY))
    change = await ports.schedules.core.intervals.set_tier(team_of(request), body.tier, who)
    ports.schedules.note("teams", "schedules", schedules=None)
    return json(said(change))


# --- intervals of teams' own ---


async def read_intervals(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Those of a team, and what was ever changed about them."""
    team, verbs = team_of(request), ports.schedules.core.intervals
    limit = whole_number(request, "limit", 50, 1, PAGE_MOST)
    history = await verbs.history(team, who, before=number(request, "before"), limit=limit)
    own = await verbs.own(team, who)
    following = history[-1].id if len(history) == limit else None
    return json({"intervals": said(own), "history": said(history), "next": following})


async def set_interval(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Give an enterprise team an interval of its own."""
    body, team = asked(IntervalIn, await json_object(request, SMALL_BODY)), team_of(request)
    if ports.settings.schedules_clock == "provider":
        cron(body.hours, 0)  # Refuses what the provider's clock can't say.
    ends = body.expires_at_ms
    change = await ports.schedules.core.intervals.set_own(
        team,
        body.hours,
        who,
        platforms=body.platforms or PLATFORMS,
        types=body.types or TYPES,
        reason=body.reason,
        expires_at=None if ends is None else dt.datetime.fromtimestamp(ends / 1000, dt.UTC),
    )
    return await _changed(ports, who, change)


async def remove_interval(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Back to the interval of the tier."""
    platform, type = chosen(request, "platform", PLATFORMS), chosen(request, "type", TYPES)
    change = await ports.schedules.core.intervals.remove_own(
        team_of(request),
        who,
        platforms=[one for one in PLATFORMS if platform in (None, one)],
        types=[one for one in TYPES if type in (None, one)],
    )
    return await _changed(ports, who, change)


async def _changed(ports: Ports, who: Identity, change: IntervalChange) -> web.StreamResponse:
    ports.schedules.note("teams", "schedules", schedules=None)
    own = await ports.schedules.core.intervals.own(change.team, who)
    said_of = {"team": change.team, "moved": change.moved, "intervals": said(own), "auditId": change.audit_id}
    return json(said_of)


async def list_expiring(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Those of all teams that run out soon."""
    days = whole_number(request, "withinDays", 30, 1, DAYS_MOST)
    limit = whole_number(request, "limit", 100, 1, PAGE_MOST)
    return json({"expiring": said(await ports.schedules.core.intervals.expiries(who, within_days=days, limit=limit))})


# --- retries ---


async def list_retries(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """A page of the retry queue."""
    limit = whole_number(request, "limit", 50, 1, PAGE_MOST)
    state, team = chosen(request, "state", RETRY_STATES), words(request, "team")
    found = await ports.schedules.reading.retries(
        who, state=state, team=team, after=number(request, "after"), limit=limit
    )
    return json({"retries": said(found), "next": found[-1].id if len(found) == limit else None})


async def retry_business(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Try a business again at once, with a fresh count."""
    body = asked(RetryIn, await json_object(request, SMALL_BODY) if request.can_read_body else {})
    business = id_of(request)
    audit_id = await ports.schedules.revive(business, who, body.platform, body.type)
    ports.schedules.note("retries", "runs")
    retries = await ports.schedules.reading.retries(who, business=business, limit=len(PLATFORMS) * len(TYPES))
    return json({"retries": said(retries), "auditId": audit_id})


# --- the trail ---


async def list_audit(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """A page of the audit trail of all systems."""
    limit = whole_number(request, "limit", 50, 1, PAGE_MOST)
    search = audit.Search(
        who=words(request, "who"),
        action=words(request, "action"),
        target=words(request, "target", 500),
        before=number(request, "before"),
        limit=limit,
    )
    entries = await ports.schedules.trail(search)
    return json({"entries": said(entries), "next": entries[-1].id if len(entries) == limit else None})


# --- as told to the OpenAPI document ---

TIER: Final[Schema] = {"enum": list(TIERS)}
INTERVAL: Final = object_of(
    {
        "team": TEXT,
        "platform": PLATFORM,
        "type": TYPE,
        "hours": WHOLE,
        "reason": TEXT,
        "setBy": TEXT,
        "setAtMs": EPOCH_MS,
        "expiresAtMs": or_null(EPOCH_MS),
    }
)
RETRY: Final = object_of(
    {
        "id": WHOLE,
        "team": TEXT,
        "businessId": WHOLE,
        "platform": PLATFORM,
        "type": TYPE,
        "state": {"enum": list(RETRY_STATES)},
        "attempts": WHOLE,
        "nextRetryAtMs": or_null(EPOCH_MS),
        "lastError": or_null(TEXT),
        "createdAtMs": EPOCH_MS,
        "settledAtMs": or_null(EPOCH_MS),
    }
)
_TEAM_LINE: Final = object_of(
    {
        "platform": PLATFORM,
        "type": TYPE,
        "hours": WHOLE,
        "own": TRUTH,
        "expiresAtMs": or_null(EPOCH_MS),
        "businesses": WHOLE,
        "placements": list_of(ref("Placement")),
    }
)
TEAM: Final = object_of(
    {"team": TEXT, "tier": TIER, "businesses": WHOLE, "lines": list_of(_TEAM_LINE), "own": list_of(ref("Interval"))}
)
_HISTORY: Final = object_of(
    {
        "id": WHOLE,
        "team": TEXT,
        "platform": PLATFORM,
        "type": TYPE,
        "change": {"enum": ["set", "removed", "expired", "tier"]},
        "hours": or_null(WHOLE),
        "reason": TEXT,
        "who": or_null(TEXT),
        "expiresAtMs": or_null(EPOCH_MS),
        "atMs": EPOCH_MS,
    }
)
_ENTRY: Final = object_of(
    {
        "id": WHOLE,
        "atMs": EPOCH_MS,
        "who": or_null(TEXT),
        "action": TEXT,
        "target": or_null(TEXT),
        "before": {},
        "after": {},
    }
)
_CHANGED: Final = of_json(
    object_of(
        {"team": TEXT, "moved": WHOLE, "intervals": list_of(ref("Interval")), "auditId": or_null(AUDIT_ID)},
    ),
    "How many moved, and the intervals of its own that the team now has",
)
_TIER_CHANGE: Final = object_of(
    {"team": TEXT, "before": or_null(TIER), "after": TIER, "moved": WHOLE, "auditId": or_null(AUDIT_ID)}
)
_OWN: Final = "/admin/teams/{team}/custom-interval"
ROUTES: Final = (
    Route(
        "GET",
        "/admin/teams",
        list_teams,
        "List teams by name",
        of_json(
            object_of(
                {
                    "teams": list_of(object_of({"team": TEXT, "tier": TIER, "businesses": WHOLE})),
                    "next": or_null(TEXT),
                }
            )
        ),
        (
            Query("search", "A part of the name."),
            Query("after", "The `next` of the page before."),
            limit_of(50),
        ),
        refusals=(422, 503),
    ),
    Route(
        "GET",
        "/admin/teams/{team}/schedules",
        read_team,
        "A team's intervals and the schedules that its businesses are in",
        of_json(ref("Team")),
        refusals=(404, 503),
    ),
    Route(
        "PUT",
        "/admin/teams/{team}/tier",
        change_tier,
        "Change a team's tier; its businesses move with it",
        of_json(_TIER_CHANGE),
        body=of_json(ref("TierIn")),
        refusals=(400, 404, 413, 422, 503),
    ),
    Route(
        "GET",
        _OWN,
        read_intervals,
        "A team's own intervals, and their history, newest first",
        of_json(
            object_of({"intervals": list_of(ref("Interval")), "history": list_of(_HISTORY), "next": or_null(WHOLE)})
        ),
        (BEFORE, limit_of(50)),
        refusals=(404, 422, 503),
    ),
    Route(
        "POST",
        _OWN,
        set_interval,
        "Give an enterprise team an interval of its own",
        _CHANGED,
        body=of_json(ref("IntervalIn")),
        refusals=(400, 404, 409, 413, 422, 503),
    ),
    Route(
        "DELETE",
        _OWN,
        remove_interval,
        "Back to the interval of the tier",
        _CHANGED,
        (
            Query("platform", "Only there; without it everywhere.", PLATFORM),
            Query("type", "Only that; without it both.", TYPE),
        ),
        refusals=(404, 422, 503),
    ),
    Route(
        "GET",
        "/admin/custom-intervals",
        list_expiring,
        "Intervals of teams' own that run out soon",
        of_json(object_of({"expiring": list_of(ref("Interval"))})),
        (
            Query("withinDays", "So soon.", {"type": "integer", "minimum": 1, "maximum": DAYS_MOST, "default": 30}),
            limit_of(100),
        ),
        refusals=(422, 503),
    ),
    Route(
        "GET",
        "/admin/retries",
        list_retries,
        "The retry queue",
        of_json(object_of({"retries": list_of(ref("Retry")), "next": or_null(WHOLE)})),
        (
            Query("state", "Only those.", {"enum": list(RETRY_STATES)}),
            Query("team", "Only those of this team."),
            AFTER,
            limit_of(50),
        ),
        refusals=(422, 503),
    ),
    Route(
        "POST",
        "/admin/businesses/{id}/retry",
        retry_business,
        "Try a business again at once, with a fresh count",
        of_json(object_of({"retries": list_of(ref("Retry")), "auditId": or_null(AUDIT_ID)}), "All of its retries"),
        body=Content({"application/json": ref("RetryIn")}, required=False),
        refusals=(400, 404, 413, 422, 503),
    ),
    Route(
        "GET",
        "/admin/audit",
        list_audit,
        "The audit trail, newest first",
        of_json(object_of({"entries": list_of(_ENTRY), "next": or_null(WHOLE)})),
        (
            Query("who", "Only what this user did."),
            Query("action", "Only this action."),
            Query("target", "Only what was done to this."),
            BEFORE,
            limit_of(50),
        ),
        refusals=(422, 503),
    ),
)
