"""What somebody asks of what-if, as it comes over HTTP: the settings to try; what is left out stays as it is."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field, ValidationError

from server.protocol.event import refused
from server.protocol.values import Wire

DAY_MS: Final = 86_400_000
SAMPLE: Final = 200
"""Viewers that are tried, unless more are asked for."""
SAMPLE_MOST: Final = 2000

Share = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]


class WeightsIn(Wire):
    """Weights of the score's five terms; those that are left out stay as they are."""

    time: Share | None = None
    distance: Share | None = None
    popularity: Share | None = None
    recency: Share | None = None
    confidence: Share | None = None


class WhatIfIn(Wire):
    """Settings to try on the viewers now connected."""

    interval_ms: Annotated[int, Field(strict=True, ge=100, le=DAY_MS)] | None = Field(
        default=None, description="time between two flushes (ms)"
    )
    threshold: Share | None = Field(default=None, description="a score that moved by less is not sent")
    max_events: Annotated[int, Field(strict=True, ge=1, le=500)] | None = Field(
        default=None, description="as if every viewer asked for so many events"
    )
    weights: WeightsIn | None = None
    spacing_km: Annotated[float, Field(strict=True, ge=0, le=1000, allow_inf_nan=False)] | None = None
    sample: Annotated[int, Field(strict=True, ge=1, le=SAMPLE_MOST)] = Field(
        default=SAMPLE, description="viewers to try it on; more answer more exactly and cost more"
    )
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**63)] = Field(default=0, description="which viewers")


def parsed(value: object) -> WhatIfIn:
    """A body as its model; Refused says what is wrong with it."""
    try:
        return WhatIfIn.model_validate(value)
    except ValidationError as error:
        raise refused(error) from None
