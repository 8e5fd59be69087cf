"""Batches kept even and few: consolidate, then rebalance, a line at a time, each in a transaction of its own.

A preview reads without locks; what is done is planned again under the lock of the line, from the counts that then stand still. Plans
speak of numbers; of a batch those that came last go (the highest ids), which changes the fewest of anybody's habits.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from server.batching.audit import write as audit
from server.batching.schedules import store as s
from server.batching.schedules.placing import Placing
from server.batching.schedules.plan import Line, Plan, Seat, Transfer, consolidate, rebalance
from server.core.identity import Identity
from server.edge.postgres import Connection
from server.errors import Code, Refused

Action: TypeAlias = Literal["consolidate", "rebalance"]
ACTIONS: Final[tuple[Action, ...]] = ("consolidate", "rebalance")
MOVES_MOST: Final = 20_000
"""Businesses moved in one transaction; what a plan has beyond that is left to the next one."""

ALL: Final = """
select platform, type, interval_hours, batch_index, businesses, capacity, active, paused
from schedules.schedule order by platform, type, interval_hours, batch_index"""
TRANSFER: Final = """
with seat as (
    select * from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[]) as t (source, target, first, last)
),
ranked as (
    select m.business_id, m.platform, m.type, m.schedule_id, row_number() over (partition by m.schedule_id order by m.business_id desc) as n
    from schedules.mapping m where m.schedule_id in (select source from seat)
)
update schedules.mapping m set schedule_id = seat.target
from ranked join seat on seat.source = ranked.schedule_id and ranked.n between seat.first and seat.last
where m.business_id = ranked.business_id and m.platform = ranked.platform and m.type = ranked.type"""
RETIRE: Final = (
    "update schedules.schedule set active = false where id = any ($1::bigint[]) and businesses = 0 and active"
)
ONE: Final = "select platform, type, interval_hours, batch_index, businesses from schedules.schedule where id = $1"
LATER: Final = """
select count(*) from schedules.schedule where platform = $1 and type = $2 and interval_hours = $3 and batch_index > 0"""
REMOVE: Final = "delete from schedules.schedule where id = $1"
CAPACITY: Final = "update schedules.schedule set capacity = $2 where platform = $1 and capacity <> $2"
FORGET_HISTORY: Final = """
delete from schedules.custom_interval_history where id in (
    select id from schedules.custom_interval_history where at < $1 order by id limit $2)"""
FORGET_INTAKES: Final = "delete from schedules.intake where updated_at < $1"


@dataclass(frozen=True, slots=True)
class Proposal:
    """What would be done to a line."""

    line: Line
    action: Action
    plan: Plan


@dataclass(frozen=True, slots=True)
class Balanced:
    """What was done: lines changed, businesses moved, batches made and set aside; `more`: a line was too much for once."""

    lines: int = 0
    moves: int = 0
    created: int = 0
    retired: int = 0
    more: bool = False
    audit_id: int | None = None


class Upkeep:
    """The verbs that tidy batches."""

    def __init__(self, placing: Placing) -> None:
        self._placing = placing

    async def proposals(self, actions: Sequence[Action] = ACTIONS, line: Line | None = None) -> list[Proposal]:
        """What there is to do now, by line; of a line the first of the actions that finds anything."""

        async def work(connection: Connection) -> list[Proposal]:
            lines: dict[Line, list[Seat]] = {}
            for row in await connection.fetch(ALL):
                lines.setdefault(Line(row[0], row[1], row[2]), []).append(Seat(*row[3:]))
            return [p for at in sorted(lines) if line in (None, at) and (p := self._proposal(at, lines[at], actions))]

        return await self._placing.survey(work)

    async def balance(
        self, who: Identity | None, actions: Sequence[Action] = ACTIONS, line: Line | None = None
    ) -> Balanced:
        """Do it. `who`: the administrator who asked, noted in the trail; None: the loop."""
        if who is not None:
            s.checked_admin(who)
        done: list[Proposal] = []
        more = False
        for action in actions:
            for proposal in await self.proposals([action], line):
                plan, cut = await self._apply(proposal.line, action)
                more = more or cut
                if not plan.idle:
                    done.append(Proposal(proposal.line, action, plan))
        entry = None if who is None else await self._note(who, actions, line, done)
        return Balanced(
            lines=len({proposal.line for proposal in done}),
            moves=sum(proposal.plan.moves for proposal in done),
            created=sum(len(proposal.plan.created) for proposal in done),
            retired=sum(len(proposal.plan.retired) for proposal in done),
            more=more,
            audit_id=entry,
        )

    async def remove(self, schedule_id: int, who: Identity) -> int:
        """Take away an empty batch for good; one with businesses is refused, and batch 0 while it is not the only one."""
        s.checked_admin(who)

        async def work(connection: Connection) -> int:
            found = await connection.fetchrow(ONE, schedule_id)
            if found is None:
                raise Refused(Code.NOT_FOUND, f"there is no schedule {schedule_id}", field="id")
            await s.hold_lines(connection, [Line(*found[:3])])
            await _check_removable(connection, schedule_id)
            await connection.execute(REMOVE, schedule_id)
            return await audit(connection, who.user, "schedules.removed", str(schedule_id), before=dict(found))

        return await self._placing.run(work)

    async def settle_capacities(self) -> int:
        """Give all batches the capacity that is set now; how many had another. Those too full are relieved by `balance`."""

        async def work(connection: Connection) -> int:
            tags = [await connection.execute(CAPACITY, p, c) for p, c in sorted(self._placing.terms.capacities.items())]
            return sum(int(tag.split()[-1]) for tag in tags)

        return await self._placing.run(work)

    async def forget(self, before: dt.datetime, limit: int = 10_000) -> tuple[int, bool]:
        """Remove what was noted before that time; how many rows, and whether there may be more."""

        async def work(connection: Connection) -> int:
            await connection.execute(FORGET_INTAKES, before)
            return int((await connection.execute(FORGET_HISTORY, before, limit)).split()[-1])

        count = await self._placing.run(work)
        return count, count == limit

    def _proposal(self, line: Line, seats: Sequence[Seat], actions: Sequence[Action]) -> Proposal | None:
        for action in actions:
            plan = self._plan(action, line, seats)
            if not plan.idle:
                return Proposal(line, action, plan)
        return None

    def _plan(self, action: Action, line: Line, seats: Sequence[Seat]) -> Plan:
        return (
            consolidate(seats)
            if action == "consolidate"
            else rebalance(seats, self._placing.terms.capacities[line.platform])
        )

    async def _apply(self, line: Line, action: Action) -> tuple[Plan, bool]:
        """Plan under the lock and do it; what was done, and whether the plan was cut short."""

        async def work(connection: Connection) -> tuple[Plan, bool]:
            await s.hold_lines(connection, [line])
            held = await s.whole(connection, line)
            plan = self._plan(action, line, held.seats[line])
            whole = plan.moves
            plan = Plan(_first(plan.transfers, MOVES_MOST), plan.created, plan.retired)
            if plan.created:
                wanted = [(line, index) for index in plan.created]
                held.ids.update(await s.make_batches(connection, wanted, self._placing.terms, self._placing.now))
            await _transfer(connection, line, held, plan.transfers)
            await connection.execute(RETIRE, [held.ids[line, index] for index in plan.retired])
            return plan, plan.moves < whole

        return await self._placing.run(work)

    async def _note(self, who: Identity, actions: Sequence[Action], line: Line | None, done: Sequence[Proposal]) -> int:
        async def work(connection: Connection) -> int:
            after = {
                "lines": len({p.line for p in done}),
                "moves": sum(p.plan.moves for p in done),
                "retired": sum(len(p.plan.retired) for p in done),
            }
            target = f"{line.platform}:{line.type}:{line.hours}" if line else "all"
            return await audit(connection, who.user, f"schedules.{'+'.join(actions)}", target, after=after)

        return await self._placing.run(work)


async def _check_removable(connection: Connection, schedule_id: int) -> None:
    found = await connection.fetchrow(ONE, schedule_id)
    if found is not None and found["businesses"]:
        message = f"schedule {schedule_id} has {found['businesses']} businesses; consolidate, or delete these first"
        raise Refused(Code.CONFLICT, message, field="id")
    if found is not None and not found["batch_index"] and await connection.fetchval(LATER, *found[:3]):
        raise Refused(Code.CONFLICT, f"schedule {schedule_id} is batch 0 of others; remove these first", field="id")


async def _transfer(connection: Connection, line: Line, held: s.Held, transfers: Sequence[Transfer]) -> None:
    """Each transfer takes its own stretch of its batch's businesses, counted from the end."""
    if not transfers:
        return
    taken: dict[int, int] = {}
    rows = []
    for transfer in transfers:
        first = taken.get(transfer.source, 0) + 1
        taken[transfer.source] = first + transfer.count - 1
        rows.append((held.ids[line, transfer.source], held.ids[line, transfer.target], first, taken[transfer.source]))
    await connection.execute(TRANSFER, *(list(column) for column in zip(*rows, strict=True)))


def _first(transfers: Sequence[Transfer], most: int) -> tuple[Transfer, ...]:
    """The beginning of a plan, which by itself keeps every batch within its capacity too."""
    kept: list[Transfer] = []
    for transfer in transfers:
        count = min(transfer.count, most)
        most -= count
        if count:
            kept.append(Transfer(transfer.source, transfer.target, count))
    return tuple(kept)
