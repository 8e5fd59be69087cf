"""The provider as the schedules use it: which actor, with what input, who is told; and finding a start that was lost.

provider = Provider(apify, terms)                    apify None: no token is set, nothing can be started
run = await provider.start(intent)                   raises what server/edge/apify.py says
await provider.found([lost, ...], known)             which of these starts the provider has taken after all
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from pydantic import SecretStr

from server.batching.schedules.hooks import HEADER, PATH
from server.batching.schedules.inputs import Asked, run_input
from server.batching.schedules.intents import Lost
from server.batching.schedules.outcomes import SKEW_S, Intent, Seen, match
from server.batching.schedules.plan import Platform, Type
from server.edge.apify import PAGE_MOST, Apify, AuthFailed, NotFound, Options, Retryable, Run, Webhook

LIST_PAGES: Final = 10
"""Pages of the provider's list that are read for one look; more runs than that since a lost start are not looked through."""
INPUTS_MOST: Final = 200
"""Runs whose inputs are read for one look."""

Known = Callable[[Sequence[str]], Awaitable[set[str]]]
"""Which of these runs are ours already."""

ACTORS: Final[dict[tuple[Platform, Type], str]] = {
    ("google", "reviews"): "compass/google-maps-reviews-scraper",
    ("google", "overview"): "compass/crawler-google-places",
    ("facebook", "reviews"): "apify/facebook-reviews-scraper",
    ("facebook", "overview"): "apify/facebook-pages-scraper",
    ("tripadvisor", "reviews"): "maxcopell/tripadvisor-reviews",
    ("tripadvisor", "overview"): "maxcopell/tripadvisor",
    ("booking", "reviews"): "voyager/booking-reviews-scraper",
    ("booking", "overview"): "voyager/booking-scraper",
}


@dataclass(frozen=True, slots=True)
class Terms:
    """How runs are started; see the settings SCHEDULES_* and APIFY_*."""

    actors: Mapping[tuple[Platform, Type], str] = field(default_factory=lambda: ACTORS)
    asked: Asked = field(default_factory=Asked)
    timeout_s: int = 3_600
    memory_mb: int | None = None
    public_url: str | None = None
    secret: SecretStr | None = None


class Provider:
    """See the module's docstring."""

    def __init__(self, apify: Apify | None, terms: Terms) -> None:
        self.terms = terms
        self._apify = apify

    @property
    def ready(self) -> bool:
        """Is there a token?"""
        return self._apify is not None

    @property
    def apify(self) -> Apify:
        """The client; AuthFailed without a token."""
        if self._apify is None:
            raise AuthFailed("no token is set for the provider: set APIFY_TOKEN")
        return self._apify

    @property
    def call_s(self) -> float:
        """How long a call may last."""
        return 0.0 if self._apify is None else self._apify.terms.timeout_ms / 1000

    @property
    def told(self) -> bool:
        """Does the provider tell us of a run's end?"""
        return self.terms.public_url is not None and self.terms.secret is not None

    def actor(self, platform: Platform, type: Type) -> str:
        """Its name; NotFound when none is set."""
        name = self.terms.actors.get((platform, type), "")
        if not name:
            setting = f"SCHEDULES_{platform}_{type}_ACTOR".upper()
            raise NotFound(f"no actor is set for {platform} {type}: set {setting}")
        return name

    def input(self, intent: Intent) -> dict[str, object]:
        """What its run is started with."""
        return run_input(intent.platform, intent.type, intent.identifiers, self.terms.asked)

    def options(self, intent: Intent | None = None) -> Options:
        """How a run is started; of one of ours the provider tells us when it ends."""
        return Options(self.terms.timeout_s, self.terms.memory_mb, None if intent is None else self._webhook(intent))

    def _webhook(self, intent: Intent) -> Webhook | None:
        url, secret = self.terms.public_url, self.terms.secret
        if url is None or secret is None:
            return None
        return Webhook(url.rstrip("/") + PATH, HEADER, secret, intent.key, intent.key)

    async def start(self, intent: Intent) -> Run:
        """Ask once for its run."""
        actor = self.actor(intent.platform, intent.type)
        return await self.apify.start(actor, self.input(intent), self.options(intent))

    async def found(self, lost: Sequence[Lost], known: Known) -> dict[int, Run]:
        """The runs of those starts that were taken after all, by intent; complete, or it raises."""
        by_actor: dict[str, list[Lost]] = {}
        for one in lost:
            by_actor.setdefault(self.actor(one.intent.platform, one.intent.type), []).append(one)
        found: dict[int, Run] = {}
        for actor, group in by_actor.items():
            found |= await self._found(actor, group, known)
        return found

    async def _found(self, actor: str, lost: Sequence[Lost], known: Known) -> dict[int, Run]:
        since = min(one.started_ms for one in lost) - round(SKEW_S * 1000)
        listed = await self.runs_since(since, actor)
        ours = await known([run.id for run in listed])
        strangers = {run.id: run for run in listed if run.id not in ours}
        if len(strangers) > INPUTS_MOST:
            raise Retryable(f"{len(strangers)} runs of {actor} are not ours: too many to look through")
        seen = [Seen(run.id, await self.apify.input_of(run)) for run in strangers.values()]
        matched = match([(one.intent.id, self.input(one.intent)) for one in lost], seen)
        return {intent: strangers[run_id] for intent, run_id in matched.items()}

    async def runs_since(self, since_ms: int, actor: str | None = None) -> list[Run]:
        """All runs since then; Retryable when they are more than can be looked through."""
        listed: list[Run] = []
        for page in range(LIST_PAGES):
            found = await self.apify.runs(since_ms, actor=actor, offset=page * PAGE_MOST)
            listed += [run for run in found if run.started_ms >= since_ms]
            if len(found) < PAGE_MOST:
                return listed
        raise Retryable(f"more than {LIST_PAGES * PAGE_MOST} runs since then: too many to look through")
