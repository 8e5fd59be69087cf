"""Settings of the journal: what is recorded of the live feed, and how much of it is kept."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from server.errors import StartRefused
from server.settings.declare import setting


class Journal(BaseModel):
    """The input log; without a prefix of ours, because systemd sets JOURNAL_STREAM."""

    journal: bool = setting(
        False,
        "Record what decides about frames, for `batchcast journal replay`; the files hold events and ids of users.",
        group="Journal",
    )
    journal_dir: Path | None = setting(None, "Where journals are kept; unset: DATA_DIR/journal.", group="Journal")
    journal_file_mb: int = setting(
        64,
        "A file ends when it has recorded so much behind its checkpoint (MiB).",
        group="Journal",
        ge=1,
        le=65_536,
    )
    journal_keep_mb: int = setting(
        1024, "All files together are at most so large (MiB); the oldest go.", group="Journal", ge=2, le=16_777_216
    )
    journal_file_minutes: int = setting(
        60, "A file ends after so long (min), when anything was recorded in it.", group="Journal", ge=1, le=10_080
    )


def check_journal(settings: Journal) -> None:
    """StartRefused when the settings don't go together."""
    if settings.journal_file_mb > settings.journal_keep_mb:
        file_mb, keep_mb = settings.journal_file_mb, settings.journal_keep_mb
        raise StartRefused(f"JOURNAL_FILE_MB={file_mb} is more than JOURNAL_KEEP_MB={keep_mb}; lower it.")
