"""Finds the job that a person names by its uid, its folder, or its DAG and run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from airflow_provider_batch.core.ledger.ledger import Ledger, open_ledger
from airflow_provider_batch.exceptions import BatchError, InputError
from airflow_provider_batch.staging.layout import job_folders, open_folder


def all_jobs(root: str, dag_id: str | None = None) -> Iterator[Ledger | BatchError]:
    """Yield the newest generation of every job under a staging root, or the error if a job cannot be read."""
    for folder in job_folders(root, dag_id):
        try:
            ledger = open_ledger(folder)
        except BatchError as error:
            yield error
        else:
            if ledger is not None:
                yield ledger


def find_job(root: str, words: Sequence[str]) -> Ledger:
    """Return the job that a person names on the command line.

    :param words: `UID` or its first characters, `FOLDER`, or `DAG_ID RUN_ID [TASK_ID]`.
    :raises InputError: if there is no such job, or more than one.
    """
    if len(words) == 1 and ("/" in words[0] or Path(words[0]).is_dir()):
        ledger = open_ledger(open_folder(words[0].rstrip("/")))
        if ledger is None:
            raise InputError(f"{words[0]} contains no sealed job. `airflow-batch jobs show` lists the jobs in {root}.")
        return ledger
    if len(words) == 1:
        jobs = [job for job in _readable_jobs(root) if job.manifest.job_uid.startswith(words[0].lower())]
        description = f"with a uid that starts with {words[0]!r}"
    elif len(words) <= 3:
        dag_id, run_id, task_id = (*words, None)[:3]
        jobs = [
            job
            for job in _readable_jobs(root, dag_id)
            if (job.manifest.key.dag_id, job.manifest.key.run_id) == (dag_id, run_id)
            and task_id in (None, job.manifest.key.task_id)
        ]
        description = f"of DAG {dag_id!r} and run {run_id!r}" + (f", task {task_id!r}" if task_id else "")
    else:
        raise InputError("JOB: Expected a uid or its first characters, a folder, or DAG_ID RUN_ID [TASK_ID].")
    if len(jobs) == 1:
        return jobs[0]
    if not jobs:
        raise InputError(f"There is no job {description} in {root}. `airflow-batch jobs show` lists the jobs there.")
    matches = ", ".join(f"{job.manifest.job_uid} (task {job.manifest.key.task_id})" for job in jobs[:5])
    raise InputError(
        f"There are {len(jobs):,} jobs {description} in {root}: {matches}{', …' if len(jobs) > 5 else ''}. Give the "
        "uid of one of them."
    )


def _readable_jobs(root: str, dag_id: str | None = None) -> Iterator[Ledger]:
    for job in all_jobs(root, dag_id):
        if isinstance(job, Ledger):
            yield job
