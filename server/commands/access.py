"""`batchcast token create` and `rotate`: on the machine of the server, with its settings and its DATA_DIR."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Annotated, Final

import typer

from server.commands.calling import err, stop
from server.edge.secrets import mint
from server.edge.secrets import rotate as rotate_key
from server.errors import StartRefused
from server.settings import Settings, load

app = typer.Typer(name="token", help="Tokens: create one, rotate the key that signs them.", no_args_is_help=True)
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


@app.command("create")
def create(
    sub: Annotated[str, typer.Option("--sub", help="The user; creatorId and sharedWith compare with it.")],
    roles: Annotated[
        list[str] | None, typer.Option("--role", help="viewer (every token is), producer or admin; may be repeated.")
    ] = None,
    ttl: Annotated[str, typer.Option("--ttl", help="How long it lives: 30m, 12h, 7d, or never.")] = "24h",
    team: Annotated[str | None, typer.Option("--team", help="The user's team.")] = None,
) -> None:
    """Make a token; it is printed and kept nowhere."""
    token = _refusing(lambda settings: mint(settings, sub=sub, roles=roles or (), ttl_s=seconds(ttl), team=team))
    typer.echo(token)


@app.command("rotate")
def rotate() -> None:
    """Make a new signing key; tokens of the old one stay valid until the next rotate."""
    err.print(_refusing(rotate_key), markup=False)


def seconds(text: str) -> int | None:
    """30m, 12h, 7d in seconds; None for never."""
    if text == "never":
        return None
    found = re.fullmatch(r"(\d{1,9})([smhdw])", text)
    if found is None:
        stop(f"--ttl is a number and s, m, h, d or w (12h), or never, not {text!r}")
    return int(found[1]) * _UNITS[found[2]]


def _refusing(make: Callable[[Settings], str]) -> str:
    try:
        return make(load(os.environ))
    except StartRefused as refused:
        stop(str(refused))
