"""Every rival in the table ranks exactly: as the oracle does, in worlds like those of the benches."""

import importlib.util
from typing import Any

import pytest

from server.protocol.event import event_bytes
from tests.bench import crowds
from tests.bench.crowds import NOW_MS, Crowd, Views
from tests.bench.rivals import Brute, Naive, RTree, Seen
from tests.oracle import view as oracle

pytestmark = pytest.mark.pure
WORLDS = {
    "cities": lambda: crowds.cities(3, 2500, 12, 60),
    "square": lambda: crowds.square(4, 600, 12, 0.2),
}


def plain(crowd: Crowd, number: int) -> dict[str, Any]:
    event = crowd.event(number)
    return {
        **{"id": event.id, "latitude": event.latitude, "longitude": event.longitude, "start": event.start_ms},
        **{"created": event.created_ms, "confidence": event.confidence, "status": event.status},
        **{"private": event.private, "creator": event.creator_id},
        **dict(zip(("scan", "save", "rsvp"), event.counts, strict=True)),
    }


def asked(views: Views, viewer: int) -> dict[str, Any]:
    box = {name: float(getattr(views, name)[viewer]) for name in ("west", "south", "east", "north")}
    home = {name: float(getattr(views, name)[viewer]) for name in ("latitude", "longitude")}
    return {"viewport": box, "location": home, "maxEvents": views.limit, "user": None}


def judged(events: list[dict[str, Any]], question: dict[str, Any]) -> Seen:
    seen = oracle.view(events, question, NOW_MS)
    found = len(oracle.candidates(events, question, NOW_MS))
    return Seen(tuple(int(e["id"][1:]) for e, _ in seen), tuple(score for _, score in seen), found)


def agree(made: Any, crowd: Crowd, views: Views) -> None:
    rival, events = made(crowd), [plain(crowd, number) for number in range(len(crowd))]
    for viewer in range(len(views)):
        expected = judged(events, asked(views, viewer))
        assert rival.view(views, viewer).equals(expected)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("made", [Naive, Brute])
def test_a_rival_ranks_as_the_oracle_does(made: Any, world: str):
    agree(made, *WORLDS[world]())


@pytest.mark.parametrize("world", WORLDS)
def test_the_r_tree_ranks_as_the_oracle_does(world: str):
    if importlib.util.find_spec("shapely") is None:
        return  # only `make bench` installs it; there the tree is compared with ours in every run
    agree(RTree, *WORLDS[world]())


def test_city_views_hold_about_as_many_candidates_as_was_asked():
    crowd, views = crowds.cities(5, 30_000, 40, 300)
    found = [Brute(crowd).view(views, viewer).candidates for viewer in range(len(views))]
    assert 270 < sorted(found)[len(found) // 2] < 330


def test_the_same_seed_makes_the_same_world():
    first, second = crowds.cities(6, 1000, 5, 50), crowds.cities(6, 1000, 5, 50)
    assert first[0].event(17) == second[0].event(17)
    assert first[1].question(3) == second[1].question(3)


def test_an_events_json_is_as_long_as_asked():
    crowd, _ = crowds.square(7, 50, 1, 0.1)
    assert all(abs(len(event_bytes(crowd.event(number, 600))) - 600) < 25 for number in range(50))
