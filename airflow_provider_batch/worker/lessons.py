"""Keeps what a job learned in staging, where the next job finds it; see `core.lifecycle.lessons`.

Best effort: failures are logged and never fail the task.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow_provider_batch.core.ledger.job import JobKey
from airflow_provider_batch.core.ledger.ledger import Ledger
from airflow_provider_batch.core.lifecycle import lessons
from airflow_provider_batch.core.lifecycle.lessons import LearnedFacts, QueueLimit
from airflow_provider_batch.exceptions import BatchError
from airflow_provider_batch.staging.layout import find_staging_root, lessons_folder
from airflow_provider_batch.worker.log import Log


def save_lessons(ledger: Ledger, log: Log, *, ended: bool) -> None:
    """Save what a job has learned so far: queue limits as soon as they are reported, output sizes once the wait ends.

    :param ended: whether the wait has ended.
    """
    state, manifest = ledger.known_state(), ledger.manifest
    learned = lessons.lessons_from(state) if ended else lessons.queue_limits(state)
    if not learned:
        return
    try:
        root = find_staging_root(ledger.folder, manifest.key)
        if root is None:
            return
        new_lessons = lessons.save_lessons(lessons_folder(root, manifest.openai_conn_id), learned)
    except (BatchError, OSError) as error:
        log.warning("Could not save what this job learned for the next one: %s", error)
        return
    for lesson in new_lessons:
        if isinstance(lesson, QueueLimit):
            log.info(
                "Learned: model %s may have %s enqueued tokens at connection %s. Later jobs keep their input files "
                "within that limit.",
                lesson.model,
                f"{lesson.tokens:,}",
                manifest.openai_conn_id,
            )


def load_lessons(root: str, conn_id: str, key: JobKey, log: Log) -> LearnedFacts:
    """Return what earlier jobs of this connection, and of this task, learned."""
    try:
        return lessons.load_lessons(lessons_folder(root, conn_id), key, datetime.now(UTC))
    except (BatchError, OSError) as error:
        log.warning("Could not read what earlier jobs learned; this job continues without it: %s", error)
        return LearnedFacts()
