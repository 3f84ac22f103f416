"""Finds the jobs that a person names by uid, folder, DAG, task, run, map index or state."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec

from airflow_provider_batch.core.formatting import format_count, format_time
from airflow_provider_batch.core.ledger.ledger import Ledger, open_ledger
from airflow_provider_batch.core.lifecycle.summary import JobSummary, summarize
from airflow_provider_batch.exceptions import BatchError, InputError
from airflow_provider_batch.staging.layout import job_folders, open_folder

#: maximum number of jobs, DAGs or runs that an error names
_NAMED = 10


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Which jobs a person means. None means any."""

    #: uid or its first characters, or the address of the folder
    job: str | None = None
    dag_id: str | None = None
    task_id: str | None = None
    #: run_id or its first characters
    run_id: str | None = None
    map_index: int | None = None
    #: phase of the job, or outcome of some of its rows
    state: str | None = None

    def matches(self, ledger: Ledger) -> bool:
        """Return whether a job is one of those, regardless of its state."""
        manifest, key = ledger.manifest, ledger.manifest.key
        return (
            (self.job is None or self.is_folder or manifest.job_uid.startswith(self.job.lower()))
            and self.dag_id in (None, key.dag_id)
            and self.task_id in (None, key.task_id)
            and (self.run_id is None or key.run_id.startswith(self.run_id))
            and self.map_index in (None, key.map_index)
        )

    @property
    def is_folder(self) -> bool:
        """Whether `job` is the address of a folder."""
        return self.job is not None and ("/" in self.job or Path(self.job).is_dir())

    @property
    def description(self) -> str:
        """What continues the sentence "There is no job ..."."""
        parts = [
            ("with a uid that starts with", self.job),
            ("of DAG", self.dag_id),
            ("of task", self.task_id),
            ("of run", self.run_id),
            ("with map index", self.map_index),
            ("in state", self.state),
        ]
        return " ".join(f"{words} {value!r}" for words, value in parts if value is not None)


def all_jobs(root: str, selection: Selection | None = None) -> Iterator[Ledger | BatchError]:
    """Yield the newest generation of every job under a staging root, or the error if a job cannot be read.

    :param selection: folders that cannot have one of these jobs are not read.
    """
    criteria = selection or Selection()
    for folder in job_folders(root, criteria.dag_id, criteria.task_id, criteria.run_id):
        try:
            ledger = open_ledger(folder)
        except BatchError as error:
            yield error
        else:
            if ledger is not None and criteria.matches(ledger):
                yield ledger


def summaries(root: str, selection: Selection, errors: list[BatchError]) -> Iterator[JobSummary]:
    """Yield the summaries of the selected jobs, newest first.

    :param errors: gets the errors of the jobs that cannot be read.
    """
    ledgers = []
    for job in [_open(selection.job, root)] if selection.is_folder and selection.job else all_jobs(root, selection):
        if isinstance(job, Ledger):
            ledgers.append(job)
        else:
            errors.append(job)
    for ledger in sorted(ledgers, key=lambda ledger: ledger.manifest.sealed_at, reverse=True):
        try:
            summary = summarize(ledger)
        except BatchError as error:
            errors.append(error)
            continue
        if selection.state is None or selection.state == summary.phase or summary.outcomes.get(selection.state):
            yield summary


def find_job(root: str, selection: Selection) -> Ledger:
    """Return the job that a person selects.

    :raises InputError: if there is no such job, or more than one. The message names those that exist.
    """
    if selection.is_folder and selection.job:
        return _open(selection.job, root)
    errors: list[BatchError] = []
    jobs = list(summaries(root, selection, errors))
    exact = [job for job in jobs if job.run_id == selection.run_id]
    jobs = exact or jobs
    if not jobs:
        unread = f" {format_count(len(errors), 'job')} there cannot be read: {errors[0]}" if errors else ""
        raise InputError(f"There is no job {selection.description} in {root}. {_what_exists(root, selection)}{unread}")
    if len(jobs) > 1:
        lines = "\n".join(_line(job) for job in jobs[:_NAMED])
        more = f"\n  … and {len(jobs) - _NAMED:,} more" if len(jobs) > _NAMED else ""
        raise InputError(
            f"There are {len(jobs):,} jobs {selection.description} in {root}:\n{lines}{more}\n"
            f"{_how_to_narrow(jobs)} Or give the uid of one of them."
        )
    return _open(jobs[0].folder, root)


def _open(address: str, root: str) -> Ledger:
    ledger = open_ledger(open_folder(address.rstrip("/")))
    if ledger is None:
        raise InputError(f"{address} contains no sealed job. `airflow-batch jobs list` lists the jobs in {root}.")
    return ledger


def _line(job: JobSummary) -> str:
    index = f"[{job.map_index}]" if job.map_index >= 0 else ""
    sealed = format_time(job.sealed_at, datetime.now(UTC))
    return f"  {job.job_uid[:8]}  {job.dag_id}  {job.task_id}{index}  {job.run_id}  sealed {sealed}; {job.state}"


def _how_to_narrow(jobs: Iterable[JobSummary]) -> str:
    """Return which options tell the jobs apart."""
    jobs = list(jobs)
    values: dict[str, set[Any]] = {
        "--dag": {job.dag_id for job in jobs},
        "--run": {job.run_id for job in jobs},
        "--task": {job.task_id for job in jobs},
        "--map-index": {job.map_index for job in jobs},
        "--state": {job.phase for job in jobs},
    }
    options = [option for option, different in values.items() if len(different) > 1]
    return f"Narrow it down with {' or '.join(options)}." if options else ""


def _what_exists(root: str, selection: Selection) -> str:
    """Return which DAGs, tasks or runs have jobs, for a person whose selection has none."""
    listing = "`airflow-batch jobs list` lists the jobs there."
    if selection.dag_id is None:
        return listing
    keys = [job.manifest.key for job in all_jobs(root, Selection(dag_id=selection.dag_id)) if isinstance(job, Ledger)]
    if not keys:
        all_keys = (job.manifest.key for job in all_jobs(root) if isinstance(job, Ledger))
        return _suggestion("DAGs", selection.dag_id, {key.dag_id for key in all_keys}) or listing
    if selection.run_id is not None and not any(key.run_id.startswith(selection.run_id) for key in keys):
        return _suggestion(f"runs of DAG {selection.dag_id!r}", selection.run_id, {key.run_id for key in keys})
    if selection.task_id is not None and not any(key.task_id == selection.task_id for key in keys):
        return _suggestion(f"tasks of DAG {selection.dag_id!r}", selection.task_id, {key.task_id for key in keys})
    return f"`airflow-batch jobs list --dag {selection.dag_id}` lists the jobs of this DAG."


def _suggestion(noun: str, word: str, choices: Collection[str]) -> str:
    if not choices:
        return ""
    close = get_close_matches(word, choices, n=1, cutoff=0.6)
    question = f"Did you mean {close[0]!r}? " if close else ""
    newest = sorted(choices, reverse=True)[:_NAMED]
    more = f" and {len(choices) - _NAMED:,} more" if len(choices) > _NAMED else ""
    return f"{question}The {noun} with jobs there are {', '.join(newest)}{more}."
