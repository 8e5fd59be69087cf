"""Rules: settings of tracking that are more than one value: presets, actors, plans."""

import json
from typing import Any

import pytest

from server.errors import StartRefused
from server.settings import load
from server.settings.tracking import PRESETS, TRACKED, Pace, Plan, actors_of, pace_of, plan_of, plans_of

pytestmark = pytest.mark.pure

HOUR_MS = 3_600_000
ACTOR: dict[str, Any] = {
    "actor": "me/mine",
    "input": "urls",
    "views": ["stats.views"],
    "post": ["url"],
    "urls": 3,
    "priceMicros": 7,
}


def actors(*many: dict[str, Any]) -> dict[str, str]:
    return {"TRACKING_X_ACTORS": json.dumps(many)}


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"TRACKING_PRESET": "100-every-2h"}, "TRACKING_PRESET"),
        ({"TRACKING_PRESET": "50-every-2h", "TRACKING_LIMIT": "50"}, "TRACKING_LIMIT"),
        ({"TRACKING_PRESET": "100-every-4h", "TRACKING_INTERVAL_MS": "14400000"}, "TRACKING_INTERVAL_MS"),
        ({"TRACKING_BUDGET_MS": "61999"}, "TRACKING_CALL_TIMEOUT_MS"),
        ({"TRACKING_CACHE_MS": str(2 * HOUR_MS)}, "TRACKING_CACHE_MS"),
        ({"TRACKING_FEE_BASIS": "1001"}, "TRACKING_FEE_BASIS"),
        ({"TRACKING_BATCH": "0"}, "TRACKING_BATCH"),
        ({"TRACKING_PLAN": "enterprise"}, "free, starter, team"),
        ({"TRACKING_PLANS": "free:5000"}, "TRACKING_PLANS"),
        ({"TRACKING_PLANS": "starter:0:0"}, "TRACKING_PLANS"),
        ({"TRACKING_PLANS": "starter:5:0,starter:6:0"}, "TRACKING_PLANS"),
        ({"TRACKING_X_ACTORS": "me/mine"}, "TRACKING_X_ACTORS is no JSON"),
        ({"TRACKING_X_ACTORS": "{}"}, "TRACKING_X_ACTORS"),
        (actors({**ACTOR, "views": []}), "0.views"),
        (actors({**ACTOR, "urls": 0}), "0.urls"),
        (actors({**ACTOR, "urls": "3"}), "0.urls"),
        (actors({**ACTOR, "priceMicros": -1}), "0.priceMicros"),
        (actors(ACTOR, {**ACTOR, "actor": "a b"}), "1.actor"),
        (actors({**ACTOR, "field": "x"}), "0.field"),
        (actors(ACTOR, ACTOR), "twice"),
        (actors(*({**ACTOR, "actor": f"me/{n}"} for n in range(11))), "TRACKING_X_ACTORS"),
    ],
)
def test_what_cannot_work_stops_the_start_and_is_named(environ: dict[str, str], named: str) -> None:
    with pytest.raises(StartRefused) as caught:
        load(environ)
    assert named in str(caught.value)


def test_a_preset_stands_for_interval_and_limit() -> None:
    assert pace_of(load({})) == Pace(30 * 60_000, 100)
    assert pace_of(load({"TRACKING_PRESET": "100-every-4h"})) == Pace(4 * HOUR_MS, 100)
    assert pace_of(load({"TRACKING_PRESET": "50-every-2h"})) == Pace(2 * HOUR_MS, 50)
    assert pace_of(load({"TRACKING_INTERVAL_MS": "60000", "TRACKING_LIMIT": "7"})) == Pace(60_000, 7)
    assert all(pace.limit * 24 * HOUR_MS // pace.interval_ms == 600 for pace in PRESETS.values())


def test_plans_come_with_their_calls_and_prices_and_ours_is_the_one_named() -> None:
    usual = load({})
    assert plans_of(usual) == (Plan("free", 5_000, 0), Plan("starter", 100_000, 4_900), Plan("team", 1_000_000, 49_900))
    assert plan_of(usual) == Plan("starter", 100_000, 4_900)
    own = load({"TRACKING_PLANS": "big:9:5, small:3:1", "TRACKING_PLAN": "big"})
    assert [plan.name for plan in plans_of(own)] == ["small", "big"] and plan_of(own).calls == 9


def test_every_platform_has_an_actor_and_the_cheapest_comes_first() -> None:
    usual = load({})
    assert all(actors_of(usual, platform) for platform in TRACKED)
    found = actors_of(load(actors({**ACTOR, "actor": "me/dear", "priceMicros": 8}, {**ACTOR, "objects": True})), "x")
    assert [one.actor for one in found] == ["me/mine", "me/dear"]
    assert (found[0].views, found[0].objects, found[0].urls, found[0].also) == (["stats.views"], True, 3, {})
    assert actors_of(load({"TRACKING_X_ACTORS": "[]"}), "x") == ()
