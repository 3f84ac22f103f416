"""Parse and serialise every example DAG, and run `label_tickets` from end to end."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from airflow_provider_batch.demo import tickets
from airflow_provider_batch.demo.home import dags_folder
from tests.airflow.jobs import save_dag
from tests.postgres import Database

FILES = sorted(dags_folder().glob("[!_]*.py"))
WITH_TEXT = [ticket for ticket in tickets.load() if (ticket.title + ticket.body).strip()]


def dags_in(folder: Path) -> dict[str, Any]:
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(str(folder))
    assert bag.import_errors == {}
    return dict(bag.dags)


def load(dag_id: str) -> Any:
    """Return an example DAG, after it is written to the metadata database."""
    dag = dags_in(dags_folder() / f"{dag_id}.py")[dag_id]
    save_dag(dag)
    return dag


def run(dag_id: str, **conf: object) -> Any:
    return load(dag_id).test(run_conf=conf, logical_date=None)


@pytest.fixture
def warehouse(tmp_path: Path, connect: Callable[..., None]) -> Path:
    path = tmp_path / "warehouse.sqlite"
    tickets.seed(path, tickets.load())
    connect("warehouse", conn_type="sqlite", host=str(path))
    return path


def query(warehouse: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(warehouse)) as connection:
        return connection.execute(sql).fetchall()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_dag_survives_serialisation(file: Path, airflow_home: Path) -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    dags = dags_in(file)
    assert dags
    for dag in dags.values():
        serialized = DagSerialization.to_dict(dag)
        DagSerialization.validate_schema(serialized)
        deserialized = DagSerialization.from_dict(serialized)
        assert set(deserialized.task_ids) == set(dag.task_ids)
        assert DagSerialization.to_dict(dag) == serialized


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_dag_tells_airflow_which_tables_it_lands_in(file: Path, airflow_home: Path) -> None:
    from airflow_provider_batch.operators.batch import BatchResultsOperator

    landings = [task for dag in dags_in(file).values() for task in dag.tasks if isinstance(task, BatchResultsOperator)]

    assert landings
    assert all(task.outlets for task in landings)


@pytest.mark.usefixtures("airflow_home")
def test_airflow_finds_the_dags_with_its_own_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

    if not AIRFLOW_V_3_3_PLUS:
        pytest.skip("This Airflow only has examples of its own.")
    monkeypatch.setenv("AIRFLOW__CORE__LOAD_EXAMPLES", "True")
    bundles = DagBundlesManager().get_all_dag_bundles()  # type: ignore[no-untyped-call]  # Airflow has no types here

    assert dags_folder() in [bundle.path for bundle in bundles]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_task_of_a_dag_is_retried_and_no_missed_run_is_caught_up(file: Path, airflow_home: Path) -> None:
    for dag in dags_in(file).values():
        assert {task.task_id: task.retries for task in dag.tasks} == dict.fromkeys(dag.task_ids, 3)
        assert not dag.catchup
        assert dag.timetable.can_be_scheduled is (dag.is_paused_upon_creation is True)


@pytest.mark.usefixtures("offline")
def test_a_retry_succeeds_once_the_warehouse_is_back(warehouse: Path) -> None:
    path = warehouse.rename(warehouse.with_suffix(".away"))
    dag = load("label_tickets")
    dag.get_task("submit").on_retry_callback = [lambda context: path.replace(warehouse)]

    assert dag.test(run_conf={"limit": 5}, logical_date=None).state == "success"

    assert not path.exists()
    assert query(warehouse, "SELECT count(*), min(outcome) FROM ticket_labels") == [(5, "succeeded")]


@pytest.mark.usefixtures("offline")
def test_label_tickets_lands_every_ticket_with_text_together_with_its_gold_labels(warehouse: Path) -> None:
    dag_run = run("label_tickets")

    assert dag_run.state == "success"
    assert dag_run.logical_date is None
    rows = query(
        warehouse, "SELECT custom_id, outcome, category, urgency, gold_category, gold_urgency FROM ticket_labels"
    )
    assert {row[0]: row[4:] for row in rows} == {t.id: (t.category, t.urgency) for t in WITH_TEXT}
    assert len(rows) == len(WITH_TEXT)
    assert Counter(row[1] for row in rows) == {"succeeded": len(WITH_TEXT)}
    assert {row[2] for row in rows} <= {t.category for t in WITH_TEXT}
    assert {row[3] for row in rows} == {"low", "normal", "high"}


@pytest.mark.usefixtures("offline")
def test_two_runs_of_label_tickets_leave_one_row_per_ticket(warehouse: Path) -> None:
    first, second = run("label_tickets", limit=5), run("label_tickets", limit=5)

    assert first.run_id != second.run_id
    assert query(warehouse, "SELECT count(*), min(run_id), max(run_id) FROM ticket_labels") == [
        (5, second.run_id, second.run_id)
    ]


@pytest.mark.usefixtures("offline")
def test_label_tickets_labels_only_the_day_given_in_the_trigger_form(warehouse: Path) -> None:
    assert run("label_tickets", day="2026-11-03").state == "success"

    (row,) = query(warehouse, "SELECT group_concat(custom_id) FROM (SELECT custom_id FROM ticket_labels ORDER BY 1)")
    assert row[0].split(",") == [ticket.id for ticket in WITH_TEXT if ticket.day == "2026-11-03"]


@pytest.mark.usefixtures("offline", "warehouse")
@pytest.mark.parametrize("day", ["2026-11-03' OR 1=1 --", "yesterday"])
def test_label_tickets_refuses_an_invalid_day(day: str) -> None:
    with pytest.raises(Exception, match="day"):
        run("label_tickets", day=day)


@pytest.mark.usefixtures("offline")
def test_label_tickets_without_tickets_succeeds_and_leaves_the_table_to_the_first_day_with_tickets(
    warehouse: Path,
) -> None:
    assert run("label_tickets", day="1999-01-01").state == "success"

    # SQLite does not say the types of carried columns before there are rows
    assert query(warehouse, "SELECT name FROM sqlite_master WHERE name = 'ticket_labels'") == []


@pytest.mark.usefixtures("offline")
def test_label_tickets_runs_unchanged_against_postgresql(
    postgres_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(postgres_database.dsn) as connection:
        connection.execute(
            "CREATE TABLE tickets (id text PRIMARY KEY, day date, country text, title text, body text, "
            "category text, urgency text)"
        )
        connection.cursor().executemany(
            "INSERT INTO tickets VALUES (%s, %s, %s, %s, %s, %s, %s)",
            [(t.id, t.day, t.country, t.title, t.body, t.category, t.urgency) for t in tickets.load()],
        )
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", postgres_database.airflow_connection())

    assert run("label_tickets").state == "success"

    rows = postgres_database.execute("SELECT custom_id, gold_category, gold_urgency, outcome FROM ticket_labels")
    assert {row[0]: row[1:] for row in rows} == {t.id: (t.category, t.urgency, "succeeded") for t in WITH_TEXT}
