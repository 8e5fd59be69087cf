"""The frame of the benches: what holds, what is stretched, what an error costs, and in which order things are measured."""

import math
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import orjson
import pytest

from tests.bench import report
from tests.bench.suite import Context, Judged, Row, Run, Suite, judge, measure

pytestmark = pytest.mark.pure


def row(value: float, **more: object) -> Row:
    return Row("a", "some work", value, "s", **more)  # type: ignore[arg-type]


def suite() -> tuple[Suite, list[Judged]]:
    shown: list[Judged] = []
    return Suite(Context(Path("build")), lambda: 1.0, shown.append), shown


def test_a_row_holds_at_its_bar_and_reaches_its_goal_at_its_goal():
    assert [judge(row(v, bar=2, goal=1), 1).holds for v in (1.0, 2.0, 2.1)] == [True, True, False]
    assert [judge(row(v, bar=2, goal=1), 1).reached for v in (1.0, 1.1, 2.1)] == [True, False, False]


def test_where_more_is_better_the_bar_is_the_least_allowed():
    assert [judge(row(v, bar=10, goal=20, more=True), 1).holds for v in (9.9, 10, 20)] == [False, True, True]
    assert [judge(row(v, bar=10, goal=20, more=True), 1).reached for v in (9.9, 10, 20)] == [False, False, True]


def test_a_row_without_a_bar_always_holds():
    assert judge(row(1e9), 1).holds


def test_a_slower_machine_stretches_bars_of_time_and_nothing_else():
    assert judge(row(3.0, bar=2, goal=1, machine=True), 1.5).allowed == 3.0
    assert judge(row(3.0, bar=30, goal=60, machine=True, more=True), 1.5).allowed == 20.0
    assert judge(row(3.0, bar=2), 1.5).allowed == 2


def test_a_faster_machine_tightens_no_bar():
    assert judge(row(3.0, bar=2, machine=True), 0.5).allowed == 2


def test_a_small_world_is_not_judged_but_its_errors_are():
    assert judge(row(9.0, bar=1), 1, small=True).holds
    assert not judge(row(9.0, bar=1, error="broke"), 1, small=True).holds


def test_a_value_that_is_not_a_number_never_holds_a_bar():
    assert not judge(row(math.nan, bar=1), 1).holds
    assert not judge(row(math.nan, bar=1, more=True), 1).holds


def test_an_error_keeps_the_rows_before_it_and_the_benches_after_it_and_fails_the_run():
    made, shown = suite()

    def breaks(context: Context) -> Iterator[Row]:
        yield row(1.0)
        raise ValueError("no such thing")

    def works(context: Context) -> Iterator[Row]:
        yield row(2.0)

    made.run(breaks)
    made.run(works)
    assert [j.row.value for j in shown if not j.row.error] == [1.0, 2.0]
    assert "no such thing" in shown[1].row.error
    assert made.exit_code == 1


def test_the_run_succeeds_when_every_row_holds():
    made, _ = suite()
    made.add(row(1.0, bar=2))
    assert made.exit_code == 0
    made.add(row(3.0, bar=2))
    assert made.exit_code == 1


def test_ways_are_measured_in_turns_each_after_its_preparation_and_one_round_does_not_count():
    done: list[str] = []
    ticks = count()
    ways = {
        "a": Run(lambda: done.append("a"), before=lambda: done.append("before a")),
        "b": Run(lambda: done.append("b")),
    }
    times = measure(ways, 3, clock=lambda: float(next(ticks)))
    assert done == ["before a", "a", "b", "b", "before a", "a", "before a", "a", "b", "b", "before a", "a"]
    assert times["a"].rounds == (1.0, 1.0, 1.0)


def test_a_run_that_does_a_part_stands_for_the_whole():
    ticks = count()
    times = measure({"tenth": Run(lambda: None, share=0.1)}, 1, clock=lambda: float(next(ticks)))
    assert times["tenth"].seconds == pytest.approx(10.0)


def test_a_ratio_is_that_of_the_runs_that_stood_side_by_side():
    spent = iter([0, 1, 0, 1, 0, 3, 0, 1, 0, 4, 0, 4, 0, 30, 0, 10])
    times = measure({"a": lambda: None, "b": lambda: None}, 3, clock=lambda: float(next(spent)))
    assert times["a"].rounds == (1.0, 4.0, 10.0)
    assert times["b"].rounds == (3.0, 4.0, 30.0)
    assert times["b"] / times["a"] == 3.0


def test_what_is_saved_is_a_list_of_objects_with_the_agreed_names(tmp_path: Path):
    report.save([judge(row(1.0, bar=2, goal=1), 1), judge(row(math.nan, error="broke"), 1)], tmp_path / "bench.json")
    good, bad = orjson.loads((tmp_path / "bench.json").read_bytes())
    assert {k: good[k] for k in ("name", "value", "unit", "bar", "goal", "holds")} == {
        **{"name": "a", "value": 1.0, "unit": "s"},
        **{"bar": 2, "goal": 1, "holds": True},
    }
    assert (bad["value"], bad["holds"], bad["error"]) == (None, False, "broke")


def test_figures_show_three_digits_that_matter():
    assert [report.figure(v) for v in (1234567.0, 12.345, 0.012345, 0.0, None)] == [
        *("1,234,567", "12.3", "0.0123", "0", ""),
    ]
    assert report.figure(1.5, "x") == "1.50 x"
