"""Settings as the values that the live feed works with, and those of them that an administrator may change while it runs. Pure."""

from __future__ import annotations

from typing import Final

from server.batching.scores.adaptive import Bounds
from server.batching.scores.desk import Tunables
from server.batching.scores.pace import Pace
from server.batching.scores.question import Window
from server.batching.scores.ranking import Rules
from server.batching.scores.score import HOUR_MS, Weights
from server.errors import Code, Refused
from server.settings import RUNTIME, Settings, check

TUNABLE: Final = {"batchIntervalMs": "interval_ms", "maxBatchSize": "max_batch", "enableBatching": "enabled"}
"""Where a run-time setting is among Tunables."""


def value_of(tunables: Tunables, name: str) -> object:
    """A run-time setting by its name on the wire."""
    return getattr(tunables, TUNABLE[name])


def checked(name: str, value: object) -> object:
    """A value for a run-time setting; Refused with what is allowed."""
    if name not in RUNTIME:
        raise Refused(
            Code.BAD_MESSAGE, f"{name!r} is not a run-time setting; there is {', '.join(RUNTIME)}", field=name
        )
    wrong_type = isinstance(value, bool) != (name == "enableBatching") or isinstance(value, str | float)
    try:
        if wrong_type:
            raise ValueError(f"{name} is {value!r}, of the wrong type")
        return check(RUNTIME[name], value)
    except ValueError as error:
        raise Refused(Code.BAD_MESSAGE, str(error), field=name) from None


def rules_of(settings: Settings) -> Rules:
    """What a score depends on."""
    weights = Weights(
        settings.weight_time,
        settings.weight_distance,
        settings.weight_popularity,
        settings.weight_recency,
        settings.weight_confidence,
    )
    window = Window(settings.window_past_h * HOUR_MS, settings.window_ahead_h * HOUR_MS)
    return Rules(weights, window, settings.spacing_km)


def tunables_of(settings: Settings) -> Tunables:
    """The run-time settings as the environment or the defaults have them."""
    given = settings.model_fields_set
    sources = {wire: "environment" if name in given else "default" for wire, name in RUNTIME.items()}
    return Tunables(settings.batch_interval_ms, settings.max_batch_size, settings.enable_batching, sources)


def pace_of(settings: Settings, now_ms: int) -> Pace | None:
    """Where the interval begins, when it follows activity or foresees it."""
    follows, foresees = settings.adaptive_batching, settings.predictive_batching
    if not (follows or foresees):
        return None
    bounds = Bounds(settings.adaptive_min_interval_ms, settings.adaptive_max_interval_ms)
    base_ms = min(max(settings.batch_interval_ms, bounds.least_ms), bounds.most_ms)
    return Pace(bounds, base_ms, settings.batch_interval_ms, follows, foresees, begun_ms=now_ms)
