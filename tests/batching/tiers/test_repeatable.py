"""The same seed gives the same rows: in any process, time zone, order and batch; and in every version with these rules."""

import hashlib
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from server.batching.tiers import plan as planning
from server.batching.tiers.chance import A_DIGEST, fraction, numbers, pick, seed_of, stream
from server.batching.tiers.classify import appraise
from server.batching.tiers.months import month_named
from server.batching.tiers.rules import RULE_VERSION
from tests.batching.tiers.invented import SEED, people, requested

pytestmark = pytest.mark.pure

ROOT = Path(__file__).parents[3]
MONTHS = tuple(month_named(text) for text in ("2024-02", "2024-03", "2024-10"))
KNOWN = {1: "39631499524c654da58d17e922fec71b"}
"""Digests by version of the rules. A change of what people get goes with a new version, never without."""


def digest() -> str:
    """Of all that is decided about some people."""
    found = hashlib.blake2b(digest_size=16)
    for who in people(40):
        made = appraise(who, {}, SEED)
        found.update(repr(made).encode())
        for month in MONTHS:
            made_plan = planning.month(requested(who, made), month, 0, SEED)
            found.update(repr((made_plan.slots, made_plan.rotations, made_plan.visits)).encode())
    return found.hexdigest()


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "America/St_Johns"])
def test_no_process_time_zone_and_no_hash_seed_changes_anything(zone: str) -> None:
    code = "from tests.batching.tiers.test_repeatable import digest; print(digest())"
    environment = os.environ | {"TZ": zone, "PYTHONHASHSEED": str(len(zone))}
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert told.stdout.strip() == digest(), told.stderr


def test_other_results_mean_another_version_of_the_rules() -> None:
    assert digest() == KNOWN[RULE_VERSION], "what people get has changed: raise RULE_VERSION and note the new digest"


def test_neither_order_nor_company_changes_a_plan() -> None:
    group = people(60)
    alone = {who.key: planning.month(requested(who), MONTHS[0], 0, SEED) for who in group}
    random.Random(3).shuffle(group)
    for batch in (group[:7], group[7:], group):
        assert all(planning.month(requested(who), MONTHS[0], 0, SEED) == alone[who.key] for who in batch)


def test_purposes_periods_people_and_seeds_have_numbers_of_their_own() -> None:
    asked = [
        (seed, who, purpose, period)
        for seed in (b"a", b"b")
        for who in "pq"
        for purpose in "xy"
        for period in (1, 2, "")
    ]
    assert len({numbers(*one) for one in asked}) == len(asked)
    assert stream(b"a", "p", "x", 1, 40)[:A_DIGEST] == numbers(b"a", "p", "x", 1)
    assert len(set(stream(b"a", "p", "x", 1, 40))) == 48


def test_picks_reach_both_ends_and_are_even() -> None:
    assert [pick(number, 3, 6) for number in (0, 2**30 - 1, 2**30, 2**32 - 1)] == [3, 3, 4, 6]
    found = [pick(number, 1, 5) for who in range(500) for number in numbers(SEED, f"p{who}", "even")]
    assert all(abs(found.count(value) / len(found) - 0.2) < 0.02 for value in range(1, 6))
    assert 0 <= fraction(0) < fraction(2**32 - 1) < 1


def test_a_seed_may_have_any_length() -> None:
    assert len({seed_of(""), seed_of("a"), seed_of("a" * 1_000)}) == 3
    assert all(len(seed_of(text)) <= 64 for text in ("", "a" * 1_000))
