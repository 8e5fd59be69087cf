"""An event as bytes: both forms give back the event and its body, byte for byte, whatever is written in its texts."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from server.batching.scores import content
from server.batching.scores.content import COUNTS, HEAD, HIGH, LENGTH, NO_END, PRIVATE
from server.core.event import COUNTER_MAX, STATUSES, Counts, Event
from server.protocol.event import canonical, event_bytes
from server.protocol.values import MAX_MS, MIN_MS

pytestmark = pytest.mark.pure

TRAPS = (
    *(
        "",
        '"',
        "\\",
        '\\"',
        ",",
        '","',
        "null",
        "{",
        "}",
        "S",
        "[]",
        "\n\t\b\f\x01\x1f\x7f",
        "\u2028\u2029",
        "é",
        "🎷👨‍👩‍👧",
    ),
    *(
        ',"scanCount":',
        ',"version":',
        ',"properties":',
        ',"confidence":',
        ',"location":',
        '","version":7,"properties":{}',
    ),
    *('\\",\\"version\\":1', ',"title":"', "\\u0000", "\U0010ffff", "a" * 300),
)
texts = st.sampled_from(TRAPS) | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
names = texts.filter(bool)
counters = st.sampled_from((0, 1, 2**31, 2**53 + 1, COUNTER_MAX)) | st.integers(0, COUNTER_MAX)
triples = st.tuples(counters, counters, counters)
moments = st.sampled_from((0, -1, 999, -999, MIN_MS, MAX_MS, 1_790_000_000_123)) | st.integers(MIN_MS, MAX_MS)
leaves = (
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | texts
)
trees = st.recursive(leaves, lambda t: st.lists(t, max_size=3) | st.dictionaries(texts, t, max_size=3), max_leaves=6)
events = st.builds(
    Event,
    id=names,
    latitude=st.sampled_from((0.0, -0.0, 90.0, -90.0, 5e-324, 1e-7, 52.5200066)) | st.floats(-90, 90),
    longitude=st.sampled_from((180.0, -180.0, 1 / 3)) | st.floats(-180, 180),
    start_ms=moments,
    title=texts,
    emoji=st.none() | texts,
    description=st.none() | texts,
    categories=st.lists(names, max_size=4).map(tuple),
    end_ms=st.none() | moments,
    timezone=st.sampled_from((None, "Europe/Berlin", "UTC")),
    status=st.sampled_from(STATUSES),
    counts=triples,
    confidence=st.none() | st.floats(0, 1),
    private=st.booleans(),
    creator_id=st.none() | names,
    shared_with=st.lists(names, max_size=3).map(tuple),
    recurrence=st.none() | texts,
    priority=st.sampled_from(("normal", "high")),
    created_ms=moments,
    updated_ms=moments,
    version=st.integers(0, 2**53 - 1),
    properties=st.none() | st.dictionaries(texts, trees, max_size=4).map(canonical),
)
WORST = Event(
    id='"',
    latitude=-0.0,
    longitude=1e-300,
    start_ms=MIN_MS,
    title=',"scanCount":9,"saveCount":9,"rsvpCount":9,"confidence":null,"version":3,"properties":{}',
    categories=("a", "properties", ",", ',"version":'),
    shared_with=("S", ',"scanCount":', "{"),
    recurrence=',"version":12,"properties":',
    properties=canonical(
        {
            n: {"0": 1, n: 2}
            for n in ("0", "confidence", "location", "properties", "scanCount", "version", ',"version":')
        }
    ),
)


def raw_of(event: Event) -> bytes:
    """The event as PostgreSQL sends it, written down from the documented form."""
    flags = STATUSES.index(event.status) + PRIVATE * event.private + HIGH * (event.priority == "high")
    numbers = (*event.counts, event.version, event.latitude, event.longitude, event.start_ms)
    end = NO_END if event.end_ms is None else event.end_ms
    confidence = float("nan") if event.confidence is None else event.confidence
    head = HEAD.pack(*numbers, end, event.created_ms, event.updated_ms, confidence, flags)
    categories, shares = (orjson.dumps(x).decode() if x else None for x in (event.categories, event.shared_with))
    parts = (event.id, event.title, categories, event.description, event.emoji, event.timezone, event.recurrence)
    parts += (event.creator_id, shares, event.properties)
    return head + b"".join(_text(part) for part in parts)


def _text(text: str | None) -> bytes:
    return LENGTH.pack(-1) if text is None else LENGTH.pack(len(text.encode())) + text.encode()


@settings(max_examples=75, deadline=None)
@given(event=events)
@example(event=WORST)
def test_both_forms_give_back_the_event_its_body_and_its_words(event: Event) -> None:
    for form in (content.of_event(event), raw_of(event), content.encoded(raw_of(event))):
        again = content.event_of(form)
        assert again == event
        assert str(again.latitude) == str(event.latitude)
        assert content.body_of(form) == event_bytes(event)
        assert content.words(form) == (event.title, event.categories, event.description)


@settings(max_examples=75, deadline=None)
@given(event=events, counts=triples, version=st.integers(0, 2**53 - 1))
@example(event=WORST, counts=(1, 22, 333), version=10**15)
def test_new_counters_give_what_encoding_the_changed_event_gives(event: Event, counts: Counts, version: int) -> None:
    changed = replace(event, counts=counts, version=version)
    assert content.with_counts(content.of_event(event), counts, version) == content.of_event(changed)
    raw = content.with_counts(raw_of(event), counts, version)
    assert content.event_of(raw) == changed
    assert content.encoded(raw) == content.of_event(changed)


def test_an_encoded_content_is_kept_as_it_is() -> None:
    one = content.of_event(WORST)
    assert content.encoded(one) is one
    plain = content.of_event(replace(WORST, shared_with=()))
    assert content.body_of(plain) is plain


def test_a_raw_content_begins_with_its_counters_and_a_zero() -> None:
    raw = content.with_counts(raw_of(WORST), (COUNTER_MAX, COUNTER_MAX, 1), 4)
    assert raw[0] == 0
    assert COUNTS.unpack_from(raw) == (COUNTER_MAX, COUNTER_MAX, 1, 4)


def test_who_an_event_is_shared_with_never_shows_in_its_body() -> None:
    event = replace(WORST, shared_with=("somebody-else",))
    for form in (content.of_event(event), raw_of(event)):
        assert b"somebody-else" in form
        assert b"somebody-else" not in content.body_of(form)
