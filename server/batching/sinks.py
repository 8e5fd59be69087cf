"""Where alerts go: the log, a webhook (generic JSON, Slack, Discord), mail, and a topic of the WebSocket.

A sink has a name and `tell(notice)`, which raises `SinkFailed` when the notice did not arrive; queueing, trying again and
logging are left to `alerts.py`. Every wait is bounded by TIMEOUT_S. The webhook's URL and the mail server's password are
secrets: they appear in no error and no log line, and no password is sent without TLS beyond this machine.
"""

import asyncio
import smtplib
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from typing import Literal
from urllib.parse import unquote, urlsplit

import aiohttp
import structlog

from server.batching.alerts import Notice, Severity

TIMEOUT_S = 10
# Discord refuses longer texts; the other formats do well with it.
TEXT_AT_MOST = 1_900
ALERTS_TOPIC = "alerts"

WebhookFormat = Literal["json", "slack", "discord"]

log = structlog.get_logger()


class SinkFailed(Exception):
    """A notice did not arrive; the text holds no secret."""


class LogSink:
    """The log of this process, at the level of the alert."""

    name = "log"

    async def tell(self, notice: Notice) -> None:
        alert = notice.alert
        calm = notice.kind == "recovered" or alert.severity is Severity.INFO
        write = log.info if calm else log.warning if alert.severity is Severity.WARNING else log.error
        write(f"alert {notice.kind}", rule=alert.rule, severity=alert.severity.value, message=alert.message)


class TopicSink:
    """A topic that connections subscribe to; `publish` leaves a message with whoever keeps them."""

    name = "topic"

    def __init__(self, publish: Callable[[str, Mapping[str, object]], None], topic: str = ALERTS_TOPIC) -> None:
        self._publish = publish
        self._topic = topic

    async def tell(self, notice: Notice) -> None:
        self._publish(self._topic, {"type": "alert", **as_json(notice)})


class WebhookSink:
    """A POST of JSON; anything but 2xx is a failure, redirects included."""

    name = "webhook"

    def __init__(self, url: str, format: WebhookFormat = "json", timeout_s: float = TIMEOUT_S) -> None:
        self._url = url
        self._format = format
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)

    async def tell(self, notice: Notice) -> None:
        status = await self._post(webhook_body(notice, self._format))
        if not 200 <= status < 300:
            raise SinkFailed(f"the webhook answered {status}")

    async def _post(self, body: Mapping[str, object]) -> int:
        try:
            async with (
                aiohttp.ClientSession(timeout=self._timeout) as session,
                session.post(self._url, json=body, allow_redirects=False) as answer,
            ):
                return answer.status
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            # The texts of these errors may hold the URL, which is a secret; their types do not.
            raise SinkFailed(f"the webhook could not be reached: {type(error).__name__}") from None


@dataclass(frozen=True, slots=True)
class MailServer:
    """Where mail is handed in: smtp://user:password@host:587 (TLS when offered), smtps://… (TLS from the start)."""

    host: str
    port: int
    tls: bool
    user: str | None
    password: str | None

    @classmethod
    def parse(cls, url: str) -> "MailServer":
        """The mail server of such a URL; the error for a wrong one does not repeat it."""
        parts = urlsplit(url)
        if parts.scheme not in ("smtp", "smtps") or not parts.hostname:
            raise ValueError("a mail server is smtp://user:password@host:port or smtps://user:password@host:port")
        tls = parts.scheme == "smtps"
        user, password = (None if part is None else unquote(part) for part in (parts.username, parts.password))
        return cls(parts.hostname, parts.port or (465 if tls else 587), tls, user, password)

    @property
    def local(self) -> bool:
        """Whether it is on this machine."""
        return self.host in ("localhost", "127.0.0.1", "::1")


class MailSink:
    """A mail for each notice."""

    name = "mail"

    def __init__(self, server: MailServer, sender: str, to: str, timeout_s: float = TIMEOUT_S) -> None:
        self._server = server
        self._sender = sender
        self._to = to
        self._timeout_s = timeout_s

    async def tell(self, notice: Notice) -> None:
        try:
            await asyncio.to_thread(self._send, mail(notice, self._sender, self._to))
        except smtplib.SMTPResponseException as error:
            raise SinkFailed(f"the mail server answered {error.smtp_code}") from None
        except (OSError, smtplib.SMTPException) as error:
            raise SinkFailed(f"the mail was not handed in: {type(error).__name__}") from None

    def _send(self, message: EmailMessage) -> None:
        with self._connect() as connection:
            if self._server.user is not None:
                connection.login(self._server.user, self._server.password or "")
            connection.send_message(message)

    def _connect(self) -> smtplib.SMTP:
        server, context = self._server, ssl.create_default_context()
        if server.tls:
            return smtplib.SMTP_SSL(server.host, server.port, timeout=self._timeout_s, context=context)
        connection = smtplib.SMTP(server.host, server.port, timeout=self._timeout_s)
        connection.ehlo()
        if connection.has_extn("starttls"):
            connection.starttls(context=context)
        elif server.password is not None and not server.local:
            connection.close()
            raise SinkFailed("the mail server offers no TLS, and a password is not sent without it")
        return connection


# What is said: pure.


def as_json(notice: Notice) -> dict[str, object]:
    """A notice as it stands on the wire."""
    alert = notice.alert
    return {
        "kind": notice.kind,
        "node": alert.node,
        "rule": alert.rule,
        "severity": alert.severity.value,
        "message": alert.message,
        "raisedAt": alert.raised_at_ms,
        "recoveredAt": alert.recovered_at_ms,
    }


def as_text(notice: Notice) -> str:
    """A notice in one sentence."""
    alert = notice.alert
    if notice.kind == "raised":
        return f"{alert.severity.value}: {alert.message} (rule {alert.rule}, node {alert.node})"[:TEXT_AT_MOST]
    seconds = ((alert.recovered_at_ms or alert.raised_at_ms) - alert.raised_at_ms) // 1000
    return f"Recovered after {seconds} s: {alert.message} (rule {alert.rule}, node {alert.node})"[:TEXT_AT_MOST]


def webhook_body(notice: Notice, format: WebhookFormat) -> dict[str, object]:
    """The JSON that a webhook of this format expects; texts of ours mention nobody and open no links."""
    text = as_text(notice)
    match format:
        case "slack":
            return {"text": text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")}
        case "discord":
            return {"content": text, "allowed_mentions": {"parse": []}}
        case "json":
            return as_json(notice)


def mail(notice: Notice, sender: str, to: str) -> EmailMessage:
    """A notice as a mail."""
    alert = notice.alert
    message = EmailMessage()
    message["From"] = sender
    message["To"] = to
    message["Subject"] = f"[batchcast] {alert.severity.value} {notice.kind}: {' '.join(alert.rule.split())}"
    raised = datetime.fromtimestamp(alert.raised_at_ms / 1000, UTC).isoformat(timespec="seconds")
    message.set_content(f"{as_text(notice)}\n\nRaised at {raised}.\n")
    return message
