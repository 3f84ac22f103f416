"""Number of times that each answer is parsed between its download and its row, and the CPU time of each step.

    python -m benchmarks.collecting [--rows 100000] [--runs 5] [--cases counts no_counts failures expired]
        [--json FILE]

The result files of a sealed job are collected, the rows to retry are sealed into new shards, and every row is read for
the landing, which writes no table. No server takes part: the downloads are copies of files on disk. The cases:

    counts       every row has a usable answer, and each batch states how many
    no_counts    the same from a server that states neither the number of the answers nor the size of a file
    failures     one row in 100 failed with a transient error, and one in 100 was cut off at the output cap
    expired      half of the rows were not answered in time

Times are microseconds of CPU for each row. Parses are counted in a run of their own.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from time import process_time
from typing import Any, BinaryIO

import msgspec

from benchmarks import data
from benchmarks.measure import Figure, run_for_sizes
from benchmarks.sealing import warehouse_of_tickets
from benchmarks.worker import Worker

CASES = ("counts", "no_counts", "failures", "expired")
STEPS = ("collect", "retry", "read")


class Provider:
    """The provider's side of a job whose batches have ended: the result files, and what it says about them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def warm_up(self) -> None:
        """Do nothing; there is no client."""

    def download(self, file_id: str, target: BinaryIO) -> tuple[int, str]:
        """Copy a result file. Return its size in bytes and its sha256."""
        digest, size = hashlib.sha256(), 0
        with open(self.folder / file_id, "rb") as source:
            while chunk := source.read(1 << 16):
                target.write(chunk)
                digest.update(chunk)
                size += len(chunk)
        return size, digest.hexdigest()

    def file_size(self, file_id: str) -> int | None:
        """Return None, because this provider does not state sizes."""
        return None


def result_line(case: str, custom_id: str, number: int) -> tuple[str, bytes]:
    """Return the file in which the answer to a request is, and its line."""
    if case == "expired" and number % 2:
        error = {"code": "batch_expired", "message": "This request could not be executed before the batch expired."}
        return "error", _line(custom_id, error=error)
    if case == "failures" and number % 100 == 1:
        body = {"error": {"message": "The server had an error.", "type": "server_error", "code": None, "param": None}}
        return "error", _line(custom_id, response={"status_code": 500, "request_id": "r", "body": body})
    line = data.result_line(custom_id, number)
    if case == "failures" and number % 100 == 2:
        line = line.replace(b'"finish_reason":"stop"', b'"finish_reason":"length"')
    return "output", line


def _line(custom_id: str, **fields: Any) -> bytes:
    return msgspec.json.encode({"id": "r", "custom_id": custom_id, "response": None, "error": None, **fields}) + b"\n"


class Job:
    """A sealed job and the result files of its batches."""

    def __init__(self, folder: Path, case: str) -> None:
        from airflow_provider_batch.core.answers.result_files import read_rows
        from airflow_provider_batch.core.ledger.ledger import seal
        from airflow_provider_batch.core.ledger.records import Created, Intent, Uploaded
        from airflow_provider_batch.core.provider.batch import BatchView, Status
        from airflow_provider_batch.staging.local import LocalFolder
        from airflow_provider_batch.worker.build import build

        self.sealed, self.provider = folder / "sealed", folder / "provider"
        self.provider.mkdir()
        staging = LocalFolder(self.sealed)
        ledger = seal(staging, build(data.make_plan(), data.read_tickets(), staging).manifest)
        self.batches: list[BatchView] = []
        now = datetime.now(UTC)
        for shard in ledger.manifest.shards:
            counts: Counter[str] = Counter()
            with ExitStack() as stack:
                files = {
                    kind: stack.enter_context(open(self.provider / f"{kind}-{shard.name}", "wb"))
                    for kind in ("output", "error")
                }
                for row in read_rows(staging, shard):
                    kind, line = result_line(case, row.custom_id, int(row.custom_id.partition("-")[2]))
                    files[kind].write(line)
                    counts[kind] += 1
            status = Status.EXPIRED if case == "expired" else Status.COMPLETED
            batch = BatchView(
                f"batch_{shard.name}",
                status,
                status.value,
                output_file_id=f"output-{shard.name}",
                error_file_id=f"error-{shard.name}" if counts["error"] else "",
            )
            if case != "no_counts":
                failed = 0 if case == "expired" else counts["error"]
                batch = msgspec.structs.replace(batch, total=shard.requests, completed=counts["output"], failed=failed)
            ledger.add(Uploaded(shard.name, 1, "file-1", now))
            ledger.add(Intent(shard.name, 1, "nonce", "file-1", now))
            ledger.add(Created(shard.name, 1, batch.id, now))
            self.batches.append(batch)


def prepare(folder: str, kind: str) -> Callable[[], dict[str, Any]]:
    """Return a function that collects, retries and reads a job. It returns the CPU seconds of each step."""
    job = Job(Path(folder), kind)
    return lambda: _run(job, Path(folder) / "job")


def prepare_count(folder: str, kind: str) -> Callable[[], dict[str, Any]]:
    """Return the same function, but it returns the number of lines that each step parses."""
    result_files: Any = import_module("airflow_provider_batch.core.answers.result_files")
    line_reader, parsed = result_files.line_reader, [0]

    def counting_reader(*arguments: Any, **options: Any) -> Callable[[bytes], Any]:
        read = line_reader(*arguments, **options)

        def count(line: bytes) -> Any:
            parsed[0] += 1
            return read(line)

        return count

    result_files.line_reader = counting_reader
    job = Job(Path(folder), kind)
    return lambda: _run(job, Path(folder) / "job", lambda: parsed[0])


def _run(job: Job, folder: Path, measure: Callable[[], float] = process_time) -> dict[str, Any]:
    """Return what each step takes, as the difference of `measure` after and before it, and the number of rows."""
    from airflow_provider_batch.core.landing.landing import Landing
    from airflow_provider_batch.core.ledger.ledger import open_ledger
    from airflow_provider_batch.core.lifecycle.attempts import retries
    from airflow_provider_batch.core.lifecycle.steps import Collect, Policy, Retry
    from airflow_provider_batch.core.schema.judge import SchemaJudge
    from airflow_provider_batch.staging.local import LocalFolder
    from airflow_provider_batch.worker.collect import Collector
    from airflow_provider_batch.worker.reseal import Resealer

    def clock() -> datetime:
        return datetime.now(UTC)

    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(job.sealed, folder)
    ledger = open_ledger(LocalFolder(folder))
    assert ledger is not None
    policy, log = Policy(raise_cap=True, backoff=timedelta(0)), logging.getLogger("benchmark")
    judge = SchemaJudge(ledger.manifest.author_schema or {})
    costs: dict[str, float] = {}

    @contextmanager
    def step(name: str) -> Iterator[None]:
        start = measure()
        yield
        costs[name] = measure() - start

    with step("collect"):
        shards = zip(ledger.state().shards.values(), job.batches, strict=True)
        steps = [Collect(shard, shard.submissions[-1], batch) for shard, batch in shards]
        provider: Any = Provider(job.provider)
        Collector(ledger, provider, judge, log, clock, policy.backoff).collect(steps)
    with step("retry"):
        sources = retries(ledger.state(), policy, clock()).due
        if sources:
            Resealer(ledger, policy, judge, log, clock, lambda *_: True).retry(Retry(sources))
    landing = Landing(
        ledger.folder,
        ledger.state(),
        key={},
        columns=data.COLUMNS,
        store_response=False,
        run_id="manual__1",
        landed_at=clock(),
    )
    with step("read"):
        rows = sum(1 for _ in landing)
    return {"rows": rows, "costs": costs, "settled": len(ledger.state().settled_submissions())}


def measure(case: str, rows: int, runs: int, folder: Path) -> list[Figure]:
    """Measure one case and number of rows."""
    figures = {step: Figure(f"  {step}", "µs") for step in STEPS}
    parses = {step: Figure(f"  parses while {step}ing", "lines/row") for step in STEPS}
    extra = Figure(f"{case}, {rows:,} rows: extra memory", "MB")
    work_folder = folder / f"{case}-{rows}"
    with warehouse_of_tickets("sqlite", rows, folder) as warehouse, ExitStack() as stack:
        workers = {}
        for function in ("prepare", "prepare_count"):
            function_folder = work_folder / function
            function_folder.mkdir(parents=True)
            worker = Worker(
                f"benchmarks.collecting:{function}",
                logs=folder,
                environment=warehouse.environment,
                folder=str(function_folder),
                kind=case,
            )
            workers[function] = stack.enter_context(worker)
        counted = workers["prepare_count"].run().result
        for step, figure in parses.items():
            figure.add(counted["costs"][step] / rows)
        for _ in range(runs):
            measurement = workers["prepare"].run()
            assert measurement.result["rows"] == rows
            extra.add(measurement.extra_mb)
            for step, figure in figures.items():
                figure.add(measurement.result["costs"][step] / rows * 1e6)
    shutil.rmtree(work_folder)
    return [extra, *figures.values(), *parses.values()]


def main() -> None:
    """Measure and report."""
    run_for_sizes("Downloaded result files -> rows to retry, rows to land", __doc__, "--cases", CASES, measure)


if __name__ == "__main__":
    main()
