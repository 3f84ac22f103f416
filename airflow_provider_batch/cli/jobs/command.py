"""`airflow-batch jobs show | cancel | again | clean`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import msgspec
from airflow.providers.common.compat.sdk import conf

from airflow_provider_batch.cli.jobs.clean import judge
from airflow_provider_batch.cli.jobs.find import all_jobs, find_job
from airflow_provider_batch.cli.jobs.show import listed, shown
from airflow_provider_batch.core.ledger.ledger import Ledger
from airflow_provider_batch.core.ledger.records import BY_PERSON, JobCancelled, ResubmitRequested
from airflow_provider_batch.core.lifecycle.summary import JobSummary, summarize
from airflow_provider_batch.exceptions import BatchError, InputError
from airflow_provider_batch.hooks.batch import BatchHook
from airflow_provider_batch.staging.layout import remove_folder, staging_root
from airflow_provider_batch.worker.cancel import cancel_job

DESCRIPTION = "Look at the jobs in staging, cancel one, ask one anew, clean up."
_JOB = "uid of the job or how it begins, its folder, or DAG_ID RUN_ID [TASK_ID]"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `airflow-batch jobs`."""
    place = argparse.ArgumentParser(add_help=False)
    place.add_argument("--staging", help="staging URI (default: config [openai_batch] staging, as the tasks see it)")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    show = actions.add_parser("show", parents=[place], help="the jobs, or everything about one")
    show.add_argument("job", nargs="*", metavar="JOB", help=_JOB)
    show.add_argument("--limit", type=int, default=20, help="jobs listed, the newest first (default: 20)")
    show.add_argument("--json", action="store_true", help="for machines: one JSON document")

    cancel = actions.add_parser("cancel", parents=[place], help="cancel the batches of a job with the provider")
    cancel.add_argument("job", nargs="+", metavar="JOB", help=_JOB)
    cancel.add_argument("--yes", action="store_true", help="do not ask")

    resubmit = actions.add_parser(
        "resubmit", parents=[place], help="send every row from scratch the next time submit runs"
    )
    resubmit.add_argument("job", nargs="+", metavar="JOB", help=_JOB)
    resubmit.add_argument("--yes", action="store_true", help="do not ask")

    clean = actions.add_parser("clean", parents=[place], help="remove staging of jobs whose retention is over")
    clean.add_argument(
        "--older-than", type=float, metavar="DAYS", help="instead of each job's retention: days since its last event"
    )
    clean.add_argument("--abandoned", action="store_true", help="jobs that never landed too, with what was answered")
    clean.add_argument("--dry-run", action="store_true", help="only say what would be removed")


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return the exit code of the process."""
    # Outside of a task, Airflow looks connections up in its metadata database only for a process that declares itself
    # trusted. There is no public way to say so: Airflow's own commands set this variable too.
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    actions = {"show": _show, "cancel": _cancel, "resubmit": _resubmit, "clean": _clean}
    try:
        return actions[arguments.action](arguments, staging_root(arguments.staging))
    except BatchError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1


def _show(arguments: argparse.Namespace, root: str) -> int:
    if arguments.job:
        summary = summarize(find_job(root, arguments.job))
        print(_json(summary) if arguments.json else "\n".join(shown(summary)))
        return 0
    jobs, unreadable = _summaries(root)
    jobs.sort(key=lambda job: job.sealed_at, reverse=True)
    if arguments.json:
        print(_json(jobs[: arguments.limit]))
    else:
        print("\n".join(listed(jobs[: arguments.limit])) if jobs else f"No jobs in {root}.")
        if len(jobs) > arguments.limit:
            print(f"… and {len(jobs) - arguments.limit} older ones; --limit shows more.")
    for error in unreadable:
        print(f"not readable: {error}", file=sys.stderr)
    return 1 if unreadable else 0


def _cancel(arguments: argparse.Namespace, root: str) -> int:
    ledger = find_job(root, arguments.job)
    manifest, live = ledger.manifest, ledger.state().live_submissions()
    print(f"Job {manifest.job_uid} of DAG {manifest.key.dag_id}, run {manifest.key.run_id}")
    rows = sum(shard.requests for shard, _ in live)
    print(f"{len(live)} batch(es) with {rows:,} requests may be live; what they answered is paid for and kept.")
    if not _sure("Cancel it?", arguments):
        return 1
    ledger.append(JobCancelled(1, datetime.now(UTC)))
    failed = cancel_job(ledger, BatchHook(conn_id=manifest.openai_conn_id), BY_PERSON, print)
    print(
        "Nothing more of this job is sent or asked again. A wait that runs collects what was answered (cancelling may "
        "take 10 minutes) and succeeds; the landing writes it, and judges what is missing. If no wait runs, clear it. "
        "Clearing the wait or submit after this asks the rest: what was answered is kept."
    )
    return 1 if failed else 0


def _resubmit(arguments: argparse.Namespace, root: str) -> int:
    ledger = find_job(root, arguments.job)
    manifest = ledger.manifest
    high = manifest.estimate.high_usd
    cost = "at a cost that is unknown" if high is None else f"for up to about {high:.4f} US dollars"
    print(f"Job {manifest.job_uid} of DAG {manifest.key.dag_id}, run {manifest.key.run_id}")
    print(
        f"All {manifest.requests:,} rows will be sent from scratch {cost}. "
        f"Batches of this job that still run then are cancelled."
    )
    if not _sure("Resubmit the job?", arguments):
        return 1
    ledger.add(ResubmitRequested(datetime.now(UTC)))
    print(
        f"Recorded. Now clear task {manifest.key.task_id!r} and everything after it (in the UI: Clear, "
        "Downstream). It reads the warehouse and sends every row. Answers that have landed stay in the "
        "table until the new ones land."
    )
    return 0


def _clean(arguments: argparse.Namespace, root: str) -> int:
    now = datetime.now(UTC)
    days = arguments.older_than
    if days is not None and days < 0:
        raise InputError(f"--older-than: {days:g} is no number of days.")
    jobs, unreadable = _summaries(root)
    removed = 0
    for job in sorted(jobs, key=lambda one: one.last_at):
        own = job.retention_days if days is None else days
        retention = timedelta(days=conf.getfloat("openai_batch", "retention", fallback=30.0) if own is None else own)
        verdict = judge(job, retention, now, abandoned=arguments.abandoned)
        name = f"{job.job_uid[:8]}  {job.dag_id}  {job.run_id}"
        if verdict.removable:
            removed += 1
            if not arguments.dry_run:
                remove_folder(_reopened(root, job).folder)
            print(f"{'would remove' if arguments.dry_run else 'removed'}  {name}: {verdict.why}")
        else:
            print(f"kept  {name}: {verdict.why}")
    for error in unreadable:
        print(f"kept  (not readable) {error}")
    print(f"{removed} of {len(jobs) + len(unreadable)} jobs {'would be ' if arguments.dry_run else ''}removed.")
    return 0


def _reopened(root: str, job: JobSummary) -> Ledger:
    """The job, if nothing happened to it since it was judged."""
    ledger = find_job(root, [job.folder])
    if summarize(ledger).last_at != job.last_at:
        raise InputError(f"Job {job.job_uid} is being worked on; it was left. Run this again.")
    return ledger


def _summaries(root: str) -> tuple[list[JobSummary], list[BatchError]]:
    """Every job, and what could not be read."""
    jobs: list[JobSummary] = []
    errors: list[BatchError] = []
    for found in _each(root):
        if isinstance(found, JobSummary):
            jobs.append(found)
        else:
            errors.append(found)
    return jobs, errors


def _each(root: str) -> Iterator[JobSummary | BatchError]:
    for ledger in all_jobs(root):
        if isinstance(ledger, BatchError):
            yield ledger
            continue
        try:
            yield summarize(ledger)
        except BatchError as error:
            yield error


def _sure(question: str, arguments: argparse.Namespace) -> bool:
    if arguments.yes:
        return True
    if not sys.stdin.isatty():
        print("Nothing was done: give --yes where nobody can be asked.", file=sys.stderr)
        return False
    if input(f"{question} [y/N] ").strip().lower() in ("y", "yes"):
        return True
    print("Nothing was done.")
    return False


def _json(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
