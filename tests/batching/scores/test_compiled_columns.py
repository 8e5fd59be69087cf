"""Columns, compiled questions and the kernel together equal the oracle, after any history of changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.batching.scores import kernel
from server.batching.scores.columns import Columns
from server.batching.scores.predicates import Compiler
from server.batching.scores.ranking import Rules, rank
from server.batching.scores.score import HOUR_MS, Weights, chord2_of_km
from tests.batching.scores.test_ranking import NOW, WINDOW, as_event, as_question, event, questions
from tests.oracle import view as oracle

pytestmark = pytest.mark.pure
WEIGHTS = np.array([0.25, 0.20, 0.30, 0.15, 0.10])
MOMENT = (WEIGHTS, WINDOW.past_ms, WINDOW.ahead_ms)
EVENTS = st.integers(0, 19).flatmap(lambda i: event(f"e{i:02d}"))
STEP = st.one_of(
    st.tuples(st.just("put"), EVENTS),
    st.tuples(st.just("put"), EVENTS),
    st.tuples(st.just("remove"), st.integers(0, 19).map("e{:02d}".format)),
    st.sampled_from([("merge",), ("forget",), ("ask", 0.0), ("ask", 5.0), ("ask", 30.0)]),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(STEP, max_size=40), st.lists(questions(), min_size=1, max_size=3), st.sampled_from([0.0, 0.5, 200.0]))
def test_the_kernel_over_columns_equals_the_oracle(
    steps: list[tuple[Any, ...]], asked: list[dict[str, Any]], spacing: float
) -> None:
    columns, world, now = Columns(), dict[str, dict[str, Any]](), NOW
    compiler = Compiler(columns)
    for version, (kind, *rest) in enumerate([*steps, ("ask", 0.0)]):
        if kind == "put":
            world[rest[0]["id"]] = rest[0]
            columns.put(replace(as_event(rest[0]), version=version + 1), now)
        elif kind == "remove":
            world.pop(rest[0], None)
            columns.remove(rest[0])
        elif kind == "merge":
            columns.merge()
        elif kind == "forget":
            columns.forget(np.empty(0, np.int32))
        else:
            now += round(rest[0] * HOUR_MS)
            columns.refresh(now)
            check(columns, compiler, list(world.values()), asked, spacing, now)


def check(
    columns: Columns,
    compiler: Compiler,
    world: list[dict[str, Any]],
    asked: list[dict[str, Any]],
    spacing: float,
    now: int,
) -> None:
    compiled = compiler.questions([as_question(one) for one in asked])
    near = chord2_of_km(spacing)
    ranked = kernel.rank(columns.world, *compiled, now, *MOMENT, near, False)
    for number, one in enumerate(asked):
        expected = oracle.view(world, one, now, spacing)
        part = slice(*ranked.first[number : number + 2])
        slots = columns.world.slot[ranked.row[part]]
        assert [columns.id_of(slot) for slot in slots] == [e["id"] for e, _ in expected]
        assert ranked.score[part].tolist() == pytest.approx([score for _, score in expected], abs=1e-9)
        assert ranked.candidates[number] == len(oracle.candidates(world, one, now))
        plain = rank(columns, as_question(one), Rules(Weights(), WINDOW, spacing), now)
        assert plain.slots.tolist() == slots.tolist()
        assert plain.raws.tolist() == ranked.raw[part].tolist()
