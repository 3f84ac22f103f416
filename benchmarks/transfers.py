"""CPU and memory to upload input files and download result files, with the concurrency that a worker uses.

    python -m benchmarks.transfers [--bytes 200000000] [--runs 5] [--json FILE]

The runner's code uploads sealed shards of the maximum size at OpenAI to a local batch server, through the OpenAI SDK.
Then the hook's code downloads the same files concurrently. CPU is that of the process, without the server. Memory is
the peak of the process minus the memory that it used after its imports. Reading a whole file into memory would
therefore show as the size of the file.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from airflow_provider_batch.local.process import LocalServer
from benchmarks import data
from benchmarks.airflow_home import temporary_airflow_home
from benchmarks.measure import MB, Figure, report
from benchmarks.worker import Measurement, Worker

#: target: memory in MB for four readers with their connections and buffers, independent of the size of the files
MAX_EXTRA_MB = 32.0
#: size of a line in the sealed files including its end, in bytes
LINE_BYTES = 100_000
DIRECTIONS = ("upload", "download")


def seal_files(folder: Path, sizes: list[int]) -> None:
    """Seal a job whose input files have these sizes in bytes, multiples of LINE_BYTES."""
    from airflow_provider_batch.core.ledger.job import Estimate, JobKey, Manifest
    from airflow_provider_batch.core.ledger.ledger import seal
    from airflow_provider_batch.core.provider.limits import Limits
    from airflow_provider_batch.core.requests.request import Request, request_lines
    from airflow_provider_batch.core.sealing.rendered_row import RenderedRow
    from airflow_provider_batch.core.sealing.sealer import Sealer
    from airflow_provider_batch.staging.local import LocalFolder

    job, limits = LocalFolder(folder / "job"), Limits(bytes=max(sizes))
    sealer = Sealer(job, "g001/build", data.CHAT, limits)
    number = 0
    for index, size in enumerate(sizes):
        # A different model for each file, because a shard has only one model.
        model = f"model-{index}"
        body = b'{"messages":[{"content":"%b","role":"user"}],"model":"' + model.encode() + b'"}'
        overhead = len(request_lines(["00000001"], data.CHAT, [body % b""])[0])
        for _ in range(size // LINE_BYTES):
            number += 1
            request = Request(f"{number:08}", model, body % (b"x" * (LINE_BYTES - overhead)), 1)
            sealer.add([RenderedRow(request, f"{number:064x}", [], number)], [1], [request.body])
    shards = sealer.finish()
    assert [shard.bytes for shard in shards] == sizes
    manifest = Manifest(
        job_uid=uuid4().hex,
        key=JobKey("benchmark", "submit", "manual__1"),
        sealed_at=datetime.now(UTC),
        endpoint=data.CHAT,
        openai_conn_id="openai_default",
        requests=number,
        shards=shards,
        carry=[],
        estimate=Estimate(),
        limits=limits,
    )
    seal(job, manifest)


def prepare_transfers(folder: str) -> dict[str, Callable[[], None]]:
    """Return a function that uploads a job's files, and one that downloads them. Both check that they are complete."""
    from airflow_provider_batch.core.ledger.ledger import open_ledger
    from airflow_provider_batch.core.lifecycle.steps import Policy
    from airflow_provider_batch.hooks.batch import BatchHook
    from airflow_provider_batch.staging.local import LocalFolder
    from airflow_provider_batch.worker.collect import MAX_CONCURRENT_TRANSFERS
    from airflow_provider_batch.worker.parallel import run_concurrently
    from airflow_provider_batch.worker.runner import Runner

    ledger = open_ledger(LocalFolder(Path(folder) / "job"))
    assert ledger is not None
    staging, hook = LocalFolder(Path(folder) / "collected"), BatchHook()
    # Create the client and make one call, so that the memory for this is not counted.
    hook.conn.files.list()

    def download(file_id: str) -> int:
        with staging.writer(f"{file_id}.jsonl") as target:
            return hook.download(file_id, target)[0]

    def upload() -> None:
        Runner(ledger, hook, Policy(), logging.getLogger(__name__)).run({})
        sizes = uploaded_sizes()
        assert len(sizes) == len(ledger.manifest.shards)
        assert {file_id: hook.conn.files.retrieve(file_id).bytes for file_id in sizes} == sizes

    def uploaded_sizes() -> dict[str, int]:
        submissions = ((shard.latest, shard.spec.bytes) for shard in ledger.state().shards.values())
        return {latest.file_id: size for latest, size in submissions if latest and latest.file_id}

    def download_all() -> None:
        sizes, downloaded_sizes = uploaded_sizes(), dict[str, int]()
        run_concurrently(list(sizes), download, downloaded_sizes.__setitem__, MAX_CONCURRENT_TRANSFERS)
        assert downloaded_sizes == sizes

    return {"upload": upload, "download": download_all}


def measure_transfers(sizes: list[int], folder: Path) -> dict[str, Measurement]:
    """Upload files of these sizes, in bytes, and download them again. Return the measurements of both.

    :raises RuntimeError: if a file does not arrive complete.
    """
    seal_files(folder, sizes)
    # The server does not answer the batches, because that would only take time.
    with LocalServer(folder / "server", in_progress=1e6) as server:
        connection = json.dumps({"conn_type": "openai", "password": "local", "host": server.base_url})
        environment = {"AIRFLOW_CONN_OPENAI_DEFAULT": connection}
        case = "benchmarks.transfers:prepare_transfers"
        with Worker(case, logs=folder, environment=environment, folder=str(folder)) as worker:
            return {direction: worker.run(direction) for direction in DIRECTIONS}


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bytes", type=int, default=200_000_000, help="size of each of the four files")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()
    gigabytes = 4 * args.bytes / 1e9
    cpu, memory = (
        {direction: Figure(f"{direction}: {name}", unit, max_median=target) for direction in DIRECTIONS}
        for name, unit, target in (("CPU", "s/GB", None), ("extra memory", "MB", MAX_EXTRA_MB))
    )
    with temporary_airflow_home():
        for _ in range(args.runs):
            with tempfile.TemporaryDirectory() as folder:
                for direction, measurement in measure_transfers([args.bytes] * 4, Path(folder)).items():
                    cpu[direction].add(measurement.own_cpu_seconds / gigabytes)
                    memory[direction].add(measurement.extra_mb)
    report(f"4 files of {args.bytes / MB:,.0f} MB concurrently", [*cpu.values(), *memory.values()], args.json)


if __name__ == "__main__":
    main()
