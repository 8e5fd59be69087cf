"""Settings of batch imports: workers, the provider, credentials, files, and how long things are kept."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, SecretStr

from server.settings.declare import DAY_MS, setting


class Imports(BaseModel):
    """How jobs are worked on, whom they ask, and what of them is kept."""

    imports_lanes: int = setting(
        4,
        "Import jobs worked on at a time by this process; 0 = it only serves, and `worker` processes work.",
        group="Imports",
        ge=0,
        le=64,
    )
    imports_lease_ms: int = setting(
        30_000,
        "A worker that is not heard of for this long is dead, and its jobs return to the queue (ms).",
        group="Imports",
        ge=2_000,
        le=600_000,
    )
    imports_poll_ms: int = setting(
        1_000,
        "How often a worker looks for jobs when nothing wakes it (ms).",
        group="Imports",
        ge=100,
        le=60_000,
    )
    imports_claim_most: int = setting(
        100, "Jobs that a worker claims in one statement at most.", group="Imports", ge=1, le=1_000
    )
    imports_age_ms: int = setting(
        300_000,
        "A job that waits for this long is taken as if its priority were one higher (ms).",
        group="Imports",
        ge=1_000,
        le=DAY_MS,
    )
    imports_retry_first_ms: int = setting(
        5_000,
        "Wait after a job's first failure, doubled with each further one (ms).",
        group="Imports",
        ge=100,
        le=DAY_MS,
    )
    imports_retry_cap_ms: int = setting(
        600_000, "The longest wait between two attempts of a job (ms).", group="Imports", ge=100, le=DAY_MS
    )
    imports_provider_url: str = setting(
        "https://api.whop.com",
        "The membership provider; https, or http on loopback, as API keys are sent there.",
        group="Imports",
    )
    imports_provider_path: str = setting("/api/v1/members", "Path of the provider's list of members.", group="Imports")
    imports_page_size: int = setting(
        100, "Members asked for in one call; the provider may send fewer.", group="Imports", ge=1, le=10_000
    )
    imports_page_delay_ms: int = setting(
        0, "Pause between two calls of one job to the provider (ms).", group="Imports", ge=0, le=60_000
    )
    imports_timeout_ms: int = setting(
        30_000, "A call to the provider that takes longer has failed (ms).", group="Imports", ge=100, le=600_000
    )
    imports_calls_per_s: float = setting(
        10.0,
        "Calls a second with one credential, by all lanes of a process together.",
        group="Imports",
        ge=0.01,
        le=10_000,
        allow_inf_nan=False,
    )
    imports_calls_burst: int = setting(
        20, "Calls with one credential that may go out at once after a rest.", group="Imports", ge=1, le=10_000
    )
    imports_attempts: int = setting(
        4, "Calls for one page before the job goes back to the queue to wait.", group="Imports", ge=1, le=10
    )
    imports_key: SecretStr | None = setting(
        None,
        "Seals the providers' API keys (32 bytes or more, the same on every node); unset: none can be kept.",
        group="Imports",
    )
    imports_key_previous: SecretStr | None = setting(
        None, "Opens what was sealed before IMPORTS_KEY was changed.", group="Imports"
    )
    imports_folder: Path | None = setting(
        None,
        "Where files to import wait; only workers that read the same folder work on them; unset: DATA_DIR/imports.",
        group="Imports",
    )
    imports_file_bytes: int = setting(
        1 << 30, "Largest file of members taken in (bytes); above: 413.", group="Imports", ge=1024, le=1 << 40
    )
    imports_keep_jobs_days: int = setting(
        30, "Days that jobs which have ended are kept, with their reports.", group="Imports", ge=1, le=3650
    )
    imports_keep_workers_h: int = setting(
        24, "Hours that workers which stopped or died are listed.", group="Imports", ge=1, le=8760
    )
    imports_keep_stats_days: int = setting(
        400, "Days that the daily statistics are kept.", group="Imports", ge=8, le=3650
    )
