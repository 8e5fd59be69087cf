"""What the public may look up: people with a tier, and what they cost. Under the reader's role, so excluded people,
people without a tier and packages that are not active do not exist here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from server.batching.tiers.rules import RULES, TIERS, Kind, Tier
from server.batching.tiers.store import PAGE_MOST, no_person
from server.edge.postgres import Connection

_VIEW: Final = """
    c.id, c.key, c.name, c.aliases, c.country, s.tier::text, s.timezone, s.max_monthly_slots, s.allow_physical, s.allow_virtual,
    p.cheapest, p.dearest
from tiers.celebrities c join tiers.celebrity_settings s on s.celebrity_id = c.id
left join lateral (
    select min(price_cents) as cheapest, max(price_cents) as dearest from tiers.celebrity_pricing r
    where r.celebrity_id = c.id and r.active
) p on true"""
SHOW: Final = f"select {_VIEW} where c.id = $1"
LIST: Final = f"""
select {_VIEW} where s.tier::text = any ($1::text[]) and ($2::text is null or c.country = $2) and c.id > $3
    and ($4::bigint is null and $5::bigint is null or exists (
        select from tiers.celebrity_pricing r where r.celebrity_id = c.id and r.active
            and r.price_cents >= coalesce($4, 0) and r.price_cents <= coalesce($5, r.price_cents)))
    and ($6::text is null or strpos(lower(c.name), $6) > 0)
order by c.id limit $7"""  # noqa: S608
PRICES: Final = """
select meeting_type::text, duration, price_cents from tiers.celebrity_pricing where celebrity_id = $1 and active
order by meeting_type, duration"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which people: all that is given must hold. Prices in cents: some active package lies within. `after`: the last id of
    the page before."""

    tiers: tuple[Tier, ...] = TIERS
    country: str | None = None
    price_from: int | None = None
    price_to: int | None = None
    search: str | None = None
    after: int = 0
    limit: int = 50

    @property
    def possible(self) -> list[Tier]:
        """Those of the tiers whose prices can lie within the bounds."""
        low, high = self.price_from or 0, self.price_to
        return [
            tier
            for tier in self.tiers
            if RULES[tier].price_cents[1] >= low and (high is None or RULES[tier].price_cents[0] <= high)
        ]


@dataclass(frozen=True, slots=True)
class Celebrity:
    """A person as everybody sees it. Prices are those of the cheapest and the dearest active package."""

    id: int
    key: str
    name: str
    aliases: Sequence[str]
    country: str | None
    tier: Tier
    timezone: str
    max_monthly_slots: int
    allow_physical: bool
    allow_virtual: bool
    from_cents: int | None
    to_cents: int | None


@dataclass(frozen=True, slots=True)
class PackageRow:
    """An active package."""

    meeting_type: Kind
    duration: int
    price_cents: int


async def listed(connection: Connection, wanted: Wanted) -> list[Celebrity]:
    """A page of people by id."""
    search = wanted.search.strip().lower() if wanted.search else None
    values = (wanted.possible, wanted.country, wanted.after, wanted.price_from, wanted.price_to, search or None)
    return [Celebrity(*row) for row in await connection.fetch(LIST, *values, min(wanted.limit, PAGE_MOST))]


async def shown(connection: Connection, person: int) -> Celebrity:
    """One person; Refused when there is none, or none for the public."""
    row = await connection.fetchrow(SHOW, person)
    if row is None:
        raise no_person(person)
    return Celebrity(*row)


async def prices(connection: Connection, person: int) -> list[PackageRow]:
    """What a person costs."""
    await shown(connection, person)
    return [PackageRow(*row) for row in await connection.fetch(PRICES, person)]
