"""What the commands of `batchcast tracking` share: pages of a list, answers to a change, amounts as people write them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Final, TypeAlias

import typer
from rich.table import Table

from server.commands.calling import Json, err, out, stop
from server.commands.jobs import rows_of
from server.commands.operating import ask

AMOUNT: Final = re.compile(r"\$?(\d{1,10}|\d{1,3}(?:,\d{3}){1,3})(?:\.(\d{1,2}))?", re.ASCII)
"""Commas stand between thousands only: where 12,50 is twelve and a half, nobody shall pay 1,250."""

Limit: TypeAlias = Annotated[int, typer.Option("--limit", min=1, max=500, help="At most so many.")]
Before: TypeAlias = Annotated[int | None, typer.Option("--before", help="Where the page before ended.")]
Note: TypeAlias = Annotated[str | None, typer.Option("--note", help="Why, for those who ask later.")]


def page(
    answer: Json, name: str, show: Callable[[Sequence[Json]], Table], *, as_json: bool, more: str = "--before"
) -> None:
    """Print a page of a list, and how to go on."""
    if as_json:
        out.print_json(data=answer)
        return
    out.print(show(rows_of(answer, name)))
    if answer.get("next") is not None:
        err.print(f"more with {more} {answer['next']}", markup=False)


def look(url: str, token: str | None, path: str, **given: object) -> Json:
    """Ask for a list; what was not given is left out."""
    params = [(name, str(value)) for name, value in given.items() if value is not None]
    return ask(url, token, "GET", f"/tracking/{path}", params)


def change(
    url: str, token: str | None, path: str, say: Callable[[Json], str], given: Mapping[str, object], *, as_json: bool
) -> None:
    """Have something changed, and print how it is afterwards; what was not given is left out."""
    body: Json = {name: value for name, value in given.items() if value is not None}
    told(ask(url, token, "POST", f"/tracking/{path}", body=body), say, as_json=as_json)


def told(answer: Json, say: Callable[[Json], str], *, as_json: bool) -> None:
    """Print an answer, as a sentence or as it came."""
    out.print_json(data=answer) if as_json else out.print(say(answer), markup=False)


def hundredths(text: str, what: str) -> int:
    """1500, 12.50 and $1,500.00 in cents; 2.5 (per cent) in hundredths of one. No float on the way."""
    match = AMOUNT.fullmatch(text.strip())
    if match is None:
        stop(f"{what} is an amount with at most two decimals, such as 1500 or 12.50, not {text[:40]!r}")
    return int(match[1].replace(",", "")) * 100 + int((match[2] or "").ljust(2, "0"))
