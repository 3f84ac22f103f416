"""The command `airflow-batch budget`: shows the budgets that jobs share, and releases what a job has reserved."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import NamedTuple

import msgspec

from airflow_provider_batch.cli.confirm import confirm
from airflow_provider_batch.core.formatting import format_count, format_usd
from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.lifecycle.shared_budget import (
    Balance,
    JobAccount,
    Per,
    describe_job,
    period_at,
    release,
)
from airflow_provider_batch.exceptions import BatchError, InputError
from airflow_provider_batch.staging.layout import budget_folders, staging_root
from airflow_provider_batch.worker.budget_log import BudgetLog, read_newest

DESCRIPTION = "Show the budgets of connections and DAG runs, or release what a job that no longer runs has reserved."
#: number of runs to show, newest first
MAX_RUNS = 20


class JobShare(msgspec.Struct, frozen=True):
    """What one job has spent and reserved, in US dollars, as `--json` prints it."""

    job_uid: str
    dag_id: str
    task_id: str
    run_id: str
    map_index: int
    spent: Decimal
    reserved: Decimal
    #: by submission, such as "s0001.1"
    reservations: dict[str, Decimal]


class BudgetSummary(msgspec.Struct, frozen=True):
    """A budget in one period, as `--json` prints it. Amounts are US dollars."""

    #: "connection" or "run"
    kind: str
    #: id of the connection; empty for a run
    conn_id: str
    #: the DAG run; empty for a connection
    dag_id: str
    run_id: str
    per: str
    period: str
    #: None for a run, and for a period that has ended
    ends_at: datetime | None
    limit: Decimal
    spent: Decimal
    reserved: Decimal
    remaining: Decimal
    jobs: list[JobShare]
    #: further jobs that are not listed, and what they have spent
    other_jobs: int
    other_spent: Decimal


class Account(NamedTuple):
    """The newest balance of a budget in one period, and its folder."""

    folder: Folder
    balance: Balance


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options and the action of `airflow-batch budget` to a parser."""
    staging_help = "staging URI (default: config [openai_batch] staging, as for the tasks)"
    parser.add_argument("--staging", help=staging_help)
    parser.add_argument("--all", action="store_true", help="also show periods that have ended, and all runs")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    actions = parser.add_subparsers(dest="action", title="action (default: show the budgets)", metavar="ACTION")
    free = actions.add_parser("release", help="release what a job that no longer runs has reserved")
    free.add_argument("job", metavar="JOB_UID", help="uid of the job or its first characters")
    free.add_argument("--yes", action="store_true", help="do not ask for confirmation")
    # without a value here, the option before the action counts
    free.add_argument("--staging", default=argparse.SUPPRESS, help=staging_help)


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return the exit code of the process."""
    # see `cli.jobs.command`
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    try:
        root = staging_root(arguments.staging)
        return _release(arguments, root) if arguments.action else _show(arguments, root)
    except BatchError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1


def _show(arguments: argparse.Namespace, root: str) -> int:
    now = datetime.now(UTC)
    accounts, errors = _accounts(root)
    balances = [account.balance for account in accounts]
    if not arguments.all:
        balances = _current(balances, now)
    balances.sort(key=lambda balance: (balance.budget.per is Per.RUN, balance.budget.owner, balance.period))
    if arguments.json:
        print(msgspec.json.format(msgspec.json.encode([_summarize(balance, now) for balance in balances])).decode())
    elif not balances:
        print(f"No job has used a budget of a connection or a run in {root}.")
    else:
        print("\n".join(line for balance in balances for line in _describe(balance, now)))
    for error in errors:
        print(f"Cannot read a budget: {error}", file=sys.stderr)
    return 1 if errors else 0


def _current(balances: list[Balance], now: datetime) -> list[Balance]:
    """Return one balance per connection, that of the current period, and those of the newest runs."""
    runs = sorted((balance for balance in balances if balance.budget.per is Per.RUN), key=_time, reverse=True)
    newest: dict[str, Balance] = {}
    for balance in sorted((balance for balance in balances if balance.budget.per is not Per.RUN), key=_time):
        newest[balance.budget.conn_id] = balance
    periods = [(balance, period_at(balance.budget.per, now).name) for balance in newest.values()]
    connections = [
        balance if balance.period == period else Balance(balance.budget, period) for balance, period in periods
    ]
    return [*connections, *runs[:MAX_RUNS]]


def _time(balance: Balance) -> datetime:
    return balance.time or datetime.min.replace(tzinfo=UTC)


def _release(arguments: argparse.Namespace, root: str) -> int:
    accounts, errors = _accounts(root)
    if errors:
        raise errors[0]
    uids = {uid for account in accounts for uid in account.balance.jobs if uid.startswith(arguments.job.lower())}
    if len(uids) != 1:
        number = "no job" if not uids else format_count(len(uids), "job")
        raise InputError(
            f"The budgets in {root} name {number} with a uid that starts with {arguments.job!r}. `airflow-batch budget "
            "--all` lists the jobs."
        )
    (job_uid,) = uids
    holding = [account for account in accounts if job_uid in account.balance.jobs]
    reserved = sum((account.balance.jobs[job_uid].reserved for account in holding), Decimal(0))
    print(f"Job {job_uid} ({describe_job(holding[0].balance.jobs[job_uid].key)}) has reserved {format_usd(reserved)}.")
    if not reserved:
        print("There is nothing to release.")
        return 0
    print(
        "Release it only if the job no longer runs and none of its batches does: what they cost would not be counted. "
        "A job that still runs reserves for its batches once more."
    )
    if not confirm("Release it?", arguments):
        return 1
    for account in holding:
        log = BudgetLog(account.folder, account.balance.budget, account.balance.period)
        log.update(lambda balance: release(balance, job_uid))
    print("Released. Jobs that wait for this budget continue the next time they read it.")
    return 0


def _accounts(root: str) -> tuple[list[Account], list[BatchError]]:
    """Return the balances of all budgets and periods, and the errors of those that cannot be read."""
    accounts: list[Account] = []
    errors: list[BatchError] = []
    for folder in budget_folders(root):
        try:
            newest = read_newest(folder)
        except BatchError as error:
            errors.append(error)
        else:
            accounts += [Account(folder, newest[1])] if newest is not None else []
    return accounts, errors


def _summarize(balance: Balance, now: datetime) -> BudgetSummary:
    budget = balance.budget
    return BudgetSummary(
        kind="run" if budget.per is Per.RUN else "connection",
        conn_id=budget.conn_id,
        dag_id=budget.dag_id,
        run_id=budget.run_id,
        per=budget.per.value,
        period=balance.period,
        ends_at=_end(balance, now),
        limit=budget.usd,
        spent=balance.spent,
        reserved=balance.reserved,
        remaining=balance.remaining(budget.usd),
        jobs=[
            JobShare(
                job_uid,
                job.key.dag_id,
                job.key.task_id,
                job.key.run_id,
                job.key.map_index,
                job.spent,
                job.reserved,
                job.reservations,
            )
            for job_uid, job in _by_amount(balance)
        ],
        other_jobs=balance.settled_jobs,
        other_spent=balance.settled_usd,
    )


def _describe(balance: Balance, now: datetime) -> Iterator[str]:
    """Yield the lines that describe a budget in one period, and a line for each job."""
    budget, ends_at = balance.budget, _end(balance, now)
    owner = f"{budget.owner[0].upper()}{budget.owner[1:]}"
    if budget.per is Per.RUN:
        yield owner
    else:
        end = f", until {ends_at:%Y-%m-%d %H:%M} UTC" if ends_at else ", ended"
        yield f"{owner}, {budget.per} {balance.period}{end}"
    yield (
        f"    limit {format_usd(budget.usd)}, spent {format_usd(balance.spent)}, reserved "
        f"{format_usd(balance.reserved)}, left {format_usd(balance.remaining(budget.usd))}"
    )
    rows = [
        (job_uid[:8], format_usd(job.spent), format_usd(job.reserved), describe_job(job.key))
        for job_uid, job in _by_amount(balance)
    ]
    if balance.settled_jobs:
        rows.append((f"{balance.settled_jobs:,} more", format_usd(balance.settled_usd), format_usd(0), "not listed"))
    if rows:
        rows.insert(0, ("JOB", "SPENT", "RESERVED", "TASK"))
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    for row in rows:
        cells = [row[0].ljust(widths[0]), row[1].rjust(widths[1]), row[2].rjust(widths[2]), row[3]]
        yield f"    {'  '.join(cells)}"


def _by_amount(balance: Balance) -> list[tuple[str, JobAccount]]:
    return sorted(balance.jobs.items(), key=lambda item: item[1].spent + item[1].reserved, reverse=True)


def _end(balance: Balance, now: datetime) -> datetime | None:
    """Return when the period of a balance ends, or None if it has ended or is a run."""
    period = period_at(balance.budget.per, now)
    return period.ends_at if period.name == balance.period else None
