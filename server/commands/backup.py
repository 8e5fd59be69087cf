"""`batchcast backup`, `restore` and `upgrade`: on the machine of the server, with its settings and its DATA_DIR.

A backup may be taken at any time, beside a running server or without one. Restoring wants an empty database and no server. The
upgrade of the embedded PostgreSQL wants no server. Steps are told on standard error; --json prints what was done on standard output.
Exit codes: 0 done, 1 refused or failed (then nothing has changed), 2 wrong usage, or no database to work on.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final, TypeAlias

import typer
from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
from rich.progress import Progress as Bar

from server import __version__
from server.commands.asking import AsJson
from server.commands.calling import FAILED, Failed, Json, err, out, stop
from server.edge import backup as backups
from server.edge import cluster_files
from server.edge.attached import attached, in_use
from server.edge.backup import Place, Progress
from server.edge.backup_file import Manifest, opened
from server.edge.clock import SystemClock
from server.edge.embedded import EmbeddedPostgres
from server.edge.logs import configure
from server.edge.secrets import KEY_FILE
from server.edge.upgrade import upgrade as carry_over
from server.errors import Refused, StartRefused, Unavailable
from server.settings import Settings, load

Keys: TypeAlias = Annotated[
    bool,
    typer.Option("--with-keys", help="The local signing key too (DATA_DIR/jwt.keys): tokens made before stay valid."),
]
QUIET: Final = "warning"
"""What PostgreSQL's coming and going is logged at would be told twice."""


def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to; must not be there yet.")],
    with_keys: Keys = False,
    as_json: AsJson = False,
) -> None:
    """Save everything the database knows, and files of imports that wait, as they are at one moment; servers go on."""
    with _refusals(), _told() as progress:
        settings = _settings()
        with _database(settings) as dsn:
            place = _place(settings, dsn, with_keys)
            manifest = asyncio.run(
                backups.take(place, file, clock=SystemClock(), version=__version__, progress=progress)
            )
    _print(as_json, f"{file}: {_words(manifest)}", {"file": str(file), **_said(manifest)})


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `backup` has written.")],
    with_keys: Keys = False,
    as_json: AsJson = False,
) -> None:
    """Put a backup into an empty DATA_DIR or DATABASE_URL; a file that is damaged, and a database that is not empty, is refused."""
    with _refusals(), _told() as progress:
        settings = _settings()
        progress.step(f"reading {file} through")
        # Before anything is made for it.
        with opened(file, progress.heard) as found, _database(settings, make=True) as dsn:
            manifest = asyncio.run(backups.restore_opened(found, _place(settings, dsn, with_keys), progress))
    _print(as_json, f"restored from {file}: {_words(manifest)}", {"file": str(file), **_said(manifest)})


def upgrade(
    old_programs: Annotated[
        Path | None,
        typer.Option("--old-programs", help="The folder with `postgres` of the old version; default: looked for."),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="Without the old programs: from this backup; what is newer stays in the old database.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Carry the database in DATA_DIR over to a new major version of PostgreSQL; the old one is kept."""
    with _refusals(), _told() as progress:
        settings = _settings()
        if settings.database_url is not None:
            stop("DATABASE_URL is set: whoever runs that PostgreSQL upgrades it. `upgrade` is for the embedded one.")
        done = carry_over(
            settings.data_dir,
            clock=SystemClock(),
            version=__version__,
            old=old_programs,
            source=source,
            progress=progress,
        )
    if done is None:
        _print(as_json, f"the database in {settings.data_dir} is of the installed version already", {"upgraded": False})
        return
    text = (
        f"PostgreSQL {done.before} -> {done.after}: {_words(done.manifest)}. The old database is kept in {done.kept}, its backup "
        f"in {done.backup}; remove them when the server has run well for a while."
    )
    said: Json = {"upgraded": True, "before": done.before, "after": done.after, "kept": str(done.kept)}
    _print(as_json, text, {**said, "backup": str(done.backup), **_said(done.manifest)})


# --- where ---


def _settings() -> Settings:
    configure("console", QUIET)
    return load(os.environ)


@contextmanager
def _database(settings: Settings, *, make: bool = False) -> Iterator[str]:
    """The DSN: the one given, that of the server at work over DATA_DIR, or of a PostgreSQL that runs only meanwhile."""
    url, data_dir = settings.database_url, settings.data_dir
    if url is not None:
        yield url.get_secret_value()
    elif not make and in_use(data_dir):
        yield attached(data_dir)
    elif not make and cluster_files.made_by(cluster_files.home_of(data_dir)) is None:
        stop(f"there is no database in {data_dir}; check DATA_DIR, or set DATABASE_URL")
    else:
        server = EmbeddedPostgres(data_dir)
        try:
            yield server.start_now()
        finally:
            server.stop_now()


def _place(settings: Settings, dsn: str, with_keys: bool) -> Place:
    imports = settings.imports_folder or settings.data_dir / "imports"
    return Place(dsn, imports, settings.data_dir / KEY_FILE if with_keys else None)


# --- what is told ---


@contextmanager
def _refusals() -> Iterator[None]:
    """What stands against it, as a sentence with its exit code."""
    try:
        yield
    except Refused as refused:
        raise Failed(refused.message, FAILED) from None
    except Unavailable as trouble:
        raise Failed(trouble.message, FAILED) from None
    except StartRefused as refused:
        stop(str(refused))
    except OSError as error:
        raise Failed(f"{error.filename or 'a file'}: {error.strerror}. Nothing was changed.", FAILED) from None
    except KeyboardInterrupt:
        raise Failed("interrupted; nothing was changed", FAILED) from None


@contextmanager
def _told() -> Iterator[Progress]:
    """Steps as lines; bytes as a bar, where somebody looks."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bar(*columns, console=err, transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("", total=None)

        def step(words: str) -> None:
            bar.update(task, completed=0)
            err.print(words, markup=False)

        yield Progress(step, lambda count: bar.advance(task, count))


def _words(manifest: Manifest) -> str:
    files = f", {len(manifest.imports)} files of imports" if manifest.imports else ""
    return f"{manifest.rows:,} rows of {len(manifest.tables)} tables{files}, {manifest.size / (1 << 20):,.1f} MiB"


def _said(manifest: Manifest) -> Json:
    return {
        "madeAtMs": manifest.made_at_ms,
        "batchcast": manifest.batchcast,
        "postgres": manifest.postgres,
        "migration": manifest.migration,
        "rows": manifest.rows,
        "bytes": manifest.size,
        "imports": len(manifest.imports),
        "tables": {name: table.rows for name, table in manifest.tables.items()},
    }


def _print(as_json: bool, text: str, value: Json) -> None:
    if as_json:
        out.print_json(data=value)
    else:
        out.print(text, markup=False, soft_wrap=True)
