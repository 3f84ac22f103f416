"""Finding a job as a person names it: by its uid, its folder, or its DAG and run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from airflow_provider_batch.core.ledger.ledger import Ledger, open_ledger
from airflow_provider_batch.exceptions import BatchError, InputError
from airflow_provider_batch.staging.layout import job_folders, open_folder


def all_jobs(root: str, dag_id: str | None = None) -> Iterator[Ledger | BatchError]:
    """The newest generation of every job under a staging root; in its place the error, if it cannot be read."""
    for folder in job_folders(root, dag_id):
        try:
            ledger = open_ledger(folder)
        except BatchError as error:
            yield error
        else:
            if ledger is not None:
                yield ledger


def find_job(root: str, named: Sequence[str]) -> Ledger:
    """The job that a person means: `UID` (or how it begins), `FOLDER`, or `DAG_ID RUN_ID [TASK_ID]`.

    :raises InputError: if there is none, or more than one.
    """
    if len(named) == 1 and ("/" in named[0] or Path(named[0]).is_dir()):
        ledger = open_ledger(open_folder(named[0].rstrip("/")))
        if ledger is None:
            raise InputError(f"{named[0]} holds no sealed job. `airflow-batch jobs show` lists the jobs in {root}.")
        return ledger
    if len(named) == 1:
        found = [job for job in _readable(root) if job.manifest.job_uid.startswith(named[0].lower())]
        said = f"whose uid begins with {named[0]!r}"
    elif len(named) <= 3:
        dag_id, run_id, task_id = (*named, None)[:3]
        found = [
            job
            for job in _readable(root, dag_id)
            if (job.manifest.key.dag_id, job.manifest.key.run_id) == (dag_id, run_id)
            and task_id in (None, job.manifest.key.task_id)
        ]
        said = f"of DAG {dag_id!r} and run {run_id!r}" + (f", task {task_id!r}" if task_id else "")
    else:
        raise InputError("JOB is a uid or how it begins, a folder, or DAG_ID RUN_ID [TASK_ID].")
    if len(found) == 1:
        return found[0]
    if not found:
        raise InputError(f"There is no job {said} in {root}. `airflow-batch jobs show` lists those that are there.")
    listed = ", ".join(f"{job.manifest.job_uid} (task {job.manifest.key.task_id})" for job in found[:5])
    raise InputError(f"There are {len(found)} jobs {said}: {listed}{', …' if len(found) > 5 else ''}. Name one by uid.")


def _readable(root: str, dag_id: str | None = None) -> Iterator[Ledger]:
    for job in all_jobs(root, dag_id):
        if isinstance(job, Ledger):
            yield job
