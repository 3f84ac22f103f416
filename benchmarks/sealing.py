"""How fast and how small: the rows of a query -> sealed shards.

    python -m benchmarks.sealing [--rows 10000 100000] [--runs 5] [--source sqlite duckdb postgres] [--json FILE]

Rows of about 1 KB become requests with a system prompt, a prompt of two columns and a schema: read, rendered,
counted, priced, proven unique, written and synced. Beside it in each run, on the same machine:

* DuckDB with one thread: `COPY (...) TO ... (FORMAT json)` of the same lines, from a table of its own, whatever the
  source of the other two.
* `LLMBatchOperator` of apache-airflow-providers-common-ai: its own code from prompts to the bytes it would upload,
  in pieces of the 50,000 requests that it takes at most; the prompts come from `hook.get_records` of the same query.

Memory is the peak of a process over what it held before, its imports done.
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
from benchmarks.measure import Figure, report_sizes
from benchmarks.worker import Worker
from tests.postgres import running_postgres

SOURCES = ("sqlite", "duckdb", "postgres")
#: a miss of these is told in the table
LEAST_OF_DUCKDB, LEAST_OF_PEER, MOST_MB = 0.5, 5.0, 64.0


def ours(folder: str) -> Callable[[], int]:
    """Sealed shards, as submit builds them; every run in a folder that is removed before the next."""
    from airflow_provider_batch.staging.local import LocalFolder
    from airflow_provider_batch.warehouse.connect import sql_hook
    from airflow_provider_batch.worker.build import build

    hook, plan = sql_hook("warehouse"), data.plan()
    hook.get_conn().close()
    place = Path(folder) / "job"

    def run() -> int:
        shutil.rmtree(place, ignore_errors=True)
        return build(plan, hook, LocalFolder(place)).manifest.requests

    return run


def duckdb_copy(folder: str, database: str) -> Callable[[], int]:
    """The same lines, written by DuckDB with one thread from a table of its own."""
    import duckdb

    from airflow_provider_batch.core.requests.render import compile_renderer

    plan = data.plan()
    sample = compile_renderer(plan.spec, ("id", "title", "body", "label"), {})((0, "a", "b", None), 1)
    schema = msgspec.json.encode(msgspec.json.decode(sample.body)["response_format"]).decode()
    connection = duckdb.connect(database, read_only=True)
    connection.execute("SET threads = 1")
    target = Path(folder) / "duckdb.jsonl"

    def run() -> int:
        target.unlink(missing_ok=True)
        copied = connection.execute(
            f"""COPY (
                SELECT 'ticket-' || id AS custom_id, 'POST' AS method, '{data.CHAT}' AS url, {{
                    'messages': [
                        {{'content': {_quoted(data.SYSTEM)}, 'role': 'system'}},
                        {{'content': title || chr(10) || chr(10) || body, 'role': 'user'}}
                    ],
                    'model': '{data.MODEL}',
                    'response_format': {_quoted(schema)}::JSON
                }} AS body FROM tickets ORDER BY id
            ) TO {_quoted(str(target))} (FORMAT json)"""
        ).fetchone()
        assert copied is not None
        return int(copied[0])

    return run


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def peer(folder: str) -> Callable[[], int]:
    """The same rows through LLMBatchOperator's own code, as its `execute` calls it up to the upload."""
    from airflow.providers.common.ai.batch import state
    from airflow.providers.common.ai.batch.openai import OpenAIBatchAdapter
    from airflow.providers.common.ai.batch.output_schema import build_output_spec
    from airflow.providers.common.ai.operators.llm_batch import LLMBatchOperator

    from airflow_provider_batch.warehouse.connect import sql_hook

    hook = sql_hook("warehouse")
    target = Path(folder) / "peer.jsonl"

    def keep(file: tuple[str, bytes], purpose: str) -> SimpleNamespace:
        with open(target, "ab") as out:
            out.write(file[1])
            out.flush()
            os.fsync(out.fileno())
        return SimpleNamespace(id="file-1")

    adapter = OpenAIBatchAdapter(
        client=SimpleNamespace(
            files=SimpleNamespace(create=keep),
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
            given: dict[str, Any] = {
                "model": data.MODEL,
                "output_spec": spec,
                "idempotency_key": "0123456789abcdef",
                "system_prompt": data.SYSTEM,
            }
            adapter.validate_requests(requests, **given)
            adapter.submit(requests, input_fingerprint=fingerprint, **given)
        return len(prompts)

    return run


@contextmanager
def filled(source: str, rows: int, folder: Path) -> Iterator[dict[str, str]]:
    """A source with so many rows; the environment in which Airflow's connection `warehouse` leads to it."""
    if source == "sqlite":
        path = folder / f"warehouse-{rows}.db"
        data.fill_sqlite(path, rows)
        yield {"AIRFLOW_CONN_WAREHOUSE": json.dumps({"conn_type": "sqlite", "host": str(path)})}
        path.unlink()
        return
    if source == "duckdb":
        path = folder / f"warehouse-{rows}.duckdb"
        data.fill_duckdb(path, rows)
        # Unless told, Airflow's hook replaces rows with REPLACE INTO, which DuckDB does not know.
        extra = {"replace_statement_format": "INSERT OR REPLACE INTO {} {} VALUES ({})"}
        yield {"AIRFLOW_CONN_WAREHOUSE": json.dumps({"conn_type": "duckdb", "host": str(path), "extra": extra})}
        path.unlink()
        return
    with running_postgres() as server, server.database() as database:
        data.fill_postgres(database, rows)
        yield {"AIRFLOW_CONN_WAREHOUSE": database.airflow_connection()}


def same_lines(job: Path, copied: Path, count: int) -> None:
    """The anchor wrote what we sealed: the same requests, in the same order."""
    shards = sorted(path for path in job.glob("**/*.jsonl") if not path.name.endswith(".rows.jsonl"))
    with ExitStack() as stack:
        mine = chain.from_iterable(stack.enter_context(open(shard, "rb")) for shard in shards)
        its = stack.enter_context(open(copied, "rb"))
        lines = 0
        for one, other in zip(mine, its, strict=True):
            assert lines % 100 or msgspec.json.decode(one) == msgspec.json.decode(other), f"line {lines} differs"
            lines += 1
    assert lines == count


def measured(source: str, rows: int, runs: int, folder: Path) -> list[Figure]:
    """All of it for one source and size."""
    name = f"{source}, {rows:,} rows"
    to_duckdb = Figure(f"{name}: sealed", "rows/s", anchor="DuckDB COPY, one thread", least=LEAST_OF_DUCKDB)
    to_peer = Figure("  the same", "rows/s", anchor="LLMBatchOperator's build", least=LEAST_OF_PEER)
    extra = Figure("  extra memory", "MB", anchor="LLMBatchOperator's build", most=MOST_MB)
    duckdb_file = folder / f"tickets-{rows}.duckdb"
    if not duckdb_file.exists():
        data.fill_duckdb(duckdb_file, rows)
    with filled(source, rows, folder) as environment, ExitStack() as stack:

        def start(case: str, **arguments: str) -> Worker:
            at = f"benchmarks.sealing:{case}"
            return stack.enter_context(
                Worker(at, logs=folder, environment=environment, folder=str(folder), **arguments)
            )

        workers = [start("ours"), start("duckdb_copy", database=str(duckdb_file)), start("peer")]
        for run in range(runs):
            turn = workers if run % 2 == 0 else workers[::-1]
            took = {worker.case: worker.run() for worker in turn}
            mine, its, peers = (took[worker.case] for worker in workers)
            assert mine.returned == its.returned == peers.returned == rows
            to_duckdb.add(rows / mine.seconds, rows / its.seconds)
            to_peer.add(rows / mine.seconds, rows / peers.seconds)
            extra.add(mine.extra_mb, peers.extra_mb)
        same_lines(folder / "job", folder / "duckdb.jsonl", rows)
    return [to_duckdb, to_peer, extra]


def main() -> None:
    """Measure and report."""
    report_sizes("The rows of a query -> sealed shards", __doc__, "--source", SOURCES, measured)


if __name__ == "__main__":
    main()
