"""Entry point for `python -m airflow_provider_batch.local`, which does the same as `airflow-batch serve`."""

from __future__ import annotations

import argparse
import sys

from airflow_provider_batch.local import command


def main() -> int:
    """Parse the command line, serve until a signal stops the server, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m airflow_provider_batch.local", description=command.DESCRIPTION)
    command.add_arguments(parser)
    return command.run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
