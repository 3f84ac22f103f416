"""The DAG batch_on_demand, as its form fills it: what it asks, what it refuses, and that a refusal costs nothing.

What a person decides is in test_batch_on_demand_approval.py, on a whole Airflow, as `dag.test()` answers nobody.
"""

from __future__ import annotations

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
from tests.airflow.dags.conftest import NOTHING, check_costs, page
from tests.airflow.dags.warehouses import KINDS, Warehouse
from tests.airflow.jobs import Ran, query

DAG = "batch_on_demand"


def seed(path: Path) -> None:
    tickets.seed(path, tickets.load())


@pytest.fixture
def dag(airflow_home: Path) -> Any:
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(str(dags_folder() / f"{DAG}.py")).dags[DAG]


@pytest.fixture
def warehouse(tmp_path: Path, warehouse_of: Callable[..., Warehouse]) -> Path:
    """A SQLite file with the demo's tickets."""
    warehouse_of("sqlite", seed)
    return tmp_path / "warehouse.sqlite"


@pytest.fixture
def trigger(run_ready: Callable[..., Ran], billed: Callable[[], dict[str, int]]) -> Callable[..., Ran]:
    """Presses *Trigger* with these changes to the form's defaults."""
    return lambda **form: run_ready(DAG, **form)


@pytest.fixture
def refusal(trigger: Callable[..., Ran], billed: Callable[[], dict[str, int]], warehouse: Path) -> Callable[..., str]:
    """Runs what the preview must refuse; gives what it says once it is sure that nothing was paid or changed."""

    def run(**form: Any) -> str:
        held = tables(warehouse)
        ran = trigger(**form)
        assert ran.state == "failed"
        assert ran.states.pop("preview") == "failed"
        assert set(ran.states.values()) == {"upstream_failed"}
        assert billed() == NOTHING
        assert tables(warehouse) == held
        return ran.error("preview")

    return run


def tables(warehouse: Path) -> dict[str, int]:
    """How many rows each table holds."""
    names = query(warehouse, "SELECT name FROM sqlite_master WHERE type = 'table'")
    return {name: query(warehouse, f'SELECT count(*) FROM "{name}"')[0][0] for (name,) in names}


@pytest.mark.parametrize("kind", KINDS)
def test_the_defaults_of_the_form_label_the_first_tickets_without_asking_a_person(
    trigger: Callable[..., Ran], warehouse_of: Callable[..., Warehouse], kind: str
) -> None:
    warehouse = warehouse_of(kind, seed)

    ran = trigger()

    assert ran.states.pop("approve") == "skipped"
    assert set(ran.states.values()) == {"success"}
    landed = warehouse.execute("SELECT custom_id, outcome, output FROM on_demand_answers ORDER BY custom_id")
    assert [row[0] for row in landed] == [ticket.id for ticket in tickets.load() if ticket.title and ticket.body][:20]
    assert {row[1] for row in landed} == {"succeeded"}
    assert all("urgency" in str(row[2]) for row in landed)
    assert ran.returned["report"].startswith("Landed in on_demand_answers: 20 succeeded. It cost 0.00")
    check_costs(DAG, ran.returned["batch_job.land"])


def test_a_preview_ends_there_and_shows_what_would_be_asked(
    trigger: Callable[..., Ran], billed: Callable[[], dict[str, int]], warehouse: Path
) -> None:
    ran = trigger(preview_only=True, approve_above_usd=0)

    assert {task for task, state in ran.states.items() if state == "success"} == {"preview", "decide", "report"}
    assert {state for task, state in ran.states.items() if task not in ("preview", "decide", "report")} == {"skipped"}
    assert ran.returned["preview"]["requests"] == 20
    assert ran.returned["report"] == "Preview only: nothing was asked, nothing is billed."
    assert billed() == NOTHING
    assert set(tables(warehouse)) == {"tickets"}


def test_fields_that_were_emptied_are_not_given(trigger: Callable[..., Ran], warehouse: Path) -> None:
    ran = trigger(
        system=None, output_schema=None, max_rows=None, max_cost_usd=None, sql="SELECT * FROM tickets LIMIT 3"
    )

    assert ran.state == "success"
    assert query(warehouse, "SELECT outcome FROM on_demand_answers") == [("succeeded",)] * 3


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_every_endpoint_that_the_form_offers_is_asked_with_a_prompt_alone(dag: Any, endpoint: str) -> None:
    from airflow_provider_batch.operators.batch import BatchSubmitOperator

    offered = dag.params.get_param("endpoint").schema
    assert endpoint in offered["enum"]
    assert endpoint in offered["values_display"]
    BatchSubmitOperator(
        task_id="as_emptied",
        sql=dag.params["sql"],
        custom_id=dag.params["custom_id"],
        model=dag.params["model"],
        prompt=dag.params["prompt"],
        endpoint=endpoint,
        system="",
        output_schema={},
    )


def test_every_field_stands_in_a_section_under_a_title_with_a_help_text(dag: Any) -> None:
    sections = []
    for name in dag.params:
        param = dag.params.get_param(name)
        assert param.schema["title"], name
        assert param.schema["description_md"], name
        sections.append(param.schema["section"])
    assert sections == sorted(sections)


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
def test_the_form_refuses_a_malformed_value_and_names_the_field(dag: Any, field: str, value: object) -> None:
    from airflow.sdk.exceptions import ParamValidationError

    with pytest.raises(ParamValidationError, match=field):
        dag.params[field] = value


def test_a_malformed_form_makes_no_run(
    trigger: Callable[..., Ran], billed: Callable[[], dict[str, int]], warehouse: Path
) -> None:
    with pytest.raises(Exception, match="answers; DROP TABLE tickets"):
        trigger(table="answers; DROP TABLE tickets")

    assert billed() == NOTHING
    assert set(tables(warehouse)) == {"tickets"}


@pytest.mark.parametrize(
    ("form", "words"),
    [
        pytest.param({"sql": "DELETE FROM tickets"}, ["one SELECT", "begins with DELETE"], id="sql-that-writes"),
        pytest.param(
            {"sql": "WITH old AS (SELECT 'T-1001' AS id) DELETE FROM tickets WHERE id IN (SELECT id FROM old)"},
            ["readonly"],
            id="sql-that-writes-behind-a-with",
        ),
        pytest.param(
            {"sql": "SELECT * FROM tickets; DROP TABLE tickets"}, ["more than one statement"], id="several-statements"
        ),
        pytest.param({"prompt": "{{ row.titel }}"}, ["prompt", "'titel'", "Did you mean 'title'?"], id="no-column"),
        pytest.param(
            {"custom_id": "{{ row.country }}", "sql": "SELECT * FROM tickets"},
            ["given to more than one row"],
            id="same-keys",
        ),
        pytest.param(
            {"output_schema": {"type": "object", "properties": {"label": {"type": "strng"}}}},
            ["output_schema", "strng"],
            id="a-broken-schema",
        ),
        pytest.param(
            {"model": "house-model-1"},
            ["max_cost_usd is 1", "no price is known for house-model-1"],
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
def test_the_preview_refuses_what_cannot_be_asked(
    refusal: Callable[..., str], form: dict[str, Any], words: list[str]
) -> None:
    error = refusal(**form)

    for word in words:
        assert word in error


def test_a_model_that_the_provider_does_not_know_is_found_by_the_canary_before_anything_is_uploaded(
    trigger: Callable[..., Ran],
    billed: Callable[[], dict[str, int]],
    counting_server: LocalServer,
    warehouse: Path,
) -> None:
    said = "The model `gpt-5-nano` does not exist or you do not have access to it."
    counting_server.set_faults(
        Fault(
            kind=Kind.STATUS,
            calls=frozenset({Call.SYNCHRONOUS}),
            status=404,
            code="model_not_found",
            message=said,
            times=2,
        )
    )

    ran = trigger(model="gpt-5-nano")

    assert ran.states["batch_job.submit"] == "failed"
    assert said in ran.error("batch_job.submit")
    assert billed() == NOTHING | {"synchronous": 2}


def test_a_table_that_is_no_results_table_is_refused_before_anything_is_asked(
    trigger: Callable[..., Ran], billed: Callable[[], dict[str, int]], warehouse: Path
) -> None:
    ran = trigger(table="tickets")

    assert ran.states["batch_job.submit"] == "failed"
    assert "'tickets'" in ran.error("batch_job.submit")
    assert billed() == NOTHING


def test_the_page_tells_of_every_field_in_the_order_of_the_form(dag: Any) -> None:
    table = page(DAG).partition("## The form")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]
    told, section = [], ""
    for first, title, name, _ in rows[2:]:
        section = first or section
        told.append((section, title, name.strip("`")))

    params = {name: dag.params.get_param(name).schema for name in dag.params}
    assert told == [(schema["section"], schema["title"], name) for name, schema in params.items()]


def test_the_command_of_the_page_fills_in_what_the_form_takes(dag: Any) -> None:
    (conf,) = re.findall(r"^\$ airflow dags trigger batch_on_demand --conf '(.*)'$", page(DAG), re.MULTILINE)

    for name, value in json.loads(conf).items():
        assert name in dag.params
        dag.params[name] = value
    dag.params.validate()
