"""What the demo prints about the landed rows."""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import astuple, replace
from decimal import Decimal
from pathlib import Path

import pytest
from rich.console import Console

from airflow_provider_batch.demo import report, tickets
from airflow_provider_batch.demo.home import DemoError
from airflow_provider_batch.demo.report import LabelRow

RIGHT_ROW = LabelRow(
    "T-1", "Refund", "succeeded", "billing", "low", "billing", "high", "gpt-5-mini", 1_000_000, 0, 100_000, 0.225, None
)
WRONG_ROW = replace(RIGHT_ROW, custom_id="T-2", category="bug", urgency="high")
REFUSED_ROW = replace(RIGHT_ROW, custom_id="T-3", outcome="refused", category=None, urgency=None, error_code="refusal")


def render(rows: list[LabelRow], *, live: bool = False) -> str:
    output = io.StringIO()
    report.show(Console(file=output, width=120), rows, model="gpt-5-mini", live=live)
    return output.getvalue()


def create_warehouse(path: Path, rows: Iterable[LabelRow], ticket_count: int) -> Path:
    tickets.seed(path, tickets.load()[:ticket_count])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "CREATE TABLE ticket_labels (custom_id, outcome, category, urgency, gold_category, gold_urgency, model, "
            "input_tokens, cached_tokens, output_tokens, cost_usd, error_code, run_id)"
        )
        for row in rows:
            values = (row.custom_id, *astuple(row)[2:])
            connection.execute(f"INSERT INTO ticket_labels VALUES ({', '.join('?' * 13)})", (*values, "run-1"))
    return path


def test_rows_of_other_runs_are_not_counted(tmp_path: Path) -> None:
    path = create_warehouse(tmp_path / "w.sqlite", [RIGHT_ROW, WRONG_ROW], ticket_count=2)
    assert [row.custom_id for row in report.read_labels(path, "run-1")] == ["T-1", "T-2"]
    with pytest.raises(DemoError, match="has 0 rows for run run-2, but the DAG selects 2 tickets"):
        report.read_labels(path, "run-2")


def test_a_missing_row_is_an_error(tmp_path: Path) -> None:
    path = create_warehouse(tmp_path / "w.sqlite", [RIGHT_ROW], ticket_count=2)
    with pytest.raises(DemoError, match="has 1 row for run run-1, but the DAG selects 2 tickets"):
        report.read_labels(path, "run-1")


def test_the_standard_price_is_the_list_price() -> None:
    assert report.standard_price([RIGHT_ROW], "gpt-5-mini") == Decimal("0.45")
    assert report.standard_price([RIGHT_ROW], "a-model-nobody-sells") is None


def test_the_saving_is_the_difference_to_the_standard_price() -> None:
    text = render([RIGHT_ROW])
    assert "$0.225" in text
    assert "$0.45" in text
    assert "(50%)" in text


def test_only_the_offline_demo_says_that_nothing_was_billed() -> None:
    assert "Nothing was billed" in render([RIGHT_ROW])
    assert "Nothing was billed" not in render([RIGHT_ROW], live=True)


def test_accuracy_counts_only_succeeded_rows_with_a_gold_label() -> None:
    text = render([RIGHT_ROW, WRONG_ROW, REFUSED_ROW, replace(RIGHT_ROW, custom_id="T-4", gold_category=None)])
    (billing,) = [line for line in text.splitlines() if line.startswith("│ billing")]
    assert [cell.strip() for cell in billing.split("│")[1:-1]] == ["billing", "2", "1", "50%", "bug (1)"]


def test_each_outcome_is_counted_with_its_error_codes() -> None:
    (refused_line,) = [
        line for line in render([RIGHT_ROW, REFUSED_ROW]).splitlines() if line.startswith("│ refused") and "1" in line
    ]
    assert [cell.strip() for cell in refused_line.split("│")[1:-1]] == ["refused", "1", "refusal"]


def test_examples_include_every_outcome() -> None:
    rows = [replace(RIGHT_ROW, custom_id=f"T-{number:03}") for number in range(100)] + [REFUSED_ROW]
    sample = report.examples(rows, 10)
    assert len(sample) == 10
    assert {row.outcome for row in sample} == {"succeeded", "refused"}


@pytest.mark.parametrize("rows", [[], [REFUSED_ROW]])
def test_the_report_works_without_comparable_rows(rows: list[LabelRow]) -> None:
    assert "no answer to compare" in render(rows)


def test_a_title_cannot_send_control_sequences_to_the_terminal() -> None:
    text = render([replace(RIGHT_ROW, title="\x1b[31mred [bold]\u202e\nnext")])
    assert "\x1b[31m" not in text
    assert "[bold]" in text
    assert "\u202e" not in text
