"""Settings of the live feed: batching and the score."""

from __future__ import annotations

from pydantic import BaseModel

from server.settings.declare import DAY_MS, MINUTE_MS, setting


class Batching(BaseModel):
    """When changes are published."""

    batch_interval_ms: int = setting(
        900_000, "Time between two flushes (ms).", group="Batching", runtime="batchIntervalMs", ge=100, le=DAY_MS
    )
    max_batch_size: int = setting(
        1000,
        "Pending events that cause an early flush, and events a slice.",
        group="Batching",
        runtime="maxBatchSize",
        ge=1,
        le=1_000_000,
    )
    enable_batching: bool = setting(
        True,
        "Off: counters are published at once and every score moved is sent at once.",
        group="Batching",
        runtime="enableBatching",
    )
    min_flush_gap_ms: int = setting(
        5_000,
        "Least time between a flush and one caused by MAX_BATCH_SIZE (ms); 0 = none.",
        group="Batching",
        ge=0,
        le=DAY_MS,
    )
    urgent_gap_ms: int = setting(
        2_000,
        "Popularity marked `priority: high` is published within this time (ms).",
        group="Batching",
        ge=0,
        le=MINUTE_MS,
    )
    drift_interval_ms: int = setting(
        60_000, "With ENABLE_BATCHING=false: how often drift by time is sent (ms).", group="Batching", ge=100, le=DAY_MS
    )
    immediate_group_ms: int = setting(
        50, "A burst of immediate changes may be grouped for this long (ms).", group="Batching", ge=0, le=1000
    )
    score_threshold: float = setting(
        0.01, "A score that moved by less is not sent (0..1).", group="Batching", ge=0, le=1, allow_inf_nan=False
    )
    resume_sessions: int = setting(
        10_000,
        "Sessions whose connection has ended that are remembered, to answer who comes back with one difference; 0 = none.",
        group="Batching",
        ge=0,
        le=1_000_000,
    )
    resume_keep_ms: int = setting(600_000, "How long they are remembered (ms).", group="Batching", ge=1000, le=DAY_MS)
    adaptive_batching: bool = setting(
        False,
        "The interval follows activity between the two bounds below; BATCH_INTERVAL_MS is where it begins.",
        group="Batching",
    )
    adaptive_min_interval_ms: int = setting(
        5_000, "ADAPTIVE_BATCHING: the shortest interval (ms).", group="Batching", ge=100, le=DAY_MS
    )
    adaptive_max_interval_ms: int = setting(
        900_000, "ADAPTIVE_BATCHING: the longest interval (ms).", group="Batching", ge=100, le=DAY_MS
    )
    adaptive_growth: float = setting(
        0.5,
        "ADAPTIVE_BATCHING: an event whose popularity (0..1) grew so much since it was published goes out like "
        "`priority: high`; 0 = none does.",
        group="Batching",
        ge=0,
        le=1,
        allow_inf_nan=False,
    )
    predictive_batching: bool = setting(
        False,
        "Flushes come as often as BATCH_INTERVAL_MS says, but more of them when past weeks were busy at this hour, fewer when "
        "they were quiet; within ADAPTIVE_MIN_INTERVAL_MS and ADAPTIVE_MAX_INTERVAL_MS.",
        group="Batching",
    )


class Score(BaseModel):
    """What decides the order of a view."""

    weight_time: float = setting(
        0.25, "Weight of the time to the start.", group="Score", ge=0, le=1, allow_inf_nan=False
    )
    weight_distance: float = setting(0.20, "Weight of the distance.", group="Score", ge=0, le=1, allow_inf_nan=False)
    weight_popularity: float = setting(
        0.30, "Weight of scans, saves and RSVPs.", group="Score", ge=0, le=1, allow_inf_nan=False
    )
    weight_recency: float = setting(
        0.15, "Weight of the age since creation.", group="Score", ge=0, le=1, allow_inf_nan=False
    )
    weight_confidence: float = setting(
        0.10, "Weight of the confidence.", group="Score", ge=0, le=1, allow_inf_nan=False
    )
    spacing_km: float = setting(
        0.5,
        "Of two events nearer than this the better is shown (km); 0 = off.",
        group="Score",
        ge=0,
        le=1000,
        allow_inf_nan=False,
    )
    default_max_events: int = setting(
        50, "Events in a view when the client names no maxEvents.", group="Score", ge=1, le=500
    )
    window_past_h: int = setting(
        24, "Events are shown until this long after their start (h).", group="Score", ge=0, le=8760
    )
    window_ahead_h: int = setting(
        720, "Events are shown from this long before their start (h).", group="Score", ge=1, le=87600
    )
    event_keep_days: int = setting(
        7, "Days that an EXPIRED event is kept before it is removed.", group="Score", ge=0, le=3650
    )
