"""A team's side over HTTP: follow businesses, read what was scraped, and nothing of another team's."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio

from tests.doubles.apify import Apify
from tests.doubles.apify.reviews import World
from tests.handlers.asking import Start, error
from tests.handlers.scheduling import PLATFORMS, URLS, Desk, settings, world

Open = Callable[..., Awaitable[Desk]]


@pytest_asyncio.fixture
async def provider() -> AsyncIterator[tuple[World, Apify]]:
    places, double = world()
    async with double:
        yield places, double


@pytest_asyncio.fixture
async def desk(start: Start, provider: tuple[World, Apify]) -> Desk:
    """A server with that provider."""
    return Desk(await start(**settings(provider[1], schedules_dispatch_ms=3_600_000)))


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_a_business_is_followed_listed_and_followed_no_more(desk: Desk, platform: str) -> None:
    made = (
        await desk.team("acme", "POST", f"/api/{platform}/profile", {"identifier": URLS[platform], "name": "Adler"})
    ).json
    profile = made["profile"]
    assert made["new"] and (profile["team"], profile["name"], profile["platform"]) == ("acme", "Adler", platform)
    assert sorted((one["type"], one["hours"]) for one in profile["placements"]) == [("overview", 48), ("reviews", 24)]
    again = (await desk.team("acme", "POST", f"/api/{platform}/profile", {"identifier": URLS[platform]})).json
    assert (again["new"], again["auditId"], again["profile"]) == (False, None, profile)
    listed = (await desk.team("acme", "GET", f"/api/{platform}/profile/acme")).json
    assert listed == {"team": "acme", "platform": platform, "profiles": [profile], "next": None}
    gone = (await desk.team("acme", "DELETE", f"/api/{platform}/profile/{profile['id']}")).json
    assert (gone["id"], gone["businessGone"]) == (profile["id"], True)
    assert (await desk.team("acme", "GET", f"/api/{platform}/profile/acme")).json["profiles"] == []
    assert error(await desk.team("acme", "DELETE", f"/api/{platform}/profile/{profile['id']}"))[:2] == (
        404,
        "not_found",
    )
    trail = (await desk.get("/admin/audit?target=business%20" + str(profile["id"])))["entries"]
    assert [(entry["id"], entry["action"]) for entry in trail] == [
        (gone["auditId"], "schedules.profile.deleted"),
        (made["auditId"], "schedules.profile.created"),
    ]


async def test_one_address_is_one_business_however_it_is_written(desk: Desk) -> None:
    first = await desk.follow("acme", "booking", "https://www.booking.com/hotel/de/adler.html")
    for text in ("booking.com/hotel/de/adler.html?aid=7&label=x", "HTTP://BOOKING.com/hotel/de/adler.html/#reviews"):
        assert (await desk.follow("acme", "booking", text))["id"] == first["id"]
    assert (await desk.follow("acme", "google", URLS["google"], businessId=first["id"]))["id"] == first["id"]
    assert (await desk.follow("other", "booking", "https://booking.com/hotel/de/adler.html"))["id"] != first["id"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, (422, "bad_message", "identifier")),
        ({"identifier": 7}, (422, "bad_message", "identifier")),
        ({"identifier": "https://example.com/"}, (422, "bad_message", "identifier")),
        ({"identifier": "x" * 3000}, (422, "bad_message", "identifier")),
        ({"identifier": URLS["booking"], "name": "x" * 301}, (422, "bad_message", "name")),
        ({"identifier": URLS["booking"], "team": ""}, (422, "bad_message", "team")),
        ({"identifier": URLS["booking"], "businessId": 10**15}, (404, "not_found", None)),
        ([], (422, "bad_message", None)),
    ],
)
async def test_what_is_wrong_with_a_business_is_said(
    desk: Desk, body: Any, expected: tuple[int, str, str | None]
) -> None:
    status, code, name = error(await desk.team("acme", "POST", "/api/booking/profile", body))
    assert (status, code) == expected[:2]
    assert expected[2] in (None, name)


async def test_whose_business_it_is_must_be_known(desk: Desk) -> None:
    answer = await desk.ask("POST", "/api/google/profile", {"identifier": URLS["google"]})
    assert error(answer) == (422, "bad_message", "team")
    assert error(await desk.ask("GET", "/api/yelp/profile/acme")) == (404, "not_found", "platform")
    assert (await desk.team("acme", "GET", "/api/me")).json["team"] == "acme"
    me = await desk.serving.ask("GET", "/api/me", None)
    assert me.json == {"user": None, "roles": [], "team": None, "admin": False}


async def test_a_list_goes_on_where_the_page_ended(desk: Desk) -> None:
    made = [await desk.follow("acme", "google", f"ChIJ_place_{n}") for n in range(7)]
    rows = await desk.pages("/api/google/profile/acme", "profiles")
    assert [row["id"] for row in rows] == [one["id"] for one in made]


async def scraped(desk: Desk, team: str, platform: str, identifier: str) -> int:
    """Follow, run both schedules, attribute; the business."""
    profile = await desk.follow(team, platform, identifier)
    for placement in profile["placements"]:
        run = (await desk.good("POST", f"/admin/schedules/{placement['scheduleId']}/trigger"))["runId"]
        await desk.turn("dispatch")
        await desk.ended(run)
    return int(profile["id"])


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_what_was_scraped_is_read_by_its_team(desk: Desk, provider: tuple[World, Apify], platform: str) -> None:
    business = await scraped(desk, "acme", platform, URLS[platform])
    base = f"/api/{platform}/profile/acme/{business}"
    reviews = await desk.pages(f"{base}/reviews", "reviews", limit=2)
    assert len({one["id"] for one in reviews}) == len(reviews) == 5
    times = [one["publishedAtMs"] for one in reviews]
    assert times == sorted(times, reverse=True)
    assert (await desk.team("acme", "GET", f"{base}/reviews?limit=5")).json["reviews"] == reviews
    overview = (await desk.team("acme", "GET", f"{base}/overview")).json
    assert overview["latest"] == overview["history"][0]
    assert overview["latest"]["reviewCount"] == 5
    assert all("run" not in name.lower() for name in {*reviews[0], *overview["latest"]})


async def test_a_team_sees_and_changes_nothing_of_another_by_any_way(desk: Desk) -> None:
    """Every endpoint of the teams, with each other's teams, businesses and ids."""
    mine, theirs = {}, {}
    for platform in PLATFORMS:
        mine[platform] = await scraped(desk, "acme", platform, URLS[platform])
        theirs[platform] = await scraped(desk, "globex", platform, URLS[platform])
    for platform in PLATFORMS:
        for business in (mine[platform], theirs[platform]):
            for way in ("reviews", "overview"):
                for reader in ("acme", "globex", None):
                    for owner in ("acme", "globex"):
                        path = f"/api/{platform}/profile/{owner}/{business}/{way}"
                        answer = await desk.team(reader, "GET", path)
                        may = reader == owner and business == (mine if owner == "acme" else theirs)[platform]
                        assert answer.status == (200 if may else 404), (reader, path, answer.body)
                for owner, rightly in (
                    ("acme", mine),
                    ("globex", theirs),
                ):  # Nor does an admin mistake one for the other.
                    answer = await desk.ask("GET", f"/api/{platform}/profile/{owner}/{business}/{way}")
                    assert answer.status == (200 if business == rightly[platform] else 404)
        for reader in ("acme", "globex", None):
            for owner in ("acme", "globex"):
                answer = await desk.team(reader, "GET", f"/api/{platform}/profile/{owner}")
                assert answer.status == (200 if reader == owner else 404)
                if reader == owner:
                    assert {one["team"] for one in answer.json["profiles"]} == {owner}
        for number in (theirs[platform], 10**12):
            answer = await desk.team("acme", "DELETE", f"/api/{platform}/profile/{number}")
            assert error(answer)[:2] == (404, "not_found")
        answer = await desk.team(
            "acme", "POST", f"/api/{platform}/profile", {"team": "globex", "identifier": "ChIJ_mine_now"}
        )
        assert answer.status in (403, 422)
        attach = {"identifier": "https://x.booking.com/hotel/de/b.html", "businessId": theirs[platform]}
        assert (await desk.team("acme", "POST", "/api/booking/profile", attach)).status == 404
    assert {
        one["team"] for one in (await desk.team("globex", "GET", "/api/google/profile/globex")).json["profiles"]
    } == {"globex"}


async def test_a_foreign_business_is_refused_in_the_words_for_one_that_there_is_not(desk: Desk) -> None:
    theirs = (await desk.follow("globex", "google", URLS["google"]))["id"]
    told = [
        (await desk.team("acme", "DELETE", f"/api/google/profile/{number}")).body.replace(str(number).encode(), b"N")
        for number in (theirs, 10**9)
    ]
    assert told[0] == told[1]
    told = [
        (await desk.team("acme", "GET", f"/api/google/profile/{team}")).body.replace(team.encode(), b"T")
        for team in ("globex", "nobody")
    ]
    assert told[0] == told[1]


async def test_reviews_of_one_moment_and_of_none_are_paged_each_once(desk: Desk) -> None:
    business = (await desk.follow("acme", "google", URLS["google"]))["id"]
    database = desk.serving.app._database
    assert database is not None
    days = [2, 1, 1, 1, 1, None, None, None, 3]
    async with database.transaction() as connection:
        await connection.executemany(
            """insert into schedules.review (team, business_id, platform, review_id, published_at, hash, fetched_at)
            values ('acme', $1, 'google', $2, timestamptz '2026-01-01 12:34:56.789012+00' - make_interval(days => $3), '', now())""",
            [(business, f"r~{n}", day) for n, day in enumerate(days)],
        )
    expected = [f"r~{n}" for n in (1, 2, 3, 4, 0, 8, 5, 6, 7)]
    for limit in (1, 2, 3, 4):
        rows = await desk.pages(f"/api/google/profile/acme/{business}/reviews", "reviews", limit=limit)
        assert [row["id"] for row in rows] == expected


async def test_cursors_that_nobody_gave_out_are_refused(desk: Desk) -> None:
    business = (await desk.follow("acme", "google", URLS["google"]))["id"]
    base = f"/api/google/profile/acme/{business}"
    for text in ("x", "12", "1~" + "y" * 700, "9" * 30 + "~a", "1x~a"):
        assert error(await desk.ask("GET", f"{base}/reviews", params={"after": text})) == (422, "bad_message", "after")
    assert error(await desk.ask("GET", f"{base}/overview", params={"before": str(1 << 61)})) == (
        422,
        "bad_message",
        "before",
    )
    assert (await desk.get(f"{base}/reviews", params={"after": "~zz"}))["reviews"] == []
