"""`batchcast events list`, `show`, `delete`, `export`: what is stored."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, BinaryIO, TypeAlias

import typer
from rich.table import Table

from server.commands import importing, replaying
from server.commands.asking import DEFAULT_URL, AsJson, Token, Url
from server.commands.calling import Json, Params, Server, err, out, part, run, stop

app = typer.Typer(name="events", help="The events: import, export, replay, list, show, delete.", no_args_is_help=True)
app.command("import")(importing.import_events)
app.command("replay")(replaying.replay_log)

Bbox: TypeAlias = Annotated[str | None, typer.Option("--bbox", help="Only inside west,south,east,north.")]
Text: TypeAlias = Annotated[str | None, typer.Option("--text", help="Only with all of these words.")]
Status: TypeAlias = Annotated[
    list[str] | None, typer.Option("--status", help="Only with one of these: PENDING, VERIFIED, REJECTED, EXPIRED.")
]


@app.command("export")
def export_events(
    file: Annotated[Path, typer.Argument(help="Where to write; - is standard output.")] = Path("-"),
    fmt: Annotated[
        str | None,
        typer.Option("--format", help="ndjson, geojson or csv; default: as the file's name says, else ndjson."),
    ] = None,
    bbox: Bbox = None,
    text: Text = None,
    status: Status = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Write stored events to a file that `events import` reads again."""
    kind = fmt or {".geojson": "geojson", ".csv": "csv"}.get(file.suffix.lower(), "ndjson")
    run(_export(Server(url, token), file, [("format", kind), *_query(bbox, text, status)]))


async def _export(server: Server, file: Path, params: Params) -> None:
    size = 0
    async with server, server.stream("/events/export", params) as pieces:
        with _open(file) as sink:
            async for piece in pieces:
                size += sink.write(piece)
    err.print(f"{size:,} bytes written" + ("" if str(file) == "-" else f" to {file}"))


def _open(file: Path) -> BinaryIO:
    if str(file) == "-":
        return open(sys.stdout.fileno(), "wb", closefd=False)
    try:
        return file.open("wb")
    except OSError as error:
        stop(f"cannot write {file}: {error.strerror}")


@app.command("list")
def list_events(
    bbox: Bbox = None,
    text: Text = None,
    status: Status = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="At most so many.")] = 50,
    cursor: Annotated[str | None, typer.Option("--cursor", help="Where the page before ended.")] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Show a page of stored events in the order of their ids."""
    params = [*_query(bbox, text, status), ("limit", str(limit)), *([("cursor", cursor)] if cursor else [])]
    page = run(_get(Server(url, token), "/events", params))
    if as_json:
        out.print_json(data=page)
        return
    events = page.get("events")
    rows = events if isinstance(events, list) else []
    out.print(_table(rows) if rows else "no events; `batchcast events import FILE` brings some in")
    if page.get("cursor"):
        err.print(f"more with --cursor {page['cursor']}")


def _table(rows: list[Json]) -> Table:
    table = Table("id", "", "title", "start", "status", "scans", "saves", "RSVPs", box=None, pad_edge=False)
    for row in rows:
        counts = (str(row.get(name, "")) for name in ("scanCount", "saveCount", "rsvpCount"))
        words = (str(row.get(name) or "") for name in ("id", "emoji", "title", "start", "status"))
        table.add_row(*words, *counts)
    return table


@app.command("show")
def show_event(event_id: str, url: Url = DEFAULT_URL, token: Token = None) -> None:
    """Show one event as it is stored."""
    out.print_json(data=run(_get(Server(url, token), f"/events/{part(event_id)}")))


@app.command("delete")
def delete_events(
    event_ids: Annotated[list[str], typer.Argument(help="The ids of those to remove.")],
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Remove events; ends at the first that can't be."""
    run(_delete(Server(url, token), event_ids))


async def _delete(server: Server, event_ids: list[str]) -> None:
    async with server:
        for event_id in event_ids:
            answer = await server.call("DELETE", f"/events/{part(event_id)}")
            out.print(f"{answer.get('id')} removed (version {answer.get('version')})", markup=False)


async def _get(server: Server, path: str, params: Params = ()) -> Json:
    async with server:
        return await server.get(path, params)


def _query(bbox: str | None, text: str | None, status: list[str] | None) -> list[tuple[str, str]]:
    single = [(name, value) for name, value in (("bbox", bbox), ("text", text)) if value]
    return single + [("status", name) for name in status or []]
