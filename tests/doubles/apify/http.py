"""The provider's HTTP API over what `Platform` keeps; see the package's docstring."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import datetime as dt
import gzip
import json
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from tests.doubles.apify.platform import Outcome, Platform, Produce, Refusal, Run, iso
from tests.doubles.apify.sending import Sender, Sending

TOKEN = "apify_api_good"
GZIP_FROM = 1_024
"""Bodies of that size are packed for those who take that."""
UNLIMITED = 999_999_999_999
WAIT_STEP_S = 0.005
"""How soon one who waits for a run's end is told of it."""
TICK_S = 1.0
"""How often the provider looks whether one of its schedules is due."""

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Act:
    """What one answer does other than the truth; the default is the truth."""

    status: int | None = None
    retry_after: str | None = None
    done: bool = False
    """The thing is done all the same: only the answer is wrong, or missing."""
    cut: str = ""
    """`now`: the connection closes without an answer; `body`: in the middle of it."""
    delay_s: float = 0
    """How long the answer is held back."""
    body: str | None = None
    hook_first: bool = False
    """Of a start: the run ends and its webhook is sent before the answer is."""
    kind: str = "internal-server-error"
    repeats_token: bool = False


ACT = web.RequestKey("act", Act)


class Apify:
    """The provider; see the package's docstring."""

    def __init__(
        self,
        actors: Mapping[str, Produce],
        *,
        run_s: float = 0.0,
        seed: int = 1,
        concurrent: int = 1_000,
        held: bool = False,
        clock: bool = False,
    ) -> None:
        self.platform = Platform(actors, seed=seed, concurrent=concurrent)
        self.platform.usual = Outcome(after_s=run_s)
        self.token = TOKEN
        self.url = ""
        self.held = held
        """Runs go on until `finish`."""
        self.sending = Sending()
        self.sendings: deque[Sending] = deque()
        """For the next runs that end, one each; then `sending`."""
        self.scripts: dict[str, deque[Act]] = {}
        self.always: dict[str, Act] = {}
        self.asked: list[str] = []
        """The kinds of the requests that came, in their order."""
        self.sender = Sender()
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()
        self._runner: web.AppRunner | None = None

    # --- by tests and by hand ---

    @property
    def runs(self) -> list[Run]:
        """All runs, oldest first: each of them is a bill."""
        return list(self.platform.runs.values())

    def script(self, kind: str, *acts: Act) -> None:
        """What the next requests of a kind get."""
        self.scripts.setdefault(kind, deque()).extend(acts)

    def finish(self, run: Run, outcome: Outcome | None = None) -> None:
        """The run ends now, and whom it may concern is told."""
        self.platform.finish(run, outcome)
        self._later(self._tell(run))

    async def settle(self) -> None:
        """Until all runs have ended and everybody has been told (runs that are held excepted)."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> Apify:
        """Listen; `url` says where."""
        app = web.Application(client_max_size=64 << 20)
        for path in ("/v2/acts", "/v2/actors"):
            app.router.add_get(path + "/{actor}", self._as("actor", self._actor))
            app.router.add_post(path + "/{actor}/runs", self._as("start", self._start))
            app.router.add_get(path + "/{actor}/runs", self._as("runs", self._runs))
        app.router.add_get("/v2/users/me", self._as("me", self._me))
        app.router.add_get("/v2/actor-runs", self._as("runs", self._runs))
        app.router.add_get("/v2/actor-runs/{run}", self._as("run", self._run))
        app.router.add_post("/v2/actor-runs/{run}/abort", self._as("abort", self._abort))
        app.router.add_get("/v2/datasets/{dataset}", self._as("dataset", self._dataset))
        app.router.add_get("/v2/datasets/{dataset}/items", self._as("items", self._items))
        app.router.add_get("/v2/key-value-stores/{store}/records/INPUT", self._as("input", self._input))
        app.router.add_get("/v2/schedules", self._as("schedules", self._schedules))
        app.router.add_post("/v2/schedules", self._as("schedule-create", self._schedule_create))
        app.router.add_get("/v2/schedules/{schedule}", self._as("schedule", self._schedule))
        app.router.add_put("/v2/schedules/{schedule}", self._as("schedule-update", self._schedule_update))
        app.router.add_delete("/v2/schedules/{schedule}", self._as("schedule-delete", self._schedule_delete))
        self._add_control(app)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        self.url = f"http://{host}:{self._runner.addresses[0][1]}"
        if self._clock:
            self._later(self._tick())
        return self

    async def close(self) -> None:
        """Stop listening, and cut what is open."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.sender.close()
        if self._runner is not None:
            await self._runner.cleanup()

    async def __aenter__(self) -> Apify:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- what every request passes ---

    def _as(self, kind: str, answer: Answer) -> Answer:
        async def handle(request: web.Request) -> web.StreamResponse:
            acts = self.scripts.get(kind)
            act = acts.popleft() if acts else self.always.get(kind, Act())
            self.asked.append(kind)
            request[ACT] = act
            truth = await self._truth(request, act, answer)
            await asyncio.sleep(act.delay_s)
            if act.cut == "now":
                return _cut(request)
            if act.status is not None:
                said = f"as scripted {self.token if act.repeats_token else ''}".strip()
                truth = _failure(act.status, act.kind, said, act.retry_after)
            if act.body is not None:
                truth = web.Response(text=act.body, status=truth.status, content_type="application/json")
            return await _half(request, truth) if act.cut == "body" else truth

        return handle

    async def _truth(self, request: web.Request, act: Act, answer: Answer) -> web.Response:
        wrong = act.status is not None or act.cut == "now"
        if wrong and not act.done:
            return web.Response(status=500)
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return _failure(401, "user-or-token-not-found", "User was not found or authentication token is not valid")
        try:
            given = await answer(request)
        except Refusal as refusal:
            return _failure(refusal.status, refusal.kind, refusal.message)
        assert isinstance(given, web.Response)
        return _packed(request, given)

    # --- actors and runs ---

    async def _me(self, request: web.Request) -> web.Response:
        return _data({"id": "user1", "username": "double", "isPaying": True})

    async def _actor(self, request: web.Request) -> web.Response:
        name, identity = self.platform.actor(request.match_info["actor"])
        user, _, plain = name.partition("/")
        made = "2026-01-01T00:00:00.000Z"
        told = {"id": identity, "userId": "user1", "name": plain, "username": user, "isPublic": True, "versions": []}
        stats = {"totalBuilds": 1, "totalRuns": len(self.platform.runs), "totalUsers": 1, "lastRunStartedAt": made}
        run = {"build": "latest", "timeoutSecs": 3600, "memoryMbytes": 1024}
        return _data({**told, "createdAt": made, "modifiedAt": made, "stats": stats, "defaultRunOptions": run})

    async def _start(self, request: web.Request) -> web.Response:
        body = await request.read()
        hooks = _webhooks(request.query.get("webhooks"))
        options = {"memoryMbytes": _number(request, "memory", 1024), "timeoutSecs": _number(request, "timeout", 3600)}
        try:
            run_input = json.loads(body) if body else {}
        except ValueError:
            raise Refusal(400, "invalid-input", "Input is not JSON") from None
        run = self.platform.start(request.match_info["actor"], run_input, options, hooks)
        told = run.told()
        if request[ACT].hook_first:
            self.platform.finish(run)
            await self._tell(run)
        elif not self.held:
            self._later(self._go_on(run))
        return _data(told, 201)

    async def _go_on(self, run: Run) -> None:
        await asyncio.sleep(
            run.outcome.after_s if run.outcome.after_s is not None else self.platform.usual.after_s or 0
        )
        self.platform.finish(run)
        await self._tell(run)

    async def _tell(self, run: Run) -> None:
        await self.sender.send(run, self.sendings.popleft() if self.sendings else self.sending)

    async def _runs(self, request: web.Request) -> web.Response:
        actor = request.match_info.get("actor")
        wanted = None if actor is None else self.platform.actor(actor)[0]
        after, before = _moment(request, "startedAfter"), _moment(request, "startedBefore")
        states = [state for state in request.query.get("status", "").split(",") if state]
        found = [
            run.told()
            for run in self.platform.runs.values()
            if (wanted is None or run.actor == wanted)
            and (after is None or run.started >= after)
            and (before is None or run.started <= before)
            and (not states or run.status in states)
        ]
        if request.query.get("desc") in ("1", "true"):
            found.reverse()
        return _listed(request, found)

    async def _run(self, request: web.Request) -> web.Response:
        run, left_s = self.platform.run(request.match_info["run"]), float(_number(request, "waitForFinish", 0))
        while run.finished is None and left_s > 0:
            await asyncio.sleep(WAIT_STEP_S)
            left_s -= WAIT_STEP_S
        return _data(run.told())

    async def _abort(self, request: web.Request) -> web.Response:
        run = self.platform.run(request.match_info["run"])
        if run.finished is None:
            self.platform.abort(run)
            self._later(self._tell(run))
        return _data(run.told())

    async def _input(self, request: web.Request) -> web.Response:
        run = self.platform.runs.get(request.match_info["store"].removeprefix("kv"))
        if run is None:
            raise Refusal(404, "record-not-found", "Store was not found")
        return web.json_response(run.input)

    # --- datasets ---

    async def _dataset(self, request: web.Request) -> web.Response:
        run = self.platform.dataset(request.match_info["dataset"])
        return _data({"id": run.dataset_id, "itemCount": len(run.items), "createdAt": iso(run.started)})

    async def _items(self, request: web.Request) -> web.Response:
        run = self.platform.dataset(request.match_info["dataset"])
        offset, limit = _number(request, "offset", 0), _number(request, "limit", UNLIMITED)
        found = run.items[offset : offset + limit]
        headers = {
            "X-Apify-Pagination-Total": str(len(run.items)),
            "X-Apify-Pagination-Offset": str(offset),
            "X-Apify-Pagination-Count": str(len(found)),
            "X-Apify-Pagination-Limit": str(limit),
            "X-Apify-Pagination-Desc": "false",
        }
        body = json.dumps(found, ensure_ascii=False).encode()
        return web.Response(body=body, content_type="application/json", headers=headers)

    # --- the provider's own schedules ---

    async def _schedules(self, request: web.Request) -> web.Response:
        short = [{**schedule, "actions": [_brief(a) for a in schedule["actions"]]} for schedule in self._by_name()]
        return _listed(request, short)

    def _by_name(self) -> list[dict[str, Any]]:
        return sorted(self.platform.schedules.values(), key=lambda schedule: str(schedule["name"]))

    async def _schedule(self, request: web.Request) -> web.Response:
        return _data(self.platform.schedule(request.match_info["schedule"]))

    async def _schedule_create(self, request: web.Request) -> web.Response:
        return _data(self.platform.put_schedule(None, await request.json()), 201)

    async def _schedule_update(self, request: web.Request) -> web.Response:
        fields = await request.json()
        schedule = self.platform.schedule(request.match_info["schedule"])
        return _data(self.platform.put_schedule(schedule["id"], {"name": schedule["name"], **fields}))

    async def _schedule_delete(self, request: web.Request) -> web.Response:
        schedule = self.platform.schedule(request.match_info["schedule"])
        del self.platform.schedules[schedule["id"]]
        return web.Response(status=204)

    def fire(self, schedule_id: str) -> list[Run]:
        """One of the provider's schedules is due."""
        started = self.platform.fire(schedule_id)
        for run in started:
            if not self.held:
                self._later(self._go_on(run))
        return started

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            moment = iso(dt.datetime.now(dt.UTC))
            for schedule in list(self.platform.schedules.values()):
                if schedule["isEnabled"] and schedule["nextRunAt"] and schedule["nextRunAt"] <= moment:
                    with contextlib.suppress(Refusal):
                        self.fire(schedule["id"])

    # --- by hand ---

    def _add_control(self, app: web.Application) -> None:
        app.router.add_get("/control", self._told)
        app.router.add_put("/control/script", self._scripted)
        app.router.add_put("/control/outcomes", self._decided)

    async def _told(self, request: web.Request) -> web.Response:
        counts = {kind: self.asked.count(kind) for kind in sorted(set(self.asked))}
        states = [run.status for run in self.runs]
        runs = {state: states.count(state) for state in sorted(set(states))}
        return web.json_response({"asked": counts, "runs": runs, "webhooks": len(self.sender.told)})

    async def _scripted(self, request: web.Request) -> web.Response:
        """{"start": [{"status": 500, "done": true}], ...}"""
        for kind, acts in (await request.json()).items():
            self.script(kind, *(Act(**act) for act in acts))
        return web.Response(status=204)

    async def _decided(self, request: web.Request) -> web.Response:
        """[{"status": "TIMED-OUT", "share": 0.5}, ...]"""
        self.platform.outcomes.extend(Outcome(**outcome) for outcome in await request.json())
        return web.Response(status=204)


def _data(value: Any, status: int = 200) -> web.Response:
    return web.json_response({"data": value}, status=status)


def _listed(request: web.Request, found: list[dict[str, Any]]) -> web.Response:
    offset, limit = _number(request, "offset", 0), min(_number(request, "limit", 1_000), 1_000)
    items = found[offset : offset + limit]
    desc = request.query.get("desc") in ("1", "true")
    return _data(
        {"total": len(found), "offset": offset, "limit": limit, "count": len(items), "desc": desc, "items": items}
    )


def _brief(action: Mapping[str, Any]) -> dict[str, Any]:
    return {name: action[name] for name in ("id", "type", "actorId")}


def _number(request: web.Request, name: str, otherwise: int) -> int:
    text = request.query.get(name, "")
    return int(text) if text.isdecimal() else otherwise


def _moment(request: web.Request, name: str) -> dt.datetime | None:
    text = request.query.get(name)
    return None if text is None else dt.datetime.fromisoformat(text.replace("Z", "+00:00"))


def _webhooks(text: str | None) -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = json.loads(base64.b64decode(text or "W10=", validate=True))
    except (ValueError, binascii.Error):
        raise Refusal(400, "invalid-webhooks", "Webhooks are not base64 of JSON") from None
    return found


def _failure(status: int, kind: str, message: str, retry_after: str | None = None) -> web.Response:
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    return web.json_response({"error": {"type": kind, "message": message}}, status=status, headers=headers)


def _packed(request: web.Request, answer: web.Response) -> web.Response:
    body = answer.body
    if isinstance(body, bytes) and len(body) >= GZIP_FROM and "gzip" in request.headers.get("Accept-Encoding", ""):
        answer.body = gzip.compress(body, 1)
        answer.headers["Content-Encoding"] = "gzip"
    return answer


def _cut(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response(status=500)


async def _half(request: web.Request, answer: web.Response) -> web.StreamResponse:
    """The head with the true length, half of the body, then nothing: the connection is gone."""
    body = answer.body
    assert isinstance(body, bytes)
    kept = {name: value for name, value in answer.headers.items() if name.startswith(("X-", "Content-Encoding"))}
    half = web.StreamResponse(status=answer.status, headers={**kept, "Content-Length": str(len(body))})
    half.content_type = "application/json"
    await half.prepare(request)
    await half.write(body[: len(body) // 2])
    assert request.transport is not None
    request.transport.close()
    return half
