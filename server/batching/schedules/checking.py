"""Whether what is stored is right: every check by name, how many rows fail it, and the first of them.

Each check reads for itself and none locks anything, so on a busy system one may see a change that another does not. Only the
provider's side is checked elsewhere; its result is one more `Check`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Final

from server.batching.checks import Check, Report
from server.batching.schedules.inputs import identifier
from server.batching.schedules.placing import Placing
from server.batching.schedules.plan import CUSTOM_TIER, TIER_HOURS, Platform
from server.edge.postgres import Connection
from server.errors import Refused

EXAMPLES: Final = 10
"""Of the rows that fail a check so many are named."""
PAGE: Final = 1_000
LATE_MINUTES: Final = 60
"""A slot that nobody has served for so long means that dispatch stands still."""

# Each answers rows (what, total): the first ones that fail, and how many there are.
CHECKS: Final[dict[str, tuple[str, str]]] = {
    "coverage": (
        "every profile of every business is in a reviews batch and in an overview batch",
        """select format('business %s of %s has no %s mapping on %s', b.id, b.team, t.type, i.platform)
        from schedules.business b cross join lateral jsonb_object_keys(b.identifiers) as i (platform)
        cross join (values ('reviews'), ('overview')) as t (type)
        left join schedules.mapping m on m.business_id = b.id and m.platform = i.platform and m.type = t.type
        where m.business_id is null""",
    ),
    "orphans": (
        "no mapping without its profile, no retry without its mapping, no batch without batch 0",
        """select format('mapping of business %s on %s (%s) belongs to no profile', m.business_id, m.platform, m.type)
        from schedules.mapping m left join schedules.business b on b.id = m.business_id and b.team = m.team
        where b.id is null or not b.identifiers ? m.platform
        union all
        select format('retry %s of business %s on %s (%s) belongs to no mapping', r.id, r.business_id, r.platform, r.type)
        from schedules.retry r left join schedules.mapping m using (business_id, platform, type) where m.business_id is null
        union all
        select format('%s %s every %s h has batches but no batch 0', sc.platform, sc.type, sc.interval_hours)
        from schedules.schedule sc group by platform, type, interval_hours having min(batch_index) > 0""",
    ),
    "counts": (
        "the count of a batch is the number of its mappings",
        """select format('schedule %s counts %s businesses and has %s', sc.id, sc.businesses, coalesce(m.n, 0))
        from schedules.schedule sc
        left join (select schedule_id, count(*) as n from schedules.mapping group by 1) m on m.schedule_id = sc.id
        where sc.businesses <> coalesce(m.n, 0)""",
    ),
    "capacity": (
        "no batch holds more than its capacity (rebalance relieves one whose capacity was lowered)",
        """select format('schedule %s has %s businesses, its capacity is %s', id, businesses, capacity)
        from schedules.schedule where businesses > capacity""",
    ),
    "isolation": (
        "whatever belongs to a business carries its team, and every table is under row-level security",
        """select format('%s of business %s carries the team %s, the business is of %s', x.what, x.business_id, x.team, b.team)
        from (
            select 'a mapping' as what, business_id, team from schedules.mapping
            union all select 'a retry', business_id, team from schedules.retry
            union all select distinct 'a review', business_id, team from schedules.review
            union all select distinct 'an overview', business_id, team from schedules.overview
        ) x join schedules.business b on b.id = x.business_id where b.team <> x.team
        union all
        select format('table %s has no row-level security', relname) from pg_class
        where relnamespace = 'schedules'::regnamespace and relkind = 'r' and not relrowsecurity""",
    ),
    "active": (
        "an active schedule has businesses (batch 0 of a line may be empty)",
        """select format('schedule %s (%s %s every %s h, batch %s) is active and empty', id, platform, type, interval_hours, batch_index)
        from schedules.schedule where active and not paused and businesses = 0 and batch_index > 0""",
    ),
    "identifiers": (
        "a mapping asks for what its business is called on that platform",
        """select format('business %s is %s on %s, its mapping (%s) asks for %s', b.id, b.identifiers ->> m.platform, m.platform,
            m.type, m.identifier)
        from schedules.mapping m join schedules.business b on b.id = m.business_id
        where b.identifiers ->> m.platform is distinct from m.identifier""",
    ),
    "intervals": (
        "a business is in a batch of its platform and type, with the interval of its team",
        """select format('business %s of %s is asked for every %s h on %s (%s), and should be every %s h', m.business_id, m.team,
            sc.interval_hours, m.platform, m.type, w.hours)
        from schedules.mapping m join schedules.schedule sc on sc.id = m.schedule_id join schedules.team t on t.team = m.team
        join unnest($1::text[], $2::text[], $3::int[]) as h (tier, type, hours) on h.tier = t.tier and h.type = m.type
        left join schedules.custom_interval c on c.team = m.team and c.platform = m.platform and c.type = m.type
            and t.tier = $4 and (c.expires_at is null or c.expires_at > $5)
        cross join lateral (select coalesce(c.interval_hours, h.hours) as hours) w
        where sc.interval_hours <> w.hours or sc.platform <> m.platform or sc.type <> m.type""",
    ),
    "slots": (
        "the next run of a schedule is on its grid, and none has waited for an hour",
        """select format('schedule %s is to run at %s, which is not a slot of its', id, next_run_at)
        from schedules.schedule
        where mod(extract(epoch from next_run_at)::bigint - offset_minutes * 60, interval_hours * 3600) <> 0
        union all
        select format('schedule %s should have run at %s', id, next_run_at)
        from schedules.schedule where not paused and businesses > 0 and provider_schedule_id is null and next_run_at < $1""",
    ),
}
FORMS: Final = """
select business_id, platform, identifier from schedules.mapping where type = 'reviews' and (business_id, platform::text) > ($1, $2::text)
order by business_id, platform, type limit $3"""


class Checking:
    """Validate."""

    def __init__(self, placing: Placing) -> None:
        self._placing = placing

    async def validate(self) -> Report:
        """Every check, each in a transaction of its own."""
        checks = [await self._check(name) for name in CHECKS]
        return Report((*checks, await self._forms()))

    async def _check(self, name: str) -> Check:
        meaning, sql = CHECKS[name]
        counted = f"select f.what, count(*) over () as total from ({sql}) as f (what) limit {EXAMPLES}"  # noqa: S608  ours

        async def work(connection: Connection) -> Check:
            rows = await connection.fetch(counted, *self._values(name))
            return Check(name, meaning, rows[0]["total"] if rows else 0, tuple(row["what"] for row in rows))

        return await self._placing.survey(work)

    def _values(self, name: str) -> Sequence[object]:
        now = self._placing.now
        if name == "slots":
            return [now - dt.timedelta(minutes=LATE_MINUTES)]
        if name != "intervals":
            return []
        rows = [(tier, type, hours) for tier, types in TIER_HOURS.items() for type, hours in types.items()]
        return [*(list(column) for column in zip(*rows, strict=True)), CUSTOM_TIER, now]

    async def _forms(self) -> Check:
        """Identifiers in the form that they are compared in, a page at a time as this needs Python."""
        failed, examples, after = 0, list[str](), (0, "")
        while True:
            rows = await self._page(after)
            for business_id, platform, known in rows:
                try:
                    right = identifier(platform, known)
                except Refused:
                    right = ""
                if right != known:
                    failed += 1
                    examples.append(f"business {business_id}: {known!r} is not how {platform} names one")
                    del examples[EXAMPLES:]
            if len(rows) < PAGE:
                return Check("forms", "identifiers are normalised", failed, tuple(examples))
            after = (rows[-1][0], rows[-1][1])

    async def _page(self, after: tuple[int, str]) -> list[tuple[int, Platform, str]]:
        async def work(connection: Connection) -> list[tuple[int, Platform, str]]:
            return [(r[0], r[1], r[2]) for r in await connection.fetch(FORMS, *after, PAGE)]

        return await self._placing.survey(work)
