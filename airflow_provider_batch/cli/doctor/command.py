"""The command `airflow-batch doctor`."""

from __future__ import annotations

import argparse
import io
import logging
import os
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout

import msgspec

from airflow_provider_batch.cli.doctor.check import Check, Group, Status, run_groups
from airflow_provider_batch.core.formatting import format_count

DESCRIPTION = (
    "Check what a job needs, and say how to fix what is wrong. Nothing is billed, and nothing is left behind. The exit "
    "code is 1 if there is a problem. Run it where the tasks run: on a worker."
)
#: time for each group of checks, in seconds
TIME_LIMIT = 15.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `airflow-batch doctor` to a parser."""
    parser.add_argument(
        "--conn-id", default="openai_default", help="connection to the provider (default: openai_default)"
    )
    parser.add_argument("--warehouse-conn-id", metavar="CONN_ID", help="connection to a warehouse (default: none)")
    parser.add_argument("--table", help="results table, for the check of the rights in the warehouse")
    parser.add_argument(
        "--model", action="append", default=[], metavar="MODEL", help="model to look up; may be repeated"
    )
    parser.add_argument("--staging", help="staging URI (default: config [openai_batch] staging, as for the tasks)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return the exit code of the process."""
    # see `cli.jobs.command`
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    with _quiet():
        checks = run_groups(_groups(arguments), TIME_LIMIT, _hide_secrets)
    if arguments.json:
        print(msgspec.json.format(msgspec.json.encode(checks)).decode())
    else:
        print("\n".join(format_checks(checks)))
    return 1 if any(check.status is Status.PROBLEM for check in checks) else 0


def _groups(arguments: argparse.Namespace) -> list[tuple[str, Group]]:
    # imported here, so that the time that Airflow's imports take does not count
    from airflow_provider_batch.cli.doctor.installation import check_installation, check_triggerer
    from airflow_provider_batch.cli.doctor.provider import check_provider
    from airflow_provider_batch.cli.doctor.staging import check_staging

    groups: list[tuple[str, Group]] = [
        ("connection", lambda: check_provider(arguments.conn_id, arguments.model)),
        ("staging", lambda: check_staging(arguments.staging)),
        ("triggerer", check_triggerer),
        ("installation", check_installation),
    ]
    if arguments.warehouse_conn_id:
        from airflow_provider_batch.cli.doctor.warehouse import check_warehouse

        groups.append(("warehouse", lambda: check_warehouse(arguments.warehouse_conn_id, arguments.table)))
    return groups


def format_checks(checks: Sequence[Check]) -> Iterator[str]:
    """Yield the lines of the output: one for each check, with what to do below it, and a summary."""
    width = max(len(check.name) for check in checks)
    indent = " " * (len(Status.PROBLEM) + width + 4)
    for check in checks:
        yield f"{check.status:<{len(Status.PROBLEM)}}  {check.name:<{width}}  {' '.join(check.message.split())}"
        if check.fix:
            yield from textwrap.wrap(
                f"Fix: {check.fix}",
                110,
                initial_indent=indent,
                subsequent_indent=f"{indent}     ",
                break_long_words=False,
                break_on_hyphens=False,
            )
    problems = sum(check.status is Status.PROBLEM for check in checks)
    odd = sum(check.status is Status.WARNING for check in checks)
    if problems or odd:
        yield f"{format_count(problems, 'problem')}, {format_count(odd, 'warning')}. Nothing was billed."
    else:
        yield "No problems. Nothing was billed."


def _hide_secrets(text: str) -> str:
    from airflow.sdk.log import redact  # type: ignore[attr-defined]  # imported there, but not exported

    return str(redact(text))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep log lines and warnings out of the output: the checks say what is wrong.

    Airflow's own log lines go to the standard output, where they would break the JSON document.
    """
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
