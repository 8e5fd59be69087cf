"""What is asked of tracking over HTTP: campaigns and their budgets, posts, decisions, payouts, runs."""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias, TypeVar

from pydantic import AfterValidator, Field, StringConstraints, ValidationError

from server.protocol.event import refused
from server.protocol.values import Wire

M = TypeVar("M", bound=Wire)
Baseline: TypeAlias = Literal["submission", "approval", "zero"]
NOTE_MOST: Final = 500
URL_MOST: Final = 2_000
CLIPS_MOST: Final = 10_000


def _storable(text: str) -> str:
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError("there is a character in it that cannot be stored")
    return text


def _text(least: int, most: int) -> tuple[StringConstraints, AfterValidator]:
    return StringConstraints(strict=True, min_length=least, max_length=most), AfterValidator(_storable)


Id = Annotated[int, Field(strict=True, ge=1, lt=2**63)]
Cents = Annotated[int, Field(strict=True, ge=0, lt=2**63)]
Name = Annotated[str, *_text(1, 200)]
Note = Annotated[str, *_text(0, NOTE_MOST)]
Url = Annotated[str, *_text(1, URL_MOST)]
CREATOR: Final = "on whose behalf; for admins"


class CampaignIn(Wire):
    """A new campaign, ACTIVE at once."""

    name: Name
    budget_cents: Cents = Field(description="what it can spend, with the reserve")
    rate_cents: Cents = Field(description="cents for a thousand views")
    baseline: Baseline = Field(default="submission", description="from when on views earn")
    reserved_cents: Cents = Field(default=0, description="the part of the budget that is held back")


class BudgetIn(Wire):
    """Another budget, another reserve, or both."""

    budget_cents: Cents | None = None
    reserved_cents: Cents | None = None


class SubmissionIn(Wire):
    """A post for a campaign."""

    campaign_id: Id
    url: Url = Field(description="the address of the post")
    creator: Name | None = Field(default=None, description=CREATOR)


class NoteIn(Wire):
    """Why."""

    note: Note = ""


class PayoutIn(Wire):
    """What is to be paid out."""

    amount_cents: Cents | None = Field(default=None, description="without it all that is payable")
    creator: Name | None = Field(default=None, description=CREATOR)


class ApprovalIn(Wire):
    """The fee of a payout."""

    fee_basis: Annotated[int, Field(strict=True)] | None = Field(
        default=None, description="hundredths of a per cent, at most 1000 (10 %); without it the usual fee"
    )


class PaymentIn(Wire):
    """That the money was sent."""

    transaction_id: Annotated[str, *_text(1, 200)] = Field(description="by which transaction")


class RunIn(Wire):
    """A run now."""

    limit: Annotated[int, Field(strict=True, ge=1, le=CLIPS_MOST)] | None = Field(
        default=None, description="clips at most; without it as set"
    )


class EventLinkIn(Wire):
    """Which event of the live map moves with a clip."""

    event_id: Annotated[str, *_text(1, 200)] | None = Field(description="null: none")


def parsed(model: type[M], value: object) -> M:
    """A body as its model; Refused says what is wrong with it."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise refused(error) from None
