"""Writes every generated file, or says which are stale: python scripts/generate.py [--check].

Whole files, and parts of files between two markers; what stands outside the markers is written by hand and stays.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import orjson  # noqa: E402  the path first, so that it also runs as a plain script

from scripts.monitoring import alert_rules, dashboard  # noqa: E402
from scripts.protocol_tables import protocol_tables  # noqa: E402
from server.handlers.access import access_markdown  # noqa: E402
from server.handlers.http import ROUTES  # noqa: E402
from server.handlers.openapi import document_bytes  # noqa: E402
from server.protocol.schema import protocol_schema  # noqa: E402
from server.settings import example_env, markdown_table  # noqa: E402


@dataclass(frozen=True, slots=True)
class Part:
    """The text between `<!-- name -->` and `<!-- /name -->`."""

    name: str
    text: Callable[[], str]

    def put_into(self, whole: str) -> str:
        """The same text with this part renewed."""
        start, end = f"<!-- {self.name} -->\n", f"<!-- /{self.name} -->"
        before, found, rest = whole.partition(start)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            raise ValueError(f"the markers {start.strip()} and {end} are missing")
        return f"{before}{start}\n{self.text()}\n{end}{after}"


def _schema() -> str:
    return orjson.dumps(protocol_schema(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()


TARGETS: Mapping[str, Callable[[], str] | Part] = {
    "config.example.env": example_env,
    "README.md": Part("configuration", markdown_table),
    "client-examples/protocol.schema.json": _schema,
    "client-examples/openapi.json": lambda: document_bytes(ROUTES).decode(),
    "docs/access.md": access_markdown,
    "docs/protocol.md": Part("generated", protocol_tables),
    "deploy/prometheus-rules.yml": alert_rules,
    "deploy/grafana-dashboard.json": dashboard,
}


def fresh(name: str, root: Path = ROOT) -> str:
    """What the file should hold."""
    target = TARGETS[name]
    return target.put_into((root / name).read_text()) if isinstance(target, Part) else target()


def stale(root: Path = ROOT) -> list[str]:
    """The files that are not as they should be, each with why."""
    found = []
    for name in TARGETS:
        try:
            current = (root / name).read_text()
            if current != fresh(name, root):
                found.append(f"{name} is stale")
        except (OSError, ValueError) as error:
            found.append(f"{name}: {error}")
    return found


def write(root: Path = ROOT) -> list[str]:
    """Bring every file up to date; the names of those that changed."""
    changed = []
    for name in TARGETS:
        path = root / name
        text = fresh(name, root)
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            changed.append(name)
    return changed


def main(arguments: list[str]) -> int:
    """The program; the exit code."""
    if arguments not in ([], ["--check"]):
        print(__doc__)
        return 2
    if arguments:
        problems = stale()
        print("\n".join([*problems, "make generate"]) if problems else "everything generated is up to date")
        return int(bool(problems))
    print("\n".join(write()) or "nothing has changed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
