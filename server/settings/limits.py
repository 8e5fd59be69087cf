"""Settings that bound what clients may cost."""

from __future__ import annotations

from pydantic import BaseModel

from server.settings.declare import setting


class Limits(BaseModel):
    """Messages, connections, bodies, queues; at each bound the answer is given."""

    message_bytes: int = setting(
        131_072, "Largest WebSocket message (bytes); above: too_large.", group="Limits", ge=1024, le=1 << 20
    )
    messages_per_s: int = setting(
        20, "Messages a second of one connection; above: too_many.", group="Limits", ge=1, le=100_000
    )
    messages_burst: int = setting(50, "Messages one connection may send at once.", group="Limits", ge=1, le=100_000)
    producer_messages_per_s: int = setting(
        5_000, "Messages a second of one producer connection; above: too_many.", group="Limits", ge=1, le=1_000_000
    )
    connections_per_user: int = setting(
        10,
        "Connections of one user, or of one anonymous address outside loopback; above: 503.",
        group="Limits",
        ge=1,
        le=1_000_000,
    )
    max_connections: int = setting(
        20_000, "WebSocket connections in all; above: 503.", group="Limits", ge=1, le=1_000_000
    )
    http_body_bytes: int = setting(
        64 << 20,
        "Largest HTTP body (bytes); NDJSON streams are not bound by it; above: 413.",
        group="Limits",
        ge=1024,
        le=1 << 32,
    )
    row_bytes: int = setting(
        1 << 20,
        "Largest row of an NDJSON stream (bytes); above: that row's error.",
        group="Limits",
        ge=1024,
        le=1 << 26,
    )
    slow_client_timeout_ms: int = setting(
        30_000, "A connection whose frame waits longer is closed with 4003 (ms).", group="Limits", ge=100, le=3_600_000
    )
    ping_interval_ms: int = setting(
        20_000, "Keep-alive pings to each connection (ms).", group="Limits", ge=100, le=3_600_000
    )
    compression: bool = setting(
        False,
        "Compress WebSocket messages for clients that offer it: a quarter of the bytes, for some CPU.",
        group="Limits",
    )
    ingest_queue_rows: int = setting(
        20_000,
        "Rows waiting for the writer; above, producers wait (they are read no faster than they commit).",
        group="Limits",
        ge=100,
        le=10_000_000,
    )
    update_ids_keep_h: int = setting(24, "Hours that an updateId is remembered.", group="Limits", ge=1, le=720)
    update_ids_keep_rows: int = setting(
        10_000_000,
        "The most updateIds remembered; above, the oldest hour goes first.",
        group="Limits",
        ge=1000,
        le=1_000_000_000,
    )
