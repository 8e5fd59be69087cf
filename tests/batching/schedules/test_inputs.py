"""What a business is called, in one form; and what each actor is sent."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from server.batching.schedules import inputs
from server.batching.schedules.inputs import Asked, address, identifier, normalised, run_input
from server.batching.schedules.plan import PLATFORMS, TYPES, Platform
from server.errors import Refused

pytestmark = pytest.mark.pure

PLACE = "ChIJN1t_tDeuEmsRUsoyG83frY4"
HOTEL = "https://booking.com/hotel/de/adler.html"


@pytest.mark.parametrize(
    "text",
    [
        "https://www.booking.com/hotel/de/adler.html",
        "http://booking.com/hotel/de/adler.html",
        "HTTPS://WWW.BOOKING.COM/hotel/de/adler.html/",
        "www.booking.com/hotel/de/adler.html?aid=304142&label=gen173&sid=1",
        "https://booking.com:443/hotel/de/adler.html?utm_source=x&UTM_Medium=y&gclid=1#reviews",
        "  //booking.com/hotel/de/adler.html  ",
    ],
)
def test_the_same_page_has_one_name(text: str) -> None:
    assert identifier("booking", text) == HOTEL


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://facebook.com/Adler", "https://facebook.com/adler"),
        ("https://facebook.com/profile.php?id=1", "https://facebook.com/profile.php?id=2"),
        ("https://de.facebook.com/adler", "https://facebook.com/adler"),
    ],
)
def test_what_may_be_two_pages_stays_two(one: str, other: str) -> None:
    assert identifier("facebook", one) != identifier("facebook", other)


def test_parameters_that_name_the_page_are_kept_in_one_order() -> None:
    assert normalised("http://facebook.com/p?b=2&a=1&fbclid=z") == "https://facebook.com/p?a=1&b=2"


@given(st.from_regex(inputs.PLAIN, fullmatch=True))
@example("https://www.com/a")
@example("https://www.www.booking.com/a//b//")
@example("http://a.b")
@settings(max_examples=150, deadline=None)
def test_plain_addresses_get_the_name_that_a_closer_look_gives_them(text: str) -> None:
    assert normalised(text) == inputs._normalised(text)


@pytest.mark.parametrize(
    ("platform", "text"),
    [
        ("google", PLACE),
        ("google", f"https://www.google.com/maps/place/?q=place_id:{PLACE}"),
        ("google", f"https://search.google.com/local/writereview?placeid={PLACE}"),
        ("google", f"https://www.google.com/maps/search/?api=1&query=x&query_place_id={PLACE}"),
    ],
)
def test_a_place_id_is_found_in_an_address(platform: Platform, text: str) -> None:
    assert identifier(platform, text) == PLACE


@pytest.mark.parametrize(
    ("platform", "text"),
    [
        ("google", ""),
        ("google", "Hotel Adler, Berlin"),
        ("google", "https://www.google.com/maps/place/Adler"),
        ("facebook", "https://www.facebook.com/"),
        ("facebook", "https://facebook.com.evil.example/adler"),
        ("facebook", "https://evilfacebook.com/adler"),
        ("booking", "ftp://booking.com/hotel/x"),
        ("booking", "javascript:alert(1)//booking.com/hotel/x"),
        ("booking", "https://www.tripadvisor.com/Hotel"),
        ("tripadvisor", "https://tripadvisor.com"),
        ("tripadvisor", "https://tripadvisor.com/a b"),
        ("tripadvisor", "https://[::1/x"),
        ("booking", "https://booking.com/" + "x" * 1_000),
    ],
)
def test_what_names_no_business_there_is_refused_with_an_example(platform: Platform, text: str) -> None:
    with pytest.raises(Refused, match="names no business on") as refused:
        identifier(platform, text)
    assert refused.value.field == "identifier" and len(refused.value.message) < 400


@pytest.mark.parametrize(
    "host", ["tripadvisor.com", "www.tripadvisor.co.uk", "de.tripadvisor.ch", "tripadvisor.com.au"]
)
def test_all_sites_of_tripadvisor_are_known(host: str) -> None:
    assert identifier("tripadvisor", f"https://{host}/Hotel-g1").endswith("/Hotel-g1")


def test_the_provider_gets_the_address_that_browsers_show() -> None:
    assert address(HOTEL) == "https://www.booking.com/hotel/de/adler.html"
    assert address("https://de.tripadvisor.ch/x") == "https://de.tripadvisor.ch/x"


paths = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_characters="#?/\\"), min_size=1, max_size=20
)
queries = st.dictionaries(
    st.sampled_from(["id", "a", "utm_source", "aid", "x y", "ü", ""]), st.text(max_size=8), max_size=4
)


@settings(deadline=None)
@given(st.sampled_from(["facebook.com", "WWW.facebook.com", "m.facebook.com"]), paths, queries)
def test_a_name_is_its_own_name_and_what_is_sent_leads_back_to_it(host: str, path: str, query: dict[str, str]) -> None:
    from urllib.parse import urlencode

    try:
        name = identifier("facebook", f"http://{host}/{path}?{urlencode(query)}")
    except Refused:
        return
    assert identifier("facebook", name) == name
    assert identifier("facebook", address(name)) == name


@settings(deadline=None)
@given(st.sampled_from(PLATFORMS), st.text(max_size=60))
def test_any_text_is_a_name_or_refused(platform: Platform, text: str) -> None:
    try:
        name = identifier(platform, text)
    except Refused:
        return
    assert identifier(platform, name) == name and 1 <= len(name) <= 1_000


def test_each_actor_gets_its_own_input() -> None:
    asked = Asked(reviews=20, language="de")
    assert run_input("google", "reviews", ["a", "b"], asked) == {
        "placeIds": ["a", "b"],
        "maxReviews": 20,
        "reviewsSort": "newest",
        "language": "de",
    }
    page = "https://facebook.com/p"
    facebook = run_input("facebook", "reviews", [page, "https://facebook.com/q"], asked)
    assert facebook["startUrls"] == [{"url": "https://www.facebook.com/p"}, {"url": "https://www.facebook.com/q"}]
    assert facebook["resultsLimit"] == 40, "the limit is one for the whole run"
    assert run_input("tripadvisor", "reviews", ["https://tripadvisor.com/p"], asked) == {
        "startUrls": [{"url": "https://www.tripadvisor.com/p"}],
        "maxItemsPerQuery": 20,
    }
    assert run_input("booking", "reviews", [HOTEL], asked) == {
        "startUrls": [{"url": "https://www.booking.com/hotel/de/adler.html"}],
        "maxReviewsPerHotel": 20,
        "sortReviewsBy": "f_recent_desc",
    }


@pytest.mark.parametrize("platform", PLATFORMS)
def test_an_overview_asks_for_something_else_than_reviews(platform: Platform) -> None:
    inputs = [run_input(platform, type, [PLACE if platform == "google" else HOTEL], Asked()) for type in TYPES]
    assert inputs[0] != inputs[1]
