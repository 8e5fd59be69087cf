"""Every setting, declared once: name, type, default, unit, bounds, one sentence, and whether it may change at run time.

The environment variable is the field's name in capitals (`batch_interval_ms` is BATCH_INTERVAL_MS). From these declarations
are made: `config.example.env`, the table in README.md, `batchcast config`, and the errors for wrong values; tests fail
when one of them is stale. Precedence: run time (stored in PostgreSQL, `RUNTIME`) over environment over default.

`load()` raises StartRefused naming the variable, the value and what is allowed. A variable that is not declared but has one
of our prefixes is refused with the nearest name; one that nearly is a declared name (of 8 letters or more) is a warning.

The declarations are in this folder, a file for each group of settings; here is what is done with them.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from server.errors import StartRefused
from server.settings.feed import Batching, Score
from server.settings.imports import Imports
from server.settings.journal import Journal, check_journal
from server.settings.limits import Limits
from server.settings.provider import Provider, check_provider
from server.settings.schedules import Schedules, check_schedules
from server.settings.server import Access, Alerts, Server
from server.settings.tiers import Tiers
from server.settings.tracking import Tracking, check_tracking

PREFIXES: Final = ("BATCH_", "JWT_", "ADAPTIVE_", "PREDICTIVE_", "SCHEDULES_", "TRACKING_", "IMPORTS_", "TIERS_")


# The last base comes first in the generated files.
class Settings(
    Tracking,
    Tiers,
    Schedules,
    Provider,
    Imports,
    Alerts,
    Journal,
    Limits,
    Score,
    Batching,
    Access,
    Server,
    BaseSettings,
):
    """What one server was started with. Immutable; what may change at run time is copied into `Tunables`."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, validate_default=False, env_ignore_empty=True)

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


LISTS: Final = ("allowed_origins", "trusted_proxies")
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
    for name in LISTS:
        if isinstance(values.get(name), str):
            values[name] = tuple(one.strip() for one in values[name].split(",") if one.strip())
    try:
        settings = Settings(**values)
    except ValidationError as error:
        raise StartRefused("\n".join(_explain(e, values) for e in error.errors())) from None
    if (
        settings.adaptive_batching or settings.predictive_batching
    ) and settings.adaptive_min_interval_ms > settings.adaptive_max_interval_ms:
        least, most = settings.adaptive_min_interval_ms, settings.adaptive_max_interval_ms
        raise StartRefused(f"ADAPTIVE_MIN_INTERVAL_MS={least} is more than ADAPTIVE_MAX_INTERVAL_MS={most}; lower it.")
    check_journal(settings)
    check_provider(settings)
    check_schedules(settings, settings)
    check_tracking(settings)
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
