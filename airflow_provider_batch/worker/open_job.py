"""Opens the job that a reference from submit points to."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_provider_batch.core.ledger.ledger import Ledger, open_ledger
from airflow_provider_batch.exceptions import LedgerError
from airflow_provider_batch.staging.layout import open_folder
from airflow_provider_batch.worker.airflow_arguments import read_reference


def open_job(job: Any) -> Ledger:
    """Return the ledger of the job that `job` refers to.

    :raises AirflowSkipException: if submit only made a preview.
    :raises InputError: if `job` is not a reference.
    :raises LedgerError: if staging does not hold the job, or holds another job in its place.
    """
    reference = read_reference("job", job)
    if reference.preview:
        raise AirflowSkipException(
            "The job was a preview: nothing was sent, so there is nothing to wait for or to land."
        )
    ledger = open_ledger(open_folder(reference.ledger))
    if ledger is None:
        raise LedgerError(
            f"{reference.ledger} holds no sealed job {reference.job_uid}. Either this worker does not share the "
            "staging path, or staging was cleaned. Batches that were already created keep running at the provider, and "
            "nothing was sent again. Make staging available to this worker, then clear this task."
        )
    if ledger.manifest.job_uid != reference.job_uid:
        raise LedgerError(
            f"{reference.ledger} holds job {ledger.manifest.job_uid} instead of {reference.job_uid}, because submit "
            "ran again in the meantime. Clear submit together with this task, so that this task gets the new reference."
        )
    return ledger
