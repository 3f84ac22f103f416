"""Bundles the records of a job, so that the next task needs fewer requests to an object store."""

from __future__ import annotations

from airflow_provider_batch.core.ledger.ledger import Ledger
from airflow_provider_batch.exceptions import StagingError
from airflow_provider_batch.worker.log import Log


def bundle_records(ledger: Ledger, log: Log) -> None:
    """Copy the records that are in no bundle yet into a new one. Best effort: failures are logged."""
    try:
        ledger.bundle()
    except StagingError as error:
        log.warning("The records of the job were not bundled, so the next task reads each of them: %s", error)
