"""The DAG batch_on_demand: what it sends for the values of its form, what it rejects, and what that costs.

test_batch_on_demand_approval.py tests the approval. It needs a full Airflow, because `dag.test()` cannot respond to it.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batch.core.requests.endpoints import ENDPOINTS
from airflow_provider_batch.demo import tickets
from airflow_provider_batch.demo.home import dags_folder
from airflow_provider_batch.local.faults import Call, Fault, Kind
from airflow_provider_batch.local.process import LocalServer
from tests.airflow.dags.conftest import NO_CALLS, check_costs, page
from tests.airflow.dags.warehouses import KINDS, Warehouse
from tests.airflow.jobs import DagRunResult, query

DAG = "batch_on_demand"


def seed(path: Path) -> None:
    tickets.seed(path, tickets.load())


@pytest.fixture
def dag(airflow_home: Path) -> Any:
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(str(dags_folder() / f"{DAG}.py")).dags[DAG]


@pytest.fixture
def warehouse(tmp_path: Path, warehouse_of: Callable[..., Warehouse]) -> Path:
    """Return a SQLite file with the demo's tickets."""
    warehouse_of("sqlite", seed)
    return tmp_path / "warehouse.sqlite"


@pytest.fixture
def trigger(
    run_example: Callable[..., DagRunResult], count_calls: Callable[[], dict[str, int]]
) -> Callable[..., DagRunResult]:
    """Return a function that triggers the DAG with these changes to the form's defaults."""
    return lambda **form: run_example(DAG, **form)


@pytest.fixture
def submit_error(
    trigger: Callable[..., DagRunResult], count_calls: Callable[[], dict[str, int]], warehouse: Path
) -> Callable[..., str]:
    """Return a function that runs what submit must reject, checks that nothing changed, and returns the error."""

    def run(**form: Any) -> str:
        row_counts = count_rows(warehouse)
        result = trigger(**form)
        assert result.state == "failed"
        assert result.states.pop("batch_job.submit") == "failed"
        assert set(result.states.values()) == {"upstream_failed"}
        assert count_calls() == NO_CALLS
        assert count_rows(warehouse) == row_counts
        return result.error("batch_job.submit")

    return run


def count_rows(warehouse: Path) -> dict[str, int]:
    """Return the number of rows of each table."""
    names = query(warehouse, "SELECT name FROM sqlite_master WHERE type = 'table'")
    return {name: query(warehouse, f'SELECT count(*) FROM "{name}"')[0][0] for (name,) in names}


@pytest.mark.parametrize("kind", KINDS)
def test_the_defaults_of_the_form_label_the_first_tickets_without_an_approval(
    trigger: Callable[..., DagRunResult], warehouse_of: Callable[..., Warehouse], kind: str
) -> None:
    warehouse = warehouse_of(kind, seed)

    result = trigger()

    assert set(result.states.values()) == {"success"}
    rows = warehouse.execute("SELECT custom_id, outcome, output FROM on_demand_answers ORDER BY custom_id")
    assert [row[0] for row in rows] == [ticket.id for ticket in tickets.load() if ticket.title and ticket.body][:20]
    assert {row[1] for row in rows} == {"succeeded"}
    assert all("urgency" in str(row[2]) for row in rows)
    assert result.return_values["report"].startswith("Landed in on_demand_answers: 20 succeeded. The cost was $0.00")
    check_costs(DAG, result.return_values["batch_job.land"])


def test_preview_only_ends_the_run_before_anything_is_sent(
    trigger: Callable[..., DagRunResult], count_calls: Callable[[], dict[str, int]], warehouse: Path
) -> None:
    result = trigger(preview_only=True, approve_above_usd=0)

    assert result.states == {
        "batch_job.submit": "success",
        "batch_job.approve": "skipped",
        "batch_job.wait": "skipped",
        "batch_job.land": "skipped",
        "report": "success",
    }
    assert result.return_values["batch_job.submit"]["requests"] == 20
    assert result.return_values["report"] == "Preview only: nothing was sent, and nothing is billed."
    assert count_calls() == NO_CALLS
    assert set(count_rows(warehouse)) == {"tickets"}


def test_empty_fields_are_left_out(trigger: Callable[..., DagRunResult], warehouse: Path) -> None:
    result = trigger(
        system=None, output_schema=None, max_rows=None, max_cost_usd=None, sql="SELECT * FROM tickets LIMIT 3"
    )

    assert result.state == "success"
    assert query(warehouse, "SELECT outcome FROM on_demand_answers") == [("succeeded",)] * 3


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_every_endpoint_of_the_form_accepts_a_prompt_without_instructions_and_schema(dag: Any, endpoint: str) -> None:
    from airflow_provider_batch.operators.batch import BatchSubmitOperator

    schema = dag.params.get_param("endpoint").schema
    assert endpoint in schema["enum"]
    assert endpoint in schema["values_display"]
    BatchSubmitOperator(
        task_id="without_options",
        sql=dag.params["sql"],
        custom_id=dag.params["custom_id"],
        model=dag.params["model"],
        prompt=dag.params["prompt"],
        endpoint=endpoint,
        system="",
        output_schema={},
    )


def test_every_field_has_a_section_a_title_and_a_help_text(dag: Any) -> None:
    sections = []
    for name in dag.params:
        param = dag.params.get_param(name)
        assert param.schema["title"], name
        assert param.schema["description_md"], name
        sections.append(param.schema["section"])
    # Airflow opens the section with the first of these names.
    assert list(dict.fromkeys(sections)) == ["Run Parameters", "Request", "Answers", "Cost"]
    assert [name for name, _ in itertools.groupby(sections)] == list(dict.fromkeys(sections))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("table", "answers; DROP TABLE tickets"),
        ("table", 'an"swers'),
        ("table", "an'swers"),
        ("table", "`answers`"),
        ("table", "a.b.c.d"),
        ("table", ""),
        ("table", None),
        ("warehouse_conn_id", "postgres://user:secret@host/db"),
        ("warehouse_conn_id", ""),
        ("sql", ""),
        ("custom_id", "id"),
        ("max_rows", 0),
        ("max_rows", 1.5),
        ("max_rows", "many"),
        ("model", ""),
        ("model", "gpt-5 mini"),
        ("endpoint", "/v1/images/generations"),
        ("prompt", ""),
        ("output_schema", '{"type": "object"'),
        ("output_schema", ["label"]),
        ("max_cost_usd", -1),
        ("max_cost_usd", "a lot"),
        ("approve_above_usd", None),
        ("approve_above_usd", -0.01),
        ("preview_only", "no"),
    ],
)
def test_the_form_rejects_a_malformed_value_and_names_the_field(dag: Any, field: str, value: object) -> None:
    from airflow.sdk.exceptions import ParamValidationError

    with pytest.raises(ParamValidationError, match=field):
        dag.params[field] = value


def test_a_malformed_form_does_not_start_a_run(
    trigger: Callable[..., DagRunResult], count_calls: Callable[[], dict[str, int]], warehouse: Path
) -> None:
    with pytest.raises(Exception, match="answers; DROP TABLE tickets"):
        trigger(table="answers; DROP TABLE tickets")

    assert count_calls() == NO_CALLS
    assert set(count_rows(warehouse)) == {"tickets"}


@pytest.mark.parametrize(
    ("form", "words"),
    [
        pytest.param({"sql": "DELETE FROM tickets"}, ["a single SELECT", "begins with DELETE"], id="sql-that-writes"),
        pytest.param(
            {"sql": "WITH old AS (SELECT 'T-1001' AS id) DELETE FROM tickets WHERE id IN (SELECT id FROM old)"},
            ["a single SELECT", "contains DELETE"],
            id="sql-that-writes-behind-a-with",
        ),
        pytest.param(
            {"sql": "SELECT * FROM tickets; DROP TABLE tickets"}, ["more than one statement"], id="several-statements"
        ),
        pytest.param({"prompt": "{{ row.titel }}"}, ["prompt", "'titel'", "Did you mean 'title'?"], id="no-column"),
        pytest.param(
            {"custom_id": "{{ row.country }}", "sql": "SELECT * FROM tickets"},
            ["used by more than one row"],
            id="same-keys",
        ),
        pytest.param(
            {"output_schema": {"type": "object", "properties": {"label": {"type": "strng"}}}},
            ["output_schema", "strng"],
            id="a-broken-schema",
        ),
        pytest.param(
            {"model": "house-model-1"},
            ["max_cost_usd is $1.00", "no price is known for house-model-1"],
            id="no-price-for-a-ceiling",
        ),
        pytest.param(
            {"endpoint": "/v1/embeddings"},
            ["/v1/embeddings does not support this argument. Remove it."],
            id="embeddings",
        ),
        pytest.param({"warehouse_conn_id": "openai_default"}, ["openai_default"], id="a-connection-without-sql"),
    ],
)
def test_submit_rejects_what_cannot_be_sent(
    submit_error: Callable[..., str], form: dict[str, Any], words: list[str]
) -> None:
    error = submit_error(**form)

    for word in words:
        assert word in error


def test_the_canary_detects_an_unknown_model_before_anything_is_uploaded(
    trigger: Callable[..., DagRunResult],
    count_calls: Callable[[], dict[str, int]],
    counting_server: LocalServer,
    warehouse: Path,
) -> None:
    message = "The model `gpt-5-nano` does not exist or you do not have access to it."
    counting_server.set_faults(
        Fault(
            kind=Kind.STATUS,
            calls=frozenset({Call.SYNCHRONOUS}),
            status=404,
            code="model_not_found",
            message=message,
            times=5,
        )
    )

    result = trigger(model="gpt-5-nano")

    assert result.states["batch_job.submit"] == "failed"
    assert message in result.error("batch_job.submit")
    assert count_calls() == NO_CALLS | {"synchronous": 5}


def test_a_table_that_is_not_a_results_table_is_rejected_before_anything_is_sent(
    trigger: Callable[..., DagRunResult], count_calls: Callable[[], dict[str, int]], warehouse: Path
) -> None:
    result = trigger(table="tickets")

    assert result.states["batch_job.submit"] == "failed"
    assert "'tickets'" in result.error("batch_job.submit")
    assert count_calls() == NO_CALLS


def test_the_page_lists_every_field_in_the_order_of_the_form(dag: Any) -> None:
    table = page(DAG).partition("## The form")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]
    documented_fields, section = [], ""
    for cell, title, name, _ in rows[2:]:
        section = cell or section
        documented_fields.append((section, title, name.strip("`")))

    params = {name: dag.params.get_param(name).schema for name in dag.params}
    assert documented_fields == [(schema["section"], schema["title"], name) for name, schema in params.items()]


def test_the_command_on_the_page_uses_valid_fields_of_the_form(dag: Any) -> None:
    (conf,) = re.findall(r"^\$ airflow dags trigger batch_on_demand --conf '(.*)'$", page(DAG), re.MULTILINE)

    for name, value in json.loads(conf).items():
        assert name in dag.params
        dag.params[name] = value
    dag.params.validate()
