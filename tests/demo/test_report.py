"""What the demo says of the rows that landed."""

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
from airflow_provider_batch.demo.report import Landed

RIGHT = Landed(
    "T-1", "Refund", "succeeded", "billing", "low", "billing", "high", "gpt-5-mini", 1_000_000, 0, 100_000, 0.225, None
)
WRONG = replace(RIGHT, custom_id="T-2", category="bug", urgency="high")
REFUSED = replace(RIGHT, custom_id="T-3", outcome="refused", category=None, urgency=None, error_code="refusal")


def shown(rows: list[Landed], *, live: bool = False) -> str:
    output = io.StringIO()
    report.show(Console(file=output, width=120), rows, model="gpt-5-mini", live=live)
    return output.getvalue()


def warehouse_with(path: Path, landed: Iterable[Landed], asked: int) -> Path:
    tickets.seed(path, tickets.load()[:asked])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "CREATE TABLE ticket_labels (custom_id, outcome, category, urgency, gold_category, gold_urgency, model, "
            "input_tokens, cached_tokens, output_tokens, cost_usd, error_code, run_id)"
        )
        for row in landed:
            values = (row.custom_id, *astuple(row)[2:])
            connection.execute(f"INSERT INTO ticket_labels VALUES ({', '.join('?' * 13)})", (*values, "run-1"))
    return path


def test_rows_of_other_runs_are_not_counted(tmp_path: Path) -> None:
    path = warehouse_with(tmp_path / "w.sqlite", [RIGHT, WRONG], asked=2)
    assert [row.custom_id for row in report.landed(path, "run-1")] == ["T-1", "T-2"]
    with pytest.raises(DemoError, match="2 tickets were asked about, but 0 rows of run run-2"):
        report.landed(path, "run-2")


def test_a_missing_row_is_an_error(tmp_path: Path) -> None:
    path = warehouse_with(tmp_path / "w.sqlite", [RIGHT], asked=2)
    with pytest.raises(DemoError, match="2 tickets were asked about, but 1 rows"):
        report.landed(path, "run-1")


def test_the_standard_price_is_that_of_the_list() -> None:
    assert report.standard_price([RIGHT], "gpt-5-mini") == Decimal("0.45")
    assert report.standard_price([RIGHT], "a-model-nobody-sells") is None


def test_what_batch_saved_is_the_difference_to_the_standard_price() -> None:
    text = shown([RIGHT])
    assert "$0.2250" in text
    assert "$0.4500" in text
    assert "(50%)" in text


def test_offline_it_says_that_nothing_was_billed() -> None:
    assert "Nothing was billed" in shown([RIGHT])
    assert "Nothing was billed" not in shown([RIGHT], live=True)


def test_accuracy_counts_succeeded_rows_with_a_gold_label_only() -> None:
    text = shown([RIGHT, WRONG, REFUSED, replace(RIGHT, custom_id="T-4", gold_category=None)])
    (billing,) = [line for line in text.splitlines() if line.startswith("│ billing")]
    assert [cell.strip() for cell in billing.split("│")[1:-1]] == ["billing", "2", "1", "50%", "bug (1)"]


def test_each_outcome_is_counted_with_its_error_codes() -> None:
    (refused,) = [line for line in shown([RIGHT, REFUSED]).splitlines() if line.startswith("│ refused") and "1" in line]
    assert [cell.strip() for cell in refused.split("│")[1:-1]] == ["refused", "1", "refusal"]


def test_examples_show_every_outcome() -> None:
    rows = [replace(RIGHT, custom_id=f"T-{number:03}") for number in range(100)] + [REFUSED]
    chosen = report.examples(rows, 10)
    assert len(chosen) == 10
    assert {row.outcome for row in chosen} == {"succeeded", "refused"}


@pytest.mark.parametrize("rows", [[], [REFUSED]])
def test_there_may_be_nothing_to_compare(rows: list[Landed]) -> None:
    assert "No answer can be compared" in shown(rows)


def test_a_title_cannot_control_the_terminal() -> None:
    text = shown([replace(RIGHT, title="\x1b[31mred [bold]\u202e\nnext")])
    assert "\x1b[31m" not in text
    assert "[bold]" in text
    assert "\u202e" not in text
