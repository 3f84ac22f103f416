"""Sends metrics through Airflow's `Stats`: to statsd, OpenTelemetry or Datadog, as Airflow is configured.

`core.lifecycle.metrics` says which metrics there are. Best effort: failures are logged and never fail the task.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

from airflow_provider_batch.core.ledger.job import Shard
from airflow_provider_batch.core.ledger.ledger import Ledger
from airflow_provider_batch.core.ledger.records import Created, Record, Refused, RetryRound, Settled
from airflow_provider_batch.core.lifecycle.metrics import Kind, metrics_of

#: prefix of all names, after the one of Airflow's configuration
PREFIX = "openai_batch"

log = logging.getLogger(__name__)


def send(kind: Kind, name: str, value: float, **tags: str | None) -> None:
    """Send the value of a metric. Tags that are None are left out."""
    # imported here, because parsing a DAG sends nothing
    from airflow.providers.common.compat.sdk import Stats

    given_tags = {tag: text for tag, text in tags.items() if text is not None}
    method: Any = {Kind.COUNTER: Stats.incr, Kind.TIMER: Stats.timing, Kind.GAUGE: Stats.gauge}[kind]
    try:
        method(f"{PREFIX}.{name}", value, tags=given_tags)
    except Exception:  # a metric that cannot be sent must not cost an answer
        log.debug("Could not send the metric %s", name, exc_info=True)


class JobMetrics:
    """Sends the metrics of each record that is written to a ledger: `ledger.on_record = JobMetrics(ledger)`."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._shards: dict[str, Shard] = {}
        #: when the batch of a shard's submission was created
        self._created: dict[tuple[str, int], datetime] = {}

    def __call__(self, record: Record) -> None:
        """Send the metrics of a record."""
        shard, created_at = None, None
        if isinstance(record, Created | Refused | Settled):
            submission = (record.shard, record.number)
            if record.shard not in self._shards or (isinstance(record, Settled) and submission not in self._created):
                self._look_up()
            shard, created_at = self._shards.get(record.shard), self._created.get(submission)
        for metric in metrics_of(record, self._ledger.manifest, shard, created_at):
            if metric.value or metric.kind is not Kind.COUNTER:
                send(metric.kind, metric.name, metric.value, model=metric.model)

    def _look_up(self) -> None:
        records = self._ledger.known_records()
        rounds = [record for record in records if isinstance(record, RetryRound)]
        shards = [*self._ledger.manifest.shards, *(shard for retry_round in rounds for shard in retry_round.shards)]
        self._shards = {shard.name: shard for shard in shards}
        self._created = {
            (record.shard, record.number): record.time for record in records if isinstance(record, Created)
        }
