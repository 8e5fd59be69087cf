"""A membership provider on loopback: the HTTP that an import pages through, with every fault that it may have.

    async with Members(Script([Act(status=429, retry_after="1")]), members=500) as double:
        double.url                                     http://127.0.0.1:PORT
    python -m tests.doubles.members --members 50000 --seed 7 [--port 8099]

    GET /api/v1/members?company_id=biz_demo&first=100&after=CURSOR        Authorization: Bearer KEY
    {"data": [{"id", "joined_at", "status", "phone", "user": {"id", "email", "name", "username"}, ...}],
     "page_info": {"start_cursor", "end_cursor", "has_next_page", "has_previous_page"}}

Keys: whop_good may read all; whop_noscope gets every e-mail as null; whop_forbidden is known and may read nothing (403);
anything else is 401. Accounts: biz_NUMBER has that many members, any other biz_... all of them; the rest is 404.

Members are made from a seed, newest first: some without e-mail or without a user, some e-mails in mixed case or between
blanks, some a second time under another id. A page holds at most `cap` members, however many were asked for. A cursor is a
position, so members who join while somebody pages (`Act.arrivals`) push those already seen into the next page again.

What a request gets other than the truth is an `Act`; a `Script` deals one to each request in turn, then `always`. By hand:
PUT /control/script {"acts": [{"status": 500}], "always": {}} · GET /control/asked · DELETE /control/asked.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import dataclasses
import datetime as dt
import json
import random
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

GOOD = "whop_good"
NO_SCOPE = "whop_noscope"
FORBIDDEN = "whop_forbidden"
PAGE_CAP = 100
NEWEST = dt.datetime(2026, 4, 1, tzinfo=dt.UTC)
FIRST_NAMES = ("Ada", "Björn", "Chidi", "Dana", "Eun-ji", "Fátima", "Goran", "Hana", "Iker", "Jun", "Kofi", "Lena")
LAST_NAMES = (
    "Abe",
    "Brandt",
    "Castro",
    "Diallo",
    "Eriksen",
    "Fontaine",
    "García",
    "Haddad",
    "Ito",
    "Janssen",
    "O'Neil",
)
TYPES = {400: "bad_request", 401: "unauthorized", 403: "forbidden", 404: "not_found", 429: "too_many_requests"}


@dataclass(frozen=True)
class Act:
    """What one answer does other than the truth; the default is the truth."""

    status: int | None = None
    retry_after: str | None = None
    """The text of the header: seconds or an HTTP date."""
    delay_s: float = 0
    """How long the answer is held back."""
    cut: str = ""
    """`before`: the connection closes without an answer; `body`: in the middle of it."""
    body: str | None = None
    """Instead of the JSON, whatever its status."""
    says_next: bool | None = None
    """What has_next_page says, be it true or not."""
    same_cursor: bool = False
    """The cursor is the one that was asked with."""
    no_cursor: bool = False
    empty: bool = False
    arrivals: int = 0
    """Members who join just before this answer."""
    redirect: str | None = None
    swell: int = 0
    """Bytes that an unknown field blows the answer up by."""
    repeats_key: bool = False
    """An error's message holds the key that was sent."""


class Script:
    """One act for each request in turn, then `always`."""

    def __init__(self, acts: Iterable[Act] = (), always: Act | None = None) -> None:
        self._acts = list(acts)
        self._always = always or Act()

    def next(self) -> Act:
        return self._acts.pop(0) if self._acts else self._always

    @classmethod
    def of(cls, value: Any) -> Script:
        """A script from the JSON of the control endpoint."""
        return cls([Act(**act) for act in value.get("acts", [])], Act(**value.get("always", {})))


@dataclass(frozen=True)
class Asked:
    """One request as it came."""

    key: str
    account: str
    first: int
    after: str | None
    status: int


@dataclass
class Crowd:
    """The members of one seed, made once; newcomers are made when they join."""

    seed: int
    size: int
    rows: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rows = [member(self.seed, number) for number in range(self.size)]

    def at(self, position: int, arrived: int) -> dict[str, Any]:
        """The member at a place of the list, newest first, after so many have joined."""
        return self.rows[position - arrived] if position >= arrived else member(self.seed, -(arrived - position))


def member(seed: int, number: int) -> dict[str, Any]:
    """Member `number` of a seed, the same each time; below 0 are those who join while somebody pages."""
    dice = random.Random(f"{seed}/{number}")
    first, last = dice.choice(FIRST_NAMES), dice.choice(LAST_NAMES)
    joined = (NEWEST - dt.timedelta(minutes=7 * number)).isoformat().replace("+00:00", ".000Z")
    row: dict[str, Any] = {
        "id": f"mber_{seed}_{number}",
        "created_at": joined,
        "joined_at": joined,
        "updated_at": joined,
        "status": dice.choice(("joined", "joined", "joined", "left", "drafted")),
        "access_level": "customer",
        "usd_total_spent": round(dice.random() * 100, 2),
        "company_token_balance": 0.0,
        "most_recent_action": None,
        "user": {"id": f"user_{seed}_{number}", "name": f"{first} {last}", "username": f"member{number}"},
    }
    if dice.random() < 0.5:
        row["phone"] = dice.choice((None, f"+1555{dice.randrange(10**7):07}"))
    row["user"]["email"] = _email(dice, number)
    if dice.random() < 0.005:
        row["user"] = None
    return row


def _email(dice: random.Random, number: int) -> str | None:
    """One in 30 has none, one in 40 is an earlier member's again, one in 5 is in mixed case."""
    kind = dice.random()
    if kind < 1 / 30:
        return None
    if number > 100 and kind < 1 / 30 + 1 / 40:
        return f"  MEMBER{dice.randrange(number)}@Example.test "
    return f"Member{number}@Example.TEST" if dice.random() < 0.2 else f"member{number}@example.test"


class Members:
    """The provider; see the module's docstring."""

    def __init__(
        self,
        script: Script | None = None,
        *,
        members: int = 1_000,
        seed: int = 1,
        cap: int = PAGE_CAP,
        delay_s: float = 0,
        rate: float | None = None,
        total: bool = False,
    ) -> None:
        self.script = script or Script()
        self.crowd = Crowd(seed, members)
        self.asked: list[Asked] = []
        self.arrived = 0
        self.url = ""
        self._cap = cap
        self._delay_s = delay_s
        self._rate = rate
        self._total = total
        self._tokens: dict[str, tuple[float, float]] = {}
        self._runner: web.AppRunner | None = None

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> Members:
        """Listen; `url` says where."""
        app = web.Application()
        app.router.add_get("/api/v1/members", self._members)
        app.router.add_get("/control/asked", self._told)
        app.router.add_delete("/control/asked", self._forgotten)
        app.router.add_put("/control/script", self._scripted)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        self.url = f"http://{host}:{self._runner.addresses[0][1]}"
        return self

    async def close(self) -> None:
        """Stop listening and cut what is open."""
        if self._runner is not None:
            await self._runner.cleanup()

    def truth(self, account: str = "biz_demo") -> list[dict[str, Any]]:
        """All members as they are now, newest first: what an import is compared with."""
        size = (self._size(account) or 0) + self.arrived
        return [self.crowd.at(position, self.arrived) for position in range(size)]

    async def __aenter__(self) -> Members:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # --- the provider's one question ---

    async def _members(self, request: web.Request) -> web.StreamResponse:
        act = self.script.next()
        self.arrived += act.arrivals
        await asyncio.sleep(act.delay_s or self._delay_s)
        if act.cut == "before":
            self._note(request, 0)
            return _cut(request)
        answer = self._answer(request, act)
        self._note(request, answer.status)
        return await _half(request, answer) if act.cut == "body" else answer

    def _answer(self, request: web.Request, act: Act) -> web.Response:
        key = _key(request)
        if act.redirect is not None:
            return web.Response(status=act.status or 302, headers={"Location": act.redirect})
        if act.status is not None and act.status != 200:
            return _failure(act.status, f"as told by the script {key if act.repeats_key else ''}", act)
        refused = self._refused(request, key)
        if refused is not None:
            return refused
        if act.body is not None:
            return web.Response(text=act.body, content_type="application/json")
        return _page(self._page(request, act, key != NO_SCOPE))

    def _refused(self, request: web.Request, key: str) -> web.Response | None:
        wait_s = self._wait_s(key)
        if key not in (GOOD, NO_SCOPE, FORBIDDEN):
            return _failure(401, "the API key is not valid")
        if key == FORBIDDEN:
            return _failure(403, "the API key lacks member:basic:read")
        if self._size(request.query.get("company_id", "")) is None:
            return _failure(404, "no such company")
        if wait_s > 0:
            return _failure(429, "too many requests", Act(retry_after=str(int(wait_s) + 1)))
        return None

    def _page(self, request: web.Request, act: Act, emails: bool) -> dict[str, Any]:
        after = request.query.get("after")
        size = (self._size(request.query["company_id"]) or 0) + self.arrived
        start = 0 if after is None else _position(after)
        end = start if act.empty else min(size, start + min(_first(request), self._cap))
        rows = [self.crowd.at(position, self.arrived) for position in range(start, end)]
        answer: dict[str, Any] = {"data": rows if emails else [_without_email(row) for row in rows]}
        answer["page_info"] = {
            "start_cursor": _cursor(start),
            "end_cursor": None if act.no_cursor else after if act.same_cursor else _cursor(end),
            "has_next_page": end < size if act.says_next is None else act.says_next,
            "has_previous_page": start > 0,
        }
        if self._total:
            answer["page_info"]["total_count"] = size
        if act.swell:
            answer["padding"] = " " * act.swell
        return answer

    def _size(self, account: str) -> int | None:
        if not account.startswith("biz_"):
            return None
        number = account.removeprefix("biz_")
        return min(int(number), self.crowd.size) if number.isdecimal() else self.crowd.size

    def _wait_s(self, key: str) -> float:
        """A token bucket of one second for each key; how long until the next token, 0 when one was taken."""
        if self._rate is None:
            return 0
        now = time.monotonic()
        tokens, at = self._tokens.get(key, (self._rate, now))
        tokens = min(self._rate, tokens + (now - at) * self._rate)
        self._tokens[key] = (tokens - 1 if tokens >= 1 else tokens, now)
        return 0 if tokens >= 1 else (1 - tokens) / self._rate

    def _note(self, request: web.Request, status: int) -> None:
        query = request.query
        account = query.get("company_id", "")
        self.asked.append(Asked(_key(request), account, _first(request), query.get("after"), status))

    # --- the control endpoints ---

    async def _told(self, request: web.Request) -> web.Response:
        by_status: dict[str, int] = {}
        for asked in self.asked:
            by_status[str(asked.status)] = by_status.get(str(asked.status), 0) + 1
        newest = [dataclasses.asdict(asked) for asked in self.asked[-100:]]
        return web.json_response({"count": len(self.asked), "byStatus": by_status, "newest": newest})

    async def _forgotten(self, request: web.Request) -> web.Response:
        self.asked.clear()
        return web.Response(status=204)

    async def _scripted(self, request: web.Request) -> web.Response:
        try:
            self.script = Script.of(await request.json())
        except (TypeError, ValueError, AttributeError) as error:
            return web.json_response({"error": str(error)}, status=422)
        return web.Response(status=204)


def _key(request: web.Request) -> str:
    return request.headers.get("Authorization", "").removeprefix("Bearer ")


def _first(request: web.Request) -> int:
    text = request.query.get("first", "")
    return max(1, int(text)) if text.isdecimal() else PAGE_CAP


def _cursor(position: int) -> str:
    return base64.urlsafe_b64encode(f"position:{position}".encode()).decode()


def _position(cursor: str) -> int:
    try:
        return int(base64.urlsafe_b64decode(cursor.encode()).decode().removeprefix("position:"))
    except ValueError:
        raise web.HTTPBadRequest(text='{"error": {"type": "bad_request", "message": "no such cursor"}}') from None


def _without_email(row: dict[str, Any]) -> dict[str, Any]:
    return row if row["user"] is None else {**row, "user": {**row["user"], "email": None}}


def _failure(status: int, message: str, act: Act | None = None) -> web.Response:
    act = act or Act()
    headers = {} if act.retry_after is None else {"Retry-After": act.retry_after}
    kind = TYPES.get(status, "internal_server_error")
    text = json.dumps({"error": {"type": kind, "message": message.strip()}}) if act.body is None else act.body
    return web.Response(text=text, status=status, headers=headers, content_type="application/json")


def _page(value: dict[str, Any]) -> web.Response:
    return web.Response(body=json.dumps(value).encode(), content_type="application/json")


def _cut(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response(status=500)


async def _half(request: web.Request, answer: web.Response) -> web.StreamResponse:
    """The head with the true length, half of the body, then nothing: the connection is gone."""
    body = answer.body
    assert isinstance(body, bytes)
    half = web.StreamResponse(status=answer.status, headers={"Content-Length": str(len(body))})
    half.content_type = "application/json"
    await half.prepare(request)
    await half.write(body[: len(body) // 2])
    assert request.transport is not None
    request.transport.close()
    return half


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.doubles.members",
        description="A membership provider on loopback, for imports to page through.",
        epilog=f"Keys: {GOOD}, {NO_SCOPE} (no e-mails), {FORBIDDEN} (403). Accounts: biz_NUMBER, or any biz_...; "
        "set IMPORTS_PROVIDER_URL to the address that is printed.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=0, help="port; 0 picks a free one (0)")
    parser.add_argument("--members", type=int, default=50_000, help="how many members an account has (50000)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed makes the same members (1)")
    parser.add_argument(
        "--cap", type=int, default=PAGE_CAP, help="the most members a page holds, whatever is asked (100)"
    )
    parser.add_argument("--delay-ms", type=float, default=0, help="how long each answer takes (0)")
    parser.add_argument(
        "--rate", type=float, help="requests a second of one key; above: 429 with Retry-After (no limit)"
    )
    parser.add_argument("--total", action="store_true", help="say in page_info how many members there are")
    return parser


async def _serve(chosen: argparse.Namespace) -> None:
    double = Members(
        members=chosen.members,
        seed=chosen.seed,
        cap=chosen.cap,
        delay_s=chosen.delay_ms / 1000,
        rate=chosen.rate,
        total=chosen.total,
    )
    await double.start(chosen.host, chosen.port)
    print(double.url, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(arguments().parse_args()))
