"""Simulate a few nights through operators and tables. `python -m benchmarks.eval_nights` simulates hundreds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.eval_nights.models import Nights
from benchmarks.eval_nights.nights import Judges, flipped_before, simulate
from benchmarks.eval_nights.operators import simulate_with_operators
from benchmarks.eval_nights.scenarios import STEADY, Scenario

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_the_gate_finds_a_regression_of_five_points_and_names_its_cases() -> None:
    counts = simulate(Scenario("", STEADY), nights=8, seed=7, alpha=0.04)
    assert counts.detections == 8
    assert counts.named_first >= 0.8 * counts.broken


def test_the_gate_finds_cases_that_broke_while_as_many_were_fixed() -> None:
    assert simulate(Scenario("", STEADY, fixed=20), nights=8, seed=7, alpha=0.04).detections >= 7


def test_the_gate_finds_and_names_a_small_tag_of_which_half_broke() -> None:
    counts = simulate(Scenario("", STEADY, broken=10, in_small_tag=True), nights=8, seed=7, alpha=0.04)
    assert (counts.detections, counts.tags_named) == (8, 8)


def test_a_text_that_is_not_new_keeps_its_verdict_and_three_judges_err_less_than_one() -> None:
    def verdicts(**options: Any) -> Nights:
        scenario = Scenario("", STEADY, judge_errors=0.1, **options)
        return Judges(scenario, shape, np.random.default_rng(7)).verdicts(np.ones(shape, dtype=bool))

    shape = (10, 1, 400)
    reused = verdicts(new_texts=0)
    assert (reused == reused[0]).all()
    assert 0.85 < reused.mean() < 0.95
    assert 0.96 < verdicts(judges=3).mean() < 0.98  # two of three judges err in 2.8 %


def test_cases_are_sent_again_on_the_nights_after_they_flipped() -> None:
    nights = np.array([[[True, True], [True, True]], [[False, True], [False, True]], [[True, True], [True, False]]])
    assert flipped_before(nights).tolist() == [
        [[True, True], [False, False]],
        [[True, True], [False, False]],
        [[True, True], [True, False]],
    ]


def test_the_operators_give_the_same_results_as_the_simulation_without_a_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_EVAL_NIGHTS", "")  # the simulation sets it; monkeypatch restores it
    agreement = simulate_with_operators(tmp_path, Scenario("", STEADY, runs=3), nights=1, seed=7, alpha=0.04)
    assert (agreement.equal, agreement.comparisons) == (2, 2)
    assert agreement.detections == 1
