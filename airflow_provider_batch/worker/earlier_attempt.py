"""Notices that an earlier attempt of submit sealed the job on a disk that this machine does not have.

Each of several schedulers with the LocalExecutor runs tasks on its own machine, and a pod without a volume loses its
disk when it is restarted. A retry of submit would not find the job there, seal it once more, and pay for it twice. So
submit leaves a note in Airflow's task state store, which outlives the attempt. Only Airflow 3.3 and later have it.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.ledger.job import Manifest
from airflow_provider_batch.core.ledger.ledger import open_ledger
from airflow_provider_batch.exceptions import UnusableStagingError
from airflow_provider_batch.staging.local import LocalFolder
from airflow_provider_batch.worker.log import Log

if TYPE_CHECKING:
    from airflow.sdk import Context

#: key of the note in the task state store
KEY = "openai_batch.sealed"


def check_earlier_attempt(context: Context, folder: Folder, log: Log) -> None:
    """Check that the job is where an earlier attempt sealed it.

    :raises UnusableStagingError: if it is not. Nothing was uploaded by this attempt.
    """
    note = _note(context, folder, log)
    if not isinstance(note, dict) or open_ledger(folder) is not None:
        return
    raise UnusableStagingError(
        f"An earlier attempt of this task sealed job {note.get('job_uid')} on the machine {note.get('host')!r}, in "
        f"{note.get('folder')}, but on this machine ({socket.gethostname()!r}) there is no job in {folder.uri}. Either "
        "the machines do not share this disk, or the job was removed. Its batches, if any, keep running. Nothing was "
        "uploaded, because its rows could be paid for twice. Set [openai_batch] staging (or staging=) to an object "
        "store such as s3://bucket/batch, or mount this path on every machine that runs tasks. If the job was removed "
        'on purpose, clear submit with the run conf {"batch_resubmit": true} to send every row again.'
    )


def note_seal(context: Context, folder: Folder, manifest: Manifest, log: Log) -> None:
    """Leave a note for later attempts of this task."""
    store = _store(context, folder)
    if store is None:
        return
    try:
        store.set(KEY, {"job_uid": manifest.job_uid, "host": socket.gethostname(), "folder": folder.uri})
    except Exception as error:  # noqa: BLE001  # the job itself does not need the note
        log.debug("Could not leave a note about the seal: %s", error)


def _note(context: Context, folder: Folder, log: Log) -> Any:
    store = _store(context, folder)
    if store is None:
        return None
    try:
        return store.get(KEY)
    except Exception as error:  # noqa: BLE001  # without the note, this attempt knows as much as on Airflow 3.2
        log.debug("Could not read what an earlier attempt sealed: %s", error)
        return None


def _store(context: Context, folder: Folder) -> Any:
    """Return the task state store for a job on a local disk. None for an object store, which all machines share."""
    return context.get("task_state_store") if isinstance(folder, LocalFolder) else None
