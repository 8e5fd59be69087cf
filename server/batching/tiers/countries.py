"""Countries as people write them, to ISO 3166-1 alpha-2. Pure but for the table, which pycountry reads once.

A code of two or three letters, a name as ISO, official or common, or one of `ALIASES`: compared like names of people.
Empty is the United States, and says so; what nobody knows is no country, which verification reports.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Final, Literal, TypeAlias

import pycountry

from server.batching.tiers.names import folded

CountrySource: TypeAlias = Literal["given", "alias", "default", "unknown"]

DEFAULT: Final = "US"
REMEMBERED: Final = 4_096
"""Spellings that are remembered; others are folded again."""
ALIASES: Final[Mapping[str, str]] = {
    "America": "US",
    "United States of America": "US",
    "U.S. of A.": "US",
    "the States": "US",
    "UK": "GB",
    "Great Britain": "GB",
    "Britain": "GB",
    "England": "GB",
    "Scotland": "GB",
    "Wales": "GB",
    "Northern Ireland": "GB",
    "Republic of Ireland": "IE",
    "UAE": "AE",
    "Emirates": "AE",
    "KSA": "SA",
    "Korea": "KR",
    "South Korea": "KR",
    "Republic of Korea": "KR",
    "North Korea": "KP",
    "Russia": "RU",
    "Turkey": "TR",
    "Turkiye": "TR",
    "Holland": "NL",
    "The Netherlands": "NL",
    "Czech Republic": "CZ",
    "Ivory Coast": "CI",
    "Cape Verde": "CV",
    "Swaziland": "SZ",
    "Macedonia": "MK",
    "Burma": "MM",
    "Palestine": "PS",
    "Vatican": "VA",
    "Vatican City": "VA",
    "Laos": "LA",
    "Brunei": "BN",
    "DRC": "CD",
    "DR Congo": "CD",
    "Democratic Republic of the Congo": "CD",
    "Republic of the Congo": "CG",
    "Bosnia": "BA",
    "East Timor": "TL",
    "Macau": "MO",
    "Micronesia": "FM",
    "The Gambia": "GM",
    "The Bahamas": "BS",
    "PRC": "CN",
    "Mainland China": "CN",
    "ROC": "TW",
    "Deutschland": "DE",
    "España": "ES",
    "Brasil": "BR",
    "Italia": "IT",
    "Nippon": "JP",
}


@dataclass(frozen=True, slots=True)
class Country:
    """A country's code (None: nobody knows such a country), and where it comes from."""

    code: str | None
    source: CountrySource


@lru_cache(REMEMBERED)
def country(text: str) -> Country:
    """The country that a text means."""
    spelled = text.strip()
    if not spelled:
        return Country(DEFAULT, "default")
    if spelled in codes():
        return Country(spelled, "given")
    code = _spellings().get(folded(spelled))
    return Country(code, "alias" if code else "unknown")


@cache
def codes() -> frozenset[str]:
    """Every code there is."""
    return frozenset(one.alpha_2 for one in pycountry.countries)


@cache
def _spellings() -> Mapping[str, str]:
    found = {folded(alias): code for alias, code in ALIASES.items()}
    for one in pycountry.countries:
        names = (getattr(one, name, None) for name in ("alpha_2", "alpha_3", "name", "common_name", "official_name"))
        found |= {folded(name): one.alpha_2 for name in names if name}
    return found
