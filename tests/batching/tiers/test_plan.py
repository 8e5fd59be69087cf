"""Months of people: what is offered, where, when and for how much; month after month, again, and around bookings."""

import datetime as dt
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from dateutil.relativedelta import relativedelta
from hypothesis import given, settings
from hypothesis import strategies as st

from server.batching.tiers import plan as planning
from server.batching.tiers.classify import appraise
from server.batching.tiers.judge import Offered, availability, foundation
from server.batching.tiers.months import DAY_S, date_of, days_of, month_named
from server.batching.tiers.plan import Kept, Request
from server.batching.tiers.pool import Atlas, pool
from server.batching.tiers.rotations import allowance
from server.batching.tiers.rules import HOURS, LEAD_DAYS, RULES, TIERS, Kind, Person, PlanError, Tier
from tests.batching.tiers.invented import (
    ATLAS,
    CITY,
    SEED,
    Book,
    bounds,
    in_tier,
    people,
    rated,
    requested,
    standing_of,
)

pytestmark = pytest.mark.pure

START = month_named("2027-01")
"""A leap year follows."""
MONTHS = 24
PEOPLE = 150


@pytest.fixture(scope="module")
def lives() -> list[tuple[Person, Book]]:
    """People with two years planned, one month after the other."""
    found = []
    for who in people(PEOPLE):
        book = Book(requested(who))
        for month in range(START, START + MONTHS):
            book.plan(month)
        found.append((who, book))
    return found


def zone_of(book: Book, slot: Offered) -> ZoneInfo:
    return ZoneInfo(CITY[slot.city].timezone if slot.city else book.request.timezone)


def apart(slots: list[Offered]) -> bool:
    """No two of them at one time."""
    return all(one.ends <= other.starts for one, other in pairwise(sorted(slots, key=lambda slot: slot.starts)))


def monthly(book: Book) -> Iterator[tuple[int, dict[Kind, int]]]:
    for month in range(START, START + MONTHS):
        first, end = days_of(month)
        found = Counter(slot.kind for slot in book.slots if first <= slot.day < end)
        yield month, {"physical": found["physical"], "virtual": found["virtual"]}


def complaints(who: Person, book: Book, month: int) -> list[str]:
    standing = replace(standing_of(who, appraise(who, {}, SEED)), tier=book.request.tier)
    return [str(one) for one in availability(standing, book.rows(month))]


def test_verification_finds_nothing_in_two_years_of_anybody(lives: list[tuple[Person, Book]]) -> None:
    for who, book in lives:
        assert foundation(standing_of(who, appraise(who, {}, SEED))) == []
        for month in range(START, START + MONTHS):
            assert complaints(who, book, month) == []


def test_counts_are_within_the_tiers_bounds_each_calendar_month(lives: list[tuple[Person, Book]]) -> None:
    for who, book in lives:
        for _, found in monthly(book):
            for kind, allowed in (("physical", who.allow_physical), ("virtual", who.allow_virtual)):
                least, most = bounds(book.request, kind) if allowed else (0, 0)
                assert least <= found[kind] <= most
            assert sum(found.values()) <= book.request.max_monthly_slots


def test_no_two_slots_of_a_person_are_at_one_time_over_two_years(lives: list[tuple[Person, Book]]) -> None:
    assert all(apart(book.slots) for _, book in lives)


def test_slots_are_in_the_order_of_their_times_and_some_begin_or_end_with_the_day(
    lives: list[tuple[Person, Book]],
) -> None:
    edges = set()
    for _, book in lives:
        made = planning.month(book.request, START, 0, SEED).slots
        assert [slot.starts for slot in made] == sorted(slot.starts for slot in made)
        for slot in book.slots:
            starts, ends = (dt.datetime.fromtimestamp(at, zone_of(book, slot)) for at in (slot.starts, slot.ends))
            edges |= {(slot.kind, starts.hour)} if starts.minute == 0 else set()
            edges |= {(slot.kind, ends.hour)} if ends.minute == 0 else set()
    assert {("physical", 10), ("physical", 21), ("virtual", 9), ("virtual", 22)} <= edges


def test_slots_begin_and_end_within_local_hours_on_a_quarter(lives: list[tuple[Person, Book]]) -> None:
    for _, book in lives:
        for slot in book.slots:
            starts = dt.datetime.fromtimestamp(slot.starts, zone_of(book, slot))
            ends = dt.datetime.fromtimestamp(slot.ends, zone_of(book, slot))
            opens, shuts = HOURS[slot.kind]
            assert starts.date() == ends.date() == date_of(slot.day)
            assert starts.hour >= opens and ends.time() <= dt.time(shuts)
            assert starts.minute % 15 == starts.second == 0 and slot.minutes in (15, 30, 60)
            assert slot.ends - slot.starts == 60 * slot.minutes == (ends - starts).total_seconds()


def test_a_city_is_left_alone_for_three_to_six_months_and_a_day_has_one_city(lives: list[tuple[Person, Book]]) -> None:
    drawn = Counter()
    for _, book in lives:
        visits = book.visits()
        assert len({visit.day for visit in visits}) == len(visits)
        drawn.update(visit.months for visit in visits)
        for one, other in pairwise(sorted(visits, key=lambda visit: (visit.city, visit.day))):
            if one.city == other.city:
                assert date_of(other.day) >= date_of(one.day) + relativedelta(months=one.months)
    assert set(drawn) == {3, 4, 5, 6} and min(drawn.values()) > sum(drawn.values()) / 5


def test_nobody_travels_home_or_outside_the_pool(lives: list[tuple[Person, Book]]) -> None:
    for _, book in lives:
        allowed = {city.id for city in book.request.pool}
        for slot in book.slots:
            assert (slot.city is None) == (slot.kind == "virtual")
            assert slot.city is None or (slot.city in allowed and CITY[slot.city].country != book.request.home)


def test_rotations_follow_each_other_in_whole_weeks_with_the_cities_of_their_slots(
    lives: list[tuple[Person, Book]],
) -> None:
    for _, book in lives:
        ordered = sorted(book.rotations.values(), key=lambda one: one.first)
        assert ordered[0].first <= days_of(START)[0] and ordered[-1].end >= days_of(START + MONTHS)[0]
        assert all(one.end == other.first for one, other in pairwise(ordered))
        least, most = RULES[book.request.tier].rotation_weeks
        for one in ordered:
            inside = [slot.city for slot in book.slots if slot.city and one.first <= slot.day < one.end]
            assert (one.end - one.first) % 7 == 0 and least <= (one.end - one.first) // 7 <= most
            assert set(one.cities) == set(inside) and len(one.cities) == len(set(one.cities)) <= min(3, len(inside))


def test_a_slot_costs_what_its_package_costs(lives: list[tuple[Person, Book]]) -> None:
    for who, book in lives:
        costs = {(one.kind, one.minutes): one.price_cents for one in appraise(who, {}, SEED).packages}
        assert all(slot.price_cents == costs[slot.kind, slot.minutes] for slot in book.slots)


@pytest.mark.parametrize("tier", TIERS)
def test_both_bounds_of_every_count_are_reached(tier: Tier) -> None:
    found: dict[Kind, set[int]] = {"physical": set(), "virtual": set()}
    for number in range(150):
        slots = planning.month(in_tier(tier, f"p{number}"), START, 0, SEED).slots
        for kind in found:
            found[kind].add(sum(slot.kind == kind for slot in slots))
    for kind, counts in found.items():
        least, most = RULES[tier].count(kind)
        assert counts == set(range(least, most + 1))


@pytest.mark.parametrize("tier", TIERS)
def test_too_many_in_all_means_fewer_virtual_first_then_fewer_physical_never_below_the_minimum(tier: Tier) -> None:
    rules = RULES[tier]
    for number in range(40):
        full = in_tier(tier, f"p{number}", max_monthly_slots=99)
        wanted = Counter(slot.kind for slot in planning.month(full, START, 0, SEED).slots)
        for most in range(1, sum(wanted.values()) + 1):
            found = Counter(
                slot.kind for slot in planning.month(replace(full, max_monthly_slots=most), START, 0, SEED).slots
            )
            over = sum(wanted.values()) - most
            virtual = max(rules.virtual[0], wanted["virtual"] - over)
            physical = max(rules.physical[0], wanted["physical"] - (over - (wanted["virtual"] - virtual)))
            assert (found["physical"], found["virtual"]) == (physical, virtual)


def test_lengths_are_drawn_45_40_15(lives: list[tuple[Person, Book]]) -> None:
    found = Counter(slot.minutes for _, book in lives for slot in book.slots)
    shares = [found[minutes] / found.total() for minutes in (15, 30, 60)]
    assert shares == pytest.approx([0.45, 0.40, 0.15], abs=0.01)


def test_slots_are_spread_over_the_month_and_the_day(lives: list[tuple[Person, Book]]) -> None:
    for kind in ("physical", "virtual"):
        days = Counter(date_of(slot.day).day for _, book in lives for slot in book.slots if slot.kind == kind)
        assert set(days) == set(range(1, 32)) and max(days.values()) < 3 * min(days[day] for day in range(1, 29))
        hours = Counter(
            dt.datetime.fromtimestamp(s.starts, zone_of(book, s)).hour
            for _, book in lives
            for s in book.slots
            if s.kind == kind
        )
        assert set(hours) == set(range(*HOURS[kind]))


def test_the_physical_slots_of_a_month_are_on_one_to_three_days(lives: list[tuple[Person, Book]]) -> None:
    found: Counter[tuple[int, int]] = Counter()
    for _, book in lives:
        for month in range(START, START + MONTHS):
            first, end = days_of(month)
            days = [slot.day for slot in book.slots if slot.kind == "physical" and first <= slot.day < end]
            found[len(days), len(set(days))] += 1
    assert {days for _, days in found} == {0, 1, 2, 3}
    assert {days for many, days in found if many == 5} == {1, 2, 3}


def test_rotations_have_up_to_three_cities_and_some_have_none(lives: list[tuple[Person, Book]]) -> None:
    found = Counter(len(one.cities) for _, book in lives for one in book.rotations.values())
    assert set(found) == {0, 1, 2, 3}


# Again, in another order, around what stands


def test_the_same_request_gives_the_same_plan_and_a_second_run_changes_nothing() -> None:
    for who in people(60, start=1_000):
        book = Book(requested(who))
        once = [book.plan(month) for month in (START, START + 1, START + 2)]
        before = sorted(book.slots, key=lambda slot: slot.starts), dict(book.rotations)
        again = [book.plan(month) for month in (START, START + 1, START + 2)]
        assert [one.slots for one in again] == [one.slots for one in once]
        assert (sorted(book.slots, key=lambda slot: slot.starts), book.rotations) == before


def test_months_planned_in_another_order_are_as_right_and_have_the_same_rotations() -> None:
    chance = random.Random("orders")
    for who in people(40, start=2_000):
        months = list(range(START, START + 8))
        book, other = Book(requested(who)), Book(requested(who))
        for month in months:
            book.plan(month)
        chance.shuffle(months)
        for month in months:
            other.plan(month)
        periods = [sorted((one.first, one.end) for one in found.rotations.values()) for found in (book, other)]
        assert periods[0] == periods[1]
        assert apart(other.slots)
        assert [complaints(who, other, month) for month in months] == [[]] * 8


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("tier", TIERS)
def test_booked_slots_stay_and_are_counted_and_planned_around(tier: Tier, late: bool) -> None:
    chance = random.Random(tier)
    for number in range(25):
        who = Person(f"k{number}", "n", rated(tier))
        book = Book(requested(who))
        for month in range(START, START + 3):
            book.plan(month)
        before = dict(monthly(book))
        booked = [book.book(index) for index in range(len(book.slots)) if chance.random() < 0.4]
        for month in range(START, START + 3):
            # In the middle of the month: the new ones can't lie where the old ones did.
            book.plan(month, planned_at=(days_of(month)[0] + chance.randrange(15)) * DAY_S if late else 0)
            assert complaints(who, book, month) == []
        assert all(slot in book.slots for slot in booked)
        assert apart(book.slots)
        for month, found in monthly(book):
            for kind in ("physical", "virtual"):
                short = late and month in book.reasons and kind in book.reasons[month]
                assert bounds(book.request, kind)[0] <= found[kind] <= before[month][kind] or month >= START + 3
                assert found[kind] == before[month][kind] or short


def test_when_no_further_city_may_be_had_slots_are_added_to_the_visit_there_is() -> None:
    """A whole month lies in one rotation that may have one city in it: what is planned again goes on the day of the booking."""
    added = 0
    for number in range(150):
        book = Book(in_tier("B", f"k{number}"))
        book.plan(START + 1)
        if [allowance(one, START + 1) for one in book.rotations.values()] == [1]:
            before = dict(monthly(book))[START + 1]
            index = next(index for index, slot in enumerate(book.slots) if slot.kind == "physical")
            booked = book.book(index)
            book.plan(START + 1)
            places = [(slot.day, slot.city) for slot in book.slots if slot.kind == "physical"]
            assert set(places) == {(booked.day, booked.city)} and len(places) == before["physical"]
            added += len(places) - 1
    assert added > 5


@settings(max_examples=75)
@given(
    st.sampled_from(TIERS),
    st.integers(0, 10**6),
    st.lists(st.tuples(st.booleans(), st.integers(0, 30 * 96)), max_size=25),
)
def test_whatever_stands_is_never_overlapped_and_counts(
    tier: Tier, number: int, standing: list[tuple[bool, int]]
) -> None:
    first, _ = days_of(START)
    kept: list[Kept] = []
    for virtual, quarter in standing:
        starts = first * DAY_S + 900 * quarter
        if all(starts + 3600 <= one.starts or one.ends <= starts for one in kept):
            kept.append(Kept("virtual" if virtual else "physical", None, starts // DAY_S, starts, starts + 3600))
    request = in_tier(tier, f"k{number}", kept=tuple(kept))
    made = planning.month(request, START, 0, SEED).slots
    for slot in made:
        assert all(slot.ends <= one.starts or one.ends <= slot.starts for one in kept)
    stay = Counter(one.kind for one in kept)
    found = Counter(slot.kind for slot in made)
    for kind in ("physical", "virtual"):
        least, most = RULES[tier].count(kind)
        assert found[kind] + stay[kind] <= max(most, stay[kind])
        assert found[kind] + stay[kind] >= least
    floors = sum(max(RULES[tier].count(kind)[0], stay[kind]) for kind in ("physical", "virtual"))
    assert found.total() + stay.total() <= max(request.max_monthly_slots, floors)


# Lead times


@pytest.mark.parametrize("tier", TIERS)
def test_nothing_begins_within_its_lead_time_and_nothing_else_makes_a_first_month_smaller(tier: Tier) -> None:
    first, _ = days_of(START)
    for number in range(20):
        request = in_tier(tier, f"k{number}")
        full = Counter(slot.kind for slot in planning.month(request, START, 0, SEED).slots)
        for day in (0, 5, 12, 20):
            planned_at = (first + day) * DAY_S + 12_345
            made = planning.month(request, START, planned_at, SEED)
            assert all(slot.starts >= planned_at + LEAD_DAYS[slot.kind] * DAY_S for slot in made.slots)
            assert Counter(slot.kind for slot in made.slots) == full
            assert made.reasons == {}


def test_slots_of_a_first_month_are_spread_over_what_is_left_of_it() -> None:
    first, end = days_of(START)
    days: Counter[int] = Counter()
    for number in range(150):
        made = planning.month(in_tier("D", f"k{number}"), START, (first + 12) * DAY_S, SEED)
        days.update(slot.day for slot in made.slots if slot.kind == "virtual")
    assert set(days) <= set(range(first + 15, end)) and max(days.values()) < 3 * min(
        days[day] for day in range(first + 16, end)
    )


def test_a_month_too_near_its_end_has_nothing_and_says_lead_time() -> None:
    _, end = days_of(START)
    request = in_tier("D")
    virtual_only = planning.month(request, START, (end - 5) * DAY_S, SEED)
    assert {slot.kind for slot in virtual_only.slots} == {"virtual"}
    assert virtual_only.reasons == {"physical": "lead_time"}
    for planned_at in ((end - 2) * DAY_S, end * DAY_S, (end + 400) * DAY_S):
        nothing = planning.month(request, START, planned_at, SEED)
        assert nothing.slots == () and nothing.reasons == {"physical": "lead_time", "virtual": "lead_time"}
        assert len(nothing.rotations) > 0


def test_a_last_day_takes_what_fits_and_says_why_it_is_short() -> None:
    _, end = days_of(START)
    made = planning.month(in_tier("D", timezone="UTC"), START, (end - 4) * DAY_S + 20 * 3600, SEED)
    virtual = [slot for slot in made.slots if slot.kind == "virtual"]
    assert 1 <= len(virtual) <= 8 and all(slot.day == end - 1 for slot in virtual)
    assert made.reasons["virtual"] == "lead_time"


# Not allowed, exhausted, missing


@pytest.mark.parametrize("tier", TIERS)
def test_a_kind_that_is_not_allowed_has_no_slots_and_that_reason(tier: Tier) -> None:
    prices = in_tier(tier).prices
    made = planning.month(in_tier(tier, allow_physical=False, prices=(None, None, None, *prices[3:])), START, 0, SEED)
    assert {slot.kind for slot in made.slots} == {"virtual"} and made.reasons == {"physical": "not_allowed"}
    assert all(one.cities == () for one in made.rotations)
    neither = planning.month(in_tier(tier, allow_physical=False, allow_virtual=False), START, 0, SEED)
    assert neither.slots == () and neither.reasons == {"physical": "not_allowed", "virtual": "not_allowed"}


@pytest.mark.parametrize("cities", [0, 1, 2])
def test_no_free_city_means_no_physical_slots_and_never_a_broken_cooldown(cities: int) -> None:
    request = in_tier("D")
    book = Book(replace(request, pool=request.pool[:cities]))
    for month in range(START, START + 12):
        book.plan(month)
    exhausted = [month for month in range(START, START + 12) if book.reasons[month].get("physical") == "pool_exhausted"]
    counts = dict(monthly(book))
    assert len(exhausted) >= 6
    assert all(counts[month]["physical"] == 0 for month in exhausted)
    assert all(counts[month]["physical"] > 0 for month in set(range(START, START + 12)) - set(exhausted))
    for one, other in pairwise(sorted(book.visits(), key=lambda visit: (visit.city, visit.day))):
        assert one.city != other.city or date_of(other.day) >= date_of(one.day) + relativedelta(months=one.months)


def test_a_pool_that_holds_the_home_country_is_not_used_for_it() -> None:
    request = in_tier("D")
    home = request.pool[0].country
    made = planning.month(replace(request, home=home), START, 0, SEED)
    assert all(CITY[slot.city].country != home for slot in made.slots if slot.city)
    only_home = tuple(city for city in request.pool if city.country == home)
    assert planning.month(replace(request, home=home, pool=only_home), START, 0, SEED).reasons == {
        "physical": "pool_exhausted"
    }


@pytest.mark.parametrize("missing", range(6))
def test_a_missing_package_is_an_error_that_names_person_and_package(missing: int) -> None:
    prices = tuple(None if index == missing else 100 for index in range(6))
    kind = "physical" if missing < 3 else "virtual"
    with pytest.raises(PlanError, match=f"one has no active package {kind} {(15, 30, 60)[missing % 3]}"):
        planning.month(in_tier("D", prices=prices), START, 0, SEED)


# Clock changes


@pytest.mark.parametrize(
    ("zone", "month", "changed"),
    [
        ("Africa/Khartoum", "2000-01", "2000-01-15"),
        ("Pacific/Apia", "2011-12", "2011-12-30"),
        ("Pacific/Easter", "2027-04", "2027-04-03"),
        ("Pacific/Easter", "2027-09", "2027-09-04"),
        ("Europe/Berlin", "2027-03", "2027-03-28"),
    ],
)
def test_slots_skip_what_a_clock_change_removes(zone: str, month: str, changed: str) -> None:
    on_the_day = 0
    for number in range(150):
        request = in_tier("D", f"k{number}", timezone=zone)
        for slot in planning.month(request, month_named(month), 0, SEED).slots:
            if slot.kind == "virtual":
                starts, ends = (dt.datetime.fromtimestamp(at, ZoneInfo(zone)) for at in (slot.starts, slot.ends))
                assert starts.date() == ends.date() == date_of(slot.day)
                assert starts.hour >= 9 and ends.time() <= dt.time(22)
                assert ends.replace(tzinfo=None) - starts.replace(tzinfo=None) == dt.timedelta(minutes=slot.minutes)
                on_the_day += starts.date().isoformat() == changed
    assert (on_the_day > 0) == (zone != "Pacific/Apia")


# Another tier, another seed, months left out


def changed(book: Book, tier: Tier) -> Request:
    """The same person in another tier."""
    who = Person(book.request.key, "n", rated(tier))
    return requested(who)


@pytest.mark.parametrize("after", TIERS)
@pytest.mark.parametrize("before", TIERS)
def test_after_a_change_of_tier_rotations_go_on_without_gap_or_overlap(before: Tier, after: Tier) -> None:
    for number in range(6):
        who = Person(f"k{number}", "n", rated(after))
        book = Book(requested(Person(f"k{number}", "n", rated(before))))
        for month in range(START, START + 3):
            book.plan(month)
        book.request = requested(who)
        for month in range(START + 3, START + 8):
            book.plan(month)
            assert complaints(who, book, month) == []
        assert apart(book.slots)


def test_after_a_change_of_seed_everything_goes_on_too() -> None:
    for number in range(20):
        who = Person(f"k{number}", "n", rated("C"))
        book = Book(requested(who))
        book.plan(START)
        book.seed = b"another"
        for month in range(START + 1, START + 6):
            book.plan(month)
            assert complaints(who, book, month) == []


@pytest.mark.parametrize("order", [(0, 7), (7, 0), (0, 30, 12)])
def test_months_that_were_left_out_get_their_rotations(order: tuple[int, ...]) -> None:
    for tier in TIERS:
        book = Book(in_tier(tier))
        for step in order:
            book.plan(START + step)
        ordered = sorted(book.rotations.values(), key=lambda one: one.first)
        assert all(one.end == other.first for one, other in pairwise(ordered))
        assert ordered[0].first <= days_of(START)[0] and ordered[-1].end >= days_of(START + max(order))[1]


def test_rotations_of_other_months_are_left_alone() -> None:
    """Their visits were not asked for, so their cities would be lost."""
    book = Book(in_tier("D"))
    for month in range(START, START + 12):
        book.plan(month)
    first, end = days_of(START + 5)
    request = replace(book.asked(START + 5), visits=())
    assert all(one.first < end and one.end > first for one in planning.month(request, START + 5, 0, SEED).rotations)


@pytest.mark.parametrize("key", ["one", "two", "three", "four"])
def test_a_month_before_the_first_rotations_of_another_tier_is_planned_up_to_them(key: str) -> None:
    changes: tuple[tuple[Tier, Tier], ...] = (("A", "S"), ("S", "D"), ("D", "B"))
    for before, after in changes:
        book = Book(in_tier(before, key))
        book.plan(START)
        book.request = in_tier(after, key)
        for month in (START - 1, START - 6, START - 7, START + 1):
            book.plan(month)
            assert complaints(Person(key, key, rated(after)), book, month) == []
        ordered = sorted(book.rotations.values(), key=lambda one: one.first)
        assert all(one.end == other.first for one, other in pairwise(ordered))


def test_somebody_left_alone_for_decades_is_an_error_in_words() -> None:
    book = Book(in_tier("D"))
    book.plan(START)
    with pytest.raises(PlanError, match="nearer"):
        book.plan(START + 12 * 40)


def test_pools_have_twelve_countries_and_as_many_cities_as_the_tier_says() -> None:
    for tier in TIERS:
        sizes = set()
        for number in range(100):
            ids = pool(tier, f"p{number}", "US", SEED, ATLAS)
            each = Counter(CITY[one].country for one in ids)
            assert len(ids) == len(set(ids)) and len(each) == 12 and "US" not in each
            sizes |= set(each.values())
        least, most = RULES[tier].cities_each
        assert sizes == set(range(least, most + 1))


def test_every_country_and_city_is_in_somebodys_pool_about_equally_often() -> None:
    found = Counter(one for number in range(600) for one in pool("C", f"p{number}", None, SEED, ATLAS))
    assert set(found) == set(CITY)
    assert max(found.values()) < 2 * min(found.values())


def test_a_list_of_cities_that_is_too_short_is_an_error_in_words() -> None:
    few = Atlas({country: ATLAS.cities[country] for country in list(ATLAS.cities)[:12]})
    assert len(pool("S", "p", None, SEED, few)) == 36
    with pytest.raises(PlanError, match="only 11 countries"):
        pool("S", "p", next(iter(few.cities)), SEED, few)
