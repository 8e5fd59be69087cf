"""Rules: settings of the provider and of the schedules that only together make sense."""

import pytest

from server.batching.schedules.scheduler import core_terms, provider_terms, run_terms
from server.errors import StartRefused
from server.settings import load

pytestmark = pytest.mark.pure
SECRET = "what the provider sends with it"


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"APIFY_WEBHOOK_SECRET": "short"}, "APIFY_WEBHOOK_SECRET"),
        ({"PUBLIC_URL": "http://maps.example"}, "PUBLIC_URL"),
        ({"PUBLIC_URL": "https://ada:secret@maps.example"}, "PUBLIC_URL"),
        ({"PUBLIC_URL": "https://maps.example/?a=b"}, "PUBLIC_URL"),
        ({"PUBLIC_URL": "maps.example"}, "PUBLIC_URL"),
        ({"PUBLIC_URL": "https://maps.example", "APIFY_TOKEN": "t"}, "APIFY_WEBHOOK_SECRET"),
        ({"SCHEDULES_CLOCK": "provider"}, "APIFY_TOKEN"),
        ({"SCHEDULES_CLOCK": "moon"}, "SCHEDULES_CLOCK"),
        ({"SCHEDULES_INTERVAL": "1"}, "SCHEDULES_INTERVAL"),
    ],
)
def test_what_cannot_work_stops_the_start_and_is_named(environ: dict[str, str], named: str) -> None:
    with pytest.raises(StartRefused) as caught:
        load(environ)
    assert named in str(caught.value)
    assert "secret@" not in str(caught.value)


@pytest.mark.parametrize(
    "environ",
    [
        {"PUBLIC_URL": "https://maps.example/base", "APIFY_TOKEN": "t", "APIFY_WEBHOOK_SECRET": SECRET},
        {"PUBLIC_URL": "http://127.0.0.1:8080", "APIFY_TOKEN": "t", "APIFY_WEBHOOK_SECRET": SECRET},
        {"PUBLIC_URL": "https://maps.example"},
        {"SCHEDULES_CLOCK": "provider", "APIFY_TOKEN": "t"},
    ],
)
def test_what_works_is_taken(environ: dict[str, str]) -> None:
    load(environ)


def test_every_setting_reaches_its_place() -> None:
    environ = {
        "SCHEDULES_GOOGLE_CAPACITY": "7",
        "SCHEDULES_BOOKING_OVERVIEW_ACTOR": "mine/own",
        "SCHEDULES_RETRY_FIRST_MS": "1000",
        "SCHEDULES_RETRIES": "2",
        "SCHEDULES_REBALANCE": "false",
        "SCHEDULES_KEEP_REVIEWS": "true",
        "SCHEDULES_REVIEWS_MOST": "9",
        "SCHEDULES_LANGUAGE": "de",
        "SCHEDULES_CLOCK": "provider",
        "APIFY_TOKEN": "t",
    }
    settings = load(environ)
    core, provider, runs = core_terms(settings), provider_terms(settings), run_terms(settings)
    assert (core.capacities["google"], core.capacities["booking"], core.balance, core.keep_reviews) == (
        7,
        30,
        False,
        True,
    )
    assert (provider.actors["booking", "overview"], len(provider.actors)) == ("mine/own", 8)
    assert (provider.asked.reviews, provider.asked.language) == (9, "de")
    assert [runs.ladder.wait_s(n) for n in (1, 2, 3)] == [1.0, 3.0, None]
    assert not runs.own_clock


def test_the_ladder_is_5_15_and_45_minutes_unless_it_is_set() -> None:
    ladder = run_terms(load({})).ladder
    assert [ladder.wait_s(n) for n in (1, 2, 3, 4)] == [300, 900, 2700, None]
