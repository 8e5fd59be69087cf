"""The scraping provider (Apify) through its official client, typed and thin, for every system that starts runs there.

    apify = await Apify.open(terms, token)                     one for the process; `close` at the end
    run = await apify.start(actor, input, Options(...))        asked exactly once, whatever happens
    await apify.run(id) / apify.runs(...) / apify.page(dataset, offset, limit) / apify.abort(id) / apify.input_of(run)
    await apify.schedules() / create_schedule / update_schedule / delete_schedule;  await apify.ping()

How a call fails says what may be done next:

    AuthFailed   the token is not good for this (401, 403)      nothing helps but another token
    NotFound     there is no such thing, or no longer (404)     nothing helps
    Rejected     refused as it was asked (other 4xx)            nothing helps; Conflict (409) is one of them
    Retryable    not done, and may work later (429, full, 5xx)  the same again, not before `after_s`
    Unknown      a start, or another thing that makes something, of which nobody knows whether it was done

The client's own retries repeat whatever gets 429 or 5xx, and a repeated start is a second bill. So what makes things goes
through an instance without retries, and what only reads through one with a few. Bodies are bounded, redirects
are not followed and no proxy of the environment is used: the token goes to the provider's own address (https, or http on
loopback) and nowhere else. It is in no error and no log line; texts of the provider are cleaned of it.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Literal, Protocol, TypeAlias, TypeVar
from urllib.parse import urlsplit

import aiohttp
import orjson
from apify_client import ApifyClientAsync
from apify_client.errors import ApifyApiError, ApifyClientError
from pydantic import SecretStr

from server.core.loopback import is_loopback
from server.edge.apify_http import RETRY_AFTER, TooLarge, Transport
from server.errors import StartRefused

T = TypeVar("T")

RETRY_AFTER_MOST_S: Final = 3_600.0
REASON_MOST: Final = 300
PAGE_MOST: Final = 1_000
"""Runs or schedules of one list."""
FULL_AGAIN_S: Final = 30.0
"""The account has no room for another run just now; it is asked again after this."""
FULL: Final = frozenset(("actor-memory-limit-exceeded", "concurrent-runs-limit-exceeded"))
"""Refusals (402 or 403, by their `type`) that end when other runs do."""
INPUT: Final = "INPUT"
"""The record of a run's key-value store that holds its input."""

ACTIVE: Final = frozenset(("READY", "RUNNING", "TIMING-OUT", "ABORTING"))
ENDED: Final = frozenset(("SUCCEEDED", "FAILED", "ABORTED", "TIMED-OUT"))
EVENTS: Final = ("ACTOR.RUN.SUCCEEDED", "ACTOR.RUN.FAILED", "ACTOR.RUN.ABORTED", "ACTOR.RUN.TIMED_OUT")
"""What the provider tells of a run's end."""


class Trouble(Exception):
    """A call that did not work; the message is for people and holds no secret."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class AuthFailed(Trouble):
    """The token is not good for this."""


class NotFound(Trouble):
    """There is no such thing, or no longer."""


class Rejected(Trouble):
    """Refused, and would be again."""


class Conflict(Rejected):
    """There is one of that name."""


Kind: TypeAlias = Literal["timeout", "connection", "limited", "answer"]
"""What stood in the way: no answer in time, no connection, a limit of the provider's (429, full), or what it answered."""


class Retryable(Trouble):
    """Not done, and may work later."""

    def __init__(self, message: str, after_s: float | None = None, kind: Kind = "answer") -> None:
        super().__init__(message)
        self.after_s = after_s
        self.kind = kind


class Unknown(Trouble):
    """Perhaps it was done."""

    def __init__(self, message: str, kind: Kind = "answer", after_s: float | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.after_s = after_s


@dataclass(frozen=True, slots=True)
class Terms:
    """Where the provider is and how it is asked."""

    url: str = "https://api.apify.com"
    timeout_ms: int = 30_000
    retries: int = 2
    """Of calls that only read; each waits twice as long as the one before, from half a second."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        local = parts.scheme == "http" and is_loopback(parts.hostname or "")
        if not parts.hostname or parts.username is not None or not (parts.scheme == "https" or local):
            raise StartRefused(
                "the provider's address must be https://HOST (http only to loopback) without user and password: "
                f"the token is sent there. It is {parts.scheme}://{parts.hostname or ''}; set APIFY_URL."
            )


@dataclass(frozen=True, slots=True)
class Webhook:
    """Whom the provider tells of a run's end. `note` comes back in the payload as it is."""

    url: str
    header: str
    secret: SecretStr
    key: str
    """The provider makes one webhook for a key, however often it is asked."""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Options:
    """How a run is started."""

    timeout_s: int | None = None
    memory_mb: int | None = None
    webhook: Webhook | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """A run as the provider tells of it. `schedule_id`: of the provider's own schedule that started it."""

    id: str
    actor_id: str
    status: str
    started_ms: int
    finished_ms: int | None
    dataset_id: str
    store_id: str
    schedule_id: str | None = None
    message: str | None = None
    cost_usd: float | None = None

    @property
    def ended(self) -> bool:
        """Nothing more will happen to it."""
        return self.status in ENDED


@dataclass(frozen=True, slots=True)
class Page:
    """Items of a dataset as the provider sent them: a JSON array. `total`: items of the whole dataset."""

    body: bytes
    offset: int
    count: int
    total: int


@dataclass(frozen=True, slots=True)
class Plan:
    """One of the provider's own schedules; of one in a list `input` is None."""

    id: str
    name: str
    cron: str
    enabled: bool
    actor_id: str
    input: str | None = None
    timezone: str = "UTC"


class Apify:
    """See the module's docstring."""

    def __init__(self, terms: Terms, token: SecretStr, session: aiohttp.ClientSession) -> None:
        self.terms = terms
        self._token = token
        self._session = session
        self._reading = self._client(terms.retries)
        self._once = self._client(0)
        self._ids: dict[str, str] = {}

    @classmethod
    async def open(cls, terms: Terms, token: SecretStr) -> Apify:
        """Nothing is asked yet."""
        total_s = terms.timeout_ms / 1000
        session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=total_s, sock_connect=min(10.0, total_s)),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )
        return cls(terms, token, session)

    def _client(self, retries: int) -> ApifyClientAsync:
        transport = Transport(self._session, retries)
        return ApifyClientAsync.with_custom_http_client(
            token=self._token.get_secret_value(), api_url=self.terms.url, http_client=transport
        )

    async def close(self) -> None:
        """Calls in flight are cut."""
        await self._session.close()

    async def ping(self) -> str:
        """The name of the account that the token belongs to."""
        user = await self._ask(lambda: self._reading.user("me").get())
        if user is None:
            raise AuthFailed("the provider knows no account for this token")
        return str(user.username)

    # Runs.

    async def start(self, actor: str, run_input: Mapping[str, object], options: Options) -> Run:
        """Ask once for a run; Unknown when nobody knows whether there is one now."""
        limit = None if options.timeout_s is None else dt.timedelta(seconds=options.timeout_s)
        hooks = None if options.webhook is None else [_hook(options.webhook)]
        body = orjson.dumps(run_input)
        run = await self._make(
            lambda: self._once.actor(actor).start(
                run_input=body,
                content_type="application/json; charset=utf-8",
                memory_mbytes=options.memory_mb,
                run_timeout=limit,
                webhooks=hooks,  # type: ignore[arg-type]  # the client takes such dicts; its TypedDicts spell them out
            )
        )
        return _run(run)

    async def run(self, run_id: str) -> Run:
        """One run as it is now."""
        run = await self._ask(lambda: self._reading.run(run_id).get())
        if run is None:
            raise NotFound(f"the provider has no run {run_id}")
        return _run(run)

    async def wait(self, run_id: str, seconds: int) -> Run:
        """The run when it has ended, or as it is after so long; the provider holds its answer back until then."""
        limit = dt.timedelta(seconds=seconds)
        run = await self._ask(lambda: self._reading.run(run_id).wait_for_finish(wait_duration=limit))
        if run is None:
            raise NotFound(f"the provider has no run {run_id}")
        return _run(run)

    async def runs(
        self, since_ms: int, *, actor: str | None = None, offset: int = 0, limit: int = PAGE_MOST
    ) -> tuple[Run, ...]:
        """Runs that started since then, oldest first; of one actor, or of all."""
        since = dt.datetime.fromtimestamp(since_ms / 1000, dt.UTC)
        source = self._reading.runs() if actor is None else self._reading.actor(actor).runs()
        found = await self._ask(lambda: source.list(started_after=since, offset=offset, limit=limit, desc=False))
        return tuple(map(_run, found.items))

    async def input_of(self, run: Run) -> object:
        """What a run was started with; None when that is kept no longer."""
        record = await self._ask(lambda: self._reading.key_value_store(run.store_id).get_record(INPUT))
        return None if record is None else record["value"]

    async def abort(self, run_id: str) -> Run:
        """End a run; one that has ended stays as it is."""
        return _run(await self._ask(lambda: self._reading.run(run_id).abort()))

    async def page(self, dataset_id: str, offset: int, limit: int) -> Page:
        """Items of a dataset from a position on, unparsed, with the count header by which to go on."""
        return await self._ask(lambda: self._page(dataset_id, offset, limit))

    async def _page(self, dataset_id: str, offset: int, limit: int) -> Page:
        items = self._reading.dataset(dataset_id).stream_items(item_format="json", offset=offset, limit=limit)
        async with items as answer:
            body = await answer.aread()
            total = int(answer.headers["x-apify-pagination-total"])
            count = int(answer.headers["x-apify-pagination-count"])
        return Page(body, offset, count, total)

    # The provider's own schedules.

    async def schedules(self) -> tuple[Plan, ...]:
        """All of the account; it may have a hundred."""
        found = await self._ask(lambda: self._reading.schedules().list(limit=PAGE_MOST))
        return tuple(_plan(item) for item in found.items)

    async def schedule(self, schedule_id: str) -> Plan:
        """One of them, with its input."""
        found = await self._ask(lambda: self._reading.schedule(schedule_id).get())
        if found is None:
            raise NotFound(f"the provider has no schedule {schedule_id}")
        return _plan(found)

    async def create_schedule(
        self, name: str, cron: str, actor: str, run_input: Mapping[str, object], *, enabled: bool, options: Options
    ) -> Plan:
        """A new one; Conflict when there is one of that name."""
        actions = [_action(actor, run_input, options)]
        made = await self._make(
            lambda: self._once.schedules().create(
                name=name, cron_expression=cron, is_enabled=enabled, is_exclusive=True, actions=actions, timezone="UTC"
            )
        )
        return _plan(made)

    async def update_schedule(
        self,
        schedule_id: str,
        cron: str,
        actor: str,
        run_input: Mapping[str, object],
        *,
        enabled: bool,
        options: Options,
    ) -> Plan:
        """Its full state, whatever it was before: harmless when repeated."""
        actions = [_action(actor, run_input, options)]
        return _plan(
            await self._ask(
                lambda: self._reading.schedule(schedule_id).update(
                    cron_expression=cron, is_enabled=enabled, is_exclusive=True, actions=actions, timezone="UTC"
                )
            )
        )

    async def delete_schedule(self, schedule_id: str) -> None:
        """It may be gone already."""
        await self._ask(lambda: self._reading.schedule(schedule_id).delete())

    async def actor_id(self, actor: str) -> str:
        """The provider's own id of an actor that is known by name (`user/name`); it never changes."""
        if actor not in self._ids:
            found = await self._ask(lambda: self._reading.actor(actor).get())
            if found is None:
                raise NotFound(f"the provider has no actor {actor}")
            self._ids[actor] = str(found.id)
        return self._ids[actor]

    # Failures.

    async def _ask(self, call: Callable[[], Awaitable[T]]) -> T:
        """What may be repeated."""
        RETRY_AFTER.set(None)
        try:
            return await call()
        except Exception as error:  # noqa: BLE001 - sorted by `_trouble`; what is our own mistake goes on as it is
            raise self._trouble(error) from None

    async def _make(self, call: Callable[[], Awaitable[T]]) -> T:
        """What must not be repeated: all that is no clear refusal is Unknown."""
        RETRY_AFTER.set(None)
        try:
            return await call()
        except Exception as error:  # noqa: BLE001 - as above
            trouble = self._trouble(error)
            if isinstance(trouble, Retryable) and not _surely_not_done(error):
                raise Unknown(trouble.message, trouble.kind, trouble.after_s) from None
            raise trouble from None

    def _trouble(self, error: Exception) -> Exception:
        """What the world or the provider did; our own mistakes are handed back as they are.

        The insides of these errors hold the request with its headers: only what is safe of them is told."""
        match error:
            case Trouble():
                return error
            case TooLarge():
                return Rejected(f"{error}: ask for fewer items a page")
            case ApifyApiError():
                return _refusal(error, self._clean(error.message or ""), _seconds(RETRY_AFTER.get()))
            case TimeoutError():
                return Retryable(f"the provider did not answer within {self.terms.timeout_ms} ms", kind="timeout")
            case aiohttp.ClientError() | OSError():
                return Retryable(f"the connection to the provider failed ({type(error).__name__})", kind="connection")
            case ApifyClientError() | ValueError() | KeyError():
                return Retryable(f"the provider's answer cannot be read ({type(error).__name__})")
            case _:
                return error

    def _clean(self, text: str) -> str:
        secret = self._token.get_secret_value()
        return " ".join((text.replace(secret, "[token]") if secret else text).split())[:REASON_MOST]


def _refusal(error: ApifyApiError, reason: str, after_s: float | None) -> Trouble:
    status = error.status_code
    said = f"({status}): {reason}" if reason else f"({status})"
    match status:
        case _ if error.type in FULL:
            return Retryable(
                f"the provider's account has no room for another run {said}", after_s or FULL_AGAIN_S, "limited"
            )
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            return AuthFailed(f"the provider does not accept the token for this {said}: set another APIFY_TOKEN")
        case HTTPStatus.NOT_FOUND | HTTPStatus.GONE:
            return NotFound(f"the provider has no such thing {said}")
        case HTTPStatus.CONFLICT:
            return Conflict(f"the provider has one of that name {said}")
        case HTTPStatus.TOO_MANY_REQUESTS:
            return Retryable("the provider limits this account (429)", after_s, "limited")
        case HTTPStatus.REQUEST_TIMEOUT | HTTPStatus.TOO_EARLY:
            return Retryable(f"the provider answered {status}", after_s)
        case _ if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return Retryable(f"the provider answered {status}", after_s)
        case _ if status < HTTPStatus.BAD_REQUEST:
            return Rejected(f"the provider redirects ({status}), and the token is not sent elsewhere: check APIFY_URL")
        case _:
            return Rejected(f"the provider refused {said}")


def _surely_not_done(error: Exception) -> bool:
    """No connection was made, or the provider said that it did not take it."""
    if isinstance(error, ApifyApiError):
        return error.status_code < HTTPStatus.INTERNAL_SERVER_ERROR and error.status_code != HTTPStatus.REQUEST_TIMEOUT
    return isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)


def _seconds(text: str | None) -> float | None:
    plain = (text or "").strip()
    return min(float(plain), RETRY_AFTER_MOST_S) if plain.replace(".", "", 1).isdecimal() else None


def items_of(body: bytes) -> list[object]:
    """The items of a page. Half an emoji in one of them must not make all of them unreadable: it becomes a question mark."""
    try:
        value: object = orjson.loads(body)
    except orjson.JSONDecodeError:
        try:
            value = orjson.loads(json.dumps(json.loads(body), ensure_ascii=False).encode("utf-8", "replace"))
        except (ValueError, RecursionError):
            raise Retryable("the provider's page of items is not JSON") from None
    return value if isinstance(value, list) else [value]


# The client's values into ours.


class _Told(Protocol):
    """What the client's Run and RunListItem have in common; they have no class in common."""

    id: str
    act_id: str
    started_at: dt.datetime
    default_dataset_id: str
    default_key_value_store_id: str

    @property
    def status(self) -> str: ...
    @property
    def finished_at(self) -> dt.datetime | None: ...
    @property
    def meta(self) -> _Meta: ...


class _Meta(Protocol):
    schedule_id: str | None


def _run(run: _Told) -> Run:
    cost = getattr(run, "usage_total_usd", None)
    return Run(
        id=run.id,
        actor_id=run.act_id,
        status=run.status,
        started_ms=_ms(run.started_at),
        finished_ms=None if run.finished_at is None else _ms(run.finished_at),
        dataset_id=run.default_dataset_id,
        store_id=run.default_key_value_store_id,
        schedule_id=run.meta.schedule_id,
        message=getattr(run, "status_message", None),
        cost_usd=None if cost is None else float(cost),
    )


def _ms(time: dt.datetime) -> int:
    return round(time.timestamp() * 1000)


class _Planned(Protocol):
    """What Schedule and ScheduleListItem have in common."""

    id: str
    name: str
    cron_expression: str
    timezone: str
    is_enabled: bool

    @property
    def actions(self) -> Sequence[object]: ...


def _plan(schedule: _Planned) -> Plan:
    action = schedule.actions[0] if schedule.actions else None
    run_input = getattr(action, "run_input", None)
    return Plan(
        id=schedule.id,
        name=schedule.name,
        cron=schedule.cron_expression,
        enabled=schedule.is_enabled,
        actor_id=str(getattr(action, "actor_id", "")),
        input=None if run_input is None else run_input.body,
        timezone=schedule.timezone,
    )


def _hook(webhook: Webhook) -> dict[str, object]:
    template = (
        '{"userId": {{userId}}, "createdAt": {{createdAt}}, "eventType": {{eventType}}, '
        f'"eventData": {{{{eventData}}}}, "resource": {{{{resource}}}}, "note": {json.dumps(webhook.note)}}}'
    )
    return {
        "eventTypes": list(EVENTS),
        "requestUrl": webhook.url,
        "payloadTemplate": template,
        "headersTemplate": json.dumps({webhook.header: webhook.secret.get_secret_value()}),
        "idempotencyKey": webhook.key,
    }


def _action(actor_id: str, run_input: Mapping[str, object], options: Options) -> dict[str, object]:
    chosen = {"timeoutSecs": options.timeout_s, "memoryMbytes": options.memory_mb}
    given = {name: value for name, value in chosen.items() if value is not None}
    return {
        "type": "RUN_ACTOR",
        "actorId": actor_id,
        "runInput": {"body": orjson.dumps(run_input).decode(), "contentType": "application/json; charset=utf-8"},
        **({"runOptions": given} if given else {}),
    }
