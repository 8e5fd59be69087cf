"""The tiers for those who run them: people in, classify, generate, verify, runs, reports, and how far a month is.

Opening a run is quick; it is worked off in the background (loop `tiers-work`) and followed by `GET /tiers/runs/{id}` or by
the topic `tiers`. A gate that is shut refuses with 409 and says what opens it. What changes something answers with the number
of its entry in the audit trail (`auditId`). A month that is not named is the one that it is now (UTC).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from aiohttp import web

from server.batching.tiers.checking import FOUNDATION, MONTHLY, Verification
from server.batching.tiers.lookup import State
from server.batching.tiers.months import month_named
from server.batching.tiers.people import ImportReport
from server.batching.tiers.reports import Report
from server.batching.tiers.rules import RULES, TIERS, Tier
from server.batching.tiers.tiers import Opened
from server.core.identity import Identity
from server.edge.web import chunks, json, json_object, media_type, whole_number
from server.errors import Code, Refused
from server.handlers.admin import SMALL_BODY, camel
from server.handlers.celebrities import tier_in
from server.handlers.imports import AUDIT_ID, BEFORE, before_of, epoch_ms, id_of, limit_of
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
from server.handlers.tiers_json import AUDITED, ITEM, MONTH, TIER, fields, item_json, run_json
from server.protocol.intake import Format
from server.protocol.tiers import ClassifyIn, GenerateIn, VerifyIn, parsed

PAGE_MOST: Final = 500
FILES: Final = {"text/csv": Format.CSV, "application/x-ndjson": Format.NDJSON}
KINDS: Final = ("classify", "generate")
ITEM_STATUSES: Final = ("done", "failed", "skipped", "replaced")


# --- people in ---


async def import_people(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Bring people in; 422 when every row was refused."""
    fmt = FILES.get(media_type(request) or "")
    if fmt is None:
        raise Refused(Code.BAD_JSON, f"people come as {' or '.join(FILES)}; say so in Content-Type")
    with ports.streams:
        report = await ports.tiers.import_people(chunks(request), fmt, who)
    return json(report_json(report), status=422 if _all_refused(report) else 200)


def _all_refused(report: ImportReport) -> bool:
    return report.rejected > 0 and report.rejected == report.rows


def report_json(report: ImportReport) -> dict[str, object]:
    """What became of a file."""
    said = fields(report)
    if _all_refused(report):
        first = report.errors[0]
        said["error"] = {
            "code": str(Code.BAD_MESSAGE),
            "message": f"every row was refused; line {first.line}: {first.reason}",
        }
    return said


# --- runs ---


async def classify(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Begin to classify, or join in."""
    asked = parsed(ClassifyIn, await json_object(request, SMALL_BODY))
    _fitting(asked)
    scope = asked.scope
    return _opened(
        await ports.tiers.classify(
            "new" if scope == "new-only" else scope, who, tier=asked.tier, person=asked.person, resume=asked.resume
        )
    )


def _opened(opened: Opened) -> web.StreamResponse:
    return json({"run": run_json(opened.run), "new": opened.new, "auditId": opened.audit_id})


def _fitting(asked: ClassifyIn) -> None:
    """The mode and what is named must be of one mind."""
    for name, given in (("tier", asked.tier), ("person", asked.person)):
        if (given is not None) != (asked.scope == name):
            words = f"needs {name}" if given is None else f"does not go with {name}"
            raise Refused(Code.BAD_MESSAGE, f"the mode {asked.scope} {words}", field=name)


async def generate(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Begin to plan a month, or join in."""
    asked = parsed(GenerateIn, await json_object(request, SMALL_BODY))
    if (asked.tier is None) == (asked.person is None):
        raise Refused(Code.BAD_MESSAGE, "say whose month: tier, or person", field="tier")
    opened = await ports.tiers.generate(
        asked.tier,
        month_of(asked.month),
        who,
        person=asked.person,
        replace=asked.replace,
        override=asked.override is not None,
        resume=asked.resume,
        reason=asked.override,
    )
    return _opened(opened)


async def stop_run(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """End a run before it is through."""
    return _opened(await ports.tiers.stop_run(id_of(request), who))


async def list_runs(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """A page of runs, newest first."""
    limit = whole_number(request, "limit", 50, 1, PAGE_MOST)
    runs = await ports.tiers.runs(_one_of(request, "kind", KINDS), before_of(request), limit)
    return json({"runs": [run_json(run) for run in runs], "next": runs[-1].id if len(runs) == limit else None})


def month_in(request: web.Request) -> int | None:
    """The parameter `month`."""
    return month_of(request.query.get("month") or None)


def month_of(text: str | None) -> int | None:
    """A month's number; Refused for a text that is none."""
    try:
        return None if text is None else month_named(text)
    except ValueError as error:
        raise Refused(Code.BAD_MESSAGE, str(error), field="month") from None


def _one_of(request: web.Request, name: str, allowed: Sequence[str]) -> str | None:
    text = request.query.get(name) or None
    if text is not None and text not in allowed:
        raise Refused(Code.BAD_MESSAGE, f"{name} is {' or '.join(allowed)}, not {text[:40]!r}", field=name)
    return text


async def read_run(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """One run, and why people failed or were skipped."""
    run = await ports.tiers.run(id_of(request))
    reasons = await ports.tiers.reasons(run.id)
    said = [{"status": status, "reason": reason, "people": count} for status, reason, count in reasons]
    return json({**run_json(run), "reasons": said})


async def list_items(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """People of a run and what became of them."""
    limit = whole_number(request, "limit", 100, 1, PAGE_MOST)
    after = whole_number(request, "after", 0, 0, (1 << 63) - 1)
    items = await ports.tiers.items(id_of(request), _one_of(request, "status", ITEM_STATUSES), after, limit)
    following = items[-1].celebrity_id if len(items) == limit else None
    return json({"items": [item_json(item) for item in items], "next": following})


# --- verification ---


async def verify(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Verify now; answers when it is done."""
    asked = parsed(VerifyIn, await json_object(request, SMALL_BODY))
    found = await ports.tiers.verify(asked.tier, month_of(asked.month), who)
    passed = all(one.passed for one in found)
    return json({"passed": passed, "verifications": [verification_json(one) for one in found]})


async def list_verifications(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """A page of verifications, newest first."""
    limit = whole_number(request, "limit", 50, 1, PAGE_MOST)
    found = await ports.lookup.verifications(
        tier=tier_in(request), month=month_in(request), before=before_of(request), limit=limit
    )
    following = found[-1].id if len(found) == limit else None
    return json({"verifications": [verification_json(one) for one in found], "next": following})


def verification_json(found: Verification) -> dict[str, object]:
    """What a verification found; `examples` name person and rule."""
    examples = [
        {"person": one.celebrity_id, "key": one.key, "name": one.name, "rule": one.rule, "detail": one.detail}
        for one in found.examples
    ]
    return {**fields(found, "at", "examples"), "rules": found.rules, "examples": examples, "atMs": epoch_ms(found.at)}


# --- how it is ---


async def read_state(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """How far a month is, and what is next."""
    state = await ports.lookup.state(ports.tiers.month(month_in(request)))
    counts = state.counts
    people = {
        "all": counts.active + counts.excluded,
        **fields(counts, "missing", "byTier"),
        "missingTier": counts.missing,
    }
    return json(
        {
            "month": state.month,
            "people": people,
            "foundation": _foundation(state),
            "tiers": [_gate(state, tier) for tier in TIERS],
            "next": _next(state),
            "running": [run_json(run) for run in state.running],
            "monthly": ports.settings.tiers_monthly,
            "serverTime": ports.clock.now_ms(),
        }
    )


def _foundation(state: State) -> dict[str, object]:
    missing, verification = state.counts.missing, state.verified.get(None)
    why = f"people without a tier: {missing}; classify them (tiers classify --new-only)" if missing else None
    return {
        "missingTier": missing,
        "verification": None if verification is None else verification_json(verification),
        "open": not missing,
        "why": why,
    }


def _gate(state: State, tier: Tier) -> dict[str, object]:
    run, verification = state.runs.get(tier), state.verified.get(tier)
    return {
        "tier": tier,
        "people": state.counts.by_tier[tier],
        "run": None if run is None else run_json(run),
        "verification": None if verification is None else verification_json(verification),
        "verified": verification is not None and verification.passed and not verification.stale,
        "open": state.blocked[tier] is None,
        "why": state.blocked[tier],
    }


def _next(state: State) -> dict[str, object]:
    """What somebody should do now, in a word and in a sentence."""
    step = state.step
    if state.counts.missing:
        return {"action": "classify", "tier": None, "text": "Classify the people without a tier"}
    words = {
        "plan": ("generate", f"Generate {step.tier} for {state.month}"),
        "verify": ("verify", f"Verify {step.tier} for {state.month}"),
        "rest": ("done", f"All tiers are planned and verified for {state.month}"),
        "stop": ("look", f"Look at what the verification found: {step.why}"),
    }
    action, text = words[step.action]
    return {"action": action, "tier": step.tier, "text": text}


async def read_report(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Distribution, coverage, who is flagged."""
    return json(_report(await ports.tiers.report(month_in(request))))


def _report(report: Report) -> Mapping[str, object]:
    ranges = {tier: list(RULES[tier].price_cents) for tier in TIERS}
    return {
        "month": report.month,
        "distribution": camel(report.distribution),
        "pricing": [{**fields(row), "range": ranges[row.tier]} for row in report.pricing],
        "availability": camel(report.coverage),
        "flagged": {"total": report.needs_review, "noEvidence": report.no_evidence, "byFlag": report.flags},
        "missingTier": report.missing,
        "excluded": report.excluded,
    }


# --- as told to the OpenAPI document ---

_COUNT_OF: Final = {"type": "object", "additionalProperties": WHOLE}
_REPORT_COUNTS: Final = ("rows", "created", "updated", "unchanged", "rejected")
IMPORTED: Final = object_of(
    {
        **dict.fromkeys(_REPORT_COUNTS, WHOLE),
        "errors": list_of(object_of({"line": WHOLE, "field": or_null(TEXT), "reason": TEXT})),
        "auditId": AUDITED,
    },
    {"error": ref("Problem")},
)
VERIFICATION: Final = object_of(
    {
        "id": WHOLE,
        "tier": or_null(TIER),
        "month": or_null(MONTH),
        "passed": TRUTH,
        "people": WHOLE,
        "violations": WHOLE,
        "rules": {**_COUNT_OF, "description": f"how often each rule was broken: {', '.join((*FOUNDATION, *MONTHLY))}"},
        "examples": list_of(object_of({"person": WHOLE, "key": TEXT, "name": TEXT, "rule": TEXT, "detail": TEXT})),
        "seconds": NUMBER,
        "who": or_null(TEXT),
        "atMs": EPOCH_MS,
        "stale": {**TRUTH, "description": "something was changed since: verify again"},
    }
)
_GATED: Final = object_of(
    {
        "tier": TIER,
        "people": WHOLE,
        "run": or_null(ref("TierRun")),
        "verification": or_null(ref("Verification")),
        "verified": TRUTH,
        "open": TRUTH,
        "why": or_null(TEXT),
    }
)
STATE: Final = object_of(
    {
        "month": MONTH,
        "people": object_of(
            dict.fromkeys(("all", "active", "excluded", "missingTier", "needsReview", "noEvidence"), WHOLE)
        ),
        "foundation": object_of(
            {
                "missingTier": WHOLE,
                "verification": or_null(ref("Verification")),
                "open": TRUTH,
                "why": or_null(TEXT),
            }
        ),
        "tiers": list_of(_GATED),
        "next": object_of(
            {
                "action": {"enum": ["classify", "generate", "verify", "look", "done"]},
                "tier": or_null(TIER),
                "text": TEXT,
            }
        ),
        "running": list_of(ref("TierRun")),
        "monthly": TRUTH,
        "serverTime": EPOCH_MS,
    }
)
_PAIR: Final = {"type": "array", "items": WHOLE, "minItems": 2, "maxItems": 2}
REPORT: Final = object_of(
    {
        "month": MONTH,
        "distribution": list_of(
            object_of(
                {
                    "tier": TIER,
                    "people": WHOLE,
                    "share": NUMBER,
                    "expected": _PAIR,
                    "warning": or_null(TEXT),
                    **dict.fromkeys(("minSlots", "maxSlots"), or_null(WHOLE)),
                    "avgSlots": or_null(NUMBER),
                }
            )
        ),
        "pricing": list_of(
            object_of(
                {
                    "tier": TIER,
                    **dict.fromkeys(("people", "pricedPeople", "packages", "activePackages"), WHOLE),
                    **dict.fromkeys(("minCents", "medianCents", "maxCents"), or_null(WHOLE)),
                    "range": _PAIR,
                }
            )
        ),
        "availability": list_of(
            object_of(
                {
                    "tier": TIER,
                    **dict.fromkeys(("people", "withSlots", "slots"), WHOLE),
                    "avgSlotsPerPerson": NUMBER,
                    "avgRotationDays": or_null(NUMBER),
                    **dict.fromkeys(("available", "booked", "expired", "cancelled"), WHOLE),
                }
            )
        ),
        "flagged": object_of({"total": WHOLE, "noEvidence": WHOLE, "byFlag": _COUNT_OF}),
        "missingTier": WHOLE,
        "excluded": WHOLE,
    }
)
_BEGUN: Final = of_json(
    object_of({"run": ref("TierRun"), "new": TRUTH, "auditId": AUDIT_ID}), "The run; not new: it was under way"
)
_FILE: Final = {"type": "string", "description": "a header or names, and people: name, ratings, country and more"}
MONTH_QUERY: Final = Query("month", "Like 2027-03; default: this one (UTC).", MONTH)
_TIER_QUERY: Final = Query("tier", "Only that one.", TIER)
ROUTES: Final = (
    Route(
        "POST",
        "/tiers/people",
        import_people,
        "Bring people in from a file that is the body; bad rows are reported, the others go in",
        of_json(IMPORTED, "What became of each row"),
        body=Content(dict.fromkeys(FILES, _FILE)),
        refusals=(400, 413, 422, 429, 503),
    ),
    Route(
        "POST",
        "/tiers/classify",
        classify,
        "Begin to give people tiers, packages and countries",
        _BEGUN,
        body=of_json(ref("ClassifyIn")),
        refusals=(400, 404, 409, 422, 503),
    ),
    Route(
        "POST",
        "/tiers/generate",
        generate,
        "Begin to plan a month of a tier, or of one person; 409 while a gate is shut",
        _BEGUN,
        body=of_json(ref("GenerateIn")),
        refusals=(400, 404, 409, 422, 503),
    ),
    Route(
        "POST",
        "/tiers/verify",
        verify,
        "Verify the foundation and all tiers, or one tier; answers when it is done",
        of_json(object_of({"passed": TRUTH, "verifications": list_of(ref("Verification"))})),
        body=of_json(ref("VerifyIn")),
        refusals=(400, 409, 422, 503),
    ),
    Route(
        "GET",
        "/tiers/verifications",
        list_verifications,
        "List verifications, newest first",
        of_json(object_of({"verifications": list_of(ref("Verification")), "next": or_null(WHOLE)})),
        (_TIER_QUERY, Query("month", "Only that one, like 2027-03.", MONTH), BEFORE, limit_of(50)),
        refusals=(422, 503),
    ),
    Route(
        "GET",
        "/tiers/runs",
        list_runs,
        "List runs, newest first",
        of_json(object_of({"runs": list_of(ref("TierRun")), "next": or_null(WHOLE)})),
        (Query("kind", "Only those.", {"enum": list(KINDS)}), BEFORE, limit_of(50)),
        refusals=(422, 503),
    ),
    Route(
        "GET",
        "/tiers/runs/{id}",
        read_run,
        "Read a run, how far it is, and why people failed or were skipped",
        of_json(ref("TierRun")),
        refusals=(404, 503),
    ),
    Route(
        "GET",
        "/tiers/runs/{id}/items",
        list_items,
        "People of a run and what became of them; of `classify` only those that failed or were skipped",
        of_json(object_of({"items": list_of(ITEM), "next": or_null(WHOLE)})),
        (
            Query("status", "Only those.", {"enum": list(ITEM_STATUSES)}),
            Query("after", "The `next` of the page before.", WHOLE),
            limit_of(100),
        ),
        refusals=(404, 422, 503),
    ),
    Route(
        "POST",
        "/tiers/runs/{id}/stop",
        stop_run,
        "Stop a run after the batch that is under way; resume goes on with it",
        of_json(object_of({"run": ref("TierRun"), "new": TRUTH, "auditId": AUDIT_ID}), "The run now"),
        refusals=(404, 409, 503),
    ),
    Route(
        "GET",
        "/tiers/state",
        read_state,
        "How far a month is: the foundation, each tier's gate, what comes next",
        of_json(STATE),
        (MONTH_QUERY,),
        refusals=(422, 503),
    ),
    Route(
        "GET",
        "/tiers/report",
        read_report,
        "Distribution, pricing and availability coverage, and how many are flagged, S to D",
        of_json(REPORT),
        (MONTH_QUERY,),
        refusals=(422, 503),
    ),
)
