"""All of the imports in one process: the verbs, the credentials, the lanes, and what is told of them.

    importer = await Importer.open(Parts(settings, db, bus, clock, panel, record, version), follow)
    importer.verbs, importer.vault, importer.take_in(...)       what handlers call
    cut = importer.cut(after_s)                                 on the way down, beside panel.stop(): see there
    await importer.close()

Beside the queue's own loops: `imports-watch` reads the figures (figures.py) and tells the other processes how the provider
was used from here; `imports-progress` tells followers how far jobs are (relay.py); `imports-tidy` removes files whose job
is done, and moves credentials to a new IMPORTS_KEY.

Stopping: lanes end the page they are at. A page that takes longer than the stop may last is given up, and its job goes back
without having cost a retry.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import structlog

from server.batching.imports import figures as f
from server.batching.imports import provider as p
from server.batching.imports.batch import MemberImport
from server.batching.imports.claims import TOPIC
from server.batching.imports.files import spool
from server.batching.imports.plan import Job, Ladder, Released, Verdict
from server.batching.imports.queue import DAY_S, Queue, Record, Terms
from server.batching.imports.relay import Relay
from server.batching.imports.sources import Sources
from server.batching.imports.store import Imports
from server.batching.imports.vault import Sealer, Vault
from server.batching.loop import Loop, Occasion, Turn
from server.batching.panel import Panel
from server.batching.scores.store import audit
from server.core.identity import Identity
from server.edge.bus import Bus, Envelope
from server.edge.clock import Clock
from server.edge.postgres import Database
from server.protocol.intake import Format
from server.settings import Settings

USAGE_TOPIC: Final = "imports-usage"
USAGE_KEPT_S: Final = 3_600.0
"""What another process said of its calls is forgotten after this; it says it again whenever it calls."""
USAGE_MOST: Final = 200
"""Credentials that one process tells of: those it used last."""
USAGE_EVERY_S: Final = 5.0
TIDY_MS: Final = 600_000
YOUNG_S: Final = 3_600.0
"""A file younger than this may belong to a job that is just being created."""
FILES_A_TURN: Final = 1_000
ENDINGS: Final = {Format.CSV: ".csv", Format.NDJSON: ".ndjson"}

WANTED: Final = """
select file from imports.batch_processing_queue
where source = 'file' and file = any ($1::text[]) and status <> 'completed'"""

FIGURES: Final = {
    "scheduled": "jobs that failed and will be tried again",
    "pending": "jobs that wait",
    "processing": "jobs that are worked on",
    "workers": "workers that live",
}
CALLS: Final = {
    "calls": "calls to the provider from here",
    "pages": "pages that it sent",
    "limited": "calls that it limited (429)",
    "failed": "calls that failed, those limited included",
    "seconds": "seconds spent on the calls that brought a page",
}
Measure: TypeAlias = Callable[[str, str, Callable[[], float]], None]
Turning: TypeAlias = Callable[[Occasion], Awaitable[Turn]]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Parts:
    """What the imports are built from."""

    settings: Settings
    db: Database
    bus: Bus
    clock: Clock
    panel: Panel
    record: Record
    version: str


@dataclass(frozen=True, slots=True)
class Follow:
    """The followers of topics in this process: which topics they follow, and telling them (did all have room?)."""

    topics: Callable[[], Iterable[str]]
    tell: Callable[[str, dict[str, object]], bool]


class Importer:
    """See the module's docstring."""

    def __init__(self, parts: Parts, provider: p.Provider, follow: Follow | None) -> None:
        settings, self._clock, self._db, self._bus = parts.settings, parts.clock, parts.db, parts.bus
        self.lanes = settings.imports_lanes
        self.folder = settings.imports_folder or settings.data_dir / "imports"
        self.file_bytes = settings.imports_file_bytes
        self.provider = provider
        self.verbs = Imports(parts.db, parts.bus)
        self.vault = Vault(parts.db, Sealer.of(settings.imports_key, settings.imports_key_previous))
        self.figures, self.pace = f.Figures(), f.Pace()
        self._sealed_anew = settings.imports_key is None
        self._others: dict[str, tuple[float, list[dict[str, object]]]] = {}
        self._said: tuple[float, list[dict[str, object]]] = (0.0, [])
        self._steps: set[asyncio.Timeout] = set()
        self.closing, self._tidied_to = False, ""
        self._work = MemberImport(parts.db, parts.bus, parts.clock, Sources(provider, self.vault, self.folder))
        self.queue = Queue(
            parts.db, parts.bus, parts.clock, parts.panel, parts.record, self.step, terms(settings), parts.version
        )
        self.relay = None if follow is None else Relay(parts.db, parts.clock, follow.topics, follow.tell)
        self._add_loops(parts)

    @classmethod
    async def open(cls, parts: Parts, follow: Follow | None = None) -> Importer:
        """Built, its loops on the panel; StartRefused for settings that can't be used. Without `follow`, none follows."""
        return cls(parts, await p.Provider.open(provider_terms(parts.settings), parts.clock), follow)

    def _add_loops(self, parts: Parts) -> None:
        def add(name: str, turn: Turning, interval_ms: int | None) -> Loop:
            loop = Loop(name, turn, clock=parts.clock, record=parts.record, interval_ms=interval_ms)
            return parts.panel.add(loop, fold=True)

        add(f.WATCH, self._watch, f.WATCH_MS)
        add("imports-tidy", self._tidy, TIDY_MS).wake()
        parts.bus.subscribe([USAGE_TOPIC], self._heard_usage)
        if self.relay is not None:
            self.relay.woken = add("imports-progress", self.relay.turn, None).wake
            parts.bus.subscribe([TOPIC], self.relay.heard, lost=self.relay.lost)

    async def take_in(self, chunks: AsyncIterable[bytes], fmt: Format) -> str:
        """Keep a file of members; the name that a job knows it by."""
        mark = f"{self._clock.now_ms():x}-{round(self._clock.random() * 2**52):013x}"
        name = mark + ENDINGS[fmt]
        size = await spool(chunks, self.folder / name, self.file_bytes)
        log.info("file kept", file=name, bytes=size)
        return name

    async def drop(self, name: str) -> None:
        """A file that no job will read."""
        await asyncio.to_thread(_remove, [self.folder / name])

    async def audit(self, who: Identity, action: str, target: str, after: object = None) -> int:
        """Note who did what, once it is done; the number of the entry."""
        async with self._db.transaction() as connection:
            return await audit(connection, who.user, action, target, after=after)

    async def check(self, owner: str | None, credential: int) -> p.Check:
        """Ask the provider what a key is good for."""
        return await self.vault.check(owner, p.CredentialId(credential), self.provider.check)

    def measure(self, gauge: Measure, counter: Measure) -> None:
        """Put the figures among the server's numbers."""

        def figure(name: str) -> Callable[[], float]:
            return lambda: float(getattr(self.figures, name))

        def total(name: str) -> Callable[[], float]:
            return lambda: float(sum(getattr(usage, name) for usage in self.provider.usage()))

        for name, meaning in FIGURES.items():
            gauge(f"imports_{name}", f"imports: {meaning}", figure(name))
        gauge("imports_members_per_second", "imports: members handled, last minute", lambda: self.pace.members_per_s)
        counter("imports_jobs", "imports: jobs that ended here", lambda: self.queue.pulse.jobs)
        counter("imports_members", "imports: members of jobs completed here", lambda: self.queue.pulse.members)
        for name, meaning in CALLS.items():
            counter(f"imports_provider_{name}", f"imports: {meaning}", total(name))

    @property
    def usage(self) -> list[dict[str, object]]:
        """How the provider was called, one row per process and credential."""
        now = self._clock.monotonic()
        others = [row for at, rows in self._others.values() if now - at < USAGE_KEPT_S for row in rows]
        return [*self._own_usage(), *others]

    # Lanes.

    async def step(self, job: Job) -> Verdict:
        """One step of the member import; on the way down none is begun, and a late one is given up."""
        if self.closing:
            return Released()
        limit = asyncio.timeout(None)
        try:
            async with limit:
                self._steps.add(limit)
                return await self._work.step(job)
        except TimeoutError:
            if not limit.expired():
                raise
            return Released()
        finally:
            self._steps.discard(limit)

    async def cut(self, after_s: float) -> None:
        """Begin no more steps, and give up those that are not done by then. To be run while the panel stops."""
        self.closing = True
        await self._clock.sleep(after_s)
        for limit in self._steps:
            log.warning("import page given up", seconds=after_s)
            limit.reschedule(0.0)

    async def close(self) -> None:
        """After the loops have stopped."""
        await self.queue.close()
        await self.provider.close()

    # Turns.

    async def _watch(self, occasion: Occasion) -> Turn:
        async with self.queue.acting() as connection:
            self.figures = await f.read(connection)
        self.pace.add(self._clock.monotonic(), self.figures)
        await self._say_usage()
        pace = round(self.pace.members_per_s, 1)
        return Turn(detail={**self.figures.detail, "members_per_s": pace})

    async def _say_usage(self) -> None:
        """Tell the others, when it has changed; not at every turn."""
        now, mine = self._clock.monotonic(), self._own_usage()
        said_at, said = self._said
        if mine == said or now - said_at < USAGE_EVERY_S:
            return
        async with self._db.transaction() as connection:
            await self._bus.publish(connection, USAGE_TOPIC, {"usage": mine})
        self._said = (now, mine)

    def _own_usage(self) -> list[dict[str, object]]:
        return [_row(self._bus.node, usage) for usage in self.provider.usage()[-USAGE_MOST:]]

    async def _heard_usage(self, messages: list[Envelope]) -> None:
        for message in messages:
            rows = message.payload.get("usage")
            if not message.own and isinstance(rows, list):
                self._others[message.node] = (self._clock.monotonic(), rows)
        now = self._clock.monotonic()
        self._others = {node: told for node, told in self._others.items() if now - told[0] < USAGE_KEPT_S}

    async def _tidy(self, occasion: Occasion) -> Turn:
        moved = 0 if self._sealed_anew else await self._reseal()
        files = await asyncio.to_thread(_files_after, self.folder, self._tidied_to)
        old = await asyncio.to_thread(_old, files, occasion.now_ms / 1000 - YOUNG_S)
        unwanted = await self._unwanted(old) if old else []
        await asyncio.to_thread(_remove, unwanted)
        more = len(files) == FILES_A_TURN
        self._tidied_to = files[-1].name if more else ""
        done = moved + len(unwanted)
        return Turn(done, done, more=more, detail={"files": len(unwanted), "resealed": moved})

    async def _unwanted(self, files: list[Path]) -> list[Path]:
        async with self.queue.acting() as connection:
            rows = await connection.fetch(WANTED, [path.name for path in files])
        wanted = {row["file"] for row in rows}
        return [path for path in files if path.name not in wanted]

    async def _reseal(self) -> int:
        """All of them, once in the life of this process: a slice at a time, as a key changes by a restart only."""
        after: int | None = 0
        moved = 0
        while after is not None:
            slice_ = await self.vault.reseal(after)
            after, moved = slice_.after, moved + slice_.moved
        self._sealed_anew = True
        return moved


def terms(settings: Settings) -> Terms:
    """How the queue's worker works, from the settings."""
    return Terms(
        lanes=settings.imports_lanes,
        lease_s=settings.imports_lease_ms / 1000,
        claim_most=settings.imports_claim_most,
        poll_ms=settings.imports_poll_ms,
        age_s=settings.imports_age_ms / 1000,
        ladder=Ladder(settings.imports_retry_first_ms / 1000, settings.imports_retry_cap_ms / 1000),
        keep_jobs_s=settings.imports_keep_jobs_days * DAY_S,
        keep_workers_s=settings.imports_keep_workers_h * 3600.0,
        keep_stats_s=settings.imports_keep_stats_days * DAY_S,
    )


def provider_terms(settings: Settings) -> p.Terms:
    """How the provider is asked, from the settings; StartRefused for an address that keys must not be sent to."""
    return p.Terms(
        url=settings.imports_provider_url,
        path=settings.imports_provider_path,
        page_size=settings.imports_page_size,
        page_delay_ms=settings.imports_page_delay_ms,
        timeout_ms=settings.imports_timeout_ms,
        calls_per_s=settings.imports_calls_per_s,
        calls_burst=settings.imports_calls_burst,
        attempts=settings.imports_attempts,
    )


def _row(node: str, usage: p.Usage) -> dict[str, object]:
    return {
        "node": node,
        "credentialId": usage.credential,
        "calls": usage.calls,
        "pages": usage.pages,
        "limited": usage.limited,
        "failed": usage.failed,
        "secondsPerPage": round(usage.seconds / usage.pages, 4) if usage.pages else None,
        "tokens": round(usage.tokens, 1),
        "shutMs": round(usage.shut_s * 1000),
    }


def _files_after(folder: Path, name: str) -> list[Path]:
    """The next files of the folder, by name."""
    try:
        found = sorted(path for path in folder.iterdir() if path.name > name and path.is_file())
    except FileNotFoundError:
        return []
    return found[:FILES_A_TURN]


def _old(files: list[Path], before_s: float) -> list[Path]:
    """Those that were last written before that time."""
    return [path for path in files if _written_s(path, before_s) < before_s]


def _written_s(path: Path, otherwise: float) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # Another process has removed it.
        return otherwise


def _remove(files: list[Path]) -> None:
    for path in files:
        with suppress(FileNotFoundError):
            path.unlink()
