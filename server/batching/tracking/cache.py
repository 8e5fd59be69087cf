"""Counts that the provider gave, for a while: who asks again within that time is answered from here, and nothing is paid for twice.

    known = await look(connection, clips, ttl_s)       what is known of posts, and when it was seen
    await keep(connection, counts, actor, at)          as soon as a call has ended, before anything is made of its counts

A process that is killed between the answer and its settlement has lost nothing: the next look finds the count here, with the
moment at which it was taken, which with the clip is the observation's identity. A clip of which a submission waits for its
baseline is not answered from here: what was seen before it was submitted says nothing of what came after.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from server.edge.postgres import Connection

FORGET_SLICE: Final = 5_000
"""Rows that one call of `forget` removes at most."""

LOOK: Final = """
select c.id as clip_id, s.views, s.scraped_at from tracking.clips c
join tracking.scrape_cache s on s.platform = c.platform and s.post_id = c.post_id
where c.id = any($1) and not c.baseline_wanted and s.scraped_at > clock_timestamp() - make_interval(secs => $2)"""
KEEP: Final = """
insert into tracking.scrape_cache as s (platform, post_id, views, actor, scraped_at)
select c.platform, c.post_id, k.views, $3, $4
from unnest($1::bigint[], $2::bigint[]) as k (clip_id, views) join tracking.clips c on c.id = k.clip_id
order by c.platform, c.post_id
on conflict (platform, post_id) do update
set views = excluded.views, actor = excluded.actor, scraped_at = excluded.scraped_at where s.scraped_at < excluded.scraped_at"""
FORGET: Final = """
delete from tracking.scrape_cache where ctid = any(array(
    select ctid from tracking.scrape_cache where scraped_at <= clock_timestamp() - make_interval(secs => $1)
    order by scraped_at limit $2))"""


@dataclass(frozen=True, slots=True)
class Cached:
    """A count that is known, and when it was taken."""

    clip_id: int
    views: int
    at: dt.datetime


async def look(connection: Connection, clips: Sequence[int], ttl_s: float) -> dict[int, Cached]:
    """What is known of these, and is not too old."""
    if not clips or ttl_s <= 0:
        return {}
    rows = await connection.fetch(LOOK, list(clips), ttl_s)
    return {row["clip_id"]: Cached(row["clip_id"], row["views"], row["scraped_at"]) for row in rows}


async def keep(connection: Connection, counts: Mapping[int, int], actor: str, at: dt.datetime) -> None:
    """Counts of clips, taken at this moment; an older one changes nothing."""
    if counts:
        clips = sorted(counts)
        await connection.execute(KEEP, clips, [counts[clip] for clip in clips], actor, at)


async def forget(connection: Connection, ttl_s: float) -> int:
    """Remove a slice of what is too old to be used; how many it was."""
    status: str = await connection.execute(FORGET, ttl_s, FORGET_SLICE)
    return int(status.rpartition(" ")[2])
