"""How the tiers look as JSON, and what the OpenAPI document says of it; side by side, so that they agree.

Money is whole cents, a month is `2027-03`, names that end in `Ms` are milliseconds since 1970. Tiers come in the order S to D.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import orjson

from server.batching.tiers.lookup import Calendar, CalendarSlot, PersonFile, PersonRow, Place
from server.batching.tiers.relay import said_of
from server.batching.tiers.rules import KINDS, RATINGS, TIERS
from server.batching.tiers.runs import ItemView, RunView
from server.handlers.admin import camel
from server.handlers.imports import AUDIT_ID, epoch_ms
from server.handlers.ports import EPOCH_MS, NUMBER, TEXT, TRUTH, WHOLE, Schema, list_of, object_of, or_null

DATE: Final[Schema] = {"type": "string", "format": "date"}
MONTH: Final[Schema] = {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}$"}
TIER: Final[Schema] = {"enum": list(TIERS)}
KIND: Final[Schema] = {"enum": list(KINDS)}
AUDITED: Final = or_null(AUDIT_ID)


def fields(value: object, *without: str) -> dict[str, object]:
    """A value's fields as JSON, without some."""
    said = camel(value)
    assert isinstance(said, dict)
    return {name: field for name, field in said.items() if name not in without}


# --- runs ---


def run_json(run: RunView) -> dict[str, object]:
    """A run and how far it is."""
    far = said_of(run)
    return {
        **fields(run, "plannedAt", "startedAt", "progressAt", "finishedAt", "position"),
        "scope": "new-only" if run.scope == "new" else run.scope,
        **{name: far[name] for name in ("taken", "percent", "rate", "etaMs")},
        "plannedAtMs": epoch_ms(run.planned_at),
        "startedAtMs": epoch_ms(run.started_at),
        "progressAtMs": epoch_ms(run.progress_at),
        "finishedAtMs": epoch_ms(run.finished_at),
    }


def item_json(item: ItemView) -> dict[str, object]:
    """What became of one person in a run."""
    return {
        **fields(item, "celebrityId", "at", "short"),
        "person": item.celebrity_id,
        "short": orjson.loads(item.short) if item.short else None,
        "atMs": epoch_ms(item.at),
    }


_PEOPLE_COUNTS: Final = ("total", "taken", "done", "unchanged", "failed", "skipped", "slots")
RUN: Final = object_of(
    {
        "id": WHOLE,
        "kind": {"enum": ["classify", "generate"]},
        "scope": {"enum": ["all", "new-only", "tier", "person"]},
        "tier": or_null(TIER),
        "month": or_null(MONTH),
        "person": or_null(WHOLE),
        "replace": TRUTH,
        "override": TRUTH,
        "status": {"enum": ["running", "done", "stopped"]},
        **dict.fromkeys(_PEOPLE_COUNTS, WHOLE),
        "startedBy": or_null(TEXT),
        "percent": NUMBER,
        "rate": NUMBER,
        "etaMs": or_null(WHOLE),
        **dict.fromkeys(("plannedAtMs", "startedAtMs", "progressAtMs"), EPOCH_MS),
        "finishedAtMs": or_null(EPOCH_MS),
    },
    {"reasons": list_of(object_of({"status": TEXT, "reason": TEXT, "people": WHOLE}))},
)
SHORT: Final[Schema] = {"type": "object", "additionalProperties": TEXT}
ITEM: Final = object_of(
    {
        "person": WHOLE,
        "key": TEXT,
        "name": TEXT,
        "status": {"enum": ["done", "failed", "skipped", "replaced"]},
        "reason": or_null(TEXT),
        "physical": WHOLE,
        "virtual": WHOLE,
        "short": or_null(SHORT),
        "atMs": EPOCH_MS,
    }
)

# --- people ---


def row_json(row: PersonRow) -> dict[str, object]:
    """A person in a list."""
    return {**fields(row, "decidedAt"), "decidedAtMs": epoch_ms(row.decided_at)}


def file_json(file: PersonFile) -> dict[str, object]:
    """A person: the evidence, what was made of it, packages and pool."""
    known = file.evidence
    plain = ("overrideTier", "overrideReason", "reviewed", "importedAt", "updatedAt", *_RATINGS)
    override = {"tier": known.override_tier, "reason": known.override_reason, "reviewed": known.reviewed}
    return {
        **row_json(file.row),
        **fields(known, *plain),
        "ratings": {name: said for name, said in fields(known).items() if name in _RATINGS},
        "comparables": orjson.loads(known.comparables),
        "override": override if known.override_tier else None,
        "importedAtMs": epoch_ms(known.imported_at),
        "updatedAtMs": epoch_ms(known.updated_at),
        "packages": camel(file.packages),
        "pool": camel(file.pool),
    }


_RATINGS: Final = tuple(name.split("_")[0] + "".join(map(str.capitalize, name.split("_")[1:])) for name in RATINGS)


def calendar_json(month: str, calendar: Calendar) -> dict[str, object]:
    """A person's month."""
    rotations = [
        {"startsOn": str(one.starts_on), "endsOn": str(one.ends_on), "tier": one.tier, "cities": camel(one.cities)}
        for one in calendar.rotations
    ]
    cooldowns = [
        {**fields(one), "lastVisit": str(one.last_visit), "until": str(one.until)} for one in calendar.cooldowns
    ]
    return {
        "month": month,
        "timezone": calendar.timezone,
        "slots": [calendar_slot(slot) for slot in calendar.slots],
        "rotations": rotations,
        "cooldowns": cooldowns,
        "item": None if calendar.item is None else camel(calendar.item),
    }


def calendar_slot(slot: CalendarSlot) -> dict[str, object]:
    """A slot as an administrator sees it."""
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
        "bookedBy": slot.booked_by,
        "bookedAtMs": epoch_ms(slot.booked_at),
        "cancelledAtMs": epoch_ms(slot.cancelled_at),
    }


def place_json(city: int | None, name: str | None, country: str | None) -> object:
    """A city; null where there is none."""
    return None if city is None else camel(Place(city, name or "", country or ""))


PLACE: Final = object_of({"city": WHOLE, "name": TEXT, "country": TEXT})
_PERSON: Final[Mapping[str, Schema]] = {
    "id": WHOLE,
    "key": TEXT,
    "name": TEXT,
    "tier": or_null(TIER),
    "source": or_null(TEXT),
    "reason": or_null(TEXT),
    "needsReview": TRUTH,
    "flags": list_of(TEXT),
    "country": or_null(TEXT),
    "maxMonthlySlots": or_null(WHOLE),
    "excluded": or_null(TEXT),
    "decidedAtMs": or_null(EPOCH_MS),
}
PERSON_ROW: Final = object_of(_PERSON)
PACKAGE: Final = object_of({"meetingType": KIND, "duration": WHOLE, "priceCents": WHOLE})
HISTORY: Final = object_of(
    {
        "atMs": EPOCH_MS,
        "from": or_null(TIER),
        "to": TIER,
        "source": TEXT,
        "reason": TEXT,
        "who": or_null(TEXT),
        "ruleVersion": WHOLE,
    }
)
PERSON: Final = object_of(
    {
        **_PERSON,
        "aliases": list_of(TEXT),
        "ratings": object_of(dict.fromkeys(_RATINGS, or_null(TIER))),
        "comparables": list_of(object_of({"name": TEXT, "tier": or_null(TIER)})),
        **dict.fromkeys(("legacy", "globalAward", "allowPhysical", "allowVirtual", "verified"), TRUTH),
        "netWorthCents": or_null(WHOLE),
        "override": or_null(object_of({"tier": TIER, "reason": or_null(TEXT), "reviewed": TRUTH})),
        "accepted": list_of(TEXT),
        **dict.fromkeys(("countryGiven", "timezoneGiven"), TEXT),
        **dict.fromkeys(("countrySource", "timezone"), or_null(TEXT)),
        "ruleVersion": or_null(WHOLE),
        **dict.fromkeys(("importedAtMs", "updatedAtMs"), EPOCH_MS),
        "packages": list_of(object_of({"meetingType": KIND, "duration": WHOLE, "priceCents": WHOLE, "active": TRUTH})),
        "pool": list_of(PLACE),
        "history": list_of(HISTORY),
    }
)
SLOT_FIELDS: Final[Mapping[str, Schema]] = {
    "id": WHOLE,
    "celebrity": WHOLE,
    "meetingType": KIND,
    "duration": WHOLE,
    "startsAtMs": EPOCH_MS,
    "endsAtMs": EPOCH_MS,
    "timezone": TEXT,
    "localDate": DATE,
    "city": or_null(PLACE),
    "priceCents": WHOLE,
    "status": {"enum": ["available", "booked", "cancelled", "expired"]},
}
_ADMIN_SLOT: Final = object_of(
    {
        **SLOT_FIELDS,
        "bookedBy": or_null(TEXT),
        **dict.fromkeys(("bookedAtMs", "cancelledAtMs"), or_null(EPOCH_MS)),
    }
)
CALENDAR: Final = object_of(
    {
        "month": MONTH,
        "timezone": TEXT,
        "slots": list_of(_ADMIN_SLOT),
        "rotations": list_of(object_of({"startsOn": DATE, "endsOn": DATE, "tier": TIER, "cities": list_of(PLACE)})),
        "cooldowns": list_of(
            object_of({"city": WHOLE, "name": TEXT, "country": TEXT, "lastVisit": DATE, "until": DATE})
        ),
        "item": or_null(
            object_of(
                {
                    "run": WHOLE,
                    "status": TEXT,
                    "reason": or_null(TEXT),
                    "short": or_null(SHORT),
                    "physical": WHOLE,
                    "virtual": WHOLE,
                }
            )
        ),
    }
)
