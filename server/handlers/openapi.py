"""The OpenAPI 3.1 document, made from the route table, the access table and the pydantic models: GET /openapi.json.

`openapi_document()` is the same at every start, so that client-examples/openapi.json can be compared with it (a test does).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

import orjson
from pydantic.json_schema import models_json_schema

import server
from server.errors import ERRORS, Code
from server.handlers import (
    admin,
    bulk,
    businesses,
    celebrities,
    events,
    imports,
    lists,
    schedules,
    teams,
    tiers,
    tiers_json,
    tracking,
    tracking_money,
    tracking_runs,
    whatif,
)
from server.handlers.access import VERBS, verb_of_route
from server.handlers.ports import NUMBER, TEXT, TRUTH, WHOLE, Content, Query, Route, Schema, list_of, object_of, ref
from server.protocol.event import EventIn, PopularityIn
from server.protocol.imports import CredentialIn, ImportIn, PriorityIn, SecretIn
from server.protocol.schedules import BalanceIn, IntervalIn, ProfileIn, RetryIn, TierIn
from server.protocol.tiers import BookIn, ClassifyIn, DecisionIn, GenerateIn, VerifyIn
from server.protocol.tracking import (
    ApprovalIn,
    BudgetIn,
    CampaignIn,
    EventLinkIn,
    NoteIn,
    PaymentIn,
    PayoutIn,
    RunIn,
    SubmissionIn,
)
from server.protocol.whatif import WhatIfIn

VERSION: Final = getattr(server, "__version__", "0.1.0")
_STATUSES: Final = {
    400: "The body is not what its Content-Type says, or is broken",
    401: "No token, or a bad one",
    403: "The token's roles do not allow this, or the event is another's, or the page's origin may not",
    404: "No such thing, or none that you may see",
    409: "The stored version is not the one named",
    413: "The body is too large",
    422: "A value is missing, of the wrong type or out of bounds",
    429: "Too many at once; come back after Retry-After seconds",
    503: "Not just now; come back after Retry-After seconds",
}
_ABOUT: Final = (
    "Live maps: popularity in, one consolidated batch-update per viewer out (over WebSocket). Tokens go into the Authorization "
    "header, never into a URL. Errors are {error {code, message, field?}}."
)


def document_bytes(routes: Iterable[Route]) -> bytes:
    """The document as it is written to client-examples/openapi.json."""
    return orjson.dumps(document(routes), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def document(routes: Iterable[Route]) -> dict[str, object]:
    """The document of these routes."""
    paths: dict[str, dict[str, object]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "batchcast", "version": VERSION, "description": _ABOUT},
        "paths": paths,
        "components": {"schemas": _schemas(), "securitySchemes": _SCHEMES},
    }


_SCHEMES: Final = {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}


def _operation(route: Route) -> dict[str, object]:
    verb = VERBS[verb_of_route(route.method, route.path)]
    needs_token = verb.role != "anonymous"
    operation: dict[str, object] = {
        "operationId": route.handle.__name__,
        "summary": route.summary,
        "tags": [_tag(route.path)],
        "description": f"Needs the role {verb.role} or more ({verb.name}).",
        "parameters": _parameters(route),
        "security": [{"token": []}] if needs_token else [{}, {"token": []}],
        "responses": _responses(route, needs_token),
    }
    if route.body is not None:
        operation["requestBody"] = {"required": route.body.required, "content": _content(route.body)}
    return operation


TAGS: Final = (
    *("events", "popularity", "config", "loops", "alerts", "imports", "audiences", "credentials"),
    *("api", "admin", "webhooks", "celebrities", "availability", "tiers", "tracking"),
)


def _tag(path: str) -> str:
    first = path.strip("/").split("/")[0]
    return first if first in TAGS else "server"


def _parameters(route: Route) -> list[dict[str, object]]:
    named = [_parameter(name, "path", "", TEXT, required=True) for name in re.findall(r"{(\w+)}", route.path)]
    headers = [_parameter(name, "header", meaning, TEXT) for name, meaning in route.headers.items()]
    return named + [_query(query) for query in route.query] + headers


def _query(query: Query) -> dict[str, object]:
    schema = list_of(query.schema) if query.many else query.schema
    return _parameter(query.name, "query", query.meaning, schema)


def _parameter(name: str, place: str, meaning: str, schema: Schema, *, required: bool = False) -> dict[str, object]:
    about = {"description": meaning} if meaning else {}
    return {"name": name, "in": place, **about, "required": required, "schema": schema}


def _responses(route: Route, needs_token: bool) -> dict[str, object]:
    good = {"description": route.answer.meaning or "Done", "content": _content(route.answer)}
    statuses = {401, *route.refusals} | ({403} if needs_token else set())
    answers: dict[str, object] = {"200": good}
    if route.body is not None and route.answer.by_type.get("application/json") == ref("BulkAnswer"):
        either = {"application/json": {"schema": {"anyOf": [ref("BulkAnswer"), ref("Error")]}}}
        answers["422"] = {
            "description": "All rows were refused, `error` tells of the first; or the request was",
            "content": either,
        }
    for status in sorted(statuses):
        answers[str(status)] = {"description": _STATUSES[status], "content": _ERROR}
    return answers


_ERROR: Final = {"application/json": {"schema": ref("Error")}}


def _content(content: Content) -> dict[str, object]:
    return {kind: {"schema": schema} for kind, schema in content.by_type.items()}


_MODELS: Final = (
    *(EventIn, PopularityIn, ImportIn, PriorityIn, CredentialIn, SecretIn),
    *(ProfileIn, TierIn, IntervalIn, RetryIn, BalanceIn),
    *(ClassifyIn, GenerateIn, VerifyIn, DecisionIn, BookIn),
    *(CampaignIn, BudgetIn, SubmissionIn, NoteIn, PayoutIn, ApprovalIn, PaymentIn, RunIn, EventLinkIn),
    WhatIfIn,
)


@lru_cache(maxsize=1)
def _schemas() -> dict[str, Any]:
    _, incoming = models_json_schema(
        [(model, "validation") for model in _MODELS], ref_template="#/components/schemas/{model}"
    )
    models: dict[str, Any] = incoming["$defs"]
    return {**models, **_OWN, **_shaped(models["EventIn"])}


def _shaped(event: Mapping[str, Any]) -> dict[str, object]:
    """What follows from the incoming event: a change of one, one as it is stored, one as GeoJSON."""
    fields = dict(event["properties"])
    version = {"ifVersion": {**WHOLE, "description": "the version that the event must have"}}
    stored = {name: field for name, field in fields.items() if name != "sharedWith"}
    added = {"version": WHOLE, "updatedAt": TEXT, "createdAt": TEXT, "start": TEXT}
    return {
        "EventPatch": {"type": "object", "properties": {**fields, **version}},
        "Event": object_of({**stored, **added}, {"sharedWith": fields["sharedWith"]}),
        "Feature": object_of(
            {"type": {"const": "Feature"}, "geometry": _POINT, "properties": {"type": "object"}}, {"id": {}}
        ),
        "FeatureCollection": object_of({"type": {"const": "FeatureCollection"}, "features": list_of(ref("Feature"))}),
    }


_POINT: Final = object_of(
    {"type": {"const": "Point"}, "coordinates": {"type": "array", "items": NUMBER, "minItems": 2, "maxItems": 3}}
)
_PROBLEM: Final = object_of(
    {"code": {"anyOf": [ref("Code"), {"const": "internal"}]}, "message": TEXT}, {"field": TEXT, "limit": NUMBER}
)
_OWN: Final[dict[str, Schema]] = {
    "Code": {
        "enum": [str(code) for code in Code],
        "description": "; ".join(f"{code}: {kind.meaning}" for code, kind in ERRORS.items()),
    },
    "Problem": _PROBLEM,
    "Error": object_of({"error": ref("Problem")}),
    "Rejected": bulk.REJECTED,
    "BulkAnswer": bulk.BULK,
    "Written": events.WRITTEN,
    "Config": admin.CONFIG,
    "ConfigPatch": {"type": "object", "properties": {**admin.VALUES}, "minProperties": 1},
    "Stats": admin.STATS,
    "Forced": admin.FORCED,
    "Turn": admin.TURN,
    "Totals": admin.TOTALS,
    "Loop": admin.LOOP,
    "Alert": admin.ALERT,
    "Job": imports.JOB,
    "ImportDay": imports.DAY,
    "Credential": lists.CREDENTIAL,
    "Placement": businesses.PLACEMENT,
    "Profile": businesses.PROFILE,
    "Review": businesses.REVIEW,
    "Overview": businesses.OVERVIEW,
    "Schedule": schedules.SCHEDULE,
    "ScheduleLine": schedules.LINE,
    "Run": schedules.RUN,
    "SchedulesHealth": schedules.HEALTH,
    "Team": teams.TEAM,
    "Interval": teams.INTERVAL,
    "Retry": teams.RETRY,
    "Celebrity": celebrities.CELEBRITY,
    "Slot": celebrities.SLOT,
    "Booking": celebrities.BOOKING,
    "TierRun": tiers_json.RUN,
    "TierPerson": tiers_json.PERSON_ROW,
    "TierPersonFile": tiers_json.PERSON,
    "TierCalendar": tiers_json.CALENDAR,
    "Verification": tiers.VERIFICATION,
    "Campaign": tracking.CAMPAIGN,
    "Submission": tracking.SUBMISSION,
    "Payout": tracking_money.PAYOUT,
    "TrackingRun": tracking_runs.RUN,
    "TrackingQuota": tracking_runs.QUOTA,
    "TrackingHealth": tracking_runs.HEALTH,
    "TrackingStats": tracking_runs.STATS,
    "TrackingPlan": tracking_runs.PLAN,
    "FailedScrape": tracking_runs.FAILED,
    "WhatIf": whatif.WHAT_IF,
    "WhatIfSide": whatif.SIDE,
    "Ready": object_of({"ready": TRUTH, "missing": list_of(TEXT)}, {"error": ref("Problem")}),
}
