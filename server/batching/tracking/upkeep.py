"""Forgetting what is old: counts that settled long ago, and what creators were told. The ledger and payouts stay.

    gone = await forget(db, keep_days)      one slice; call again while it answers FORGET_SLICE or more

Counts that wait for a review stay, and those that an admin has accepted; so does what creators were told of the end of a campaign, as
long as that is COMPLETED. What is gone cannot be paid again: the same observation, should it come once more, is older than the
clip's last one.
"""

from __future__ import annotations

from typing import Final

from server.batching.tracking.store import serving
from server.edge.postgres import Database

FORGET_SLICE: Final = 5_000
"""Rows of a table that one call removes at most."""

VIEWS: Final = """
delete from tracking.view_tracking where ctid = any(array(
    select ctid from tracking.view_tracking
    where observed_at < clock_timestamp() - make_interval(days => $1) and state not in ('held', 'accepted') limit $2))"""
NOTIFICATIONS: Final = """
delete from tracking.notifications where id in (
    select n.id from tracking.notifications n left join tracking.campaigns c on c.id = n.campaign_id and n.kind = 'campaign-completed'
    where n.created_at < clock_timestamp() - make_interval(days => $1) and c.status is distinct from 'COMPLETED' order by n.id limit $2)"""


async def forget(db: Database, keep_days: int) -> int:
    """Remove a slice of what is older than that; how many rows it was."""
    assert keep_days >= 1
    gone = 0
    for sql in (VIEWS, NOTIFICATIONS):
        async with serving(db) as connection:
            status = await connection.execute(sql, keep_days, FORGET_SLICE)
        gone += int(status.rpartition(" ")[2])
    return gone
