"""What is asked of the schedules over HTTP: a business to follow, a tier, an interval, a retry, an evening out."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias, TypeVar

from pydantic import AfterValidator, BaseModel, Field, StringConstraints, ValidationError

from server.protocol.event import refused
from server.protocol.values import MAX_MS, Wire

M = TypeVar("M", bound=BaseModel)
Platform: TypeAlias = Literal["google", "facebook", "tripadvisor", "booking"]
Type: TypeAlias = Literal["reviews", "overview"]
Tier: TypeAlias = Literal["starter", "professional", "enterprise"]


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("there is a character in it that cannot be printed")
    return text


Line = Annotated[str, StringConstraints(strict=True, strip_whitespace=True, max_length=300), AfterValidator(_printable)]
Team = Annotated[
    str, StringConstraints(strict=True, strip_whitespace=True, min_length=1, max_length=200), AfterValidator(_printable)
]
Hours = Annotated[int, Field(strict=True, ge=1, le=168)]


class ProfileIn(Wire):
    """A business to follow on a platform."""

    identifier: Annotated[str, StringConstraints(strict=True, min_length=1, max_length=2_000)] = Field(
        description="Google: its place id; else the address of its page"
    )
    team: Team | None = Field(default=None, description="whose it is; without it the token's team")
    name: Line = Field(default="", description="for people")
    business_id: Annotated[int, Field(strict=True, ge=1, lt=2**63)] | None = Field(
        default=None, description="a business of the team that gets one more platform"
    )


class TierIn(Wire):
    """Another tier for a team."""

    tier: Tier


class IntervalIn(Wire):
    """An interval of a team's own."""

    hours: Hours
    platforms: Annotated[tuple[Platform, ...], Field(min_length=1)] | None = Field(
        default=None, description="without it all"
    )
    types: Annotated[tuple[Type, ...], Field(min_length=1)] | None = Field(default=None, description="without it both")
    reason: Annotated[str, StringConstraints(strict=True, max_length=500)] = ""
    expires_at_ms: Annotated[int, Field(strict=True, ge=0, le=MAX_MS)] | None = Field(
        default=None, description="without it until it is removed"
    )


class RetryIn(Wire):
    """What of a business is tried again."""

    platform: Platform | None = Field(default=None, description="without it all of its platforms")
    type: Type | None = Field(default=None, description="without it both types")


class BalanceIn(Wire):
    """Whether only to show what would be done, and for which schedule: all three of these, or none for all."""

    preview: Annotated[bool, Field(strict=True)] = False
    platform: Platform | None = None
    type: Type | None = None
    hours: Hours | None = None


def asked(model: type[M], value: object) -> M:
    """What a body asks for; Refused says what is wrong with it."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise refused(error) from None
