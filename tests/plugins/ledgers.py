"""Jobs in staging, whose batches run or are collected."""

from __future__ import annotations

from uuid import uuid4

from airflow_provider_batch.core.ledger.job import Estimate, JobKey, Manifest, Shard
from airflow_provider_batch.core.ledger.ledger import Ledger, seal
from airflow_provider_batch.core.ledger.records import Created, Intent, Settled
from airflow_provider_batch.core.provider.limits import Limits
from airflow_provider_batch.staging.layout import job_folder
from tests.plugins.rows import NOON


def seal_job(root: str, key: JobKey, shards: int = 2) -> Ledger:
    """Seal a job with 100 rows in each shard."""
    specs = [
        Shard(f"s{number:04d}", "gpt-5-mini", f"s{number}.jsonl", f"s{number}.index", 100, 1, "0" * 64)
        for number in range(1, shards + 1)
    ]
    manifest = Manifest(
        job_uid=uuid4().hex,
        key=key,
        sealed_at=NOON,
        endpoint="/v1/responses",
        openai_conn_id="openai_default",
        requests=100 * shards,
        shards=specs,
        carry=[],
        estimate=Estimate(),
        limits=Limits(),
    )
    return seal(job_folder(root, key), manifest)


def create_batch(ledger: Ledger, shard: str) -> None:
    ledger.add(Intent(shard, 1, uuid4().hex, "file-1", NOON))
    ledger.add(Created(shard, 1, f"batch_{shard}", NOON))


def settle(ledger: Ledger, shard: str, cost: str | None = "0.25", **outcomes: int) -> None:
    ledger.add(Settled(shard, 1, f"batch_{shard}", "completed", NOON, outcomes=outcomes, cost_usd=cost))
