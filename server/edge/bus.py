"""The bus: nodes tell each other where to look, in order, and nothing that was committed is missed.

    publisher's transaction                      each process, in turns
    -----------------------                      -----------------------------------------------
    its own writes                               heads: last_seq of every node
    publish: ops.node.last_seq + 1               what lies between a position and the heads
             ops.outbox (node, seq, ...)         handler(messages)
    commit ------- NOTIFY, only a poke ------->  position moves to what was read

What it promises:
- A message is there if and only if the transaction that published it was committed.
- A handler gets the messages of one node in the order of seq, none left out, each once in the life of a subscription;
  between nodes there is no order. A handler that raises gets the same messages again in a later turn: at least once, and
  twice only for those that it did not take. Messages of the own node come too (`own`).
- A message that was removed before a subscriber came to it is not passed over in silence: `lost` is called first, so that
  it can read the truth again, and then the messages that are left follow.

Why a reader never passes over a message whose transaction is still open. Say it reads head h of a node in a snapshot,
then messages up to h in a later one.
1. To get seq s a transaction updates the node's row of ops.node, and its lock on that row lasts until it ends. So the
   transaction with s + 1 starts from the row as the one with s left it: committed, or rolled back, and then the number is
   given again. Numbers have no gaps and are committed in their order, also between two processes under one name.
2. Who sees last_seq = h sees a committed row, therefore everything up to h is committed, before the second snapshot.
3. Up to h each number that the second snapshot does not have was removed, and removal takes only the lowest numbers of a
   node. So when the lowest one found is not the position's successor, exactly the numbers between were removed.
A restarted node goes on with its counter, as the row survives. A counter that went back (a database restored from a
backup) is told as `lost`.

PostgreSQL's notification says nothing but "look": those of one transaction are one, those that come together are one
wake, one that is missed is made good by the next turn. The session that listens also reads, so a dead one is noticed
by reading; it is made anew at the next turn, and whatever came between is found by position.

The price: transactions of one node that publish are committed one after the other from `publish` on. Publish last,
just before the commit; two that lock other rows after it can deadlock (PostgreSQL then fails one of them).
Handlers run inside the turn, one after the other: they leave a note and return. One that raises fails the turn, and the
next turn serves it last, so that it holds up nobody else.
Leaves to others: when `step` and `retain` are called (Loops; set `woken` to the wake of the first), positions that
shall outlive the process, and what a message means. A payload is a hint: ids, not state.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import asyncpg
import orjson
import structlog

from server.edge.line import Line
from server.edge.postgres import Connection, Database

CHANNEL = "batchcast_bus"

# A payload names what changed; whoever has more to say says it in more messages. Beyond this it is a bug of ours.
PAYLOAD_BYTES = 65_536
# Numbers of one node that one turn reads at most; the rest follows in the next (`more`).
SLICE = 500
# Messages of one node that one turn of `retain` removes at most.
REMOVE_SLICE = 5_000
# A subscriber that is away for longer than this reads the truth again instead.
KEEP_S = 600.0
# Names of nodes that were silent for this long are forgotten, so that throw-away names do not pile up.
FORGET_NODE_S = 30 * 86_400.0
ANSWER_LIMIT_S = 10.0


def publishing(node: str, topic: str, payload: str, rows: str, hint: str = "true") -> str:
    """The parts `counter` and `said` of a statement that publishes one message among other things, when `rows` has a row; all four
    are SQL. The statement must be its transaction's last, as `publish` should be. One that has only this to say is PUBLISH.
    Where `hint` is false nobody is woken: who publishes much says HINT afterwards, once for all of it."""
    return f"""counter as (
    insert into ops.node as node (node, last_seq, published_at) select {node}, 1, clock_timestamp() from {rows}
    on conflict (node) do update set last_seq = node.last_seq + 1, published_at = clock_timestamp()
    returning last_seq
), said as (
    insert into ops.outbox (node, seq, topic, payload) select {node}, last_seq, {topic}, {payload} from counter, {rows}
    returning seq, case when {hint} then pg_notify('{CHANNEL}', '') end
)"""  # noqa: S608  SQL of ours


PUBLISH = f"with {publishing('$1', '$2', '$3', '(select) as once')} select seq from said"  # noqa: S608
PUBLISH_QUIETLY = f"with {publishing('$1', '$2', '$3', '(select) as once', 'false')} select seq from said"  # noqa: S608
HINT = f"select pg_notify('{CHANNEL}', '')"
HEADS = "select node, last_seq from ops.node"
# One row at least for each node: `first` is the lowest number still there; without a message the others are null.
READ = """
select asked.node, kept.first, message.seq, message.topic, message.payload,
    floor(extract(epoch from message.at) * 1000)::bigint as at_ms
from unnest($1::text[], $2::bigint[], $3::bigint[]) as asked (node, after, head)
cross join lateral (
    select coalesce(min(seq), asked.head + 1) as first from ops.outbox
    where node = asked.node and seq > asked.after and seq <= asked.head
) kept
left join lateral (
    select seq, topic, payload, at from ops.outbox
    where node = asked.node and seq >= kept.first and seq < kept.first + $5 and seq <= asked.head
        and topic = any ($4::text[])
    order by seq limit $5
) message on true
order by asked.node, message.seq
"""
# Old ones below the first that is not: a clock that was set back must not tear a hole.
REMOVE = """
with oldest as (
    select o.node, o.seq, bool_and(o.at <= clock_timestamp() - make_interval(secs => $1))
        over (partition by o.node order by o.seq) as old
    from ops.node n
    cross join lateral (select node, seq, at from ops.outbox where node = n.node order by seq limit $2) o
), removed as (
    delete from ops.outbox o using oldest where oldest.old and o.node = oldest.node and o.seq = oldest.seq
    returning o.node
)
select coalesce(sum(count), 0)::bigint as removed, coalesce(max(count), 0)::bigint as most
from (select count(*) from removed group by node) per_node
"""
FORGET = """
delete from ops.node n where published_at <= clock_timestamp() - make_interval(secs => $1)
    and not exists (select from ops.outbox o where o.node = n.node)
"""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Envelope:
    """One message: the seq-th of that node; `own` when the node is this one; `at_ms` by the database's clock."""

    node: str
    seq: int
    topic: str
    payload: dict[str, object]
    at_ms: int
    own: bool


@dataclass(frozen=True, slots=True)
class Lost:
    """Messages of a node after number `after` and before `first` were removed unread."""

    node: str
    after: int
    first: int


@dataclass(frozen=True, slots=True)
class Progress:
    """What a turn did (messages handed over, or removed), and whether there was more than it may do."""

    count: int
    more: bool


Handler: TypeAlias = Callable[[list[Envelope]], Awaitable[None]]
LostHandler: TypeAlias = Callable[[Lost], Awaitable[None]]
# What was asked (node, after, head) of all nodes that have something new; equal questions share one answer.
Question: TypeAlias = frozenset[tuple[str, int, int]]


@dataclass(frozen=True, slots=True)
class Stretch:
    """The numbers first..last of one node that were read in one go, and the messages among them that somebody wants."""

    node: str
    after: int
    first: int
    last: int
    messages: tuple[Envelope, ...]


class Subscription:
    """One subscriber's place in the stream of each node."""

    def __init__(
        self, topics: frozenset[str], handler: Handler, position: Mapping[str, int] | None, lost: LostHandler | None
    ) -> None:
        self.topics = topics
        self.closed = False
        self._handler = handler
        self._lost = lost
        self._position = None if position is None else dict(position)

    @property
    def position(self) -> dict[str, int] | None:
        """The last number taken from each node; None before the first turn."""
        return None if self._position is None else dict(self._position)

    def close(self) -> None:
        """No more messages; those already being handed over are the last."""
        self.closed = True

    def question(self, heads: Mapping[str, int]) -> Question:
        """What is new for it. Without a position it begins here; a node unknown to its position begins with 1."""
        known = heads if self._position is None else self._position
        self._position = {node: known.get(node, 0) for node in heads}
        return frozenset((node, after, heads[node]) for node, after in self._position.items() if after != heads[node])

    async def take(self, stretches: Iterable[Stretch]) -> int:
        """Hand over what was read; the position moves when the handler has returned. Answers the number of messages."""
        assert self._position is not None
        for stretch in stretches:
            await self._tell_lost(stretch)
        messages = [one for stretch in stretches for one in stretch.messages if one.topic in self.topics]
        if messages:
            await self._handler(messages)
        self._position.update({stretch.node: stretch.last for stretch in stretches})
        return len(messages)

    async def _tell_lost(self, stretch: Stretch) -> None:
        if stretch.first == stretch.after + 1:
            return
        log.warning("bus messages lost", node=stretch.node, after=stretch.after, first=stretch.first)
        if self._lost is not None:
            await self._lost(Lost(stretch.node, stretch.after, stretch.first))
        assert self._position is not None
        self._position[stretch.node] = stretch.first - 1


class Bus:
    """This node's end of the bus."""

    def __init__(self, db: Database, *, node: str) -> None:
        self.node = node
        self.woken: Callable[[], None] = _nothing
        self._db = db
        self._line = Line(db, self._listen, self._poked)
        self._one_turn = asyncio.Lock()
        self._subscriptions: list[Subscription] = []

    async def publish(
        self, connection: Connection, topic: str, payload: Mapping[str, object], *, hint: bool = True
    ) -> int:
        """Say it when this transaction commits; answers the message's number. To be called last in the transaction.

        Without the hint nobody is woken: who publishes in many transactions calls `hint` afterwards, once for several. (A commit
        with a notification waits for every other such commit of the database.)"""
        assert connection.is_in_transaction(), "a message belongs into the transaction of what it tells of"
        text = orjson.dumps(payload)
        assert len(text) <= PAYLOAD_BYTES, (
            f"a payload of {len(text)} bytes on {topic}, at most {PAYLOAD_BYTES}: send ids"
        )
        seq = await connection.fetchval(PUBLISH if hint else PUBLISH_QUIETLY, self.node, topic, text.decode())
        assert isinstance(seq, int)
        return seq

    async def hint(self) -> None:
        """Wake whoever listens: there is something that was published without a hint."""
        async with self._db.connection() as connection:
            await connection.execute(HINT)

    def subscribe(
        self,
        topics: Iterable[str],
        handler: Handler,
        position: Mapping[str, int] | None = None,
        *,
        lost: LostHandler | None = None,
    ) -> Subscription:
        """Hear those topics from a position on (`position()`, or a subscription's own); None: from the next turn on."""
        subscription = Subscription(frozenset(topics), handler, position, lost)
        self._subscriptions.append(subscription)
        self.woken()
        return subscription

    async def position(self, connection: Connection) -> dict[str, int]:
        """Where the bus stands. Taken before state is loaded, and subscribed from, it leaves nothing out."""
        return _numbers(await connection.fetch(HEADS))

    async def step(self) -> Progress:
        """One turn: listen if the session is new, read what is new, hand it over. Unavailable without PostgreSQL."""
        async with self._one_turn:
            heads = await self._heads()
            answers: dict[Question, list[Stretch]] = {}
            count, more = 0, False
            topics = sorted({topic for each in self._subscriptions for topic in each.topics})
            for subscription in self._round():
                question = subscription.question(heads)
                if question not in answers:
                    answers[question] = await self._read(question, topics)
                count += await subscription.take(answers[question])
                more = more or subscription.position != heads
        return Progress(count, more)

    async def retain(self, keep_s: float = KEEP_S) -> Progress:
        """One turn of removing what is older, lowest numbers first, and names long silent. Any node may do it."""
        async with self._db.transaction() as connection:
            row = await connection.fetchrow(REMOVE, keep_s, REMOVE_SLICE)
            assert row is not None
            await connection.execute(FORGET, max(keep_s, FORGET_NODE_S))
        return Progress(row["removed"], row["most"] >= REMOVE_SLICE)

    async def close(self) -> None:
        """Stop listening and handing over; a turn under way ends first."""
        self.woken = _nothing
        async with self._one_turn:
            for subscription in self._subscriptions:
                subscription.close()
            self._line.cut()

    def _round(self) -> Iterator[Subscription]:
        """Each that is open; whose turn it is goes to the end, so that one that raises comes last in the next round."""
        for subscription in list(self._subscriptions):
            self._subscriptions.remove(subscription)
            if not subscription.closed:
                self._subscriptions.append(subscription)
                yield subscription

    async def _listen(self, connection: Connection) -> None:
        await connection.add_listener(CHANNEL, self._poked)

    def _poked(self, *_: object) -> None:
        self.woken()

    async def _heads(self) -> dict[str, int]:
        async with self._line.use() as connection:
            return _numbers(await connection.fetch(HEADS, timeout=ANSWER_LIMIT_S))

    async def _read(self, question: Question, topics: list[str]) -> list[Stretch]:
        if not question:
            return []
        nodes, after, heads = zip(*sorted(question), strict=True)
        async with self._line.use() as connection:
            rows = await connection.fetch(READ, nodes, after, heads, topics, SLICE, timeout=ANSWER_LIMIT_S)
        found: dict[str, list[asyncpg.Record]] = {node: [] for node in nodes}
        for row in rows:
            found[row["node"]].append(row)
        return [self._stretch(*asked, found[asked[0]]) for asked in sorted(question)]

    def _stretch(self, node: str, after: int, head: int, rows: list[asyncpg.Record]) -> Stretch:
        first: int = rows[0]["first"]
        messages = tuple(self._envelope(row) for row in rows if row["seq"] is not None)
        return Stretch(node, after, first, min(first + SLICE - 1, head), messages)

    def _envelope(self, row: asyncpg.Record) -> Envelope:
        node: str = row["node"]
        return Envelope(node, row["seq"], row["topic"], orjson.loads(row["payload"]), row["at_ms"], node == self.node)


def _numbers(rows: list[asyncpg.Record]) -> dict[str, int]:
    return {row["node"]: row["last_seq"] for row in rows}


def _nothing() -> None:
    """The wake of a bus that nobody drives."""
