"""Runs are started and watched: the turns of `schedules-dispatch` and `schedules-poll`. See runs.py for the whole.

A start is asked for once. Its row says `starting` before, and afterwards what became of it; what nobody knows is looked for in the
provider's list, until it is there or must have been there.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import structlog

from server.batching.loop import Occasion, Turn
from server.batching.schedules import dispatch, intents, outcomes, retries
from server.batching.schedules.floor import DISPATCH, PROCESS, Floor, Tally
from server.batching.schedules.mirror import Mirror
from server.batching.schedules.outcomes import Intent
from server.edge import apify

DUE_A_TURN: Final = 200
STARTS_A_TURN: Final = 10
"""Calls that one turn makes one after the other; then the next turn goes on."""
NOTE_WITHIN_S: Final = 1.0
"""Answers are noted together, but none of them waits for a slow call for much longer than this."""
POLLS_A_TURN: Final = 20
LOST_A_TURN: Final = 50

log = structlog.get_logger()


class Starting:
    """The two turns."""

    def __init__(self, floor: Floor, mirror: Mirror) -> None:
        self._floor = floor
        self._mirror = mirror

    # Dispatch.

    async def dispatch(self, occasion: Occasion) -> Turn:
        """Intents for what is due, then starts, until the account is full or the slice is over."""
        tally = Tally()
        now = dt.datetime.fromtimestamp(occasion.now_ms / 1000, dt.UTC)
        due = await dispatch.due(self._floor.db, now, DUE_A_TURN, self._floor.lead.fenced, self._floor.terms.own_clock)
        tally.add("due", len(due.intents))
        tally.more = due.more
        if self._floor.provider.ready:
            await self._start_some(tally)
        return tally.turn()

    async def _start_some(self, tally: Tally) -> None:
        """Claim a slice of the intents at once, then ask for their runs one after the other."""
        began = self._floor.clock.monotonic()
        async with self._floor.acting() as connection:
            claimed = await intents.claim(connection, self._floor.terms.runs_most, STARTS_A_TURN)
            skipped = [intent.id for intent, state in claimed if state == "skipped"]
            if skipped:
                await retries.skipped(connection, skipped)
        if skipped:
            tally.done += len(skipped)
            tally.add("skipped", len(skipped))
        went_on = await self._start_all([intent for intent, state in claimed if state != "skipped"], began, tally)
        tally.more = tally.more or (went_on and (bool(skipped) or len(claimed) == STARTS_A_TURN))

    async def _start_all(self, claimed: Sequence[Intent], claimed_at: float, tally: Tally) -> bool:
        """Whether it makes sense to go on with others; those that were not asked for are as they were."""
        started: list[tuple[int, apify.Run]] = []
        noted_at = claimed_at
        for number, intent in enumerate(claimed):
            now = self._floor.clock.monotonic()
            if started and now - noted_at > NOTE_WITHIN_S:
                await self._started(started, tally)
                started, noted_at = [], now
            if now - claimed_at > outcomes.HESITATION_S or not await self._start(intent, started, tally):
                await self._started(started, tally)
                return await self._leave(claimed[number:], tally)
        await self._started(started, tally)
        return True

    async def _start(self, intent: Intent, started: list[tuple[int, apify.Run]], tally: Tally) -> bool:
        """Ask for its run, once; whether it makes sense to go on with the next."""
        try:
            run = await self._floor.provider.start(intent)
        except apify.Trouble as trouble:
            return await self._not_started(intent, trouble, tally)
        started.append((intent.id, run))
        log.info("run started", run=run.id, intent=intent.key, asked=len(intent.identifiers))
        return True

    async def _started(self, started: Sequence[tuple[int, apify.Run]], tally: Tally) -> None:
        if started:
            await self._floor.adopt_all(started)
            tally.done += len(started)
            tally.add("started", len(started))

    async def _leave(self, rest: Sequence[Intent], tally: Tally) -> bool:
        """These are for a later turn; the first of them may have been asked for, and then its row says so."""
        async with self._floor.acting() as connection:
            tally.deferred += await intents.release(connection, rest)
        return False

    async def _not_started(self, intent: Intent, trouble: apify.Trouble, tally: Tally) -> bool:
        async with self._floor.acting() as connection:
            match trouble:
                case apify.Unknown():
                    await intents.unsure(connection, intent.id, trouble.message)
                    tally.failed += 1
                case apify.Rejected():
                    await intents.refused(connection, intent.id, trouble.message)
                    tally.failed += 1
                case _:
                    await intents.again(connection, intent.id, trouble.message)
                    tally.deferred += 1
        log.warning("run not started", intent=intent.key, trouble=type(trouble).__name__, error=trouble.message)
        tally.detail["error"] = trouble.message
        if isinstance(trouble, apify.Rejected):
            self._floor.wake(PROCESS)
        return isinstance(trouble, apify.Rejected | apify.NotFound)

    # Poll.

    async def poll(self, occasion: Occasion) -> Turn:
        """Look for starts of which nobody knows, then at the runs that nobody has told us of lately."""
        tally = Tally()
        call_s = self._floor.provider.call_s
        async with self._floor.noting() as connection:
            tally.add("stale", await intents.stale(connection, outcomes.stale_s(call_s)))
            lost = await intents.lost(connection, LOST_A_TURN, outcomes.grace_s(call_s))
            watched = await intents.to_poll(connection, POLLS_A_TURN, self._floor.terms.poll_ms / 2000)
        if not self._floor.provider.ready:
            return tally.turn()
        try:
            if lost:
                await self._look_for(lost, tally)
            for one in watched:
                await self._look_at(one, tally)
            tally.add("found", await self._mirror.discover())
        except apify.Trouble as trouble:
            tally.deferred += 1
            tally.detail["error"] = trouble.message
            log.warning("poll interrupted", trouble=type(trouble).__name__, error=trouble.message)
        else:
            tally.more = len(watched) == POLLS_A_TURN
        return tally.turn()

    async def _look_for(self, lost: list[intents.Lost], tally: Tally) -> None:
        found = await self._floor.provider.found(lost, self._known)
        for one in lost:
            run = found.get(one.intent.id)
            if run is not None:
                adopted = await self._floor.adopt(one.intent.id, run)
                log.info("run adopted", run=run.id, intent=one.intent.key, adopted=adopted)
                tally.done += 1
                tally.add("adopted")
            elif one.given_up:
                async with self._floor.acting() as connection:
                    await intents.again(connection, one.intent.id, "the provider has no such run", "unknown")
                log.info("run was not taken", intent=one.intent.key)
                tally.done += 1
                tally.add("again")
                self._floor.wake(DISPATCH)

    async def _known(self, run_ids: Sequence[str]) -> set[str]:
        async with self._floor.acting() as connection:
            return await intents.taken(connection, run_ids)

    async def _look_at(self, one: intents.Watched, tally: Tally) -> None:
        try:
            run = await self._floor.provider.apify.run(one.run_id)
        except apify.NotFound:
            run = apify.Run(one.run_id, "", "FAILED", 0, None, "", "", message="the provider has this run no longer")
            run = replace(run, started_ms=self._floor.clock.now_ms())
        async with self._floor.noting() as connection:
            if run.ended:
                await self._floor.ended(connection, [run])
            else:
                await intents.looked(connection, one.intent.id)
        tally.done += 1
        tally.add("ended" if run.ended else "running")
