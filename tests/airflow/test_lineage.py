"""The events of OpenLineage that Airflow's provider emits for the tasks of a job, on three databases."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import Any

import duckdb
import jsonschema
import pytest
from openlineage.client import facet_v2
from openlineage.client.event_v2 import InputDataset, OutputDataset, RunEvent

from airflow_provider_batch.testing import LocalServer
from tests.airflow.jobs import make_tickets
from tests.airflow.lineage_jobs import SQL
from tests.postgres import Database, Server

Event = dict[str, Any]
TICKETS = [(f"T-{n}", f"Ticket {n}", "The invoice is wrong", "billing") for n in range(1, 4)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lineage")


@pytest.fixture(scope="module")
def database(postgres_server: Server) -> Iterator[Database]:
    """A database of PostgreSQL with the tickets, and with a results table that has a column of somebody else."""
    with postgres_server.database() as database:
        database.execute("CREATE SCHEMA shop")
        database.execute("CREATE TABLE shop.tickets (id text, title text, body text, label text, opened timestamptz)")
        for ticket in TICKETS:
            database.execute(f"INSERT INTO shop.tickets VALUES {(*ticket, '2026-11-20')}")
        yield database


@pytest.fixture(scope="module")
def connections(folder: Path, database: Database) -> dict[str, str]:
    """The connections to the databases, by id."""
    duckdb_file, sqlite_file = folder / "shop.duckdb", folder / "shop.sqlite"
    with closing(duckdb.connect(duckdb_file)) as connection:
        connection.execute("CREATE TABLE tickets (id VARCHAR, title VARCHAR, body VARCHAR, label VARCHAR)")
        connection.executemany("INSERT INTO tickets VALUES (?, ?, ?, ?)", TICKETS)
    make_tickets(sqlite_file, TICKETS)
    return {
        "postgres": database.airflow_connection(),
        "duckdb": json.dumps({"conn_type": "duckdb", "host": str(duckdb_file)}),
        "sqlite": json.dumps({"conn_type": "sqlite", "host": str(sqlite_file)}),
    }


@pytest.fixture(scope="module")
def events(airflow_home: Path, batch_server: LocalServer, folder: Path, connections: dict[str, str]) -> list[Event]:
    """The events of three jobs, in the order in which Airflow emitted them."""
    server = {"conn_type": "openai", "password": batch_server.api_key, "host": batch_server.base_url}
    events_file = folder / "events.jsonl"
    environment = {
        **os.environ,
        "AIRFLOW_CONN_OPENAI_DEFAULT": json.dumps(server),
        **{f"AIRFLOW_CONN_{name.upper()}": connection for name, connection in connections.items()},
        "AIRFLOW__OPENAI_BATCH__STAGING": (folder / "staging").as_uri(),
        "AIRFLOW__OPENLINEAGE__DISABLED": "False",
        "AIRFLOW__OPENLINEAGE__NAMESPACE": "tests",
        "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(
            {"type": "file", "log_file_path": str(events_file), "append": True}
        ),
        # the first event imports the client, which takes long on a busy machine
        "AIRFLOW__OPENLINEAGE__EXECUTION_TIMEOUT": "120",
    }
    command = [sys.executable, "-m", "tests.airflow.lineage_jobs"]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert process.returncode == 0, process.stdout + process.stderr
    return [json.loads(line) for line in events_file.read_text().splitlines()]


def event_of(events: list[Event], job: str, kind: str = "COMPLETE") -> Event:
    """Return the last event of a kind about a task, such as `job_postgres.land`."""
    found_events = [event for event in events if event["job"]["name"] == job and event["eventType"] == kind]
    assert found_events, sorted({(event["job"]["name"], event["eventType"]) for event in events})
    return found_events[-1]


def names_of(datasets: list[Event]) -> list[tuple[str, str]]:
    return [(dataset["namespace"], dataset["name"]) for dataset in datasets]


def test_submit_reads_the_source_table_and_writes_the_job(events: list[Event], database: Database) -> None:
    event = event_of(events, "job_postgres.submit")
    (source,), (job,) = event["inputs"], event["outputs"]
    assert source["name"] == f"{database.name}.shop.tickets"
    assert source["namespace"].startswith("postgres://")
    assert [field["name"] for field in source["facets"]["schema"]["fields"]] == [
        *("id", "title", "body", "label", "opened"),
    ]
    assert source["inputFacets"]["inputStatistics"]["rowCount"] == 3
    assert job["namespace"] == "file"
    assert job["name"].endswith("/staging/job_postgres/submit")
    assert job["outputFacets"]["outputStatistics"]["rowCount"] == 3
    assert event["job"]["facets"]["sql"]["query"] == SQL


def test_land_reads_the_job_and_writes_the_results_table(events: list[Event], database: Database) -> None:
    submit, land = event_of(events, "job_postgres.submit"), event_of(events, "job_postgres.land")
    assert names_of(land["inputs"]) == names_of([*submit["inputs"], *submit["outputs"]])
    assert land["inputs"][1]["facets"]["version"] == submit["outputs"][0]["facets"]["version"]
    (results,) = land["outputs"]
    assert results["namespace"] == submit["inputs"][0]["namespace"]
    assert results["name"] == f"{database.name}.shop.answers"
    assert {"custom_id", "outcome", "output", "gold", "answer"} <= {
        field["name"] for field in results["facets"]["schema"]["fields"]
    }
    assert results["outputFacets"]["outputStatistics"]["rowCount"] == 3


def test_each_column_of_the_results_names_the_columns_of_the_source_that_it_comes_from(events: list[Event]) -> None:
    land = event_of(events, "job_postgres.land")
    source, lineage = land["inputs"][0], land["outputs"][0]["facets"]["columnLineage"]["fields"]
    sources = {
        name: [
            (field["name"], field["field"], field["transformations"][0]["subtype"]) for field in fields["inputFields"]
        ]
        for name, fields in lineage.items()
    }
    table = source["name"]
    answered = [(table, "title", "TRANSFORMATION"), (table, "body", "TRANSFORMATION")]
    assert sources == {
        "custom_id": [(table, "id", "TRANSFORMATION")],
        "gold": [(table, "label", "IDENTITY")],
        "output": answered,
        "answer": answered,
    }
    assert lineage["answer"]["inputFields"][0]["transformations"][0]["description"] == "Answered by gpt-5-mini."


def test_both_tasks_report_the_same_job_with_its_tokens_and_cost(events: list[Event]) -> None:
    submitted = event_of(events, "job_postgres.submit")["run"]["facets"]["openaiBatch_job"]
    landed = event_of(events, "job_postgres.land")["run"]["facets"]["openaiBatch_job"]
    assert submitted["jobUid"] == landed["jobUid"]
    # the client leaves out what is None
    assert "costUsd" not in submitted
    assert submitted["tokens"] == {}
    assert landed["outcomes"] == {"succeeded": 3}
    assert landed["tokens"]["input"] > 0
    assert landed["costUsd"] > 0
    assert landed["models"] == ["gpt-5-mini"]


def test_a_database_without_names_of_its_provider_gets_those_of_other_integrations(
    events: list[Event], folder: Path
) -> None:
    land = event_of(events, "job_duckdb.land")
    namespace = f"duckdb://{folder}/shop.duckdb"
    assert names_of(land["inputs"])[0] == (namespace, "shop.main.tickets")
    assert names_of(land["outputs"]) == [(namespace, "shop.main.answers")]
    # the columns that * stands for are known from the table
    (source,) = land["outputs"][0]["facets"]["columnLineage"]["fields"]["label"]["inputFields"]
    assert (source["name"], source["field"]) == ("shop.main.tickets", "label")


def test_a_task_that_fails_before_the_seal_reports_what_it_would_read(events: list[Event], folder: Path) -> None:
    event = event_of(events, "job_sqlite.submit", "FAIL")
    assert names_of(event["inputs"]) == [(f"sqlite://{folder}/shop.sqlite", "main.tickets")]
    assert event["outputs"] == []
    assert "errorMessage" in event["run"]["facets"]


def test_no_statement_is_reported_as_unreadable(events: list[Event]) -> None:
    assert not any("extractionError" in event["run"]["facets"] for event in events)


def test_every_event_fits_the_classes_of_the_client(events: list[Event]) -> None:
    for event in events:
        check(RunEvent, event)
        for dataset_class, datasets in ((InputDataset, event["inputs"]), (OutputDataset, event["outputs"])):
            for dataset in datasets:
                check(dataset_class, dataset)
        facets = [event["run"]["facets"], event["job"]["facets"]]
        for dataset in [*event["inputs"], *event["outputs"]]:
            facets += [dataset[key] for key in ("facets", "inputFacets", "outputFacets") if key in dataset]
        for name, facet in (item for group in facets for item in group.items()):
            assert facet["_producer"]
            assert facet["_schemaURL"]
            if "openlineage.io/spec/facets/" in facet["_schemaURL"]:
                check(FACETS[facet["_schemaURL"]], facet)
            elif name == "openaiBatch_job":
                jsonschema.validate(facet, json.loads(SCHEMA_FILE.read_text()))
                assert json.loads(SCHEMA_FILE.read_text())["$id"] == facet["_schemaURL"]


SCHEMA_FILE = resources.files("airflow_provider_batch.lineage") / "OpenAIBatchJobRunFacet.json"
#: the facets that OpenLineage defines, by the URL of their schema
FACETS = {
    member._get_schema(): member
    for module in vars(facet_v2).values()
    if isinstance(module, ModuleType)
    for member in vars(module).values()
    if isinstance(member, type) and issubclass(member, facet_v2.BaseFacet)
}


def check(kind: Any, value: Event) -> None:
    """Check that a value has the fields that a class of the client requires, and no others."""
    fields = {field.name: field for field in kind.__attrs_attrs__}
    assert set(value) <= set(fields), kind
    required_names = {name for name, field in fields.items() if field.init and str(field.default) == "NOTHING"}
    assert required_names <= set(value), kind
