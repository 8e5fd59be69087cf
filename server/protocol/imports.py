"""What somebody asks to be imported, as it comes over HTTP and WebSocket, and credentials as they come over HTTP."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import AfterValidator, Field, StringConstraints, ValidationError

from server.protocol.event import refused
from server.protocol.values import Identifier, Wire

PROVIDER: Final = "whop"
FILE_NAME_MOST: Final = 200
"""Characters of a file's own name that are kept; the rest is cut off."""
FILE_NAME_READ: Final = 1_000
"""A longer one is refused: it is no name."""


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("there is a character in it that cannot be printed")
    return text


Name = Annotated[
    str,
    StringConstraints(strict=True, strip_whitespace=True, min_length=1, max_length=200),
    AfterValidator(_printable),
]
Key = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=200), AfterValidator(_printable)]
ListId = Annotated[int, Field(strict=True, ge=1, lt=2**63)]


class Wanted(Wire):
    """What every import names: its list, how much it matters, how often it is tried."""

    list_name: Name | None = Field(default=None, description="makes a new list of this name")
    list_id: ListId | None = Field(default=None, description="a list that there is; either this or listName")
    priority: Annotated[int, Field(strict=True, ge=0, le=9)] = Field(
        default=5, description="higher is first; above 5 is for admins"
    )
    key: Key | None = Field(default=None, description="asking again with the same key makes nothing new")
    max_retries: Annotated[int, Field(strict=True, ge=0, le=100)] = Field(
        default=5, description="attempts after the first before the job has failed"
    )


class ImportIn(Wanted):
    """An import from a provider's account, for which there is a credential."""

    account: Identifier = Field(description="the provider's id of the account, such as biz_demo")
    provider: Identifier = Field(default=PROVIDER, description="who keeps the members")


def own_name(text: str) -> str | None:
    """The name of somebody's file, fit to be shown: its last part, without what cannot be printed; None when nothing is left.

    It is never the name of a file of ours.
    """
    last = text.replace("\\", "/").rpartition("/")[2]
    shown = "".join(letter for letter in last if letter.isprintable()).strip()[:FILE_NAME_MOST].strip()
    return shown if shown.strip(".") else None


class FileIn(Wanted):
    """An import from a file, which is the body; this stands beside it."""

    file_name: (
        Annotated[str, StringConstraints(strict=True, max_length=FILE_NAME_READ), AfterValidator(own_name)] | None
    ) = Field(default=None, description="the file's own name, only to be shown")


class CredentialIn(Wire):
    """A provider's API key for an account."""

    account: Identifier
    provider: Identifier = PROVIDER
    value: Annotated[str, StringConstraints(strict=True, max_length=8192)] = Field(description="never shown again")


class SecretIn(Wire):
    """A provider's new API key."""

    value: Annotated[str, StringConstraints(strict=True, max_length=8192)] = Field(description="never shown again")


class PriorityIn(Wire):
    """Another priority."""

    priority: Annotated[int, Field(strict=True, ge=0, le=9)]


def import_of(value: object) -> ImportIn:
    """What a body asks for; Refused says what is wrong with it."""
    try:
        return ImportIn.model_validate(value)
    except ValidationError as error:
        raise refused(error) from None


def file_of(value: object) -> FileIn:
    """The same for a file: what stands beside it."""
    try:
        return FileIn.model_validate(value)
    except ValidationError as error:
        raise refused(error) from None
