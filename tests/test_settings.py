import re
from typing import Any

import pytest
from pydantic import ValidationError

from server.errors import StartRefused
from server.settings import (
    FIELDS,
    PREFIXES,
    RUNTIME,
    Settings,
    allowed,
    check,
    default_text,
    example_env,
    is_runtime,
    load,
    markdown_table,
    warnings,
)

pytestmark = pytest.mark.pure


def bounds(name: str) -> dict[str, float]:
    return {k: getattr(m, k) for m in FIELDS[name].metadata for k in ("ge", "le") if getattr(m, k, None) is not None}


BOUNDED = [name for name in FIELDS if bounds(name)]
COMPANIONS = {
    "journal_file_mb": {"JOURNAL_KEEP_MB": "65536"},
    "journal_keep_mb": {"JOURNAL_FILE_MB": "1"},
    "tracking_budget_ms": {"TRACKING_CALL_TIMEOUT_MS": "1000"},
    "tracking_call_timeout_ms": {"TRACKING_BUDGET_MS": "3600000"},
}
"""What must be set together with another, for that one's bounds to make sense."""


def test_without_an_environment_everything_has_its_default() -> None:
    settings = load({})
    assert settings == Settings()
    assert settings.model_fields_set == set()
    assert (settings.batch_interval_ms, settings.max_batch_size, settings.enable_batching) == (900_000, 1000, True)
    assert (settings.host, settings.http_port, settings.ws_port) == ("127.0.0.1", 8080, 8081)
    assert (settings.urgent_gap_ms, settings.min_flush_gap_ms, settings.drift_interval_ms) == (2000, 5000, 60_000)
    assert (settings.score_threshold, settings.spacing_km, settings.slow_client_timeout_ms) == (0.01, 0.5, 30_000)


def test_a_variable_sets_its_field_and_an_empty_one_does_not() -> None:
    settings = load({"BATCH_INTERVAL_MS": "5000", "ENABLE_BATCHING": "false", "DATA_DIR": "", "HOME": "/root"})
    assert (settings.batch_interval_ms, settings.enable_batching) == (5000, False)
    assert settings.model_fields_set == {"batch_interval_ms", "enable_batching"}


def test_an_explicit_value_wins_over_the_environment_and_none_is_none_given() -> None:
    settings = load({"HTTP_PORT": "1234", "WS_PORT": "1235"}, http_port=80, ws_port=None)
    assert (settings.http_port, settings.ws_port) == (80, 1235)


def test_lists_are_separated_by_commas() -> None:
    settings = load({"ALLOWED_ORIGINS": " https://a.example ,,https://b.example,"})
    assert settings.allowed_origins == ("https://a.example", "https://b.example")


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        load({}).http_port = 1  # type: ignore[misc]  # frozen, which is what is tested


@pytest.mark.parametrize("name", BOUNDED)
def test_a_value_out_of_bounds_stops_the_start_with_name_value_and_what_is_allowed(name: str) -> None:
    limits = bounds(name)
    for bad in [limits["ge"] - 1, limits["le"] + 1]:
        with pytest.raises(StartRefused) as caught:
            load({name.upper(): str(bad)})
        text = str(caught.value)
        assert text.startswith(f"{name.upper()} is '{bad}': ")
        assert f"Allowed: {allowed(name)}." in text
        assert f"from {limits['ge']} to {limits['le']}" in text


@pytest.mark.parametrize("name", BOUNDED)
def test_the_bounds_themselves_are_allowed(name: str) -> None:
    for good in bounds(name).values():
        assert getattr(load({name.upper(): str(good), **COMPANIONS.get(name, {})}), name) == good


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("BATCH_INTERVAL_MS", "soon", "a whole number from 100 to 86400000"),
        ("BATCH_INTERVAL_MS", "1.5", "a whole number"),
        ("SCORE_THRESHOLD", "nan", "a number from 0 to 1"),
        ("SCORE_THRESHOLD", "inf", "a number from 0 to 1"),
        ("ENABLE_BATCHING", "perhaps", "true | false"),
        ("LOG_FORMAT", "xml", "console | json"),
        ("LOG_LEVEL", "loud", "debug | info | warning | error"),
    ],
)
def test_a_value_of_the_wrong_kind_stops_the_start(variable: str, value: str, says: str) -> None:
    with pytest.raises(StartRefused, match=re.escape(f"{variable} is '{value}'")) as caught:
        load({variable: value})
    assert f"Allowed: {says}" in str(caught.value)


def test_all_wrong_values_are_named_at_once() -> None:
    with pytest.raises(StartRefused) as caught:
        load({"HTTP_PORT": "x", "WS_PORT": "-1"})
    assert {line.split(" ")[0] for line in str(caught.value).splitlines()} == {"HTTP_PORT", "WS_PORT"}


def test_a_secret_is_never_shown() -> None:
    secret = "postgresql://root:swordfish@db/x"
    settings = load({"DATABASE_URL": secret, "JWT_SECRET": "swordfish" * 8})
    assert "swordfish" not in repr(settings) and "swordfish" not in str(settings)
    with pytest.raises(StartRefused) as caught:
        load({}, jwt_secret={"swordfish": 1})
    assert "swordfish" not in str(caught.value)
    assert "JWT_SECRET is (a secret)" in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "near"),
    [("BATCH_INTERVALL_MS", "BATCH_INTERVAL_MS"), ("JWT_SECRETS", "JWT_SECRET"), ("JWT_AUD", "JWT_AUDIENCE")],
)
def test_an_undeclared_variable_with_a_prefix_of_ours_is_an_error_that_names_the_nearest(
    variable: str, near: str
) -> None:
    with pytest.raises(StartRefused, match=f"{variable} is not a setting; the nearest is {near} "):
        load({variable: "1"})


@pytest.mark.parametrize("prefix", PREFIXES)
def test_every_prefix_is_guarded(prefix: str) -> None:
    with pytest.raises(StartRefused, match=f"{prefix}NO_SUCH_THING"):
        load({f"{prefix}NO_SUCH_THING": "1"})


def test_another_variable_nearly_like_a_long_name_is_a_warning() -> None:
    environ = {
        "MAX_BACH_SIZE": "5",
        "ENABLE_BATCHNG": "1",
        "HTTP_PORT": "1",
        "HOSTS": "x",
        "PATH": "/bin",
        "BATCHCAST_TOKEN": "x",
    }
    assert load(environ).http_port == 1
    assert warnings(environ) == [
        "ENABLE_BATCHNG is not a setting; did you mean ENABLE_BATCHING?",
        "MAX_BACH_SIZE is not a setting; did you mean MAX_BATCH_SIZE?",
    ]


@pytest.mark.parametrize(
    ("name", "value"), [("batch_interval_ms", 100), ("max_batch_size", 1_000_000), ("enable_batching", False)]
)
def test_a_value_for_run_time_is_checked_like_any_other(name: str, value: Any) -> None:
    assert check(name, value) == value


@pytest.mark.parametrize(
    ("name", "value"), [("batch_interval_ms", 99), ("max_batch_size", 0), ("enable_batching", "perhaps")]
)
def test_a_value_for_run_time_that_is_out_of_bounds_says_what_is_allowed(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=re.escape(f"Allowed: {allowed(name)}")):
        check(name, value)


def test_what_may_change_at_run_time_has_the_names_of_the_wire() -> None:
    assert RUNTIME == {
        "batchIntervalMs": "batch_interval_ms",
        "maxBatchSize": "max_batch_size",
        "enableBatching": "enable_batching",
    }
    assert [name for name in FIELDS if is_runtime(name)] == list(RUNTIME.values())


def test_the_example_names_every_setting_and_spelled_out_gives_the_defaults() -> None:
    lines = [line[1:] for line in example_env().splitlines() if line.startswith("#") and "=" in line.split(" ")[0]]
    environ = dict(line.split("=", 1) for line in lines)
    assert list(environ) == [name.upper() for name in FIELDS]
    assert load(environ) == Settings()


def test_the_table_has_a_row_for_every_setting_with_four_cells() -> None:
    rows = markdown_table().splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == [name.upper() for name in FIELDS]
    assert all(len(re.split(r"(?<!\\)\|", row)) == 6 for row in rows)
    assert sum("**run time**" in row for row in rows) == len(RUNTIME)


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_says_what_it_is_and_in_which_unit(name: str) -> None:
    description = FIELDS[name].description or ""
    assert description.endswith(".")
    unit = name.rsplit("_", 1)[-1]
    if unit in ("ms", "km", "h", "bytes"):
        assert f"({unit})" in description or (unit == "h" and "Hours" in description)
    assert default_text(name) == "" or getattr(load({name.upper(): default_text(name)}), name) == getattr(
        Settings(), name
    )
