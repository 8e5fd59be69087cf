"""What several commands print alike: plain tables, counts, the checks of a verification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.markup import escape
from rich.table import Table

from server.commands.calling import Json
from server.commands.operating import number

EXAMPLES_SHOWN: Final = 20


def whole(value: object) -> str:
    """A count."""
    return f"{int(number(value)):,}"


def table(*columns: str) -> Table:
    """A plain table."""
    return Table(*columns, box=None, pad_edge=False)


def checks(rows: Sequence[Json]) -> Table:
    """What was checked; of what does not hold the first that differ."""
    said = table("check", "", "wrong", "what must hold; else the first that does not")
    for row in rows:
        good, examples = bool(row.get("ok")), row.get("examples")
        told = "; ".join(str(one) for one in (examples if isinstance(examples, list) else [])[:EXAMPLES_SHOWN])
        mark = "[green]ok[/]" if good else "[red]wrong[/]"
        text = escape(str(row.get("meaning")) if good else told)
        said.add_row(str(row.get("name")), mark, whole(row.get("failed")), text)
    return said


def wrong(rows: Sequence[Json]) -> str:
    """The names of the checks that do not hold."""
    return ", ".join(str(row.get("name")) for row in rows if not row.get("ok"))
