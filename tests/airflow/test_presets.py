"""The presets, each in a job that runs from the query to the results table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pydantic import BaseModel

from airflow_provider_batch.presets import classify, embed, extract, summarize, translate
from tests.airflow.jobs import query, run_dag

TEXT = "{{ row.body }}"
LABELS = {"billing": "Invoices and payments", "login": "Access to an account"}


class Report(BaseModel):
    subject: str
    amount: float | None = None
    tags: list[str] = []


def run_preset(arguments: dict[str, Any], **others: Any) -> None:
    """Run a job with the arguments of a preset on the table `tickets`, and check that every row succeeded."""
    from airflow.sdk import DAG

    from airflow_provider_batch.task_groups import batch_job

    with DAG(f"preset_{uuid4().hex[:8]}", schedule=None) as dag:
        batch_job(
            sql="SELECT id, body FROM tickets ORDER BY id",
            custom_id="{{ row.id }}",
            table="answers",
            **arguments,
            **others,
        )
    result = run_dag(dag)
    assert result.return_values["batch_job.land"]["outcomes"] == {"succeeded": 5}


def test_a_classification_lands_one_label_per_row(warehouse: Path) -> None:
    run_preset(classify(TEXT, labels=LABELS))
    assert query(warehouse, "SELECT DISTINCT label FROM answers") == [("billing",)]


def test_a_classification_with_several_labels_lands_lists(warehouse: Path) -> None:
    run_preset(classify(TEXT, labels=LABELS, multi=True, column="topics"))
    assert query(warehouse, "SELECT DISTINCT topics FROM answers") == [('["billing"]',)]


def test_an_extraction_lands_one_column_per_field(warehouse: Path) -> None:
    run_preset(extract(TEXT, Report))
    ((subject, amount, tags),) = query(warehouse, "SELECT DISTINCT subject, amount, tags FROM answers")
    assert "The invoice is wrong" in subject
    assert isinstance(amount, float)
    assert isinstance(json.loads(tags), list)


def test_an_extraction_of_names_lands_texts(warehouse: Path) -> None:
    run_preset(extract({"product": "Which product is it about?", "city": None}), prompt=TEXT)
    assert len(query(warehouse, "SELECT product, city FROM answers WHERE product IS NOT NULL")) == 5


@pytest.mark.parametrize(
    ("arguments", "column"), [(translate(TEXT, to="German"), "translation"), (summarize(TEXT, max_words=10), "summary")]
)
def test_a_translation_and_a_summary_land_in_a_column_of_text(
    warehouse: Path, arguments: dict[str, Any], column: str
) -> None:
    run_preset(arguments)
    (row,) = query(warehouse, f"SELECT DISTINCT {column} FROM answers")
    assert "The invoice is wrong" in row[0]


def test_an_embedding_lands_a_vector(warehouse: Path) -> None:
    run_preset(embed(TEXT, dimensions=8))
    assert {len(json.loads(vector)) for (vector,) in query(warehouse, "SELECT output FROM answers")} == {8}


def test_a_preset_works_with_the_responses_api(warehouse: Path) -> None:
    run_preset({**classify(TEXT, labels=LABELS, other="other"), "endpoint": "/v1/responses"})
    assert query(warehouse, "SELECT DISTINCT label FROM answers") == [("billing",)]


def test_a_preset_works_with_the_operators(warehouse: Path) -> None:
    from airflow.sdk import DAG

    from airflow_provider_batch.operators.batch import BatchResultsOperator, BatchSubmitOperator
    from airflow_provider_batch.sensors.batch import BatchSensor

    arguments = classify(TEXT, labels=LABELS)
    columns = arguments.pop("columns")
    with DAG(f"preset_{uuid4().hex[:8]}", schedule=None) as dag:
        submit = BatchSubmitOperator(
            task_id="submit", sql="SELECT id, body FROM tickets", custom_id="{{ row.id }}", **arguments
        )
        wait = BatchSensor(task_id="wait", job=submit.output)
        land = BatchResultsOperator(task_id="land", job=submit.output, table="answers", columns=columns)
        submit >> wait >> land
    assert run_dag(dag).state == "success"
    assert query(warehouse, "SELECT DISTINCT label FROM answers") == [("billing",)]


def test_a_preset_without_a_text_or_a_prompt_is_refused_while_the_dag_is_parsed(warehouse: Path) -> None:
    from airflow_provider_batch.exceptions import InputError

    with pytest.raises(InputError, match="prompt"):
        run_preset(classify(labels=LABELS))
