"""The ledger: what every turn of every loop left behind, and all that can be read from it.

`record` is synchronous and never fails a turn. It keeps the last turns of each loop in memory, adds to the loop's totals
since this process started, and lays a row down for the table `ops.batch_runs`. `flush`, itself the turn of a loop, writes
these rows; while PostgreSQL is away they wait, and at the bound the oldest are dropped and counted. A loop that turns many
times a second is folded to one row a minute (its detail says how many turns and errors, and how long the longest took).

History reads this node's memory first and the table for what is older, or is another node's; without PostgreSQL it is what
memory has. Health, totals and metrics are pure folds over records, so a page, an alert and a test see the same.

Known imperfection: a node that is killed, or cancelled between the commit of a slice and its return, loses or repeats the
rows of at most one flush. They are statistics; nothing that must survive is kept here.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import reduce
from typing import Literal

import asyncpg
import orjson

from server.batching.loop import ERROR_TEXT_AT_MOST, Detail, Occasion, Turn, TurnRecord
from server.edge.clock import Clock
from server.edge.postgres import Database
from server.errors import Refused, Unavailable

# Turns of each loop kept in memory.
KEPT_PER_LOOP = 200
# Rows waiting for the table; at the bound the oldest are dropped.
BUFFER_AT_MOST = 10_000
# Rows written by one flush, and removed by one slice of the retention turn.
FLUSH_ROWS = 1_000
RETENTION_ROWS = 5_000
# One page of history.
PAGE_AT_MOST = 500
# A turn of a loop without an interval is late when it has run for longer.
LONG_TURN_MS = 60_000
MINUTE_MS = 60_000

Health = Literal["ok", "failing", "late", "paused", "idle"]
Records = Mapping[str, Sequence[TurnRecord]]


# What can be read from records: pure folds.


@dataclass(frozen=True, slots=True)
class LoopFacts:
    """What health has to know of a loop beside its records."""

    paused: bool = False
    led_here: bool = True
    running_since_ms: int | None = None
    interval_ms: int | None = None


def health(loop: LoopFacts, records: Sequence[TurnRecord], now_ms: int) -> Health:
    """How a loop is doing; `records` are its turns, oldest first."""
    if loop.paused:
        return "paused"
    if records and (records[-1].error is not None or 0 < records[-1].taken == records[-1].failed):
        return "failing"
    if loop.running_since_ms is not None and now_ms - loop.running_since_ms > (loop.interval_ms or LONG_TURN_MS):
        return "late"
    if records and records[-1].missed:
        return "late"
    return "ok" if records and loop.led_here else "idle"


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over turns. `errors` counts the turns that raised, `failed` the things that turns could not do."""

    turns: int = 0
    taken: int = 0
    done: int = 0
    failed: int = 0
    deferred: int = 0
    missed: int = 0
    errors: int = 0
    seconds: float = 0.0
    longest_s: float = 0.0
    last_at_ms: int = 0

    def plus(self, record: TurnRecord) -> "Totals":
        """These sums and one turn more."""
        return Totals(
            turns=self.turns + 1,
            taken=self.taken + record.taken,
            done=self.done + record.done,
            failed=self.failed + record.failed,
            deferred=self.deferred + record.deferred,
            missed=self.missed + record.missed,
            errors=self.errors + (record.error is not None),
            seconds=self.seconds + record.seconds,
            longest_s=max(self.longest_s, record.seconds),
            last_at_ms=max(self.last_at_ms, record.started_at_ms),
        )


def totals(records: Iterable[TurnRecord]) -> Totals:
    """The sums over these turns."""
    return reduce(Totals.plus, records, Totals())


@dataclass(frozen=True, slots=True)
class Metric:
    """One number for a monitoring system; a counter only grows while the process lives."""

    name: str
    kind: Literal["counter", "gauge"]
    meaning: str
    loop: str
    value: float


_COUNTERS = (
    ("turns", "turns taken"),
    ("taken", "things that turns took on"),
    ("done", "things done"),
    ("failed", "things that could not be done"),
    ("deferred", "things put off to a later turn"),
    ("missed", "ticks dropped because a turn ran long"),
    ("errors", "turns that raised"),
    ("seconds", "seconds spent in turns"),
)


def metrics(by_loop: Mapping[str, Totals]) -> list[Metric]:
    """The totals of all loops, as numbers for a monitoring system."""
    found = [
        Metric(f"batchcast_loop_{field}_total", "counter", meaning, loop, float(getattr(sums, field)))
        for field, meaning in _COUNTERS
        for loop, sums in by_loop.items()
    ]
    for loop, sums in by_loop.items():
        found.append(
            Metric("batchcast_loop_last_turn_seconds", "gauge", "start of the last turn", loop, sums.last_at_ms / 1000)
        )
    return found


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in a history: what comes after it is older. As text (`str`, `parse`) it travels in URLs."""

    started_at_ms: int
    number: int

    def __str__(self) -> str:
        return f"{self.started_at_ms}-{self.number}"

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """The cursor that `str` made."""
        ms, dash, number = text.partition("-")
        if not (dash and ms.isdecimal() and number.isdecimal() and len(text) <= 40):
            raise Refused("bad_message", f"{text[:40]!r} is not a cursor: pass on the one that came with the last page")
        return cls(int(ms), int(number))


@dataclass(frozen=True, slots=True)
class Row:
    """One row of `ops.batch_runs`: a turn, or a folded minute of them, of one node."""

    node: str
    turn: TurnRecord

    @property
    def cursor(self) -> Cursor:
        return Cursor(self.turn.started_at_ms, self.turn.number)


@dataclass(frozen=True, slots=True)
class Page:
    """Turns, newest first; `next` leads to the older ones, None at the end."""

    rows: list[Row]
    next: Cursor | None


def fold_minute(minute: TurnRecord | None, record: TurnRecord) -> TurnRecord:
    """One record for a minute of turns: sums, the first start, the last number and the last error."""
    before = minute.detail if minute is not None else {"turns": 0, "errors": 0, "longest_s": 0.0}
    detail: Detail = {
        "turns": int(before["turns"]) + 1,
        "errors": int(before["errors"]) + (record.error is not None),
        "longest_s": max(float(before["longest_s"]), record.seconds),
    }
    if minute is None:
        return replace(record, detail=detail)
    return replace(
        record,
        started_at_ms=minute.started_at_ms,
        seconds=minute.seconds + record.seconds,
        taken=minute.taken + record.taken,
        done=minute.done + record.done,
        failed=minute.failed + record.failed,
        deferred=minute.deferred + record.deferred,
        missed=minute.missed + record.missed,
        error=record.error or minute.error,
        detail=detail,
    )


# The ledger itself.


class Ledger:
    """The turns of this node: in memory, and on their way to the table."""

    def __init__(self, db: Database, clock: Clock, *, node: str = "local", keep_days: int = 30) -> None:
        self.node = node
        self.keep_days = keep_days
        self.dropped = 0
        self.totals: dict[str, Totals] = {}
        self._db = db
        self._clock = clock
        self._recent: dict[str, deque[TurnRecord]] = {}
        self._folded: set[str] = set()
        self._minutes: dict[str, TurnRecord] = {}
        self._waiting: deque[TurnRecord] = deque()

    def fold(self, loop: str) -> None:
        """From now on this loop leaves one row a minute."""
        self._folded.add(loop)

    def record(self, record: TurnRecord) -> None:
        """Note one turn."""
        self._recent.setdefault(record.loop, deque(maxlen=KEPT_PER_LOOP)).append(record)
        self.totals[record.loop] = self.totals.get(record.loop, Totals()).plus(record)
        if record.loop not in self._folded:
            self._lay_down(record)
            return
        minute = self._minutes.get(record.loop)
        if minute is not None and minute.started_at_ms // MINUTE_MS != record.started_at_ms // MINUTE_MS:
            self._lay_down(minute)
            minute = None
        self._minutes[record.loop] = fold_minute(minute, record)

    def recent(self, loop: str) -> list[TurnRecord]:
        """The last turns of a loop on this node, oldest first."""
        return list(self._recent.get(loop, ()))

    def records(self) -> dict[str, list[TurnRecord]]:
        """The last turns of all loops on this node, each oldest first: what rules of alerts are tested on."""
        return {loop: list(turns) for loop, turns in self._recent.items()}

    @property
    def waiting(self) -> int:
        """Rows that are not yet in the table."""
        return len(self._waiting)

    async def flush(self, occasion: Occasion) -> Turn:
        """The turn of the ledger's own loop: write a slice of the rows that wait, at shutdown all of them."""
        last = occasion.trigger == "shutdown"
        self._close_minutes(occasion.now_ms + (MINUTE_MS if last else 0))
        count = len(self._waiting) if last else min(FLUSH_ROWS, len(self._waiting))
        slice_ = [self._waiting.popleft() for _ in range(count)]
        dropped = self.dropped
        try:
            await self._write(slice_)
        except BaseException:
            self._put_back(slice_)
            raise
        return Turn(count, count, more=bool(self._waiting) and not last, detail={"dropped": dropped})

    async def retire(self, occasion: Occasion) -> Turn:
        """The turn of the retention loop: remove a slice of rows that are older than the days to keep."""
        until = moment(occasion.now_ms) - timedelta(days=self.keep_days)
        async with self._db.transaction() as connection:
            gone = await _remove_older(connection, until)
        return Turn(gone, gone, more=gone == RETENTION_ROWS)

    async def history(self, loop: str, limit: int = 50, before: Cursor | None = None) -> Page:
        """A page of turns, newest first."""
        limit = max(1, min(limit, PAGE_AT_MOST))
        mine = [Row(self.node, record) for record in reversed(self.recent(loop))]
        rows = [row for row in mine if before is None or _is_older(row.cursor, before)]
        with suppress(Unavailable):  # Then memory answers alone; that PostgreSQL is away is told elsewhere.
            rows += await self._stored(loop, limit + 1, before, mine[-1].cursor if mine else None)
        rows.sort(key=lambda row: (row.turn.started_at_ms, row.turn.number), reverse=True)
        return Page(rows[:limit], rows[limit - 1].cursor if len(rows) > limit else None)

    def _lay_down(self, record: TurnRecord) -> None:
        self._waiting.append(record)
        if len(self._waiting) > BUFFER_AT_MOST:
            self._waiting.popleft()
            self.dropped += 1

    def _close_minutes(self, now_ms: int) -> None:
        for loop, minute in list(self._minutes.items()):
            if minute.started_at_ms // MINUTE_MS < now_ms // MINUTE_MS:
                self._lay_down(self._minutes.pop(loop))

    def _put_back(self, slice_: list[TurnRecord]) -> None:
        room = max(0, BUFFER_AT_MOST - len(self._waiting))
        kept = slice_[len(slice_) - min(room, len(slice_)) :]
        self.dropped += len(slice_) - len(kept)
        self._waiting.extendleft(reversed(kept))

    async def _write(self, records: list[TurnRecord]) -> None:
        if not records:
            return
        async with self._db.transaction() as connection:
            await _insert(connection, self.node, records)

    async def _stored(self, loop: str, limit: int, before: Cursor | None, mine: Cursor | None) -> list[Row]:
        async with self._db.connection() as connection:
            return await _select(connection, loop, limit, before, self.node, mine)


def _is_older(cursor: Cursor, than: Cursor) -> bool:
    return (cursor.started_at_ms, cursor.number) < (than.started_at_ms, than.number)


# Rows.

INSERT = """
insert into ops.batch_runs
    (node, loop, number, trigger, started_at, seconds, taken, done, failed, deferred, missed, more, error, detail)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
"""

# Of this node only what is older than its memory: the rest was read there.
SELECT = """
select node, loop, number, trigger, started_at, seconds, taken, done, failed, deferred, missed, more, error, detail
from ops.batch_runs
where loop = $1
    and ($2::timestamptz is null or (started_at, number) < ($2, $3))
    and (node <> $4 or $5::timestamptz is null or (started_at, number) < ($5, $6))
order by started_at desc, number desc
limit $7
"""

# Ids grow with time, so the oldest rows are the first of the primary key: the slice is bounded also when none is old.
REMOVE = """
with oldest as (select id, started_at from ops.batch_runs order by id limit $2)
delete from ops.batch_runs where id in (select id from oldest where started_at < $1)
"""


async def _insert(connection: asyncpg.Connection, node: str, records: list[TurnRecord]) -> None:
    await connection.executemany(INSERT, [_columns(node, record) for record in records])


async def _select(
    connection: asyncpg.Connection, loop: str, limit: int, before: Cursor | None, node: str, mine: Cursor | None
) -> list[Row]:
    found = await connection.fetch(SELECT, loop, *_place(before), node, *_place(mine), limit)
    return [Row(str(columns[0]), _record(columns)) for columns in found]


async def _remove_older(connection: asyncpg.Connection, until: datetime) -> int:
    answer: str = await connection.execute(REMOVE, until, RETENTION_ROWS)
    return int(answer.rpartition(" ")[2])


def _columns(node: str, record: TurnRecord) -> tuple[object, ...]:
    return (
        node,
        record.loop,
        record.number,
        record.trigger,
        moment(record.started_at_ms),
        record.seconds,
        record.taken,
        record.done,
        record.failed,
        record.deferred,
        record.missed,
        record.more,
        None if record.error is None else storable(record.error),
        _json(record.detail),
    )


def _record(columns: asyncpg.Record) -> TurnRecord:
    _, loop, number, trigger, started_at, seconds, taken, done, failed, deferred, missed, more, error, detail = columns
    return TurnRecord(
        loop=loop,
        number=number,
        trigger=trigger,
        started_at_ms=round(started_at.timestamp() * 1000),
        seconds=seconds,
        taken=taken,
        done=done,
        failed=failed,
        deferred=deferred,
        more=more,
        missed=missed,
        error=error,
        detail=orjson.loads(detail),
    )


def _place(cursor: Cursor | None) -> tuple[datetime | None, int | None]:
    return (None, None) if cursor is None else (moment(cursor.started_at_ms), cursor.number)


def moment(ms: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)


def storable(text: str) -> str:
    """PostgreSQL takes neither NUL nor half a surrogate pair; a text from an error may hold both."""
    return text.replace("\x00", "�").encode("utf-8", "replace").decode("utf-8")


def _json(detail: Detail) -> str:
    clean = {storable(key): storable(value) if isinstance(value, str) else value for key, value in detail.items()}
    try:
        return orjson.dumps(clean).decode()
    except TypeError:  # A number that JSON cannot hold must not keep all other rows out of the table.
        return orjson.dumps({"unreadable": repr(clean)[:ERROR_TEXT_AT_MOST]}).decode()
