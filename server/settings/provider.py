"""Settings of the scraping provider (Apify), which every system that starts runs there shares."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import BaseModel, SecretStr

from server.core.loopback import is_loopback
from server.errors import StartRefused
from server.settings.declare import setting

SECRET_LEAST = 16


class Provider(BaseModel):
    """Where it is, who we are there, and how it reaches us."""

    apify_url: str = setting(
        "https://api.apify.com",
        "The scraping provider; https, or http on loopback, as the token is sent there.",
        group="Provider",
    )
    apify_token: SecretStr | None = setting(
        None, "Our token at the provider; unset: no run is started, all else works.", group="Provider"
    )
    apify_timeout_ms: int = setting(
        30_000, "A call to the provider that takes longer has failed (ms).", group="Provider", ge=100, le=600_000
    )
    apify_webhook_secret: SecretStr | None = setting(
        None,
        "What the provider must send with a webhook (16 characters or more); unset: webhooks are refused.",
        group="Provider",
    )
    public_url: str | None = setting(
        None,
        "Where the provider reaches this server (https://HOST); unset: ends of runs are found by asking alone.",
        group="Provider",
    )


def check_provider(settings: Provider) -> None:
    """What the single values can't say; StartRefused says what to change."""
    secret = settings.apify_webhook_secret
    if secret is not None and len(secret.get_secret_value()) < SECRET_LEAST:
        raise StartRefused(
            f"APIFY_WEBHOOK_SECRET has fewer than {SECRET_LEAST} characters; make one with `openssl rand -hex 24`."
        )
    if settings.public_url is None:
        return
    parts = urlsplit(settings.public_url)
    local = parts.scheme == "http" and is_loopback(parts.hostname or "")
    plain = parts.username is None and parts.password is None and not (parts.query or parts.fragment)
    if not (parts.hostname and plain and (parts.scheme == "https" or local)):
        raise StartRefused(
            "PUBLIC_URL must be https://HOST (http only on loopback), without user, password or query: "
            f"the webhook's secret is sent there. It names {parts.scheme}://{parts.hostname or ''}."
        )
    if settings.apify_token is not None and secret is None:
        raise StartRefused(
            "PUBLIC_URL is set but APIFY_WEBHOOK_SECRET is not: every webhook would be refused. "
            "Set it (openssl rand -hex 24), or unset PUBLIC_URL: then runs are polled."
        )
