"""The command `airflow-batch jobs`, with the actions list, show, cancel, resubmit and clean."""

from __future__ import annotations

import argparse
import os
import sys
from datetime import UTC, datetime, timedelta
from itertools import islice

import msgspec
from airflow.providers.common.compat.sdk import conf

from airflow_provider_batch.cli.confirm import confirm
from airflow_provider_batch.cli.jobs.clean import judge
from airflow_provider_batch.cli.jobs.find import Selection, find_job, summaries
from airflow_provider_batch.cli.jobs.show import format_job, format_list
from airflow_provider_batch.core.answers.outcome import Outcome
from airflow_provider_batch.core.formatting import format_count, format_usd
from airflow_provider_batch.core.ledger.ledger import Ledger
from airflow_provider_batch.core.ledger.records import ResubmitRequested
from airflow_provider_batch.core.lifecycle.status import JobPhase
from airflow_provider_batch.core.lifecycle.summary import JobSummary, summarize
from airflow_provider_batch.exceptions import BatchError, InputError
from airflow_provider_batch.hooks.open import open_hook
from airflow_provider_batch.staging.layout import remove_folder, staging_root
from airflow_provider_batch.worker.decisions import CANCELLED, cancel, cancel_decision

DESCRIPTION = "List, show, cancel, resubmit or clean up the jobs in staging."
STATES = tuple(dict.fromkeys([*map(str, JobPhase), *map(str, Outcome)]))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions and options of `airflow-batch jobs` to a parser."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--staging", help="staging URI (default: config [openai_batch] staging, as for the tasks)")
    filters = argparse.ArgumentParser(add_help=False)
    filters.add_argument("--dag", dest="dag_id", metavar="DAG_ID", help="jobs of this DAG")
    filters.add_argument("--task", dest="task_id", metavar="TASK_ID", help="jobs that this task submitted")
    # the attribute `run` is the function that runs the command
    filters.add_argument(
        "--run", dest="run_id", metavar="RUN_ID", help="jobs of this run: its run_id or the first characters of it"
    )
    filters.add_argument("--map-index", type=int, metavar="N", help="the job of this mapped task")
    filters.add_argument(
        "--state",
        choices=STATES,
        metavar="STATE",
        help=f"jobs in this state, or with rows of this outcome: {', '.join(STATES)}",
    )
    job = argparse.ArgumentParser(add_help=False)
    job.add_argument("job", nargs="?", metavar="JOB", help="uid of the job or its first characters, or its folder")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    list_ = actions.add_parser("list", parents=[common, filters], help="list jobs, the newest first")
    list_.add_argument("--limit", type=int, default=20, help="number of jobs to list (default: 20)")
    list_.add_argument("--json", action="store_true", help="print one JSON document")

    show = actions.add_parser("show", parents=[common, job, filters], help="show everything about one job")
    show.add_argument("--json", action="store_true", help="print one JSON document")

    cancel = actions.add_parser("cancel", parents=[common, job, filters], help="cancel the batches of a job")
    cancel.add_argument("--yes", action="store_true", help="do not ask for confirmation")

    resubmit = actions.add_parser(
        "resubmit", parents=[common, job, filters], help="send every row from scratch the next time submit is cleared"
    )
    resubmit.add_argument("--yes", action="store_true", help="do not ask for confirmation")

    clean = actions.add_parser("clean", parents=[common], help="remove jobs whose retention has passed from staging")
    clean.add_argument(
        "--older-than",
        type=float,
        metavar="DAYS",
        help="days since the last event, instead of each job's own retention",
    )
    clean.add_argument(
        "--abandoned", action="store_true", help="also remove jobs that never landed, with their answers"
    )
    clean.add_argument("--dry-run", action="store_true", help="only print what would be removed")


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return the exit code of the process."""
    # Outside of a task, Airflow reads connections from its metadata database only if the process declares itself
    # trusted. There is no public way to do that; Airflow's own commands also set this variable.
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    actions = {"list": _list, "show": _show, "cancel": _cancel, "resubmit": _resubmit, "clean": _clean}
    try:
        return actions[arguments.action](arguments, staging_root(arguments.staging))
    except BatchError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1


def _list(arguments: argparse.Namespace, root: str) -> int:
    if arguments.limit < 1:
        raise InputError(f"--limit: Expected a number of jobs of at least 1, got {arguments.limit}.")
    selection, errors = _selection(arguments), list[BatchError]()
    jobs = list(islice(summaries(root, selection, errors), arguments.limit + 1))
    newest = jobs[: arguments.limit]
    if arguments.json:
        print(_json(newest))
    elif jobs:
        print("\n".join(format_list(newest, datetime.now(UTC))))
        if len(jobs) > len(newest):
            print("… and older jobs; --limit shows more.")
    else:
        print(f"No jobs {selection.description} in {root}.".replace("  ", " "))
    for error in errors:
        print(f"Cannot read a job: {error}", file=sys.stderr)
    return 1 if errors else 0


def _show(arguments: argparse.Namespace, root: str) -> int:
    summary = summarize(_find(arguments, root))
    print(_json(summary) if arguments.json else "\n".join(format_job(summary, datetime.now(UTC))))
    return 0


def _selection(arguments: argparse.Namespace) -> Selection:
    return Selection(
        job=getattr(arguments, "job", None),
        dag_id=arguments.dag_id,
        task_id=arguments.task_id,
        run_id=arguments.run_id,
        map_index=arguments.map_index,
        state=arguments.state,
    )


def _find(arguments: argparse.Namespace, root: str) -> Ledger:
    """Return the job that the arguments select. Raise InputError if they select none or several."""
    selection = _selection(arguments)
    if selection == Selection():
        raise InputError(
            "Say which job: JOB, its uid or the first characters of it, or --dag and --run. `airflow-batch jobs list` "
            "lists the jobs."
        )
    return find_job(root, selection)


def _cancel(arguments: argparse.Namespace, root: str) -> int:
    ledger = _find(arguments, root)
    manifest = ledger.manifest
    print(f"Job {manifest.job_uid} of DAG {manifest.key.dag_id}, run {manifest.key.run_id}")
    print(cancel_decision(ledger.state()).explanation)
    if not confirm("Cancel the job?", arguments):
        return 1
    failed = cancel(ledger, open_hook(manifest.openai_conn_id), print)
    print(CANCELLED)
    return 1 if failed else 0


def _resubmit(arguments: argparse.Namespace, root: str) -> int:
    ledger = _find(arguments, root)
    manifest = ledger.manifest
    high = manifest.estimate.high_usd
    cost = "at an unknown cost" if high is None else f"for up to about {format_usd(high)}"
    print(f"Job {manifest.job_uid} of DAG {manifest.key.dag_id}, run {manifest.key.run_id}")
    print(
        f"{format_count(manifest.requests, 'row')} will be sent from scratch {cost}. "
        "Batches of this job that are still running by then will be cancelled."
    )
    if not confirm("Resubmit the job?", arguments):
        return 1
    ledger.add(ResubmitRequested(datetime.now(UTC)))
    print(
        f"Recorded. Now clear task {manifest.key.task_id!r} and everything after it (in the UI: Clear, "
        "Downstream). It reads the warehouse and sends every row. Answers that have landed stay in the table "
        "until the new ones land."
    )
    return 0


def _clean(arguments: argparse.Namespace, root: str) -> int:
    now = datetime.now(UTC)
    days = arguments.older_than
    if days is not None and days < 0:
        raise InputError(f"--older-than: Expected a number of days of at least 0, got {days:g}.")
    errors: list[BatchError] = []
    jobs = list(summaries(root, Selection(), errors))
    removed = 0
    for job in sorted(jobs, key=lambda job: job.last_at):
        retention_days = job.retention_days if days is None else days
        if retention_days is None:
            retention_days = conf.getfloat("openai_batch", "retention", fallback=30.0)
        verdict = judge(job, timedelta(days=retention_days), now, include_abandoned=arguments.abandoned)
        name = f"{job.job_uid[:8]}  {job.dag_id}  {job.run_id}"
        if verdict.removable:
            removed += 1
            if not arguments.dry_run:
                remove_folder(_reopen(root, job).folder)
            print(f"{'would remove' if arguments.dry_run else 'removed'}  {name}: {verdict.reason}")
        else:
            print(f"kept  {name}: {verdict.reason}")
    for error in errors:
        print(f"kept  a job that cannot be read: {error}")
    print(f"{removed} of {len(jobs) + len(errors)} jobs {'would be ' if arguments.dry_run else ''}removed.")
    return 0


def _reopen(root: str, job: JobSummary) -> Ledger:
    """Return the ledger of a job. Raise InputError if anything has happened to it since its summary was made."""
    ledger = find_job(root, Selection(job=job.folder))
    if summarize(ledger).last_at != job.last_at:
        raise InputError(
            f"A task is working on job {job.job_uid}, so it was not removed. Run this command again later."
        )
    return ledger


def _json(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
