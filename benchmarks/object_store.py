"""CPU time of staging in an object store, compared with a local disk: sealing, collecting, and reading for a landing.

    python -m benchmarks.object_store [--rows 100000] [--runs 3] [--json FILE]

The object store is moto's S3 server in another process, through the real s3fs, so its CPU time is not counted. It is
slow, so the wall time says nothing about a real store. `transfer` is what s3fs needs for the same bytes, without us:
the sealed files and the result files written, and all of them read once. The goal is at most 1.5 times the local disk
plus that, so a ratio of at least 0.67.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from time import process_time
from typing import Any
from uuid import uuid4

from airflow_provider_batch.demo.standalone import free_port
from benchmarks import data
from benchmarks.collecting import Provider, result_line
from benchmarks.measure import Figure, run_for_sizes
from benchmarks.sealing import warehouse_of_tickets
from benchmarks.worker import Worker

STEPS = ("seal", "collect", "read")
BUCKET = "staging"


def prepare(folder: str, port: int) -> Callable[[], dict[str, Any]]:
    """Return a function that runs the steps in both places. It returns the CPU seconds of each, by place."""
    from airflow.sdk.io import attach
    from s3fs import S3FileSystem

    from airflow_provider_batch.staging.local import LocalFolder
    from airflow_provider_batch.staging.object_store import ObjectFolder

    filesystem = S3FileSystem(
        key="key", secret="secret", endpoint_url=f"http://127.0.0.1:{port}", client_kwargs={"region_name": "us-east-1"}
    )
    attach("s3", conn_id="bench", fs=filesystem)

    def run() -> dict[str, Any]:
        name = uuid4().hex
        local = _run(LocalFolder(Path(folder) / name / "staging"), Path(folder) / name)
        store = _run(ObjectFolder(f"s3://bench@{BUCKET}/{name}"), Path(folder) / name)
        transfer = _transfer(filesystem, Path(folder) / name / "staging", name)
        shutil.rmtree(Path(folder) / name)
        filesystem.rm(f"{BUCKET}/{name}", recursive=True)
        filesystem.rm(f"{BUCKET}/transfer-{name}", recursive=True)
        return {"local": local, "store": store, "transfer": transfer}

    run()  # imports, and the connections of the client
    return run


def _run(folder: Any, scratch: Path) -> dict[str, float]:
    from airflow_provider_batch.core.answers.result_files import read_rows
    from airflow_provider_batch.core.landing.landing import Landing
    from airflow_provider_batch.core.ledger.ledger import seal
    from airflow_provider_batch.core.ledger.records import Created, Intent, Uploaded
    from airflow_provider_batch.core.lifecycle.steps import Collect
    from airflow_provider_batch.core.provider.batch import BatchView, Status
    from airflow_provider_batch.core.schema.judge import SchemaJudge
    from airflow_provider_batch.worker.build import build
    from airflow_provider_batch.worker.collect import Collector

    costs: dict[str, float] = {}

    @contextmanager
    def step(name: str) -> Iterator[None]:
        start = process_time()
        yield
        costs[name] = process_time() - start

    now = datetime.now(UTC)
    with step("seal"):
        ledger = seal(folder, build(data.make_plan(), data.read_tickets(), folder).manifest)
    provider = scratch / "provider"
    provider.mkdir(parents=True, exist_ok=True)
    batches = []
    for shard in ledger.manifest.shards:
        with open(provider / f"output-{shard.name}", "wb") as file:
            for row in read_rows(folder, shard):
                file.write(result_line("counts", row.custom_id, int(row.custom_id.partition("-")[2]))[1])
        for record in (
            Uploaded(shard.name, 1, "file-1", now),
            Intent(shard.name, 1, "nonce", "file-1", now),
            Created(shard.name, 1, f"batch_{shard.name}", now),
        ):
            ledger.add(record)
        batches.append(
            BatchView(
                *(f"batch_{shard.name}", Status.COMPLETED, "completed"),
                output_file_id=f"output-{shard.name}",
                total=shard.requests,
                completed=shard.requests,
            )
        )
    judge, log = SchemaJudge(ledger.manifest.author_schema or {}), logging.getLogger("benchmark")
    with step("collect"):
        shards = zip(ledger.state().shards.values(), batches, strict=True)
        steps = [Collect(shard, shard.submissions[-1], batch) for shard, batch in shards]
        source: Any = Provider(provider)
        Collector(ledger, source, judge, log, lambda: datetime.now(UTC), timedelta(0)).collect(steps)
    landing = Landing(
        *(folder, ledger.state()), key={}, columns=data.COLUMNS, store_response=False, run_id="manual__1", landed_at=now
    )
    with step("read"):
        costs["rows"] = sum(1 for _ in landing)
    return costs


def _transfer(filesystem: Any, staging: Path, name: str) -> dict[str, float]:
    """Return the CPU seconds of writing and reading the files of a job with the library alone, by step."""
    files = [path for path in staging.rglob("*") if path.is_file() and path.stat().st_size > 1 << 16]
    collected = [path for path in files if "collected" in path.parts]
    sealed = [path for path in files if path not in collected]
    costs = {}
    for step, written, read in (("seal", sealed, []), ("collect", collected, files), ("read", [], files)):
        start = process_time()
        for path in written:
            filesystem.pipe_file(f"{BUCKET}/transfer-{name}/{path.relative_to(staging)}", path.read_bytes())
        for path in read:
            filesystem.cat_file(f"{BUCKET}/transfer-{name}/{path.relative_to(staging)}")
        costs[step] = process_time() - start
    return costs


@contextmanager
def s3_server() -> Iterator[int]:
    """Run moto's S3 server in another process, with a bucket. Yield its port."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                connection = HTTPConnection("127.0.0.1", port)
                connection.request("PUT", f"/{BUCKET}")
                connection.getresponse().read()
                break
            except OSError:
                assert time.monotonic() < deadline, "moto's server did not start within 60 s."
                time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(30)


def measure(case: str, rows: int, runs: int, folder: Path) -> list[Figure]:
    """Measure one number of rows."""
    figures = {
        step: Figure(f"{step}, {rows:,} rows", "µs/row", anchor="local disk + transfer", is_cost=True, min_ratio=0.67)
        for step in STEPS
    }
    parts = {step: (Figure("  on a local disk", "µs/row"), Figure("  transfer", "µs/row")) for step in STEPS}
    work_folder = folder / f"{case}-{rows}"
    work_folder.mkdir()
    with warehouse_of_tickets("sqlite", rows, folder) as warehouse, ExitStack() as stack:
        worker = stack.enter_context(
            Worker(
                "benchmarks.object_store:prepare",
                logs=folder,
                environment=warehouse.environment,
                folder=str(work_folder),
                port=stack.enter_context(s3_server()),
            )
        )
        for _ in range(runs):
            result = worker.run().result
            assert result["store"]["rows"] == result["local"]["rows"] == rows
            for step, figure in figures.items():
                local, transfer, store = (result[place][step] / rows * 1e6 for place in ("local", "transfer", "store"))
                figure.add(store, local + transfer)
                parts[step][0].add(local)
                parts[step][1].add(transfer)
    shutil.rmtree(work_folder)
    return [figure for step in STEPS for figure in (figures[step], *parts[step])]


def main() -> None:
    """Measure and report."""
    run_for_sizes("Staging in an object store, CPU", __doc__, "--stores", ("s3",), measure)


if __name__ == "__main__":
    main()
