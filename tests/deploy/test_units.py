"""What deploy/ says of the server is what the server does: units of systemd, the image, the containers."""

import re
from collections import defaultdict
from pathlib import Path

import pytest

from server.app import App
from server.edge import postgres, postmaster
from server.edge.embedded import START_LIMIT_S
from server.handlers.connection import CLOSE_S
from server.settings import FIELDS, load

pytestmark = pytest.mark.pure

DEPLOY = Path(__file__).parents[2] / "deploy"
UNITS = sorted(path.name for path in DEPLOY.glob("*.service"))
LISTENER_DRAIN_S = 5.0
HAND_OVER_S = 5.0


def unit(name: str) -> dict[str, list[str]]:
    """The settings of a unit, each with its values in their order."""
    found: dict[str, list[str]] = defaultdict(list)
    for line in (DEPLOY / name).read_text().splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            found[key].append(value)
    return found


def seconds(text: str) -> float:
    number, word = re.fullmatch(r"(\d+)(min|s)", text).groups()  # type: ignore[union-attr]
    return int(number) * (60 if word == "min" else 1)


def stop_s() -> float:
    """The longest that a server with default settings takes to end: App.stop, step by step."""
    drain_s = load({}).shutdown_timeout_ms / 1000
    sockets_s = drain_s + 2 * CLOSE_S
    database_s = postgres.CLOSE_LIMIT_S + postmaster.STOP_LIMIT_S + postmaster.QUIT_LIMIT_S
    return LISTENER_DRAIN_S + drain_s + sockets_s + drain_s + HAND_OVER_S + database_s


def test_a_stop_has_the_time_that_it_may_take() -> None:
    assert App.stop is not None
    assert seconds(unit("batchcast.service")["TimeoutStopSec"][0]) > stop_s()
    grace = re.search(r"stop_grace_period: (\d+)m", (DEPLOY / "compose.yaml").read_text())
    assert grace is not None and int(grace[1]) * 60 > stop_s()


def test_a_start_has_the_time_that_recovery_may_take() -> None:
    assert seconds(unit("batchcast.service")["TimeoutStartSec"][0]) > START_LIMIT_S


def test_only_the_server_itself_is_told_to_stop() -> None:
    """PostgreSQL is in the same control group: a signal to all would take it away before the last flush."""
    for name in ("batchcast.service", "batchcast-worker@.service"):
        assert unit(name)["KillMode"] == ["mixed"]
        assert unit(name)["Type"] == ["notify"]


def test_a_wrong_setting_is_not_tried_again_and_a_crash_is() -> None:
    said = unit("batchcast.service")
    assert (said["Restart"], said["RestartPreventExitStatus"]) == (["on-failure"], ["2"])


@pytest.mark.parametrize("name", UNITS)
def test_no_unit_runs_as_root_or_may_become_more(name: str) -> None:
    said = unit(name)
    assert (said["User"], said["NoNewPrivileges"], said["CapabilityBoundingSet"]) == (["batchcast"], ["yes"], [""])
    assert said["ProtectSystem"] == ["strict"]
    assert "/dev" not in " ".join(said["ReadWritePaths"])


@pytest.mark.parametrize("name", UNITS)
def test_every_variable_that_a_unit_sets_is_a_setting(name: str) -> None:
    ours = {name.upper() for name in FIELDS} | {"NUMBA_CACHE_DIR"}
    assert {value.partition("=")[0] for value in unit(name)["Environment"]} <= ours


def test_every_variable_of_the_image_and_the_containers_is_a_setting() -> None:
    ours = {name.upper() for name in FIELDS} | {"NUMBA_CACHE_DIR", "PATH", "PYTHONUNBUFFERED"}
    docker = (DEPLOY / "Dockerfile").read_text()
    environment = docker[docker.index("ENV ") : docker.index("USER ")]
    assert set(re.findall(r"([A-Z_]+)=", environment)) <= ours
    compose = (DEPLOY / "compose.yaml").read_text()
    server = compose[compose.index("  batchcast:") : compose.index("  caddy:")]
    assert set(re.findall(r"^      ([A-Z_]+):", server, re.M)) <= ours


def test_the_image_does_not_run_as_root_looks_after_itself_and_hears_the_signal() -> None:
    last = (DEPLOY / "Dockerfile").read_text().rpartition("FROM ")[2]
    assert re.search(r"^USER batchcast$", last, re.M)
    assert "/readyz" in last[last.index("HEALTHCHECK") :]
    assert re.search(r'^ENTRYPOINT \["batchcast"\]$', last, re.M), "a shell would keep the signal to itself"
    assert re.search(r"^STOPSIGNAL SIGTERM$", last, re.M)


def test_what_the_package_links_to_comes_into_the_image() -> None:
    root = DEPLOY.parent
    links = [path.resolve().relative_to(root).as_posix() for path in (root / "server").rglob("*") if path.is_symlink()]
    assert links == ["client-examples/batchcast.js"]
    copied = (DEPLOY / "Dockerfile").read_text()
    let_in = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    for link in links:
        assert f"COPY {link} ./{link.rpartition('/')[0]}/\n" in copied
        assert f"!{link}" in let_in


def test_enough_files_may_be_open_for_every_connection() -> None:
    most = load({}).max_connections
    assert int(unit("batchcast.service")["LimitNOFILE"][0]) > most + 1000
    found = re.search(r"nofile: (\d+)", (DEPLOY / "compose.yaml").read_text())
    assert found is not None and int(found[1]) > most + 1000


@pytest.mark.parametrize("setting", ["ping_interval_ms", "slow_client_timeout_ms"])
def test_the_proxy_is_more_patient_than_the_server(setting: str) -> None:
    text = (DEPLOY / "nginx.conf").read_text()
    ws = text[text.index("location = /ws") : text.index("location / ")]
    for name in ("proxy_read_timeout", "proxy_send_timeout"):
        found = re.search(rf"{name} (\d+)s;", ws)
        assert found is not None and int(found[1]) * 1000 > 2 * getattr(load({}), setting)
