"""How small: input files up to the provider and result files down from it, as many at once as a worker sends.

    python -m benchmarks.transfers [--bytes 200000000] [--runs 5] [--json FILE]

Sealed shards of OpenAI's largest size go up with the runner's own code, through the OpenAI SDK, to a local batch
server; then the same files come down at once with the hook's. Memory is the peak of a process over what it held
before, its imports done: a file that is read whole shows as its size.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from airflow_provider_batch.local.process import LocalServer
from benchmarks import data
from benchmarks.airflow_home import airflow_home
from benchmarks.measure import MB, Figure, memory, report
from benchmarks.worker import Worker, forget_peak

#: MB; what four readers, their connections and their buffers may take, whatever the files' size
MOST_MB = 32.0
#: bytes of a line of the sealed files, with its end
LINE = 100_000


def seal_files(folder: Path, sizes: list[int]) -> None:
    """A sealed job whose input files have these sizes, multiples of 100,000 bytes."""
    from airflow_provider_batch.core.ledger.job import Estimate, JobKey, Manifest
    from airflow_provider_batch.core.ledger.ledger import seal
    from airflow_provider_batch.core.provider.limits import Limits
    from airflow_provider_batch.core.requests.render import Request, request_line
    from airflow_provider_batch.core.sealing.sealer import Sealer
    from airflow_provider_batch.staging.local import LocalFolder

    job, limits = LocalFolder(folder / "job"), Limits(bytes=max(sizes))
    sealer = Sealer(job, "g001/build", data.CHAT, limits)
    number = 0
    for file, size in enumerate(sizes):
        # Each file has a model of its own, and so is one.
        model = f"model-{file}"
        body = b'{"messages":[{"content":"%b","role":"user"}],"model":"' + model.encode() + b'"}'
        around = len(request_line("00000001", data.CHAT, body % b""))
        for _ in range(size // LINE):
            number += 1
            sealer.add(Request(f"{number:08}", model, body % (b"x" * (LINE - around)), 1), [], number, 1)
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


def up_and_down(folder: str) -> Callable[[], dict[str, float]]:
    """Send every file of the job and create its batches, then fetch the files; MB that each way took."""
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
    # The client and one whole call: what they import and keep is not of the files.
    hook.conn.files.list()

    def fetch(file_id: str) -> int:
        with staging.writer(f"{file_id}.jsonl") as into:
            return hook.download(file_id, into)[0]

    def run() -> dict[str, float]:
        before = forget_peak()
        Runner(ledger, hook, Policy(), logging.getLogger(__name__)).run({})
        up = memory(os.getpid())[1] - before
        sent = {shard.latest.file_id: shard.spec.bytes for shard in ledger.state().shards.values() if shard.latest}
        assert len(sent) == len(ledger.manifest.shards)
        assert {file_id: hook.conn.files.retrieve(file_id).bytes for file_id in sent} == sent
        came: dict[str, int] = {}
        before = forget_peak()
        run_concurrently(list(sent), fetch, came.__setitem__, MAX_CONCURRENT_TRANSFERS)
        down = memory(os.getpid())[1] - before
        assert came == sent
        return {"up": up / MB, "down": down / MB}

    return run


def transferred(sizes: list[int], folder: Path) -> dict[str, float]:
    """MB that files of these sizes took in memory on their way up, and down. All arrived whole."""
    seal_files(folder, sizes)
    # Their batches are not answered meanwhile: that would only take time.
    with LocalServer(folder / "server", in_progress=1e6) as server:
        connection = json.dumps({"conn_type": "openai", "password": "local", "host": server.base_url})
        environment = {"AIRFLOW_CONN_OPENAI_DEFAULT": connection}
        case = "benchmarks.transfers:up_and_down"
        with Worker(case, logs=folder, environment=environment, folder=str(folder)) as worker:
            took: dict[str, float] = worker.run().returned
    return took


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bytes", type=int, default=200_000_000, help="of each of the four files")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    args = parser.parse_args()
    what = f"4 files of {args.bytes / MB:,.0f} MB at once"
    figures = {way: Figure(f"{what}, {way}: extra memory", "MB", most=MOST_MB) for way in ("up", "down")}
    with airflow_home():
        for _ in range(args.runs):
            with tempfile.TemporaryDirectory() as folder:
                for way, extra in transferred([args.bytes] * 4, Path(folder)).items():
                    figures[way].add(extra)
    report("Input files up, result files down", list(figures.values()), args.json)


if __name__ == "__main__":
    main()
