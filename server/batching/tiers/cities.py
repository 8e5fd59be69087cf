"""The cities people can be booked in, and each country's time zone, from the file that is shipped.

`cities.json` is made by scripts/cities.py from GeoNames (https://www.geonames.org, CC BY 4.0). The database's table is
filled from it; planning gets its cities as arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final, cast

import orjson

from server.batching.tiers.rules import City

NOWHERE: Final = "UTC"
"""The zone of a country that has no city in the list."""


@dataclass(frozen=True, slots=True)
class Atlas:
    """What the file holds."""

    credit: str
    cities: tuple[City, ...]
    zones: Mapping[str, str]


@cache
def atlas() -> Atlas:
    """The file, read once."""
    read = orjson.loads(files("server.batching.tiers").joinpath("cities.json").read_bytes())
    rows = cast(list[tuple[int, str, str, str, float, float, int]], read["cities"])
    return Atlas(str(read["credit"]), tuple(City(*row) for row in rows), cast(dict[str, str], read["zones"]))


def shipped() -> tuple[City, ...]:
    """Every city, by country, the largest first."""
    return atlas().cities


def zone_of(country: str | None) -> str:
    """The time zone of a country's largest city."""
    return atlas().zones.get(country or "", NOWHERE)
