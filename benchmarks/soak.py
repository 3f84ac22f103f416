"""A million rows through the three operators on real Airflow, and proof that none is lost, doubled or asked twice.

    python -m benchmarks.soak [--rows 1000000] [--warehouse sqlite | duckdb | postgres] [--json FILE]
    python -m benchmarks.soak --rows 50000 --embeddings

`dag.test()` runs submit, wait with its trigger, and land in a process of its own, against a local batch server in
another. It prints what it took, stage by stage, then counts: in the results table against the source table, and on the
server in the input files of its batches. Exit code 1 if one row is lost, doubled, asked twice, under a wrong key, or
did not succeed. With `--embeddings` each row becomes a vector of 1,536 numbers, which travels in base64: 50,000 of them
are one input file and 0.42 GB of answers.
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
from benchmarks import data
from benchmarks.airflow_home import airflow_home
from benchmarks.measure import MB, memory
from benchmarks.sealing import SOURCES, filled
from benchmarks.worker import Worker, forget_peak

TABLE = "ticket_labels"
#: what must be 0; `wrong` counts rows that carry the column of another row
COUNTS = {
    "lost": f"SELECT count(*) FROM tickets t LEFT JOIN {TABLE} r ON r.custom_id = 'ticket-' || t.id "
    "WHERE r.custom_id IS NULL",
    "duplicated": f"SELECT count(*) - count(DISTINCT custom_id) FROM {TABLE}",
    "wrong": f"SELECT count(*) FROM {TABLE} r LEFT JOIN tickets t ON r.custom_id = 'ticket-' || t.id "
    "WHERE t.id IS NULL OR t.id <> r.id",
    "not succeeded": f"SELECT count(*) FROM {TABLE} WHERE outcome <> 'succeeded'",
}


def job(embeddings: bool) -> Callable[[], dict[str, Any]]:
    """The DAG; running it gives its state, and seconds and peak memory of each task."""
    from airflow.providers.common.compat.sdk import get_listener_manager
    from airflow.sdk import DAG

    from airflow_provider_batch.operators.batch import BatchResultsOperator, BatchSubmitOperator
    from airflow_provider_batch.sensors.batch import BatchSensor
    from tests.airflow.jobs import run_dag

    asked: dict[str, Any] = {"model": data.MODEL, "system": data.SYSTEM, "output_schema": data.Ticket}
    if embeddings:
        asked = {"model": "text-embedding-3-small", "endpoint": "/v1/embeddings"}
    columns = {} if embeddings else data.COLUMNS
    with DAG("soak", schedule=None) as dag:
        submit = BatchSubmitOperator(
            task_id="submit",
            sql=data.SQL,
            custom_id=data.CUSTOM_ID,
            prompt=data.PROMPT,
            carry=["id", "label"],
            # what was asked is counted in the input files of the batches
            canary=0,
            **asked,
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
            "stages": stages.took,
            "account": result.return_values.get("land"),
        }

    return run


class _Stages:
    """Notes when each task began and ended, and the most memory the process held meanwhile over what it held before."""

    def __init__(self) -> None:
        from airflow.providers.common.compat.sdk import hookimpl

        self.took: dict[str, dict[str, float]] = {}
        self._began: dict[str, float] = {}
        self._before: int | None = None
        # hooks are found by attribute, and Airflow may only be imported once its home is set
        for name in ("on_task_instance_running", "on_task_instance_success"):
            setattr(type(self), name, hookimpl(getattr(type(self), name)))

    def on_task_instance_running(self, previous_state: Any, task_instance: Any) -> None:
        # A deferred task runs again when its trigger fired: its stage goes on.
        if task_instance.task_id not in self._began:
            resident = forget_peak()
            self._before = resident if self._before is None else self._before
            self._began[task_instance.task_id] = time.perf_counter()

    def on_task_instance_success(self, previous_state: Any, task_instance: Any) -> None:
        assert self._before is not None
        seconds = time.perf_counter() - self._began[task_instance.task_id]
        extra = (memory(os.getpid())[1] - self._before) / MB
        self.took[task_instance.task_id] = {"seconds": seconds, "extra_mb": extra}


def count() -> Callable[[], dict[str, int]]:
    """What the results table holds, counted by the warehouse itself."""
    from airflow_provider_batch.warehouse.connect import sql_hook

    hook = sql_hook("warehouse")

    def run() -> dict[str, int]:
        queries = {"rows": f"SELECT count(*) FROM {TABLE}", **COUNTS}
        return {name: hook.get_first(sql)[0] for name, sql in queries.items()}

    return run


class _Asked(msgspec.Struct):
    custom_id: str


def asked(server: LocalServer, rows: int) -> dict[str, int]:
    """What the server was asked: its batches, and the rows in their input files that were asked twice, or never."""
    times = bytearray(rows)
    decoder = msgspec.json.Decoder(_Asked)
    with OpenAI(base_url=server.base_url, api_key="local") as client:
        batches = list(client.batches.list(limit=100))
        for batch in batches:
            with client.files.with_streaming_response.content(batch.input_file_id) as response:
                rest = b""
                for chunk in response.iter_bytes(1 << 20):
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        number = int(decoder.decode(line).custom_id.partition("-")[2])
                        times[number] = min(times[number] + 1, 255)
                assert not rest
    twice = rows - times.count(0) - times.count(1)
    return {"batches": len(batches), "asked twice": twice, "never asked": times.count(0)}


def soak(rows: int, warehouse: str, folder: Path, *, embeddings: bool) -> dict[str, Any]:
    """Fill, run, count."""
    (folder / "dags").mkdir()
    migrate = [sys.executable, "-m", "airflow", "db", "migrate"]
    subprocess.run(migrate, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with filled(warehouse, rows, folder) as environment, LocalServer(folder / "server") as server:
        connection = {"conn_type": "openai", "password": "local", "host": server.base_url}
        environment |= {
            "AIRFLOW_CONN_OPENAI_DEFAULT": json.dumps(connection),
            "AIRFLOW__OPENAI_BATCH__STAGING": (folder / "staging").as_uri(),
            "AIRFLOW__CORE__DAGS_FOLDER": str(folder / "dags"),
        }
        with Worker("benchmarks.soak:job", logs=folder, environment=environment, embeddings=embeddings) as worker:
            whole = worker.run()
        if whole.returned["state"] != "success":
            raise SystemExit(f"The DAG ended {whole.returned['state']}: {whole.returned['errors']}")
        with Worker("benchmarks.soak:count", logs=folder, environment=environment) as worker:
            table = worker.run().returned
        on_server = asked(server, rows)
        server_mb = memory(server.pid)[1] / MB
    return {
        "rows": rows,
        "warehouse": warehouse,
        "embeddings": embeddings,
        "seconds": whole.seconds,
        "extra_mb": whole.extra_mb,
        "server_mb": server_mb,
        **{name: whole.returned[name] for name in ("stages", "account")},
        "table": table,
        "server": on_server,
    }


def tell(result: dict[str, Any]) -> bool:
    """Print it; whether everything that must be 0 is 0 and every row is there."""
    rows, table, server = result["rows"], result["table"], result["server"]
    console = Console(width=150)
    stages = Table(title=f"{rows:,} rows, {result['warehouse']}, {server['batches']} batches")
    for name in ("stage", "seconds", "rows/s", "peak memory over the start"):
        stages.add_column(name, justify="left" if name == "stage" else "right")
    for name, took in result["stages"].items():
        stages.add_row(name, f"{took['seconds']:,.1f}", f"{rows / took['seconds']:,.0f}", f"{took['extra_mb']:,.1f} MB")
    stages.add_row(
        "all", f"{result['seconds']:,.1f}", f"{rows / result['seconds']:,.0f}", f"{result['extra_mb']:,.1f} MB"
    )
    console.print(stages)
    zero = {name: table[name] for name in COUNTS} | {name: server[name] for name in ("asked twice", "never asked")}
    console.print(f"rows in the table: {table['rows']:,}; " + ", ".join(f"{name}: {n:,}" for name, n in zero.items()))
    return table["rows"] == rows and not any(zero.values())


def main() -> None:
    """Run and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--warehouse", choices=SOURCES, default="postgres")
    parser.add_argument("--embeddings", action="store_true", help="a vector for each row, not a label")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, airflow_home():
        result = soak(args.rows, args.warehouse, Path(folder), embeddings=args.embeddings)
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    if not tell(result):
        raise SystemExit("A row was lost, doubled, asked twice or not answered: see the counts above.")


if __name__ == "__main__":
    main()
