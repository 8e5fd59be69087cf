"""People of the tiers for those who run them: the list and the review queue, one person with all that is known, a calendar.

A decision gives a person a curated tier, or lets its flags pass; both take a reason, are audited and count at once.
"""

from __future__ import annotations

from typing import Final

from aiohttp import web

from server.batching.tiers.lookup import SORTS, Sort, Wanted
from server.batching.tiers.months import name_of
from server.batching.tiers.reports import HistoryRow
from server.core.identity import Identity
from server.edge.web import json, json_object, whole_number
from server.errors import Code, Refused
from server.handlers.admin import SMALL_BODY
from server.handlers.celebrities import AFTER, COUNTRY_QUERY, SEARCH_MOST, country_in, text_in, tier_in
from server.handlers.imports import AUDIT_ID, epoch_ms, id_of, limit_of
from server.handlers.ports import TRUTH, WHOLE, Ports, Query, Route, list_of, object_of, of_json, or_null, ref
from server.handlers.tiers import MONTH_QUERY, month_in
from server.handlers.tiers_json import TIER, calendar_json, fields, file_json, row_json
from server.protocol.tiers import DecisionIn, parsed

PAGE_MOST: Final = 500
HISTORY_MOST: Final = 100
FLAGS: Final = ("unclear", "no_evidence", "net_worth", "country", "timezone")
TRUTHS: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


async def list_people(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """A page of people; the review queue with review=true."""
    wanted = Wanted(
        tier=tier_in(request),
        flag=_flag(request),
        review=_truth(request, "review"),
        country=country_in(request),
        search=text_in(request, "search", SEARCH_MOST),
        excluded=_truth(request, "excluded"),
        sort=_sort(request),
        after=whole_number(request, "after", 0, 1, (1 << 63) - 1) or None,
        limit=whole_number(request, "limit", 50, 1, PAGE_MOST),
    )
    found = await ports.lookup.people(wanted)
    following = found[-1].id if len(found) == wanted.limit else None
    return json({"people": [row_json(row) for row in found], "next": following})


def _flag(request: web.Request) -> str | None:
    text = request.query.get("flag") or None
    if text is not None and text not in FLAGS:
        raise Refused(Code.BAD_MESSAGE, f"there are the flags {', '.join(FLAGS)}, not {text[:40]!r}", field="flag")
    return text


def _truth(request: web.Request, name: str) -> bool | None:
    text = request.query.get(name, "").lower()
    if text and text not in TRUTHS:
        raise Refused(Code.BAD_MESSAGE, f"{name} is true or false, not {text[:40]!r}", field=name)
    return TRUTHS.get(text)


def _sort(request: web.Request) -> Sort:
    text = request.query.get("sort") or "id"
    found = next((sort for sort in SORTS if sort == text), None)
    if found is None:
        raise Refused(Code.BAD_MESSAGE, f"sort is {', '.join(SORTS)}, not {text[:40]!r}", field="sort")
    return found


async def read_person(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Everything about one person but the calendar."""
    file = await ports.lookup.person(id_of(request))
    history = await ports.tiers.history(file.row.id, HISTORY_MOST)
    return json({**file_json(file), "history": [_history(row) for row in history]})


def _history(row: HistoryRow) -> dict[str, object]:
    said = fields(row, "at", "fromTier", "toTier")
    return {**said, "atMs": epoch_ms(row.at), "from": row.from_tier, "to": row.to_tier}


async def read_calendar(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """A person's month: slots of every status, rotations, cooldowns."""
    month = ports.tiers.month(month_in(request))
    return json(calendar_json(name_of(month), await ports.lookup.calendar(id_of(request), month)))


async def decide(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Give a person a tier, or accept the one it has."""
    asked = parsed(DecisionIn, await json_object(request, SMALL_BODY))
    if (asked.tier is None) != asked.accept:
        raise Refused(Code.BAD_MESSAGE, "decide: a tier, or accept", field="tier")
    person = id_of(request)
    audit = await ports.tiers.review(person, asked.tier, asked.reason, who)
    return json({"person": row_json((await ports.lookup.person(person)).row), "auditId": audit})


ROUTES: Final = (
    Route(
        "GET",
        "/tiers/people",
        list_people,
        "List people and why they have their tier; the review queue with review=true",
        of_json(object_of({"people": list_of(ref("TierPerson")), "next": or_null(WHOLE)})),
        (
            Query("tier", "Only those.", TIER),
            Query("review", "Only people who should be looked at, or only others.", TRUTH),
            Query("flag", "Only people with it.", {"enum": list(FLAGS)}),
            COUNTRY_QUERY,
            Query("search", "A part of the name or key."),
            Query("excluded", "Only people who are left out, or only others.", TRUTH),
            Query("sort", "In which order.", {"enum": list(SORTS), "default": "id"}),
            AFTER,
            limit_of(50),
        ),
        refusals=(422, 503),
    ),
    Route(
        "GET",
        "/tiers/people/{id}",
        read_person,
        "Read a person: evidence, tier and why, packages, cities, history",
        of_json(ref("TierPersonFile")),
        refusals=(404, 503),
    ),
    Route(
        "GET",
        "/tiers/people/{id}/calendar",
        read_calendar,
        "A person's month by local date: slots of every status, rotations, cooldowns",
        of_json(ref("TierCalendar")),
        (MONTH_QUERY,),
        refusals=(404, 422, 503),
    ),
    Route(
        "POST",
        "/tiers/people/{id}/decision",
        decide,
        "Decide about a person: another tier, or that the one it has is right",
        of_json(object_of({"person": ref("TierPerson"), "auditId": AUDIT_ID})),
        body=of_json(ref("DecisionIn")),
        refusals=(400, 404, 409, 422, 503),
    ),
)
