"""How often a team's businesses are asked for: its tier, and intervals of its own. Each change moves them in its transaction.

An interval of its own is for one platform and type, and only an enterprise team has any. It ends when it is removed, when it has
run out (`expire`: until that has come round, the businesses stay where they were) or when the team leaves the tier. Every change
is a row of the history.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, cast

from server.batching.audit import write as audit
from server.batching.schedules import store as s
from server.batching.schedules.inputs import words
from server.batching.schedules.placing import SET_TIER, Placing
from server.batching.schedules.plan import (
    CUSTOM_TIER,
    HOURS_LEAST,
    HOURS_MOST,
    PLATFORMS,
    TIERS,
    TYPES,
    Platform,
    Tier,
    Type,
)
from server.core.identity import Identity
from server.edge.postgres import Connection
from server.errors import Code, Refused

REASON_MOST: Final = 500
PAGE_MOST: Final = 1_000

SET: Final = """
insert into schedules.custom_interval as c (team, platform, type, interval_hours, reason, set_by, expires_at)
select $1, p.*, $4, $5, $6, $7 from unnest($2::text[], $3::text[]) as p (platform, type)
on conflict (team, platform, type) do update set interval_hours = excluded.interval_hours, reason = excluded.reason,
    set_by = excluded.set_by, set_at = clock_timestamp(), expires_at = excluded.expires_at
where (c.interval_hours, c.reason, c.expires_at) is distinct from (excluded.interval_hours, excluded.reason, excluded.expires_at)
returning platform, type"""
REMOVE: Final = """
delete from schedules.custom_interval where team = $1 and platform = any ($2::text[]) and type = any ($3::text[])
returning platform, type"""
REMOVE_EXPIRED: Final = """
delete from schedules.custom_interval where team = $1 and expires_at <= $2 returning platform, type"""
NOTE: Final = """
insert into schedules.custom_interval_history (team, platform, type, change, interval_hours, reason, who, expires_at)
select $1, p.*, $4, $5, $6, $7, $8 from unnest($2::text[], $3::text[]) as p (platform, type)"""
EXPIRED: Final = """
select distinct team from schedules.custom_interval where expires_at <= $1 order by team limit $2"""
_CUSTOM: Final = (
    "select team, platform, type, interval_hours, reason, set_by, set_at, expires_at from schedules.custom_interval"
)
OWN: Final = f"{_CUSTOM} where team = $1 order by platform, type"
UPCOMING: Final = f"{_CUSTOM} where expires_at <= $1 order by expires_at, team, platform, type limit $2"
HISTORY: Final = """
select id, team, platform, type, change, interval_hours, reason, who, expires_at, at from schedules.custom_interval_history
where team = $1 and ($2::bigint is null or id < $2) order by id desc limit $3"""


@dataclass(frozen=True, slots=True)
class TierChange:
    """What became of a team; `moved` counts mappings."""

    team: str
    before: Tier | None
    after: Tier
    moved: int
    audit_id: int


@dataclass(frozen=True, slots=True)
class IntervalChange:
    """Which intervals changed, and how many mappings that moved."""

    team: str
    changed: tuple[tuple[Platform, Type], ...]
    moved: int
    audit_id: int | None


@dataclass(frozen=True, slots=True)
class Own:
    """An interval of a team's own."""

    team: str
    platform: Platform
    type: Type
    hours: int
    reason: str
    set_by: str
    set_at: dt.datetime
    expires_at: dt.datetime | None


@dataclass(frozen=True, slots=True)
class OwnChange:
    """One line of the history; `hours` is None where it was taken away."""

    id: int
    team: str
    platform: Platform
    type: Type
    change: str
    hours: int | None
    reason: str
    who: str | None
    expires_at: dt.datetime | None
    at: dt.datetime


class Intervals:
    """The verbs of tiers and intervals."""

    def __init__(self, placing: Placing) -> None:
        self._placing = placing

    async def set_tier(self, team: str, tier: Tier, who: Identity) -> TierChange:
        """Another tier for a team; all its businesses move in this transaction. Twice is the same as once."""
        s.checked_admin(who)
        if tier not in TIERS:
            raise Refused(Code.BAD_MESSAGE, f"a tier is one of {', '.join(TIERS)}, not {tier!r}", field="tier")

        async def work(connection: Connection) -> TierChange:
            before = (await s.lock_teams(connection, {s.checked_team(team, who): tier}))[team]
            await connection.execute(SET_TIER, team, tier)
            if tier != CUSTOM_TIER:
                await self._take(connection, REMOVE, team, PLATFORMS, TYPES, change="tier", who=who.user)
            moved = await self._placing.resettle(connection, team, tier)
            entry = await audit(
                connection,
                who.user,
                "schedules.tier",
                f"team {team}",
                before={"tier": before},
                after={"tier": tier, "moved": moved},
            )
            return TierChange(team, before, tier, moved, entry)

        return await self._placing.run(work)

    async def set_own(
        self,
        team: str,
        hours: int,
        who: Identity,
        *,
        platforms: Sequence[Platform] = PLATFORMS,
        types: Sequence[Type] = TYPES,
        reason: str = "",
        expires_at: dt.datetime | None = None,
    ) -> IntervalChange:
        """An interval of its own for an enterprise team, on these platforms, for these types."""
        s.checked_admin(who)
        _checked(hours, reason, expires_at, self._placing.now)
        pairs = _pairs(platforms, types)

        async def work(connection: Connection) -> IntervalChange:
            tier = await self._hold(connection, team, who)
            if tier != CUSTOM_TIER:
                message = f"only {CUSTOM_TIER} teams may have intervals of their own, and {team!r} is {tier}; change its tier first"
                raise Refused(Code.CONFLICT, message, field="team")
            values = (hours, reason, who.user or "", expires_at)
            rows = await connection.fetch(SET, team, *_columns(pairs), *values)
            changed = tuple((row["platform"], row["type"]) for row in rows)
            await connection.execute(NOTE, team, *_columns(changed), "set", hours, reason, who.user, expires_at)
            after = {"hours": hours, "reason": reason, "expiresAt": expires_at.isoformat() if expires_at else None}
            return await self._changed(connection, team, tier, changed, who, "set", after)

        return await self._placing.run(work)

    async def remove_own(
        self, team: str, who: Identity, *, platforms: Sequence[Platform] = PLATFORMS, types: Sequence[Type] = TYPES
    ) -> IntervalChange:
        """Back to the interval of the tier; none there is no error."""
        s.checked_admin(who)

        async def work(connection: Connection) -> IntervalChange:
            tier = await self._hold(connection, team, who)
            changed = await self._take(connection, REMOVE, team, platforms, types, change="removed", who=who.user)
            return await self._changed(connection, team, tier, changed, who, "removed", None)

        return await self._placing.run(work)

    async def expire(self, limit: int = 100) -> tuple[int, bool]:
        """Take away what has run out, team by team; how many teams that were, and whether there may be more."""
        now = self._placing.now

        async def look(connection: Connection) -> list[str]:
            return [row["team"] for row in await connection.fetch(EXPIRED, now, limit)]

        teams = await self._placing.run(look)
        for team in teams:
            await self._expire(team, now)
        return len(teams), len(teams) == limit

    async def _expire(self, team: str, now: dt.datetime) -> None:
        async def work(connection: Connection) -> None:
            tier = (await s.lock_teams(connection, {team: self._placing.terms.tier}))[team]
            rows = await connection.fetch(REMOVE_EXPIRED, team, now)
            gone = [(row["platform"], row["type"]) for row in rows]
            await connection.execute(NOTE, team, *_columns(gone), "expired", None, "", None, None)
            await self._placing.resettle(connection, team, tier)

        await self._placing.run(work)

    # Reading.

    async def own(self, team: str, who: Identity) -> list[Own]:
        """The intervals that a team has of its own."""

        async def work(connection: Connection) -> list[Own]:
            await s.act_for(connection, who)
            return [Own(*row) for row in await connection.fetch(OWN, s.checked_team(team, who))]

        return await self._placing.run(work)

    async def history(self, team: str, who: Identity, *, before: int | None = None, limit: int = 50) -> list[OwnChange]:
        """What was ever changed about them, newest first; `before` is the id that ended the page before."""

        async def work(connection: Connection) -> list[OwnChange]:
            await s.act_for(connection, who)
            rows = await connection.fetch(HISTORY, s.checked_team(team, who), before, min(limit, PAGE_MOST))
            return [OwnChange(*row) for row in rows]

        return await self._placing.run(work)

    async def expiries(self, who: Identity, *, within_days: int = 30, limit: int = 100) -> list[Own]:
        """Those of all teams that run out soon, the next one first."""
        s.checked_admin(who)
        until = self._placing.now + dt.timedelta(days=within_days)

        async def work(connection: Connection) -> list[Own]:
            return [Own(*row) for row in await connection.fetch(UPCOMING, until, min(limit, PAGE_MOST))]

        return await self._placing.run(work)

    # Parts.

    async def _hold(self, connection: Connection, team: str, who: Identity) -> Tier:
        """The tier of a team that there is, whose row is held; an unknown one is not made by a slip of the pen."""
        rows = await connection.fetch(s.LOCK_TEAMS, [s.checked_team(team, who)])
        if not rows:
            raise Refused(
                Code.NOT_FOUND,
                f"there is no team {team!r}; it begins with its first business or its tier",
                field="team",
            )
        return cast(Tier, rows[0]["tier"])

    async def _take(
        self,
        connection: Connection,
        sql: str,
        team: str,
        platforms: Sequence[Platform],
        types: Sequence[Type],
        *,
        change: str,
        who: str | None,
    ) -> tuple[tuple[Platform, Type], ...]:
        rows = await connection.fetch(sql, team, platforms, types)
        gone = tuple((row["platform"], row["type"]) for row in rows)
        await connection.execute(NOTE, team, *_columns(gone), change, None, "", who, None)
        return gone

    async def _changed(
        self,
        connection: Connection,
        team: str,
        tier: Tier,
        changed: tuple[tuple[Platform, Type], ...],
        who: Identity,
        change: str,
        after: dict[str, object] | None,
    ) -> IntervalChange:
        if not changed:
            return IntervalChange(team, (), 0, None)
        moved = await self._placing.resettle(connection, team, tier)
        where = [f"{platform}/{type}" for platform, type in changed]
        entry = await audit(
            connection,
            who.user,
            f"schedules.custom_interval.{change}",
            f"team {team}",
            after={**(after or {}), "for": where, "moved": moved},
        )
        return IntervalChange(team, changed, moved, entry)


def _checked(hours: int, reason: str, expires_at: dt.datetime | None, now: dt.datetime) -> None:
    if not HOURS_LEAST <= hours <= HOURS_MOST:
        message = f"an interval has {HOURS_LEAST} to {HOURS_MOST} hours, not {hours}"
        raise Refused(Code.BAD_MESSAGE, message, field="hours", limit=HOURS_MOST)
    words(reason, "reason", REASON_MOST)
    if expires_at is not None and expires_at <= now:
        message = f"the interval would have run out already, at {expires_at.isoformat()}; name a later time, or none"
        raise Refused(Code.BAD_MESSAGE, message, field="expiresAt")


def _pairs(platforms: Sequence[Platform], types: Sequence[Type]) -> tuple[tuple[Platform, Type], ...]:
    pairs = tuple((p, t) for p in PLATFORMS if p in platforms for t in TYPES if t in types)
    if not pairs or set(platforms) - set(PLATFORMS) or set(types) - set(TYPES):
        message = f"name platforms among {', '.join(PLATFORMS)} and types among {', '.join(TYPES)}"
        raise Refused(Code.BAD_MESSAGE, message, field="platforms")
    return pairs


def _columns(pairs: Sequence[tuple[Platform, Type]]) -> tuple[list[str], list[str]]:
    return [platform for platform, _ in pairs], [type for _, type in pairs]
