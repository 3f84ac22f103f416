"""The reference that submit returns, as the next tasks take it."""

from __future__ import annotations

from typing import Any

import msgspec
from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_provider_batch.core.ledger.job import Reference
from airflow_provider_batch.core.ledger.ledger import Ledger, open_ledger
from airflow_provider_batch.exceptions import InputError, LedgerError
from airflow_provider_batch.staging.layout import open_folder


def open_job(job: Any) -> Ledger:
    """The ledger of a referenced job.

    :raises AirflowSkipException: if submit only made a preview.
    :raises InputError: if the argument is no reference.
    :raises LedgerError: if staging does not hold the job, or holds another one in its place.
    """
    try:
        reference = msgspec.convert(job, Reference)
    except msgspec.ValidationError as error:
        raise InputError(
            f"job: {type(job).__name__} is no reference to a job ({error}). Pass what BatchSubmitOperator returns: "
            "job=submit.output."
        ) from error
    if reference.preview:
        raise AirflowSkipException("The job was a preview: nothing was asked, so there is nothing to wait for or land.")
    ledger = open_ledger(open_folder(reference.ledger))
    if ledger is None:
        raise LedgerError(
            f"{reference.ledger} holds no sealed job {reference.job_uid}. Is staging a path that this worker does not "
            "share, or was it cleaned? Batches that were created go on with the provider; nothing was asked again."
        )
    if ledger.manifest.job_uid != reference.job_uid:
        raise LedgerError(
            f"{reference.ledger} holds job {ledger.manifest.job_uid}, not {reference.job_uid}: submit was run again "
            "since. Clear this task together with submit, so that it gets the new reference."
        )
    return ledger
