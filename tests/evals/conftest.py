"""A warehouse in each dialect that evals are tested with, filled with answers as a landing would write them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.operators.evals import EvalAcceptOperator, EvalGradeOperator
from airflow_provider_batch.warehouse.sinks.open import open_sink
from tests.warehouse.conftest import (
    Warehouse,
    duckdb_warehouse,
    postgres_warehouse,
    sqlite_warehouse,
)

START = datetime(2026, 1, 1, 2, tzinfo=UTC)

ANSWERS = (
    Column("run", ColumnType.TEXT, key=True),
    Column("variant", ColumnType.TEXT, key=True),
    Column("custom_id", ColumnType.TEXT, key=True),
    Column("outcome", ColumnType.TEXT),
    Column("output", ColumnType.TEXT),
    Column("model", ColumnType.TEXT),
    Column("input_tokens", ColumnType.INTEGER),
    Column("output_tokens", ColumnType.INTEGER),
    Column("cost_usd", ColumnType.NUMERIC),
    Column("sealed_at", ColumnType.TIMESTAMP),
    Column("case_id", ColumnType.TEXT),
    Column("repeat", ColumnType.INTEGER),
)
JUDGEMENTS = (
    *ANSWERS,
    Column("verdict", ColumnType.TEXT),
    Column("score", ColumnType.FLOAT),
    Column("reason", ColumnType.TEXT),
)


class Evals:
    """A warehouse with the tables of evals, and the operators that use it."""

    def __init__(self, warehouse: Warehouse) -> None:
        self.warehouse = warehouse
        #: Runs in the order of their first landing: each is sealed a day after the one before.
        self._runs: list[str] = []

    def cases(self, *cases: Sequence[str | None]) -> None:
        """Replace the table `eval_cases`. Each case is case_id, expected, grader, tags and optionally the input."""
        execute = self.warehouse.execute
        execute("DROP TABLE IF EXISTS eval_cases")
        execute("CREATE TABLE eval_cases (case_id text, input text, expected text, grader text, tags text)")
        for case_id, expected, grader, tags, *question in cases:
            values = (case_id, question[0] if question else f"What is {case_id}?", expected, grader, tags)
            literals = ", ".join("NULL" if value is None else "'" + value.replace("'", "''") + "'" for value in values)
            execute(f"INSERT INTO eval_cases VALUES ({literals})")

    def land(
        self,
        run: str,
        variant: str,
        answers: Iterable[tuple[Any, ...]],
        table: str = "eval_answers",
        *,
        sealed_now: bool = False,
        suffix: str = "",
    ) -> None:
        """Land answers, each with case_id, output and optionally outcome and repeat.

        :param sealed_now: set the sealing time of the job to the current time, as after a clear.
        :param suffix: end of each custom_id.
        """
        is_judgement = table == "eval_judgements"
        if run not in self._runs:
            self._runs.append(run)
        sealed_at = datetime.now(UTC) if sealed_now else START + timedelta(days=self._runs.index(run))
        sink = open_sink(self.warehouse.hook, table, JUDGEMENTS if is_judgement else ANSWERS)
        sink.prepare()
        sink.write(self._row(run, variant, sealed_at, is_judgement, suffix, *answer) for answer in answers)

    def _row(
        self,
        run: str,
        variant: str,
        sealed_at: datetime,
        is_judgement: bool,
        suffix: str,
        case_id: str,
        output: str | None,
        outcome: str = "succeeded",
        repeat: int = 1,
    ) -> tuple[Any, ...]:
        custom_id = case_id if repeat == 1 else f"{case_id}~{repeat}"
        cost = Decimal("0.001") if outcome == "succeeded" else None
        row = (run, variant, custom_id + suffix, outcome, output, variant, 10, 5, cost, sealed_at, case_id, repeat)
        return (*row, output, None, "because") if is_judgement else row

    def grade(self, run: str, **options: Any) -> dict[str, Any]:
        """Grade a run and return the operator's result."""
        result: dict[str, Any] = EvalGradeOperator(task_id="grade", run=run, **options).execute({})
        return result

    def accept(self, run: str, **options: Any) -> list[str]:
        """Accept a run and return the accepted variants."""
        return EvalAcceptOperator(task_id="accept", run=run, **options).execute({})

    def table(self, name: str, columns: str = "*", order: str = "1, 2, 3") -> list[tuple[Any, ...]]:
        """Return rows of a table, in order."""
        return [tuple(row) for row in self.warehouse.execute(f"SELECT {columns} FROM {name} ORDER BY {order}")]


@pytest.fixture
def evals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Evals:
    """Return evals in an empty SQLite database."""
    return Evals(sqlite_warehouse(tmp_path / "warehouse.db", monkeypatch))


@pytest.fixture(params=("sqlite", "duckdb", "psycopg", "psycopg2"))
def evals_anywhere(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Evals]:
    """Yield evals in an empty database, once per dialect."""
    if request.param == "sqlite":
        yield Evals(sqlite_warehouse(tmp_path / "warehouse.db", monkeypatch))
    elif request.param == "duckdb":
        yield Evals(duckdb_warehouse(tmp_path / "warehouse.duckdb", monkeypatch))
    else:
        yield Evals(postgres_warehouse(request.param, request.getfixturevalue("postgres_database"), monkeypatch))
