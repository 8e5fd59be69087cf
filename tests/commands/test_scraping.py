"""Rules: the demo's businesses, and the provider that it starts beside the server."""

import urllib.error
import urllib.request

import orjson

from server.batching.schedules.rows import Row, read
from server.commands import scraping as s
from server.protocol.intake import Format, reader
from server.settings import load
from tests.doubles.apify.http import TOKEN


def rows() -> list[Row]:
    intake = reader(Format.CSV)
    values = [*intake.feed(s.sample()), *intake.close()]
    found = [read(number, value) for number, value in enumerate(values)]
    assert all(isinstance(row, Row) for row in found), found
    return [row for row in found if isinstance(row, Row)]


def test_every_row_of_the_sample_is_a_business_and_two_teams_follow_one_place() -> None:
    found = rows()
    assert {row.tier for row in found} == {"starter", "professional", "enterprise"}
    assert {platform for row in found for platform in row.identifiers} == {
        "google",
        "facebook",
        "tripadvisor",
        "booking",
    }
    assert len({row.identifiers["google"] for row in found}) == len(found) - 1
    assert len(s.sample()) < 32 * 1024


def test_nothing_is_started_where_a_provider_is_set() -> None:
    for name in ("APIFY_URL", "APIFY_TOKEN"):
        with s.scraper({name: "x"}, None) as given:
            assert given == {}


def test_the_provider_runs_beside_the_server_and_no_longer() -> None:
    with s.scraper({}, 18_080) as given:
        settings = load(given)
        assert settings.public_url == "http://127.0.0.1:18080"
        assert settings.apify_token is not None and settings.apify_token.get_secret_value() == TOKEN == s.TOKEN
        with urllib.request.urlopen(f"{settings.apify_url}/control") as answer:
            assert orjson.loads(answer.read())["runs"] == {}
    try:
        urllib.request.urlopen(f"{settings.apify_url}/control")
    except urllib.error.URLError:
        return
    raise AssertionError("the double is still there")


def test_where_the_port_is_not_known_the_provider_is_only_asked() -> None:
    with s.scraper({}, 0) as given:
        assert "PUBLIC_URL" not in given
