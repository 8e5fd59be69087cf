"""`batchcast serve` and `batchcast demo`: a server in this process.

The demo is the same server with a short interval and a DATA_DIR of its own, and beside it a loop named `demo`: a client like any
other, over HTTP with the admin's token, that loads the sample's events shifted to now and has their popularity rise and fall for
as long as it runs. `batchcast loops pause demo` gives the map a rest. In a checkout there are
imports (showing.py), schedules (scraping.py) and campaigns whose clips are tracked (showing_tracking.py) to look at as well, and
everywhere people who can be booked (showing_tiers.py).
"""

from __future__ import annotations

import math
import os
from collections.abc import Awaitable, Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

import orjson
import typer
from rich.panel import Panel

from server.batching.loop import Loop, Occasion, Turn
from server.commands.calling import Failed, Json, Server, err, stop
from server.commands.importing import Report, import_chunks, send_rows
from server.commands.scraping import TRIGGER_MS, Scrapes, scraper
from server.commands.showing import ORDER_MS, Orders, provider
from server.commands.showing_tiers import STEP_MS, Casting
from server.commands.showing_tracking import HURRY_MS, Clips, begun, pace
from server.edge.attached import attached
from server.edge.clock import SystemClock
from server.errors import StartRefused
from server.protocol.intake import Format, Intake, shift_to_now
from server.protocol.mapping import Mapping as RowMapping
from server.settings import Settings, load

if TYPE_CHECKING:
    from server.app import App

BEAT_MS: Final = 400
MOVED_A_BEAT: Final = 15
PEAKS: Final = (14, 7, 4)
"""Scans, saves and RSVPs of an event that everybody wants; more would not raise its score."""
QUARTER_MS: Final = 900_000
DEMO: Final = {"BATCH_INTERVAL_MS": "5000", "DATA_DIR": "./data/demo", "LOG_LEVEL": "warning"}

Host: TypeAlias = Annotated[str | None, typer.Option("--host", help="Address to listen on (HOST).")]
HttpPort: TypeAlias = Annotated[
    int | None, typer.Option("--http-port", help="Port of the HTTP API and the pages (HTTP_PORT).")
]
WsPort: TypeAlias = Annotated[int | None, typer.Option("--ws-port", help="Port of the WebSocket (WS_PORT).")]
DataDir: TypeAlias = Annotated[
    Path | None, typer.Option("--data-dir", help="Where the server keeps its data (DATA_DIR).")
]


def serve(host: Host = None, http_port: HttpPort = None, ws_port: WsPort = None, data_dir: DataDir = None) -> None:
    """Run the server until it is told to stop; the environment configures it (see `config list`)."""
    from server.app import run

    settings = _settings(os.environ, host, http_port, ws_port, data_dir)
    raise typer.Exit(run(settings))


def demo(host: Host = None, http_port: HttpPort = None, ws_port: WsPort = None, data_dir: DataDir = None) -> None:
    """Run a server with sample events all over the world whose popularity moves all the time."""
    from server.app import run

    err.print("Starting; the first start compiles the scoring engine, for about half a minute …")
    given = {name: value for name, value in os.environ.items() if value != ""}
    folder = data_dir or Path(given.get("DATA_DIR") or DEMO["DATA_DIR"])
    with provider(given) as imports, scraper(given, http_port, begun(folder)) as schedules:
        tracking = pace(given) if schedules else {}
        settings = _settings({**DEMO, **imports, **schedules, **tracking, **given}, host, http_port, ws_port, data_dir)
        code = run(settings, _started(settings, imports=bool(imports), schedules=bool(schedules)))
    raise typer.Exit(code)


def _started(settings: Settings, *, imports: bool, schedules: bool) -> Callable[[App], None]:
    """What is done once the demo's server accepts."""

    def started(app: App) -> None:
        token = (settings.data_dir / "admin.token").read_text().strip()
        turns: list[tuple[str, Callable[[Occasion], Awaitable[Turn]], int]] = [
            ("demo", Show(app.http_url, token).turn, BEAT_MS)
        ]
        turns.append(("demo-tiers", Casting(app.http_url, token).turn, STEP_MS))
        if imports:
            turns.append(("demo-imports", Orders(app.http_url, token).turn, ORDER_MS))
        if schedules:
            turns.append(("demo-schedules", Scrapes(app.http_url, token, settings.apify_url).turn, TRIGGER_MS))
            turns.append(("demo-tracking", Clips(app.http_url, token, _dsn(settings)).turn, HURRY_MS))
        for name, turn, interval_ms in turns:
            loop = Loop(name, turn, clock=SystemClock(), interval_ms=interval_ms, record=app.record)
            app.panel.add(loop, fold=True).wake()
        err.print(_welcome(app.http_url, settings))

    return started


def _dsn(settings: Settings) -> str:
    """Where the server's database is."""
    url = settings.database_url
    return url.get_secret_value() if url is not None else attached(settings.data_dir)


def _settings(
    environ: Mapping[str, str], host: str | None, http_port: int | None, ws_port: int | None, data_dir: Path | None
) -> Settings:
    try:
        settings = load(environ, host=host, http_port=http_port, ws_port=ws_port, data_dir=data_dir)
    except StartRefused as refused:
        stop(str(refused))
    return settings


def _welcome(url: str, settings: Settings) -> Panel:
    lines = (
        f"The live map: [bold underline]{url}[/]",
        f"A batch every {settings.batch_interval_ms / 1000:g} s. Admin token: {settings.data_dir / 'admin.token'}",
        f"Imports: [bold underline]{url}/jobs[/]",
        f"Schedules: [bold underline]{url}/schedules[/]",
        f"Tiers: [bold underline]{url}/tiers[/]",
        f"Tracking: [bold underline]{url}/tracking[/]",
        f"In another terminal: [bold]batchcast watch --url {url}[/]   Stop with Ctrl-C.",
    )
    return Panel.fit("\n".join(lines), title="batchcast demo", border_style="cyan", padding=(1, 2))


# --- what moves on the map ---


class Show:
    """The client that keeps the demo moving: first the events, then a beat every turn."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._token = token
        self._ids: list[str] = []

    async def turn(self, occasion: Occasion) -> Turn:
        """Load the events when that has not been done, else move the popularity of some."""
        async with Server(self._url, self._token) as server:
            if not self._ids:
                return await self._load(server, occasion.now_ms)
            rows = beat(self._ids, occasion.number)
            answer = await send_rows(server, "/popularity", [orjson.dumps(row) for row in rows])
        accepted = int(str(answer.get("accepted", 0)))
        return Turn(len(rows), accepted, len(rows) - accepted)

    async def _load(self, server: Server, now_ms: int) -> Turn:
        text = sample()
        report = Report()
        intake = Intake(Format.NDJSON, sample_now(text, now_ms))
        await import_chunks(server, [text], intake, report, lambda read, rows: None)
        if not report.accepted:
            raise Failed(f"none of the sample's events went in: {report.first[0].reason if report.first else ''}")
        self._ids = [str(orjson.loads(line)["id"]) for line in text.splitlines()]
        return Turn(report.rows, report.accepted, report.refused)


def sample() -> bytes:
    """The sample's events, NDJSON."""
    return (resources.files("server") / "sample" / "events.ndjson").read_bytes()


def sample_now(text: bytes, now_ms: int) -> RowMapping:
    """Shifts the sample so that its newest event was made just now, on the quarter of an hour."""
    mapping = shift_to_now(Format.NDJSON, RowMapping(), "createdAt", [text], now_ms)
    return mapping.shifted(mapping.shift_ms // QUARTER_MS * QUARTER_MS)


def beat(ids: list[str], number: int) -> list[Json]:
    """The popularity of some events at beat `number`: each event's interest is a slow wave of its own. Pure."""
    first = number * MOVED_A_BEAT
    return [_interest(ids, (first + step) % len(ids), number) for step in range(min(MOVED_A_BEAT, len(ids)))]


def _interest(ids: list[str], index: int, number: int) -> Json:
    period = 300 + 37 * (index % 29)
    wave = 0.5 + 0.5 * math.sin(2 * math.pi * (number / period + index * 0.618))
    scans, saves, rsvps = (round(peak * wave**power) for peak, power in zip(PEAKS, (1, 2, 3), strict=True))
    return {"eventId": ids[index], "scanCount": scans, "saveCount": saves, "rsvpCount": rsvps}
