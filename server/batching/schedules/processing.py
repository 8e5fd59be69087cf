"""Ended runs become reviews, overviews and retries: the turn of `schedules-process`. See runs.py for the whole.

First the webhooks: each says that a run may have ended, and the provider is asked whether it has. Then pages of datasets, each run
in its turn; a page is fetched and read without a transaction, a few items at a time, and stored in one: small pages of several runs
together, a large one by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import asyncpg
import structlog

from server.batching.loop import Occasion, Turn
from server.batching.schedules import attribution, hooks, intents
from server.batching.schedules.floor import Floor, Tally
from server.batching.schedules.harvest import Harvest, Reader
from server.batching.schedules.outcomes import Intent, Seen, match
from server.batching.schedules.store import NOTING, settled
from server.edge import apify
from server.edge.postgres import Connection
from server.edge.tasks import abreast

DELIVERIES_A_TURN: Final = 20
PAGES_A_TURN: Final = 10
SMALL_ITEMS: Final = 100
"""Pages with no more items are stored together, in one transaction."""
ITEMS_AT_ONCE: Final = 50
"""Half a millisecond's worth of reading."""
PAGES_ABREAST: Final = 3
"""One is fetched while another is read and a third is written."""
TROUBLES_MOST: Final = 3
"""After so many webhooks whose runs can't be asked about, or pages that can't be had, the turn ends."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Look:
    """What the provider says of a delivery's run: it, when it has ended and is ours; else why there is nothing to go on with.
    `retryable`: the provider could not be asked."""

    delivery: hooks.Waiting
    run: apify.Run | None
    error: str | None = None
    retryable: bool = False

    @property
    def done(self) -> bool:
        """Is the delivery worked on? What can't be sorted out becomes so in time; what could not be asked about does not."""
        return self.error is None or (self.delivery.foreign_by_now and not self.retryable)


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
        """Ask about a slice of them, one after the other, then note what was said of all in one transaction."""
        async with self._floor.acting() as connection:
            waiting = await hooks.waiting(connection, DELIVERIES_A_TURN)
        looks: list[Look] = []
        troubles: list[apify.Retryable] = []
        for delivery in waiting:
            try:
                looks.append(await self._look(delivery))
            except apify.Retryable as trouble:
                # One run that can't be asked about holds up no other; several are the provider's own trouble.
                troubles.append(trouble)
                looks.append(Look(delivery, None, trouble.message, retryable=True))
                if len(troubles) == TROUBLES_MOST:
                    break
        if looks:
            await self._note(await self._sorted_out(looks), tally)
        if len(troubles) == TROUBLES_MOST:
            raise troubles[-1]

    async def _look(self, delivery: hooks.Waiting) -> Look:
        """What the provider itself says of the run; why nothing can be done with it as yet."""
        try:
            run = await self._floor.provider.apify.run(delivery.run_id)
        except apify.NotFound as trouble:
            return Look(delivery, None, trouble.message)
        return (
            Look(delivery, run)
            if run.ended
            else Look(delivery, None, f"the provider says that the run is {run.status}")
        )

    async def _sorted_out(self, looks: Sequence[Look]) -> list[Look]:
        """Runs that are none of ours, unless they become so, are no runs to go on with."""
        ended = [look.run.id for look in looks if look.run is not None]
        if not ended:
            return list(looks)
        async with self._floor.acting() as connection:
            ours = await intents.taken(connection, ended)
        return [await self._ours(look, ours) for look in looks]

    async def _ours(self, look: Look, ours: set[str]) -> Look:
        if look.run is None or look.run.id in ours:
            return look
        try:
            claimed = await self._claim_stranger(look.delivery, look.run)
        except apify.Retryable as trouble:
            return Look(look.delivery, None, trouble.message, retryable=True)
        return look if claimed else Look(look.delivery, None, "the run is none of ours")

    async def _note(self, looks: Sequence[Look], tally: Tally) -> None:
        """One transaction: the runs that have ended, and what became of each delivery."""
        ended = {look.run.id: look.run for look in looks if look.run is not None}
        tried = [hooks.Tried(look.delivery.id, look.error, look.done) for look in looks]

        async def work(connection: Connection) -> None:
            if ended:
                await self._floor.ended(connection, list(ended.values()))
            await hooks.tried(connection, tried)

        await settled(self._floor.db, work, NOTING)
        done = sum(one.done for one in tried)
        tally.done += done
        tally.deferred += len(tried) - done
        tally.add("webhooks", len(tried))

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
        """Pages, each run in its turn; whether there is more to do at once."""
        left = PAGES_A_TURN
        while left:
            async with self._floor.noting() as connection:
                picked = await intents.pick(connection, left)
            troubles: list[Exception] = []
            pages = await abreast([partial(self._bring, ended, tally, troubles) for ended in picked], PAGES_ABREAST)
            await self._store_small([page for page in pages if page is not None and _small(page)], tally, troubles)
            if troubles:
                raise troubles[0]
            if len(picked) < left and all(page is not None and page.last for page in pages):
                return False
            left -= len(picked)
        return True

    async def _bring(self, ended: intents.Ended, tally: Tally, troubles: list[Exception]) -> attribution.Brought | None:
        """The next page of a run, stored unless it is a small one; None when something went wrong with it, or with several others.

        Whatever went wrong is raised when the other runs have had their turn: they are picked together again and again."""
        if len(troubles) == TROUBLES_MOST:
            return None
        try:
            brought = await self._read(ended, await self._page(ended))
            if not _small(brought):
                await self._store([brought], tally)
        except Exception as trouble:  # noqa: BLE001 - raised by the caller
            troubles.append(trouble)
            return None
        return brought

    async def _read(self, ended: intents.Ended, page: apify.Page | None) -> attribution.Brought:
        run, at = ended.intent.id, ended.page
        if page is None:
            return attribution.Brought(run, at, None, 0, last=True)
        harvest = await self._harvest(ended.intent, apify.items_of(page.body))
        short = page.count < self._floor.terms.page_items and page.offset + page.count >= page.total
        return attribution.Brought(run, at, harvest, page.count, last=page.count == 0 or short)

    async def _harvest(self, intent: Intent, items: Sequence[object]) -> Harvest:
        """Read on the event loop, a few items at a time: a thread would keep it waiting for longer than they do."""
        reader = Reader(intent.platform, intent.type)
        for at in range(0, len(items), ITEMS_AT_ONCE):
            reader.feed(items[at : at + ITEMS_AT_ONCE])
            await self._floor.clock.sleep(0)
        return reader.harvest()

    async def _page(self, ended: intents.Ended) -> apify.Page | None:
        """The next items; None when there is no dataset, or no longer."""
        if not ended.dataset_id:
            return None
        try:
            return await self._floor.provider.apify.page(ended.dataset_id, ended.page, self._floor.terms.page_items)
        except apify.NotFound:
            log.warning("dataset gone", intent=ended.intent.key, dataset=ended.dataset_id)
            return None

    async def _store_small(self, pages: Sequence[attribution.Brought], tally: Tally, troubles: list[Exception]) -> None:
        """All of them together, or each by itself when there is one among them that can't be stored."""
        if not pages:
            return
        try:
            await self._store(pages, tally)
        except asyncpg.PostgresError as trouble:
            if len(pages) == 1:
                troubles.append(trouble)
                return
            for page in pages:
                await self._store_small([page], tally, troubles)

    async def _store(self, pages: Sequence[attribution.Brought], tally: Tally) -> None:
        """One transaction."""

        async def work(connection: Connection) -> attribution.Stored:
            return await attribution.store(connection, pages, self._floor.terms.ladder)

        stored = await settled(self._floor.db, work, NOTING)
        for one in stored.settled:
            log.info("run settled", intent=one.intent.key, state=one.state, missing=one.missing)
        tally.done += stored.pages
        tally.deferred += len(pages) - stored.pages
        tally.add("items", stored.attributed + stored.unasked)
        tally.add("unasked", stored.unasked)
        tally.add("written", stored.written)
        tally.add("settled", len(stored.settled))


def _small(page: attribution.Brought) -> bool:
    return page.harvest is None or page.harvest.items <= SMALL_ITEMS
