"""Simulate a few nights through operators and tables. `python -m benchmarks.eval_nights` simulates hundreds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.eval_nights import BROKEN, simulate

if TYPE_CHECKING:
    import pytest


def test_the_gate_finds_a_regression_of_five_points_and_names_its_cases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_EVAL_NIGHTS", "")  # the simulation sets it; monkeypatch restores it
    nights = simulate(tmp_path, nights=6, flips=0.05, repeats=1, baselines=10, seed=7)
    assert nights.quiet.stopped == 0
    assert (nights.one_tag.nights, nights.spread.nights) == (6, 6)
    assert nights.one_tag.stopped + nights.spread.stopped >= 11
    for kind in (nights.one_tag, nights.spread):
        assert kind.all_cases.broken_count == kind.stopped * BROKEN
        assert kind.all_cases.hits >= 0.95 * kind.all_cases.broken_count  # the gate names nearly all broken cases
        assert kind.first_cases.hits >= 0.8 * kind.first_cases.named_count  # and puts them first
