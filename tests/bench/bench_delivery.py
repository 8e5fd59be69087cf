"""What it costs to deliver a frame, beside other libraries and the bare transport."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Final

from tests.bench.clients import Clients
from tests.bench.delivery import SENDERS, SIZE, Process
from tests.bench.suite import Context, Row, compare

CONNECTIONS: Final = 200
SWEEPS: Final = 50


def delivery(context: Context) -> Iterator[Row]:
    """CPU of a distinct frame of 1 KiB, from handing it over until the kernel has it."""
    sweeps = context.size(SWEEPS, 5)
    with ExitStack() as stack:
        ways = {name: _way(name, sweeps, stack) for name in SENDERS}
        times = compare(ways, rounds=9)
    each = {name: timing.seconds / (sweeps * CONNECTIONS) * 1e6 for name, timing in times.items()}
    yield Row(
        "delivered frame",
        f"CPU of a distinct frame of {SIZE} bytes against one built beforehand and written to the raw transport",
        times["ours"] / times["raw transport"],
        "x",
        1.3,
        1.1,
        against={
            name: times[name] / times["raw transport"] for name in SENDERS if name not in ("ours", "raw transport")
        },
        note=", ".join(f"{name} {micros:.1f} us" for name, micros in each.items()),
    )


def _way(name: str, sweeps: int, stack: ExitStack) -> Callable[[], float]:
    """A sender with its clients; both live until the stack ends. What was sent has been read before the next turn begins."""
    sender = Process(name)
    stack.callback(sender.close)
    clients = stack.enter_context(Clients())
    clients.connect(sender.port, CONNECTIONS)

    def send() -> float:
        clients.expect(b"{", sweeps * CONNECTIONS)
        seconds = sender.send(sweeps, CONNECTIONS)
        clients.heard()
        return seconds

    return send


BENCHES: Final = (delivery,)
