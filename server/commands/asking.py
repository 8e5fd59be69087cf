"""The options that commands share, and what they default to.

The token: --token, else BATCHCAST_TOKEN, else the admin.token that a server on this machine has written into its DATA_DIR (or
the demo's, DATA_DIR/demo). The last is read only for an address on this machine: a local key is never sent elsewhere.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Final, TypeAlias
from urllib.parse import urlsplit

import typer

from server.core.loopback import is_loopback

DEFAULT_URL: Final = "http://127.0.0.1:8080"
TOKEN_FILE: Final = "admin.token"

Url: TypeAlias = Annotated[
    str,
    typer.Option("--url", envvar="BATCHCAST_URL", help="Where the server's HTTP API is."),
]
Token: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--token",
        envvar="BATCHCAST_TOKEN",
        show_envvar=True,
        help="Who you are (others on this machine may see the command line: prefer the variable). "
        "Default for a server on this machine: DATA_DIR/admin.token.",
    ),
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

Maps: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--map", metavar="FIELD=PATH", help="Feed a field from a path or column; FIELD= leaves it out; id=@content."
    ),
]
Errors: TypeAlias = Annotated[
    Path | None, typer.Option("--errors", help="Write every bad row's report here, as NDJSON.")
]
RowFormat: TypeAlias = Annotated[
    str | None,
    typer.Option("--format", help="json, geojson, ndjson or csv; default: by the name, else by the first bytes."),
]


def token_for(url: str, token: str | None) -> str | None:
    """The token to send to this address, if there is one."""
    if token:
        return token.strip()
    if not is_loopback(urlsplit(url).hostname or ""):
        return None
    data_dir = Path(os.environ.get("DATA_DIR") or "./data")
    for folder in (data_dir, data_dir / "demo"):
        text = _read(folder / TOKEN_FILE)
        if text:
            return text
    return None


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
