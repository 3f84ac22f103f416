"""CPU, wall time and memory to land a job: from collected result files to an upserted table or a file.

    python -m benchmarks.landing [--rows 10000 100000] [--runs 5] [--into postgres duckdb sqlite parquet jsonl]
        [--json FILE]

The result files of a sealed job are read, validated against the schema, priced and upserted by key, as
BatchResultsOperator does it. Every run lands into an empty table and then lands the same rows a second time, over the
existing ones. Each run also measures, on the same machine:

* A bare `COPY` of the same rows, parsed in advance, into the same PostgreSQL table with the same key: psycopg's
  `write_row`.
* Airflow's `hook.insert_rows(replace=True)` of the same rows, parsed in advance, into the same table. It is so slow
  that it gets 100,000 rows at most, and 500 in DuckDB, where it commits each row separately.
* `LLMBatchOperator` of apache-airflow-providers-common-ai: its own landing code, which writes a JSON file instead of a
  table. Its client reads the same files from disk.

Landings into a Parquet file and a file of JSON lines are compared with `LLMBatchOperator` only.

Each case runs in its own process, which first warms up with 100 rows. CPU is that of this process and of the PostgreSQL
server together. Memory is the peak of the process minus the memory that it used after it warmed up and had parsed rows
in advance. The ratios are medians over the runs, and the cases take turns within each run.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from itertools import chain, count, islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks import data
from benchmarks.comparison import Anchor, compare, run_in_turns
from benchmarks.measure import MB, Figure, run_for_sizes
from benchmarks.sealing import MAX_EXTRA_MB, warehouse_of_tickets
from benchmarks.worker import Measurement, Worker

DATABASES = ("postgres", "duckdb", "sqlite")
#: endings of files
FILES = ("parquet", "jsonl")
#: targets; the table reports whether they are met
MIN_RATIO_TO_COPY, MIN_RATIO_TO_COPY_OVER_ROWS, MIN_RATIO_TO_INSERT_ROWS = 0.55, 0.45, 2.5
#: maximum number of rows for `insert_rows`
MAX_INSERTED_ROWS = {"postgres": 100_000, "duckdb": 500, "sqlite": 100_000}
KEY = ["custom_id"]
WARM_UP_ROWS = 100


def prepare_job(folder: str) -> Callable[[], int]:
    """Return a function that seals a job and writes an answer for every request: the staging folder before landing.

    It also does this for a few rows, in the folder `warm-up`.
    """
    from airflow_provider_batch.staging.local import LocalFolder

    def run() -> int:
        _seal_and_answer(LocalFolder(_warm_up(folder) / "job"), data.WARM_UP_SQL)
        return _seal_and_answer(LocalFolder(Path(folder) / "job"), data.SQL)

    return run


def _warm_up(folder: str) -> Path:
    return Path(folder) / "warm-up"


def _seal_and_answer(job: Any, sql: str) -> int:
    """Seal a job and write an answer for each request. Return the number of requests."""
    from airflow_provider_batch.core.answers.result_files import read_rows
    from airflow_provider_batch.core.ledger.ledger import seal
    from airflow_provider_batch.core.ledger.records import CollectedFile, Created, Intent, Settled, Uploaded
    from airflow_provider_batch.worker.build import build

    ledger = seal(job, build(data.make_plan(), data.read_tickets(sql), job).manifest)
    now = datetime.now(UTC)
    for shard in ledger.manifest.shards:
        name, size, digest = f"{ledger.prefix}/collected/{shard.name}.1/output.jsonl", 0, hashlib.sha256()
        with job.writer(name) as file:
            for row in read_rows(job, shard):
                line = data.result_line(row.custom_id, int(row.custom_id.partition("-")[2]))
                file.write(line)
                digest.update(line)
                size += len(line)
        ledger.add(Uploaded(shard.name, 1, "file-1", now))
        ledger.add(Intent(shard.name, 1, "nonce", "file-1", now))
        ledger.add(Created(shard.name, 1, f"batch_{shard.name}", now))
        files = [CollectedFile(name, size, digest.hexdigest())]
        ledger.add(Settled(shard.name, 1, f"batch_{shard.name}", "completed", now, files=files))
    requests: int = ledger.manifest.requests
    return requests


class _Job:
    """The job in staging and its results table, as `BatchResultsOperator` sets them up."""

    def __init__(self, folder: str | Path) -> None:
        from airflow_provider_batch.core.ledger.ledger import open_ledger
        from airflow_provider_batch.staging.local import LocalFolder
        from airflow_provider_batch.warehouse.connect import sql_hook

        ledger = open_ledger(LocalFolder(Path(folder) / "job"))
        assert ledger is not None
        self.ledger, self.hook = ledger, sql_hook("warehouse")
        self.table = ""
        self._numbers = count()

    def landing(self) -> Any:
        """Return the rows to land, as an iterable."""
        from airflow_provider_batch.core.landing.landing import Landing

        return Landing(
            self.ledger.folder,
            self.ledger.state(),
            key={},
            columns=data.COLUMNS,
            store_response=False,
            run_id="manual__1",
            landed_at=datetime.now(UTC),
        )

    def column_names(self) -> list[str]:
        """Return the names of the columns, in the order of a row's values."""
        from airflow_provider_batch.core.landing.columns import results_columns

        return [column.name for column in results_columns(self.ledger.manifest, key={}, columns=data.COLUMNS)]

    def sink(self, table: str) -> Any:
        """Return a sink for a results table."""
        from airflow_provider_batch.core.landing.columns import results_columns
        from airflow_provider_batch.warehouse.sinks.open import open_sink

        return open_sink(self.hook, table, results_columns(self.ledger.manifest, key={}, columns=data.COLUMNS))

    def create_empty_table(self) -> str:
        """Create a results table and return its name. Drop the previous one."""
        with closing(self.hook.get_conn()) as connection:
            if self.table:
                connection.cursor().execute(f"DROP TABLE {self.table}")
                connection.commit()
        # The cases of a benchmark share a database.
        self.table = f"results_{os.getpid()}_{next(self._numbers)}"
        self.sink(self.table).prepare()
        return self.table


def prepare_ours(folder: str) -> dict[str, Callable[[], Any]]:
    """Return functions that create a table and land the job into it."""
    job, warm_up = _Job(folder), _Job(_warm_up(folder))

    def land(job: _Job) -> int:
        rows: int = job.sink(job.table).write(job.landing())
        return rows

    warm_up.create_empty_table()
    for _ in range(2):  # into the empty table, and over the same rows
        land(warm_up)
    return {"create_table": job.create_empty_table, "land": lambda: land(job)}


def prepare_file(folder: str, ending: str) -> Callable[[], int]:
    """Return a function that lands the job into a file."""
    from airflow_provider_batch.core.landing.columns import results_columns
    from airflow_provider_batch.warehouse.results_file import ResultsFile

    def land(job: _Job) -> int:
        columns = results_columns(job.ledger.manifest, key={}, columns=data.COLUMNS)
        return ResultsFile(str(landed_file(Path(folder), ending)), columns).write(job.landing())

    job = _Job(folder)
    land(_Job(_warm_up(folder)))
    return lambda: land(job)


def landed_file(folder: Path, ending: str) -> Path:
    """Return the path of the file that the job is landed into."""
    return folder / f"landed.{ending}"


def prepare_copy(folder: str) -> dict[str, Callable[[], Any]]:
    """Return functions that create a table and run a bare COPY of rows parsed in advance."""
    job = _Job(folder)
    rows = list(job.landing())
    names = ", ".join(job.column_names())

    def copy_rows(rows: list[Any]) -> int:
        with closing(job.hook.get_conn()) as connection:
            with connection.cursor() as cursor, cursor.copy(f"COPY {job.table} ({names}) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
            connection.commit()
        return len(rows)

    job.create_empty_table()
    copy_rows(rows[:WARM_UP_ROWS])
    return {"create_table": job.create_empty_table, "land": lambda: copy_rows(rows)}


def prepare_insert_rows(folder: str, max_rows: int) -> dict[str, Callable[[], Any]]:
    """Return functions that create a table and call `insert_rows(replace=True)` with rows parsed in advance."""
    job = _Job(folder)
    rows = [tuple(map(_to_bindable, row)) for row in islice(job.landing(), max_rows)]
    names = job.column_names()

    def insert(rows: list[Any]) -> int:
        job.hook.insert_rows(job.table, rows, target_fields=names, replace=True, replace_index=KEY)
        return len(rows)

    job.create_empty_table()
    insert(rows[:WARM_UP_ROWS])
    return {"create_table": job.create_empty_table, "land": lambda: insert(rows)}


def _to_bindable(value: Any) -> Any:
    """Convert a value to one that every driver accepts. sqlite3 accepts neither Decimal nor datetime."""
    return value if value is None or isinstance(value, (str, int, float)) else str(value)


def prepare_peer(folder: str) -> Callable[[], int]:
    """Return a function that runs LLMBatchOperator's landing code on the same files."""
    from airflow.providers.common.ai.batch.openai import OpenAIBatchAdapter
    from airflow.providers.common.ai.batch.output_schema import build_output_spec
    from airflow.providers.common.ai.batch.results import stream_results_to_jsonl
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    def land(job_folder: Path) -> int:
        files = sorted((job_folder / "job").glob("*/collected/*/output.jsonl"))

        @contextmanager
        def content(file_id: str) -> Iterator[SimpleNamespace]:
            with ExitStack() as stack:
                lines = [stack.enter_context(open(file, encoding="utf-8", newline="\n")) for file in files]
                yield SimpleNamespace(iter_lines=lambda: chain.from_iterable(lines))

        streaming = SimpleNamespace(with_streaming_response=SimpleNamespace(content=content))
        batch = SimpleNamespace(output_file_id="file-1", error_file_id=None)
        adapter = OpenAIBatchAdapter(
            client=SimpleNamespace(files=streaming, batches=SimpleNamespace(retrieve=lambda _: batch))
        )
        counts, _ = stream_results_to_jsonl(
            adapter=adapter,
            batch_id="batch_1",
            output_spec=build_output_spec(data.Ticket),
            request_count=_Job(job_folder).ledger.manifest.requests,
            custom_id_prefix="ticket",
            destination=ObjectStoragePath(f"file://{folder}/peer-landed.jsonl"),
        )
        successes: int = counts["success"]
        return successes

    land(_warm_up(folder))
    return lambda: land(Path(folder))


@contextmanager
def landing_workers(
    target: str, rows: int, folder: Path, cases: dict[str, dict[str, Any]]
) -> Iterator[dict[str, Worker]]:
    """Create a job with an answer for every request, and start a worker for each case. Remove everything at the end.

    :param target: the database that has the rows.
    :param cases: arguments of each case, by its function in this module.
    """
    work_folder = folder / f"{target}-{rows}"
    work_folder.mkdir()
    with warehouse_of_tickets(target, rows, work_folder) as warehouse, ExitStack() as stack:

        def start(case: str, **arguments: Any) -> Worker:
            return Worker(
                f"benchmarks.landing:{case}",
                logs=folder,
                environment=warehouse.environment,
                server_pid=warehouse.server_pid,
                folder=str(work_folder),
                **arguments,
            )

        with start("prepare_job") as preparation:
            assert preparation.run().result == rows
        yield {case: stack.enter_context(start(case, **arguments)) for case, arguments in cases.items()}
    shutil.rmtree(work_folder)


def measure(target: str, rows: int, runs: int, folder: Path) -> list[Figure]:
    """Measure one target and number of rows."""
    return (measure_file if target in FILES else measure_table)(target, rows, runs, folder)


def measure_file(ending: str, rows: int, runs: int, folder: Path) -> list[Figure]:
    """Measure landings into a file."""
    cases: dict[str, dict[str, Any]] = {"prepare_file": {"ending": ending}, "prepare_peer": {}}
    with landing_workers("sqlite", rows, folder, cases) as workers:
        ours, peer = run_in_turns([worker.run for worker in workers.values()], runs)
        megabytes = landed_file(folder / f"sqlite-{rows}", ending).stat().st_size / MB
    assert {run.result for run in (*ours, *peer)} == {rows}
    return [
        *compare(f"{ending} file, {rows:,} rows: landed", ours, [Anchor("LLMBatchOperator's landing", peer)]),
        Figure("  size of the file", "MB", [megabytes]),
    ]


def measure_table(target: str, rows: int, runs: int, folder: Path) -> list[Figure]:
    """Measure landings into a table."""
    max_rows = MAX_INSERTED_ROWS[target]
    cases: dict[str, dict[str, Any]] = {
        "prepare_ours": {},
        "prepare_copy": {},
        "prepare_insert_rows": {"max_rows": max_rows},
        "prepare_peer": {},
    }
    if target != "postgres":
        del cases["prepare_copy"]
    second_landings: list[Measurement] = []
    with landing_workers(target, rows, folder, cases) as workers:

        def land_twice() -> Measurement:
            first = _land_into_new_table(workers["prepare_ours"])
            second_landings.append(workers["prepare_ours"].run("land"))
            return first

        functions: dict[str, Callable[[], Measurement]] = {
            case: partial(_land_into_new_table, worker) for case, worker in workers.items()
        }
        functions |= {"prepare_ours": land_twice, "prepare_peer": workers["prepare_peer"].run}
        results = run_in_turns(list(functions.values()), runs)
    first_landings, *copies, inserts, peer = results
    assert {run.result for run in (*first_landings, *second_landings, *peer)} == {rows}
    assert {run.result for run in inserts} == {min(rows, max_rows)}
    bare_copy = "bare COPY, parsed in advance"
    name = f"{target}, {rows:,} rows"
    return [
        *compare(
            f"{name}, an empty table",
            first_landings,
            [
                *(Anchor(bare_copy, copy, MIN_RATIO_TO_COPY) for copy in copies),
                Anchor(f"insert_rows of {min(rows, max_rows):,} rows", inserts, MIN_RATIO_TO_INSERT_ROWS),
                Anchor("LLMBatchOperator's landing", peer),
            ],
            max_extra_mb=MAX_EXTRA_MB[target],
        ),
        *compare(
            f"{name}, over the same rows",
            second_landings,
            [Anchor(bare_copy, copy, MIN_RATIO_TO_COPY_OVER_ROWS) for copy in copies],
            max_extra_mb=MAX_EXTRA_MB[target],
        ),
    ]


def _land_into_new_table(worker: Worker) -> Measurement:
    worker.run("create_table")
    return worker.run("land")


def main() -> None:
    """Measure and report."""
    run_for_sizes("Collected result files -> a table or a file", __doc__, "--into", (*DATABASES, *FILES), measure)


if __name__ == "__main__":
    main()
