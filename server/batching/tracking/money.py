"""What views are worth. Pure: values in, values out; `settlement.py` reads the rows, and writes what comes out here.

    judged = judge(sights, observations)                    what each count is: counted, lower, late, held; the clips afterwards
    settled = settle(accounts, entries, judged)             baselines, grants, the campaigns that are full by it

An observation is a count of a clip at a time; those of one call are taken by (time, clip). Any number of calls with parts of them,
in that order, comes to the same as one call with all.

    counted   it is the best so far
    lower     it is below that: kept and flagged, the best stays
    late      older than another that was taken before it: kept, changes nothing
    held      it rose by more than HELD_TIMES and HELD_MORE at once: changes nothing until an admin accepts it

A submission earns floor(views above its baseline x rate / 1000), in all; what it gets for an observation is what of that
it has not got yet. Its baseline is the best count of the clip at its first count from `baseline_from` on. A campaign grants
what it has left and not a cent more; the grant that takes the last one completes it.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

State: TypeAlias = Literal["counted", "lower", "late", "held", "accepted", "rejected"]
Baseline: TypeAlias = Literal["submission", "approval", "zero"]
BASELINES: Final[tuple[Baseline, ...]] = ("submission", "approval", "zero")

VIEWS_MOST: Final = 10_000_000_000_000
RATE_MOST: Final = 100_000
BUDGET_MOST: Final = 100_000_000_000
HELD_TIMES: Final = 20
HELD_MORE: Final = 100_000
PRESSING_PERCENT: Final = 80
FEE_BASIS_MOST: Final = 1_000
"""Ten per cent, in hundredths of one."""


@dataclass(frozen=True, slots=True)
class Observed:
    """A count of a clip; `at` is UTC, by the database's clock, and with the clip it is the observation's identity."""

    clip_id: int
    views: int
    at: dt.datetime


@dataclass(frozen=True, slots=True)
class Sight:
    """What is known of a clip: the last count taken, the best, when it was looked at last and how often."""

    clip_id: int
    views: int | None = None
    best: int | None = None
    last_at: dt.datetime | None = None
    checks: int = 0


@dataclass(frozen=True, slots=True)
class Judged:
    """An observation, what it is, and the best count before and after it."""

    observed: Observed
    state: State
    before: int | None
    best: int | None


@dataclass(frozen=True, slots=True)
class Account:
    """The money of a campaign. Only a `paying` one grants: ACTIVE, and not full."""

    campaign_id: int
    paying: bool
    rate_cents: int
    available_cents: int
    spent_cents: int

    @property
    def left_cents(self) -> int:
        """What can still be granted."""
        return self.available_cents - self.spent_cents


@dataclass(frozen=True, slots=True)
class Entry:
    """A submission that was not rejected. One that counts from zero has the baseline 0, and no time of it."""

    submission_id: int
    campaign_id: int
    clip_id: int
    creator: str
    approved: bool
    baseline_from: dt.datetime | None
    baseline: int | None
    baseline_at: dt.datetime | None
    earned_cents: int


@dataclass(frozen=True, slots=True)
class Sighted:
    """An observation that settles: its number, the best count by it, and whether an admin had to accept it."""

    observation_id: int | None
    clip_id: int
    views: int
    best: int
    at: dt.datetime
    accepted: bool = False


@dataclass(frozen=True, slots=True)
class Grant:
    """A line of the ledger."""

    campaign_id: int
    submission_id: int
    creator: str
    observation_id: int | None
    amount_cents: int
    views: int


@dataclass(frozen=True, slots=True)
class Settled:
    """What changed: grants in their order, submissions and campaigns as they are now.

    `completed`: campaigns that are full by it; `crossed`: that have spent enough to be looked at more often; `based`: clips
    of which a submission has got its baseline."""

    grants: tuple[Grant, ...]
    entries: tuple[Entry, ...]
    accounts: tuple[Account, ...]
    completed: tuple[int, ...]
    crossed: tuple[int, ...]
    based: tuple[int, ...]

    @property
    def granted_cents(self) -> int:
        """All grants together."""
        return sum(grant.amount_cents for grant in self.grants)


def entitlement(best: int, baseline: int, rate_cents: int) -> int:
    """What a submission has earned in all by so many views; `rate_cents` are for a thousand."""
    return max(0, best - baseline) * rate_cents // 1000


def fee_of(amount_cents: int, fee_basis: int) -> int:
    """The fee on a payout; fractions of a cent are the creator's."""
    return amount_cents * fee_basis // 10_000


def pressing(account: Account) -> bool:
    """Has it spent so much that its clips are looked at more often?"""
    return account.spent_cents * 100 >= account.available_cents * PRESSING_PERCENT


def plausible(views: int) -> bool:
    """Can that be a count at all? Anything else is a failed scrape."""
    return 0 <= views <= VIEWS_MOST


def is_jump(views: int, best: int | None) -> bool:
    """Did it rise by more than anybody would believe unseen? A first count is no jump."""
    return best is not None and views > HELD_TIMES * best and views - best > HELD_MORE


NOTHING: Final = Settled((), (), (), (), (), ())
"""Nothing has changed."""


# --- what a count is ---


def in_order(observations: Iterable[Observed]) -> list[Observed]:
    """As they are taken."""
    return sorted(observations, key=lambda one: (one.at, one.clip_id))


def judge(sights: Mapping[int, Sight], observations: Iterable[Observed]) -> tuple[list[Judged], dict[int, Sight]]:
    """Each observation in order, and the clips afterwards; observations are new ones of clips that are in `sights`."""
    after: dict[int, Sight] = {}
    judged: list[Judged] = []
    for observed in in_order(observations):
        sight = after.get(observed.clip_id) or sights[observed.clip_id]
        one = Judged(observed, _state(sight, observed), sight.best, None)
        after[observed.clip_id] = seen = _seen(sight, one)
        judged.append(replace(one, best=seen.best))
    return judged, after


def _state(sight: Sight, observed: Observed) -> State:
    if sight.last_at is not None and observed.at < sight.last_at:
        return "late"
    if is_jump(observed.views, sight.best):
        return "held"
    return "lower" if sight.best is not None and observed.views < sight.best else "counted"


def _seen(sight: Sight, one: Judged) -> Sight:
    observed = one.observed
    if one.state == "late":
        return replace(sight, checks=sight.checks + 1)
    if one.state == "held":
        return replace(sight, last_at=observed.at, checks=sight.checks + 1)
    best = observed.views if sight.best is None else max(sight.best, observed.views)
    return Sight(sight.clip_id, observed.views, best, observed.at, sight.checks + 1)


def sighted(one: Judged, observation_id: int) -> Sighted | None:
    """What of a judged observation settles; None for what waits or came too late."""
    if one.state not in ("counted", "lower"):
        return None
    assert one.best is not None
    return Sighted(observation_id, one.observed.clip_id, one.observed.views, one.best, one.observed.at)


# --- what it earns ---


def settle(accounts: Iterable[Account], entries: Iterable[Entry], sightings: Sequence[Sighted]) -> Settled:
    """Take observations one after the other; the submissions of one by their number."""
    books = Books(accounts, entries)
    for one in sightings:
        for entry in books.of_clip(one.clip_id):
            books.sight(entry, one)
    return books.close()


def settle_gap(accounts: Iterable[Account], entries: Iterable[Entry], best: Mapping[int, Sighted]) -> Settled:
    """Pay each submission what its clip's best count makes it earn and it has not got: at an approval, at a reactivation."""
    books = Books(accounts, entries)
    for entry in books.in_order():
        if entry.clip_id in best:
            books.pay(entry, best[entry.clip_id])
    return books.close()


class Books:
    """Accounts and submissions while observations are taken; says in the end what is different."""

    def __init__(self, accounts: Iterable[Account], entries: Iterable[Entry]) -> None:
        self._accounts = {one.campaign_id: one for one in accounts}
        self._entries = {one.submission_id: one for one in sorted(entries, key=lambda one: one.submission_id)}
        self._of_clip: dict[int, list[int]] = defaultdict(list)
        for one in self._entries.values():
            self._of_clip[one.clip_id].append(one.submission_id)
        self._were = (dict(self._accounts), dict(self._entries))
        self._grants: list[Grant] = []
        self._completed: list[int] = []
        self._baselines: set[int] = set()

    def in_order(self) -> list[Entry]:
        """All submissions by their number."""
        return list(self._entries.values())

    def of_clip(self, clip_id: int) -> list[Entry]:
        """Its submissions by their number."""
        return [self._entries[number] for number in self._of_clip.get(clip_id, ())]

    def sight(self, entry: Entry, one: Sighted) -> None:
        """What an observation means for one of its submissions."""
        based = _based(entry, one)
        if based is not entry:
            self._entries[entry.submission_id] = based
            self._baselines.add(entry.clip_id)
        self.pay(based, one)

    def pay(self, entry: Entry, one: Sighted) -> None:
        """Grant what it has earned and not got, as far as the money goes."""
        account = self._accounts[entry.campaign_id]
        if not (entry.approved and account.paying) or entry.baseline is None:
            return
        owed = entitlement(one.best, entry.baseline, account.rate_cents) - entry.earned_cents
        if owed > 0:
            self._grant(account, entry, one, min(owed, account.left_cents))

    def close(self) -> Settled:
        """What is different from the beginning."""
        accounts, entries = self._were
        changed = [one for number, one in self._accounts.items() if one is not accounts[number]]
        crossed = [one.campaign_id for one in changed if pressing(one) and not pressing(accounts[one.campaign_id])]
        entered = tuple(one for number, one in self._entries.items() if one is not entries[number])
        based = tuple(sorted(self._baselines))
        return Settled(tuple(self._grants), entered, tuple(changed), tuple(self._completed), tuple(crossed), based)

    def _grant(self, account: Account, entry: Entry, one: Sighted, amount: int) -> None:
        assert 0 < amount <= account.left_cents
        number, campaign = entry.submission_id, account.campaign_id
        self._grants.append(Grant(campaign, number, entry.creator, one.observation_id, amount, one.best))
        self._entries[number] = replace(entry, earned_cents=entry.earned_cents + amount)
        full = amount == account.left_cents
        self._accounts[campaign] = replace(account, spent_cents=account.spent_cents + amount, paying=not full)
        if full:
            self._completed.append(campaign)


def _based(entry: Entry, one: Sighted) -> Entry:
    """The submission with the baseline that this observation gives it, or moves.

    A count that was accepted afterwards had been there before any later baseline: it may not be earned by whoever came later."""
    if entry.baseline is None:
        if entry.baseline_from is None or one.at < entry.baseline_from:
            return entry
        return replace(entry, baseline=one.best, baseline_at=one.at)
    if one.accepted and entry.baseline_at is not None and entry.baseline_at > one.at and one.views > entry.baseline:
        return replace(entry, baseline=one.views)
    return entry
