"""The money of tracking: counts that wait for a review, what creators have earned and were told, payouts.

A creator reads its own ledger, balance and notifications, and asks for payouts; administrators judge counts and turn payouts.
Money is whole cents; a fee is in hundredths of a per cent (`feeBasis`).
"""

from __future__ import annotations

from typing import Final

from aiohttp import web

from server.batching.tracking import payouts
from server.batching.tracking.payouts import Turned
from server.batching.tracking.reviews import Verdict
from server.core.identity import Identity
from server.edge.web import json
from server.handlers.imports import AUDIT_ID, BEFORE, id_of
from server.handlers.ports import (
    EPOCH_MS,
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
from server.handlers.saying import AFTER, chosen, fields, number, said, words
from server.handlers.tracking import (
    CENTS,
    COMPLETED,
    CREATOR_QUERY,
    GRANTED,
    LIMIT,
    PLATFORM,
    asked,
    limit_in,
    limit_of,
    note_body,
)
from server.protocol.tracking import ApprovalIn, NoteIn, PaymentIn, PayoutIn

# --- counts that wait ---


async def list_held(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """A page of counts that rose too much at once."""
    limit = limit_in(request)
    found = await ports.books.reviews.held(who, number(request, "after") or 0, limit)
    return json({"held": said(found), "next": found[-1].observation_id if len(found) == limit else None})


async def accept_held(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """It was so."""
    body = await asked(request, NoteIn)
    return _judged(ports, await ports.books.reviews.accept(id_of(request), who, body.note))


async def reject_held(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """It was not."""
    body = await asked(request, NoteIn)
    return _judged(ports, await ports.books.reviews.reject(id_of(request), who, body.note))


def _judged(ports: Ports, verdict: Verdict) -> web.StreamResponse:
    ports.books.note("held", *(("submissions", "campaigns") if verdict.state == "accepted" else ()))
    return json(fields(verdict))


# --- what creators have ---


async def read_balance(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """A creator's money, and from what on it can be paid out."""
    desk = ports.books
    balance = await desk.payouts.balance(who, words(request, "creator"))
    return json(fields(balance, minimumCents=desk.terms.minimum_cents, feeBasis=desk.terms.fee_basis))


async def list_ledger(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """A page of grants."""
    limit = limit_in(request, 100)
    found = await ports.books.earnings.ledger(
        who,
        creator=words(request, "creator"),
        campaign=number(request, "campaign"),
        submission=number(request, "submission"),
        before=number(request, "before"),
        limit=limit,
    )
    return json({"lines": said(found), "next": found[-1].id if len(found) == limit else None})


async def list_notifications(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """A page of what creators were told."""
    limit = limit_in(request)
    found = await ports.books.earnings.notifications(
        who, creator=words(request, "creator"), before=number(request, "before"), limit=limit
    )
    return json({"notifications": said(found), "next": found[-1].id if len(found) == limit else None})


# --- payouts ---


async def list_payouts(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """A page of payout requests."""
    limit, text = limit_in(request), chosen(request, "status", payouts.STATUSES)
    found = await ports.books.payouts.list(
        who,
        status=next((one for one in payouts.STATUSES if one == text), None),
        creator=words(request, "creator"),
        before=number(request, "before"),
        limit=limit,
    )
    return json({"payouts": said(found), "next": found[-1].id if len(found) == limit else None})


async def read_payout(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """One payout request."""
    return json(said(await ports.books.payouts.show(id_of(request), who)))


async def request_payout(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Ask for money."""
    body = await asked(request, PayoutIn)
    return _turned(ports, await ports.books.payouts.request(who, body.amount_cents, creator=body.creator))


async def approve_payout(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Fix the fee; the money may be sent."""
    body = await asked(request, ApprovalIn)
    return _turned(ports, await ports.books.payouts.approve(id_of(request), who, body.fee_basis))


async def complete_payout(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """The money was sent."""
    body = await asked(request, PaymentIn)
    return _turned(ports, await ports.books.payouts.complete(id_of(request), who, body.transaction_id))


async def reject_payout(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """It will not be paid."""
    body = await asked(request, NoteIn)
    return _turned(ports, await ports.books.payouts.reject(id_of(request), who, body.note))


async def revert_payout(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Take the last step back."""
    body = await asked(request, NoteIn)
    return _turned(ports, await ports.books.payouts.revert(id_of(request), who, body.note))


def _turned(ports: Ports, turned: Turned) -> web.StreamResponse:
    ports.books.note("payouts")
    return json({"payout": said(turned.request), "auditId": turned.audit_id})


async def verify_books(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Every sum of the money anew."""
    report = await ports.books.verify(who)
    return json({"ok": report.ok, "checks": [fields(check, ok=check.ok) for check in report.checks]})


# --- as told to the OpenAPI document ---

_HELD: Final = object_of(
    {
        "observationId": WHOLE,
        "clipId": WHOLE,
        "platform": PLATFORM,
        "postId": TEXT,
        "url": TEXT,
        "atMs": EPOCH_MS,
        "views": WHOLE,
        "before": {**or_null(WHOLE), "description": "the best count before it"},
    }
)
_JUDGED: Final = of_json(
    object_of(
        {
            "observationId": WHOLE,
            "clipId": WHOLE,
            "state": {"enum": ["accepted", "rejected"]},
            "also": {"type": "array", "items": WHOLE, "description": "other counts of the clip, judged with it"},
            "grantedCents": GRANTED,
            "completed": COMPLETED,
            "auditId": AUDIT_ID,
        }
    ),
    "What became of it",
)
BASIS: Final = {"type": "integer", "description": "hundredths of a per cent"}
_BALANCE: Final = of_json(
    object_of(
        {
            "creator": TEXT,
            **dict.fromkeys(
                ("earnedCents", "payableCents", "activeCents", "requestedCents", "paidCents", "minimumCents"), CENTS
            ),
            "feeBasis": BASIS,
        }
    ),
    "In all; of it payable now, in campaigns that go on, asked for; and paid, after fees",
)
_LINE: Final = object_of(
    {
        **dict.fromkeys(("id", "campaignId", "submissionId", "views"), WHOLE),
        "creator": TEXT,
        "amountCents": CENTS,
        "atMs": EPOCH_MS,
    }
)
_NOTIFICATION: Final = object_of(
    {
        "id": WHOLE,
        **dict.fromkeys(("creator", "kind", "message"), TEXT),
        "campaignId": or_null(WHOLE),
        "amountCents": or_null(CENTS),
        "atMs": EPOCH_MS,
    }
)
PAYOUT: Final = object_of(
    {
        "id": WHOLE,
        "creator": TEXT,
        "status": {"enum": list(payouts.STATUSES)},
        "amountCents": CENTS,
        "feeBasis": or_null(BASIS),
        **dict.fromkeys(("feeCents", "netCents"), or_null(CENTS)),
        "note": TEXT,
        **dict.fromkeys(("createdAtMs", "changedAtMs"), EPOCH_MS),
        "payoutId": or_null(WHOLE),
        "transactionId": or_null(TEXT),
        **dict.fromkeys(("paidAtMs", "revertedAtMs"), or_null(EPOCH_MS)),
    }
)
_TURNED: Final = of_json(object_of({"payout": ref("Payout"), "auditId": AUDIT_ID}), "The request now")
_CHECK: Final = object_of({"name": TEXT, "meaning": TEXT, "ok": TRUTH, "failed": WHOLE, "examples": list_of(TEXT)})
_BASE: Final = "/tracking/payouts"
_REVIEWS: Final = "/tracking/held"
ROUTES: Final = (
    Route(
        "GET",
        _REVIEWS,
        list_held,
        "List counts that rose too much at once and wait for a review, oldest first",
        of_json(object_of({"held": list_of(_HELD), "next": or_null(WHOLE)})),
        (AFTER, LIMIT),
        refusals=(422, 503),
    ),
    Route(
        "POST",
        f"{_REVIEWS}/{{id}}/accept",
        accept_held,
        "Let a count stand: it is settled, once, with those of the clip before it",
        _JUDGED,
        body=note_body(),
        refusals=(400, 404, 409, 413, 422, 503),
    ),
    Route(
        "POST",
        f"{_REVIEWS}/{{id}}/reject",
        reject_held,
        "Let a count never stand, nor those of the clip before it",
        _JUDGED,
        body=note_body(),
        refusals=(400, 404, 409, 413, 422, 503),
    ),
    Route(
        "GET", "/tracking/balance", read_balance, "A creator's money", _BALANCE, (CREATOR_QUERY,), refusals=(422, 503)
    ),
    Route(
        "GET",
        "/tracking/ledger",
        list_ledger,
        "List what was granted, newest first: one's own, for admins everybody's",
        of_json(object_of({"lines": list_of(_LINE), "next": or_null(WHOLE)})),
        (
            CREATOR_QUERY,
            Query("campaign", "Only that one's.", WHOLE),
            Query("submission", "Only that one's.", WHOLE),
            BEFORE,
            limit_of(100),
        ),
        refusals=(422, 503),
    ),
    Route(
        "GET",
        "/tracking/notifications",
        list_notifications,
        "List what creators were told, newest first: one's own, for admins everybody's",
        of_json(object_of({"notifications": list_of(_NOTIFICATION), "next": or_null(WHOLE)})),
        (CREATOR_QUERY, BEFORE, LIMIT),
        refusals=(422, 503),
    ),
    Route(
        "GET",
        _BASE,
        list_payouts,
        "List payout requests, newest first: one's own, for admins everybody's",
        of_json(object_of({"payouts": list_of(ref("Payout")), "next": or_null(WHOLE)})),
        (Query("status", "Only those.", {"enum": list(payouts.STATUSES)}), CREATOR_QUERY, BEFORE, LIMIT),
        refusals=(422, 503),
    ),
    Route(
        "POST",
        _BASE,
        request_payout,
        "Ask for what completed campaigns owe, or for a part of it",
        _TURNED,
        body=Content({"application/json": ref("PayoutIn")}, required=False),
        refusals=(400, 409, 413, 422, 503),
    ),
    Route("GET", f"{_BASE}/{{id}}", read_payout, "Read a payout request", of_json(ref("Payout")), refusals=(404, 503)),
    Route(
        "POST",
        f"{_BASE}/{{id}}/approve",
        approve_payout,
        "Approve a payout; the fee is fixed by it",
        _TURNED,
        body=Content({"application/json": ref("ApprovalIn")}, required=False),
        refusals=(400, 404, 409, 413, 422, 503),
    ),
    Route(
        "POST",
        f"{_BASE}/{{id}}/complete",
        complete_payout,
        "Note that the money was sent, and by which transaction",
        _TURNED,
        body=of_json(ref("PaymentIn")),
        refusals=(400, 404, 409, 413, 422, 503),
    ),
    Route(
        "POST",
        f"{_BASE}/{{id}}/reject",
        reject_payout,
        "Refuse a payout; its money can be asked for again",
        _TURNED,
        body=note_body(),
        refusals=(400, 404, 409, 413, 422, 503),
    ),
    Route(
        "POST",
        f"{_BASE}/{{id}}/revert",
        revert_payout,
        "Take an approval back, or a payment that did not arrive",
        _TURNED,
        body=note_body(),
        refusals=(400, 404, 409, 413, 422, 503),
    ),
    Route(
        "GET",
        "/tracking/verification",
        verify_books,
        "Is all money where it should be? Every sum anew, from the ledger",
        of_json(object_of({"ok": TRUTH, "checks": list_of(_CHECK)})),
        refusals=(503,),
    ),
)
