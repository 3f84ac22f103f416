"""What jobs learned, kept in staging beside them for the next job; see `jobs.learned`.

It is a help and no more: whatever goes wrong with it is told, and fails nothing.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow_provider_batch.exceptions import BatchError
from airflow_provider_batch.jobs import learned
from airflow_provider_batch.jobs.job import JobKey
from airflow_provider_batch.jobs.learned import Learned, QueueLimit
from airflow_provider_batch.jobs.ledger import Ledger
from airflow_provider_batch.staging import memory_folder, root_of
from airflow_provider_batch.task_log import Log


def remember(ledger: Ledger, log: Log, *, ended: bool) -> None:
    """Keep what a job taught until now: limits as soon as they are told, the output once the wait has ended."""
    state, manifest = ledger.state(), ledger.manifest
    found = learned.lessons(state) if ended else learned.told_limits(state)
    if not found:
        return
    try:
        root = root_of(ledger.folder, manifest.key)
        if root is None:
            return
        new = learned.remember(memory_folder(root, manifest.openai_conn_id), found)
    except (BatchError, OSError) as error:
        log.warning("What this job learned is not kept for the next one: %s", error)
        return
    for lesson in new:
        if isinstance(lesson, QueueLimit):
            log.info(
                "learned: %s may have %s enqueued tokens at connection %s; files of the next jobs are kept within that",
                lesson.model,
                f"{lesson.tokens:,}",
                manifest.openai_conn_id,
            )


def recall(root: str, conn_id: str, key: JobKey, log: Log) -> Learned:
    """What earlier jobs of this connection, and of this task, learned."""
    try:
        return learned.recall(memory_folder(root, conn_id), key, datetime.now(UTC))
    except (BatchError, OSError) as error:
        log.warning("What earlier jobs learned is not used: %s", error)
        return Learned()
