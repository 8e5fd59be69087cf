"""What time alone makes true: slots whose time has come are expired, cooldowns that are over are forgotten, old rows go.

Each turn is one bounded slice; all of it may be done twice, by anybody. Booked slots stay as they are, past or not: they are
what was sold. Kept for `keep_days`: other slots, items of runs and the runs themselves, verifications, and rotations, of
which the last one of a person always stays, as the next follows it.
"""

from __future__ import annotations

from typing import Final

from server.batching.tiers.store import serving
from server.edge.postgres import Database

SLICE: Final = 5_000

# The bound from below is what makes this cheap: rows that were on offer before it have been looked at.
EXPIRE: Final = """
with due as (
    select id from tiers.availability
    where status = 'available' and starts_at > to_timestamp($1::float8) and starts_at <= clock_timestamp() limit $2 for update skip locked
)
update tiers.availability a set status = 'expired' from due where a.id = due.id"""
SLICES: Final = {
    "cooldowns": """
delete from tiers.city_cooldown where ctid = any (array(
    select ctid from tiers.city_cooldown where until <= current_date and $1::int > 0 limit $2))""",
    "slots": """
delete from tiers.availability where id = any (array(
    select id from tiers.availability where starts_at < current_date - $1::int and status in ('expired', 'cancelled') limit $2))""",
    "rotations": """
delete from tiers.rotations where ctid = any (array(
    select r.ctid from tiers.rotations r where r.ends_on < current_date - $1::int and exists (
        select from tiers.rotations n where n.celebrity_id = r.celebrity_id and n.starts_on >= r.ends_on) limit $2))""",
    "items": """
delete from tiers.run_items where ctid = any (array(
    select i.ctid from tiers.runs r join tiers.run_items i on i.run_id = r.id
    where r.finished_at < current_date - $1::int and (r.month is null or r.month < current_date - $1::int) limit $2))""",
    "runs": """
delete from tiers.runs where id = any (array(
    select r.id from tiers.runs r where r.finished_at < current_date - $1::int and not exists (
        select from tiers.run_items i where i.run_id = r.id) limit $2))""",
    "verifications": """
delete from tiers.verifications where id = any (array(
    select id from tiers.verifications where at < current_date - $1::int limit $2))""",
}


async def expire(db: Database, since_s: float) -> int:
    """Slots that began after that and by now; how many, SLICE at most."""
    async with serving(db) as connection:
        return _count(await connection.execute(EXPIRE, since_s, SLICE))


async def clean(db: Database, keep_days: int) -> dict[str, int]:
    """One slice of everything that is old; how many of what."""
    found = {}
    for name, sql in SLICES.items():
        async with serving(db) as connection:
            found[name] = _count(await connection.execute(sql, keep_days, SLICE))
    return found


def _count(answer: str) -> int:
    return int(answer.split()[-1])
