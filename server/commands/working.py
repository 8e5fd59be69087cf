"""`batchcast worker`: the lanes of the imports in a process of their own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Final

import typer

from server.commands.calling import stop
from server.errors import StartRefused
from server.settings import load

LANES: Final = 4
"""For a worker whose environment says 0 lanes: that is meant for the servers."""


def worker(
    lanes: Annotated[
        int | None,
        typer.Option("--lanes", min=1, max=64, help="Jobs at a time; default IMPORTS_LANES, or 4 where that is 0."),
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            "--metrics-port", min=0, max=65535, help="Serve /metrics and /healthz on HOST at this port; 0 picks one."
        ),
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", help="DATA_DIR of a server on this host, when DATABASE_URL is unset.")
    ] = None,
) -> None:
    """Work on import jobs, without any server's ports, until told to stop; run as many as you need."""
    from server.worker import run

    try:
        settings = load(os.environ, data_dir=data_dir, imports_lanes=lanes)
    except StartRefused as refused:
        stop(str(refused))
    if settings.imports_lanes == 0:
        settings = settings.model_copy(update={"imports_lanes": LANES})
    raise typer.Exit(run(settings, metrics_port))
