"""How fast and how small: collected files -> an upserted table.

    python -m benchmarks.landing [--rows 10000 100000] [--runs 5] [--into postgres duckdb sqlite] [--json FILE]

The result files of a sealed job are read, judged against the schema, priced, and upserted by key, as land does it;
every run into a new table. Beside it in each run, on the same machine:

* A bare `COPY` of the same rows, already parsed, into the same PostgreSQL table, with its key: psycopg's `write_row`.
* Airflow's `hook.insert_rows(replace=True)` of the same rows, already parsed, into the same table. It is so
  slow that it is given 5,000 of them at most, and 500 in DuckDB, where it commits each row by itself.
* `LLMBatchOperator` of apache-airflow-providers-common-ai: its own landing code, which writes a JSON file and no table.
  Its client reads the same files from the disk.

Memory is the peak of a process over what it held before, its imports done. `again` lands the same rows once more, over
those that are there.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks import data
from benchmarks.measure import Figure, report_sizes, timed
from benchmarks.sealing import filled
from benchmarks.worker import Worker

TARGETS = ("postgres", "duckdb", "sqlite")
LEAST_OF_COPY, LEAST_OF_INSERT_ROWS = 0.4, 5.0
#: rows that `insert_rows` is given at most
FEW = {"postgres": 5_000, "duckdb": 500, "sqlite": 5_000}
KEY = ["custom_id"]


def collect(folder: str) -> Callable[[], int]:
    """A sealed job whose every request is answered: what lies in staging when land begins."""
    from airflow_provider_batch.core.answers.result_files import read_rows
    from airflow_provider_batch.core.ledger.ledger import seal
    from airflow_provider_batch.core.ledger.records import CollectedFile, Created, Intent, Settled, Uploaded
    from airflow_provider_batch.staging.local import LocalFolder
    from airflow_provider_batch.warehouse.connect import sql_hook
    from airflow_provider_batch.worker.build import build

    def run() -> int:
        job = LocalFolder(Path(folder) / "job")
        ledger = seal(job, build(data.plan(), sql_hook("warehouse"), job).manifest)
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
    """The job in staging, and its way into a table: what `BatchResultsOperator` puts together."""

    def __init__(self, folder: str) -> None:
        from airflow_provider_batch.core.ledger.ledger import open_ledger
        from airflow_provider_batch.staging.local import LocalFolder
        from airflow_provider_batch.warehouse.connect import sql_hook

        ledger = open_ledger(LocalFolder(Path(folder) / "job"))
        assert ledger is not None
        self.ledger, self.hook = ledger, sql_hook("warehouse")
        self._tables = 0

    def landing(self) -> Any:
        """The rows to land."""
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

    def names(self) -> list[str]:
        """The columns of a row, in its order."""
        from airflow_provider_batch.core.landing.landing import results_columns

        return [column.name for column in results_columns(self.ledger.manifest, key={}, columns=data.COLUMNS)]

    def sink(self, table: str) -> Any:
        """A results table."""
        from airflow_provider_batch.core.landing.landing import results_columns
        from airflow_provider_batch.warehouse.sinks.open import open_sink

        return open_sink(self.hook, table, results_columns(self.ledger.manifest, key={}, columns=data.COLUMNS))

    def empty(self, who: str) -> str:
        """The name of a results table that was just created; the one before it is dropped."""
        self._tables += 1
        with closing(self.hook.get_conn()) as connection:
            connection.cursor().execute(f"DROP TABLE IF EXISTS {who}_{self._tables - 1}")
            connection.commit()
        table = f"{who}_{self._tables}"
        self.sink(table).prepare()
        return table


def ours(folder: str) -> Callable[[], dict[str, float]]:
    """Land into a new table, then the same once more."""
    job = _Job(folder)

    def run() -> dict[str, float]:
        table = job.empty("ours")
        with timed() as first:
            count = job.sink(table).write(job.landing())
        with timed() as again:
            job.sink(table).write(job.landing())
        return {"rows": count, "seconds": first.seconds, "again": again.seconds}

    return run


def copied(folder: str) -> Callable[[], dict[str, float]]:
    """A bare COPY of rows that are parsed already."""
    job = _Job(folder)
    rows = list(job.landing())
    names = ", ".join(job.names())

    def run() -> dict[str, float]:
        table = job.empty("copied")
        with closing(job.hook.get_conn()) as connection:
            with timed() as took:
                with connection.cursor() as cursor, cursor.copy(f"COPY {table} ({names}) FROM STDIN") as copy:
                    for row in rows:
                        copy.write_row(row)
                connection.commit()
        return {"rows": len(rows), "seconds": took.seconds}

    return run


def inserted(folder: str, most: int) -> Callable[[], dict[str, float]]:
    """`insert_rows(replace=True)` of rows that are parsed already."""
    job = _Job(folder)
    rows = [tuple(map(_bound, row)) for row in islice(job.landing(), most)]
    names = job.names()

    def run() -> dict[str, float]:
        table = job.empty("inserted")
        with timed() as took:
            job.hook.insert_rows(table, rows, target_fields=names, replace=True, replace_index=KEY)
        return {"rows": len(rows), "seconds": took.seconds}

    return run


def _bound(value: Any) -> Any:
    """What every driver takes: sqlite3 knows neither Decimal nor moments."""
    return value if value is None or isinstance(value, (str, int, float)) else str(value)


def peer(folder: str) -> Callable[[], dict[str, float]]:
    """The same files through LLMBatchOperator's own landing code."""
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
        with timed() as took:
            counts, _ = stream_results_to_jsonl(
                adapter=adapter,
                batch_id="batch_1",
                output_spec=build_output_spec(data.Ticket),
                request_count=requests,
                custom_id_prefix="ticket",
                destination=ObjectStoragePath(f"file://{folder}/peer-landed.jsonl"),
            )
        return {"rows": counts["success"], "seconds": took.seconds}

    return run


def measured(into: str, rows: int, runs: int, folder: Path) -> list[Figure]:
    """All of it for one target and size."""
    of_copy = LEAST_OF_COPY if into == "postgres" else None
    cases = {
        "copied": Figure("", "rows/s", anchor="bare COPY, parsed before", least=of_copy),
        "inserted": Figure("", "rows/s", anchor="insert_rows, parsed before", least=LEAST_OF_INSERT_ROWS),
        "peer": Figure("", "rows/s", anchor="LLMBatchOperator's landing"),
    }
    if into != "postgres":
        del cases["copied"]
    again = Figure("  again, over the same rows", "rows/s")
    extra = Figure("  extra memory", "MB", anchor="LLMBatchOperator's landing")
    place = folder / f"{into}-{rows}"
    place.mkdir()
    with filled(into, rows, place) as environment, ExitStack() as stack:

        def start(case: str) -> Worker:
            at, arguments = f"benchmarks.landing:{case}", {"most": FEW[into]} if case == "inserted" else {}
            return Worker(at, logs=folder, environment=environment, folder=str(place), **arguments)

        with start("collect") as collecting:
            assert collecting.run().returned == rows
        mine = stack.enter_context(start("ours"))
        others = {case: stack.enter_context(start(case)) for case in cases}
        for run in range(runs):
            turn = [mine, *others.values()]
            took = {worker.case: worker.run() for worker in (turn if run % 2 == 0 else turn[::-1])}
            landed = took[mine.case]
            assert landed.returned["rows"] == rows
            rate = rows / landed.returned["seconds"]
            for case, figure in cases.items():
                its = took[others[case].case].returned
                assert its["rows"] == (min(rows, FEW[into]) if case == "inserted" else rows)
                figure.add(rate, its["rows"] / its["seconds"])
            again.add(rows / landed.returned["again"])
            extra.add(landed.extra_mb, took[others["peer"].case].extra_mb)
    shutil.rmtree(place)
    figures = list(cases.values())
    for figure in figures:
        figure.name = "  the same"
    figures[0].name = f"{into}, {rows:,} rows: landed"
    return [*figures, again, extra]


def main() -> None:
    """Measure and report."""
    report_sizes("Collected files -> an upserted table", __doc__, "--into", TARGETS, measured)


if __name__ == "__main__":
    main()
