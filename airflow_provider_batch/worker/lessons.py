"""What jobs learned, kept in staging beside them for the next job; see `core.lifecycle.lessons`.

It is a help and no more: whatever goes wrong with it is told, and fails nothing.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow_provider_batch.core.ledger.job import JobKey
from airflow_provider_batch.core.ledger.ledger import Ledger
from airflow_provider_batch.core.lifecycle import lessons
from airflow_provider_batch.core.lifecycle.lessons import Learned, QueueLimit
from airflow_provider_batch.exceptions import BatchError
from airflow_provider_batch.staging.layout import find_staging_root, lessons_folder
from airflow_provider_batch.worker.log import Log


def remember(ledger: Ledger, log: Log, *, ended: bool) -> None:
    """Keep what a job taught until now: limits as soon as they are told, the output once the wait has ended."""
    state, manifest = ledger.state(), ledger.manifest
    found = lessons.lessons(state) if ended else lessons.told_limits(state)
    if not found:
        return
    try:
        root = find_staging_root(ledger.folder, manifest.key)
        if root is None:
            return
        new = lessons.remember(lessons_folder(root, manifest.openai_conn_id), found)
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
        return lessons.recall(lessons_folder(root, conn_id), key, datetime.now(UTC))
    except (BatchError, OSError) as error:
        log.warning("What earlier jobs learned is not used: %s", error)
        return Learned()
