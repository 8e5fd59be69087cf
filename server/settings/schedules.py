"""Settings of the global schedules: batches, runs, retries, and how long things are kept."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from server.errors import StartRefused
from server.settings.declare import DAY_MS, MINUTE_MS, setting
from server.settings.provider import Provider


def _capacity(platform: str, default: int) -> Any:
    doc = f"Businesses of {platform} that one batch holds; a change reaches the batches that there are within the hour."
    return setting(default, doc, group="Schedules", ge=1, le=1_000)


def _actor(what: str, default: str) -> Any:
    return setting(default, f"The provider's actor for {what}; empty: none is run for it.", group="Schedules")


class Schedules(BaseModel):
    """How businesses are shared out, how runs are started and read, and what of them is kept."""

    schedules_clock: Literal["server", "provider"] = setting(
        "server",
        "Who starts runs on time: this server, or the provider's own schedules, which run on while it is down.",
        group="Schedules",
    )
    schedules_google_capacity: int = _capacity("Google", 50)
    schedules_facebook_capacity: int = _capacity("Facebook", 30)
    schedules_tripadvisor_capacity: int = _capacity("TripAdvisor", 30)
    schedules_booking_capacity: int = _capacity("Booking", 30)
    schedules_google_reviews_actor: str = _actor("Google reviews", "compass/google-maps-reviews-scraper")
    schedules_google_overview_actor: str = _actor("Google overviews", "compass/crawler-google-places")
    schedules_facebook_reviews_actor: str = _actor("Facebook reviews", "apify/facebook-reviews-scraper")
    schedules_facebook_overview_actor: str = _actor("Facebook overviews", "apify/facebook-pages-scraper")
    schedules_tripadvisor_reviews_actor: str = _actor("TripAdvisor reviews", "maxcopell/tripadvisor-reviews")
    schedules_tripadvisor_overview_actor: str = _actor("TripAdvisor overviews", "maxcopell/tripadvisor")
    schedules_booking_reviews_actor: str = _actor("Booking reviews", "voyager/booking-reviews-scraper")
    schedules_booking_overview_actor: str = _actor("Booking overviews", "voyager/booking-scraper")
    schedules_reviews_most: int = setting(
        100, "Reviews asked for of each business in one run, the newest first.", group="Schedules", ge=1, le=10_000
    )
    schedules_language: str = setting("en", "Language that Google's reviews are asked for in.", group="Schedules")
    schedules_runs_most: int = setting(
        20, "Runs under way at the provider at a time; above, those due wait.", group="Schedules", ge=1, le=1_000
    )
    schedules_run_timeout_s: int = setting(
        3_600, "The provider ends a run that takes longer (s).", group="Schedules", ge=30, le=86_400
    )
    schedules_run_memory_mb: int | None = setting(
        None, "Memory of a run (MB, a power of 2); unset: the actor's own.", group="Schedules", ge=128, le=32_768
    )
    schedules_page_items: int = setting(500, "Items of a dataset read in one call.", group="Schedules", ge=1, le=10_000)
    schedules_dispatch_ms: int = setting(
        10_000, "How often due schedules are looked for (ms).", group="Schedules", ge=100, le=3_600_000
    )
    schedules_poll_ms: int = setting(
        30_000, "How often the provider is asked about runs under way (ms).", group="Schedules", ge=100, le=3_600_000
    )
    schedules_process_ms: int = setting(
        5_000,
        "How often ended runs are looked for when no webhook wakes the loop (ms).",
        group="Schedules",
        ge=100,
        le=3_600_000,
    )
    schedules_retry_ms: int = setting(
        5 * MINUTE_MS, "How often due retries are started (ms).", group="Schedules", ge=100, le=DAY_MS
    )
    schedules_retry_first_ms: int = setting(
        5 * MINUTE_MS,
        "Wait before a business's first retry; each further one is three times as long (ms).",
        group="Schedules",
        ge=100,
        le=DAY_MS,
    )
    schedules_retries: int = setting(
        3, "Retries of a business before it counts as failed.", group="Schedules", ge=0, le=10
    )
    schedules_retries_at_once: int = setting(
        5, "Retries of one platform under way at a time.", group="Schedules", ge=1, le=100
    )
    schedules_rebalance: bool = setting(
        True, "Even out and consolidate the batches by itself, once a day.", group="Schedules"
    )
    schedules_webhook_bytes: int = setting(
        256 << 10, "Largest webhook taken in (bytes); above: 413.", group="Schedules", ge=1024, le=16 << 20
    )
    schedules_import_bytes: int = setting(
        256 << 20, "Largest file of businesses taken in (bytes); above: 413.", group="Schedules", ge=1024, le=1 << 32
    )
    schedules_keep_reviews: bool = setting(
        False, "Keep the reviews and overviews of a business that is deleted.", group="Schedules"
    )
    schedules_keep_resolved_days: int = setting(
        7, "Days that retries which succeeded are kept.", group="Schedules", ge=1, le=3650
    )
    schedules_keep_failed_days: int = setting(
        90, "Days that retries which failed for good are kept.", group="Schedules", ge=1, le=3650
    )
    schedules_keep_runs_days: int = setting(
        90, "Days that runs and webhooks which are done with are kept.", group="Schedules", ge=1, le=3650
    )
    schedules_keep_overviews_days: int = setting(
        400, "Days that overviews are kept; the newest of a business stays.", group="Schedules", ge=1, le=3650
    )


def check_schedules(settings: Schedules, provider: Provider) -> None:
    """What the single values can't say; StartRefused says what to change."""
    if settings.schedules_clock == "provider" and provider.apify_token is None:
        raise StartRefused(
            "SCHEDULES_CLOCK is provider but APIFY_TOKEN is not set; set it, or leave SCHEDULES_CLOCK at server."
        )
