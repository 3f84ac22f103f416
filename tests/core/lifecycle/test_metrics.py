"""Which metrics follow from which record, and that the docs and the dashboard name no others."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from airflow_provider_batch.core.answers.outcome import Outcome
from airflow_provider_batch.core.ledger.job import Shard
from airflow_provider_batch.core.ledger.records import (
    CollectionFailed,
    Created,
    DuplicateBatch,
    Failure,
    Landed,
    Record,
    Refused,
    RetryRound,
    Settled,
    Submitted,
)
from airflow_provider_batch.core.lifecycle.metrics import METRICS, Kind, all_names, metrics_of
from tests.core.building import manifest_of

NOW = datetime(2026, 11, 20, 2, tzinfo=UTC)
SHARD = Shard("s0001", "gpt-5-mini", "", "", 3, 100, "")
DASHBOARD = Path(__file__).parents[3] / "docs" / "operations" / "metrics-dashboard.json"


def values(record: Record, shard: Shard | None = SHARD, created_at: datetime | None = None) -> dict[str, object]:
    """Return the values of the metrics of a record that are not 0, by name, with the model if there is one."""
    metrics = metrics_of(record, manifest_of([SHARD], sealed_at=NOW - timedelta(seconds=90)), shard, created_at)
    return {metric.name: (metric.value, metric.model) if metric.model else metric.value for metric in metrics}


def test_a_settled_batch_counts_its_requests_tokens_and_cost() -> None:
    record = Settled(
        *("s0001", 1, "batch_1", "completed", NOW),
        outcomes={"succeeded": 2, "failed": 1},
        input_tokens=300,
        output_tokens=20,
        cost_usd="0.0123456",
    )

    assert values(record, created_at=NOW - timedelta(minutes=2)) == {
        "batches.duration": (120_000, "gpt-5-mini"),
        "requests.succeeded": (2, "gpt-5-mini"),
        "requests.failed": (1, "gpt-5-mini"),
        "tokens.input": (300, "gpt-5-mini"),
        "tokens.output": (20, "gpt-5-mini"),
        "cost": (12_346, "gpt-5-mini"),
    }


def test_an_unknown_cost_is_counted_as_unknown_and_not_as_0() -> None:
    counted = values(Settled("s0001", 1, "batch_1", "completed", NOW, outcomes={"succeeded": 1}, cost_usd=None))

    assert counted["batches.unknown_cost"] == (1, "gpt-5-mini")
    assert "cost" not in counted


def test_a_batch_that_failed_validation_is_a_refusal() -> None:
    record = Settled("s0001", 1, "batch_1", "failed", NOW, failure=Failure.CAPACITY)

    assert values(record) == {"batches.refused.capacity": (1, "gpt-5-mini")}


def test_the_wait_of_a_batch_begins_with_the_seal_unless_its_rows_are_retried() -> None:
    record = Created("s0001", 1, "batch_1", NOW)

    assert values(record)["batches.wait"] == (90_000, "gpt-5-mini")
    assert "batches.wait" not in values(record, Shard("r01-0001", "gpt-5-mini", "", "", 3, 100, "", attempt=2))
    assert values(record, shard=None) == {"batches.created": 1}


def test_what_was_saved_is_counted_at_the_first_landing_only() -> None:
    first = Landed(1, "answers", {"succeeded": 3}, "0.5", "1.0", [], NOW)

    assert values(first) == {
        "landings": 1,
        "rows.succeeded": (3, "gpt-5-mini"),
        "saved": (500_000, "gpt-5-mini"),
    }
    assert "saved" not in values(Landed(2, "answers", {"succeeded": 3}, "0.5", "1.0", [], NOW))
    assert "saved" not in values(Landed(1, "answers", {"succeeded": 3}, None, "1.0", [], NOW))


def test_the_rows_of_a_job_with_several_models_have_no_model() -> None:
    manifest = manifest_of([SHARD, Shard("s0002", "gpt-5", "", "", 3, 100, "")], sealed_at=NOW)
    landed = Landed(1, "answers", {"succeeded": 6}, "0.5", "1.0", [], NOW)

    assert {metric.model for metric in metrics_of(landed, manifest, None, None)} == {None}


@pytest.mark.parametrize(
    ("record", "counted"),
    [
        (Submitted(NOW), {"jobs.submitted": 1}),
        (Refused("s0001", 1, Failure.LOST, "", NOW), {"batches.refused.lost": (1, "gpt-5-mini")}),
        (RetryRound(1, [], [SHARD], NOW), {"requests.retried": (3, "gpt-5-mini")}),
        (DuplicateBatch("batch_2", "s0001", "completed", True, 3, NOW), {"requests.paid_twice": 3}),
        (DuplicateBatch("batch_2", "s0001", "in_progress", False, 3, NOW), {}),
        (CollectionFailed("s0001", 1, 1, "batch_1", "", NOW), {"downloads.failed": 1}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_of_these_records_is_counted(record: Record, counted: dict[str, object]) -> None:
    assert values(record) == counted


def test_every_metric_is_described() -> None:
    assert f"requests.{Outcome.EXPIRED}" in all_names()
    assert {metric.kind for metric in METRICS.values()} == set(Kind)
    assert all(metric.meaning.endswith(".") for metric in METRICS.values())


def test_the_dashboard_shows_every_metric_and_no_other() -> None:
    expressions = " ".join(
        target["expr"] for panel in json.loads(DASHBOARD.read_text("utf-8"))["panels"] for target in panel["targets"]
    )
    shown: set[str] = set()
    for start, alternatives, end in re.findall(
        r"airflow_openai_batch_(\w*?)(?:\(([\w|]+)\))?(_total|\b|\()", expressions
    ):
        del end
        shown |= {start.removesuffix("_sum").removesuffix("_count") + choice for choice in alternatives.split("|")}
    names = {name.replace(".", "_") for name in all_names()}

    # no batch of requests that were sent ends withheld, pending or with an input that cannot be used
    unsent = {f"requests_{outcome}" for outcome in ("withheld", "pending", "invalid_input")}
    assert shown == names - unsent
