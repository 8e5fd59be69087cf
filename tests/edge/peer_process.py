"""Another node in an operating-system process of its own, for tests of what nodes do to each other.

As a program (`python -m tests.edge.peer_process lead|bus DSN NODE [LEASE_S]`) it takes part in the election or on the
bus, says in JSON lines what happens to it, and does what it is told in lines of words. `Peer` is the test's end of it.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import structlog

from server.batching.loop import Loop, Occasion, Turn
from server.edge.bus import Bus, Envelope
from server.edge.clock import SystemClock
from server.edge.leader import Leadership, NotLeader
from server.edge.postgres import Database
from server.edge.tasks import Tasks
from server.errors import Unavailable

ROOT = Path(__file__).parent.parent.parent
PATIENCE_S = 60

Message = dict[str, object]


class Peer:
    """A running peer: what it said so far, and how to talk to it."""

    def __init__(self, process: asyncio.subprocess.Process, node: str) -> None:
        self.process = process
        self.node = node
        self.heard: list[Message] = []

    @classmethod
    async def start(cls, stack: AsyncExitStack, role: str, dsn: str, node: str, *more: object) -> "Peer":
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tests.edge.peer_process", role, dsn, node, *map(str, more)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
        )
        peer = cls(process, node)
        stack.push_async_callback(peer.end)
        return peer

    async def told(self, fits: Callable[[Message], bool]) -> Message:
        """The first message from now on that fits."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            async for line in self.process.stdout:
                message: Message = json.loads(line)
                self.heard.append(message)
                if fits(message):
                    return message
        raise AssertionError(f"{self.node} ended before it said so; it said {self.heard[-5:]}")

    async def tell(self, *words: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write((" ".join(map(str, words)) + "\n").encode())
        await self.process.stdin.drain()

    async def ask(self, *words: object) -> Message:
        await self.tell(*words)
        return await self.told(lambda message: message.get("answer") == words[0])

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def end(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


# What runs in the other process.


def say(**message: object) -> None:
    print(json.dumps(message), flush=True)


async def lead(db: Database, tasks: Tasks, node: str, lease_s: str) -> Callable[..., object]:
    """Take part in the election; tell each change of the term."""
    leadership = Leadership(db, SystemClock(), node=node, lease_s=float(lease_s))
    told: list[int | None] = [0]

    async def turn(_: Occasion) -> Turn:
        await leadership.step()
        if leadership.term != told[-1]:
            told.append(leadership.term)
            say(term=leadership.term, leader=leadership.leader())
        return Turn(1, 1)

    run(tasks, "leader", turn, leadership.interval_s)

    async def write(term: str) -> Message:
        try:
            async with db.transaction() as connection:
                await leadership.fenced(connection, int(term))
                await connection.execute("insert into led (node, term) values ($1, $2)", node, int(term))
        except NotLeader as refusal:
            return {"written": False, "leads": leadership.leads(), "why": refusal.message}
        return {"written": True, "leads": leadership.leads()}

    async def hold(term: str) -> Message:
        """Begin a fenced transaction and leave it open."""
        transaction = db.transaction()
        await leadership.fenced(await transaction.__aenter__(), int(term))
        held.append(transaction)
        return {}

    async def resign() -> Message:
        await leadership.resign()
        return {"leads": leadership.leads()}

    held: list[object] = []
    return {"write": write, "hold": hold, "resign": resign}.__getitem__


async def bus(db: Database, tasks: Tasks, node: str) -> Callable[..., object]:
    """Publish what is told, tell what is heard."""
    ears = Bus(db, node=node)

    async def hear(messages: list[Envelope]) -> None:
        for one in messages:
            say(node=one.node, seq=one.seq, number=one.payload["number"], own=one.own)

    async def turn(_: Occasion) -> Turn:
        progress = await ears.step()
        return Turn(progress.count, progress.count, more=progress.more)

    ears.subscribe({"numbers"}, hear, {})
    ears.woken = run(tasks, "bus", turn, 1.0).wake

    async def publish(start: str, end: str) -> Message:
        """Numbers in transactions of their own; every third one is rolled back at first, and then said again."""
        for number in range(int(start), int(end)):
            if number % 3 == 0:
                await publish_and_roll_back(number)
            async with db.transaction() as connection:
                await ears.publish(connection, "numbers", {"number": number})
        return {}

    async def publish_and_roll_back(number: int) -> None:
        try:
            async with db.transaction() as connection:
                await ears.publish(connection, "numbers", {"number": -number})
                raise Unavailable("thought better of it")
        except Unavailable:
            return

    return {"publish": publish}.__getitem__


def run(tasks: Tasks, name: str, turn: Callable[[Occasion], object], interval_s: float) -> Loop:
    loop = Loop(name, turn, clock=SystemClock(), record=lambda _: None, interval_ms=round(interval_s * 1000))  # type: ignore[arg-type]
    loop.wake()
    tasks.start(name, loop.run())
    return loop


async def obey(verbs: Callable[..., object]) -> None:
    """Do what comes in on standard input, line by line, until it ends."""
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async for line in lines:
        verb, *words = line.decode().split()
        answer = await verbs(verb)(*words)  # type: ignore[operator]
        say(answer=verb, **answer)


async def main(role: str, dsn: str, node: str, *more: str) -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # Standard output is the test's.
    db = await Database.open(dsn, clock=SystemClock())
    tasks = Tasks()
    verbs = await {"lead": lead, "bus": bus}[role](db, tasks, node, *more)  # type: ignore[operator]
    say(started=os.getpid())
    await obey(verbs)
    await tasks.close()
    await db.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
