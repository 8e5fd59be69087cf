"""`batchcast credentials`: the providers' API keys. A value comes from standard input or a prompt, never from the command
line, where others on the machine could see it; it is never shown."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from server.commands.asking import DEFAULT_URL, AsJson, Token, Url
from server.commands.calling import Failed, Json, out, stop
from server.commands.jobs import rows_of
from server.commands.operating import ask, inner, moment

app = typer.Typer(
    name="credentials", help="Providers' API keys: add, check, rotate, remove, list.", no_args_is_help=True
)
Id = Annotated[int, typer.Argument(help="The credential's number; `credentials list` has them.")]
VALUE_MOST = 8192


@app.command("add")
def add(
    account: Annotated[str, typer.Option("--account", help="The provider's account, such as biz_demo.")],
    provider: Annotated[str, typer.Option("--provider", help="Who keeps the members.")] = "whop",
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Keep an API key for an account: read from standard input, or asked for."""
    body: Json = {"account": account, "provider": provider, "value": _value()}
    _tell(ask(url, token, "POST", "/credentials", body=body), "added")


@app.command("rotate")
def rotate(credential: Id, url: Url = DEFAULT_URL, token: Token = None) -> None:
    """Replace an API key: read from standard input, or asked for."""
    _tell(ask(url, token, "POST", f"/credentials/{credential}/rotate", body={"value": _value()}), "rotated")


@app.command("check")
def check(credential: Id, url: Url = DEFAULT_URL, token: Token = None) -> None:
    """Ask the provider what a key is good for; exit code 1 when it is good for nothing."""
    answer = ask(url, token, "POST", f"/credentials/{credential}/check")
    if not answer.get("ok"):
        raise Failed(str(answer.get("message")))
    out.print(str(answer.get("message")), markup=False)


@app.command("remove")
def remove(credential: Id, url: Url = DEFAULT_URL, token: Token = None) -> None:
    """Forget an API key; jobs that need it end and say so."""
    answer = ask(url, token, "DELETE", f"/credentials/{credential}")
    out.print(f"credential {answer.get('id')} is gone (audit {answer.get('auditId')})", markup=False)


@app.command("list")
def list_credentials(as_json: AsJson = False, url: Url = DEFAULT_URL, token: Token = None) -> None:
    """Show the credentials, without their values."""
    answer = ask(url, token, "GET", "/credentials")
    if as_json:
        out.print_json(data=answer)
        return
    table = Table(
        "credential", "owner", "provider", "account", "added", "rotated", "last check", box=None, pad_edge=False
    )
    for row in rows_of(answer, "credentials"):
        names = (escape(str(row.get(name))) for name in ("owner", "provider", "account"))
        times = (moment(row.get(name)) for name in ("createdMs", "rotatedMs"))
        table.add_row(str(row.get("id")), *names, *times, escape(str(row.get("checkResult") or "never")))
    out.print(table)


def _value() -> str:
    """The first line of standard input, or what is typed where nobody sees it."""
    if sys.stdin.isatty():
        return str(typer.prompt("API key", hide_input=True)).strip()
    value = sys.stdin.readline(VALUE_MOST).strip()
    if not value:
        stop("no API key came: pipe it in, or run this in a terminal and type it")
    return value


def _tell(answer: Json, what: str) -> None:
    credential = inner(answer, "credential")
    names = f"{credential.get('provider')} {credential.get('account')}"
    out.print(f"credential {credential.get('id')} {what}: {names} (audit {answer.get('auditId')})", markup=False)
