"""Runs `airflow-batch` for `python -m airflow_provider_batch.cli`."""

import sys

from airflow_provider_batch.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
