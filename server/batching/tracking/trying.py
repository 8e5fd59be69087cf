"""How asking for a count fails, and what then: again, by another actor, or not in this run. Pure.

    failure = of_status(503)                                   what a status means
    later = again(one, failure, actor, moment, terms)          the next try of a post in this run; None: it has failed
    fits(now_s, ends_s, call_s)                                may another batch begin?

A post is asked for once and RETRIES times more at most. A retry has no place in a batch: it takes the room that is left beside
the posts that were not asked for yet, and not before it is due. What may succeed later is asked again, by the next actor of its
platform where there are several; what this actor alone cannot do, by another one or not at all. What was asked for together with
others, and was not in an answer that has those, is asked for by itself. A post that its platform does not have any more (404,
410) is not asked for again in the run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

from server.batching.tracking.posts import Platform
from server.core.retry import delay_s

Reason: TypeAlias = Literal[
    "timeout", "connection", "limited", "provider", "rejected", "auth", "not_found", "missing", "implausible",
    "unsupported", "no_actor", "quota", "stopped",
]  # fmt: skip

ERROR_MOST: Final = 500
RETRY_CAP_S: Final = 60.0
SETTLE_S: Final = 2.0
"""What a batch takes beside its calls: writing down what they said."""
GONE: Final = frozenset((404, 410))
LATER: Final = frozenset((408, 425, 429))
ELSEWHERE: Final = frozenset(("missing", "implausible", "rejected", "no_actor"))
"""What another actor may do better, and this one will not."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no count. `retryable`: the same may succeed later, not before `after_s` where that is said."""

    reason: Reason
    error: str
    retryable: bool = False
    after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """A post whose count is wanted, for the clip that it is."""

    clip_id: int
    platform: Platform
    post_id: str
    url: str


@dataclass(frozen=True, slots=True)
class Try:
    """An attempt at a post, from 1; `tried`: the actors of those before; `alone`: in a call of its own; not before `due_s` (monotonic)."""

    post: Wanted
    attempt: int = 1
    tried: tuple[str, ...] = ()
    alone: bool = False
    due_s: float = 0.0
    failure: Failure | None = None
    """Of the attempt before."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How often and how soon it is tried again."""

    retries: int = 2
    first_s: float = 5.0
    call_s: float = 60.0


def of_status(status: int, error: str = "") -> Failure:
    """What the status of a post means. 401 and 403 of a post are its own (it is private), not those of our token."""
    text = (error or f"the platform answered {status}")[:ERROR_MOST]
    if status in GONE:
        return Failure("not_found", text)
    if status == 429:
        return Failure("limited", text, retryable=True)
    if status in LATER or status >= 500:
        return Failure("provider", text, retryable=True)
    return Failure("rejected", text)


def fits(now_s: float, ends_s: float, call_s: float) -> bool:
    """Whether a batch that begins now has certainly ended by then."""
    return now_s + call_s + SETTLE_S <= ends_s


def again(
    one: Try, failure: Failure, actor: str, *, others: int, together: bool, now_s: float, jitter: float, terms: Terms
) -> Try | None:
    """The next attempt, or None when that was the last. `others`: actors of its platform that were not tried yet, this one not
    counted; `together`: it was asked for with posts that were answered."""
    if one.attempt > terms.retries:
        return None
    alone = one.alone or (together and failure.reason == "missing")
    better = failure.reason in ELSEWHERE and (others > 0 or alone != one.alone)
    if not (failure.retryable or better):
        return None
    wait_s = delay_s(
        one.attempt, first_s=terms.first_s, cap_s=max(RETRY_CAP_S, terms.first_s), jitter=jitter, spread=0.2
    )
    # A jitter that shortens the first wait would ask sooner than promised, so the wait is spread upwards.
    wait_s = max(wait_s / 0.8, failure.after_s or 0.0)
    tried = one.tried if alone != one.alone and not failure.retryable else (*one.tried, actor)
    return replace(one, attempt=one.attempt + 1, tried=tried, alone=alone, due_s=now_s + wait_s, failure=failure)
