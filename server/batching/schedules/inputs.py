"""What a business is called at the provider, and what its actors are sent. Pure.

Google knows a place by its place id; the others by the address of its page. Addresses are compared, and kept, in one form:

    HTTP://WWW.Booking.com/hotel/de/adler.html?aid=304142&label=x  ->  https://booking.com/hotel/de/adler.html

scheme https, host in lower case without `www.`, no port, user, fragment or trailing slash, no tracking parameters, the others in
order. The path stays as it is: its case may matter. To the provider goes the address with `www.`, as browsers show it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias
from urllib.parse import parse_qsl, urlencode, urlsplit

from server.batching.schedules.plan import Platform, Type
from server.errors import Code, Refused

IDENTIFIER_MOST: Final = 1_000
NAME_MOST: Final = 300
TEAM_MOST: Final = 200
CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
PLACE: Final = re.compile(r"[A-Za-z0-9_-]{6,300}")
PLACE_IN_URL: Final = re.compile(r"(?:place_id[:=]|placeid=|query_place_id=)([A-Za-z0-9_-]{6,300})", re.IGNORECASE)
HOSTS: Final[dict[Platform, re.Pattern[str]]] = {
    "facebook": re.compile(r"(?:[a-z0-9-]+\.)*(?:facebook|fb)\.com"),
    "tripadvisor": re.compile(r"(?:[a-z0-9-]+\.)*tripadvisor\.(?:[a-z]{2,3}\.)?[a-z]{2,3}"),
    "booking": re.compile(r"(?:[a-z0-9-]+\.)*booking\.com"),
}
BARE: Final = re.compile(r"https://((?:facebook|fb|booking)\.com|tripadvisor\.(?:[a-z]{2,3}\.)?[a-z]{2,3})(?=[/?]|$)")
EXAMPLE: Final[dict[Platform, str]] = {
    "google": "a place id such as ChIJN1t_tDeuEmsRUsoyG83frY4",
    "facebook": "the address of a page such as https://www.facebook.com/NAME",
    "tripadvisor": "the address of a page such as https://www.tripadvisor.com/Hotel_Review-g187323-d199753-Reviews-NAME.html",
    "booking": "the address of a page such as https://www.booking.com/hotel/de/NAME.html",
}
PLAIN: Final = re.compile(r"https?://(?:www\.)?((?!www\.)(?:[a-z0-9-]+\.)+[a-z0-9-]+)((?:/[A-Za-z0-9._~%+-]*)*)")
"""Addresses without anything that has to be looked at closely, as most of them are."""
TRACKING: Final = re.compile(
    r"(?:utm_|pk_|mtm_|hsa_|__cft__|__tn__|mc_).*|(?:fb|g|dg|ms|y|tt|tw)clid|[gw]braid|dclid|igshid|mibextid|_ga|_gl"
    r"|ref_?|ref_?src|fref|hc_ref|aid|label|sid|srpvid|srepoch",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Asked:
    """How much is asked for of each business in one run."""

    reviews: int = 100
    language: str = "en"


def words(text: str, field: str, most: int, least: int = 0) -> str:
    """A text for people: trimmed, within its bounds, without control characters (PostgreSQL takes no NUL)."""
    trimmed = text.strip()
    if not least <= len(trimmed) <= most:
        raise Refused(Code.BAD_MESSAGE, f"{field} has {least} to {most} characters", field=field, limit=most)
    if CONTROL.search(trimmed):
        raise Refused(Code.BAD_MESSAGE, f"there is a control character in {field}; take it out", field=field)
    return trimmed


def identifier(platform: Platform, text: str) -> str:
    """How a business is known on a platform, in the form in which it is kept; Refused says what is expected."""
    found = _place(text.strip()) if platform == "google" else _page(platform, text.strip())
    if found is None or len(found) > IDENTIFIER_MOST:
        shown = text.strip()[:100]
        message = f"{shown!r} names no business on {platform}; give {EXAMPLE[platform]}"
        raise Refused(Code.BAD_MESSAGE, message, field="identifier", limit=IDENTIFIER_MOST)
    return found


def normalised(address: str) -> str | None:
    """An address in the form in which addresses are compared; None when it is none."""
    plain = PLAIN.fullmatch(address)
    return f"https://{plain[1]}{plain[2].rstrip('/')}" if plain else _normalised(address)


def _normalised(address: str) -> str | None:
    with_scheme = address if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", address) else f"https://{address.lstrip('/')}"
    try:
        parts = urlsplit(with_scheme)
        host = (parts.hostname or "").rstrip(".")
    except ValueError:
        return None
    if parts.scheme.lower() not in ("http", "https") or "." not in host or re.search(r"[\s\x00-\x1f]", with_scheme):
        return None
    kept = sorted((k, v) for k, v in parse_qsl(parts.query, keep_blank_values=True) if not TRACKING.fullmatch(k))
    query = f"?{urlencode(kept)}" if kept else ""
    return f"https://{host.removeprefix('www.')}{parts.path.rstrip('/')}{query}"


def address(identifier: str) -> str:
    """What goes to the provider for a kept address."""
    return BARE.sub(r"https://www.\1", identifier, count=1)


def _place(text: str) -> str | None:
    if PLACE.fullmatch(text):
        return text
    found = PLACE_IN_URL.search(text)
    return found[1] if found else None


def _page(platform: Platform, text: str) -> str | None:
    found = normalised(text)
    if found is None:
        return None
    host, slash, path = found.removeprefix("https://").partition("/")
    return found if HOSTS[platform].fullmatch(host) and slash and path else None


# Inputs of the actors

Input: TypeAlias = dict[str, object]


def run_input(platform: Platform, type: Type, identifiers: Sequence[str], asked: Asked) -> Input:
    """What the actor for this platform and type is started with."""
    return INPUTS[platform, type](identifiers, asked)


def _urls(identifiers: Sequence[str]) -> list[dict[str, str]]:
    return [{"url": address(known)} for known in identifiers]


def _google_reviews(places: Sequence[str], asked: Asked) -> Input:
    return {
        "placeIds": list(places),
        "maxReviews": asked.reviews,
        "reviewsSort": "newest",
        "language": asked.language,
    }


def _google_overview(places: Sequence[str], asked: Asked) -> Input:
    return {"placeIds": list(places), "maxReviews": 0, "language": asked.language}


def _facebook_reviews(pages: Sequence[str], asked: Asked) -> Input:
    """Its limit is one for the whole run, so that one popular page can use up what was meant for others."""
    return {"startUrls": _urls(pages), "resultsLimit": asked.reviews * len(pages)}


def _facebook_overview(pages: Sequence[str], asked: Asked) -> Input:
    return {"startUrls": _urls(pages), "resultsLimit": len(pages)}


def _tripadvisor_reviews(pages: Sequence[str], asked: Asked) -> Input:
    return {"startUrls": _urls(pages), "maxItemsPerQuery": asked.reviews}


def _tripadvisor_overview(pages: Sequence[str], asked: Asked) -> Input:
    return {"startUrls": _urls(pages), "maxItemsPerQuery": 1}


def _booking_reviews(pages: Sequence[str], asked: Asked) -> Input:
    return {"startUrls": _urls(pages), "maxReviewsPerHotel": asked.reviews, "sortReviewsBy": "f_recent_desc"}


def _booking_overview(pages: Sequence[str], asked: Asked) -> Input:
    return {"startUrls": _urls(pages), "maxReviewsPerHotel": 0}


INPUTS: Final[dict[tuple[Platform, Type], Callable[[Sequence[str], Asked], Input]]] = {
    ("google", "reviews"): _google_reviews,
    ("google", "overview"): _google_overview,
    ("facebook", "reviews"): _facebook_reviews,
    ("facebook", "overview"): _facebook_overview,
    ("tripadvisor", "reviews"): _tripadvisor_reviews,
    ("tripadvisor", "overview"): _tripadvisor_overview,
    ("booking", "reviews"): _booking_reviews,
    ("booking", "overview"): _booking_overview,
}
