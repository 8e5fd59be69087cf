"""One connection outside of the pool, for what belongs to a session: LISTEN, advisory locks.

It is made at the first `use` and again at the first one after a loss, so nobody has to reconnect. `prepare` is called
with each new connection, `lost` when one ends that we did not cut. Whatever raises inside `use`, a cancellation too,
cuts the connection: nobody can know what the session was left with, and a cut lets go of its locks. Trouble of the
world leaves as `Unavailable`; so does an answer that takes longer than ANSWER_LIMIT_S, as that of an end that has gone silently.
Users take turns: two `use` at the same time are a bug of theirs, which asyncpg reports.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from server.edge.postgres import ANSWER_LIMIT_S, WORLD, Connection, Database, trouble
from server.errors import Unavailable


class Line:
    """A session with PostgreSQL that is replaced when it breaks."""

    def __init__(
        self,
        db: Database,
        prepare: Callable[[Connection], Awaitable[None]],
        lost: Callable[[], None] | None = None,
    ) -> None:
        self._db = db
        self._prepare = prepare
        self._lost = lost
        self._connection: Connection | None = None

    @asynccontextmanager
    async def use(self) -> AsyncIterator[Connection]:
        """The connection, which is the same as last time unless it was lost since."""
        try:
            yield await self._ready()
        except WORLD as error:
            self.cut()
            what = trouble(error)
            if what is None:
                raise
            raise Unavailable(what.message, what.retry_after_s) from error
        except BaseException:
            self.cut()
            raise

    def cut(self) -> None:
        """End the session now; PostgreSQL lets go of all that it held."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def _ready(self) -> Connection:
        if self._connection is not None and not self._connection.is_closed():
            return self._connection
        self._connection = await self._db.dedicated(answer_limit_s=ANSWER_LIMIT_S)
        self._connection.add_termination_listener(self._ended)
        await self._prepare(self._connection)
        return self._connection

    def _ended(self, connection: object) -> None:
        if connection is self._connection and self._lost is not None:
            self._lost()
