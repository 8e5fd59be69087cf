"""Puts this server's feed among the others over the same database: what it says, what it hears, the flushes they share.

Builds Peers and Rounds (their modules say what they promise) around the writer and the turns, and adds their loops:

  peers          memory follows what others wrote                 peers-hint    wakes the others after this server's commits
  scores-walk    the leader has flushed: tell this one's viewers  scores-wanted the leader flushes because somebody asked
  nodes          this server's row is renewed, the others' are read
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from server.batching.loop import Loop, Occasion, Turn, TurnRecord
from server.batching.panel import Panel
from server.batching.parts import Lead
from server.batching.scores import cluster_store
from server.batching.scores.batch import Turns
from server.batching.scores.cluster_store import Node
from server.batching.scores.peers import HINT_GAP_MS, TOPIC, Peers
from server.batching.scores.rounds import RENEW_MS, TOPICS, Local, Rounds, Told
from server.edge.bus import Bus, Envelope
from server.edge.postgres import Connection
from server.settings import Settings

log = structlog.get_logger()


def shared(settings: Settings) -> bool:
    """May there be other servers over this one's database?"""
    if settings.cluster == "auto":
        return settings.database_url is not None
    return settings.cluster == "on"


@dataclass(frozen=True, slots=True)
class Cluster:
    """This server among the others."""

    bus: Bus
    panel: Panel
    peers: Peers
    rounds: Rounds

    def subscribe(self, position: Mapping[str, int]) -> None:
        """Hear everything from this position on, which was taken before memory was loaded."""
        self.bus.subscribe([TOPIC, *TOPICS], self._heard, position, lost=self.peers.lost)
        self.panel.loop("nodes").wake()

    async def _heard(self, envelopes: Sequence[Envelope]) -> None:
        """Events before flushes: what a flush published is noted when its number is."""
        await self.peers.take(list(envelopes))
        await self.rounds.take(envelopes)

    def led(self, flush: Loop) -> None:
        """This server has begun to lead: what the one before left undone is due."""
        self.panel.loop("scores-wanted").wake()
        if self.rounds.overdue():
            flush.wake()

    async def sums(self) -> dict[str, object]:
        """What statistics say of all servers, in place of what they say of one."""
        nodes = await self.rounds.nodes()
        return {
            "totalUsersUpdated": sum(node.users_updated for node in nodes),
            "registeredUsers": sum(node.registered_users for node in nodes),
            "nodes": [node_json(node) for node in nodes],
        }

    @property
    def walking(self) -> bool:
        """Are viewers being told of a flush of the leader's?"""
        return self.panel.loop("scores-walk").running


def join(
    turns: Turns,
    bus: Bus,
    panel: Panel,
    lead: Lead,
    flush: Loop,
    *,
    viewers: Callable[[], int],
    realign: Callable[[], None],
    record: Callable[[TurnRecord], None],
    observed: Callable[[TurnRecord], None],
) -> Cluster:
    """Wire it. `flush` is the loop of the batches, `observed` also counts them in the statistics."""

    def wake(name: str, after_ms: int = 0) -> None:
        panel.loop(name).wake(after_ms)

    def local() -> Local:
        return Local(viewers(), turns.statistics.frames, turns.desk.moved, flush.next_at_ms())

    async def walk(now_ms: int) -> Told:
        with turns.lag.watch():
            done = await turns.batch(now_ms)
        return Told(done.frames, done.deferred)

    peers = Peers(turns.db, turns.clock, bus, turns.desk, turns.writer, wake, lead.leads)
    rounds = Rounds(
        turns.db,
        turns.clock,
        bus,
        peers,
        lead,
        local=local,
        walk=walk,
        flush=flush.run_now,
        realign=realign,
        batching=lambda: turns.desk.tunables.enabled,
        wake=wake,
    )
    turns.writer.outbox = peers.tell
    turns.round, turns.moved_elsewhere = rounds, lambda: rounds.moved_elsewhere

    def add(
        name: str, turn: Callable[[Occasion], Awaitable[Turn]], interval_ms: int | None = None, gap_ms: int = 0
    ) -> None:
        how = observed if name == "scores-walk" else record
        loop = Loop(name, turn, clock=turns.clock, record=how, interval_ms=interval_ms, min_gap_ms=gap_ms)
        panel.add(loop, fold=name != "scores-walk")

    add("peers", peers.turn)
    add("peers-hint", peers.hint, gap_ms=HINT_GAP_MS)
    add("scores-walk", rounds.follow)
    add("scores-wanted", rounds.serve)
    add("nodes", rounds.renew, RENEW_MS)
    return Cluster(bus, panel, peers, rounds)


async def warn_of_others(connection: Connection) -> None:
    """A server that is told that it is alone, and is not, would not hear what the others write."""
    others = [node.node for node in await cluster_store.living(connection)]
    if others:
        log.warning("other servers found", servers=others, effect="they do not hear of this one", hint="set CLUSTER=on")


def node_json(node: Node) -> dict[str, object]:
    """A server, as statistics tell of it."""
    return {
        "node": node.node,
        "registeredUsers": node.registered_users,
        "totalUsersUpdated": node.users_updated,
        "lagMs": node.lag_ms,
        "leader": node.leads,
        "seenAt": node.seen_ms,
    }
