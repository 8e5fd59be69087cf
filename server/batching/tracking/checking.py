"""`verify`: every sum of the money anew, from the ledger, and what differs by name.

All checks read one snapshot, so what goes on meanwhile makes none of them fail. None locks anything.
"""

from __future__ import annotations

from typing import Final

from server.batching.checks import Check, Report
from server.batching.tracking.store import ACT, SERVICE
from server.edge.postgres import Connection, Database

EXAMPLES: Final = 10
"""Of the rows that fail a check so many are named."""
SNAPSHOT: Final = "set transaction isolation level repeatable read, read only"

# Each answers one text a row that fails.
CHECKS: Final[dict[str, tuple[str, str]]] = {
    "campaign-spent": (
        "what a campaign has spent is the sum of its ledger",
        """select format('campaign %s has spent %s cents, its ledger says %s', c.id, c.spent_cents, coalesce(l.cents, 0)) as what
        from tracking.campaigns c
        left join (select campaign_id, sum(amount_cents) as cents from tracking.earnings_ledger group by 1) l on l.campaign_id = c.id
        where c.spent_cents <> coalesce(l.cents, 0)""",
    ),
    "campaign-budget": (
        "no ledger of a campaign is above its budget less the reserve, and one is COMPLETED when nothing is left",
        """select format('campaign %s (%s) may grant %s cents, its ledger says %s', c.id, c.status, c.budget_cents - c.reserved_cents,
            coalesce(l.cents, 0)) as what
        from tracking.campaigns c
        left join (select campaign_id, sum(amount_cents) as cents from tracking.earnings_ledger group by 1) l on l.campaign_id = c.id
        where coalesce(l.cents, 0) > c.budget_cents - c.reserved_cents
            or (c.status <> 'COMPLETED' and c.spent_cents = c.budget_cents - c.reserved_cents)""",
    ),
    "submission-earned": (
        "what a submission has earned is the sum of its ledger",
        """select format('submission %s has earned %s cents, its ledger says %s', s.id, s.earned_cents, coalesce(l.cents, 0)) as what
        from tracking.clip_submissions s
        left join (select submission_id, sum(amount_cents) as cents from tracking.earnings_ledger group by 1) l on l.submission_id = s.id
        where s.earned_cents <> coalesce(l.cents, 0)""",
    ),
    "ledger-owner": (
        "a line of the ledger names the campaign and the creator of its submission",
        """select format('line %s of submission %s names campaign %s and %s, not %s and %s', l.id, s.id, l.campaign_id, l.creator,
            s.campaign_id, s.creator) as what
        from tracking.earnings_ledger l left join tracking.clip_submissions s on s.id = l.submission_id
        where (l.campaign_id, l.creator) is distinct from (s.campaign_id, s.creator)""",
    ),
    "entitlement": (
        "no line grants more than its count amounts to: the ledger up to it is covered by the best count of then",
        """select format('submission %s of campaign %s was granted %s cents, for %s views above its baseline it gets %s', s.id, c.id,
            s.earned_cents, greatest(0, coalesce(k.best_views, 0) - coalesce(s.baseline_views, 0)), e.cents) as what
        from tracking.clip_submissions s join tracking.campaigns c on c.id = s.campaign_id join tracking.clips k on k.id = s.clip_id
        cross join lateral (
            select case when s.baseline_views is null then 0
                else greatest(0, coalesce(k.best_views, 0) - s.baseline_views) * c.rate_cents / 1000 end as cents
        ) e
        where s.earned_cents > e.cents and not exists (
            select from tracking.view_tracking v where v.clip_id = s.clip_id and v.state = 'accepted' and v.observed_at < s.baseline_at)""",
    ),
    "owed": (
        "an APPROVED submission of an ACTIVE campaign has got what its best count amounts to",
        """select format('submission %s of campaign %s has earned %s cents and should have %s', s.id, c.id, s.earned_cents, e.cents) as what
        from tracking.clip_submissions s join tracking.campaigns c on c.id = s.campaign_id join tracking.clips k on k.id = s.clip_id
        cross join lateral (select greatest(0, k.best_views - s.baseline_views) * c.rate_cents / 1000 as cents) e
        where c.status = 'ACTIVE' and s.status = 'APPROVED' and s.baseline_views is not null and s.earned_cents < e.cents""",
    ),
    "final": (
        "in a COMPLETED campaign what a submission earned in all is fixed, elsewhere nothing is",
        """select format('submission %s of campaign %s (%s) earned %s cents, its final earnings say %s', s.id, c.id, c.status,
            s.earned_cents, coalesce(s.final_cents::text, 'nothing')) as what
        from tracking.clip_submissions s join tracking.campaigns c on c.id = s.campaign_id
        where s.final_cents is distinct from case when c.status = 'COMPLETED' and (s.status = 'APPROVED' or s.final_cents is not null)
            then s.earned_cents end""",
    ),
    "best-views": (
        "the best count of a clip is one that was counted, and none that was counted is above it",
        """select format('clip %s has the best count %s, its observations say %s', k.id, coalesce(k.best_views::text, 'none'),
            v.best) as what
        from tracking.clips k join (
            select clip_id, max(views) as best from tracking.view_tracking where state in ('counted', 'accepted') group by 1
        ) v on v.clip_id = k.id
        where k.best_views is null or k.best_views < v.best""",
    ),
    "claimed": (
        "what payout requests took from a submission is the sum of those that are open or paid",
        """select format('submission %s has %s cents claimed, its requests say %s', s.id, s.claimed_cents, coalesce(i.cents, 0)) as what
        from tracking.clip_submissions s left join (
            select i.submission_id, sum(i.amount_cents) as cents from tracking.payout_items i
            join tracking.payout_requests r on r.id = i.request_id and r.status in ('PENDING', 'APPROVED', 'COMPLETED') group by 1
        ) i on i.submission_id = s.id
        where s.claimed_cents <> coalesce(i.cents, 0)""",
    ),
    "requests": (
        "a payout request is the sum of its items, all of its creator",
        """select format('payout request %s of %s is over %s cents, its items say %s', r.id, r.creator, r.amount_cents,
            coalesce(sum(i.amount_cents), 0)) as what
        from tracking.payout_requests r left join tracking.payout_items i on i.request_id = r.id and i.creator = r.creator
        left join tracking.clip_submissions s on s.id = i.submission_id and s.creator = r.creator
        group by r.id having r.amount_cents <> coalesce(sum(i.amount_cents) filter (where s.id is not null), 0)""",
    ),
    "payouts": (
        "a request is COMPLETED if and only if its payout says the same amount, fee and net; a reverted one likewise",
        """select format('payout request %s is %s, its payout says %s', r.id, r.status,
            case when p.id is null then 'nothing'
                else format('%s cents, fee %s, net %s, reverted %s', p.amount_cents, p.fee_cents, p.net_cents, p.reverted_at) end) as what
        from tracking.payout_requests r left join tracking.payouts p on p.request_id = r.id
        where (r.status in ('COMPLETED', 'REVERTED')) <> (p.id is not null)
            or (p.id is not null and ((p.amount_cents, p.fee_cents, p.net_cents, p.creator)
                is distinct from (r.amount_cents, r.fee_cents, r.net_cents, r.creator)
                or (p.reverted_at is not null) <> (r.status = 'REVERTED')))""",
    ),
    "told": (
        "every creator of a COMPLETED campaign was told, once",
        """select format('%s was told %s times that campaign %s is complete', x.creator, count(n.id), x.id) as what
        from (
            select distinct c.id, c.activation, s.creator from tracking.campaigns c
            join tracking.clip_submissions s on s.campaign_id = c.id and s.status = 'APPROVED' where c.status = 'COMPLETED'
        ) x left join tracking.notifications n on n.key = format('campaign-completed:%s:%s:%s', x.id, x.activation, x.creator)
        group by x.id, x.creator having count(n.id) <> 1""",
    ),
}
PAGE: Final = "select what, count(*) over () as failed from ({sql}) f order by what limit $1"


async def verify(db: Database) -> Report:
    """Every check, in one snapshot."""
    async with db.transaction() as connection:
        await connection.execute(SNAPSHOT)
        await connection.execute(ACT, SERVICE, "")
        return Report(tuple([await _check(connection, name) for name in CHECKS]))


async def _check(connection: Connection, name: str) -> Check:
    meaning, sql = CHECKS[name]
    rows = await connection.fetch(PAGE.format(sql=sql), EXAMPLES)
    return Check(name, meaning, rows[0]["failed"] if rows else 0, tuple(row["what"] for row in rows))
