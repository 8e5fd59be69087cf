"""Lets go of what a frozen worker holds, on a PostgreSQL that cannot do that itself.

A worker that freezes between two statements is idle in its transaction, and PostgreSQL ends that (`claims.ACT`). One that freezes
between the parts of one statement counts as active, waiting for its client: from version TIMED_TRANSACTIONS on transaction_timeout
ends that too. On older ones this loop does: a session that has written to the queue, is in the middle of a statement and has been
waiting for its client for longer than HELD_MOST_S is ended. Its worker's row locks are gone then, and the jobs can be rescued.

It ends sessions of its own user only: PostgreSQL allows no more to a user without attributes.
"""

from __future__ import annotations

from typing import Final

import structlog

from server.batching.loop import Occasion, Turn
from server.edge.postgres import Database
from server.edge.rights import TIMED_TRANSACTIONS

LOOP: Final = "imports-frozen"
LOOK_MS: Final = 5_000
HELD_MOST_S: Final = 20.0

END: Final = """
select count(*) filter (where pg_terminate_backend(a.pid)) from pg_stat_activity a
where a.datname = current_database() and a.usename = current_user and a.state = 'active' and a.wait_event = 'ClientRead'
    and a.xact_start < clock_timestamp() - make_interval(secs => $1)
    and exists (select from pg_locks l where l.pid = a.pid and l.mode = 'RowExclusiveLock' and l.granted
        and l.relation = 'imports.batch_processing_queue'::regclass)"""

log = structlog.get_logger()


async def needed(db: Database) -> bool:
    """Is this a PostgreSQL that lets a transaction last for ever?"""
    async with db.connection() as connection:
        return bool(connection.get_server_version().major < TIMED_TRANSACTIONS)


class Thaw:
    """The turn of the loop."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def turn(self, occasion: Occasion) -> Turn:
        """End them."""
        async with self._db.connection() as connection:
            ended: int = await connection.fetchval(END, HELD_MOST_S)
        if ended:
            log.warning("frozen sessions ended", sessions=ended, seconds=HELD_MOST_S)
        return Turn(ended, ended)
