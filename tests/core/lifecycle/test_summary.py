"""The summary of a job, and the values that the tasks return."""

from __future__ import annotations

import msgspec

from airflow_provider_batch.core.ledger.fold import fold
from airflow_provider_batch.core.ledger.job import Estimate
from airflow_provider_batch.core.ledger.ledger import seal
from airflow_provider_batch.core.ledger.records import CanaryVerdict, Intent, Landed, Record
from airflow_provider_batch.core.lifecycle.summary import (
    JobSummary,
    landing_result,
    reference_of,
    summarize,
    wait_result,
)
from airflow_provider_batch.staging.local import LocalFolder
from tests.core.building import NOW, manifest_of, plain_shard

LANDED = Landed(
    1, "labels", {"pending": 2}, cost_usd="0.0001", standard_cost_usd=None, reasons=[], time=NOW, tokens={"input": 7}
)


def summary_of(folder: LocalFolder, *records: Record) -> JobSummary:
    ledger = seal(folder, manifest_of([plain_shard("s0001")]))
    for record in records:
        assert ledger.add(record)
    return summarize(ledger)


def test_the_estimate_is_as_measured_by_the_canary(folder: LocalFolder) -> None:
    assert summary_of(folder).estimate == Estimate()
    measured = Estimate(input_tokens=12, low_usd=0.5, high_usd=0.6)
    summary = summary_of(folder, CanaryVerdict(measured, NOW))
    assert summary.estimate == measured
    assert reference_of(summary, fold(manifest_of([]), [])).estimate == measured


def test_the_wait_counts_the_rows_that_were_sent_regardless_of_an_earlier_landing(folder: LocalFolder) -> None:
    summary = summary_of(folder, LANDED)
    assert summary.outcomes == {"pending": 2}
    assert wait_result(summary).outcomes == summary.progress


def test_fields_without_a_value_are_not_returned(folder: LocalFolder) -> None:
    summary = summary_of(folder)
    assert "final_pass" not in msgspec.to_builtins(wait_result(summary))
    result = msgspec.to_builtins(landing_result(summary, LANDED))
    assert "results_file" not in result
    assert (result["table"], result["tokens"], result["standard_cost_usd"]) == ("labels", {"input": 7}, None)


def test_a_summary_can_be_encoded_as_json(folder: LocalFolder) -> None:
    summary = summary_of(folder, Intent("s0001", 1, "file-1", "nonce", NOW), LANDED)
    assert msgspec.json.decode(msgspec.json.encode(summary), type=JobSummary) == summary
    assert summary.shards[0].status == "creating"
