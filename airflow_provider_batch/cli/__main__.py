"""Lets `python -m airflow_provider_batch.cli` do the same as `airflow-batch`."""

import sys

from airflow_provider_batch.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
