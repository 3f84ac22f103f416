"""Deletes a job's files at the provider once staging has a copy of them."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow_provider_batch.core.formatting import format_count
from airflow_provider_batch.core.ledger.ledger import Ledger
from airflow_provider_batch.core.ledger.records import FilesDeleted
from airflow_provider_batch.core.ledger.state import Phase
from airflow_provider_batch.exceptions import BatchError
from airflow_provider_batch.hooks.open import open_hook
from airflow_provider_batch.worker.log import Log
from airflow_provider_batch.worker.uploaded_files import UploadedFiles


def delete_remote_files(ledger: Ledger, log: Log) -> None:
    """Delete the input and result files of every settled shard, if the job was submitted with `delete_remote_files`.

    The files to which requests refer are deleted once all shards are settled.

    Best effort: failures are logged and never fail the task. The next landing tries again.
    """
    if not ledger.manifest.delete_remote_files:
        return
    state, deleted_count = ledger.state(), 0
    try:
        hook = open_hook(ledger.manifest.openai_conn_id)
        hook.check()
        for shard in state.shards.values():
            # a shard that may still be retried needs its input file
            if shard.phase is not Phase.SETTLED:
                continue
            for submission in shard.submissions:
                if (shard.name, submission.number) in state.files_deleted:
                    continue
                results = [file.file_id for file in submission.settled.files] if submission.settled else []
                for file_id in filter(None, (submission.file_id, *results)):
                    hook.delete(file_id)
                    deleted_count += 1
                ledger.add(FilesDeleted(shard.name, submission.number, datetime.now(UTC)))
        if ledger.manifest.uploads_files and all(shard.phase is Phase.SETTLED for shard in state.shards.values()):
            deleted_count += UploadedFiles(ledger.folder, hook).delete()
    except BatchError as error:
        log.warning("%s Some files were not deleted at the provider. Clear this task to try again.", error)
    if deleted_count:
        log.info("Deleted %s at the provider; staging has a copy of everything", format_count(deleted_count, "file"))
