"""Settings of tracking: runs and their pace, the provider's actors and plans, payouts, and how long things are kept.

An actor is an entry of the list of its platform, in JSON, so that another one, or another version of one, needs no code:

    actor         its id or user/name            views         where the count is in an item, by dots; the first that is there
    input         the field that takes the       post          where the post's address or id is in an item; the first that
                  addresses                                    names one
    objects       addresses go as {"url": ...}   urls          posts of one call
    also          what else it is started with   priceMicros   what one post costs, in millionths of a dollar
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from server.errors import StartRefused
from server.settings.declare import DAY_MS, MINUTE_MS, setting

HOUR_MS: Final = 60 * MINUTE_MS
CALL_EXTRA_MS: Final = 2_000
"""What a call takes beyond its timeout until its counts are settled."""
ACTORS_MOST: Final = 10
"""Actors of one platform."""
PLANS_MOST: Final = 20
CALLS_MOST: Final = 10**9
CENTS_MOST: Final = 10**9
PLAN: Final = re.compile(r"([a-z][a-z0-9-]{0,39}):([0-9]{1,10}):([0-9]{1,10})", re.ASCII)
TRACKED: Final = ("tiktok", "instagram", "youtube", "x")
TIKTOK: Final = (
    '[{"actor":"clockworks/tiktok-scraper","input":"postURLs","views":["playCount"],'
    '"post":["submittedVideoUrl","webVideoUrl","id"],"urls":20,"priceMicros":4000,"also":{"resultsPerPage":1,'
    '"shouldDownloadVideos":false}},{"actor":"clockworks/free-tiktok-scraper","input":"postURLs",'
    '"views":["playCount"],"post":["submittedVideoUrl","webVideoUrl","id"],"urls":20,"priceMicros":5000,'
    '"also":{"resultsPerPage":1}}]'
)
INSTAGRAM: Final = (
    '[{"actor":"apify/instagram-scraper","input":"directUrls","views":["videoPlayCount","videoViewCount"],'
    '"post":["inputUrl","url","shortCode"],"urls":20,"priceMicros":2700,"also":{"resultsType":"posts",'
    '"resultsLimit":1}}]'
)
YOUTUBE: Final = (
    '[{"actor":"streamers/youtube-scraper","input":"startUrls","objects":true,"views":["viewCount"],'
    '"post":["url","id"],"urls":20,"priceMicros":5000,"also":{"maxResults":1}}]'
)
X: Final = (
    '[{"actor":"apidojo/tweet-scraper","input":"startUrls","views":["viewCount"],"post":["url","twitterUrl",'
    '"id"],"urls":20,"priceMicros":400,"also":{"maxItems":20}}]'
)


@dataclass(frozen=True, slots=True)
class Pace:
    """How often a run begins, and how many clips it takes at most."""

    interval_ms: int
    limit: int


PRESETS: Final = {"100-every-4h": Pace(4 * HOUR_MS, 100), "50-every-2h": Pace(2 * HOUR_MS, 50)}


def _actors(platform: str, default: str) -> Any:
    doc = (
        f"The provider's actors for {platform}, a list in JSON (docs/tracking.md); []: none, its posts are unsupported."
    )
    return setting(default, doc, group="Tracking", max_length=20_000)


class Tracking(BaseModel):
    """How clips are looked at, whom that asks, and what of it is kept."""

    tracking_preset: Literal["own", "100-every-4h", "50-every-2h"] = setting(
        "own",
        "How often runs begin and how much they take: as the two settings below say, or one of the usual ways.",
        group="Tracking",
    )
    tracking_interval_ms: int = setting(
        30 * MINUTE_MS, "How often a run takes the clips that are due (ms).", group="Tracking", ge=1_000, le=DAY_MS
    )
    tracking_limit: int = setting(
        100, "Clips that one run takes, the most urgent first; the others stay due.", group="Tracking", ge=1, le=10_000
    )
    tracking_batch: int = setting(
        10, "Calls of the provider under way together in a run.", group="Tracking", ge=1, le=100
    )
    tracking_pause_ms: int = setting(
        2_000, "Pause between two batches of calls (ms).", group="Tracking", ge=0, le=MINUTE_MS
    )
    tracking_call_timeout_ms: int = setting(
        60_000,
        "A call of the provider that takes longer has failed (ms).",
        group="Tracking",
        ge=1_000,
        le=10 * MINUTE_MS,
    )
    tracking_budget_ms: int = setting(
        300_000,
        "Time that a run may take (ms): no batch begins that could not end within it; what is left stays due.",
        group="Tracking",
        ge=10_000,
        le=HOUR_MS,
    )
    tracking_lease_ms: int = setting(
        60_000,
        "A run whose process is not heard of for this long is over, and the next may begin (ms).",
        group="Tracking",
        ge=1_000,
        le=10 * MINUTE_MS,
    )
    tracking_at_once: int = setting(
        10, "Calls under way for one platform at a time, by all nodes together.", group="Tracking", ge=1, le=1_000
    )
    tracking_retries: int = setting(
        2, "Retries of a call that may succeed later, within its run.", group="Tracking", ge=0, le=10
    )
    tracking_retry_first_ms: int = setting(
        5_000,
        "Wait before the first retry of a call, doubled with each further one (ms).",
        group="Tracking",
        ge=10,
        le=10 * MINUTE_MS,
    )
    tracking_not_found: int = setting(
        3, "A post that is not found so many times in a row is not looked at again.", group="Tracking", ge=1, le=100
    )
    tracking_cache_ms: int = setting(
        HOUR_MS,
        "A count is good for so long without asking again (ms); less than the shortest interval of a clip.",
        group="Tracking",
        ge=0,
        le=2 * HOUR_MS - 1_000,
    )
    tracking_tiktok_actors: str = _actors("TikTok", TIKTOK)
    tracking_instagram_actors: str = _actors("Instagram", INSTAGRAM)
    tracking_youtube_actors: str = _actors("YouTube", YOUTUBE)
    tracking_x_actors: str = _actors("X", X)
    tracking_success_least: int = setting(
        80,
        "An actor that succeeds less often (per cent) gives way to the platform's next one.",
        group="Tracking",
        ge=0,
        le=100,
    )
    tracking_plans: str = setting(
        "free:5000:0,starter:100000:4900,team:1000000:49900",
        "The provider's plans: name:calls a month:cents a month, with commas between.",
        group="Tracking",
        max_length=2_000,
    )
    tracking_plan: str = setting(
        "starter",
        "Our plan, one of TRACKING_PLANS: never more calls in a month (UTC) than it has, all nodes together.",
        group="Tracking",
        max_length=40,
    )
    tracking_popularity: bool = setting(
        False, "Growth of a clip that belongs to an event counts as that event's popularity.", group="Tracking"
    )
    tracking_payout_least_cents: int = setting(
        2_000, "The least that a creator can ask to be paid (cents).", group="Tracking", ge=1, le=CENTS_MOST
    )
    tracking_fee_basis: int = setting(
        0,
        "Fee of a payout when its approval names none (hundredths of a per cent; 1000 is 10 %).",
        group="Tracking",
        ge=0,
        le=1_000,
    )
    tracking_keep_days: int = setting(
        400,
        "Days that counts of views, runs, what failed in them, and notifications are kept.",
        group="Tracking",
        ge=1,
        le=3650,
    )


class Actor(BaseModel):
    """One actor of the provider, as it is set; see above."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, strict=True)

    actor: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._~/-]{0,199}$")]
    input: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    views: Annotated[list[str], Field(min_length=1, max_length=10)]
    post: Annotated[list[str], Field(min_length=1, max_length=10)]
    urls: int = Field(ge=1, le=1_000)
    price_micros: int = Field(ge=0, le=CENTS_MOST)
    objects: bool = False
    also: dict[str, Any] = Field(default_factory=dict)


_LIST: Final = TypeAdapter(Annotated[list[Actor], Field(max_length=ACTORS_MOST)])


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan of the provider: what it costs a month, and what it is enough for."""

    name: str
    calls: int
    cents: int


def pace_of(settings: Tracking) -> Pace:
    """The preset, or one's own."""
    own = Pace(settings.tracking_interval_ms, settings.tracking_limit)
    return PRESETS.get(settings.tracking_preset, own)


def actors_of(settings: Tracking, platform: str) -> tuple[Actor, ...]:
    """The actors of a platform, the cheapest first; StartRefused says which field of which is wrong."""
    name = f"tracking_{platform}_actors"
    try:
        found = _LIST.validate_python(json.loads(getattr(settings, name)))
    except json.JSONDecodeError as error:
        raise StartRefused(f"{name.upper()} is no JSON ({error.msg} at character {error.pos}).") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise StartRefused(f"{name.upper()}: {where or 'it'}: {first['msg']}. See docs/tracking.md.") from None
    if len({actor.actor for actor in found}) < len(found):
        raise StartRefused(f"{name.upper()} names an actor twice; take one of them out.")
    return tuple(sorted(found, key=lambda actor: actor.price_micros))


def plans_of(settings: Tracking) -> tuple[Plan, ...]:
    """The provider's plans, the smallest first; StartRefused says what is wrong with them."""
    found = [_plan(text.strip()) for text in settings.tracking_plans.split(",")]
    if len({plan.name for plan in found}) < len(found) or len(found) > PLANS_MOST:
        raise StartRefused(f"TRACKING_PLANS names each plan once, and {PLANS_MOST} at most.")
    return tuple(sorted(found, key=lambda plan: (plan.calls, plan.cents)))


def _plan(text: str) -> Plan:
    match = PLAN.fullmatch(text)
    if match is None or not 1 <= int(match[2]) <= CALLS_MOST or int(match[3]) > CENTS_MOST:
        raise StartRefused(f"TRACKING_PLANS: {text[:60]!r} is not name:calls:cents, such as starter:100000:4900.")
    return Plan(match[1], int(match[2]), int(match[3]))


def plan_of(settings: Tracking) -> Plan:
    """The plan that we have."""
    plans = plans_of(settings)
    found = next((plan for plan in plans if plan.name == settings.tracking_plan), None)
    if found is None:
        names, ours = ", ".join(plan.name for plan in plans), settings.tracking_plan
        raise StartRefused(f"TRACKING_PLAN is {ours!r}, which TRACKING_PLANS does not have; it has {names}.")
    return found


def check_tracking(settings: Tracking) -> None:
    """What the single values can't say; StartRefused says what to change."""
    for platform in TRACKED:
        actors_of(settings, platform)
    plan_of(settings)
    given = settings.model_fields_set & {"tracking_interval_ms", "tracking_limit"}
    if settings.tracking_preset != "own" and given:
        names = " and ".join(name.upper() for name in sorted(given))
        message = f"TRACKING_PRESET is {settings.tracking_preset}, so {names} would not count; unset one or the other."
        raise StartRefused(message)
    least = settings.tracking_call_timeout_ms + CALL_EXTRA_MS
    if settings.tracking_budget_ms < least:
        raise StartRefused(
            f"TRACKING_BUDGET_MS={settings.tracking_budget_ms} is less than a call of TRACKING_CALL_TIMEOUT_MS="
            f"{settings.tracking_call_timeout_ms} can take ({least}): none could ever begin; raise it."
        )
