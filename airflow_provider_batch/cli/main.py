"""`airflow-batch`: the command line.

    airflow-batch demo     the DAG label_tickets on real Airflow, offline or live
    airflow-batch serve    the local batch server
    airflow-batch jobs     show, cancel, again, clean: the jobs in staging

Each command is a module with `DESCRIPTION`, `add_arguments(parser)` and `run(arguments) -> exit code`. It is imported
only when it is called: Airflow reads its configuration when it is imported, and a command may need an extra.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import NamedTuple


class Command(NamedTuple):
    """One command."""

    module: str
    #: its line in `airflow-batch --help`
    summary: str
    #: the extra whose packages the module imports; None if it needs none
    extra: str | None = None


COMMANDS = {
    "demo": Command("airflow_provider_batch.demo.command", "run the DAG label_tickets on real Airflow", "demo"),
    "jobs": Command("airflow_provider_batch.cli.jobs.command", "the jobs in staging: show, cancel, again, clean"),
    "serve": Command("airflow_provider_batch.local.command", "the local batch server", "local"),
}


class MissingExtraError(ImportError):
    """A package of an extra is not installed. Says which one, and how to install the extra."""


def load(name: str) -> ModuleType:
    """Import the module of a command.

    :raises MissingExtraError: a package of the extra that the command needs is not installed.
    """
    command = COMMANDS[name]
    try:
        return import_module(command.module)
    except ModuleNotFoundError as error:
        if command.extra is None:
            raise
        raise MissingExtraError(
            f"`airflow-batch {name}` needs the package {error.name}, which is not installed. Install the extra"
            f" `{command.extra}`: pip install 'airflow-provider-batch[{command.extra}]'"
        ) from error


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the process's exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="airflow-batch", description="Warehouse rows through the OpenAI Batch API.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    called = given[0] if given else ""
    for name, command in COMMANDS.items():
        try:
            module = load(name) if name == called else None
        except MissingExtraError as error:
            print(error, file=sys.stderr)
            return 1
        one = commands.add_parser(
            name, help=command.summary, description=module.DESCRIPTION if module else command.summary
        )
        if module is not None:
            module.add_arguments(one)
            one.set_defaults(run=module.run)
    arguments = parser.parse_args(given)
    return int(arguments.run(arguments))
