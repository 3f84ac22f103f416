"""Build small DAGs in a test, run them with `dag.test()`, and keep the errors and return values of their tasks."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import openai

from airflow_provider_batch.local.process import LocalServer

if TYPE_CHECKING:
    from openai.types import Batch, BatchRequestCounts

#: A ticket: id, title, body and label.
Ticket = tuple[Any, ...]


@contextmanager
def run_in_background(work: Callable[[], object]) -> Iterator[None]:
    """Call `work` in a thread while the block runs. Leaving the block waits for it, and raises if it raised."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
        yield
        future.result()


@dataclass
class DagRunResult:
    """The states, errors and return values of one DAG run."""

    #: State of the run.
    state: str
    #: State of each task, by task_id.
    states: dict[str, str]
    #: The exception of each failed task, by task_id.
    errors: dict[str, BaseException]
    #: Return value of each task, by task_id; `task_id[map_index]` for mapped tasks.
    return_values: dict[str, Any] = field(default_factory=dict)

    def error(self, task_id: str = "submit") -> str:
        """Return the error message of a failed task."""
        return str(self.errors[task_id])


def submit_arguments(**changes: Any) -> dict[str, Any]:
    """Return arguments for a submit task that reads the table `tickets`. A change to `...` removes an argument."""
    arguments = {
        "task_id": "submit",
        "warehouse_conn_id": "warehouse",
        "sql": "SELECT id, title, body, label FROM tickets ORDER BY id",
        "custom_id": "{{ row.id }}",
        "model": "gpt-5-mini",
        "prompt": "{{ row.title }}: {{ row.body }}",
        # Tests count batches and their requests, so only the tests of the canary turn it on.
        "canary": 0,
    }
    return {name: value for name, value in (arguments | changes).items() if value is not ...}


def run_job(
    *,
    wait: dict[str, Any] | None = None,
    land: dict[str, Any] | None = None,
    conf: dict[str, Any] | None = None,
    logical_date: datetime | None = None,
    dag_id: str | None = None,
    **submit: Any,
) -> DagRunResult:
    """Run the DAG submit -> wait -> land with `dag.test()`.

    :param dag_id: default: a new name.
    :param wait: arguments of the sensor.
    :param land: arguments of the results task.
    :param submit: arguments of the submit task; `...` removes a default.
    """
    from airflow.sdk import DAG

    from airflow_provider_batch.operators.batch import BatchResultsOperator, BatchSubmitOperator
    from airflow_provider_batch.sensors.batch import BatchSensor

    with DAG(dag_id or f"job_{uuid4().hex[:8]}", schedule=None, params={"word": "plain"}) as dag:
        submit_task = BatchSubmitOperator(**submit_arguments(**submit))
        wait_task = BatchSensor(task_id="wait", job=submit_task.output, **(wait or {}))
        land_arguments: dict[str, Any] = {"table": "answers", "max_failure_rate": 1.0} | (land or {})
        land_task = BatchResultsOperator(task_id="land", job=submit_task.output, **land_arguments)
        submit_task >> wait_task >> land_task
    return run_dag(dag, conf=conf, logical_date=logical_date)


def run_dag(dag: Any, conf: dict[str, Any] | None = None, logical_date: datetime | None = None) -> DagRunResult:
    """Run a DAG with `dag.test()`.

    Runs with the same `logical_date` have the same run_id, so each of them replaces the one before.
    """
    from airflow.providers.common.compat.sdk import get_listener_manager

    save_dag(dag)
    listener = ErrorListener()
    get_listener_manager().add_listener(listener)  # type: ignore[no-untyped-call]  # Airflow has no types here
    try:
        run = dag.test(run_conf=conf, logical_date=logical_date, run_after=logical_date)
    finally:
        get_listener_manager().pm.unregister(listener)
    tis = run.get_task_instances()
    return_values = {}
    for ti in tis:
        value = ti.xcom_pull(task_ids=ti.task_id, map_indexes=ti.map_index)
        return_values[ti.task_id if ti.map_index < 0 else f"{ti.task_id}[{ti.map_index}]"] = value
    return DagRunResult(str(run.state), {ti.task_id: str(ti.state) for ti in tis}, listener.errors, return_values)


class ErrorListener:
    """An Airflow listener that keeps the error of each failed task."""

    def __init__(self) -> None:
        from airflow.providers.common.compat.sdk import hookimpl

        self.errors: dict[str, BaseException] = {}
        # Airflow finds hooks by an attribute of the function, and must not be imported before AIRFLOW_HOME is set.
        type(self).on_task_instance_failed = hookimpl(type(self).on_task_instance_failed)  # type: ignore[method-assign]

    def on_task_instance_failed(self, previous_state: Any, task_instance: Any, error: BaseException) -> None:
        self.errors[task_instance.task_id] = error


def save_dag(dag: Any) -> None:
    """Write the DAG to the metadata database, as the DAG processor does for the DAGs in its folder."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db

    DagBundlesManager().sync_bundles_to_db()  # type: ignore[no-untyped-call]  # Airflow has no types here
    with TemporaryDirectory() as empty_folder:
        bag = DagBag(empty_folder)
    bag.bag_dag(dag)
    sync_bag_to_db(bag, "dags-folder", None)


def make_tickets(path: Path, rows: Iterable[Ticket]) -> None:
    """Create the table `tickets` (id, title, body, label) in a SQLite file."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE tickets (id, title TEXT, body TEXT, label TEXT)")
        connection.executemany("INSERT INTO tickets VALUES (?, ?, ?, ?)", rows)


def query(path: Path, sql: str) -> list[tuple[Any, ...]]:
    """Return the rows that a query selects from a SQLite file."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def client_of(server: LocalServer) -> openai.OpenAI:
    """Return a client of a local batch server."""
    return openai.OpenAI(api_key="local", base_url=server.base_url)


def end_batches(server: LocalServer) -> None:
    """Let ten minutes pass on a server that takes as long for a batch, and wait until all its batches have ended."""
    server.advance(600)
    client, deadline = client_of(server), time.monotonic() + 60
    while any(batch.status not in ("completed", "failed", "expired", "cancelled") for batch in client.batches.list()):
        assert time.monotonic() < deadline, "batches are still running"
        time.sleep(0.01)


def counts_of(batch: Batch) -> BatchRequestCounts:
    """Return the request counts of a batch, which the local batch server always sets."""
    assert batch.request_counts is not None
    return batch.request_counts


def call_counter(server: LocalServer) -> Callable[[], dict[str, int]]:
    """Return a function that counts the uploads, creates and synchronous requests since its last call."""
    previous = server.calls()

    def count() -> dict[str, int]:
        nonlocal previous
        current = server.calls()
        counts = {call: current.get(call, 0) - previous.get(call, 0) for call in ("upload", "create", "synchronous")}
        previous = current
        return counts

    return count
