"""The booking side of the tiers, for a frontend: who can be booked, at what price, when; book a slot, cancel it.

Reading needs no token: it shows people with a tier, active packages, and slots that can still be booked. With a token a
person's availability also shows the caller's own bookings. A booking has a key of the caller's: asked again with the same
key it is the same booking, however often the answer was lost. Two who want one slot: the first has it, the other hears so.
"""

from __future__ import annotations

import datetime as dt
from typing import Final

from aiohttp import web

from server.batching.tiers.booking import SlotView
from server.batching.tiers.catalogue import Celebrity, Wanted
from server.batching.tiers.checking import checked_tier
from server.batching.tiers.rules import TIERS, Tier
from server.core.identity import Identity
from server.edge.web import json, json_object, whole_number
from server.errors import Code, Refused
from server.handlers.admin import SMALL_BODY, camel
from server.handlers.imports import KEY_HEADER, epoch_ms, id_of, limit_of
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
from server.handlers.tiers_json import AUDITED, PACKAGE, SLOT_FIELDS, TIER, fields, place_json
from server.protocol.tiers import BookIn, parsed
from server.protocol.values import to_ms

PAGE_MOST: Final = 500
SLOTS_MOST: Final = 500
SEARCH_MOST: Final = 200
DAYS_USUAL: Final = 31
DAYS_MOST: Final = 366
CENTS_MOST: Final = 10**12
DAY_MS: Final = 86_400_000


async def list_celebrities(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """A page of people, by id."""
    limit = whole_number(request, "limit", 50, 1, PAGE_MOST)
    wanted = Wanted(
        tiers=_tiers(request),
        country=country_in(request),
        price_from=_cents(request, "minCents"),
        price_to=_cents(request, "maxCents"),
        search=text_in(request, "search", SEARCH_MOST),
        after=whole_number(request, "after", 0, 0, (1 << 63) - 1),
        limit=limit,
    )
    found = await ports.tiers.celebrities(wanted)
    return json({"celebrities": camel(found), "next": found[-1].id if len(found) == limit else None})


def _tiers(request: web.Request) -> tuple[Tier, ...]:
    """The parameter `tier`: one, or several with commas between; all of them when there is none."""
    names = [text for text in request.query.get("tier", "").split(",")[: len(TIERS)] if text.strip()]
    return tuple(checked_tier(name.strip()) for name in names) or TIERS


def tier_in(request: web.Request) -> Tier | None:
    """The parameter `tier`, one of the five."""
    text = request.query.get("tier") or None
    return None if text is None else checked_tier(text)


def text_in(request: web.Request, name: str, most: int) -> str | None:
    """A text of the query."""
    text = request.query.get(name, "").strip()
    if len(text) > most or "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise Refused(Code.BAD_MESSAGE, f"{name} has at most {most} characters", field=name, limit=most)
    return text or None


def country_in(request: web.Request) -> str | None:
    """The parameter `country`, two letters."""
    text = request.query.get("country", "").upper()
    if text and not (len(text) == 2 and text.isascii() and text.isalpha()):
        message = f"country is two letters (ISO 3166-1), such as DE, not {text[:40]!r}"
        raise Refused(Code.BAD_MESSAGE, message, field="country")
    return text or None


def _cents(request: web.Request, name: str) -> int | None:
    if not request.query.get(name):
        return None
    return whole_number(request, name, 0, 0, CENTS_MOST)


async def read_celebrity(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """One person."""
    return json(celebrity_json(await ports.tiers.celebrity(id_of(request))))


def celebrity_json(celebrity: Celebrity) -> dict[str, object]:
    """A person as a frontend sees it."""
    return fields(celebrity)


async def read_pricing(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """What can be bought of a person."""
    celebrity = id_of(request)
    return json({"id": celebrity, "packages": camel(await ports.tiers.pricing(celebrity))})


async def read_availability(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """When a person can be booked."""
    celebrity = await ports.tiers.celebrity(id_of(request))
    begin, end = (dt.datetime.fromtimestamp(ms / 1000, dt.UTC) for ms in _span(request, ports.clock.now_ms()))
    limit = whole_number(request, "limit", SLOTS_MOST, 1, SLOTS_MOST)
    slots = await ports.tiers.availability(celebrity.id, begin, end, who, limit)
    said = [slot_json(slot) for slot in slots]
    following = (
        (epoch_ms(slots[-1].starts_at) or 0) + 1 if len(slots) == limit else None
    )  # No two of one person start together.
    return json({"id": celebrity.id, "timezone": celebrity.timezone, "slots": said, "next": following})


def _span(request: web.Request, now_ms: int) -> tuple[int, int]:
    """From when to when, at most a year."""
    from_ms = _moment(request, "from", now_ms)
    until_ms = _moment(request, "to", from_ms + DAYS_USUAL * DAY_MS)
    if until_ms <= from_ms:
        raise Refused(Code.BAD_MESSAGE, "to comes after from", field="to")
    if until_ms - from_ms > DAYS_MOST * DAY_MS:
        raise Refused(Code.BAD_MESSAGE, f"at most {DAYS_MOST} days at once", field="to", limit=DAYS_MOST)
    return from_ms, until_ms


def _moment(request: web.Request, name: str, otherwise: int) -> int:
    """A date (its beginning in UTC), ISO 8601 with an offset, or epoch milliseconds."""
    text = request.query.get(name, "")
    if text == "":
        return otherwise
    try:
        if text.isascii() and text.isdecimal() and len(text) <= 15:
            return to_ms(int(text))
        return to_ms(f"{dt.date.fromisoformat(text)}T00:00:00Z" if len(text) == len("2027-03-14") else text)
    except ValueError:
        message = f"{name} is a date, or a time in ISO 8601 with an offset, not {text[:40]!r}"
        raise Refused(Code.BAD_MESSAGE, message, field=name) from None


def slot_json(slot: SlotView) -> dict[str, object]:
    """A slot as who may book it sees it."""
    return {
        "id": slot.id,
        "celebrity": slot.celebrity_id,
        "meetingType": slot.meeting_type,
        "duration": slot.duration,
        "startsAtMs": epoch_ms(slot.starts_at),
        "endsAtMs": epoch_ms(slot.ends_at),
        "timezone": slot.timezone,
        "localDate": str(slot.local_date),
        "city": place_json(slot.city_id, slot.city, slot.country),
        "priceCents": slot.price_cents,
        "status": slot.status,
    }


def booking_json(slot: SlotView) -> dict[str, object]:
    """A booking: the slot, and what belongs to its booker."""
    times = {"bookedAtMs": epoch_ms(slot.booked_at), "cancelledAtMs": epoch_ms(slot.cancelled_at)}
    return {**slot_json(slot), "bookedBy": slot.booked_by, "key": slot.key, **times}


async def book_slot(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Make a slot one's own."""
    slot, key = id_of(request), await _key(request)
    booking = await ports.tiers.book(slot, key, who)
    return json({"booking": booking_json(booking.slot), "new": booking.new})


async def _key(request: web.Request) -> str:
    """The header counts as the field `key`, which it must not contradict."""
    body = await json_object(request, SMALL_BODY) if request.can_read_body else {}
    header = request.headers.get(KEY_HEADER)
    if header is not None and body.get("key", header) != header:
        raise Refused(Code.BAD_MESSAGE, f"key and {KEY_HEADER} differ; send one of them", field="key")
    key = parsed(BookIn, body if header is None else {**body, "key": header}).key
    if key is None:
        message = f"a booking has a key of yours, in the header {KEY_HEADER} or as the field key: asked again it is the same booking"
        raise Refused(Code.BAD_MESSAGE, message, field="key")
    return key


async def cancel_slot(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Give a booking up."""
    cancelled = await ports.tiers.cancel(id_of(request), who)
    return json({"booking": booking_json(cancelled.slot), "auditId": cancelled.audit_id})


# --- as told to the OpenAPI document ---

CELEBRITY: Final = object_of(
    {
        "id": WHOLE,
        "key": TEXT,
        "name": TEXT,
        "aliases": list_of(TEXT),
        "country": or_null(TEXT),
        "tier": TIER,
        "timezone": TEXT,
        "maxMonthlySlots": WHOLE,
        "allowPhysical": TRUTH,
        "allowVirtual": TRUTH,
        "fromCents": or_null(WHOLE),
        "toCents": or_null(WHOLE),
    }
)
SLOT: Final[Schema] = object_of(SLOT_FIELDS)
BOOKING: Final[Schema] = object_of(
    {
        **SLOT_FIELDS,
        **dict.fromkeys(("bookedBy", "key"), or_null(TEXT)),
        **dict.fromkeys(("bookedAtMs", "cancelledAtMs"), or_null(EPOCH_MS)),
    }
)
_LISTED: Final = of_json(object_of({"celebrities": list_of(ref("Celebrity")), "next": or_null(WHOLE)}))
_PRICING: Final = of_json(object_of({"id": WHOLE, "packages": list_of(PACKAGE)}))
_AVAILABILITY: Final = of_json(
    object_of({"id": WHOLE, "timezone": TEXT, "slots": list_of(ref("Slot")), "next": or_null(EPOCH_MS)}),
    "`next`, when there is more, is the `from` of the next page",
)
AFTER: Final = Query("after", "The `next` of the page before.", WHOLE)
TIER_QUERY: Final = Query("tier", "Only those.", TIER)
COUNTRY_QUERY: Final = Query("country", "Only those, by ISO 3166-1 alpha-2.")
ROUTES: Final = (
    Route(
        "GET",
        "/celebrities",
        list_celebrities,
        "List people who can be booked, by id",
        _LISTED,
        (
            Query("tier", "Only those; several with commas between."),
            COUNTRY_QUERY,
            Query("search", "A part of the name."),
            Query("minCents", "Has a package that costs at least this (cents).", WHOLE),
            Query("maxCents", "Has a package that costs at most this (cents).", WHOLE),
            AFTER,
            limit_of(50),
        ),
        refusals=(422, 503),
    ),
    Route("GET", "/celebrities/{id}", read_celebrity, "Read a person", of_json(ref("Celebrity")), refusals=(404, 503)),
    Route(
        "GET",
        "/celebrities/{id}/pricing",
        read_pricing,
        "The packages of a person that are offered",
        _PRICING,
        refusals=(404, 503),
    ),
    Route(
        "GET",
        "/celebrities/{id}/availability",
        read_availability,
        "Slots of a person that can be booked, and one's own",
        _AVAILABILITY,
        (
            Query("from", "A date, or a time in ISO 8601; default: now."),
            Query("to", f"The same; default: {DAYS_USUAL} days later, at most {DAYS_MOST}."),
            Query(
                "limit",
                "Slots at once.",
                {"type": "integer", "minimum": 1, "maximum": SLOTS_MOST, "default": SLOTS_MOST},
            ),
        ),
        refusals=(404, 422, 503),
    ),
    Route(
        "POST",
        "/availability/{id}/book",
        book_slot,
        "Book a slot; asked again with the same key it is the same booking",
        of_json(object_of({"booking": ref("Booking"), "new": TRUTH}), "The booking; not new: made before, by its key"),
        body=Content({"application/json": ref("BookIn")}, required=False),
        refusals=(400, 404, 409, 422, 503),
        headers={KEY_HEADER: "the same as `key`"},
    ),
    Route(
        "POST",
        "/availability/{id}/cancel",
        cancel_slot,
        "Cancel a booking",
        of_json(
            object_of({"booking": ref("Booking"), "auditId": AUDITED}),
            "What was given up; audited when it was another's",
        ),
        refusals=(404, 409, 503),
    ),
)
