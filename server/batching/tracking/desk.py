"""The books of tracking, for every control surface: campaigns, posts, counts to review, money. The runs are tracker.py's.

desk = Desk(db, terms, note)        desk.campaigns, desk.submissions, desk.reviews, desk.payouts, desk.earnings
await desk.verify(who)              is all money where it should be?
desk.note("campaigns")              committed: this has changed; followers of the topic are told (relay.py)
"""

from __future__ import annotations

from collections.abc import Callable

from server.batching.checks import Report
from server.batching.tracking import checking
from server.batching.tracking.campaigns import Campaigns
from server.batching.tracking.earnings import Earnings
from server.batching.tracking.payouts import Payouts, Terms
from server.batching.tracking.reviews import Reviews
from server.batching.tracking.store import admin
from server.batching.tracking.submissions import Submissions
from server.core.identity import Identity
from server.edge.postgres import Database
from server.settings import Settings


class Desk:
    """See the module's docstring."""

    def __init__(self, db: Database, terms: Terms, note: Callable[..., None]) -> None:
        self._db = db
        self.terms = terms
        self.note = note
        self.campaigns = Campaigns(db)
        self.submissions = Submissions(db)
        self.reviews = Reviews(db)
        self.payouts = Payouts(db, terms)
        self.earnings = Earnings(db)

    async def verify(self, who: Identity) -> Report:
        """Every check of what is stored."""
        admin(who, "verifying the books")
        return await checking.verify(self._db)


def terms_of(settings: Settings) -> Terms:
    """What payouts are bound to."""
    return Terms(settings.tracking_payout_least_cents, settings.tracking_fee_basis)
