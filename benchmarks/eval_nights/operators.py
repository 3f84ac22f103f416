"""Send simulated nights through the operators and a SQLite database, and check that the fast path agrees."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from airflow_provider_batch.evals.compare import AnswerScore, Baseline, compare
from benchmarks.eval_nights.nights import Night
from benchmarks.eval_nights.scenarios import Scenario, tag_of

MODEL = "model-0"
START = datetime(2026, 1, 1, 2, tzinfo=UTC)


@dataclass
class Agreement:
    """How often the operators and the fast path gave the same result."""

    comparisons: int = 0
    equal: int = 0
    #: quiet nights and nights with broken cases on which the gate stopped
    false_alarms: int = 0
    detections: int = 0


def simulate_with_operators(folder: Path, scenario: Scenario, nights: int, seed: int, alpha: float) -> Agreement:
    """Simulate a history for each night, then the night itself, quiet and with broken cases."""
    agreement = Agreement()
    for number in range(nights):
        night = Night(scenario, np.random.default_rng([seed, number]), alpha)
        warehouse = Warehouse(folder / f"night-{number}.sqlite", scenario.cases)
        scores, baselines = night.scores(broken=False)
        history = list(reversed(baselines[MODEL].runs))
        for day, answers in enumerate(history):
            warehouse.grade(f"run-{day:02}", day, answers, alpha)
            warehouse.accept(f"run-{day:02}")
        broken_scores, _ = night.scores(broken=True)
        for run, answers in (("quiet", scores[MODEL]), ("broken", broken_scores[MODEL])):
            result = warehouse.grade(run, len(history), answers, alpha)
            # The operators stop the history at a run that differs from those before.
            runs = history[::-1][: result["baseline_runs"]]
            fast, *_ = compare({MODEL: answers}, {MODEL: Baseline("last", runs)}, alpha=alpha)
            agreement.comparisons += 1
            agreement.equal += (result["p_worse"], result["p_better"], result["verdict"]) == (
                fast.p_worse,
                fast.p_better,
                fast.verdict.value,
            )
            stopped = not warehouse.gate_passes(run)
            agreement.false_alarms += stopped and run == "quiet"
            agreement.detections += stopped and run == "broken"
    return agreement


class Warehouse:
    """A SQLite database with cases and answers, as `BatchResultsOperator` writes them."""

    def __init__(self, path: Path, cases: int) -> None:
        from airflow_provider_batch.core.schema.columns import Column, ColumnType
        from airflow_provider_batch.warehouse.connect import sql_hook
        from airflow_provider_batch.warehouse.sinks.open import open_sink

        self._path = path
        os.environ["AIRFLOW_CONN_EVAL_NIGHTS"] = json.dumps({"conn_type": "sqlite", "host": str(path)})
        text, integer = ColumnType.TEXT, ColumnType.INTEGER
        columns = (
            *(Column(name, text, key=True) for name in ("run", "variant", "custom_id")),
            *(Column(name, text) for name in ("outcome", "output", "case_id")),
            *(Column(name, integer) for name in ("repeat", "input_tokens", "output_tokens")),
            Column("cost_usd", ColumnType.NUMERIC),
            Column("sealed_at", ColumnType.TIMESTAMP),
        )
        self._sink = open_sink(sql_hook("eval_nights"), "eval_answers", columns)
        self._sink.prepare()
        names = [f"case-{number:04}" for number in range(cases)]
        rows = [(name, f"What is {name}?", "right", "exact", tag_of(number)) for number, name in enumerate(names)]
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(
                "CREATE TABLE eval_cases (case_id TEXT, input TEXT, expected TEXT, grader TEXT, tags TEXT)"
            )
            connection.executemany("INSERT INTO eval_cases VALUES (?, ?, ?, ?, ?)", rows)

    def grade(self, run: str, day: int, answers: Sequence[AnswerScore], alpha: float) -> dict[str, Any]:
        """Land the answers of a night, grade them, and return the result of the model."""
        from airflow_provider_batch.operators.evals import EvalGradeOperator

        # The quiet night and that with broken cases are both sealed after the last accepted night.
        sealed_at = START + timedelta(days=day)
        self._sink.write(
            (
                run,
                MODEL,
                answer.case_id,
                "succeeded",
                "right" if answer.score else "wrong",
                answer.case_id,
                1,
                0,
                0,
                None,
                sealed_at,
            )
            for answer in answers
        )
        grade = EvalGradeOperator(task_id="grade", run=run, alpha=alpha, warehouse_conn_id="eval_nights")
        result: dict[str, Any] = grade.execute({})["variants"][MODEL]
        return result

    def accept(self, run: str) -> None:
        """Accept a run, as the task after the gate does."""
        from airflow_provider_batch.operators.evals import EvalAcceptOperator

        EvalAcceptOperator(task_id="accept", run=run, warehouse_conn_id="eval_nights").execute({})

    def gate_passes(self, run: str) -> bool:
        """Return whether the gate passes."""
        from airflow_provider_batch.evals.tables import gate_sql

        with closing(sqlite3.connect(self._path)) as connection:
            return all(connection.execute(gate_sql(run)).fetchone())
