"""What must have happened before a tier's month, and what comes next."""

from __future__ import annotations

import pytest

from server.batching.tiers.gates import Month, before, closed, next_step
from server.batching.tiers.rules import TIERS

pytestmark = pytest.mark.pure

ALL = frozenset(TIERS)


def test_tiers_come_in_order_the_highest_first() -> None:
    assert [before(tier) for tier in TIERS] == [None, "S", "A", "B", "C"]


def test_nobody_is_planned_while_somebody_has_no_tier() -> None:
    state = Month(1, dict.fromkeys(TIERS, "passed"), ALL)
    for tier in TIERS:
        assert "without a tier: 1" in (closed(tier, "2027-03", state, override=True) or "")
    assert next_step(state).action == "stop"


@pytest.mark.parametrize("verdict", ["failed", "stale", "none"])
def test_only_a_verification_that_passed_and_holds_opens_the_next_tier(verdict: str) -> None:
    state = Month(0, {} if verdict == "none" else {"S": verdict}, ALL)  # type: ignore[dict-item]
    assert closed("S", "2027-03", state, override=False) is None
    why = closed("A", "2027-03", state, override=False)
    assert why is not None
    assert "tiers verify --tier S --month 2027-03" in why
    assert closed("A", "2027-03", state, override=True) is None
    assert closed("A", "2027-03", Month(0, {"S": "passed"}, ALL), override=False) is None


def test_the_month_goes_from_s_to_d_planning_and_verifying_each() -> None:
    verdicts, planned, steps = {}, set(), []
    while (step := next_step(Month(0, verdicts, frozenset(planned)))).action != "rest":
        steps.append((step.action, step.tier))
        if step.action == "plan":
            planned.add(step.tier)
        else:
            verdicts[step.tier] = "passed"
    assert steps == [(action, tier) for tier in TIERS for action in ("plan", "verify")]


def test_without_anybody_there_is_nothing_to_do() -> None:
    assert next_step(Month(0, {}, frozenset(), people=0)).action == "rest"


def test_a_tier_that_failed_stops_all_that_follow_until_it_is_verified_again() -> None:
    failed = Month(0, {"S": "passed", "A": "failed"}, ALL)
    step = next_step(failed)
    assert (step.action, step.tier) == ("stop", "A")
    assert next_step(Month(0, {"S": "passed", "A": "stale"}, ALL)).action == "verify"
    assert next_step(Month(0, {"S": "passed", "A": "passed"}, ALL)).tier == "B"


def test_a_tier_with_somebody_new_is_planned_again_before_it_is_verified() -> None:
    state = Month(0, {"S": "passed", "A": "stale"}, frozenset("SBCD"))
    assert next_step(state) == next_step(Month(0, {"S": "passed"}, frozenset("S")))
