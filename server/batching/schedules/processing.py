"""Ended runs become reviews, overviews and retries: the turn of `schedules-process`. See runs.py for the whole.

First the webhooks: each says that a run may have ended, and the provider is asked whether it has. Then pages of datasets, each run
in its turn; a page is fetched and read without a transaction, off the event loop where it is work, and stored in one.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from server.batching.loop import Occasion, Turn
from server.batching.schedules import attribution, hooks, intents
from server.batching.schedules.floor import Floor, Tally
from server.batching.schedules.harvest import Harvest, read
from server.batching.schedules.outcomes import Intent, Seen, match
from server.batching.schedules.store import SERVICE, act_as, settled
from server.edge import apify
from server.edge.postgres import Connection

DELIVERIES_A_TURN: Final = 20
PAGES_A_TURN: Final = 10
TROUBLES_MOST: Final = 3
"""After so many webhooks whose runs can't be asked about, the turn ends."""

log = structlog.get_logger()


class Processing:
    """The turn."""

    def __init__(self, floor: Floor) -> None:
        self._floor = floor

    async def turn(self, occasion: Occasion) -> Turn:
        """Webhooks first, then pages of the runs that have ended, each run in its turn."""
        tally = Tally()
        if not self._floor.provider.ready:
            return tally.turn()
        try:
            await self._take_deliveries(tally)
            tally.more = await self._attribute_some(tally)
        except apify.Retryable as trouble:
            tally.deferred += 1
            tally.detail["error"] = trouble.message
        except apify.AuthFailed as trouble:
            tally.failed += 1
            tally.detail["error"] = trouble.message
        return tally.turn()

    async def _take_deliveries(self, tally: Tally) -> None:
        async with self._floor.acting() as connection:
            waiting = await hooks.waiting(connection, DELIVERIES_A_TURN)
        troubles = 0
        for delivery in waiting:
            try:
                error = await self._take(delivery)
            except apify.Retryable as trouble:
                # One run that can't be asked about holds up no other; several are the provider's own trouble.
                troubles += 1
                await self._put_away(delivery, trouble.message, False, tally)
                if troubles == TROUBLES_MOST:
                    raise
            else:
                await self._put_away(delivery, error, error is None or delivery.foreign_by_now, tally)

    async def _put_away(self, delivery: hooks.Waiting, error: str | None, done: bool, tally: Tally) -> None:
        async with self._floor.acting() as connection:
            if done:
                await hooks.done(connection, delivery.id, error)
                tally.done += 1
            else:
                await hooks.later(connection, delivery.id, error or "")
                tally.deferred += 1
        tally.add("webhooks")

    async def _take(self, delivery: hooks.Waiting) -> str | None:
        """What the provider itself says of the run; why nothing can be done with it as yet."""
        try:
            run = await self._floor.provider.apify.run(delivery.run_id)
        except apify.NotFound as trouble:
            return trouble.message
        if not run.ended:
            return f"the provider says that the run is {run.status}"
        async with self._floor.acting() as connection:
            known = await intents.of_run(connection, run.id)
        if known is None and not await self._claim_stranger(delivery, run):
            return "the run is none of ours"
        async with self._floor.acting() as connection:
            await self._floor.ended(connection, run)
        return None

    async def _claim_stranger(self, delivery: hooks.Waiting, run: apify.Run) -> bool:
        """A webhook that was faster than the answer to the start: the note says whose run it is, its input proves it."""
        async with self._floor.acting() as connection:
            noted = await intents.of_key(connection, delivery.note) if delivery.note else None
        if noted is None:
            return False
        intent = noted[0]
        given = await self._floor.provider.apify.input_of(run)
        if not match([(intent.id, self._floor.provider.input(intent))], [Seen(run.id, given)]):
            return False
        adopted = await self._floor.adopt(intent.id, run)
        log.info("run adopted", run=run.id, intent=intent.key, adopted=adopted)
        return adopted

    async def _attribute_some(self, tally: Tally) -> bool:
        """Whether there is more to do at once."""
        for _ in range(PAGES_A_TURN):
            async with self._floor.acting() as connection:
                ended = await intents.pick(connection)
            if ended is None:
                return False
            await self._attribute(ended, tally)
        return True

    async def _attribute(self, ended: intents.Ended, tally: Tally) -> None:
        page = await self._page(ended)
        if page is None:
            stored, last = await self._store(ended, None, 0, True), True
        else:
            harvest = await asyncio.to_thread(_harvest, ended.intent, page.body)
            last = page.count == 0 or (
                page.count < self._floor.terms.page_items and page.offset + page.count >= page.total
            )
            stored = await self._store(ended, harvest, page.count, last)
        if stored is None:
            tally.deferred += 1
            return
        tally.done += 1
        tally.add("items", stored.attributed + stored.unasked)
        tally.add("unasked", stored.unasked)
        tally.add("written", stored.written)
        tally.add("settled", int(last))

    async def _page(self, ended: intents.Ended) -> apify.Page | None:
        """The next items; None when there is no dataset, or no longer."""
        if not ended.dataset_id:
            return None
        try:
            return await self._floor.provider.apify.page(ended.dataset_id, ended.page, self._floor.terms.page_items)
        except apify.NotFound:
            log.warning("dataset gone", intent=ended.intent.key, dataset=ended.dataset_id)
            return None

    async def _store(
        self, ended: intents.Ended, harvest: Harvest | None, count: int, last: bool
    ) -> attribution.Stored | None:
        """One transaction; None when somebody else has stored this page."""

        async def work(connection: Connection) -> attribution.Stored | None:
            await act_as(connection, SERVICE)
            held = await attribution.hold(connection, ended.intent.id, ended.page)
            if held is None:
                return None
            stored = attribution.Stored()
            if harvest is not None:
                stored, held = await attribution.store(connection, held, harvest, count)
            if last:
                missing = await attribution.settle(connection, held, self._floor.terms.ladder)
                log.info("run settled", intent=ended.intent.key, state=held.state, missing=missing)
            return stored

        return await settled(self._floor.db, work)


def _harvest(intent: Intent, body: bytes) -> Harvest:
    return read(intent.platform, intent.type, apify.items_of(body))
