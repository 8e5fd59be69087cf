"""Settings of the tiers: what draws depend on, batches, the monthly generation, and how long things are kept."""

from __future__ import annotations

from pydantic import BaseModel

from server.settings.declare import DAY_MS, MINUTE_MS, setting


class Tiers(BaseModel):
    """How people are classified and planned in batches, and what of it is kept."""

    tiers_seed: str = setting(
        "batchcast",
        "What prices and slots are drawn from, with each person's key; changed, everybody gets others.",
        group="Tiers",
        min_length=1,
        max_length=200,
    )
    tiers_batch: int = setting(50, "People whose rows are committed together in a run.", group="Tiers", ge=1, le=1_000)
    tiers_monthly: bool = setting(
        True, "Plan each month by itself, S to D, and verify each tier; off: only when told.", group="Tiers"
    )
    tiers_ahead_days: int = setting(
        14,
        "A month is planned by itself from so many days before it begins; 7 or more leave no gap at its start.",
        group="Tiers",
        ge=0,
        le=90,
    )
    tiers_look_ms: int = setting(
        3_600_000,
        "How often the monthly generation looks whether there is something to do (ms).",
        group="Tiers",
        ge=1_000,
        le=DAY_MS,
    )
    tiers_expire_ms: int = setting(
        DAY_MS,
        "How often slots whose time has come are marked expired (ms); bookings look at the time themselves.",
        group="Tiers",
        ge=MINUTE_MS,
        le=DAY_MS,
    )
    tiers_keep_days: int = setting(
        400,
        "Days that past slots, visits and the items of runs are kept; a cooldown needs 213.",
        group="Tiers",
        ge=213,
        le=3650,
    )
