"""Campaigns and the posts that creators submit to them.

Any token with a name is a creator's: it submits posts and sees its own, and of campaigns those that are open and those it is in,
without their money. Administrators see and decide everything. What changes something answers with the number of its entry in
the audit trail (`auditId`). Money is whole cents.
"""

from __future__ import annotations

import datetime as dt
from typing import Final, TypeVar

from aiohttp import web

from server.batching.tracking import campaigns, submissions
from server.batching.tracking.campaigns import Campaign, Changed, NewCampaign
from server.batching.tracking.submissions import Decided
from server.core.identity import Identity
from server.edge.web import json, json_object, whole_number
from server.handlers.admin import SMALL_BODY
from server.handlers.imports import AUDIT_ID, BEFORE, id_of
from server.handlers.ports import (
    EPOCH_MS,
    NUMBER,
    TEXT,
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
from server.handlers.saying import chosen, fields, number, said, words
from server.protocol.tracking import BudgetIn, CampaignIn, NoteIn, SubmissionIn, parsed
from server.protocol.values import Wire

PAGE_MOST: Final = 500
MICROS_MOST: Final = 253_402_300_799_999_999
"""The last microsecond of the year 9999."""
PLATFORMS: Final = ("tiktok", "instagram", "youtube", "x")
EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
MICRO: Final = dt.timedelta(microseconds=1)

M = TypeVar("M", bound=Wire)


async def asked(request: web.Request, model: type[M]) -> M:
    """What the body asks for; none is an empty one."""
    return parsed(model, await json_object(request, SMALL_BODY) if request.can_read_body else {})


def limit_in(request: web.Request, usual: int = 50) -> int:
    """How many rows a page has."""
    return whole_number(request, "limit", usual, 1, PAGE_MOST)


# --- campaigns ---


async def list_campaigns(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """A page of campaigns."""
    limit, text = limit_in(request), chosen(request, "status", campaigns.STATUSES)
    status = next((one for one in campaigns.STATUSES if one == text), None)
    found = await ports.books.campaigns.list(who, status=status, before=number(request, "before"), limit=limit)
    rows = [campaign_json(campaign) for campaign in found]
    return json({"campaigns": rows, "next": found[-1].id if len(found) == limit else None})


def campaign_json(campaign: Campaign) -> dict[str, object]:
    """A campaign, with what it has left."""
    return fields(campaign, leftCents=campaign.left_cents, spentPercent=campaign.spent_percent)


async def read_campaign(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """One campaign."""
    return json(campaign_json(await ports.books.campaigns.show(id_of(request), who)))


async def create_campaign(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """A new campaign."""
    body = await asked(request, CampaignIn)
    wish = NewCampaign(body.name, body.budget_cents, body.rate_cents, body.baseline, body.reserved_cents)
    return _changed(ports, await ports.books.campaigns.create(wish, who))


async def change_budget(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Another budget or reserve."""
    body = await asked(request, BudgetIn)
    verb = ports.books.campaigns.set_budget
    return _changed(
        ports, await verb(id_of(request), who, budget_cents=body.budget_cents, reserved_cents=body.reserved_cents)
    )


async def pause_campaign(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Neither submissions nor grants."""
    return _changed(ports, await ports.books.campaigns.pause(id_of(request), who))


async def complete_campaign(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """End it."""
    return _changed(ports, await ports.books.campaigns.complete(id_of(request), who), "submissions")


async def reactivate_campaign(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Go on with it."""
    return _changed(ports, await ports.books.campaigns.reactivate(id_of(request), who), "submissions")


def _changed(ports: Ports, changed: Changed, *also: str) -> web.StreamResponse:
    ports.books.note("campaigns", *also)
    campaign = campaign_json(changed.campaign)
    return json({"campaign": campaign, "grantedCents": changed.granted_cents, "auditId": changed.audit_id})


# --- submissions ---


async def list_submissions(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """A page of submissions."""
    limit, text = limit_in(request), chosen(request, "status", submissions.STATUSES)
    found = await ports.books.submissions.list(
        who,
        campaign=number(request, "campaign"),
        status=next((one for one in submissions.STATUSES if one == text), None),
        creator=words(request, "creator"),
        before=number(request, "before"),
        limit=limit,
    )
    return json({"submissions": said(found), "next": found[-1].id if len(found) == limit else None})


async def read_submission(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """One submission."""
    return json(said(await ports.books.submissions.show(id_of(request), who)))


async def list_views(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """How often its post was seen, at each check."""
    limit, micros = limit_in(request, 100), whole_number(request, "before", 0, 1, MICROS_MOST)
    before = EPOCH + micros * MICRO if micros else None
    found = await ports.books.submissions.views(id_of(request), who, before=before, limit=limit)
    # Milliseconds would pass over a count of the same one.
    following = (found[-1].at - EPOCH) // MICRO if len(found) == limit else None
    return json({"views": said(found), "next": following})


async def submit_post(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Submit a post."""
    body = await asked(request, SubmissionIn)
    made = await ports.books.submissions.create(body.campaign_id, body.url, who, creator=body.creator)
    return _decided(ports, made)


async def approve_submission(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Let it earn."""
    return _decided(ports, await ports.books.submissions.approve(id_of(request), who))


async def reject_submission(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Let it earn no more."""
    body = await asked(request, NoteIn)
    return _decided(ports, await ports.books.submissions.reject(id_of(request), who, body.note))


def _decided(ports: Ports, decided: Decided) -> web.StreamResponse:
    ports.books.note("submissions", "campaigns")
    return json(fields(decided))


# --- as told to the OpenAPI document ---

CENTS: Final[Schema] = {"type": "integer", "description": "cents"}
GRANTED: Final[Schema] = {"type": "integer", "description": "cents that were paid by it"}
COMPLETED: Final[Schema] = {"type": "array", "items": WHOLE, "description": "campaigns that are full by it"}
PLATFORM: Final[Schema] = {"enum": list(PLATFORMS)}
_STATUS: Final[Schema] = {"enum": list(campaigns.STATUSES)}
CAMPAIGN: Final = object_of(
    {
        "id": WHOLE,
        "name": TEXT,
        "status": _STATUS,
        "baseline": {"enum": ["submission", "approval", "zero"]},
        "rateCents": {"type": "integer", "description": "cents for a thousand views"},
        "createdAtMs": EPOCH_MS,
        **dict.fromkeys(("completedAtMs", "activatedAtMs"), or_null(EPOCH_MS)),
        **dict.fromkeys(("budgetCents", "reservedCents", "spentCents", "leftCents"), or_null(CENTS)),
        "spentPercent": or_null(NUMBER),
        "submissions": or_null(WHOLE),
    }
)
SUBMISSION: Final = object_of(
    {
        "id": WHOLE,
        "campaignId": WHOLE,
        "campaign": TEXT,
        "clipId": WHOLE,
        "platform": PLATFORM,
        **dict.fromkeys(("postId", "url", "creator", "note"), TEXT),
        "status": {"enum": list(submissions.STATUSES)},
        **dict.fromkeys(("baselineViews", "views", "bestViews"), or_null(WHOLE)),
        **dict.fromkeys(("baselineAtMs", "lastCheckedAtMs", "judgedAtMs"), or_null(EPOCH_MS)),
        "earnedCents": CENTS,
        "finalCents": or_null(CENTS),
        "submittedAtMs": EPOCH_MS,
        "state": {"enum": ["ok", "unavailable", "unsupported"]},
    }
)
STATES: Final = ("counted", "lower", "late", "held", "accepted", "rejected")
_SEEN: Final = object_of({"observationId": WHOLE, "atMs": EPOCH_MS, "views": WHOLE, "state": {"enum": list(STATES)}})
_CHANGED: Final = of_json(
    object_of({"campaign": ref("Campaign"), "grantedCents": GRANTED, "auditId": AUDIT_ID}), "The campaign now"
)
_DECIDED: Final = of_json(
    object_of({"submission": ref("Submission"), "grantedCents": GRANTED, "completed": COMPLETED, "auditId": AUDIT_ID}),
    "The submission now",
)
CREATOR_QUERY: Final = Query("creator", "Only this one's; for admins, others have their own anyway.")


def limit_of(usual: int) -> Query:
    """The parameter `limit`."""
    return Query("limit", "Rows a page.", {"type": "integer", "minimum": 1, "maximum": PAGE_MOST, "default": usual})


LIMIT: Final = limit_of(50)


def note_body() -> Content:
    """A body that may say why."""
    return Content({"application/json": ref("NoteIn")}, required=False)


_BASE: Final = "/tracking/campaigns"
_POSTS: Final = "/tracking/submissions"
ROUTES: Final = (
    Route(
        "GET",
        _BASE,
        list_campaigns,
        "List campaigns, newest first; for creators those that are open and those they are in, without money",
        of_json(object_of({"campaigns": list_of(ref("Campaign")), "next": or_null(WHOLE)})),
        (Query("status", "Only those.", _STATUS), BEFORE, LIMIT),
        refusals=(422, 503),
    ),
    Route("GET", f"{_BASE}/{{id}}", read_campaign, "Read a campaign", of_json(ref("Campaign")), refusals=(404, 503)),
    Route(
        "POST",
        _BASE,
        create_campaign,
        "Create a campaign; it is ACTIVE at once",
        _CHANGED,
        body=of_json(ref("CampaignIn")),
        refusals=(400, 413, 422, 503),
    ),
    Route(
        "PATCH",
        f"{_BASE}/{{id}}",
        change_budget,
        "Change the budget or the reserve; one that is full stays COMPLETED until it is reactivated",
        _CHANGED,
        body=of_json(ref("BudgetIn")),
        refusals=(400, 404, 409, 413, 422, 503),
    ),
    Route(
        "POST",
        f"{_BASE}/{{id}}/pause",
        pause_campaign,
        "Neither submissions nor grants, until it is reactivated",
        _CHANGED,
        refusals=(404, 409, 503),
    ),
    Route(
        "POST",
        f"{_BASE}/{{id}}/complete",
        complete_campaign,
        "End a campaign although money is left; its earnings can be paid out then",
        _CHANGED,
        refusals=(404, 409, 503),
    ),
    Route(
        "POST",
        f"{_BASE}/{{id}}/reactivate",
        reactivate_campaign,
        "Go on with a campaign, and pay once what its posts have gained meanwhile",
        _CHANGED,
        refusals=(404, 409, 503),
    ),
    Route(
        "GET",
        _POSTS,
        list_submissions,
        "List submissions, newest first: one's own, for admins everybody's",
        of_json(object_of({"submissions": list_of(ref("Submission")), "next": or_null(WHOLE)})),
        (
            Query("campaign", "Only those to this campaign.", WHOLE),
            Query("status", "Only those.", {"enum": list(submissions.STATUSES)}),
            CREATOR_QUERY,
            BEFORE,
            LIMIT,
        ),
        refusals=(403, 422, 503),
    ),
    Route(
        "POST",
        _POSTS,
        submit_post,
        "Submit a post to a campaign",
        _DECIDED,
        body=of_json(ref("SubmissionIn")),
        refusals=(400, 404, 409, 413, 422, 429, 503),
    ),
    Route(
        "GET", f"{_POSTS}/{{id}}", read_submission, "Read a submission", of_json(ref("Submission")), refusals=(404, 503)
    ),
    Route(
        "GET",
        f"{_POSTS}/{{id}}/views",
        list_views,
        "How often a submission's post was seen, at each check, newest first",
        of_json(object_of({"views": list_of(_SEEN), "next": or_null(WHOLE)})),
        (Query("before", "The `next` of the page before (microseconds).", WHOLE), limit_of(100)),
        refusals=(404, 422, 503),
    ),
    Route(
        "POST",
        f"{_POSTS}/{{id}}/approve",
        approve_submission,
        "Let a submission earn, and pay what its counts amount to so far",
        _DECIDED,
        refusals=(404, 409, 503),
    ),
    Route(
        "POST",
        f"{_POSTS}/{{id}}/reject",
        reject_submission,
        "Let a submission earn nothing, or no more; it keeps what it has earned",
        _DECIDED,
        body=note_body(),
        refusals=(400, 404, 409, 413, 422, 503),
    ),
)
