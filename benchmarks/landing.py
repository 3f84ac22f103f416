"""Time and memory to land a job: from collected result files to an upserted table or a file.

    python -m benchmarks.landing [--rows 10000 100000] [--runs 5] [--into postgres duckdb sqlite parquet jsonl]
        [--json FILE]

The result files of a sealed job are read, validated against the schema, priced and upserted by key, as
BatchResultsOperator does it. Every run lands into a new table and then lands the same rows a second time, over the
existing ones. Each run also measures, on the same machine:

* A bare `COPY` of the same rows, parsed in advance, into the same PostgreSQL table with the same key: psycopg's
  `write_row`.
* Airflow's `hook.insert_rows(replace=True)` of the same rows, parsed in advance, into the same table. It is so slow
  that it gets 5,000 rows at most, and 500 in DuckDB, where it commits each row separately.
* `LLMBatchOperator` of apache-airflow-providers-common-ai: its own landing code, which writes a JSON file instead of a
  table. Its client reads the same files from disk.

Landings into a Parquet file and a file of JSON lines are compared with `LLMBatchOperator` only.

Memory is the peak of a process minus the memory it used after its imports.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path
from time import process_time
from types import SimpleNamespace
from typing import Any

from benchmarks import data
from benchmarks.measure import MB, Figure, measure_time, run_for_sizes
from benchmarks.sealing import warehouse_of_tickets
from benchmarks.worker import Worker

DATABASES = ("postgres", "duckdb", "sqlite")
#: endings of files
FILES = ("parquet", "jsonl")
#: targets; the table reports whether they are met
MIN_RATIO_TO_COPY, MIN_RATIO_TO_INSERT_ROWS = 0.4, 5.0
#: maximum number of rows for `insert_rows`
MAX_INSERTED_ROWS = {"postgres": 5_000, "duckdb": 500, "sqlite": 5_000}
KEY = ["custom_id"]


def prepare_job(folder: str) -> Callable[[], int]:
    """Return a function that seals a job and writes an answer for every request: the staging folder before landing."""
    from airflow_provider_batch.core.answers.result_files import read_rows
    from airflow_provider_batch.core.ledger.ledger import seal
    from airflow_provider_batch.core.ledger.records import CollectedFile, Created, Intent, Settled, Uploaded
    from airflow_provider_batch.staging.local import LocalFolder
    from airflow_provider_batch.worker.build import build

    def run() -> int:
        job = LocalFolder(Path(folder) / "job")
        ledger = seal(job, build(data.make_plan(), data.read_tickets(), job).manifest)
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
        return ledger.manifest.requests

    return run


class _Job:
    """The job in staging and its results table, as `BatchResultsOperator` sets them up."""

    def __init__(self, folder: str) -> None:
        from airflow_provider_batch.core.ledger.ledger import open_ledger
        from airflow_provider_batch.staging.local import LocalFolder
        from airflow_provider_batch.warehouse.connect import sql_hook

        ledger = open_ledger(LocalFolder(Path(folder) / "job"))
        assert ledger is not None
        self.ledger, self.hook = ledger, sql_hook("warehouse")
        self._tables = 0

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

    def create_empty_table(self, prefix: str) -> str:
        """Create a results table and return its name. Drop the previous table with this prefix."""
        self._tables += 1
        with closing(self.hook.get_conn()) as connection:
            connection.cursor().execute(f"DROP TABLE IF EXISTS {prefix}_{self._tables - 1}")
            connection.commit()
        table = f"{prefix}_{self._tables}"
        self.sink(table).prepare()
        return table


def prepare_ours(folder: str) -> Callable[[], dict[str, float]]:
    """Return a function that lands the job into a new table, then lands it into the same table a second time."""
    job = _Job(folder)

    def run() -> dict[str, float]:
        table = job.create_empty_table("ours")
        with measure_time() as first:
            count = job.sink(table).write(job.landing())
        with measure_time() as second:
            job.sink(table).write(job.landing())
        return {"rows": count, "seconds": first.seconds, "second_seconds": second.seconds}

    return run


def prepare_file(folder: str, ending: str) -> Callable[[], dict[str, float]]:
    """Return a function that lands the job into a file."""
    from airflow_provider_batch.core.landing.columns import results_columns
    from airflow_provider_batch.warehouse.results_file import ResultsFile

    job = _Job(folder)
    columns = results_columns(job.ledger.manifest, key={}, columns=data.COLUMNS)

    def run() -> dict[str, float]:
        path = Path(folder) / f"landed.{ending}"
        start = process_time()
        with measure_time() as timer:
            count = ResultsFile(str(path), columns).write(job.landing())
        return {
            "rows": count,
            "seconds": timer.seconds,
            "cpu_seconds": process_time() - start,
            "megabytes": path.stat().st_size / MB,
        }

    return run


def prepare_copy(folder: str) -> Callable[[], dict[str, float]]:
    """Return a function that runs a bare COPY of rows parsed in advance."""
    job = _Job(folder)
    rows = list(job.landing())
    names = ", ".join(job.column_names())

    def run() -> dict[str, float]:
        table = job.create_empty_table("copied")
        with closing(job.hook.get_conn()) as connection:
            with measure_time() as timer:
                with connection.cursor() as cursor, cursor.copy(f"COPY {table} ({names}) FROM STDIN") as copy:
                    for row in rows:
                        copy.write_row(row)
                connection.commit()
        return {"rows": len(rows), "seconds": timer.seconds}

    return run


def prepare_insert_rows(folder: str, max_rows: int) -> Callable[[], dict[str, float]]:
    """Return a function that calls `insert_rows(replace=True)` with rows parsed in advance."""
    job = _Job(folder)
    rows = [tuple(map(_to_bindable, row)) for row in islice(job.landing(), max_rows)]
    names = job.column_names()

    def run() -> dict[str, float]:
        table = job.create_empty_table("inserted")
        with measure_time() as timer:
            job.hook.insert_rows(table, rows, target_fields=names, replace=True, replace_index=KEY)
        return {"rows": len(rows), "seconds": timer.seconds}

    return run


def _to_bindable(value: Any) -> Any:
    """Convert a value to one that every driver accepts. sqlite3 accepts neither Decimal nor datetime."""
    return value if value is None or isinstance(value, (str, int, float)) else str(value)


def prepare_peer(folder: str) -> Callable[[], dict[str, float]]:
    """Return a function that runs LLMBatchOperator's landing code on the same files."""
    from airflow.providers.common.ai.batch.openai import OpenAIBatchAdapter
    from airflow.providers.common.ai.batch.output_schema import build_output_spec
    from airflow.providers.common.ai.batch.results import stream_results_to_jsonl
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    files = sorted((Path(folder) / "job").glob("*/collected/*/output.jsonl"))
    requests = _Job(folder).ledger.manifest.requests

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

    def run() -> dict[str, float]:
        with measure_time() as timer:
            counts, _ = stream_results_to_jsonl(
                adapter=adapter,
                batch_id="batch_1",
                output_spec=build_output_spec(data.Ticket),
                request_count=requests,
                custom_id_prefix="ticket",
                destination=ObjectStoragePath(f"file://{folder}/peer-landed.jsonl"),
            )
        return {"rows": counts["success"], "seconds": timer.seconds}

    return run


def measure(target: str, rows: int, runs: int, folder: Path) -> list[Figure]:
    """Measure one target and number of rows."""
    return (measure_file if target in FILES else measure_table)(target, rows, runs, folder)


def measure_file(ending: str, rows: int, runs: int, folder: Path) -> list[Figure]:
    """Measure landings into a file."""
    peer = "LLMBatchOperator's landing"
    rate = Figure(f"{ending} file, {rows:,} rows: landed", "rows/s", anchor=peer)
    cpu, size = Figure("  CPU for each row", "µs"), Figure("  size of the file", "MB")
    extra = Figure("  extra memory", "MB", anchor=peer)
    work_folder = folder / f"{ending}-{rows}"
    work_folder.mkdir()
    with warehouse_of_tickets("sqlite", rows, work_folder) as environment, ExitStack() as stack:

        def start(function: str, **arguments: Any) -> Worker:
            case = f"benchmarks.landing:{function}"
            return Worker(case, logs=folder, environment=environment, folder=str(work_folder), **arguments)

        with start("prepare_job") as preparation:
            assert preparation.run().result == rows
        our_worker = stack.enter_context(start("prepare_file", ending=ending))
        peer_worker = stack.enter_context(start("prepare_peer"))
        for _ in range(runs):
            ours, theirs = our_worker.run(), peer_worker.run()
            assert ours.result["rows"] == theirs.result["rows"] == rows
            rate.add(rows / ours.result["seconds"], rows / theirs.result["seconds"])
            cpu.add(ours.result["cpu_seconds"] / rows * 1e6)
            size.add(ours.result["megabytes"])
            extra.add(ours.extra_mb, theirs.extra_mb)
    shutil.rmtree(work_folder)
    return [rate, cpu, size, extra]


def measure_table(target: str, rows: int, runs: int, folder: Path) -> list[Figure]:
    """Measure landings into a table."""
    min_ratio_to_copy = MIN_RATIO_TO_COPY if target == "postgres" else None
    figures = {
        "prepare_copy": Figure("", "rows/s", anchor="bare COPY, parsed in advance", min_ratio=min_ratio_to_copy),
        "prepare_insert_rows": Figure(
            "", "rows/s", anchor="insert_rows, parsed in advance", min_ratio=MIN_RATIO_TO_INSERT_ROWS
        ),
        "prepare_peer": Figure("", "rows/s", anchor="LLMBatchOperator's landing"),
    }
    if target != "postgres":
        del figures["prepare_copy"]
    second_landing = Figure("  second landing, over the same rows", "rows/s")
    extra = Figure("  extra memory", "MB", anchor="LLMBatchOperator's landing")
    work_folder = folder / f"{target}-{rows}"
    work_folder.mkdir()
    with warehouse_of_tickets(target, rows, work_folder) as environment, ExitStack() as stack:

        def start(function: str) -> Worker:
            case = f"benchmarks.landing:{function}"
            arguments = {"max_rows": MAX_INSERTED_ROWS[target]} if function == "prepare_insert_rows" else {}
            return Worker(case, logs=folder, environment=environment, folder=str(work_folder), **arguments)

        with start("prepare_job") as preparation:
            assert preparation.run().result == rows
        our_worker = stack.enter_context(start("prepare_ours"))
        workers = {function: stack.enter_context(start(function)) for function in figures}
        for run in range(runs):
            sequence = [our_worker, *workers.values()]
            measurements = {worker.case: worker.run() for worker in (sequence if run % 2 == 0 else sequence[::-1])}
            ours = measurements[our_worker.case]
            assert ours.result["rows"] == rows
            rate = rows / ours.result["seconds"]
            for function, figure in figures.items():
                result = measurements[workers[function].case].result
                is_capped = function == "prepare_insert_rows"
                assert result["rows"] == (min(rows, MAX_INSERTED_ROWS[target]) if is_capped else rows)
                figure.add(rate, result["rows"] / result["seconds"])
            second_landing.add(rows / ours.result["second_seconds"])
            extra.add(ours.extra_mb, measurements[workers["prepare_peer"].case].extra_mb)
    shutil.rmtree(work_folder)
    first_figure, *other_figures = figures.values()
    first_figure.name = f"{target}, {rows:,} rows: landed"
    for figure in other_figures:
        figure.name = "  same value"
    return [first_figure, *other_figures, second_landing, extra]


def main() -> None:
    """Measure and report."""
    run_for_sizes("Collected result files -> a table or a file", __doc__, "--into", (*DATABASES, *FILES), measure)


if __name__ == "__main__":
    main()
