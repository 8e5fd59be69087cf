"""A member of an account and a page of them, as any source of members hands them to an import, and how a source fails.

    source.page(cursor) -> Page          cursor None is the beginning; a page's own cursor asks for what follows it
    raises Unusable (AuthFailed ...)     asking again cannot help: the job ends and says why
    raises Retryable(after_s)            the world's fault: the job comes back later and goes on from the same cursor

Sources are the membership provider and files. Members are handed on as they came, trimmed but neither folded nor made
unique: which of them are the same person is the import's decision. No message of these errors ever holds a secret.

`text_of`, `email_of`, `moment_of` and `extra_of` read a stranger's values into what a row can hold; ValueError says why not.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import orjson

TEXT_MOST: Final = 500
"""Characters of a name, an id or a status."""
EMAIL_MOST: Final = 320
EXTRA_MOST: Final = 16_384
"""Bytes of what a source says beyond the known fields; above it none of that is kept."""
SECONDS_BELOW: Final = 100_000_000_000
"""A number below it is epoch seconds (until the year 5138), one above epoch milliseconds."""
_LAST_MS: Final = 253_402_300_799_999
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_NUMBER: Final = re.compile(r"\d{9,15}(\.\d{1,9})?", re.ASCII)
_EMAIL: Final = re.compile(r"[^\s@,;<>]+@[^\s@,;<>]+")


@dataclass(frozen=True, slots=True)
class Member:
    """One member; whatever the source left out is None, and what it said beyond these fields is in `extra`."""

    external_id: str | None
    email: str | None = None
    name: str | None = None
    username: str | None = None
    joined_ms: int | None = None
    status: str | None = None
    phone: str | None = None
    extra: str = "{}"
    """A JSON object as text, ready for a jsonb column."""


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that could not become a member: its number from 0, which field is to blame (if one is), and why."""

    row: int
    field: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Page:
    """What one call to a source brought; `rejected` are what stood in it and is no member."""

    members: tuple[Member, ...]
    cursor: str | None
    has_next: bool
    total: int | None = None
    """How many members there are in all, when the source says so: for percent and ETA, never to decide where to stop."""
    rejected: tuple[BadRow, ...] = ()

    @property
    def empty(self) -> bool:
        """Nothing came at all: neither members nor rows that were refused."""
        return not self.members and not self.rejected


class Source(Protocol):
    """What an import reads from."""

    async def page(self, cursor: str | None) -> Page:
        """The page at this cursor; the same cursor may be asked for again at any time."""
        ...


class Unusable(Exception):
    """The source cannot be read, and asking again cannot help; `message` says what is wrong and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class AuthFailed(Unusable):
    """The provider does not accept the credential, or the credential may not read members."""


class Retryable(Exception):
    """The source could not be read just now; come back after `after_s` seconds, or when the caller's own ladder says so."""

    def __init__(self, message: str, after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.after_s = after_s


def text_of(value: object) -> str | None:
    """A text, trimmed and without NUL, which no column can hold; numbers are written out, nothing and blanks are None."""
    if value is None:
        return None
    if not isinstance(value, str):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError("is not a text")
        value = str(value)
    text = value.replace("\0", "").strip()
    if len(text) > TEXT_MOST:
        raise ValueError(f"has more than {TEXT_MOST} characters")
    return text or None


def email_of(value: object) -> str | None:
    """An e-mail address as it was written, trimmed; its shape is looked at, not whether it exists."""
    text = text_of(value)
    if text is not None and (len(text) > EMAIL_MOST or not _EMAIL.fullmatch(text)):
        raise ValueError("is not an e-mail address")
    return text


def moment_of(value: object) -> int | None:
    """Epoch ms of ISO 8601 (without an offset: UTC), or of a number of 9 digits or more, epoch seconds or milliseconds."""
    text = text_of(value)
    if text is None:
        return None
    ms = _number_ms(text) if _NUMBER.fullmatch(text) else _iso_ms(text)
    if ms > _LAST_MS:
        raise ValueError("lies beyond the year 9999")
    return ms


def extra_of(row: Mapping[str, object], known: frozenset[str]) -> str:
    """The rest of a row as JSON text for a jsonb column."""
    rest = {name: value for name, value in row.items() if name not in known and value is not None}
    if not rest:
        return "{}"
    try:
        encoded = orjson.dumps(rest)
        if b"\\u0000" in encoded:
            encoded = orjson.dumps(_without_nul(rest))
    except orjson.JSONEncodeError:  # Nested deeper than it writes, though it reads that deep.
        return '{"dropped":"too deep"}'
    return encoded.decode() if len(encoded) <= EXTRA_MOST else '{"dropped":"too large"}'


def _number_ms(text: str) -> int:
    number = float(text)
    return round(number * 1000 if number < SECONDS_BELOW else number)


def _iso_ms(text: str) -> int:
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("is not a time (2026-05-01T18:00:00Z)") from None
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=dt.UTC)
    return round((aware - _EPOCH) / dt.timedelta(milliseconds=1))


def _without_nul(value: object) -> object:
    if isinstance(value, str):
        return value.replace("\0", "")
    if isinstance(value, list):
        return [_without_nul(item) for item in value]
    if isinstance(value, dict):
        return {key.replace("\0", ""): _without_nul(item) for key, item in value.items()}
    return value
