"""Businesses into batches: new ones, moved ones, removed ones; each verb is one transaction.

All of them end in `settle`: hold the lines concerned, choose a seat for each (plan.py), make the batches that are missing, write.
The locks of the lines make the counts stand still meanwhile, so two nodes that place at once fill no batch twice.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import orjson

from server.batching.audit import write as audit
from server.batching.schedules import store as s
from server.batching.schedules.inputs import NAME_MOST, words
from server.batching.schedules.inputs import identifier as checked_identifier
from server.batching.schedules.plan import PLATFORMS, TYPES, Line, Platform, Tier, Type, hours_of, seats
from server.core.identity import Identity
from server.edge.clock import Clock
from server.edge.postgres import Connection, Database
from server.errors import Code, Refused

T = TypeVar("T")
LINES_MOST: Final = 64
"""So often lines may be found missing in one piece of work; each time all that were seen are made."""

KNOWN: Final = """
select business_id from schedules.mapping where platform = $1 and type = any ($2::text[]) and identifier = $3 and team = $4 limit 1"""
BUSINESS: Final = "select id, team, identifiers from schedules.business where id = $1"
NEW_BUSINESS: Final = """
insert into schedules.business (team, name, identifiers) values ($1, $2, jsonb_build_object($3::text, $4::text)) returning id"""
ATTACH: Final = """
update schedules.business set identifiers = identifiers || jsonb_build_object($2::text, $3::text),
    name = case when $4 = '' then name else $4 end
where id = $1"""
DETACH: Final = """
update schedules.business set identifiers = identifiers - $2::text where id = $1 and identifiers ? $2
returning identifiers = '{}'"""
DELETE_BUSINESS: Final = "delete from schedules.business where id = $1"
LINES_OF: Final = """
select sc.platform, sc.type, sc.interval_hours from schedules.mapping m join schedules.schedule sc on sc.id = m.schedule_id
where m.business_id = $1 and m.platform = $2"""
UNPLACE: Final = "delete from schedules.mapping where business_id = $1 and platform = $2 returning schedule_id"
DELETE_REVIEWS: Final = "delete from schedules.review where team = $1 and business_id = $2 and platform = $3"
DELETE_OVERVIEWS: Final = "delete from schedules.overview where team = $1 and business_id = $2 and platform = $3"
SET_TIER: Final = "update schedules.team set tier = $2, changed_at = clock_timestamp() where team = $1"


@dataclass(frozen=True, slots=True)
class New:
    """A mapping to make."""

    business_id: int
    team: str
    line: Line
    identifier: str


@dataclass(frozen=True, slots=True)
class Move:
    """A mapping that goes to another line."""

    placed: s.Placed
    line: Line


@dataclass(frozen=True, slots=True)
class Profiled:
    """A business on a platform, as `create` leaves it; `new`: it was not followed before."""

    business_id: int
    identifier: str
    new: bool
    audit_id: int | None


@dataclass(frozen=True, slots=True)
class Removed:
    """What `delete` took away; `business_gone`: this was the last platform of that business."""

    business_id: int
    team: str
    platform: Platform
    business_gone: bool
    audit_id: int


class Placing:
    """The verbs that change where businesses are."""

    def __init__(self, db: Database, clock: Clock, terms: s.Terms) -> None:
        self._db = db
        self._clock = clock
        self.terms = terms

    @property
    def now(self) -> dt.datetime:
        """The time by which intervals expire and first runs are set."""
        return dt.datetime.fromtimestamp(self._clock.now_ms() / 1000, dt.UTC)

    async def run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """The work in one transaction, in the service's role to begin with; lines that it misses are made before it begins again.
        Its statements name their rows by keys."""
        for _ in range(LINES_MOST):
            try:
                return await s.settled(self._db, work, s.BY_KEYS)
            except s.LinesMissing as missing:
                await s.make_lines(self._db, missing.lines, self.terms, self.now)
        raise AssertionError(f"lines were still missing after {LINES_MOST} attempts")

    async def survey(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Work that may look at all there is, in one transaction and in the same role."""
        return await s.settled(self._db, work, s.AS_SERVICE)

    async def give_way(self) -> None:
        """Let others get on in the middle of work that waits for nothing."""
        await self._clock.sleep(0)

    # Profiles.

    async def create(
        self, team: str, platform: Platform, text: str, who: Identity, name: str = "", business_id: int | None = None
    ) -> Profiled:
        """Follow a business on a platform; one that the team follows already is answered as it is."""
        s.checked_team(team, who)
        known = checked_identifier(platform, text)
        label = words(name, "name", NAME_MOST)

        async def work(connection: Connection) -> Profiled:
            tier = (await s.lock_teams(connection, {team: self.terms.tier}))[team]
            found = await connection.fetchval(KNOWN, platform, TYPES, known, team)
            if found is not None and business_id not in (None, found):
                message = f"the team follows {known!r} already, as business {found}"
                raise Refused(Code.CONFLICT, message, field="businessId")
            here = found or await self._business(connection, team, platform, known, label, who, business_id)
            await s.act_as(connection, s.SERVICE)
            await self._place(connection, here, team, tier, platform, known)
            after = {"team": team, "platform": platform, "identifier": known}
            change = (who.user, "schedules.profile.created", f"business {here}", None, after)
            entry = await audit(connection, *change) if found is None else None
            return Profiled(here, known, found is None, entry)

        return await self.run(work)

    async def _business(
        self,
        connection: Connection,
        team: str,
        platform: Platform,
        known: str,
        name: str,
        who: Identity,
        at: int | None,
    ) -> int:
        """The row of the business, written in the role of whoever asks, so that row-level security judges it too."""
        await s.act_as(connection, s.SERVICE if who.admin else s.TEAM, team)
        if at is None:
            made: int = await connection.fetchval(NEW_BUSINESS, team, name, platform, known)
            return made
        row = await connection.fetchrow(BUSINESS, at)
        if row is None or row["team"] != team:
            raise no_business(at)
        has = orjson.loads(row["identifiers"]).get(platform, known)
        if has != known:
            message = f"business {at} is {has!r} on {platform}; delete that profile first, or make another business"
            raise Refused(Code.CONFLICT, message, field="businessId")
        await connection.execute(ATTACH, at, platform, known, name)
        return at

    async def _place(
        self, connection: Connection, business_id: int, team: str, tier: Tier, platform: Platform, known: str
    ) -> None:
        """Both types of a profile, where they are missing."""
        has = {row["type"] for row in await connection.fetch(LINES_OF, business_id, platform)}
        own = await s.customs(connection, [team]) if len(has) < len(TYPES) else {}
        new = [
            New(business_id, team, Line(platform, t, hours_of(tier, t, own.get((team, platform, t)), self.now)), known)
            for t in TYPES
            if t not in has
        ]
        await self.settle(connection, new, ())

    async def delete(self, business_id: int, platform: Platform, who: Identity) -> Removed:
        """No longer follow a business on a platform; without a platform left the business goes too."""

        async def work(connection: Connection) -> Removed:
            team = await self._team_of(connection, business_id, platform, who)
            await s.act_as(connection, s.SERVICE)
            await s.lock_teams(connection, {team: self.terms.tier})
            lines = [Line(*row) for row in await connection.fetch(LINES_OF, business_id, platform)]
            await s.hold_lines(connection, lines)
            left = await connection.fetch(UNPLACE, business_id, platform)
            await connection.execute(s.SET_ASIDE, [row["schedule_id"] for row in left])
            if not self.terms.keep_reviews:
                await connection.execute(DELETE_REVIEWS, team, business_id, platform)
                await connection.execute(DELETE_OVERVIEWS, team, business_id, platform)
            await s.act_as(connection, s.SERVICE if who.admin else s.TEAM, team)
            gone = await connection.fetchval(DETACH, business_id, platform)
            if gone is None:
                raise no_business(business_id, platform)
            if gone:
                await connection.execute(DELETE_BUSINESS, business_id)
            await s.act_as(connection, s.SERVICE)
            was = {"team": team, "platform": platform}
            entry = await audit(connection, who.user, "schedules.profile.deleted", f"business {business_id}", was)
            return Removed(business_id, team, platform, bool(gone), entry)

        return await self.run(work)

    async def _team_of(self, connection: Connection, business_id: int, platform: Platform, who: Identity) -> str:
        await s.act_for(connection, who)
        row = await connection.fetchrow(BUSINESS, business_id)
        if row is None or platform not in orjson.loads(row["identifiers"]):
            raise no_business(business_id, platform)
        team: str = row["team"]
        return team

    # The common end of all.

    async def resettle(
        self,
        connection: Connection,
        team: str,
        tier: Tier,
        platforms: Sequence[Platform] = PLATFORMS,
        types: Sequence[Type] = TYPES,
    ) -> int:
        """Move a team's mappings, whose row is held, to the lines where they now belong; how many moved."""
        own, now = await s.customs(connection, [team]), self.now
        moves = []
        for placed in await s.mappings_of(connection, team, platforms, types):
            line = placed.line
            hours = hours_of(tier, line.type, own.get((team, line.platform, line.type)), now)
            if hours != line.hours:
                moves.append(Move(placed, Line(line.platform, line.type, hours)))
        await self.settle(connection, (), moves)
        return len(moves)

    async def settle(self, connection: Connection, new: Sequence[New], moves: Sequence[Move]) -> None:
        """Write these mappings, each into the seat that is its turn."""
        if not new and not moves:
            return
        sources = {move.placed.line for move in moves}
        targets = [*(n.line for n in new), *(m.line for m in moves)]
        await s.hold_lines(connection, sources.union(targets))
        chosen = await self.choose(connection, targets)
        if new:
            await _insert(connection, new, chosen[: len(new)])
        if moves:
            left = await _move(connection, moves, chosen[len(new) :])
            await connection.execute(s.SET_ASIDE, left)

    async def choose(self, connection: Connection, lines: Sequence[Line]) -> list[int]:
        """The id of a batch for each, in turn; batches that are missing are made, those set aside taken up again."""
        wanted = Counter(lines)
        held = await s.room(connection, wanted)
        indexes = {
            line: seats(held.seats[line], count, self.terms.capacities[line.platform]) for line, count in wanted.items()
        }
        missing = [
            (line, i) for line in sorted(wanted) for i in sorted(set(indexes[line])) if (line, i) not in held.ids
        ]
        self._check_room(missing)
        if missing:
            held.ids.update(await s.make_batches(connection, missing, self.terms, self.now))
        await self._reopen(connection, held, indexes)
        turns = {line: iter(chosen) for line, chosen in indexes.items()}
        return [held.ids[line, next(turns[line])] for line in lines]

    def _check_room(self, missing: Sequence[tuple[Line, int]]) -> None:
        for line, index in missing:
            if index >= self.terms.batches_most:
                message = (
                    f"all {self.terms.batches_most} batches of {line.platform} {line.type} every {line.hours} h are full; "
                    "raise the capacity of a batch or the number of batches (settings), or resume those that are paused"
                )
                raise Refused(Code.CONFLICT, message, field="platform", limit=self.terms.batches_most)

    async def _reopen(self, connection: Connection, held: s.Held, indexes: dict[Line, list[int]]) -> None:
        aside = []
        for line, chosen in indexes.items():
            used = set(chosen)
            aside += [held.ids[line, seat.index] for seat in held.seats[line] if not seat.active and seat.index in used]
        if aside:
            await connection.execute(s.REOPEN, aside)


async def _insert(connection: Connection, new: Sequence[New], chosen: Sequence[int]) -> None:
    await connection.execute(
        s.PLACE,
        [n.business_id for n in new],
        [n.team for n in new],
        [n.line.platform for n in new],
        [n.line.type for n in new],
        chosen,
        [n.identifier for n in new],
    )


async def _move(connection: Connection, moves: Sequence[Move], chosen: Iterable[int]) -> list[int]:
    """The ids of the batches that these left."""
    rows = await connection.fetch(
        s.MOVE,
        [m.placed.business_id for m in moves],
        [m.line.platform for m in moves],
        [m.line.type for m in moves],
        list(chosen),
    )
    return list({row["schedule_id"] for row in rows})


def no_business(business_id: int, platform: Platform | None = None) -> Refused:
    """What is not there and what is another's are refused in the same words."""
    on = f" on {platform}" if platform else ""
    return Refused(Code.NOT_FOUND, f"there is no business {business_id}{on}, or none that you may see", field="id")
