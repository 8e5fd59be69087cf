"""The provider as tracking uses it: a call is one run of an actor for some posts, from its start to the items it found.

    answer = await provider.call(call)      never raises for what the provider did: each post has its count, or why it has none

A call has so much time and no more, by our clock; one that takes longer is given up, and its run is ended in the background, as
it costs money while it goes on. What a run found before it failed is used. The token's refusal (401, 403) is nobody's but ours:
`auth` says so, and whoever called stops.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Final, TypeVar

from server.batching.tracking.actors import Call, Verdict, read, run_input
from server.batching.tracking.trying import ERROR_MOST, Failure
from server.edge.apify import (
    Apify,
    AuthFailed,
    Kind,
    NotFound,
    Options,
    Page,
    Rejected,
    Retryable,
    Run,
    Trouble,
    Unknown,
    items_of,
)
from server.edge.clock import Clock
from server.edge.tasks import Tasks
from server.errors import Code, Refused

T = TypeVar("T")

NAME: Final = "apify"
POLL_S: Final = 0.25
"""Between two looks at a run, beside the time for which the provider holds its answer back."""
HELD_SHARE: Final = 0.6
"""Of the time after which a request has failed, so long the provider may hold an answer back."""
ITEMS_MOST: Final = 5
"""Items read for each post: actors that answer with more than the post are not read to their end."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call came to, for each clip, and how long it took."""

    call: Call
    verdicts: dict[int, Verdict]
    seconds: float

    @property
    def auth(self) -> bool:
        """Was our token refused?"""
        return any(isinstance(one, Failure) and one.reason == "auth" for one in self.verdicts.values())

    @property
    def counts(self) -> dict[int, int]:
        """Those that have one."""
        return {clip: one for clip, one in self.verdicts.items() if isinstance(one, int)}


@dataclass(slots=True)
class _Asked:
    """How far a call is."""

    run: Run | None = None
    found: dict[int, Verdict] = field(default_factory=dict)


class Provider:
    """See the module's docstring."""

    def __init__(self, apify: Apify | None, clock: Clock, tasks: Tasks, call_s: float) -> None:
        self.call_s = call_s
        self._apify = apify
        self._clock = clock
        self._tasks = tasks
        self._under_way: set[asyncio.Event] = set()
        self._cut = False

    @property
    def ready(self) -> bool:
        """Is there a token?"""
        return self._apify is not None

    def check(self) -> None:
        """Refused when nothing can be asked."""
        if not self.ready:
            raise Refused(Code.CONFLICT, "no token is set for the provider, so no view is counted: set APIFY_TOKEN")

    async def call(self, call: Call) -> Answer:
        """Ask for its posts, once."""
        began = self._clock.monotonic()
        asked = _Asked()
        failure = await self._within(f"tracking call {call.actor.actor}", self._ask(call, asked))
        if failure in (LATE, CUT):
            self._give_up(asked)
        otherwise = MISSING if failure is None else failure
        verdicts: dict[int, Verdict] = {post.clip_id: asked.found.get(post.clip_id, otherwise) for post in call.posts}
        return Answer(call, verdicts, self._clock.monotonic() - began)

    def cut(self) -> None:
        """Give up what is under way, and whatever is asked from now on: the process ends."""
        self._cut = True
        for over in self._under_way:
            over.set()

    async def close(self) -> None:
        """When nothing is under way any more."""
        if self._apify is not None:
            await self._apify.close()

    async def _within(self, name: str, work: Coroutine[object, object, Failure | None]) -> Failure | None:
        """What it comes to, LATE or CUT; it never outlives this."""
        over = asyncio.Event()
        task = self._tasks.start(name, work)
        task.add_done_callback(lambda _: over.set())
        self._under_way.add(over)
        try:
            if not self._cut:
                await self._clock.wait(over, self.call_s)
        finally:
            self._under_way.discard(over)
            ended = task.done()
            task.cancel()
        if ended:
            return await task
        await asyncio.wait({task})
        return CUT if self._cut else LATE

    def _give_up(self, asked: _Asked) -> None:
        if asked.run is not None and not asked.run.ended:
            self._tasks.start(f"tracking abort {asked.run.id}", self._abort(asked.run.id))

    async def _abort(self, run_id: str) -> None:
        assert self._apify is not None
        try:
            await self._apify.abort(run_id)
        except Trouble:
            return  # The provider ends it by itself: it was started with our limit.

    async def _ask(self, call: Call, asked: _Asked) -> Failure | None:
        """Why posts without a count have none; what was found is in `asked`. Raises nothing that the world does."""
        if self._apify is None:
            return Failure("auth", "no token is set for the provider: set APIFY_TOKEN")
        try:
            return await self._asked(self._apify, call, asked)
        except Trouble as trouble:
            return of_trouble(trouble, started=asked.run is not None)

    async def _asked(self, apify: Apify, call: Call, asked: _Asked) -> Failure | None:
        options = Options(timeout_s=max(1, round(self.call_s)))
        run = asked.run = await apify.start(call.actor.actor, run_input(call.actor, call.posts), options)
        held_s = int(HELD_SHARE * apify.terms.timeout_ms / 1000)
        while not run.ended:
            run = asked.run = await apify.wait(run.id, held_s)
            if not run.ended:
                await self._clock.sleep(POLL_S)
        page = await apify.page(run.dataset_id, 0, ITEMS_MOST * len(call.posts))
        return self._read(call, run, page, asked)

    def _read(self, call: Call, run: Run, page: Page, asked: _Asked) -> Failure | None:
        found = read(call.actor, call.posts, items_of(page.body))
        if run.status == "SUCCEEDED":
            asked.found = found
            return None
        # It did not come to its end: what it has is good, what it has not is nobody's fault yet.
        asked.found = {clip: one for clip, one in found.items() if not _unfinished(one)}
        said = f"the actor's run ended as {run.status}" + (f": {run.message}" if run.message else "")
        return Failure("timeout" if run.status == "TIMED-OUT" else "provider", said[:ERROR_MOST], retryable=True)


LATE: Final = Failure("timeout", "the call took longer than it may", retryable=True)
CUT: Final = Failure("stopped", "the server stopped while it asked", retryable=True)
MISSING: Final = Failure("missing", "the provider's answer does not have the post")


def _unfinished(verdict: Verdict) -> bool:
    return isinstance(verdict, Failure) and verdict.reason == "missing"


def of_trouble(trouble: Trouble, *, started: bool) -> Failure:
    """What the provider's refusal means for the posts that it was asked for."""
    match trouble:
        case AuthFailed():
            return Failure("auth", trouble.message)
        case NotFound() if not started:
            return Failure("no_actor", trouble.message)
        case NotFound():
            return Failure("provider", trouble.message, retryable=True)
        case Rejected():
            return Failure("rejected", trouble.message)
        case Retryable() | Unknown():
            reasons: dict[Kind, Failure] = {
                "timeout": Failure("timeout", trouble.message, True, trouble.after_s),
                "connection": Failure("connection", trouble.message, True, trouble.after_s),
                "limited": Failure("limited", trouble.message, True, trouble.after_s),
                "answer": Failure("provider", trouble.message, True, trouble.after_s),
            }
            return reasons[trouble.kind]
    return Failure("provider", trouble.message, retryable=True)


def together(answer: Answer) -> bool:
    """Does it say something of others of its posts, so that one of which it says nothing may be asked for by itself?"""
    return len(answer.verdicts) > 1 and not all(_unfinished(one) for one in answer.verdicts.values())
