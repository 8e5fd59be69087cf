"""The command line: `python -m server` and the console script `batchcast` are the same. The commands are in server/commands/.

Settings come from the environment; what a file `.env` in the working directory holds counts where the environment says nothing.

Exit codes: 0 done, 1 something was refused, failed or diverged, 2 wrong usage or no server.
"""

from __future__ import annotations

import gc

gc.disable()  # What is imported stays: looking for garbage meanwhile is a fifth of a start.

import os
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import Final

import typer
from dotenv import load_dotenv
from rich.markup import escape

from server.commands import (
    access,
    backup,
    credentials,
    events,
    jobs,
    journal,
    load,
    operating,
    running,
    schedules,
    telling,
    tiers,
    tracking,
    watching,
    whatif,
    working,
)
from server.commands.calling import Failed, err

gc.enable()
SHIFT: Final = "--shift-to-now="

app = typer.Typer(
    name="batchcast",
    help="Live maps: popularity in, one consolidated batch-update per viewer out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("serve", rich_help_panel="Run a server")(running.serve)
app.command("worker", rich_help_panel="Run a server")(working.worker)
app.command("demo", rich_help_panel="Run a server")(running.demo)
app.command("backup", rich_help_panel="Run a server")(backup.backup)
app.command("restore", rich_help_panel="Run a server")(backup.restore)
app.command("upgrade", rich_help_panel="Run a server")(backup.upgrade)
app.command("doctor", rich_help_panel="Run a server")(telling.doctor)
app.add_typer(journal.app, rich_help_panel="Run a server")
app.add_typer(access.app, rich_help_panel="Run a server")
app.add_typer(events.app, rich_help_panel="Use a running server")
app.add_typer(jobs.app, rich_help_panel="Use a running server")
app.add_typer(credentials.app, rich_help_panel="Use a running server")
app.add_typer(schedules.app, rich_help_panel="Use a running server")
app.add_typer(tiers.app, rich_help_panel="Use a running server")
app.add_typer(tracking.app, rich_help_panel="Use a running server")
app.command("watch", rich_help_panel="Use a running server")(watching.watch)
app.command("stats", rich_help_panel="Use a running server")(operating.stats)
app.command("force-batch", rich_help_panel="Use a running server")(operating.force_batch)
app.command("load", rich_help_panel="Use a running server")(load.load)
app.command("what-if", rich_help_panel="Use a running server")(whatif.what_if)
app.add_typer(operating.loops, rich_help_panel="Use a running server")
app.add_typer(operating.config, rich_help_panel="Use a running server")
app.command("schema", rich_help_panel="Know the protocol")(telling.schema)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    load_dotenv(Path(".env"), override=False)
    point_at_home(os.environ)
    given = sys.argv[1:] if arguments is None else arguments
    try:
        app([f"--shift-path={text.removeprefix(SHIFT)}" if text.startswith(SHIFT) else text for text in given])
    except Failed as failed:
        err.print(f"[red]error:[/] {escape(str(failed))}", soft_wrap=True)
        sys.exit(failed.exit_code)


def point_at_home(environ: MutableMapping[str, str]) -> None:
    """Commands ask the server that the same configuration would start, unless they are told of another."""
    if environ.get("HTTP_PORT", "0") != "0":
        environ.setdefault("BATCHCAST_URL", f"http://127.0.0.1:{environ['HTTP_PORT']}")


if __name__ == "__main__":
    main()
