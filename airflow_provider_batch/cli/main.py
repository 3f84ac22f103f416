"""The entry point of the command-line tool `airflow-batch`.

    airflow-batch doctor   check what a job needs, and say how to fix what is wrong
    airflow-batch init     write a first DAG from the answers to a few questions
    airflow-batch demo     run the DAG label_tickets on real Airflow, offline or live
    airflow-batch serve    run the local batch server
    airflow-batch jobs     show, cancel, resubmit or clean up the jobs in staging
    airflow-batch evals    import evals of other tools into the table of cases
    airflow-batch budget   show the budgets that jobs share, or release what a dead job has reserved

Each command is a module with `DESCRIPTION`, `add_arguments(parser)` and `run(arguments) -> exit code`. A module is
imported only when its command is called, because importing Airflow reads its configuration, and because a command may
need an extra.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import NamedTuple


class Command(NamedTuple):
    """A command of `airflow-batch`."""

    module: str
    #: one line for `airflow-batch --help`
    summary: str
    #: extra whose packages the module imports, if any
    extra: str | None = None


COMMANDS = {
    "budget": Command(
        "airflow_provider_batch.cli.budget", "show the budgets that jobs share, or release a reservation"
    ),
    "demo": Command("airflow_provider_batch.demo.command", "run the DAG label_tickets on real Airflow", "demo"),
    "doctor": Command(
        "airflow_provider_batch.cli.doctor.command", "check what a job needs, and say how to fix what is wrong"
    ),
    "evals": Command("airflow_provider_batch.cli.evals", "import evals of other tools into the table of cases"),
    "init": Command("airflow_provider_batch.cli.init.command", "write a first DAG from the answers to a few questions"),
    "jobs": Command(
        "airflow_provider_batch.cli.jobs.command", "show, cancel, resubmit or clean up the jobs in staging"
    ),
    "serve": Command("airflow_provider_batch.local.command", "run the local batch server", "local"),
}


class MissingExtraError(ImportError):
    """Raised if a package of an extra is not installed. The message says how to install the extra."""


def load(name: str) -> ModuleType:
    """Import and return the module of a command.

    :raises MissingExtraError: if a package of the extra that the command needs is not installed.
    """
    command = COMMANDS[name]
    try:
        return import_module(command.module)
    except ModuleNotFoundError as error:
        if command.extra is None:
            raise
        raise MissingExtraError(
            f"`airflow-batch {name}` needs the package {error.name}, which is not installed. Install the extra "
            f"`{command.extra}`: pip install 'airflow-provider-batch[{command.extra}]'"
        ) from error


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code of the process."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="airflow-batch", description="Send warehouse rows through the OpenAI Batch API."
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    command_name = words[0] if words else ""
    for name, command in COMMANDS.items():
        try:
            module = load(name) if name == command_name else None
        except MissingExtraError as error:
            print(error, file=sys.stderr)
            return 1
        subparser = commands.add_parser(
            name, help=command.summary, description=module.DESCRIPTION if module else command.summary
        )
        if module is not None:
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
    arguments = parser.parse_args(words)
    return int(arguments.run(arguments))
