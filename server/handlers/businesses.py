"""A team's businesses and what was scraped of them: the same code for the four platforms.

A token speaks for the team of its claim `team`, an admin's for any. What another team has is not there: reads and writes run in a
role of the database that sees the rows of one team only. A business is known on a platform by its place id or its page's address.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator
from typing import Final

from aiohttp import web

from server.batching.schedules.plan import PLATFORMS, Platform
from server.batching.schedules.reading import ReviewView
from server.core.identity import Identity
from server.edge.web import check_length, chunks, json, json_object, media_type, whole_number
from server.errors import Code, Refused
from server.handlers.admin import SMALL_BODY
from server.handlers.imports import AUDIT_ID, FILES, id_of, limit_of
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
from server.handlers.saying import AFTER, said, team_of
from server.protocol.schedules import ProfileIn, asked

PAGE_MOST: Final = 1_000
EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
MICROSECOND: Final = dt.timedelta(microseconds=1)


async def read_self(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Whose token this is."""
    return json({"user": who.user, "roles": sorted(who.roles), "team": who.team, "admin": who.admin})


async def create_profile(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Follow a business."""
    platform = platform_of(request)
    body = asked(ProfileIn, await json_object(request, SMALL_BODY))
    team = body.team or who.team
    if team is None:
        message = "say whose business it is: `team`, or a token with the claim `team` (batchcast token create --team)"
        raise Refused(Code.BAD_MESSAGE, message, field="team")
    core = ports.schedules.core
    made = await core.placing.create(team, platform, body.identifier, who, body.name, body.business_id)
    if made.new:
        ports.schedules.note("businesses", "schedules", schedules=None)
    profile = await core.catalog.profiles(team, platform, who, after=made.business_id - 1, limit=1)
    return json({"profile": said(profile[0]), "new": made.new, "auditId": made.audit_id})


async def delete_profile(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Follow it no more."""
    gone = await ports.schedules.core.placing.delete(id_of(request), platform_of(request), who)
    ports.schedules.note("businesses", "schedules", "retries", schedules=None)
    return json(
        {
            "id": gone.business_id,
            "platform": gone.platform,
            "businessGone": gone.business_gone,
            "auditId": gone.audit_id,
        }
    )


async def list_profiles(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """A page of a team's businesses."""
    team, platform = _team(request, who), platform_of(request)
    limit = whole_number(request, "limit", 50, 1, PAGE_MOST)
    after = whole_number(request, "after", 0, 1, (1 << 63) - 1)
    found = await ports.schedules.core.catalog.profiles(team, platform, who, after=after, limit=limit)
    following = found[-1].id if len(found) == limit else None
    return json({"team": team, "platform": platform, "profiles": said(found), "next": following})


async def list_reviews(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """A page of a business's reviews."""
    team, business, platform = _business(request, who)
    limit = whole_number(request, "limit", 50, 1, PAGE_MOST)
    after = _review_place(request.query.get("after", ""))
    found = await ports.schedules.reading.reviews(team, business, platform, who, after=after, limit=limit)
    return json({"reviews": said(found), "next": _review_cursor(found[-1]) if len(found) == limit else None})


async def list_overviews(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """A business's figures, now and before."""
    team, business, platform = _business(request, who)
    limit = whole_number(request, "limit", 50, 1, PAGE_MOST)
    before = whole_number(request, "before", 0, 1, 1 << 62)
    reading = ports.schedules.reading
    latest = await reading.overviews(team, business, platform, who, before=None, limit=1)
    found = await reading.overviews(
        team, business, platform, who, before=_moment(before) if before else None, limit=limit
    )
    following = _microseconds(found[-1].fetched_at) if len(found) == limit else None
    return json({"latest": said(latest[0]) if latest else None, "history": said(found), "next": following})


async def import_businesses(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Take in a file of businesses, which is the body."""
    fmt = FILES.get(media_type(request) or "")
    if fmt is None:
        raise Refused(Code.BAD_JSON, f"the body is a file of businesses: {' or '.join(FILES)}")
    key = request.query.get("key", "")
    if not 1 <= len(key) <= 200 or not key.isprintable():
        message = "key names the file (its SHA-256, say): sent again under the same key, it goes on where it stopped"
        raise Refused(Code.BAD_MESSAGE, message, field="key", limit=200)
    most = ports.settings.schedules_import_bytes
    check_length(request, most)
    with ports.streams:
        taken = await ports.schedules.take_in(key, fmt, _bounded(chunks(request), most), who)
    return json(said(taken))


async def _bounded(pieces: AsyncIterator[bytes], most: int) -> AsyncIterator[bytes]:
    """Refused above the bound; what was stored by then stays, and the file can't go further."""
    size = 0
    async for piece in pieces:
        size += len(piece)
        if size > most:
            message = f"a file of businesses has at most {most} bytes (SCHEDULES_IMPORT_BYTES); send it in parts"
            raise Refused(Code.TOO_LARGE, message, limit=most)
        yield piece


# --- parts ---


def platform_of(request: web.Request) -> Platform:
    """The platform in the path; one that there is not is not found."""
    text = request.match_info["platform"]
    found = next((platform for platform in PLATFORMS if platform == text), None)
    if found is None:
        message = f"there is no platform {text[:40]!r}; there are {', '.join(PLATFORMS)}"
        raise Refused(Code.NOT_FOUND, message, field="platform")
    return found


def _team(request: web.Request, who: Identity) -> str:
    """The team in the path; another one than the token's is not found, whether there is one or not."""
    team = team_of(request)
    if not who.admin and who.team != team:
        speaks = "no team" if who.team is None else f"the team {who.team[:80]!r}"
        raise Refused(
            Code.NOT_FOUND, f"there is no team {team[:80]!r} for this token; it speaks for {speaks}", field="team"
        )
    return team


def _business(request: web.Request, who: Identity) -> tuple[str, int, Platform]:
    return _team(request, who), id_of(request, "business"), platform_of(request)


def _microseconds(moment: dt.datetime) -> int:
    return (moment - EPOCH) // MICROSECOND


def _moment(microseconds: int) -> dt.datetime:
    try:
        return EPOCH + microseconds * MICROSECOND
    except OverflowError:
        raise _no_place("before") from None


def _review_cursor(last: ReviewView) -> str:
    """When the last one was published, in microseconds (nothing: it has no date), and its id."""
    published = "" if last.published_at is None else str(_microseconds(last.published_at))
    return f"{published}~{last.id}"


def _review_place(text: str) -> tuple[dt.datetime | None, str] | None:
    if text == "":
        return None
    published, mark, last = text.partition("~")
    digits = published.removeprefix("-")
    if not mark or len(text) > 600 or "\0" in text or not (digits == "" or (digits.isdecimal() and len(digits) < 19)):
        raise _no_place("after")
    return (_moment(int(published)) if digits else None, last)


def _no_place(name: str) -> Refused:
    return Refused(Code.BAD_MESSAGE, f"{name} is no place in the list; use `next` of the page before", field=name)


# --- as told to the OpenAPI document ---

PLATFORM: Final[Schema] = {"enum": list(PLATFORMS)}
TYPE: Final[Schema] = {"enum": ["reviews", "overview"]}
PLACEMENT: Final = object_of(
    {
        "scheduleId": WHOLE,
        "type": TYPE,
        "hours": WHOLE,
        "index": WHOLE,
        "paused": TRUTH,
        "nextRunAtMs": EPOCH_MS,
        "lastRunAtMs": or_null(EPOCH_MS),
    }
)
PROFILE: Final = object_of(
    {
        "id": WHOLE,
        "team": TEXT,
        "platform": PLATFORM,
        "name": TEXT,
        "status": {"enum": ["active", "paused"]},
        "identifier": TEXT,
        "placements": list_of(ref("Placement")),
    }
)
REVIEW: Final = object_of(
    {
        "id": TEXT,
        "rating": or_null(NUMBER),
        **dict.fromkeys(("title", "text", "author", "url"), or_null(TEXT)),
        "publishedAtMs": or_null(EPOCH_MS),
        "firstSeenAtMs": EPOCH_MS,
        "fetchedAtMs": EPOCH_MS,
        "edits": WHOLE,
    }
)
OVERVIEW: Final = object_of(
    {"fetchedAtMs": EPOCH_MS, "rating": or_null(NUMBER), "reviewCount": or_null(WHOLE), "name": or_null(TEXT)}
)
_PROFILES: Final = {"team": TEXT, "platform": PLATFORM, "profiles": list_of(ref("Profile")), "next": or_null(WHOLE)}
_OVERVIEWS: Final = {
    "latest": or_null(ref("Overview")),
    "history": list_of(ref("Overview")),
    "next": or_null(WHOLE),
}
_REJECTED: Final = list_of(object_of({"number": WHOLE, "field": or_null(TEXT), "reason": TEXT}))
_FILE: Final[Schema] = {
    "type": "string",
    "description": "a header and businesses: team, platform, identifier, name, tier",
}
PATH: Final = "/api/{platform}/profile"
ROUTES: Final = (
    Route(
        "GET",
        "/api/me",
        read_self,
        "Whose token this is, and which team it speaks for",
        of_json(object_of({"user": or_null(TEXT), "roles": list_of(TEXT), "team": or_null(TEXT), "admin": TRUTH})),
    ),
    Route(
        "POST",
        PATH,
        create_profile,
        "Follow a business on a platform; one that the team follows already is answered as it is",
        of_json(object_of({"profile": ref("Profile"), "new": TRUTH, "auditId": or_null(AUDIT_ID)})),
        body=of_json(ref("ProfileIn")),
        refusals=(400, 404, 409, 413, 422, 503),
    ),
    Route(
        "DELETE",
        f"{PATH}/{{id}}",
        delete_profile,
        "Follow a business on a platform no more; without any platform left the business goes too",
        of_json(object_of({"id": WHOLE, "platform": PLATFORM, "businessGone": TRUTH, "auditId": or_null(AUDIT_ID)})),
        refusals=(404, 503),
    ),
    Route(
        "GET",
        f"{PATH}/{{team}}",
        list_profiles,
        "A team's businesses on a platform, with their schedules",
        of_json(object_of(_PROFILES)),
        (AFTER, limit_of(50)),
        refusals=(404, 422, 503),
    ),
    Route(
        "GET",
        f"{PATH}/{{team}}/{{business}}/reviews",
        list_reviews,
        "A business's reviews, the newest first",
        of_json(object_of({"reviews": list_of(ref("Review")), "next": or_null(TEXT)})),
        (Query("after", "The `next` of the page before."), limit_of(50)),
        refusals=(404, 422, 503),
    ),
    Route(
        "GET",
        f"{PATH}/{{team}}/{{business}}/overview",
        list_overviews,
        "A business's rating and number of reviews, now and before",
        of_json(object_of(_OVERVIEWS)),
        (Query("before", "The `next` of the page before.", WHOLE), limit_of(50)),
        refusals=(404, 422, 503),
    ),
    Route(
        "POST",
        "/admin/businesses",
        import_businesses,
        "Take in a file of businesses; safe to send again, and it goes on where it stopped",
        of_json(
            object_of(
                {
                    **dict.fromkeys(("rows", "placed", "known", "refused", "resumedAtRow"), WHOLE),
                    "errors": _REJECTED,
                    "auditId": AUDIT_ID,
                }
            ),
            "What became of the rows; the first of those that did not go in",
        ),
        (Query("key", "Names the file, its hash say."),),
        body=Content(dict.fromkeys(FILES, _FILE)),
        refusals=(400, 413, 422, 429, 503),
    ),
)
