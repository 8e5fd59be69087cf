"""Settings of the server itself, of access to it, and of alerts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, SecretStr, field_validator
from pydantic_settings import NoDecode

from server.core.forwarded import trusted
from server.settings.declare import setting


class Server(BaseModel):
    """Where it listens, what it keeps and for how long."""

    data_dir: Path = setting(Path("./data"), "Where the server keeps its database, keys and logs.", group="Server")
    database_url: SecretStr | None = setting(
        None,
        "PostgreSQL to use (postgresql://user:password@host/name); unset: an embedded one in DATA_DIR.",
        group="Server",
    )
    cluster: Literal["auto", "on", "off"] = setting(
        "auto",
        "Several servers over one database: each tells the others what it writes. auto: with DATABASE_URL; off saves that where "
        "there is only one.",
        group="Server",
    )
    host: str = setting(
        "127.0.0.1", "Address to listen on; beyond loopback a JWT key must be configured.", group="Server"
    )
    http_port: int = setting(
        8080, "Port of the HTTP API and the pages; 0 picks a free one.", group="Server", ge=0, le=65535
    )
    ws_port: int = setting(
        8081, "Port of the WebSocket server (path /ws); 0 picks a free one.", group="Server", ge=0, le=65535
    )
    log_format: Literal["console", "json"] = setting("console", "How log lines look.", group="Server")
    log_level: Literal["debug", "info", "warning", "error"] = setting(
        "info", "The least severe line logged.", group="Server"
    )
    database_pool: int = setting(8, "Connections to PostgreSQL kept open.", group="Server", ge=2, le=200)
    shutdown_timeout_ms: int = setting(
        10_000,
        "How long a stop waits for the last flush and for frames to drain (ms).",
        group="Server",
        ge=0,
        le=600_000,
    )
    return_jitter_ms: int = setting(
        5_000,
        "On shutdown clients are told to come back after a random time up to this (ms).",
        group="Server",
        ge=0,
        le=600_000,
    )
    runs_keep_days: int = setting(14, "Days that turn records (batch_runs) are kept.", group="Server", ge=1, le=3650)


class Access(BaseModel):
    """Who may do what: keys of tokens, origins of pages."""

    jwt_secret: SecretStr | None = setting(
        None, "HS256 secret of tokens (32 bytes or more); unset: a local key.", group="Access"
    )
    jwt_secret_previous: SecretStr | None = setting(
        None, "A second secret that stays valid while JWT_SECRET is being rotated.", group="Access"
    )
    jwt_public_key: str | None = setting(
        None, "PEM public key (RS256, ES256 or EdDSA) or a path to one, for tokens made elsewhere.", group="Access"
    )
    jwt_audience: str | None = setting(None, "When set, tokens must carry this audience (aud).", group="Access")
    jwt_issuer: str | None = setting(None, "When set, tokens must carry this issuer (iss).", group="Access")
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = setting(
        (),
        "Origins of web pages that may connect, comma-separated; same origin and loopback always may; * is everyone.",
        group="Access",
    )
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = setting(
        (),
        "Addresses and networks of proxies whose X-Forwarded-For is believed, comma-separated; set, the server counts as reachable "
        "by others, and pages that come through one find the WebSocket where they were found.",
        group="Access",
    )

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        trusted(value)
        return value


class Alerts(BaseModel):
    """Whom to tell."""

    alert_webhook_url: SecretStr | None = setting(None, "Where alerts are posted; unset: not posted.", group="Alerts")
    alert_webhook_format: Literal["json", "slack", "discord"] = setting(
        "json", "Shape of the posted alert.", group="Alerts"
    )
    alert_smtp_url: SecretStr | None = setting(
        None, "Mail server for alerts (smtp://user:password@host:587); unset: no mail.", group="Alerts"
    )
    alert_mail_to: str | None = setting(None, "Who gets the mails.", group="Alerts")
    alert_mail_from: str = setting("batchcast@localhost", "Who sends them.", group="Alerts")
