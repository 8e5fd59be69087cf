"""Which tier somebody gets, and why; countries, time zones and flags that come with it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.batching.tiers.classify import SOURCES, appraise, classify
from server.batching.tiers.countries import codes, country
from server.batching.tiers.names import directory, folded
from server.batching.tiers.rules import PACKAGES, RANK, RULES, TIERS, Comparable, Person, Tier
from tests.batching.tiers.invented import SEED, people, rated
from tests.oracle import tiers as oracle

pytestmark = pytest.mark.pure

letters = st.sampled_from(TIERS)
known_or_not = st.none() | letters
persons = st.builds(
    Person,
    key=st.just("k"),
    name=st.just("n"),
    ratings=st.tuples(*[known_or_not] * 5),
    comparables=st.lists(st.builds(Comparable, name=st.sampled_from("xyz"), tier=known_or_not), max_size=5).map(tuple),
    legacy=st.booleans(),
    global_award=st.booleans(),
    override=st.one_of(st.none(), st.none(), letters),
)


def person(*ratings: Tier | None, **more: object) -> Person:
    return Person("k", "n", (*ratings, *(None,) * (5 - len(ratings))), **more)  # type: ignore[arg-type]


@given(persons, st.dictionaries(st.sampled_from("xyz"), letters))
def test_it_is_what_the_rules_say_in_plain_words(who: Person, known: dict[str, Tier]) -> None:
    beside = [found for one in who.comparables if (found := one.tier or known.get(one.name))]
    ratings = [rating for rating in who.ratings if rating]
    flags = {"legacy": who.legacy, "global_award": who.global_award}
    decided = classify(who, known)
    assert (decided.tier, decided.needs_review) == oracle.tier(who.override, list(beside), list(ratings), flags)
    assert decided.source in SOURCES and decided.reason


@pytest.mark.parametrize(
    ("ratings", "tier"),
    [("SSS", "S"), ("DDC", "D"), ("DDCC", "C"), ("DCB", "C"), ("AASSB", "A"), ("AASS", "S"), ("DDDDB", "D")],
)
def test_ratings_give_their_upper_median(ratings: str, tier: str) -> None:
    decided = classify(person(*ratings), {})  # type: ignore[arg-type]
    assert (decided.tier, decided.source, decided.needs_review) == (tier, "ratings", False)


@pytest.mark.parametrize(
    ("ratings", "tier"),
    [("D", "C"), ("DC", "C"), ("SS", "S"), ("A", "S"), ("DDA", "C"), ("CSSSS", "B"), ("DDDDA", "C")],
)
def test_unclear_ratings_give_one_above_the_lowest_and_a_review(ratings: str, tier: str) -> None:
    decided = classify(person(*ratings), {})  # type: ignore[arg-type]
    assert (decided.tier, decided.source, decided.needs_review) == (tier, "unclear", True)


def test_two_levels_apart_is_not_unclear() -> None:
    assert classify(person("D", "C", "B"), {}).source == "ratings"


def test_no_evidence_is_d_with_a_source_of_its_own() -> None:
    decided = classify(person(), {})
    assert (decided.tier, decided.source, decided.needs_review) == ("D", "no_evidence", True)
    assert appraise(person(), {}, SEED).flags == ("no_evidence",)


def test_an_override_goes_before_comparables_and_these_before_ratings() -> None:
    beside = (Comparable("x", "A"), Comparable("y", "C"))
    assert classify(person("D", "D", "D", comparables=beside, override="B"), {}).tier == "B"
    assert classify(person("D", "D", "D", comparables=beside), {}).tier == "A"
    assert classify(person("D", "D", "D", comparables=(Comparable("nobody knows"),)), {}).tier == "D"


@pytest.mark.parametrize("override", TIERS)
def test_guards_hold_whatever_came_before(override: Tier) -> None:
    legacy = classify(person(override=override, legacy=True, global_award=True), {})
    award = classify(person(override=override, global_award=True), {})
    assert RANK[legacy.tier] == max(RANK[override], RANK["B"])
    assert RANK[award.tier] == max(RANK[override], RANK["C"])
    assert (legacy.source == "guard") == (override in "CD")


def test_comparables_are_found_by_name_and_by_alias() -> None:
    known = directory([("Beyoncé", "S"), ("Jay-Z", "A")], [("Queen B", "Beyonce"), ("Nobody", "No One")])
    for name in ("BEYONCE", "beyoncé", "Queen-B", "Ｂｅｙｏｎｃé"):
        assert classify(person(comparables=(Comparable(name),)), known).tier == "S"
    assert classify(person(comparables=(Comparable("jay z"),)), known).tier == "A"
    assert "nobody" not in known


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("José Müller", "jose muller"),
        ("P!nk", "pnk"),
        ("O’Neal", "ONeal"),
        ("STRASSE", "straße"),
        ("ﬁn", "FIN"),
        ("İ", "i"),
    ],
)
def test_spellings_of_one_name_are_one(one: str, other: str) -> None:
    assert folded(one) == folded(other)


def test_signs_letters_and_names_of_punctuation_stay_apart() -> None:
    assert len({folded(name) for name in ("Ke$ha", "Kesha", "!!!", "???", "李娜", "李那", "की", "का")}) == 8


@given(st.text(max_size=20))
def test_folding_twice_changes_nothing(text: str) -> None:
    assert folded(folded(text)) == folded(text)


def test_of_two_people_with_one_name_the_first_counts_and_a_name_goes_before_an_alias() -> None:
    found = directory([("A B", 1), ("a-b", 2), ("c", 3)], [("AB", "c"), ("d", "c")])
    assert found == {"ab": 1, "c": 3, "d": 3}


@pytest.mark.parametrize(
    ("text", "code", "source"),
    [
        ("US", "US", "given"),
        ("USA", "US", "alias"),
        ("U.S.", "US", "alias"),
        (" u.s.a. ", "US", "alias"),
        ("UK", "GB", "alias"),
        ("United Kingdom", "GB", "alias"),
        ("Türkiye", "TR", "alias"),
        ("turkey", "TR", "alias"),
        ("South Korea", "KR", "alias"),
        ("côte d'ivoire", "CI", "alias"),
        ("deu", "DE", "alias"),
        ("", "US", "default"),
        ("  ", "US", "default"),
        ("Atlantis", None, "unknown"),
        ("XX", None, "unknown"),
    ],
)
def test_countries_are_understood_as_people_write_them(text: str, code: str | None, source: str) -> None:
    found = country(text)
    assert (found.code, found.source) == (code, source)


def test_every_country_is_found_by_code_and_name() -> None:
    assert all(country(code).code == code for code in codes())
    assert len(codes()) > 240


def test_an_unknown_country_is_no_country_and_flagged_but_the_tier_stands() -> None:
    made = appraise(person("B", "B", "B", country="Atlantis"), {}, SEED)
    assert (made.country, made.country_source, made.decision.tier, made.needs_review) == (None, "unknown", "B", True)
    assert made.flags == ("country",)


@pytest.mark.parametrize(
    ("timezone", "home", "expected", "flags"),
    [
        ("Asia/Tokyo", "US", "Asia/Tokyo", ()),
        ("", "US", "America/New_York", ()),
        ("", "Germany", "Europe/Berlin", ()),
        ("Mars/Olympus", "JP", "Asia/Tokyo", ("timezone",)),
        ("../etc/passwd", "JP", "Asia/Tokyo", ("timezone",)),
    ],
)
def test_a_missing_time_zone_is_that_of_the_countrys_largest_city(
    timezone: str, home: str, expected: str, flags: tuple[str, ...]
) -> None:
    made = appraise(person("B", "B", "B", country=home, timezone=timezone), {}, SEED)
    assert (made.timezone, made.flags) == (expected, flags)


def test_phase_one_gives_everybody_all_that_it_writes() -> None:
    for who in people(500):
        made = appraise(who, {}, SEED)
        least, most = RULES[made.decision.tier].max_slots
        assert least <= made.max_monthly_slots <= most
        assert tuple((one.kind, one.minutes) for one in made.packages) == PACKAGES
        assert made.country and made.timezone
        assert all(
            one.active == (who.allow_physical if one.kind == "physical" else who.allow_virtual) for one in made.packages
        )


def test_whoever_is_classified_before_or_after_changes_nothing() -> None:
    group = people(200)
    one_way = {who.key: appraise(who, {}, SEED) for who in group}
    other_way = {who.key: appraise(who, {}, SEED) for who in reversed(group)}
    assert one_way == other_way
    assert one_way != {who.key: appraise(who, {}, b"another seed") for who in group}


def test_what_is_not_a_rating_never_changes_a_tier() -> None:
    """Net worth caps a price; followers are no field at all."""
    assert classify(person("C", "C", "C", net_worth_cents=10**15), {}) == classify(person("C", "C", "C"), {})
    assert not {name for name in Person.__slots__ if "follow" in name or "listen" in name or "stream" in name}
    assert classify(Person("k", "n", rated("A")), {}).tier == "A"
