"""Verification over plain rows: every rule is broken by hand once, and found by its name."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from server.batching.tiers.classify import appraise
from server.batching.tiers.judge import (
    AVAILABILITY,
    FOUNDATION,
    Offered,
    Rows,
    Rule,
    Standing,
    availability,
    foundation,
)
from server.batching.tiers.months import days_of, month_named
from server.batching.tiers.rules import RULES, TIERS, Person, Tier
from server.batching.tiers.visits import Visit
from tests.batching.tiers.invented import CITY, SEED, Book, rated, requested, standing_of

pytestmark = pytest.mark.pure

MONTH = month_named("2027-03")


def standing(tier: Tier = "D", **more: object) -> Standing:
    who = Person("k", "n", rated(tier))
    return replace(standing_of(who, appraise(who, {}, SEED)), **more)  # type: ignore[arg-type]


def planned(tier: Tier = "D") -> Rows:
    book = Book(requested(Person("k", "n", rated(tier))))
    for month in range(MONTH - 2, MONTH + 2):
        book.plan(month)
    return book.rows(MONTH)


GOOD = standing()
ROWS = planned()
PHYSICAL = next(slot for slot in ROWS.slots if slot.kind == "physical")
VIRTUAL = next(slot for slot in ROWS.slots if slot.kind == "virtual")


def foundations(one: Standing) -> set[Rule]:
    return {found.rule for found in foundation(one)}


def rules(rows: Rows, one: Standing = GOOD) -> set[Rule]:
    return {found.rule for found in availability(one, rows)}


def with_slot(slot: Offered, rows: Rows = ROWS, **changes: object) -> Rows:
    """One slot is another one."""
    return replace(rows, slots=tuple(replace(s, **changes) if s is slot else s for s in rows.slots))  # type: ignore[arg-type]


def moved(slot: Offered, days: int) -> Rows:
    return with_slot(slot, day=slot.day + days, starts=slot.starts + 86_400 * days, ends=slot.ends + 86_400 * days)


def cheapest_raised(one: Standing) -> Standing:
    return replace(one, packages=(*one.packages[:5], replace(one.packages[5], price_cents=2_000_01)))


FOUNDATION_BROKEN: list[tuple[Rule, Callable[[], Standing]]] = [
    ("missing_tier", lambda: replace(GOOD, tier=None)),
    ("packages_six", lambda: replace(GOOD, packages=GOOD.packages[1:])),
    ("packages_six", lambda: replace(GOOD, packages=(*GOOD.packages, GOOD.packages[0]))),
    ("packages_six", lambda: replace(GOOD, packages=(GOOD.packages[0], *GOOD.packages[:5]))),
    ("packages_six", lambda: replace(GOOD, packages=())),
    ("packages_six", lambda: replace(GOOD, packages=(replace(GOOD.packages[0], active=False), *GOOD.packages[1:]))),
    ("packages_six", lambda: replace(GOOD, allow_physical=False)),
    ("price_range", lambda: cheapest_raised(GOOD)),
    ("price_range", lambda: replace(GOOD, packages=tuple(replace(one, price_cents=99_99) for one in GOOD.packages))),
    ("max_slots", lambda: replace(GOOD, max_monthly_slots=None)),
    ("max_slots", lambda: replace(GOOD, max_monthly_slots=RULES["D"].max_slots[1] + 1)),
    ("max_slots", lambda: replace(GOOD, max_monthly_slots=RULES["D"].max_slots[0] - 1)),
    ("verified", lambda: replace(GOOD, verified=False)),
    ("country", lambda: replace(GOOD, country=None)),
    ("country", lambda: replace(GOOD, country="XX")),
    ("country", lambda: replace(GOOD, country="usa")),
]


def least_fewer(kind: str) -> Rows:
    """One slot fewer of a kind than the least."""
    least = RULES["D"].physical[0] if kind == "physical" else RULES["D"].virtual[0]
    some = [slot for slot in ROWS.slots if slot.kind == kind][: least - 1]
    rotations = tuple(replace(one, cities=()) for one in ROWS.rotations) if kind == "physical" else ROWS.rotations
    near = tuple(slot for slot in ROWS.near if slot.kind != "physical") if kind == "physical" else ROWS.near
    return replace(
        ROWS, slots=(*some, *(slot for slot in ROWS.slots if slot.kind != kind)), rotations=rotations, near=near
    )


def more(many: int) -> Rows:
    """Further virtual slots, at times of their own."""
    last = max(slot.ends for slot in ROWS.slots)
    extra = (
        replace(VIRTUAL, starts=last + 7_200 * n, ends=last + 7_200 * n + 60 * VIRTUAL.minutes)
        for n in range(1, many + 1)
    )
    return replace(ROWS, slots=(*ROWS.slots, *extra))


def rotation(index: int, **changes: object) -> Rows:
    found = list(ROWS.rotations)
    found[index] = replace(found[index], **changes)  # type: ignore[arg-type]
    return replace(ROWS, rotations=tuple(found))


HOME = next(city for city in CITY.values() if city.country == GOOD.country)
FIRST, LAST = ROWS.rotations[0], ROWS.rotations[-1]

AVAILABILITY_BROKEN: list[tuple[Rule, Callable[[], Rows]]] = [
    ("slots_present", lambda: replace(ROWS, slots=())),
    ("no_overlap", lambda: with_slot(VIRTUAL, starts=PHYSICAL.starts - 60, ends=PHYSICAL.starts + 60)),
    ("no_overlap", lambda: replace(ROWS, slots=(*ROWS.slots, VIRTUAL))),
    ("no_overlap", lambda: replace(ROWS, near=(*ROWS.near, replace(VIRTUAL, status="booked")))),
    ("cooldown", lambda: replace(ROWS, visits=(*ROWS.visits, Visit(PHYSICAL.city or 0, PHYSICAL.day - 60, 3)))),
    ("cooldown", lambda: replace(ROWS, visits=(*ROWS.visits, Visit(PHYSICAL.city or 0, PHYSICAL.day + 60, 3)))),
    ("cooldown", lambda: replace(ROWS, slots=(*ROWS.slots, replace(PHYSICAL, city=HOME.id, starts=0, ends=1)))),
    ("home_country", lambda: with_slot(PHYSICAL, country=GOOD.country)),
    ("monthly_counts", lambda: least_fewer("physical")),
    ("monthly_counts", lambda: least_fewer("virtual")),
    ("monthly_counts", lambda: more(10)),
    ("rotation_lengths", lambda: rotation(0, first=FIRST.first - 7 * 5)),
    ("rotation_lengths", lambda: rotation(0, first=FIRST.first - 1)),
    ("rotation_lengths", lambda: rotation(0, end=FIRST.end - 7)),
    ("rotation_lengths", lambda: rotation(0, end=FIRST.end + 7)),
    ("rotation_lengths", lambda: replace(ROWS, rotations=ROWS.rotations[1:])),
    ("rotation_lengths", lambda: replace(ROWS, rotations=())),
    ("rotation_lengths", lambda: rotation(0, cities=(1, 2, 3, 4))),
    ("rotation_lengths", lambda: replace(ROWS, rotations=tuple(replace(one, cities=()) for one in ROWS.rotations))),
    ("slot_price", lambda: with_slot(VIRTUAL, price_cents=VIRTUAL.price_cents + 1)),
    ("slot_price", lambda: with_slot(VIRTUAL, price_cents=0)),
]


@pytest.mark.parametrize(("rule", "broken"), FOUNDATION_BROKEN)
def test_a_broken_foundation_is_found_by_name(rule: Rule, broken: Callable[[], Standing]) -> None:
    assert foundations(GOOD) == set()
    assert foundations(broken()) == {rule}


@pytest.mark.parametrize(("rule", "broken"), AVAILABILITY_BROKEN)
def test_a_broken_month_is_found_by_name(rule: Rule, broken: Callable[[], Rows]) -> None:
    assert rules(ROWS) == set()
    assert rule in rules(broken())


def test_every_rule_is_broken_somewhere_here() -> None:
    assert {rule for rule, _ in FOUNDATION_BROKEN} == set(FOUNDATION)
    assert {rule for rule, _ in AVAILABILITY_BROKEN} == set(AVAILABILITY)


def test_a_details_text_says_what_was_found_and_what_may_be() -> None:
    assert foundation(replace(GOOD, max_monthly_slots=3))[0].detail == "max_monthly_slots is 3, not 20 to 40"


@pytest.mark.parametrize("tier", TIERS)
def test_more_than_max_monthly_slots_in_all_is_found(tier: Tier) -> None:
    rows, least = planned(tier), sum(RULES[tier].count(kind)[0] for kind in ("physical", "virtual"))
    many = len(rows.slots)
    found = rules(rows, standing(tier, max_monthly_slots=many - 1))
    assert ("monthly_counts" in found) == (many > least)
    assert rules(rows, standing(tier, max_monthly_slots=many)) == set()


def test_reasons_excuse_a_month_that_is_short_but_not_one_that_is_full() -> None:
    assert rules(replace(least_fewer("virtual"), reasons={"virtual": "lead_time"})) == set()
    assert rules(replace(least_fewer("physical"), reasons={"virtual": "lead_time"})) == {"monthly_counts"}
    assert "monthly_counts" in rules(replace(more(10), reasons={"virtual": "lead_time"}))
    empty = replace(ROWS, slots=(), near=(), rotations=tuple(replace(one, cities=()) for one in ROWS.rotations))
    assert rules(replace(empty, reasons={"virtual": "lead_time", "physical": "pool_exhausted"})) == set()
    assert rules(replace(empty, reasons={"virtual": "lead_time"})) == {"monthly_counts", "slots_present"}


def test_slots_of_a_kind_that_is_not_allowed_are_found() -> None:
    assert "monthly_counts" in rules(ROWS, replace(GOOD, allow_virtual=False))


def test_cancelled_slots_take_no_time_and_no_price_and_make_up_for_a_missing_one() -> None:
    virtual = [slot for slot in ROWS.slots if slot.kind == "virtual"]
    gone = {id(slot) for slot in virtual[4:]} | {id(virtual[0])}
    slots = [replace(slot, status="cancelled", price_cents=1) if slot is virtual[0] else slot for slot in ROWS.slots]
    rows = replace(ROWS, slots=tuple(slot for slot in slots if id(slot) not in gone))
    assert (
        rules(replace(rows, slots=(*rows.slots, replace(VIRTUAL, status="cancelled", starts=PHYSICAL.starts)))) == set()
    )


def test_cancelled_slots_count_for_no_maximum() -> None:
    extra = [replace(slot, status="cancelled") for slot in more(10).slots[len(ROWS.slots) :]]
    assert rules(replace(ROWS, slots=(*ROWS.slots, *extra))) == set()


def test_bookings_keep_their_price_and_may_be_more_than_a_lower_tiers_most() -> None:
    assert rules(with_slot(VIRTUAL, status="booked", price_cents=1)) == set()
    booked = tuple(replace(slot, status="booked") for slot in more(10).slots)
    assert rules(replace(ROWS, slots=booked)) == set()


def test_expired_slots_overlap_nothing() -> None:
    again = replace(VIRTUAL, status="expired")
    fewer = tuple(slot for slot in ROWS.slots if slot.kind != "virtual" or slot is VIRTUAL)
    assert "no_overlap" not in rules(replace(ROWS, slots=(*fewer, again)))


def test_an_s_without_virtual_meetings_may_have_an_empty_month() -> None:
    first, end = days_of(MONTH)
    book = Book(requested(Person("k", "n", rated("S"))))
    rotations = tuple(replace(one, cities=()) for one in book.plan(MONTH).rotations)
    rows = Rows(MONTH, (), (), rotations, (), {"virtual": "not_allowed"})
    assert rules(rows, standing("S", allow_virtual=False)) == set() and first < end
    assert rules(rows, standing("S")) == set()
    assert rules(replace(rows, reasons={}), standing("S")) == {"slots_present", "monthly_counts"}
