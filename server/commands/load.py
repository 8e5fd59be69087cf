"""`batchcast load`: drive a running server with real connections, and say how it bore it.

    viewers    connect a few at a time (the ramp), register somewhere, check seq and digest of every frame
    producers  with a token: events of their own round the viewers, then so many popularity updates a second over WebSocket
    at the end the answers still due are waited for, the events are removed, and the report is printed

The ids of these events begin with `load-` and the seed; what a run that was killed left behind, the next one with the same
seed overwrites and removes. Without a producer's token it only watches. ^C ends it early, with the report so far. Exit code 1:
a frame did not lead to what the server says this viewer holds, or a connection failed or broke.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import resource
import signal
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import typer
from pydantic.alias_generators import to_camel
from websockets.exceptions import InvalidURI

from server.client import Message
from server.commands.asking import DEFAULT_URL, AsJson, Token
from server.commands.calling import FAILED, Failed, Server, err, out, run, stop
from server.commands.load_peers import COUNTER, Latencies, Peer, Sender, Sightings, Tally, Watcher, connect
from server.commands.load_report import Quantiles, Report, quantiles, said
from server.commands.watching import ws_url
from server.commands.whatif import duration_ms
from server.edge.clock import SystemClock, process_seconds
from server.edge.tasks import abreast

RAMP: Final = 32
"""Connections that are being made at the same time."""
TICK_S: Final = 0.05
RATE_A_SENDER: Final = 2000
"""Updates a second over one connection; the server takes 5,000."""
WAITING_MOST: Final = 20_000
"""Updates without an answer; while there are so many, no more are sent, and what is not sent is not made up for."""
ANSWERS_S: Final = 10.0
DRAIN_S: Final = 0.5
"""After the last answer, for frames that are under way."""
EVENTS: Final = 200
VIEWERS_MOST: Final = 50_000
RATE_MOST: Final = 100_000
HOUR_MS: Final = 3_600_000
CITIES: Final = ((52.52, 13.405), (48.857, 2.352), (40.713, -74.006), (35.677, 139.65), (-23.551, -46.633))
WORLD: Final = (-180.0, -85.0, 180.0, 85.0)
CPU: Final = re.compile(r"^process_cpu_seconds_total ([\d.e+]+)$", re.MULTILINE)

Box = tuple[float, ...]
clock: Final = SystemClock()


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do. `duration_s` is what follows the ramp."""

    viewers: int
    rate: float
    duration_s: float
    high: float
    viewports: Sequence[Box]
    seed: int
    max_events: int

    @property
    def prefix(self) -> str:
        """How the ids of its events begin."""
        return f"load-{self.seed}-"


def load(
    viewers: Annotated[int, typer.Option("--viewers", min=0, max=VIEWERS_MOST, help="Connections that watch.")] = 100,
    rate: Annotated[float, typer.Option("--rate", min=0, max=RATE_MOST, help="Updates a second, by all.")] = 100,
    duration: Annotated[str, typer.Option("--for", help="How long, after all are connected: 30s, 5m.")] = "30s",
    high: Annotated[float, typer.Option("--high", min=0, max=1, help="The part with priority high.")] = 0.1,
    viewports: Annotated[
        str, typer.Option("--viewports", help="city, world, or a file of west,south,east,north lines.")
    ] = "city",
    max_events: Annotated[int, typer.Option("--max-events", min=1, max=500, help="Events a viewer asks for.")] = 50,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Who looks where, which event moves.")] = 1,
    token_file: Annotated[Path | None, typer.Option("--token-file", help="A file with a producer's token.")] = None,
    as_json: AsJson = False,
    token: Token = None,
    url: Annotated[str, typer.Argument(envvar="BATCHCAST_URL", help="Where the server's HTTP API is.")] = DEFAULT_URL,
) -> None:
    """Drive a running server with real connections; report latencies, CPU, batches, and check every digest."""
    seconds = duration_ms("--for", duration) / 1000
    plan = Plan(viewers, rate, seconds, high, boxes(viewports, seed), seed, max_events)
    server = Server(url, token if token_file is None else _token(token_file))
    report = run(drive(server, plan, _progress if err.is_terminal and not as_json else _silent))
    if as_json:
        out.print_json(data=camelled(asdict(report)))
    else:
        out.print(said(report))
    if not report.good:
        raise typer.Exit(FAILED)


def _token(file: Path) -> str:
    try:
        text = file.read_text().strip()
    except OSError as error:
        stop(f"cannot read --token-file {file}: {error.strerror}")
    return text or stop(f"--token-file {file} is empty")


def camelled(value: object) -> object:
    """The report's own names in camelCase; what it counts keeps its names."""
    if not isinstance(value, dict):
        return value
    counts = {"failed", "lost", "frames", "errors"}
    return {to_camel(name): inner if name in counts else camelled(inner) for name, inner in value.items()}


# --- where they look ---


def boxes(text: str, seed: int) -> Sequence[Box]:
    """The viewports, which viewers take in turn."""
    if text == "world":
        return (WORLD,)
    if text == "city":
        return tuple(_round_city(*CITIES[n % len(CITIES)], seed, n) for n in range(20 * len(CITIES)))
    try:
        lines = Path(text).read_text().splitlines()
    except OSError as error:
        stop(f"--viewports is city, world or a file; cannot read {text}: {error.strerror}")
    found = [_box(line, n) for n, line in enumerate(lines, 1) if line.strip() and not line.startswith("#")]
    return found or stop(f"--viewports {text} holds no viewport: a line is west,south,east,north")


def _round_city(latitude: float, longitude: float, seed: int, n: int) -> Box:
    """A few blocks or most of the city, somewhere in it."""
    size = 0.05 + 0.35 * draw(seed, "size", n)
    west = longitude - size / 2 + 0.1 * (draw(seed, "west", n) - 0.5)
    south = latitude - size / 2 + 0.1 * (draw(seed, "south", n) - 0.5)
    return west, south, west + size, south + size


def _box(line: str, number: int) -> Box:
    try:
        west, south, east, north = (float(piece) for piece in line.split(","))
    except ValueError:
        stop(f"line {number} of --viewports is {line!r}; a line is west,south,east,north in degrees")
    return west, south, east, north


def draw(seed: int, what: str, number: int) -> float:
    """A number in [0, 1), the same for the same seed."""
    digest = hashlib.blake2b(f"{seed}/{what}/{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


# --- a run ---


@dataclass(slots=True)
class Course:
    """A run as it goes."""

    plan: Plan
    tally: Tally
    sightings: Sightings
    stop: asyncio.Event
    address: str = ""
    watchers: list[Watcher] = field(default_factory=list)
    senders: list[Sender] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)
    ramp_s: float = 0.0
    seconds: float = 0.0
    sent: int = 0
    unanswered: int = 0
    events: int = 0
    counts: dict[str, int] = field(default_factory=dict)


def _silent(course: Course) -> None:
    """No progress line."""


def _progress(course: Course) -> None:
    tally = course.tally
    err.print(
        f"{len(course.watchers):,} viewers, {course.sent:,} updates, {sum(tally.frames.values()):,} frames, "
        f"{tally.divergences:,} divergences   ",
        end="\r",
    )


async def drive(server: Server, plan: Plan, progress: Callable[[Course], None]) -> Report:
    """The whole run."""
    tally = Tally()
    course = Course(plan, tally, Sightings(clock, tally, plan.prefix), asyncio.Event())
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, course.stop.set)
    _allow_files()
    async with server:
        try:
            course.address = await ws_url(server)
            await _open_senders(course, server.token)
            await _ramp(course, progress)
            return await _measured(course, server, progress)
        except InvalidURI as error:
            raise Failed(str(error)) from None
        finally:
            asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)
            await _clean_up(course)


async def _measured(course: Course, server: Server, progress: Callable[[Course], None]) -> Report:
    """The time that counts, and what it came to."""
    tally, before_s, cpu_s = course.tally, await _server_cpu(server), process_seconds()
    frames, size, begun = sum(tally.frames.values()), tally.bytes, clock.monotonic()
    await _send(course, progress)
    course.seconds = clock.monotonic() - begun
    for sender in course.senders:
        await sender.answered(ANSWERS_S)
    course.unanswered = sum(sender.waiting for sender in course.senders)
    await clock.sleep(DRAIN_S)
    cpu_s, after_s = process_seconds() - cpu_s, await _server_cpu(server)
    server_s = None if before_s is None or after_s is None else after_s - before_s
    return _report(course, sum(tally.frames.values()) - frames, tally.bytes - size, cpu_s, server_s)


async def _ramp(course: Course, progress: Callable[[Course], None]) -> None:
    """Connect the viewers, a few at a time."""
    begun = clock.monotonic()

    async def one(number: int) -> None:
        if course.stop.is_set():
            return
        watcher = Watcher(number, course.tally, course.sightings)
        try:
            await watcher.join(partial(_connect, course), _registration(course.plan, number), None)
            course.watchers.append(watcher)
        except (OSError, ConnectionError) as error:
            course.failed[str(error) or type(error).__name__] += 1
            if watcher.peer is not None:
                watcher.peer.cut()
        if number % 100 == 0:
            progress(course)

    works: list[Callable[[], Coroutine[object, object, None]]] = [partial(one, n) for n in range(course.plan.viewers)]
    await abreast(works, RAMP)
    course.ramp_s = clock.monotonic() - begun


async def _connect(course: Course, watcher: Watcher) -> Peer:
    return await connect(course.address, watcher.heard, watcher.lost)


def _registration(plan: Plan, number: int) -> Mapping[str, object]:
    box = plan.viewports[number % len(plan.viewports)]
    viewport = dict(zip(("west", "south", "east", "north"), box, strict=True))
    return {"viewport": viewport, "maxEvents": plan.max_events}


# --- producing ---


async def _open_senders(course: Course, token: str | None) -> None:
    """The producers' connections, and the events that they will move; none without a token."""
    plan = course.plan
    if token is None or plan.rate == 0:
        return
    for _ in range(-(-int(plan.rate) // RATE_A_SENDER) or 1):
        sender = Sender(clock, course.tally)
        course.senders.append(sender)
        try:
            sender.peer = await connect(course.address, sender.heard, sender.lost, token)
            await sender.peer.opened
        except (OSError, ConnectionError) as error:
            raise Failed(f"a producer cannot connect to {course.address}: {error}") from None
    first = course.senders[0]
    for row in _events(plan):
        first.send({"type": "event-upsert", "event": row}, timed=False)
    if not await first.answered(ANSWERS_S) or first.refused:
        raise Failed(f"events cannot be created: {', '.join(first.refused) or 'no answer'}; is it a producer's token?")
    course.counts = {f"{plan.prefix}{n}": 0 for n in range(EVENTS)}
    course.events = EVENTS


def _events(plan: Plan) -> list[Message]:
    """Events inside the viewports, soon."""
    rows = []
    for n in range(EVENTS):
        west, south, east, north = plan.viewports[n % len(plan.viewports)]
        width = east - west if east > west else east - west + 360
        longitude = west + width * draw(plan.seed, "longitude", n)
        place = {"latitude": south + (north - south) * draw(plan.seed, "latitude", n)}
        place["longitude"] = longitude - 360 if longitude > 180 else longitude
        start = clock.now_ms() + round(HOUR_MS * (0.5 + 2 * draw(plan.seed, "start", n)))
        row = {"id": f"{plan.prefix}{n}", "title": f"Load {n}", "emoji": "🧪", "location": place, "start": start}
        rows.append({**row, COUNTER: 0, "saveCount": 0, "rsvpCount": 0})
    return rows


async def _send(course: Course, progress: Callable[[Course], None]) -> None:
    """So many updates a second until time is up; a tick that comes late sends what is due."""
    plan, begun, told = course.plan, clock.monotonic(), 0.0
    while not course.stop.is_set():
        elapsed = clock.monotonic() - begun
        if course.senders:
            _send_due(course, round(plan.rate * min(elapsed + TICK_S, plan.duration_s)))
        if elapsed >= plan.duration_s:
            return
        if elapsed - told >= 1:
            told = elapsed
            progress(course)
        await clock.wait(course.stop, min(TICK_S, plan.duration_s - elapsed))


def _send_due(course: Course, due: int) -> None:
    plan = course.plan
    for number in range(course.sent, due):
        sender = course.senders[number % len(course.senders)]
        if sender.waiting >= WAITING_MOST:
            return
        event_id = f"{plan.prefix}{int(draw(plan.seed, 'event', number) * EVENTS)}"
        urgent = draw(plan.seed, "high", number) < plan.high
        value = course.counts[event_id] = course.counts[event_id] + 1
        course.sightings.sent(event_id, value, urgent)
        priority = {"priority": "high"} if urgent else {}
        sender.send({"type": "popularity-update", "eventId": event_id, COUNTER: value, **priority})
        course.sent += 1


async def _clean_up(course: Course) -> None:
    """Remove the events, close the connections; whatever has happened."""
    for watcher in course.watchers:
        if watcher.peer is not None:
            watcher.peer.close()
    if course.events:
        first = course.senders[0]
        for event_id in course.counts:
            first.send({"type": "event-delete", "id": event_id}, timed=False)
        await first.answered(ANSWERS_S)
    for sender in course.senders:
        if sender.peer is not None:
            sender.peer.close()
    await clock.sleep(0)


# --- what it came to ---


async def _server_cpu(server: Server) -> float | None:
    """CPU seconds of the server's process so far; None when it does not tell."""
    try:
        async with server.stream("/metrics") as pieces:
            text = b"".join([piece async for piece in pieces])
    except Failed:
        return None
    found = CPU.search(text.decode(errors="replace"))
    return None if found is None else float(found[1])


def _report(course: Course, frames: int, size: int, cpu_s: float, server_s: float | None) -> Report:
    tally, plan, seconds = course.tally, course.plan, course.seconds
    lasting = max(seconds, 1e-9)
    return Report(
        viewers=plan.viewers,
        connected=len(course.watchers),
        failed=dict(course.failed),
        lost=dict(tally.lost),
        connects_per_second=round(len(course.watchers) / max(course.ramp_s, 1e-9), 1),
        ramp_seconds=round(course.ramp_s, 3),
        seconds=round(seconds, 3),
        updates_sent=course.sent,
        updates_acked=tally.acks.count,
        updates_per_second=round(course.sent / lasting, 1),
        unanswered=course.unanswered,
        latency_high_ms=_ms(tally.urgent),
        latency_batch_ms=_ms(tally.batched),
        ack_ms=_ms(tally.acks),
        frames=dict(tally.frames),
        frames_per_second=round(frames / lasting, 1),
        bytes=size,
        batch_entries=quantiles(tally.batch_entries.values, tally.batch_entries.count),
        batch_bytes=quantiles(tally.batch_bytes.values, tally.batch_bytes.count),
        digests_checked=tally.checked,
        divergences=tally.divergences,
        first_divergence=tally.first_divergence,
        errors=dict(tally.errors),
        client_cpu_seconds=round(cpu_s, 3),
        server_cpu_seconds=None if server_s is None else round(server_s, 3),
        events=course.events,
        interrupted=course.stop.is_set(),
        seed=plan.seed,
    )


def _ms(found: Latencies) -> Quantiles:
    return quantiles(found.values, found.count, 1000.0)


def _allow_files() -> None:
    """As many connections as the system lets this user have."""
    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
