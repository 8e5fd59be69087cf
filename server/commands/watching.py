"""`batchcast watch`: a viewer in the terminal. The ranked list as the server sends it, what the last message changed, and
whether the digest agrees. It is the client of server/client.py with a screen; `--once` prints the snapshot and ends.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Annotated, Final
from urllib.parse import urlsplit, urlunsplit

import orjson
import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from server.client import Change, Client, Closed, Event, Lost, Refusal
from server.commands.asking import DEFAULT_URL, Token, Url
from server.commands.calling import FAILED, UNUSABLE, Failed, Server, out, run, stop
from server.edge.clock import SystemClock

WORLD: Final = "-180,-85,180,85"
SHOWN: Final = 30
META: Final = re.compile(r'<meta[^>]*name="batchcast-ws"[^>]*content="(\d*)"')

clock: Final = SystemClock()


@dataclass(frozen=True, slots=True)
class Screen:
    """What is shown; replaced as a whole, because the terminal is drawn from another thread."""

    ranked: tuple[Event, ...] = ()
    before: dict[str, float] = field(default_factory=dict)
    line: str = "the snapshot"
    state: str = "digest ok"
    next_ms: int | None = None
    offset_ms: int = 0

    def __rich__(self) -> RenderableType:
        left = None if self.next_ms is None else (self.next_ms - clock.now_ms() - self.offset_ms) / 1000
        due = "" if left is None else f", next batch in {max(left, 0):.0f} s"
        heading = f"[bold]{len(self.ranked)} events[/], {self.state}{due}"
        rows = [self._row(place, event) for place, event in enumerate(self.ranked[:SHOWN], 1)]
        return Group(heading, _table(rows), f"[dim]{escape(self.line)}[/]")

    def _row(self, place: int, event: Event) -> tuple[str, ...]:
        score = float(event.get("relevanceScore", 0.0))
        moved = score - self.before.get(event["id"], score)
        mark = "[green]new[/]" if event["id"] not in self.before and self.before else ""
        if abs(moved) >= 0.00005:
            mark = f"[{'green' if moved > 0 else 'red'}]{moved:+.4f}[/]"
        counts = "/".join(str(event.get(name, 0)) for name in ("scanCount", "saveCount", "rsvpCount"))
        title = escape(str(event.get("title") or event["id"]))
        return str(place), str(event.get("emoji") or ""), title, f"{score:.4f}", mark, counts, when(event.get("start"))


def _table(rows: list[tuple[str, ...]]) -> Table:
    table = Table("", "", "title", "score", "moved", "scans/saves/RSVPs", "start", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    return table


def watch(
    bbox: Annotated[str, typer.Option("--bbox", help="Where to look: west,south,east,north.")] = WORLD,
    once: Annotated[bool, typer.Option("--once", help="Print what is in view and end.")] = False,
    max_events: Annotated[int, typer.Option("--max", min=1, max=500, help="At most so many events.")] = 50,
    filters: Annotated[str | None, typer.Option("--filters", help="Filters, as the protocol's JSON.")] = None,
    ws: Annotated[
        str | None, typer.Option("--ws", help="The WebSocket's address; default: as the server says.")
    ] = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Look at a part of the map: the ranked list, live, and what each batch changed."""
    viewport, wanted = box(bbox), _filters(filters)
    try:
        run(_watch(Server(url, token), ws, viewport, wanted, max_events, once))
    except Closed as closed:
        raise Failed(str(closed)) from None
    except Lost as lost:
        raise Failed(str(lost), UNUSABLE) from None
    except Refusal as refusal:
        raise Failed(f"the server said: {refusal}") from None


async def _watch(
    server: Server, ws: str | None, viewport: tuple[float, ...], filters: list[Event], most: int, once: bool
) -> None:
    async with server:
        address = ws or await ws_url(server)
    async with Client(address, viewport=viewport, token=server.token, filters=filters, max_events=most) as client:
        screen = Screen(tuple(client.ranked()), next_ms=client.registered.get("nextBatchAt"), offset_ms=_offset(client))
        if once:
            _print_once(client, screen)
            return
        with Live(get_renderable=lambda: screen, console=out, refresh_per_second=4, screen=out.is_terminal):
            while True:
                change = await client.next_change()
                screen = _changed(screen, change, client)


def _print_once(client: Client, screen: Screen) -> None:
    out.print(screen)
    if client.divergences:
        raise Failed("the digest differs from the server's", FAILED)


def _changed(screen: Screen, change: Change, client: Client) -> Screen:
    before = {event["id"]: float(event.get("relevanceScore", 0.0)) for event in screen.ranked}
    new, moved, left = len(change.creates), len(change.updates), len(change.deletes)
    interval = client.registered.get("config", {}).get("batchIntervalMs")
    next_ms = screen.next_ms
    if change.type == "batch-update" and interval:
        next_ms = clock.now_ms() + screen.offset_ms + int(interval)
    return replace(
        screen,
        ranked=tuple(client.ranked()),
        before=before,
        line=f"{change.type}: {new} new, {moved} moved, {left} left; message {change.message['seq']}",
        state="digest ok" if change.matches else "[red]digest differs, asked for a resync[/]",
        next_ms=next_ms,
    )


def _offset(client: Client) -> int:
    """How far the server's clock is ahead of ours (ms)."""
    server_time = client.registered.get("serverTime")
    return int(server_time) - clock.now_ms() if isinstance(server_time, int) else 0


async def ws_url(server: Server) -> str:
    """The WebSocket's address: same host, the port that the page of the server names, else the page's own."""
    async with server.stream("/") as pieces:
        page = b"".join([piece async for piece in pieces])
    found = META.search(page.decode(errors="replace"))
    if found is None:
        raise Failed(f"{server.url} does not say where its WebSocket is; name it with --ws ws://HOST:8081/ws", UNUSABLE)
    parts = urlsplit(server.url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    where = f"{host}:{found[1]}" if found[1] else parts.netloc
    return urlunsplit(("wss" if parts.scheme == "https" else "ws", where, "/ws", "", ""))


def box(text: str) -> tuple[float, ...]:
    """west,south,east,north as numbers."""
    try:
        west, south, east, north = (float(piece) for piece in text.split(","))
    except ValueError:
        stop(f"--bbox is west,south,east,north in degrees, not {text!r}")
    return west, south, east, north


def _filters(text: str | None) -> list[Event]:
    try:
        value = orjson.loads(text) if text else []
    except orjson.JSONDecodeError as error:
        stop(f"--filters is not JSON: {error}")
    return value if isinstance(value, list) else [value]


def when(text: object) -> str:
    """A start, as far away as it is."""
    try:
        start = datetime.fromisoformat(str(text))
    except ValueError:
        return "-"
    hours = (start - datetime.fromtimestamp(clock.now_ms() / 1000, UTC)).total_seconds() / 3600
    size = (
        f"{abs(hours) * 60:.0f} min"
        if abs(hours) < 1
        else f"{abs(hours):.0f} h"
        if abs(hours) < 48
        else f"{abs(hours) / 24:.0f} d"
    )
    return f"in {size}" if hours >= 0 else f"{size} ago"
