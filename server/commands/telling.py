"""`batchcast schema` and `doctor`: what there is to know about the protocol and about this installation."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Final

import orjson
import typer
from rich.markup import escape
from rich.table import Table

from server.commands.asking import DEFAULT_URL, AsJson, Token, Url
from server.commands.calling import FAILED, Failed, Json, Server, Unreachable, out, run

if TYPE_CHECKING:
    from server.doctor import Finding

MARKS: Final = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "problem": "[red]problem[/]"}


def schema(
    openapi: Annotated[bool, typer.Option("--openapi", help="The HTTP API instead of the WebSocket messages.")] = False,
) -> None:
    """Print the JSON Schema of the WebSocket messages, or the OpenAPI document; needs no server."""
    text = orjson.dumps(openapi_document() if openapi else message_schema(), option=orjson.OPT_INDENT_2)
    typer.echo(text.decode())


def openapi_document() -> Json:
    """The HTTP API, as /openapi.json tells it."""
    from server.handlers import http

    return http.openapi_document()


def message_schema() -> Json:
    """Every message of the WebSocket, as client-examples/protocol.schema.json has it."""
    from server.protocol.schema import protocol_schema

    return protocol_schema()


def doctor(as_json: AsJson = False, url: Url = DEFAULT_URL, token: Token = None) -> None:
    """Look at settings, ports, PostgreSQL, keys, disk, loops and overrides; exit code 1 when something is wrong."""
    from server.doctor import healthy

    findings = run(_examine(url, token))
    if as_json:
        rows = [{"area": f.area, "state": f.state, "text": f.text, "nextStep": f.next_step} for f in findings]
        out.print_json(data=rows)
    else:
        out.print(_table(findings))
    if not healthy(findings):
        raise typer.Exit(FAILED)


async def _examine(url: str, token: str | None) -> list[Finding]:
    from server.doctor import examine

    async with Server(url, token) as server:

        async def ask(path: str) -> Json | None:
            try:
                return await server.get(path)
            except Unreachable:
                return None
            except Failed as refused:
                return {"error": str(refused)}

        return await examine(os.environ, ask)


def _table(findings: list[Finding]) -> Table:
    table = Table("", "area", "found", "next step", box=None, pad_edge=False)
    for finding in findings:
        table.add_row(MARKS[finding.state], finding.area, escape(finding.text), escape(finding.next_step))
    return table
