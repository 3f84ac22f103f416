"""What clients see of a batch that a fault hides, or that lists show late.

The faults change only what the routes show. The batch itself runs as always.
"""

from __future__ import annotations

from collections import Counter

import msgspec

from airflow_provider_batch.local.api.errors import ApiError
from airflow_provider_batch.local.api.objects import Batch, BatchUsage, RequestCounts, Status
from airflow_provider_batch.local.engine.engine import Engine
from airflow_provider_batch.local.faults import Kind
from airflow_provider_batch.local.storage.record import Record

#: Field with the time at which a batch reached a status. If several times are reached, the last entry counts.
_STAMPS = {
    "in_progress_at": Status.IN_PROGRESS,
    "finalizing_at": Status.FINALIZING,
    "cancelling_at": Status.CANCELLING,
    "completed_at": Status.COMPLETED,
    "failed_at": Status.FAILED,
    "expired_at": Status.EXPIRED,
    "cancelled_at": Status.CANCELLED,
}


class BatchViews:
    """Reads batches for the routes. What it remembers is lost when the server stops."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        #: number of calls that retrieved a batch
        self._retrieves: Counter[str] = Counter()
        #: the batch as it was when it was last retrieved, if a fault makes lists show that
        self._retrieved: dict[str, Batch] = {}

    def retrieve(self, batch_id: str) -> Batch:
        """Return one batch.

        :raises ApiError: 404 if it does not exist, or a fault hides it.
        """
        record = self._engine.record(batch_id)
        fault = record.fault
        if fault is not None and fault.kind is Kind.HIDDEN:
            self._retrieves[batch_id] += 1
            if self._retrieves[batch_id] <= fault.retrieves:
                raise ApiError(404, f"No batch found with id '{batch_id}'.")
        if fault is not None and fault.kind is Kind.STALE_IN_LIST:
            self._retrieved[batch_id] = record.batch
        return record.batch

    def list(self, *, after: str | None, limit: int) -> list[Batch]:
        """Return up to `limit` batches that lists show after the batch `after`, newest first."""
        batches: list[Batch] = []
        while len(batches) < limit:
            records = self._engine.records(after=after, limit=limit)
            batches += [batch for record in records if (batch := self._listed(record)) is not None]
            if len(records) < limit:
                break
            after = records[-1].batch.id
        return batches[:limit]

    def _listed(self, record: Record) -> Batch | None:
        """Return the batch as lists show it, or None if they do not show it yet."""
        fault, batch = record.fault, record.batch
        if fault is not None and fault.kind is Kind.STALE_IN_LIST:
            return self._retrieved.get(batch.id) or _as_of(batch, batch.created_at - 1)
        if fault is not None and fault.kind is Kind.LATE_IN_LIST:
            moment = self._engine.clock.now() - fault.seconds
            return None if batch.created_at > moment else _as_of(batch, moment)
        return batch


def _as_of(batch: Batch, moment: float) -> Batch:
    """Return a batch as it was at a Unix time. Counts are known only for the end, so before it they are 0."""
    stamps = {name: getattr(batch, name) for name in _STAMPS}
    reached = {name: stamp if stamp is not None and stamp <= moment else None for name, stamp in stamps.items()}
    statuses = [status for name, status in _STAMPS.items() if reached[name] is not None]
    earlier = msgspec.structs.replace(batch, status=statuses[-1] if statuses else Status.VALIDATING, **reached)
    if earlier.ended_at is not None:
        return earlier
    return msgspec.structs.replace(
        earlier,
        model=batch.model if statuses else None,
        errors=None,
        output_file_id=None,
        error_file_id=None,
        request_counts=RequestCounts(total=batch.request_counts.total if statuses else 0),
        usage=BatchUsage(),
    )
