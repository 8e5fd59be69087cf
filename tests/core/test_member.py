"""What a stranger's values become, and what they are refused for."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.core.member import (
    EXTRA_MOST,
    TEXT_MOST,
    AuthFailed,
    BadRow,
    Member,
    Page,
    Unusable,
    email_of,
    extra_of,
    moment_of,
    text_of,
)

pytestmark = pytest.mark.pure

NOTHING: frozenset[str] = frozenset()
WORLD = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


def storable(text: str) -> bool:
    return "\0" not in text and text.encode() == text.encode("utf-8", "strict")


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, None), ("", None), ("  ", None), (" Ada ", "Ada"), (7, "7"), ("a\0b", "ab"), ("\0", None)],
)
def test_a_text_is_trimmed_and_nothing_is_none(value: object, text: str | None) -> None:
    assert text_of(value) == text


@pytest.mark.parametrize("value", [True, [], {}, "x" * (TEXT_MOST + 1)])
def test_what_is_no_text_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"is not a text|has more than"):
        text_of(value)


@pytest.mark.parametrize("value", ["ada@example.com", " Ada@Example.COM ", "a.b+c@x.y", "用户@例子.测试"])
def test_an_address_is_kept_as_it_was_written(value: str) -> None:
    assert email_of(value) == value.strip()


@pytest.mark.parametrize("value", ["ada", "ada@", "@x.y", "a b@x.y", "a@b@c", "a@x.y, b@x.y", f"{'x' * 320}@x.y"])
def test_what_is_no_address_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="is not an e-mail address"):
        email_of(value)


@pytest.mark.parametrize(
    ("value", "ms"),
    [
        ("2026-05-01T18:00:00Z", 1777658400000),
        ("2026-05-01T20:00:00.250+02:00", 1777658400250),
        ("2026-05-01T18:00:00", 1777658400000),
        ("2026-05-01", 1777593600000),
        ("20260501", 1777593600000),
        (1777658400, 1777658400000),
        ("1777658400", 1777658400000),
        (1777658400250, 1777658400250),
        (1777658400.25, 1777658400250),
        ("", None),
        (None, None),
    ],
)
def test_a_moment_is_iso_or_epoch_seconds_or_milliseconds(value: object, ms: int | None) -> None:
    assert moment_of(value) == ms


@pytest.mark.parametrize("value", ["last spring", "2026-13-01", 5, True, "999999999999999", [1]])
def test_what_is_no_moment_is_refused(value: object) -> None:
    with pytest.raises(ValueError):
        moment_of(value)


def test_the_rest_of_a_row_is_kept_without_what_is_known_or_absent() -> None:
    row = {"id": 1, "city": "Oslo", "gone": None, "deep": {"a": [1, "x\0y"]}}
    assert json.loads(extra_of(row, frozenset(("id",)))) == {"city": "Oslo", "deep": {"a": [1, "xy"]}}
    assert extra_of({"id": 1, "gone": None}, frozenset(("id",))) == "{}"


def test_a_rest_that_is_too_large_is_dropped_as_a_whole() -> None:
    assert len(extra_of({"a": "x" * (EXTRA_MOST - 20)}, NOTHING)) <= EXTRA_MOST
    assert json.loads(extra_of({"a": "x" * EXTRA_MOST}, NOTHING)) == {"dropped": "too large"}


@given(st.dictionaries(st.text(max_size=5), WORLD, max_size=4))
def test_any_rest_is_an_object_that_a_row_can_hold(row: dict[str, object]) -> None:
    text = extra_of(row, NOTHING)
    assert storable(text)
    assert "\\u0000" not in text.replace("\\\\", "")
    assert isinstance(json.loads(text), dict)


@given(WORLD)
def test_any_value_is_read_or_refused(value: object) -> None:
    for read in (text_of, email_of, moment_of):
        try:
            found = read(value)
        except ValueError:
            continue
        assert found is None or not isinstance(found, str) or storable(found)


def test_a_page_of_refused_rows_is_not_empty() -> None:
    assert Page((), None, False).empty
    assert not Page((), None, True, rejected=(BadRow(0, None, "x"),)).empty
    assert not Page((Member("1"),), None, False).empty


def test_a_refused_credential_is_a_source_that_cannot_be_used() -> None:
    assert issubclass(AuthFailed, Unusable)
