"""CPU, wall time and memory to seal a job: from the rows of a query to sealed shards.

    python -m benchmarks.sealing [--rows 10000 100000] [--runs 5] [--source sqlite duckdb postgres] [--json FILE]

Rows of about 1 KB become requests with a system prompt, a prompt from two columns and a schema. They are read,
rendered, counted, priced, checked for unique custom_ids, written and synced to disk. Each run also measures, on the
same machine:

* DuckDB with one thread: `COPY (...) TO ... (FORMAT json)` of the same lines. It always reads a DuckDB table, no matter
  which source the other two read.
* `LLMBatchOperator` of apache-airflow-providers-common-ai: its own code, from prompts to the bytes that it would
  upload, in chunks of 50,000 requests, which is its maximum. The prompts come from `hook.get_records` of the
  same query.

Each case runs in its own process, which first warms up with 100 rows. CPU is that of this process and of the PostgreSQL
server together. Memory is the peak of the process minus the memory that it used after it warmed up. The ratios are
medians over the runs, and the cases take turns within each run.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec

from benchmarks import data
from benchmarks.comparison import Anchor, compare, run_in_turns
from benchmarks.measure import Figure, run_for_sizes
from benchmarks.worker import Worker
from tests.postgres import running_postgres

SOURCES = ("sqlite", "duckdb", "postgres")
#: targets by source; the table reports whether they are met
MIN_RATIO_TO_DUCKDB = {"sqlite": 0.38, "duckdb": 0.38, "postgres": 0.45}
MAX_EXTRA_MB = {"sqlite": 100.0, "duckdb": 350.0, "postgres": 100.0}
MIN_RATIO_TO_PEER = 2.0


def prepare_ours(folder: str) -> Callable[[], int]:
    """Return a function that seals the job as submit does. Each run removes the job of the previous one first."""
    from airflow_provider_batch.staging.local import LocalFolder
    from airflow_provider_batch.worker.build import build

    plan = data.make_plan()
    build(plan, data.read_tickets(data.WARM_UP_SQL), LocalFolder(Path(folder) / "warm-up"))
    job_path = Path(folder) / "job"

    def run() -> int:
        shutil.rmtree(job_path, ignore_errors=True)
        return build(plan, data.read_tickets(), LocalFolder(job_path)).manifest.requests

    return run


def prepare_duckdb_copy(folder: str, database: str) -> Callable[[], int]:
    """Return a function that writes the same lines with one thread of DuckDB, from a table in the file `database`."""
    import duckdb

    from airflow_provider_batch.core.requests.render import compile_renderer

    plan = data.make_plan()
    (sample,) = compile_renderer(plan.spec, ("id", "title", "body", "label"), {})([(0, "a", "b", None)], 1)
    schema = msgspec.json.encode(msgspec.json.decode(sample.body)["response_format"]).decode()
    connection = duckdb.connect(database, read_only=True)
    connection.execute("SET threads = 1")
    target = Path(folder) / "duckdb.jsonl"

    def copy(limit: str = "") -> int:
        target.unlink(missing_ok=True)
        row = connection.execute(
            f"""COPY (
                SELECT 'ticket-' || id AS custom_id, 'POST' AS method, '{data.CHAT}' AS url, {{
                    'messages': [
                        {{'content': {_quote(data.SYSTEM)}, 'role': 'system'}},
                        {{'content': title || chr(10) || chr(10) || body, 'role': 'user'}}
                    ],
                    'model': '{data.MODEL}',
                    'response_format': {_quote(schema)}::JSON
                }} AS body FROM tickets ORDER BY id {limit}
            ) TO {_quote(str(target))} (FORMAT json)"""
        ).fetchone()
        assert row is not None
        return int(row[0])

    copy("LIMIT 100")
    return copy


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def prepare_peer(folder: str) -> Callable[[], int]:
    """Return a function that runs the code of LLMBatchOperator on the same rows, up to the upload."""
    from airflow.providers.common.ai.batch import state
    from airflow.providers.common.ai.batch.openai import OpenAIBatchAdapter
    from airflow.providers.common.ai.batch.output_schema import build_output_spec
    from airflow.providers.common.ai.operators.llm_batch import LLMBatchOperator

    from airflow_provider_batch.warehouse.connect import sql_hook

    hook = sql_hook("warehouse")
    target = Path(folder) / "peer.jsonl"

    def write_file(file: tuple[str, bytes], purpose: str) -> SimpleNamespace:
        with open(target, "ab") as output:
            output.write(file[1])
            output.flush()
            os.fsync(output.fileno())
        return SimpleNamespace(id="file-1")

    adapter = OpenAIBatchAdapter(
        client=SimpleNamespace(
            files=SimpleNamespace(create=write_file),
            batches=SimpleNamespace(create=lambda **_: SimpleNamespace(id="batch_1")),
        )
    )

    def build(sql: str = data.SQL) -> int:
        target.unlink(missing_ok=True)
        prompts = [f"{title}\n\n{body}" for _, title, body, _ in hook.get_records(sql)]
        for start in range(0, len(prompts), adapter.max_requests):
            requests = LLMBatchOperator._normalize_requests(prompts[start : start + adapter.max_requests])
            spec = build_output_spec(data.Ticket)
            fingerprint = state.compute_fingerprint(
                requests=requests,
                llm_conn_id="openai",
                model_id=f"openai:{data.MODEL}",
                system_prompt=data.SYSTEM,
                max_tokens=1024,
                request_params=None,
                output_schema=spec.json_schema,
            )
            options: dict[str, Any] = {
                "model": data.MODEL,
                "output_spec": spec,
                "idempotency_key": "0123456789abcdef",
                "system_prompt": data.SYSTEM,
            }
            adapter.validate_requests(requests, **options)
            adapter.submit(requests, input_fingerprint=fingerprint, **options)
        return len(prompts)

    build(data.WARM_UP_SQL)
    return build


@dataclass(frozen=True)
class Warehouse:
    """A database with the table `tickets`."""

    #: makes it Airflow's connection `warehouse`
    environment: dict[str, str]
    #: process of its server, if it has one
    server_pid: int | None = None


@contextmanager
def warehouse_of_tickets(source: str, rows: int, folder: Path) -> Iterator[Warehouse]:
    """Create a warehouse with `rows` tickets, and remove it at the end."""
    if source == "sqlite":
        path = folder / f"warehouse-{rows}.db"
        data.fill_sqlite(path, rows)
        yield Warehouse({"AIRFLOW_CONN_WAREHOUSE": json.dumps({"conn_type": "sqlite", "host": str(path)})})
        path.unlink()
        return
    if source == "duckdb":
        path = folder / f"warehouse-{rows}.duckdb"
        data.fill_duckdb(path, rows)
        # By default Airflow's hook replaces rows with REPLACE INTO, which DuckDB does not support.
        extra = {"replace_statement_format": "INSERT OR REPLACE INTO {} {} VALUES ({})"}
        connection = json.dumps({"conn_type": "duckdb", "host": str(path), "extra": extra})
        yield Warehouse({"AIRFLOW_CONN_WAREHOUSE": connection})
        path.unlink()
        return
    with running_postgres() as server, server.database() as database:
        data.fill_postgres(database, rows)
        yield Warehouse({"AIRFLOW_CONN_WAREHOUSE": database.airflow_connection()}, server.pid)


def check_lines(job: Path, duckdb_file: Path, count: int) -> None:
    """Raise AssertionError unless DuckDB wrote the same requests as we sealed, in the same order.

    Counts all lines and compares every 100th.
    """
    shards = sorted(path for path in job.glob("**/*.jsonl") if not path.name.endswith(".rows.jsonl"))
    with ExitStack() as stack:
        sealed_lines = chain.from_iterable(stack.enter_context(open(shard, "rb")) for shard in shards)
        duckdb_lines = stack.enter_context(open(duckdb_file, "rb"))
        lines = 0
        for sealed_line, duckdb_line in zip(sealed_lines, duckdb_lines, strict=True):
            if lines % 100 == 0:
                equal = msgspec.json.decode(sealed_line) == msgspec.json.decode(duckdb_line)
                assert equal, f"line {lines} differs"
            lines += 1
    assert lines == count


def measure(source: str, rows: int, runs: int, folder: Path) -> list[Figure]:
    """Measure one source and number of rows."""
    duckdb_file = folder / f"tickets-{rows}.duckdb"
    if not duckdb_file.exists():
        data.fill_duckdb(duckdb_file, rows)
    cases: dict[str, dict[str, str]] = {
        "prepare_ours": {},
        "prepare_duckdb_copy": {"database": str(duckdb_file)},
        "prepare_peer": {},
    }
    with warehouse_of_tickets(source, rows, folder) as warehouse, ExitStack() as stack:
        workers = [
            stack.enter_context(
                Worker(
                    f"benchmarks.sealing:{case}",
                    logs=folder,
                    environment=warehouse.environment,
                    server_pid=warehouse.server_pid,
                    folder=str(folder),
                    **arguments,
                )
            )
            for case, arguments in cases.items()
        ]
        measurements = run_in_turns([worker.run for worker in workers], runs)
        check_lines(folder / "job", folder / "duckdb.jsonl", rows)
    assert {measurement.result for case in measurements for measurement in case} == {rows}
    ours, duckdb, peer = measurements
    anchors = [
        Anchor("DuckDB COPY, one thread", duckdb, MIN_RATIO_TO_DUCKDB[source]),
        Anchor("LLMBatchOperator's build", peer, MIN_RATIO_TO_PEER),
    ]
    return compare(f"{source}, {rows:,} rows: sealed", ours, anchors, max_extra_mb=MAX_EXTRA_MB[source])


def main() -> None:
    """Measure and report."""
    run_for_sizes("Rows of a query -> sealed shards", __doc__, "--source", SOURCES, measure)


if __name__ == "__main__":
    main()
