"""What campaigns owe, the slow way: after each count everything is worked out again from all counts so far.

No running sums, no baselines that are kept, no batches: the history is a list, and money is exact fractions until the cent is cut off.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from fractions import Fraction
from math import floor


@dataclass
class Post:
    """A submission: of which clip, to which campaign, approved or not, and from when its baseline is taken (None: it is zero)."""

    number: int
    campaign: int
    clip: int
    approved: bool
    since: dt.datetime | None


@dataclass
class Oracle:
    """Campaigns as (rate, budget) by number; counts come in one after the other."""

    campaigns: dict[int, tuple[int, int]]
    posts: list[Post]
    history: dict[int, list[tuple[dt.datetime, int, str]]] = field(default_factory=dict)
    paid: dict[int, list[int]] = field(default_factory=dict)

    def count(self, clip: int, at: dt.datetime, views: int) -> str:
        """One count: what it is; and it is paid."""
        past = self.history.setdefault(clip, [])
        if any(at == when for when, _, _ in past):
            return "replayed"
        past.append((at, views, self._state(clip, at, views)))
        if past[-1][2] in ("counted", "lower"):
            for post in sorted(self.posts, key=lambda one: one.number):
                if post.clip == clip:
                    self._pay(post)
        return past[-1][2]

    def best(self, clip: int, until: int | None = None) -> int | None:
        """The highest count that counts."""
        valid = [views for _, views, state in self.history.get(clip, [])[:until] if state == "counted"]
        return max(valid, default=None)

    def baseline(self, post: Post) -> int | None:
        """The best count at the first one that was taken at or after `since`."""
        if post.since is None:
            return 0
        for place, (at, _, state) in enumerate(self.history.get(post.clip, [])):
            if state in ("counted", "lower") and at >= post.since:
                return self.best(post.clip, place + 1)
        return None

    def spent(self, campaign: int) -> int:
        """All that it has paid."""
        return sum(sum(self.paid.get(post.number, [])) for post in self.posts if post.campaign == campaign)

    def full(self, campaign: int) -> bool:
        """Is nothing left?"""
        return self.spent(campaign) == self.campaigns[campaign][1]

    def _state(self, clip: int, at: dt.datetime, views: int) -> str:
        best = self.best(clip)
        if any(at < when for when, _, state in self.history[clip] if state != "late"):
            return "late"
        if best is None:
            return "counted"
        if Fraction(views) > 20 * Fraction(best) and views - best > 100_000:
            return "held"
        return "counted" if views >= best else "lower"

    def _pay(self, post: Post) -> None:
        best, baseline = self.best(post.clip), self.baseline(post)
        if not post.approved or best is None or baseline is None:
            return
        rate, budget = self.campaigns[post.campaign]
        earned = floor(Fraction(max(0, best - baseline) * rate, 1000))
        owed = earned - sum(self.paid.get(post.number, []))
        grant = min(owed, budget - self.spent(post.campaign))
        if grant > 0:
            self.paid.setdefault(post.number, []).append(grant)
