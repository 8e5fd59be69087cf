"""Logs: one line an event, in two formats, from everybody, without secrets."""

import io
import json
import logging
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from server.edge.logs import HIDDEN, configure, redacted


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def lines() -> io.StringIO:
    stream = io.StringIO()
    configure("json", "info", stream)
    return stream


def test_an_event_is_one_line_of_json_with_time_and_level(lines: io.StringIO) -> None:
    structlog.get_logger("server").info("postgres started", pid=7, seconds=0.5)
    line = json.loads(lines.getvalue())
    assert (line["event"], line["pid"], line["level"]) == ("postgres started", 7, "info")
    assert line["timestamp"].endswith("Z")


def test_the_libraries_log_through_the_same_lines(lines: io.StringIO) -> None:
    logging.getLogger("asyncpg").warning("connection to %s lost", "postgres://joe:hunter2@db/x")
    line = json.loads(lines.getvalue())
    assert (line["event"], line["level"], line["logger"]) == (
        f"connection to postgres://{HIDDEN}@db/x lost",
        "warning",
        "asyncpg",
    )


def test_what_is_below_the_level_is_not_written(lines: io.StringIO) -> None:
    structlog.get_logger().debug("turn planned")
    logging.getLogger("asyncio").debug("polling")
    assert lines.getvalue() == ""


def test_secrets_are_hidden_by_key_at_any_depth_and_in_urls_and_tracebacks(lines: io.StringIO) -> None:
    try:
        raise OSError("no route to smtp://joe:hunter2@mail:25")
    except OSError:
        structlog.get_logger().exception(
            "mail lost",
            token="hunter2",
            jwt_secret="hunter2",
            DSN="hunter2",
            headers={"Authorization": "hunter2", "Accept": "*/*"},
            urls=["https://joe:hunter2@host/path"],
        )
    assert "hunter2" not in lines.getvalue()
    line = json.loads(lines.getvalue())
    assert line["headers"] == {"Authorization": HIDDEN, "Accept": "*/*"}
    assert "no route to smtp" in line["exception"]


def test_the_console_format_is_for_reading() -> None:
    stream = io.StringIO()
    configure("console", "info", stream)
    structlog.get_logger().warning("alert raised", rule="loop toy failing", password="hunter2")
    assert "alert raised" in stream.getvalue()
    assert "hunter2" not in stream.getvalue()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://u:p@h/d", f"postgresql://{HIDDEN}@h/d"),
        ("redis://:p@h", f"redis://{HIDDEN}@h"),
        ("http://host:80/a@b:c", "http://host:80/a@b:c"),
        ("a:b@c", "a:b@c"),
        ("x://u:p@ss@h y://v:q@i", f"x://{HIDDEN}@h y://{HIDDEN}@i"),
    ],
)
def test_only_the_credentials_of_a_url_are_hidden(text: str, expected: str) -> None:
    assert redacted(text) == expected


@given(st.text(st.characters(exclude_characters="/\"'", exclude_categories=["Z", "C"]), min_size=4))
def test_no_password_of_a_url_survives(password: str) -> None:
    text = redacted(f"connecting to postgres://server:{password}@example.org/db now")
    assert text == f"connecting to postgres://{HIDDEN}@example.org/db now"


def test_a_crash_below_python_says_where_it_happened() -> None:
    program = (
        "import os, signal; from server.edge.logs import trace_crashes; trace_crashes(); "
        "os.kill(os.getpid(), signal.SIGSEGV)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert ended.returncode == -signal.SIGSEGV
    assert "Segmentation fault" in ended.stderr
    assert 'File "<string>", line 1' in ended.stderr
