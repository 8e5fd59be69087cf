"""Working off the run that is open: a batch of calls a turn, by every node that has a token.

    turn      join -> settle what an earlier turn could not -> claim -> what the cache knows -> reserve, send, ask -> settle -> leave
    beat      renew the leases on the run and on the clips that are held here

A turn lasts no longer than a call may, and what it takes to write down what came of it; the pause to the next batch is a wake of
the loop, and so is the wait of a retry, which has no place in the batches in between. No batch begins that could not end within
the run's time. What an answer says is kept (cache.py) before anything else is done with it; what could not be settled, because
PostgreSQL was away, is settled by the next turn, and not asked for again.

Who finds nothing more to do leaves; the last one that leaves ends the run. A run is stopped for all by a word in its row
(`halt`): the quota is spent, the token refused, the time over, or somebody said so. What was claimed and never asked for is given
back: it is due as before. What waited for a retry has failed, until its next look.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import ceil
from typing import Final

import structlog

from server.batching.loop import Occasion, Turn
from server.batching.tracking import cache, quota, runs, selection, usage
from server.batching.tracking.actors import Call, Orders, in_order, shared_out
from server.batching.tracking.cadence import Level, crowding, pressure
from server.batching.tracking.posts import Platform
from server.batching.tracking.provider import Answer, Provider, together
from server.batching.tracking.quota import Terms as Quota
from server.batching.tracking.runs import Did, RunView, Standing, Stopping
from server.batching.tracking.selection import Claimed
from server.batching.tracking.settlement import Recorded
from server.batching.tracking.settling import Books, Lost, Seen, settle
from server.batching.tracking.store import serving
from server.batching.tracking.trying import Failure, Try, Wanted, again, fits
from server.batching.tracking.trying import Terms as Trying
from server.edge.bus import Bus
from server.edge.clock import Clock
from server.edge.postgres import Database
from server.edge.tasks import abreast
from server.errors import Unavailable
from server.settings.tracking import Actor

BUSY_AGAIN_S: Final = 0.5
"""Other nodes have as many calls of a platform under way as there may be: look again after this."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Terms:
    """How a run is worked off; see the settings TRACKING_*."""

    actors: dict[Platform, tuple[Actor, ...]]
    quota: Quota = field(default_factory=Quota)
    trying: Trying = field(default_factory=Trying)
    batch: int = 10
    pause_s: float = 2.0
    budget_s: float = 300.0
    lease_s: float = 30.0
    cache_s: float = 3_600.0
    least_percent: float = 80.0
    not_found_most: int = 3
    popularity: bool = False
    per_day: float = 4_800.0
    """Clips that the runs of a day take at most."""

    @property
    def posts_most(self) -> int:
        """Posts that one call takes at most, whatever the actor."""
        return max((actor.urls for listed in self.actors.values() for actor in listed), default=1)


@dataclass(slots=True)
class Answered:
    """A call that has ended: `at` is before it was sent, by the database's clock; `kept` when its counts are in the cache."""

    answer: Answer
    reservation: int
    at: dt.datetime
    kept: bool = False


@dataclass(slots=True)
class Part:
    """This node's part in a run. `held`: clips that are ours; `waiting`: still to be asked for; `answered`: still to be settled."""

    run: Standing
    ends_s: float
    level: Level
    held: dict[int, Claimed] = field(default_factory=dict)
    waiting: list[Try] = field(default_factory=list)
    answered: list[Answered] = field(default_factory=list)
    not_before_s: float = 0.0
    per_call: float = 0.0
    """Posts that a call had in the last batch; 0: there was none."""


@dataclass(slots=True)
class Batch:
    """What one turn comes to."""

    seen: list[Seen] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)
    later: list[Try] = field(default_factory=list)
    calls: int = 0
    over_s: float = 0.0
    """When the last of its calls had ended: the pause begins there, and what is written down falls into it."""
    halt: Stopping | None = None
    why: str | None = None

    @property
    def turn(self) -> Turn:
        """As the loop tells of it."""
        done, failed, deferred = len(self.seen), len(self.lost), len(self.later)
        return Turn(done + failed + deferred, done, failed, deferred, detail={"calls": self.calls})


class Worker:
    """See the module's docstring. `name` is this process's own."""

    def __init__(self, db: Database, bus: Bus, clock: Clock, provider: Provider, terms: Terms, name: str) -> None:
        self.part: Part | None = None
        self.terms = terms
        self.woken: Callable[[int], None] = _nothing
        self.noted: Callable[..., None] = _nobody
        self.ended: Callable[[RunView], None] = _nobody
        """A run has ended, told on the node that ended it."""
        self.totals = {"calls": 0, "counted": 0, "failed": 0}
        """Since this process started."""
        self._db = db
        self._bus = bus
        self._clock = clock
        self._provider = provider
        self._name = name

    # Turns.

    async def turn(self, occasion: Occasion) -> Turn:
        """One batch, if there is a run and it is time."""
        async with serving(self._db) as connection:
            state = await runs.standing(connection)
        if self.part is not None and (state is None or state.id != self.part.run.id):
            await self._leave(self.part)
        if state is None:
            return Turn()
        if state.over and self.part is None:
            return await self._end_lost()
        part = self.part or (await self._join(state) if self._provider.ready else None)
        return Turn() if part is None else await self._work(part, state)

    async def beat(self, occasion: Occasion) -> Turn:
        """Say that this node is alive, and holds what it holds. Clips first, on their own: whoever settles locks them before the run."""
        part = self.part
        if part is None:
            return Turn()
        holds = [clip.hold for clip in part.held.values()]
        async with serving(self._db) as connection:
            ours = await selection.renew(connection, holds, self.terms.lease_s)
        async with serving(self._db) as connection:
            await runs.beat(connection, part.run.id, self._name, self.terms.lease_s)
        for clip, lease in holds:
            if clip not in ours and clip in part.held and part.held[clip].lease == lease:
                del part.held[clip]
        return Turn(len(holds), len(ours), deferred=len(holds) - len(ours))

    async def close(self) -> None:
        """After the loops have stopped: give back what is held here; without PostgreSQL it is free when the leases end."""
        if self.part is None:
            return
        try:
            await self._leave(self.part)
        except Unavailable as error:
            log.info("tracking run left to run out", run=self.part.run.id, reason=error.message)

    # A part in a run.

    async def _join(self, state: Standing) -> Part | None:
        async with serving(self._db) as connection:
            if not await runs.beat(connection, state.id, self._name, self.terms.lease_s):
                return None
            used = await quota.usage(connection, self.terms.quota)
            live = await selection.live(connection)
        ends_s = self._clock.monotonic() + self.terms.budget_s - state.elapsed_s
        tight = crowding(live.paces, live.pressing, self.terms.per_day)
        self.part = Part(state, ends_s, max(tight, pressure(used.calls, used.quota, used.at)))
        return self.part

    async def _work(self, part: Part, state: Standing) -> Turn:
        if part.answered:
            await self._settle(part, batch := Batch())
            if batch.halt is not None:
                await self._halt(part, batch.halt, batch.why)
                return batch.turn
        now = self._clock.monotonic()
        if state.stopping is not None:
            await self._leave(part)
            return Turn()
        if part.not_before_s > now:
            self._wake_at(part.not_before_s)
            return Turn()
        if not fits(now, part.ends_s, self.terms.trying.call_s):
            return await self._out_of_time(part)
        batch = await self._batch(part)
        await self._go_on(part, batch)
        return batch.turn

    async def _batch(self, part: Part) -> Batch:
        """Clips that were not asked for yet come first; what is tried again has the room that they leave."""
        batch, orders = Batch(), await self._orders()
        await self._claim(part, batch, ceil(self.terms.batch * (part.per_call or self.terms.posts_most)))
        calls = self._calls(part, orders)
        await self._spare(part, calls)
        await self._ask(part, batch, calls[: self.terms.batch])
        await self._settle(part, batch)
        return batch

    async def _go_on(self, part: Part, batch: Batch) -> None:
        """When the next batch begins, or the end of this part."""
        if batch.halt is not None:
            await self._halt(part, batch.halt, batch.why)
            return
        more = await self._more(part)
        if not (more or part.waiting):
            await self._leave(part)
            return
        pause_s = self.terms.pause_s if batch.calls else BUSY_AGAIN_S if part.waiting else 0.0
        soonest = 0.0 if more else min(one.due_s for one in part.waiting)
        part.not_before_s = max((batch.over_s or self._clock.monotonic()) + pause_s, soonest)
        self._wake_at(part.not_before_s)

    async def _out_of_time(self, part: Part) -> Turn:
        if part.waiting or await self._more(part):
            await self._halt(part, "time_limit", None)
        else:
            await self._leave(part)
        return Turn()

    async def _more(self, part: Part) -> bool:
        """Is there anything else to claim for this run?"""
        async with serving(self._db) as connection:
            state = await runs.standing(connection)
            if state is None or state.id != part.run.id or state.stopping is not None or state.left_clips <= 0:
                return False
            return await selection.more(connection)

    async def _halt(self, part: Part, why: Stopping, error: str | None) -> None:
        async with serving(self._db) as connection:
            await runs.halt(connection, part.run.id, why, error)
        await self._leave(part)

    async def _leave(self, part: Part) -> None:
        """Nothing more is done for this run here: what failed has failed, what was not asked for goes back."""
        failed = [one for one in part.waiting if one.failure is not None and one.post.clip_id in part.held]
        batch = Batch(
            lost=[Lost(part.held[one.post.clip_id], one.failure) for one in failed if one.failure is not None]
        )
        part.waiting = []
        await self._settle(part, batch)
        back = [clip.hold for clip in part.held.values()]
        async with serving(self._db) as connection:
            await selection.let_go(connection, back)
        part.held.clear()
        async with serving(self._db) as connection:
            await runs.give_back(connection, part.run.id, len(back))
            ended = await runs.leave(connection, part.run.id, self._name)
        self.part = None
        self._tell_ended(ended)

    async def _end_lost(self) -> Turn:
        async with serving(self._db) as connection:
            ended = await runs.end_lost(connection)
        self._tell_ended(ended)
        return Turn()

    def _tell_ended(self, view: RunView | None) -> None:
        if view is None:
            return
        counts = {name: getattr(view, name) for name in ("processed", "successful", "failed", "calls", "earned_cents")}
        log.info(
            "tracking run ended", run=view.id, stop_reason=view.stop_reason, seconds=round(view.seconds, 1), **counts
        )
        self.noted("runs")
        self.ended(view)

    # A batch.

    async def _orders(self) -> Orders:
        """The actors of each platform, as they are asked."""
        async with serving(self._db) as connection:
            standings = await usage.standings_of(connection)
        orders: dict[Platform, list[Actor]] = {}
        for platform, actors in self.terms.actors.items():
            own = {name: one for (of, name), one in standings.items() if of == platform}
            orders[platform] = in_order(actors, own, self.terms.least_percent)
        return orders

    def _calls(self, part: Part, orders: Orders) -> list[Call]:
        """What is due to be asked for, and is ours."""
        now = self._clock.monotonic()
        part.waiting = [one for one in part.waiting if one.post.clip_id in part.held]
        due = [one for one in part.waiting if one.due_s <= now]
        return shared_out(sorted(due, key=lambda one: one.attempt > 1), orders)

    async def _claim(self, part: Part, batch: Batch, wanted: int) -> None:
        """Clips more: those that the cache knows or that nobody can count are through, the others wait to be asked for."""
        async with serving(self._db) as connection:
            granted = await runs.take(connection, part.run.id, min(wanted, selection.CLAIM_MOST))
        claimed = await selection.claim(self._db, part.run.id, granted, self.terms.lease_s) if granted else []
        part.held |= {clip.clip_id: clip for clip in claimed}
        async with serving(self._db) as connection:
            await runs.give_back(connection, part.run.id, granted - len(claimed))
            known = await cache.look(connection, [clip.clip_id for clip in claimed], self.terms.cache_s)
        for clip in claimed:
            cached = known.get(clip.clip_id)
            if cached is not None:
                batch.seen.append(Seen(clip, cached.views, cached.at))
            elif not self.terms.actors.get(clip.platform):
                batch.lost.append(Lost(clip, _unsupported(clip.platform)))
            else:
                part.waiting.append(Try(Wanted(clip.clip_id, clip.platform, clip.post_id, clip.url)))

    async def _spare(self, part: Part, calls: Sequence[Call]) -> None:
        """What was claimed and finds no place in this batch goes back: another node may have time for it."""
        part.per_call = sum(len(call.tries) for call in calls) / len(calls) if calls else 0.0
        spare = [one.post.clip_id for call in calls[self.terms.batch :] for one in call.tries if one.failure is None]
        back = [part.held[clip].hold for clip in spare]
        if not back:
            return
        async with serving(self._db) as connection:
            await selection.let_go(connection, back)
        async with serving(self._db) as connection:
            await runs.give_back(connection, part.run.id, len(back))
        for clip in spare:
            part.held.pop(clip, None)
        part.waiting = [one for one in part.waiting if one.post.clip_id in part.held]

    async def _ask(self, part: Part, batch: Batch, calls: Sequence[Call]) -> None:
        """Send as many of these calls as the quota and the platforms allow, and wait for what they say."""
        if not calls:
            return
        async with serving(self._db) as connection:
            places = await quota.reserve(connection, [one.platform for one in calls], self.terms.quota, part.run.id)
        if places.spent:
            batch.halt, batch.why = "quota", f"all {self.terms.quota.quota} calls of this month are spent or reserved"
        async with serving(self._db) as connection:
            sent = await quota.send(connection, places.granted, self.terms.quota)
            await quota.over(connection, [one for one in places.granted if one not in sent.ids])
            await runs.count(connection, part.run.id, Did(calls=len(sent.ids)))
        batch.calls = len(sent.ids)
        self.totals["calls"] += batch.calls
        going = [(call, place) for call, place in zip(calls, places.ids, strict=True) if place in sent.ids]
        works = [partial(self._one, part, call, place, sent.at) for call, place in going if place is not None]
        await abreast(works, max(1, len(works)))
        batch.over_s = self._clock.monotonic()

    async def _one(self, part: Part, call: Call, place: int, at: dt.datetime) -> None:
        """One call. From its answer on it is not asked for again, whatever happens."""
        answer = await self._provider.call(call)
        one = Answered(answer, place, at)
        asked = {post.clip_id for post in call.posts}
        part.answered.append(one)
        part.waiting = [other for other in part.waiting if other.post.clip_id not in asked]
        try:
            await self._keep(part, one)
        except Unavailable as error:  # The batch is settled later, and this with it.
            log.warning("tracking answer not kept", run=part.run.id, reason=error.message)

    async def _keep(self, part: Part, one: Answered) -> None:
        answer = one.answer
        async with serving(self._db) as connection:
            await cache.keep(connection, answer.counts, answer.call.actor.actor, one.at)
            await usage.note(connection, answer)
            await quota.over(connection, [one.reservation])
            await runs.count(connection, part.run.id, Did(seconds=answer.seconds))
        one.kept = True

    async def _settle(self, part: Part, batch: Batch) -> None:
        """Write down what was answered, and what is in the batch already."""
        answered = list(part.answered)
        for one in answered:
            if not one.kept:
                await self._keep(part, one)
            self._sort(part, batch, one)
        books = Books(
            self._db,
            self._bus if self.terms.popularity else None,
            part.run.id,
            part.run.started_at,
            part.level,
            self.terms.not_found_most,
        )
        recorded = await settle(books, batch.seen, batch.lost)
        part.answered = [one for one in part.answered if one not in answered]
        part.waiting += batch.later
        for clip in (*(one.clip for one in batch.seen), *(one.clip for one in batch.lost)):
            part.held.pop(clip.clip_id, None)
        self._tell(batch, recorded)

    def _sort(self, part: Part, batch: Batch, one: Answered) -> None:
        """What a call says of each of its posts: a count, a retry, or a failure. One that is not ours any more is whoever's it is."""
        answer = one.answer
        for attempt in answer.call.tries:
            clip, verdict = part.held.get(attempt.post.clip_id), answer.verdicts[attempt.post.clip_id]
            if clip is None:
                continue
            if isinstance(verdict, int):
                batch.seen.append(Seen(clip, verdict, one.at))
            elif (later := self._again(part, attempt, verdict, answer)) is not None:
                batch.later.append(later)
            else:
                batch.lost.append(Lost(clip, verdict))
            if isinstance(verdict, Failure) and verdict.reason == "auth":
                batch.halt, batch.why = "provider_auth", verdict.error

    def _again(self, part: Part, attempt: Try, failure: Failure, answer: Answer) -> Try | None:
        actor = answer.call.actor.actor
        listed = {one.actor for one in self.terms.actors.get(attempt.post.platform, ())}
        later = again(
            attempt,
            failure,
            actor,
            others=len(listed - {actor, *attempt.tried}),
            together=together(answer),
            now_s=self._clock.monotonic(),
            jitter=self._clock.random(),
            terms=self.terms.trying,
        )
        in_time = later is not None and fits(later.due_s, part.ends_s, self.terms.trying.call_s)
        return later if in_time else None

    def _tell(self, batch: Batch, recorded: Recorded) -> None:
        self.totals["counted"] += len(batch.seen)
        self.totals["failed"] += len(batch.lost)
        areas = ["runs"] if batch.seen or batch.lost or batch.calls else []
        areas += ["submissions"] if batch.seen else []
        areas += ["campaigns"] if recorded.grants else []
        areas += ["held"] if any(one.state == "held" for one in recorded.stored) else []
        areas += ["failed"] if batch.lost else []
        if areas:
            self.noted(*areas)

    def _wake_at(self, moment_s: float) -> None:
        self.woken(max(0, ceil((moment_s - self._clock.monotonic()) * 1000)))


def _unsupported(platform: Platform) -> Failure:
    setting = f"TRACKING_{platform}_ACTORS".upper()
    return Failure("unsupported", f"no actor is set for {platform}: set {setting}")


def _nothing(after_ms: int) -> None:
    """Nobody to wake yet."""


def _nobody(*said: object) -> None:
    """Nobody to tell yet."""
