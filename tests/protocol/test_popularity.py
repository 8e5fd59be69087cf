"""The short way of a plain popularity object is the model's own answer, whatever is sent: taken alike, refused alike."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from server.core.event import COUNTER_MAX, Popularity
from server.errors import Code, Refused
from server.protocol import event as protocol
from server.protocol.event import PopularityIn, popularity_op, refused

pytestmark = pytest.mark.pure

NUMBERS = [0, 1, -1, 7, COUNTER_MAX, COUNTER_MAX + 1, -COUNTER_MAX, -COUNTER_MAX - 1, 10**40, True, False, 1.0, 0.5]
ODD: list[Any] = [None, "", "5", [], {}, [1], float("nan"), b"a", ("a",), "normal", "high", "HIGH"]
IDS: list[Any] = [
    "a",
    "event-1",
    "x" * 128,
    "x" * 129,
    "é",
    "🍜" * 128,
    "a\0b",
    "\0",
    " ",
    'quo"te\\',
    "\ud800",
    7,
    *ODD,
]
COUNTERS = st.sampled_from([*NUMBERS, *ODD])
DELTA = st.dictionaries(st.sampled_from(["scanCount", "saveCount", "rsvpCount", "scan_count", "foreign"]), COUNTERS)
VALUES = {
    "eventId": st.sampled_from(IDS),
    "event_id": st.sampled_from(IDS),
    "updateId": st.sampled_from(IDS),
    "scanCount": COUNTERS,
    "saveCount": COUNTERS,
    "rsvpCount": COUNTERS,
    "scan_count": COUNTERS,
    "delta": DELTA | st.sampled_from(ODD),
    "priority": st.sampled_from(["normal", "high", *ODD, 1]),
    "type": st.just("popularity-update"),
}
SMALL = st.integers(0, 9)
GOOD = st.fixed_dictionaries(
    {"eventId": st.sampled_from(["a", "event-1", "x" * 128])},
    optional={
        "updateId": st.sampled_from(["u", None]),
        "priority": st.sampled_from(["normal", "high", None]),
        "scanCount": SMALL | st.sampled_from([None, COUNTER_MAX]),
        "saveCount": SMALL,
        "rsvpCount": SMALL,
        "delta": st.none() | st.dictionaries(st.sampled_from(["scanCount", "saveCount", "rsvpCount"]), SMALL),
    },
)
"""Mostly what producers send; one value of it may then be anything."""


def answered(row: object) -> Popularity | tuple[Code, str, str | None]:
    try:
        return popularity_op(row)
    except Refused as no:
        return no.code, no.message, no.field


def as_the_model_does(row: object) -> Popularity | tuple[Code, str, str | None]:
    try:
        return PopularityIn.model_validate(row).op()
    except ValidationError as error:
        no = refused(error)
        return no.code, no.message, no.field


def same(row: object) -> None:
    ours, models = answered(row), as_the_model_does(row)
    assert repr(ours) == repr(models)  # repr: 1 is not True here
    assert ours == models


@settings(deadline=None)
@given(GOOD)
def test_what_producers_send_is_understood_as_the_model_does(row: dict[str, Any]) -> None:
    same(row)


@settings(deadline=None)
@given(GOOD, st.sampled_from(list(VALUES)), st.data())
def test_one_odd_value_changes_nothing_of_that(row: dict[str, Any], name: str, data: st.DataObject) -> None:
    same({**row, name: data.draw(VALUES[name])})


@settings(deadline=None)
@given(st.fixed_dictionaries({}, optional=VALUES) | st.sampled_from([*ODD, 7]))
def test_nor_does_anything_at_all(row: object) -> None:
    same(row)


@pytest.mark.parametrize("name", ["eventId", "updateId", "scanCount", "rsvpCount", "priority"])
def test_every_odd_value_of_every_field_is_answered_as_the_model_does(name: str) -> None:
    for value in [*NUMBERS, *ODD, *IDS]:
        same({"eventId": "a", "saveCount": 1, name: value})
        same({"eventId": "a", "delta": {"saveCount": 1}, name: value})


def test_every_odd_value_of_a_delta_is_answered_as_the_model_does() -> None:
    for value in [*NUMBERS, *ODD]:
        same({"eventId": "a", "delta": value})
        for name in ("scanCount", "saveCount", "rsvpCount", "foreign"):
            same({"eventId": "a", "delta": {name: value, "rsvpCount": 1}})


def test_the_plain_object_takes_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(protocol, "PopularityIn")
    assert popularity_op({"eventId": "a", "scanCount": 5}) == Popularity("a", (5, None, None))
    moved = {"eventId": "a", "delta": {"rsvpCount": -1}, "updateId": "u", "priority": "high"}
    assert popularity_op(moved) == Popularity("a", deltas=(0, 0, -1), update_id="u", high=True)
