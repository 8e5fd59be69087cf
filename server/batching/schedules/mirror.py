"""The provider's own schedules as a copy of ours, for those who want runs to go on while this server is down.

    SCHEDULES_CLOCK=provider    every batch with businesses, whose interval cron can express, has a schedule at the provider: made
                                by name, adopted when there is one of that name, its input pushed whole whenever it has changed
    SCHEDULES_CLOCK=server      whatever is left of them is removed there, or every run would come twice

Cron can say every 1, 2, 3, 4, 6, 8, 12 or 24 hours, no other interval of ours; and an account has a hundred schedules. What is not
mirrored (`provider_schedule_id` null) stays on this server's clock: no business is left out, some only wait while we are down.

Runs that the provider's schedules have started carry no webhook of ours: they are found in its list, by `meta.scheduleId`, and are
attributed like all others; those of the time that we were down too, as long as the provider keeps them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, cast

import structlog

from server.batching.checks import Check
from server.batching.loop import Occasion, Turn
from server.batching.schedules import intents
from server.batching.schedules.inputs import identifier, run_input
from server.batching.schedules.plan import Platform, Type
from server.batching.schedules.provider import Provider
from server.batching.schedules.store import SERVICE, act_as
from server.edge import apify
from server.edge.clock import Clock
from server.edge.postgres import Connection, Database
from server.errors import Code, Refused

PREFIX: Final = "batchcast-"
MIRRORED_MOST: Final = 100
"""A provider's account has no more schedules."""
PUSHES_A_TURN: Final = 20
FOUND_A_TURN: Final = 100
KEPT_MS: Final = 7 * 86_400_000
"""The provider keeps datasets for so long; older runs are not worth finding."""
AGAIN_MS: Final = 900_000
"""The list of runs is read from so long before the newest that is known: entries may come late."""
EXAMPLES: Final = 10

BATCHES: Final = """
select id, platform::text, type::text, interval_hours::int as hours, batch_index, offset_minutes, businesses, paused,
    input_version, provider_schedule_id, provider_input_version
from schedules.schedule
where provider_schedule_id is not null or (businesses > 0 and mod(24, interval_hours) = 0)
order by provider_schedule_id is null, id limit $1"""
IDENTIFIERS: Final = """
select m.identifier from schedules.mapping m join schedules.business b on b.id = m.business_id and b.team = m.team
where m.schedule_id = $1 and b.status = 'active' group by 1 order by 1"""
PUSHED: Final = """
update schedules.schedule set provider_schedule_id = $2, provider_input_version = $3 where id = $1"""
FORGOTTEN: Final = """
update schedules.schedule set provider_schedule_id = null, provider_input_version = null where id = $1"""
ADVANCE: Final = """
update schedules.schedule s set next_run_at = to_timestamp((n.minute - mod(n.minute - s.offset_minutes, s.interval_hours * 60)
    + s.interval_hours * 60) * 60)
from (select floor(extract(epoch from clock_timestamp()) / 60)::bigint as minute) n
where s.provider_schedule_id is not null and s.next_run_at <= clock_timestamp()"""
NEWEST: Final = """
select floor(extract(epoch from max(started_at)) * 1000)::bigint from schedules.provider_run
where starts_with(intent_key, 'provider:')"""
OURS: Final = """
select provider_schedule_id, platform::text from schedules.schedule where provider_schedule_id = any ($1::text[])"""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as the mirror sees it."""

    id: int
    platform: Platform
    type: Type
    hours: int
    index: int
    offset_minutes: int
    businesses: int
    paused: bool
    version: int
    known_as: str | None
    pushed: int | None

    @property
    def name(self) -> str:
        """What its schedule is called at the provider."""
        return f"{PREFIX}{self.platform}-{self.type}-{self.hours}h-{self.index}"

    @property
    def enabled(self) -> bool:
        """Should it run there?"""
        return self.businesses > 0 and not self.paused


# Decisions. Pure.


def cron(hours: int, offset_minutes: int) -> str:
    """A line of cron that runs at exactly these slots; Refused when there is none."""
    if not 1 <= hours <= 24 or 24 % hours:
        message = f"cron cannot express every {hours} hours; it can where 24 is a multiple: 1, 2, 3, 4, 6, 8, 12, 24"
        raise Refused(Code.BAD_MESSAGE, message, field="hours", limit=24)
    hour, minute = divmod(offset_minutes % (hours * 60), 60)
    return f"{minute} {','.join(str(at) for at in range(hour, 24, hours))} * * *"


def differs(batch: Batch, there: apify.Plan | None, actor_id: str) -> str | None:
    """In what the provider's schedule is not as it should be; None when it is."""
    if there is None:
        return "is not at the provider"
    wanted = {"cron": cron(batch.hours, batch.offset_minutes), "enabled": batch.enabled, "timezone": "UTC"}
    for name, value in (*wanted.items(), ("actor_id", actor_id)):
        if getattr(there, name) != value:
            return f"has {name} {getattr(there, name)!r} at the provider, not {value!r}"
    if batch.pushed != batch.version:
        return "has an older input at the provider"
    return None


def identifiers_in(platform: Platform, given: object) -> list[str]:
    """What a run was asked for, from its input."""
    value = given if isinstance(given, Mapping) else {}
    if platform == "google":
        texts = _list(value.get("placeIds"))
    else:
        texts = [one.get("url") for one in _list(value.get("startUrls")) if isinstance(one, Mapping)]
    return sorted({known for text in texts if isinstance(text, str) and (known := _known(platform, text))})


def _list(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else []


def _known(platform: Platform, text: str) -> str | None:
    try:
        return identifier(platform, text)
    except Refused:
        return None


class Mirror:
    """See the module's docstring."""

    def __init__(self, db: Database, clock: Clock, provider: Provider, *, own_clock: bool) -> None:
        self._db = db
        self._clock = clock
        self._provider = provider
        self._own_clock = own_clock

    # The turns.

    async def turn(self, occasion: Occasion) -> Turn:
        """Bring the provider's schedules up to date, a slice of them."""
        if not self._provider.ready:
            return Turn()
        try:
            return await (self._retire() if self._own_clock else self._push())
        except apify.Trouble as trouble:
            log.warning("mirror interrupted", trouble=type(trouble).__name__, error=trouble.message)
            return Turn(1, 0, 1, detail={"error": trouble.message})

    async def _push(self) -> Turn:
        batches = await self._batches()
        there = {plan.name: plan for plan in await self._provider.apify.schedules()}
        pushed = failed = left = 0
        for batch in batches:
            try:
                actor = await self._actor(batch)
                if batch.known_as is not None and differs(batch, there.get(batch.name), actor) is None:
                    continue
                if pushed == PUSHES_A_TURN:
                    left += 1
                    continue
                await self._push_one(batch, there.get(batch.name), actor)
                pushed += 1
            except (apify.Rejected, apify.AuthFailed, apify.NotFound) as trouble:
                failed += 1
                log.warning("schedule not mirrored", schedule=batch.id, name=batch.name, error=trouble.message)
        async with self._acting() as connection:
            await connection.execute(ADVANCE)
        return Turn(pushed + failed + left, pushed, failed, left, more=left > 0, detail={"pushed": pushed})

    async def _push_one(self, batch: Batch, there: apify.Plan | None, actor: str) -> None:
        async with self._acting() as connection:
            rows = await connection.fetch(IDENTIFIERS, batch.id)
        asked = run_input(batch.platform, batch.type, [row[0] for row in rows], self._provider.terms.asked)
        line, options = cron(batch.hours, batch.offset_minutes), self._provider.options()
        client = self._provider.apify
        try:
            if there is None:
                there = await client.create_schedule(
                    batch.name, line, actor, asked, enabled=batch.enabled, options=options
                )
        except (apify.Conflict, apify.Unknown):
            there = await self._adopted(batch)
        await client.update_schedule(there.id, line, actor, asked, enabled=batch.enabled, options=options)
        async with self._acting() as connection:
            # The version was read before the businesses: one that came in between is pushed again, none is missed.
            await connection.execute(PUSHED, batch.id, there.id, batch.version)
        log.info("schedule mirrored", schedule=batch.id, name=batch.name, businesses=len(rows))

    async def _adopted(self, batch: Batch) -> apify.Plan:
        """The one of that name, which was there, or was made after all."""
        for plan in await self._provider.apify.schedules():
            if plan.name == batch.name:
                return plan
        raise apify.Retryable(f"the provider's list does not show the schedule {batch.name} yet")

    async def _retire(self) -> Turn:
        """This server owns the clock: what the provider still has of ours would run twice."""
        known = [batch for batch in await self._batches() if batch.known_as is not None]
        for batch in known[:PUSHES_A_TURN]:
            await self._provider.apify.delete_schedule(cast(str, batch.known_as))
            async with self._acting() as connection:
                await connection.execute(FORGOTTEN, batch.id)
            log.info("schedule no longer mirrored", schedule=batch.id, name=batch.name)
        done = min(len(known), PUSHES_A_TURN)
        return Turn(done, done, more=len(known) > done, detail={"removed": done})

    # Runs that they have started.

    async def discover(self) -> int:
        """Note the runs of the provider's schedules that are not known yet; how many these are. Raises apify.Trouble."""
        if self._own_clock or not self._provider.ready:
            return 0
        async with self._acting() as connection:
            newest = await connection.fetchval(NEWEST)
        oldest = self._clock.now_ms() - KEPT_MS
        since = oldest if newest is None else max(oldest, newest - AGAIN_MS)
        listed = [run for run in await self._provider.runs_since(since) if run.schedule_id is not None]
        async with self._acting() as connection:
            taken = await intents.taken(connection, [run.id for run in listed])
            found = await connection.fetch(OURS, [run.schedule_id for run in listed])
        platforms = {row["provider_schedule_id"]: row["platform"] for row in found}
        fresh = [run for run in listed if run.id not in taken and run.schedule_id in platforms]
        for run in fresh[:FOUND_A_TURN]:
            asked = identifiers_in(platforms[run.schedule_id], await self._provider.apify.input_of(run))
            async with self._acting() as connection:
                await intents.by_provider(connection, run, asked)
        return len(fresh[:FOUND_A_TURN])

    # What is not as it should be.

    async def drift(self) -> Check:
        """The provider's schedules against ours."""
        meaning = "the provider has the schedules that it should have, as they should be, and no other ones of ours"
        if not self._provider.ready:
            return Check("provider", meaning, 0, ())
        try:
            wrong = await self._wrong()
        except apify.Trouble as trouble:
            wrong = [f"the provider could not be asked: {trouble.message}"]
        return Check("provider", meaning, len(wrong), tuple(wrong[:EXAMPLES]))

    async def _wrong(self) -> list[str]:
        there = {plan.name: plan for plan in await self._provider.apify.schedules() if plan.name.startswith(PREFIX)}
        batches = [] if self._own_clock else await self._batches()
        wrong = []
        for batch in batches:
            how = differs(batch, there.pop(batch.name, None), await self._actor(batch))
            if how is not None:
                wrong.append(f"schedule {batch.id} ({batch.name}) {how}")
        wrong += [f"the provider has {name}, which runs on its own and is none of ours" for name in sorted(there)]
        return wrong

    async def _batches(self) -> list[Batch]:
        async with self._acting() as connection:
            return [Batch(*row) for row in await connection.fetch(BATCHES, MIRRORED_MOST)]

    async def _actor(self, batch: Batch) -> str:
        return await self._provider.apify.actor_id(self._provider.actor(batch.platform, batch.type))

    @asynccontextmanager
    async def _acting(self) -> AsyncIterator[Connection]:
        async with self._db.transaction() as connection:
            await act_as(connection, SERVICE)
            yield connection
