"""Time and memory to seal a job: from the rows of a query to sealed shards.

    python -m benchmarks.sealing [--rows 10000 100000] [--runs 5] [--source sqlite duckdb postgres] [--json FILE]

Rows of about 1 KB become requests with a system prompt, a prompt from two columns and a schema. They are read,
rendered, counted, priced, checked for unique custom_ids, written and synced to disk. Each run also measures, on the
same machine:

* DuckDB with one thread: `COPY (...) TO ... (FORMAT json)` of the same lines. It always reads a DuckDB table, no matter
  which source the other two read.
* `LLMBatchOperator` of apache-airflow-providers-common-ai: its own code, from prompts to the bytes that it would
  upload, in chunks of 50,000 requests, which is its maximum. The prompts come from `hook.get_records` of the
  same query.

Memory is the peak of a process minus the memory it used after its imports.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec

from benchmarks import data
from benchmarks.measure import Figure, run_for_sizes
from benchmarks.worker import Worker
from tests.postgres import running_postgres

SOURCES = ("sqlite", "duckdb", "postgres")
#: targets; the table reports whether they are met
MIN_RATIO_TO_DUCKDB, MIN_RATIO_TO_PEER, MAX_EXTRA_MB = 0.5, 5.0, 64.0


def prepare_ours(folder: str) -> Callable[[], int]:
    """Return a function that seals the job as submit does. Each run removes the job of the previous one first."""
    from airflow_provider_batch.staging.local import LocalFolder
    from airflow_provider_batch.worker.build import build

    plan = data.make_plan()
    with data.read_tickets():
        pass  # connect once, so that the first run does not measure the imports
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
    sample = compile_renderer(plan.spec, ("id", "title", "body", "label"), {})((0, "a", "b", None), 1)
    schema = msgspec.json.encode(msgspec.json.decode(sample.body)["response_format"]).decode()
    connection = duckdb.connect(database, read_only=True)
    connection.execute("SET threads = 1")
    target = Path(folder) / "duckdb.jsonl"

    def run() -> int:
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
                }} AS body FROM tickets ORDER BY id
            ) TO {_quote(str(target))} (FORMAT json)"""
        ).fetchone()
        assert row is not None
        return int(row[0])

    return run


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

    def run() -> int:
        target.unlink(missing_ok=True)
        prompts = [f"{title}\n\n{body}" for _, title, body, _ in hook.get_records(data.SQL)]
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

    return run


@contextmanager
def warehouse_of_tickets(source: str, rows: int, folder: Path) -> Iterator[dict[str, str]]:
    """Create a warehouse with `rows` tickets. Yield the environment that makes it Airflow's connection `warehouse`."""
    if source == "sqlite":
        path = folder / f"warehouse-{rows}.db"
        data.fill_sqlite(path, rows)
        yield {"AIRFLOW_CONN_WAREHOUSE": json.dumps({"conn_type": "sqlite", "host": str(path)})}
        path.unlink()
        return
    if source == "duckdb":
        path = folder / f"warehouse-{rows}.duckdb"
        data.fill_duckdb(path, rows)
        # By default Airflow's hook replaces rows with REPLACE INTO, which DuckDB does not support.
        extra = {"replace_statement_format": "INSERT OR REPLACE INTO {} {} VALUES ({})"}
        yield {"AIRFLOW_CONN_WAREHOUSE": json.dumps({"conn_type": "duckdb", "host": str(path), "extra": extra})}
        path.unlink()
        return
    with running_postgres() as server, server.database() as database:
        data.fill_postgres(database, rows)
        yield {"AIRFLOW_CONN_WAREHOUSE": database.airflow_connection()}


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
    name = f"{source}, {rows:,} rows"
    to_duckdb = Figure(f"{name}: sealed", "rows/s", anchor="DuckDB COPY, one thread", min_ratio=MIN_RATIO_TO_DUCKDB)
    to_peer = Figure("  same value", "rows/s", anchor="LLMBatchOperator's build", min_ratio=MIN_RATIO_TO_PEER)
    extra = Figure("  extra memory", "MB", anchor="LLMBatchOperator's build", max_median=MAX_EXTRA_MB)
    duckdb_file = folder / f"tickets-{rows}.duckdb"
    if not duckdb_file.exists():
        data.fill_duckdb(duckdb_file, rows)
    with warehouse_of_tickets(source, rows, folder) as environment, ExitStack() as stack:

        def start(function: str, **arguments: str) -> Worker:
            case = f"benchmarks.sealing:{function}"
            return stack.enter_context(
                Worker(case, logs=folder, environment=environment, folder=str(folder), **arguments)
            )

        workers = [
            start("prepare_ours"),
            start("prepare_duckdb_copy", database=str(duckdb_file)),
            start("prepare_peer"),
        ]
        for run in range(runs):
            sequence = workers if run % 2 == 0 else workers[::-1]
            measurements = {worker.case: worker.run() for worker in sequence}
            ours, duckdb, peer = (measurements[worker.case] for worker in workers)
            assert ours.result == duckdb.result == peer.result == rows
            to_duckdb.add(rows / ours.seconds, rows / duckdb.seconds)
            to_peer.add(rows / ours.seconds, rows / peer.seconds)
            extra.add(ours.extra_mb, peer.extra_mb)
        check_lines(folder / "job", folder / "duckdb.jsonl", rows)
    return [to_duckdb, to_peer, extra]


def main() -> None:
    """Measure and report."""
    run_for_sizes("Rows of a query -> sealed shards", __doc__, "--source", SOURCES, measure)


if __name__ == "__main__":
    main()
