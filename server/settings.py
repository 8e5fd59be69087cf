"""Every setting, declared once: name, type, default, unit, bounds, one sentence, and whether it may change at run time.

The environment variable is the field's name in capitals (`batch_interval_ms` is BATCH_INTERVAL_MS). From these declarations
are made: `config.example.env`, the table in README.md, `batchcast config`, and the errors for wrong values; tests fail
when one of them is stale. Precedence: run time (stored in PostgreSQL, `RUNTIME`) over environment over default.

`load()` raises StartRefused naming the variable, the value and what is allowed. A variable that is not declared but has one
of our prefixes is refused with the nearest name; one that nearly is a declared name (of 8 letters or more) is a warning.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from server.errors import StartRefused

PREFIXES: Final = ("BATCH_", "JWT_", "ADAPTIVE_", "PREDICTIVE_", "SCHEDULES_", "TRACKING_", "IMPORTS_", "TIERS_")
MINUTE_MS: Final = 60_000
DAY_MS: Final = 86_400_000


def _setting(default: Any, doc: str, *, group: str, runtime: str = "", **bounds: Any) -> Any:
    """A declared setting; `runtime` is its camelCase name on the wire when it may change while the server runs."""
    return Field(default, description=doc, json_schema_extra={"group": group, "runtime": runtime}, **bounds)


class Settings(BaseSettings):
    """What one server was started with. Immutable; what may change at run time is copied into `Tunables`."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, validate_default=False, env_ignore_empty=True)

    data_dir: Path = _setting(Path("./data"), "Where the server keeps its database, keys and logs.", group="Server")
    database_url: SecretStr | None = _setting(
        None,
        "PostgreSQL to use (postgresql://user:password@host/name); unset: an embedded one in DATA_DIR.",
        group="Server",
    )
    host: str = _setting(
        "127.0.0.1", "Address to listen on; beyond loopback a JWT key must be configured.", group="Server"
    )
    http_port: int = _setting(
        8080, "Port of the HTTP API and the pages; 0 picks a free one.", group="Server", ge=0, le=65535
    )
    ws_port: int = _setting(
        8081, "Port of the WebSocket server (path /ws); 0 picks a free one.", group="Server", ge=0, le=65535
    )
    log_format: Literal["console", "json"] = _setting("console", "How log lines look.", group="Server")
    log_level: Literal["debug", "info", "warning", "error"] = _setting(
        "info", "The least severe line logged.", group="Server"
    )
    database_pool: int = _setting(8, "Connections to PostgreSQL kept open.", group="Server", ge=2, le=200)
    shutdown_timeout_ms: int = _setting(
        10_000,
        "How long a stop waits for the last flush and for frames to drain (ms).",
        group="Server",
        ge=0,
        le=600_000,
    )
    return_jitter_ms: int = _setting(
        5_000,
        "On shutdown clients are told to come back after a random time up to this (ms).",
        group="Server",
        ge=0,
        le=600_000,
    )
    runs_keep_days: int = _setting(14, "Days that turn records (batch_runs) are kept.", group="Server", ge=1, le=3650)

    jwt_secret: SecretStr | None = _setting(
        None, "HS256 secret of tokens (32 bytes or more); unset: a local key.", group="Access"
    )
    jwt_secret_previous: SecretStr | None = _setting(
        None, "A second secret that stays valid while JWT_SECRET is being rotated.", group="Access"
    )
    jwt_public_key: str | None = _setting(
        None, "PEM public key (RS256, ES256 or EdDSA) or a path to one, for tokens made elsewhere.", group="Access"
    )
    jwt_audience: str | None = _setting(None, "When set, tokens must carry this audience (aud).", group="Access")
    jwt_issuer: str | None = _setting(None, "When set, tokens must carry this issuer (iss).", group="Access")
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = _setting(
        (),
        "Origins of web pages that may connect, comma-separated; same origin and loopback always may; * is everyone.",
        group="Access",
    )

    batch_interval_ms: int = _setting(
        900_000, "Time between two flushes (ms).", group="Batching", runtime="batchIntervalMs", ge=100, le=DAY_MS
    )
    max_batch_size: int = _setting(
        1000,
        "Pending events that cause an early flush, and events a slice.",
        group="Batching",
        runtime="maxBatchSize",
        ge=1,
        le=1_000_000,
    )
    enable_batching: bool = _setting(
        True,
        "Off: counters are published at once and every score moved is sent at once.",
        group="Batching",
        runtime="enableBatching",
    )
    min_flush_gap_ms: int = _setting(
        5_000,
        "Least time between a flush and one caused by MAX_BATCH_SIZE (ms); 0 = none.",
        group="Batching",
        ge=0,
        le=DAY_MS,
    )
    urgent_gap_ms: int = _setting(
        2_000,
        "Popularity marked `priority: high` is published within this time (ms).",
        group="Batching",
        ge=0,
        le=MINUTE_MS,
    )
    drift_interval_ms: int = _setting(
        60_000, "With ENABLE_BATCHING=false: how often drift by time is sent (ms).", group="Batching", ge=100, le=DAY_MS
    )
    immediate_group_ms: int = _setting(
        50, "A burst of immediate changes may be grouped for this long (ms).", group="Batching", ge=0, le=1000
    )
    score_threshold: float = _setting(
        0.01, "A score that moved by less is not sent (0..1).", group="Batching", ge=0, le=1, allow_inf_nan=False
    )
    adaptive_batching: bool = _setting(
        False,
        "The interval follows activity between the two bounds below; BATCH_INTERVAL_MS is where it begins.",
        group="Batching",
    )
    adaptive_min_interval_ms: int = _setting(
        5_000, "ADAPTIVE_BATCHING: the shortest interval (ms).", group="Batching", ge=100, le=DAY_MS
    )
    adaptive_max_interval_ms: int = _setting(
        900_000, "ADAPTIVE_BATCHING: the longest interval (ms).", group="Batching", ge=100, le=DAY_MS
    )
    adaptive_growth: float = _setting(
        0.5,
        "ADAPTIVE_BATCHING: an event whose popularity (0..1) grew so much since it was published goes out like "
        "`priority: high`; 0 = none does.",
        group="Batching",
        ge=0,
        le=1,
        allow_inf_nan=False,
    )

    weight_time: float = _setting(
        0.25, "Weight of the time to the start.", group="Score", ge=0, le=1, allow_inf_nan=False
    )
    weight_distance: float = _setting(0.20, "Weight of the distance.", group="Score", ge=0, le=1, allow_inf_nan=False)
    weight_popularity: float = _setting(
        0.30, "Weight of scans, saves and RSVPs.", group="Score", ge=0, le=1, allow_inf_nan=False
    )
    weight_recency: float = _setting(
        0.15, "Weight of the age since creation.", group="Score", ge=0, le=1, allow_inf_nan=False
    )
    weight_confidence: float = _setting(
        0.10, "Weight of the confidence.", group="Score", ge=0, le=1, allow_inf_nan=False
    )
    spacing_km: float = _setting(
        0.5,
        "Of two events nearer than this the better is shown (km); 0 = off.",
        group="Score",
        ge=0,
        le=1000,
        allow_inf_nan=False,
    )
    default_max_events: int = _setting(
        50, "Events in a view when the client names no maxEvents.", group="Score", ge=1, le=500
    )
    window_past_h: int = _setting(
        24, "Events are shown until this long after their start (h).", group="Score", ge=0, le=8760
    )
    window_ahead_h: int = _setting(
        720, "Events are shown from this long before their start (h).", group="Score", ge=1, le=87600
    )
    event_keep_days: int = _setting(
        7, "Days that an EXPIRED event is kept before it is removed.", group="Score", ge=0, le=3650
    )

    message_bytes: int = _setting(
        131_072, "Largest WebSocket message (bytes); above: too_large.", group="Limits", ge=1024, le=1 << 20
    )
    messages_per_s: int = _setting(
        20, "Messages a second of one connection; above: too_many.", group="Limits", ge=1, le=100_000
    )
    messages_burst: int = _setting(50, "Messages one connection may send at once.", group="Limits", ge=1, le=100_000)
    producer_messages_per_s: int = _setting(
        5_000, "Messages a second of one producer connection; above: too_many.", group="Limits", ge=1, le=1_000_000
    )
    connections_per_user: int = _setting(
        10,
        "Connections of one user, or of one anonymous address outside loopback; above: 503.",
        group="Limits",
        ge=1,
        le=1_000_000,
    )
    max_connections: int = _setting(
        20_000, "WebSocket connections in all; above: 503.", group="Limits", ge=1, le=1_000_000
    )
    http_body_bytes: int = _setting(
        64 << 20,
        "Largest HTTP body (bytes); NDJSON streams are not bound by it; above: 413.",
        group="Limits",
        ge=1024,
        le=1 << 32,
    )
    row_bytes: int = _setting(
        1 << 20,
        "Largest row of an NDJSON stream (bytes); above: that row's error.",
        group="Limits",
        ge=1024,
        le=1 << 26,
    )
    slow_client_timeout_ms: int = _setting(
        30_000, "A connection whose frame waits longer is closed with 4003 (ms).", group="Limits", ge=100, le=3_600_000
    )
    ping_interval_ms: int = _setting(
        20_000, "Keep-alive pings to each connection (ms).", group="Limits", ge=100, le=3_600_000
    )
    compression: bool = _setting(
        False,
        "Compress WebSocket messages for clients that offer it: a quarter of the bytes, for some CPU.",
        group="Limits",
    )
    ingest_queue_rows: int = _setting(
        20_000,
        "Rows waiting for the writer; above, producers wait (they are read no faster than they commit).",
        group="Limits",
        ge=100,
        le=10_000_000,
    )
    update_ids_keep_h: int = _setting(24, "Hours that an updateId is remembered.", group="Limits", ge=1, le=720)
    update_ids_keep_rows: int = _setting(
        10_000_000,
        "The most updateIds remembered; above, the oldest hour goes first.",
        group="Limits",
        ge=1000,
        le=1_000_000_000,
    )

    alert_webhook_url: SecretStr | None = _setting(None, "Where alerts are posted; unset: not posted.", group="Alerts")
    alert_webhook_format: Literal["json", "slack", "discord"] = _setting(
        "json", "Shape of the posted alert.", group="Alerts"
    )
    alert_smtp_url: SecretStr | None = _setting(
        None, "Mail server for alerts (smtp://user:password@host:587); unset: no mail.", group="Alerts"
    )
    alert_mail_to: str | None = _setting(None, "Who gets the mails.", group="Alerts")
    alert_mail_from: str = _setting("batchcast@localhost", "Who sends them.", group="Alerts")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what `load` hands over: the environment is an argument, so tests need not change it."""
        return (init_settings,)


FIELDS: Final[dict[str, FieldInfo]] = dict(Settings.model_fields)
RUNTIME: Final[dict[str, str]] = {
    extra["runtime"]: name
    for name, info in FIELDS.items()
    if isinstance(extra := info.json_schema_extra, dict) and isinstance(extra["runtime"], str) and extra["runtime"]
}


def load(environ: Mapping[str, str], **overrides: Any) -> Settings:
    """Settings from an environment (and explicit overrides, which win); StartRefused names what is wrong."""
    _refuse_unknown(environ)
    given = {name: environ[name.upper()] for name in FIELDS if environ.get(name.upper(), "") != ""}
    values: dict[str, Any] = {**given, **{k: v for k, v in overrides.items() if v is not None}}
    if isinstance(values.get("allowed_origins"), str):
        values["allowed_origins"] = tuple(o.strip() for o in values["allowed_origins"].split(",") if o.strip())
    try:
        settings = Settings(**values)
    except ValidationError as error:
        raise StartRefused("\n".join(_explain(e, values) for e in error.errors())) from None
    if settings.adaptive_batching and settings.adaptive_min_interval_ms > settings.adaptive_max_interval_ms:
        least, most = settings.adaptive_min_interval_ms, settings.adaptive_max_interval_ms
        raise StartRefused(f"ADAPTIVE_MIN_INTERVAL_MS={least} is more than ADAPTIVE_MAX_INTERVAL_MS={most}; lower it.")
    return settings


def check(name: str, value: object) -> Any:
    """One setting's validated value (for changes at run time); ValueError says what is allowed."""
    try:
        validated = Settings.__pydantic_validator__.validate_assignment(Settings.model_construct(), name, value)
    except ValidationError as error:
        raise ValueError(f"{_explain(error.errors()[0], {name: value})}") from None
    return dict(validated[0] if isinstance(validated, tuple) else validated)[name]


def warnings(environ: Mapping[str, str]) -> list[str]:
    """Variables that are nearly one of ours, probably a slip."""
    names = [name.upper() for name in FIELDS if len(name) >= 8]
    found = []
    for variable in sorted(environ):
        near = difflib.get_close_matches(variable, names, n=1, cutoff=0.88)
        if near and variable.lower() not in FIELDS:
            found.append(f"{variable} is not a setting; did you mean {near[0]}?")
    return found


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    for variable in sorted(environ):
        if variable.startswith(PREFIXES) and variable.lower() not in FIELDS:
            near = difflib.get_close_matches(variable, [n.upper() for n in FIELDS], n=1, cutoff=0.0)
            raise StartRefused(f"{variable} is not a setting; the nearest is {near[0]} (all: batchcast config)")


def _explain(error: Any, values: Mapping[str, Any]) -> str:
    name = str(error["loc"][0])
    secret = "Secret" in str(FIELDS[name].annotation)
    shown = "(a secret)" if secret else repr(str(values.get(name, "")))
    return f"{name.upper()} is {shown}: {error['msg']}. Allowed: {allowed(name)}. {FIELDS[name].description}"


def allowed(name: str) -> str:
    """What a setting may be, in words: the type and its bounds."""
    info = FIELDS[name]
    bounds = {k: getattr(m, k) for m in info.metadata for k in ("ge", "le") if getattr(m, k, None) is not None}
    kind = _kind(info)
    if not bounds:
        return kind
    return f"{kind} from {bounds.get('ge', '-inf')} to {bounds.get('le', 'inf')}"


def _kind(info: FieldInfo) -> str:
    text = str(info.annotation)
    if "Literal" in text:
        return " | ".join(text[text.index("[") + 1 : -1].replace("'", "").split(", "))
    for mark, word in (
        ("bool", "true | false"),
        ("int", "a whole number"),
        ("float", "a number"),
        ("Path", "a path"),
        ("tuple", "a list"),
    ):
        if mark in text:
            return word
    return "text"


def default_text(name: str) -> str:
    """A setting's default as one would write it in an environment file."""
    default = FIELDS[name].default
    if default is None or default == ():
        return ""
    if isinstance(default, bool):
        return str(default).lower()
    return "./data" if name == "data_dir" else str(default)


def group(name: str) -> str:
    """The heading a setting stands under."""
    extra = FIELDS[name].json_schema_extra
    return str(extra["group"]) if isinstance(extra, dict) else ""


def is_runtime(name: str) -> bool:
    """May this setting change while the server runs?"""
    return name in RUNTIME.values()


def example_env() -> str:
    """The text of config.example.env."""
    lines = [
        "# Every setting of batchcast, with its default. Made by `make generate`; copy to .env and change what you need."
    ]
    heading = ""
    for name in FIELDS:
        if group(name) != heading:
            heading = group(name)
            lines += ["", f"# --- {heading} ---"]
        suffix = " May change at run time." if is_runtime(name) else ""
        lines += [f"# {FIELDS[name].description} ({allowed(name)}){suffix}", f"#{name.upper()}={default_text(name)}"]
    return "\n".join(lines) + "\n"


def markdown_table() -> str:
    """The configuration table of README.md."""
    rows = ["| variable | default | allowed | what it is |", "|---|---|---|---|"]
    for name in FIELDS:
        mark = " **run time**" if is_runtime(name) else ""
        may = allowed(name).replace("|", "\\|")
        rows.append(
            f"| `{name.upper()}` | {default_text(name) or '(unset)'} | {may} | {FIELDS[name].description}{mark} |"
        )
    return "\n".join(rows) + "\n"
