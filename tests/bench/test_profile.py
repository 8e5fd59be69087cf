"""The stopwatch of the profile: nested stages count their own time, and wrapped functions are put back."""

import sys
from itertools import count
from types import ModuleType

import pytest

from tests.bench import stopwatch
from tests.bench.stopwatch import Stopwatch, wrapped

pytestmark = pytest.mark.pure


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module with an inner and an outer function, and another that imported one of them by name."""
    made, other = ModuleType("toy.one"), ModuleType("toy.two")
    exec("def inner():\n    return 1\n\ndef outer():\n    return inner() + inner()\n", made.__dict__)  # noqa: S102
    other.inner = made.inner  # type: ignore[attr-defined]
    for module in (made, other):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(stopwatch, "PACKAGE", "toy.")
    return made


def test_a_stage_counts_its_own_time_without_that_of_stages_below_it(engine: ModuleType):
    ticks = count()
    watch = Stopwatch(clock=lambda: next(ticks))
    with wrapped(watch, {"low": ("one:inner",), "high": ("one:outer",)}) as missing:
        assert engine.outer() == 2
    assert missing == []
    assert dict(watch.own) == {"low": 2, "high": 3}
    assert dict(watch.calls) == {"low": 2, "high": 1}


def test_what_wrapping_costs_is_taken_off_inside_and_in_the_caller(engine: ModuleType):
    ticks = count(step=10)
    watch = Stopwatch(clock=lambda: next(ticks), inside=4, outside=3)
    with wrapped(watch, {"low": ("one:inner",), "high": ("one:outer",)}):
        engine.outer()
    assert dict(watch.own) == {"low": 2 * (10 - 4), "high": 50 - 2 * (10 + 3) - 4}


def test_a_function_is_timed_wherever_it_was_imported_to_and_put_back_afterwards(engine: ModuleType):
    watch, before = Stopwatch(), engine.inner
    with wrapped(watch, {"low": ("one:inner",)}):
        sys.modules["toy.two"].inner()
        engine.inner()
    assert watch.calls["low"] == 2
    assert engine.inner is before
    assert sys.modules["toy.two"].inner is before


def test_a_function_that_does_not_exist_is_named(engine: ModuleType):
    with wrapped(Stopwatch(), {"low": ("one:gone", "three:inner", "one:inner.deeper")}) as missing:
        pass
    assert missing == ["one:gone", "three:inner", "one:inner.deeper"]


def test_an_error_goes_through_and_is_timed(engine: ModuleType):
    watch = Stopwatch()
    with wrapped(watch, {"low": ("one:inner",)}), pytest.raises(TypeError):
        engine.inner(1)
    assert watch.calls["low"] == 1
