"""Simulate a few nights through operators and tables. `python -m benchmarks.eval_nights` simulates hundreds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.eval_nights.nights import simulate
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


def test_the_operators_give_the_same_results_as_the_simulation_without_a_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_EVAL_NIGHTS", "")  # the simulation sets it; monkeypatch restores it
    agreement = simulate_with_operators(tmp_path, Scenario("", STEADY, runs=3), nights=1, seed=7, alpha=0.04)
    assert (agreement.equal, agreement.comparisons) == (2, 2)
    assert agreement.detections == 1
