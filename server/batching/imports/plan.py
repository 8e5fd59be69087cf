"""What is decided about import jobs. Pure: values in, values out; the SQL and the lanes act on it.

A step of a job answers with a verdict: `Onward` (a page is stored, there is more), `Done`, `Failed` (trying again cannot
help), `Again` (the world's fault, or ours: the ladder decides when, or that it was the last time) or `Lost` (the job is not
ours any more: nothing may be written). `settled` turns a verdict into the row that ends the claim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Final, Literal, TypeAlias, assert_never

from server.core.identity import Identity
from server.core.member import Member, Page
from server.core.retry import delay_s, exhausted
from server.errors import Code, Refused

Status: TypeAlias = Literal["scheduled", "pending", "processing", "completed", "failed", "cancelled"]
STATUSES: Final[tuple[Status, ...]] = ("scheduled", "pending", "processing", "completed", "failed", "cancelled")
ENDED: Final[frozenset[Status]] = frozenset(("completed", "failed", "cancelled"))

PRIORITY_DEFAULT: Final = 5
PRIORITY_MOST: Final = 9
PRIORITY_ADMIN_ABOVE: Final = 5
EMAIL_MOST: Final = 320
ERROR_MOST: Final = 1_000
"""Longer error texts are cut."""
AHEAD_S: Final = 0.1
"""A process claims as many jobs as it has lately ended in this time, so that the lanes don't run dry between two claims."""
NO_EMAIL_AT_ALL: Final = (
    "none of the {seen} members has an e-mail address: the key lacks the scope to read them. "
    "Give it that scope (or rotate the credential), then requeue the job"
)


@dataclass(frozen=True, slots=True)
class Job:
    """A job as the worker that claimed it sees it; `lease` is its claim token."""

    id: int
    lease: int
    owner: str = ""
    audience_id: int | None = None
    source: str = "provider"
    provider: str | None = None
    account: str | None = None
    credential_id: int | None = None
    file: str | None = None
    retry_count: int = 0
    max_retries: int = 5
    cursor: str | None = None
    drained: bool = False
    pages: int = 0
    total: int | None = None
    seen: int = 0
    imported: int = 0
    without_email: int = 0
    rejected: int = 0


@dataclass(frozen=True, slots=True)
class Onward:
    """A page is stored; the job goes on from here."""

    job: Job


@dataclass(frozen=True, slots=True)
class Done:
    """Nothing is left to do; `seen` are the members that its job saw in all."""

    seen: int = 0


@dataclass(frozen=True, slots=True)
class Failed:
    """It cannot work, however often it is tried. `afresh`: requeued by hand, it begins at the first page."""

    error: str
    afresh: bool = False


@dataclass(frozen=True, slots=True)
class Again:
    """It did not work this time; `after_s` is what the other side asked for, at the least."""

    error: str
    after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Released:
    """Handed back as it is, no failure of anybody: the worker stops, or has no lane for it."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The lease has gone to somebody else, or the job was cancelled: there is nothing to write."""


Ending: TypeAlias = Done | Failed | Again | Released
Verdict: TypeAlias = Onward | Ending | Lost


@dataclass(frozen=True, slots=True)
class Ladder:
    """How long to wait after a failure."""

    first_s: float = 5.0
    cap_s: float = 600.0


@dataclass(frozen=True, slots=True)
class Settled:
    """How a claim ends: the columns of one row."""

    job: int
    lease: int
    status: Status
    failures: int
    delay_s: float | None = None
    error: str | None = None
    afresh: bool = False


def settled(job: Job, ending: Ending, ladder: Ladder, jitter: float) -> Settled:
    """What to write about a job at the end of a claim."""
    match ending:
        case Done():
            return Settled(job.id, job.lease, "completed", job.retry_count)
        case Released():
            return Settled(job.id, job.lease, "pending", job.retry_count)
        case Failed(error, afresh):
            return Settled(job.id, job.lease, "failed", job.retry_count, None, error[:ERROR_MOST], afresh)
        case Again(error, after_s):
            return _again(job, error[:ERROR_MOST], after_s or 0.0, ladder, jitter)
    assert_never(ending)


def _again(job: Job, error: str, after_s: float, ladder: Ladder, jitter: float) -> Settled:
    failures = job.retry_count + 1
    if exhausted(failures, job.max_retries):
        return Settled(job.id, job.lease, "failed", job.retry_count, None, error)
    wait_s = delay_s(failures, first_s=ladder.first_s, cap_s=ladder.cap_s, jitter=jitter)
    return Settled(job.id, job.lease, "scheduled", failures, max(wait_s, after_s), error)


def rescued(job: Job, ladder: Ladder, jitter: float) -> Settled:
    """What becomes of a job whose worker died: once more at once the first time, later by the ladder.

    Nobody knows which of its jobs killed a worker. Those that come back apart, each at its own time, don't stand for the
    guilty one again and again; and an innocent one stores a page, which wipes its count."""
    ending = _again(job, f"the worker that held it died (attempt {job.retry_count + 1})", 0.0, ladder, jitter)
    if ending.status == "scheduled" and ending.failures == 1:
        return replace(ending, status="pending", delay_s=None)
    return ending


# Members


@dataclass(frozen=True, slots=True)
class Harvest:
    """What a page comes to: each address once, folded; how many members stood behind, and how many of them have none."""

    contacts: tuple[tuple[str, Member], ...]
    seen: int
    without_email: int


def harvest(members: Sequence[Member]) -> Harvest:
    """Members by trimmed, case-folded e-mail address; of two with the same the first counts."""
    found: dict[str, Member] = {}
    without = 0
    for member in members:
        email = folded(member.email)
        if email is None:
            without += 1
        else:
            found.setdefault(email, member)
    # In the order of the table's key: two jobs that fill one list never wait for each other's rows crosswise.
    return Harvest(tuple(sorted(found.items(), key=_email)), len(members), without)


def folded(email: str | None) -> str | None:
    """The address by which members are told apart; None when it is no address that could be stored."""
    text = (email or "").strip().casefold()
    return text if 0 < len(text) <= EMAIL_MOST else None


def _email(contact: tuple[str, Member]) -> str:
    return contact[0]


def following(page: Page, cursor: str | None) -> str | None:
    """Where the next page begins; None when this one was the last, whatever the provider claims."""
    at_end = not page.has_next or page.empty or not page.cursor or page.cursor == cursor
    return None if at_end else page.cursor


def advanced(job: Job, page: Page, gathered: Harvest) -> Job:
    """The job after this page, but for what of it is new to the list.

    The cursor stays at the last page, and `drained` says that it is stored. A job without a cursor begins, whatever was
    counted when it was tried before."""
    before = job if job.cursor is not None else Job(job.id, job.lease)
    cursor = following(page, job.cursor)
    return replace(
        job,
        cursor=cursor or job.cursor,
        drained=cursor is None,
        pages=job.pages + 1,
        total=page.total if page.total is not None else before.total,
        seen=before.seen + gathered.seen,
        imported=before.imported,
        without_email=before.without_email + gathered.without_email,
        rejected=before.rejected + len(page.rejected),
        retry_count=0,
    )


def verdict_at_end(job: Job) -> Ending:
    """How a job ends whose last page is stored."""
    if job.seen and job.seen == job.without_email:
        return Failed(NO_EMAIL_AT_ALL.format(seen=job.seen), afresh=True)
    return Done(job.seen)


# Progress and capacity


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is; None where nobody can know."""

    percent: float | None
    members_per_s: float | None
    eta_s: float | None


def progress(status: Status, seen: int, total: int | None, worked_s: float | None) -> Progress:
    """`worked_s` is the time since the job was first started, by the database's clock."""
    rate = seen / worked_s if worked_s and seen else None
    if status == "completed":
        return Progress(100.0, rate, 0.0)
    if not total:
        return Progress(None, rate, None)
    percent = min(99.9, round(100 * seen / total, 1))
    eta_s = max(0, total - seen) / rate if rate and status == "processing" else None
    return Progress(percent, rate, eta_s)


def wanted(idle: int, waiting: int, ended_per_s: float, most: int) -> int:
    """How many jobs to claim: one for each idle lane, and what the lanes get through before the next claim."""
    goal = max(idle, min(most, ceil(ended_per_s * AHEAD_S)))
    return goal - waiting if 2 * waiting <= goal else 0


def workers_suggested(waiting: int, seconds_a_job: float, lanes: int, within_s: float) -> int:
    """How many workers would clear the backlog in that time."""
    return ceil(waiting * seconds_a_job / (lanes * within_s)) if waiting else 0


# Asking


def checked_priority(priority: int, who: Identity) -> int:
    """A priority that this caller may ask for."""
    if not 0 <= priority <= PRIORITY_MOST:
        message = f"a priority goes from 0 to {PRIORITY_MOST}, not {priority}"
        raise Refused(Code.BAD_MESSAGE, message, field="priority", limit=PRIORITY_MOST)
    if priority > PRIORITY_ADMIN_ABOVE and not who.admin:
        message = f"a priority above {PRIORITY_ADMIN_ABOVE} is for admins; ask for {PRIORITY_ADMIN_ABOVE} or less"
        raise Refused(Code.FORBIDDEN, message, field="priority", limit=PRIORITY_ADMIN_ABOVE)
    return priority


def tier_of(priority: int) -> int:
    """Where a job of this priority begins; tier 0 is claimed first."""
    return PRIORITY_MOST - priority
