"""`batchcast tracking campaigns`, `submissions`, `payouts`: what is paid for, what is submitted to it, who gets the money.

Amounts are dollars, with at most two decimals.
"""

from __future__ import annotations

from typing import Annotated

import typer

from server.commands import tracking_printed as show
from server.commands.asking import DEFAULT_URL, AsJson, Token, Url
from server.commands.calling import stop
from server.commands.operating import ask
from server.commands.tracking_lists import Before, Limit, Note, change, hundredths, look, page, told

campaigns = typer.Typer(
    name="campaigns", help="Campaigns: list, create, pause, complete, reactivate, budget.", no_args_is_help=True
)
submissions = typer.Typer(
    name="submissions", help="Posts in campaigns: list, add, approve, reject.", no_args_is_help=True
)
payouts = typer.Typer(
    name="payouts",
    help="Payouts: list, balance, request, approve, complete, reject, revert.",
    no_args_is_help=True,
)
Campaign = Annotated[
    int, typer.Argument(metavar="CAMPAIGN", help="The campaign's number; `tracking campaigns list` has them.")
]
Submission = Annotated[
    int, typer.Argument(metavar="SUBMISSION", help="Its number; `tracking submissions list` has them.")
]
Payout = Annotated[
    int, typer.Argument(metavar="PAYOUT", help="The request's number; `tracking payouts list` has them.")
]
Creator = Annotated[str | None, typer.Option("--creator", help="Whose; only admins ask for others.")]


# --- campaigns ---


@campaigns.command("list")
def list_campaigns(
    status: Annotated[str | None, typer.Option("--status", help="Only ACTIVE, PAUSED or COMPLETED ones.")] = None,
    limit: Limit = 50,
    before: Before = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Show campaigns and their money, the newest first."""
    answer = look(url, token, "campaigns", status=_upper(status), limit=limit, before=before)
    page(answer, "campaigns", show.campaigns, as_json=as_json)


@campaigns.command("create")
def create(
    name: Annotated[str, typer.Argument(help="What it is called.")],
    budget: Annotated[str, typer.Option("--budget", metavar="DOLLARS", help="All that it may cost.")],
    rate: Annotated[str, typer.Option("--rate", metavar="DOLLARS", help="What 1,000 views are paid.")],
    reserved: Annotated[
        str | None, typer.Option("--reserved", metavar="DOLLARS", help="The part of the budget that is held back.")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option("--baseline", help="Views count from: submission (default), approval or zero.")
    ] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Make a campaign; it takes submissions at once."""
    kept = None if reserved is None else hundredths(reserved, "--reserved")
    money = {"budgetCents": hundredths(budget, "--budget"), "rateCents": hundredths(rate, "--rate")}
    given = {"name": name, **money, "reservedCents": kept, "baseline": baseline}
    change(url, token, "campaigns", show.campaign, given, as_json=as_json)


@campaigns.command("pause")
def pause(campaign: Campaign, as_json: AsJson = False, url: Url = DEFAULT_URL, token: Token = None) -> None:
    """Neither submissions nor earnings until `reactivate`, which pays the gap."""
    change(url, token, f"campaigns/{campaign}/pause", show.campaign, {}, as_json=as_json)


@campaigns.command("complete")
def complete(campaign: Campaign, as_json: AsJson = False, url: Url = DEFAULT_URL, token: Token = None) -> None:
    """End it although money is left; what was earned can be paid out."""
    change(url, token, f"campaigns/{campaign}/complete", show.campaign, {}, as_json=as_json)


@campaigns.command("reactivate")
def reactivate(campaign: Campaign, as_json: AsJson = False, url: Url = DEFAULT_URL, token: Token = None) -> None:
    """Have it go on, and pay once what its posts have gained meanwhile."""
    change(url, token, f"campaigns/{campaign}/reactivate", show.campaign, {}, as_json=as_json)


@campaigns.command("budget")
def budget(
    campaign: Campaign,
    budget: Annotated[str | None, typer.Argument(metavar="[DOLLARS]", help="All that it may cost.")] = None,
    reserved: Annotated[
        str | None, typer.Option("--reserved", metavar="DOLLARS", help="The part of it that is held back.")
    ] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Give it another budget or reserve; one that is COMPLETED goes on with `reactivate`."""
    if budget is None and reserved is None:
        stop("say what changes: DOLLARS, --reserved DOLLARS, or both")
    given = {"budgetCents": (budget, "DOLLARS"), "reservedCents": (reserved, "--reserved")}
    body = {name: hundredths(text, what) for name, (text, what) in given.items() if text is not None}
    answer = ask(url, token, "PATCH", f"/tracking/campaigns/{campaign}", body=dict(body))
    told(answer, show.campaign, as_json=as_json)


# --- submissions ---


@submissions.command("list")
def list_submissions(
    campaign: Annotated[int | None, typer.Option("--campaign", metavar="ID", help="Only those of this one.")] = None,
    status: Annotated[str | None, typer.Option("--status", help="Only PENDING, APPROVED or REJECTED ones.")] = None,
    creator: Creator = None,
    limit: Limit = 50,
    before: Before = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Show posts, their views and earnings, the newest first."""
    given = {"campaign": campaign, "status": _upper(status), "creator": creator, "limit": limit, "before": before}
    page(look(url, token, "submissions", **given), "submissions", show.submissions, as_json=as_json)


@submissions.command("add")
def add(
    campaign: Campaign,
    post: Annotated[str, typer.Argument(metavar="POST", help="The post's address on TikTok, Instagram, YouTube or X.")],
    creator: Creator = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Submit a post to a campaign; its views are looked at soon."""
    given = {"campaignId": campaign, "url": post, "creator": creator}
    change(url, token, "submissions", show.submission, given, as_json=as_json)


@submissions.command("approve")
def approve(submission: Submission, as_json: AsJson = False, url: Url = DEFAULT_URL, token: Token = None) -> None:
    """Let it earn."""
    change(url, token, f"submissions/{submission}/approve", show.submission, {}, as_json=as_json)


@submissions.command("reject")
def reject(
    submission: Submission, note: Note = None, as_json: AsJson = False, url: Url = DEFAULT_URL, token: Token = None
) -> None:
    """Let it earn nothing, or no more."""
    change(url, token, f"submissions/{submission}/reject", show.submission, {"note": note}, as_json=as_json)


# --- payouts ---


@payouts.command("list")
def list_payouts(
    status: Annotated[
        str | None, typer.Option("--status", help="Only PENDING, APPROVED, COMPLETED, REJECTED or REVERTED ones.")
    ] = None,
    creator: Creator = None,
    limit: Limit = 50,
    before: Before = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Show who asks for how much, the newest first."""
    answer = look(url, token, "payouts", status=_upper(status), creator=creator, limit=limit, before=before)
    page(answer, "payouts", show.payouts, as_json=as_json)


@payouts.command("balance")
def balance(creator: Creator = None, as_json: AsJson = False, url: Url = DEFAULT_URL, token: Token = None) -> None:
    """Show what a creator has earned, and what of it can be asked for."""
    told(look(url, token, "balance", creator=creator), show.balance, as_json=as_json)


@payouts.command("request")
def request(
    amount: Annotated[str | None, typer.Argument(metavar="[DOLLARS]", help="Default: all that is payable.")] = None,
    creator: Creator = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Ask for money of completed campaigns; one request of a creator is open at a time."""
    cents = None if amount is None else hundredths(amount, "DOLLARS")
    change(url, token, "payouts", show.payout, {"amountCents": cents, "creator": creator}, as_json=as_json)


@payouts.command("approve")
def approve_payout(
    payout: Payout,
    fee: Annotated[str | None, typer.Option("--fee", metavar="PERCENT", help="0 to 10; default: the server's.")] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Agree to pay it; the fee is fixed by that."""
    basis = None if fee is None else hundredths(fee.removesuffix("%"), "--fee")
    change(url, token, f"payouts/{payout}/approve", show.payout, {"feeBasis": basis}, as_json=as_json)


@payouts.command("complete")
def complete_payout(
    payout: Payout,
    transaction: Annotated[str, typer.Argument(metavar="TRANSACTION", help="The number that the bank gave.")],
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Say that it was paid, and by which transaction."""
    change(url, token, f"payouts/{payout}/complete", show.payout, {"transactionId": transaction}, as_json=as_json)


@payouts.command("reject")
def reject_payout(
    payout: Payout, note: Note = None, as_json: AsJson = False, url: Url = DEFAULT_URL, token: Token = None
) -> None:
    """Do not pay it; its money can be asked for again."""
    change(url, token, f"payouts/{payout}/reject", show.payout, {"note": note}, as_json=as_json)


@payouts.command("revert")
def revert(
    payout: Payout, note: Note = None, as_json: AsJson = False, url: Url = DEFAULT_URL, token: Token = None
) -> None:
    """Take an approval back; of one that was paid: the money came back, it can be asked for again."""
    change(url, token, f"payouts/{payout}/revert", show.payout, {"note": note}, as_json=as_json)


def _upper(status: str | None) -> str | None:
    return None if status is None else status.upper()
