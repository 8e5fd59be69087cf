"""Logs: one event a line, from our own code and from the libraries, without secrets.

`configure` sends structlog and the standard library's logging through the same processors to standard error: coloured
columns for people, or JSON for machines. What could be a secret is taken out on the way, whoever logged it: values whose
key is, or ends in, one of SECRET_KEYS, and the password part of any URL in any text, tracebacks included. That is a net
under the rule that secrets are not logged, not leave to log them.

`trace_crashes` has an end below Python tell where it happened.
"""

import faulthandler
import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Literal, TextIO

import orjson
import structlog

SECRET_KEYS = ("token", "secret", "password", "authorization", "dsn")
HIDDEN = "[hidden]"
# Values nested deeper are shown as text.
DEPTH_AT_MOST = 6

# user:password@ after a scheme; the user may be empty, and both may hold anything but white space, quotes and slashes.
_CREDENTIALS = re.compile(r"(?P<scheme>\b[a-zA-Z][a-zA-Z0-9+.-]{0,30}://)[^\s/'\"@:]*:[^\s/'\"]*@")

EventDict = MutableMapping[str, object]


def trace_crashes() -> None:
    """A segmentation fault or an abort writes to standard error where every thread was; the process ends as before."""
    if sys.__stderr__ is not None:
        faulthandler.enable(sys.__stderr__)


def configure(
    format: Literal["console", "json"] = "console", level: str = "info", stream: TextIO | None = None
) -> None:
    """Set up logging for this process; calling it again replaces what was."""
    stream = stream or sys.stderr
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact,
    ]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _renderer(format, stream)],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def redact(logger: object, method: str, event: EventDict) -> EventDict:
    """The processor that takes secrets out of an event."""
    for key, value in list(event.items()):
        if not key.startswith("_"):
            event[key] = HIDDEN if _is_secret(key) and value is not None else _cleaned(value, DEPTH_AT_MOST)
    return event


def redacted(text: str) -> str:
    """The text with user and password of every URL in it hidden."""
    return _CREDENTIALS.sub(rf"\g<scheme>{HIDDEN}@", text)


def _is_secret(key: str) -> bool:
    return key.lower().replace("-", "_").endswith(SECRET_KEYS)


def _cleaned(value: object, depth: int) -> object:
    if isinstance(value, str):
        return redacted(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if depth == 0:
        return redacted(str(value))
    if isinstance(value, Mapping):
        return {str(key): HIDDEN if _is_secret(str(key)) else _cleaned(item, depth - 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_cleaned(item, depth - 1) for item in value]
    return redacted(str(value))


def _renderer(format: Literal["console", "json"], stream: TextIO) -> structlog.types.Processor:
    if format == "json":
        return structlog.processors.JSONRenderer(serializer=_json)
    return structlog.dev.ConsoleRenderer(colors=stream.isatty())


def _json(event: object, **_: object) -> str:
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
