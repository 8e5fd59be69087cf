"""`batchcast journal list`, `show`, `replay`: what a server has recorded, on the machine where the files are; needs no server.

Exit codes: 0 done, 1 refused, damaged, or a frame differs, 2 wrong usage.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from server.commands.asking import AsJson

app = typer.Typer(name="journal", help="What was recorded: list, show, replay.", no_args_is_help=True)
File = Annotated[Path, typer.Argument(metavar="FILE", help="A journal; `journal list` has them.")]
HEAD: Final = 20


@app.command("list")
def list_files(
    folder: Annotated[
        Path | None, typer.Option("--dir", help="The folder; default: JOURNAL_DIR, DATA_DIR/journal.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the files, oldest first: when they began, their size, whether they are whole."""
    from server.commands import journaling

    journaling.list_files(folder, as_json=as_json)


@app.command()
def show(
    file: File,
    head: Annotated[int, typer.Option("--head", min=0, help="So many records.")] = HEAD,
    as_json: AsJson = False,
) -> None:
    """Show the header, then the first records, a JSON object a line."""
    from server.commands import journaling

    journaling.show(file, head, as_json=as_json)


@app.command()
def replay(
    file: File,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare every frame; the first that differs is told.")
    ] = False,
    to: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Up to this moment (ISO 8601).")] = None,
    as_json: AsJson = False,
) -> None:
    """Play a journal again on a virtual clock: the same frames, to the byte."""
    from server.commands import journaling

    journaling.replay(file, to, verify=verify, as_json=as_json)
