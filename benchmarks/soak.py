"""A million rows through the three operators on real Airflow, checked for lost, duplicated and twice-sent rows.

    python -m benchmarks.soak [--rows 1000000] [--warehouse sqlite | duckdb | postgres] [--json FILE]
    python -m benchmarks.soak --rows 50000 --embeddings
    python -m benchmarks.soak --rows 100000 --warehouse sqlite --source generator | pandas | csv | parquet | …

`dag.test()` runs submit, wait (with its trigger) and land in one process, and a local batch server runs in another. The
benchmark prints wall time, CPU and memory of each stage. Then it compares the results table with the source table, and
counts the rows in the input files of the batches on the server. The exit code is 1 if a row is lost, duplicated, sent
twice, under a wrong key or did not succeed.

The CPU of a stage is that of our process, with the constant cost of an Airflow task. The CPU of the batch server and of
a database server is printed separately. "all" is the whole process, with Airflow's own work between the tasks.

With `--embeddings` each row becomes a vector of 1,536 numbers, encoded in base64: 50,000 rows make one input file and
0.42 GB of answers. With `--source`, the same rows are passed to the job with `rows=` instead of `sql=`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
from openai import OpenAI
from rich.console import Console
from rich.table import Table

from airflow_provider_batch.local.process import LocalServer
from benchmarks import data, sources
from benchmarks.airflow_home import temporary_airflow_home
from benchmarks.measure import MB, read_cpu, read_memory
from benchmarks.sealing import SOURCES, warehouse_of_tickets
from benchmarks.worker import Worker, reset_peak_memory

TABLE = "ticket_labels"
#: queries that must return 0; `wrong key` counts rows whose key belongs to another row
ERROR_COUNTS = {
    "lost": f"SELECT count(*) FROM tickets t LEFT JOIN {TABLE} r ON r.custom_id = 'ticket-' || t.id "
    "WHERE r.custom_id IS NULL",
    "duplicated": f"SELECT count(*) - count(DISTINCT custom_id) FROM {TABLE}",
    "wrong key": f"SELECT count(*) FROM {TABLE} r LEFT JOIN tickets t ON r.custom_id = 'ticket-' || t.id "
    "WHERE t.id IS NULL OR CAST(t.id AS text) <> CAST(r.id AS text)",  # CSV has no numbers
    "not succeeded": f"SELECT count(*) FROM {TABLE} WHERE outcome <> 'succeeded'",
}


def prepare_job(embeddings: bool, source: str, rows: int, file: str) -> Callable[[], dict[str, Any]]:
    """Return a function that runs the DAG and returns its state and the time, CPU and peak memory of each task.

    :param source: kind of source for `rows=`, or an empty text for `sql=`.
    :param file: the file with the rows, if this kind of source is a file.
    """
    from airflow.providers.common.compat.sdk import get_listener_manager
    from airflow.sdk import DAG

    from airflow_provider_batch.operators.batch import BatchResultsOperator, BatchSubmitOperator
    from airflow_provider_batch.sensors.batch import BatchSensor
    from airflow_provider_batch.sources.function import FunctionCall
    from tests.airflow.jobs import run_dag

    rows_of: dict[str, Any] = {"sql": data.SQL}
    if source:
        read = sources.prepare_reader(source, rows, file)
        rows_of = {"rows": file or FunctionCall(read, (), {})}
    request: dict[str, Any] = {"model": data.MODEL, "system": data.SYSTEM, "output_schema": data.Ticket}
    if embeddings:
        request = {"model": "text-embedding-3-small", "endpoint": "/v1/embeddings"}
    columns = {} if embeddings else data.COLUMNS
    with DAG("soak", schedule=None) as dag:
        submit = BatchSubmitOperator(
            task_id="submit",
            **rows_of,
            custom_id=data.CUSTOM_ID,
            prompt=data.PROMPT,
            carry=["id", "label"],
            # Requests are counted in the input files of the batches, so none may be sent synchronously.
            canary=0,
            **request,
        )
        wait = BatchSensor(task_id="wait", job=submit.output, deadline=timedelta(hours=4), poke_interval=1)
        land = BatchResultsOperator(task_id="land", job=submit.output, table=TABLE, columns=columns)
        submit >> wait >> land

    stages = _Stages()

    def run() -> dict[str, Any]:
        get_listener_manager().add_listener(stages)  # type: ignore[no-untyped-call]  # Airflow has no types here
        result = run_dag(dag)
        return {
            "state": result.state,
            "errors": {task: str(error)[:2000] for task, error in result.errors.items()},
            "stages": stages.measurements,
            "job_summary": result.return_values.get("land"),
        }

    return run


class _Stages:
    """Listener that measures the time and CPU of each task, and its peak memory over that before the first task."""

    def __init__(self) -> None:
        from airflow.providers.common.compat.sdk import hookimpl

        self.measurements: dict[str, dict[str, float]] = {}
        #: wall time and CPU time of this process at the start of each task
        self._starts: dict[str, tuple[float, float]] = {}
        self._initial_memory: int | None = None
        # pluggy finds hooks by an attribute. No decorator, because Airflow must not be imported before its home is set.
        for name in ("on_task_instance_running", "on_task_instance_success"):
            setattr(type(self), name, hookimpl(getattr(type(self), name)))

    def on_task_instance_running(self, previous_state: Any, task_instance: Any) -> None:
        # A deferred task starts a second time after its trigger fired. That is still the same stage.
        if task_instance.task_id not in self._starts:
            memory = reset_peak_memory()
            self._initial_memory = memory if self._initial_memory is None else self._initial_memory
            self._starts[task_instance.task_id] = time.perf_counter(), time.process_time()

    def on_task_instance_success(self, previous_state: Any, task_instance: Any) -> None:
        assert self._initial_memory is not None
        start, initial_cpu = self._starts[task_instance.task_id]
        self.measurements[task_instance.task_id] = {
            "seconds": time.perf_counter() - start,
            "cpu_seconds": time.process_time() - initial_cpu,
            "extra_mb": (read_memory(os.getpid())[1] - self._initial_memory) / MB,
        }


def prepare_count() -> Callable[[], dict[str, int]]:
    """Return a function that lets the warehouse count the rows of the results table and the errors in it."""
    from airflow_provider_batch.warehouse.connect import sql_hook

    hook = sql_hook("warehouse")

    def run() -> dict[str, int]:
        queries = {"rows": f"SELECT count(*) FROM {TABLE}", **ERROR_COUNTS}
        return {name: hook.get_first(sql)[0] for name, sql in queries.items()}

    return run


class _RequestLine(msgspec.Struct):
    custom_id: str


def count_requests(server: LocalServer, rows: int) -> dict[str, int]:
    """Return the number of batches on the server, and of rows that their input files contain twice or not at all."""
    occurrences = bytearray(rows)
    decoder = msgspec.json.Decoder(_RequestLine)
    with OpenAI(base_url=server.base_url, api_key="local") as client:
        batches = list(client.batches.list(limit=100))
        for batch in batches:
            with client.files.with_streaming_response.content(batch.input_file_id) as response:
                remainder = b""
                for chunk in response.iter_bytes(1 << 20):
                    *lines, remainder = (remainder + chunk).split(b"\n")
                    for line in lines:
                        number = int(decoder.decode(line).custom_id.partition("-")[2])
                        occurrences[number] = min(occurrences[number] + 1, 255)
                assert not remainder
    sent_twice = rows - occurrences.count(0) - occurrences.count(1)
    return {"batches": len(batches), "sent twice": sent_twice, "never sent": occurrences.count(0)}


def soak(rows: int, warehouse: str, folder: Path, *, embeddings: bool, source: str) -> dict[str, Any]:
    """Create the tickets, run the job, count the rows and return all results."""
    (folder / "dags").mkdir()
    file = sources.file_of(source, rows, folder)
    migrate = [sys.executable, "-m", "airflow", "db", "migrate"]
    subprocess.run(migrate, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with warehouse_of_tickets(warehouse, rows, folder) as database, LocalServer(folder / "server") as server:
        connection = {"conn_type": "openai", "password": "local", "host": server.base_url}
        environment = database.environment | {
            "AIRFLOW_CONN_OPENAI_DEFAULT": json.dumps(connection),
            "AIRFLOW__OPENAI_BATCH__STAGING": (folder / "staging").as_uri(),
            "AIRFLOW__CORE__DAGS_FOLDER": str(folder / "dags"),
        }
        with Worker(
            "benchmarks.soak:prepare_job",
            logs=folder,
            environment=environment,
            server_pid=database.server_pid,
            embeddings=embeddings,
            source=source,
            rows=rows,
            file=str(file or ""),
        ) as worker:
            initial_server_cpu = read_cpu(server.pid)
            measurement = worker.run()
            server_cpu_seconds = read_cpu(server.pid) - initial_server_cpu
        if measurement.result["state"] != "success":
            raise SystemExit(
                f"The DAG run ended with state {measurement.result['state']}: {measurement.result['errors']}"
            )
        with Worker("benchmarks.soak:prepare_count", logs=folder, environment=environment) as worker:
            table = worker.run().result
        requests = count_requests(server, rows)
        server_mb = read_memory(server.pid)[1] / MB
    return {
        "rows": rows,
        "warehouse": warehouse,
        "embeddings": embeddings,
        "source": source or "sql",
        "seconds": measurement.seconds,
        "cpu_seconds": measurement.own_cpu_seconds,
        "database_cpu_seconds": measurement.server_cpu_seconds,
        "server_cpu_seconds": server_cpu_seconds,
        "extra_mb": measurement.extra_mb,
        "server_mb": server_mb,
        **{name: measurement.result[name] for name in ("stages", "job_summary")},
        "table": table,
        "server": requests,
    }


def print_result(result: dict[str, Any]) -> bool:
    """Print the result. Return whether the results table has every row and all error counts are 0."""
    rows, table, server = result["rows"], result["table"], result["server"]
    console = Console(width=150)
    stages = Table(title=f"{rows:,} rows, {result['source']}, {result['warehouse']}, {server['batches']} batches")
    for name in ("stage", "seconds", "rows/s", "CPU", "CPU per row", "peak memory over the initial"):
        stages.add_column(name, justify="left" if name == "stage" else "right")
    for name, stage in [*result["stages"].items(), ("all", result)]:
        stages.add_row(
            name,
            f"{stage['seconds']:,.1f}",
            f"{rows / stage['seconds']:,.0f}",
            *_cpu_cells(stage["cpu_seconds"], rows),
            f"{stage['extra_mb']:,.1f} MB",
        )
    for name in ("database", "server"):
        cells = _cpu_cells(result[f"{name}_cpu_seconds"], rows)
        stages.add_row("batch server" if name == "server" else "database server", "", "", *cells, "")
    console.print(stages)
    errors = {name: table[name] for name in ERROR_COUNTS} | {
        name: server[name] for name in ("sent twice", "never sent")
    }
    console.print(f"Rows in the table: {table['rows']:,}; " + ", ".join(f"{name}: {n:,}" for name, n in errors.items()))
    return table["rows"] == rows and not any(errors.values())


def _cpu_cells(seconds: float, rows: int) -> tuple[str, str]:
    return f"{seconds:,.1f} s", f"{seconds / rows * 1e6:,.1f} µs"


def main() -> None:
    """Run the job, print the result and exit with code 1 if a check fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--warehouse", choices=SOURCES, default="postgres")
    parser.add_argument("--embeddings", action="store_true", help="request a vector for each row instead of a label")
    parser.add_argument("--source", choices=sources.KINDS, default="", help="pass rows of this kind instead of a query")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, temporary_airflow_home():
        result = soak(args.rows, args.warehouse, Path(folder), embeddings=args.embeddings, source=args.source)
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    if not print_result(result):
        raise SystemExit(
            "A row was lost, duplicated, sent twice, under a wrong key or not answered. See the counts above."
        )


if __name__ == "__main__":
    main()
