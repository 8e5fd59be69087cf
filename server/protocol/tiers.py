"""What somebody asks of the tiers, as it comes over HTTP: classify, generate, verify, a decision, a booking."""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias, TypeVar

from pydantic import Field, StringConstraints, ValidationError

from server.protocol.event import refused
from server.protocol.values import Wire

M = TypeVar("M", bound=Wire)
TierName: TypeAlias = Literal["S", "A", "B", "C", "D"]
Mode: TypeAlias = Literal["all", "new-only", "tier", "person"]
REASON_MOST: Final = 500
KEY_MOST: Final = 200

Month = Annotated[str, StringConstraints(strict=True, pattern=r"^\d{4}-(0[1-9]|1[0-2])$")]
PersonId = Annotated[int, Field(strict=True, ge=1, lt=2**63)]
Reason = Annotated[
    str,
    StringConstraints(strict=True, strip_whitespace=True, min_length=1, max_length=REASON_MOST, pattern=r"^[^\x00]*$"),
]
Key = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=KEY_MOST, pattern=r"^[ -~]*$")]


class ClassifyIn(Wire):
    """Who is to be classified: everybody, those without a tier, one tier, one person."""

    mode: Mode | None = Field(default=None, description="all, unless tier or person is given")
    tier: TierName | None = None
    person: PersonId | None = Field(default=None, description="the id of one person")
    resume: bool = Field(default=False, strict=True, description="go on with the run that was stopped")

    @property
    def scope(self) -> Mode:
        """The mode, also when it follows from what else is given."""
        return self.mode or ("person" if self.person is not None else "tier" if self.tier is not None else "all")


class GenerateIn(Wire):
    """Whose month is to be planned: one tier's, or one person's."""

    tier: TierName | None = None
    person: PersonId | None = Field(default=None, description="one person instead of a tier")
    month: Month | None = Field(default=None, description="like 2027-03; this month (UTC) unless given")
    resume: bool = Field(default=False, strict=True, description="go on with the run that was stopped")
    replace: bool = Field(default=False, strict=True, description="plan anew; what is booked stays")
    override: Reason | None = Field(default=None, description="why the gate is passed though it is shut; audited")


class VerifyIn(Wire):
    """What is to be verified: a tier's month, or the foundation and every tier."""

    tier: TierName | None = None
    month: Month | None = Field(default=None, description="like 2027-03; this month (UTC) unless given")


class DecisionIn(Wire):
    """What somebody has decided about a person: another tier, or that the one it has is right."""

    tier: TierName | None = None
    accept: bool = Field(default=False, strict=True, description="keep the tier and clear the flags")
    reason: Reason = Field(description="why, for those who ask later")


class BookIn(Wire):
    """A booking's key: asking again with the same key books nothing new."""

    key: Key | None = None


def parsed(model: type[M], value: object) -> M:
    """A body as its model; Refused says what is wrong with it."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise refused(error) from None
