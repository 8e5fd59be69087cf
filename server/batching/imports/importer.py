"""All of the imports in one process: the verbs, the credentials, the lanes, and what is told of them.

    importer = await Importer.open(parts, version, follow)
    importer.verbs, importer.vault, importer.take_in(...)       what handlers call
    cut = importer.cut(after_s)                                 on the way down, beside panel.stop(): see there
    await importer.close()

Beside the queue's own loops: `imports-watch` reads the figures (figures.py) and tells the other processes how the provider
was used from here; `imports-progress` tells followers how far jobs are (relay.py); `imports-tidy` removes files whose job
is done or gone, and moves credentials to a new IMPORTS_KEY; `imports-frozen` (frozen.py) is there on an old PostgreSQL only.

Stopping: lanes end the page they are at. A page that takes longer than the stop may last is given up, and its job goes back
without having cost a retry.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeAlias

import structlog

from server.batching.imports import figures as f
from server.batching.imports import files, frozen
from server.batching.imports import provider as p
from server.batching.imports.batch import MemberImport
from server.batching.imports.claims import TOPIC
from server.batching.imports.files import Spooled
from server.batching.imports.plan import Job, Ladder, Released, Verdict
from server.batching.imports.queue import DAY_S, Queue, Terms
from server.batching.imports.relay import Jobs
from server.batching.imports.sources import Sources
from server.batching.imports.store import Imports
from server.batching.imports.vault import Asked, Sealer, Vault
from server.batching.loop import Loop, Occasion, Turn
from server.batching.parts import Follow, Parts
from server.batching.relay import Relay
from server.core.identity import Identity
from server.edge.bus import Envelope
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

# Whoever may still go on: what waits, what is worked on, and what failed or was cancelled and may be requeued, as long as
# its list is there.
WANTED: Final = """
select q.file from imports.batch_processing_queue q
where q.source = 'file' and q.file = any ($1::text[]) and q.status <> 'completed'
    and exists (select from imports.audiences a where a.id = q.audience_id and a.deleted_at is null)"""

FIGURES: Final = {
    "scheduled": "jobs that failed and will be tried again",
    "pending": "jobs that wait",
    "processing": "jobs that are worked on",
    "stranded": "jobs of files that no living worker can read",
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
MeasureEach: TypeAlias = Callable[[str, str, str, Callable[[], Mapping[str, float]]], None]
Turning: TypeAlias = Callable[[Occasion], Awaitable[Turn]]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Found:
    """What there is where the imports work: the id of their folder of files, and whether PostgreSQL needs help (frozen.py)."""

    folder_id: str | None
    thaws: bool


class Importer:
    """See the module's docstring."""

    def __init__(self, parts: Parts, version: str, provider: p.Provider, follow: Follow | None, found: Found) -> None:
        settings, self._clock, self._db, self._bus = parts.settings, parts.clock, parts.db, parts.bus
        self.lanes = settings.imports_lanes
        self.folder, self.folder_id = _folder(settings), found.folder_id
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
            parts.db,
            parts.bus,
            parts.clock,
            parts.panel,
            parts.record,
            self.step,
            replace(terms(settings), folder=found.folder_id),
            version,
        )
        self.relay = None if follow is None else Relay(Jobs(parts.db), parts.clock, follow)
        self._add_loops(parts, found.thaws)

    @classmethod
    async def open(cls, parts: Parts, version: str, follow: Follow | None = None) -> Importer:
        """Built, its loops on the panel; StartRefused for settings that can't be used. Without `follow`, none follows."""
        fresh = f"{parts.clock.now_ms():x}-{round(parts.clock.random() * 2**52):013x}"
        folder_id = await asyncio.to_thread(files.id_of_folder, _folder(parts.settings), fresh)
        found = Found(folder_id, await frozen.needed(parts.db))
        client = await p.Provider.open(provider_terms(parts.settings), parts.clock)
        return cls(parts, version, client, follow, found)

    def _add_loops(self, parts: Parts, thaws: bool) -> None:
        def add(name: str, turn: Turning, interval_ms: int | None) -> Loop:
            loop = Loop(name, turn, clock=parts.clock, record=parts.record, interval_ms=interval_ms)
            return parts.panel.add(loop, fold=True)

        add(f.WATCH, self._watch, f.WATCH_MS)
        add("imports-tidy", self._tidy, TIDY_MS).wake()
        if thaws:
            add(frozen.LOOP, frozen.Thaw(parts.db).turn, frozen.LOOK_MS)
        parts.bus.subscribe([USAGE_TOPIC], self._heard_usage)
        if self.relay is not None:
            self.relay.woken = add("imports-progress", self.relay.turn, None).wake
            parts.bus.subscribe([TOPIC], self.relay.heard, lost=self.relay.lost)

    async def take_in(self, chunks: AsyncIterable[bytes], fmt: Format) -> Spooled:
        """Keep a file of members; what a job knows it by."""
        name = files.new_name(self._clock.now_ms(), self._clock.random(), fmt)
        size = await files.spool(chunks, self.folder / name, self.file_bytes)
        log.info("file kept", file=name, bytes=size)
        return Spooled(name, self.folder_id)

    async def drop(self, file: Spooled) -> None:
        """A file that no job will read."""
        await asyncio.to_thread(files.remove, [self.folder / file.name])

    async def check(self, who: Identity, credential: int) -> Asked:
        """Ask the provider what a key is good for."""
        return await self.vault.check(who, p.CredentialId(credential), self.provider.check)

    def measure(self, gauge: Measure, counter: Measure, counters: MeasureEach) -> None:
        """Put the figures among the server's numbers; the provider's by credential, of those USAGE_MOST used last."""

        def figure(name: str) -> Callable[[], float]:
            return lambda: float(getattr(self.figures, name))

        def each(name: str) -> Callable[[], dict[str, float]]:
            used = self.provider.usage
            return lambda: {str(one.credential): float(getattr(one, name)) for one in used()[-USAGE_MOST:]}

        for name, meaning in FIGURES.items():
            gauge(f"imports_{name}", f"imports: {meaning}", figure(name))
        gauge("imports_members_per_second", "imports: members handled, last minute", lambda: self.pace.members_per_s)
        counter("imports_jobs", "imports: jobs that ended here", lambda: self.queue.pulse.jobs)
        counter("imports_members", "imports: members of jobs completed here", lambda: self.queue.pulse.members)
        for name, meaning in CALLS.items():
            counters(f"imports_provider_{name}", f"imports: {meaning}", "credential", each(name))

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
        found = await asyncio.to_thread(files.files_after, self.folder, self._tidied_to, FILES_A_TURN)
        old = await asyncio.to_thread(files.untouched, found, occasion.now_ms / 1000 - YOUNG_S)
        unwanted = await self._unwanted(old) if old else []
        await asyncio.to_thread(files.remove, unwanted)
        more = len(found) == FILES_A_TURN
        self._tidied_to = found[-1].name if more else ""
        done = moved + len(unwanted)
        return Turn(done, done, more=more, detail={"files": len(unwanted), "resealed": moved})

    async def _unwanted(self, found: list[Path]) -> list[Path]:
        async with self.queue.acting() as connection:
            rows = await connection.fetch(WANTED, [path.name for path in found])
        wanted = {row["file"] for row in rows}
        return [path for path in found if path.name not in wanted]

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


def _folder(settings: Settings) -> Path:
    return settings.imports_folder or settings.data_dir / "imports"


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
