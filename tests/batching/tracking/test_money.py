"""What a count is and what it earns: examples of the rules, and random histories against the slow way of reckoning."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.batching.tracking import money as m
from server.core.money import dollars
from tests.oracle.earnings import Oracle, Post

pytestmark = pytest.mark.pure

START = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)


def hour(number: float) -> dt.datetime:
    return START + dt.timedelta(hours=number)


def entry(number: int = 1, **more: object) -> m.Entry:
    values = {"campaign_id": 1, "clip_id": 1, "creator": "paul", "approved": True, "baseline_from": START}
    values |= {"baseline": None, "baseline_at": None, "earned_cents": 0} | more
    return m.Entry(number, **values)  # type: ignore[arg-type]


def account(available: int = 100_000, rate: int = 150, spent: int = 0, paying: bool = True) -> m.Account:
    return m.Account(1, paying, rate, available, spent)


# --- amounts ---


def test_views_are_paid_by_the_thousand_and_fractions_of_a_cent_are_cut_off() -> None:
    assert m.entitlement(12_345, 0, 150) == 1851
    assert m.entitlement(13_345, 1_000, 150) == 1851
    assert m.entitlement(6, 0, 150) == 0
    assert m.entitlement(7, 0, 150) == 1
    assert m.entitlement(500, 1_000, 150) == 0
    assert m.entitlement(m.VIEWS_MOST, 0, m.RATE_MOST) == 10**15


def test_a_fee_is_cut_off_in_favour_of_the_creator() -> None:
    assert [m.fee_of(1_999, basis) for basis in (0, 1, 250, 1_000)] == [0, 0, 49, 199]


def test_money_reads_as_dollars() -> None:
    assert [dollars(cents) for cents in (0, 5, 1851, 123_456_700, -5)] == [
        "$0.00",
        "$0.05",
        "$18.51",
        "$1,234,567.00",
        "-$0.05",
    ]


@given(st.integers(0, 10**13), st.integers(0, 10**13), st.integers(0, 10**13), st.integers(1, 100_000))
def test_more_views_never_earn_less_and_growth_earns_no_more_by_being_cut_in_pieces(
    a: int, b: int, base: int, rate: int
) -> None:
    low, high = sorted((a, b))
    first, all_ = m.entitlement(low, base, rate), m.entitlement(high, base, rate)
    assert first <= all_
    assert first + (all_ - first) == all_ <= max(0, high - base) * rate / 1000


# --- what a count is ---


def judged(*counts: int, sight: m.Sight | None = None) -> list[str]:
    observations = [m.Observed(1, views, hour(place)) for place, views in enumerate(counts)]
    return [one.state for one in m.judge({1: sight or m.Sight(1)}, observations)[0]]


def test_a_count_below_the_best_is_flagged_and_the_best_is_kept() -> None:
    observations = [m.Observed(1, views, hour(place)) for place, views in enumerate((100, 50, 80, 100, 120))]
    states, after = m.judge({1: m.Sight(1)}, observations)
    assert [(one.state, one.best) for one in states] == [
        ("counted", 100),
        ("lower", 100),
        ("lower", 100),
        ("counted", 100),
        ("counted", 120),
    ]
    assert after[1] == m.Sight(1, 120, 120, hour(4), 5)


def test_only_a_jump_of_more_than_twenty_times_and_more_than_a_hundred_thousand_is_held() -> None:
    assert judged(10_000, 200_001) == ["counted", "held"]
    assert judged(10_000, 200_000) == ["counted", "counted"]
    assert judged(5_000, 105_000) == ["counted", "counted"]
    assert judged(5_000, 105_001) == ["counted", "held"]
    assert judged(0, 100_000, 100_001) == ["counted", "counted", "counted"]
    assert judged(0, 100_001, 100_002) == ["counted", "held", "held"]


def test_the_first_count_of_a_clip_is_no_jump() -> None:
    assert judged(5_000_000) == ["counted"]


def test_a_count_that_is_older_than_the_last_one_changes_nothing() -> None:
    sight = m.Sight(1, 100, 100, hour(5), 3)
    states, after = m.judge({1: sight}, [m.Observed(1, 900, hour(4))])
    assert (states[0].state, states[0].best) == ("late", 100)
    assert after[1] == m.Sight(1, 100, 100, hour(5), 4)
    assert m.sighted(states[0], 7) is None


def test_what_no_count_can_be_is_known() -> None:
    assert [m.plausible(views) for views in (-1, 0, m.VIEWS_MOST, m.VIEWS_MOST + 1)] == [False, True, True, False]


# --- what it earns ---


def sighting(
    number: int, best: int, at: float, clip: int = 1, views: int | None = None, accepted: bool = False
) -> m.Sighted:
    return m.Sighted(number, clip, best if views is None else views, best, hour(at), accepted)


def test_the_first_count_is_the_baseline_and_the_next_one_earns() -> None:
    settled = m.settle([account()], [entry()], [sighting(1, 1_000, 1), sighting(2, 13_345, 2)])
    assert settled.grants == (m.Grant(1, 1, "paul", 2, 1851, 13_345),)
    (after,) = settled.entries
    assert (after.baseline, after.baseline_at, after.earned_cents) == (1_000, hour(1), 1851)
    assert settled.based == (1,)


def test_a_count_before_the_submission_sets_no_baseline() -> None:
    settled = m.settle([account()], [entry(baseline_from=hour(2))], [sighting(1, 10, 1), sighting(2, 500, 2)])
    assert settled.entries[0].baseline == 500
    assert settled.grants == ()


def test_without_a_baseline_nothing_is_earned() -> None:
    assert m.settle([account()], [entry(baseline_from=None)], [sighting(1, 10**6, 1)]).grants == ()


def test_only_approved_submissions_of_paying_campaigns_earn() -> None:
    based = {"baseline": 0, "baseline_at": START}
    assert m.settle([account()], [entry(approved=False, **based)], [sighting(1, 10**6, 1)]).grants == ()
    assert m.settle([account(paying=False)], [entry(**based)], [sighting(1, 10**6, 1)]).grants == ()


def test_the_last_grant_is_cut_to_what_is_left_and_nothing_follows_it() -> None:
    entries = [entry(number, clip_id=number, baseline=0) for number in (1, 2, 3)]
    settled = m.settle([account(1_000, 1_000)], entries, [sighting(n, 700, n, clip=n) for n in (1, 2, 3)])
    assert [(grant.submission_id, grant.amount_cents) for grant in settled.grants] == [(1, 700), (2, 300)]
    assert settled.completed == (1,)
    assert settled.accounts == (m.Account(1, False, 1_000, 1_000, 1_000),)


def test_a_grant_that_takes_exactly_what_is_left_completes_too() -> None:
    assert m.settle([account(700, 1_000)], [entry(baseline=0)], [sighting(1, 700, 1)]).completed == (1,)


def test_crossing_eighty_per_cent_is_told_once() -> None:
    run = [sighting(1, 799, 1), sighting(2, 800, 2)]
    assert m.settle([account(1_000, 1_000)], [entry(baseline=0)], run[:1]).crossed == ()
    assert m.settle([account(1_000, 1_000)], [entry(baseline=0)], run).crossed == (1,)
    assert (
        m.settle([account(1_000, 1_000, 850)], [entry(baseline=0, earned_cents=850)], [sighting(1, 900, 1)]).crossed
        == ()
    )


def test_what_was_accepted_late_is_not_earned_by_whoever_came_later() -> None:
    old = entry(1, baseline=100, baseline_at=hour(1))
    young = entry(2, baseline=1_500, baseline_at=hour(9))
    settled = m.settle([account()], [old, young], [sighting(5, 200_000, 5, accepted=True)])
    assert [(grant.submission_id, grant.amount_cents) for grant in settled.grants] == [(1, 29_985)]
    assert settled.entries[1].baseline == 200_000


def test_a_gap_is_paid_in_the_order_of_submissions_and_names_no_observation() -> None:
    entries = [entry(2, clip_id=2, baseline=0), entry(1, baseline=0, earned_cents=100)]
    best = {clip: m.Sighted(None, clip, 700, 700, hour(1)) for clip in (1, 2)}
    settled = m.settle_gap([account(1_100, 1_000, 100)], entries, best)
    assert [(grant.submission_id, grant.amount_cents) for grant in settled.grants] == [(1, 600), (2, 400)]
    assert all(grant.observation_id is None for grant in settled.grants)
    assert settled.completed == (1,)


# --- random histories ---


@dataclass(frozen=True)
class World:
    """Campaigns, submissions to them, counts of clips, in any order."""

    accounts: tuple[m.Account, ...]
    entries: tuple[m.Entry, ...]
    observations: tuple[m.Observed, ...]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    campaigns = draw(st.integers(1, 3))
    clips = draw(st.integers(1, 4))
    accounts = [
        m.Account(number, True, draw(st.sampled_from([1, 7, 150, 999])), draw(st.integers(1, 60_000)), 0)
        for number in range(1, campaigns + 1)
    ]
    pairs = draw(st.sets(st.tuples(st.integers(1, campaigns), st.integers(1, clips)), min_size=1))
    entries = []
    for number, (campaign, clip) in enumerate(sorted(pairs), start=1):
        since = draw(st.one_of(st.none(), st.integers(0, 12)))
        zero = 0 if since is None else None
        approved = draw(st.integers(0, 4)) > 0
        entries.append(
            m.Entry(
                number,
                campaign,
                clip,
                f"c{number % 2}",
                approved,
                None if since is None else hour(since),
                zero,
                None,
                0,
            )
        )
    views = st.one_of(st.integers(0, 3_000), st.integers(0, 200_000), st.integers(0, 50_000_000))
    places = draw(st.lists(st.tuples(st.integers(0, 24), st.integers(1, clips)), unique=True, max_size=30))
    return World(
        tuple(accounts),
        tuple(entries),
        tuple(m.Observed(clip, draw(views), hour(at)) for at, clip in places),
    )


@dataclass
class Books:
    """What is known between two calls."""

    accounts: dict[int, m.Account]
    entries: dict[int, m.Entry]
    sights: dict[int, m.Sight]
    grants: list[m.Grant]
    states: list[str]
    completed: list[int]

    @classmethod
    def of(cls, world: World) -> Books:
        sights = {clip: m.Sight(clip) for clip in range(1, 5)}
        return cls(
            {one.campaign_id: one for one in world.accounts},
            {one.submission_id: one for one in world.entries},
            sights,
            [],
            [],
            [],
        )

    def take(self, observations: Sequence[m.Observed], first: int) -> None:
        judged, seen = m.judge(self.sights, observations)
        sightings = [m.sighted(one, first + place) for place, one in enumerate(judged)]
        settled = m.settle(self.accounts.values(), self.entries.values(), [one for one in sightings if one])
        self.sights |= seen
        self.accounts |= {one.campaign_id: one for one in settled.accounts}
        self.entries |= {one.submission_id: one for one in settled.entries}
        self.grants += settled.grants
        self.states += [one.state for one in judged]
        self.completed += settled.completed


@settings(max_examples=150, deadline=None)
@given(worlds(), st.data())
def test_any_way_of_cutting_a_history_into_calls_comes_to_what_the_slow_way_says(
    world: World, data: st.DataObject
) -> None:
    ordered = m.in_order(world.observations)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(ordered)))) | {0, len(ordered)})
    batches, single = Books.of(world), Books.of(world)
    for start, end in pairwise(cuts):
        batches.take(data.draw(st.permutations(ordered[start:end])), start)
    for place, one in enumerate(ordered):
        single.take([one], place)
    assert batches == single
    check_against_oracle(world, ordered, batches)


def check_against_oracle(world: World, ordered: Sequence[m.Observed], books: Books) -> None:
    oracle = Oracle(
        {one.campaign_id: (one.rate_cents, one.available_cents) for one in world.accounts},
        [
            Post(one.submission_id, one.campaign_id, one.clip_id, one.approved, one.baseline_from)
            for one in world.entries
        ],
    )
    assert books.states == [oracle.count(one.clip_id, one.at, one.views) for one in ordered]
    paid: dict[int, list[int]] = {}
    for grant in books.grants:
        paid.setdefault(grant.submission_id, []).append(grant.amount_cents)
    assert paid == oracle.paid
    for number, book in books.accounts.items():
        assert book.spent_cents == oracle.spent(number) <= book.available_cents
        assert (not book.paying) == oracle.full(number) == (number in books.completed)
    assert len(books.completed) == len(set(books.completed))
    for post in oracle.posts:
        assert books.entries[post.number].baseline == oracle.baseline(post)


@settings(max_examples=100, deadline=None)
@given(worlds(), st.randoms(use_true_random=False))
def test_a_history_that_comes_in_any_order_never_pays_more_than_its_views_and_never_twice(
    world: World, chance: object
) -> None:
    books = Books.of(world)
    shuffled = list(world.observations)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    for place, one in enumerate(shuffled):
        books.take([one], place)
    seen = [(grant.submission_id, grant.observation_id) for grant in books.grants]
    assert len(seen) == len(set(seen))
    for one in books.entries.values():
        best = max((o.views for o in world.observations if o.clip_id == one.clip_id), default=0)
        rate = books.accounts[one.campaign_id].rate_cents
        assert one.earned_cents <= m.entitlement(best, one.baseline or 0, rate)
