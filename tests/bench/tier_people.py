"""People to be booked, by the number: as an import's lines, the same ones for the same seed, whatever their neighbours.

Tiers are about as common as the product expects. Some people are unclear or without any evidence, some are compared with
somebody curated, spell their country oddly or not at all, do not travel, or do not call.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Final

import orjson

from server.batching.tiers.rules import RATINGS

TIERS: Final = "DCBAS"
SHARES: Final = (670, 215, 75, 37, 3)
CURATED_EACH: Final = 500
"""One of so many is curated, and others are compared with it."""
PLACES: Final = (
    *(("US", "America/New_York"), ("USA", "America/Los_Angeles"), ("U.S.", "America/Chicago"), ("", "")),
    *(("UK", "Europe/London"), ("Germany", "Europe/Berlin"), ("FR", "Europe/Paris"), ("Japan", "Asia/Tokyo")),
    *(("India", "Asia/Kolkata"), ("BR", "America/Sao_Paulo"), ("AU", "Australia/Sydney"), ("Mexico", "")),
)


def lines(seed: int, numbers: Iterable[int]) -> bytes:
    """Those people as NDJSON."""
    return b"".join(orjson.dumps(person(seed, number)) + b"\n" for number in numbers)


def person(seed: int, number: int) -> dict[str, object]:
    """One of them."""
    dice = random.Random(f"{seed} {number}")
    tier = dice.choices(range(len(TIERS)), SHARES)[0]
    country, timezone = dice.choice(PLACES)
    curated = number % CURATED_EACH == 0
    made: dict[str, object] = {
        "key": f"p{number:07d}",
        "name": name(number),
        **_ratings(dice, tier),
        "country": country,
        "timezone": timezone,
        "allow_physical": dice.random() > 0.03,
        "allow_virtual": dice.random() > 0.01,
        "legacy": dice.random() < 0.01,
        "global_award": dice.random() < 0.01,
    }
    if dice.random() < 0.4:
        made["net_worth"] = round(10 ** dice.uniform(5 + tier, 6.5 + tier))
    if curated:
        made["override"] = TIERS[tier]
    elif dice.random() < 0.02:
        made["comparables"] = [name(number - number % CURATED_EACH)]
    return made


def name(number: int) -> str:
    """What a person is called."""
    return f"Person {number:07d} of the Bench"


def _ratings(dice: random.Random, tier: int) -> dict[str, str]:
    unknown = dice.choices((0.02, 0.6, 1.0), (96, 3, 1))[0]
    return {of: "" if dice.random() < unknown else _near(dice, tier) for of in RATINGS}


def _near(dice: random.Random, tier: int) -> str:
    step = dice.choices((-1, 0, 1), (1, 10, 1))[0]
    return TIERS[min(len(TIERS) - 1, max(0, tier + step))]
