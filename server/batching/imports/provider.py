"""The membership provider over HTTP: pages of an account's members, one politely limited way in for each credential.

    provider = await Provider.open(terms, clock)            one for the process; `close` at the end
    source = provider.source(credential, account, key)      a Source: page(cursor) -> Page
    await provider.check(credential, account, key)          does the key work, and does it show e-mails?
    provider.usage()                                        calls, 429s, tokens left, seconds a page, by credential

What is promised. All lanes of the process that use a credential pass its one Gate: a token bucket, first come first
served, that a Retry-After closes for all of them. What may pass by itself (429, 5xx, a timeout, a cut connection, an
answer that is no page) is asked again a few times with backoff and jitter, then is Retryable, at once when the provider
wants a longer wait than PATIENCE_S; the caller's queue does the rest and comes back with the same cursor. 401 and 403 are
AuthFailed; an unknown account, a redirect, any other refusal and an answer above BODY_MOST are Unusable.

A page is what came back, not what was asked for: fewer or repeated members, null and odd fields, unknown fields and
missing ones are all right. Where to stop is the import's decision (`Page` says what the provider said).

The key goes to the provider's own address and nowhere else: https only (http on loopback), no redirect is followed, no
proxy of the environment is used. It is in no log line, no error and no repr; texts of the provider are cleaned of it.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import email.utils
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, NewType, TypeVar
from urllib.parse import urlsplit

import aiohttp
import orjson
import structlog
from pydantic import SecretStr

from server.core.loopback import is_loopback
from server.core.member import (
    AuthFailed,
    BadRow,
    Member,
    Page,
    Retryable,
    Unusable,
    email_of,
    extra_of,
    moment_of,
    text_of,
)
from server.core.quota import Bucket
from server.edge.clock import Clock
from server.errors import StartRefused, Unavailable

T = TypeVar("T")
CredentialId = NewType("CredentialId", int)

PATIENCE_S: Final = 10.0
"""A wait up to this is waited out inside of a page; a longer one goes back to the queue, so that no lane sleeps on it."""
RETRY_AFTER_MOST_S: Final = 3_600.0
"""A provider that wants to be left alone for longer is asked again after this."""
BACKOFF_S: Final = 0.5
BODY_MOST: Final = 16 << 20
REASON_MOST: Final = 200
CURSOR_MOST: Final = 4_096
GATES_MOST: Final = 10_000
"""Credentials remembered; beyond, the one unused for longest is forgotten, counters and all."""
CHECK_MEMBERS: Final = 20
"""One member may have no e-mail; that none of so many has one means that the key may not see them."""
EMAIL_SCOPE: Final = "member:email:read"

_KNOWN: Final = frozenset(("id", "joined_at", "status", "phone", "email", "name", "username"))
_KNOWN_USER: Final = frozenset(("email", "name", "username"))
_WAIT_LEAST_S: Final = 0.001

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Terms:
    """Where the provider is and how it is asked; see the settings IMPORTS_*."""

    url: str = "https://api.whop.com"
    path: str = "/api/v1/members"
    page_size: int = 100
    page_delay_ms: int = 0
    timeout_ms: int = 30_000
    calls_per_s: float = 10.0
    calls_burst: int = 20
    attempts: int = 4

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        local = parts.scheme == "http" and is_loopback(parts.hostname or "")
        if not parts.hostname or parts.username is not None or not (parts.scheme == "https" or local):
            raise StartRefused(
                "IMPORTS_PROVIDER_URL must be https://HOST (http only to loopback) without user and password: API keys "
                "are sent there."
            )


@dataclass(frozen=True, slots=True)
class Usage:
    """How one credential's calls went since the process began."""

    credential: CredentialId
    calls: int
    pages: int
    limited: int
    failed: int
    seconds: float
    """Spent on the calls that brought a page: seconds / pages is the provider's pace."""
    tokens: float
    shut_s: float
    """For how much longer the provider wants to be left alone."""


@dataclass(frozen=True, slots=True)
class Check:
    """What the provider says about a key; `emails` is None when there was no member to tell by."""

    ok: bool
    emails: bool | None
    message: str


class Provider:
    """One HTTP session for all imports of a process, and a gate for each credential."""

    def __init__(self, terms: Terms, clock: Clock, session: aiohttp.ClientSession) -> None:
        self.terms = terms
        self.clock = clock
        self._session = session
        self._gates: dict[CredentialId, Gate] = {}

    @classmethod
    async def open(cls, terms: Terms, clock: Clock) -> Provider:
        """Nothing is asked yet."""
        total_s = terms.timeout_ms / 1000
        session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=total_s, sock_connect=min(10.0, total_s)),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )
        return cls(terms, clock, session)

    async def close(self) -> None:
        """Calls in flight are cut; their pages come again."""
        await self._session.close()

    def source(self, credential: CredentialId, account: str, key: SecretStr) -> ProviderMembers:
        """The members of one account, as this key sees them."""
        return ProviderMembers(self, credential, account, key)

    async def check(self, credential: CredentialId, account: str, key: SecretStr) -> Check:
        """Ask for a few members; Unavailable when the provider can't be asked just now."""
        try:
            page = await self.members(credential, account, key, CHECK_MEMBERS, None)
        except Unusable as refused:
            return Check(False, None, refused.message)
        except Retryable as trouble:
            raise Unavailable(trouble.message, trouble.after_s or 5.0) from None
        return _checked(page)

    def usage(self) -> list[Usage]:
        """One line for each credential used."""
        now = self.clock.monotonic()
        return [gate.usage(credential, now) for credential, gate in self._gates.items()]

    async def members(
        self, credential: CredentialId, account: str, key: SecretStr, first: int, after: str | None
    ) -> Page:
        """One page, asked for as often as the terms allow; raises what the module says."""
        gate = self._gate(credential)
        for attempt in range(1, self.terms.attempts + 1):
            await gate.enter(self.clock)
            try:
                page, seconds = await self._ask(credential, account, key, first, after)
            except Retryable as trouble:
                gate.failed(credential, trouble, self.clock)
                if attempt == self.terms.attempts or (trouble.after_s or 0) > PATIENCE_S:
                    raise
                if trouble.after_s is None:
                    await self.clock.sleep(backoff_s(attempt, self.clock.random()))
            else:
                gate.answered(credential, seconds)
                return page
        raise AssertionError("the last attempt neither answered nor raised")

    def _gate(self, credential: CredentialId) -> Gate:
        gate = self._gates.pop(credential, None)
        if gate is None:
            gate = Gate(Bucket.full(self.terms.calls_per_s, self.terms.calls_burst, self.clock.monotonic()))
        self._gates[credential] = gate
        if len(self._gates) > GATES_MOST:
            del self._gates[next(iter(self._gates))]
        return gate

    async def _ask(
        self, credential: CredentialId, account: str, key: SecretStr, first: int, after: str | None
    ) -> tuple[Page, float]:
        began = self.clock.monotonic()
        answer = await self._call(account, key, first, after)
        if answer.status != HTTPStatus.OK:
            raise _refusal(answer, credential, account, key, self.clock.now_ms())
        return page_of(answer.body), self.clock.monotonic() - began

    async def _call(self, account: str, key: SecretStr, first: int, after: str | None) -> _Answer:
        query = {"company_id": account, "first": str(first)} | ({} if after is None else {"after": after})
        headers = {"Authorization": f"Bearer {key.get_secret_value()}", "Accept": "application/json"}
        url = self.terms.url.rstrip("/") + self.terms.path
        # The texts and the insides of these errors hold the request with its headers: only their kind is passed on.
        try:
            async with self._session.get(url, params=query, headers=headers, allow_redirects=False) as answer:
                return _Answer(answer.status, answer.headers.get("Retry-After"), await _body(answer))
        except TimeoutError:
            raise Retryable(f"the provider did not answer within {self.terms.timeout_ms} ms") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Retryable(f"the connection to the provider failed ({type(error).__name__})") from None


class ProviderMembers:
    """A Source: the members of one account. Holds no position: the cursor is the caller's."""

    def __init__(self, provider: Provider, credential: CredentialId, account: str, key: SecretStr) -> None:
        self._provider = provider
        self._credential = credential
        self._account = account
        self._key = key
        self._not_before = 0.0

    async def page(self, cursor: str | None) -> Page:
        """The page after this cursor."""
        clock, terms = self._provider.clock, self._provider.terms
        await clock.sleep(self._not_before - clock.monotonic())
        page = await self._provider.members(self._credential, self._account, self._key, terms.page_size, cursor)
        self._not_before = clock.monotonic() + terms.page_delay_ms / 1000
        return page


class LimitedByProvider(Retryable):
    """429: counted apart from other failures."""


class Gate:
    """One credential's way to the provider: who comes first goes first, at the bucket's pace, and nobody while it is shut."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._turnstile = asyncio.Lock()
        self._shut_until = 0.0
        self._calls = self._pages = self._limited = self._failed = 0
        self._seconds = 0.0
        self._troubled = False

    async def enter(self, clock: Clock) -> None:
        """Wait for a token; Retryable when the provider wants to be left alone for longer than a page may wait."""
        async with self._turnstile:
            while (wait_s := self._wait_s(clock.monotonic())) > 0:
                await clock.sleep(max(wait_s, _WAIT_LEAST_S))
        self._calls += 1

    def failed(self, credential: CredentialId, trouble: Retryable, clock: Clock) -> None:
        """A call went wrong: a wait that the provider asks for holds for everyone who comes."""
        self._failed += 1
        self._limited += isinstance(trouble, LimitedByProvider)
        if trouble.after_s is not None:
            # Other processes use this credential too; some jitter keeps them from coming back in the same instant.
            until = clock.monotonic() + trouble.after_s + clock.random() * BACKOFF_S
            self._shut_until = max(self._shut_until, until)
        if not self._troubled:
            self._troubled = True
            log.warning("provider failed", credential=credential, reason=trouble.message, after_s=trouble.after_s)

    def answered(self, credential: CredentialId, seconds: float) -> None:
        """A call brought a page."""
        self._pages += 1
        self._seconds += seconds
        if self._troubled:
            self._troubled = False
            log.info("provider answered", credential=credential)

    def usage(self, credential: CredentialId, now: float) -> Usage:
        """The counters, and what is left."""
        bucket = self._bucket
        return Usage(
            credential=credential,
            calls=self._calls,
            pages=self._pages,
            limited=self._limited,
            failed=self._failed,
            seconds=self._seconds,
            tokens=min(bucket.burst, bucket.tokens + (now - bucket.at) * bucket.rate),
            shut_s=max(0.0, self._shut_until - now),
        )

    def _wait_s(self, now: float) -> float:
        shut_s = self._shut_until - now
        if shut_s > PATIENCE_S:
            raise Retryable(f"the provider wants to be left alone for {shut_s:.0f} s", shut_s)
        if shut_s > 0:
            return shut_s
        return 0.0 if self._bucket.take(now) else (1 - self._bucket.tokens) / self._bucket.rate


# --- what an answer means: no input or output from here on ---


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    retry_after: str | None
    body: bytes


def page_of(body: bytes) -> Page:
    """The page in an answer; Retryable when there is none in it (cut short, a proxy's own page)."""
    value = _loads(body)
    rows = value.get("data") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(rows, list):
        raise Retryable("the provider's answer holds no list of members (data)")
    members = tuple(member_of(row) for row in rows if isinstance(row, dict))
    strange = tuple(BadRow(n, None, "not a JSON object") for n, row in enumerate(rows) if not isinstance(row, dict))
    info = value.get("page_info")
    info = info if isinstance(info, dict) else {}
    cursor, said = _cursor_of(info.get("end_cursor")), info.get("has_next_page")
    # Without a word on what follows, the cursor decides; an import stops in any case where it no longer moves.
    return Page(
        members, cursor, said if isinstance(said, bool) else cursor is not None, _total_of(info, value), strange
    )


def member_of(row: Mapping[str, object]) -> Member:
    """One member; what can't be read counts as absent."""
    user = row.get("user")
    user = user if isinstance(user, dict) else {}
    user_rest = {name: value for name, value in user.items() if name not in _KNOWN_USER}
    return Member(
        external_id=_soft(text_of, row.get("id") or user.get("id")),
        email=_soft(email_of, user.get("email") or row.get("email")),
        name=_soft(text_of, user.get("name") or row.get("name")),
        username=_soft(text_of, user.get("username") or row.get("username")),
        joined_ms=_soft(moment_of, row.get("joined_at")),
        status=_soft(text_of, row.get("status")),
        phone=_soft(text_of, row.get("phone")),
        extra=extra_of({**row, "user": user_rest or None}, _KNOWN),
    )


def retry_after_s(text: str | None, now_ms: int) -> float | None:
    """Retry-After, seconds or an HTTP date, as seconds from now; None when absent or not understood."""
    if text is None:
        return None
    plain = text.strip()
    if plain.isascii() and plain.replace(".", "", 1).isdecimal():
        return min(float(plain), RETRY_AFTER_MOST_S)
    try:
        moment = email.utils.parsedate_to_datetime(plain)
    except (ValueError, TypeError):
        return None
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=dt.UTC)
    return min(max(0.0, aware.timestamp() - now_ms / 1000), RETRY_AFTER_MOST_S)


def backoff_s(attempt: int, jitter: float) -> float:
    """How long to wait after the n-th failure (from 1): doubling, between half of it and all of it."""
    return BACKOFF_S * float(2 ** (attempt - 1)) * (0.5 + jitter / 2)


def _refusal(
    answer: _Answer, credential: CredentialId, account: str, key: SecretStr, now_ms: int
) -> Unusable | Retryable:
    status = answer.status
    after_s = retry_after_s(answer.retry_after, now_ms)
    match status:
        case HTTPStatus.UNAUTHORIZED:
            return AuthFailed(
                f"the provider does not accept the API key of credential {credential} (401): rotate the credential, then "
                "requeue the job"
            )
        case HTTPStatus.FORBIDDEN:
            return AuthFailed(
                f"the API key of credential {credential} may not read the members of account {account} (403): give it "
                f"member:basic:read and {EMAIL_SCOPE}"
            )
        case HTTPStatus.NOT_FOUND:
            return Unusable(f"the provider knows no account {account} (404): check the account's id")
        case HTTPStatus.TOO_MANY_REQUESTS:
            return LimitedByProvider("the provider limits this credential (429)", after_s)
        case HTTPStatus.REQUEST_TIMEOUT | HTTPStatus.TOO_EARLY:
            return Retryable(f"the provider answered {status}", after_s)
        case _ if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return Retryable(f"the provider answered {status}", after_s)
        case _ if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
            return Unusable(
                f"the provider redirects ({status}), and a key is not sent elsewhere: check IMPORTS_PROVIDER_URL"
            )
        case _:
            return Unusable(f"the provider refused the question ({status}){_reason(answer.body, key)}")


def _reason(body: bytes, key: SecretStr) -> str:
    """What the provider says of an error, one line of it, without the key even when it repeats it."""
    try:
        value: object = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    error = value.get("error") if isinstance(value, dict) else None
    text = error.get("message") if isinstance(error, dict) else error
    if not isinstance(text, str) or not text.strip():
        return ""
    clean = " ".join(text.replace(key.get_secret_value(), "[key]").split())
    return f": {clean[:REASON_MOST]}"


def _checked(page: Page) -> Check:
    if not page.members:
        return Check(True, None, "the key is valid; the account has no members to tell by whether e-mails can be read")
    if any(member.email is not None for member in page.members):
        return Check(True, True, "the key is valid and shows e-mails")
    return Check(
        True,
        False,
        f"the key is valid, but shows no e-mail: its scope {EMAIL_SCOPE} is missing, or members hide theirs",
    )


def _loads(body: bytes) -> object:
    """Half an emoji (a name cut short in JavaScript) must not make a page unreadable for ever: it becomes a question mark."""
    try:
        value: object = orjson.loads(body)
    except orjson.JSONDecodeError:
        try:
            value = orjson.loads(json.dumps(json.loads(body), ensure_ascii=False).encode("utf-8", "replace"))
        except (ValueError, RecursionError):
            raise Retryable("the provider's answer is not JSON") from None
    return value


def _cursor_of(value: object) -> str | None:
    if value is None or value == "" or isinstance(value, bool) or not isinstance(value, str | int):
        return None
    text = str(value)
    if len(text) > CURSOR_MOST or "\0" in text:
        raise Unusable(f"the provider's cursor has more than {CURSOR_MOST} characters, or a NUL among them")
    return text


def _total_of(info: Mapping[str, object], value: Mapping[str, object]) -> int | None:
    for total in (info.get("total_count"), value.get("total_count")):
        if isinstance(total, int) and not isinstance(total, bool) and 0 <= total < 1 << 31:
            return total
    return None


def _soft(read: Callable[[object], T | None], value: object) -> T | None:
    try:
        return read(value)
    except ValueError:
        return None


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for chunk in answer.content.iter_any():
        parts.append(chunk)
        size += len(chunk)
        if size > BODY_MOST:
            raise Unusable(f"the provider's answer has more than {BODY_MOST} bytes: lower IMPORTS_PAGE_SIZE")
    return b"".join(parts)
