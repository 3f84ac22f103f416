"""Small DAGs for tests: built in the test, run with `dag.test()`, their errors and what they returned kept."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import openai
from openai.types import Batch, BatchRequestCounts

from airflow_provider_batch.local.process import LocalServer

#: id, title, body and label of a ticket
Ticket = tuple[Any, ...]


@contextmanager
def run_in_background(work: Callable[[], None]) -> Iterator[None]:
    """Do `work` in a thread while the block runs. If it raises, so does leaving the block."""
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(work)
        yield
        done.result()


@dataclass
class DagRunResult:
    """One run of a DAG."""

    #: state of the run
    state: str
    #: state of each task
    states: dict[str, str]
    #: the exception that failed each failed task
    errors: dict[str, BaseException]
    #: what each task returned
    return_values: dict[str, Any] = field(default_factory=dict)

    def error(self, task_id: str = "submit") -> str:
        """The text of the error that failed a task."""
        return str(self.errors[task_id])


def submit_arguments(**changes: Any) -> dict[str, Any]:
    """Arguments of a submit task that works on the table `tickets`."""
    arguments = {
        "task_id": "submit",
        "warehouse_conn_id": "warehouse",
        "sql": "SELECT id, title, body, label FROM tickets ORDER BY id",
        "custom_id": "{{ row.id }}",
        "model": "gpt-5-mini",
        "prompt": "{{ row.title }}: {{ row.body }}",
        # tests count batches and what is in them; those that are about the canary ask for it
        "canary": 0,
    }
    return {name: value for name, value in (arguments | changes).items() if value is not ...}


def run_job(
    *,
    wait: dict[str, Any] | None = None,
    land: dict[str, Any] | None = None,
    conf: dict[str, Any] | None = None,
    logical_date: datetime | None = None,
    **submit: Any,
) -> DagRunResult:
    """Run submit -> wait -> land with `dag.test()`; `...` leaves a default argument out."""
    from airflow.sdk import DAG

    from airflow_provider_batch.operators.batch import BatchResultsOperator, BatchSubmitOperator
    from airflow_provider_batch.sensors.batch import BatchSensor

    with DAG(f"job_{uuid4().hex[:8]}", schedule=None, params={"word": "plain"}) as dag:
        asked = BatchSubmitOperator(**submit_arguments(**submit))
        waited = BatchSensor(task_id="wait", job=asked.output, **(wait or {}))
        landing: dict[str, Any] = {"table": "answers", "max_failure_rate": 1.0} | (land or {})
        landed = BatchResultsOperator(task_id="land", job=asked.output, **landing)
        asked >> waited >> landed
    return run_dag(dag, conf=conf, logical_date=logical_date)


def run_dag(dag: Any, conf: dict[str, Any] | None = None, logical_date: datetime | None = None) -> DagRunResult:
    """Run a DAG with `dag.test()`. With a logical_date its run_id is of that moment: the next run begins it anew."""
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
    """Keeps the error of each task that fails."""

    def __init__(self) -> None:
        from airflow.providers.common.compat.sdk import hookimpl

        self.errors: dict[str, BaseException] = {}
        # hooks are found by attribute, and Airflow may only be imported once its home is set
        type(self).on_task_instance_failed = hookimpl(type(self).on_task_instance_failed)  # type: ignore[method-assign]

    def on_task_instance_failed(self, previous_state: Any, task_instance: Any, error: BaseException) -> None:
        self.errors[task_instance.task_id] = error


def save_dag(dag: Any) -> None:
    """Write the DAG to the metadata database, as the DAG processor does with the DAGs of a folder."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db

    DagBundlesManager().sync_bundles_to_db()  # type: ignore[no-untyped-call]  # Airflow has no types here
    with TemporaryDirectory() as empty:
        bag = DagBag(empty)
    bag.bag_dag(dag)
    sync_bag_to_db(bag, "dags-folder", None)


def make_tickets(path: Path, rows: Iterable[Ticket]) -> None:
    """A table `tickets` with columns id, title, body, label in a SQLite file."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE tickets (id, title TEXT, body TEXT, label TEXT)")
        connection.executemany("INSERT INTO tickets VALUES (?, ?, ?, ?)", rows)


def query(path: Path, sql: str) -> list[tuple[Any, ...]]:
    """Rows of a SQLite file."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def client_of(server: LocalServer) -> openai.OpenAI:
    """A client of a local batch server."""
    return openai.OpenAI(api_key="local", base_url=server.base_url)


def counts_of(batch: Batch) -> BatchRequestCounts:
    """The request counts of a batch, which the local batch server always gives."""
    assert batch.request_counts is not None
    return batch.request_counts


def call_counter(server: LocalServer) -> Callable[[], dict[str, int]]:
    """Return a function that counts the uploads, creations and synchronous requests since it was last called."""
    before = server.calls()

    def since() -> dict[str, int]:
        nonlocal before
        now = server.calls()
        counted = {call: now.get(call, 0) - before.get(call, 0) for call in ("upload", "create", "synchronous")}
        before = now
        return counted

    return since
