"""What the user of DATABASE_URL must be allowed, and what an administrator runs when it is not.

The least that serves, on a PostgreSQL from OLDEST on: a user without any attribute, that may create in its database and act as the
roles named here.

    create role batchcast login password '...';             create database batchcast owner batchcast;
    create role batchcast_owner nologin;                    and so on for each of ROLES
    grant batchcast_owner to batchcast;

A user that may make roles (createrole) needs the last lines only where somebody else has made these roles. Migrations and the
doctor ask the same question, so that both say the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import asyncpg

OLDEST: Final = 15
"""Views under row-level security (security_invoker) came with it."""
TIMED_TRANSACTIONS: Final = 17
"""From it on PostgreSQL ends a transaction that lasts too long, whatever its client is at."""
ROLES: Final = (
    "batchcast_owner",
    "batchcast_worker",
    "batchcast_team",
    "batchcast_schedules",
    "batchcast_reader",
    "batchcast_tiers",
    "batchcast_creator",
    "batchcast_tracking",
)
"""Whom the migrations make, or find made: two for the imports, two for the schedules, two for the tiers, two for the tracking."""

# Before 16 membership and acting as a role were one.
RIGHTS: Final = """
select current_user as name, current_database() as database, current_setting('server_version_num')::int / 10000 as version,
    has_database_privilege(current_database(), 'create') as may_create,
    (select rolcreaterole or rolsuper from pg_roles where rolname = current_user) as may_make_roles,
    array (select r.rolname::text from pg_roles r where r.rolname = any ($1::text[])) as there,
    array (select r.rolname::text from pg_roles r where r.rolname = any ($1::text[]) and pg_has_role(current_user, r.oid,
        case when current_setting('server_version_num')::int >= 160000 then 'set' else 'member' end)) as acts_as,
    array (select r.rolname::text from pg_roles r where r.rolname = any ($1::text[]) and pg_has_role(current_user, r.oid,
        'member with admin option')) as grants"""


@dataclass(frozen=True, slots=True)
class Rights:
    """What the user may. `missing` are roles that are not there, `barred` those that it may not act as."""

    user: str
    database: str
    version: int
    may_create: bool
    may_make_roles: bool
    missing: tuple[str, ...]
    barred: tuple[str, ...]

    @property
    def lacks(self) -> tuple[str, ...]:
        """What is missing, in words."""
        words = []
        if self.version < OLDEST:
            words.append(f"PostgreSQL is version {self.version}, and {OLDEST} is the oldest that serves")
        if not self.may_create:
            words.append(f"the user {self.user} may not create in the database {self.database}")
        if self.missing and not self.may_make_roles:
            words.append(f"there is no role {', '.join(self.missing)}, and the user {self.user} may not make one")
        if self.barred:
            words.append(f"the user {self.user} may not act as {', '.join(self.barred)}")
        return tuple(words)

    @property
    def remedy(self) -> str:
        """What an administrator runs, as SQL."""
        user = f'"{self.user}"'
        sql = [] if self.may_create else [f'grant create on database "{self.database}" to {user};']
        unmade = () if self.may_make_roles else self.missing
        sql += [f"create role {role} nologin;" for role in unmade]
        wanted = (*unmade, *self.barred)
        return " ".join([*sql, f"grant {', '.join(wanted)} to {user};"] if wanted else sql)


async def rights(connection: asyncpg.Connection[asyncpg.Record]) -> Rights:
    """Ask PostgreSQL."""
    row = await connection.fetchrow(RIGHTS, list(ROLES))
    assert row is not None
    missing = tuple(role for role in ROLES if role not in row["there"])
    # What it may grant, it grants itself; before 16 who may make roles may grant all of them.
    within = {*row["acts_as"], *row["grants"]}
    may_grant_all = row["may_make_roles"] and row["version"] < 16
    barred = () if may_grant_all else tuple(role for role in ROLES if role in row["there"] and role not in within)
    return Rights(
        row["name"], row["database"], row["version"], row["may_create"], row["may_make_roles"], missing, barred
    )
