"""Errors and close codes: one table each, with whose fault it is and whether coming back can help.

`Refused` is the caller's fault and is answered on the wire, never logged above info. `Unavailable` is the world's fault
(PostgreSQL away, disk full) and turns into a retry decision or a 503. Everything else that escapes is ours, a bug: the
turn or the connection dies loudly and the process lives.

ERRORS maps an error code to its HTTP status and `retry` (may the same request succeed later, unchanged?).
CLOSES maps a WebSocket close code to its meaning and what the client should do. Both are printed in docs/protocol.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Code(StrEnum):
    """Every error code that may appear on the wire, in WebSocket `error` messages and HTTP error bodies alike."""

    BAD_JSON = "bad_json"
    BAD_MESSAGE = "bad_message"
    BAD_VIEWPORT = "bad_viewport"
    BAD_FILTER = "bad_filter"
    TOO_LARGE = "too_large"
    TOO_MANY = "too_many"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    NOT_REGISTERED = "not_registered"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    UNAVAILABLE = "unavailable"
    SHUTTING_DOWN = "shutting_down"


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """One row of the error table: HTTP status, whether the same request may succeed later, and a sentence for the docs."""

    status: int
    retry: bool
    meaning: str


ERRORS: Final[dict[Code, ErrorKind]] = {
    Code.BAD_JSON: ErrorKind(400, False, "the frame or body is not one JSON value"),
    Code.BAD_MESSAGE: ErrorKind(422, False, "a field is missing, of the wrong type or out of bounds; an unknown type"),
    Code.BAD_VIEWPORT: ErrorKind(422, False, "not finite, out of range, south >= north, or west = east"),
    Code.BAD_FILTER: ErrorKind(422, False, "a filter that cannot be understood"),
    Code.TOO_LARGE: ErrorKind(413, False, "the message, body or row is larger than the limit"),
    Code.TOO_MANY: ErrorKind(429, True, "more messages, connections or items than the limit allows"),
    Code.UNAUTHORIZED: ErrorKind(401, False, "no token, or one that is expired, malformed or not ours"),
    Code.FORBIDDEN: ErrorKind(403, False, "the token's roles do not allow this"),
    Code.NOT_REGISTERED: ErrorKind(409, False, "register a viewport first"),
    Code.NOT_FOUND: ErrorKind(404, False, "no such thing, or none that you may see"),
    Code.CONFLICT: ErrorKind(409, False, "the stored version is not the one you named; read it again"),
    Code.UNAVAILABLE: ErrorKind(503, True, "the server cannot do this just now; try again after the time it names"),
    Code.SHUTTING_DOWN: ErrorKind(503, True, "the server is going away; connect again after the time it names"),
}


@dataclass(frozen=True, slots=True)
class CloseKind:
    """One row of the close-code table: what it means, and whether a client should connect again by itself."""

    meaning: str
    come_back: str


NORMAL: Final = 1000
TOO_BIG: Final = 1009
INTERNAL: Final = 1011
RESTART: Final = 1012
TOKEN_EXPIRED: Final = 4001
FLOODING: Final = 4002
TOO_SLOW: Final = 4003
SUPERSEDED: Final = 4004

CLOSES: Final[dict[int, CloseKind]] = {
    NORMAL: CloseKind("the client closed, or asked to", "when it wants to"),
    1001: CloseKind("the other side is going away (a page that is left)", "yes, with backoff"),
    1002: CloseKind("a frame broke RFC 6455", "no: mend the client"),
    1003: CloseKind("a binary frame; this protocol is JSON text", "no: mend the client"),
    1007: CloseKind("a text frame that is not UTF-8", "no: mend the client"),
    TOO_BIG: CloseKind("a frame above the hard limit (1 MiB)", "no: send less at once"),
    INTERNAL: CloseKind(
        "a bug of the server, which is in its log, or a keep-alive ping unanswered", "yes, with backoff"
    ),
    RESTART: CloseKind("the server is shutting down or restarting", "yes, after the milliseconds in the reason"),
    TOKEN_EXPIRED: CloseKind("the token of this connection has expired", "yes, with a new token"),
    FLOODING: CloseKind("twice the message limit for ten seconds", "yes, slower"),
    TOO_SLOW: CloseKind("a frame waited longer than SLOW_CLIENT_TIMEOUT_MS", "yes, with backoff"),
    SUPERSEDED: CloseKind("another connection has come back to this one's session", "yes, with backoff"),
}


class Refused(Exception):
    """The caller asked for something it cannot have; `code` is from the table, `message` names value, limit and next step.

    `retry` says otherwise than the table: may the same request succeed later, unchanged?
    """

    def __init__(
        self,
        code: Code | str,
        message: str,
        *,
        field: str | None = None,
        limit: int | float | None = None,
        retry: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.code = Code(code)
        self.message = message
        self.field = field
        self.limit = limit
        self.retry = ERRORS[self.code].retry if retry is None else retry

    @property
    def status(self) -> int:
        """The HTTP status of this refusal."""
        return ERRORS[self.code].status


class Unavailable(Exception):
    """The world is not there just now (PostgreSQL away, disk full, shutting down); try again after `retry_after_s` seconds."""

    def __init__(self, message: str, retry_after_s: float = 1.0, *, code: Code = Code.UNAVAILABLE) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s
        self.code = code


class StartRefused(Exception):
    """The server cannot start as asked (a wrong setting, a data directory in use); the message says what to do. Exit code 2."""
