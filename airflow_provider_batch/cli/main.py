"""`airflow-batch`: the command line.

    airflow-batch demo     the DAG label_tickets on real Airflow, offline or live
    airflow-batch serve    the local batch server
    airflow-batch jobs     show, cancel, again, clean: the jobs in staging

Each command is a module with `DESCRIPTION`, `add_arguments(parser)` and `run(arguments) -> exit code`. It is imported
only if it is asked for, as Airflow reads its configuration when it is imported.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

#: command -> module, and its line in `airflow-batch --help`
COMMANDS = {
    "demo": ("airflow_provider_batch.demo.command", "run the DAG label_tickets on real Airflow"),
    "jobs": ("airflow_provider_batch.cli.jobs.command", "the jobs in staging: show, cancel, again, clean"),
    "serve": ("airflow_provider_batch.local.command", "the local batch server"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the process's exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="airflow-batch", description="Warehouse rows through the OpenAI Batch API.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    asked = given[0] if given else ""
    for name, (path, summary) in COMMANDS.items():
        module = import_module(path) if name == asked else None
        one = commands.add_parser(name, help=summary, description=module.DESCRIPTION if module else summary)
        if module is not None:
            module.add_arguments(one)
            one.set_defaults(run=module.run)
    arguments = parser.parse_args(given)
    return int(arguments.run(arguments))
